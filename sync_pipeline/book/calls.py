"""API calls of a night by endpoint."""

from __future__ import annotations

from collections.abc import Mapping

from sync_pipeline.book.database import Noun


class Calls(Noun):
    def add_calls(self, plan_id: str, calls: Mapping[str, int]) -> None:
        """Adds calls by endpoint to what the night used so far."""
        with self.database.transaction() as book:
            for endpoint, times in sorted(calls.items()):  # in one order, so that two lanes never wait for each other
                book.change(
                    "INSERT INTO call VALUES (?, ?, ?)"
                    " ON CONFLICT (plan_id, endpoint) DO UPDATE SET times = call.times + excluded.times",
                    plan_id, endpoint, times,
                )  # fmt: skip

    def calls(self, plan_id: str) -> dict[str, int]:
        """What the night used, by endpoint."""
        rows = self.database.rows("SELECT endpoint, times FROM call WHERE plan_id = ?", plan_id)
        return dict(sorted((row["endpoint"], row["times"]) for row in rows))
