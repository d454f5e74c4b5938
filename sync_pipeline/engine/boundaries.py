"""Which boundaries of the last plan stay, and where new ones go. Arithmetic on keys and counts, nothing else.

``edges`` are boundaries in ascending order, ``counts`` the rows of the ranges between them, one more than edges;
``wanted`` is the wanted number of rows in a range.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from sync_pipeline.domain.keys import cover

SPLIT_ABOVE: Final = 1.5
"""A range with more than this many times the wanted rows is cut anew."""
MERGE_BELOW: Final = 0.1
"""A range with fewer than this many times the wanted rows joins a neighbour."""


def with_candidates(
    edges: Sequence[str], counts: Sequence[int], candidates: Sequence[str], *, wanted: int
) -> list[str]:
    """``edges`` and, inside of the ranges that are too large, the candidates."""
    large = [r for r, rows in zip(cover(edges), counts, strict=True) if rows > SPLIT_ABOVE * wanted]
    inside = [key for key in candidates if any(key in key_range for key_range in large)]
    return sorted({*edges, *inside})


def chosen(
    edges: Sequence[str], counts: Sequence[int], *, kept: Collection[str], wanted: int
) -> tuple[list[str], list[int]]:
    """Glues the pieces of each range of ``kept`` boundaries to about equal ranges of about the wanted size."""
    bounds: list[str] = []
    sums: list[int] = []
    start = 0
    for position in range(len(counts)):
        if position < len(edges) and edges[position] not in kept:
            continue
        pieces = counts[start : position + 1]
        size = sum(pieces) / max(round(sum(pieces) / wanted), 1)
        held = 0
        for offset, rows in enumerate(pieces):
            held += rows
            following = pieces[offset + 1] if offset + 1 < len(pieces) else None
            # A range ends where it comes nearest to its size, and always where a kept one ends.
            if following is None or abs(held - size) <= abs(held + following - size):
                if start + offset < len(edges):
                    bounds.append(edges[start + offset])
                sums.append(held)
                held = 0
        start = position + 1
    return bounds, sums


def merged(edges: Sequence[str], counts: Sequence[int], *, wanted: int) -> tuple[list[str], list[int]]:
    """Joins each range that became tiny with the smaller of its neighbours, unless that would make it too large."""
    bounds, rows = list(edges), list(counts)
    position = 0
    while position < len(rows):
        beside = [p for p in (position - 1, position + 1) if 0 <= p < len(rows)]
        smaller = min(beside, key=lambda p: rows[p], default=None)
        is_tiny = rows[position] < MERGE_BELOW * wanted
        if smaller is None or not is_tiny or rows[position] + rows[smaller] > SPLIT_ABOVE * wanted:
            position += 1
            continue
        position = min(position, smaller)
        rows[position : position + 2] = [rows[position] + rows[position + 1]]
        del bounds[position]
    return bounds, rows
