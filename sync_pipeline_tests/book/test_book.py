"""The book: what is written is there for everybody, whoever dies, and nobody who only reads waits.

Other processes are real ones, daemons so that none outlives its test.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_pipeline.book.book import Book
from sync_pipeline.book.database import utc_now
from sync_pipeline.book.turns import TURN_SECONDS, TURN_SECONDS_MAX
from sync_pipeline.domain.errors import DiskFull, HeldElsewhere, SettingsError, StateError
from sync_pipeline.domain.keys import cover
from sync_pipeline.domain.ledger import Counts, IngestJob, JobState, RangeState, Verdict
from sync_pipeline.domain.night import Measurement, RangeEntry
from sync_pipeline.domain.plan import Forecast, OrgIdentity, Plan, PlannedRange, SourceProfile
from sync_pipeline.domain.secret import Secret
from sync_pipeline_tests import postgres

SPAWN = multiprocessing.get_context("spawn")
NOW = datetime(2026, 6, 10, 3, 0, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
N, OTHER = "20260610T020000.000000Z", "20260611T020000.000000Z"
RANGES = cover(["b"])
A, B = (key_range.partition for key_range in RANGES)
ROWS = Counts(expected=10, staged=10, created=4, updated=3, failed=1, unprocessed=1, quarantined=1, set_aside=1)
MEASURED = Measurement(
    "values", NOW, 1.5, expected=20, present=18, missing=1, different=2, orphans=3, changed_since=4, drifting=(A,),
    by_range={A: {"present": 8, "missing": 1}}, sample=({"key": "a", "finding": "missing", "present": None},),
)  # fmt: skip
PATIENCE = 2.0
"""Seconds within which a reader must have answered; a writer is waited for much longer."""

Opener = Callable[[], Book]


def plan_of(plan_id: str = N) -> Plan:
    return Plan(
        plan_id=plan_id,
        org=OrgIdentity("00D000000000001AAA", "Bänk", is_simulated=False, dataspace="default"),
        source_object="ExtOpportunities__dlm",
        target_object="Opportunity",
        mapping_digest="0" * 16,
        profile=SourceProfile(30, 0, 30, 30, 0, "a", "\U0001f600"),
        ranges=(PlannedRange(0, RANGES[0], 10), PlannedRange(1, RANGES[1], 20)),
        created_at=NOW,
        forecast=Forecast(api_calls=100, ingest_batches=1, disk_bytes=1000, seconds=1.5, api_calls_left=900),
        notes=("one note",),
    )


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass(frozen=True)
class Place:
    """Where a book is: in a file, or in a database whose turns lie beside that file."""

    path: Path
    url: Secret | None = None

    def open(self, now: Callable[[], datetime] = utc_now) -> Book:
        return Book(self.path, url=self.url, now=now)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a book in SQLite."""
    return tmp_path / "book.sqlite"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        yield Place(path)
    else:
        with postgres.database() as variables:
            yield Place(path, Secret(postgres.url(variables)))


@pytest.fixture
def file_book(path: Path, clock: Clock) -> Iterator[Book]:
    """A book in SQLite with one night of two ranges."""
    book = Book(path, now=clock)
    book.open_night(plan_of())
    yield book
    book.close()


@pytest.fixture
def opener(place: Place, clock: Clock) -> Iterator[Opener]:
    """Opens the book anew each time; all of them are closed in the end."""
    with ExitStack() as opened:

        def open_it() -> Book:
            book = place.open(clock)
            opened.callback(book.close)
            return book

        yield open_it


@pytest.fixture
def book(opener: Opener) -> Book:
    """A book with one night of two ranges."""
    book = opener()
    book.open_night(plan_of())
    return book


def entry(book: Book, partition: str = A) -> RangeEntry:
    found = book.range(N, partition)
    assert found is not None
    return found


def begin(book: Book, partition: str = A, *, fresh: bool = False) -> RangeEntry:
    return book.begin_run(N, partition, pid=7, run_id="run", fresh=fresh)


def intend(book: Book, partition: str = A, *, part: int = 1, plan_id: str = N) -> int:
    return book.intend_job(plan_id, partition, generation=1, part=part, round=0, rows=100, serial=False)


def job(state: JobState, **numbers: int) -> IngestJob:
    return IngestJob("750a", state, processed=numbers.get("processed", 0), failed=numbers.get("failed", 0))


# Other processes


def open_book(start: threading.Barrier, place: Place) -> None:
    start.wait()
    place.open().close()


def write_a_lot(start: threading.Barrier, place: Place, threads: int, times: int) -> None:
    """What a busy process does to the book, from several threads."""
    book = place.open()
    start.wait()

    def write() -> None:
        for _ in range(times):
            book.add_calls(N, {"rows": 2, "ingest poll": 1})
            book.job_over(intend(book), "accounted")
            book.count_repair(N, A)
            book.beat(N, [A, B])
        book.close()

    workers = [threading.Thread(target=write) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def count_in_a_condition(start: threading.Barrier, place: Place, times: int) -> None:
    book = place.open()
    start.wait()
    for _ in range(times):
        book.change_condition("night", lambda state: {"seen": (state or {"seen": 0})["seen"] + 1})
    book.close()


def write_until_killed(place: Place, pipe: Connection) -> None:
    book = place.open()
    for number in range(1, 1_000_000):
        book.add_calls(N, {"rows": 1})
        pipe.send(number)


def count_in_turns(start: threading.Barrier, place: Place, file: Path, times: int) -> None:
    """Reads a number and writes the next one, which two at once would get wrong."""
    book = place.open()
    start.wait()
    for _ in range(times):
        with book.turn("create"):
            file.write_text(str(int(file.read_text()) + 1))


def hold_turn(place: Place, name: str, pipe: Connection) -> None:
    with place.open().turn(name):
        pipe.send("held")
        pipe.recv()


def write_on_both_sides_of_a_fork(place: Place) -> None:
    book = place.open()
    book.add_calls(N, {"before": 1})
    child = os.fork()
    if child == 0:
        book.add_calls(N, {"in the child": 1})
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0
    book.add_calls(N, {"in the parent": 1})


def run_together(target: Callable[..., None], processes: int, *arguments: object) -> list[int | None]:
    """Runs so many processes, which begin at once, and gives their exit codes."""
    start = SPAWN.Barrier(processes)
    running = [SPAWN.Process(target=target, args=(start, *arguments), daemon=True) for _ in range(processes)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    return [process.exitcode for process in running]


# The file


def test_a_book_and_the_files_beside_it_belong_to_the_user_alone(path: Path) -> None:
    before = os.umask(0o000)
    try:
        book = Book(path)
        book.open_night(plan_of())
    finally:
        os.umask(before)

    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {
        "book.sqlite": 0o600,
        "book.sqlite-shm": 0o600,
        "book.sqlite-wal": 0o600,
    }
    book.close()


def test_a_new_book_knows_nothing(opener: Opener) -> None:
    book = opener()

    assert (book.newest(), book.night(N), book.nights(), book.ranges(N), book.range(N, A)) == (None, None, [], [], None)
    assert (book.jobs(), book.knows_job("750a"), book.calls(N), book.is_stopped(N)) == ([], False, {}, False)
    assert (book.verdicts(N), book.conditions()) == ([], {})


def test_a_book_that_is_opened_again_holds_what_was_written(book: Book, opener: Opener) -> None:
    begin(book)
    book.close()

    again = opener()

    assert again.ranges(N) == book.ranges(N)
    assert again.newest() == book.newest()


def test_an_empty_file_becomes_a_book(path: Path) -> None:
    path.write_bytes(b"")

    book = Book(path)

    assert book.nights() == []
    book.close()


def test_a_file_that_is_no_book_is_refused_with_the_next_step_and_left_alone(path: Path) -> None:
    content = b"not a database, and longer than a header of SQLite would ever be" * 20
    path.write_bytes(content)

    with pytest.raises(SettingsError, match="cannot be used") as refused:
        Book(path)

    assert "Set SYNC_HOME" in refused.value.hint
    assert path.read_bytes() == content


def test_a_folder_in_its_place_is_refused(path: Path) -> None:
    path.mkdir()

    with pytest.raises(SettingsError, match="cannot be used"):
        Book(path)


def test_a_book_of_a_later_version_is_refused_and_left_alone(book: Book, place: Place) -> None:
    with book.database.transaction() as raw:
        raw.change("UPDATE fact SET value = '99' WHERE name = 'layout'")

    with pytest.raises(SettingsError, match=r"layout 99.* up to 2"):
        place.open()


def test_many_processes_may_open_a_new_book_at_once(opener: Opener, place: Place) -> None:
    assert run_together(open_book, 6, place) == [0] * 6
    assert opener().nights() == []


def test_opening_a_new_book_waits_for_whoever_makes_it(path: Path) -> None:
    maker = sqlite3.connect(path, isolation_level=None)
    maker.execute("BEGIN IMMEDIATE")
    maker.execute("CREATE TABLE something (a)")
    told: list[Exception] = []

    def open_it() -> None:
        try:
            Book(path).close()
        except SettingsError as error:
            told.append(error)

    opener = threading.Thread(target=open_it)
    opener.start()
    opener.join(timeout=0.3)
    maker.execute("COMMIT")
    maker.close()
    opener.join()

    assert told == []


# Nights


def test_a_new_night_is_the_newest_and_all_of_its_ranges_are_planned(book: Book, clock: Clock) -> None:
    night = book.newest()

    assert night is not None
    assert (night.plan, night.opened_at, night.verdict, night.api_calls) == (plan_of(), NOW, None, 0)
    assert [(e.partition, e.place, e.state, e.counts, e.runs, e.generation) for e in book.ranges(N)] == [
        (A, 0, RangeState.PLANNED, Counts(expected=10), 0, 1),
        (B, 1, RangeState.PLANNED, Counts(expected=20), 0, 1),
    ]
    assert book.night(N) == night


def test_a_night_is_opened_once(book: Book) -> None:
    begin(book)
    before = book.ranges(N)

    with pytest.raises(StateError, match=f"There is a night {N} already"):
        book.open_night(plan_of())

    assert book.ranges(N) == before
    assert len(book.nights()) == 1


def test_nights_are_told_newest_first(book: Book) -> None:
    third = "20260612T020000.000000Z"
    for plan_id in (OTHER, third):
        book.open_night(plan_of(plan_id))

    assert [night.plan_id for night in book.nights()] == [third, OTHER, N]
    assert [night.plan_id for night in book.nights(limit=2)] == [third, OTHER]
    newest = book.newest()
    assert newest is not None and newest.plan_id == third


def test_ranges_of_two_nights_with_one_partition_key_are_apart(book: Book) -> None:
    begin(book)

    book.open_night(plan_of(OTHER))

    assert [e.state for e in book.ranges(N)] == [RangeState.READING, RangeState.PLANNED]
    assert [e.state for e in book.ranges(OTHER)] == [RangeState.PLANNED, RangeState.PLANNED]


def test_nothing_begins_in_a_night_that_has_been_followed_by_another(book: Book) -> None:
    book.open_night(plan_of(OTHER))

    with pytest.raises(HeldElsewhere, match=f"Night {OTHER} has taken the place of night {N}"):
        begin(book)

    assert (entry(book).runs, book.is_newest(N), book.is_newest(OTHER)) == (0, False, True)


def test_a_night_whose_check_refuses_is_not_opened(book: Book) -> None:
    def refuse() -> None:
        raise HeldElsewhere("somebody works on it")

    with pytest.raises(HeldElsewhere):
        book.open_night(plan_of(OTHER), check=refuse)

    assert book.is_newest(N)
    assert book.ranges(OTHER) == []


WRITERS: dict[str, Callable[[Book, str, str], object]] = {
    "begin_run": lambda book, n, p: book.begin_run(n, p, pid=1, fresh=False),
    "begin_run fresh": lambda book, n, p: book.begin_run(n, p, pid=1, fresh=True),
    "progress": lambda book, n, p: book.progress(n, p, state=RangeState.LOADING),
    "end_run": lambda book, n, p: book.end_run(n, p, state=RangeState.DONE),
    "hold": lambda book, n, p: book.hold(n, p),
    "give_up": lambda book, n, p: book.give_up(n, p, "a reason"),
    "rearm": lambda book, n, p: book.rearm(n, [p]),
    "count_repair": lambda book, n, p: book.count_repair(n, p),
    "intend_job": lambda book, n, p: intend(book, p, plan_id=n),
}


@pytest.mark.parametrize("verb", WRITERS)
@pytest.mark.parametrize(("plan_id", "partition"), [(N, "nowhere"), (OTHER, A)])
def test_what_is_said_of_a_range_that_is_not_there_is_refused(
    book: Book, verb: str, plan_id: str, partition: str
) -> None:
    before = book.ranges(N)

    with pytest.raises(StateError):
        WRITERS[verb](book, plan_id, partition)

    assert book.ranges(N) == before
    assert book.jobs() == []


@pytest.mark.parametrize(
    "verb",
    [
        lambda book: book.request_stop(OTHER),
        lambda book: book.lift_stop(OTHER),
        lambda book: book.park(OTHER, until=NOW, reason="a reason"),
        lambda book: book.unpark(OTHER),
        lambda book: book.record_measurement(OTHER, MEASURED),
        lambda book: book.record_measure_failure(OTHER, "an error"),
        lambda book: book.record_verdict(OTHER, Verdict.RECONCILED, seconds=1.0),
        lambda book: book.clear_verdict(OTHER),
        lambda book: book.add_calls(OTHER, {"rows": 1}),
    ],
)
def test_what_is_said_of_a_night_that_is_not_there_is_refused(book: Book, verb: Callable[[Book], None]) -> None:
    with pytest.raises(StateError):
        verb(book)


# Runs of a range


def test_a_run_that_begins_is_told_with_its_process(book: Book, clock: Clock) -> None:
    clock.now = NOW + MINUTE

    begun = begin(book)

    assert begun == entry(book)
    assert (begun.state, begun.runs, begun.pid, begun.run_id) == (RangeState.READING, 1, 7, "run")
    assert (begun.started_at, begun.heartbeat_at, begun.finished_at) == (NOW + MINUTE, NOW + MINUTE, None)
    assert entry(book, B).state is RangeState.PLANNED


def test_a_run_that_goes_on_keeps_the_counts_of_its_generation(book: Book) -> None:
    begin(book)
    book.end_run(N, A, state=RangeState.FAILED, counts=ROWS, error="no route", failed_attempt=True)

    begun = begin(book)

    assert (begun.counts, begun.generation, begun.runs, begun.attempts, begun.error) == (ROWS, 1, 2, 1, "")


def test_a_fresh_run_is_a_new_generation_that_expects_what_was_planned(book: Book) -> None:
    begin(book)
    book.progress(N, A, rows_sent=5)
    book.end_run(N, A, state=RangeState.DONE, counts=replace(ROWS, expected=11, staged=11))

    begun = begin(book, fresh=True)

    assert (begun.counts, begun.generation, begun.rows_sent) == (Counts(expected=10), 2, 0)
    assert begun.finished_at is None


def test_progress_changes_what_it_names_and_is_a_heartbeat(book: Book, clock: Clock) -> None:
    begin(book)
    clock.now = NOW + 5 * SECOND

    book.progress(N, A, state=RangeState.LOADING)
    book.progress(N, A, counts=ROWS)
    book.progress(N, A, rows_sent=7)

    seen = entry(book)
    assert (seen.state, seen.counts, seen.rows_sent, seen.heartbeat_at) == (
        RangeState.LOADING,
        ROWS,
        7,
        NOW + 5 * SECOND,
    )
    clock.now = NOW + 9 * SECOND
    book.progress(N, A)
    assert entry(book) == replace(seen, heartbeat_at=NOW + 9 * SECOND)


def test_a_beat_marks_the_ranges_of_the_process_and_no_other(book: Book, clock: Clock) -> None:
    begin(book, A)
    begin(book, B)
    clock.now = NOW + MINUTE

    book.beat(N, [A, "gone"])
    book.beat(N, [])

    assert (entry(book, A).heartbeat_at, entry(book, B).heartbeat_at) == (NOW + MINUTE, NOW)


@given(
    ends=st.lists(
        st.tuples(
            st.sampled_from([RangeState.DONE, RangeState.FAILED, RangeState.PARKED]), st.booleans(), st.booleans()
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=40)
def test_a_range_is_finished_when_its_last_run_was_done_and_every_run_is_counted(
    tmp_path_factory: pytest.TempPathFactory, ends: list[tuple[RangeState, bool, bool]]
) -> None:
    clock = Clock()
    book = Book(tmp_path_factory.mktemp("book") / "book.sqlite", now=clock)
    book.open_night(plan_of())

    for number, (state, failed, fresh) in enumerate(ends, start=1):
        clock.now = NOW + number * MINUTE
        assert begin(book, fresh=fresh).finished_at is None
        book.end_run(N, A, state=state, error=f"error {number}", failed_attempt=failed)

    seen = entry(book)
    last = ends[-1][0]
    assert (seen.state, seen.error, seen.runs) == (last, f"error {len(ends)}", len(ends))
    assert seen.attempts == sum(failed for _, failed, _ in ends)
    assert seen.generation == 1 + sum(fresh for _, _, fresh in ends)
    assert seen.finished_at == (clock.now if last is RangeState.DONE else None)
    book.close()


@pytest.mark.parametrize("state", [RangeState.READING, RangeState.LOADING])
def test_a_run_that_was_killed_is_a_failed_attempt_when_the_next_one_begins(book: Book, state: RangeState) -> None:
    begin(book)
    book.progress(N, A, state=state)

    begin(book)

    assert (entry(book).attempts, entry(book).runs) == (1, 2)


@pytest.mark.parametrize("state", [RangeState.DONE, RangeState.PARKED, RangeState.FAILED, RangeState.DRIFTING])
def test_a_run_that_has_ended_is_not_counted_once_more_by_the_next_one(book: Book, state: RangeState) -> None:
    begin(book)
    book.end_run(N, A, state=state)

    begin(book)

    assert entry(book).attempts == 0


def test_new_attempts_are_given_to_a_range_whose_run_was_killed(book: Book) -> None:
    begin(book)

    book.rearm(N)
    begin(book)

    assert (entry(book).attempts, entry(book).rearmed_at) == (0, NOW)


def test_runs_of_an_orchestrator_are_known_once_they_came_to_the_book(book: Book) -> None:
    book.begin_run(N, A, pid=7, run_id="first", fresh=False)
    book.begin_run(N, A, pid=7, fresh=False)
    book.know_run(N, "refused")
    book.know_run(N, "refused")
    book.begin_measure(N, run_id="measured")

    assert book.known_runs(N) == {"first", "refused", "measured"}


def test_a_held_range_keeps_what_it_has(book: Book) -> None:
    begin(book)
    book.end_run(N, A, state=RangeState.FAILED, counts=ROWS, error="cancelled")

    book.hold(N, A)

    assert (entry(book).state, entry(book).counts, entry(book).error) == (RangeState.HELD, ROWS, "cancelled")
    assert entry(book).state.is_settled


def test_a_range_that_is_given_up_says_why(book: Book) -> None:
    book.give_up(N, A, "3 runs failed, the last: no route")

    assert (entry(book).state, entry(book).error) == (RangeState.GIVEN_UP, "3 runs failed, the last: no route")
    assert entry(book, B).state is RangeState.PLANNED


@pytest.mark.parametrize(
    ("state", "runs", "rearmed"),
    [
        (RangeState.HELD, 1, RangeState.FAILED),
        (RangeState.HELD, 0, RangeState.PLANNED),
        (RangeState.GIVEN_UP, 1, RangeState.FAILED),
        (RangeState.GIVEN_UP, 0, RangeState.PLANNED),
        (RangeState.FAILED, 1, RangeState.FAILED),
    ],
)
def test_what_is_held_given_up_or_failed_gets_new_attempts(
    book: Book, clock: Clock, state: RangeState, runs: int, rearmed: RangeState
) -> None:
    for _ in range(runs):
        begin(book)
    book.end_run(N, A, state=state, failed_attempt=True)
    clock.now = NOW + MINUTE

    book.rearm(N)

    assert (entry(book).state, entry(book).attempts, entry(book).rearmed_at) == (rearmed, 0, NOW + MINUTE)
    assert (entry(book).runs, entry(book, B).rearmed_at) == (runs, None)


@pytest.mark.parametrize("state", [RangeState.DONE, RangeState.DRIFTING, RangeState.PARKED])
def test_what_needs_no_new_attempts_is_rearmed_only_by_name(book: Book, state: RangeState) -> None:
    begin(book)
    book.end_run(N, A, state=state, failed_attempt=True)

    book.rearm(N)
    assert (entry(book).attempts, entry(book).rearmed_at) == (1, None)

    book.rearm(N, [A])
    assert (entry(book).state, entry(book).attempts, entry(book).rearmed_at) == (state, 0, NOW)


def test_rearming_names_of_which_one_is_unknown_changes_none(book: Book) -> None:
    book.hold(N, A)

    with pytest.raises(StateError, match="has no range nowhere"):
        book.rearm(N, [A, "nowhere"])

    assert entry(book).state is RangeState.HELD


def test_repairs_are_counted_and_the_range_drifts_until_it_runs(book: Book) -> None:
    begin(book)
    book.end_run(N, A, state=RangeState.DONE, counts=ROWS)

    book.count_repair(N, A)
    book.count_repair(N, A)

    assert (entry(book).state, entry(book).repairs, entry(book).counts) == (RangeState.DRIFTING, 2, ROWS)


def test_a_repair_is_due_until_a_run_is_done(book: Book) -> None:
    begin(book)
    book.end_run(N, A, state=RangeState.DONE)
    book.count_repair(N, A)

    begin(book)
    book.end_run(N, A, state=RangeState.FAILED, failed_attempt=True)
    is_due_after_a_failure = entry(book).is_repair
    begin(book)
    book.end_run(N, A, state=RangeState.DONE)

    assert (is_due_after_a_failure, entry(book).is_repair) == (True, False)


# Jobs


def test_a_job_that_nobody_intended_is_refused(book: Book) -> None:
    with pytest.raises(StateError, match="Job 750a belongs to no intent"):
        book.job_created(99, "750a")


def test_the_life_of_a_job_from_its_intent_to_its_outcomes(book: Book, clock: Clock) -> None:
    clock.now = NOW + MINUTE

    intent = book.intend_job(N, A, generation=2, part=3, round=1, rows=100, serial=True)
    (intended,) = book.jobs(N)
    book.job_created(intent, "750a")
    (created,) = book.jobs(N)
    book.job_seen(intent, IngestJob("750a", JobState.IN_PROGRESS, processed=40, failed=2, retries=1, error="slow"))
    (seen,) = book.jobs(N)
    book.job_over(intent, "accounted")
    (over,) = book.jobs(N)

    assert (intended.job_id, intended.state, intended.is_over) == ("", "intended", False)
    assert (intended.generation, intended.part, intended.round, intended.rows, intended.serial) == (2, 3, 1, 100, True)
    assert intended.intended_at == NOW + MINUTE
    assert (created.job_id, created.state) == ("750a", "Open")
    assert (seen.state, seen.processed, seen.failed, seen.retries, seen.error) == ("InProgress", 40, 2, 1, "slow")
    assert (over.state, over.is_over, over.job_id, over.processed) == ("accounted", True, "750a", 40)


@pytest.mark.parametrize("end", ["accounted", "dropped"])
def test_a_job_that_is_over_stays_over_whatever_the_org_says_of_it_later(book: Book, end: str) -> None:
    intent = intend(book)
    book.job_created(intent, "750a")
    book.job_over(intent, end)  # type: ignore[arg-type]

    book.job_seen(intent, job(JobState.IN_PROGRESS, processed=5))

    (seen,) = book.jobs(N)
    assert (seen.state, seen.processed) == (end, 0)


def test_open_jobs_are_those_that_nobody_has_accounted_for_or_dropped(book: Book) -> None:
    intents = [intend(book, part=part) for part in range(1, 6)]
    book.job_created(intents[1], "750b")
    book.job_seen(intents[2], job(JobState.ABORTED))
    book.job_over(intents[3], "accounted")
    book.job_over(intents[4], "dropped")

    assert [entry.part for entry in book.jobs(N, open_only=True)] == [1, 2, 3]
    assert [entry.part for entry in book.jobs(N)] == [1, 2, 3, 4, 5]


def test_jobs_are_found_by_night_and_by_range_in_the_order_of_their_intents(book: Book) -> None:
    book.open_night(plan_of(OTHER))
    made = [intend(book, A), intend(book, B), intend(book, A, plan_id=OTHER), intend(book, A)]

    assert [entry.intent for entry in book.jobs()] == made == sorted(made)
    assert [entry.intent for entry in book.jobs(N, partition=A)] == [made[0], made[3]]
    assert [entry.intent for entry in book.jobs(partition=A)] == [made[0], made[2], made[3]]
    assert [entry.intent for entry in book.jobs(OTHER)] == [made[2]]


def test_a_job_is_known_by_its_id_in_whatever_night_and_state(book: Book) -> None:
    intent = intend(book)
    assert not book.knows_job("750a")

    book.job_created(intent, "750a")
    book.job_over(intent, "dropped")

    assert book.knows_job("750a")
    assert not book.knows_job("750A")
    assert not book.knows_job("750a' OR '1' = '1")


# Turns


def test_one_turn_at_a_time_among_threads(book: Book) -> None:
    inside: list[int] = []
    most = []

    def take() -> None:
        for _ in range(20):
            with book.turn("create"):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(most), max(most)) == (80, 1)


def test_one_turn_at_a_time_among_processes(book: Book, place: Place, tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("0")

    assert run_together(count_in_turns, 3, place, file, 30) == [0, 0, 0]

    assert file.read_text() == "90"


def test_a_turn_is_let_go_when_its_holder_is_killed(book: Book, place: Place) -> None:
    ours, theirs = SPAWN.Pipe()
    holder = SPAWN.Process(target=hold_turn, args=(place, "create", theirs), daemon=True)
    holder.start()
    assert ours.recv() == "held"
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        holder.kill()
        holder.join()

    with book.turn("create", sleep=sleep):
        assert holder.exitcode == -signal.SIGKILL

    assert len(waited) == 1


def test_waiting_for_a_turn_takes_growing_pauses_of_the_callers_own_kind(book: Book, opener: Opener) -> None:
    pauses: list[float] = []
    with ExitStack() as held:
        held.enter_context(opener().turn("create"))

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 9:
                held.close()

        with book.turn("create", sleep=sleep):
            pass

    assert pauses[:3] == [TURN_SECONDS, 2 * TURN_SECONDS, 4 * TURN_SECONDS]
    assert pauses == sorted(pauses)
    assert max(pauses) == TURN_SECONDS_MAX


def test_a_long_wait_for_a_turn_is_told_and_again_when_it_has_doubled(
    book: Book, opener: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    waited = 0.0
    with ExitStack() as held:
        held.enter_context(opener().turn("create"))

        def sleep(seconds: float) -> None:
            nonlocal waited
            waited += seconds
            if waited > 100:
                held.close()

        with book.turn("create", sleep=sleep):
            pass

    told = [record.getMessage() for record in caplog.records if "for the turn 'create'" in record.getMessage()]
    assert [line.split()[1] for line in told] == ["30", "60"]


def test_a_free_turn_is_taken_without_a_pause(book: Book) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError("nobody has the turn")

    for _ in range(2):
        with book.turn("create", sleep=sleep), book.turn("serial", sleep=sleep):
            pass


def test_whoever_is_interrupted_while_waiting_never_has_the_turn(book: Book, opener: Opener) -> None:
    class Stopped(Exception):
        pass

    def sleep(seconds: float) -> None:
        raise Stopped

    with opener().turn("create"):
        with pytest.raises(Stopped), book.turn("create", sleep=sleep):
            raise AssertionError("somebody else has the turn")
        with pytest.raises(Stopped), book.turn("create", sleep=sleep):
            raise AssertionError("the first one still has it")


def test_a_turn_ends_with_its_block_however_that_ends(book: Book, opener: Opener) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError("nobody has the turn")

    with pytest.raises(KeyboardInterrupt), book.turn("create"):
        raise KeyboardInterrupt

    with opener().turn("create", sleep=sleep):
        pass


# API calls


def test_calls_add_up_by_endpoint_and_in_the_night(book: Book) -> None:
    book.open_night(plan_of(OTHER))

    book.add_calls(N, {"rows": 3, "query-sql": 1})
    book.add_calls(N, {"rows": 2})
    book.add_calls(N, {})
    book.add_calls(OTHER, {"rows": 50})

    assert book.calls(N) == {"query-sql": 1, "rows": 5}
    night, other = book.night(N), book.night(OTHER)
    assert night is not None and other is not None
    assert (night.api_calls, other.api_calls) == (6, 50)


# Many at once


def test_processes_and_threads_that_write_at_once_lose_nothing(book: Book, place: Place) -> None:
    processes, threads, times = 3, 3, 12
    writes = processes * threads * times

    assert run_together(write_a_lot, processes, place, threads, times) == [0] * processes

    assert book.calls(N) == {"ingest poll": writes, "rows": 2 * writes}
    jobs = book.jobs(N)
    assert len({entry.intent for entry in jobs}) == writes
    assert [entry.intent for entry in jobs if not entry.is_over] == []
    assert entry(book).repairs == writes


def test_what_a_killed_process_had_written_is_there_and_the_book_is_whole(
    book: Book, opener: Opener, place: Place
) -> None:
    ours, theirs = SPAWN.Pipe(duplex=False)
    writer = SPAWN.Process(target=write_until_killed, args=(place, theirs), daemon=True)
    writer.start()
    theirs.close()
    written = 0
    while written < 50:
        written = ours.recv()
    writer.kill()
    writer.join()
    while ours.poll():
        try:
            written = ours.recv()
        except EOFError:
            break

    assert book.calls(N)["rows"] in (written, written + 1)
    book.add_calls(N, {"rows": 1000})
    assert opener().calls(N)["rows"] >= written + 1000


def test_a_fork_leaves_both_sides_with_a_book_that_works(book: Book, place: Place) -> None:
    forker = SPAWN.Process(target=write_on_both_sides_of_a_fork, args=(place,), daemon=True)
    forker.start()
    forker.join()

    assert forker.exitcode == 0
    assert book.calls(N) == {"before": 1, "in the child": 1, "in the parent": 1}


def test_a_thread_that_closed_its_connection_goes_on_with_another(book: Book) -> None:
    book.close()
    book.close()

    book.add_calls(N, {"rows": 1})

    assert book.calls(N) == {"rows": 1}


# Reading


READERS: dict[str, Callable[[Book], object]] = {
    "newest": lambda book: book.newest(),
    "night": lambda book: book.night(N),
    "nights": lambda book: book.nights(),
    "ranges": lambda book: book.ranges(N),
    "range": lambda book: book.range(N, A),
    "jobs": lambda book: book.jobs(N, open_only=True),
    "knows_job": lambda book: book.knows_job("750a"),
    "calls": lambda book: book.calls(N),
    "is_stopped": lambda book: book.is_stopped(N),
    "verdicts": lambda book: book.verdicts(N),
    "conditions": lambda book: book.conditions(),
}


@pytest.fixture
def writer(book: Book, opener: Opener) -> Iterator[ExitStack]:
    """Somebody in the midst of a transaction that has changed everything, and takes it back when closed."""
    book.job_created(intend(book), "750a")
    book.add_calls(N, {"rows": 1})

    class TakenBack(Exception):
        pass

    other = opener()

    @contextmanager
    def changing() -> Iterator[None]:
        with suppress(TakenBack), other.database.transaction(alone=True) as raw:
            raw.change("UPDATE range SET state = 'done'")
            raw.change("UPDATE night SET stop_requested_at = opened_at, verdict = 'reconciled'")
            raw.change("UPDATE job SET state = 'accounted', job_id = '750b'")
            raw.change("UPDATE call SET times = 99")
            raw.change("INSERT INTO condition VALUES ('night', '{}')")
            yield
            raise TakenBack

    with ExitStack() as writing:
        writing.enter_context(changing())
        yield writing


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_never_waits_for_a_writer_and_sees_what_was_there_before(
    book: Book, writer: ExitStack, reader: str
) -> None:
    began = time.monotonic()
    in_the_midst = READERS[reader](book)
    waited = time.monotonic() - began
    writer.close()

    assert waited < PATIENCE
    assert in_the_midst == READERS[reader](book)


def test_whoever_opens_the_book_to_read_does_not_wait_for_a_writer_either(
    book: Book, place: Place, writer: ExitStack
) -> None:
    seen: list[object] = []

    def look() -> None:
        other = place.open()
        seen.append(other.calls(N))
        other.close()

    looker = threading.Thread(target=look)
    looker.start()
    looker.join(timeout=PATIENCE)
    seen_in_the_midst = list(seen)
    writer.close()
    looker.join()

    assert seen_in_the_midst == [{"rows": 1}]


def test_what_was_committed_is_seen_by_everybody_at_once(book: Book, opener: Opener) -> None:
    other = opener()
    assert other.calls(N) == {}

    book.add_calls(N, {"rows": 1})

    assert other.calls(N) == {"rows": 1}


# Switches


def test_a_stop_is_requested_once_and_lifted(book: Book, clock: Clock) -> None:
    book.request_stop(N)
    clock.now = NOW + MINUTE
    book.request_stop(N)

    night = book.night(N)
    assert night is not None and night.stop_requested_at == NOW
    assert book.is_stopped(N)

    book.lift_stop(N)

    night = book.night(N)
    assert night is not None and night.stop_requested_at is None
    assert not book.is_stopped(N)


def test_a_stop_belongs_to_its_night(book: Book) -> None:
    book.request_stop(N)
    book.open_night(plan_of(OTHER))

    assert (book.is_stopped(N), book.is_stopped(OTHER)) == (True, False)


@given(
    parkings=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=8),
)
@settings(max_examples=40)
def test_lanes_that_park_a_night_prolong_its_parking_and_count_once(
    tmp_path_factory: pytest.TempPathFactory, parkings: list[tuple[int, int]]
) -> None:
    clock = Clock()
    book = Book(tmp_path_factory.mktemp("book") / "book.sqlite", now=clock)
    book.open_night(plan_of())
    until, count = None, 0

    for minutes, pause in parkings:
        clock.now += minutes * MINUTE
        count += until is None or until <= clock.now
        until = max(until or NOW, clock.now + pause * MINUTE)
        book.park(N, until=clock.now + pause * MINUTE, reason=f"{pause} minutes")

    night = book.night(N)
    assert night is not None
    assert (night.parked_until, night.parkings) == (until, count)
    assert night.parked_reason == f"{parkings[-1][1]} minutes"
    book.close()


def test_a_night_that_is_unparked_begins_with_short_pauses_again(book: Book) -> None:
    book.park(N, until=NOW + MINUTE, reason="no API calls left")

    book.unpark(N)
    book.unpark(N)

    night = book.night(N)
    assert night is not None
    assert (night.parked_until, night.parked_reason, night.parkings) == (None, "", 0)


def test_an_instant_of_another_zone_is_the_same_instant(book: Book) -> None:
    book.park(N, until=NOW + MINUTE, reason="")
    book.park(N, until=NOW.astimezone(timezone(timedelta(hours=2))), reason="an earlier one that reads later")

    night = book.night(N)
    assert night is not None and night.parked_until is not None
    assert (night.parked_until, night.parked_until.tzinfo) == (NOW + MINUTE, UTC)


# Endings


def test_a_measurement_comes_back_as_it_was_recorded(book: Book) -> None:
    book.record_measurement(N, MEASURED)

    night = book.night(N)
    assert night is not None and night.measurement == MEASURED


def test_failed_measurements_are_counted_until_one_succeeds_and_take_none_away(book: Book) -> None:
    book.record_measurement(N, MEASURED)
    book.record_measure_failure(N, "no route")
    book.record_measure_failure(N, "no route")

    night = book.night(N)
    assert night is not None and (night.measure_tries, night.measurement) == (2, MEASURED)

    book.record_measurement(N, replace(MEASURED, missing=0))

    night = book.night(N)
    assert night is not None and night.measurement is not None
    assert (night.measure_tries, night.measurement.missing) == (0, 0)


def test_a_measurement_is_going_on_until_it_ends_and_one_that_was_killed_is_a_failed_try(
    book: Book, clock: Clock
) -> None:
    def seen() -> tuple[datetime | None, datetime | None, int]:
        night = book.night(N)
        assert night is not None
        return night.measuring_since, night.measure_seen_at, night.measure_tries

    book.begin_measure(N, run_id="killed")
    clock.now = NOW + MINUTE
    book.begin_measure(N, run_id="second")
    during = seen()
    clock.now = NOW + 2 * MINUTE
    book.end_measure(N)

    assert during == (NOW + MINUTE, NOW + MINUTE, 1)
    assert seen() == (None, NOW + 2 * MINUTE, 1)


def test_the_last_verdict_counts_and_the_history_keeps_every_one(book: Book, clock: Clock) -> None:
    book.record_measure_failure(N, "no route")
    book.record_verdict(N, Verdict.NOT_RECONCILED, reasons=["1 row is missing", "Bänk"], seconds=60.5)
    clock.now = NOW + MINUTE
    book.record_verdict(N, Verdict.RECONCILED, seconds=90.0)

    night = book.night(N)
    assert night is not None
    assert (night.verdict, night.verdict_at, night.verdict_reasons) == (Verdict.RECONCILED, NOW + MINUTE, ())
    assert (night.seconds, night.measure_tries) == (90.0, 0)
    assert book.verdicts(N) == [
        (NOW, Verdict.NOT_RECONCILED, ("1 row is missing", "Bänk")),
        (NOW + MINUTE, Verdict.RECONCILED, ()),
    ]


def test_a_night_whose_verdict_is_cleared_is_open_and_its_history_is_not(book: Book) -> None:
    book.record_verdict(N, Verdict.NOT_RECONCILED, reasons=["1 row is missing"], seconds=60.5)

    book.clear_verdict(N)

    night = book.night(N)
    assert night is not None
    assert (night.verdict, night.verdict_at, night.verdict_reasons) == (None, None, ())
    assert [verdict for _, verdict, _ in book.verdicts(N)] == [Verdict.NOT_RECONCILED]


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_can_be_written_and_read(book: Book, verdict: Verdict) -> None:
    book.record_verdict(N, verdict, seconds=0.0)

    night = book.night(N)
    assert night is not None and night.verdict is verdict


@pytest.mark.parametrize("state", RangeState)
def test_every_state_of_a_range_can_be_written_and_read(book: Book, state: RangeState) -> None:
    book.progress(N, A, state=state)

    assert entry(book).state is state


# Conditions


def test_a_condition_is_what_the_last_change_made_of_it(book: Book) -> None:
    book.change_condition("night", lambda _: {"failing": ["values_equal"], "due": None})
    book.change_condition("parked", lambda _: {"until": "08:10"})

    book.change_condition("night", lambda state: {"failing": [*(state or {})["failing"], "Bänk"]})

    assert book.conditions() == {"night": {"failing": ["values_equal", "Bänk"]}, "parked": {"until": "08:10"}}


def test_a_new_condition_has_no_state(book: Book) -> None:
    seen: list[object] = []

    def change(state: object) -> dict[str, int]:
        seen.append(state)
        return {"opened": len(seen)}

    book.change_condition("night", change)
    book.change_condition("night", change)

    assert seen == [None, {"opened": 1}]
    assert book.conditions() == {"night": {"opened": 2}}


def test_a_change_waits_for_the_one_before_it_and_sees_what_that_made(book: Book, place: Place) -> None:
    waited: list[bool] = []

    def change_it_too() -> None:
        other = place.open()
        other.change_condition("night", lambda state: {"told": [*(state or {"told": []})["told"], "second"]})
        other.close()

    second = threading.Thread(target=change_it_too)

    def change(state: object) -> dict[str, list[str]]:
        second.start()
        second.join(timeout=0.2)
        waited.append(second.is_alive())
        return {"told": ["first"]}

    book.change_condition("night", change)
    second.join()

    assert waited == [True]
    assert book.conditions() == {"night": {"told": ["first", "second"]}}


def test_processes_that_change_a_condition_at_once_see_each_other(book: Book, place: Place) -> None:
    assert run_together(count_in_a_condition, 3, place, 60) == [0, 0, 0]

    assert book.conditions() == {"night": {"seen": 180}}


def test_a_change_that_fails_leaves_the_condition_as_it_was(book: Book) -> None:
    book.change_condition("night", lambda _: {"failing": []})

    with pytest.raises(KeyError):
        book.change_condition("night", lambda state: {"due": (state or {})["due"]})

    assert book.conditions() == {"night": {"failing": []}}


# Trouble


def test_a_book_without_room_keeps_what_it_has_and_goes_on_when_there_is_room(file_book: Book) -> None:
    (pages,) = file_book.database.rows("PRAGMA page_count")
    file_book.database.rows(f"PRAGMA max_page_count = {pages['page_count']}")

    with pytest.raises(DiskFull, match=r"no room for the book .*book\.sqlite") as told:
        file_book.give_up(N, A, "a long reason " * 10_000)

    assert "Make room" in told.value.hint
    assert entry(file_book).state is RangeState.PLANNED
    file_book.database.rows(f"PRAGMA max_page_count = {2 * pages['page_count'] + 100}")
    file_book.give_up(N, A, "a long reason " * 10_000)
    assert entry(file_book).state is RangeState.GIVEN_UP


def test_a_book_that_fails_is_told_with_the_next_step(file_book: Book, path: Path) -> None:
    file_book.close()
    path.write_bytes(b"overwritten by somebody " * 1000)

    with pytest.raises(StateError, match="failed") as told:
        file_book.add_calls(N, {"rows": 1})

    assert str(path) in told.value.message
    assert "free disk space" in told.value.hint
