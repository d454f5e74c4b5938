"""Many nights that are killed: ``python -m sync_pipeline_tests.engine.crash_nights --seeds 200``.

Each has other faults and is killed at other instants. With ``--every`` one small night is killed at each of its instants
instead. Says what was seen, and ends with 1 when anything was lost, left open or sent twice.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import tempfile
from pathlib import Path

from sync_pipeline_tests.engine.crashes import (
    POLICY,
    ROWS,
    check,
    killed_at_number,
    made,
    process,
    recorded,
    rehearse,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="nights with faults that are killed at random")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--every", action="store_true", help="kill one small night at each of its instants instead")
    given = parser.parse_args()
    raise SystemExit(1 if (at_every_instant() if given.every else at_random(given.first, given.seeds)) else 0)


def at_random(first: int, seeds: int) -> int:
    """Prints what happened to each night, and returns how many of them lost something."""
    kills = failures = 0
    for number in range(first, first + seeds):
        with tempfile.TemporaryDirectory() as folder:
            try:
                course = rehearse(Path(folder), number)
            except AssertionError as error:
                failures += 1
                print(f"seed {number}: {error}", flush=True)
                continue
        kills += len(course.kills)
        print(f"seed {number}: killed at {course.kills}, faults {course.faults}, {course.runs} runs: equal", flush=True)
    print(f"{seeds} nights, {kills} kills, {failures} of them lost something")
    return failures


def at_every_instant() -> int:
    """The same for one night from its plan to its verdict, once for each instant."""
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        seeded = made(Path(folder) / "seeded", rows=ROWS)
        names = Path(folder) / "names"
        whole = shutil.copytree(seeded, Path(folder) / "whole")
        if process(recorded, str(whole), POLICY, str(names)) != 0:
            raise AssertionError("the night does not end even when nobody kills it")
        for number, name in enumerate(names.read_text().splitlines(), start=1):
            night = shutil.copytree(seeded, Path(folder) / str(number))
            try:
                if process(killed_at_number, str(night), POLICY, number) != -signal.SIGKILL:
                    raise AssertionError("it was not killed")
                if process(killed_at_number, str(night), POLICY, 0) != 0:
                    raise AssertionError("it does not end")
                check(night, POLICY, sent_once=True)
            except AssertionError as error:
                failures += 1
                print(f"{number} {name}: {error}", flush=True)
            shutil.rmtree(night)
        print(f"killed at each of {number} instants, {failures} of the nights lost something")
    return failures


if __name__ == "__main__":
    main()
