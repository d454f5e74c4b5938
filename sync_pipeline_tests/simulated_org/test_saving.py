"""Saving rows: what is refused with which words, what is kept, and what an upsert does to what is there."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sync_pipeline.simulated_org.objects import find_object
from sync_pipeline.simulated_org.records import Records
from sync_pipeline.simulated_org.saving import Operation, save_rows
from sync_pipeline.simulated_org.state import Org

NOW = 1_790_000_000.0
GOOD = {"Name": "n", "StageName": "Qualification", "CloseDate": "2026-12-31"}


@pytest.fixture
def org(tmp_path: Path) -> Org:
    return Org(tmp_path / "org", clock=lambda: NOW)


def save(
    org: Org, *rows: dict[str, Any], operation: Operation = "upsert", name: str = "Opportunity", user: str = ""
) -> list[tuple[str, bool, str | None]]:
    sobject = find_object(org, name)
    assert sobject is not None
    columns = list(dict.fromkeys(column for row in rows for column in row))
    frame = pl.DataFrame(
        {column: [row.get(column, "") for row in rows] for column in columns}, schema=dict.fromkeys(columns, pl.String)
    )
    key = sobject.fields["External_ID__c"] if operation == "upsert" else None
    saved = save_rows(org, user or org.user_id, sobject, operation, frame, key_field=key)
    return list(saved.iter_rows())


def stored(org: Org, *columns: str, name: str = "Opportunity") -> list[dict[str, Any]]:
    sobject = find_object(org, name)
    assert sobject is not None
    return [row for frame in Records(org, sobject).frames(columns) for row in frame.to_dicts()]


def code(saved: tuple[str, bool, str | None]) -> str:
    return "" if saved[2] is None else saved[2].partition(":")[0]


def test_a_new_key_is_created_and_a_known_one_updated(org: Org) -> None:
    ((first, was_created, _),) = save(org, {"External_ID__c": "a", **GOOD})
    ((second, was_created_again, _),) = save(org, {"External_ID__c": "a", "Name": "other"})

    assert first.startswith("006") and len(first) == 18
    assert (was_created, was_created_again, second) == (True, False, first)
    assert stored(org, "Name", "StageName") == [{"Name": "other", "StageName": "Qualification"}]


def test_values_are_kept_by_their_type(org: Org) -> None:
    save(org, {"External_ID__c": " a ", **GOOD, "Name": "  n\t", "Amount": "1.2345678E7", "CloseDate": "2026-02-28"})

    assert stored(org, "External_ID__c", "Name", "Amount", "CloseDate") == [
        {"External_ID__c": "a", "Name": "n", "Amount": 12345678.0, "CloseDate": date(2026, 2, 28)}
    ]


def test_who_and_when_are_kept_with_each_row(org: Org) -> None:
    save(org, {"External_ID__c": "a", **GOOD})
    save(org, {"External_ID__c": "a", "Name": "m"}, user=org.admin_id)

    (row,) = stored(org, "CreatedById", "LastModifiedById", "LastModifiedDate")
    assert row == {
        "CreatedById": org.user_id,
        "LastModifiedById": org.admin_id,
        "LastModifiedDate": datetime.fromtimestamp(NOW, UTC),
    }


def test_an_empty_text_is_ignored_and_na_clears(org: Org) -> None:
    save(org, {"External_ID__c": "a", **GOOD, "Amount": "5", "NextStep": "call"})
    save(org, {"External_ID__c": "a", "Name": "", "Amount": "#N/A", "NextStep": "   "})

    assert stored(org, "Name", "Amount", "NextStep") == [{"Name": "n", "Amount": None, "NextStep": "call"}]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"Name": ""}, "REQUIRED_FIELD_MISSING:Required fields are missing: [Name]:Name --"),
        ({"Name": "", "CloseDate": "#N/A"}, "REQUIRED_FIELD_MISSING:Required fields are missing: [Name, CloseDate]:Name,CloseDate --"),
        ({"Name": "x" * 121}, f"STRING_TOO_LONG:Name: data value too large: {'x' * 100} (max length=120):Name --"),
        ({"StageName": "Nowhere"}, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST:Stage: bad value for restricted picklist field: Nowhere:StageName --"),
        ({"Amount": "much"}, "INVALID_TYPE_ON_FIELD_IN_RECORD:Amount: value not of required type: much:Amount --"),
        ({"Amount": "1e17"}, "NUMBER_OUTSIDE_VALID_RANGE:Amount: value outside of valid range on numeric field: 1e17:Amount --"),
        ({"CloseDate": "2026-02-30"}, "INVALID_TYPE_ON_FIELD_IN_RECORD:Close Date: value not of required type: 2026-02-30:CloseDate --"),
        ({"CloseDate": "31/12/2026"}, "INVALID_TYPE_ON_FIELD_IN_RECORD:Close Date: value not of required type: 31/12/2026:CloseDate --"),
        ({"AccountId": "acme"}, "MALFORMED_ID:Account ID: id value of incorrect type: acme:AccountId --"),
        ({"AccountId": "0015e00000ZZZZZAA4"}, "MALFORMED_ID:Account ID: id value of incorrect type: 0015e00000ZZZZZAA4:AccountId --"),
        ({"AccountId": "0015e00000ZZZZZ"}, "INVALID_CROSS_REFERENCE_KEY:invalid cross reference id:AccountId --"),
        ({"External_ID__c": "  "}, "MISSING_ARGUMENT:External_ID__c not specified:--"),
    ],
)  # fmt: skip
def test_a_bad_row_is_refused_in_the_words_of_the_org_and_the_others_are_saved(
    org: Org, change: dict[str, str], error: str
) -> None:
    saved = save(org, {"External_ID__c": "bad", **GOOD, **change}, {"External_ID__c": "good", **GOOD})

    assert saved[0] == ("", False, error)
    assert (saved[1][1], saved[1][2]) == (True, None)
    assert stored(org, "External_ID__c") == [{"External_ID__c": "good"}]


def test_length_counts_characters_and_not_bytes(org: Org) -> None:
    ((_, _, error),) = save(org, {"External_ID__c": "a", **GOOD, "Name": "𝄞" * 120})

    assert error is None


def test_an_account_is_known_by_its_15_and_its_18_characters(org: Org) -> None:
    ((account, _, _),) = save(org, {"Name": "acme"}, operation="insert", name="Account")

    save(
        org,
        {"External_ID__c": "a", **GOOD, "AccountId": account},
        {"External_ID__c": "b", **GOOD, "AccountId": account[:15]},
    )

    assert stored(org, "AccountId") == [{"AccountId": account}, {"AccountId": account}]


def test_a_parent_can_be_named_by_its_external_id(org: Org) -> None:
    ((account, _, _),) = save(org, {"Name": "acme", "External_ID__c": "A-1"}, operation="insert", name="Account")

    saved = save(
        org,
        {"External_ID__c": "a", **GOOD, "Account.External_ID__c": "a-1"},
        {"External_ID__c": "b", **GOOD, "Account.External_ID__c": "nobody"},
    )

    assert stored(org, "External_ID__c", "AccountId") == [{"External_ID__c": "a", "AccountId": account}]
    assert (
        saved[1][2]
        == "INVALID_FIELD:Foreign key external ID: nobody not found for field External_ID__c in entity Opportunity:--"
    )


def test_letter_case_and_blanks_do_not_tell_keys_apart_unless_the_field_says_so(org: Org) -> None:
    save(org, {"External_ID__c": "Key", **GOOD})

    assert save(org, {"External_ID__c": " kEY ", "Name": "m"})[0][1] is False
    org.set_setting("fields", {"Opportunity.External_ID__c": {"case_sensitive": True}})
    other = Org(org.folder.parent / "other", clock=lambda: NOW)
    other.set_setting("fields", {"Opportunity.External_ID__c": {"case_sensitive": True}})
    assert [row[1] for row in save(other, {"External_ID__c": "Key", **GOOD}, {"External_ID__c": "kEY", **GOOD})] == [
        True,
        True,
    ]


def test_one_key_twice_within_200_rows_fails_all_of_its_rows(org: Org) -> None:
    saved = save(org, *({"External_ID__c": key, **GOOD} for key in ("a", "b", "A ")))

    assert [code(row) for row in saved] == ["DUPLICATE_VALUE", "", "DUPLICATE_VALUE"]


def test_one_key_twice_further_apart_is_saved_twice_and_the_later_row_wins(org: Org) -> None:
    rows = [{"External_ID__c": f"k{n}", **GOOD} for n in range(200)]

    saved = save(org, *rows, {"External_ID__c": "k7", **GOOD, "Name": "later"})

    assert (saved[7][1], saved[200][1]) == (True, False)
    assert saved[7][0] == saved[200][0]
    assert {row["Name"] for row in stored(org, "External_ID__c", "Name") if row["External_ID__c"] == "k7"} == {"later"}


def test_a_key_that_several_rows_have_is_not_matched(org: Org) -> None:
    org.set_setting("fields", {"Opportunity.External_ID__c": {"unique": False}})
    for _ in range(2):
        sobject = find_object(org, "Opportunity")
        assert sobject is not None
        records = Records(org, sobject)
        save(org, {"External_ID__c": f"twin{len(records)}", **GOOD})
    sobject = find_object(org, "Opportunity")
    assert sobject is not None
    records = Records(org, sobject)
    (frame,) = list(records.frames())
    with org.write():
        touched = records.touch(frame["_k"])
        touched.remove(frame["Id"])
        touched.put(frame.with_columns(pl.lit("twin").alias("_k"), pl.lit("twin").alias("External_ID__c")))
        touched.save()

    ((_, _, error),) = save(org, {"External_ID__c": "twin", "Name": "m"})

    assert error is not None
    assert error.startswith("DUPLICATE_EXTERNAL_ID:External ID: more than one record found for external id field: [006")


def test_ids_follow_the_order_in_which_rows_came(org: Org) -> None:
    saved = save(org, *({"External_ID__c": key, **GOOD} for key in "cab"))

    ids = [row_id for row_id, _, _ in saved]
    assert ids == sorted(ids)
    assert {row["External_ID__c"]: row["Id"] for row in stored(org, "External_ID__c", "Id")} == dict(
        zip("cab", ids, strict=True)
    )


def test_an_insert_of_a_known_key_is_refused_with_the_row_that_has_it(org: Org) -> None:
    ((known, _, _),) = save(org, {"External_ID__c": "a", **GOOD})

    ((_, _, error),) = save(org, {"External_ID__c": "a", **GOOD}, operation="insert")

    assert error == (
        f"DUPLICATE_VALUE:duplicate value found: External_ID__c duplicates value on record with id: {known}:External_ID__c --"
    )


def test_rows_are_updated_and_deleted_by_id(org: Org) -> None:
    (a, b) = (row[0] for row in save(org, {"External_ID__c": "a", **GOOD}, {"External_ID__c": "b", **GOOD}))

    updated = save(org, {"Id": a, "Name": "m"}, {"Id": "0065e00000ZZZZZ", "Name": "m"}, operation="update")
    save(org, {"Id": b}, operation="delete")

    assert [code(row) for row in updated] == ["", "INVALID_CROSS_REFERENCE_KEY"]
    assert stored(org, "External_ID__c", "Name") == [{"External_ID__c": "a", "Name": "m"}]


def test_a_changed_external_id_is_found_under_its_new_name(org: Org) -> None:
    ((a, _, _), _) = save(org, {"External_ID__c": "a", **GOOD}, {"External_ID__c": "m", **GOOD})

    save(org, {"Id": a, "External_ID__c": "z"}, operation="update")

    assert save(org, {"External_ID__c": "z", "Name": "q"})[0] == (a, False, None)
    assert save(org, {"External_ID__c": "a", **GOOD})[0][1] is True


def test_a_stage_tells_whether_the_opportunity_is_won(org: Org) -> None:
    save(org, {"External_ID__c": "a", **GOOD})
    save(org, {"External_ID__c": "a", "StageName": "Closed Won"})

    assert stored(org, "IsClosed", "IsWon") == [{"IsClosed": True, "IsWon": True}]
