"""A night as the book holds it: what every process may read at any time, and what ``decide()`` decides from."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sync_pipeline.domain.ledger import Counts, RangeState, Verdict
from sync_pipeline.domain.plan import Plan

PIPELINE: Final = "opportunity"
"""The mapping whose nights the book holds; there is one."""


@dataclass(frozen=True, slots=True)
class RangeEntry:
    """One range of a night. ``rows_sent`` and ``counts`` move while it runs."""

    partition: str
    place: int
    state: RangeState
    counts: Counts
    runs: int = 0
    """Runs started so far, whatever became of them."""
    attempts: int = 0
    """Runs that ended in failure or were killed; a parked or stopped run is none."""
    generation: int = 1
    repairs: int = 0
    is_repair: bool = False
    """Rows of it drift, and no run has finished since that was found."""
    pid: int = 0
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None
    finished_at: datetime | None = None
    error: str = ""
    rows_sent: int = 0
    run_id: str = ""
    """The orchestrator's name of the last run; empty for one of the terminal."""
    rearmed_at: datetime | None = None
    """When a person last lifted a hold or gave the range new attempts."""


@dataclass(frozen=True, slots=True)
class JobEntry:
    """One remote act of the night, from intent to accounted. ``job_id`` is empty while only the intent is known."""

    intent: int
    plan_id: str
    partition: str
    generation: int
    part: int
    round: int
    rows: int
    intended_at: datetime
    job_id: str = ""
    state: str = "intended"
    """``intended``, then the job's state as the org names it, at last ``accounted`` or ``dropped``."""
    serial: bool = False
    processed: int = 0
    failed: int = 0
    retries: int = 0
    error: str = ""

    @property
    def is_over(self) -> bool:
        return self.state in ("accounted", "dropped")


@dataclass(frozen=True, slots=True)
class Measurement:
    """The org held against the source. ``None`` where the level does not tell. ``different`` counts rows of which
    some mapped value differs; ``changed_since`` rows that the source has inserted, changed or deleted after they were
    staged, as far as that was looked for."""

    level: str
    measured_at: datetime
    seconds: float
    expected: int
    present: int | None = None
    missing: int | None = None
    different: int | None = None
    doubled: int | None = None
    """Keys that several rows of the org have."""
    orphans: int | None = None
    fresh: int | None = None
    """Rows with a key that somebody touched in the org since the night opened."""
    changed_since: int = 0
    moved: dict[str, int] = field(default_factory=dict)
    """``changed_since`` by what the source did: ``inserted``, ``changed``, ``deleted``."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Why rows of the source are not in the org as the source has them: reason to rows."""
    distribution: dict[str, Any] | None = None
    """Rows by the value of one field, side by side: ``field``, ``rows`` (value, source, org) and a ``note``."""
    drifting: tuple[str, ...] = ()
    """Partitions with missing or different rows."""
    by_range: dict[str, dict[str, int]] = field(default_factory=dict)
    """Partition to ``expected`` (rows that the org should hold), ``present``, ``missing``, ``different``, ``doubled``,
    ``orphans``, and ``source``, the rows that the source counted once the org was read."""
    sample: tuple[dict[str, Any], ...] = ()
    """Some of the rows that differ: key, partition, finding, column, source value, org value, reason, detail."""
    error: str = ""

    @property
    def is_equal(self) -> bool:
        return not self.error and not self.missing and not self.different and not self.doubled


@dataclass(frozen=True, slots=True)
class NightEntry:
    """One night: its plan, its switches and how it ended."""

    plan: Plan
    opened_at: datetime
    stop_requested_at: datetime | None = None
    parked_until: datetime | None = None
    parked_reason: str = ""
    parkings: int = 0
    """How often it was parked since something last got through; sets the length of the next pause."""
    verdict: Verdict | None = None
    verdict_at: datetime | None = None
    verdict_reasons: tuple[str, ...] = ()
    verdict_runs: int | None = None
    """Runs of all ranges that had begun by the verdict: a higher number now says that a person has amended the night."""
    measurement: Measurement | None = None
    measured_runs: int | None = None
    """Runs of all ranges that had begun when the newest measurement did: a higher number now asks for another one. They
    are numbers because a clock may be set back."""
    measure_tries: int = 0
    """Measurements that failed or were killed since one last succeeded."""
    measuring_since: datetime | None = None
    """When the measurement began that has not ended; it has died if nobody holds its lock."""
    measure_seen_at: datetime | None = None
    """The last sign of life of a measurement: its beginning or its end."""
    measure_run_id: str = ""
    api_calls: int = 0
    seconds: float = 0.0

    @property
    def plan_id(self) -> str:
        return self.plan.plan_id
