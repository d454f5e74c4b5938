"""A range that meets a really full disk: ``unshare -Urm python -m sync_pipeline_tests.engine.full_disk FOLDER``.

SYNC_HOME gets a disk of its own, which is filled to its last byte at some instant of a run. Somebody makes room when the
pipeline waits for it, or once the night is parked.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from sync_pipeline.domain.errors import Parked
from sync_pipeline.domain.ledger import Counts, RangeState
from sync_pipeline.engine.range_run import FULL_DISK_PAUSE
from sync_pipeline.staging.durable import Disk
from sync_pipeline_tests.engine.rehearsal import rehearsal

log = logging.getLogger(__name__)

SIZE = "24m"
INSTANTS = {
    "nothing has been done yet": "",
    "a page is on its way": "POST /query-sql",
    "a page is written, the catalogue does not know it yet": "write page-000001.parquet",
    "the first part is written": "write part-00001.parquet",
    "a job is being created": "POST /jobs/ingest",
    "the rows are being uploaded": "PUT /batches",
    "results are on their way": "GET /successfulResults",
    "outcomes are written, the catalogue does not know them yet": "write outcome-00001.parquet",
}
"""When the disk is filled: before the run, as a request sets out, or as a file is written."""


class Filling(Disk):
    """A disk that somebody fills up right after a file was written."""

    def __init__(self, filler: Path, instant: str) -> None:
        self.filler = filler
        self.instant = instant

    def write(self, path: Path, content: bytes | memoryview) -> None:
        super().write(path, content)
        if f"write {path.name}" == self.instant:
            fill_up(self.filler)


def main(folder: str) -> None:
    for number, (what, instant) in enumerate(INSTANTS.items()):
        place = Path(folder) / str(number)
        (place / "home").mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place / "home")], check=True)
        meet(place, instant)
        print(f"{what}: parked, then all saved")


def meet(place: Path, instant: str) -> None:
    filler = place / "home" / "filler"
    disk = Filling(filler, instant)
    with rehearsal(place, rows=400, rows_per_range=400, part_rows=200, page_rows=200, disk=disk) as r:
        assert r.night

        def fill(request: httpx.Request) -> None:
            method, _, ending = instant.partition(" ")
            if method and request.method == method and request.url.path.endswith(ending):
                fill_up(filler)

        class Waits(list[float]):
            """Somebody makes room after a while."""

            def append(self, seconds: float) -> None:
                super().append(seconds)
                if seconds == FULL_DISK_PAUSE and self.count(seconds) == 3:
                    filler.unlink()

        r.waiting.waits = Waits()
        r.wire.before = fill
        if not instant:
            fill_up(filler)
        with pytest.raises(Parked, match=r"The disk .*(has no room|more bytes free)") as parked:
            r.run()
        log.info("%s: %s", instant, parked.value.message)

        assert (r.entry().state, r.entry().attempts) == (RangeState.PARKED, 0)
        assert not list((place / "home").rglob("*.tmp"))
        filler.unlink(missing_ok=True)
        disk.instant = "never"
        r.wire.before = lambda request: None
        assert replace(r.run().counts, created=400, updated=0) == Counts(expected=400, staged=400, created=400)
        assert r.is_equal()
        assert r.open_jobs() == []


def fill_up(filler: Path) -> None:
    """Takes every byte that is left."""
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    main(*sys.argv[1:])
