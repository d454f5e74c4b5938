"""What is checked of a plan, a range and a night, computed once for Dagster's checks, the certificate and the alerts.

Pure: everything comes from what the book holds. A finding that the level of verification cannot tell passes and says
so in its message; it never passes in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from sync_pipeline.domain.errors import PlanRefused
from sync_pipeline.domain.ledger import Counts, RangeState
from sync_pipeline.domain.night import Measurement, NightEntry, RangeEntry
from sync_pipeline.domain.plan import Plan
from sync_pipeline.domain.policy import Policy


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its constant ``name``, whether it passed, a sentence for people, and the numbers behind it."""

    name: str
    passed: bool
    message: str
    severity: Literal["error", "warning"] = "error"
    numbers: dict[str, int | float | str] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    """What keeps a night from being reconciled, one sentence each; none when the check passed."""


def plan_findings(planned: Plan | PlanRefused) -> tuple[Finding, ...]:
    """The check on a plan, or on the refusal to make one."""
    if isinstance(planned, PlanRefused):
        return (Finding("source_plausible", passed=False, message=planned.message),)
    profile = planned.profile
    return (
        Finding(
            "source_plausible",
            passed=True,
            message=f"The source holds {profile.rows} rows in {len(planned.ranges)} ranges.",
            numbers={"rows": profile.rows, "null_keys": profile.null_keys, "distinct_keys": profile.distinct_keys},
        ),
    )


def range_findings(entry: RangeEntry) -> tuple[Finding, ...]:
    """The checks on one range, from its counts in the book."""
    counts = entry.counts
    return (
        Finding(
            "every_staged_row_has_one_outcome",
            passed=counts.adds_up,
            message=f"Range {entry.partition}: {counts.staged} rows staged, {counts.accounted} have an outcome.",
            numbers={"staged": counts.staged, "accounted": counts.accounted},
        ),
        Finding(
            "staged_equals_expected",
            passed=counts.staged == counts.expected,
            message=f"Range {entry.partition}: {counts.expected} rows expected, {counts.staged} staged.",
            numbers={"expected": counts.expected, "staged": counts.staged},
        ),
        Finding(
            "no_row_rejected",
            passed=counts.rejected == 0,
            severity="warning",
            message=f"Range {entry.partition}: {_rejected(counts)}.",
            numbers={
                "rejected": counts.rejected,
                "failed": counts.failed,
                "unprocessed": counts.unprocessed,
                "quarantined": counts.quarantined,
                "set_aside": counts.set_aside,
            },
        ),
    )


def night_findings(night: NightEntry, ranges: Sequence[RangeEntry], policy: Policy) -> tuple[Finding, ...]:
    """The checks on a night, judged by its newest measurement."""
    return (*proof_findings(night, ranges), _api_budget_kept(night, policy), _ended_in_time(night, policy))


def proof_findings(night: NightEntry, ranges: Sequence[RangeEntry]) -> tuple[Finding, ...]:
    """Those of them that the verdict is read from: a night of which one fails is not reconciled."""
    return (
        _every_range_done(ranges),
        _every_row_accounted(night.measurement, ranges),
        _rows_compared(night, ranges),
        _present_equals_expected(night.measurement),
        _values_equal(night.measurement),
    )


def where_to_look(source_object: str, dataspace: str) -> str:
    """What may be wrong when no row of the source comes through, as a sentence."""
    return (
        f"Look at the data space ({dataspace}), at the rights of the run-as user on it and on {source_object}, "
        "at the name of the source object, at its filter, and at the key of the mapping."
    )


def deadline_at(opened_at: datetime, policy: Policy) -> datetime | None:
    """The UTC instant by which a night opened then should end; ``None`` without a deadline.

    The deadline is a local time of day: the first one after the opening.
    """
    if not policy.deadline:
        return None
    zone = ZoneInfo(policy.timezone)
    opened = opened_at.astimezone(zone)
    at = time.fromisoformat(policy.deadline)
    due = datetime.combine(opened.date(), at, tzinfo=zone)
    if due <= opened:
        due = datetime.combine(opened.date() + timedelta(days=1), at, tzinfo=zone)
    return due.astimezone(UTC)


def _every_range_done(ranges: Sequence[RangeEntry]) -> Finding:
    left = [entry for entry in ranges if entry.state is not RangeState.DONE]
    named = ", ".join(f"{entry.partition} is {entry.state.value}" for entry in left)
    return Finding(
        "every_range_done",
        passed=not left,
        message=f"{len(ranges) - len(left)} of {len(ranges)} ranges are done{f': {named}' if left else ''}.",
        numbers={"ranges": len(ranges), "done": len(ranges) - len(left)},
        reasons=tuple(
            f"range {entry.partition} is {entry.state.value}{f': {entry.error}' if entry.error else ''}"
            for entry in left
        ),
    )


def _every_row_accounted(measurement: Measurement | None, ranges: Sequence[RangeEntry]) -> Finding:
    """Counts are held against each other range by range: what one range has too many never makes up for what another one
    lacks. Ranges that are not done have a check of their own, and so what they saved is not held against the org here."""
    reasons: list[str] = []
    for entry in ranges:
        counts, name = entry.counts, f"range {entry.partition}"
        if entry.state is not RangeState.DONE:
            continue
        if counts.staged != counts.expected:
            reasons.append(f"{name}: {counts.expected} rows expected, {counts.staged} staged")
        elif not counts.adds_up:
            reasons.append(f"{name}: {counts.staged} rows staged, {counts.accounted} accounted for")
    total = sum((entry.counts for entry in ranges), Counts())
    is_told = measurement is not None and not measurement.error and all(e.state is RangeState.DONE for e in ranges)
    if measurement is not None and is_told and not reasons and measurement.expected != total.succeeded:
        reasons.append(f"{total.succeeded} rows saved, {measurement.expected} compared")
    return Finding(
        "every_row_accounted",
        passed=not reasons,
        message=f"{'; '.join(reasons)}." if reasons else f"All {total.staged} rows staged are accounted for.",
        numbers={"staged": total.staged, "accounted": total.accounted, "saved": total.succeeded},
        reasons=tuple(reasons),
    )


def _rows_compared(night: NightEntry, ranges: Sequence[RangeEntry]) -> Finding:
    """A night in which no row could be compared proves nothing, unless there is none on either side."""
    name, measurement = "rows_compared", night.measurement
    if measurement is None or measurement.error:
        return Finding(name, passed=False, message=f"The org was not measured{_why(measurement)}.")
    staged = sum(entry.counts.staged for entry in ranges)
    numbers: dict[str, int | float | str] = {"compared": measurement.expected, "staged": staged}
    if measurement.present is not None:
        numbers["present"] = measurement.present
    if measurement.expected:
        return Finding(name, passed=True, message=f"{measurement.expected} rows were compared.", numbers=numbers)
    if not staged and measurement.present == 0:
        return Finding(name, passed=True, message="Neither the source nor the org has any row.", numbers=numbers)
    plan = night.plan
    held = f"{measurement.present} rows with a key" if measurement.present is not None else "rows that were not counted"
    reason = (
        f"no row could be compared: of {staged} rows of the source none was saved, and the org holds {held}. "
        f"{where_to_look(plan.source_object, plan.org.dataspace)}"
    )
    return Finding(name, passed=False, message=reason[0].upper() + reason[1:], numbers=numbers, reasons=(reason,))


def _present_equals_expected(measurement: Measurement | None) -> Finding:
    name = "present_equals_expected"
    if measurement is None or measurement.present is None or measurement.missing is None:
        return Finding(name, passed=False, message=f"The org was not measured{_why(measurement)}.")
    numbers: dict[str, int | float | str] = {
        "level": measurement.level,
        "expected": measurement.expected,
        "present": measurement.present,
        "missing": measurement.missing,
        "doubled": measurement.doubled or 0,
    }
    message = f"{measurement.expected} rows belong in the org, {measurement.missing} of them are missing"
    if measurement.orphans is None:
        message += "; counted only, so a lost row and a row of the org's own cancel out"
    else:
        numbers["orphans"] = measurement.orphans
        message += f"; {measurement.orphans} more are only in the org"
    if measurement.doubled:
        message += f"; {measurement.doubled} keys are there more than once"
    reasons = []
    if measurement.missing:
        reasons.append(f"{measurement.missing} rows are missing in the org")
    if measurement.doubled:
        reasons.append(f"{measurement.doubled} keys are in the org more than once")
    return Finding(name, passed=not reasons, message=f"{message}.", numbers=numbers, reasons=tuple(reasons))


def _values_equal(measurement: Measurement | None) -> Finding:
    name = "values_equal"
    if measurement is None or measurement.error:
        return Finding(name, passed=False, message=f"The org was not measured{_why(measurement)}.")
    if measurement.different is None:
        return Finding(
            name,
            passed=True,
            severity="warning",
            message=f"Not told: the org was measured by {measurement.level}, and values were not compared.",
            numbers={"level": measurement.level},
        )
    return Finding(
        name,
        passed=measurement.different == 0,
        message=f"{measurement.different} rows differ in the org from what was staged.",
        numbers={"different": measurement.different, "changed_since": measurement.changed_since},
        reasons=(f"{measurement.different} rows differ in the org",) if measurement.different else (),
    )


def _api_budget_kept(night: NightEntry, policy: Policy) -> Finding:
    name = "api_budget_kept"
    forecast = night.plan.forecast
    if forecast is None or forecast.api_calls_left is None or forecast.api_calls_max is None:
        return Finding(
            name,
            passed=True,
            message=f"The night used {night.api_calls} API calls; the org's limits could not be read.",
            numbers={"api_calls": night.api_calls},
        )
    budget = forecast.api_calls_left - reserve(forecast.api_calls_max, policy)
    return Finding(
        name,
        passed=night.api_calls <= max(budget, 0),
        message=f"The night used {night.api_calls} API calls of {budget} above the reserve ({forecast.api_calls} forecast).",
        numbers={"api_calls": night.api_calls, "budget": budget, "forecast": forecast.api_calls},
    )


def reserve(api_calls_max: int, policy: Policy) -> int:
    """API calls of the org's daily maximum that a night never touches."""
    return round(api_calls_max * policy.api_reserve)


def _ended_in_time(night: NightEntry, policy: Policy) -> Finding:
    name = "ended_in_time"
    due = deadline_at(night.opened_at, policy)
    ended = night.verdict_at or (night.measurement.measured_at if night.measurement is not None else None)
    if due is None:
        return Finding(name, passed=True, message="No deadline is set (SYNC_DEADLINE).")
    if ended is None:
        return Finding(name, passed=False, message=f"The night has not ended; it is due at {due:%Y-%m-%d %H:%M} UTC.")
    return Finding(
        name,
        passed=ended <= due,
        message=f"The night ended at {ended.astimezone(UTC):%Y-%m-%d %H:%M} UTC, due at {due:%Y-%m-%d %H:%M} UTC.",
        numbers={"seconds_late": max(round((ended - due).total_seconds()), 0)},
    )


def _rejected(counts: Counts) -> str:
    if counts.rejected == 0:
        return (
            f"no row rejected, {counts.set_aside} set aside by a declared rule"
            if counts.set_aside
            else "no row rejected"
        )
    quarantined = counts.quarantined - counts.set_aside
    return (
        f"{counts.rejected} rows did not get through "
        f"({counts.failed} failed, {counts.unprocessed} unprocessed, {quarantined} quarantined)"
    )


def _why(measurement: Measurement | None) -> str:
    return f" ({measurement.error})" if measurement is not None and measurement.error else ""
