"""The tree of a statement as DuckDB's grammar makes it, and templates of SQL that are put into it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import duckdb

from sync_pipeline.simulated_org.sql_words import SqlError, Statement

Node = dict[str, Any]
"""A part of the tree; an expression has a ``class``, a query and a table a ``type`` alone."""


def parsed(connection: duckdb.DuckDBPyConnection, statement: Statement) -> Node:
    tree = parsed_text(connection, statement.text)
    if tree["error"]:
        position = tree.get("position")
        place = None if position is None else statement.origin(int(position))
        raise SqlError("42601", str(tree["error_message"]), position=place)
    return tree


def parsed_text(connection: duckdb.DuckDBPyConnection, text: str) -> Node:
    row = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchone()
    tree: Node = json.loads(row[0])  # type: ignore[index]
    return tree


def written(connection: duckdb.DuckDBPyConnection, tree: Node) -> str:
    row = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchone()
    return str(row[0])  # type: ignore[index]


def made_of(connection: duckdb.DuckDBPyConnection, template: str, *arguments: Node) -> Node:
    """A template's tree with these arguments."""
    made: Node = json.loads(_template_text(connection, template))
    for node in list(nodes_in(made)):
        if node.get("class") == "COLUMN_REF" and re.fullmatch(r"_\d", node["column_names"][0]):
            become(node, copy.deepcopy(arguments[int(node["column_names"][0][1:]) - 1]))
            node["alias"] = ""
    return made


def empty_query(connection: duckdb.DuckDBPyConnection) -> Node:
    """A query without anything in it."""
    known = TEMPLATE_TEXTS.get("")
    if known is None:
        known = TEMPLATE_TEXTS[""] = json.dumps(parsed_text(connection, "SELECT 1")["statements"][0]["node"])
    node: Node = json.loads(known)
    return node


TEMPLATE_TEXTS: Final[dict[str, str]] = {}
"""Trees of templates as texts, which are the same for every engine; that without a name is the empty query."""


def _template_text(connection: duckdb.DuckDBPyConnection, template: str) -> str:
    known = TEMPLATE_TEXTS.get(template)
    if known is None:
        tree = parsed_text(connection, f"SELECT {template}")
        known = json.dumps(tree["statements"][0]["node"]["select_list"][0])
        TEMPLATE_TEXTS[template] = known
    return known


def become(node: Node, other: Node) -> None:
    """Puts another expression in the place of one; the name of the column stays."""
    alias = node.get("alias", "")
    made = dict(other)
    node.clear()
    node.update(made)
    node["alias"] = alias


def nodes_in(value: Any, *, into_queries: bool = True) -> Iterator[Node]:
    """All objects of a tree, the outer ones first."""
    if isinstance(value, dict):
        if not into_queries and value.get("class") == "SUBQUERY":
            return
        yield value
        for part in list(value.values()):
            yield from nodes_in(part, into_queries=into_queries)
    elif isinstance(value, list):
        for part in value:
            yield from nodes_in(part, into_queries=into_queries)


def children_of(node: Node) -> list[Node]:
    """The expressions directly in an expression; queries and types are none."""
    found: list[Node] = []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("class") == "TYPE" or "select_list" in value:
                return
            if "class" in value:
                found.append(value)
                return
            for part in value.values():
                look(part)
        elif isinstance(value, list):
            for part in value:
                look(part)

    for name, value in node.items():
        if name != "subquery":
            look(value)
    return found


def arguments_of(node: Node) -> list[Node]:
    return [argument["expression"] for argument in node.get("arguments", [])]


def some(tables: list[Node]) -> list[Node]:
    return [table for table in tables if table["type"] != "EMPTY"]


def joined_tables(tables: list[Node]) -> Node:
    found = copy.deepcopy(tables[0])
    for table in tables[1:]:
        found = {
            "type": "JOIN", "alias": "", "sample": None, "query_location": 0, "left": found, "right": copy.deepcopy(table),
            "condition": None, "join_type": "INNER", "ref_type": "CROSS", "using_columns": [], "delim_flipped": False,
            "duplicate_eliminated_columns": [],
        }  # fmt: skip
    return found


def spelled_out(groups: list[Node], items: list[Node]) -> list[Node]:
    """The expressions that a GROUP BY means by number or by a column's new name."""
    by_alias = {item["alias"].lower(): item for item in items if item["alias"] and item["class"] != "COLUMN_REF"}
    found = []
    for written in groups:
        group = written
        if group["class"] == "CONSTANT" and group["literal"]["kind"] == "INTEGER":
            place = int(group["literal"]["text"]) - 1
            group = items[place] if 0 <= place < len(items) else group
        elif group["class"] == "COLUMN_REF" and len(group["column_names"]) == 1:
            group = by_alias.get(group["column_names"][0].lower(), group)
        found.append({**copy.deepcopy(group), "alias": ""})
    return found


AGGREGATES: Final = frozenset(
    "any_value approx_count_distinct array_agg avg bool_and bool_or corr count count_star covar_pop covar_samp every max "
    "median min stddev stddev_pop stddev_samp string_agg sum var_pop var_samp variance".split()
)


def is_aggregate(node: Node) -> bool:
    return any(
        found.get("class") == "WINDOW" or (found.get("class") == "FUNCTION" and found["function_name"] in AGGREGATES)
        for found in nodes_in(node, into_queries=False)
    )


def used_values(text: str, statement: Statement) -> dict[str, str | None]:
    return {name: statement.values[name] for name in set(USED.findall(text)) & statement.values.keys()}


USED: Final = re.compile(r"\$(p\d+)\b")
