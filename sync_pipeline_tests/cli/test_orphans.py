"""The verb orphans: it deletes nothing by itself, nothing in a night, and nothing that the source has."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from sync_pipeline.engine.night import open_night
from sync_pipeline.simulated_org.records import Records
from sync_pipeline_tests.cli.conftest import Run
from sync_pipeline_tests.engine.witness import World, row, rows, world


@pytest.fixture
def it(home: Path, tmp_path: Path) -> Iterator[World]:
    """Ten rows that a night has brought into the org, beside two of the org's own."""
    with world(tmp_path, rows(*(f"key{number}" for number in range(10)))) as made:
        made.night()
        made.add_to_org("theirs", "theirs, too")
        yield made


def keys_in(records: Records) -> list[str]:
    return sorted(key for frame in records.frames(("External_ID__c",)) for key in frame["External_ID__c"])


def test_orphans_are_counted_and_shown_and_left_alone(run: Run, it: World) -> None:
    ran = run("orphans")

    assert ran.code == 0
    assert "2 of 12 rows with a key are only in the org (16.67%)." in ran.out
    assert "theirs, too" in ran.out and it.org.admin_id in ran.out
    assert len(it.records()) == 12


def test_all_of_them_go_into_a_file(run: Run, it: World, tmp_path: Path) -> None:
    run("orphans", "--csv", str(tmp_path / "orphans.csv"))

    with (tmp_path / "orphans.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert [r["External_ID__c"] for r in listed] == ["theirs", "theirs, too"]
    assert all(r["Id"].startswith("006") and r["LastModifiedById"] == it.org.admin_id for r in listed)


def test_without_a_yes_it_only_says_what_it_would_delete(run: Run, it: World) -> None:
    ran = run("orphans", "--delete", "--max-share", "0.5")

    assert (ran.code, "2 rows would be deleted" in ran.out) == (0, True)
    assert len(it.records()) == 12


def test_with_a_yes_exactly_the_orphans_are_deleted_and_their_values_are_kept(run: Run, it: World) -> None:
    ran = run("orphans", "--delete", "--max-share", "0.5", "--yes")

    assert (ran.code, "2 rows were deleted" in ran.out) == (0, True)
    assert keys_in(it.records()) == [f"key{number}" for number in range(10)]
    (archive,) = (it.home / "deleted").iterdir()
    assert pl.read_csv(archive)["External_ID__c"].to_list() == ["theirs", "theirs, too"]
    assert archive.stat().st_mode & 0o777 == 0o600


def test_a_larger_share_than_allowed_is_refused(run: Run, it: World) -> None:
    ran = run("orphans", "--delete", "--yes")

    assert ran.code == 1
    assert "2 of 12 rows are only in the org; that is more than a share of 0.01." in ran.err
    assert len(it.records()) == 12


def test_a_source_that_lost_its_rows_does_not_empty_the_org(run: Run, it: World) -> None:
    it.write_source([])

    ran = run("orphans", "--delete", "--yes")

    assert ran.code == 1
    assert len(it.records()) == 12


def test_a_row_that_the_source_has_and_could_not_send_is_no_orphan(run: Run, it: World) -> None:
    it.add_to_source(row("theirs", Amount__c="many"), row(" THEIRS, TOO "))

    ran = run("orphans")

    assert "0 of 12 rows with a key are only in the org" in ran.out


def test_nothing_is_deleted_in_a_night(run: Run, it: World) -> None:
    open_night(it.walls, rearm=True)

    ran = run("orphans", "--delete", "--max-share", "0.5", "--yes")

    assert ran.code == 1
    assert "is unfinished; nothing is deleted in a night" in ran.err
    assert len(it.records()) == 12


def test_nothing_is_deleted_while_somebody_works_on_a_range(run: Run, it: World) -> None:
    (entry,) = it.ranges()

    with it.walls.area.lock_range(entry.partition):
        ran = run("orphans", "--delete", "--max-share", "0.5", "--yes")

    assert ran.code == 1
    assert "being worked on" in ran.err
    assert len(it.records()) == 12


def test_rows_that_the_org_refuses_to_delete_are_named(run: Run, it: World) -> None:
    it.fault("row_errors share=0.999999 code=DELETE_FAILED message='in use'")

    ran = run("orphans", "--delete", "--max-share", "0.5", "--yes")

    assert ran.code == 1
    assert ran.out.count("DELETE_FAILED:in use") == 2
    assert "0 rows were deleted" in ran.out and "2 rows were not deleted." in ran.out


def test_before_the_first_night_it_works_as_well(run: Run, home: Path, tmp_path: Path) -> None:
    with world(tmp_path, rows("a")) as made:
        made.add_to_org("theirs")

        ran = run("orphans", "--delete", "--max-share", "1", "--yes")

        assert (ran.code, keys_in(made.records())) == (0, [])
