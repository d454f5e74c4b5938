"""The measurement: what the org holds, read back and held against what should be there.

By ``values`` every row is compared by its key and every mapped value, which alone may say "reconciled"; by ``keys`` only
the keys; by ``counts`` only numbers. Rows that did not get through are not expected to be equal, rows that only the org
has are counted and never touched.

Both sides become keys and hashes on disk (``staging/comparison.py``), so that memory does not grow with the rows. The
rows that differ are asked for once more one by one, which names the column and both values.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from sync_pipeline.domain.errors import HeldElsewhere, LimitExceeded, Parked, Refused, StateError, Stopped
from sync_pipeline.domain.keys import KeyRange
from sync_pipeline.domain.night import Measurement
from sync_pipeline.domain.plan import Plan, PlannedRange
from sync_pipeline.domain.policy import Verify
from sync_pipeline.engine.drift import CHANGED, DRIFT, look_again, mark_changed, named_by_key, rows_in_org
from sync_pipeline.engine.duplicates import groups_in, judge, write_groups
from sync_pipeline.engine.equality import Equality, folds_case
from sync_pipeline.engine.range_run import DRIFT_FILE
from sync_pipeline.engine.values import convert
from sync_pipeline.engine.walls import Walls
from sync_pipeline.staging.comparison import FINDINGS, Comparison, Kind, Side
from sync_pipeline.staging.range_store import RangeStore

log = logging.getLogger(__name__)

RECHECKED: Final = 10_000
"""Drifting rows that are looked at again to name column and values; the others are named by key alone."""
SAMPLE: Final = 20
SINCE_STAGED: Final = "the source has changed since the row was staged"
ONLY_IN_ORG: Final = "in the org, not in the source; it is left alone"

Against = Literal["staged", "source"]


def measure(
    walls: Walls,
    plan_id: str,
    *,
    level: Verify | None = None,
    against: Against = "staged",
    record: bool = True,
    plan: Plan | None = None,
    on_event: Callable[[str], None] = log.info,
) -> Measurement:
    """Measures the org against what the night staged, or against the source as it is now. Writes nothing to the org.

    Where there is no night, ``plan`` names the ranges to count by. With ``record`` the measurement, or its failure, goes into the book, and the keys that drift into the night's folder
    for the repair. Raises ``HeldElsewhere`` while a range is being worked on, and whatever ended the measurement.
    """
    try:
        with walls.area.measure_folder(plan_id) as folder:
            measuring = _Measuring(walls, plan_id, level or walls.policy.verify, against, folder, plan, on_event)
            measurement = measuring.run()
            if record:
                measuring.keep_drift(walls.area.night_folder(plan_id) / DRIFT_FILE)
    except (Stopped, Refused, LimitExceeded, Parked):
        raise
    except Exception as error:
        if record:
            walls.book.record_measure_failure(plan_id, str(error) or type(error).__name__)
        raise
    if record:
        walls.book.record_measurement(plan_id, measurement)
    return measurement


@dataclass
class _Tally:
    """Rows by the place of their range."""

    expected: Counter[int] = field(default_factory=Counter)
    missing: Counter[int] = field(default_factory=Counter)
    different: Counter[int] = field(default_factory=Counter)
    orphans: Counter[int] = field(default_factory=Counter)
    strangers: Counter[int] = field(default_factory=Counter)
    """Only in the org as far as we know: their range was not wholly read, so the source may have them."""
    rejected: Counter[int] = field(default_factory=Counter)
    """In the org, though the row of this night did not get through."""
    absent_since: Counter[int] = field(default_factory=Counter)
    """New at the source since the range was staged, so not in the org yet."""
    removed_since: Counter[int] = field(default_factory=Counter)
    """Gone from the source since the range was staged, so still in the org."""
    changed_since: int = 0
    turned_up: int = 0
    """Missing at first, there when asked for again."""

    def present(self, place: int) -> int:
        expected = self.expected[place] - self.missing[place] - self.absent_since[place]
        return expected + sum(c[place] for c in (self.orphans, self.strangers, self.rejected, self.removed_since))


class _Measuring:
    """One measurement from its first question to its last."""

    def __init__(
        self,
        walls: Walls,
        plan_id: str,
        level: Verify,
        against: Against,
        folder: Path,
        plan: Plan | None,
        on_event: Callable[[str], None],
    ) -> None:
        self._walls = walls
        self._plan_id = plan_id
        self._level = level
        self._against = against
        self._folder = folder
        self._on_event = on_event
        self._ranges = self._ranges_of(plan)
        self._edges = [planned.range.through for planned in self._ranges if planned.range.through is not None]
        self._entries = {entry.partition: entry for entry in walls.book.ranges(plan_id)}
        self._target = walls.soql.describe()
        self._equality = Equality(walls.mapping, self._target)
        self._tally = _Tally()
        self._unread: set[int] = set()
        self._samples: dict[str, list[dict[str, Any]]] = {"drift": [], CHANGED: [], Kind.ORPHAN: []}
        self._drift_pieces: list[Path] = []

    @property
    def _with_values(self) -> bool:
        return self._level is Verify.VALUES

    def run(self) -> Measurement:
        # The start counts: a range that ends while the org is being read has not been measured.
        measured_at, started = self._walls.now(), self._walls.clock()
        self._on_event(f"measuring the org by {self._level}, against the {self._against} rows")
        found = self._by_counts(measured_at) if self._level is Verify.COUNTS else self._by_rows(measured_at)
        found = replace(found, seconds=self._walls.clock() - started)
        self._on_event(_told(found))
        return found

    def keep_drift(self, file: Path) -> None:
        """Puts the drifting keys where the repair looks for them, whole or not at all."""
        fresh = self._folder / file.name
        if self._drift_pieces:
            pl.scan_parquet(self._drift_pieces).sink_parquet(fresh)
        else:
            self._with_partitions(pl.DataFrame(schema=DRIFT)).write_parquet(fresh)
        fresh.replace(file)

    def _ranges_of(self, plan: Plan | None) -> tuple[PlannedRange, ...]:
        night = self._walls.book.night(self._plan_id)
        if night is not None:
            return night.plan.ranges
        if self._against == "source" and plan is not None:
            return plan.ranges
        raise StateError(f"There is no night {self._plan_id} to measure.", hint="Start one with `sync-pipeline sync`.")

    # By counts

    def _by_counts(self, measured_at: datetime) -> Measurement:
        """Only a shortfall of the whole can be told: the org orders keys by rules of its own, so that rows near a boundary
        may be counted in the range beside theirs."""
        expected = self._expected_count()
        folded = [edge.lower() for edge in self._edges]
        if all(before < after for before, after in pairwise(folded)):
            counted = [self._walls.soql.count(planned.range) for planned in self._ranges]
            by_range = {p.partition: {"present": rows} for p, rows in zip(self._ranges, counted, strict=True)}
        else:  # bounds that the org orders otherwise would count rows twice
            counted, by_range = [self._walls.soql.count()], {}
        return Measurement(
            level=self._level.value,
            measured_at=measured_at,
            seconds=0.0,
            expected=expected,
            present=sum(counted),
            missing=max(expected - sum(counted), 0),
            by_range=by_range,
        )

    def _expected_count(self) -> int:
        if self._against == "staged":
            return sum(entry.counts.succeeded for entry in self._entries.values())
        return self._walls.data_cloud.profile(fold_case=folds_case(self._walls.mapping, self._target)).matched_keys

    # By rows

    def _by_rows(self, measured_at: datetime) -> Measurement:
        optional = len(self._equality.kept) if self._with_values else 0
        if self._against == "source":
            self._find_duplicates()
        with Comparison(
            self._folder / "sides", optional=optional, memory=self._walls.policy.duckdb_memory
        ) as comparison:
            for planned in self._ranges:
                self._add_expected(comparison, planned)
            self._add_present(comparison)
            self._judge(comparison)
            present = comparison.rows[Side.PRESENT] + self._tally.turned_up
        tally = self._tally
        drifting = [p for p in self._ranges if tally.missing[p.place] or tally.different[p.place]]
        return Measurement(
            level=self._level.value,
            measured_at=measured_at,
            seconds=0.0,
            expected=tally.expected.total(),
            present=present,
            missing=tally.missing.total(),
            different=tally.different.total() if self._with_values else None,
            orphans=tally.orphans.total(),
            changed_since=tally.changed_since,
            drifting=tuple(planned.partition for planned in drifting),
            by_range={planned.partition: self._counts(planned.place) for planned in self._ranges},
            sample=tuple(row for rows in self._samples.values() for row in rows)[:SAMPLE],
        )

    def _counts(self, place: int) -> dict[str, int]:
        tally = self._tally
        counts = {
            "expected": tally.expected[place],
            "present": tally.present(place),
            "missing": tally.missing[place],
            "orphans": tally.orphans[place],
        }
        return counts | ({"different": tally.different[place]} if self._with_values else {})

    def _find_duplicates(self) -> None:
        """The groups of rows that the target would match as one, at the source as it is now."""
        fold_case = folds_case(self._walls.mapping, self._target)
        if self._walls.data_cloud.profile(fold_case=fold_case).has_duplicates:
            write_groups(self._walls.data_cloud.duplicates(fold_case=fold_case), self._folder)

    def _add_expected(self, comparison: Comparison, planned: PlannedRange) -> None:
        is_staged = self._against == "staged"
        for frame, sent in self._staged(planned) if is_staged else self._source(planned):
            self._walls.interruption.check()
            self._tally.expected[planned.place] += int(sent.sum())
            place = pl.repeat(planned.place, frame.height, dtype=pl.UInt32, eager=True)
            hashed = self._hashed(frame, is_present=False)
            comparison.add(Side.EXPECTED, hashed.with_columns(place.alias("place"), sent.alias("sent")))
        if not is_staged:
            for frame, sent in self._staged(planned):
                self._walls.interruption.check()
                comparison.add(Side.STAGED, self._hashed(frame, is_present=False).with_columns(sent.alias("sent")))

    def _add_present(self, comparison: Comparison) -> None:
        mapping = self._walls.mapping
        columns = mapping.target_columns if self._with_values else ("Id", mapping.target_key)
        soql = f"SELECT {', '.join(columns)} FROM {mapping.target_object} WHERE {mapping.target_key} != null"
        for frame in self._walls.bulk.query(soql):
            self._walls.interruption.check()
            present = frame.rename({mapping.target_key: "key"})
            comparison.add(Side.PRESENT, self._hashed(present, is_present=True))

    def _hashed(self, frame: pl.DataFrame, *, is_present: bool) -> pl.DataFrame:
        return self._equality.hashed(frame, is_present=is_present, with_values=self._with_values)

    # What the org should hold

    def _staged(self, planned: PlannedRange) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
        """Staged rows of a range, typed, each with whether it was saved in the org."""
        entry = self._entries.get(planned.partition)
        if entry is None:
            return
        if self._walls.area.is_range_locked(planned.partition):
            raise HeldElsewhere(
                f"Range {planned.partition} is being worked on.",
                hint="Measure when it has ended; see `sync-pipeline status`.",
            )
        folder = self._walls.area.range_folder(self._plan_id, planned.partition, entry.generation)
        if not folder.is_dir():
            self._unread.add(planned.place)
            return
        with RangeStore.read_only(folder) as store:
            if not store.is_read:
                self._unread.add(planned.place)
            rejected = store.rejected_rows()
            for file in store.staged_files():
                frame = pl.read_parquet(file)
                yield frame, ~frame["row"].is_in(rejected.implode())

    def _source(self, planned: PlannedRange) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
        """The source's rows of a range as they are now, typed, each with whether it would be sent."""
        cloud = self._walls.data_cloud
        groups = groups_in(self._folder, planned.range)
        for page in chain(cloud.read_null_keys() if planned.range.is_first else (), cloud.read(planned.range)):
            yield self._converted(page.frame, groups)

    def _converted(self, rows: pl.DataFrame, groups: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
        converted = convert(rows, self._walls.mapping, self._target)
        refused = pl.concat([converted.rejections["index"], judge(rows, self._walls.mapping, groups)["index"]])
        positions = pl.int_range(rows.height, dtype=pl.UInt32, eager=True)
        return converted.frame, ~positions.is_in(refused.implode())

    def _expected_of(self, keys: pl.Series) -> pl.DataFrame:
        """The rows of these keys that the org should hold."""
        if self._against == "source":
            rows = self._walls.data_cloud.rows_of(keys.to_list())
            frame, sent = self._converted(
                rows.sort(self._walls.mapping.source_key), groups_in(self._folder, KeyRange())
            )
            return frame.filter(sent)
        wanted = keys.implode()
        found = [
            frame.filter(sent & frame["key"].is_in(wanted))
            for planned in self._ranges
            for frame, sent in self._staged(planned)
        ]
        return pl.concat(found)

    # What differs

    def _judge(self, comparison: Comparison) -> None:
        """Counts what differs. The first rows that are missing or different are looked at again, the others are not."""
        doubtful = pl.DataFrame(schema=FINDINGS)
        for frame in comparison.findings():
            self._count_unsent(frame)
            drift = frame.filter(pl.col("kind").is_in([Kind.MISSING, Kind.DIFFERENT]) & ~pl.col("changed"))
            room = max(RECHECKED - doubtful.height, 0)
            doubtful = pl.concat([doubtful, drift.head(room)])
            self._count_drift(named_by_key(drift.slice(room)))
        if doubtful.height == 0:
            return
        self._on_event(f"looking again at {doubtful.height} rows that are missing or different")
        expected = self._expected_of(doubtful["key"]) if self._with_values else pl.DataFrame(schema={"key": pl.String})
        present = rows_in_org(self._walls, doubtful["key"])
        drift = look_again(self._equality, doubtful, expected, present, with_values=self._with_values)
        if self._against == "staged":
            drift = mark_changed(self._walls, self._equality, drift, present)
        was_missing = doubtful.filter(pl.col("kind") == Kind.MISSING)["key"].implode()
        still_missing = drift.filter(pl.col("finding") == Kind.MISSING)["key"]
        self._tally.turned_up += len(was_missing.item()) - int(still_missing.is_in(was_missing).sum())
        self._count_drift(drift.sort("key", maintain_order=True))

    def _count_unsent(self, frame: pl.DataFrame) -> None:
        """Rows that only the org has, and those that differ because the source changed since they were staged."""
        tally = self._tally
        tally.rejected.update(frame.filter(pl.col("kind") == Kind.REJECTED)["place"].to_list())
        changed = frame.filter(pl.col("changed") & (pl.col("kind") != Kind.ORPHAN))
        tally.absent_since.update(changed.filter(pl.col("kind") == Kind.MISSING)["place"].to_list())
        orphans = frame.filter(pl.col("kind") == Kind.ORPHAN)
        places = [bisect_left(self._edges, key) for key in orphans["key"]]
        orphans = orphans.with_columns(pl.Series("place", places, dtype=pl.UInt32))
        removed = orphans.filter("changed")
        tally.removed_since.update(removed["place"].to_list())
        tally.changed_since += changed.height + removed.height
        is_stranger = ~pl.col("changed") & pl.col("place").is_in(sorted(self._unread))
        tally.strangers.update(orphans.filter(is_stranger)["place"].to_list())
        alone = orphans.filter(~pl.col("changed") & ~is_stranger)
        tally.orphans.update(alone["place"].to_list())
        self._sample(CHANGED, named_by_key(pl.concat([changed, removed]), finding=CHANGED, reason=SINCE_STAGED))
        self._sample(Kind.ORPHAN, named_by_key(alone, finding=Kind.ORPHAN, reason=ONLY_IN_ORG))

    def _count_drift(self, drift: pl.DataFrame) -> None:
        """Counts ``DRIFT`` rows and puts them aside for the repair; those that changed since are only counted."""
        if drift.height == 0:
            return
        keys = drift.unique("key")
        self._tally.missing.update(keys.filter(pl.col("finding") == Kind.MISSING)["place"].to_list())
        self._tally.different.update(keys.filter(pl.col("finding") == Kind.DIFFERENT)["place"].to_list())
        self._tally.changed_since += keys.filter(pl.col("finding") == CHANGED).height
        self._sample(CHANGED, drift.filter(pl.col("finding") == CHANGED))
        lasting = drift.filter(pl.col("finding") != CHANGED)
        self._sample("drift", lasting)
        piece = self._folder / f"drift-{len(self._drift_pieces):05d}.parquet"
        self._with_partitions(lasting).write_parquet(piece)
        self._drift_pieces.append(piece)

    def _sample(self, kind: str, drift: pl.DataFrame) -> None:
        room = SAMPLE - len(self._samples[kind])
        self._samples[kind] += self._with_partitions(drift.head(room)).to_dicts()

    def _with_partitions(self, drift: pl.DataFrame) -> pl.DataFrame:
        names = pl.Series([planned.partition for planned in self._ranges], dtype=pl.String)
        partition = names.gather(drift["place"]).alias("partition")
        return drift.select("key", partition, "finding", "column", "staged", "present", "reason")


def _told(measurement: Measurement) -> str:
    """The measurement in one line."""
    counted = {
        "expected": measurement.expected,
        "present": measurement.present,
        "missing": measurement.missing,
        "different": measurement.different,
        "orphans": measurement.orphans,
        CHANGED: measurement.changed_since or None,
    }
    numbers = ", ".join(f"{rows} {name}" for name, rows in counted.items() if rows is not None)
    return f"measured by {measurement.level} in {measurement.seconds:.1f} s: {numbers}"
