"""Programs that are measured: each is a process of its own, and what it took is what the system says of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

PROJECT = Path(__file__).resolve().parent.parent
NOT_PASSED_ON = ("SYNC_", "SALESFORCE_", "DATA_CLOUD_", "DAGSTER_", "PYTHONDONTWRITEBYTECODE")
"""Beginnings of variables; the last would have each process compile everything anew."""
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
TOLD_CHARACTERS = 3_000
"""How much of its stderr is told of a program that failed."""


class Failed(Exception):
    """A program did not do what it was started for, so there is nothing to be measured."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one process, and those that it waited for, took. ``peak_bytes`` is the most that one of them had in memory."""

    exit_code: int
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    out: str


class Process:
    """A Python program on its way, in a folder of its own, with no settings but those that it is given.

    In a ``with`` block it does not outlive the block.
    """

    def __init__(self, arguments: Sequence[str], *, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._arguments = list(arguments)
        self._out, self._err = folder / "stdout", folder / "stderr"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_PASSED_ON)}
        self._run: Run | None = None
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._started = time.perf_counter()
            # Not in the project's folder, where a `.env` may name a real org.
            self._child = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env={**kept, "PYTHONPATH": str(PROJECT), **(settings or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        """What it has said so far."""
        return self._out.read_text(encoding="utf-8")

    @property
    def has_ended(self) -> bool:
        return self._ended(os.WNOHANG) is not None

    def signal(self, number: signal.Signals) -> None:
        """Does nothing to one that has ended."""
        if not self.has_ended:
            os.kill(self._child.pid, number)

    def wait(self, *, good: Iterable[int] | None = (0,)) -> Run:
        """What it took, once it has ended. Raises ``Failed`` for an exit code that is not ``good``; ``None``: all are."""
        run = self._ended(0)
        if run is None or (good is not None and run.exit_code not in good):
            code = "none" if run is None else run.exit_code
            raise Failed(f"{' '.join(self._arguments)}: exit code {code}\n{self.told()}")
        return run

    def _ended(self, options: int) -> Run | None:
        if self._run is None:
            # Of this child alone, unlike getrusage(RUSAGE_CHILDREN).
            pid, status, usage = os.wait4(self._child.pid, options)
            if pid:
                self._child.returncode = os.waitstatus_to_exitcode(status)
                self._run = Run(
                    exit_code=self._child.returncode,
                    wall_seconds=time.perf_counter() - self._started,
                    cpu_seconds=usage.ru_utime + usage.ru_stime,
                    peak_bytes=usage.ru_maxrss * RSS_UNIT,
                    out=self.out,
                )
        return self._run

    def told(self) -> str:
        """The end of what it said of itself."""
        return (self.out[-TOLD_CHARACTERS:] + self._err.read_text(encoding="utf-8")[-TOLD_CHARACTERS:]).strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.has_ended:
            self.signal(signal.SIGKILL)
            self.wait(good=None)


def run(
    arguments: Sequence[str],
    *,
    folder: Path,
    settings: Mapping[str, str] | None = None,
    good: Iterable[int] | None = (0,),
) -> Run:
    """Runs a program to its end."""
    with Process(arguments, folder=folder, settings=settings) as process:
        return process.wait(good=good)
