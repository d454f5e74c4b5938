"""A night over rows that a test writes out, and hands that change source and org behind its back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from sync_pipeline.domain.night import Measurement, NightEntry, RangeEntry
from sync_pipeline.engine.measure_run import run_measurement
from sync_pipeline.engine.night import drive, open_night
from sync_pipeline.engine.reconciliation import measure
from sync_pipeline.engine.walls import Walls
from sync_pipeline.settings import load_settings
from sync_pipeline.simulated_org import faults, seed
from sync_pipeline.simulated_org.app import OrgTransport
from sync_pipeline.simulated_org.objects import find_object
from sync_pipeline.simulated_org.records import KEY, Records, match_key
from sync_pipeline.simulated_org.source import source_rows, write_source
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.staging.range_store import RangeStore
from sync_pipeline.wiring import open_walls

SOURCE = "ExtOpportunities__dlm"
COLUMNS = ("ExternalId__c", "Name__c", "StageName__c", "Amount__c", "CloseDate__c", "Account__c")
STAGE = "Prospecting"
Row = Mapping[str, str | None]


def row(key: str | None, **values: str | None) -> dict[str, str | None]:
    """A source row, all of it text, with plain values where none are given."""
    plain = {
        "ExternalId__c": key,
        "Name__c": f"Opportunity {key}",
        "StageName__c": STAGE,
        "Amount__c": "100.25",
        "CloseDate__c": "2026-03-31",
        "Account__c": None,
    }
    return plain | values


def rows(*keys: str) -> list[dict[str, str | None]]:
    return [row(key) for key in keys]


@dataclass
class World:
    """Source, org and pipeline of one test. ``org`` is the simulated org itself, for what no API allows."""

    walls: Walls
    org: Org
    home: Path

    # The source

    def write_source(self, source: Sequence[Row]) -> None:
        """These are the rows of the source, and no others."""
        frame = pl.DataFrame(list(source), schema=dict.fromkeys(COLUMNS, pl.String))
        write_source(self.org, SOURCE, [frame.sort("ExternalId__c")])

    def add_to_source(self, *more: Row) -> None:
        self.write_source([*source_rows(self.org, SOURCE).to_dicts(), *more])

    def take_from_source(self, *keys: str) -> None:
        self.write_source([r for r in source_rows(self.org, SOURCE).to_dicts() if r["ExternalId__c"] not in keys])

    def change_source(self, key: str, **values: str | None) -> None:
        changed = source_rows(self.org, SOURCE).to_dicts()
        self.write_source([r | values if r["ExternalId__c"] == key else r for r in changed])

    # The org

    def records(self) -> Records:
        sobject = find_object(self.org, "Opportunity")
        assert sobject is not None
        return Records(self.org, sobject)

    def in_org(self, key: str) -> list[dict[str, Any]]:
        """The org's rows of a key as they are stored."""
        frames = [frame.filter(pl.col("External_ID__c") == key) for frame in self.records().frames()]
        return pl.concat(frames).to_dicts() if frames else []

    def spoil(self, key: str, *, by: str | None = None, **values: Any) -> None:
        """Gives one row of the org other values; without ``by`` nobody seems to have touched it."""
        told = values | ({"LastModifiedById": by, "LastModifiedDate": datetime.now(UTC)} if by else {})
        self._put([stored | told for stored in self.in_org(key)])

    def lose(self, key: str) -> None:
        """The org has the row no more."""
        records = self.records()
        ids = pl.Series([stored["Id"] for stored in self.in_org(key)], dtype=pl.String)
        with self.org.write():
            touched = records.touch(_matched(records, [key]))
            touched.remove(ids)
            touched.save()

    def double(self, key: str) -> str:
        """The org has the row twice, as it may when the external id is not unique. Gives the second row's id."""
        self.org.set_setting("fields", {"Opportunity.External_ID__c": {"unique": False}})
        twin = self.org.new_id("006")
        self._put([stored | {"Id": twin} for stored in self.in_org(key)[:1]])
        return twin

    def add_to_org(self, *keys: str) -> None:
        """Rows of the org's own."""
        now = datetime.now(UTC)
        made = []
        for key in keys:
            values: dict[str, Any] = {"External_ID__c": key, "Name": key, "StageName": STAGE, "CloseDate": now.date()}
            system = {"Id": self.org.new_id("006"), "IsDeleted": False, "OwnerId": self.org.admin_id}
            touched = {f"{what}ById": self.org.admin_id for what in ("Created", "LastModified")}
            dates = dict.fromkeys(("CreatedDate", "LastModifiedDate", "SystemModstamp"), now)
            made.append(values | system | touched | dates)
        self._put(made)

    def _put(self, changed: Sequence[Mapping[str, Any]]) -> None:
        records = self.records()
        columns = {name: kind for name, kind in records.schema.items() if name != KEY}
        frame = pl.DataFrame([{name: r.get(name) for name in columns} for r in changed], schema=columns)
        with self.org.write():
            keyed = frame.with_columns(match_key(pl.col("External_ID__c"), records.object.key).alias(KEY))
            touched = records.touch(keyed[KEY])
            touched.put(keyed)
            touched.save()

    def fault(self, rule: str) -> None:
        faults.add_fault(self.org, faults.parse_fault(rule))

    # The pipeline

    def night(self) -> NightEntry:
        """One night from its plan to its verdict."""
        return drive(self.walls, open_night(self.walls, rearm=True), on_event=lambda told: None)

    def measure(self, **how: Any) -> Measurement:
        """The newest night measured once more, against what it staged unless told otherwise; nothing is recorded."""
        newest = self.walls.book.newest()
        assert newest is not None
        return measure(self.walls, newest.plan_id, record=False, on_event=lambda told: None, **how)

    def measure_for_the_night(self) -> Measurement:
        newest = self.walls.book.newest()
        assert newest is not None
        return run_measurement(self.walls, newest.plan_id, on_event=lambda told: None)

    def ranges(self) -> list[RangeEntry]:
        newest = self.walls.book.newest()
        assert newest is not None
        return self.walls.book.ranges(newest.plan_id)

    def folder(self, entry: RangeEntry) -> Path:
        newest = self.walls.book.newest()
        assert newest is not None
        return self.walls.area.range_folder(newest.plan_id, entry.partition, entry.generation)

    def store(self, entry: RangeEntry) -> RangeStore:
        return RangeStore.read_only(self.folder(entry))


def found(measurement: Measurement) -> list[tuple[str, str, str, str]]:
    """Key, finding, column and reason of what the measurement names, in order."""
    named = [(r["key"], r["finding"], r["column"], r["reason"]) for r in measurement.sample]
    return sorted(named)


@contextmanager
def world(
    folder: Path, source: Sequence[Row] | None, *, transport: httpx.BaseTransport | None = None, **variables: str
) -> Iterator[World]:
    """A source with these rows, an org with ten accounts and no opportunity, and the walls of a pipeline between them.

    Without rows source and org stay as they are in the folder.
    """
    home = folder / "home"
    org = Org(home / "simulated_org")
    if source is not None:
        seed.seed(org, 0, accounts=10)
    settings = load_settings({"SYNC_HOME": str(home), "SYNC_POLL_SECONDS": "0.01", **variables}, folder=folder)
    walls = open_walls(settings, transport=transport or OrgTransport(org.folder))
    made = World(walls, org, home)
    if source is not None:
        made.write_source(source)
    try:
        yield made
    finally:
        walls.close()
        org.close()


def _matched(records: Records, keys: Sequence[str]) -> pl.Series:
    frame = pl.DataFrame({"key": list(keys)})
    return frame.select(match_key(pl.col("key"), records.object.key)).to_series()
