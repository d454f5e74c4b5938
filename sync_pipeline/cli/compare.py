"""Verbs that compare without changing anything: plan (what a night would do) and reconcile (source against org, now)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sync_pipeline.cli.report import show_measurement
from sync_pipeline.cli.terminal import Terminal, cell, duration, printable
from sync_pipeline.domain.ledger import Counts
from sync_pipeline.domain.night import Measurement, NightEntry, RangeEntry
from sync_pipeline.domain.plan import OrgIdentity, Plan, new_plan_id
from sync_pipeline.engine.planning import check_forecast, make_plan, plan_night
from sync_pipeline.engine.reconciliation import measure


def plan(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """What a new night would do. Keeps nothing and writes nothing to the org."""
    with terminal.walls() as walls:
        planned, duplicates = plan_night(walls, plan_id=new_plan_id(walls.now()))
        shortages = check_forecast(planned, walls.policy)
    if terminal.is_json:
        terminal.document(_plan_document(planned) | {"shortages": shortages})
    else:
        _show_plan(terminal, planned, duplicates.height)
        for reason in shortages:
            terminal.print(f"Not enough: {printable(reason)}")
    return 1 if shortages else 0


def _plan_document(planned: Plan) -> dict[str, Any]:
    forecast = planned.forecast
    return {
        "org": str(planned.org),
        "dataspace": planned.org.dataspace,
        "source": planned.source_object,
        "target": planned.target_object,
        "expected": planned.expected,
        "profile": asdict(planned.profile),
        "ranges": [
            {
                "partition": planned_range.partition,
                "after": planned_range.range.after,
                "through": planned_range.range.through,
                "expected": planned_range.expected,
            }
            for planned_range in planned
        ],
        "forecast": asdict(forecast) if forecast is not None else None,
        "notes": list(planned.notes),
    }


def _show_plan(terminal: Terminal, planned: Plan, duplicated_keys: int) -> None:
    profile, forecast = planned.profile, planned.forecast
    terminal.print(f"{printable(str(planned.org))}: {planned.source_object} to {planned.target_object}")
    terminal.print(
        f"{profile.rows:,} rows, {profile.distinct_keys:,} distinct keys, {profile.null_keys:,} without a key, "
        f"{duplicated_keys:,} keys that the target matches with another row's"
    )
    terminal.print()
    terminal.table(
        ("range", "after", "through", "expected"),
        (
            (r.partition, "(start)" if r.range.after is None else r.range.after,
             "(end)" if r.range.through is None else r.range.through, r.expected)
            for r in planned
        ),
        totals=("total", "", "", planned.expected),
    )  # fmt: skip
    terminal.print()
    if forecast is not None:
        terminal.print(
            f"Forecast: {forecast.api_calls:,} API calls of {cell(forecast.api_calls_left)} left, "
            f"{forecast.ingest_batches:,} ingest batches of {cell(forecast.ingest_batches_left)} left, "
            f"{cell(forecast.storage_mb)} MB of data storage of {cell(forecast.storage_mb_left)} left, "
            f"{forecast.disk_bytes / 1e6:,.0f} MB of disk, about {duration(forecast.seconds)}"
        )
    for note in planned.notes:
        terminal.print(printable(note))


def reconcile(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Source and org compared as they are now. Writes nothing, neither to the org nor to the book."""
    with terminal.walls() as walls:
        walls.mapping.check_comparable(walls.soql.describe())
        night = walls.book.newest()
        if night is not None:
            night.plan.check_belongs(walls.org, walls.mapping)
            planned = night.plan
        else:
            planned, _ = make_plan(walls, plan_id=new_plan_id(walls.now()), previous=None)
        found = measure(walls, planned.plan_id, against="source", record=False, plan=planned, on_event=terminal.say)
        entries = walls.book.ranges(planned.plan_id)
        org = walls.org
    if terminal.is_json:
        terminal.document(_found_document(org, night, planned, entries, found))
    else:
        terminal.print(f"{printable(str(org))}: source and org as they are now")
        names = ("expected", *FOUND)
        terminal.table(
            ("range", *names),
            ((partition, *(rows.get(name) for name in names)) for partition, rows in found.by_range.items()),
        )
        terminal.print()
        show_measurement(terminal, found)
        terminal.print(ENDINGS[_state(found)])
    return 0 if _state(found) in ("equal", "changed since") else 1


FOUND = ("present", "missing", "different", "doubled", "orphans")
DRIFT = ("missing", "different", "doubled")

ENDINGS = {
    "equal": "Equal.",
    "changed since": "Equal but for rows that changed at the source since they were staged; the next night brings them.",
    "nothing compared": "Nothing was compared: the source has no row that could be sent, and the org holds some. Next: see "
    "that the run-as user may read the source object in this data space, and that its name and key are right.",
    "drift": "Drift: source and org differ. Next: send what is missing or different with `sync-pipeline sync`",
}


def _state(found: Measurement) -> str:
    if not found.is_equal:
        return "drift"
    if not found.expected and found.present != 0:
        return "nothing compared"
    return "changed since" if found.changed_since else "equal"


def _found_document(
    org: OrgIdentity, night: NightEntry | None, planned: Plan, entries: Sequence[RangeEntry], found: Measurement
) -> dict[str, Any]:
    """The public JSON, with this moment's comparison in place of the night's own: what is expected, present, missing,
    different or orphaned is told of now; the other counts are those of the newest night, or null without one."""
    by_partition = {entry.partition: entry.counts.to_json() for entry in entries}
    nothing = dict.fromkeys(Counts().to_json())
    totals = sum((entry.counts for entry in entries), Counts()).to_json() if night is not None else nothing
    return {
        "plan_id": night.plan_id if night is not None else None,
        "org": str(org),
        "verdict": night.verdict.value if night is not None and night.verdict is not None else None,
        "state": _state(found),
        "totals": {**totals, "expected": found.expected, **{name: getattr(found, name) for name in FOUND}},
        "api_calls": night.api_calls if night is not None else None,
        "seconds": round(found.seconds, 3),
        "ranges": [
            {
                "partition": planned_range.partition,
                "after": planned_range.range.after,
                "through": planned_range.range.through,
                "state": _state_of_range(found.by_range.get(planned_range.partition, {})),
                **by_partition.get(planned_range.partition, nothing),
                **{name: found.by_range.get(planned_range.partition, {}).get(name) for name in ("expected", *FOUND)},
            }
            for planned_range in planned
        ],
        "level": found.level,
        "changed_since": found.changed_since,
        "sample": list(found.sample),
    }


def _state_of_range(counted: Mapping[str, int]) -> str | None:
    """``None`` where the level does not tell."""
    if "missing" not in counted:
        return None
    return "drift" if any(counted.get(name) for name in DRIFT) else "equal"
