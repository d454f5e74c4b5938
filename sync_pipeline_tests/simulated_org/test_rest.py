"""The REST API of the core host, asked the way a client asks: one request, one answer, at the embedded door."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.simulated_org.allocations import (
    batches_left,
    count_batches,
    count_query_job,
    query_jobs_left,
)
from sync_pipeline.simulated_org.app import handle
from sync_pipeline.simulated_org.login import new_token
from sync_pipeline.simulated_org.standing import PROBABILITIES, put_rows
from sync_pipeline.simulated_org.state import Org

ROOT = "/services/data/v66.0"
NOW = 1_773_156_600.0
"""2026-03-10 15:30 UTC."""
DAY = 86_400.0
DEAL = {"Name": "Acme renewal", "StageName": "Prospecting", "CloseDate": "2026-04-01"}
STAMP = "2026-03-10T15:30:00.000+0000"


class Client:
    """Asks one org; every answer is JSON or nothing."""

    def __init__(self, org: Org, *, user_id: str | None = None) -> None:
        self.org = org
        self.token = new_token(org, kind="core", client="simulated", user_id=user_id or org.user_id)

    def send(self, method: str, path: str, *, json: Any = None, **headers: str) -> httpx.Response:
        request = httpx.Request(
            method,
            f"https://org.example{path if path.startswith('/') else f'{ROOT}/{path}'}",
            headers={"Authorization": f"Bearer {self.token}", **headers},
            json=json,
        )
        answer = handle(self.org, request)
        answer.read()
        return answer

    def get(self, path: str, **headers: str) -> Any:
        answer = self.send("GET", path, **headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def query(self, soql: str, *, verb: str = "query", **headers: str) -> Any:
        return self.get(f"{verb}?q={quote(soql)}", **headers)


@pytest.fixture
def org(tmp_path: Path) -> Org:
    return Org(tmp_path / "org", clock=lambda: NOW)


@pytest.fixture
def client(org: Org) -> Client:
    return Client(org)


@pytest.fixture(scope="module")
def client_of_many(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A client of an org that gathers rows."""
    return Client(Org(tmp_path_factory.mktemp("org"), clock=lambda: NOW))


def refused(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, code and last line of the message of an error, which is a list of one."""
    (error,) = answer.json()
    return answer.status_code, error["errorCode"], error["message"].rpartition("\n")[2]


# the door


def test_a_call_needs_a_token_and_is_counted(client: Client) -> None:
    answer = client.send("GET", "limits")
    assert answer.headers["sforce-limit-info"] == "api-usage=1/100000"
    assert answer.headers["content-type"] == "application/json;charset=UTF-8"

    client.token = "nobody's"
    assert refused(client.send("GET", "limits")) == (401, "INVALID_SESSION_ID", "Session expired or invalid")


def test_an_unknown_path_and_a_wrong_verb_are_told_apart(client: Client) -> None:
    assert refused(client.send("GET", "nothing")) == (404, "NOT_FOUND", "The requested resource does not exist")
    assert refused(client.send("PUT", "sobjects/Opportunity")) == (
        405, "METHOD_NOT_ALLOWED", "HTTP Method 'PUT' not allowed. Allowed are GET,HEAD,POST",
    )  # fmt: skip


# queries


def test_a_query_answers_records_with_their_type_and_path(org: Org, client: Client) -> None:
    (row_id,) = put_rows(
        org, "Opportunity",
        [{"Name": "one", "Amount": 12345678.0, "IsWon": True, "External_ID__c": None}],
    )  # fmt: skip
    soql = "SELECT Id, name, Amount, IsWon, External_ID__c, CreatedDate FROM Opportunity"

    assert client.query(soql) == {
        "totalSize": 1,
        "done": True,
        "records": [
            {
                "attributes": {"type": "Opportunity", "url": f"{ROOT}/sobjects/Opportunity/{row_id}"},
                "Id": row_id,
                "Name": "one",
                "Amount": 12345678.0,
                "IsWon": True,
                "External_ID__c": None,
                "CreatedDate": STAMP,
            }
        ],
    }


def test_a_count_is_the_size_of_an_answer_without_records(org: Org, client: Client) -> None:
    put_rows(org, "Opportunity", [{"External_ID__c": f"k{place}"} for place in range(5)])

    assert client.query("SELECT COUNT() FROM Opportunity WHERE External_ID__c > 'K2'") == {
        "totalSize": 2, "done": True, "records": [],
    }  # fmt: skip
    assert client.query("select count() from Opportunity limit 3")["totalSize"] == 3


def test_groups_are_records_of_their_own_type(org: Org, client: Client) -> None:
    put_rows(org, "Opportunity", [{"StageName": "Closed Won", "Amount": 1.5}, {"StageName": "Closed Won"}, {}])
    soql = "SELECT StageName, COUNT(Id) n, SUM(Amount) FROM Opportunity GROUP BY StageName ORDER BY StageName"

    assert client.query(soql) == {
        "totalSize": 2,
        "done": True,
        "records": [
            {"attributes": {"type": "AggregateResult"}, "StageName": None, "n": 1, "expr0": None},
            {"attributes": {"type": "AggregateResult"}, "StageName": "Closed Won", "n": 2, "expr0": 1.5},
        ],
    }


def test_more_groups_than_2000_are_refused(org: Org, client: Client) -> None:
    put_rows(org, "Opportunity", [{"Name": f"n{place}"} for place in range(2_001)])
    soql = quote("SELECT Name, COUNT(Id) FROM Opportunity GROUP BY Name")

    status, code, message = refused(client.send("GET", f"query?q={soql}"))
    assert (status, code) == (400, "EXCEEDED_ID_LIMIT")
    assert "does not support queryMore(), use LIMIT to restrict the results to a single batch" in message


def test_parents_are_records_within_the_record(org: Org, client: Client) -> None:
    (account,) = put_rows(org, "Account", [{"Name": "Acme"}])
    put_rows(org, "Opportunity", [{"Name": "a", "AccountId": account}, {"Name": "b"}])
    records = client.query("SELECT Name, Account.Name FROM Opportunity ORDER BY Name")["records"]

    assert records[0]["Account"] == {
        "attributes": {"type": "Account", "url": f"{ROOT}/sobjects/Account/{account}"}, "Name": "Acme",
    }  # fmt: skip
    assert records[1]["Account"] is None


def test_scheduled_and_running_apex_are_found_by_the_fields_of_their_parents(org: Org, client: Client) -> None:
    scheduled = (
        "SELECT CronJobDetail.Name, NextFireTime FROM CronTrigger WHERE CronJobDetail.JobType = '7' "
        "AND State IN ('WAITING', 'ACQUIRED') LIMIT 20"
    )
    running = "SELECT ApexClass.Name, JobType FROM AsyncApexJob WHERE Status IN ('Queued', 'Processing') LIMIT 20"
    assert client.query(scheduled)["totalSize"] == client.query(running)["totalSize"] == 0

    put_rows(
        org, "CronTrigger",
        [{"CronJobDetail.Name": "nightly", "CronJobDetail.JobType": "7", "State": "WAITING"},
         {"CronJobDetail.Name": "report", "CronJobDetail.JobType": "8", "State": "WAITING"}],
    )  # fmt: skip
    put_rows(org, "AsyncApexJob", [{"ApexClass.Name": "Roller", "JobType": "BatchApex", "Status": "Processing"}])

    (job,) = client.query(scheduled)["records"]
    assert job["CronJobDetail"] == {"attributes": {"type": "CronJobDetail"}, "Name": "nightly"}
    assert job["NextFireTime"] is None
    (apex,) = client.query(running)["records"]
    assert (apex["ApexClass"]["Name"], apex["JobType"]) == ("Roller", "BatchApex")


def test_a_fresh_org_has_its_organization_its_users_and_its_stages(org: Org, client: Client) -> None:
    (organization,) = client.query("SELECT Id, Name, IsSandbox FROM Organization")["records"]
    assert (organization["Id"], organization["Name"], organization["IsSandbox"]) == (org.org_id, "Simulated Org", False)

    users = client.query("SELECT Id FROM User WHERE IsActive = true ORDER BY Name")["records"]
    assert [user["Id"] for user in users] == [org.user_id, org.admin_id]
    assert client.get(f"sobjects/User/{org.user_id}")["Username"] == "integration@simulated.example"

    stages = client.query(
        "SELECT MasterLabel, IsClosed, IsWon, SortOrder, DefaultProbability FROM OpportunityStage ORDER BY SortOrder"
    )["records"]
    assert [stage["MasterLabel"] for stage in stages[:9]] == list(PROBABILITIES)
    assert [(s["MasterLabel"], s["IsWon"], s["SortOrder"]) for s in stages if s["IsClosed"]] == [
        ("Closed Won", True, 9), ("Closed Lost", False, 10),
    ]  # fmt: skip


def batches(client: Client, soql: str, **headers: str) -> Iterator[dict[str, Any]]:
    """All batches of a query, each asked of another opening of the org, as another process would."""
    answer = client.query(soql, **headers)
    yield answer
    while not answer["done"]:
        other = Client(Org(client.org.folder, clock=lambda: NOW))
        answer = other.get(answer["nextRecordsUrl"], **headers)
        yield answer


def test_a_long_answer_comes_in_batches_that_any_process_can_go_on_with(org: Org, client: Client) -> None:
    put_rows(org, "Opportunity", [{"External_ID__c": f"k{place:05}"} for place in range(4_500)])
    found = list(batches(client, "SELECT External_ID__c FROM Opportunity"))

    assert [(len(batch["records"]), batch["totalSize"], batch["done"]) for batch in found] == [
        (2_000, 4_500, False), (2_000, 4_500, False), (500, 4_500, True),
    ]  # fmt: skip
    assert found[0]["nextRecordsUrl"].startswith(f"{ROOT}/query/01g")
    assert found[0]["nextRecordsUrl"].endswith("-2000")
    assert "nextRecordsUrl" not in found[2]
    keys = {record["External_ID__c"] for batch in found for record in batch["records"]}
    assert keys == {f"k{place:05}" for place in range(4_500)}


@pytest.mark.parametrize(("asked", "given_rows"), [("200", 200), ("1", 200), ("1999", 1_999), ("9999", 2_000)])
def test_the_size_of_a_batch_may_be_asked_for_between_200_and_2000(
    org: Org, client: Client, asked: str, given_rows: int
) -> None:
    put_rows(org, "Opportunity", [{} for _ in range(2_100)])
    answer = client.query("SELECT Id FROM Opportunity", **{"Sforce-Query-Options": f"batchSize={asked}"})

    assert len(answer["records"]) == given_rows


def test_an_answer_that_fits_has_no_cursor(org: Org, client: Client) -> None:
    put_rows(org, "Opportunity", [{} for _ in range(2_000)])
    assert client.query("SELECT Id FROM Opportunity")["done"] is True


def test_a_cursor_keeps_the_rows_of_its_moment_and_may_be_read_again(org: Org, client: Client) -> None:
    ids = put_rows(org, "Opportunity", [{"External_ID__c": f"k{place:05}", "Name": "old"} for place in range(2_500)])
    first = client.query("SELECT Id, Name FROM Opportunity")
    put_rows(org, "Opportunity", [{"External_ID__c": "k02400", "Name": "new", "Id": ids[2_400]}, {"Name": "more"}])

    again = [client.get(first["nextRecordsUrl"]) for _ in range(2)]
    assert again[0] == again[1]
    assert (again[0]["totalSize"], len(again[0]["records"])) == (2_500, 500)
    assert {record["Name"] for record in again[0]["records"]} == {"old"}


def test_a_cursor_ends_after_two_days_and_belongs_to_one_user(org: Org, client: Client) -> None:
    put_rows(org, "Opportunity", [{} for _ in range(2_001)])
    following = client.query("SELECT Id FROM Opportunity")["nextRecordsUrl"]
    invalid = (400, "INVALID_QUERY_LOCATOR", "invalid query locator")

    assert refused(Client(org, user_id=org.admin_id).send("GET", following)) == invalid
    assert refused(client.send("GET", following.replace("-2000", "-2001"))) == invalid
    assert refused(client.send("GET", "query/01g000000000000AAA-2000")) == invalid
    assert refused(client.send("GET", "query/nonsense")) == invalid
    org.advance(2 * DAY - 1)
    assert len(Client(org).get(following)["records"]) == 1
    org.advance(1)
    assert refused(Client(org).send("GET", following)) == invalid


def test_rows_of_ended_cursors_are_swept(org: Org, client: Client) -> None:
    put_rows(org, "Opportunity", [{} for _ in range(2_001)])
    client.query("SELECT Id FROM Opportunity")
    org.advance(3 * DAY)
    Client(org).query("SELECT Id FROM Opportunity")

    assert len(list(org.files("cursors").iterdir())) == 1


def test_only_query_all_finds_deleted_records(org: Org, client: Client) -> None:
    put_rows(org, "Opportunity", [{"Name": "here"}, {"Name": "gone", "IsDeleted": True}])
    soql = "SELECT Name, IsDeleted FROM Opportunity ORDER BY Name"

    assert [record["Name"] for record in client.query(soql)["records"]] == ["here"]
    assert [record["Name"] for record in client.query(soql, verb="queryAll")["records"]] == ["gone", "here"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("query", "MALFORMED_QUERY"),
        ("query?q=SELECT", "MALFORMED_QUERY"),
        ("query?q=SELECT+Nme+FROM+Opportunity", "INVALID_FIELD"),
        ("query?q=SELECT+Id+FROM+Opportunty", "INVALID_TYPE"),
        ("query?q=SELECT+Id+FROM+Opportunity+WHERE+Id+%3D+'x'", "INVALID_QUERY_FILTER_OPERATOR"),
        ("query?q=SELECT+Id+FROM+Opportunity+OFFSET+2001", "NUMBER_OUTSIDE_VALID_RANGE"),
    ],
)
def test_a_wrong_query_is_a_400_with_its_code(client: Client, path: str, code: str) -> None:
    assert refused(client.send("GET", path))[:2] == (400, code)


def test_the_tooling_api_has_nothing(client: Client) -> None:
    answer = client.get("tooling/query?q=SELECT+Id+FROM+ApexClass")
    assert (answer["size"], answer["records"], answer["entityTypeName"]) == (0, [], "ApexClass")


TEXTS = st.text(min_size=1, max_size=120).filter(lambda text: text.strip(" \t\n\r") == text and text != "#N/A")


@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_records_written_over_json_are_found_by_their_text_and_read_back(
    client_of_many: Client, texts: list[str]
) -> None:
    records = [{"attributes": {"type": "Opportunity"}, **DEAL, "Name": text} for text in texts]
    saved = client_of_many.send("POST", "composite/sobjects", json={"records": records}).json()

    for text, row_id in zip(texts, [one["id"] for one in saved], strict=True):
        escaped = text.replace("\\", "\\\\").replace("'", "\\'")
        soql = f"SELECT Name FROM Opportunity WHERE Name = '{escaped}' AND Id = '{row_id}'"
        assert [record["Name"] for record in client_of_many.query(soql)["records"]] == [text]


# limits


def test_limits_show_what_was_used_of_calls_batches_and_query_jobs(org: Org, client: Client) -> None:
    count_batches(org, 7)
    count_batches(org, 3)
    count_query_job(org, jobs=2, result_bytes=5 * 1024 * 1024)
    put_rows(org, "Opportunity", [{} for _ in range(1_024)])
    limits = client.get("limits")

    assert limits["DailyApiRequests"] == {"Max": 100_000, "Remaining": 99_999}
    assert limits["DailyBulkApiBatches"] == {"Max": 15_000, "Remaining": 14_990}
    assert limits["DailyBulkV2QueryJobs"] == {"Max": 10_000, "Remaining": 9_998}
    assert limits["DailyBulkV2QueryFileStorageMB"] == {"Max": 976_562, "Remaining": 976_557}
    assert limits["DataStorageMB"] == {"Max": 102_400, "Remaining": 102_398}
    assert limits["FileStorageMB"] == {"Max": 10_240, "Remaining": 10_240}
    assert limits["PermissionSets"]["CreateCustom"] == {"Max": 1_000, "Remaining": 1_000}
    assert all(limit["Remaining"] <= limit["Max"] for limit in limits.values())


def test_batches_count_for_24_hours(org: Org) -> None:
    count_batches(org, 15_000)
    count_query_job(org, jobs=1)
    assert (batches_left(org), query_jobs_left(org)) == (0, 9_999)

    org.advance(DAY - 600)
    assert batches_left(org) == 0
    org.advance(600)
    assert (batches_left(org), query_jobs_left(org)) == (15_000, 10_000)


def test_maxima_and_the_use_of_others_are_knobs(org: Org, client: Client) -> None:
    org.set_setting("limits", {"DailyBulkApiBatches": {"Max": 100, "Used": 40}, "SingleEmail": {"Used": 9_999}})
    org.set_setting("api_max", 50)
    org.set_setting("api_used", 10)
    count_batches(org, 1)
    limits = client.get("limits")

    assert limits["DailyBulkApiBatches"] == {"Max": 100, "Remaining": 59}
    assert limits["SingleEmail"] == {"Max": 5_000, "Remaining": 0}
    assert limits["DailyApiRequests"] == {"Max": 50, "Remaining": 39}


def test_record_counts_are_told_by_object(org: Org, client: Client) -> None:
    put_rows(org, "Opportunity", [{}, {}, {}])

    assert client.get("limits/recordCount?sObjects=opportunity,User,Nothing__c") == {
        "sObjects": [{"count": 3, "name": "Opportunity"}, {"count": 2, "name": "User"}]
    }
    assert {"count": 3, "name": "Opportunity"} in client.get("limits/recordCount")["sObjects"]


# objects


def test_objects_are_listed_and_shown(client: Client) -> None:
    listed = client.get("sobjects")
    shown = client.get("sobjects/opportunity")

    assert listed["encoding"] == "UTF-8"
    assert [found["name"] for found in listed["sobjects"]] == sorted(found["name"] for found in listed["sobjects"])
    (opportunity,) = (found for found in listed["sobjects"] if found["name"] == "Opportunity")
    assert opportunity == shown["objectDescribe"]
    assert (opportunity["keyPrefix"], opportunity["labelPlural"], opportunity["custom"]) == (
        "006",
        "Opportunities",
        False,
    )
    assert opportunity["urls"]["describe"] == f"{ROOT}/sobjects/Opportunity/describe"


def test_describe_tells_everything_a_loader_asks_for(client: Client) -> None:
    described = client.get("sobjects/Opportunity/describe")
    fields = {field["name"]: field for field in described["fields"]}

    assert (described["name"], described["keyPrefix"], described["queryable"]) == ("Opportunity", "006", True)
    key = fields["External_ID__c"]
    assert (key["externalId"], key["unique"], key["idLookup"], key["caseSensitive"], key["length"]) == (
        True, True, True, False, 255,
    )  # fmt: skip
    amount = fields["Amount"]
    assert (amount["type"], amount["precision"], amount["scale"], amount["soapType"], amount["nillable"]) == (
        "currency", 18, 2, "xsd:double", True,
    )  # fmt: skip
    account = fields["AccountId"]
    assert (account["referenceTo"], account["relationshipName"]) == (["Account"], "Account")
    assert fields["CreatedById"]["relationshipName"] == "CreatedBy"
    stage = fields["StageName"]
    assert stage["restrictedPicklist"] is True
    assert stage["picklistValues"][0] == {
        "active": True, "defaultValue": False, "label": "Prospecting", "validFor": None, "value": "Prospecting",
    }  # fmt: skip
    assert (fields["Description"]["filterable"], fields["Name"]["filterable"], fields["Amount"]["groupable"]) == (
        False, True, False,
    )  # fmt: skip
    required = {
        name for name, field in fields.items()
        if field["createable"] and not field["nillable"] and not field["defaultedOnCreate"]
    }  # fmt: skip
    assert required == {"Name", "StageName", "CloseDate"}


def test_a_field_without_rights_is_absent_and_a_custom_object_is_there(org: Org, client: Client) -> None:
    org.set_setting("fields", {"Opportunity.Amount": {"hidden": True}})
    org.set_setting("objects", {"Visit__c": {"label": "Visit", "fields": {"Parent__c": {"type": "reference", "reference_to": ["Account"]}}}})  # fmt: skip

    assert "Amount" not in {field["name"] for field in client.get("sobjects/Opportunity/describe")["fields"]}
    visit = client.get("sobjects/Visit__c/describe")
    assert (visit["custom"], visit["fields"][-1]["relationshipName"]) == (True, "Parent__r")
    assert client.query("SELECT Id, Parent__r.Name FROM Visit__c")["records"] == []


def test_what_is_kept_of_a_parent_is_no_field_of_describe(client: Client) -> None:
    names = {field["name"] for field in client.get("sobjects/CronTrigger/describe")["fields"]}
    assert "State" in names
    assert not any("." in name for name in names)


@pytest.mark.parametrize("path", ["sobjects/Nothing", "sobjects/Nothing/describe", "sobjects/Nothing/006000000000001"])
def test_an_unknown_object_is_a_404(client: Client, path: str) -> None:
    assert refused(client.send("GET", path)) == (404, "NOT_FOUND", "The requested resource does not exist")


# single records


def test_a_record_is_created_read_changed_and_deleted(client: Client) -> None:
    created = client.send("POST", "sobjects/Opportunity", json={**DEAL, "Amount": 1250.5, "Description": "long"})
    row_id = created.json()["id"]
    assert (created.status_code, created.json()) == (201, {"id": row_id, "success": True, "errors": []})
    assert created.headers["location"] == f"{ROOT}/sobjects/Opportunity/{row_id}"

    record = client.get(f"sobjects/Opportunity/{row_id}")
    assert record["attributes"]["url"] == f"{ROOT}/sobjects/Opportunity/{row_id}"
    assert (record["Name"], record["Amount"], record["CloseDate"]) == ("Acme renewal", 1250.5, "2026-04-01")
    assert record["OwnerId"] == client.org.user_id

    changed = client.send(
        "PATCH",
        f"sobjects/Opportunity/{row_id[:15]}",
        json={"stagename": "Closed Won", "Amount": None, "Description": ""},
    )
    assert (changed.status_code, changed.content) == (204, b"")
    assert client.get(f"sobjects/Opportunity/{row_id}?fields=Name,StageName,Amount,Description,IsWon") == {
        "attributes": record["attributes"],
        "Name": "Acme renewal",
        "StageName": "Closed Won",
        "Amount": None,
        "Description": None,
        "IsWon": True,
    }

    assert client.send("DELETE", f"sobjects/Opportunity/{row_id}").status_code == 204
    for method in ("GET", "DELETE"):
        gone = client.send(method, f"sobjects/Opportunity/{row_id}")
        assert refused(gone) == (404, "NOT_FOUND", "The requested resource does not exist")
    assert client.send("PATCH", f"sobjects/Opportunity/{row_id}", json={"Amount": 1}).status_code == 404


@pytest.mark.parametrize(
    ("record", "error"),
    [
        (
            {"Name": "x"},
            {
                "message": "Required fields are missing: [StageName, CloseDate]",
                "errorCode": "REQUIRED_FIELD_MISSING",
                "fields": ["StageName", "CloseDate"],
            },
        ),
        ({}, {
            "message": "Required fields are missing: [Name, StageName, CloseDate]",
            "errorCode": "REQUIRED_FIELD_MISSING", "fields": ["Name", "StageName", "CloseDate"],
        }),
        ({**DEAL, "Nme": "x"}, {"message": "No such column 'Nme' on sobject of type Opportunity", "errorCode": "INVALID_FIELD"}),
        ({**DEAL, "IsWon": True}, {
            "message": "Unable to create/update fields: IsWon. Please check the security settings of this field and verify "
            "that it is read/write for your profile or permission set.",
            "errorCode": "INVALID_FIELD_FOR_INSERT_UPDATE", "fields": ["IsWon"],
        }),
        ({**DEAL, "StageName": "Dreaming"}, {
            "message": "Stage: bad value for restricted picklist field: Dreaming",
            "errorCode": "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "fields": ["StageName"],
        }),
        ({**DEAL, "Amount": [1]}, {
            "message": "Cannot deserialize instance of currency from START_ARRAY value [", "errorCode": "JSON_PARSER_ERROR",
        }),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_saved_is_a_400_with_its_fields(
    client: Client, record: dict[str, Any], error: dict[str, Any]
) -> None:
    answer = client.send("POST", "sobjects/Opportunity", json=record)
    assert (answer.status_code, answer.json()) == (400, [error])


def test_a_body_that_is_no_record_is_refused(client: Client) -> None:
    assert refused(client.send("POST", "sobjects/Opportunity", json=[1]))[:2] == (400, "JSON_PARSER_ERROR")
    assert refused(client.send("POST", "sobjects/Opportunity"))[:2] == (400, "JSON_PARSER_ERROR")


def test_an_upsert_by_external_id_creates_once_and_then_updates(client: Client) -> None:
    path = f"sobjects/Opportunity/External_ID__c/{quote('a/b c#1', safe='')}"
    created = client.send("PATCH", path, json=DEAL)
    row_id = created.json()["id"]
    assert (created.status_code, created.json()) == (
        201,
        {"id": row_id, "success": True, "errors": [], "created": True},
    )

    updated = client.send("PATCH", path.upper().replace("OPPORTUNITY", "Opportunity"), json={"Amount": 5})
    assert (updated.status_code, updated.json()) == (
        200,
        {"id": row_id, "success": True, "errors": [], "created": False},
    )

    record = client.get(f"{path}?fields=External_ID__c,Amount")
    assert (record["External_ID__c"].lower(), record["Amount"]) == ("a/b c#1", 5.0)
    assert client.send("PATCH", path, json={"external_id__c": "other"}).status_code == 400


def test_a_record_is_deleted_by_its_external_id(client: Client) -> None:
    client.send("PATCH", "sobjects/Opportunity/External_ID__c/k%2F1", json=DEAL)

    assert client.send("DELETE", "sobjects/Opportunity/External_ID__c/K%2F1").status_code == 204
    assert refused(client.send("DELETE", "sobjects/Opportunity/External_ID__c/k%2F1"))[:2] == (404, "NOT_FOUND")
    assert client.query("SELECT COUNT() FROM Opportunity")["totalSize"] == 0


def test_several_records_of_one_key_are_a_300_with_their_paths(org: Org, client: Client) -> None:
    org.set_setting("fields", {"Opportunity.External_ID__c": {"unique": False}})
    ids = put_rows(org, "Opportunity", [{"External_ID__c": "twice"}, {"External_ID__c": "TWICE"}])
    paths = sorted(f"{ROOT}/sobjects/Opportunity/{row_id}" for row_id in ids)

    for answer in (
        client.send("PATCH", "sobjects/Opportunity/External_ID__c/twice", json={"Amount": 1}),
        client.send("GET", "sobjects/Opportunity/External_ID__c/twice"),
    ):
        assert (answer.status_code, sorted(answer.json())) == (300, paths)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("sobjects/Opportunity/Name/x", "Provided external ID field does not exist or is not accessible: Name"),
        ("sobjects/Opportunity/External_ID__c/absent", "The requested resource does not exist"),
        ("sobjects/Opportunity/External_ID__c/%20", "The requested resource does not exist"),
        ("sobjects/Opportunity/abc", "Provided external ID field does not exist or is not accessible: abc"),
        ("sobjects/Opportunity/0065e000000001z", "The requested resource does not exist"),
    ],
)
def test_a_record_that_is_not_there_is_a_404(org: Org, client: Client, path: str, message: str) -> None:
    put_rows(org, "Opportunity", [{"Name": "keyless"}])
    assert refused(client.send("GET", path)) == (404, "NOT_FOUND", message)


def test_rows_that_the_org_keeps_itself_cannot_be_written(org: Org, client: Client) -> None:
    assert refused(client.send("POST", "sobjects/Organization", json={"Name": "x"})) == (
        400, "INVALID_TYPE_FOR_OPERATION", "entity type cannot be inserted: Organization",
    )  # fmt: skip


# collections


def deal(key: str | None, **fields: Any) -> dict[str, Any]:
    named = {} if key is None else {"External_ID__c": key}
    return {"attributes": {"type": "Opportunity"}, **DEAL, **named, **fields}


UPSERT = "composite/sobjects/Opportunity/External_ID__c"


def test_a_collection_is_upserted_in_order_and_each_record_has_its_own_fate(client: Client) -> None:
    client.send("PATCH", UPSERT, json={"records": [deal("b")]})
    answer = client.send(
        "PATCH", UPSERT, json={"allOrNone": False, "records": [deal("a"), deal("b", Amount=2.5), deal("c", StageName="?"), deal(None)]}
    )  # fmt: skip
    first, second, third, fourth = answer.json()

    assert answer.status_code == 200
    assert (first["success"], first["created"], first["errors"]) == (True, True, [])
    assert (second["success"], second["created"], second["errors"]) == (True, False, [])
    assert third == {
        "success": False,
        "errors": [
            {
                "statusCode": "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
                "message": "Stage: bad value for restricted picklist field: ?",
                "fields": ["StageName"],
            }
        ],
        "created": False,
    }
    assert [error["statusCode"] for error in fourth["errors"]] == ["MISSING_ARGUMENT"]
    saved = client.query("SELECT External_ID__c, Amount FROM Opportunity ORDER BY External_ID__c")["records"]
    assert [(record["External_ID__c"], record["Amount"]) for record in saved] == [("a", None), ("b", 2.5)]


def test_null_clears_a_field_and_an_absent_one_is_left_alone(client: Client) -> None:
    client.send("PATCH", UPSERT, json={"records": [deal("a", Amount=1, NextStep="call"), deal("b", Amount=1, NextStep="call")]})  # fmt: skip
    client.send("PATCH", UPSERT, json={"records": [deal("a", Amount=None), deal("b", NextStep=None)]})

    saved = client.query("SELECT Amount, NextStep FROM Opportunity ORDER BY External_ID__c")["records"]
    assert [(record["Amount"], record["NextStep"]) for record in saved] == [(None, "call"), (1.0, None)]


@pytest.mark.parametrize(("all_or_none", "kept"), [(True, 0), (False, 1)])
def test_all_or_none_rolls_back_what_was_good(client: Client, all_or_none: bool, kept: int) -> None:
    records = [deal("a"), deal("b", StageName=None)]
    answer = client.send("PATCH", UPSERT, json={"allOrNone": all_or_none, "records": records}).json()

    codes = [[error["statusCode"] for error in one["errors"]] for one in answer]
    assert codes == [["ALL_OR_NONE_OPERATION_ROLLED_BACK"] if all_or_none else [], ["REQUIRED_FIELD_MISSING"]]
    assert client.query("SELECT COUNT() FROM Opportunity")["totalSize"] == kept


def test_a_collection_has_at_most_200_records(client: Client) -> None:
    assert len(client.send("PATCH", UPSERT, json={"records": [deal(f"k{i}") for i in range(200)]}).json()) == 200
    answer = client.send("PATCH", UPSERT, json={"records": [deal(f"k{i}") for i in range(201)]})

    assert refused(answer)[:2] == (400, "EXCEEDED_ID_LIMIT")
    assert client.query("SELECT COUNT() FROM Opportunity")["totalSize"] == 200


def test_a_collection_costs_one_call(client: Client) -> None:
    client.send("PATCH", UPSERT, json={"records": [deal("a"), deal("b")]})
    assert client.org.usage()[0] == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"records": [{**DEAL, "External_ID__c": "a"}]}, "INVALID_TYPE"),
        ({"records": [{**deal("a"), "Nme": 1}]}, "INVALID_FIELD"),
        ({"records": {}}, "JSON_PARSER_ERROR"),
        ({}, "JSON_PARSER_ERROR"),
    ],
)
def test_a_collection_that_is_none_is_refused_as_a_whole(client: Client, body: dict[str, Any], code: str) -> None:
    assert refused(client.send("PATCH", UPSERT, json=body))[:2] == (400, code)


def test_collections_are_created_updated_and_deleted_across_objects(client: Client) -> None:
    account = {"attributes": {"type": "Account"}, "Name": "Acme", "External_ID__c": "acme"}
    created = client.send("POST", "composite/sobjects", json={"records": [account, deal("a"), deal("b")]}).json()
    assert [(one["success"], "created" in one) for one in created] == [(True, False)] * 3
    assert [one["id"][:3] for one in created] == ["001", "006", "006"]

    updates = [
        {"attributes": {"type": "Opportunity"}, "id": created[1]["id"], "Account": {"External_ID__c": "acme"}},
        {"attributes": {"type": "Opportunity"}, "id": "0065e000000zzzz", "Amount": 1},
    ]
    updated = client.send("PATCH", "composite/sobjects", json={"records": updates}).json()
    assert [one["success"] for one in updated] == [True, False]
    assert client.get(f"sobjects/Opportunity/{created[1]['id']}")["AccountId"] == created[0]["id"]

    ids = ",".join(one["id"] for one in created)
    deleted = client.send("DELETE", f"composite/sobjects?ids={ids}&allOrNone=true").json()
    assert [one["success"] for one in deleted] == [True] * 3
    assert client.query("SELECT COUNT() FROM Opportunity")["totalSize"] == 0


# composite


def test_a_composite_request_runs_one_after_the_other_for_one_call(client: Client) -> None:
    answer = client.send(
        "POST",
        "composite",
        json={
            "compositeRequest": [
                {"method": "POST", "url": f"{ROOT}/sobjects/Account", "referenceId": "acme", "body": {"Name": "Acme & Co"}},
                {
                    "method": "POST", "url": f"{ROOT}/sobjects/Opportunity", "referenceId": "deal",
                    "body": {**DEAL, "AccountId": "@{acme.id}"},
                },
                {"method": "GET", "url": f"{ROOT}/sobjects/Opportunity/@{{deal.id}}?fields=AccountId", "referenceId": "read"},
                {"method": "GET", "url": f"{ROOT}/query?q=SELECT+Name+FROM+Account", "referenceId": "all"},
                {"method": "GET", "url": f"{ROOT}/sobjects/Account/@{{all.records[0].Id}}", "referenceId": "lost"},
                {"method": "PATCH", "url": f"{ROOT}/sobjects/Opportunity/@{{deal.id}}", "referenceId": "change", "body": {"Amount": 1}},
            ]
        },
    )  # fmt: skip
    results = {one["referenceId"]: one for one in answer.json()["compositeResponse"]}

    assert [one["httpStatusCode"] for one in results.values()] == [201, 201, 200, 200, 400, 204]
    assert results["read"]["body"]["AccountId"] == results["acme"]["body"]["id"]
    assert results["deal"]["httpHeaders"]["Location"].endswith(results["deal"]["body"]["id"])
    assert results["all"]["body"]["records"][0]["Name"] == "Acme & Co"
    assert results["lost"]["body"][0]["errorCode"] == "PROCESSING_HALTED"
    assert results["change"]["body"] is None
    assert client.org.usage()[0] == 1


def test_a_composite_request_of_all_or_none_leaves_nothing_behind(client: Client) -> None:
    requests = [
        {"method": "POST", "url": f"{ROOT}/sobjects/Opportunity", "referenceId": "good", "body": DEAL},
        {"method": "POST", "url": f"{ROOT}/sobjects/Opportunity", "referenceId": "bad", "body": {}},
        {"method": "POST", "url": f"{ROOT}/sobjects/Opportunity", "referenceId": "never", "body": DEAL},
    ]
    answer = client.send("POST", "composite", json={"allOrNone": True, "compositeRequest": requests})

    codes = [one["body"][0]["errorCode"] for one in answer.json()["compositeResponse"]]
    assert codes == ["PROCESSING_HALTED", "REQUIRED_FIELD_MISSING", "PROCESSING_HALTED"]
    assert client.query("SELECT COUNT() FROM Opportunity")["totalSize"] == 0


def test_a_parent_made_after_a_rollback_is_known(client: Client) -> None:
    def made(name: str) -> str:
        return str(client.send("POST", "sobjects/Account", json={"Name": name}).json()["id"])

    client.send("POST", "sobjects/Opportunity", json={**DEAL, "AccountId": made("before")})
    requests = [
        {"method": "POST", "url": f"{ROOT}/sobjects/Account", "referenceId": "acme", "body": {"Name": "undone"}},
        {
            "method": "POST",
            "url": f"{ROOT}/sobjects/Opportunity",
            "referenceId": "deal",
            "body": {**DEAL, "AccountId": "@{acme.id}"},
        },
        {"method": "POST", "url": f"{ROOT}/sobjects/Opportunity", "referenceId": "bad", "body": {}},
    ]
    client.send("POST", "composite", json={"allOrNone": True, "compositeRequest": requests})

    answer = client.send("POST", "sobjects/Opportunity", json={**DEAL, "AccountId": made("after")})
    assert (answer.status_code, client.query("SELECT COUNT() FROM Account")["totalSize"]) == (201, 2)


def test_a_composite_request_has_at_most_25_parts(client: Client) -> None:
    one = {"method": "GET", "url": f"{ROOT}/limits", "referenceId": "r"}
    assert client.send("POST", "composite", json={"compositeRequest": [one] * 25}).status_code == 200
    assert refused(client.send("POST", "composite", json={"compositeRequest": [one] * 26}))[:2] == (
        400,
        "LIMIT_EXCEEDED",
    )
