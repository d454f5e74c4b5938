"""Bulk API 2.0: the life of a job when answers get lost, results in every form the org has, and query jobs to the last row."""

from __future__ import annotations

import csv
import gc
import gzip
import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.domain.errors import CredentialsError, JobStuck, RequestRefused, Stopped, WireError
from sync_pipeline.domain.ledger import IngestJob, JobState
from sync_pipeline.domain.mapping import FieldMapping, FieldType, Mapping
from sync_pipeline.salesforce.bulk import UPLOAD_BYTES, Bulk, selected
from sync_pipeline_tests.salesforce.conftest import (
    EXPIRED,
    USER_ID,
    Piecewise,
    Server,
    Wire,
    abandoned,
    access_token,
    answers,
    bearer,
    body_of,
    never,
    path_of,
)

JOB = "7505e000001ABCDAA2"
INGEST = "/services/data/v66.0/jobs/ingest"
QUERY = "/services/data/v66.0/jobs/query"
CSV = {"Content-Type": "text/csv; charset=UTF-8"}
MAPPING = Mapping(
    source_object="ExtOpportunities__dlm",
    source_key="ExternalId__c",
    target_object="Opportunity",
    target_key="External_ID__c",
    fields=(FieldMapping("Name__c", "Name", FieldType.TEXT),),
)
LOST: list[httpx.Response | Exception] = [
    httpx.Response(500, json=[{"errorCode": "UNKNOWN_EXCEPTION", "message": "id 12345"}]),
    httpx.Response(503, html="<html>maintenance</html>"),
    httpx.Response(408),
    httpx.ReadTimeout("slow"),
    httpx.RemoteProtocolError("closed"),
    httpx.WriteError("reset"),
    httpx.Response(200, html="<html>a page of a proxy</html>"),
]


def bulk(wire: Wire, *, spool: Path | None = None) -> Bulk:
    return Bulk(wire.session, MAPPING, spool=spool)


def job(state: str, **more: Any) -> httpx.Response:
    return httpx.Response(200, json=job_json(state, **more))


def job_json(state: str, **more: Any) -> dict[str, Any]:
    """An ingest job in the order of the documents."""
    return {
        "id": JOB,
        "operation": "upsert",
        "object": "Opportunity",
        "createdById": USER_ID,
        "createdDate": "2026-01-02T21:57:03.000+0000",
        "systemModstamp": "2026-01-02T21:57:03.000+0000",
        "state": state,
        "externalIdFieldName": "External_ID__c",
        "concurrencyMode": "Parallel",
        "contentType": "CSV",
        "apiVersion": 66.0,
        "lineEnding": "LF",
        "columnDelimiter": "COMMA",
        **more,
    }


def refusal(status: int, code: str, message: str = "no") -> httpx.Response:
    return httpx.Response(status, json=[{"errorCode": code, "message": message}])


# create


def test_a_job_upserts_one_csv_by_the_key_of_the_mapping() -> None:
    wire = Wire(answers(job("Open", contentUrl=f"services/data/v66.0/jobs/ingest/{JOB}/batches")))

    created = bulk(wire).create()

    assert wire.sent == [("POST", INGEST)]
    assert body_of(wire.requests[0]) == {
        "object": "Opportunity",
        "operation": "upsert",
        "externalIdFieldName": "External_ID__c",
        "contentType": "CSV",
        "columnDelimiter": "COMMA",
        "lineEnding": "LF",
    }
    assert created == IngestJob(
        id=JOB,
        state=JobState.OPEN,
        object="Opportunity",
        operation="upsert",
        created_at=datetime(2026, 1, 2, 21, 57, 3, tzinfo=UTC),
        created_by=USER_ID,
    )


@pytest.mark.parametrize("lost", LOST)
def test_a_create_whose_answer_may_be_lost_is_sent_once(lost: httpx.Response | Exception) -> None:
    """A second one would leave a job that nobody knows."""
    wire = Wire(answers(lost))

    with pytest.raises(WireError):
        bulk(wire).create()

    assert len(wire.requests) == 1


@pytest.mark.parametrize(
    "nothing", [httpx.ConnectError("refused"), httpx.Response(429), refusal(401, "INVALID_SESSION_ID")]
)
def test_a_create_that_did_not_reach_the_org_is_sent_again(nothing: httpx.Response | Exception) -> None:
    wire = Wire(answers(nothing, job("Open")))

    assert bulk(wire).create().state is JobState.OPEN


def test_a_refused_create_says_why() -> None:
    reason = "InvalidJob : Field name provided, X does not match an External ID"
    wire = Wire(answers(refusal(400, "INVALIDJOB", reason)))

    with pytest.raises(RequestRefused, match=reason) as refused:
        bulk(wire).create()

    assert (refused.value.status, refused.value.code) == (400, "INVALIDJOB")


# upload


@pytest.fixture
def part(tmp_path: Path) -> Path:
    path = tmp_path / "part-00001.csv"
    path.write_bytes(b"External_ID__c,Name\n" + b'key0000001,"One, two"\n' * 60_000)
    assert path.stat().st_size > UPLOAD_BYTES
    return path


def test_a_file_is_sent_as_it_is_with_its_length(part: Path) -> None:
    wire = Wire(answers(httpx.Response(201)))

    bulk(wire).upload(JOB, part)

    request = wire.requests[0]
    assert wire.sent == [("PUT", f"{INGEST}/{JOB}/batches")]
    assert request.headers["content-type"] == "text/csv; charset=UTF-8"
    assert request.headers["content-length"] == str(part.stat().st_size)
    assert "transfer-encoding" not in request.headers
    assert "content-encoding" not in request.headers
    assert request.content == part.read_bytes()


@pytest.mark.parametrize("lost", LOST[:-1])
def test_a_second_upload_is_never_sent(part: Path, lost: httpx.Response | Exception) -> None:
    """A job takes one body: two make it fail, and whether the first arrived cannot be seen."""
    wire = Wire(answers(lost))

    with pytest.raises(WireError):
        bulk(wire).upload(JOB, part)

    assert wire.sent == [("PUT", f"{INGEST}/{JOB}/batches")]


def test_an_upload_with_an_expired_token_is_sent_again_from_its_start(part: Path) -> None:
    wire = Wire(answers(httpx.Response(401, json=EXPIRED), httpx.Response(201)))

    bulk(wire).upload(JOB, part)

    assert [bearer(request) for request in wire.requests] == [access_token(1), access_token(2)]
    assert [request.content for request in wire.requests] == [part.read_bytes()] * 2


def test_a_file_without_rows_is_not_uploaded(tmp_path: Path) -> None:
    path = tmp_path / "part-00001.csv"
    path.touch()

    with pytest.raises(ValueError, match="a job without rows proves nothing"):
        bulk(Wire(never)).upload(JOB, path)


def test_an_upload_can_be_interrupted_between_its_pieces(part: Path) -> None:
    wire = Wire(never)
    wire.is_interrupted = True

    with pytest.raises(Stopped):
        bulk(wire).upload(JOB, part)


# close


def test_a_closed_job_is_handed_over() -> None:
    wire = Wire(answers(job("UploadComplete")))

    assert bulk(wire).close(JOB).state is JobState.UPLOAD_COMPLETE

    assert wire.sent == [("PATCH", f"{INGEST}/{JOB}")]
    assert body_of(wire.requests[0]) == {"state": "UploadComplete"}


@pytest.mark.parametrize("state", ["UploadComplete", "InProgress", "JobComplete", "Failed", "Aborted"])
@pytest.mark.parametrize("lost", [*LOST, refusal(400, "INVALIDJOBSTATE"), refusal(409, "API_ERROR")])
def test_after_a_lost_or_odd_answer_the_job_itself_tells_what_happened(
    lost: httpx.Response | Exception, state: str
) -> None:
    wire = Wire(answers(lost, job(state)))

    assert bulk(wire).close(JOB).state is JobState(state)

    assert [method for method, _ in wire.sent] == ["PATCH", "GET"]


def test_a_job_that_is_still_open_is_closed_again_after_a_pause() -> None:
    lost = httpx.ReadTimeout("slow")
    wire = Wire(answers(lost, job("Open"), lost, job("Open"), job("UploadComplete")))

    assert bulk(wire).close(JOB).state is JobState.UPLOAD_COMPLETE

    assert [method for method, _ in wire.sent] == ["PATCH", "GET", "PATCH", "GET", "PATCH"]
    assert wire.pauses == [0.5, 1.0]


def test_a_job_that_cannot_be_closed_is_given_up_after_three_times() -> None:
    wire = Wire(answers(*[httpx.Response(503), job("Open")] * 3))

    with pytest.raises(WireError):
        bulk(wire).close(JOB)

    assert [method for method, _ in wire.sent] == ["PATCH", "GET"] * 3


def test_an_org_that_refuses_to_close_a_job_is_not_asked_again() -> None:
    reason = "Found multipe contents for job: <750>, please 'Close' / 'Abort' / 'Delete' the current Job"
    wire = Wire(answers(refusal(400, "INVALIDJOB", reason), job("Open")))

    with pytest.raises(RequestRefused, match="multipe contents"):
        bulk(wire).close(JOB)

    assert [method for method, _ in wire.sent] == ["PATCH", "GET"]


# abort and look


def test_an_aborted_job_is_aborted() -> None:
    wire = Wire(answers(httpx.Response(503), job("Aborted")))

    assert bulk(wire).abort(JOB).state is JobState.ABORTED

    assert wire.sent == [("PATCH", f"{INGEST}/{JOB}")] * 2
    assert body_of(wire.requests[0]) == {"state": "Aborted"}


@pytest.mark.parametrize("state", ["JobComplete", "Failed", "Aborted"])
def test_a_job_that_has_ended_stays_as_it_is(state: str) -> None:
    refused = refusal(400, "INVALIDJOBSTATE", "Aborting already Completed Job not allowed")
    wire = Wire(answers(refused, job(state, numberRecordsProcessed=7, numberRecordsFailed=2)))

    ended = bulk(wire).abort(JOB)

    assert (ended.state, ended.processed, ended.failed) == (JobState(state), 7, 2)


def test_a_running_job_that_may_not_be_aborted_is_an_error() -> None:
    wire = Wire(answers(refusal(400, "INVALIDJOBSTATE"), job("InProgress")))

    with pytest.raises(RequestRefused, match="INVALIDJOBSTATE"):
        bulk(wire).abort(JOB)


def test_a_job_tells_how_far_it_is() -> None:
    wire = Wire(
        answers(
            job(
                "Failed",
                jobType="V2Ingest",
                numberRecordsProcessed="2600",
                numberRecordsFailed=3,
                retries=2,
                totalProcessingTime=886,
                apiActiveProcessingTime=813,
                errorMessage="InvalidBatch : Field name not found : X",
            ),
            job("InProgress", errorMessage=None, createdDate="yesterday"),
        )
    )

    found = bulk(wire).info(JOB)
    assert (found.processed, found.failed, found.retries, found.processing_ms) == (2600, 3, 2, 886)
    assert found.error == "InvalidBatch : Field name not found : X"
    running = bulk(wire).info(JOB)
    assert (running.processed, running.error, running.created_at) == (0, "", None)
    assert wire.sent == [("GET", f"{INGEST}/{JOB}")] * 2


def test_a_job_that_the_org_does_not_know_is_told_by_its_status() -> None:
    wire = Wire(answers(refusal(404, "NOT_FOUND", "The requested resource does not exist")))

    with pytest.raises(RequestRefused) as refused:
        bulk(wire).info(JOB)

    assert refused.value.status == 404


@pytest.mark.parametrize(
    "answer", [job("Pondering"), httpx.Response(200, json={"id": JOB}), httpx.Response(200, json=[])]
)
def test_a_job_in_no_known_state_is_asked_for_again(answer: httpx.Response) -> None:
    assert bulk(Wire(answers(answer, job("InProgress")))).info(JOB).state is JobState.IN_PROGRESS


# the list of jobs


def listed(states: Sequence[str], *, locator: str | None = None, done: bool | None = None) -> httpx.Response:
    url = None if locator is None else f"{INGEST}?queryLocator={locator}"
    records = [job_json(state, id=f"{JOB[:-1]}{place}") for place, state in enumerate(states)]
    is_done = locator is None if done is None else done
    return httpx.Response(200, json={"done": is_done, "records": records, "nextRecordsUrl": url})


def test_the_list_of_jobs_is_read_to_its_end() -> None:
    wire = Wire(answers(listed(["Open", "InProgress"], locator="abc-1000"), listed(["JobComplete"])))

    found = list(bulk(wire).jobs())

    assert [entry.state for entry in found] == [JobState.OPEN, JobState.IN_PROGRESS, JobState.JOB_COMPLETE]
    assert [dict(request.url.params) for request in wire.requests] == [
        {"jobType": "V2Ingest"},
        {"jobType": "V2Ingest", "queryLocator": "abc-1000"},
    ]


def test_a_page_of_the_list_is_asked_for_when_it_is_wanted() -> None:
    wire = Wire(answers(listed(["Open"], locator="abc-1000")))

    assert [entry.state for entry in next(bulk(wire).job_pages())] == [JobState.OPEN]
    assert len(wire.requests) == 1


def test_jobs_of_other_kinds_are_left_out() -> None:
    assert len(list(bulk(Wire(answers(listed(["Closed", "Open", "Not Processed"])))).jobs())) == 1


def test_only_the_locator_is_taken_from_the_url_of_the_next_page() -> None:
    evil = {"done": False, "records": [], "nextRecordsUrl": "https://evil.example/jobs?queryLocator=x%2F..%2F1&a=b"}
    wire = Wire(answers(httpx.Response(200, json=evil), listed(["Open"])))

    assert len(list(bulk(wire).jobs())) == 1

    assert wire.sent == [("GET", INGEST)] * 2
    assert {request.url.host for request in wire.requests} == {"acme-instance.my.salesforce.com"}
    assert wire.requests[1].url.params["queryLocator"] == "x/../1"


@pytest.mark.parametrize("url", [None, "", INGEST, f"{INGEST}?queryLocator=", f"{INGEST}?locator=x", "http://[x"])
def test_a_list_that_goes_on_without_saying_where_is_not_taken_for_whole(url: str | None) -> None:
    page = {"done": False, "records": [job_json("Open")], "nextRecordsUrl": url}

    with pytest.raises(WireError, match="does not come to an end"):
        list(bulk(Wire(answers(httpx.Response(200, json=page)))).jobs())


def test_a_list_that_turns_in_a_circle_is_given_up() -> None:
    wire = Wire(answers(*(listed(["Open"], locator=locator) for locator in ("a", "b", "a"))))

    with pytest.raises(WireError, match="does not come to an end"):
        list(bulk(wire).jobs())


def test_a_list_without_end_is_given_up() -> None:
    wire = Wire(lambda request: listed([], locator=f"page-{len(wire.requests)}"))

    with pytest.raises(WireError, match="does not come to an end"):
        list(bulk(wire).jobs())

    assert len(wire.requests) == 1001


# result files


Result = Callable[[Bulk], Iterator[pl.DataFrame]]
SETS: list[tuple[str, Result, str, list[str]]] = [
    (
        "successfulResults",
        lambda b: b.successes(JOB),
        '"sf__Id","sf__Created",External_ID__c,Name',
        ["key", "id", "created"],
    ),
    ("failedResults", lambda b: b.failures(JOB), '"sf__Id","sf__Error",External_ID__c,Name', ["key", "id", "error"]),
    ("unprocessedrecords", lambda b: b.unprocessed(JOB), "External_ID__c,Name", ["key"]),
]
EVERY_SET = pytest.mark.parametrize(("name", "read", "header", "columns"), SETS)


def rows_of(frames: Iterator[pl.DataFrame]) -> list[tuple[Any, ...]]:
    return [row for frame in frames for row in frame.rows()]


def file_of(text: str, *, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(200, content=text.encode(), headers={**CSV, **(headers or {})})


@EVERY_SET
def test_each_result_file_is_asked_for_by_the_id_of_the_job(
    name: str, read: Result, header: str, columns: list[str]
) -> None:
    wire = Wire(answers(file_of(f"{header}\n")))

    assert rows_of(read(bulk(wire))) == []

    assert wire.sent == [("GET", f"{INGEST}/{JOB}/{name}")]
    assert wire.requests[0].headers["accept"] == "text/csv"
    assert wire.counted == {"ingest results": 1}


@EVERY_SET
@pytest.mark.parametrize(
    "nothing",
    [
        lambda header: httpx.Response(200),
        lambda header: httpx.Response(204),
        lambda header: httpx.Response(200, content=b"", headers={"Content-Type": "application/json"}),
        file_of,
        lambda header: file_of(f"{header}\n"),
    ],
)
def test_no_rows_come_in_three_forms(
    name: str, read: Result, header: str, columns: list[str], nothing: Callable[[str], httpx.Response]
) -> None:
    assert list(read(bulk(Wire(answers(nothing(header)))))) == []


@EVERY_SET
def test_a_result_file_of_another_header_is_an_error(name: str, read: Result, header: str, columns: list[str]) -> None:
    wire = Wire(answers(file_of('"sf__Other",Name\n"006A","One"\n')))

    with pytest.raises(WireError, match="has no column"):
        list(read(bulk(wire)))


def test_rows_that_were_saved_name_key_id_and_whether_they_are_new() -> None:
    wire = Wire(
        answers(
            file_of(
                '"sf__Id","sf__Created",External_ID__c,Name\n'
                '"0065e00000A1","true","key,1","Quotes ""and""\ntwo lines"\n'
                '"0065e00000A2","FALSE","key2",""\n'
            )
        )
    )

    frames = list(bulk(wire).successes(JOB))

    assert rows_of(iter(frames)) == [("key,1", "0065e00000A1", True), ("key2", "0065e00000A2", False)]
    assert frames[0].schema == {"key": pl.String, "id": pl.String, "created": pl.Boolean}


def test_columns_may_come_in_any_order_and_letter_case() -> None:
    wire = Wire(answers(file_of('Name,EXTERNAL_ID__C,"SF__Created","sf__ID"\n"One","key1","true","006A"\n')))

    assert rows_of(bulk(wire).successes(JOB)) == [("key1", "006A", True)]


@pytest.mark.parametrize("created", ['""', "", '"yes"', '"1"'])
def test_a_row_that_is_neither_new_nor_old_is_an_error(created: str) -> None:
    wire = Wire(answers(file_of(f'"sf__Id","sf__Created",External_ID__c\n"006A",{created},"key1"\n')))

    with pytest.raises(WireError, match="sf__Created is neither true nor false"):
        list(bulk(wire).successes(JOB))


def test_rows_that_were_refused_name_key_and_error_and_the_id_of_a_row_that_exists() -> None:
    wire = Wire(
        answers(
            file_of(
                '"sf__Error","sf__Id",External_ID__c,Name\n'
                '"REQUIRED_FIELD_MISSING:Required fields are missing: [Name]:Name --","","key1",""\n'
                '"UNABLE_TO_LOCK_ROW:unable to obtain exclusive access to this record or 200 records: 001A,001B:--",'
                '"006B","key2","Two"\n'
            )
        )
    )

    assert rows_of(bulk(wire).failures(JOB)) == [
        ("key1", "", "REQUIRED_FIELD_MISSING:Required fields are missing: [Name]:Name --"),
        (
            "key2",
            "006B",
            "UNABLE_TO_LOCK_ROW:unable to obtain exclusive access to this record or 200 records: 001A,001B:--",
        ),
    ]


def test_rows_that_were_never_tried_name_their_key() -> None:
    wire = Wire(answers(file_of('External_ID__c,Name\n"key1","One"\nkey2,\n"",""\n')))

    assert rows_of(bulk(wire).unprocessed(JOB)) == [("key1",), ("key2",), ("",)]


def test_a_file_that_breaks_off_is_downloaded_again_and_no_row_comes_twice() -> None:
    whole = b'"sf__Id","sf__Created",External_ID__c\n"006A","true","key1"\n"006B","true","key2"\n'
    half = whole[: whole.index(b'"006B"')]
    gzipped = {**CSV, "Content-Encoding": "gzip"}
    wire = Wire(
        answers(
            httpx.Response(200, headers=CSV, stream=Piecewise(half, httpx.ReadError("reset"))),
            httpx.Response(200, headers={**CSV, "Content-Length": str(len(whole))}, stream=Piecewise(half)),
            httpx.Response(200, headers=gzipped, stream=Piecewise(gzip.compress(whole)[:-9])),
            httpx.Response(200, html="<html>maintenance</html>"),
            httpx.Response(200, headers=gzipped, stream=Piecewise(gzip.compress(whole))),
        )
    )

    assert rows_of(bulk(wire).successes(JOB)) == [("key1", "006A", True), ("key2", "006B", True)]

    assert len(wire.requests) == 5


def test_results_that_are_not_there_yet_or_no_more_are_refused() -> None:
    wire = Wire(answers(refusal(400, "INVALIDJOBSTATE"), refusal(404, "NOT_FOUND")))

    statuses = []
    for _ in range(2):
        with pytest.raises(RequestRefused) as refused:
            list(bulk(wire).failures(JOB))
        statuses.append(refused.value.status)

    assert statuses == [400, 404]


def test_a_download_leaves_nothing_behind_and_is_never_to_be_seen(tmp_path: Path) -> None:
    wire = Wire(answers(file_of('External_ID__c\n"key1"\n'), file_of("Other\n1\n")))
    loader = bulk(wire, spool=tmp_path)

    with abandoned(loader.unprocessed(JOB)) as frames:
        assert rows_of(iter([next(frames)])) == [("key1",)]
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(WireError):
        list(loader.unprocessed(JOB))

    assert list(tmp_path.iterdir()) == []


def test_a_download_can_be_interrupted() -> None:
    wire = Wire(answers(file_of('External_ID__c\n"key1"\n')))
    wire.is_interrupted = True

    with pytest.raises(Stopped):
        list(bulk(wire).unprocessed(JOB))


def test_the_calls_of_a_job_are_counted_by_what_they_do(part: Path) -> None:
    wire = Wire(
        answers(
            job("Open"), httpx.Response(201), job("UploadComplete"), job("InProgress"), job("JobComplete"), listed([]),
            httpx.Response(204), httpx.Response(204), httpx.Response(204),
        )
    )  # fmt: skip
    loader = bulk(wire)

    loader.create()
    loader.upload(JOB, part)
    loader.close(JOB)
    loader.info(JOB)
    loader.info(JOB)
    list(loader.jobs())
    for read in (loader.successes, loader.failures, loader.unprocessed):
        list(read(JOB))

    assert wire.counted == {
        "ingest create": 1,
        "ingest upload": 1,
        "ingest close": 1,
        "ingest poll": 2,
        "ingest list": 1,
        "ingest results": 3,
    }


# query jobs


SOQL = "SELECT Id, External_ID__c, Amount FROM Opportunity WHERE External_ID__c != null"
NAMES = ["Id", "External_ID__c", "Amount"]
Cells = Sequence[Sequence[str]]
TWO: Cells = [("006A", "key1", ""), ("006B", "key2", "")]


class QueryJob:
    """One query job with these rows, in pages of these sizes.

    Without ``names_pages`` it does not tell in advance where its pages are, as the API before version 58.
    """

    def __init__(
        self,
        rows: Cells,
        *,
        sizes: Sequence[int] = (1000,),
        polls: int = 0,
        names: Sequence[str] = NAMES,
        processed: int | None = None,
        names_pages: bool = False,
    ) -> None:
        self.is_deleted = False
        self._polls = polls
        self._names = names
        self._processed = len(rows) if processed is None else processed
        self._names_pages = names_pages
        self._pages: list[Cells] = []
        start = place = 0
        while start < len(rows) or not self._pages:
            size = sizes[place % len(sizes)]
            self._pages.append(rows[start : start + size])
            start, place = start + size, place + 1

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert not self.is_deleted
        if request.method == "POST":
            return httpx.Response(200, json={"id": JOB, "state": "UploadComplete", "object": "Opportunity"})
        if request.method == "DELETE":
            self.is_deleted = True
            return httpx.Response(204)
        locator = request.url.params.get("locator")
        if request.url.path.endswith("/resultPages"):
            return self.page_list(locator) if self._names_pages else refusal(404, "NOT_FOUND")
        if request.url.path.endswith("/results"):
            return self.page(locator)
        self._polls -= 1
        state = "InProgress" if self._polls >= 0 else "JobComplete"
        return httpx.Response(200, json={"id": JOB, "state": state, "numberRecordsProcessed": self._processed})

    def page_list(self, locator: str | None) -> httpx.Response:
        """Five pages at a time."""
        start = 0 if locator is None else int(locator.removeprefix("list-"))
        places = range(start, min(start + 5, len(self._pages)))
        urls = [{"resultUrl": f"{QUERY}/{JOB}/results?locator=MTAwMDA-{place}&maxRecords=50000"} for place in places]
        is_done = start + 5 >= len(self._pages)
        following = None if is_done else f"{QUERY}/{JOB}/resultpages?locator=list-{start + 5}"
        return httpx.Response(200, json={"resultPages": urls, "nextRecordsUrl": following, "done": is_done})

    def page(self, locator: str | None) -> httpx.Response:
        number = 0 if locator is None else int(locator.removeprefix("MTAwMDA-"))
        rows = self._pages[number]
        text = io.StringIO(newline="")
        writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(self._names)
        writer.writerows(rows)
        following = "null" if number + 1 == len(self._pages) else f"MTAwMDA-{number + 1}"
        return file_of(text.getvalue(), headers={"Sforce-NumberOfRecords": str(len(rows)), "Sforce-Locator": following})


IN_BOTH_WAYS = pytest.mark.parametrize("names_pages", [False, True], ids=["in turn", "side by side"])
cells = st.one_of(st.text(alphabet='a",\n\r ', max_size=4), st.text(max_size=3))


@given(
    st.lists(st.tuples(cells, cells, cells), max_size=12),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.integers(1, 1000),
    st.booleans(),
)
def test_a_query_gives_every_row_of_every_page(
    rows: list[tuple[str, str, str]], sizes: list[int], page_rows: int, names_pages: bool
) -> None:
    org = QueryJob(rows, sizes=sizes, names_pages=names_pages)
    wire = Wire(org)
    seen: list[int] = []

    found = rows_of(bulk(wire).query(SOQL, page_rows=page_rows, on_page=seen.append))

    # The file cannot tell null from empty text.
    expected = [tuple(cell or None for cell in row) for row in rows]
    assert Counter(found) == Counter(expected)
    assert found == expected or names_pages
    assert seen[-1] == len(rows)
    assert sorted(seen) == seen
    assert org.is_deleted


def test_pages_follow_one_another_where_they_are_not_named_in_advance() -> None:
    wire = Wire(QueryJob([("006A", "key1", "1.2345678E7"), ("006B", "key2", "")], sizes=[1], polls=1))

    found = list(bulk(wire).query(SOQL))

    assert [frame.schema for frame in found] == [dict.fromkeys(NAMES, pl.String)] * 2
    assert rows_of(iter(found)) == [("006A", "key1", "1.2345678E7"), ("006B", "key2", None)]
    assert wire.sent == [
        ("POST", QUERY),
        ("GET", f"{QUERY}/{JOB}"),
        ("GET", f"{QUERY}/{JOB}"),
        ("GET", f"{QUERY}/{JOB}/resultPages"),
        ("GET", f"{QUERY}/{JOB}/results"),
        ("GET", f"{QUERY}/{JOB}/results"),
        ("DELETE", f"{QUERY}/{JOB}"),
    ]
    assert body_of(wire.requests[0]) == {"operation": "query", "query": SOQL, "contentType": "CSV", "lineEnding": "LF"}
    assert wire.requests[4].headers["accept"] == "text/csv"
    assert dict(wire.requests[4].url.params) == {"maxRecords": "250000"}
    assert dict(wire.requests[5].url.params) == {"maxRecords": "250000", "locator": "MTAwMDA-1"}


def test_pages_that_are_named_in_advance_are_downloaded_side_by_side_three_at_a_time() -> None:
    rows = [(f"006{number}", f"key{number}", "") for number in range(12)]
    org = QueryJob(rows, sizes=[1], names_pages=True)
    three, lock = threading.Barrier(3), threading.Lock()
    flying: list[str] = []
    most = 0

    def server(request: httpx.Request) -> httpx.Response:
        nonlocal most
        if not request.url.path.endswith("/results"):
            return org(request)
        with lock:
            flying.append(request.url.params["locator"])
            most = max(most, len(flying))
        if request.url.params["locator"] in ("MTAwMDA-0", "MTAwMDA-1", "MTAwMDA-2"):
            three.wait(timeout=30)
        answer = org(request)
        with lock:
            flying.remove(request.url.params["locator"])
        return answer

    wire = Wire(server)

    assert sorted(key for _, key, _ in rows_of(bulk(wire).query(SOQL))) == sorted(key for _, key, _ in rows)

    assert most == 3
    asked = [dict(request.url.params) for request in wire.requests if request.url.path.endswith("/results")]
    assert sorted(params["locator"] for params in asked) == sorted(f"MTAwMDA-{place}" for place in range(12))
    assert {params["maxRecords"] for params in asked} == {"50000"}
    lists = [request.url.params.get("locator") for request in wire.requests if path_of(request).endswith("Pages")]
    assert lists == [None, "list-5", "list-10"]


def test_looks_at_a_query_job_are_spaced_ever_wider() -> None:
    wire = Wire(QueryJob([], polls=9))

    assert list(bulk(wire).query(SOQL)) == []

    assert wire.pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def test_columns_are_named_as_the_query_names_them() -> None:
    wire = Wire(QueryJob([("1.0", "006A", "key1")], names=["AMOUNT", "ID", "external_id__c"]))

    assert [frame.rows(named=True) for frame in bulk(wire).query(SOQL)] == [
        [{"Id": "006A", "External_ID__c": "key1", "Amount": "1.0"}]
    ]


@IN_BOTH_WAYS
def test_a_result_without_a_selected_column_is_an_error(names_pages: bool) -> None:
    org = QueryJob([("006A", "key1")], names=["Id", "External_ID__c"], names_pages=names_pages)

    with pytest.raises(WireError, match="has no column Amount"):
        list(bulk(Wire(org)).query(SOQL))

    assert org.is_deleted


def changed(org: QueryJob, **headers: str | None) -> Server:
    """The job with other headers on its pages; ``None`` leaves one out."""

    def server(request: httpx.Request) -> httpx.Response:
        answer = org(request)
        if request.url.path.endswith("/results"):
            for name, value in headers.items():
                header = {"locator": "Sforce-Locator", "records": "Sforce-NumberOfRecords"}[name]
                del answer.headers[header]
                if value is not None:
                    answer.headers[header] = value
        return answer

    return server


@IN_BOTH_WAYS
@pytest.mark.parametrize("announced", ["1", "3", "0"])
def test_a_page_with_other_rows_than_announced_is_an_error(announced: str, names_pages: bool) -> None:
    org = QueryJob(TWO, names_pages=names_pages)

    with pytest.raises(WireError, match=f"a page of {announced} rows came with 2"):
        list(bulk(Wire(changed(org, records=announced))).query(SOQL))

    assert org.is_deleted


@IN_BOTH_WAYS
@pytest.mark.parametrize("announced", [None, "", "many", "-1", "9" * 5000])
def test_a_page_that_does_not_say_how_many_rows_it_has_is_an_error(announced: str | None, names_pages: bool) -> None:
    org = QueryJob(TWO, names_pages=names_pages)

    with pytest.raises(WireError, match="does not say how many rows it has"):
        list(bulk(Wire(changed(org, records=announced))).query(SOQL))


@pytest.mark.parametrize("locator", [None, "", "MTAwMDA-0"])
def test_a_page_that_does_not_say_how_it_goes_on_is_not_the_last_one(locator: str | None) -> None:
    org = QueryJob(TWO, sizes=[1])

    with pytest.raises(WireError, match="without a usable locator"):
        list(bulk(Wire(changed(org, locator=locator))).query(SOQL))


@IN_BOTH_WAYS
def test_fewer_rows_than_the_job_found_are_an_error(names_pages: bool) -> None:
    org = QueryJob([("006A", "key1", "")], processed=2, names_pages=names_pages)

    with pytest.raises(WireError, match="found 2 rows, but 1 came"):
        list(bulk(Wire(org)).query(SOQL))


def test_pages_that_overlap_are_an_error() -> None:
    org = QueryJob(TWO, sizes=[1], processed=1, names_pages=True)

    with pytest.raises(WireError, match="found 1 rows, but 2 came"):
        list(bulk(Wire(org)).query(SOQL))


def with_page_lists(*lists: dict[str, Any] | httpx.Response) -> tuple[Wire, QueryJob]:
    org = QueryJob(TWO, sizes=[1])
    replies = iter(lists)

    def server(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/resultPages"):
            return org(request)
        reply = next(replies)
        return reply if isinstance(reply, httpx.Response) else httpx.Response(200, json=reply)

    return Wire(server), org


def test_only_the_parameters_are_taken_from_the_url_of_a_page() -> None:
    evil = "https://evil.example/elsewhere?maxRecords=7&more=1"
    wire, _ = with_page_lists(
        {"resultPages": [{"resultUrl": f"{evil}&locator=MTAwMDA-{place}"} for place in range(2)], "done": True}
    )

    assert len(rows_of(bulk(wire).query(SOQL))) == 2

    asked = [request for request in wire.requests if path_of(request) == f"{QUERY}/{JOB}/results"]
    assert [dict(request.url.params) for request in sorted(asked, key=lambda request: str(request.url))] == [
        {"locator": "MTAwMDA-0", "maxRecords": "7"},
        {"locator": "MTAwMDA-1", "maxRecords": "7"},
    ]
    assert {request.url.host for request in wire.requests} == {"acme-instance.my.salesforce.com"}


@pytest.mark.parametrize("following", [None, "", f"{QUERY}/{JOB}/resultpages", f"{QUERY}/{JOB}/resultpages?locator=a"])
def test_a_list_of_pages_that_does_not_end_is_not_taken_for_whole(following: str | None) -> None:
    first = {"resultPages": [], "done": False, "nextRecordsUrl": f"{QUERY}/{JOB}/resultpages?locator=a"}
    wire, org = with_page_lists(first, {**first, "nextRecordsUrl": following})

    with pytest.raises(WireError, match="the list of its pages does not come to an end"):
        list(bulk(wire).query(SOQL))

    assert org.is_deleted


def test_a_page_that_is_listed_twice_is_an_error() -> None:
    page = {"resultUrl": f"{QUERY}/{JOB}/results?locator=MTAwMDA-0"}
    wire, _ = with_page_lists({"resultPages": [page, page], "done": True})

    with pytest.raises(WireError, match="one page is listed twice"):
        list(bulk(wire).query(SOQL))


def test_half_a_list_of_pages_is_no_reason_to_start_another_way() -> None:
    page = {"resultUrl": f"{QUERY}/{JOB}/results?locator=MTAwMDA-0"}
    first = {"resultPages": [page], "done": False, "nextRecordsUrl": f"{QUERY}/{JOB}/resultpages?locator=a"}
    wire, _ = with_page_lists(first, refusal(400, "API_ERROR"))

    with pytest.raises(RequestRefused):
        list(bulk(wire).query(SOQL))


def test_a_result_without_pages_is_one_without_rows() -> None:
    none: dict[str, Any] = {"resultPages": [], "done": True}
    org = QueryJob([])
    wire = Wire(lambda request: httpx.Response(200, json=none) if path_of(request).endswith("Pages") else org(request))
    assert list(bulk(wire).query(SOQL)) == []

    wire, _ = with_page_lists(none)
    with pytest.raises(WireError, match="found 2 rows, but 0 came"):
        list(bulk(wire).query(SOQL))


@pytest.mark.parametrize(
    ("state", "error", "told"),
    [
        ("Failed", "MALFORMED_QUERY", "MALFORMED_QUERY"),
        ("Failed", None, "no reason given"),
        ("Aborted", None, "Aborted"),
    ],
)
def test_a_query_job_that_failed_is_refused_with_its_reason(state: str, error: str | None, told: str) -> None:
    ended = httpx.Response(200, json={"id": JOB, "state": state, "errorMessage": error})
    wire = Wire(answers(httpx.Response(200, json={"id": JOB, "state": "UploadComplete"}), ended, httpx.Response(204)))

    with pytest.raises(RequestRefused, match=f"ended as {state}.*{told}|{told}"):
        list(bulk(wire).query(SOQL))

    assert wire.sent[-1] == ("DELETE", f"{QUERY}/{JOB}")


def test_a_query_job_that_does_not_end_is_given_up_after_two_hours() -> None:
    org = QueryJob([], polls=100_000)
    wire = Wire(org)

    with pytest.raises(JobStuck, match="still InProgress after 7200 s"):
        list(bulk(wire).query(SOQL))

    assert 7200 <= wire.now - 1_000 <= 7230
    assert org.is_deleted


@IN_BOTH_WAYS
@pytest.mark.parametrize("pages_read", [1, 2, 4])
def test_a_query_that_nobody_reads_to_its_end_is_deleted_and_leaves_no_file_open(
    tmp_path: Path, pages_read: int, names_pages: bool
) -> None:
    rows = [(f"006{number}", f"key{number}", "") for number in range(9)]
    org = QueryJob(rows, sizes=[1], names_pages=names_pages)

    with abandoned(bulk(Wire(org), spool=tmp_path).query(SOQL)) as frames:
        for _ in range(pages_read):
            next(frames)

    assert org.is_deleted
    gc.collect()  # a file left open would warn now, and warnings are errors
    assert list(tmp_path.iterdir()) == []


@IN_BOTH_WAYS
def test_a_page_that_is_refused_ends_the_query_and_leaves_no_file_open(tmp_path: Path, names_pages: bool) -> None:
    rows = [(f"006{number}", f"key{number}", "") for number in range(9)]
    org = QueryJob(rows, sizes=[1], names_pages=names_pages)

    def server(request: httpx.Request) -> httpx.Response:
        is_third = request.url.params.get("locator") == "MTAwMDA-2"
        return refusal(409, "API_ERROR", "another version") if is_third else org(request)

    with pytest.raises(RequestRefused, match="another version"):
        list(bulk(Wire(server), spool=tmp_path).query(SOQL))

    assert org.is_deleted
    gc.collect()


@IN_BOTH_WAYS
def test_a_query_can_be_interrupted_while_its_pages_come(names_pages: bool) -> None:
    org = QueryJob(TWO, sizes=[1], names_pages=names_pages)

    def server(request: httpx.Request) -> httpx.Response:
        wire.is_interrupted = request.url.path.endswith("/results")
        return org(request)

    wire = Wire(server)

    with pytest.raises(Stopped):
        list(bulk(wire).query(SOQL))

    gc.collect()


def test_a_running_query_job_is_aborted_before_it_is_deleted() -> None:
    running = refusal(400, "API_ERROR", "Error encountered when deleting the job because the job is not terminated")
    replies = iter([running, httpx.Response(200, json={"id": JOB, "state": "Aborted"}), httpx.Response(204)])
    org = QueryJob([("006A", "key1", "")])
    wire = Wire(lambda request: next(replies) if request.method in ("DELETE", "PATCH") else org(request))

    with abandoned(bulk(wire).query(SOQL)) as frames:
        next(frames)

    assert [method for method, _ in wire.sent][-3:] == ["DELETE", "PATCH", "DELETE"]
    assert body_of(wire.requests[-2]) == {"state": "Aborted"}


@pytest.mark.parametrize(
    "refused",
    [
        refusal(404, "NOT_FOUND"),
        refusal(403, "INSUFFICIENT_ACCESS"),
        refusal(403, "REQUEST_LIMIT_EXCEEDED"),
        refusal(401, "INVALID_SESSION_ID"),
        httpx.Response(503),
    ],
)
def test_a_query_job_that_cannot_be_deleted_harms_nobody(refused: httpx.Response) -> None:
    org = QueryJob([("006A", "key1", "")])
    wire = Wire(lambda request: refused if request.method in ("DELETE", "PATCH") else org(request))

    assert rows_of(bulk(wire).query(SOQL)) == [("006A", "key1", None)]


@IN_BOTH_WAYS
def test_a_page_that_breaks_off_is_asked_for_again_by_the_same_locator(names_pages: bool) -> None:
    org = QueryJob(TWO, sizes=[1], names_pages=names_pages)
    broken = iter([httpx.Response(200, headers=CSV, stream=Piecewise(b'"Id","Ext', httpx.ReadError("reset")))])

    def server(request: httpx.Request) -> httpx.Response:
        is_second = request.url.params.get("locator") == "MTAwMDA-1"
        return next(broken, None) or org(request) if is_second else org(request)

    wire = Wire(server)

    assert sorted(key for _, key, _ in rows_of(bulk(wire).query(SOQL))) == ["key1", "key2"]

    asked = [request.url.params.get("locator") for request in wire.requests if path_of(request).endswith("/results")]
    assert asked.count("MTAwMDA-1") == 2
    assert len(asked) == 3


def test_a_login_that_fails_under_a_query_is_told_and_not_the_deletion_after_it() -> None:
    org = QueryJob([])
    wire = Wire(lambda request: org(request) if request.method == "POST" else httpx.Response(401, json=EXPIRED))

    with pytest.raises(CredentialsError, match="GET"):
        list(bulk(wire).query(SOQL))


@pytest.mark.parametrize(
    ("soql", "names"),
    [
        ("SELECT Id FROM Opportunity", ["Id"]),
        ("select Id,Account.Name , Amount\nfrom Opportunity where x = 'a from b'", ["Id", "Account.Name", "Amount"]),
        (" SELECT FromDate__c FROM X", ["FromDate__c"]),
    ],
)
def test_the_selected_columns_are_those_between_select_and_from(soql: str, names: list[str]) -> None:
    assert selected(soql) == names


@pytest.mark.parametrize("text", ["", "SELECT", "DELETE FROM Opportunity", "SELECT FROM Opportunity"])
def test_what_selects_nothing_is_no_query(text: str) -> None:
    with pytest.raises(ValueError, match="not a query"):
        selected(text)
