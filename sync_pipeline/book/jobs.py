"""Ingest jobs from the intent to create one to its outcomes."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from sync_pipeline.book.database import Noun, Row
from sync_pipeline.domain.errors import StateError
from sync_pipeline.domain.ledger import IngestJob
from sync_pipeline.domain.night import JobEntry

OVER: Final = ("accounted", "dropped")


class Jobs(Noun):
    def intend_job(
        self, plan_id: str, partition: str, *, generation: int, part: int, round: int, rows: int, serial: bool
    ) -> int:
        """A job is about to be created for this part; returns the number of the entry."""
        with self.database.transaction() as book:
            (made,) = book.rows(
                "INSERT INTO job (pipeline, plan_id, partition, generation, part, round, rows, serial, intended_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING intent",
                self.database.pipeline, plan_id, partition, generation, part, round, rows, int(serial),
                self.database.instant(),
            )  # fmt: skip
            return int(made["intent"])

    def job_created(self, intent: int, job_id: str) -> None:
        """The org has made the job. Raises ``StateError`` when nobody intended it."""
        with self.database.transaction() as book:
            if book.change("UPDATE job SET job_id = ?, state = 'Open' WHERE intent = ?", job_id, intent) != 1:
                raise StateError(
                    f"Job {job_id} belongs to no intent of the book.", hint="Was SYNC_HOME cleared meanwhile?"
                )

    def job_seen(self, intent: int, job: IngestJob) -> None:
        """The job as the org describes it now. An entry that is over stays as it is."""
        with self.database.transaction() as book:
            book.change(
                "UPDATE job SET state = ?, processed = ?, failed = ?, retries = ?, error = ?"
                " WHERE intent = ? AND state NOT IN (?, ?)",
                job.state,
                job.processed,
                job.failed,
                job.retries,
                job.error,
                intent,
                *OVER,
            )

    def job_over(self, intent: int, state: Literal["accounted", "dropped"]) -> None:
        """The job's outcomes are recorded, or nobody waits for them any more."""
        with self.database.transaction() as book:
            book.change("UPDATE job SET state = ? WHERE intent = ?", state, intent)

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
        rows = self.database.rows(f"SELECT * FROM job WHERE {' AND '.join(conditions)} ORDER BY intent", *values)
        return [_job(row) for row in rows]

    def knows_job(self, job_id: str) -> bool:
        """Some night has an entry for this job."""
        return bool(self.database.rows("SELECT 1 FROM job WHERE job_id = ? LIMIT 1", job_id))


def _job(row: Row) -> JobEntry:
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
