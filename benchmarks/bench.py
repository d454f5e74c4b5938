"""What every part of the benchmark is given, and what a part is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.org import Orgs, Served
from benchmarks.process import Process, Run, run
from benchmarks.sheet import Sheet

RANGES = 10
MEGABYTE = 1e6


@dataclass
class Bench:
    """``rows`` of the source in so many ``ranges``, and a ``folder`` for everything that is made on the way. ``large``:
    also the sizes that take long."""

    folder: Path
    rows: int
    ranges: int = RANGES
    large: bool = False
    orgs: Orgs = field(init=False)
    _places: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self.orgs = Orgs(self.folder / "orgs")

    @property
    def millions(self) -> float:
        return self.rows / 1e6

    def place(self, name: str) -> Path:
        """A new folder."""
        self._places += 1
        folder = self.folder / f"{self._places:04d}-{name}"
        folder.mkdir(parents=True)
        return folder

    def clear(self) -> None:
        """Frees the disk of what the last round made; what all rounds share stays."""
        for folder in [*self.folder.glob("[0-9]*"), *self.orgs.folder.glob("copy-*")]:
            shutil.rmtree(folder)

    def settings(self, served: Served, home: Path, *, rows: int, ranges: int | None = None) -> dict[str, str]:
        """The settings of a night of that org, its state in ``home``."""
        per_range = max(-(-rows // (ranges or self.ranges)), 1)
        return {**served.settings, "SYNC_HOME": str(home), "SYNC_ROWS_PER_RANGE": str(per_range)}


@dataclass(frozen=True)
class Part:
    """A part of the benchmark. ``play`` is one round of it; ``figures`` are those of its medians that have a target.

    ``rounds`` is how often it is played at most, for a part whose rounds take long or differ little.
    """

    name: str
    title: str
    play: Callable[[Bench], Sheet]
    figures: Callable[[Sheet], Mapping[str, float]]
    rounds: int = 99
    bars: Sequence[str] = ()
    """Columns that are shown as bars besides."""


def sync(settings: Mapping[str, str], *, place: Path, arguments: Sequence[str] = ()) -> tuple[Run, dict[str, Any]]:
    """One ``sync-pipeline sync`` that ends well, and the document that it prints."""
    done = run(["-m", "sync_pipeline", "sync", "--json", "--quiet", *arguments], folder=place, settings=settings)
    return done, json.loads(done.out)


def started(settings: Mapping[str, str], *, place: Path) -> Process:
    """A ``sync-pipeline sync`` on its way."""
    return Process(["-m", "sync_pipeline", "sync", "--json", "--quiet"], folder=place, settings=settings)
