"""From a command line to one checked configuration."""
