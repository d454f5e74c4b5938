"""The REST API of the core host: queries, limits, describe, single records, collections and composite requests.

REST API Developer Guide: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_list.htm

Knobs: those of ``allocations.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote

import httpx
import msgspec

from sync_pipeline.simulated_org.allocations import limits
from sync_pipeline.simulated_org.call import Call, Refused, Route, TenantRefused, empty_answer, json_answer
from sync_pipeline.simulated_org.conditions import whole_id
from sync_pipeline.simulated_org.cursors import Batch, first_batch, next_batch, spool
from sync_pipeline.simulated_org.describe import described, described_object
from sync_pipeline.simulated_org.grammar import Comparison, Name, Query, Selected, Text, parse
from sync_pipeline.simulated_org.groups import groups_of
from sync_pipeline.simulated_org.objects import Field, SObject, find_object, objects
from sync_pipeline.simulated_org.record_json import (
    Saved,
    all_saved_or_none,
    save_records,
    shown_groups,
    shown_records,
)
from sync_pipeline.simulated_org.records import BLANKS, Records
from sync_pipeline.simulated_org.saving import Operation
from sync_pipeline.simulated_org.soql import bind, count_rows, rows_of, snapshot
from sync_pipeline.simulated_org.standing import ensure_standing_rows

BATCH_ROWS: Final = 2_000
"""Records of one answer, and the most that ``Sforce-Query-Options`` may ask for."""
BATCH_ROWS_MIN: Final = 200
COLLECTION_MAX: Final = 200
"""Records of one collection."""
SUBREQUESTS_MAX: Final = 25
NOT_FOUND: Final = "The requested resource does not exist"
GONE: Final = ("ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY", "MALFORMED_ID", "NOT_FOUND")
"""Codes of a record that is not there, when the record is the resource itself."""
HALTED: Final = "The transaction was rolled back since another operation in the same transaction failed."


# Queries.


def query(call: Call) -> httpx.Response:
    """``GET query?q=…`` and ``queryAll``: all records that match, a batch of them at once."""
    source = call.query.get("q", "")
    if not source.strip():
        raise Refused(400, "MALFORMED_QUERY", "A query string has to be specified")
    parsed = parse(source)
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
        answer["nextRecordsUrl"] = f"{_root(call)}/query/{batch.following}"
    answer["records"] = shown_records(batch.frame, _object_named(call, batch.object), root=_root(call))
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
    return json_answer(limits(call.org))


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
    shown = [described_object(found, root=_root(call)) for found in listed]
    return json_answer({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": shown})


def show_object(call: Call) -> httpx.Response:
    """``GET sobjects/{object}``."""
    return json_answer({"objectDescribe": described_object(_object(call), root=_root(call)), "recentItems": []})


def describe_object(call: Call) -> httpx.Response:
    """``GET sobjects/{object}/describe``."""
    return json_answer(described(_object(call), root=_root(call)))


# Single records.


def show_record(call: Call) -> httpx.Response:
    """``GET sobjects/{object}/{id}?fields=…``."""
    sobject = _object(call)
    return json_answer(_first(call, sobject, _equals("Id", _given_id(call))))


def show_record_by_key(call: Call) -> httpx.Response:
    """``GET sobjects/{object}/{field}/{value}``; 300 with their paths when there are several."""
    sobject = _object(call)
    where = _equals(_key_field(call, sobject).name, _key_value(call))
    paths = _paths(call, sobject, where)
    return json_answer(paths, status=300) if len(paths) > 1 else json_answer(_first(call, sobject, where))


def create_record(call: Call) -> httpx.Response:
    """``POST sobjects/{object}``: 201."""
    sobject = _object(call)
    saved = _save_one(call, sobject, "insert", _record(call.json))
    return _created(call, sobject, saved, with_created=False)


def update_record(call: Call) -> httpx.Response:
    """``PATCH sobjects/{object}/{id}``: 204."""
    sobject = _object(call)
    _save_one(call, sobject, "update", {**_record(call.json), "Id": _given_id(call)})
    return empty_answer(204)


def delete_record(call: Call) -> httpx.Response:
    """``DELETE sobjects/{object}/{id}``: 204."""
    _save_one(call, _object(call), "delete", {"Id": _given_id(call)})
    return empty_answer(204)


def upsert_record(call: Call) -> httpx.Response:
    """``PATCH sobjects/{object}/{field}/{value}``: 201 when it was created, 200 when it was updated, 300 for several."""
    sobject = _object(call)
    key, record = _key_field(call, sobject), _record(call.json)
    if any(name.lower() == key.name.lower() for name in record):
        raise Refused(400, "INVALID_FIELD", f"Do not specify {key.name} in the request body; it is part of the URI")
    value = _key_value(call)
    paths = _paths(call, sobject, _equals(key.name, value))
    if len(paths) > 1:
        return json_answer(paths, status=300)
    saved = _save_one(call, sobject, "upsert", {**record, key.name: value}, key_field=key)
    if saved.created:
        return _created(call, sobject, saved, with_created=True)
    return json_answer(saved.shown(with_created=True))


def _created(call: Call, sobject: SObject, saved: Saved, *, with_created: bool) -> httpx.Response:
    location = f"{_root(call)}/sobjects/{sobject.name}/{saved.id}"
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


def _first(call: Call, sobject: SObject, where: Comparison) -> dict[str, Any]:
    """The record that a comparison finds, with the fields that are asked for. Raises ``Refused`` (404)."""
    given = [name.strip() for name in call.query.get("fields", "").split(",") if name.strip()]
    for name in given:
        if sobject.find(name) is None:
            raise Refused(400, "INVALID_FIELD", f"No such column '{name}' on sobject of type {sobject.name}")
    fields = given or [name for name in sobject.fields if "." not in name]
    with snapshot(call.org):
        frames = rows_of(call.org, _select(sobject, fields, where, limit=1), with_ids=True)
        records = [record for frame in frames for record in shown_records(frame, sobject, root=_root(call))]
    if not records:
        raise Refused(404, "NOT_FOUND", NOT_FOUND)
    return records[0]


def _paths(call: Call, sobject: SObject, where: Comparison) -> list[str]:
    """The paths of all records that a comparison finds."""
    with snapshot(call.org):
        frames = rows_of(call.org, _select(sobject, ["Id"], where, limit=None))
        ids = [row_id for frame in frames for row_id in frame["Id"]]
    return [f"{_root(call)}/sobjects/{sobject.name}/{row_id}" for row_id in ids]


def _select(sobject: SObject, fields: Sequence[str], where: Comparison, *, limit: int | None) -> Query:
    unique = {name.lower(): name for name in fields}.values()
    selected = tuple(Selected(Name(name, 0)) for name in unique)
    return Query("", selected, Name(sobject.name, 0), where=where, limit=limit)


def _equals(name: str, value: str) -> Comparison:
    raw = value.replace("\\", "\\\\").replace("'", "\\'")
    return Comparison(Name(name, 0), "=", (Text(raw, 0),), 0)


def _record(given: object) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise Refused(400, "JSON_PARSER_ERROR", "The request body must be one record, a JSON object")
    return given


def _given_id(call: Call) -> str:
    """The id in the path, whole. Raises ``Refused`` (404) when it is none."""
    whole = whole_id(call.parts["id"])
    if whole is None:
        message = f"Provided external ID field does not exist or is not accessible: {call.parts['id']}"
        raise Refused(404, "NOT_FOUND", message)
    return whole


def _key_field(call: Call, sobject: SObject) -> Field:
    """The external id in the path. Raises ``Refused`` (404) when it is none."""
    found = sobject.find(call.parts["field"])
    if found is None or not (found.external_id or found.id_lookup):
        message = f"Provided external ID field does not exist or is not accessible: {call.parts['field']}"
        raise Refused(404, "NOT_FOUND", message)
    return found


def _key_value(call: Call) -> str:
    """The key in the path, without blanks around it. Raises ``Refused`` (404) when nothing is left."""
    value = call.parts["value"].strip(BLANKS)
    if not value:
        raise Refused(404, "NOT_FOUND", NOT_FOUND)
    return value


# Collections.


class CollectionBody(msgspec.Struct):
    """Body of a collection that is created, updated or upserted."""

    records: list[dict[str, Any]]
    allOrNone: bool = False


def create_collection(call: Call) -> httpx.Response:
    """``POST composite/sobjects``: records of any object."""
    return _collection(call, "insert")


def update_collection(call: Call) -> httpx.Response:
    """``PATCH composite/sobjects``: records of any object, each with its ``id``."""
    return _collection(call, "update")


def upsert_collection(call: Call) -> httpx.Response:
    """``PATCH composite/sobjects/{object}/{field}``: records of one object, by an external id."""
    sobject = _object(call)
    key = _key_field(call, sobject)
    body = _collection_body(call)
    for record in body.records:
        kind = str(_attributes(record).get("type", ""))
        if kind.lower() != sobject.name.lower():
            message = f"The records of an upsert must have the type {sobject.name} in their attributes"
            raise Refused(400, "INVALID_TYPE", message)
    ensure_standing_rows(call.org)
    user = call.session.user_id

    def save() -> list[Saved]:
        return save_records(call.org, user, sobject, "upsert", body.records, key_field=key)

    saved = all_saved_or_none(call.org, save) if body.allOrNone else save()
    return json_answer([one.shown(with_created=True) for one in saved])


def delete_collection(call: Call) -> httpx.Response:
    """``DELETE composite/sobjects?ids=…&allOrNone=…``."""
    ids = [text.strip() for text in call.query.get("ids", "").split(",") if text.strip()]
    _check_size(len(ids))
    by_prefix = {found.prefix: found.name for found in objects(call.org).values()}
    records = []
    for text in ids:
        name = by_prefix.get(text[:3])
        if name is None or whole_id(text) is None:
            raise Refused(400, "MALFORMED_ID", f"malformed id {text}")
        records.append({"attributes": {"type": name}, "Id": whole_id(text)})
    all_or_none = call.query.get("allOrNone", "false").lower() == "true"
    return json_answer(
        [one.shown(with_created=False) for one in _saved_in_runs(call, "delete", records, all_or_none=all_or_none)]
    )


def _collection(call: Call, operation: Operation) -> httpx.Response:
    body = _collection_body(call)
    saved = _saved_in_runs(call, operation, body.records, all_or_none=body.allOrNone)
    return json_answer([one.shown(with_created=False) for one in saved])


def _saved_in_runs(
    call: Call, operation: Operation, records: Sequence[Mapping[str, Any]], *, all_or_none: bool
) -> list[Saved]:
    """Saves records of several objects, each stretch of one object at once."""
    ensure_standing_rows(call.org)
    stretches: list[tuple[SObject, list[Mapping[str, Any]]]] = []
    for record in records:
        name = str(_attributes(record).get("type", ""))
        sobject = find_object(call.org, name)
        if sobject is None:
            raise Refused(400, "INVALID_TYPE", f"sObject type '{name}' is not supported.")
        if not stretches or stretches[-1][0].name != sobject.name:
            stretches.append((sobject, []))
        stretches[-1][1].append(record)
    user = call.session.user_id

    def save() -> list[Saved]:
        return [one for found, group in stretches for one in save_records(call.org, user, found, operation, group)]

    return all_saved_or_none(call.org, save) if all_or_none else save()


def _collection_body(call: Call) -> CollectionBody:
    try:
        body = msgspec.convert(call.json, CollectionBody)
    except msgspec.ValidationError as error:
        raise Refused(400, "JSON_PARSER_ERROR", f"Unexpected content in the request body: {error}") from None
    _check_size(len(body.records))
    return body


def _check_size(records: int) -> None:
    if records > COLLECTION_MAX:
        message = f"record limit reached. cannot submit more than {COLLECTION_MAX} records into this call"
        raise Refused(400, "EXCEEDED_ID_LIMIT", message)


def _attributes(record: Mapping[str, Any]) -> Mapping[str, Any]:
    attributes = record.get("attributes")
    return attributes if isinstance(attributes, dict) else {}


# Composite.


class Subrequest(msgspec.Struct):
    """One request within a composite one."""

    method: str
    url: str
    referenceId: str
    body: Any = None
    httpHeaders: dict[str, str] = {}


class CompositeBody(msgspec.Struct):
    """Body of a composite request."""

    compositeRequest: list[Subrequest]
    allOrNone: bool = False


class _Undone(Exception):
    """A subrequest failed, and with it all of them."""


def composite(call: Call) -> httpx.Response:
    """``POST composite``: up to 25 requests of this API one after the other, for one API call. A later one may name what
    an earlier one answered, as ``@{reference.field}``."""
    try:
        body = msgspec.convert(call.json, CompositeBody)
    except msgspec.ValidationError as error:
        raise Refused(400, "JSON_PARSER_ERROR", f"Unexpected content in the request body: {error}") from None
    if len(body.compositeRequest) > SUBREQUESTS_MAX:
        message = f"Limit exceeded: a composite request has at most {SUBREQUESTS_MAX} subrequests"
        raise Refused(400, "LIMIT_EXCEEDED", message)
    ensure_standing_rows(call.org)
    results: list[dict[str, Any]] = []
    if not body.allOrNone:
        _run(call, body.compositeRequest, results, stop=False)
        return json_answer({"compositeResponse": results})
    try:
        with call.org.write():
            _run(call, body.compositeRequest, results, stop=True)
    except _Undone:
        failed = results[-1]
        halted = [{"errorCode": "PROCESSING_HALTED", "message": HALTED}]
        results = [
            failed if one.referenceId == failed["referenceId"] else _result(one, 400, halted)
            for one in body.compositeRequest
        ]
    return json_answer({"compositeResponse": results})


def _run(call: Call, requests: Sequence[Subrequest], results: list[dict[str, Any]], *, stop: bool) -> None:
    answers: dict[str, Any] = {}
    for one in requests:
        try:
            answer = _answer(call, _with_references(one, answers))
        except (Refused, TenantRefused) as error:
            answer = error.answer()
        content = msgspec.json.decode(answer.read()) if answer.read() else None
        location = {"Location": answer.headers["location"]} if "location" in answer.headers else {}
        results.append(_result(one, answer.status_code, content, location))
        if answer.is_success:
            answers[one.referenceId] = content
        elif stop:
            raise _Undone


def _result(one: Subrequest, status: int, body: object, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {"body": body, "httpHeaders": headers or {}, "httpStatusCode": status, "referenceId": one.referenceId}


def _answer(call: Call, one: Subrequest) -> httpx.Response:
    """Runs one subrequest on the routes of this file; it is no API call of its own."""
    path, _, query_string = one.url.partition("?")
    for route in ROUTES:
        found = re.fullmatch(route.pattern, path.rstrip("/"), re.IGNORECASE)
        if found is None or route.method != one.method.upper() or route.function is composite:
            continue
        return route.function(
            Call(
                org=call.org,
                request=httpx.Request(
                    one.method.upper(), f"{call.base_url}{path}", headers=one.httpHeaders, json=one.body
                ),
                parts={name: unquote(text) for name, text in found.groupdict().items() if text is not None},
                query=dict(parse_qsl(query_string, keep_blank_values=True)),
                session=call.session,
                version=call.version,
                base_url=call.base_url,
            )
        )
    raise Refused(404, "NOT_FOUND", NOT_FOUND)


def _with_references(one: Subrequest, answers: Mapping[str, Any]) -> Subrequest:
    def text(found: re.Match[str]) -> str:
        value = answers.get(found[1])
        for step in re.findall(r"\w+", found[2]):
            if isinstance(value, list) and step.isdigit() and int(step) < len(value):
                value = value[int(step)]
            else:
                value = value.get(step) if isinstance(value, dict) else None
        if value is None:
            raise Refused(400, "PROCESSING_HALTED", f"Invalid reference specified. No value for {found[0]} found")
        return str(value)

    def filled(value: object) -> Any:
        if isinstance(value, str):
            return _REFERENCE.sub(text, value)
        if isinstance(value, dict):
            return {name: filled(item) for name, item in value.items()}
        return [filled(item) for item in value] if isinstance(value, list) else value

    url = _REFERENCE.sub(lambda found: quote(text(found), safe=""), one.url)
    return Subrequest(one.method, url, one.referenceId, filled(one.body), one.httpHeaders)


# Paths.


def _object(call: Call) -> SObject:
    return _object_named(call, call.parts["object"])


def _object_named(call: Call, name: str) -> SObject:
    found = find_object(call.org, name)
    if found is None:
        raise Refused(404, "NOT_FOUND", NOT_FOUND)
    return found


def _root(call: Call) -> str:
    return f"/services/data/v{call.version}"


_REFERENCE: Final = re.compile(r"@\{(\w+)((?:\.\w+|\[\d+\])+)\}")
_V: Final = r"/services/data/v\d+\.\d"
_OBJECT: Final = rf"{_V}/sobjects/(?P<object>\w+)"

ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", rf"{_V}/(?P<verb>query|queryAll)", query),
    Route("GET", rf"{_V}/(?:query|queryAll)/(?P<locator>[^/]+)", query_more),
    Route("GET", rf"{_V}/tooling/query", tooling_query),
    Route("GET", rf"{_V}/limits", show_limits),
    Route("GET", rf"{_V}/limits/recordCount", record_count),
    Route("GET", rf"{_V}/sobjects", list_objects),
    Route("GET", _OBJECT, show_object),
    Route("POST", _OBJECT, create_record),
    Route("GET", rf"{_OBJECT}/describe", describe_object),
    Route("GET", rf"{_OBJECT}/(?P<id>[^/]+)", show_record),
    Route("PATCH", rf"{_OBJECT}/(?P<id>[^/]+)", update_record),
    Route("DELETE", rf"{_OBJECT}/(?P<id>[^/]+)", delete_record),
    Route("GET", rf"{_OBJECT}/(?P<field>\w+)/(?P<value>[^/]+)", show_record_by_key),
    Route("PATCH", rf"{_OBJECT}/(?P<field>\w+)/(?P<value>[^/]+)", upsert_record),
    Route("POST", rf"{_V}/composite/sobjects", create_collection),
    Route("PATCH", rf"{_V}/composite/sobjects", update_collection),
    Route("DELETE", rf"{_V}/composite/sobjects", delete_collection),
    Route("PATCH", rf"{_V}/composite/sobjects/(?P<object>\w+)/(?P<field>\w+)", upsert_collection),
    Route("POST", rf"{_V}/composite", composite),
)
