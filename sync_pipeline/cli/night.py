"""Verbs that move a night: sync, restart, stop."""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sync_pipeline.cli.alert import told_when_refused
from sync_pipeline.cli.progress import Progress
from sync_pipeline.cli.report import seconds_of, show_ending, show_night
from sync_pipeline.cli.terminal import Terminal
from sync_pipeline.domain.errors import SyncError, UsageError, UserError
from sync_pipeline.domain.ledger import RangeState
from sync_pipeline.domain.night import NightEntry, RangeEntry
from sync_pipeline.domain.plan import Plan
from sync_pipeline.engine import night as nights
from sync_pipeline.engine.alerting import Alerts, Planning
from sync_pipeline.engine.walls import Walls
from sync_pipeline.wiring import Home, open_alerts, open_home

LETTING_GO_SECONDS = 10.0
"""How long ``stop`` waits for the running ranges to let go."""
LOOK_SECONDS = 0.2


def sync(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """One night: the unfinished one, or a new one."""
    with open_alerts(terminal.settings) as alerts, told_when_refused(alerts), _at_the_wheel(terminal) as walls:
        newest = walls.book.newest()
        wanted: Sequence[str] = arguments.range
        if wanted and newest is not None and not arguments.fresh:
            # A range that a person runs belongs to the newest night, also when that night has its verdict.
            _check_known(wanted, newest.plan)
            nights.check_idle(walls, newest)
            night = nights.restart(walls, partitions=wanted, say=terminal.say)
        else:
            night = nights.open_night(
                walls,
                fresh=arguments.fresh,
                rearm=True,
                accept=lambda plan: _check_known(wanted, plan),
                say=terminal.say,
            )
        alerts.tick(Planning(walls.now(), has_failed=False))
        return _drive(walls, night, terminal, alerts, only=wanted, wait=arguments.wait)


def restart(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Lifts a stop and goes on from the ledger."""
    with open_alerts(terminal.settings) as alerts, _at_the_wheel(terminal) as walls:
        newest = walls.book.newest()
        if newest is None:
            raise UsageError("There is no night to restart.", hint="Start one with `sync-pipeline sync`.")
        _check_known(arguments.range, newest.plan)
        if arguments.fresh and not arguments.range:
            raise UsageError("--fresh needs to know which range.", hint="Name it with `--range KEY`.")
        nights.check_idle(walls, newest)
        entries = walls.book.ranges(newest.plan_id)
        wanted = _wanted(arguments, newest, entries)
        night = nights.restart(walls, partitions=wanted or None, say=terminal.say)
        return _drive(walls, night, terminal, alerts, only=wanted, fresh=arguments.fresh, wait=arguments.wait)


@contextmanager
def _at_the_wheel(terminal: Terminal) -> Iterator[Walls]:
    """The walls, for the one process that may drive a night from a terminal. Another one is told so before it logs in."""
    home = open_home(terminal.settings)
    terminal.say(f"state: {home.area.home}")
    home.area.prepare()
    with home.area.lock_driver(), terminal.walls() as walls:
        yield walls


def _wanted(arguments: argparse.Namespace, night: NightEntry, entries: Sequence[RangeEntry]) -> list[str]:
    """The ranges a person asked for; none means: whatever the night still needs."""
    if arguments.range:
        return list(arguments.range)
    if arguments.all:
        return [entry.partition for entry in entries]
    if arguments.failed or night.verdict is not None:
        return [entry.partition for entry in entries if entry.state is not RangeState.DONE]
    return []


def _check_known(partitions: Collection[str], plan: Plan) -> None:
    unknown = [partition for partition in partitions if plan.range(partition) is None]
    if unknown:
        raise UsageError(
            f"Night {plan.plan_id} has no range {', '.join(unknown)}.",
            hint=f"It has: {', '.join(planned.partition for planned in plan)}.",
        )


def _drive(
    walls: Walls,
    night: NightEntry,
    terminal: Terminal,
    alerts: Alerts,
    *,
    only: Collection[str],
    fresh: bool = False,
    wait: bool,
) -> int:
    """Works on the night, then says how it stands, whatever ended the work. Returns the exit code."""
    plan_id = night.plan_id
    ending: SyncError | None = None
    try:
        with Progress(terminal, walls.book, plan_id):
            nights.drive(
                walls, night,
                only=only, fresh=fresh, wait_for_headroom=wait, on_event=terminal.say, on_tick=alerts.tick_now_and_then,
            )  # fmt: skip
    except SyncError as error:
        ending = error
    walls.meter.flush()
    night = walls.book.night(plan_id) or night
    entries = walls.book.ranges(plan_id)
    if terminal.is_json:
        document = document_of(walls, night, entries)
        if ending is not None:
            document |= {"error": ending.message, "hint": ending.hint}
        terminal.document(document)
    else:
        show_night(terminal, night, entries, walls.now())
    if terminal.signals.number is not None:
        return terminal.signals.exit_code
    alerts.tick()
    if ending is not None:
        terminal.fail(ending)
        nothing_sent = not walls.book.jobs(plan_id)
        return 2 if isinstance(ending, UserError) and nothing_sent else 1
    is_left = [entry for entry in entries if entry.partition in only and entry.state is not RangeState.DONE]
    return 0 if nights.is_clean(night) and night.stop_requested_at is None and not is_left else 1


def document_of(walls: Walls, night: NightEntry, entries: Sequence[RangeEntry]) -> dict[str, Any]:
    """The public JSON of a night."""
    return nights.night_json(night, entries) | {"seconds": round(seconds_of(night, walls.now()), 3)}


def stop(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Emergency stop of the newest night."""
    home = open_home(terminal.settings)
    night = home.newest()
    if night is None:
        terminal.print("There is no night to stop.")
        return 0
    running = _running(home, night)
    jobs = [job for job in home.book.jobs(night.plan_id, open_only=True) if job.job_id]
    if night.verdict is not None and not running and not jobs:
        terminal.print(f"Night {night.plan_id} is over ({night.verdict.value}); there is nothing to stop.")
        return 0
    # Said to the running processes first: they must stop even when this process cannot log in.
    nights.request_stop(home.book)
    terminal.say(f"night {night.plan_id} is told to stop")
    aborted, failure = _abort_jobs(terminal) if jobs else (0, None)
    deadline = time.monotonic() + LETTING_GO_SECONDS
    while (running := _running(home, night)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    night = home.book.night(night.plan_id) or night
    terminal.print(f"Night {night.plan_id} is stopped; {aborted} of its open jobs were aborted from here.")
    if running:
        terminal.print(f"Still ending: {', '.join(running)}. Watch them with `sync-pipeline status --watch`.")
    show_ending(terminal, night, home.book.ranges(night.plan_id))
    if failure is not None:
        terminal.err.print("Jobs that were open in the org could not be aborted from here:")
        terminal.fail(failure)
        return failure.exit_code
    return 0


def _abort_jobs(terminal: Terminal) -> tuple[int, SyncError | None]:
    """How many jobs were aborted, and why not all of them could be."""
    try:
        with terminal.walls() as walls:
            return nights.stop(walls), None
    except SyncError as error:
        return 0, error


def _running(home: Home, night: NightEntry) -> list[str]:
    return [planned.partition for planned in night.plan if home.area.is_range_locked(planned.partition)]
