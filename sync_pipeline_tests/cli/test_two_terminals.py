"""Two terminals over one SYNC_HOME: real processes that start, watch, stop and kill each other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sync_pipeline.simulated_org.faults import add_fault, clear_faults, parse_fault
from sync_pipeline.simulated_org.seed import seed
from sync_pipeline.simulated_org.state import Org
from sync_pipeline_tests.cli.conftest import Run

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Seconds within which a process must have come as far as it is waited for."""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def org(home: Path) -> Iterator[Org]:
    """200 rows, of which every ingest job works for ever until ``clear_faults``."""
    made = Org(home / "simulated_org")
    seed(made, 200)
    add_fault(made, parse_fault("job_stuck"))
    yield made
    made.close()


@pytest.fixture
def start(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts the command in a process of its own; none of them outlives the test."""
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", "100")
    monkeypatch.setenv("SYNC_POLL_SECONDS_MAX", "0.5")
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "sync_pipeline", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def status(run: Run) -> dict[str, Any]:
    return run("status", "--json").document


def loading(run: Run, jobs: int = 2) -> None:
    """Waits until so many jobs of the night are in the org."""
    until(
        lambda: len([job for job in status(run).get("open_jobs", []) if job["state"] != "Open" and job["job"]]) >= jobs
    )


def job_states(org: Org) -> set[str]:
    return {state for (state,) in org.db().execute("SELECT state FROM job WHERE kind = 'ingest'")}


def test_a_second_sync_is_told_who_works_and_ends_at_once(run: Run, start: Start, org: Org) -> None:
    first = start("sync")
    loading(run)

    began = time.monotonic()
    second = start("sync")
    _, err = second.communicate(timeout=PATIENCE)
    seconds = time.monotonic() - began

    assert second.returncode == 1
    assert f"Process {first.pid} since" in err and "works on the night" in err
    assert seconds < 5
    assert first.poll() is None
    assert status(run)["stop_requested"] is False


@pytest.mark.parametrize("verb", [("restart",), ("restart", "--all"), ("sync", "--fresh")])
def test_nobody_changes_a_night_under_the_process_that_works_on_it(
    run: Run, start: Start, org: Org, verb: tuple[str, ...]
) -> None:
    first = start("sync")
    loading(run)
    before = status(run)

    ran = run(*verb)

    after = status(run)
    assert (ran.code, f"Process {first.pid}" in ran.err) == (1, True)
    assert (after["plan_id"], after["verdict"]) == (before["plan_id"], None)
    assert first.poll() is None


def test_a_stop_ends_the_sync_of_another_process_and_a_restart_goes_on(run: Run, start: Start, org: Org) -> None:
    working = start("sync")
    loading(run)

    began = time.monotonic()
    stopped = run("stop")
    out, _ = working.communicate(timeout=PATIENCE)
    seconds = time.monotonic() - began
    states, document = job_states(org), status(run)
    clear_faults(org)
    gone_on = run("restart", "--json")

    assert (stopped.code, working.returncode) == (0, 1)
    assert "Stopped. What is saved and staged is kept." in out
    assert seconds < 10
    assert states == {"Aborted"}
    assert (document["state"], document["verdict"], document["stop_requested"]) == ("stopped", None, True)
    assert (gone_on.code, gone_on.document["verdict"]) == (0, "reconciled")
    assert gone_on.document["plan_id"] == document["plan_id"]


def test_a_stop_is_heard_although_nobody_can_log_in_any_more(run: Run, start: Start, org: Org) -> None:
    working = start("sync")
    loading(run)
    org.set_setting("clients", {"somebody": "else"})

    stopped = run("stop")
    working.communicate(timeout=PATIENCE)

    assert stopped.code == 2
    assert "could not be aborted from here" in stopped.err
    assert working.returncode == 1
    assert (status(run)["state"], job_states(org)) == ("stopped", {"Aborted"})


def test_a_stopped_night_stays_stopped_for_status_and_goes_on_with_sync(run: Run, start: Start, org: Org) -> None:
    working = start("sync")
    loading(run)
    run("stop")
    working.communicate(timeout=PATIENCE)
    clear_faults(org)

    shown, gone_on = run("status"), run("sync", "--json")

    assert "go on with `sync-pipeline restart`" in shown.out
    assert (gone_on.code, gone_on.document["totals"]["present"]) == (0, 200)


def test_a_killed_sync_reads_died_at_once_and_the_next_one_adopts_its_jobs(run: Run, start: Start, org: Org) -> None:
    working = start("sync")
    loading(run)

    working.send_signal(signal.SIGKILL)
    working.wait()
    shown, document = run("status"), status(run)
    jobs_before = org.db().execute("SELECT count(*) FROM job WHERE kind = 'ingest'").fetchone()
    clear_faults(org)
    with org.write() as connection:  # what was stuck ends after all
        connection.execute("UPDATE job SET faults = '{}' WHERE kind = 'ingest'")
    gone_on = run("sync", "--json")

    assert {row["state"] for row in document["ranges"]} == {"died"}
    assert document["state"] == "died"
    assert "0/2 ranges done, 0 running, 2 died" in shown.out
    assert "its process is gone" in shown.out
    assert (gone_on.code, gone_on.document["verdict"]) == (0, "reconciled")
    assert gone_on.document["totals"]["created"] == 200
    assert org.db().execute("SELECT count(*) FROM job WHERE kind = 'ingest'").fetchone() == jobs_before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_sync_cleanly_with_the_code_that_a_shell_expects(
    run: Run, start: Start, org: Org, number: signal.Signals, code: int
) -> None:
    working = start("sync", "--json")
    loading(run)

    working.send_signal(number)
    out, err = working.communicate(timeout=PATIENCE)

    assert working.returncode == code
    assert "Traceback" not in err
    assert json.loads(out)["verdict"] is None
    assert job_states(org) == {"Aborted"}
    assert status(run)["state"] == "unfinished"


def test_status_is_watched_from_another_terminal_until_the_verdict(run: Run, start: Start, org: Org) -> None:
    working = start("sync")
    loading(run)
    watching = start("status", "--watch")
    assert watching.stdout is not None
    seen = watching.stdout.readline()
    clear_faults(org)
    with org.write() as connection:
        connection.execute("UPDATE job SET faults = '{}' WHERE kind = 'ingest'")

    working.communicate(timeout=PATIENCE)
    out, _ = watching.communicate(timeout=PATIENCE)

    assert (working.returncode, watching.returncode) == (0, 0)
    assert seen.startswith("0/2 ranges done, 2 running")
    assert "Reconciled: every expected row is in the org with equal values." in out


def test_rejects_and_trace_do_not_wait_for_a_range_that_runs(run: Run, start: Start, org: Org) -> None:
    working = start("sync")
    loading(run)
    key = run("plan", "--json").document["profile"]["min_key"]

    rejects, trace = run("rejects"), run("trace", key)

    assert (rejects.code, trace.code) == (0, 1)
    assert "is still running; its rows are not listed" in rejects.err
    assert "is being worked on" in trace.out
    assert working.poll() is None
