"""Nights that Dagster keeps going: the sensor, tick by tick, with real runs of the jobs it asks for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time

from sync_pipeline.book.book import Book
from sync_pipeline.definitions import defs
from sync_pipeline.defs.checks import PLAN, RECONCILIATION
from sync_pipeline.defs.failures import may_pass
from sync_pipeline.defs.partitions import PARTITION_TAG, RANGES_NAME
from sync_pipeline.domain.errors import (
    CredentialsError,
    HeldElsewhere,
    MappingError,
    PlanRefused,
    SyncError,
    Unreachable,
    WireError,
)
from sync_pipeline.domain.ledger import RangeState, Verdict
from sync_pipeline.domain.plan import OrgIdentity
from sync_pipeline.simulated_org.seed import next_night
from sync_pipeline_tests.defs.conftest import Stage, failure_of

FAILURE, SUCCESS = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS


def a_run(
    stage: Stage, job: str, *, partition: str = "", ago: timedelta = timedelta(0), status: str = "STARTED"
) -> str:
    """A run that Dagster knows of and that no process works on."""
    then = datetime.now(UTC) - ago
    with freeze_time(then):
        run = stage.instance.create_run_for_job(
            defs.resolve_job_def(job),
            tags={PARTITION_TAG: partition} if partition else {},
        )
        if status == "CANCELED":
            stage.instance.report_run_canceled(run)
        elif status == "FAILURE":
            stage.instance.report_run_failed(run)
        elif status == "STARTED":
            started = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job)
            stage.instance.report_dagster_event(started, run_id=run.run_id)
    return run.run_id


def status_of(stage: Stage, run_id: str) -> dg.DagsterRunStatus:
    run = stage.instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


# A night and the next ones


def test_a_night_runs_from_its_plan_to_its_verdict_and_the_next_one_follows_its_ranges(stage: Stage) -> None:
    assert stage.tick().line == "There is no night yet. Materialize `opportunity_ranges` to start one."

    planned = stage.plan()
    first, second = (r.partition for r in stage.night.plan)
    launching = stage.tick()
    runs = [stage.launch(request) for request in launching.requests]
    measuring = stage.turn()
    concluding = stage.turn()

    assert planned.success
    assert stage.partitions == [first, second]
    assert launching.keys == [f"{first}/1", f"{second}/1"]
    assert {request.tags["dagster/max_retries"] for request in launching.requests} == {"0"}
    assert [run.success for run in runs] == [True, True]
    assert measuring.keys == ["measure/1"]
    assert concluding.line == f"Night {stage.night.plan_id}: 2/2 done; reconciled"
    assert stage.tick().line == f"Night {stage.night.plan_id}: night is over: reconciled"
    assert stage.metadata(RECONCILIATION)["present"] == 120

    # The next night: the source has grown, so that the last range is too large and splits.
    next_night(stage.org, change=0.1, insert=0.6)
    stage.plan()
    stage.play()

    again = [r.partition for r in stage.night.plan]
    assert stage.night.verdict is Verdict.RECONCILED
    assert again[0] == first and len(again) == 3
    assert stage.partitions == again
    assert (stage.metadata(RECONCILIATION)["present"], stage.metadata(PLAN)["ranges"]) == (192, 3)
    assert [entry.runs for entry in stage.book.ranges(stage.night.plan_id)] == [1, 1, 1]

    # A key of the first night is named with the ranges that hold its keys now.
    stage.instance.add_dynamic_partitions(RANGES_NAME, [second])
    gone = failure_of(stage.sync(second))
    stage.instance.delete_dynamic_partition(RANGES_NAME, second)
    assert f"The newest plan {stage.night.plan_id} has no range {second}" in gone
    assert all(partition in gone for partition in again[1:])
    assert again[0] not in gone


def test_the_certificate_of_a_verdict_is_shown_beside_the_measurement(single: Stage) -> None:
    single.plan()
    for request in single.tick().requests:
        single.launch(request)
    single.turn()
    single.turn()

    shown = single.instance.fetch_observations(RECONCILIATION, limit=1).records[0].asset_observation
    assert shown is not None
    assert shown.metadata["plan_id"].value == single.night.plan_id
    assert str(shown.metadata["certificate"].value).startswith("# Certificate 1: reconciled")
    assert shown.metadata["is_signed"].value is False


def test_a_plan_by_hand_continues_the_unfinished_night(stage: Stage) -> None:
    stage.plan()
    plan_id = stage.night.plan_id

    assert stage.plan().success
    assert stage.night.plan_id == plan_id

    assert stage.plan(fresh=True).success
    assert stage.night.plan_id > plan_id
    left = stage.book.night(plan_id)
    assert left is not None and left.verdict is Verdict.ABANDONED


def test_partitions_that_a_run_still_targets_are_not_deleted(stage: Stage) -> None:
    stage.plan()
    stage.instance.add_dynamic_partitions(RANGES_NAME, ["of-an-earlier-night"])
    queued = a_run(stage, "sync_range", partition="of-an-earlier-night", status="NOT_STARTED")

    stage.tick()
    kept = list(stage.partitions)
    stage.instance.delete_run(queued)
    stage.tick()

    assert "of-an-earlier-night" in kept
    assert "of-an-earlier-night" not in stage.partitions


# Runs that do not end well


def test_a_cancelled_range_is_held_until_a_person_runs_it(stage: Stage) -> None:
    stage.plan()
    first, second = stage.partitions
    a_run(stage, "sync_range", partition=first, status="CANCELED")

    held, beside = stage.tick(), stage.tick()

    assert "1 cancelled by a person" in held.line
    assert stage.entry(first).state is RangeState.HELD
    assert beside.keys == [f"{second}/1"]

    stage.finish(second)
    assert stage.tick().keys == ["measure/1"]
    assert stage.sync(first).success
    assert stage.entry(first).state is RangeState.DONE


def test_a_run_whose_process_is_gone_is_reported_and_its_range_runs_again(stage: Stage) -> None:
    stage.plan()
    first, second = stage.partitions
    dead = a_run(stage, "sync_range", partition=first, ago=timedelta(minutes=5))
    earlier = Book(stage.area.book_file, now=lambda: datetime.now(UTC) - timedelta(minutes=4))
    earlier.begin_run(stage.night.plan_id, first, pid=1, run_id=dead, fresh=False)
    earlier.close()

    with stage.area.lock_range(first):
        alive = stage.tick()
    reported = stage.tick()
    relaunched = stage.tick(hours=1)

    assert alive.keys == [f"{second}/1"]
    assert "1 died" in reported.line
    assert status_of(stage, dead) is FAILURE
    assert f"{first}/2" in relaunched.keys
    assert stage.launch(relaunched.requests[0]).success
    assert (stage.entry(first).state, stage.entry(first).attempts) == (RangeState.DONE, 1)


def test_a_measure_run_whose_process_is_gone_is_reported_and_another_one_measures(stage: Stage) -> None:
    stage.plan()
    stage.finish(*stage.partitions)
    dead = a_run(stage, "measure", ago=timedelta(minutes=5))
    earlier = Book(stage.area.book_file, now=lambda: datetime.now(UTC) - timedelta(minutes=4))
    earlier.begin_measure(stage.night.plan_id, run_id=dead)
    earlier.close()

    with stage.area.lock_measure():
        alive = stage.tick()
    reported, again = stage.tick(), stage.tick(hours=1)

    assert alive.line.endswith("2/2 done; measuring")
    assert "1 died" in reported.line
    assert status_of(stage, dead) is FAILURE
    assert [request.job_name for request in again.requests] == ["measure"]


def test_runs_that_die_before_they_come_to_the_book_are_not_launched_for_ever(stage: Stage) -> None:
    stage.plan()
    first = stage.partitions[0]
    for _ in range(3):
        a_run(stage, "sync_range", partition=first, status="FAILURE")

    tick = stage.tick()

    assert "1 given up" in tick.line
    assert stage.entry(first).error == "3 runs failed, the last: it died"

    # A person wants it again: what was before does not count any more.
    assert stage.run("restart_ranges").success
    assert f"{first}/4" in stage.tick().keys


def test_measure_runs_that_die_before_they_come_to_the_book_end_in_a_verdict(stage: Stage) -> None:
    stage.plan()
    stage.finish(*stage.partitions)
    for _ in range(3):
        a_run(stage, "measure", status="FAILURE")

    assert "unproven" in stage.tick().line
    assert stage.night.verdict is Verdict.UNPROVEN


def test_a_range_that_fails_is_launched_three_times_with_rests_in_between(single: Stage) -> None:
    single.plan()
    (only,) = single.partitions
    single.fault("answer endpoint=describe status=400 code=INVALID_TYPE")

    single.turn()
    at_once = single.tick()
    later = [single.turn(hours=1).keys, single.turn(hours=2).keys]
    given_up = single.tick(hours=3)

    assert at_once.keys == [] and "a failed range again at" in at_once.line
    assert later == [[f"{only}/2"], [f"{only}/3"]]
    assert "1 given up" in given_up.line
    assert single.entry(only).attempts == 3


def test_a_limit_parks_the_night_and_one_range_probes_before_the_others_follow(stage: Stage) -> None:
    stage.plan()
    first, second = stage.partitions
    stage.fault("limit endpoint=describe")

    failed = [stage.launch(request) for request in stage.tick().requests]
    parked = stage.tick()
    stage.no_faults()
    probe = stage.turn(hours=1)
    following = stage.turn(hours=1)

    assert [run.success for run in failed] == [False, False]
    assert "2 parked; parked until" in parked.line
    assert probe.keys == [f"{first}/2"]
    assert following.keys == [f"{second}/2"]
    assert [stage.entry(p).attempts for p in (first, second)] == [0, 0]
    assert stage.play(hours=1).verdict is Verdict.RECONCILED


def test_one_dropped_row_is_found_repaired_and_reconciled(stage: Stage) -> None:
    stage.plan()
    stage.fault("silent_drop keys=externalOpp0000007 nth=1")
    stage.turn()
    measured = stage.run("measure")
    missing = stage.metadata(RECONCILIATION)["missing"]

    night = stage.play()

    assert measured.success
    assert missing == 1
    assert stage.checks(measured.run_id)["present_equals_expected"] is False
    assert night.verdict is Verdict.RECONCILED
    assert sorted(entry.repairs for entry in stage.book.ranges(night.plan_id)) == [0, 1]


def test_a_row_that_is_dropped_again_and_again_ends_in_a_verdict_that_says_so(single: Stage) -> None:
    single.plan()
    single.fault("silent_drop keys=externalOpp0000007")

    night = single.play()

    assert night.verdict is Verdict.NOT_RECONCILED
    assert night.verdict_reasons == ("1 rows are missing in the org",)
    assert [entry.repairs for entry in single.book.ranges(night.plan_id)] == [2]


# After the verdict


def test_a_partition_that_a_person_materializes_amends_the_night(single: Stage) -> None:
    single.plan()
    single.play()
    (only,) = single.partitions
    next_night(single.org, change=0.5)

    amended = single.sync(only)
    measuring, concluding = single.turn(), single.tick()

    assert amended.success
    assert (single.entry(only).generation, single.entry(only).counts.updated) == (2, 120)
    assert measuring.keys == ["measure/2"]
    assert concluding.line.endswith("reconciled")
    assert [verdict for _, verdict, _ in single.book.verdicts(single.night.plan_id)] == [Verdict.RECONCILED] * 2

    single.fault("answer endpoint=describe status=400 code=INVALID_TYPE times=1")
    failed = single.sync(only)

    assert not failed.success
    assert single.turn().keys == ["measure/3"]
    assert single.tick().line.endswith("not reconciled")
    assert single.night.verdict_reasons[0].startswith(f"range {only} is failed")
    assert single.tick().keys == []


# Other doors


def test_the_sensor_only_tells_while_a_terminal_drives_the_night(stage: Stage) -> None:
    stage.plan()

    with stage.area.lock_driver():
        driven = stage.tick()

    assert driven.line.endswith("0/2 done; driven from a terminal")
    assert len(stage.tick().requests) == 2


def test_a_stop_needs_no_login_and_a_restart_goes_on(stage: Stage) -> None:
    stage.plan()
    first = stage.partitions[0]
    stage.org.set_setting("clients", {"somebody": "else"})

    stopped = stage.run("stop_night")
    is_stopped, tick = stage.book.is_stopped(stage.night.plan_id), stage.tick()
    stage.org.set_setting("clients", None)
    queued = stage.sync(first)
    restarted = stage.run("restart_ranges")

    assert (stopped.success, is_stopped) == (False, True)
    assert "stopped, `restart` or `sync` goes on" in tick.line
    assert f"Night {stage.night.plan_id} is stopped" in failure_of(queued)
    assert (stage.entry(first).runs, stage.entry(first).attempts) == (0, 0)
    assert restarted.success
    assert stage.play().verdict is Verdict.RECONCILED


def test_a_restart_of_a_parked_night_looks_again_and_goes_on_when_there_is_room(stage: Stage) -> None:
    stage.org.set_setting("limits", {"DailyBulkApiBatches": {"Max": 15_000, "Used": 15_000}})
    stage.plan()
    stage.org.set_setting("limits", {"DailyBulkApiBatches": {"Max": 15_000, "Used": 14_999}})

    in_vain = stage.run("restart_ranges")
    reason = stage.night.parked_reason
    by_hand = stage.sync(stage.partitions[0])
    stage.org.set_setting("limits", {})
    restarted = stage.run("restart_ranges")

    assert (in_vain.success, by_hand.success, restarted.success) == (True, False, True)
    assert reason == "About 2 ingest batches are needed; 1 are left today."
    assert (stage.night.parked_until, stage.entry(stage.partitions[0]).attempts) == (None, 0)


def test_a_plan_by_the_schedule_does_not_lift_a_stop(stage: Stage) -> None:
    stage.plan()
    assert stage.run("stop_night").success

    assert stage.plan().success

    assert stage.book.is_stopped(stage.night.plan_id)


def test_a_restart_of_a_range_that_is_done_names_what_to_do_instead(stage: Stage) -> None:
    stage.plan()
    stage.sync(stage.partitions[0])

    refused = stage.run("restart_ranges", run_config={"ops": {"restart": {"config": {"ranges": stage.partitions[:1]}}}})

    assert "Materialize its partition" in failure_of(refused)


def test_a_daemon_that_lost_its_environment_starts_nothing(stage: Stage) -> None:
    stage.plan()
    plan = stage.night.plan
    real = OrgIdentity("00D000000000001AAA", "Bank", is_simulated=False, dataspace="default")
    stage.book.open_night(
        type(plan)(
            **{name: getattr(plan, name) for name in plan.__slots__}
            | {"plan_id": "20990101T020000.000000Z", "org": real}
        )
    )

    tick = stage.tick()

    assert tick.requests == ()
    assert "Nothing is started: " in tick.line and "no SALESFORCE_* variable is set" in tick.line


# Plans that fail


def test_a_source_that_shrinks_opens_no_night_and_is_not_planned_three_times(stage: Stage) -> None:
    stage.plan()
    plan_id = stage.night.plan_id
    next_night(stage.org, delete=0.6)

    refused = stage.plan(fresh=True)

    run = stage.instance.get_run_by_id(refused.run_id)
    assert run is not None
    assert "holds 48 rows; the last plan counted 120" in failure_of(refused)
    assert stage.checks(refused.run_id) == {"source_plausible": False}
    assert run.tags["dagster/max_retries"] == "0"
    assert (stage.night.plan_id, stage.night.verdict) == (plan_id, None)


def test_a_plan_whose_login_is_refused_is_not_tried_again(stage: Stage) -> None:
    stage.org.set_setting("clients", {"somebody": "else"})

    refused = stage.plan()

    run = stage.instance.get_run_by_id(refused.run_id)
    assert run is not None and not refused.success
    assert run.tags["dagster/max_retries"] == "0"
    assert stage.book.newest() is None


@pytest.mark.parametrize(
    ("error", "is_worth_it"),
    [
        (WireError("cut off"), True),
        (Unreachable("no answer"), True),
        (PlanRefused("half of the rows are gone"), False),
        (HeldElsewhere("somebody plans"), False),
        (CredentialsError("refused"), False),
        (MappingError("no such column"), False),
    ],
)
def test_only_what_may_pass_is_worth_another_try(error: SyncError, is_worth_it: bool) -> None:
    assert may_pass(error) is is_worth_it
