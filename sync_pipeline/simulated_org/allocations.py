"""What the org allows in 24 hours, and what is used of it: batches and query jobs are counted here, ``limits`` shows all.

limits: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_limits.htm
Bulk API limits: https://developer.salesforce.com/docs/atlas.en-us.salesforce_app_limits_cheatsheet.meta/salesforce_app_limits_cheatsheet/salesforce_app_limits_platform_bulkapi.htm

Knob ``limits`` sets maxima and adds use by others: ``{"DailyBulkApiBatches": {"Max": 100, "Used": 7}}``. API calls have
knobs of their own (``state.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sync_pipeline.simulated_org.objects import objects
from sync_pipeline.simulated_org.records import Records
from sync_pipeline.simulated_org.state import CALL_SLOT_SECONDS, DAY_SECONDS, Org

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS bulk_batch_count (day_slot INTEGER PRIMARY KEY, batches INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS bulk_query_count (
    day_slot INTEGER PRIMARY KEY, jobs INTEGER NOT NULL, bytes INTEGER NOT NULL
);
"""
RECORD_BYTES: Final = 2 * 1024
"""Storage of one record of nearly every object."""
STORED_FREE: Final = ("User", "Profile", "Organization", "OpportunityStage", "CronTrigger", "AsyncApexJob")
"""Objects whose records take no data storage."""
MIB: Final = 1024 * 1024

MAXIMA: Final[Mapping[str, int]] = {
    "ActiveScratchOrgs": 40,
    "ConcurrentAsyncGetReportInstances": 200,
    "ConcurrentSyncReportRuns": 20,
    "DailyApiRequests": 0,
    "DailyAsyncApexExecutions": 250_000,
    "DailyAsyncApexTests": 500,
    "DailyBulkApiBatches": 15_000,
    "DailyBulkV2QueryFileStorageMB": 976_562,
    "DailyBulkV2QueryJobs": 10_000,
    "DailyDurableGenericStreamingApiEvents": 10_000,
    "DailyDurableStreamingApiEvents": 200_000,
    "DailyGenericStreamingApiEvents": 10_000,
    "DailyStreamingApiEvents": 200_000,
    "DailyWorkflowEmails": 1_005,
    "DataStorageMB": 102_400,
    "DurableStreamingApiConcurrentClients": 1_000,
    "FileStorageMB": 10_240,
    "HourlyAsyncReportRuns": 1_200,
    "HourlyDashboardRefreshes": 200,
    "HourlySyncReportRuns": 500,
    "HourlyTimeBasedWorkflow": 1_000,
    "MassEmail": 5_000,
    "PermissionSets": 1_500,
    "SingleEmail": 5_000,
    "StreamingApiConcurrentClients": 1_000,
}
"""Allocations of an Enterprise Edition org, as ``limits`` names them."""
RENAMED: Final = {"DailyBulkApiBatches": "DailyBulkApiRequests"}
RENAMED_SINCE: Final = 49.0
"""Before this API version ``limits`` has the old names."""
SINCE: Final = {"DailyBulkV2QueryJobs": 47.0, "DailyBulkV2QueryFileStorageMB": 47.0, "DailyAsyncApexTests": 56.0}
"""Allocations that came with an API version."""


def count_batches(org: Org, batches: int) -> None:
    """Counts batches of Bulk API jobs."""
    org.schema(SCHEMA, "gate")
    with org.write("gate") as connection:
        connection.execute(
            "INSERT INTO bulk_batch_count VALUES (?, ?) ON CONFLICT DO UPDATE SET batches = batches + excluded.batches",
            (_slot(org.now()), batches),
        )


def batches_used(org: Org) -> int:
    """Batches of the last 24 hours."""
    return _summed(org, "SELECT sum(batches) FROM bulk_batch_count WHERE day_slot > ?") + _others(
        org, "DailyBulkApiBatches"
    )


def batches_left(org: Org) -> int:
    """Batches that may still be made now."""
    return max(_maximum(org, "DailyBulkApiBatches") - batches_used(org), 0)


def count_query_job(org: Org, *, jobs: int = 0, result_bytes: int = 0) -> None:
    """Counts query jobs of Bulk API 2.0, and the size of results that are kept."""
    org.schema(SCHEMA, "gate")
    with org.write("gate") as connection:
        connection.execute(
            "INSERT INTO bulk_query_count VALUES (?, ?, ?) ON CONFLICT DO UPDATE "
            "SET jobs = jobs + excluded.jobs, bytes = bytes + excluded.bytes",
            (_slot(org.now()), jobs, result_bytes),
        )


def query_jobs_used(org: Org) -> int:
    """Query jobs of the last 24 hours."""
    return _summed(org, "SELECT sum(jobs) FROM bulk_query_count WHERE day_slot > ?") + _others(
        org, "DailyBulkV2QueryJobs"
    )


def query_jobs_left(org: Org) -> int:
    """Query jobs that may still be made now."""
    return max(_maximum(org, "DailyBulkV2QueryJobs") - query_jobs_used(org), 0)


def query_megabytes_used(org: Org) -> int:
    """Megabytes of query results of the last 24 hours."""
    used = _summed(org, "SELECT sum(bytes) FROM bulk_query_count WHERE day_slot > ?")
    return used // MIB + _others(org, "DailyBulkV2QueryFileStorageMB")


def limits(org: Org, version: float) -> dict[str, dict[str, Any]]:
    """Every allocation with its maximum and what remains of it, as that API version names them."""
    calls, most_calls = org.usage()
    used = {
        "DailyApiRequests": calls,
        "DailyBulkApiBatches": batches_used(org),
        "DailyBulkV2QueryJobs": query_jobs_used(org),
        "DailyBulkV2QueryFileStorageMB": query_megabytes_used(org),
        "DataStorageMB": data_megabytes(org) + _others(org, "DataStorageMB"),
    }
    shown: dict[str, dict[str, Any]] = {}
    for name in MAXIMA:
        if version < SINCE.get(name, 0.0):
            continue
        most = most_calls if name == "DailyApiRequests" else _maximum(org, name)
        taken = used[name] if name in used else _others(org, name)
        called = RENAMED.get(name, name) if version < RENAMED_SINCE else name
        shown[called] = {"Max": most, "Remaining": max(most - taken, 0)}
    shown["PermissionSets"]["CreateCustom"] = {"Max": 1_000, "Remaining": 1_000}
    return shown


def data_megabytes(org: Org) -> int:
    """Data storage that the org's records take."""
    rows = sum(len(Records(org, found)) for found in objects(org).values() if found.name not in STORED_FREE)
    return rows * RECORD_BYTES // MIB


def _slot(now: float) -> int:
    return int(now // CALL_SLOT_SECONDS)


def _summed(org: Org, sql: str) -> int:
    org.schema(SCHEMA, "gate")
    (used,) = org.db("gate").execute(sql, (_slot(org.now() - DAY_SECONDS),)).fetchone()
    return int(used or 0)


def _maximum(org: Org, name: str) -> int:
    return int(org.setting("limits", {}).get(name, {}).get("Max", MAXIMA[name]))


def _others(org: Org, name: str) -> int:
    return int(org.setting("limits", {}).get(name, {}).get("Used", 0))
