"""Who works on which range: what the book says, held against the locks.

The book alone cannot tell a range that is being worked on from one whose process was killed; a lock alone cannot tell
what was done. A run begins and ends in the book while it holds the lock, so that both together tell everything.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sync_pipeline.book.book import Book
from sync_pipeline.domain.night import RangeEntry
from sync_pipeline.staging.area import Area


@dataclass(frozen=True, slots=True)
class Presence:
    """One range of a night, and whether somebody works on it now."""

    entry: RangeEntry
    is_locked: bool

    @property
    def has_died(self) -> bool:
        """A run of it began, and its process is gone."""
        return self.entry.state.is_active and not self.is_locked


def presences(book: Book, area: Area, plan_id: str, *, own: Collection[str] = ()) -> list[Presence]:
    """All ranges of a night, in their order. ``own`` ones run in this process."""
    first = [
        Presence(entry, is_locked=entry.partition in own or area.is_range_locked(entry.partition))
        for entry in book.ranges(plan_id)
    ]
    if not any(presence.has_died for presence in first):
        return first
    # Between the two looks a run may have ended, or another one begun: then the book tells another story now.
    return [
        Presence(entry, is_locked=before.is_locked or (before.has_died and entry.runs != before.entry.runs))
        for before, entry in zip(first, book.ranges(plan_id), strict=True)
    ]
