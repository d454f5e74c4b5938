"""One verb of a range store that is killed at a chosen instant: ``python -m ... FOLDER VERB MOMENT``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sync_pipeline.domain.ledger import Cursor
from sync_pipeline.staging.durable import Disk
from sync_pipeline.staging.range_store import RangeStore
from sync_pipeline_tests.staging.sample import cut, failed, keys, opened, record, rejections, saved

LAST: Final = "after the verb"


class Dying(Disk):
    """A disk during which something happens: ``die`` is told each moment before and after a call, by name."""

    def __init__(self, die: Callable[[str], None]) -> None:
        self._die = die
        self._calls = 0

    def sync_file(self, path: Path) -> None:
        self._around("sync_file", lambda: Disk.sync_file(self, path))

    def sync_folder(self, folder: Path) -> None:
        self._around("sync_folder", lambda: Disk.sync_folder(self, folder))

    def rename(self, old: Path, new: Path) -> None:
        self._around("rename", lambda: Disk.rename(self, old, new))

    def remove(self, path: Path) -> None:
        self._around("remove", lambda: Disk.remove(self, path))

    def _around(self, name: str, call: Callable[[], None]) -> None:
        self._calls += 1
        self._die(f"before {name} {self._calls}")
        call()
        self._die(f"after {name} {self._calls}")


def stage_half(folder: Path) -> None:
    with opened(folder) as store:
        store.add_page(keys("a", "b"), Cursor("b", "q", 2), rejections((1, "TOO_LONG")))


def stage_all(folder: Path) -> None:
    stage_half(folder)
    with opened(folder) as store:
        add_page(store)
        store.finish_reading(4)


def cut_all(folder: Path) -> None:
    stage_all(folder)
    with opened(folder) as store:
        cut_round(store)


def add_page(store: RangeStore) -> None:
    store.add_page(keys("c", "d"), Cursor("d", "q", 4), rejections((0, "TOO_LONG")))


def cut_round(store: RangeStore) -> None:
    cut(store, part_rows=1)


def record_outcomes(store: RangeStore) -> None:
    first = store.parts()[0]
    record(
        store,
        first,
        successes=[saved("a")] if first.number == 1 else [],
        failures=[] if first.number == 1 else [failed("d")],
    )


VERBS: Final[dict[str, tuple[Callable[[Path], None], Callable[[RangeStore], None]]]] = {
    "add_page": (stage_half, add_page),
    "cut_round": (stage_all, cut_round),
    "record_outcomes": (cut_all, record_outcomes),
}
"""By name: what comes before the verb, and the verb."""


def main(folder: str, verb: str, moment: str) -> None:
    def die(now: str) -> None:
        if now == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    before, act = VERBS[verb]
    before(Path(folder))
    store = opened(Path(folder), disk=Dying(die))
    act(store)
    die(LAST)


if __name__ == "__main__":
    main(*sys.argv[1:])
