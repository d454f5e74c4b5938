"""The head of the chain of certificates."""

from __future__ import annotations

import json

from sync_pipeline.book.database import Noun


class Certificates(Noun):
    def certificate_head(self) -> tuple[int, str] | None:
        """Number and hash of the newest certificate that was issued; ``None`` before the first."""
        rows = self.database.rows("SELECT value FROM fact WHERE name = 'certificate'")
        number, sha256 = json.loads(rows[0]["value"]) if rows else (0, "")
        return (number, sha256) if rows else None

    def record_certificate(self, number: int, sha256: str) -> None:
        """A certificate was issued: whoever takes it away or writes it anew must change the book as well."""
        with self.database.transaction() as book:
            book.change(
                "INSERT INTO fact VALUES ('certificate', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                json.dumps([number, sha256]),
            )
