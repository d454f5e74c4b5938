"""A person's start of a parked night looks at once whether there is room, whatever it was parked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sync_pipeline.domain.errors import Parked
from sync_pipeline.domain.ledger import RangeState, Verdict
from sync_pipeline.domain.night import NightEntry
from sync_pipeline.engine.night import drive, open_night, restart
from sync_pipeline_tests.engine.rehearsal import Rehearsal, rehearsal

ROWS = 1200
"""Two records of one kilobyte each are charged as 2 KB, so that these need 3 MB."""


@dataclass(frozen=True)
class Shortage:
    """Something that the org or the disk has too little of: how it comes, how bad it is, and how it is told."""

    begin: Callable[[Rehearsal, int], None]
    """With so much left, in the measure of the thing."""
    end: Callable[[Rehearsal], None]
    first: int
    then: int
    told: str
    """With ``{left}`` for what is left."""


def use_calls(r: Rehearsal, left: int) -> None:
    used, most = r.org.usage()
    r.org.set_setting("api_used", most - left - used + int(r.org.setting("api_used", 0)))


def limit(name: str) -> Callable[[Rehearsal, int], None]:
    def use(r: Rehearsal, left: int) -> None:
        r.org.set_setting("limits", {name: {"Max": 10_000, "Used": 10_000 - left}})

    return use


def fill_disk(r: Rehearsal, left: int) -> None:
    """The reserve is so large that nothing may be used."""
    r.walls = replace(r.walls, policy=replace(r.walls.policy, disk_reserve_bytes=10**15 - left))


def no_limits(r: Rehearsal) -> None:
    r.org.set_setting("limits", {})
    r.org.set_setting("api_used", 0)
    r.walls = replace(r.walls, policy=replace(r.walls.policy, disk_reserve_bytes=0))


SHORTAGES = {
    "calls": Shortage(use_calls, no_limits, 20_010, 20_005, "API calls are needed"),
    "batches": Shortage(
        limit("DailyBulkApiBatches"), no_limits, 3, 2, "ingest batches are needed; {left} are left today"
    ),
    "storage": Shortage(
        limit("DataStorageMB"), no_limits, 1, 0, "data storage are needed for new rows; {left} MB are left"
    ),
    "disk": Shortage(fill_disk, no_limits, 2, 1, "bytes of disk are needed; 0 may be used"),
}


def by_sync(r: Rehearsal) -> NightEntry:
    return open_night(r.walls, rearm=True, say=lambda line: None)


def by_restart(r: Rehearsal) -> NightEntry:
    return restart(r.walls)


@pytest.fixture(params=SHORTAGES.values(), ids=SHORTAGES.keys())
def parked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Rehearsal, Shortage]]:
    """A night that did not begin for want of something."""
    shortage: Shortage = request.param
    with rehearsal(tmp_path, rows=ROWS, rows_per_range=600, page_rows=600, part_rows=600, batch_rows=100) as r:
        shortage.begin(r, shortage.first)
        assert open_night(r.walls, say=lambda line: None).parked_until is not None
        yield r, shortage


@pytest.mark.parametrize("start", [by_sync, by_restart])
def test_a_start_says_what_is_short_now_and_until_when_it_waits(
    parked: tuple[Rehearsal, Shortage], start: Callable[[Rehearsal], NightEntry]
) -> None:
    r, shortage = parked
    before, asked = r.night, len(r.wire.requests)
    shortage.begin(r, shortage.then)

    again = start(r)
    looks = r.wire.requests[asked:]
    ended = drive(r.walls, again, on_event=lambda line: None)

    assert shortage.told.format(left=shortage.then) in again.parked_reason
    assert again.parked_until == before.parked_until
    assert [line.rpartition("/")[2] for line in looks] == ["limits"]
    assert r.wire.requests[asked:] == looks  # the drive does not ask again
    assert ended.verdict is None and ended.parked_reason == again.parked_reason


@pytest.mark.parametrize("start", [by_sync, by_restart])
def test_a_start_goes_on_at_once_when_there_is_room(
    parked: tuple[Rehearsal, Shortage], start: Callable[[Rehearsal], NightEntry]
) -> None:
    r, shortage = parked
    shortage.end(r)
    waited = r.waiting.seconds

    again = start(r)

    assert again.parked_until is None
    assert drive(r.walls, again, on_event=lambda line: None).verdict is Verdict.RECONCILED
    assert r.waiting.seconds - waited < 300
    assert r.wire.count("GET", "/limits") == 2  # of the plan and of the start


def test_a_range_that_a_person_runs_looks_for_itself(parked: tuple[Rehearsal, Shortage]) -> None:
    r, shortage = parked
    shortage.begin(r, shortage.then)

    with pytest.raises(Parked):
        r.run(0)
    assert (r.entry(0).state, r.entry(0).attempts) == (RangeState.PARKED, 0)
    shortage.end(r)

    assert r.run(0).state is RangeState.DONE
    assert r.night.parked_until is None
