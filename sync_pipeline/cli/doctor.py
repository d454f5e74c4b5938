"""The verbs that look at the surroundings of a night: doctor and limits."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from sync_pipeline.cli.terminal import Terminal, printable
from sync_pipeline.domain.errors import SyncError
from sync_pipeline.domain.mapping import load_mapping
from sync_pipeline.domain.types import check_source
from sync_pipeline.engine.equality import folds_case
from sync_pipeline.engine.planning import other_jobs
from sync_pipeline.engine.walls import Walls
from sync_pipeline.wiring import open_home

SHOWN_LIMITS = (
    "DailyApiRequests",
    "DailyBulkApiBatches",
    "DailyBulkV2QueryJobs",
    "DailyBulkV2QueryFileStorageMB",
    "DataStorageMB",
)
"""Allocations that a night draws on, as `/limits` names them."""


class Finding(Exception):
    """Something a person should mend although no error was raised; ``next_step`` says how."""

    def __init__(self, text: str, *, next_step: str) -> None:
        super().__init__(text)
        self.text = text
        self.next_step = next_step


class Examination:
    """Checks one after the other. ``exit_code`` is the worst of what was found."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self.exit_code = 0

    def check(self, name: str, look: Callable[[], str]) -> bool:
        """Prints a tick and what was seen, or a cross and the next thing to do; whether it was a tick."""
        try:
            seen = look()
        except Finding as finding:
            self._bad(name, finding.text, finding.next_step, exit_code=1)
        except SyncError as error:
            self._bad(name, error.message, error.hint, exit_code=error.exit_code)
        except OSError as error:
            self._bad(name, str(error), "Set SYNC_HOME to a folder of yours on a local disk.", exit_code=2)
        else:
            self._terminal.print(f"{self._mark('✓', 'ok')} {name}: {printable(seen)}")
            return True
        return False

    def notes(self, name: str, look: Callable[[], Sequence[str]]) -> None:
        """Prints things to know, neither good nor bad; only that they cannot be looked at is bad."""
        try:
            sentences = look()
        except SyncError as error:
            self._bad(name, error.message, error.hint, exit_code=error.exit_code)
            return
        for sentence in sentences:
            self._terminal.print(f"- {name}: {printable(sentence)}")

    def _bad(self, name: str, text: str, next_step: str, *, exit_code: int) -> None:
        self.exit_code = max(self.exit_code, exit_code)
        self._terminal.print(f"{self._mark('✗', 'NO')} {name}: {printable(text)}")
        if next_step:
            self._terminal.print(f"  Next: {printable(next_step)}")

    def _mark(self, mark: str, plain: str) -> str:
        return mark if "utf" in self._terminal.out.encoding.lower() else plain


def doctor(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Everything a night needs, looked at one by one. Without the first of them the rest cannot be looked at."""
    examination = Examination(terminal)
    for name, look in (("settings", _settings), ("home", _home), ("book", _book), ("mapping", _mapping)):
        if not examination.check(name, partial(look, terminal)):
            return examination.exit_code
    with ExitStack() as opened:
        found: list[Walls] = []

        def login() -> str:
            found.append(opened.enter_context(terminal.walls()))
            return f"{found[0].org} as user {found[0].session.user_id}"

        if examination.check("login", login):
            _examine_org(examination, found[0])
    return examination.exit_code


def _examine_org(examination: Examination, walls: Walls) -> None:
    examination.check("night", lambda: _night(walls))
    examination.check("source", lambda: _source(walls))
    if examination.check("target", lambda: _target(walls)):
        examination.check("key", lambda: _key(walls))
    examination.check("limits", lambda: _limits(walls))
    examination.check("other loads", lambda: _other_jobs(walls))
    examination.notes("other loads", walls.soql.other_loads)


def _settings(terminal: Terminal) -> str:
    settings = terminal.settings
    return f"home {settings.home}, " + ("the simulated org" if settings.is_simulated else str(settings.login_url))


def _book(terminal: Terminal) -> str:
    book = open_home(terminal.settings).book
    try:
        return book.database.name
    finally:
        book.close()


def _home(terminal: Terminal) -> str:
    home = open_home(terminal.settings)
    home.area.prepare()
    with tempfile.NamedTemporaryFile(dir=terminal.settings.home):
        pass
    free, reserve = home.area.free_bytes(), terminal.settings.policy.disk_reserve_bytes
    if free < reserve:
        raise Finding(
            f"{free / 1e6:,.0f} MB are free, {reserve / 1e6:,.0f} MB are always kept free",
            next_step="Make room on that disk, or set SYNC_HOME to another one.",
        )
    return f"{terminal.settings.home} can be written, {free / 1e9:,.1f} GB are free"


def _mapping(terminal: Terminal) -> str:
    mapping = load_mapping(terminal.settings.mapping)
    return f"{mapping.source_object} to {mapping.target_object}, {len(mapping.fields)} fields, from {terminal.settings.mapping}"


def _night(walls: Walls) -> str:
    newest = walls.book.newest()
    if newest is None:
        return "none yet"
    if newest.verdict is None:
        newest.plan.check_belongs(walls.org, walls.mapping)
        return f"{newest.plan_id} is unfinished and goes on with `sync-pipeline sync`"
    return f"{newest.plan_id} ended: {newest.verdict.value}"


def _source(walls: Walls) -> str:
    columns = walls.data_cloud.columns()
    check_source(walls.mapping, columns)
    return (
        f"{walls.mapping.source_object} has all {len(walls.mapping.source_columns)} columns of the mapping, "
        "of types that can be read"
    )


def _target(walls: Walls) -> str:
    target = walls.soql.describe()
    walls.mapping.check_target(target)
    return f"{target.name} takes all {len(walls.mapping.fields)} fields of the mapping"


def _key(walls: Walls) -> str:
    name, target = walls.mapping.target_key, walls.soql.describe()
    key = target.field(name)
    if key is None or not key.unique:
        raise Finding(
            f"'{name}' can be matched by, but is not unique: rows with one key make an upsert fail",
            next_step="Mark the field Unique in the org (Setup, Object Manager).",
        )
    if key.is_number:
        return f"'{name}' is a unique number"
    counts = "does not count" if folds_case(walls.mapping, target) else "counts"
    return f"'{name}' is a unique external id, letter case {counts}"


def _limits(walls: Walls) -> str:
    limits = walls.soql.limits()
    seen = []
    for name in SHOWN_LIMITS:
        limit = limits.get(name)
        if limit is None:
            continue
        if limit.remaining <= limit.max * walls.policy.api_reserve and name == "DailyApiRequests":
            raise Finding(
                f"{limit.remaining:,} of {limit.max:,} API calls are left, which is the reserve",
                next_step="Wait until calls come free (they count over 24 hours), or lower SYNC_API_RESERVE.",
            )
        seen.append(f"{name} {limit.remaining:,} of {limit.max:,} left")
    return ", ".join(seen) or "the org names none"


def _other_jobs(walls: Walls) -> str:
    """Open jobs of others on the target object make rows wait for each other's locks."""
    others = other_jobs(walls)
    if others:
        named = ", ".join(f"{job.id} ({job.operation}, {job.state.value}, by {job.created_by})" for job in others)
        raise Finding(
            f"{len(others)} open jobs load {walls.mapping.target_object} that no night of this home made: {named}",
            next_step="Wait for them, or abort them in the org (Setup, Bulk Data Load Jobs).",
        )
    return f"no open job of anybody else on {walls.mapping.target_object}"


def limits(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """The org's headroom and what the newest night used of it."""
    with terminal.walls() as walls:
        found = walls.soql.limits()
        night = walls.book.newest()
        calls = walls.book.calls(night.plan_id) if night is not None else {}
        shown = [(name, found[name]) for name in SHOWN_LIMITS if name in found]
    if terminal.is_json:
        terminal.document(
            {
                "org": str(walls.org),
                "limits": {name: {"max": limit.max, "remaining": limit.remaining} for name, limit in found.items()},
                "plan_id": night.plan_id if night is not None else None,
                "api_calls": calls,
            }
        )
        return 0
    terminal.print(printable(str(walls.org)))
    terminal.table(
        ("allocation", "max", "left", "used"),
        ((name, limit.max, limit.remaining, limit.max - limit.remaining) for name, limit in shown),
    )
    if night is not None:
        terminal.print()
        terminal.print(f"Night {night.plan_id} used:")
        rows = sorted(calls.items(), key=lambda call: -call[1])
        terminal.table(("call", "times"), rows, totals=("total", sum(calls.values())))
    return 0
