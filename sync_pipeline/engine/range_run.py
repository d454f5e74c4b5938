"""One run of one range, from its lock to its last outcome, however it was started.

A run belongs to the newest night. It goes on where an earlier run of that night ended: at the cursor while reading, at
the open parts while loading. What a person or the night sensor wants is told by ``start``; what is needed is told by
the book.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import polars as pl

from sync_pipeline.domain.errors import (
    CapReached,
    DiskFull,
    Drift,
    EngineGone,
    HeldElsewhere,
    Parked,
    Passing,
    StateError,
    Stopped,
    SyncError,
)
from sync_pipeline.domain.ledger import Counts, IngestJob, JobState, RangeState
from sync_pipeline.domain.night import JobEntry, NightEntry, RangeEntry
from sync_pipeline.domain.plan import Plan, PlannedRange
from sync_pipeline.engine.budget import check_calls, check_disk, check_range, look_again, parking_of
from sync_pipeline.engine.equality import Equality
from sync_pipeline.engine.extraction import extract
from sync_pipeline.engine.heartbeat import Heartbeat
from sync_pipeline.engine.loading import Loader, end_job
from sync_pipeline.engine.values import staged_schema
from sync_pipeline.engine.walls import Walls
from sync_pipeline.staging.comparison import Kind
from sync_pipeline.staging.range_store import RangeStore

log = logging.getLogger(__name__)

Start = Literal["auto", "resume", "fresh"]

DRIFT_FILE = "drift.parquet"
"""In the night's folder: the keys a measurement found missing or different."""
RELEASE_SECONDS = 8.0
"""How long open jobs may take to be aborted, all together; `stop` promises ten seconds for everything."""
RELEASE_THREADS = 8
RELEASE_PAUSE = 0.5
"""Seconds before an abortion that failed is tried again."""
ENDED = frozenset(state.value for state in JobState if state.is_terminal)
FULL_DISK_PAUSE = 15.0
"""Seconds between two tries to write into a book that has no room."""


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
    Raises ``HeldElsewhere`` when another process works on it, ``Parked`` when API calls or disk space run short,
    ``Stopped`` when interrupted or the night is stopped, any other ``SyncError`` when the run failed; the book says so
    too. The calling thread's connection to the book is closed at the end.
    """
    try:
        return _run(walls, plan_id, partition, start=start, run_id=run_id, heartbeat=heartbeat, on_event=on_event)
    finally:
        walls.book.close()


def _run(
    walls: Walls,
    plan_id: str,
    partition: str,
    *,
    start: Start,
    run_id: str,
    heartbeat: Heartbeat | None,
    on_event: Callable[[str], None],
) -> RangeEntry:
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
        walls.interruption.check()
        if walls.book.is_stopped(plan_id):
            raise Stopped(f"Night {plan_id} is stopped.", hint="Go on with `sync-pipeline restart` or `sync`.")
        if not walls.book.is_newest(plan_id):
            raise HeldElsewhere(f"A newer night has taken the place of night {plan_id}.", hint="Run its ranges.")
        if is_done:  # it stays done until its new run has begun
            check_disk(walls, night.plan, needed=0)
        with _beating(walls, plan_id, partition, heartbeat):
            try:
                check_disk(walls, night.plan, needed=0)
                entry = walls.book.begin_run(
                    plan_id, partition, pid=os.getpid(), run_id=run_id, fresh=is_done or start == "fresh"
                )
                counts = _work(walls, night, planned, entry, on_event=on_event)
                walls.book.end_run(plan_id, partition, state=RangeState.DONE, counts=counts)
            except BaseException as error:
                parked = parking_of(walls, plan_id, error)
                _end_badly(walls, plan_id, partition, parked or error)
                if parked is not None and parked is not error:
                    raise parked from error
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
    on_event: Callable[[str], None],
) -> Counts:
    """Everything between the lock and the book's last word; returns counts that add up."""
    plan_id, partition = night.plan_id, planned.partition
    target = walls.soql.describe()
    walls.mapping.check_target(target)
    folder = walls.area.range_folder(plan_id, partition, entry.generation)
    _end_older_generations(walls, plan_id, partition, entry.generation)
    schema = staged_schema(walls.mapping, target)
    with RangeStore.open(folder, schema, walls.catalogues, disk=walls.disk, now=walls.now, sleep=walls.sleep) as store:
        _check_headroom(walls, night.plan, planned, store)
        if night.parked_until is not None and (parked := look_again(walls, night, walls.book.ranges(plan_id))):
            raise parked  # for batches or data storage, which no answer tells unasked
        expected = planned.expected
        if store.is_read:
            expected = store.expected
        else:
            with walls.reading():
                walls.book.progress(plan_id, partition, state=RangeState.READING)
                expected = extract(
                    walls, night.plan, planned, store, target,
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
            equality=Equality(walls.mapping, target),
            generation=entry.generation,
            expected=expected,
            on_rows=lambda total, sent: walls.book.progress(plan_id, partition, counts=total, rows_sent=sent),
        )  # fmt: skip
        loader.load(
            repair=entry.repairs if entry.is_repair else 0,
            drifting=lambda: _drifting_keys(walls, plan_id, partition),
        )
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


def _check_headroom(walls: Walls, plan: Plan, planned: PlannedRange, store: RangeStore) -> None:
    """A range that nothing was done for begins only when all of it fits; one that is under way goes on while it can."""
    if store.staged or store.is_read:
        check_calls(walls, plan)
    else:
        check_range(walls, plan, planned)


def _end_badly(walls: Walls, plan_id: str, partition: str, error: BaseException) -> None:
    """Writes down how a run ended, and lets go of its jobs when nobody is meant to go on with them soon.

    What ended the run matters more than a book that cannot be written, so no error comes out of here.
    """
    reason = str(error) or type(error).__name__
    is_over = isinstance(error, CapReached)
    is_ended_by_person = isinstance(error, Stopped) or not isinstance(error, Exception)
    # A catalogue that somebody else keeps open counts: nothing would tell a reader that never lets go from one that does.
    is_attempt = not is_ended_by_person and not isinstance(error, Parked | EngineGone)
    deadline = walls.clock() + walls.policy.night_age_max.total_seconds()
    state = RangeState.GIVEN_UP if is_over else RangeState.PARKED if isinstance(error, Parked) else RangeState.FAILED
    try:
        if is_over or is_ended_by_person:
            release_jobs(walls, plan_id, partition)
        while True:
            try:
                if isinstance(error, Parked):
                    walls.book.park(plan_id, until=error.until, reason=error.message)
                walls.book.end_run(plan_id, partition, state=state, error=reason, failed_attempt=is_attempt)
                return
            except DiskFull as full:
                if walls.clock() > deadline:
                    raise
                # Whoever decides what comes next knows only the book: until that has room, the range is kept here.
                log.warning("range %s waits for room: %s", partition, full.message)
                walls.sleep(FULL_DISK_PAUSE)
    except SyncError as failure:
        log.warning("range %s ended (%s), which could not be written down: %s", partition, reason, failure.message)


def release_jobs(walls: Walls, plan_id: str, partition: str | None = None, *, seconds: float = RELEASE_SECONDS) -> int:
    """Aborts own jobs that are still open, side by side, and returns how many were.

    Returns within so many ``seconds``; a job whose abortion did not get through by then is adopted later. What the jobs
    saved is read when their ranges go on.
    """
    entries = [
        entry
        for entry in walls.book.jobs(plan_id, partition=partition, open_only=True)
        if entry.job_id and entry.state not in ENDED
    ]
    left: queue.SimpleQueue[JobEntry] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[JobEntry, IngestJob | None]] = queue.SimpleQueue()
    for entry in entries:
        left.put(entry)
    deadline = time.monotonic() + seconds
    for number in range(min(RELEASE_THREADS, len(entries))):
        # Daemons, because one that hangs in a request must not keep the process from ending.
        threading.Thread(
            target=_release, args=(walls, left, answers, deadline), name=f"release-{number}", daemon=True
        ).start()
    aborted = 0
    for _ in entries:
        try:
            entry, job = answers.get(timeout=max(deadline - time.monotonic(), 0.0))
        except queue.Empty:
            log.warning("some jobs could not be aborted in %.0f s and are adopted later", seconds)
            break
        if job is not None:
            walls.book.job_seen(entry.intent, job)
            aborted += job.state is JobState.ABORTED
    return aborted


def _release(
    walls: Walls,
    left: queue.SimpleQueue[JobEntry],
    answers: queue.SimpleQueue[tuple[JobEntry, IngestJob | None]],
    deadline: float,
) -> None:
    while True:
        try:
            entry = left.get_nowait()
        except queue.Empty:
            return
        answers.put((entry, _aborted(walls, entry, deadline)))


def _aborted(walls: Walls, entry: JobEntry, deadline: float) -> IngestJob | None:
    """The job as it is after its abortion, ``None`` when that did not get through in time."""
    while True:
        try:
            return walls.bulk.abort(entry.job_id)
        except SyncError as error:
            # An interrupted session does not wait for another try by itself.
            is_lasting = not isinstance(error, Stopped | Passing)
            if is_lasting or time.monotonic() + RELEASE_PAUSE > deadline:
                log.warning("job %s could not be aborted and is adopted later: %s", entry.job_id, error.message)
                return None
        time.sleep(RELEASE_PAUSE)


def _end_older_generations(walls: Walls, plan_id: str, partition: str, generation: int) -> None:
    for job in walls.book.jobs(plan_id, partition=partition, open_only=True):
        if job.generation < generation and job.job_id:
            end_job(walls, job)


def _drifting_keys(walls: Walls, plan_id: str, partition: str) -> pl.DataFrame:
    """Keys of the range that a repair can mend: sending a row once more takes no double away."""
    drift = pl.scan_parquet(walls.area.night_folder(plan_id) / DRIFT_FILE)
    of_range = (pl.col("partition") == partition) & pl.col("finding").is_in([Kind.MISSING, Kind.DIFFERENT])
    return drift.filter(of_range).select("key").unique().collect()


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
