"""One run of one range: what it begins with, what it leaves in the book however it ends, and what it shares."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import polars as pl
import pytest

from sync_pipeline.domain.errors import (
    HeldElsewhere,
    LimitExceeded,
    MappingError,
    Parked,
    StateError,
    Stopped,
    WireError,
    WrongOrg,
)
from sync_pipeline.domain.ledger import Counts, RangeState, Verdict
from sync_pipeline.domain.plan import OrgIdentity
from sync_pipeline.engine.heartbeat import Heartbeat
from sync_pipeline.engine.range_run import release_jobs, run_range
from sync_pipeline.simulated_org.seed import SOURCE
from sync_pipeline.simulated_org.source import change_source
from sync_pipeline.staging.durable import Disk
from sync_pipeline_tests.engine.rehearsal import Rehearsal, rehearsal

PROJECT = Path(__file__).parents[2]
ONE = {"rows": 50, "rows_per_range": 50}
"""One range of one part."""


def interrupt_at(r: Rehearsal, method: str, ending: str) -> None:
    """A person stops the work when this request has been answered."""

    def after(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if request.method == method and request.url.path.endswith(ending):
            r.waiting.interrupt("Ctrl-C")
        return answer

    r.wire.after = after


# How a run begins


def test_a_range_that_is_done_is_kept_and_a_fresh_start_is_a_new_generation(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        first = r.run()

        assert r.run() == first
        assert r.wire.count("POST", "/jobs/ingest") == 1

        fresh = r.run(start="fresh")
        assert (fresh.generation, fresh.counts) == (2, Counts(expected=50, staged=50, updated=50))


def test_a_range_that_finished_before_the_verdict_is_done_again_and_resuming_keeps_it(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        r.run()
        r.walls.book.record_verdict(r.night.plan_id, Verdict.RECONCILED, seconds=1.0)

        assert r.run(start="resume").generation == 1
        assert r.run().generation == 2


def test_a_range_that_somebody_works_on_is_refused_and_named(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        other = r.again()
        with r.walls.area.lock_range(r.partitions[0]), pytest.raises(HeldElsewhere, match=r.partitions[0]):
            other.run()
        assert r.entry().runs == 0
        other.walls.close()


def test_a_run_of_a_stopped_night_ends_before_it_begins(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        r.walls.book.request_stop(r.night.plan_id)
        asked = len(r.wire.requests)

        with pytest.raises(Stopped):
            r.run()

        assert (r.entry().state, r.entry().runs) == (RangeState.PLANNED, 0)
        assert len(r.wire.requests) == asked


def test_a_night_of_another_org_is_not_resumed(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        org = OrgIdentity("00D000000000001AAA", "another", is_simulated=False, dataspace="default")
        walls = replace(r.walls, org=org)

        with pytest.raises(WrongOrg):
            run_range(walls, r.night.plan_id, r.partitions[0])


def test_an_unknown_range_is_told_with_those_there_are(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r, pytest.raises(StateError, match=r.partitions[0]):
        run_range(r.walls, r.night.plan_id, "end-00000000")


def test_keys_whose_last_characters_begin_with_a_hyphen_are_synced_like_any(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=60, rows_per_range=30) as r:
        key = pl.col("ExternalId__c").str.replace("externalOpp", "Opp-000")
        change_source(r.org, SOURCE, lambda rows: rows.with_columns(key))

        assert [entry.counts.created for entry in r.run_all()] == [30, 30]

        assert r.partitions[0].startswith("_0000000030-")
        assert not r.walls.area.is_range_locked(r.partitions[0])
        assert r.is_equal()


# How it ends


def test_a_run_that_fails_is_an_attempt_whoever_must_mend_it(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        assert r.night
        r.fault("html_503 endpoint=describe after=1 times=6")
        r.org.set_setting("fields", {"Opportunity.StageName": {"updateable": False, "createable": False}})

        for error in (MappingError, WireError, MappingError):
            with pytest.raises(error):
                r.run()

        assert (r.entry().state, r.entry().runs, r.entry().attempts) == (RangeState.FAILED, 3, 3)


@pytest.mark.parametrize("endpoint", ["query", "create", "upload", "close", "poll", "results"])
def test_a_used_up_limit_parks_the_night_and_the_range_goes_on_from_there(tmp_path: Path, endpoint: str) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        assert r.night
        r.fault(f"limit endpoint={endpoint} times=1")

        with pytest.raises(Parked, match="REQUEST_LIMIT_EXCEEDED") as parked:
            r.run()

        assert isinstance(parked.value.__cause__, LimitExceeded)
        assert (r.entry().state, r.entry().attempts) == (RangeState.PARKED, 0)
        assert r.night.parked_until == r.walls.now() + timedelta(minutes=10)
        assert r.run().counts.created == 50
        assert r.night.parked_until is None
        assert r.is_equal()
        assert r.open_jobs() == []


@pytest.mark.parametrize(
    ("method", "ending"),
    [("GET", "/describe"), ("POST", "/query-sql"), ("POST", "/jobs/ingest"), ("PUT", "/batches"), ("PATCH", "AAA")],
)
def test_an_interrupted_run_leaves_no_job_open_and_goes_on_later(tmp_path: Path, method: str, ending: str) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        assert r.night
        interrupt_at(r, method, ending)

        with pytest.raises(Stopped):
            r.run()

        assert (r.entry().state, r.entry().attempts) == (RangeState.FAILED, 0)
        assert r.open_jobs() == []
        later = r.again()
        assert later.run().counts.succeeded == 50
        assert later.is_equal()
        assert later.open_jobs() == []
        later.walls.close()


def test_a_stop_in_the_book_is_heard_while_the_org_works(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE, job_deadline_seconds=1e9) as r:
        r.fault("job_stuck")

        def stop(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
            if request.method == "PATCH":
                r.walls.book.request_stop(r.night.plan_id)
            return answer

        r.wire.after = stop
        with pytest.raises(Stopped, match="`sync-pipeline stop` was called"):
            r.run()
        assert r.open_jobs() == []


# Letting go of jobs


def test_a_job_whose_abortion_hangs_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=200, rows_per_range=50, part_rows=50) as r:
        jobs = [_open_job(r, place) for place in range(4)]
        goes_on = threading.Event()

        def hang(request: httpx.Request) -> None:
            if request.method == "PATCH" and jobs[1] in request.url.path:
                goes_on.wait(30)

        r.wire.before = hang
        began = time.monotonic()
        assert release_jobs(r.walls, r.night.plan_id, seconds=1.0) == 3
        assert time.monotonic() - began < 5
        assert [job for job in r.open_jobs() if "Open" in job] == [f"{jobs[1]} Open"]
        goes_on.set()


def test_an_abortion_is_tried_again_although_the_work_is_interrupted(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        _open_job(r, 0)
        r.fault("html_503 endpoint=close times=1")
        r.waiting.interrupt("Ctrl-C")

        assert release_jobs(r.walls, r.night.plan_id) == 1
        assert r.open_jobs() == []


def test_letting_go_asks_nothing_of_jobs_that_have_ended(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        job_id = _open_job(r, 0)
        r.walls.book.job_seen(r.jobs()[0].intent, r.walls.bulk.abort(job_id))
        asked = len(r.wire.requests)

        assert release_jobs(r.walls, r.night.plan_id) == 0
        assert len(r.wire.requests) == asked


def _open_job(r: Rehearsal, place: int) -> str:
    """A job in the book as a run leaves it that was killed right after its creation."""
    intent = r.walls.book.intend_job(
        r.night.plan_id, r.partitions[place], generation=1, part=1, round=0, rows=50, serial=False
    )
    job = r.walls.bulk.create()
    r.walls.book.job_created(intent, job.id)
    return job.id


# A full disk


class Small(Disk):
    """A disk that has no room for the n-th file of a kind, until somebody makes some."""

    def __init__(self, pattern: str, nth: int) -> None:
        self.pattern = pattern
        self.left = nth
        self.is_full = False

    def write(self, path: Path, content: bytes | memoryview) -> None:
        self._take_room(path)
        super().write(path, content)

    def rename(self, old: Path, new: Path) -> None:
        self._take_room(new)
        super().rename(old, new)

    def _take_room(self, path: Path) -> None:
        if path.match(self.pattern):
            self.left -= 1
            self.is_full = self.is_full or self.left == 0
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))


@pytest.mark.parametrize(
    ("pattern", "nth"),
    [("page-*.parquet", 1), ("page-*.parquet", 3), ("part-*.csv", 1), ("part-*.parquet", 1), ("outcome-*.parquet", 1)],
)
def test_a_full_disk_parks_the_night_tears_nothing_and_the_range_goes_on_when_there_is_room(
    tmp_path: Path, pattern: str, nth: int
) -> None:
    disk = Small(pattern, nth)
    with rehearsal(tmp_path, rows=100, rows_per_range=100, disk=disk, page_rows=30) as r:
        with pytest.raises(Parked, match=r"The disk has no room"):
            r.run()

        folder = r.walls.area.range_folder(r.night.plan_id, r.partitions[0], 1)
        assert not list(folder.glob("*.tmp"))
        assert (r.entry().state, r.entry().attempts) == (RangeState.PARKED, 0)
        assert r.night.parked_reason.startswith("The disk has no room")
        disk.is_full, disk.left = False, 1000
        assert r.run().counts == Counts(expected=100, staged=100, created=100)
        assert r.is_equal()


def test_a_run_on_a_disk_that_is_full_to_the_last_byte_parks_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """On a disk of our own, filled at several instants; needs a kernel that lends one."""
    command = ["unshare", "-Urm", sys.executable, "-m", "sync_pipeline_tests.engine.full_disk", str(tmp_path)]
    if subprocess.run([*command[:2], "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lends no disk of our own")

    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("parked, then all saved") == 8


# What a run shares with others


def test_at_most_so_many_ranges_of_all_processes_read_the_source(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=200, rows_per_range=50, part_rows=50, read_slots=1) as r:
        assert r.night
        others = [r.again() for _ in range(3)]
        reading: list[int] = []
        lock, now = threading.Lock(), [0]

        def count(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
            if request.method == "DELETE" and "query-sql" in request.url.path:
                with lock:
                    now[0] -= 1
            return answer

        def begin(request: httpx.Request) -> None:
            if request.method == "POST" and request.url.path.endswith("/query-sql"):
                with lock:
                    now[0] += 1
                    reading.append(now[0])

        for one in others:
            one.wire.before, one.wire.after = begin, count
        with ThreadPoolExecutor(max_workers=3) as lanes:
            list(lanes.map(lambda place: others[place].run(place), range(3)))
        assert max(reading) == 1
        for one in others:
            one.walls.close()


def test_a_range_waits_for_whoever_looks_at_it(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        r.fault("html_503 endpoint=create times=4")
        with pytest.raises(WireError):
            r.run()
        folder = r.walls.area.range_folder(r.night.plan_id, r.partitions[0], 1)
        reader = subprocess.Popen(
            [sys.executable, "-c", _READER, str(folder)],
            cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert reader.stdin is not None and reader.stdout is not None
        assert reader.stdout.readline() == "reads\n"

        class Waits(list[float]):
            def append(self, seconds: float) -> None:
                if seconds == 0.1 and reader.poll() is None:
                    reader.stdin.close()  # type: ignore[union-attr]
                    reader.wait()

        r.waiting.waits = Waits()
        with reader:
            assert r.run().counts.created == 50
        assert r.entry().attempts == 1


_READER = """
import sys
from pathlib import Path
from sync_pipeline.staging.range_store import RangeStore
with RangeStore.read_only(Path(sys.argv[1])) as store:
    print("reads", flush=True)
    sys.stdin.read()
"""


def test_a_heartbeat_that_cannot_be_written_still_hears_a_stop(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        assert r.night
        with without_table(r, "range"), Heartbeat(r.walls, r.night.plan_id) as heartbeat:
            heartbeat.add(r.partitions[0])
            r.walls.book.request_stop(r.night.plan_id)
            deadline = time.monotonic() + 20
            while not r.waiting.is_set and time.monotonic() < deadline:
                time.sleep(0.01)
        assert r.waiting.is_set


def test_calls_that_could_not_be_written_down_are_counted_later(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        r.walls.meter.belongs_to(r.night.plan_id)
        before = sum(r.walls.book.calls(r.night.plan_id).values())
        r.walls.meter.count("ingest poll")
        with without_table(r, "call"), pytest.raises(StateError):
            r.walls.meter.flush()

        r.walls.meter.flush()

        assert sum(r.walls.book.calls(r.night.plan_id).values()) == before + 1


@contextmanager
def without_table(r: Rehearsal, name: str) -> Iterator[None]:
    """The book fails at whatever needs this table."""
    book = sqlite3.connect(r.walls.area.book_file, isolation_level=None)
    try:
        book.execute("PRAGMA legacy_alter_table = ON")
        book.execute(f"ALTER TABLE {name} RENAME TO hidden")
        yield
        book.execute(f"ALTER TABLE hidden RENAME TO {name}")
    finally:
        book.close()
