"""A sweep together with its records, as a report reads it."""
