"""JSON rows of the Query API to frames of text, the hottest loop of reading.

Every selected column is cast to VARCHAR in the statement, so a row is a tuple of texts and nulls: msgspec refuses
anything else, and numbers keep every digit. Rows become frames of 2,000, because larger ones made from Python objects
fall out of the processor's cache (measured: 0.8 against 1.1 µs per row of 6 columns).
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec
import polars as pl

from sync_pipeline.salesforce.answer import BadAnswer, believed

FRAME_ROWS = 2000

Row = TypeVar("Row")


class ColumnJson(msgspec.Struct):
    """Name and SQL type of one column."""

    name: str
    type: str = ""


class ColumnsJson(msgspec.Struct):
    """How V3 wraps the columns."""

    columns: list[ColumnJson]


class StatusJson(msgspec.Struct):
    """State of a statement. Counts may come as text, and are not final while it runs."""

    queryId: str = ""
    completionStatus: str = ""
    rowCount: int | None = None


class HeadJson(msgspec.Struct):
    """What the Query APIs answer beside rows: their columns, and for a submitted Connect statement its status."""

    metadata: list[ColumnJson] | ColumnsJson | None = None
    returnedRows: int | None = None
    status: StatusJson | None = None
    queryId: str = ""

    def columns(self) -> dict[str, str]:
        """Column name to SQL type; empty when the answer does not say."""
        listed = self.metadata.columns if isinstance(self.metadata, ColumnsJson) else self.metadata
        return {column.name: column.type for column in listed or ()}


class RowsJson(HeadJson, Generic[Row]):
    """The same with its rows."""

    data: list[Row] | None = None


_one_at_a_time = threading.Lock()


@contextmanager
def decoding() -> Iterator[None]:
    """One thread of the process at a time makes Python objects of rows, while the garbage collector is off.

    Rows hold no cycles, and looking for them costs a third. Threads would only take turns here, each with ten megabytes
    of half a page in its hands.
    """
    with _one_at_a_time:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if was_enabled:
                gc.enable()


def decode_rows(body: bytes, columns: Sequence[str], *, must_hold: bool = False) -> tuple[HeadJson, pl.DataFrame]:
    """The answer and its rows as a frame of text columns, named ``columns`` by position.

    Raises ``BadAnswer`` when a row has another width or a value that is not text, or rows were announced that are not
    there; and, where it ``must_hold`` some, when there are no rows at all.
    """
    with decoding():
        try:
            answer = _decoded(body, len(columns))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadAnswer(f"rows (`data`) that are not the expected JSON ({error})") from None
        rows = answer.data or []
        if answer.data is None and must_hold:
            raise BadAnswer("an answer that has no `data`")
        if answer.data is not None and answer.returnedRows is not None and answer.returnedRows != len(rows):
            raise BadAnswer(f"{len(rows)} rows where {answer.returnedRows} were announced")
        frame = _frame(rows, columns)
        answer.data = None
        del rows
    return answer, frame


def _decoded(body: bytes, width: int) -> RowsJson[Any]:
    try:
        return _decoder(width).decode(body)
    except msgspec.ValidationError:
        # What stands beside the rows may be of any type; the rows themselves may not.
        parts = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        rows = _row_decoder(width).decode(parts.pop("data", b"null"))
        head = believed({name: msgspec.json.decode(part) for name, part in parts.items()}, HeadJson)
        return RowsJson(head.metadata, head.returnedRows, head.status, head.queryId, rows)


@cache
def _decoder(width: int) -> msgspec.json.Decoder[RowsJson[Any]]:
    row: Any = tuple[(str | None,) * width]  # type: ignore[misc]
    return msgspec.json.Decoder(RowsJson[row], strict=False)


@cache
def _row_decoder(width: int) -> msgspec.json.Decoder[list[Any] | None]:
    row: Any = tuple[(str | None,) * width]  # type: ignore[misc]
    return msgspec.json.Decoder(list[row] | None, strict=False)


def _frame(rows: list[tuple[str | None, ...]], columns: Sequence[str]) -> pl.DataFrame:
    if not rows:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    pieces = (rows[start : start + FRAME_ROWS] for start in range(0, len(rows), FRAME_ROWS))
    frames = [
        pl.DataFrame(
            [
                pl.Series(name, values, dtype=pl.String)
                for name, values in zip(columns, zip(*piece, strict=True), strict=True)
            ]
        )
        for piece in pieces
    ]
    return pl.concat(frames, rechunk=False)
