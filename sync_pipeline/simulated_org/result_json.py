"""Values as the engine writes them into JSON.

Numbers keep their digits; a double has as few as tell it apart, no point where it is whole, and an exponent of two digits
from 1e+15 on and below 1e-04; fractions of a second end with their last digit that counts.
"""

from __future__ import annotations

from typing import Final

import polars as pl

ESCAPED: Final = r'["\\\x00-\x1f]'
SHORT: Final = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
ESCAPES: Final = {chr(code): f"\\u{code:04x}" for code in range(32)} | SHORT
PLAIN_FROM: Final = 1e-4
PLAIN_BELOW: Final[dict[type[pl.DataType], float]] = {pl.Float64: 1e15, pl.Float32: 1e6}
"""Numbers between these are written without an exponent."""


def json_lines(frame: pl.DataFrame) -> pl.Series:
    """Each row as the inside of a JSON array."""
    written = [_text(frame[name]) for name in frame.columns]
    places = ",".join(place for place, _ in written)
    return frame.select(pl.format(places, *(text for _, text in written)).alias("line")).to_series()


def _text(values: pl.Series) -> tuple[str, pl.Expr]:
    """The place of a column in the text of a row, and what stands in it."""
    dtype = values.dtype
    column = pl.lit(values)
    if isinstance(dtype, pl.List):
        return "{}", pl.lit(_lists(values)).fill_null("null")
    if dtype.is_integer() or isinstance(dtype, pl.Decimal) or dtype == pl.Boolean:
        return "{}", column.cast(pl.String).fill_null("null")
    if dtype.is_float():
        return "{}", pl.lit(_doubles(values)).fill_null("null")
    if dtype == pl.String:
        if values.str.contains(ESCAPED).any():
            column = pl.lit(values.str.replace_many(ESCAPES))
    elif isinstance(dtype, pl.Datetime):
        column = _fraction_cut(column.dt.strftime("%Y-%m-%dT%H:%M:%S%.6f"))
        column = column if dtype.time_zone is None else column + "+00:00"
    elif dtype == pl.Time:
        column = _fraction_cut(column.dt.to_string("%H:%M:%S%.6f"))
    else:
        column = column.cast(pl.String).str.strip_prefix("+")
    if not values.null_count():
        return '"{}"', column
    return "{}", pl.concat_str(pl.lit('"'), column, pl.lit('"')).fill_null("null")


def _fraction_cut(column: pl.Expr) -> pl.Expr:
    return column.str.strip_chars_end("0").str.strip_chars_end(".")


def _doubles(values: pl.Series) -> pl.Series:
    size = values.abs()
    is_plain = (size == 0) | ((size >= PLAIN_FROM) & (size < PLAIN_BELOW[type(values.dtype)]))
    texts = values.cast(pl.String).str.strip_suffix(".0")
    if is_plain.all():
        return texts
    return (
        pl.DataFrame({"plain": texts, "is_plain": is_plain, "value": values})
        .select(
            pl.when("is_plain").then("plain").otherwise(pl.col("plain").map_elements(_exponent, return_dtype=pl.String))
        )
        .to_series()
    )


def _exponent(text: str) -> str:
    """A double that Polars wrote, with a sign and two digits in its exponent; a NaN or an infinity as a text."""
    named = {"NaN": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}.get(text)
    if named is not None:
        return named
    mantissa, _, written = text.partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    exponent = int(written or 0) + len(whole) - 1 - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    point = f".{digits[1:]}" if digits[1:] else ""
    return f"{sign}{digits[0]}{point}e{exponent:+03d}"


def _lists(values: pl.Series) -> pl.Series:
    """Nested arrays: the values inside become texts once, whichever row they are of."""
    frame = pl.DataFrame({"row": pl.int_range(len(values), eager=True), "value": values.rename("value")})
    parts = frame.filter(pl.col("value").list.len() > 0).explode("value")
    lines = json_lines(parts.select("value"))
    joined = parts.select("row").with_columns(line=lines).group_by("row", maintain_order=True).agg(pl.col("line"))
    written = joined.select("row", line=pl.concat_str(pl.lit("["), pl.col("line").list.join(","), pl.lit("]")))
    is_null = values.is_null()
    found = frame.select("row").join(written, on="row", how="left", maintain_order="left")["line"].fill_null("[]")
    return found.zip_with(~is_null, pl.Series([None], dtype=pl.String))
