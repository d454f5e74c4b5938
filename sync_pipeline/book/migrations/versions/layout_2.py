"""Layout 2: outcomes are rows, so that a new one needs no new column; nights, ranges and jobs name their pipeline."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "2"
down_revision = "1"

PIPELINE: Final = "opportunity"
"""The one pipeline of every book of layout 1."""
OUTCOMES: Final = ("created", "updated", "failed", "unprocessed", "quarantined", "set_aside")
"""The columns of layout 1 that become rows."""
WORDS: Final = {"sqlite": ("INTEGER", " STRICT"), "postgresql": ("BIGINT", "")}


def upgrade() -> None:
    connection = op.get_bind()
    integer, strict = WORDS[connection.dialect.name]
    connection.exec_driver_sql(
        f"""
        CREATE TABLE outcome (
            pipeline TEXT NOT NULL,
            plan_id TEXT NOT NULL,
            partition TEXT NOT NULL,
            outcome TEXT NOT NULL,
            rows {integer} NOT NULL,
            PRIMARY KEY (plan_id, partition, outcome),
            FOREIGN KEY (plan_id, partition) REFERENCES range (plan_id, partition)
        ){strict}
        """
    )
    for outcome in OUTCOMES:
        connection.exec_driver_sql(
            f"INSERT INTO outcome SELECT '{PIPELINE}', plan_id, partition, '{outcome}', {outcome} FROM range"
            f" WHERE {outcome} <> 0"
        )
        connection.exec_driver_sql(f"ALTER TABLE range DROP COLUMN {outcome}")
    for table in ("night", "range", "job"):
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN pipeline TEXT NOT NULL DEFAULT '{PIPELINE}'")
    connection.exec_driver_sql("UPDATE fact SET value = '2' WHERE name = 'layout'")
