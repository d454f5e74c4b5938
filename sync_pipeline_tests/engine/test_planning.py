"""The plan of a night: every row in one range, ranges that keep their names, and a forecast that holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from sync_pipeline.domain.errors import MappingError, PlanRefused
from sync_pipeline.domain.mapping import load_mapping
from sync_pipeline.domain.plan import Plan
from sync_pipeline.domain.policy import Policy
from sync_pipeline.engine.night import drive
from sync_pipeline.engine.planning import check_forecast, check_plausible, make_plan, plan_night, survey
from sync_pipeline.settings import PACKAGED_MAPPING
from sync_pipeline.simulated_org.seed import SOURCE, next_night, seed
from sync_pipeline.simulated_org.source import source_rows, write_source
from sync_pipeline_tests.engine.rehearsal import Rehearsal, rehearsal

FIRST, SECOND = "20260610T020000.000000Z", "20260611T020000.000000Z"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Rehearsal]:
    """300 rows; ranges are wanted to have 100."""
    with rehearsal(tmp_path, rows=300) as made:
        yield made


def planned(r: Rehearsal, plan_id: str = FIRST) -> Plan:
    return plan_night(r.walls, plan_id=plan_id)[0]


def opened(r: Rehearsal) -> Plan:
    """A plan that the book keeps, for the next one to go on from."""
    plan = planned(r)
    r.walls.book.open_night(plan)
    return plan


def throughs(plan: Plan) -> list[str | None]:
    return [planned_range.range.through for planned_range in plan]


# Ranges


@pytest.mark.parametrize("keys", ["dense", "clustered", "mixed"])
def test_every_row_is_in_one_range_of_about_the_wanted_size(tmp_path: Path, keys: str) -> None:
    with rehearsal(tmp_path, rows=1) as r:
        seed(r.org, 500, keys=keys)  # type: ignore[arg-type]

        plan = planned(r)

        rows = source_rows(r.org, SOURCE)["ExternalId__c"].to_list()
        assert plan.expected == 500
        assert [sum(key in p.range for key in rows) for p in plan] == [p.expected for p in plan]
        assert (plan.ranges[0].range.after, plan.ranges[-1].range.through) == (None, None)
        assert all(50 <= p.expected <= 150 for p in plan)


def test_rows_without_a_key_belong_to_the_first_range_and_are_noted(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=1) as r:
        seed(r.org, 300, null_keys=7, duplicate_keys=5)

        plan, groups = plan_night(r.walls, plan_id=FIRST)

        keyed = [key for key in source_rows(r.org, SOURCE)["ExternalId__c"].to_list() if key is not None]
        assert plan.expected == 300
        assert plan.ranges[0].expected - sum(key in plan.ranges[0].range for key in keyed) == 7
        assert "7 rows have no key and will be quarantined." in plan.notes
        assert "5 rows share their key with another row, as the target matches keys." in plan.notes
        assert groups.height > 0


def test_an_empty_source_is_one_range_of_no_rows(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=0) as r:
        plan = planned(r)

        assert [(p.range.after, p.range.through, p.expected) for p in plan] == [(None, None, 0)]


def test_ranges_that_still_balance_keep_their_names(small: Rehearsal) -> None:
    before = opened(small)
    next_night(small.org, change=0.2, insert=0.1, delete=0.05)

    after = planned(small, SECOND)

    assert [p.partition for p in after] == [p.partition for p in before]
    assert after.expected == 315


def test_a_range_that_has_grown_too_large_splits_and_the_others_keep_their_names(small: Rehearsal) -> None:
    before = opened(small)
    next_night(small.org, change=0.0, insert=0.5)

    after = planned(small, SECOND)

    assert throughs(after)[:2] == throughs(before)[:2]
    assert len(after.ranges) == 4
    assert max(p.expected for p in after) <= 150


def test_a_range_that_has_nearly_vanished_joins_its_neighbour(small: Rehearsal) -> None:
    before = opened(small)
    first = before.ranges[0].range
    rows = source_rows(small.org, SOURCE)
    left = [key not in first or place < 5 for place, key in enumerate(rows["ExternalId__c"].to_list())]
    with small.org.write("source"):
        write_source(small.org, SOURCE, iter([rows.filter(left)]))

    after = planned(small, SECOND)

    assert [p.expected for p in after] == [105, 100]
    assert throughs(after) == throughs(before)[1:]


def test_a_plan_of_another_mapping_is_no_measure_for_this_one(small: Rehearsal) -> None:
    ours = opened(small)
    smaller = {"ranges": ours.ranges[:1], "profile": replace(ours.profile, rows=100)}
    small.walls.book.open_night(replace(ours, plan_id=SECOND, mapping_digest="0" * 16, **smaller))
    next_night(small.org, delete=0.9)

    with pytest.raises(PlanRefused, match="the last plan counted 300"):
        planned(small, "20260612T020000.000000Z")


# What is refused


def test_a_source_that_lost_too_many_rows_is_implausible(small: Rehearsal) -> None:
    plan = opened(small)
    half = replace(plan, ranges=plan.ranges[:1], profile=replace(plan.profile, rows=100))

    check_plausible(plan, None, Policy())
    check_plausible(plan, plan, Policy())
    check_plausible(half, plan, Policy(source_share_min=0.3))
    with pytest.raises(PlanRefused, match="holds 100 rows; the last plan counted 300") as refused:
        check_plausible(half, plan, Policy())

    assert "SYNC_SOURCE_SHARE_MIN" in refused.value.hint


def test_rows_that_come_while_they_are_counted_are_counted_again(small: Rehearsal) -> None:
    def more_rows(request: httpx.Request) -> None:
        if b"GROUP BY" in request.read() and small.wire.count("POST", "/query-sql") < 4:
            next_night(small.org, insert=0.01)

    small.wire.before = more_rows
    plan, _ = make_plan(small.walls, plan_id=FIRST, previous=None)

    assert plan.expected == plan.profile.rows > 300


def test_a_source_that_never_holds_still_is_refused(small: Rehearsal) -> None:
    def more_rows(request: httpx.Request) -> None:
        if request.url.path.endswith("/query-sql"):
            next_night(small.org, insert=0.01)

    small.wire.before = more_rows
    with pytest.raises(PlanRefused, match="counted 2 times") as refused:
        make_plan(small.walls, plan_id=FIRST, previous=None)

    assert "Plan again later" in refused.value.hint


def test_a_column_that_the_source_lacks_is_named_before_anything_is_counted(small: Rehearsal, tmp_path: Path) -> None:
    (tmp_path / "mapping.toml").write_text(PACKAGED_MAPPING.read_text().replace('"Name__c"', '"Nickname__c"'))
    walls = replace(small.walls, mapping=load_mapping(tmp_path / "mapping.toml"))

    with pytest.raises(MappingError, match="Nickname__c"):
        survey(walls)


# Forecast


def test_a_forecast_of_calls_is_never_exceeded_and_not_far_off(small: Rehearsal) -> None:
    night = drive(small.walls, small.night, on_event=lambda line: None)

    forecast = night.plan.forecast
    assert forecast is not None
    assert night.api_calls <= forecast.api_calls <= 3 * night.api_calls


def test_how_long_a_night_takes_is_told_from_the_last_one_that_ended(small: Rehearsal) -> None:
    first = drive(small.walls, small.night, on_event=lambda line: None)
    next_night(small.org, insert=0.5)

    second = planned(small, SECOND)

    assert first.plan.forecast is not None and first.plan.forecast.seconds == 0.0
    assert second.forecast is not None
    assert second.forecast.seconds == pytest.approx(first.seconds * 1.5)
    assert not any("How long" in note for note in second.notes)


def test_shortages_are_told_with_the_setting_that_keeps_the_reserve(small: Rehearsal) -> None:
    plan = planned(small)
    assert plan.forecast is not None
    short = replace(
        plan,
        forecast=replace(plan.forecast, api_calls_left=20_010, ingest_batches_left=1, disk_bytes_free=10),
    )

    reasons = check_forecast(short, Policy())

    assert check_forecast(plan, small.walls.policy) == []
    assert [("SYNC_API_RESERVE" in r, "ingest batches" in r, "bytes of disk" in r) for r in reasons] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_an_org_whose_limits_cannot_be_read_is_planned_with_a_note(small: Rehearsal) -> None:
    small.fault("answer endpoint=limits status=403 code=INSUFFICIENT_ACCESS")

    plan = planned(small)

    assert plan.forecast is not None and plan.forecast.api_calls_left is None
    assert any(note.startswith("The org's limits cannot be read") for note in plan.notes)
    assert check_forecast(plan, small.walls.policy) == []


def test_scheduled_and_running_apex_is_noted(small: Rehearsal) -> None:
    nightly_job = {"CronJobDetail": {"Name": "HourlyOrchestrator"}, "NextFireTime": "2026-06-10T03:00:00.000+0000"}
    batch = {"ApexClass": {"Name": "MassiveUpload"}, "JobType": "BatchApex", "Status": "Processing"}

    def answered(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        asked = request.url.params.get("q", "")
        for name, record in (("CronTrigger", nightly_job), ("AsyncApexJob", batch)):
            if f"FROM {name}" in asked:
                return httpx.Response(200, json={"totalSize": 1, "done": True, "records": [record]})
        return answer

    small.wire.after = answered

    notes = planned(small).notes

    assert "Scheduled Apex HourlyOrchestrator, next at 2026-06-10T03:00:00.000+0000." in notes
    assert "BatchApex of Apex class MassiveUpload is Processing." in notes


def test_what_this_user_may_not_see_of_others_is_said(small: Rehearsal) -> None:
    small.fault("answer endpoint=jobs status=403 code=INSUFFICIENT_ACCESS")

    notes = planned(small).notes

    assert any(note.startswith("Ingest jobs of others cannot be seen by this user") for note in notes)


def test_data_storage_is_forecast_for_rows_that_the_org_does_not_hold(small: Rehearsal) -> None:
    small.org.set_setting("limits", {"DataStorageMB": {"Max": 10, "Used": 10}})

    plan = planned(small)

    assert plan.forecast is not None
    assert (plan.forecast.storage_mb, plan.forecast.storage_mb_left) == (1, 0)
    assert check_forecast(plan, small.walls.policy) == [
        "About 1 MB of the org's data storage are needed for new rows; 0 MB are left."
    ]
