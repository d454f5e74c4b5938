"""Fields of an Opportunity that follow from its stage and its close date."""

from __future__ import annotations

import csv
import io
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.simulated_org.objects import STAGES, find_object
from sync_pipeline.simulated_org.standing import put_rows
from sync_pipeline_tests.simulated_org.conftest import Asker

FIELDS = "Name, Fiscal, FiscalYear, FiscalQuarter, ForecastCategory, ForecastCategoryName, LeadSource"


def described(asked: Asker) -> dict[str, Any]:
    fields = asked.json("GET", "/sobjects/Opportunity/describe")["fields"]
    return {found["name"]: found for found in fields}


def test_describe_shows_them_as_the_object_reference_does(asked: Asker) -> None:
    fields = described(asked)

    shown = {
        name: (fields[name]["type"], fields[name]["createable"], fields[name]["updateable"], fields[name]["nillable"])
        for name in FIELDS.split(", ")[1:]
    }
    assert shown == {
        "Fiscal": ("string", False, False, True),
        "FiscalYear": ("int", False, False, True),
        "FiscalQuarter": ("int", False, False, True),
        "ForecastCategory": ("picklist", False, False, False),
        "ForecastCategoryName": ("picklist", True, True, True),
        "LeadSource": ("picklist", True, True, True),
    }
    names = [one["value"] for one in fields["ForecastCategoryName"]["picklistValues"]]
    assert names == ["Best Case", "Closed", "Commit", "Most Likely", "Omitted", "Pipeline"]
    assert fields["ForecastCategoryName"]["restrictedPicklist"] is True
    assert fields["LeadSource"]["restrictedPicklist"] is False


@given(st.sampled_from([*STAGES, None]), st.none() | st.dates(date(1700, 1, 1), date(4000, 12, 31)))
def test_they_follow_from_stage_and_close_date(org_of_all: Asker, stage: str | None, close: date | None) -> None:
    (row_id,) = put_rows(org_of_all.org, "Opportunity", [{"Name": "n", "StageName": stage, "CloseDate": close}])

    (found,) = org_of_all.json(
        "GET", "/query", params={"q": f"SELECT {FIELDS} FROM Opportunity WHERE Id = '{row_id}'"}
    )["records"]

    quarter = None if close is None else (close.month + 2) // 3
    assert found["FiscalYear"] == (None if close is None else close.year)
    assert found["FiscalQuarter"] == quarter
    assert found["Fiscal"] == (None if close is None else f"{close.year} {quarter}")
    category = {None: None, "Closed Won": "Closed", "Closed Lost": "Omitted"}.get(stage, "Pipeline")
    assert (found["ForecastCategory"], found["ForecastCategoryName"]) == (category, category)


@pytest.fixture(scope="module")
def org_of_all(tmp_path_factory: pytest.TempPathFactory) -> Asker:
    from sync_pipeline.simulated_org.state import Org
    from sync_pipeline_tests.simulated_org.conftest import asker

    return asker(Org(tmp_path_factory.mktemp("org")))


def test_they_are_asked_for_grouped_and_sorted_by_like_any_other(asked: Asker) -> None:
    put_rows(
        asked.org, "Opportunity",
        [{"Name": "a", "StageName": "Closed Won", "CloseDate": date(2026, 5, 1)},
         {"Name": "b", "StageName": "Prospecting", "CloseDate": date(2027, 1, 1)},
         {"Name": "c", "StageName": "Prospecting", "CloseDate": date(2026, 6, 30)}],
    )  # fmt: skip

    def query(soql: str) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = asked.json("GET", "/query", params={"q": soql})["records"]
        return records

    where = "SELECT Name FROM Opportunity WHERE Fiscal = '2026 2' AND ForecastCategoryName != 'Closed'"
    assert [one["Name"] for one in query(where)] == ["c"]
    assert [one["Name"] for one in query("SELECT Name FROM Opportunity ORDER BY FiscalYear DESC, Name")] == [
        "b",
        "a",
        "c",
    ]
    groups = query("SELECT ForecastCategory, COUNT(Id) n FROM Opportunity GROUP BY ForecastCategory")
    assert {one["ForecastCategory"]: one["n"] for one in groups} == {"Closed": 1, "Pipeline": 2}


def test_a_forecast_category_that_somebody_wrote_is_kept_and_a_bulk_query_shows_it(asked: Asker) -> None:
    deal = {"Name": "n", "StageName": "Prospecting", "CloseDate": "2026-04-01"}
    assert asked.ask(
        "PATCH", "/sobjects/Opportunity/External_ID__c/k", json={**deal, "ForecastCategoryName": "Best Case"}
    )
    refused = asked.ask("PATCH", "/sobjects/Opportunity/External_ID__c/k", json={"FiscalYear": 2030})
    wrong = asked.ask("PATCH", "/sobjects/Opportunity/External_ID__c/k", json={"ForecastCategoryName": "Surely"})

    query = "SELECT ForecastCategory, ForecastCategoryName, FiscalYear, Fiscal FROM Opportunity"
    job_id = asked.json("POST", "/jobs/query", json={"operation": "query", "query": query})["id"]
    asked.json("GET", f"/jobs/query/{job_id}")
    (row,) = csv.DictReader(io.StringIO(asked.ask("GET", f"/jobs/query/{job_id}/results").text))

    assert refused.json()[0]["errorCode"] == "INVALID_FIELD_FOR_INSERT_UPDATE"
    assert wrong.json()[0]["errorCode"] == "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"
    assert row == {
        "ForecastCategory": "BestCase", "ForecastCategoryName": "Best Case", "FiscalYear": "2026", "Fiscal": "2026 2",
    }  # fmt: skip


def test_rows_hold_only_what_somebody_wrote(asked: Asker) -> None:
    opportunity = find_object(asked.org, "Opportunity")
    assert opportunity is not None

    assert set(opportunity.schema) - set(opportunity.stored) == {
        "Fiscal", "FiscalYear", "FiscalQuarter", "ForecastCategory",
    }  # fmt: skip
