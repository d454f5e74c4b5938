"""When a night starts by itself."""

from datetime import UTC, datetime

import dagster as dg

from sync_pipeline.defs.jobs import plan_night
from sync_pipeline.defs.resources import AT_LOAD, SyncResource
from sync_pipeline.domain.errors import SyncError


@dg.schedule(
    job=plan_night,
    cron_schedule="0 2 * * *",
    execution_timezone=AT_LOAD.timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING if AT_LOAD.is_scheduled else dg.DefaultScheduleStatus.STOPPED,
    description=(
        "Opens the night at 02:00 (SYNC_TIMEZONE). A tick that comes later than SYNC_START_WINDOW, because nothing ran "
        "at that hour, is skipped: a night must not start in the middle of a working day."
    ),
)
def nightly(context: dg.ScheduleEvaluationContext, sync: SyncResource) -> dg.RunRequest | dg.SkipReason:
    due_at = context.scheduled_execution_time.astimezone(UTC)
    try:
        window = sync.settings().policy.start_window
        late = datetime.now(UTC) - due_at
        if late > window:
            told = (
                f"It was due at {due_at:%Y-%m-%d %H:%M} UTC, {late.total_seconds() / 3600:.1f} hours ago; the start window "
                f"is {window.total_seconds() / 3600:g} hours."
            )
            with sync.alerts() as alerts:
                alerts.missed(due_at, told)
            return dg.SkipReason(f"{told} Materialize `opportunity_ranges` to start it anyway.")
    except SyncError as error:
        return dg.SkipReason(f"No night is opened: {error}")
    return dg.RunRequest(run_key=due_at.isoformat())
