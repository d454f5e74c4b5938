"""Figures as rows and columns, their medians over rounds, and how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

Row = dict[str, float]
"""Column to figure. The unit is the last word of a column's name where it has one."""
Sheet = dict[str, Row]
"""What was run to its row."""

FORMATS: dict[str, Callable[[float], str]] = {
    "s": "{:,.2f}".format,
    "µs/row": "{:.2f}".format,
    "ms": "{:.1f}".format,
    "MB": "{:,.0f}".format,
    "%": "{:.2f}".format,
    "floor": "{:.2f}".format,
    "peer": "{:.2f}".format,
    "ratio": "{:.2f}".format,
    "s/M": "{:.2f}".format,
    "minute": "{:.1f}".format,
}
"""By the last word of a column's name; any other figure is a number of things."""
BAR = 40
"""Characters of the longest bar."""


def medians(sheets: Sequence[Sheet]) -> Sheet:
    """The median of every figure over some rounds of one part."""
    first = sheets[0]
    return {
        name: {column: median(sheet[name][column] for sheet in sheets) for column in row} for name, row in first.items()
    }


def shown(figure: float | None, column: str) -> str:
    """One figure as text; nothing for one that was not taken."""
    if figure is None:
        return ""
    return FORMATS.get(column.rpartition(" ")[2], "{:,.0f}".format)(figure)


def lines(sheet: Sheet) -> list[str]:
    """The sheet as a table of text."""
    columns = list(dict.fromkeys(column for row in sheet.values() for column in row))
    table = [["", *columns]]
    table += [[name, *(shown(row.get(column), column) for column in columns)] for name, row in sheet.items()]
    return aligned(table)


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Rows of texts under each other: the first column to the left, the others to the right."""
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    return [
        "  ".join(
            text.ljust(width) if place == 0 else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def bars(sheet: Sheet, column: str) -> list[str]:
    """One column as bars, the longest figure as the longest bar."""
    figures = {name: row[column] for name, row in sheet.items() if column in row}
    most = max(figures.values(), default=0.0)
    table = [
        [name, shown(figure, column), "█" * round(figure / most * BAR) if most else ""]
        for name, figure in figures.items()
    ]
    return [column, *(f"  {name:<{_longest(figures)}}  {text:>10}  {bar}" for name, text, bar in table)]


def _longest(names: Iterable[str]) -> int:
    return max((len(name) for name in names), default=0)
