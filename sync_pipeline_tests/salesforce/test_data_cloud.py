"""Reading the source: every row once and in order, whatever the pages, whenever a result or the reader is lost.

The source is a plain function that runs the statements it is sent in a real SQL engine and stores their results.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as AnyMapping
from functools import cache
from itertools import count, cycle, pairwise
from typing import Any, Literal

import duckdb
import httpx
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sync_pipeline.domain.errors import (
    MappingError,
    PlanRefused,
    RequestRefused,
    ResultGone,
    StateError,
    Stopped,
    SyncError,
    WireError,
)
from sync_pipeline.domain.keys import KeyRange, cover
from sync_pipeline.domain.ledger import Cursor
from sync_pipeline.domain.mapping import FieldMapping, FieldType, Mapping
from sync_pipeline.salesforce.data_cloud import DataCloud, SourcePage
from sync_pipeline_tests.salesforce.conftest import Wire, abandoned, body_of, path_of

Api = Literal["connect", "v3"]
Row = tuple[str | None, ...]

OBJECT = "ExtOpportunities__dlm"
MAPPING = Mapping(
    source_object=OBJECT,
    source_key="ExternalId__c",
    target_object="Opportunity",
    target_key="External_ID__c",
    fields=(FieldMapping("Name__c", "Name", FieldType.TEXT),),
    tie_breaker="Place__c",
)
WITHOUT_TIES = Mapping(OBJECT, "ExternalId__c", "Opportunity", "External_ID__c", MAPPING.fields)
WHOLE = KeyRange()

HOSTILE = [
    "", " ", "'", "''", '"', ";", "--", "/*", ":p_after", "$1", "%", "\\", "a", "A", " a", "a ", "a\t", "\r\n", "\x00",
    "' OR '1'='1", "é", "e\u0301", "ß", "\u2028", "\ue000", "\uffff", "\U0001f600", "\U0010ffff",
]  # fmt: skip
keys = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=4), st.text(alphabet="ab", max_size=2))
page_sizes = st.lists(st.integers(1, 5), min_size=1, max_size=5)
apis = st.sampled_from(["connect", "v3"])


def rows_of_keys(written: Sequence[str | None]) -> list[Row]:
    """A source row for each key: key, name, place. The place is the tie-breaker, in the order of the list."""
    return [(key, None if place % 3 == 0 else f"name {place}", f"{place:06d}") for place, key in enumerate(written)]


def in_order(rows: Sequence[Row], key_range: KeyRange = WHOLE) -> list[Row]:
    """The rows that a range must give."""
    return sorted((row for row in rows if row[0] is not None and row[0] in key_range), key=place_in_order)


def place_in_order(row: Row) -> tuple[str, str]:
    return row[0] or "", row[2] or ""


@cache
def sql_engine() -> duckdb.DuckDBPyConnection:
    """One engine for all tests: to start one takes longer than most of them. Its table is made for each statement."""
    return duckdb.connect()


class Source:
    """Data Cloud with these rows, in both of its spellings.

    A page holds as many rows as ``pages`` says in turn. A statement is looked at ``polls`` times before it is complete,
    and counts too few rows until then. When the answer number ``lost`` of the reads of rows is due, its stored result is
    gone. ``turn`` changes rows of a result before they are stored.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        pages: Sequence[int] = (1000,),
        polls: int = 0,
        lost: frozenset[int] = frozenset(),
        gone: int = 404,
        first_page_comes_along: bool = True,
        turn: Callable[[list[Row]], list[Row]] = lambda rows: rows,
    ) -> None:
        self.statements: list[tuple[str, dict[str, str]]] = []
        self.results: dict[str, list[Row]] = {}
        self.dropped: list[str] = []
        self.offsets: list[int] = []
        self.polls = polls
        self._columns: dict[str, list[str]] = {}
        self._left: dict[str, int] = {}
        self._pages = cycle(pages)
        self._lost = lost
        self._gone = gone
        self._first_page_comes_along = first_page_comes_along
        self._turn = turn
        self._ids = count(1)
        self._reads = count()
        self._rows = rows

    def __call__(self, request: httpx.Request) -> httpx.Response:
        is_v3 = request.url.host.startswith("tenant")
        path = path_of(request).partition("/query-sql" if not is_v3 else "/v3/query")[2].strip("/")
        if request.method == "POST":
            return self._submitted(body_of(request), is_v3=is_v3)
        query_id = path.removesuffix("/rows")
        if request.method == "DELETE":
            self.dropped.append(query_id)
            return httpx.Response(204) if self.results.pop(query_id, None) is not None else self._unknown()
        if path.endswith("/rows"):
            return self._page(query_id, dict(request.url.params), is_v3=is_v3)
        if query_id not in self.results:
            return self._unknown()
        self._left[query_id] -= 1
        return httpx.Response(200, json=self._status(query_id))

    def _submitted(self, body: dict[str, Any], *, is_v3: bool) -> httpx.Response:
        given_parameters = body["parameters" if is_v3 else "sqlParameters"]
        assert all(parameter["type"].lower() == "varchar" for parameter in given_parameters)
        parameters = {parameter["name"]: parameter["value"] for parameter in given_parameters}
        sql = body["sql"]
        self.statements.append((sql, parameters))
        try:
            found = self._engine_with_rows().execute(re.sub(r":(\w+)", r"$\1", sql), parameters)
        except duckdb.Error as error:
            return httpx.Response(400, json=[{"errorCode": "42000", "message": str(error)}])
        query_id = f"node_{next(self._ids)}"
        self._columns[query_id] = [column[0] for column in found.description]
        self.results[query_id] = self._turn(found.fetchall())
        self._left[query_id] = self.polls
        status = self._status(query_id)
        rows = self.results[query_id][: next(self._pages)] if self._first_page_comes_along else []
        if self._left[query_id]:
            rows = rows[: status["rowCount"]]
        columns = [{"name": name, "type": "varchar"} for name in self._columns[query_id]]
        if is_v3:
            content: dict[str, Any] = {"metadata": {"columns": columns}, "data": rows}
            return httpx.Response(200, json=content, headers={"x-hyperdb-status": json.dumps(status)})
        content = {"metadata": columns, "data": rows, "returnedRows": len(rows), "status": status}
        return httpx.Response(201, json=content)

    def _engine_with_rows(self) -> duckdb.DuckDBPyConnection:
        engine = sql_engine()
        engine.execute(f'CREATE OR REPLACE TABLE "{OBJECT}" ("ExternalId__c" TEXT, "Name__c" TEXT, "Place__c" TEXT)')
        if self._rows:
            columns = dict(zip("knp", map(list, zip(*self._rows, strict=True)), strict=True))
            engine.execute(f'INSERT INTO "{OBJECT}" SELECT unnest($k), unnest($n), unnest($p)', columns)
        return engine

    def _status(self, query_id: str) -> dict[str, Any]:
        total, left = len(self.results[query_id]), max(self._left[query_id], 0)
        return {
            "queryId": query_id,
            "completionStatus": "Running" if left else "ResultsProduced",
            "rowCount": total // (left + 1),
        }

    def _page(self, query_id: str, params: dict[str, str], *, is_v3: bool) -> httpx.Response:
        if next(self._reads) in self._lost:
            self.results.pop(query_id, None)
        if query_id not in self.results:
            return self._unknown()
        assert self._left[query_id] <= 0, "rows of a statement that still runs"
        offset, limit = int(params["offset"]), int(params["limit" if is_v3 else "rowLimit"])
        rows = self.results[query_id]
        assert 0 <= offset < len(rows), "an offset out of range is answered with 400"
        assert limit > 0
        self.offsets.append(offset)
        page = rows[offset : offset + min(limit, next(self._pages))]
        if not is_v3:
            return httpx.Response(200, json={"data": page, "returnedRows": len(page)})
        stream = io.BytesIO()
        names = self._columns[query_id]
        pl.DataFrame(page, schema=dict.fromkeys(names, pl.String), orient="row").write_ipc_stream(stream)
        return httpx.Response(200, content=stream.getvalue())

    def _unknown(self) -> httpx.Response:
        return httpx.Response(self._gone, json=[{"errorCode": "02000", "message": "the query ID is unknown"}])


def cloud(
    wire: Wire,
    *,
    mapping: Mapping = MAPPING,
    api: Api = "connect",
    page_rows: int = 50_000,
    deadline_seconds: float = 1800.0,
    equal_rows_max: int = 100_000,
    run_id: str = "20260101T020000.000000Z",
    columns: AnyMapping[str, str] | None = None,
) -> DataCloud:
    """Over a source of text columns, unless other ``columns`` are told or, when there are none, are to be asked for."""
    return DataCloud(
        wire.session,
        mapping,
        api=api,
        page_rows=page_rows,
        deadline_seconds=deadline_seconds,
        equal_rows_max=equal_rows_max,
        run_id=run_id,
        columns=dict.fromkeys(mapping.source_columns, "Varchar") if columns is None else columns or None,
    )


def over(source: Source, **options: Any) -> tuple[Wire, DataCloud]:
    wire = Wire(source)
    return wire, cloud(wire, **options)


def rows_in(pages: Sequence[SourcePage]) -> list[Row]:
    return [row for page in pages for row in page.frame.rows()]


# laws of reading


@given(
    written=st.lists(st.one_of(st.none(), keys), max_size=25),
    edges=st.lists(keys, max_size=2, unique=True).map(sorted),
    sizes=page_sizes,
    page_rows=st.integers(1, 8),
    polls=st.integers(0, 2),
    lost=st.frozensets(st.integers(0, 12), max_size=2),
    gone=st.sampled_from([400, 404]),
    comes_along=st.booleans(),
    api=apis,
)
@example(["a"] * 9, [], [1], 1, 0, frozenset({3, 4}), 404, True, "connect")
@example(["", None, "a", "a", "b"], [""], [2], 2, 1, frozenset({0, 1}), 400, False, "v3")
def test_the_union_of_pages_is_exactly_the_rows_in_order(
    written: list[str | None],
    edges: list[str],
    sizes: list[int],
    page_rows: int,
    polls: int,
    lost: frozenset[int],
    gone: int,
    comes_along: bool,
    api: Api,
) -> None:
    """For any keys with duplicates, any ranges, any page sizes and any points at which the stored result is lost."""
    rows = rows_of_keys(written)
    source = Source(rows, pages=sizes, polls=polls, lost=lost, gone=gone, first_page_comes_along=comes_along)
    _, data_cloud = over(source, api=api, page_rows=page_rows)

    for key_range in cover(edges):
        pages = list(data_cloud.read(key_range))

        assert rows_in(pages) == in_order(rows, key_range)
        check_cursors(pages, key_range)


def check_cursors(pages: Sequence[SourcePage], key_range: KeyRange) -> None:
    """No key goes on in the next page, and each cursor is the last key of its page, at the end that of the range."""
    for page, following in pairwise(pages):
        assert page.frame["ExternalId__c"][-1] < following.frame["ExternalId__c"][0]
        assert page.cursor.key == page.frame["ExternalId__c"][-1]
    if pages:
        last = pages[-1].frame["ExternalId__c"][-1]
        assert pages[-1].cursor.key == (last if key_range.through is None else key_range.through)


@given(
    written=st.lists(keys, max_size=25),
    bounds=st.lists(keys, min_size=2, max_size=2, unique=True).map(sorted),
    sizes=page_sizes,
    lives=st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=5),
    lost=st.frozensets(st.integers(0, 20), max_size=2),
    api=apis,
)
@example(["a", "b", "b", "c"], ["", "z"], [2], [(1, False, False), (1, True, True)], frozenset(), "connect")
def test_a_reader_that_dies_at_any_page_loses_and_doubles_nothing(
    written: list[str],
    bounds: list[str],
    sizes: list[int],
    lives: list[tuple[int, bool, bool]],
    lost: frozenset[int],
    api: Api,
) -> None:
    """A life is the pages it stages, whether the stored result is gone before the next one, and whether that one still
    knows the result."""
    rows, key_range = rows_of_keys(written), KeyRange(*bounds)
    staged: list[Row] = []
    cursor: Cursor | None = None
    source = Source(rows, pages=sizes, lost=lost)
    wire = Wire(source)
    for pages_staged, is_gone, knows_the_result in lives:
        with abandoned(cloud(wire, api=api).read(key_range, cursor)) as pages:
            for page in take(pages, pages_staged):
                staged += page.frame.rows()
                cursor = page.cursor
        if is_gone:
            source.results.clear()
        if cursor is not None and not knows_the_result:
            cursor = Cursor(cursor.key)
    for page in cloud(wire, api=api).read(key_range, cursor):
        staged += page.frame.rows()

    assert staged == in_order(rows, key_range)


def take(pages: Iterator[SourcePage], number: int) -> Iterator[SourcePage]:
    return (page for page, _ in zip(pages, range(number), strict=False))


@given(
    written=st.lists(st.sampled_from(["a", "b", "c"]), max_size=20),
    sizes=page_sizes,
    lost=st.frozensets(st.integers(0, 8), max_size=2),
)
def test_without_a_tie_breaker_rows_of_one_key_may_change_places_but_none_is_lost(
    written: list[str], sizes: list[int], lost: frozenset[int]
) -> None:
    rows = rows_of_keys(written)
    turned = iter([True, False] * 10)
    source = Source(rows, pages=sizes, lost=lost, turn=lambda found: swap_ties(found, next(turned)))
    _, data_cloud = over(source, mapping=WITHOUT_TIES)

    read = rows_in(list(data_cloud.read(WHOLE)))

    assert Counter(read) == Counter((key, name) for key, name, _ in rows)
    assert [key for key, _ in read] == sorted(written)


def swap_ties(rows: list[Row], is_turned: bool) -> list[Row]:
    """The same order of keys, with the rows of each key the other way round."""
    return sorted(reversed(rows) if is_turned else rows, key=lambda row: row[0] or "")


@given(st.lists(st.one_of(st.none(), keys), max_size=20), page_sizes, st.booleans(), apis)
def test_rows_without_a_key_are_read_apart_and_lead_nowhere(
    written: list[str | None], sizes: list[int], comes_along: bool, api: Api
) -> None:
    rows = rows_of_keys(written)
    source = Source(rows, pages=sizes, first_page_comes_along=comes_along)

    pages = list(over(source, api=api)[1].read_null_keys())

    assert sorted(rows_in(pages), key=place_in_order) == [row for row in rows if row[0] is None]
    assert {page.cursor for page in pages} <= {Cursor(None)}
    assert source.results == {}


def test_rows_without_a_key_whose_result_is_lost_are_no_fewer_rows() -> None:
    """There is no key to go on from; whoever reads them starts again."""
    source = Source(rows_of_keys([None, None, None]), pages=[1], lost=frozenset({1}))

    with pytest.raises(ResultGone):
        list(over(source)[1].read_null_keys())


# laws of the statements


@given(
    written=st.lists(st.one_of(st.none(), keys), max_size=20), edges=st.lists(keys, max_size=3, unique=True).map(sorted)
)
@example([None, "", "a"], [""])
def test_counts_agree_with_the_ranges_and_the_first_counts_rows_without_a_key(
    written: list[str | None], edges: list[str]
) -> None:
    ranges = cover(edges)
    source = Source(rows_of_keys(written))
    _, data_cloud = over(source)
    together, singly = data_cloud.counts(ranges), [data_cloud.count(key_range) for key_range in ranges]

    expected = [sum(key is not None and key in key_range for key in written) for key_range in ranges]
    expected[0] += written.count(None)
    assert together == singly == expected
    assert sum(together) == len(written)


matching = st.text(alphabet="abAB \t\n\r'x\u00a0", max_size=4)


@given(st.lists(st.one_of(st.none(), matching), max_size=20), st.booleans())
@example([None, "", " ", "a", "a ", "A", "a"], True)
@example([None, "", " ", "a", "a ", "A", "a"], False)
def test_a_profile_counts_keys_as_source_and_target_tell_them_apart(written: list[str | None], fold_case: bool) -> None:
    source = Source(rows_of_keys(written))
    profile = over(source)[1].profile(fold_case=fold_case)

    present = [key for key in written if key is not None]
    matched = [as_matched(key, fold_case=fold_case) for key in present]
    assert profile.rows == len(written)
    assert profile.null_keys == written.count(None)
    assert profile.distinct_keys == len(set(present))
    assert profile.matched_keys == len(set(matched) - {""})
    assert profile.blank_keys == matched.count("")
    assert (profile.min_key, profile.max_key) == (min(present, default=None), max(present, default=None))


def as_matched(key: str, *, fold_case: bool) -> str:
    trimmed = key.strip(" \t\n\r")
    return trimmed.lower() if fold_case else trimmed


@given(st.lists(st.one_of(st.none(), matching), max_size=20), st.booleans())
@example(["a", "a", "a ", "A", " ", "", "b", None, None], True)
def test_duplicates_are_the_keys_that_the_target_takes_for_one_row(written: list[str | None], fold_case: bool) -> None:
    rows = rows_of_keys(written)
    source = Source(rows)
    found = over(source)[1].duplicates(fold_case=fold_case)

    groups = Counter(as_matched(key, fold_case=fold_case) for key in written if key is not None)
    expected: dict[str, tuple[str, int, str | None]] = {}
    for key, _, place in rows:
        if key is not None and (matched := as_matched(key, fold_case=fold_case)) and groups[matched] > 1:
            _, number, _ = expected.get(key, (matched, 0, ""))
            expected[key] = (matched, number + 1, place)
    ties = [(matched, tie or "") for matched, _, tie in expected.values()]
    best = {matched: max(tie for other, tie in ties if other == matched) for matched, _ in ties}
    assert {key: (matched, number, tie) for key, matched, number, tie, _ in found.iter_rows()} == expected
    assert found["best"].to_list() == [best[matched] for matched in found["matched"]]
    assert found.height == len(expected)
    assert found.schema == {
        "key": pl.String, "matched": pl.String, "rows": pl.Int64, "tie": pl.String, "best": pl.String
    }  # fmt: skip


@given(st.lists(st.one_of(st.none(), keys), max_size=40), st.integers(1, 12))
def test_boundaries_cut_the_source_into_ranges_of_about_one_size(
    written: list[str | None], rows_per_range: int
) -> None:
    present = sorted(key for key in written if key is not None)
    source = Source(rows_of_keys(written))
    _, data_cloud = over(source)
    boundaries = data_cloud.boundaries(rows_per_range=rows_per_range, rows=len(present))
    counted = data_cloud.counts(cover(boundaries))

    assert set(boundaries) <= set(present)
    assert sum(counted) == len(written)
    most_common = max(Counter(present).values(), default=0)
    for key_range in cover(boundaries):
        inside = sum(key in key_range for key in present)
        assert inside <= 1.5 * rows_per_range + most_common
        assert inside or not boundaries


@given(st.lists(keys, max_size=12), st.lists(keys, max_size=12))
def test_the_rows_of_named_keys_are_all_their_rows_and_no_others(written: list[str], wanted: list[str]) -> None:
    rows = rows_of_keys(written)
    source = Source(rows)
    found = over(source)[1].rows_of(wanted)

    assert sorted(found.rows(), key=place_in_order) == in_order([row for row in rows if row[0] in wanted])
    assert found.columns == ["ExternalId__c", "Name__c", "Place__c"]


@given(st.lists(st.one_of(st.none(), matching), max_size=12), st.lists(matching, max_size=6))
@example([" a", "a", "a ", "A", None], ["a"])
@example([" a", "a\t"], ["a", "a"])
def test_the_rows_that_become_rows_of_named_keys_may_be_written_with_blanks(
    written: list[str | None], wanted: list[str]
) -> None:
    """A named key is trimmed, as the target has it. Where the source writes it so, other writings of it are doubles that
    the plan has named already, and no row of the source is looked at for them."""
    rows, named = rows_of_keys(written), [key.strip(" \t\n\r") for key in wanted]

    found = over(Source(rows))[1].rows_named(named)

    exactly = {key for key in named if key in written}
    expected = [
        row for row in rows
        if row[0] is not None and (row[0] in exactly or as_matched(row[0], fold_case=False) in set(named) - exactly)
    ]  # fmt: skip
    assert sorted(found.rows(), key=place_in_order) == sorted(expected, key=place_in_order)


@given(st.lists(st.one_of(st.none(), keys), max_size=15), st.lists(keys, max_size=2, unique=True).map(sorted))
def test_the_keys_of_a_range_are_those_of_its_rows(written: list[str | None], edges: list[str]) -> None:
    source = Source(rows_of_keys(written), pages=[2])
    _, data_cloud = over(source)

    for key_range in cover(edges):
        found = [key for series in data_cloud.keys(key_range) for key in series]
        assert Counter(found) == Counter(key for key in written if key is not None and key in key_range)
    assert source.results == {}


values = st.one_of(st.none(), st.sampled_from(["", " ", "a", "a ", "A", "Closed Won", "'"]))


@given(st.lists(st.tuples(st.one_of(st.none(), st.just("key")), values), max_size=15))
def test_rows_are_counted_by_value_without_outer_blanks_and_null_as_empty(
    written: list[tuple[str | None, str | None]],
) -> None:
    source = Source([(key, value, "0") for key, value in written])

    found = over(source)[1].count_by("Name__c")

    assert found == Counter((value or "").strip(" \t\n\r") for key, value in written if key is not None)


def test_more_values_than_the_org_counts_by_are_refused() -> None:
    few, many = ([("key", f"value {number}", "0") for number in range(values)] for values in (2000, 2001))

    assert len(over(Source(few, pages=[5000]))[1].count_by("Name__c")) == 2000
    with pytest.raises(RequestRefused, match="more than 2000 values of Name__c"):
        over(Source(many, pages=[5000]))[1].count_by("Name__c")


def test_more_duplicates_than_can_be_kept_in_mind_are_refused() -> None:
    page = [["key", "key", "2", None, None]] * 100_000
    status = {"queryId": "q", "completionStatus": "Finished", "rowCount": 300_000}
    content = json.dumps({"data": page, "status": status}).encode()
    wire = Wire(lambda request: httpx.Response(200, content=content, headers={"Content-Type": "application/json"}))

    with pytest.raises(PlanRefused, match="More than 200000 keys of ExtOpportunities__dlm"):
        cloud(wire).duplicates(fold_case=False)

    assert [method for method, _ in wire.sent] == ["POST", "GET", "GET", "DELETE"]


def test_a_count_that_is_asked_for_twice_is_never_answered_from_a_cache() -> None:
    """Identical statements may be; these differ by a parameter, in one process and from run to run."""
    source = Source([])
    for run_id in ("first", "second"):
        _, data_cloud = over(source, run_id=run_id)
        data_cloud.count(WHOLE)
        data_cloud.count(WHOLE)

    assert len({sql for sql, _ in source.statements}) == 1
    assert len({parameters["p_run"] for _, parameters in source.statements}) == 4


@given(st.lists(keys, min_size=2, max_size=2, unique=True).map(sorted), st.text(min_size=1, max_size=6))
def test_no_value_ever_stands_in_a_statement(bounds: list[str], run_id: str) -> None:
    """Statements over hostile keys are, letter by letter, those over tame ones: values travel as parameters alone."""

    def statements(low: str, high: str, run: str) -> list[tuple[str, dict[str, str]]]:
        source = Source([])
        _, data_cloud = over(source, run_id=run)
        list(data_cloud.read(KeyRange(low, high)))
        data_cloud.count(KeyRange(low, high))
        data_cloud.counts([KeyRange(None, low), KeyRange(low, high)])
        data_cloud.rows_named([low, high])
        list(data_cloud.keys(KeyRange(low, high)))
        return source.statements

    hostile = statements(bounds[0], bounds[1], run_id)

    assert [sql for sql, _ in hostile] == [sql for sql, _ in statements("m", "n", "r")]
    values = {value for _, parameters in hostile for value in parameters.values()}
    assert values == {*bounds, *(f"{run_id}-{number}" for number in range(1, len(hostile) + 1))}
    assert len(hostile) == 6
    for sql, parameters in hostile:
        assert set(re.findall(r":(\w+)", sql)) == set(parameters)


# the texts of statements


RUN = ":p_run = :p_run"
COLUMNS = (
    'CAST(s."ExternalId__c" AS VARCHAR) AS "ExternalId__c", CAST(s."Name__c" AS VARCHAR) AS "Name__c", '
    'CAST(s."Place__c" AS VARCHAR) AS "Place__c"'
)
FROM = f'FROM "{OBJECT}" AS s WHERE s."ExternalId__c" IS NOT NULL AND'
ORDER = 'ORDER BY s."ExternalId__c", s."Place__c"'


@pytest.mark.parametrize(
    ("key_range", "condition", "parameters"),
    [
        (KeyRange(None, None), "(1 = 1)", {}),
        (KeyRange(None, "m"), '(s."ExternalId__c" <= :p_through)', {"p_through": "m"}),
        (KeyRange("m", None), '(s."ExternalId__c" > :p_after)', {"p_after": "m"}),
        (
            KeyRange("a", "m"),
            '(s."ExternalId__c" > :p_after AND s."ExternalId__c" <= :p_through)',
            {"p_after": "a", "p_through": "m"},
        ),
    ],
)
def test_a_range_is_read_by_one_ordered_statement(
    key_range: KeyRange, condition: str, parameters: dict[str, str]
) -> None:
    source = Source([])
    list(over(source, run_id="night")[1].read(key_range))

    assert source.statements == [
        (f"SELECT {COLUMNS} {FROM} {condition} AND {RUN} {ORDER}", {**parameters, "p_run": "night-1"})
    ]


def test_first_next_and_resumed_statement_are_of_one_shape() -> None:
    source = Source(rows_of_keys(["b", "c", "d"]), pages=[1], lost=frozenset({1}))
    _, data_cloud = over(source)
    list(data_cloud.read(KeyRange("a", "m")))
    list(data_cloud.read(KeyRange("m", "z")))
    list(data_cloud.read(KeyRange("a", "m"), Cursor("c")))

    assert len(source.statements) == 4
    assert len({sql for sql, _ in source.statements}) == 1
    assert [parameters["p_after"] for _, parameters in source.statements] == ["a", "b", "m", "c"]


def test_no_statement_has_an_offset_and_none_that_reads_rows_has_a_limit() -> None:
    source = Source(rows_of_keys(["a", "b", "b", None]))
    _, data_cloud = over(source)
    data_cloud.columns()
    data_cloud.profile(fold_case=True)
    data_cloud.boundaries(rows_per_range=1, rows=3)
    data_cloud.counts(cover(["a"]))
    data_cloud.count(WHOLE)
    data_cloud.duplicates(fold_case=False)
    list(data_cloud.read(WHOLE))
    list(data_cloud.read_null_keys())
    list(data_cloud.keys(WHOLE))
    data_cloud.rows_named(["a", "x"])
    data_cloud.count_by("Name__c")

    texts = [sql for sql, _ in source.statements]
    assert len(texts) == 12
    assert [sql for sql in texts if re.search(r"\bOFFSET\b", sql, re.IGNORECASE)] == []
    limited = [sql for sql in texts if re.search(r"\bLIMIT\b", sql, re.IGNORECASE)]
    assert limited == [f'SELECT * FROM "{OBJECT}" AS s LIMIT 0', texts[-1]]
    assert texts[-1].endswith("LIMIT 2001")
    # Identical statements may be answered from a cache of a day; what counts or reads carries the run.
    assert [RUN in sql for sql in texts] == [False, *[True] * 11]
    assert source.results == {}


def test_without_a_run_id_there_is_no_predicate_for_it() -> None:
    source = Source([])

    over(source, run_id="")[1].count(WHOLE)

    sql = f'SELECT CAST(count(*) AS VARCHAR) AS "n" FROM "{OBJECT}" AS s WHERE (s."ExternalId__c" IS NULL OR 1 = 1)'
    assert source.statements == [(sql, {})]


def test_a_name_with_a_quote_stays_one_name() -> None:
    mapping = Mapping('T"; DROP TABLE x; --', 'K"', "Opportunity", "External_ID__c", ())
    source = Source([])
    with pytest.raises(RequestRefused):
        over(source, mapping=mapping)[1].count(WHOLE)

    assert source.statements[0][0].startswith(
        'SELECT CAST(count(*) AS VARCHAR) AS "n" FROM "T""; DROP TABLE x; --" AS s WHERE (s."K""" IS NULL'
    )


def test_many_keys_are_named_in_statements_of_a_thousand() -> None:
    wanted = [f"key{number:05d}" for number in range(2500)]
    source = Source(rows_of_keys(wanted))
    found = over(source)[1].rows_of([*wanted, *wanted[:10]])

    assert sorted(found["ExternalId__c"]) == wanted
    assert [len(parameters) - 1 for _, parameters in source.statements] == [1000, 1000, 500]


def test_nobody_is_asked_for_the_rows_of_no_keys() -> None:
    source = Source([])
    wire, data_cloud = over(source)

    assert data_cloud.rows_of([]).height == 0
    assert wire.requests == []


# waiting for a statement


def test_no_row_is_read_before_the_statement_is_complete() -> None:
    """The rows counted so far can be read while a statement runs, but they are not all."""
    rows = rows_of_keys([f"key{number}" for number in range(8)])
    source = Source(rows, pages=[3], polls=3)
    wire, data_cloud = over(source)

    assert rows_in(list(data_cloud.read(WHOLE))) == rows

    assert [method for method, _ in wire.sent] == ["POST", "GET", "GET", "GET", "GET", "GET", "GET", "DELETE"]
    assert source.offsets == [0, 3, 6]


def test_the_rows_that_came_along_are_not_asked_for_again() -> None:
    rows = rows_of_keys(["a", "b", "c"])
    source = Source(rows, pages=[2])
    assert rows_in(list(over(source)[1].read(WHOLE))) == rows

    assert source.offsets == [2]


def test_polls_that_are_answered_at_once_are_spaced_ever_wider() -> None:
    source = Source([], polls=12)
    wire, data_cloud = over(source)
    data_cloud.count(WHOLE)

    assert wire.pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0])


def test_polls_that_the_org_holds_need_no_pause_besides() -> None:
    source = Source([], polls=5)
    wire, data_cloud = over(source)
    held = wire.server

    def slow(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            wire.now += 10.0
        return held(request)

    wire.server = slow
    data_cloud.count(WHOLE)

    assert wire.pauses == []


def test_a_statement_that_does_not_end_is_given_up_and_deleted() -> None:
    source = Source(rows_of_keys(["a"]), polls=10_000)
    wire, data_cloud = over(source, deadline_seconds=60.0)

    with pytest.raises(WireError, match="still runs after 60 s"):
        list(data_cloud.read(WHOLE))

    assert source.dropped == ["node_1"]
    assert 60 <= wire.now - 1_000 <= 80
    assert body_of(wire.requests[0])["querySettings"] == {"query_timeout": "60000ms"}


def test_a_statement_that_is_lost_while_it_runs_is_sent_again() -> None:
    rows = rows_of_keys(["a", "b"])
    source = Source(rows, polls=3)
    wire, data_cloud = over(source)
    held = wire.server

    def forgetful(request: httpx.Request) -> httpx.Response:
        if len(wire.requests) == 3:
            source.results.clear()
        return held(request)

    wire.server = forgetful

    assert rows_in(list(data_cloud.read(WHOLE))) == rows
    assert len(source.statements) == 2


def test_a_statement_that_fails_while_it_runs_is_refused() -> None:
    source = Source(rows_of_keys(["a"]), polls=3, gone=400)
    wire, data_cloud = over(source)
    held = wire.server

    def failing(request: httpx.Request) -> httpx.Response:
        if len(wire.requests) == 3:
            source.results.clear()
        return held(request)

    wire.server = failing

    with pytest.raises(RequestRefused):
        list(data_cloud.read(WHOLE))

    assert len(source.statements) == 1


def test_an_interrupted_wait_deletes_a_result_that_no_cursor_names() -> None:
    source = Source(rows_of_keys(["a"]), polls=3)
    wire, data_cloud = over(source)
    wire.is_interrupted = True

    with pytest.raises(Stopped):
        list(data_cloud.read(WHOLE))

    assert source.dropped == ["node_1"]


# where reading goes on


def test_a_cursor_goes_on_in_the_stored_result_without_a_new_statement() -> None:
    rows = rows_of_keys(["a", "b", "b", "c", "d"])
    source = Source(rows, pages=[2])
    wire, data_cloud = over(source)
    with abandoned(data_cloud.read(WHOLE)) as pages:
        first = next(pages)
    assert (rows_in([first]), first.cursor) == (rows[:1], Cursor("a", "node_1", 1))
    wire.requests.clear()

    rest = list(cloud(wire).read(WHOLE, first.cursor))

    assert rows_in(rest) == rows[1:]
    assert [method for method, _ in wire.sent] == ["GET", "GET", "GET", "DELETE"]
    assert source.offsets == [1, 3]
    assert rest[-1].cursor == Cursor("d", "node_1", 5)


def test_a_result_that_is_gone_is_read_on_by_key() -> None:
    rows = rows_of_keys(["a", "b", "c"])
    source = Source(rows)
    wire, data_cloud = over(source)

    assert rows_in(list(data_cloud.read(WHOLE, Cursor("a", "node_of_yesterday", 1)))) == rows[1:]

    assert [method for method, _ in wire.sent] == ["GET", "POST", "DELETE"]
    assert source.statements[0][1]["p_after"] == "a"


def test_a_result_with_fewer_rows_than_were_read_of_it_is_another_one() -> None:
    rows = rows_of_keys(["a", "b", "c"])
    source = Source(rows)
    source.results["node_x"], source._left["node_x"] = rows[:1], 0

    assert rows_in(list(over(source)[1].read(WHOLE, Cursor("b", "node_x", 2)))) == rows[2:]


def test_a_cursor_at_the_end_of_its_range_asks_nobody() -> None:
    source = Source(rows_of_keys(["a"]))
    wire, data_cloud = over(source)

    assert list(data_cloud.read(KeyRange(None, "m"), Cursor("m", "node_1", 1))) == []
    assert wire.requests == []


def test_a_result_whose_rows_were_all_staged_is_deleted() -> None:
    rows = rows_of_keys(["a", "b"])
    source = Source(rows)
    wire, data_cloud = over(source)
    with abandoned(data_cloud.read(WHOLE)) as pages:
        cursor = next(pages).cursor

    assert cursor == Cursor("b", "node_1", 2)
    assert list(cloud(wire).read(WHOLE, cursor)) == []
    assert source.results == {}


def test_a_result_that_is_gone_again_and_again_is_no_end() -> None:
    source = Source(rows_of_keys(["a", "b"]), lost=frozenset(range(100)), first_page_comes_along=False)
    _, data_cloud = over(source)

    with pytest.raises(ResultGone):
        list(data_cloud.read(WHOLE))

    assert len(source.statements) == 3


def test_a_lost_answer_leaves_the_result_for_the_cursor() -> None:
    rows = rows_of_keys(["a", "b", "c", "d"])
    source = Source(rows, pages=[2])
    wire, data_cloud = over(source)
    whole = wire.server
    wire.server = lambda request: httpx.Response(503) if request.url.path.endswith("/rows") else whole(request)
    pages = data_cloud.read(WHOLE)
    first = next(pages)

    with pytest.raises(WireError, match="HTTP 503"):
        next(pages)

    assert source.dropped == []
    wire.server = whole
    assert rows_in([first, *data_cloud.read(WHOLE, first.cursor)]) == rows


def test_a_cursor_of_another_range_is_refused() -> None:
    source = Source([])
    with pytest.raises(StateError, match="lies outside of"):
        list(over(source)[1].read(KeyRange("m", "z"), Cursor("a")))


def test_an_empty_page_before_the_end_is_an_error() -> None:
    source = Source(rows_of_keys(["a", "b", "c"]), pages=[1])
    wire, data_cloud = over(source)
    whole = wire.server
    empty = httpx.Response(200, json={"data": [], "returnedRows": 0})
    wire.server = lambda request: empty if request.url.path.endswith("/rows") else whole(request)

    with pytest.raises(WireError, match="a page without rows before the end"):
        list(data_cloud.read(WHOLE))


def test_more_rows_than_the_result_has_are_an_error() -> None:
    source = Source(rows_of_keys(["a", "b", "c"]))
    wire, data_cloud = over(source)
    whole = wire.server

    def miscounting(request: httpx.Request) -> httpx.Response:
        answer = whole(request)
        content = answer.json()
        content["status"]["rowCount"] = 2
        return httpx.Response(201, json=content)

    wire.server = lambda request: miscounting(request) if request.method == "POST" else whole(request)

    with pytest.raises(WireError, match="has 2 rows, but 3 came"):
        list(data_cloud.read(WHOLE))
    with pytest.raises(WireError, match="has 2 rows, but 3 came"):
        data_cloud.rows_of(["a", "b", "c"])


# other orders


UTF16 = ["\ue000", "\U0001f600"]
"""In this order by their UTF-8 bytes; Java and JavaScript order them the other way round."""


@pytest.mark.parametrize(
    "turn",
    [
        pytest.param(lambda rows: list(reversed(rows)), id="backwards"),
        pytest.param(lambda rows: sorted(rows, key=lambda row: row[0].encode("utf-16-be")), id="as Java orders"),
        pytest.param(lambda rows: sorted(rows, key=lambda row: row[0].lower()), id="without letter case"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_a_source_that_orders_keys_otherwise_is_refused(turn: Callable[[list[Row]], list[Row]], size: int) -> None:
    source = Source(rows_of_keys(["B", "a", *UTF16, "x"]), pages=[size], turn=turn)
    _, data_cloud = over(source)

    with pytest.raises(PlanRefused, match="otherwise than by their UTF-8 bytes"):
        list(data_cloud.read(WHOLE))
    with pytest.raises(PlanRefused, match="otherwise than by their UTF-8 bytes"):
        data_cloud.boundaries(rows_per_range=1, rows=5)


@pytest.mark.parametrize("size", [1, 10])
@pytest.mark.parametrize("stranger", ["a", "b", "z", None])
def test_a_key_outside_of_the_range_is_refused(stranger: str | None, size: int) -> None:
    def with_stranger(rows: list[Row]) -> list[Row]:
        return sorted([*rows, (stranger, "stranger", "0")], key=lambda row: (row[0] is None, row[0] or ""))

    source = Source(rows_of_keys(["c", "d"]), pages=[size], turn=with_stranger)
    with pytest.raises(PlanRefused):
        list(over(source)[1].read(KeyRange("b", "m")))


def test_a_group_of_one_key_larger_than_a_page_stays_together() -> None:
    rows = rows_of_keys(["a", *["b"] * 7, "c", "d", "e"])
    source = Source(rows, pages=[2])
    pages = list(over(source)[1].read(WHOLE))

    assert [page.frame["ExternalId__c"].to_list() for page in pages] == [["a"], [*["b"] * 7, "c"], ["d", "e"]]
    assert rows_in(pages) == rows


def test_a_group_larger_than_any_sane_source_has_is_refused() -> None:
    source = Source(rows_of_keys(["a", *["b"] * 9, "c"]), pages=[3])
    _, data_cloud = over(source, equal_rows_max=5)

    with pytest.raises(PlanRefused, match="More than 5 rows of ExtOpportunities__dlm have the key 'b'"):
        list(data_cloud.read(WHOLE))


# the columns, and answers that are none


def test_the_columns_are_named_with_their_types() -> None:
    source = Source(rows_of_keys(["a"]))
    assert over(source)[1].columns() == {
        "ExternalId__c": "varchar",
        "Name__c": "varchar",
        "Place__c": "varchar",
    }
    assert source.dropped == ["node_1"]


def test_a_source_object_that_cannot_be_read_is_a_fault_of_the_mapping() -> None:
    mapping = Mapping("Nothing__dlm", "K", "Opportunity", "External_ID__c", ())
    source = Source([])
    with pytest.raises(MappingError, match="Nothing__dlm cannot be read") as refused:
        over(source, mapping=mapping)[1].columns()

    assert "SYNC_MAPPING" in refused.value.hint
    assert "DATA_CLOUD_DATASPACE" in refused.value.hint


def complete(rows: list[list[str | None]]) -> httpx.Response:
    status = {"queryId": "q", "completionStatus": "Finished", "rowCount": len(rows)}
    return httpx.Response(200, json={"data": rows, "status": status})


def test_an_answer_that_names_no_columns_is_not_taken_for_an_object_without_any() -> None:
    wire = Wire(lambda request: complete([]))

    with pytest.raises(WireError, match="did not name the columns"):
        cloud(wire).columns()


@pytest.mark.parametrize("rows", [0, 2])
def test_a_count_without_its_one_row_is_not_zero(rows: int) -> None:
    with pytest.raises(WireError, match=f"came back with {rows} rows"):
        cloud(Wire(lambda request: complete([["1"]] * rows))).count(WHOLE)
    with pytest.raises(WireError, match=f"came back with {rows} rows"):
        cloud(Wire(lambda request: complete([["1"] * 7] * rows))).profile(fold_case=True)


@pytest.mark.parametrize(
    "refusal",
    [
        httpx.Response(404, json=[{"errorCode": "NOT_FOUND", "message": "no"}]),
        httpx.Response(405, json=[{"errorCode": "METHOD_NOT_ALLOWED", "message": "no"}]),
        httpx.Response(403, json=[{"errorCode": "INSUFFICIENT_ACCESS", "message": "no"}]),
        httpx.Response(403, json=[{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "no"}]),
        httpx.Response(401, json=[{"errorCode": "INVALID_SESSION_ID", "message": "no"}]),
        httpx.Response(503),
    ],
)
def test_a_result_that_cannot_be_deleted_harms_nobody(refusal: httpx.Response) -> None:
    rows = rows_of_keys(["a", "b", None])
    source = Source(rows)
    wire, data_cloud = over(source)
    whole = wire.server
    wire.server = lambda request: refusal if request.method == "DELETE" else whole(request)

    assert data_cloud.count(WHOLE) == 3
    assert rows_in(list(data_cloud.read(WHOLE))) == rows[:2]
    assert rows_in(list(data_cloud.read_null_keys())) == rows[2:]


def test_a_failure_is_told_and_not_the_deletion_after_it() -> None:
    source = Source(rows_of_keys(["a", "b"]), pages=[1])
    wire, data_cloud = over(source)
    whole = wire.server
    wire.server = lambda request: whole(request) if request.method == "POST" else httpx.Response(501)

    with pytest.raises(SyncError) as failed:
        data_cloud.rows_of(["a", "b"])

    assert "GET" in str(failed.value)
