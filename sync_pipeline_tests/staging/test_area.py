"""SYNC_HOME: names that lead nowhere else, locks that go with their holder, and what is cleared away when.

Other processes are real ones, daemons so that none outlives its test. Each imports this file anew, so that what only one
test needs is imported there.
"""

from __future__ import annotations

import fcntl
import logging
import multiprocessing
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sync_pipeline.book.book import Book
from sync_pipeline.domain.errors import HeldElsewhere, SettingsError, StateError
from sync_pipeline.domain.keys import KeyRange
from sync_pipeline.domain.plan import new_plan_id
from sync_pipeline.staging.area import NAME, Area

SPAWN = multiprocessing.get_context("spawn")
NOW = datetime(2026, 6, 10, 3, 0, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
ROWS = ("page-000001.parquet", "part-00001.parquet", "part-00001.csv", "page-000002.parquet.tmp")
LEDGER = ("range.duckdb", "outcome-00001.parquet")
HOSTILE = ["", ".", "..", "../x", "a/b", "/etc", "a\0b", "a\n", "é", "a b", "a\\b", "a" * 65]

Lock = Callable[[Area], AbstractContextManager[None]]


# Other processes


def lock_range(area: Area) -> AbstractContextManager[None]:
    return area.lock_range("a-1")


def lock_other_range(area: Area) -> AbstractContextManager[None]:
    return area.lock_range("b-2")


def lock_night(area: Area) -> AbstractContextManager[None]:
    return area.lock_night()


def lock_driver(area: Area) -> AbstractContextManager[None]:
    return area.lock_driver()


def lock_measure(area: Area) -> AbstractContextManager[None]:
    return area.lock_measure()


LOCKS: tuple[Lock, ...] = (lock_range, lock_other_range, lock_night, lock_driver, lock_measure)


def hold(home: Path, lock: Lock, pipe: Connection) -> None:
    """Holds a lock until it is told to let go; whoever only dies does not answer."""
    with lock(Area(home)):
        pipe.send("held")
        pipe.recv()
    pipe.send("let go")


def hold_with_a_program(home: Path, lock: Lock, pipe: Connection) -> None:
    """Holds a lock while a program that it started runs."""
    with lock(Area(home)):
        program = subprocess.Popen(["sleep", "600"])
        pipe.send(program.pid)
        pipe.recv()


def claim(home: Path, start: threading.Barrier, times: int) -> None:
    """Takes the range again and again; ends with an error when somebody else is in it at the same time."""
    area = Area(home)
    start.wait()
    taken = 0
    while taken < times:
        with suppress(HeldElsewhere), area.lock_range("a-1"):
            inside = os.open(home / "inside", os.O_CREAT | os.O_EXCL)
            os.close(inside)
            (home / "inside").unlink()
            taken += 1


def take_place(area: Area) -> AbstractContextManager[None]:
    return area.slot("sort", of=1)


def take_places(home: Path, start: threading.Barrier, times: int) -> None:
    """Takes one of two places again and again; ends with an error when a third one is at work at the same time."""
    area = Area(home)
    start.wait()
    for _ in range(times):
        with area.slot("sort", of=2, sleep=lambda seconds: None):
            inside = home / f"inside-{os.getpid()}"
            inside.touch()
            assert len(list(home.glob("inside-*"))) <= 2
            inside.unlink()


def unexpected(seconds: float) -> None:
    raise AssertionError("nobody else has it")


@contextmanager
def holder(home: Path, lock: Lock) -> Iterator[SpawnProcess]:
    """Another process that holds the lock within the block."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=hold, args=(home, lock, theirs), daemon=True)
    process.start()
    theirs.close()
    assert ours.recv() == "held"
    try:
        yield process
    finally:
        if process.is_alive():
            ours.send("let go")
            assert ours.recv() == "let go"
        process.join()
        ours.close()


@pytest.fixture
def area(tmp_path: Path) -> Area:
    area = Area(tmp_path / "home")
    area.prepare()
    return area


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def modes(folder: Path) -> dict[str, int]:
    """Modes of all that is in the folder that are not those of a private folder or file."""
    odd = {}
    for path in [folder, *folder.rglob("*")]:
        if mode(path) != (0o700 if path.is_dir() else 0o600):
            odd[str(path.relative_to(folder))] = mode(path)
    return odd


# Names


@given(name=st.text(max_size=70) | st.from_regex(NAME))
def test_a_name_leads_to_its_own_folder_or_is_refused(name: str) -> None:
    area = Area(Path("/home"))
    doors: list[Callable[[str], Path]] = [
        area.night_folder,
        lambda partition: area.range_folder("n", partition, 1).parent,
    ]

    for door in doors:
        try:
            path = door(name)
        except StateError:
            assert not NAME.fullmatch(name)
        else:
            assert path.name == name
            assert Path(os.path.normpath(path)) == path
            assert path.is_relative_to("/home/nights")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_could_lead_elsewhere_is_refused_by_every_door(area: Area, name: str) -> None:
    doors: list[Callable[[str], object]] = [
        area.night_folder,
        area.lock_range,
        area.is_range_locked,
        lambda plan_id: area.range_folder(plan_id, "a-1", 1),
        lambda partition: area.range_folder("n", partition, 1),
    ]
    for door in doors:
        with pytest.raises(StateError, match="no plan id or partition key"):
            door(name)

    assert list((area.home / "locks").iterdir()) == []


@given(
    instant=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)),
    after=st.none() | st.text(max_size=30),
    through=st.none() | st.text(max_size=30),
)
@example(instant=datetime(2026, 6, 10), after=None, through="../../etc/pw")
@example(instant=datetime(2026, 6, 10), after=None, through="Opp-0000200000")
def test_every_plan_id_and_partition_key_is_a_name(instant: datetime, after: str | None, through: str | None) -> None:
    try:
        partition = KeyRange(after, through).partition
    except (ValueError, UnicodeEncodeError):
        return  # no range
    plan_id = new_plan_id(instant.replace(tzinfo=UTC))

    folder = Area(Path("/home")).range_folder(plan_id, partition, 3)

    assert folder == Path("/home/nights") / plan_id / partition / "3"


# Folders


def test_nothing_is_made_before_it_is_prepared(tmp_path: Path) -> None:
    area = Area(tmp_path / "home")

    assert area.night_folder("n") == tmp_path / "home" / "nights" / "n"
    assert area.free_bytes() > 0
    assert not area.is_range_locked("a-1")
    assert area.sweep(now=NOW, keep_rows=DAY, keep_ledgers=DAY, unfinished=()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_prepared_home_is_private_and_holds_nothing_but_folders(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        Area(tmp_path / "state" / "home").prepare()
    finally:
        os.umask(before)

    assert modes(tmp_path / "state") == {}
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "state", "state/home", "state/home/locks", "state/home/nights",
    ]  # fmt: skip


def test_preparing_twice_changes_nothing(area: Area) -> None:
    area.night_folder("n").mkdir()

    area.prepare()

    assert area.night_folder("n").is_dir()


@pytest.mark.parametrize("place", ["file/home", "file"])
def test_a_home_that_cannot_be_made_is_told_with_the_next_step(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(SettingsError, match="cannot be used") as refused:
        Area(tmp_path / place).prepare()

    assert "Set SYNC_HOME to a folder of yours" in refused.value.hint


def test_a_home_in_which_no_file_can_be_made_is_told() -> None:
    with pytest.raises(SettingsError, match="SYNC_HOME /proc/self/home cannot be used"):
        Area(Path("/proc/self/home")).prepare()


def test_a_home_is_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    area = Area(Path("home"))  # the current folder is tmp_path
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    area.prepare()

    assert area.book_file == tmp_path / "home" / "book.sqlite"
    assert (tmp_path / "home" / "nights").is_dir()


def test_free_bytes_are_those_of_the_disk_that_home_will_be_on(tmp_path: Path) -> None:
    free = Area(tmp_path / "not" / "there" / "yet").free_bytes()

    # Others write to the disk meanwhile; it is the same disk when both are near each other.
    assert free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)


def test_all_that_a_night_leaves_belongs_to_the_user_alone(area: Area) -> None:
    from sync_pipeline.domain.ledger import Cursor
    from sync_pipeline_tests.staging.sample import failed, keys, opened, record, rejections, saved

    def render(frame: object, path: Path) -> tuple[int, int]:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        return 0, 0

    before = os.umask(0o000)
    try:
        with (
            area.lock_night(),
            area.lock_driver(),
            area.lock_measure(),
            area.lock_range("a-1"),
            area.slot("sort", of=2),
        ):
            book = Book(area.book_file)
            with book.turn("create"), opened(area.range_folder("n", "a-1", 1)) as store:
                store.add_page(keys("a", "b", "c"), Cursor("c", "q", 3), rejections((2, "TOO_LONG")))
                store.finish_reading(3)
                (part,) = store.cut_round(
                    which="all", group_by=None, start_fraction=0.0, part_rows=10, part_bytes=10_000, heavy_rows=10,
                    serial=False, render=render,
                )  # fmt: skip
                at_work = modes(area.home)
                record(store, part, successes=[saved("a")], failures=[failed("b")])
                in_between = modes(area.home)
            book.close()
    finally:
        os.umask(before)

    assert (at_work, in_between, modes(area.home)) == ({}, {}, {})
    assert (area.home / "locks" / "range-a-1.lock").exists()


# Locks


@pytest.mark.parametrize("lock", LOCKS)
def test_a_second_process_is_told_who_holds_the_lock_within_five_seconds(area: Area, lock: Lock) -> None:
    with holder(area.home, lock) as process:
        began = time.monotonic()
        with pytest.raises(HeldElsewhere) as refused, lock(area):
            pass

        assert time.monotonic() - began < 5
        said = rf"Process {process.pid} since \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 works on "
        assert re.match(said, refused.value.message)
        assert "status --watch" in refused.value.hint

    with lock(area):
        pass


def test_what_is_held_is_named(area: Area) -> None:
    named = {}
    for lock in LOCKS:
        with lock(area), pytest.raises(HeldElsewhere) as refused, lock(area):
            pass
        named[lock] = refused.value.message.partition(" works on ")[2]

    assert named == {
        lock_range: "range a-1.",
        lock_other_range: "range b-2.",
        lock_night: "the plan or verdict of the night.",
        lock_driver: "the night, from a terminal.",
        lock_measure: "the measurement of the night.",
    }


def test_a_second_thread_of_the_same_process_is_kept_out_too(area: Area) -> None:
    refused: list[str] = []

    def second() -> None:
        try:
            with area.lock_range("a-1"):
                pass
        except HeldElsewhere as error:
            refused.append(error.message)

    with area.lock_range("a-1"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    assert len(refused) == 1
    assert f"Process {os.getpid()} " in refused[0]


def test_every_lock_is_held_apart_from_the_others(area: Area) -> None:
    with ExitStack() as held:
        for lock in LOCKS:
            held.enter_context(lock(area))
        assert seen(area) == (True, True, True, True)

    assert seen(area) == (False, False, False, False)


def test_another_home_has_locks_of_its_own(area: Area, tmp_path: Path) -> None:
    other = Area(tmp_path / "other")
    other.prepare()

    with area.lock_range("a-1"), other.lock_range("a-1"), area.lock_night(), other.lock_night():
        pass


def test_a_lock_ends_with_its_block_however_that_ends(area: Area) -> None:
    with pytest.raises(KeyboardInterrupt), area.lock_range("a-1"):
        raise KeyboardInterrupt

    assert not area.is_range_locked("a-1")
    with area.lock_range("a-1"):
        pass


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_of_a_process_that_is_killed_is_free_at_once(area: Area, lock: Lock) -> None:
    with holder(area.home, lock) as process:
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL

        with lock(area):
            pass


def test_a_program_that_the_holder_started_does_not_keep_its_lock(area: Area) -> None:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=hold_with_a_program, args=(area.home, lock_range, theirs), daemon=True)
    process.start()
    program: int = ours.recv()
    try:
        process.kill()
        process.join()
        os.kill(program, 0)  # it still runs

        assert not area.is_range_locked("a-1")
        with area.lock_range("a-1"):
            pass
    finally:
        os.kill(program, signal.SIGKILL)


def test_only_one_of_many_processes_is_in_a_range_at_any_time(area: Area) -> None:
    start = SPAWN.Barrier(3)
    claimers = [SPAWN.Process(target=claim, args=(area.home, start, 40), daemon=True) for _ in range(3)]
    for claimer in claimers:
        claimer.start()
    for claimer in claimers:
        claimer.join()

    assert [claimer.exitcode for claimer in claimers] == [0, 0, 0]


# Looking


def seen(area: Area) -> tuple[bool, ...]:
    """What somebody who only looks sees locked."""
    return (
        area.is_range_locked("a-1"),
        area.is_range_locked("b-2"),
        area.is_driver_locked(),
        area.is_measure_locked(),
    )


@pytest.mark.parametrize(
    ("lock", "locked"),
    [
        (lock_range, (True, False, False, False)),
        (lock_driver, (False, False, True, False)),
        (lock_measure, (False, False, False, True)),
        (lock_night, (False, False, False, False)),
    ],
)
def test_a_lock_is_seen_as_long_as_another_process_holds_it(area: Area, lock: Lock, locked: tuple[bool, ...]) -> None:
    with holder(area.home, lock):
        assert seen(area) == locked

    assert seen(area) == (False, False, False, False)


def test_looking_leaves_no_trace_and_holds_nothing(area: Area) -> None:
    assert seen(area) == (False, False, False, False)
    assert list((area.home / "locks").iterdir()) == []

    with area.lock_range("a-1"):
        pass
    descriptors = open_descriptors()
    for _ in range(100):
        area.is_range_locked("a-1")
    assert open_descriptors() == descriptors


def test_whoever_looks_keeps_neither_another_looker_nor_an_owner_out(area: Area) -> None:
    with area.lock_range("a-1"):
        pass
    descriptor = os.open(area.home / "locks" / "range-a-1.lock", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # somebody in the midst of looking
    owned = threading.Event()

    def own() -> None:
        with area.lock_range("a-1"):
            owned.set()

    owner = threading.Thread(target=own)
    try:
        assert not area.is_range_locked("a-1")
        owner.start()
    finally:
        os.close(descriptor)
    owner.join()

    assert owned.is_set()


# Places


def test_as_many_have_a_place_as_there_are_and_the_next_one_waits_for_the_first_that_leaves(area: Area) -> None:
    pauses: list[float] = []
    descriptors = open_descriptors()
    with ExitStack() as held:
        held.enter_context(area.slot("sort", of=2))
        second = ExitStack()
        second.enter_context(area.slot("sort", of=2))

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                second.close()

        with area.slot("sort", of=2, sleep=sleep):
            assert len(pauses) == 3

    assert open_descriptors() == descriptors


def test_a_long_wait_for_a_place_is_told_and_again_when_it_has_doubled(
    area: Area, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    waited = 0.0
    with ExitStack() as held:
        held.enter_context(area.slot("sort", of=1))

        def sleep(seconds: float) -> None:
            nonlocal waited
            waited += seconds
            if waited > 100:
                held.close()

        with area.slot("sort", of=1, sleep=sleep):
            pass

    assert [record.getMessage().split()[1] for record in caplog.records] == ["30", "60"]


def test_places_of_another_kind_are_others(area: Area) -> None:
    with area.slot("sort", of=1, sleep=unexpected), area.slot("read", of=1, sleep=unexpected):
        pass


def test_whoever_is_interrupted_while_waiting_has_no_place(area: Area) -> None:
    class Stopped(Exception):
        pass

    def sleep(seconds: float) -> None:
        raise Stopped

    with area.slot("sort", of=1), pytest.raises(Stopped), area.slot("sort", of=1, sleep=sleep):
        raise AssertionError("somebody else has the place")

    with area.slot("sort", of=1, sleep=unexpected):
        pass


def test_a_place_is_free_again_however_its_block_ends(area: Area) -> None:
    with pytest.raises(KeyboardInterrupt), area.slot("sort", of=1):
        raise KeyboardInterrupt

    with area.slot("sort", of=1, sleep=unexpected):
        pass


def test_never_more_processes_than_places_are_at_work(area: Area) -> None:
    start = SPAWN.Barrier(4)
    workers = [SPAWN.Process(target=take_places, args=(area.home, start, 15), daemon=True) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]


def test_the_place_of_a_process_that_is_killed_is_free_at_once(area: Area) -> None:
    with holder(area.home, take_place) as process:
        process.kill()
        process.join()

        with area.slot("sort", of=1, sleep=unexpected):
            pass


# Retention


def night(area: Area, age: timedelta, *partitions: str) -> Path:
    """A night of that age with the files of its ranges, each of 10 bytes."""
    folder = area.night_folder(new_plan_id(NOW - age))
    for partition in partitions:
        for generation in ("1", "2"):
            (folder / partition / generation).mkdir(parents=True)
            for name in (*ROWS, *LEDGER):
                (folder / partition / generation / name).write_bytes(b"0123456789")
    return folder


def sweep(area: Area, *unfinished: str) -> list[str]:
    return area.sweep(now=NOW, keep_rows=7 * DAY, keep_ledgers=400 * DAY, unfinished=unfinished)


def kept(folder: Path) -> set[str]:
    """Names of the files that are left of a night."""
    return {path.name for path in folder.rglob("*") if path.is_file()}


@settings(max_examples=60, deadline=None)
@given(
    nights=st.lists(
        st.tuples(st.integers(0, 500 * 24 * 3600), st.booleans(), st.booleans()),
        max_size=6,
        unique_by=lambda night: night[0],
    )
)
@example(nights=[(7 * 86_400, False, False), (7 * 86_400 + 1, False, False)])
@example(nights=[(400 * 86_400, False, False), (400 * 86_400 + 1, False, False), (400 * 86_400 + 2, True, False)])
def test_rows_stay_for_7_days_ledgers_for_400_and_an_unfinished_night_for_ever(
    tmp_path_factory: pytest.TempPathFactory, nights: list[tuple[int, bool, bool]]
) -> None:
    area = Area(tmp_path_factory.mktemp("home"))
    area.prepare()
    made = [night(area, seconds * SECOND, f"r-{seconds}") for seconds, _, _ in nights]
    held = [area.lock_range(f"r-{seconds}") for seconds, _, is_busy in nights if is_busy]
    for lock in held:
        lock.__enter__()

    sweep(area, *(folder.name for folder, (_, is_unfinished, _) in zip(made, nights, strict=True) if is_unfinished))

    for lock in held:
        lock.__exit__(None, None, None)
    for folder, (seconds, is_unfinished, is_busy) in zip(made, nights, strict=True):
        if is_unfinished or is_busy or seconds <= 7 * 86_400:
            assert kept(folder) == {*ROWS, *LEDGER}
        elif seconds <= 400 * 86_400:
            assert kept(folder) == {*LEDGER}
        else:
            assert not folder.exists()


def test_what_was_removed_is_said_once(area: Area) -> None:
    young, old, older = night(area, DAY, "a-1"), night(area, 8 * DAY, "a-1", "b-2"), night(area, 401 * DAY, "a-1")

    assert sweep(area) == [
        f"night {older.name} with its ledgers",
        f"rows of night {old.name}, 0.0 MB",
    ]
    assert sweep(area) == []
    assert kept(young) == {*ROWS, *LEDGER}


def test_rows_of_all_generations_are_removed_and_counted(area: Area) -> None:
    folder = night(area, 8 * DAY, "a-1")
    (folder / "a-1" / "1" / "page-000003.parquet").write_bytes(b"0" * 3_500_000)

    assert sweep(area) == [f"rows of night {folder.name}, 3.5 MB"]

    assert [len(list((folder / "a-1" / generation).iterdir())) for generation in ("1", "2")] == [2, 2]


def test_a_range_that_somebody_works_on_keeps_its_rows_and_its_night(area: Area) -> None:
    folder = night(area, 500 * DAY, "a-1", "b-2")

    with holder(area.home, lock_range):
        sweep(area)

    assert kept(folder / "a-1") == {*ROWS, *LEDGER}
    assert kept(folder / "b-2") == {*LEDGER}
    assert sweep(area) == [f"night {folder.name} with its ledgers"]


def test_the_ledger_beside_the_ranges_stays_and_a_measurement_that_died_goes(area: Area) -> None:
    folder = night(area, 8 * DAY, "a-1")
    (folder / "duplicates.parquet").write_bytes(b"groups")
    (folder / "measure-x1" / "sides").mkdir(parents=True)
    (folder / "measure-x1" / "sides" / "expected-00000.parquet").write_bytes(b"hashes")

    sweep(area)

    assert kept(folder) == {*LEDGER, "duplicates.parquet"}
    assert not (folder / "measure-x1").exists()


@contextmanager
def with_folders_of_its_own(area: Area) -> Iterator[None]:
    with area.spill_folder() as spill, area.measure_folder("20260610T020000.000000Z") as measured:
        for folder in (spill, measured):
            (folder / "rows").write_bytes(b"rows")
        yield


def folders_of_processes(area: Area) -> list[str]:
    return sorted(path.name.split("-")[0] for path in area.home.rglob("*-*") if (path / "rows").is_file())


def test_the_folders_of_a_process_go_with_it_and_nobody_sweeps_them_before(area: Area) -> None:
    area.night_folder("20260610T020000.000000Z").mkdir()
    with with_folders_of_its_own(area):
        sweep(area)
        assert folders_of_processes(area) == ["measure", "spill"]
        assert {mode(path) for path in area.home.rglob("*-*") if path.is_dir()} == {0o700}
    assert folders_of_processes(area) == []

    with holder(area.home, with_folders_of_its_own) as process:
        sweep(area)
        assert folders_of_processes(area) == ["measure", "spill"]
        process.kill()
        process.join()
        assert folders_of_processes(area) == ["measure", "spill"]
        sweep(area)
        assert folders_of_processes(area) == []


@pytest.mark.parametrize("name", ["notes", "20260610T020000.000000", "20261301T020000.000000Z"])
def test_what_is_not_a_night_is_never_touched(area: Area, name: str) -> None:
    foreign = area.night_folder(name) / "a-1" / "1"
    foreign.mkdir(parents=True)
    (foreign / ROWS[0]).write_bytes(b"not ours")
    (area.home / "nights" / "readme.txt").write_text("not ours")

    assert sweep(area) == []

    assert (foreign / ROWS[0]).exists()
    assert (area.home / "nights" / "readme.txt").exists()


def test_a_range_still_tells_the_fate_of_its_rows_when_they_were_cleared_away(area: Area) -> None:
    from sync_pipeline.domain.ledger import Counts, Cursor
    from sync_pipeline.staging.range_store import RangeStore
    from sync_pipeline_tests.staging.sample import NO_REJECTIONS, cut, failed, keys, opened, record, saved

    folder = area.range_folder(new_plan_id(NOW - 8 * DAY), "a-1", 1)
    with opened(folder) as store:
        store.add_page(keys("a", "b"), Cursor("b", "q", 2), NO_REJECTIONS)
        store.finish_reading(2)
        (part,) = cut(store)
        record(store, part, successes=[saved("a")], failures=[failed("b")])
    counts = Counts(expected=2, staged=2, created=1, failed=1)

    assert len(sweep(area)) == 1

    assert list(folder.glob("p*")) == []
    with RangeStore.read_only(folder) as store:
        assert store.counts(2) == counts
        assert [row.outcome["outcome"] for key in ("a", "b") for row in store.lookup(key) if row.outcome] == [
            "succeeded",
            "failed",
        ]
        assert store.rejects()["key"].to_list() == ["b"]
