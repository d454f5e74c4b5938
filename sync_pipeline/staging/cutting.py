"""Where the ordered rows of a range are cut into parts. Pure arithmetic over units, which are never divided.

A unit is a parent with all of its rows, or a few rows without a parent. Units form a ring, on which a parent has the
same place in every range: each range starts elsewhere, so that ranges in flight touch different parents. A frame of units
has the columns ``start`` (the position of the unit's first row in the order), ``rows``, and ``bytes`` (the most its rows
can take in a CSV), all Int64.
"""

from __future__ import annotations

import math
from typing import Final

import polars as pl

UNIT_SHARE: Final = 100
"""Rows without a parent are cut in units of this share of a part."""
CSV_BYTES: Final = {pl.Date: 11, pl.Boolean: 6, pl.Datetime: 26}
"""The most bytes a value of a type takes in a CSV, its comma included; ``OTHER_BYTES`` for numbers."""
OTHER_BYTES: Final = 42
OVERSHOOT: Final = 0.05
"""By how much a part may exceed the wanted rows when that saves a part: a job costs a dozen API calls."""


def place(parent: pl.Expr) -> pl.Expr:
    """Where a parent stands on the ring (UInt64): a hash, which is sorted three times as fast as the text and takes a
    third of its memory. Null for none. Two parents with one place would share their parts, and lose nothing by it."""
    return pl.when(parent.is_not_null()).then(parent.hash())


def csv_bytes(name: str, dtype: pl.DataType) -> pl.Expr:
    """The most bytes the value of a column can take in a CSV, with its comma: every character of a text may be a quote."""
    if dtype == pl.String:
        return (2 * pl.col(name).str.len_bytes().cast(pl.Int64) + 3).fill_null(5)
    return pl.lit(CSV_BYTES.get(dtype.base_type(), OTHER_BYTES), dtype=pl.Int64)


def units_of(rows: pl.DataFrame, *, part_rows: int, part_bytes: int, heavy_rows: int) -> pl.DataFrame:
    """The units of rows (``place`` of their parents, ``bytes``) in the order of their places; ``is_heavy`` marks those
    parents that are too large to share a part: more than ``heavy_rows`` or a part's rows, or more than ``part_bytes``."""
    unit_rows = _unit_rows(rows, part_rows, part_bytes)
    places, number = rows["place"], pl.int_range(rows.height, dtype=pl.Int64, eager=True)
    begins = places.ne_missing(places.shift(1)) | (places.is_null() & (number % unit_rows == 0)) | (number == 0)
    units = _between(rows, number.filter(begins), rows.height)
    is_large = (pl.col("rows") > min(heavy_rows, part_rows)) | (pl.col("bytes") > part_bytes)
    has_parent = places.filter(begins).is_not_null()
    return units.with_columns(is_heavy=has_parent & (pl.col("rows") > 1) & is_large)


def units_within(rows: pl.DataFrame, start: int, stop: int, *, part_rows: int, part_bytes: int) -> pl.DataFrame:
    """Rows of one heavy parent as units that may be parted."""
    step = _unit_rows(rows, part_rows, part_bytes)
    return _between(rows, pl.int_range(start, stop, step, dtype=pl.Int64, eager=True), stop)


def _unit_rows(rows: pl.DataFrame, part_rows: int, part_bytes: int) -> int:
    widest = rows["bytes"].max() if rows.height else 1
    return max(min(part_rows, part_bytes // int(widest)) // UNIT_SHARE, 1)  # type: ignore[arg-type]


def _between(rows: pl.DataFrame, starts: pl.Series, stop: int) -> pl.DataFrame:
    """Units that begin at these positions, each of which reaches to the next one, the last to ``stop``."""
    stops = starts.shift(-1, fill_value=stop)
    upto = pl.concat([pl.Series([0], dtype=pl.Int64), rows["bytes"].cum_sum()])
    return pl.DataFrame({"start": starts, "rows": stops - starts, "bytes": upto.gather(stops) - upto.gather(starts)})


def ring(units: pl.DataFrame, fraction: float) -> pl.DataFrame:
    """The same units, beginning with the one that holds the row at this fraction (0 up to 1) of all rows."""
    if units.height == 0:
        return units
    ends = units["rows"].cum_sum()
    position = min(math.floor(ends[-1] * fraction), ends[-1] - 1)
    first = int(ends.search_sorted(position, side="right"))
    return pl.concat([units[first:], units[:first]])


def ends(units: pl.DataFrame, *, part_rows: int, part_bytes: int, is_strict: bool) -> list[int]:
    """Where parts end: the number of units in the first part, in the first two, and so on.

    A part has at most ``part_bytes``, and ``part_rows`` rows or, unless ``is_strict``, a little more; a unit that is
    larger stands alone. Parts are of about one size.
    """
    rows, sizes = units["rows"].cum_sum(), units["bytes"].cum_sum()
    ceiling = part_rows if is_strict else part_rows + int(part_rows * OVERSHOOT)
    found: list[int] = []
    first = 0
    while first < units.height:
        rows_before = int(rows[first - 1]) if first else 0
        bytes_before = int(sizes[first - 1]) if first else 0
        last = min(
            int(rows.search_sorted(rows_before + ceiling, side="right")),
            int(sizes.search_sorted(bytes_before + part_bytes, side="right")),
        )
        rows_left = int(rows[-1]) - rows_before
        wanted = math.ceil(rows_left / math.ceil(rows_left / part_rows)) if rows_left else 0
        even = int(rows.search_sorted(rows_before + wanted, side="left")) + 1
        first = max(min(last, even), first + 1)
        found.append(first)
    return found


def slices(units: pl.DataFrame) -> list[tuple[int, int]]:
    """The positions ``start`` up to ``stop`` that these units cover, in their order, neighbours joined."""
    if units.height == 0:
        return []
    start, stop = units["start"], units["start"] + units["rows"]
    is_first = (start != stop.shift(1)).fill_null(True)
    is_last = is_first.shift(-1, fill_value=True)
    return list(zip(start.filter(is_first).to_list(), stop.filter(is_last).to_list(), strict=True))
