"""The book: what all processes of one SYNC_HOME share, in one SQLite file.

Each method is one short transaction, so that anybody may read at any time and nobody waits for a range. Threads have
connections of their own. Everything that knows SQLite is in this class: another database would replace it alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from sync_pipeline.domain.errors import DiskFull, HeldElsewhere, SettingsError, StateError, SyncError
from sync_pipeline.domain.ledger import Counts, IngestJob, RangeState, Verdict
from sync_pipeline.domain.night import JobEntry, Measurement, NightEntry, RangeEntry
from sync_pipeline.domain.plan import Plan

SCHEMA: Final = resources.files("sync_pipeline.staging").joinpath("book.sql").read_text(encoding="utf-8")
LAYOUT: Final = 1
BUSY_SECONDS: Final = 30.0
"""How long a transaction waits for another one, which lasts milliseconds."""
TURN_SECONDS: Final = 0.01
TURN_SECONDS_MAX: Final = 0.5
"""Pauses between two looks at whose turn it is: the first, doubled up to the last."""
COUNTS: Final = ("expected", "staged", "created", "updated", "failed", "unprocessed", "quarantined", "set_aside")
OVER: Final = ("accounted", "dropped")
BUSY: Final = (RangeState.READING, RangeState.LOADING)
RUNS: Final = "(SELECT coalesce(sum(runs), 0) FROM range WHERE range.plan_id = night.plan_id)"
"""In a statement on ``night``: the runs of all its ranges that have begun so far."""
OPEN_PAUSE: Final = 0.02
"""Seconds between two tries to open a file that another process is just making."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Book:
    """Made, with its tables, when it is first opened. Raises ``SettingsError`` when the file cannot be used."""

    def __init__(self, path: Path, *, now: Callable[[], datetime] = utc_now) -> None:
        self._path = path
        self._now = now
        self._connections = threading.local()
        try:
            path.touch(mode=0o600)  # SQLite gives its side files the mode of this one
            self._check_layout()
        except (OSError, StateError, DiskFull) as error:
            raise SettingsError(
                f"The book {path} cannot be used: {getattr(error, 'message', error)}",
                hint="Set SYNC_HOME to a folder of yours on a local disk, or restore the file from a copy.",
            ) from None

    def close(self) -> None:
        """Lets go of this thread's connection; the next call opens another."""
        if getattr(self._connections, "pid", None) == os.getpid():
            self._connections.book.close()
            self._connections.pid = None

    # Nights

    def open_night(self, plan: Plan, *, check: Callable[[], None] = lambda: None) -> None:
        """Writes down a new night with all of its ranges, planned. Raises ``StateError`` if there is one of that id.

        ``check`` is called while no run can begin, and may refuse by raising.
        """
        with self._transaction() as book:
            check()
            if book.execute("SELECT 1 FROM night WHERE plan_id = ?", (plan.plan_id,)).fetchone():
                raise StateError(f"There is a night {plan.plan_id} already.", hint="Plan again.")
            book.execute(
                "INSERT INTO night (plan_id, plan, opened_at) VALUES (?, ?, ?)",
                (plan.plan_id, plan.to_json(), self._instant()),
            )
            book.executemany(
                "INSERT INTO range (plan_id, partition, place, state, expected) VALUES (?, ?, ?, ?, ?)",
                [(plan.plan_id, r.partition, r.place, RangeState.PLANNED, r.expected) for r in plan.ranges],
            )

    def newest(self) -> NightEntry | None:
        """The night that was opened last."""
        nights = self.nights(limit=1)
        return nights[0] if nights else None

    def is_newest(self, plan_id: str) -> bool:
        """No night was opened after this one."""
        rows = self._rows("SELECT plan_id FROM night ORDER BY number DESC LIMIT 1")
        return bool(rows) and rows[0]["plan_id"] == plan_id

    def night(self, plan_id: str) -> NightEntry | None:
        rows = self._rows(f"{_NIGHTS} WHERE plan_id = ?", plan_id)
        return _night(rows[0]) if rows else None

    def nights(self, limit: int = 20) -> list[NightEntry]:
        """The newest nights, newest first."""
        return [_night(row) for row in self._rows(f"{_NIGHTS} ORDER BY number DESC LIMIT ?", limit)]

    # Ranges

    def ranges(self, plan_id: str) -> list[RangeEntry]:
        """All ranges of a night, in their order."""
        return [_range(row) for row in self._rows("SELECT * FROM range WHERE plan_id = ? ORDER BY place", plan_id)]

    def range(self, plan_id: str, partition: str) -> RangeEntry | None:
        rows = self._rows("SELECT * FROM range WHERE plan_id = ? AND partition = ?", plan_id, partition)
        return _range(rows[0]) if rows else None

    def begin_run(self, plan_id: str, partition: str, *, pid: int, run_id: str = "", fresh: bool) -> RangeEntry:
        """A run of the range has begun; ``fresh`` starts a new generation with nothing staged.

        A run before it that never ended was killed: only whoever holds the range's lock begins one. Raises
        ``HeldElsewhere`` when a newer night was opened, to which the range's rows belong now.
        """
        with self._transaction() as book:
            self._check_newest(book, plan_id)
            self._know_run(book, plan_id, run_id)
            if fresh:
                counted = ", ".join(f"{name} = 0" for name in COUNTS if name != "expected")
                planned = self._planned(book, plan_id, partition)
                self._change(book, plan_id, partition, f"generation = generation + 1, expected = ?, {counted}", planned)
            self._change(
                book,
                plan_id,
                partition,
                "attempts = attempts + (state IN (?, ?)), state = ?, runs = runs + 1, pid = ?, run_id = ?, started_at = ?,"
                " heartbeat_at = ?, finished_at = NULL, error = '', rows_sent = 0",
                *BUSY,
                RangeState.READING,
                pid,
                run_id,
                at := self._instant(),
                at,
            )
            return _range(self._one(book, plan_id, partition))

    def progress(
        self,
        plan_id: str,
        partition: str,
        *,
        state: RangeState | None = None,
        counts: Counts | None = None,
        rows_sent: int | None = None,
    ) -> None:
        """What has moved in a running range; also a heartbeat."""
        changes, values = _changes(state=state, counts=counts, rows_sent=rows_sent)
        with self._transaction() as book:
            self._change(book, plan_id, partition, ", ".join([*changes, "heartbeat_at = ?"]), *values, self._instant())

    def beat(self, plan_id: str, partitions: Iterable[str]) -> None:
        """The ranges of this process are alive."""
        beats = [(self._instant(), plan_id, partition) for partition in partitions]
        if beats:
            with self._transaction() as book:
                book.executemany("UPDATE range SET heartbeat_at = ? WHERE plan_id = ? AND partition = ?", beats)

    def end_run(
        self,
        plan_id: str,
        partition: str,
        *,
        state: RangeState,
        counts: Counts | None = None,
        error: str = "",
        failed_attempt: bool = False,
    ) -> None:
        """A run has ended. Only one that ends ``done`` has finished the range; ``failed_attempt`` counts against it."""
        changes, values = _changes(state=state, counts=counts)
        changes += [
            "error = ?",
            "attempts = attempts + ?",
            "heartbeat_at = ?",
            "finished_at = ?",
            "is_repair = is_repair AND ?",
        ]
        is_done, at = state is RangeState.DONE, self._instant()
        with self._transaction() as book:
            self._change(
                book, plan_id, partition, ", ".join(changes),
                *values, error, int(failed_attempt), at, at if is_done else None, not is_done,
            )  # fmt: skip

    def know_run(self, plan_id: str, run_id: str) -> None:
        """A run of an orchestrator has come this far, so that whatever becomes of it is told here."""
        with self._transaction() as book:
            self._know_run(book, plan_id, run_id)

    def known_runs(self, plan_id: str) -> frozenset[str]:
        """Runs of an orchestrator that came as far as the book."""
        return frozenset(row["run_id"] for row in self._rows("SELECT run_id FROM run WHERE plan_id = ?", plan_id))

    def hold(self, plan_id: str, partition: str) -> None:
        """A person cancelled the range: nothing is started for it until a person does."""
        with self._transaction() as book:
            self._change(book, plan_id, partition, "state = ?", RangeState.HELD)

    def give_up(self, plan_id: str, partition: str, reason: str) -> None:
        with self._transaction() as book:
            self._change(book, plan_id, partition, "state = ?, error = ?", RangeState.GIVEN_UP, reason)

    def rearm(self, plan_id: str, partitions: Collection[str] | None = None) -> None:
        """Gives ranges that nobody works on new attempts, as a person wants it.

        ``None`` means those held, given up, failed or killed.
        """
        stuck = (RangeState.HELD, RangeState.GIVEN_UP, *BUSY)
        with self._transaction() as book:
            if partitions is None:
                rows = book.execute(
                    "SELECT partition FROM range WHERE plan_id = ? AND state IN (?, ?, ?, ?, ?)",
                    (plan_id, *stuck, RangeState.FAILED),
                )
                partitions = [row["partition"] for row in rows]
            for partition in partitions:
                self._change(
                    book, plan_id, partition,
                    "attempts = 0, rearmed_at = ?,"
                    " state = CASE WHEN state NOT IN (?, ?, ?, ?) THEN state WHEN runs = 0 THEN ? ELSE ? END",
                    self._instant(), *stuck, RangeState.PLANNED, RangeState.FAILED,
                )  # fmt: skip

    def count_repair(self, plan_id: str, partition: str) -> None:
        """The range drifts and is to be repaired once more."""
        with self._transaction() as book:
            self._change(
                book, plan_id, partition, "state = ?, repairs = repairs + 1, is_repair = 1", RangeState.DRIFTING
            )

    # Jobs

    def intend_job(
        self, plan_id: str, partition: str, *, generation: int, part: int, round: int, rows: int, serial: bool
    ) -> int:
        """A job is about to be created for this part; returns the number of the entry."""
        with self._transaction() as book:
            made = book.execute(
                "INSERT INTO job (plan_id, partition, generation, part, round, rows, serial, intended_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (plan_id, partition, generation, part, round, rows, serial, self._instant()),
            )
            if made.lastrowid is None:
                raise StateError(
                    f"The intent for part {part} of range {partition} got no number.", hint="Run it again."
                )
            return made.lastrowid

    def job_created(self, intent: int, job_id: str) -> None:
        """The org has made the job. Raises ``StateError`` when nobody intended it."""
        with self._transaction() as book:
            changed = book.execute("UPDATE job SET job_id = ?, state = 'Open' WHERE intent = ?", (job_id, intent))
            if changed.rowcount != 1:
                raise StateError(
                    f"Job {job_id} belongs to no intent of the book.", hint="Was SYNC_HOME cleared meanwhile?"
                )

    def job_seen(self, intent: int, job: IngestJob) -> None:
        """The job as the org describes it now. An entry that is over stays as it is."""
        with self._transaction() as book:
            book.execute(
                "UPDATE job SET state = ?, processed = ?, failed = ?, retries = ?, error = ?"
                " WHERE intent = ? AND state NOT IN (?, ?)",
                (job.state, job.processed, job.failed, job.retries, job.error, intent, *OVER),
            )

    def job_over(self, intent: int, state: Literal["accounted", "dropped"]) -> None:
        """The job's outcomes are recorded, or nobody waits for them any more."""
        with self._transaction() as book:
            book.execute("UPDATE job SET state = ? WHERE intent = ?", (state, intent))

    def jobs(
        self, plan_id: str | None = None, *, partition: str | None = None, open_only: bool = False
    ) -> list[JobEntry]:
        """Jobs in the order of their intents, of all nights when no ``plan_id`` is given."""
        conditions, values = ["1 = 1"], list[str]()
        if plan_id is not None:
            conditions.append("plan_id = ?")
            values.append(plan_id)
        if partition is not None:
            conditions.append("partition = ?")
            values.append(partition)
        if open_only:
            conditions.append("state NOT IN ('accounted', 'dropped')")
        rows = self._rows(f"SELECT * FROM job WHERE {' AND '.join(conditions)} ORDER BY intent", *values)
        return [_job(row) for row in rows]

    def knows_job(self, job_id: str) -> bool:
        """Some night has an entry for this job."""
        return bool(self._rows("SELECT 1 FROM job WHERE job_id = ? LIMIT 1", job_id))

    @contextmanager
    def turn(self, name: str, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
        """Only one thread of all processes is in the block of this name; the others wait by ``sleep``, which may raise.

        The lock is the system's: it goes with the process that holds it.
        """
        descriptor = os.open(self._path.with_name(f"{self._path.stem}-{name}.turn"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            pause = TURN_SECONDS
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    sleep(pause)
                    pause = min(2 * pause, TURN_SECONDS_MAX)
            yield
        finally:
            os.close(descriptor)

    # API calls

    def add_calls(self, plan_id: str, calls: Mapping[str, int]) -> None:
        """Adds calls by endpoint to what the night used so far."""
        with self._transaction() as book:
            book.executemany(
                "INSERT INTO call VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET times = times + excluded.times",
                [(plan_id, endpoint, times) for endpoint, times in calls.items()],
            )

    def calls(self, plan_id: str) -> dict[str, int]:
        """What the night used, by endpoint."""
        rows = self._rows("SELECT endpoint, times FROM call WHERE plan_id = ? ORDER BY endpoint", plan_id)
        return {row["endpoint"]: row["times"] for row in rows}

    # Switches

    def request_stop(self, plan_id: str) -> None:
        self._set_night(plan_id, "stop_requested_at = coalesce(stop_requested_at, ?)", self._instant())

    def lift_stop(self, plan_id: str) -> None:
        self._set_night(plan_id, "stop_requested_at = NULL")

    def is_stopped(self, plan_id: str) -> bool:
        return bool(self._rows("SELECT 1 FROM night WHERE plan_id = ? AND stop_requested_at NOT NULL", plan_id))

    def park(self, plan_id: str, *, until: datetime, reason: str) -> None:
        """The night waits until then. Lanes that park it while it is parked make it wait longer, and count once."""
        self._set_night(
            plan_id,
            "parkings = parkings + (parked_until IS NULL OR parked_until <= ?),"
            " parked_until = max(coalesce(parked_until, ''), ?), parked_reason = ?",
            self._instant(),
            _text(until),
            reason,
        )

    def unpark(self, plan_id: str) -> None:
        """Something got through, or a person wants it to be tried."""
        self._set_night(plan_id, "parked_until = NULL, parked_reason = '', parkings = 0")

    # Endings

    def begin_measure(self, plan_id: str, *, run_id: str = "") -> None:
        """A measurement has begun. One before it that never ended was killed: only whoever holds the lock begins one."""
        with self._transaction() as book:
            self._know_run(book, plan_id, run_id)
            self._change_night(
                book, plan_id,
                "measure_tries = measure_tries + (measuring_since IS NOT NULL), measuring_since = ?, measure_seen_at = ?,"
                f" measure_run_id = ?, measuring_runs = {RUNS}",
                at := self._instant(), at, run_id,
            )  # fmt: skip

    def end_measure(self, plan_id: str) -> None:
        """The measurement has ended, however it did."""
        self._set_night(plan_id, "measuring_since = NULL, measuring_runs = NULL, measure_seen_at = ?", self._instant())

    def record_measurement(self, plan_id: str, measurement: Measurement) -> None:
        document = _document(measurement)
        with self._transaction() as book:
            self._change_night(
                book,
                plan_id,
                f"measurement = ?, measure_tries = 0, measured_runs = coalesce(measuring_runs, {RUNS})",
                document,
            )
            book.execute(
                "INSERT INTO measurement (plan_id, recorded_at, measurement) VALUES (?, ?, ?)",
                (plan_id, self._instant(), document),
            )

    def record_measure_failure(self, plan_id: str, error: str) -> None:
        """A measurement failed; the night keeps the one before it."""
        with self._transaction() as book:
            self._change_night(book, plan_id, "measure_tries = measure_tries + 1")
            book.execute(
                "INSERT INTO measurement (plan_id, recorded_at, error) VALUES (?, ?, ?)",
                (plan_id, self._instant(), error),
            )

    def measure_failure(self, plan_id: str) -> str:
        """Why the newest measurement of the night failed; empty when it did not, or none has ended."""
        rows = self._rows("SELECT error FROM measurement WHERE plan_id = ? ORDER BY number DESC LIMIT 1", plan_id)
        return str(rows[0]["error"] or "") if rows else ""

    def record_verdict(self, plan_id: str, verdict: Verdict, *, reasons: Sequence[str] = (), seconds: float) -> None:
        """How the night ended; a later verdict takes the place of this one, which stays in the history."""
        document = json.dumps(list(reasons), ensure_ascii=False)
        with self._transaction() as book:
            self._change_night(
                book, plan_id,
                f"verdict = ?, verdict_at = ?, verdict_reasons = ?, verdict_runs = {RUNS}, seconds = ?, measure_tries = 0",
                verdict, self._instant(), document, seconds,
            )  # fmt: skip
            book.execute(
                "INSERT INTO verdict (plan_id, recorded_at, verdict, reasons, seconds) VALUES (?, ?, ?, ?, ?)",
                (plan_id, self._instant(), verdict, document, seconds),
            )

    def clear_verdict(self, plan_id: str) -> None:
        """The night is open again; the history keeps its verdict."""
        self._set_night(plan_id, "verdict = NULL, verdict_at = NULL, verdict_reasons = '[]', verdict_runs = NULL")

    def verdicts(self, plan_id: str) -> list[tuple[datetime, Verdict, tuple[str, ...]]]:
        """Every verdict the night ever had, oldest first."""
        rows = self._rows("SELECT * FROM verdict WHERE plan_id = ? ORDER BY number", plan_id)
        return [
            (datetime.fromisoformat(row["recorded_at"]), Verdict(row["verdict"]), tuple(json.loads(row["reasons"])))
            for row in rows
        ]

    # Certificates

    def certificate_head(self) -> tuple[int, str] | None:
        """Number and hash of the newest certificate that was issued; ``None`` before the first."""
        rows = self._rows("SELECT value FROM fact WHERE name = 'certificate'")
        number, sha256 = json.loads(rows[0]["value"]) if rows else (0, "")
        return (number, sha256) if rows else None

    def record_certificate(self, number: int, sha256: str) -> None:
        """A certificate was issued: whoever takes it away or writes it anew must change the book as well."""
        with self._transaction() as book:
            book.execute(
                "INSERT INTO fact VALUES ('certificate', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (json.dumps([number, sha256]),),
            )

    # Conditions somebody is told of

    def conditions(self) -> dict[str, dict[str, Any]]:
        """Conditions by name, each with what was said of it and to whom."""
        return {row["name"]: json.loads(row["state"]) for row in self._rows("SELECT name, state FROM condition")}

    def change_condition(self, name: str, change: Callable[[dict[str, Any] | None], Mapping[str, Any]]) -> None:
        """Hands the state of a condition, ``None`` for a new one, to ``change`` and keeps what that returns.

        All in one transaction: two processes that find the same news do not both act on it.
        """
        with self._transaction() as book:
            found = book.execute("SELECT state FROM condition WHERE name = ?", (name,)).fetchone()
            state = change(json.loads(found["state"]) if found is not None else None)
            document = json.dumps(dict(state), ensure_ascii=False)
            book.execute("INSERT OR REPLACE INTO condition VALUES (?, ?)", (name, document))

    # SQLite

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection. A forked child opens its own: SQLite's must not cross a fork."""
        owner = getattr(self._connections, "pid", None)
        if owner != os.getpid():
            book = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
            book.row_factory = sqlite3.Row
            try:
                _use_wal(book)
                book.execute("PRAGMA synchronous = FULL")  # an intent must outlive a power cut
                book.execute("PRAGMA foreign_keys = ON")
            except sqlite3.Error:
                book.close()
                raise
            self._connections.book, self._connections.pid = book, os.getpid()
        connection: sqlite3.Connection = self._connections.book
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            book = self._connection()
            book.execute("BEGIN IMMEDIATE")
            try:
                yield book
                book.execute("COMMIT")
            finally:
                if book.in_transaction:
                    book.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def _rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        try:
            return self._connection().execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def _failed(self, error: sqlite3.Error) -> SyncError:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return DiskFull(f"The disk has no room for the book {self._path}.", hint="Make room there, then try again.")
        return StateError(f"The book {self._path} failed: {error}.", hint="Look at free disk space, then try again.")

    def _check_layout(self) -> None:
        """Makes the tables, or raises ``SettingsError`` when a later version wrote them. Waits for nobody but a maker."""
        if not self._has_tables():
            with self._transaction() as book:
                if not self._has_tables():  # nobody else has made them meanwhile
                    for statement in SCHEMA.split(";\n"):
                        book.execute(statement)
                    book.execute("INSERT INTO fact VALUES ('layout', ?)", (str(LAYOUT),))
        (found,) = self._rows("SELECT value FROM fact WHERE name = 'layout'")
        if int(found["value"]) > LAYOUT:
            raise SettingsError(
                f"The book {self._path} is of layout {found['value']}; this version knows layouts up to {LAYOUT}.",
                hint="Install the version that wrote it, or set SYNC_HOME to another folder.",
            )

    def _has_tables(self) -> bool:
        return bool(self._rows("SELECT 1 FROM sqlite_schema WHERE name = 'fact'"))

    def _change(
        self, book: sqlite3.Connection, plan_id: str, partition: str, assignments: str, *values: object
    ) -> None:
        changed = book.execute(
            f"UPDATE range SET {assignments} WHERE plan_id = ? AND partition = ?", (*values, plan_id, partition)
        )
        if changed.rowcount != 1:
            raise StateError(f"Night {plan_id} has no range {partition}.", hint="See `sync-pipeline status`.")

    def _one(self, book: sqlite3.Connection, plan_id: str, partition: str) -> sqlite3.Row:
        found: sqlite3.Row = book.execute(
            "SELECT * FROM range WHERE plan_id = ? AND partition = ?", (plan_id, partition)
        ).fetchone()
        return found

    def _check_newest(self, book: sqlite3.Connection, plan_id: str) -> None:
        later = book.execute(
            "SELECT plan_id FROM night WHERE number > (SELECT number FROM night WHERE plan_id = ?) LIMIT 1", (plan_id,)
        ).fetchone()
        if later is not None:
            raise HeldElsewhere(
                f"Night {later['plan_id']} has taken the place of night {plan_id}, of which nothing is run any more.",
                hint="See its ranges with `sync-pipeline status`.",
            )

    def _know_run(self, book: sqlite3.Connection, plan_id: str, run_id: str) -> None:
        if run_id:
            book.execute("INSERT OR IGNORE INTO run VALUES (?, ?)", (plan_id, run_id))

    def _planned(self, book: sqlite3.Connection, plan_id: str, partition: str) -> int:
        """The rows counted for the range when its night was planned."""
        found = book.execute("SELECT plan FROM night WHERE plan_id = ?", (plan_id,)).fetchone()
        planned = Plan.from_json(found["plan"]).range(partition) if found is not None else None
        if planned is None:
            raise StateError(f"Night {plan_id} has no range {partition}.", hint="See `sync-pipeline status`.")
        return planned.expected

    def _set_night(self, plan_id: str, assignments: str, *values: object) -> None:
        with self._transaction() as book:
            self._change_night(book, plan_id, assignments, *values)

    def _change_night(self, book: sqlite3.Connection, plan_id: str, assignments: str, *values: object) -> None:
        changed = book.execute(f"UPDATE night SET {assignments} WHERE plan_id = ?", (*values, plan_id))
        if changed.rowcount != 1:
            raise StateError(f"There is no night {plan_id}.", hint="See `sync-pipeline status`.")

    def _instant(self) -> str:
        return _text(self._now())


_NIGHTS: Final = """
    SELECT night.*, (SELECT coalesce(sum(times), 0) FROM call WHERE call.plan_id = night.plan_id) AS api_calls FROM night
"""


def _use_wal(book: sqlite3.Connection) -> None:
    """Readers and a writer side by side. SQLite does not wait by itself for whoever is just making the file."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            book.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(OPEN_PAUSE)


def _text(instant: datetime) -> str:
    """An instant as it is written: always with microseconds, so that text sorts as time."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds")


def _instant_of(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None


def _changes(
    *, state: RangeState | None = None, counts: Counts | None = None, rows_sent: int | None = None
) -> tuple[list[str], list[object]]:
    """Assignments of what is given, and their values."""
    given: dict[str, object] = {}
    if state is not None:
        given["state"] = state
    if counts is not None:
        given.update(asdict(counts))
    if rows_sent is not None:
        given["rows_sent"] = rows_sent
    return [f"{name} = ?" for name in given], list(given.values())


def _night(row: sqlite3.Row) -> NightEntry:
    return NightEntry(
        plan=Plan.from_json(row["plan"]),
        opened_at=datetime.fromisoformat(row["opened_at"]),
        stop_requested_at=_instant_of(row["stop_requested_at"]),
        parked_until=_instant_of(row["parked_until"]),
        parked_reason=row["parked_reason"],
        parkings=row["parkings"],
        verdict=Verdict(row["verdict"]) if row["verdict"] is not None else None,
        verdict_at=_instant_of(row["verdict_at"]),
        verdict_reasons=tuple(json.loads(row["verdict_reasons"])),
        verdict_runs=row["verdict_runs"],
        measurement=_measurement(row["measurement"]) if row["measurement"] is not None else None,
        measured_runs=row["measured_runs"],
        measure_tries=row["measure_tries"],
        measuring_since=_instant_of(row["measuring_since"]),
        measure_seen_at=_instant_of(row["measure_seen_at"]),
        measure_run_id=row["measure_run_id"],
        api_calls=row["api_calls"],
        seconds=row["seconds"],
    )


def _range(row: sqlite3.Row) -> RangeEntry:
    return RangeEntry(
        partition=row["partition"],
        place=row["place"],
        state=RangeState(row["state"]),
        counts=Counts(**{name: row[name] for name in COUNTS}),
        runs=row["runs"],
        attempts=row["attempts"],
        generation=row["generation"],
        repairs=row["repairs"],
        is_repair=bool(row["is_repair"]),
        pid=row["pid"],
        started_at=_instant_of(row["started_at"]),
        heartbeat_at=_instant_of(row["heartbeat_at"]),
        finished_at=_instant_of(row["finished_at"]),
        error=row["error"],
        rows_sent=row["rows_sent"],
        run_id=row["run_id"],
        rearmed_at=_instant_of(row["rearmed_at"]),
    )


def _job(row: sqlite3.Row) -> JobEntry:
    return JobEntry(
        intent=row["intent"],
        plan_id=row["plan_id"],
        partition=row["partition"],
        generation=row["generation"],
        part=row["part"],
        round=row["round"],
        rows=row["rows"],
        intended_at=datetime.fromisoformat(row["intended_at"]),
        job_id=row["job_id"],
        state=row["state"],
        serial=bool(row["serial"]),
        processed=row["processed"],
        failed=row["failed"],
        retries=row["retries"],
        error=row["error"],
    )


def _document(measurement: Measurement) -> str:
    document = asdict(measurement) | {"measured_at": _text(measurement.measured_at)}
    return json.dumps(document, ensure_ascii=False, default=str)


def _measurement(text: str) -> Measurement:
    document = json.loads(text)
    document |= {
        "measured_at": datetime.fromisoformat(document["measured_at"]),
        "drifting": tuple(document["drifting"]),
        "sample": tuple(document["sample"]),
    }
    return Measurement(**document)
