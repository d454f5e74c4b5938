"""A small org and a night over it: what happens to a range, with the org's own faults and a clock that waiting moves.

Nobody waits for real. A wait of the pipeline moves its clock and the org's, so that a storm of minutes, a job of hours
and a pause before another try take no time, and are felt all the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import polars as pl

from sync_pipeline.domain.night import JobEntry, NightEntry, RangeEntry
from sync_pipeline.domain.policy import Policy
from sync_pipeline.engine.night import open_night
from sync_pipeline.engine.range_run import run_range
from sync_pipeline.engine.walls import Interruption, Walls
from sync_pipeline.settings import load_settings
from sync_pipeline.simulated_org.app import OrgTransport
from sync_pipeline.simulated_org.faults import add_fault, parse_fault
from sync_pipeline.simulated_org.ingest import Job, job_of
from sync_pipeline.simulated_org.objects import find_object
from sync_pipeline.simulated_org.records import Records
from sync_pipeline.simulated_org.seed import SOURCE, seed
from sync_pipeline.simulated_org.source import source_rows
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.simulated_org.uploads import upload_file
from sync_pipeline.staging.durable import Disk
from sync_pipeline.staging.range_store import RangeStore
from sync_pipeline.wiring import open_walls

KEY = "External_ID__c"
VALUES = ("Name", "StageName", "Amount", "CloseDate", "AccountId")
QUICK = Policy(
    rows_per_range=100,
    page_rows=40,
    part_rows=60,
    batch_rows=50,
    lanes=3,
    poll_seconds=0.25,
    poll_seconds_max=15.0,
    disk_reserve_bytes=0,
)
"""Three ranges of some pages and parts each, out of 300 rows."""


Before = Callable[[httpx.Request], None]
After = Callable[[httpx.Request, httpx.Response], httpx.Response]


class Hurried(Interruption):
    """Waits by moving the clocks of both sides."""

    def __init__(self, org: Org) -> None:
        super().__init__()
        self._org = org
        self._lock = threading.Lock()
        self.waits: list[float] = []
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            with self._lock:
                self.waits.append(seconds)
                self.seconds += seconds
            self._org.advance(seconds)
            time.sleep(0.0005)  # whoever is waited for may be another thread
        self.check()


class Wire(httpx.BaseTransport):
    """The way to the org. ``before`` hears every request, ``after`` may put another answer in place of the org's."""

    def __init__(
        self, org: OrgTransport, *, before: Before = lambda request: None, after: After = lambda request, answer: answer
    ) -> None:
        self.org = org
        self.before = before
        self.after = after
        self.requests: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.path}")
        self.before(request)
        return self.after(request, self.org.handle_request(request))

    def count(self, method: str, ending: str) -> int:
        return sum(line.startswith(method) and line.endswith(ending) for line in self.requests)


@dataclass
class Rehearsal:
    """One org, one SYNC_HOME, and the walls of one process. ``night`` opens when it is first asked for."""

    org: Org
    home: Path
    wire: Wire
    waiting: Hurried
    walls: Walls
    _plan_id: str = field(default="")

    def fault(self, text: str) -> None:
        add_fault(self.org, parse_fault(text))

    @property
    def night(self) -> NightEntry:
        if not self._plan_id:
            newest = self.walls.book.newest()
            self._plan_id = (newest or open_night(self.walls, say=lambda line: None)).plan_id
        night = self.walls.book.night(self._plan_id)
        assert night is not None
        return night

    @property
    def partitions(self) -> list[str]:
        return [planned.partition for planned in self.night.plan]

    def entry(self, place: int = 0) -> RangeEntry:
        return self.walls.book.ranges(self.night.plan_id)[place]

    def run(self, place: int = 0, *, start: str = "auto") -> RangeEntry:
        """One run of one range."""
        return run_range(
            self.walls, self.night.plan_id, self.partitions[place], start=start, on_event=lambda line: None
        )  # type: ignore[arg-type]

    def run_all(self) -> list[RangeEntry]:
        return [self.run(place) for place in range(len(self.partitions))]

    def jobs(self) -> list[JobEntry]:
        """The book's jobs, in the order of their intents."""
        return self.walls.book.jobs(self.night.plan_id)

    @contextmanager
    def store(self, place: int = 0) -> Iterator[RangeStore]:
        entry = self.entry(place)
        with RangeStore.read_only(
            self.walls.area.range_folder(self.night.plan_id, entry.partition, entry.generation)
        ) as store:
            yield store

    def rejects(self, place: int = 0) -> pl.DataFrame:
        with self.store(place) as store:
            return store.rejects()

    # The org's side

    def org_jobs(self) -> list[Job]:
        """Ingest jobs as the org keeps them, in the order of their creation."""
        rows = self.org.db().execute("SELECT * FROM job WHERE kind = 'ingest' ORDER BY created_at, id").fetchall()
        return [job_of(row) for row in rows]

    def open_jobs(self) -> list[str]:
        return [f"{job.id} {job.state}" for job in self.org_jobs() if not job.is_terminal]

    def processed_keys(self) -> list[str]:
        """The key of every row that a job of the org worked on, as often as one did."""
        keys: list[str] = []
        for job in self.org_jobs():
            if job.processed:
                keys += pl.read_csv(upload_file(self.org, job.id), infer_schema=False)[KEY].to_list()
        return keys

    def present(self) -> pl.DataFrame:
        opportunity = find_object(self.org, "Opportunity")
        assert opportunity is not None
        frames = [frame.select(KEY, *VALUES) for frame in Records(self.org, opportunity).frames()]
        return pl.concat(frames).filter(pl.col(KEY).is_not_null()).sort(KEY)

    def wanted(self) -> pl.DataFrame:
        """What the org should hold, by the source alone."""
        return (
            source_rows(self.org, SOURCE)
            .select(
                pl.col("ExternalId__c").alias(KEY),
                pl.col("Name__c").str.strip_chars().alias("Name"),
                pl.col("StageName__c").alias("StageName"),
                pl.col("Amount__c").cast(pl.Float64).alias("Amount"),
                pl.col("CloseDate__c").alias("CloseDate"),
                pl.col("Account__c").alias("AccountId"),
            )
            .filter(pl.col(KEY).is_not_null())
            .sort(KEY)
        )

    def is_equal(self) -> bool:
        """The org holds the rows of the source, each once and with equal values."""
        return self.present().equals(self.wanted())

    def again(
        self,
        *,
        disk: Disk | None = None,
        before: Before = lambda request: None,
        after: After = lambda request, answer: answer,
    ) -> Rehearsal:
        """Another process over the same SYNC_HOME and org, at the same time or later."""
        return opened(self.org, self.home, self.walls.policy, disk=disk, before=before, after=after)


@contextmanager
def rehearsal(
    folder: Path,
    *,
    rows: int = 300,
    disk: Disk | None = None,
    before: Before = lambda request: None,
    in_org: float = 0.0,
    hot_parents: float = 0.0,
    accounts: int | None = None,
    null_keys: int = 0,
    duplicate_keys: int = 0,
    **policy: object,
) -> Iterator[Rehearsal]:
    """A fresh org of so many rows and a SYNC_HOME that was never used. ``policy`` changes ``QUICK``."""
    org = OrgTransport(folder / "org").org
    seed(
        org,
        rows,
        in_org=in_org,
        hot_parents=hot_parents,
        accounts=accounts,
        null_keys=null_keys,
        duplicate_keys=duplicate_keys,
    )
    made = opened(org, folder / "home", replace(QUICK, **policy), disk=disk, before=before)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.walls.close()
        org.close()


def opened(
    org: Org,
    home: Path,
    policy: Policy,
    *,
    disk: Disk | None = None,
    before: Before = lambda request: None,
    after: After = lambda request, answer: answer,
) -> Rehearsal:
    """One process over a SYNC_HOME and an org that are there already; its walls are closed by the caller."""
    waiting = Hurried(org)
    wire = Wire(OrgTransport(org.folder), before=before, after=after)
    settings = replace(load_settings({"SYNC_HOME": str(home)}), policy=policy)
    began = datetime.now(UTC)
    walls = open_walls(
        settings, interruption=waiting, transport=wire, now=lambda: began + timedelta(seconds=waiting.seconds)
    )
    walls = replace(walls, disk=disk or Disk(), clock=lambda: waiting.seconds)
    return Rehearsal(org, home, wire, waiting, walls)
