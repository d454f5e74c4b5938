"""Two sides held against each other: every difference is found by its key, and equality raises none."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.staging.comparison import FINDINGS, Comparison, Kind, Side

SCHEMA = {"key": pl.String, "matched": pl.UInt64, "digest": pl.UInt64, "place": pl.UInt32, "sent": pl.Boolean}


def rows(*keyed: tuple[str, int], place: int = 0, sent: bool = True) -> pl.DataFrame:
    """Rows of (key, digest); keys are matched as they are written."""
    keys = pl.Series("key", [key for key, _ in keyed], dtype=pl.String)
    return pl.DataFrame(
        {
            "key": keys,
            "matched": keys.hash(7),
            "digest": pl.Series([digest for _, digest in keyed], dtype=pl.UInt64),
            "place": pl.repeat(place, len(keyed), dtype=pl.UInt32, eager=True),
            "sent": pl.repeat(sent, len(keyed), dtype=pl.Boolean, eager=True),
        },
        schema=SCHEMA,
    )


def found(comparison: Comparison) -> set[tuple[str, str, int | None, bool]]:
    frames = [pl.DataFrame(schema=FINDINGS), *comparison.findings()]
    return set(pl.concat(frames).select("kind", "key", "place", "changed").iter_rows())


def test_equal_sides_show_nothing(tmp_path: Path) -> None:
    with Comparison(tmp_path) as comparison:
        comparison.add(Side.EXPECTED, rows(("a", 1), ("b", 2)))
        comparison.add(Side.PRESENT, rows(("b", 2), ("a", 1)))
        assert found(comparison) == set()


def test_no_rows_on_either_side_is_equality(tmp_path: Path) -> None:
    with Comparison(tmp_path) as comparison:
        assert found(comparison) == set()


def test_each_kind_of_difference_is_named_by_key_and_place(tmp_path: Path) -> None:
    with Comparison(tmp_path) as comparison:
        comparison.add(Side.EXPECTED, rows(("equal", 1), ("lost", 2), ("other", 3), place=4))
        comparison.add(Side.EXPECTED, rows(("refused", 9), ("refused and absent", 9), place=5, sent=False))
        comparison.add(Side.PRESENT, rows(("equal", 1), ("other", 33), ("refused", 5), ("foreign", 6)))
        assert found(comparison) == {
            (Kind.MISSING, "lost", 4, False),
            (Kind.DIFFERENT, "other", 4, False),
            (Kind.REJECTED, "refused", 5, False),
            (Kind.ORPHAN, "foreign", None, False),
        }


def test_a_quarantined_double_of_a_sent_row_hides_nothing(tmp_path: Path) -> None:
    with Comparison(tmp_path) as comparison:
        comparison.add(Side.EXPECTED, rows(("doubled", 1), ("doubled and lost", 1)))
        comparison.add(Side.EXPECTED, rows(("doubled", 1), ("doubled and lost", 1), sent=False))
        comparison.add(Side.PRESENT, rows(("doubled", 1)))
        assert found(comparison) == {(Kind.MISSING, "doubled and lost", 0, False)}


def test_a_key_that_the_org_holds_twice_is_found_twice(tmp_path: Path) -> None:
    with Comparison(tmp_path) as comparison:
        comparison.add(Side.PRESENT, rows(("foreign", 1), ("foreign", 2)))
        frames = list(comparison.findings())
    assert [(row[0], row[1]) for row in frames[0].iter_rows()] == [(Kind.ORPHAN, "foreign")] * 2


def test_an_open_optional_digest_is_not_compared(tmp_path: Path) -> None:
    def with_optional(frame: pl.DataFrame, *optional: int | None) -> pl.DataFrame:
        return frame.with_columns(pl.Series("digest_0", optional, dtype=pl.UInt64))

    with Comparison(tmp_path, optional=1) as comparison:
        comparison.add(Side.EXPECTED, with_optional(rows(("kept", 1), ("set", 1), ("set otherwise", 1)), None, 5, 5))
        comparison.add(Side.PRESENT, with_optional(rows(("kept", 1), ("set", 1), ("set otherwise", 1)), 8, 5, 8))
        assert found(comparison) == {(Kind.DIFFERENT, "set otherwise", 0, False)}


def test_a_difference_that_the_staged_row_explains_is_marked_changed(tmp_path: Path) -> None:
    with Comparison(tmp_path) as comparison:
        comparison.add(Side.EXPECTED, rows(("edited", 2), ("new", 1), ("lost", 1), ("spoiled", 1)))
        comparison.add(Side.PRESENT, rows(("edited", 1), ("deleted", 1), ("spoiled", 7), ("foreign", 1)))
        comparison.add(Side.STAGED, rows(("edited", 1), ("deleted", 1), ("lost", 1), ("spoiled", 1)))
        assert found(comparison) == {
            (Kind.DIFFERENT, "edited", 0, True),
            (Kind.MISSING, "new", 0, True),
            (Kind.ORPHAN, "deleted", None, True),
            (Kind.MISSING, "lost", 0, False),
            (Kind.DIFFERENT, "spoiled", 0, False),
            (Kind.ORPHAN, "foreign", None, False),
        }


KEYED = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 3), max_size=30)


@given(expected=KEYED, present=KEYED, bucket_rows=st.integers(1, 40))
def test_findings_are_what_two_dictionaries_say_whatever_the_buckets(
    tmp_path_factory, expected: dict[str, int], present: dict[str, int], bucket_rows: int
) -> None:
    truth = {(Kind.MISSING, key, 0, False) for key in expected.keys() - present.keys()}
    truth |= {(Kind.ORPHAN, key, None, False) for key in present.keys() - expected.keys()}
    truth |= {(Kind.DIFFERENT, k, 0, False) for k in expected.keys() & present.keys() if expected[k] != present[k]}
    with Comparison(tmp_path_factory.mktemp("comparison"), bucket_rows=bucket_rows) as comparison:
        comparison.add(Side.EXPECTED, rows(*expected.items()))
        comparison.add(Side.PRESENT, rows(*present.items()))
        assert found(comparison) == truth


# keys that the org has more than once


def doubled(comparison: Comparison) -> list[tuple[object, ...]]:
    frames = [pl.DataFrame(schema=FINDINGS), *comparison.findings()]
    return pl.concat(frames).select("kind", "key", "place", "sent", "rows").rows()


def test_a_key_that_the_org_has_several_times_is_one_finding_whatever_the_rows_hold(tmp_path: Path) -> None:
    with Comparison(tmp_path) as comparison:
        comparison.add(Side.EXPECTED, rows(("equal", 1), ("other", 1), ("fine", 1), place=4))
        comparison.add(
            Side.PRESENT, rows(("equal", 1), ("equal", 1), ("equal", 1), ("other", 1), ("other", 2), ("fine", 1))
        )
        assert set(doubled(comparison)) == {(Kind.DOUBLED, "equal", 4, True, 3), (Kind.DOUBLED, "other", 4, True, 2)}


def test_a_doubled_key_of_a_row_that_did_not_get_through_is_found_too(tmp_path: Path) -> None:
    with Comparison(tmp_path) as comparison:
        comparison.add(Side.EXPECTED, rows(("refused", 1), place=2, sent=False))
        comparison.add(Side.PRESENT, rows(("refused", 1), ("refused", 7)))
        assert doubled(comparison) == [(Kind.DOUBLED, "refused", 2, False, 2)]


def test_a_row_that_is_new_at_the_source_and_differs_in_the_org_is_explained(tmp_path: Path) -> None:
    with Comparison(tmp_path) as comparison:
        comparison.add(Side.EXPECTED, rows(("new", 2), ("old", 2)))
        comparison.add(Side.PRESENT, rows(("new", 1), ("old", 1)))
        comparison.add(Side.STAGED, rows(("old", 2)))
        assert found(comparison) == {(Kind.DIFFERENT, "new", 0, True), (Kind.DIFFERENT, "old", 0, False)}


@given(
    expected=st.dictionaries(st.text("abcd", min_size=1, max_size=2), st.booleans(), max_size=12),
    present=st.lists(st.text("abcd", min_size=1, max_size=2), max_size=25),
    bucket_rows=st.integers(1, 20),
)
def test_every_row_of_the_org_is_counted_once_whatever_is_doubled(
    tmp_path_factory, expected: dict[str, bool], present: list[str], bucket_rows: int
) -> None:
    with Comparison(tmp_path_factory.mktemp("doubled"), bucket_rows=bucket_rows) as comparison:
        for sent in (True, False):
            comparison.add(
                Side.EXPECTED, rows(*((key, 1) for key, is_sent in expected.items() if is_sent is sent), sent=sent)
            )
        comparison.add(Side.PRESENT, rows(*((key, 1) for key in present)))
        named = doubled(comparison)

    several = {key for key in present if present.count(key) > 1 and key in expected}
    assert {row[1] for row in named if row[0] == Kind.DOUBLED} == several
    equal = sum(is_sent and present.count(key) == 1 for key, is_sent in expected.items())
    assert equal + sum(int(str(row[4])) for row in named) == len(present)
