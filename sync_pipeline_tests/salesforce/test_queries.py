"""One statement's life in both query APIs: what is sent, and which of the many spellings of an answer are understood."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

import httpx
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.domain.errors import RequestRefused, WireError
from sync_pipeline.salesforce.queries import ConnectQueries, Progress, Queries, Statement, Submitted, TenantQueries
from sync_pipeline_tests.salesforce.conftest import (
    Piecewise,
    Wire,
    access_token,
    answers,
    bearer,
    body_of,
    tenant_token,
)

ID = "MTAuMjIuMTQ4LjE4MTo3NDg0_9c77528b-78b5-a08d-f443-c05dcb8305b7"
STATEMENT = Statement(
    'SELECT CAST(s."K" AS VARCHAR) AS "K" FROM "T" AS s WHERE s."K" > :p_after', {"p_after": "it's"}, ("K",)
)
CONNECT = "/services/data/v66.0/ssot/query-sql"
V3 = "/api/v3/query"
PLAIN = {"dataspace": ["sales"], "workloadName": ["sync-pipeline"]}
ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}


def status(word: str, *, rows: Any = 3, query_id: str = ID) -> dict[str, Any]:
    return {
        "queryId": query_id,
        "completionStatus": word,
        "progress": 1.0,
        "rowCount": rows,
        "chunkCount": 1,
        "expirationTime": "seconds: 1738344542\n",
    }


def arrow(frame: pl.DataFrame) -> bytes:
    stream = io.BytesIO()
    frame.write_ipc_stream(stream)
    return stream.getvalue()


def connect(*replies: httpx.Response) -> tuple[Wire, Queries]:
    wire = Wire(answers(*replies), dataspace="sales")
    return wire, ConnectQueries(wire.session)


def tenant(*replies: httpx.Response) -> tuple[Wire, Queries]:
    wire = Wire(answers(*replies), dataspace="sales")
    return wire, TenantQueries(wire.session)


def submit(queries: Queries) -> Submitted:
    return queries.submit(STATEMENT, seconds=1800.0, rows=50_000)


@pytest.mark.parametrize(
    "name", ["after", "through", "k0", "run_id", "p_", "P_after", "p_0", "p_after ", "p_after\n", ""]
)
def test_a_parameter_that_the_engine_might_read_as_a_keyword_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="keyword"):
        Statement(f"SELECT :{name}", {name: "x"}, ("K",))


def query_of(request: httpx.Request) -> dict[str, list[str]]:
    return parse_qs(request.url.query.decode())


# Query Connect


def connect_answer(
    word: str, rows: list[list[str | None]] | None, *, nested: bool = True, count: Any = 3, code: int = 201
) -> httpx.Response:
    state = status(word, rows=count)
    metadata = [{"name": "K", "type": "Varchar", "nullable": True}]
    content = {"data": rows, "metadata": metadata, "returnedRows": len(rows or ())}
    return httpx.Response(code, json={**content, "status": state} if nested else {**content, **state})


def test_connect_submits_the_statement_with_its_parameters_apart() -> None:
    wire, queries = connect(connect_answer("ResultsProduced", [["a"]]))

    submit(queries)

    assert wire.sent == [("POST", CONNECT)]
    assert query_of(wire.requests[0]) == PLAIN
    assert bearer(wire.requests[0]) == access_token(1)
    assert body_of(wire.requests[0]) == {
        "sql": STATEMENT.sql,
        "rowLimit": 50_000,
        "sqlParameters": [{"name": "p_after", "type": "Varchar", "value": "it's"}],
        "querySettings": {"query_timeout": "1800000ms"},
    }


@pytest.mark.parametrize("code", [200, 201])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("count", [3, "3"])
@pytest.mark.parametrize(
    ("word", "is_complete"),
    [
        ("ResultsProduced", True),
        ("Finished", True),
        ("RESULTS_PRODUCED", True),
        ("Running", False),
        ("Unspecified", False),
        ("RUNNING_OR_UNSPECIFIED", False),
    ],
)
def test_connect_understands_every_spelling_of_a_status(
    word: str, is_complete: bool, count: Any, nested: bool, code: int
) -> None:
    _, queries = connect(connect_answer(word, [["a"]], nested=nested, count=count, code=code))

    submitted = submit(queries)

    assert submitted.progress == Progress(ID, is_complete=is_complete, rows=3)
    assert submitted.columns == {"K": "Varchar"}


def test_rows_that_come_along_count_only_once_the_statement_is_complete() -> None:
    """Rows of a running statement may be some of them, in a number that still grows."""
    _, queries = connect(
        connect_answer("Running", [["a"], ["b"]]),
        connect_answer("ResultsProduced", [["a"], ["b"]]),
        connect_answer("ResultsProduced", []),
        connect_answer("ResultsProduced", None),
    )

    firsts = [submit(queries).first for _ in range(4)]

    assert [None if first is None else first.frame.rows() for first in firsts] == [None, [("a",), ("b",)], None, None]


def test_an_id_beside_the_status_is_an_id_too() -> None:
    state = {key: value for key, value in status("Running").items() if key != "queryId"}
    _, queries = connect(httpx.Response(200, json={"queryId": ID, "data": [], "status": state}))

    assert submit(queries).progress.query_id == ID


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"data": [["a"]]}, "queryId"),
        ({"status": {"queryId": ID}}, "completionStatus"),
        ({"status": {"queryId": ID, "completionStatus": None}}, "completionStatus"),
        ({"status": {"queryId": ID, "completionStatus": "Finished"}}, "rowCount"),
        ({"status": {"queryId": ID, "completionStatus": "Finished", "rowCount": None}}, "rowCount"),
        ({"completionStatus": "Running"}, "queryId"),
        ({}, "queryId"),
    ],
)
def test_an_answer_without_what_is_needed_of_a_statement_names_it(content: dict[str, Any], field: str) -> None:
    wire, queries = connect(*(httpx.Response(200, json=content) for _ in range(6)))

    with pytest.raises(WireError, match=f"has no `{field}`"):
        submit(queries)

    assert len(wire.requests) == 6


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("count", [7, "7"])
def test_connect_polls_as_long_as_the_org_allows(count: Any, nested: bool) -> None:
    state = status("Running", rows=count)
    wire, queries = connect(httpx.Response(200, json={"status": state} if nested else state))

    assert queries.poll(ID) == Progress(ID, is_complete=False, rows=7)

    assert wire.sent == [("GET", f"{CONNECT}/{ID}")]
    assert query_of(wire.requests[0]) == {**PLAIN, "waitTimeMs": ["10000"]}


def test_reading_waits_longer_than_the_org_thinks() -> None:
    wire, queries = connect(httpx.Response(200, json=status("Finished")))

    queries.poll(ID)

    timeout = wire.requests[0].extensions["timeout"]
    assert timeout["read"] >= 120 + 10
    assert timeout["connect"] == 10


def test_connect_reads_rows_by_the_offset_of_the_result() -> None:
    wire, queries = connect(httpx.Response(200, json={"data": [["a", None]], "metadata": [], "returnedRows": 1}))

    rows = queries.rows(ID, ("K", "N"), offset=50_000, limit=50_000)

    assert rows.frame.rows(named=True) == [{"K": "a", "N": None}]
    assert rows.bytes == len('{"data":[["a",null]],"metadata":[],"returnedRows":1}')
    assert wire.sent == [("GET", f"{CONNECT}/{ID}/rows")]
    assert query_of(wire.requests[0]) == {**PLAIN, "offset": ["50000"], "rowLimit": ["50000"]}


@pytest.mark.parametrize("code", [200, 204])
def test_connect_deletes_a_result(code: int) -> None:
    wire, queries = connect(httpx.Response(code))

    queries.drop(ID)

    assert wire.sent == [("DELETE", f"{CONNECT}/{ID}")]
    assert query_of(wire.requests[0]) == PLAIN


@pytest.mark.parametrize(
    ("query_id", "on_the_wire"),
    [(ID, ID), ("MTAu%2FMjI", "MTAu%2FMjI"), ("MTAu/MjI=", "MTAu%2FMjI%3D"), ("a_b.c~d", "a_b.c~d")],
)
def test_an_id_is_written_as_it_was_given(query_id: str, on_the_wire: str) -> None:
    wire, queries = connect(
        httpx.Response(200, json=status("Finished")),
        httpx.Response(200, json={"data": [["a"]]}),
        httpx.Response(204),
    )

    queries.poll(query_id)
    queries.rows(query_id, ("K",), offset=0, limit=1)
    queries.drop(query_id)

    assert [path for _, path in wire.sent] == [
        f"{CONNECT}/{on_the_wire}",
        f"{CONNECT}/{on_the_wire}/rows",
        f"{CONNECT}/{on_the_wire}",
    ]


def test_connect_tells_what_the_engine_complains_about() -> None:
    inner = json.dumps({"error": "42P01", "message": 'table "T" does not exist', "details": {"errorSource": "User"}})
    _, queries = connect(httpx.Response(400, json=[{"errorCode": "BAD_REQUEST", "message": inner}]))

    with pytest.raises(RequestRefused, match='table "T" does not exist') as refused:
        submit(queries)

    assert (refused.value.status, refused.value.code) == (400, "42P01")


# Query V3


def v3_answer(
    word: str, rows: list[list[str | None]] | None, *, header: str = "x-hyperdb-status", count: Any = 3
) -> httpx.Response:
    content = {"metadata": {"columns": [{"name": "K", "type": "varchar", "nullable": True}]}, "data": rows}
    return httpx.Response(200, json=content, headers={header: json.dumps(status(word, rows=count))})


def test_v3_submits_the_statement_with_its_parameters_apart() -> None:
    wire, queries = tenant(v3_answer("RESULTS_PRODUCED", [["a"]]))

    submit(queries)

    assert wire.sent == [("POST", V3)]
    assert wire.requests[0].url.host == "tenant.c360a.salesforce.com"
    assert bearer(wire.requests[0]) == tenant_token(1)
    assert wire.requests[0].headers["x-hyperdb-workload"] == "sync-pipeline"
    assert body_of(wire.requests[0]) == {
        "sql": STATEMENT.sql,
        "transferMode": "ADAPTIVE",
        "paramStyle": "NAMED",
        "parameters": [{"name": "p_after", "type": "varchar", "value": "it's"}],
        "settings": {"query_timeout": "1800000ms"},
        "resultRange": {"rowLimit": 50_000, "byteLimit": 20_000_000},
    }
    assert parse_qs(wire.exchanges[0].content.decode())["dataspace"] == ["sales"]


@pytest.mark.parametrize("header", ["x-hyperdb-status", "status"])
@pytest.mark.parametrize("count", [3, "3"])
@pytest.mark.parametrize(
    ("word", "is_complete"), [("RESULTS_PRODUCED", True), ("FINISHED", True), ("RUNNING_OR_UNSPECIFIED", False)]
)
def test_v3_finds_the_status_under_both_names_of_its_header(
    word: str, is_complete: bool, count: Any, header: str
) -> None:
    _, queries = tenant(v3_answer(word, [["a"]], header=header, count=count))

    submitted = submit(queries)

    assert submitted.progress == Progress(ID, is_complete=is_complete, rows=3)
    assert submitted.columns == {"K": "varchar"}
    assert (submitted.first is not None) == is_complete


def test_v3_may_answer_with_the_status_alone() -> None:
    header = {"x-hyperdb-status": json.dumps(status("RUNNING_OR_UNSPECIFIED", rows="0"))}
    _, queries = tenant(httpx.Response(200, headers=header), httpx.Response(200, json=status("RUNNING_OR_UNSPECIFIED")))

    assert submit(queries) == Submitted(Progress(ID, is_complete=False, rows=0), {}, None)
    assert submit(queries).progress == Progress(ID, is_complete=False, rows=3)


def test_v3_polls_with_the_status_as_body() -> None:
    wire, queries = tenant(httpx.Response(200, json=status("FINISHED", rows="3000000000")))

    assert queries.poll(ID) == Progress(ID, is_complete=True, rows=3_000_000_000)

    assert wire.sent == [("GET", f"{V3}/{ID}")]
    assert query_of(wire.requests[0]) == {"waitTimeMs": ["10000"]}


def test_v3_reads_rows_as_arrow_in_its_own_spelling() -> None:
    frame = pl.DataFrame({"x": ["a", None], "y": [Decimal("1.50"), None], "z": [date(2024, 1, 2), None]})
    wire, queries = tenant(httpx.Response(200, content=arrow(frame), headers=ARROW))

    rows = queries.rows(ID, ("K", "N", "D"), offset=100, limit=200)

    assert rows.frame.rows(named=True) == [
        {"K": "a", "N": "1.50", "D": "2024-01-02"},
        {"K": None, "N": None, "D": None},
    ]
    assert wire.sent == [("GET", f"{V3}/{ID}/rows")]
    assert query_of(wire.requests[0]) == {"offset": ["100"], "limit": ["200"], "byteLimit": ["20000000"]}
    assert wire.requests[0].headers["accept"] == "application/vnd.apache.arrow.stream"


def test_v3_deletes_a_result() -> None:
    wire, queries = tenant(httpx.Response(204))

    queries.drop(ID)

    assert wire.sent == [("DELETE", f"{V3}/{ID}")]


@given(st.data())
def test_arrow_cut_off_anywhere_gives_the_first_rows_or_none_at_all(data: st.DataObject) -> None:
    keys = [f"key{number}" for number in range(40)]
    whole = arrow(pl.DataFrame({"K": keys}))
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    _, queries = tenant(
        httpx.Response(200, stream=Piecewise(cut), headers=ARROW), httpx.Response(200, content=whole, headers=ARROW)
    )

    got = queries.rows(ID, ("K",), offset=0, limit=40).frame["K"].to_list()

    assert got == keys[: len(got)]
    assert got


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b'{"data": [["a"]]}', arrow(pl.DataFrame({"K": ["a"], "more": ["b"]}))]
)
def test_rows_that_are_no_arrow_of_the_right_width_are_refused(content: bytes) -> None:
    _, queries = tenant(*(httpx.Response(200, content=content, headers=ARROW) for _ in range(6)))

    with pytest.raises(WireError, match=r"not a whole Arrow stream|2 columns instead of 1"):
        queries.rows(ID, ("K",), offset=0, limit=1)


def test_v3_tells_what_the_engine_complains_about() -> None:
    syntax = {"error": "42601", "message": 'syntax error at or near "FORM"', "details": {"errorSource": "User"}}
    gone = {"error": "02000", "message": "the requested query ID is unknown"}
    slow = {"error": "53S01", "message": "The query exceeded the time limit of 1800 s"}
    wire, queries = tenant(
        httpx.Response(400, json=syntax), httpx.Response(404, json=gone), httpx.Response(429, json=slow)
    )

    refusals = []
    for act in (lambda: submit(queries), lambda: queries.poll(ID), lambda: submit(queries)):
        with pytest.raises(RequestRefused) as refused:
            act()
        refusals.append((refused.value.status, refused.value.code))

    assert refusals == [(400, "42601"), (404, "02000"), (429, "53S01")]
    assert len(wire.requests) == 3


# both


BOTH = pytest.mark.parametrize(
    ("api", "empty"),
    [
        (connect, lambda: httpx.Response(200, json={"data": [], "returnedRows": 0})),
        (tenant, lambda: httpx.Response(200, content=arrow(pl.DataFrame({"K": []}, schema={"K": pl.String})))),
    ],
)


@BOTH
def test_an_empty_page_is_a_fault_on_the_way_and_never_the_end(
    api: Callable[..., tuple[Wire, Queries]], empty: Callable[[], httpx.Response]
) -> None:
    wire, queries = api(*(empty() for _ in range(6)))

    with pytest.raises(WireError, match="a page without rows before the end of the result"):
        queries.rows(ID, ("K",), offset=0, limit=1)

    assert len(wire.requests) == 6


@pytest.mark.parametrize("api", [connect, tenant])
@pytest.mark.parametrize("word", ["Failed", "CANCELED", "Cancelled"])
def test_a_statement_that_failed_is_refused_and_not_polled_on(
    word: str, api: Callable[..., tuple[Wire, Queries]]
) -> None:
    wire, queries = api(httpx.Response(200, json=status(word)))

    with pytest.raises(RequestRefused, match=f"ended as {word}"):
        queries.poll(ID)

    assert len(wire.requests) == 1


@pytest.mark.parametrize(("api", "names"), [(connect, ["query-sql", "rows"]), (tenant, ["v3 query", "v3 rows"])])
def test_calls_are_counted_by_what_they_do(api: Callable[..., tuple[Wire, Queries]], names: list[str]) -> None:
    page = (
        httpx.Response(200, json={"data": [["a"]]})
        if api is connect
        else httpx.Response(200, content=arrow(pl.DataFrame({"K": ["a"]})))
    )
    wire, queries = api(httpx.Response(200, json=status("Finished")), page, httpx.Response(204))

    queries.poll(ID)
    queries.rows(ID, ("K",), offset=0, limit=1)
    queries.drop(ID)

    assert wire.counted == {names[0]: 2, names[1]: 1}
