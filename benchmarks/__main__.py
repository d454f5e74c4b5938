"""Figures of this project beside their targets: ``python -m benchmarks [--rows N] [--rounds R] [--only NAME ...]``.

Each part plays rounds, in which whatever is compared runs side by side, and tells the medians of its rounds. A round in
which others used more than 15 % of the machine is dropped and played again, up to twice as many in all. CPU seconds
count first: walls swing with the machine. The table of targets comes at the end, everything else as JSON with ``--json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import dagster_cost, measurement, night, paced, peer, resumption, scaling, staging
from benchmarks.bench import Bench, Part
from benchmarks.machine import QUIET_SHARE, STAT, described
from benchmarks.process import Failed
from benchmarks.rounds import Rounds, played
from benchmarks.sheet import Sheet, bars, lines
from benchmarks.targets import TARGETS, judged

PARTS = (
    night.PART,
    measurement.PART,
    resumption.PART,
    peer.PART,
    staging.PART,
    paced.PART,
    dagster_cost.PART,
    scaling.PART,
)
ROWS = 2_000_000
ROUNDS = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when every part could be measured, whatever its figures are."""
    given = _parser().parse_args(argv)
    chosen = [part for part in PARTS if part.name in given.only] if given.only else list(PARTS)
    rounds: dict[str, Rounds] = {}
    failures: dict[str, str] = {}
    _tell(f"{given.rows:,} rows, {given.rounds} rounds, {described()}")
    if not STAT.exists():
        _tell("What others use of this machine cannot be told here, so no round is dropped.")
    with tempfile.TemporaryDirectory(prefix="sync-pipeline-bench-", dir=given.folder) as folder:
        bench = Bench(Path(folder), given.rows, large=given.large)
        for part in chosen:
            try:
                rounds[part.name] = _played(part, bench, given.rounds)
            except Failed as error:
                failures[part.name] = f"{error}"
                _tell(f"{part.name} could not be measured: {error}")
    figures, doubtful = _figures(chosen, rounds)
    print("\n" + "\n".join(judged(figures, doubtful)))
    if given.json is not None:
        document = _document(given.rows, rounds, figures, doubtful, failures)
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Figures beside their targets.")
    names = [part.name for part in PARTS]
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"rows of the source, default {ROWS}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="R", help=f"quiet rounds, default {ROUNDS}")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some parts: {', '.join(names)}")
    parser.add_argument("--large", action="store_true", help="also a night of 5 times the rows")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="on a disk, for everything that is made; default where such files go"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured to this file")
    return parser


def _played(part: Part, bench: Bench, wanted: int) -> Rounds:
    """All rounds of one part, and its table."""
    _tell(f"\n{part.title} ({part.name})")
    started = time.monotonic()

    def play() -> Sheet:
        try:
            return part.play(bench)
        finally:
            bench.clear()

    rounds = played(play, wanted=min(wanted, part.rounds), say=_tell)
    print("\n".join(lines(rounds.sheet)))
    for column in part.bars:
        print("\n".join(bars(rounds.sheet, column)))
    _tell(f"{time.monotonic() - started:.0f} s")
    return rounds


def _figures(parts: Sequence[Part], rounds: Mapping[str, Rounds]) -> tuple[dict[str, float], frozenset[str]]:
    """The figures that have a target, and those of them that others spoiled."""
    figures: dict[str, float] = {}
    doubtful: set[str] = set()
    for part in parts:
        if part.name in rounds:
            found = part.figures(rounds[part.name].sheet)
            figures |= found
            doubtful |= set(found) if not rounds[part.name].is_quiet else set()
    return figures, frozenset(doubtful)


def _document(
    rows: int,
    rounds: Mapping[str, Rounds],
    figures: Mapping[str, float],
    doubtful: frozenset[str],
    failures: Mapping[str, str],
) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "rows": rows,
        "machine": described(),
        "quiet_share": QUIET_SHARE,
        "targets": [
            asdict(target) | {"value": figures.get(target.figure), "is_doubtful": target.figure in doubtful}
            for target in TARGETS
        ],
        "parts": {
            name: {
                "median": part.sheet,
                "rounds": [asdict(one) | {"is_counted": one in part.counted} for one in part.played],
            }
            for name, part in rounds.items()
        },
        "failures": dict(failures),
    }


def _tell(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
