"""SOQL as a language: a text becomes a ``Query``, or is refused with the words of the org. Nothing is looked up here.

SOQL and SOSL Reference: https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select.htm
Text in quotes: https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select_quotedstringescapes.htm
Dates: https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select_dateformats.htm

Not understood, and refused as malformed: date functions, FORMAT() and toLabel(), FIELDS(), GROUP BY ROLLUP, WITH, USING
SCOPE, FOR VIEW, and queries within WHERE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Final

from sync_pipeline.simulated_org.call import Refused

LENGTH_MAX: Final = 100_000
"""Characters of a query."""
OFFSET_MAX: Final = 2_000
DEPTH_MAX: Final = 100
"""Parentheses within parentheses; not documented."""
SHOWN: Final = 50
"""Characters that an error repeats on either side of its place."""

AGGREGATES: Final = ("COUNT", "COUNT_DISTINCT", "SUM", "AVG", "MIN", "MAX")
COMPARISONS: Final[Mapping[str, str]] = {"=": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
SPANS: Final = ("YESTERDAY", "TODAY", "TOMORROW", "THIS_MONTH", "THIS_YEAR")
NUMBERED_SPANS: Final = ("LAST_N_DAYS", "NEXT_N_DAYS", "N_DAYS_AGO")
CLAUSES: Final = ("WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "OFFSET", "WITH", "FOR", "USING", "ALL")
"""Words that can follow the object, which are therefore no alias of it."""
ESCAPES: Final[Mapping[str, str]] = {
    "n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\", "_": "_", "%": "%",
}  # fmt: skip


# What a query says.


@dataclass(frozen=True)
class Name:
    """A field, or with dots one of a parent; an object. As it was written, and where."""

    text: str
    at: int


@dataclass(frozen=True)
class Aggregate:
    """``SUM(Amount)``; ``field`` is missing in ``COUNT()`` alone."""

    function: str
    field: Name | None
    at: int


@dataclass(frozen=True)
class Subquery:
    """``(SELECT … FROM Children)`` among the selected."""

    query: Query
    at: int


@dataclass(frozen=True)
class Typeof:
    """``TYPEOF Owner WHEN User THEN Name END``."""

    field: Name
    at: int


@dataclass(frozen=True)
class Selected:
    """One thing between SELECT and FROM."""

    expression: Name | Aggregate | Subquery | Typeof
    alias: str | None = None


@dataclass(frozen=True)
class Text:
    """A text in quotes. ``raw`` is what stands between them."""

    raw: str
    at: int

    @cached_property
    def text(self) -> str:
        """The text that is meant."""
        return "".join(character for character, _ in _unescaped(self.raw))

    @cached_property
    def pattern(self) -> str:
        """The regular expression of what LIKE matches: ``%`` any characters, ``_`` one, each itself after a backslash."""
        wild = {"%": ".*", "_": "."}
        parts = [
            wild[character] if character in wild and not is_escaped else f"\\x{{{ord(character):X}}}"
            for character, is_escaped in _unescaped(self.raw)
        ]
        return f"^{''.join(parts)}$"


@dataclass(frozen=True)
class Number:
    value: float
    at: int


@dataclass(frozen=True)
class Truth:
    value: bool
    at: int


@dataclass(frozen=True)
class Null:
    at: int


@dataclass(frozen=True)
class Day:
    value: date
    at: int


@dataclass(frozen=True)
class Instant:
    value: datetime
    at: int


@dataclass(frozen=True)
class Span:
    """A named stretch of days such as ``TODAY`` or ``LAST_N_DAYS:7``."""

    name: str
    days: int
    at: int


Literal = Text | Number | Truth | Null | Day | Instant | Span


@dataclass(frozen=True)
class Comparison:
    """``operator`` is ``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``LIKE``, ``IN`` or ``NOT IN``."""

    left: Name | Aggregate
    operator: str
    values: tuple[Literal, ...]
    at: int


@dataclass(frozen=True)
class Not:
    inner: Condition


@dataclass(frozen=True)
class Every:
    """AND."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Some:
    """OR."""

    parts: tuple[Condition, ...]


Condition = Comparison | Not | Every | Some


@dataclass(frozen=True)
class Order:
    """One part of ORDER BY. Null comes first unless the query says otherwise, in either direction."""

    expression: Name | Aggregate
    descending: bool = False
    nulls_last: bool = False


@dataclass(frozen=True)
class Query:
    """A query in parts. ``source`` is the text they were read from."""

    source: str
    selected: tuple[Selected, ...]
    sobject: Name
    alias: str | None = None
    where: Condition | None = None
    group_by: tuple[Name, ...] = ()
    having: Condition | None = None
    order_by: tuple[Order, ...] = ()
    limit: int | None = None
    offset: int = 0

    @property
    def object(self) -> str:
        """The object's name as it was written."""
        return self.sobject.text

    @property
    def columns(self) -> tuple[str, ...]:
        """The selected fields as they were written; aggregates are none."""
        return tuple(item.expression.text for item in self.selected if isinstance(item.expression, Name))

    @property
    def is_count(self) -> bool:
        """``SELECT COUNT()``: only the number of rows is asked for."""
        first = self.selected[0].expression
        return isinstance(first, Aggregate) and first.field is None

    @property
    def is_aggregate(self) -> bool:
        """The answer has groups and no records."""
        return bool(self.group_by) or any(isinstance(item.expression, Aggregate) for item in self.selected)


def parse(source: str) -> Query:
    """Reads a query. Raises ``Refused`` (400 MALFORMED_QUERY and the like)."""
    if len(source) > LENGTH_MAX:
        raise Refused(400, "MALFORMED_QUERY", f"SOQL statements cannot be longer than {LENGTH_MAX} characters.")
    if not source.isascii() and any("\ud800" <= character <= "\udfff" for character in source):
        raise Refused(400, "MALFORMED_QUERY", "SOQL statements must be valid Unicode.")
    return _Parser(source).parse()


def refused_at(source: str, at: int, code: str, message: str) -> Refused:
    """An error that shows its place in the query, as the org does."""
    start = source.rfind("\n", 0, at) + 1
    end = source.find("\n", at)
    line = source[start : end if end >= 0 else len(source)]
    column = at - start
    cut = max(column - SHOWN, 0)
    shown = line[cut : column + SHOWN]
    row = source.count("\n", 0, at) + 1
    caret = " " * (column - cut) + "^"
    return Refused(400, code, f"\n{shown}\n{caret}\nERROR at Row:{row}:Column:{column + 1}\n{message}")


# How it is read.

_TOKEN: Final = re.compile(
    r"""
    (?P<blank>\s+)
  | (?P<text>'(?:[^'\\]++|\\.)*+')
  | (?P<instant>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d))
  | (?P<day>\d{4}-\d\d-\d\d)
  | (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+))
  | (?P<name>[A-Za-z]\w*(?:\.[A-Za-z]\w*)*)
  | (?P<sign><=|>=|!=|<>|[=<>(),:])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII | re.IGNORECASE,
)
_ESCAPE: Final = re.compile(
    r"""
    \\u(?P<high>D[89AB][0-9A-F]{2})\\u(?P<low>D[C-F][0-9A-F]{2})
  | \\u(?P<lone>D[89A-F][0-9A-F]{2})
  | \\u(?P<code>[0-9A-F]{4})
  | \\(?P<other>.)
  | (?P<plain>[^\\]+)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int

    @property
    def word(self) -> str:
        """The token as a keyword."""
        return self.text.upper() if self.kind == "name" else self.text if self.kind == "sign" else ""


class _Parser:
    """One method for each thing of the grammar; each leaves off behind what it has read."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = list(self._split())
        self._place = 0
        self._depth = 0

    def parse(self) -> Query:
        query = self._query()
        if self._next.kind != "end":
            raise self._unexpected()
        return query

    def _query(self) -> Query:
        self._expect("SELECT")
        selected = [self._selected()]
        while self._take(","):
            selected.append(self._selected())
        if len(selected) > 1:
            for item in selected:
                if isinstance(item.expression, Aggregate) and item.expression.field is None:
                    raise refused_at(self._source, item.expression.at, "MALFORMED_QUERY", "unexpected token: 'COUNT'")
        self._expect("FROM")
        sobject = self._name()
        alias = None
        if self._next.kind == "name" and self._next.word not in CLAUSES:
            alias = self._take_next().text
        where = self._condition() if self._take("WHERE") else None
        group_by: list[Name] = []
        if self._take("GROUP"):
            self._expect("BY")
            group_by.append(self._name())
            while self._take(","):
                group_by.append(self._name())
        having = self._condition(of_groups=True) if self._take("HAVING") else None
        order_by: list[Order] = []
        if self._take("ORDER"):
            self._expect("BY")
            order_by.append(self._order())
            while self._take(","):
                order_by.append(self._order())
        limit = self._whole_number() if self._take("LIMIT") else None
        offset = self._whole_number() if self._take("OFFSET") else 0
        if offset > OFFSET_MAX:
            raise Refused(400, "NUMBER_OUTSIDE_VALID_RANGE", f"Maximum SOQL offset allowed is {OFFSET_MAX}")
        return Query(
            self._source,
            tuple(selected),
            sobject,
            alias,
            where,
            tuple(group_by),
            having,
            tuple(order_by),
            limit,
            offset,
        )

    def _selected(self) -> Selected:
        at = self._next.at
        if self._take("("):
            self._enter()
            query = self._query()
            self._leave()
            self._expect(")")
            return Selected(Subquery(query, at))
        if self._next.word == "TYPEOF":
            return Selected(self._typeof())
        expression = self._expression()
        alias = None
        if self._next.kind == "name" and self._next.word != "FROM":
            alias = self._take_next().text
        return Selected(expression, alias)

    def _typeof(self) -> Typeof:
        at = self._take_next().at
        field = self._name()
        while self._take("WHEN"):
            self._name()
            self._expect("THEN")
            self._name()
            while self._take(","):
                self._name()
        if self._take("ELSE"):
            self._name()
            while self._take(","):
                self._name()
        self._expect("END")
        return Typeof(field, at)

    def _expression(self) -> Name | Aggregate:
        """A field, or a function of one."""
        name = self._name()
        if self._next.word != "(":
            return name
        function = name.text.upper()
        if function not in AGGREGATES:
            raise self._unexpected()
        self._take_next()
        field = None if function == "COUNT" and self._next.word == ")" else self._name()
        self._expect(")")
        return Aggregate(function, field, name.at)

    def _order(self) -> Order:
        expression = self._expression()
        descending = self._take("DESC")
        if not descending:
            self._take("ASC")
        nulls_last = False
        if self._take("NULLS"):
            nulls_last = self._take("LAST")
            if not nulls_last:
                self._expect("FIRST")
        return Order(expression, descending, nulls_last)

    def _condition(self, *, of_groups: bool = False) -> Condition:
        """AND and OR may not stand side by side without parentheses."""
        parts = [self._simple(of_groups=of_groups)]
        joint = self._next.word
        if joint not in ("AND", "OR"):
            return parts[0]
        while self._take(joint):
            parts.append(self._simple(of_groups=of_groups))
        if self._next.word in ("AND", "OR"):
            raise self._unexpected()
        return Every(tuple(parts)) if joint == "AND" else Some(tuple(parts))

    def _simple(self, *, of_groups: bool) -> Condition:
        if self._take("NOT"):
            self._enter()
            inner = self._simple(of_groups=of_groups)
            self._leave()
            return Not(inner)
        if self._take("("):
            self._enter()
            inner = self._condition(of_groups=of_groups)
            self._leave()
            self._expect(")")
            return inner
        return self._comparison(of_groups=of_groups)

    def _comparison(self, *, of_groups: bool) -> Comparison:
        left = self._expression() if of_groups else self._name()
        token = self._take_next()
        operator = COMPARISONS.get(token.word)
        if operator is not None:
            return Comparison(left, operator, (self._literal(),), token.at)
        if token.word == "LIKE":
            return Comparison(left, "LIKE", (self._literal(),), token.at)
        if token.word == "NOT" and self._next.word == "IN":
            self._take_next()
            return Comparison(left, "NOT IN", self._list(), token.at)
        if token.word == "IN":
            return Comparison(left, "IN", self._list(), token.at)
        raise self._unexpected(token)

    def _list(self) -> tuple[Literal, ...]:
        self._expect("(")
        values = [self._literal()]
        while self._take(","):
            values.append(self._literal())
        self._expect(")")
        return tuple(values)

    def _literal(self) -> Literal:
        token = self._take_next()
        match token.kind:
            case "text":
                return Text(self._checked_text(token), token.at)
            case "number":
                return Number(float(token.text), token.at)
            case "day":
                return Day(self._instant(token, f"{token.text}T00:00:00Z").date(), token.at)
            case "instant":
                return Instant(self._instant(token, token.text), token.at)
        match token.word:
            case "NULL":
                return Null(token.at)
            case "TRUE" | "FALSE":
                return Truth(token.word == "TRUE", token.at)
            case word if word in SPANS:
                return Span(word, 0, token.at)
            case word if word in NUMBERED_SPANS:
                self._expect(":")
                return Span(word, self._whole_number(), token.at)
            case ":":
                raise Refused(400, "MALFORMED_QUERY", "Bind variables only allowed in Apex code")
        raise self._unexpected(token)

    def _checked_text(self, token: _Token) -> str:
        raw = token.text[1:-1]
        for found in _ESCAPE.finditer(raw):
            if (found["other"] or "n").lower() not in ESCAPES or found["lone"] is not None:
                message = (
                    f"Invalid string literal {token.text}. Illegal character sequence '{found[0]}' in string literal."
                )
                raise refused_at(self._source, token.at, "MALFORMED_QUERY", message)
        return raw

    def _instant(self, token: _Token, text: str) -> datetime:
        try:
            instant = datetime.fromisoformat(text.upper())
            return instant.astimezone(UTC)
        except (ValueError, OverflowError):
            raise refused_at(self._source, token.at, "MALFORMED_QUERY", f"Invalid date: {token.text}") from None

    def _whole_number(self) -> int:
        token = self._take_next()
        if token.kind != "number" or not token.text.isdigit() or len(token.text) > 9:
            raise self._unexpected(token)
        return int(token.text)

    def _name(self) -> Name:
        token = self._take_next()
        if token.kind != "name" or token.word in ("SELECT", "FROM", "WHERE"):
            raise self._unexpected(token)
        return Name(token.text, token.at)

    # Tokens.

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take_next(self) -> _Token:
        token = self._next
        if token.kind != "end":
            self._place += 1
        return token

    def _take(self, word: str) -> bool:
        if self._next.word != word:
            return False
        self._place += 1
        return True

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise self._unexpected()

    def _enter(self) -> None:
        """One level deeper."""
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise Refused(
                400,
                "QUERY_TOO_COMPLICATED",
                "Query is either selecting too many fields or the filter conditions are too complicated.",
            )

    def _leave(self) -> None:
        self._depth -= 1

    def _unexpected(self, token: _Token | None = None) -> Refused:
        token = self._next if token is None else token
        shown = "<EOF>" if token.kind == "end" else token.text
        return refused_at(self._source, token.at, "MALFORMED_QUERY", f"unexpected token: '{shown}'")

    def _split(self) -> Iterator[_Token]:
        place = 0
        while place < len(self._source):
            found = _TOKEN.match(self._source, place)
            if found is None:
                character = self._source[place]
                line = self._source.count("\n", 0, place) + 1
                column = place - self._source.rfind("\n", 0, place) - 1
                message = (
                    f"line {line}:{column} mismatched character '<EOF>' expecting '''"
                    if character == "'"
                    else f"line {line}:{column} no viable alternative at character '{character}'"
                )
                raise refused_at(self._source, place, "MALFORMED_QUERY", message)
            place = found.end()
            kind = str(found.lastgroup)
            if kind != "blank":
                yield _Token(kind, found[0], found.start())
        yield _Token("end", "", len(self._source))


def _unescaped(raw: str) -> Iterator[tuple[str, bool]]:
    """The characters of a text in quotes, and whether each was written with a backslash."""
    for found in _ESCAPE.finditer(raw):
        if found["plain"] is not None:
            yield from ((character, False) for character in found["plain"])
        elif found["other"] is not None:
            yield ESCAPES[found["other"].lower()], True
        elif found["high"] is not None:
            pair = bytes.fromhex(found["high"] + found["low"])
            yield pair.decode("utf-16-be"), True
        else:
            yield chr(int(found["code"], 16)), True
