"""Reads one range of the source into its store, page by page, and says when it is whole.

A range is whole when the staged rows equal the rows the source counts. An error, a short page or an empty answer is
never the end of a range.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import polars as pl

from sync_pipeline.domain.errors import Drift
from sync_pipeline.domain.mapping import TargetObject
from sync_pipeline.domain.plan import Plan, PlannedRange
from sync_pipeline.engine.budget import check_calls, check_disk
from sync_pipeline.engine.duplicates import groups_in, judge
from sync_pipeline.engine.values import convert
from sync_pipeline.engine.walls import Walls
from sync_pipeline.salesforce.data_cloud import SourcePage
from sync_pipeline.staging.range_store import RangeStore

log = logging.getLogger(__name__)

READS_OF_A_RANGE = 2
"""How often a range is read before rows that do not come are called drift."""


def extract(
    walls: Walls,
    plan: Plan,
    planned: PlannedRange,
    store: RangeStore,
    target: TargetObject,
    *,
    on_page: Callable[[int], None],
) -> int:
    """Stages what is left of the range and returns the rows the source holds for it.

    Goes on at the store's cursor. ``on_page`` is told the rows staged so far. Raises ``Drift`` when the source counts
    rows that it does not hand out, ``Parked`` when API calls or disk space run short.
    """
    folder = walls.area.night_folder(plan.plan_id)
    groups = groups_in(folder, planned.range, must_exist=plan.profile.has_duplicates)
    expected = planned.expected
    for read in range(1, READS_OF_A_RANGE + 1):
        _stage(walls, plan, planned, store, target, groups, on_page=on_page)
        if store.staged == expected:
            break
        counted = walls.data_cloud.count(planned.range)
        log.warning(
            "range %s: staged %d rows, planned %d, the source now counts %d",
            planned.partition, store.staged, expected, counted,
        )  # fmt: skip
        expected = counted
        if store.staged == counted:  # rows came or went since the plan; the count of this moment is what is owed
            break
        if read == READS_OF_A_RANGE:
            raise Drift(
                f"Range {planned.range} ({planned.partition}): the source counts {counted} rows and hands out {store.staged}.",
                hint="Look whether a load into the source object is running, then run the range again.",
            )
        store.forget_pages()
    store.finish_reading(expected)
    return expected


def _stage(
    walls: Walls,
    plan: Plan,
    planned: PlannedRange,
    store: RangeStore,
    target: TargetObject,
    groups: pl.DataFrame,
    *,
    on_page: Callable[[int], None],
) -> None:
    cursor = store.cursor
    if cursor is not None and cursor.key is None:
        # Rows without a key have no place in the key order to go on from: read them again from the start.
        store.forget_pages()
        cursor = None
    if planned.range.is_first and cursor is None:
        for page in walls.data_cloud.read_null_keys():
            _add(walls, plan, store, page, target, groups)
            on_page(store.staged)
    if cursor is not None and cursor.key is not None and cursor.key == planned.range.through:
        return
    for page in walls.data_cloud.read(planned.range, cursor):
        _add(walls, plan, store, page, target, groups)
        on_page(store.staged)


def _add(
    walls: Walls, plan: Plan, store: RangeStore, page: SourcePage, target: TargetObject, groups: pl.DataFrame
) -> None:
    walls.interruption.check()
    check_disk(walls, plan, needed=page.bytes)
    converted = convert(page.frame, walls.mapping, target)
    doubles = judge(page.frame, walls.mapping, groups)
    rejections = converted.rejections
    if doubles.height:
        rejections = pl.concat([rejections, doubles]).unique(subset="index", keep="first", maintain_order=True)
    store.add_page(converted.frame, page.cursor, rejections)
    check_calls(walls, plan)  # for the next page; what came so far is durable
