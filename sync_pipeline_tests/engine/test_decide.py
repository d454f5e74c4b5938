"""The course of a night as one pure function: each rule, and the order in which they count."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.domain.keys import cover
from sync_pipeline.domain.ledger import Counts, RangeState, Verdict
from sync_pipeline.domain.night import Measurement, NightEntry, RangeEntry
from sync_pipeline.domain.plan import OrgIdentity, Plan, PlannedRange, SourceProfile
from sync_pipeline.domain.policy import Policy
from sync_pipeline.engine.night import (
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
    is_clean,
    judge,
)

NOW = datetime(2026, 6, 10, 3, 0, tzinfo=UTC)
OPENED = NOW - timedelta(hours=1)
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


def entry(partition: str = A, state: RangeState = RangeState.DONE, **changes: object) -> RangeEntry:
    finished = NOW - timedelta(minutes=10) if state is RangeState.DONE else None
    counts = ROWS if state is RangeState.DONE else Counts(expected=10)
    made = RangeEntry(partition=partition, place=0, state=state, counts=counts, finished_at=finished)
    return replace(made, **changes)  # type: ignore[arg-type]


def view(*ranges: RangeEntry, night: NightEntry = NIGHT, locked: tuple[str, ...] = (), **runs: RunFact) -> NightView:
    facts = {A: runs.get("run_a"), B: runs.get("run_b")}
    return NightView(
        night=night,
        ranges=tuple(RangeView(e, is_locked=e.partition in locked, run=facts.get(e.partition)) for e in ranges),
        policy=Policy(),
        now=NOW,
        measure_run=runs.get("measure_run"),
    )


def run(status: str, minutes_ago: float = 1, **changes: int) -> RunFact:
    return RunFact("run", status, NOW - timedelta(minutes=minutes_ago), **changes)  # type: ignore[arg-type]


def actions(seen: NightView) -> tuple[object, ...]:
    return decide(seen).actions


DONE = (entry(A), entry(B))


def test_every_range_of_a_new_night_is_launched() -> None:
    seen = view(entry(A, RangeState.PLANNED), entry(B, RangeState.PLANNED))
    assert actions(seen) == (Launch(A, 1), Launch(B, 1))
    assert decide(seen).line == "0/2 done"


def test_a_running_range_is_left_alone_and_an_idle_one_beside_it_is_launched() -> None:
    seen = view(entry(A, RangeState.READING, runs=1), entry(B, RangeState.FAILED, runs=1, attempts=1), locked=(A,))
    assert actions(seen) == (Launch(B, 2),)
    assert decide(seen).line == "0/2 done, 1 running"


def test_a_queued_run_is_not_launched_again() -> None:
    assert actions(view(entry(A, RangeState.PLANNED), entry(B), run_a=run("queued", 60))) == ()


def test_a_stop_comes_before_everything() -> None:
    stopped = replace(NIGHT, stop_requested_at=NOW)
    seen = view(entry(A, RangeState.PLANNED), entry(B, RangeState.FAILED, attempts=9), night=stopped)
    assert actions(replace(seen, ranges=(*seen.ranges[:1], RangeView(entry(B), False, run("started", 60))))) == ()


def test_a_run_that_is_started_without_its_lock_has_died() -> None:
    seen = view(entry(A, RangeState.READING, runs=1), entry(B, RangeState.PLANNED), run_a=run("started", 2))
    assert actions(seen) == (ReportDead(A, "run"),)


def test_a_run_that_has_just_started_may_not_have_its_lock_yet() -> None:
    assert actions(view(entry(A, RangeState.READING), entry(B), run_a=run("started", 1.9))) == ()


def test_a_range_whose_run_was_cancelled_by_a_person_is_held() -> None:
    seen = view(entry(A, RangeState.FAILED, runs=1), entry(B), run_a=run("canceled"))
    assert actions(seen) == (Hold(A),)


def test_a_held_range_that_was_rearmed_is_launched_again() -> None:
    rearmed = entry(A, RangeState.PLANNED, runs=1, rearmed_at=NOW)
    assert actions(view(rearmed, entry(B), run_a=run("canceled"))) == (Launch(A, 2),)


def test_a_range_at_the_cap_is_given_up() -> None:
    seen = view(entry(A, RangeState.FAILED, runs=3, attempts=3, error="no route"), entry(B))
    assert actions(seen) == (GiveUp(A, "3 runs failed, the last: no route"),)


def test_runs_that_died_before_they_reached_the_book_count_as_attempts() -> None:
    seen = view(entry(A, RangeState.PLANNED), entry(B), run_a=run("ended", runs=3, failed=3))
    assert actions(seen) == (GiveUp(A, "3 runs failed, the last: "),)
    assert actions(view(entry(A, RangeState.PLANNED), entry(B), run_a=run("ended", runs=2, failed=2))) == (Launch(A, 3),)


def test_a_parked_night_launches_nothing_until_its_time() -> None:
    parked = replace(NIGHT, parked_until=NOW + timedelta(minutes=5), parked_reason="no API calls left")
    seen = view(entry(A, RangeState.PARKED), entry(B, RangeState.PLANNED), night=parked)
    assert actions(seen) == ()
    assert decide(seen).line == "0/2 done, 1 parked; parked until 03:05 UTC: no API calls left"


def test_one_range_probes_when_the_parking_is_over() -> None:
    parked = replace(NIGHT, parked_until=NOW, parked_reason="no API calls left")
    both = (entry(A, RangeState.PARKED, runs=1), entry(B, RangeState.PARKED, runs=1))
    assert actions(view(*both, night=parked)) == (Launch(A, 2),)
    assert actions(view(*both, night=parked, locked=(A,))) == ()


def test_the_org_is_measured_when_the_last_range_is_settled() -> None:
    assert actions(view(*DONE)) == (Measure(1),)
    assert actions(view(entry(A), entry(B, RangeState.GIVEN_UP))) == (Measure(1),)
    assert actions(view(*DONE, locked=(A,))) == ()


def test_a_measurement_that_runs_is_not_started_twice() -> None:
    assert actions(view(*DONE, measure_run=run("started"))) == ()


def test_a_measurement_older_than_the_last_range_is_taken_again() -> None:
    old = replace(NIGHT, measurement=replace(EQUAL, measured_at=NOW - timedelta(hours=1)))
    assert actions(view(*DONE, night=old)) == (Measure(1),)


def test_an_org_that_cannot_be_measured_leaves_the_night_unproven() -> None:
    tired = replace(NIGHT, measure_tries=3)
    (conclusion,) = actions(view(*DONE, night=tired))
    assert isinstance(conclusion, Conclude) and conclusion.verdict is Verdict.UNPROVEN


def test_a_night_that_is_equal_is_reconciled() -> None:
    assert actions(view(*DONE, night=replace(NIGHT, measurement=EQUAL))) == (Conclude(Verdict.RECONCILED, ()),)


def test_one_lost_row_is_repaired_first_and_told_when_repairs_are_used_up() -> None:
    drifted = replace(NIGHT, measurement=DRIFT)
    assert actions(view(*DONE, night=drifted)) == (Repair((A,)),)
    tired = (entry(A, repairs=2), entry(B))
    assert actions(view(*tired, night=drifted)) == (
        Conclude(Verdict.NOT_RECONCILED, ("1 rows are missing in the org",)),
    )


def test_a_range_to_be_repaired_is_launched() -> None:
    drifting = entry(A, RangeState.DRIFTING, runs=1, repairs=1)
    assert actions(view(drifting, entry(B), night=replace(NIGHT, measurement=DRIFT))) == (Launch(A, 2),)


def test_nothing_happens_after_the_verdict_until_a_person_runs_a_range() -> None:
    over = replace(NIGHT, measurement=DRIFT, verdict=Verdict.NOT_RECONCILED, verdict_at=NOW)
    assert actions(view(*DONE, night=over)) == ()
    assert actions(view(entry(A), entry(B, RangeState.GIVEN_UP), night=over)) == ()
    again = (entry(A, finished_at=NOW + timedelta(minutes=1)), entry(B))
    assert actions(view(*again, night=over)) == (Measure(1),)
    measured = replace(over, measurement=replace(EQUAL, measured_at=NOW + timedelta(minutes=2)))
    assert actions(view(*again, night=measured)) == (Conclude(Verdict.RECONCILED, ()),)


def test_rejects_keep_a_night_from_being_clean_and_declared_rules_do_not() -> None:
    measured = replace(NIGHT, measurement=EQUAL)
    refused = entry(B, counts=Counts(expected=10, staged=10, updated=9, failed=1))
    assert judge(measured, [entry(A), refused]) == (Verdict.WITH_REJECTS, ("1 rows failed",))
    aside = entry(B, counts=Counts(expected=10, staged=10, updated=9, quarantined=1, set_aside=1))
    assert judge(measured, [entry(A), aside]) == (Verdict.RECONCILED, ())


def test_only_a_measurement_by_value_says_reconciled() -> None:
    for level, verdict in (("keys", Verdict.PRESENT), ("counts", Verdict.COUNTED)):
        night = replace(NIGHT, measurement=replace(EQUAL, level=level))
        assert judge(night, DONE) == (verdict, ())
        refused = entry(B, counts=Counts(expected=10, staged=10, updated=9, failed=1))
        assert judge(night, [entry(A), refused]) == (verdict, ("1 rows failed",))


def test_a_night_short_by_one_row_is_never_clean() -> None:
    short = entry(B, counts=Counts(expected=10, staged=9, updated=9))
    verdict, reasons = judge(replace(NIGHT, measurement=EQUAL), [entry(A), short])
    assert verdict is Verdict.NOT_RECONCILED
    assert reasons == ("20 rows expected, 19 staged",)
    ended = replace(NIGHT, verdict=verdict, verdict_reasons=reasons)
    assert not is_clean(ended)


STATES = st.sampled_from(list(RangeState))
RUNS = st.none() | st.builds(
    RunFact,
    run_id=st.just("run"),
    status=st.sampled_from(["queued", "started", "ended", "canceled"]),
    since=st.sampled_from([NOW, NOW - timedelta(hours=1)]),
    runs=st.integers(1, 4),
    failed=st.integers(0, 4),
)


@given(
    states=st.lists(st.tuples(STATES, st.booleans(), RUNS, st.integers(0, 4)), min_size=2, max_size=2),
    parked=st.none() | st.sampled_from([NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)]),
    measurement=st.sampled_from([None, EQUAL, DRIFT]),
    stopped=st.booleans(),
)
def test_a_range_that_runs_is_never_launched_and_a_verdict_needs_every_range_settled(
    states: list[tuple[RangeState, bool, RunFact | None, int]],
    parked: datetime | None,
    measurement: Measurement | None,
    stopped: bool,
) -> None:
    ranges = tuple(
        RangeView(entry(partition, state, attempts=attempts), is_locked=locked, run=fact)
        for partition, (state, locked, fact, attempts) in zip((A, B), states, strict=True)
    )
    night = replace(
        NIGHT, parked_until=parked, measurement=measurement, stop_requested_at=NOW if stopped else None
    )
    decision = decide(NightView(night=night, ranges=ranges, policy=Policy(), now=NOW))
    by_name = {r.partition: r for r in ranges}
    for action in decision.actions:
        assert not stopped
        if isinstance(action, Launch):
            assert not by_name[action.partition].is_active
            assert not by_name[action.partition].state.is_settled
            assert by_name[action.partition].attempts < Policy().range_attempts
        if isinstance(action, Conclude | Measure | Repair):
            assert all(r.state.is_settled and not r.is_active for r in ranges)
    assert sum(isinstance(a, Launch) for a in decision.actions) <= (1 if parked is not None else 2)
    assert "done" in decision.line
