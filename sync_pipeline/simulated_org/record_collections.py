"""Many records in one call: collections that are created, read, changed and deleted, and trees of parents and children.

sObject Collections: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_sobjects_collections.htm
sObject Tree: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_sobject_tree.htm
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx
import msgspec

from sync_pipeline.simulated_org.call import Call, Refused, Route, json_answer
from sync_pipeline.simulated_org.describe import is_custom, plural
from sync_pipeline.simulated_org.identifiers import whole_id
from sync_pipeline.simulated_org.objects import Field, SObject, find_object, objects
from sync_pipeline.simulated_org.record_json import Saved, all_saved_or_none, save_records
from sync_pipeline.simulated_org.resources import (
    V,
    equals,
    fields_asked,
    key_field,
    object_of,
    records_found,
)
from sync_pipeline.simulated_org.saving import Operation
from sync_pipeline.simulated_org.standing import ensure_standing_rows

COLLECTION_MAX: Final = 200
"""Records of one collection or tree that are written."""
READ_MAX: Final = 2_000
"""Records of one collection that are read."""
LEVELS_MAX: Final = 5
TYPES_MAX: Final = 5

Shape = TypeVar("Shape")


class CollectionBody(msgspec.Struct):
    """Body of a collection that is created, updated or upserted."""

    records: list[dict[str, Any]]
    allOrNone: bool = False


class WantedBody(msgspec.Struct):
    """Body of a collection that is read."""

    ids: list[str]
    fields: list[str]


class TreeBody(msgspec.Struct):
    """Body of trees that are created."""

    records: list[dict[str, Any]]


# Reading.


def read_collection(call: Call) -> httpx.Response:
    """``GET composite/sobjects/{object}?ids=…&fields=…``: each record in its place, null where there is none."""
    wanted = {name: [one.strip() for one in call.query.get(name, "").split(",")] for name in ("ids", "fields")}
    return _read(call, [one for one in wanted["ids"] if one], [one for one in wanted["fields"] if one])


def read_listed(call: Call) -> httpx.Response:
    """``POST composite/sobjects/{object}``: the same, for lists too long for a path."""
    body = _shaped(call, WantedBody)
    return _read(call, body.ids, body.fields)


def _read(call: Call, ids: Sequence[str], fields: Sequence[str]) -> httpx.Response:
    sobject = object_of(call)
    for name, given in (("ids", ids), ("fields", fields)):
        if not given:
            raise Refused(400, "REQUIRED_FIELD_MISSING", f"The {name} parameter is required")
    _check_size(len(ids), READ_MAX)
    wanted = [whole_id(one) for one in ids]
    known = [one for one in wanted if one is not None and one.startswith(sobject.prefix)]
    asked = fields_asked(sobject, fields)
    found = {}
    if known:
        listed = [*asked, *([] if "id" in (name.lower() for name in asked) else ["Id"])]
        found = {record["Id"]: record for record in records_found(call, sobject, listed, equals("Id", *known))}
    return json_answer([found.get(one or "") for one in wanted])


# Writing.


def create_collection(call: Call) -> httpx.Response:
    """``POST composite/sobjects``: records of any object."""
    return _collection(call, "insert")


def update_collection(call: Call) -> httpx.Response:
    """``PATCH composite/sobjects``: records of any object, each with its ``id``."""
    return _collection(call, "update")


def upsert_collection(call: Call) -> httpx.Response:
    """``PATCH composite/sobjects/{object}/{field}``: records of one object, by an external id."""
    sobject = object_of(call)
    key = key_field(call, sobject)
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
    _check_size(len(ids), COLLECTION_MAX)
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
        sobject = _object_typed(call, record)
        if not stretches or stretches[-1][0].name != sobject.name:
            stretches.append((sobject, []))
        stretches[-1][1].append(record)
    user = call.session.user_id

    def save() -> list[Saved]:
        return [one for found, group in stretches for one in save_records(call.org, user, found, operation, group)]

    return all_saved_or_none(call.org, save) if all_or_none else save()


# Trees.


@dataclass(frozen=True)
class _Planted:
    """A record of a tree, without its children. ``parent`` is the reference id of its parent, which ``field`` refers to."""

    reference: str
    sobject: SObject
    record: Mapping[str, Any]
    level: int
    parent: str = ""
    field: str = ""


class _TreeRefused(Exception):
    """A record of a tree was refused, and with it the tree."""

    def __init__(self, results: list[dict[str, Any]]) -> None:
        super().__init__("all or none")
        self.results = results


def create_tree(call: Call) -> httpx.Response:
    """``POST composite/tree/{object}``: records with their children, all of them or none: 201."""
    root = object_of(call)
    planted = [one for record in _shaped(call, TreeBody).records for one in _planted(call, record, level=1)]
    _check_size(len(planted), COLLECTION_MAX)
    if any(one.sobject.name != root.name for one in planted if not one.parent):
        raise Refused(400, "INVALID_TYPE", f"The root records of the trees must be of the type {root.name}")
    types, levels = {one.sobject.name for one in planted}, [one.level for one in planted]
    if len(types) > TYPES_MAX or max(levels, default=0) > LEVELS_MAX:
        message = f"A tree has at most {LEVELS_MAX} levels and records of {TYPES_MAX} types"
        raise Refused(400, "INVALID_INPUT", message)
    twice = [name for name, count in Counter(one.reference for one in planted).items() if count > 1]
    if twice:
        told = [_tree_error(name, "INVALID_INPUT", "Duplicate ReferenceId provided in the request.") for name in twice]
        return json_answer({"hasErrors": True, "results": told}, status=400)
    ensure_standing_rows(call.org)
    try:
        with call.org.write():
            ids = _grown(call, planted)
    except _TreeRefused as refused:
        return json_answer({"hasErrors": True, "results": refused.results}, status=400)
    results = [{"referenceId": one.reference, "id": ids[one.reference]} for one in planted]
    return json_answer({"hasErrors": False, "results": results}, status=201)


def _planted(
    call: Call, record: Mapping[str, Any], *, level: int, parent: str = "", field: str = ""
) -> Iterator[_Planted]:
    """A record of a tree and everything below it, parents first."""
    sobject, reference = _object_typed(call, record), str(_attributes(record).get("referenceId", ""))
    if not reference:
        raise Refused(400, "INVALID_INPUT", "Include a reference ID for each record in the request.")
    children = {name: value for name, value in record.items() if isinstance(value, dict) and "records" in value}
    own = {name: value for name, value in record.items() if name not in children}
    yield _Planted(reference, sobject, own, level, parent, field)
    for name, value in children.items():
        link = _child_link(call, sobject, name)
        if link is None or not isinstance(value["records"], list):
            raise Refused(400, "INVALID_FIELD", f"No such column '{name}' on sobject of type {sobject.name}")
        for child in value["records"]:
            if not isinstance(child, dict) or _object_typed(call, child).name != link[0].name:
                raise Refused(400, "INVALID_TYPE", f"The records of {name} must be of the type {link[0].name}")
            yield from _planted(call, child, level=level + 1, parent=reference, field=link[1].name)


def _child_link(call: Call, parent: SObject, relationship: str) -> tuple[SObject, Field] | None:
    """The object of the children that a relationship names, such as ``Opportunities``, and its reference to the parent."""
    for child in objects(call.org).values():
        called = f"{child.name[:-1]}r" if is_custom(child.name) else plural(child.label).replace(" ", "")
        if called.lower() != relationship.lower():
            continue
        for found in child.fields.values():
            if parent.name in found.reference_to and found.createable:
                return child, found
    return None


def _grown(call: Call, planted: Sequence[_Planted]) -> dict[str, str]:
    """Saves a tree level by level, each object at once, and gives the ids by reference. Raises ``_TreeRefused``."""
    ids: dict[str, str] = {}
    for level in range(1, LEVELS_MAX + 1):
        for name in dict.fromkeys(one.sobject.name for one in planted if one.level == level):
            group = [one for one in planted if one.level == level and one.sobject.name == name]
            records = [{**one.record, **({one.field: ids[one.parent]} if one.parent else {})} for one in group]
            saved = save_records(call.org, call.session.user_id, group[0].sobject, "insert", records)
            refused = [
                _tree_error(one.reference, found.code, found.message, found.fields)
                for one, found in zip(group, saved, strict=True)
                if not found.is_saved
            ]
            if refused:
                raise _TreeRefused(refused)
            ids |= {one.reference: found.id for one, found in zip(group, saved, strict=True)}
    return ids


def _tree_error(reference: str, code: str, message: str, fields: Sequence[str] = ()) -> dict[str, Any]:
    return {"referenceId": reference, "errors": [{"statusCode": code, "message": message, "fields": list(fields)}]}


# Bodies.


def _collection_body(call: Call) -> CollectionBody:
    body = _shaped(call, CollectionBody)
    _check_size(len(body.records), COLLECTION_MAX)
    return body


def _shaped(call: Call, shape: type[Shape]) -> Shape:
    try:
        return msgspec.convert(call.json, shape)
    except msgspec.ValidationError as error:
        raise Refused(400, "JSON_PARSER_ERROR", f"Unexpected content in the request body: {error}") from None


def _check_size(records: int, most: int) -> None:
    if records > most:
        message = f"record limit reached. cannot submit more than {most} records into this call"
        raise Refused(400, "EXCEEDED_ID_LIMIT", message)


def _object_typed(call: Call, record: Mapping[str, Any]) -> SObject:
    """The object that the attributes of a record name. Raises ``Refused`` (400 INVALID_TYPE)."""
    name = str(_attributes(record).get("type", ""))
    sobject = find_object(call.org, name)
    if sobject is None:
        raise Refused(400, "INVALID_TYPE", f"sObject type '{name}' is not supported.")
    return sobject


def _attributes(record: Mapping[str, Any]) -> Mapping[str, Any]:
    attributes = record.get("attributes")
    return attributes if isinstance(attributes, dict) else {}


_COLLECTIONS: Final = rf"{V}/composite/sobjects"

ROUTES: Final[tuple[Route, ...]] = (
    Route("POST", _COLLECTIONS, create_collection, since=42),
    Route("PATCH", _COLLECTIONS, update_collection, since=42),
    Route("DELETE", _COLLECTIONS, delete_collection, since=42),
    Route("GET", rf"{_COLLECTIONS}/(?P<object>\w+)", read_collection, since=42),
    Route("POST", rf"{_COLLECTIONS}/(?P<object>\w+)", read_listed, since=42),
    Route("PATCH", rf"{_COLLECTIONS}/(?P<object>\w+)/(?P<field>\w+)", upsert_collection, since=46),
    Route("POST", rf"{V}/composite/tree/(?P<object>\w+)", create_tree, since=34),
)
