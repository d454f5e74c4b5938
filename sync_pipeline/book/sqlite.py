"""The book in one file of SYNC_HOME: one writer at a time, and readers that never wait."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from sync_pipeline.book.database import Database, Row, Transaction, as_ours, utc_now
from sync_pipeline.domain.errors import DiskFull, StateError, SyncError

TABLES: Final = Path(__file__).with_name("tables.sql")
BUSY_SECONDS: Final = 30.0
"""How long a transaction waits for another one, which lasts milliseconds."""
OPEN_PAUSE: Final = 0.02
"""Seconds between two tries to open a file that another process is just making."""


class SqliteTransaction(Transaction):
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def change(self, sql: str, *values: object) -> int:
        return self._connection.execute(sql, values).rowcount

    def rows(self, sql: str, *values: object) -> list[Row]:
        return self._connection.execute(sql, values).fetchall()


class SqliteDatabase(Database):
    """Each thread has a connection of its own."""

    dialect = "sqlite"
    exclusive = "BEGIN IMMEDIATE"
    driver_errors = (sqlite3.Error,)
    remedy = "Set SYNC_HOME to a folder of yours on a local disk, or restore the file from a copy."

    def __init__(self, path: Path, *, now: Callable[[], datetime] = utc_now) -> None:
        super().__init__(str(path), now=now)
        self._path = path
        self._connections = threading.local()

    def check_layout(self) -> None:
        self._path.touch(mode=0o600)  # SQLite gives its side files the mode of this one
        if not self.has_tables():
            self._make_tables()
        super().check_layout()

    def _make_tables(self) -> None:
        """Those of the newest layout, unless somebody has made some meanwhile."""
        with self.transaction() as book:
            if not self.has_tables():
                for statement in TABLES.read_text(encoding="utf-8").split(";\n"):
                    if statement.strip():
                        book.change(statement)

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            _use_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")  # an intent must outlive a power cut
            connection.execute("PRAGMA foreign_keys = ON")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextmanager
    def transaction(self, *, alone: bool = False) -> Iterator[Transaction]:
        """There is one writer at a time, so that every transaction is ``alone``."""
        with as_ours(self):
            connection = self._connection()
            connection.execute(self.exclusive)
            try:
                yield SqliteTransaction(connection)
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def rows(self, sql: str, *values: object) -> list[Row]:
        with as_ours(self):
            return self._connection().execute(sql, values).fetchall()

    def close(self) -> None:
        """Lets go of this thread's connection."""
        if getattr(self._connections, "pid", None) == os.getpid():
            self._connections.own.close()
            self._connections.pid = None

    def has_tables(self) -> bool:
        return bool(self.rows("SELECT 1 FROM sqlite_schema WHERE name = 'fact'"))

    def error_of(self, error: Exception) -> SyncError:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return DiskFull(f"The disk has no room for the book {self.name}.", hint="Make room there, then try again.")
        return StateError(f"The book {self.name} failed: {error}.", hint="Look at free disk space, then try again.")

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        if getattr(self._connections, "pid", None) != os.getpid():
            connection = self.connect()
            connection.row_factory = sqlite3.Row
            self._connections.own, self._connections.pid = connection, os.getpid()
        own: sqlite3.Connection = self._connections.own
        return own


def _use_wal(connection: sqlite3.Connection) -> None:
    """Readers and a writer side by side. SQLite does not wait by itself for whoever is just making the file."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(OPEN_PAUSE)
