"""The DuckDB of a process, to which the catalogue of each range is attached while its owner works on it.

One instance serves all lanes. One for each range cost 4 MB and 20 ms of CPU a time, for the functions that DuckDB knows.
A range whose disk is full is out of use alone. A damaged file can end the whole instance: the lanes of the moment fail at
their next statement, what they committed stays, and the next range to be opened begins another instance.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Final

import duckdb

from sync_pipeline.domain.errors import HeldElsewhere

log = logging.getLogger(__name__)

BLOCK_BYTES: Final = 16_384
"""A catalogue has few rows in many tables: 60 kB instead of 800."""

_attached: set[Path] = set()
"""Files that this process has open. DuckDB would refuse a second connection too, but only after it has opened and closed
the file: the lock that keeps other processes out would be gone with that."""
_attached_lock = threading.Lock()


def check_unattached(file: Path) -> None:
    """Raises ``HeldElsewhere`` when this process has the catalogue in this file open already."""
    with _attached_lock:
        _check(file)


def _check(file: Path) -> None:
    if file.resolve() in _attached:
        raise HeldElsewhere(
            f"The catalogue {file} is in use in this process.",
            hint="Its range is being worked on: wait until it is at rest; see `sync-pipeline status`.",
        )


class Catalogues:
    """Catalogues of ranges in one DuckDB, which holds ``memory`` at most and spills what is more.

    ``spill`` gives a folder of this process alone; it is entered with the first catalogue and left in ``close``. May be
    used by several threads, each connection by one.
    """

    def __init__(self, spill: Callable[[], AbstractContextManager[Path]], *, memory: str = "128MB") -> None:
        self._spill = spill
        self._memory = memory
        self._lock = threading.Lock()
        self._open = ExitStack()
        self._instance: duckdb.DuckDBPyConnection | None = None
        self._numbers = itertools.count()
        self._files: dict[int, Path] = {}
        """By the connection's id."""

    def attach(self, file: Path) -> duckdb.DuckDBPyConnection:
        """A connection to the catalogue in this file, made when there is none. Raises ``HeldElsewhere`` when this process
        has it open, ``duckdb.Error`` for instance when another one has."""
        with _attached_lock:
            _check(file)
            _attached.add(file.resolve())
        try:
            connection = self._attached(file)
        except BaseException:
            with _attached_lock:
                _attached.discard(file.resolve())
            raise
        self._files[id(connection)] = file.resolve()
        return connection

    def detach(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Ends a connection: what it has not committed never was, and others may open its file."""
        with suppress(duckdb.Error):
            connection.execute("ROLLBACK")
        try:
            name = connection.execute("SELECT current_database()").fetchall()[0][0]
            connection.execute("USE memory")
            connection.execute(f"DETACH {name}")
        except duckdb.Error as error:  # what was committed is in the log, from which the next one to open it begins
            log.warning("A catalogue could not be put in order when it was closed: %s", error)
        finally:
            connection.close()
            file = self._files.pop(id(connection))
            with _attached_lock:
                _attached.discard(file)

    def close(self) -> None:
        """Ends the DuckDB; a later ``attach`` begins another."""
        with self._lock:
            if self._instance is not None:
                self._instance.close()
                self._instance = None
            self._open.close()

    def _attached(self, file: Path) -> duckdb.DuckDBPyConnection:
        name = f"range_{next(self._numbers)}"
        connection = self._cursor()
        try:
            quoted = str(file.absolute()).replace("'", "''")
            connection.execute(f"ATTACH '{quoted}' AS {name} (BLOCK_SIZE {BLOCK_BYTES})")
            connection.execute(f"USE {name}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._instance is not None and not _is_alive(self._instance):
                log.warning("DuckDB has given up after an error in one of the ranges; another one is begun")
                self._instance = None
                with suppress(OSError):
                    self._open.close()
            if self._instance is None:
                self._instance = self._begun(self._open.enter_context(self._spill()))
            return self._instance.cursor()

    def _begun(self, spill: Path) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(
            ":memory:",
            config={
                "threads": 1,
                "memory_limit": self._memory,
                "temp_directory": str(spill),
                "preserve_insertion_order": True,
                # Checkpoints in the midst of reading cost up to 0.7 s each; each commit syncs its log anyway.
                "checkpoint_threshold": "4GB",
                "enable_external_file_cache": False,
                # Else the memory of large statements stays with DuckDB.
                "allocator_bulk_deallocation_flush_threshold": "1MB",
            },
        )


def _is_alive(instance: duckdb.DuckDBPyConnection) -> bool:
    try:
        instance.execute("SELECT 1").fetchall()
    except duckdb.Error:
        return False
    return True
