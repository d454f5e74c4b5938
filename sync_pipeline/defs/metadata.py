"""Numbers and tables of a night as Dagster shows them. Numeric keys are constant, because Dagster plots each of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from sync_pipeline.domain.keys import KeyRange
from sync_pipeline.domain.ledger import Counts
from sync_pipeline.domain.mapping import FieldType, Mapping
from sync_pipeline.domain.night import JobEntry, Measurement, NightEntry, RangeEntry
from sync_pipeline.domain.plan import Plan

if TYPE_CHECKING:
    from sync_pipeline.engine.findings import Finding

SAMPLE_ROWS = 50
"""Differing rows shown in the UI; all of them are in the night's folder."""
BAR_LETTERS = 20
MEASURED = ("present", "missing", "different", "doubled", "orphans")
"""What a measurement counts, of the night and of a range."""

COLUMN_TYPES = {
    FieldType.TEXT: "text",
    FieldType.NUMBER: "number",
    FieldType.DATE: "date",
    FieldType.DATETIME: "datetime",
    FieldType.BOOLEAN: "boolean",
    FieldType.REFERENCE: "id",
}


def of_plan(night: NightEntry) -> dict[str, Any]:
    """Metadata of ``opportunity_ranges``."""
    plan = night.plan
    numbers: dict[str, Any] = {
        "plan_id": plan.plan_id,
        "org": str(plan.org),
        "expected": plan.expected,
        "ranges": len(plan.ranges),
        "null_keys": plan.profile.null_keys,
        "distinct_keys": plan.profile.distinct_keys,
        "dagster/row_count": plan.expected,
        "plan": range_table(plan),
    }
    if plan.forecast is not None:
        numbers |= {
            "forecast_api_calls": plan.forecast.api_calls,
            "forecast_ingest_batches": plan.forecast.ingest_batches,
            "forecast_disk_bytes": plan.forecast.disk_bytes,
            "forecast_seconds": round(plan.forecast.seconds, 1),
        }
        if plan.forecast.api_calls_left is not None:
            numbers["api_calls_left"] = plan.forecast.api_calls_left
    if plan.notes:
        numbers["notes"] = dg.MetadataValue.md("\n".join(f"- {note}" for note in plan.notes))
    return numbers


def range_table(plan: Plan) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        records=[
            dg.TableRecord(
                {
                    "partition": planned.partition,
                    "after": _bound(planned.range.after, "start"),
                    "through": _bound(planned.range.through, "end"),
                    "expected": planned.expected,
                }
            )
            for planned in plan
        ],
        schema=dg.TableSchema(
            columns=[
                dg.TableColumn("partition", "string"),
                dg.TableColumn("after", "string", description="the range starts above this key"),
                dg.TableColumn("through", "string", description="the range ends with this key"),
                dg.TableColumn("expected", "int", description="rows counted at the source"),
            ]
        ),
    )


def of_range(
    night: NightEntry,
    entry: RangeEntry,
    jobs: Sequence[JobEntry],
    *,
    seconds: float,
    api_calls: int,
    instance_url: str,
) -> dict[str, Any]:
    """Metadata of one partition of ``opportunities_synced``; ``seconds`` and ``api_calls`` are those of this run."""
    counts = entry.counts
    planned = night.plan.range(entry.partition)
    links = job_links(jobs, instance_url) if not night.plan.org.is_simulated else ""
    return {
        "plan_id": night.plan_id,
        "org": str(night.plan.org),
        "range": str(planned.range if planned else KeyRange()),
        **of_progress(entry),
        "rows_per_second": round(counts.staged / seconds, 1) if seconds > 0 else 0.0,
        "api_calls": api_calls,
        "lock_rate": lock_rate(counts, jobs),
        "seconds": round(seconds, 3),
        "runs": entry.runs,
        "generation": entry.generation,
        "dagster/row_count": counts.staged,
        "dagster/partition_row_count": counts.staged,
        "jobs": job_table(jobs),
        **({"jobs_in_the_org": dg.MetadataValue.md(links)} if links else {}),
    }


def of_progress(entry: RangeEntry) -> dict[str, Any]:
    """How far a range is, in numbers with constant names."""
    return {"rows_read": entry.counts.staged, **of_counts(entry.counts), "rows_sent": entry.rows_sent}


def of_counts(counts: Counts) -> dict[str, int]:
    return counts.to_json()


def lock_rate(counts: Counts, jobs: Sequence[JobEntry]) -> float:
    """The share of rows sent that failed and got through later, which is what locks do."""
    sent = sum(job.rows for job in jobs)
    passed = sum(job.failed for job in jobs) - counts.failed
    return round(max(passed, 0) / sent, 4) if sent else 0.0


def job_links(jobs: Sequence[JobEntry], instance_url: str) -> str:
    """The ingest jobs of a range as links into the org's own pages (Setup, Bulk Data Load Jobs)."""
    page = f"{instance_url}/lightning/setup/AsyncApiJobStatus/page?address=%2F"
    return "\n".join(
        f"- [{job.job_id}]({page}{job.job_id}) part {job.part}, round {job.round}: {job.state}"
        for job in jobs
        if job.job_id
    )


def job_table(jobs: Sequence[JobEntry]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        records=[
            dg.TableRecord(
                {
                    "job": job.job_id or "(not created)",
                    "part": job.part,
                    "round": job.round,
                    "rows": job.rows,
                    "state": job.state,
                    "processed": job.processed,
                    "failed": job.failed,
                    "retries": job.retries,
                    "error": job.error,
                }
            )
            for job in jobs
        ],
        schema=dg.TableSchema(
            columns=[
                dg.TableColumn("job", "string", description="ingest job id in the org"),
                dg.TableColumn("part", "int"),
                dg.TableColumn("round", "int", description="0: first sending, above: rows sent again"),
                dg.TableColumn("rows", "int"),
                dg.TableColumn("state", "string"),
                dg.TableColumn("processed", "int"),
                dg.TableColumn("failed", "int"),
                dg.TableColumn("retries", "int"),
                dg.TableColumn("error", "string"),
            ]
        ),
    )


def of_measurement(
    night: NightEntry, entries: Sequence[RangeEntry], measurement: Measurement, findings: Sequence["Finding"]
) -> dict[str, Any]:
    """Metadata of ``sync_reconciliation``. What the level of measuring does not tell is left out, never shown as 0."""
    totals = sum((entry.counts for entry in entries), Counts())
    measured = {name: getattr(measurement, name) for name in MEASURED}
    night_seconds = (measurement.measured_at - night.opened_at).total_seconds() + measurement.seconds
    return {
        "plan_id": night.plan_id,
        "org": str(night.plan.org),
        "level": measurement.level,
        "rows_read": totals.staged,
        **of_counts(totals),
        **{name: number for name, number in measured.items() if number is not None},
        "changed_since": measurement.changed_since,
        "api_calls": night.api_calls,
        "seconds": round(measurement.seconds, 3),
        "night_seconds": round(night_seconds, 3),
        "rows_per_second": round(totals.succeeded / night_seconds, 1) if night_seconds > 0 else 0.0,
        "ranges": measurement_table(entries, measurement),
        "report": dg.MetadataValue.md(report(night, entries, measurement, findings)),
        **({"dagster/row_count": measurement.present} if measurement.present is not None else {}),
    }


def measurement_table(entries: Sequence[RangeEntry], measurement: Measurement) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        records=[
            dg.TableRecord(
                {
                    "partition": entry.partition,
                    "state": str(entry.state),
                    "expected": entry.counts.expected,
                    "succeeded": entry.counts.succeeded,
                    "rejected": entry.counts.rejected,
                    **{
                        name: measurement.by_range.get(entry.partition, {}).get(name, "not measured")
                        for name in MEASURED
                    },
                }
            )
            for entry in entries
        ],
        schema=dg.TableSchema(
            columns=[
                dg.TableColumn("partition", "string"),
                dg.TableColumn("state", "string"),
                dg.TableColumn("expected", "int"),
                dg.TableColumn("succeeded", "int"),
                dg.TableColumn("rejected", "int"),
                *(dg.TableColumn(name, "int") for name in MEASURED),
            ]
        ),
    )


def report(
    night: NightEntry, entries: Sequence[RangeEntry], measurement: Measurement, findings: Sequence["Finding"]
) -> str:
    """The night in Markdown: one line that tells it, its checks, the totals, its ranges, and rows that differ."""
    totals = sum((entry.counts for entry in entries), Counts())
    rows = [
        ("expected", totals.expected),
        ("succeeded", totals.succeeded),
        ("of them created", totals.created),
        ("of them updated", totals.updated),
        ("rejected", totals.rejected),
        ("present in the org", measurement.present),
        ("missing", measurement.missing),
        ("different", measurement.different),
        ("in the org more than once", measurement.doubled),
        ("orphans (in the org only, never deleted)", measurement.orphans),
        ("changed at the source since they were staged", measurement.changed_since),
    ]
    lines = [
        (f"**{headline(measurement)}** Night {night.plan_id}, {night.plan.org}, measured by {measurement.level} "
        f"at {measurement.measured_at:%Y-%m-%d %H:%M:%S} UTC, {night.api_calls:,} API calls so far."),
        "",
        *(f"- {_mark(finding)} {finding.message}" for finding in findings),
        "",
        "| rows | |",
        "|---|---:|",
        *(f"| {name} | {'not measured' if number is None else f'{number:,}'} |" for name, number in rows),
        "",
        "| range | state | saved | |",
        "|---|---|---:|---|",
        *(
            f"| `{entry.partition}` | {entry.state} | {entry.counts.succeeded:,} of {entry.counts.expected:,} "
            f"| {bar(entry.counts)} |"
            for entry in entries
        ),
    ]  # fmt: skip
    if measurement.sample:
        columns = list(measurement.sample[0])
        lines += ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += [
            "| " + " | ".join(_cell(row.get(column)) for column in columns) + " |"
            for row in measurement.sample[:SAMPLE_ROWS]
        ]
    return "\n".join(lines)


def bar(counts: Counts) -> str:
    """The share of a range's rows that were saved, as a bar; one that is not whole never looks whole."""
    share = counts.succeeded / counts.expected if counts.expected else 1.0
    filled = BAR_LETTERS if share >= 1 else min(int(share * BAR_LETTERS), BAR_LETTERS - 1)
    return "\N{FULL BLOCK}" * filled + "\N{LIGHT SHADE}" * (BAR_LETTERS - filled)


def _mark(finding: "Finding") -> str:
    if finding.passed:
        return "passed:"
    return "**warning:**" if finding.severity == "warning" else "**failed:**"


def headline(measurement: Measurement) -> str:
    if measurement.error:
        return f"The measurement failed: {measurement.error}"
    if not measurement.is_equal:
        return "The org differs from the source."
    return {
        "values": "Every expected value is in the org.",
        "keys": "Every expected key is in the org; values were not compared.",
    }.get(measurement.level, "As many rows as expected are in the org; keys and values were not compared.")


def column_schema(mapping: Mapping) -> dg.TableSchema:
    """The columns of the target object that a night fills."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                mapping.target_key,
                "text",
                description=f"external id, from {mapping.source_key}",
                constraints=dg.TableColumnConstraints(nullable=False, unique=True),
            ),
            *(
                dg.TableColumn(
                    field.target,
                    COLUMN_TYPES[field.type],
                    description=f"from {field.source}; a null {'clears it' if field.null == 'clear' else 'leaves it alone'}",
                    constraints=dg.TableColumnConstraints(nullable=not field.required),
                )
                for field in mapping.fields
            ),
        ]
    )


def source_schema(mapping: Mapping) -> dg.TableSchema:
    """The columns of the source object that a night reads."""
    types = {field.source: COLUMN_TYPES[field.type] for field in mapping.fields}
    return dg.TableSchema(
        columns=[dg.TableColumn(column, types.get(column, "text")) for column in mapping.source_columns]
    )


def _bound(key: str | None, unbounded: str) -> str:
    return unbounded if key is None else key


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
