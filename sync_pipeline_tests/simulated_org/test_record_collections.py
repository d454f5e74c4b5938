"""Collections that are read, trees that are planted, and records by the time of their last change."""

from __future__ import annotations

from typing import Any

import pytest

from sync_pipeline.simulated_org.standing import put_rows
from sync_pipeline_tests.simulated_org.conftest import Asker

DEAL = {"Name": "n", "StageName": "Prospecting", "CloseDate": "2026-04-01"}


def codes(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()[0]["errorCode"]


# reading


def test_records_are_read_in_the_order_of_their_ids_with_null_where_there_is_none(asked: Asker) -> None:
    first, second = put_rows(asked.org, "Account", [{"Name": "one"}, {"Name": "two"}])
    (deal,) = put_rows(asked.org, "Opportunity", [{"Name": "deal"}])
    ids = [second[:15], "001000000000000AAA", deal, first, "nonsense", second]

    listed = asked.json("POST", "/composite/sobjects/Account", json={"ids": ids, "fields": ["name"]})
    shown = asked.json("GET", f"/composite/sobjects/Account?ids={','.join(ids)}&fields=id,Name")

    assert [one and one["Name"] for one in listed] == ["two", None, None, "one", None, "two"]
    assert listed[0]["attributes"]["url"].endswith(f"/sobjects/Account/{second}")
    assert shown == listed


def test_a_collection_that_cannot_be_read_is_refused(asked: Asker) -> None:
    path = "/composite/sobjects/Account"

    assert codes(asked.ask("POST", path, json={"ids": ["001000000000000AAA"], "fields": ["Nme"]})) == (
        400,
        "INVALID_FIELD",
    )
    assert codes(asked.ask("GET", f"{path}?ids=001000000000000AAA")) == (400, "REQUIRED_FIELD_MISSING")
    assert codes(asked.ask("POST", path, json={"ids": "001"})) == (400, "JSON_PARSER_ERROR")
    many = {"ids": ["001000000000000AAA"] * 2_001, "fields": ["Id"]}
    assert codes(asked.ask("POST", path, json=many)) == (400, "EXCEEDED_ID_LIMIT")
    assert codes(asked.ask("POST", "/composite/sobjects/Nothing", json={"ids": ["x"], "fields": ["Id"]})) == (
        404,
        "NOT_FOUND",
    )


# trees


def planted(kind: str, reference: str, **fields: Any) -> dict[str, Any]:
    return {"attributes": {"type": kind, "referenceId": reference}, **fields}


def test_a_tree_is_planted_with_its_children_for_one_call(asked: Asker) -> None:
    children = {"records": [planted("Opportunity", "d1", **DEAL), planted("Opportunity", "d2", **DEAL, Amount=7)]}
    records = [planted("Account", "a1", Name="one", Opportunities=children), planted("Account", "a2", Name="two")]

    answer = asked.ask("POST", "/composite/tree/Account", json={"records": records})

    ids = {one["referenceId"]: one["id"] for one in answer.json()["results"]}
    assert (answer.status_code, answer.json()["hasErrors"], list(ids)) == (201, False, ["a1", "d1", "d2", "a2"])
    assert asked.org.usage()[0] == 1
    soql = "SELECT Account.Name, Amount FROM Opportunity ORDER BY Amount"
    deals = asked.json("GET", "/query", params={"q": soql})["records"]
    assert [(deal["Account"]["Name"], deal["Amount"]) for deal in deals] == [("one", None), ("one", 7.0)]


def test_a_tree_of_which_one_record_is_refused_leaves_nothing_behind(asked: Asker) -> None:
    children = {"records": [planted("Opportunity", "d1", **DEAL), planted("Opportunity", "d2", Name="no stage")]}

    answer = asked.ask(
        "POST",
        "/composite/tree/Account",
        json={"records": [planted("Account", "a1", Name="one", Opportunities=children)]},
    )

    (refused,) = answer.json()["results"]
    assert (answer.status_code, answer.json()["hasErrors"], refused["referenceId"]) == (400, True, "d2")
    assert refused["errors"][0]["statusCode"] == "REQUIRED_FIELD_MISSING"
    assert asked.json("GET", "/query?q=SELECT+COUNT()+FROM+Account")["totalSize"] == 0


@pytest.mark.parametrize(
    ("records", "code"),
    [
        ([planted("Account", "a", Name="x"), planted("Account", "a", Name="y")], "INVALID_INPUT"),
        ([planted("Account", "", Name="x")], "INVALID_INPUT"),
        ([planted("Nothing", "a")], "INVALID_TYPE"),
        ([planted("Opportunity", "a", **DEAL)], "INVALID_TYPE"),
        ([planted("Account", "a", Name="x", Contacts={"records": []})], "INVALID_FIELD"),
        ([planted("Account", f"a{n}", Name="x") for n in range(201)], "EXCEEDED_ID_LIMIT"),
    ],
)
def test_a_tree_that_is_none_is_refused(asked: Asker, records: list[dict[str, Any]], code: str) -> None:
    answer = asked.ask("POST", "/composite/tree/Account", json={"records": records})

    assert answer.status_code == 400
    assert code in answer.text
    assert asked.json("GET", "/query?q=SELECT+COUNT()+FROM+Account")["totalSize"] == 0


# changed, deleted, seen


def test_records_that_were_changed_in_a_time_are_listed(asked: Asker) -> None:
    asked.org.set_setting("clock_offset", 1_773_156_600.0 - asked.org.now())  # 2026-03-10 15:30 UTC
    asked.json("POST", "/sobjects/Account", json={"Name": "earlier"})
    asked.org.advance(3_600)
    later = asked.json("POST", "/sobjects/Account", json={"Name": "later"})["id"]

    def updated(start: str, end: str) -> Any:
        return asked.ask("GET", "/sobjects/Account/updated/", params={"start": start, "end": end})

    both = updated("2026-03-10T15:00:00Z", "2026-03-10T16:31:59+00:00").json()
    assert (len(both["ids"]), both["latestDateCovered"]) == (2, "2026-03-10T16:30:00.000+0000")
    assert updated("2026-03-10T16:00:00.000Z", "2026-03-10T16:31:00Z").json()["ids"] == [later]
    assert updated("2026-03-10T16:31:00Z", "2026-03-10T17:00:00Z").json()["ids"] == []
    for start, end in (
        ("2026-03-10T16:00:00Z", "2026-03-10T16:00:30Z"), ("2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z"),
        ("yesterday", "2026-03-01T00:00:00Z"), ("0001-01-01T00:00:00+23:59", "9999-12-31T00:00:00Z"),
    ):  # fmt: skip
        assert codes(updated(start, end)) == (400, "INVALID_REPLICATION_DATE"), start


def test_records_that_were_deleted_in_a_time_are_listed_with_theirs(asked: Asker) -> None:
    asked.org.set_setting("clock_offset", 1_773_156_600.0 - asked.org.now())  # 2026-03-10 15:30 UTC
    ids = [asked.json("POST", "/sobjects/Account", json={"Name": name})["id"] for name in ("one", "two", "stays")]
    asked.ask("DELETE", f"/sobjects/Account/{ids[0]}")
    asked.org.advance(3_600)
    asked.ask("DELETE", f"/composite/sobjects?ids={ids[1]},{ids[0]}")

    def deleted(start: str, end: str, name: str = "Account") -> Any:
        return asked.ask("GET", f"/sobjects/{name}/deleted/", params={"start": start, "end": end})

    both = deleted("2026-03-10T15:00:00Z", "2026-03-11T00:00:00Z").json()
    assert [one["id"] for one in both["deletedRecords"]] == ids[:2]
    assert [one["deletedDate"][:16] for one in both["deletedRecords"]] == ["2026-03-10T15:30", "2026-03-10T16:30"]
    assert both["latestDateCovered"] == "2026-03-10T16:30:00.000+0000"
    assert deleted("2026-03-10T15:00:00Z", "2026-03-10T15:30:00Z").json()["deletedRecords"] == []
    assert deleted("2026-03-10T15:00:00Z", "2026-03-11T00:00:00Z", "Opportunity").json()["deletedRecords"] == []
    assert codes(deleted("2026-02-20T15:00:00Z", "2026-03-11T00:00:00Z")) == (400, "INVALID_REPLICATION_DATE")


def test_nobody_looks_at_records(asked: Asker) -> None:
    assert asked.json("GET", "/recent?limit=5") == []
