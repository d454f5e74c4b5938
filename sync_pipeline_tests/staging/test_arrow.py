"""Frames go to DuckDB and back by Arrow's C stream alone, with every value and every type."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_pipeline.staging.arrow import frame_of, handed_over

TYPES: dict[str, pl.DataType] = {
    "key": pl.String(),
    "Amount": pl.Decimal(38, 2),
    "CloseDate": pl.Date(),
    "Seen__c": pl.Datetime("ms", "UTC"),
    "IsWon": pl.Boolean(),
    "row": pl.Int64(),
}
ROWS = st.lists(
    st.tuples(
        st.none() | st.text(max_size=20),
        st.none() | st.decimals(min_value=-(10**15), max_value=10**15, places=2),
        st.none() | st.dates(min_value=date(1700, 1, 1), max_value=date(4000, 12, 31)),
        st.none()
        | st.datetimes(min_value=datetime(1700, 1, 1), max_value=datetime(4000, 12, 31)).map(
            lambda instant: instant.replace(microsecond=instant.microsecond // 1000 * 1000, tzinfo=UTC)
        ),
        st.none() | st.booleans(),
        st.none() | st.integers(min_value=-(2**63), max_value=2**63 - 1),
    ),
    max_size=20,
)
HOSTILE = ["'; DROP TABLE kept; --", "''", '"', "%", "a\nb", "a\0b", "\U0001f600", ""]
WITHOUT_PYARROW = """
import sys
sys.modules["pyarrow"] = None  # importing it fails from here on
import duckdb, polars as pl
from sync_pipeline.staging.arrow import frame_of, handed_over

database = duckdb.connect()
with handed_over(database, "given", pl.DataFrame({"a": [1, 2, 3]})):
    print(frame_of(database, "SELECT a FROM given WHERE a > ?", [1])["a"].to_list())
"""


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def frame(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=TYPES, orient="row")


# There and back


@settings(max_examples=30)
@given(rows=ROWS)
def test_every_value_comes_back_as_it_went_in_their_order(rows: list[tuple[object, ...]]) -> None:
    with duckdb.connect() as database, handed_over(database, "given", frame(rows)):
        back = frame_of(database, "SELECT * FROM given")

    assert back.columns == list(TYPES)
    assert back.rows() == frame(rows).rows()


@pytest.mark.parametrize(
    ("staged", "in_duckdb"),
    [
        ("key", "VARCHAR"),
        ("Amount", "DECIMAL(38,2)"),
        ("CloseDate", "DATE"),
        ("Seen__c", "TIMESTAMP WITH TIME ZONE"),
        ("IsWon", "BOOLEAN"),
        ("row", "BIGINT"),
    ],
)
def test_each_type_has_its_counterpart(database: duckdb.DuckDBPyConnection, staged: str, in_duckdb: str) -> None:
    with handed_over(database, "given", frame([])):
        described = {row[0]: row[1] for row in database.execute("DESCRIBE SELECT * FROM given").fetchall()}

    assert described[staged] == in_duckdb


def test_money_keeps_all_of_its_digits(database: duckdb.DuckDBPyConnection) -> None:
    largest = Decimal("9" * 36 + ".99")
    money = pl.DataFrame({"Amount": [largest]}, schema={"Amount": pl.Decimal(38, 2)})

    with handed_over(database, "given", money):
        back = frame_of(database, "SELECT Amount FROM given")

    assert back.schema == {"Amount": pl.Decimal(38, 2)}
    assert back.item() == largest


def test_no_rows_are_no_rows_of_the_same_columns(database: duckdb.DuckDBPyConnection) -> None:
    with handed_over(database, "given", frame([])):
        back = frame_of(database, "SELECT key, Amount, IsWon FROM given")

    assert (back.height, back.columns) == (0, ["key", "Amount", "IsWon"])
    assert (back.schema["key"], back.schema["Amount"], back.schema["IsWon"]) == (
        pl.String(),
        pl.Decimal(38, 2),
        pl.Boolean(),
    )


def test_a_frame_of_several_pieces_is_handed_over_whole(database: duckdb.DuckDBPyConnection) -> None:
    pieces = pl.concat([pl.DataFrame({"a": [n, n + 1]}) for n in range(0, 6, 2)], rechunk=False)
    assert pieces.n_chunks() == 3

    with handed_over(database, "given", pieces):
        assert frame_of(database, "SELECT a FROM given")["a"].to_list() == [0, 1, 2, 3, 4, 5]


# Names


def test_the_name_is_known_within_the_block_only(database: duckdb.DuckDBPyConnection) -> None:
    with handed_over(database, "given", pl.DataFrame({"a": [1]})):
        assert frame_of(database, "SELECT a FROM given").item() == 1

    with pytest.raises(duckdb.CatalogException, match="given"):
        frame_of(database, "SELECT a FROM given")


def test_a_statement_that_fails_leaves_no_name_behind(database: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(duckdb.BinderException), handed_over(database, "given", pl.DataFrame({"a": [1]})):
        frame_of(database, "SELECT nothing FROM given")

    with pytest.raises(duckdb.CatalogException, match="given"):
        frame_of(database, "SELECT a FROM given")


def test_several_frames_may_be_joined_and_each_read_twice(database: duckdb.DuckDBPyConnection) -> None:
    left, right = pl.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": [2, 3]})

    with handed_over(database, "one", left), handed_over(database, "other", right):
        for _ in range(2):
            assert frame_of(database, "SELECT one.a FROM one JOIN other ON one.a = other.a")["a"].to_list() == [2]


# Parameters


@pytest.mark.parametrize("text", HOSTILE)
def test_a_parameter_is_a_value_and_never_sql(database: duckdb.DuckDBPyConnection, text: str) -> None:
    database.execute("CREATE TABLE kept (a VARCHAR)")
    database.execute("INSERT INTO kept VALUES (?), ('another')", [text])

    found = frame_of(database, "SELECT a FROM kept WHERE a = ?", [text])

    assert found["a"].to_list() == [text]
    assert frame_of(database, "SELECT count(*) AS n FROM kept").item() == 2


# Without pyarrow


def test_pyarrow_is_not_needed() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_PYARROW], capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, "[2, 3]", "")
