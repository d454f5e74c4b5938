"""One measurement that counts: from its lock to what the book keeps of it, however it was started.

What is measured and how is in ``reconciliation.py``. Here is what makes it a step of the night: only one at a time, the
API budget, and the trail from which ``decide`` tells one that failed or was killed from one that is going on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext

from sync_pipeline.domain.errors import StateError, Stopped, SyncError
from sync_pipeline.domain.ledger import JobState
from sync_pipeline.domain.night import Measurement, NightEntry
from sync_pipeline.engine.budget import check_calls, parking_of
from sync_pipeline.engine.heartbeat import Heartbeat
from sync_pipeline.engine.loading import find_job
from sync_pipeline.engine.planning import VERIFY_CALLS
from sync_pipeline.engine.range_run import release_jobs
from sync_pipeline.engine.reconciliation import measure
from sync_pipeline.engine.walls import Walls

log = logging.getLogger(__name__)

ENDED = tuple(state for state in JobState if state.is_terminal)
LETTING_GO_SECONDS = 60.0
"""How long an aborted job may take to end before the org is measured all the same."""


def run_measurement(
    walls: Walls,
    plan_id: str,
    *,
    run_id: str = "",
    heartbeat: Heartbeat | None = None,
    on_event: Callable[[str], None] = log.info,
) -> Measurement:
    """Measures the org for a night and records what was found, or that it failed.

    Raises ``HeldElsewhere`` while somebody measures or works on a range, ``Parked`` when API calls or disk space run
    short, which is no failure, ``Stopped`` when interrupted, and whatever else ended the measurement.
    """
    night = walls.book.night(plan_id)
    if night is None:
        raise StateError(f"There is no night {plan_id} to measure.", hint="Start one with `sync-pipeline sync`.")
    night.plan.check_belongs(walls.org, walls.mapping)
    with walls.area.lock_measure():
        walls.interruption.check()
        walls.book.begin_measure(plan_id, run_id=run_id)
        try:
            with nullcontext() if heartbeat is not None else Heartbeat(walls, plan_id):
                _prepare(walls, night)
                measurement = measure(walls, night.plan_id, on_event=on_event)
        except Exception as error:
            parked = parking_of(walls, plan_id, error)
            if parked is None:
                raise
            walls.book.park(plan_id, until=parked.until, reason=parked.message)
            raise parked from error
        finally:
            walls.book.end_measure(plan_id)
        if night.parked_until is not None:
            walls.book.unpark(plan_id)
    return measurement


def _prepare(walls: Walls, night: NightEntry) -> None:
    """What comes before the org is read. When it fails, the measurement has failed."""
    try:
        check_calls(walls, night.plan, calls=VERIFY_CALLS)
        release_jobs(walls, night.plan_id)
        _wait_for_jobs(walls, night.plan_id)
    except Stopped:
        raise
    except Exception as error:
        if parking_of(walls, night.plan_id, error) is None:
            walls.book.record_measure_failure(night.plan_id, str(error) or type(error).__name__)
        raise


def _wait_for_jobs(walls: Walls, plan_id: str) -> None:
    """Jobs that ranges left behind when they were given up or held must not write while the org is read."""
    deadline, pause = walls.clock() + LETTING_GO_SECONDS, walls.policy.poll_seconds
    for entry in walls.book.jobs(plan_id, open_only=True):
        if not entry.job_id or entry.state in ENDED:
            continue
        try:
            while (job := find_job(walls, entry.job_id)) is not None and not job.state.is_terminal:
                if walls.clock() > deadline:
                    log.warning("job %s is %s and does not end; the org is measured all the same", job.id, job.state)
                    return
                walls.sleep(pause)
                pause = min(pause * 2, walls.policy.poll_seconds_max)
        except SyncError as error:
            walls.interruption.check()
            log.warning("job %s could not be looked at: %s", entry.job_id, error.message)
