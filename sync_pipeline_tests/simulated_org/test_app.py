"""The way to a route, the same at both doors: paths, versions, methods, lengths, codings."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_pipeline_tests.simulated_org.conftest import ROOT, Asker

DEAL = {"Name": "Acme", "StageName": "Prospecting", "CloseDate": "2026-04-01"}
INVALID = ("INVALID_SESSION_ID", "Session expired or invalid")


def error(answer: Any) -> tuple[int, str]:
    (told,) = answer.json()
    return answer.status_code, told["errorCode"]


# paths and versions


@given(st.lists(st.integers(1, 4), min_size=4, max_size=4), st.integers(0, 3))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_number_of_slashes_is_one(asked: Asker, slashes: list[int], last: int) -> None:
    one, two, three, four = ("/" * count for count in slashes)

    answer = asked.client.get(f"https://embedded.invalid{one}services{two}data{three}v66.0{four}limits{'/' * last}")

    assert answer.status_code == 200
    assert "DailyApiRequests" in answer.json()


def test_a_slash_within_a_key_stays_one(asked: Asker) -> None:
    assert asked.ask("PATCH", "/sobjects/Opportunity/External_ID__c/a%2F%2Fb", json=DEAL).status_code == 201

    assert asked.json("GET", "/sobjects/Opportunity/External_ID__c/a%2F%2Fb")["External_ID__c"] == "a//b"


def test_the_versions_of_every_client_in_use_are_spoken(asked: Asker) -> None:
    listed = asked.client.get("/services/data").json()

    assert [one["version"] for one in listed] == [f"{number}.0" for number in range(31, 69)]
    assert listed[0] == {"label": "Summer '14", "url": "/services/data/v31.0", "version": "31.0"}
    assert [one["label"] for one in listed if one["version"] in ("48.0", "51.0", "66.0", "67.0")] == [
        "Spring '20", "Spring '21", "Spring '26", "Summer '26",
    ]  # fmt: skip
    for one in listed:
        assert asked.client.get(f"{one['url']}/sobjects").status_code == 200, one
    assert error(asked.client.get("/services/data/v30.0/sobjects")) == (410, "UNSUPPORTED_API_VERSION")
    assert error(asked.client.get("/services/data/v69.0/sobjects")) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "since"),
    [("GET", "jobs/ingest", 41), ("GET", "jobs/query", 47), ("GET", "limits/recordCount", 40), ("POST", "composite", 38),
     ("POST", "composite/batch", 34), ("POST", "composite/sobjects", 42),
     ("PATCH", "composite/sobjects/Opportunity/External_ID__c", 46)],
)  # fmt: skip
def test_what_came_with_a_version_is_not_in_an_older_one(asked: Asker, method: str, path: str, since: int) -> None:
    before = asked.client.request(method, f"/services/data/v{since - 1}.0/{path}", json={})

    assert error(before) == (404, "NOT_FOUND")
    assert asked.client.request(method, f"/services/data/v{since}.0/{path}", json={}).status_code in (200, 400)


@pytest.mark.parametrize(
    ("version", "named", "absent"),
    [("48.0", "DailyBulkApiRequests", "DailyBulkApiBatches"), ("49.0", "DailyBulkApiBatches", "DailyBulkApiRequests"),
     ("46.0", "DailyApiRequests", "DailyBulkV2QueryJobs"), ("47.0", "DailyBulkV2QueryJobs", "DailyAsyncApexTests")],
)  # fmt: skip
def test_limits_have_the_names_of_their_version(asked: Asker, version: str, named: str, absent: str) -> None:
    limits = asked.client.get(f"/services/data/v{version}/limits").json()

    assert named in limits
    assert absent not in limits


# who is let in


def test_a_path_that_is_not_there_is_a_404_and_sends_nobody_into_a_new_login(asked: Asker) -> None:
    for path in ("/", "/services/apexrest/x", "/services/oauth2/nothing", "/secur/frontdoor.jsp"):
        for headers in ({}, {"Authorization": ""}, {"Authorization": "Bearer somebody's"}):
            assert error(asked.client.get(path, headers=headers)) == (404, "NOT_FOUND"), path
    assert error(asked.ask("GET", "/chatter/users/me")) == (404, "NOT_FOUND")
    assert error(asked.ask("GET", "/search?q=FIND+{x}")) == (404, "NOT_FOUND")
    assert error(asked.ask("GET", "/limits", headers={"Authorization": "Bearer somebody's"})) == (401, INVALID[0])


# HEAD, and how an answer looks


@pytest.mark.parametrize(
    "path", ["/limits", "/sobjects/Opportunity/describe", "/jobs/ingest", "/query?q=SELECT+Id+FROM+User"]
)
def test_head_answers_the_headers_of_get(asked: Asker, path: str) -> None:
    whole, head = asked.ask("GET", path), asked.ask("HEAD", path)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert head.headers["content-length"] == whole.headers["content-length"]


def test_head_of_what_is_not_there_says_so_without_a_word(asked: Asker) -> None:
    for path, status in (("/nothing", 404), ("/sobjects/Opportunity/006000000000000AAA", 404), ("/composite", 405)):
        answer = asked.ask("HEAD", path)
        assert (answer.status_code, answer.content) == (status, b""), path


def test_pretty_print_lays_json_out_over_lines_and_changes_no_value(asked: Asker) -> None:
    asked.json("POST", "/sobjects/Opportunity", json={**DEAL, "Amount": 12345678.5})
    path = "/query?q=SELECT+Name,Amount+FROM+Opportunity"

    plain, pretty = asked.ask("GET", path), asked.ask("GET", path, headers={"X-PrettyPrint": "1"})

    assert pretty.json() == plain.json()
    assert b"1.23456785E7" in pretty.content
    assert plain.text.count("\n") == 0
    assert pretty.text.count("\n") > 10
    assert asked.ask("GET", path, headers={"X-PrettyPrint": "0"}).content == plain.content


# how long a request may be, and how it is packed


@pytest.mark.parametrize(
    ("target", "header", "status"), [(16_000, 10, 200), (16_500, 0, 414), (10, 16_500, 431), (9_000, 9_000, 431)]
)
def test_a_head_of_more_than_16384_bytes_is_refused(asked: Asker, target: int, header: int, status: int) -> None:
    path = f"/limits?x={'x' * (target - len(ROOT) - 11)}"

    assert asked.ask("GET", path, headers={"X-Long": "y" * header}).status_code == status


def packed(coding: str, body: bytes) -> bytes:
    return gzip.compress(body) if coding == "gzip" else zlib.compress(body)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_packed_body_is_unpacked(asked: Asker, coding: str) -> None:
    body = packed(coding, b'{"Name": "Acme", "StageName": "Prospecting", "CloseDate": "2026-04-01"}')
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}

    answer = asked.ask("PATCH", "/sobjects/Opportunity/External_ID__c/k1", content=body, headers=headers)

    assert answer.status_code == 201, answer.text
    assert asked.json("GET", "/sobjects/Opportunity/External_ID__c/k1")["Name"] == "Acme"


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", b"no gzip at all", 400),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-9], 400),
        ("br", b"{}", 415),
        ("identity", b"{}", 400),
    ],
)
def test_a_body_that_cannot_be_unpacked_is_refused(asked: Asker, coding: str, body: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}

    assert asked.ask("POST", "/sobjects/Opportunity", content=body, headers=headers).status_code == status
