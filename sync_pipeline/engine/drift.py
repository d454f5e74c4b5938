"""Rows that the measurement found missing, different or doubled: looked at once more, and each given one reason.

The second look asks the org and the source for these rows alone. It names the column and both values, drops what turned
up meanwhile, and tells a row that the source has changed since it was staged from one that was lost. The reason comes
from the ledger: what the night did with the row, and who touched it in the org after that.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Final

import polars as pl

from sync_pipeline.domain.ledger import RowOutcome
from sync_pipeline.domain.mapping import Mapping, TargetObject
from sync_pipeline.engine.duplicates import refused
from sync_pipeline.engine.equality import INSTANT_FORMAT, Equality
from sync_pipeline.engine.values import convert
from sync_pipeline.staging.comparison import Kind

CHANGED: Final = "changed since"
"""The source says something else now than when the row was staged."""
LOST: Final = "lost"
"""A result file named the row as saved, and the org has no row with its key."""
TOUCHED: Final = "touched by someone else"
OTHERWISE: Final = "saved otherwise"
"""Nobody touched the row after the load, and still the org holds another value than was sent."""
DOUBLED: Final = "doubled"
NEVER_READ: Final = "never read"
QUARANTINED: Final = "quarantined"
REJECTED: Final = "rejected"
UNPROCESSED: Final = "unprocessed"
SET_ASIDE: Final = "set aside"
"""A declared rule chose another row of the same key."""

DRIFT: Final = pl.Schema(
    {
        "key": pl.String,
        "place": pl.UInt32,
        "finding": pl.String,
        "column": pl.String,
        "staged": pl.String,
        "present": pl.String,
        "reason": pl.String,
        "detail": pl.String,
    }
)
"""One row for each missing or doubled key and each value that differs. ``column`` is empty where nothing more is known;
``reason`` is empty until the ledger was asked."""

FATES: Final = pl.Schema(
    [
        ("key", pl.String()),
        ("outcome", pl.String()),
        ("code", pl.String()),
        ("message", pl.String()),
        ("job_id", pl.String()),
        ("id", pl.String()),
        ("created", pl.Boolean()),
        ("recorded_at", pl.Datetime("us")),
    ]
)
"""What the ledger says of a key; see ``RangeStore.fates``."""

DELETED: Final = "the source has no row with this key any more, nor has the org"
SOURCE_FOLLOWED: Final = "the source holds the org's value now"
CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far the org's clock may be ahead of ours."""
USER_ID_LENGTH: Final = 15
NAMED: Final = 5
"""Ids that a detail names."""


def named_by_key(
    found: pl.DataFrame, *, finding: str | None = None, reason: str = "", detail: str = ""
) -> pl.DataFrame:
    """``DRIFT`` rows of findings (``kind``, ``key``, ``place``) of which no more is known than that."""
    return found.select(
        "key",
        "place",
        (pl.col("kind") if finding is None else pl.lit(finding)).alias("finding"),
        pl.lit("").alias("column"),
        pl.lit(None, dtype=pl.String).alias("staged"),
        pl.lit(None, dtype=pl.String).alias("present"),
        pl.lit(reason).alias("reason"),
        pl.lit(detail).alias("detail"),
    )


def look_again(
    equality: Equality, doubtful: pl.DataFrame, expected: pl.DataFrame, present: pl.DataFrame, *, with_values: bool
) -> pl.DataFrame:
    """The ``DRIFT`` rows of what is still missing, doubled or different; a key that is equal now has none.

    ``expected`` holds the rows the org should hold, typed, as far as they are known; ``present`` the org's rows of the
    doubtful keys, as text.
    """
    rows = doubtful.with_columns(equality.matched(doubtful["key"]).alias("matched"))
    in_org = present.select(equality.matched(present["key"]).alias("matched"), "Id")
    ids = in_org.group_by("matched").agg(pl.len().alias("rows"), pl.col("Id").sort().head(NAMED).str.join(", "))
    rows = rows.drop("rows", strict=False).join(ids, on="matched", how="left", maintain_order="left")
    lost = rows.filter(pl.col("rows").is_null()).with_columns(pl.lit(str(Kind.MISSING)).alias("kind"))
    doubled = rows.filter(pl.col("rows") > 1).with_columns(pl.lit(str(Kind.DOUBLED)).alias("kind"))
    told = pl.format("{} rows of the org have this key: {}", "rows", "Id")
    doubled = named_by_key(doubled, reason=DOUBLED).with_columns(doubled.select(told.alias("detail")).to_series())
    found = [named_by_key(lost), doubled]
    if with_values:
        single = rows.filter(pl.col("rows") == 1)
        unknown = single.filter(~pl.col("key").is_in(expected["key"].implode()))
        found += [named_by_key(unknown, finding=Kind.DIFFERENT), _different(equality, single, expected, present)]
    return pl.concat(found)


def _different(equality: Equality, single: pl.DataFrame, expected: pl.DataFrame, present: pl.DataFrame) -> pl.DataFrame:
    found = equality.differences(expected, present)
    return found.join(single.select("key", "place"), on="key", how="inner", maintain_order="left").select(
        "key",
        "place",
        pl.lit(str(Kind.DIFFERENT)).alias("finding"),
        "column",
        "staged",
        "present",
        pl.lit("").alias("reason"),
        pl.lit("").alias("detail"),
    )


def mark_changed(
    equality: Equality, drift: pl.DataFrame, source: pl.DataFrame, groups: pl.DataFrame, present: pl.DataFrame
) -> pl.DataFrame:
    """The same rows, those ``changed since`` that the source explains: the org holds what the source says now, or the
    source has lost the row as well.

    ``source`` are the source's rows of these keys as they are now, as text, in the order of the key; ``groups`` tell
    which of several rows of a key is sent.
    """
    if not drift.height:
        return drift
    mapping = equality.mapping
    now = sendable(source, mapping, equality.target, groups)
    there = equality.matched(source[mapping.source_key]).implode()
    unequal = equality.differences(now, present)["key"].implode()
    follows = equality.matched(now.filter(~pl.col("key").is_in(unequal))["key"]).implode()
    keys = equality.matched(drift["key"])
    was_changed = (pl.col("finding") == Kind.DIFFERENT) & keys.is_in(follows)
    was_deleted = (pl.col("finding") == Kind.MISSING) & ~keys.is_in(there)
    told = pl.when(was_changed).then(pl.lit(SOURCE_FOLLOWED)).when(was_deleted).then(pl.lit(DELETED))
    return drift.with_columns(
        pl.when(was_changed | was_deleted).then(pl.lit(CHANGED)).otherwise("finding").alias("finding"),
        pl.when(was_changed | was_deleted).then(pl.lit(CHANGED)).otherwise("reason").alias("reason"),
        told.otherwise("detail").alias("detail"),
    )


def sendable(rows: pl.DataFrame, mapping: Mapping, target: TargetObject, groups: pl.DataFrame) -> pl.DataFrame:
    """Source rows (in key order) as they would be staged, without those that would be quarantined."""
    rejections = refused(rows, mapping, target, groups)
    positions = pl.int_range(rows.height, dtype=pl.UInt32, eager=True)
    return convert(rows, mapping, target).frame.filter(~positions.is_in(rejections["index"].implode()))


def with_reasons(
    equality: Equality, drift: pl.DataFrame, fates: pl.DataFrame, present: pl.DataFrame, *, user_id: str
) -> pl.DataFrame:
    """The same rows, each with its reason.

    ``fates`` is what the ledger says of these keys; ``present`` the org's rows that were looked up (key, Id,
    LastModifiedDate, LastModifiedById); ``user_id`` is whom the pipeline runs as.
    """
    touched = present.select(
        equality.matched(present["key"]).alias("matched"),
        pl.col("LastModifiedById").alias("by"),
        pl.col("LastModifiedDate").alias("at"),
        pl.col("LastModifiedDate")
        .str.to_datetime(INSTANT_FORMAT, time_unit="us", time_zone="UTC", strict=False)
        .alias("instant"),
    ).unique("matched")
    known = fates.select(pl.col("key"), pl.lit(value=True).alias("staged_once"), pl.exclude("key").name.prefix("of_"))
    rows = (
        drift.with_columns(equality.matched(drift["key"]).alias("matched"))
        .join(known, on="key", how="left", maintain_order="left")
        .join(touched, on="matched", how="left", maintain_order="left")
    )
    saved_at = pl.col("of_recorded_at").dt.replace_time_zone(str(UTC))
    by_other = pl.col("by").str.head(USER_ID_LENGTH) != user_id[:USER_ID_LENGTH] if user_id else pl.lit(value=False)
    is_touched = by_other.fill_null(value=False) | (pl.col("instant") > saved_at + CLOCK_SKEW).fill_null(value=False)
    outcome = pl.col("of_outcome")
    was_saved = outcome == RowOutcome.SUCCEEDED
    acknowledged = pl.format(
        "job {} said {} as {} (archived at {} UTC)",
        "of_job_id",
        pl.when("of_created").then(pl.lit("created")).otherwise(pl.lit("updated")),
        "of_id",
        pl.col("of_recorded_at").dt.strftime("%Y-%m-%d %H:%M:%S"),
    )
    refused = pl.format("{}: {}", pl.col("of_code").fill_null(""), pl.col("of_message").fill_null(""))
    reason, detail = _cases(
        (pl.col("reason") != "", pl.col("reason"), pl.col("detail")),
        (pl.col("finding") == Kind.DOUBLED, pl.lit(DOUBLED), pl.lit("several rows of the org have this key")),
        (pl.col("staged_once").is_null(), pl.lit(NEVER_READ), pl.lit("the night has staged no row with this key")),
        (outcome.is_null(), pl.lit(UNPROCESSED), pl.lit("the row was staged and not sent to its end")),
        (outcome == RowOutcome.FAILED, pl.lit(REJECTED), refused),
        (outcome == RowOutcome.UNPROCESSED, pl.lit(UNPROCESSED), refused),
        (outcome == RowOutcome.QUARANTINED, pl.lit(QUARANTINED), refused),
        (
            was_saved & (pl.col("finding") == Kind.MISSING),
            pl.lit(LOST),
            pl.format("{}; the org has no such row", acknowledged),
        ),
        (is_touched, pl.lit(TOUCHED), pl.format("user {} changed it at {}; {}", "by", "at", acknowledged)),
        (
            pl.col("at").is_not_null(),
            pl.lit(OTHERWISE),
            pl.format("{}; last changed at {} by {}", acknowledged, "at", "by"),
        ),
        (pl.lit(value=True), pl.lit(OTHERWISE), pl.format("{}; who changed it was not looked up", acknowledged)),
    )
    return rows.with_columns(reason.alias("reason"), detail.alias("detail")).select(DRIFT.names())


def _cases(*cases: tuple[pl.Expr, pl.Expr, pl.Expr]) -> tuple[pl.Expr, pl.Expr]:
    """Reason and detail of the first condition that holds."""
    reason: pl.Expr = pl.lit("")
    detail: pl.Expr = pl.lit("")
    for condition, word, told in reversed(cases):
        holds = condition.fill_null(value=False)
        reason = pl.when(holds).then(word).otherwise(reason)
        detail = pl.when(holds).then(told).otherwise(detail)
    return reason, detail
