"""What is uploaded says the same as the rows: every digit, every letter, and a null as the mapping wants it."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sync_pipeline.domain.mapping import FieldMapping, FieldType, Mapping, NullPolicy
from sync_pipeline.salesforce.csv_upload import SLICE_ROWS, render_csv

CLEAR, KEEP = NullPolicy.CLEAR, NullPolicy.KEEP
BERLIN = "Europe/Berlin"


def mapping_of(*fields: tuple[str, FieldType, NullPolicy]) -> Mapping:
    return Mapping(
        source_object="ExtOpportunities__dlm",
        source_key="ExternalId__c",
        target_object="Opportunity",
        target_key="External_ID__c",
        fields=tuple(FieldMapping(f"{name}__c", name, kind, null) for name, kind, null in fields),
    )


def rendered(values: Sequence[Any], dtype: pl.DataType, kind: FieldType, null: NullPolicy, folder: Path) -> list[str]:
    """The cells of a column with these values, as an independent reader finds them."""
    frame = pl.DataFrame(
        {"key": [f"key{number}" for number in range(len(values))], "Field": pl.Series(values, dtype=dtype)}
    )
    path = folder / "part.csv"
    render_csv(frame, mapping_of(("Field", kind, null)), path)
    rows = cells_of(path)
    assert rows[0] == ["External_ID__c", "Field"]
    assert [row[0] for row in rows[1:]] == frame["key"].to_list()
    return [row[1] for row in rows[1:]]


def cells_of(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8"), newline=""), strict=True))


# laws


texts = st.text(alphabet=st.one_of(st.sampled_from("a\",\n\r #N/A\\'\t\u2028\U0001f600"), st.characters(codec="utf-8")))
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@same_folder
@given(st.lists(st.one_of(st.none(), texts), min_size=1, max_size=10), st.sampled_from([CLEAR, KEEP]))
@example(["\r", "\r\n", "a\rb", '"', ",", "\n", "", None, "\ufeff"], CLEAR)
def test_text_comes_out_as_it_is_but_for_line_ends(tmp_path: Path, values: list[str | None], null: NullPolicy) -> None:
    found = rendered(values, pl.String(), FieldType.TEXT, null, tmp_path)

    nothing = "#N/A" if null is CLEAR else ""
    assert found == [value.replace("\r\n", "\n").replace("\r", "\n") if value else nothing for value in values]
    assert b"\r" not in (tmp_path / "part.csv").read_bytes()


@same_folder
@given(
    st.lists(st.one_of(st.none(), st.integers(-(10**38) + 1, 10**38 - 1)), min_size=1, max_size=10),
    st.integers(0, 18),
    st.sampled_from([CLEAR, KEEP]),
)
@example([1, 10**37, -1, None, 0], 18, KEEP)
def test_numbers_keep_every_digit_and_have_no_exponent(
    tmp_path: Path, values: list[int | None], scale: int, null: NullPolicy
) -> None:
    numbers = [None if value is None else Decimal(f"{value}E-{scale}") for value in values]

    found = rendered(numbers, pl.Decimal(38, scale), FieldType.NUMBER, null, tmp_path)

    nothing = "#N/A" if null is CLEAR else ""
    assert found == [nothing if number is None else f"{number:.{scale}f}" for number in numbers]


@same_folder
@given(
    st.lists(st.one_of(st.none(), st.datetimes(datetime(1700, 1, 1), datetime(4000, 12, 31))), min_size=1, max_size=8),
    st.sampled_from([CLEAR, KEEP]),
)
def test_instants_are_written_in_utc_with_milliseconds(
    tmp_path: Path, values: list[datetime | None], null: NullPolicy
) -> None:
    instants = [
        None if value is None else value.replace(microsecond=value.microsecond // 1000 * 1000) for value in values
    ]

    found = rendered(instants, pl.Datetime("ms", "UTC"), FieldType.DATETIME, null, tmp_path)

    nothing = "#N/A" if null is CLEAR else ""
    assert [None if cell == nothing else datetime.strptime(cell, "%Y-%m-%dT%H:%M:%S.%f%z") for cell in found] == [
        None if instant is None else instant.replace(tzinfo=UTC) for instant in instants
    ]
    assert all(cell == nothing or len(cell) == len("2024-01-02T03:04:05.678Z") for cell in found)


@same_folder
@given(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 99)), max_size=12), st.integers(0, 12))
def test_size_and_checksum_are_those_of_the_file(tmp_path: Path, rows: list[tuple[str, int]], longer_by: int) -> None:
    path = tmp_path / "part.csv"
    path.write_bytes(b"x" * (1000 + longer_by))
    frame = pl.DataFrame(rows, schema={"key": pl.String, "Amount": pl.Decimal(38, 2)}, orient="row")

    size, checksum = render_csv(frame, mapping_of(("Amount", FieldType.NUMBER, CLEAR)), path)

    content = path.read_bytes()
    assert (size, checksum) == (len(content), zlib.crc32(content))
    assert len(cells_of(path)) == len(rows) + 1


# values as they stand in the file


@pytest.mark.parametrize(("null", "nothing"), [(CLEAR, "#N/A"), (KEEP, "")])
@pytest.mark.parametrize(
    ("kind", "dtype", "values", "expected"),
    [
        (FieldType.TEXT, pl.String(), ["One", ""], ["One", None]),
        (FieldType.REFERENCE, pl.String(), ["001A"], ["001A"]),
        (FieldType.BOOLEAN, pl.Boolean(), [True, False], ["true", "false"]),
        (FieldType.DATE, pl.Date(), [date(2024, 1, 2), date(1700, 1, 1)], ["2024-01-02", "1700-01-01"]),
        (
            FieldType.DATETIME,
            pl.Datetime("us", "UTC"),
            [datetime(2024, 1, 2, 3, 4, 5, 678901, UTC), datetime(2024, 1, 2, tzinfo=UTC)],
            ["2024-01-02T03:04:05.678Z", "2024-01-02T00:00:00.000Z"],
        ),
        (FieldType.DATETIME, pl.Datetime("ms"), [datetime(2024, 1, 2, 3, 4, 5)], ["2024-01-02T03:04:05.000Z"]),
        (
            FieldType.NUMBER,
            pl.Decimal(38, 2),
            [Decimal("1.50"), Decimal("-0.05"), Decimal("12345678901234567890.12"), Decimal(0)],
            ["1.50", "-0.05", "12345678901234567890.12", "0.00"],
        ),
    ],
)
def test_each_type_has_its_own_form_and_a_null_the_one_of_its_policy(
    tmp_path: Path,
    kind: FieldType,
    dtype: pl.DataType,
    values: list[Any],
    expected: list[str | None],
    null: NullPolicy,
    nothing: str,
) -> None:
    found = rendered([*values, None], dtype, kind, null, tmp_path)

    assert found == [nothing if cell is None else cell for cell in [*expected, None]]
    # Without any null the same values are written in the same form.
    assert rendered(values, dtype, kind, null, tmp_path) == found[:-1]


@pytest.mark.parametrize("null", [CLEAR, KEEP])
def test_another_zone_is_converted_to_utc(tmp_path: Path, null: NullPolicy) -> None:
    values = [datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2024, 7, 2, 3, 4, 5, tzinfo=UTC)]
    frame = pl.DataFrame({"key": ["a", "b", "c"], "At": pl.Series([*values, None], dtype=pl.Datetime("ms", "UTC"))})
    path = tmp_path / "part.csv"

    render_csv(
        frame.with_columns(pl.col("At").dt.convert_time_zone(BERLIN)),
        mapping_of(("At", FieldType.DATETIME, null)),
        path,
    )

    assert [row[1] for row in cells_of(path)[1:3]] == ["2024-01-02T03:04:05.000Z", "2024-07-02T03:04:05.000Z"]


# the file


def test_the_file_is_utf8_without_a_mark_with_commas_line_feeds_and_the_header_of_the_mapping(tmp_path: Path) -> None:
    frame = pl.DataFrame({"Unmapped": ["x", "y"], "Name": ["Ö, K", None], "key": ["a", 'b"c']})
    path = tmp_path / "part.csv"

    render_csv(frame, mapping_of(("Name", FieldType.TEXT, CLEAR)), path)

    assert path.read_bytes() == 'External_ID__c,Name\na,"Ö, K"\n"b""c",#N/A\n'.encode()


def test_the_columns_stand_in_the_order_of_the_mapping(tmp_path: Path) -> None:
    fields = [("B", FieldType.TEXT, CLEAR), ("A", FieldType.TEXT, KEEP)]
    frame = pl.DataFrame({"A": ["a"], "B": ["b"], "key": ["k"]})

    render_csv(frame, mapping_of(*fields), tmp_path / "part.csv")

    assert cells_of(tmp_path / "part.csv") == [["External_ID__c", "B", "A"], ["k", "b", "a"]]


def test_a_key_is_written_as_it_is(tmp_path: Path) -> None:
    """Its row is found in the results by it; a key that cannot be written so must not come here."""
    hostile = ['"', "a,b", "a\nb", "'", "\u2028", "\U0001f600", "a b"]
    frame = pl.DataFrame({"key": hostile, "Name": ["x"] * len(hostile)})

    render_csv(frame, mapping_of(("Name", FieldType.TEXT, CLEAR)), tmp_path / "part.csv")

    assert [row[0] for row in cells_of(tmp_path / "part.csv")[1:]] == hostile


def test_the_file_is_private_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "part.csv"
    frame = pl.DataFrame({"key": ["a"], "Name": ["x"]})

    render_csv(frame, mapping_of(("Name", FieldType.TEXT, CLEAR)), path)
    first = path.read_bytes()
    path.write_bytes(b"y" * 10_000)
    render_csv(frame, mapping_of(("Name", FieldType.TEXT, CLEAR)), path)

    assert path.read_bytes() == first
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("rows", [0, 1, SLICE_ROWS - 1, SLICE_ROWS, SLICE_ROWS + 1, 2 * SLICE_ROWS + 3])
def test_there_is_one_header_and_every_row_however_many_slices_it_takes(tmp_path: Path, rows: int) -> None:
    keys = [f"key{number:07d}" for number in range(rows)]
    # Only the last row is null, so that the slices differ in whether they hold one.
    names = [None if number == rows - 1 else "x" for number in range(rows)]
    frame = pl.DataFrame({"key": keys, "Name": names}, schema={"key": pl.String, "Name": pl.String})

    render_csv(frame, mapping_of(("Name", FieldType.TEXT, CLEAR)), tmp_path / "part.csv")

    found = cells_of(tmp_path / "part.csv")
    assert found[0] == ["External_ID__c", "Name"]
    assert [row[0] for row in found[1:]] == keys
    assert [row[1] for row in found[1:]] == [name or "#N/A" for name in names]
