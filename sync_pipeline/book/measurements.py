"""Measurements and verdicts: the night holds the newest of each, the history all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Final

from sync_pipeline.book.database import Noun, written
from sync_pipeline.book.nights import change_night, know_run
from sync_pipeline.domain.ledger import Verdict
from sync_pipeline.domain.night import Measurement

RUNS: Final = "(SELECT coalesce(sum(runs), 0) FROM range WHERE range.plan_id = night.plan_id)"
"""In a statement on ``night``: the runs of all its ranges that have begun so far."""


class Measurements(Noun):
    def begin_measure(self, plan_id: str, *, run_id: str = "") -> None:
        """A measurement has begun. One before it that never ended was killed: only whoever holds the lock begins one."""
        with self.database.transaction(alone=True) as book:
            know_run(book, plan_id, run_id)
            change_night(
                book, plan_id,
                "measure_tries = measure_tries + CASE WHEN measuring_since IS NULL THEN 0 ELSE 1 END,"
                " measuring_since = ?, measure_seen_at = ?,"
                f" measure_run_id = ?, measuring_runs = {RUNS}",
                at := self.database.instant(), at, run_id,
            )  # fmt: skip

    def end_measure(self, plan_id: str) -> None:
        """The measurement has ended, however it did."""
        with self.database.transaction() as book:
            change_night(
                book,
                plan_id,
                "measuring_since = NULL, measuring_runs = NULL, measure_seen_at = ?",
                self.database.instant(),
            )

    def record_measurement(self, plan_id: str, measurement: Measurement) -> None:
        document = _document(measurement)
        with self.database.transaction(alone=True) as book:
            change_night(
                book,
                plan_id,
                f"measurement = ?, measure_tries = 0, measured_runs = coalesce(measuring_runs, {RUNS})",
                document,
            )
            book.change(
                "INSERT INTO measurement (plan_id, recorded_at, measurement) VALUES (?, ?, ?)",
                plan_id,
                self.database.instant(),
                document,
            )

    def record_measure_failure(self, plan_id: str, error: str) -> None:
        """A measurement failed; the night keeps the one before it."""
        with self.database.transaction(alone=True) as book:
            change_night(book, plan_id, "measure_tries = measure_tries + 1")
            book.change(
                "INSERT INTO measurement (plan_id, recorded_at, error) VALUES (?, ?, ?)",
                plan_id,
                self.database.instant(),
                error,
            )

    def measure_failure(self, plan_id: str) -> str:
        """Why the newest measurement of the night failed; empty when it did not, or none has ended."""
        rows = self.database.rows(
            "SELECT error FROM measurement WHERE plan_id = ? ORDER BY number DESC LIMIT 1", plan_id
        )
        return str(rows[0]["error"] or "") if rows else ""

    def record_verdict(self, plan_id: str, verdict: Verdict, *, reasons: Sequence[str] = (), seconds: float) -> None:
        """How the night ended; a later verdict takes the place of this one, which stays in the history."""
        document = json.dumps(list(reasons), ensure_ascii=False)
        with self.database.transaction(alone=True) as book:
            change_night(
                book, plan_id,
                f"verdict = ?, verdict_at = ?, verdict_reasons = ?, verdict_runs = {RUNS}, seconds = ?, measure_tries = 0",
                verdict, self.database.instant(), document, seconds,
            )  # fmt: skip
            book.change(
                "INSERT INTO verdict (plan_id, recorded_at, verdict, reasons, seconds) VALUES (?, ?, ?, ?, ?)",
                plan_id,
                self.database.instant(),
                verdict,
                document,
                seconds,
            )

    def clear_verdict(self, plan_id: str) -> None:
        """The night is open again; the history keeps its verdict."""
        with self.database.transaction() as book:
            change_night(
                book, plan_id, "verdict = NULL, verdict_at = NULL, verdict_reasons = '[]', verdict_runs = NULL"
            )

    def verdicts(self, plan_id: str) -> list[tuple[datetime, Verdict, tuple[str, ...]]]:
        """Every verdict the night ever had, oldest first."""
        rows = self.database.rows("SELECT * FROM verdict WHERE plan_id = ? ORDER BY number", plan_id)
        return [
            (datetime.fromisoformat(row["recorded_at"]), Verdict(row["verdict"]), tuple(json.loads(row["reasons"])))
            for row in rows
        ]


def _document(measurement: Measurement) -> str:
    document = asdict(measurement) | {"measured_at": written(measurement.measured_at)}
    return json.dumps(document, ensure_ascii=False, default=str)
