"""Typed rows to the CSV that Bulk API 2.0 wants to see.

An empty field leaves the stored value alone, ``#N/A`` clears it; which of the two a null becomes is said per field by the
mapping. UTF-8 without a byte order mark, commas, line feeds.

Rules: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/datafiles_prepare_csv.htm
"""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

import polars as pl

from sync_pipeline.domain.mapping import Mapping, NullPolicy

CLEAR = "#N/A"
SLICE_ROWS = 25_000
"""Rows rendered at once; a slice is a few megabytes."""
INSTANT_FORMAT = "%Y-%m-%dT%H:%M:%S%.3fZ"


def render_csv(frame: pl.DataFrame, mapping: Mapping, path: Path) -> tuple[int, int]:
    """Writes the rows (columns ``key`` and the target fields) to a new private file and gives its bytes and crc32.

    The header is ``mapping.target_columns``. The file is durable when this returns; naming its folder entry durable is
    up to the caller.
    """
    columns = [pl.col("key").alias(mapping.target_key)]
    columns += [_column(frame.get_column(field.target), field.null) for field in mapping.fields]
    size = checksum = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for start in range(0, max(frame.height, 1), SLICE_ROWS):
            text = io.BytesIO()
            frame.slice(start, SLICE_ROWS).select(columns).write_csv(
                text,
                include_header=start == 0,
                null_value=CLEAR,
                datetime_format=INSTANT_FORMAT,
                float_scientific=False,
                line_terminator="\n",
            )
            piece = text.getbuffer()
            checksum = zlib.crc32(piece, checksum)
            size += file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return size, checksum


def _column(values: pl.Series, null: NullPolicy) -> pl.Expr:
    """The field as it is written, where a null stands for clearing it."""
    column = pl.col(values.name)
    if values.dtype == pl.String:
        if values.str.contains("\r", literal=True).any():
            # A job has one kind of line end; another one inside of a value can fail the whole job.
            column = column.str.replace_all("\r\n", "\n", literal=True).str.replace_all("\r", "\n", literal=True)
        if null is NullPolicy.CLEAR and (values == "").any():
            column = column.replace("", None)  # Salesforce stores no empty text: it is the same as null
    elif isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone not in (None, "UTC"):
        column = column.dt.convert_time_zone("UTC")
    if null is NullPolicy.KEEP and values.null_count():
        column = _text(column, values.dtype).fill_null("")
    return column


def _text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    return column.dt.strftime(INSTANT_FORMAT) if isinstance(dtype, pl.Datetime) else column.cast(pl.String)
