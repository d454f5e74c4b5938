"""What the pipeline believes of Salesforce, tried on every door there is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest

from sync_pipeline_tests.contract.conftest import ROWS, Door

QUERY = "/ssot/query-sql"
COUNT = 'SELECT count(*) FROM "ExtOpportunities__dlm"'
KEYS = 'SELECT "ExternalId__c" FROM "ExtOpportunities__dlm" WHERE "ExternalId__c" IS NOT NULL ORDER BY "ExternalId__c"'
GOOD = "Qualification,2026-12-31"


@pytest.fixture(autouse=True)
def _tidy(door: Door) -> Iterator[None]:
    yield
    found = door.json(
        "GET", "/query", params={"q": "SELECT Id FROM Opportunity WHERE External_ID__c LIKE 'contract-%'"}
    )
    for record in found["records"]:
        door.client.delete(f"{door.root}/sobjects/Opportunity/{record['Id']}")


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# Logging in


def test_a_token_answer_names_org_and_user_and_no_lifetime(door: Door) -> None:
    info = door.client.get("/services/oauth2/userinfo").json()

    assert info["organization_id"].startswith("00D")
    assert info["user_id"].startswith("005")


def test_an_unknown_token_is_a_401_with_an_array_of_one_error(door: Door) -> None:
    answer = door.client.get(f"{door.root}/limits", headers={"Authorization": "Bearer 00Dnobody!nothing"})

    assert answer.status_code == 401
    assert answer.json()[0]["errorCode"] == "INVALID_SESSION_ID"


def test_versions_are_listed_without_a_token(door: Door) -> None:
    versions = [found["version"] for found in door.client.get("/services/data", headers={"Authorization": ""}).json()]

    assert "66.0" in versions
    assert versions == sorted(versions, key=float)


# Ingest jobs


def test_a_new_job_is_open_and_takes_its_data_at_a_relative_address(door: Door) -> None:
    job = door.new_job()

    assert job["id"].startswith("750") and len(job["id"]) == 18
    assert (job["state"], job["contentType"], job["lineEnding"]) == ("Open", "CSV", "LF")
    assert job["contentUrl"].endswith(f"/jobs/ingest/{job['id']}/batches")
    door.json("PATCH", f"/jobs/ingest/{job['id']}", json={"state": "Aborted"})


def test_every_row_of_a_job_is_in_one_of_three_result_sets(door: Door) -> None:
    job = door.load(
        "External_ID__c,Name,StageName,CloseDate\n"
        f"contract-1,One,{GOOD}\n"
        f"contract-2,,{GOOD}\n"
        f'contract-3,"Three, ""3""\nlines",{GOOD}\n'
    )

    succeeded = rows_of(door.results(job, "successfulResults"))
    failed = rows_of(door.results(job, "failedResults"))
    assert job["state"] == "JobComplete"
    assert (job["numberRecordsProcessed"], job["numberRecordsFailed"]) == (3, 1)
    assert {row["External_ID__c"]: row["sf__Created"] for row in succeeded} == {
        "contract-1": "true",
        "contract-3": "true",
    }
    assert [row["sf__Error"].partition(":")[0] for row in failed] == ["REQUIRED_FIELD_MISSING"]
    assert rows_of(door.results(job, "unprocessedrecords")) == []
    assert rows_of(door.results(job, "unprocessedRecords")) == []


def test_an_upsert_of_a_known_key_is_an_update_of_the_same_row(door: Door) -> None:
    csv_text = f"External_ID__c,Name,StageName,CloseDate\ncontract-1,One,{GOOD}\n"

    first = rows_of(door.results(door.load(csv_text), "successfulResults"))
    second = rows_of(door.results(door.load(csv_text), "successfulResults"))

    assert (first[0]["sf__Created"], second[0]["sf__Created"]) == ("true", "false")
    assert first[0]["sf__Id"] == second[0]["sf__Id"]


def test_an_empty_field_leaves_the_value_alone_and_na_clears_it(door: Door) -> None:
    door.load(f"External_ID__c,Name,StageName,CloseDate,Amount,NextStep\ncontract-1,One,{GOOD},12.50,call\n")
    door.load("External_ID__c,Name,Amount,NextStep\ncontract-1,,,#N/A\n")

    found = door.json(
        "GET",
        "/query",
        params={"q": "SELECT Name, Amount, NextStep FROM Opportunity WHERE External_ID__c = 'contract-1'"},
    )["records"][0]
    assert (found["Name"], found["Amount"], found["NextStep"]) == ("One", 12.5, None)


def test_one_key_twice_in_200_rows_fails_all_of_its_rows(door: Door) -> None:
    job = door.load(
        f"External_ID__c,Name,StageName,CloseDate\ncontract-1,a,{GOOD}\ncontract-1,b,{GOOD}\ncontract-2,c,{GOOD}\n"
    )

    failed = rows_of(door.results(job, "failedResults"))
    assert [row["External_ID__c"] for row in failed] == ["contract-1", "contract-1"]
    assert all(row["sf__Error"].startswith("DUPLICATE_VALUE") for row in failed)


def test_an_unknown_column_fails_the_whole_job(door: Door) -> None:
    job = door.load(f"External_ID__c,Nome,StageName,CloseDate\ncontract-1,a,{GOOD}\n")

    assert job["state"] == "Failed"
    assert "Nome" in job["errorMessage"]


def test_an_aborted_job_stays_aborted_and_its_data_is_not_processed(door: Door) -> None:
    job = door.new_job()

    aborted = door.json("PATCH", f"/jobs/ingest/{job['id']}", json={"state": "Aborted"})

    assert aborted["state"] == "Aborted"
    assert door.json("GET", f"/jobs/ingest/{job['id']}")["state"] == "Aborted"


def test_an_unknown_job_is_a_404(door: Door) -> None:
    answer = door.client.get(f"{door.root}/jobs/ingest/7500000000000ZZAAA")

    assert answer.status_code == 404
    assert answer.json()[0]["errorCode"] == "NOT_FOUND"


def test_a_field_that_is_no_external_id_is_refused_when_the_job_is_created(door: Door) -> None:
    body = {"object": "Opportunity", "operation": "upsert", "externalIdFieldName": "NextStep"}
    answer = door.client.post(f"{door.root}/jobs/ingest", json=body)

    assert answer.status_code == 400
    assert answer.json()[0]["errorCode"] == "INVALIDJOB"


def test_the_job_list_names_own_jobs_with_their_creator(door: Door) -> None:
    job = door.new_job()
    user = door.client.get("/services/oauth2/userinfo").json()["user_id"]

    listed = {
        found["id"]: found for found in door.json("GET", "/jobs/ingest", params={"jobType": "V2Ingest"})["records"]
    }

    assert listed[job["id"]]["createdById"] == user
    assert listed[job["id"]]["state"] == "Open"
    door.json("PATCH", f"/jobs/ingest/{job['id']}", json={"state": "Aborted"})


# Query jobs


def test_a_query_job_hands_out_quoted_pages_until_its_locator_is_null(door: Door) -> None:
    door.load("External_ID__c,Name,StageName,CloseDate\n" + "".join(f"contract-{n},N{n},{GOOD}\n" for n in range(25)))
    soql = "SELECT Id, External_ID__c, Name FROM Opportunity WHERE External_ID__c LIKE 'contract-%'"
    job = door.json("POST", "/jobs/query", json={"operation": "query", "query": soql})
    ended = door.ended(f"/jobs/query/{job['id']}")
    keys: list[str] = []
    locator: str | None = None
    while locator != "null":
        params = {"maxRecords": "10", **({} if locator is None else {"locator": locator})}
        page = door.client.get(f"{door.root}/jobs/query/{job['id']}/results", params=params)
        rows = rows_of(page.text)
        assert page.text.startswith('"Id","External_ID__c","Name"\n')
        assert len(rows) == int(page.headers["sforce-numberofrecords"]) <= 10
        keys += [row["External_ID__c"] for row in rows]
        locator = page.headers["sforce-locator"]

    assert ended["numberRecordsProcessed"] == 25
    assert sorted(keys) == sorted(f"contract-{n}" for n in range(25))
    assert door.client.delete(f"{door.root}/jobs/query/{job['id']}").status_code == 204


def test_bulk_query_refuses_to_count(door: Door) -> None:
    body = {"operation": "query", "query": "SELECT COUNT() FROM Opportunity"}
    answer = door.client.post(f"{door.root}/jobs/query", json=body)
    if answer.is_success:  # some releases only say so when the job runs
        assert door.ended(f"/jobs/query/{answer.json()['id']}")["state"] == "Failed"
    else:
        assert answer.status_code == 400


# REST


def test_count_says_how_many_rows_there_are_and_names_none(door: Door) -> None:
    door.load("External_ID__c,Name,StageName,CloseDate\n" + "".join(f"contract-{n},N,{GOOD}\n" for n in range(7)))

    counted = door.json(
        "GET", "/query", params={"q": "SELECT COUNT() FROM Opportunity WHERE External_ID__c LIKE 'contract-%'"}
    )

    assert (counted["totalSize"], counted["done"], counted["records"]) == (7, True, [])


def test_describe_tells_key_length_and_what_is_required(door: Door) -> None:
    fields = {field["name"]: field for field in door.json("GET", "/sobjects/Opportunity/describe")["fields"]}

    assert fields["External_ID__c"]["externalId"] is True
    assert fields["Name"]["length"] == 120
    assert [fields[name]["nillable"] for name in ("Name", "StageName", "CloseDate")] == [False, False, False]


def test_every_answer_says_how_many_calls_are_used(door: Door) -> None:
    answer = door.client.get(f"{door.root}/limits")
    used, _, allowed = answer.headers["sforce-limit-info"].removeprefix("api-usage=").partition("/")

    assert 0 < int(used) <= int(allowed)
    assert answer.json()["DailyApiRequests"]["Max"] == int(allowed)


def test_collections_upsert_answers_in_the_order_of_its_records(door: Door) -> None:
    records = [
        {"attributes": {"type": "Opportunity"}, "External_ID__c": f"contract-{n}", "Name": name, "StageName": "Qualification",
         "CloseDate": "2026-12-31"}
        for n, name in enumerate(["a", None, "c"])
    ]  # fmt: skip
    saved = door.json(
        "PATCH", "/composite/sobjects/Opportunity/External_ID__c", json={"allOrNone": False, "records": records}
    )

    assert [row["success"] for row in saved] == [True, False, True]
    assert saved[1]["errors"][0]["statusCode"] == "REQUIRED_FIELD_MISSING"


# Data Cloud


def statement(door: Door, sql: str, **more: Any) -> dict[str, Any]:
    """A statement that is complete: its status, and all of its rows."""
    params = {"dataspace": "default", "workloadName": "contract"}
    answer = door.json("POST", QUERY, params=params, json={"sql": sql, "rowLimit": 50_000, **more})
    query_id = answer["status"]["queryId"]
    status = answer["status"]
    while status["completionStatus"] not in ("ResultsProduced", "Finished"):
        looked = door.json("GET", f"{QUERY}/{query_id}", params={**params, "waitTimeMs": "10000"})
        status = looked.get("status", looked)
    rows: list[Any] = []
    while len(rows) < int(status["rowCount"]):
        page = door.json("GET", f"{QUERY}/{query_id}/rows", params={**params, "offset": len(rows), "rowLimit": 50_000})
        assert page["data"]
        rows += page["data"]
    return {"id": query_id, "status": status, "rows": rows, "params": params}


def test_a_statement_is_read_to_its_last_row_by_offset(door: Door) -> None:
    (count,) = statement(door, COUNT)["rows"][0]

    keys = [key for (key,) in statement(door, KEYS)["rows"]]

    assert len(keys) == int(count)
    if door.org is not None:
        assert int(count) == ROWS


def test_text_is_ordered_by_its_utf8_bytes(door: Door) -> None:
    keys = [key for (key,) in statement(door, KEYS)["rows"]]

    assert keys == sorted(keys)


def test_parameters_are_values_whatever_they_hold(door: Door) -> None:
    hostile = "x' OR '1'='1"
    sql = 'SELECT count(*) FROM "ExtOpportunities__dlm" WHERE "ExternalId__c" = :k0'
    found = statement(door, sql, sqlParameters=[{"name": "k0", "type": "Varchar", "value": hostile}])

    assert int(found["rows"][0][0]) == 0


def test_an_offset_at_the_end_is_refused(door: Door) -> None:
    found = statement(door, COUNT)
    answer = door.client.get(
        f"{door.root}{QUERY}/{found['id']}/rows", params={**found["params"], "offset": 1, "rowLimit": 10}
    )

    assert answer.status_code == 400


def test_an_unknown_statement_is_refused(door: Door) -> None:
    params = {"dataspace": "default"}
    answer = door.client.get(
        f"{door.root}{QUERY}/MTAuMjIuMTQ4LjE4MTo3NDg0_00000000-0000-0000-0000-000000000000", params=params
    )

    assert answer.status_code in (400, 404)


@pytest.mark.parametrize(
    "sql", ["SELEC 1", 'SELECT "nothing" FROM "ExtOpportunities__dlm"', 'SELECT 1 FROM "nowhere__dlm"']
)
def test_a_bad_statement_is_a_400_with_its_reason(door: Door, sql: str) -> None:
    answer = door.client.post(f"{door.root}{QUERY}", params={"dataspace": "default"}, json={"sql": sql})

    assert answer.status_code == 400
    assert answer.json()[0]["message"]


def test_a_statement_can_be_deleted(door: Door) -> None:
    found = statement(door, COUNT)

    assert door.client.delete(f"{door.root}{QUERY}/{found['id']}", params=found["params"]).status_code in (200, 204)
