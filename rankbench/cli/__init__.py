"""The commands, one file each; this file chooses among them."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "run": "run",
    "plan": "plan",
    "status": "status",
    "report": "report",
    "verify": "verify",
    "records": "records",
    "compare": "compare_runs",
    "noise": "noise",
    "methods": "methods",
    "check": "check",
    "quadrature": "quadrature",
}


def main() -> int:
    """Run the command that the first word names; a first word that is no command belongs to a run."""
    words = sys.argv[1:]
    command = words[0] if words and words[0] in COMMANDS else "run"
    rest = words[1:] if words and words[0] == command else words
    module = import_module(f"rankbench.cli.{COMMANDS[command]}")
    entry = "main"
    for first, name in {
        "table": "tables_main",
        "maps": "figures_main",
        "--published": "published_main",
        "--wandb": "mirror_main",
    }.items():
        if rest[:1] == [first] and hasattr(module, name):
            entry, rest = name, rest[1:]
    sys.argv = ["rankbench", *rest]
    return int(getattr(module, entry)() or 0)
