"""The book as a whole: every noun over one database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sync_pipeline.book.calls import Calls
from sync_pipeline.book.certificates import Certificates
from sync_pipeline.book.conditions import Conditions
from sync_pipeline.book.database import Database, utc_now
from sync_pipeline.book.jobs import Jobs
from sync_pipeline.book.measurements import Measurements
from sync_pipeline.book.nights import Nights
from sync_pipeline.book.ranges import Ranges
from sync_pipeline.book.sqlite import SqliteDatabase
from sync_pipeline.book.turns import Turns
from sync_pipeline.domain.errors import DiskFull, SettingsError, StateError
from sync_pipeline.domain.secret import Secret


class Book(Nights, Ranges, Jobs, Calls, Measurements, Certificates, Conditions, Turns):
    """For callers that work with several nouns: all of them, each with its own methods.

    Each method is one short transaction, so that anybody may read at any time and nobody waits for a range. Made, with
    its tables, when it is first opened. Raises ``SettingsError`` when it cannot be used.
    """

    def __init__(self, path: Path, *, url: Secret | None = None, now: Callable[[], datetime] = utc_now) -> None:
        """The book in the file ``path``, or in the PostgreSQL database ``url``; the files of turns lie at ``path``."""
        Turns.__init__(self, path)
        Nights.__init__(self, _database(path, url, now))
        try:
            self.database.check_layout()
        except (OSError, StateError, DiskFull) as error:
            raise SettingsError(
                f"The book {self.database.name} cannot be used: {getattr(error, 'message', error)}",
                hint=self.database.remedy,
            ) from None

    def close(self) -> None:
        """Lets go of this thread's connection; the next call opens another."""
        self.database.close()


def _database(path: Path, url: Secret | None, now: Callable[[], datetime]) -> Database:
    if url is None:
        return SqliteDatabase(path, now=now)
    from sync_pipeline.book.postgres import PostgresDatabase

    return PostgresDatabase(url, home=path.parent, now=now)
