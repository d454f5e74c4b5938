"""Rows of text come out of JSON as they were written, or not at all."""

from __future__ import annotations

import gc
import json
import threading
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.salesforce.answer import BadAnswer
from sync_pipeline.salesforce.rows import FRAME_ROWS, StatusJson, decode_rows, decoding

cells = st.one_of(st.none(), st.text(max_size=8))


def body(rows: Any, **more: Any) -> bytes:
    return json.dumps({"data": rows, **more}).encode()


# laws


@given(st.integers(1, 5).flatmap(lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1)))
def test_rows_come_back_as_they_were_written(rows: list[list[str | None]]) -> None:
    columns = [f"c{number}" for number in range(len(rows[0]))]

    _, frame = decode_rows(body(rows, returnedRows=len(rows)), columns)

    assert frame.columns == columns
    assert set(frame.dtypes) == {pl.String}
    assert [list(row) for row in frame.rows()] == rows


@pytest.mark.parametrize("rows", [FRAME_ROWS - 1, FRAME_ROWS, FRAME_ROWS + 1, 3 * FRAME_ROWS + 7])
def test_no_row_is_lost_where_frames_are_joined(rows: int) -> None:
    written = [[f"key{number:07d}", None if number % 3 else str(number)] for number in range(rows)]

    _, frame = decode_rows(body(written), ["k", "n"])

    assert [list(row) for row in frame.rows()] == written


# what is not a row


@pytest.mark.parametrize(
    "row", [[1, "b"], ["a", 1.5], ["a", True], ["a", ["b"]], ["a", {"b": "c"}], ["a"], ["a", "b", "c"], "ab", None]
)
def test_a_row_of_other_width_or_with_anything_but_text_is_refused(row: Any) -> None:
    with pytest.raises(BadAnswer, match="not the expected JSON"):
        decode_rows(body([["a", "b"], row]), ["k", "n"])


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"data": [["a", "b"]', b'{"data": [["\xff", "b"]]}', b"[" * 100_000]
)
def test_an_answer_that_holds_no_rows_at_all_is_refused(text: bytes) -> None:
    with pytest.raises(BadAnswer, match="not the expected JSON"):
        decode_rows(text, ["k", "n"])


@pytest.mark.parametrize("announced", [0, 1, 3, "3"])
def test_rows_that_were_announced_and_are_not_there_are_missed(announced: int | str) -> None:
    with pytest.raises(BadAnswer, match=f"2 rows where {announced} were announced"):
        decode_rows(body([["a"], ["b"]], returnedRows=announced), ["k"])


@pytest.mark.parametrize("rows", [None, []])
def test_no_rows_are_an_empty_frame_of_the_same_columns(rows: Any) -> None:
    _, frame = decode_rows(body(rows, returnedRows=0), ["k", "n"])

    assert frame.schema == {"k": pl.String, "n": pl.String}
    assert frame.height == 0


def test_an_answer_without_rows_says_how_far_it_is() -> None:
    head, frame = decode_rows(b'{"status": {"queryId": "q", "completionStatus": "Running", "rowCount": "7"}}', ["k"])

    assert frame.height == 0
    assert head.status == StatusJson("q", "Running", 7)


# what else an answer says


def test_both_spellings_of_the_columns_are_understood() -> None:
    columns = [{"name": "ExternalId__c", "type": "Varchar", "nullable": True}, {"name": "Amount__c", "type": "Numeric"}]

    connect, _ = decode_rows(body([], metadata=columns), ["a", "b"])
    v3, _ = decode_rows(body([], metadata={"columns": columns}), ["a", "b"])
    silent, _ = decode_rows(body([]), ["a", "b"])

    assert connect.columns() == v3.columns() == {"ExternalId__c": "Varchar", "Amount__c": "Numeric"}
    assert silent.columns() == {}


def test_columns_are_named_by_position_whatever_the_answer_calls_them() -> None:
    _, frame = decode_rows(body([["a", "b"]], metadata=[{"name": "n"}, {"name": "K"}]), ["K", "n"])

    assert frame.rows(named=True) == [{"K": "a", "n": "b"}]


def test_rows_are_not_kept_twice() -> None:
    head, frame = decode_rows(body([["a"], ["b"]]), ["k"])

    assert frame.height == 2
    assert head.data is None


# the garbage collector


def test_garbage_is_collected_again_after_decoding() -> None:
    assert gc.isenabled()
    decode_rows(body([["a"]]), ["k"])
    assert gc.isenabled()
    with pytest.raises(BadAnswer):
        decode_rows(b"{", ["k"])
    assert gc.isenabled()


def test_threads_decode_in_turn_and_garbage_is_collected_afterwards() -> None:
    seen: list[bool] = []
    entered = threading.Event()

    def decode() -> None:
        entered.set()
        with decoding():
            seen.append(gc.isenabled())

    thread = threading.Thread(target=decode)
    with decoding():
        thread.start()
        assert entered.wait(20)
        thread.join(0.05)
        assert (seen, thread.is_alive(), gc.isenabled()) == ([], True, False)
    thread.join(20)

    assert seen == [False]
    assert gc.isenabled()


def test_who_switched_the_collector_off_finds_it_off() -> None:
    gc.disable()
    try:
        decode_rows(body([["a"]]), ["k"])
        assert not gc.isenabled()
    finally:
        gc.enable()
