"""The conditions of a query: what each means of a row, as an expression that is true or false and never null.

Text is compared without regard to letter case, unless the field tells it apart. Empty text and null are one. ``!=`` and
``NOT IN`` are true of null.

Comparison operators: https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select_comparisonoperators.htm
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import polars as pl

from sync_pipeline.simulated_org.call import Refused
from sync_pipeline.simulated_org.grammar import (
    Aggregate,
    Comparison,
    Condition,
    Day,
    Every,
    Instant,
    Literal,
    Name,
    Not,
    Null,
    Number,
    Query,
    Some,
    Span,
    Text,
    Truth,
    refused_at,
)
from sync_pipeline.simulated_org.identifiers import whole_id
from sync_pipeline.simulated_org.objects import NUMBERS, Field, SObject


@dataclass(frozen=True)
class Column:
    """A field that a query names. ``path`` is its name in the letter case of describe, with the parent's before it."""

    path: str
    field: Field
    relation: Field | None = None
    """The reference that leads to the parent; ``None`` for a field of the object itself."""


@dataclass(frozen=True)
class Reach:
    """What the conditions say of ``_k``: ``after < _k <= through``, and one of ``keys`` when they are listed."""

    after: str | None = None
    through: str | None = None
    keys: pl.Series | None = None


@dataclass(frozen=True)
class Operand:
    """The left side of a condition: where its values are, what an error calls it, and how it compares."""

    values: pl.Expr
    name: str
    field: Field


FindColumn = Callable[[Name], Column]
FindOperand = Callable[[Name | Aggregate], Operand]


def lefts_of(condition: Condition) -> Iterator[Name | Aggregate]:
    match condition:
        case Comparison():
            yield condition.left
        case Not():
            yield from lefts_of(condition.inner)
        case Every() | Some():
            for part in condition.parts:
                yield from lefts_of(part)


def condition_of(query: Query, condition: Condition, operand: FindOperand, *, now: float) -> pl.Expr:
    """A condition as an expression that is never null."""
    match condition:
        case Comparison():
            return _Test(query, condition, operand(condition.left), now=now).expression()
        case Not():
            return ~condition_of(query, condition.inner, operand, now=now)
        case Every():
            return pl.all_horizontal(condition_of(query, part, operand, now=now) for part in condition.parts)
        case Some():
            return pl.any_horizontal(condition_of(query, part, operand, now=now) for part in condition.parts)


class _Test:
    """One comparison."""

    def __init__(self, query: Query, comparison: Comparison, operand: Operand, *, now: float) -> None:
        self._query = query
        self._comparison = comparison
        self._operand = operand
        self._type = operand.field.type
        self._today = datetime.fromtimestamp(now, UTC).date()
        self._left = operand.values

    def expression(self) -> pl.Expr:
        operator, values = self._comparison.operator, self._comparison.values
        self._check_operator()
        if operator == "LIKE":
            return self._like(values[0])
        if operator in ("=", "IN"):
            return self._is_one_of(values)
        if operator in ("!=", "NOT IN"):
            return ~self._is_one_of(values)
        return self._lies(operator, values[0])

    def _check_operator(self) -> None:
        operator = self._comparison.operator
        if self._type in ("id", "reference") and operator == "LIKE":
            raise self._refused("INVALID_QUERY_FILTER_OPERATOR", "invalid operator on id field")
        if (self._type == "boolean" and operator not in ("=", "!=")) or (operator == "LIKE" and not self._is_text):
            message = f"{self._type} fields do not support the operator {operator}"
            raise self._refused("INVALID_QUERY_FILTER_OPERATOR", message)

    def _is_empty(self, value: Literal) -> bool:
        """Whether the literal means null, as empty text does where text can stand."""
        is_blank = isinstance(value, Text) and value.text == "" and self._operand.field.dtype == pl.String
        return isinstance(value, Null) or is_blank

    @property
    def _is_text(self) -> bool:
        return self._operand.field.dtype == pl.String and self._type not in ("id", "reference")

    def _like(self, value: Literal) -> pl.Expr:
        if self._is_empty(value):
            return self._left.is_null()
        if not isinstance(value, Text):
            raise self._wrong_type(value)
        flags = "(?s)" if self._operand.field.case_sensitive else "(?si)"
        return self._left.str.contains(flags + value.pattern).fill_null(value=False)

    def _is_one_of(self, values: Sequence[Literal]) -> pl.Expr:
        tests = []
        if any(self._is_empty(value) for value in values):
            tests.append(self._left.is_null())
        spans = [value for value in values if isinstance(value, Span)]
        tests += [self._within(span) for span in spans]
        plain = [self._value(v) for v in values if not self._is_empty(v) and not isinstance(v, Span)]
        if plain:
            listed = self._folded_values(pl.Series(plain, dtype=self._operand.field.dtype))
            if len(listed) == 1:
                tests.append((self._folded == pl.lit(listed[0], dtype=listed.dtype)).fill_null(value=False))
            else:
                tests.append(self._folded.is_in(listed.unique().implode()).fill_null(value=False))
        return tests[0] if len(tests) == 1 else pl.any_horizontal(tests)

    def _lies(self, operator: str, value: Literal) -> pl.Expr:
        if self._is_empty(value):
            return pl.lit(value=False)
        if isinstance(value, Span):
            start, end = self._ends(value)
            test = {
                "<": self._left < start, "<=": self._left < end, ">": self._left >= end, ">=": self._left >= start,
            }[operator]  # fmt: skip
            return test.fill_null(value=False)
        limit = self._folded_values(pl.Series([self._value(value)], dtype=self._operand.field.dtype))
        right = pl.lit(limit[0], dtype=limit.dtype)
        test = {
            "<": self._folded < right, "<=": self._folded <= right, ">": self._folded > right, ">=": self._folded >= right,
        }[operator]  # fmt: skip
        return test.fill_null(value=False)

    @property
    def _folded(self) -> pl.Expr:
        """The left side the way it is compared."""
        return self._left.str.to_lowercase() if self._is_folded else self._left

    def _folded_values(self, values: pl.Series) -> pl.Series:
        return values.str.to_lowercase() if self._is_folded else values

    @property
    def _is_folded(self) -> bool:
        return self._is_text and not self._operand.field.case_sensitive

    def _value(self, value: Literal) -> object:
        """The literal as the column holds such values."""
        match value:
            case Text() if self._type in ("id", "reference"):
                whole = whole_id(value.text)
                if whole is None:
                    message = f"invalid ID field: {value.text}"
                    raise self._refused("INVALID_QUERY_FILTER_OPERATOR", message, at=value.at)
                return whole
            case Text() if self._is_text:
                return value.text
            case Number() if self._type in NUMBERS:
                return value.value
            case Truth() if self._type == "boolean":
                return value.value
            case Day() if self._type == "date":
                return value.value
            case Instant() if self._type == "datetime":
                return value.value
        raise self._wrong_type(value)

    def _within(self, span: Span) -> pl.Expr:
        start, end = self._ends(span)
        return ((self._left >= start) & (self._left < end)).fill_null(value=False)

    def _ends(self, span: Span) -> tuple[pl.Expr, pl.Expr]:
        """The first day of the span, and the first day behind it."""
        if self._type not in ("date", "datetime"):
            raise self._wrong_type(span)
        try:
            days = _days(span, self._today)
        except OverflowError:
            raise self._refused("MALFORMED_QUERY", f"Invalid date: {span.name}:{span.days}", at=span.at) from None
        if self._type == "date":
            return pl.lit(days[0]), pl.lit(days[1])
        start, end = (datetime.combine(day, time(), UTC) for day in days)
        kept = self._operand.field.dtype
        return pl.lit(start, dtype=kept), pl.lit(end, dtype=kept)

    def _wrong_type(self, value: Literal) -> Refused:
        wanted = {
            "currency": "double", "percent": "double", "datetime": "dateTime", "id": "ID", "reference": "ID",
        }.get(self._type, "string" if self._is_text else self._type)  # fmt: skip
        quoted = (
            "should be enclosed in quotes"
            if self._operand.field.dtype == pl.String
            else "should not be enclosed in quotes"
        )
        message = f"value of filter criterion for field '{self._operand.name}' must be of type {wanted} and {quoted}"
        return self._refused("INVALID_FIELD", message, at=value.at)

    def _refused(self, code: str, message: str, *, at: int | None = None) -> Refused:
        return refused_at(self._query.source, self._comparison.left.at if at is None else at, code, message)


def _days(span: Span, today: date) -> tuple[date, date]:
    """First day of the span and first day behind it, in the time zone of the user, which is UTC."""
    day = timedelta(days=1)
    match span.name:
        case "YESTERDAY":
            return today - day, today
        case "TODAY":
            return today, today + day
        case "TOMORROW":
            return today + day, today + 2 * day
        case "THIS_MONTH":
            first = today.replace(day=1)
            return first, (first + 31 * day).replace(day=1)
        case "THIS_YEAR":
            return date(today.year, 1, 1), date(today.year + 1, 1, 1)
        case "LAST_N_DAYS":
            return today - span.days * day, today + day
        case "NEXT_N_DAYS":
            return today + day, today + (span.days + 1) * day
    start = today - span.days * day  # N_DAYS_AGO
    return start, start + day


def reach_of(query: Query, sobject: SObject, find: FindColumn) -> Reach:
    """What conditions that must all hold say of the object's key; other conditions are left to the rows themselves."""
    key = sobject.key
    if key is None or query.where is None:
        return Reach()
    parts = query.where.parts if isinstance(query.where, Every) else (query.where,)
    after: list[str] = []
    through: list[str] = []
    keys: pl.Series | None = None
    for part in parts:
        if not isinstance(part, Comparison) or not isinstance(part.left, Name):
            continue
        column = find(part.left)
        texts = [value.text for value in part.values if isinstance(value, Text) and value.text != ""]
        if column.relation is not None or column.field.name != key.name or len(texts) < len(part.values):
            continue
        folded = pl.Series(texts, dtype=pl.String)
        folded = folded if key.case_sensitive else folded.str.to_lowercase()
        match part.operator:
            case "=" | "IN":
                keys = folded if keys is None or len(folded) < len(keys) else keys
            case ">":
                after.append(folded[0])
            case ">=":
                after.append(before(folded[0]))
            case "<" | "<=":
                through.append(folded[0])
    return Reach(max(after, default=None), min(through, default=None), None if keys is None else keys.unique().sort())


def before(key: str) -> str:
    """A text before this one, and as near as matters."""
    last = ord(key[-1])
    # Between U+D7FF and U+E000 there are no characters.
    nearest = "" if last == 0 else chr(0xD7FF if last == 0xE000 else last - 1) + "\U0010ffff"
    return key[:-1] + nearest
