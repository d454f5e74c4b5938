"""What is checked, by asset. The findings are computed once, in ``engine/findings.py``; here they are only shown."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from sync_pipeline.defs.partitions import RANGES

if TYPE_CHECKING:
    from sync_pipeline.engine.findings import Finding

# Checks with partitions are announced as a preview; this project relies on them and has tests for what it relies on.
warnings.filterwarnings("ignore", category=dg.PreviewWarning)

PLAN = dg.AssetKey("opportunity_ranges")
SYNCED = dg.AssetKey("opportunities_synced")
RECONCILIATION = dg.AssetKey("sync_reconciliation")

PLAN_CHECKS = [
    dg.AssetCheckSpec(
        "source_plausible",
        asset=PLAN,
        description="The source has about as many rows as last night. A source that lost half of its rows opens no night.",
    ),
]

RANGE_CHECKS = [
    dg.AssetCheckSpec(
        "every_staged_row_has_one_outcome",
        asset=SYNCED,
        partitions_def=RANGES,
        description="Staged = succeeded + failed + unprocessed + quarantined, counted from the org's own result sets.",
    ),
    dg.AssetCheckSpec(
        "staged_equals_expected",
        asset=SYNCED,
        partitions_def=RANGES,
        description="As many rows were staged as the source counted in this range.",
    ),
    dg.AssetCheckSpec(
        "no_row_rejected",
        asset=SYNCED,
        partitions_def=RANGES,
        description="Every row reached the org. `sync-pipeline rejects` lists those that did not, with the reason.",
    ),
]

NIGHT_CHECKS = [
    dg.AssetCheckSpec(
        "every_range_done",
        asset=RECONCILIATION,
        description="No range was given up, held or left unfinished.",
    ),
    dg.AssetCheckSpec(
        "every_row_accounted",
        asset=RECONCILIATION,
        description="In every finished range expected = staged = accounted for, and all rows that were saved were compared.",
    ),
    dg.AssetCheckSpec(
        "rows_compared",
        asset=RECONCILIATION,
        description="At least one row was compared, unless source and org are both empty: nothing is proven by nothing.",
    ),
    dg.AssetCheckSpec(
        "present_equals_expected",
        asset=RECONCILIATION,
        description="Every expected row is in the org: nothing is missing.",
    ),
    dg.AssetCheckSpec(
        "values_equal",
        asset=RECONCILIATION,
        description="Every mapped value in the org equals the staged one.",
    ),
    dg.AssetCheckSpec(
        "api_budget_kept",
        asset=RECONCILIATION,
        description="The night left the reserve of the org's daily API calls untouched.",
    ),
    dg.AssetCheckSpec(
        "ended_in_time",
        asset=RECONCILIATION,
        description="The night ended before SYNC_DEADLINE, if one is set.",
    ),
]


def severity_of(finding: "Finding") -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.WARN if finding.severity == "warning" else dg.AssetCheckSeverity.ERROR


def result_of(finding: "Finding", asset_key: dg.AssetKey) -> dg.AssetCheckResult:
    """The finding for a ``MaterializeResult``."""
    return dg.AssetCheckResult(
        asset_key=asset_key,
        check_name=finding.name,
        passed=finding.passed,
        severity=severity_of(finding),
        description=finding.message,
        metadata=dict(finding.numbers),
    )


def log_failed(context: dg.AssetExecutionContext, findings: Sequence["Finding"]) -> list["Finding"]:
    """Records the failed error findings as events of their own, for a run that ends in a ``Failure``; returns them."""
    failed = [f for f in findings if not f.passed and severity_of(f) is dg.AssetCheckSeverity.ERROR]
    for finding in failed:
        context.log_event(
            dg.AssetCheckEvaluation(
                asset_key=context.asset_key,
                check_name=finding.name,
                passed=False,
                severity=severity_of(finding),
                description=finding.message,
                metadata=dict(finding.numbers),
                partition=context.partition_key if context.has_partition_key else None,
            )
        )
    return failed
