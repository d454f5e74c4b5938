"""Processes of one's own: the command, Dagster, its services; each in folders of its own, on free ports, and ended whole."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
STARTED_WITHIN_SECONDS = 90.0
ENDED_WITHIN_SECONDS = 15.0
OURS = ("SYNC_", "SALESFORCE_", "DATA_CLOUD_", "DAGSTER", "PYTHONDONTWRITEBYTECODE")
"""Beginnings of variables that are not passed on; the last would have each process compile everything anew."""


def environment_of(folder: Path, **settings: str) -> dict[str, str]:
    """The environment of somebody whose nights and whose Dagster live in ``folder``; no other setting of ours."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    homes = {"SYNC_HOME": str(folder / "nights"), "DAGSTER_HOME": str(folder / "dagster")}
    return inherited | {"PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": "ignore"} | homes | settings


def sync_pipeline(environment: Mapping[str, str], *arguments: str) -> str:
    """Runs the command and returns what it prints."""
    command = [sys.executable, "-m", "sync_pipeline", *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def dagster_dev(environment: Mapping[str, str], *, log: Path) -> Iterator[str]:
    """``dagster dev`` with the project's own dagster.yaml and workspace.yaml; yields where it answers."""
    home = Path(environment["DAGSTER_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(PROJECT / "dagster.yaml", home)
    port = free_port()
    command = [sys.executable, "-m", "dagster", "dev", "--workspace", str(PROJECT / "workspace.yaml")]
    with running([*command, "--host", "127.0.0.1", "--port", str(port)], environment, folder=home, log=log) as process:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/server_info", process, log), seconds=STARTED_WITHIN_SECONDS)
        yield url


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], *, folder: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The process with everything that it starts, ended together."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDED_WITHIN_SECONDS)
        with suppress(ProcessLookupError):  # whoever outlived it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(ENDED_WITHIN_SECONDS)


def answers(url: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    """Something answers there; fails with its log when the process has ended."""
    assert process.poll() is None, log.read_text(errors="replace")
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def until(holds: Callable[[], bool], *, seconds: float) -> None:
    """Waits for what another process is about to do."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.25)
