"""Killed between any two acts, a night goes on where it was: every row accounted for, no finished part sent again."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from sync_pipeline_tests.engine.crashes import (
    POLICY,
    ROWS,
    check,
    killed_at_name,
    killed_at_number,
    made,
    plan,
    process,
    rehearse,
)

PLANNING = (
    "after describe 1",
    "after query 1",
    "after query 3",
    "after limits 1",
    "before write duplicates.parquet 1",
    "before rename duplicates.parquet 1",
    "after sync_folder 1",  # the list of doubles is durable, and no book speaks of the night yet
)
READING = (
    "after query 2",
    "before write page-000001.parquet 1",
    "before sync_file page-000001.parquet.tmp 1",
    "before rename page-000001.parquet 1",
    "before sync_folder 1",
    "after sync_folder 1",  # the page is durable and not committed
    "before rows 1",  # the page is committed
    "after rows 1",
    "before rename page-000002.parquet 1",
    "after drop 2",  # every page is committed, and the range is not known to be whole
)
CUTTING = (
    "before rename part-00001.csv 1",
    "before write part-00001.parquet 1",
    "before sync_file part-00002.parquet.tmp 1",
    "before sync_folder 3",
    "after sync_folder 3",  # the round is durable and not committed
)
HANDING_OVER = (
    "before create 1",  # the intent is in the book
    "after create 1",  # the job is in no entry
    "before upload 1",
    "after upload 1",
    "before close 1",
    "after close 1",
    "before create 2",
    "after create 2",
    "after close 2",
    "before jobs 1",
)
ACCOUNTING = (
    "after jobs 1",
    "before results 1",
    "inside results 1",
    "after results 3",
    "before write outcome-00001.parquet 1",
    "before rename outcome-00001.parquet 1",
    "before sync_folder 4",
    "after sync_folder 4",  # the outcomes are durable and not committed
    "before remove part-00001.csv 1",  # they are committed, and the book does not know
    "before remove part-00001.parquet 1",
    "after remove part-00001.parquet 1",
    "after results 6",
)
MEASURING = (
    "before describe 2",
    "after query_job 1",
    "after query_results 1",
    "after soql 1",
    "before write 000001-night.json 1",
    "after rename 000001-night.json 1",
)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An org of one range of two pages and two parts, and no night."""
    return made(tmp_path_factory.mktemp("seeded"), rows=ROWS)


@pytest.fixture(scope="module")
def planned(seeded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a night for which nothing was done."""
    folder = tmp_path_factory.mktemp("planned") / "copy"
    shutil.copytree(seeded, folder)
    assert process(plan, str(folder), POLICY) == 0
    return folder


@pytest.mark.parametrize("edge", PLANNING)
def test_a_night_killed_while_it_is_planned_is_planned_again(tmp_path: Path, seeded: Path, edge: str) -> None:
    kill_and_go_on(shutil.copytree(seeded, tmp_path / "night"), edge)


@pytest.mark.parametrize("edge", [*READING, *CUTTING, *HANDING_OVER, *ACCOUNTING, *MEASURING])
def test_a_night_killed_at_any_edge_goes_on_from_its_ledger(tmp_path: Path, planned: Path, edge: str) -> None:
    kill_and_go_on(shutil.copytree(planned, tmp_path / "night"), edge)


def test_a_night_killed_again_and_again_still_ends(tmp_path: Path, planned: Path) -> None:
    folder = shutil.copytree(planned, tmp_path / "again")
    for edge in ("after create 1", "after upload 1", "after close 1", "inside results 1", "after create 1"):
        assert process(killed_at_name, str(folder), POLICY, edge) == -signal.SIGKILL, edge
    assert process(killed_at_number, str(folder), POLICY, 0) == 0
    check(folder, POLICY, sent_once=True)


@pytest.mark.parametrize("seed", range(20))
def test_a_night_with_faults_that_is_killed_at_random_ends_equal(tmp_path: Path, seed: int) -> None:
    rehearse(tmp_path, seed)


def kill_and_go_on(folder: Path, edge: str) -> None:
    assert process(killed_at_name, str(folder), POLICY, edge) == -signal.SIGKILL, f"there is no {edge!r}"
    assert process(killed_at_number, str(folder), POLICY, 0) == 0, edge
    check(folder, POLICY, sent_once=True)
