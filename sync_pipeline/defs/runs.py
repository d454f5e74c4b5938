"""What Dagster knows of the runs of a night, as facts for ``decide``: looked up by partition and by asset.

A run belongs to the night during which it was created; one that is still active belongs to the newest night. The event
log is not read, and tags of ours decide nothing: a re-executed run carries those of the run it copies.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import dagster as dg

from sync_pipeline.defs.checks import RECONCILIATION
from sync_pipeline.defs.partitions import ACTIVE_RUNS, PARTITION_TAG
from sync_pipeline.domain.night import NightEntry, RangeEntry

if TYPE_CHECKING:
    from sync_pipeline.engine.deciding import RunFact

RUN_KEY_TAG = "dagster/run_key"
MEASURE_JOB = "measure"


def run_key(plan_id: str, subject: str, number: int) -> str:
    """The name of a run the sensor asks for. Dagster runs a name once for ever, so the number makes each one new."""
    return f"{plan_id}/{subject}/{number}"


def range_runs(
    instance: dg.DagsterInstance,
    night: NightEntry,
    entries: Sequence[RangeEntry],
    *,
    known: Callable[[], Collection[str]],
) -> dict[str, "RunFact"]:
    """The newest run of each range that has one, by partition.

    ``known`` gives the runs that came as far as the book; it is asked last, so that none that did is missed.
    """
    tags = {PARTITION_TAG: [entry.partition for entry in entries]}
    of_night = instance.get_run_records(dg.RunsFilter(tags=tags, created_after=night.opened_at))
    active = instance.get_run_records(dg.RunsFilter(tags=tags, statuses=ACTIVE_RUNS))
    by_partition: dict[str, list[dg.RunRecord]] = {entry.partition: [] for entry in entries}
    for record in _newest_first([*of_night, *active]):
        by_partition[record.dagster_run.tags[PARTITION_TAG]].append(record)
    came = known()
    return {
        entry.partition: _fact(
            by_partition[entry.partition],
            prefix=f"{night.plan_id}/{entry.partition}/",
            known=came,
            counted_since=entry.rearmed_at,
        )
        for entry in entries
        if by_partition[entry.partition]
    }


def measure_run(
    instance: dg.DagsterInstance, night: NightEntry, *, known: Callable[[], Collection[str]]
) -> "RunFact | None":
    """The newest run that measures this night, whoever started it. ``known`` as for the ranges."""
    of_night = instance.get_run_records(dg.RunsFilter(job_name=MEASURE_JOB, created_after=night.opened_at))
    active = instance.get_run_records(dg.RunsFilter(statuses=ACTIVE_RUNS))
    records = _newest_first([*of_night, *(record for record in active if _measures(record.dagster_run))])
    if not records:
        return None
    measured_at = night.measurement.measured_at if night.measurement is not None else None
    proven_at = max((at for at in (measured_at, night.verdict_at) if at is not None), default=None)
    return _fact(records, prefix=f"{night.plan_id}/measure/", known=known(), counted_since=proven_at)


def _measures(run: dg.DagsterRun) -> bool:
    return run.job_name == MEASURE_JOB or RECONCILIATION in (run.asset_selection or ())


def _newest_first(records: Sequence[dg.RunRecord]) -> list[dg.RunRecord]:
    """Each run once."""
    return sorted({record.storage_id: record for record in records}.values(), key=lambda record: -record.storage_id)


def _fact(
    records: Sequence[dg.RunRecord], *, prefix: str, known: Collection[str], counted_since: datetime | None
) -> "RunFact":
    """The newest of these runs, newest first, with how many there are."""
    from sync_pipeline.engine.deciding import RunFact

    newest = records[0]
    return RunFact(
        run_id=newest.dagster_run.run_id,
        status=_status(newest.dagster_run.status),
        since=_since(newest),
        runs=max(len(records), *(_number(record.dagster_run.tags.get(RUN_KEY_TAG, ""), prefix) for record in records)),
        # Runs that came to the book are judged there, where a parked or stopped one is no failed attempt.
        failed=sum(_is_lost(record, known, counted_since) for record in records),
    )


def _is_lost(record: dg.RunRecord, known: Collection[str], counted_since: datetime | None) -> bool:
    run = record.dagster_run
    if run.status is not dg.DagsterRunStatus.FAILURE or run.run_id in known:
        return False
    return counted_since is None or _since(record) > counted_since


def _status(status: dg.DagsterRunStatus) -> Literal["queued", "started", "canceling", "ended", "canceled"]:
    match status:
        case dg.DagsterRunStatus.CANCELED:
            return "canceled"
        case dg.DagsterRunStatus.STARTED:
            return "started"
        case dg.DagsterRunStatus.CANCELING:
            return "canceling"
        case _:
            return "queued" if status in ACTIVE_RUNS else "ended"


def _since(record: dg.RunRecord) -> datetime:
    """When the run got its status."""
    seconds = record.end_time or record.start_time
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else record.create_timestamp.astimezone(UTC)


def _number(key: str, prefix: str) -> int:
    """The number in a run key of ours, 0 in any other: the next one must be above every number used."""
    number = key.removeprefix(prefix)
    return int(number) if key.startswith(prefix) and number.isdecimal() else 0
