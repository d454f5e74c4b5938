"""Data Cloud's objects: one Parquet file each, replaced as a whole when its rows change.

A statement that runs keeps reading the file it began with; ``state.py`` says which file is the newest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import polars as pl
from polars.io.plugins import register_io_source

from sync_pipeline.simulated_org.state import Org

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS source_object (
    name TEXT PRIMARY KEY COLLATE NOCASE, file TEXT NOT NULL, "rows" INTEGER NOT NULL, generation INTEGER NOT NULL
) WITHOUT ROWID;
"""
FOLDER: Final = "source"
FILES_KEPT: Final = 2
"""The newest file and the one before it, which a statement may still be reading."""
ROW_GROUP: Final = 50_000


def source_objects(org: Org) -> dict[str, Path]:
    """The file of each object, by API name."""
    org.schema(SCHEMA, "source")
    rows = org.db("source").execute("SELECT name, file FROM source_object ORDER BY name").fetchall()
    folder = org.files(FOLDER)
    return {name: folder / file for name, file in rows}


def source_rows(org: Org, name: str) -> pl.DataFrame:
    """All rows of an object. Raises ``KeyError`` when there is no such object."""
    return pl.read_parquet(source_objects(org)[name])


def write_source(org: Org, name: str, frames: Iterable[pl.DataFrame]) -> int:
    """Makes these the rows of an object and returns how many. One sort of the key's order makes statements fast."""
    org.schema(SCHEMA, "source")
    folder = org.files(FOLDER)
    with org.write("source") as connection:
        row = connection.execute("SELECT generation FROM source_object WHERE name = ?", (name,)).fetchone()
        generation = 1 if row is None else row[0] + 1
        file = f"{name}-{generation:06d}.parquet"
        _streamed(frames).sink_parquet(folder / file, compression="zstd", compression_level=1, row_group_size=ROW_GROUP)
        rows = pl.scan_parquet(folder / file).select(pl.len()).collect().item()
        connection.execute("INSERT OR REPLACE INTO source_object VALUES (?, ?, ?, ?)", (name, file, rows, generation))
    for old in sorted(folder.glob(f"{name}-*.parquet"))[:-FILES_KEPT]:
        old.unlink(missing_ok=True)
    return int(rows)


def _streamed(frames: Iterable[pl.DataFrame]) -> pl.LazyFrame:
    """The frames one after the other, so that no more of them are in memory than are being written."""
    left = iter(frames)
    first = next(left)

    def rows(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        yield first
        yield from left

    return register_io_source(rows, schema=first.schema, is_pure=False)


def change_source(org: Org, name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> int:
    """Replaces the rows of an object by what ``change`` makes of them."""
    return write_source(org, name, [change(source_rows(org, name))])
