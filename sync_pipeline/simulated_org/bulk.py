"""Bulk API 2.0: ingest jobs and query jobs, every endpoint, each answer as the documents show it.

Ingest: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/bulk_api_2_0_ingest.htm
Query: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/queries.htm

Knobs: ``upload_bytes_max``, ``upload_too_large_status`` (413), ``second_upload`` (``close``: the error comes when the job
is closed; ``upload``: at once), ``unpack_uploads`` (a compressed upload is unpacked, as REST does with any body),
``hard_delete`` (whether the user has the permission, which is off by default), ``job_polls``, ``query_page_rows``,
``job_days``, and those of ``ingest.py``.
"""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import msgspec

from sync_pipeline.simulated_org import query_jobs
from sync_pipeline.simulated_org.allocations import batches_left, count_batches, count_query_job, query_jobs_left
from sync_pipeline.simulated_org.call import (
    Call,
    Refused,
    Route,
    bytes_answer,
    empty_answer,
    json_answer,
    stream_answer,
)
from sync_pipeline.simulated_org.identifiers import whole_id
from sync_pipeline.simulated_org.ingest import (
    SCHEMA,
    Job,
    change_job,
    close_job,
    find_job,
    forget_files,
    job_of,
    result_file,
    settle,
    stop_job,
    unprocessed_rows,
)
from sync_pipeline.simulated_org.objects import find_object
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.simulated_org.uploads import DELIMITERS, LINE_ENDINGS, upload_file

CSV_TYPE: Final = "text/csv; charset=UTF-8"
OPERATIONS: Final = ("insert", "update", "upsert", "delete", "hardDelete")
UPLOAD_BYTES_MAX: Final = 150_000_000
MULTIPART_CHARS_MAX: Final = 100_000
JOBS_PER_PAGE: Final = 1_000
DAY_SECONDS: Final = 86_400
ANSWERED: Final = (
    "id", "createdById", "createdDate", "systemModstamp", "state", "concurrencyMode", "apiVersion", "contentUrl", "jobType",
    "externalIdFieldName", "object",
)  # fmt: skip
"""Properties of a job that a new one may bring, although the org alone sets them."""
JOB_DAYS: Final = 7
TWO_UPLOADS: Final = (
    "Found multipe contents for job: <{}>, please 'Close' / 'Abort' / 'Delete' the current Job then create a new Job "
    "and make sure you only do 'PUT' once on a given Job."
)


class CreateBody(msgspec.Struct):
    """Body of a new ingest job."""

    object: str = ""
    operation: str = ""
    externalIdFieldName: str = ""
    contentType: str = "CSV"
    columnDelimiter: str = "COMMA"
    lineEnding: str = "LF"
    assignmentRuleId: str = ""


class ChangeBody(msgspec.Struct):
    """Body of a change of state."""

    state: str = ""


class QueryBody(msgspec.Struct):
    """Body of a new query job."""

    operation: str = ""
    query: str = ""
    contentType: str = "CSV"
    columnDelimiter: str = "COMMA"
    lineEnding: str = "LF"


# Ingest jobs


def create_job(call: Call) -> httpx.Response:
    """``POST jobs/ingest``, or with a multipart body job and rows at once."""
    if call.media_type == "multipart/form-data":
        return _create_with_rows(call)
    if call.media_type and call.media_type != "application/json":
        raise Refused(415, "UNSUPPORTED_MEDIA_TYPE", f"The content type {call.media_type} is not supported.")
    return json_answer(_job_json(_created(call, _shaped(call.json, CreateBody))))


def _created(call: Call, body: CreateBody) -> Job:
    operation = next((name for name in OPERATIONS if name.lower() == body.operation.lower()), None)
    if operation is None:
        raise Refused(400, "API_ERROR", f"Invalid value: '{body.operation}' supplied for property: 'operation'")
    if operation == "hardDelete" and not call.org.setting("hard_delete", False):
        raise Refused(400, "FEATURENOTENABLED", "FeatureNotEnabled : hardDelete is not enabled for this user")
    _check_form(body)
    sobject = find_object(call.org, body.object)
    if sobject is None:
        raise Refused(400, "INVALIDJOB", f"InvalidJob : Unable to find object: {body.object}")
    if operation == "upsert":
        if not body.externalIdFieldName:
            told = (
                f"InvalidJob : External ID was blank for {sobject.name}. An External ID must be specified for upsert."
            )
            raise Refused(400, "INVALIDJOB", told)
        found = sobject.find(body.externalIdFieldName)
        if found is None or not (found.external_id or found.id_lookup):
            raise Refused(
                400,
                "INVALIDJOB",
                f"InvalidJob : Field name provided, {body.externalIdFieldName} does not match an External ID, "
                f"Salesforce Id, or indexed field for {sobject.name}",
            )
    return _insert_job(
        call.org,
        kind="ingest",
        state="Open",
        object=sobject.name,
        operation=operation,
        key_field=body.externalIdFieldName if operation == "upsert" else "",
        delimiter=body.columnDelimiter,
        line_ending=body.lineEnding,
        version=call.version,
        created_by=call.session.user_id,
    )


def _check_form(body: CreateBody | QueryBody) -> None:
    """Raises ``Refused`` (400) for a form of rows that no job has."""
    if body.contentType.upper() != "CSV":
        raise Refused(400, "API_ERROR", f"Invalid value: '{body.contentType}' supplied for property: 'contentType'")
    if body.columnDelimiter not in DELIMITERS or body.lineEnding not in LINE_ENDINGS:
        raise Refused(400, "API_ERROR", "Invalid value supplied for property: 'columnDelimiter' or 'lineEnding'")


def _create_with_rows(call: Call) -> httpx.Response:
    parts = _multipart(call)
    content = parts.get("content", b"")
    if "job" not in parts or not content:
        raise Refused(400, "API_ERROR", "The parts job and content are required")
    if len(content.decode("utf-8", "replace")) > MULTIPART_CHARS_MAX:
        raise Refused(400, "API_ERROR", f"The part content has more than {MULTIPART_CHARS_MAX} characters")
    try:
        given = msgspec.json.decode(parts["job"])
    except msgspec.DecodeError as error:
        raise Refused(400, "JSON_PARSER_ERROR", f"Unexpected content in the part job: {error}") from None
    job = _created(call, _shaped(given, CreateBody))
    upload_file(call.org, job.id).write_bytes(content)
    change_job(call.org, job.id, uploads=1)
    return _closed(call, _known(call, job.id), as_closed=True)


def upload(call: Call) -> httpx.Response:
    """``PUT jobs/ingest/{id}/batches``."""
    job = _ingest(call)
    if call.media_type not in ("text/csv", "application/octet-stream"):
        raise Refused(415, "UNSUPPORTED_MEDIA_TYPE", f"The content type {call.media_type or 'none'} is not supported.")
    _check_creator(call, job)
    if job.state != "Open":
        raise Refused(400, "INVALIDJOBSTATE", f"Job {job.id} is in the state {job.state} and takes no data")
    if job.uploads and call.org.setting("second_upload", "close") == "upload":
        raise Refused(400, "INVALIDJOB", TWO_UPLOADS.format(job.id))
    most, size = int(call.org.setting("upload_bytes_max", UPLOAD_BYTES_MAX)), 0
    path = upload_file(call.org, job.id)
    passing = path.with_suffix(".part")
    with passing.open("wb") as file:
        for piece in call.pieces(unpacked=call.org.setting("unpack_uploads", True)):
            size += len(piece)
            if size > most:
                passing.unlink()
                status = int(call.org.setting("upload_too_large_status", 413))
                raise Refused(status, "REQUEST_ENTITY_TOO_LARGE", f"The body has more than {most} bytes")
            file.write(piece)
    passing.replace(path)
    change_job(call.org, job.id, uploads=job.uploads + 1)
    return empty_answer(201)


def change(call: Call) -> httpx.Response:
    """``PATCH jobs/ingest/{id}``: close or abort."""
    job, wanted = _ingest(call), _shaped(call.json, ChangeBody).state
    if wanted == "UploadComplete":
        return _closed(call, job)
    if wanted != "Aborted":
        raise Refused(400, "API_ERROR", f"Invalid value: '{wanted}' supplied for property: 'state'")
    job = settle(call.org, job, wait=True)
    if job.is_terminal:
        raise Refused(400, "INVALIDJOBSTATE", "Aborting already Completed Job not allowed")
    stop_job(call.org, job, state="Aborted")
    return json_answer(_job_json(_known(call, job.id)))


def _closed(call: Call, job: Job, *, as_closed: bool = False) -> httpx.Response:
    _check_creator(call, job)
    if job.state == "UploadComplete":
        return json_answer(_job_json(job))
    if job.state != "Open":
        raise Refused(400, "INVALIDJOBSTATE", f"Closing a job in the state {job.state} is not allowed")
    if job.uploads > 1:
        raise Refused(400, "INVALIDJOB", TWO_UPLOADS.format(job.id))
    if batches_left(call.org) <= 0:
        raise Refused(403, "EXCEEDEDQUOTA", "ExceededQuota : Batch allocation of the last 24 hours is used up")
    batches, received = close_job(call.org, job)
    count_batches(call.org, batches)
    closed = _known(call, job.id)
    answer = json_answer(_job_json(closed))
    # What follows is the org's own work; the client hears of it when it looks.
    settle(call.org, closed, upload=received)
    return answer


def show(call: Call) -> httpx.Response:
    """``GET jobs/ingest/{id}``, with counters."""
    job = _ingest(call)
    change_looks = job.looks + 1
    with call.org.write() as connection:
        connection.execute("UPDATE job SET looks = ? WHERE id = ?", (change_looks, job.id))
    job = settle(call.org, job)
    document = _job_json(job)
    if job.is_terminal and change_looks <= int(call.org.setting("job_polls", 0)):
        document["state"] = "InProgress"
    if document["state"] != "Open":
        document |= {"numberRecordsProcessed": job.processed, "numberRecordsFailed": job.failed}
    spent = int((job.changed_at - job.created_at) * 1000)
    is_over = job.is_terminal and document["state"] == job.state
    document |= {
        "jobType": "V2Ingest",
        "retries": job.retries,
        "totalProcessingTime": spent if is_over else 0,
        "apiActiveProcessingTime": spent if job.state != "Open" else 0,
        "apexProcessingTime": 0,
    }
    if job.error and is_over:
        document["errorMessage"] = job.error
    return json_answer(document)


def listed(call: Call) -> httpx.Response:
    """``GET jobs/ingest``: jobs of everybody, without counters, in no promised order."""
    org = call.org
    org.schema(SCHEMA)
    after = call.query.get("queryLocator", "")
    try:
        start = base64.urlsafe_b64decode(after).decode() if after else ""
    except ValueError:
        raise Refused(400, "INVALID_QUERY_LOCATOR", "invalid query locator") from None
    most = int(org.setting("jobs_per_page", JOBS_PER_PAGE))
    kinds = call.query.get("jobType", "")
    if kinds and kinds != "V2Ingest":
        return json_answer({"done": True, "records": [], "nextRecordsUrl": None})
    since = org.now() - float(org.setting("job_days", JOB_DAYS)) * DAY_SECONDS
    rows = org.db().execute(
        "SELECT * FROM job WHERE kind = 'ingest' AND id > ? AND created_at > ? ORDER BY id LIMIT ?", (start, since, most + 1)
    ).fetchall()  # fmt: skip
    jobs = [settle(org, job_of(row)) for row in rows[:most]]
    is_done = len(rows) <= most
    locator = None if is_done else base64.urlsafe_b64encode(jobs[-1].id.encode()).decode()
    path = f"/services/data/v{call.version}/jobs/ingest?queryLocator={locator}"
    records = [{**_job_json(job), "jobType": "V2Ingest"} for job in jobs]
    return json_answer({"done": is_done, "records": records, "nextRecordsUrl": None if is_done else path})


def delete(call: Call) -> httpx.Response:
    """``DELETE jobs/ingest/{id}``."""
    job = settle(call.org, _ingest(call))
    if job.state in ("Open", "InProgress"):
        raise Refused(400, "API_ERROR", "Error encountered when deleting the job because the job is not terminated")
    _delete(call.org, job)
    return empty_answer(204)


def results(call: Call) -> httpx.Response:
    """``GET jobs/ingest/{id}/successfulResults``, ``failedResults`` or ``unprocessedrecords``."""
    job = settle(call.org, _ingest(call), wait=True)
    name = call.parts["file"].lower()
    if not job.is_terminal:
        raise Refused(400, "INVALIDJOBSTATE", f"Results of job {job.id} are there when it has ended; it is {job.state}")
    if "lost_results" in job.faults:
        raise Refused(404, "NOT_FOUND", "The requested resource does not exist")
    header = _header_of(call.org, job)
    own: tuple[str, ...] = ()
    if name == "successfulresults":
        own, files = ("sf__Id", "sf__Created"), _pieces(call.org, job, "successful")
    elif name == "failedresults":
        own, files = ("sf__Id", "sf__Error"), _pieces(call.org, job, "failed")
    else:
        files = iter([_csv(unprocessed_rows(call.org, job).rows(), *job.form_of_results(call.org))])
    form = job.faults.get("empty_results", {}).get("form") if "empty_results" in job.faults else None
    if form == "no_content":
        return empty_answer(204)
    if form == "empty":
        return bytes_answer(b"", CSV_TYPE)
    separator, line_ending = job.form_of_results(call.org)
    names = [f'"{column}"' for column in own] + header
    if "odd_headers" in job.faults:
        names = [column.swapcase() for column in names]
    first = (separator.join(names) + line_ending).encode()
    body = iter([first]) if form == "header" else _chained(first, files)
    return stream_answer(body, CSV_TYPE, length=None)


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _pieces(org: Org, job: Job, name: str) -> Iterator[bytes]:
    for number in range(job.pieces, 0, -1):
        with result_file(org, job.id, name, number).open("rb") as file:
            while piece := file.read(1024 * 1024):
                yield piece


def _header_of(org: Org, job: Job) -> list[str]:
    """The uploaded columns as the upload names them."""
    path = upload_file(org, job.id)
    if not path.exists():
        return []
    with path.open("rb") as file:
        line = file.readline().rstrip(b"\r\n").decode("utf-8", "replace")
    return next(csv.reader(io.StringIO(line, newline=""), delimiter=DELIMITERS[job.delimiter]), [])


def _csv(rows: list[tuple[Any, ...]], delimiter: str, line_ending: str) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator=line_ending).writerows(
        ["" if v is None else v for v in r] for r in rows
    )
    return text.getvalue().encode()


# Query jobs


def create_query(call: Call) -> httpx.Response:
    """``POST jobs/query``."""
    body = _shaped(call.json, QueryBody)
    if body.operation not in ("query", "queryAll"):
        raise Refused(400, "API_ERROR", f"Invalid value: '{body.operation}' supplied for property: 'operation'")
    _check_form(body)
    name = query_jobs.check(call.org, body.query)
    if query_jobs_left(call.org) <= 0:
        raise Refused(403, "EXCEEDEDQUOTA", "Max bulk v2 query jobs (10000) per 24 hrs has been reached")
    count_query_job(call.org, jobs=1)
    job = _insert_job(
        call.org,
        kind="query",
        state="UploadComplete",
        object=name,
        operation=body.operation,
        delimiter=body.columnDelimiter,
        line_ending=body.lineEnding,
        version=call.version,
        created_by=call.session.user_id,
        query=body.query,
    )
    return json_answer(_job_json(job))


def show_query(call: Call) -> httpx.Response:
    """``GET jobs/query/{id}``."""
    job = query_jobs.settle(call.org, _query(call))
    document = _job_json(job) | {
        "jobType": "V2Query",
        "numberRecordsProcessed": job.processed,
        "retries": 0,
        "totalProcessingTime": int((job.changed_at - job.created_at) * 1000) if job.is_terminal else 0,
        "isPkChunkingSupported": True,
    }
    if job.error:
        document["errorMessage"] = job.error
    return json_answer(document)


def listed_queries(call: Call) -> httpx.Response:
    """``GET jobs/query``."""
    call.org.schema(SCHEMA)
    rows = (
        call.org.db().execute("SELECT * FROM job WHERE kind = 'query' ORDER BY id LIMIT ?", (JOBS_PER_PAGE,)).fetchall()
    )
    records = [{**_job_json(job_of(row)), "jobType": "V2Query"} for row in rows]
    return json_answer({"done": True, "records": records, "nextRecordsUrl": None})


def query_results(call: Call) -> httpx.Response:
    """``GET jobs/query/{id}/results``."""
    job = _complete_query(call)
    given = call.query.get("maxRecords", "")
    most = (
        int(given)
        if given.isdigit() and int(given) > 0
        else int(call.org.setting("query_page_rows", query_jobs.PAGE_ROWS))
    )
    start = query_jobs.read_locator(call.query.get("locator", ""))
    if start is None or start > max(job.processed - 1, 0):
        raise Refused(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
    content, count = query_jobs.page(call.org, job, start, most)
    following = start + count
    headers = {
        "Sforce-NumberOfRecords": str(count),
        "Sforce-Locator": query_jobs.locator(following) if following < job.processed else "null",
    }
    return stream_answer(content, CSV_TYPE, length=None, headers=headers)


def result_pages(call: Call) -> httpx.Response:
    """``GET jobs/query/{id}/resultPages``: where the pages are, five at a time."""
    job = _complete_query(call)
    size = int(call.org.setting("query_page_rows", query_jobs.PAGE_ROWS))
    start = query_jobs.read_locator(call.query.get("locator", ""))
    if start is None:
        raise Refused(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
    root = f"/services/data/v{call.version}/jobs/query/{job.id}"
    places = list(range(start, max(job.processed, 1), size))[: query_jobs.PAGES_LISTED]
    following = places[-1] + size
    is_done = following >= job.processed
    return json_answer(
        {
            "resultPages": [
                {"resultUrl": f"{root}/results?locator={query_jobs.locator(place)}&maxRecords={size}"}
                for place in places
            ],
            "nextRecordsUrl": None if is_done else f"{root}/resultpages?locator={query_jobs.locator(following)}",
            "done": is_done,
        }
    )


def change_query(call: Call) -> httpx.Response:
    """``PATCH jobs/query/{id}``: abort."""
    job, wanted = _query(call), _shaped(call.json, ChangeBody).state
    if wanted != "Aborted":
        raise Refused(400, "API_ERROR", f"Invalid value: '{wanted}' supplied for property: 'state'")
    if job.is_terminal:
        raise Refused(400, "INVALIDJOBSTATE", "Aborting already Completed Job not allowed")
    change_job(call.org, job.id, state="Aborted")
    return json_answer(_job_json(_query(call)))


def delete_query(call: Call) -> httpx.Response:
    """``DELETE jobs/query/{id}``."""
    job = _query(call)
    if not job.is_terminal:
        raise Refused(400, "API_ERROR", "Error encountered when deleting the job because the job is not terminated")
    _delete(call.org, job)
    return empty_answer(204)


def _complete_query(call: Call) -> Job:
    job = query_jobs.settle(call.org, _query(call))
    if job.version != call.version:
        raise Refused(409, "API_ERROR", f"Results must be asked for with the API version of the job, {job.version}")
    if job.state != "JobComplete":
        raise Refused(
            400, "INVALIDJOBSTATE", f"Results of job {job.id} are there when it is complete; it is {job.state}"
        )
    return job


# Both


def _query(call: Call) -> Job:
    return _kept(call, find_job(call.org, whole_id(call.parts["id"]) or "", "query"))


def _ingest(call: Call) -> Job:
    return _kept(call, find_job(call.org, whole_id(call.parts["id"]) or "", "ingest"))


def _known(call: Call, job_id: str) -> Job:
    return _kept(call, find_job(call.org, job_id, "ingest"))


def _kept(call: Call, job: Job | None) -> Job:
    """The job, unless its time is over. Raises ``Refused`` (404)."""
    age = 0.0 if job is None else call.org.now() - job.created_at
    days = float(call.org.setting("job_days", JOB_DAYS))
    if job is None or age > days * DAY_SECONDS or (job.state == "Open" and age > DAY_SECONDS):
        raise Refused(404, "NOT_FOUND", "The requested resource does not exist")
    return job


def _check_creator(call: Call, job: Job) -> None:
    if call.session.user_id != job.created_by:
        raise Refused(400, "INVALIDUSER", "InvalidUser : Only the creator of a job may upload its data or close it")


def _delete(org: Org, job: Job) -> None:
    with org.write() as connection:
        connection.execute("DELETE FROM batch WHERE job = ?", (job.id,))
        connection.execute("DELETE FROM job WHERE id = ?", (job.id,))
    forget_files(org, job.id)


def _insert_job(org: Org, **values: Any) -> Job:
    org.schema(SCHEMA)
    now = org.now()
    named = {**values, "id": org.new_id("750"), "created_at": now, "changed_at": now}
    with org.write() as connection:
        columns, marks = ", ".join(named), ", ".join("?" * len(named))
        connection.execute(f"INSERT INTO job ({columns}) VALUES ({marks})", tuple(named.values()))
    job = find_job(org, named["id"], values["kind"])
    if job is None:
        raise LookupError(f"job {named['id']} has vanished")
    return job


def _job_json(job: Job) -> dict[str, Any]:
    """A job in the documents' order of names."""
    document: dict[str, Any] = {
        "id": job.id,
        "operation": job.operation,
        "object": job.object,
        "createdById": job.created_by,
        "createdDate": _instant(job.created_at),
        "systemModstamp": _instant(job.changed_at),
        "state": job.state,
    }
    if job.key_field:
        document["externalIdFieldName"] = job.key_field
    document |= {"concurrencyMode": "Parallel", "contentType": "CSV", "apiVersion": float(job.version)}
    if job.state == "Open":
        document["contentUrl"] = f"services/data/v{job.version}/jobs/ingest/{job.id}/batches"
    return document | {"lineEnding": job.line_ending, "columnDelimiter": job.delimiter}


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(seconds % 1 * 1000):03d}+0000"


def _shaped(given: Any, shape: type[Any]) -> Any:
    """A body in its shape. What only answers hold may be there, as in a job that is sent back, and does not count; any
    other name is refused, in the words of the parser that REST uses. Raises ``Refused`` (400)."""
    if isinstance(given, dict):
        for name in given:
            if name not in shape.__struct_fields__ and name not in ANSWERED:
                known = shape.__struct_fields__
                listed = ", ".join(f'"{one}"' for one in known)
                message = (
                    f'Unrecognized field "{name}", not marked as ignorable ({len(known)} known properties: {listed})'
                )
                raise Refused(400, "JSON_PARSER_ERROR", message)
        given = {name: value for name, value in given.items() if name in shape.__struct_fields__ and value is not None}
    try:
        return msgspec.convert(given, shape)
    except msgspec.ValidationError as error:
        raise Refused(400, "JSON_PARSER_ERROR", f"Unexpected content in the request body: {error}") from None


def _multipart(call: Call) -> dict[str, bytes]:
    """Parts of a multipart body by name."""
    found = re.search(r'boundary="?([^";]+)"?', call.headers.get("content-type", ""))
    if found is None:
        raise Refused(400, "API_ERROR", "The content type names no boundary")
    parts: dict[str, bytes] = {}
    for piece in call.body.split(b"--" + found[1].encode())[1:-1]:
        head, _, content = piece.lstrip(b"\r\n").replace(b"\r\n\r\n", b"\n\n", 1).partition(b"\n\n")
        name = re.search(rb'name="?([^";\r\n]+)"?', head)
        if name is not None:
            parts[name[1].decode()] = content.removesuffix(b"\n").removesuffix(b"\r")
    return parts


ROOT: Final = r"/services/data/v\d+\.\d/jobs"
ID: Final = "(?P<id>750[0-9A-Za-z]{12,15})"

ROUTES: Final = (
    Route("POST", f"{ROOT}/ingest", create_job, since=41),
    Route("GET", f"{ROOT}/ingest", listed, since=41),
    Route("PUT", f"{ROOT}/ingest/{ID}/batches", upload, since=41),
    Route("PATCH", f"{ROOT}/ingest/{ID}", change, since=41),
    Route("GET", f"{ROOT}/ingest/{ID}", show, since=41),
    Route("DELETE", f"{ROOT}/ingest/{ID}", delete, since=41),
    Route("GET", f"{ROOT}/ingest/{ID}/(?P<file>successfulResults|failedResults|unprocessedRecords)", results, since=41),
    Route("POST", f"{ROOT}/query", create_query, since=47),
    Route("GET", f"{ROOT}/query", listed_queries, since=47),
    Route("GET", f"{ROOT}/query/{ID}", show_query, since=47),
    Route("PATCH", f"{ROOT}/query/{ID}", change_query, since=47),
    Route("DELETE", f"{ROOT}/query/{ID}", delete_query, since=47),
    Route("GET", f"{ROOT}/query/{ID}/results", query_results, since=47),
    Route("GET", f"{ROOT}/query/{ID}/resultPages", result_pages, since=query_jobs.PAGES_SINCE),
)
