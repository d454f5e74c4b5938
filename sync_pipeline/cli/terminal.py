"""What every verb talks through: results on stdout, everything else on stderr, and the two signals that end work early.

Tables are drawn for people on a terminal; in a pipe the same tables come without colour codes and without wrapping.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sync_pipeline.domain.errors import SyncError
from sync_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from sync_pipeline.engine.walls import Interruption, Walls

PIPE_WIDTH = 1_000
"""Columns of a pipe: wide enough that no table is folded."""
ROWS_SHOWN = 20
"""How many rows of a long list are shown on the terminal."""

Cell = str | int | None


class Signals:
    """Ctrl-C and SIGTERM: the first one ends the work cleanly, the second one ends the process.

    Work that can be interrupted hands its ``interruption`` over; anything else is left at once.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that came, if one came."""
        self.interruption: Interruption | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Within the ``with`` block the signals come here; outside of the main thread nothing is changed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._received) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.number = number
        if self.interruption is None:
            raise KeyboardInterrupt
        # A handler runs in the middle of whatever the main thread does, and that may be holding the event's own lock.
        reason = f"{signal.Signals(number).name} came"
        threading.Thread(target=self.interruption.interrupt, args=(reason,), name="interrupt").start()

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that such a signal ended."""
        return 128 + (self.number or signal.SIGINT)


class Terminal:
    """One run of the command: its two streams, its settings, and how it may be interrupted."""

    def __init__(self, *, is_json: bool = False, is_quiet: bool = False, is_verbose: bool = False) -> None:
        self.out = _console(sys.stdout)
        self.err = _console(sys.stderr)
        self.is_json = is_json
        self.is_quiet = is_quiet
        self.is_verbose = is_verbose
        self.signals = Signals()
        self._settings: Settings | None = None

    @property
    def settings(self) -> Settings:
        """The settings, read once. Raises ``SettingsError``."""
        if self._settings is None:
            self._settings = load_settings()
        return self._settings

    @contextmanager
    def walls(self) -> Iterator[Walls]:
        """Everything the engine works with; logs in to the org. Signals interrupt it from here on."""
        from sync_pipeline.engine.walls import Interruption
        from sync_pipeline.wiring import open_walls

        interruption = Interruption()
        self.signals.interruption = interruption
        walls = open_walls(self.settings, interruption=interruption)
        try:
            yield walls
        finally:
            walls.close()
            self.signals.interruption = None

    def print(self, text: str = "") -> None:
        """A line of the result."""
        self.out.print(text, soft_wrap=True)

    def say(self, text: str) -> None:
        """A line about what is going on, never a part of the result."""
        if not self.is_quiet:
            self.err.print(f"{datetime.now(UTC):%H:%M:%S}  {printable(text)}", soft_wrap=True)

    def fail(self, error: SyncError) -> None:
        """What went wrong and what to do next, on stderr."""
        self.err.print(printable(error.message), soft_wrap=True)
        if error.hint:
            self.err.print(f"Next: {printable(error.hint)}", soft_wrap=True)

    def document(self, document: dict[str, Any]) -> None:
        """The one JSON document of a verb."""
        # Lone surrogates cannot be printed as UTF-8; escaped they can.
        self.out.file.write(json.dumps(document, ensure_ascii=True, indent=2, default=str) + "\n")

    def table(self, head: Sequence[str], rows: Iterable[Sequence[Cell]], *, totals: Sequence[Cell] = ()) -> None:
        """A table on stdout. Whole numbers stand to the right, with thousands apart; ``totals`` is its last row."""
        self.out.print(table(head, rows, totals=totals), soft_wrap=not self.out.is_terminal)


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], *, totals: Sequence[Cell] = ()) -> Table:
    """Cells as a table without lines."""
    body = [list(row) for row in rows]
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_footer=False)
    for place, name in enumerate(head):
        is_number = any(isinstance(row[place], int) for row in (*body, totals) if row)
        drawn.add_column(name, justify="right" if is_number else "left", no_wrap=True, overflow="ellipsis")
    for row in body:
        drawn.add_row(*(Text(cell(value)) for value in row))
    if totals:
        drawn.add_row(*(Text(cell(value), style="bold") for value in totals))
    return drawn


def cell(value: Cell) -> str:
    """A value as people read it; ``None`` is what is not known."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else printable(value)


def printable(text: str) -> str:
    """The text with every character that could steer a terminal written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def duration(seconds: float) -> str:
    """Seconds as people read them: ``48 s``, ``12 min 05 s``, ``3 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def start_logging(terminal: Terminal) -> None:
    """Log lines go to stderr, beside the live display: warnings always, everything with ``--verbose``."""
    root = logging.getLogger("sync_pipeline")
    root.handlers = [_ConsoleHandler(terminal)]
    root.setLevel(logging.DEBUG if terminal.is_verbose else logging.WARNING)
    root.propagate = False


class _ConsoleHandler(logging.Handler):
    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal
        self.setFormatter(logging.Formatter("%(asctime)s  %(levelname)s  %(message)s", datefmt="%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.err.print(self.format(record), soft_wrap=True)


def _console(stream: IO[str]) -> Console:
    is_terminal = stream.isatty()
    return Console(
        file=stream,
        force_terminal=is_terminal,
        no_color=None if is_terminal else True,
        width=None if is_terminal else PIPE_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )
