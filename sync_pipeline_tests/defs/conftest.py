"""Dagster over a small simulated org: runs happen in this process, and a turn of the sensor is asked for, not waited for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from sync_pipeline.book.book import Book
from sync_pipeline.definitions import defs
from sync_pipeline.defs.partitions import RANGES_NAME
from sync_pipeline.defs.resources import SyncResource
from sync_pipeline.defs.sensors import night
from sync_pipeline.domain.ledger import RangeState
from sync_pipeline.domain.night import NightEntry, RangeEntry
from sync_pipeline.engine.walls import utc_now
from sync_pipeline.simulated_org.faults import add_fault, clear_faults, parse_fault
from sync_pipeline.simulated_org.seed import seed
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.staging.area import Area

ROWS = 120
RANGE_ROWS = 60
TURNS_MAX = 40


class Later(SyncResource):
    """The same resource so much later, as the sensor sees it."""

    hours: float = 0.0

    def now(self) -> datetime:
        return utc_now() + timedelta(hours=self.hours)


@dataclass(frozen=True)
class Tick:
    """What one evaluation of the sensor said and asked for."""

    line: str
    """Empty where runs were asked for: then Dagster shows those."""
    requests: tuple[dg.RunRequest, ...]

    @property
    def keys(self) -> list[str]:
        """What the requested runs are for, and their numbers."""
        return ["/".join((request.run_key or "").split("/")[1:]) for request in self.requests]


@dataclass
class Stage:
    """One SYNC_HOME and one Dagster."""

    instance: dg.DagsterInstance
    home: Path
    org: Org
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.area = Area(self.home)
        self.area.prepare()
        self.book = Book(self.area.book_file)

    # Dagster's side

    def run(self, job: str, **changes: Any) -> dg.ExecuteInProcessResult:
        """One run of a job, to its end."""
        return defs.resolve_job_def(job).execute_in_process(instance=self.instance, raise_on_error=False, **changes)

    def plan(self, **config: Any) -> dg.ExecuteInProcessResult:
        return self.run("plan_night", run_config=_configured("opportunity_ranges", config))

    def sync(self, partition: str, *, tags: dict[str, str] | None = None, **config: Any) -> dg.ExecuteInProcessResult:
        return self.run(
            "sync_range",
            partition_key=partition,
            tags=tags or {},
            run_config=_configured("opportunities_synced", config),
        )

    def tick(self, *, hours: float = 0.0) -> Tick:
        """One evaluation of the sensor; partitions change as it asks, runs are only named."""
        context = dg.build_sensor_context(
            instance=self.instance,
            instance_ref=self.instance.get_ref(),
            repository_def=defs.get_repository_def(),
            resources={"sync": Later(hours=hours)},
        )
        data = night.evaluate_tick(context)
        for change in data.dynamic_partitions_requests or ():
            if isinstance(change, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions(RANGES_NAME, list(change.partition_keys))
            else:
                for key in change.partition_keys:
                    self.instance.delete_dynamic_partition(RANGES_NAME, key)
        line = data.skip_message or ""
        self.lines.append(line)
        return Tick(line, tuple(data.run_requests or ()))

    def launch(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """What the daemon makes of a request."""
        assert request.job_name is not None
        return self.run(
            request.job_name,
            **({"partition_key": request.partition_key} if request.partition_key else {}),
            tags={**request.tags, "dagster/run_key": request.run_key or ""},
        )

    def turn(self, *, hours: float = 0.0) -> Tick:
        """A tick, and the runs it asks for."""
        tick = self.tick(hours=hours)
        for request in tick.requests:
            self.launch(request)
        return tick

    def play(self, *, hours: float = 0.0) -> NightEntry:
        """Turns until the night is over."""
        for _ in range(TURNS_MAX):
            if "night is over" in self.turn(hours=hours).line:
                return self.night
        raise AssertionError(f"the night never ends: {self.lines[-3:]}")

    @property
    def partitions(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions(RANGES_NAME))

    def metadata(self, key: dg.AssetKey, partition: str | None = None) -> dict[str, Any]:
        """Of the newest materialisation."""
        wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition]) if partition else key
        (record,) = self.instance.fetch_materializations(wanted, limit=1).records
        assert record.asset_materialization is not None
        return {name: value.value for name, value in record.asset_materialization.metadata.items()}

    def checks(self, run_id: str) -> dict[str, bool]:
        """The evaluations of a run by the name of the check."""
        events = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        found = [e.dagster_event.event_specific_data for e in events if e.dagster_event is not None]
        return {evaluation.check_name: evaluation.passed for evaluation in found}  # type: ignore[union-attr]

    # The book's side

    @property
    def night(self) -> NightEntry:
        newest = self.book.newest()
        assert newest is not None
        return newest

    def entry(self, partition: str) -> RangeEntry:
        found = self.book.range(self.night.plan_id, partition)
        assert found is not None
        return found

    def finish(self, *partitions: str) -> None:
        """Ranges are done as far as the book knows, without a run."""
        for partition in partitions:
            self.book.begin_run(self.night.plan_id, partition, pid=1, fresh=False)
            self.book.end_run(self.night.plan_id, partition, state=RangeState.DONE)

    def fault(self, text: str) -> None:
        add_fault(self.org, parse_fault(text))

    def no_faults(self) -> None:
        clear_faults(self.org)


def _configured(op: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"ops": {op: {"config": config}}} if config else {}


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """The sentence that the failed run shows."""
    (event,) = [e for e in result.all_events if e.event_type is dg.DagsterEventType.STEP_FAILURE]
    failure = event.step_failure_data.user_failure_data
    assert failure is not None and failure.description is not None
    return failure.description


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    """Made once for each file: it costs more than a test."""
    with tempfile.TemporaryDirectory() as folder:
        # A database of its own for the events of each run, as Dagster makes it, costs more than the run.
        of_all_runs = {"module": "dagster._core.storage.event_log", "class": "ConsolidatedSqliteEventLogStorage"}
        storages = {
            "event_log_storage": {**of_all_runs, "config": {"base_dir": folder}},
            "run_storage": _storage("runs", "SqliteRunStorage", folder),
            "schedule_storage": _storage("schedules", "SqliteScheduleStorage", folder),
        }
        with dg.instance_for_test(overrides=storages) as made:
            yield made


def _storage(module: str, name: str, folder: str) -> dict[str, Any]:
    return {"module": f"dagster._core.storage.{module}", "class": name, "config": {"base_dir": folder}}


@pytest.fixture
def stage(instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """120 rows that make two ranges."""
    home = tmp_path / "home"
    monkeypatch.setenv("SYNC_HOME", str(home))
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", str(RANGE_ROWS))
    org = Org(home / "simulated_org")
    seed(org, ROWS)
    made = Stage(instance, home, org)
    yield made
    made.book.close()
    org.close()


@pytest.fixture
def single(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The same rows in one range."""
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", str(ROWS))
    return stage
