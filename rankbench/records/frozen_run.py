"""A frozen run: its complete configuration in a separate file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankbench.files import write_atomically
from rankbench.records.run_folder import RunFolder


@dataclass(frozen=True)
class FrozenRun:
    """A run as a sweep froze it, in a separate file.

    Attributes:
        run_id: name of the run.
        config: resolved configuration.
        title: text for lists of runs.
        redo: digest of the failed record it replaces; None where there is none, or it is to stand.
    """

    run_id: str
    config: dict[str, Any]
    title: str
    redo: str | None = None

    @property
    def folder(self) -> RunFolder:
        """Folder of this run."""
        return RunFolder(Path(self.config["results_dir"]), self.run_id)

    def write(self, file: Path) -> None:
        """Write the file that `read` reads, unless it is there as it would be written."""
        content = json.dumps(vars(self)).encode()
        if not file.is_file() or file.read_bytes() != content:
            write_atomically(file, content, sync=False)

    @classmethod
    def read(cls, file: Path) -> FrozenRun:
        """Read a frozen run from its file."""
        return cls(**json.loads(file.read_text()))
