"""Ingest and query jobs: states, batches, locks, result files, faults and what a second process makes of them."""

from __future__ import annotations

import csv
import gzip
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.simulated_org.ingest import change_job, find_job, settle
from sync_pipeline.simulated_org.objects import find_object
from sync_pipeline.simulated_org.query_jobs import csv_lines, locator, read_locator
from sync_pipeline.simulated_org.saving import save_rows
from sync_pipeline.simulated_org.uploads import BadUpload, read_rows
from sync_pipeline_tests.simulated_org.conftest import ROOT, Asker, asker

JOBS = "/jobs/ingest"
HEADER = "External_ID__c,Name,StageName,CloseDate,AccountId"


def rows_csv(keys: range, *, name: str = "n", account: str = "") -> str:
    return f"{HEADER}\n" + "".join(f"k{n:06d},{name},Qualification,2026-12-31,{account}\n" for n in keys)


def create(asked: Asker, **changes: str) -> str:
    body = {"object": "Opportunity", "operation": "upsert", "externalIdFieldName": "External_ID__c", **changes}
    job_id: str = asked.json("POST", JOBS, json=body)["id"]
    return job_id


def put(asked: Asker, job_id: str, content: str | bytes) -> httpx.Response:
    return asked.ask("PUT", f"{JOBS}/{job_id}/batches", content=content, headers={"Content-Type": "text/csv"})


def close(asked: Asker, job_id: str) -> httpx.Response:
    return asked.ask("PATCH", f"{JOBS}/{job_id}", json={"state": "UploadComplete"})


def load(asked: Asker, content: str | bytes, **changes: str) -> str:
    job_id = create(asked, **changes)
    assert put(asked, job_id, content).status_code == 201
    assert close(asked, job_id).status_code == 200
    return job_id


def show(asked: Asker, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = asked.json("GET", f"{JOBS}/{job_id}")
    return found


def results(asked: Asker, job_id: str, name: str) -> list[dict[str, str]]:
    answer = asked.ask("GET", f"{JOBS}/{job_id}/{name}")
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text)))


def outcomes(asked: Asker, job_id: str) -> dict[str, int]:
    return {
        name: len(results(asked, job_id, name)) for name in ("successfulResults", "failedResults", "unprocessedrecords")
    }


def in_org(asked: Asker) -> int:
    count: int = asked.json("GET", "/query", params={"q": "SELECT COUNT() FROM Opportunity"})["totalSize"]
    return count


def accounts(asked: Asker, count: int) -> list[str]:
    sobject = find_object(asked.org, "Account")
    assert sobject is not None
    rows = pl.DataFrame({"Name": [f"account {n}" for n in range(count)]})
    found: list[str] = save_rows(asked.org, asked.org.user_id, sobject, "insert", rows)["id"].to_list()
    return found


# States


def test_a_job_goes_from_open_to_complete(asked: Asker) -> None:
    job_id = create(asked)
    opened = show(asked, job_id)
    put(asked, job_id, rows_csv(range(3)))
    closed = close(asked, job_id).json()
    ended = show(asked, job_id)

    assert [opened["state"], closed["state"], ended["state"]] == ["Open", "UploadComplete", "JobComplete"]
    assert "numberRecordsProcessed" not in opened
    assert opened["contentUrl"] == f"services/data/v66.0/jobs/ingest/{job_id}/batches"
    assert "contentUrl" not in closed
    assert (ended["numberRecordsProcessed"], ended["numberRecordsFailed"], ended["jobType"]) == (3, 0, "V2Ingest")
    assert opened["apiVersion"] == 66.0


def test_a_job_is_found_by_15_characters_of_its_id_and_by_18_in_any_letter_case(asked: Asker) -> None:
    job_id = load(asked, rows_csv(range(1)))
    query_id = asked.json("POST", "/jobs/query", json={"operation": "query", "query": "SELECT Id FROM Opportunity"})[
        "id"
    ]

    for called in (job_id[:15], job_id.lower(), job_id.upper()):
        assert show(asked, called)["id"] == job_id
        assert len(results(asked, called, "successfulResults")) == 1
    assert asked.json("GET", f"/jobs/query/{query_id[:15]}")["id"] == query_id
    assert asked.ask("GET", f"{JOBS}/{job_id[:14]}{'a' if job_id[14] != 'a' else 'b'}").status_code == 404
    assert asked.ask("GET", f"{JOBS}/{job_id[:16]}").status_code == 404


def test_records_are_deleted_by_15_characters_of_their_ids(asked: Asker) -> None:
    load(asked, rows_csv(range(2)))
    ids = [row["Id"][:15] for row in asked.json("GET", "/query?q=SELECT+Id+FROM+Opportunity")["records"]]

    job_id = load(asked, "Id\n" + "\n".join(ids) + "\n", operation="delete", externalIdFieldName="")

    assert outcomes(asked, job_id) == {"successfulResults": 2, "failedResults": 0, "unprocessedrecords": 0}
    assert in_org(asked) == 0


def test_a_hard_delete_needs_a_permission_that_nobody_has_by_default(asked: Asker) -> None:
    body = {"object": "Opportunity", "operation": "hardDelete"}
    refused = asked.ask("POST", JOBS, json=body)
    asked.org.set_setting("hard_delete", True)

    assert (refused.status_code, refused.json()[0]["errorCode"]) == (400, "FEATURENOTENABLED")
    assert asked.json("POST", JOBS, json=body)["operation"] == "hardDelete"


@pytest.mark.parametrize("path", [JOBS, "/jobs/query"])
def test_a_property_that_no_job_has_is_refused_and_one_that_answers_have_is_not(asked: Asker, path: str) -> None:
    body = {"object": "Opportunity", "operation": "insert"}
    if path == "/jobs/query":
        body = {"operation": "query", "query": "SELECT Id FROM Opportunity"}

    strange = asked.ask("POST", path, json={**body, "externalIdFieldname": "External_ID__c"})

    assert (strange.status_code, strange.json()[0]["errorCode"]) == (400, "JSON_PARSER_ERROR")
    assert '"externalIdFieldname"' in strange.json()[0]["message"]
    assert asked.ask("POST", path, json={**body, "id": None, "concurrencyMode": "Parallel"}).status_code == 200


def test_a_job_may_be_found_in_progress_for_some_looks(asked: Asker) -> None:
    asked.org.set_setting("job_polls", 2)
    job_id = load(asked, rows_csv(range(3)))

    assert [show(asked, job_id)["state"] for _ in range(4)] == [
        "InProgress",
        "InProgress",
        "JobComplete",
        "JobComplete",
    ]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"object": "Nothing"}, 400, "INVALIDJOB"),
        ({"operation": "replace"}, 400, "API_ERROR"),
        ({"externalIdFieldName": ""}, 400, "INVALIDJOB"),
        ({"externalIdFieldName": "Amount"}, 400, "INVALIDJOB"),
        ({"contentType": "JSON"}, 400, "API_ERROR"),
        ({"lineEnding": "CR"}, 400, "API_ERROR"),
    ],
)
def test_a_job_that_cannot_be_is_refused(asked: Asker, body: dict[str, str], status: int, code: str) -> None:
    good = {"object": "Opportunity", "operation": "upsert", "externalIdFieldName": "External_ID__c"}

    refused = asked.ask("POST", JOBS, json={**good, **body})

    assert (refused.status_code, refused.json()[0]["errorCode"]) == (status, code)


def test_a_second_upload_is_told_when_the_job_is_closed(asked: Asker) -> None:
    job_id = create(asked)
    put(asked, job_id, rows_csv(range(3)))
    second = put(asked, job_id, rows_csv(range(3, 6)))
    closed = close(asked, job_id)

    assert (second.status_code, closed.status_code) == (201, 400)
    assert closed.json()[0]["errorCode"] == "INVALIDJOB"
    assert f"Found multipe contents for job: <{job_id}>" in closed.json()[0]["message"]


def test_a_second_upload_may_be_told_at_once(asked: Asker) -> None:
    asked.org.set_setting("second_upload", "upload")
    job_id = create(asked)
    put(asked, job_id, rows_csv(range(3)))

    assert put(asked, job_id, rows_csv(range(3))).status_code == 400


def test_an_upload_over_the_limit_is_refused(asked: Asker) -> None:
    asked.org.set_setting("upload_bytes_max", 100)
    job_id = create(asked)

    assert put(asked, job_id, rows_csv(range(3))).status_code == 413
    assert close(asked, job_id).status_code == 200
    assert show(asked, job_id)["numberRecordsProcessed"] == 0


def test_only_its_creator_uploads_and_closes_a_job(asked: Asker) -> None:
    job_id = create(asked)
    admin = asker(asked.org, user_id=asked.org.admin_id)

    assert put(admin, job_id, rows_csv(range(3))).json()[0]["errorCode"] == "INVALIDUSER"
    assert close(admin, job_id).json()[0]["errorCode"] == "INVALIDUSER"


def test_an_ended_job_cannot_be_aborted_and_a_running_one_not_deleted(asked: Asker) -> None:
    ended, opened = load(asked, rows_csv(range(3))), create(asked)

    aborting = asked.ask("PATCH", f"{JOBS}/{ended}", json={"state": "Aborted"})
    deleting = asked.ask("DELETE", f"{JOBS}/{opened}")

    assert (aborting.status_code, aborting.json()[0]["errorCode"]) == (400, "INVALIDJOBSTATE")
    assert (deleting.status_code, deleting.json()[0]["errorCode"]) == (400, "API_ERROR")
    assert asked.ask("DELETE", f"{JOBS}/{ended}").status_code == 204
    assert asked.ask("GET", f"{JOBS}/{ended}").status_code == 404


def test_open_jobs_live_a_day_and_ended_ones_a_week(asked: Asker) -> None:
    opened, ended = create(asked), load(asked, rows_csv(range(3)))

    asked.org.advance(86_401)
    later = asker(asked.org)
    day = (later.ask("GET", f"{JOBS}/{opened}").status_code, later.ask("GET", f"{JOBS}/{ended}").status_code)
    asked.org.advance(6 * 86_400)

    assert day == (404, 200)
    assert asker(asked.org).ask("GET", f"{JOBS}/{ended}").status_code == 404


def test_rows_can_come_with_the_job_in_one_multipart_request(asked: Asker) -> None:
    job = '{"object": "Opportunity", "operation": "upsert", "externalIdFieldName": "External_ID__c"}'
    parts = [("job", (None, job, "application/json")), ("content", ("content", rows_csv(range(3)), "text/csv"))]

    created = asked.json("POST", JOBS, files=parts)

    assert created["state"] == "UploadComplete"
    assert outcomes(asked, created["id"])["successfulResults"] == 3


def test_the_list_of_jobs_is_paged(asked: Asker) -> None:
    asked.org.set_setting("jobs_per_page", 2)
    made = {create(asked) for _ in range(5)}
    seen: list[str] = []
    path = JOBS
    while path:
        listed = asked.json("GET", path)
        seen += [job["id"] for job in listed["records"]]
        path = (listed["nextRecordsUrl"] or "").removeprefix(ROOT)

    assert sorted(seen) == sorted(made)


def test_batches_are_counted_and_limited(asked: Asker) -> None:
    asked.org.set_setting("batch_rows", 10)
    before = asked.json("GET", "/limits")["DailyBulkApiBatches"]["Remaining"]

    load(asked, rows_csv(range(25)))

    assert asked.json("GET", "/limits")["DailyBulkApiBatches"]["Remaining"] == before - 3


# Uploads


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"External_ID__c,Nome\nk,x\n", "InvalidBatch : Field name not found : Nome"),
        (b"\xef\xbb\xbfExternal_ID__c,Name\nk,x\n", "InvalidBatch : Field name not found : \ufeffExternal_ID__c"),
        (b'\xef\xbb\xbf"External_ID__c",Name\nk,x\n', "InvalidBatch : Failed to parse CSV. Found unescaped quote"),
        (b"External_ID__c,Name\r\nk,x\r\n", "ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is LF"),
        (b'External_ID__c,Name\nk,"x\n', "InvalidBatch : Failed to parse CSV. Found unescaped quote"),
        (b"External_ID__c,Name\nk,x,y\n", "InvalidBatch : Failed to parse CSV. Found unescaped quote"),
    ],
)  # fmt: skip
def test_an_upload_that_cannot_be_read_fails_the_whole_job(asked: Asker, content: bytes, error: str) -> None:
    job_id = load(asked, content)

    found = show(asked, job_id)
    assert (found["state"], found["errorMessage"], found["numberRecordsProcessed"]) == ("Failed", error, 0)
    assert in_org(asked) == 0


@pytest.mark.parametrize("content", [HEADER + "\n", ""])
def test_no_rows_are_a_complete_job_of_none(asked: Asker, content: str) -> None:
    job_id = load(asked, content)

    assert (show(asked, job_id)["state"], show(asked, job_id)["numberRecordsProcessed"]) == ("JobComplete", 0)


CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00\r"), max_size=8)


@given(st.lists(st.tuples(CELLS.filter(bool), CELLS), max_size=12), st.sampled_from([",", "|", "\t"]))
def test_any_text_survives_the_csv(rows: list[tuple[str, str]], delimiter: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("a", "b"), *rows])

    found = read_rows(text.getvalue().encode(), delimiter=delimiter, line_ending="LF")

    assert [(a, b or "") for a, b in found.rows.rows()] == rows
    assert found.torn == ()


def test_other_delimiters_and_line_ends_are_read(asked: Asker) -> None:
    content = rows_csv(range(3)).replace(",", ";").replace("\n", "\r\n")

    job_id = load(asked, content, columnDelimiter="SEMICOLON", lineEnding="CRLF")

    assert outcomes(asked, job_id)["successfulResults"] == 3


def blank_beside(rows: list[tuple[str, ...]], torn: dict[int, tuple[int, str]]) -> bytes:
    """A CSV of quoted values in which a row may have a blank before or after the quotes of one of its values."""
    lines = ['"a","b"']
    for number, row in enumerate(rows):
        quoted = ['"{}"'.format(value.replace('"', '""')) for value in row]
        if number in torn:
            place, side = torn[number]
            quoted[place] = f" {quoted[place]}" if side == "before" else f"{quoted[place]}  "
        lines.append(",".join(quoted))
    return ("\n".join(lines) + "\n").encode()


PLACES = st.tuples(st.integers(0, 1), st.sampled_from(["before", "after"]))


@given(
    st.lists(st.tuples(CELLS.filter(bool), CELLS), max_size=8), st.dictionaries(st.integers(0, 9), PLACES, max_size=3)
)
def test_a_blank_next_to_a_quote_tears_its_row_and_no_other(
    rows: list[tuple[str, str]], torn: dict[int, tuple[int, str]]
) -> None:
    found = read_rows(blank_beside(rows, torn), delimiter=",", line_ending="LF")

    assert set(found.torn) == {number for number in torn if number < len(rows)}
    assert [(a, b or "") for a, b in found.rows.rows()] == rows


def test_a_torn_row_is_refused_and_the_others_are_saved(asked: Asker) -> None:
    lines = [
        'k1,"one",',
        'k2, "two",',
        'k3,"three" ,',
        'k4,"four ""quoted"" ",',
        "k5, five ,",
        'k6,"six, ""and"" more",',
    ]
    content = f"{HEADER}\n" + "".join(f"{line}Qualification,2026-12-31,\n".replace(",Q", ",Q") for line in lines)

    job_id = load(asked, content)

    failed = {row["External_ID__c"]: row["sf__Error"] for row in results(asked, job_id, "failedResults")}
    saved = {row["External_ID__c"]: row["Name"] for row in results(asked, job_id, "successfulResults")}
    assert set(failed) == {"k2", "k3"}
    assert all("space before or after a double quote" in error for error in failed.values())
    assert saved == {"k1": "one", "k4": 'four "quoted" ', "k5": " five ", "k6": 'six, "and" more'}
    assert show(asked, job_id)["numberRecordsFailed"] == 2


def test_a_quote_in_the_middle_of_a_value_still_fails_the_job(asked: Asker) -> None:
    job_id = load(asked, f'{HEADER}\nk1, "a","b" c,Qualification,2026-12-31,\n')

    assert show(asked, job_id)["state"] == "Failed"
    assert "unescaped quote" in show(asked, job_id)["errorMessage"]


def test_a_packed_upload_is_unpacked_unless_the_org_does_not(asked: Asker) -> None:
    body = gzip.compress(rows_csv(range(3)).encode())
    headers = {"Content-Type": "text/csv", "Content-Encoding": "gzip"}
    states = []
    for unpacks in (True, False):
        asked.org.set_setting("unpack_uploads", unpacks)
        job_id = create(asked)
        assert asked.ask("PUT", f"{JOBS}/{job_id}/batches", content=body, headers=headers).status_code == 201
        close(asked, job_id)
        states.append(show(asked, job_id)["state"])

    assert states == ["JobComplete", "Failed"]
    assert in_org(asked) == 3


def test_a_duplicate_header_cannot_be_read() -> None:
    with pytest.raises(BadUpload):
        read_rows(b"Name,name\na,b\n", delimiter=",", line_ending="LF")


# Results


def test_results_come_in_no_order_with_their_columns_quoted_and_doubles_as_java_writes_them(asked: Asker) -> None:
    content = "External_ID__c,Name,StageName,CloseDate,Amount\n" + "".join(
        f"k{n:03d},n,Qualification,2026-12-31,{n * 1_000_000}\n" for n in range(50)
    )
    job_id = load(asked, content)

    text = asked.ask("GET", f"{JOBS}/{job_id}/successfulResults").text
    rows = list(csv.DictReader(io.StringIO(text)))
    keys = [row["External_ID__c"] for row in rows]
    assert text.startswith('"sf__Id","sf__Created",External_ID__c,Name,StageName,CloseDate,Amount\n"006')
    assert keys != sorted(keys)
    assert {row["Amount"] for row in rows if row["External_ID__c"] in ("k000", "k003", "k012")} == {
        "0.0",
        "3000000.0",
        "1.2E7",
    }


def test_a_header_in_other_letter_case_loads_and_comes_back_empty(asked: Asker) -> None:
    job_id = load(asked, rows_csv(range(1)).replace("Name,", "NAME,", 1))

    (row,) = results(asked, job_id, "successfulResults")
    assert row["NAME"] == ""
    assert asked.json("GET", "/query", params={"q": "SELECT Name FROM Opportunity"})["records"][0]["Name"] == "n"


def test_what_cleared_a_field_comes_back_as_it_was_sent_whatever_the_type(asked: Asker) -> None:
    content = (
        "External_ID__c,Name,StageName,CloseDate,Amount,NextStep,AccountId,Probability\n"
        "k1,n,Qualification,2026-12-31,#N/A,#N/A,#N/A,#N/A\nk2,n,Qualification,2026-12-31,many,x,,7\n"
    )
    job_id = load(asked, content)

    (saved,), (refused,) = results(asked, job_id, "successfulResults"), results(asked, job_id, "failedResults")
    assert [saved[name] for name in ("Amount", "NextStep", "AccountId", "Probability")] == ["#N/A"] * 4
    assert (refused["Amount"], refused["Probability"]) == ("many", "7.0")


FORMS = [("SEMICOLON", ";"), ("TAB", "\t"), ("PIPE", "|"), ("CARET", "^"), ("BACKQUOTE", "`"), ("COMMA", ",")]


@pytest.mark.parametrize("line_ending", ["LF", "CRLF"])
@pytest.mark.parametrize(("name", "delimiter"), FORMS)
def test_results_of_an_ingest_job_have_its_own_delimiter_and_line_ending(
    asked: Asker, name: str, delimiter: str, line_ending: str
) -> None:
    end = {"LF": "\n", "CRLF": "\r\n"}[line_ending]
    rows = [["k1", 'a, b; "c"', "Qualification", "2026-12-31"], ["k2", "n", "Nonsense", "2026-12-31"]]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows([HEADER.split(",")[:4], *rows])
    job_id = load(asked, text.getvalue(), columnDelimiter=name, lineEnding=line_ending)

    for file, key, value in (("successfulResults", "k1", 'a, b; "c"'), ("failedResults", "k2", "n")):
        answer = asked.ask("GET", f"{JOBS}/{job_id}/{file}").text
        (row,) = csv.DictReader(io.StringIO(answer, newline=""), delimiter=delimiter)
        assert (row["External_ID__c"], row["Name"]) == (key, value)
        assert answer.count(end) == 2 and answer.count("\n") == 2
    nothing = asked.ask("GET", f"{JOBS}/{job_id}/unprocessedrecords").text
    assert nothing == delimiter.join(HEADER.split(",")[:4]) + end


def test_results_of_an_ingest_job_may_be_plain_whatever_it_has(asked: Asker) -> None:
    asked.org.set_setting("plain_results", True)
    job_id = load(
        asked, rows_csv(range(1)).replace(",", "|").replace("\n", "\r\n"), columnDelimiter="PIPE", lineEnding="CRLF"
    )

    assert results(asked, job_id, "successfulResults")[0]["External_ID__c"] == "k000000"


def test_results_are_there_only_when_the_job_has_ended(asked: Asker) -> None:
    job_id = create(asked)

    refused = asked.ask("GET", f"{JOBS}/{job_id}/successfulResults")

    assert (refused.status_code, refused.json()[0]["errorCode"]) == (400, "INVALIDJOBSTATE")


# Faults


def test_a_share_of_rows_loses_its_lock_and_gets_through_later(asked: Asker) -> None:
    asked.fault("lock_rows share=0.3 nth=1")
    first = load(asked, rows_csv(range(400)))
    failed = results(asked, first, "failedResults")

    assert 60 < len(failed) < 180
    assert all(row["sf__Error"].startswith("UNABLE_TO_LOCK_ROW:unable to obtain exclusive access") for row in failed)
    assert show(asked, first)["numberRecordsFailed"] == len(failed)
    assert in_org(asked) == 400 - len(failed)
    assert outcomes(asked, load(asked, rows_csv(range(400))))["failedResults"] == 0


@pytest.mark.parametrize(
    ("fault", "state", "succeeded", "unprocessed"),
    [
        ("job_fails share=0.25", "Failed", 100, 300),
        ("job_aborted share=0.5", "Aborted", 200, 200),
        ("unprocessed share=0.1", "JobComplete", 360, 40),
    ],
)
def test_a_job_that_ends_half_way_keeps_what_it_saved(
    asked: Asker, fault: str, state: str, succeeded: int, unprocessed: int
) -> None:
    asked.fault(fault)
    job_id = load(asked, rows_csv(range(400)))

    assert show(asked, job_id)["state"] == state
    assert outcomes(asked, job_id) == {
        "successfulResults": succeeded,
        "failedResults": 0,
        "unprocessedrecords": unprocessed,
    }
    assert in_org(asked) == succeeded


def test_a_row_can_be_acknowledged_and_lost(asked: Asker) -> None:
    asked.fault("silent_drop keys=k000003,k000007")
    job_id = load(asked, rows_csv(range(10)))

    assert outcomes(asked, job_id)["successfulResults"] == 10
    assert in_org(asked) == 8


def test_a_stuck_job_ends_only_when_it_is_aborted(asked: Asker) -> None:
    asked.fault("job_stuck")
    job_id = load(asked, rows_csv(range(10)))
    states = {show(asked, job_id)["state"] for _ in range(3)}
    asked.json("PATCH", f"{JOBS}/{job_id}", json={"state": "Aborted"})

    assert states == {"InProgress"}
    assert outcomes(asked, job_id)["unprocessedrecords"] == 10


@pytest.mark.parametrize(
    ("form", "status", "text"), [("no_content", 204, ""), ("empty", 200, ""), ("header", 200, None)]
)
def test_result_files_may_be_empty_in_three_ways(asked: Asker, form: str, status: int, text: str | None) -> None:
    asked.fault(f"empty_results form={form}")
    job_id = load(asked, rows_csv(range(3)))

    answer = asked.ask("GET", f"{JOBS}/{job_id}/successfulResults")

    assert answer.status_code == status
    assert answer.text == ('"sf__Id","sf__Created",' + HEADER + "\n" if text is None else text)


def test_results_may_be_lost_and_counters_wrong(asked: Asker) -> None:
    asked.fault("lost_results nth=1")
    asked.fault("wrong_counters nth=2 processed=5 failed=2")
    lost, wrong = load(asked, rows_csv(range(3))), load(asked, rows_csv(range(3)))

    assert asked.ask("GET", f"{JOBS}/{lost}/successfulResults").status_code == 404
    found = show(asked, wrong)
    assert (found["numberRecordsProcessed"], found["numberRecordsFailed"]) == (8, 2)


# Time, locks and processes


def test_a_paced_job_makes_progress_batch_by_batch(asked: Asker) -> None:
    asked.org.set_setting("batch_rows", 100)
    asked.org.set_setting("pace", {"rows_per_second": 10, "batches": 2})
    job_id = load(asked, rows_csv(range(400)))
    seen = []
    for seconds in (0, 11, 10):
        asked.org.advance(seconds)
        found = show(asked, job_id)
        seen.append((found["state"], found["numberRecordsProcessed"]))

    assert seen == [("InProgress", 0), ("InProgress", 200), ("JobComplete", 400)]


def test_what_is_due_is_found_by_a_query_before_anybody_asks_for_the_job(asked: Asker) -> None:
    asked.org.set_setting("pace", {"rows_per_second": 10})
    load(asked, rows_csv(range(50)))
    before = in_org(asked)
    asked.org.advance(6)

    assert (before, in_org(asked)) == (0, 50)


def test_an_abort_keeps_the_batches_that_have_ended(asked: Asker) -> None:
    asked.org.set_setting("batch_rows", 100)
    asked.org.set_setting("pace", {"rows_per_second": 10, "batches": 1})
    job_id = load(asked, rows_csv(range(300)))
    asked.org.advance(11)

    asked.json("PATCH", f"{JOBS}/{job_id}", json={"state": "Aborted"})

    assert outcomes(asked, job_id) == {"successfulResults": 100, "failedResults": 0, "unprocessedrecords": 200}
    asked.org.advance(1_000)
    assert in_org(asked) == 100


def test_batches_in_flight_that_share_a_parent_lose_their_locks(asked: Asker) -> None:
    one, other = accounts(asked, 2)
    asked.org.set_setting("pace", {"rows_per_second": 100, "batches": 5})
    first = load(asked, rows_csv(range(50), account=one))
    second = load(asked, rows_csv(range(50, 100), account=one))
    third = load(asked, rows_csv(range(100, 150), account=other))
    asked.org.advance(60)

    failed = [show(asked, job_id)["numberRecordsFailed"] for job_id in (first, second, third)]
    assert failed == [0, 50, 0]
    assert one in results(asked, second, "failedResults")[0]["sf__Error"]


def test_one_batch_at_once_loses_no_lock(asked: Asker) -> None:
    (account,) = accounts(asked, 1)
    asked.org.set_setting("pace", {"rows_per_second": 100, "batches": 1})
    jobs = [load(asked, rows_csv(range(start, start + 50), account=account)) for start in (0, 50)]
    asked.org.advance(60)

    assert [show(asked, job_id)["numberRecordsFailed"] for job_id in jobs] == [0, 0]


def test_after_100_lost_locks_the_rest_of_a_batch_is_queued_again(asked: Asker) -> None:
    (account,) = accounts(asked, 1)
    asked.org.set_setting("pace", {"rows_per_second": 100, "batches": 2})
    load(asked, rows_csv(range(200), account=account))
    second = load(asked, rows_csv(range(200, 500), account=account))
    asked.org.advance(600)

    found = show(asked, second)
    assert (found["state"], found["retries"], found["numberRecordsProcessed"]) == ("JobComplete", 2, 300)
    assert found["numberRecordsFailed"] == 200


def test_a_job_whose_process_died_before_it_was_saved_is_saved_when_somebody_looks(asked: Asker) -> None:
    job_id = create(asked)
    put(asked, job_id, rows_csv(range(3)))
    with asked.org.write() as connection:  # closed, and nobody came to save it
        connection.execute('INSERT INTO batch VALUES (?, 1, 0, 3, 0, 0.0, 0.0, 1, "[]", 0)', (job_id,))
        change_job(asked.org, job_id, state="UploadComplete")

    other = asker(asked.org)

    assert show(other, job_id)["numberRecordsProcessed"] == 3
    assert in_org(asked) == 3


def test_many_who_look_at_once_save_a_job_once(asked: Asker) -> None:
    asked.org.set_setting("pace", {"rows_per_second": 1_000})
    job_id = load(asked, rows_csv(range(500)))
    asked.org.advance(10)
    job = find_job(asked.org, job_id, "ingest")
    assert job is not None

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: settle(asked.org, job), range(16)))

    assert show(asked, job_id)["numberRecordsProcessed"] == 500
    assert outcomes(asked, job_id)["successfulResults"] == 500


def test_jobs_of_many_threads_are_all_saved(asked: Asker) -> None:
    def run(place: int) -> int:
        mine = asker(asked.org)
        with mine.client:
            return outcomes(mine, load(mine, rows_csv(range(place * 100, place * 100 + 100))))["successfulResults"]

    with ThreadPoolExecutor(6) as pool:
        saved = list(pool.map(run, range(12)))

    assert saved == [100] * 12
    assert in_org(asked) == 1_200


# Query jobs


def query_job(asked: Asker, soql: str) -> str:
    job = asked.json("POST", "/jobs/query", json={"operation": "query", "query": soql})
    assert job["state"] == "UploadComplete"
    assert asked.json("GET", f"/jobs/query/{job['id']}")["state"] == "JobComplete"
    job_id: str = job["id"]
    return job_id


def test_a_query_job_is_read_by_locators_and_in_parallel(asked: Asker) -> None:
    load(asked, rows_csv(range(95)))
    asked.org.set_setting("query_page_rows", 10)
    job_id = query_job(asked, "SELECT External_ID__c FROM Opportunity")
    listed = asked.json("GET", f"/jobs/query/{job_id}/resultPages")
    pages = list(listed["resultPages"])
    while not listed["done"]:
        listed = asked.json("GET", listed["nextRecordsUrl"].removeprefix(ROOT))
        pages += listed["resultPages"]
    keys = [
        row["External_ID__c"]
        for page in pages
        for row in csv.DictReader(io.StringIO(asked.ask("GET", page["resultUrl"].removeprefix(ROOT)).text))
    ]

    assert len(pages) == 10
    assert sorted(keys) == [f"k{n:06d}" for n in range(95)]


def test_an_empty_query_result_is_a_header(asked: Asker) -> None:
    job_id = query_job(asked, "SELECT Id, Name FROM Opportunity")

    answer = asked.ask("GET", f"/jobs/query/{job_id}/results")

    assert (answer.text, answer.headers["sforce-locator"], answer.headers["sforce-numberofrecords"]) == (
        '"Id","Name"\n',
        "null",
        "0",
    )


def test_results_of_a_query_need_the_version_it_was_made_with(asked: Asker) -> None:
    job_id = query_job(asked, "SELECT Id FROM Opportunity")

    answer = asked.client.get(f"/services/data/v60.0/jobs/query/{job_id}/results")

    assert answer.status_code == 409


@pytest.mark.parametrize(
    "soql",
    [
        "SELECT COUNT() FROM Opportunity",
        "SELECT Id FROM",
        "SELECT Nothing__c FROM Opportunity",
        "SELECT Id FROM Opportunity OFFSET 5",
    ],
)
def test_a_query_that_bulk_cannot_run_is_refused(asked: Asker, soql: str) -> None:
    refused = asked.ask("POST", "/jobs/query", json={"operation": "query", "query": soql})

    assert refused.status_code == 400


@pytest.mark.parametrize("line_ending", ["LF", "CRLF"])
@pytest.mark.parametrize(("name", "delimiter"), FORMS)
def test_results_of_a_query_job_have_the_form_that_was_asked_for(
    asked: Asker, name: str, delimiter: str, line_ending: str
) -> None:
    load(asked, rows_csv(range(5), name='"a; b|c^d`e"'))
    body = {
        "operation": "query", "query": "SELECT External_ID__c, Name FROM Opportunity ORDER BY External_ID__c",
        "columnDelimiter": name, "lineEnding": line_ending,
    }  # fmt: skip
    job_id = asked.json("POST", "/jobs/query", json=body)["id"]
    asked.json("GET", f"/jobs/query/{job_id}")
    end = {"LF": "\n", "CRLF": "\r\n"}[line_ending]
    keys, path = [], f"/jobs/query/{job_id}/results?maxRecords=2"
    while True:
        answer = asked.ask("GET", path)
        assert answer.text.startswith(f'"External_ID__c"{delimiter}"Name"{end}"k')
        page = list(csv.DictReader(io.StringIO(answer.text, newline=""), delimiter=delimiter))
        assert {row["Name"] for row in page} == {"a; b|c^d`e"}
        assert answer.text.count(end) == answer.text.count("\n") == len(page) + 1
        keys += [row["External_ID__c"] for row in page]
        if answer.headers["sforce-locator"] == "null":
            break
        path = f"/jobs/query/{job_id}/results?maxRecords=2&locator={answer.headers['sforce-locator']}"

    assert keys == [f"k{n:06d}" for n in range(5)]


def test_a_query_job_of_a_form_that_there_is_not_is_refused(asked: Asker) -> None:
    body = {"operation": "query", "query": "SELECT Id FROM Opportunity", "columnDelimiter": "HASH"}

    assert asked.ask("POST", "/jobs/query", json=body).status_code == 400


@given(st.integers(0, 10**9))
def test_a_locator_means_its_place(place: int) -> None:
    assert read_locator(locator(place)) == place


def test_a_strange_locator_is_unknown() -> None:
    assert [read_locator(text) for text in ("abc", "MjAwMC0", "MjAwMC0%%%")] == [None, None, None]


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=10), st.sampled_from([",", "|", "\t"]))
def test_every_value_of_a_query_result_is_quoted(rows: list[tuple[str, str]], delimiter: str) -> None:
    lines = csv_lines(pl.DataFrame(rows, schema={"a": pl.String, "b": pl.String}, orient="row"), delimiter)

    found = [tuple(row) for line in lines for row in csv.reader(io.StringIO(line, newline=""), delimiter=delimiter)]
    assert found == rows
    assert all(line.startswith('"') and line.endswith('"') for line in lines)
