"""What stands at the end: one honest table of a night, what was measured in the org, and the verdict with the next step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sync_pipeline.cli.progress import totals
from sync_pipeline.cli.terminal import Cell, Terminal, duration, printable
from sync_pipeline.domain.ledger import RangeState, Verdict
from sync_pipeline.domain.night import Measurement, NightEntry, RangeEntry

SAMPLE_SHOWN = 5
"""Rows that differ, shown under the measurement."""
VALUES_SHOWN = 12
"""Values of the field by which both sides are counted."""

HEAD = (
    "range", "expected", "staged", "succeeded", "created", "updated", "failed", "unprocessed", "quarantined", "state",
)  # fmt: skip


def show_night(terminal: Terminal, night: NightEntry, ranges: Sequence[RangeEntry], now: datetime) -> None:
    """The whole report of a night on stdout."""
    plan = night.plan
    total = totals(ranges)
    terminal.print(f"Night {night.plan_id} of {printable(str(plan.org))}: {plan.source_object} to {plan.target_object}")
    terminal.print()
    terminal.table(HEAD, (_row(entry) for entry in ranges), totals=_totals(ranges))
    terminal.print()
    show_measurement(terminal, night.measurement)
    seconds = seconds_of(night, now)
    rate = f", {total.succeeded / seconds:,.0f} rows/s" if seconds and total.succeeded else ""
    terminal.print(f"API calls: {night.api_calls:,}   time: {duration(seconds)}{rate}")
    terminal.print()
    show_ending(terminal, night, ranges)


def show_measurement(terminal: Terminal, measurement: Measurement | None) -> None:
    """What the org holds, as far as it was looked at."""
    if measurement is None:
        terminal.print("Reconciliation: the org was not measured yet.")
        return
    if measurement.error:
        terminal.print(f"Reconciliation failed: {printable(measurement.error)}")
        return
    found = {
        "present": measurement.present,
        "missing": measurement.missing,
        "different": measurement.different,
        "orphans": measurement.orphans,
    }
    parts = [f"{name} {'not measured' if rows is None else f'{rows:,}'}" for name, rows in found.items()]
    more = {"doubled": measurement.doubled, "changed since": measurement.changed_since, "fresh": measurement.fresh}
    parts += [f"{name} {rows:,}" for name, rows in more.items() if rows]
    terminal.print(f"Reconciliation by {measurement.level}: {', '.join(parts)} ({duration(measurement.seconds)})")
    if measurement.reasons:
        told = ", ".join(f"{reason} {rows:,}" for reason, rows in measurement.reasons.items())
        terminal.print(f"Not in the org as in the source: {told}")
    for row in measurement.sample[:SAMPLE_SHOWN]:
        told = ", ".join(f"{name} {printable(str(value))}" for name, value in row.items() if value not in (None, ""))
        terminal.print(f"  {told}")
    show_distribution(terminal, measurement.distribution)


def show_distribution(terminal: Terminal, spread: Mapping[str, Any] | None) -> None:
    """Rows by the value of one field, source and org side by side."""
    if spread is None:
        return
    rows = [(value or "(null)", source, org) for value, source, org in spread["rows"]]
    terminal.print()
    if rows:
        terminal.table((spread["field"], "source", "org"), rows[:VALUES_SHOWN])
    else:
        terminal.print(f"{spread['field']}: {printable(spread['note'])}")
    if len(rows) > VALUES_SHOWN:
        terminal.print(f"... and {len(rows) - VALUES_SHOWN:,} more values, see `sync-pipeline certificate`")
    terminal.print()


def show_ending(terminal: Terminal, night: NightEntry, ranges: Sequence[RangeEntry]) -> None:
    """The verdict or where the night stands, everything that keeps it from being clean, and what to do next."""
    if night.verdict is not None:
        terminal.print(night.verdict.sentence)
        for reason in night.verdict_reasons:
            terminal.print(f"  {printable(reason)}")
    elif night.stop_requested_at is not None:
        terminal.print("Stopped. What is saved and staged is kept.")
    elif night.parked_until is not None:
        terminal.print(f"Parked until {night.parked_until:%Y-%m-%d %H:%M} UTC: {printable(night.parked_reason)}")
    else:
        terminal.print("The night is unfinished. What is saved and staged is kept.")
    for entry in ranges:
        is_told = night.parked_until is not None and entry.state is RangeState.PARKED  # by what is short now
        if entry.error and not is_told and entry.state is not RangeState.DONE and night.verdict is None:
            terminal.print(f"  range {entry.partition} is {entry.state.value}: {printable(entry.error)}")
    for step in next_steps(night, ranges):
        terminal.print(f"Next: {step}")


def next_steps(night: NightEntry, ranges: Sequence[RangeEntry]) -> list[str]:
    """Commands that lead on from here; none when there is nothing left to do."""
    steps = []
    if totals(ranges).rejected:
        steps.append("see the rows that did not get through with `sync-pipeline rejects --csv FILE`")
    if any(entry.state in (RangeState.HELD, RangeState.GIVEN_UP) for entry in ranges):
        steps.append("run what was held or given up again with `sync-pipeline restart --failed`")
    elif night.verdict is None and night.stop_requested_at is not None:
        steps.append("go on with `sync-pipeline restart`")
    elif night.verdict is None and night.parked_until is not None:
        steps.append("go on later with `sync-pipeline sync`, or wait for headroom with `sync-pipeline sync --wait`")
    elif night.verdict is None:
        steps.append("go on with `sync-pipeline sync`")
    if night.verdict in (Verdict.NOT_RECONCILED, Verdict.UNPROVEN):
        steps.append("compare source and org as they are now with `sync-pipeline reconcile`")
    return steps


def seconds_of(night: NightEntry, now: datetime) -> float:
    """How long the night took, or has taken so far."""
    return night.seconds if night.verdict is not None else (now - night.opened_at).total_seconds()


def _row(entry: RangeEntry) -> list[Cell]:
    return [entry.partition, *entry.counts.to_json().values(), entry.state.value]


def _totals(ranges: Sequence[RangeEntry]) -> list[Cell]:
    return ["total", *totals(ranges).to_json().values(), f"{len(ranges)} ranges"]
