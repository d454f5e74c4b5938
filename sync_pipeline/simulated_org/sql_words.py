"""The words of a statement: what Hyper reads otherwise than DuckDB before a sentence is made of them.

Unquoted words are folded to lower case, parameters become DuckDB's, ``U&'…'`` becomes plain text. Refused are parameters
whose names are keywords, styles of parameters side by side, operators and brackets that Hyper does not know, and every
statement that does not read. What is not found here is DuckDB's grammar to judge, and ``sql_meaning.py``.

SQL reference: https://developer.salesforce.com/docs/data/data-cloud-query-guide/references/dc-sql-reference/data-360-sql-context.html
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Style = Literal["", "NAMED", "QUESTION_MARK", "DOLLARED"]
"""How a statement writes its parameters; empty where it is not told: then any one of them."""

PARAMETERS_MAX: Final = 10_000
BIGGEST: Final = 2**63 - 1

TYPES: Final[Mapping[str, str]] = {
    "bigint": "BIGINT", "bool": "BOOLEAN", "char": "VARCHAR", "date": "DATE", "double": "DOUBLE", "float": "FLOAT",
    "integer": "INTEGER", "numeric": "DECIMAL", "oid": "BIGINT", "smallint": "SMALLINT", "time": "TIME",
    "timestamp": "TIMESTAMP", "timestamptz": "TIMESTAMP WITH TIME ZONE", "unspecified": "VARCHAR", "varchar": "VARCHAR",
}  # fmt: skip
"""SQL types of parameters, by their lower-case name in both APIs."""
WHOLE: Final[Mapping[str, int]] = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63, "oid": 2**32}

OPERATORS: Final = frozenset("+ - * / % ^ < > = <= >= <> != || ~~ !~~ ~~* !~~* ~ ~* !~ !~* :: => .".split())
"""Those Hyper knows; ``~`` and its kin are refused later, by name."""
READS: Final = frozenset(("select", "with", "values", "table", "("))
WRITES: Final = frozenset(
    "insert update delete merge create drop alter truncate copy attach detach grant revoke vacuum".split()
)

INNER: Final = frozenset(
    "to_years to_months to_days to_hours to_minutes to_seconds to_weeks to_quarters timezone regexp_full_match "
    "quantile_disc quantile_cont like_escape not_like_escape ilike_escape not_ilike_escape count_star".split()
)
"""Names that DuckDB's grammar gives to forms of SQL, and that are no functions of Hyper."""
TOLD_APART: Final[Mapping[str, str]] = {
    "date_part": "hyper_date_part", "char": "hyper_char", "character": "hyper_char", "nchar": "hyper_char",
    "bpchar": "hyper_char", "float": "double",
}  # fmt: skip
"""What DuckDB's grammar takes for the same: ``date_part`` and ``extract``, ``char`` and ``varchar``, ``float`` and ``real``."""
VARYING: Final = re.compile(r"\s+varying\b", re.IGNORECASE)

WORD: Final = re.compile(
    r"""
    (?P<gap>\s+ | --[^\n]* | /\*.*?\*/)
    | (?P<unicode>[uU]&'(?:[^']|'')*'(?:\s*[uU][eE][sS][cC][aA][pP][eE]\s*'(?P<escape>[^'])')?)
    | (?P<bits>[bBxX]'[^']*')
    | (?P<text>[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | \$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$)
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
    | (?P<cast>::)
    | :(?P<named>[A-Za-z_]\w*) | :"(?P<exactly>(?:[^"]|"")*)"
    | \$(?P<numbered>\d+)
    | (?P<mark>\?)
    | (?P<name>[^\W\d]\w*)
    | (?P<operator>[-+*/<>=~!@#%^&|`]+)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Parameter:
    """A value, always sent as text, and the type it is meant as. ``name`` is empty for one that is known by its place."""

    type: str
    value: str | None
    name: str = ""
    precision: int | None = None
    scale: int | None = None


class SqlError(Exception):
    """A statement that the engine refuses. ``state`` is its SQLSTATE, ``position`` a place in its text, if one is known."""

    def __init__(self, state: str, message: str, *, hint: str = "", position: int | None = None) -> None:
        super().__init__(f"{state}: {message}")
        self.state = state
        self.message = message
        self.hint = hint
        self.position = position


@dataclass(frozen=True)
class Statement:
    """A statement in DuckDB's words. ``types`` and ``values`` are those of the parameters that it uses, by name."""

    text: str
    types: Mapping[str, str]
    values: Mapping[str, str | None]
    places: tuple[tuple[int, int], ...]
    """Where a word begins in this text and in the one that was given."""

    def origin(self, place: int) -> int:
        """The place in the text that was given."""
        found = bisect_right(self.places, (place, 1 << 62)) - 1
        if found < 0:
            return place
        new, old = self.places[found]
        return old + place - new


def read_words(sql: str, parameters: Sequence[Parameter], style: Style = "") -> Statement:
    """Raises ``SqlError``."""
    if len(parameters) > PARAMETERS_MAX:
        raise SqlError("54000", f"too many parameters: {len(parameters)}")
    return _Reader(parameters, style).read(sql)


class _Reader:
    """Reads one statement word by word. ``before`` is the word before the one that is read."""

    def __init__(self, parameters: Sequence[Parameter], style: Style) -> None:
        self._types = [_duckdb_type(parameter) for parameter in parameters]
        self._parameters = parameters
        self._by_name = {parameter.name: place for place, parameter in enumerate(parameters) if parameter.name}
        self._style = style
        self._marks = 0
        self._used: set[int] = set()
        self.before = ""
        self.is_ended = False

    def read(self, sql: str) -> Statement:
        words: list[str] = []
        places: list[tuple[int, int]] = []
        size = 0
        for found in WORD.finditer(sql):
            word = self._word(found)
            places.append((size, found.start()))
            words.append(word)
            # Places are counted as the grammar counts them, in bytes.
            size += len(word.encode())
        if not self.before:
            raise SqlError("42601", "syntax error: got end of input, expected a statement", position=0)
        names = {place: f"p{place}" for place in sorted(self._used)}
        return Statement(
            "".join(words),
            {name: self._types[place] for place, name in names.items()},
            {name: self._parameters[place].value for place, name in names.items()},
            tuple(places),
        )

    def _word(self, found: re.Match[str]) -> str:
        kind, word = found.lastgroup or "", found[0]
        if kind == "gap":
            return " " if word.startswith(("-", "/")) else word
        if self.is_ended:
            raise _syntax(f"got {word}, expected end of input", found)
        if word == ";":
            self.is_ended = bool(self.before)
            return ""
        before, self.before = self.before, word.lower() if kind == "name" else word
        if not before:
            _check_reads(self.before, found)
        elif self.before == "from" and before == "(":
            raise _syntax("got FROM, expected SELECT", found)
        if kind in ("named", "exactly", "numbered", "mark"):
            return self._parameter(kind, found)
        if kind in ("unicode", "escape"):
            return _plain_text(found)
        if kind == "bits":
            raise SqlError("0A000", "bit strings not implemented yet", position=found.start())
        if kind == "number" and word.isdigit() and int(word) > BIGGEST:
            raise SqlError("42601", f"invalid integer constant {word}", position=found.start())
        if kind == "operator":
            return _operator(found)
        if kind == "other" and (word in "{}" or (word == "[" and not _can_be_indexed(before))):
            raise _syntax(f"got '{word}', expected an expression", found)
        if kind == "number":
            # A name right behind a number is a word of its own.
            return f"{word} "
        if kind != "name":
            return word
        if self.before in INNER or self.before.startswith("hyper_"):
            raise SqlError("42883", f'function "{self.before}" does not exist', position=found.start())
        if self.before == "character" and VARYING.match(found.string, found.end()):
            return self.before
        return TOLD_APART.get(self.before, self.before)

    def _parameter(self, kind: str, found: re.Match[str]) -> str:
        style: Style = {"numbered": "DOLLARED", "mark": "QUESTION_MARK"}.get(kind, "NAMED")  # type: ignore[assignment]
        if self._style and self._style != style:
            raise _syntax(f"got {found[0]}, but parameters are written in style {self._style}", found)
        self._style = style
        place: int | None
        if style == "DOLLARED":
            place = int(found["numbered"]) - 1
        elif style == "QUESTION_MARK":
            place, self._marks = self._marks, self._marks + 1
        else:
            exactly = found["exactly"]
            name = found["named"].lower() if exactly is None else exactly.replace('""', '"')
            if exactly is None and name in KEYWORDS:
                raise _syntax(f"got {name.upper()}, expected <identifier>", found)
            place = self._by_name.get(name)
        if place is None or not 0 <= place < len(self._parameters):
            raise SqlError("42601", f"unknown parameter {found[0]}: it has no value", position=found.start())
        self._used.add(place)
        return f"$p{place}"


def _duckdb_type(parameter: Parameter) -> str:
    """What a parameter is in DuckDB. Raises ``SqlError``, also for a value that is none of its type."""
    word = parameter.type.lower()
    kind = TYPES.get(word)
    if kind is None:
        raise SqlError("22023", f"invalid query parameters: unknown type {parameter.type}")
    if kind == "DECIMAL":
        if parameter.precision is None or parameter.scale is None:
            raise SqlError("22023", "invalid query parameters: a numeric needs precision and scale")
        if not 0 <= parameter.scale <= parameter.precision <= 38:
            raise SqlError("42601", "invalid NUMERIC modifiers")
        kind = f"DECIMAL({parameter.precision}, {parameter.scale})"
    if parameter.value is not None and (bound := WHOLE.get(word)) is not None:
        if not re.fullmatch(r"\s*[-+]?[0-9]+\s*", parameter.value):
            raise SqlError("22P02", "invalid input syntax for integer")
        if not -bound <= int(parameter.value) < bound:
            raise SqlError("22003", "numeric overflow")
    return kind


def _check_reads(word: str, found: re.Match[str]) -> None:
    if word in READS:
        return
    if word in WRITES:
        raise SqlError("25006", "cannot execute this statement in a read-only transaction", position=found.start())
    if word == "explain":
        raise SqlError("0A000", "the simulated org does not offer EXPLAIN", position=found.start())
    raise _syntax(f"got {word.upper()}, expected one of: SELECT, WITH, VALUES", found)


def _can_be_indexed(before: str) -> bool:
    """Whether a bracket may follow that word: an array, a column, a type."""
    return before == "array" or before[-1:] in ')"' or (before.isidentifier() and before not in ("select", "by", "in"))


def _operator(found: re.Match[str]) -> str:
    # A sign behind an operator is a word of its own, as in PostgreSQL: ``a=-1``.
    word = found[0]
    known = word if word in OPERATORS else word.rstrip("+-")
    if known and known not in OPERATORS:
        raise SqlError("42601", f"unknown operator '{word}'", position=found.start())
    return word if known == word else f"{known} {' '.join(word[len(known) :])}"


def _plain_text(found: re.Match[str]) -> str:
    escape = re.escape(found["escape"] or "\\")
    body = found[0].split("'", 1)[1]
    body = body[: body.rindex("'", 0, len(body))] if found["escape"] is None else re.split(r"'\s*[uU][eE]", body)[0]

    def letter(match: re.Match[str]) -> str:
        digits = match[1] or match[2]
        if digits is None:
            return found["escape"] or "\\"
        code = int(digits, 16)
        if not 0 < code < 0x110000 or 0xD800 <= code < 0xE000:
            raise SqlError("22021", f"invalid Unicode escape {match[0]}", position=found.start())
        return chr(code).replace("'", "''")

    return "'" + re.sub(rf"{escape}(?:([0-9a-fA-F]{{4}})|\+([0-9a-fA-F]{{6}})|{escape})", letter, body) + "'"


def _syntax(message: str, found: re.Match[str]) -> SqlError:
    return SqlError("42601", f"syntax error: {message}", position=found.start())


KEYWORDS: Final = frozenset(
    """
    abort absent absolute access action add admin after aggregate all also alter always analyse analyze and any are
    array as asc assertion assignment asymmetric at attach attribute authorization backward before begin between
    bigint binary bit boolean both bounded buffered bulk by cache call called cascade cascaded case cast catalog chain
    char character characteristics check checkpoint class close cluster coalesce collate collation column columns
    comment comments commit committed concurrently configuration connection constraint constraints content continue
    conversion copy cost create cross csv cube current current_catalog current_date current_role current_schema
    current_time current_timestamp current_user cursor cycle data database day deallocate dec decimal declare default
    defaults deferrable deferred definer delete delimiter delimiters desc detach dictionary disable discard distinct
    do document domain double drop each edge else empty enable encoding encrypted end enum error escape event except
    exclude excluding exclusive execute exists explain export extension external extract facts false family fetch
    filter first float following for force foreign format forward freeze from full function functions global grant
    granted graph greatest group grouping groups handler having header hold hour identity if ignore ilike immediate
    immutable implicit import in including increment index indexes inherit inherits initially inline inner inout input
    insensitive insert instead int integer intersect interval into invoker is isnull isolation join json keep key keys
    label lambda language large last lateral leading leakproof least left level like limit listen load local localtime
    localtimestamp location lock locked logged mapping match matched materialized maxvalue merge minute minvalue mode
    month move name names national natural nchar next no node none not nothing notify notnull nowait null nullif nulls
    numeric object of off offset oids omit on one only operator option options or order ordinality others out outer
    over overlaps overlay owned owner parser partial partition pass passing password per percent placing plans policy
    position preceding precision prepare prepared preserve primary prior privileges procedural procedure program
    property quote quotes range read real reassign recheck recursive ref references refresh reindex relative release
    rename repeatable replace replica reset respect restart restrict return returning returns revoke right role
    rollback rollup row rows rule savepoint schema scroll search second secure security select semantics sequence
    sequences serializable server session session_user set setof sets share show similar simple skip smallint snapshot
    some source stable standalone start statement statistics stdin stdout step storage stream strict strip substring
    symmetric sysid system table tables tablesample tablespace target temp template temporary text then through ties
    time timestamp to trailing transaction treat trigger trim true truncate trusted try_cast type types unbounded
    uncommitted unencrypted union unique unknown unlisten unlogged until update user using vacuum valid validate
    validator value values varchar variadic varying verbose version view views volatile when where while whitespace
    window with within without work wrapper write xml xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlparse
    xmlpi xmlroot xmlserialize year yes zone
    """.split()
)
"""Words that Hyper takes for no parameter's name, found by asking hyperd 0.0.26963 for each of 2,444 words."""
