"""The life of a statement in Data Cloud: submit, poll until it is complete, read its stored rows by offset, delete it.

Two APIs speak of one engine and differ in spelling only: Query Connect on the core host (``ConnectQueries``) and Query
V3 on the tenant host (``TenantQueries``), whose rows come as Arrow.

Query Connect: https://developer.salesforce.com/docs/data/connectapi/guide/query-use-case.html
Query V3: https://developer.salesforce.com/docs/data/data-cloud-query-guide/references/data-cloud-query-api-reference/query-api-v3-post.html
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from sync_pipeline.domain.errors import RequestRefused
from sync_pipeline.salesforce.answer import Answer, BadAnswer, as_json, decode_json, json_body, nothing
from sync_pipeline.salesforce.rows import StatusJson, decode_rows
from sync_pipeline.salesforce.session import Session, path_part

log = logging.getLogger(__name__)

WORKLOAD = "sync-pipeline"
"""Named on every call, so that an administrator sees whose statements these are."""
WAIT_MS = 10_000
"""The longest poll both APIs allow."""
PAGE_BYTES = 20_000_000
"""The most bytes V3 puts into one page."""
ARROW = "application/vnd.apache.arrow.stream"
COMPLETE = ("resultsproduced", "finished")
UNFINISHED = ("running", "unspecified", "runningorunspecified")
FAILED = ("failed", "canceled", "cancelled")
"""States of a statement, without underscores and letter case. One that is not listed is waited for, up to the deadline."""
PARAMETER_NAME = re.compile(r"p_[a-z]+[0-9]*")
"""How every parameter is named. Hyper takes three of four ordinary words for keywords and refuses those as names
(``:after``, ``:through``, ``:last``, ``:value``: 42601); none of its keywords begins like this."""


@dataclass(frozen=True)
class Statement:
    """SQL text, its named parameters (``:name``), all of them text, and the names of its columns in order.

    Raises ``ValueError`` for a parameter that is not named by ``PARAMETER_NAME``.
    """

    sql: str
    parameters: Mapping[str, str]
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in self.parameters:
            if not PARAMETER_NAME.fullmatch(name):
                raise ValueError(f"Hyper might take the parameter name {name!r} for a keyword")


@dataclass(frozen=True)
class Progress:
    """How far a statement is. ``rows`` is final once ``is_complete``; before, rows may be missing."""

    query_id: str
    is_complete: bool
    rows: int


@dataclass(frozen=True)
class Rows:
    """Rows of a stored result, text columns only, and the bytes they came in."""

    frame: pl.DataFrame
    bytes: int


@dataclass(frozen=True)
class Submitted:
    """Answer to a submitted statement. ``first`` holds its first rows, when it was complete at once."""

    progress: Progress
    columns: Mapping[str, str]
    first: Rows | None


class Queries(Protocol):
    """What both APIs can do with a statement."""

    def submit(self, statement: Statement, *, seconds: float, rows: int) -> Submitted:
        """Starts it; ``rows`` is how many may come along, ``seconds`` its time limit in the engine."""

    def poll(self, query_id: str) -> Progress:
        """How far it is; waits for up to 10 s in the org while it runs."""

    def rows(self, query_id: str, columns: Sequence[str], *, offset: int, limit: int) -> Rows:
        """Up to ``limit`` rows from ``offset`` on, at least one. The offset must be below the rows of the result."""

    def drop(self, query_id: str) -> None:
        """Deletes the stored result."""


class ConnectQueries:
    """``/ssot/query-sql`` of the core host: no second token, JSON rows."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._params = {"dataspace": session.dataspace, "workloadName": WORKLOAD}

    def submit(self, statement: Statement, *, seconds: float, rows: int) -> Submitted:
        def read(answer: Answer) -> Submitted:
            body = json_body(answer)
            head, frame = decode_rows(body, statement.columns)
            status = head.status or decode_json(body, StatusJson)
            progress = _progress(status, query_id=status.queryId or head.queryId)
            complete = progress.is_complete and frame.height > 0
            return Submitted(progress, head.columns(), Rows(frame, len(body)) if complete else None)

        return self._session.send(
            "POST",
            "/ssot/query-sql",
            endpoint="query-sql",
            params=self._params,
            json={
                "sql": statement.sql,
                "rowLimit": rows,
                "sqlParameters": [
                    {"name": name, "type": "Varchar", "value": value} for name, value in statement.parameters.items()
                ],
                "querySettings": {"query_timeout": _milliseconds(seconds)},
            },
            read=read,
        )

    def poll(self, query_id: str) -> Progress:
        def read(answer: Answer) -> Progress:
            body = json_body(answer)
            nested = decode_json(body, _NestedStatus).status
            return _progress(nested or decode_json(body, StatusJson), query_id=query_id)

        return self._session.send(
            "GET",
            f"/ssot/query-sql/{path_part(query_id)}",
            endpoint="query-sql",
            params={"waitTimeMs": str(WAIT_MS), **self._params},
            read=read,
        )

    def rows(self, query_id: str, columns: Sequence[str], *, offset: int, limit: int) -> Rows:
        def read(answer: Answer) -> Rows:
            body = json_body(answer)
            return _some(Rows(decode_rows(body, columns, must_hold=True)[1], len(body)))

        return self._session.send(
            "GET",
            f"/ssot/query-sql/{path_part(query_id)}/rows",
            endpoint="rows",
            params={"offset": str(offset), "rowLimit": str(limit), **self._params},
            read=read,
        )

    def drop(self, query_id: str) -> None:
        self._session.send(
            "DELETE", f"/ssot/query-sql/{path_part(query_id)}", endpoint="query-sql", params=self._params, read=nothing
        )


class TenantQueries:
    """``/api/v3/query`` of the tenant host: pages of up to 20 MB, as Arrow."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._headers = {"x-hyperdb-workload": WORKLOAD}

    def submit(self, statement: Statement, *, seconds: float, rows: int) -> Submitted:
        def read(answer: Answer) -> Submitted:
            # The documents name this header "status" in one place and "x-hyperdb-status" in the other.
            header = answer.headers.get("x-hyperdb-status") or answer.headers.get("status", "")
            body = answer.content()
            status = decode_json(header.encode() if header.startswith("{") else body, StatusJson)
            progress = _progress(status, query_id=status.queryId)
            if not body:
                return Submitted(progress, {}, None)
            head, frame = decode_rows(body, statement.columns)
            complete = progress.is_complete and frame.height > 0
            return Submitted(progress, head.columns(), Rows(frame, len(body)) if complete else None)

        return self._session.send(
            "POST",
            "/api/v3/query",
            host="tenant",
            endpoint="v3 query",
            headers=self._headers,
            json={
                "sql": statement.sql,
                "transferMode": "ADAPTIVE",
                "paramStyle": "NAMED",
                "parameters": [
                    {"name": name, "type": "varchar", "value": value} for name, value in statement.parameters.items()
                ],
                "settings": {"query_timeout": _milliseconds(seconds)},
                "resultRange": {"rowLimit": rows, "byteLimit": PAGE_BYTES},
            },
            read=read,
        )

    def poll(self, query_id: str) -> Progress:
        return self._session.send(
            "GET",
            f"/api/v3/query/{path_part(query_id)}",
            host="tenant",
            endpoint="v3 query",
            params={"waitTimeMs": str(WAIT_MS)},
            headers=self._headers,
            read=lambda answer: _progress(as_json(StatusJson)(answer), query_id=query_id),
        )

    def rows(self, query_id: str, columns: Sequence[str], *, offset: int, limit: int) -> Rows:
        def read(answer: Answer) -> Rows:
            body = answer.content()
            return _some(Rows(_arrow(body, columns), len(body)))

        return self._session.send(
            "GET",
            f"/api/v3/query/{path_part(query_id)}/rows",
            host="tenant",
            endpoint="v3 rows",
            params={"offset": str(offset), "limit": str(limit), "byteLimit": str(PAGE_BYTES)},
            headers={**self._headers, "Accept": ARROW},
            read=read,
        )

    def drop(self, query_id: str) -> None:
        self._session.send(
            "DELETE",
            f"/api/v3/query/{path_part(query_id)}",
            host="tenant",
            endpoint="v3 query",
            headers=self._headers,
            read=nothing,
        )


class _NestedStatus(StatusJson):
    status: StatusJson | None = None


def _progress(status: StatusJson, *, query_id: str) -> Progress:
    """Both spellings: ``ResultsProduced`` and ``RESULTS_PRODUCED``."""
    word = status.completionStatus.replace("_", "").lower()
    if not query_id:
        raise BadAnswer("an answer that has no `queryId`, nor a `status` that holds one")
    if not word:
        raise BadAnswer("an answer that has no `completionStatus`")
    if word in FAILED:
        raise RequestRefused(f"The statement {query_id} ended as {status.completionStatus}.", hint="Run it again.")
    is_complete = word in COMPLETE
    if not is_complete and word not in UNFINISHED:
        log.debug("statement %s is in the unknown state %s; it is waited for", query_id, status.completionStatus)
    if is_complete and status.rowCount is None:  # 0 would be a result without rows
        raise BadAnswer("an answer that has no `rowCount`")
    return Progress(query_id, is_complete=is_complete, rows=status.rowCount or 0)


def _some(rows: Rows) -> Rows:
    # Rows are only asked for where there must be some, so an empty page is a fault on the way and never the end.
    if rows.frame.height == 0:
        raise BadAnswer("a page without rows before the end of the result")
    return rows


def _arrow(body: bytes, columns: Sequence[str]) -> pl.DataFrame:
    try:
        frame = pl.read_ipc_stream(io.BytesIO(body))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadAnswer(f"rows that are not a whole Arrow stream ({error})") from None
    if frame.width != len(columns):
        raise BadAnswer(f"rows of {frame.width} columns instead of {len(columns)}")
    frame.columns = list(columns)
    return frame.cast(pl.String)


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
