"""Conditions that somebody is told of: what fails, and the notes that recipients still wait for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sync_pipeline.book.database import Noun


class Conditions(Noun):
    def conditions(self) -> dict[str, dict[str, Any]]:
        """Conditions by name, each with what was said of it and to whom."""
        return {
            row["name"]: json.loads(row["state"]) for row in self.database.rows("SELECT name, state FROM condition")
        }

    def change_condition(self, name: str, change: Callable[[dict[str, Any] | None], Mapping[str, Any]]) -> None:
        """Hands the state of a condition, ``None`` for a new one, to ``change`` and keeps what that returns.

        All in one transaction: two processes that find the same news do not both act on it.
        """
        with self.database.transaction(alone=True) as book:
            found = book.rows("SELECT state FROM condition WHERE name = ?", name)
            state = change(json.loads(found[0]["state"]) if found else None)
            document = json.dumps(dict(state), ensure_ascii=False)
            book.change(
                "INSERT INTO condition VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET state = excluded.state",
                name, document,
            )  # fmt: skip
