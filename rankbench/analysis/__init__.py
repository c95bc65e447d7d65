"""Records in, comparisons out."""
