"""The course of a night: opening it, deciding what to do next, driving it, and its verdict.

``decide`` is one pure function over what the book says; the night sensor of Dagster and the loop of ``sync`` both do
what it answers and nothing else. Rows and jobs are never looked at here: SYNC_HOME says what happened to rows, and the
ranges say it to the book.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sync_pipeline.domain.errors import HeldElsewhere, PlanRefused, StateError, SyncError, UserError
from sync_pipeline.domain.ledger import Counts, RangeState, Verdict
from sync_pipeline.domain.night import Measurement, NightEntry, RangeEntry
from sync_pipeline.domain.plan import Plan, new_plan_id
from sync_pipeline.domain.policy import Policy, Verify
from sync_pipeline.engine.duplicates import write_groups
from sync_pipeline.engine.heartbeat import Heartbeat
from sync_pipeline.engine.loading import abort_orphans, end_job
from sync_pipeline.engine.planning import make_plan, previous_plan, survey
from sync_pipeline.engine.range_run import release_jobs, run_range
from sync_pipeline.engine.reconciliation import measure
from sync_pipeline.engine.walls import Walls

log = logging.getLogger(__name__)

DEAD_AFTER = timedelta(minutes=2)
"""A run that is STARTED this long while nobody holds its range's lock has died."""
LETTING_GO_SECONDS = 60.0
"""How long an older night's processes may take to hear that it was stopped."""
TURN_SECONDS = 0.5
"""How often the driving loop looks when nothing has ended."""


# What decide() sees


@dataclass(frozen=True, slots=True)
class RunFact:
    """What an orchestrator knows of the newest run of a range; the terminal door has none."""

    run_id: str
    status: Literal["queued", "started", "ended", "canceled"]
    since: datetime
    runs: int = 1
    """Runs of this range in this night, this one included."""
    failed: int = 0
    """Those of them that ended in failure."""


@dataclass(frozen=True, slots=True)
class RangeView:
    """One range as the book and the orchestrator see it."""

    entry: RangeEntry
    is_locked: bool
    run: RunFact | None = None

    @property
    def partition(self) -> str:
        return self.entry.partition

    @property
    def state(self) -> RangeState:
        return self.entry.state

    @property
    def is_active(self) -> bool:
        return self.is_locked or (self.run is not None and self.run.status in ("queued", "started"))

    @property
    def runs(self) -> int:
        """Runs so far; one that died before it reached the book counts too."""
        return max(self.entry.runs, self.run.runs if self.run is not None else 0)

    @property
    def attempts(self) -> int:
        return max(self.entry.attempts, self.run.failed if self.run is not None and not self.entry.rearmed_at else 0)


@dataclass(frozen=True, slots=True)
class NightView:
    """Everything ``decide`` decides from."""

    night: NightEntry
    ranges: tuple[RangeView, ...]
    policy: Policy
    now: datetime
    measure_run: RunFact | None = None

    @property
    def finished_at(self) -> datetime | None:
        """When the newest range finished."""
        return max((r.entry.finished_at for r in self.ranges if r.entry.finished_at is not None), default=None)

    @property
    def is_measured(self) -> bool:
        """The org was measured after the last range finished."""
        measurement = self.night.measurement
        if measurement is None or measurement.error:
            return False
        return self.finished_at is None or measurement.measured_at >= self.finished_at


# What it answers


@dataclass(frozen=True, slots=True)
class Launch:
    partition: str
    number: int
    """1 for the first run of the range in this night."""


@dataclass(frozen=True, slots=True)
class ReportDead:
    partition: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Hold:
    partition: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    partition: str
    reason: str


@dataclass(frozen=True, slots=True)
class Measure:
    number: int


@dataclass(frozen=True, slots=True)
class Repair:
    partitions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conclude:
    verdict: Verdict
    reasons: tuple[str, ...]


Action = Launch | ReportDead | Hold | GiveUp | Measure | Repair | Conclude


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and the night in one line for people."""

    line: str
    actions: tuple[Action, ...] = field(default=())


def decide(view: NightView) -> Decision:
    """The next step of a night. Pure: the same view gives the same answer."""
    night, policy = view.night, view.policy
    if night.stop_requested_at is not None:
        return Decision(f"{_line(view)}; stopped, `restart` or `sync` goes on")

    dead = tuple(
        ReportDead(r.partition, r.run.run_id)
        for r in view.ranges
        if r.run is not None and r.run.status == "started" and not r.is_locked and view.now - r.run.since >= DEAD_AFTER
    )
    if dead:
        return Decision(f"{_line(view)}; {len(dead)} died", dead)

    finished_at = view.finished_at
    if night.verdict_at is not None and (finished_at is None or finished_at <= night.verdict_at):
        return Decision(f"night is over: {night.verdict}")

    holds = tuple(Hold(r.partition) for r in view.ranges if not r.state.is_settled and _was_canceled(r))
    if holds:
        return Decision(f"{_line(view)}; {len(holds)} cancelled by a person", holds)

    if night.verdict_at is None:
        idle = [r for r in view.ranges if not r.state.is_settled and not r.is_active]
        hopeless = tuple(
            GiveUp(r.partition, f"{r.attempts} runs failed, the last: {r.entry.error}")
            for r in idle
            if r.attempts >= policy.range_attempts
        )
        if hopeless:
            return Decision(f"{_line(view)}; {len(hopeless)} given up", hopeless)
        if night.parked_until is not None and idle:
            someone_runs = any(r.is_active for r in view.ranges)
            if view.now < night.parked_until or someone_runs:
                return Decision(f"{_line(view)}; parked until {_clock(night.parked_until)}: {night.parked_reason}")
            return Decision(f"{_line(view)}; probing", (Launch(idle[0].partition, idle[0].runs + 1),))
        if idle:
            return Decision(_line(view), tuple(Launch(r.partition, r.runs + 1) for r in idle))

    if any(r.is_active for r in view.ranges):
        return Decision(_line(view))
    if not view.is_measured:
        if view.measure_run is not None and view.measure_run.status in ("queued", "started"):
            return Decision(f"{_line(view)}; measuring")
        if night.measure_tries >= policy.measurements:
            reason = f"the org could not be measured in {night.measure_tries} tries"
            return Decision(f"{_line(view)}; unproven", (Conclude(Verdict.UNPROVEN, (reason,)),))
        return Decision(f"{_line(view)}; to be measured", (Measure(night.measure_tries + 1),))

    repairable = _repairable(view)
    if repairable:
        return Decision(f"{_line(view)}; {len(repairable)} drift", (Repair(repairable),))
    verdict, reasons = judge(night, [r.entry for r in view.ranges])
    return Decision(f"{_line(view)}; {verdict}", (Conclude(verdict, reasons),))


def judge(night: NightEntry, ranges: Sequence[RangeEntry]) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict of a measured night and everything that keeps it from being clean."""
    measurement = night.measurement
    if measurement is None:
        return Verdict.UNPROVEN, ("the org was not measured",)
    reasons = [
        f"range {entry.partition} is {entry.state.value}{f': {entry.error}' if entry.error else ''}"
        for entry in ranges
        if entry.state is not RangeState.DONE
    ]
    total = sum((entry.counts for entry in ranges), Counts())
    if total.staged != total.expected:
        reasons.append(f"{total.expected} rows expected, {total.staged} staged")
    if not total.adds_up:
        reasons.append(f"{total.staged} rows staged, {total.accounted} accounted for")
    if measurement.missing:
        reasons.append(f"{measurement.missing} rows are missing in the org")
    if measurement.different:
        reasons.append(f"{measurement.different} rows differ in the org")
    if reasons:
        return Verdict.NOT_RECONCILED, tuple(reasons)
    rejected = _rejected(total)
    match Verify(measurement.level):
        case Verify.VALUES:
            return (Verdict.WITH_REJECTS if rejected else Verdict.RECONCILED), rejected
        case Verify.KEYS:
            return Verdict.PRESENT, rejected
        case Verify.COUNTS:
            return Verdict.COUNTED, rejected


def is_clean(night: NightEntry) -> bool:
    """The night ended as well as its level of verification can say, with no row rejected: exit code 0."""
    return night.verdict is not None and night.verdict.is_clean and not night.verdict_reasons


def _rejected(total: Counts) -> tuple[str, ...]:
    quarantined = total.quarantined - total.set_aside
    counted = ((total.failed, "failed"), (total.unprocessed, "unprocessed"), (quarantined, "quarantined"))
    return tuple(f"{rows} rows {fate}" for rows, fate in counted if rows)


def _repairable(view: NightView) -> tuple[str, ...]:
    measurement = view.night.measurement
    if measurement is None or view.night.verdict_at is not None:
        return ()
    drifting = set(measurement.drifting)
    return tuple(
        r.partition
        for r in view.ranges
        if r.partition in drifting and r.state is RangeState.DONE and r.entry.repairs < view.policy.repairs
    )


def _was_canceled(view: RangeView) -> bool:
    if view.run is None or view.run.status != "canceled" or view.is_locked:
        return False
    return view.entry.rearmed_at is None or view.run.since > view.entry.rearmed_at


def _line(view: NightView) -> str:
    done = sum(r.state is RangeState.DONE for r in view.ranges)
    parts = [f"{done}/{len(view.ranges)} done"]
    running = sum(r.is_active for r in view.ranges)
    counted = [(running, "running")]
    for state in (RangeState.PARKED, RangeState.HELD, RangeState.GIVEN_UP, RangeState.DRIFTING):
        counted.append((sum(r.state is state and not r.is_active for r in view.ranges), state.value))
    return ", ".join(parts + [f"{number} {word}" for number, word in counted if number])


def _clock(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%H:%M UTC")


# Opening


def open_night(
    walls: Walls, *, fresh: bool = False, rearm: bool = False, say: Callable[[str], None] = log.info
) -> NightEntry:
    """The night to work on: the newest one while it is unfinished and young, else a new one.

    ``fresh`` gives an unfinished night up first; ``rearm`` gives its held and given-up ranges new attempts, as a person
    who starts it by hand wants. Raises ``HeldElsewhere`` when another process opens or concludes one, ``PlanRefused``
    when the source cannot be trusted, a ``UserError`` for what a person must mend.
    """
    with walls.area.lock_night():
        newest = walls.book.newest()
        if newest is not None and newest.verdict is None:
            is_young = walls.now() - newest.opened_at < walls.policy.night_age_max
            if is_young and not fresh:
                newest.plan.check_belongs(walls.org, walls.mapping)
                walls.book.lift_stop(newest.plan_id)
                if rearm:
                    walls.book.rearm(newest.plan_id)
                say(f"Night {newest.plan_id} of {newest.plan.org} is unfinished and goes on.")
                return _night(walls, newest.plan_id)
            _abandon(walls, newest, say)
        plan_id = new_plan_id(walls.now())
        _end_jobs_of_earlier_nights(walls)
        survey(walls)
        previous = previous_plan(walls)
        plan, groups = make_plan(walls, plan_id=plan_id, previous=previous)
        check_plausible(plan, previous, walls.policy)
        folder = walls.area.night_folder(plan_id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_groups(groups, folder)
        walls.book.open_night(plan)
        say(f"Night {plan_id} of {plan.org}: {plan.expected} rows in {len(plan.ranges)} ranges.")
        return _night(walls, plan_id)


def check_plausible(plan: Plan, previous: Plan | None, policy: Policy) -> None:
    """Raises ``PlanRefused`` when the source holds far fewer rows than last night."""
    if previous is not None and plan.expected < previous.expected * policy.source_share_min:
        raise PlanRefused(
            f"The source holds {plan.expected} rows; the last plan counted {previous.expected}.",
            hint=f"If that is right, set SYNC_SOURCE_SHARE_MIN below {policy.source_share_min} for one night.",
        )


def _abandon(walls: Walls, night: NightEntry, say: Callable[[str], None]) -> None:
    """Ends an unfinished night: its processes hear the stop, its jobs are let go, its rows left are named."""
    walls.book.request_stop(night.plan_id)
    deadline = walls.clock() + LETTING_GO_SECONDS
    while held := [r.partition for r in night.plan if walls.area.is_range_locked(r.partition)]:
        if walls.clock() > deadline:
            raise HeldElsewhere(
                f"Night {night.plan_id} was stopped, but its ranges {', '.join(held)} are still being worked on.",
                hint="Wait for those runs to end, or end their processes, then start again.",
            )
        walls.sleep(TURN_SECONDS)
    if night.plan.org.org_id == walls.org.org_id:
        release_jobs(walls, night.plan_id)
    entries = walls.book.ranges(night.plan_id)
    left = sum((e.counts.expected - e.counts.succeeded for e in entries if e.state is not RangeState.DONE), 0)
    unfinished = sum(e.state is not RangeState.DONE for e in entries)
    reason = f"{unfinished} ranges unfinished, {left} rows left"
    walls.book.record_verdict(
        night.plan_id, Verdict.ABANDONED, reasons=(reason,), seconds=(walls.now() - night.opened_at).total_seconds()
    )
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
) -> NightView:
    """What the book, the locks and the orchestrator (``runs`` by partition) say now. ``own`` ranges run in this process."""
    return NightView(
        night=_night(walls, plan_id),
        ranges=tuple(
            RangeView(
                entry=entry,
                is_locked=entry.partition in own or walls.area.is_range_locked(entry.partition),
                run=(runs or {}).get(entry.partition),
            )
            for entry in walls.book.ranges(plan_id)
        ),
        policy=walls.policy,
        now=walls.now(),
        measure_run=measure_run,
    )


def apply(walls: Walls, night: NightEntry, action: Action) -> None:
    """The book's side of an action. Launch, Measure and ReportDead are the caller's: they start or end processes."""
    match action:
        case Hold(partition):
            walls.book.hold(night.plan_id, partition)
        case GiveUp(partition, reason):
            walls.book.give_up(night.plan_id, partition, reason)
        case Repair(partitions):
            for partition in partitions:
                walls.book.count_repair(night.plan_id, partition)
        case Conclude(verdict, reasons):
            walls.meter.flush()
            seconds = (walls.now() - night.opened_at).total_seconds()
            walls.book.record_verdict(night.plan_id, verdict, reasons=reasons, seconds=seconds)
        case Launch() | Measure() | ReportDead():
            raise StateError(f"{action} has no side in the book.")


def drive(
    walls: Walls,
    night: NightEntry,
    *,
    only: Collection[str] = (),
    wait_for_headroom: bool = False,
    on_event: Callable[[str], None] = log.info,
    on_tick: Callable[[], None] = lambda: None,
) -> NightEntry:
    """Runs a night without an orchestrator until its verdict, a stop, or a parking; returns it as it stands then.

    Up to ``policy.lanes`` ranges run at once as threads. With ``only`` no other ranges are started, and those are run
    even when the night has its verdict. Raises ``HeldElsewhere`` at once when another process drives or runs a range,
    and a ``UserError`` when a lane met one.
    """
    with walls.area.lock_driver(), Heartbeat(walls, night.plan_id) as heartbeat:
        locked = [r.partition for r in night.plan if walls.area.is_range_locked(r.partition)]
        if locked:
            raise HeldElsewhere(
                f"Ranges of this night are being worked on by another process: {', '.join(locked)}.",
                hint="Watch it with `sync-pipeline status --watch`.",
            )
        lanes = _Lanes(walls, night.plan_id, heartbeat, on_event)
        try:
            for partition in only:
                lanes.launch(partition)
            _loop(walls, night.plan_id, lanes, only, wait_for_headroom, on_event, on_tick)
        except BaseException as error:
            walls.interruption.interrupt(str(error) or type(error).__name__)
            raise
        finally:
            lanes.close()
    return _night(walls, night.plan_id)


def _loop(
    walls: Walls,
    plan_id: str,
    lanes: _Lanes,
    only: Collection[str],
    wait_for_headroom: bool,
    on_event: Callable[[str], None],
    on_tick: Callable[[], None],
) -> None:
    said = ""
    while True:
        on_tick()
        lanes.raise_user_error()
        view = view_of(walls, plan_id, own=lanes.running)
        decision = decide(view)
        if decision.line != said:
            on_event(decision.line)
            said = decision.line
        progressed = False
        for action in decision.actions:
            match action:
                case Launch(partition):
                    if (not only or partition in only) and lanes.has_room:
                        lanes.launch(partition)
                        progressed = True
                case Measure():
                    _measure(walls, plan_id, on_event)
                    progressed = True
                case ReportDead():
                    raise StateError("This door starts no runs of its own, yet one was reported dead.")
                case Conclude():
                    apply(walls, view.night, action)
                    return
                case _:
                    apply(walls, view.night, action)
                    progressed = True
        if lanes.running:
            lanes.wait()
        elif not progressed:
            if view.night.parked_until is not None and wait_for_headroom and not view.night.stop_requested_at:
                walls.sleep(TURN_SECONDS)
            elif any(r.is_active for r in view.ranges) and not view.night.stop_requested_at:
                walls.sleep(TURN_SECONDS)
            else:
                return
        walls.interruption.check() if not view.night.stop_requested_at else None


def _measure(walls: Walls, plan_id: str, on_event: Callable[[str], None]) -> Measurement | None:
    """One try; a failed one is counted in the book, and ``decide`` knows when to give up."""
    try:
        return measure(walls, plan_id, on_event=on_event)
    except UserError:
        raise
    except SyncError as error:
        walls.interruption.check()
        on_event(f"The org could not be measured: {error}")
        return None


class _Lanes:
    """Ranges in flight as threads of this process."""

    def __init__(self, walls: Walls, plan_id: str, heartbeat: Heartbeat, on_event: Callable[[str], None]) -> None:
        self._walls = walls
        self._plan_id = plan_id
        self._heartbeat = heartbeat
        self._on_event = on_event
        self._pool = ThreadPoolExecutor(max_workers=walls.policy.lanes, thread_name_prefix="lane")
        self._futures: dict[str, Future[RangeEntry]] = {}
        self._user_error: UserError | None = None

    @property
    def running(self) -> tuple[str, ...]:
        return tuple(self._futures)

    @property
    def has_room(self) -> bool:
        return len(self._futures) < self._walls.policy.lanes

    def launch(self, partition: str) -> None:
        self._futures[partition] = self._pool.submit(
            run_range, self._walls, self._plan_id, partition, heartbeat=self._heartbeat, on_event=self._on_event
        )

    def wait(self) -> None:
        """Until a range ends, or for a moment."""
        wait(self._futures.values(), timeout=TURN_SECONDS, return_when=FIRST_COMPLETED)
        self._collect()

    def _collect(self) -> None:
        for partition, future in list(self._futures.items()):
            if not future.done():
                continue
            del self._futures[partition]
            error = future.exception()
            if isinstance(error, UserError):
                self._user_error = error
            if isinstance(error, SyncError):
                self._on_event(f"range {partition}: {error}")
            elif error is not None:
                log.error("range %s failed unexpectedly", partition, exc_info=error)

    def raise_user_error(self) -> None:
        """What a person must mend ends the night; every other lane would meet it too."""
        if self._user_error is not None:
            raise self._user_error

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        self._collect()


# A person's switches


def stop(walls: Walls) -> tuple[NightEntry, int] | None:
    """Stops the newest night: nothing new is started, own open jobs are aborted. Returns how many; ``None``: no night."""
    night = walls.book.newest()
    if night is None:
        return None
    walls.book.request_stop(night.plan_id)
    return _night(walls, night.plan_id), release_jobs(walls, night.plan_id)


def restart(walls: Walls, *, partitions: Collection[str] | None = None) -> NightEntry:
    """Lifts a stop and gives ranges new attempts (``None``: those held, given up or failed); returns the night."""
    night = walls.book.newest()
    if night is None:
        raise StateError("There is no night to restart.", hint="Start one with `sync-pipeline sync`.")
    night.plan.check_belongs(walls.org, walls.mapping)
    unknown = [p for p in partitions or () if night.plan.range(p) is None]
    if unknown:
        known = ", ".join(r.partition for r in night.plan)
        raise StateError(f"The newest night has no range {', '.join(unknown)}.", hint=f"It has: {known}.")
    walls.book.lift_stop(night.plan_id)
    walls.book.unpark(night.plan_id)
    walls.book.rearm(night.plan_id, partitions)
    return _night(walls, night.plan_id)


# Telling


def night_json(night: NightEntry, ranges: Sequence[RangeEntry]) -> dict[str, Any]:
    """The public JSON of a night: totals, ranges and verdict; ``None`` for what was not measured."""
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
        "state": state_of(night, ranges),
        "totals": totals,
        "api_calls": night.api_calls,
        "seconds": round(night.seconds, 3),
        "ranges": [
            {
                "partition": entry.partition,
                "after": bounds[entry.partition].after,
                "through": bounds[entry.partition].through,
                "state": entry.state.value,
                **entry.counts.to_json(),
                **_measured(measurement, entry.partition),
            }
            for entry in ranges
        ],
    }


def _measured(measurement: Measurement | None, partition: str) -> dict[str, int | None]:
    found = measurement.by_range.get(partition, {}) if measurement is not None else {}
    return {name: found.get(name) for name in ("present", "missing", "different", "orphans")}


def state_of(night: NightEntry, ranges: Sequence[RangeEntry]) -> str:
    """One word for where a night stands."""
    if night.verdict is not None:
        return night.verdict.value
    if night.stop_requested_at is not None:
        return "stopped"
    if night.parked_until is not None:
        return "parked"
    if all(entry.state.is_settled for entry in ranges):
        return "to be measured"
    return "running" if any(entry.state.is_active for entry in ranges) else "unfinished"
