"""A night from its opening to its verdict, without an orchestrator: who may work on it, what ends it, what mends it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync_pipeline.domain.errors import (
    HeldElsewhere,
    MappingError,
    PlanRefused,
    SettingsError,
    Stopped,
    SyncError,
    UsageError,
    WrongOrg,
)
from sync_pipeline.domain.ledger import RangeState, Verdict
from sync_pipeline.domain.mapping import load_mapping
from sync_pipeline.domain.night import NightEntry
from sync_pipeline.domain.plan import Plan
from sync_pipeline.domain.policy import OtherLoads
from sync_pipeline.engine.deciding import Conclude, GiveUp, Hold, Repair, decide
from sync_pipeline.engine.measure_run import run_measurement
from sync_pipeline.engine.night import (
    apply,
    drive,
    night_json,
    open_night,
    request_stop,
    restart,
    state_of,
    stop,
    view_of,
)
from sync_pipeline.engine.presence import presences
from sync_pipeline.settings import PACKAGED_MAPPING, load_settings
from sync_pipeline.simulated_org.app import OrgTransport
from sync_pipeline.simulated_org.faults import clear_faults
from sync_pipeline.simulated_org.seed import next_night, seed
from sync_pipeline.wiring import open_walls
from sync_pipeline_tests.engine.rehearsal import Rehearsal, rehearsal

ROWS = 300


@contextmanager
def stage(folder: Path, **changes: Any) -> Iterator[Rehearsal]:
    """An org of 300 rows, which make three ranges, and a clock that waiting moves."""
    with rehearsal(folder, rows=ROWS, **changes) as made:
        yield made


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Rehearsal]:
    with stage(tmp_path) as made:
        yield made


def opened(r: Rehearsal, **changes: Any) -> NightEntry:
    return open_night(r.walls, say=lambda line: None, **changes)


def driven(r: Rehearsal, **changes: Any) -> NightEntry:
    return drive(r.walls, r.night, **{"on_event": lambda line: None, **changes})


def states(r: Rehearsal) -> list[RangeState]:
    return [entry.state for entry in r.walls.book.ranges(r.night.plan_id)]


def aged(r: Rehearsal, by: timedelta) -> Rehearsal:
    """The same process so much later."""
    now = r.walls.now
    r.walls = replace(r.walls, now=lambda: now() + by)
    return r


# Opening


def test_an_unfinished_young_night_goes_on(small: Rehearsal) -> None:
    first = opened(small)

    again = opened(small)

    assert again.plan_id == first.plan_id
    assert len(small.walls.book.nights()) == 1


def test_a_night_that_is_over_is_followed_by_a_new_one_that_keeps_its_ranges(small: Rehearsal) -> None:
    first = driven(small)

    second = opened(small)

    assert first.verdict is Verdict.RECONCILED
    assert second.plan_id > first.plan_id
    assert [r.partition for r in second.plan] == [r.partition for r in first.plan]


@pytest.mark.parametrize(("hours", "is_continued"), [(19, True), (21, False)])
def test_an_unfinished_night_that_is_too_old_is_abandoned_with_the_rows_left(
    tmp_path: Path, hours: int, is_continued: bool
) -> None:
    with stage(tmp_path) as r:
        first = opened(r)
        r.run(0)

        second = opened(aged(r, timedelta(hours=hours)))

        left = r.walls.book.night(first.plan_id)
        assert left is not None
        assert (second.plan_id == first.plan_id) is is_continued
        assert left.verdict is (None if is_continued else Verdict.ABANDONED)
        assert left.verdict_reasons == (() if is_continued else ("2 ranges unfinished, 200 rows left",))


def test_only_a_person_lifts_a_stop(small: Rehearsal) -> None:
    night = opened(small)
    request_stop(small.walls.book)
    said: list[str] = []

    by_schedule = open_night(small.walls, say=said.append)
    by_person = opened(small, rearm=True)

    assert by_schedule.plan_id == by_person.plan_id == night.plan_id
    assert by_schedule.stop_requested_at is not None and by_person.stop_requested_at is None
    assert said[0].startswith(f"Night {night.plan_id} of {night.plan.org} was stopped and stays so")


def test_a_stop_is_not_lifted_under_somebody_who_still_works(small: Rehearsal) -> None:
    night = opened(small)
    request_stop(small.walls.book)

    with small.walls.area.lock_range(small.partitions[0]), pytest.raises(HeldElsewhere, match=small.partitions[0]):
        opened(small, rearm=True)

    assert small.walls.book.is_stopped(night.plan_id)


def test_a_source_that_lost_half_of_its_rows_opens_no_night_and_gives_none_up(small: Rehearsal) -> None:
    night = opened(small)
    next_night(small.org, delete=0.6)

    with pytest.raises(PlanRefused, match="holds 120 rows; the last plan counted 300"):
        opened(small, fresh=True)

    (left,) = small.walls.book.nights()
    assert (left.plan_id, left.verdict, left.stop_requested_at) == (night.plan_id, None, None)


def test_a_plan_that_the_caller_does_not_accept_leaves_everything_as_it_was(small: Rehearsal) -> None:
    night = opened(small)

    def refuse(plan: Plan) -> None:
        raise UsageError("not this one")

    with pytest.raises(UsageError):
        opened(small, fresh=True, accept=refuse)

    (left,) = small.walls.book.nights()
    assert (left.plan_id, left.verdict, left.stop_requested_at) == (night.plan_id, None, None)


def test_a_mapping_that_does_not_fit_ends_no_night(small: Rehearsal, tmp_path: Path) -> None:
    night = opened(small)
    (tmp_path / "mapping.toml").write_text(PACKAGED_MAPPING.read_text().replace('"Name__c"', '"Nickname__c"'))
    small.walls = replace(small.walls, mapping=load_mapping(tmp_path / "mapping.toml"))

    with pytest.raises(MappingError, match="Nickname__c"):
        opened(small, fresh=True)

    (left,) = small.walls.book.nights()
    assert (left.plan_id, left.verdict, left.stop_requested_at) == (night.plan_id, None, None)


def test_the_processes_of_a_night_that_is_given_up_hear_it_and_are_waited_for(small: Rehearsal) -> None:
    first = opened(small)
    small.walls.sleep(1.0)
    followed: list[NightEntry] = []
    opener = threading.Thread(target=lambda: followed.append(opened(small, fresh=True)))

    with small.walls.area.lock_range(small.partitions[0]), small.walls.area.lock_measure():
        opener.start()
        while len(small.waiting.waits) < 4:
            assert opener.is_alive()
            threading.Event().wait(0.01)
        is_told, is_waiting = small.walls.book.is_stopped(first.plan_id), not followed
    opener.join()

    assert (is_told, is_waiting) == (True, True)
    assert followed[0].plan_id > first.plan_id


def test_a_night_is_opened_by_one_process_at_a_time(small: Rehearsal) -> None:
    with small.walls.area.lock_night(), pytest.raises(HeldElsewhere, match="works on the plan or verdict"):
        opened(small)


def test_no_night_is_opened_while_a_range_of_the_last_one_is_worked_on(small: Rehearsal) -> None:
    driven(small)

    with small.walls.area.lock_range(small.partitions[1]), pytest.raises(HeldElsewhere, match=small.partitions[1]):
        opened(small)
    with small.walls.area.lock_measure(), pytest.raises(HeldElsewhere, match="measures the org"):
        opened(small)

    assert len(small.walls.book.nights()) == 1


def test_a_range_that_is_taken_up_while_the_next_night_is_planned_keeps_it_from_opening(small: Rehearsal) -> None:
    driven(small)
    with ExitStack() as taken:

        def take_up(request: httpx.Request) -> None:
            if request.url.path.endswith("/limits"):  # the last thing that a plan asks for
                taken.enter_context(small.walls.area.lock_range(small.partitions[0]))

        small.wire.before = take_up
        with pytest.raises(HeldElsewhere, match=small.partitions[0]):
            opened(small)

    assert len(small.walls.book.nights()) == 1


def test_a_run_of_a_night_that_has_been_followed_sends_nothing(small: Rehearsal) -> None:
    driven(small)
    followed, partition = small.night, small.partitions[0]
    opened(small)
    sent = small.wire.count("POST", "/jobs/ingest")

    with pytest.raises(HeldElsewhere):
        small.run(0)

    entry = small.walls.book.range(followed.plan_id, partition)
    assert entry is not None and (entry.state, entry.runs) == (RangeState.DONE, 1)
    assert small.wire.count("POST", "/jobs/ingest") == sent


def test_the_calls_of_the_plan_are_counted_in_the_night(small: Rehearsal) -> None:
    opened(small)
    small.walls.meter.flush()

    calls = sum(small.walls.book.calls(small.night.plan_id).values())
    asked = [line for line in small.wire.requests if "/oauth2/" not in line]
    assert calls == len(asked) > 0


def test_a_forecast_that_does_not_fit_parks_the_night_before_it_reads_a_row(small: Rehearsal) -> None:
    small.org.set_setting("api_used", 79_980)

    night = opened(small)
    ended = driven(small)

    assert night.parked_until is not None and "are kept in reserve (SYNC_API_RESERVE)" in night.parked_reason
    assert ended.verdict is None
    assert states(small) == [RangeState.PLANNED] * 3


def test_a_night_that_the_org_could_never_take_is_refused(small: Rehearsal) -> None:
    small.org.set_setting("api_max", 60)

    with pytest.raises(PlanRefused, match="the org allows 60 a day"):
        opened(small)

    assert small.walls.book.nights() == []


def test_rows_of_old_nights_are_cleared_away_when_a_new_one_opens(small: Rehearsal) -> None:
    first = driven(small)
    folder = small.walls.area.night_folder(first.plan_id)
    pages_before = list(folder.glob("*/*/page-*.parquet"))
    said: list[str] = []

    open_night(aged(small, timedelta(days=8)).walls, say=said.append)

    assert pages_before and list(folder.glob("*/*/page-*.parquet")) == []
    assert any(line.startswith(f"Cleared away: rows of night {first.plan_id}") for line in said)


# Others in the org


def load_of_somebody(r: Rehearsal, *, user_id: str = "") -> str:
    """An ingest job on the target that no night of ours made."""
    job_id = r.walls.bulk.create().id
    with r.org.write() as connection:
        connection.execute("UPDATE job SET created_by = ? WHERE id = ?", (user_id or r.org.admin_id, job_id))
    return job_id


def test_others_who_load_the_target_are_named_in_the_plan(small: Rehearsal) -> None:
    job_id = load_of_somebody(small)
    said: list[str] = []

    night = open_night(small.walls, say=said.append)

    told = f"Ingest job {job_id} (upsert, Open, by {small.org.admin_id}) loads Opportunity too."
    assert told in night.plan.notes
    assert told in said


def test_a_night_does_not_begin_beside_them_when_the_settings_say_so(tmp_path: Path) -> None:
    with stage(tmp_path, other_loads=OtherLoads.REFUSE) as r:
        job_id = load_of_somebody(r)

        with pytest.raises(PlanRefused, match=job_id):
            opened(r)
        assert r.walls.book.nights() == []

        r.walls.bulk.abort(job_id)
        assert opened(r).verdict is None


def test_a_job_whose_create_answer_was_lost_is_nobody_elses(tmp_path: Path) -> None:
    with stage(tmp_path, other_loads=OtherLoads.REFUSE) as r:
        load_of_somebody(r, user_id=r.org.user_id)

        assert opened(r).plan.notes == (
            "How long it will take is not known: no earlier night over this source has ended.",
        )


# Driving


def test_a_night_is_driven_to_its_verdict(small: Rehearsal) -> None:
    events: list[str] = []

    night = driven(small, on_event=events.append)

    assert (night.verdict, night.verdict_reasons) == (Verdict.RECONCILED, ())
    assert small.is_equal()
    assert (events[0], events[-1]) == ("0/3 done", "3/3 done; reconciled")


def test_all_lanes_look_at_their_jobs_together(tmp_path: Path) -> None:
    with stage(tmp_path) as r:
        r.org.set_setting("pace", {"rows_per_second": 1, "batches": 1})
        assert r.night

        driven(r)

        assert len(r.jobs()) == 6
        looks = r.walls.book.calls(r.night.plan_id)
        assert 0 < looks["ingest list"] + looks.get("ingest poll", 0) < 45  # the list may have told of every end
        assert r.is_equal()


def test_a_second_driver_is_told_who_works_on_the_night(small: Rehearsal) -> None:
    opened(small)

    with small.walls.area.lock_range(small.partitions[2]), pytest.raises(HeldElsewhere, match=small.partitions[2]):
        driven(small)

    assert states(small) == [RangeState.PLANNED] * 3


def test_a_run_that_fails_after_the_verdict_is_not_hidden_by_it(small: Rehearsal) -> None:
    assert driven(small).verdict is Verdict.RECONCILED
    small.fault("answer endpoint=describe status=400 code=MALFORMED_ID times=1")

    night = driven(small, only=[small.partitions[1]])

    assert night.verdict is Verdict.NOT_RECONCILED
    assert night.verdict_reasons[0].startswith(f"range {small.partitions[1]} is failed: ")
    assert [verdict for _, verdict, _ in small.walls.book.verdicts(night.plan_id)] == [
        Verdict.RECONCILED,
        Verdict.NOT_RECONCILED,
    ]


def test_a_range_that_a_person_runs_after_the_verdict_is_sent_and_measured_again(small: Rehearsal) -> None:
    first = driven(small)

    again = driven(small, only=[small.partitions[0]])

    assert again.verdict is Verdict.RECONCILED
    assert again.verdict_at is not None and first.verdict_at is not None and again.verdict_at > first.verdict_at
    assert [e.generation for e in small.walls.book.ranges(again.plan_id)] == [2, 1, 1]
    assert again.seconds == first.seconds


def test_a_dropped_network_is_not_stormed_and_ends_at_the_cap(tmp_path: Path) -> None:
    with stage(tmp_path, lanes=1) as r:
        opened(r)
        r.fault("answer endpoint=create status=400 code=INVALIDJOB")

        night = driven(r)

        assert night.verdict is Verdict.NOT_RECONCILED
        assert states(r) == [RangeState.GIVEN_UP] * 3
        assert [e.runs for e in r.walls.book.ranges(night.plan_id)] == [3, 3, 3]
        assert r.waiting.seconds >= 15 + 120


def test_a_state_folder_that_is_removed_in_the_midst_ends_the_night_with_a_word(small: Rehearsal) -> None:
    def remove(line: str) -> None:
        if "staged" in line:
            shutil.rmtree(small.home / "locks", ignore_errors=True)

    with pytest.raises(SettingsError, match="was removed while it was in use"):
        driven(small, on_event=remove)


def test_a_cut_off_of_a_moment_costs_a_rest_and_no_range(small: Rehearsal) -> None:
    opened(small)
    small.fault("answer endpoint=create status=400 code=INVALIDJOB times=3")

    night = driven(small)

    assert night.verdict is Verdict.RECONCILED
    assert small.waiting.seconds >= 15


def test_ranges_that_were_not_asked_for_are_left_alone_and_the_night_stays_open(small: Rehearsal) -> None:
    opened(small)

    night = driven(small, only=[small.partitions[1]])

    assert night.verdict is None
    assert states(small) == [RangeState.PLANNED, RangeState.DONE, RangeState.PLANNED]


def test_an_interrupted_drive_ends_its_jobs_and_the_next_one_goes_on(small: Rehearsal) -> None:
    opened(small)
    small.fault("job_stuck")

    def interrupt(request: httpx.Request) -> None:
        if request.method == "GET" and "/jobs/ingest" in request.url.path:
            small.waiting.interrupt("Ctrl-C came")

    small.wire.before = interrupt
    with pytest.raises(Stopped, match="Ctrl-C came"):
        driven(small)
    aborted = [job.state for job in small.org_jobs()]
    attempts = [e.attempts for e in small.walls.book.ranges(small.night.plan_id)]
    clear_faults(small.org)
    again = small.again()

    night = drive(again.walls, again.night, on_event=lambda line: None)

    assert aborted and set(aborted) == {"Aborted"}
    assert attempts == [0, 0, 0]
    assert night.verdict is Verdict.RECONCILED
    assert small.is_equal()


def test_a_stop_from_elsewhere_ends_a_drive_and_nothing_is_launched_after_it(small: Rehearsal) -> None:
    opened(small)
    small.fault("job_stuck")
    elsewhere = small.again()
    stopped = threading.Event()

    def stop_it(request: httpx.Request) -> None:
        if request.method == "GET" and "/jobs/ingest" in request.url.path and not stopped.is_set():
            stopped.set()
            request_stop(elsewhere.walls.book)

    small.wire.before = stop_it
    driven(small)
    requests = len(small.wire.requests)
    night = drive(small.again().walls, small.night, on_event=lambda line: None)

    assert {job.state for job in small.org_jobs()} == {"Aborted"}
    assert night.verdict is None
    assert night.stop_requested_at is not None
    assert len(small.wire.requests) == requests


def test_a_drive_ends_when_a_newer_night_has_taken_its_place(small: Rehearsal) -> None:
    first = driven(small)
    opened(small)

    with pytest.raises(Stopped, match=f"a newer night has taken the place of night {first.plan_id}"):
        driven(small)


# Parked


def test_a_parking_is_sat_out_by_whoever_wants_to_wait_and_by_nobody_else(small: Rehearsal) -> None:
    opened(small)
    small.org.set_setting("api_used", 79_990)
    events: list[str] = []

    def tell(line: str) -> None:
        events.append(line)
        if "probing" in line:
            small.org.set_setting("api_used", 0)

    parked = driven(small, on_event=tell)
    calls_before, parked_at = len(small.wire.requests), small.waiting.seconds
    waited = driven(small, on_event=tell, wait_for_headroom=True)

    assert parked.verdict is None and parked.parked_until is not None
    assert any("parked until" in line for line in events)
    assert small.waiting.seconds - parked_at >= 600
    assert waited.verdict is Verdict.RECONCILED
    assert waited.parked_until is None
    assert len(small.wire.requests) > calls_before


def test_nothing_is_asked_of_the_org_while_a_night_is_parked(small: Rehearsal) -> None:
    opened(small)
    small.org.set_setting("api_used", 79_990)
    asked: list[int] = []

    def tell(line: str) -> None:
        if "probing" in line:
            asked.append(len(small.wire.requests))
            small.org.set_setting("api_used", 0)
        elif "parked until" in line and not probed():
            asked.append(len(small.wire.requests))

    def probed() -> bool:
        return small.org.setting("api_used") == 0

    driven(small, on_event=tell, wait_for_headroom=True)

    assert len(asked) >= 2
    assert len(set(asked)) == 1


def test_one_range_that_was_asked_for_waits_for_headroom_and_ends(small: Rehearsal) -> None:
    opened(small)
    small.org.set_setting("api_used", 79_990)

    def tell(line: str) -> None:
        if "probing" in line:
            small.org.set_setting("api_used", 0)

    night = driven(small, only=[small.partitions[1]], wait_for_headroom=True, on_event=tell)

    assert states(small) == [RangeState.PLANNED, RangeState.DONE, RangeState.PLANNED]
    assert (night.verdict, night.parked_until) == (None, None)


def test_a_limit_while_the_org_is_measured_parks_the_night_and_is_no_failed_try(small: Rehearsal) -> None:
    opened(small)
    small.fault("limit endpoint=query_job times=1")
    events: list[str] = []

    parked = driven(small, on_event=events.append)
    parked_seconds = small.waiting.seconds
    waited = driven(small, wait_for_headroom=True)

    assert (parked.verdict, parked.measure_tries, parked.measuring_since) == (None, 0, None)
    assert parked.parked_until is not None
    assert waited.verdict is Verdict.RECONCILED
    assert small.waiting.seconds - parked_seconds >= 590
    assert waited.parked_until is None


# Measuring


def test_a_measurement_that_fails_is_tried_again_after_a_rest_and_then_is_unproven(small: Rehearsal) -> None:
    opened(small)
    small.fault("answer endpoint=query_job status=400 code=INVALIDJOB times=2")

    night = driven(small)

    assert night.verdict is Verdict.RECONCILED
    assert small.waiting.seconds >= 15 + 120

    small.fault("answer name=broken endpoint=query_job status=400 code=INVALIDJOB")
    unproven = driven(small, only=[small.partitions[0]])

    assert unproven.verdict is Verdict.UNPROVEN
    (reason,) = unproven.verdict_reasons
    assert reason.startswith("the org could not be measured in 3 tries, the last: ") and "INVALIDJOB" in reason


def test_only_one_measurement_at_a_time(small: Rehearsal) -> None:
    small.run_all()

    with small.walls.area.lock_measure(), pytest.raises(HeldElsewhere, match="works on the measurement"):
        run_measurement(small.walls, small.night.plan_id)

    assert small.night.measure_tries == 0


def test_a_measurement_that_was_killed_is_one_of_the_tries(small: Rehearsal) -> None:
    small.run_all()
    small.walls.book.begin_measure(small.night.plan_id)  # and then its process was gone

    view = view_of(small.walls, small.night.plan_id)
    run_measurement(small.walls, small.night.plan_id)

    assert (view.is_measuring, view.measure_tries) == (False, 1)
    assert small.night.measuring_since is None
    assert small.night.measurement is not None


def test_the_calls_of_a_measurement_are_counted_in_the_night(small: Rehearsal) -> None:
    small.run_all()
    small.walls.meter.flush()
    before = sum(small.walls.book.calls(small.night.plan_id).values())

    again = small.again()
    run_measurement(again.walls, small.night.plan_id)

    asked = [line for line in again.wire.requests if "/oauth2/" not in line]
    assert sum(small.walls.book.calls(small.night.plan_id).values()) - before == len(asked) > 0


def test_jobs_of_ranges_that_were_given_up_are_ended_before_the_org_is_measured(small: Rehearsal) -> None:
    small.run(0)
    small.run(1)
    small.fault("job_stuck")

    def cut(request: httpx.Request) -> None:
        if request.method == "GET" and "/jobs/ingest" in request.url.path:
            raise httpx.ReadError("cut off")

    small.wire.before = cut
    with pytest.raises(SyncError):
        small.run(2)
    small.wire.before = lambda request: None
    left_open = small.open_jobs()
    small.walls.book.give_up(small.night.plan_id, small.partitions[2], "no route")

    run_measurement(small.walls, small.night.plan_id)

    assert len(left_open) == 2
    assert small.open_jobs() == []


def test_a_measurement_hears_a_stop(small: Rehearsal) -> None:
    small.run_all()
    elsewhere = small.again()

    def stop_it(request: httpx.Request) -> None:
        if request.url.path.endswith("/jobs/query"):
            request_stop(elsewhere.walls.book)
            for _ in range(100):
                if small.waiting.is_set:
                    return
                threading.Event().wait(0.05)

    small.wire.before = stop_it
    with pytest.raises(Stopped):
        run_measurement(small.walls, small.night.plan_id)

    assert small.night.measure_tries == 0


# Two who decide at once


def test_what_two_decide_at_once_is_done_once(small: Rehearsal) -> None:
    small.run_all()
    run_measurement(small.walls, small.night.plan_id)
    ours, theirs = (view_of(small.walls, small.night.plan_id) for _ in range(2))
    (conclusion,) = decide(ours).actions
    assert isinstance(conclusion, Conclude)

    assert apply(small.walls, ours, conclusion)
    assert not apply(small.walls, theirs, conclusion)

    assert len(small.walls.book.verdicts(small.night.plan_id)) == 1


def test_a_repair_that_two_decide_is_counted_once(small: Rehearsal) -> None:
    small.fault("silent_drop nth=1 share=0.1")
    small.run_all()
    run_measurement(small.walls, small.night.plan_id)
    ours, theirs = (view_of(small.walls, small.night.plan_id) for _ in range(2))
    (repair,) = decide(ours).actions
    assert isinstance(repair, Repair)

    assert [apply(small.walls, ours, repair), apply(small.walls, theirs, repair)] == [True, False]

    assert sorted(e.repairs for e in small.walls.book.ranges(small.night.plan_id)) == [0, 0, 1]


def test_a_verdict_is_not_written_over_what_has_happened_since(small: Rehearsal) -> None:
    small.run_all()
    run_measurement(small.walls, small.night.plan_id)
    view = view_of(small.walls, small.night.plan_id)
    (conclusion,) = decide(view).actions
    request_stop(small.walls.book)

    assert not apply(small.walls, view, conclusion)
    assert small.night.verdict is None


def test_a_range_that_somebody_has_taken_up_since_is_neither_held_nor_given_up(small: Rehearsal) -> None:
    opened(small)
    view = view_of(small.walls, small.night.plan_id)

    with small.walls.area.lock_range(small.partitions[0]):
        assert not apply(small.walls, view, Hold(small.partitions[0]))
    small.run(0)
    assert not apply(small.walls, view, GiveUp(small.partitions[0], "too often"))
    assert apply(small.walls, view, Hold(small.partitions[1]))

    assert states(small) == [RangeState.DONE, RangeState.HELD, RangeState.PLANNED]


def test_a_killed_range_is_told_from_one_that_is_worked_on_or_has_just_ended(small: Rehearsal) -> None:
    opened(small)
    book, area, plan_id = small.walls.book, small.walls.area, small.night.plan_id
    for partition in small.partitions[:2]:
        book.begin_run(plan_id, partition, pid=1, fresh=False)

    with area.lock_range(small.partitions[0]):
        seen = presences(book, area, plan_id)

    assert [presence.has_died for presence in seen] == [False, True, False]


# Another org


def in_another_org(r: Rehearsal, folder: Path) -> Any:
    """A process over the same SYNC_HOME that reaches another org."""
    other = OrgTransport(folder / "other")
    seed(other.org, 10)
    return open_walls(load_settings({"SYNC_HOME": str(r.home)}), transport=other)


def test_a_stop_is_in_force_although_the_jobs_are_another_orgs(small: Rehearsal, tmp_path: Path) -> None:
    opened(small)
    walls = in_another_org(small, tmp_path)

    with pytest.raises(WrongOrg):
        stop(walls)

    assert small.walls.book.is_stopped(small.night.plan_id)
    walls.close()


def test_a_night_is_not_measured_in_another_org(small: Rehearsal, tmp_path: Path) -> None:
    small.run_all()
    walls = in_another_org(small, tmp_path)

    with pytest.raises(WrongOrg):
        run_measurement(walls, small.night.plan_id)

    assert (small.night.measurement, small.night.measure_tries) == (None, 0)
    walls.close()


# A person's switches


def test_a_restart_lifts_a_stop_and_gives_new_attempts_to_what_was_stuck(small: Rehearsal) -> None:
    opened(small)
    plan_id, (a, b, c) = small.night.plan_id, small.partitions
    small.walls.book.give_up(plan_id, a, "no route")
    small.walls.book.hold(plan_id, b)
    small.walls.book.park(plan_id, until=datetime.now(UTC) + timedelta(hours=1), reason="no calls")
    request_stop(small.walls.book)

    night = restart(small.walls)

    assert (night.stop_requested_at, night.parked_until) == (None, None)
    assert states(small) == [RangeState.PLANNED] * 3
    assert driven(small).verdict is Verdict.RECONCILED
    assert c in small.partitions


def test_a_restart_leaves_ranges_alone_that_somebody_works_on(small: Rehearsal) -> None:
    opened(small)
    for partition in small.partitions[:2]:
        small.walls.book.begin_run(small.night.plan_id, partition, pid=1, fresh=False)

    with small.walls.area.lock_range(small.partitions[0]):
        restart(small.walls)

    assert states(small) == [RangeState.READING, RangeState.FAILED, RangeState.PLANNED]


def test_a_restart_opens_a_night_again_whose_verdict_left_ranges_out(small: Rehearsal) -> None:
    opened(small)
    small.walls.book.give_up(small.night.plan_id, small.partitions[0], "no route")
    left_out = driven(small)

    restart(small.walls, partitions=[small.partitions[0]])
    mended = driven(small)

    assert (left_out.verdict, mended.verdict) == (Verdict.NOT_RECONCILED, Verdict.RECONCILED)
    assert small.is_equal()


def test_a_restart_of_a_range_that_is_done_keeps_the_verdict_until_it_has_been_run(small: Rehearsal) -> None:
    driven(small)

    assert restart(small.walls, partitions=[small.partitions[0]]).verdict is Verdict.RECONCILED


# Telling


def test_a_night_is_told_with_where_it_stands(small: Rehearsal) -> None:
    opened(small)
    book, plan_id = small.walls.book, small.night.plan_id

    def told(*died: str) -> str:
        return state_of(small.night, book.ranges(plan_id), died=died)

    seen = [told()]
    book.begin_run(plan_id, small.partitions[0], pid=1, fresh=False)
    seen += [told(), told(small.partitions[0])]
    for partition in small.partitions:
        book.end_run(plan_id, partition, state=RangeState.DONE)
    seen.append(told())
    book.park(plan_id, until=datetime.now(UTC), reason="no calls")
    seen.append(told())
    book.request_stop(plan_id)
    seen.append(told())

    assert seen == ["unfinished", "running", "died", "to be measured", "parked", "stopped"]


def test_the_json_of_a_night_adds_up_and_names_what_died(small: Rehearsal) -> None:
    driven(small)

    document = night_json(small.night, small.walls.book.ranges(small.night.plan_id), died=[small.partitions[2]])

    counts = ("expected", "staged", "succeeded", "created", "present", "missing", "different")
    assert {name: sum(row[name] for row in document["ranges"]) for name in counts} == {
        name: document["totals"][name] for name in counts
    }
    assert [row["state"] for row in document["ranges"]] == ["done", "done", "died"]
    assert document["ranges"][0]["after"] is None and document["ranges"][-1]["through"] is None
