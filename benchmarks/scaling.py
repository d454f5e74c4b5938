"""How a night grows with its rows, its ranges and its lanes, as a table and as bars. It is not measured by value."""

from __future__ import annotations

from benchmarks.bench import MEGABYTE, Bench, Part, sync
from benchmarks.process import Failed
from benchmarks.sheet import Row, Sheet

SIZES = (0.1, 0.5, 1.0)
"""Of the rows."""
LARGE = 5.0
BREADTH = 0.2
"""Of the rows, for the nights in which ranges and lanes differ."""
RANGE_COUNTS = (1, 5, 10, 20, 40)
LANE_COUNTS = (1, 2, 5, 10, 20)
LANES = 10
LANED = 20
"""Ranges of the nights in which lanes differ."""
GROWTH = "peak of 5 times the rows ratio"


def play(bench: Bench) -> Sheet:
    sheet: Sheet = {f"{rows:,} rows": _night(bench, rows) for rows in (round(bench.rows * size) for size in SIZES)}
    if bench.large:
        rows, ranges = round(bench.rows * LARGE), round(bench.ranges * LARGE)  # which are as large as before
        larger = sheet[f"{rows:,} rows in {ranges} ranges"] = _night(bench, rows, ranges=ranges)
        larger[GROWTH] = larger["peak MB"] / sheet[f"{bench.rows:,} rows"]["peak MB"]
    rows = round(bench.rows * BREADTH)
    for ranges in RANGE_COUNTS:
        sheet[f"{rows:,} rows in {ranges} ranges"] = _night(bench, rows, ranges=ranges)
    for lanes in LANE_COUNTS:
        sheet[f"{rows:,} rows in {LANED} ranges, {lanes} lanes"] = _night(bench, rows, ranges=LANED, lanes=lanes)
    return sheet


def figures(sheet: Sheet) -> dict[str, float]:
    larger = [row[GROWTH] for row in sheet.values() if GROWTH in row]
    return {"growth": larger[0]} if larger else {}


PART = Part(
    "scaling", "Rows, ranges and lanes", play, figures, rounds=1, bars=("wall s", "CPU s/M", "peak MB", "API calls")
)


def _night(bench: Bench, rows: int, *, ranges: int | None = None, lanes: int = LANES) -> Row:
    copy, place = bench.orgs.copied(bench.orgs.seeded(rows)), bench.place("scaling")
    with bench.orgs.served(copy) as served:
        settings = bench.settings(served, place / "home", rows=rows, ranges=ranges)
        night, document = sync(settings | {"SYNC_VERIFY": "counts", "SYNC_LANES": str(lanes)}, place=place)
    if document["totals"]["created"] != rows:
        raise Failed(f"The night created {document['totals']['created']} of {rows} rows.")
    return {
        "rows": rows,
        "ranges": len(document["ranges"]),
        "lanes": lanes,
        "wall s": night.wall_seconds,
        "krows/s": rows / night.wall_seconds / 1000,
        "CPU s": night.cpu_seconds,
        "CPU s/M": night.cpu_seconds / rows * 1e6,
        "peak MB": night.peak_bytes / MEGABYTE,
        "API calls": document["api_calls"],
    }
