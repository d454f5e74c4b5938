"""One DuckDB for the ranges of a process: what they share, and that no range notices another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import duckdb
import pytest

from sync_pipeline.domain.errors import HeldElsewhere
from sync_pipeline.staging.catalogues import Catalogues, check_unattached
from sync_pipeline_tests.staging.sample import alone


def put(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS t (x VARCHAR)")
    connection.execute("INSERT INTO t VALUES (?)", [text])


def texts(connection: duckdb.DuckDBPyConnection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT x FROM t ORDER BY x").fetchall()]


def read(file: Path) -> list[str]:
    """What anybody reads there who comes later."""
    with duckdb.connect(str(file), read_only=True) as connection:
        return texts(connection)


def test_each_connection_has_its_own_catalogue_and_the_file_is_whole_when_it_ends(tmp_path: Path) -> None:
    catalogues = alone(tmp_path)
    one, other = catalogues.attach(tmp_path / "it's one"), catalogues.attach(tmp_path / "other")
    put(one, "a")
    put(other, "b")
    catalogues.detach(one)
    put(other, "c")
    catalogues.detach(other)

    assert (read(tmp_path / "it's one"), read(tmp_path / "other")) == (["a"], ["b", "c"])
    assert {path.name for path in tmp_path.iterdir()} == {"it's one", "other"}


def test_threads_work_side_by_side(tmp_path: Path) -> None:
    catalogues, together = alone(tmp_path), Barrier(4)

    def work(number: int) -> None:
        for turn in range(5):
            together.wait(20)
            connection = catalogues.attach(tmp_path / f"{number}")
            put(connection, f"{number}-{turn}")
            catalogues.detach(connection)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))

    assert [read(tmp_path / f"{n}") for n in range(4)] == [[f"{n}-{turn}" for turn in range(5)] for n in range(4)]


def test_what_was_not_committed_never_was(tmp_path: Path) -> None:
    catalogues = alone(tmp_path)
    connection = catalogues.attach(tmp_path / "r")
    put(connection, "a")
    connection.execute("BEGIN")
    put(connection, "b")
    catalogues.detach(connection)

    again = catalogues.attach(tmp_path / "r")
    assert texts(again) == ["a"]
    catalogues.detach(again)


@pytest.mark.parametrize("is_own", [True, False])
def test_a_file_is_open_once_in_a_process_and_its_lock_outlasts_every_other_try(tmp_path: Path, is_own: bool) -> None:
    owners, catalogues = alone(tmp_path), alone(tmp_path)
    owners = catalogues if is_own else owners
    owner = owners.attach(tmp_path / "r")
    put(owner, "a")

    with pytest.raises(HeldElsewhere):
        catalogues.attach(tmp_path / "r")
    with pytest.raises(HeldElsewhere):
        check_unattached(tmp_path / "x" / ".." / "r")

    assert "Could not set lock on file" in tried_elsewhere(tmp_path / "r")
    put(owner, "b")
    owners.detach(owner)
    check_unattached(tmp_path / "r")
    again = catalogues.attach(tmp_path / "r")
    assert texts(again) == ["a", "b"]
    catalogues.detach(again)


def test_another_process_meets_the_lock_as_long_as_the_range_is_attached(tmp_path: Path) -> None:
    catalogues = alone(tmp_path)
    connection = catalogues.attach(tmp_path / "r")
    put(connection, "a")
    other = catalogues.attach(tmp_path / "other")

    assert "Could not set lock on file" in tried_elsewhere(tmp_path / "r")
    catalogues.detach(connection)
    assert tried_elsewhere(tmp_path / "r") == ""
    catalogues.detach(other)


def tried_elsewhere(file: Path) -> str:
    """What another process is told that opens the file."""
    program = f"import duckdb; duckdb.connect({str(file)!r}, read_only=True)"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stderr


def test_a_catalogue_that_cannot_be_used_troubles_no_other(tmp_path: Path) -> None:
    catalogues = alone(tmp_path)
    connection = catalogues.attach(tmp_path / "r")
    (tmp_path / "broken").write_bytes(b"no database at all" * 1000)

    with pytest.raises(duckdb.Error):
        catalogues.attach(tmp_path / "broken")
    with pytest.raises(duckdb.Error):
        catalogues.attach(tmp_path / "no folder" / "r")

    put(connection, "a")
    catalogues.detach(connection)
    assert read(tmp_path / "r") == ["a"]


def test_the_folder_for_spilling_is_entered_once_and_left_at_the_end(tmp_path: Path) -> None:
    said = list[str]()

    @contextmanager
    def spill() -> Iterator[Path]:
        said.append("entered")
        yield tmp_path / "spill"
        said.append("left")

    catalogues = Catalogues(spill, memory="40MB")
    assert said == []
    first, second = catalogues.attach(tmp_path / "a"), catalogues.attach(tmp_path / "b")
    sorted_rows = first.execute(
        "SELECT sum(length(x)) FROM (SELECT repeat('x', 100) || range AS x FROM range(500000) ORDER BY x)"
    )
    assert sorted_rows.fetchall()[0][0] > 50_000_000
    assert list((tmp_path / "spill").iterdir()) != []
    catalogues.detach(first)
    catalogues.detach(second)
    assert said == ["entered"]
    catalogues.close()
    assert said == ["entered", "left"]

    third = catalogues.attach(tmp_path / "a")
    catalogues.detach(third)
    catalogues.close()
    assert said == ["entered", "left"] * 2


def test_a_disk_that_is_full_costs_no_other_range(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for the disk: no file grows beyond it, and the small range's is far below."""
    program = f"""
import resource, signal, sys
from contextlib import nullcontext
from pathlib import Path
import duckdb
from sync_pipeline.domain.errors import HeldElsewhere
from sync_pipeline.staging.catalogues import Catalogues, check_unattached
folder = Path({str(tmp_path)!r})
catalogues = Catalogues(lambda: nullcontext(folder / "spill"))
large, small = catalogues.attach(folder / "large"), catalogues.attach(folder / "small")
for connection in (large, small):
    connection.execute("CREATE TABLE t (x VARCHAR)")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
try:
    large.execute("INSERT INTO t SELECT repeat(CAST(random() AS VARCHAR), 10) FROM range(10000)")
except duckdb.Error as error:
    print("refused")
small.execute("INSERT INTO t VALUES ('a')")
catalogues.detach(large)
small.execute("INSERT INTO t VALUES ('b')")
catalogues.detach(small)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
    assert (read(tmp_path / "small"), read(tmp_path / "large")) == (["a", "b"], [])
