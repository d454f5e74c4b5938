"""The measurement: what the org holds, read back and held against what should be there.

By ``values`` every row is compared by its key and every mapped value, which alone may say "reconciled"; by ``keys`` only
the keys, which says "present"; by ``counts`` only numbers, which says "counted" and cannot tell a lost row from one that
only the org has. Rows that did not get through are not expected to be equal, rows that only the org has are counted and
never touched.

Both sides become keys and hashes on disk (``staging/comparison.py``), so that memory does not grow with the rows. The
rows that differ are asked for once more one by one (``drift.py``), which names the column, both values and the reason.
A saved row that is not there to be compared ends the measurement: nothing is proven of what was not read.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from sync_pipeline.domain.errors import HeldElsewhere, Refused, RequestRefused, StateError, Stopped, WireError
from sync_pipeline.domain.keys import KeyRange
from sync_pipeline.domain.ledger import RangeState
from sync_pipeline.domain.night import Measurement, RangeEntry
from sync_pipeline.domain.plan import Plan, PlannedRange
from sync_pipeline.domain.policy import Verify
from sync_pipeline.engine import drift as reasons
from sync_pipeline.engine import movement
from sync_pipeline.engine.budget import parking_of
from sync_pipeline.engine.distribution import distribution
from sync_pipeline.engine.drift import CHANGED, DRIFT, FATES, look_again, mark_changed, named_by_key, with_reasons
from sync_pipeline.engine.duplicates import groups_in, judge, standing, write_groups
from sync_pipeline.engine.equality import Equality, folds_case
from sync_pipeline.engine.range_run import DRIFT_FILE
from sync_pipeline.engine.values import convert, staged_schema
from sync_pipeline.engine.walls import Walls
from sync_pipeline.staging.comparison import FINDINGS, Comparison, Kind, Side
from sync_pipeline.staging.durable import Disk
from sync_pipeline.staging.range_store import RangeStore

log = logging.getLogger(__name__)

RECHECKED: Final = 10_000
"""Differing rows that are looked at again to name column and values; the others are named by key and ledger alone."""
ROWS_AT_ONCE: Final = 100_000
"""Staged rows that are read and hashed together."""
SAMPLE: Final = 20
SINCE_STAGED: Final = {
    Kind.MISSING: "new at the source since the range was staged",
    Kind.DIFFERENT: "the source has changed since the row was staged",
    Kind.ORPHAN: "gone from the source since the range was staged",
}
ONLY_IN_ORG: Final = "in the org, not in the source; it is left alone"
MOVED: Final = {
    movement.INSERTED: "came to the source after the range was staged",
    movement.DELETED: "left the source after the range was staged",
}

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
    on_orphans: Callable[[pl.Series], None] = lambda keys: None,
) -> Measurement:
    """Measures the org against what the night staged, or against the source as it is now. Writes nothing to the org.

    Where there is no night, ``plan`` names the ranges to count by. With ``record`` the measurement, or its failure, goes
    into the book, and the keys that drift into the night's folder for the repair. ``on_orphans`` is handed every key that
    only the org has.

    Raises ``WrongOrg`` for a night of another org, ``HeldElsewhere`` while a range is being worked on, ``StateError`` when
    a row that was saved is not there to be compared, and whatever else ended the measurement.
    """
    night = walls.book.night(plan_id)
    if night is not None:
        night.plan.check_belongs(walls.org, walls.mapping)
        plan = night.plan
    elif against == "staged" or plan is None:
        raise StateError(f"There is no night {plan_id} to measure.", hint="Start one with `sync-pipeline sync`.")
    try:
        with walls.area.measure_folder(plan_id) as folder:
            measuring = _Measuring(
                walls,
                plan,
                level=level or walls.policy.verify,
                against=against,
                since=night.opened_at if night is not None else None,
                folder=folder,
                on_event=on_event,
                on_orphans=on_orphans,
            )
            measurement = measuring.run()
            if record:
                measuring.keep_drift(walls.area.night_folder(plan_id) / DRIFT_FILE)
    except Stopped:
        raise
    except Exception as error:
        # A limit or a full disk parks the night; it says nothing against the measurement. Nor does a range that is being
        # worked on, as long as that can be seen: what refuses the measurement and cannot be seen is never waited for.
        is_waiting = isinstance(error, Refused) and any(walls.area.is_range_locked(r.partition) for r in plan)
        if record and not is_waiting and parking_of(walls, plan_id, error) is None:
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
    doubled: Counter[int] = field(default_factory=Counter)
    orphans: Counter[int] = field(default_factory=Counter)
    strangers: Counter[int] = field(default_factory=Counter)
    """Only in the org as far as we know: some range was not wholly read, so the source may have them."""
    rejected: Counter[int] = field(default_factory=Counter)
    """In the org, though the row of this night did not get through."""
    absent_since: Counter[int] = field(default_factory=Counter)
    """Not in the org, and the source explains it: new there since the range was staged, or gone from there too."""
    removed_since: Counter[int] = field(default_factory=Counter)
    """Gone from the source since the range was staged, so still in the org."""
    further: Counter[int] = field(default_factory=Counter)
    """Rows of a doubled key beyond the one that is expected."""
    reasons: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    turned_up: int = 0
    """Missing at first, there when asked for again."""

    def present(self, place: int) -> int:
        expected = self.expected[place] - self.missing[place] - self.absent_since[place]
        others = (self.orphans, self.strangers, self.rejected, self.removed_since, self.further)
        return expected + sum(counter[place] for counter in others)


class _Measuring:
    """One measurement from its first question to its last."""

    def __init__(
        self,
        walls: Walls,
        plan: Plan,
        *,
        level: Verify,
        against: Against,
        since: datetime | None,
        folder: Path,
        on_event: Callable[[str], None],
        on_orphans: Callable[[pl.Series], None],
    ) -> None:
        self._walls = walls
        self._plan_id = plan.plan_id
        self._level = level
        self._against = against
        self._since = since
        self._folder = folder
        self._on_event = on_event
        self._on_orphans = on_orphans
        self._ranges = plan.ranges
        self._edges = [planned.range.through for planned in self._ranges if planned.range.through is not None]
        self._entries = {entry.partition: entry for entry in walls.book.ranges(plan.plan_id)}
        self._target = walls.soql.describe()
        self._equality = Equality(walls.mapping, self._target)
        self._tally = _Tally()
        self._staged: Counter[int] = Counter()
        self._unread: set[int] = set()
        self._source_now: dict[int, int] = {}
        self._gone = pl.Series("key", [], dtype=pl.String)
        """Keys that neither the source nor the org has any more."""
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
        found = replace(
            found,
            fresh=self._fresh(),
            changed_since=self._tally.moved.total(),
            moved=dict(self._tally.moved),
            reasons=self._reasons(),
            distribution=distribution(self._walls, self._equality),
        )
        found = replace(found, seconds=self._walls.clock() - started)
        self._on_event(_told(found))
        return found

    def keep_drift(self, file: Path) -> None:
        """Puts the drifting keys where the repair looks for them, whole or not at all."""
        fresh, disk = self._folder / file.name, Disk()
        if self._drift_pieces:
            pl.scan_parquet(self._drift_pieces).sink_parquet(fresh)
        else:
            self._with_partitions(pl.DataFrame(schema=DRIFT)).write_parquet(fresh)
        fresh.chmod(0o600)
        disk.sync_file(fresh)
        disk.rename(fresh, file)
        disk.sync_folder(file.parent)

    def _fresh(self) -> int | None:
        """Rows touched in the org since the night opened, counted there."""
        if self._since is None:
            return None
        try:
            return self._walls.soql.count_since(self._since)
        except (RequestRefused, WireError) as error:  # a count over many rows may take the org too long
            self._walls.interruption.check()
            log.warning("fresh rows are not counted: %s", error.message)
            return None

    def _reasons(self) -> dict[str, int]:
        """Why rows of the source are not in the org as the source has them, by the ledger and by what was found."""
        counted = self._tally.reasons + Counter({CHANGED: self._tally.moved.total()})
        if self._against == "staged":
            for entry in self._entries.values():
                counts = entry.counts
                counted[reasons.REJECTED] += counts.failed
                counted[reasons.UNPROCESSED] += max(counts.staged - counts.accounted, 0) + counts.unprocessed
                counted[reasons.QUARANTINED] += counts.quarantined - counts.set_aside
                counted[reasons.SET_ASIDE] += counts.set_aside
                counted[reasons.NEVER_READ] += max(counts.expected - counts.staged, 0)
        return {reason: rows for reason, rows in counted.most_common() if rows}

    # By counts

    def _by_counts(self, measured_at: datetime) -> Measurement:
        """Only a shortfall of the whole can be told: the org orders keys by rules of its own, so that rows near a boundary
        may be counted in the range beside theirs."""
        expected = self._expected_count()
        folded = [edge.lower() for edge in self._edges]
        # The org orders numbers as numbers, and the bounds are texts.
        is_ordered = all(before < after for before, after in pairwise(folded)) and not self._equality.has_number_key
        if is_ordered:
            counted = [self._walls.soql.count(planned.range) for planned in self._ranges]
            by_range = {p.partition: {"present": rows} for p, rows in zip(self._ranges, counted, strict=True)}
        else:  # bounds that the org orders otherwise would count rows twice
            counted, by_range = [self._walls.soql.count()], {}
        if self._against == "staged":
            self._count_the_source_again()
            for planned in self._ranges:
                now, entry = self._source_now[planned.place], self._entries[planned.partition]
                by_range.setdefault(planned.partition, {})["source"] = now
                if entry.state is RangeState.DONE:
                    came = now - entry.counts.staged
                    self._count_moved({movement.INSERTED: max(came, 0), movement.DELETED: max(-came, 0)})
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
            self._say_what_is_cleared_away()
            self._add_present(comparison)
            self._judge(comparison)
            present = comparison.rows[Side.PRESENT] + self._tally.turned_up
        if self._against == "staged":
            self._look_at_the_source_again()
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
            doubled=tally.doubled.total(),
            orphans=tally.orphans.total(),
            drifting=tuple(planned.partition for planned in drifting),
            by_range={planned.partition: self._counted(planned.place) for planned in self._ranges},
            sample=tuple(row for rows in self._samples.values() for row in rows)[:SAMPLE],
        )

    def _counted(self, place: int) -> dict[str, int]:
        tally = self._tally
        counts = {
            "expected": tally.expected[place],
            "present": tally.present(place),
            "missing": tally.missing[place],
            "doubled": tally.doubled[place],
            "orphans": tally.orphans[place],
        }
        if self._with_values:
            counts["different"] = tally.different[place]
        if place in self._source_now:
            counts["source"] = self._source_now[place]
        return counts

    def _say_what_is_cleared_away(self) -> None:
        entries = [self._entries.get(planned.partition) for planned in self._ranges if planned.place in self._unread]
        cleared = [entry.partition for entry in entries if entry is not None and entry.state is RangeState.DONE]
        if cleared:
            self._on_event(
                f"the rows of {len(cleared)} ranges were cleared away: what the source has changed since they were staged "
                "cannot be told from drift"
            )

    def _find_duplicates(self) -> None:
        """The groups of rows that the target would match as one, at the source as it is now."""
        fold_case = folds_case(self._walls.mapping, self._target)
        if self._walls.data_cloud.profile(fold_case=fold_case).has_duplicates:
            write_groups(self._walls.data_cloud.duplicates(fold_case=fold_case), self._folder)

    def _add_expected(self, comparison: Comparison, planned: PlannedRange) -> None:
        is_staged = self._against == "staged"
        for frame, sent in self._staged_rows(planned) if is_staged else self._source(planned):
            self._walls.interruption.check()
            self._tally.expected[planned.place] += int(sent.sum())
            if not is_staged:
                self._tally.reasons[reasons.QUARANTINED] += int((~sent).sum())
            place = pl.repeat(planned.place, frame.height, dtype=pl.UInt32, eager=True)
            hashed = self._hashed(frame, is_present=False)
            comparison.add(Side.EXPECTED, hashed.with_columns(place.alias("place"), sent.alias("sent")))
        if not is_staged:
            for frame, sent in self._staged_rows(planned):
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

    def _staged_rows(self, planned: PlannedRange) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
        """Staged rows of a range, typed, each with whether it was saved in the org.

        Raises ``StateError`` when a finished range has not all of its rows here, unless they are only wanted to explain
        what the source has changed since. Of a range that is not finished nothing is claimed, so what is left of it may
        be damaged.
        """
        entry = self._entries.get(planned.partition)
        is_claimed = entry is not None and entry.state in (RangeState.DONE, RangeState.DRIFTING)
        rows = saved = 0
        if entry is not None:
            try:
                with self._store(entry) as store:
                    for frame, sent in _rows_in(store) if store is not None else ():
                        rows += frame.height
                        saved += int(sent.sum())
                        yield frame, sent
                    is_whole = store is not None and store.is_read
            except StateError as error:
                if self._against == "staged" and is_claimed:
                    raise StateError(
                        f"The state of range {planned.partition} is damaged, so its rows cannot be compared: {error.message}",
                        hint=f"Begin it anew with `sync-pipeline restart --range {planned.partition} --fresh`.",
                    ) from error
                log.warning("what was staged of range %s explains nothing: %s", planned.partition, error.message)
                is_whole = False
        if entry is None or not is_whole or rows != entry.counts.staged:
            self._unread.add(planned.place)
        self._staged[planned.place] = rows
        if entry is None or self._against == "source" or not is_claimed:
            return
        if (rows, saved) != (entry.counts.staged, entry.counts.succeeded):
            raise StateError(
                f"Range {planned.partition}: {entry.counts.staged} rows were staged and {entry.counts.succeeded} saved, "
                f"but {rows} and {saved} are here to be compared; nothing is proven of the others.",
                hint="Compare source and org with `sync-pipeline reconcile`, or run the range again with "
                f"`sync-pipeline sync --range {planned.partition}`.",
            )

    @contextmanager
    def _store(self, entry: RangeEntry) -> Iterator[RangeStore | None]:
        """The range at rest; ``None`` when nothing is kept of it."""
        if self._walls.area.is_range_locked(entry.partition):
            raise HeldElsewhere(
                f"Range {entry.partition} is being worked on.",
                hint="Measure when it has ended; see `sync-pipeline status`.",
            )
        folder = self._walls.area.range_folder(self._plan_id, entry.partition, entry.generation)
        if not folder.is_dir():
            yield None
            return
        with RangeStore.read_only(folder) as store:
            yield store

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

    def _expected_of(self, keys: pl.Series, source: pl.DataFrame) -> pl.DataFrame:
        """The rows of these keys that the org should hold; ``source`` are the source's own rows of them."""
        if self._against == "source":
            groups = groups_in(self._folder, KeyRange())
            frame, sent = self._converted(source, groups)
            return frame.filter(sent)
        wanted = keys.implode()
        found = pl.DataFrame(schema={"key": pl.String, **staged_schema(self._walls.mapping, self._target)})
        for planned in self._ranges:
            for frame, sent in self._staged_rows(planned):
                rows = frame.filter(sent & frame["key"].is_in(wanted)).select(found.columns)
                # Made anew of its rows: a frame that was filtered keeps the texts of its whole page alive.
                found = pl.concat([found, pl.DataFrame(rows.rows(), schema=found.schema, orient="row")])
        return found

    # What differs

    def _judge(self, comparison: Comparison) -> None:
        """Counts what differs. The first rows that are missing, different or doubled are looked at again, the others are
        not."""
        doubtful = pl.DataFrame(schema=FINDINGS)
        for found in comparison.findings():
            # What was never read cannot have changed since.
            frame = found.with_columns(
                pl.col("changed") & ~pl.col("place").is_in(sorted(self._unread)).fill_null(value=False)
            )
            self._count_unsent(frame)
            is_drift = pl.col("kind").is_in([Kind.MISSING, Kind.DIFFERENT, Kind.DOUBLED]) & ~pl.col("changed")
            drift = frame.filter(is_drift)
            room = max(RECHECKED - doubtful.height, 0)
            doubtful = pl.concat([doubtful, drift.head(room)])
            self._count_drift(self._explained(named_by_key(drift.slice(room)), present=None))
        if doubtful.height:
            self._count_drift(self._looked_at_again(doubtful))

    def _looked_at_again(self, doubtful: pl.DataFrame) -> pl.DataFrame:
        self._on_event(f"looking again at {doubtful.height} keys that are missing, different or doubled")
        walls, keys = self._walls, doubtful["key"]
        fold_case = folds_case(walls.mapping, self._target)
        source = walls.data_cloud.rows_named(keys.to_list(), fold_case=fold_case).sort(walls.mapping.source_key)
        expected = self._expected_of(keys, source) if self._with_values else pl.DataFrame(schema={"key": pl.String})
        rows = walls.soql.rows_of(keys.to_list(), as_numbers=self._equality.has_number_key)
        present = rows.rename({walls.mapping.target_key: "key"})
        drift = look_again(self._equality, doubtful, expected, present, with_values=self._with_values)
        if self._against == "staged":
            # Which of several rows is sent is only asked for where the source may hold the org's value now.
            different = drift.filter(pl.col("finding") == Kind.DIFFERENT)["key"].unique(maintain_order=True)
            groups = walls.data_cloud.duplicates(fold_case=fold_case, among=different.to_list())
            drift = mark_changed(self._equality, drift, source, standing(groups), present)
        self._gone = drift.filter(pl.col("detail") == reasons.DELETED)["key"]
        absent = drift.filter(pl.col("finding") == Kind.MISSING)["key"].n_unique() + len(self._gone)
        self._tally.turned_up = doubtful.filter(pl.col("kind") == Kind.MISSING).height - absent
        return self._explained(drift.sort("key", maintain_order=True), present=present)

    def _explained(self, drift: pl.DataFrame, *, present: pl.DataFrame | None) -> pl.DataFrame:
        """The same rows with their reasons, from the ledgers of their ranges."""
        if not drift.height:
            return drift
        by_place = {planned.place: planned for planned in self._ranges}
        fates = [pl.DataFrame(schema=FATES)]
        for (place,), rows in drift.group_by("place"):
            entry = self._entries.get(by_place[int(str(place))].partition)
            if entry is None:
                continue
            try:
                with self._store(entry) as store:
                    if store is not None:
                        found = store.fates(rows.select("key"))
                        fates.append(found.select(pl.col(name).cast(kind) for name, kind in FATES.items()))
            except StateError as error:
                log.warning("the ledger of range %s explains nothing: %s", entry.partition, error.message)
        if present is None:
            present = pl.DataFrame(
                schema=dict.fromkeys(("key", "Id", "LastModifiedDate", "LastModifiedById"), pl.String)
            )
        return with_reasons(self._equality, drift, pl.concat(fates), present, user_id=self._walls.session.user_id)

    def _count_unsent(self, frame: pl.DataFrame) -> None:
        """Rows that only the org has, and those that differ because the source changed since they were staged."""
        tally = self._tally
        tally.rejected.update(frame.filter(pl.col("kind") == Kind.REJECTED)["place"].to_list())
        for place, rows, sent in (
            frame.filter(pl.col("kind") == Kind.DOUBLED).select("place", "rows", "sent").iter_rows()
        ):
            tally.further[place] += rows - sent
        changed = frame.filter(pl.col("changed") & (pl.col("kind") != Kind.ORPHAN))
        tally.absent_since.update(changed.filter(pl.col("kind") == Kind.MISSING)["place"].to_list())
        orphans = frame.filter(pl.col("kind") == Kind.ORPHAN)
        places = [bisect_left(self._edges, key) for key in self._equality.as_source(orphans["key"])]
        orphans = orphans.with_columns(pl.Series("place", places, dtype=pl.UInt32))
        removed = orphans.filter("changed")
        tally.removed_since.update(removed["place"].to_list())
        new = changed.filter(pl.col("kind") == Kind.MISSING).height
        self._count_moved(
            {movement.INSERTED: new, movement.CHANGED: changed.height - new, movement.DELETED: removed.height}
        )
        # The source may write the key with other blanks or in another letter case, and so in any range.
        is_stranger = ~pl.col("changed") & pl.lit(bool(self._against == "staged" and self._unread))
        tally.strangers.update(orphans.filter(is_stranger)["place"].to_list())
        alone = orphans.filter(~pl.col("changed") & ~is_stranger)
        tally.orphans.update(alone["place"].to_list())
        self._on_orphans(alone["key"])
        for kind, rows in ((Kind.MISSING, changed), (Kind.DIFFERENT, changed), (Kind.ORPHAN, removed)):
            since = rows.filter(pl.col("kind") == kind)
            self._sample(CHANGED, named_by_key(since, finding=CHANGED, reason=CHANGED, detail=SINCE_STAGED[kind]))
        self._sample(Kind.ORPHAN, named_by_key(alone, reason=str(Kind.ORPHAN), detail=ONLY_IN_ORG))

    def _count_moved(self, rows: dict[str, int]) -> None:
        self._tally.moved.update({what: number for what, number in rows.items() if number})

    def _count_drift(self, drift: pl.DataFrame) -> None:
        """Counts ``DRIFT`` rows and puts them aside for the repair; those that changed since are only counted."""
        if drift.height == 0:
            return
        keys, tally = drift.unique("key"), self._tally
        tally.missing.update(keys.filter(pl.col("finding") == Kind.MISSING)["place"].to_list())
        tally.different.update(keys.filter(pl.col("finding") == Kind.DIFFERENT)["place"].to_list())
        tally.doubled.update(keys.filter(pl.col("finding") == Kind.DOUBLED)["place"].to_list())
        changed = keys.filter(pl.col("finding") == CHANGED)
        deleted = changed.filter(pl.col("detail") == reasons.DELETED)
        tally.absent_since.update(deleted["place"].to_list())
        self._count_moved({movement.CHANGED: changed.height - deleted.height, movement.DELETED: deleted.height})
        self._sample(CHANGED, drift.filter(pl.col("finding") == CHANGED))
        lasting = drift.filter(pl.col("finding") != CHANGED)
        tally.reasons.update(lasting.unique("key")["reason"].to_list())
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
        return drift.select("key", partition, "finding", "column", "staged", "present", "reason", "detail")

    # What the source did meanwhile

    def _count_the_source_again(self) -> None:
        counted = self._walls.data_cloud.counts([planned.range for planned in self._ranges])
        self._source_now = {planned.place: rows for planned, rows in zip(self._ranges, counted, strict=True)}

    def _look_at_the_source_again(self) -> None:
        """Counts the ranges once more; where a count has moved, the keys that came or went are named."""
        self._count_the_source_again()
        moved = [
            planned
            for planned in self._ranges
            if planned.place not in self._unread and self._source_now[planned.place] != self._staged[planned.place]
        ]
        if not moved:
            return
        came = sum(self._source_now[planned.place] - self._staged[planned.place] for planned in moved)
        self._on_event(f"the source has moved in {len(moved)} ranges ({came:+d} rows); reading their keys again")
        named, gone = Counter[str](), 0
        for frame in movement.moved_keys(self._walls, moved, self._staged_keys, self._folder / "moved", self._equality):
            is_counted = frame["key"].is_in(self._gone.implode())
            gone += int(is_counted.sum())
            for (what,), rows in frame.filter(~is_counted).group_by("movement"):
                named[str(what)] += rows.height
                found = rows.with_columns(pl.lit(CHANGED).alias("kind"))
                self._sample(CHANGED, named_by_key(found, reason=CHANGED, detail=MOVED[str(what)]))
        # Rows without a key, and further rows of one key, are in the counts and cannot be named.
        rest = came - named[movement.INSERTED] + named[movement.DELETED] + gone
        named[movement.INSERTED if rest > 0 else movement.DELETED] += abs(rest)
        self._count_moved(named)

    def _staged_keys(self, planned: PlannedRange) -> Iterator[pl.Series]:
        return (frame["key"] for frame, _ in self._staged_rows(planned))


def _rows_in(store: RangeStore) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
    """Staged rows, some pages at once, each with whether the org has acknowledged it."""
    rejected = store.rejected_rows()
    for files in store.whole_files(rows=ROWS_AT_ONCE):
        frame = pl.read_parquet(files)
        if len(rejected):
            yield frame, ~frame["row"].is_in(rejected.implode())
        else:
            yield frame, pl.repeat(value=True, n=frame.height, dtype=pl.Boolean, eager=True)


def _told(measurement: Measurement) -> str:
    """The measurement in one line."""
    counted = {
        "expected": measurement.expected,
        "present": measurement.present,
        "missing": measurement.missing,
        "different": measurement.different,
        "doubled": measurement.doubled,
        "orphans": measurement.orphans,
        "fresh": measurement.fresh,
        CHANGED: measurement.changed_since or None,
    }
    numbers = ", ".join(f"{rows} {name}" for name, rows in counted.items() if rows is not None)
    return f"measured by {measurement.level} in {measurement.seconds:.1f} s: {numbers}"
