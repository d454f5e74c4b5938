"""What Dagster adds to a range: one partition materialized from its command line, one run by ``sync --range``.

Both are ranges of one night and of about one size, each in a process of its own. The instance is made as the project's
``dagster.yaml`` says, in a folder of its own.
"""

from __future__ import annotations

import json
import shutil

from benchmarks.bench import MEGABYTE, Bench, Part
from benchmarks.process import PROJECT, Failed, Run, run
from benchmarks.sheet import Row, Sheet

MATERIALIZE = ("-m", "dagster", "asset", "materialize", "-m", "sync_pipeline.definitions", "--select")
LEFT_OVER = (0, 1)
"""A night of which one range is run is not over: exit code 1."""


def play(bench: Bench) -> Sheet:
    copy, place = bench.orgs.copied(bench.orgs.seeded(bench.rows)), bench.place("dagster")
    shutil.copy(PROJECT / "dagster.yaml", place)
    with bench.orgs.served(copy) as served:
        settings = bench.settings(served, place / "home", rows=bench.rows)
        dagster = settings | {"DAGSTER_HOME": str(place)}
        plan = run([*MATERIALIZE, "opportunity_ranges"], folder=place, settings=dagster)
        status = run(["-m", "sync_pipeline", "status", "--json"], folder=place, settings=settings)
        # Not the first one, which asks for rows without a key too.
        theirs, ours = (entry["partition"] for entry in json.loads(status.out)["ranges"][-2:])
        run_of_dagster = run(
            [*MATERIALIZE, "opportunities_synced", "--partition", theirs], folder=place, settings=dagster
        )
        run_of_ours = run(
            ["-m", "sync_pipeline", "sync", "--json", "--quiet", "--range", ours],
            folder=place, settings=settings, good=LEFT_OVER,
        )  # fmt: skip
        status = run(["-m", "sync_pipeline", "status", "--json"], folder=place, settings=settings)
    states = {entry["partition"]: entry["state"] for entry in json.loads(status.out)["ranges"]}
    if (states[theirs], states[ours]) != ("done", "done"):
        raise Failed(f"The ranges ended as {states[theirs]} and {states[ours]}.")
    rows = bench.rows // bench.ranges
    return {
        "plan, materialized": _row(plan),
        f"range of {rows:,} rows, materialized": _row(run_of_dagster),
        f"range of {rows:,} rows, sync --range": _row(run_of_ours),
        "Dagster adds": {
            "wall s": run_of_dagster.wall_seconds - run_of_ours.wall_seconds,
            "CPU s": run_of_dagster.cpu_seconds - run_of_ours.cpu_seconds,
        },
    }


def figures(sheet: Sheet) -> dict[str, float]:
    return {"dagster_cpu": sheet["Dagster adds"]["CPU s"]}


PART = Part("dagster", "What Dagster adds to a partition run", play, figures)


def _row(client: Run) -> Row:
    return {"wall s": client.wall_seconds, "CPU s": client.cpu_seconds, "peak MB": client.peak_bytes / MEGABYTE}
