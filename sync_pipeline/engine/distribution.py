"""Rows of both sides by the value of one field, side by side: the oldest proof there is, and one that people can read.

It counts and compares nothing row by row, so that it is shown beside a verdict and never makes one: rows that were
rejected, orphans, and a source that has moved on all show in it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

import polars as pl

from sync_pipeline.domain.errors import RequestRefused, WireError
from sync_pipeline.domain.mapping import FieldMapping, FieldType
from sync_pipeline.engine.equality import TRIMMED, TRUTHS, Equality
from sync_pipeline.engine.walls import Walls

log = logging.getLogger(__name__)


def distribution(walls: Walls, equality: Equality) -> dict[str, Any] | None:
    """``field``, ``rows`` (value, rows of the source, rows of the org; largest first) and a ``note``.

    ``None`` when no field is wanted or the mapping does not fill it. Counts that the org or the source refuses, because
    there are too many values or rows, leave ``rows`` empty and are told in the note. Four API calls.
    """
    mapped = _wanted(walls)
    if mapped is None:
        return None
    try:
        source, from_source = _canonical(walls.data_cloud.count_by(mapped.source), mapped, equality, is_present=False)
        org, from_org = _canonical(walls.soql.count_by(mapped.target), mapped, equality, is_present=True)
    except (RequestRefused, WireError) as error:
        walls.interruption.check()
        log.warning("rows are not counted by %s: %s", mapped.target, error.message)
        return {"field": mapped.target, "rows": [], "note": f"not counted: {error.message}"}
    shown = from_source | from_org  # as the org writes it, where it has it
    values = sorted(shown, key=lambda value: (-max(source[value], org[value]), shown[value]))
    return {
        "field": mapped.target,
        "rows": [[shown[value], source[value], org[value]] for value in values],
        "note": "every row with a key, on both sides",
    }


def _wanted(walls: Walls) -> FieldMapping | None:
    name = walls.policy.distribution.lower()
    return next((mapped for mapped in walls.mapping.fields if mapped.target.lower() == name), None)


def _canonical(
    counts: Mapping[str, int], mapped: FieldMapping, equality: Equality, *, is_present: bool
) -> tuple[Counter[str], dict[str, str]]:
    """The same counts with values that are equal for Salesforce taken together, by their canonical form, and how each is
    shown: a text as it is written. Null is empty text."""
    values = pl.Series(list(counts), dtype=pl.String).replace("", None)
    told = equality.canonical_values(values, mapped, is_present=is_present).cast(pl.String).fill_null("")
    if mapped.type is FieldType.BOOLEAN:
        told = told.replace({str(number): word for word, number in TRUTHS.items()})
    found, shown = Counter[str](), dict[str, str]()
    for value, written, rows in zip(told, counts, counts.values(), strict=True):
        found[value] += rows
        shown.setdefault(value, written.strip(TRIMMED) if mapped.type is FieldType.TEXT else value)
    return found, shown
