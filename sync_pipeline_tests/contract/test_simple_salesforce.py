"""simple-salesforce, unchanged, against the TCP door: its handler of Bulk API 2.0, and the client as a whole.

That one knows no address but https: the adapter of its session leads the host that it is given to the door.
"""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from simple_salesforce import Salesforce, SalesforceLogin
from simple_salesforce.bulk2 import SFBulk2Handler
from simple_salesforce.exceptions import (
    SalesforceAuthenticationFailed,
    SalesforceMalformedRequest,
    SalesforceResourceNotFound,
)

from sync_pipeline.simulated_org.state import Org
from sync_pipeline_tests.contract.odd_rows import held, is_refused, meant, odd_rows

WAIT_SECONDS = 0.05
INSTANCE = "simulated.my.salesforce.com"


class ToTheDoor(HTTPAdapter):
    """Sends what is meant for a public host to the door, and nothing anywhere else."""

    def __init__(self, door: str) -> None:
        super().__init__()
        self._door = door

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        assert request.url is not None and request.url.startswith(f"https://{INSTANCE}/"), request.url
        request.url = request.url.replace(f"https://{INSTANCE}", self._door, 1)
        return super().send(request, *args, **options)


def token_of(door: str) -> str:
    form = {"grant_type": "client_credentials", "client_id": "simulated", "client_secret": "simulated"}
    token: str = requests.post(f"{door}/services/oauth2/token", data=form, timeout=10).json()["access_token"]
    return token


@pytest.fixture
def opportunities(served: tuple[str, Org]) -> Any:
    url, _ = served
    return SFBulk2Handler(token_of(url), f"{url}/services/data/v62.0/jobs/").Opportunity


@pytest.fixture
def session(served: tuple[str, Org]) -> Any:
    with requests.Session() as session:
        session.trust_env = False
        session.mount("https://", ToTheDoor(served[0]))
        yield session


@pytest.fixture
def client(served: tuple[str, Org], session: requests.Session) -> Any:
    return Salesforce(instance=INSTANCE, session_id=token_of(served[0]), session=session, version="62.0")


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


def test_every_row_of_a_bulk_upsert_is_in_the_org_as_it_was_meant(served: tuple[str, Org], opportunities: Any) -> None:
    rows = odd_rows("ss-odd-", 300)

    (job,) = opportunities.upsert(records=rows, external_id_field="External_ID__c", wait=WAIT_SECONDS)

    assert (job["numberRecordsProcessed"], job["numberRecordsFailed"]) == (300, sum(map(is_refused, rows)))
    assert held(served[1], "ss-odd-") == meant(rows)


# the client as a whole


def test_records_are_made_found_listed_as_changed_and_as_deleted(client: Any) -> None:
    start, end = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)
    made = client.Account.create({"Name": "ss", "External_ID__c": "ss-account"})["id"]
    found = client.Account.get_by_custom_id("External_ID__c", "ss-account")
    updated = client.Account.updated(start, end)["ids"]
    assert client.Account.delete(made[:15]) == 204
    deleted = [one["id"] for one in client.Account.deleted(start, end)["deletedRecords"]]

    assert (found["Id"], made in updated, made in deleted) == (made, True, True)
    with pytest.raises(SalesforceResourceNotFound):
        client.Account.get(made)


def test_a_query_is_read_to_its_end_and_an_org_tells_what_it_is(client: Any) -> None:
    records = client.query_all("SELECT Id, Profile.Name FROM User ORDER BY Username")["records"]

    assert records[0]["Profile"]["Name"] == "System Administrator"
    assert client.is_sandbox() is False
    assert client.limits()["DailyApiRequests"]["Max"] == 100_000
    assert "Opportunity" in [one["name"] for one in client.describe()["sobjects"]]


def test_a_tree_of_parents_and_children_is_planted(client: Any) -> None:
    child = {"attributes": {"type": "Opportunity", "referenceId": "o"}, **record("ss-tree")}
    tree = {"attributes": {"type": "Account", "referenceId": "a"}, "Name": "t", "Opportunities": {"records": [child]}}

    answer = client.restful("composite/tree/Account", method="POST", json={"records": [tree]})

    ids = {one["referenceId"]: one["id"] for one in answer["results"]}
    assert client.Opportunity.get_by_custom_id("External_ID__c", "ss-tree")["AccountId"] == ids["a"]


def test_what_is_not_offered_is_no_expired_session_for_the_client(client: Any, session: requests.Session) -> None:
    with pytest.raises(SalesforceMalformedRequest, match="FeatureNotEnabled"):
        client.bulk.Opportunity.insert([record("ss-bulk-1")])
    with pytest.raises(SalesforceAuthenticationFailed, match="API_DISABLED_FOR_ORG"):
        SalesforceLogin(
            username="somebody", password="secret", organizationId="00D", domain="simulated.my", session=session
        )
    with pytest.raises(SalesforceResourceNotFound):
        client.search("FIND {x}")
