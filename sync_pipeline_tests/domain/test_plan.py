"""A plan survives being written down, refuses to exist when it does not add up, and belongs to one org."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.domain.errors import PlanRefused, WrongOrg
from sync_pipeline.domain.keys import KeyRange, cover
from sync_pipeline.domain.mapping import Mapping, load_mapping
from sync_pipeline.domain.plan import Forecast, OrgIdentity, Plan, PlannedRange, SourceProfile, new_plan_id
from sync_pipeline.settings import PACKAGED_MAPPING

NOW = datetime(2026, 3, 4, 2, 0, 0, 123456, tzinfo=UTC)
ORG = OrgIdentity(org_id="00D000000000001EAA", name="simulated org", is_simulated=True, dataspace="default")
MAPPING = load_mapping(PACKAGED_MAPPING)


def planned(edges: list[str], expected: list[int]) -> tuple[PlannedRange, ...]:
    return tuple(
        PlannedRange(place=place, range=key_range, expected=rows)
        for place, (key_range, rows) in enumerate(zip(cover(edges), expected, strict=True))
    )


def plan_of(ranges: tuple[PlannedRange, ...], *, rows: int | None = None, forecast: Forecast | None = None) -> Plan:
    counted = sum(r.expected for r in ranges) if rows is None else rows
    return Plan(
        plan_id=new_plan_id(NOW),
        org=ORG,
        source_object=MAPPING.source_object,
        target_object=MAPPING.target_object,
        mapping_digest=MAPPING.digest,
        profile=SourceProfile(
            rows=counted,
            null_keys=0,
            distinct_keys=counted,
            matched_keys=counted,
            blank_keys=0,
            min_key="a",
            max_key="z",
        ),
        ranges=ranges,
        created_at=NOW,
        forecast=forecast,
    )


# laws

counts = st.integers(min_value=0, max_value=10_000_000)
forecasts = st.builds(
    Forecast,
    api_calls=counts,
    ingest_batches=counts,
    disk_bytes=counts,
    seconds=st.floats(0, 1e6),
    api_calls_left=counts,
)
edges_of_plans = st.lists(st.text(max_size=5), max_size=6, unique=True).map(sorted)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    edges = draw(edges_of_plans)
    expected = draw(st.lists(counts, min_size=len(edges) + 1, max_size=len(edges) + 1))
    plan = plan_of(planned(edges, expected), forecast=draw(st.none() | forecasts))
    offset = timezone(timedelta(minutes=draw(st.integers(-720, 720))))
    return replace(
        plan, notes=tuple(draw(st.lists(st.text(max_size=20), max_size=3))), created_at=NOW.astimezone(offset)
    )


@given(plans())
def test_a_plan_survives_being_written_down(plan: Plan) -> None:
    assert Plan.from_json(plan.to_json()) == plan


@given(plans(), st.text(max_size=5))
def test_the_ranges_that_cover_a_key_now_are_found_from_any_older_range_that_held_it(plan: Plan, key: str) -> None:
    older = KeyRange(None, key)

    covering = plan.covering(older)

    assert any(key in r.range for r in covering)
    assert covering == tuple(r for r in plan if r in covering)


@given(plans())
def test_every_range_is_found_by_its_partition_key_and_no_other_is(plan: Plan) -> None:
    for r in plan:
        assert plan.range(r.partition) is r
    assert plan.range("no-such-range") is None


instants = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(9999, 12, 31))


@given(instants, instants)
def test_plan_ids_sort_like_the_instants_they_name(one: datetime, other: datetime) -> None:
    first, second = one.replace(tzinfo=UTC), other.replace(tzinfo=UTC)

    assert (new_plan_id(first) < new_plan_id(second)) == (first < second)


# cases


def test_a_plan_id_is_the_utc_instant_of_its_opening() -> None:
    berlin = timezone(timedelta(hours=1))

    assert new_plan_id(datetime(2026, 3, 4, 3, 0, 0, 123456, tzinfo=berlin)) == "20260304T020000.123456Z"


def test_a_plan_whose_ranges_do_not_hold_all_rows_of_the_source_is_refused() -> None:
    with pytest.raises(PlanRefused, match="The ranges hold 30 rows, the source holds 31"):
        plan_of(planned(["m"], [10, 20]), rows=31)


def test_a_plan_in_which_two_ranges_share_a_partition_key_is_refused() -> None:
    twice = (PlannedRange(0, KeyRange(None, "m"), 1), PlannedRange(1, KeyRange(None, "m"), 1))

    with pytest.raises(PlanRefused, match="one partition key"):
        plan_of(twice)


def test_a_plan_of_an_empty_source_is_one_range_without_rows() -> None:
    plan = plan_of(planned([], [0]))

    assert (len(plan.ranges), plan.expected) == (1, 0)


def test_a_plan_belongs_to_its_own_org_and_mapping() -> None:
    plan_of(planned([], [1])).check_belongs(ORG, MAPPING)


@pytest.mark.parametrize(
    ("org", "mapping", "named"),
    [
        (replace(ORG, org_id="00D000000000002EAA"), MAPPING, "00D000000000002EAA"),
        (replace(ORG, dataspace="sales"), MAPPING, "sales"),
        (ORG, replace(MAPPING, source_object="Other__dlm"), "Other__dlm"),
        (ORG, replace(MAPPING, group_by=None), replace(MAPPING, group_by=None).digest),
    ],
)
def test_a_plan_refuses_another_org_data_space_source_or_mapping(
    org: OrgIdentity, mapping: Mapping, named: str
) -> None:
    plan = plan_of(planned([], [1]))

    with pytest.raises(WrongOrg, match=named) as refusal:
        plan.check_belongs(org, mapping)

    assert refusal.value.exit_code == 2


def test_another_name_of_the_same_org_is_the_same_org() -> None:
    plan_of(planned([], [1])).check_belongs(replace(ORG, name="renamed"), MAPPING)


@pytest.mark.parametrize(
    ("matched", "nulls", "blanks", "has_duplicates"),
    [(10, 0, 0, False), (9, 0, 0, True), (8, 2, 0, False), (7, 2, 0, True), (8, 1, 1, False), (7, 1, 1, True)],
)
def test_duplicates_are_rows_beyond_the_keys_that_the_target_can_tell_apart(
    matched: int, nulls: int, blanks: int, has_duplicates: bool
) -> None:
    profile = SourceProfile(
        rows=10, null_keys=nulls, distinct_keys=10, matched_keys=matched, blank_keys=blanks, min_key="a", max_key="z"
    )

    assert profile.keyed_rows == 10 - nulls
    assert profile.has_duplicates is has_duplicates
