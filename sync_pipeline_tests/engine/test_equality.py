"""Salesforce's notion of equality: other spellings of one value are equal, another value never is."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.domain.mapping import FieldMapping, FieldType, Mapping, NullPolicy, TargetField, TargetObject
from sync_pipeline.engine.equality import TRIMMED, Equality, folds_case
from sync_pipeline.engine.values import convert

KEY = TargetField("Key__c", "Key", "string", length=80, external_id=True, unique=True)
TARGET = TargetObject(
    name="Thing__c",
    key_prefix="a00",
    fields={
        "Key__c": KEY,
        "Text__c": TargetField("Text__c", "Text", "string", length=255),
        "Number__c": TargetField("Number__c", "Number", "double", precision=18, scale=2),
        "Date__c": TargetField("Date__c", "Date", "date"),
        "Instant__c": TargetField("Instant__c", "Instant", "datetime"),
        "Flag__c": TargetField("Flag__c", "Flag", "boolean"),
        "Parent__c": TargetField("Parent__c", "Parent", "reference", length=18),
        "Choices__c": TargetField("Choices__c", "Choices", "multipicklist", length=4099),
    },
)
FIELDS = (
    FieldMapping("Text__c", "Text__c", FieldType.TEXT),
    FieldMapping("Number__c", "Number__c", FieldType.NUMBER),
    FieldMapping("Date__c", "Date__c", FieldType.DATE),
    FieldMapping("Instant__c", "Instant__c", FieldType.DATETIME),
    FieldMapping("Flag__c", "Flag__c", FieldType.BOOLEAN),
    FieldMapping("Parent__c", "Parent__c", FieldType.REFERENCE),
    FieldMapping("Choices__c", "Choices__c", FieldType.TEXT),
)
MAPPING = Mapping("Things__dlm", "Key__c", "Thing__c", "Key__c", FIELDS)
EQUALITY = Equality(MAPPING, TARGET)
ROW = {
    "Key__c": "k",
    "Text__c": "text",
    "Number__c": "100.00",
    "Date__c": "2026-01-31",
    "Instant__c": "2026-01-31T10:00:00Z",
    "Flag__c": "true",
    "Parent__c": "001000000000001AAA",
    "Choices__c": "b;a",
}


def staged(*rows: dict[str, str | None], mapping: Mapping = MAPPING) -> pl.DataFrame:
    """Source rows as the extraction types them; rows that it would quarantine are not sent."""
    converted = convert(pl.DataFrame(rows, schema=dict.fromkeys(ROW, pl.String)), mapping, TARGET)
    refused = set(converted.rejections["index"])
    return converted.frame.filter([position not in refused for position in range(converted.frame.height)])


def in_org(*rows: dict[str, str | None]) -> pl.DataFrame:
    """Rows as a query gives them: text, and null for empty."""
    return pl.DataFrame(rows, schema=dict.fromkeys(ROW, pl.String)).rename({"Key__c": "key"})


def java_double(number: float) -> str:
    """``Double.toString`` of Java: plain between 0.001 and 10,000,000, else with an exponent."""
    if number == 0 or 1e-3 <= abs(number) < 1e7:
        plain = format(Decimal(repr(number)), "f")
        return plain if "." in plain else f"{plain}.0"
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    text = "".join(map(str, digits))
    return f"{'-' if sign else ''}{text[0]}.{text[1:] or '0'}E{len(text) - 1 + int(exponent)}"


def stored(row: dict[str, object]) -> dict[str, str | None]:
    """What the org gives back for a typed row that was saved."""
    number, day, instant, flag = row["Number__c"], row["Date__c"], row["Instant__c"], row["Flag__c"]
    parent, choices = row["Parent__c"], row["Choices__c"]
    return {
        "Key__c": str(row["key"]),
        "Text__c": str(row["Text__c"]).strip() or None if row["Text__c"] is not None else None,
        "Number__c": java_double(float(number)) if isinstance(number, Decimal) else None,
        "Date__c": day.isoformat() if isinstance(day, date) else None,
        "Instant__c": instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        if isinstance(instant, datetime)
        else None,
        "Flag__c": "true" if flag else "false",
        "Parent__c": f"{parent[:15]}EAQ" if isinstance(parent, str) else None,
        "Choices__c": ";".join(sorted(choices.split(";"))) if isinstance(choices, str) else None,
    }


def digests(frame: pl.DataFrame, *, is_present: bool, equality: Equality = EQUALITY) -> list[tuple[int | None, ...]]:
    return equality.hashed(frame, is_present=is_present, with_values=True).drop("key").rows()


HOSTILE = st.text(
    st.one_of(
        st.sampled_from(
            list(" \t\n\r\x0b\x0c\x00\x1f\u00a0\u3000\u200b\u2028'\",;\\#N/A%_\U0001f600\u0301\u00e4\u00df\u0130")
        ),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=12,
)
ROWS = st.fixed_dictionaries(
    {
        "Key__c": st.just("k"),
        "Text__c": st.none() | HOSTILE,
        "Number__c": st.none()
        | st.decimals(min_value=-(10**16), max_value=10**16, places=2).map(lambda d: format(d, "f")),
        "Date__c": st.none() | st.dates(date(1700, 1, 1), date(4000, 12, 31)).map(date.isoformat),
        "Instant__c": st.none()
        | st.datetimes(datetime(1700, 1, 1), datetime(3999, 1, 1)).map(lambda d: d.isoformat() + "Z"),
        "Flag__c": st.none() | st.sampled_from(["true", "false", "1", "0"]),
        "Parent__c": st.none() | st.from_regex(r"\A001[A-Za-z0-9]{12}\Z"),
        "Choices__c": st.none() | st.permutations(["a", "b", "c d"]).map(";".join),
    }
)


@given(st.lists(st.none() | HOSTILE, min_size=1, max_size=8))
def test_a_text_has_one_form_whatever_texts_it_is_among(texts: list[str | None]) -> None:
    form = EQUALITY.canonical_values(pl.Series("Text__c", texts, dtype=pl.String), FIELDS[0], is_present=True).to_list()

    told = [(text or "").strip(TRIMMED).replace("\r\n", "\n").replace("\r", "\n") or None for text in texts]
    assert form == told


@given(row=ROWS)
def test_a_value_that_was_saved_is_equal_in_whatever_spelling_the_org_gives_it_back(row: dict[str, str | None]) -> None:
    sent = staged(row)
    present = in_org(*(stored(typed) for typed in sent.iter_rows(named=True)))
    assert EQUALITY.differences(sent, present).rows() == []
    assert digests(sent, is_present=False) == digests(present, is_present=True)


@pytest.mark.parametrize(
    ("field", "sent", "present"),
    [
        ("Text__c", "  padded\t", "padded"),
        ("Text__c", "two\r\nlines", "two\nlines"),
        ("Text__c", "two\nlines", "two\r\nlines"),
        ("Text__c", "   ", None),
        ("Number__c", "12345678", "1.2345678E7"),
        ("Number__c", "0", "-0.0"),
        ("Number__c", "1234567890123456.78", "1.2345678901234568E15"),
        ("Number__c", "0.3", "0.30000000000000004"),
        ("Instant__c", "2026-01-31 11:00:00+01", "2026-01-31T10:00:00.000Z"),
        ("Instant__c", "2026-01-31T10:00:00.999Z", "2026-01-31T10:00:00.000+0000"),
        ("Flag__c", None, "false"),
        ("Parent__c", "001000000000001", "001000000000001AAA"),
        ("Choices__c", "b;a", "a;b"),
    ],
)
def test_these_spellings_are_one_value(field: str, sent: str | None, present: str | None) -> None:
    left, right = staged(ROW | {field: sent}), in_org(ROW | {field: present})
    assert EQUALITY.differences(left, right).rows() == []
    assert digests(left, is_present=False) == digests(right, is_present=True)


@pytest.mark.parametrize(
    ("field", "sent", "present"),
    [
        ("Text__c", "text", "Text"),
        ("Text__c", "text", "tex"),
        ("Text__c", "text", None),
        ("Text__c", None, "text"),
        ("Number__c", "100.00", "100.01"),
        ("Number__c", "9999999.99", "9999999.98"),
        ("Number__c", "0", None),
        ("Number__c", None, "0.0"),
        ("Number__c", None, "many"),
        ("Date__c", "2026-01-31", "2026-02-01"),
        ("Date__c", None, "31.01.2026"),
        ("Instant__c", "2026-01-31T10:00:00Z", "2026-01-31T10:00:01.000Z"),
        ("Instant__c", None, "yesterday"),
        ("Flag__c", "true", "false"),
        ("Parent__c", "001000000000001AAA", "001000000000002AAA"),
        ("Parent__c", "00100000000000aAAA", "00100000000000AAAA"),
        ("Choices__c", "a;b", "a"),
    ],
)
def test_these_values_differ_and_the_column_is_named(field: str, sent: str | None, present: str | None) -> None:
    left, right = staged(ROW | {field: sent}), in_org(ROW | {field: present})
    found = EQUALITY.differences(left, right)
    assert found["column"].to_list() == [field]
    assert found["present"].to_list() == [present]
    assert digests(left, is_present=False) != digests(right, is_present=True)


def test_a_null_that_keeps_what_is_there_is_not_compared() -> None:
    keeping = Mapping(
        "Things__dlm", "Key__c", "Thing__c", "Key__c",
        tuple(FieldMapping(f.source, f.target, f.type, NullPolicy.KEEP) for f in FIELDS),
    )  # fmt: skip
    equality = Equality(keeping, TARGET)
    nothing: dict[str, str | None] = dict.fromkeys(ROW, None)
    left = staged(nothing | {"Key__c": "k", "Number__c": "1"}, mapping=keeping)
    right = in_org(ROW)
    assert equality.differences(left, right)["column"].to_list() == ["Number__c"]
    expected, present = (
        digests(left, is_present=False, equality=equality),
        digests(right, is_present=True, equality=equality),
    )
    assert [digest is None for digest in expected[0][2:]] == [True, False, True, True, True, True, True]
    assert None not in present[0]


def test_keys_are_matched_as_the_target_matches_them() -> None:
    keys = pl.Series(["  Abc\t", "abc"])
    assert EQUALITY.matched(keys).to_list() == ["abc", "abc"]
    tells_apart = TargetObject(
        TARGET.name,
        TARGET.key_prefix,
        {"Key__c": TargetField("Key__c", "Key", "string", unique=True, case_sensitive=True)},
    )
    assert Equality(MAPPING, tells_apart).matched(keys).to_list() == ["Abc", "abc"]
    assert folds_case(MAPPING, TARGET) and not folds_case(MAPPING, tells_apart)


NUMBERED = TargetObject(
    TARGET.name,
    TARGET.key_prefix,
    {"Key__c": TargetField("Key__c", "Key", "double", precision=18, scale=2, external_id=True, unique=True)},
)


@pytest.mark.parametrize(
    ("one", "other"),
    [("5", "5.0"), ("10000000", "1.0E7"), ("0", "-0.0"), ("0.1", "0.10000000000000001"), (" -12.5\t", "-1.25E1")],
)
def test_spellings_of_one_number_are_one_key(one: str, other: str) -> None:
    left, right = Equality(MAPPING, NUMBERED).matched(pl.Series([one, other]))
    assert left == right


@pytest.mark.parametrize(
    ("one", "other"), [("5", "50"), ("5", "-5"), ("1", "one"), ("NaN", "inf"), ("5", ""), ("5", "\u0665")]
)
def test_other_numbers_and_what_is_none_are_other_keys(one: str, other: str) -> None:
    left, right = Equality(MAPPING, NUMBERED).matched(pl.Series([one, other]))
    assert left != right


def test_the_letter_case_of_an_email_address_is_never_told_apart() -> None:
    email = TargetField("Key__c", "Key", "email", unique=True, case_sensitive=True, external_id=True)
    target = TargetObject(TARGET.name, TARGET.key_prefix, {"Key__c": email})
    assert folds_case(MAPPING, target)
    assert Equality(MAPPING, target).matched(pl.Series(["A@b.c", "a@B.C"])).n_unique() == 1


def described_as(kind: str, *listed: str) -> Equality:
    """Equality for a text field of that type."""
    field = TargetField("Text__c", "Text", kind, length=255, picklist=listed or None)
    return Equality(MAPPING, TargetObject(TARGET.name, TARGET.key_prefix, {**TARGET.fields, "Text__c": field}))


LISTED = ("Closed Won", "Open")
"""The list of the picklists below."""


@pytest.mark.parametrize(
    ("kind", "sent", "present"),
    [
        ("picklist", "closed WON", "Closed Won"),
        ("picklist", "Closed Won", "closed won"),
        ("picklist", "Not Listed", "not listed"),
        ("multipicklist", "open;CLOSED won", "Closed Won;Open"),
        ("multipicklist", "Open;Open; Closed Won ;", "Closed Won; Open"),
        ("multipicklist", ";", None),
        ("combobox", "OPEN", "Open"),
        ("email", "Ada@Example.COM", "ada@example.com"),
    ],
)
def test_what_the_type_makes_one_value_is_one(kind: str, sent: str, present: str | None) -> None:
    equality = described_as(kind, *LISTED)
    left, right = staged(ROW | {"Text__c": sent}), in_org(ROW | {"Text__c": present})
    assert equality.differences(left, right).rows() == []
    assert digests(left, is_present=False, equality=equality) == digests(right, is_present=True, equality=equality)


@pytest.mark.parametrize(
    ("kind", "sent", "present"),
    [
        ("picklist", "Open", "Closed Won"),
        ("picklist", "Open", "Opened"),
        ("picklist", "Not Listed", "Open"),
        ("multipicklist", "Open", "Closed Won;Open"),
        ("multipicklist", "Open;Closed Won", "Open;Closed"),
        ("combobox", "Call me", "call me"),
        ("combobox", "Open", None),
        ("email", "ada@example.com", "ida@example.com"),
        ("url", "https://example.com/A", "https://example.com/a"),
        ("url", "example.com", "http://example.com"),
        ("phone", "1234567890", "(123) 456-7890"),
        ("phone", "ext. A", "ext. a"),
        ("textarea", "Text", "text"),
    ],
)
def test_what_the_type_tells_apart_differs(kind: str, sent: str, present: str | None) -> None:
    equality = described_as(kind, *LISTED)
    left, right = staged(ROW | {"Text__c": sent}), in_org(ROW | {"Text__c": present})
    assert equality.differences(left, right)["column"].to_list() == ["Text__c"]
    assert digests(left, is_present=False, equality=equality) != digests(right, is_present=True, equality=equality)


@given(st.lists(st.none() | st.sampled_from(["open", "OPEN", "Open", "Closed Won", "x", "X", " x"]), min_size=1))
def test_a_choice_has_one_form_whatever_choices_it_is_among(values: list[str | None]) -> None:
    equality = described_as("picklist", *LISTED)
    told = {"open": "Open", "closed won": "Closed Won", "x": "x"}

    form = equality.canonical_values(pl.Series("Text__c", values, dtype=pl.String), FIELDS[0], is_present=True)

    assert form.to_list() == [None if value is None else told[value.strip().lower()] for value in values]


UNREADABLE = [
    "x",
    "NaN",
    "inf",
    "1e999",
    "2026-02-30",
    "2026-01-31T10:00:60Z",
    "2026-01-31T10:00:60.5+01:00",
    "٣",
    "1 2",
    "yes",
]


@given(ours=st.sampled_from(UNREADABLE), theirs=st.sampled_from(UNREADABLE))
@pytest.mark.parametrize("field", ["Number__c", "Date__c", "Instant__c", "Flag__c"])
def test_what_cannot_be_read_equals_nothing_not_even_itself(field: str, ours: str, theirs: str) -> None:
    left, right = in_org(ROW | {field: ours}), in_org(ROW | {field: theirs})
    assert EQUALITY.differences(left, right)["column"].to_list() == [field]
    assert digests(left, is_present=False) != digests(right, is_present=True)


@pytest.mark.parametrize("field", ["Number__c", "Date__c", "Instant__c", "Flag__c"])
@pytest.mark.parametrize("sent", [None, "0", "1", "true", "0001-01-01", "0001-01-02", "0001-01-01T00:00:00Z"])
@pytest.mark.parametrize("present", UNREADABLE)
def test_what_cannot_be_read_is_no_value(field: str, sent: str | None, present: str) -> None:
    left = in_org(ROW | {field: sent})
    right = in_org(ROW | {field: present})
    assert EQUALITY.differences(left, right)["column"].to_list() == [field]
    assert digests(left, is_present=False) != digests(right, is_present=True)


def test_rows_of_different_keys_are_never_held_against_each_other() -> None:
    left = staged(ROW, ROW | {"Key__c": "other", "Text__c": "x"})
    right = in_org(ROW | {"Key__c": "third", "Text__c": "y"}, ROW)
    assert EQUALITY.differences(left, right).rows() == []


def test_an_instant_is_an_instant_in_any_zone() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for hours in (-11, 0, 5):
        shifted = (noon + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%S") + f"{hours:+03d}:00"
        left = staged(ROW | {"Instant__c": shifted})
        assert EQUALITY.differences(left, in_org(ROW | {"Instant__c": "2026-01-31T12:00:00.000Z"})).rows() == []
