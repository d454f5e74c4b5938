"""Times one night through the command line: ``python -m benchmarks --rows N``.

What is measured is the process of ``sync-pipeline sync`` on the simulated org, from its start to its end: wall time,
CPU time of user and system, and the largest resident memory. The simulated org works inside of that process, so its
parsing, storing and querying is a part of all three figures; a night on a real org spends none of that here, but waits
for the network and for the org. Rows are made before, in a process of their own that is not counted.

The table goes to stderr, one JSON document to stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
OURS = ("SYNC_", "SALESFORCE_", "DATA_CLOUD_")


@dataclass(frozen=True, slots=True)
class Measured:
    """One process. ``peak_bytes`` is its largest resident memory."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Night:
    """What one night of ``rows`` rows took."""

    rows: int
    kind: str
    exit_code: int
    verdict: str
    measured: Measured

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.measured.wall_seconds


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when every night was reconciled."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Times nights on the simulated org.")
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the source, default 200000")
    rows: int = parser.parse_args(argv).rows
    # In a folder of its own, because a `.env` of the project may name a real org.
    with tempfile.TemporaryDirectory(prefix="sync-pipeline-bench-") as folder, contextlib.chdir(folder):
        nights = [first_night(rows, Path(folder)), next_night(rows, Path(folder))]
    print_table(nights)
    json.dump(
        {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "includes_simulated_org": True,
            "nights": [asdict(night) | {"rows_per_second": round(night.rows_per_second)} for night in nights],
        },
        sys.stdout,
        indent=2,
    )
    print()
    return max(night.exit_code for night in nights)


def first_night(rows: int, folder: Path) -> Night:
    """Every row is created."""
    seed(rows, folder)
    return night(rows, "first: all rows created", folder)


def next_night(rows: int, folder: Path) -> Night:
    """Every row is sent once more; 2 % of them have changed."""
    seed(rows, folder, "--next-night")
    return night(rows, "next: all rows updated", folder)


def seed(rows: int, folder: Path, *options: str) -> None:
    """Makes the rows of the source, or changes some of them."""
    _, exit_code, _ = run(["org", "seed", "--quiet", "--rows", str(rows), *options], folder)
    if exit_code != 0:
        sys.exit(f"The simulated org could not be filled (exit code {exit_code}).")


def night(rows: int, kind: str, folder: Path) -> Night:
    """One ``sync`` as a process of its own."""
    measured, exit_code, out = run(["sync", "--json", "--quiet"], folder)
    verdict = json.loads(out).get("verdict") if out else None
    return Night(rows=rows, kind=kind, exit_code=exit_code, verdict=verdict or "none", measured=measured)


def run(arguments: list[str], folder: Path) -> tuple[Measured, int, str]:
    """Runs the command in ``folder`` with its state there; returns what it took, its exit code and its stdout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment |= {"SYNC_HOME": str(folder / "home"), "PYTHONPATH": str(PROJECT)}
    output = folder / "stdout"
    started = time.perf_counter()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "sync_pipeline", *arguments],
        environment,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)],
    )
    _, status, usage = os.wait4(pid, 0)  # of this child alone, unlike getrusage(RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    measured = Measured(
        wall_seconds=round(time.perf_counter() - started, 3),
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 3),
        peak_bytes=usage.ru_maxrss * unit,
    )
    return measured, os.waitstatus_to_exitcode(status), output.read_text(encoding="utf-8")


def print_table(nights: list[Night]) -> None:
    """For people."""
    print(
        f"{'night':<26}{'rows':>12}{'wall s':>10}{'rows/s':>10}{'CPU s':>10}{'peak MB':>10}  verdict", file=sys.stderr
    )
    for row in nights:
        took = row.measured
        print(
            f"{row.kind:<26}{row.rows:>12,}{took.wall_seconds:>10.1f}{row.rows_per_second:>10,.0f}"
            f"{took.cpu_seconds:>10.1f}{took.peak_bytes / 1e6:>10.0f}  {row.verdict}",
            file=sys.stderr,
        )
    print("CPU and memory include the simulated org, which works inside of the same process.", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
