"""Nights over columns that are no text: keys that are numbers, dates that are instants, rows of which the latest counts.

The source is the simulated org's engine over typed columns, the target its CRM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sync_pipeline.domain.errors import MappingError
from sync_pipeline.domain.keys import KeyRange
from sync_pipeline.domain.ledger import Verdict
from sync_pipeline.domain.policy import Verify
from sync_pipeline.engine.duplicates import groups_in, refused, standing, write_groups
from sync_pipeline.engine.equality import folds_case
from sync_pipeline.engine.orphans import find_orphans
from sync_pipeline.engine.walls import Walls
from sync_pipeline.simulated_org.source import write_source
from sync_pipeline_tests.engine.witness import SOURCE, STAGE, World, row, world

FIELDS = {
    "Opportunity.Closed_At__c": {"type": "datetime"},
    "Opportunity.Is_Hot__c": {"type": "boolean"},
}
PLAIN = {
    "ExternalId__c": pl.String(),
    "Name__c": pl.String(),
    "StageName__c": pl.String(),
    "Amount__c": pl.Decimal(18, 2),
    "CloseDate__c": pl.Date(),
}
VALUES: dict[str, Any] = {
    "Name__c": "A deal",
    "StageName__c": STAGE,
    "Amount__c": Decimal("100.00"),
    "CloseDate__c": date(2026, 3, 31),
}
MAPPED = {"Name__c": ("Name", "text"), "StageName__c": ("StageName", "text"), "Amount__c": ("Amount", "number")} | {
    "CloseDate__c": ("CloseDate", "date")
}


@contextmanager
def typed(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    *,
    types: dict[str, pl.DataType] | None = None,
    more: dict[str, tuple[str, str]] | None = None,
    tie_breaker: str | None = None,
    **variables: str,
) -> Iterator[World]:
    """A source with these rows, whose columns are of ``types``; ``more`` are fields besides the plain ones."""
    lines = ["[source]", f'object = "{SOURCE}"', 'key = "ExternalId__c"']
    lines += [f'tie_breaker = "{tie_breaker}"'] if tie_breaker is not None else []
    lines += ["[target]", 'object = "Opportunity"', 'key = "External_ID__c"']
    for source, (target, word) in (MAPPED | (more or {})).items():
        lines += ["[[field]]", f'source = "{source}"', f'target = "{target}"', f'type = "{word}"']
    mapping = folder / "mapping.toml"
    mapping.write_text("\n".join(lines), encoding="utf-8")
    with world(folder, [], SYNC_MAPPING=str(mapping), **variables) as made:
        made.org.set_setting("fields", FIELDS)
        put(made, rows, PLAIN | (types or {}))
        yield made


def put(made: World, rows: Sequence[dict[str, Any]], schema: dict[str, pl.DataType]) -> None:
    """These are the rows of the source, and no others."""
    columns = {name: [(VALUES | given).get(name) for given in rows] for name in schema}
    write_source(made.org, SOURCE, [pl.DataFrame(columns, schema=schema)])


def held(made: World, *names: str) -> dict[str, tuple[Any, ...]]:
    """What the org holds of each key."""
    frames = [frame.select("External_ID__c", *names) for frame in made.records().frames()]
    return {key: tuple(values) for frame in frames for key, *values in frame.iter_rows() if key is not None}


def rejected(made: World) -> set[tuple[str, str, str]]:
    """Key, rule and column of every row of the night that was quarantined."""
    found = set()
    for entry in made.ranges():
        with made.store(entry) as store:
            found |= set(store.rejects().select("key", "code", "column").iter_rows())
    return found


# keys that are numbers

NUMBERS = [-20, -3, 0, 7, 9, 10, 11, 99, 100, 101, 1000, *range(2000, 2200)]
"""By value 9 comes before 10; by text, which is the order of ranges, after it."""


@pytest.mark.parametrize("kind", [pl.Int64(), pl.Int16(), pl.Decimal(38, 18), pl.Decimal(18, 0)])
def test_a_night_over_keys_that_are_numbers_sends_each_by_its_plain_text(tmp_path: Path, kind: pl.DataType) -> None:
    rows = [{"ExternalId__c": number} for number in NUMBERS]
    with typed(tmp_path, rows, types={"ExternalId__c": kind}, SYNC_ROWS_PER_RANGE="40") as made:
        night = made.night()
        edges = [planned.range.through for planned in night.plan if planned.range.through is not None]
        again = made.night()

        assert (night.verdict, again.verdict) == (Verdict.RECONCILED, Verdict.RECONCILED)
        assert sorted(held(made)) == sorted(str(number) for number in NUMBERS)
        assert len(edges) > 3
        assert all(before < after for before, after in pairwise(edges))
        assert made.measure(against="source", level=Verify.KEYS).orphans == 0


def test_decimals_are_keys_without_the_zeros_of_their_scale(tmp_path: Path) -> None:
    keys = [Decimal("1.50"), Decimal("100.00"), Decimal("-0.25"), Decimal(0), Decimal("12345678901234567890.10")]
    with typed(tmp_path, [{"ExternalId__c": key} for key in keys], types={"ExternalId__c": pl.Decimal(38, 2)}) as made:
        assert made.night().verdict is Verdict.RECONCILED

        assert set(held(made)) == {"1.5", "100", "-0.25", "0", "12345678901234567890.1"}


def test_equal_and_missing_numbers_are_quarantined_as_equal_and_missing_texts_are(tmp_path: Path) -> None:
    rows = [{"ExternalId__c": key, "Name__c": name} for key, name in ((7, "a"), (7, "b"), (None, "c"), (8, "d"))]
    with typed(tmp_path, rows, types={"ExternalId__c": pl.Int64()}) as made:
        made.night()

        assert held(made, "Name") == {"8": ("d",)}
        assert {(code, column) for _, code, column in rejected(made)} == {
            ("DUPLICATE_KEY", "ExternalId__c"),
            ("NULL_KEY", "ExternalId__c"),
        }


def test_a_row_of_the_org_is_no_orphan_because_the_source_writes_its_key_otherwise(tmp_path: Path) -> None:
    """A number, and texts with blanks or in other letters: the org's own row of each is the source's row."""
    with typed(tmp_path, [{"ExternalId__c": 7}], types={"ExternalId__c": pl.Decimal(38, 18)}) as made:
        made.add_to_org("7", "007")
        assert find_orphans(made.walls).keys.to_list() == ["007"]
    (tmp_path / "text").mkdir()
    with world(tmp_path / "text", [row(" a\t"), row("DEF")]) as made:
        made.add_to_org("A", "def", "other")
        assert find_orphans(made.walls).keys.to_list() == ["other"]


def test_an_orphan_that_comes_back_in_other_letters_is_spared(tmp_path: Path) -> None:
    from sync_pipeline.engine.orphans import delete_orphans

    with world(tmp_path, [row("here")]) as made:
        made.add_to_org("Gone", "Back")
        found = find_orphans(made.walls)
        made.add_to_source(row(" bACK"))

        deletion = delete_orphans(made.walls, found, max_share=1.0)

        assert (deletion.deleted, deletion.spared) == (1, 1)
        assert len(made.in_org("Back")) == 1


# dates and instants

MIDNIGHT = datetime(2026, 3, 31, tzinfo=UTC)


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_a_timestamp_at_midnight_is_a_date_and_any_other_is_quarantined_by_name(
    tmp_path: Path, zone: str | None
) -> None:
    moments = {
        "day": MIDNIGHT,
        "old": datetime(1700, 1, 1, tzinfo=UTC),
        "evening": MIDNIGHT + timedelta(hours=22),
        "microsecond": MIDNIGHT + timedelta(microseconds=1),
        "before": datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC),
        "too old": datetime(1582, 10, 15, tzinfo=UTC),
    }
    rows = [{"ExternalId__c": k, "CloseDate__c": at if zone else at.replace(tzinfo=None)} for k, at in moments.items()]
    with typed(tmp_path, rows, types={"CloseDate__c": pl.Datetime("us", zone)}) as made:
        night = made.night()

        assert night.verdict is Verdict.WITH_REJECTS
        assert held(made, "CloseDate") == {"day": (date(2026, 3, 31),), "old": (date(1700, 1, 1),)}
        assert rejected(made) == {
            ("evening", "TIME_OF_DAY", "CloseDate__c"),
            ("microsecond", "TIME_OF_DAY", "CloseDate__c"),
            ("before", "TIME_OF_DAY", "CloseDate__c"),
            ("too old", "IMPOSSIBLE_DATE", "CloseDate__c"),
        }


def test_a_date_is_midnight_utc_for_a_field_that_keeps_an_instant(tmp_path: Path) -> None:
    rows = [{"ExternalId__c": "a", "Closed__c": date(2024, 2, 29)}, {"ExternalId__c": "b", "Closed__c": None}]
    more = {"Closed__c": ("Closed_At__c", "datetime")}
    with typed(tmp_path, rows, types={"Closed__c": pl.Date()}, more=more) as made:
        assert made.night().verdict is Verdict.RECONCILED

        assert held(made, "Closed_At__c") == {"a": (datetime(2024, 2, 29, tzinfo=UTC),), "b": (None,)}


# texts and truth


def test_numbers_dates_and_truth_become_texts_in_their_one_form(tmp_path: Path) -> None:
    columns: dict[str, tuple[pl.DataType, Any, str]] = {
        "Money__c": (pl.Decimal(18, 2), Decimal("1.50"), "1.5"),
        "Round__c": (pl.Decimal(18, 2), Decimal("100.00"), "100"),
        "Fine__c": (pl.Decimal(38, 18), Decimal("-0.000000000000000001"), "-0.000000000000000001"),
        "Whole__c": (pl.Int64(), 9_007_199_254_740_993, "9007199254740993"),
        "Day__c": (pl.Date(), date(2024, 2, 29), "2024-02-29"),
        "True__c": (pl.Boolean(), True, "true"),
        "False__c": (pl.Boolean(), False, "false"),
    }
    fields = {f"Opportunity.{name}": {"type": "string", "length": 80} for name in columns}
    rows = [{"ExternalId__c": "a"} | {name: value for name, (_, value, _) in columns.items()}, {"ExternalId__c": "b"}]
    types = {name: kind for name, (kind, _, _) in columns.items()}
    with typed(tmp_path, rows, types=types, more={name: (name, "text") for name in columns}) as made:
        made.org.set_setting("fields", FIELDS | fields)
        assert made.night().verdict is Verdict.RECONCILED

        assert held(made, *columns) == {
            "a": tuple(text for _, _, text in columns.values()),
            "b": (None,) * len(columns),
        }


@pytest.mark.parametrize(
    ("kind", "values", "refused_keys"),
    [
        (pl.Boolean(), {"yes": True, "no": False}, set()),
        (pl.Int64(), {"yes": 1, "no": 0, "odd": 2}, {"odd"}),
        (pl.Decimal(38, 18), {"yes": Decimal(1), "no": Decimal(0), "odd": Decimal("0.5")}, {"odd"}),
    ],
)
def test_a_checkbox_takes_truth_and_the_numbers_that_stand_for_it(
    tmp_path: Path, kind: pl.DataType, values: dict[str, Any], refused_keys: set[str]
) -> None:
    rows = [{"ExternalId__c": key, "Hot__c": value} for key, value in values.items()]
    with typed(tmp_path, rows, types={"Hot__c": kind}, more={"Hot__c": ("Is_Hot__c", "boolean")}) as made:
        made.night()

        assert held(made, "Is_Hot__c") == {"yes": (True,), "no": (False,)}
        assert {key for key, _, _ in rejected(made)} == refused_keys


@pytest.mark.parametrize("scale", [2, 18])
def test_money_of_any_scale_is_the_same_money(tmp_path: Path, scale: int) -> None:
    rows = [{"ExternalId__c": str(n), "Amount__c": Decimal(n) / 4} for n in range(20)]
    with typed(tmp_path, rows, types={"Amount__c": pl.Decimal(38, scale)}) as made:
        assert made.night().verdict is Verdict.RECONCILED

        assert held(made, "Amount") == {str(n): (n / 4,) for n in range(20)}


def test_approximate_numbers_are_taken_as_they_are_written(tmp_path: Path) -> None:
    amounts = {"a": 0.5, "b": 10_000_000.0, "c": 1.25e-1, "d": float("nan"), "e": float("inf"), "f": None, "g": -0.0}
    rows = [{"ExternalId__c": key, "Amount__c": amount} for key, amount in amounts.items()]
    with typed(tmp_path, rows, types={"Amount__c": pl.Float64()}) as made:
        made.night()

        assert held(made, "Amount") == {"a": (0.5,), "b": (1e7,), "f": (None,), "g": (0.0,)}
        assert {(key, code) for key, code, _ in rejected(made)} == {
            ("c", "TOO_PRECISE"),
            ("d", "UNREADABLE"),
            ("e", "UNREADABLE"),
        }


# the greatest tie-breaker

TIES: dict[str, tuple[pl.DataType, st.SearchStrategy[Any]]] = {
    "text": (pl.String(), st.sampled_from(["", "10", "9", "a", "B", "é", "\U0001f600", "\uffff"])),
    "bool": (pl.Boolean(), st.booleans()),
    "bigint": (pl.Int64(), st.sampled_from([-10, -9, 0, 9, 10, 100, 2**62])),
    "numeric": (pl.Decimal(38, 18), st.sampled_from([Decimal(n) for n in ("-1.5", "-10", "0.1", "0.09", "9", "10")])),
    "date": (pl.Date(), st.sampled_from([date(999, 1, 1), date(2024, 2, 29), date(2024, 12, 1), date(9999, 12, 31)])),
    "time": (pl.Time(), st.sampled_from([time(1, 2, 3), time(1, 2, 3, 500_000), time(1, 2, 3, 50_000), time(23)])),
    "timestamp": (
        pl.Datetime("us"),
        st.sampled_from([datetime(2024, 1, 1, 0, 0, 0, f) for f in (0, 500_000, 50_000, 120_000)] + [datetime(999, 1, 1)]),
    ),
    "timestamptz": (
        pl.Datetime("us", "UTC"),
        st.sampled_from([datetime(2024, 1, 1, 0, 0, 0, f, tzinfo=UTC) for f in (0, 500_000, 50_000, 120_000)]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TIES)
def test_plan_night_and_trace_pick_the_row_that_is_the_greatest_by_type(tmp_path: Path, kind: str) -> None:
    """Of rows of one key, in whatever letters, the greatest by the order of the column's type; nulls are the least. Two
    greatest rows, and rows without any, decide nothing."""
    dtype, values = TIES[kind]
    groups = st.lists(st.tuples(st.sampled_from(["k", "K", " k", "k2"]), st.none() | values), min_size=1, max_size=6)
    schema = PLAIN | {"Tie__c": dtype}
    with typed(tmp_path, [], types={"Tie__c": dtype}, tie_breaker="Tie__c") as made:

        @given(groups)
        @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
        @example([("k", None), ("K", None)])
        def check(written: list[tuple[str, Any]]) -> None:
            rows = [
                {"ExternalId__c": key, "Tie__c": tie, "Name__c": f"row {place}"}
                for place, (key, tie) in enumerate(written)
            ]
            put(made, rows, schema)

            wanted = {"k": greatest(rows, "k"), "k2": greatest(rows, "k2")}
            assert picked_by_the_night(made.walls, tmp_path) == {name for name in wanted.values() if name is not None}
            for key, name in wanted.items():
                assert picked_by_trace(made.walls, key) == ({name} if name is not None else set())

        check()


def greatest(rows: Sequence[dict[str, Any]], key: str) -> str | None:
    """The name of the row that is sent of those of a key, by Python's own order of values."""
    group = [given for given in rows if given["ExternalId__c"].strip().lower() == key]
    known = [given for given in group if given["Tie__c"] is not None]
    if len(group) < 2:
        return group[0]["Name__c"] if group else None
    best = max((given["Tie__c"] for given in known), default=None)
    winners = [given for given in known if given["Tie__c"] == best]
    return winners[0]["Name__c"] if len(winners) == 1 else None


def picked_by_the_night(walls: Walls, folder: Path) -> set[str]:
    """The names of the rows that a night would send: the plan's groups, and the pages judged by them."""
    target = walls.soql.describe()
    write_groups(walls.data_cloud.duplicates(fold_case=folds_case(walls.mapping, target)), folder)
    found: set[str] = set()
    for page in walls.data_cloud.read(KeyRange()):
        rejections = refused(page.frame, walls.mapping, target, groups_in(folder, KeyRange()))
        found |= set(page.frame["Name__c"]) - set(page.frame[rejections["index"]]["Name__c"])
    return found


def picked_by_trace(walls: Walls, key: str) -> set[str]:
    target = walls.soql.describe()
    fold_case = folds_case(walls.mapping, target)
    rows = walls.data_cloud.rows_matched([key], fold_case=fold_case).sort("ExternalId__c")
    groups = standing(walls.data_cloud.duplicates(fold_case=fold_case, among=[key]))
    rejections = refused(rows, walls.mapping, target, groups)
    return set(rows["Name__c"]) - set(rows[rejections["index"]]["Name__c"])


def test_a_night_sends_the_latest_by_number_and_by_instant(tmp_path: Path) -> None:
    rows = [{"ExternalId__c": "k", "Tie__c": tie, "Name__c": f"version {tie}"} for tie in (9, 10, None)]
    with typed(tmp_path, rows, types={"Tie__c": pl.Int64()}, tie_breaker="Tie__c") as made:
        assert made.night().verdict is Verdict.RECONCILED

        assert held(made, "Name") == {"k": ("version 10",)}


# refused


def test_what_was_never_planned_is_refused_too_before_anything_is_asked_of_such_columns(tmp_path: Path) -> None:
    with typed(tmp_path, [{"ExternalId__c": 1.5}], types={"ExternalId__c": pl.Float64()}) as made:
        with pytest.raises(MappingError, match="'ExternalId__c' is of SQL type double"):
            find_orphans(made.walls)
        with pytest.raises(MappingError, match="'ExternalId__c' is of SQL type double"):
            made.night()

        assert made.walls.book.newest() is None
        assert list(made.records().frames()) == [] or held(made) == {}
