"""Both HTTP faces of Data Cloud in front of the real engine: what the client sends goes to Hyper, what Hyper answers comes back.

The faces are thin, as the service's own are thought to be: an HTTP call becomes the one call of the engine's query
service that means the same. Query Connect spells types in title case, the engine knows them in lower case only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx

from sync_pipeline_tests.contract.hyper import STATES, Hyper, Progress, Rows, SqlError

CONNECT_STATES = dict(zip(STATES, ("Running", "ResultsProduced", "Finished"), strict=True))
CONNECT_TYPES = {
    "bigint": "BigInt", "bool": "Bool", "char": "Char", "date": "Date", "float4": "Float", "float8": "Double",
    "integer": "Integer", "numeric": "Numeric", "oid": "Oid", "smallint": "SmallInt", "time": "Time",
    "timestamp": "Timestamp", "timestamptz": "TimestampTZ", "varchar": "Varchar",
}  # fmt: skip
"""How Connect spells the engine's types; V3 spells them as the engine does."""
HTTP_STATUS = {"NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 429}
"""Of an error by the name of its gRPC status; any other is the statement's own fault, 400."""
V3_PATH = "/api/v3/query"
ARROW = "application/vnd.apache.arrow.stream"


@dataclass(frozen=True)
class Asked:
    """A statement as the client sent it. Its parameters are spelled as the engine takes them."""

    sql: str
    parameters: tuple[tuple[tuple[str, str], ...], ...]
    settings: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, body: dict[str, Any]) -> Asked:
        is_v3 = "transferMode" in body
        assert not is_v3 or body["paramStyle"] == "NAMED"
        given = body["parameters"] if is_v3 else body["sqlParameters"]
        settings = body["settings"] if is_v3 else body["querySettings"]
        spelled = [{**parameter, "type": parameter["type"].lower()} for parameter in given]
        return cls(
            body["sql"], tuple(tuple(parameter.items()) for parameter in spelled), tuple(sorted(settings.items()))
        )

    def rows(self, hyper: Hyper) -> Rows:
        """All that the engine answers to it."""
        return hyper.query(self.sql, [dict(pairs) for pairs in self.parameters], settings=dict(self.settings))


class Faces:
    """A server for the client's session. ``asked`` holds the statements that reached it, in order; a page has no more
    than ``page_rows`` rows, and with ``comes_along`` false none comes with the answer to a submitted statement."""

    def __init__(self, hyper: Hyper, *, page_rows: int = 50_000, comes_along: bool = True) -> None:
        self.asked: list[Asked] = []
        self._hyper = hyper
        self._page_rows = page_rows
        self._comes_along = comes_along

    def __call__(self, request: httpx.Request) -> httpx.Response:
        is_v3 = request.url.path.startswith(V3_PATH)
        try:
            if request.method == "POST":
                return self._submitted(json.loads(request.content), is_v3=is_v3)
            query_id, _, rest = request.url.path.partition("/query/" if is_v3 else "/query-sql/")[2].partition("/")
            if request.method == "DELETE":
                self._hyper.cancel(query_id)
                return httpx.Response(204)
            if rest == "rows":
                return self._page(query_id, request, is_v3=is_v3)
            return httpx.Response(200, json=_status(self._hyper.status(query_id), is_v3=is_v3))
        except SqlError as error:
            return _refused(error, is_v3=is_v3)

    def _submitted(self, body: dict[str, Any], *, is_v3: bool) -> httpx.Response:
        asked = Asked.of(body)
        self.asked.append(asked)
        limit = body["resultRange"]["rowLimit"] if is_v3 else body["rowLimit"]
        progress, found = self._hyper.submit(
            asked.sql,
            [dict(pairs) for pairs in asked.parameters],
            settings=dict(asked.settings),
            mode="ADAPTIVE" if self._comes_along else "ASYNC",
            limit=min(limit, self._page_rows) if self._comes_along else None,
        )
        status = _status(progress, is_v3=is_v3)
        if is_v3:
            content = {"metadata": {"columns": found.columns}, "data": found.rows, "returnedRows": len(found.rows)}
            return httpx.Response(200, json=content, headers={"x-hyperdb-status": json.dumps(status)})
        return httpx.Response(201, json={**_connect(found), "status": status})

    def _page(self, query_id: str, request: httpx.Request, *, is_v3: bool) -> httpx.Response:
        params = request.url.params
        offset, limit = int(params["offset"]), min(int(params["limit" if is_v3 else "rowLimit"]), self._page_rows)
        if is_v3 and request.headers["accept"] == ARROW:
            stream = self._hyper.arrow(query_id, offset=offset, limit=limit)
            return httpx.Response(200, content=stream, headers={"Content-Type": ARROW})
        found = self._hyper.rows(query_id, offset=offset, limit=limit)
        return httpx.Response(200, json=_connect(found))


def connect_columns(found: Rows) -> list[dict[str, Any]]:
    """The columns in Connect's spelling."""
    return [{**column, "type": CONNECT_TYPES[column["type"]]} for column in found.columns]


def _connect(found: Rows) -> dict[str, Any]:
    return {"metadata": connect_columns(found), "data": found.rows, "returnedRows": len(found.rows)}


def _status(progress: Progress, *, is_v3: bool) -> dict[str, Any]:
    word = progress.state if is_v3 else CONNECT_STATES[progress.state]
    return {"queryId": progress.query_id, "completionStatus": word, "rowCount": progress.rows}


def _refused(error: SqlError, *, is_v3: bool) -> httpx.Response:
    code = HTTP_STATUS.get(error.code, 400)
    told = {"error": error.sqlstate, "message": error.message, "details": {"customerDetail": error.detail}}
    return httpx.Response(code, json=told if is_v3 else [{"errorCode": error.sqlstate, "message": json.dumps(told)}])
