"""The checks of a plan, a range and a night: each passes for one reason and fails for one reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.domain.errors import PlanRefused
from sync_pipeline.domain.keys import KeyRange
from sync_pipeline.domain.ledger import Counts, RangeState, Verdict
from sync_pipeline.domain.night import Measurement, NightEntry, RangeEntry
from sync_pipeline.domain.plan import Forecast, OrgIdentity, Plan, PlannedRange, SourceProfile
from sync_pipeline.domain.policy import Policy
from sync_pipeline.engine.alerting import failing_of
from sync_pipeline.engine.deciding import judge
from sync_pipeline.engine.findings import Finding, deadline_at, night_findings, plan_findings, range_findings
from sync_pipeline.engine.night import is_clean

OPENED = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
FORECAST = Forecast(api_calls=100, ingest_batches=1, disk_bytes=1, seconds=1.0, api_calls_left=1000, api_calls_max=2000)
PLAN = Plan(
    plan_id="20260301T020000.000000Z",
    org=OrgIdentity("00D000000000001AAA", "Acme", is_simulated=False, dataspace="default"),
    source_object="ExtOpportunities__dlm",
    target_object="Opportunity",
    mapping_digest="0" * 16,
    profile=SourceProfile(10, 0, 10, 10, 0, "a", "z"),
    ranges=(PlannedRange(0, KeyRange(), 10),),
    created_at=OPENED,
    forecast=FORECAST,
)
DONE = RangeEntry("end-1", 0, RangeState.DONE, Counts(expected=10, staged=10, created=8, updated=2))
EQUAL = Measurement(
    level="values", measured_at=OPENED + timedelta(hours=1), seconds=1.0, expected=10, present=10, missing=0,
    different=0, orphans=0,
)  # fmt: skip
NIGHT = NightEntry(plan=PLAN, opened_at=OPENED, measurement=EQUAL, api_calls=90)


def failed(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.name for finding in findings if not finding.passed]


def test_a_range_whose_rows_all_arrived_passes_every_check() -> None:
    assert failed(range_findings(DONE)) == []


@pytest.mark.parametrize(
    ("counts", "check", "severity"),
    [
        (Counts(expected=10, staged=10, created=9), "every_staged_row_has_one_outcome", "error"),
        (Counts(expected=11, staged=10, created=10), "staged_equals_expected", "error"),
        (Counts(expected=10, staged=10, created=9, failed=1), "no_row_rejected", "warning"),
    ],
)
def test_each_check_of_a_range_fails_for_its_own_reason(counts: Counts, check: str, severity: str) -> None:
    findings = range_findings(replace(DONE, counts=counts))
    assert failed(findings) == [check]
    assert [f.severity for f in findings if not f.passed] == [severity]


def test_rows_set_aside_by_a_declared_rule_are_not_rejected() -> None:
    counts = Counts(expected=10, staged=10, created=9, quarantined=1, set_aside=1)
    assert failed(range_findings(replace(DONE, counts=counts))) == []


def test_an_equal_night_passes_every_check() -> None:
    assert failed(night_findings(NIGHT, [DONE], Policy())) == []


@pytest.mark.parametrize(
    ("measurement", "checks"),
    [
        (replace(EQUAL, missing=1), ["present_equals_expected"]),
        (replace(EQUAL, different=1), ["values_equal"]),
        (replace(EQUAL, orphans=7, present=17), []),
        (replace(EQUAL, level="keys", different=None), []),
        (None, ["rows_compared", "present_equals_expected", "values_equal"]),
        (replace(EQUAL, expected=9), ["every_row_accounted"]),
        (replace(EQUAL, expected=0, orphans=10), ["every_row_accounted", "rows_compared"]),
        (
            Measurement("values", OPENED, 1.0, 10, error="the org did not answer"),
            ["rows_compared", "present_equals_expected", "values_equal"],
        ),
    ],
)
def test_a_night_is_judged_by_its_measurement(measurement: Measurement | None, checks: list[str]) -> None:
    assert failed(night_findings(replace(NIGHT, measurement=measurement), [DONE], Policy())) == checks


def test_a_range_that_was_given_up_is_named() -> None:
    findings = night_findings(NIGHT, [DONE, replace(DONE, partition="m-2", state=RangeState.GIVEN_UP)], Policy())
    assert failed(findings) == ["every_range_done"]
    assert "m-2 is given up" in findings[0].message


NOTHING = Measurement("values", OPENED, 1.0, expected=0, present=0, missing=0, different=0, orphans=0)


@pytest.mark.parametrize("level", ["values", "keys", "counts"])
@pytest.mark.parametrize(
    ("present", "counts", "is_proof"),
    [
        (0, Counts(), True),
        (7, Counts(), False),
        (0, Counts(expected=10, staged=10, quarantined=10), False),
        (7, Counts(expected=10, staged=10, quarantined=10), False),
        (7, Counts(expected=10, staged=10, quarantined=10, set_aside=10), False),
    ],
)
def test_nothing_is_proven_by_nothing_unless_both_sides_are_empty(
    level: str, present: int, counts: Counts, is_proof: bool
) -> None:
    night = replace(NIGHT, measurement=replace(NOTHING, level=level, present=present))
    ranges = [replace(DONE, counts=counts)]

    verdict, reasons = judge(night, ranges)

    assert failed(night_findings(night, ranges, Policy())) == ([] if is_proof else ["rows_compared"])
    assert verdict.is_clean is is_proof
    if not is_proof:
        assert verdict is Verdict.NOT_RECONCILED
        assert "the data space (default), at the rights of the run-as user" in reasons[0]


COUNTED = st.integers(0, 3)
COUNTS = st.builds(
    Counts, expected=COUNTED, staged=COUNTED, created=COUNTED, updated=COUNTED, failed=COUNTED, quarantined=COUNTED
)


@given(
    states=st.lists(
        st.tuples(st.sampled_from([RangeState.DONE, RangeState.GIVEN_UP, RangeState.HELD]), COUNTS),
        min_size=1,
        max_size=3,
    ),
    measurement=st.builds(
        Measurement,
        level=st.sampled_from(["values", "keys", "counts"]),
        measured_at=st.just(OPENED),
        seconds=st.just(1.0),
        expected=st.integers(0, 9),
        present=st.integers(0, 9),
        missing=st.integers(0, 1),
        different=st.none() | st.integers(0, 1),
        doubled=st.none() | st.integers(0, 1),
        orphans=st.none() | st.integers(0, 2),
    ),
)
def test_verdict_checks_alert_and_exit_code_agree_on_every_measured_night(
    states: list[tuple[RangeState, Counts]], measurement: Measurement
) -> None:
    ranges = [replace(DONE, partition=f"p-{n}", state=state, counts=counts) for n, (state, counts) in enumerate(states)]
    night = replace(NIGHT, measurement=measurement)

    verdict, reasons = judge(night, ranges)

    ended = replace(night, verdict=verdict, verdict_reasons=reasons)
    failing = failed(night_findings(ended, ranges, Policy()))
    told = failing_of(ended, ranges, Policy())
    assert bool(failing) is (verdict is Verdict.NOT_RECONCILED)
    assert {check.split(" ")[0] for check in told} - {"no_row_rejected"} == set(failing)
    assert is_clean(ended) is (told == ())


def test_rows_that_were_saved_and_not_compared_fail_every_judge() -> None:
    ranges = [replace(DONE, partition=name, counts=Counts(expected=10, staged=10, created=10)) for name in ("a", "b")]
    night = replace(NIGHT, measurement=replace(EQUAL, expected=18, present=18))

    verdict, reasons = judge(night, ranges)

    assert (verdict, reasons) == (Verdict.NOT_RECONCILED, ("20 rows saved, 18 compared",))
    assert failed(night_findings(night, ranges, Policy())) == ["every_row_accounted"]
    assert failing_of(replace(night, verdict=verdict), ranges, Policy()) == ("every_row_accounted",)


def test_calls_out_of_the_reserve_break_the_budget() -> None:
    # 1,000 calls were left, 20 % of 2,000 are kept: 600 may be used.
    assert failed(night_findings(replace(NIGHT, api_calls=600), [DONE], Policy())) == []
    assert failed(night_findings(replace(NIGHT, api_calls=601), [DONE], Policy())) == ["api_budget_kept"]


def test_a_night_after_its_deadline_is_late() -> None:
    late = Policy(deadline="02:30")
    assert failed(night_findings(NIGHT, [DONE], late)) == ["ended_in_time"]
    assert failed(night_findings(NIGHT, [DONE], Policy(deadline="03:00"))) == []


def test_the_deadline_is_the_first_one_after_the_opening_in_its_own_zone() -> None:
    assert deadline_at(OPENED, Policy()) is None
    assert deadline_at(OPENED, Policy(deadline="06:00")) == datetime(2026, 3, 1, 6, 0, tzinfo=UTC)
    assert deadline_at(OPENED, Policy(deadline="02:00")) == datetime(2026, 3, 2, 2, 0, tzinfo=UTC)
    berlin = Policy(deadline="06:00", timezone="Europe/Berlin")
    assert deadline_at(OPENED, berlin) == datetime(2026, 3, 1, 5, 0, tzinfo=UTC)


def test_a_refused_plan_is_an_implausible_source() -> None:
    assert failed(plan_findings(PLAN)) == []
    assert failed(plan_findings(PlanRefused("The source holds 1 row."))) == ["source_plausible"]
