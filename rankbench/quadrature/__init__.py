"""Errors of integrated gradients on the path of a real run."""
