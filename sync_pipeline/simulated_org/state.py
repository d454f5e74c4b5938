"""The org is a folder: SQLite files that any number of processes and threads may open, and files beside them.

Three databases, so that a long transaction of one never holds up the others: ``org`` (records and jobs), ``source``
(Data Cloud's objects and stored query results) and ``gate`` (what happens at the door: knobs, tokens, call counters,
faults, running numbers), whose transactions are all short.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from sync_pipeline.simulated_org.identifiers import salesforce_id

T = TypeVar("T")
Database = Literal["org", "source", "gate"]

DAILY_API_MAX: Final = 100_000
"""API calls of an Enterprise Edition org in 24 hours, without licences; knob ``api_max``."""
DAY_SECONDS: Final = 86_400
CALL_SLOT_SECONDS: Final = 300
"""Calls are counted in slots of this length, so that the rolling day needs few rows."""
ID_BLOCK: Final = 200
"""Ids that a thread takes from the running number at once."""

CREATED: Final = re.compile(r"CREATE (?:UNIQUE )?(?:TABLE|INDEX) IF NOT EXISTS (\w+)")
"""The names of what a schema makes."""

GATE_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sequence (name TEXT PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS api_call (
    slot INTEGER NOT NULL, client TEXT NOT NULL, route TEXT NOT NULL, calls INTEGER NOT NULL,
    PRIMARY KEY (slot, client, route)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fault (
    place INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, rule TEXT NOT NULL,
    matched INTEGER NOT NULL DEFAULT 0, fired INTEGER NOT NULL DEFAULT 0
);
"""


class _Connection(sqlite3.Connection):
    """Closed with the thread that it belongs to."""

    changes_before = 0
    """Changes that it had made when its transaction began."""

    @property
    def has_written(self) -> bool:
        """Whether its open transaction has changed anything."""
        return self.in_transaction and self.total_changes > self.changes_before

    def __del__(self) -> None:
        self.close()


class Org:
    """One simulated org. Opening a fresh folder makes an empty org; ``seed.py`` fills it.

    Knobs are read with ``setting`` and obeyed by every process at once. ``clock`` gives seconds since 1970; ``advance``
    moves the org's time for all processes.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.folder = Path(folder)
        self._clock = clock
        self._local = threading.local()
        self._write_locks: dict[Database, threading.RLock] = {
            "org": threading.RLock(),
            "source": threading.RLock(),
            "gate": threading.RLock(),
        }
        self._schemas: set[tuple[Database, str]] = set()
        self._remembered: dict[str, tuple[object, Any]] = {}
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.schema(GATE_SCHEMA, "gate")
        self.org_id: str = self._identity()
        self.user_id: Final = salesforce_id("005", 1)
        """The user whom the pipeline's app runs as."""
        self.admin_id: Final = salesforce_id("005", 2)
        """A person who works in the same org."""

    # Databases.

    def db(self, name: Database = "org") -> _Connection:
        """This thread's connection to one of the org's databases, in autocommit."""
        connections = self._connections()
        connection = connections.get(name)
        if connection is None:
            connection = connections[name] = self._connect(name)
        return connection

    @contextmanager
    def write(self, name: Database = "org") -> Iterator[sqlite3.Connection]:
        """One immediate transaction; within another of the same thread and database it is a part of that one."""
        connection = self.db(name)
        if connection.in_transaction:
            yield connection
            return
        # SQLite's own waiting is a lottery: threads of one process queue here instead.
        with self._write_locks[name]:
            connection.execute("BEGIN IMMEDIATE")
            connection.changes_before = connection.total_changes
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def schema(self, sql: str, name: Database = "org") -> None:
        """Runs ``CREATE … IF NOT EXISTS`` statements, once for this object; cheap when called again."""
        if (name, sql) in self._schemas:
            return
        wanted = set(CREATED.findall(sql))
        there = {row[0] for row in self.db(name).execute("SELECT name FROM sqlite_master")}
        if not wanted <= there:  # a reader must not wait for a writer only to find everything made
            with self.write(name) as connection:
                for statement in sql.split(";"):  # `executescript` would commit what is open
                    connection.execute(statement)
        self._schemas.add((name, sql))

    def close(self) -> None:
        """Closes this thread's connections."""
        for connection in self._connections().values():
            connection.close()
        self._connections().clear()

    def reset(self) -> None:
        """Throws everything away but the org's identity. Nobody else may have the org open."""
        self.close()
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        self._schemas.clear()
        self._remembered.clear()
        self.schema(GATE_SCHEMA, "gate")
        self.set_setting("org_id", self.org_id)

    def remembered(self, name: str, version: object, make: Callable[[], T]) -> T:
        """What ``make`` gave for this version of something that is dear to make; kept by this process alone."""
        if self.db().has_written:
            return make()  # what this transaction wrote may never have been
        held = self._remembered.get(name)
        if held is None or held[0] != version:
            held = self._remembered[name] = version, make()
        made: T = held[1]
        return made

    # Knobs and time.

    def setting(self, name: str, default: Any = None) -> Any:
        """The value of a knob, as JSON has it; ``default`` when nobody set it."""
        return self._gate_facts()[0].get(name, default)

    def set_setting(self, name: str, value: Any) -> None:
        """Sets a knob for all processes; ``None`` gives back its default."""
        with self.write("gate") as connection:
            if value is None:
                connection.execute("DELETE FROM setting WHERE name = ?", (name,))
            else:
                connection.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, json.dumps(value)))
        self.forget_facts()

    def faults(self) -> list[dict[str, Any]]:
        """All fault rules, in the order in which they were added."""
        return list(self._gate_facts()[1].values())

    def forget_facts(self) -> None:
        """Knobs and faults are read anew; needed after this thread itself has written them."""
        self._local.facts = None

    def now(self) -> float:
        """The org's time, seconds since 1970."""
        return self._clock() + float(self.setting("clock_offset", 0.0))

    def advance(self, seconds: float) -> None:
        """Moves the org's time ahead."""
        self.set_setting("clock_offset", float(self.setting("clock_offset", 0.0)) + seconds)

    # Running numbers and ids.

    def reserve(self, name: str, count: int) -> int:
        """The first of ``count`` numbers that nobody else gets; ``name`` is the key prefix of an id, or any other name."""
        with self.write("gate") as connection:
            (following,) = connection.execute(
                "INSERT INTO sequence VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET next = next + ? RETURNING next",
                (name, 1 + count, count),
            ).fetchone()
        return int(following) - count

    def new_id(self, prefix: str) -> str:
        """A new 18-character id."""
        blocks: dict[str, tuple[int, int]] | None = getattr(self._local, "blocks", None)
        if blocks is None:
            blocks = self._local.blocks = {}
        following, end = blocks.get(prefix, (0, 0))
        if following >= end:
            following = self.reserve(prefix, ID_BLOCK)
            end = following + ID_BLOCK
        blocks[prefix] = following + 1, end
        return salesforce_id(prefix, following)

    # API calls.

    def count_call(self, client: str, route: str = "") -> tuple[int, int]:
        """Counts one API call of that client; gives calls used in the last 24 hours, with this one, and allowed."""
        slot = int(self.now() // CALL_SLOT_SECONDS)
        with self.write("gate") as connection:
            connection.execute(
                "INSERT INTO api_call VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET calls = calls + 1",
                (slot, client, route),
            )
        return self.usage()

    def usage(self) -> tuple[int, int]:
        """API calls used in the last 24 hours, and allowed (knob ``api_max``). Knob ``api_used`` adds calls of others."""
        since = int((self.now() - DAY_SECONDS) // CALL_SLOT_SECONDS)
        (calls,) = self.db("gate").execute("SELECT sum(calls) FROM api_call WHERE slot > ?", (since,)).fetchone()
        return (calls or 0) + int(self.setting("api_used", 0)), int(self.setting("api_max", DAILY_API_MAX))

    def calls(self) -> dict[str, int]:
        """API calls ever made, by route."""
        rows = self.db("gate").execute("SELECT route, sum(calls) FROM api_call GROUP BY route ORDER BY route")
        return dict(rows.fetchall())

    # Files.

    def files(self, name: str) -> Path:
        """A sub-folder of the org, made when it is missing."""
        folder = self.folder / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def _connections(self) -> dict[Database, _Connection]:
        # A connection must not travel into a forked process, so the process is part of where it is kept.
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.pid = os.getpid()
            self._local.connections = {}
            self._local.facts = None
            self._local.blocks = {}
        connections: dict[Database, _Connection] = self._local.connections
        return connections

    def _connect(self, name: Database) -> _Connection:
        path = self.folder / f"{name}.sqlite"
        path.touch(mode=0o600)
        connection = sqlite3.connect(
            path, timeout=60.0, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        connection.executescript(
            "PRAGMA busy_timeout = 60000; PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
            "PRAGMA cache_size = -4000; PRAGMA temp_store = MEMORY;"
        )
        return connection

    def _gate_facts(self) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Knobs and fault rules, read again when another connection has written."""
        connection = self.db("gate")
        version: int = connection.execute("PRAGMA data_version").fetchone()[0]
        facts: tuple[int, tuple[dict[str, Any], dict[str, dict[str, Any]]]] | None = getattr(self._local, "facts", None)
        if facts is None or facts[0] != version:
            settings = {
                name: json.loads(value) for name, value in connection.execute("SELECT name, value FROM setting")
            }
            rules = {
                name: json.loads(rule)
                for name, rule in connection.execute("SELECT name, rule FROM fault ORDER BY place")
            }
            facts = self._local.facts = version, (settings, rules)
        return facts[1]

    def _identity(self) -> str:
        """The org's id: kept in the org, and made from the folder's place, so that two orgs are never taken for one."""
        known = self.setting("org_id")
        if known is None:
            digest = hashlib.sha256(str(self.folder.resolve()).encode()).digest()
            known = salesforce_id("00D", int.from_bytes(digest[:6], "big"))
            self.set_setting("org_id", known)
        return str(known)
