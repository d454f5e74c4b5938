"""What the org keeps of a value that was sent equals it, whatever its type makes of its spelling; another value never does."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from sync_pipeline.engine.equality import Equality
from sync_pipeline.engine.values import convert
from sync_pipeline.salesforce.csv_upload import render_csv
from sync_pipeline.simulated_org.objects import find_object
from sync_pipeline.simulated_org.records import Records
from sync_pipeline.simulated_org.values import bulk_text
from sync_pipeline_tests.engine.things import CHOICES, FIELDS, KEY, Things, things

HOSTILE = st.text(
    st.one_of(
        st.sampled_from(list(" \t\n\r\x0b\u00a0\u3000'\",;\\#N/A%_\U0001f600\u0301\u00e4\u00df\u0130\u03a3")),
        st.characters(exclude_categories=["Cs", "Cc"]),
    ),
    max_size=30,
)


def in_any_case(words: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """The words with some of their letters in the other case."""
    forms: list[Callable[[str], str]] = [str, str.lower, str.upper, str.swapcase, str.title]
    return st.builds(lambda word, form: form(word), words, st.sampled_from(forms))


CHOICE = in_any_case(st.sampled_from(CHOICES))
NEW_CHOICE = in_any_case(st.from_regex(r"\A[a-z]{1,3}\Z"))
VALUES: dict[str, st.SearchStrategy[str]] = {
    "Text__c": HOSTILE,
    "Area__c": HOSTILE,
    "Pick__c": CHOICE | NEW_CHOICE,
    "Strict__c": CHOICE,
    "Many__c": st.lists(CHOICE | NEW_CHOICE, max_size=5).map("; ".join),
    "Combo__c": CHOICE | NEW_CHOICE | HOSTILE,
    "Mail__c": in_any_case(st.from_regex(r"\A[a-z]{1,8}@[a-z]{1,8}\.com\Z")),
    "Url__c": in_any_case(st.from_regex(r"\A(?:https?://)?[a-z]{1,9}\.org/[a-z?=&]{0,9}\Z")),
    "Phone__c": in_any_case(st.from_regex(r"\A[0-9 ()+.a-z-]{1,20}\Z")),
    "Number__c": st.decimals(min_value=-(10**15), max_value=10**15, places=2).map(lambda number: format(number, "f")),
    "Whole__c": st.integers(-999_999_999, 999_999_999).map(str),
    "Day__c": st.dates(dt.date(1700, 1, 1), dt.date(4000, 12, 31)).map(dt.date.isoformat),
    "At__c": st.datetimes(dt.datetime(1700, 1, 2), dt.datetime(4000, 12, 30)).map(lambda at: at.isoformat() + "Z"),
    "Flag__c": st.sampled_from(["true", "false", "1", "0"]),
    "Parent__c": st.integers(0, 9).map(str),
}
"""Values that the source may hold; that of ``Parent__c`` is the place of an account."""
NUMBER = count()


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Things]:
    with things(tmp_path_factory.mktemp("things")) as made:
        yield made


@pytest.fixture(scope="module")
def equality(it: Things) -> Equality:
    return it.equality


@pytest.fixture(scope="module")
def accounts(it: Things) -> list[str]:
    account = find_object(it.org, "Account")
    assert account is not None
    return sorted(row_id for frame in Records(it.org, account).frames(("Id",)) for row_id in frame["Id"])


def sent_and_kept(
    it: Things, equality: Equality, row: dict[str, str | None], folder: Path
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The row as it is staged, and as the org gives it back after an upload of its CSV."""
    key = f"key{next(NUMBER)}"
    schema = dict.fromkeys((KEY, *FIELDS), pl.String)
    converted = convert(pl.DataFrame([{KEY: key, **row}], schema=schema), equality.mapping, equality.target)
    if converted.rejections.height:
        reject()
    upload = folder / f"{key}.csv"
    render_csv(converted.frame, equality.mapping, upload)
    assert it.save(pl.read_csv(upload, infer_schema=False)) == [None]
    stored = it.stored().filter(pl.col(KEY) == key)
    kept = bulk_text(stored.select(KEY, *FIELDS)).with_columns(pl.all().replace("", None)).rename({KEY: "key"})
    return converted.frame, kept


def digests(frame: pl.DataFrame, equality: Equality, *, is_present: bool) -> list[int]:
    return equality.hashed(frame, is_present=is_present, with_values=True)["digest"].to_list()


def named(row: dict[str, str | None], accounts: list[str]) -> dict[str, str | None]:
    """The row with an account's id of 15 or 18 characters in place of its number."""
    place = row["Parent__c"]
    return row if place is None else row | {"Parent__c": accounts[int(place)][: 15 if int(place) % 2 else 18]}


ROWS = st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()})
MANY = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@MANY
@given(row=ROWS)
def test_what_the_org_keeps_of_a_row_equals_what_was_sent(
    it: Things, equality: Equality, accounts: list[str], tmp_path: Path, row: dict[str, str | None]
) -> None:
    sent, kept = sent_and_kept(it, equality, named(row, accounts), tmp_path)

    assert equality.differences(sent, kept).rows() == []
    assert digests(sent, equality, is_present=False) == digests(kept, equality, is_present=True)


def meaning(name: str, value: str | None) -> object:
    """What a value that was sent means to the org, told without the code that is tried."""
    text = (value or "").strip()
    match name:
        case "Pick__c" | "Strict__c" | "Mail__c":
            return text.lower()
        case "Many__c":
            return frozenset(part.strip().lower() for part in text.split(";") if part.strip())
        case "Combo__c":
            return text.lower() if text.lower() in [choice.lower() for choice in CHOICES] else text
        case "Number__c" | "Whole__c":
            return float(text) if text else None
        case "At__c":
            return text[:19]
        case "Flag__c":
            return text in ("true", "1")
        case "Text__c" | "Area__c" | "Url__c" | "Phone__c":
            return text.replace("\r\n", "\n").replace("\r", "\n")
        case _:
            return text


@MANY
@given(row=ROWS, other=ROWS, name=st.sampled_from(sorted(FIELDS)))
def test_another_value_in_one_field_is_named_there_and_nowhere_else(
    it: Things,
    equality: Equality,
    accounts: list[str],
    tmp_path: Path,
    row: dict[str, str | None],
    other: dict[str, str | None],
    name: str,
) -> None:
    changed = row | {name: other[name]}
    sent, _ = sent_and_kept(it, equality, named(row, accounts), tmp_path)
    _, kept = sent_and_kept(it, equality, named(changed, accounts), tmp_path)
    kept = kept.with_columns(sent["key"])
    is_equal = meaning(name, row[name]) == meaning(name, changed[name])

    assert equality.differences(sent, kept)["column"].to_list() == ([] if is_equal else [name])
    same = digests(sent, equality, is_present=False) == digests(kept, equality, is_present=True)
    assert same == is_equal


@pytest.mark.parametrize(
    ("name", "sent", "kept"),
    [
        ("Pick__c", "CLOSED won", "Closed Won"),
        ("Strict__c", "open", "Open"),
        ("Many__c", "OPEN;closed won;open", "Closed Won;Open"),
        ("Combo__c", "OPEN", "Open"),
        ("Combo__c", "Other", "Other"),
        ("Mail__c", "Ada@Example.COM", "ada@example.com"),
        ("Url__c", "Example.org/A", "Example.org/A"),
        ("Phone__c", "1234567890", "1234567890"),
        ("At__c", "2026-01-31T10:00:00.987Z", "2026-01-31T10:00:00.000Z"),
    ],
)
def test_the_org_keeps_the_spelling_of_its_own(
    it: Things, equality: Equality, tmp_path: Path, name: str, sent: str, kept: str
) -> None:
    _, stored = sent_and_kept(it, equality, dict.fromkeys(FIELDS) | {name: sent}, tmp_path)

    assert stored[name].to_list() == [kept]


def test_a_value_that_no_list_has_is_kept_as_it_was_first_written(
    it: Things, equality: Equality, tmp_path: Path
) -> None:
    spellings = [
        sent_and_kept(it, equality, dict.fromkeys(FIELDS) | {"Pick__c": sent}, tmp_path)[1]["Pick__c"][0]
        for sent in ("First Seen", "FIRST SEEN", "first seen")
    ]

    assert spellings == ["First Seen"] * 3


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("Strict__c", "Nowhere", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        ("Day__c", "1699-12-31", "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        ("Day__c", "4001-01-01", "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        ("At__c", "1699-12-31T23:59:59Z", "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        ("At__c", "4001-01-01T00:00:00Z", "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        ("At__c", "2026-06-30T23:59:60Z", "INVALID_TYPE_ON_FIELD_IN_RECORD"),
    ],
)
def test_the_org_refuses_what_its_field_cannot_hold(it: Things, name: str, text: str, code: str) -> None:
    (error,) = it.save(pl.DataFrame({KEY: [f"key{next(NUMBER)}"], name: [text]}))

    assert error is not None and error.startswith(f"{code}:")
