"""Rows, pages, CSVs and results of a small range, for the tests of this room."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path

import polars as pl

from sync_pipeline.domain.ledger import Counts, Cursor, UploadPart
from sync_pipeline.staging.catalogues import Catalogues
from sync_pipeline.staging.durable import Disk
from sync_pipeline.staging.range_store import RangeStore

SCHEMA: dict[str, pl.DataType] = {
    "Name": pl.String(),
    "Amount": pl.Decimal(38, 2),
    "CloseDate": pl.Date(),
    "Seen__c": pl.Datetime("ms", "UTC"),
    "AccountId": pl.String(),
}
REJECTIONS = {
    "index": pl.UInt32,
    "outcome": pl.String,
    "code": pl.String,
    "message": pl.String,
    "column": pl.String,
    "set_aside": pl.Boolean,
    "source": pl.String,
}
TRANSIENT = frozenset({"UNABLE_TO_LOCK_ROW"})
LOCKED = "UNABLE_TO_LOCK_ROW:unable to obtain exclusive access to this record:--"
INVALID = "FIELD_CUSTOM_VALIDATION_EXCEPTION:The stage is closed: no edit:StageName --"


def rows(keyed: Iterable[tuple[str | None, str | None]]) -> pl.DataFrame:
    """Staged rows of (key, parent)."""
    keyed = list(keyed)
    frame = pl.DataFrame(
        {"key": [k for k, _ in keyed], "AccountId": [p for _, p in keyed]},
        schema_overrides={"key": pl.String, "AccountId": pl.String},
    )
    return frame.select(
        "key",
        pl.format("Opportunity {}", "key").alias("Name"),
        pl.lit("12.50").cast(pl.Decimal(38, 2)).alias("Amount"),
        pl.lit("2026-03-01").str.to_date().alias("CloseDate"),
        pl.lit("2026-03-01T08:30:00").str.to_datetime(time_unit="ms", time_zone="UTC").alias("Seen__c"),
        "AccountId",
    )


def keys(*names: str | None) -> pl.DataFrame:
    """Staged rows without a parent."""
    return rows((name, None) for name in names)


def rejections(*refused: tuple[int, str], set_aside: bool = False) -> pl.DataFrame:
    """Rejections of the rows at these positions, by code."""
    return pl.DataFrame(
        [
            {"index": i, "outcome": "quarantined", "code": code, "message": "a rule", "column": "Name__c",
             "set_aside": set_aside, "source": f'{{"Name__c":"row {i}"}}'}
            for i, code in refused
        ],
        schema=REJECTIONS,
    )  # fmt: skip


NO_REJECTIONS = rejections()


def render(frame: pl.DataFrame, path: Path) -> tuple[int, int]:
    """A CSV with the key first, as the engine's renderer writes one."""
    text = frame.rename({"key": "External_ID__c"}).write_csv(null_value="#N/A").encode()
    path.write_bytes(text)
    return len(text), zlib.crc32(text)


def stage(store: RangeStore, *pages: pl.DataFrame, refused: Mapping[int, pl.DataFrame] | None = None) -> None:
    """Adds the pages and ends reading. ``refused``: rejections by position of the page."""
    for position, page in enumerate(pages):
        last = page["key"][-1] if page.height else None
        store.add_page(
            page, Cursor(last, "query", store.staged + page.height), (refused or {}).get(position, NO_REJECTIONS)
        )
    store.finish_reading(store.staged)


def cut(
    store: RangeStore,
    *,
    which: str = "all",
    keys: pl.DataFrame | None = None,
    group_by: str | None = "AccountId",
    start_fraction: float = 0.0,
    part_rows: int = 1000,
    part_bytes: int = 1_000_000,
    heavy_rows: int = 100,
    serial: bool = False,
    held_bytes: int = 1_000_000,
) -> list[UploadPart]:
    return store.cut_round(
        which=which,  # type: ignore[arg-type]
        keys=keys,
        group_by=group_by,
        start_fraction=start_fraction,
        part_rows=part_rows,
        part_bytes=part_bytes,
        heavy_rows=heavy_rows,
        serial=serial,
        render=render,
        held_bytes=held_bytes,
    )


def sent_keys(store: RangeStore, part: UploadPart) -> list[str]:
    """The keys of a part's CSV, in its order."""
    return pl.read_csv(store.part_file(part), columns=["External_ID__c"], infer_schema=False)[
        "External_ID__c"
    ].to_list()


def saved(*names: str, created: bool = True) -> pl.DataFrame:
    return pl.DataFrame(
        {"key": names, "id": [f"006{name}" for name in names], "created": [created] * len(names)},
        schema={"key": pl.String, "id": pl.String, "created": pl.Boolean},
    )


def failed(*names: str, error: str = LOCKED) -> pl.DataFrame:
    return pl.DataFrame(
        {"key": names, "id": [""] * len(names), "error": [error] * len(names)},
        schema={"key": pl.String, "id": pl.String, "error": pl.String},
    )


def left(*names: str) -> pl.DataFrame:
    return pl.DataFrame({"key": names}, schema={"key": pl.String})


def record(
    store: RangeStore,
    part: UploadPart,
    *,
    successes: Iterable[pl.DataFrame] = (),
    failures: Iterable[pl.DataFrame] = (),
    unprocessed: Iterable[pl.DataFrame] = (),
    job_id: str = "",
) -> Counts:
    return store.record_outcomes(
        part,
        job_id or f"750{part.number}",
        successes=successes,
        failures=failures,
        unprocessed=unprocessed,
        transient=TRANSIENT,
    )


def opened(folder: Path, disk: Disk | None = None) -> RangeStore:
    return RangeStore.open(folder, SCHEMA, alone(folder), disk=disk)


def alone(folder: Path) -> Catalogues:
    """A DuckDB for one range."""
    return Catalogues(lambda: nullcontext(folder / "spill"))


def fates(store: RangeStore) -> dict[int, str]:
    """Outcome by row, from the view; a row with two of them fails."""
    found = store._database.execute('SELECT "row", outcome FROM outcome').fetchall()
    by_row = dict(found)
    if len(by_row) != len(found):
        raise AssertionError(f"a row has several outcomes: {found}")
    return by_row


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix in (".parquet", ".csv", ".tmp")}
