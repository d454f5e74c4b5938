"""What a night may use of the org's API calls and of the disk. At the reserve it parks, until somebody made room.

Every answer of the org says how many calls everybody together has used (``Sforce-Limit-Info``), so that the reserve
holds whoever else shares the org: it is never touched, not even to look at a job. A job that is in flight when the
night parks goes on in the org, and its results are read when calls are left for that.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from sync_pipeline.domain.errors import DiskFull, LimitExceeded, Parked, PlanRefused
from sync_pipeline.domain.ledger import Counts
from sync_pipeline.domain.night import NightEntry, RangeEntry
from sync_pipeline.domain.plan import Plan, PlannedRange
from sync_pipeline.engine.findings import reserve
from sync_pipeline.engine.planning import check_forecast, forecast_now
from sync_pipeline.engine.walls import Walls
from sync_pipeline.staging.durable import is_full

log = logging.getLogger(__name__)

PROBE_PAUSES: Final = (timedelta(minutes=10), timedelta(minutes=20), timedelta(minutes=30))
"""How long a night stays parked before one range probes for headroom; the last one repeats."""
ON_THE_WAY: Final = 4
"""Calls of one lane that may be under way while another one looks at what is left."""


def check_before_start(walls: Walls, plan: Plan) -> Parked | None:
    """Why the night cannot begin now, if its forecast does not fit into what is left; the caller parks it.

    Raises ``PlanRefused`` when it would not fit on a day without any other use of the org either.
    """
    forecast = plan.forecast
    if forecast is not None and forecast.api_calls_max is not None:
        usable = forecast.api_calls_max - reserve(forecast.api_calls_max, walls.policy)
        if forecast.api_calls > usable:
            raise PlanRefused(
                f"About {forecast.api_calls} API calls are needed; the org allows {forecast.api_calls_max} a day, "
                f"of which {usable} may be used (SYNC_API_RESERVE).",
                hint="Send larger parts and pages, or lower SYNC_API_RESERVE.",
            )
    shortages = check_forecast(plan, walls.policy)
    return _parked(walls, plan.plan_id, " ".join(shortages)) if shortages else None


def look_again(walls: Walls, night: NightEntry, ranges: Sequence[RangeEntry]) -> Parked | None:
    """Why a parked night cannot go on now, by what the org and the disk say at this moment; ``None`` when it can.

    One call. Whatever the night was parked for, everything that it needs is looked at: calls, ingest batches, data storage
    and disk, each for the rows that are left. Where nothing can be learnt there is room until a run finds otherwise.
    """
    forecast = night.plan.forecast
    if forecast is None:
        return None
    total = sum((entry.counts for entry in ranges), Counts())
    expected = max(night.plan.expected, 1)
    try:
        now = forecast_now(
            walls,
            forecast,
            unsent=max(1 - total.accounted / expected, 0.0),
            unread=max(1 - total.staged / expected, 0.0),
        )
    except LimitExceeded as error:  # not even this call is left
        return _parked(walls, night.plan_id, error.message)
    shortages = check_forecast(replace(night.plan, forecast=now), walls.policy)
    return _parked(walls, night.plan_id, " ".join(shortages)) if shortages else None


def check_range(walls: Walls, plan: Plan, planned: PlannedRange) -> None:
    """Raises ``Parked`` when there is no headroom for the whole of a range of which nothing has been done yet."""
    forecast = plan.forecast
    if forecast is None or not plan.expected:
        check_calls(walls, plan)
        return
    share = planned.expected / plan.expected
    check_calls(walls, plan, calls=math.ceil(forecast.api_calls * share))
    check_disk(walls, plan, needed=math.ceil(forecast.disk_bytes * share))


def check_calls(walls: Walls, plan: Plan, *, calls: int = 1) -> None:
    """Raises ``Parked`` when so many more API calls could touch the reserve."""
    usage = _usage(walls, plan)
    if usage is None:
        return
    used, most = usage
    kept = reserve(most, walls.policy)
    if used + calls + ON_THE_WAY * walls.policy.lanes > most - kept:
        raise _parked(
            walls,
            plan.plan_id,
            f"{used} of the org's {most} API calls of a day are used; {kept} are kept in reserve (SYNC_API_RESERVE).",
        )


def check_disk(walls: Walls, plan: Plan, *, needed: int) -> None:
    """Raises ``Parked`` when writing so many bytes would touch the disk's reserve."""
    free, kept = walls.area.free_bytes(), walls.policy.disk_reserve_bytes
    if free - needed < kept:
        raise _parked(
            walls,
            plan.plan_id,
            f"The disk of {walls.area.home} needs {needed + kept - free} more bytes free: {needed} are to be written, "
            f"{kept} are kept in reserve (SYNC_DISK_RESERVE), {free} are free.",
        )


def parking_of(walls: Walls, plan_id: str, error: BaseException) -> Parked | None:
    """The parking that this error means: a limit of the org or a full disk. ``None`` for any other error."""
    if isinstance(error, Parked):
        return error
    if isinstance(error, LimitExceeded):
        return _parked(walls, plan_id, error.message)
    if isinstance(error, DiskFull):
        return _parked(walls, plan_id, f"{error.message} {_need(walls, plan_id)}".strip())
    if isinstance(error, Exception) and is_full(error):
        name = f" for {error.filename}" if isinstance(error, OSError) and error.filename else ""
        return _parked(walls, plan_id, f"The disk has no room{name}. {_need(walls, plan_id)}".strip())
    return None


def _need(walls: Walls, plan_id: str) -> str:
    """What the whole night takes of the disk, where the plan says so."""
    night = walls.book.night(plan_id)
    if night is None or night.plan.forecast is None:
        return ""
    return f"The night needs about {night.plan.forecast.disk_bytes} bytes in all; {walls.area.free_bytes()} are free."


def _parked(walls: Walls, plan_id: str, reason: str) -> Parked:
    """The longer the more often the night was parked since something last got through. Lanes that park one after the
    other wait for the same instant."""
    night, now = walls.book.night(plan_id), walls.now()
    if night is not None and night.parked_until is not None and night.parked_until > now:
        until = night.parked_until
    else:
        until = now + PROBE_PAUSES[min(night.parkings if night is not None else 0, len(PROBE_PAUSES) - 1)]
    return Parked(reason, until=until, hint="It goes on by itself; `sync-pipeline limits` shows what is left.")


def _usage(walls: Walls, plan: Plan) -> tuple[int, int] | None:
    """API calls used and allowed today: as the org last said, else as forecast and metered. ``None``: nobody knows."""
    if walls.session.limit_info is not None:
        return walls.session.limit_info
    forecast = plan.forecast
    if forecast is None or forecast.api_calls_left is None or forecast.api_calls_max is None:
        return None
    metered = sum(walls.book.calls(plan.plan_id).values())
    return forecast.api_calls_max - forecast.api_calls_left + metered, forecast.api_calls_max
