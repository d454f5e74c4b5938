"""The REST API of the core host: queries, limits, describe and single records. Records by the dozen are in
``record_collections.py``, requests within requests in ``composite.py``.

REST API Developer Guide: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_list.htm

Knobs: those of ``allocations.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from sync_pipeline.simulated_org.allocations import limits
from sync_pipeline.simulated_org.call import Call, Refused, Route, empty_answer, json_answer
from sync_pipeline.simulated_org.cursors import Batch, first_batch, next_batch, spool
from sync_pipeline.simulated_org.describe import described, described_object
from sync_pipeline.simulated_org.grammar import Comparison, Every, Instant, Name, Query, Selected, parse
from sync_pipeline.simulated_org.groups import groups_of
from sync_pipeline.simulated_org.objects import Field, SObject, objects
from sync_pipeline.simulated_org.query_facts import columns_of, plans_of
from sync_pipeline.simulated_org.record_json import Saved, save_records, shown_groups, shown_records
from sync_pipeline.simulated_org.records import DELETED_SECONDS, Records
from sync_pipeline.simulated_org.resources import (
    NOT_FOUND,
    OBJECT,
    V,
    equals,
    fields_asked,
    id_in_path,
    key_field,
    key_value,
    object_named,
    object_of,
    paths_found,
    records_found,
    root_of,
)
from sync_pipeline.simulated_org.saving import Operation
from sync_pipeline.simulated_org.soql import bind, count_rows, rows_of, snapshot
from sync_pipeline.simulated_org.standing import ensure_standing_rows

BATCH_ROWS: Final = 2_000
"""Records of one answer, and the most that ``Sforce-Query-Options`` may ask for."""
BATCH_ROWS_MIN: Final = 200
GONE: Final = ("ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY", "MALFORMED_ID", "NOT_FOUND")
"""Codes of a record that is not there, when the record is the resource itself."""
REPLICATED_SECONDS: Final = 30 * 86_400
REPLICATED_MAX: Final = 600_000
"""How far back ``updated`` looks, and the most ids that it and ``deleted`` answer."""


# Queries.


def query(call: Call) -> httpx.Response:
    """``GET query?q=…`` and ``queryAll``: all records that match, a batch of them at once.

    With ``explain=…`` in place of ``q`` it says how it would find them, with ``columns=true`` what they would be made of.
    """
    explained = call.query.get("explain", "")
    if explained.strip():
        return json_answer({"plans": plans_of(call.org, parse(explained))})
    source = call.query.get("q", "")
    if not source.strip():
        raise Refused(400, "MALFORMED_QUERY", "A query string has to be specified")
    parsed = parse(source)
    if call.query.get("columns", "").lower() == "true":
        return json_answer(columns_of(call.org, parsed))
    org, with_deleted = call.org, call.parts.get("verb", "").lower() == "queryall"
    if parsed.is_count:
        with snapshot(org):
            rows = count_rows(org, parsed, include_deleted=with_deleted)
        return json_answer({"totalSize": rows, "done": True, "records": []})
    if parsed.is_aggregate:
        with snapshot(org):
            records = shown_groups(groups_of(org, parsed, include_deleted=with_deleted))
        return json_answer({"totalSize": len(records), "done": True, "records": records})
    name = bind(org, parsed).object.name
    with snapshot(org):
        frames = rows_of(org, parsed, include_deleted=with_deleted, with_ids=True)
        found = spool(org, frames, size=_batch_rows(call))
    return _batch(call, first_batch(org, found, user_id=call.session.user_id, name=name))


def query_more(call: Call) -> httpx.Response:
    """``GET query/{locator}``: the following batch."""
    return _batch(
        call, next_batch(call.org, call.parts["locator"], user_id=call.session.user_id, size=_batch_rows(call))
    )


def _batch(call: Call, batch: Batch) -> httpx.Response:
    answer: dict[str, Any] = {"totalSize": batch.rows, "done": batch.following is None}
    if batch.following is not None:
        answer["nextRecordsUrl"] = f"{root_of(call)}/query/{batch.following}"
    answer["records"] = shown_records(batch.frame, object_named(call, batch.object), root=root_of(call))
    return json_answer(answer)


def _batch_rows(call: Call) -> int:
    found = re.search(r"batchSize\s*=\s*(\d{1,9})", call.headers.get("sforce-query-options", ""), re.IGNORECASE)
    return BATCH_ROWS if found is None else min(max(int(found[1]), BATCH_ROWS_MIN), BATCH_ROWS)


def tooling_query(call: Call) -> httpx.Response:
    """``GET tooling/query``: nothing was ever built in this org."""
    name = parse(call.query.get("q", "")).object
    return json_answer(
        {"size": 0, "totalSize": 0, "done": True, "queryLocator": None, "entityTypeName": name, "records": []}
    )


# Limits.


def show_limits(call: Call) -> httpx.Response:
    """``GET limits``."""
    return json_answer(limits(call.org, float(call.version)))


def record_count(call: Call) -> httpx.Response:
    """``GET limits/recordCount?sObjects=…``: how many records the objects hold; of all objects when none is named."""
    ensure_standing_rows(call.org)
    named = [name.strip().lower() for name in call.query.get("sObjects", "").split(",") if name.strip()]
    known = objects(call.org)
    counted = [known[name] for name in dict.fromkeys(named) if name in known] if named else known.values()
    return json_answer(
        {"sObjects": [{"count": len(Records(call.org, found)), "name": found.name} for found in counted]}
    )


# Objects.


def list_objects(call: Call) -> httpx.Response:
    """``GET sobjects``."""
    listed = sorted(objects(call.org).values(), key=lambda found: found.name)
    shown = [described_object(found, root=root_of(call)) for found in listed]
    return json_answer({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": shown})


def show_object(call: Call) -> httpx.Response:
    """``GET sobjects/{object}``."""
    return json_answer({"objectDescribe": described_object(object_of(call), root=root_of(call)), "recentItems": []})


def describe_object(call: Call) -> httpx.Response:
    """``GET sobjects/{object}/describe``."""
    return json_answer(described(object_of(call), root=root_of(call)))


def recently_viewed(call: Call) -> httpx.Response:
    """``GET recent``: nobody ever looked at a record of this org in a browser."""
    return json_answer([])


def updated_records(call: Call) -> httpx.Response:
    """``GET sobjects/{object}/updated?start=…&end=…``: ids of records that were made or changed in that time.

    sObject Get Updated: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_getupdated.htm
    """
    sobject = object_of(call)
    start, end = _span(call, REPLICATED_SECONDS)
    stamp = Name("SystemModstamp", 0)
    within = Every((Comparison(stamp, ">=", (Instant(start, 0),), 0), Comparison(stamp, "<", (Instant(end, 0),), 0)))
    wanted = Query("", (Selected(Name("Id", 0)),), Name(sobject.name, 0), where=within, limit=REPLICATED_MAX + 1)
    with snapshot(call.org):
        ids = [row_id for frame in rows_of(call.org, wanted) for row_id in frame["Id"]]
    if len(ids) > REPLICATED_MAX:
        raise Refused(400, "EXCEEDED_ID_LIMIT", f"More than {REPLICATED_MAX} ids; ask for a shorter time")
    return json_answer({"ids": ids, "latestDateCovered": _stamp(_covered(call, end))})


def deleted_records(call: Call) -> httpx.Response:
    """``GET sobjects/{object}/deleted?start=…&end=…``: ids of records that were deleted in that time.

    sObject Get Deleted: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_getdeleted.htm
    """
    records = Records(call.org, object_of(call))
    start, end = _span(call, DELETED_SECONDS)
    now = call.org.now()
    found = records.deleted(start.timestamp(), end.timestamp())
    if len(found) > REPLICATED_MAX:
        raise Refused(400, "EXCEEDED_ID_LIMIT", f"More than {REPLICATED_MAX} ids; ask for a shorter time")
    return json_answer(
        {
            "deletedRecords": [
                {"id": row_id, "deletedDate": _stamp(datetime.fromtimestamp(at, UTC))} for row_id, at in found
            ],
            "earliestDateAvailable": _stamp(datetime.fromtimestamp(now - DELETED_SECONDS, UTC)),
            "latestDateCovered": _stamp(_covered(call, end)),
        }
    )


def _span(call: Call, most_seconds: float) -> tuple[datetime, datetime]:
    """The time that is asked for. Raises ``Refused`` (400) when it is none, or begins too long ago."""
    start, end = _minute(call, "start"), _minute(call, "end")
    if start >= end:
        raise Refused(400, "INVALID_REPLICATION_DATE", "startDate must be before endDate")
    if start.timestamp() < call.org.now() - most_seconds:
        days = int(most_seconds // 86_400)
        raise Refused(400, "INVALID_REPLICATION_DATE", f"startDate before org's replication limit of {days} days")
    return start, end


def _covered(call: Call, end: datetime) -> datetime:
    """The last minute that an answer can speak of."""
    return min(end, datetime.fromtimestamp(call.org.now(), UTC).replace(second=0, microsecond=0))


def _stamp(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def _minute(call: Call, name: str) -> datetime:
    """An instant in the query string, whose seconds do not count. Raises ``Refused`` (400)."""
    text = call.query.get(name, "").replace(" ", "+")  # a plus that was not encoded
    try:
        found = datetime.fromisoformat(text)
        found = found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Refused(
            400, "INVALID_REPLICATION_DATE", f"{name} must be a date and time such as 2026-01-31T00:00:00Z"
        ) from None
    return found.replace(second=0, microsecond=0)


# Single records.


def show_record(call: Call) -> httpx.Response:
    """``GET sobjects/{object}/{id}?fields=…``."""
    sobject = object_of(call)
    return json_answer(_first(call, sobject, equals("Id", id_in_path(call))))


def show_record_by_key(call: Call) -> httpx.Response:
    """``GET sobjects/{object}/{field}/{value}``; 300 with their paths when there are several."""
    sobject = object_of(call)
    where = equals(key_field(call, sobject).name, key_value(call))
    paths = paths_found(call, sobject, where)
    return json_answer(paths, status=300) if len(paths) > 1 else json_answer(_first(call, sobject, where))


def create_record(call: Call) -> httpx.Response:
    """``POST sobjects/{object}``: 201."""
    sobject = object_of(call)
    saved = _save_one(call, sobject, "insert", _record(call.json))
    return _created(call, sobject, saved, with_created=False)


def update_record(call: Call) -> httpx.Response:
    """``PATCH sobjects/{object}/{id}``: 204."""
    sobject = object_of(call)
    _save_one(call, sobject, "update", {**_record(call.json), "Id": id_in_path(call)})
    return empty_answer(204)


def delete_record(call: Call) -> httpx.Response:
    """``DELETE sobjects/{object}/{id}``: 204."""
    _save_one(call, object_of(call), "delete", {"Id": id_in_path(call)})
    return empty_answer(204)


def delete_record_by_key(call: Call) -> httpx.Response:
    """``DELETE sobjects/{object}/{field}/{value}``: 204, or 300 with the paths of several."""
    sobject = object_of(call)
    paths = paths_found(call, sobject, equals(key_field(call, sobject).name, key_value(call)))
    if len(paths) > 1:
        return json_answer(paths, status=300)
    if not paths:
        raise Refused(404, "NOT_FOUND", NOT_FOUND)
    _save_one(call, sobject, "delete", {"Id": paths[0].rpartition("/")[2]})
    return empty_answer(204)


def upsert_record(call: Call) -> httpx.Response:
    """``PATCH sobjects/{object}/{field}/{value}``: 201 when it was created, 200 when it was updated, 300 for several."""
    sobject = object_of(call)
    key, record = key_field(call, sobject), _record(call.json)
    if any(name.lower() == key.name.lower() for name in record):
        raise Refused(400, "INVALID_FIELD", f"Do not specify {key.name} in the request body; it is part of the URI")
    value = key_value(call)
    paths = paths_found(call, sobject, equals(key.name, value))
    if len(paths) > 1:
        return json_answer(paths, status=300)
    saved = _save_one(call, sobject, "upsert", {**record, key.name: value}, key_field=key)
    if saved.created:
        return _created(call, sobject, saved, with_created=True)
    return json_answer(saved.shown(with_created=True))


def _created(call: Call, sobject: SObject, saved: Saved, *, with_created: bool) -> httpx.Response:
    location = f"{root_of(call)}/sobjects/{sobject.name}/{saved.id}"
    return json_answer(saved.shown(with_created=with_created), status=201, headers={"Location": location})


def _save_one(
    call: Call, sobject: SObject, operation: Operation, record: Mapping[str, Any], *, key_field: Field | None = None
) -> Saved:
    ensure_standing_rows(call.org)
    (saved,) = save_records(call.org, call.session.user_id, sobject, operation, [record], key_field=key_field)
    if saved.is_saved:
        return saved
    if operation in ("update", "delete") and saved.code in GONE:
        raise Refused(404, "NOT_FOUND", NOT_FOUND)
    raise Refused(400, saved.code, saved.message, fields=saved.fields)


def _record(given: object) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise Refused(400, "JSON_PARSER_ERROR", "The request body must be one record, a JSON object")
    return given


def _first(call: Call, sobject: SObject, where: Comparison) -> dict[str, Any]:
    """The record that a condition finds, with the fields that are asked for. Raises ``Refused`` (404)."""
    given = [name.strip() for name in call.query.get("fields", "").split(",") if name.strip()]
    records = records_found(call, sobject, fields_asked(sobject, given), where, limit=1)
    if not records:
        raise Refused(404, "NOT_FOUND", NOT_FOUND)
    return records[0]


ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", rf"{V}/(?P<verb>query|queryAll)", query),
    Route("GET", rf"{V}/(?:query|queryAll)/(?P<locator>[^/]+)", query_more),
    Route("GET", rf"{V}/tooling/query", tooling_query),
    Route("GET", rf"{V}/limits", show_limits),
    Route("GET", rf"{V}/limits/recordCount", record_count, since=40),
    Route("GET", rf"{V}/recent", recently_viewed),
    Route("GET", rf"{V}/sobjects", list_objects),
    Route("GET", OBJECT, show_object),
    Route("POST", OBJECT, create_record),
    Route("GET", rf"{OBJECT}/describe", describe_object),
    Route("GET", rf"{OBJECT}/updated", updated_records),
    Route("GET", rf"{OBJECT}/deleted", deleted_records),
    Route("GET", rf"{OBJECT}/(?P<id>[^/]+)", show_record),
    Route("PATCH", rf"{OBJECT}/(?P<id>[^/]+)", update_record),
    Route("DELETE", rf"{OBJECT}/(?P<id>[^/]+)", delete_record),
    Route("GET", rf"{OBJECT}/(?P<field>\w+)/(?P<value>[^/]+)", show_record_by_key),
    Route("PATCH", rf"{OBJECT}/(?P<field>\w+)/(?P<value>[^/]+)", upsert_record),
    Route("DELETE", rf"{OBJECT}/(?P<field>\w+)/(?P<value>[^/]+)", delete_record_by_key),
)
