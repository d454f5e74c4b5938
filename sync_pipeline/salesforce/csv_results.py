"""Result files of Bulk API 2.0 to frames of text, in pieces, whatever their size.

A result file repeats every uploaded column, so it is as large as the upload: it is cut into pieces at line ends that lie
outside of quotes, only the wanted columns of a piece are parsed, and the piece is forgotten. The quoting is RFC 4180's,
in which a line end is outside of quotes exactly when the number of quotes before it is even.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping
from typing import IO

import polars as pl

from sync_pipeline.domain.errors import Unreadable

PIECE_BYTES = 4 * 1024 * 1024
NO_ROW = re.compile(rb"[\r\n]*\Z")
ROW_BYTES_MAX = 64 * 1024 * 1024
"""A longer row is no row: Salesforce allows 400,000 characters per record."""


def read_frames(
    file: IO[bytes], wanted: Mapping[str, str] | None = None, *, piece_bytes: int = PIECE_BYTES
) -> Iterator[pl.DataFrame]:
    """The rows of a CSV file with a header, as frames of String columns; no frame when there is no row.

    ``wanted`` maps the columns of the frames to the header's names, whose letter case and order do not matter; without
    it all columns come under the header's own names. An empty field is null, a quoted empty one is empty text.

    Raises ``Unreadable`` when a wanted column is not in the header or the file is not CSV.
    """
    file.seek(0)
    pieces = whole_rows(file, piece_bytes=piece_bytes)
    first = next(pieces, b"")
    end = _header_end(first)
    header = _header(first[:end])
    if not header:
        return
    select = {name: name for name in header} if wanted is None else wanted
    positions = {name.lower(): position for position, name in enumerate(header)}
    missing = [name for name in select.values() if name.lower() not in positions]
    if missing:
        raise Unreadable(f"A result file has no column {', '.join(missing)}; it has {', '.join(header)}.")
    schema = {f"column_{position + 1}": pl.String() for position in range(len(header))}
    columns = {name: f"column_{positions[source.lower()] + 1}" for name, source in select.items()}
    yield from _parsed(first[end:], schema, columns)
    for piece in pieces:
        yield from _parsed(piece, schema, columns)


def whole_rows(file: IO[bytes], *, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """The file in pieces of about that size, each of which ends where a row ends."""
    rest = b""
    while chunk := file.read(piece_bytes):
        rest += chunk
        cut = _last_row_end(rest)
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
        elif len(rest) > ROW_BYTES_MAX:
            raise Unreadable(f"A result file has a row of more than {ROW_BYTES_MAX} bytes.", hint="Run it again.")
    if rest:
        yield rest


def _last_row_end(text: bytes) -> int:
    """Position behind the last line end outside of quotes, 0 if there is none. ``text`` starts where a row starts."""
    quotes_before = text.count(b'"')
    end = len(text)
    while (newline := text.rfind(b"\n", 0, end)) >= 0:
        quotes_before -= text.count(b'"', newline, end)
        if quotes_before % 2 == 0:
            return newline + 1
        end = newline
    return 0


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


def _parsed(piece: bytes, schema: dict[str, pl.String], columns: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    if NO_ROW.match(piece):
        return
    if piece.startswith(codecs.BOM_UTF8):
        piece = codecs.BOM_UTF8 + piece  # Polars takes one off each piece; here it is the first letter of a value
    try:
        frame = pl.read_csv(
            piece, has_header=False, schema=schema, columns=sorted(set(columns.values())), raise_if_empty=True
        )
    except pl.exceptions.PolarsError as error:
        raise Unreadable(f"A result file is not the CSV it should be: {error}.", hint="Run it again.") from None
    yield frame.select(pl.col(source).alias(name) for name, source in columns.items())
