"""Nights that are killed at chosen instants, by a real SIGKILL, and go on: nothing is lost and nothing is sent twice.

Every night lives in a folder of its own; its processes are forked from a server that has imported everything and done
nothing, so that one costs milliseconds.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from sync_pipeline.domain.ledger import Verdict
from sync_pipeline.domain.policy import Policy
from sync_pipeline.engine.night import drive, open_night
from sync_pipeline.simulated_org.faults import ENDPOINTS, add_fault, clear_faults, parse_fault
from sync_pipeline.simulated_org.seed import seed as fill
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.staging.durable import Disk
from sync_pipeline_tests.engine.rehearsal import QUICK, opened

POLICY = replace(QUICK, lanes=1, rows_per_range=100, page_rows=30, part_rows=30, batch_rows=30)
"""For a night of one range whose instants come in one order: two pages and three parts out of 60 rows."""
ROWS = 60
PATIENCE = 120.0
"""Seconds within which a process must have ended."""


class Moments:
    """Hears of every instant at a wall; at the one it waits for the process is killed."""

    def __init__(self, kill: Callable[[int, str], bool]) -> None:
        self._kill = kill
        self._lock = threading.Lock()
        self.names: list[str] = []
        self._times: Counter[str] = Counter()

    def __call__(self, name: str) -> None:
        name = re.sub(r"\d{8}T\d{6}\.\d{6}Z", "night", name)
        with self._lock:
            self._times[name] += 1
            self.names.append(f"{name} {self._times[name]}")
            if self._kill(len(self.names), self.names[-1]):
                os.kill(os.getpid(), signal.SIGKILL)


class Mortal(Disk):
    """A disk whose calls are instants."""

    def __init__(self, moment: Callable[[str], None]) -> None:
        self._moment = moment

    def write(self, path: Path, content: bytes | memoryview) -> None:
        self._moment(f"before write {path.name}")
        super().write(path, content)

    def sync_file(self, path: Path) -> None:
        self._around(f"sync_file {path.name}", lambda: Disk.sync_file(self, path))

    def sync_folder(self, folder: Path) -> None:
        self._around("sync_folder", lambda: Disk.sync_folder(self, folder))

    def rename(self, old: Path, new: Path) -> None:
        self._around(f"rename {new.name}", lambda: Disk.rename(self, old, new))

    def remove(self, path: Path) -> None:
        self._around(f"remove {path.name}", lambda: Disk.remove(self, path))

    def _around(self, name: str, call: Callable[[], None]) -> None:
        self._moment(f"before {name}")
        call()
        self._moment(f"after {name}")


def act(request: httpx.Request) -> str:
    """The remote act that a request is, by the short names of the org's faults."""
    path = request.url.raw_path.decode().partition("?")[0]
    for name, (method, pattern) in ENDPOINTS.items():
        if method == request.method and re.fullmatch(pattern, path, re.IGNORECASE):
            return name
    last = path.rpartition("/")[2]
    return "drop" if "query-sql" in path else f"{request.method} {'job' if last.startswith('750') else last}"


def work_on(folder: str, policy: Policy, moments: Moments) -> None:
    """What one process does: the unfinished night, or the first one, up to its verdict."""
    home = Path(folder)
    org = Org(home / "org")
    r = opened(
        org, home / "home", policy, disk=Mortal(moments), before=lambda request: moments(f"before {act(request)}")
    )

    def after(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        moments(f"after {act(request)}")
        if not request.url.path.endswith("Results") or not hasattr(answer.stream, "__iter__"):
            return answer

        def pieces(stream: Iterator[bytes]) -> Iterator[bytes]:
            for piece in stream:
                yield piece[: len(piece) // 2]
                moments("inside results")
                yield piece[len(piece) // 2 :]

        return httpx.Response(answer.status_code, headers=answer.headers, content=pieces(iter(answer.stream)))  # type: ignore[arg-type]

    r.wire.after = after
    try:
        newest = r.walls.book.newest()
        if newest is None or newest.verdict is None:
            drive(r.walls, open_night(r.walls, rearm=True, say=logging.debug), on_event=logging.debug)
    finally:
        r.walls.close()


def plan(folder: str, policy: Policy) -> None:
    """Opens a night and does nothing for it."""
    home = Path(folder)
    r = opened(Org(home / "org"), home / "home", policy)
    open_night(r.walls, say=logging.debug)
    r.walls.close()


def killed_at_name(folder: str, policy: Policy, name: str) -> None:
    work_on(folder, policy, Moments(lambda number, now: now == name))


def killed_at_number(folder: str, policy: Policy, at: int) -> None:
    work_on(folder, policy, Moments(lambda number, now: number == at))


def recorded(folder: str, policy: Policy, into: str) -> None:
    """Goes through to the end and writes down every instant."""
    moments = Moments(lambda number, now: False)
    work_on(folder, policy, moments)
    Path(into).write_text("\n".join(moments.names))


def process(target: Callable[..., None], *arguments: Any) -> int:
    """Runs it in a process of its own and gives the exit code, ``-SIGKILL`` when it was killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    child = context.Process(target=target, args=arguments)
    child.start()
    child.join(PATIENCE)
    if child.exitcode is None:
        child.kill()
        child.join()
        raise AssertionError(f"a process did not end in {PATIENCE:.0f} s")
    return child.exitcode


def made(folder: Path, *, rows: int, **seeding: Any) -> Path:
    """A folder with a seeded org and no night."""
    org = Org(folder / "org")
    fill(org, rows, **seeding)
    org.close()
    return folder


def check(folder: Path, policy: Policy, *, sent_once: bool) -> None:
    """After the verdict: every row accounted for, the org equal to the source, no job left, and the book says so."""
    org = Org(folder / "org")
    r = opened(org, folder / "home", policy)
    try:
        assert r.night.verdict is Verdict.RECONCILED, (r.night.verdict, r.night.verdict_reasons)
        for entry in r.walls.book.ranges(r.night.plan_id):
            assert entry.counts.adds_up and entry.counts.staged == entry.counts.expected, entry
        assert r.is_equal()
        assert r.open_jobs() == []
        assert [job for job in r.jobs() if not job.is_over] == []
        if sent_once:
            assert set(Counter(r.processed_keys()).values()) == {1}
        assert [path.name for path in r.walls.area.night_folder(r.night.plan_id).rglob("*.tmp")] == []
    finally:
        r.walls.close()
        org.close()


# At random


FAULTS = (
    "lost_answer share=0.02",
    "html_503 share=0.02",
    "late_answer share=0.01",
    "cut_body share=0.02 endpoint=results",
    "cut share=0.02 endpoint=upload",
    "lock_rows share=0.05",
    "unprocessed share=0.1 times=2",
    "job_fails share=0.5 times=1",
    "job_aborted share=0.5 times=1",
    "lost_results times=1",
)


@dataclass
class Course:
    """What happened to one night."""

    seed: int
    kills: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    runs: int = 0


def rehearse(folder: Path, number: int) -> Course:
    """One night with its own faults, killed up to four times, then left in peace until it ends. Raises
    ``AssertionError`` when anything was lost, left or doubled."""
    draw = random.Random(number)
    course = Course(number, faults=draw.sample(FAULTS, draw.randrange(4)))
    policy = replace(
        QUICK,
        rows_per_range=draw.choice((60, 100, 300)),
        page_rows=draw.choice((20, 60, 1000)),
        part_rows=draw.choice((40, 100)),
        batch_rows=draw.choice((20, 50)),
        lanes=draw.choice((1, 3)),
        retry_rounds=12,
        range_attempts=12,
    )
    made(folder, rows=draw.randrange(100, 300), hot_parents=draw.choice((0.0, 0.5)), in_org=draw.choice((0.0, 0.5)))
    org = Org(folder / "org")
    org.set_setting("token_calls", draw.choice((None, 11)))
    for fault in course.faults:
        add_fault(org, parse_fault(f"{fault} seed={number}"))
    for _ in range(draw.randrange(1, 5)):
        at = int(draw.triangular(1, 260, 30))
        if process(killed_at_number, str(folder), policy, at) == -signal.SIGKILL:
            course.kills.append(at)
        course.runs += 1
    clear_faults(org)
    org.close()
    for _ in range(3):
        course.runs += 1
        if process(killed_at_number, str(folder), policy, 0) == 0:
            break
    check(folder, policy, sent_once=not course.faults)
    return course
