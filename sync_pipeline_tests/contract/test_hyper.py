"""The real engine that the other tests lean on: it answers as the service's sheet of facts says it does."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sync_pipeline_tests.contract.hyper import Hyper, Number, SqlError, running


def varchar(name: str, value: str | None) -> dict[str, str | None]:
    return {"name": name, "type": "varchar", "value": value}


def test_rows_come_as_the_engine_writes_them(hyper: Hyper) -> None:
    found = hyper.query("SELECT 1.50 AS money, 'x' AS word, CAST(NULL AS text) AS nothing, CAST(2 AS bigint) AS n")

    assert found.names == ["money", "word", "nothing", "n"]
    assert found.types == ["numeric", "varchar", "varchar", "bigint"]
    assert found.rows == [[Number("1.50"), "x", None, Number("2")]]


@pytest.mark.parametrize(
    ("style", "sql"), [("NAMED", "SELECT :p"), ("QUESTION_MARK", "SELECT ?"), ("DOLLAR_NUMBERED", "SELECT $1")]
)
@pytest.mark.parametrize("value", ["", 'it\'s "é" \\ \U0001f600\n\x01', None])
def test_a_parameter_comes_back_in_each_style(hyper: Hyper, style: str, sql: str, value: str | None) -> None:
    assert hyper.query(sql, [varchar("p", value)], style=style).rows == [[value]]


def test_a_double_that_is_cast_to_text_keeps_fifteen_digits(hyper: Hyper) -> None:
    """README.md says so; in the engine's JSON it has all of them."""
    sql = "SELECT x, CAST(x AS varchar) FROM (SELECT CAST(:p_x AS double precision) AS x) AS t"

    found = [
        hyper.query(sql, [varchar("p_x", text)]).rows[0] for text in ("9007199254740991", "1234567.891234567", "0.1")
    ]

    assert found == [
        [Number("9.007199254740991e+15"), "9.00719925474099e+15"],
        [Number("1234567.891234567"), "1234567.89123457"],
        [Number("0.1"), "0.1"],
    ]


def test_a_table_holds_what_was_put_into_it(hyper: Hyper) -> None:
    rows = [["a\x00é ", "1.5", "0001-01-01"], [None, None, None], ["", "-0", "9999-12-31"]]

    holding = hyper.holding("T__dlm", {"Text__c": "text", "Money__c": "numeric(18,2)", "Date__c": "date"}, rows)

    assert holding.query('SELECT * FROM "T__dlm" ORDER BY "Text__c"').rows == [
        ["", Number("0.00"), "9999-12-31"],
        ["a\x00é ", Number("1.50"), "0001-01-01"],
        [None, None, None],
    ]


def test_tables_of_one_client_are_not_seen_by_another(hyper: Hyper) -> None:
    first = hyper.holding("T__dlm", {"a": "text"}, [["first"]])
    second = hyper.holding("T__dlm", {"a": "text"}, [["second"]])

    assert (first.query('SELECT * FROM "T__dlm"').rows, second.query('SELECT * FROM "T__dlm"').rows) == (
        [["first"]],
        [["second"]],
    )
    with pytest.raises(SqlError, match="42P01"):
        hyper.query('SELECT * FROM "T__dlm"')


def test_a_stored_result_is_read_by_offset(hyper: Hyper) -> None:
    started, first = hyper.submit("SELECT n FROM generate_series(1, 250000) AS g(n) ORDER BY n", mode="ASYNC")
    ended = hyper.status(started.query_id)

    assert (first.rows, ended.is_complete, ended.rows) == ([], True, 250_000)
    assert hyper.rows(started.query_id, offset=249_998, limit=7).rows == [[Number("249999")], [Number("250000")]]
    with pytest.raises(SqlError, match="22023 request out of range"):
        hyper.rows(started.query_id, offset=250_000)
    hyper.cancel(started.query_id)


def test_a_result_of_more_than_one_page_is_read_to_its_end(hyper: Hyper) -> None:
    found = hyper.query("SELECT n, repeat('x', 1000) FROM generate_series(1, 50000) AS g(n) ORDER BY n")

    assert [row[0].text for row in found.rows] == [str(n) for n in range(1, 50_001)]


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        ("SELECT 1 FRUM t", "42601"), ("SELECT * FROM nowhere", "42P01"), ("SELECT 1/0", "22012"),
        ("SELECT CAST('x' AS date)", "22P02"), ("SELECT (1, 2) > (1, 1)", "0A000"),
        ("SELECT :p", "42601"), ("SELECT :after", "42601"), ("CREATE TEMP TABLE t (a int)", "25006"),
    ],
)  # fmt: skip
def test_a_refusal_has_its_state(hyper: Hyper, sql: str, sqlstate: str) -> None:
    holding = hyper.holding("T__dlm", {"a": "text"})

    with pytest.raises(SqlError) as refused:
        holding.query(sql)

    assert refused.value.sqlstate == sqlstate


def test_an_unknown_setting_and_an_unknown_statement_are_refused(hyper: Hyper) -> None:
    with pytest.raises(SqlError, match="42601 unrecognized configuration parameter"):
        hyper.query("SELECT 1", settings={"no_such_setting": "1"})
    with pytest.raises(SqlError, match="02000") as refused:
        hyper.status("nobody")

    assert refused.value.code == "NOT_FOUND"


def test_it_is_gone_when_it_is_let_go(tmp_path: Path) -> None:
    with running(tmp_path) as engine:
        assert engine.query("SELECT 'here'").rows == [["here"]]
        host, port = engine.sql_address.removeprefix("tab.tcp://").split(":")
        socket.create_connection((host, int(port))).close()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
