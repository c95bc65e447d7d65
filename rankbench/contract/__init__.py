"""The contract of a method, checked on short runs."""
