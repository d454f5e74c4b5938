"""The book in a PostgreSQL database of its own: any number of writers, few connections per process."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from sync_pipeline.book.database import Database, Row, Transaction, as_ours, utc_now
from sync_pipeline.domain.errors import DiskFull, SettingsError, StateError, SyncError
from sync_pipeline.domain.secret import Secret

try:
    import psycopg2
    from psycopg2.extras import RealDictCursor
except ImportError:
    raise SettingsError(
        "SYNC_BOOK_URL names a PostgreSQL database, and its driver is not installed.",
        hint="Install it with `pip install --require-hashes --requirement requirements-postgres.lock`, or unset SYNC_BOOK_URL.",
    ) from None

CONNECTIONS: Final = 8
"""Connections of one process at most; the server's own limit is 100 by default, for all processes."""
CONNECT_SECONDS: Final = 10
LOCK_MILLISECONDS: Final = 30_000
"""How long a statement waits for another transaction, which lasts milliseconds."""
KEEPALIVE: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""A server that is gone is noticed within half a minute."""
ALONE: Final = 7_306_521_941_662_308
"""The advisory lock of transactions that never overlap; a number that nobody else uses by chance."""
NO_ROOM: Final = "53100"
"""SQLSTATE of a full disk."""
IDENTITY: Final = "book.home"
"""File of SYNC_HOME with a name that no other home has."""


class PostgresTransaction(Transaction):
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def change(self, sql: str, *values: object) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute(sql.replace("?", "%s"), [_storable(value) for value in values])
            return int(cursor.rowcount)

    def rows(self, sql: str, *values: object) -> list[Row]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql.replace("?", "%s"), [_storable(value) for value in values])
            return list(cursor.fetchall())


class _Pool:
    """Connections of one process, and the order in which its threads get them: whoever came first, so that none starves."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._places = CONNECTIONS
        self._waiting: deque[threading.Event] = deque()
        self._idle: list[Any] = []

    @contextmanager
    def place(self) -> Iterator[None]:
        """Leave to use one connection."""
        mine = threading.Event()
        with self._lock:
            if self._places:
                self._places -= 1
                mine.set()
            else:
                self._waiting.append(mine)
        try:
            mine.wait()
            yield
        finally:
            with self._lock:
                if not mine.is_set():  # interrupted while it waited
                    self._waiting.remove(mine)
                elif self._waiting:
                    self._waiting.popleft().set()
                else:
                    self._places += 1

    def take(self) -> Any | None:
        """An idle connection, if there is one."""
        with self._lock:
            return self._idle.pop() if self._idle else None

    def give(self, connection: Any) -> None:
        with self._lock:
            self._idle.append(connection)


class PostgresDatabase(Database):
    """Threads borrow a connection for one transaction or statement. Raises ``StateError`` when no connection is made.

    ``home`` is the SYNC_HOME whose book this is: a database holds the book of one.
    """

    dialect = "postgresql+psycopg2"
    exclusive = f"SELECT pg_advisory_xact_lock({ALONE})"
    driver_errors = (psycopg2.Error,)
    remedy = "Look at SYNC_BOOK_URL, and whether that server is up and lets this user in."

    def __init__(self, url: Secret, *, home: Path, now: Callable[[], datetime] = utc_now) -> None:
        super().__init__(_shown(url), now=now)
        self._url = url
        self._home = home
        self._pool = _Pool()
        self._borrowed = threading.local()

    def connect(self) -> Any:
        connection = psycopg2.connect(self._url.reveal(), connect_timeout=CONNECT_SECONDS, **KEEPALIVE)
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"SET lock_timeout = {LOCK_MILLISECONDS}; SET client_min_messages = warning")
            connection.commit()
        except psycopg2.Error:
            connection.close()
            raise
        return connection

    @contextmanager
    def transaction(self, *, alone: bool = False) -> Iterator[Transaction]:
        with as_ours(self), self._begun() as connection:
            book = PostgresTransaction(connection)
            try:
                if alone:
                    book.rows(self.exclusive)
                yield book
                _execute(connection, "COMMIT")
            except BaseException:
                with suppress(psycopg2.Error):
                    _execute(connection, "ROLLBACK")
                raise

    def rows(self, sql: str, *values: object) -> list[Row]:
        with as_ours(self):
            try:
                with self._connection() as connection:
                    return PostgresTransaction(connection).rows(sql, *values)
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                if self._is_in_transaction():
                    raise
                with self._connection(is_new=True) as connection:  # the server ended the other one while it was idle
                    return PostgresTransaction(connection).rows(sql, *values)

    def close(self) -> None:
        """Closes the connections that nobody uses."""
        if self._pool.pid == os.getpid():
            while (connection := self._pool.take()) is not None:
                connection.close()

    def has_tables(self) -> bool:
        return bool(self.rows("SELECT 1 FROM pg_tables WHERE tablename = 'fact' AND schemaname = current_schema()"))

    def check_layout(self) -> None:
        """Refuses, besides, the book of another SYNC_HOME."""
        super().check_layout()
        own = f"{_identity(self._home)} {socket.gethostname()}:{self._home}"
        with self.transaction() as book:
            book.change("INSERT INTO fact VALUES ('home', ?) ON CONFLICT (name) DO NOTHING", own)
            (found,) = book.rows("SELECT value FROM fact WHERE name = 'home'")
        identity, place = found["value"].split(" ", 1)
        if identity != own.split(" ", 1)[0]:
            self.close()
            raise SettingsError(
                f"The book {self.name} belongs to another SYNC_HOME, {place}; homes cannot share a book yet.",
                hint="Give each SYNC_HOME a database of its own in SYNC_BOOK_URL.",
            )

    def error_of(self, error: Exception) -> SyncError:
        if getattr(error, "pgcode", None) == NO_ROOM:
            return DiskFull(
                f"The server has no room for the book {self.name}.", hint="Make room there, then try again."
            )
        return StateError(f"The book {self.name} failed: {self._told(error)}.", hint=self.remedy)

    def _told(self, error: Exception) -> str:
        """What the driver says, on one line, without the URL and its password."""
        if type(error) is psycopg2.ProgrammingError and getattr(error, "pgcode", None) is None:
            return "the driver does not understand the URL"
        text = " ".join(str(error).split()).rstrip(".")
        url = self._url.reveal()
        for hidden in {url, _password(url), unquote(_password(url))} - {""}:
            text = text.replace(hidden, "***")
        return text

    @contextmanager
    def _begun(self) -> Iterator[Any]:
        """A connection in a new transaction. One that the server ended while it was idle is replaced."""
        with ExitStack() as borrowed:
            connection = borrowed.enter_context(self._connection())
            try:
                _execute(connection, "BEGIN")
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                borrowed.close()
                connection = borrowed.enter_context(self._connection(is_new=True))
                _execute(connection, "BEGIN")
            yield connection

    @contextmanager
    def _connection(self, *, is_new: bool = False) -> Iterator[Any]:
        """A connection for this thread alone, or the one of the transaction that it is in."""
        if self._is_in_transaction():
            yield self._borrowed.connection
            return
        pool = self._own_pool()
        with pool.place():
            connection = None if is_new else pool.take()
            if connection is None:
                connection = self.connect()
                connection.autocommit = True
                connection.cursor_factory = RealDictCursor
            self._borrowed.connection, self._borrowed.pid = connection, pool.pid
            try:
                yield connection
            finally:
                self._borrowed.connection = None
                if connection.closed or connection.info.transaction_status:
                    connection.close()
                else:
                    pool.give(connection)

    def _is_in_transaction(self) -> bool:
        """This thread has borrowed a connection."""
        return getattr(self._borrowed, "connection", None) is not None and self._borrowed.pid == os.getpid()

    def _own_pool(self) -> _Pool:
        """The pool of this process: after a fork the child starts with none."""
        if self._pool.pid != os.getpid():
            self._pool = _Pool()
        return self._pool


def _execute(connection: Any, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def _storable(value: object) -> object:
    """PostgreSQL's text cannot hold a zero character."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value


def _shown(url: Secret) -> str:
    """The server and database of a URL: no user, no password, no parameter."""
    parts = urlsplit(url.reveal())
    return f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _password(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[0].partition(":")[2]


def _identity(home: Path) -> str:
    """The name of this home, drawn once. Two processes that draw one at the same time keep the first."""
    file = home / IDENTITY
    if not file.exists():
        draft = file.with_name(f"{IDENTITY}.{uuid.uuid4().hex}")
        draft.write_text(uuid.uuid4().hex, encoding="ascii")
        draft.chmod(0o600)
        with suppress(FileExistsError):
            os.link(draft, file)
        draft.unlink()
    return file.read_text(encoding="ascii")
