"""Rows that clients trip over, and how the org's own store holds them: not what an answer of it says they are."""

from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl

from sync_pipeline.simulated_org.objects import find_object
from sync_pipeline.simulated_org.records import Records
from sync_pipeline.simulated_org.state import Org

NAMES = (
    'He said "no", twice', "two\nlines", "semi;colon, comma", "=1+1", "'single'", "\\back\\slash\\", "tab\there", "東京支店",
    "Данные", "שלום עולם", "cafe\N{COMBINING ACUTE ACCENT}", "Launch 🚀", "\N{MATHEMATICAL FRAKTUR CAPITAL U}nicode",
    '""', "#not n/a", "null", "NaN", "1.0", "2026-01-01", "a" * 120, "non\N{NO-BREAK SPACE}breaking", "x\N{ZERO WIDTH SPACE}y",
)  # fmt: skip
AMOUNTS = ("0.01", "12345678.5", "1234567.89", "-7.25", "999999999999.99", "0", "100", "")
DATES = ("1700-01-01", "1969-12-31", "2000-02-29", "2026-12-31", "4000-12-31")
STAGES = ("Prospecting", "Qualification", "Id. Decision Makers", "Proposal/Price Quote", "Closed Won")
FIELDS = ("External_ID__c", "Name", "StageName", "CloseDate", "Amount", "Description", "NextStep")
REFUSED_EVERY = 50
"""One row in so many has a stage that there is not."""


def odd_rows(prefix: str, count: int) -> list[dict[str, str]]:
    """Rows as a client is given them: texts by field. Blanks at the ends of a name are there to be trimmed."""
    rows = []
    for number in range(count):
        is_refused = number % REFUSED_EVERY == REFUSED_EVERY - 1
        rows.append(
            {
                "External_ID__c": f"{prefix}{number:05d}/{'ä' if number % 3 else 'b c'}",
                "Name": f"  {name} " if len(name := NAMES[number % len(NAMES)]) < 100 and number % 7 == 0 else name,
                "StageName": "Nonsense" if is_refused else STAGES[number % len(STAGES)],
                "CloseDate": DATES[number % len(DATES)],
                "Amount": AMOUNTS[number % len(AMOUNTS)],
                "Description": ("line\nof text, " * 150)[: number * 7 % 2_000].strip(),
                "NextStep": "#N/A" if number % 5 == 0 else f"step {number}",
            }
        )
    return rows


def is_refused(row: dict[str, str]) -> bool:
    return row["StageName"] == "Nonsense"


def meant(rows: list[dict[str, str]]) -> dict[str, tuple[Any, ...]]:
    """What the org must hold of these rows, by key: nothing of those that it refuses."""
    return {
        row["External_ID__c"]: (
            row["Name"].strip(" "),
            row["StageName"],
            date.fromisoformat(row["CloseDate"]),
            float(row["Amount"]) if row["Amount"] else None,
            row["Description"] or None,
            None if row["NextStep"] == "#N/A" else row["NextStep"],
        )
        for row in rows
        if not is_refused(row)
    }


def held(org: Org, prefix: str) -> dict[str, tuple[Any, ...]]:
    """What the org holds of the rows whose keys begin so: read from its own store, past every API."""
    sobject = find_object(org, "Opportunity")
    assert sobject is not None
    frames = Records(org, sobject).frames(FIELDS)
    rows = [
        row for frame in frames for row in frame.filter(pl.col("External_ID__c").str.starts_with(prefix)).iter_rows()
    ]
    found = {row[0]: row[1:] for row in rows}
    assert len(found) == len(rows), "a key is there twice"
    return found
