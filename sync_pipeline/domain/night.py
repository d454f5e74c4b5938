"""A night as the book holds it: what every process may read at any time, and what ``decide()`` decides from."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sync_pipeline.domain.ledger import Counts, RangeState, Verdict
from sync_pipeline.domain.plan import Plan


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
    """Runs that ended in failure; a parked or stopped run is none."""
    generation: int = 1
    repairs: int = 0
    pid: int = 0
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None
    finished_at: datetime | None = None
    error: str = ""
    rows_sent: int = 0
    api_calls: int = 0
    run_id: str = ""
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
    some mapped value differs; ``changed_since`` rows that changed at the source after they were staged."""

    level: str
    measured_at: datetime
    seconds: float
    expected: int
    present: int | None = None
    missing: int | None = None
    different: int | None = None
    orphans: int | None = None
    changed_since: int = 0
    drifting: tuple[str, ...] = ()
    """Partitions with missing or different rows."""
    by_range: dict[str, dict[str, int]] = field(default_factory=dict)
    """Partition to ``{"present", "missing", "different"}``."""
    sample: tuple[dict[str, Any], ...] = ()
    """Some of the rows that differ: key, partition, finding, column, source value, org value, reason."""
    error: str = ""

    @property
    def is_equal(self) -> bool:
        return not self.error and not self.missing and not self.different


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
    measurement: Measurement | None = None
    measure_tries: int = 0
    """Measurements that failed since one last succeeded."""
    api_calls: int = 0
    seconds: float = 0.0

    @property
    def plan_id(self) -> str:
        return self.plan.plan_id
