"""Layouts of the book: an older one is brought up to ours with all that is in it, or left as it was."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from threading import Barrier

import pytest

from sync_pipeline.book.book import Book
from sync_pipeline.book.database import LAYOUT
from sync_pipeline.book.migrations import scripts
from sync_pipeline.book.sqlite import SqliteDatabase
from sync_pipeline.domain.keys import cover
from sync_pipeline.domain.ledger import Counts, RangeState, Verdict
from sync_pipeline.domain.night import PIPELINE

SPAWN = multiprocessing.get_context("spawn")
OVER, UNFINISHED = "20260609T020000.000000Z", "20260610T020000.000000Z"
A, B = (key_range.partition for key_range in cover(["b"]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A book that a version with layout 1 wrote; the text was dumped from a file of its own making."""
    path = tmp_path / "book.sqlite"
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(Path(__file__).with_name("layout_1.sql").read_text(encoding="utf-8"))
    return path


def everything(path: Path) -> str:
    with closing(sqlite3.connect(path)) as raw:
        return "\n".join(raw.iterdump())


def open_together(start: Barrier, path: Path) -> None:
    start.wait()
    Book(path).close()


def migrate_until_killed(path: Path) -> None:
    """Is killed at the last statement of the migration, when all tables have been changed."""

    def look(statement: str) -> None:
        if statement.startswith("UPDATE fact"):
            os.kill(os.getpid(), signal.SIGKILL)

    class Doomed(SqliteDatabase):
        def connect(self) -> sqlite3.Connection:
            connection = super().connect()
            connection.set_trace_callback(look)
            return connection

    Doomed(path).check_layout()


def test_the_newest_migration_is_the_layout_of_this_version() -> None:
    assert [int(script.revision) for script in scripts().walk_revisions()] == list(range(LAYOUT, 0, -1))


def test_a_night_of_layout_1_goes_on_where_it_was_left(path: Path) -> None:
    book = Book(path)

    night = book.newest()
    assert night is not None and (night.plan_id, night.verdict, night.api_calls) == (UNFINISHED, None, 7)
    done, killed = book.ranges(UNFINISHED)
    assert (done.state, done.counts) == (RangeState.DONE, Counts(10, 10, 4, 3, 1, 0, 2, 1))
    assert (killed.state, killed.counts, killed.rows_sent) == (RangeState.LOADING, Counts(20, 12), 12)
    assert [(job.job_id, job.state) for job in book.jobs(UNFINISHED, open_only=True)] == [("750a", "Open")]
    assert book.conditions() == {"night": {"failing": ["Bänk"]}}

    assert book.begin_run(UNFINISHED, B, pid=1, fresh=False).attempts == 1
    book.job_over(1, "accounted")
    assert book.intend_job(UNFINISHED, B, generation=1, part=2, round=0, rows=8, serial=False) == 2
    book.end_run(UNFINISHED, B, state=RangeState.DONE, counts=Counts(20, 20, 20))
    book.record_verdict(UNFINISHED, Verdict.WITH_REJECTS, seconds=1)

    assert [entry.counts.created for entry in book.ranges(UNFINISHED)] == [4, 20]
    book.close()


def test_a_night_of_layout_1_that_is_over_reads_as_before(path: Path) -> None:
    book = Book(path)

    night = book.night(OVER)
    assert night is not None and (night.verdict, night.verdict_runs, night.measured_runs) == (Verdict.RECONCILED, 2, 2)
    assert night.measurement is not None and night.measurement.by_range == {A: {"present": 10}}
    assert [entry.counts for entry in book.ranges(OVER)] == [Counts(10, 10, 10), Counts(20, 20, 20)]
    assert book.certificate_head() == (1, "ab" * 32)
    assert [verdict for _, verdict, _ in book.verdicts(OVER)] == [Verdict.RECONCILED]
    book.close()


def test_every_night_range_and_job_of_layout_1_belongs_to_the_one_pipeline(path: Path) -> None:
    Book(path).close()

    with closing(sqlite3.connect(path)) as raw:
        for table in ("night", "range", "job", "outcome"):
            assert raw.execute(f"SELECT DISTINCT pipeline FROM {table}").fetchall() == [(PIPELINE,)]


def test_a_book_that_was_brought_up_has_the_tables_of_a_new_one(path: Path, tmp_path: Path) -> None:
    Book(path).close()
    Book(tmp_path / "new.sqlite").close()

    def columns(file: Path) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(file)) as raw:
            return raw.execute(
                'SELECT t.name, c.name, c.type, c."notnull", c.pk FROM sqlite_schema AS t, pragma_table_info(t.name) AS c'
                " WHERE t.type = 'table' ORDER BY t.name, c.cid"
            ).fetchall()

    def indexes(file: Path) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(file)) as raw:
            return raw.execute(
                "SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'index' ORDER BY name"
            ).fetchall()

    def facts(file: Path) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(file)) as raw:
            return raw.execute(
                "SELECT value FROM fact WHERE name = 'layout' UNION ALL SELECT version_num FROM alembic_version"
            ).fetchall()

    new = tmp_path / "new.sqlite"
    assert (columns(path), indexes(path), facts(path)) == (columns(new), indexes(new), facts(new))


def test_a_new_book_is_made_without_loading_the_migrations(tmp_path: Path) -> None:
    made = "from pathlib import Path; from sync_pipeline.book.book import Book; Book(Path('b.sqlite')).close()"
    loaded = "import sys; print(any(name in sys.modules for name in ('alembic', 'sqlalchemy')))"

    ran = subprocess.run([sys.executable, "-c", f"{made}; {loaded}"], capture_output=True, text=True, check=True)

    assert ran.stdout == "False\n"


def test_processes_that_bring_a_book_up_at_once_do_it_once(path: Path) -> None:
    start = SPAWN.Barrier(4)
    running = [SPAWN.Process(target=open_together, args=(start, path), daemon=True) for _ in range(4)]
    for process in running:
        process.start()
    for process in running:
        process.join()

    assert [process.exitcode for process in running] == [0] * 4
    book = Book(path)
    assert book.ranges(UNFINISHED)[0].counts.created == 4
    book.close()


def test_a_migration_that_is_killed_leaves_the_layout_that_was_there(path: Path) -> None:
    before = everything(path)
    killed = SPAWN.Process(target=migrate_until_killed, args=(path,), daemon=True)
    killed.start()
    killed.join()

    assert killed.exitcode == -signal.SIGKILL
    assert everything(path) == before
    book = Book(path)
    assert book.ranges(UNFINISHED)[0].counts.created == 4
    book.close()
