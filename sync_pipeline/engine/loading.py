"""Loads one staged range into the org by ingest jobs, until every row has an outcome.

The intent stands in the book before each remote act and its result after it, so that a run killed at any instant leaves
a trail: the next one adopts, finishes or aborts the exact job. ``JobComplete`` proves nothing; a row has succeeded when
a result set names it. Rows whose failure can pass are sent again in rounds that shrink, at last one job at a time for
the whole night.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import polars as pl

from sync_pipeline.domain.errors import CapReached, JobStuck, RequestRefused, StateError, SyncError, WireError
from sync_pipeline.domain.ledger import Counts, IngestJob, JobState, UploadPart
from sync_pipeline.domain.night import JobEntry
from sync_pipeline.domain.plan import Plan, PlannedRange
from sync_pipeline.engine.walls import Walls
from sync_pipeline.salesforce.bulk import TRANSIENT_CODES, render_csv
from sync_pipeline.staging.range_store import RangeStore, Which

log = logging.getLogger(__name__)

CREATE_TRIES = 3
"""How often a part is given a new job because create or upload was cut off; more is a broken network."""
CLOCK_SKEW = timedelta(minutes=5)
"""How far the org's clock may lag behind ours when an orphaned job is looked for."""
SMALLEST_CAP = 200
"""Rows below which a share of failed rows says nothing."""
PERMANENT_JOB_ERRORS = ("InvalidBatch", "ClientInputError")
"""Job errors that the same file would meet again."""
FINDS_NOTHING = 404


@dataclass
class Flight:
    """A part whose job the org works on. ``due`` and ``deadline`` are readings of the monotonic clock."""

    part: UploadPart
    intent: int
    job: IngestJob
    pause: float
    due: float
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
        generation: int,
        expected: int,
        on_rows: Callable[[Counts, int], None],
    ) -> None:
        self._walls = walls
        self._plan = plan
        self._planned = planned
        self._store = store
        self._generation = generation
        self._expected = expected
        self._on_rows = on_rows
        self._sent = 0
        self._flights: list[Flight] = []

    def load(self) -> None:
        """Brings every staged row to an outcome; what is left at the end is final and named with its reason."""
        self._adopt()
        with self._walls.slots.load:
            if self._store.rounds == 0:
                self._cut(which="all", serial=False)
            self._finish_rounds()

    def repair(self, keys: pl.DataFrame) -> None:
        """Sends the rows with these keys once more, by parts of their own."""
        self._adopt()
        with self._walls.slots.load:
            self._cut(which="keys", serial=False, keys=keys)
            self._finish_rounds()

    def _finish_rounds(self) -> None:
        policy = self._walls.policy
        first_round = max((part.round for part in self._store.parts(open_only=True)), default=0)
        while True:
            self._send_open_parts()
            left = self._store.transient()
            if left == 0:
                break
            tried = self._store.rounds - 1 - first_round
            if tried >= policy.retry_rounds:
                log.warning("range %s: %d rows left after %d rounds", self._planned.partition, left, tried)
                break
            log.info("range %s: %d rows can be sent again, round %d", self._planned.partition, left, tried + 1)
            self._walls.sleep(min(policy.poll_seconds * 2**tried, policy.poll_seconds_max))
            self._cut(which="transient", serial=tried + 1 == policy.retry_rounds)
        self._store.settle()

    def _cut(self, *, which: Which, serial: bool, keys: pl.DataFrame | None = None) -> None:
        """Puts the rows in parent order and writes them as CSV parts, all of a round at once."""
        policy = self._walls.policy
        halvings = self._store.rounds if which == "transient" else 0
        part_rows = policy.batch_rows if serial else max(policy.part_rows >> halvings, policy.batch_rows)
        with self._walls.slots.sort:
            self._walls.interruption.check()
            self._store.cut_round(
                which=which,
                keys=keys,
                group_by=self._walls.mapping.group_by,
                start_fraction=self._planned.place / max(len(self._plan.ranges), 1),
                part_rows=part_rows,
                part_bytes=policy.part_bytes,
                heavy_rows=policy.batch_rows,
                serial=serial,
                render=self._render,
            )

    def _render(self, frame: pl.DataFrame, path: Path) -> tuple[int, int]:
        return render_csv(frame, self._walls.mapping, path)

    def _send_open_parts(self) -> None:
        in_flight = {flight.part.number for flight in self._flights}
        waiting = [part for part in self._store.parts(open_only=True) if part.number not in in_flight]
        for part in (part for part in waiting if not part.serial):
            self._flights.append(self._launch(part))
        self._land_all()
        for part in (part for part in waiting if part.serial):
            with self._only_one("serial"):
                self._flights.append(self._launch(part))
                self._land_all()

    @contextmanager
    def _only_one(self, name: str) -> Iterator[None]:
        with self._walls.book.turn(name, sleep=self._walls.sleep):
            yield

    # one job

    def _launch(self, part: UploadPart) -> Flight:
        """Creates a job for the part, uploads and closes it. A job whose upload has an unknown fate is aborted."""
        last: SyncError | None = None
        for _ in range(CREATE_TRIES):
            self._walls.interruption.check()
            with self._only_one("create"):
                intent = self._walls.book.intend_job(
                    self._plan.plan_id,
                    self._planned.partition,
                    generation=self._generation,
                    part=part.number,
                    round=part.round,
                    rows=part.rows,
                    serial=part.serial,
                )
                try:
                    job = self._walls.bulk.create()
                except WireError as error:
                    last = error
                    abort_orphans(
                        self._walls, self._walls.book.jobs(self._plan.plan_id, partition=self._planned.partition)
                    )
                    self._walls.book.job_over(intent, "dropped")
                    continue
                self._walls.book.job_created(intent, job.id)
            try:
                self._walls.bulk.upload(job.id, self._store.part_file(part))
                job = self._walls.bulk.close(job.id)
            except (WireError, RequestRefused) as error:
                last = error
                log.warning("job %s of range %s: %s; it is aborted", job.id, self._planned.partition, error.message)
                self._walls.bulk.abort(job.id)
                self._walls.book.job_over(intent, "dropped")
                continue
            self._walls.book.job_seen(intent, job)
            self._sent += part.rows
            self._on_rows(self._store.counts(self._expected), self._sent)
            log.info(
                "range %s part %d round %d: %d rows sent as job %s",
                self._planned.partition, part.number, part.round, part.rows, job.id,
            )  # fmt: skip
            return self._flight(part, intent, job)
        raise WireError(
            f"Part {part.number} of range {self._planned.partition} could not be handed over in {CREATE_TRIES} tries: {last}",
            hint="It is kept and sent again by the next run.",
        )

    def _flight(self, part: UploadPart, intent: int, job: IngestJob) -> Flight:
        now = self._walls.clock()
        pause = self._walls.policy.poll_seconds
        return Flight(part, intent, job, pause, now + pause, now + self._walls.policy.job_deadline_seconds)

    def _land_all(self) -> None:
        """Waits for every job in flight and records its outcomes as it ends."""
        while self._flights:
            flight = min(self._flights, key=lambda f: f.due)
            self._walls.sleep(max(flight.due - self._walls.clock(), 0.0))
            flight.job = self._walls.bulk.info(flight.job.id)
            self._walls.book.job_seen(flight.intent, flight.job)
            if flight.job.state.is_terminal:
                self._flights.remove(flight)
                self._account(flight)
                continue
            now = self._walls.clock()
            if now > flight.deadline:
                self._flights.remove(flight)
                self._give_up_waiting(flight)
                continue
            flight.pause = min(flight.pause * 2, self._walls.policy.poll_seconds_max)
            flight.due = now + flight.pause

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
        """Reads all three result sets and gives every row of the part its outcome."""
        job, bulk = flight.job, self._walls.bulk
        try:
            counts = self._store.record_outcomes(
                flight.part,
                job.id,
                successes=bulk.successes(job.id),
                failures=bulk.failures(job.id),
                unprocessed=bulk.unprocessed(job.id),
                transient=TRANSIENT_CODES,
            )
        except RequestRefused as error:
            if error.status != FINDS_NOTHING:
                raise
            log.warning("the results of job %s are gone; its %d rows are sent again", job.id, flight.part.rows)
            counts = self._store.record_outcomes(
                flight.part, job.id, successes=(), failures=(), unprocessed=(), transient=TRANSIENT_CODES
            )
        self._walls.book.job_over(flight.intent, "accounted")
        if job.processed and job.processed != counts.succeeded + counts.failed:
            log.warning(
                "job %s counts %d rows processed, its result files name %d; the files count",
                job.id, job.processed, counts.succeeded + counts.failed,
            )  # fmt: skip
        total = self._store.counts(self._expected)
        self._on_rows(total, self._sent)
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
        lost = total.failed + total.unprocessed - self._store.transient()
        if total.staged >= SMALLEST_CAP and lost > total.staged * self._walls.policy.failed_share_max:
            raise CapReached(
                f"Range {self._planned.partition}: the org refuses {lost} of {total.staged} rows.",
                hint="See why with `sync-pipeline rejects`; SYNC_FAILED_SHARE_MAX raises the cap.",
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
            else:
                self._take_over(entry, part)

    def _take_over(self, entry: JobEntry, part: UploadPart) -> None:
        job = find_job(self._walls, entry.job_id)
        if job is None:
            self._walls.book.job_over(entry.intent, "dropped")
        elif job.state is JobState.OPEN:
            # Whether the data arrived cannot be told, and a job takes only one upload.
            self._walls.bulk.abort(job.id)
            self._walls.book.job_over(entry.intent, "dropped")
        else:
            log.info("range %s: job %s (%s) is adopted", self._planned.partition, job.id, job.state.value)
            self._sent += part.rows
            flight = self._flight(part, entry.intent, job)
            if job.state.is_terminal:
                self._account(flight)
            else:
                self._flights.append(flight)


def find_job(walls: Walls, job_id: str) -> IngestJob | None:
    """The job as the org describes it, or ``None`` when the org does not know it (any more)."""
    try:
        return walls.bulk.info(job_id)
    except RequestRefused as error:
        if error.status == FINDS_NOTHING:
            return None
        raise


def abort_orphans(walls: Walls, entries: list[JobEntry]) -> None:
    """Aborts jobs whose create-answer was lost: ours, Open, created after the intent, and in no entry of the book."""
    lost = [entry for entry in entries if not entry.job_id and not entry.is_over]
    if not lost:
        return
    since = min(entry.intended_at for entry in lost) - CLOCK_SKEW
    for job in walls.bulk.jobs():
        is_ours = job.created_by == walls.session.user_id and job.object == walls.mapping.target_object
        is_upsert = job.operation == "upsert" and job.state is JobState.OPEN
        if is_ours and is_upsert and job.created_at is not None and job.created_at >= since:
            if not walls.book.knows_job(job.id):
                log.warning("job %s was created, but its answer was lost; it is aborted", job.id)
                walls.bulk.abort(job.id)


def end_job(walls: Walls, entry: JobEntry) -> None:
    """Aborts a job that nobody waits for any more and returns when the org has let go of it."""
    job = find_job(walls, entry.job_id)
    if job is not None and not job.state.is_terminal:
        job = walls.bulk.abort(job.id)
        deadline = walls.clock() + walls.policy.job_deadline_seconds
        while not job.state.is_terminal:
            if walls.clock() > deadline:
                raise StateError(
                    f"Job {job.id} of an earlier run is {job.state.value} and does not end.",
                    hint="Abort it in the org (Setup, Bulk Data Load Jobs).",
                )
            walls.sleep(walls.policy.poll_seconds)
            job = walls.bulk.info(job.id)
    walls.book.job_over(entry.intent, "dropped")
