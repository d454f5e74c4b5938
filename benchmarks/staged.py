"""A night that has read, staged and cut everything and has sent nothing: ``python -m benchmarks.staged``.

Whoever goes on with it (``sync``) does the loading half alone. The settings say which org and which SYNC_HOME. It prints
the files of the parts, in their order.
"""

from __future__ import annotations

import json
from pathlib import Path

from sync_pipeline.domain.plan import Plan, PlannedRange
from sync_pipeline.engine.extraction import extract
from sync_pipeline.engine.night import open_night
from sync_pipeline.engine.values import staged_schema
from sync_pipeline.engine.walls import Walls
from sync_pipeline.salesforce.bulk import render_csv
from sync_pipeline.settings import load_settings
from sync_pipeline.staging.range_store import RangeStore
from sync_pipeline.wiring import open_walls


def staged(
    walls: Walls, plan: Plan, planned: PlannedRange, *, group_by: str | None, start_fraction: float, batch_rows: int
) -> list[Path]:
    """One range as a run leaves it that is about to send its first part; gives the files of the parts."""
    target = walls.soql.describe()
    folder = walls.area.range_folder(plan.plan_id, planned.partition, 1)
    schema = staged_schema(walls.mapping, target)
    with (
        walls.area.lock_range(planned.partition),
        RangeStore.open(folder, schema, walls.catalogues) as store,
    ):
        extract(walls, plan, planned, store, target, on_page=lambda rows: None)
        parts = store.cut_round(
            which="all",
            group_by=group_by,
            start_fraction=start_fraction,
            part_rows=walls.policy.part_rows,
            part_bytes=walls.policy.part_bytes,
            heavy_rows=batch_rows,
            serial=False,
            render=lambda frame, path: render_csv(frame, walls.mapping, path),
        )
        return [store.part_file(part) for part in parts]


def main() -> None:
    """The program that opens a night and stages it."""
    walls = open_walls(load_settings())
    plan = open_night(walls).plan
    files = [
        file
        for planned in plan
        for file in staged(
            walls,
            plan,
            planned,
            group_by=walls.mapping.group_by,
            start_fraction=planned.place / len(plan.ranges),
            batch_rows=walls.policy.batch_rows,
        )
    ]
    walls.close()
    print(json.dumps([str(file) for file in files]))


if __name__ == "__main__":
    main()
