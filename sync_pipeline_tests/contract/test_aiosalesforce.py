"""aiosalesforce, unchanged, against the TCP door.

It knows no address but https below my.salesforce.com: the transport that it is given leads all of these to the door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx
import pytest
from aiosalesforce import Salesforce
from aiosalesforce.auth import ClientCredentialsFlow
from aiosalesforce.exceptions import SalesforceError

from sync_pipeline.simulated_org.state import Org
from sync_pipeline_tests.contract.odd_rows import FIELDS, held, is_refused, meant, odd_rows

BASE_URL = "https://simulated.my.salesforce.com"
Answer = TypeVar("Answer")


class ToTheDoor(httpx.AsyncBaseTransport):
    """Sends what is meant for a public host to the door, and nothing anywhere else."""

    def __init__(self, door: str) -> None:
        self._door = httpx.URL(door)
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert f"{request.url.scheme}://{request.url.host}" == BASE_URL, request.url
        request.url = request.url.copy_with(scheme="http", host=self._door.host, port=self._door.port)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def run(door: str, work: Callable[[Salesforce], Awaitable[Answer]], *, secret: str = "simulated") -> Answer:
    """What ``work`` gives with a client of its own."""

    async def with_client() -> Answer:
        async with httpx.AsyncClient(transport=ToTheDoor(door), timeout=60) as client:
            return await work(
                Salesforce(client, base_url=BASE_URL, auth=ClientCredentialsFlow("simulated", secret), version="62.0")
            )

    return asyncio.run(with_client())


async def upserted(client: Salesforce, rows: list[dict[str, str]]) -> Any:
    (result,) = [
        found
        async for found in client.bulk_v2.ingest.perform_operation(
            "upsert", "Opportunity", rows, fieldnames=FIELDS, external_id_field="External_ID__c", polling_interval=0.05
        )
    ]
    return result


def test_a_wrong_secret_is_an_error_of_the_login(served: tuple[str, Org]) -> None:
    with pytest.raises(SalesforceError, match="invalid client credentials"):
        run(served[0], lambda client: client.get_limits(), secret="wrong")


def test_every_row_of_a_bulk_upsert_is_in_the_org_as_it_was_meant(served: tuple[str, Org]) -> None:
    door, org = served
    rows = odd_rows("aio-", 700)

    result = run(door, lambda client: upserted(client, rows))

    bad = {row["External_ID__c"] for row in rows if is_refused(row)}
    assert (result.job_info.state, result.job_info.external_id_field_name) == ("JobComplete", "External_ID__c")
    assert {row["External_ID__c"] for row in result.failed_results} == bad
    assert {row["External_ID__c"] for row in result.successful_results} == {row["External_ID__c"] for row in rows} - bad
    assert result.unprocessed_records == []
    assert held(org, "aio-") == meant(rows)


def test_a_second_upsert_updates_every_row(served: tuple[str, Org]) -> None:
    door, org = served
    rows = odd_rows("aio-two-", 60)
    changed = [{**row, "Amount": "8.5", "NextStep": ""} for row in rows]

    async def twice(client: Salesforce) -> Any:
        await upserted(client, rows)
        return await upserted(client, changed)

    result = run(door, twice)

    assert {row["sf__Created"] for row in result.successful_results} == {"false"}
    kept = {key: row[5] for key, row in meant(rows).items()}
    assert held(org, "aio-two-") == {key: (*row[:5], kept[key]) for key, row in meant(changed).items()}


def test_a_query_reads_every_batch_of_its_records(served: tuple[str, Org]) -> None:
    door, org = served
    rows = [{**row, "StageName": "Prospecting"} for row in odd_rows("aio-many-", 2_345)]

    async def work(client: Salesforce) -> list[dict[str, Any]]:
        await upserted(client, rows)
        soql = "SELECT External_ID__c, Amount FROM Opportunity WHERE External_ID__c LIKE 'aio-many-%'"
        return [record async for record in client.query(soql)]

    records = run(door, work)

    assert {record["External_ID__c"]: record["Amount"] for record in records} == {
        key: row[3] for key, row in held(org, "aio-many-").items()
    }
    assert len(records) == 2_345


def test_a_record_is_created_read_changed_and_deleted(served: tuple[str, Org]) -> None:
    async def work(client: Salesforce) -> list[Any]:
        deal = {"Name": "x", "StageName": "Prospecting", "CloseDate": "2026-01-01"}
        seen: list[Any] = []
        row_id = await client.sobject.create("Opportunity", deal)
        await client.sobject.update("Opportunity", row_id, {"Name": "y"})
        seen.append((await client.sobject.get("Opportunity", row_id[:15], fields=["Name"]))["Name"])
        made = await client.sobject.upsert("Opportunity", "aio crud 1", "External_ID__c", deal)
        again = await client.sobject.upsert("Opportunity", "aio crud 1", "External_ID__c", {"Name": "z"})
        seen += [made.created, again.created, made.id == again.id]
        await client.sobject.delete("Opportunity", row_id)
        with pytest.raises(SalesforceError, match="NOT_FOUND"):
            await client.sobject.get("Opportunity", row_id)
        return seen

    assert run(served[0], work) == ["y", True, False, True]


def test_a_composite_batch_runs_every_part(served: tuple[str, Org]) -> None:
    async def work(client: Salesforce) -> tuple[Any, ...]:
        async with client.composite.batch() as batch:
            created = batch.sobject.create("Account", {"Name": "of a batch"})
            wrong = batch.sobject.create("Account", {})
            found = batch.query("SELECT Name FROM Account WHERE Name = 'of a batch'")
        return created.id, wrong.status_code, [record["Name"] for record in found.records]

    row_id, status, names = run(served[0], work)

    assert row_id.startswith("001")
    assert (status, names) == (400, ["of a batch"])


def test_a_composite_request_refers_to_what_it_has_made(served: tuple[str, Org]) -> None:
    async def work(client: Salesforce) -> tuple[str, str]:
        async with client.composite(all_or_none=True) as composite:
            account = composite.sobject.create("Account", {"Name": "parent"})
            deal = composite.sobject.create(
                "Opportunity",
                {
                    "Name": "child",
                    "StageName": "Prospecting",
                    "CloseDate": "2026-01-01",
                    "AccountId": str(account.reference.id),
                },
            )
        return account.id, (await client.sobject.get("Opportunity", deal.id))["AccountId"]

    parent, named = run(served[0], work)

    assert parent == named


def test_limits_and_the_records_that_a_bulk_delete_takes(served: tuple[str, Org]) -> None:
    door, org = served
    rows = [{**row, "StageName": "Prospecting"} for row in odd_rows("aio-gone-", 30)]

    async def work(client: Salesforce) -> tuple[int, Any]:
        made = await upserted(client, rows)
        ids = [{"Id": row["sf__Id"][:15]} for row in made.successful_results]
        (deleted,) = [
            found
            async for found in client.bulk_v2.ingest.perform_operation(
                "delete", "Opportunity", ids, polling_interval=0.05
            )
        ]
        return (await client.get_limits())["DailyApiRequests"]["Remaining"], deleted

    remaining, deleted = run(door, work)

    assert 0 < remaining < 100_000
    assert (len(deleted.successful_results), deleted.failed_results) == (30, [])
    assert held(org, "aio-gone-") == {}
