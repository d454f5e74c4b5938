"""Result files come back row by row as the org wrote them, in frames of whatever size."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Sequence
from typing import Literal

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sync_pipeline.domain.errors import WireError
from sync_pipeline.salesforce.csv_results import FRAME_ROWS, read_frames

HOSTILE = [
    "",
    " ",
    '"',
    '""',
    ",",
    "\n",
    "\r",
    "\r\n",
    "\\",
    "'",
    "\t",
    "\x00",
    "\ufeff",
    "\u2028",
    "\x85",
    "#N/A",
    "\U0001f600",
]
cells = st.one_of(st.sampled_from(HOSTILE), st.text(alphabet='a",\n\r ', max_size=5), st.text(max_size=4))
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width).map(tuple), max_size=8)
)
HEADER = b'"sf__Id","sf__Created",External_ID__c,Name\n'


def written(names: Sequence[str], rows: Sequence[Sequence[str]], *, quoting: Literal[0, 1] = csv.QUOTE_ALL) -> bytes:
    """The rows as RFC 4180 has them, by a writer that is not ours."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=quoting, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue().encode()


def frames(content: bytes, wanted: dict[str, str] | None = None, *, frame_rows: int = FRAME_ROWS) -> list[pl.DataFrame]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        return list(read_frames(file, wanted, frame_rows=frame_rows))


def read(
    content: bytes, wanted: dict[str, str] | None = None, *, frame_rows: int = FRAME_ROWS
) -> list[tuple[str | None, ...]]:
    return [row for frame in frames(content, wanted, frame_rows=frame_rows) for row in frame.rows()]


# laws


@given(tables, st.integers(1, 60))
@example([('"', "\n"), ('\n"', "")], 1)
def test_any_rows_come_back_equal_through_frames_of_any_size(rows: list[tuple[str, ...]], frame_rows: int) -> None:
    names = [f"c{number}" for number in range(len(rows[0]) if rows else 2)]
    content = written(names, rows)

    assert read(content, frame_rows=frame_rows) == rows
    made = frames(content, frame_rows=frame_rows)
    assert all(frame.schema == dict.fromkeys(names, pl.String) for frame in made)
    assert all(0 < frame.height <= frame_rows for frame in made)


plain = cells.filter(lambda text: text and "\r" not in text)


@given(st.lists(st.tuples(plain, plain), max_size=8), st.integers(1, 60))
def test_values_that_need_no_quotes_may_come_without_them(rows: list[tuple[str, str]], frame_rows: int) -> None:
    assert read(written(["a", "b"], rows, quoting=csv.QUOTE_MINIMAL), frame_rows=frame_rows) == rows


@given(st.permutations(["sf__Id", "sf__Created", "External_ID__c", "Name"]), st.booleans())
def test_columns_are_found_by_name_in_any_order_and_letter_case(names: list[str], is_lower: bool) -> None:
    values = {"sf__Id": "006A", "sf__Created": "true", "External_ID__c": "key1", "Name": "One"}
    header = [name.lower() if is_lower else name for name in names]
    content = written(header, [[values[name] for name in names]])

    assert read(content, {"key": "External_ID__c", "id": "sf__Id"}) == [("key1", "006A")]


# the forms of a file


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", HEADER, HEADER.rstrip(b"\n"), HEADER.replace(b"\n", b"\r\n"), HEADER + b"\n", HEADER + b"\r\n"],
)
def test_a_file_without_rows_gives_no_frame(content: bytes) -> None:
    assert frames(content, {"key": "External_ID__c"}) == []


def test_the_documented_form_of_a_result_is_read() -> None:
    content = HEADER + b'"0065e00000A1","true","key,1","Quotes ""and""\ntwo lines"\n"0065e00000A2","false","key2",""\n'

    assert read(content, {"key": "External_ID__c", "id": "sf__Id", "created": "sf__Created", "name": "Name"}) == [
        ("key,1", "0065e00000A1", "true", 'Quotes "and"\ntwo lines'),
        ("key2", "0065e00000A2", "false", ""),
    ]


def test_a_header_may_have_quotes_commas_and_line_ends_inside() -> None:
    assert read(b'a,"b,\n""c""",d\n1,2,3\n', {"x": 'B,\n"C"'}) == [("2",)]


def test_lines_may_end_as_windows_ends_them_and_the_last_one_not_at_all() -> None:
    assert read(b'a,b\r\n"1","2"\r\n3,4\r\n') == [("1", "2"), ("3", "4")]
    assert read(b'a,b\n"1","2"\n3,4') == [("1", "2"), ("3", "4")]


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    assert read(b"\xef\xbb\xbf" + HEADER + b'"006A","true","key1","One"\n', {"id": "sf__Id"}) == [("006A",)]


def test_an_empty_field_is_null_and_a_quoted_one_is_text() -> None:
    assert read(b'a,b\n,""\n') == [(None, "")]


def test_only_what_is_wanted_is_kept_and_may_be_wanted_twice() -> None:
    content = HEADER + b'"006A","true","key1","One"\n'

    assert read(content, {"one": "Name", "two": "name"}) == [("One", "One")]


# what is no result file


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    with pytest.raises(WireError, match="no column External_ID__c, Stage; it has sf__Id, Name"):
        read(b"sf__Id,Name\n1,2\n", {"key": "External_ID__c", "stage": "Stage", "id": "sf__Id"})


@pytest.mark.parametrize(
    "content",
    [
        b"<html><body>Maintenance</body></html>",
        b'[{"errorCode":"NOT_FOUND","message":"gone"}]',
        b"\xff\xfe\x00",
        HEADER + b'"006A","true","\xff","One"\n',
        HEADER + b'"006A","true","key1\n',
        HEADER + b'"006A","true","key1"x,"One"\n',
        HEADER + b'"006A","tr',
        HEADER + b'"006A","true","key1","One"\n"006B","true","ke',
        HEADER + b'"006A","true","key1","One","more"\n',
    ],
)
def test_what_is_no_csv_of_that_header_is_an_error_and_not_a_row(content: bytes) -> None:
    with pytest.raises(WireError, match=r"A result file|no column"):
        read(content, {"key": "External_ID__c"})


def test_a_large_file_comes_in_frames_of_its_wanted_columns_in_its_order() -> None:
    rows = [(f"006{number:09d}", "true", f"key{number:07d}", "x" * 80) for number in range(60_000)]
    content = written(["sf__Id", "sf__Created", "External_ID__c", "Name"], rows)

    made = frames(content, {"key": "External_ID__c"}, frame_rows=25_000)

    assert len(made) == 3
    assert pl.concat(made)["key"].to_list() == [key for _, _, key, _ in rows]
