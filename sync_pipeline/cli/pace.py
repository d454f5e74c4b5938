"""How fast a night goes and when it will end, told from what the book says at several instants."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sync_pipeline.domain.ledger import Counts
from sync_pipeline.domain.night import RangeEntry

WINDOW_SECONDS = 60.0
"""Rates are told over this much of the past."""


def done(counts: Counts) -> float:
    """Rows through both halves of the way; a row that is read but has no outcome counts half."""
    return (counts.staged + counts.accounted) / 2


def seconds_left(counts: Counts, rows_per_second: float | None) -> float | None:
    """Until every expected row has an outcome; ``None`` when nobody can tell."""
    if not rows_per_second:
        return None
    return max(counts.expected - done(counts), 0.0) / rows_per_second


@dataclass(frozen=True, slots=True)
class Rates:
    """Rows per second: read from the source, given an outcome, and the mean of both, which the time left is told from."""

    read: float | None = None
    saved: float | None = None
    done: float | None = None


class Pace:
    """Collects instants of one night while it is watched."""

    def __init__(self) -> None:
        self._instants: deque[tuple[float, Counts]] = deque()

    def add(self, at: float, counts: Counts) -> Rates:
        """``at`` in seconds of any clock that does not jump. Returns the rates of the last ``WINDOW_SECONDS``."""
        self._instants.append((at, counts))
        while len(self._instants) > 2 and at - self._instants[1][0] > WINDOW_SECONDS:
            self._instants.popleft()
        since, first = self._instants[0]
        seconds = at - since
        if seconds <= 0:
            return Rates()
        return Rates(
            read=max(counts.staged - first.staged, 0) / seconds,
            saved=max(counts.accounted - first.accounted, 0) / seconds,
            done=max(done(counts) - done(first), 0.0) / seconds,
        )


def rates_of_run(entry: RangeEntry, now: datetime) -> Rates:
    """The mean rates of a range since its run started, for one look without a past."""
    if entry.started_at is None:
        return Rates()
    until = now if entry.state.is_active else entry.finished_at or entry.heartbeat_at or now
    seconds = (until - entry.started_at).total_seconds()
    if seconds <= 0:
        return Rates()
    counts = entry.counts
    return Rates(read=counts.staged / seconds, saved=counts.accounted / seconds, done=done(counts) / seconds)


def rates_of_night(entries: Sequence[RangeEntry], now: datetime) -> Rates:
    """The running ranges together."""
    running = [rates_of_run(entry, now) for entry in entries if entry.state.is_active]
    if not running:
        return Rates()
    return Rates(
        read=sum(rates.read or 0.0 for rates in running),
        saved=sum(rates.saved or 0.0 for rates in running),
        done=sum(rates.done or 0.0 for rates in running),
    )
