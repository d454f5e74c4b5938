"""Batches of requests that know nothing of each other."""

from __future__ import annotations

from typing import Any

import pytest

from sync_pipeline_tests.simulated_org.conftest import ROOT, Asker

DEAL = {"Name": "n", "StageName": "Prospecting", "CloseDate": "2026-04-01"}


def batch(asked: Asker, *requests: dict[str, Any], halt: bool = False) -> dict[str, Any]:
    told: dict[str, Any] = asked.json(
        "POST", "/composite/batch", json={"batchRequests": list(requests), "haltOnError": halt}
    )
    return told


def request(method: str, url: str, body: object = None) -> dict[str, Any]:
    return {"method": method, "url": url, **({} if body is None else {"richInput": body})}


def test_a_batch_runs_in_order_and_sees_what_it_has_done(asked: Asker) -> None:
    told = batch(
        asked,
        request("PATCH", "v66.0/sobjects/opportunity/External_ID__c/k%2F1", DEAL),
        request("GET", "v65.0/sobjects/Opportunity/External_ID__c/k%2F1?fields=Name,StageName"),
        request("get", "/v66.0/query/?q=SELECT+COUNT()+FROM+Opportunity"),
        request("GET", "services/data/v34.0/limits"),
        request("DELETE", "v66.0/sobjects/Opportunity/006000000000000AAA"),
        request("PATCH", "v66.0/sobjects/Opportunity/External_ID__c/k%2F1", {"Name": "changed"}),
    )

    assert [one["statusCode"] for one in told["results"]] == [201, 200, 200, 200, 404, 200]
    assert told["hasErrors"] is True
    created, read, counted, limits, gone, _ = (one["result"] for one in told["results"])
    assert (created["created"], read["Name"], counted["totalSize"]) == (True, "n", 1)
    assert read["attributes"]["url"] == f"/services/data/v65.0/sobjects/Opportunity/{created['id']}"
    assert "DailyBulkApiRequests" in limits
    assert gone[0]["errorCode"] == "NOT_FOUND"
    assert asked.json("GET", "/sobjects/Opportunity/External_ID__c/k%2F1")["Name"] == "changed"


def test_a_batch_that_shall_halt_runs_nothing_behind_an_error(asked: Asker) -> None:
    requests = [
        request("POST", "v66.0/sobjects/Opportunity", DEAL), request("POST", "v66.0/sobjects/Opportunity", {}),
        request("POST", "v66.0/sobjects/Opportunity", DEAL), request("GET", "v66.0/limits"),
    ]  # fmt: skip

    halted, whole = batch(asked, *requests, halt=True), batch(asked, *requests)

    assert [one["statusCode"] for one in halted["results"]] == [201, 400, 412, 412]
    assert halted["results"][2]["result"][0]["errorCode"] == "BATCH_PROCESSING_HALTED"
    assert [one["statusCode"] for one in whole["results"]] == [201, 400, 201, 200]
    assert asked.json("GET", "/query?q=SELECT+COUNT()+FROM+Opportunity")["totalSize"] == 3


def test_each_request_of_a_batch_is_a_call(asked: Asker) -> None:
    batch(asked, request("GET", "v66.0/limits"), request("GET", "v66.0/nothing"))

    assert asked.org.usage()[0] == 3


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [("v67.0/limits", 400, "INVALID_BATCH_REQUEST"), ("v33.0/limits", 400, "INVALID_BATCH_REQUEST"),
     ("https://elsewhere.example/x", 400, "INVALID_BATCH_REQUEST"), ("v66.0/jobs/ingest", 404, "NOT_FOUND"),
     ("v66.0/composite/batch", 404, "NOT_FOUND"), ("v34.0/limits/recordCount", 404, "NOT_FOUND")],
)  # fmt: skip
def test_what_a_batch_does_not_run_is_refused_in_its_place(asked: Asker, url: str, status: int, code: str) -> None:
    (one,) = batch(asked, request("GET", url))["results"]

    assert (one["statusCode"], one["result"][0]["errorCode"]) == (status, code)


def test_a_batch_has_at_most_25_requests(asked: Asker) -> None:
    requests = [request("GET", "v66.0/limits")] * 26

    answer = asked.ask("POST", "/composite/batch", json={"batchRequests": requests})

    assert (answer.status_code, answer.json()[0]["errorCode"]) == (400, "LIMIT_EXCEEDED")


@pytest.mark.parametrize("headers", [{"Ünicode": "x"}, {"X": "ünicode"}])
def test_a_subrequest_that_is_no_request_is_refused_in_its_place(asked: Asker, headers: dict[str, str]) -> None:
    strange = {"method": "GET", "url": f"{ROOT}/limits", "referenceId": "a", "httpHeaders": headers}

    (one,) = asked.json("POST", "/composite", json={"compositeRequest": [strange]})["compositeResponse"]

    assert one["httpStatusCode"] == 400
