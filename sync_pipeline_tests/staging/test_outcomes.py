"""The fate of each row of a part from its job's result files."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.domain.errors import Unreadable
from sync_pipeline.staging.outcomes import NOT_ACKNOWLEDGED, UNPROCESSED, Outcomes, outcomes_of
from sync_pipeline_tests.staging.sample import INVALID, LOCKED, TRANSIENT, failed, left, saved


def sent(*keys: str) -> pl.DataFrame:
    return pl.DataFrame({"row": range(10, 10 + len(keys)), "key": keys}, schema={"row": pl.Int64, "key": pl.String})


NONE = (saved(), failed(), left())


def judged(
    rows: pl.DataFrame,
    successes: pl.DataFrame = NONE[0],
    failures: pl.DataFrame = NONE[1],
    unprocessed: pl.DataFrame = NONE[2],
) -> Outcomes:
    return outcomes_of(rows, successes=[successes], failures=[failures], unprocessed=[unprocessed], transient=TRANSIENT)


def fates(found: Outcomes) -> dict[int, str]:
    """What became of each row: ``created``, ``updated`` or the code of its exception."""
    acknowledged = found.saved.filter(pl.col("created").is_not_null())
    by_row = {row["row"]: "created" if row["created"] else "updated" for row in acknowledged.to_dicts()}
    refused = dict(found.refused.select("row", "code").iter_rows())
    if by_row.keys() & refused.keys():
        raise AssertionError("a row is both saved and refused")
    return by_row | refused


LISTED = st.lists(st.sampled_from("abcdef"), max_size=8)


@given(rows=LISTED, successes=LISTED, failures=LISTED, unprocessed=LISTED)
def test_every_row_has_one_fate_whatever_the_lists_repeat_or_leave_out(
    rows: list[str], successes: list[str], failures: list[str], unprocessed: list[str]
) -> None:
    named = set(successes) | set(failures) | set(unprocessed)
    if named <= set(rows):
        found = judged(sent(*rows), saved(*successes), failed(*failures), left(*unprocessed))
        truth = {}
        for row, key in sent(*rows).iter_rows():
            truth[row] = "UNABLE_TO_LOCK_ROW" if key in failures else "created" if key in successes else (
                UNPROCESSED if key in unprocessed else NOT_ACKNOWLEDGED
            )  # fmt: skip
        assert fates(found) == truth
        assert found.counts.adds_up and found.counts.staged == len(rows)
        assert sorted(found.saved["row"]) == sorted(truth)
    else:
        with pytest.raises(Unreadable):
            judged(sent(*rows), saved(*successes), failed(*failures), left(*unprocessed))


def test_created_and_updated_are_told_apart() -> None:
    found = judged(sent("a", "b", "c"), pl.concat([saved("a"), saved("b", "c", created=False)]))

    assert (found.counts.created, found.counts.updated) == (1, 2)


def test_a_foreign_key_is_named_up_to_three() -> None:
    with pytest.raises(Unreadable, match="name 4 keys that its part does not hold: w, x, y"):
        judged(sent("a"), saved("a", "w", "x", "y", "z"))


def test_an_empty_key_in_a_result_names_nobody() -> None:
    assert fates(judged(sent("a"), saved("a"), failed(""))) == {10: "created"}


def test_keys_are_matched_exactly_first() -> None:
    found = judged(sent("Opp1", "opp1"), saved("opp1"), failed("Opp1"))

    assert fates(found) == {10: "UNABLE_TO_LOCK_ROW", 11: "created"}


def test_a_key_echoed_in_other_letter_case_is_the_one_that_was_sent() -> None:
    assert fates(judged(sent("Opp1", "Opp2"), saved("OPP1 "), failed("opp2"))) == {
        10: "created",
        11: "UNABLE_TO_LOCK_ROW",
    }


def test_an_echo_that_fits_two_keys_is_foreign() -> None:
    with pytest.raises(Unreadable, match="OPP1"):
        judged(sent("Opp1", "opp1"), saved("OPP1"))


@pytest.mark.parametrize(
    ("error", "code", "message", "column"),
    [
        (LOCKED, "UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record", ""),
        (INVALID, "FIELD_CUSTOM_VALIDATION_EXCEPTION", "The stage is closed: no edit", "StageName"),
        ("REQUIRED_FIELD_MISSING:Missing: [Name, Stage]:Name, StageName --", "REQUIRED_FIELD_MISSING", "Missing: [Name, Stage]", "Name, StageName"),
        ("INVALID_DATE:two\nlines:CloseDate --", "INVALID_DATE", "two\nlines", "CloseDate"),
        ("something without a code", "UNKNOWN", "something without a code", ""),
        ("", "UNKNOWN", "", ""),
    ],
)  # fmt: skip
def test_an_error_is_told_apart_into_code_message_and_column(error: str, code: str, message: str, column: str) -> None:
    refused = judged(sent("a"), failures=failed("a", error=error)).refused

    assert refused.select("outcome", "code", "message", "column").row(0) == ("failed", code, message, column)


def test_only_codes_that_can_pass_and_rows_never_tried_are_transient() -> None:
    refused = judged(
        sent("a", "b", "c", "d"), failures=pl.concat([failed("a"), failed("b", error=INVALID)]), unprocessed=left("c")
    ).refused

    assert dict(refused.select("row", "transient").iter_rows()) == {10: True, 11: False, 12: True, 13: True}
