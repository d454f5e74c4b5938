"""Values: what the target can hold is sent as it is, anything else is quarantined with its rule."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.domain.mapping import Mapping, TargetField, TargetObject, load_mapping, parse_mapping
from sync_pipeline.engine.values import BLANKS, convert

MAPPING = load_mapping(Path(__file__).parents[2] / "sync_pipeline" / "opportunity.toml")
KEY = TargetField("External_ID__c", "External ID", "string", length=255, external_id=True, unique=True)
TARGET = TargetObject(
    name="Opportunity",
    key_prefix="006",
    fields={
        field.name: field
        for field in (
            KEY,
            TargetField("Name", "Name", "string", length=120, nillable=False),
            TargetField("StageName", "Stage", "picklist", length=255, nillable=False),
            TargetField("Amount", "Amount", "currency", precision=18, scale=2),
            TargetField("CloseDate", "Close Date", "date", nillable=False),
            TargetField("AccountId", "Account ID", "reference", length=18),
        )
    },
)
GOOD = {
    "ExternalId__c": "a",
    "Name__c": "Deal",
    "StageName__c": "Prospecting",
    "Amount__c": "10.5",
    "CloseDate__c": "2026-01-31",
    "Account__c": "001000000000001AAA",
}


def source(*rows: dict[str, str | None]) -> pl.DataFrame:
    return pl.DataFrame([{**GOOD, **row} for row in rows], schema=dict.fromkeys(GOOD, pl.String))


def rules(*rows: dict[str, str | None]) -> list[tuple[int, str, str]]:
    found = convert(source(*rows), MAPPING, TARGET).rejections
    return [(r["index"], r["code"], r["column"]) for r in found.sort("index").iter_rows(named=True)]


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=255).map(lambda t: t.strip(BLANKS)),
            st.decimals(min_value=-(10**15), max_value=10**15, places=2),
            st.dates(min_value=dt.date(1700, 1, 1), max_value=dt.date(4000, 12, 31)),
        ),
        max_size=20,
    )
)
def test_what_the_target_can_hold_is_never_changed(rows: list[tuple[str, Decimal, dt.date]]) -> None:
    sent = [
        {"ExternalId__c": key, "Amount__c": str(amount), "CloseDate__c": day.isoformat()} for key, amount, day in rows
    ]
    converted = convert(source(*sent), MAPPING, TARGET)
    refused = set(converted.rejections["index"])
    assert converted.frame.height == len(rows)
    for index, (key, amount, day) in enumerate(rows):
        if index in refused:
            assert key in ("", "#N/A") or len(key.encode("utf-16-le")) // 2 > 255
            continue
        row = converted.frame.row(index, named=True)
        assert (row["key"], row["Amount"], row["CloseDate"]) == (key, amount, day)


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_any_text_in_any_column_is_typed_or_quarantined_and_never_invented(number: str, day: str, parent: str) -> None:
    row = {"Amount__c": number, "CloseDate__c": day, "Account__c": parent}
    converted = convert(source(row), MAPPING, TARGET)
    value = converted.frame.row(0, named=True)
    if converted.rejections.height == 0:
        assert value["Amount"] is None or Decimal(number.strip(BLANKS)) == value["Amount"]
        assert value["CloseDate"] == dt.date.fromisoformat(day.strip(BLANKS))
        assert value["AccountId"] in (None, parent.strip(BLANKS))


def test_blanks_at_both_ends_go_and_an_empty_text_is_null() -> None:
    frame = convert(source({"ExternalId__c": " a\t", "Name__c": "\nDeal ", "Account__c": " "}), MAPPING, TARGET).frame
    assert frame.row(0, named=True)["key"] == "a"
    assert frame.row(0, named=True)["Name"] == "Deal"
    assert frame.row(0, named=True)["AccountId"] is None


def test_a_double_with_more_digits_than_are_written_is_taken_where_the_field_keeps_none_of_them() -> None:
    converted = convert(
        source(*({"Amount__c": text} for text in ("0.3...", "-1234567890123.4...", "7"))), MAPPING, TARGET
    )

    assert converted.frame["Amount"].to_list() == [Decimal("0.3"), Decimal("-1234567890123.4"), Decimal(7)]
    assert converted.rejections.height == 0


def test_line_ends_inside_a_value_become_one_kind() -> None:
    frame = convert(source({"Name__c": "one\r\ntwo\rthree\nfour"}), MAPPING, TARGET).frame
    assert frame["Name"].to_list() == ["one\ntwo\nthree\nfour"]


@pytest.mark.parametrize(
    ("row", "rule", "column"),
    [
        ({"ExternalId__c": None}, "NULL_KEY", "ExternalId__c"),
        ({"ExternalId__c": " \t "}, "BLANK_KEY", "ExternalId__c"),
        ({"ExternalId__c": "#N/A"}, "RESERVED_TEXT", "ExternalId__c"),
        ({"ExternalId__c": "k" * 256}, "TOO_LONG", "ExternalId__c"),
        ({"Name__c": "n" * 121}, "TOO_LONG", "Name__c"),
        ({"Name__c": "\U0001f600" * 61}, "TOO_LONG", "Name__c"),
        ({"Name__c": "#N/A"}, "RESERVED_TEXT", "Name__c"),
        ({"Name__c": None}, "REQUIRED_NULL", "Name__c"),
        ({"Amount__c": "1.005"}, "TOO_PRECISE", "Amount__c"),
        ({"Amount__c": "0.0000000000000000000000001"}, "TOO_PRECISE", "Amount__c"),
        ({"Amount__c": "12345678901234567"}, "TOO_LARGE", "Amount__c"),
        ({"Amount__c": "1e30"}, "TOO_LARGE", "Amount__c"),
        ({"Amount__c": "12,50"}, "UNREADABLE", "Amount__c"),
        ({"Amount__c": "NaN"}, "UNREADABLE", "Amount__c"),
        ({"Amount__c": "12345678901234.6..."}, "INEXACT", "Amount__c"),
        ({"Amount__c": "-9.00719925474099e+15..."}, "INEXACT", "Amount__c"),
        ({"CloseDate__c": "31/01/2026"}, "UNREADABLE", "CloseDate__c"),
        ({"CloseDate__c": "26-1-3"}, "UNREADABLE", "CloseDate__c"),
        ({"CloseDate__c": "2026-02-30"}, "IMPOSSIBLE_DATE", "CloseDate__c"),
        ({"CloseDate__c": "1582-10-15"}, "IMPOSSIBLE_DATE", "CloseDate__c"),
        ({"CloseDate__c": "2026-02-03 10:00:00+00"}, "TIME_OF_DAY", "CloseDate__c"),
        ({"CloseDate__c": "2026-02-03 00:00:00.000001"}, "TIME_OF_DAY", "CloseDate__c"),
        ({"CloseDate__c": "2026-02-03T00:00:00+02"}, "TIME_OF_DAY", "CloseDate__c"),
        ({"CloseDate__c": "2026-02-03 00:00:00+00"}, "UNREADABLE", "CloseDate__c"),
        ({"CloseDate__c": None}, "REQUIRED_NULL", "CloseDate__c"),
        ({"Account__c": "0010000000000"}, "UNREADABLE", "Account__c"),
        ({"Amount__c": "\u0661\u0662"}, "UNREADABLE", "Amount__c"),
        ({"Amount__c": "1.\u0665"}, "UNREADABLE", "Amount__c"),
        ({"CloseDate__c": "\u0662\u0660\u0662\u0666-01-31"}, "UNREADABLE", "CloseDate__c"),
        ({"CloseDate__c": "2026- 1- 3"}, "UNREADABLE", "CloseDate__c"),
        ({"CloseDate__c": "+2026-1-03"}, "UNREADABLE", "CloseDate__c"),
        ({"CloseDate__c": "4001-01-01"}, "IMPOSSIBLE_DATE", "CloseDate__c"),
    ],
)
def test_what_the_target_cannot_hold_is_quarantined(row: dict[str, str | None], rule: str, column: str) -> None:
    assert rules({}, row, {}) == [(1, rule, column)]


def test_a_number_written_otherwise_is_the_same_number() -> None:
    frame = convert(
        source({"Amount__c": "+1e2"}, {"Amount__c": "7.500000"}, {"Amount__c": ".5"}), MAPPING, TARGET
    ).frame
    assert frame["Amount"].to_list() == [Decimal("100.00"), Decimal("7.50"), Decimal("0.50")]


def test_nulls_of_optional_fields_stay_null() -> None:
    row = convert(source({"Amount__c": None, "Account__c": None}), MAPPING, TARGET)
    assert row.rejections.height == 0
    assert row.frame.row(0, named=True)["Amount"] is None


def test_a_quarantined_row_keeps_its_source_values_for_the_list_of_rejects() -> None:
    found = convert(source({"Amount__c": "12,50"}), MAPPING, TARGET).rejections
    assert json.loads(found["source"][0]) == {**GOOD, "Amount__c": "12,50"}


def other_types() -> tuple[Mapping, TargetObject]:
    mapping = parse_mapping(
        """
        [source]
        object = "Thing__dlm"
        key = "Key__c"
        [target]
        object = "Thing__c"
        key = "Key__c"
        [[field]]
        source = "At__c"
        target = "At__c"
        type = "datetime"
        [[field]]
        source = "Is__c"
        target = "Is__c"
        type = "boolean"
        [[field]]
        source = "Count__c"
        target = "Count__c"
        type = "number"
        """
    )
    fields = (
        TargetField("Key__c", "Key", "string", length=20, external_id=True),
        TargetField("At__c", "At", "datetime"),
        TargetField("Is__c", "Is", "boolean"),
        TargetField("Count__c", "Count", "int", digits=9),
    )
    return mapping, TargetObject("Thing__c", "a00", {field.name: field for field in fields})


def test_instants_booleans_and_integers_are_read_in_the_forms_the_source_writes() -> None:
    mapping, target = other_types()
    frame = pl.DataFrame(
        {
            "Key__c": ["a", "b", "c", "d"],
            "At__c": ["2026-06-10 08:00:00+00", "2026-06-10T08:00:00.123Z", "2026-06-10 10:00:00+02", "soon"],
            "Is__c": ["true", "f", "1", "perhaps"],
            "Count__c": ["1", "-20", "999999999", "1.5"],
        }
    )
    converted = convert(frame, mapping, target)
    eight = dt.datetime(2026, 6, 10, 8, tzinfo=dt.UTC)
    assert converted.frame["At__c"].to_list() == [eight, eight.replace(microsecond=123000), eight, None]
    assert converted.frame["Is__c"].to_list() == [True, False, True, None]
    assert converted.frame["Count__c"].to_list()[:3] == [Decimal(1), Decimal(-20), Decimal(999999999)]
    assert converted.rejections["index"].to_list() == [3]


INSTANT = st.datetimes(dt.datetime(1600, 1, 1), dt.datetime(4100, 1, 1))


def instant_of(text: str) -> tuple[dt.datetime | None, str | None]:
    """The typed value and the rule that is broken."""
    mapping, target = other_types()
    frame = pl.DataFrame({"Key__c": ["a"], "At__c": [text], "Is__c": ["1"], "Count__c": ["1"]})
    converted = convert(frame, mapping, target)
    rule = converted.rejections["code"][0] if converted.rejections.height else None
    return converted.frame["At__c"][0], rule


@given(instant=INSTANT, hours=st.integers(-12, 14))
def test_an_instant_has_the_year_limits_of_a_date_in_utc(instant: dt.datetime, hours: int) -> None:
    offset = dt.timezone(dt.timedelta(hours=hours))
    value, rule = instant_of(instant.replace(tzinfo=offset).isoformat())

    in_utc = instant - dt.timedelta(hours=hours)
    if 1700 <= in_utc.year <= 4000:
        assert (value, rule) == (in_utc.replace(microsecond=in_utc.microsecond // 1000 * 1000, tzinfo=dt.UTC), None)
    else:
        assert rule == "IMPOSSIBLE_DATE"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("2026-06-30T23:59:60Z", "IMPOSSIBLE_DATE"),
        ("2026-06-30 23:59:60", "IMPOSSIBLE_DATE"),
        ("2026-06-30T23:59:60.5+02:00", "IMPOSSIBLE_DATE"),
        ("2026-06-31T10:00:00Z", "IMPOSSIBLE_DATE"),
        ("2026-06-30T24:00:00Z", "IMPOSSIBLE_DATE"),
        ("2026-6-3T1:2:3Z", "UNREADABLE"),
        ("+2026-06-30T10:00:00Z", "UNREADABLE"),
        ("2026-06-30T10: 0:00Z", "UNREADABLE"),
        ("\u0662\u0660\u0662\u0666-06-30T10:00:00Z", "UNREADABLE"),
        ("2026-06-30", "UNREADABLE"),
    ],
)
def test_what_is_no_instant_is_quarantined(text: str, rule: str) -> None:
    assert instant_of(text)[1] == rule


# a key that is a number


def key_rule(text: str, **described: int) -> str | None:
    mapping, target = other_types()
    key = TargetField("Key__c", "Key", "double", precision=18, external_id=True, unique=True, **described)
    row = {"Key__c": text, "At__c": None, "Is__c": "1", "Count__c": "1"}
    frame = pl.DataFrame([row], schema=dict.fromkeys(row, pl.String))
    rejections = convert(frame, mapping, TargetObject("Thing__c", "a00", {**target.fields, "Key__c": key})).rejections
    return rejections["code"][0] if rejections.height else None


@pytest.mark.parametrize("text", ["0", "7", "-7", "12.5", "-0.25", " 10 ", "123456789012345"])
def test_a_number_in_plain_form_is_a_key(text: str) -> None:
    assert key_rule(text, scale=2) is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "BLANK_KEY"),
        ("many", "UNREADABLE"),
        ("NaN", "UNREADABLE"),
        ("\u0667", "UNREADABLE"),
        ("#N/A", "RESERVED_TEXT"),
        ("12345678901234567", "TOO_LARGE"),
        ("1.005", "TOO_PRECISE"),
        ("1234567890123456", "INEXACT_KEY"),
        ("12345678901234.56", "INEXACT_KEY"),
        ("7.0", "ODD_KEY"),
        ("07", "ODD_KEY"),
        ("+7", "ODD_KEY"),
        ("7.", "ODD_KEY"),
        ("1e3", "ODD_KEY"),
        ("-0", "ODD_KEY"),
        (".5", "ODD_KEY"),
    ],
)
def test_another_spelling_of_a_number_is_no_key(text: str, rule: str) -> None:
    assert key_rule(text, scale=2) == rule


@given(
    st.lists(
        st.decimals(min_value=-(10**15), max_value=10**15, places=2).map(
            lambda number: format(number.normalize(), "f")
        ),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_two_keys_that_are_sent_are_two_numbers_in_the_org(keys: list[str]) -> None:
    if all(key_rule(key, scale=2) is None for key in keys):
        assert float(keys[0]) != float(keys[1])
