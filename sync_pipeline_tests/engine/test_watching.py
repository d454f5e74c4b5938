"""One watch over all jobs: nobody misses the end of a job, and many lanes look no more often than one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_pipeline.domain.errors import JobStuck, Parked, RequestRefused, Stopped, WireError
from sync_pipeline.domain.ledger import IngestJob, JobState
from sync_pipeline.domain.night import JobEntry
from sync_pipeline.domain.secret import Secret
from sync_pipeline.engine.loading import end_job
from sync_pipeline.engine.walls import Interruption, Walls, utc_now
from sync_pipeline.engine.watching import QUICK_LOOKS, Watch
from sync_pipeline.salesforce.auth import TOKEN_PATH, Login
from sync_pipeline.salesforce.bulk import Bulk
from sync_pipeline.salesforce.session import Session
from sync_pipeline_tests.engine.rehearsal import rehearsal

INGEST = "/services/data/v66.0/jobs/ingest"
USER = "005000000000001AAA"
ROWS = 100_000
OTHERS = 5
"""Jobs of other users, which the list names too."""
Asked = Callable[[httpx.Request], httpx.Response | None]


@dataclass
class Timetable(Interruption):
    """An org whose jobs end when the table says, and the clock, which moves when somebody waits.

    A job processes its rows evenly between the end of the one before it and its own. The list has ``pages``, those of
    others first. ``asked`` may answer instead of the org.
    """

    ends: dict[str, float]
    fate: JobState = JobState.JOB_COMPLETE
    pages: int = 1
    unlisted: frozenset[str] = frozenset()
    asked: Asked = lambda request: None
    now: float = 0.0
    calls: list[str] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        self.check()
        with self._lock:
            self.now += seconds

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == TOKEN_PATH:
            identity = f"https://login.salesforce.com/id/00D000000000001EAA/{USER}"
            return httpx.Response(
                200,
                json={"access_token": "00D!x", "instance_url": "https://a.my.salesforce.com", "id": identity}
                | {"token_type": "Bearer", "issued_at": "1800000000000", "signature": "c2ln"},
            )
        name = request.url.path.removeprefix(INGEST).lstrip("/")
        self.calls.append(name or "list")
        self.looks.append(self.now)
        return self.asked(request) or (self._told(name) if name else self._listed(request))

    def _told(self, job_id: str) -> httpx.Response:
        if job_id not in self.ends:
            error = {"errorCode": "NOT_FOUND", "message": "The requested resource does not exist"}
            return httpx.Response(404, json=[error])
        before = max((end for end in self.ends.values() if end < self.ends[job_id]), default=0.0)
        share = min(max(self.now - before, 0.0) / (self.ends[job_id] - before), 1.0)
        told = self._job(job_id) | {"numberRecordsProcessed": int(ROWS * share)}
        if told["state"] == "Failed":
            told["errorMessage"] = "InvalidBatch : Field name not found : Nmae"
        return httpx.Response(200, json=told)

    def _listed(self, request: httpx.Request) -> httpx.Response:
        page = int(request.url.params.get("queryLocator", "1"))
        is_last = page == self.pages
        ours = [self._job(job_id) for job_id in self.ends if job_id not in self.unlisted] if is_last else []
        others = [{"id": f"750other{page}{n}", "state": "JobComplete", "object": "Account"} for n in range(OTHERS)]
        following = None if is_last else f"{INGEST}?queryLocator={page + 1}"
        return httpx.Response(200, json={"done": is_last, "records": others + ours, "nextRecordsUrl": following})

    def _job(self, job_id: str) -> dict[str, object]:
        state = self.fate if self.now >= self.ends[job_id] else JobState.IN_PROGRESS
        return {"id": job_id, "state": state, "object": "Opportunity", "operation": "upsert", "createdById": USER}


@pytest.fixture(scope="module")
def some_walls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walls]:
    with rehearsal(tmp_path_factory.mktemp("watching"), rows=1) as r:
        yield r.walls


@dataclass
class Scene:
    org: Timetable
    walls: Walls

    def jobs(self, names: Sequence[str]) -> list[tuple[IngestJob, int]]:
        return [(IngestJob(name, JobState.UPLOAD_COMPLETE), ROWS) for name in names]

    def lane(
        self,
        names: Sequence[str],
        *,
        may_call: Callable[[int], None] = lambda calls: None,
        begin: Callable[[], object] = lambda: None,
    ) -> dict[str, float]:
        """Waits for the jobs as a lane does, from ``begin`` on; when each of them was known to have ended."""
        watch, known = self.walls.watch, dict[str, float]()
        with watch.over(self.walls, self.jobs(names)):
            begin()
            while left := [name for name in names if name not in known]:
                watch.wait(self.walls, left, may_call=may_call)
                for name in left:
                    if watch.seen(name).state.is_terminal:
                        known[name] = self.org.now
        return known


def scene(walls: Walls, org: Timetable, *, poll_seconds: float = 0.25, poll_seconds_max: float = 60.0) -> Scene:
    login = Login("https://a.my.salesforce.com", client_id=Secret("id"), client_secret=Secret("secret"))
    session = Session(login, transport=httpx.MockTransport(org.answer), sleep=org.sleep, clock=lambda: org.now)
    return Scene(
        org,
        replace(
            walls,
            bulk=Bulk(session, walls.mapping),
            policy=replace(walls.policy, poll_seconds=poll_seconds, poll_seconds_max=poll_seconds_max),
            interruption=org,
            watch=Watch(),
            clock=lambda: org.now,
        ),
    )


def steady(jobs: int, seconds: float) -> dict[str, float]:
    """The jobs of an org that works on one after the other, each of which takes so long."""
    return {f"750{number:03d}": seconds * (number + 1) for number in range(jobs)}


# When it looks


@given(
    ends=st.lists(st.floats(0.01, 1_000.0), min_size=1, max_size=9, unique=True),
    pages=st.integers(1, 5),
    longest=st.floats(10.0, 60.0),
)
def test_every_end_is_known_after_it_and_no_later_than_one_pause(
    some_walls: Walls, ends: list[float], pages: int, longest: float
) -> None:
    org = Timetable({f"750{number:03d}": end for number, end in enumerate(ends)}, pages=pages)

    known = scene(some_walls, org, poll_seconds_max=longest).lane(list(org.ends))

    assert all(org.ends[name] <= at <= org.ends[name] + longest + 1e-6 for name, at in known.items())


@given(jobs=st.integers(1, 20), seconds=st.floats(0.3, 90.0))
def test_the_end_of_steady_work_is_known_soon(some_walls: Walls, jobs: int, seconds: float) -> None:
    org = Timetable(steady(jobs, seconds))

    known = scene(some_walls, org).lane(list(org.ends))

    assert max(known.values()) - jobs * seconds <= max(0.5, seconds / 2)


UNFINISHED = st.lists(
    st.fixed_dictionaries(
        {
            "state": st.sampled_from(["Open", "UploadComplete", "InProgress", "Paused"]),
            "numberRecordsProcessed": st.integers(0, 3 * ROWS),
        }
    ),
    min_size=1,
    max_size=5,
)


@given(told=UNFINISHED, grows=st.booleans())
def test_no_job_that_does_not_end_keeps_the_watch_asking_faster_than_once_a_second(
    some_walls: Walls, told: list[dict[str, Any]], grows: bool
) -> None:
    def unfinished(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == TOKEN_PATH:
            return None
        look = len(org.looks)
        answer = told[look % len(told)]
        rows = answer["numberRecordsProcessed"] + (look if grows else 0)  # progress at every look, for ever
        return httpx.Response(200, json={**answer, "id": "750000", "numberRecordsProcessed": rows})

    org = Timetable(steady(1, 1e9), asked=unfinished)
    walls = scene(some_walls, org).walls
    with walls.watch.over(walls, [(IngestJob("750000", JobState.UPLOAD_COMPLETE), ROWS)]):
        for _ in range(QUICK_LOOKS + 60):
            walls.watch.wait(walls, ["750000"], may_call=lambda calls: None)

    pauses = [after - before for before, after in pairwise(org.looks)]
    assert all(pause >= 1.0 - 1e-9 for pause in pauses[QUICK_LOOKS:])


def test_an_abortion_that_the_org_does_not_follow_is_not_waited_for_in_a_storm_of_calls(some_walls: Walls) -> None:
    org = Timetable(steady(1, 1e9))
    entry = JobEntry(
        intent=1, plan_id="n", partition="p", generation=1, part=1, round=1, rows=ROWS, serial=False, job_id="750000",
        state="InProgress", intended_at=utc_now(),
    )  # fmt: skip

    with pytest.raises(JobStuck):
        end_job(scene(some_walls, org).walls, entry)

    pauses = [after - before for before, after in pairwise(org.looks)]
    assert all(pause >= 1.0 for pause in pauses[4:])
    assert len(pauses) < 300  # of four hours


def test_ten_minutes_of_jobs_are_looked_at_less_than_three_times_a_minute(some_walls: Walls) -> None:
    org = Timetable(steady(20, 30.0))

    known = scene(some_walls, org).lane(list(org.ends))

    assert len(org.calls) < 30
    assert max(known.values()) < 603.0


@given(ends=st.lists(st.floats(0.01, 500.0), min_size=1, max_size=8, unique=True))
def test_no_pause_is_shorter_or_longer_than_the_settings_say(some_walls: Walls, ends: list[float]) -> None:
    org = Timetable({f"750{number:03d}": end for number, end in enumerate(ends)})

    scene(some_walls, org, poll_seconds=0.5, poll_seconds_max=20.0).lane(list(org.ends))

    looks = sorted(set(org.looks))
    pauses = [after - before for before, after in pairwise([0.0, *looks])]
    assert all(0.5 - 1e-9 <= pause <= 20.0 + 1e-9 for pause in pauses)


def test_a_job_that_the_org_does_not_begin_is_looked_at_ever_more_rarely(some_walls: Walls) -> None:
    org = Timetable({"750000": 1_000.0, "750001": 1_001.0})

    scene(some_walls, org).lane(["750000", "750001"])

    pauses = [after - before for before, after in pairwise([0.0, *org.looks])]
    assert pauses[:9] == [0.25, 0.25, 0.5, 1, 2, 4, 8, 16, 32]
    assert set(pauses[9:20]) == {60}


def test_work_that_comes_later_finds_short_pauses_again(some_walls: Walls) -> None:
    org = Timetable({"750000": 300.0, "750001": 900.1})
    at = scene(some_walls, org)
    at.lane(["750000"])
    org.now = 900.0

    assert at.lane(["750001"])["750001"] == 900.25


# How it looks


def test_one_call_tells_the_state_of_all_jobs_and_the_last_one_is_asked_how_far_it_is(some_walls: Walls) -> None:
    org = Timetable({"750000": 10.0, "750001": 11.0, "750002": 100.0})

    scene(some_walls, org).lane(list(org.ends))

    first = org.calls.index("750002")
    assert set(org.calls[:first]) == {"list"}
    assert set(org.calls[first:]) == {"750002"}


def test_a_list_with_more_pages_than_there_are_jobs_is_asked_once(some_walls: Walls) -> None:
    org = Timetable({"750000": 50.0, "750001": 51.0}, pages=7)

    scene(some_walls, org).lane(list(org.ends))

    assert org.calls[:7] == ["list"] * 7
    assert set(org.calls[7:]) == {"750000", "750001"}


def test_pages_of_the_list_that_are_not_needed_are_not_asked_for(some_walls: Walls) -> None:
    org = Timetable({"750000": 0.1, "750001": 0.2}, pages=3)

    def all_on_the_first_page(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != INGEST:
            return None
        records = [{"id": name, "state": "JobComplete"} for name in org.ends]
        return httpx.Response(
            200, json={"done": False, "records": records, "nextRecordsUrl": f"{INGEST}?queryLocator=2"}
        )

    org.asked = all_on_the_first_page
    scene(some_walls, org).lane(list(org.ends))

    assert org.calls == ["list"]


def test_a_job_that_the_list_does_not_name_is_asked_for(some_walls: Walls) -> None:
    org = Timetable({"750000": 20.0, "750001": 30.0, "750002": 40.0}, unlisted=frozenset({"750001"}))

    known = scene(some_walls, org).lane(list(org.ends))

    assert org.calls[:2] == ["list", "750001"]
    assert known.keys() == org.ends.keys()


def test_why_a_job_failed_is_asked_of_the_job(some_walls: Walls) -> None:
    org = Timetable({"750000": 0.1, "750001": 9.0}, fate=JobState.FAILED)
    at = scene(some_walls, org)

    with at.walls.watch.over(at.walls, at.jobs(["750000", "750001"])):
        at.walls.watch.wait(at.walls, ["750000"], may_call=lambda calls: None)

        assert org.calls == ["list", "750000"]
        assert at.walls.watch.seen("750000").error.startswith("InvalidBatch")


@pytest.mark.parametrize("status", [403, 404, 501])
def test_a_list_that_is_refused_is_not_asked_again(some_walls: Walls, status: int) -> None:
    org = Timetable({"750000": 20.0, "750001": 30.0})

    def refuse(request: httpx.Request) -> httpx.Response | None:
        error = {"errorCode": "INSUFFICIENT_ACCESS" if status == 403 else "NOT_FOUND", "message": "no"}
        return httpx.Response(status, json=[error]) if request.url.path == INGEST else None

    org.asked = refuse
    known = scene(some_walls, org).lane(list(org.ends))

    assert org.calls.count("list") == 1
    assert known.keys() == org.ends.keys()


def test_a_list_that_does_not_come_to_an_end_is_done_without(some_walls: Walls) -> None:
    org = Timetable({"750000": 2.0, "750001": 3.0})

    def endless(request: httpx.Request) -> httpx.Response | None:
        following = f"{INGEST}?queryLocator=again"
        page = {"done": False, "records": [], "nextRecordsUrl": following}
        return httpx.Response(200, json=page) if request.url.path == INGEST else None

    org.asked = endless

    assert scene(some_walls, org).lane(list(org.ends)).keys() == org.ends.keys()


def test_a_network_that_is_down_ends_the_wait(some_walls: Walls) -> None:
    org = Timetable({"750000": 2.0, "750001": 3.0}, asked=lambda request: httpx.Response(503, html="<html>"))

    with pytest.raises(WireError):
        scene(some_walls, org).lane(list(org.ends))


def test_what_a_look_costs_is_asked_before_it_is_taken(some_walls: Walls) -> None:
    org = Timetable({"750000": 20.0, "750001": 30.0}, pages=3)
    at = scene(some_walls, org)
    told: list[int] = []

    def no_more(calls: int) -> None:
        told.append(calls)
        if len(told) == 3:
            raise Parked("used up", until=utc_now())

    with pytest.raises(Parked):
        at.lane(list(org.ends), may_call=no_more)
    assert told == [1, 2, 2]  # that the list takes three calls is not known before the first one
    assert org.calls == ["list"] * 3 + ["750000", "750001"]


# Many lanes


@settings(max_examples=15)
@given(lanes=st.lists(st.integers(1, 3), min_size=1, max_size=6), seconds=st.floats(0.5, 40.0))
def test_many_lanes_look_no_more_often_than_one_and_each_hears_of_its_own_jobs(
    some_walls: Walls, lanes: list[int], seconds: float
) -> None:
    ends = steady(sum(lanes), seconds)
    alone, together = scene(some_walls, Timetable(ends)), scene(some_walls, Timetable(ends))
    alone.lane(list(ends))
    places = [sum(lanes[:number]) for number in range(len(lanes) + 1)]
    own = [list(ends)[first:last] for first, last in pairwise(places)]
    all_of_them = threading.Barrier(len(lanes))

    with ThreadPoolExecutor(len(lanes)) as pool:
        heard = list(pool.map(lambda names: together.lane(names, begin=lambda: all_of_them.wait(10)), own, timeout=30))

    assert [set(one) for one in heard] == [set(names) for names in own]
    assert all(at >= ends[name] for one in heard for name, at in one.items())
    assert together.org.calls == alone.org.calls


def test_when_the_lane_that_looks_leaves_another_one_goes_on(some_walls: Walls) -> None:
    org = Timetable(steady(4, 10.0))
    at = scene(some_walls, org)
    is_looking, is_heard = threading.Event(), threading.Event()

    def used_up(calls: int) -> None:
        is_looking.set()
        assert is_heard.wait(10)
        raise Parked("used up", until=utc_now())

    def come_later() -> None:
        assert is_looking.wait(10)
        is_heard.set()

    with ThreadPoolExecutor(2) as pool:
        leaves = pool.submit(at.lane, ["750000", "750001"], may_call=used_up)
        stays = pool.submit(at.lane, ["750002", "750003"], begin=come_later)
        with pytest.raises(Parked):
            leaves.result(30)
        assert set(stays.result(30)) == {"750002", "750003"}


def test_a_job_that_the_org_does_not_know_troubles_its_own_lane_alone(some_walls: Walls) -> None:
    org = Timetable({"750000": 5.0})
    at = scene(some_walls, org)

    with at.walls.watch.over(at.walls, at.jobs(["750gone"])):
        assert at.lane(["750000"]).keys() == {"750000"}
        with pytest.raises(RequestRefused, match="does not exist"):
            at.walls.watch.seen("750gone")


def test_an_interruption_ends_the_wait_of_every_lane_at_once(some_walls: Walls) -> None:
    org = Timetable(steady(4, 1e6))
    at = scene(some_walls, org, poll_seconds=600.0, poll_seconds_max=600.0)
    interruption = Interruption()
    walls = replace(at.walls, interruption=interruption)

    with ThreadPoolExecutor(4) as pool:
        lanes = [pool.submit(Scene(org, walls).lane, [name]) for name in org.ends]
        wait(lanes, timeout=0.1)
        interruption.interrupt("Ctrl-C")
        for lane in lanes:
            with pytest.raises(Stopped):
                lane.result(10)
    assert org.calls == []
