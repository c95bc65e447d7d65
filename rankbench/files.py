"""Files: atomic writes, hashes of content, the cache folder."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from functools import cache
from pathlib import Path

from rankbench import RankbenchError


class FolderError(RankbenchError, RuntimeError):
    """A folder of rankbench's own that cannot be had."""


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


def default_cache() -> Path:
    """$RANKBENCH_CACHE, else ~/.cache/rankbench.

    Raises:
        FolderError: the process has no home directory.
    """
    try:
        return Path(os.environ.get("RANKBENCH_CACHE") or Path.home() / ".cache" / "rankbench").expanduser()
    except RuntimeError as error:
        raise FolderError(
            "there is no home directory for converted models; set RANKBENCH_CACHE to a folder that can be written"
        ) from error


def expanded(path: str | Path) -> Path:
    """The path with the home directory in place of a leading ~; as it is where there is none."""
    return Path(os.path.expanduser(path))  # Path.expanduser ends with an error that names no path


DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def disk_is_full(error: Exception) -> bool:
    """Whether an error says that the disk is full; safetensors wraps the system's error in its own."""
    return (isinstance(error, OSError) and error.errno in DISK_FULL) or os.strerror(errno.ENOSPC) in str(error)


def write_atomically(file: Path, content: bytes, sync: bool = True) -> None:
    """Replace `file` in one step; with `sync`, its content is on disk before its name.

    No other process writes under the same temporary name, on whatever machine: those of two may share a process id.
    """
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("wb") as handle:
            handle.write(content)
            handle.flush()
            if sync:
                os.fsync(handle.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
