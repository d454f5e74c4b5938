"""The book in PostgreSQL: whose it is, what becomes of lost connections, and that its password is never shown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sync_pipeline.book.book import Book
from sync_pipeline.book.postgres import CONNECTIONS
from sync_pipeline.domain.errors import SettingsError
from sync_pipeline.domain.secret import Secret
from sync_pipeline_tests import postgres, running
from sync_pipeline_tests.book.test_book import A, N, plan_of

PASSWORD = "pa55w0rd"


@pytest.fixture
def variables() -> Iterator[dict[str, str]]:
    with postgres.database() as variables:
        yield variables


def book_of(home: Path, variables: dict[str, str]) -> Book:
    home.mkdir(exist_ok=True)
    return Book(home / "book.sqlite", url=Secret(postgres.url(variables)))


def test_a_book_belongs_to_the_home_that_first_opened_it(tmp_path: Path, variables: dict[str, str]) -> None:
    book_of(tmp_path / "one", variables).close()
    book_of(tmp_path / "one", variables).close()

    with pytest.raises(SettingsError, match=r"belongs to another SYNC_HOME, .*/one; homes cannot share") as refused:
        book_of(tmp_path / "two", variables)

    assert "a database of its own" in refused.value.hint


def test_a_home_that_was_moved_keeps_its_book(tmp_path: Path, variables: dict[str, str]) -> None:
    book_of(tmp_path / "one", variables).close()
    (tmp_path / "one").rename(tmp_path / "moved")

    book_of(tmp_path / "moved", variables).close()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://nobody:{PASSWORD}@127.0.0.1:1/book",
        f"postgresql://nobody:{PASSWORD}@127.0.0.1/book?{PASSWORD}",
        f"postgresql://nobody:{PASSWORD}@host.invalid/book",
        f"postgresql://nobody:{PASSWORD}@127.0.0.1:70000/book",
    ],
)
def test_a_database_that_cannot_be_reached_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    environment = running.environment_of(tmp_path, SYNC_BOOK_URL=url)

    for verb in (["status"], ["doctor"], ["sync"]):
        done = subprocess.run(
            [sys.executable, "-m", "sync_pipeline", *verb],
            check=False,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert PASSWORD not in done.stdout + done.stderr


def test_the_name_of_a_book_shows_where_it_is_and_not_who_reads_it(tmp_path: Path, variables: dict[str, str]) -> None:
    book = book_of(tmp_path, variables)

    assert book.database.name == f"postgresql://{postgres.HOST}:{postgres.PORT}/{variables['PGDATABASE']}"
    book.close()


def test_connections_that_the_server_ended_are_replaced(tmp_path: Path, variables: dict[str, str]) -> None:
    book = book_of(tmp_path, variables)
    book.open_night(plan_of())

    for _ in range(2):
        postgres.rows(
            variables,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        book.add_calls(N, {"rows": 1})
        postgres.rows(
            variables,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        assert book.calls(N)["rows"] in (1, 2)

    assert book.calls(N) == {"rows": 2}
    book.close()


def test_many_threads_share_few_connections(tmp_path: Path, variables: dict[str, str]) -> None:
    book = book_of(tmp_path, variables)
    book.open_night(plan_of())
    threads = [threading.Thread(target=book.add_calls, args=(N, {"rows": 1})) for _ in range(5 * CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    ((open_ones,),) = postgres.rows(
        variables,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    assert isinstance(open_ones, int) and open_ones <= CONNECTIONS
    assert book.calls(N) == {"rows": 5 * CONNECTIONS}
    book.close()


def test_no_thread_starves_while_others_write_all_the_time(tmp_path: Path, variables: dict[str, str]) -> None:
    book = book_of(tmp_path, variables)
    book.open_night(plan_of())
    lanes, over = 3 * CONNECTIONS, threading.Event()
    written = [0] * lanes

    def write(lane: int) -> None:
        while not over.is_set():
            book.progress(N, A, rows_sent=lane)
            written[lane] += 1

    threads = [threading.Thread(target=write, args=(lane,)) for lane in range(lanes)]
    for thread in threads:
        thread.start()
    try:
        running.until(lambda: sum(written) >= 20 * lanes, seconds=60)
    finally:
        over.set()
        for thread in threads:
            thread.join()

    assert min(written) >= 5
    book.close()


def test_text_with_a_zero_character_is_kept_without_it(tmp_path: Path, variables: dict[str, str]) -> None:
    book = book_of(tmp_path, variables)

    book.change_condition("a\0b", lambda _: {})

    assert list(book.conditions()) == ["a\N{REPLACEMENT CHARACTER}b"]
    book.close()


@pytest.mark.slow
def test_a_night_that_was_killed_goes_on_from_a_book_in_postgresql(tmp_path: Path, variables: dict[str, str]) -> None:
    environment = running.environment_of(
        tmp_path, SYNC_BOOK_URL=postgres.url(variables), SYNC_ROWS_PER_RANGE="1000", SYNC_LANES="2"
    )
    running.sync_pipeline(environment, "org", "seed", "--rows", "5000")
    night = subprocess.Popen(
        [sys.executable, "-m", "sync_pipeline", "sync"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    book = book_of(tmp_path / "nights", variables)
    running.until(lambda: any(j.job_id for j in book.jobs()), seconds=90)
    os.killpg(night.pid, signal.SIGKILL)
    night.wait()
    killed = book.newest()
    assert killed is not None and killed.verdict is None

    running.sync_pipeline(environment, "sync")

    ended = book.newest()
    assert ended is not None and ended.plan_id == killed.plan_id and ended.verdict is not None
    assert all(entry.counts.adds_up for entry in book.ranges(ended.plan_id))
    assert sum(entry.counts.expected for entry in book.ranges(ended.plan_id)) == 5000
    assert not (tmp_path / "nights" / "book.sqlite").exists()
    book.close()
