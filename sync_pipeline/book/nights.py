"""Nights: their plans, and the switches that a night is stopped and parked by."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sync_pipeline.book.database import Noun, Row, Transaction, instant_of, written
from sync_pipeline.domain.errors import StateError
from sync_pipeline.domain.ledger import RangeState, Verdict
from sync_pipeline.domain.night import Measurement, NightEntry
from sync_pipeline.domain.plan import Plan

_NIGHTS: Final = """
    SELECT night.*, (SELECT CAST(coalesce(sum(times), 0) AS BIGINT) FROM call WHERE call.plan_id = night.plan_id) AS api_calls
    FROM night
"""


class Nights(Noun):
    def open_night(self, plan: Plan, *, check: Callable[[], None] = lambda: None) -> None:
        """Writes down a new night with all of its ranges, planned. Raises ``StateError`` if there is one of that id.

        ``check`` is called while no run can begin, and may refuse by raising.
        """
        with self.database.transaction(alone=True) as book:
            check()
            if book.rows("SELECT 1 FROM night WHERE plan_id = ?", plan.plan_id):
                raise StateError(f"There is a night {plan.plan_id} already.", hint="Plan again.")
            book.change(
                "INSERT INTO night (pipeline, plan_id, plan, opened_at) VALUES (?, ?, ?, ?)",
                self.database.pipeline, plan.plan_id, plan.to_json(), self.database.instant(),
            )  # fmt: skip
            for r in plan.ranges:
                book.change(
                    "INSERT INTO range (pipeline, plan_id, partition, place, state, expected) VALUES (?, ?, ?, ?, ?, ?)",
                    self.database.pipeline, plan.plan_id, r.partition, r.place, RangeState.PLANNED, r.expected,
                )  # fmt: skip

    def newest(self) -> NightEntry | None:
        """The night that was opened last."""
        nights = self.nights(limit=1)
        return nights[0] if nights else None

    def is_newest(self, plan_id: str) -> bool:
        """No night was opened after this one."""
        rows = self.database.rows(
            "SELECT plan_id FROM night WHERE pipeline = ? ORDER BY number DESC LIMIT 1", self.database.pipeline
        )
        return bool(rows) and rows[0]["plan_id"] == plan_id

    def night(self, plan_id: str) -> NightEntry | None:
        rows = self.database.rows(f"{_NIGHTS} WHERE plan_id = ?", plan_id)
        return _night(rows[0]) if rows else None

    def nights(self, limit: int = 20) -> list[NightEntry]:
        """The newest nights, newest first."""
        rows = self.database.rows(
            f"{_NIGHTS} WHERE pipeline = ? ORDER BY number DESC LIMIT ?", self.database.pipeline, limit
        )
        return [_night(row) for row in rows]

    def request_stop(self, plan_id: str) -> None:
        self._set_night(plan_id, "stop_requested_at = coalesce(stop_requested_at, ?)", self.database.instant())

    def lift_stop(self, plan_id: str) -> None:
        self._set_night(plan_id, "stop_requested_at = NULL")

    def is_stopped(self, plan_id: str) -> bool:
        return bool(
            self.database.rows("SELECT 1 FROM night WHERE plan_id = ? AND stop_requested_at IS NOT NULL", plan_id)
        )

    def park(self, plan_id: str, *, until: datetime, reason: str) -> None:
        """The night waits until then. Lanes that park it while it is parked make it wait longer, and count once."""
        self._set_night(
            plan_id,
            "parkings = parkings + CASE WHEN parked_until IS NULL OR parked_until <= ? THEN 1 ELSE 0 END,"
            " parked_until = CASE WHEN parked_until > ? THEN parked_until ELSE ? END, parked_reason = ?",
            self.database.instant(),
            written(until),
            written(until),
            reason,
        )

    def unpark(self, plan_id: str) -> None:
        """Something got through, or a person wants it to be tried."""
        self._set_night(plan_id, "parked_until = NULL, parked_reason = '', parkings = 0")

    def _set_night(self, plan_id: str, assignments: str, *values: object) -> None:
        with self.database.transaction() as book:
            change_night(book, plan_id, assignments, *values)


def change_night(book: Transaction, plan_id: str, assignments: str, *values: object) -> None:
    """Raises ``StateError`` when there is no such night."""
    if book.change(f"UPDATE night SET {assignments} WHERE plan_id = ?", *values, plan_id) != 1:
        raise StateError(f"There is no night {plan_id}.", hint="See `sync-pipeline status`.")


def know_run(book: Transaction, plan_id: str, run_id: str) -> None:
    """A run of an orchestrator came as far as the book; a run of the terminal has no name."""
    if run_id:
        book.change("INSERT INTO run VALUES (?, ?) ON CONFLICT DO NOTHING", plan_id, run_id)


def _night(row: Row) -> NightEntry:
    return NightEntry(
        plan=Plan.from_json(row["plan"]),
        opened_at=datetime.fromisoformat(row["opened_at"]),
        stop_requested_at=instant_of(row["stop_requested_at"]),
        parked_until=instant_of(row["parked_until"]),
        parked_reason=row["parked_reason"],
        parkings=row["parkings"],
        verdict=Verdict(row["verdict"]) if row["verdict"] is not None else None,
        verdict_at=instant_of(row["verdict_at"]),
        verdict_reasons=tuple(json.loads(row["verdict_reasons"])),
        verdict_runs=row["verdict_runs"],
        measurement=_measurement(row["measurement"]) if row["measurement"] is not None else None,
        measured_runs=row["measured_runs"],
        measure_tries=row["measure_tries"],
        measuring_since=instant_of(row["measuring_since"]),
        measure_seen_at=instant_of(row["measure_seen_at"]),
        measure_run_id=row["measure_run_id"],
        api_calls=row["api_calls"],
        seconds=row["seconds"],
    )


def _measurement(text: str) -> Measurement:
    document = json.loads(text)
    document |= {
        "measured_at": datetime.fromisoformat(document["measured_at"]),
        "drifting": tuple(document["drifting"]),
        "sample": tuple(document["sample"]),
    }
    return Measurement(**document)
