"""Dagster and a terminal over one SYNC_HOME: real processes of both, of which the second is told who works and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sync_pipeline.book.book import Book
from sync_pipeline.domain.ledger import RangeState
from sync_pipeline.simulated_org.faults import add_fault, clear_faults, parse_fault
from sync_pipeline.simulated_org.seed import seed
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.staging.area import Area

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE = 90.0
"""Seconds within which a process must have come as far as it is waited for."""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """100 rows in one range, of which the ingest job works for ever until ``clear_faults``."""
    folder = tmp_path / "home"
    org = Org(folder / "simulated_org")
    seed(org, 100)
    add_fault(org, parse_fault("job_stuck"))
    yield folder
    org.close()


@pytest.fixture
def start(home: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a module of Python in a process of its own; none of them outlives the test."""
    dagster_home = tmp_path / "dagster"
    dagster_home.mkdir()
    environment = os.environ | {
        "SYNC_HOME": str(home), "SYNC_POLL_SECONDS_MAX": "0.5", "DAGSTER_HOME": str(dagster_home),
        "PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": "ignore",
    }  # fmt: skip
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=tmp_path,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def materialize(start: Start, asset: str, *arguments: str) -> subprocess.Popen[str]:
    return start("dagster", "asset", "materialize", "-m", "sync_pipeline.definitions", "--select", asset, *arguments)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, out


def loading(home: Path) -> None:
    """Waits until the org works on the job of the range."""
    deadline = time.monotonic() + PATIENCE
    book = Book(Area(home).book_file)
    while not [job for job in book.jobs(open_only=True) if job.state not in ("intended", "Open")]:
        assert time.monotonic() < deadline, "no job was ever sent"
        time.sleep(0.05)
    book.close()


def test_whoever_comes_second_is_told_who_works_whichever_door_it_comes_by(home: Path, start: Start) -> None:
    assert ended(materialize(start, "opportunity_ranges"))[0] == 0
    book = Book(Area(home).book_file)
    night = book.newest()
    assert night is not None
    (partition,) = [planned.partition for planned in night.plan]
    first = materialize(start, "opportunities_synced", "--partition", partition)
    loading(home)

    twin = materialize(start, "opportunities_synced", "--partition", partition)
    began = time.monotonic()
    code, told = ended(start("sync_pipeline", "sync"))
    seconds = time.monotonic() - began
    twin_code, twin_told = ended(twin)

    assert (code, f"being worked on by another process: {partition}" in told) == (1, True)
    assert seconds < 5
    assert twin_code != 0
    assert f"Process {first.pid} since" in twin_told and f"works on range {partition}" in twin_told
    assert first.poll() is None

    # A run that is cancelled aborts its own jobs, and the terminal goes on with what it left.
    first.send_signal(signal.SIGINT)
    ended(first)
    org = Org(home / "simulated_org")
    states = {state for (state,) in org.db().execute("SELECT state FROM job WHERE kind = 'ingest'")}
    clear_faults(org)
    org.close()
    entry = book.range(night.plan_id, partition)
    code, told = ended(start("sync_pipeline", "sync"))
    book.close()

    assert states == {"Aborted"}
    assert entry is not None and (entry.state, entry.attempts) == (RangeState.FAILED, 0)
    assert (code, "Reconciled" in told) == (0, True)


def test_a_range_run_of_dagster_beside_a_sync_says_which_process_works(home: Path, start: Start) -> None:
    working = start("sync_pipeline", "sync")
    loading(home)
    book = Book(Area(home).book_file)
    night = book.newest()
    book.close()
    assert night is not None
    (partition,) = [planned.partition for planned in night.plan]

    # The plan goes on with the unfinished night; the range is held by the terminal.
    plan = materialize(start, "opportunity_ranges")
    code, _ = ended(plan)
    run_code, told = ended(materialize(start, "opportunities_synced", "--partition", partition))

    assert code == 0
    assert run_code != 0
    assert f"Process {working.pid} since" in told
    assert working.poll() is None
