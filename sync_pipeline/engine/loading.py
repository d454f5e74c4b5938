"""Loads one staged range into the org by ingest jobs, until every row has an outcome.

The intent stands in the book before each remote act and its result after it, so that a run killed at any instant leaves
a trail: the next one adopts, finishes or aborts the exact job. ``JobComplete`` proves nothing; a row has succeeded when
a result set names it. Rows whose failure can pass are sent again in rounds that shrink, at last one job at a time for
the whole night.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import polars as pl

from sync_pipeline.domain.errors import (
    CapReached,
    JobStuck,
    RequestRefused,
    Stopped,
    SyncError,
    Unreadable,
    WireError,
)
from sync_pipeline.domain.fates import Fate, patterns
from sync_pipeline.domain.ledger import Counts, IngestJob, JobState, UploadPart
from sync_pipeline.domain.night import JobEntry
from sync_pipeline.domain.plan import Plan, PlannedRange
from sync_pipeline.engine.budget import check_calls, check_disk
from sync_pipeline.engine.equality import Equality
from sync_pipeline.engine.planning import PART_BYTES
from sync_pipeline.engine.walls import Walls
from sync_pipeline.salesforce.bulk import render_csv
from sync_pipeline.staging.range_store import RangeStore, Which

log = logging.getLogger(__name__)

HAND_OVER_TRIES = 4
"""How often a part is given a new job because create or upload was cut off; more is a broken network."""
HAND_OVER_PAUSES = 4
"""Pause before the second of those tries, in first pauses between two looks (``poll_seconds``); it doubles with each."""
HAND_OVER_CALLS = 4
"""Create, upload, close, and one look."""
RESULT_TRIES = 3
"""How often result files are read that cannot be used."""
RESULT_CALLS = 4
"""A look at a job and its three result files."""
CLOCK_SKEW = timedelta(minutes=5)
"""How far the org's clock may lag behind ours when an orphaned job is looked for."""
SMALLEST_CAP = 200
"""Rows below which a share of failed rows says nothing."""
CALM_SHARE = 0.1
"""Up to this share of the rows sent may fail in passing before the next round waits for calmer times."""
STORM_PAUSES = 60
"""The first wait of a storm, in first pauses between two looks (``poll_seconds``); it doubles with each."""
STORM_GROWTH_MAX = 8
"""How many times the first wait of a storm the longest one is."""
FEW_ROWS, FEW_SHARE = 20, 0.01
"""So many rows, or this share of the range, are no storm whatever their share of the last round: they were in the way of
each other more than of anybody else, so their waits begin short, and grow to those of a storm."""
FEW_PAUSES = (1, 4, 8, 120, 480)
"""Such waits in the same measure; the last one repeats. Whoever has lost three times is in the way of somebody else."""
TRANSIENT = patterns(Fate.AGAIN, Fate.APART)
"""Errors of rows that are worth sending again."""
CHUNK_ROWS = 200
"""Rows that the org saves in one transaction, and so under one set of governor limits; a smaller job is a smaller one:
https://developer.salesforce.com/docs/atlas.en-us.apexcode.meta/apexcode/apex_gov_limits.htm"""
APART_PARTS = 200
"""Parts that a round cuts at most of rows that met such a limit. When there are more of them, parts are larger."""
PERMANENT_JOB_ERRORS = ("InvalidBatch", "ClientInputError")
"""Job errors that the same file would meet again."""
FINDS_NOTHING = 404


@dataclass
class Flight:
    """A part whose job the org works on. ``deadline`` is a reading of the monotonic clock."""

    part: UploadPart
    intent: int
    job: IngestJob
    deadline: float


class Loader:
    """One range on its way into the org. Used by one thread."""

    def __init__(
        self,
        walls: Walls,
        plan: Plan,
        planned: PlannedRange,
        store: RangeStore,
        *,
        equality: Equality,
        generation: int,
        expected: int,
        on_rows: Callable[[Counts, int], None],
    ) -> None:
        self._walls = walls
        self._plan = plan
        self._planned = planned
        self._store = store
        self._equality = equality
        self._generation = generation
        self._expected = expected
        self._on_rows = on_rows
        self._sent = 0
        self._flights: list[Flight] = []

    def load(self, *, repair: int = 0, drifting: Callable[[], pl.DataFrame] | None = None) -> None:
        """Brings every staged row to an outcome; what is left at the end is final and named with its reason.

        ``repair`` is the number of the last repair that was asked for, 0 for none. Unless an earlier run has cut it
        already, the rows with the keys of ``drifting`` (column ``key``) are sent once more, by parts of their own.

        Raises ``CapReached`` when the org refuses, or is not to be sent, too large a share of the rows, ``Parked`` at a reserve, and whatever
        else ended the work; a later run goes on from the ledger.
        """
        self._adopt()
        if self._store.rounds == 0:
            self._check_cap()  # what is quarantined is known before anything is sent
        with self._walls.slots.load:
            if self._store.rounds == 0:
                self._cut(which="all", rows=self._store.staged)
            if drifting is not None and repair > self._store.repairs:
                keys = drifting()
                self._cut(which="keys", rows=keys.height, keys=keys, repair=repair)
            self._finish_rounds()

    def _finish_rounds(self) -> None:
        policy = self._walls.policy
        while True:
            self._send_open_parts()
            left = self._store.transient()
            if left == 0:
                break
            retries = self._store.retries
            if retries >= policy.retry_rounds:
                log.warning("range %s: %d rows left after %d rounds", self._planned.partition, left, retries)
                break
            pause = self._pause(left, retries=retries)
            log.info(
                "range %s: %d rows can be sent again, round %d of %d in %.0f s",
                self._planned.partition, left, retries + 1, policy.retry_rounds, pause,
            )  # fmt: skip
            self._walls.sleep(pause)
            self._cut(which="transient", rows=left, serial=retries + 1 == policy.retry_rounds)
        self._store.settle()
        self._check_cap()

    def _pause(self, left: int, *, retries: int) -> float:
        """A few locked rows are sent again at once; a storm of locks is waited out, for minutes at most.

        Ranges hear of their jobs at the same time. Each waits a little longer than the one before it in the plan, so that
        those that were in each other's way do not meet again.
        """
        return self._first_pause(left, retries=retries) * (1 + self._planned.place / max(len(self._plan.ranges), 1))

    def _first_pause(self, left: int, *, retries: int) -> float:
        """That of the first range."""
        policy = self._walls.policy
        parts = self._store.parts(open_only=False)
        newest = max((part.round for part in parts), default=0)
        tried = sum(part.rows for part in parts if part.round == newest)
        if left <= tried * CALM_SHARE:
            return policy.poll_seconds
        first = min(policy.poll_seconds * STORM_PAUSES, policy.poll_seconds_max)
        storm = first * min(1 << retries, STORM_GROWTH_MAX)
        if left > max(FEW_ROWS, self._store.staged * FEW_SHARE):
            return storm
        return min(policy.poll_seconds * FEW_PAUSES[min(retries, len(FEW_PAUSES) - 1)], storm)

    def _check_cap(self) -> None:
        """Raises ``CapReached`` when so many rows are refused for good, or quarantined otherwise than by a declared rule,
        that something is wrong with all of them."""
        total = self._store.counts(self._expected)
        quarantined = total.quarantined - total.set_aside
        lost = total.failed + total.unprocessed - self._store.transient() + quarantined
        if total.staged >= SMALLEST_CAP and lost > total.staged * self._walls.policy.failed_share_max:
            raise CapReached(
                f"Range {self._planned.partition}: {lost} of {total.staged} rows do not get through, "
                f"{quarantined} of them quarantined before they were sent.",
                hint="See why with `sync-pipeline rejects`. When that is mended, begin it anew with "
                f"`sync-pipeline restart --range {self._planned.partition} --fresh`; SYNC_FAILED_SHARE_MAX raises the cap.",
            )

    def _cut(
        self,
        *,
        which: Which,
        rows: int,
        serial: bool = False,
        keys: pl.DataFrame | None = None,
        repair: int | None = None,
    ) -> None:
        """Puts about so many rows in parent order and writes them as CSV parts, all of a round at once."""
        policy = self._walls.policy
        halvings = self._store.retries + 1 if which == "transient" else 0
        part_rows = policy.batch_rows if serial else max(policy.part_rows >> halvings, policy.batch_rows)
        apart = self._store.transient_by(patterns(Fate.APART)) if which == "transient" else None
        together = apart_rows(len(apart) if apart is not None else 0, halvings=halvings)
        if apart is not None and len(apart):
            log.info(
                "range %s: %d of the rows met a limit together and are sent in jobs of %d",
                self._planned.partition, len(apart), together,
            )  # fmt: skip
        with self._walls.sorting():
            check_disk(self._walls, self._plan, needed=rows * PART_BYTES)
            self._store.cut_round(
                which=which,
                keys=keys,
                repair=repair,
                group_by=self._walls.mapping.group_by,
                start_fraction=self._planned.place / max(len(self._plan.ranges), 1),
                part_rows=part_rows,
                part_bytes=policy.part_bytes,
                heavy_rows=policy.batch_rows,
                serial=serial,
                render=self._render,
                apart=apart,
                apart_rows=together,
            )

    def _render(self, frame: pl.DataFrame, path: Path) -> tuple[int, int]:
        return render_csv(frame, self._walls.mapping, path)

    def _send_open_parts(self) -> None:
        """Every open part gets a job and its outcomes; serial ones one after the other, in the whole night."""
        adopted = {flight.part.number: flight for flight in self._flights}
        waiting = self._store.parts(open_only=True)
        self._flights = [flight for flight in self._flights if not flight.part.serial]
        for part in waiting:
            if not part.serial and part.number not in adopted:
                self._flights.append(self._launch(part))
        self._land_all()
        self._check_cap()
        for part in waiting:
            if part.serial:
                with self._only_one("serial"):
                    self._let_others_end()
                    self._flights.append(adopted.get(part.number) or self._launch(part))
                    self._land_all()

    @contextmanager
    def _only_one(self, name: str) -> Iterator[None]:
        with self._walls.book.turn(name, sleep=self._walls.sleep):
            yield

    def _let_others_end(self) -> None:
        """Waits for the serial jobs of other ranges. Whoever has the turn meets only those whose run has died."""
        for entry in self._walls.book.jobs(self._plan.plan_id, open_only=True):
            if not entry.serial or not entry.job_id or entry.partition == self._planned.partition:
                continue
            check_calls(self._walls, self._plan)
            job = find_job(self._walls, entry.job_id)
            if job is not None and job.state is not JobState.OPEN:  # an open one has nothing to work on
                _await_end(self._walls, job)

    # one job

    def _launch(self, part: UploadPart) -> Flight:
        """Creates a job for the part, uploads and closes it. A job whose upload has an unknown fate is aborted."""
        tries, pause = 1, HAND_OVER_PAUSES * self._walls.policy.poll_seconds
        while True:
            self._walls.interruption.check()
            try:
                return self._left_behind(part) or self._hand_over(part)
            except WireError as error:
                if tries == HAND_OVER_TRIES:
                    raise WireError(
                        f"Part {part.number} of range {self._planned.partition} could not be handed over "
                        f"in {tries} tries: {error.message}",
                        hint="It is kept and sent again by the next run.",
                        status=error.status,
                        code=error.code,
                    ) from error
                log.warning(
                    "range %s part %d: %s; it gets another job in %.1f s",
                    self._planned.partition, part.number, error.message, pause,
                )  # fmt: skip
            self._walls.sleep(pause)
            tries, pause = tries + 1, pause * 2

    def _left_behind(self, part: UploadPart) -> Flight | None:
        """The job of an earlier try, when not even its abortion got through and it was closed after all."""
        for entry in self._walls.book.jobs(self._plan.plan_id, partition=self._planned.partition, open_only=True):
            if entry.job_id and (entry.generation, entry.part) == (self._generation, part.number):
                flight = self._taken_over(entry, part)
                if flight is not None:
                    return flight
        return None

    def _hand_over(self, part: UploadPart) -> Flight:
        """One try; raises ``WireError`` when another one may do better."""
        intent, job = self._create(part)
        try:
            self._walls.bulk.upload(job.id, self._store.part_file(part))
        except (WireError, RequestRefused) as error:
            self._walls.bulk.abort(job.id)
            self._walls.book.job_over(intent, "dropped")
            raise WireError(f"the upload to job {job.id} failed ({error.message})", hint=error.hint) from error
        try:
            job = self._walls.bulk.close(job.id)
        except (WireError, RequestRefused) as error:
            # It may have been closed after all: whatever it saved until it was aborted is in its results.
            log.warning("job %s could not be closed and is aborted: %s", job.id, error.message)
            job = self._walls.bulk.abort(job.id)
        self._walls.book.job_seen(intent, job)
        self._sent += part.rows
        self._on_rows(self._store.counts(self._expected), self._sent)
        log.info(
            "range %s part %d round %d: %d rows sent as job %s",
            self._planned.partition, part.number, part.round, part.rows, job.id,
        )  # fmt: skip
        return self._flight(part, intent, job)

    def _create(self, part: UploadPart) -> tuple[int, IngestJob]:
        """A new job and the number of its intent. Creates of a night take turns: while one of them is under way, a job
        that no book knows is an orphan."""
        book, plan_id, partition = self._walls.book, self._plan.plan_id, self._planned.partition
        with self._only_one("create"):
            check_calls(self._walls, self._plan, calls=HAND_OVER_CALLS)
            left = book.jobs(plan_id, partition=partition, open_only=True)
            _abort_lost(self._walls, left)
            for entry in left:
                if not entry.job_id:
                    book.job_over(entry.intent, "dropped")
            intent = book.intend_job(
                plan_id,
                partition,
                generation=self._generation,
                part=part.number,
                round=part.round,
                rows=part.rows,
                serial=part.serial,
            )
            try:
                job = self._walls.bulk.create()
            except (WireError, Stopped):
                raise  # a job may be left over: the next try, or the next run, looks for it
            except SyncError:
                book.job_over(intent, "dropped")  # the org has said no, so there is none
                raise
            book.job_created(intent, job.id)
            return intent, job

    def _flight(self, part: UploadPart, intent: int, job: IngestJob) -> Flight:
        return Flight(part, intent, job, self._walls.clock() + self._walls.policy.job_deadline_seconds)

    def _land_all(self) -> None:
        """Waits for every job in flight and records its outcomes as it ends."""
        with self._walls.watch.over(self._walls, [(flight.job, flight.part.rows) for flight in self._flights]):
            while self._flights:
                landed = next((flight for flight in self._flights if flight.job.state.is_terminal), None)
                if landed is None:
                    self._look()
                    continue
                check_calls(self._walls, self._plan, calls=RESULT_CALLS)
                self._flights.remove(landed)
                self._account(landed)

    def _look(self) -> None:
        """Hears once more of the jobs in flight. One whose time is over is given up."""
        watch = self._walls.watch
        watch.wait(
            self._walls,
            [flight.job.id for flight in self._flights],
            may_call=lambda calls: check_calls(self._walls, self._plan, calls=calls),
        )
        for flight in list(self._flights):
            seen = watch.seen(flight.job.id)
            if seen != flight.job:
                flight.job = seen
                self._walls.book.job_seen(flight.intent, seen)
            if not seen.state.is_terminal and self._walls.clock() > flight.deadline:
                self._flights.remove(flight)
                self._give_up_waiting(flight)

    def _give_up_waiting(self, flight: Flight) -> None:
        """A stuck job is aborted; what it saved is read from its results, the rest can be sent again."""
        log.warning("job %s is still %s after its deadline; it is aborted", flight.job.id, flight.job.state.value)
        flight.job = self._walls.bulk.abort(flight.job.id)
        if not flight.job.state.is_terminal:
            raise JobStuck(
                f"Job {flight.job.id} of range {self._planned.partition} is {flight.job.state.value} and cannot be aborted.",
                hint="Look at it in the org (Setup, Bulk Data Load Jobs); the next run adopts it.",
            )
        self._account(flight)

    def _account(self, flight: Flight) -> None:
        """Gives every row of the part its outcome, from the results of its job."""
        counts = self._outcomes(flight.part, flight.job)
        job = self._counted(flight, counts)
        self._walls.book.job_seen(flight.intent, job)
        self._walls.book.job_over(flight.intent, "accounted")
        if job.processed and job.processed != counts.succeeded + counts.failed:
            log.warning(
                "job %s counts %d rows processed, its result files name %d; the files count",
                job.id, job.processed, counts.succeeded + counts.failed,
            )  # fmt: skip
        self._on_rows(self._store.counts(self._expected), self._sent)
        log.info(
            "range %s part %d job %s %s: %d created, %d updated, %d failed, %d unprocessed",
            self._planned.partition, flight.part.number, job.id, job.state.value,
            counts.created, counts.updated, counts.failed, counts.unprocessed,
        )  # fmt: skip
        if job.state is JobState.FAILED and job.error.startswith(PERMANENT_JOB_ERRORS):
            raise RequestRefused(
                f"The org refused job {job.id} of range {self._planned.partition} as a whole: {job.error}",
                hint="Correct the mapping or the field's rights, then run the range again.",
            )

    def _counted(self, flight: Flight, counts: Counts) -> IngestJob:
        """The job with its counts, which the job list does not tell: the org is asked for them only when its result files
        leave rows out."""
        job, named = flight.job, counts.succeeded + counts.failed
        if job.processed:
            return job
        if named == flight.part.rows:
            return replace(job, processed=named, failed=counts.failed)
        return find_job(self._walls, job.id) or job

    def _outcomes(self, part: UploadPart, job: IngestJob) -> Counts:
        """Reads all three result sets and records them. Rows of results that cannot be read are not acknowledged."""
        reason = ""
        for tries_left in reversed(range(RESULT_TRIES)):
            try:
                with self._walls.bulk.results(job.id) as results, self._walls.holding():
                    return self._store.record_outcomes(
                        part,
                        job.id,
                        successes=results.successes,
                        failures=results.failures,
                        unprocessed=results.unprocessed,
                        transient=TRANSIENT,
                        matched=self._equality.matched,
                    )
            except RequestRefused as error:
                reason = error.message
                break
            except WireError as error:
                if not _came_whole(error):
                    raise
                reason = error.message
                if tries_left:
                    self._walls.sleep(self._walls.policy.poll_seconds)
        log.warning("the results of job %s cannot be read; its %d rows are sent again: %s", job.id, part.rows, reason)
        with self._walls.holding():
            return self._store.record_outcomes(
                part, job.id, successes=(), failures=(), unprocessed=(), transient=TRANSIENT
            )

    # jobs of a run that died

    def _adopt(self) -> None:
        """Takes over, finishes or aborts every job that an earlier run of this range left behind."""
        parts = {part.number: part for part in self._store.parts(open_only=False)}
        open_numbers = {part.number for part in self._store.parts(open_only=True)}
        left = self._walls.book.jobs(self._plan.plan_id, partition=self._planned.partition, open_only=True)
        abort_orphans(self._walls, left)
        for entry in left:
            part = parts.get(entry.part) if entry.generation == self._generation else None
            if not entry.job_id:
                self._walls.book.job_over(entry.intent, "dropped")
            elif part is not None and part.number not in open_numbers:
                self._walls.book.job_over(entry.intent, "accounted")
            elif part is None:
                end_job(self._walls, entry)
            elif (flight := self._taken_over(entry, part)) is not None:
                self._flights.append(flight)

    def _taken_over(self, entry: JobEntry, part: UploadPart) -> Flight | None:
        """The job of an open part flies on if it was closed; else it is dropped."""
        check_calls(self._walls, self._plan, calls=RESULT_CALLS)
        job = find_job(self._walls, entry.job_id)
        if job is not None and job.state is JobState.OPEN:
            # Whether the data arrived cannot be told, and a job takes only one upload.
            self._walls.bulk.abort(job.id)
            job = None
        if job is None:
            self._walls.book.job_over(entry.intent, "dropped")
            return None
        log.info("range %s: job %s (%s) is adopted", self._planned.partition, job.id, job.state.value)
        self._sent += part.rows
        return self._flight(part, entry.intent, job)


def apart_rows(rows: int, *, halvings: int) -> int:
    """How many of so many rows that met a limit of one transaction may share a job after so many halvings of a chunk."""
    return max(CHUNK_ROWS >> halvings, math.ceil(rows / APART_PARTS), 1)


def find_job(walls: Walls, job_id: str) -> IngestJob | None:
    """The job as the org describes it, or ``None`` when the org does not know it (any more)."""
    try:
        return walls.bulk.info(job_id)
    except RequestRefused as error:
        if error.status == FINDS_NOTHING:
            return None
        raise


def abort_orphans(walls: Walls, entries: list[JobEntry]) -> None:
    """Aborts jobs whose create-answer was lost: ours, Open, created after the intent, and in no entry of the book.

    It waits for its turn among those that create jobs, because a job that is being created is in no entry either.
    """
    if _lost(entries):
        with walls.book.turn("create", sleep=walls.sleep):
            _abort_lost(walls, entries)


def _abort_lost(walls: Walls, entries: list[JobEntry]) -> None:
    lost = _lost(entries)
    if not lost:
        return
    since = min(entry.intended_at for entry in lost) - CLOCK_SKEW
    for job in walls.bulk.jobs():
        # An org that names neither us nor the owner of a job has not said that it is ours.
        is_ours = job.created_by == walls.session.user_id != "" and job.object == walls.mapping.target_object
        is_open_upsert = job.operation == "upsert" and job.state is JobState.OPEN
        is_new = job.created_at is not None and job.created_at >= since
        if is_ours and is_open_upsert and is_new and not walls.book.knows_job(job.id):
            log.warning("job %s was created, but its answer was lost; it is aborted", job.id)
            walls.bulk.abort(job.id)


def _lost(entries: list[JobEntry]) -> list[JobEntry]:
    return [entry for entry in entries if not entry.job_id and not entry.is_over]


def end_job(walls: Walls, entry: JobEntry) -> None:
    """Aborts a job that nobody waits for any more and returns when the org has let go of it."""
    job = find_job(walls, entry.job_id)
    if job is not None and not job.state.is_terminal:
        _await_end(walls, walls.bulk.abort(job.id))
    walls.book.job_over(entry.intent, "dropped")


def _await_end(walls: Walls, job: IngestJob) -> None:
    """Returns when the job has ended; raises ``JobStuck`` when it does not."""
    deadline = walls.clock() + walls.policy.job_deadline_seconds
    pause = walls.policy.poll_seconds
    while not job.state.is_terminal:
        if walls.clock() > deadline:
            raise JobStuck(
                f"Job {job.id} of an earlier run is {job.state.value} and does not end.",
                hint="Abort it in the org (Setup, Bulk Data Load Jobs).",
            )
        walls.sleep(pause)
        pause = min(pause * 2, walls.policy.poll_seconds_max)
        job = walls.bulk.info(job.id)


def _came_whole(error: WireError) -> bool:
    """The org did answer, and its answer is of no use: another try brings the same, whatever the network does."""
    return isinstance(error, Unreadable) or (error.status is not None and error.status < 300)
