"""What a night reads, read from the real engine: a source of several ranges, planned, counted and read to its last row."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any, Literal

import httpx
import polars as pl
import pytest

from sync_pipeline.domain.keys import cover
from sync_pipeline.domain.ledger import Cursor, Verdict
from sync_pipeline.salesforce.data_cloud import DataCloud
from sync_pipeline_tests.contract.faces import Faces
from sync_pipeline_tests.contract.hyper import Hyper
from sync_pipeline_tests.contract.test_statements import COLUMNS, HOSTILE, OBJECT, mapping, rows_of
from sync_pipeline_tests.salesforce.conftest import Wire
from sync_pipeline_tests.stories.conftest import SOURCE, Bank, bank

__all__ = ["bank"]

KEYS = [
    *HOSTILE,
    *(f"key {number:04d}" for number in range(700)),
    *(f"\U0001f600{number}" for number in range(150)),
    None,
]
SQL_TYPES = {pl.String: "text", pl.Date: "date", pl.Int64: "bigint", pl.Datetime: "timestamptz", pl.Boolean: "boolean"}


@pytest.mark.parametrize("api", ["connect", "v3"])
@pytest.mark.parametrize(("page_rows", "comes_along"), [(37, True), (64, False), (50_000, True)])
def test_every_row_of_several_ranges_is_read_once_and_as_it_was_written(
    hyper: Hyper, api: Literal["connect", "v3"], page_rows: int, comes_along: bool
) -> None:
    rows = rows_of([*KEYS, "key 0007", "key 0007"])
    holding = hyper.holding(OBJECT, {name: kind for name, (kind, _) in COLUMNS.items()}, rows)
    faces = Faces(holding, page_rows=page_rows, comes_along=comes_along)
    cloud = DataCloud(Wire(faces).session, mapping("Place__c"), api=api, run_id="night")

    profile = cloud.profile(fold_case=True)
    boundaries = cloud.boundaries(rows_per_range=120, rows=profile.rows)
    ranges = cover(boundaries)
    counted = cloud.counts(ranges)
    pages = [list(cloud.read(key_range)) for key_range in ranges]
    staged = [[row for page in of_range for row in page.frame.rows()] for of_range in pages]
    without_key = [row for page in cloud.read_null_keys() for row in page.frame.rows()]

    assert (profile.rows, profile.null_keys) == (len(rows), 1)
    assert len(ranges) == 8
    assert [len(found) for found in staged] == [counted[0] - 1, *counted[1:]]
    assert [row[0] for found in staged for row in found] == sorted(row[0] for row in rows if row[0] is not None)
    as_read = [as_written(row) for found in [*staged, without_key] for row in found]
    assert Counter(as_read) == Counter(map(as_written, rows))
    for of_range, key_range in zip(pages, ranges, strict=True):
        assert all(before.cursor.key < after.frame[0, 0] for before, after in pairwise(of_range))
        assert key_range.through is None or of_range[-1].cursor.key == key_range.through


def as_written(row: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """A row in the spelling that it was put in with: an instant without its zone and without zeros behind its fraction."""

    def plain(text: str | None) -> str | None:
        text = text and text.removesuffix("+00")
        return text.rstrip("0") if text and "." in text and ":" in text else text

    return (*row[:4], plain(row[4]), plain(row[5]), *row[6:])


def test_a_reader_that_dies_goes_on_in_the_stored_result_and_behind_its_last_key(hyper: Hyper) -> None:
    rows = rows_of(KEYS)
    holding = hyper.holding(OBJECT, {name: kind for name, (kind, _) in COLUMNS.items()}, rows)
    faces = Faces(holding, page_rows=100)
    (key_range,) = cover([])
    keys: list[str] = []
    cursor: Cursor | None = None
    for life in range(20):
        page = next(DataCloud(Wire(faces).session, mapping("Place__c"), page_rows=100).read(key_range, cursor), None)
        if page is None:
            break
        keys += page.frame.get_column("ExternalId__c").to_list()
        cursor = page.cursor if life % 2 else Cursor(page.cursor.key)

    assert keys == sorted(key for key in KEYS if key is not None)
    assert len(faces.asked) > 3


class Divided(httpx.BaseTransport):
    """The wire of an org whose SQL is answered by the real engine."""

    def __init__(self, org: httpx.BaseTransport, faces: Faces) -> None:
        self._org = org
        self._faces = faces

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if "/ssot/query-sql" in path or path.startswith("/api/v3/query"):
            request.read()
            return self._faces(request)
        return self._org.handle_request(request)

    def close(self) -> None:
        self._org.close()


@pytest.mark.parametrize("api", ["connect", "v3"])
def test_a_night_of_several_ranges_whose_source_is_the_real_engine_ends_reconciled(
    hyper: Hyper, bank: Bank, api: str
) -> None:
    faces = Faces(held(hyper, bank.source()), page_rows=90)

    ended = bank.night(wrap=lambda transport: Divided(transport, faces), DATA_CLOUD_QUERY_API=api)

    assert len(ended.ranges) == 3
    assert ended.verdict is Verdict.RECONCILED, ended.events
    bank.assert_all_there()
    given = {dict(pairs)["name"] for asked in faces.asked for pairs in asked.parameters}
    assert given >= {"p_after", "p_through", "p_run"}


def held(hyper: Hyper, source: pl.DataFrame) -> Hyper:
    """The engine with the rows of a source of the simulated org."""
    types = {name: _sql_type(kind) for name, kind in source.schema.items()}
    return hyper.holding(SOURCE, types, source.select(pl.all().cast(pl.String)).rows())


def _sql_type(kind: Any) -> str:
    if isinstance(kind, pl.Decimal):
        return f"numeric({kind.precision},{kind.scale})"
    return SQL_TYPES[kind.base_type()]
