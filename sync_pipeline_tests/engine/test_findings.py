"""The checks of a plan, a range and a night: each passes for one reason and fails for one reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sync_pipeline.domain.errors import PlanRefused
from sync_pipeline.domain.keys import KeyRange
from sync_pipeline.domain.ledger import Counts, RangeState
from sync_pipeline.domain.night import Measurement, NightEntry, RangeEntry
from sync_pipeline.domain.plan import Forecast, OrgIdentity, Plan, PlannedRange, SourceProfile
from sync_pipeline.domain.policy import Policy
from sync_pipeline.engine.findings import Finding, deadline_at, night_findings, plan_findings, range_findings

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
        (None, ["present_equals_expected", "values_equal"]),
        (
            Measurement("values", OPENED, 1.0, 10, error="the org did not answer"),
            ["present_equals_expected", "values_equal"],
        ),
    ],
)
def test_a_night_is_judged_by_its_measurement(measurement: Measurement | None, checks: list[str]) -> None:
    assert failed(night_findings(replace(NIGHT, measurement=measurement), [DONE], Policy())) == checks


def test_a_range_that_was_given_up_is_named() -> None:
    findings = night_findings(NIGHT, [DONE, replace(DONE, partition="m-2", state=RangeState.GIVEN_UP)], Policy())
    assert failed(findings) == ["every_range_done"]
    assert "m-2 is given up" in findings[0].message


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
