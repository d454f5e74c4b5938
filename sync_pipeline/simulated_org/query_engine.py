"""Data Cloud's SQL engine: DuckDB over the source's files, in the dialect and with the error codes of Hyper.

Text is compared by its UTF-8 bytes, ``ASC`` puts nulls last and ``DESC`` first, nothing can be written, and a statement
sees no file but those of the source objects. A result is stored at once and whole as Parquet, and paged from there.

SQL reference: https://developer.salesforce.com/docs/data/data-cloud-query-guide/references/dc-sql-reference/data-360-sql-context.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from sync_pipeline.simulated_org.source import FOLDER, source_objects
from sync_pipeline.simulated_org.state import Org

RESULTS: Final = "results"
"""Sub-folder of stored results."""
MEMORY: Final = "256MB"
ROW_GROUP: Final = 20_480
PARAMETERS_MAX: Final = 10_000

TYPES: Final[Mapping[str, str]] = {
    "bigint": "BIGINT", "bool": "BOOLEAN", "char": "VARCHAR", "date": "DATE", "double": "DOUBLE", "float": "FLOAT",
    "integer": "INTEGER", "numeric": "DECIMAL(38, 18)", "oid": "BIGINT", "smallint": "SMALLINT", "time": "TIME",
    "timestamp": "TIMESTAMP", "timestamptz": "TIMESTAMPTZ", "unspecified": "VARCHAR", "varchar": "VARCHAR",
}  # fmt: skip
"""SQL types of parameters, by their lower-case name in both APIs."""

TOKEN: Final = re.compile(
    r"""
    (?P<skip>'(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]* | /\*.*?\*/ | ::)
    | :(?P<named>[A-Za-z_]\w*)
    | \$(?P<numbered>\d+)
    | (?P<mark>\?)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Parameter:
    """A value, always sent as text, and the type it is meant as. ``name`` is empty for one that is known by its place."""

    type: str
    value: str | None
    name: str = ""


class SqlError(Exception):
    """A statement that the engine refuses; ``state`` is its SQLSTATE."""

    def __init__(self, state: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{state}: {message}")
        self.state = state
        self.message = message
        self.hint = hint


def run_statement(org: Org, sql: str, parameters: Sequence[Parameter], file: Path) -> None:
    """Runs one SELECT and stores its rows in ``file``. Raises ``SqlError``."""
    text, values = bound(sql, parameters)
    connection = org.remembered("query engine", None, lambda: _engine(org)).cursor()
    try:
        _check_reads_only(connection, text)
        for name, path in source_objects(org).items():
            connection.execute(
                f"CREATE OR REPLACE TEMP VIEW {_quoted(name)} AS FROM read_parquet({_literal(str(path))})"
            )
        copy = (
            f"COPY ({text}) TO {_literal(str(file))} (FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE {ROW_GROUP})"
        )
        connection.execute(copy, values).fetchall()
    except duckdb.Error as error:
        raise _translated(error) from None
    finally:
        connection.close()


def bound(sql: str, parameters: Sequence[Parameter]) -> tuple[str, dict[str, str | None]]:
    """The statement with DuckDB's placeholders, and their values. Raises ``SqlError`` for one that has no value."""
    if len(parameters) > PARAMETERS_MAX:
        raise SqlError("54000", f"too many parameters: {len(parameters)}")
    by_name = {parameter.name: place for place, parameter in enumerate(parameters) if parameter.name}
    used: set[str] = set()
    places = iter(range(len(parameters)))

    def replaced(found: re.Match[str]) -> str:
        if found["skip"] is not None:
            return found[0]
        if found["named"] is not None:
            place = by_name.get(found["named"])
        elif found["numbered"] is not None:
            place = int(found["numbered"]) - 1
        else:
            place = next(places, None)
        if place is None or not 0 <= place < len(parameters):
            raise SqlError("42601", f"parameter {found[0]} has no value")
        used.add(f"p{place}")
        kind = TYPES.get(parameters[place].type.lower())
        if kind is None:
            raise SqlError("42601", f"unknown parameter type {parameters[place].type}")
        return f"$p{place}" if kind == "VARCHAR" else f"CAST($p{place} AS {kind})"

    text = TOKEN.sub(replaced, sql).strip().rstrip(";")
    return text, {name: value for name, value in _named(parameters) if name in used}


def _named(parameters: Sequence[Parameter]) -> Iterator[tuple[str, str | None]]:
    for place, parameter in enumerate(parameters):
        yield f"p{place}", parameter.value


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
    connection.execute("CREATE MACRO btrim(t, c := ' ') AS trim(t, c)")
    folders = ", ".join(_literal(str(folder.resolve())) for folder in (source, results, org.folder / "spill"))
    connection.execute(f"SET allowed_directories = [{folders}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _check_reads_only(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    statements = connection.extract_statements(text)
    if len(statements) != 1:
        raise SqlError("42601", "syntax error: exactly one statement is expected")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise SqlError("25006", "cannot execute this statement in a read-only transaction")


def _translated(error: duckdb.Error) -> SqlError:
    message = str(error).split("\n\n", 1)[0]
    message = message.split("Error: ", 1)[-1]
    first, _, hint = message.partition("\n")
    lowered = first.lower()
    if isinstance(error, duckdb.ParserException):
        state = "42601"
    elif isinstance(error, duckdb.CatalogException):
        state = "42883" if "function" in lowered else "42P01"
    elif isinstance(error, duckdb.BinderException):
        state = "42703" if "column" in lowered else "42883" if "function" in lowered else "42601"
    elif isinstance(error, duckdb.ConversionException):
        state = "22P02"
    elif isinstance(error, duckdb.OutOfRangeException):
        state = "22003"
    elif isinstance(error, duckdb.PermissionException):
        state = "42501"
    elif isinstance(error, duckdb.InvalidInputException | duckdb.NotImplementedException):
        state = "0A000"
    else:
        state = "XX000"
    return SqlError(state, first, hint=hint.strip())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
