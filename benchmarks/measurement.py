"""Measuring a night: a whole night as it is by default, then the measurement alone at each level.

``python -m benchmarks.measurement LEVEL`` measures the newest night of SYNC_HOME once more and keeps nothing. What it
tells it took is the measurement's own, without the start of the process.
"""

from __future__ import annotations

import json
import sys
import time

from benchmarks.bench import MEGABYTE, Bench, Part, sync
from benchmarks.process import Failed, run
from benchmarks.sheet import Sheet

LEVELS = ("counts", "keys", "values")


def play(bench: Bench) -> Sheet:
    copy, place = bench.orgs.copied(bench.orgs.seeded(bench.rows)), bench.place("measurement")
    sheet: Sheet = {}
    with bench.orgs.served(copy) as served:
        settings = bench.settings(served, place / "home", rows=bench.rows)
        night, document = sync(settings, place=place)
        if document["verdict"] != "reconciled":
            raise Failed(f"The night ended as {document['verdict']}.")
        sheet["whole night, measured by values"] = {
            "wall s": night.wall_seconds,
            "CPU s": night.cpu_seconds,
            "CPU s/M": night.cpu_seconds / bench.millions,
            "peak MB": night.peak_bytes / MEGABYTE,
        }
        for level in LEVELS:
            measured = run(["-m", "benchmarks.measurement", level], folder=place, settings=settings)
            took = json.loads(measured.out)
            sheet[f"measuring by {level}"] = {
                "wall s": took["wall_seconds"],
                "CPU s": took["cpu_seconds"],
                "CPU s/M": took["cpu_seconds"] / bench.millions,
                "peak MB": measured.peak_bytes / MEGABYTE,
            }
    return sheet


def figures(sheet: Sheet) -> dict[str, float]:
    return {
        "measure_cpu": sheet["measuring by values"]["CPU s/M"],
        "peak": sheet["whole night, measured by values"]["peak MB"],
    }


PART = Part("measurement", "The measurement", play, figures)


def main(level: str) -> None:
    """The program that measures."""
    from sync_pipeline.domain.policy import Verify
    from sync_pipeline.engine.reconciliation import measure
    from sync_pipeline.settings import load_settings
    from sync_pipeline.wiring import open_walls

    walls = open_walls(load_settings())
    night = walls.book.newest()
    if night is None:
        raise LookupError("SYNC_HOME holds no night")
    started, used = time.perf_counter(), time.process_time()
    measurement = measure(walls, night.plan_id, level=Verify(level), record=False)
    took = {"wall_seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - used}
    walls.close()
    if measurement.missing or measurement.different:
        raise ValueError(f"the org lacks {measurement.missing} rows and differs in {measurement.different}")
    print(json.dumps(took))


if __name__ == "__main__":
    main(sys.argv[1])
