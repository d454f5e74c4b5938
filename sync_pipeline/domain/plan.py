"""The plan of a night: the source as it was counted, and the ranges with their expected rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sync_pipeline.domain.errors import PlanRefused, WrongOrg
from sync_pipeline.domain.keys import KeyRange
from sync_pipeline.domain.mapping import Mapping as FieldTable


@dataclass(frozen=True, slots=True)
class OrgIdentity:
    """Whose state this is. ``name`` is shown to people, for the simulated org "simulated org"."""

    org_id: str
    name: str
    is_simulated: bool
    dataspace: str

    def __str__(self) -> str:
        return f"{self.name} ({self.org_id})"


@dataclass(frozen=True, slots=True)
class SourceProfile:
    """What the source said of itself when it was counted. ``distinct_keys`` counts keys that are not null."""

    rows: int
    null_keys: int
    distinct_keys: int
    matched_keys: int
    """Distinct keys as the target tells them apart (trimmed, letter case as describe says)."""
    blank_keys: int
    min_key: str | None
    max_key: str | None

    @property
    def keyed_rows(self) -> int:
        return self.rows - self.null_keys

    @property
    def has_duplicates(self) -> bool:
        """Some rows are one and the same for the target."""
        return self.matched_keys < self.keyed_rows - self.blank_keys


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the night will need, against what the org has left."""

    api_calls: int
    ingest_batches: int
    disk_bytes: int
    seconds: float
    api_calls_left: int | None = None
    api_calls_max: int | None = None
    ingest_batches_left: int | None = None
    storage_mb: int | None = None
    """Data storage of the org for rows it does not hold yet; ``None`` when they could not be counted."""
    storage_mb_left: int | None = None
    disk_bytes_free: int | None = None


@dataclass(frozen=True, slots=True)
class PlannedRange:
    """One range and the rows counted in it when the night was planned (the first range counts null keys too)."""

    place: int
    range: KeyRange
    expected: int

    @property
    def partition(self) -> str:
        return self.range.partition


@dataclass(frozen=True, slots=True)
class Plan:
    """Ranges of one night. Raises ``PlanRefused`` when two ranges share a partition key or the rows do not add up."""

    plan_id: str
    org: OrgIdentity
    source_object: str
    target_object: str
    mapping_digest: str
    profile: SourceProfile
    ranges: tuple[PlannedRange, ...]
    created_at: datetime
    forecast: Forecast | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if len({r.partition for r in self.ranges}) != len(self.ranges):
            raise PlanRefused(
                "Two ranges of the plan have one partition key.", hint="Change SYNC_ROWS_PER_RANGE a little."
            )
        if self.expected != self.profile.rows:
            raise PlanRefused(
                f"The ranges hold {self.expected} rows, the source holds {self.profile.rows}.",
                hint="The source changed while it was counted, or orders keys otherwise than by bytes; plan again.",
            )

    @property
    def expected(self) -> int:
        return sum(r.expected for r in self.ranges)

    def __iter__(self) -> Iterator[PlannedRange]:
        return iter(self.ranges)

    def range(self, partition: str) -> PlannedRange | None:
        """The range of that partition key, or ``None``."""
        return next((r for r in self.ranges if r.partition == partition), None)

    def covering(self, keys: KeyRange) -> tuple[PlannedRange, ...]:
        """The ranges that hold the keys of ``keys`` now, in order."""
        return tuple(r for r in self.ranges if r.range.overlaps(keys))

    def check_belongs(self, org: OrgIdentity, mapping: FieldTable) -> None:
        """Raises ``WrongOrg`` when this plan was made for another org, source, data space or mapping."""
        differences = []
        if (self.org.org_id, self.org.dataspace) != (org.org_id, org.dataspace):
            differences.append(f"org {self.org}, data space {self.org.dataspace}; now {org}, {org.dataspace}")
        if self.source_object != mapping.source_object or self.mapping_digest != mapping.digest:
            was, is_now = (
                f"{self.mapping_digest} of {self.source_object}",
                f"{mapping.digest} of {mapping.source_object}",
            )
            differences.append(f"mapping {was}; now {is_now}")
        if differences:
            raise WrongOrg(
                f"Night {self.plan_id} belongs to {'; and '.join(differences)}.",
                hint="Use another SYNC_HOME, or give the unfinished night up with `sync-pipeline sync --fresh`.",
            )

    def to_json(self) -> str:
        document = asdict(self)
        document["created_at"] = self.created_at.isoformat()
        return json.dumps(document, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Plan:
        document: Mapping[str, Any] = json.loads(text)
        return Plan(
            plan_id=document["plan_id"],
            org=OrgIdentity(**document["org"]),
            source_object=document["source_object"],
            target_object=document["target_object"],
            mapping_digest=document["mapping_digest"],
            profile=SourceProfile(**document["profile"]),
            ranges=tuple(
                PlannedRange(place=r["place"], range=KeyRange(**r["range"]), expected=r["expected"])
                for r in document["ranges"]
            ),
            created_at=datetime.fromisoformat(document["created_at"]),
            forecast=Forecast(**document["forecast"]) if document["forecast"] else None,
            notes=tuple(document["notes"]),
        )


def new_plan_id(now: datetime) -> str:
    """The id of a night opened at ``now``: its UTC instant, sortable as text and safe in file names."""
    return now.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
