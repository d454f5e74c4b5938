"""Verbs about single rows: rejects and trace."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO

import polars as pl

from sync_pipeline.cli.terminal import ROWS_SHOWN, Terminal, printable
from sync_pipeline.domain.certificate import Certificate
from sync_pipeline.domain.errors import UsageError
from sync_pipeline.domain.keys import KeyRange
from sync_pipeline.domain.mapping import Mapping as FieldTable
from sync_pipeline.domain.mapping import load_mapping
from sync_pipeline.domain.night import JobEntry, NightEntry, RangeEntry
from sync_pipeline.engine.certificate import read_chain
from sync_pipeline.engine.duplicates import refused, standing
from sync_pipeline.engine.equality import Equality
from sync_pipeline.engine.values import BLANKS, convert
from sync_pipeline.engine.walls import Walls
from sync_pipeline.staging.range_store import RangeStore, RowFacts
from sync_pipeline.wiring import NIGHTS_KEPT, Home, open_home

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
    with csv_file(arguments.csv) as file:
        head = pl.DataFrame(schema=dict.fromkeys((*REASON_COLUMNS, *source_names(mapping)), pl.String))
        file.write(head.write_csv().encode())
        for frame in _rejected(terminal, home, night, mapping):
            rows += frame.height
            file.write(with_source(frame, mapping).write_csv(include_header=False).encode())
    if arguments.csv != STDOUT:
        terminal.print(f"{rows:,} rows written to {arguments.csv}")
    return 0


def source_names(mapping: FieldTable) -> list[str]:
    """The source columns as the CSV names them; one that is called like a column of ours gets a prefix."""
    return [f"source.{name}" if name in REASON_COLUMNS else name for name in mapping.source_columns]


def with_source(frame: pl.DataFrame, mapping: FieldTable) -> pl.DataFrame:
    """Rejected rows with their source columns, which the store keeps as one JSON text, each in a column of its own."""
    columns = mapping.source_columns
    source = frame["source"].str.json_decode(pl.Struct(dict.fromkeys(columns, pl.String)))
    values = [
        source.struct.field(name).alias(shown) for name, shown in zip(columns, source_names(mapping), strict=True)
    ]
    return frame.select(*REASON_COLUMNS, *values)


def _rejected(terminal: Terminal, home: Home, night: NightEntry, mapping: FieldTable) -> Iterator[pl.DataFrame]:
    """Rejected rows, some thousand at a time; ranges that still run are named, not read."""
    names = {"key": mapping.source_key} | {mapped.target: mapped.source for mapped in mapping.fields}
    for entry in home.book.ranges(night.plan_id):
        if home.area.is_range_locked(entry.partition):
            terminal.say(f"range {entry.partition} is still running; its rows are not listed")
            continue
        folder = home.area.range_folder(night.plan_id, entry.partition, entry.generation)
        if folder.exists():
            with RangeStore.read_only(folder) as store:
                yield from store.reject_pieces(names)


def _show_rejects(terminal: Terminal, home: Home, night: NightEntry, mapping: FieldTable) -> None:
    total = 0
    reasons: list[pl.DataFrame] = []
    examples: list[pl.DataFrame] = []
    for frame in _rejected(terminal, home, night, mapping):
        shown = frame.select(REASON_COLUMNS).head(max(ROWS_SHOWN - total, 0))
        total += frame.height
        reasons.append(frame.group_by("outcome", "code", "column").agg(pl.len().cast(pl.Int64).alias("rows")))
        examples.append(shown)
    if not total:
        terminal.print(f"Night {night.plan_id}: no row of a range at rest was rejected.")
        return
    grouped = pl.concat(reasons).group_by("outcome", "code", "column").agg(pl.col("rows").sum())
    terminal.print(f"Night {night.plan_id}: {total:,} rows did not get through")
    terminal.print()
    terminal.table(("outcome", "code", "column", "rows"), grouped.sort("rows", descending=True).iter_rows())
    terminal.print()
    terminal.table(REASON_COLUMNS, pl.concat(examples).iter_rows())
    if total > ROWS_SHOWN:
        terminal.print(f"... and {total - ROWS_SHOWN:,} more")
    terminal.print("Next: all of them with their source columns: `sync-pipeline rejects --csv FILE`")


@contextmanager
def csv_file(name: str) -> Iterator[IO[bytes]]:
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
    """One key's life from the source to the org, past nights too. Exit code 0 when the org holds it with equal values."""
    key: str = arguments.key
    with terminal.walls() as walls:
        mapping, target = walls.mapping, walls.soql.describe()
        mapping.check_comparable(target)
        equality = Equality(mapping, target)
        # The source may write the key with blanks at its ends; everything behind it knows the key without them.
        bare = key.strip(BLANKS)
        (named,) = equality.as_source([bare])
        source = walls.data_cloud.rows_matched([named], fold_case=equality.folds_case).sort(mapping.source_key)
        groups = standing(walls.data_cloud.duplicates(fold_case=equality.folds_case, among=[named]))
        present = walls.soql.rows_of([bare], as_numbers=equality.has_number_key)
        is_meant = equality.matched(present[mapping.target_key]).is_in(equality.matched(pl.Series([bare])).implode())
        present = present.filter(is_meant)
        _show_rows(terminal, f"source {mapping.source_object}", source)
        spelled = {key, bare, named, *source[mapping.source_key]}
        _show_nights(terminal, walls, spelled, sorted({text.strip(BLANKS) for text in spelled}))
        _show_rows(terminal, f"org {mapping.target_object}", present)
    rejections = refused(source, mapping, target, groups)
    # A row that another one stands for is not what keeps the key from the org.
    for code, message, column in (
        rejections.filter(~pl.col("set_aside")).select("code", "message", "column").iter_rows()
    ):
        terminal.print(f"The source row cannot be sent: {printable(message)} ({code}, column {column}).")
    places = pl.int_range(source.height, dtype=pl.UInt32, eager=True)
    sent = source.filter(~places.is_in(rejections.filter("set_aside")["index"].implode()))
    if not source.height or not present.height:
        terminal.print(f"The {'source' if present.height else 'org'} holds no such row.")
        return 1
    converted = convert(sent, mapping, target)
    differences = equality.differences(converted.frame, present.rename({mapping.target_key: "key"}))
    for row in differences.iter_rows(named=True):
        terminal.print(f"{row['column']} differs: source {_shown(row['staged'])}, org {_shown(row['present'])}")
    is_single = sent.height == present.height == 1
    if not is_single:
        terminal.print(f"The source has {sent.height} rows with this key, the org {present.height}.")
    is_equal = is_single and not differences.height and not (~rejections["set_aside"]).any()
    terminal.print("The org holds this row with equal values." if is_equal else "Source and org differ.")
    return 0 if is_equal else 1


def _show_rows(terminal: Terminal, side: str, rows: pl.DataFrame) -> None:
    """The rows of one side, a line for each."""
    if not rows.height:
        terminal.print(f"{side}: no row with this key")
    for row in rows.iter_rows(named=True):
        terminal.print(f"{side}: " + ", ".join(f"{name} {_shown(value)}" for name, value in row.items()))


def _show_nights(terminal: Terminal, walls: Walls, written: Collection[str], staged: Collection[str]) -> None:
    """What each night knows of the key in these spellings, the newest first: its ledgers where they are kept, else its
    certificate."""
    chain = read_chain(walls.area, walls.book, keys=walls.certificate_keys)
    nights = walls.book.nights(limit=NIGHTS_KEPT)
    for night in nights:
        for entry in walls.book.ranges(night.plan_id):
            planned = night.plan.range(entry.partition)
            if planned is not None and any(key in planned.range for key in written):
                _show_range(terminal, walls, night, entry, staged)
        certificate = chain.of(night.plan_id)
        if certificate is not None:
            _show_certificate(terminal, certificate, written)
    known = {night.plan_id for night in nights}
    for certificate in reversed(chain.certificates):  # of nights that the book has lost
        if certificate.plan_id not in known and certificate == chain.of(certificate.plan_id):
            _show_certificate(terminal, certificate, written)
    if not nights and not chain.certificates:
        terminal.print("staged: there is no night yet")


def _show_range(
    terminal: Terminal, walls: Walls, night: NightEntry, entry: RangeEntry, staged: Collection[str]
) -> None:
    """What the ledger of one range says of the key, the newest generation first."""
    where = f"night {night.plan_id}, range {entry.partition}"
    if walls.area.is_range_locked(entry.partition):
        terminal.print(f"{where}: is being worked on; ask again when it has ended")
        return
    created = {(job.generation, job.part): job for job in walls.book.jobs(night.plan_id, partition=entry.partition)}
    is_kept = False
    for generation in range(entry.generation, 0, -1):
        folder = walls.area.range_folder(night.plan_id, entry.partition, generation)
        if not folder.exists():
            continue
        is_kept = True
        told = where if generation == entry.generation else f"{where}, generation {generation}"
        with RangeStore.read_only(folder) as store:
            facts = [row for key in staged for row in store.lookup(key)]
        if not facts:
            terminal.print(f"{told}: {entry.state.value}, the key was not staged")
        for row in facts:
            _show_facts(terminal, told, row, {part: job for (of, part), job in created.items() if of == generation})
    if not is_kept:
        terminal.print(f"{where}: {entry.state.value}, nothing is kept of it")


def _show_facts(terminal: Terminal, where: str, row: RowFacts, jobs: Mapping[int, JobEntry]) -> None:
    terminal.print(f"{where}: staged as row {row.row} in {row.page or 'a page that was cleared away'}")
    for sending in row.sendings:
        fate = {True: "created", False: "updated", None: "not saved"}[sending.created]
        told = f"{fate} {sending.id or ''}".rstrip() if sending.state == "accounted" else sending.state
        job = jobs.get(sending.part)
        sent = f", sent {_clock(job.intended_at)}" if job is not None else ""
        archived = f", results archived {_clock(sending.recorded_at)}" if sending.recorded_at is not None else ""
        job_id = sending.job_id or (job.job_id if job is not None else "") or "(none yet)"
        terminal.print(f"{where}: part {sending.part} round {sending.round}, job {job_id}{sent}{archived}: {told}")
    if row.outcome is not None:
        told = ", ".join(
            f"{name} {_clock(value) if isinstance(value, datetime) else _shown(value)}"
            for name, value in row.outcome.items()
            if value not in (None, "") and name not in ("row", "key")
        )
        terminal.print(f"{where}: {told}")


def _show_certificate(terminal: Terminal, certificate: Certificate, written: Collection[str]) -> None:
    """What the certificate of a night says of the key's range, and of the key itself when it differed."""
    contents = certificate.contents
    where = f"certificate {certificate.number} of night {certificate.plan_id} ({contents['verdict']})"
    for found in contents["ranges"]:
        if not any(key in KeyRange(found["after"], found["through"]) for key in written):
            continue
        jobs = ", ".join(f"{job['id']} ({job['intended_at']})" for job in found["jobs"]) or "no job"
        terminal.print(
            f"{where}: range {found['partition']} {found['state']}, {found['succeeded']} of {found['expected']} rows saved; {jobs}"
        )
    for named in (contents["measurement"] or {}).get("sample", ()):
        if named["key"] in written:
            told = ", ".join(f"{name} {_shown(value)}" for name, value in named.items() if value and name != "key")
            terminal.print(f"{where}: {told}")


def _clock(instant: datetime) -> str:
    """An instant in UTC; those of a range's ledger have no zone of their own and are UTC."""
    aware = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    return f"{aware:%Y-%m-%d %H:%M:%S} UTC"


def _shown(value: object) -> str:
    return "null" if value is None else printable(str(value))
