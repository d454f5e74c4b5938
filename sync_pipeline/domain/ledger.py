"""What is written down about rows and jobs: pages, parts, ingest jobs, outcomes, counts and verdicts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Final


class JobState(StrEnum):
    """State of a Bulk API 2.0 ingest or query job, in Salesforce's own words."""

    OPEN = "Open"
    UPLOAD_COMPLETE = "UploadComplete"
    IN_PROGRESS = "InProgress"
    JOB_COMPLETE = "JobComplete"
    FAILED = "Failed"
    ABORTED = "Aborted"

    @property
    def is_terminal(self) -> bool:
        return self in (JobState.JOB_COMPLETE, JobState.FAILED, JobState.ABORTED)


class RowOutcome(StrEnum):
    """The one fate of a staged row."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNPROCESSED = "unprocessed"
    QUARANTINED = "quarantined"


class RangeState(StrEnum):
    """Where a range stands in its night."""

    PLANNED = "planned"
    READING = "reading"
    LOADING = "loading"
    DONE = "done"
    DRIFTING = "drifting"
    """A measurement found rows of it missing or different in the org; a repair is due."""
    FAILED = "failed"
    """The last run ended without finishing; another attempt is due."""
    PARKED = "parked"
    HELD = "held"
    GIVEN_UP = "given up"

    @property
    def is_active(self) -> bool:
        return self in (RangeState.READING, RangeState.LOADING)

    @property
    def is_settled(self) -> bool:
        """Nothing is launched for it any more without a person."""
        return self in (RangeState.DONE, RangeState.HELD, RangeState.GIVEN_UP)


class Verdict(StrEnum):
    """How a night ended. Only a measurement by value says "reconciled"."""

    RECONCILED = "reconciled"
    WITH_REJECTS = "reconciled with rejects"
    NOT_RECONCILED = "not reconciled"
    PRESENT = "present"
    COUNTED = "counted"
    UNPROVEN = "unproven"
    ABANDONED = "abandoned"

    @property
    def is_clean(self) -> bool:
        """What the chosen level of verification can say at best: exit code 0."""
        return self in (Verdict.RECONCILED, Verdict.PRESENT, Verdict.COUNTED)

    @property
    def sentence(self) -> str:
        """What is proven, and what is not."""
        return _SENTENCES[self]


_SENTENCES = {
    Verdict.RECONCILED: "Reconciled: every expected row is in the org with equal values.",
    Verdict.WITH_REJECTS: "Reconciled with rejects: some rows did not get through, every other row is in the org with equal values.",
    Verdict.NOT_RECONCILED: "Not reconciled.",
    Verdict.PRESENT: "Present: every expected key is in the org; values were not compared (SYNC_VERIFY).",
    Verdict.COUNTED: "Counted: as many rows as expected are in the org; keys and values were not compared (SYNC_VERIFY).",
    Verdict.UNPROVEN: "Unproven: the org could not be measured.",
    Verdict.ABANDONED: "Abandoned: a newer night took its place.",
}


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a range is durably staged.

    ``key`` is the last key all of whose rows are staged. ``query_id`` and ``offset`` (rows already staged of that
    stored result) let the same snapshot be read on; when it is gone, the key alone is enough.
    """

    key: str | None
    query_id: str = ""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """One durable Parquet file of staged rows; it exists from the commit that records it."""

    number: int
    file: str
    rows: int
    bytes: int
    crc32: int
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class UploadPart:
    """An ordered slice of a range, sent as one CSV. ``start`` and ``stop`` are positions in that order.

    ``number`` counts all parts of a range; ``round`` is 0 for the first sending, above for rows sent again.
    """

    number: int
    round: int
    rows: int
    file: str
    bytes: int
    crc32: int
    serial: bool = False
    """True for rows of one parent larger than a batch, and for the serial tail: one such job in flight per night."""


@dataclass(frozen=True, slots=True)
class IngestJob:
    """A Bulk API 2.0 ingest job as the org describes it."""

    id: str
    state: JobState
    object: str = ""
    operation: str = ""
    created_at: datetime | None = None
    created_by: str = ""
    processed: int = 0
    failed: int = 0
    retries: int = 0
    processing_ms: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of one range or night by what became of them. They come from what was counted, never from what was tried."""

    expected: int = 0
    staged: int = 0
    created: int = 0
    updated: int = 0
    failed: int = 0
    unprocessed: int = 0
    quarantined: int = 0
    set_aside: int = 0
    """Those of ``quarantined`` that a declared rule put aside (equal duplicates, tie-breaker losers)."""

    @property
    def succeeded(self) -> int:
        return self.created + self.updated

    @property
    def accounted(self) -> int:
        """Staged rows that have an outcome."""
        return self.succeeded + self.failed + self.unprocessed + self.quarantined

    @property
    def rejected(self) -> int:
        """Rows that did not get through and that nobody declared to be left out."""
        return self.failed + self.unprocessed + self.quarantined - self.set_aside

    @property
    def adds_up(self) -> bool:
        return self.staged == self.accounted

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Counts)})

    def to_json(self) -> dict[str, Any]:
        """The counts under the names of the public interface."""
        return {
            "expected": self.expected,
            "staged": self.staged,
            "succeeded": self.succeeded,
            "created": self.created,
            "updated": self.updated,
            "failed": self.failed,
            "unprocessed": self.unprocessed,
            "quarantined": self.quarantined,
        }


OUTCOMES: Final = tuple(f.name for f in fields(Counts) if f.name not in ("expected", "staged"))
"""What may become of a staged row, as the book names it: a new one is a field of ``Counts``, and no new column."""
