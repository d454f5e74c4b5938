"""What a statement means to Hyper, said in DuckDB's SQL, or a refusal.

DuckDB's own grammar reads the statement into a tree (``json_serialize_sql``). The tree is walked from the inside out: what
Hyper does not have is refused, what it means otherwise is written otherwise, and the tree becomes a text again. Where the
meaning hangs on types (a division, a cast, a comparison), DuckDB is asked for those of the operands where they stand.
Only functions, types and forms that are listed are taken: an unknown one is refused and never answered otherwise.

SQL reference: https://developer.salesforce.com/docs/data/data-cloud-query-guide/references/dc-sql-reference/data-360-sql-context.html
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import duckdb

from sync_pipeline.simulated_org.sql_functions import CAST_TYPES, EXTRACTS, NOT_OFFERED, SAME, TEMPLATES, TEXTS
from sync_pipeline.simulated_org.sql_words import SqlError, Statement

Node = dict[str, Any]

CATALOGUE: Final = "pg_catalog"
CATALOGUE_OIDS: Final[Mapping[str, int]] = {
    "pg_type": 1247, "pg_attribute": 1249, "pg_class": 1259, "pg_attrdef": 2604, "pg_description": 2609, "pg_namespace": 2615,
}  # fmt: skip
"""Tables of the catalogue, by their fixed numbers; ``query_engine.py`` makes them."""

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
INNER_FUNCTIONS: Final = frozenset(
    "to_years to_months to_days to_hours to_minutes to_seconds to_weeks to_quarters nullif greatest least date_part "
    "count_star row ".split()
)
"""Names that DuckDB's grammar writes for a form of SQL; ``sql_words.py`` takes none of those that are no function of Hyper."""

WHOLE: Final = frozenset("TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT".split())
DIGITS: Final[Mapping[str, int]] = {"TINYINT": 3, "SMALLINT": 5, "INTEGER": 10, "BIGINT": 19}
FLOATS: Final = frozenset(("DOUBLE", "FLOAT"))
MOMENTS: Final = frozenset(("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"))
PRECISION: Final = 38
LIKES: Final[Mapping[str, str]] = {
    "~~": "like_escape", "!~~": "not_like_escape", "~~*": "ilike_escape", "!~~*": "not_ilike_escape",
}  # fmt: skip
SPREADS: Final = frozenset("stddev stddev_pop stddev_samp var_pop var_samp variance".split())
ROUNDERS: Final = frozenset("round floor ceil ceiling trunc".split())
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
        tree = _parsed(self._connection, self._statement)
        query = tree["statements"][0]["node"]
        for node in list(_nodes(query)):
            if node.get("class") == "PARAMETER":
                self._give_type(node)
        first = query
        while first["type"] == "SET_OPERATION_NODE":
            first = first["children"][0]
        names, chars = self._columns(first), _chars(first)
        self._query(query, Scope())
        return Meaning(_written(self._connection, tree), names, chars)

    def _give_type(self, node: Node) -> None:
        kind = self._statement.types[node["identifier"]]
        typed = _expression(self._connection, f"CAST(_1 AS {kind})", node)
        _become(node, typed)

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
        grouped = _spelled_out(node["group_expressions"], node["select_list"])
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
        for found in _nodes(places, into_queries=False):
            if found.get("class") != "COLUMN_REF" or len(found["column_names"]) != 1:
                continue
            if found["column_names"][0].lower() in named:
                try:
                    self._types([found], scope)
                except duckdb.BinderException:
                    raise SqlError("42703", f"unknown column '{found['column_names'][0]}'") from None

    def _check_columns_match(self, children: list[Node], common: list[Node]) -> None:
        described = [self._described(child, common) for child in children]
        for left, right in zip(described, described[1:], strict=False):
            if len(left) != len(right):
                raise SqlError("42601", "set operations require an identical number of columns")
            for one, other in zip(left, right, strict=True):
                if _family(one) != _family(other) and "null" not in (_family(one), _family(other)):
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
            operands = [operand for node in nodes for operand in _operands(node)]
            types = iter(self._operand_types(operands, scope))
            for node in nodes:
                found = [next(types) for _ in _operands(node)]
                rewritten = _rewritten(self._connection, node, found)
                if rewritten is not None:
                    _become(node, rewritten)

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
            _check_function(node)
        if kind == "CAST":
            _check_type(node)
        ready = 0
        for child in _children(node):
            ready = max(ready, self._collect(child, scope, rounds))
        if kind == "FUNCTION" and not _operands(node):
            written = _template(self._connection, node)
            if written is not None:
                _become(node, written)
            return ready
        if not _operands(node):
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
        if node["class"] == "CONSTANT":
            literal = node["literal"]
            if literal["kind"] == "INTEGER":
                return "INTEGER" if int(literal["text"]) < 2**31 else "BIGINT"
            if literal["kind"] == "NUMERIC":
                return _literal_type(literal["text"])
            return {"STRING": "VARCHAR", "BOOLEAN": "BOOLEAN", "NULL_LITERAL": '"NULL"'}.get(literal["kind"])
        if node["class"] == "CAST" and node["child"]["class"] == "PARAMETER":
            return self._statement.types[node["child"]["identifier"]]
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
        nothing = _parsed_text(self._connection, "SELECT 1")["statements"][0]["node"]
        tables = _some([scope.tables] if scope.tables is not None else [])
        around = _some(list(reversed(scope.around)))
        tries = [tables] + ([[*tables, *around]] if around else [])
        for place, joined in enumerate(tries):
            query = copy.deepcopy(nothing)
            query["cte_map"]["map"] = scope.common
            query["select_list"] = [{**node, "alias": ""} for node in nodes]
            if joined:
                query["from_table"] = _joined(joined)
            if scope.groups and any(_is_aggregate(node) for node in nodes):
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
        text = _written(self._connection, tree)
        rows = self._connection.execute(f"DESCRIBE {text}", _used(text, self._statement)).fetchall()
        return [row[1] for row in rows]


# The tree.


def _parsed(connection: duckdb.DuckDBPyConnection, statement: Statement) -> Node:
    tree = _parsed_text(connection, statement.text)
    if tree["error"]:
        position = tree.get("position")
        place = None if position is None else statement.origin(int(position))
        raise SqlError("42601", str(tree["error_message"]), position=place)
    return tree


def _parsed_text(connection: duckdb.DuckDBPyConnection, text: str) -> Node:
    row = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchone()
    tree: Node = json.loads(row[0])  # type: ignore[index]
    return tree


def _written(connection: duckdb.DuckDBPyConnection, tree: Node) -> str:
    row = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchone()
    return str(row[0])  # type: ignore[index]


def _expression(connection: duckdb.DuckDBPyConnection, template: str, *arguments: Node) -> Node:
    """A template's tree with these arguments."""
    made: Node = json.loads(_template_text(connection, template))
    for node in list(_nodes(made)):
        if node.get("class") == "COLUMN_REF" and re.fullmatch(r"_\d", node["column_names"][0]):
            _become(node, copy.deepcopy(arguments[int(node["column_names"][0][1:]) - 1]))
            node["alias"] = ""
    return made


TEMPLATE_TEXTS: Final[dict[str, str]] = {}


def _template_text(connection: duckdb.DuckDBPyConnection, template: str) -> str:
    known = TEMPLATE_TEXTS.get(template)
    if known is None:
        tree = _parsed_text(connection, f"SELECT {template}")
        known = json.dumps(tree["statements"][0]["node"]["select_list"][0])
        TEMPLATE_TEXTS[template] = known
    return known


def _become(node: Node, other: Node) -> None:
    """Puts another expression in the place of one; the name of the column stays."""
    alias = node.get("alias", "")
    made = dict(other)
    node.clear()
    node.update(made)
    node["alias"] = alias


def _nodes(value: Any, *, into_queries: bool = True) -> Iterator[Node]:
    """All objects of a tree, the outer ones first."""
    if isinstance(value, dict):
        if not into_queries and value.get("class") == "SUBQUERY":
            return
        yield value
        for part in list(value.values()):
            yield from _nodes(part, into_queries=into_queries)
    elif isinstance(value, list):
        for part in value:
            yield from _nodes(part, into_queries=into_queries)


def _children(node: Node) -> list[Node]:
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


def _arguments(node: Node) -> list[Node]:
    return [argument["expression"] for argument in node.get("arguments", [])]


def _some(tables: list[Node]) -> list[Node]:
    return [table for table in tables if table["type"] != "EMPTY"]


def _joined(tables: list[Node]) -> Node:
    found = copy.deepcopy(tables[0])
    for table in tables[1:]:
        found = {
            "type": "JOIN", "alias": "", "sample": None, "query_location": 0, "left": found, "right": copy.deepcopy(table),
            "condition": None, "join_type": "INNER", "ref_type": "CROSS", "using_columns": [], "delim_flipped": False,
            "duplicate_eliminated_columns": [],
        }  # fmt: skip
    return found


def _spelled_out(groups: list[Node], items: list[Node]) -> list[Node]:
    """The expressions that a GROUP BY means by number or by a column's new name."""
    by_alias = {item["alias"].lower(): item for item in items if item["alias"] and item["class"] != "COLUMN_REF"}
    found = []
    for group in groups:
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


def _is_aggregate(node: Node) -> bool:
    return any(
        found.get("class") == "WINDOW" or (found.get("class") == "FUNCTION" and found["function_name"] in AGGREGATES)
        for found in _nodes(node, into_queries=False)
    )


def _used(text: str, statement: Statement) -> dict[str, str | None]:
    return {name: value for name, value in statement.values.items() if re.search(rf"\${name}\b", text)}


# Names of columns.


def _column_name(item: Node, place: int) -> str | None:
    """As Hyper names it: by its alias, its column, its function, or its place."""
    if item["class"] == "STAR":
        return None
    if item["alias"]:
        return str(item["alias"])
    if item["class"] == "COLUMN_REF":
        return str(item["column_names"][-1])
    if item["class"] == "CASE":
        return "case"
    if item["class"] == "OPERATOR" and item["type"] == "OPERATOR_COALESCE":
        return "coalesce"
    is_sign = item["class"] == "FUNCTION" and (item.get("is_operator") or item["function_name"].startswith("to_"))
    if item["class"] in ("FUNCTION", "WINDOW") and not is_sign:
        name = str(item["function_name"]).removeprefix("hyper_")
        return OURS.get(name, name)
    return str(place + 1)


def _chars(query: Node) -> dict[int, int]:
    return {
        place: _modifiers(item["type_expr"])[0]
        for place, item in enumerate(query.get("select_list", []))
        if item["class"] == "CAST" and item["type_expr"]["type_name"] == "hyper_char"
    }


# Types.


def _family(kind: str) -> str:
    """What may be compared with each other."""
    if kind in WHOLE or kind in FLOATS or kind.startswith("DECIMAL"):
        return "number"
    if kind in MOMENTS:
        return "moment"
    if kind == "VARCHAR":
        return "text"
    if kind.endswith("[]"):
        return "array"
    return {'"NULL"': "null", "": "unknown"}.get(kind, kind.lower())


def _literal_type(text: str) -> str:
    if "e" in text.lower():
        return "DOUBLE"
    whole, _, fraction = text.partition(".")
    digits = len(whole.lstrip("0")) + len(fraction)
    return f"DECIMAL({max(digits, 1)},{len(fraction)})"


def _decimal(node: Node, kind: str) -> tuple[int, int] | None:
    """Precision and scale of an operand, if it can take part in exact arithmetic."""
    if node["class"] == "CONSTANT" and node["literal"]["kind"] == "INTEGER":
        return max(len(node["literal"]["text"].lstrip("0")), 1), 0
    if kind in DIGITS:
        return DIGITS[kind], 0
    found = re.fullmatch(r"DECIMAL\((\d+), ?(\d+)\)", kind)
    return None if found is None else (int(found[1]), int(found[2]))


def _fitted(precision: int, scale: int) -> tuple[int, int]:
    """A result's type when it needs more digits than there are: places behind the point are given up, but six."""
    if precision <= PRECISION:
        return precision, scale
    return PRECISION, max(scale - (precision - PRECISION), min(scale, 6))


def _check_type(node: Node) -> None:
    kind = node["type_expr"]
    while kind["type_name"].lower() == "list":
        kind = kind["children"][0]
    name = kind["type_name"].lower()
    if name in ("hyper_char", "regclass"):
        if name == "hyper_char" and _modifiers(kind)[0] < 1:
            raise SqlError("42601", "length for type char must be at least 1")
        return
    if name in ("uuid", "blob", "bytea", "json", "geography", "time with time zone", "bit"):
        raise SqlError("0A000", f"the simulated org does not offer the type {name}")
    if name not in CAST_TYPES:
        raise SqlError("42704", f'type "{name}" does not exist')
    if CAST_TYPES[name] == "VARCHAR" and kind["children"] and _modifiers(kind)[0] < 1:
        raise SqlError("42601", "length for type char must be at least 1")
    if CAST_TYPES[name] == "DECIMAL":
        modifiers = _modifiers(kind) if kind["children"] else [PRECISION, 0]
        precision, scale = modifiers[0], (modifiers[1] if len(modifiers) > 1 else 0)
        if not 1 <= precision <= PRECISION or not 0 <= scale <= precision:
            raise SqlError("42601", "invalid NUMERIC modifiers")


def _modifiers(kind: Node) -> list[int]:
    return [int(child["literal"]["text"]) for child in kind["children"]] or [1]


# Functions.


def _check_function(node: Node) -> None:
    name = str(node["function_name"]).lower()
    if name == "row":
        raise SqlError("0A000", "ROW types are disabled")
    if node.get("schema", "") not in ("", CATALOGUE):
        raise SqlError("3F000", f'schema "{node["schema"]}" does not exist')
    if name in NOT_OFFERED or name in ("timezone", "regexp_full_match", "quantile_disc", "quantile_cont"):
        raise SqlError("0A000", f"the simulated org does not offer {name}")
    known = name in SAME or name in INNER_FUNCTIONS or any(name == known for known, _ in TEMPLATES)
    if not known:
        raise SqlError("42883", f'function "{name}" does not exist')
    if any(argument.get("name") for argument in node["arguments"]):
        raise SqlError("42601", "syntax error: arguments have no names")
    node["function_name"] = name
    node["schema"] = ""
    if "qualified_name" in node:
        node["qualified_name"] = {"path": [name]}


def _template(connection: duckdb.DuckDBPyConnection, node: Node) -> Node | None:
    arguments = _arguments(node)
    template = TEMPLATES.get((node["function_name"], len(arguments)))
    if node["function_name"] in ("format_type", "pg_get_expr"):
        template = "hyper_format_type(_1, _2)" if node["function_name"] == "format_type" else "CAST(_1 AS VARCHAR)"
    if node["function_name"] == "date_part" and arguments[0]["class"] == "CONSTANT":
        part = arguments[0]["literal"]["text"].lower()
        template = EXTRACTS.get(part)
        if template is None:
            raise SqlError("0A000", f"the simulated org does not offer extract({part} …)")
        return _expression(connection, template, arguments[1])
    return None if template is None else _expression(connection, template, *arguments)


def _operands(node: Node) -> list[Node]:
    """The operands whose types decide what a node means."""
    kind = node["class"]
    if kind == "CAST":
        return [] if node["child"]["class"] == "PARAMETER" else [node["child"]]
    if kind == "COMPARISON":
        return [node["left"], node["right"]]
    if kind == "BETWEEN":
        return [node["input"], node["lower"], node["upper"]]
    if kind == "OPERATOR" and node["type"] in ("COMPARE_IN", "COMPARE_NOT_IN"):
        return list(node["children"])
    if kind in ("FUNCTION", "WINDOW"):
        name = node["function_name"]
        arguments = _arguments(node)
        if name in LIKES or name in ("||", "concat", "concat_ws", "+", "-", "*", "/", "%", "date_trunc"):
            return arguments
        if name in TEXTS or name in SPREADS or name in ROUNDERS or name in ("sum", "avg", "ntile"):
            return arguments[:1]
    return []


def _rewritten(connection: duckdb.DuckDBPyConnection, node: Node, types: list[str]) -> Node | None:
    """What a node is in DuckDB, given the types of its operands; ``None`` when it is the same."""
    if node["class"] == "CAST":
        return _cast(connection, node, types[0])
    if node["class"] in ("COMPARISON", "BETWEEN", "OPERATOR"):
        return _comparison(connection, node, types)
    name = node["function_name"]
    arguments = _arguments(node)
    families = [_family(kind) for kind in types]
    if "unknown" in families:
        raise SqlError("0A000", f"the simulated org does not offer {name} here, because it cannot tell the types")
    if name in LIKES:
        if any(family not in ("text", "null") for family in families):
            raise SqlError("42601", "'LIKE' requires string arguments")
        pattern = arguments[1]
        is_plain = pattern["class"] == "CONSTANT" and "\\" not in pattern["literal"]["text"]
        return None if is_plain else _expression(connection, f"{LIKES[name]}(_1, _2, '\\')", *arguments)
    if name in ("||", "concat", "concat_ws"):
        return _concatenation(connection, node, types)
    if name in TEXTS:
        if families[0] not in ("text", "null"):
            raise SqlError("42601", f"'{name}' requires a string argument")
        return _template(connection, node)
    if name in ("+", "-", "*", "/", "%"):
        return _arithmetic(connection, node, types)
    if name in ("sum", "avg") or name in SPREADS:
        return _aggregate(connection, node, types[0])
    if name in ROUNDERS:
        return _rounding(connection, node, types[0])
    if name == "ntile":
        return _expression(connection, "CAST(_1 AS INTEGER)", node)
    if name == "date_trunc" and types[1] == "DATE":
        return _expression(connection, "CAST(_1 AS TIMESTAMP)", node)
    return None


def _rounding(connection: duckdb.DuckDBPyConnection, node: Node, kind: str) -> Node | None:
    """A decimal keeps its type, a double that is to be rounded goes to the even neighbour."""
    if kind.startswith("DECIMAL"):
        return _expression(connection, f"CAST(_1 AS {kind})", node)
    arguments = _arguments(node)
    if kind not in FLOATS or (len(arguments) > 1 and node["function_name"] == "round"):
        raise SqlError("0A000", f"the simulated org does not offer {node['function_name']} of this type")
    return _expression(connection, "round_even(_1, 0)", *arguments) if node["function_name"] == "round" else None


def _cast(connection: duckdb.DuckDBPyConnection, node: Node, kind: str) -> Node | None:
    if node.get("try_cast"):
        raise SqlError("0A000", "the simulated org does not offer TRY_CAST")
    target, child = node["type_expr"], node["child"]
    name = target["type_name"].lower()
    if kind == "":
        raise SqlError("0A000", "the simulated org does not offer a cast here, because it cannot tell the types")
    if name == "regclass":
        if child["class"] != "CONSTANT" or child["literal"]["text"].lower() not in CATALOGUE_OIDS:
            raise SqlError("0A000", "the simulated org offers regclass for tables of the catalogue alone")
        return _expression(connection, str(CATALOGUE_OIDS[child["literal"]["text"].lower()]))
    if name == "list":
        return None
    known = "CHAR" if name == "hyper_char" else CAST_TYPES[name]
    if known in ("VARCHAR", "CHAR"):
        text = _text(connection, child, kind)
        if known == "CHAR":
            # Blanks at its end do not count, so they are not kept either; a column gets them when it is shown.
            return _expression(connection, f"rtrim(left(_1, {_modifiers(target)[0]}), ' ')", text)
        if target["children"]:
            return _expression(connection, f"left(_1, {_modifiers(target)[0]})", text)
        return text if text is not child else None
    if kind != "VARCHAR":
        return None
    if known in ("SMALLINT", "INTEGER", "BIGINT"):
        return _expression(connection, f"CAST(hyper_whole(_1) AS {known})", child)
    if known in MOMENTS:
        made = _expression(connection, "hyper_day(_1)", child)
        return {**node, "child": made}
    return None


def _text(connection: duckdb.DuckDBPyConnection, node: Node, kind: str) -> Node:
    """A value as Hyper writes it as text."""
    if kind == "DOUBLE":
        return _expression(connection, "hyper_double_text(_1)", node)
    if kind == "FLOAT":
        return _expression(connection, "hyper_float_text(_1)", node)
    if kind == "VARCHAR":
        return node
    if kind == "INTERVAL":
        return _expression(connection, INTERVAL, node)
    if kind.endswith("[]"):
        raise SqlError("0A000", "the simulated org does not offer arrays as text")
    return _expression(connection, "CAST(_1 AS VARCHAR)", node)


INTERVAL: Final = (
    "hyper_interval(CAST(date_part('year', _1) * 12 + date_part('month', _1) AS BIGINT), "
    "CAST(date_part('day', _1) AS BIGINT), CAST(date_part('hour', _1) * 3600000000 + date_part('minute', _1) * 60000000 "
    "+ date_part('microsecond', _1) AS BIGINT))"
)


def _concatenation(connection: duckdb.DuckDBPyConnection, node: Node, types: list[str]) -> Node | None:
    if node["function_name"] == "||":
        if any(kind.endswith("[]") for kind in types):
            return None
        if not any(_family(kind) in ("text", "null") for kind in types):
            raise SqlError("42601", "'||' requires at least one string argument")
    made = copy.deepcopy(node)
    for argument, kind in zip(made["arguments"], types, strict=True):
        if _family(kind) not in ("text", "null"):
            argument["expression"] = _text(connection, argument["expression"], kind)
    return made


def _comparison(connection: duckdb.DuckDBPyConnection, node: Node, types: list[str]) -> Node | None:
    operands = _operands(node)
    first, kind = operands[0], types[0]
    for operand, other in zip(operands[1:], types[1:], strict=True):
        families = {_family(kind), _family(other)}
        if len(families) == 1 or families & {"null", "unknown"}:
            continue
        texts = [each for each, its in ((first, kind), (operand, other)) if _family(its) == "text"]
        if not texts or not _is_given(texts[0]):
            raise SqlError("42601", f"cannot compare '{_spoken(kind)}' and '{_spoken(other)}'")
        if "number" in families and texts[0]["class"] == "CONSTANT" and not NUMBER.fullmatch(texts[0]["literal"]["text"]):
            raise SqlError("42601", "implicit cast of 'text' to compare with a number failed: invalid input syntax")
    if any(_is_char(operand) for operand in operands) and node["class"] == "COMPARISON":
        made = copy.deepcopy(node)
        for side in ("left", "right"):
            made[side] = _expression(connection, "rtrim(_1, ' ')", made[side])
        return made
    return None


NUMBER: Final = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")


def _is_given(node: Node) -> bool:
    """Whether a text is a literal or a parameter, which takes the type of what it is compared with."""
    return node["class"] == "CONSTANT" or (node["class"] == "CAST" and node["child"]["class"] == "PARAMETER")


def _is_char(node: Node) -> bool:
    arguments = _arguments(node) if node["class"] == "FUNCTION" else []
    return bool(arguments) and node["function_name"] == "rtrim" and arguments[0].get("function_name") == "left"


def _spoken(kind: str) -> str:
    return {"VARCHAR": "text"}.get(kind, kind.lower())


def _arithmetic(connection: duckdb.DuckDBPyConnection, node: Node, types: list[str]) -> Node | None:
    name, arguments = node["function_name"], _arguments(node)
    if any(_family(kind) in ("text", "boolean") for kind in types):
        raise SqlError("42601", f"'{name}' requires numerical arguments")
    if len(arguments) == 1:
        return None
    if name == "-" and types == ["DATE", "DATE"]:
        return _expression(connection, "CAST(_1 AS INTEGER)", node)
    if not all(_family(kind) in ("number", "null") for kind in types) or any(kind in FLOATS for kind in types):
        return None
    if all(kind in WHOLE or kind == '"NULL"' for kind in types):
        return _expression(connection, "_1 // _2", *arguments) if name == "/" else None
    left, right = (_decimal(node, kind) for node, kind in zip(arguments, types, strict=True))
    if left is None or right is None:
        return None
    (p1, s1), (p2, s2) = left, right
    if name in ("+", "-"):
        scale = max(s1, s2)
        precision, scale = _fitted(max(p1 - s1, p2 - s2) + scale + 1, scale)
        return _expression(connection, f"CAST(_1 AS DECIMAL({precision}, {scale}))", node)
    if name == "*":
        if p1 + p2 > PRECISION:
            raise SqlError("0A000", f"the simulated org does not offer products of more than {PRECISION} digits")
        return _expression(connection, f"CAST(_1 AS DECIMAL({p1 + p2}, {s1 + s2}))", node)
    if name == "/":
        scale = max(6, s1 + p2 + 1)
        precision, scale = _fitted(p1 - s1 + s2 + scale, scale)
        return _quotient(connection, arguments[0], arguments[1], (s1, s2), (precision, scale))
    raise SqlError("0A000", f"the simulated org does not offer {name} of numerics")


def _quotient(
    connection: duckdb.DuckDBPyConnection, left: Node, right: Node, scales: tuple[int, int], kind: tuple[int, int]
) -> Node:
    """The exact quotient of two numbers of these scales, rounded half away from zero."""
    precision, scale = kind
    shift = scale - scales[0] + scales[1]
    a = f"hyper_digits(_1) * CAST('1{'0' * max(shift, 0)}' AS HUGEINT)"
    b = f"hyper_digits(_2) * CAST('1{'0' * max(-shift, 0)}' AS HUGEINT)"
    return _expression(
        connection,
        f"CAST(hyper_point(hyper_quotient({a}, {b}), {scale}) AS DECIMAL({precision}, {scale}))",
        left,
        right,
    )


def _aggregate(connection: duckdb.DuckDBPyConnection, node: Node, kind: str) -> Node | None:
    name = node["function_name"]
    if _family(kind) not in ("number", "null"):
        raise SqlError("42601", f"{name.upper()} requires numerical arguments")
    if kind in FLOATS or kind == '"NULL"':
        return _expression(connection, "CAST(_1 AS FLOAT)", node) if name == "sum" and kind == "FLOAT" else None
    if name in SPREADS:
        return _expression(connection, "CAST(_1 AS DECIMAL(38, 6))", node)
    if name == "sum":
        return _expression(connection, "CAST(_1 AS BIGINT)", node) if kind in WHOLE else None
    digits = _decimal({"class": ""}, kind)
    if digits is None:
        return None
    precision, scale = digits
    total, count = copy.deepcopy(node), copy.deepcopy(node)
    for part, called in ((total, "sum"), (count, "count")):
        part["function_name"] = called
        if "qualified_name" in part:
            part["qualified_name"] = {"path": [called]}
    wider = max(6, scale)
    result = (min(PRECISION, precision - scale + wider), wider)
    return _quotient(connection, total, count, (scale, 0), result)
