"""simple-salesforce's ``SFBulk2Handler``, unchanged, against the TCP door."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
import requests
from simple_salesforce.bulk2 import SFBulk2Handler

from sync_pipeline.simulated_org.state import Org

WAIT_SECONDS = 0.05


@pytest.fixture
def opportunities(served: tuple[str, Org]) -> Any:
    url, _ = served
    form = {"grant_type": "client_credentials", "client_id": "simulated", "client_secret": "simulated"}
    token = requests.post(f"{url}/services/oauth2/token", data=form, timeout=10).json()["access_token"]
    return SFBulk2Handler(token, f"{url}/services/data/v62.0/jobs/").Opportunity


def record(key: str, **changes: str) -> dict[str, str]:
    return {
        "External_ID__c": key,
        "Name": f"Name of {key}",
        "StageName": "Qualification",
        "CloseDate": "2026-12-31",
        **changes,
    }


def test_an_upsert_is_counted_and_its_results_are_read(opportunities: Any) -> None:
    records = [record("ss-1"), record("ss-2", Name='quotes " and, commas'), record("ss-3", StageName="Nonsense")]

    (job,) = opportunities.upsert(records=records, external_id_field="External_ID__c", wait=WAIT_SECONDS)

    succeeded = list(csv.DictReader(io.StringIO(opportunities.get_successful_records(job["job_id"]))))
    failed = list(csv.DictReader(io.StringIO(opportunities.get_failed_records(job["job_id"]))))
    unprocessed = list(csv.DictReader(io.StringIO(opportunities.get_unprocessed_records(job["job_id"]))))
    assert (job["numberRecordsTotal"], job["numberRecordsProcessed"], job["numberRecordsFailed"]) == (3, 3, 1)
    assert {row["External_ID__c"]: row["Name"] for row in succeeded} == {
        "ss-1": "Name of ss-1",
        "ss-2": 'quotes " and, commas',
    }
    assert failed[0]["sf__Error"].startswith("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST")
    assert unprocessed == []


def test_a_second_upsert_updates(opportunities: Any) -> None:
    opportunities.upsert(records=[record("ss-4")], external_id_field="External_ID__c", wait=WAIT_SECONDS)
    (job,) = opportunities.upsert(
        records=[record("ss-4", Name="Renamed")], external_id_field="External_ID__c", wait=WAIT_SECONDS
    )

    rows = list(csv.DictReader(io.StringIO(opportunities.get_successful_records(job["job_id"]))))
    assert [row["sf__Created"] for row in rows] == ["false"]


def test_many_batches_run_one_after_the_other(opportunities: Any) -> None:
    records = [record(f"ss-batch-{n}") for n in range(1_000)]

    jobs = opportunities.upsert(records=records, external_id_field="External_ID__c", batch_size=300, wait=WAIT_SECONDS)

    assert sum(job["numberRecordsProcessed"] for job in jobs) == 1_000
    assert len(jobs) == 4


def test_bulk_query_reads_every_page(opportunities: Any) -> None:
    opportunities.upsert(
        records=[record(f"ss-page-{n}") for n in range(250)], external_id_field="External_ID__c", wait=WAIT_SECONDS
    )

    pages = list(
        opportunities.query(
            "SELECT External_ID__c, Name FROM Opportunity WHERE External_ID__c LIKE 'ss-page-%'",
            max_records=100,
            wait=WAIT_SECONDS,
        )
    )

    rows = [row for page in pages for row in csv.DictReader(io.StringIO(page))]
    assert len(pages) == 3
    assert {row["External_ID__c"] for row in rows} == {f"ss-page-{n}" for n in range(250)}
