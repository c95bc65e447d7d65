"""The numbers of the papers, and which of them a study reproduces."""
