"""What the figures are held against: every measure that has a target, with its target and its stretch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.sheet import aligned


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table; ``figure`` is the name under which a part gives it. Less is better in every line."""

    figure: str
    measure: str
    unit: str
    target: float
    stretch: float | None = None


TARGETS = (
    Target("cpu_json", "client CPU per 1 M rows, JSON", "s", 5.0, 3.5),
    Target("cpu_arrow", "client CPU per 1 M rows, Arrow", "s", 4.0, 2.5),
    Target("wall_json", "wall ÷ floor, JSON", "", 2.0, 1.3),
    Target("wall_arrow", "wall ÷ floor, Arrow", "", 1.7, 1.2),
    Target("peak", "peak memory of a night, measured by value", "MB", 300, 200),
    Target("growth", "peak memory with 5 times the rows ÷ with the rows", "", 1.2, 1.05),
    Target("staging_cpu", "staging and ledger beyond rendering CSV, 12 columns", "µs/row", 1.2, 0.5),
    Target("commit_p50", "page commit of 10,000 rows, median", "ms", 15, 10),
    Target("commit_max", "page commit of 10,000 rows, longest", "ms", 50, 20),
    Target("calls_json", "API calls per 1 M rows, JSON (Connect)", "", 200, 120),
    Target("calls_arrow", "API calls per 1 M rows, Arrow (V3)", "", 100, 60),
    Target("polls", "looks at jobs per minute, paced org", "", 4, 2),
    Target("measure_cpu", "measuring by value, CPU per 1 M rows", "s", 2.0, 1.2),
    Target("peer_cpu", "CPU ÷ simple-salesforce, upload and results", "", 0.15, 0.09),
    Target("peer_peak", "memory ÷ simple-salesforce, upload and results", "", 0.3),
    Target("paced_wall", "wall ÷ best possible schedule, paced org", "", 1.05, 1.02),
    Target("dagster_cpu", "Dagster per partition run, CPU beyond sync --range", "s", 3.5, 2.5),
    Target("org_cpu", "simulated org, CPU per 1 M rows moved both ways", "s", 8, 4),
)


def judged(figures: Mapping[str, float], doubtful: frozenset[str]) -> list[str]:
    """The table of all targets. ``doubtful`` are figures that were taken while others used the machine."""
    table = [["measure", "this run", "target", "stretch", ""]]
    for target in TARGETS:
        figure = figures.get(target.figure)
        said = "" if figure is None else _word(target, figure)
        if target.figure in doubtful:
            said += ", machine was busy"
        table.append(
            [
                target.measure,
                "not measured" if figure is None else _text(figure, target.unit),
                "≤ " + _text(target.target, target.unit),
                "" if target.stretch is None else _text(target.stretch, target.unit),
                said,
            ]
        )
    return aligned(table)


def _word(target: Target, figure: float) -> str:
    if target.stretch is not None and figure <= target.stretch:
        return "stretch met"
    return "met" if figure <= target.target else "MISSED"


def _text(figure: float, unit: str) -> str:
    digits = 0 if figure >= 100 else 1 if figure >= 10 else 2
    return f"{figure:.{digits}f} {unit}".strip()
