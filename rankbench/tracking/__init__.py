"""Weights & Biases: a copy of what the records hold, never a source of numbers."""
