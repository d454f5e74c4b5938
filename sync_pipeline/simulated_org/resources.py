"""What the path of a REST call names: an object, a field of it, a record; and the records that are found by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sync_pipeline.simulated_org.call import Call, Refused
from sync_pipeline.simulated_org.grammar import Comparison, Name, Query, Selected, Text
from sync_pipeline.simulated_org.identifiers import whole_id
from sync_pipeline.simulated_org.objects import Field, SObject, find_object
from sync_pipeline.simulated_org.record_json import shown_records
from sync_pipeline.simulated_org.records import BLANKS
from sync_pipeline.simulated_org.soql import rows_of, snapshot

V: Final = r"/services/data/v\d+\.\d"
OBJECT: Final = rf"{V}/sobjects/(?P<object>\w+)"
NOT_FOUND: Final = "The requested resource does not exist"


def root_of(call: Call) -> str:
    """The path of the API version."""
    return f"/services/data/v{call.version}"


def object_of(call: Call) -> SObject:
    """The object in the path. Raises ``Refused`` (404)."""
    return object_named(call, call.parts["object"])


def object_named(call: Call, name: str) -> SObject:
    found = find_object(call.org, name)
    if found is None:
        raise Refused(404, "NOT_FOUND", NOT_FOUND)
    return found


def id_in_path(call: Call) -> str:
    """The id in the path, whole. Raises ``Refused`` (404) when it is none."""
    whole = whole_id(call.parts["id"])
    if whole is None:
        message = f"Provided external ID field does not exist or is not accessible: {call.parts['id']}"
        raise Refused(404, "NOT_FOUND", message)
    return whole


def key_field(call: Call, sobject: SObject) -> Field:
    """The external id in the path. Raises ``Refused`` (404) when it is none."""
    found = sobject.find(call.parts["field"])
    if found is None or not (found.external_id or found.id_lookup):
        message = f"Provided external ID field does not exist or is not accessible: {call.parts['field']}"
        raise Refused(404, "NOT_FOUND", message)
    return found


def key_value(call: Call) -> str:
    """The key in the path, without blanks around it. Raises ``Refused`` (404) when nothing is left."""
    value = call.parts["value"].strip(BLANKS)
    if not value:
        raise Refused(404, "NOT_FOUND", NOT_FOUND)
    return value


def equals(name: str, *values: str) -> Comparison:
    """A condition that a field has one of these values."""
    texts = tuple(Text(value.replace("\\", "\\\\").replace("'", "\\'"), 0) for value in values)
    return Comparison(Name(name, 0), "=" if len(texts) == 1 else "IN", texts, 0)


def select(sobject: SObject, fields: Sequence[str], where: Comparison | None, *, limit: int | None = None) -> Query:
    """A query for these fields, each once."""
    unique = {name.lower(): name for name in fields}.values()
    selected = tuple(Selected(Name(name, 0)) for name in unique)
    return Query("", selected, Name(sobject.name, 0), where=where, limit=limit)


def fields_asked(sobject: SObject, given: Sequence[str]) -> list[str]:
    """The fields that are asked for, all of the object's when none is. Raises ``Refused`` (400 INVALID_FIELD)."""
    for name in given:
        if sobject.find(name) is None:
            raise Refused(400, "INVALID_FIELD", f"No such column '{name}' on sobject of type {sobject.name}")
    return list(given) or [name for name in sobject.fields if "." not in name]


def records_found(
    call: Call, sobject: SObject, fields: Sequence[str], where: Comparison, *, limit: int | None = None
) -> list[dict[str, Any]]:
    """Records as the REST API shows them."""
    with snapshot(call.org):
        frames = rows_of(call.org, select(sobject, fields, where, limit=limit), with_ids=True)
        return [record for frame in frames for record in shown_records(frame, sobject, root=root_of(call))]


def paths_found(call: Call, sobject: SObject, where: Comparison) -> list[str]:
    """The paths of all records that a condition finds."""
    with snapshot(call.org):
        frames = rows_of(call.org, select(sobject, ["Id"], where))
        ids = [row_id for frame in frames for row_id in frame["Id"]]
    return [f"{root_of(call)}/sobjects/{sobject.name}/{row_id}" for row_id in ids]
