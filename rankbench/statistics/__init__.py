"""Estimates, tests and decision rules: arrays in, numbers out."""
