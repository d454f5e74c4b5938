"""Jobs for people and for the sensor. Their names are what an operator looks for on the page "Jobs"."""

import dagster as dg
from pydantic import Field

from sync_pipeline.defs.checks import PLAN, RECONCILIATION, SYNCED
from sync_pipeline.defs.failures import told_as_failure
from sync_pipeline.defs.resources import SyncResource
from sync_pipeline.defs.runs import MEASURE_JOB
from sync_pipeline.domain.errors import StateError, UsageError
from sync_pipeline.domain.ledger import RangeState

ONE_RUN = {"dagster/max_retries": "0"}
"""The night sensor decides about another run; a retry by the daemon would be a second master."""

RETRIED = {"dagster/max_retries": "2", "dagster/retry_on_asset_or_op_failure": "true"}
"""Nobody decides about a plan run that fails, so the daemon tries it again, unless that could not help."""

plan_night = dg.define_asset_job(
    "plan_night",
    selection=dg.AssetSelection.assets(PLAN),
    tags=RETRIED,
    description="Opens a night, or continues the unfinished one: counts the source and cuts it into ranges.",
)

sync_range = dg.define_asset_job(
    "sync_range",
    selection=dg.AssetSelection.assets(SYNCED),
    description="Syncs one range. The sensor starts it for each range of a night; a person may do so at any time.",
)

measure = dg.define_asset_job(
    MEASURE_JOB,
    selection=dg.AssetSelection.assets(RECONCILIATION),
    tags=ONE_RUN,
    description="Measures the newest night: reads the org back and compares it with what was staged.",
)


class Restart(dg.Config):
    """Which ranges get new attempts."""

    ranges: list[str] = Field(
        default_factory=list,
        description="Partition keys of ranges that are held, given up or failed. Empty: all of those.",
    )


@dg.op(name="stop")
def stop_op(context: dg.OpExecutionContext, sync: SyncResource) -> None:
    """Emergency stop: nothing new is started, own open ingest jobs are aborted, what is staged and saved is kept."""
    from sync_pipeline.engine.night import request_stop, stop

    with told_as_failure():
        home = sync.home()
        if home.newest() is None:
            raise StateError("There is no night to stop.")
        # Said to the running processes first: they must stop even when this process cannot log in.
        night = request_stop(home.book)
        context.log.info(f"Night {night.plan_id} is told to stop.")
        with sync.walls() as walls:
            aborted = stop(walls)
        context.log.info(f"Night {night.plan_id} is stopped, {aborted} jobs aborted. `restart_ranges` goes on with it.")


@dg.op(name="restart")
def restart_op(context: dg.OpExecutionContext, config: Restart, sync: SyncResource) -> None:
    """Lifts a stop and gives ranges new attempts; the sensor `night` starts their runs within seconds.

    A range that is done is run again by materializing its partition.
    """
    from sync_pipeline.engine.night import restart

    with told_as_failure(), sync.walls() as walls:
        newest = walls.book.newest()
        entries = walls.book.ranges(newest.plan_id) if newest is not None else []
        done = [e.partition for e in entries if e.partition in config.ranges and e.state is RangeState.DONE]
        if done:
            raise UsageError(
                f"Range {', '.join(done)} is done.",
                hint="Materialize its partition of `opportunities_synced` to run it again.",
            )
        night = restart(walls, partitions=config.ranges or None, say=context.log.info)
        if night.parked_until is None:
            context.log.info(f"Night {night.plan_id} goes on.")


@dg.job(description="Emergency stop of the newest night: no new work, own open jobs aborted, state kept.")
def stop_night() -> None:
    stop_op()


@dg.job(description="Lifts a stop, and gives held, given-up and failed ranges of the newest night new attempts.")
def restart_ranges() -> None:
    restart_op()
