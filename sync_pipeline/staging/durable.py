"""Files that survive a crash, written in the one order that makes them so.

A file is written under a passing name, synced, renamed, and its folder synced. Only then may a ledger speak of it; what
no ledger speaks of is swept.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sync_pipeline.domain.errors import DiskFull, SyncError

PASSING: Final = ".tmp"
"""Ends the name of a file that is still being written."""
PIECE_BYTES: Final = 1 << 20
NO_ROOM: Final = ("No space left on device", "Disk quota exceeded", "Out of disk")
"""How DuckDB and Polars say these things; they have no codes for them."""
ROOM_HINT: Final = "Make room on the disk of SYNC_HOME; nothing is lost, and the night goes on by itself."


class Disk:
    """The calls that decide what is on disk after a crash. A test dies between any two of them."""

    def sync_file(self, path: Path) -> None:
        _sync(path)

    def sync_folder(self, folder: Path) -> None:
        _sync(folder)

    def rename(self, old: Path, new: Path) -> None:
        old.replace(new)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def write(self, path: Path, content: bytes | memoryview) -> None:
        """A private file, whole under its own name or not there at all. Its folder is synced by the caller."""
        passing = passing_name(path)
        with room_for(passing, memoryview(content).nbytes):
            descriptor = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            self.sync_file(passing)
            self.rename(passing, path)


@contextmanager
def room_for(path: Path, size: int) -> Iterator[None]:
    """Around the writing of a file of about that many bytes: a full disk keeps nothing of it, and is ``DiskFull``."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        path.unlink(missing_ok=True)
        raise DiskFull(f"The disk has no room for {path}, which needs {size} bytes.", hint=ROOM_HINT) from None


def is_full(error: Exception) -> bool:
    """Nothing can be written because no room is left, on the disk or of the user's share of it."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return not isinstance(error, SyncError) and any(sign in str(error) for sign in NO_ROOM)


def private_folder(folder: Path) -> None:
    """Makes the folder and those above it, for the user alone and so that a crash does not lose their names."""
    if folder.is_dir():
        return
    private_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    with suppress(PermissionError):  # a folder of others may be entered without being readable
        _sync(folder.parent)


def passing_name(path: Path) -> Path:
    return path.with_name(path.name + PASSING)


def checksum(path: Path) -> tuple[int, int] | None:
    """Bytes and crc32 of a file, ``None`` when there is no such file."""
    size = crc = 0
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                size += len(piece)
                crc = zlib.crc32(piece, crc)
    except FileNotFoundError:
        return None
    return size, crc


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
