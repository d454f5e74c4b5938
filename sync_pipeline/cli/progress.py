"""How a night goes while ``sync`` works on it: live bars on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sync_pipeline.book.book import Book
from sync_pipeline.cli.pace import Pace, Rates, done, seconds_left
from sync_pipeline.cli.terminal import Terminal, duration
from sync_pipeline.domain.ledger import Counts, RangeState
from sync_pipeline.domain.night import RangeEntry

LINE_SECONDS = 5.0
"""Between two plain lines."""
FRAMES_PER_SECOND = 2.0
BAR_WIDTH = 24
LINES_KEPT_FREE = 6
"""Lines of the terminal left to events above the bars."""


class Progress:
    """Shows a night of the book as long as the ``with`` block lasts, whatever the main thread is busy with."""

    def __init__(self, terminal: Terminal, book: Book, plan_id: str) -> None:
        self._terminal = terminal
        self._book = book
        self._plan_id = plan_id
        self._pace = Pace()
        self._paces: dict[str, Pace] = {}
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self._terminal.is_quiet:
            return self
        console = self._terminal.err
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(
                get_renderable=self._draw, console=console, refresh_per_second=FRAMES_PER_SECOND, transient=True
            )
            self._live.start(refresh=True)
        else:
            self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        if self._live is not None:
            self._live.stop()

    def _tell(self) -> None:
        try:
            while not self._end.wait(LINE_SECONDS):
                entries = self._book.ranges(self._plan_id)
                total = totals(entries)
                self._terminal.say(line(entries, total, self._pace.add(time.monotonic(), total)))
        finally:
            self._book.close()  # this thread's connection

    def _draw(self) -> RenderableType:
        entries = self._book.ranges(self._plan_id)
        total = totals(entries)
        at = time.monotonic()
        rates = {e.partition: self._paces.setdefault(e.partition, Pace()).add(at, e.counts) for e in entries}
        night_rates = self._pace.add(at, total)
        room = max(self._terminal.err.height - LINES_KEPT_FREE, 3)
        shown = list(entries) if len(entries) <= room else [e for e in entries if e.state.is_active][:room]
        grid = Table.grid(padding=(0, 2))
        for justify in ("left", "left", "right", "right", "right", "right", "left"):
            grid.add_column(justify=justify, no_wrap=True)
        for entry in shown:
            grid.add_row(*_cells(entry, rates[entry.partition]))
        return Group(grid, Text(line(entries, total, night_rates), style="bold"))


def totals(entries: Sequence[RangeEntry]) -> Counts:
    return sum((entry.counts for entry in entries), Counts())


def line(entries: Sequence[RangeEntry], total: Counts, rates: Rates, *, died: int = 0) -> str:
    """The whole night in one line. ``died`` of the ranges that were running have no process any more."""
    finished = sum(entry.state is RangeState.DONE for entry in entries)
    running = sum(entry.state.is_active for entry in entries) - died
    dead = f", {died} died" if died else ""
    text = (
        f"{finished}/{len(entries)} ranges done, {running} running{dead}; "
        f"{total.staged:,} read, {total.succeeded:,} saved of {total.expected:,} rows"
    )
    if total.rejected:
        text += f", {total.rejected:,} rejected"
    if rates.saved or rates.read:
        text += f"; {rates.read or 0:,.0f} read/s, {rates.saved or 0:,.0f} saved/s"
    left = seconds_left(total, rates.done)
    if left and finished < len(entries):
        text += f"; about {duration(left)} left"
    return text


def _cells(entry: RangeEntry, rates: Rates) -> tuple[RenderableType, ...]:
    counts = entry.counts
    left = seconds_left(counts, rates.done) if entry.state.is_active else None
    return (
        entry.partition,
        ProgressBar(total=max(counts.expected, 1), completed=done(counts) if counts.expected else 1, width=BAR_WIDTH),
        f"{counts.staged:,} read",
        f"{counts.succeeded:,} saved of {counts.expected:,}",
        f"{rates.saved or rates.read or 0:,.0f}/s" if entry.state.is_active else "",
        duration(left) if left is not None else "",
        entry.state.value + (f", {counts.rejected:,} rejected" if counts.rejected else ""),
    )
