"""The simulated org as a process of its own, so that its CPU and memory are never counted among the client's.

Rows are made once for each size and copied for whoever needs a fresh org. As a program of its own, ``python -m
benchmarks.org FOLDER [KNOB=JSON ...]`` sets knobs of an org and tells the API calls that it has counted.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.process import Failed, Process, Run, run

STARTING_SECONDS = 60.0
LOOK_SECONDS = 0.02
LAST_LINE = "SALESFORCE_CLIENT_SECRET"
"""What the door prints last, when it is open."""
STOPPED = (0, 130, -signal.SIGINT)


@dataclass
class Served:
    """An org that answers at ``base_url``. ``settings`` lead the pipeline to it; ``run`` is what it took, at the end."""

    folder: Path
    settings: dict[str, str]
    run: Run | None = None

    @property
    def base_url(self) -> str:
        return self.settings["SALESFORCE_LOGIN_URL"]

    @property
    def ended(self) -> Run:
        """What its process took, once it has ended; its start is about half a second of CPU."""
        if self.run is None:
            raise Failed(f"The org in {self.folder} still answers.")
        return self.run


@dataclass
class Orgs:
    """Filled orgs of any size in ``folder``, each made once."""

    folder: Path
    _made: int = field(default=0, init=False)

    def seeded(self, rows: int, *options: str) -> Path:
        """An org with so many rows and nothing in its CRM; nobody may write to it."""
        folder = self.folder / "-".join(["org", str(rows), *(option.lstrip("-") for option in options)])
        if not folder.exists():
            passing = folder.with_name(f"{folder.name}.tmp")
            seed(passing, "--rows", str(rows), *options)
            passing.rename(folder)
        return folder

    def copied(self, seeded: Path) -> Path:
        """A copy of an org for one run."""
        self._made += 1
        copy = self.folder / f"copy-{self._made}"
        shutil.copytree(seeded, copy)
        return copy

    @contextmanager
    def served(self, folder: Path, *, program: tuple[str, ...] = ("sync_pipeline", "org", "serve")) -> Iterator[Served]:
        """The org of that folder behind its TCP door; ``program`` is another module that opens one."""
        place = self.folder / f"{folder.name}-door"
        with Process(["-m", *program, "--folder", str(folder)], folder=place) as process:
            served = Served(folder, _opened(process))
            yield served
            process.signal(signal.SIGINT)
            served.run = process.wait(good=STOPPED)


def seed(folder: Path, *options: str) -> None:
    """Makes the rows of an org, or lets a night pass in it."""
    place = folder.with_name(f"{folder.name}-seed")
    run(["-m", "sync_pipeline", "org", "seed", "--quiet", "--folder", str(folder), *options], folder=place)


def calls(folder: Path, knobs: Mapping[str, object] | None = None) -> dict[str, int]:
    """Sets knobs of an org, and gives the API calls that it has counted itself, by route."""
    words = [f"{name}={json.dumps(value)}" for name, value in (knobs or {}).items()]
    told = run(["-m", "benchmarks.org", str(folder), *words], folder=folder.with_name(f"{folder.name}-knobs"))
    counted: dict[str, int] = json.loads(told.out)
    return counted


def _opened(process: Process) -> dict[str, str]:
    """The settings that a door prints once it is open."""
    deadline = time.monotonic() + STARTING_SECONDS
    while time.monotonic() < deadline:
        lines = process.out.splitlines(keepends=True)
        if lines and lines[-1].startswith(LAST_LINE) and lines[-1].endswith("\n"):
            return dict(line.strip().split("=", 1) for line in lines)
        if process.has_ended:
            break
        time.sleep(LOOK_SECONDS)
    raise Failed(f"The simulated org did not open its door.\n{process.told()}")


def main(arguments: list[str]) -> None:
    """The program that looks at an org and turns its knobs."""
    from sync_pipeline.simulated_org.state import Org

    org = Org(Path(arguments[0]))
    for word in arguments[1:]:
        name, _, value = word.partition("=")
        org.set_setting(name, json.loads(value))
    print(json.dumps(org.calls()))
    org.close()


if __name__ == "__main__":
    main(sys.argv[1:])
