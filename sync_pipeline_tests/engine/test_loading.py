"""Rows on their way into the org: whatever happens to a job or its answers, each row gets one fate and none is lost."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import polars as pl
import pytest

from sync_pipeline.domain.errors import CapReached, Parked, RequestRefused, WireError
from sync_pipeline.domain.ledger import Counts, RangeState, UploadPart
from sync_pipeline.engine.loading import APART_PARTS, HAND_OVER_TRIES, abort_orphans, apart_rows
from sync_pipeline.engine.measure_run import run_measurement
from sync_pipeline.engine.range_run import DRIFT_FILE
from sync_pipeline.simulated_org.faults import clear_faults
from sync_pipeline.simulated_org.objects import find_object
from sync_pipeline.simulated_org.records import Records
from sync_pipeline_tests.engine.rehearsal import KEY, Rehearsal, rehearsal

ROWS = 120
SAVED = Counts(expected=ROWS, staged=ROWS, created=ROWS)
CREATE, LIST = ("POST", "/jobs/ingest"), ("GET", "/jobs/ingest")


def states(r: Rehearsal) -> list[str]:
    """What became of the org's jobs, in the order of their creation."""
    return [job.state for job in r.org_jobs()]


def assert_all_saved(r: Rehearsal) -> None:
    assert r.is_equal()
    assert r.open_jobs() == []
    assert {job.state for job in r.jobs()} <= {"accounted", "dropped"}


# Answers lost on the way


@pytest.mark.parametrize("endpoint", ["create", "upload", "close", "poll", "jobs", "results"])
@pytest.mark.parametrize("trouble", ["lost_answer", "cut", "html_503", "late_answer", "cut_body"])
def test_an_answer_lost_on_the_way_sends_no_row_twice_and_leaves_no_job_open(
    tmp_path: Path, endpoint: str, trouble: str
) -> None:
    # One job is looked at by itself, two by the list.
    part_rows = ROWS if endpoint == "poll" else ROWS // 2
    with rehearsal(tmp_path, rows=ROWS, rows_per_range=ROWS, part_rows=part_rows) as r:
        assert r.night
        r.org.set_setting("job_polls", 2)
        r.fault(f"{trouble} endpoint={endpoint} every=2 times=3")

        assert r.run().counts == SAVED

        assert_all_saved(r)
        assert set(Counter(r.processed_keys()).values()) == {1}
        assert set(states(r)) <= {"JobComplete", "Aborted"}


def test_a_job_whose_create_answer_was_lost_is_found_and_aborted(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50) as r:
        r.fault("lost_answer endpoint=create nth=1")

        r.run()

        assert states(r) == ["Aborted", "JobComplete"]
        assert [job.state for job in r.jobs()] == ["dropped", "accounted"]


@pytest.mark.parametrize("answer", ["retry_after seconds=20", "retry_after", "answer status=420", "answer status=504"])
def test_an_org_that_asks_for_patience_is_given_it(tmp_path: Path, answer: str) -> None:
    with rehearsal(tmp_path, rows=ROWS, rows_per_range=ROWS, part_rows=ROWS) as r:
        for endpoint in ("create", "poll", "results"):
            r.fault(f"{answer} endpoint={endpoint} nth=1 name={endpoint}")

        r.run()

        assert_all_saved(r)
        assert (max(r.waiting.waits) >= 20) == answer.endswith("=20")


def test_a_cut_off_of_seconds_is_waited_out_with_growing_pauses(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50) as r:
        r.fault(f"html_503 endpoint=create times={HAND_OVER_TRIES - 1}")

        r.run()

        assert r.waiting.waits[:3] == [1.0, 2.0, 4.0]
        assert r.wire.count(*CREATE) == HAND_OVER_TRIES
        assert_all_saved(r)


def test_a_cut_off_that_lasts_ends_the_run_and_the_next_one_sends_what_is_left(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50) as r:
        r.fault(f"html_503 endpoint=create times={HAND_OVER_TRIES}")

        with pytest.raises(WireError, match="could not be handed over in 4 tries"):
            r.run()

        assert (r.entry().state, r.entry().attempts) == (RangeState.FAILED, 1)
        assert r.run().counts.created == 50
        assert_all_saved(r)


def test_a_token_that_expires_every_few_calls_is_renewed_on_the_way(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=ROWS, rows_per_range=ROWS) as r:
        r.org.set_setting("token_calls", 4)

        r.run()

        assert r.wire.count("POST", "/services/oauth2/token") >= 4
        assert_all_saved(r)
        assert set(Counter(r.processed_keys()).values()) == {1}


def test_a_job_that_ended_before_its_abortion_is_accounted_for_and_not_sent_again(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50) as r:
        # The org closes the job, no answer says so, and it has worked it off when its abortion is asked for.
        r.fault("lost_answer endpoint=close nth=1")
        r.fault("html_503 endpoint=poll times=6")

        r.run()

        assert states(r) == ["JobComplete"]
        assert set(Counter(r.processed_keys()).values()) == {1}
        assert_all_saved(r)


def test_a_job_that_could_neither_be_uploaded_nor_aborted_is_ended_before_its_part_gets_another(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50) as r:
        r.fault("cut endpoint=upload nth=1")
        r.fault("html_503 endpoint=close times=6")

        r.run()

        assert states(r) == ["Aborted", "JobComplete"]
        assert [job.state for job in r.jobs()] == ["dropped", "accounted"]
        assert_all_saved(r)


# Many lanes under one user


def test_ten_lanes_that_lose_create_answers_abort_their_own_orphans_and_no_job_of_a_sibling(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=500, rows_per_range=50, part_rows=50) as r:
        r.fault("lost_answer endpoint=create share=0.3 seed=4")
        assert len(r.partitions) == 10

        with ThreadPoolExecutor(max_workers=10) as lanes:
            entries = list(lanes.map(r.run, range(10)))

        assert [entry.counts.created for entry in entries] == [50] * 10
        assert set(Counter(r.processed_keys()).values()) == {1}
        assert states(r).count("JobComplete") == 10
        assert states(r).count("Aborted") == r.wire.count(*CREATE) - 10 > 0
        assert_all_saved(r)


def test_a_lane_that_looks_for_orphans_waits_while_a_sibling_creates_its_job(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=100, rows_per_range=50, part_rows=50) as r:
        lost = r.walls.book.intend_job(
            r.night.plan_id, r.partitions[1], generation=1, part=1, round=0, rows=1, serial=False
        )
        other = r.again()
        is_made, goes_on = threading.Event(), threading.Event()

        def hold_back(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
            """The answer that names the new job is on its way until the other lane waits, or has acted."""
            if (request.method, request.url.path[-12:]) == CREATE:
                is_made.set()
                assert goes_on.wait(10)
            return answer

        class Waiting(list[float]):
            def append(self, seconds: float) -> None:
                goes_on.set()

        r.wire.after = hold_back
        other.waiting.waits = Waiting()
        with ThreadPoolExecutor(max_workers=1) as lane:
            sibling = lane.submit(r.run, 0)
            assert is_made.wait(10)
            abort_orphans(other.walls, [job for job in r.jobs() if job.intent == lost])
            goes_on.set()
            assert sibling.result().counts.created == 50
        assert states(r) == ["JobComplete"]
        other.walls.close()


# What becomes of a job


@pytest.mark.parametrize(
    "trouble",
    [
        "job_fails share=0.5",
        'job_fails share=0.2 message="TooManyLockFailure : Too many lock failure 200 Trying again later"',
        "job_fails share=0",
        "job_aborted share=0.5",
        "unprocessed share=0.4",
        "empty_results form=header",
        "empty_results form=empty",
        "empty_results form=no_content",
        "lost_results",
        "wrong_counters processed=7 failed=-3",
        "odd_headers",
    ],
)
def test_a_job_that_goes_wrong_once_costs_a_round_and_no_row(tmp_path: Path, trouble: str) -> None:
    with rehearsal(tmp_path, rows=ROWS, rows_per_range=ROWS) as r:
        r.fault(f"{trouble} times=1")

        counts = r.run().counts

        assert (counts.succeeded, counts.failed, counts.unprocessed) == (ROWS, 0, 0)
        assert_all_saved(r)


def test_a_stuck_job_is_aborted_at_its_deadline_and_its_rows_are_sent_again(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50, job_deadline_seconds=600.0) as r:
        r.fault("job_stuck times=1")

        r.run()

        assert states(r) == ["Aborted", "JobComplete"]
        assert r.waiting.seconds > 600
        assert_all_saved(r)


def test_a_stuck_job_that_cannot_be_aborted_ends_the_run_and_is_adopted_by_the_next(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50, job_deadline_seconds=600.0) as r:
        r.fault("job_stuck times=1")
        r.fault('answer endpoint=close after=1 status=400 code=INVALIDJOBSTATE message="not now" times=1')

        with pytest.raises(RequestRefused, match="not now"):
            r.run()
        assert len(r.open_jobs()) == 1

        assert r.run().counts.succeeded == 50
        assert_all_saved(r)


def test_a_job_that_the_org_refuses_as_a_whole_is_told_with_its_reason(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50) as r:
        r.fault('job_fails share=0 message="InvalidBatch : Field name not found : Nmae"')

        with pytest.raises(RequestRefused, match="Field name not found : Nmae"):
            r.run()


def test_the_counts_of_jobs_are_those_of_their_result_files_where_these_name_every_row(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=ROWS, rows_per_range=ROWS) as r:
        r.run()

        assert len(r.jobs()) > 1
        assert [(job.processed, job.failed) for job in r.jobs()] == [(job.rows, 0) for job in r.jobs()]
        assert not any(
            line.startswith("GET") and line.endswith(job.job_id) for line in r.wire.requests for job in r.jobs()
        )


def test_an_org_that_counts_other_rows_than_its_result_files_name_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with rehearsal(tmp_path, rows=ROWS, rows_per_range=ROWS) as r:
        r.fault("empty_results form=header times=1")

        r.run()

        rows = r.jobs()[0].rows
        assert f"counts {rows} rows processed, its result files name 0; the files count" in caplog.text
        assert_all_saved(r)


# Results


def test_results_that_cannot_be_used_leave_their_rows_unacknowledged_and_they_are_sent_again(tmp_path: Path) -> None:
    broken = [
        b'"sf__Id","sf__Created"\n"006000000000001AAA","true"\n',
        f'"sf__Id","sf__Created",{KEY}\n"006000000000001AAA","maybe","externalOpp0000001"\n'.encode(),
        f'"sf__Id","sf__Created",{KEY}\n"006000000000001AAA","true","a key that nobody sent"\n'.encode(),
    ]
    for number, content in enumerate(broken):
        with rehearsal(tmp_path / str(number), rows=50, rows_per_range=50) as r:
            first: list[str] = []

            def swap(
                request: httpx.Request, answer: httpx.Response, content: bytes = content, first: list[str] = first
            ) -> httpx.Response:
                if (
                    not request.url.path.endswith("/successfulResults")
                    or [*first, request.url.path][0] != request.url.path
                ):
                    return answer
                first.append(request.url.path)
                return httpx.Response(200, content=content, headers={"Content-Type": "text/csv"})

            r.wire.after = swap
            assert r.run().counts == Counts(expected=50, staged=50, updated=50)
            assert len(first) == 3
            assert states(r) == ["JobComplete", "JobComplete"]
            assert_all_saved(r)


def test_results_that_do_not_come_for_now_are_read_by_the_next_run(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50) as r:
        r.fault("html_503 endpoint=results times=6")

        with pytest.raises(WireError):
            r.run()
        assert r.run().counts == Counts(expected=50, staged=50, created=50)

        assert states(r) == ["JobComplete"]
        assert_all_saved(r)


# Rows that are refused


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_locked_rows_are_sent_again_until_none_is_left(tmp_path: Path, share: float) -> None:
    with rehearsal(tmp_path, rows=400, rows_per_range=400, part_rows=200) as r:
        r.fault(f"lock_rows share={share} seed=2")

        counts = r.run().counts

        assert (counts.succeeded, counts.rejected) == (400, 0)
        assert 1 < max(Counter(r.processed_keys()).values()) <= 6
        assert_all_saved(r)


def test_a_storm_of_locks_is_waited_out_for_minutes_and_no_longer(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=400, rows_per_range=400, part_rows=400) as r:
        r.fault("lock_rows share=0.8")

        counts = r.run().counts

        assert counts.adds_up
        assert 0 < counts.failed < 400 * 0.5
        assert set(r.rejects()["code"]) == {"UNABLE_TO_LOCK_ROW"}
        assert [seconds for seconds in r.waiting.waits if seconds >= 15] == [15, 30, 60, 120, 120]
        assert max(part.round for part in _all_parts(r)) == 5


def test_the_last_few_rows_are_waited_for_briefly_at_first_and_as_long_as_for_a_storm_at_last(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=6, rows_per_range=400, part_rows=400, poll_seconds=0.25) as r:
        r.fault("lock_rows share=1.0")

        r.run()

        assert [seconds for seconds in r.waiting.waits if seconds >= 1] == [1, 2, 30, 120]


def test_ranges_that_were_in_each_others_way_wait_for_different_times(tmp_path: Path) -> None:
    waits: list[float] = []
    with rehearsal(tmp_path, rows=800, rows_per_range=400, part_rows=400) as r:
        for place in range(2):
            r.fault("lock_rows share=0.8 times=2")
            r.waiting.waits.clear()
            r.run(place)
            waits += [seconds for seconds in r.waiting.waits if seconds >= 15]

    assert waits == [15, 30, 22.5, 45]


def test_a_hundredth_of_a_range_is_no_storm(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=3_000, rows_per_range=3_000, part_rows=3_000, batch_rows=3_000, page_rows=3_000) as r:
        r.fault("lock_rows share=0.009 times=1 name=first")
        r.fault("lock_rows share=1.0 times=2 name=then")

        r.run()

        assert [part.rows for part in _all_parts(r)] == [3_000, 23, 23]
        assert [seconds for seconds in r.waiting.waits if seconds >= 1] == [1]


def test_a_storm_that_ends_while_it_is_waited_out_costs_no_row(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=400, rows_per_range=400, part_rows=400) as r:
        r.fault("lock_rows share=0.8 times=2")

        counts = r.run().counts

        assert (counts.succeeded, counts.rejected) == (400, 0)
        assert [seconds for seconds in r.waiting.waits if seconds >= 15] == [15, 30]


def test_the_last_round_is_serial_and_its_parts_hold_one_batch_each(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=400, rows_per_range=400, part_rows=400, failed_share_max=1.0) as r:
        r.fault("lock_rows share=0.95")

        r.run()

        last = [part for part in _all_parts(r) if part.round == 5]
        assert all(part.serial and part.rows <= 50 for part in last)
        assert not any(part.serial for part in _all_parts(r) if part.round < 5)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("FIELD_CUSTOM_VALIDATION_EXCEPTION", "The stage is closed: no edit"),
        ("DUPLICATES_DETECTED", "Use one of these records?"),
        ("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id"),
        ("STORAGE_LIMIT_EXCEEDED", "storage limit exceeded"),
        ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "trigger: System.NullPointerException"),
    ],
)
def test_a_row_refused_for_good_is_sent_once_and_reported_with_code_and_message(
    tmp_path: Path, code: str, message: str
) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50) as r:
        r.fault(f"row_errors keys='[\"externalOpp0000007\"]' code={code} message='{message}'")

        assert r.run().counts == Counts(expected=50, staged=50, created=49, failed=1)

        rejects = r.rejects()
        assert rejects.select("key", "outcome", "code", "message").rows() == [
            ("externalOpp0000007", "failed", code, message)
        ]
        assert Counter(r.processed_keys())["externalOpp0000007"] == 1


def test_rows_that_the_org_holds_twice_are_refused_and_reported(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50, in_org=0.2) as r:
        opportunity = find_object(r.org, "Opportunity")
        assert opportunity is not None
        records = Records(r.org, opportunity)
        frame = pl.concat(list(records.frames()))
        twin = frame.head(1).with_columns(Id=pl.lit("006000000000XYZAAA"))
        records.replace_all(iter([pl.concat([twin, frame])]))

        counts = r.run().counts

        assert (counts.succeeded, counts.failed) == (49, 1)
        assert r.rejects().select("key", "code").rows() == [(twin[KEY][0], "DUPLICATE_EXTERNAL_ID")]


# Caps


def test_a_range_most_of_whose_rows_are_refused_is_given_up_and_stays_so(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=400, rows_per_range=400) as r:
        r.fault("row_errors share=0.75")

        with pytest.raises(CapReached, match=r"\d+ of 400 rows do not get through"):
            r.run()
        assert r.entry().state is RangeState.GIVEN_UP
        sent = len(r.processed_keys())

        r.walls.book.rearm(r.night.plan_id, [r.partitions[0]])
        with pytest.raises(CapReached):
            r.run()
        assert r.entry().state is RangeState.GIVEN_UP
        assert len(r.processed_keys()) == sent
        assert r.open_jobs() == []


def test_rows_that_stay_locked_count_towards_the_cap_when_the_rounds_are_over(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=400, rows_per_range=400, part_rows=400) as r:
        r.fault("lock_rows share=0.97")

        for _ in range(2):
            with pytest.raises(CapReached):
                r.run()
            assert r.entry().state is RangeState.GIVEN_UP
            r.walls.book.rearm(r.night.plan_id, [r.partitions[0]])


def test_the_cap_does_not_count_in_a_range_of_a_few_rows(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50) as r:
        r.fault("row_errors share=0.9")

        assert r.run().state is RangeState.DONE


# Serial jobs


def with_a_serial_job_in_flight(r: Rehearsal) -> None:
    """The first range ends while the org works on its serial job."""
    r.org.set_setting("pace", {"rows_per_second": 10, "batches": 5})

    def spend_the_budget(request: httpx.Request) -> None:
        if request.method == "PATCH" and any(job.serial for job in r.jobs()):
            r.org.set_setting("api_used", 90_000)

    r.wire.before = spend_the_budget
    with pytest.raises(Parked):
        r.run(0)
    r.wire.before = lambda request: None
    r.org.set_setting("api_used", 0)
    assert [job.serial for job in r.jobs() if not job.is_over] == [True]
    assert len(r.open_jobs()) == 1


def test_a_serial_job_waits_until_that_of_a_run_which_is_gone_has_ended(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=200, rows_per_range=100, part_rows=100, hot_parents=1.0, accounts=1) as r:
        with_a_serial_job_in_flight(r)
        open_beside: list[list[str]] = []

        def note(request: httpx.Request) -> None:
            if (request.method, request.url.path[-12:]) == CREATE and r.jobs()[-1].serial:
                open_beside.append(r.open_jobs())

        r.wire.before = note
        r.run(1)

        assert open_beside
        assert open_beside == [[]] * len(open_beside)
        r.run(0)
        assert set(Counter(r.processed_keys()).values()) == {1}
        assert_all_saved(r)


def test_an_adopted_serial_job_takes_its_turn(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=100, rows_per_range=100, part_rows=100, hot_parents=1.0, accounts=1) as r:
        with_a_serial_job_in_flight(r)
        other = r.again()
        is_waiting = threading.Event()

        class Waits(list[float]):
            def append(self, seconds: float) -> None:
                is_waiting.set()

        other.waiting.waits = Waits()
        with ThreadPoolExecutor(max_workers=1) as lane:
            with r.walls.book.turn("serial"):
                adopting = lane.submit(other.run, 0)
                assert is_waiting.wait(10)
                assert other.wire.count("GET", "/successfulResults") == 0
            assert adopting.result().counts.created == 100
        other.walls.close()


# Repairs


def test_a_repair_is_carried_out_once_however_often_its_run_fails(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50) as r:
        r.fault('silent_drop keys=\'["externalOpp0000007","externalOpp0000048"]\'')
        r.run()
        assert not r.is_equal()
        clear_faults(r.org)
        _drift(r, "externalOpp0000007", "externalOpp0000048")
        r.walls.book.count_repair(r.night.plan_id, r.partitions[0])
        r.walls = replace(r.walls, policy=replace(r.walls.policy, part_rows=1, batch_rows=1))

        # Before anything was cut, and when one of two parts is accounted for.
        for trouble in ("html_503 endpoint=describe times=6", "html_503 endpoint=results after=3 times=6"):
            r.fault(trouble)
            with pytest.raises(WireError):
                r.run()
            clear_faults(r.org)
        assert r.run().counts == Counts(expected=50, staged=50, created=50)

        assert r.is_equal()
        times = Counter(r.processed_keys())
        assert (times.pop("externalOpp0000007"), times.pop("externalOpp0000048")) == (2, 2)
        assert set(times.values()) == {1}


def _all_parts(r: Rehearsal) -> list[UploadPart]:
    with r.store() as store:
        return store.parts(open_only=False)


def _drift(r: Rehearsal, *keys: str) -> None:
    """What a measurement would have put aside for the repair."""
    frame = pl.DataFrame({"key": keys}).with_columns(partition=pl.lit(r.partitions[0]), finding=pl.lit("missing"))
    frame.write_parquet(r.walls.area.night_folder(r.night.plan_id) / DRIFT_FILE)


# Locks and limits that an automation of the org meets


@pytest.mark.parametrize("by", ["trigger", "flow", "package"])
def test_rows_whose_automation_lost_a_lock_are_sent_again(tmp_path: Path, by: str) -> None:
    with rehearsal(tmp_path, rows=ROWS, rows_per_range=ROWS, part_rows=ROWS) as r:
        r.fault(f"automation_locks by={by} share=0.3 times=2")

        assert r.run().counts == SAVED

        assert_all_saved(r)
        assert len(states(r)) == 3


@pytest.mark.parametrize("limit", ["cpu", "soql", "dml"])
def test_rows_that_met_a_limit_together_are_sent_in_jobs_that_shrink(tmp_path: Path, limit: str) -> None:
    with rehearsal(tmp_path, rows=ROWS, rows_per_range=ROWS, part_rows=ROWS) as r:
        r.fault(f"automation_limit limit={limit} rows=30")

        assert r.run().counts == SAVED

        assert_all_saved(r)
        sizes = [job.processed for job in r.org_jobs()]
        assert sizes[0] == ROWS
        assert max(sizes[1:3]) <= 105  # 100 rows, and a little more where that saves a part
        assert max(sizes[-4:]) <= 30


def test_rows_of_one_parent_that_met_a_limit_together_are_parted(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=ROWS, rows_per_range=ROWS, part_rows=ROWS, accounts=3) as r:
        r.fault("parent_limit rows=20")

        assert r.run().counts == SAVED

        assert_all_saved(r)


def test_rows_that_met_a_limit_do_not_make_the_jobs_of_the_others_small(tmp_path: Path) -> None:
    keys = ",".join(f"externalOpp{number:07d}" for number in range(1, 11))
    cpu = "OppTrigger: execution of BeforeInsert caused by: System.LimitException: Apex CPU time limit exceeded"
    with rehearsal(tmp_path, rows=ROWS * 3, rows_per_range=ROWS * 3, part_rows=ROWS * 3, batch_rows=ROWS * 3) as r:
        r.fault(f"row_errors keys={keys} code=CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY 'message={cpu}' times=1")
        r.fault("lock_rows share=0.6 times=1")

        assert r.run().counts.created == ROWS * 3

        sizes = sorted(job.processed for job in r.org_jobs())
        assert len(sizes) == 3
        assert sizes[0] <= 10 < sizes[1]


@pytest.mark.parametrize("rows", [1, 200, 201, 5_000, 40_001, 1_000_000])
def test_the_jobs_of_rows_that_met_a_limit_are_bounded_in_every_round(rows: int) -> None:
    for retries in range(1, 21):
        size = apart_rows(rows, halvings=retries)

        assert size >= 1
        assert rows / size <= APART_PARTS


def test_a_trigger_that_fails_for_good_is_asked_once(tmp_path: Path) -> None:
    message = "OppTrigger: execution of BeforeInsert caused by: System.NullPointerException: Attempt to de-reference"
    with rehearsal(tmp_path, rows=50, rows_per_range=50) as r:
        r.fault(
            "row_errors keys=externalOpp0000007 code=CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY "
            f"'message={message} a null object'"
        )

        counts = r.run().counts

        assert (counts.created, counts.failed) == (49, 1)
        assert len(states(r)) == 1


def test_a_job_that_nobody_can_abort_delays_the_measurement_by_few_looks(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=10, rows_per_range=10) as r:
        r.run()
        left = r.walls.bulk.create()
        intent = r.walls.book.intend_job(
            r.night.plan_id, r.partitions[0], generation=1, part=9, round=9, rows=1, serial=False
        )
        r.walls.book.job_created(intent, left.id)
        r.fault("answer endpoint=close status=400 code=INVALIDJOBSTATE")
        looks = r.wire.count("GET", left.id)

        run_measurement(r.walls, r.night.plan_id)

        assert 3 <= r.wire.count("GET", left.id) - looks < 15
        assert r.waiting.seconds > 60
