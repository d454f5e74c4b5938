"""When a night starts by itself: at two in the local night, once, and not hours later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from sync_pipeline.defs.resources import SyncResource
from sync_pipeline.defs.schedules import nightly
from sync_pipeline_tests.defs.conftest import Stage

BERLIN = ZoneInfo("Europe/Berlin")


def tick(stage: Stage, due_at: datetime) -> dg.RunRequest | str:
    """What a tick that was due then asks for, or why it asks for nothing."""
    context = dg.build_schedule_context(
        instance=stage.instance, scheduled_execution_time=due_at, resources={"sync": SyncResource()}
    )
    data = nightly.evaluate_tick(context)
    return data.run_requests[0] if data.run_requests else str(data.skip_message)


def test_a_tick_in_time_asks_for_the_plan_run_of_that_night(stage: Stage) -> None:
    due_at = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)

    asked = tick(stage, due_at)

    assert isinstance(asked, dg.RunRequest)
    assert asked.run_key == due_at.isoformat()


def test_a_tick_that_comes_too_late_is_skipped_with_a_note(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    due_at = datetime.now(UTC) - timedelta(hours=5)

    skipped = tick(stage, due_at)
    monkeypatch.setenv("SYNC_START_WINDOW", "6 h")
    asked = tick(stage, due_at)

    assert isinstance(skipped, str)
    assert f"It was due at {due_at:%Y-%m-%d %H:%M} UTC, 5.0 hours ago; the start window is 4 hours." in skipped
    assert "Materialize `opportunity_ranges` to start it anyway." in skipped
    assert isinstance(asked, dg.RunRequest)


def test_a_wrong_setting_opens_no_night_and_says_which_one(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_START_WINDOW", "soon")

    skipped = tick(stage, datetime.now(UTC))

    assert isinstance(skipped, str) and "SYNC_START_WINDOW" in skipped


@pytest.mark.parametrize(
    ("first_day", "due"),
    [
        # Clocks go forward on 29 March 2026: there is no 02:00, and the night starts at the instant that it would be.
        (datetime(2026, 3, 28, 12, tzinfo=BERLIN), ["2026-03-29 01:00", "2026-03-30 00:00"]),
        # Clocks go back on 25 October 2026: 02:00 comes twice, and the night starts once.
        (datetime(2026, 10, 24, 12, tzinfo=BERLIN), ["2026-10-25 01:00", "2026-10-26 01:00"]),
    ],
)
def test_a_night_starts_once_when_the_clocks_change(stage: Stage, first_day: datetime, due: list[str]) -> None:
    cron = nightly.cron_schedule
    assert isinstance(cron, str)
    times = schedule_execution_time_iterator(first_day.timestamp(), cron, str(BERLIN), ascending=True)

    two_days = list(takewhile(lambda at: at < first_day + timedelta(days=2), times))
    in_utc = [at.astimezone(UTC) for at in two_days]

    assert [f"{at:%Y-%m-%d %H:%M}" for at in in_utc] == due
    assert len({at.isoformat() for at in in_utc}) == 2


def test_two_nights_never_share_a_run_key_not_even_when_two_o_clock_comes_twice(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_START_WINDOW", "3000 d")
    twice = [datetime(2026, 10, 25, 2, tzinfo=BERLIN, fold=fold) for fold in (0, 1)]

    asked = [tick(stage, due_at) for due_at in twice]

    assert [request.run_key for request in asked if isinstance(request, dg.RunRequest)] == [
        "2026-10-25T00:00:00+00:00",
        "2026-10-25T01:00:00+00:00",
    ]


def test_the_schedule_runs_by_itself_for_the_simulated_org_alone() -> None:
    assert nightly.default_status is dg.DefaultScheduleStatus.RUNNING
    assert nightly.execution_timezone == "UTC"
