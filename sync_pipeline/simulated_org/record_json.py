"""Records as JSON of the REST API: stored rows on their way out, given records on their way into ``saving.py``.

Null and empty text clear a field; a field that is not named is left alone. The literal text ``#N/A`` clears too, because
records are saved as rows of Bulk API 2.0 are.

Query: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_query.htm
sObject Collections: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_sobjects_collections.htm
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from sync_pipeline.simulated_org.call import Refused
from sync_pipeline.simulated_org.describe import LOADED_BY_NOBODY, relationship_name
from sync_pipeline.simulated_org.identifiers import whole_id
from sync_pipeline.simulated_org.objects import Field, SObject
from sync_pipeline.simulated_org.records import BLANKS
from sync_pipeline.simulated_org.saving import CLEAR, Operation, error_text, is_parent_header, save_rows
from sync_pipeline.simulated_org.soql import ROW_ID
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.simulated_org.values import json_values

ROLLED_BACK: Final = "Record rolled back because not all records were valid and the request was using AllOrNone header"
VERBS: Final[Mapping[str, str]] = {"insert": "inserted", "update": "updated", "upsert": "upserted", "delete": "deleted"}


def shown_records(frame: pl.DataFrame, sobject: SObject, *, root: str) -> list[dict[str, Any]]:
    """Rows of ``soql.rows_of`` with their ids, as records. ``root`` is the path of the API version."""
    own = [name for name in frame.columns if not name.startswith(ROW_ID)]
    values = [json_values(frame[name]) for name in own]
    parents = {name.partition(".")[0] for name in own if "." in name}
    parent_ids = {name: frame[f"{ROW_ID}.{name}"] for name in parents if f"{ROW_ID}.{name}" in frame.columns}
    records = []
    for place, (row_id, *row) in enumerate(zip(frame[ROW_ID], *values, strict=True)):
        url = f"{root}/sobjects/{sobject.name}/{row_id}"
        record: dict[str, Any] = {"attributes": {"type": sobject.name, "url": url}}
        for name, value in zip(own, row, strict=True):
            relation, dot, field_name = name.partition(".")
            if not dot:
                record[name] = value
            else:
                parent = record.setdefault(relation, {"attributes": {"type": _parent_type(sobject, relation)}})
                parent[field_name] = value
        for name in parents:
            parent = record[name]
            kind = parent["attributes"]["type"]
            if name in parent_ids:
                parent["attributes"]["url"] = f"{root}/sobjects/{kind}/{parent_ids[name][place]}"
                is_there = parent_ids[name][place] is not None
            else:
                is_there = any(value is not None for field, value in parent.items() if field != "attributes")
            if not is_there:
                record[name] = None
        records.append(record)
    return records


def shown_groups(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Groups of ``groups.groups_of`` as records."""
    values = [json_values(column) for column in frame.get_columns()]
    return [
        {"attributes": {"type": "AggregateResult"}, **dict(zip(frame.columns, row, strict=True))}
        for row in zip(*values, strict=True)
    ]


@dataclass(frozen=True)
class Saved:
    """What became of one record."""

    id: str
    created: bool
    code: str = ""
    message: str = ""
    fields: tuple[str, ...] = ()

    @property
    def is_saved(self) -> bool:
        return not self.code

    def shown(self, *, with_created: bool) -> dict[str, Any]:
        """The record's place in the answer."""
        shown: dict[str, Any] = {"id": self.id} if self.id else {}
        shown["success"] = self.is_saved
        shown["errors"] = (
            [] if self.is_saved else [{"statusCode": self.code, "message": self.message, "fields": list(self.fields)}]
        )
        return {**shown, "created": self.created} if with_created else shown


class _Undone(Exception):
    """A record was refused, and with it all of them."""

    def __init__(self, saved: list[Saved]) -> None:
        super().__init__("all or none")
        self.saved = saved


def save_records(
    org: Org,
    user_id: str,
    sobject: SObject,
    operation: Operation,
    records: Sequence[Mapping[str, Any]],
    *,
    key_field: Field | None = None,
) -> list[Saved]:
    """Saves records and says what became of each, in their order. Raises ``Refused`` (400) for what is no such record."""
    if sobject.name in LOADED_BY_NOBODY:
        message = f"entity type cannot be {VERBS.get(operation, operation)}: {sobject.name}"
        raise Refused(400, "INVALID_TYPE_FOR_OPERATION", message)
    texts = [_texts(org, sobject, record) for record in records]
    names = list(dict.fromkeys(name for record in texts for name in record))
    # Without any column a frame would have no rows either.
    rows = pl.DataFrame(
        {"": [None] * len(texts), **{name: [record.get(name) for record in texts] for name in names}},
        schema=dict.fromkeys(("", *names), pl.String),
    )
    refused = pl.Series([_refusal(sobject, operation, record) for record in texts], dtype=pl.String)
    outcomes = save_rows(org, user_id, sobject, operation, rows, key_field=key_field, refused=refused)
    return [_saved(outcome) for outcome in outcomes.select("id", "created", "error").iter_rows()]


def all_saved_or_none(org: Org, save: Callable[[], list[Saved]]) -> list[Saved]:
    """Calls ``save`` in one transaction, which is undone when a record was refused."""
    try:
        with org.write():
            saved = save()
            if not all(one.is_saved for one in saved):
                raise _Undone(saved)
    except _Undone as undone:
        rolled_back = Saved("", created=False, code="ALL_OR_NONE_OPERATION_ROLLED_BACK", message=ROLLED_BACK)
        return [rolled_back if one.is_saved else one for one in undone.saved]
    return saved


def _texts(org: Org, sobject: SObject, record: Mapping[str, Any]) -> dict[str, str]:
    """The record's fields as texts of a Bulk upload, under the names of describe."""
    texts: dict[str, str] = {}
    for name, value in record.items():
        if name.lower() == "attributes":
            continue
        if isinstance(value, dict):
            texts |= _parent_texts(org, sobject, name, value)
            continue
        found = sobject.find(name)
        if found is None or "." in found.name:
            raise Refused(400, "INVALID_FIELD", f"No such column '{name}' on sobject of type {sobject.name}")
        text = _text(found, value)
        texts[found.name] = (whole_id(text) or text) if found.type == "id" else text
    return texts


def _parent_texts(org: Org, sobject: SObject, relation: str, parent: Mapping[str, Any]) -> dict[str, str]:
    """A parent that is named by its external id."""
    texts = {}
    for name, value in parent.items():
        if name.lower() == "attributes":
            continue
        header = f"{relation}.{name}"
        if not is_parent_header(org, sobject, header):
            raise Refused(400, "INVALID_FIELD", f"No such column '{header}' on sobject of type {sobject.name}")
        texts[header] = CLEAR if value is None else str(value)
    return texts


def _text(found: Field, value: object) -> str:
    if value is None or (isinstance(value, str) and value.strip(BLANKS) == ""):
        return CLEAR
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise Refused(400, "JSON_PARSER_ERROR", f"Cannot deserialize instance of {found.type} from START_ARRAY value [")


def _refusal(sobject: SObject, operation: Operation, record: Mapping[str, str]) -> str | None:
    """Why the record may not be saved at all, in the form of ``sf__Error``: it sets what is read-only."""
    may_create, may_update = operation in ("insert", "upsert"), operation in ("update", "upsert")
    fixed = []
    for name in record:
        found = sobject.find(name)
        if found is None or (name == "Id" and operation != "insert"):
            continue
        if not (may_create and found.createable) and not (may_update and found.updateable):
            fixed.append(name)
    if not fixed or operation == "delete":
        return None
    message = (
        f"Unable to create/update fields: {', '.join(fixed)}. Please check the security settings of this field and verify "
        "that it is read/write for your profile or permission set."
    )
    return error_text("INVALID_FIELD_FOR_INSERT_UPDATE", message, fixed)


def _saved(outcome: tuple[str, bool, str | None]) -> Saved:
    row_id, created, error = outcome
    if error is None:
        return Saved(row_id, created=created)
    code, _, rest = error.partition(":")
    message, _, fields = rest.removesuffix("--").rstrip().rpartition(":")
    return Saved(
        "",
        created=False,
        code=code,
        message=message,
        fields=tuple(name.strip() for name in fields.split(",") if name.strip()),
    )


def _parent_type(sobject: SObject, relation: str) -> str:
    for found in sobject.fields.values():
        if relationship_name(found) == relation and found.reference_to:
            return found.reference_to[0]
    return relation  # a parent that is kept with the row
