"""Dagster's storage on PostgreSQL: a plan, a range, and a tick of the sensor, with the instance that `deploy/` ships."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from sync_pipeline.defs.checks import PLAN, SYNCED
from sync_pipeline.defs.partitions import RANGES_NAME
from sync_pipeline.defs.resources import SyncResource
from sync_pipeline_tests.postgres import database, rows
from sync_pipeline_tests.running import PROJECT, environment_of, sync_pipeline


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A database, and an environment in which the instance finds it."""
    with database() as found:
        settings = {"SYNC_HOME": str(tmp_path / "nights"), "SYNC_ROWS_PER_RANGE": "100", **found}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        sync_pipeline(environment_of(tmp_path, **settings), "org", "seed", "--rows", "300")
        yield found


@pytest.fixture
def instance(variables: dict[str, str], tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(PROJECT / "deploy" / "dagster.postgres.yaml", home / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(home)) as found:
        yield found


def test_a_plan_a_range_and_a_tick_live_in_postgresql(instance: dg.DagsterInstance, variables: dict[str, str]) -> None:
    from sync_pipeline.definitions import defs

    planned = defs.resolve_job_def("plan_night").execute_in_process(instance=instance)
    partitions = instance.get_dynamic_partitions(RANGES_NAME)
    synced = defs.resolve_job_def("sync_range").execute_in_process(instance=instance, partition_key=partitions[0])
    tick = defs.resolve_sensor_def("night").evaluate_tick(
        dg.build_sensor_context(
            instance=instance,
            instance_ref=instance.get_ref(),
            repository_def=defs.get_repository_def(),
            resources={"sync": SyncResource()},
        )
    )

    assert (planned.success, synced.success, len(partitions)) == (True, True, 3)
    assert [request.partition_key for request in tick.run_requests or []] == partitions[1:]
    assert instance.get_materialized_partitions(SYNCED) == {partitions[0]}
    [plan] = instance.fetch_materializations(PLAN, limit=1).records
    assert plan.asset_materialization is not None
    assert plan.asset_materialization.metadata["expected"].value == 300
    assert rows(variables, "SELECT status, count(*) FROM runs GROUP BY status") == [("SUCCESS", 2)]
    assert rows(variables, "SELECT count(*) FROM dynamic_partitions") == [(3,)]
    assert rows(variables, "SELECT count(*) > 10 FROM event_logs") == [(True,)]


def test_two_instances_share_one_history(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    instance.add_dynamic_partitions(RANGES_NAME, ["end-2af26346"])

    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as other:
        assert other.get_dynamic_partitions(RANGES_NAME) == ["end-2af26346"]
