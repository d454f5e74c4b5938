"""Data Cloud's SQL engine: DuckDB over the source's files, with the meaning and the error codes of Hyper.

``sql_words.py`` and ``sql_meaning.py`` say in DuckDB's SQL what a statement means to Hyper, or refuse it. Text is compared by
its UTF-8 bytes, ``ASC`` puts nulls last and ``DESC`` first, nothing can be written, and a statement sees nothing but the
source objects and the catalogue of them. A result is stored at once and whole as Parquet, and paged from there.

SQL reference: https://developer.salesforce.com/docs/data/data-cloud-query-guide/references/dc-sql-reference/data-360-sql-context.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb

from sync_pipeline.simulated_org.source import FOLDER, source_objects
from sync_pipeline.simulated_org.sql_functions import register
from sync_pipeline.simulated_org.sql_meaning import Meaning, meaning
from sync_pipeline.simulated_org.sql_rules import CATALOGUE_OIDS, INTERVAL
from sync_pipeline.simulated_org.sql_words import Parameter, SqlError, Style, read_words
from sync_pipeline.simulated_org.state import Org

RESULTS: Final = "results"
"""Sub-folder of stored results."""
MEMORY: Final = "256MB"
ROW_GROUP: Final = 20_480
COLUMNS_KEY: Final = "columns"
"""Where a result's file says what its columns are to the client: names may be equal, and types are Hyper's."""

SETTINGS: Final[Mapping[str, str]] = {
    "query_timeout": r"\d+(ms|s|min|h|d)?", "lc_time": r"en_us", "date_style": r"mdy", "time_zone": r"utc|gmt",
    "timezone": r"utc|gmt", "language": r"en_us",
}  # fmt: skip
"""Settings of a statement that are known, and those of their values that change nothing here."""

NAMES: Final[Mapping[str, str]] = {
    "BOOLEAN": "Bool", "TINYINT": "SmallInt", "SMALLINT": "SmallInt", "INTEGER": "Integer", "BIGINT": "BigInt",
    "HUGEINT": "BigInt", "FLOAT": "Float", "DOUBLE": "Double", "VARCHAR": "Varchar", "DATE": "Date", "TIME": "Time",
    "TIMESTAMP": "Timestamp", "TIMESTAMP WITH TIME ZONE": "TimestampTZ", "INTERVAL": "Interval", '"NULL"': "Varchar",
}  # fmt: skip
"""Hyper's types, as Connect writes them, by DuckDB's."""
MICROSECONDS: Final[Mapping[str, str]] = {
    "TIME_NS": "TIME", "TIMESTAMP_S": "TIMESTAMP", "TIMESTAMP_MS": "TIMESTAMP", "TIMESTAMP_NS": "TIMESTAMP",
}  # fmt: skip
"""Types of files that Hyper has in microseconds alone: Polars writes times in nanoseconds."""
STORED_OTHERWISE: Final[Mapping[str, str]] = {
    "TINYINT": "CAST({} AS SMALLINT)", "HUGEINT": "CAST({} AS BIGINT)", '"NULL"': "CAST({} AS VARCHAR)",
    "INTERVAL": INTERVAL.replace("_1", "{0}"),
}  # fmt: skip

TYPE_OIDS: Final[Mapping[str, int]] = {
    "BOOLEAN": 16, "BIGINT": 20, "SMALLINT": 21, "INTEGER": 23, "VARCHAR": 25, "FLOAT": 700, "DOUBLE": 701, "DATE": 1082,
    "TIME": 1083, "TIMESTAMP": 1114, "TIMESTAMP WITH TIME ZONE": 1184, "DECIMAL": 1700,
}  # fmt: skip
"""Types as the catalogue numbers them."""
NAMESPACES: Final[Mapping[str, int]] = {"pg_catalog": 11, "public": 2200}
FIRST_OID: Final = 16_384


def run_statement(
    org: Org, sql: str, parameters: Sequence[Parameter], file: Path, *, style: Style = "", rows: int | None = None
) -> None:
    """Runs one SELECT and stores its rows in ``file``, no more than ``rows``. Raises ``SqlError``."""
    statement = read_words(sql, parameters, style)
    engine = org.remembered("query engine", None, lambda: _engine(org))
    connection, shapes = engine.cursor(), engine.cursor()
    try:
        objects = source_objects(org)
        used = {name: path for name, path in objects.items() if name.lower() in sql.lower()}
        for name, path in used.items():
            _make_shape(shapes, name, _columns_of(org, engine, path))
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {_quoted(name)} AS {_rows_of(org, engine, path)}")
        if any(table in statement.text for table in CATALOGUE_OIDS):
            columns_of = {name: _columns_of(org, engine, path) for name, path in objects.items()}
            for each in (connection, shapes):
                _make_catalogue(each, columns_of)
        found = meaning(shapes, statement, frozenset(name.lower() for name in objects))
        described = shapes.execute(f"DESCRIBE {found.text}", dict(statement.values)).fetchall()
        columns = [_column(name, kind, place, found) for place, (name, kind, *_) in enumerate(described)]
        copy = (
            f"COPY ({_stored(found, described, rows)}) TO {_literal(str(file))} (FORMAT parquet, COMPRESSION lz4_raw, "
            f"ROW_GROUP_SIZE {ROW_GROUP}, KV_METADATA {{{COLUMNS_KEY}: {_literal(json.dumps(columns))}}})"
        )
        connection.execute(copy, dict(statement.values)).fetchall()
    except duckdb.Error as error:
        raise _translated(error) from None
    finally:
        connection.close()
        shapes.close()


def _columns_of(org: Org, engine: duckdb.DuckDBPyConnection, path: Path) -> list[tuple[str, str]]:
    """Columns of an object with their types."""
    return [(name, MICROSECONDS.get(kind, kind)) for name, kind in _file_columns(org, engine, path)]


def _rows_of(org: Org, engine: duckdb.DuckDBPyConnection, path: Path) -> str:
    """The rows of a file in the types of their object."""
    file = f"FROM read_parquet({_literal(str(path))})"
    casts = [
        f"CAST({_quoted(name)} AS {MICROSECONDS[kind]}) AS {_quoted(name)}"
        for name, kind in _file_columns(org, engine, path)
        if kind in MICROSECONDS
    ]
    return f"SELECT * REPLACE ({', '.join(casts)}) {file}" if casts else file


def _file_columns(org: Org, engine: duckdb.DuckDBPyConnection, path: Path) -> list[tuple[str, str]]:
    """Columns of a file with their types; a file never changes."""

    def described() -> list[tuple[str, str]]:
        with engine.cursor() as connection:
            rows = connection.execute(f"DESCRIBE FROM read_parquet({_literal(str(path))})").fetchall()
        return [(row[0], row[1]) for row in rows]

    return org.remembered(f"columns of {path.stem.rsplit('-', 1)[0]}", path.name, described)


def _make_shape(connection: duckdb.DuckDBPyConnection, name: str, columns: list[tuple[str, str]]) -> None:
    """An object without its rows: to tell types no file need be opened."""
    listed = ", ".join(f"{_quoted(column)} {kind}" for column, kind in columns)
    connection.execute(f"CREATE TEMP TABLE {_quoted(name)} ({listed})")


def check_settings(settings: Mapping[str, str]) -> None:
    """Raises ``SqlError`` for a setting that nobody knows, or for a value that would change what a statement means."""
    for name, value in settings.items():
        harmless = SETTINGS.get(name.lower())
        if harmless is None:
            raise SqlError("42601", f"unrecognized configuration parameter '{name}'")
        if not re.fullmatch(harmless, value.lower()):
            raise SqlError("0A000", f"the simulated org does not offer {name} = {value}")


def _column(name: str, kind: str, place: int, found: Meaning) -> dict[str, Any]:
    """What the client is told of a column. Raises ``SqlError`` for a type that no answer can carry."""
    names = found.names
    if None not in names or names.index(None) > place:
        name = names[place] or name
    if place in found.chars:
        return {"name": name, "type": "Char", "length": found.chars[place]}
    return {"name": name, **_type(kind)}


def _type(kind: str) -> dict[str, Any]:
    if kind in NAMES:
        return {"type": NAMES[kind]}
    if number := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", kind):
        return {"type": "Numeric", "precision": int(number[1]), "scale": int(number[2])}
    inner = kind.removesuffix("[]")
    if inner != kind and not inner.endswith("[]") and inner not in ("INTERVAL", "HUGEINT", '"NULL"'):
        return {"type": "Array", "innerElement": _type(kind[:-2])}
    raise SqlError("0A000", f"the query result contains a column with an unsupported type ({kind})")


def _stored(found: Meaning, described: list[tuple[Any, ...]], rows: int | None) -> str:
    """The statement with its columns in types that a Parquet file can hold."""
    kinds = [kind for _, kind, *_ in described]
    if rows is None and not found.chars and not any(kind in STORED_OTHERWISE for kind in kinds):
        return found.text
    listed = [
        STORED_OTHERWISE.get(kind, "{}").format(f"c{place}")
        if place not in found.chars
        else f"rpad(c{place}, {found.chars[place]}, ' ')"
        for place, kind in enumerate(kinds)
    ]
    names = [f"c{place}" for place in range(len(kinds))]
    limit = "" if rows is None else f" LIMIT {rows}"
    shown = ", ".join(f"{expression} AS {name}" for expression, name in zip(listed, names, strict=True))
    return f"SELECT {shown} FROM ({found.text}) AS found({', '.join(names)}){limit}"


def _make_catalogue(connection: duckdb.DuckDBPyConnection, objects: Mapping[str, list[tuple[str, str]]]) -> None:
    """The tables of ``pg_catalog``, as far as they tell of objects and their columns."""
    tables: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
        "pg_namespace": ("oid BIGINT, nspname VARCHAR", [(oid, name) for name, oid in NAMESPACES.items()]),
        "pg_class": ("oid BIGINT, relname VARCHAR, relnamespace BIGINT, relkind VARCHAR", []),
        "pg_attribute": (
            (
                "attrelid BIGINT, attname VARCHAR, attnum SMALLINT, atttypid BIGINT, atttypmod INTEGER, attnotnull BOOLEAN, "
                "attisdropped BOOLEAN"
            ),
            [],
        ),
        "pg_type": (
            "oid BIGINT, typname VARCHAR, typtype VARCHAR, typnotnull BOOLEAN",
            [(oid, name.lower(), "b", False) for name, oid in TYPE_OIDS.items()],
        ),
        "pg_attrdef": ("adrelid BIGINT, adnum SMALLINT, adbin VARCHAR", []),
        "pg_description": ("objoid BIGINT, classoid BIGINT, objsubid INTEGER, description VARCHAR", []),
    }
    for place, (name, columns_of) in enumerate(objects.items()):
        oid = FIRST_OID + place
        tables["pg_class"][1].append((oid, name, NAMESPACES["public"], "r"))
        for number, (column, kind) in enumerate(columns_of, start=1):
            digits = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", kind)
            modifier = -1 if digits is None else int(digits[1]) * 65_536 + int(digits[2]) + 4
            known = TYPE_OIDS.get(kind.split("(")[0], TYPE_OIDS["VARCHAR"])
            tables["pg_attribute"][1].append((oid, column, number, known, modifier, False, False))
    for name, (columns, rows) in tables.items():
        connection.execute(f"CREATE OR REPLACE TEMP TABLE hyper_{name} ({columns})")
        if rows:
            marks = ", ".join("?" for _ in rows[0])
            connection.executemany(f"INSERT INTO hyper_{name} VALUES ({marks})", rows)


def _engine(org: Org) -> duckdb.DuckDBPyConnection:
    source, results = org.files(FOLDER), org.files(RESULTS)
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "memory_limit": MEMORY,
            "temp_directory": str(org.files("spill")),
            "default_null_order": "nulls_last_on_asc_first_on_desc",
            "enable_external_file_cache": False,
        },
    )
    connection.execute("SET GLOBAL TimeZone = 'UTC'")  # or instants are written in the zone of this machine
    # A division of doubles by zero is infinite; that of anything else is refused, by itself.
    connection.execute("SET ieee_floating_point_ops = true")
    register(connection)
    folders = ", ".join(_literal(str(folder.resolve())) for folder in (source, results, org.folder / "spill"))
    connection.execute(f"SET allowed_directories = [{folders}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _translated(error: duckdb.Error) -> SqlError:
    message = str(error).split("\n\n", 1)[0]
    message = message.split("Error: ", 1)[-1]
    if told := re.search(r"\[([0-9A-Z]{5})\] ([^\n]*)", message):
        return SqlError(told[1], told[2])
    first, _, hint = message.partition("\n")
    return SqlError(_state(error, first), first, hint=hint.strip())


STATES: Final[Sequence[tuple[type[duckdb.Error], str, str]]] = (
    (duckdb.Error, r"Division by zero", "22012"),
    (duckdb.Error, r"More than one row returned by a subquery", "21000"),
    (duckdb.Error, r"pattern must not end with escape", "42601"),
    (duckdb.ParserException, r"", "42601"),
    (duckdb.CatalogException, r"(?i)function", "42883"),
    (duckdb.CatalogException, r"(?i)type with name", "42704"),
    (duckdb.CatalogException, r"", "42P01"),
    (duckdb.BinderException, r"GROUP BY|[Aa]mbiguous|aggregate|No function matches|[Cc]annot compare", "42601"),
    (duckdb.BinderException, r"Referenced table", "42P01"),
    (duckdb.BinderException, r"(?i)column", "42703"),
    (duckdb.BinderException, r"", "42601"),
    (
        duckdb.ConversionException,
        r"out of range for the destination|value is out of range!|Could not cast value|[Oo]verflow",
        "22003",
    ),
    (duckdb.ConversionException, r"Could not convert string ['\"]\s*[-+]?[0-9.]+(e[-+]?[0-9]+)?\s*['\"] to", "22003"),
    (duckdb.ConversionException, r"", "22P02"),
    (duckdb.OutOfRangeException, r"", "22003"),
    (duckdb.PermissionException, r"", "42501"),
    (duckdb.InvalidInputException, r"(?i)out of range|overflow", "22003"),
    (duckdb.InvalidInputException, r"", "0A000"),
    (duckdb.NotImplementedException, r"", "0A000"),
)
"""SQLSTATE by DuckDB's kind of error and what its message says; the first that fits."""


def _state(error: duckdb.Error, message: str) -> str:
    for kind, pattern, state in STATES:
        if isinstance(error, kind) and re.search(pattern, message):
            return state
    return "XX000"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
