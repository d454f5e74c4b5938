"""Asking the target: texts that no key can break, answers that are whole, and what a person is told who may not see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import unquote_plus

import httpx
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sync_pipeline.domain.errors import LimitExceeded, MappingError, RequestRefused, RightsError, WireError
from sync_pipeline.domain.keys import KeyRange
from sync_pipeline.domain.mapping import FieldMapping, FieldType, Mapping, NullPolicy
from sync_pipeline.salesforce.soql import Limit, Soql, in_batches, literal
from sync_pipeline_tests.salesforce.conftest import Wire, answers, body_of, never

DATA = "/services/data/v66.0"
MAPPING = Mapping(
    source_object="ExtOpportunities__dlm",
    source_key="ExternalId__c",
    target_object="Opportunity",
    target_key="External_ID__c",
    fields=(
        FieldMapping("Name__c", "Name", FieldType.TEXT),
        FieldMapping("Amount__c", "Amount", FieldType.NUMBER, NullPolicy.KEEP),
    ),
)
HOSTILE = [
    "",
    "'",
    "\\",
    "\\'",
    "' OR Name != '",
    '"',
    "\n",
    "\r",
    "\t",
    "\b",
    "\f",
    "\x00",
    "%",
    "_",
    "&q=",
    "é",
    "\U0001f600",
]
keys = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=8))


def soql(wire: Wire) -> Soql:
    return Soql(wire.session, MAPPING)


def found(
    records: Sequence[dict[str, Any]], *, total: int | None = None, following: str | None = None
) -> httpx.Response:
    """One batch of a query."""
    content = {
        "totalSize": len(records) if total is None else total,
        "done": following is None,
        "records": [
            {"attributes": {"type": "Opportunity", "url": f"{DATA}/sobjects/x"}, **record} for record in records
        ],
        **({} if following is None else {"nextRecordsUrl": following}),
    }
    return httpx.Response(200, json=content)


def refusal(status: int, code: str, message: str = "no") -> httpx.Response:
    return httpx.Response(status, json=[{"errorCode": code, "message": message}])


def queries(wire: Wire) -> list[str]:
    return [request.url.params["q"] for request in wire.requests]


# texts


MEANING = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "'": "'", '"': '"', "\\": "\\"}


def literals_in(text: str) -> list[str]:
    """The text literals of a query, read as SOQL's documentation says: a quote begins and ends one, and the letter behind
    a backslash means another. Anything else behind it is an error of the query."""
    values: list[str] = []
    value: list[str] | None = None
    letters = iter(text)
    for letter in letters:
        if value is None:
            value = [] if letter == "'" else None
        elif letter == "\\":
            value.append(MEANING[next(letters)])
        elif letter == "'":
            values.append("".join(value))
            value = None
        else:
            value.append(letter)
    assert value is None, "a literal that does not end"
    return values


@given(keys)
@example("\\")
@example("it's")
def test_a_literal_means_the_text_it_was_made_of(text: str) -> None:
    assert literals_in(literal(text)) == [text]
    assert not {"\n", "\r", "\t"} & set(literal(text))


@given(st.lists(keys, max_size=12))
def test_no_key_gets_out_of_its_literal(wanted: list[str]) -> None:
    wire = Wire(lambda request: found([]))

    soql(wire).rows_of(wanted)

    assert [value for query in queries(wire) for value in literals_in(query)] == list(dict.fromkeys(wanted))


@given(keys, keys)
def test_no_bound_of_a_range_gets_out_of_its_literal(one: str, other: str) -> None:
    if one == other:
        return
    after, through = sorted([one, other])
    wire = Wire(lambda request: found([], total=0))

    soql(wire).count(KeyRange(after, through))

    (query,) = queries(wire)
    assert literals_in(query) == [after, through]


@given(st.lists(st.text(alphabet=st.sampled_from("a'\\\n é\U0001f600%"), max_size=255), max_size=60))
def test_batches_name_every_key_once_and_fit_into_a_uri(wanted: list[str]) -> None:
    wire = Wire(lambda request: found([]))

    soql(wire).rows_of(wanted)

    named = [literals_in(query) for query in queries(wire)]
    assert [key for batch in named for key in batch] == list(dict.fromkeys(wanted))
    assert all(named)
    for request in wire.requests:
        headers = sum(len(name) + len(value) + 4 for name, value in request.headers.raw)
        assert len(request.url.raw_path) + headers < 16_384


def test_long_lists_are_cut_as_late_as_they_can_be() -> None:
    wanted = [f"externalOpp{number:07d}" for number in range(2000)]

    batches = list(in_batches("SELECT Id FROM Opportunity WHERE External_ID__c IN (", wanted))

    # A key is 26 letters in a URI with its quotes and comma.
    assert [len(literals_in(batch)) for batch in batches] == [441, 441, 441, 441, 236]


def test_nobody_is_asked_for_the_rows_of_no_keys() -> None:
    frame = soql(Wire(never)).rows_of([])

    assert frame.height == 0
    assert frame.columns == ["Id", "External_ID__c", "Name", "Amount", "LastModifiedDate", "LastModifiedById"]


# counts


@pytest.mark.parametrize(
    ("key_range", "condition"),
    [
        (None, ""),
        (KeyRange(None, None), ""),
        (KeyRange(None, "m"), " AND External_ID__c <= 'm'"),
        (KeyRange("it's", None), " AND External_ID__c > 'it\\'s'"),
        (KeyRange("a", "m"), " AND External_ID__c > 'a' AND External_ID__c <= 'm'"),
    ],
)
def test_a_count_is_over_rows_with_a_key_after_and_through_the_bounds(
    key_range: KeyRange | None, condition: str
) -> None:
    wire = Wire(answers(found([], total=1_997_999)))

    assert soql(wire).count(key_range) == 1_997_999

    assert queries(wire) == [f"SELECT COUNT() FROM Opportunity WHERE External_ID__c != null{condition}"]


@pytest.mark.parametrize(
    ("instant", "since"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 999999, UTC), "2026-01-02T03:04:05Z"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1))), "2026-01-02T02:04:05Z"),
    ],
)
def test_touched_rows_are_counted_from_a_second_on(instant: datetime, since: str) -> None:
    wire = Wire(answers(found([], total=7)))

    assert soql(wire).count_since(instant) == 7

    assert queries(wire) == [
        f"SELECT COUNT() FROM Opportunity WHERE External_ID__c != null AND SystemModstamp >= {since}"
    ]


def test_rows_are_counted_by_the_value_of_a_field() -> None:
    wire = Wire(
        answers(
            found(
                [
                    {"StageName": "Qualification", "n": 2_000_000},
                    {"StageName": None, "n": 3},
                    {"StageName": "", "n": 1},
                    {"StageName": True, "n": 5},
                ]
            )
        )
    )

    assert soql(wire).count_by("StageName") == {"Qualification": 2_000_000, "": 4, "true": 5}

    assert queries(wire) == [
        "SELECT StageName, COUNT(Id) n FROM Opportunity WHERE External_ID__c != null GROUP BY StageName"
    ]


def test_more_values_than_the_org_counts_by_are_refused() -> None:
    wire = Wire(answers(refusal(400, "EXCEEDED_ID_LIMIT", "does not support queryMore(), use LIMIT")))

    with pytest.raises(RequestRefused, match="does not support queryMore"):
        soql(wire).count_by("Name")


def test_a_count_that_takes_too_long_is_refused_and_not_repeated() -> None:
    wire = Wire(answers(refusal(400, "QUERY_TIMEOUT", "Your query request was running for too long.")))

    with pytest.raises(RequestRefused, match="running for too long"):
        soql(wire).count()


# rows


def test_rows_come_as_text_with_every_digit_that_came() -> None:
    records = (
        '{"totalSize": 2, "done": true, "records": ['
        '{"attributes": {"type": "Opportunity"}, "Id": "006A", "External_ID__c": "key1", "Name": "One", '
        '"Amount": 12345678901234.10, "LastModifiedDate": "2026-01-02T03:04:05.000+0000", "LastModifiedById": "005A"},'
        '{"ID": "006B", "external_id__c": "key2", "Name": null, "Amount": 1.2345678E7, "LastModifiedDate": null}]}'
    )
    wire = Wire(answers(httpx.Response(200, content=records, headers={"Content-Type": "application/json"})))

    frame = soql(wire).rows_of(["key1", "key2"])

    assert set(frame.dtypes) == {pl.String}
    assert frame.rows() == [
        ("006A", "key1", "One", "12345678901234.10", "2026-01-02T03:04:05.000+0000", "005A"),
        ("006B", "key2", None, "1.2345678E7", None, None),
    ]
    selected = "Id, External_ID__c, Name, Amount, LastModifiedDate, LastModifiedById"
    assert queries(wire) == [f"SELECT {selected} FROM Opportunity WHERE External_ID__c IN ('key1','key2')"]


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    return [{"Id": f"006{number:05d}", "External_ID__c": f"key{number:05d}"} for number in range(start, stop)]


def test_a_query_is_read_to_its_last_batch() -> None:
    wire = Wire(
        answers(
            found(rows(0, 2000), total=4500, following=f"{DATA}/query/01gRM0000000001-2000"),
            found(rows(2000, 4000), total=4500, following=f"{DATA}/query/01gRM0000000001-4000"),
            found(rows(4000, 4500), total=4500),
        )
    )

    frame = soql(wire).rows_of(["key"])

    assert frame["External_ID__c"].to_list() == [f"key{number:05d}" for number in range(4500)]
    assert wire.sent == [
        ("GET", f"{DATA}/query"),
        ("GET", f"{DATA}/query/01gRM0000000001-2000"),
        ("GET", f"{DATA}/query/01gRM0000000001-4000"),
    ]
    assert wire.counted == {"soql": 3}


@pytest.mark.parametrize(
    "url", ["https://evil.example/query/01g-2000", "//evil.example/01g-2000", "/../../01g-2000", "01g-2000/"]
)
def test_only_the_locator_is_taken_from_the_url_of_the_next_batch(url: str) -> None:
    wire = Wire(answers(found(rows(0, 1), total=2, following=url), found(rows(1, 2), total=2)))

    assert soql(wire).rows_of(["key"]).height == 2

    assert wire.sent[1] == ("GET", f"{DATA}/query/01g-2000")
    assert {request.url.host for request in wire.requests} == {"acme-instance.my.salesforce.com"}


@pytest.mark.parametrize(
    "batches",
    [
        pytest.param([found(rows(0, 1), total=2)], id="fewer rows than found"),
        pytest.param([found(rows(0, 2), total=1)], id="more rows than found"),
        pytest.param([found([], total=2)], id="no rows"),
        pytest.param([found(rows(0, 1), total=2, following="")], id="no next batch"),
        pytest.param([found([], total=2, following="01g-2000")], id="an empty batch before the end"),
        pytest.param([found(rows(0, 2), total=2, following="01g-2000")], id="a batch after the end"),
        pytest.param(
            [found(rows(0, 1), total=3, following="01g-1"), found(rows(0, 1), total=3)], id="a short last batch"
        ),
    ],
)
def test_a_query_that_is_not_whole_is_an_error(batches: list[httpx.Response]) -> None:
    with pytest.raises(WireError, match=r"A query (found|goes on)"):
        soql(Wire(answers(*batches))).rows_of(["key"])


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"done": true, "records": []}', b'{"totalSize": "many", "done": true}', b"[" * 100_000]
)
def test_what_is_no_batch_of_records_is_asked_for_again(content: bytes) -> None:
    broken = httpx.Response(200, content=content, headers={"Content-Type": "application/json"})
    wire = Wire(answers(broken, found([], total=3)))

    assert soql(wire).count() == 3


# describe


def described(*fields: dict[str, Any], **more: Any) -> httpx.Response:
    return httpx.Response(200, json={"name": "Opportunity", "keyPrefix": "006", "fields": list(fields), **more})


def test_the_target_is_described_field_by_field() -> None:
    wire = Wire(
        answers(
            described(
                {
                    "name": "External_ID__c",
                    "label": "External ID",
                    "type": "string",
                    "length": 255,
                    "externalId": True,
                    "idLookup": True,
                    "unique": True,
                    "caseSensitive": False,
                    "nillable": True,
                    "createable": True,
                    "updateable": True,
                    "defaultedOnCreate": False,
                    "picklistValues": [],
                    "referenceTo": [],
                },
                {"name": "Amount", "type": "currency", "precision": 18, "scale": 2, "length": 0, "updateable": False},
                {
                    "name": "StageName",
                    "type": "picklist",
                    "restrictedPicklist": True,
                    "nillable": False,
                    "picklistValues": [
                        {"value": "Open", "active": True, "label": "Open", "defaultValue": False},
                        {"value": "Old", "active": False},
                    ],
                },
                {"name": "LeadSource", "type": "picklist", "picklistValues": [{"value": "Web"}], "nillable": True},
            )
        )
    )

    target = soql(wire).describe()

    assert wire.sent == [("GET", f"{DATA}/sobjects/Opportunity/describe")]
    assert (target.name, target.key_prefix, len(target.fields)) == ("Opportunity", "006", 4)
    key, amount, stage, source = target.fields.values()
    assert (key.external_id, key.id_lookup, key.unique, key.case_sensitive, key.length) == (
        True,
        True,
        True,
        False,
        255,
    )
    assert (amount.precision, amount.scale, amount.updateable) == (18, 2, False)
    assert (stage.picklist, stage.nillable) == (("Open", "Old"), False)
    assert (source.picklist, amount.picklist, key.picklist) == (("Web",), None, None)


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ({"type": "string"}, (False, False, False)),
        ({"type": "string", "autoNumber": True}, (True, False, False)),
        ({"type": "string", "calculated": True, "htmlFormatted": True}, (False, True, False)),
        ({"type": "textarea", "extraTypeInfo": "plaintextarea"}, (False, False, False)),
        ({"type": "textarea", "extraTypeInfo": "richtextarea"}, (False, False, True)),
        ({"type": "textarea", "htmlFormatted": True}, (False, False, True)),
    ],
)
def test_what_the_org_makes_or_rewrites_itself_is_known(told: dict[str, Any], meant: tuple[bool, bool, bool]) -> None:
    field = soql(Wire(answers(described({"name": "Field__c", **told})))).describe().fields["Field__c"]

    assert (field.auto_number, field.calculated, field.rich_text) == meant


def test_rows_are_asked_for_by_numbers_in_whatever_spelling() -> None:
    wire = Wire(lambda request: found([]))

    soql(wire).rows_of(["1.0E7", "10000000", "-0.50", "many", "0.0", "12345678901234567890", "\u0663"], as_numbers=True)

    (query,) = queries(wire)
    assert query.endswith(" WHERE External_ID__c IN (10000000,-0.5,0,12345678901234567890)")


def test_keys_that_are_no_numbers_have_no_rows_and_cost_no_call() -> None:
    assert soql(Wire(never)).rows_of(["many", "", "1_000", "inf"], as_numbers=True).height == 0


def test_an_object_that_is_not_there_is_a_fault_of_the_mapping() -> None:
    wire = Wire(answers(refusal(404, "NOT_FOUND", "The requested resource does not exist")))

    with pytest.raises(MappingError, match="no object Opportunity, or the user may not see it") as refused:
        soql(wire).describe()

    assert "SYNC_MAPPING" in refused.value.hint


def test_another_refusal_of_the_description_is_told_as_it_is() -> None:
    with pytest.raises(RequestRefused, match="UNSUPPORTED_API_VERSION"):
        soql(Wire(answers(refusal(410, "UNSUPPORTED_API_VERSION")))).describe()


# limits and who else is there


def test_limits_are_those_that_have_a_maximum_and_a_rest() -> None:
    wire = Wire(
        answers(
            httpx.Response(
                200,
                json={
                    "DailyApiRequests": {"Max": 100000, "Remaining": 89982, "Ant Migration Tool": {"Max": 0}},
                    "DailyBulkApiBatches": {"Max": "15000", "Remaining": "14000"},
                    "PermissionSets": {"Max": 1500, "CreateCustom": {"Max": 1000, "Remaining": 998}},
                },
            )
        )
    )

    assert soql(wire).limits() == {"DailyApiRequests": Limit(100000, 89982), "DailyBulkApiBatches": Limit(15000, 14000)}
    assert wire.sent == [("GET", f"{DATA}/limits")]


def test_limits_need_a_right() -> None:
    with pytest.raises(RightsError):
        soql(Wire(answers(refusal(403, "INSUFFICIENT_ACCESS")))).limits()


def test_the_org_has_a_name_or_at_least_a_host() -> None:
    assert soql(Wire(answers(found([{"Name": "Acme"}])))).organization() == "Acme"
    for reply in (
        found([{"Name": None}]),
        found([]),
        refusal(403, "INSUFFICIENT_ACCESS"),
        refusal(400, "INVALID_TYPE"),
    ):
        assert soql(Wire(answers(reply))).organization() == "acme-instance.my.salesforce.com"


def test_a_lost_answer_is_no_org_without_a_name() -> None:
    with pytest.raises(WireError):
        soql(Wire(lambda request: httpx.Response(503))).organization()
    with pytest.raises(LimitExceeded):
        soql(Wire(answers(refusal(403, "REQUEST_LIMIT_EXCEEDED")))).organization()


def test_who_else_may_write_is_told_in_sentences() -> None:
    scheduled = {"CronJobDetail": {"Name": "DataCloudSync hourly"}, "NextFireTime": "2026-01-02T03:00:00.000+0000"}
    running = {"ApexClass": {"Name": "DataCloudBatchProcessor"}, "JobType": "BatchApex", "Status": "Processing"}
    wire = Wire(
        answers(
            found([scheduled, {"CronJobDetail": None, "NextFireTime": None}]),
            found([running, {"ApexClass": None, "JobType": "Queueable", "Status": "Queued"}]),
        )
    )

    assert soql(wire).other_loads() == [
        "Scheduled Apex DataCloudSync hourly, next at 2026-01-02T03:00:00.000+0000.",
        "Scheduled Apex unnamed, next at no set time.",
        "BatchApex of Apex class DataCloudBatchProcessor is Processing.",
        "Queueable of Apex class unnamed is Queued.",
    ]


def test_what_the_user_may_not_see_is_said_and_not_left_out() -> None:
    wire = Wire(
        answers(refusal(400, "INVALID_TYPE", "sObject type 'CronTrigger' is not supported"), refusal(403, "NO"))
    )

    scheduled, running = soql(wire).other_loads()

    assert scheduled.startswith("Scheduled Apex cannot be seen by this user")
    assert running.startswith("Running Apex cannot be seen by this user")


# a few rows by sObject Collections


def frame_of(number: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "key": pl.Series([f"key{place}" for place in range(number)], dtype=pl.String),
            "Name": pl.Series([f"Name {place}" for place in range(number)], dtype=pl.String),
            "Amount": pl.Series([Decimal(place) for place in range(number)], dtype=pl.Decimal(38, 2)),
        }
    )


def saves_all(request: httpx.Request) -> httpx.Response:
    return httpx.Response(
        200,
        json=[
            {"id": f"006{record['External_ID__c']}", "success": True, "created": True, "errors": []}
            for record in body_of(request)["records"]
        ],
    )


@pytest.mark.parametrize(("number", "calls"), [(0, []), (1, [1]), (200, [200]), (201, [200, 1]), (450, [200, 200, 50])])
def test_rows_are_saved_two_hundred_at_a_time(number: int, calls: list[int]) -> None:
    wire = Wire(saves_all)

    saved = soql(wire).upsert_rows(frame_of(number))

    assert saved["key"].to_list() == [f"key{place}" for place in range(number)]
    assert saved["id"].to_list() == [f"006key{place}" for place in range(number)]
    assert saved.schema == {"key": pl.String, "id": pl.String, "created": pl.Boolean, "error": pl.String}
    assert [len(body_of(request)["records"]) for request in wire.requests] == calls
    assert wire.sent == [("PATCH", f"{DATA}/composite/sobjects/Opportunity/External_ID__c")] * len(calls)


def test_a_record_says_what_the_mapping_wants_of_a_null() -> None:
    frame = pl.DataFrame(
        {
            "key": ["key1", "key2"],
            "Name": [None, ""],
            "Amount": pl.Series([None, Decimal("1.50")], dtype=pl.Decimal(38, 2)),
        }
    )
    wire = Wire(saves_all)

    soql(wire).upsert_rows(frame)

    assert body_of(wire.requests[0]) == {
        "allOrNone": False,
        "records": [
            {"attributes": {"type": "Opportunity"}, "External_ID__c": "key1", "Name": None},
            {"attributes": {"type": "Opportunity"}, "External_ID__c": "key2", "Name": None, "Amount": 1.5},
        ],
    }


@pytest.mark.parametrize(
    ("kind", "values", "written"),
    [
        (
            FieldType.NUMBER,
            pl.Series([Decimal("12345678901234567890.12"), Decimal("-0.05")], dtype=pl.Decimal(38, 2)),
            ["12345678901234567890.12", "-0.05"],
        ),
        (FieldType.DATE, pl.Series([date(2024, 1, 2)]), ['"2024-01-02"']),
        (
            FieldType.DATETIME,
            pl.Series([datetime(2024, 1, 2, 3, 4, 5, 678901, UTC)], dtype=pl.Datetime("us", "UTC")),
            ['"2024-01-02T03:04:05.678Z"'],
        ),
        (FieldType.DATETIME, pl.Series([datetime(2024, 1, 2)]), ['"2024-01-02T00:00:00.000Z"']),
        (
            FieldType.DATETIME,
            pl.Series([datetime(2024, 7, 2, 3, tzinfo=UTC)]).dt.convert_time_zone("Europe/Berlin"),
            ['"2024-07-02T03:00:00.000Z"'],
        ),
        (FieldType.BOOLEAN, pl.Series([True, False]), ["true", "false"]),
        (FieldType.TEXT, pl.Series(['a "b" \\ \n é']), [r'"a \"b\" \\ \n é"']),
    ],
)
def test_each_type_has_its_own_form_in_json(kind: FieldType, values: pl.Series, written: list[str]) -> None:
    mapping = Mapping("S", "K", "Opportunity", "External_ID__c", (FieldMapping("F__c", "Field", kind),))
    wire = Wire(saves_all)
    frame = pl.DataFrame({"key": [f"key{place}" for place in range(len(values))], "Field": values})

    Soql(wire.session, mapping).upsert_rows(frame)

    for text in written:
        assert f'"Field":{text}}}'.encode() in wire.requests[0].content


def test_a_row_that_is_refused_says_why_as_a_result_file_would() -> None:
    errors = [{"statusCode": "UNABLE_TO_LOCK_ROW", "message": "unable to obtain: 001A", "fields": []}]
    missing = [{"statusCode": "REQUIRED_FIELD_MISSING", "message": "missing: [Name]", "fields": ["Name", "StageName"]}]
    wire = Wire(
        answers(
            httpx.Response(
                200,
                json=[
                    {"id": "006A", "success": True, "created": False, "errors": []},
                    {"success": False, "errors": errors},
                    {"id": None, "success": False, "errors": missing},
                    {"success": False, "errors": []},
                ],
            )
        )
    )

    saved = soql(wire).upsert_rows(frame_of(4))

    assert saved.rows() == [
        ("key0", "006A", False, None),
        ("key1", "", False, "UNABLE_TO_LOCK_ROW:unable to obtain: 001A: --"),
        ("key2", "", False, "REQUIRED_FIELD_MISSING:missing: [Name]:Name,StageName --"),
        ("key3", "", False, "UNKNOWN:refused without a reason: --"),
    ]


def some_results(number: int) -> Callable[[], httpx.Response]:
    return lambda: httpx.Response(200, json=[{"id": "006A", "success": True, "created": True, "errors": []}] * number)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_results_for_other_rows_than_were_sent_are_no_results(number: int) -> None:
    wire = Wire(lambda request: some_results(number)())

    with pytest.raises(WireError, match=f"{number} results for 2 records"):
        soql(wire).upsert_rows(frame_of(2))


def test_rows_whose_answer_was_lost_are_sent_again() -> None:
    """By their external id, which makes a repeat harmless: rows that were saved are then updated."""
    wire = Wire(answers(httpx.ReadTimeout("slow"), some_results(2)()))

    assert soql(wire).upsert_rows(frame_of(2)).height == 2

    assert wire.requests[0].content == wire.requests[1].content


def test_a_query_is_written_into_the_uri_as_it_is() -> None:
    wire = Wire(answers(found([], total=0)))

    soql(wire).count(KeyRange("a&b=c #d+e%20f", None))

    raw = wire.requests[0].url.query.decode()
    assert unquote_plus(raw.removeprefix("q=")) == (
        "SELECT COUNT() FROM Opportunity WHERE External_ID__c != null AND External_ID__c > 'a&b=c #d+e%20f'"
    )
    assert "&" not in raw
