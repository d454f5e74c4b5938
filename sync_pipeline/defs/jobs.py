"""Jobs for people and for the sensor. Their names are what an operator looks for on the page "Jobs"."""

import dagster as dg
from pydantic import Field

from sync_pipeline.defs.checks import PLAN, RECONCILIATION, SYNCED
from sync_pipeline.defs.failures import told_as_failure
from sync_pipeline.defs.resources import SyncResource
from sync_pipeline.domain.errors import StateError

ONE_RUN = {"dagster/max_retries": "0"}
"""The night sensor decides about another run; a retry by the daemon would be a second master."""

RETRIED = {"dagster/max_retries": "2", "dagster/retry_on_asset_or_op_failure": "true"}
"""Nobody decides about a plan run that fails, so the daemon tries it again."""

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
    "measure",
    selection=dg.AssetSelection.assets(RECONCILIATION),
    tags=ONE_RUN,
    description="Measures the newest night: reads the org back and compares it with what was staged.",
)


class Restart(dg.Config):
    """Which ranges get new attempts."""

    ranges: list[str] = Field(
        default_factory=list,
        description="Partition keys. Empty: every range that is held, given up or failed.",
    )


@dg.op(name="stop")
def stop_op(context: dg.OpExecutionContext, sync: SyncResource) -> None:
    """Emergency stop: nothing new is started, own open ingest jobs are aborted, what is staged and saved is kept."""
    from sync_pipeline.engine.night import stop

    with told_as_failure(), sync.walls() as walls:
        stopped = stop(walls)
        if stopped is None:
            raise StateError("There is no night to stop.")
        night, aborted = stopped
        context.log.info(f"Night {night.plan_id} is stopped, {aborted} jobs aborted. `restart_ranges` goes on with it.")


@dg.op(name="restart")
def restart_op(context: dg.OpExecutionContext, config: Restart, sync: SyncResource) -> None:
    """Lifts a stop and gives ranges new attempts; the sensor `night` starts their runs within seconds."""
    from sync_pipeline.engine.night import restart

    with told_as_failure(), sync.walls() as walls:
        night = restart(walls, partitions=config.ranges or None)
        context.log.info(f"Night {night.plan_id} goes on.")


@dg.job(description="Emergency stop of the newest night: no new work, own open jobs aborted, state kept.")
def stop_night() -> None:
    stop_op()


@dg.job(description="Lifts a stop, and gives held, given-up and failed ranges of the newest night new attempts.")
def restart_ranges() -> None:
    restart_op()
