"""Executes runs in turn in one process; `accelerate launch` starts it for tests/training/test_distributed.py.

python tests/support/in_turn.py RESULTS METHOD,METHOD,... [OVERRIDE ...]
"""

import sys
from pathlib import Path

from harness import configure

from rankbench.training.run import execute

if __name__ == "__main__":
    results, methods, *overrides = sys.argv[1:]
    sys.exit(max(execute(configure(Path(results), f"method={name}", *overrides)) for name in methods.split(",")))
