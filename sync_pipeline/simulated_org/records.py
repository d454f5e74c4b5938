"""The rows of the org's objects: a tree of one level whose leaves hold some thousand rows, column by column.

A leaf is a Parquet blob in SQLite, so that any process may read and write rows in transactions and a load of many
rows is a few vectorised joins. Leaves lie in the order of ``_k``, the text by which an upsert matches: the external id,
trimmed, its letter case folded unless the field tells it apart, a number in one spelling of it; a row without one comes
first, by its Id.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

import polars as pl

from sync_pipeline.simulated_org.computed import inputs_of, with_computed
from sync_pipeline.simulated_org.objects import NUMBERS, Field, SObject
from sync_pipeline.simulated_org.state import Org

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS leaf (
    number INTEGER PRIMARY KEY, object TEXT NOT NULL, first TEXT NOT NULL, "rows" INTEGER NOT NULL, content BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS leaf_by_key ON leaf (object, first);
CREATE TABLE IF NOT EXISTS object (name TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deleted (object TEXT NOT NULL, at REAL NOT NULL, id TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS deleted_by_time ON deleted (object, at);
"""

KEY: Final = "_k"
LEAF_ROWS: Final = 4_000
"""Rows of a leaf when it is split; it grows to three times as many first."""
LEAVES_AT_ONCE: Final = 8
"""Leaves that are read together at most: one by one, most of the time would go into beginning anew."""
NO_KEY: Final = "\x00"
"""What ``_k`` begins with for a row without an external id."""
LAST_WITHOUT_KEY: Final = f"{NO_KEY}~"
"""Behind every row without an external id."""
BLANKS: Final = " \t\n\r"
DELETED_SECONDS: Final = 15 * 86_400
"""How long the log tells of a row that was deleted."""


@dataclass
class Leaf:
    """Rows of ``first <= _k``, up to the next leaf. ``number`` is 0 for one that is not stored yet."""

    number: int
    first: str
    frame: pl.DataFrame


def match_key(text: pl.Expr, key: Field | None) -> pl.Expr:
    """The text by which rows are matched; null for a blank one, and for one that is no number where the key is."""
    if key is not None and key.type in NUMBERS:
        number = text.cast(pl.Float64, strict=False).round(key.scale, mode="half_away_from_zero")
        return pl.when(number == 0).then(0.0).otherwise(number).cast(pl.String)  # zero has one sign
    trimmed = text.str.strip_chars(BLANKS)
    folded = trimmed if key is not None and key.case_sensitive else trimmed.str.to_lowercase()
    return pl.when(folded != "").then(folded)


class Records:
    """The rows of one object. Reading sees the last commit, or what this thread's open transaction wrote."""

    def __init__(self, org: Org, sobject: SObject) -> None:
        self._org = org
        self.object = sobject
        org.schema(SCHEMA)

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns of a leaf."""
        return {KEY: pl.String(), **self.object.stored}

    @property
    def version(self) -> int:
        """Changes with every commit that touched the object."""
        row = self._org.db().execute("SELECT version FROM object WHERE name = ?", (self.object.name,)).fetchone()
        return 0 if row is None else int(row[0])

    def __len__(self) -> int:
        (rows,) = (
            self._org.db().execute('SELECT sum("rows") FROM leaf WHERE object = ?', (self.object.name,)).fetchone()
        )
        return int(rows or 0)

    def frames(
        self, columns: Sequence[str] | None = None, *, after: str | None = None, through: str | None = None
    ) -> Iterator[pl.DataFrame]:
        """All rows, some leaves at a time, in the order of ``_k``; of the leaves that can hold ``after < _k <= through``
        only. The first pieces are small: whoever looks for a few rows may have them there. A thread reads to the end, or
        closes, before it writes."""
        # One statement reads them, whatever is saved meanwhile: a leaf that is split between two would lose rows.
        sql = """
            SELECT content FROM leaf
            WHERE object = :object AND first <= coalesce(:through, first)
                AND first >= coalesce((SELECT max(first) FROM leaf WHERE object = :object AND first <= :after), '')
            ORDER BY first
            """
        parameters = {"object": self.object.name, "after": after, "through": through}
        with closing(self._org.db().execute(sql, parameters)) as leaves:
            count = 1
            while found := leaves.fetchmany(count):
                yield self._frame([content for (content,) in found], columns)
                count = min(2 * count, LEAVES_AT_ONCE)

    def touch(self, keys: pl.Series) -> Touched:
        """The leaves that hold these ``_k`` or would. Call it in a transaction that also saves them."""
        ordered = keys.drop_nulls().sort()
        leaves = self._leaves()
        if not leaves:
            return Touched(self, [Leaf(0, "", pl.DataFrame(schema=self.schema))])
        cuts = [int(ordered.search_sorted(first, "left")) for _, first in leaves] + [len(ordered)]
        cuts[0] = 0
        hit = [place for place, (start, end) in enumerate(pairwise(cuts)) if start < end]
        return Touched(self, [Leaf(*leaves[place], self._read(leaves[place][0])) for place in hit or [0]])

    def find_ids(self, ids: pl.Series) -> pl.DataFrame:
        """``Id`` and ``_k`` of the rows with these 18-character ids; looks at every leaf."""
        wanted = ids.unique().implode()
        found = [frame.filter(pl.col("Id").is_in(wanted)) for frame in self.frames(("Id", KEY))]
        return pl.concat([pl.DataFrame(schema={"Id": pl.String, KEY: pl.String}), *found])

    def log_deleted(self, ids: pl.Series, *, at: float) -> None:
        """Notes that rows were deleted, in seconds since 1970. Call it in the transaction that removes them."""
        connection = self._org.db()
        connection.execute("DELETE FROM deleted WHERE object = ? AND at < ?", (self.object.name, at - DELETED_SECONDS))
        connection.executemany(
            "INSERT INTO deleted VALUES (?, ?, ?)", [(self.object.name, at, row_id) for row_id in ids]
        )

    def deleted(self, start: float, end: float) -> list[tuple[str, float]]:
        """Ids of rows that were deleted from ``start`` until before ``end``, and when."""
        sql = "SELECT id, at FROM deleted WHERE object = ? AND at >= ? AND at < ? ORDER BY at"
        found: list[tuple[str, float]] = self._org.db().execute(sql, (self.object.name, start, end)).fetchall()
        return found

    def replace_all(self, frames: Iterator[pl.DataFrame]) -> None:
        """Throws all rows away and takes these, which come in the order of ``_k``."""
        with self._org.write() as connection:
            connection.execute("DELETE FROM leaf WHERE object = ?", (self.object.name,))
            for frame in frames:
                for start in range(0, frame.height, LEAF_ROWS):
                    piece = frame.slice(start, LEAF_ROWS)
                    first = "" if len(self) == 0 else str(piece[KEY][0])
                    self._write(Leaf(0, first, piece))
            self._changed()

    def save_leaves(self, leaves: Sequence[Leaf]) -> None:
        """Writes leaves back, split where they have grown; one whose rows are all gone disappears."""
        with self._org.write():
            for leaf in leaves:
                if leaf.frame.height <= 3 * LEAF_ROWS:
                    self._write(leaf)
                    continue
                for place, piece in enumerate(_pieces(leaf.frame)):
                    first = leaf.first if place == 0 else str(piece[KEY][0])
                    self._write(Leaf(leaf.number if place == 0 else 0, first, piece))
            self._changed()

    def _leaves(self) -> list[tuple[int, str]]:
        sql = "SELECT number, first FROM leaf WHERE object = ? ORDER BY first"
        leaves: list[tuple[int, str]] = self._org.db().execute(sql, (self.object.name,)).fetchall()
        return leaves

    def _read(self, number: int) -> pl.DataFrame:
        """The rows of one leaf."""
        return self._frame(self._org.db().execute("SELECT content FROM leaf WHERE number = ?", (number,)).fetchone())

    def _frame(self, contents: Sequence[bytes], columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The rows of these leaves, in their order."""
        stored = list(self.schema) if columns is None else inputs_of(self.object.name, columns)
        wanted = {name: self.schema[name] for name in stored}
        # A field that is empty in all of a leaf's rows is not written, nor is one that was added since.
        frame = pl.scan_parquet(
            list(contents), schema=wanted, missing_columns="insert", extra_columns="ignore"
        ).collect()
        return frame if columns is None or stored == list(columns) else with_computed(self.object.name, frame, columns)

    def _write(self, leaf: Leaf) -> None:
        connection = self._org.db()
        if leaf.number and leaf.frame.height == 0 and leaf.first:
            connection.execute("DELETE FROM leaf WHERE number = ?", (leaf.number,))
            return
        content = io.BytesIO()
        filled = [name for name in leaf.frame.columns if leaf.frame[name].null_count() < leaf.frame.height]
        stored = leaf.frame.select(filled) if filled else leaf.frame
        stored.write_parquet(content, compression="lz4", statistics=False)
        row = (self.object.name, leaf.first, leaf.frame.height, content.getvalue())
        if leaf.number:
            connection.execute(
                'UPDATE leaf SET object = ?, first = ?, "rows" = ?, content = ? WHERE number = ?', (*row, leaf.number)
            )
        else:
            connection.execute('INSERT INTO leaf (object, first, "rows", content) VALUES (?, ?, ?, ?)', row)

    def _changed(self) -> None:
        self._org.db().execute(
            "INSERT INTO object VALUES (?, 1) ON CONFLICT DO UPDATE SET version = version + 1", (self.object.name,)
        )


class Touched:
    """Some leaves in memory, in order: looked at, changed, and saved in the transaction in which they were read."""

    def __init__(self, records: Records, leaves: list[Leaf]) -> None:
        self._records = records
        self._leaves = leaves
        self._dirty = [False] * len(leaves)

    def rows(self, columns: Sequence[str]) -> pl.DataFrame:
        """Columns of all rows in the touched leaves."""
        return pl.concat([leaf.frame.select(columns) for leaf in self._leaves])

    def put(self, rows: pl.DataFrame) -> None:
        """Rows whole, as they shall be; those with an Id that is there already take its place."""
        self.remove(rows["Id"])
        self.add(rows)

    def add(self, rows: pl.DataFrame) -> None:
        """Rows whole, with Ids that are not there yet."""
        ordered = rows.select(list(self._records.schema)).sort(KEY)
        for place, start, end in self._slices(ordered[KEY]):
            leaf = self._leaves[place]
            both = pl.concat([leaf.frame, ordered.slice(start, end - start)])
            leaf.frame = both.sort(KEY, maintain_order=True, multithreaded=False)
            self._dirty[place] = True

    def update(self, rows: pl.DataFrame, columns: Sequence[str]) -> None:
        """New values for existing rows: ``_k``, ``Id``, the columns, and for each ``_set_<column>``, a Boolean that says
        whether the row gives it a value (which may be null)."""
        for place, start, end in self._slices((ordered := rows.sort(KEY))[KEY]):
            leaf, piece = self._leaves[place], ordered.slice(start, end - start)
            given = piece.select(
                "Id", *(pl.col(c).alias(f"_new_{c}") for c in columns), *(f"_set_{c}" for c in columns)
            )
            joined = leaf.frame.join(given, on="Id", how="left", maintain_order="left")
            leaf.frame = joined.with_columns(
                pl.when(pl.col(f"_set_{c}").fill_null(value=False)).then(f"_new_{c}").otherwise(c).alias(c)
                for c in columns
            ).select(list(self._records.schema))
            self._dirty[place] = True

    def move(self) -> None:
        """Puts rows whose external id was changed where they belong now; their new leaves must be touched too."""
        key = self._records.object.key
        if key is None:
            return
        fresh = pl.coalesce(match_key(pl.col(key.name), key), pl.concat_str(pl.lit(NO_KEY), "Id"))
        moved = [leaf.frame.filter(fresh != pl.col(KEY)).with_columns(fresh.alias(KEY)) for leaf in self._leaves]
        rows = pl.concat(moved)
        self.put(rows)

    def remove(self, ids: pl.Series) -> None:
        """Takes rows away."""
        gone = ids.implode()
        for place, leaf in enumerate(self._leaves):
            rest = leaf.frame.filter(~pl.col("Id").is_in(gone))
            self._dirty[place] |= rest.height < leaf.frame.height
            leaf.frame = rest

    def save(self) -> None:
        """Writes what was changed."""
        self._records.save_leaves([leaf for leaf, dirty in zip(self._leaves, self._dirty, strict=True) if dirty])

    def _slices(self, ordered: pl.Series) -> Iterator[tuple[int, int, int]]:
        cuts = [int(ordered.search_sorted(leaf.first, "left")) for leaf in self._leaves] + [len(ordered)]
        cuts[0] = 0
        for place, (start, end) in enumerate(pairwise(cuts)):
            if start < end:
                yield place, start, end


def _pieces(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Pieces of about ``LEAF_ROWS`` rows; rows with one ``_k`` stay together."""
    start = 0
    while start < frame.height:
        end = min(start + LEAF_ROWS, frame.height)
        if end < frame.height:
            end = int(frame[KEY].search_sorted(frame[KEY][end], "right"))
        yield frame.slice(start, end - start)
        start = end
