"""Dagster's view of the ranges: one dynamic partition for each range of the newest plan."""

from dataclasses import dataclass

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

from sync_pipeline.domain.plan import Plan

RANGES_NAME = "opportunity_range"
RANGES = dg.DynamicPartitionsDefinition(name=RANGES_NAME)

PARTITION_TAG = "dagster/partition"

ACTIVE_RUNS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

OPEN_BACKFILLS = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]


@dataclass(frozen=True)
class Mirroring:
    """What separates Dagster's partitions from the plan: keys to add in the order of the plan, keys to delete."""

    missing: list[str]
    stale: list[str]


def compare(instance: dg.DagsterInstance, plan: Plan) -> Mirroring:
    """How the partitions must change to be the ranges of the plan.

    A key that a run or a backfill still targets must stay (the backfill would fail, and so would the run, after all
    its work), so nothing is stale while any range is active or any backfill is open.
    """
    planned = [planned.partition for planned in plan]
    known = instance.get_dynamic_partitions(RANGES_NAME)
    stale = [key for key in known if key not in set(planned)]
    return Mirroring(
        missing=[key for key in planned if key not in set(known)],
        stale=stale if stale and is_quiet(instance) else [],
    )


def mirror(instance: dg.DagsterInstance, plan: Plan) -> None:
    """Makes the partitions the ranges of the plan, as far as ``compare`` allows."""
    mirroring = compare(instance, plan)
    for key in mirroring.stale:
        instance.delete_dynamic_partition(RANGES_NAME, key)
    instance.add_dynamic_partitions(RANGES_NAME, mirroring.missing)


def is_quiet(instance: dg.DagsterInstance) -> bool:
    """No range runs or waits for a place, and no backfill is open."""
    active = instance.get_runs(dg.RunsFilter(statuses=ACTIVE_RUNS))
    if any(PARTITION_TAG in run.tags for run in active):
        return False
    return not instance.get_backfills(filters=BulkActionsFilter(statuses=OPEN_BACKFILLS), limit=1)
