"""Rows that the target would match as one: which of them is sent, and under which rule the others stay behind.

The plan names the groups across all ranges by one statement; a page adds those it sees itself, because equal keys of the
source always stand together in one page. Without a declared tie-breaker nobody guesses: unless the rows are equal in
every mapped column, all of them are quarantined.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import polars as pl

from sync_pipeline.domain.errors import StateError
from sync_pipeline.domain.keys import KeyRange
from sync_pipeline.domain.mapping import Mapping, TargetObject
from sync_pipeline.engine.values import REJECTIONS, convert, reject
from sync_pipeline.staging.durable import Disk, private_folder

DUPLICATE_KEY: Final = "DUPLICATE_KEY"
EQUAL_DUPLICATE: Final = "EQUAL_DUPLICATE"
TIE_BREAKER_LOSER: Final = "TIE_BREAKER_LOSER"

SCHEMA: Final = pl.Schema(
    {"key": pl.String, "matched": pl.String, "rows": pl.Int64, "tie": pl.String, "best": pl.String}
)
"""One row for each source key of a group that the target matches as one; ``tie`` is its latest tie-breaker, ``best`` that
of the whole group. The source says which is the latest: its texts are only compared for being equal."""

FILE: Final = "duplicates.parquet"


def write_groups(groups: pl.DataFrame, folder: Path, *, disk: Disk | None = None) -> None:
    """Keeps the groups the plan found beside the night, for all its ranges: durable and private when this returns."""
    content = io.BytesIO()
    groups.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items()).write_parquet(content)
    disk = disk or Disk()
    private_folder(folder)
    disk.write(folder / FILE, content.getvalue())
    disk.sync_folder(folder)


def groups_in(folder: Path, key_range: KeyRange, *, must_exist: bool = False) -> pl.DataFrame:
    """Groups with a key in this range, each with what is known of the whole group: ``keys``, ``best`` and ``best_keys``.

    Without the file there are none; raises ``StateError`` when the plan found some, or the file cannot be read.
    """
    file = folder / FILE
    if must_exist and not file.exists():
        raise StateError(
            f"{file} is gone, which says which rows the target would match as one.",
            hint="Start a new night with `sync-pipeline sync --fresh`.",
        )
    try:
        found = pl.read_parquet(file) if file.exists() else pl.DataFrame(schema=SCHEMA)
        if "best" not in found.columns and found["tie"].is_null().all():  # an older plan without a tie-breaker
            found = found.with_columns(best=pl.lit(None, dtype=pl.String))
        groups = standing(found)
    except pl.exceptions.PolarsError as error:  # cut short, or written by a version that did not ask for the best
        raise StateError(
            f"{file} cannot be read: {error}.", hint="Start a new night with `sync-pipeline sync --fresh`."
        ) from None
    if key_range.after is not None:
        groups = groups.filter(pl.col("key") > key_range.after)
    if key_range.through is not None:
        groups = groups.filter(pl.col("key") <= key_range.through)
    return groups


def standing(groups: pl.DataFrame) -> pl.DataFrame:
    """``SCHEMA`` rows of whole groups as ``judge`` wants them: ``key``, ``keys``, ``best`` and ``best_keys``."""
    return groups.select(
        "key",
        pl.len().over("matched").alias("keys"),
        "best",
        (pl.col("tie") == pl.col("best")).sum().over("matched").alias("best_keys"),
    )


def refused(rows: pl.DataFrame, mapping: Mapping, target: TargetObject, groups: pl.DataFrame) -> pl.DataFrame:
    """Rejections of source rows (in key order), for their values or beside the other rows of their key: what a night over
    these rows would quarantine, and so the only answer to which of equal rows is sent."""
    rejections = convert(rows, mapping, target).rejections
    doubles = judge(rows, mapping, groups)
    return pl.concat([rejections, doubles]).unique(subset="index", keep="first", maintain_order=True)


def judge(frame: pl.DataFrame, mapping: Mapping, groups: pl.DataFrame) -> pl.DataFrame:
    """Rejections of one source page (in key order): every row of a group but the one that is sent, if one is."""
    key = frame[mapping.source_key]
    beside = (key == key.shift(1)).fill_null(False) | (key == key.shift(-1)).fill_null(False)
    doubtful = beside | key.is_in(groups["key"].implode()).fill_null(False) if groups.height else beside
    if not doubtful.any():
        return pl.DataFrame(schema=REJECTIONS)

    name = mapping.source_key
    tie = pl.col(mapping.tie_breaker) if mapping.tie_breaker is not None else pl.lit(None, dtype=pl.String)
    values = pl.struct(f.source for f in mapping.fields)
    rows = (
        frame.with_row_index("index")
        .filter(doubtful)
        .join(groups, left_on=name, right_on="key", how="left", maintain_order="left")
        .with_columns(
            pl.col("keys").fill_null(1),
            tie.alias("tie_value"),
            values.alias("row_values"),
        )
        .with_columns(
            # A row may stand for its group when it wins the tie-breaker, or when all rows of the group are equal.
            pl.when(pl.col("best").is_not_null() & (pl.col("best_keys") == 1))
            .then((pl.col("tie_value") == pl.col("best")).fill_null(False))
            .otherwise((pl.col("keys") == 1) & (pl.col("row_values").n_unique().over(name) == 1))
            .alias("may_win")
        )
        .with_columns(
            (pl.col("row_values").filter(pl.col("may_win")).n_unique() == 1).over(name).alias("one_kind"),
            pl.col("index").filter(pl.col("may_win")).min().over(name).alias("first"),
        )
    )
    is_decided = pl.col("best").is_not_null() & (pl.col("best_keys") == 1)
    tied = rows.filter(is_decided & ~pl.col("may_win"))
    rest = rows.filter(~(is_decided & ~pl.col("may_win")))
    equal = rest.filter(pl.col("one_kind") & (pl.col("index") != pl.col("first")))
    undecided = rest.filter(~pl.col("one_kind"))
    return pl.concat(
        [
            reject(
                frame,
                undecided["index"],
                code=DUPLICATE_KEY,
                message="several rows have this key as the target matches it, and no tie-breaker decides",
                column=name,
                set_aside=False,
            ),
            reject(
                frame,
                equal["index"],
                code=EQUAL_DUPLICATE,
                message="an equal row with this key is sent",
                column=name,
                set_aside=True,
            ),
            reject(
                frame,
                tied["index"],
                code=TIE_BREAKER_LOSER,
                message=f"another row with this key has a later {mapping.tie_breaker}",
                column=name,
                set_aside=True,
            ),
        ]
    )
