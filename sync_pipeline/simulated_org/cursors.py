"""Query cursors: what a query found and has not given out yet, kept for two days so that any process can go on.

The rows are those of the moment of the query. They lie in one file per cursor, in pieces; the org's database says where.

Query: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_query.htm
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import polars as pl

from sync_pipeline.simulated_org.call import Refused
from sync_pipeline.simulated_org.state import Org

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS query_cursor (
    id TEXT PRIMARY KEY, user_id TEXT NOT NULL, object TEXT NOT NULL, "rows" INTEGER NOT NULL, made_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS query_piece (
    cursor TEXT NOT NULL, first_row INTEGER NOT NULL, "rows" INTEGER NOT NULL, start INTEGER NOT NULL,
    bytes INTEGER NOT NULL, PRIMARY KEY (cursor, first_row)
) WITHOUT ROWID;
"""
FOLDER: Final = "cursors"
PREFIX: Final = "01g"
CURSOR_SECONDS: Final = 2 * 86_400


@dataclass(frozen=True)
class Batch:
    """Some rows of a result of ``rows`` rows. ``following`` is the locator of the next batch; ``None`` at the end."""

    object: str
    frame: pl.DataFrame
    rows: int
    following: str | None


@dataclass(frozen=True)
class Spooled:
    """A result that was read to its end: its first rows, and where all of them are when they are more than that."""

    first: pl.DataFrame
    rows: int
    cursor: str = ""
    pieces: tuple[tuple[str, int, int, int, int], ...] = ()


def spool(org: Org, frames: Iterator[pl.DataFrame], *, size: int) -> Spooled:
    """Reads a result of at least one frame; one of more than ``size`` rows goes to a file. Writes no database."""
    kept = [next(frames)]
    while sum(frame.height for frame in kept) <= size:
        frame = next(frames, None)
        if frame is None:
            whole = pl.concat(kept)
            return Spooled(whole, whole.height)
        kept.append(frame)
    first = pl.concat(kept)
    cursor = org.new_id(PREFIX)
    pieces = []
    rows = start = 0
    with _file(org, cursor).open("wb") as file:
        for piece in chain([first], frames):
            content = io.BytesIO()
            piece.write_ipc(content, compression="lz4")
            length = file.write(content.getbuffer())
            pieces.append((cursor, rows, piece.height, start, length))
            rows, start = rows + piece.height, start + length
    return Spooled(first.head(size), rows, cursor, tuple(pieces))


def first_batch(org: Org, spooled: Spooled, *, user_id: str, name: str) -> Batch:
    """The first rows of a result of that object; makes the cursor when there are more."""
    if not spooled.cursor:
        return Batch(name, spooled.first, spooled.rows, None)
    org.schema(SCHEMA)
    with org.write() as connection:
        _forget_old(org)
        row = (spooled.cursor, user_id, name, spooled.rows, org.now())
        connection.execute("INSERT INTO query_cursor VALUES (?, ?, ?, ?, ?)", row)
        connection.executemany("INSERT INTO query_piece VALUES (?, ?, ?, ?, ?)", spooled.pieces)
    return Batch(name, spooled.first, spooled.rows, f"{spooled.cursor}-{spooled.first.height}")


def next_batch(org: Org, locator: str, *, user_id: str, size: int) -> Batch:
    """The batch a locator means; it may be asked for again. Raises ``Refused`` (400 INVALID_QUERY_LOCATOR)."""
    org.schema(SCHEMA)
    found = re.fullmatch(rf"({PREFIX}\w{{15}})-(\d{{1,12}})", locator)
    refusal = Refused(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
    if found is None:
        raise refusal
    cursor, place = found[1], int(found[2])
    row = (
        org.db()
        .execute(
            'SELECT object, "rows" FROM query_cursor WHERE id = ? AND user_id = ? AND made_at > ?',
            (cursor, user_id, org.now() - CURSOR_SECONDS),
        )
        .fetchone()
    )
    if row is None or place >= row[1]:
        raise refusal
    following = place + size
    frame = _read(org, cursor, place, size)
    return Batch(row[0], frame, row[1], f"{cursor}-{following}" if following < row[1] else None)


def _read(org: Org, cursor: str, place: int, size: int) -> pl.DataFrame:
    pieces = (
        org.db()
        .execute(
            'SELECT first_row, start, bytes FROM query_piece WHERE cursor = ? AND first_row < ? AND first_row + "rows" > ? '
            "ORDER BY first_row",
            (cursor, place + size, place),
        )
        .fetchall()
    )
    frames = []
    with _file(org, cursor).open("rb") as file:
        for _, start, length in pieces:
            file.seek(start)
            frames.append(pl.read_ipc(io.BytesIO(file.read(length))))
    return pl.concat(frames).slice(place - pieces[0][0], size)


def _forget_old(org: Org) -> None:
    connection = org.db()
    old = connection.execute("SELECT id FROM query_cursor WHERE made_at <= ?", (org.now() - CURSOR_SECONDS,)).fetchall()
    for (cursor,) in old:
        connection.execute("DELETE FROM query_cursor WHERE id = ?", (cursor,))
        connection.execute("DELETE FROM query_piece WHERE cursor = ?", (cursor,))
        _file(org, cursor).unlink(missing_ok=True)


def _file(org: Org, cursor: str) -> Path:
    return org.files(FOLDER) / f"{cursor}.rows"
