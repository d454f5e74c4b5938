"""Every number that steers a night. Settings make one ``Policy``; the engine reads nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Verify(StrEnum):
    """How the org is measured after the last range."""

    VALUES = "values"
    KEYS = "keys"
    COUNTS = "counts"


class OtherLoads(StrEnum):
    """What a night does about others who are loading the target object when it begins."""

    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Policy:
    """Sizes in rows or bytes, times in seconds unless a ``timedelta`` says otherwise."""

    rows_per_range: int = 200_000
    lanes: int = 10
    read_slots: int = 3
    load_slots: int = 10
    sort_slots: int = 2
    page_rows: int = 50_000
    """Rows asked for in one response; the org may send fewer."""
    part_rows: int = 100_000
    part_bytes: int = 90_000_000
    batch_rows: int = 10_000
    """Rows the org works on as one unit; a parent with more of them gets a job of its own."""
    poll_seconds: float = 0.25
    poll_seconds_max: float = 60.0
    job_deadline_seconds: float = 4 * 3600.0
    statement_deadline_seconds: float = 1800.0
    retry_rounds: int = 5
    """How often rows whose failure can pass are sent again, the serial tail being the last of them."""
    range_attempts: int = 3
    rerun_pauses: tuple[timedelta, ...] = (timedelta(seconds=15), timedelta(minutes=2), timedelta(minutes=5))
    """How long a range, or a measurement, rests after its first, second, ... failure; the last one repeats. The first is
    short, so that a run that was killed goes on within half a minute; a cut-off network is not stormed."""
    repairs: int = 2
    measurements: int = 3
    failed_share_max: float = 0.5
    """Above this share of permanently failed rows in one range the range stops sending."""
    verify: Verify = Verify.VALUES
    distribution: str = "StageName"
    """Target field by whose values the rows of both sides are counted, side by side; empty for none."""
    api_reserve: float = 0.20
    night_age_max: timedelta = timedelta(hours=20)
    source_share_min: float = 0.5
    """A source with fewer than this share of last night's rows opens no night."""
    start_window: timedelta = timedelta(hours=4)
    deadline: str = ""
    """Local time ``HH:MM`` by which the night should end, or empty."""
    timezone: str = "UTC"
    """IANA name of the zone in which ``deadline`` is meant."""
    duckdb_memory: str = "128MB"
    disk_reserve_bytes: int = 512 * 1024 * 1024
    keep_rows: timedelta = timedelta(days=7)
    keep_ledgers: timedelta = timedelta(days=400)
    equal_rows_max: int = 100_000
    """A larger group of rows with one key is refused: no sane source has one."""
    other_loads: OtherLoads = OtherLoads.WARN

    def rerun_pause(self, failures: int) -> timedelta:
        """How long to rest after so many failures, at least one."""
        return self.rerun_pauses[min(failures, len(self.rerun_pauses)) - 1]
