"""Content hashes of files and folders: what makes local data and weights part of a run's identity."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


def fingerprint(path: Path) -> str:
    """sha256 (64 hex digits) of a file's content, or of a folder's files: sorted relative names and contents.

    Hidden files and folders (".git", ".cache") do not count. A file is read once per process as long as its size and
    modification time stay.

    Raises:
        FileNotFoundError: no file or folder at `path`.
    """
    path = path.resolve()
    if path.is_file():
        return _content(path, *_stamp(path))
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist, so it has no fingerprint")
    digest = hashlib.sha256()
    for name, file in sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file()):
        if not any(part.startswith(".") for part in name.split("/")):
            digest.update(f"{name}\0{_content(file, *_stamp(file))}\n".encode())
    return digest.hexdigest()


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


@cache
def _content(file: Path, size: int, modified: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
