"""Against an org at the pace of a real one: how near a night comes to the best possible schedule, and lost locks.

The knob ``pace`` lets a statement and a batch take time, some batches at once. A batch that shares an account with one
that began before it and still runs loses its lock on those rows. A night of 2,000,000 rows takes ten minutes at that pace.

``python -m benchmarks.paced GROUP_BY OFFSETS`` sends every part of a staged night at once and none a second time: the
rows of a range in the order of the field GROUP_BY, or of their keys where it is empty; the ranges start at offsets of
their own unless OFFSETS is 0. It prints the rows, and how many of them lost their lock.
"""

from __future__ import annotations

import heapq
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench import Bench, Part, sync
from benchmarks.org import calls
from benchmarks.process import Failed, run
from benchmarks.sheet import Sheet

if TYPE_CHECKING:
    from sync_pipeline.salesforce.bulk import Bulk

QUERY_SECONDS = 1.0
"""Each statement of the source takes so long."""
ROWS, BATCH_ROWS, BATCH_SECONDS = 2_000_000, 10_000, 15.0
"""A night of so many rows, and a batch of an org that takes so long for it. Fewer rows are cut into batches and parts that
are smaller and faster by as much, so that the night keeps its shape."""
PART_BATCHES = 10
BATCHES = 5
"""Batches that the org works on at once."""
STATEMENTS_BEFORE = 4
"""What a plan asks the source, one after the other: its columns, its rows, boundaries, the rows of the ranges."""
STATEMENTS_AFTER = 1
"""What even the shortest measurement asks: the source counted once more."""

LOCK_SCALE = 10
"""Where locks are counted, rows, jobs and batches are a tenth of what they are in a night, which keeps its shape."""
LOCK_BATCH_ROWS, LOCK_BATCH_SECONDS = BATCH_ROWS // LOCK_SCALE, 0.1
HOT_SHARE = "0.2"
"""Of the rows lie on five accounts."""
ORDERS = {
    "in key order": ("", "0"),
    "in parent order": ("AccountId", "0"),
    "in parent order, from offsets": ("AccountId", "1"),
}
SENDINGS = ((1, "in key order"), *product((5, 10), ORDERS))
"""Batches at once, and order. Where one batch has the org for itself, the order does not matter."""
LOOKS = "GET /services/data/v\\d+\\.\\d/jobs/ingest"
"""Routes that begin so are looks at jobs, or result files, which have a name more."""
RESULTS = "successfulResults"


def play(bench: Bench) -> Sheet:
    sheet: Sheet = {"night at that pace": _night(bench)}
    for at_once, order in SENDINGS:
        rows, locked = _locked(bench, at_once, *ORDERS[order])
        sheet[f"sent once {order}, {at_once} at once"] = {"rows": rows, "locked %": 100 * locked / rows}
    return sheet


def figures(sheet: Sheet) -> dict[str, float]:
    night = sheet["night at that pace"]
    return {"paced_wall": night["÷ best ratio"], "polls": night["polls/minute"]}


PART = Part("paced", "Against a paced org", play, figures, rounds=1)


def batch_of(rows: int) -> tuple[int, float]:
    """Rows of a batch where the night has so many, and the seconds that it takes."""
    batch_rows = max(BATCH_ROWS * min(rows, ROWS) // ROWS, 1)
    return batch_rows, BATCH_SECONDS * batch_rows / BATCH_ROWS


def best_seconds(rows: int, *, ranges: int) -> float:
    """The shortest schedule at this pace: the statements that must end before a range can be read, its own, then all
    batches of all ranges, the large ones first, and the measurement."""
    batch_rows, batch_seconds = batch_of(rows)
    sizes: list[int] = []
    for place in range(ranges):
        whole, rest = divmod(rows * (place + 1) // ranges - rows * place // ranges, batch_rows)
        sizes += [batch_rows] * whole + ([rest] if rest else [])
    free_at = [0.0] * BATCHES
    for size in sorted(sizes, reverse=True):
        heapq.heapreplace(free_at, free_at[0] + size / batch_rows * batch_seconds)
    return (STATEMENTS_BEFORE + 1 + STATEMENTS_AFTER) * QUERY_SECONDS + max(free_at)


def _settings(batch_rows: int) -> dict[str, str]:
    return {"SYNC_PART_ROWS": str(PART_BATCHES * batch_rows), "SYNC_DISTRIBUTION": "none", "SYNC_VERIFY": "counts"}


def _night(bench: Bench) -> dict[str, float]:
    rows, place = bench.rows, bench.place("paced")
    batch_rows, batch_seconds = batch_of(rows)
    copy = bench.orgs.copied(bench.orgs.seeded(rows))
    pace = {"query_seconds": QUERY_SECONDS, "rows_per_second": batch_rows / batch_seconds, "batches": BATCHES}
    calls(copy, {"pace": pace, "batch_rows": batch_rows})
    with bench.orgs.served(copy) as served:
        settings = bench.settings(served, place / "home", rows=rows) | _settings(batch_rows)
        night, document = sync(settings, place=place)
    if document["totals"]["created"] != rows:
        raise Failed(f"The night created {document['totals']['created']} of {rows} rows.")
    looks = sum(n for route, n in calls(copy).items() if route.startswith(LOOKS) and RESULTS not in route)
    best = best_seconds(rows, ranges=bench.ranges)
    return {
        "rows": rows,
        "wall s": night.wall_seconds,
        "best s": best,
        "÷ best ratio": night.wall_seconds / best,
        "CPU s": night.cpu_seconds,
        "polls/minute": looks / night.wall_seconds * 60,
    }


def _locked(bench: Bench, at_once: int, group_by: str, offsets: str) -> tuple[int, int]:
    """Rows sent, and rows of them that lost their lock."""
    rows, place = bench.rows // LOCK_SCALE, bench.place("locks")
    copy = bench.orgs.copied(bench.orgs.seeded(rows, "--hot-parents", HOT_SHARE))
    pace = {"rows_per_second": LOCK_BATCH_ROWS / LOCK_BATCH_SECONDS, "batches": at_once}
    calls(copy, {"pace": pace, "batch_rows": LOCK_BATCH_ROWS})
    with bench.orgs.served(copy) as served:
        settings = bench.settings(served, place / "home", rows=rows) | _settings(LOCK_BATCH_ROWS)
        sent = run(["-m", "benchmarks.paced", group_by, offsets], folder=place, settings=settings)
    counted: list[int] = json.loads(sent.out)
    return counted[0], counted[1]


def _send(bulk: Bulk, files: list[Path], pause: float) -> tuple[int, int]:
    """All parts of a range, each as a job; rows that lost their lock, and all rows."""
    from time import sleep

    jobs = []
    for file in files:
        job = bulk.create()
        bulk.upload(job.id, file)
        jobs.append(bulk.close(job.id))
    rows = locked = 0
    for job in jobs:
        while not (job := bulk.info(job.id)).state.is_terminal:
            sleep(pause)
        rows += job.processed
        for frame in bulk.failures(job.id):
            locked += int(frame["error"].str.starts_with("UNABLE_TO_LOCK_ROW").sum())
    return rows, locked


def main(group_by: str, offsets: str) -> None:
    """The program that sends a staged night once."""
    from benchmarks.staged import staged
    from sync_pipeline.engine.night import open_night
    from sync_pipeline.settings import load_settings
    from sync_pipeline.wiring import open_walls

    walls = open_walls(load_settings())
    plan = open_night(walls).plan
    ranges = [
        staged(
            walls,
            plan,
            planned,
            group_by=group_by or None,
            start_fraction=int(offsets) * planned.place / len(plan.ranges),
            batch_rows=LOCK_BATCH_ROWS,
        )
        for planned in plan
    ]
    with ThreadPoolExecutor(len(ranges)) as pool:
        sent = list(pool.map(lambda files: _send(walls.bulk, files, walls.policy.poll_seconds), ranges))
    walls.close()
    print(json.dumps([sum(rows for rows, _ in sent), sum(locked for _, locked in sent)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
