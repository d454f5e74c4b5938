"""The fault matrix in which four real clients of Bulk API 2.0 fell; this one must survive every cell of it in full.

simple-salesforce aborts a healthy job, jsforce "completes" a job without a row, the sf CLI leaves a job open, and the
fourth loses the last row of some files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sync_pipeline.domain.ledger import Verdict
from sync_pipeline.simulated_org.seed import seed
from sync_pipeline_tests.stories.conftest import Bank

ROWS = 80

ENDPOINTS = (
    "create",
    "upload",
    "close",
    "poll",
    "jobs",
    "results",
    "query",
    "status",
    "rows",
    "query_job",
    "query_results",
    "describe",
)


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    """Two ranges, each read in two pages and sent as a job of its own."""
    found = Bank(tmp_path, {"SYNC_ROWS_PER_RANGE": "40"})
    seed(found.org, ROWS)
    found.org.set_setting("adaptive_rows", 10)
    found.org.set_setting("page_bytes", 4_000)
    yield found
    found.org.close()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "fault",
    [
        "html_503",
        "answer status=500 code=UNKNOWN_EXCEPTION",
        "answer status=502",
        "retry_after seconds=0",
        "answer status=420",
        "cut",
        "lost_answer",
        "late_answer",
        "cut_body",
        "truncated_gzip",
        "empty_answer",
        "answer status=200 body=sorry content_type=text/html",
        "expire_token",
    ],
)
def test_one_fault_at_any_call_costs_no_row(bank: Bank, fault: str, endpoint: str) -> None:
    bank.fault(f"{fault} endpoint={endpoint} nth=2 times=1")

    ended = bank.night()

    assert ended.verdict is Verdict.RECONCILED
    assert ended.counts.succeeded == ROWS
    bank.assert_all_there()


@pytest.mark.parametrize(
    "fault",
    [
        "html_503 endpoint=upload",
        "html_503 endpoint=poll",
        "html_503 endpoint=jobs",
        "expire_token endpoint=poll",
        "expire_token endpoint=jobs",
        "html_503 endpoint=results",
    ],
)
def test_the_four_faults_that_other_clients_met_several_times_over(bank: Bank, fault: str) -> None:
    bank.fault(f"{fault} every=3 times=6")

    ended = bank.night()

    assert ended.verdict is Verdict.RECONCILED
    bank.assert_all_there()


def test_a_token_that_lives_for_ten_calls_only(bank: Bank) -> None:
    bank.org.set_setting("token_calls", 10)

    ended = bank.night()

    assert ended.verdict is Verdict.RECONCILED
    bank.assert_all_there()
