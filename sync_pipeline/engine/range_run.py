"""One run of one range, from its lock to its last outcome, however it was started.

A run belongs to the newest night. It goes on where an earlier run of that night ended: at the cursor while reading, at
the open parts while loading. What a person or the night sensor wants is told by ``start``; what is needed is told by
the book.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Literal

import polars as pl

from sync_pipeline.domain.errors import Drift, LimitExceeded, Parked, StateError, Stopped, SyncError, UserError
from sync_pipeline.domain.ledger import Counts, JobState, RangeState
from sync_pipeline.domain.night import NightEntry, RangeEntry
from sync_pipeline.domain.plan import PlannedRange
from sync_pipeline.engine.extraction import extract
from sync_pipeline.engine.heartbeat import Heartbeat
from sync_pipeline.engine.loading import Loader, end_job
from sync_pipeline.engine.values import staged_schema
from sync_pipeline.engine.walls import Walls
from sync_pipeline.staging.range_store import RangeStore

log = logging.getLogger(__name__)

Start = Literal["auto", "resume", "fresh"]

DRIFT_FILE = "drift.parquet"
"""In the night's folder: the keys a measurement found missing or different."""
PROBE_PAUSES = (timedelta(minutes=10), timedelta(minutes=20), timedelta(minutes=30))
"""How long a night stays parked before one range probes for headroom; the last one repeats."""


def run_range(
    walls: Walls,
    plan_id: str,
    partition: str,
    *,
    start: Start = "auto",
    run_id: str = "",
    heartbeat: Heartbeat | None = None,
    on_event: Callable[[str], None] = log.info,
) -> RangeEntry:
    """Reads, stages, loads and accounts for one range; returns its entry in the book, state ``done``.

    A range that is finished is kept as it is, unless ``start`` is ``fresh`` or the night has had its verdict since.
    Raises ``HeldElsewhere`` when another process works on it, ``Parked`` when the org has no headroom, ``Stopped`` when
    interrupted, any other ``SyncError`` when the run failed; the book says so too.
    """
    night = walls.book.night(plan_id)
    planned = night.plan.range(partition) if night is not None else None
    if night is None or planned is None:
        raise StateError(_unknown(night, partition), hint="Choose one of those, or plan a new night.")
    night.plan.check_belongs(walls.org, walls.mapping)
    with walls.area.lock_range(partition):
        entry = _entry(walls, plan_id, partition)
        is_done = entry.state is RangeState.DONE
        if is_done and start != "fresh" and (start == "resume" or not _is_stale(night, entry)):
            on_event(f"range {partition} is done: {entry.counts.succeeded} of {entry.counts.expected} rows saved; kept")
            return entry
        is_repair = entry.state is RangeState.DRIFTING and start != "fresh"
        walls.interruption.check()
        entry = walls.book.begin_run(
            plan_id, partition, pid=os.getpid(), run_id=run_id, fresh=is_done or start == "fresh"
        )
        with _beating(walls, plan_id, partition, heartbeat):
            try:
                counts = _work(walls, night, planned, entry, is_repair=is_repair, on_event=on_event)
                walls.book.end_run(plan_id, partition, state=RangeState.DONE, counts=counts)
            except BaseException as error:
                _end_badly(walls, night, partition, error)
                raise
        if night.parked_until is not None:
            walls.book.unpark(plan_id)
        return _entry(walls, plan_id, partition)


@contextmanager
def _beating(walls: Walls, plan_id: str, partition: str, shared: Heartbeat | None) -> Iterator[None]:
    """The range is marked alive: by the heartbeat of the whole process, or by one of its own."""
    with nullcontext(shared) if shared is not None else Heartbeat(walls, plan_id) as heartbeat:
        heartbeat.add(partition)
        try:
            yield
        finally:
            heartbeat.remove(partition)


def _work(
    walls: Walls,
    night: NightEntry,
    planned: PlannedRange,
    entry: RangeEntry,
    *,
    is_repair: bool,
    on_event: Callable[[str], None],
) -> Counts:
    """Everything between the lock and the book's last word; returns counts that add up."""
    plan_id, partition = night.plan_id, planned.partition
    target = walls.soql.describe()
    walls.mapping.check_target(target)
    folder = walls.area.range_folder(plan_id, partition, entry.generation)
    _end_older_generations(walls, plan_id, partition, entry.generation)
    with RangeStore.open(folder, staged_schema(walls.mapping, target), memory=walls.policy.duckdb_memory) as store:
        expected = planned.expected
        if store.is_read:
            expected = store.expected
        else:
            with walls.slots.read:
                walls.interruption.check()
                walls.book.progress(plan_id, partition, state=RangeState.READING)
                expected = extract(
                    walls, plan_id, planned, store, target,
                    on_page=lambda staged: walls.book.progress(
                        plan_id, partition, counts=Counts(expected=planned.expected, staged=staged)
                    ),
                )  # fmt: skip
        counts = store.counts(expected)
        on_event(
            f"range {partition}: {counts.staged} of {expected} rows staged, {counts.quarantined} of them quarantined"
        )
        walls.book.progress(plan_id, partition, state=RangeState.LOADING, counts=counts)
        loader = Loader(
            walls, night.plan, planned, store,
            generation=entry.generation,
            expected=expected,
            on_rows=lambda total, sent: walls.book.progress(plan_id, partition, counts=total, rows_sent=sent),
        )  # fmt: skip
        if is_repair:
            loader.repair(_drifting_keys(walls, plan_id, partition))
        else:
            loader.load()
        counts = store.counts(expected)
    if not counts.adds_up:
        raise StateError(
            f"Range {partition}: {counts.staged} rows staged, {counts.accounted} accounted for.",
            hint="Run it again with `sync-pipeline restart --range KEY`; its ledger is kept.",
        )
    if counts.staged != expected:
        raise Drift(
            f"Range {partition}: {expected} rows expected, {counts.staged} staged.",
            hint="Run the range again.",
        )
    on_event(
        f"range {partition}: {counts.succeeded} rows saved ({counts.created} created, {counts.updated} updated), "
        f"{counts.failed} failed, {counts.unprocessed} unprocessed, {counts.quarantined} quarantined"
    )
    return counts


def _end_badly(walls: Walls, night: NightEntry, partition: str, error: BaseException) -> None:
    """Writes down how a run ended, and lets go of its jobs when a person ended it."""
    plan_id = night.plan_id
    reason = str(error) or type(error).__name__
    if isinstance(error, Parked):
        walls.book.park(plan_id, until=error.until, reason=error.message)
        walls.book.end_run(plan_id, partition, state=RangeState.PARKED, error=reason)
    elif isinstance(error, LimitExceeded):
        pause = PROBE_PAUSES[min(night.parkings, len(PROBE_PAUSES) - 1)]
        walls.book.park(plan_id, until=walls.now() + pause, reason=error.message)
        walls.book.end_run(plan_id, partition, state=RangeState.PARKED, error=reason)
    elif isinstance(error, Stopped) or not isinstance(error, Exception):
        release_jobs(walls, plan_id, partition)
        walls.book.end_run(plan_id, partition, state=RangeState.FAILED, error=reason)
    else:
        walls.book.end_run(
            plan_id, partition, state=RangeState.FAILED, error=reason, failed_attempt=not isinstance(error, UserError)
        )


def release_jobs(walls: Walls, plan_id: str, partition: str | None = None) -> int:
    """Aborts own jobs that are still open, and returns how many. What they saved is read when the range goes on."""
    aborted = 0
    for entry in walls.book.jobs(plan_id, partition=partition, open_only=True):
        if not entry.job_id:
            continue
        try:
            job = walls.bulk.abort(entry.job_id)
        except SyncError as error:
            log.warning("job %s could not be aborted and is adopted later: %s", entry.job_id, error.message)
            continue
        walls.book.job_seen(entry.intent, job)
        aborted += job.state is JobState.ABORTED
    return aborted


def _end_older_generations(walls: Walls, plan_id: str, partition: str, generation: int) -> None:
    for job in walls.book.jobs(plan_id, partition=partition, open_only=True):
        if job.generation < generation and job.job_id:
            end_job(walls, job)


def _drifting_keys(walls: Walls, plan_id: str, partition: str) -> pl.DataFrame:
    drift = pl.read_parquet(walls.area.night_folder(plan_id) / DRIFT_FILE)
    return drift.filter(pl.col("partition") == partition).select("key").unique()


def _entry(walls: Walls, plan_id: str, partition: str) -> RangeEntry:
    entry = walls.book.range(plan_id, partition)
    if entry is None:
        raise StateError(f"The book holds no range {partition} of night {plan_id}.", hint="Plan a new night.")
    return entry


def _is_stale(night: NightEntry, entry: RangeEntry) -> bool:
    """Finished before the night's verdict: whoever starts it again wants it done again."""
    return night.verdict_at is not None and entry.finished_at is not None and entry.finished_at <= night.verdict_at


def _unknown(night: NightEntry | None, partition: str) -> str:
    if night is None:
        return f"There is no night that has a range {partition}."
    ranges = ", ".join(f"{r.partition} ({r.range})" for r in night.plan)
    return f"The newest night has no range {partition}; its ranges are {ranges}."
