"""Polars to DuckDB and back, without pyarrow.

Both speak Arrow's C stream. DuckDB imports pyarrow as soon as it is handed a Polars frame, but takes any object that has
``__arrow_c_stream__`` alone; Polars reads a DuckDB relation by the same method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import duckdb
import polars as pl


class _Stream:
    """A frame that shows nothing but its Arrow stream."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)


@contextmanager
def handed_over(database: duckdb.DuckDBPyConnection, name: str, frame: pl.DataFrame) -> Iterator[None]:
    """Within the block, SQL finds the frame under ``name``. Nothing is copied before a statement reads it."""
    database.register(name, _Stream(frame))
    try:
        yield
    finally:
        database.unregister(name)


def frame_of(database: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] = ()) -> pl.DataFrame:
    """The rows of one SELECT."""
    return pl.DataFrame(database.sql(sql, params=list(parameters)))
