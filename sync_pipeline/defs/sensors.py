"""The sensor that keeps a night going: it looks at the book, asks ``decide`` and does what it answers."""

from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from sync_pipeline.defs.alerts import alerting
from sync_pipeline.defs.assets import PLAN_ID_TAG
from sync_pipeline.defs.checks import RECONCILIATION
from sync_pipeline.defs.jobs import ONE_RUN, measure, sync_range
from sync_pipeline.defs.partitions import RANGES, compare
from sync_pipeline.defs.resources import SyncResource
from sync_pipeline.defs.runs import measure_run, range_runs, run_key
from sync_pipeline.domain.errors import HeldElsewhere, UserError

if TYPE_CHECKING:
    from sync_pipeline.engine.walls import Walls

TICK_SECONDS = 15


@dg.sensor(
    jobs=[sync_range, measure],
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Keeps the newest night going: mirrors its plan into the partitions, starts the runs of its ranges, reports dead "
        "ones, has the org measured after the last range, repairs what drifts, and writes the verdict. Each tick tells "
        "the night in one line. It keeps no cursor and calls no org: all it needs is in SYNC_HOME."
    ),
)
def night(context: dg.SensorEvaluationContext, sync: SyncResource) -> dg.SensorResult | dg.SkipReason:
    from sync_pipeline.engine.deciding import Conclude, Launch, Measure, ReportDead, decide
    from sync_pipeline.engine.night import apply, view_of

    instance = context.instance
    requests: list[dg.RunRequest] = []
    try:
        with alerting(context, sync), sync.walls_without_org() as walls:
            newest = walls.book.newest()
            if newest is None:
                return dg.SkipReason("There is no night yet. Materialize `opportunity_ranges` to start one.")
            if newest.verdict is None:
                newest.plan.check_belongs(walls.org, walls.mapping)
            # Dagster is asked before the locks and the book: a run that ends in between is seen as running once more,
            # never as one that died.
            known = partial(walls.book.known_runs, newest.plan_id)
            measuring = measure_run(instance, newest, known=known)
            runs = range_runs(instance, newest, walls.book.ranges(newest.plan_id), known=known)
            view = view_of(
                walls,
                newest.plan_id,
                runs=runs,
                measure_run=measuring,
                is_driven=walls.area.is_driver_locked(),
            )
            decision = decide(view)
            for action in decision.actions:
                match action:
                    case Launch(partition, number):
                        requests.append(
                            dg.RunRequest(
                                run_key=run_key(newest.plan_id, partition, number),
                                job_name=sync_range.name,
                                partition_key=partition,
                                tags={PLAN_ID_TAG: newest.plan_id, **ONE_RUN},
                            )
                        )
                    case Measure():
                        number = measuring.runs + 1 if measuring is not None else 1
                        requests.append(
                            dg.RunRequest(
                                run_key=run_key(newest.plan_id, "measure", number),
                                job_name=measure.name,
                                tags={PLAN_ID_TAG: newest.plan_id, **ONE_RUN},
                            )
                        )
                    case ReportDead(what, run_id):
                        run = instance.get_run_by_id(run_id)
                        if run is not None and not run.is_finished:
                            instance.report_run_failed(run, f"Nobody works on {what} any more: its process died.")
                    case Conclude():
                        if apply(walls, view, action):
                            show_certificate(instance, walls, newest.plan_id)
                    case _:
                        apply(walls, view, action)
            mirroring = compare(instance, newest.plan)
    except (UserError, HeldElsewhere) as error:
        return dg.SkipReason(f"Nothing is started: {error}")
    line = f"Night {newest.plan_id}: {decision.line}"
    changes: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = [
        *([RANGES.build_add_request(mirroring.missing)] if mirroring.missing else []),
        *([RANGES.build_delete_request(mirroring.stale)] if mirroring.stale else []),
    ]
    context.log.info(line)
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else dg.SkipReason(line),
        dynamic_partitions_requests=changes,
    )


def show_certificate(instance: dg.DagsterInstance, walls: "Walls", plan_id: str) -> None:
    """The certificate of a verdict, as an observation of `sync_reconciliation` beside the measurement it rests on."""
    from sync_pipeline.engine.certificate import markdown_of, read_chain

    certificate = read_chain(walls.area, walls.book, keys=walls.certificate_keys).of(plan_id)
    if certificate is not None:
        instance.report_runless_asset_event(
            dg.AssetObservation(
                RECONCILIATION,
                metadata={
                    "plan_id": plan_id,
                    "certificate": dg.MetadataValue.md(markdown_of(walls.area, certificate)),
                    "sha256": certificate.sha256,
                    "is_signed": certificate.signature is not None,
                },
            )
        )
