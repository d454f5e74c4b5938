"""The course of a night: opening it, working on it, a person's switches, and telling how it stands.

What comes next is decided in ``deciding.py``; here it is done. Dagster's sensor and the loop of ``sync`` look by the same
``view_of`` and act by the same ``apply``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from sync_pipeline.book.book import Book
from sync_pipeline.domain.errors import HeldElsewhere, Parked, StateError, Stopped, SyncError, UserError
from sync_pipeline.domain.ledger import Counts, RangeState, Verdict
from sync_pipeline.domain.night import Measurement, NightEntry, RangeEntry
from sync_pipeline.domain.plan import Plan, new_plan_id
from sync_pipeline.engine.budget import check_before_start, look_again
from sync_pipeline.engine.certificate import issue
from sync_pipeline.engine.deciding import (
    Action,
    Conclude,
    Decision,
    GiveUp,
    Hold,
    Launch,
    Measure,
    NightView,
    RangeView,
    Repair,
    ReportDead,
    RunFact,
    decide,
)
from sync_pipeline.engine.duplicates import write_groups
from sync_pipeline.engine.heartbeat import Heartbeat
from sync_pipeline.engine.loading import abort_orphans, end_job
from sync_pipeline.engine.measure_run import run_measurement
from sync_pipeline.engine.planning import plan_night
from sync_pipeline.engine.presence import presences
from sync_pipeline.engine.range_run import Start, release_jobs, run_range
from sync_pipeline.engine.walls import Walls

log = logging.getLogger(__name__)

LETTING_GO_SECONDS = 60.0
"""How long an older night's processes may take to hear that it was stopped."""
TURN_SECONDS = 0.5
"""How often the driving loop looks when nothing has ended."""
IDLE_SECONDS = 5.0
"""How often it looks while it only waits for a time of day."""
NIGHTS_KEPT = 10_000
"""More nights than a book ever holds."""


# Opening


def open_night(
    walls: Walls,
    *,
    fresh: bool = False,
    rearm: bool = False,
    accept: Callable[[Plan], None] = lambda plan: None,
    say: Callable[[str], None] = log.info,
) -> NightEntry:
    """The night to work on: the newest one while it is unfinished and young, else a new one.

    ``fresh`` gives an unfinished night up. ``rearm`` is what a person who starts it by hand wants: a stop is lifted, and
    ranges that are held or given up get new attempts; without it a stopped night stays stopped. ``accept`` may refuse the
    plan by raising, before anything is written. A new night is planned first; only then is an unfinished one given up.

    Raises ``HeldElsewhere`` when another process opens or concludes one or still works on the last one, ``PlanRefused``
    when the source cannot be trusted or the org could never take the night, a ``UserError`` for what a person must mend.
    """
    with walls.area.lock_night():
        newest = walls.book.newest()
        if newest is not None and newest.verdict is None:
            is_young = walls.now() - newest.opened_at < walls.policy.night_age_max
            if is_young and not fresh:
                newest.plan.check_belongs(walls.org, walls.mapping)
                accept(newest.plan)
                return _go_on(walls, newest, rearm=rearm, say=say)
        elif newest is not None:
            check_idle(walls, newest)
        plan_id = new_plan_id(walls.now())
        plan, groups = plan_night(walls, plan_id=plan_id)
        accept(plan)
        parked = check_before_start(walls, plan)
        if newest is not None and newest.verdict is None:
            _abandon(walls, newest, say)
        _end_jobs_of_earlier_nights(walls)
        write_groups(groups, walls.area.night_folder(plan_id), disk=walls.disk)
        # A run of the last night that begins at this instant is either seen here, or sees the new night and refuses.
        walls.book.open_night(plan, check=lambda: check_idle(walls, newest) if newest is not None else None)
        walls.meter.belongs_to(plan_id)
        say(f"Night {plan_id} of {plan.org}: {plan.expected} rows in {len(plan.ranges)} ranges.")
        for note in plan.notes:
            say(note)
        if parked is not None:
            walls.book.park(plan_id, until=parked.until, reason=parked.message)
            say(f"It is parked until {parked.until:%H:%M} UTC: {parked.message}")
        _clear_away(walls, say)
        return _night(walls, plan_id)


def check_idle(walls: Walls, night: NightEntry) -> None:
    """Raises ``HeldElsewhere`` when somebody works on a range of the night, or measures it."""
    held = [planned.partition for planned in night.plan if walls.area.is_range_locked(planned.partition)]
    if held:
        raise HeldElsewhere(
            f"Ranges of night {night.plan_id} are being worked on by another process: {', '.join(held)}.",
            hint="Watch it with `sync-pipeline status --watch`.",
        )
    if walls.area.is_measure_locked():
        raise HeldElsewhere(
            f"Another process measures the org for night {night.plan_id}.",
            hint="Watch it with `sync-pipeline status --watch`.",
        )


def _go_on(walls: Walls, night: NightEntry, *, rearm: bool, say: Callable[[str], None]) -> NightEntry:
    walls.meter.belongs_to(night.plan_id)
    if rearm:
        check_idle(walls, night)
        walls.book.lift_stop(night.plan_id)
        walls.book.rearm(night.plan_id)
        _look_again(walls, night, say)
    elif night.stop_requested_at is not None:
        say(
            f"Night {night.plan_id} of {night.plan.org} was stopped and stays so: only a person lifts a stop, by "
            "`sync-pipeline restart` or the job `restart_ranges`."
        )
        return night
    say(f"Night {night.plan_id} of {night.plan.org} is unfinished and goes on.")
    return _night(walls, night.plan_id)


def _look_again(walls: Walls, night: NightEntry, say: Callable[[str], None]) -> None:
    """A person who starts a parked night wants it to look at once whether there is room now, and to say what is short if
    there is none. One look for each start."""
    if night.parked_until is None:
        return
    parked = look_again(walls, night, walls.book.ranges(night.plan_id))
    if parked is None:
        walls.book.unpark(night.plan_id)
        return
    walls.book.park(night.plan_id, until=parked.until, reason=parked.message)
    say(f"Night {night.plan_id} is parked until {parked.until:%H:%M} UTC: {parked.message}")


def _abandon(walls: Walls, night: NightEntry, say: Callable[[str], None]) -> None:
    """Ends an unfinished night: its processes hear the stop, its jobs are let go, its rows left are named."""
    walls.book.request_stop(night.plan_id)
    deadline = walls.clock() + LETTING_GO_SECONDS
    while True:
        try:
            check_idle(walls, night)
            break
        except HeldElsewhere as held:
            if walls.clock() > deadline:
                raise HeldElsewhere(
                    f"Night {night.plan_id} was stopped and does not end. {held.message}",
                    hint="Wait for those processes to end, or end them, then start again.",
                ) from None
        walls.sleep(TURN_SECONDS)
    if night.plan.org.org_id == walls.org.org_id:
        release_jobs(walls, night.plan_id)
    entries = walls.book.ranges(night.plan_id)
    left = sum((e.counts.expected - e.counts.succeeded for e in entries if e.state is not RangeState.DONE), 0)
    unfinished = sum(e.state is not RangeState.DONE for e in entries)
    reason = f"{unfinished} ranges unfinished, {left} rows left"
    seconds = (walls.now() - night.opened_at).total_seconds()
    issue(walls, night, Verdict.ABANDONED, reasons=(reason,), seconds=seconds)
    walls.book.record_verdict(night.plan_id, Verdict.ABANDONED, reasons=(reason,), seconds=seconds)
    say(f"Night {night.plan_id} is abandoned: {reason}.")


def _end_jobs_of_earlier_nights(walls: Walls) -> None:
    """A night sends nothing until every own job of an earlier one has ended."""
    left = [job for job in walls.book.jobs(open_only=True) if _is_of(walls, job.plan_id)]
    abort_orphans(walls, left)
    for job in left:
        if job.job_id:
            end_job(walls, job)
        else:
            walls.book.job_over(job.intent, "dropped")


def _is_of(walls: Walls, plan_id: str) -> bool:
    night = walls.book.night(plan_id)
    return night is not None and night.plan.org.org_id == walls.org.org_id


def _clear_away(walls: Walls, say: Callable[[str], None]) -> None:
    """Rows and ledgers of nights that are old enough. A disk that does not let go of them never keeps a night from opening."""
    unfinished = [night.plan_id for night in walls.book.nights(limit=NIGHTS_KEPT) if night.verdict is None]
    policy = walls.policy
    try:
        removed = walls.area.sweep(
            now=walls.now(), keep_rows=policy.keep_rows, keep_ledgers=policy.keep_ledgers, unfinished=unfinished
        )
    except OSError as error:
        log.warning("older nights could not be cleared away: %s", error)
        return
    for what in removed:
        say(f"Cleared away: {what}.")


def _night(walls: Walls, plan_id: str) -> NightEntry:
    night = walls.book.night(plan_id)
    if night is None:
        raise StateError(f"Night {plan_id} has vanished from the book.", hint="Was SYNC_HOME cleared meanwhile?")
    return night


# Doing


def view_of(
    walls: Walls,
    plan_id: str,
    *,
    runs: Mapping[str, RunFact] | None = None,
    measure_run: RunFact | None = None,
    own: Collection[str] = (),
    only: Collection[str] = (),
    is_driven: bool = False,
) -> NightView:
    """What the book, the locks and the orchestrator (``runs`` by partition) say now.

    ``own`` ranges run in this process; ``only`` those may be started by it, none means all.
    """
    ranges = presences(walls.book, walls.area, plan_id, own=own)
    is_measuring = walls.area.is_measure_locked()
    night = _night(walls, plan_id)
    return NightView(
        night=night,
        ranges=tuple(RangeView(r.entry, r.is_locked, (runs or {}).get(r.entry.partition)) for r in ranges),
        policy=walls.policy,
        now=walls.now(),
        measure_run=measure_run,
        is_measuring=is_measuring,
        is_driven=is_driven,
        measure_error=walls.book.measure_failure(plan_id) if night.measure_tries else "",
        only=frozenset(only),
    )


def apply(walls: Walls, view: NightView, action: Action) -> bool:
    """The book's side of an action; whether it was done. It is not when somebody else has moved the night on since the
    view was taken, or is just about to. Launch, Measure and ReportDead are the caller's: they start or end processes."""
    plan_id = view.night.plan_id
    try:
        match action:
            case Hold(partition) | GiveUp(partition):
                with walls.area.lock_range(partition):
                    entry = walls.book.range(plan_id, partition)
                    if entry is None or entry.state.is_settled or entry.runs != _runs_of(view, partition):
                        return False
                    if isinstance(action, GiveUp):
                        walls.book.give_up(plan_id, partition, action.reason)
                    else:
                        walls.book.hold(plan_id, partition)
            case Repair(partitions):
                with walls.area.lock_night():
                    if not _is_unmoved(walls, view):
                        return False
                    for partition in partitions:
                        walls.book.count_repair(plan_id, partition)
            case Conclude(verdict, reasons):
                with walls.area.lock_night():
                    if not _is_unmoved(walls, view):
                        return False
                    walls.meter.flush()
                    # What an amended night took was told by its first verdict; the hours in between are not its.
                    seconds = view.night.seconds or (walls.now() - view.night.opened_at).total_seconds()
                    issue(walls, view.night, verdict, reasons=reasons, seconds=seconds)
                    walls.book.record_verdict(plan_id, verdict, reasons=reasons, seconds=seconds)
            case Launch() | Measure() | ReportDead():
                raise StateError(f"{action} has no side in the book.")
    except HeldElsewhere:
        return False
    return True


def _runs_of(view: NightView, partition: str) -> int:
    return next(r.entry.runs for r in view.ranges if r.partition == partition)


def _is_unmoved(walls: Walls, view: NightView) -> bool:
    """Nobody has concluded, measured, stopped or run anything since the view was taken."""
    before, now = view.night, _night(walls, view.night.plan_id)
    entries = walls.book.ranges(before.plan_id)
    return (now.verdict_at, now.measurement, now.stop_requested_at) == (
        before.verdict_at, before.measurement, before.stop_requested_at
    ) and [(e.runs, e.state) for e in entries] == [(r.entry.runs, r.state) for r in view.ranges]  # fmt: skip


def drive(
    walls: Walls,
    night: NightEntry,
    *,
    only: Collection[str] = (),
    fresh: bool = False,
    wait_for_headroom: bool = False,
    on_event: Callable[[str], None] = log.info,
    on_tick: Callable[[], None] = lambda: None,
) -> NightEntry:
    """Runs a night without an orchestrator until its verdict, a stop, or a parking; returns it as it stands then.

    The caller holds ``area.lock_driver()`` since before it opened the night. Up to ``policy.lanes`` ranges run at once as
    threads. With ``only`` no other ranges are started, and those are run even when the night has its verdict; with ``fresh``
    they are begun anew, whatever is staged of them. Raises
    ``HeldElsewhere`` at once when another process works on the night, and a ``UserError`` when a lane met one.
    """
    with Heartbeat(walls, night.plan_id) as heartbeat:
        check_idle(walls, night)
        lanes = _Lanes(walls, night.plan_id, heartbeat, on_event)
        try:
            is_parked = night.parked_until is not None and walls.now() < night.parked_until
            for partition in () if is_parked else only:
                lanes.launch(partition, start="fresh" if fresh else "auto")
            _Driver(walls, night.plan_id, lanes, heartbeat, only, wait_for_headroom, on_event, on_tick).run()
        except BaseException as error:
            walls.interruption.interrupt(str(error) or type(error).__name__)
            # A stop of the night ends it in an orderly way, whoever heard of it first: this loop or a lane.
            if not isinstance(error, Stopped) or not walls.book.is_stopped(night.plan_id):
                raise
        finally:
            lanes.close()
    return _night(walls, night.plan_id)


class _Driver:
    """The loop of ``drive``: looks, asks, does, and waits."""

    def __init__(
        self,
        walls: Walls,
        plan_id: str,
        lanes: _Lanes,
        heartbeat: Heartbeat,
        only: Collection[str],
        wait_for_headroom: bool,
        on_event: Callable[[str], None],
        on_tick: Callable[[], None],
    ) -> None:
        self._walls = walls
        self._plan_id = plan_id
        self._lanes = lanes
        self._heartbeat = heartbeat
        self._only = only
        self._wait_for_headroom = wait_for_headroom
        self._on_event = on_event
        self._on_tick = on_tick

    def run(self) -> None:
        """Until the verdict, or until there is nothing that this process may do."""
        said = ""
        while True:
            self._on_tick()
            self._lanes.raise_user_error()
            if not self._walls.book.is_newest(self._plan_id):
                raise Stopped(f"Stopped: a newer night has taken the place of night {self._plan_id}.")
            own = self._lanes.running
            view = view_of(self._walls, self._plan_id, runs=self._lanes.lost, own=own, only=self._only)
            decision = decide(view)
            if decision.line != said:
                self._on_event(decision.line)
                said = decision.line
            has_moved = [self._do(view, action) for action in decision.actions]
            if any(isinstance(a, Conclude) and moved for a, moved in zip(decision.actions, has_moved, strict=True)):
                return
            if self._lanes.running:
                if not self._lanes.wait():
                    self._walls.sleep(TURN_SECONDS)
            elif not any(has_moved):
                if not self._may_wait(view, decision):
                    return
                self._walls.sleep(_pause(view, decision))
            if view.night.stop_requested_at is None:
                self._walls.interruption.check()

    def _do(self, view: NightView, action: Action) -> bool:
        """Does one thing that was decided; whether the night is another one after it."""
        match action:
            case Launch(partition):
                if not self._lanes.has_room:
                    return False
                self._lanes.launch(partition)
                return True
            case Measure():
                return self._measure()
            case ReportDead():
                raise StateError("This door starts no runs of its own, yet one was reported dead.")
            case _:
                return apply(self._walls, view, action)

    def _may_wait(self, view: NightView, decision: Decision) -> bool:
        """Something is still to come: an action that another process was in the way of, the end of a pause or of a
        parking that a person wants to sit out, or somebody else's work."""
        if view.night.stop_requested_at is not None:
            return False
        if view.night.parked_until is not None and view.now < view.night.parked_until and not decision.actions:
            # The next start gives a night of that age up; nobody waits for one any longer.
            is_young = view.now - view.night.opened_at < self._walls.policy.night_age_max
            return self._wait_for_headroom and is_young
        is_busy = view.is_measuring or any(r.is_active for r in view.ranges)
        return bool(decision.actions) or decision.again_at is not None or is_busy

    def _measure(self) -> bool:
        """One try, and whether it was measured; a failed one is counted in the book, and ``decide`` knows when to give up."""
        try:
            run_measurement(self._walls, self._plan_id, heartbeat=self._heartbeat, on_event=self._on_event)
        except UserError:
            raise
        except SyncError as error:
            self._walls.interruption.check()
            told = "waits" if isinstance(error, Parked | HeldElsewhere) else "failed"
            self._on_event(f"The measurement {told}: {error}")
            return False
        except Exception as error:
            log.error("the measurement failed unexpectedly", exc_info=error)
            return False
        return True


def _pause(view: NightView, decision: Decision) -> float:
    """Seconds until the next look when nobody works: until something is due, but never deaf to others for long."""
    if decision.actions or decision.again_at is None:
        return TURN_SECONDS
    return min(max((decision.again_at - view.now).total_seconds(), TURN_SECONDS), IDLE_SECONDS)


class _Lanes:
    """Ranges in flight as threads of this process."""

    def __init__(self, walls: Walls, plan_id: str, heartbeat: Heartbeat, on_event: Callable[[str], None]) -> None:
        self._walls = walls
        self._plan_id = plan_id
        self._heartbeat = heartbeat
        self._on_event = on_event
        self._pool = ThreadPoolExecutor(max_workers=walls.policy.lanes, thread_name_prefix="lane")
        self._futures: dict[str, Future[RangeEntry]] = {}
        self._trails: dict[str, object] = {}
        """What the book said of a range when it was launched."""
        self.lost: dict[str, RunFact] = {}
        """The runs that failed before they came as far as the book, which cannot count them, by partition."""
        self._user_error: UserError | None = None

    @property
    def running(self) -> tuple[str, ...]:
        return tuple(self._futures)

    @property
    def has_room(self) -> bool:
        return len(self._futures) < self._walls.policy.lanes

    def launch(self, partition: str, *, start: Start = "auto") -> None:
        self._trails[partition] = self._trail(partition)
        self._futures[partition] = self._pool.submit(
            run_range, self._walls, self._plan_id, partition,
            start=start, heartbeat=self._heartbeat, on_event=self._on_event,
        )  # fmt: skip

    def wait(self) -> bool:
        """Until a range ends, or for a moment; whether every run that has ended left a trail in the book. One that did not
        would be launched again at once, and for ever."""
        wait(self._futures.values(), timeout=TURN_SECONDS, return_when=FIRST_COMPLETED)
        return self._collect()

    def _trail(self, partition: str) -> object:
        entry = self._walls.book.range(self._plan_id, partition)
        return (entry.runs, entry.attempts, entry.state) if entry is not None else None

    def _collect(self) -> bool:
        is_told = True
        for partition, future in list(self._futures.items()):
            if not future.done():
                continue
            del self._futures[partition]
            error = future.exception()
            if error is not None and self._trail(partition) == self._trails[partition]:
                is_told = False
                if not isinstance(error, HeldElsewhere | Parked | Stopped):
                    self._count_lost(partition)
            if isinstance(error, UserError):
                self._user_error = error
            if isinstance(error, SyncError):
                self._on_event(f"range {partition}: {error}")
            elif error is not None:
                log.error("range %s failed unexpectedly", partition, exc_info=error)
        return is_told

    def _count_lost(self, partition: str) -> None:
        failed = self.lost[partition].failed + 1 if partition in self.lost else 1
        self.lost[partition] = RunFact("", "ended", since=self._walls.now(), failed=failed)

    def raise_user_error(self) -> None:
        """What a person must mend ends the night; every other lane would meet it too."""
        if self._user_error is not None:
            raise self._user_error

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        self._collect()


# A person's switches


def request_stop(book: Book) -> NightEntry:
    """Stops the newest night without asking any org: nothing new is started, and its processes end."""
    night = book.newest()
    if night is None:
        raise StateError("There is no night to stop.")
    book.request_stop(night.plan_id)
    return night


def stop(walls: Walls) -> int:
    """Stops the newest night, then aborts its own open jobs and returns how many.

    Raises ``WrongOrg``, with the stop in force, when its jobs are in another org.
    """
    night = request_stop(walls.book)
    night.plan.check_belongs(walls.org, walls.mapping)
    return release_jobs(walls, night.plan_id)


def restart(
    walls: Walls, *, partitions: Collection[str] | None = None, say: Callable[[str], None] = log.info
) -> NightEntry:
    """Lifts a stop and gives ranges new attempts; returns the night, which is open again if its verdict left them out.

    A night that is parked looks again whether there is room, and stays parked if not. ``None`` means those that are held, given up or failed. Ranges that somebody works on are left alone.
    """
    night = walls.book.newest()
    if night is None:
        raise StateError("There is no night to restart.", hint="Start one with `sync-pipeline sync`.")
    night.plan.check_belongs(walls.org, walls.mapping)
    unknown = [p for p in partitions or () if night.plan.range(p) is None]
    if unknown:
        known = ", ".join(r.partition for r in night.plan)
        raise StateError(f"The newest night has no range {', '.join(unknown)}.", hint=f"It has: {known}.")
    idle = [r.entry for r in presences(walls.book, walls.area, night.plan_id) if not r.is_locked]
    if partitions is None:
        wanted = [e for e in idle if e.state not in (RangeState.DONE, RangeState.PLANNED)]
    else:
        wanted = [e for e in idle if e.partition in partitions]
    walls.book.lift_stop(night.plan_id)
    _look_again(walls, night, say)
    walls.book.rearm(night.plan_id, [e.partition for e in wanted])
    if night.verdict is not None and wanted and all(e.state is not RangeState.DONE for e in wanted):
        walls.book.clear_verdict(night.plan_id)
    return _night(walls, night.plan_id)


# Telling


def is_clean(night: NightEntry) -> bool:
    """The night ended as well as its level of verification can say, with no row rejected: exit code 0."""
    return night.verdict is not None and night.verdict.is_clean and not night.verdict_reasons


def night_json(night: NightEntry, ranges: Sequence[RangeEntry], *, died: Collection[str] = ()) -> dict[str, Any]:
    """The public JSON of a night: totals, ranges and verdict; ``None`` for what was not measured.

    ``died`` are ranges whose process is gone in the midst of a run.
    """
    total = sum((entry.counts for entry in ranges), Counts())
    measurement = night.measurement
    totals: dict[str, Any] = total.to_json()
    for name in ("present", "missing", "different", "orphans"):
        totals[name] = getattr(measurement, name) if measurement is not None else None
    bounds = {planned.partition: planned.range for planned in night.plan}
    return {
        "plan_id": night.plan_id,
        "org": str(night.plan.org),
        "verdict": night.verdict.value if night.verdict is not None else None,
        "reasons": list(night.verdict_reasons),
        "state": state_of(night, ranges, died=died),
        "totals": totals,
        "api_calls": night.api_calls,
        "seconds": round(night.seconds, 3),
        "ranges": [
            {
                "partition": entry.partition,
                "after": bounds[entry.partition].after,
                "through": bounds[entry.partition].through,
                "state": "died" if entry.partition in died else entry.state.value,
                **entry.counts.to_json(),
                **_measured(measurement, entry.partition),
            }
            for entry in ranges
        ],
    }


def _measured(measurement: Measurement | None, partition: str) -> dict[str, int | None]:
    found = measurement.by_range.get(partition, {}) if measurement is not None else {}
    return {name: found.get(name) for name in ("present", "missing", "different", "orphans")}


def state_of(night: NightEntry, ranges: Sequence[RangeEntry], *, died: Collection[str] = ()) -> str:
    """One word for where a night stands."""
    if night.verdict is not None:
        return night.verdict.value
    if night.stop_requested_at is not None:
        return "stopped"
    if any(entry.state.is_active and entry.partition not in died for entry in ranges):
        return "running"
    if night.parked_until is not None:
        return "parked"
    if all(entry.state.is_settled for entry in ranges):
        return "to be measured"
    return "died" if died else "unfinished"
