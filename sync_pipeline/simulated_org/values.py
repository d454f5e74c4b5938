"""How the org writes values: as the text of a Bulk CSV, and as JSON of the REST API.

"Differences in results between REST API and Bulk API": https://help.salesforce.com/s/articleView?id=000385889&type=1
Numbers: https://docs.oracle.com/javase/8/docs/api/java/lang/Double.html#toString-double-
Dates: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/datafiles_date_format.htm
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import polars as pl

BULK_INSTANT: Final = "%Y-%m-%dT%H:%M:%S%.3fZ"
JSON_INSTANT: Final = "%Y-%m-%dT%H:%M:%S%.3f+0000"
PLAIN_FROM: Final = 1e-3
PLAIN_BELOW: Final = 1e7
"""Numbers between these are written without an exponent."""
TINY: Final = 1e-300
"""Here the shortest text with two digits may differ from the shortest with one, and Java wants two."""


def bulk_text(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame as text, the way a Bulk API 2.0 result holds it; null is empty text."""
    columns = [_text(column, instant=BULK_INSTANT) for column in frame.get_columns()]
    return pl.DataFrame([column.fill_null("") if column.null_count() else column for column in columns])


def json_values(column: pl.Series) -> Sequence[object]:
    """The column as values that ``msgspec`` writes the way the REST API does."""
    if column.dtype == pl.Float64:
        return [None if text is None else msgspec.Raw(text.encode()) for text in double_text(column)]
    if column.dtype in (pl.Boolean, pl.String) or column.dtype.is_integer():
        return column.to_list()
    return _text(column, instant=JSON_INSTANT).to_list()


def double_text(column: pl.Series) -> pl.Series:
    """Numbers as ``Double.toString`` of Java writes them: ``100.0``, ``1.2345678E7``, ``1.0E-4``."""
    text = column.cast(pl.String)
    size = column.abs()
    is_scientific = ((size < PLAIN_FROM) & (size > 0) | (size >= PLAIN_BELOW) & size.is_finite()).fill_null(value=False)
    if not is_scientific.any():
        return text
    return text.scatter(is_scientific.arg_true(), _scientific(column.filter(is_scientific)))


def _text(column: pl.Series, *, instant: str) -> pl.Series:
    if column.dtype == pl.String:
        return column
    if column.dtype == pl.Float64:
        return double_text(column)
    if isinstance(column.dtype, pl.Datetime):
        return column.dt.strftime(instant)
    return column.cast(pl.String)


def _scientific(numbers: pl.Series) -> pl.Series:
    """One digit before the point, at least one behind it, and the power of ten."""
    whole = r"^-?(\d+)"
    parts = (
        numbers.to_frame("number")
        .with_columns(_two_digits(numbers).alias("text"))
        .select(
            pl.when(pl.col("number") < 0).then(pl.lit("-")).otherwise(pl.lit("")).alias("sign"),
            pl.col("text").str.extract(whole).alias("whole"),
            pl.col("text").str.extract(r"\.(\d+)").fill_null("").alias("fraction"),
            pl.col("text")
            .str.extract(r"e([+-]?\d+)$")
            .str.strip_prefix("+")
            .fill_null("0")
            .cast(pl.Int32)
            .alias("shift"),
        )
        .with_columns((pl.col("whole") + pl.col("fraction")).alias("all"))
        .with_columns(pl.col("all").str.strip_chars_start("0").alias("digits"))
        .with_columns(
            (
                pl.col("whole").str.len_bytes().cast(pl.Int32)
                + pl.col("digits").str.len_bytes().cast(pl.Int32)
                - pl.col("all").str.len_bytes().cast(pl.Int32)
                + pl.col("shift")
                - 1
            ).alias("power"),
            pl.col("digits").str.slice(1).str.strip_chars_end("0").alias("rest"),
        )
    )
    rest = pl.when(pl.col("rest") == "").then(pl.lit("0")).otherwise("rest")
    return parts.select(
        pl.concat_str("sign", pl.col("digits").str.head(1), pl.lit("."), rest, pl.lit("E"), "power").alias("text")
    ).to_series()


def _two_digits(numbers: pl.Series) -> pl.Series:
    """The shortest text of each number; for the smallest of all, the nearest one of two digits."""
    text = numbers.cast(pl.String)
    is_tiny = numbers.abs() < TINY
    if not is_tiny.any():
        return text
    return pl.Series(
        [
            f"{number:.1e}" if tiny and float(f"{number:.1e}") == number else shortest
            for number, shortest, tiny in zip(numbers, text, is_tiny, strict=True)
        ],
        dtype=pl.String,
    )
