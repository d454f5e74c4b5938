"""An object of the org's own with fields of every type that can be mapped, a source for it, and a pipeline between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from sync_pipeline.domain.mapping import FieldType
from sync_pipeline.domain.night import Measurement, NightEntry
from sync_pipeline.engine.equality import Equality
from sync_pipeline.engine.night import drive, open_night
from sync_pipeline.engine.reconciliation import measure
from sync_pipeline.engine.walls import Walls
from sync_pipeline.settings import load_settings
from sync_pipeline.simulated_org import seed
from sync_pipeline.simulated_org.app import OrgTransport
from sync_pipeline.simulated_org.objects import SObject, find_object
from sync_pipeline.simulated_org.records import Records
from sync_pipeline.simulated_org.saving import save_rows
from sync_pipeline.simulated_org.source import write_source
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.wiring import open_walls

SOURCE: Final = "Things__dlm"
OBJECT: Final = "Thing__c"
KEY: Final = "Key__c"
TEXT_KEY: Final = {"type": "string", "length": 80, "external_id": True, "id_lookup": True, "unique": True}
NUMBER_KEY: Final = {
    "type": "double",
    "precision": 18,
    "scale": 2,
    "external_id": True,
    "id_lookup": True,
    "unique": True,
}
CHOICES: Final = ("Closed Won", "Open", "Été", "İstanbul")

FIELDS: Final[Mapping[str, tuple[FieldType, Mapping[str, Any]]]] = {
    "Text__c": (FieldType.TEXT, {"type": "string", "length": 80}),
    "Area__c": (FieldType.TEXT, {"type": "textarea", "length": 2_000}),
    "Pick__c": (FieldType.TEXT, {"type": "picklist", "length": 255, "picklist": CHOICES}),
    "Strict__c": (
        FieldType.TEXT,
        {"type": "picklist", "length": 255, "picklist": CHOICES, "restricted_picklist": True},
    ),
    "Many__c": (FieldType.TEXT, {"type": "multipicklist", "length": 4_099, "picklist": CHOICES}),
    "Combo__c": (FieldType.TEXT, {"type": "combobox", "length": 255, "picklist": CHOICES}),
    "Mail__c": (FieldType.TEXT, {"type": "email", "length": 80}),
    "Url__c": (FieldType.TEXT, {"type": "url", "length": 255}),
    "Phone__c": (FieldType.TEXT, {"type": "phone", "length": 40}),
    "Number__c": (FieldType.NUMBER, {"type": "double", "precision": 18, "scale": 2}),
    "Whole__c": (FieldType.NUMBER, {"type": "int", "digits": 9}),
    "Day__c": (FieldType.DATE, {"type": "date"}),
    "At__c": (FieldType.DATETIME, {"type": "datetime"}),
    "Flag__c": (FieldType.BOOLEAN, {"type": "boolean"}),
    "Parent__c": (FieldType.REFERENCE, {"type": "reference", "length": 18, "reference_to": ("Account",)}),
}
"""Name, type of the mapping, and what describe says."""


@dataclass
class Things:
    """Source, org and pipeline of one test."""

    walls: Walls
    org: Org
    home: Path

    @property
    def equality(self) -> Equality:
        return Equality(self.walls.mapping, self.walls.soql.describe())

    @property
    def sobject(self) -> SObject:
        found = find_object(self.org, OBJECT)
        assert found is not None
        return found

    def write_source(self, *rows: Mapping[str, str | None]) -> None:
        """These are the rows of the source, and no others."""
        columns = self.walls.mapping.source_columns
        frame = pl.DataFrame([dict.fromkeys(columns) | row for row in rows], schema=dict.fromkeys(columns, pl.String))
        write_source(self.org, SOURCE, [frame.sort(KEY)])

    def save(self, rows: pl.DataFrame) -> list[str | None]:
        """Upserts rows as a job saves them; the error of each."""
        saved = save_rows(
            self.org, self.org.user_id, self.sobject, "upsert", rows, key_field=self.sobject.find(KEY), chunk_rows=1
        )
        return saved["error"].to_list()

    def stored(self) -> pl.DataFrame:
        return pl.concat([pl.DataFrame(schema=self.records.schema), *self.records.frames()])

    @property
    def records(self) -> Records:
        return Records(self.org, self.sobject)

    def night(self) -> NightEntry:
        """One night from its plan to its verdict."""
        return drive(self.walls, open_night(self.walls, rearm=True), on_event=lambda told: None)

    def measure(self, **how: Any) -> Measurement:
        newest = self.walls.book.newest()
        assert newest is not None
        return measure(self.walls, newest.plan_id, record=False, on_event=lambda told: None, **how)


def mapping_of(names: Sequence[str], *, key: str = KEY) -> str:
    """A mapping of these fields, in TOML."""
    head = f'[source]\nobject = "{SOURCE}"\nkey = "{KEY}"\n[target]\nobject = "{OBJECT}"\nkey = "{key}"\n'
    rows = (f'[[field]]\nsource = "{name}"\ntarget = "{name}"\ntype = "{FIELDS[name][0]}"\n' for name in names)
    return head + "".join(rows)


@contextmanager
def things(
    folder: Path,
    *,
    key: Mapping[str, Any] = TEXT_KEY,
    fields: Sequence[str] = tuple(FIELDS),
    target_key: str = KEY,
    **variables: str,
) -> Iterator[Things]:
    """An org with ten accounts and no thing. ``key`` is what describe says of the key."""
    home, table = folder / "home", folder / "things.toml"
    table.write_text(mapping_of(fields, key=target_key), encoding="utf-8")
    org = Org(home / "simulated_org")
    seed.seed(org, 0, accounts=10)
    described = {KEY: dict(key), **{name: dict(FIELDS[name][1]) for name in fields}}
    org.set_setting("objects", {OBJECT: {"fields": described}})
    settings = load_settings(
        {
            "SYNC_HOME": str(home),
            "SYNC_MAPPING": str(table),
            "SYNC_POLL_SECONDS": "0.01",
            "SYNC_DISTRIBUTION": "none",
            **variables,
        },
        folder=folder,
    )
    walls = open_walls(settings, transport=OrgTransport(org.folder))
    made = Things(walls, org, home)
    made.write_source()
    try:
        yield made
    finally:
        walls.close()
        org.close()
