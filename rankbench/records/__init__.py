"""Runs on disk: records, run folders, frozen runs."""
