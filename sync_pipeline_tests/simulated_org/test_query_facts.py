"""What the org tells of a query without its rows."""

from __future__ import annotations

from typing import Any

import pytest

from sync_pipeline.simulated_org.standing import put_rows
from sync_pipeline_tests.simulated_org.conftest import Asker


def columns(asked: Asker, soql: str) -> dict[str, Any]:
    told: dict[str, Any] = asked.json("GET", "/query", params={"q": soql, "columns": "true"})
    return told


def named(found: dict[str, Any], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(one[name] for name in names) for one in found["columnMetadata"]]


def test_columns_have_the_names_of_describe_and_those_of_the_query(asked: Asker) -> None:
    told = columns(asked, "SELECT id, name, Amount, closeDate, IsWon, External_ID__c FROM Opportunity")

    assert named(told, "columnName", "displayName", "apexType") == [
        ("Id", "id", "Id"), ("Name", "name", "String"), ("Amount", "Amount", "Decimal"), ("CloseDate", "closeDate", "Date"),
        ("IsWon", "IsWon", "Boolean"), ("External_ID__c", "External_ID__c", "String"),
    ]  # fmt: skip
    assert (told["entityName"], told["keyPrefix"], told["idSelected"], told["groupBy"]) == (
        "Opportunity",
        "006",
        True,
        False,
    )
    amount, won, key = (told["columnMetadata"][place] for place in (2, 4, 5))
    assert (amount["numberType"], amount["textType"], amount["booleanType"]) == (True, False, False)
    assert (won["booleanType"], won["insertable"], won["updatable"]) == (True, False, False)
    assert (key["custom"], key["insertable"], key["joinColumns"], key["aggregate"]) == (True, True, [], False)


def test_columns_of_a_parent_are_within_one_of_its_name(asked: Asker) -> None:
    told = columns(asked, "SELECT Name, Account.Name, Owner.Name, Account.Industry FROM Opportunity")

    assert named(told, "columnName", "apexType") == [("Name", "String"), ("Account", None), ("Owner", None)]
    assert [one["columnName"] for one in told["columnMetadata"][1]["joinColumns"]] == ["Name", "Industry"]
    assert told["idSelected"] is False


def test_columns_of_groups_are_called_as_the_groups_are(asked: Asker) -> None:
    told = columns(
        asked, "SELECT StageName, COUNT(Id), MAX(CloseDate) latest, SUM(Amount) FROM Opportunity GROUP BY StageName"
    )

    assert named(told, "columnName", "aggregate", "apexType") == [
        ("StageName", False, "String"), ("expr0", True, "Integer"), ("latest", True, "Date"), ("expr1", True, "Double"),
    ]  # fmt: skip
    assert told["groupBy"] is True
    assert columns(asked, "SELECT COUNT() FROM Opportunity")["columnMetadata"] == []


@pytest.mark.parametrize("name", ["columns", "explain"])
def test_a_wrong_query_is_refused_as_ever(asked: Asker, name: str) -> None:
    wrong = "SELECT Nme FROM Opportunity"
    query = {"q": wrong, "columns": "true"} if name == "columns" else {"explain": wrong}

    answer = asked.ask("GET", "/query", params=query)

    assert (answer.status_code, answer.json()[0]["errorCode"]) == (400, "INVALID_FIELD")


def test_a_query_by_key_is_explained_by_its_index_and_any_other_by_a_scan(asked: Asker) -> None:
    put_rows(asked.org, "Opportunity", [{"External_ID__c": f"k{n:02}"} for n in range(40)])

    def plans(where: str) -> list[dict[str, Any]]:
        found = asked.json("GET", "/query", params={"explain": f"SELECT Id FROM Opportunity WHERE {where} LIMIT 1"})[
            "plans"
        ]
        return list(found)

    by_key, scan = plans("External_ID__c IN ('k01', 'k02')")
    assert (by_key["leadingOperationType"], by_key["fields"], by_key["cardinality"]) == ("Index", ["External_ID__c"], 2)
    assert (scan["leadingOperationType"], scan["fields"], scan["sobjectCardinality"]) == ("TableScan", [], 40)
    assert by_key["relativeCost"] == 0.5
    (only,) = plans("Amount = 1")
    assert (only["leadingOperationType"], only["cardinality"], only["sobjectType"]) == ("TableScan", 0, "Opportunity")
    assert only["relativeCost"] > 1
