"""What people are told of the nights that Dagster keeps going: the conditions are judged at each tick of `night`."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from sync_pipeline.defs.checks import PLAN
from sync_pipeline.defs.jobs import plan_night
from sync_pipeline.defs.resources import SyncResource
from sync_pipeline.domain.errors import SyncError

if TYPE_CHECKING:
    from sync_pipeline.engine.alerting import Planning

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
WILL_RETRY_TAG = "dagster/will_retry"
LOOKED_AT = 20
"""Newest runs among which the last plan run is looked for."""


@contextmanager
def alerting(context: dg.SensorEvaluationContext, sync: SyncResource) -> Iterator[None]:
    """When the body has ended, however it did, conditions are judged and due notes are sent."""
    try:
        yield
    finally:
        try:
            with sync.alerts() as alerts:
                alerts.tick(newest_planning(context.instance))
        except SyncError as error:  # the settings that name the recipients cannot be used
            context.log.error(f"Nobody can be told of anything: {error}")


def newest_planning(instance: dg.DagsterInstance) -> "Planning | None":
    """How the newest plan run ended that nobody tries again, whoever started it."""
    from sync_pipeline.engine.alerting import Planning

    of_job = instance.get_run_records(dg.RunsFilter(job_name=plan_night.name, statuses=ENDED), limit=LOOKED_AT)
    by_hand = instance.get_run_records(dg.RunsFilter(job_name="__ASSET_JOB", statuses=ENDED), limit=LOOKED_AT)
    planned = [record for record in by_hand if PLAN in (record.dagster_run.asset_selection or ())]
    for record in sorted([*of_job, *planned], key=lambda record: record.storage_id, reverse=True):
        run = record.dagster_run
        if record.end_time is not None and run.tags.get(WILL_RETRY_TAG) != "true":
            return Planning(
                datetime.fromtimestamp(record.end_time, UTC),
                has_failed=run.status is dg.DagsterRunStatus.FAILURE,
                why=partial(why_it_failed, instance, run.run_id),
            )
    return None


def why_it_failed(instance: dg.DagsterInstance, run_id: str) -> str:
    """The sentence that the run's page shows."""
    for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        if record.dagster_event is not None:
            failure = record.dagster_event.step_failure_data
            if failure.user_failure_data is not None and failure.user_failure_data.description:
                return failure.user_failure_data.description
    return f"see run {run_id} in Dagster."
