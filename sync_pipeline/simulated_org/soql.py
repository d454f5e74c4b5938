"""Runs SOQL over the org's rows, leaf by leaf, so that memory does not grow with them unless ORDER BY asks for it.

``grammar.py`` reads the text; here its names are looked up (``bind``), and records are found (``rows_of``) or counted
(``count_rows``). ``conditions.py`` says what WHERE means, ``groups.py`` makes groups, ``values.py`` writes values.

SOQL and SOSL Reference: https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select.htm
Bulk API 2.0 query: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/queries.htm
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Final

import polars as pl

from sync_pipeline.simulated_org.call import Refused
from sync_pipeline.simulated_org.conditions import (
    Column,
    FindColumn,
    Operand,
    Reach,
    before,
    condition_of,
    lefts_of,
    reach_of,
)
from sync_pipeline.simulated_org.describe import is_long_text, relationship_name
from sync_pipeline.simulated_org.grammar import (
    Aggregate,
    Condition,
    Name,
    Order,
    Query,
    Subquery,
    Typeof,
    refused_at,
)
from sync_pipeline.simulated_org.objects import NUMBERS, Field, SObject, find_object
from sync_pipeline.simulated_org.records import KEY, Records
from sync_pipeline.simulated_org.standing import ensure_standing_rows
from sync_pipeline.simulated_org.state import Org

PIECE_ROWS: Final = 20_000
"""Rows of a frame, more or less: the work on small frames is mostly overhead."""
ROW_ID: Final = "_id"
"""Column with the record's id, whether it was selected or not; ``_id.Account`` is that of a parent."""
CUSTOM_FIELD: Final = (
    "If you are attempting to use a custom field, be sure to append the '__c' after the custom field name. "
    "Please reference your WSDL or the describe call for the appropriate names."
)
CUSTOM_OBJECT: Final = (
    "If you are attempting to use a custom object, be sure to append the '__c' after the entity name. "
    "Please reference your WSDL or the describe call for the appropriate names."
)
CUSTOM_RELATIONSHIP: Final = (
    "If you are attempting to use a custom relationship, be sure to append the '__r' after the custom relationship name. "
    "Please reference your WSDL or the describe call for the appropriate names."
)


@dataclass(frozen=True)
class Bound:
    """A query whose names are known. ``named`` are all of them, in lower case; ``selected`` are the columns it gives."""

    query: Query
    object: SObject
    named: Mapping[str, Column]
    selected: tuple[Column, ...]
    condition: pl.Expr | None
    reach: Reach

    @property
    def columns(self) -> list[Column]:
        """The columns that must be read, each once."""
        return list({column.path: column for column in self.named.values()}.values())

    def column(self, name: Name) -> Column:
        """What a name of the query means."""
        return self.named[name.text.lower()]


def check_bulk_query(query: Query) -> None:
    """Raises ``Refused`` (400) for what Bulk API 2.0 does not run although REST does."""
    for item in query.selected:
        if isinstance(item.expression, Subquery):
            raise Refused(400, "API_ERROR", "Aggregate Relationships not supported in Bulk Query")
        if isinstance(item.expression, Typeof):
            raise Refused(400, "API_ERROR", "TYPEOF not supported in Bulk Query")
    if query.group_by:
        raise Refused(400, "API_ERROR", "GROUP BY not supported in Bulk Query")
    if query.is_aggregate:
        raise Refused(400, "API_ERROR", "Aggregate functions not supported in Bulk Query")
    if query.offset:
        raise Refused(400, "API_ERROR", "OFFSET not supported in Bulk Query")


@contextmanager
def snapshot(org: Org) -> Iterator[None]:
    """All rows read within are those of one moment, also while somebody loads. Nothing may be written meanwhile."""
    ensure_standing_rows(org)
    connection = org.db()
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.rollback()


def bind(org: Org, query: Query) -> Bound:
    """Looks up what the query names. Raises ``Refused`` (400 INVALID_TYPE, INVALID_FIELD, MALFORMED_QUERY and others)."""
    ensure_standing_rows(org)
    return _Names(org, query).bound()


def rows_of(org: Org, query: Query, *, include_deleted: bool = False, with_ids: bool = False) -> Iterator[pl.DataFrame]:
    """The selected columns, typed, in at least one frame. Raises ``Refused`` before the first, as ``bind`` does.

    ``with_ids`` adds ``ROW_ID`` columns. In constant memory, unless there is an ORDER BY that is not by the object's key.
    """
    bound = bind(org, query)
    if query.is_aggregate:
        raise Refused(400, "MALFORMED_QUERY", "a query of aggregates has no records")
    frames = matching_rows(org, bound, include_deleted=include_deleted)
    if query.order_by and not _is_in_key_order(bound):
        frames = _ordered(frames, bound)
    wanted = [pl.col(column.path) for column in bound.selected]
    if with_ids:
        relations = {column.relation.name: column.relation for column in bound.columns if column.relation is not None}
        wanted.append(pl.col("Id").alias(ROW_ID))
        wanted += [pl.col(name).alias(f"{ROW_ID}.{relationship_name(found)}") for name, found in relations.items()]
    return _limited(frames, wanted, offset=query.offset, limit=query.limit)


def count_rows(org: Org, query: Query, *, include_deleted: bool = False) -> int:
    """How many rows the query finds."""
    frames = matching_rows(org, bind(org, query), include_deleted=include_deleted)
    rows = max(sum(frame.height for frame in frames) - query.offset, 0)
    return rows if query.limit is None else min(rows, query.limit)


# Names.


class _Names:
    """The names of one query."""

    def __init__(self, org: Org, query: Query) -> None:
        self._org = org
        self._query = query
        sobject = find_object(org, query.object)
        if sobject is None:
            message = f"sObject type '{query.object}' is not supported. {CUSTOM_OBJECT}"
            raise refused_at(query.source, query.sobject.at, "INVALID_TYPE", message)
        self._object = sobject
        self._columns: dict[str, Column] = {}

    def bound(self) -> Bound:
        query = self._query
        selected = [self._selected(item.expression) for item in query.selected]
        if query.is_aggregate:
            self._check_groups()
        else:
            self._check_records([column for column in selected if column is not None])
        for order in query.order_by:
            self._check_order(order)
        if query.having is not None:
            self._check_having(query.having)
        condition = None
        if query.where is not None:
            condition = condition_of(query, query.where, self._operand, now=self._org.now())
        return Bound(
            query=query,
            object=self._object,
            named=self._columns,
            selected=tuple(column for column in selected if column is not None),
            condition=condition,
            reach=reach_of(query, self._object, self._find),
        )

    def _selected(self, expression: Name | Aggregate | Subquery | Typeof) -> Column | None:
        if isinstance(expression, Subquery):
            message = f"Didn't understand relationship '{expression.query.object}' in FROM part of query call. {CUSTOM_RELATIONSHIP}"
            raise refused_at(self._query.source, expression.query.sobject.at, "INVALID_TYPE", message)
        if isinstance(expression, Typeof):
            raise refused_at(self._query.source, expression.at, "MALFORMED_QUERY", "unexpected token: 'TYPEOF'")
        if isinstance(expression, Aggregate):
            self._check_aggregate(expression)
            return None
        return self._find(expression)

    def _find(self, name: Name) -> Column:
        known = self._columns.get(name.text.lower())
        if known is None:
            known = self._columns[name.text.lower()] = self._look_up(name)
        return known

    def _look_up(self, name: Name) -> Column:
        parts = name.text.split(".")
        own = {self._object.name.lower(), (self._query.alias or self._object.name).lower()}
        if len(parts) > 1 and parts[0].lower() in own and self._relation(parts[0]) is None:
            parts = parts[1:]
        found = self._object.find(".".join(parts))
        if found is not None:
            return Column(found.name, found)
        if len(parts) == 1:
            raise self._no_column(name, parts[0], self._object.name)
        relation = self._relation(parts[0])
        if relation is not None and len(parts) == 2:
            parent = find_object(self._org, relation.reference_to[0])
            found = parent.find(parts[1]) if parent is not None else None
            if found is None:
                raise self._no_column(name, parts[1], relation.reference_to[0])
            return Column(f"{relationship_name(relation)}.{found.name}", found, relation)
        kept = next((path for path in self._object.fields if path.lower().startswith(f"{parts[0].lower()}.")), None)
        if kept is not None and len(parts) == 2:
            raise self._no_column(name, parts[1], kept.partition(".")[0])
        strange = parts[0] if relation is None else parts[1]
        message = f"Didn't understand relationship '{strange}' in field path. {CUSTOM_RELATIONSHIP}"
        raise refused_at(self._query.source, name.at, "INVALID_FIELD", message)

    def _relation(self, called: str) -> Field | None:
        for found in self._object.fields.values():
            if (relationship_name(found) or "").lower() == called.lower() and found.reference_to:
                return found
        return None

    def _no_column(self, name: Name, part: str, entity: str) -> Refused:
        message = f"No such column '{part}' on entity '{entity}'. {CUSTOM_FIELD}"
        return refused_at(self._query.source, name.at, "INVALID_FIELD", message)

    def _operand(self, left: Name | Aggregate) -> Operand:
        if isinstance(left, Aggregate):  # the grammar knows them in HAVING alone
            raise refused_at(self._query.source, left.at, "MALFORMED_QUERY", f"unexpected token: '{left.function}'")
        column = self._find(left)
        if is_long_text(column.field):
            message = f"field '{left.text}' can not be filtered in a query call"
            raise refused_at(self._query.source, left.at, "INVALID_FIELD", message)
        return Operand(pl.col(column.path), left.text, column.field)

    def _check_records(self, selected: Sequence[Column]) -> None:
        seen = set()
        for column, item in zip(selected, self._query.selected, strict=True):
            if item.alias is not None:
                raise Refused(400, "MALFORMED_QUERY", "only aggregate expressions use field aliasing")
            if column.path in seen:
                raise Refused(400, "INVALID_FIELD", f"duplicate field selected: {column.path}")
            seen.add(column.path)

    def _check_aggregate(self, aggregate: Aggregate) -> None:
        if aggregate.field is None:
            return
        found = self._find(aggregate.field).field
        is_able = not is_long_text(found) and found.type != "boolean"
        if aggregate.function in ("SUM", "AVG"):
            is_able = found.type in NUMBERS
        if aggregate.function in ("MIN", "MAX"):
            is_able = is_able and found.type not in ("id", "reference")
        if not is_able:
            message = f"field {aggregate.field.text} does not support aggregate operator {aggregate.function}"
            raise refused_at(self._query.source, aggregate.at, "MALFORMED_QUERY", message)

    def _check_groups(self) -> None:
        query = self._query
        grouped = set()
        for name in query.group_by:
            column = self._find(name)
            if is_long_text(column.field):
                message = f"field '{name.text}' can not be grouped in a query call"
                raise refused_at(query.source, name.at, "MALFORMED_QUERY", message)
            grouped.add(column.path)
        if query.is_count and query.group_by:
            raise Refused(400, "MALFORMED_QUERY", "Grouped query cannot use COUNT()")
        for item in query.selected:
            if isinstance(item.expression, Name) and self._find(item.expression).path not in grouped:
                message = f"Field must be grouped or aggregated: {item.expression.text}"
                raise refused_at(query.source, item.expression.at, "MALFORMED_QUERY", message)
        called = [output.lower() for output, _ in outputs_of(query, self._find)]
        for output in called:
            if called.count(output) > 1:
                raise Refused(400, "MALFORMED_QUERY", f"duplicate alias: {output}")

    def _check_having(self, having: Condition) -> None:
        for left in lefts_of(having):
            if isinstance(left, Aggregate):
                self._check_aggregate(left)
            else:
                self._check_grouped(left)

    def _check_order(self, order: Order) -> None:
        if isinstance(order.expression, Aggregate):
            if not self._query.is_aggregate or order.expression.field is None:
                message = f"unexpected token: '{order.expression.function}'"
                raise refused_at(self._query.source, order.expression.at, "MALFORMED_QUERY", message)
            self._check_aggregate(order.expression)
            return
        column = self._find(order.expression)
        if is_long_text(column.field):
            message = f"field '{order.expression.text}' can not be sorted in a query call"
            raise refused_at(self._query.source, order.expression.at, "MALFORMED_QUERY", message)
        if self._query.is_aggregate:
            self._check_grouped(order.expression)

    def _check_grouped(self, name: Name) -> None:
        if self._find(name).path not in {self._find(grouped).path for grouped in self._query.group_by}:
            message = f"Field must be grouped or aggregated: {name.text}"
            raise refused_at(self._query.source, name.at, "MALFORMED_QUERY", message)


def outputs_of(query: Query, find: FindColumn) -> Iterator[tuple[str, Name | Aggregate]]:
    """What each selected thing is called in the answer: its alias, the field's own name, or ``expr0`` and so on."""
    nameless = 0
    for item in query.selected:
        if isinstance(item.expression, Subquery | Typeof):
            continue
        if item.alias is not None:
            yield item.alias, item.expression
        elif isinstance(item.expression, Name):
            yield find(item.expression).field.name.rpartition(".")[2], item.expression
        else:
            yield f"expr{nameless}", item.expression
            nameless += 1


# Rows.


def matching_rows(org: Org, bound: Bound, *, include_deleted: bool) -> Iterator[pl.DataFrame]:
    """The rows that meet the conditions, with the columns that the query reads, and ``Id``; in at least one frame."""
    own = {column.field.name: column.field for column in bound.columns if column.relation is None}
    parents = _parents(org, bound)
    wanted = dict.fromkeys(("Id", "IsDeleted", *own, *parents))
    test = bound.condition if bound.condition is not None else pl.lit(value=True)
    if not include_deleted:
        test = test & ~pl.col("IsDeleted").fill_null(value=False)
    whole = [pl.col(c.path).cast(pl.Int64) for c in bound.columns if c.field.type == "int"]
    records = Records(org, bound.object)
    empty = pl.DataFrame(schema={name: bound.object.schema[name] for name in wanted})
    leaves = chain([empty], _leaves(records, list(wanted), bound.reach))
    most = PIECE_ROWS
    if bound.query.limit is not None and (not bound.query.order_by or _is_in_key_order(bound)):
        most = min(bound.query.limit + bound.query.offset, PIECE_ROWS)
    return _filtered(_gathered(leaves, most), parents, test, whole)


def _gathered(leaves: Iterator[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """Some leaves at once, about so many rows."""
    kept: list[pl.DataFrame] = []
    for leaf in leaves:
        kept.append(leaf)
        if sum(frame.height for frame in kept) >= rows:
            yield pl.concat(kept)
            kept = []
    if kept:
        yield pl.concat(kept)


def _filtered(
    pieces: Iterator[pl.DataFrame], parents: Mapping[str, pl.DataFrame], test: pl.Expr, whole: Sequence[pl.Expr]
) -> Iterator[pl.DataFrame]:
    for piece in pieces:
        frame = piece
        for name, parent in parents.items():
            frame = frame.join(parent, on=name, how="left", maintain_order="left")
        frame = frame.filter(test)
        yield frame.with_columns(whole) if whole else frame


def _leaves(records: Records, columns: Sequence[str], reach: Reach) -> Iterator[pl.DataFrame]:
    """All leaves that can hold a row; of listed keys, each row once."""
    if reach.keys is None:
        yield from records.frames(columns, after=reach.after, through=reach.through)
        return
    keys, place = reach.keys, 0
    while place < len(keys):
        last = ""
        frames = []
        for frame in records.frames((*columns, KEY), after=before(keys[place]), through=keys[place]):
            frames.append(frame)
            last = frame[KEY][-1] if frame.height else last
        # Keys before the leaf's last row are in this leaf or nowhere.
        end = max(int(keys.search_sorted(last, "left")), place + 1)
        group = keys.slice(place, end - place).implode()
        for frame in frames:
            yield frame.filter(pl.col(KEY).is_in(group)).drop(KEY)
        place = end


def _parents(org: Org, bound: Bound) -> dict[str, pl.DataFrame]:
    """For each reference that the query follows, the parents: their id under its name, and the columns that are read."""
    relations: dict[str, list[Column]] = {}
    for column in bound.columns:
        if column.relation is not None:
            relations.setdefault(column.relation.name, []).append(column)
    parents = {}
    for name, columns in relations.items():
        unique = {column.path: column for column in columns}
        reference = bound.object.fields[name]
        parent = find_object(org, reference.reference_to[0])
        if parent is None:
            raise ValueError(f"{bound.object.name}.{name} refers to {reference.reference_to[0]}, which does not exist")
        read = list(dict.fromkeys(("Id", *(column.field.name for column in unique.values()))))
        schema = {column: parent.schema[column] for column in read}
        rows = pl.concat([pl.DataFrame(schema=schema), *Records(org, parent).frames(read)])
        parents[name] = rows.select(
            pl.col("Id").alias(name), *(pl.col(column.field.name).alias(path) for path, column in unique.items())
        )
    return parents


def _is_in_key_order(bound: Bound) -> bool:
    """Whether the query asks for the order in which the rows lie."""
    first = bound.query.order_by[0]
    if len(bound.query.order_by) > 1 or not isinstance(first.expression, Name) or bound.object.key is None:
        return False
    return (
        bound.column(first.expression).path == bound.object.key.name
        and not first.descending
        and not first.nulls_last
        and bound.reach.keys is None
    )


def _ordered(frames: Iterator[pl.DataFrame], bound: Bound) -> Iterator[pl.DataFrame]:
    """The rows in the order of ORDER BY: with a LIMIT only so many are ever held, else all."""
    query = bound.query
    most = None if query.limit is None else query.limit + query.offset
    columns = [bound.column(order.expression) for order in query.order_by if isinstance(order.expression, Name)]
    by = [(column.path, column.field, order) for column, order in zip(columns, query.order_by, strict=True)]
    kept: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        kept.append(frame)
        rows += frame.height
        if most is not None and rows > most + PIECE_ROWS:
            kept = [sorted_rows(pl.concat(kept), by).head(most)]
            rows = kept[0].height
    everything = sorted_rows(pl.concat(kept), by)
    for start in range(0, max(everything.height, 1), PIECE_ROWS):
        yield everything.slice(start, PIECE_ROWS)


def sorted_rows(frame: pl.DataFrame, by: Sequence[tuple[str, Field, Order]]) -> pl.DataFrame:
    if not by:
        return frame
    keys = []
    for column, found, _ in by:
        is_folded = found.dtype == pl.String and not found.case_sensitive and found.type not in ("id", "reference")
        keys.append(pl.col(column).str.to_lowercase() if is_folded else pl.col(column))
    return frame.sort(
        keys,
        descending=[order.descending for _, _, order in by],
        nulls_last=[order.nulls_last for _, _, order in by],
        maintain_order=True,
    )


def _limited(
    frames: Iterator[pl.DataFrame], wanted: Sequence[pl.Expr], *, offset: int, limit: int | None
) -> Iterator[pl.DataFrame]:
    """Rows ``offset`` and following, no more than ``limit``; an empty frame when there are none."""
    left = limit
    empty: pl.DataFrame | None = None
    given = False
    for frame in frames:
        skipped = min(offset, frame.height)
        offset -= skipped
        rest = frame.slice(skipped, left).select(wanted)
        empty = rest.clear() if empty is None else empty
        if rest.height:
            given = True
            yield rest
        if left is not None:
            left -= rest.height
            if left == 0:
                break
    if not given and empty is not None:
        yield empty
