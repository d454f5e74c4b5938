"""What Dagster knows of the runs of a night, as facts for ``decide``: looked up by partition and by asset.

A run belongs to the night during which it was created; one that is still active belongs to the newest night. The event
log is not read, and tags of ours decide nothing: a re-executed run carries those of the run it copies.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import dagster as dg

from sync_pipeline.defs.checks import RECONCILIATION
from sync_pipeline.defs.partitions import ACTIVE_RUNS, PARTITION_TAG
from sync_pipeline.domain.night import NightEntry, RangeEntry

if TYPE_CHECKING:
    from sync_pipeline.engine.night import RunFact

RUN_KEY_TAG = "dagster/run_key"

STARTED = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


def run_key(plan_id: str, subject: str, number: int) -> str:
    """The name of a run the sensor asks for. Dagster runs a name once for ever, so the number makes each one new."""
    return f"{plan_id}/{subject}/{number}"


def range_runs(instance: dg.DagsterInstance, night: NightEntry, entries: Sequence[RangeEntry]) -> dict[str, "RunFact"]:
    """The newest run of each range that has one, by partition."""
    tags = {PARTITION_TAG: [entry.partition for entry in entries]}
    of_night = instance.get_run_records(dg.RunsFilter(tags=tags, created_after=night.opened_at))
    active = instance.get_run_records(dg.RunsFilter(tags=tags, statuses=ACTIVE_RUNS))
    by_partition: dict[str, list[dg.RunRecord]] = {entry.partition: [] for entry in entries}
    for record in sorted({r.storage_id: r for r in (*of_night, *active)}.values(), key=lambda r: -r.storage_id):
        by_partition[record.dagster_run.tags[PARTITION_TAG]].append(record)
    return {
        entry.partition: _fact(
            by_partition[entry.partition], prefix=f"{night.plan_id}/{entry.partition}/", runs_in_book=entry.runs
        )
        for entry in entries
        if by_partition[entry.partition]
    }


def measure_run(instance: dg.DagsterInstance, night: NightEntry) -> "RunFact | None":
    """The newest run that measures this night, whoever started it."""
    of_job = instance.get_run_records(dg.RunsFilter(job_name="measure", created_after=night.opened_at))
    active = instance.get_run_records(dg.RunsFilter(statuses=ACTIVE_RUNS))
    by_hand = [r for r in active if RECONCILIATION in (r.dagster_run.asset_selection or ())]
    records = sorted({r.storage_id: r for r in (*of_job, *by_hand)}.values(), key=lambda r: -r.storage_id)
    return _fact(records, prefix=f"{night.plan_id}/measure/", runs_in_book=0) if records else None


def _fact(records: Sequence[dg.RunRecord], *, prefix: str, runs_in_book: int) -> "RunFact":
    """The newest of these runs, newest first, with how many there are."""
    from sync_pipeline.engine.night import RunFact

    newest = records[0]
    failures = sum(record.dagster_run.status is dg.DagsterRunStatus.FAILURE for record in records)
    return RunFact(
        run_id=newest.dagster_run.run_id,
        status=_status(newest.dagster_run.status),
        since=_since(newest),
        runs=max(len(records), *(_number(record.dagster_run.tags.get(RUN_KEY_TAG, ""), prefix) for record in records)),
        # Runs that reached the book are counted there, where a parked or stopped one is no failed attempt.
        failed=max(failures - runs_in_book, 0),
    )


def _status(status: dg.DagsterRunStatus) -> Literal["queued", "started", "ended", "canceled"]:
    if status is dg.DagsterRunStatus.CANCELED:
        return "canceled"
    if status in STARTED:
        return "started"
    return "queued" if status in ACTIVE_RUNS else "ended"


def _since(record: dg.RunRecord) -> datetime:
    """When the run got its status."""
    seconds = record.end_time or record.start_time
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else record.create_timestamp.astimezone(UTC)


def _number(key: str, prefix: str) -> int:
    """The number in a run key of ours, 0 in any other: the next one must be above every number used."""
    number = key.removeprefix(prefix)
    return int(number) if key.startswith(prefix) and number.isdecimal() else 0
