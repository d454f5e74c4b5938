"""The course of a night as one pure function: each rule, the order in which they count, and that every night ends."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_pipeline.domain.keys import cover
from sync_pipeline.domain.ledger import Counts, RangeState, Verdict
from sync_pipeline.domain.night import Measurement, NightEntry, RangeEntry
from sync_pipeline.domain.plan import OrgIdentity, Plan, PlannedRange, SourceProfile
from sync_pipeline.domain.policy import Policy
from sync_pipeline.engine.deciding import (
    Action,
    Conclude,
    GiveUp,
    Hold,
    Launch,
    Measure,
    NightView,
    RangeView,
    Repair,
    ReportDead,
    RunFact,
    decide,
    judge,
)
from sync_pipeline.engine.night import is_clean

NOW = datetime(2026, 6, 10, 3, 0, tzinfo=UTC)
OPENED = NOW - timedelta(hours=1)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
ROWS = Counts(expected=10, staged=10, created=4, updated=6)
RANGES = cover(["b"])
A, B = (r.partition for r in RANGES)
PLAN = Plan(
    plan_id="20260610T020000.000000Z",
    org=OrgIdentity("00D000000000001AAA", "Bank", is_simulated=False, dataspace="default"),
    source_object="ExtOpportunities__dlm",
    target_object="Opportunity",
    mapping_digest="0" * 16,
    profile=SourceProfile(20, 0, 20, 20, 0, "a", "c"),
    ranges=tuple(PlannedRange(place, key_range, 10) for place, key_range in enumerate(RANGES)),
    created_at=OPENED,
)
NIGHT = NightEntry(plan=PLAN, opened_at=OPENED)
EQUAL = Measurement("values", NOW, 1.0, expected=20, present=20, missing=0, different=0, orphans=0)
DRIFT = replace(EQUAL, missing=1, present=19, drifting=(A,))
ENDED_AT = NOW - 10 * MINUTE


def entry(partition: str = A, state: RangeState = RangeState.DONE, **changes: Any) -> RangeEntry:
    """A range as the book has it; one that is done finished ten minutes ago."""
    is_done = state is RangeState.DONE
    made = RangeEntry(
        partition=partition,
        place=0,
        state=state,
        counts=ROWS if is_done else Counts(expected=10),
        finished_at=ENDED_AT if is_done else None,
        heartbeat_at=ENDED_AT if is_done else None,
    )
    return replace(made, **changes)


def view(*ranges: RangeEntry, night: NightEntry = NIGHT, locked: tuple[str, ...] = (), **facts: Any) -> NightView:
    runs: Mapping[str, RunFact | None] = {A: facts.pop("run_a", None), B: facts.pop("run_b", None)}
    return NightView(
        night=night,
        ranges=tuple(RangeView(e, is_locked=e.partition in locked, run=runs[e.partition]) for e in ranges),
        policy=Policy(),
        now=NOW,
        **facts,
    )


def run(status: str, minutes_ago: float = 1, **changes: Any) -> RunFact:
    return replace(RunFact("run", status, NOW - minutes_ago * MINUTE), **changes)  # type: ignore[arg-type]


def actions(seen: NightView) -> tuple[Action, ...]:
    return decide(seen).actions


def measured(found: Measurement, *, runs: int = 0) -> NightEntry:
    """A night that was measured when so many runs had begun."""
    return replace(NIGHT, measurement=found, measured_runs=runs)


def judged(verdict: Verdict, found: Measurement | None = EQUAL, *, runs: int = 0) -> NightEntry:
    """A night that was measured and got its verdict when so many runs had begun."""
    return replace(
        NIGHT,
        measurement=found,
        measured_runs=runs if found else None,
        verdict=verdict,
        verdict_at=NOW,
        verdict_runs=runs,
    )


DONE = (entry(A), entry(B))
FRESH = (entry(A, RangeState.PLANNED), entry(B, RangeState.PLANNED))


# Driven elsewhere, stopped


def test_while_a_terminal_drives_the_night_the_sensor_only_tells() -> None:
    dying = entry(A, RangeState.READING, run_id="run", heartbeat_at=ENDED_AT)

    seen = view(dying, entry(B, RangeState.PLANNED), run_a=run("started", 60), is_driven=True)

    assert actions(seen) == ()
    assert decide(seen).line == "0/2 done, 1 running; driven from a terminal"


@pytest.mark.parametrize(
    "seen",
    [
        view(*FRESH),
        view(entry(A, RangeState.FAILED, attempts=9), entry(B)),
        view(entry(A, RangeState.READING, run_id="run"), entry(B), run_a=run("started", 60)),
        view(entry(A, RangeState.FAILED), entry(B), run_a=run("canceled")),
        view(*DONE),
        view(*DONE, night=measured(DRIFT)),
        view(*DONE, night=measured(EQUAL)),
        view(*DONE, night=replace(NIGHT, measure_tries=3)),
        view(*FRESH, night=replace(NIGHT, parked_until=NOW)),
    ],
)
def test_a_stop_comes_before_every_rule_and_ends_when_it_is_lifted(seen: NightView) -> None:
    stopped = replace(seen, night=replace(seen.night, stop_requested_at=NOW))

    assert actions(stopped) == ()
    assert "stopped" in decide(stopped).line
    assert actions(seen) != ()


# Runs that died


RUNNING = entry(A, RangeState.READING, runs=1, run_id="run", heartbeat_at=NOW - MINUTE)


def test_a_run_that_is_started_and_silent_without_its_lock_has_died() -> None:
    assert actions(view(RUNNING, entry(B, RangeState.PLANNED), run_a=run("started", 2))) == (
        ReportDead(f"range {A}", "run"),
    )


@pytest.mark.parametrize(
    ("why", "seen"),
    [
        ("it has just started", view(RUNNING, entry(B), run_a=run("started", 1.9))),
        ("it holds its lock", view(RUNNING, entry(B), run_a=run("started", 60), locked=(A,))),
        ("it has just been heard of", view(replace(RUNNING, heartbeat_at=NOW - 29 * SECOND), entry(B), run_a=run("started", 60))),
        ("it waits for its place", view(RUNNING, entry(B), run_a=run("queued", 60))),
        ("a person is cancelling it", view(RUNNING, entry(B), run_a=run("canceling", 60))),
        ("it may still be logging in", view(replace(RUNNING, run_id="earlier"), entry(B), run_a=run("started", 5.9))),
        ("it did its work a minute ago", view(
            entry(A, run_id="run", heartbeat_at=NOW - MINUTE), entry(B), run_a=run("started", 60),
        )),
    ],
)  # fmt: skip
def test_a_run_has_not_died_while(why: str, seen: NightView) -> None:
    assert not any(isinstance(action, ReportDead) for action in actions(seen)), why


def test_a_run_that_never_came_to_the_book_has_died_when_the_longest_login_is_over() -> None:
    assert actions(view(*FRESH, run_a=run("started", 6))) == (ReportDead(f"range {A}", "run"),)


def test_a_run_that_hangs_after_its_range_was_done_is_ended_so_that_the_night_goes_on() -> None:
    done = entry(A, run_id="run", heartbeat_at=NOW - 2 * MINUTE)

    assert actions(view(done, entry(B), run_a=run("started", 60))) == (ReportDead(f"range {A}", "run"),)


def test_dead_runs_come_before_everything_that_is_not_a_stop() -> None:
    canceled_beside = view(
        RUNNING, entry(B, RangeState.FAILED, attempts=3), run_a=run("started", 5), run_b=run("canceled")
    )

    assert actions(canceled_beside) == (ReportDead(f"range {A}", "run"),)


# Cancelled by a person


def test_a_range_whose_run_was_cancelled_is_held_whatever_its_attempts() -> None:
    seen = view(entry(A, RangeState.FAILED, runs=1, attempts=3), entry(B, RangeState.PLANNED), run_a=run("canceled"))

    assert actions(seen) == (Hold(A),)


@pytest.mark.parametrize("state", [RangeState.PLANNED, RangeState.READING, RangeState.PARKED, RangeState.DRIFTING])
def test_a_cancelled_range_is_held_in_whatever_state_it_was_left(state: RangeState) -> None:
    assert actions(view(entry(A, state), entry(B), run_a=run("canceled"))) == (Hold(A),)


def test_a_cancelled_run_of_a_range_that_is_done_changes_nothing() -> None:
    assert actions(view(*DONE, run_a=run("canceled"))) == (Measure(1),)


def test_a_held_range_is_launched_again_when_a_person_wants_it() -> None:
    rearmed = entry(A, RangeState.PLANNED, runs=1, rearmed_at=NOW)

    assert actions(view(rearmed, entry(B), run_a=run("canceled"))) == (Launch(A, 2),)


def test_a_range_that_is_cancelled_again_is_held_again() -> None:
    rearmed = entry(A, RangeState.FAILED, runs=2, rearmed_at=NOW - 2 * MINUTE)

    assert actions(view(rearmed, entry(B), run_a=run("canceled", 1, runs=2))) == (Hold(A),)


# Launching and giving up


def test_every_range_of_a_new_night_is_launched() -> None:
    assert actions(view(*FRESH)) == (Launch(A, 1), Launch(B, 1))
    assert decide(view(*FRESH)).line == "0/2 done"


def test_a_running_range_is_left_alone_and_an_idle_one_beside_it_is_launched() -> None:
    seen = view(entry(A, RangeState.READING, runs=1), entry(B, RangeState.PLANNED), locked=(A,))

    assert actions(seen) == (Launch(B, 1),)
    assert decide(seen).line == "0/2 done, 1 running"


@pytest.mark.parametrize("status", ["queued", "started", "canceling"])
def test_a_range_with_an_active_run_is_not_launched_again(status: str) -> None:
    assert actions(view(entry(A, RangeState.PLANNED), entry(B), run_a=run(status, 1))) == ()


def test_a_run_has_a_number_that_no_run_before_it_had() -> None:
    assert actions(view(entry(A, RangeState.PARKED, runs=2), entry(B))) == (Launch(A, 3),)
    assert actions(view(entry(A, RangeState.PARKED, runs=2), entry(B), run_a=run("ended", runs=5))) == (Launch(A, 6),)


@pytest.mark.parametrize(("attempts", "pause"), [(1, timedelta(seconds=15)), (2, timedelta(minutes=2))])
def test_a_range_that_failed_rests_the_longer_the_more_often_it_failed(attempts: int, pause: timedelta) -> None:
    failed = entry(A, RangeState.FAILED, runs=attempts, attempts=attempts, heartbeat_at=NOW - pause)
    too_early = replace(failed, heartbeat_at=NOW - pause + SECOND)

    assert actions(view(failed, entry(B))) == (Launch(A, attempts + 1),)
    assert actions(view(too_early, entry(B))) == ()
    assert decide(view(too_early, entry(B))).again_at == NOW + SECOND


def test_a_resting_range_keeps_no_other_one_waiting() -> None:
    resting = entry(A, RangeState.FAILED, runs=1, attempts=1, heartbeat_at=NOW)

    decision = decide(view(resting, entry(B, RangeState.PLANNED)))

    assert decision.actions == (Launch(B, 1),)
    assert decision.again_at == NOW + 15 * SECOND


def test_a_run_that_failed_before_it_came_to_the_book_rests_from_its_own_end() -> None:
    seen = view(entry(A, RangeState.PLANNED), entry(B), run_a=run("ended", 0.1, failed=1))

    assert actions(seen) == ()
    assert actions(replace(seen, now=NOW + 9 * SECOND)) == (Launch(A, 2),)


def test_a_stopped_or_parked_run_was_no_attempt_and_needs_no_rest() -> None:
    assert actions(view(entry(A, RangeState.FAILED, runs=1, heartbeat_at=NOW), entry(B))) == (Launch(A, 2),)


def test_a_range_at_the_cap_is_given_up_with_its_last_reason() -> None:
    seen = view(entry(A, RangeState.FAILED, runs=3, attempts=3, error="no route"), entry(B, RangeState.PLANNED))

    assert actions(seen) == (GiveUp(A, "3 runs failed, the last: no route"),)


@pytest.mark.parametrize(
    "seen",
    [
        view(entry(A, RangeState.PLANNED), entry(B), run_a=run("ended", runs=3, failed=3)),
        view(entry(A, RangeState.FAILED, runs=2, attempts=2), entry(B), run_a=run("ended", runs=3, failed=1)),
        view(entry(A, RangeState.LOADING, runs=3, attempts=2), entry(B)),
        view(entry(A, RangeState.READING, runs=2, attempts=1), entry(B), run_a=run("ended", runs=3, failed=1)),
        view(entry(A, RangeState.PLANNED), entry(B), run_a=run("ended", runs=50, failed=50)),
    ],
)
def test_runs_that_were_killed_or_never_came_to_the_book_count_as_attempts(seen: NightView) -> None:
    (action,) = actions(seen)

    assert isinstance(action, GiveUp)


def test_a_range_that_runs_at_the_cap_is_given_up_only_when_it_has_ended() -> None:
    assert actions(view(entry(A, RangeState.READING, attempts=3), entry(B), locked=(A,))) == ()


def test_only_the_ranges_that_were_asked_for_are_launched_and_the_night_is_not_measured_without_the_others() -> None:
    assert actions(view(*FRESH, only=frozenset({B}))) == (Launch(B, 1),)

    seen = view(entry(A, RangeState.PLANNED), entry(B), only=frozenset({B}))
    assert actions(seen) == ()
    assert decide(seen).line == "1/2 done; 1 not asked for"


# Parked


PARKED = replace(NIGHT, parked_until=NOW + 5 * MINUTE, parked_reason="no API calls left")
OVER = replace(PARKED, parked_until=NOW)
BOTH_PARKED = (entry(A, RangeState.PARKED, runs=1), entry(B, RangeState.PARKED, runs=1))


def test_a_parked_night_launches_nothing_until_its_time() -> None:
    decision = decide(view(entry(A, RangeState.PARKED), entry(B, RangeState.PLANNED), night=PARKED))

    assert (decision.actions, decision.again_at) == ((), PARKED.parked_until)
    assert decision.line == "0/2 done, 1 parked; parked until 03:05 UTC: no API calls left"


def test_one_range_probes_when_the_parking_is_over_and_the_others_wait_for_it() -> None:
    assert actions(view(*BOTH_PARKED, night=OVER)) == (Launch(A, 2),)
    assert actions(view(*BOTH_PARKED, night=OVER, locked=(A,))) == ()


def test_the_others_follow_a_probe_that_got_through() -> None:
    assert actions(view(entry(A), entry(B, RangeState.PARKED, runs=1))) == (Launch(B, 2),)


def test_the_probe_is_one_of_the_ranges_that_were_asked_for() -> None:
    assert actions(view(*BOTH_PARKED, night=OVER, only=frozenset({B}))) == (Launch(B, 2),)


def test_a_range_at_the_cap_is_given_up_while_the_night_is_parked() -> None:
    seen = view(entry(A, RangeState.FAILED, attempts=3, error="no route"), BOTH_PARKED[1], night=PARKED)

    assert actions(seen) == (GiveUp(A, "3 runs failed, the last: no route"),)


def test_a_night_that_is_parked_is_not_measured_until_its_time() -> None:
    assert actions(view(*DONE, night=PARKED)) == ()
    assert decide(view(*DONE, night=PARKED)).again_at == PARKED.parked_until
    assert actions(view(*DONE, night=OVER)) == (Measure(1),)


# Measuring


def test_the_org_is_measured_when_the_last_range_is_settled() -> None:
    assert actions(view(*DONE)) == (Measure(1),)
    assert actions(view(entry(A), entry(B, RangeState.GIVEN_UP))) == (Measure(1),)
    assert actions(view(entry(A, RangeState.HELD), entry(B, RangeState.HELD))) == (Measure(1),)
    assert actions(view(*DONE, locked=(A,))) == ()
    assert actions(view(*DONE, run_b=run("queued"))) == ()


def test_a_measurement_that_goes_on_is_not_started_twice() -> None:
    assert actions(view(*DONE, measure_run=run("started"))) == ()
    assert actions(view(*DONE, measure_run=run("queued", 60))) == ()
    assert actions(view(*DONE, is_measuring=True)) == ()
    assert decide(view(*DONE, is_measuring=True)).line == "2/2 done; measuring"


@pytest.mark.parametrize("state", [RangeState.DONE, RangeState.GIVEN_UP, RangeState.HELD])
def test_the_org_is_measured_again_after_every_run_however_it_ended(state: RangeState) -> None:
    seen = view(entry(A, state, runs=2), entry(B, runs=1))

    assert actions(replace(seen, night=measured(EQUAL, runs=2))) == (Measure(1),)
    assert isinstance(actions(replace(seen, night=measured(EQUAL, runs=3)))[0], Conclude)


def test_a_clock_that_was_set_back_does_not_make_a_measurement_stale() -> None:
    ahead = entry(A, runs=1, finished_at=NOW + timedelta(hours=1), heartbeat_at=NOW + timedelta(hours=1))

    assert actions(view(ahead, entry(B), night=measured(EQUAL, runs=1))) == (Conclude(Verdict.RECONCILED, ()),)


def test_a_measurement_that_failed_is_taken_again_after_a_rest() -> None:
    failed = replace(NIGHT, measure_tries=1, measure_seen_at=NOW - 14 * SECOND)

    assert actions(view(*DONE, night=failed)) == ()
    assert decide(view(*DONE, night=failed)).again_at == NOW + SECOND
    assert actions(replace(view(*DONE, night=failed), now=NOW + SECOND)) == (Measure(2),)


def test_an_org_that_cannot_be_measured_leaves_the_night_unproven() -> None:
    (conclusion,) = actions(view(*DONE, night=replace(NIGHT, measure_tries=3)))

    assert conclusion == Conclude(Verdict.UNPROVEN, ("the org could not be measured in 3 tries",))


def test_measurements_that_were_killed_or_never_came_to_the_book_count_as_tries() -> None:
    killed = replace(NIGHT, measure_tries=1, measuring_since=ENDED_AT, measure_seen_at=ENDED_AT)

    (conclusion,) = actions(view(*DONE, night=killed, measure_run=run("ended", 10, failed=1)))
    assert isinstance(conclusion, Conclude) and conclusion.verdict is Verdict.UNPROVEN

    assert actions(view(*DONE, night=killed, measure_run=run("started", 1), is_measuring=True)) == ()


def test_a_measure_run_whose_process_is_gone_is_reported() -> None:
    midst = replace(NIGHT, measuring_since=ENDED_AT, measure_seen_at=ENDED_AT, measure_run_id="run")

    assert actions(view(*DONE, night=midst, measure_run=run("started", 10))) == (ReportDead("the measurement", "run"),)
    assert actions(view(*DONE, night=midst, measure_run=run("started", 10), is_measuring=True)) == ()


def test_a_measure_run_that_has_just_ended_its_work_has_not_died() -> None:
    ended = replace(measured(EQUAL), measure_seen_at=NOW - MINUTE, measure_run_id="run")

    assert actions(view(*DONE, night=ended, measure_run=run("started", 10))) == (Conclude(Verdict.RECONCILED, ()),)


def test_a_measure_run_that_never_came_to_the_book_has_died_when_the_longest_login_is_over() -> None:
    assert actions(view(*DONE, measure_run=run("started", 5.9))) == ()
    assert actions(view(*DONE, measure_run=run("started", 6))) == (ReportDead("the measurement", "run"),)


# Repairing and the verdict


def test_a_night_that_is_equal_is_reconciled() -> None:
    assert actions(view(*DONE, night=measured(EQUAL))) == (Conclude(Verdict.RECONCILED, ()),)


def test_one_lost_row_is_repaired_first_and_told_when_repairs_are_used_up() -> None:
    drifted = measured(DRIFT)
    tired = (entry(A, repairs=2), entry(B))

    assert actions(view(*DONE, night=drifted)) == (Repair((A,)),)
    assert actions(view(*tired, night=drifted)) == (
        Conclude(Verdict.NOT_RECONCILED, ("1 rows are missing in the org",)),
    )


def test_a_range_to_be_repaired_is_launched() -> None:
    drifting = entry(A, RangeState.DRIFTING, runs=1, repairs=1)

    assert actions(view(drifting, entry(B), night=measured(DRIFT))) == (Launch(A, 2),)


# After the verdict


ENDED = judged(Verdict.NOT_RECONCILED, DRIFT)


@pytest.mark.parametrize(
    "ranges",
    [DONE, (entry(A), entry(B, RangeState.GIVEN_UP)), (entry(A), entry(B, RangeState.FAILED, heartbeat_at=ENDED_AT))],
)
def test_nothing_happens_after_the_verdict(ranges: tuple[RangeEntry, ...]) -> None:
    assert actions(view(*ranges, night=ENDED)) == ()
    assert decide(view(*ranges, night=ENDED)).line == "night is over: not reconciled"


def test_a_range_that_a_person_ran_is_measured_and_judged_anew() -> None:
    again = (entry(A, runs=1), entry(B))
    measured_since = replace(ENDED, measurement=EQUAL, measured_runs=1)

    assert actions(view(*again, night=ENDED)) == (Measure(1),)
    assert actions(view(*again, night=measured_since)) == (Conclude(Verdict.RECONCILED, ()),)
    assert actions(view(*again, night=judged(Verdict.RECONCILED, runs=1))) == ()


def test_a_run_that_failed_after_the_verdict_is_never_launched_again_and_spoils_the_verdict() -> None:
    failed = (entry(A, RangeState.FAILED, runs=1, attempts=1, heartbeat_at=ENDED_AT, error="no route"), entry(B))
    reconciled = judged(Verdict.RECONCILED)

    assert actions(view(*failed, night=reconciled)) == (Measure(1),)
    assert actions(view(*failed, night=replace(reconciled, measured_runs=1))) == (
        Conclude(Verdict.NOT_RECONCILED, (f"range {A} is failed: no route",)),
    )
    assert actions(view(*failed, night=judged(Verdict.NOT_RECONCILED, runs=1))) == ()


def test_a_run_that_is_cancelled_after_the_verdict_is_held() -> None:
    canceled = entry(A, RangeState.FAILED, runs=1)

    assert actions(view(canceled, entry(B), night=ENDED, run_a=run("canceled"))) == (Hold(A),)


def test_drift_after_the_verdict_is_told_and_not_repaired() -> None:
    again = (entry(A, runs=1), entry(B))

    assert actions(view(*again, night=replace(ENDED, measured_runs=1))) == (
        Conclude(Verdict.NOT_RECONCILED, ("1 rows are missing in the org",)),
    )


def test_a_person_who_runs_a_range_after_the_verdict_is_waited_for() -> None:
    running = entry(A, RangeState.LOADING, runs=1)

    assert actions(view(running, entry(B), night=ENDED, locked=(A,))) == ()


def test_a_limit_after_the_verdict_parks_the_measurement() -> None:
    parked = replace(ENDED, parked_until=NOW + MINUTE, parked_reason="no API calls left")
    ranges = (entry(A, RangeState.PARKED, runs=1), entry(B))

    assert actions(view(*ranges, night=parked)) == ()
    assert actions(replace(view(*ranges, night=parked), now=NOW + MINUTE)) == (Measure(1),)


def test_an_unproven_night_is_judged_when_its_proof_comes_later() -> None:
    unproven = judged(Verdict.UNPROVEN, None)

    assert actions(view(*DONE, night=unproven)) == ()
    assert actions(view(*DONE, night=replace(unproven, measurement=EQUAL, measured_runs=0))) == (
        Conclude(Verdict.RECONCILED, ()),
    )


def test_a_measurement_by_hand_does_not_change_any_other_verdict() -> None:
    measured_by_hand = replace(judged(Verdict.RECONCILED), measurement=DRIFT)

    assert actions(view(*DONE, night=measured_by_hand)) == ()


def test_an_abandoned_night_stays_as_it_was_left() -> None:
    left = (entry(A, RangeState.FAILED, runs=2), entry(B, RangeState.PLANNED))

    assert actions(view(*left, night=judged(Verdict.ABANDONED, None, runs=2))) == ()


# The verdict


MEASURED = measured(EQUAL)


def test_rejects_keep_a_night_from_being_clean_and_declared_rules_do_not() -> None:
    one_less = replace(MEASURED, measurement=replace(EQUAL, expected=19))
    refused = entry(B, counts=Counts(expected=10, staged=10, updated=9, failed=1))
    aside = entry(B, counts=Counts(expected=10, staged=10, updated=9, quarantined=1, set_aside=1))

    assert judge(one_less, [entry(A), refused]) == (Verdict.WITH_REJECTS, ("1 rows failed",))
    assert judge(one_less, [entry(A), aside]) == (Verdict.RECONCILED, ())


def test_only_a_measurement_by_value_says_reconciled() -> None:
    refused = entry(B, counts=Counts(expected=10, staged=10, updated=9, failed=1))
    for level, verdict in (("keys", Verdict.PRESENT), ("counts", Verdict.COUNTED)):
        night = replace(NIGHT, measurement=replace(EQUAL, level=level))
        one_less = replace(NIGHT, measurement=replace(EQUAL, level=level, expected=19))

        assert judge(night, DONE) == (verdict, ())
        assert judge(one_less, [entry(A), refused]) == (verdict, ("1 rows failed",))


def test_a_night_short_by_one_row_is_never_clean() -> None:
    short = entry(B, counts=Counts(expected=10, staged=9, updated=9))

    verdict, reasons = judge(replace(NIGHT, measurement=replace(EQUAL, expected=19)), [entry(A), short])

    assert (verdict, reasons) == (Verdict.NOT_RECONCILED, (f"range {B}: 10 rows expected, 9 staged",))
    assert not is_clean(replace(NIGHT, verdict=verdict, verdict_reasons=reasons))


def test_what_one_range_has_too_many_never_makes_up_for_what_another_one_lacks() -> None:
    over = entry(A, counts=Counts(expected=10, staged=11, updated=11))
    short = entry(B, counts=Counts(expected=10, staged=9, updated=9))

    assert judge(MEASURED, [over, short]) == (
        Verdict.NOT_RECONCILED,
        (f"range {A}: 10 rows expected, 11 staged", f"range {B}: 10 rows expected, 9 staged"),
    )


def test_rows_that_were_saved_and_not_compared_are_no_proof() -> None:
    half = replace(NIGHT, measurement=replace(EQUAL, expected=10, present=10))

    assert judge(half, DONE) == (Verdict.NOT_RECONCILED, ("20 rows saved, 10 compared",))


def test_rows_without_an_outcome_are_named() -> None:
    lost = entry(B, counts=Counts(expected=10, staged=10, updated=9))

    assert judge(replace(NIGHT, measurement=replace(EQUAL, expected=19)), [entry(A), lost]) == (
        Verdict.NOT_RECONCILED,
        (f"range {B}: 10 rows staged, 9 accounted for",),
    )


# Laws


STATES = st.sampled_from(list(RangeState))
RUNS = st.none() | st.builds(
    RunFact,
    run_id=st.just("run"),
    status=st.sampled_from(["queued", "started", "canceling", "ended", "canceled"]),
    since=st.sampled_from([NOW, NOW - timedelta(hours=1)]),
    runs=st.integers(1, 4),
    failed=st.integers(0, 4),
)


@given(
    states=st.lists(st.tuples(STATES, st.booleans(), RUNS, st.integers(0, 4)), min_size=2, max_size=2),
    parked=st.none() | st.sampled_from([NOW - MINUTE, NOW + MINUTE]),
    measurement=st.sampled_from([None, EQUAL, DRIFT]),
    stopped=st.booleans(),
    verdict=st.none() | st.sampled_from(list(Verdict)),
    measured_runs=st.sampled_from([0, 1]),
    only=st.sampled_from([frozenset[str](), frozenset({A})]),
)
def test_whatever_a_night_looks_like_some_things_are_never_decided(
    states: list[tuple[RangeState, bool, RunFact | None, int]],
    parked: datetime | None,
    measurement: Measurement | None,
    stopped: bool,
    verdict: Verdict | None,
    measured_runs: int,
    only: frozenset[str],
) -> None:
    ranges = tuple(
        RangeView(entry(partition, state, attempts=attempts), is_locked=locked, run=fact)
        for partition, (state, locked, fact, attempts) in zip((A, B), states, strict=True)
    )
    night = replace(
        NIGHT,
        parked_until=parked,
        measurement=measurement,
        stop_requested_at=NOW if stopped else None,
        verdict=verdict,
        verdict_at=None if verdict is None else NOW,
        measured_runs=measured_runs,
        verdict_runs=0,
    )

    decision = decide(NightView(night=night, ranges=ranges, policy=Policy(), now=NOW, only=only))

    by_name = {r.partition: r for r in ranges}
    launches = [action for action in decision.actions if isinstance(action, Launch)]
    for action in decision.actions:
        assert not stopped
        if isinstance(action, Launch):
            assert not by_name[action.partition].is_active
            assert not by_name[action.partition].state.is_settled
            assert by_name[action.partition].attempts < Policy().range_attempts
            assert verdict is None
            assert not only or action.partition in only
        if isinstance(action, Repair):
            assert all(r.state.is_settled for r in ranges) and verdict is None
        if isinstance(action, Conclude | Measure | Repair):
            assert not any(r.is_active for r in ranges)
            assert verdict is not None or all(r.state.is_settled for r in ranges)
    assert len(launches) <= (1 if parked is not None else 2)


@dataclass
class Night:
    """A night that is played: it does what is decided, and chance says what becomes of it."""

    chance: random.Random
    well_after: int
    """So many events bring bad luck; from then on everything gets through."""
    now: datetime = NOW
    night: NightEntry = NIGHT
    entries: dict[str, RangeEntry] = field(default_factory=lambda: {e.partition: e for e in FRESH})
    running: set[str] = field(default_factory=set)
    events: int = 0
    launched: dict[str, int] = field(default_factory=lambda: {A: 0, B: 0})

    def seen(self) -> NightView:
        return NightView(
            night=self.night,
            ranges=tuple(RangeView(e, is_locked=e.partition in self.running) for e in self.entries.values()),
            policy=Policy(),
            now=self.now,
        )

    def luck(self, *fates: str) -> str:
        self.events += 1
        return "well" if self.events > self.well_after else self.chance.choice(("well", *fates))

    def step(self) -> None:
        decision = decide(self.seen())
        for action in decision.actions:
            self.do(action)
        if self.running and (not decision.actions or self.chance.random() < 0.5):
            self.end_run(self.chance.choice(sorted(self.running)))
        elif not decision.actions and not self.running:
            if self.night.stop_requested_at is not None:
                self.restart()
            else:
                assert decision.again_at is not None, f"nothing is ever to come: {decision.line}"
                self.now = max(self.now, decision.again_at)
        self.now += SECOND
        if self.luck("well", "well", "well", "stop") == "stop":
            self.stop()

    def do(self, action: Action) -> None:
        match action:
            case Launch(partition, number):
                assert self.night.stop_requested_at is None
                before = self.entries[partition]
                assert number == before.runs + 1
                was_killed = before.state.is_active
                self.launched[partition] += 1
                self.change(
                    partition, state=RangeState.READING, runs=number, attempts=before.attempts + was_killed,
                    finished_at=None, heartbeat_at=self.now,
                )  # fmt: skip
                self.running.add(partition)
            case Hold(partition):
                self.change(partition, state=RangeState.HELD)
            case GiveUp(partition):
                self.change(partition, state=RangeState.GIVEN_UP)
            case Measure():
                self.measure()
            case Repair(partitions):
                for partition in partitions:
                    self.change(partition, state=RangeState.DRIFTING, repairs=self.entries[partition].repairs + 1)
            case Conclude(verdict, reasons):
                self.night = replace(
                    self.night, verdict=verdict, verdict_at=self.now, verdict_reasons=reasons, verdict_runs=self.begun
                )
            case ReportDead():
                raise AssertionError("nobody reports runs to this night")

    def end_run(self, partition: str) -> None:
        self.running.discard(partition)
        attempts = self.entries[partition].attempts
        match self.luck("fails", "killed", "parked"):
            case "well":
                self.change(partition, state=RangeState.DONE, counts=ROWS, finished_at=self.now, heartbeat_at=self.now)
                self.night = replace(self.night, parked_until=None)
            case "fails":
                self.change(partition, state=RangeState.FAILED, attempts=attempts + 1, heartbeat_at=self.now)
            case "killed":
                pass
            case "parked":
                self.change(partition, state=RangeState.PARKED, heartbeat_at=self.now)
                self.park()

    def measure(self) -> None:
        assert not self.running
        seen_at = self.now
        self.now += SECOND
        match self.luck("fails", "parked", "drift"):
            case "well":
                self.found(EQUAL)
            case "drift":
                self.found(DRIFT)
            case "fails":
                self.night = replace(self.night, measure_tries=self.night.measure_tries + 1)
            case "parked":
                self.park()
        self.night = replace(self.night, measure_seen_at=seen_at)

    @property
    def begun(self) -> int:
        return sum(e.runs for e in self.entries.values())

    def found(self, found: Measurement) -> None:
        saved = sum(e.counts.succeeded for e in self.entries.values())
        self.night = replace(
            self.night, measurement=replace(found, expected=saved), measured_runs=self.begun,
            measure_tries=0, parked_until=None,
        )  # fmt: skip

    def park(self) -> None:
        self.night = replace(self.night, parked_until=self.now + 10 * MINUTE)

    def stop(self) -> None:
        self.night = replace(self.night, stop_requested_at=self.now)
        for partition in self.running:
            self.change(partition, state=RangeState.FAILED, heartbeat_at=self.now)
        self.running.clear()

    def restart(self) -> None:
        self.night = replace(self.night, stop_requested_at=None)
        self.launched = dict.fromkeys(self.launched, 0)
        for e in list(self.entries.values()):
            if e.state not in (RangeState.DONE, RangeState.DRIFTING, RangeState.PARKED, RangeState.PLANNED):
                self.change(e.partition, state=RangeState.FAILED, attempts=0)

    def change(self, partition: str, **changes: Any) -> None:
        self.entries[partition] = replace(self.entries[partition], **changes)


@settings(max_examples=300)
@given(seed=st.integers(0, 2**32), well_after=st.integers(0, 60))
def test_every_night_ends_in_a_verdict_whatever_happens_to_its_runs(seed: int, well_after: int) -> None:
    night = Night(random.Random(seed), well_after)

    steps = 0
    while night.night.verdict is None:
        night.step()
        steps += 1
        assert steps < 1000, f"it goes on for ever: {decide(night.seen()).line}"

    settled = [e.state for e in night.entries.values()]
    assert all(state.is_settled for state in settled)
    assert not night.running
    if night.night.verdict is Verdict.RECONCILED:
        assert settled == [RangeState.DONE, RangeState.DONE]
    assert decide(night.seen()).actions == ()


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32))
def test_a_range_whose_runs_all_fail_is_launched_as_often_as_the_cap_says(seed: int) -> None:
    class Unlucky(Night):
        def luck(self, *fates: str) -> str:
            if "killed" in fates:
                return self.chance.choice(["fails", "killed"])
            return "well"

    night = Unlucky(random.Random(seed), 0)
    while night.night.verdict is None:
        night.step()

    assert night.launched == {A: Policy().range_attempts, B: Policy().range_attempts}
    assert night.night.verdict is Verdict.NOT_RECONCILED


POLICIES = st.builds(
    Policy, range_attempts=st.integers(1, 4), repairs=st.integers(0, 3), measurements=st.integers(1, 4)
)


@dataclass
class Hostile(Night):
    """A night in which nothing has to get through, ever. Time stands still but for what is waited for by the clock."""

    policy: Policy = field(default_factory=Policy)
    fates: tuple[str, ...] = ()
    parkings_left: int = 6
    lost: dict[str, RunFact] = field(default_factory=dict)
    lost_measure: RunFact | None = None
    measured: int = 0
    parkings: int = 0
    repaired: int = 0

    def seen(self) -> NightView:
        return NightView(
            night=self.night,
            ranges=tuple(
                RangeView(e, is_locked=e.partition in self.running, run=self.lost.get(e.partition))
                for e in self.entries.values()
            ),
            policy=self.policy,
            now=self.now,
            measure_run=self.lost_measure,
        )

    def luck(self, *fates: str) -> str:
        choice = self.chance.choice(
            [fate for fate in self.fates if fate in (*fates, "lost", "killed", "well")] or ["fails"]
        )
        if choice == "parked":
            self.parkings_left -= 1
            return "parked" if self.parkings_left >= 0 else "fails"
        return choice

    def park(self) -> None:
        self.parkings += 1
        super().park()

    def look(self) -> None:
        """Does what is decided; with nothing to do, somebody must be at work, or a time must be known."""
        decision = decide(self.seen())
        for action in decision.actions:
            self.do(action)
        if not decision.actions and self.running:
            self.end_run(self.chance.choice(sorted(self.running)))
        elif not decision.actions:
            assert decision.again_at is not None and decision.again_at > self.now, f"stands still: {decision.line}"
            self.now = decision.again_at

    def do(self, action: Action) -> None:
        if isinstance(action, Repair):
            self.repaired += len(action.partitions)
        if isinstance(action, Launch) and self.chance.choice((*self.fates, "well")) == "lost":
            self.launched[action.partition] += 1
            failed = self.lost[action.partition].failed + 1 if action.partition in self.lost else 1
            self.lost[action.partition] = RunFact("lost", "ended", self.now, runs=action.number, failed=failed)
            return
        if isinstance(action, Launch) and action.partition in self.lost:  # the newest run is known by its lock alone
            self.lost[action.partition] = replace(self.lost[action.partition], runs=action.number)
        if isinstance(action, Launch):
            action = Launch(action.partition, self.entries[action.partition].runs + 1)
        super().do(action)

    def measure(self) -> None:
        self.measured += 1
        fate = self.luck("fails", "parked", "drift", "killed", "lost")
        if fate == "lost":
            failed = self.lost_measure.failed + 1 if self.lost_measure is not None else 1
            self.lost_measure = RunFact("lost", "ended", self.now, failed=failed)
            return
        tries = self.night.measure_tries + (self.night.measuring_since is not None)  # as the book counts at a beginning
        self.night = replace(self.night, measure_tries=tries, measuring_since=self.now, measure_seen_at=self.now)
        match fate:
            case "killed":
                return
            case "fails":
                self.night = replace(self.night, measure_tries=tries + 1)
            case "parked":
                self.park()
            case _:
                self.found(DRIFT if fate == "drift" else EQUAL)
                self.lost_measure = None
        self.night = replace(self.night, measuring_since=None)


FATES = st.lists(
    st.sampled_from(["fails", "killed", "parked", "lost", "drift", "well"]), min_size=1, max_size=6, unique=True
)


@settings(max_examples=300)
@given(seed=st.integers(0, 2**32), policy=POLICIES, fates=FATES)
def test_no_night_repeats_itself_for_ever_without_a_time_to_wait_for(
    seed: int, policy: Policy, fates: list[str]
) -> None:
    night = Hostile(random.Random(seed), 0, policy=policy, fates=tuple(fates))

    looks = 0
    while night.night.verdict is None:
        night.look()
        looks += 1
        assert looks < 500, f"it goes on for ever: {decide(night.seen()).line}"

    tries = policy.range_attempts
    for partition, launched in night.launched.items():
        assert launched <= tries * (1 + policy.repairs) + night.parkings, partition
    assert night.measured <= policy.measurements * (1 + night.repaired) + night.parkings
    assert night.repaired <= policy.repairs * len(night.entries)
