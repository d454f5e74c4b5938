"""What a night does next: one pure function over what the book, the locks and the orchestrator say.

The night sensor of Dagster and the loop of ``sync`` both look (``NightView``), ask ``decide`` and do what it answers,
nothing else. Rows and jobs are never looked at here: SYNC_HOME says what happened to rows, and the ranges say it to
the book. A night moves through these rules in their order: driven elsewhere, stopped, dead runs, cancelled runs,
launching and giving up, parked, measuring, repairing, the verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from sync_pipeline.domain.ledger import Counts, RangeState, Verdict
from sync_pipeline.domain.night import NightEntry, RangeEntry
from sync_pipeline.domain.policy import Policy, Verify
from sync_pipeline.engine.findings import proof_findings

DEAD_AFTER: Final = timedelta(minutes=2)
"""A run that is STARTED this long while nobody holds its lock has died, if it has come as far as the book."""
SILENT_AFTER: Final = timedelta(seconds=30)
"""A run that lives says so every few seconds; between the end of its work and the end of the run it says nothing."""
LOGGED_IN_AFTER: Final = timedelta(minutes=6)
"""A run that is STARTED this long and has not come as far as the book has died: the longest login is over by then."""
ACTIVE: Final = ("queued", "started", "canceling")


# What it sees


@dataclass(frozen=True, slots=True)
class RunFact:
    """What an orchestrator knows of the newest run of a range or measurement; the terminal door has none."""

    run_id: str
    status: Literal["queued", "started", "canceling", "ended", "canceled"]
    since: datetime
    """When the run got this status."""
    runs: int = 1
    """Runs of this range in this night, this one included."""
    failed: int = 0
    """Those of them that failed before they came as far as the book, since a person last wanted new attempts."""

    @property
    def is_active(self) -> bool:
        return self.status in ACTIVE

    def has_died(
        self, now: datetime, *, is_locked: bool, is_known: bool, seen_at: datetime | None, silent: timedelta
    ) -> bool:
        """It is said to run, yet its process is gone. ``is_known``: it is the newest run that came to the book."""
        if self.status != "started" or is_locked or now - self.since < DEAD_AFTER:
            return False
        if not is_known:
            return now - self.since >= LOGGED_IN_AFTER
        return now - _latest([self.since, seen_at]) >= silent


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
        return self.is_locked or (self.run is not None and self.run.is_active)

    @property
    def is_idle(self) -> bool:
        """Work is left, and nobody is at it."""
        return not self.state.is_settled and not self.is_active

    @property
    def runs(self) -> int:
        """Runs so far; one that died before it reached the book counts too."""
        return max(self.entry.runs, self.run.runs if self.run is not None else 0)

    @property
    def attempts(self) -> int:
        """Runs that failed, with the one that was killed while it ran and those that never came to the book."""
        was_killed = self.state.is_active and not self.is_active
        return self.entry.attempts + was_killed + (self.run.failed if self.run is not None else 0)

    def is_dead(self, now: datetime) -> bool:
        if self.run is None:
            return False
        # A range that is settled has nothing to lose: its run may take its time to end.
        silent = DEAD_AFTER if self.state.is_settled else SILENT_AFTER
        is_known = self.entry.run_id == self.run.run_id
        return self.run.has_died(
            now, is_locked=self.is_locked, is_known=is_known, seen_at=self.entry.heartbeat_at, silent=silent
        )

    def was_canceled(self) -> bool:
        """The last thing that happened to it is that a person cancelled its run."""
        if self.run is None or self.run.status != "canceled" or self.is_locked or self.state.is_settled:
            return False
        return self.entry.rearmed_at is None or self.run.since > self.entry.rearmed_at

    def due_at(self, policy: Policy) -> datetime | None:
        """When the next run may begin: after a failure later and later. ``None``: at once."""
        if not self.attempts:
            return None
        ended_at = self.run.since if self.run is not None and not self.run.is_active else None
        instants = [at for at in (self.entry.heartbeat_at, ended_at) if at is not None]
        return max(instants) + policy.rerun_pause(self.attempts) if instants else None


@dataclass(frozen=True, slots=True)
class NightView:
    """Everything ``decide`` decides from."""

    night: NightEntry
    ranges: tuple[RangeView, ...]
    policy: Policy
    now: datetime
    measure_run: RunFact | None = None
    is_measuring: bool = False
    """Somebody holds the lock of the measurement."""
    is_driven: bool = False
    """Another process drives the night from a terminal."""
    measure_error: str = ""
    """Why the newest measurement failed, as far as it came to say so."""
    only: frozenset[str] = frozenset()
    """The ranges that this driver may start; empty: all."""

    @property
    def begun(self) -> int:
        """Runs of all ranges that came to the book so far: nothing in the org changes without one more."""
        return sum(r.entry.runs for r in self.ranges)

    @property
    def is_amended(self) -> bool:
        """A person ran a range after the verdict, or the proof that was missing then has come."""
        if self.night.verdict is None:
            return False
        return self.begun != self.night.verdict_runs or (self.night.verdict is Verdict.UNPROVEN and self.is_measured)

    @property
    def is_measured(self) -> bool:
        """The org was measured after the last run."""
        measurement = self.night.measurement
        return measurement is not None and not measurement.error and self.begun == self.night.measured_runs

    @property
    def measure_tries(self) -> int:
        """Measurements that failed, with the one that was killed while it ran and those that never came to the book."""
        was_killed = self.night.measuring_since is not None and not self.is_measuring
        return self.night.measure_tries + was_killed + (self.measure_run.failed if self.measure_run is not None else 0)

    @property
    def measure_is_dead(self) -> bool:
        run, night = self.measure_run, self.night
        return run is not None and run.has_died(
            self.now,
            is_locked=self.is_measuring,
            is_known=night.measure_run_id == run.run_id,
            seen_at=night.measure_seen_at,
            silent=SILENT_AFTER if night.measuring_since is not None else DEAD_AFTER,
        )

    @property
    def measure_due_at(self) -> datetime | None:
        """When the org may be measured: after a failure later and later. ``None``: at once."""
        if not self.measure_tries:
            return None
        run = self.measure_run
        ended_at = run.since if run is not None and not run.is_active else None
        instants = [at for at in (self.night.measure_seen_at, ended_at) if at is not None]
        return max(instants) + self.policy.rerun_pause(self.measure_tries) if instants else None


# What it answers


@dataclass(frozen=True, slots=True)
class Launch:
    partition: str
    number: int
    """1 for the first run of the range in this night."""


@dataclass(frozen=True, slots=True)
class ReportDead:
    what: str
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
    """1 for the first try."""


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
    again_at: datetime | None = None
    """When something is due although nothing else happens: the end of a pause or of a parking."""


def decide(view: NightView) -> Decision:
    """The next step of a night. Pure: the same view gives the same answer."""
    night, line = view.night, _line(view)
    if view.is_driven:
        return Decision(f"{line}; driven from a terminal")
    if night.stop_requested_at is not None:
        return Decision(f"{line}; stopped, `restart` or `sync` goes on")

    dead = _dead(view)
    if dead:
        return Decision(f"{line}; {len(dead)} died", dead)

    holds = tuple(Hold(r.partition) for r in view.ranges if r.was_canceled())
    if holds:
        return Decision(f"{line}; {len(holds)} cancelled by a person", holds)

    if night.verdict is None:
        decision = _work(view, line)
        if decision is not None:
            return decision
    elif not view.is_amended:
        return Decision(f"night is over: {night.verdict}")
    if any(r.is_active for r in view.ranges):
        return Decision(line)

    if not view.is_measured:
        return _measuring(view, line)
    repairable = _repairable(view)
    if repairable:
        return Decision(f"{line}; {len(repairable)} drift", (Repair(repairable),))
    verdict, reasons = judge(night, [r.entry for r in view.ranges])
    return Decision(f"{line}; {verdict}", (Conclude(verdict, reasons),))


def _dead(view: NightView) -> tuple[ReportDead, ...]:
    dead = [
        ReportDead(f"range {r.partition}", r.run.run_id)
        for r in view.ranges
        if r.run is not None and r.is_dead(view.now)
    ]
    if view.measure_run is not None and view.measure_is_dead:
        dead.append(ReportDead("the measurement", view.measure_run.run_id))
    return tuple(dead)


def _work(view: NightView, line: str) -> Decision | None:
    """What becomes of the ranges with work left; ``None`` when there are none."""
    night, policy = view.night, view.policy
    idle = [r for r in view.ranges if r.is_idle]
    ours = [r for r in idle if not view.only or r.partition in view.only]
    hopeless = tuple(
        GiveUp(r.partition, f"{r.attempts} runs failed, the last: {r.entry.error or 'it died'}")
        for r in ours
        if r.attempts >= policy.range_attempts
    )
    if hopeless:
        return Decision(f"{line}; {len(hopeless)} given up", hopeless)
    if night.parked_until is not None and idle:
        if view.now < night.parked_until or any(r.is_active for r in view.ranges):
            return _parked(view, line)
        launches, again_at = _launches(ours, view)
        return Decision(f"{line}; probing", launches[:1], again_at)
    if ours:
        launches, again_at = _launches(ours, view)
        pause = f"; a failed range again at {_clock(again_at)}" if again_at is not None else ""
        return Decision(f"{line}{pause}", launches, again_at)
    if idle:
        return Decision(f"{line}; {len(idle)} not asked for")
    return None


def _launches(idle: Sequence[RangeView], view: NightView) -> tuple[tuple[Launch, ...], datetime | None]:
    """The idle ranges that are due, and when the first of the others will be."""
    due: list[Launch] = []
    later: list[datetime] = []
    for r in idle:
        at = r.due_at(view.policy)
        if at is None or at <= view.now:
            due.append(Launch(r.partition, r.runs + 1))
        else:
            later.append(at)
    return tuple(due), min(later, default=None)


def _measuring(view: NightView, line: str) -> Decision:
    """Has the org measured, unless somebody does so already, the night is parked, or it failed too often."""
    night, tries = view.night, view.measure_tries
    if view.is_measuring or (view.measure_run is not None and view.measure_run.is_active):
        return Decision(f"{line}; measuring")
    if tries >= view.policy.measurements:
        why = f", the last: {view.measure_error}" if view.measure_error else ""
        reason = f"the org could not be measured in {tries} tries{why}"
        return Decision(f"{line}; unproven", (Conclude(Verdict.UNPROVEN, (reason,)),))
    if night.parked_until is not None and view.now < night.parked_until:
        return _parked(view, line)
    due_at = view.measure_due_at
    if due_at is not None and view.now < due_at:
        return Decision(f"{line}; to be measured again at {_clock(due_at)}", again_at=due_at)
    return Decision(f"{line}; to be measured", (Measure(tries + 1),))


def _parked(view: NightView, line: str) -> Decision:
    until = view.night.parked_until
    told = f"parked until {_clock(until)}" if until is not None else "parked"
    return Decision(f"{line}; {told}: {view.night.parked_reason}", again_at=until)


def judge(night: NightEntry, ranges: Sequence[RangeEntry]) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict of a measured night and everything that keeps it from being clean, read off its findings."""
    measurement = night.measurement
    if measurement is None:
        return Verdict.UNPROVEN, ("the org was not measured",)
    reasons = [reason for finding in proof_findings(night, ranges) for reason in finding.reasons]
    total = sum((entry.counts for entry in ranges), Counts())
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


def _line(view: NightView) -> str:
    done = sum(r.state is RangeState.DONE for r in view.ranges)
    told = (RangeState.PARKED, RangeState.HELD, RangeState.GIVEN_UP, RangeState.DRIFTING)
    counted = [
        (sum(r.is_active for r in view.ranges), "running"),
        *((sum(r.state is state and not r.is_active for r in view.ranges), state.value) for state in told),
    ]
    return ", ".join([f"{done}/{len(view.ranges)} done", *(f"{number} {word}" for number, word in counted if number)])


def _clock(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%H:%M UTC")


def _latest(instants: Iterable[datetime | None]) -> datetime:
    return max(at for at in instants if at is not None)
