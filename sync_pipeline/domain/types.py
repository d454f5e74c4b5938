"""Which SQL type of a source column may fill what, and in which form its values are read.

A pair is accepted when the meaning of a value is certain: a text is read by the rules of the field and refused row by row,
a whole number or a decimal has one plain form, a date and a truth value are written alike by both sides. Where two forms
are in use (the text of an instant, of a time, of an approximate number), nobody guesses: the pair is refused by name.

The source's dialect: https://developer.salesforce.com/docs/data/data-cloud-query-guide/references/dc-sql-reference/data-360-sql-context.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

from sync_pipeline.domain.errors import MappingError
from sync_pipeline.domain.mapping import FieldMapping, FieldType, Mapping, TargetObject


class SqlType(StrEnum):
    """What a source column holds, whatever the API calls it."""

    TEXT = "text"
    CHAR = "char"
    """Padded with blanks, which count on neither side of a comparison; as text it has none."""
    BOOLEAN = "bool"
    INTEGER = "integer"
    NUMERIC = "numeric"
    DOUBLE = "double"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamptz"


class Form(StrEnum):
    """In which text a statement hands out a column."""

    AS_WRITTEN = "as written"
    """As the engine casts the value to text."""
    PLAIN = "plain"
    """A decimal without the zeros of its scale: 1.50 as 1.5, 100.00 as 100."""
    DAY = "day"
    """A timestamp at midnight UTC as its date; any other one as it is, so that it is refused by name."""
    MIDNIGHT = "midnight"
    """A date as midnight of that day."""
    APPROXIMATE = "approximate"
    """A double in the 15 digits that the engine writes; ``MORE_DIGITS`` stands behind one that has more of them."""


MORE_DIGITS: Final = "..."
APPROXIMATE_DIGITS: Final = 15
"""Digits that Hyper writes of a double, which may hold two more."""


NAMES: Final[AnyMapping[str, SqlType]] = {
    "text": SqlType.TEXT, "varchar": SqlType.TEXT, "character varying": SqlType.TEXT,
    "char": SqlType.CHAR, "character": SqlType.CHAR, "bpchar": SqlType.CHAR,
    "bool": SqlType.BOOLEAN, "boolean": SqlType.BOOLEAN,
    "smallint": SqlType.INTEGER, "int2": SqlType.INTEGER, "int": SqlType.INTEGER, "int4": SqlType.INTEGER,
    "integer": SqlType.INTEGER, "bigint": SqlType.INTEGER, "int8": SqlType.INTEGER,
    "numeric": SqlType.NUMERIC, "decimal": SqlType.NUMERIC,
    "double": SqlType.DOUBLE, "double precision": SqlType.DOUBLE, "float": SqlType.DOUBLE, "float4": SqlType.DOUBLE,
    "float8": SqlType.DOUBLE, "real": SqlType.DOUBLE,
    "date": SqlType.DATE, "time": SqlType.TIME, "time without time zone": SqlType.TIME,
    "timestamp": SqlType.TIMESTAMP, "timestamp without time zone": SqlType.TIMESTAMP,
    "timestamptz": SqlType.TIMESTAMPTZ, "timestamp with time zone": SqlType.TIMESTAMPTZ,
}  # fmt: skip
"""Spellings of Query Connect (``TimestampTZ``), of V3 (``timestamptz``, ``float8``) and of SQL itself, in lower case."""

_TEXTS: Final = {SqlType.TEXT: Form.AS_WRITTEN, SqlType.CHAR: Form.AS_WRITTEN}
_PLAIN_NUMBERS: Final = {SqlType.INTEGER: Form.AS_WRITTEN, SqlType.NUMERIC: Form.PLAIN}

FIELD_FORMS: Final[AnyMapping[FieldType, AnyMapping[SqlType, Form]]] = {
    FieldType.TEXT: {
        **_TEXTS,
        **_PLAIN_NUMBERS,
        SqlType.BOOLEAN: Form.AS_WRITTEN,
        SqlType.DATE: Form.AS_WRITTEN,
    },
    FieldType.NUMBER: {
        **_TEXTS,
        SqlType.INTEGER: Form.AS_WRITTEN,
        SqlType.NUMERIC: Form.AS_WRITTEN,
        SqlType.DOUBLE: Form.APPROXIMATE,
    },
    FieldType.DATE: {
        **_TEXTS,
        SqlType.DATE: Form.AS_WRITTEN,
        SqlType.TIMESTAMP: Form.DAY,
        SqlType.TIMESTAMPTZ: Form.DAY,
    },
    FieldType.DATETIME: {
        **_TEXTS,
        SqlType.DATE: Form.MIDNIGHT,
        SqlType.TIMESTAMP: Form.AS_WRITTEN,
        SqlType.TIMESTAMPTZ: Form.AS_WRITTEN,
    },
    FieldType.BOOLEAN: {**_TEXTS, **_PLAIN_NUMBERS, SqlType.BOOLEAN: Form.AS_WRITTEN},
    FieldType.REFERENCE: _TEXTS,
}
"""The form in which a column of an SQL type fills a field; a pair that is not here is refused."""
KEY_FORMS: Final[AnyMapping[SqlType, Form]] = {**_TEXTS, **_PLAIN_NUMBERS}
"""The same for the key: whatever has exactly one text."""
TIE_BREAKERS: Final = frozenset(SqlType) - {SqlType.DOUBLE}
"""Types whose values have an order and one text each. An approximate number has two zeros, and values that are none."""
GROUPS: Final = frozenset(KEY_FORMS)
"""Types of which equal values have equal texts, and that can name a parent."""


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column of the source by its SQL type, and the form in which its values are read."""

    type: SqlType
    form: Form


def sql_type(name: str) -> SqlType | None:
    """The type that an API calls ``name``, whatever its letter case, length or precision; ``None`` for an unknown one."""
    return NAMES.get(" ".join(re.sub(r"\(.*?\)", " ", name).split()).lower())


def check_mapping(mapping: Mapping, columns: AnyMapping[str, str], target: TargetObject) -> None:
    """Holds the mapping against both sides. Raises one ``MappingError`` with the reasons of both, so that nobody mends
    one only to meet the next."""
    refusals = []
    for check in (partial(mapping.check_target, target), partial(check_source, mapping, columns)):
        try:
            check()
        except MappingError as refusal:
            refusals.append(refusal)
    if refusals:
        hints = dict.fromkeys(refusal.hint for refusal in refusals)
        raise MappingError(" ".join(refusal.message for refusal in refusals), hint=" ".join(hints))


def check_source(mapping: Mapping, columns: AnyMapping[str, str]) -> None:
    """Raises ``MappingError`` when the source object lacks a mapped column, or a column is of a type that cannot be read
    faithfully for what it is mapped to, naming every reason. ``columns`` is name to SQL type, as the API writes both."""
    types = {name.lower(): written for name, written in columns.items()}
    missing = [name for name in mapping.source_columns if name.lower() not in types]
    problems, hints = [], []
    if missing:
        problems.append("it has no column " + ", ".join(f"'{name}'" for name in missing))
        hints.append(f"It has: {', '.join(sorted(columns))}.")
    for name in mapping.source_columns:
        if name not in missing:
            problems += _reasons(mapping, name, types[name.lower()])
    if len(problems) > len(hints):
        hints.append(f"Types that can be read: {_readable()}.")
    if problems:
        raise MappingError(
            f"The mapping does not fit '{mapping.source_object}': {'; '.join(problems)}.",
            hint=f"{' '.join(hints)} Correct the mapping (SYNC_MAPPING), or convert the columns in Data Cloud.",
        )


def source_columns(mapping: Mapping, columns: AnyMapping[str, str]) -> dict[str, SourceColumn]:
    """The mapping's source columns, each in the form that serves all it fills. Raises ``MappingError`` as
    ``check_source``."""
    check_source(mapping, columns)
    types = {name.lower(): sql_type(written) for name, written in columns.items()}
    found = {}
    for name in mapping.source_columns:
        kind = types[name.lower()]
        if kind is not None:  # or it would have been refused
            found[name] = SourceColumn(kind, _common(_forms(mapping, name, kind)) or Form.AS_WRITTEN)
    return found


def _reasons(mapping: Mapping, column: str, written: str) -> list[str]:
    """Why a column of the SQL type that is ``written`` so cannot be read for what it is mapped to."""
    kind = sql_type(written)
    if kind is None:
        told = (
            f"of SQL type '{written}', which is not known here"
            if written
            else "of a type that Data Cloud does not name (no `type` in its metadata)"
        )
        return [f"'{column}' is {told}"]
    refused = []
    if column == mapping.source_key and kind not in KEY_FORMS:
        refused.append("has no single text form, so that it cannot be the key")
    for mapped in _filled_by(mapping, column):
        if kind not in FIELD_FORMS[mapped.type]:
            refused.append(f"cannot fill '{mapped.target}' as {mapped.type}")
        elif mapped.target == mapping.group_by and kind not in GROUPS:
            refused.append(f"names no parent, so that rows cannot be grouped by '{mapped.target}'")
    if column == mapping.tie_breaker and kind not in TIE_BREAKERS:
        refused.append("has no order that decides, so that it cannot be the tie-breaker")
    if not refused and _common(_forms(mapping, column, kind)) is None:
        filled = " and ".join(f"'{mapped.target}' as {mapped.type}" for mapped in _filled_by(mapping, column))
        refused.append(f"has no one form for {filled}")
    return [f"'{column}' is of SQL type {kind}, which {reason}" for reason in refused]


def _forms(mapping: Mapping, column: str, kind: SqlType) -> set[Form]:
    """The forms in which all that the column fills wants it; those that are refused are left out."""
    wanted = [FIELD_FORMS[mapped.type].get(kind) for mapped in _filled_by(mapping, column)]
    if column == mapping.source_key:
        wanted.append(KEY_FORMS.get(kind))
    return {form for form in wanted if form is not None} or {Form.AS_WRITTEN}


def _common(forms: set[Form]) -> Form | None:
    """The one form that serves them all; ``None`` when there is none. A number is read in either of its forms."""
    if forms == {Form.AS_WRITTEN, Form.PLAIN}:
        return Form.PLAIN
    return next(iter(forms)) if len(forms) == 1 else None


def _filled_by(mapping: Mapping, column: str) -> list[FieldMapping]:
    return [mapped for mapped in mapping.fields if mapped.source == column]


def _readable() -> str:
    """What may fill what, for a person who has to choose."""
    uses: list[tuple[str, AnyMapping[SqlType, Form]]] = [("key", KEY_FORMS), *FIELD_FORMS.items()]
    return "; ".join(f"{use}: {', '.join(sorted(forms))}" for use, forms in uses)
