"""What a statement means to Hyper, said in DuckDB's SQL, or a refusal.

DuckDB's own grammar reads the statement into a tree (``json_serialize_sql``). The tree is walked from the inside out: what
Hyper does not have is refused, what it means otherwise is written otherwise, and the tree becomes a text again. Where the
meaning hangs on types (a division, a cast, a comparison), DuckDB is asked for those of the operands where they stand.
Only functions, types and forms that are listed are taken: an unknown one is refused and never answered otherwise.

SQL reference: https://developer.salesforce.com/docs/data/data-cloud-query-guide/references/dc-sql-reference/data-360-sql-context.html
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import duckdb

from sync_pipeline.simulated_org.sql_rules import (
    CATALOGUE,
    CATALOGUE_OIDS,
    RESULTS,
    check_function,
    check_type,
    family,
    literal_type,
    modifiers_of,
    operands_of,
    rewritten,
    templated,
    unsigned,
)
from sync_pipeline.simulated_org.sql_tree import (
    Node,
    become,
    children_of,
    empty_query,
    is_aggregate,
    joined_tables,
    made_of,
    nodes_in,
    parsed,
    some,
    spelled_out,
    used_values,
    written,
)
from sync_pipeline.simulated_org.sql_words import SqlError, Statement

CLASSES: Final = frozenset(
    "CONSTANT COLUMN_REF FUNCTION CAST CASE COMPARISON CONJUNCTION OPERATOR SUBQUERY STAR PARAMETER WINDOW BETWEEN".split()
)
NOT_OFFERED_CLASSES: Final = frozenset(("COLLATE",))
TABLES: Final = frozenset(("EMPTY", "BASE_TABLE", "SUBQUERY", "JOIN", "EXPRESSION_LIST"))
OPERATORS: Final = frozenset(
    "COMPARE_IN COMPARE_NOT_IN OPERATOR_NOT OPERATOR_IS_NULL OPERATOR_IS_NOT_NULL OPERATOR_COALESCE OPERATOR_NULLIF "
    "ARRAY_CONSTRUCTOR ARRAY_EXTRACT".split()
)
WHO: Final = frozenset("current_user session_user user current_schema current_catalog current_role".split())
OURS: Final[Mapping[str, str]] = {"count_star": "count", "trim": "btrim", "quantile_disc": "percentile_disc"}
"""Functions that Hyper names otherwise where it names a column after them."""


@dataclass(frozen=True)
class Meaning:
    """``names`` of the columns, ``None`` for each star; ``chars`` is the length of those that are ``char(n)``, by place."""

    text: str
    names: list[str | None]
    chars: Mapping[int, int]


@dataclass(frozen=True)
class Scope:
    """What the expressions of one query see: its common tables, its own tables, and those of the queries around it."""

    common: list[Node] = field(default_factory=list)
    tables: Node | None = None
    around: tuple[Node, ...] = ()
    groups: list[Node] = field(default_factory=list)


def meaning(connection: duckdb.DuckDBPyConnection, statement: Statement, objects: frozenset[str]) -> Meaning:
    """``objects`` are the names of the source objects, in lower case. Raises ``SqlError`` and ``duckdb.Error``."""
    return _Translator(connection, statement, objects).translated()


class _Translator:
    def __init__(self, connection: duckdb.DuckDBPyConnection, statement: Statement, objects: frozenset[str]) -> None:
        self._connection = connection
        self._statement = statement
        self._objects = objects

    def translated(self) -> Meaning:
        tree = parsed(self._connection, self._statement)
        query = tree["statements"][0]["node"]
        for node in list(nodes_in(query)):
            if node.get("class") == "PARAMETER":
                self._give_type(node)
        first = query
        while first["type"] == "SET_OPERATION_NODE":
            first = first["children"][0]
        names, chars = self._columns(first), _chars(first)
        self._query(query, Scope())
        return Meaning(written(self._connection, tree), names, chars)

    def _give_type(self, node: Node) -> None:
        kind = self._statement.types[node["identifier"]]
        typed = made_of(self._connection, f"CAST(_1 AS {kind})", node)
        become(node, typed)

    def _columns(self, query: Node) -> list[str | None]:
        """The names that Hyper gives the columns."""
        listed = query.get("select_list", [])
        if len(listed) == 1 and query["from_table"]["type"] == "EXPRESSION_LIST":
            return [f"column{place + 1}" for place in range(len(query["from_table"]["values"][0]))]
        return [_column_name(item, place) for place, item in enumerate(listed)]

    # Queries and tables.

    def _query(self, node: Node, scope: Scope) -> None:
        if node["type"] == "SET_OPERATION_NODE":
            common = self._common(node, scope)
            for child in node["children"]:
                self._query(child, Scope(common, None, scope.around))
            self._check_columns_match(node["children"], common)
        elif node["type"] == "SELECT_NODE":
            self._select(node, scope)
        else:
            raise SqlError("0A000", "the simulated org does not offer recursive queries")
        for modifier in node["modifiers"]:
            if modifier.get("limit_type", "ROW_COUNT") != "ROW_COUNT":
                raise SqlError("42601", "syntax error: a limit is a number of rows")

    def _common(self, node: Node, scope: Scope) -> list[Node]:
        """Translates the queries of WITH; gives what the query itself sees."""
        common = list(scope.common)
        for entry in node["cte_map"]["map"]:
            query = entry["value"]["query_node"]
            self._name_columns(query)
            self._query(query, Scope(common, None, scope.around))
            common = [known for known in common if known["key"].lower() != entry["key"].lower()] + [entry]
        return common

    def _select(self, node: Node, scope: Scope) -> None:
        if node.get("qualify") is not None:
            raise SqlError("42601", "syntax error: got QUALIFY")
        if node.get("sample") is not None:
            raise SqlError("0A000", "the simulated org does not offer samples")
        if node["aggregate_handling"] != "STANDARD_HANDLING":
            raise SqlError("0A000", "the simulated org does not offer GROUP BY ALL")
        common = self._common(node, scope)
        conditions = self._tables(node["from_table"], common, scope.around)
        inside = Scope(common, node["from_table"], scope.around)
        self._check_aliases(node, inside)
        for condition in (node["where_clause"], node["having"]):
            if condition is not None and condition["class"] == "CONSTANT" and condition["literal"]["kind"] == "INTEGER":
                raise SqlError("42601", "boolean expression required")
        grouped = spelled_out(node["group_expressions"], node["select_list"])
        rows = [*conditions, *node["group_expressions"], *([node["where_clause"]] if node["where_clause"] else [])]
        self._expressions([*rows, *grouped], inside)
        shown = [*node["select_list"], *([node["having"]] if node["having"] else [])]
        ordered = [
            order["expression"]
            for modifier in node["modifiers"]
            for order in modifier.get("orders", [])
        ]  # fmt: skip
        for modifier in node["modifiers"]:
            ordered += modifier.get("distinct_on_targets", [])
            ordered += [modifier[name] for name in ("limit", "offset") if modifier.get(name) is not None]
        self._expressions([*shown, *ordered], Scope(common, node["from_table"], scope.around, grouped))

    def _tables(self, table: Node, common: list[Node], around: tuple[Node, ...]) -> list[Node]:
        """Translates what stands behind FROM; gives the conditions of its joins."""
        kind = table["type"]
        if kind == "TABLE_FUNCTION":
            name = table["function"]["function_name"]
            if name in ("generate_series", "unnest", "result_scan", "external"):
                raise SqlError("0A000", f"the simulated org does not offer {name} as a table")
            raise SqlError("42601", f'"{name}" is not a table function')
        if kind not in TABLES:
            raise SqlError("42601", f"syntax error: {kind} is none of Hyper's tables")
        if table.get("sample") is not None:
            raise SqlError("0A000", "the simulated org does not offer samples")
        if kind == "BASE_TABLE":
            self._base_table(table, common)
            return []
        if kind == "SUBQUERY":
            self._name_columns(table["subquery"]["node"])
            self._query(table["subquery"]["node"], Scope(common, None, around))
            return []
        if kind == "EXPRESSION_LIST":
            self._expressions([value for row in table["values"] for value in row], Scope(common, None, around))
            if not table["expected_names"]:
                table["expected_names"] = [f"column{place + 1}" for place in range(len(table["values"][0]))]
            return []
        if kind == "JOIN":
            if table["ref_type"] not in ("REGULAR", "CROSS", "NATURAL") or table["join_type"] in ("SEMI", "ANTI"):
                raise SqlError("42601", f"syntax error: {table['join_type']} {table['ref_type']} is no join of Hyper")
            left = self._tables(table["left"], common, around)
            lateral = (*around, table["left"])
            conditions = left + self._tables(table["right"], common, lateral)
            return conditions + ([table["condition"]] if table.get("condition") is not None else [])
        return []

    def _base_table(self, table: Node, common: list[Node]) -> None:
        schema, name = table.get("schema_name", ""), table["table_name"]
        if table.get("catalog_name"):
            raise SqlError("42P01", f'table "{table["catalog_name"]}"."{schema}"."{name}" does not exist')
        if not schema and (
            name.lower() in self._objects or any(name.lower() == entry["key"].lower() for entry in common)
        ):
            return
        if schema.lower() == "public" and name.lower() in self._objects:
            table["schema_name"] = ""
        elif (not schema or schema.lower() == CATALOGUE) and name.lower() in CATALOGUE_OIDS:
            table["schema_name"] = ""
            table["alias"] = table["alias"] or name
            table["table_name"] = f"hyper_{name.lower()}"
        elif schema and schema.lower() not in ("public", CATALOGUE, "information_schema"):
            raise SqlError("3F000", f'schema "{schema}" does not exist')
        else:
            raise SqlError("42P01", f'table "{name}" does not exist')
        path = [table["schema_name"], table["table_name"]] if table["schema_name"] else [table["table_name"]]
        if "qualified_name" in table:
            table["qualified_name"] = {"path": path}

    def _name_columns(self, query: Node) -> None:
        """Gives the columns of a query in a query the names by which the outer one knows them."""
        first = query
        while first["type"] == "SET_OPERATION_NODE":
            first = first["children"][0]
        for place, item in enumerate(first.get("select_list", [])):
            if item["class"] == "STAR":
                return
            if item["class"] != "COLUMN_REF" and not item["alias"]:
                item["alias"] = _column_name(item, place)

    def _check_aliases(self, node: Node, scope: Scope) -> None:
        """DuckDB takes a column's new name where Hyper does not: beside it, in WHERE and in HAVING."""
        named = {item["alias"].lower() for item in node["select_list"] if item["alias"]}
        if not named:
            return
        places = [*node["select_list"], node["where_clause"], node["having"]]
        for found in nodes_in(places, into_queries=False):
            if found.get("class") != "COLUMN_REF" or len(found["column_names"]) != 1:
                continue
            if found["column_names"][0].lower() in named:
                try:
                    self._types([found], scope)
                except duckdb.BinderException:
                    raise SqlError("42703", f"unknown column '{found['column_names'][0]}'") from None

    def _check_columns_match(self, children: list[Node], common: list[Node]) -> None:
        described = [self._described(child, common) for child in children]
        for left, right in itertools.pairwise(described):
            if len(left) != len(right):
                raise SqlError("42601", "set operations require an identical number of columns")
            for one, other in zip(left, right, strict=True):
                if family(one) != family(other) and "null" not in (family(one), family(other)):
                    raise SqlError("42601", "set operations require an identical schema on both sides")

    def _described(self, query: Node, common: list[Node]) -> list[str]:
        query = copy.deepcopy(query)
        known = {entry["key"].lower() for entry in query["cte_map"]["map"]}
        query["cte_map"]["map"] = [e for e in common if e["key"].lower() not in known] + query["cte_map"]["map"]
        return self._shown(query)

    # Expressions.

    def _expressions(self, expressions: list[Node], scope: Scope) -> None:
        """Translates them in place, those that hang on types in rounds from the inside out."""
        rounds: list[list[Node]] = []
        for expression in expressions:
            self._collect(expression, scope, rounds)
        for nodes in rounds:
            operands = [operand for node in nodes for operand in operands_of(node)]
            types = iter(self._operand_types(operands, scope))
            for node in nodes:
                found = [next(types) for _ in operands_of(node)]
                other = rewritten(self._connection, node, found)
                if other is not None:
                    become(node, other)

    def _collect(self, node: Node, scope: Scope, rounds: list[list[Node]]) -> int:
        """Checks a node and all below it, writes those otherwise that need no types, and puts the others into the round
        after those of their operands. Gives the round that its own value is ready for."""
        kind = node["class"]
        if kind in NOT_OFFERED_CLASSES:
            raise SqlError("0A000", f"the simulated org does not offer {kind}")
        if kind not in CLASSES:
            raise SqlError("42601", f"syntax error: {kind} is no expression of Hyper")
        if kind == "OPERATOR" and node["type"] not in OPERATORS:
            raise SqlError("42601", f"syntax error: {node['type']} is no operator of Hyper")
        if kind == "STAR" and (node.get("exclude_list") or node.get("replace_list") or node.get("columns")):
            raise SqlError("0A000", "the simulated org does not offer EXCLUDE, REPLACE and COLUMNS")
        if kind == "COLUMN_REF" and len(node["column_names"]) == 1 and node["column_names"][0].lower() in WHO:
            raise SqlError("0A000", f"'{node['column_names'][0]}' does not exist")
        if kind == "SUBQUERY":
            around = (*scope.around, *([scope.tables] if scope.tables is not None else []))
            self._query(node["subquery"]["node"], Scope(scope.common, None, around))
        if kind in ("FUNCTION", "WINDOW"):
            check_function(node)
        if kind == "CAST":
            check_type(node)
        ready = 0
        for child in children_of(node):
            ready = max(ready, self._collect(child, scope, rounds))
        if kind == "FUNCTION" and not operands_of(node):
            written = templated(self._connection, node)
            if written is not None:
                become(node, written)
            return ready
        if not operands_of(node):
            return ready
        if len(rounds) <= ready:
            rounds.append([])
        rounds[ready].append(node)
        return ready + 1

    def _operand_types(self, operands: list[Node], scope: Scope) -> list[str]:
        known = [self._known_type(operand) for operand in operands]
        asked = [operand for operand, kind in zip(operands, known, strict=True) if kind is None]
        found = iter(self._types_or_unknown(asked, scope) if asked else [])
        return [kind if kind is not None else next(found) for kind in known]

    def _known_type(self, node: Node) -> str | None:
        node = unsigned(node) if unsigned(node)["class"] == "CONSTANT" else node
        if node["class"] == "CONSTANT":
            literal = node["literal"]
            if literal["kind"] == "INTEGER":
                return "INTEGER" if int(literal["text"]) < 2**31 else "BIGINT"
            if literal["kind"] == "NUMERIC":
                return literal_type(literal["text"])
            return {"STRING": "VARCHAR", "BOOLEAN": "BOOLEAN", "NULL_LITERAL": '"NULL"'}.get(literal["kind"])
        if node["class"] == "CAST" and node["child"]["class"] == "PARAMETER":
            return self._statement.types[node["child"]["identifier"]]
        if node["class"] == "CAST" and not node["type_expr"]["children"]:
            name = node["type_expr"]["type_name"]
            return name if name in ("VARCHAR", "BIGINT", "INTEGER") else None
        if node["class"] == "FUNCTION":
            return RESULTS.get(node["function_name"])
        return None

    def _types_or_unknown(self, nodes: list[Node], scope: Scope) -> list[str]:
        try:
            return self._types(nodes, scope)
        except duckdb.BinderException:
            pass
        found = []
        for node in nodes:
            try:
                found += self._types([node], scope)
            except duckdb.BinderException:
                found.append("")
        return found

    def _types(self, nodes: list[Node], scope: Scope) -> list[str]:
        """DuckDB's types of expressions where they stand. Raises ``duckdb.BinderException``."""
        tables = some([scope.tables] if scope.tables is not None else [])
        around = some(list(reversed(scope.around)))
        tries = [tables] + ([[*tables, *around]] if around else [])
        for place, joined in enumerate(tries):
            query = empty_query(self._connection)
            query["cte_map"]["map"] = scope.common
            query["select_list"] = [{**node, "alias": ""} for node in nodes]
            if joined:
                query["from_table"] = joined_tables(joined)
                for table in nodes_in(query["from_table"]):
                    if table.get("type") == "JOIN" and table.get("condition") is not None:
                        # Which rows meet changes no type, and the condition itself may not be translated yet.
                        table["condition"] = made_of(self._connection, "true")
            if scope.groups and any(is_aggregate(node) for node in nodes):
                query["group_expressions"] = scope.groups
                query["group_sets"] = [list(range(len(scope.groups)))]
            try:
                return self._shown(query)
            except duckdb.BinderException:
                if place == len(tries) - 1:
                    raise
        return []

    def _shown(self, query: Node) -> list[str]:
        tree = {"error": False, "statements": [{"node": query, "named_param_map": []}]}
        text = written(self._connection, tree)
        rows = self._connection.execute(f"DESCRIBE {text}", used_values(text, self._statement)).fetchall()
        return [row[1] for row in rows]


# Names of columns.


def _column_name(item: Node, place: int) -> str | None:
    """As Hyper names it: by its alias, its column, its function, or its place."""
    if item["class"] == "STAR":
        return None
    if item["alias"]:
        return str(item["alias"])
    if item["class"] == "COLUMN_REF":
        return str(item["column_names"][-1])
    if item["class"] == "CAST" and item["child"]["class"] != "CONSTANT":
        return _column_name(item["child"], place)
    if item["class"] == "CASE":
        return "case"
    if item["class"] == "OPERATOR" and item["type"] == "OPERATOR_COALESCE":
        return "coalesce"
    is_sign = item["class"] == "FUNCTION" and (
        item.get("is_operator") or item["function_name"].startswith("to_") or item["function_name"] == "timezone"
    )
    if item["class"] in ("FUNCTION", "WINDOW") and not is_sign:
        name = str(item["function_name"]).removeprefix("hyper_")
        return OURS.get(name, name)
    return str(place + 1)


def _chars(query: Node) -> dict[int, int]:
    return {
        place: modifiers_of(item["type_expr"])[0]
        for place, item in enumerate(query.get("select_list", []))
        if item["class"] == "CAST" and item["type_expr"]["type_name"] == "hyper_char"
    }
