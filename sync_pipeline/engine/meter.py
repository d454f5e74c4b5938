"""Counts API calls and writes them into the book, so that the budget is one for all processes of a night."""

from __future__ import annotations

import threading
from collections import Counter

from sync_pipeline.book.book import Book


class Meter:
    """Calls of this process by endpoint, not yet in the book. Calls before a night is known wait for it."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._lock = threading.Lock()
        self._pending: Counter[str] = Counter()
        self._plan_id: str | None = None
        self.calls = 0

    def count(self, endpoint: str) -> None:
        """One HTTP request that counts against the org's limit was sent."""
        with self._lock:
            self._pending[endpoint] += 1
            self.calls += 1

    def belongs_to(self, plan_id: str) -> None:
        """From now on calls are written to this night; those of an earlier one that could not be, too."""
        try:
            self.flush()
        finally:
            self._plan_id = plan_id

    def flush(self) -> None:
        """Writes what was counted since the last time; a process without a night writes nothing.

        What cannot be written down now is kept for the next time.
        """
        if self._plan_id is None:
            return
        with self._lock:
            pending, self._pending = self._pending, Counter()
        if not pending:
            return
        try:
            self._book.add_calls(self._plan_id, pending)
        except BaseException:
            with self._lock:
                self._pending.update(pending)
            raise
