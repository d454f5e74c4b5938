"""API calls and disk space: the reserve is never touched, whoever uses the org, and a night at it parks and goes on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from sync_pipeline.domain.errors import DiskFull, LimitExceeded, Parked, PlanRefused, WireError
from sync_pipeline.domain.ledger import RangeState
from sync_pipeline.domain.plan import Forecast, Plan
from sync_pipeline.engine.budget import check_before_start, check_calls, check_disk, check_range, parking_of
from sync_pipeline_tests.engine.rehearsal import Rehearsal, rehearsal

ONE = {"rows": 50, "rows_per_range": 50, "lanes": 1}
RESERVE = 20_000
"""Of the org's 100,000 calls a day."""
SPARE = 4
"""Calls that one lane may have under way."""


@contextmanager
def used_by_others(r: Rehearsal, left_above_reserve: int) -> Iterator[None]:
    """Others have used the org's calls but for the reserve and so many."""
    used, most = r.org.usage()
    r.org.set_setting("api_used", most - RESERVE - left_above_reserve - used + int(r.org.setting("api_used", 0)))
    yield
    r.org.set_setting("api_used", 0)


def planned(r: Rehearsal, **forecast: int | None) -> Plan:
    """The night's plan with another forecast."""
    needed = Forecast(
        api_calls=100, ingest_batches=1, disk_bytes=1000, seconds=0.0,
        api_calls_left=100_000, api_calls_max=100_000, ingest_batches_left=10, disk_bytes_free=10**9,
    )  # fmt: skip
    return replace(r.night.plan, forecast=replace(needed, **forecast))  # type: ignore[arg-type]


# Before the start


def test_a_night_that_fits_may_begin(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        assert check_before_start(r.walls, planned(r)) is None
        assert check_before_start(r.walls, replace(r.night.plan, forecast=None)) is None


@pytest.mark.parametrize(
    ("forecast", "reason"),
    [
        ({"api_calls_left": 20_099}, "100 API calls are needed"),
        ({"ingest_batches": 11}, "11 ingest batches are needed; 10 are left today"),
        ({"disk_bytes": 10**9 + 1}, "1000000001 bytes of disk are needed"),
    ],
)
def test_a_night_that_does_not_fit_today_is_parked_with_the_reason(
    tmp_path: Path, forecast: dict[str, int], reason: str
) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        parked = check_before_start(r.walls, planned(r, **forecast))

        assert parked is not None
        assert reason in parked.message
        assert parked.until == r.walls.now() + timedelta(minutes=10)


def test_a_night_that_would_never_fit_is_refused(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        with pytest.raises(PlanRefused, match="100 API calls are needed; the org allows 120 a day, of which 96"):
            check_before_start(r.walls, planned(r, api_calls_max=120, api_calls_left=120))
        assert check_before_start(r.walls, planned(r, api_calls_max=125, api_calls_left=125)) is None


# The next calls


def test_the_reserve_is_kept_by_what_the_org_says_of_everybody(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        plan = r.night.plan
        with used_by_others(r, left_above_reserve=10 + SPARE + 1):
            r.walls.soql.describe()
            check_calls(r.walls, plan, calls=10)
            with pytest.raises(
                Parked, match="of the org's 100000 API calls of a day are used; 20000 are kept in reserve"
            ):
                check_calls(r.walls, plan, calls=11)


def test_without_a_word_of_the_org_the_metered_calls_count(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        fresh = r.again()  # no answer has come yet that says what is left
        plan = planned(r, api_calls_left=RESERVE + 100)
        metered = sum(r.walls.book.calls(plan.plan_id).values())

        check_calls(fresh.walls, plan, calls=100 - SPARE - metered)
        with pytest.raises(Parked):
            check_calls(fresh.walls, plan, calls=101 - SPARE - metered)
        check_calls(fresh.walls, replace(plan, forecast=None), calls=10**9)
        fresh.walls.close()


def test_a_range_begins_only_when_its_share_of_the_forecast_fits(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=100, rows_per_range=50, lanes=1) as r:
        plan = planned(r, api_calls=60)
        first = plan.ranges[0]
        with used_by_others(r, left_above_reserve=30 + SPARE + 1):
            r.walls.soql.describe()
            check_range(r.walls, plan, first)
        with used_by_others(r, left_above_reserve=30 + SPARE):
            r.walls.soql.describe()
            with pytest.raises(Parked):
                check_range(r.walls, plan, first)


# Parking


def test_pauses_grow_until_something_gets_through_and_lanes_wait_for_one_instant(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        plan_id, book = r.night.plan_id, r.walls.book
        pauses = []
        for _ in range(4):
            now = r.walls.now()
            parked = parking_of(r.walls, plan_id, LimitExceeded("no calls left"))
            assert parked is not None
            book.park(plan_id, until=parked.until, reason=parked.message)
            beside = parking_of(r.walls, plan_id, LimitExceeded("no calls left"))
            assert beside is not None and beside.until == parked.until
            pauses.append((parked.until - now).total_seconds() / 60)
            r.waiting.sleep((parked.until - now).total_seconds())
        assert pauses == [10, 20, 30, 30]

        book.unpark(plan_id)
        again = parking_of(r.walls, plan_id, LimitExceeded("no calls left"))
        assert again is not None and again.until == r.walls.now() + timedelta(minutes=10)


def test_what_is_no_limit_and_no_full_disk_parks_nothing(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        for error in (WireError("cut off"), OSError(2, "No such file"), KeyboardInterrupt()):
            assert parking_of(r.walls, r.night.plan_id, error) is None
        full = parking_of(r.walls, r.night.plan_id, DiskFull("The disk has no room for x, which needs 7 bytes."))
        assert full is not None
        assert "which needs 7 bytes. The night needs about" in full.message


def test_a_disk_at_its_reserve_parks_before_anything_is_written(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE, disk_reserve_bytes=10**18) as r:
        r.walls.book.unpark(r.night.plan_id)
        with pytest.raises(Parked, match=r"needs \d+ more bytes free"):
            check_disk(r.walls, r.night.plan, needed=1)

        with pytest.raises(Parked):
            r.run()

        assert (r.entry().state, r.entry().runs) == (RangeState.PARKED, 0)
        assert r.night.parked_reason.startswith("The disk of")
        assert not r.walls.area.range_folder(r.night.plan_id, r.partitions[0], 1).exists()


# A night


def test_a_parked_night_makes_one_call_for_each_probe_and_goes_on_when_there_is_headroom(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        assert r.night
        with used_by_others(r, left_above_reserve=0):
            for parkings in (1, 2, 3):
                asked = r.org.usage()[0]
                with pytest.raises(Parked):
                    r.run()
                assert r.org.usage()[0] - asked == 1
                assert r.night.parkings == parkings
                assert r.night.parked_until is not None
                r.waiting.sleep((r.night.parked_until - r.walls.now()).total_seconds())

        assert r.run().counts.created == 50
        assert (r.night.parked_until, r.entry().attempts) == (None, 0)


def test_the_reserve_is_never_touched_wherever_others_use_the_calls_up(tmp_path: Path) -> None:
    total = _calls_of_a_run(tmp_path / "whole")
    with rehearsal(tmp_path, rows=60, rows_per_range=60, lanes=1, page_rows=20) as r:
        assert r.night
        parkings = 0
        for nth in range(2, total, 2):
            asked = len(r.wire.requests)

            def spend(request: httpx.Request, last: int = asked + nth) -> None:
                if len(r.wire.requests) == last:
                    used, most = r.org.usage()
                    r.org.set_setting("api_used", most - RESERVE - SPARE - used)

            r.wire.before = spend
            try:
                r.run(start="fresh")
            except Parked:
                parkings += 1
                used, most = r.org.usage()
                assert used <= most - RESERVE
            r.wire.before = lambda request: None
            r.org.set_setting("api_used", 0)
            assert r.run(start="resume").state is RangeState.DONE
            assert r.open_jobs() == []
        assert parkings >= 5
        assert r.is_equal()


def test_lanes_of_several_processes_keep_the_reserve_together(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=300, rows_per_range=50, part_rows=50, lanes=6) as r:
        assert r.night
        others = [r.again() for _ in range(6)]
        with used_by_others(r, left_above_reserve=6 * SPARE + 40), ThreadPoolExecutor(max_workers=6) as lanes:
            ended = list(lanes.map(lambda place: _ended(others[place], place), range(6)))
            used, most = r.org.usage()
            assert used <= most - RESERVE
        assert Parked in ended

        r.walls.book.unpark(r.night.plan_id)
        for place in range(6):
            assert others[place].run(place).state is RangeState.DONE
        assert r.is_equal()
        assert r.open_jobs() == []
        for other in others:
            other.walls.close()


def test_a_job_in_flight_when_the_night_parks_is_not_sent_again(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        assert r.night

        def spend(request: httpx.Request) -> None:
            if request.method == "PATCH":
                r.org.set_setting("api_used", 80_000)

        r.wire.before = spend
        with pytest.raises(Parked):
            r.run()
        assert [job.state for job in r.jobs()] == ["UploadComplete"]
        r.wire.before = lambda request: None
        r.org.set_setting("api_used", 0)

        r.run()

        assert [job.state for job in r.org_jobs()] == ["JobComplete"]
        assert r.is_equal()


def _ended(r: Rehearsal, place: int) -> type[BaseException] | None:
    try:
        r.run(place)
    except Parked as parked:
        return type(parked)
    return None


def _calls_of_a_run(folder: Path) -> int:
    with rehearsal(folder, rows=60, rows_per_range=60, lanes=1, page_rows=20) as r:
        assert r.night
        before = r.org.usage()[0]
        r.run()
        return r.org.usage()[0] - before
