"""One range of one night: its rows in Parquet pages, and a DuckDB file that says what they are and what became of them.

A page exists from the commit that records it and moves the cursor, and its rows are durable before that. A part exists
from the commit that records its whole round; the outcomes of its job from the commit that records them, all at once.
Whatever no commit speaks of is swept when the range is opened again, so that a crash at any instant leaves a state that
was committed before.

Opened by the one process that holds the range's lock, used by one thread. At rest anybody may open it ``read_only``.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import time
import zlib
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from itertools import accumulate, pairwise
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Any, Final, Literal, Self

import duckdb
import polars as pl

from sync_pipeline.domain.errors import DiskFull, EngineGone, HeldElsewhere, StateError, SyncError
from sync_pipeline.domain.ledger import Counts, Cursor, Page, RowOutcome, UploadPart
from sync_pipeline.staging.arrow import frame_of, handed_over
from sync_pipeline.staging.catalogues import Catalogues, check_unattached
from sync_pipeline.staging.cutting import csv_bytes, ends, place, ring, slices, units_of, units_within
from sync_pipeline.staging.durable import (
    PASSING,
    ROOM_HINT,
    Disk,
    checksum,
    is_full,
    passing_name,
    private_folder,
    room_for,
)
from sync_pipeline.staging.outcomes import Matched, Outcomes, outcomes_of

log = logging.getLogger(__name__)

Which = Literal["all", "transient", "keys"]
Render = Callable[[pl.DataFrame, Path], tuple[int, int]]

FILE: Final = "range.duckdb"
SPILL: Final = "spill"
LAYOUT: Final = "1"
HELD: Final = (
    "Could not set lock on file",
    "Unique file handle conflict",
    "with a different configuration than existing",
)
"""Signs of an error that says that another process has a catalogue open, or another DuckDB of this one. Everything else
that keeps a catalogue from being opened lasts: to wait for it would be to wait for ever."""
INVALIDATED: Final = "database has been invalidated"
"""Sign of an error that says that an earlier one has ended all of DuckDB."""
SWEPT: Final = (".parquet", ".csv", PASSING)
"""Endings of files that live only as long as the catalogue lists them."""
READER_SECONDS: Final = 30.0
"""How long an owner waits for readers of a range at rest, which keep it open for moments."""
READER_PAUSE: Final = 0.1
REJECT_ROWS: Final = 20_000
"""Rejected rows that are looked up at once, with their values."""
KEY_TYPES: Final = {"row": "BIGINT", "key": "VARCHAR"}
SENT_TYPES: Final = {"part": "INTEGER", "row": "BIGINT", "key": "VARCHAR", "id": "VARCHAR", "created": "BOOLEAN"}
FRESH_HINT: Final = (
    "Begin the range anew with `sync-pipeline restart --range KEY --fresh`, or in Dagster with `start: fresh`."
)

VIEWS_START: Final = "-- Views."
SCHEMA: Final = resources.files("sync_pipeline.staging").joinpath("schema.sql").read_text(encoding="utf-8")
TABLES: Final = SCHEMA.partition(VIEWS_START)[0]
VIEWS: Final = Template(SCHEMA.partition(VIEWS_START)[2].partition("\n\n")[2])

HELD_BYTES: Final = 24_000_000
"""By default, rows of about so many bytes of CSV are held at once while parts are cut: one part of default size."""


@dataclass(frozen=True, slots=True)
class Sending:
    """One time a row was sent. ``created`` is ``None`` where the job did not save it, or has not ended."""

    part: int
    round: int
    state: Literal["cut", "accounted", "dropped"]
    job_id: str
    id: str | None
    created: bool | None
    recorded_at: datetime | None = None
    """When the result files of its job were archived here, UTC."""


@dataclass(frozen=True, slots=True)
class RowFacts:
    """Everything a range knows of one staged row."""

    row: int
    key: str | None
    page: str | None
    """File of its page; ``None`` once the rows have been cleared away."""
    values: dict[str, Any]
    """By target field, typed; empty once the rows have been cleared away."""
    sendings: tuple[Sending, ...]
    outcome: dict[str, Any] | None
    """A row of the view ``outcome`` and ``recorded_at``, when it was written down; ``None`` while it has none."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class RangeStore:
    """Pages, parts and outcomes of one range. Made by ``open`` or ``read_only``; a context manager."""

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        folder: Path,
        types: Mapping[str, str],
        *,
        disk: Disk,
        now: Callable[[], datetime],
        catalogues: Catalogues | None,
    ) -> None:
        self._database = database
        self._catalogues = catalogues
        self._folder = folder
        self._types = types
        self._disk = disk
        self._now = now
        self._pages: list[Page] = []
        self._next_row = 0
        self._has_stale_views = False
        self._facts: dict[str, str] | None = None
        self._counts: Counts | None = None
        """Both as the catalogue has them; ``None`` before they were asked for, and after it changed."""
        self.staged = 0
        """Rows durably staged, those without a key included."""

    # Opening and closing

    @classmethod
    def open(
        cls,
        folder: Path,
        schema: Mapping[str, pl.DataType],
        catalogues: Catalogues,
        *,
        disk: Disk | None = None,
        now: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> RangeStore:
        """The range in this folder, made when there is none. The caller holds the range's lock.

        Its catalogue is one of ``catalogues`` until the store is closed. ``schema`` names the staged columns after
        ``row`` and ``key``. Each page is read and checked; from the first damaged one on rows and cursor are taken back,
        and what was acknowledged of those rows is found again by key. Readers are waited for by ``sleep``. Raises
        ``HeldElsewhere`` when one of them does not let go, ``StateError`` when the catalogue itself cannot be used.
        """
        private_folder(folder)
        shutil.rmtree(folder / SPILL, ignore_errors=True)  # of a reader that was killed
        database = _attached(folder, catalogues, sleep=sleep)
        try:
            (folder / FILE).chmod(0o600)
            types = _types_of(database, schema)
            store = cls(database, folder, types, disk=disk or Disk(), now=now, catalogues=catalogues)
            store._prepare()
        except duckdb.Error as error:
            catalogues.detach(database)
            raise _told(folder, "cannot be used", error, hint=FRESH_HINT) from None
        except BaseException as error:
            catalogues.detach(database)
            if isinstance(error, ValueError):  # what is no text, no number or no JSON where there should be
                raise _damaged(folder, error) from None
            raise
        return store

    @classmethod
    def read_only(cls, folder: Path, *, memory: str = "128MB") -> RangeStore:
        """A range at rest, to be looked at by anybody; it still answers after its rows were cleared away.

        Raises ``StateError`` when there is none or it is damaged, ``HeldElsewhere`` while its owner works on it.
        """
        if not (folder / FILE).exists():
            raise StateError(f"There is no range in {folder}.", hint="Its ledger was cleared away, or it never ran.")
        database = _connect(folder, memory=memory)
        try:
            columns = database.execute("SELECT \"value\" FROM fact WHERE name = 'columns'").fetchone()
            types = json.loads(columns[0]) if columns is not None else {}
            store = cls(database, folder, types, disk=Disk(), now=utc_now, catalogues=None)
            store._load()
            if not all(path.exists() for path in store.staged_files()):
                store._pages = []  # cleared away
            store._has_stale_views = True
        except duckdb.Error as error:
            database.close()
            raise _told(folder, "cannot be read", error, hint=FRESH_HINT) from None
        except BaseException as error:
            database.close()
            if isinstance(error, ValueError):  # what is no text, no number or no JSON where there should be
                raise _damaged(folder, error) from None
            raise
        return store

    def close(self) -> None:
        if self._catalogues is not None:
            self._catalogues.detach(self._database)
        else:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Reading the source

    @property
    def cursor(self) -> Cursor | None:
        """How far the range is staged; ``None`` before its first page."""
        return self._pages[-1].cursor if self._pages else None

    @property
    def is_read(self) -> bool:
        """Reading has ended: every row the source counted is staged."""
        return self._fact("expected") is not None

    @property
    def expected(self) -> int:
        """The rows the source counted when reading ended; raises ``StateError`` before that."""
        expected = self._fact("expected")
        if expected is None:
            raise StateError(f"The range in {self._folder} has not been read to its end.", hint="Run it again.")
        return int(expected)

    def add_page(self, frame: pl.DataFrame, cursor: Cursor, rejections: pl.DataFrame) -> Page:
        """Makes rows durable and moves the cursor, in this order. When it raises, neither has happened.

        ``frame`` holds ``key`` and the staged columns. ``rejections`` (``index``: position in the frame, outcome, code,
        message, column, set_aside, source) are rows that will not be sent.
        """
        number = self._pages[-1].number + 1 if self._pages else 1
        rows = frame.select(
            pl.int_range(self._next_row, self._next_row + frame.height, dtype=pl.Int64).alias("row"),
            pl.col("key").cast(pl.String),
            *(pl.col(name) for name in self._types),
        )
        content = _parquet(rows)
        file = f"page-{number:06d}.parquet"
        page = Page(number, file, frame.height, len(content), zlib.crc32(content), cursor)
        self._disk.write(self._folder / file, content)
        self._disk.sync_folder(self._folder)
        with self._transaction():
            self._run(
                "INSERT INTO page VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                page.number, page.file, self._next_row, page.rows, page.bytes, page.crc32,
                cursor.key, cursor.query_id, cursor.offset,
            )  # fmt: skip
            if rejections.height:
                self._quarantine(rows, rejections)
        self._pages.append(page)
        self._next_row += page.rows
        self.staged += page.rows
        self._has_stale_views = True
        return page

    def _quarantine(self, rows: pl.DataFrame, rejections: pl.DataFrame) -> None:
        refused = rows[rejections["index"]].select("row", "key").hstack(rejections)
        with handed_over(self._database, "refused", refused):
            self._run(
                """
                INSERT INTO exception
                SELECT "row", key, outcome, code, message, "column", false, set_aside, source, NULL, ? FROM refused
                """,
                self._instant(),
            )

    def finish_reading(self, expected: int) -> None:
        """Ends reading: ``expected`` are the rows the source counted. From here on the views show every row."""
        with self._transaction():
            self._set_facts(expected=str(expected))
            self._make_views()
            if self._fact("lost") is not None:
                self._regain()

    def forget_pages(self) -> None:
        """Takes all pages back, to be read again from the start."""
        if self._pages:
            self._forget(self._pages)
            self._sweep()

    def reject(self, keys: pl.DataFrame) -> int:
        """Quarantines the staged rows with these keys (key, code, message, set_aside) that have no outcome and are not
        being sent; returns how many."""
        if not self._pages:
            return 0
        named = self._pending("all", None).filter(pl.col("key").is_in(keys["key"].implode()))
        refused = self._collected(named.select("row", "key")).join(keys.unique("key", keep="first"), on="key")
        with handed_over(self._database, "refused", refused), self._transaction():
            self._run(
                f"""
                INSERT INTO exception
                SELECT "row", key, '{RowOutcome.QUARANTINED}', code, message, '', false, set_aside, NULL, NULL, ?
                FROM refused
                """,
                self._instant(),
            )
        return refused.height

    # Sending

    @property
    def rounds(self) -> int:
        """How often rows were put in order and cut since reading ended."""
        return int(self._fact("rounds") or 0)

    @property
    def retries(self) -> int:
        """How often transient rows were cut since rows were last cut for another reason."""
        return int(self._fact("retries") or 0)

    @property
    def repairs(self) -> int:
        """The number of the last repair that was cut; 0 before the first."""
        return int(self._fact("repairs") or 0)

    def cut_round(
        self,
        *,
        which: Which,
        keys: pl.DataFrame | None = None,
        repair: int | None = None,
        group_by: str | None,
        start_fraction: float,
        part_rows: int,
        part_bytes: int,
        heavy_rows: int,
        serial: bool,
        render: Render,
        apart: pl.Series | None = None,
        apart_rows: int = 1,
        held_bytes: int = HELD_BYTES,
    ) -> list[UploadPart]:
        """Puts rows in the order of their parents, cuts them into parts and registers the whole round at once.

        ``all`` takes the rows without an outcome, ``transient`` those that may be sent again, ``keys`` the rows with
        ``keys`` (column ``key``) whatever became of them, unless quarantined. None of them takes a row of a part that is
        still open. Parts have about one size, at most ``part_bytes`` and ``part_rows`` (see ``cutting.ends``; exactly
        when ``serial``). They end where a parent ends. A parent with more than ``heavy_rows`` rows has parts of its own,
        marked serial. The ring of parents starts at ``start_fraction`` of the rows. Rows whose numbers are in ``apart``
        share no part with others, and at most ``apart_rows`` of them share one. ``repair`` is the number of the repair
        that this round is. Rows of about ``held_bytes`` of CSV are held at once, those of one part at least.
        """
        order, start = self._order(which, keys, group_by), start_fraction if group_by is not None else 0.0
        is_apart = pl.col("row").is_in((apart if apart is not None else pl.Series([], dtype=pl.Int64)).implode())
        wanted = _parted(
            order if apart is None else order.filter(~is_apart),
            start_fraction=start, part_rows=part_rows, part_bytes=part_bytes, heavy_rows=heavy_rows, serial=serial,
        )  # fmt: skip
        if apart is not None:
            wanted += _parted(
                order.filter(is_apart),
                start_fraction=start, part_rows=apart_rows, part_bytes=part_bytes, heavy_rows=apart_rows, serial=serial,
            )  # fmt: skip
        try:
            made = self._cut(wanted, held_bytes, render)
        except DiskFull:
            self._sweep()  # the parts that did fit would keep the disk full
            raise
        self._disk.sync_folder(self._folder)
        with self._transaction():
            for part, slice_bytes, slice_crc32 in made:
                self._run(
                    "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'cut')",
                    part.number, part.round, part.rows, part.file, part.bytes, part.crc32,
                    slice_bytes, slice_crc32, part.serial, which == "keys",
                )  # fmt: skip
            self._set_facts(
                rounds=str(self.rounds + 1),
                retries=str(self.retries + 1 if which == "transient" else 0),
                repairs=str(self.repairs if repair is None else repair),
            )
        return [part for part, _, _ in made]

    def parts(self, *, open_only: bool = True) -> list[UploadPart]:
        """Parts in the order they were cut; with ``open_only`` those that still wait for their outcomes."""
        rows = self._run(
            """
            SELECT number, round, "rows", file, bytes, crc32, serial FROM part
            WHERE state = 'cut' OR (NOT ? AND state <> 'dropped') ORDER BY number
            """,
            open_only,
        )
        return [UploadPart(*row) for row in rows]

    def part_file(self, part: UploadPart) -> Path:
        """The CSV of an open part."""
        return self._folder / part.file

    def record_outcomes(
        self,
        part: UploadPart,
        job_id: str,
        *,
        successes: Iterable[pl.DataFrame],
        failures: Iterable[pl.DataFrame],
        unprocessed: Iterable[pl.DataFrame],
        transient: Collection[str],
        matched: Matched = lambda keys: keys,
    ) -> Counts:
        """Gives every row of an open part its outcome, all in one commit, and returns the counts of the part.

        The frames hold ``key, id, created``, ``key, error`` and ``key``; ``transient`` and ``matched`` as in
        ``outcomes_of``. Rows that nothing names are unprocessed. The last word on a row counts: a later success takes its
        exception away, a later failure puts one in place of a success. Raises ``Unreadable`` when a list names a key
        that the part does not hold. Recording the same job again changes nothing.
        """
        known = self._recorded(part, job_id)
        if known is not None:
            return known
        sent = pl.read_parquet(self._slice_file(part), columns=["row", "key"])
        found = outcomes_of(
            sent,
            successes=successes,
            failures=failures,
            unprocessed=unprocessed,
            transient=transient,
            matched=matched,
        )
        counts = found.counts
        content = _parquet(found.saved.select(pl.lit(part.number, dtype=pl.Int32).alias("part"), *found.saved.columns))
        file = f"outcome-{part.number:05d}.parquet"
        self._disk.write(self._folder / file, content)
        self._disk.sync_folder(self._folder)
        with self._transaction():
            self._take_back_what_stood(part, found)
            self._except(found.refused, job_id)
            self._run(
                "INSERT INTO result VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                part.number, job_id, file, len(content), zlib.crc32(content),
                counts.created, counts.updated, counts.failed, counts.unprocessed, self._instant(),
            )  # fmt: skip
            self._run("UPDATE part SET state = 'accounted' WHERE number = ?", part.number)
            self._make_views()
        self._disk.remove(self.part_file(part))
        self._disk.remove(self._slice_file(part))
        return counts

    # What became of the rows

    def counts(self, expected: int) -> Counts:
        """Staged rows by their fate, from the ledger."""
        if self._counts is None:
            self._counts = self._counted()
        return replace(self._counts, expected=expected, staged=self.staged)

    def _counted(self) -> Counts:
        acknowledged = self._run("SELECT coalesce(sum(created), 0), coalesce(sum(updated), 0) FROM result")[0]
        moved = self._run(
            """
            SELECT coalesce(sum(n) FILTER (created), 0), coalesce(sum(n) FILTER (NOT created), 0)
            FROM (SELECT created, 1 AS n FROM regained UNION ALL SELECT created, -1 FROM superseded)
            """
        )[0]
        excepted = self._run(
            f"""
            SELECT
                count(*) FILTER (outcome = '{RowOutcome.FAILED}'),
                count(*) FILTER (outcome = '{RowOutcome.UNPROCESSED}'),
                count(*) FILTER (outcome = '{RowOutcome.QUARANTINED}'),
                count(*) FILTER (outcome = '{RowOutcome.QUARANTINED}' AND set_aside)
            FROM exception
            """
        )[0]
        return Counts(
            created=int(acknowledged[0] + moved[0]),
            updated=int(acknowledged[1] + moved[1]),
            failed=excepted[0],
            unprocessed=excepted[1],
            quarantined=excepted[2],
            set_aside=excepted[3],
        )

    def transient(self) -> int:
        """Rows whose failure can pass."""
        return int(self._run("SELECT count(*) FROM exception WHERE transient")[0][0])

    def transient_by(self, patterns: Collection[str]) -> pl.Series:
        """Numbers of those among them whose failure fits one of these patterns (see ``outcomes_of``)."""
        fitting = f"^(?:{'|'.join(patterns)})".replace("'", "''")
        return self._numbers(
            f"SELECT \"row\" FROM exception WHERE transient AND regexp_matches(code || ':' || message, '{fitting}')"
        )

    def settle(self) -> None:
        """What is left is final: no row is sent again."""
        with self._transaction():
            self._run("UPDATE exception SET transient = false WHERE transient")

    def rejects(self, source_names: Mapping[str, str] | None = None) -> pl.DataFrame:
        """All of ``reject_pieces`` at once."""
        return pl.concat(self.reject_pieces(source_names))

    def reject_pieces(
        self, source_names: Mapping[str, str] | None = None, *, piece_rows: int = REJECT_ROWS
    ) -> Iterator[pl.DataFrame]:
        """Rows that have another fate than succeeded, so many at once and at least one frame: key, outcome, code, message,
        column, and ``source``, the row as one JSON object of texts.

        For rows the source's values could not be staged for, ``source`` is as the source wrote it; for others it is the
        staged row, each column under its name in ``source_names`` (staged column, ``key`` included, to source column).
        """
        self._refresh_views()
        names = source_names or {}
        pairs = [
            f"{_literal(names.get(name, name))}: {_text(f's.{_name(name)}', kind)}"
            for name, kind in {"key": "VARCHAR", **self._types}.items()
        ]
        rows = self._frame('SELECT "row" FROM exception ORDER BY "row"')["row"]
        for start in range(0, max(len(rows), 1), piece_rows):
            piece = rows.slice(start, piece_rows)
            within = '"row" BETWEEN ? AND ?' if len(piece) else "false"
            bounds = (piece[0], piece[-1]) if len(piece) else ()
            yield self._frame(
                f"""
                SELECT
                    e.key, e.outcome, e.code, e.message, e."column",
                    coalesce(
                        e.source,
                        CASE WHEN s."row" IS NOT NULL THEN CAST(to_json({{{", ".join(pairs)}}}) AS VARCHAR) END
                    ) AS source
                FROM (SELECT * FROM exception WHERE {within}) AS e
                LEFT JOIN (SELECT * FROM staged_row WHERE {within}) AS s ON s."row" = e."row"
                ORDER BY e."row"
                """,
                *bounds,
                *bounds,
            )

    def reject_codes(self) -> list[tuple[str, str, str, bool, int]]:
        """Rows with another fate than succeeded, counted by outcome, code, column and whether a declared rule set them
        aside."""
        return self._run(
            """
            SELECT outcome, code, "column", set_aside, count(*) FROM exception
            GROUP BY ALL ORDER BY count(*) DESC, outcome, code, "column", set_aside
            """
        )

    def archive(self) -> list[tuple[int, str, str, int, int, datetime]]:
        """The archived outcomes of each job: part, job id, file, bytes, crc32, and when they were written (UTC)."""
        return self._run("SELECT part, job_id, file, bytes, crc32, recorded_at FROM result ORDER BY part")

    def fates(self, keys: pl.DataFrame) -> pl.DataFrame:
        """What the ledger says of the rows with these keys (column ``key``): key, outcome, code, message, job_id, id,
        created, recorded_at (UTC).

        A key that was never staged is left out; one that was staged and has no outcome has null there. Of several rows
        with one key the one that got through counts.
        """
        self._refresh_views()
        with handed_over(self._database, "wanted", keys.select("key").unique()):
            return self._frame(
                f"""
                WITH k AS MATERIALIZED (SELECT key FROM wanted),
                o AS MATERIALIZED (SELECT outcome.* FROM outcome SEMI JOIN k ON k.key = outcome.key),
                s AS MATERIALIZED (SELECT DISTINCT key FROM staged_row SEMI JOIN k ON k.key = staged_row.key)
                SELECT
                    k.key, o.outcome, o.code, o.message, coalesce(o.job_id, '') AS job_id, o.id, o.created,
                    coalesce(e.recorded_at, r.recorded_at) AS recorded_at
                FROM k
                LEFT JOIN o ON o.key = k.key
                LEFT JOIN s ON s.key = k.key
                LEFT JOIN exception AS e ON e."row" = o."row"
                LEFT JOIN result AS r ON r.job_id = o.job_id
                WHERE o.key IS NOT NULL OR s.key IS NOT NULL
                QUALIFY row_number() OVER (
                    PARTITION BY k.key ORDER BY coalesce(o.outcome <> '{RowOutcome.SUCCEEDED}', true), o."row"
                ) = 1
                """
            )

    def lookup(self, key: str) -> list[RowFacts]:
        """Everything known of the rows with this key, in the order they were staged."""
        self._refresh_views()
        staged = self._frame("SELECT * FROM staged_row WHERE key = ?", key).to_dicts()
        fates = self._frame(
            """
            SELECT o.*, coalesce(e.recorded_at, r.recorded_at) AS recorded_at
            FROM outcome AS o
            LEFT JOIN exception AS e ON e."row" = o."row"
            LEFT JOIN result AS r ON r.job_id = o.job_id
            WHERE o.key = ?
            """,
            key,
        )
        outcomes = {row["row"]: row for row in fates.to_dicts()}
        sent = self._frame(
            f"""
            SELECT
                s."row", part.number AS part, part.round, part.state, coalesce(r.job_id, '') AS job_id, s.id, s.created,
                r.recorded_at
            FROM (
                SELECT part, "row", key, id, created FROM sent_row
                UNION ALL
                SELECT part, "row", key, NULL, NULL FROM {self._open_slices()}
            ) AS s
            JOIN part ON part.number = s.part
            LEFT JOIN result AS r ON r.part = s.part
            WHERE s.key = ?
            ORDER BY s.part
            """,
            key,
        ).to_dicts()
        values = {row["row"]: {name: row[name] for name in self._types} for row in staged}
        numbers = sorted({*values, *outcomes, *(row["row"] for row in sent)})
        return [
            RowFacts(
                row=number,
                key=key,
                page=self._page_of(number) if number in values else None,
                values=values.get(number, {}),
                sendings=tuple(
                    Sending(s["part"], s["round"], s["state"], s["job_id"], s["id"], s["created"], s["recorded_at"])
                    for s in sent
                    if s["row"] == number
                ),
                outcome=outcomes.get(number),
            )
            for number in numbers
        ]

    def staged_files(self) -> list[Path]:
        """The pages, in key order."""
        return [self._folder / page.file for page in self._pages]

    def whole_files(self, *, rows: int) -> Iterator[list[Path]]:
        """The same, as many at once as have about so many rows, each looked at first; raises ``StateError`` at one that is
        not as it was recorded."""
        files, held = list[Path](), 0
        for page in self._pages:
            if checksum(self._folder / page.file) != (page.bytes, page.crc32):
                raise StateError(f"Page {self._folder / page.file} is missing or damaged.", hint=FRESH_HINT)
            if files and held + page.rows > rows:
                yield files
                files, held = [], 0
            files.append(self._folder / page.file)
            held += page.rows
        if files:
            yield files

    def rejected_rows(self) -> pl.Series:
        """Numbers of the staged rows that the org has not acknowledged, in no order."""
        self._refresh_views()
        if self.counts(0).adds_up:
            return self._frame('SELECT "row" FROM exception')["row"]
        saved = f"SELECT \"row\" FROM outcome WHERE outcome = '{RowOutcome.SUCCEEDED}'"
        return self._frame(f'SELECT s."row" FROM staged_row AS s ANTI JOIN ({saved}) AS o ON o."row" = s."row"')["row"]

    # Opening: what is on disk against what is in the catalogue

    def _prepare(self) -> None:
        self._run(TABLES)
        layout, columns = self._fact("layout"), self._fact("columns")
        if layout is None:
            with self._transaction():
                self._set_facts(layout=LAYOUT, columns=json.dumps(self._types))
        elif layout != LAYOUT:
            raise StateError(
                f"The range in {self._folder} was written in layout {layout}; this version reads {LAYOUT}.",
                hint="Use the version that wrote it, or " + FRESH_HINT[0].lower() + FRESH_HINT[1:],
            )
        elif columns is not None and json.loads(columns) != self._types:
            raise StateError(
                f"The range in {self._folder} was staged with other columns or types than the target has now.",
                hint=FRESH_HINT,
            )
        self._drop_damaged_results()
        self._load()
        whole = self._whole_pages()
        damaged, self._pages = self._pages[whole:], self._pages[:whole]
        self._make_views()
        if damaged:
            log.warning(
                "%s: page %d is missing or damaged; %d rows are read again",
                self._folder, damaged[0].number, sum(page.rows for page in damaged),
            )  # fmt: skip
            self._forget(damaged)
        self._drop_parts(self._damaged_parts())
        self._sweep()

    def _load(self) -> None:
        rows = self._run(
            'SELECT number, file, "rows", bytes, crc32, cursor_key, query_id, query_offset FROM page ORDER BY number'
        )
        self._pages = [
            Page(number, file, count, size, crc, Cursor(key, query_id, offset))
            for number, file, count, size, crc, key, query_id, offset in rows
        ]
        self.staged = sum(page.rows for page in self._pages)
        last = self._run('SELECT coalesce(max(first_row + "rows"), 0) FROM page')[0][0]
        self._next_row = max(int(last), int(self._fact("row_floor") or 0))

    def _whole_pages(self) -> int:
        """How many pages, from the first on, are as they were recorded."""
        for position, page in enumerate(self._pages):
            if checksum(self._folder / page.file) != (page.bytes, page.crc32):
                return position
        return len(self._pages)

    def _drop_damaged_results(self) -> None:
        """Results that cannot be read prove nothing: their rows wait to be sent again."""
        recorded = self._run("SELECT part, file, bytes, crc32 FROM result")
        damaged = [row[0] for row in recorded if checksum(self._folder / row[1]) != row[2:]]
        if not damaged:
            return
        log.warning("%s: the outcomes of parts %s are missing or damaged; they are sent again", self._folder, damaged)
        with self._transaction():
            for number in damaged:
                self._run("DELETE FROM result WHERE part = ?", number)
                self._run("DELETE FROM superseded WHERE part = ?", number)
                self._run("DELETE FROM regained WHERE part = ?", number)
                self._run("UPDATE part SET state = 'dropped' WHERE number = ?", number)
            self._set_facts(rounds="0")

    def _damaged_parts(self) -> list[int]:
        """Open parts of which the CSV or the slice is not as it was recorded."""
        recorded = self._run(
            "SELECT number, file, bytes, crc32, slice_bytes, slice_crc32 FROM part WHERE state = 'cut'"
        )
        return [
            number
            for number, file, size, crc, slice_size, slice_crc in recorded
            if checksum(self._folder / file) != (size, crc)
            or checksum(self._folder / _slice_name(number)) != (slice_size, slice_crc)
        ]

    def _drop_parts(self, numbers: Sequence[int]) -> None:
        if not numbers:
            return
        log.warning("%s: parts %s are taken back; their rows are sent in others", self._folder, list(numbers))
        with self._transaction():
            for number in numbers:
                self._run("UPDATE part SET state = 'dropped' WHERE number = ? AND state = 'cut'", number)
            self._set_facts(rounds="0")

    def _forget(self, pages: Sequence[Page]) -> None:
        """Takes back the last pages and all that hangs on their rows. Row numbers are never given twice; what was
        acknowledged of lost rows comes back by key in ``finish_reading``."""
        first = self._run("SELECT first_row FROM page WHERE number = ?", pages[0].number)[0][0]
        with self._transaction():
            self._set_facts(row_floor=str(self._next_row))
            self._run(
                """
                DELETE FROM superseded
                WHERE EXISTS (
                    SELECT 1 FROM regained
                    WHERE regained.part = superseded.part AND regained."row" = superseded."row" AND regained."row" >= ?
                )
                """,
                first,
            )
            self._run('DELETE FROM regained WHERE "row" >= ?', first)
            self._run(
                f"""
                INSERT INTO superseded
                SELECT part, "row", created FROM sent_row AS s WHERE "row" >= ? AND {_STANDS}
                """,
                first,
            )
            self._run('DELETE FROM exception WHERE "row" >= ?', first)
            self._run("DELETE FROM page WHERE number >= ?", pages[0].number)
            self._run("UPDATE part SET state = 'dropped' WHERE state = 'cut'")
            self._drop_fact("expected")
            self._set_facts(rounds="0", lost="true")
            self._load()
            self._make_views()

    def _regain(self) -> None:
        """Acknowledgements of lost rows, given to the rows that now have their keys; the last word on a key counts."""
        self._run(
            """
            INSERT INTO regained
            SELECT last.part, s."row", s.key, last.id, last.created
            FROM staged_row AS s
            JOIN (
                SELECT part, key, id, created
                FROM (SELECT sent_row.* FROM sent_row ANTI JOIN staged_row ON staged_row."row" = sent_row."row")
                QUALIFY row_number() OVER (PARTITION BY key ORDER BY part DESC, "row" DESC) = 1
            ) AS last ON last.key = s.key
            WHERE last.created IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM outcome WHERE outcome."row" = s."row")
            """
        )
        self._drop_fact("lost")

    def _sweep(self) -> None:
        """Removes files that the catalogue does not list."""
        kept = {page.file for page in self._pages}
        kept.update(row[0] for row in self._run("SELECT file FROM result"))
        for part in self.parts(open_only=True):
            kept.update((part.file, _slice_name(part.number)))
        for path in self._folder.iterdir():
            if path.name.endswith(SWEPT) and path.name not in kept:
                self._disk.remove(path)

    # Views

    def _refresh_views(self) -> None:
        if self._has_stale_views:
            self._make_views()

    def _make_views(self) -> None:
        """Lists the files there are by absolute path, so that the views work from any folder."""
        results = [self._folder / row[0] for row in self._run("SELECT file FROM result ORDER BY part")]
        statements = VIEWS.substitute(
            temporary="TEMPORARY" if self._catalogues is None else "",
            pages=_files(self.staged_files(), {**KEY_TYPES, **self._types}),
            outcomes=_files(results, SENT_TYPES),
        )
        self._run(statements)
        self._has_stale_views = False

    # Cutting

    def _order(self, which: Which, keys: pl.DataFrame | None, group_by: str | None) -> pl.DataFrame:
        """The rows to send in the order of their parents: row, ``place`` of the parent, and the most ``bytes`` that it
        takes in a CSV.

        Only this narrow frame is sorted, and the rows themselves are fetched part by part: to sort whole rows in DuckDB
        took three to five times as long.
        """
        if group_by is not None and group_by not in self._types:
            raise StateError(f"Rows cannot be put in the order of {group_by}: it is not staged.", hint=FRESH_HINT)
        if not self._pages:
            return pl.DataFrame(schema={"row": pl.Int64, "place": pl.UInt64, "bytes": pl.Int64})
        rows = self._pending(which, keys)
        of_parent = pl.lit(None, dtype=pl.UInt64) if group_by is None else place(pl.col(group_by))
        sizes = [csv_bytes(name, kind) for name, kind in rows.collect_schema().items() if name != "row"]
        narrow = self._collected(rows.select("row", place=of_parent, bytes=pl.sum_horizontal(sizes)))
        return narrow if group_by is None else narrow.sort("place", maintain_order=True)

    def _pending(self, which: Which, keys: pl.DataFrame | None) -> pl.LazyFrame:
        """The staged rows that may be sent now; see ``cut_round``."""
        rows, number = self._scanned(), pl.col("row")
        match which:
            case "all":
                self._refresh_views()
                excluded = self._numbers('SELECT "row" FROM outcome')
            case "transient":
                rows = rows.filter(number.is_in(self._numbers('SELECT "row" FROM exception WHERE transient').implode()))
                excluded = pl.Series(dtype=pl.Int64)
            case "keys":
                wanted = keys["key"] if keys is not None else pl.Series(dtype=pl.String)
                rows = rows.filter(pl.col("key").is_in(wanted.implode()))
                excluded = self._numbers(f"SELECT \"row\" FROM exception WHERE outcome = '{RowOutcome.QUARANTINED}'")
        if self.parts(open_only=True):
            excluded = pl.concat([excluded, self._numbers(f'SELECT "row" FROM {self._open_slices()}')])
        return rows.filter(~number.is_in(excluded.implode())) if len(excluded) else rows

    def _numbers(self, sql: str) -> pl.Series:
        return self._frame(sql)["row"]

    def _open_slices(self) -> str:
        """Rows of the open parts: part, row, key."""
        files = [self._slice_file(part) for part in self.parts(open_only=True)]
        return _files(files, {name: SENT_TYPES[name] for name in ("part", "row", "key")})

    def _cut(self, wanted: Sequence[_Wanted], held_bytes: int, render: Render) -> list[tuple[UploadPart, int, int]]:
        """Writes the CSV and the slice of each part; gives the parts, and bytes and crc32 of their slices. So many parts
        are fetched at once as fit into ``held_bytes``."""
        number, made = self._last_part(), list[tuple[UploadPart, int, int]]()
        waiting = list(wanted)
        while waiting:
            sizes = accumulate(part.bytes for part in waiting)
            together = max(bisect_right(list(sizes), held_bytes), 1)
            fetched = self._fetched(pl.concat([part.rows for part in waiting[:together]]))
            for part in waiting[:together]:
                number += 1
                made.append(self._written(number, fetched.head(len(part.rows)), part.serial, render))
                fetched = fetched.slice(len(part.rows))
            del waiting[:together]
        return made

    def _fetched(self, numbers: pl.Series) -> pl.DataFrame:
        """The staged rows with these numbers, each of them once, in this order."""
        rows = self._scanned()
        if len(numbers) < self.staged:
            rows = rows.filter(pl.col("row").is_in(numbers.implode()))
        held = self._collected(rows).rechunk()  # else every gather looks for the chunk of each row
        if held.height != len(numbers):
            raise StateError(f"Of {len(numbers)} rows of {self._folder} only {held.height} are there.", hint=FRESH_HINT)
        # Where each number is among those held: a table, because a search for each costs ten times as much.
        first, last = int(held["row"][0]), int(held["row"][-1])
        places = pl.zeros(last - first + 1, dtype=pl.UInt32, eager=True)
        places = places.scatter(held["row"] - first, pl.int_range(held.height, dtype=pl.UInt32, eager=True))
        return held[places.gather(numbers - first)]

    def _scanned(self) -> pl.LazyFrame:
        """All staged rows, by their numbers."""
        return pl.scan_parquet(self.staged_files(), glob=False, low_memory=True)

    def _collected(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """Raises ``StateError`` where a page cannot be read any more."""
        try:
            return rows.collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise StateError(f"The pages of {self._folder} cannot be read: {error}.", hint=FRESH_HINT) from None

    def _written(self, number: int, rows: pl.DataFrame, serial: bool, render: Render) -> tuple[UploadPart, int, int]:
        file = f"part-{number:05d}.csv"
        passing = passing_name(self._folder / file)
        with room_for(passing, int(rows.estimated_size())):
            size, crc = render(rows.drop("row"), passing)
            self._disk.rename(passing, self._folder / file)
        content = _parquet(rows.select(pl.lit(number, dtype=pl.Int32).alias("part"), "row", "key"))
        self._disk.write(self._folder / _slice_name(number), content)
        part = UploadPart(number, self.rounds, rows.height, file, size, crc, serial)
        return part, len(content), zlib.crc32(content)

    def _last_part(self) -> int:
        return int(self._run("SELECT coalesce(max(number), 0) FROM part")[0][0])

    def _slice_file(self, part: UploadPart) -> Path:
        return self._folder / _slice_name(part.number)

    # Outcomes

    def _recorded(self, part: UploadPart, job_id: str) -> Counts | None:
        """The counts of a part that was accounted for by this very job; raises ``StateError`` if it is not open."""
        rows = self._run(
            """
            SELECT part.state, result.job_id, result.created, result.updated, result.failed, result.unprocessed
            FROM part LEFT JOIN result ON result.part = part.number WHERE part.number = ?
            """,
            part.number,
        )
        if not rows or (rows[0][0] != "cut" and rows[0][1] != job_id):
            was = f"was accounted for by job {rows[0][1]}" if rows and rows[0][1] else "is not one of this range"
            raise StateError(
                f"Part {part.number} {was}; the outcomes of job {job_id} cannot be recorded.",
                hint="Look at its jobs with `sync-pipeline status`, then run the range again.",
            )
        if rows[0][0] == "cut":
            return None
        created, updated, failed, unprocessed = rows[0][2:]
        return Counts(part.rows, part.rows, created=created, updated=updated, failed=failed, unprocessed=unprocessed)

    def _take_back_what_stood(self, part: UploadPart, found: Outcomes) -> None:
        """Earlier words on the rows of this part no longer count. A row that this night created stays "created" when a
        repair updates it."""
        with handed_over(self._database, "fresh", found.saved):
            self._run('DELETE FROM exception WHERE "row" IN (SELECT "row" FROM fresh)')
            if self._run("SELECT again FROM part WHERE number = ?", part.number)[0][0]:
                self._run(
                    f"""
                    INSERT INTO superseded
                    SELECT
                        CASE WHEN s.created AND NOT f.created THEN ? ELSE s.part END,
                        s."row",
                        CASE WHEN s.created AND NOT f.created THEN false ELSE s.created END
                    FROM sent_row AS s
                    JOIN fresh AS f ON f."row" = s."row"
                    WHERE {_STANDS}
                    """,
                    part.number,
                )

    def _except(self, refused: pl.DataFrame, job_id: str) -> None:
        if refused.height == 0:
            return
        with handed_over(self._database, "refused", refused):
            self._run(
                """
                INSERT INTO exception
                SELECT "row", key, outcome, code, message, "column", transient, false, NULL, ?, ? FROM refused
                """,
                job_id,
                self._instant(),
            )

    # SQL

    def _run(self, sql: str, *parameters: object) -> list[Any]:
        """All rows of a statement: one that is left open would block the next. Raises ``StateError``, ``DiskFull``."""
        try:
            return self._database.execute(sql, list(parameters)).fetchall()
        except duckdb.Error as error:
            raise self._failed(error) from None

    def _frame(self, sql: str, *parameters: object) -> pl.DataFrame:
        """The rows of a SELECT as a frame. Raises ``StateError``, ``DiskFull``."""
        try:
            return frame_of(self._database, sql, parameters)
        except duckdb.Error as error:
            raise self._failed(error) from None

    def _failed(self, error: duckdb.Error) -> SyncError:
        hint = "Look at free disk space and at SYNC_DUCKDB_MEMORY, then run the range again."
        if self._catalogues is None and INVALIDATED in str(error):  # a reader's DuckDB is its own, and so was the error
            return _damaged(self._folder, error)
        return _told(self._folder, "failed", error, hint=hint)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("BEGIN TRANSACTION")
        try:
            yield
            self._run("COMMIT")
            self._counts = None
        except BaseException:
            with suppress(SyncError):  # a failed commit has ended the transaction already
                self._run("ROLLBACK")
            self._facts = None
            raise
        log_file = self._folder / f"{FILE}.wal"
        if log_file.exists():
            log_file.chmod(0o600)

    def _fact(self, name: str) -> str | None:
        if self._facts is None:
            self._facts = dict(self._run('SELECT name, "value" FROM fact'))
        return self._facts.get(name)

    def _set_facts(self, **facts: str) -> None:
        self._facts = None
        named = [word for fact in facts.items() for word in fact]
        self._run(f"INSERT OR REPLACE INTO fact VALUES {', '.join(['(?, ?)'] * len(facts))}", *named)

    def _drop_fact(self, name: str) -> None:
        self._facts = None
        self._run("DELETE FROM fact WHERE name = ?", name)

    def _instant(self) -> datetime:
        return self._now().astimezone(UTC).replace(tzinfo=None)

    def _page_of(self, row: int) -> str:
        found = self._run('SELECT file FROM page WHERE ? >= first_row AND ? < first_row + "rows"', row, row)
        return str(found[0][0])


_STANDS: Final = """
    s.created IS NOT NULL AND NOT EXISTS (SELECT 1 FROM superseded AS x WHERE x.part = s.part AND x."row" = s."row")
"""
"""An acknowledgement ``s`` of ``sent_row`` that counts."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A part before it is written: the numbers of its rows, and the most ``bytes`` they take in a CSV."""

    rows: pl.Series
    bytes: int
    serial: bool


def _parted(
    order: pl.DataFrame, *, start_fraction: float, part_rows: int, part_bytes: int, heavy_rows: int, serial: bool
) -> list[_Wanted]:
    """Rows in the order of their parents (row, place, bytes), cut into parts; see ``RangeStore.cut_round``."""
    units = ring(units_of(order, part_rows=part_rows, part_bytes=part_bytes, heavy_rows=heavy_rows), start_fraction)
    batches = [(units.filter(~pl.col("is_heavy")), serial)]
    for start, rows in units.filter("is_heavy").select("start", "rows").iter_rows():
        within = units_within(order, start, start + rows, part_rows=part_rows, part_bytes=part_bytes)
        batches.append((within, True))
    wanted: list[_Wanted] = []
    for batch, is_serial in batches:
        edges = ends(batch, part_rows=part_rows, part_bytes=part_bytes, is_strict=is_serial)
        for first, last in pairwise([0, *edges]):
            of_part = batch[first:last]
            rows = pl.concat([order["row"][a:b] for a, b in slices(of_part)])
            wanted.append(_Wanted(rows, int(of_part["bytes"].sum()), is_serial))
    return wanted


def _attached(folder: Path, catalogues: Catalogues, *, sleep: Callable[[float], None]) -> duckdb.DuckDBPyConnection:
    """The catalogue for its owner, once no reader has it open."""
    tries = round(READER_SECONDS / READER_PAUSE)
    for tried in range(tries + 1):
        try:
            return catalogues.attach(folder / FILE)
        except duckdb.Error as error:
            if not any(sign in str(error) for sign in HELD):
                raise _told(folder, "cannot be opened", error, hint=FRESH_HINT) from None
        if tried == 0:
            log.info("The catalogue %s is being read. It is waited for.", folder / FILE)
        if tried < tries:
            sleep(READER_PAUSE)
    raise HeldElsewhere(
        f"The catalogue {folder / FILE} is open elsewhere.",
        hint="A look at the range (`rejects`, `trace`, a measurement) keeps it open; run it again.",
    )


def _told(folder: Path, what: str, error: duckdb.Error, *, hint: str) -> SyncError:
    """An error of DuckDB in our own words."""
    if is_full(error):
        return DiskFull(f"The disk has no room for the catalogue {folder / FILE}: {error}.", hint=ROOM_HINT)
    if INVALIDATED in str(error):  # by another range: it costs this one no attempt
        return EngineGone(f"DuckDB has given up after an error in another range: {error}.", hint="Run it again.")
    if isinstance(error, duckdb.FatalException):
        hint = FRESH_HINT
    return StateError(f"The catalogue {folder / FILE} {what}: {error}.", hint=hint)


def _damaged(folder: Path, error: Exception) -> StateError:
    return StateError(f"The catalogue {folder / FILE} is damaged: {error}.", hint=FRESH_HINT)


def _connect(folder: Path, *, memory: str) -> duckdb.DuckDBPyConnection:
    """The catalogue for somebody who looks at it."""
    check_unattached(folder / FILE)
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "memory_limit": memory,
        "temp_directory": str(folder / SPILL),
        "preserve_insertion_order": True,
        "enable_external_file_cache": False,
    }
    try:
        return duckdb.connect(str(folder / FILE), read_only=True, config=config)
    except duckdb.Error as error:
        if not any(sign in str(error) for sign in HELD):
            raise _told(folder, "cannot be opened for reading", error, hint=FRESH_HINT) from None
        raise HeldElsewhere(
            f"The catalogue {folder / FILE} cannot be opened for reading: {error}.",
            hint="Is its range being worked on? Wait until it is at rest; see `sync-pipeline status`.",
        ) from None


def _types_of(database: duckdb.DuckDBPyConnection, schema: Mapping[str, pl.DataType]) -> dict[str, str]:
    """DuckDB's types of the staged columns."""
    if not schema:
        return {}
    with handed_over(database, "sample", pl.DataFrame(schema=dict(schema))):
        return {row[0]: row[1] for row in database.execute("DESCRIBE SELECT * FROM sample").fetchall()}


def _parquet(frame: pl.DataFrame) -> bytes:
    content = io.BytesIO()
    frame.write_parquet(content, compression="zstd", compression_level=1, statistics=False)
    return content.getvalue()


def _files(paths: Sequence[Path], types: Mapping[str, str]) -> str:
    """The rows of these Parquet files; with no file, no rows of these types."""
    if paths:
        return f"read_parquet([{', '.join(_literal(str(path.absolute())) for path in paths)}])"
    columns = ", ".join(f"CAST(NULL AS {kind}) AS {_name(name)}" for name, kind in types.items())
    return f"(SELECT {columns} WHERE false)"


def _slice_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _text(column: str, kind: str) -> str:
    """A staged value as text, as the source might have written it."""
    if kind.startswith("TIMESTAMP"):
        return f"strftime({column} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%gZ')"
    return f"CAST({column} AS VARCHAR)"
