"""Holds two sides against each other by key and value, whatever their size, in constant memory.

A side is a stream of frames in which a row is a key and two hashes: ``matched`` of the key as the target matches it,
``digest`` of the values that must be equal. The frames become Parquet files, and each slice of ``matched`` has a sum over
its rows. Slices with one sum on both sides are equal and are looked at no more; DuckDB joins the others bucket by bucket,
so that only one bucket is ever in memory. Keys themselves are read again for the rows that differ alone.

Two different keys share a 64-bit hash with a chance of one in a million for 10,000,000 rows; such a pair shows as a
difference, never as equality, unless their values share a hash too.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import duckdb
import polars as pl

from sync_pipeline.staging.arrow import frame_of

FILE_ROWS: Final = 100_000
"""Rows gathered before a file is written."""
BUCKET_ROWS: Final = 500_000
"""Rows of the larger side that are joined at once: about 60 MB. Every bucket is one look at all files."""
SHIFT: Final = 52
"""Bits of a hash below those that number its slice; there are 4,096 slices."""
GOLDEN: Final = 0x9E3779B97F4A7C15
SUM_SEED: Final = 3


class Side(StrEnum):
    """What a row belongs to."""

    EXPECTED = "expected"
    """Rows that the org should hold (``sent``), and those that need not be there (not ``sent``)."""
    PRESENT = "present"
    """Rows that the org holds."""
    STAGED = "staged"
    """What was staged earlier, when the expected side is the source as it is now."""


class Kind(StrEnum):
    """How the two sides differ in a row."""

    MISSING = "missing"
    DIFFERENT = "different"
    DOUBLED = "doubled"
    """Several rows of the org have the key of one expected row; which of them is meant cannot be told."""
    ORPHAN = "orphan"
    """Only in the org."""
    REJECTED = "rejected"
    """In the org, though the expected row did not get through: it was there before."""


FINDINGS: Final = pl.Schema(
    {
        "kind": pl.String,
        "key": pl.String,
        "place": pl.UInt32,
        "changed": pl.Boolean,
        "sent": pl.Boolean,
        "rows": pl.UInt32,
    }
)
"""``place`` is that of the expected row, null for an orphan. ``changed``: the row differs from the staged one in a way
that explains the finding. ``sent``: the org should hold it. ``rows``: how many the org has of it; a doubled key is one
finding, an orphan's rows are one each."""


SUMS: Final = pl.Schema({"slice": pl.UInt64, "sum": pl.UInt64, "rows": pl.UInt64})


class Comparison:
    """One comparison, in a folder of its own that the caller removes. Used by one thread.

    ``optional`` counts hash columns ``digest_0``, … that are compared only where the expected one is not null.
    """

    def __init__(
        self, folder: Path, *, optional: int = 0, memory: str = "128MB", bucket_rows: int = BUCKET_ROWS
    ) -> None:
        self._folder = folder
        self._digests = ("digest", *(f"digest_{number}" for number in range(optional)))
        self._bucket_rows = bucket_rows
        self._waiting: dict[Side, list[pl.DataFrame]] = {side: [] for side in Side}
        self._files: dict[Side, int] = dict.fromkeys(Side, 0)
        self._sums = {side: pl.DataFrame(schema=SUMS) for side in (Side.EXPECTED, Side.PRESENT)}
        self.rows: dict[Side, int] = dict.fromkeys(Side, 0)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._database = duckdb.connect(
            ":memory:",
            config={
                "threads": 1,
                "memory_limit": memory,
                "temp_directory": str(folder / "spill"),
                "preserve_insertion_order": False,
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def add(self, side: Side, frame: pl.DataFrame) -> None:
        """Adds rows: ``key``, ``matched``, the digests; the expected side ``place`` and ``sent`` too, the staged ``sent``."""
        self._waiting[side].append(frame.select(list(self._schema(side))))
        self.rows[side] += frame.height
        if sum(waiting.height for waiting in self._waiting[side]) >= FILE_ROWS:
            self._write(side)

    def findings(self) -> Iterator[pl.DataFrame]:
        """Every row in which the sides differ, as ``FINDINGS`` frames of at most some bucket's rows."""
        for side in Side:
            if self._waiting[side] or not self._files[side]:
                self._write(side)
            self._database.execute(
                f"CREATE OR REPLACE VIEW {side} AS SELECT * FROM read_parquet('{_quoted(self._folder)}/{side}-*.parquet')"
            )
        for slices in self._buckets():
            found = self._unequal(f"matched >> {SHIFT} IN ({', '.join(map(str, slices))})")
            if found.height:
                yield found

    def _buckets(self) -> Iterator[list[int]]:
        """The slices that may be unequal, as many at once as have few enough rows to be joined."""
        sides = self._sums[Side.EXPECTED].join(self._sums[Side.PRESENT], on="slice", how="full", coalesce=True)
        is_equal = [pl.col(name).eq_missing(pl.col(f"{name}_right")) for name in ("sum", "rows")]
        # A sum cannot leave values out that need not be equal.
        unequal = sides.filter(~pl.all_horizontal(is_equal)) if len(self._digests) == 1 else sides
        bucket, held = list[int](), 0
        for number, rows in unequal.sort("slice").select("slice", pl.max_horizontal("rows", "rows_right")).iter_rows():
            if bucket and held + rows > self._bucket_rows:
                yield bucket
                bucket, held = [], 0
            bucket.append(number)
            held += rows
        if bucket:
            yield bucket

    def _write(self, side: Side) -> None:
        frames, self._waiting[side] = self._waiting[side], []
        frame = pl.concat(frames) if frames else pl.DataFrame(schema=self._schema(side))
        frame.write_parquet(
            self._folder / f"{side}-{self._files[side]:05d}.parquet", compression="lz4", statistics=False
        )
        self._files[side] += 1
        if side in self._sums:
            self._add_up(side, frame)

    def _add_up(self, side: Side, frame: pl.DataFrame) -> None:
        """Adds the rows that must be equal on both sides to the sums of their slices."""
        rows = frame if side is Side.PRESENT or frame["sent"].all() else frame.filter("sent")
        mixed = (pl.col("matched") * pl.lit(GOLDEN, dtype=pl.UInt64) + pl.col("digest")).hash(SUM_SEED)
        added = (
            rows.select((pl.col("matched") // 2**SHIFT).alias("slice"), mixed.alias("sum"))
            .group_by("slice")
            .agg(pl.col("sum").sum(), pl.len().cast(pl.UInt64).alias("rows"))
        )
        self._sums[side] = pl.concat([self._sums[side], added]).group_by("slice").agg(pl.col("sum", "rows").sum())

    def _schema(self, side: Side) -> dict[str, type[pl.DataType]]:
        of_side: dict[Side, dict[str, type[pl.DataType]]] = {
            Side.EXPECTED: {"key": pl.String, "place": pl.UInt32, "sent": pl.Boolean},
            Side.PRESENT: {"key": pl.String},
            Side.STAGED: {"sent": pl.Boolean},
        }
        return {"matched": pl.UInt64, **dict.fromkeys(self._digests, pl.UInt64), **of_side[side]}

    def _unequal(self, inside: str) -> pl.DataFrame:
        """The unequal rows of one bucket with what they are, their key and their place."""
        digests = ", ".join(self._digests)
        staged = ", ".join(f"any_value({digest}) FILTER (sent) AS {digest}" for digest in self._digests)
        was_staged = "s.matched IS NOT NULL AND s.sent"
        changed = "false"
        if self.rows[Side.STAGED]:
            changed = f"""
                CASE WHEN e.matched IS NULL THEN r.matched IS NULL AND {was_staged}
                     WHEN p.matched IS NULL THEN s.matched IS NULL
                     ELSE s.matched IS NULL OR ({was_staged} AND {self._equal("s", "p")}) END"""
        found = frame_of(
            self._database,
            f"""
            WITH e AS MATERIALIZED (SELECT matched, key, place, {digests} FROM expected WHERE {inside} AND sent),
            p AS MATERIALIZED (SELECT matched, key, {digests} FROM present WHERE {inside}),
            r AS MATERIALIZED (
                SELECT matched, any_value(key) AS key, min(place) AS place
                FROM expected WHERE {inside} AND NOT sent GROUP BY matched
            ),
            s AS (SELECT matched, bool_or(sent) AS sent, {staged} FROM staged WHERE {inside} GROUP BY matched),
            several AS (SELECT matched, count(*) AS "rows" FROM p GROUP BY matched HAVING count(*) > 1)
            SELECT
                CASE WHEN p.matched IS NULL THEN '{Kind.MISSING}'
                     WHEN e.matched IS NOT NULL THEN '{Kind.DIFFERENT}'
                     WHEN r.matched IS NOT NULL THEN '{Kind.REJECTED}'
                     ELSE '{Kind.ORPHAN}' END AS kind,
                coalesce(e.key, p.key) AS key,
                coalesce(e.place, r.place) AS place,
                coalesce({changed}, false) AS changed,
                e.matched IS NOT NULL AS sent,
                CASE WHEN p.matched IS NULL THEN 0 ELSE 1 END AS "rows"
            FROM e
            FULL JOIN p ON p.matched = e.matched
            LEFT JOIN r ON r.matched = coalesce(e.matched, p.matched)
            LEFT JOIN s ON s.matched = coalesce(e.matched, p.matched)
            LEFT JOIN several AS d ON d.matched = p.matched
            WHERE (e.matched IS NULL OR p.matched IS NULL OR ({self._equal("e", "p")}) IS NOT TRUE)
                AND (d.matched IS NULL OR (e.matched IS NULL AND r.matched IS NULL))
            UNION ALL
            SELECT
                '{Kind.DOUBLED}', coalesce(o.key, r.key), coalesce(o.place, r.place), false,
                o.matched IS NOT NULL, d."rows"
            FROM several AS d
            LEFT JOIN (
                SELECT matched, any_value(key) AS key, min(place) AS place FROM e GROUP BY matched
            ) AS o ON o.matched = d.matched
            LEFT JOIN r ON r.matched = d.matched
            WHERE o.matched IS NOT NULL OR r.matched IS NOT NULL
            """,
        )
        return found.select(pl.col(name).cast(kind) for name, kind in FINDINGS.items()).sort("key")

    def _equal(self, expected: str, present: str) -> str:
        """Equality of two rows by their digests; an optional one that the expected side leaves open is not compared."""
        always, *optional = self._digests
        conditions = [f"{expected}.{always} = {present}.{always}"]
        conditions += [
            f"({expected}.{digest} IS NULL OR {expected}.{digest} = {present}.{digest})" for digest in optional
        ]
        return " AND ".join(conditions)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
