"""The assets: the plan of a night, its ranges, and the measurement that proves it. Their docstrings speak to operators."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import dagster as dg
from pydantic import Field

from sync_pipeline.defs import metadata
from sync_pipeline.defs.checks import (
    NIGHT_CHECKS,
    PLAN,
    PLAN_CHECKS,
    RANGE_CHECKS,
    RECONCILIATION,
    SYNCED,
    log_failed,
    result_of,
)
from sync_pipeline.defs.failures import MAX_RETRIES_TAG, may_pass, told_as_failure
from sync_pipeline.defs.partitions import RANGES, mirror
from sync_pipeline.defs.progress import observed
from sync_pipeline.defs.resources import AT_LOAD, SyncResource
from sync_pipeline.domain.errors import Drift, HeldElsewhere, Parked, PlanRefused, StateError, Stopped, SyncError
from sync_pipeline.domain.night import NightEntry

if TYPE_CHECKING:
    from sync_pipeline.engine.walls import Walls

    Materialized = dg.MaterializeResult[None]
else:
    # Dagster 1.13.27, which its PostgreSQL storage is of, knows the return type of an asset with checks by this name alone.
    Materialized = dg.MaterializeResult

GROUP = "opportunity_sync"
OWNERS = ["team:salesforce-operations"]
PLAN_ID_TAG = "plan_id"
"""A label for finding the runs of a night in the UI. Re-executed runs carry old ones, so nothing is decided by it."""

MAPPING = AT_LOAD.mapping

SOURCE = dg.AssetSpec(
    ["data_cloud", MAPPING.source_object],
    group_name=GROUP,
    owners=OWNERS,
    description=(
        f"The source: the object `{MAPPING.source_object}` of Data Cloud, read by SQL in ranges of `{MAPPING.source_key}`. "
        "Others fill it; nothing in here writes to it."
    ),
    kinds={"salesforce"},
    metadata={"dagster/column_schema": metadata.source_schema(MAPPING), "dagster/table_name": MAPPING.source_object},
)

TARGET = dg.AssetSpec(
    ["salesforce", MAPPING.target_object],
    group_name=GROUP,
    owners=OWNERS,
    deps=[SYNCED],
    description=(
        f"The target: the object `{MAPPING.target_object}` of Salesforce CRM, upserted by `{MAPPING.target_key}`. "
        "Rows found only here are reported and never deleted."
    ),
    kinds={"salesforce"},
    metadata={"dagster/column_schema": metadata.column_schema(MAPPING), "dagster/table_name": MAPPING.target_object},
)


class PlanRun(dg.Config):
    """How the night is opened."""

    fresh: bool = Field(
        default=False,
        description="Give up an unfinished night first and plan a new one. Otherwise an unfinished night goes on.",
    )


class RangeRun(dg.Config):
    """What a run does with what is already there."""

    start: Literal["auto", "resume", "fresh"] = Field(
        default="auto",
        description=(
            "auto: go on where an unfinished range stopped, keep a range that is done tonight, begin anew once the night "
            "has its verdict. resume: go on, never begin anew. fresh: read and send the whole range again."
        ),
    )


@dg.asset(
    key=PLAN,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"python", "salesforce"},
    deps=[SOURCE],
    check_specs=PLAN_CHECKS,
)
def opportunity_ranges(context: dg.AssetExecutionContext, config: PlanRun, sync: SyncResource) -> Materialized:
    """The plan of a night: the source is counted and cut into key ranges of about equal size.

    **Materialize this to start a night now.** It reads the source, writes nothing to the org, and continues a night
    that is not finished. From then on the sensor `night` starts one run per range, has the org measured after the last
    one and writes the verdict. The schedule `nightly` does the same at 02:00.
    """
    from sync_pipeline.engine.findings import plan_findings
    from sync_pipeline.engine.night import open_night

    with told_as_failure(), _not_in_vain(context), sync.walls() as walls:
        night = open_night(walls, fresh=config.fresh, say=context.log.info)
        context.instance.add_run_tags(context.run.run_id, {PLAN_ID_TAG: night.plan_id})
        mirror(context.instance, night.plan)
        return dg.MaterializeResult(
            metadata=metadata.of_plan(night),
            check_results=[result_of(finding, PLAN) for finding in plan_findings(night.plan)],
        )


@contextmanager
def _not_in_vain(context: dg.AssetExecutionContext) -> Iterator[None]:
    """A plan that was refused shows as a failed check; what another try could not mend is not tried again by the daemon."""
    from sync_pipeline.engine.findings import plan_findings

    try:
        yield
    except SyncError as error:
        if isinstance(error, PlanRefused):
            log_failed(context, plan_findings(error))
        if not may_pass(error):
            context.instance.add_run_tags(context.run.run_id, {MAX_RETRIES_TAG: "0"})
        raise


@dg.asset(
    key=SYNCED,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"polars", "duckdb", "salesforce"},
    partitions_def=RANGES,
    deps=[opportunity_ranges, SOURCE],
    check_specs=RANGE_CHECKS,
    metadata={"dagster/column_schema": metadata.column_schema(MAPPING)},
)
def opportunities_synced(context: dg.AssetExecutionContext, config: RangeRun, sync: SyncResource) -> Materialized:
    """One range of keys, read from Data Cloud, staged on disk, upserted into Salesforce and accounted for row by row.

    Each partition is one range of the newest plan. **A run may be started, cancelled and repeated at any time**: it goes
    on at the last durable page, or at the very ingest job that an earlier run left behind, and a row sent twice is an
    upsert of the same key. Cancelling aborts the run's own open jobs; the sensor leaves the range alone until a person
    runs it again.

    Green means that the *last* run of the range ended well, whichever night that was. How tonight goes is told by the
    sensor `night` and by `sync_reconciliation`. The failure of a red range names the reason and the next step.
    """
    from sync_pipeline.engine.findings import range_findings
    from sync_pipeline.engine.range_run import run_range

    partition = context.partition_key
    with told_as_failure(), sync.walls() as walls:
        night = night_of(walls, partition)
        context.instance.add_run_tags(context.run.run_id, {PLAN_ID_TAG: night.plan_id})
        started = walls.clock()
        try:
            with observed(context, walls.book, night.plan_id, partition):
                entry = run_range(
                    walls, night.plan_id, partition,
                    start=config.start, run_id=context.run.run_id, on_event=context.log.info,
                )  # fmt: skip
        except (HeldElsewhere, Stopped, Parked):
            walls.book.know_run(
                night.plan_id, context.run.run_id
            )  # it was not to begin now, which is no failed attempt
            raise
        except Drift:
            drifting = walls.book.range(night.plan_id, partition)
            if drifting is not None:
                log_failed(context, range_findings(drifting))
            raise
        jobs = walls.book.jobs(night.plan_id, partition=partition)
        findings = range_findings(entry)
        # A failed error check alone would leave the partition green: its materialisation is recorded before the check.
        if failed := log_failed(context, findings):
            raise Drift(
                "; ".join(finding.message for finding in failed), hint="Run the range again with `start: fresh`."
            )
        return dg.MaterializeResult(
            metadata=metadata.of_range(
                night,
                entry,
                jobs,
                seconds=walls.clock() - started,
                api_calls=walls.meter.calls,
                instance_url=walls.session.instance_url,
            ),
            check_results=[result_of(finding, SYNCED) for finding in findings],
        )


def night_of(walls: "Walls", partition: str) -> NightEntry:
    """The newest night, which a run of this partition belongs to; raises ``StateError`` when its plan lacks the key."""
    night = walls.book.newest()
    if night is None:
        raise StateError("There is no plan yet.", hint="Materialize `opportunity_ranges` first.")
    if night.plan.range(partition) is None:
        raise unknown_partition(partition, night, walls.book.nights())
    return night


def unknown_partition(partition: str, night: NightEntry, nights: Sequence[NightEntry]) -> SyncError:
    """Why a partition key of another night cannot run, and the ranges that cover its keys now."""
    known = next((found for other in nights if (found := other.plan.range(partition)) is not None), None)
    if known is None:
        ranges = ", ".join(planned.partition for planned in night.plan)
        return StateError(
            f"No night ever had a range {partition}.", hint=f"The ranges of the newest plan are {ranges}."
        )
    covering = ", ".join(f"{planned.partition} ({planned.range})" for planned in night.plan.covering(known.range))
    return StateError(
        f"The newest plan {night.plan_id} has no range {partition} ({known.range}) any more.",
        hint=f"Its keys now belong to {covering}: run those.",
    )


@dg.asset(
    key=RECONCILIATION,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb", "salesforce"},
    deps=[opportunities_synced, TARGET],
    check_specs=NIGHT_CHECKS,
)
def sync_reconciliation(context: dg.AssetExecutionContext, sync: SyncResource) -> Materialized:
    """One measurement of the newest night: the org is read back and held against what was staged, value by value.

    The sensor `night` starts it after the last range, and again after each repair. Running it by hand does no harm: it
    reads the org and writes nothing to it. Its checks say whether the night may be trusted; a count alone cannot tell a
    lost row from one that only the org has, so present, missing, different and orphans are shown side by side.
    """
    from sync_pipeline.engine.findings import night_findings
    from sync_pipeline.engine.measure_run import run_measurement

    with told_as_failure(), sync.walls() as walls:
        newest = walls.book.newest()
        if newest is None:
            raise StateError("There is no night to measure.", hint="Materialize `opportunity_ranges` first.")
        context.instance.add_run_tags(context.run.run_id, {PLAN_ID_TAG: newest.plan_id})
        try:
            measurement = run_measurement(walls, newest.plan_id, run_id=context.run.run_id, on_event=context.log.info)
        except (HeldElsewhere, Stopped, Parked):
            walls.book.know_run(newest.plan_id, context.run.run_id)  # it was not to begin now, which is no failed try
            raise
        night = walls.book.night(newest.plan_id) or newest
        entries = walls.book.ranges(night.plan_id)
        findings = night_findings(night, entries, walls.policy)
        return dg.MaterializeResult(
            metadata=metadata.of_measurement(night, entries, measurement, findings),
            check_results=[result_of(finding, RECONCILIATION) for finding in findings],
        )
