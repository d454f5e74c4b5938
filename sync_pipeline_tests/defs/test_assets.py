"""What a run of an asset leaves behind: rows in the org, numbers and checks in Dagster, and red where something failed."""

import threading
from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg
import httpx
import pytest

from sync_pipeline.defs import metadata
from sync_pipeline.defs.checks import PLAN, RECONCILIATION, SYNCED
from sync_pipeline.defs.partitions import RANGES
from sync_pipeline.defs.progress import observed
from sync_pipeline.domain.keys import KeyRange, cover
from sync_pipeline.domain.ledger import Counts, RangeState
from sync_pipeline.domain.night import JobEntry, RangeEntry
from sync_pipeline.settings import load_settings
from sync_pipeline.simulated_org.app import OrgTransport
from sync_pipeline.simulated_org.faults import add_fault, rule_of
from sync_pipeline.simulated_org.seed import next_night
from sync_pipeline.wiring import open_walls
from sync_pipeline_tests.defs.conftest import ROWS, Stage, failure_of

PLOTTED = {
    "rows_read", "expected", "staged", "succeeded", "created", "updated", "failed", "unprocessed", "quarantined",
    "rows_per_second", "api_calls", "lock_rate", "seconds", "runs", "generation",
}  # fmt: skip
"""Numbers of a partition that Dagster plots from night to night."""


def numbers(found: dict[str, object]) -> set[str]:
    return {name for name, value in found.items() if isinstance(value, int | float)}


def is_materialized(stage: Stage, partition: str) -> bool:
    status = stage.instance.get_status_by_partition(SYNCED, [partition], RANGES) or {}
    return status[partition] is not None and status[partition].value == "MATERIALIZED"


# What is told of a night


def test_a_range_is_told_by_numbers_and_its_checks_and_the_night_by_a_report(stage: Stage) -> None:
    planned = stage.plan()
    first, second = stage.partitions
    synced = [stage.sync(partition) for partition in (first, second)]
    measured = stage.run("measure")

    of_plan, of_range, of_night = stage.metadata(PLAN), stage.metadata(SYNCED, first), stage.metadata(RECONCILIATION)
    assert [run.success for run in (planned, *synced, measured)] == [True] * 4
    assert (of_plan["expected"], of_plan["ranges"], of_plan["dagster/row_count"]) == (120, 2, 120)
    assert numbers(of_range) >= PLOTTED
    assert (of_range["rows_read"], of_range["created"], of_range["dagster/partition_row_count"]) == (60, 60, 60)
    assert of_range["api_calls"] > 5
    assert numbers(stage.metadata(SYNCED, second)) == numbers(of_range)
    assert (of_night["present"], of_night["missing"], of_night["created"]) == (120, 0, 120)
    assert of_night["report"].startswith(
        f"**Every expected value is in the org.** Night {stage.night.plan_id}, {stage.night.plan.org}"
    )
    assert f"| `{first}` | done | 60 of 60 |" in of_night["report"]
    assert stage.checks(planned.run_id) == {"source_plausible": True}
    assert stage.checks(synced[0].run_id) == {
        "every_staged_row_has_one_outcome": True,
        "staged_equals_expected": True,
        "no_row_rejected": True,
    }
    assert stage.checks(measured.run_id) == {
        "every_range_done": True,
        "every_row_accounted": True,
        "rows_compared": True,
        "present_equals_expected": True,
        "values_equal": True,
        "api_budget_kept": True,
        "ended_in_time": True,
    }
    run = stage.instance.get_run_by_id(synced[0].run_id)
    assert run is not None and run.tags["plan_id"] == stage.night.plan_id


def test_rejected_rows_are_a_warning_and_the_partition_is_green(single: Stage) -> None:
    single.plan()
    (only,) = single.partitions
    single.fault("row_errors keys=externalOpp0000007 code=REQUIRED_FIELD_MISSING")

    run = single.sync(only)

    assert run.success
    assert is_materialized(single, only)
    assert single.checks(run.run_id)["no_row_rejected"] is False
    assert single.metadata(SYNCED, only)["failed"] == 1


def test_a_range_whose_rows_do_not_come_is_red_and_its_check_says_why(single: Stage) -> None:
    single.plan()
    (only,) = single.partitions
    count_of_120 = answer_to_a_count(single)
    next_night(single.org, change=0.0, delete=0.1)
    # Statements 4 and 7 are the counts: each is asked after rows without a key and rows were read, and not enough came.
    # The first one asks for the types of the columns.
    add_fault(
        single.org,
        rule_of(
            {
                "kind": "answer",
                "endpoint": "query",
                "nth": [4, 7],
                "status": 201,
                "content_type": "application/json",
                "body": count_of_120,
            }
        ),
    )

    run = single.sync(only)

    assert f"({only}): the source counts 120 rows and hands out 108" in failure_of(run)
    assert single.checks(run.run_id)["staged_equals_expected"] is False
    assert not is_materialized(single, only)
    assert single.entry(only).state is RangeState.FAILED


def answer_to_a_count(stage: Stage) -> str:
    """The body with which the source answers now when it is asked how many rows it holds."""
    bodies: list[str] = []

    class Listening(OrgTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = super().handle_request(request)
            if request.url.path.endswith("/query-sql"):
                bodies.append(answer.read().decode())
                answer.stream = httpx.ByteStream(answer.content)  # it can be read only once
            return answer

    walls = open_walls(load_settings(), transport=Listening(stage.org.folder))
    assert walls.data_cloud.count(KeyRange()) == ROWS
    walls.close()
    return bodies[-1]


# Starting again


def test_what_a_run_does_with_what_is_there_is_told_by_its_start(single: Stage) -> None:
    single.plan()
    (only,) = single.partitions

    def seen() -> tuple[int, int]:
        return single.entry(only).runs, single.entry(only).generation

    single.sync(only)
    single.sync(only)
    kept = seen()
    single.sync(only, start="fresh")
    fresh = seen()
    single.run("measure")
    single.tick()
    single.sync(only, start="resume")
    resumed = seen()
    single.sync(only)

    assert (kept, fresh, resumed, seen()) == ((1, 1), (2, 2), (2, 2), (3, 3))


def test_a_run_that_was_kept_tells_the_same_numbers(single: Stage) -> None:
    single.plan()
    (only,) = single.partitions
    single.sync(only)
    first = single.metadata(SYNCED, only)

    single.sync(only)

    again = single.metadata(SYNCED, only)
    constant = PLOTTED - {"seconds", "rows_per_second", "api_calls"}
    assert {name: again[name] for name in constant} == {name: first[name] for name in constant}


def test_a_run_of_a_range_that_somebody_works_on_says_who_and_is_no_failed_attempt(stage: Stage) -> None:
    stage.plan()
    first = stage.partitions[0]

    with stage.area.lock_range(first):
        refused = [stage.sync(first) for _ in range(3)]
        # Dagster knows of three failures; nobody else does.
    tick = stage.tick()

    assert all("works on range" in failure_of(run) for run in refused)
    assert stage.entry(first).attempts == 0
    assert f"{first}/4" in tick.keys


def test_a_partition_that_no_night_ever_had_names_those_there_are(stage: Stage) -> None:
    stage.plan()
    known = list(stage.partitions)
    stage.instance.add_dynamic_partitions(RANGES.name or "", ["typed-by-a-person"])

    told = failure_of(stage.sync("typed-by-a-person"))
    stage.instance.delete_dynamic_partition(RANGES.name or "", "typed-by-a-person")

    assert "No night ever had a range typed-by-a-person." in told
    assert all(partition in told for partition in known)


def test_a_range_without_a_plan_says_what_to_do_first(stage: Stage) -> None:
    stage.instance.add_dynamic_partitions(RANGES.name or "", ["before-any-plan"])

    told = failure_of(stage.sync("before-any-plan"))
    stage.instance.delete_dynamic_partition(RANGES.name or "", "before-any-plan")

    assert "Materialize `opportunity_ranges` first" in told


def test_a_measurement_without_a_night_says_what_to_do_first(stage: Stage) -> None:
    assert "Materialize `opportunity_ranges` first" in failure_of(stage.run("measure"))


def test_a_second_measurement_at_once_is_refused(stage: Stage) -> None:
    stage.plan()
    stage.finish(*stage.partitions)

    with stage.area.lock_measure():
        refused = stage.run("measure")

    assert "works on the measurement" in failure_of(refused)
    assert stage.tick().keys == ["measure/2"]


# While a range runs


def test_a_long_range_tells_how_far_it_is(stage: Stage) -> None:
    stage.plan()
    first = stage.partitions[0]
    plan_id = stage.night.plan_id
    stage.book.begin_run(plan_id, first, pid=1, fresh=False)
    stage.book.progress(plan_id, first, counts=Counts(expected=60, staged=25))
    has_told = threading.Event()

    @dg.asset(key=SYNCED, partitions_def=RANGES)
    def long_one(context: dg.AssetExecutionContext) -> None:
        with observed(context, stage.book, plan_id, first, every=0.01):
            for _ in range(1000):
                if stage.instance.fetch_observations(SYNCED, limit=1).records:
                    has_told.set()
                    return
                threading.Event().wait(0.01)

    dg.materialize([long_one], partition_key=first, instance=stage.instance)

    assert has_told.is_set()
    (record,) = stage.instance.fetch_observations(SYNCED, limit=1).records
    observation = record.asset_observation
    assert observation is not None and observation.partition == first
    assert observation.metadata["rows_read"].value == 25


def test_a_short_range_tells_nothing_in_between(stage: Stage) -> None:
    began = datetime.now(UTC).timestamp()
    stage.plan()
    stage.sync(stage.partitions[0])

    told = stage.instance.fetch_observations(SYNCED, limit=5).records
    assert [record for record in told if record.timestamp > began] == []


# Numbers


JOB = JobEntry(
    1, "n", "p", 1, 1, 0, 100, datetime(2026, 6, 10, tzinfo=UTC), job_id="7505e0000000001AAA", state="accounted"
)


@pytest.mark.parametrize(
    ("jobs", "failed_for_good", "rate"),
    [
        ([], 0, 0.0),
        ([replace(JOB, processed=100, failed=0)], 0, 0.0),
        ([replace(JOB, processed=100, failed=10)], 10, 0.0),
        ([replace(JOB, failed=50), replace(JOB, rows=50, failed=25), replace(JOB, rows=50, failed=0)], 0, 0.375),
    ],
)
def test_the_lock_rate_is_the_share_of_rows_sent_that_failed_and_got_through_later(
    jobs: list[JobEntry], failed_for_good: int, rate: float
) -> None:
    assert metadata.lock_rate(Counts(expected=100, staged=100, failed=failed_for_good), jobs) == rate


def test_ingest_jobs_are_links_into_the_org_that_has_pages_for_them() -> None:
    links = metadata.job_links([JOB, replace(JOB, job_id="")], "https://acme.my.salesforce.com")

    assert links == (
        "- [7505e0000000001AAA](https://acme.my.salesforce.com/lightning/setup/AsyncApiJobStatus/page"
        "?address=%2F7505e0000000001AAA) part 1, round 0: accounted"
    )


@pytest.mark.parametrize(
    ("succeeded", "expected", "filled"), [(0, 100, 0), (50, 100, 10), (99, 100, 19), (100, 100, 20), (0, 0, 20)]
)
def test_a_bar_is_whole_only_for_a_range_that_is(succeeded: int, expected: int, filled: int) -> None:
    bar = metadata.bar(Counts(expected=expected, staged=expected, created=succeeded))

    assert (bar.count("█"), len(bar)) == (filled, 20)


def test_a_range_that_has_not_begun_is_told_by_the_same_numbers() -> None:
    (key_range, _) = cover(["b"])
    planned = RangeEntry(key_range.partition, 0, RangeState.PLANNED, Counts(expected=10))

    assert set(metadata.of_progress(planned)) == set(metadata.of_progress(replace(planned, rows_sent=5)))
