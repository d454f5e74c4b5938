"""A night in an org whose automations meet locks and limits while rows are saved: whatever can pass does pass."""

from __future__ import annotations

from pathlib import Path

from sync_pipeline.domain.ledger import Verdict
from sync_pipeline.simulated_org.seed import seed
from sync_pipeline_tests.stories.conftest import Bank

ROWS = 300


def test_locks_and_limits_of_automations_heal_in_the_same_night(tmp_path: Path) -> None:
    bank = Bank(tmp_path, {"SYNC_ROWS_PER_RANGE": "150"})
    seed(bank.org, ROWS)
    bank.fault(
        "automation_locks by=flow share=0.1 times=3",
        "automation_limit limit=cpu rows=60",
        "parent_limit limit=soql rows=8 times=6",
    )

    ended = bank.night()

    assert ended.verdict is Verdict.RECONCILED
    assert ended.counts.succeeded == ROWS
    bank.assert_all_there()
    bank.org.close()
