"""Result files of Bulk API 2.0 to frames of text, whatever their size.

A result file repeats every uploaded column, so it is as large as the upload: only the wanted columns are parsed, and they
come in frames of some thousand rows, so that neither the file nor its rows are ever in memory as a whole. The quoting is
RFC 4180's.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import IO

import polars as pl

from sync_pipeline.domain.errors import Unreadable

FRAME_ROWS = 20_000
HEADER_BYTES = 256 * 1024
"""No header is longer: an object has 800 fields at most, with names of 43 characters."""


def read_frames(
    file: IO[bytes], wanted: Mapping[str, str] | None = None, *, frame_rows: int = FRAME_ROWS
) -> Iterator[pl.DataFrame]:
    """The rows of a CSV file with a header, as frames of String columns; no frame when there is no row.

    The file is one of the operating system, which may have lost its name. ``wanted`` maps the columns of the frames to
    the header's names, whose letter case and order do not matter; without it all columns come under the header's own
    names. An empty field is null, a quoted empty one is empty text.

    Raises ``Unreadable`` when a wanted column is not in the header or the file is not CSV.
    """
    file.flush()
    file.seek(0)
    first = file.read(HEADER_BYTES)
    end = _header_end(first)
    header = _header(first[:end])
    if not header:
        return
    select = {name: name for name in header} if wanted is None else wanted
    positions = {name.lower(): position for position, name in enumerate(header)}
    missing = [name for name in select.values() if name.lower() not in positions]
    if missing:
        raise Unreadable(f"A result file has no column {', '.join(missing)}; it has {', '.join(header)}.")
    if not first[end:].strip(b"\r\n"):
        return
    columns = [f"column_{position}" for position in range(len(header))]
    rows = pl.scan_csv(
        f"/dev/fd/{file.fileno()}",
        skip_rows=1,
        has_header=False,
        schema=dict.fromkeys(columns, pl.String()),
        glob=False,
    ).select(pl.col(columns[positions[source.lower()]]).alias(name) for name, source in select.items())
    try:
        for frame in rows.collect_batches(chunk_size=frame_rows, maintain_order=True):
            if frame.height:
                yield frame
    except pl.exceptions.PolarsError as error:
        raise Unreadable(f"A result file is not the CSV it should be: {error}.", hint="Run it again.") from None


def _header_end(text: bytes) -> int:
    quotes, start = 0, 0
    while (newline := text.find(b"\n", start)) >= 0:
        quotes += text.count(b'"', start, newline)
        start = newline + 1
        if quotes % 2 == 0:
            return start
    return len(text)


def _header(line: bytes) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(line.decode("utf-8-sig").strip("\r\n"), newline="")), [])
    except (UnicodeDecodeError, csv.Error):
        raise Unreadable("A result file does not start with a header.", hint="Run it again.") from None
