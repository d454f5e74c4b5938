"""What the org tells of a query without its rows: the columns it would have, and how it would be carried out.

Query Performance Feedback: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_query_explain.htm
Selective queries: https://developer.salesforce.com/docs/atlas.en-us.apexcode.meta/apexcode/langCon_apex_SOQL_VLSQ.htm

``columns=true`` is in no document. The Salesforce CLI prints tables by it; its names are those that clients declare for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sync_pipeline.simulated_org.describe import is_custom, relationship_name
from sync_pipeline.simulated_org.grammar import Aggregate, Name, Query, Selected
from sync_pipeline.simulated_org.objects import NUMBERS, Field
from sync_pipeline.simulated_org.records import Records
from sync_pipeline.simulated_org.soql import Bound, bind, count_rows, outputs_of
from sync_pipeline.simulated_org.state import Org

APEX_TYPES: Final[Mapping[str, str]] = {
    "id": "Id", "reference": "Id", "boolean": "Boolean", "int": "Integer", "currency": "Decimal", "double": "Double",
    "percent": "Double", "date": "Date", "datetime": "Datetime",
}  # fmt: skip
"""How Apex would hold a field's values; any other is a String."""
SELECTIVE_SHARE: Final = 0.1
SELECTIVE_SHARE_LATER: Final = 0.05
SELECTIVE_ROWS: Final = 1_000_000
SELECTIVE_MAX: Final = 333_333
"""A filter on an external id is selective up to a tenth of the first million rows, and a twentieth of those behind."""


def columns_of(org: Org, query: Query) -> dict[str, Any]:
    """The columns of a query, those of a parent within one of its name. Raises ``Refused`` as the query would."""
    bound = bind(org, query)
    columns: list[dict[str, Any]] = []
    if query.is_aggregate and not query.is_count:
        for called, expression in outputs_of(query, bound.column):
            is_function = isinstance(expression, Aggregate)
            found = (
                _aggregated(bound, expression) if isinstance(expression, Aggregate) else bound.column(expression).field
            )
            columns.append(_column(called, called, found, is_function=is_function))
    elif not query.is_count:
        for item in query.selected:
            _add(columns, bound, item)
    return {
        "columnMetadata": columns,
        "entityName": bound.object.name,
        "groupBy": bool(query.group_by),
        "idSelected": any(column.path == "Id" for column in bound.selected),
        "keyPrefix": bound.object.prefix,
    }


def _add(columns: list[dict[str, Any]], bound: Bound, item: Selected) -> None:
    if not isinstance(item.expression, Name):
        return
    column = bound.column(item.expression)
    if column.relation is None:
        columns.append(_column(column.field.name, item.expression.text, column.field))
        return
    parent = relationship_name(column.relation) or ""
    outer = next((one for one in columns if one["columnName"] == parent), None)
    if outer is None:
        outer = _column(parent, item.expression.text.partition(".")[0], None)
        columns.append(outer)
    outer["joinColumns"].append(_column(column.field.name, item.expression.text.rpartition(".")[2], column.field))


def _aggregated(bound: Bound, aggregate: Aggregate) -> Field | None:
    """The field whose type the result has: counts and averages have one of their own."""
    if aggregate.field is None or aggregate.function not in ("MIN", "MAX"):
        return Field(
            "", "int" if aggregate.function.startswith("COUNT") else "double", createable=False, updateable=False
        )
    return bound.column(aggregate.field).field


def _column(name: str, shown: str, found: Field | None, *, is_function: bool = False) -> dict[str, Any]:
    """One column; without a field it is a parent, whose columns are put into it."""
    is_number = found is not None and found.type in NUMBERS
    is_truth = found is not None and found.type == "boolean"
    return {
        "aggregate": is_function,
        "apexType": None if found is None else APEX_TYPES.get(found.type, "String"),
        "booleanType": is_truth,
        "columnName": name,
        "custom": is_custom(name),
        "displayName": shown,
        "foreignKeyName": relationship_name(found) if found is not None and not is_function else None,
        "insertable": found is not None and found.createable and not is_function,
        "joinColumns": [],
        "numberType": is_number,
        "textType": found is not None and not is_number and not is_truth,
        "updatable": found is not None and found.updateable and not is_function,
    }


def plans_of(org: Org, query: Query) -> list[dict[str, Any]]:
    """How the query could be carried out, the cheapest way first: by the index on the key, and by looking at all rows."""
    bound = bind(org, query)
    rows = len(Records(org, bound.object))
    found = rows if query.is_aggregate else count_rows(org, replace(query, limit=None, offset=0, order_by=()))
    early, later = min(rows, SELECTIVE_ROWS), max(rows - SELECTIVE_ROWS, 0)
    threshold = min(early * SELECTIVE_SHARE + later * SELECTIVE_SHARE_LATER, SELECTIVE_MAX)
    scan = _plan(bound, found, rows, "TableScan", [], cost=rows / max(threshold, 1))
    reach, key = bound.reach, bound.object.key
    if key is None or (reach.after is None and reach.through is None and reach.keys is None):
        return [scan]
    index = _plan(bound, found, rows, "Index", [key.name], cost=found / max(threshold, 1))
    return sorted((index, scan), key=lambda plan: float(plan["relativeCost"]))


def _plan(bound: Bound, found: int, rows: int, kind: str, fields: list[str], *, cost: float) -> dict[str, Any]:
    note = {
        "description": "Not considering filter for optimization because unindexed",
        "fields": ["IsDeleted"],
        "tableEnumOrId": bound.object.name,
    }
    return {
        "cardinality": found,
        "fields": fields,
        "leadingOperationType": kind,
        "notes": [note],
        "relativeCost": round(cost, 3),
        "sobjectCardinality": rows,
        "sobjectType": bound.object.name,
    }
