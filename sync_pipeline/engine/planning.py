"""The plan of a night: the source counted, cut into ranges of about equal size, and what the night will need.

A new plan keeps the boundaries of the last one as long as they balance, so that a range keeps its name and its history
from night to night. Nothing is kept and nothing is written here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

import polars as pl

from sync_pipeline.domain.errors import PlanRefused, RequestRefused, RightsError, WireError
from sync_pipeline.domain.keys import KeyRange, cover
from sync_pipeline.domain.ledger import IngestJob, JobState, Verdict
from sync_pipeline.domain.mapping import TargetObject
from sync_pipeline.domain.night import NightEntry
from sync_pipeline.domain.plan import Forecast, Plan, PlannedRange, SourceProfile
from sync_pipeline.domain.policy import OtherLoads, Policy, Verify
from sync_pipeline.domain.types import check_mapping
from sync_pipeline.engine.boundaries import SPLIT_ABOVE, chosen, merged, with_candidates
from sync_pipeline.engine.duplicates import SCHEMA as NO_GROUPS
from sync_pipeline.engine.equality import folds_case
from sync_pipeline.engine.findings import reserve, where_to_look
from sync_pipeline.engine.walls import Walls
from sync_pipeline.salesforce.soql import Limit

log = logging.getLogger(__name__)

KEPT_ABOVE: Final = 0.5
"""Boundaries whose ranges hold on average less than this share of the wanted rows are given up as a whole."""
CANDIDATES: Final = 4
"""Pieces of one wanted range among which new boundaries are chosen."""
COUNTS: Final = 2
"""How often the source is counted before rows that do not add up are called a moving source."""

# What the forecast reckons with; the sources are in reference measurements of the APIs.
PAGE_BYTES: Final = 2_000_000
"""Bytes of one answer with rows."""
VALUE_BYTES: Final = 20
"""JSON text of one value of a row."""
STATEMENT_CALLS: Final = 3
"""Submit, one look, delete."""
SURVEY_CALLS: Final = 1 + 2 + 1 + 3
"""Describe, the columns of the source, the org's limits, and who else is at work."""
COLUMN_CALLS: Final = 2
"""A run that asks the source for the types of its columns: submit and delete."""
COUNT_CALLS: Final = 1
"""How many rows the target holds."""
RECORD_KB: Final = 2
"""Data storage of one record: https://help.salesforce.com/s/articleView?id=000193871&type=1"""
JOB_CALLS: Final = 6
"""Create, upload, close and three result files."""
JOB_POLLS: Final = 4
"""Its share of the looks at all jobs, and of the jobs that send rows again."""
VERIFY_CALLS: Final = 25
"""The proof besides the pages of its query job: the job's creation, looks and deletion, the source counted once more, and
both sides counted by one field."""
VERIFY_PAGE_ROWS: Final = 250_000
VERIFY_PAGES_LISTED: Final = 5
"""Pages of which one answer says where they are."""
STAGED_BYTES: Final = 60
PART_BYTES: Final = 130
OUTCOME_BYTES: Final = 8
MEASURE_BYTES: Final = 70


def plan_night(walls: Walls, *, plan_id: str) -> tuple[Plan, pl.DataFrame]:
    """The plan of a new night, and the groups of rows that the target would match as one. Reads only.

    Raises ``MappingError`` when source or target lack what the mapping names, another ``UserError`` when the login or its
    rights do not suffice, ``PlanRefused`` when the source cannot be trusted, or others load the target and the settings
    say that a night must not begin then.
    """
    survey(walls)
    others, told = _others(walls)
    if others and walls.policy.other_loads is OtherLoads.REFUSE:
        raise PlanRefused(
            " ".join(others),
            hint="Wait for them or abort them in the org, or set SYNC_OTHER_LOADS=warn for this night.",
        )
    previous = _previous(walls)
    plan, groups = make_plan(walls, plan_id=plan_id, previous=previous)
    check_plausible(plan, previous, walls.policy)
    _check_not_emptied(walls, plan)
    return replace(plan, notes=(*plan.notes, *others, *told)), groups


def survey(walls: Walls) -> TargetObject:
    """Holds the mapping against both sides and returns the target as described; three calls, nothing is written.

    Raises ``MappingError`` when source or target lack what the mapping names or a pair of types cannot be carried
    faithfully, another ``UserError`` when the login or its rights do not suffice.
    """
    target = walls.soql.describe()
    check_mapping(walls.mapping, walls.data_cloud.columns(), target)
    return target


def other_jobs(walls: Walls) -> list[IngestJob]:
    """Open ingest jobs on the target object that no night of this home made: they take our locks and the org's calls.

    An Open job of this very user is left out. It may be one of ours whose create-answer was lost; a night ends those.
    """
    user_id, target_object = walls.session.user_id, walls.mapping.target_object
    return [
        job
        for job in walls.bulk.jobs()
        if not job.state.is_terminal
        and job.object == target_object
        and not (job.created_by == user_id and job.state is JobState.OPEN)
        and not walls.book.knows_job(job.id)
    ]


def _others(walls: Walls) -> tuple[list[str], list[str]]:
    """Sentences about others: who loads the target now, and what else may write to the org. What cannot be seen is said."""
    told: list[str] = []
    try:
        jobs = other_jobs(walls)
    except (RightsError, RequestRefused, WireError) as error:
        jobs, told = [], [f"Ingest jobs of others cannot be seen by this user ({error.message})"]
    loading = [
        f"Ingest job {job.id} ({job.operation}, {job.state.value}, by {job.created_by or 'somebody'}) loads {job.object} too."
        for job in jobs
    ]
    return loading, told + walls.soql.other_loads()


def check_plausible(plan: Plan, previous: Plan | None, policy: Policy) -> None:
    """Raises ``PlanRefused`` when the source holds far fewer rows than last night."""
    if previous is not None and plan.expected < previous.expected * policy.source_share_min:
        raise PlanRefused(
            f"The source holds {plan.expected} rows; the last plan counted {previous.expected}.",
            hint=f"If that is right, set SYNC_SOURCE_SHARE_MIN below {policy.source_share_min} for one night.",
        )


def _check_not_emptied(walls: Walls, plan: Plan) -> None:
    """Raises ``PlanRefused`` for a source without any row while the org holds keys: nobody could tell a source that is
    empty from one that this user may not read, or that has another name. One call, for an empty source alone."""
    if plan.profile.rows:
        return
    try:
        held = walls.soql.count()
        told = f"{held} rows with a key"
    except RequestRefused as error:  # a table that is too large to be counted is not empty
        held, told = 1, f"rows that could not be counted ({error.message})"
    if held:
        raise PlanRefused(
            f"{plan.source_object} holds no row that can be read, while {plan.target_object} holds {told}.",
            hint=where_to_look(plan.source_object, plan.org.dataspace),
        )


def _previous(walls: Walls) -> Plan | None:
    """The newest plan for the same org, source, data space and mapping."""
    return next((night.plan for night in walls.book.nights() if _is_ours(walls, night)), None)


def _is_ours(walls: Walls, night: NightEntry) -> bool:
    plan = night.plan
    is_same_org = (plan.org.org_id, plan.org.dataspace) == (walls.org.org_id, walls.org.dataspace)
    is_same_table = (plan.source_object, plan.mapping_digest) == (walls.mapping.source_object, walls.mapping.digest)
    return is_same_org and is_same_table


def make_plan(walls: Walls, *, plan_id: str, previous: Plan | None) -> tuple[Plan, pl.DataFrame]:
    """A plan of the source as it is now, and the groups of rows that the target would match as one.

    Statements sent: one profile; one count of the ranges; one more for boundaries and one for their counts where the
    last plan's boundaries do not balance or there are none; one for duplicates if the profile shows any; profile and
    counts once more if they do not add up. An empty source gives one range of 0 rows.

    Raises ``PlanRefused`` when the source orders its keys otherwise than by their UTF-8 bytes, or moves so fast that
    its counts do not add up.
    """
    target = walls.soql.describe()
    fold_case = folds_case(walls.mapping, target)
    profile = walls.data_cloud.profile(fold_case=fold_case)
    _check_order(walls.mapping.source_object, [profile.min_key, profile.max_key])
    ranges, counts = _balanced(walls, profile, previous)
    for _ in range(COUNTS - 1):
        if sum(counts) == profile.rows:
            break
        log.warning("the profile counts %d rows, the ranges hold %d; counting again", profile.rows, sum(counts))
        profile = walls.data_cloud.profile(fold_case=fold_case)
        counts = walls.data_cloud.counts(ranges)
    if sum(counts) != profile.rows:
        raise PlanRefused(
            f"{walls.mapping.source_object} holds {profile.rows} rows, its ranges {sum(counts)}, counted {COUNTS} times.",
            hint="A load into the source is running, or it orders keys otherwise than by bytes. Plan again later.",
        )
    groups = pl.DataFrame(schema=NO_GROUPS)
    if profile.has_duplicates:
        groups = walls.data_cloud.duplicates(fold_case=fold_case)
    forecast, notes = _forecast(walls, counts)
    plan = Plan(
        plan_id=plan_id,
        org=walls.org,
        source_object=walls.mapping.source_object,
        target_object=walls.mapping.target_object,
        mapping_digest=walls.mapping.digest,
        profile=profile,
        ranges=tuple(
            PlannedRange(place=place, range=key_range, expected=rows)
            for place, (key_range, rows) in enumerate(zip(ranges, counts, strict=True))
        ),
        created_at=walls.now(),
        forecast=forecast,
        notes=(*_notes_on(profile), *notes, *_shortages(forecast, walls.policy)),
    )
    return plan, groups


def forecast_now(walls: Walls, forecast: Forecast, *, unsent: float, unread: float) -> Forecast:
    """The same forecast beside what is left now, for the shares of its rows that are not sent and not read yet. One call;
    what cannot be asked is not known."""
    limits = _limits(walls, [])
    api, batches = limits.get("DailyApiRequests"), limits.get("DailyBulkApiBatches")
    storage = limits.get("DataStorageMB")
    return replace(
        forecast,
        api_calls=math.ceil(forecast.api_calls * max(unsent, unread)),
        ingest_batches=math.ceil(forecast.ingest_batches * unsent),
        disk_bytes=math.ceil(forecast.disk_bytes * unread),
        api_calls_left=api.remaining if api is not None else None,
        api_calls_max=api.max if api is not None else None,
        ingest_batches_left=batches.remaining if batches is not None else None,
        storage_mb=math.ceil(forecast.storage_mb * unsent) if forecast.storage_mb is not None else None,
        storage_mb_left=storage.remaining if storage is not None else None,
        disk_bytes_free=walls.area.free_bytes(),
    )


def check_forecast(plan: Plan, policy: Policy) -> list[str]:
    """Reasons why the night will not fit into what is left of the org's limits and the disk; empty when it fits."""
    return _shortages(plan.forecast, policy) if plan.forecast is not None else []


# Boundaries


def _balanced(walls: Walls, profile: SourceProfile, previous: Plan | None) -> tuple[tuple[KeyRange, ...], list[int]]:
    """Ranges of about the wanted size with their rows, by the last plan's boundaries where they still balance."""
    wanted = walls.policy.rows_per_range
    kept = [r.range.through for r in previous.ranges if r.range.through is not None] if previous is not None else []
    if not kept or profile.rows < KEPT_ABOVE * wanted * (len(kept) + 1):
        edges = walls.data_cloud.boundaries(rows_per_range=wanted, rows=profile.keyed_rows)
        _check_order(walls.mapping.source_object, [profile.min_key, *edges, profile.max_key])
        return cover(edges), walls.data_cloud.counts(cover(edges))
    counts = walls.data_cloud.counts(cover(kept))
    if max(counts) > SPLIT_ABOVE * wanted:
        fine = walls.data_cloud.boundaries(rows_per_range=max(wanted // CANDIDATES, 1), rows=profile.keyed_rows)
        _check_order(walls.mapping.source_object, [profile.min_key, *fine, profile.max_key])
        finer = with_candidates(kept, counts, fine, wanted=wanted)
        kept, counts = chosen(finer, walls.data_cloud.counts(cover(finer)), kept=set(kept), wanted=wanted)
    kept, counts = merged(kept, counts, wanted=wanted)
    return cover(kept), counts


def _check_order(source_object: str, keys: Sequence[str | None]) -> None:
    """The keys come from the source in its order; ranges need that to be the order of their UTF-8 bytes."""
    known = [key for key in keys if key is not None]
    if any(before > after for before, after in pairwise(known)):
        raise PlanRefused(
            f"{source_object} orders its keys otherwise than by their UTF-8 bytes, so ranges of it would lose rows.",
            hint="Map a key column of type text without a collation of its own.",
        )


# Forecast


def _forecast(walls: Walls, counts: Sequence[int]) -> tuple[Forecast, list[str]]:
    """What the night will need, beside what is left; and notes on what is not known."""
    policy, rows = walls.policy, sum(counts)
    notes: list[str] = []
    limits = _limits(walls, notes)
    seconds = _seconds(walls, rows)
    if seconds == 0.0 and rows:
        notes.append("How long it will take is not known: no earlier night over this source has ended.")
    api, batches = limits.get("DailyApiRequests"), limits.get("DailyBulkApiBatches")
    storage = limits.get("DataStorageMB")
    in_flight = min(rows, policy.load_slots * max(counts))
    forecast = Forecast(
        api_calls=_api_calls(counts, columns=len(walls.mapping.source_columns), policy=policy),
        ingest_batches=sum(math.ceil(part / policy.batch_rows) for part in _parts(counts, policy)),
        disk_bytes=rows * (STAGED_BYTES + OUTCOME_BYTES + MEASURE_BYTES) + in_flight * PART_BYTES,
        seconds=seconds,
        api_calls_left=api.remaining if api is not None else None,
        api_calls_max=api.max if api is not None else None,
        ingest_batches_left=batches.remaining if batches is not None else None,
        storage_mb=_storage_mb(walls, rows) if storage is not None else None,
        storage_mb_left=storage.remaining if storage is not None else None,
        disk_bytes_free=walls.area.free_bytes(),
    )
    return forecast, notes


def _storage_mb(walls: Walls, rows: int) -> int | None:
    """Data storage for the rows that the org does not hold yet, by one count of those it does."""
    try:
        new = max(rows - walls.soql.count(), 0) if rows else 0
    except RequestRefused:  # a count of a large table may take longer than the org allows
        return None
    return math.ceil(new * RECORD_KB / 1024)


def _api_calls(counts: Sequence[int], *, columns: int, policy: Policy) -> int:
    page_rows = max(min(policy.page_rows, PAGE_BYTES // (columns * VALUE_BYTES)), 1)
    calls = SURVEY_CALLS + COUNT_CALLS + 6 * STATEMENT_CALLS  # the statements of make_plan, and the rows without a key
    for rows in counts:
        calls += 1 + COLUMN_CALLS + STATEMENT_CALLS + math.ceil(rows / page_rows)
    calls += len(_parts(counts, policy)) * (JOB_CALLS + JOB_POLLS)
    if policy.verify is Verify.COUNTS:
        return calls + len(counts)
    pages = math.ceil(sum(counts) / VERIFY_PAGE_ROWS)
    return calls + VERIFY_CALLS + pages + math.ceil(pages / VERIFY_PAGES_LISTED)


def _parts(counts: Sequence[int], policy: Policy) -> list[int]:
    """Rows of each upload; parts end where a parent ends, so that a range may take one more than its rows say."""
    parts: list[int] = []
    for rows in counts:
        whole, rest = divmod(rows, policy.part_rows)
        parts += [policy.part_rows] * whole + ([rest] if rest else [])
    return parts


def _seconds(walls: Walls, rows: int) -> float:
    """At the pace of the last night that came to its end; 0 when there is none."""
    for night in walls.book.nights():
        if _is_ours(walls, night) and night.verdict not in (None, Verdict.ABANDONED) and night.plan.expected:
            return rows * night.seconds / night.plan.expected
    return 0.0


def _limits(walls: Walls, notes: list[str]) -> dict[str, Limit]:
    try:
        return walls.soql.limits()
    except (RightsError, RequestRefused) as error:
        notes.append(f"The org's limits cannot be read, so the forecast is not held against them: {error.message}")
        return {}


def _shortages(forecast: Forecast, policy: Policy) -> list[str]:
    reasons = []
    if forecast.api_calls_left is not None and forecast.api_calls_max is not None:
        kept = reserve(forecast.api_calls_max, policy)
        if forecast.api_calls > forecast.api_calls_left - kept:
            reasons.append(
                f"About {forecast.api_calls} API calls are needed; of the {forecast.api_calls_left} left today "
                f"{kept} are kept in reserve (SYNC_API_RESERVE)."
            )
    if forecast.ingest_batches_left is not None and forecast.ingest_batches > forecast.ingest_batches_left:
        reasons.append(
            f"About {forecast.ingest_batches} ingest batches are needed; {forecast.ingest_batches_left} are left today."
        )
    if (forecast.storage_mb or 0) > (forecast.storage_mb_left or 0) and forecast.storage_mb_left is not None:
        reasons.append(
            f"About {forecast.storage_mb} MB of the org's data storage are needed for new rows; "
            f"{forecast.storage_mb_left} MB are left."
        )
    if forecast.disk_bytes_free is not None:
        usable = max(forecast.disk_bytes_free - policy.disk_reserve_bytes, 0)
        if forecast.disk_bytes > usable:
            reasons.append(f"About {forecast.disk_bytes} bytes of disk are needed; {usable} may be used.")
    return reasons


def _notes_on(profile: SourceProfile) -> list[str]:
    notes = []
    if profile.null_keys:
        notes.append(f"{profile.null_keys} rows have no key and will be quarantined.")
    if profile.blank_keys:
        notes.append(f"{profile.blank_keys} rows have a blank key and will be quarantined.")
    if profile.has_duplicates:
        doubled = profile.keyed_rows - profile.blank_keys - profile.matched_keys
        notes.append(f"{doubled} rows share their key with another row, as the target matches keys.")
    return notes
