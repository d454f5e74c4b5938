"""Columns that are no text, on the real engine and on the simulated org: each value has the one text that it is meant to.

What the client makes of both is compared, and both with what is written here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sync_pipeline.domain.errors import MappingError
from sync_pipeline.domain.keys import KeyRange, cover
from sync_pipeline.domain.mapping import FieldMapping, FieldType, Mapping
from sync_pipeline.domain.secret import Secret
from sync_pipeline.salesforce.auth import Login
from sync_pipeline.salesforce.data_cloud import DataCloud
from sync_pipeline.salesforce.session import Session
from sync_pipeline.simulated_org.app import OrgTransport
from sync_pipeline.simulated_org.source import write_source
from sync_pipeline_tests.contract.faces import Faces
from sync_pipeline_tests.contract.hyper import Hyper
from sync_pipeline_tests.salesforce.conftest import Wire

OBJECT = "Typed__dlm"
KEYS: dict[str, tuple[pl.DataType, list[Any]]] = {
    "bigint": (pl.Int64(), [-20, -3, 0, 7, 9, 10, 11, 99, 100, 2**62, *range(2000, 2040), 7, 7, None]),
    "smallint": (pl.Int16(), [-3, 0, 9, 10, 32767, 10, None]),
    "numeric(38,18)": (
        pl.Decimal(38, 18),
        [*map(Decimal, ("1.5", "100", "-0.25", "0", "9", "10", "1e-18", "9")), None],
    ),
    "numeric(18,2)": (pl.Decimal(18, 2), [*map(Decimal, ("1.50", "100.00", "-0.20", "0.00", "1.5")), None]),
    "numeric(18,0)": (pl.Decimal(18, 0), [*map(Decimal, (100, 10, 9, 0, -10, 9)), None]),
    "char(4)": (pl.String(), ["ab", "a", "abcd", "AB", "é", "", "ab", None]),
}
FIELDS: dict[str, tuple[str, pl.DataType, FieldType, list[Any], list[str | None]]] = {
    # column: SQL type, type in Polars, word, values, texts
    "At__c": (
        "timestamptz",
        pl.Datetime("us", "UTC"),
        FieldType.DATE,
        [
            datetime(2024, 2, 29, tzinfo=UTC),
            datetime(1969, 12, 31, 0, 0, 0, 1, tzinfo=UTC),
            datetime(1, 1, 1, tzinfo=UTC),
        ],
        ["2024-02-29", "1969-12-31 00:00:00.000001+00", "0001-01-01"],
    ),
    "Naive__c": (
        "timestamp",
        pl.Datetime("us"),
        FieldType.DATE,
        [datetime(2024, 2, 29), datetime(2024, 2, 29, 23, 59, 59), datetime(9999, 12, 31)],
        ["2024-02-29", "2024-02-29 23:59:59", "9999-12-31"],
    ),
    "Day__c": (
        "date",
        pl.Date(),
        FieldType.DATETIME,
        [date(2024, 2, 29), date(1, 1, 1), date(9999, 12, 31)],
        ["2024-02-29 00:00:00", "0001-01-01 00:00:00", "9999-12-31 00:00:00"],
    ),
    "Money__c": (
        "numeric(18,2)",
        pl.Decimal(18, 2),
        FieldType.TEXT,
        [Decimal("1.50"), Decimal("100.00"), Decimal("-0.01")],
        ["1.5", "100", "-0.01"],
    ),
    "Fine__c": (
        "numeric(38,18)",
        pl.Decimal(38, 18),
        FieldType.TEXT,
        [Decimal(0), Decimal("1e-18"), Decimal(12345678901234567890)],
        ["0", "0.000000000000000001", "12345678901234567890"],
    ),
    "Flag__c": (
        "numeric(38,18)",
        pl.Decimal(38, 18),
        FieldType.BOOLEAN,
        [Decimal(1), Decimal(0), Decimal("0.5")],
        ["1", "0", "0.5"],
    ),
    "Score__c": (
        "double precision",
        pl.Float64(),
        FieldType.NUMBER,
        [0.1 + 0.2, -2.5, 9007199254740991.0],
        ["0.3...", "-2.5", "9.00719925474099e+15..."],
    ),
    "Ratio__c": (
        "double precision",
        pl.Float64(),
        FieldType.NUMBER,
        [1e-7, 12345678901234.56, 1e22],
        ["1e-07", "12345678901234.6...", "1e+22"],
    ),
    "Truth__c": ("boolean", pl.Boolean(), FieldType.TEXT, [True, False, True], ["true", "false", "true"]),
    "Count__c": ("bigint", pl.Int64(), FieldType.TEXT, [0, -1, 2**62], ["0", "-1", str(2**62)]),
    "Date__c": ("date", pl.Date(), FieldType.TEXT, [date(2024, 2, 29)] * 3, ["2024-02-29"] * 3),
}
FIELD_MAPPINGS = tuple(FieldMapping(name, name, word) for name, (_, _, word, _, _) in FIELDS.items())
MAPPING = Mapping(OBJECT, "Key__c", "Opportunity", "External_ID__c", FIELD_MAPPINGS, tie_breaker="Tie__c")


def plain(key: Any) -> str | None:
    """A key as it is meant to be written."""
    if not isinstance(key, Decimal):
        return None if key is None else str(key)
    text = f"{key:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def frame_of(kind: str) -> pl.DataFrame:
    """A row for each key of that type; the other columns take turns."""
    dtype, keys = KEYS[kind]
    columns = [pl.Series("Key__c", keys, dtype=dtype), pl.Series("Tie__c", range(len(keys)), dtype=pl.Int64)]
    for name, (_, field_dtype, _, values, _) in FIELDS.items():
        columns.append(pl.Series(name, [values[place % 3] for place in range(len(keys))], dtype=field_dtype))
    return pl.DataFrame(columns)


def clouds(hyper: Hyper, folder: Path, kind: str) -> Iterator[DataCloud]:
    """A client of the real engine and one of the simulated org, over the same rows."""
    frame = frame_of(kind)
    types = {"Key__c": kind, "Tie__c": "bigint"} | {name: sql for name, (sql, *_) in FIELDS.items()}
    texts = frame.select(pl.all().cast(pl.String)).rows()
    yield DataCloud(Wire(Faces(hyper.holding(OBJECT, types, texts))).session, MAPPING)
    door = OrgTransport(folder / "org")
    write_source(door.org, OBJECT, [frame])
    login = Login("https://embedded.invalid", client_id=Secret("simulated"), client_secret=Secret("simulated"))
    yield DataCloud(Session(login, transport=door, sleep=lambda seconds: None), MAPPING)


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_every_type_are_cut_counted_read_and_found_by_their_plain_text(
    hyper: Hyper, tmp_path: Path, kind: str
) -> None:
    written = [plain(key) for key in KEYS[kind][1]]
    present = sorted(key for key in written if key is not None)
    for cloud in clouds(hyper, tmp_path, kind):
        profile = cloud.profile(fold_case=False)
        edges = cloud.boundaries(rows_per_range=3, rows=profile.keyed_rows)
        ranges = cover(edges)
        pages = [list(cloud.read(key_range)) for key_range in ranges]
        read = [key for of_range in pages for page in of_range for key in page.frame["Key__c"]]

        assert (profile.rows, profile.null_keys) == (len(written), 1)
        assert profile.distinct_keys == len(set(present))
        assert (profile.min_key, profile.max_key) == (present[0], present[-1])
        assert edges == sorted(edges)
        assert read == present
        counted = [sum(key in key_range for key in present) for key_range in ranges]
        assert cloud.counts(ranges) == [counted[0] + 1, *counted[1:]] == [cloud.count(of) for of in ranges]
        assert sorted(key for keys in cloud.keys(KeyRange()) for key in keys) == present
        assert [page.frame["Key__c"].to_list() for page in cloud.read_null_keys()] == [[None]]
        for found in (
            cloud.rows_of(present[:2]),
            cloud.rows_named(present[:2]),
            cloud.rows_matched(present[:2], fold_case=True),
        ):
            assert set(found["Key__c"]) >= set(present[:2])
        doubled = {key for key in present if present.count(key) > 1}
        duplicates = cloud.duplicates(fold_case=False)
        ties = {key: str(place) for place, key in enumerate(written)}
        assert dict(duplicates.select("key", "best").iter_rows()) == {k: ties[k] for k in doubled}
        among = cloud.duplicates(fold_case=False, among=[*doubled, present[0]])
        assert among.sort("key").equals(duplicates.sort("key"))


def test_values_are_written_in_the_one_form_of_their_field(hyper: Hyper, tmp_path: Path) -> None:
    for cloud in clouds(hyper, tmp_path, "smallint"):
        (page,) = cloud.read(KeyRange())
        for name, (*_, texts) in FIELDS.items():
            place = page.frame["Tie__c"].cast(pl.Int64) % 3
            assert page.frame[name].to_list() == [texts[turn] for turn in place], name
            assert set(cloud.count_by(name)) == set(texts), name


@pytest.mark.parametrize("kind", ["double precision", "boolean", "date", "timestamptz", "time"])
def test_a_key_that_has_no_single_text_is_refused_before_any_other_statement(hyper: Hyper, kind: str) -> None:
    types = {"Key__c": kind, "Tie__c": "bigint"} | {name: sql for name, (sql, *_) in FIELDS.items()}
    faces = Faces(hyper.holding(OBJECT, types))

    with pytest.raises(MappingError, match="'Key__c' is of SQL type"):
        DataCloud(Wire(faces).session, MAPPING).profile(fold_case=True)

    assert len(faces.asked) == 1
