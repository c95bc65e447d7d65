"""Reads what a W&B run left on disk: the .wandb file (LevelDB's log format, wandb's own messages) and its media."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.harness import ENVIRONMENT
from wandb.proto.wandb_internal_pb2 import Record

HEADER, BLOCK, FRAME = 7, 2**15, struct.Struct("<IHB")  # file header; crc, length and kind of a piece
FULL, LAST = 1, 4


@dataclass
class Mirrored:
    """A W&B run as read from its files.

    Attributes:
        history: rows in order, each with its `_step`.
        artifacts: text of each file, by artifact type and file name.
        best: name of a metric -> "min" or "max", which is its summary.
    """

    folder: Path
    run: Any = None
    exit_code: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, dict[str, str]] = field(default_factory=dict)
    best: dict[str, str] = field(default_factory=dict)

    def media(self, key: str) -> Path:
        """The file behind a picture or a table."""
        (found,) = [row[f"{key}.path"] for row in self.history if f"{key}.path" in row]
        return self.folder / "files" / str(found)


def read(file: Path) -> Mirrored:
    """Read a run from its .wandb file."""
    found = Mirrored(file.parent)
    for content in _pieces(file.read_bytes()):
        record = Record.FromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= _items(record.run.config.update)
        elif kind == "config":
            found.config |= _items(record.config.update)
        elif kind == "history":
            found.history.append({"_step": record.history.step.num, **_items(record.history.item)})
        elif kind == "summary":
            found.summary |= _items(record.summary.update)
        elif kind == "metric" and (record.metric.summary.min or record.metric.summary.max):
            found.best[record.metric.name] = "min" if record.metric.summary.min else "max"
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            _add(found, record.request.log_artifact.artifact)
        elif kind == "artifact":
            _add(found, record.artifact)
    return found


def _add(found: Mirrored, artifact: Any) -> None:
    files = {entry.path: Path(entry.local_path).read_text() for entry in artifact.manifest.contents}
    found.artifacts.setdefault(artifact.type, {}).update(files)


def _items(items: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def _pieces(content: bytes) -> Iterator[bytes]:
    place, whole = HEADER, b""
    while place + FRAME.size <= len(content):
        room = BLOCK - place % BLOCK
        if room < FRAME.size:
            place += room
            continue
        _, length, kind = FRAME.unpack_from(content, place)
        place += FRAME.size
        whole += content[place : place + length]
        place += length
        if kind in (FULL, LAST):
            yield whole
            whole = b""


def alone(home, **environment):
    """The environment of a user without a W&B key."""
    kept = {key: value for key, value in ENVIRONMENT.items() if not key.startswith("WANDB") and key != "NETRC"}
    return {**kept, "HOME": str(home), **environment}


def the_file(folder, kind="offline-run"):
    (found,) = folder.glob(f"wandb/{kind}-*/run-*.wandb")
    return found
