"""A night ends, whatever lies on the disk: what is damaged is named, nothing is tried for ever, and a new start mends it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from sync_pipeline.domain.errors import SyncError
from sync_pipeline.domain.ledger import RangeState, Verdict
from sync_pipeline.domain.night import NightEntry
from sync_pipeline.engine.night import drive, restart
from sync_pipeline.staging.area import Area
from sync_pipeline_tests.engine.rehearsal import Rehearsal, rehearsal

SMALL = {"rows": 60, "rows_per_range": 20, "page_rows": 10}
"""Three ranges of two pages each."""
LOOKS = 100
"""A night that ends, with every pause of its tries, looks some dozens of times."""


def cut_to(share: float) -> Callable[[Path], None]:
    def cut(catalogue: Path) -> None:
        os.truncate(catalogue, int(catalogue.stat().st_size * share))

    return cut


def flipped(at: float, length: int = 64) -> Callable[[Path], None]:
    def flip(catalogue: Path) -> None:
        content = bytearray(catalogue.read_bytes())
        first = int(len(content) * at)
        content[first : first + length] = bytes(byte ^ 0xFF for byte in content[first : first + length])
        catalogue.write_bytes(content)

    return flip


def emptied(catalogue: Path) -> None:
    catalogue.write_bytes(b"")


def made_a_folder(catalogue: Path) -> None:
    catalogue.unlink()
    catalogue.mkdir()


def made_of_something_else(catalogue: Path) -> None:
    catalogue.write_bytes(b"key,outcome\r\n" * 4096)


def removed(catalogue: Path) -> None:
    catalogue.unlink()


def without_its_pages(catalogue: Path) -> None:
    for page in catalogue.parent.glob("page-*.parquet"):
        page.unlink()


def with_pages_cut_short(catalogue: Path) -> None:
    for page in catalogue.parent.glob("page-*.parquet"):
        os.truncate(page, page.stat().st_size // 2)


def without_its_folder(catalogue: Path) -> None:
    shutil.rmtree(catalogue.parent)


DAMAGES: dict[str, Callable[[Path], None]] = {
    **{f"cut to {share}": cut_to(share) for share in (0.01, 0.3, 0.5, 0.9)},
    **{f"flipped at {at}": flipped(at) for at in (0.0, 0.01, 0.02, 0.4, 0.8)},
    "emptied": emptied,
    "made a folder": made_a_folder,
    "made of something else": made_of_something_else,
    "removed": removed,
    "without its pages": without_its_pages,
    "with pages cut short": with_pages_cut_short,
    "without its folder": without_its_folder,
}


def catalogue_of(r: Rehearsal, place: int) -> Path:
    entry = r.entry(place)
    return r.walls.area.range_folder(r.night.plan_id, entry.partition, entry.generation) / "range.duckdb"


def driven(r: Rehearsal) -> tuple[NightEntry, list[str]]:
    """The night until its end, and what was said; a night that looks too often is one that never ends."""
    said: list[str] = []
    looks = 0

    def count() -> None:
        nonlocal looks
        looks += 1
        assert looks < LOOKS, f"it goes on for ever: {said[-5:]}"

    return drive(r.walls, r.night, on_event=said.append, on_tick=count), said


def refused(r: Rehearsal, place: int) -> None:
    """A range whose first run ends between reading and sending."""

    def refuse(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if request.method == "POST" and request.url.path.endswith("/jobs/ingest"):
            return httpx.Response(400, json=[{"errorCode": "INVALIDJOB", "message": "not now"}], request=request)
        return answer

    r.wire.after = refuse
    with pytest.raises(SyncError):
        r.run(place)
    r.wire.after = lambda request, answer: answer


HOLDER = """
import sys, duckdb
held = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


class Walled(Area):
    """An area in which one range cannot be worked on, whatever the reason, but for the moment when it is given up."""

    def __init__(self, home: Path, partition: str) -> None:
        super().__init__(home)
        self._partition = partition
        self.tries = 0

    @contextmanager
    def lock_range(self, partition: str) -> Iterator[None]:
        if partition == self._partition and self.tries < 3:
            self.tries += 1
            raise OSError(5, "Input/output error")
        with super().lock_range(partition):
            yield


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_night_ends_when_the_state_of_a_finished_range_is_damaged(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    with rehearsal(tmp_path, **SMALL) as r:
        r.run_all()
        damage(catalogue_of(r, 1))

        night, said = driven(r)

        tries = [line for line in said if line.startswith("measuring the org")]
        assert len(tries) <= r.walls.policy.measurements
        if night.verdict is not Verdict.RECONCILED:  # what was flipped may be a part that nothing is read from
            assert night.verdict is Verdict.UNPROVEN
            assert r.partitions[1] in night.verdict_reasons[0]
            assert len([seconds for seconds in r.waiting.waits if seconds > 1]) >= len(tries) - 1


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_night_ends_when_the_state_of_an_unfinished_range_is_damaged(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    with rehearsal(tmp_path, **SMALL) as r:
        refused(r, 1)
        damage(catalogue_of(r, 1))

        night, _ = driven(r)

        entries = r.walls.book.ranges(night.plan_id)
        assert [entry.state for entry in (entries[0], entries[2])] == [RangeState.DONE] * 2
        assert entries[1].runs <= r.walls.policy.range_attempts
        if night.verdict is not Verdict.RECONCILED:  # nothing was lost but what could be read again
            assert night.verdict is Verdict.NOT_RECONCILED
            assert entries[1].state is RangeState.GIVEN_UP
            assert night.verdict_reasons[0].startswith(f"range {r.partitions[1]} is given up: 3 runs failed")
            assert "--fresh" in night.verdict_reasons[0]
            assert night.measurement is not None and night.measurement.missing == 0


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_range_that_is_begun_anew_mends_the_night(tmp_path: Path, is_finished: bool) -> None:
    with rehearsal(tmp_path, **SMALL) as r:
        if is_finished:
            r.run_all()
        else:
            refused(r, 1)
        cut_to(0.5)(catalogue_of(r, 1))
        driven(r)
        restart(r.walls, partitions=[r.partitions[1]])

        night = drive(r.walls, r.night, only=[r.partitions[1]], fresh=True, on_event=lambda line: None)

        assert night.verdict is Verdict.RECONCILED
        assert r.is_equal()


def test_a_catalogue_that_another_program_never_lets_go_of_ends_the_night_too(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **SMALL) as r:
        r.run_all()
        program = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(catalogue_of(r, 1))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert program.stdout is not None and program.stdout.readline()

            night, said = driven(r)

            assert night.verdict is Verdict.UNPROVEN
            assert "Is its range being worked on?" in night.verdict_reasons[0]
            assert len([line for line in said if line.startswith("The measurement waits")]) == 3
        finally:
            program.communicate(b"")


def test_a_run_that_leaves_no_trail_in_the_book_is_given_up_after_its_tries(tmp_path: Path) -> None:
    """Its lock cannot even be taken: where it belongs, something else lies."""
    with rehearsal(tmp_path, **SMALL) as r:
        night = r.night
        lanes = Walled(r.walls.area.home, r.partitions[1])
        r.walls = replace(r.walls, area=lanes)

        night, _ = driven(r)

        entry = r.entry(1)
        assert (entry.state, entry.runs, lanes.tries) == (RangeState.GIVEN_UP, 0, 3)
        assert night.verdict is Verdict.NOT_RECONCILED
