"""Boundaries that balance stay; large ranges are cut, tiny ones join a neighbour, and no row changes hands twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.engine.boundaries import SPLIT_ABOVE, chosen, merged, with_candidates

COUNTS = st.lists(st.integers(0, 400), min_size=1, max_size=12)


def edges_for(counts: list[int]) -> list[str]:
    return [f"k{number:02d}" for number in range(1, len(counts))]


def test_a_large_range_is_cut_inside_and_the_others_keep_their_bounds() -> None:
    candidates = ["b", "f", "j", "n", "r"]
    finer = with_candidates(["h", "p"], [100, 400, 100], candidates, wanted=100)
    assert finer == ["h", "j", "n", "p"]
    assert chosen(finer, [100, 130, 130, 140, 100], kept={"h", "p"}, wanted=100) == (
        ["h", "j", "n", "p"],
        [100, 130, 130, 140, 100],
    )


def test_pieces_of_a_large_range_are_glued_to_about_the_wanted_size() -> None:
    edges, counts = chosen(["b", "c", "d", "m", "x"], [50, 50, 50, 50, 0, 100], kept={"x"}, wanted=100)
    assert (edges, counts) == (["c", "m", "x"], [100, 100, 0, 100])


def test_a_tiny_range_joins_the_smaller_neighbour() -> None:
    assert merged(["f", "m"], [100, 5, 80], wanted=100) == (["f"], [100, 85])


def test_a_tiny_range_stays_when_its_neighbours_are_full() -> None:
    assert merged(["f", "m"], [150, 5, 149], wanted=100) == (["f", "m"], [150, 5, 149])


def test_one_range_stays_one_range() -> None:
    assert merged([], [0], wanted=100) == ([], [0])


@given(counts=COUNTS)
def test_merging_keeps_every_row_and_invents_no_boundary(counts: list[int]) -> None:
    edges = edges_for(counts)
    kept, rows = merged(edges, counts, wanted=100)
    assert sum(rows) == sum(counts)
    assert len(rows) == len(kept) + 1
    assert set(kept) <= set(edges) and kept == sorted(kept)


@given(counts=COUNTS, kept=st.sets(st.integers(1, 12)))
def test_gluing_keeps_every_row_and_every_kept_boundary(counts: list[int], kept: set[int]) -> None:
    edges = edges_for(counts)
    wanted_edges = {f"k{number:02d}" for number in kept} & set(edges)
    bounds, rows = chosen(edges, counts, kept=wanted_edges, wanted=100)
    assert sum(rows) == sum(counts)
    assert len(rows) == len(bounds) + 1
    assert wanted_edges <= set(bounds) <= set(edges)


@given(pieces=st.lists(st.integers(20, 30), min_size=1, max_size=60))
def test_fine_pieces_never_glue_to_a_range_that_is_too_large(pieces: list[int]) -> None:
    _, rows = chosen(edges_for(pieces), pieces, kept=(), wanted=100)
    assert max(rows) <= SPLIT_ABOVE * 100
