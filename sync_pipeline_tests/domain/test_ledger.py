"""Counts add up, and states say of themselves what may be done with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.domain.ledger import Counts, JobState, RangeState, Verdict

rows = st.integers(min_value=0, max_value=10_000_000)
some_counts = st.builds(
    Counts,
    expected=rows, staged=rows, created=rows, updated=rows, failed=rows, unprocessed=rows, quarantined=rows, set_aside=rows,
)  # fmt: skip


@given(some_counts, some_counts, some_counts)
def test_counts_of_ranges_add_up_in_any_order(one: Counts, two: Counts, three: Counts) -> None:
    assert one + two == two + one
    assert (one + two) + three == one + (two + three)
    assert one + Counts() == one


@given(some_counts, some_counts)
def test_what_is_told_of_a_night_is_the_sum_of_what_is_told_of_its_ranges(one: Counts, two: Counts) -> None:
    ranges = [one.to_json(), two.to_json()]

    assert (one + two).to_json() == {name: sum(told[name] for told in ranges) for name in ranges[0]}


@given(some_counts)
def test_every_row_that_has_an_outcome_is_in_exactly_one_of_the_four(counts: Counts) -> None:
    four = counts.succeeded + counts.failed + counts.unprocessed + counts.quarantined

    assert counts.accounted == four
    assert counts.adds_up == (counts.staged == four)
    assert counts.rejected == four - counts.succeeded - counts.set_aside


def test_rows_set_aside_by_a_declared_rule_are_quarantined_but_not_rejected() -> None:
    counts = Counts(expected=10, staged=10, created=5, updated=2, failed=1, quarantined=2, set_aside=2)

    assert counts.adds_up
    assert (counts.succeeded, counts.rejected) == (7, 1)


def test_a_job_is_terminal_when_salesforce_will_not_touch_it_again() -> None:
    terminal = {state for state in JobState if state.is_terminal}

    assert terminal == {JobState.JOB_COMPLETE, JobState.FAILED, JobState.ABORTED}


@pytest.mark.parametrize("state", RangeState)
def test_a_range_is_never_both_running_and_settled(state: RangeState) -> None:
    assert not (state.is_active and state.is_settled)


def test_ranges_that_wait_for_another_run_are_not_settled() -> None:
    waiting = {state for state in RangeState if not state.is_settled and not state.is_active}

    assert waiting == {RangeState.PLANNED, RangeState.FAILED, RangeState.DRIFTING, RangeState.PARKED}


def test_only_the_best_verdict_of_each_level_is_clean() -> None:
    clean = {verdict for verdict in Verdict if verdict.is_clean}

    assert clean == {Verdict.RECONCILED, Verdict.PRESENT, Verdict.COUNTED}
