"""One database under the book: connections, transactions and errors, the same for SQLite and PostgreSQL.

Statements hold ``?`` for values, and neither database's own words. Instants are UTC text of one length, which sorts as
time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from sync_pipeline.domain.errors import SettingsError, SyncError
from sync_pipeline.domain.night import PIPELINE

LAYOUT: Final = 2
"""The layout that this version reads and writes: the newest file in ``migrations/versions``."""

Row = Mapping[str, Any]


def utc_now() -> datetime:
    return datetime.now(UTC)


def written(instant: datetime) -> str:
    """An instant as it is written: always with microseconds, so that text sorts as time."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds")


def instant_of(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None


class Transaction(ABC):
    """Statements that count together or not at all."""

    @abstractmethod
    def change(self, sql: str, *values: object) -> int:
        """Runs a statement; returns how many rows it changed."""

    @abstractmethod
    def rows(self, sql: str, *values: object) -> list[Row]:
        """The rows that a statement yields."""


class Database(ABC):
    """Threads share one object. A forked child opens connections of its own: none may cross a fork."""

    remedy: str
    """What to do when it fails."""

    def __init__(self, name: str, *, now: Callable[[], datetime] = utc_now, pipeline: str = PIPELINE) -> None:
        self.name = name
        """What a person may see of where the book is: never a password."""
        self.pipeline = pipeline
        """The mapping whose nights are meant."""
        self._now = now

    @property
    @abstractmethod
    def dialect(self) -> str:
        """SQLAlchemy's name of the database and its driver."""

    @property
    @abstractmethod
    def exclusive(self) -> str:
        """The statement that keeps every other maker of tables out until the transaction ends."""

    @property
    @abstractmethod
    def driver_errors(self) -> tuple[type[Exception], ...]:
        """What the driver raises."""

    @abstractmethod
    def connect(self) -> Any:
        """A new connection of the driver, which the caller closes."""

    @abstractmethod
    def transaction(self, *, alone: bool = False) -> AbstractContextManager[Transaction]:
        """One transaction that changes something. One that is ``alone`` never overlaps with another that is."""

    @abstractmethod
    def rows(self, sql: str, *values: object) -> list[Row]:
        """The rows that one reading statement yields; it waits for no writer."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of connections; the next call opens another."""

    @abstractmethod
    def has_tables(self) -> bool:
        """Some version has made its tables."""

    @abstractmethod
    def error_of(self, error: Exception) -> SyncError:
        """An error of the driver as one of ours."""

    def instant(self) -> str:
        """Now, as it is written."""
        return written(self._now())

    def layout(self) -> int:
        """The layout found; 0 while there are no tables."""
        if not self.has_tables():
            return 0
        rows = self.rows("SELECT value FROM fact WHERE name = 'layout'")
        return int(rows[0]["value"]) if rows else 0

    def check_layout(self) -> None:
        """Brings an older layout up to ours, or raises ``SettingsError`` for a later one."""
        found = self.layout()
        if found < LAYOUT:
            from sync_pipeline.book.migrations import migrate

            try:
                migrate(self)
            except self.driver_errors as error:
                raise self.error_of(error) from None
            found = self.layout()
        if found > LAYOUT:
            raise SettingsError(
                f"The book {self.name} is of layout {found}; this version knows layouts up to {LAYOUT}.",
                hint="Install the version that wrote it, or set SYNC_HOME to another folder.",
            )


class Noun:
    """What the book knows of one noun."""

    def __init__(self, database: Database) -> None:
        self.database = database


@contextmanager
def as_ours(database: Database) -> Iterator[None]:
    """Errors of the driver leave as ours."""
    try:
        yield
    except database.driver_errors as error:
        raise database.error_of(error) from None


def places(values: Sequence[object]) -> str:
    """A list of so many values, for ``IN``."""
    return f"({', '.join('?' * len(values))})"
