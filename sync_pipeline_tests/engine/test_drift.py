"""One reason for each row that differs: from the ledger, from the source as it is now, and from who touched it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from sync_pipeline.domain.mapping import FieldMapping, FieldType, Mapping, TargetField, TargetObject
from sync_pipeline.engine.drift import DRIFT, FATES, look_again, mark_changed, named_by_key, with_reasons
from sync_pipeline.engine.duplicates import SCHEMA, standing
from sync_pipeline.engine.equality import Equality
from sync_pipeline.staging.comparison import FINDINGS, Kind

KEY = TargetField("Key__c", "Key", "string", length=80, external_id=True, unique=True)
TARGET = TargetObject(
    "Thing__c", "a00", {"Key__c": KEY, "Text__c": TargetField("Text__c", "Text", "string", length=80)}
)
MAPPING = Mapping("Things__dlm", "Key__c", "Thing__c", "Key__c", (FieldMapping("Text__c", "Text__c", FieldType.TEXT),))
EQUALITY = Equality(MAPPING, TARGET)
NO_GROUPS = standing(pl.DataFrame(schema=SCHEMA))
US, THEM = "005000000000001AAA", "005000000000002AAA"
LOADED_AT = datetime(2026, 3, 1, 2, 30)


def findings(*named: tuple[Kind, str]) -> pl.DataFrame:
    rows = [(str(kind), key, 0, False, True, 0) for kind, key in named]
    return pl.DataFrame(rows, schema=FINDINGS, orient="row")


def staged(**texts: str | None) -> pl.DataFrame:
    return pl.DataFrame(
        {"key": list(texts), "Text__c": list(texts.values())}, schema={"key": pl.String, "Text__c": pl.String}
    )


def source(**texts: str | None) -> pl.DataFrame:
    return staged(**texts).rename({"key": "Key__c"})


def in_org(*rows: tuple[str, str | None], by: str = US, at: str = "2026-03-01T02:30:00.000+0000") -> pl.DataFrame:
    """Rows as SOQL gives them; the id is the place in the list."""
    return pl.DataFrame(
        [(f"00{place}", key, text, at, by) for place, (key, text) in enumerate(rows, start=1)],
        schema=dict.fromkeys(("Id", "key", "Text__c", "LastModifiedDate", "LastModifiedById"), pl.String),
        orient="row",
    )


def fate(key: str, outcome: str | None, **more: Any) -> dict[str, Any]:
    told = {
        "key": key,
        "outcome": outcome,
        "code": None,
        "message": None,
        "job_id": "750",
        "id": "006",
        "created": True,
    }
    return told | {"recorded_at": LOADED_AT} | more


def fates(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=FATES)


def reasons(drift: pl.DataFrame, ledger: pl.DataFrame, present: pl.DataFrame) -> dict[str, str]:
    told = with_reasons(EQUALITY, drift, ledger, present, user_id=US)
    assert told.schema == DRIFT
    return dict(told.select("key", "reason").rows())


# the second look


def test_a_row_that_turned_up_or_is_equal_by_now_is_no_drift() -> None:
    doubtful = findings((Kind.MISSING, "late"), (Kind.DIFFERENT, "mended"))

    again = look_again(
        EQUALITY, doubtful, staged(late="x", mended="y"), in_org(("late", "x"), ("mended", "y")), with_values=True
    )

    assert again.rows() == []


def test_a_row_that_turned_up_with_another_value_differs() -> None:
    again = look_again(EQUALITY, findings((Kind.MISSING, "a")), staged(a="x"), in_org(("A", "y")), with_values=True)

    assert again.select("key", "finding", "column", "staged", "present").rows() == [
        ("a", "different", "Text__c", "x", "y")
    ]


def test_a_row_that_differed_and_is_gone_by_now_is_missing() -> None:
    again = look_again(EQUALITY, findings((Kind.DIFFERENT, "a")), staged(a="x"), in_org(), with_values=True)

    assert again.select("key", "finding").rows() == [("a", "missing")]


def test_a_doubled_key_is_told_with_its_ids_and_one_that_is_single_by_now_is_compared() -> None:
    doubtful = findings((Kind.DOUBLED, "twice"), (Kind.DOUBLED, "once"))
    present = in_org(("twice", "x"), ("TWICE", "x"), ("once", "other"))

    again = look_again(EQUALITY, doubtful, staged(twice="x", once="x"), present, with_values=True)

    assert sorted(again.select("key", "finding", "detail").rows()) == [
        ("once", "different", ""),
        ("twice", "doubled", "2 rows of the org have this key: 001, 002"),
    ]


def test_a_row_whose_expected_values_are_not_known_stays_different() -> None:
    again = look_again(EQUALITY, findings((Kind.DIFFERENT, "a")), staged(), in_org(("a", "x")), with_values=True)

    assert again.select("key", "finding", "column").rows() == [("a", "different", "")]


def test_by_keys_no_value_is_looked_at() -> None:
    doubtful = findings((Kind.MISSING, "lost"), (Kind.MISSING, "late"))

    again = look_again(EQUALITY, doubtful, staged(), in_org(("late", "whatever")), with_values=False)

    assert again.select("key", "finding").rows() == [("lost", "missing")]


# what the source explains


def drift(*named: tuple[Kind, str]) -> pl.DataFrame:
    return named_by_key(findings(*named))


@pytest.mark.parametrize(
    ("now", "org", "finding"),
    [
        ({"a": "new"}, ("a", "new"), "changed since"),  # the org has what the source says now
        ({"a": "new"}, ("a", "other"), "different"),  # the org has what nobody said
        ({"a": "old"}, ("a", "other"), "different"),
        ({}, ("a", "other"), "different"),  # a row that left the source excuses no wrong value
        ({"a": "#N/A"}, ("a", "other"), "different"),  # nor does one that could not be sent
    ],
)
def test_a_different_row_is_excused_only_by_a_source_that_says_the_same(
    now: dict[str, str], org: tuple[str, str], finding: str
) -> None:
    marked = mark_changed(EQUALITY, drift((Kind.DIFFERENT, "a")), source(**now), NO_GROUPS, in_org(org))

    assert marked["finding"].to_list() == [finding]


def test_a_missing_row_is_excused_only_by_a_source_that_has_it_no_more() -> None:
    lost = drift((Kind.MISSING, "gone"), (Kind.MISSING, "there"), (Kind.MISSING, "padded"))
    now = pl.concat([source(there="x"), source(**{" padded\t": "x"})])

    marked = mark_changed(EQUALITY, lost, now, NO_GROUPS, in_org())

    assert marked["finding"].to_list() == ["changed since", "missing", "missing"]


# the ledger's word


@pytest.mark.parametrize(
    ("ledger", "reason"),
    [
        (fates(), "never read"),
        (fates(fate("a", None)), "unprocessed"),
        (fates(fate("a", "unprocessed", code="NOT_ACKNOWLEDGED")), "unprocessed"),
        (fates(fate("a", "failed", code="TOO_LATE", message="no")), "rejected"),
        (fates(fate("a", "quarantined", code="TOO_LONG")), "quarantined"),
        (fates(fate("a", "succeeded")), "lost"),
    ],
)
def test_a_missing_row_has_the_reason_that_the_ledger_gives(ledger: pl.DataFrame, reason: str) -> None:
    assert reasons(drift((Kind.MISSING, "a")), ledger, in_org()) == {"a": reason}


@pytest.mark.parametrize(
    ("by", "after", "reason"),
    [
        (US, timedelta(0), "saved otherwise"),
        (US, timedelta(minutes=4), "saved otherwise"),  # clocks differ
        (US, timedelta(hours=1), "touched by someone else"),  # another program under the same name
        (THEM, timedelta(hours=1), "touched by someone else"),
        (THEM, timedelta(0), "touched by someone else"),
        (THEM[:15], timedelta(0), "touched by someone else"),
        (US[:15], timedelta(0), "saved otherwise"),
    ],
)
def test_a_different_row_is_told_by_who_touched_it_after_the_load(by: str, after: timedelta, reason: str) -> None:
    at = (LOADED_AT.replace(tzinfo=UTC) + after).strftime("%Y-%m-%dT%H:%M:%S.000+0000")
    present = in_org(("A", "y"), by=by, at=at)

    assert reasons(drift((Kind.DIFFERENT, "a")), fates(fate("a", "succeeded")), present) == {"a": reason}


def test_a_row_that_was_not_looked_up_still_has_the_job_that_saved_it() -> None:
    told = with_reasons(
        EQUALITY, drift((Kind.DIFFERENT, "a")), fates(fate("a", "succeeded", created=False)), in_org(), user_id=US
    )

    assert told["detail"].to_list() == [
        "job 750 said updated as 006 (archived at 2026-03-01 02:30:00 UTC); who changed it was not looked up"
    ]


def test_a_reason_that_is_known_already_stays() -> None:
    marked = mark_changed(EQUALITY, drift((Kind.MISSING, "a")), source(), NO_GROUPS, in_org())

    assert reasons(marked, fates(fate("a", "succeeded")), in_org()) == {"a": "changed since"}


def test_of_many_doubled_keys_those_that_were_not_looked_up_are_told_as_such() -> None:
    assert reasons(drift((Kind.DOUBLED, "a")), fates(fate("a", "failed", code="DUPLICATE")), in_org()) == {
        "a": "doubled"
    }
