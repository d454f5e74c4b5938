"""Data Cloud's Query APIs: Query Connect on the core host and Query V3 on the tenant host, two spellings of one engine.

A statement's result is stored whole when it is submitted, so every page is of one snapshot. What the client sees of its
making is the documents' life of a statement: Running, with a row count that is not final, then ResultsProduced, then
Finished.

Query Connect: https://developer.salesforce.com/docs/data/connectapi/guide/query-use-case.html
Query V3: https://developer.salesforce.com/docs/data/data-cloud-query-guide/references/data-cloud-query-api-reference/query-api-v3-post.html

Knobs: ``page_bytes``, ``v3_page_bytes``, ``adaptive_rows`` (rows that come with the answer to a POST), ``running_polls``
(looks that still find a large statement Running), ``post_waits`` (the POST answers when it is complete), ``post_status``
(201), ``nested_status``, ``query_id_slash``, ``dataspace_required``, ``result_seconds``, ``result_cache_seconds``,
``count_as_text``; ``pace`` with ``query_seconds``. Row fault: ``empty_page``.
"""

from __future__ import annotations

import base64
import io
import json
import mmap
import time
import uuid
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec
import polars as pl

from sync_pipeline.simulated_org.call import (
    JSON_TYPE,
    Call,
    Refused,
    Route,
    TenantRefused,
    bytes_answer,
    empty_answer,
    file_answer,
    json_answer,
)
from sync_pipeline.simulated_org.faults import row_fault
from sync_pipeline.simulated_org.query_engine import COLUMNS_KEY, RESULTS, check_settings, run_statement
from sync_pipeline.simulated_org.result_json import json_lines
from sync_pipeline.simulated_org.sql_words import Parameter, SqlError, Style
from sync_pipeline.simulated_org.state import Org

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS statement (
    id TEXT PRIMARY KEY, number INTEGER NOT NULL, user_id TEXT NOT NULL, sql TEXT NOT NULL, file TEXT NOT NULL,
    "rows" INTEGER NOT NULL, submitted_at REAL NOT NULL, ready_at REAL NOT NULL, looks INTEGER NOT NULL DEFAULT 0,
    expires_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS statement_by_sql ON statement (sql, submitted_at);
"""

NODE: Final = base64.b64encode(b"10.22.148.181:7484").decode().rstrip("=")
PAGE_BYTES: Final = 2_000_000
V3_PAGE_BYTES: Final = 20_000_000
ADAPTIVE_ROWS: Final = 2_000
CHUNK_BYTES: Final = 16 * 1024 * 1024
RESULT_SECONDS: Final = 86_400
WAIT_MS_MAX: Final = 10_000
ADAPTIVE_SECONDS_MAX: Final = 15
RENDERED_ROWS: Final = 20_480
LOOK_SECONDS: Final = 0.02
ARROW: Final = "application/vnd.apache.arrow.stream"

V3_NAMES: Final = {"Double": "float8", "Float": "float4"}
"""Type names of V3, where they are not Connect's in lower case."""


@dataclass(frozen=True)
class Stored:
    """A statement and its stored result. ``looks`` counts how often its status was asked for."""

    id: str
    file: Path
    rows: int
    submitted_at: float
    ready_at: float
    looks: int
    expires_at: float
    is_finished: bool = False


@dataclass(frozen=True)
class Progress:
    """``word`` as Connect spells it; ``rows`` of which the first ones can be read already."""

    word: str
    rows: int
    share: float


# Connect


class ConnectParameter(msgspec.Struct):
    """``sqlParameters``."""

    type: str
    value: str | None = None
    name: str = ""
    precision: int | None = None
    scale: int | None = None


class ConnectBody(msgspec.Struct):
    """Body of a submitted statement."""

    sql: str
    rowLimit: int | None = None
    sqlParameters: list[ConnectParameter] = []
    querySettings: dict[str, str] = {}
    adaptiveTimeout: int | None = None


def submit(call: Call) -> httpx.Response:
    """``POST /ssot/query-sql``."""
    _check_dataspace(call)
    body = _body(call, ConnectBody)
    if body.rowLimit is not None and body.rowLimit <= 0:
        raise _connect_error(400, "22023", "rowLimit must be greater than 0")
    if body.adaptiveTimeout is not None and not 0 <= body.adaptiveTimeout <= ADAPTIVE_SECONDS_MAX:
        raise _connect_error(400, "22023", f"adaptiveTimeout must lie between 0 and {ADAPTIVE_SECONDS_MAX}")
    try:
        stored = _run(call, body.sql, _parameters(body.sqlParameters), body.querySettings)
    except SqlError as error:
        status = 408 if error.state == "53S01" else 400
        raise _connect_error(status, error.state, error.message, hint=error.hint) from None
    progress = _progress(call.org, stored, is_post=True)
    most = call.org.setting("adaptive_rows", ADAPTIVE_ROWS)
    limit = 0 if body.adaptiveTimeout == 0 else min(body.rowLimit or most, most, progress.rows)
    span = _json_span(stored, 0, limit, int(call.org.setting("page_bytes", PAGE_BYTES)))
    status_json = msgspec.json.encode(_status(call.org, stored, progress))
    tail = b',"metadata":' + _connect_columns(stored) + b',"returnedRows":%d,"status":' % span.rows + status_json + b"}"
    return _json_answer(span, b'{"data":', tail, status=int(call.org.setting("post_status", 201)))


def look(call: Call) -> httpx.Response:
    """``GET /ssot/query-sql/{id}``."""
    _check_dataspace(call)
    wait_ms = _number(call.query, "waitTimeMs", 0)
    if not 0 <= wait_ms <= WAIT_MS_MAX:
        raise _connect_error(400, "22023", f"waitTimeMs must lie between 0 and {WAIT_MS_MAX}")
    stored = _awaited(call, _connect_stored(call), wait_ms)
    status = _status(call.org, stored, _progress(call.org, stored))
    return json_answer({"status": status} if call.org.setting("nested_status", False) else status)


def rows(call: Call) -> httpx.Response:
    """``GET /ssot/query-sql/{id}/rows``."""
    _check_dataspace(call)
    if "offset" not in call.query:
        raise _connect_error(400, "22023", "offset is required")
    stored = _connect_stored(call)
    offset, limit = _number(call.query, "offset", 0), _number(call.query, "rowLimit", stored.rows or 1)
    total = _progress(call.org, stored, is_look=False).rows
    _check_span(offset, limit, total, lambda message: _connect_error(400, "22023", message))
    if row_fault(call.org, "empty_page") is not None:
        limit = 0
    span = _json_span(stored, offset, min(limit, total - offset), int(call.org.setting("page_bytes", PAGE_BYTES)))
    omitted = call.query.get("omitSchema", "").lower() == "true"
    tail = b"" if omitted else b',"metadata":' + _connect_columns(stored)
    return _json_answer(span, b'{"data":', tail + b',"returnedRows":%d}' % span.rows)


def drop(call: Call) -> httpx.Response:
    """``DELETE /ssot/query-sql/{id}``."""
    _check_dataspace(call)
    _forget(call.org, _connect_stored(call))
    return empty_answer(int(call.org.setting("drop_status", 204)))


def _connect_stored(call: Call) -> Stored:
    stored = _find(call)
    if stored is None:
        raise _connect_error(404, "02000", "the requested query ID is unknown", code="NOT_FOUND")
    return stored


def _connect_error(status: int, state: str, message: str, *, hint: str = "", code: str = "") -> Refused:
    """The message of a query error is itself JSON."""
    known = {400: "BAD_REQUEST", 404: "NOT_FOUND", 408: "REQUEST_TIMEOUT"}
    return Refused(status, code or known.get(status, "INTERNAL_ERROR"), json.dumps(_sql_error(state, message, hint)))


def _connect_columns(stored: Stored) -> bytes:
    return msgspec.json.encode([{**column, "nullable": True} for column in _columns(stored)])


def _check_dataspace(call: Call) -> None:
    given = call.query.get("dataspace") or call.query.get("dataspaceName") or call.headers.get("dataspace")
    if given is None and call.org.setting("dataspace_required", False):
        raise _connect_error(400, "22023", "dataspace is required")
    if given is not None and given not in call.org.setting("dataspaces", ["default"]):
        raise Refused(403, "FORBIDDEN", f"The user is not authorized for dataspace {given}")


# V3


class V3Parameter(msgspec.Struct):
    """``parameters``."""

    type: str
    value: str | None = None
    name: str = ""
    precision: int | None = None
    scale: int | None = None


class V3Range(msgspec.Struct):
    """``resultRange``."""

    rowLimit: int | None = None
    byteLimit: int | None = None


class V3Body(msgspec.Struct):
    """Body of a submitted statement."""

    sql: str
    transferMode: str = "ADAPTIVE"
    paramStyle: Style = "QUESTION_MARK"
    parameters: list[V3Parameter] = []
    settings: dict[str, str] = {}
    resultRange: V3Range | None = None
    queryRowLimit: int | None = None


def v3_submit(call: Call) -> httpx.Response:
    """``POST /api/v3/query``: rows in the body, the state of the statement in a header."""
    is_arrow = _is_arrow(call)
    body = _body(call, V3Body)
    try:
        stored = _run(
            call, body.sql, _parameters(body.parameters), body.settings, style=body.paramStyle, rows=body.queryRowLimit
        )
    except SqlError as error:
        raise _v3_error(429 if error.state == "53S01" else 400, error.state, error.message, hint=error.hint,
                        position=error.position) from None  # fmt: skip
    progress = _progress(call.org, stored, is_post=True)
    header = msgspec.json.encode(_v3_status(call.org, stored, progress)).decode()
    headers = {"x-hyperdb-status": header, "status": header}
    span = body.resultRange or V3Range()
    most = call.org.setting("adaptive_rows", ADAPTIVE_ROWS)
    limit = 0 if body.transferMode == "ASYNC" else min(span.rowLimit or most, most, progress.rows)
    if is_arrow:
        content = (
            b"" if progress.word == "Running" else _arrow_rows(stored, 0, limit, _v3_bytes(call.org, span.byteLimit))
        )
        return bytes_answer(content, ARROW, headers=headers)
    found = _json_span(stored, 0, limit, _v3_bytes(call.org, span.byteLimit))
    head = b'{"metadata":{"columns":' + _v3_columns(stored) + b'},"data":'
    return _json_answer(found, head, b',"returnedRows":%d}' % found.rows, headers=headers)


def v3_look(call: Call) -> httpx.Response:
    """``GET /api/v3/query/{id}``."""
    wait_ms = _number(call.query, "waitTimeMs", WAIT_MS_MAX)
    if not 0 <= wait_ms <= WAIT_MS_MAX:
        raise _v3_error(400, "22023", f"waitTimeMs must lie between 0 and {WAIT_MS_MAX}")
    stored = _awaited(call, _v3_stored(call), wait_ms)
    return json_answer(_v3_status(call.org, stored, _progress(call.org, stored)))


def v3_rows(call: Call) -> httpx.Response:
    """``GET /api/v3/query/{id}/rows``."""
    is_arrow = _is_arrow(call)
    stored = _v3_stored(call)
    offset, limit = _number(call.query, "offset", 0), _number(call.query, "limit", stored.rows or 1)
    total = _progress(call.org, stored, is_look=False).rows
    _check_span(offset, limit, total, lambda message: _v3_error(400, "22023", message))
    given = call.query.get("byteLimit")
    byte_limit = _v3_bytes(call.org, int(given) if given and given.isdigit() else None)
    if row_fault(call.org, "empty_page") is not None:
        limit = 0
    return _v3_page(call, stored, offset, min(limit, total - offset), byte_limit, is_arrow=is_arrow)


def v3_chunk(call: Call) -> httpx.Response:
    """``GET /api/v3/query/{id}/chunks/{n}``."""
    is_arrow = _is_arrow(call)
    stored = _v3_stored(call)
    number, per_chunk = int(call.parts["chunk"]), _chunk_rows(stored)
    if not number < _chunk_count(stored):
        raise _v3_error(400, "22023", "request out of range: chunk id")
    start = number * per_chunk
    rows_here = min(per_chunk, stored.rows - start)
    return _v3_page(call, stored, start, rows_here, None, is_arrow=is_arrow)


def v3_columns(call: Call) -> httpx.Response:
    """``GET /api/v3/query/{id}/metadata``."""
    return bytes_answer(b'{"columns":' + _v3_columns(_v3_stored(call)) + b"}", JSON_TYPE)


def v3_drop(call: Call) -> httpx.Response:
    """``DELETE /api/v3/query/{id}``."""
    _forget(call.org, _v3_stored(call))
    return empty_answer(204)


def _v3_page(
    call: Call, stored: Stored, offset: int, count: int, byte_limit: int | None, *, is_arrow: bool
) -> httpx.Response:
    if is_arrow:
        return bytes_answer(_arrow_rows(stored, offset, count, byte_limit), ARROW)
    span = _json_span(stored, offset, count, byte_limit)
    omitted = call.query.get("omitSchema", "").lower() == "true"
    head = b"{" if omitted else b'{"metadata":{"columns":' + _v3_columns(stored) + b"},"
    return _json_answer(span, head + b'"data":', b',"returnedRows":%d}' % span.rows)


def _v3_status(org: Org, stored: Stored, progress: Progress) -> dict[str, Any]:
    words = {"Running": "RUNNING_OR_UNSPECIFIED", "ResultsProduced": "RESULTS_PRODUCED", "Finished": "FINISHED"}
    as_text = org.setting("count_as_text", False)
    chunks = _chunk_count(stored) if progress.word != "Running" else 0
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stored.expires_at)) if progress.word == "Finished" else ""
    return {
        "queryId": _shown_id(org, stored.id),
        "completionStatus": words[progress.word],
        "chunkCount": str(chunks) if as_text else chunks,
        "rowCount": str(progress.rows) if as_text else progress.rows,
        "progress": progress.share,
        "expirationTime": expires,
        "executionStats": {
            "wallClockTime": max(stored.ready_at - stored.submitted_at, 0.001),
            "rowsProcessed": stored.rows,
        },
    }


def _v3_columns(stored: Stored) -> bytes:
    return msgspec.json.encode([{**_v3_type(column), "nullable": True} for column in _columns(stored)])


def _v3_stored(call: Call) -> Stored:
    stored = _find(call)
    if stored is None:
        raise _v3_error(404, "02000", "the requested query ID is unknown")
    return stored


def _v3_error(status: int, state: str, message: str, *, hint: str = "", position: int | None = None) -> TenantRefused:
    return TenantRefused(status, _sql_error(state, message, hint, position=position))


def _v3_bytes(org: Org, given: int | None) -> int:
    most = int(org.setting("v3_page_bytes", V3_PAGE_BYTES))
    return most if given is None else max(min(given, most), 1)


def _is_arrow(call: Call) -> bool:
    accept = call.headers.get("accept", "*/*")
    if ARROW in accept:
        return True
    if "json" not in accept and "*/*" not in accept:
        raise _v3_error(406, "HY000", f"Accept {accept} is not supported")
    return False


# Both


def _parameters(given: Sequence[ConnectParameter | V3Parameter]) -> list[Parameter]:
    return [Parameter(each.type, each.value, each.name, each.precision, each.scale) for each in given]


def _run(
    call: Call,
    sql: str,
    parameters: list[Parameter],
    settings: Mapping[str, str],
    *,
    style: Style = "",
    rows: int | None = None,
) -> Stored:
    """Runs a statement and stores its result, no more than ``rows`` of it. Raises ``SqlError``."""
    org, now = call.org, call.org.now()
    org.schema(SCHEMA, "source")
    check_settings(settings)
    timeout = settings.get("query_timeout", "")
    seconds = float(org.setting("pace", {}).get("query_seconds", 0.0))
    if timeout.removesuffix("ms").isdigit() and seconds * 1000 > int(timeout.removesuffix("ms")):
        raise SqlError("53S01", f"The query exceeded the time limit of {timeout}")
    _sweep(org)
    number = org.reserve("statement", 1)
    file = org.files(RESULTS) / f"{number:08d}.parquet"
    text = json.dumps([sql, [(p.name, p.value) for p in parameters], *([] if rows is None else [rows])])
    cached = _cached(org, text)
    if cached is None:
        run_statement(org, sql, parameters, file, style=style, rows=rows)
    else:
        file.hardlink_to(cached)
    file.chmod(0o600)
    found = pl.scan_parquet(file).select(pl.len()).collect().item()
    separator = "/" if org.setting("query_id_slash", False) else "_"
    stored = Stored(
        id=f"{NODE}{separator}{uuid.uuid4()}",
        file=file,
        rows=int(found),
        submitted_at=now,
        ready_at=now + seconds,
        looks=0,
        expires_at=now + float(org.setting("result_seconds", RESULT_SECONDS)),
    )
    with org.write("source") as connection:
        connection.execute(
            "INSERT INTO statement VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?)",
            (
                stored.id,
                number,
                call.session.user_id,
                text,
                file.name,
                stored.rows,
                now,
                stored.ready_at,
                stored.expires_at,
            ),
        )
    return stored


def _cached(org: Org, text: str) -> Path | None:
    """The stored result of the same statement, if the org answers from its cache."""
    seconds = org.setting("result_cache_seconds", 0)
    if not seconds:
        return None
    row = (
        org.db("source")
        .execute("SELECT file FROM statement WHERE sql = ? AND submitted_at >= ? ORDER BY submitted_at DESC LIMIT 1",
                 (text, org.now() - seconds))
        .fetchone()
    )  # fmt: skip
    return None if row is None else org.files(RESULTS) / row[0]


def _find(call: Call) -> Stored | None:
    """The statement that the path names, unless it has expired or is somebody else's."""
    org = call.org
    org.schema(SCHEMA, "source")
    row = (
        org.db("source")
        .execute('SELECT id, file, "rows", submitted_at, ready_at, looks, expires_at FROM statement WHERE id = ? AND user_id = ?',
                 (call.parts["id"], call.session.user_id))
        .fetchone()
    )  # fmt: skip
    if row is None or row[6] <= org.now():
        return None
    return Stored(row[0], org.files(RESULTS) / row[1], *row[2:])


def _awaited(call: Call, stored: Stored, wait_ms: int) -> Stored:
    """Counts a look, which first waits for the result for as long as the client likes."""
    deadline = time.monotonic() + wait_ms / 1000
    while call.org.now() < stored.ready_at and time.monotonic() < deadline:
        time.sleep(min(LOOK_SECONDS, max(deadline - time.monotonic(), 0.0)))
    with call.org.write("source") as connection:
        (looks,) = connection.execute(
            "UPDATE statement SET looks = looks + 1 WHERE id = ? RETURNING looks", (stored.id,)
        ).fetchone()
    return Stored(stored.id, stored.file, stored.rows, stored.submitted_at, stored.ready_at, looks, stored.expires_at)


def _progress(org: Org, stored: Stored, *, is_post: bool = False, is_look: bool = True) -> Progress:
    """How far the statement is. Only a small one is complete with the answer to its POST."""
    now, adaptive = org.now(), int(org.setting("adaptive_rows", ADAPTIVE_ROWS))
    if now < stored.ready_at:
        share = max(0.0, (now - stored.submitted_at) / (stored.ready_at - stored.submitted_at))
        return Progress("Running", int(stored.rows * share), share)
    waits = int(org.setting("running_polls", 0))
    is_small = stored.rows <= adaptive and not waits
    is_ready = is_small or bool(org.setting("post_waits", False))
    if is_post and not is_ready:
        return Progress("Running", min(adaptive, stored.rows), 0.0)
    if not is_post and not is_ready and stored.looks <= waits and (stored.looks == 0 or waits):
        share = stored.looks / (waits + 1)
        return Progress("Running", max(int(stored.rows * share), min(adaptive, stored.rows)), share)
    looks_needed = 0 if is_ready else waits + 1
    is_finished = is_look and not is_post and stored.looks > looks_needed
    return Progress("Finished" if is_finished else "ResultsProduced", stored.rows, 1.0)


def _status(org: Org, stored: Stored, progress: Progress) -> dict[str, Any]:
    """The state of a statement as Connect tells it."""
    expires = f"seconds: {int(stored.expires_at)}\n" if progress.word == "Finished" else ""
    as_text = org.setting("count_as_text", False)
    return {
        "queryId": _shown_id(org, stored.id),
        "completionStatus": progress.word,
        "progress": progress.share,
        "rowCount": str(progress.rows) if as_text else progress.rows,
        "chunkCount": _chunk_count(stored) if progress.word != "Running" else 0,
        "expirationTime": expires,
    }


def _shown_id(org: Org, query_id: str) -> str:
    return quote(query_id, safe="") if "/" in query_id else query_id


def _forget(org: Org, stored: Stored) -> None:
    with org.write("source") as connection:
        connection.execute("DELETE FROM statement WHERE id = ?", (stored.id,))
    for path in (stored.file, _text_file(stored), _places_file(stored)):
        path.unlink(missing_ok=True)


def _sweep(org: Org) -> None:
    """Results are kept for a day."""
    gone = org.db("source").execute("SELECT id, file FROM statement WHERE expires_at <= ?", (org.now(),)).fetchall()
    for query_id, file in gone:
        _forget(org, Stored(query_id, org.files(RESULTS) / file, 0, 0.0, 0.0, 0, 0.0))


def _sql_error(state: str, message: str, hint: str, *, position: int | None = None) -> dict[str, object]:
    details: dict[str, object] = {"customerHint": hint, "customerDetail": "", "errorSource": "User"}
    if position is not None:
        details["position"] = {"errorBeginCharacterOffset": position}
    return {"error": state, "message": message, "details": details}


def _columns(stored: Stored) -> list[dict[str, Any]]:
    """Names and types as Connect writes them; the file of a result says them."""
    columns: list[dict[str, Any]] = json.loads(pl.read_parquet_metadata(stored.file)[COLUMNS_KEY])
    return columns


def _v3_type(column: dict[str, Any]) -> dict[str, Any]:
    inner = {"inner": _v3_type(column["innerElement"])} if "innerElement" in column else {}
    kept = {name: value for name, value in column.items() if name != "innerElement"}
    return kept | {"type": V3_NAMES.get(column["type"], column["type"].lower())} | inner


def _check_span(offset: int, limit: int, total: int, refusal: Any) -> None:
    if limit <= 0:
        raise refusal("request out of range: the row limit must be greater than 0")
    if not 0 <= offset < total:
        raise refusal(f"request out of range: The specified offset is {offset}, but only {total} tuples are available.")


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        return -1


def _body(call: Call, shape: type[Any]) -> Any:
    try:
        return msgspec.convert(call.json, shape, strict=False)
    except msgspec.ValidationError as error:
        refusal = _v3_error if shape is V3Body else _connect_error
        raise refusal(400, "22023", f"invalid request: {error}") from None


# Pages


@dataclass(frozen=True)
class Span:
    """Rows that lie next to each other in a file, as JSON with ``BETWEEN`` between them; ``file`` is None for no rows."""

    file: Path | None
    start: int
    length: int
    rows: int


def _json_span(stored: Stored, offset: int, limit: int, byte_limit: int | None) -> Span:
    """At most that many rows and about that many bytes, at least one row."""
    if limit <= 0 or stored.rows == 0:
        return Span(None, 0, 0, 0)
    text, listed = _rendered(stored)
    with listed.open("rb") as file:
        places = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).cast("Q")
    start = places[offset]
    if byte_limit is not None:
        within = bisect_right(places, start + byte_limit, offset, offset + limit + 1) - 1 - offset
        limit = max(within, 1)
    return Span(text, start, places[offset + limit] - start - len(BETWEEN), limit)


def _json_answer(
    span: Span, head: bytes, tail: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """The rows as an array of arrays, between ``head`` and ``tail``."""
    if span.file is None:
        return bytes_answer(head + b"[]" + tail, JSON_TYPE, status=status, headers=headers)
    return file_answer(
        span.file,
        JSON_TYPE,
        start=span.start,
        length=span.length,
        head=head + b"[[",
        tail=b"]]" + tail,
        status=status,
        headers=headers,
    )


BETWEEN: Final = "],\n["


def _text_file(stored: Stored) -> Path:
    return stored.file.with_suffix(".json")


def _places_file(stored: Stored) -> Path:
    return stored.file.with_suffix(".places")


def _rendered(stored: Stored) -> tuple[Path, Path]:
    """All rows as JSON, rendered when the first page is asked for, and where each row begins in it and the last one ends,
    as numbers of eight bytes."""
    text, listed = _text_file(stored), _places_file(stored)
    if listed.exists():
        return text, listed
    # Under names of its own, so that another thread or process may do the same at the same time.
    mark = uuid.uuid4().hex
    fresh, fresh_places = text.with_suffix(f".{mark}"), listed.with_suffix(f".{mark}-places")
    end = 0
    with fresh.open("wb") as file, fresh_places.open("wb") as places:
        places.write(array("Q", [0]))
        for start in range(0, stored.rows, RENDERED_ROWS):
            lines = json_lines(pl.scan_parquet(stored.file).slice(start, RENDERED_ROWS).collect())
            lines.to_frame().write_csv(file, include_header=False, quote_style="never", line_terminator=BETWEEN)
            sizes = lines.str.len_bytes().cast(pl.UInt64) + len(BETWEEN)
            ends = array("Q", (sizes.cum_sum() + end).to_list())
            places.write(ends)
            end = ends[-1]
    fresh.rename(text)
    fresh_places.rename(listed)
    return text, listed


def _arrow_rows(stored: Stored, offset: int, limit: int, byte_limit: int | None) -> bytes:
    if limit > 0 and byte_limit is not None:
        size = _row_bytes(stored)
        limit = max(min(limit, int(byte_limit // size)), 1)
    content = io.BytesIO()
    pl.scan_parquet(stored.file).slice(offset, max(limit, 0)).collect().write_ipc_stream(content)
    return content.getvalue()


def _row_bytes(stored: Stored) -> float:
    """About how many bytes a row takes in an Arrow stream."""
    sample = pl.scan_parquet(stored.file).head(1000).collect()
    return max(sample.estimated_size() / max(sample.height, 1), 1.0) + 16.0 * sample.width


def _chunk_rows(stored: Stored) -> int:
    return max(int(CHUNK_BYTES // _row_bytes(stored)), 1) if stored.rows else 1


def _chunk_count(stored: Stored) -> int:
    return -(-stored.rows // _chunk_rows(stored))


CONNECT: Final = r"/services/data/v\d+\.\d/ssot/query-sql"
ID: Final = r"(?P<id>[^/]+)"

ROUTES: Final = (
    Route("POST", CONNECT, submit),
    Route("GET", f"{CONNECT}/{ID}", look),
    Route("GET", f"{CONNECT}/{ID}/rows", rows),
    Route("DELETE", f"{CONNECT}/{ID}", drop),
    Route("POST", "/api/v3/query", v3_submit, "tenant"),
    Route("GET", f"/api/v3/query/{ID}", v3_look, "tenant"),
    Route("GET", f"/api/v3/query/{ID}/rows", v3_rows, "tenant"),
    Route("GET", rf"/api/v3/query/{ID}/chunks/(?P<chunk>\d+)", v3_chunk, "tenant"),
    Route("GET", f"/api/v3/query/{ID}/metadata", v3_columns, "tenant"),
    Route("DELETE", f"/api/v3/query/{ID}", v3_drop, "tenant"),
)
