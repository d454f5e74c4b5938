"""A row that is in the org is matched with its row of the source, however either of them writes the key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_pipeline.domain.mapping import FieldMapping, FieldType, TargetField, TargetObject
from sync_pipeline.domain.mapping import Mapping as FieldTable
from sync_pipeline.engine.equality import Equality
from sync_pipeline.engine.orphans import delete_orphans, find_orphans, rows_of
from sync_pipeline.simulated_org.values import double_text
from sync_pipeline.staging.comparison import Comparison, Kind, Side
from sync_pipeline_tests.engine.things import KEY, NUMBER_KEY, TEXT_KEY, Things, things

MAPPING = FieldTable("Things__dlm", KEY, "Thing__c", KEY, (FieldMapping("Text__c", "Text__c", FieldType.TEXT),))
KEYS: Mapping[str, tuple[TargetField, Callable[[str], object]]] = {
    "any letter case": (TargetField(KEY, "Key", "string", length=80, external_id=True, unique=True), str.lower),
    "letter case": (
        TargetField(KEY, "Key", "string", length=80, external_id=True, unique=True, case_sensitive=True),
        str,
    ),
    "not unique": (TargetField(KEY, "Key", "string", length=80, external_id=True), str),
    "email": (
        TargetField(KEY, "Key", "email", length=80, external_id=True, unique=True, case_sensitive=True),
        str.lower,
    ),
    "number": (TargetField(KEY, "Key", "double", precision=18, scale=2, external_id=True, unique=True), float),
    "whole number": (TargetField(KEY, "Key", "int", digits=9, external_id=True, unique=True), float),
}
"""What describe says of a key, and what a text without blanks means as one."""

BLANKS = st.text(alphabet=" \t\n\r", max_size=2)
WORDS = st.sampled_from(
    ["a", "A", "ab", "AB", "aB", "\u00e9", "\u00c9", "\u03b1\u03c3", "\u0391\u03a3", "\u0130", "i", "1", "1.0", "x@y.z"]
)
NUMBERS = st.sampled_from(
    ["0", "5", "5.0", "05", "+5", "-5", "0.5", ".5", "10000000", "1e7", "1.0E7", "12345678.25", "123456789"]
)


def texts_of(kind: str) -> st.SearchStrategy[str]:
    """Keys as the source may write them."""
    plain = NUMBERS if "number" in kind else WORDS
    if kind == "whole number":
        plain = st.integers(-999_999_999, 999_999_999).map(str) | st.sampled_from(["5", "5.0", "5e0", "05"])
    return st.builds("{}{}{}".format, BLANKS, plain, BLANKS)


def as_org_writes(kind: str, text: str) -> str:
    """The key as a query gives it back."""
    bare = text.strip()
    return str(double_text(pl.Series([float(bare)]))[0]) if "number" in kind else bare


def side(equality: Equality, keys: list[str], *, is_present: bool) -> pl.DataFrame:
    frame = pl.DataFrame({"key": keys}, schema={"key": pl.String})
    return equality.hashed(frame, is_present=is_present, with_values=False)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("kind", sorted(KEYS))
def test_only_a_row_that_the_source_does_not_have_is_an_orphan(kind: str, data: st.DataObject) -> None:
    field, meant = KEYS[kind]
    equality = Equality(MAPPING, TargetObject("Thing__c", "a00", {KEY: field}))
    unique = {"unique_by": lambda text: meant(text.strip())}
    source = data.draw(st.lists(texts_of(kind), max_size=6, **unique))  # type: ignore[arg-type]
    org = data.draw(st.lists(texts_of(kind), max_size=6, **unique))  # type: ignore[arg-type]
    written = [as_org_writes(kind, text) for text in org]

    with TemporaryDirectory() as folder, Comparison(Path(folder)) as comparison:
        expected = side(equality, source, is_present=False)
        comparison.add(
            Side.EXPECTED,
            expected.with_columns(pl.lit(0, pl.UInt32).alias("place"), pl.lit(value=True).alias("sent")),
        )
        comparison.add(Side.PRESENT, side(equality, written, is_present=True))
        found = [row for frame in comparison.findings() for row in frame.select("kind", "key").rows()]

    ours, theirs = {meant(text.strip()) for text in source}, {meant(text.strip()) for text in org}
    assert sorted(key for word, key in found if word == Kind.ORPHAN) == sorted(
        key for key in written if meant(key) not in ours
    )
    assert sorted(key for word, key in found if word == Kind.MISSING) == sorted(
        key for key in source if meant(key.strip()) not in theirs
    )


# the verb

SPELLINGS: Mapping[str, tuple[Mapping[str, Any], list[str], list[str], list[str]]] = {
    "any letter case": (TEXT_KEY, ["abc", " Def\t", "\u0130x"], ["ABC", "dEF", "i\u0307X"], ["gone", "Gone, too"]),
    "letter case": (TEXT_KEY | {"case_sensitive": True}, ["abc", " Def\t"], ["abc", "Def"], ["ABC", "dEF"]),
    "email": (TEXT_KEY | {"type": "email"}, ["Ada@X.org", " b@x.org"], ["ada@x.org", "B@X.ORG"], ["c@x.org"]),
    "number": (
        NUMBER_KEY,
        ["5", "10000000", "0.5", " -7", "07", "1e3", "8.00"],
        ["5", "10000000", "0.5", "-7", "7", "1000", "8"],
        ["6", "20000000"],
    ),
    "whole number": (
        {"type": "int", "digits": 9, "external_id": True, "id_lookup": True, "unique": True},
        ["5", "123456789"],
        ["5", "123456789"],
        ["-5"],
    ),
}
"""What describe says of the key, keys of the source, the same rows' keys in the org, and keys that only the org has."""


@pytest.fixture(params=sorted(SPELLINGS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def it(kind: str, tmp_path: Path) -> Iterator[Things]:
    key, ours, theirs, alone = SPELLINGS[kind]
    with things(tmp_path, key=key, fields=("Text__c",)) as made:
        made.write_source(*({KEY: text, "Text__c": "x"} for text in ours))
        keys = [*theirs, *alone]
        assert made.save(pl.DataFrame({KEY: keys, "Text__c": ["x"] * len(keys)})) == [None] * len(keys)
        yield made


def written(it: Things, keys: list[str]) -> list[str]:
    """These keys as the org keeps them."""
    if not it.equality.has_number_key:
        return sorted(key.lower() if it.sobject.fields[KEY].type == "email" else key for key in keys)
    if it.sobject.fields[KEY].type == "int":
        return sorted(keys)
    return sorted(double_text(pl.Series([float(key) for key in keys])).to_list())


def test_the_verb_names_and_deletes_exactly_what_only_the_org_has(kind: str, it: Things) -> None:
    _, _, theirs, alone = SPELLINGS[kind]

    found = find_orphans(it.walls, on_event=lambda told: None)

    assert found.keys.to_list() == written(it, alone)
    assert (found.rows, found.present) == (len(alone), len(theirs) + len(alone))
    assert pl.concat(rows_of(it.walls, found)).height == len(alone)
    done = delete_orphans(it.walls, found, max_share=1, on_event=lambda told: None)
    assert (done.deleted, done.spared, done.refused) == (len(alone), 0, ())
    assert it.stored().height == len(theirs)


def test_a_row_that_came_back_in_another_spelling_is_spared(kind: str, it: Things) -> None:
    _, ours, theirs, alone = SPELLINGS[kind]
    found = find_orphans(it.walls, on_event=lambda told: None)
    spelled = {"any letter case": str.upper, "email": str.upper}.get(kind, str)
    it.write_source(*({KEY: f" {spelled(text)}\t", "Text__c": "x"} for text in [*ours, *alone]))

    done = delete_orphans(it.walls, found, max_share=1, on_event=lambda told: None)

    assert (done.deleted, done.spared) == (0, len(alone))
    assert it.stored().height == len(theirs) + len(alone)


def test_a_night_brings_every_row_under_its_key_and_proves_it(kind: str, it: Things) -> None:
    _, ours, theirs, alone = SPELLINGS[kind]
    it.write_source(*({KEY: text, "Text__c": f"new {place}"} for place, text in enumerate(ours)))

    night = it.night()

    measured = night.measurement
    assert measured is not None
    (entry,) = it.walls.book.ranges(night.plan_id)
    refused = sum(text in ("07", "1e3", "8.00") for text in ours)
    assert (entry.counts.updated, entry.counts.created, entry.counts.quarantined) == (len(ours) - refused, 0, refused)
    assert (measured.missing, measured.different, measured.orphans) == (0, 0, len(alone))
    assert it.stored().height == len(theirs) + len(alone)


def test_a_row_that_somebody_changed_is_named_by_its_key_and_mended(kind: str, it: Things) -> None:
    _, ours, theirs, _ = SPELLINGS[kind]
    it.night()
    it.save(pl.DataFrame({KEY: theirs[:1], "Text__c": ["spoilt"]}))

    measured = it.measure()

    assert (measured.missing, measured.different) == (0, 1)
    named = [(row["key"], row["column"], row["present"]) for row in measured.sample if row["finding"] == "different"]
    assert named == [(ours[0].strip(), "Text__c", "spoilt")]


def test_while_a_range_is_not_wholly_read_no_row_is_called_an_orphan(tmp_path: Path) -> None:
    with things(tmp_path, fields=("Text__c",), SYNC_ROWS_PER_RANGE="2") as it:
        it.write_source(*({KEY: key, "Text__c": "x"} for key in ("a", "b", "c", "d", "y", "z")))
        it.night()
        it.save(pl.DataFrame({KEY: ["B2", "nowhere"], "Text__c": ["x", "x"]}))
        night = it.walls.book.newest()
        assert night is not None
        last = it.walls.book.ranges(night.plan_id)[-1]
        assert it.measure().orphans == 2

        it.walls.book.begin_run(night.plan_id, last.partition, pid=1, run_id="", fresh=True)

        assert it.measure().orphans == 0
