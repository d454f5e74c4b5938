"""The rows of the org: a tree of leaves that must behave like one table, whatever is done to it in whatever order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_pipeline.simulated_org import records as records_module
from sync_pipeline.simulated_org.objects import find_object
from sync_pipeline.simulated_org.records import KEY, Records
from sync_pipeline.simulated_org.saving import save_rows
from sync_pipeline.simulated_org.state import Org

HOSTILE = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=8)
KEYS = st.one_of(st.sampled_from([f"k{n}" for n in range(40)]), HOSTILE).map(str.strip).filter(bool)


@pytest.fixture
def org(tmp_path: Path) -> Org:
    return Org(tmp_path / "org")


def opportunities(org: Org) -> Records:
    found = find_object(org, "Opportunity")
    assert found is not None
    return Records(org, found)


def upsert(org: Org, names: dict[str, str]) -> pl.DataFrame:
    sobject = opportunities(org).object
    rows = pl.DataFrame(
        {"External_ID__c": list(names), "Name": list(names.values())},
        schema={"External_ID__c": pl.String, "Name": pl.String},
    ).with_columns(StageName=pl.lit("Qualification"), CloseDate=pl.lit("2026-12-31"))
    return save_rows(org, org.user_id, sobject, "upsert", rows, key_field=sobject.fields["External_ID__c"])


def stored(org: Org) -> dict[str, str]:
    frames = list(opportunities(org).frames(("External_ID__c", "Name")))
    return {key: name for frame in frames for key, name in frame.iter_rows()}


@given(st.lists(st.dictionaries(KEYS, st.sampled_from(["a", "b", "c"]), max_size=30), max_size=6), st.integers(2, 9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_any_upserts_leave_what_a_dictionary_would_hold(
    tmp_path_factory: pytest.TempPathFactory, batches: list[dict[str, str]], leaf_rows: int
) -> None:
    org = Org(tmp_path_factory.mktemp("org"))
    truth: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "LEAF_ROWS", leaf_rows)  # so that few rows make many leaves
        for batch in batches:
            folded = {key.lower(): (key, name) for key, name in batch.items()}
            saved = upsert(org, dict(folded.values()))
            assert saved["error"].null_count() == len(folded)
            assert saved["created"].to_list() == [key not in truth for key in folded]
            truth |= {key: name for key, (_, name) in folded.items()}
        frames = list(opportunities(org).frames((KEY, "Name")))
    held = [row for frame in frames for row in frame.iter_rows()]
    assert held == sorted(truth.items())
    assert len(opportunities(org)) == len(truth)


@given(st.sets(KEYS, min_size=1, max_size=60), KEYS, KEYS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_leaves_that_are_skipped_hold_no_row_of_the_span(
    tmp_path_factory: pytest.TempPathFactory, keys: set[str], one: str, other: str
) -> None:
    org = Org(tmp_path_factory.mktemp("org"))
    after, through = sorted((one.lower(), other.lower()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "LEAF_ROWS", 3)
        upsert(org, {key.lower(): "n" for key in keys})
        frames = list(opportunities(org).frames((KEY,), after=after, through=through))
    found = {key for frame in frames for key in frame[KEY]}
    wanted = {key.lower() for key in keys if after < key.lower() <= through}
    assert wanted <= found


def test_a_second_process_sees_every_commit_and_nothing_else(org: Org) -> None:
    other = Org(org.folder)
    upsert(org, {"a": "one"})

    with org.write() as connection:
        upsert(org, {"b": "two"})
        seen_meanwhile = stored(other)
        connection.rollback()
        connection.execute("BEGIN IMMEDIATE")

    assert seen_meanwhile == stored(org) == stored(other) == {"a": "one"}


def test_a_look_at_all_rows_is_of_one_moment(org: Org, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "LEAF_ROWS", 2)
    keys = [f"{number:03d}" for number in range(0, 400, 10)]
    upsert(org, dict.fromkeys(keys, "old"))
    frames = opportunities(org).frames((KEY, "Name"))

    first = next(frames)
    other = Org(org.folder)
    upsert(other, {f"{number:03d}": "new" for number in range(400)})  # every leaf is split
    other.close()

    assert [row for frame in (first, *frames) for row in frame.iter_rows()] == [(key, "old") for key in keys]
    assert len(stored(org)) == 400


def test_a_version_changes_with_every_commit(org: Org) -> None:
    before = opportunities(org).version
    upsert(org, {"a": "one"})

    assert opportunities(org).version > before


def test_a_field_that_was_added_later_is_empty_in_older_rows(org: Org) -> None:
    upsert(org, {"a": "one"})
    org.set_setting("fields", {"Opportunity.Region__c": {"type": "string", "length": 20}})

    (frame,) = opportunities(org).frames(("External_ID__c", "Region__c"))

    assert frame.rows() == [("a", None)]


def test_fields_that_are_empty_in_some_leaves_only_are_read_from_all_of_them(
    org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_module, "LEAF_ROWS", 1)
    upsert(org, {key: key for key in "abcdefgh"})
    upsert(org, {"c": "other"})

    frames = list(opportunities(org).frames(("External_ID__c", "Name", "Description")))

    rows = [row for frame in frames for row in frame.iter_rows()]
    assert rows == [(key, "other" if key == "c" else key, None) for key in "abcdefgh"]
    assert len(frames) < 8


def test_rows_without_a_key_come_first_and_are_found_by_id(org: Org) -> None:
    sobject = find_object(org, "Account")
    assert sobject is not None
    saved = save_rows(org, org.user_id, sobject, "insert", pl.DataFrame({"Name": ["one", "two"]}))

    found: dict[str, Any] = dict(Records(org, sobject).find_ids(saved["id"]).iter_rows())

    assert set(found) == set(saved["id"])
    assert all(key.startswith("\x00") for key in found.values())
