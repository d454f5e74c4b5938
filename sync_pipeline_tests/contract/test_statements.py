"""Every statement that the client can send, run on the real engine and on the simulated org, over the same hostile rows.

The statements are not written here: the client itself sends them, through the faces in ``faces.py``, and each is then
compared byte for byte in the answers of both. A method of ``DataCloud`` without a case here is a failure.
"""

from __future__ import annotations

import inspect
import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_pipeline.domain.keys import KeyRange, cover
from sync_pipeline.domain.ledger import Cursor
from sync_pipeline.domain.mapping import FieldMapping, FieldType, Mapping
from sync_pipeline.domain.secret import Secret
from sync_pipeline.salesforce.answer import Answer
from sync_pipeline.salesforce.auth import Login
from sync_pipeline.salesforce.data_cloud import DataCloud
from sync_pipeline.salesforce.queries import PARAMETER_NAME
from sync_pipeline.salesforce.session import Session
from sync_pipeline.simulated_org.app import OrgTransport
from sync_pipeline.simulated_org.source import write_source
from sync_pipeline_tests.contract.faces import Asked, Faces, connect_columns
from sync_pipeline_tests.contract.hyper import Hyper, Rows, SqlError
from sync_pipeline_tests.salesforce.conftest import Wire

Api = Literal["connect", "v3"]
Row = tuple[str | None, ...]

OBJECT = "ExtOpportunities__dlm"
RUN = "20260101T020000.000000Z"
ROOT = "/services/data/v66.0"

# name: (SQL type in Hyper, type in Polars)
COLUMNS: dict[str, tuple[str, Any]] = {
    "ExternalId__c": ("text", pl.String),
    "Name__c": ("text", pl.String),
    "Amount__c": ("numeric(18,2)", pl.Decimal(18, 2)),
    "CloseDate__c": ("date", pl.Date),
    "ChangedAt__c": ("timestamptz", pl.Datetime("us", "UTC")),
    "MadeAt__c": ("timestamp", pl.Datetime("us")),
    "Score__c": ("double precision", pl.Float64),
    "IsWon__c": ("boolean", pl.Boolean),
    "Place__c": ("bigint", pl.Int64),
}

HOSTILE = [
    "", " ", "  ", "\t", "\n", "\r\n", "\x01", "\x7f", "\x00", "a\x00", "'", "''", '"', ";", "--", "/*", ":p_after", "$1",
    "?", "%", "_", "\\", "\\'", "0", "00", "-1", "1e5", "a", "A", " a", "a ", "\ta\n", "a b", "aa", "AA", "Ab", "aB", "b",
    "é", "É", "e\u0301", "E\u0301", "ß", "ẞ", "ﬁ", "æ", "Æ", "ø", "ñ", "\u0131", "I", "i", "ς", "\u03c3", "Ж", "ж", "ǅ", "Ǆ", "ǆ",
    "\u00a0", "\u00a0a", "a\u3000", "\u200b", "\u2028", "\ufeff", "\u0600", "ｱ", "日本", "\ud7ff", "\ue000", "\uffef",
    "\uffff", "\U00010000", "\U00010400", "\U00010428", "\U0001f600", "\U0001f468\u200d\U0001f469", "\U0010ffff",
    "x" * 255, "\U0001f600" * 255, "é" * 255, "0061x00000ABCDE", "0061x00000abcde", "NULL", "null", "#N/A", "=1+1",
]  # fmt: skip
AMOUNTS = ["0.00", "-0.01", "0.10", "1.00", "9999999999999999.99", "-9999999999999999.99", "123456.70", None]
DATES = ["0001-01-01", "1582-10-04", "1582-10-15", "1700-01-01", "2024-02-29", "4000-12-31", "9999-12-31", None]
INSTANTS = [
    "0001-01-01 00:00:00", "1969-12-31 23:59:59.999999", "2024-03-31 01:30:00.5", "2024-02-29 12:00:00.000001",
    "2024-01-01 00:00:00.120", "9999-12-31 23:59:59.999999", None,
]  # fmt: skip
SCORES = ["0.1", "-2.5", "1e-07", "1e+300", "123456789.125", None]

DOUBLES = [
    "1", "-0.0", "100", "1e15", "1e16", "9007199254740991", "0.30000000000000004", "1234567.891234567", "5e-324",
    "1.7976931348623157e+308", "NaN", "Infinity", "-Infinity",
]  # fmt: skip


def rows_of(
    keys: Sequence[str | None], names: Sequence[str | None] = HOSTILE, scores: Sequence[str | None] = SCORES
) -> list[Row]:
    """A row of every column for each key; the last column numbers them."""
    columns = (names[::-1], AMOUNTS, DATES, INSTANTS, INSTANTS[::-1], scores, ["true", "false", None])
    values = zip(*map(itertools.cycle, columns), strict=True)
    return [(key, *others, str(place)) for place, (key, others) in enumerate(zip(keys, values, strict=False))]


ROWS = rows_of([*HOSTILE, *HOSTILE[::3], None, None, "a", "a", None])
EDGES = ["", " ", "\t", "\x01", "'", "\\", "A", "a", "a ", "é", "\uffef", "\U0001f600", "\U0010ffff"]


def mapping(tie_breaker: str | None) -> Mapping:
    fields = (
        FieldMapping("Name__c", "Name", FieldType.TEXT),
        FieldMapping("Amount__c", "Amount", FieldType.NUMBER),
        FieldMapping("CloseDate__c", "CloseDate", FieldType.DATE),
        FieldMapping("ChangedAt__c", "ChangedAt__c", FieldType.DATETIME),
        FieldMapping("MadeAt__c", "MadeAt__c", FieldType.DATETIME),
        FieldMapping("Score__c", "Score__c", FieldType.NUMBER),
        FieldMapping("IsWon__c", "IsWon__c", FieldType.BOOLEAN),
    )
    return Mapping(OBJECT, "ExternalId__c", "Opportunity", "External_ID__c", fields, tie_breaker=tie_breaker)


class Org:
    """The simulated org with a source of its own; ``asked`` holds the statements that reached it, in order."""

    def __init__(self, folder: Path) -> None:
        self._door = OrgTransport(folder)
        self.asked: list[Asked] = []
        self.session = Session(
            Login("https://embedded.invalid", client_id=Secret("simulated"), client_secret=Secret("simulated")),
            transport=httpx.MockTransport(self._handle),
            sleep=lambda seconds: None,
        )

    def hold(self, rows: Sequence[Row]) -> None:
        """Makes these the rows of its source."""
        texts = pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")
        write_source(self._door.org, OBJECT, [texts.select(_read(name, kind) for name, (_, kind) in COLUMNS.items())])

    def answer(self, asked: Asked) -> Rows:
        """All that it answers to a statement."""
        given = [dict(pairs) for pairs in asked.parameters]
        body = {"sql": asked.sql, "rowLimit": 2_000, "sqlParameters": given, "querySettings": dict(asked.settings)}
        answer = self.session.send("POST", "/ssot/query-sql", endpoint="query-sql", json=body, read=_json)
        assert answer["returnedRows"] == answer["status"]["rowCount"], "more rows than come with the first answer"
        return Rows(answer["metadata"], answer["data"])

    def _handle(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST" and request.url.path.endswith(("/query-sql", "/v3/query")):
            self.asked.append(Asked.of(json.loads(request.content)))
        return self._door.handle_request(request)


def _read(name: str, kind: Any) -> pl.Expr:
    """A column of texts as the type that it is meant as."""
    column = pl.col(name)
    if kind == pl.Date:
        return column.str.to_date("%Y-%m-%d")
    if kind == pl.Boolean:
        return column == "true"
    if isinstance(kind, pl.Datetime):
        return column.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", time_zone=kind.time_zone)
    return column.cast(kind)


def _json(answer: Answer) -> Any:
    return json.loads(answer.content())


@dataclass
class Witnesses:
    """The real engine and the simulated org with the same rows, each asked by a client of its own."""

    hyper: Hyper
    org: Org

    @classmethod
    def of(cls, hyper: Hyper, org: Org, rows: Sequence[Row]) -> Witnesses:
        org.hold(rows)
        return cls(hyper.holding(OBJECT, {name: kind for name, (kind, _) in COLUMNS.items()}, rows), org)

    def compare(
        self, ask: Callable[[DataCloud], Any], *, api: Api = "connect", tie_breaker: str | None = None
    ) -> list[Asked]:
        """Lets the client ask both, and compares what it makes of the answers and each answer byte for byte.

        Gives the statements that were asked.
        """
        faces = Faces(self.hyper)
        self.org.asked.clear()
        from_hyper, from_org = (
            ask(DataCloud(session, mapping(tie_breaker), api=api, run_id=RUN))
            for session in (Wire(faces).session, self.org.session)
        )
        assert self.org.asked == faces.asked
        assert from_org == from_hyper
        asked = list(faces.asked)
        for statement in asked:
            real, simulated = statement.rows(self.hyper), self.org.answer(statement)
            described = [(column["name"], column["type"]) for column in connect_columns(real)]
            assert [(column["name"], column["type"]) for column in simulated.columns] == described, statement.sql
            assert Counter(map(tuple, simulated.rows)) == Counter(map(tuple, real.rows)), statement.sql
        return asked


@pytest.fixture(scope="module")
def witnesses(hyper: Hyper, tmp_path_factory: pytest.TempPathFactory) -> Witnesses:
    return Witnesses.of(hyper, Org(tmp_path_factory.mktemp("org")), ROWS)


@pytest.fixture
def org_of_one_test(tmp_path: Path) -> Org:
    return Org(tmp_path / "org")


# What the client asks. Answers without an order are put in one; rows of one key without a tie-breaker have none.


def read(cloud: DataCloud, key_range: KeyRange, cursor: Cursor | None = None) -> list[Any]:
    pages = list(cloud.read(key_range, cursor))
    rows = [row for page in pages for row in page.frame.rows()]
    return [[row[0] for row in rows], sorted(rows, key=repr), [page.cursor.key for page in pages]]


def in_any_order(frame: pl.DataFrame) -> list[Any]:
    return sorted(frame.rows(), key=repr)


def fold(cloud: DataCloud) -> list[Any]:
    return [cloud.profile(fold_case=True), cloud.duplicates(fold_case=True).rows()]


RANGES = [KeyRange(), *cover(sorted(EDGES)), KeyRange("", "\U0010ffff"), KeyRange("\t", "\U0001f600")]

CASES: dict[str, Callable[[DataCloud], Any]] = {
    "columns": lambda cloud: cloud.columns(),
    "profile": lambda cloud: [cloud.profile(fold_case=fold_case) for fold_case in (False, True)],
    "boundaries": lambda cloud: [cloud.boundaries(rows_per_range=size, rows=len(ROWS)) for size in (70, 25, 10, 3, 1)],
    "counts": lambda cloud: [cloud.counts(cover(edges)) for edges in ([], ["a"], sorted(EDGES), sorted(set(HOSTILE)))],
    "count": lambda cloud: [cloud.count(key_range) for key_range in RANGES],
    "duplicates": lambda cloud: [
        cloud.duplicates(fold_case=fold_case, among=among).rows()
        for fold_case in (False, True)
        for among in (None, ["a", "AB", "no such key"])
    ],
    "count_by": lambda cloud: [cloud.count_by(column) for column in COLUMNS],
    "read": lambda cloud: (
        [read(cloud, key_range) for key_range in RANGES]
        + [read(cloud, KeyRange(None, "é"), Cursor(key)) for key in ("", "\x00", " a", "a", "é")]
    ),
    "read_null_keys": lambda cloud: [sorted(page.frame.rows(), key=repr) for page in cloud.read_null_keys()],
    "keys": lambda cloud: [sorted(key for keys in cloud.keys(key_range) for key in keys) for key_range in RANGES],
    "rows_of": lambda cloud: [
        in_any_order(cloud.rows_of(keys)) for keys in ([], ["a"], HOSTILE, [f"key {n}" for n in range(1_001)])
    ],
    "rows_named": lambda cloud: [
        in_any_order(cloud.rows_named(keys, fold_case=fold_case))
        for keys in (["a", "b", "no such key"], HOSTILE)
        for fold_case in (False, True)
    ],
    "rows_matched": lambda cloud: [
        in_any_order(cloud.rows_matched(keys, fold_case=fold_case))
        for keys in ([], ["a", "AB", "no such key"], HOSTILE)
        for fold_case in (False, True)
    ],
}
"""By the name of each public method of ``DataCloud``."""


def test_every_question_of_the_client_is_asked_here() -> None:
    asked = {name for name, _ in inspect.getmembers(DataCloud, inspect.isfunction) if not name.startswith("_")}

    assert asked == set(CASES)


@pytest.mark.parametrize(
    ("method", "api", "tie_breaker"),
    [
        *((method, "connect", None) for method in CASES),
        *((method, "v3", "Place__c") for method in CASES if method != "columns"),
    ],
)
def test_the_real_engine_and_the_simulated_org_answer_alike(
    witnesses: Witnesses, method: str, api: Api, tie_breaker: str | None
) -> None:
    assert witnesses.compare(CASES[method], api=api, tie_breaker=tie_breaker) != []


@pytest.mark.parametrize("tie_breaker", [name for name in COLUMNS if name not in ("ExternalId__c", "Score__c")])
def test_every_type_breaks_ties_alike(witnesses: Witnesses, tie_breaker: str) -> None:
    witnesses.compare(CASES["duplicates"], tie_breaker=tie_breaker)
    witnesses.compare(lambda cloud: read(cloud, KeyRange()), tie_breaker=tie_breaker)


@pytest.mark.parametrize(
    "keys", [["\u0130", "i", "I", "i\u0307"], ["Ж\u03a3", "ж\u03c2", "ж\u03c3", "Ж\u03a3.", "\u03a3Ж\u03a3 "]]
)
def test_letters_whose_lower_case_is_longer_or_depends_on_their_place_fold_alike(
    hyper: Hyper, org_of_one_test: Org, keys: list[str]
) -> None:
    Witnesses.of(hyper, org_of_one_test, rows_of(keys)).compare(fold)


def test_v3_names_every_type_as_the_engine_does(witnesses: Witnesses) -> None:
    witnesses.compare(CASES["columns"], api="v3")


def test_doubles_are_written_alike(hyper: Hyper, org_of_one_test: Org) -> None:
    rows = rows_of([f"key {place}" for place in range(len(DOUBLES))], scores=DOUBLES)

    Witnesses.of(hyper, org_of_one_test, rows).compare(
        lambda cloud: [read(cloud, KeyRange()), cloud.count_by("Score__c")]
    )


def test_rows_come_in_the_order_of_key_and_tie_breaker(witnesses: Witnesses) -> None:
    *_, asked = witnesses.compare(lambda cloud: read(cloud, KeyRange()), tie_breaker="Place__c")

    in_order = sorted((row[0], int(row[-1] or 0)) for row in ROWS if row[0] is not None)
    assert [(row[0], int(row[-1])) for row in asked.rows(witnesses.hyper).rows] == in_order


letters = st.characters(exclude_characters="\u0130\u03a3", exclude_categories=["Cs"])
"""All but those of which the lower case differs today."""
keys = st.one_of(st.sampled_from(HOSTILE), st.text(letters, max_size=6), st.text(alphabet="aA \t", max_size=3))


@given(
    written=st.lists(st.one_of(st.none(), keys), min_size=1, max_size=12),
    edges=st.lists(keys, max_size=3, unique=True).map(sorted),
    named=st.lists(keys, min_size=1, max_size=4),
    tie_breaker=st.sampled_from([None, "Place__c"]),
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_keys_and_bounds_are_answered_alike(
    hyper: Hyper,
    org_of_one_test: Org,
    written: list[str | None],
    edges: list[str],
    named: list[str],
    tie_breaker: str | None,
) -> None:
    witnesses = Witnesses.of(
        hyper, org_of_one_test, rows_of(written, [key for key in written if key is not None] or [None])
    )

    def ask(cloud: DataCloud) -> list[Any]:
        ranges = cover(edges)
        return [
            cloud.profile(fold_case=True), cloud.boundaries(rows_per_range=1, rows=len(written)), cloud.counts(ranges),
            cloud.duplicates(fold_case=True).rows(), cloud.count_by("Name__c"), in_any_order(cloud.rows_named(named)),
            *([cloud.count(key_range), read(cloud, key_range)] for key_range in ranges),
        ]  # fmt: skip

    witnesses.compare(ask, tie_breaker=tie_breaker)


# Names of parameters.

WORDS = """
    after before between by current cursor date day end fetch first from group hour in index into key last left like limit
    lower month name next no not null number of offset on only order over partition position prior range record ref right
    row rows run select set start statement table target text through time to trim type upper user using value values when
    where with year
""".split()
NAMED = "SELECT :{0} WHERE 'a' < :{0}"


def given_as(name: str) -> list[dict[str, str]]:
    return [{"name": name, "type": "varchar", "value": "b"}]


@pytest.mark.parametrize("word", "after through before first last key value name rows offset limit start end".split())
def test_ordinary_words_are_keywords_of_the_engine(hyper: Hyper, word: str) -> None:
    """Why the client does not name its parameters by a word alone."""
    with pytest.raises(SqlError, match=f"42601 syntax error: got {word.upper()}, expected <identifier>"):
        hyper.query(NAMED.format(word), given_as(word))


def test_behind_the_prefix_any_word_may_be_a_name(hyper: Hyper) -> None:
    names = [f"p_{word}" for word in WORDS]

    assert all(map(PARAMETER_NAME.fullmatch, names))
    assert [hyper.query(NAMED.format(name), given_as(name)).rows for name in names] == [[["b"]]] * len(names)


@given(st.from_regex(PARAMETER_NAME, fullmatch=True, alphabet=st.characters(codec="ascii")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_engine_takes_every_name_that_a_statement_takes(hyper: Hyper, name: str) -> None:
    assert hyper.query(NAMED.format(name), given_as(name)).rows == [["b"]]


def test_the_names_in_use_are_few(witnesses: Witnesses) -> None:
    faces = Faces(witnesses.hyper)
    cloud = DataCloud(Wire(faces).session, mapping(None), run_id=RUN)
    for ask in CASES.values():
        ask(cloud)

    given = {dict(pairs)["name"].rstrip("0123456789") for asked in faces.asked for pairs in asked.parameters}
    assert given == {"p_after", "p_through", "p_key", "p_run"}
