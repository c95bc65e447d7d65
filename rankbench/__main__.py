"""`python -m rankbench` is the command `rankbench`."""

import sys

from rankbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
