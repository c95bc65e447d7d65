"""What the text tasks share: data files, tokens, decoding, scoring of answers."""
