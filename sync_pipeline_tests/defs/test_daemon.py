"""The same through Dagster's own daemon: the schedule, the sensor, the queue and a backfill, and no hand of ours."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._scheduler.scheduler import launch_scheduled_runs

from sync_pipeline.book.book import Book
from sync_pipeline.defs.checks import SYNCED
from sync_pipeline.defs.partitions import RANGES_NAME
from sync_pipeline.domain.ledger import Verdict
from sync_pipeline.simulated_org.seed import seed
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.staging.area import Area

IN_THIS_PROCESS = {
    "run_launcher": {"module": "dagster._core.launcher.sync_in_memory_run_launcher", "class": "SyncInMemoryRunLauncher"}
}
log = logging.getLogger("daemon")


class Daemon:
    """What `dagster dev` runs besides the web server, one turn at a time and at the time of day that a test says."""

    def __init__(self, instance: dg.DagsterInstance, workspace: Any, now: datetime) -> None:
        self.instance = instance
        self._workspace = workspace
        self._now = now
        self._queue = QueuedRunCoordinatorDaemon(interval_seconds=1)
        self._scheduled: dict[str, Any] = {}

    def pass_time(self, **time: float) -> None:
        """The clock goes on; schedules fire that are due by then."""
        self._now += timedelta(**time)
        with freeze_time(self._now):
            list(launch_scheduled_runs(self._workspace, log, self._now, iteration_times=self._scheduled))
        self.run_queue()

    def look(self) -> None:
        """One tick of the sensor, and the runs that it asks for."""
        self._now += timedelta(seconds=20)
        with freeze_time(self._now):
            list(execute_sensor_iteration(self._workspace, log, None, None))
        self.run_queue()

    def backfill(self) -> None:
        list(execute_backfill_iteration(self._workspace, log))
        self.run_queue()

    def run_queue(self) -> None:
        while self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])):
            list(self._queue.run_iteration(self._workspace))

    @property
    def workspace(self) -> Any:
        return self._workspace.create_request_context()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("SYNC_HOME", str(folder))
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", "60")
    org = Org(folder / "simulated_org")
    seed(org, 120)
    org.close()
    return folder


@pytest.fixture
def daemon(home: Path) -> Iterator[Daemon]:
    target = ModuleTarget(
        module_name="sync_pipeline.definitions", attribute=None, working_directory=None, location_name="sync_pipeline"
    )
    # Tomorrow, so that the night is never too late to be opened, whenever the test runs.
    tonight = datetime.now(UTC).replace(hour=1, minute=59, second=50, microsecond=0) + timedelta(days=1)
    with (
        dg.instance_for_test(overrides=IN_THIS_PROCESS) as instance,
        create_test_daemon_workspace_context(target, instance) as workspace,
    ):
        yield Daemon(instance, workspace, tonight)


def runs_by_job(instance: dg.DagsterInstance) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for run in reversed(list(instance.get_runs())):
        found.setdefault(run.job_name, []).append(run.status.value)
    return found


@pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources` is deprecated:DeprecationWarning")
def test_at_two_a_night_runs_by_itself_and_a_backfill_by_a_person_amends_it(daemon: Daemon, home: Path) -> None:
    instance = daemon.instance
    daemon.pass_time(seconds=0)
    before = runs_by_job(instance)

    daemon.pass_time(seconds=20)
    for _ in range(4):
        daemon.look()

    book = Book(Area(home).book_file)
    night = book.newest()
    assert night is not None
    assert before == {}
    assert runs_by_job(instance) == {"plan_night": ["SUCCESS"], "sync_range": ["SUCCESS"] * 2, "measure": ["SUCCESS"]}
    assert night.verdict is Verdict.RECONCILED

    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id="byhand00",
        asset_graph=daemon.workspace.asset_graph,
        partition_names=list(instance.get_dynamic_partitions(RANGES_NAME)),
        asset_selection=[SYNCED],
        backfill_timestamp=datetime.now(UTC).timestamp(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)
    for _ in range(3):
        daemon.backfill()
    for _ in range(3):
        daemon.look()

    amended = instance.get_backfill("byhand00")
    entries, verdicts = book.ranges(night.plan_id), book.verdicts(night.plan_id)
    book.close()
    assert amended is not None and amended.status is BulkActionStatus.COMPLETED_SUCCESS
    assert [(entry.generation, entry.runs) for entry in entries] == [(2, 2), (2, 2)]
    assert runs_by_job(instance)["measure"] == ["SUCCESS"] * 2
    assert [verdict for _, verdict, _ in verdicts] == [Verdict.RECONCILED] * 2
