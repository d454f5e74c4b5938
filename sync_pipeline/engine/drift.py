"""Rows that the measurement found missing or different, asked for once more one by one.

The second look names the column and both values, drops what turned up meanwhile, and tells a row that the source has
changed since it was staged from one that was lost.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from sync_pipeline.engine.equality import Equality
from sync_pipeline.engine.values import convert
from sync_pipeline.engine.walls import Walls
from sync_pipeline.staging.comparison import Kind

CHANGED: Final = "changed since"
"""The org holds what the source says now, and the source has said something else when the row was staged."""

DRIFT: Final = pl.Schema(
    {
        "key": pl.String,
        "place": pl.UInt32,
        "finding": pl.String,
        "column": pl.String,
        "staged": pl.String,
        "present": pl.String,
        "reason": pl.String,
    }
)
"""One row for each missing row and each value that differs. ``column`` is empty where nothing more is known."""

LOST: Final = "the org has no row with this key"
NOT_LOOKED_UP: Final = "which value differs was not looked up"
SOURCE_FOLLOWED: Final = "the source holds the org's value now"


def named_by_key(found: pl.DataFrame, *, finding: str | None = None, reason: str = NOT_LOOKED_UP) -> pl.DataFrame:
    """``DRIFT`` rows of findings (``kind``, ``key``, ``place``) of which no more is known than ``reason``."""
    is_lost = pl.col("finding") == Kind.MISSING
    return found.select(
        "key",
        "place",
        (pl.col("kind") if finding is None else pl.lit(finding)).alias("finding"),
        pl.lit("").alias("column"),
        pl.lit(None, dtype=pl.String).alias("staged"),
        pl.lit(None, dtype=pl.String).alias("present"),
    ).with_columns(pl.when(is_lost).then(pl.lit(LOST)).otherwise(pl.lit(reason)).alias("reason"))


def rows_in_org(walls: Walls, keys: pl.Series) -> pl.DataFrame:
    """The org's rows of these keys as they are now: text, with ``key`` and who touched them last."""
    return walls.soql.rows_of(keys.to_list()).rename({walls.mapping.target_key: "key"})


def look_again(
    equality: Equality, doubtful: pl.DataFrame, expected: pl.DataFrame, present: pl.DataFrame, *, with_values: bool
) -> pl.DataFrame:
    """The ``DRIFT`` rows of what is still missing or different; a key that is equal now has none.

    ``expected`` holds the rows the org should hold, typed, as far as they are known; ``present`` the org's.
    """
    in_org = equality.matched(present["key"])
    is_there = equality.matched(doubtful["key"]).is_in(in_org.implode())
    lost = doubtful.filter(~is_there).with_columns(kind=pl.lit(str(Kind.MISSING)))
    if not with_values:
        return named_by_key(lost)
    there = doubtful.filter(is_there)
    unknown = there.filter(~pl.col("key").is_in(expected["key"].implode()))
    touched = present.select(
        in_org.alias("matched"),
        pl.format("last changed in the org at {} by {}", "LastModifiedDate", "LastModifiedById").alias("reason"),
    ).unique("matched")
    different = equality.differences(expected, present)
    different = (
        different.with_columns(
            equality.matched(different["key"]).alias("matched"),
            pl.lit(str(Kind.DIFFERENT)).alias("finding"),
        )
        .join(there.select("key", "place"), on="key", how="inner", maintain_order="left")
        .join(touched, on="matched", how="left", maintain_order="left")
        .select(DRIFT.names())
    )
    return pl.concat([named_by_key(lost), named_by_key(unknown), different])


def mark_changed(walls: Walls, equality: Equality, drift: pl.DataFrame, present: pl.DataFrame) -> pl.DataFrame:
    """The same rows, those ``changed since`` of which the org holds what the source says now.

    A missing row stays missing: that the source has lost it too excuses nobody.
    """
    keys = drift.filter(pl.col("finding") == Kind.DIFFERENT)["key"].unique()
    if not len(keys):
        return drift
    converted = convert(walls.data_cloud.rows_of(keys.to_list()), walls.mapping, equality.target)
    positions = pl.int_range(converted.frame.height, dtype=pl.UInt32, eager=True)
    now = converted.frame.filter(~positions.is_in(converted.rejections["index"].implode()))
    unequal = equality.differences(now, present)["key"]
    changed = now.filter(~pl.col("key").is_in(unequal.implode()))["key"]
    is_changed = (pl.col("finding") == Kind.DIFFERENT) & pl.col("key").is_in(changed.implode())
    return drift.with_columns(
        pl.when(is_changed).then(pl.lit(CHANGED)).otherwise("finding").alias("finding"),
        pl.when(is_changed).then(pl.lit(SOURCE_FOLLOWED)).otherwise("reason").alias("reason"),
    )
