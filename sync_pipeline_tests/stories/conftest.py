"""A bank with a source, an org and nights, as every story needs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from sync_pipeline.domain.ledger import Counts, RangeState, Verdict
from sync_pipeline.domain.night import NightEntry, RangeEntry
from sync_pipeline.engine.night import drive, open_night
from sync_pipeline.engine.walls import Interruption, Walls
from sync_pipeline.settings import load_settings
from sync_pipeline.simulated_org.app import OrgTransport
from sync_pipeline.simulated_org.faults import add_fault, clear_faults, parse_fault
from sync_pipeline.simulated_org.ingest import SCHEMA as JOBS
from sync_pipeline.simulated_org.objects import find_object
from sync_pipeline.simulated_org.records import Records
from sync_pipeline.simulated_org.seed import seed
from sync_pipeline.simulated_org.source import source_rows
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.wiring import open_walls

SOURCE = "ExtOpportunities__dlm"
FIELDS = {"Name__c": "Name", "StageName__c": "StageName", "Amount__c": "Amount", "CloseDate__c": "CloseDate"}
MOMENT = 0.02
"""The longest that anybody really waits; seconds."""
QUICK = {"SYNC_POLL_SECONDS": "0.01", "SYNC_POLL_SECONDS_MAX": "0.05", "SYNC_ROWS_PER_RANGE": "200"}


class FastTime(Interruption):
    """Time that passes as soon as somebody waits for it: pauses of minutes cost a moment, and clocks agree about them."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._ahead = 0.0

    def sleep(self, seconds: float) -> None:
        waited = min(seconds, MOMENT)
        with self._lock:
            self._ahead += seconds - waited
        super().sleep(waited)

    def clock(self) -> float:
        return time.monotonic() + self._ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._ahead)


Wrap = Callable[[httpx.BaseTransport], httpx.BaseTransport]


@dataclass(frozen=True)
class Ended:
    """A night as the book holds it at its end."""

    night: NightEntry
    ranges: list[RangeEntry]
    events: list[str]

    @property
    def counts(self) -> Counts:
        return sum((entry.counts for entry in self.ranges), Counts())

    @property
    def verdict(self) -> Verdict | None:
        return self.night.verdict

    @property
    def is_done(self) -> bool:
        return all(entry.state is RangeState.DONE for entry in self.ranges)


@dataclass
class Bank:
    """Source and org are one simulated org; the state of nights lies beside it."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.org = Org(self.folder / "org")
        self.org.schema(JOBS)

    def fault(self, *texts: str) -> None:
        for text in texts:
            add_fault(self.org, parse_fault(text))

    def no_faults(self) -> None:
        clear_faults(self.org)

    def walls(self, *, wrap: Wrap | None = None, **variables: str) -> Walls:
        settings = load_settings({"SYNC_HOME": str(self.folder / "home"), **QUICK, **self.variables, **variables})
        transport: httpx.BaseTransport = OrgTransport(self.org.folder)
        fast = FastTime()
        walls = open_walls(settings, transport=transport if wrap is None else wrap(transport), interruption=fast)
        return replace(walls, now=fast.now, clock=fast.clock)

    def night(self, *, wrap: Wrap | None = None, wait: bool = False, **variables: str) -> Ended:
        """Runs a night as ``sync`` does, until its verdict, a stop or a parking, which ``wait`` sits out."""
        return self.run(self.walls(wrap=wrap, **variables), wait=wait)

    def run(self, walls: Walls, *, wait: bool = False) -> Ended:
        """Runs a night with these walls and closes them."""
        events: list[str] = []
        try:
            with walls.area.lock_driver():
                opened = open_night(walls, rearm=True, say=events.append)
                night = drive(walls, opened, wait_for_headroom=wait, on_event=events.append)
                return Ended(night, walls.book.ranges(night.plan_id), events)
        finally:
            walls.close()

    def source(self) -> pl.DataFrame:
        return source_rows(self.org, SOURCE)

    def rows_in_org(self) -> dict[str, dict[str, Any]]:
        """The org's own store, not anybody's report: key to the mapped fields."""
        sobject = find_object(self.org, "Opportunity")
        assert sobject is not None
        columns = ("External_ID__c", *FIELDS.values(), "AccountId")
        rows = [row for frame in Records(self.org, sobject).frames(columns) for row in frame.to_dicts()]
        return {row.pop("External_ID__c"): row for row in rows}

    def missing(self) -> set[str]:
        """Keys of the source that the org has no row of."""
        return set(self.source()["ExternalId__c"].drop_nulls()) - set(self.rows_in_org())

    def different(self) -> set[str]:
        """Keys whose row in the org is not equal to the source's."""
        held = self.rows_in_org()
        unequal = set()
        for row in self.source().to_dicts():
            stored = held.get(row["ExternalId__c"])
            if stored is None:
                continue
            amount = None if row["Amount__c"] is None else float(row["Amount__c"])
            wanted = {
                "Name": row["Name__c"].strip(), "StageName": row["StageName__c"], "Amount": amount,
                "CloseDate": row["CloseDate__c"], "AccountId": row["Account__c"],
            }  # fmt: skip
            if stored != wanted:
                unequal.add(row["ExternalId__c"])
        return unequal

    def jobs(self) -> list[tuple[str, str]]:
        """Every ingest job the org knows: id and state."""
        rows = self.org.db().execute("SELECT id, state FROM job WHERE kind = 'ingest' ORDER BY id").fetchall()
        return [(job_id, state) for job_id, state in rows]

    def open_jobs(self) -> list[str]:
        return [job_id for job_id, state in self.jobs() if state in ("Open", "UploadComplete", "InProgress")]

    def assert_all_there(self) -> None:
        assert self.missing() == set()
        assert self.different() == set()
        assert self.open_jobs() == []


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    """600 rows in three ranges, each read in some pages."""
    found = Bank(tmp_path)
    seed(found.org, 600)
    found.org.set_setting("adaptive_rows", 10)
    found.org.set_setting("page_bytes", 8_000)
    yield found
    found.org.close()
