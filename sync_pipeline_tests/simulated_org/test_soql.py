"""SOQL: what a query means is held against plain Python, its errors against what the org's documents and users show."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sync_pipeline.simulated_org.call import Refused
from sync_pipeline.simulated_org.grammar import Comparison, Text, parse
from sync_pipeline.simulated_org.groups import groups_of
from sync_pipeline.simulated_org.objects import find_object
from sync_pipeline.simulated_org.records import Records
from sync_pipeline.simulated_org.soql import PIECE_ROWS, check_bulk_query, count_rows, rows_of, snapshot
from sync_pipeline.simulated_org.standing import put_rows
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.simulated_org.values import bulk_text, double_text, json_values

NOW = datetime(2026, 3, 10, 15, 30, tzinfo=UTC)
Row = dict[str, Any]

ESCAPES = {"\\": "\\\\", "'": "\\'", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
HOSTILE = st.text() | st.text(alphabet="'\"\\nrtbfu%_ \n\r\t\b\f\u00e9\u0130\u03a3\U0001f600)(,:")


@pytest.fixture(scope="module")
def org(tmp_path_factory: pytest.TempPathFactory) -> Org:
    """One org for the whole file; each test plants its own rows."""
    return Org(tmp_path_factory.mktemp("org"), clock=NOW.timestamp)


def plant(org: Org, rows: list[Row], *, name: str = "Opportunity", leaf_rows: int = 1_000_000) -> list[str]:
    """Makes these the only rows of an object, in leaves of that size, and gives their ids."""
    sobject = find_object(org, name)
    assert sobject is not None
    records = Records(org, sobject)
    records.replace_all(iter(()))
    ids = put_rows(org, name, rows) if rows else []
    if len(rows) > leaf_rows:
        whole = pl.concat(records.frames())
        records.replace_all(whole.slice(start, leaf_rows) for start in range(0, whole.height, leaf_rows))
    return ids


def literal(text: str) -> str:
    return "'" + "".join(ESCAPES.get(character, character) for character in text) + "'"


def found(org: Org, soql: str) -> list[tuple[Any, ...]]:
    return [row for frame in rows_of(org, parse(soql)) for row in frame.iter_rows()]


def names(org: Org, condition: str) -> list[str]:
    return sorted(name for (name,) in found(org, f"SELECT Name FROM Opportunity WHERE {condition}"))


def groups(org: Org, soql: str) -> list[tuple[Any, ...]]:
    return groups_of(org, parse(soql)).rows()


def refusal(run: Callable[[], object]) -> tuple[int, str, str]:
    """Status, code and the last line of the message."""
    with pytest.raises(Refused) as refused:
        run()
    return refused.value.status, refused.value.code, refused.value.message.rpartition("\n")[2]


# text in quotes


@given(text=HOSTILE)
def test_a_text_in_quotes_means_what_was_written_into_it(text: str) -> None:
    where = parse(f"SELECT Id FROM Opportunity WHERE Name = {literal(text)}").where
    assert isinstance(where, Comparison)
    assert isinstance(where.values[0], Text)
    assert where.values[0].text == text


@given(text=HOSTILE)
def test_every_character_may_be_written_by_its_number(text: str) -> None:
    units = text.encode("utf-16-be")
    raw = "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))
    assert Text(raw, 0).text == text
    assert parse(f"SELECT Id FROM A WHERE b = '{raw}'").columns == ("Id",)


@given(text=HOSTILE)
@example("' OR Name != '")
def test_a_row_is_found_by_its_own_text_whatever_it_holds(org: Org, text: str) -> None:
    assume(text != "")
    plant(org, [{"Name": text}, {"Name": text + "x"}])
    assert found(org, f"SELECT Name FROM Opportunity WHERE Name = {literal(text)}") == [(text,)]


def like(text: str, pattern: list[tuple[str, bool]]) -> bool:
    """LIKE, the slow way. Each part of the pattern is a character and whether it is wild."""
    if not pattern:
        return text == ""
    (character, is_wild), rest = pattern[0], pattern[1:]
    if is_wild and character == "%":
        return any(like(text[start:], rest) for start in range(len(text) + 1))
    return text != "" and (is_wild or text[0].lower() == character.lower()) and like(text[1:], rest)


PARTS = st.tuples(st.sampled_from("aB%_\n\\'."), st.booleans()).map(lambda part: (part[0], part[1] and part[0] in "%_"))


@given(text=st.text(alphabet="aAbB%_\n\\'.", min_size=1, max_size=6), pattern=st.lists(PARTS, min_size=1, max_size=6))
def test_like_is_what_the_slow_way_says(org: Org, text: str, pattern: list[tuple[str, bool]]) -> None:
    plant(org, [{"Name": text}])
    raw = "".join(
        character if is_wild else f"\\{character}" if character in "%_" else ESCAPES.get(character, character)
        for character, is_wild in pattern
    )
    assert bool(names(org, f"Name LIKE '{raw}'")) == like(text, pattern)


# conditions

TEXTS = st.sampled_from(["a", "A", "b", "Zz", "zz", "", "it's", "-"])
AMOUNTS = st.sampled_from([-1.5, 0.0, 1.0, 2.25, 1e7])
DAYS = st.dates(date(2026, 3, 7), date(2026, 3, 13))
INSTANTS = st.datetimes(datetime(2026, 3, 7), datetime(2026, 3, 13), timezones=st.just(UTC)).map(
    lambda instant: instant.replace(microsecond=instant.microsecond // 1000 * 1000)
)
ROWS = st.fixed_dictionaries(
    {
        "External_ID__c": st.none() | st.text(alphabet="aAbB1", min_size=1, max_size=3),
        "Name": st.none() | TEXTS.filter(bool),
        "Amount": st.none() | AMOUNTS,
        "CloseDate": st.none() | DAYS,
        "LastModifiedDate": INSTANTS,
        "IsWon": st.booleans(),
    }
)
Test = tuple[str, Callable[[Row], bool]]
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b, "!=": lambda a, b: a != b, "<>": lambda a, b: a != b, "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}  # fmt: skip


def folded(value: Any) -> Any:
    return value.lower() or None if isinstance(value, str) else value


def compared(field: str, operator: str, value: Any, written: str) -> Test:
    wanted = folded(value)

    def holds(row: Row) -> bool:
        have = folded(row[field])
        if operator in ("=", "!=", "<>"):
            return COMPARE[operator](have, wanted)
        return have is not None and wanted is not None and COMPARE[operator](have, wanted)

    return f"{field} {operator} {written}", holds


def listed(field: str, values: list[Any], written: list[str], *, negated: bool) -> Test:
    wanted = {folded(value) for value in values}
    operator = "NOT IN" if negated else "in"
    return f"{field} {operator} ({', '.join(written)})", lambda row: (folded(row[field]) in wanted) != negated


def instant_text(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@st.composite
def comparisons(draw: st.DrawFn) -> Test:
    field, values, write = draw(
        st.sampled_from(
            [
                ("External_ID__c", st.text(alphabet="aAbB1", max_size=3), literal),
                ("Name", TEXTS, literal),
                ("Amount", AMOUNTS, lambda value: f"{value:f}"),
                ("CloseDate", DAYS, date.isoformat),
                ("LastModifiedDate", INSTANTS, instant_text),
                ("IsWon", st.booleans(), str),
            ]
        )
    )
    operators = ["=", "!=", "<>"] if field == "IsWon" else list(COMPARE)
    if field != "IsWon" and draw(st.booleans()):
        chosen = draw(st.lists(st.none() | values, min_size=1, max_size=4))
        written = ["null" if value is None else write(value) for value in chosen]
        return listed(field, chosen, written, negated=draw(st.booleans()))
    value = draw(st.none() | values) if field != "IsWon" else draw(values)
    return compared(field, draw(st.sampled_from(operators)), value, "NULL" if value is None else write(value))


def joined(parts: list[Test], word: str) -> Test:
    fold = all if word == "AND" else any
    return f" {word} ".join(f"({text})" for text, _ in parts), lambda row: fold(test(row) for _, test in parts)


CONDITIONS: st.SearchStrategy[Test] = st.recursive(
    comparisons(),
    lambda inner: (
        inner.map(lambda part: (f"NOT ({part[0]})", lambda row: not part[1](row)))
        | st.tuples(st.lists(inner, min_size=1, max_size=3), st.sampled_from(["AND", "OR"])).map(lambda p: joined(*p))
    ),
    max_leaves=6,
)


KEYED_ROWS = st.lists(ROWS, max_size=12, unique_by=lambda row: folded(row["External_ID__c"]) or object())


@given(rows=KEYED_ROWS, condition=CONDITIONS, leaf_rows=st.integers(1, 4))
def test_where_finds_the_rows_that_plain_python_finds(
    org: Org, rows: list[Row], condition: Test, leaf_rows: int
) -> None:
    text, holds = condition
    ids = plant(org, rows, leaf_rows=leaf_rows)
    wanted = sorted(row_id for row_id, row in zip(ids, rows, strict=True) if holds(row))

    assert sorted(row_id for (row_id,) in found(org, f"SELECT Id FROM Opportunity WHERE {text}")) == wanted
    assert count_rows(org, parse(f"SELECT COUNT() FROM Opportunity WHERE {text}")) == len(wanted)


KEYS = st.lists(
    st.text(alphabet="aAbB\U0001f600\ud7ff\ue0001", min_size=1, max_size=3), unique_by=str.lower, max_size=20
)


@given(
    keys=KEYS,
    bounds=st.tuples(*[st.text(alphabet="aAbB\ue0001", min_size=1, max_size=3)] * 2),
    leaf_rows=st.integers(1, 5),
)
def test_ranges_and_lists_of_keys_find_each_row_once_however_the_rows_lie(
    org: Org, keys: list[str], bounds: tuple[str, str], leaf_rows: int
) -> None:
    plant(org, [{"External_ID__c": key} for key in [*keys, None, None]], leaf_rows=leaf_rows)
    after, through = (bound.lower() for bound in bounds)
    asked = [*keys[::2], *bounds]
    every = {
        f"External_ID__c > {literal(after)} AND External_ID__c <= {literal(through)}": [
            key for key in keys if after < key.lower() <= through
        ],
        f"External_ID__c >= {literal(after)} AND External_ID__c < {literal(through)}": [
            key for key in keys if after <= key.lower() < through
        ],
        f"External_ID__c IN ({', '.join(map(literal, asked))})": [
            key for key in keys if key.lower() in {one.lower() for one in asked}
        ],
        f"External_ID__c = {literal(after)}": [key for key in keys if key.lower() == after],
    }
    for condition, wanted in every.items():
        have = [key for (key,) in found(org, f"SELECT External_ID__c FROM Opportunity WHERE {condition}")]
        assert sorted(have) == sorted(wanted), condition


def test_a_key_that_tells_letter_case_apart_is_compared_to_the_letter(org: Org) -> None:
    org.set_setting("fields", {"Opportunity.External_ID__c": {"case_sensitive": True}})
    plant(org, [{"External_ID__c": key} for key in ("a", "A", "b")], leaf_rows=1)

    assert found(org, "SELECT External_ID__c FROM Opportunity WHERE External_ID__c = 'A'") == [("A",)]
    assert found(org, "SELECT External_ID__c FROM Opportunity WHERE External_ID__c > 'A'") == [("a",), ("b",)]
    assert found(org, "SELECT External_ID__c FROM Opportunity WHERE External_ID__c LIKE 'a%'") == [("a",)]
    org.set_setting("fields", None)


def test_an_id_is_found_by_15_and_18_characters_in_any_letter_case_of_the_18(org: Org) -> None:
    (row_id, _) = plant(org, [{"Name": "one"}, {"Name": "two"}])

    for written in (row_id, row_id[:15], row_id.lower(), row_id.upper()):
        assert names(org, f"Id = '{written}'") == ["one"]
    assert names(org, f"Id IN ('{row_id[:15]}', '{row_id}')") == ["one"]
    assert names(org, f"Id != '{row_id}'") == ["two"]
    assert names(org, f"OwnerId = '{org.user_id}'") == ["one", "two"]


@pytest.mark.parametrize(
    ("condition", "days"),
    [
        ("CloseDate = TODAY", [10]),
        ("CloseDate = yesterday", [9]),
        ("CloseDate = TOMORROW", [11]),
        ("CloseDate < TODAY", [7, 8, 9]),
        ("CloseDate <= TODAY", [7, 8, 9, 10]),
        ("CloseDate > TODAY", [11, 12, 13]),
        ("CloseDate >= TODAY", [10, 11, 12, 13]),
        ("CloseDate = LAST_N_DAYS:2", [8, 9, 10]),
        ("CloseDate = NEXT_N_DAYS:2", [11, 12]),
        ("CloseDate = N_DAYS_AGO:3", [7]),
        ("CloseDate != TODAY", [7, 8, 9, 11, 12, 13]),
        ("CloseDate IN (TODAY, 2026-03-12)", [10, 12]),
        ("CloseDate = THIS_MONTH AND CloseDate = THIS_YEAR", [7, 8, 9, 10, 11, 12, 13]),
        ("LastModifiedDate = TODAY", [10]),
        ("LastModifiedDate >= 2026-03-12T23:59:59.999Z", [12, 13]),
        ("LastModifiedDate > 2026-03-13T00:59:59.998+01:00", [12, 13]),
        ("LastModifiedDate < 2026-03-07T23:59:59.999Z", []),
    ],
)
def test_dates_are_compared_as_stretches_of_days(org: Org, condition: str, days: list[int]) -> None:
    """A row for each day of a week, changed in its last millisecond; today is the 10th."""
    last = datetime(2026, 3, 1, 23, 59, 59, 999_000, tzinfo=UTC)
    plant(
        org,
        [
            {"Name": f"{day:02}", "CloseDate": date(2026, 3, day), "LastModifiedDate": last + timedelta(days=day - 1)}
            for day in range(7, 14)
        ],
    )
    assert names(org, condition) == [f"{day:02}" for day in days]


def test_deleted_rows_are_found_only_when_they_are_asked_for(org: Org) -> None:
    plant(org, [{"Name": "here"}, {"Name": "gone", "IsDeleted": True}])
    query = parse("SELECT Name FROM Opportunity")

    assert pl.concat(rows_of(org, query)).rows() == [("here",)]
    assert sorted(pl.concat(rows_of(org, query, include_deleted=True)).rows()) == [("gone",), ("here",)]
    assert count_rows(org, parse("SELECT COUNT() FROM Opportunity")) == 1


# names


def test_words_and_names_are_known_in_any_letter_case_and_answered_in_that_of_describe(org: Org) -> None:
    plant(org, [{"Name": "one", "Amount": 5.0}])
    frame = pl.concat(rows_of(org, parse("sElEcT nAME, AMOUNT fRoM opportunity wHeRe NAME = 'ONE' lImIt 1")))

    assert frame.columns == ["Name", "Amount"]
    assert frame.rows() == [("one", 5.0)]


def test_an_alias_and_the_object_itself_may_stand_before_a_field(org: Org) -> None:
    plant(org, [{"Name": "one", "Amount": 5.0}])

    assert found(org, "SELECT o.Name, Amount FROM Opportunity o WHERE o.Amount = 5 ORDER BY o.Name") == [("one", 5.0)]
    assert found(org, "SELECT Opportunity.Name FROM Opportunity") == [("one",)]


def test_fields_of_a_parent_are_read_through_the_reference(org: Org) -> None:
    (account,) = plant(org, [{"Name": "Acme", "External_ID__c": "a-1"}], name="Account")
    plant(org, [{"Name": "with", "AccountId": account}, {"Name": "without"}])

    assert found(org, "SELECT Account.Name, Name FROM Opportunity WHERE Account.External_ID__c = 'A-1'") == [
        ("Acme", "with")
    ]
    assert found(org, "SELECT Name, account.name, Owner.Name FROM Opportunity ORDER BY Account.Name NULLS LAST") == [
        ("with", "Acme", "Integration User"),
        ("without", None, "Integration User"),
    ]
    assert groups(
        org, "SELECT Account.Name, COUNT(Id) n FROM Opportunity GROUP BY Account.Name ORDER BY Account.Name"
    ) == [
        (None, 1),
        ("Acme", 1),
    ]


def test_fields_of_a_parent_that_is_kept_with_the_row_are_its_columns(org: Org) -> None:
    plant(
        org, [{"CronJobDetail.Name": "nightly", "CronJobDetail.JobType": "7", "State": "WAITING"}], name="CronTrigger"
    )

    soql = (
        "SELECT CronJobDetail.Name, State FROM CronTrigger WHERE CronJobDetail.JobType = '7' AND State IN ('WAITING')"
    )
    assert found(org, soql) == [("nightly", "WAITING")]


# order, limit, offset


@given(
    rows=st.lists(ROWS, max_size=10),
    order=st.lists(
        st.tuples(
            st.sampled_from(["External_ID__c", "Name", "Amount", "CloseDate"]),
            st.sampled_from(["", " ASC", " desc"]),
            st.sampled_from(["", " NULLS FIRST", " nulls last"]),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda part: part[0],
    ),
    limit=st.none() | st.integers(0, 6),
    offset=st.integers(0, 3),
    leaf_rows=st.integers(1, 4),
)
def test_rows_come_in_the_order_that_plain_python_sorts_them_into(
    org: Org, rows: list[Row], order: list[tuple[str, str, str]], limit: int | None, offset: int, leaf_rows: int
) -> None:
    plant(org, [{**row, "External_ID__c": None} for row in rows], leaf_rows=leaf_rows)
    text = ", ".join(field + direction + nulls for field, direction, nulls in order)
    listed_fields = ", ".join(field for field, _, _ in order)
    kept = [{**row, "External_ID__c": None} for row in rows]
    for field, direction, nulls in reversed(order):
        is_descending, nulls_last = direction == " desc", nulls == " nulls last"
        present = [row for row in kept if row[field] is not None]
        present.sort(key=lambda row, field=field: folded(row[field]), reverse=is_descending)  # type: ignore[misc]
        absent = [row for row in kept if row[field] is None]
        kept = present + absent if nulls_last else absent + present
    cut = kept[offset:] if limit is None else kept[offset : offset + limit]

    soql = f"SELECT {listed_fields} FROM Opportunity ORDER BY {text}"
    soql += ("" if limit is None else f" LIMIT {limit}") + (f" OFFSET {offset}" if offset else "")
    have = [tuple(folded(value) for value in row) for row in found(org, soql)]
    assert have == [tuple(folded(row[field]) for field, _, _ in order) for row in cut]


def test_by_its_key_an_object_is_read_in_order_without_being_held(org: Org) -> None:
    plant(org, [{"External_ID__c": f"k{place:03}"} for place in range(90)] + [{"Name": "keyless"}], leaf_rows=10)
    ordered = found(org, "SELECT External_ID__c FROM Opportunity ORDER BY External_ID__c")

    assert ordered == [(None,), *((f"k{place:03}",) for place in range(90))]
    assert found(
        org, "SELECT External_ID__c FROM Opportunity WHERE External_ID__c > 'k041' ORDER BY External_ID__c LIMIT 2"
    ) == [
        ("k042",),
        ("k043",),
    ]


def test_many_rows_come_in_frames_of_bounded_size(org: Org) -> None:
    rows = PIECE_ROWS * 2 + 5
    plant(org, [{"External_ID__c": f"k{place:06}"} for place in range(rows)])
    heights = [frame.height for frame in rows_of(org, parse("SELECT Id FROM Opportunity"))]

    assert sum(heights) == rows
    assert max(heights) < PIECE_ROWS * 2
    assert len(heights) > 1


# groups


@given(rows=st.lists(ROWS, max_size=12), leaf_rows=st.integers(1, 5))
def test_groups_hold_what_plain_python_adds_up(org: Org, rows: list[Row], leaf_rows: int) -> None:
    plant(org, [{**row, "External_ID__c": None} for row in rows], leaf_rows=leaf_rows)
    by_name: dict[str | None, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row["Name"], []).append(row)

    def summed(members: list[Row]) -> tuple[Any, ...]:
        amounts = [row["Amount"] for row in members if row["Amount"] is not None]
        days = [row["CloseDate"] for row in members if row["CloseDate"] is not None]
        total = math.fsum(amounts) if amounts else None
        return (
            len(members), len(amounts), len(set(amounts)), total, total / len(amounts) if total is not None else None,
            min(days, default=None), max(days, default=None),
        )  # fmt: skip

    what = "COUNT(Id), COUNT(Amount), COUNT_DISTINCT(Amount), SUM(Amount), AVG(Amount), MIN(CloseDate), MAX(CloseDate)"
    have = {row[0]: row[1:] for row in groups(org, f"SELECT Name, {what} FROM Opportunity GROUP BY Name")}
    assert have == {name: pytest.approx(summed(members)) for name, members in by_name.items()}
    assert groups(org, f"SELECT {what} FROM Opportunity") == [pytest.approx(summed(rows))]


def test_what_has_no_alias_is_called_expr_and_a_number(org: Org) -> None:
    plant(org, [{"Name": "one", "Amount": 2.0}])
    frame = groups_of(
        org, parse("SELECT COUNT(Id), MAX(Amount) most, MIN(Amount), Name FROM Opportunity GROUP BY Name")
    )

    assert frame.columns == ["expr0", "most", "expr1", "Name"]
    assert frame.rows() == [(1, 2.0, 2.0, "one")]


def test_groups_are_filtered_sorted_and_cut(org: Org) -> None:
    stages = ["Prospecting"] * 3 + ["Closed Won"] * 2 + ["Closed Lost"]
    plant(org, [{"StageName": stage, "Amount": float(place)} for place, stage in enumerate(stages)])
    soql = "SELECT StageName, COUNT(Id) n FROM Opportunity GROUP BY StageName"

    assert groups(org, f"{soql} ORDER BY COUNT(Id) DESC") == [("Prospecting", 3), ("Closed Won", 2), ("Closed Lost", 1)]
    assert groups(org, f"{soql} HAVING COUNT(Id) > 1 ORDER BY StageName") == [("Closed Won", 2), ("Prospecting", 3)]
    assert groups(org, f"{soql} HAVING SUM(Amount) = 5 OR StageName LIKE 'p%' ORDER BY MAX(Amount) DESC LIMIT 1") == [
        ("Closed Lost", 1)
    ]
    assert groups(org, f"{soql} ORDER BY StageName LIMIT 1 OFFSET 1") == [("Closed Won", 2)]


def test_a_grouped_field_may_be_counted_too(org: Org) -> None:
    plant(org, [{"StageName": "Closed Won"}, {"StageName": "Closed Won"}])
    soql = "SELECT StageName s, COUNT_DISTINCT(StageName), MIN(StageName), COUNT(StageName) FROM Opportunity GROUP BY StageName"

    assert groups(org, soql) == [("Closed Won", 1, "Closed Won", 2)]


def test_more_groups_than_one_answer_holds_are_refused_unless_a_limit_cuts_them(org: Org) -> None:
    plant(org, [{"Name": f"n{place}"} for place in range(2_001)])
    soql = "SELECT Name, COUNT(Id) FROM Opportunity GROUP BY Name"

    assert refusal(lambda: groups(org, soql)) == (
        400,
        "EXCEEDED_ID_LIMIT",
        "Aggregate query does not support queryMore(), use LIMIT to restrict the results to a single batch",
    )
    assert len(groups(org, f"{soql} LIMIT 2000")) == 2_000


# refusals


@pytest.mark.parametrize(
    ("soql", "code", "message"),
    [
        ("SELECT Id", "MALFORMED_QUERY", "unexpected token: '<EOF>'"),
        ("SELECT FROM Opportunity", "MALFORMED_QUERY", "unexpected token: 'FROM'"),
        ("SELECT Id, FROM Opportunity", "MALFORMED_QUERY", "unexpected token: 'FROM'"),
        ("SELECT Id FROM Opportunity WHERE", "MALFORMED_QUERY", "unexpected token: '<EOF>'"),
        ("SELECT Id FROM Opportunity WHERE Name IN ()", "MALFORMED_QUERY", "unexpected token: ')'"),
        ("SELECT Id FROM Opportunity WHERE Name IS NULL", "MALFORMED_QUERY", "unexpected token: 'IS'"),
        ("SELECT Id FROM Opportunity WHERE (Name = 'a'", "MALFORMED_QUERY", "unexpected token: '<EOF>'"),
        ("SELECT Id FROM Opportunity WHERE Name = 'a", "MALFORMED_QUERY", "line 1:40 mismatched character '<EOF>' expecting '''"),
        ("SELECT Id FROM Opportunity WHERE Name = a", "MALFORMED_QUERY", "unexpected token: 'a'"),
        ("SELECT Id FROM Opportunity WHERE Name = :a", "MALFORMED_QUERY", "Bind variables only allowed in Apex code"),
        ("SELECT Id FROM Opportunity; DROP", "MALFORMED_QUERY", "line 1:26 no viable alternative at character ';'"),
        ("SELECT Id FROM Opportunity WHERE Name = 'a' AND Amount = 1 OR Amount = 2", "MALFORMED_QUERY", "unexpected token: 'OR'"),
        ("SELECT Id FROM Opportunity WHERE CloseDate = 2026-02-30", "MALFORMED_QUERY", "Invalid date: 2026-02-30"),
        ("SELECT Id FROM Opportunity LIMIT -1", "MALFORMED_QUERY", "unexpected token: '-1'"),
        ("SELECT COUNT(), Id FROM Opportunity", "MALFORMED_QUERY", "unexpected token: 'COUNT'"),
        ("SELECT Id i FROM Opportunity", "MALFORMED_QUERY", "only aggregate expressions use field aliasing"),
        ("SELECT Name, COUNT(Id) FROM Opportunity", "MALFORMED_QUERY", "Field must be grouped or aggregated: Name"),
        ("SELECT Name FROM Opportunity GROUP BY Name ORDER BY Amount", "MALFORMED_QUERY", "Field must be grouped or aggregated: Amount"),
        ("SELECT SUM(Name) FROM Opportunity", "MALFORMED_QUERY", "field Name does not support aggregate operator SUM"),
        ("SELECT COUNT(IsWon) FROM Opportunity", "MALFORMED_QUERY", "field IsWon does not support aggregate operator COUNT"),
        ("SELECT COUNT(Id) n, MAX(Name) N FROM Opportunity", "MALFORMED_QUERY", "duplicate alias: n"),
        ("SELECT Id FROM Opportunity ORDER BY Description", "MALFORMED_QUERY", "field 'Description' can not be sorted in a query call"),
        ("SELECT Id FROM Opportunity ORDER BY COUNT(Id)", "MALFORMED_QUERY", "unexpected token: 'COUNT'"),
        ("SELECT Id FROM Opportunity WHERE COUNT(Id) = 1", "MALFORMED_QUERY", "unexpected token: '('"),
        ("SELECT TYPEOF Owner WHEN User THEN Name END FROM Opportunity", "MALFORMED_QUERY", "unexpected token: 'TYPEOF'"),
        ("SELECT Id, id FROM Opportunity", "INVALID_FIELD", "duplicate field selected: Id"),
        ("SELECT Id FROM Opportunity WHERE Description = 'a'", "INVALID_FIELD", "field 'Description' can not be filtered in a query call"),
        (
            "SELECT Id FROM Opportunity WHERE Amount = '1'",
            "INVALID_FIELD",
            "value of filter criterion for field 'Amount' must be of type double and should not be enclosed in quotes",
        ),
        (
            "SELECT Id FROM Opportunity WHERE CloseDate = ''",
            "INVALID_FIELD",
            "value of filter criterion for field 'CloseDate' must be of type date and should not be enclosed in quotes",
        ),
        (
            "SELECT Id FROM Opportunity WHERE CreatedDate > 2026-01-01",
            "INVALID_FIELD",
            "value of filter criterion for field 'CreatedDate' must be of type dateTime and should not be enclosed in quotes",
        ),
        (
            "SELECT Id FROM Opportunity WHERE Name = 1",
            "INVALID_FIELD",
            "value of filter criterion for field 'Name' must be of type string and should be enclosed in quotes",
        ),
        ("SELECT Id FROM Opportunity WHERE Id = 'abc'", "INVALID_QUERY_FILTER_OPERATOR", "invalid ID field: abc"),
        ("SELECT Id FROM Opportunity WHERE Id LIKE '006%'", "INVALID_QUERY_FILTER_OPERATOR", "invalid operator on id field"),
        ("SELECT Id FROM Opportunity OFFSET 2001", "NUMBER_OUTSIDE_VALID_RANGE", "Maximum SOQL offset allowed is 2000"),
    ],
)  # fmt: skip
def test_a_query_that_is_wrong_is_refused_with_its_reason(org: Org, soql: str, code: str, message: str) -> None:
    def run() -> None:
        query = parse(soql)
        if query.is_aggregate and not query.is_count:
            groups_of(org, query)
        else:
            list(rows_of(org, query))

    assert refusal(run) == (400, code, message)


@pytest.mark.parametrize(
    ("soql", "code", "beginning"),
    [
        ("SELECT Nme FROM Opportunity", "INVALID_FIELD", "No such column 'Nme' on entity 'Opportunity'. If you are"),
        ("SELECT Account.Nme FROM Opportunity", "INVALID_FIELD", "No such column 'Nme' on entity 'Account'."),
        ("SELECT Acount.Name FROM Opportunity", "INVALID_FIELD", "Didn't understand relationship 'Acount' in field path."),
        ("SELECT Id FROM Opportunty", "INVALID_TYPE", "sObject type 'Opportunty' is not supported. If you are"),
        ("SELECT Id, (SELECT Id FROM Lines) FROM Opportunity", "INVALID_TYPE", "Didn't understand relationship 'Lines' in FROM"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_refused_with_advice(org: Org, soql: str, code: str, beginning: str) -> None:
    status, have, message = refusal(lambda: rows_of(org, parse(soql)))
    assert (status, have) == (400, code)
    assert message.startswith(beginning)


def test_an_error_shows_its_place_in_the_query(org: Org) -> None:
    with pytest.raises(Refused) as refused:
        rows_of(org, parse("SELECT Id,\n Nme\nFROM Opportunity"))
    assert refused.value.message.startswith("\n Nme\n ^\nERROR at Row:2:Column:2\nNo such column 'Nme'")


@pytest.mark.parametrize("raw", ["\\x", "\\ ", "\\\n", "\\u12", "\\ud800", "a\\udc00\\ud800"])
def test_a_backslash_before_anything_else_is_an_error(raw: str) -> None:
    with pytest.raises(Refused, match="Illegal character sequence") as refused:
        parse(f"SELECT Id FROM Opportunity WHERE Name = '{raw}'")
    assert (refused.value.status, refused.value.code) == (400, "MALFORMED_QUERY")


def test_a_query_has_at_most_100_000_characters() -> None:
    head, tail = "SELECT Id FROM Opportunity WHERE Name = '", "'"
    fits = head + "x" * (100_000 - len(head) - len(tail)) + tail

    assert parse(fits).object == "Opportunity"
    assert refusal(lambda: parse(fits + " ")) == (
        400,
        "MALFORMED_QUERY",
        "SOQL statements cannot be longer than 100000 characters.",
    )


def test_parentheses_without_end_are_refused_and_not_a_crash() -> None:
    assert refusal(lambda: parse("SELECT Id FROM Opportunity WHERE " + "(" * 50_000))[1] == "QUERY_TOO_COMPLICATED"
    assert refusal(lambda: parse("SELECT Id FROM Opportunity WHERE " + "NOT " * 20_000))[1] == "QUERY_TOO_COMPLICATED"


@given(soql=st.text(alphabet="SELECTFROMWHIdNabe.=<>!'()\\,:%0123456789- \n+Z") | st.text())
def test_any_text_is_a_query_or_refused(soql: str) -> None:
    status = 200
    try:
        parse(soql)
    except Refused as refused:
        status = refused.status
    assert status in (200, 400)


@pytest.mark.parametrize(
    ("soql", "message"),
    [
        ("SELECT Id, (SELECT Id FROM OpportunityLineItems) FROM Opportunity", "Aggregate Relationships not supported in Bulk Query"),
        ("SELECT StageName FROM Opportunity GROUP BY StageName", "GROUP BY not supported in Bulk Query"),
        ("SELECT COUNT() FROM Opportunity", "Aggregate functions not supported in Bulk Query"),
        ("SELECT MAX(Amount) FROM Opportunity", "Aggregate functions not supported in Bulk Query"),
        ("SELECT Id FROM Opportunity OFFSET 5", "OFFSET not supported in Bulk Query"),
        ("SELECT TYPEOF Owner WHEN User THEN Name END FROM Opportunity", "TYPEOF not supported in Bulk Query"),
    ],
)  # fmt: skip
def test_bulk_query_forbids_what_rest_allows(soql: str, message: str) -> None:
    assert refusal(lambda: check_bulk_query(parse(soql))) == (400, "API_ERROR", message)


def test_bulk_query_allows_conditions_order_and_limit() -> None:
    check_bulk_query(parse("SELECT Id, Account.Name FROM Opportunity WHERE Amount > 1 ORDER BY Id LIMIT 5"))


# one moment


def test_rows_read_in_a_snapshot_are_those_of_one_moment(org: Org) -> None:
    plant(org, [{"External_ID__c": "k"}])
    query = parse("SELECT COUNT() FROM Opportunity")

    with snapshot(org):
        before = count_rows(org, query)
        writer = threading.Thread(target=put_rows, args=(org, "Opportunity", [{"External_ID__c": "l"}]))
        writer.start()
        writer.join()
        within = count_rows(org, query)

    assert (before, within, count_rows(org, query)) == (1, 1, 2)


def test_an_object_without_rows_gives_one_empty_frame_with_its_columns(org: Org) -> None:
    plant(org, [])
    frames = list(rows_of(org, parse("SELECT Id, Amount FROM Opportunity WHERE Amount > 1 ORDER BY Amount")))

    assert [(frame.columns, frame.height) for frame in frames] == [(["Id", "Amount"], 0)]
    assert groups(org, "SELECT COUNT(Id), COUNT_DISTINCT(Name), MAX(Amount) FROM Opportunity") == [(0, 0, None)]
    assert groups(org, "SELECT Name, COUNT(Id) FROM Opportunity GROUP BY Name") == []


# values


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0.0"), (1.0, "1.0"), (100.0, "100.0"), (-2.5, "-2.5"), (0.1, "0.1"), (0.001, "0.001"),
        (0.0009, "9.0E-4"), (1e-4, "1.0E-4"), (-1.5e-5, "-1.5E-5"), (9999999.99, "9999999.99"), (9999999.0, "9999999.0"),
        (1e7, "1.0E7"), (12345678.0, "1.2345678E7"), (912260031.0, "9.12260031E8"), (-12345678.9, "-1.23456789E7"),
        (1e16, "1.0E16"), (1e21, "1.0E21"), (1e23, "1.0E23"), (123456789012345680.0, "1.2345678901234568E17"),
        (1.7976931348623157e308, "1.7976931348623157E308"), (5e-324, "4.9E-324"), (2.2250738585072014e-308, "2.2250738585072014E-308"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_java_writes_them(number: float, text: str) -> None:
    assert bulk_text(pl.DataFrame({"n": [number]}))["n"].to_list() == [text]


@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.none(), max_size=20))
def test_a_number_as_text_is_the_same_number(numbers: list[float | None]) -> None:
    texts = double_text(pl.Series("n", numbers, dtype=pl.Float64)).to_list()

    assert [None if text is None else float(text) for text in texts] == numbers
    for number, text in zip(numbers, texts, strict=True):
        if number is not None and text is not None:
            assert ("E" in text) == (number != 0 and not 1e-3 <= abs(number) < 1e7)
            assert len(text.partition("E")[0].partition(".")[2]) > 0
            if "E" in text:
                assert text.lstrip("-").index(".") == 1
                assert text.lstrip("-")[0] != "0"


def test_every_kind_of_value_has_its_bulk_text_and_its_json() -> None:
    instant = datetime(2024, 1, 3, 23, 52, 1, 7_000, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "text": ['a "b"', None],
            "double": [1.2345678e7, None],
            "int": [5, None],
            "truth": [True, None],
            "day": [date(2024, 1, 3), None],
            "instant": [instant, None],
        },
        schema_overrides={"instant": pl.Datetime("ms", "UTC")},
    )
    assert bulk_text(frame).rows() == [
        ('a "b"', "1.2345678E7", "5", "true", "2024-01-03", "2024-01-03T23:52:01.007Z"),
        ("", "", "", "", "", ""),
    ]
    shown = list(zip(*map(json_values, frame.get_columns()), strict=True))
    assert msgspec.json.decode(msgspec.json.encode(shown)) == [
        ['a "b"', 12345678.0, 5, True, "2024-01-03", "2024-01-03T23:52:01.007+0000"],
        [None] * 6,
    ]
    assert b"1.2345678E7" in msgspec.json.encode(shown)


def test_whole_numbers_of_an_int_field_have_no_point(org: Org) -> None:
    plant(org, [{"Status": "Completed", "NumberOfErrors": 3.0}], name="AsyncApexJob")
    (frame,) = rows_of(org, parse("SELECT NumberOfErrors FROM AsyncApexJob WHERE NumberOfErrors IN (3, 4)"))

    assert bulk_text(frame).rows() == [("3",)]
