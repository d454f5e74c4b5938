"""Ranges: their runs, states and counts."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from sync_pipeline.book.database import Noun, Row, Transaction, instant_of, places
from sync_pipeline.book.nights import know_run
from sync_pipeline.domain.errors import HeldElsewhere, StateError
from sync_pipeline.domain.ledger import OUTCOMES, Counts, RangeState
from sync_pipeline.domain.night import RangeEntry
from sync_pipeline.domain.plan import Plan

BUSY: Final = (RangeState.READING, RangeState.LOADING)
_OF_RANGE: Final = "outcome.plan_id = range.plan_id AND outcome.partition = range.partition"
_RANGES: Final = "SELECT range.*, {} FROM range".format(
    ", ".join(
        f"coalesce((SELECT rows FROM outcome WHERE {_OF_RANGE} AND outcome.outcome = '{outcome}'), 0) AS {outcome}"
        for outcome in OUTCOMES
    )
)
"""Ranges with the rows of each outcome, all of one instant."""


class Ranges(Noun):
    def ranges(self, plan_id: str) -> list[RangeEntry]:
        """All ranges of a night, in their order."""
        return [_range(row) for row in self.database.rows(f"{_RANGES} WHERE plan_id = ? ORDER BY place", plan_id)]

    def range(self, plan_id: str, partition: str) -> RangeEntry | None:
        rows = self.database.rows(f"{_RANGES} WHERE plan_id = ? AND partition = ?", plan_id, partition)
        return _range(rows[0]) if rows else None

    def begin_run(self, plan_id: str, partition: str, *, pid: int, run_id: str = "", fresh: bool) -> RangeEntry:
        """A run of the range has begun; ``fresh`` starts a new generation with nothing staged.

        A run before it that never ended was killed: only whoever holds the range's lock begins one. Raises
        ``HeldElsewhere`` when a newer night was opened, to which the range's rows belong now.
        """
        with self.database.transaction(alone=True) as book:
            _check_newest(book, plan_id)
            know_run(book, plan_id, run_id)
            if fresh:
                planned = _planned(book, plan_id, partition)
                _change(book, plan_id, partition, "generation = generation + 1, expected = ?, staged = 0", planned)
                book.change("DELETE FROM outcome WHERE plan_id = ? AND partition = ?", plan_id, partition)
            _change(
                book,
                plan_id,
                partition,
                f"attempts = attempts + CASE WHEN state IN {places(BUSY)} THEN 1 ELSE 0 END, state = ?, runs = runs + 1, pid = ?, run_id = ?, started_at = ?,"
                " heartbeat_at = ?, finished_at = NULL, error = '', rows_sent = 0",
                *BUSY,
                RangeState.READING,
                pid,
                run_id,
                at := self.database.instant(),
                at,
            )
            return _range(book.rows(f"{_RANGES} WHERE plan_id = ? AND partition = ?", plan_id, partition)[0])

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
        with self.database.transaction() as book:
            _change(
                book, plan_id, partition, ", ".join([*changes, "heartbeat_at = ?"]), *values, self.database.instant()
            )
            self._record(book, plan_id, partition, counts)

    def beat(self, plan_id: str, partitions: Iterable[str]) -> None:
        """The ranges of this process are alive."""
        alive = tuple(partitions)
        if alive:
            with self.database.transaction() as book:
                book.change(
                    f"UPDATE range SET heartbeat_at = ? WHERE plan_id = ? AND partition IN {places(alive)}",
                    self.database.instant(), plan_id, *alive,
                )  # fmt: skip

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
        ]
        is_done, at = state is RangeState.DONE, self.database.instant()
        if is_done:
            changes.append("is_repair = 0")
        with self.database.transaction() as book:
            _change(
                book, plan_id, partition, ", ".join(changes),
                *values, error, int(failed_attempt), at, at if is_done else None,
            )  # fmt: skip
            self._record(book, plan_id, partition, counts)

    def know_run(self, plan_id: str, run_id: str) -> None:
        """A run of an orchestrator has come this far, so that whatever becomes of it is told here."""
        with self.database.transaction() as book:
            know_run(book, plan_id, run_id)

    def known_runs(self, plan_id: str) -> frozenset[str]:
        """Runs of an orchestrator that came as far as the book."""
        return frozenset(
            row["run_id"] for row in self.database.rows("SELECT run_id FROM run WHERE plan_id = ?", plan_id)
        )

    def hold(self, plan_id: str, partition: str) -> None:
        """A person cancelled the range: nothing is started for it until a person does."""
        with self.database.transaction() as book:
            _change(book, plan_id, partition, "state = ?", RangeState.HELD)

    def give_up(self, plan_id: str, partition: str, reason: str) -> None:
        with self.database.transaction() as book:
            _change(book, plan_id, partition, "state = ?, error = ?", RangeState.GIVEN_UP, reason)

    def rearm(self, plan_id: str, partitions: Collection[str] | None = None) -> None:
        """Gives ranges that nobody works on new attempts, as a person wants it.

        ``None`` means those held, given up, failed or killed.
        """
        stuck = (RangeState.HELD, RangeState.GIVEN_UP, *BUSY)
        with self.database.transaction(alone=True) as book:
            if partitions is None:
                rows = book.rows(
                    f"SELECT partition FROM range WHERE plan_id = ? AND state IN {places((*stuck, RangeState.FAILED))}",
                    plan_id, *stuck, RangeState.FAILED,
                )  # fmt: skip
                partitions = [row["partition"] for row in rows]
            for partition in sorted(partitions):
                _change(
                    book, plan_id, partition,
                    "attempts = 0, rearmed_at = ?,"
                    f" state = CASE WHEN state NOT IN {places(stuck)} THEN state WHEN runs = 0 THEN ? ELSE ? END",
                    self.database.instant(), *stuck, RangeState.PLANNED, RangeState.FAILED,
                )  # fmt: skip

    def count_repair(self, plan_id: str, partition: str) -> None:
        """The range drifts and is to be repaired once more."""
        with self.database.transaction() as book:
            _change(book, plan_id, partition, "state = ?, repairs = repairs + 1, is_repair = 1", RangeState.DRIFTING)

    def _record(self, book: Transaction, plan_id: str, partition: str, counts: Counts | None) -> None:
        """The rows of each outcome."""
        if counts is None:
            return
        pipeline = self.database.pipeline
        found = [(pipeline, plan_id, partition, outcome, getattr(counts, outcome)) for outcome in OUTCOMES]
        book.change(
            f"INSERT INTO outcome (pipeline, plan_id, partition, outcome, rows) VALUES"
            f" {', '.join([places(found[0])] * len(found))}"
            " ON CONFLICT (plan_id, partition, outcome) DO UPDATE SET rows = excluded.rows",
            *(value for row in found for value in row),
        )


def _change(book: Transaction, plan_id: str, partition: str, assignments: str, *values: object) -> None:
    """Raises ``StateError`` when there is no such range."""
    changed = book.change(
        f"UPDATE range SET {assignments} WHERE plan_id = ? AND partition = ?", *values, plan_id, partition
    )
    if changed != 1:
        raise StateError(f"Night {plan_id} has no range {partition}.", hint="See `sync-pipeline status`.")


def _check_newest(book: Transaction, plan_id: str) -> None:
    later = book.rows(
        "SELECT later.plan_id FROM night JOIN night AS later"
        " ON later.pipeline = night.pipeline AND later.number > night.number WHERE night.plan_id = ? LIMIT 1",
        plan_id,
    )
    if later:
        raise HeldElsewhere(
            f"Night {later[0]['plan_id']} has taken the place of night {plan_id}, of which nothing is run any more.",
            hint="See its ranges with `sync-pipeline status`.",
        )


def _planned(book: Transaction, plan_id: str, partition: str) -> int:
    """The rows counted for the range when its night was planned."""
    found = book.rows("SELECT plan FROM night WHERE plan_id = ?", plan_id)
    planned = Plan.from_json(found[0]["plan"]).range(partition) if found else None
    if planned is None:
        raise StateError(f"Night {plan_id} has no range {partition}.", hint="See `sync-pipeline status`.")
    return planned.expected


def _changes(
    *, state: RangeState | None = None, counts: Counts | None = None, rows_sent: int | None = None
) -> tuple[list[str], list[object]]:
    """Assignments of what is given, and their values."""
    given: dict[str, object] = {}
    if state is not None:
        given["state"] = state
    if counts is not None:
        given |= {"expected": counts.expected, "staged": counts.staged}
    if rows_sent is not None:
        given["rows_sent"] = rows_sent
    return [f"{name} = ?" for name in given], list(given.values())


def _range(row: Row) -> RangeEntry:
    return RangeEntry(
        partition=row["partition"],
        place=row["place"],
        state=RangeState(row["state"]),
        counts=Counts(**{name: row[name] for name in ("expected", "staged", *OUTCOMES)}),
        runs=row["runs"],
        attempts=row["attempts"],
        generation=row["generation"],
        repairs=row["repairs"],
        is_repair=bool(row["is_repair"]),
        pid=row["pid"],
        started_at=instant_of(row["started_at"]),
        heartbeat_at=instant_of(row["heartbeat_at"]),
        finished_at=instant_of(row["finished_at"]),
        error=row["error"],
        rows_sent=row["rows_sent"],
        run_id=row["run_id"],
        rearmed_at=instant_of(row["rearmed_at"]),
    )
