"""What people are told by Dagster's door: plan runs that failed for good, late ticks, and a sensor that never fails by it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from sync_pipeline.definitions import defs
from sync_pipeline.defs.alerts import WILL_RETRY_TAG, newest_planning
from sync_pipeline.defs.resources import SyncResource
from sync_pipeline_tests.notify.receivers import Web, serving
from sync_pipeline_tests.running import environment_of, sync_pipeline


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """Who is told; the simulated org is there, with nothing in it yet."""
    server = Web()
    monkeypatch.setenv("SYNC_HOME", str(tmp_path / "nights"))
    monkeypatch.setenv("SYNC_ALERTS", f"json://{server.address}/notes")
    with serving(server):
        yield server


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as found:
        yield found


def seed(tmp_path: Path) -> None:
    sync_pipeline(environment_of(tmp_path), "org", "seed", "--rows", "50")


def plan(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("plan_night").execute_in_process(instance=instance, raise_on_error=False)


def tick(instance: dg.DagsterInstance) -> dg.SensorExecutionData:
    context = dg.build_sensor_context(
        instance=instance,
        instance_ref=instance.get_ref(),
        repository_def=defs.get_repository_def(),
        resources={"sync": SyncResource()},
    )
    return defs.resolve_sensor_def("night").evaluate_tick(context)


def late_tick(instance: dg.DagsterInstance, *, hours: float) -> str | None:
    context = dg.build_schedule_context(
        instance=instance,
        repository_def=defs.get_repository_def(),
        resources={"sync": SyncResource()},
        scheduled_execution_time=datetime.now(UTC) - timedelta(hours=hours),
    )
    return defs.resolve_schedule_def("nightly").evaluate_tick(context).skip_message


def test_a_plan_run_that_failed_for_good_is_told_once_with_its_reason_and_once_when_one_works(
    web: Web, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert not plan(instance).success
    tick(instance)
    tick(instance)
    assert web.titles == ["No night could be opened"]
    assert "has no source object yet" in web.notes[0]["message"]

    seed(tmp_path)
    assert plan(instance).success
    tick(instance)
    tick(instance)

    assert web.titles == ["No night could be opened", "Nights can be opened again"]


def test_a_plan_run_that_dagster_will_try_again_is_not_told(web: Web, instance: dg.DagsterInstance) -> None:
    failed = plan(instance)
    instance.add_run_tags(failed.run_id, {WILL_RETRY_TAG: "true"})

    tick(instance)

    assert web.notes == []


def test_a_plan_that_a_person_materialized_counts_as_well(
    instance: dg.DagsterInstance, web: Web, tmp_path: Path
) -> None:
    seed(tmp_path)
    plan(instance)
    before = newest_planning(instance)
    assert before is not None and not before.has_failed
    run = instance.create_run_for_job(
        defs.resolve_implicit_global_asset_job_def(), asset_selection=frozenset([dg.AssetKey("opportunity_ranges")])
    )
    instance.report_run_failed(run, "killed")

    newest = newest_planning(instance)

    assert newest is not None and newest.has_failed
    assert newest.why() == f"see run {run.run_id} in Dagster."


def test_runs_of_ranges_are_no_plan_runs(instance: dg.DagsterInstance, web: Web) -> None:
    run = instance.create_run_for_job(
        defs.resolve_implicit_global_asset_job_def(), asset_selection=frozenset([dg.AssetKey("opportunities_synced")])
    )
    instance.report_run_failed(run, "killed")

    assert newest_planning(instance) is None


def test_a_tick_of_the_schedule_that_comes_too_late_is_told(web: Web, instance: dg.DagsterInstance) -> None:
    skipped = late_tick(instance, hours=5)
    tick(instance)
    tick(instance)

    assert skipped is not None and "5.0 hours ago; the start window is 4 hours" in skipped
    assert web.titles == ["Night missed"]


def test_a_tick_of_the_schedule_within_the_start_window_says_nothing(web: Web, instance: dg.DagsterInstance) -> None:
    assert late_tick(instance, hours=3) is None
    tick(instance)

    assert web.notes == []


def test_a_sensor_that_reaches_nobody_does_its_work_all_the_same(
    web: Web, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    web.answer = 500
    plan(instance)
    seed(tmp_path)
    tick(instance)
    plan(instance)

    requests = tick(instance).run_requests or []

    assert web.refused > 0
    assert len(requests) == 1


def test_settings_that_cannot_be_used_end_no_tick(
    web: Web, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_ALERTS", "not-a-url-but-s3cret")

    message = tick(instance).skip_message

    assert message is not None and message.startswith("Nothing is started: SYNC_ALERTS=*** holds something")
    assert "s3cret" not in message
