"""How a night stands, told from the book alone: no org is asked, nothing is changed, no range waits for it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from sync_pipeline.cli.pace import Pace, Rates, rates_of_night, rates_of_run, seconds_left
from sync_pipeline.cli.progress import line, totals
from sync_pipeline.cli.report import seconds_of, show_ending, show_measurement
from sync_pipeline.cli.terminal import Cell, Terminal, duration, printable, table
from sync_pipeline.domain.night import JobEntry, NightEntry, RangeEntry
from sync_pipeline.engine.presence import presences
from sync_pipeline.wiring import Home, open_home

WATCH_SECONDS = 2.0


@dataclass(frozen=True)
class Sight:
    """One look at the newest night."""

    night: NightEntry
    ranges: list[RangeEntry]
    jobs: list[JobEntry]
    died: frozenset[str]
    now: datetime


def look(home: Home) -> Sight | None:
    """The newest night as the book and the locks tell it now; ``None`` when there never was one."""
    night = home.newest()
    if night is None:
        return None
    now = datetime.now(UTC)
    seen = presences(home.book, home.area, night.plan_id)
    died = frozenset(presence.entry.partition for presence in seen if presence.has_died)
    jobs = home.book.jobs(night.plan_id, open_only=True)
    return Sight(night, [presence.entry for presence in seen], jobs, died, now)


def status(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Progress of the newest night, range by range."""
    home = open_home(terminal.settings)
    if arguments.watch and not terminal.is_json:
        _watch(home, terminal)
        return 0
    sight = look(home)
    if terminal.is_json:
        terminal.document(_document(sight))
    elif sight is None:
        terminal.print(f"No night yet in {home.area.home}. Start one with `sync-pipeline sync`.")
    else:
        _show(terminal, sight)
    return 0


def _document(sight: Sight | None) -> dict[str, Any]:
    from sync_pipeline.engine.night import night_json

    if sight is None:
        return {"plan_id": None, "org": None, "verdict": None, "state": "no night", "totals": None, "ranges": []}
    night = sight.night
    rates = rates_of_night(_alive(sight), sight.now)
    document = night_json(night, sight.ranges, died=sight.died) | {
        "seconds": round(seconds_of(night, sight.now), 3),
        "rows_per_second": rates.saved,
        "seconds_left": seconds_left(totals(sight.ranges), rates.done),
        "stop_requested": night.stop_requested_at is not None,
        "parked_until": night.parked_until,
        "parked_reason": night.parked_reason or None,
        "open_jobs": [
            {
                "job": job.job_id or None,
                "partition": job.partition,
                "part": job.part,
                "round": job.round,
                "rows": job.rows,
                "state": job.state,
                "processed": job.processed,
            }
            for job in sight.jobs
        ],
    }
    for row, entry in zip(document["ranges"], sight.ranges, strict=True):
        row["error"] = entry.error or None
    return document


def _alive(sight: Sight) -> list[RangeEntry]:
    return [entry for entry in sight.ranges if entry.partition not in sight.died]


def _state(sight: Sight, entry: RangeEntry) -> str:
    return "died" if entry.partition in sight.died else entry.state.value


def _show(terminal: Terminal, sight: Sight) -> None:
    night = sight.night
    rates = rates_of_night(_alive(sight), sight.now)
    terminal.print(_title(sight))
    terminal.print()
    terminal.out.print(_table(sight), soft_wrap=not terminal.out.is_terminal)
    terminal.print()
    terminal.print(line(sight.ranges, totals(sight.ranges), rates, died=len(sight.died)))
    for job in sight.jobs:
        terminal.print(_job_line(job, sight.now))
    for partition in sorted(sight.died):
        terminal.print(f"Range {partition} died: its process is gone. What it staged and saved is kept.")
    if night.verdict is not None or night.measurement is not None:
        show_measurement(terminal, night.measurement)
    terminal.print(f"API calls: {night.api_calls:,}   time: {duration(seconds_of(night, sight.now))}")
    if night.verdict is not None or not any(entry.state.is_active for entry in _alive(sight)):
        show_ending(terminal, night, sight.ranges)


def _title(sight: Sight) -> str:
    night = sight.night
    return f"Night {night.plan_id} of {printable(str(night.plan.org))}, opened {night.opened_at:%Y-%m-%d %H:%M:%S} UTC"


def _table(sight: Sight) -> RenderableType:
    rows: list[Sequence[Cell]] = []
    for entry in sight.ranges:
        is_running = entry.state.is_active and entry.partition not in sight.died
        rates = rates_of_run(entry, sight.now) if is_running else Rates()
        left = seconds_left(entry.counts, rates.done)
        counts = entry.counts
        rows.append(
            (
                entry.partition,
                _state(sight, entry),
                counts.expected,
                counts.staged,
                counts.succeeded,
                counts.rejected,
                None if rates.saved is None else round(rates.saved),
                None if left is None else duration(left),
                entry.error if not entry.state.is_active else "",
            )
        )
    total = totals(sight.ranges)
    head = ("range", "state", "expected", "read", "saved", "rejected", "rows/s", "left", "why")
    return table(
        head, rows, totals=("total", "", total.expected, total.staged, total.succeeded, total.rejected, None, None, "")
    )


def _job_line(job: JobEntry, now: datetime) -> str:
    age = duration(max((now - job.intended_at).total_seconds(), 0.0))
    name = f"Job {job.job_id}" if job.job_id else "A job whose creation was not confirmed"
    # Unless it is the last one, the org is asked for the states of all jobs at once, which tells no counts.
    processed = f"{job.processed:,} of {job.rows:,} rows processed" if job.processed else f"{job.rows:,} rows"
    return f"{name} of range {job.partition}, part {job.part} round {job.round}: {job.state}, {processed}, {age} old"


def _watch(home: Home, terminal: Terminal) -> None:
    """Looks again and again until the night has its verdict; Ctrl-C ends it sooner."""
    pace = Pace()
    if not terminal.out.is_terminal:
        while (sight := look(home)) is None or sight.night.verdict is None:
            terminal.print(_watch_line(sight, pace))
            terminal.out.file.flush()
            time.sleep(WATCH_SECONDS)
        _show(terminal, sight)
        return
    with Live(console=terminal.out, auto_refresh=False, transient=True) as live:
        while (sight := look(home)) is None or sight.night.verdict is None:
            text = Text(_watch_line(sight, pace))
            live.update(text if sight is None else Group(_title(sight), _table(sight), text), refresh=True)
            time.sleep(WATCH_SECONDS)
    _show(terminal, sight)


def _watch_line(sight: Sight | None, pace: Pace) -> str:
    if sight is None:
        return "no night yet"
    total = totals(sight.ranges)
    return line(sight.ranges, total, pace.add(time.monotonic(), total), died=len(sight.died))
