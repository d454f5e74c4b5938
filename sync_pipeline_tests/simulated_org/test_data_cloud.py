"""Data Cloud's Query APIs: the life of a statement, its pages, and what is refused."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.simulated_org.login import new_token
from sync_pipeline.simulated_org.result_json import json_lines
from sync_pipeline.simulated_org.source import change_source, write_source
from sync_pipeline.simulated_org.sql_words import Parameter, SqlError, read_words
from sync_pipeline_tests.simulated_org.conftest import Asker, asker

QUERY = "/ssot/query-sql"
V3 = "/api/v3/query"
ARROW = "application/vnd.apache.arrow.stream"
ROWS = 5_000
ALL = 'SELECT "k", "n" FROM "Things__dlm" ORDER BY "k"'


@pytest.fixture
def things(asked: Asker) -> Asker:
    frame = pl.DataFrame({"k": [f"key{n:05d}" for n in range(ROWS)], "n": list(range(ROWS))})
    write_source(asked.org, "Things__dlm", [frame])
    return asked


@pytest.fixture
def tenant(things: Asker) -> Asker:
    return asker(things.org, kind="tenant")


def submit(asked: Asker, sql: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = asked.json("POST", QUERY, json={"sql": sql, "rowLimit": 50_000, **more})
    return answer


def look(asked: Asker, answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = asked.json("GET", f"{QUERY}/{answer['status']['queryId']}")
    return found


def page(asked: Asker, answer: dict[str, Any], offset: int, **params: Any) -> dict[str, Any]:
    path = f"{QUERY}/{answer['status']['queryId']}/rows"
    found: dict[str, Any] = asked.json("GET", path, params={"offset": offset, **params})
    return found


# The life of a statement


def test_a_small_result_is_complete_with_its_first_answer(things: Asker) -> None:
    answer = submit(things, 'SELECT count(*) AS "n" FROM "Things__dlm"')

    assert answer["data"] == [[ROWS]]
    assert answer["metadata"] == [{"name": "n", "type": "BigInt", "nullable": True}]
    assert (answer["status"]["completionStatus"], answer["status"]["rowCount"]) == ("ResultsProduced", 1)


def test_a_large_one_is_running_at_first_then_produced_then_finished(things: Asker) -> None:
    answer = submit(things, ALL)

    states = [answer["status"], *(look(things, answer) for _ in range(3))]
    assert [state["completionStatus"] for state in states] == ["Running", "ResultsProduced", "Finished", "Finished"]
    assert [state["rowCount"] for state in states] == [2_000, ROWS, ROWS, ROWS]
    assert len(answer["data"]) == 2_000
    assert states[1]["expirationTime"] == ""
    assert states[2]["expirationTime"].startswith("seconds: ")


def test_the_row_count_grows_while_a_statement_runs(things: Asker) -> None:
    things.org.set_setting("running_polls", 3)
    answer = submit(things, ALL)

    states = [look(things, answer) for _ in range(4)]

    assert [state["completionStatus"] for state in states] == ["Running"] * 3 + ["ResultsProduced"]
    counts = [state["rowCount"] for state in states]
    assert counts == sorted(counts)
    assert counts[0] < ROWS == counts[-1]


def test_rows_that_are_not_there_yet_cannot_be_read(things: Asker) -> None:
    things.org.set_setting("running_polls", 3)
    answer = submit(things, ALL)
    look(things, answer)

    refused = things.ask("GET", f"{QUERY}/{answer['status']['queryId']}/rows", params={"offset": ROWS - 1})

    assert refused.status_code == 400


def test_a_paced_statement_takes_its_time(things: Asker) -> None:
    things.org.set_setting("pace", {"query_seconds": 100})
    answer = submit(things, ALL)
    first = look(things, answer)
    things.org.advance(60)
    second = look(things, answer)
    things.org.advance(60)

    assert (first["completionStatus"], second["completionStatus"]) == ("Running", "Running")
    assert first["rowCount"] <= second["rowCount"] < ROWS
    assert look(things, answer)["rowCount"] == ROWS
    assert page(things, answer, ROWS - 1)["returnedRows"] == 1


def test_a_statement_over_its_own_time_limit_is_refused(things: Asker) -> None:
    things.org.set_setting("pace", {"query_seconds": 100})

    refused = things.ask("POST", QUERY, json={"sql": ALL, "querySettings": {"query_timeout": "5000ms"}})

    assert refused.status_code == 408
    assert json.loads(refused.json()[0]["message"])["error"] == "53S01"


def test_a_result_is_of_the_moment_it_was_asked_for(things: Asker) -> None:
    answer = submit(things, ALL)
    look(things, answer)

    change_source(things.org, "Things__dlm", lambda frame: frame.head(1))

    assert page(things, answer, 4_000)["returnedRows"] == 1_000
    assert submit(things, 'SELECT count(*) FROM "Things__dlm"')["data"] == [[1]]


def test_results_expire_after_a_day(things: Asker) -> None:
    answer = submit(things, ALL)

    things.org.advance(86_401)
    token = new_token(things.org, kind="core", client="simulated", user_id=things.org.user_id)

    gone = things.ask("GET", f"{QUERY}/{answer['status']['queryId']}", headers={"Authorization": f"Bearer {token}"})
    assert gone.status_code == 404


def test_a_deleted_result_is_gone_with_its_files(things: Asker) -> None:
    answer = submit(things, ALL)
    look(things, answer)
    page(things, answer, 0)

    assert things.ask("DELETE", f"{QUERY}/{answer['status']['queryId']}").status_code == 204
    assert things.ask("GET", f"{QUERY}/{answer['status']['queryId']}").status_code == 404
    assert list(things.org.files("results").iterdir()) == []


def test_nobody_reads_the_results_of_another_user(things: Asker) -> None:
    answer = submit(things, ALL)
    admin = asker(things.org, user_id=things.org.admin_id)

    assert admin.ask("GET", f"{QUERY}/{answer['status']['queryId']}").status_code == 404


def test_the_same_statement_may_come_from_the_cache(things: Asker) -> None:
    things.org.set_setting("result_cache_seconds", 3_600)
    count = 'SELECT count(*) FROM "Things__dlm" WHERE :run = :run'

    def counted(run: str) -> int:
        parameters = [{"name": "run", "type": "Varchar", "value": run}]
        found: int = submit(things, count, sqlParameters=parameters)["data"][0][0]
        return found

    first = counted("one")
    change_source(things.org, "Things__dlm", lambda frame: frame.head(7))

    assert (first, counted("one"), counted("two")) == (ROWS, ROWS, 7)


# Pages


@pytest.mark.parametrize("page_bytes", [1, 100, 5_000, 2_000_000])
def test_pages_under_any_byte_cap_hold_every_row_once_in_order(things: Asker, page_bytes: int) -> None:
    things.org.set_setting("page_bytes", page_bytes)
    answer = submit(things, 'SELECT "k" FROM "Things__dlm" WHERE "n" < 300 ORDER BY "k"')
    look(things, answer)
    keys: list[str] = []
    while len(keys) < 300:
        found = page(things, answer, len(keys), rowLimit=120)
        assert 1 <= found["returnedRows"] == len(found["data"]) <= 120
        keys += [row[0] for row in found["data"]]

    assert keys == [f"key{n:05d}" for n in range(300)]


@pytest.mark.parametrize(("offset", "limit"), [(ROWS, 1), (ROWS + 7, 1), (-1, 1), (0, 0), (0, -5), ("x", 1)])
def test_a_span_outside_of_the_result_is_refused(things: Asker, offset: Any, limit: int) -> None:
    answer = submit(things, ALL)
    look(things, answer)

    refused = things.ask(
        "GET", f"{QUERY}/{answer['status']['queryId']}/rows", params={"offset": offset, "rowLimit": limit}
    )

    assert refused.status_code == 400
    assert json.loads(refused.json()[0]["message"])["error"] == "22023"


def test_the_schema_can_be_left_out(things: Asker) -> None:
    answer = submit(things, ALL)
    look(things, answer)

    assert "metadata" in page(things, answer, 0)
    assert "metadata" not in page(things, answer, 0, omitSchema="true")


def test_an_empty_page_is_a_fault_and_passes(things: Asker) -> None:
    things.fault("empty_page nth=1")
    answer = submit(things, ALL)
    look(things, answer)

    assert [page(things, answer, 0, rowLimit=10)["returnedRows"] for _ in range(2)] == [0, 10]


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


@given(
    st.lists(
        st.tuples(
            st.none() | TEXTS,
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.none() | st.booleans(),
            st.none() | st.dates(date(1, 1, 1)),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_every_value_comes_back_from_its_json(rows: list[tuple[Any, ...]]) -> None:
    kinds = {"text": pl.String, "whole": pl.Int64, "double": pl.Float64, "truth": pl.Boolean, "day": pl.Date}
    frame = pl.DataFrame(rows, schema=kinds, orient="row")

    found = [json.loads(f"[{line}]") for line in json_lines(frame)]

    expected = [[value.isoformat() if isinstance(value, date) else value for value in row] for row in rows]
    assert found == expected


def test_numbers_keep_their_digits(asked: Asker) -> None:
    exact = Decimal("12345678901234567890.123456789012345678")
    write_source(asked.org, "Money__dlm", [pl.DataFrame({"m": [exact]}, schema={"m": pl.Decimal(38, 18)})])

    answer = asked.ask("POST", QUERY, json={"sql": 'SELECT "m" FROM "Money__dlm"'})

    assert json.loads(answer.text, parse_float=Decimal)["data"] == [[exact]]
    assert answer.json()["metadata"][0] == {
        "name": "m",
        "type": "Numeric",
        "precision": 38,
        "scale": 18,
        "nullable": True,
    }


# SQL


ELSEWHERE = """
import sys
from pathlib import Path
from sync_pipeline.simulated_org.query_engine import run_statement
from sync_pipeline.simulated_org.state import Org
import polars as pl
folder = Path(sys.argv[1])
sql = "SELECT CAST(TIMESTAMPTZ '2024-03-31 01:30:00+00' AS VARCHAR), CAST(TIMESTAMPTZ '2024-03-31 01:30:00+00' AS DATE)"
org = Org(folder)
org.files("results").mkdir(parents=True, exist_ok=True)
run_statement(org, sql, [], org.files("results") / "found.parquet")
print(*pl.read_parquet(org.files("results") / "found.parquet").row(0))
"""


def test_instants_are_written_in_utc_wherever_the_machine_stands(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path / "org")],
        env=os.environ | {"TZ": "America/New_York"}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ran.stdout == "2024-03-31 01:30:00+00 2024-03-31\n", ran.stderr


def test_text_is_compared_by_bytes_and_nulls_come_last(asked: Asker) -> None:
    texts = ["b", "B", "a", None, "é", "𝄞", "￿", "", " "]
    write_source(asked.org, "Texts__dlm", [pl.DataFrame({"t": texts})])

    up = submit(asked, 'SELECT "t" FROM "Texts__dlm" ORDER BY "t"')["data"]
    down = submit(asked, 'SELECT "t" FROM "Texts__dlm" ORDER BY "t" DESC')["data"]

    known = [text for text in texts if text is not None]
    assert [text for (text,) in up] == [*sorted(known), None]
    assert [text for (text,) in down] == [None, *sorted(known, reverse=True)]


@pytest.mark.parametrize(
    ("sql", "state"),
    [
        ("SELEC 1", "42601"),
        ("SELECT 1; SELECT 2", "42601"),
        ('SELECT "x" FROM "Things__dlm"', "42703"),
        ('SELECT 1 FROM "Nowhere__dlm"', "42P01"),
        ("SELECT frobnicate(1)", "42883"),
        ("SELECT CAST('a' AS integer)", "22P02"),
        ('DELETE FROM "Things__dlm"', "25006"),
        ("CREATE TABLE t (a int)", "25006"),
        ("SELECT * FROM read_csv('/etc/passwd')", "42601"),
        ("SELECT * FROM read_parquet('../org.sqlite')", "42601"),
        ("SELECT :missing", "42601"),
    ],
)
def test_bad_statements_are_refused_with_their_state(things: Asker, sql: str, state: str) -> None:
    refused = things.ask("POST", QUERY, json={"sql": sql})

    assert refused.status_code == 400
    assert json.loads(refused.json()[0]["message"])["error"] == state


@given(TEXTS)
def test_a_parameter_is_a_value_whatever_it_holds(value: str) -> None:
    statement = read_words(
        "SELECT ':a', \":a\", '::' || :a -- :a\n/* :a */ , x::text", [Parameter("Varchar", value, "a")]
    )

    assert statement.text == "select ':a', \":a\", '::' || $p0  \n  , x::text"
    assert statement.values == {"p0": value}
    assert statement.types == {"p0": "VARCHAR"}


def test_parameters_are_known_by_name_by_mark_and_by_number() -> None:
    two = [Parameter("varchar", "x"), Parameter("BigInt", "2")]

    assert read_words("SELECT ?, ?", two).values == {"p0": "x", "p1": "2"}
    assert read_words("SELECT $2", two).types == {"p1": "BIGINT"}
    with pytest.raises(SqlError):
        read_words("SELECT ?, ?, ?", two)


def test_a_wrong_data_space_is_refused(things: Asker) -> None:
    refused = things.ask("POST", QUERY, params={"dataspace": "secret"}, json={"sql": ALL})

    assert refused.status_code == 403


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error of a statement, as Connect wraps it."""
    assert answer.status_code == 400, answer.text
    found: dict[str, Any] = json.loads(answer.json()[0]["message"])
    return found


def test_arrays_and_intervals_are_answered_as_json(asked: Asker) -> None:
    answer = submit(asked, "SELECT array[1, null], array['a'], interval '1 day 2.5 seconds', array[1.50]")

    assert answer["data"] == [[[1, None], ["a"], "P1DT2.500000S", [1.5]]]
    assert [column["type"] for column in answer["metadata"]] == ["Array", "Array", "Interval", "Array"]
    assert answer["metadata"][0]["innerElement"] == {"type": "Integer"}


def test_the_order_of_rows_is_kept_when_their_values_are_stored_otherwise(things: Asker) -> None:
    sql = """SELECT "n" * interval '1' day, CAST("k" AS char(9)) FROM "Things__dlm" WHERE "n" < 500 ORDER BY "n" DESC"""
    answer = submit(things, sql)

    assert [row[1] for row in answer["data"]] == [f"key{n:05d} " for n in reversed(range(500))]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT array[array[1]]",
        "SELECT duckdb_settings()",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM duckdb_tables()",
        "SELECT * FROM pg_catalog.pg_settings",
        "SELECT current_setting('temp_directory')",
        'SELECT filename FROM "Things__dlm"',
        'SELECT file_row_number FROM "Things__dlm"',
        "SELECT * FROM glob('/*')",
        "SELECT getenv('HOME')",
        'SELECT * FROM "/etc/passwd"',
    ],
)
def test_no_statement_shows_the_host_or_breaks_the_connection(things: Asker, sql: str) -> None:
    refused = things.ask("POST", QUERY, json={"sql": sql})

    assert error_of(refused)["error"] in ("0A000", "42601", "42703", "42883", "42P01")
    assert str(things.org.folder) not in refused.text


def test_an_unknown_setting_is_refused(things: Asker) -> None:
    settings = {"query_timeout": "5000ms", "lc_time": "en_US", "date_style": "MDY"}

    assert submit(things, "SELECT 1", querySettings=settings)["data"] == [[1]]
    for unknown in ({"frob": "1"}, {"threads": "8"}):
        refused = things.ask("POST", QUERY, json={"sql": "SELECT 1", "querySettings": unknown})
        assert error_of(refused)["error"] == "42601"


def test_a_setting_that_would_change_an_answer_is_refused(things: Asker) -> None:
    refused = things.ask("POST", QUERY, json={"sql": "SELECT 1", "querySettings": {"date_style": "DMY"}})

    assert error_of(refused)["error"] == "0A000"


@pytest.mark.parametrize("seconds", [-1, 16])
def test_an_adaptive_timeout_has_its_limits(things: Asker, seconds: int) -> None:
    refused = things.ask("POST", QUERY, json={"sql": "SELECT 1", "adaptiveTimeout": seconds})

    assert error_of(refused)["error"] == "22023"
    assert submit(things, "SELECT 1", adaptiveTimeout=15)["data"] == [[1]]


def test_columns_of_one_name_are_told_apart_by_their_place(things: Asker) -> None:
    answer = submit(things, 'SELECT "k", "n", "n" + 1 AS "n", count(*) OVER () FROM "Things__dlm" ORDER BY 1 LIMIT 1')

    assert [column["name"] for column in answer["metadata"]] == ["k", "n", "n", "count"]
    assert answer["data"] == [["key00000", 0, 1, ROWS]]


def test_a_query_may_look_at_the_row_around_it(things: Asker) -> None:
    sql = """
        SELECT count(*) FROM "Things__dlm" AS a WHERE EXISTS (
            SELECT 1 FROM "Things__dlm" AS b WHERE b."n" = a."n" / 2 AND b."k" < a."k" AND a."n" < 10)
    """

    assert submit(things, sql)["data"] == [[9]]


def test_the_catalogue_lists_objects_and_their_columns(things: Asker) -> None:
    # The statements of the official MCP server.
    tables = submit(
        things,
        "SELECT c.relname AS TABLE_NAME FROM pg_catalog.pg_namespace n, pg_catalog.pg_class c LEFT JOIN "
        "pg_catalog.pg_description d ON (c.oid = d.objoid AND d.objsubid = 0  and d.classoid = 'pg_class'::regclass) "
        "WHERE c.relnamespace = n.oid AND c.relname LIKE :p_filter",
        sqlParameters=[{"type": "Varchar", "name": "p_filter", "value": "%"}],
    )
    columns = submit(
        things,
        "SELECT a.attname FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON (c.relnamespace = n.oid) JOIN "
        "pg_catalog.pg_attribute a ON (a.attrelid = c.oid) JOIN pg_catalog.pg_type t ON (a.atttypid = t.oid) LEFT JOIN "
        "pg_catalog.pg_attrdef def ON (a.attrelid = def.adrelid AND a.attnum = def.adnum) LEFT JOIN "
        "pg_catalog.pg_description dsc ON (c.oid = dsc.objoid AND a.attnum = dsc.objsubid) LEFT JOIN pg_catalog.pg_class "
        "dc ON (dc.oid = dsc.classoid AND dc.relname = 'pg_class') WHERE a.attnum > 0 AND NOT a.attisdropped "
        "AND c.relname = :tablename",
        sqlParameters=[{"type": "Varchar", "name": "tablename", "value": "Things__dlm"}],
    )

    assert (tables["metadata"][0]["name"], tables["data"]) == ("table_name", [["Things__dlm"]])
    assert sorted(columns["data"]) == [["k"], ["n"]]


# V3


def v3_submit(
    tenant: Asker, sql: str, *, accept: str = "application/json", **more: Any
) -> tuple[dict[str, Any], bytes]:
    answer = tenant.ask("POST", V3, json={"sql": sql, **more}, headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    assert answer.headers["status"] == answer.headers["x-hyperdb-status"]
    return json.loads(answer.headers["status"]), answer.content


def test_v3_tells_the_state_in_a_header_and_the_rows_as_arrow(tenant: Asker) -> None:
    status, content = v3_submit(tenant, ALL, accept=ARROW)
    looked = tenant.json("GET", f"{V3}/{status['queryId']}")
    found = tenant.ask("GET", f"{V3}/{status['queryId']}/rows", params={"offset": 4_990}, headers={"Accept": ARROW})

    assert (status["completionStatus"], content) == ("RUNNING_OR_UNSPECIFIED", b"")
    assert (looked["completionStatus"], looked["rowCount"]) == ("RESULTS_PRODUCED", ROWS)
    assert pl.read_ipc_stream(io.BytesIO(found.content)).rows()[0] == ("key04990", 4_990)


def test_v3_pages_and_chunks_hold_every_row_once(tenant: Asker) -> None:
    status, _ = v3_submit(tenant, ALL)
    tenant.json("GET", f"{V3}/{status['queryId']}")
    keys: list[str] = []
    while len(keys) < ROWS:
        params = {"offset": len(keys), "limit": 4_000, "byteLimit": 30_000}
        found = tenant.ask("GET", f"{V3}/{status['queryId']}/rows", params=params, headers={"Accept": ARROW})
        keys += pl.read_ipc_stream(io.BytesIO(found.content))["k"].to_list()
    (chunk,) = [tenant.json("GET", f"{V3}/{status['queryId']}/chunks/0")]

    assert keys == [f"key{n:05d}" for n in range(ROWS)]
    assert [row[0] for row in chunk["data"]] == keys
    assert tenant.ask("GET", f"{V3}/{status['queryId']}/chunks/1").status_code == 400


def test_v3_counts_may_be_text(tenant: Asker) -> None:
    tenant.org.set_setting("count_as_text", True)

    status, _ = v3_submit(tenant, 'SELECT 1 AS "one"')

    assert (status["rowCount"], status["chunkCount"]) == ("1", "1")


def test_v3_refuses_in_its_own_words(tenant: Asker) -> None:
    wrong = tenant.ask("POST", V3, json={"sql": "SELEC 1"})
    unknown = tenant.ask("GET", f"{V3}/nobody")
    unacceptable = tenant.ask("POST", V3, json={"sql": ALL}, headers={"Accept": "text/html"})

    assert (wrong.status_code, wrong.json()["error"]) == (400, "42601")
    assert (unknown.status_code, unknown.json()["error"]) == (404, "02000")
    assert unacceptable.status_code == 406


@pytest.mark.parametrize(
    ("sql", "place"), [("SELECT 'é' FROM WHERE", 16), ("SELECT :after", 7), ("SELECT 'é' // 2", 11)]
)
def test_v3_tells_where_a_statement_is_wrong(tenant: Asker, sql: str, place: int) -> None:
    refused = tenant.ask("POST", V3, json={"sql": sql, "paramStyle": "NAMED"}).json()

    assert refused["error"] == "42601"
    assert refused["details"]["position"] == {"errorBeginCharacterOffset": place}


@pytest.mark.parametrize(("style", "written"), [("QUESTION_MARK", ":p"), ("NAMED", "?"), ("DOLLARED", "?")])
def test_v3_takes_parameters_in_the_style_it_was_told(tenant: Asker, style: str, written: str) -> None:
    body = {"paramStyle": style, "parameters": [{"type": "varchar", "value": "v", "name": "p"}]}

    assert tenant.ask("POST", V3, json={"sql": f"SELECT {written}", **body}).json()["error"] == "42601"
    right = {"QUESTION_MARK": "?", "NAMED": ":p", "DOLLARED": "$1"}[style]
    assert tenant.json("POST", V3, json={"sql": f"SELECT {right}", **body})["data"] == [["v"]]


def test_v3_gives_no_more_rows_than_it_was_asked_for(tenant: Asker) -> None:
    found = tenant.json(
        "POST", V3, json={"sql": 'SELECT "n", "n" FROM "Things__dlm" ORDER BY "n" DESC;', "queryRowLimit": 3}
    )
    none = tenant.json("POST", V3, json={"sql": "SELECT 1 + 1", "queryRowLimit": 0})

    assert found["data"] == [[4_999, 4_999], [4_998, 4_998], [4_997, 4_997]]
    assert [column["name"] for column in found["metadata"]["columns"]] == ["n", "n"]
    assert (none["data"], none["metadata"]["columns"][0]["name"]) == ([], "1")


def test_the_tenant_host_takes_no_core_token(things: Asker) -> None:
    refused = things.ask("POST", V3, json={"sql": ALL})

    assert refused.status_code == 401
    assert refused.json()["internalErrorCode"] == "COMMON_ERROR_GENERIC"


def test_ids_with_a_slash_travel_as_they_are_shown(things: Asker) -> None:
    things.org.set_setting("query_id_slash", True)
    answer = submit(things, ALL)

    assert "%2F" in answer["status"]["queryId"]
    assert look(things, answer)["rowCount"] == ROWS
