"""Verbs about single rows: rejects and trace."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import polars as pl

from sync_pipeline.cli.terminal import ROWS_SHOWN, Terminal, printable
from sync_pipeline.domain.errors import UsageError
from sync_pipeline.domain.mapping import Mapping, load_mapping
from sync_pipeline.domain.night import NightEntry, RangeEntry
from sync_pipeline.engine.equality import Equality
from sync_pipeline.engine.values import convert
from sync_pipeline.engine.walls import Walls
from sync_pipeline.staging.range_store import RangeStore
from sync_pipeline.wiring import Home, open_home

REASON_COLUMNS = ("key", "outcome", "code", "message", "column")
STDOUT = "-"


def rejects(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """The rows of the newest night that did not get through, of all ranges at rest."""
    home = open_home(terminal.settings)
    night = home.newest()
    if night is None:
        terminal.print("There is no night yet, so no row was rejected.")
        return 0
    mapping = load_mapping(terminal.settings.mapping)
    if arguments.csv is None:
        _show_rejects(terminal, home, night, mapping)
        return 0
    rows = 0
    with _csv_file(arguments.csv) as file:
        head = pl.DataFrame(schema=dict.fromkeys((*REASON_COLUMNS, *source_names(mapping)), pl.String))
        file.write(head.write_csv().encode())
        for frame in _rejected(terminal, home, night, mapping):
            rows += frame.height
            file.write(with_source(frame, mapping).write_csv(include_header=False).encode())
    if arguments.csv != STDOUT:
        terminal.print(f"{rows:,} rows written to {arguments.csv}")
    return 0


def source_names(mapping: Mapping) -> list[str]:
    """The source columns as the CSV names them; one that is called like a column of ours gets a prefix."""
    return [f"source.{name}" if name in REASON_COLUMNS else name for name in mapping.source_columns]


def with_source(frame: pl.DataFrame, mapping: Mapping) -> pl.DataFrame:
    """Rejected rows with their source columns, which the store keeps as one JSON text, each in a column of its own."""
    columns = mapping.source_columns
    source = frame["source"].str.json_decode(pl.Struct(dict.fromkeys(columns, pl.String)))
    values = [
        source.struct.field(name).alias(shown) for name, shown in zip(columns, source_names(mapping), strict=True)
    ]
    return frame.select(*REASON_COLUMNS, *values)


def _rejected(terminal: Terminal, home: Home, night: NightEntry, mapping: Mapping) -> Iterator[pl.DataFrame]:
    """Rejected rows range by range; ranges that still run are named, not read."""
    names = {"key": mapping.source_key} | {mapped.target: mapped.source for mapped in mapping.fields}
    for entry in home.book.ranges(night.plan_id):
        if home.area.is_range_locked(entry.partition):
            terminal.say(f"range {entry.partition} is still running; its rows are not listed")
            continue
        folder = home.area.range_folder(night.plan_id, entry.partition, entry.generation)
        if folder.exists():
            with RangeStore.read_only(folder) as store:
                yield store.rejects(names)


def _show_rejects(terminal: Terminal, home: Home, night: NightEntry, mapping: Mapping) -> None:
    total = 0
    reasons: list[pl.DataFrame] = []
    examples: list[pl.DataFrame] = []
    for frame in _rejected(terminal, home, night, mapping):
        total += frame.height
        reasons.append(frame.group_by("outcome", "code", "column").agg(pl.len().cast(pl.Int64).alias("rows")))
        examples.append(frame.select(REASON_COLUMNS).head(ROWS_SHOWN))
    if not total:
        terminal.print(f"Night {night.plan_id}: no row of a range at rest was rejected.")
        return
    grouped = pl.concat(reasons).group_by("outcome", "code", "column").agg(pl.col("rows").sum())
    terminal.print(f"Night {night.plan_id}: {total:,} rows did not get through")
    terminal.print()
    terminal.table(("outcome", "code", "column", "rows"), grouped.sort("rows", descending=True).iter_rows())
    terminal.print()
    terminal.table(REASON_COLUMNS, pl.concat(examples).head(ROWS_SHOWN).iter_rows())
    if total > ROWS_SHOWN:
        terminal.print(f"... and {total - ROWS_SHOWN:,} more")
    terminal.print("Next: all of them with their source columns: `sync-pipeline rejects --csv FILE`")


@contextmanager
def _csv_file(name: str) -> Iterator[IO[bytes]]:
    """The file to write to, private to the user: it holds rows of the source."""
    if name == STDOUT:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise UsageError(
            f"{name} cannot be written: {error.strerror}.", hint="Name a file in a folder of yours."
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        yield file


def trace(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """One key's life from the source to the org. Exit code 0 when the org holds it with equal values."""
    key: str = arguments.key
    with terminal.walls() as walls:
        mapping = walls.mapping
        source = walls.data_cloud.rows_of([key])
        target = walls.soql.describe()
        present = walls.soql.rows_of([key])
        _show_rows(terminal, f"source {mapping.source_object}", source)
        nights = walls.book.nights()
        for night in nights:
            for entry in walls.book.ranges(night.plan_id):
                planned = night.plan.range(entry.partition)
                if planned is not None and key in planned.range:
                    _show_staged(terminal, walls, night, entry, key)
        if not nights:
            terminal.print("staged: there is no night yet")
        _show_rows(terminal, f"org {mapping.target_object}", present)
    if not source.height or not present.height:
        return 1
    converted = convert(source, mapping, target)
    differences = Equality(mapping, target).differences(converted.frame, present.rename({mapping.target_key: "key"}))
    for code, message, column in converted.rejections.select("code", "message", "column").iter_rows():
        terminal.print(f"The source row cannot be sent: {printable(message)} ({code}, column {column}).")
    for row in differences.iter_rows(named=True):
        terminal.print(f"{row['column']} differs: source {_shown(row['staged'])}, org {_shown(row['present'])}")
    is_equal = not differences.height and not converted.rejections.height
    terminal.print("The org holds this row with equal values." if is_equal else "Source and org differ.")
    return 0 if is_equal else 1


def _show_rows(terminal: Terminal, side: str, rows: pl.DataFrame) -> None:
    """The rows of one side, a line for each value."""
    if not rows.height:
        terminal.print(f"{side}: no row with this key")
    for row in rows.iter_rows(named=True):
        terminal.print(f"{side}: " + ", ".join(f"{name} {_shown(value)}" for name, value in row.items()))


def _show_staged(terminal: Terminal, walls: Walls, night: NightEntry, entry: RangeEntry, key: str) -> None:
    """What the store of one range knows of the key."""
    where = f"night {night.plan_id}, range {entry.partition}"
    if walls.area.is_range_locked(entry.partition):
        terminal.print(f"{where}: is being worked on; ask again when it has ended")
        return
    folder = walls.area.range_folder(night.plan_id, entry.partition, entry.generation)
    if not folder.exists():
        terminal.print(f"{where}: {entry.state.value}, nothing is kept of it")
        return
    with RangeStore.read_only(folder) as store:
        facts = store.lookup(key)
    if not facts:
        terminal.print(f"{where}: {entry.state.value}, the key was not staged")
    for row in facts:
        terminal.print(f"{where}: staged as row {row.row} in {row.page or 'a page that was cleared away'}")
        for sending in row.sendings:
            fate = {True: "created", False: "updated", None: "not saved"}[sending.created]
            terminal.print(
                f"{where}: sent in part {sending.part} round {sending.round} as job {sending.job_id or '(no results yet)'}: "
                + (f"{fate} {sending.id or ''}".rstrip() if sending.state == "accounted" else sending.state)
            )
        if row.outcome is not None:
            told = ", ".join(
                f"{n} {_shown(v)}" for n, v in row.outcome.items() if v not in (None, "") and n not in ("row", "key")
            )
            terminal.print(f"{where}: {told}")


def _shown(value: object) -> str:
    return "null" if value is None else printable(str(value))
