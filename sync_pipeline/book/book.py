"""The book as a whole: every noun over one database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sync_pipeline.book.calls import Calls
from sync_pipeline.book.certificates import Certificates
from sync_pipeline.book.conditions import Conditions
from sync_pipeline.book.database import utc_now
from sync_pipeline.book.jobs import Jobs
from sync_pipeline.book.measurements import Measurements
from sync_pipeline.book.nights import Nights
from sync_pipeline.book.ranges import Ranges
from sync_pipeline.book.sqlite import SqliteDatabase
from sync_pipeline.book.turns import Turns
from sync_pipeline.domain.errors import DiskFull, SettingsError, StateError


class Book(Nights, Ranges, Jobs, Calls, Measurements, Certificates, Conditions, Turns):
    """For callers that work with several nouns: all of them, each with its own methods.

    Each method is one short transaction, so that anybody may read at any time and nobody waits for a range. Made, with
    its tables, when it is first opened. Raises ``SettingsError`` when it cannot be used.
    """

    def __init__(self, path: Path, *, now: Callable[[], datetime] = utc_now) -> None:
        Turns.__init__(self, path)
        Nights.__init__(self, SqliteDatabase(path, now=now))
        try:
            path.touch(mode=0o600)  # SQLite gives its side files the mode of this one
            self.database.check_layout()
        except (OSError, StateError, DiskFull) as error:
            raise SettingsError(
                f"The book {path} cannot be used: {getattr(error, 'message', error)}",
                hint="Set SYNC_HOME to a folder of yours on a local disk, or restore the file from a copy.",
            ) from None

    def close(self) -> None:
        """Lets go of this thread's connection; the next call opens another."""
        self.database.close()
