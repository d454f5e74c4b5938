"""The arithmetic of ranges: laws first, because every lost row so far was lost at an edge."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sync_pipeline.domain.keys import KeyRange, cover

HOSTILE = [
    "",
    "\x00",
    " ",
    "%",
    "'",
    "\\",
    "A",
    "a",
    "Z",
    "a\x00",
    "é",
    "e\u0301",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "\U0010ffff",
]
keys = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=6), st.text(alphabet="ab\x00", max_size=3))
boundaries = st.lists(keys, max_size=8, unique=True).map(sorted)
bounds = st.one_of(st.none(), keys)


def is_room_between(after: str | None, through: str | None) -> bool:
    return after is None or through is None or after < through


ranges = (
    st.tuples(bounds, bounds).filter(lambda pair: is_room_between(*pair)).map(lambda pair: KeyRange(pair[0], pair[1]))
)


# laws


@given(boundaries, keys)
@example([""], "")
@example(["", "\x00"], "")
@example([], "")
def test_a_cover_holds_every_key_exactly_once(edges: list[str], key: str) -> None:
    assert sum(key in key_range for key_range in cover(edges)) == 1


@given(boundaries)
def test_a_cover_begins_and_ends_open_and_its_neighbours_share_an_edge(edges: list[str]) -> None:
    covered = cover(edges)

    assert len(covered) == len(edges) + 1
    assert covered[0].after is None
    assert covered[-1].through is None
    assert [r.through for r in covered[:-1]] == [r.after for r in covered[1:]] == edges


@given(boundaries.filter(bool))
def test_a_boundary_is_the_last_key_of_its_range_and_the_next_key_begins_the_next_one(edges: list[str]) -> None:
    covered = cover(edges)

    for place, edge in enumerate(edges):
        assert edge in covered[place]
        assert edge not in covered[place + 1]
        successor = edge + "\x00"
        assert successor not in covered[place]


@given(ranges, keys, keys)
def test_what_is_staged_and_the_rest_hold_every_key_of_a_range_once(key_range: KeyRange, cursor: str, key: str) -> None:
    if cursor not in key_range:
        return
    rest = key_range.rest(cursor)

    is_staged = key in key_range and key <= cursor
    assert is_staged + (rest is not None and key in rest) == (key in key_range)


@given(ranges)
def test_nothing_remains_behind_the_last_key_of_a_bounded_range(key_range: KeyRange) -> None:
    assert key_range.rest(None) == key_range
    if key_range.through is not None:
        assert key_range.rest(key_range.through) is None


@given(ranges, keys)
def test_a_cursor_outside_of_its_range_is_refused(key_range: KeyRange, cursor: str) -> None:
    if cursor in key_range:
        return
    with pytest.raises(ValueError, match="lies outside of"):
        key_range.rest(cursor)


@given(ranges, ranges)
def test_ranges_overlap_just_when_some_key_belongs_to_both(one: KeyRange, other: KeyRange) -> None:
    afters = [r.after for r in (one, other) if r.after is not None]
    throughs = [r.through for r in (one, other) if r.through is not None]
    # If any key belongs to both, then so does the smaller upper bound; without one, what follows the larger lower one.
    candidate = min(throughs) if throughs else max(afters, default="") + "\x00"

    assert one.overlaps(other) == (candidate in one and candidate in other)
    assert one.overlaps(other) == other.overlaps(one)


@given(keys, keys)
def test_keys_are_ordered_by_their_utf8_bytes(one: str, other: str) -> None:
    assert (one < other) == (one.encode() < other.encode())


@given(ranges)
def test_a_partition_key_is_short_and_safe_in_urls_files_and_commands(key_range: KeyRange) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{9,20}", key_range.partition, flags=re.ASCII)


@given(ranges, ranges)
@example(KeyRange(None, ""), KeyRange(None, None))
@example(KeyRange(None, "a"), KeyRange("", "a"))
@example(KeyRange(None, "a,b"), KeyRange(None, "a_b"))
def test_partition_keys_are_equal_just_when_the_bounds_are(one: KeyRange, other: KeyRange) -> None:
    assert (one.partition == other.partition) == (one == other)


# cases


def test_a_partition_key_is_never_taken_for_an_option_of_a_command() -> None:
    assert KeyRange(None, "Opp-0000200000").partition.startswith("_0000200000-")
    assert KeyRange(None, "-").partition.startswith("_-")


def test_a_partition_key_does_not_change_from_release_to_release() -> None:
    assert KeyRange(None, "externalOpp0200000").partition == "lOpp0200000-8103f25b"
    assert KeyRange("externalOpp0200000", None).partition.startswith("end-")


def test_a_range_of_one_boundary_holds_the_keys_on_its_own_side() -> None:
    first, last = cover(["m"])

    assert [key for key in ["", "a", "m", "n"] if key in first] == ["", "a", "m"]
    assert [key for key in ["", "a", "m", "n"] if key in last] == ["n"]
    assert (first.is_first, last.is_first) == (True, False)
    assert (str(first), str(last)) == ("start..m", "m..end")


@pytest.mark.parametrize("edges", [["b", "a"], ["a", "a"], ["", ""], ["a", "b", "b"]])
def test_boundaries_that_do_not_ascend_are_refused(edges: list[str]) -> None:
    with pytest.raises(ValueError, match="needs after < through"):
        cover(edges)


def test_a_bound_that_has_no_utf8_form_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        KeyRange(None, "a\ud800")
