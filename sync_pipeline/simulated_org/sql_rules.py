"""Rules by type: what an expression means to Hyper once the types of its operands are known, said in DuckDB's SQL.

Types are DuckDB's. A rule gives the expression that stands for another one, nothing when it is the same, or refuses it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Final

import duckdb

from sync_pipeline.simulated_org.sql_functions import (
    CAST_TYPES,
    EXTRACTS,
    KEEPING,
    LOWERED_OTHERWISE,
    NOT_OFFERED,
    SAME,
    TEMPLATES,
    TEXTS,
)
from sync_pipeline.simulated_org.sql_tree import Node, arguments_of, made_of, nodes_in
from sync_pipeline.simulated_org.sql_words import SqlError

CATALOGUE: Final = "pg_catalog"
CATALOGUE_OIDS: Final[Mapping[str, int]] = {
    "pg_type": 1247, "pg_attribute": 1249, "pg_class": 1259, "pg_attrdef": 2604, "pg_description": 2609, "pg_namespace": 2615,
}  # fmt: skip
"""Tables of the catalogue, by their fixed numbers; ``query_engine.py`` makes them."""

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
RESULTS: Final[Mapping[str, str]] = dict.fromkeys(("count", "count_star"), "BIGINT") | dict.fromkeys(
    "lower upper trim ltrim rtrim chr hyper_chr hyper_lower hyper_upper replace".split(), "VARCHAR"
)
"""Types of some functions, whatever they are given."""
LIKES: Final[Mapping[str, str]] = {
    "~~": "like_escape", "!~~": "not_like_escape", "~~*": "ilike_escape", "!~~*": "not_ilike_escape",
}  # fmt: skip
SPREADS: Final = frozenset("stddev stddev_pop stddev_samp var_pop var_samp variance".split())
ROUNDERS: Final = frozenset("round floor ceil ceiling trunc".split())


def family(kind: str) -> str:
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


def literal_type(text: str) -> str:
    if "e" in text.lower():
        return "DOUBLE"
    whole, _, fraction = text.lstrip("-").partition(".")
    digits = len(whole.lstrip("0")) + len(fraction)
    return f"DECIMAL({max(digits, 1)},{len(fraction)})"


def unsigned(node: Node) -> Node:
    """A literal without the sign before it."""
    if node["class"] == "FUNCTION" and node["function_name"] == "-" and len(node["arguments"]) == 1:
        return arguments_of(node)[0]
    return node


def _decimal(node: Node, kind: str) -> tuple[int, int] | None:
    """Precision and scale of an operand, if it can take part in exact arithmetic."""
    literal = unsigned(node)
    if literal["class"] == "CONSTANT" and literal["literal"]["kind"] == "INTEGER":
        return max(len(literal["literal"]["text"].lstrip("-0")), 1), 0
    if kind in DIGITS:
        return DIGITS[kind], 0
    found = re.fullmatch(r"DECIMAL\((\d+), ?(\d+)\)", kind)
    return None if found is None else (int(found[1]), int(found[2]))


def _fitted(precision: int, scale: int) -> tuple[int, int]:
    """A result's type when it needs more digits than there are: places behind the point are given up, but six."""
    if precision <= PRECISION:
        return precision, scale
    return PRECISION, max(scale - (precision - PRECISION), min(scale, 6))


def check_type(node: Node) -> None:
    kind = node["type_expr"]
    while kind["type_name"].lower() == "list":
        kind = kind["children"][0]
    name = kind["type_name"].lower()
    if name in ("hyper_char", "regclass"):
        if name == "hyper_char" and modifiers_of(kind)[0] < 1:
            raise SqlError("42601", "length for type char must be at least 1")
        return
    if name in ("uuid", "blob", "bytea", "json", "geography", "time with time zone", "bit"):
        raise SqlError("0A000", f"the simulated org does not offer the type {name}")
    if name not in CAST_TYPES:
        raise SqlError("42704", f'type "{name}" does not exist')
    if CAST_TYPES[name] == "VARCHAR" and kind["children"] and modifiers_of(kind)[0] < 1:
        raise SqlError("42601", "length for type char must be at least 1")
    if CAST_TYPES[name] == "DECIMAL":
        modifiers = modifiers_of(kind) if kind["children"] else [PRECISION, 0]
        precision, scale = modifiers[0], (modifiers[1] if len(modifiers) > 1 else 0)
        if not 1 <= precision <= PRECISION or not 0 <= scale <= precision:
            raise SqlError("42601", "invalid NUMERIC modifiers")


def modifiers_of(kind: Node) -> list[int]:
    return [int(child["literal"]["text"]) for child in kind["children"]] or [1]


# Functions.


def check_function(node: Node) -> None:
    name = str(node["function_name"]).lower()
    if name == "row":
        raise SqlError("0A000", "ROW types are disabled")
    if node.get("schema", "") not in ("", CATALOGUE):
        raise SqlError("3F000", f'schema "{node["schema"]}" does not exist')
    if name in NOT_OFFERED or name in ("regexp_full_match", "quantile_disc", "quantile_cont"):
        raise SqlError("0A000", f"the simulated org does not offer {name}")
    if name == "timezone" and not _is_utc(arguments_of(node)):
        raise SqlError("0A000", "the simulated org does not offer AT TIME ZONE of another zone than 'UTC'")
    known = name in SAME or name in INNER_FUNCTIONS or any(name == known for known, _ in TEMPLATES)
    if not known:
        raise SqlError("42883", f'function "{name}" does not exist')
    if any(argument.get("name") for argument in node["arguments"]):
        raise SqlError("42601", "syntax error: arguments have no names")
    node["function_name"] = name
    node["schema"] = ""
    if "qualified_name" in node:
        node["qualified_name"] = {"path": [name]}


def _is_utc(arguments: list[Node]) -> bool:
    """Whether ``zone AT TIME ZONE`` names UTC by a constant. Both engines take an instant to a time of that zone and back."""
    return (
        len(arguments) == 2 and arguments[0]["class"] == "CONSTANT" and arguments[0]["literal"]["text"].upper() == "UTC"
    )


def templated(connection: duckdb.DuckDBPyConnection, node: Node) -> Node | None:
    arguments = arguments_of(node)
    template = TEMPLATES.get((node["function_name"], len(arguments)))
    if node["function_name"] in ("format_type", "pg_get_expr"):
        template = "hyper_format_type(_1, _2)" if node["function_name"] == "format_type" else "CAST(_1 AS VARCHAR)"
    if node["function_name"] == "date_part" and arguments[0]["class"] == "CONSTANT":
        part = arguments[0]["literal"]["text"].lower()
        template = EXTRACTS.get(part)
        if template is None:
            raise SqlError("0A000", f"the simulated org does not offer extract({part} …)")
        return made_of(connection, template, arguments[1])
    return None if template is None else made_of(connection, template, *arguments)


def operands_of(node: Node) -> list[Node]:
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
        arguments = arguments_of(node)
        if name in LIKES or name in ("||", "concat", "concat_ws", "+", "-", "*", "/", "%", "date_trunc"):
            return arguments
        if name in TEXTS or name in SPREADS or name in ROUNDERS or name in ("sum", "avg", "ntile"):
            return arguments[:1]
    return []


def rewritten(connection: duckdb.DuckDBPyConnection, node: Node, types: list[str]) -> Node | None:
    """What a node is in DuckDB, given the types of its operands; ``None`` when it is the same."""
    if node["class"] == "CAST":
        return _cast(connection, node, types[0])
    if node["class"] in ("COMPARISON", "BETWEEN", "OPERATOR"):
        return _comparison(connection, node, types)
    name = node["function_name"]
    arguments = arguments_of(node)
    families = [family(kind) for kind in types]
    if "unknown" in families:
        raise SqlError("0A000", f"the simulated org does not offer {name} here, because it cannot tell the types")
    if name in LIKES:
        if any(family not in ("text", "null") for family in families):
            raise SqlError("42601", "'LIKE' requires string arguments")
        pattern = arguments[1]
        is_plain = pattern["class"] == "CONSTANT" and "\\" not in pattern["literal"]["text"]
        return None if is_plain else made_of(connection, f"{LIKES[name]}(_1, hyper_pattern(_2), '\\')", *arguments)
    if name in ("||", "concat", "concat_ws"):
        return _concatenation(connection, node, types)
    if name in TEXTS:
        if families[0] not in ("text", "null"):
            raise SqlError("42601", f"'{name}' requires a string argument")
        return (_lowered(connection, arguments[0]) if name == "lower" else None) or templated(connection, node)
    if name in ("+", "-", "*", "/", "%"):
        return _arithmetic(connection, node, types)
    if name in ("sum", "avg") or name in SPREADS:
        return _aggregate(connection, node, types[0])
    if name in ROUNDERS:
        return _rounding(connection, node, types[0])
    if name == "ntile":
        return made_of(connection, "CAST(_1 AS INTEGER)", node)
    if name == "date_trunc" and types[1] == "DATE":
        return made_of(connection, "CAST(_1 AS TIMESTAMP)", node)
    return None


def _lowered(connection: duckdb.DuckDBPyConnection, text: Node) -> Node | None:
    """``lower`` of what is cut out of columns: the few values with letters that DuckDB lowers otherwise are looked for in
    the columns, which costs next to nothing; the text itself is made once."""
    columns: list[Node] = []
    for node in nodes_in(text):
        kind = node.get("class")
        if kind == "COLUMN_REF":
            columns.append(node)
        elif kind == "FUNCTION" and node["function_name"] == "chr":
            if any(child["class"] != "CONSTANT" for child in arguments_of(node)):
                return None
        elif (
            (kind == "FUNCTION" and node["function_name"] not in (*KEEPING, "||", "hyper_chr"))
            or kind not in (None, "CONSTANT", "TYPE", "FUNCTION")
            or (kind == "CONSTANT" and any(letter in node["literal"]["text"] for letter in LOWERED_OTHERWISE))
        ):
            return None
    if not 1 <= len(columns) <= 2:
        return None
    looks = [f"contains(_{place}, '{letter}')" for place in range(2, len(columns) + 2) for letter in LOWERED_OTHERWISE]
    return made_of(
        connection, f"CASE WHEN {' OR '.join(looks)} THEN hyper_lower(_1) ELSE lower(_1) END", text, *columns
    )


def _rounding(connection: duckdb.DuckDBPyConnection, node: Node, kind: str) -> Node | None:
    """A decimal keeps its type, a double that is to be rounded goes to the even neighbour."""
    if kind.startswith("DECIMAL"):
        return made_of(connection, f"CAST(_1 AS {kind})", node)
    arguments = arguments_of(node)
    if kind not in FLOATS or (len(arguments) > 1 and node["function_name"] == "round"):
        raise SqlError("0A000", f"the simulated org does not offer {node['function_name']} of this type")
    return made_of(connection, "round_even(_1, 0)", *arguments) if node["function_name"] == "round" else None


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
        return made_of(connection, str(CATALOGUE_OIDS[child["literal"]["text"].lower()]))
    if name == "list":
        return None
    known = "CHAR" if name == "hyper_char" else CAST_TYPES[name]
    if known in ("VARCHAR", "CHAR"):
        text = _text(connection, child, kind)
        if known == "CHAR":
            # Blanks at its end do not count, so they are not kept either; a column gets them when it is shown.
            return made_of(connection, f"rtrim(left(_1, {modifiers_of(target)[0]}), ' ')", text)
        if target["children"]:
            return made_of(connection, f"left(_1, {modifiers_of(target)[0]})", text)
        return text if text is not child else None
    if kind != "VARCHAR":
        return None
    if known in ("SMALLINT", "INTEGER", "BIGINT"):
        return made_of(connection, f"CAST(hyper_whole(_1) AS {known})", child)
    if known in MOMENTS:
        made = made_of(connection, "hyper_day(_1)", child)
        return {**node, "child": made}
    return None


def _text(connection: duckdb.DuckDBPyConnection, node: Node, kind: str) -> Node:
    """A value as Hyper writes it as text."""
    if kind == "DOUBLE":
        return made_of(connection, "hyper_double_text(_1)", node)
    if kind == "FLOAT":
        return made_of(connection, "hyper_float_text(_1)", node)
    if kind == "VARCHAR":
        return node
    if kind == "INTERVAL":
        return made_of(connection, INTERVAL, node)
    if kind.endswith("[]"):
        raise SqlError("0A000", "the simulated org does not offer arrays as text")
    return made_of(connection, "CAST(_1 AS VARCHAR)", node)


INTERVAL: Final = (
    "hyper_interval(CAST(date_part('year', _1) * 12 + date_part('month', _1) AS BIGINT), "
    "CAST(date_part('day', _1) AS BIGINT), CAST(date_part('hour', _1) * 3600000000 + date_part('minute', _1) * 60000000 "
    "+ date_part('microsecond', _1) AS BIGINT))"
)


def _concatenation(connection: duckdb.DuckDBPyConnection, node: Node, types: list[str]) -> Node | None:
    if node["function_name"] == "||":
        if any(kind.endswith("[]") for kind in types):
            return None
        if not any(family(kind) in ("text", "null") for kind in types):
            raise SqlError("42601", "'||' requires at least one string argument")
    made = copy.deepcopy(node)
    for argument, kind in zip(made["arguments"], types, strict=True):
        if family(kind) not in ("text", "null"):
            argument["expression"] = _text(connection, argument["expression"], kind)
    return made


def _comparison(connection: duckdb.DuckDBPyConnection, node: Node, types: list[str]) -> Node | None:
    operands = operands_of(node)
    first, kind = operands[0], types[0]
    for operand, other in zip(operands[1:], types[1:], strict=True):
        families = {family(kind), family(other)}
        if len(families) == 1 or families & {"null", "unknown"}:
            continue
        texts = [each for each, its in ((first, kind), (operand, other)) if family(its) == "text"]
        if not texts or not _is_given(texts[0]):
            raise SqlError("42601", f"cannot compare '{_spoken(kind)}' and '{_spoken(other)}'")
        if (
            "number" in families
            and texts[0]["class"] == "CONSTANT"
            and not NUMBER.fullmatch(texts[0]["literal"]["text"])
        ):
            raise SqlError("42601", "implicit cast of 'text' to compare with a number failed: invalid input syntax")
    if any(_is_char(operand) for operand in operands) and node["class"] == "COMPARISON":
        made = copy.deepcopy(node)
        for side in ("left", "right"):
            made[side] = made_of(connection, "rtrim(_1, ' ')", made[side])
        return made
    return None


NUMBER: Final = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")


def _is_given(node: Node) -> bool:
    """Whether a text is a literal or a parameter, which takes the type of what it is compared with."""
    return bool(node["class"] == "CONSTANT" or (node["class"] == "CAST" and node["child"]["class"] == "PARAMETER"))


def _is_char(node: Node) -> bool:
    arguments = arguments_of(node) if node["class"] == "FUNCTION" else []
    return len(arguments) > 0 and node["function_name"] == "rtrim" and arguments[0].get("function_name", "") == "left"


def _spoken(kind: str) -> str:
    return {"VARCHAR": "text"}.get(kind, kind.lower())


def _arithmetic(connection: duckdb.DuckDBPyConnection, node: Node, types: list[str]) -> Node | None:
    name, arguments = node["function_name"], arguments_of(node)
    if any(family(kind) in ("text", "boolean") for kind in types):
        raise SqlError("42601", f"'{name}' requires numerical arguments")
    if len(arguments) == 1:
        return None
    if name == "-" and types == ["DATE", "DATE"]:
        return made_of(connection, "CAST(_1 AS INTEGER)", node)
    if not all(family(kind) in ("number", "null") for kind in types) or any(kind in FLOATS for kind in types):
        return None
    if all(kind in WHOLE or kind == '"NULL"' for kind in types):
        return made_of(connection, "_1 // _2", *arguments) if name == "/" else None
    left, right = (_decimal(node, kind) for node, kind in zip(arguments, types, strict=True))
    if left is None or right is None:
        return None
    (p1, s1), (p2, s2) = left, right
    if name in ("+", "-"):
        scale = max(s1, s2)
        precision, scale = _fitted(max(p1 - s1, p2 - s2) + scale + 1, scale)
        return made_of(connection, f"CAST(_1 AS DECIMAL({precision}, {scale}))", node)
    if name == "*":
        if p1 + p2 > PRECISION:
            raise SqlError("0A000", f"the simulated org does not offer products of more than {PRECISION} digits")
        return made_of(connection, f"CAST(_1 AS DECIMAL({p1 + p2}, {s1 + s2}))", node)
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
    return made_of(
        connection,
        f"CAST(hyper_point(hyper_quotient({a}, {b}), {scale}) AS DECIMAL({precision}, {scale}))",
        left,
        right,
    )


def _aggregate(connection: duckdb.DuckDBPyConnection, node: Node, kind: str) -> Node | None:
    name = node["function_name"]
    if family(kind) not in ("number", "null"):
        raise SqlError("42601", f"{name.upper()} requires numerical arguments")
    if kind in FLOATS or kind == '"NULL"':
        return made_of(connection, "CAST(_1 AS FLOAT)", node) if name == "sum" and kind == "FLOAT" else None
    if name in SPREADS:
        return made_of(connection, "CAST(_1 AS DECIMAL(38, 6))", node)
    if name == "sum":
        return made_of(connection, "CAST(_1 AS BIGINT)", node) if kind in WHOLE else None
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
