"""Cutting the order into parts: every unit once, none divided, no part above its limits, as few parts as can be."""

from __future__ import annotations

import math
from itertools import pairwise

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.staging.cutting import OVERSHOOT, csv_bytes, ends, place, ring, slices, units_of, units_within

UNITS = pl.Schema({"start": pl.Int64, "rows": pl.Int64, "bytes": pl.Int64})


def units(*sizes: tuple[int, int]) -> pl.DataFrame:
    """Units of (rows, bytes), one after the other."""
    starts = [sum(rows for rows, _ in sizes[:i]) for i in range(len(sizes))]
    return pl.DataFrame([(start, *size) for start, size in zip(starts, sizes, strict=True)], schema=UNITS, orient="row")


ROWS = st.lists(st.tuples(st.sampled_from([None, 0, 7, 2**64 - 1]), st.integers(1, 300)), max_size=60).map(
    lambda rows: pl.DataFrame(
        sorted(rows, key=lambda row: -1 if row[0] is None else row[0]),
        schema={"place": pl.UInt64, "bytes": pl.Int64},
        orient="row",
    )
)


@given(st.lists(st.none() | st.text(max_size=20), min_size=1), st.integers(0))
def test_a_parent_has_one_place_in_every_range(parents: list[str | None], turn: int) -> None:
    turned = [*parents[turn % len(parents) :], *parents[: turn % len(parents)]]

    here, there = (dict(zip(texts, _places(texts), strict=True)) for texts in (parents, turned))

    assert here == there
    assert all((at is None) == (parent is None) for parent, at in here.items())
    assert len(set(here.values())) == len(set(parents))


def _places(parents: list[str | None]) -> list[int | None]:
    return (
        pl.DataFrame({"parent": parents}, schema={"parent": pl.String})
        .select(place(pl.col("parent")))["parent"]
        .to_list()
    )


@given(rows=ROWS, part_rows=st.integers(1, 200), part_bytes=st.integers(300, 60_000), heavy_rows=st.integers(1, 20))
def test_units_hold_every_row_once_and_a_parent_whole(
    rows: pl.DataFrame, part_rows: int, part_bytes: int, heavy_rows: int
) -> None:
    made = units_of(rows, part_rows=part_rows, part_bytes=part_bytes, heavy_rows=heavy_rows)

    assert slices(made) == ([(0, rows.height)] if rows.height else [])
    parents = []
    for start, count, size, is_heavy in made.iter_rows():
        unit = rows[start : start + count]
        assert unit["bytes"].sum() == size
        assert unit["place"].n_unique() == 1
        parent = unit["place"][0]
        parents += [parent] if parent is not None else []
        assert is_heavy == (
            parent is not None and count > 1 and (count > min(heavy_rows, part_rows) or size > part_bytes)
        )
    assert parents == rows["place"].drop_nulls().unique(maintain_order=True).to_list()


@given(rows=ROWS, part_rows=st.integers(1, 200), part_bytes=st.integers(300, 60_000), data=st.data())
def test_rows_of_one_parent_are_parted_in_units_of_a_hundredth(
    rows: pl.DataFrame, part_rows: int, part_bytes: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, rows.height))
    stop = data.draw(st.integers(start, rows.height))

    made = units_within(rows, start, stop, part_rows=part_rows, part_bytes=part_bytes)

    assert slices(made) == ([(start, stop)] if stop > start else [])
    assert made["rows"].to_list() == [min(max(min(part_rows, part_bytes // rows["bytes"].max()) // 100, 1), stop - at)
                                      for at in made["start"]]  # type: ignore[operator]  # fmt: skip
    assert made["bytes"].sum() == rows["bytes"][start:stop].sum()


@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.text(max_size=8),
            st.none() | st.decimals(-(10**16), 10**16, places=2),
            st.none() | st.dates(),
            st.none() | st.booleans(),
            st.none() | st.datetimes(),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_no_row_of_a_csv_is_longer_than_was_reckoned(rows: list[tuple[object, ...]]) -> None:
    types = {"t": pl.String(), "n": pl.Decimal(38, 2), "d": pl.Date(), "b": pl.Boolean(), "i": pl.Datetime("ms", "UTC")}
    frame = pl.DataFrame(rows, schema=types, orient="row")

    reckoned = frame.select(pl.sum_horizontal(csv_bytes(name, dtype) for name, dtype in types.items())).to_series()

    for row, most in zip(frame.iter_slices(1), reckoned, strict=True):
        line = row.write_csv(include_header=False, null_value="#N/A", datetime_format="%Y-%m-%dT%H:%M:%S%.3fZ")
        assert len(line.encode()) <= most


SIZES = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 300)), max_size=40)


@given(sizes=SIZES, part_rows=st.integers(1, 60), part_bytes=st.integers(1, 600), is_strict=st.booleans())
def test_parts_hold_every_unit_once_and_keep_their_limits(
    sizes: list[tuple[int, int]], part_rows: int, part_bytes: int, is_strict: bool
) -> None:
    found = ends(units(*sizes), part_rows=part_rows, part_bytes=part_bytes, is_strict=is_strict)
    ceiling = part_rows if is_strict else part_rows * (1 + OVERSHOOT)

    assert [0, *found] == sorted({0, *found}) and (found[-1] if found else 0) == len(sizes)
    for first, last in pairwise([0, *found]):
        part = sizes[first:last]
        if len(part) > 1:
            assert sum(rows for rows, _ in part) <= ceiling
            assert sum(size for _, size in part) <= part_bytes


@given(rows=st.integers(1, 200), part_rows=st.integers(1, 60))
def test_single_rows_make_the_fewest_parts_of_one_size(rows: int, part_rows: int) -> None:
    found = ends(units(*[(1, 1)] * rows), part_rows=part_rows, part_bytes=10**9, is_strict=True)
    sizes = [last - first for first, last in pairwise([0, *found])]

    assert len(sizes) == math.ceil(rows / part_rows)
    assert max(sizes) - min(sizes) <= 1


def test_a_little_more_than_wanted_saves_a_job() -> None:
    parents = units(*[(7, 700)] * 30)

    assert ends(parents, part_rows=105, part_bytes=10**9, is_strict=True) == [15, 30]
    assert ends(parents, part_rows=104, part_bytes=10**9, is_strict=False) == [10, 20, 30]
    assert ends(units(*[(7, 700)] * 29), part_rows=102, part_bytes=10**9, is_strict=False) == [15, 29]
    assert ends(units(*[(7, 700)] * 29), part_rows=102, part_bytes=10**9, is_strict=True) == [14, 22, 29]


@given(sizes=SIZES, fraction=st.floats(0, 1, exclude_max=True))
def test_the_ring_begins_with_the_unit_that_holds_the_fraction(sizes: list[tuple[int, int]], fraction: float) -> None:
    whole = units(*sizes)
    turned = ring(whole, fraction)

    assert turned.sort("start").equals(whole)
    if sizes:
        position = math.floor(sum(rows for rows, _ in sizes) * fraction)
        start, rows, _ = turned.row(0)
        assert start <= position < start + rows
        steps = [after - before for before, after in pairwise(turned["start"])]
        assert sum(step < 0 for step in steps) <= 1


@given(sizes=SIZES, data=st.data())
def test_slices_cover_the_positions_of_their_units_in_order(sizes: list[tuple[int, int]], data: st.DataObject) -> None:
    whole = units(*sizes)
    some = whole.filter(pl.Series([data.draw(st.booleans()) for _ in sizes], dtype=pl.Boolean)) if sizes else whole
    positions = [p for start, stop in slices(some) for p in range(start, stop)]

    assert positions == [p for start, rows, _ in some.iter_rows() for p in range(start, start + rows)]
    assert all(before[1] < after[0] for before, after in pairwise(slices(some)))
