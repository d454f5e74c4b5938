"""Before and after the rows: what a plan takes, and what a night takes that goes on after its process was killed."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from benchmarks.bench import MEGABYTE, Bench, Part, started, sync
from benchmarks.process import Failed, Process, Run, run
from benchmarks.sheet import Row, Sheet

KILLED_AT = 0.9
"""Share of the rows that have their outcome when the process is killed."""
LOOK_SECONDS = 0.05
BOOK = "book.sqlite"


def play(bench: Bench) -> Sheet:
    copy, place = bench.orgs.copied(bench.orgs.seeded(bench.rows)), bench.place("resumption")
    home = place / "home"
    with bench.orgs.served(copy) as served:
        settings = bench.settings(served, home, rows=bench.rows) | {"SYNC_VERIFY": "counts"}
        plan = run(["-m", "sync_pipeline", "plan", "--json"], folder=place, settings=settings)
        with started(settings, place=place) as night:
            done = _await_rows(home, night, round(bench.rows * KILLED_AT))
            night.signal(signal.SIGKILL)
            killed = night.wait(good=None)
        resumed, document = sync(settings, place=place)
    if document["totals"]["succeeded"] != bench.rows:
        raise Failed(f"The night that went on saved {document['totals']['succeeded']} of {bench.rows} rows.")
    return {
        "plan": _row(plan),
        f"night killed with {KILLED_AT:.0%} of its rows": _row(killed) | {"rows done": done},
        "night that went on": _row(resumed) | {"rows done": bench.rows - done},
    }


PART = Part("resumption", "Planning, and going on after a kill -9", play, lambda sheet: {}, rounds=1)


def _row(client: Run) -> Row:
    return {"wall s": client.wall_seconds, "CPU s": client.cpu_seconds, "peak MB": client.peak_bytes / MEGABYTE}


def _await_rows(home: Path, night: Process, rows: int) -> int:
    """Waits until so many rows have their outcome, and gives how many have."""
    from sync_pipeline.book.book import Book

    while not night.has_ended:
        time.sleep(LOOK_SECONDS)
        if not (home / BOOK).exists():
            continue
        book = Book(home / BOOK)
        try:
            newest = book.newest()
            done = sum(entry.counts.succeeded for entry in book.ranges(newest.plan_id)) if newest is not None else 0
        finally:
            book.close()
        if done >= rows:
            return done
    raise Failed("The night ended before it could be killed: it needs more rows.")
