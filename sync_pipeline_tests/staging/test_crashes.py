"""A process that dies at any instant leaves a range as it was before the verb or as it is after it, never in between."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sync_pipeline.domain.ledger import Counts, Cursor
from sync_pipeline.staging.range_store import RangeStore
from sync_pipeline_tests.staging.dying import LAST, VERBS, Dying
from sync_pipeline_tests.staging.sample import failed, fates, files, opened, record, saved, sent_keys

PROJECT = Path(__file__).parents[2]
PAGES = {"page-000001.parquet", "page-000002.parquet"}
PARTS = {f"part-0000{number}.{kind}" for number in (1, 2) for kind in ("csv", "parquet")}

COMMITTED_AFTER = {
    "add_page": "after sync_folder 3",
    "cut_round": "after sync_folder 7",
    "record_outcomes": "after sync_folder 3",
}
"""The moment right before the commit of each verb: from the next one on its work is kept."""


class Death(BaseException):
    """The process ends here, as far as the store can tell."""


def moments(folder: Path, verb: str) -> list[str]:
    """Every moment of the verb, in order."""
    seen: list[str] = []
    before, act = VERBS[verb]
    before(folder)
    with opened(folder, disk=Dying(seen.append)) as store:
        seen.clear()  # what opening did
        act(store)
    return [*seen, LAST]


def check(folder: Path, verb: str, *, is_done: bool) -> None:
    """The range is as before or after the verb, holds no stray file, and its work can be finished."""
    with opened(folder) as store:
        match verb:
            case "add_page":
                assert (store.cursor, store.staged) == (
                    (Cursor("d", "q", 4), 4) if is_done else (Cursor("b", "q", 2), 2)
                )
                assert files(folder) == (PAGES if is_done else {"page-000001.parquet"})
                assert store.counts(4).quarantined == (2 if is_done else 1)
            case "cut_round":
                assert (store.rounds, len(store.parts())) == ((1, 2) if is_done else (0, 0))
                assert files(folder) == (PAGES | PARTS if is_done else PAGES)
            case "record_outcomes":
                assert [part.number for part in store.parts()] == ([2] if is_done else [1, 2])
                kept = (
                    PARTS - {"part-00001.csv", "part-00001.parquet"} | {"outcome-00001.parquet"} if is_done else PARTS
                )
                assert files(folder) == PAGES | kept
                assert store.counts(4).succeeded == is_done
        finish(store)


def finish(store: RangeStore) -> None:
    add_page, cut_round = VERBS["add_page"][1], VERBS["cut_round"][1]
    if store.staged == 2:
        add_page(store)
    if not store.is_read:
        store.finish_reading(4)
    if store.rounds == 0:
        cut_round(store)
    for part in store.parts():
        if sent_keys(store, part) == ["a"]:
            record(store, part, successes=[saved("a")])
        else:
            record(store, part, failures=[failed("d")])
    assert store.counts(4) == Counts(expected=4, staged=4, created=1, failed=1, quarantined=2)
    assert fates(store) == {0: "succeeded", 1: "quarantined", 2: "quarantined", 3: "failed"}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_ends_at_any_moment_is_done_or_was_never_begun(tmp_path: Path, verb: str) -> None:
    every = moments(tmp_path / "whole", verb)
    assert COMMITTED_AFTER[verb] in every
    for number, moment in enumerate(every):
        folder = tmp_path / str(number)
        before, act = VERBS[verb]
        before(folder)

        def die(now: str, moment: str = moment) -> None:
            if now == moment:
                raise Death

        store = opened(folder)
        store._disk = Dying(die)
        try:
            act(store)
        except Death:
            pass
        finally:
            store.close()
        check(folder, verb, is_done=number > every.index(COMMITTED_AFTER[verb]))


@pytest.mark.parametrize(
    ("verb", "moment"),
    [
        ("add_page", "before rename 2"),
        ("add_page", "after sync_folder 3"),
        ("add_page", LAST),
        ("cut_round", "before rename 4"),
        ("cut_round", "after sync_folder 7"),
        ("cut_round", LAST),
        ("record_outcomes", "before sync_folder 3"),
        ("record_outcomes", "after sync_folder 3"),
        ("record_outcomes", "before remove 4"),
        ("record_outcomes", "before remove 5"),
    ],
)
def test_a_process_killed_in_the_midst_loses_nothing_that_was_committed(tmp_path: Path, verb: str, moment: str) -> None:
    folder = tmp_path / "range"
    killed = subprocess.run(
        [sys.executable, "-m", "sync_pipeline_tests.staging.dying", str(folder), verb, moment], cwd=PROJECT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    every = moments(tmp_path / "whole", verb)
    check(folder, verb, is_done=every.index(moment) > every.index(COMMITTED_AFTER[verb]))
