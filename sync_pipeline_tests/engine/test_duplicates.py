"""Rows the target would match as one: one is sent only when a declared rule or equality says which."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from sync_pipeline.domain.errors import StateError
from sync_pipeline.domain.keys import KeyRange
from sync_pipeline.domain.mapping import load_mapping
from sync_pipeline.engine.duplicates import FILE, SCHEMA, groups_in, judge, write_groups

MAPPING = load_mapping(Path(__file__).parents[2] / "sync_pipeline" / "opportunity.toml")
WITH_TIE = replace(MAPPING, tie_breaker="Changed__c")
NO_GROUPS = pl.DataFrame(schema={"key": pl.String, "keys": pl.UInt32, "best": pl.String, "best_keys": pl.UInt32})


def page(*rows: tuple[str | None, str, str]) -> pl.DataFrame:
    """Rows of (key, name, changed at), in key order as the source sends them."""
    return pl.DataFrame(
        [
            {
                "ExternalId__c": key,
                "Name__c": name,
                "StageName__c": "Prospecting",
                "Amount__c": "1",
                "CloseDate__c": "2026-01-31",
                "Account__c": None,
                "Changed__c": changed,
            }
            for key, name, changed in rows
        ],
        schema_overrides={"ExternalId__c": pl.String, "Account__c": pl.String},
    )


def judged(frame: pl.DataFrame, mapping=MAPPING, groups: pl.DataFrame = NO_GROUPS) -> dict[int, str]:
    return {row["index"]: row["code"] for row in judge(frame, mapping, groups).iter_rows(named=True)}


def known(
    folder: Path, *groups: tuple[str, str, str | None], best: str | None, key_range: KeyRange | None = None
) -> pl.DataFrame:
    """What the plan's statement found of one group: (key, matched, latest tie-breaker), and the latest of them all."""
    rows = [(key, matched, 1, tie, best) for key, matched, tie in groups]
    write_groups(pl.DataFrame(rows, schema=SCHEMA, orient="row"), folder)
    return groups_in(folder, key_range or KeyRange())


def test_a_page_without_equal_keys_loses_nothing() -> None:
    assert judged(page(("a", "1", "1"), ("b", "1", "1"), (None, "1", "1"), (None, "1", "1"))) == {}


def test_of_equal_rows_one_is_sent_and_the_others_are_set_aside() -> None:
    found = judge(page(("a", "x", "1"), ("b", "x", "1"), ("b", "x", "1"), ("b", "x", "1")), MAPPING, NO_GROUPS)
    assert dict(zip(found["index"], found["code"], strict=True)) == {2: "EQUAL_DUPLICATE", 3: "EQUAL_DUPLICATE"}
    assert found["set_aside"].all()


def test_different_rows_with_one_key_are_all_quarantined() -> None:
    found = judge(page(("a", "x", "1"), ("a", "y", "2"), ("b", "x", "1")), MAPPING, NO_GROUPS)
    assert dict(zip(found["index"], found["code"], strict=True)) == {0: "DUPLICATE_KEY", 1: "DUPLICATE_KEY"}
    assert not found["set_aside"].any()


def test_a_declared_tie_breaker_sends_the_latest_row(tmp_path: Path) -> None:
    groups = known(tmp_path, ("a", "a", "9"), best="9")
    frame = page(("a", "old", "10"), ("a", "new", "9"), ("a", "new", "9"))
    # Text is never compared for its order: the source said which is the latest.
    assert judged(frame, WITH_TIE, groups) == {0: "TIE_BREAKER_LOSER", 2: "EQUAL_DUPLICATE"}


def test_two_latest_rows_that_differ_send_none(tmp_path: Path) -> None:
    groups = known(tmp_path, ("a", "a", "9"), best="9")
    assert judged(page(("a", "x", "9"), ("a", "y", "9")), WITH_TIE, groups) == {0: "DUPLICATE_KEY", 1: "DUPLICATE_KEY"}


def test_keys_that_only_the_target_takes_for_one_are_found_in_any_range(tmp_path: Path) -> None:
    groups = known(tmp_path, ("ABC", "abc", None), ("abc", "abc", None), best=None, key_range=KeyRange("ABC", None))
    assert groups["key"].to_list() == ["abc"]
    assert judged(page(("abc", "x", "1"), ("abd", "x", "1")), MAPPING, groups) == {0: "DUPLICATE_KEY"}


def test_across_keys_the_tie_breaker_decides_when_one_key_has_the_latest(tmp_path: Path) -> None:
    groups = known(tmp_path, ("ABC", "abc", "1"), ("abc", "abc", "2"), best="2")
    assert judged(page(("ABC", "x", "1"), ("abc", "x", "2")), WITH_TIE, groups) == {0: "TIE_BREAKER_LOSER"}
    level = known(tmp_path, ("ABC", "abc", "2"), ("abc", "abc", "2"), best="2")
    assert judged(page(("ABC", "x", "2"), ("abc", "x", "2")), WITH_TIE, level) == {
        0: "DUPLICATE_KEY",
        1: "DUPLICATE_KEY",
    }


def test_the_latest_of_several_keys_is_the_one_the_source_names_and_never_that_of_the_texts(tmp_path: Path) -> None:
    groups = known(tmp_path, ("ABC", "abc", "10"), ("abc", "abc", "9"), best="10")
    assert judged(page(("ABC", "x", "10"), ("abc", "x", "9")), WITH_TIE, groups) == {1: "TIE_BREAKER_LOSER"}


def test_groups_that_an_older_version_wrote_without_a_tie_breaker_are_set_aside_as_ever(tmp_path: Path) -> None:
    known(tmp_path, ("a", "a", None), ("A", "a", None), best=None)
    pl.read_parquet(tmp_path / FILE).drop("best").write_parquet(tmp_path / FILE)

    assert set(judged(page(("a", "x", None), ("A", "x", None)), groups=groups_in(tmp_path, KeyRange())).values()) == {
        "DUPLICATE_KEY"
    }


def test_groups_that_an_older_version_wrote_are_not_guessed_at(tmp_path: Path) -> None:
    known(tmp_path, ("a", "a", "9"), best="9")
    pl.read_parquet(tmp_path / FILE).drop("best").write_parquet(tmp_path / FILE)

    with pytest.raises(StateError, match="cannot be read") as refusal:
        groups_in(tmp_path, KeyRange())

    assert "--fresh" in refusal.value.hint
