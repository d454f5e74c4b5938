"""Bulk API 2.0: ingest jobs that upsert one CSV each, their result files, and query jobs for the measurement.

Ingest: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/bulk_api_2_0_ingest.htm
Query: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/queries.htm
"""

from __future__ import annotations

import logging
import re
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs

import msgspec
import polars as pl

from sync_pipeline.domain.errors import (
    CredentialsError,
    JobStuck,
    LimitExceeded,
    RequestRefused,
    RightsError,
    Stopped,
    Unreadable,
    WireError,
)
from sync_pipeline.domain.ledger import IngestJob, JobState
from sync_pipeline.domain.mapping import Mapping
from sync_pipeline.salesforce.answer import Answer, BadAnswer, as_json, csv_into, nothing
from sync_pipeline.salesforce.csv_results import read_frames
from sync_pipeline.salesforce.csv_upload import render_csv as render_csv  # noqa: PLC0414  (handed on to the engine)
from sync_pipeline.salesforce.session import Session, path_part

log = logging.getLogger(__name__)

UPLOAD_BYTES = 1024 * 1024
"""Piece of a body that is read and sent at once."""
JOB_PAGES_MAX = 1000
"""Pages of the job list, and of the list of a result's pages; the org keeps jobs for 7 days."""
CLOSE_TRIES = 3
POLL_SECONDS = 0.25
"""First pause between two looks at a query job; it doubles up to ``POLL_SECONDS_MAX``."""
POLL_SECONDS_MAX = 15.0
QUERY_SECONDS = 2 * 3600.0
"""Time limit of a query job."""
SUCCESSES, FAILURES, UNPROCESSED = "successfulResults", "failedResults", "unprocessedrecords"
"""Names of a job's result sets."""
NO_LOCATOR = "null"
"""What ``Sforce-Locator`` says on the last page."""
PAGES_AT_ONCE = 3
"""Pages of a result on their way at the same time; each lies on disk until it is read."""


class JobJson(msgspec.Struct):
    """An ingest or query job as the org describes it; counts are missing while it is open, and jobs of others may lack
    anything (those of a query have no ``object``, for one)."""

    id: str | None = None
    state: str | None = None
    object: str | None = None
    operation: str | None = None
    createdDate: str | None = None
    createdById: str | None = None
    numberRecordsProcessed: int | None = None
    numberRecordsFailed: int | None = None
    retries: int | None = None
    totalProcessingTime: int | None = None
    errorMessage: str | None = None


class JobsJson(msgspec.Struct):
    """One page of the list of jobs."""

    records: list[JobJson]
    done: bool | None = None
    nextRecordsUrl: str | None = None


class PageJson(msgspec.Struct):
    """Where one page of a query job's result is."""

    resultUrl: str


class PagesJson(msgspec.Struct):
    """Where up to five pages are, and where the list goes on."""

    resultPages: list[PageJson]
    done: bool | None = None
    nextRecordsUrl: str | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """The three result sets of an ended job, as frames; see ``Bulk.successes``, ``failures`` and ``unprocessed``."""

    successes: Iterator[pl.DataFrame]
    failures: Iterator[pl.DataFrame]
    unprocessed: Iterator[pl.DataFrame]


class Bulk:
    """Jobs of the mapping's target object.

    ``spool`` is the folder for downloads, which are written to an unnamed private file before they are parsed, so that
    a download that broke off is repeated without having handed out a row. Default: the system's folder for such files.
    """

    def __init__(self, session: Session, mapping: Mapping, *, spool: Path | None = None) -> None:
        self._session = session
        self._object = mapping.target_object
        self._key = mapping.target_key
        self._spool = spool

    # Ingest jobs.

    def create(self) -> IngestJob:
        """A new job in state Open. Sent once: when the answer may be lost, ``WireError``, and a job may be left over."""
        return self._create("upsert", {"externalIdFieldName": self._key})

    def create_deletion(self) -> IngestJob:
        """As ``create``, a job that deletes the records whose ids are uploaded (header ``Id``) into the recycle bin."""
        return self._create("delete", {})

    def _create(self, operation: str, what: dict[str, str]) -> IngestJob:
        form = {"contentType": "CSV", "columnDelimiter": "COMMA", "lineEnding": "LF"}
        return self._session.send(
            "POST",
            "/jobs/ingest",
            endpoint="ingest create",
            json={"object": self._object, "operation": operation, **what, **form},
            repeat=False,
            read=_read_created,
        )

    def upload(self, job_id: str, path: Path) -> None:
        """Sends the file as the job's only body. A job takes one body: after ``WireError`` it must be aborted."""
        size = path.stat().st_size
        if size == 0:
            raise ValueError(f"{path} is empty, and a job without rows proves nothing")

        def body() -> Iterator[bytes]:
            with path.open("rb") as file:
                while piece := file.read(UPLOAD_BYTES):
                    yield piece
                    self._session.sleep(0)  # a place to be interrupted

        self._session.send(
            "PUT",
            f"/jobs/ingest/{path_part(job_id)}/batches",
            endpoint="ingest upload",
            headers={"Content-Type": "text/csv; charset=UTF-8", "Content-Length": str(size)},
            body=body,
            repeat=False,
            read=nothing,
        )

    def close(self, job_id: str) -> IngestJob:
        """Hands the job over to be processed. On a lost or odd answer the job's own state tells what happened."""
        attempt = 1
        while True:
            try:
                return self._change(job_id, JobState.UPLOAD_COMPLETE, repeat=False)
            except (WireError, RequestRefused) as error:
                job = self.info(job_id)
                if job.state is not JobState.OPEN:
                    return job
                if attempt == CLOSE_TRIES or isinstance(error, RequestRefused):
                    raise
            self._session.sleep(POLL_SECONDS * 2**attempt)
            attempt += 1

    def abort(self, job_id: str) -> IngestJob:
        """Aborts the job; one that has already ended stays as it is."""
        try:
            return self._change(job_id, JobState.ABORTED, repeat=True)
        except RequestRefused:
            job = self.info(job_id)
            if not job.state.is_terminal:
                raise
            return job

    def info(self, job_id: str) -> IngestJob:
        """The job's state and counters. Raises ``RequestRefused`` with status 404 when the org does not know it."""
        return self._session.send(
            "GET", f"/jobs/ingest/{path_part(job_id)}", endpoint="ingest poll", read=_job_of(job_id)
        )

    def jobs(self) -> Iterator[IngestJob]:
        """Every Bulk API 2.0 ingest job the org still lists, of all users; the list holds no counters."""
        for page in self.job_pages():
            yield from page

    def job_pages(self) -> Iterator[list[IngestJob]]:
        """The same jobs by the page, each of which is one call that is made when it is asked for."""
        locator: str | None = None
        seen: set[str] = set()
        while True:
            params = {"jobType": "V2Ingest", **({} if locator is None else {"queryLocator": locator})}
            page = self._session.send(
                "GET", "/jobs/ingest", endpoint="ingest list", params=params, read=as_json(JobsJson)
            )
            yield [job for record in page.records if (job := _listed(record)) is not None]
            if _is_last(page):
                return
            # Only the locator is taken from the URL, never the URL itself.
            locator = _parameters(page.nextRecordsUrl or "", ("queryLocator",)).get("queryLocator", "")
            if not locator or locator in seen or len(seen) >= JOB_PAGES_MAX:
                raise WireError("The list of ingest jobs does not come to an end.", hint="Try again.")
            seen.add(locator)

    @contextmanager
    def results(self, job_id: str) -> Iterator[Results]:
        """All that an ended job says of its rows: whole on disk when the block begins, parsed as its frames are taken."""
        with (
            self._downloaded(job_id, SUCCESSES) as saved,
            self._downloaded(job_id, FAILURES) as refused,
            self._downloaded(job_id, UNPROCESSED) as left,
        ):
            yield Results(self._saved(saved, job_id), self._refused(refused), self._left(left))

    def successes(self, job_id: str) -> Iterator[pl.DataFrame]:
        """Rows that were saved: ``key``, ``id`` (String), ``created`` (Boolean). No frame when there is no row."""
        with self._downloaded(job_id, SUCCESSES) as file:
            yield from self._saved(file, job_id)

    def failures(self, job_id: str) -> Iterator[pl.DataFrame]:
        """Rows that were refused: ``key``, ``id`` (empty for a refused insert), ``error``, all String."""
        with self._downloaded(job_id, FAILURES) as file:
            yield from self._refused(file)

    def unprocessed(self, job_id: str) -> Iterator[pl.DataFrame]:
        """Rows the job never came to: ``key``."""
        with self._downloaded(job_id, UNPROCESSED) as file:
            yield from self._left(file)

    def deleted(self, job_id: str) -> Iterator[pl.DataFrame]:
        """Records that a deletion took away: ``id``."""
        with self._downloaded(job_id, SUCCESSES) as file:
            yield from _texts(file, {"id": "sf__Id"})

    def not_deleted(self, job_id: str) -> Iterator[pl.DataFrame]:
        """Records that a deletion was refused for: ``id`` and ``error``."""
        with self._downloaded(job_id, FAILURES) as file:
            yield from _texts(file, {"id": "Id", "error": "sf__Error"})

    def _saved(self, file: IO[bytes], job_id: str) -> Iterator[pl.DataFrame]:
        for frame in _texts(file, {"key": self._key, "id": "sf__Id", "created": "sf__Created"}):
            created = frame.get_column("created").str.to_lowercase()
            if not created.is_in(["true", "false"]).all():
                raise Unreadable(f"Job {job_id}: sf__Created is neither true nor false.", hint="Run it again.")
            yield frame.with_columns(created=created == "true")

    def _refused(self, file: IO[bytes]) -> Iterator[pl.DataFrame]:
        return _texts(file, {"key": self._key, "id": "sf__Id", "error": "sf__Error"})

    def _left(self, file: IO[bytes]) -> Iterator[pl.DataFrame]:
        return _texts(file, {"key": self._key})

    @contextmanager
    def _downloaded(self, job_id: str, name: str) -> Iterator[IO[bytes]]:
        with self._spooled() as file:
            self._session.send(
                "GET",
                f"/jobs/ingest/{path_part(job_id)}/{name}",
                endpoint="ingest results",
                headers={"Accept": "text/csv"},
                read=csv_into(file, between=self._interruptible),
            )
            yield file

    def _change(self, job_id: str, state: JobState, *, repeat: bool) -> IngestJob:
        """The job as it is after the change; when the answer does not say, the org is asked for it."""
        record = self._session.send(
            "PATCH",
            f"/jobs/ingest/{path_part(job_id)}",
            endpoint="ingest close",
            json={"state": str(state)},
            repeat=repeat,
            read=as_json(JobJson),
        )
        return self.info(job_id) if record.state is None else _job(job_id, _state(job_id, record.state), record)

    # Query jobs.

    def query(
        self, soql: str, *, page_rows: int = 250_000, on_page: Callable[[int], None] | None = None
    ) -> Iterator[pl.DataFrame]:
        """The rows of a SOQL query in no order, all columns String, named as the query selects them; empty is null.

        Pages are downloaded side by side where the org says in advance where each of them is, else one after the other,
        of ``page_rows`` rows each. ``on_page`` is told the rows received so far. The job is deleted at the end. Raises
        ``WireError`` when a page or the whole has not the rows that the org announced, ``RequestRefused`` when the job
        failed, ``JobStuck`` when it took longer than 2 hours.

        Parallel results: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/query_get_parallel_results.htm
        """
        created = self._session.send(
            "POST",
            "/jobs/query",
            endpoint="query job",
            json={"operation": "query", "query": soql, "contentType": "CSV", "lineEnding": "LF"},
            read=_read_created,
        )
        try:
            job = self._finished(created.id)
            places = self._page_places(created.id)
            pages = self._in_turn(created.id, page_rows) if places is None else self._side_by_side(created.id, places)
            rows = 0
            with closing(pages):
                for file, announced in pages:
                    for frame in _counted(_named(read_frames(file), selected(soql)), announced, job.id):
                        rows += frame.height
                        yield frame
                    if on_page is not None:
                        on_page(rows)
            # Pages that were named in advance could overlap; those that follow one another cannot.
            if rows < job.processed or (places is not None and rows > job.processed):
                raise WireError(
                    f"Query job {job.id} found {job.processed} rows, but {rows} came.", hint="Run it again."
                )
        finally:
            self._delete_query(created.id)

    def _finished(self, job_id: str) -> IngestJob:
        deadline = self._session.clock() + QUERY_SECONDS
        pause = POLL_SECONDS
        while True:
            job = self._session.send(
                "GET", f"/jobs/query/{path_part(job_id)}", endpoint="query job", read=_query_of(job_id)
            )
            if job.state is JobState.JOB_COMPLETE:
                return job
            if job.state.is_terminal:
                reason = job.error or "no reason given"
                raise RequestRefused(f"Query job {job_id} ended as {job.state}: {reason}.", code=str(job.state))
            if self._session.clock() > deadline:
                raise JobStuck(
                    f"Query job {job_id} is still {job.state} after {QUERY_SECONDS:.0f} s.", hint="Run it again."
                )
            self._session.sleep(pause)
            pause = min(pause * 2, POLL_SECONDS_MAX)

    def _page_places(self, job_id: str) -> list[dict[str, str]] | None:
        """What to ask for each page of a result; ``None`` where the API (before version 58) does not tell."""
        places: list[dict[str, str]] = []
        locator, seen = "", set[str]()
        while True:
            try:
                listed = self._session.send(
                    "GET",
                    f"/jobs/query/{path_part(job_id)}/resultPages",
                    endpoint="query results",
                    params={"locator": locator} if locator else {},
                    read=as_json(PagesJson),
                )
            except RequestRefused:
                if places:
                    raise
                return None
            # Only the parameters are taken from a URL, never the URL itself.
            places += [_parameters(page.resultUrl, ("locator", "maxRecords")) for page in listed.resultPages]
            if _is_last(listed):
                break
            locator = _parameters(listed.nextRecordsUrl or "", ("locator",)).get("locator", "")
            if not locator or locator in seen or len(seen) >= JOB_PAGES_MAX:
                raise WireError(
                    f"Query job {job_id}: the list of its pages does not come to an end.", hint="Try again."
                )
            seen.add(locator)
        if len({tuple(place.items()) for place in places}) != len(places):
            raise WireError(f"Query job {job_id}: one page is listed twice.", hint="Run it again.")
        return places

    def _side_by_side(
        self, job_id: str, places: Sequence[dict[str, str]]
    ) -> Generator[tuple[IO[bytes], int], None, None]:
        """Some pages at once, each handed out when it is whole."""
        left = iter(places)
        over = threading.Event()
        flying: set[Future[tuple[IO[bytes], int]]] = set()

        def download(place: dict[str, str]) -> tuple[IO[bytes], int]:
            file = self._spooled()
            try:
                _, announced = self._page(job_id, place, file, between=lambda: _unless(over))
            except BaseException:
                file.close()
                raise
            return file, announced

        try:
            with ThreadPoolExecutor(max_workers=PAGES_AT_ONCE, thread_name_prefix="pages") as pool:
                try:
                    while True:
                        flying |= {pool.submit(download, place) for place in islice(left, PAGES_AT_ONCE - len(flying))}
                        if not flying:
                            return
                        for future in wait(flying, return_when=FIRST_COMPLETED).done:
                            flying.remove(future)
                            file, announced = future.result()
                            with file:
                                yield file, announced
                finally:
                    over.set()
        finally:
            for future in flying:  # whole, but nobody reads them any more
                if future.exception() is None:
                    future.result()[0].close()

    def _in_turn(self, job_id: str, page_rows: int) -> Generator[tuple[IO[bytes], int], None, None]:
        """One page after the other, each of which says where the next one is."""
        locator, seen = "", set[str]()
        while locator != NO_LOCATOR:
            params = {"maxRecords": str(page_rows), **({"locator": locator} if locator else {})}
            with self._spooled() as file:
                locator, announced = self._page(job_id, params, file, between=lambda: None)
                if not locator or locator in seen:
                    raise WireError(f"Query job {job_id}: a page without a usable locator.", hint="Run it again.")
                seen.add(locator)
                yield file, announced

    def _page(
        self, job_id: str, params: dict[str, str], file: IO[bytes], *, between: Callable[[], None]
    ) -> tuple[str, int]:
        """Downloads one page into the file; gives the locator of the next one and how many rows it should have."""

        def pause() -> None:
            between()
            self._session.sleep(0)  # a place to be interrupted

        headers = self._session.send(
            "GET",
            f"/jobs/query/{path_part(job_id)}/results",
            endpoint="query results",
            params=params,
            headers={"Accept": "text/csv"},
            read=csv_into(file, between=pause),
        )
        announced = headers.get("sforce-numberofrecords", "")
        if not re.fullmatch(r"[0-9]{1,15}", announced):
            raise WireError(f"Query job {job_id}: a page that does not say how many rows it has.", hint="Run it again.")
        return headers.get("sforce-locator", ""), int(announced)

    def _delete_query(self, job_id: str) -> None:
        """Deletes the query job, aborting it first if it still runs; the org would delete it after 7 days."""
        path = f"/jobs/query/{path_part(job_id)}"
        try:
            try:
                self._session.send("DELETE", path, endpoint="query job", read=nothing)
            except RequestRefused:
                self._session.send("PATCH", path, endpoint="query job", json={"state": "Aborted"}, read=nothing)
                self._session.send("DELETE", path, endpoint="query job", read=nothing)
        except (WireError, RequestRefused, RightsError, LimitExceeded, CredentialsError) as error:
            log.debug("query job %s was not deleted: %s", job_id, error.message)

    def _spooled(self) -> IO[bytes]:
        return tempfile.TemporaryFile(dir=self._spool, prefix="sync-pipeline-")

    def _interruptible(self) -> None:
        self._session.sleep(0)


def _texts(file: IO[bytes], wanted: dict[str, str]) -> Iterator[pl.DataFrame]:
    for frame in read_frames(file, wanted):
        yield frame.with_columns(pl.all().fill_null(""))


def selected(soql: str) -> list[str]:
    """The columns of a query's SELECT list, in order."""
    found = re.match(r"\s*select\s+(.+?)\s+from\s", soql, re.IGNORECASE | re.DOTALL)
    if found is None:
        raise ValueError(f"not a query: {soql[:80]!r}")
    return [column.strip() for column in found[1].split(",")]


def _named(frames: Iterator[pl.DataFrame], names: list[str]) -> Iterator[pl.DataFrame]:
    """The frames with their columns in the letter case of the query, and empty text as null (the file cannot tell)."""
    by_lower = {name.lower(): name for name in names}
    for frame in frames:
        renamed = {column: by_lower.get(column.lower(), column) for column in frame.columns}
        missing = sorted(set(names) - set(renamed.values()))
        if missing:
            raise WireError(f"The result of a query has no column {', '.join(missing)}.", hint="Run it again.")
        yield frame.rename(renamed).select(pl.col(names).replace("", None))


def _parameters(url: str, names: Sequence[str]) -> dict[str, str]:
    """Those parameters of a URL that it has."""
    given = parse_qs(url.partition("?")[2])
    return {name: given[name][0] for name in names if name in given}


def _unless(over: threading.Event) -> None:
    if over.is_set():
        raise Stopped("The result of a query is not wanted any more.")


def _counted(frames: Iterator[pl.DataFrame], announced: int, job_id: str) -> Iterator[pl.DataFrame]:
    rows = 0
    for frame in frames:
        rows += frame.height
        yield frame
    if rows != announced:
        raise WireError(f"Query job {job_id}: a page of {announced} rows came with {rows}.", hint="Run it again.")


def _is_last(page: JobsJson | PagesJson) -> bool:
    return page.nextRecordsUrl is None if page.done is None else page.done


def _read_created(answer: Answer) -> IngestJob:
    """A job that was just made: of what the answer says of it only its id is needed."""
    record = as_json(JobJson)(answer)
    if not record.id:
        raise BadAnswer("an answer that has no `id`")
    return _job(record.id, JobState.OPEN, record)


def _job_of(job_id: str) -> Callable[[Answer], IngestJob]:
    """Reads the answer for one of our own jobs."""

    def read(answer: Answer) -> IngestJob:
        record = as_json(JobJson)(answer)
        if record.state is None:
            raise BadAnswer("an answer that has no `state`")
        return _job(job_id, _state(job_id, record.state), record)

    return read


def _query_of(job_id: str) -> Callable[[Answer], IngestJob]:
    """The same for a query job, whose rows are counted against what the org says of it."""

    def read(answer: Answer) -> IngestJob:
        record = as_json(JobJson)(answer)
        if record.state is None:
            raise BadAnswer("an answer that has no `state`")
        job = _job(job_id, _state(job_id, record.state), record)
        if job.state is JobState.JOB_COMPLETE and record.numberRecordsProcessed is None:
            raise BadAnswer("an answer that has no `numberRecordsProcessed`")
        return job

    return read


def _state(job_id: str, word: str) -> JobState:
    """The state of one of our own jobs. One that is not known here is no end of it: the job is waited for."""
    try:
        return JobState(word)
    except ValueError:
        log.warning("job %s is in the unknown state %s; it is waited for", job_id, word)
        return JobState.IN_PROGRESS


def _listed(record: JobJson) -> IngestJob | None:
    """A job of anybody's, or ``None`` when it is of no kind that is known here."""
    if not record.id or record.state not in set(JobState):
        log.debug("the list of ingest jobs names %s in the state %s; it is skipped", record.id, record.state)
        return None
    return _job(record.id, JobState(record.state), record)


def _job(job_id: str, state: JobState, record: JobJson) -> IngestJob:
    return IngestJob(
        id=job_id,
        state=state,
        object=record.object or "",
        operation=record.operation or "",
        created_at=_instant(record.createdDate or ""),
        created_by=record.createdById or "",
        processed=record.numberRecordsProcessed or 0,
        failed=record.numberRecordsFailed or 0,
        retries=record.retries or 0,
        processing_ms=record.totalProcessingTime or 0,
        error=record.errorMessage or "",
    )


def _instant(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z")
    except ValueError:
        return None
