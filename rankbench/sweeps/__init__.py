"""Which runs a sweep is made of, and in which order they can start."""
