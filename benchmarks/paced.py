"""Against an org at the pace of a real one: how near a night comes to the best possible schedule, and lost locks.

The knob ``pace`` lets a statement and a batch take time, some batches at once; a batch that shares an account with one
that began before it loses its lock on those rows. ``python -m benchmarks.paced ROWS GROUP_BY OFFSET`` is a night's
loading with or without parent order (``AccountId`` or nothing) and offset starts (1 or 0): every range sends all of its
parts at once and none a second time; what it prints is the share of rows that lost their lock.
"""

from __future__ import annotations

import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench import RANGES, Bench, Part, sync
from benchmarks.org import calls
from benchmarks.process import Failed, run
from benchmarks.sheet import Sheet

if TYPE_CHECKING:
    import polars as pl

ROWS_MAX = 300_000
BATCH_ROWS = 10_000
"""What the org works on as one, and one of its batches lasts so many seconds:"""
BATCH_SECONDS = 10.0
BATCHES = 5
"""Batches at once."""
QUERY_SECONDS = 1.0
STATEMENTS_BEFORE = 4
"""Statements that must end one after the other before a row can come: columns, profile, boundaries, counts."""

LOCK_ROWS_MAX = 200_000
LOCK_SCALE = 10
"""The lock nights are that much smaller than a real one: ranges, jobs and batches of a tenth of the rows."""
LOCK_BATCH_SECONDS = 0.1
HOT_SHARE = "0.2"
"""Of the rows lie on five accounts."""
AT_ONCE = (1, 5, 10)
ORDERS = {
    "in key order": ("", "0"),
    "in parent order": ("AccountId", "0"),
    "in parent order, offset starts": ("AccountId", "1"),
}
POLLS = ("GET /services/data/v\\d+\\.\\d/jobs/ingest",)


def play(bench: Bench) -> Sheet:
    sheet: Sheet = {"night": _night(bench)}
    for at_once in AT_ONCE:
        for order, words in ORDERS.items():
            sheet[f"{order}, {at_once} at once"] = {"rows locked %": 100 * _locked_share(bench, at_once, words)}
    return sheet


def figures(sheet: Sheet) -> dict[str, float]:
    night = sheet["night"]
    return {"paced_wall": night["÷ best ratio"], "polls": night["polls/minute"]}


PART = Part("paced", "Against a paced org", play, figures, rounds=1)


def best_seconds(rows: int, *, ranges: int = RANGES) -> float:
    """The shortest time in which an org of this pace can take the rows: the statements before the first row, one to read
    a range, and all batches, so many at once; a range's last batch may be a small one."""
    per_range = math.ceil(rows / ranges)
    whole, rest = divmod(per_range, BATCH_ROWS)
    batches = ranges * (whole + (1 if rest else 0))
    rounds = rows / BATCH_ROWS / BATCHES if rest else math.ceil(batches / BATCHES)
    return (STATEMENTS_BEFORE + 1) * QUERY_SECONDS + rounds * BATCH_SECONDS
