"""The Dagster door: the whole pipeline on one screen, listed by name."""

import dagster as dg

from sync_pipeline.defs.assets import SOURCE, TARGET, opportunities_synced, opportunity_ranges, sync_reconciliation
from sync_pipeline.defs.jobs import measure, plan_night, restart_ranges, stop_night, sync_range
from sync_pipeline.defs.resources import AT_LOAD, SyncResource
from sync_pipeline.defs.schedules import nightly
from sync_pipeline.defs.sensors import night

defs = dg.Definitions(
    assets=[SOURCE, opportunity_ranges, opportunities_synced, TARGET, sync_reconciliation],
    jobs=[plan_night, sync_range, measure, stop_night, restart_ranges],
    schedules=[nightly],
    sensors=[night],
    resources={"sync": SyncResource()},
    # A step process of its own would pay the start of Python twice, and outlive a killed run.
    executor=dg.in_process_executor,
    metadata={"settings": AT_LOAD.summary},
)
