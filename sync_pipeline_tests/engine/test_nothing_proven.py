"""A night in which no row could be compared is never called reconciled, and a source that went empty opens no night."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from sync_pipeline.domain.errors import PlanRefused
from sync_pipeline.domain.ledger import RangeState, Verdict
from sync_pipeline.domain.policy import Verify
from sync_pipeline.engine.night import is_clean, open_night
from sync_pipeline_tests.engine.rehearsal import rehearsal
from sync_pipeline_tests.engine.witness import row, rows, world

UNREADABLE = {"Amount__c": "a lot"}
LOOK = "Look at the data space (default), at the rights of the run-as user on it and on ExtOpportunities__dlm"


@pytest.mark.parametrize("level", list(Verify))
@pytest.mark.parametrize("in_org", [(), ("a", "z")])
def test_a_night_whose_rows_were_all_quarantined_is_not_reconciled(
    tmp_path: Path, level: Verify, in_org: tuple[str, ...]
) -> None:
    with world(tmp_path, [row("a", **UNREADABLE), row("b", **UNREADABLE)], SYNC_VERIFY=level.value) as it:
        it.add_to_org(*in_org)

        night = it.night()

        assert night.verdict is Verdict.NOT_RECONCILED
        assert not is_clean(night)
        assert night.verdict_reasons[0].startswith("no row could be compared: of 2 rows of the source none was saved")
        assert f"the org holds {len(in_org)} rows with a key. {LOOK}" in night.verdict_reasons[0]


@pytest.mark.parametrize("level", list(Verify))
def test_a_source_without_a_row_opens_no_night_while_the_org_holds_keys(tmp_path: Path, level: Verify) -> None:
    """Neither last night nor the share that may be missing counts: this SYNC_HOME has never seen a night."""
    with world(tmp_path, [], SYNC_SOURCE_SHARE_MIN="0", SYNC_VERIFY=level.value) as it:
        it.add_to_org("a", "b")

        with pytest.raises(
            PlanRefused, match="holds no row that can be read, while Opportunity holds 2 rows"
        ) as refused:
            it.night()

        assert refused.value.exit_code == 1
        assert LOOK in refused.value.hint
        assert it.walls.book.newest() is None


def test_a_source_that_is_emptied_after_the_plan_proves_nothing(tmp_path: Path) -> None:
    with world(tmp_path, rows("a", "b")) as it:
        it.add_to_org("a")
        open_night(it.walls)
        it.write_source([])

        night = it.night()

        assert (night.verdict, it.ranges()[0].state) == (Verdict.NOT_RECONCILED, RangeState.DONE)
        assert LOOK in night.verdict_reasons[0]


def test_nothing_on_either_side_is_equal(tmp_path: Path) -> None:
    with world(tmp_path, []) as it:
        assert it.night().verdict is Verdict.RECONCILED


def test_an_empty_source_asks_the_org_once(tmp_path: Path) -> None:
    counts: list[str] = []

    def hear(request: httpx.Request) -> None:
        counts.extend(q for q in [request.url.params.get("q", "")] if "COUNT()" in q and "Opportunity" in q)

    with rehearsal(tmp_path, rows=0, before=hear) as r:
        open_night(r.walls, say=lambda line: None)

    assert counts == ["SELECT COUNT() FROM Opportunity WHERE External_ID__c != null"]


def test_a_range_that_is_mostly_quarantined_sends_nothing_and_is_given_up(tmp_path: Path) -> None:
    keys = [f"k{number:03d}" for number in range(300)]
    bad = [row(key, **UNREADABLE) for key in keys[:151]]
    with world(tmp_path, [*bad, *rows(*keys[151:])]) as it:
        night = it.night()

        (entry,) = it.ranges()
        assert (entry.state, entry.runs) == (RangeState.GIVEN_UP, 1)
        assert "151 of 300 rows do not get through, 151 of them quarantined before they were sent" in entry.error
        assert it.walls.book.jobs(night.plan_id) == []
        assert night.verdict is Verdict.NOT_RECONCILED


def test_what_a_declared_rule_sets_aside_never_stops_a_range(tmp_path: Path) -> None:
    keys = [f"k{number:03d}" for number in range(100)]
    with world(tmp_path, rows(*keys, *keys, *keys)) as it:
        night = it.night()

        assert night.verdict is Verdict.RECONCILED
        assert (it.ranges()[0].counts.set_aside, it.ranges()[0].counts.succeeded) == (200, 100)
