"""Groups of a query: GROUP BY, HAVING and the functions COUNT to MAX, leaf by leaf, in memory that grows with the groups.

GROUP BY: https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select_groupby.htm
Aggregate functions: https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select_agg_functions.htm
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import polars as pl

from sync_pipeline.simulated_org.call import Refused
from sync_pipeline.simulated_org.conditions import Operand, condition_of, lefts_of
from sync_pipeline.simulated_org.grammar import Aggregate, Name, Query
from sync_pipeline.simulated_org.objects import NUMBERS, Field
from sync_pipeline.simulated_org.soql import Bound, bind, matching_rows, outputs_of, sorted_rows
from sync_pipeline.simulated_org.state import Org

GROUPS_MAX: Final = 2_000
"""Groups of one answer; there is no second batch of them."""


def groups_of(org: Org, query: Query, *, include_deleted: bool = False) -> pl.DataFrame:
    """The groups of a query with aggregates, one column for each thing selected. Raises ``Refused`` (400
    EXCEEDED_ID_LIMIT) for more of them than one answer holds."""
    bound = bind(org, query)
    grouping = _Grouping(bound, now=org.now())
    for frame in matching_rows(org, bound, include_deleted=include_deleted):
        grouping.add(frame)
    return grouping.result()


class _Grouping:
    """Groups that grow leaf by leaf: of each aggregate only what is needed to go on is kept."""

    EVERYTHING: Final = "_all"
    """The one group of a query without GROUP BY."""

    def __init__(self, bound: Bound, *, now: float) -> None:
        query = bound.query
        self._bound = bound
        self._query = query
        self._keys = list(dict.fromkeys(bound.column(name).path for name in query.group_by)) or [self.EVERYTHING]
        self._groups: pl.DataFrame | None = None
        self._aggregates: dict[tuple[str, str], str] = {}
        """Function and column, and the name of the values."""
        having = [] if query.having is None else list(lefts_of(query.having))
        for expression in (
            *(item.expression for item in query.selected),
            *having,
            *(o.expression for o in query.order_by),
        ):
            if isinstance(expression, Aggregate):
                self._aggregates.setdefault(self._meant(expression), f"a{len(self._aggregates)}")
        self._distinct = {
            (path, name): _Distinct([*self._keys, path])
            for (function, path), name in self._aggregates.items()
            if function == "COUNT_DISTINCT"
        }
        self._having = None if query.having is None else condition_of(query, query.having, self._operand, now=now)

    def add(self, frame: pl.DataFrame) -> None:
        """Takes more rows in."""
        if frame.height == 0:
            return
        if self._keys == [self.EVERYTHING]:
            frame = frame.with_columns(pl.lit(0, dtype=pl.Int8).alias(self.EVERYTHING))
        part = frame.group_by(self._keys).agg(self._parts())
        if self._groups is not None:
            part = pl.concat([self._groups, part]).group_by(self._keys).agg(self._sums())
        self._groups = part
        for distinct in self._distinct.values():
            distinct.add(frame)
        if self._query.having is None and self._query.limit is None:
            _check_groups(part.height)

    def result(self) -> pl.DataFrame:
        """The groups as the query wants them."""
        query = self._query
        groups = self._whole()
        if self._having is not None:
            groups = groups.filter(self._having)
        by = [(*self._sorted_by(order.expression), order) for order in query.order_by]
        groups = sorted_rows(groups, by).slice(query.offset, query.limit)
        _check_groups(groups.height)
        return groups.select(
            pl.col(self._sorted_by(expression)[0]).alias(name)
            for name, expression in outputs_of(query, self._bound.column)
        )

    def _meant(self, aggregate: Aggregate) -> tuple[str, str]:
        if aggregate.field is None:
            raise ValueError("COUNT() without a field is no group")
        return aggregate.function, self._bound.column(aggregate.field).path

    def _sorted_by(self, expression: Name | Aggregate) -> tuple[str, Field]:
        """The column of the groups, and how it compares."""
        if isinstance(expression, Name):
            column = self._bound.column(expression)
            return column.path, column.field
        return self._aggregates[self._meant(expression)], self._aggregate_field(expression)

    def _operand(self, left: Name | Aggregate) -> Operand:
        if isinstance(left, Name):
            column = self._bound.column(left)
            kept = pl.col(column.path)
            return Operand(kept.cast(pl.Float64) if column.field.type == "int" else kept, left.text, column.field)
        found = self._aggregate_field(left)
        kept = pl.col(self._aggregates[self._meant(left)])
        return Operand(kept.cast(pl.Float64) if found.type in NUMBERS else kept, found.name, found)

    def _aggregate_field(self, aggregate: Aggregate) -> Field:
        if aggregate.field is None or aggregate.function in ("COUNT", "COUNT_DISTINCT"):
            return Field(aggregate.function, "int")
        if aggregate.function in ("SUM", "AVG"):
            return Field(aggregate.function, "double")
        return self._bound.column(aggregate.field).field

    def _parts(self) -> Iterator[pl.Expr]:
        """What is kept of some rows."""
        for (function, path), name in self._aggregates.items():
            values = pl.col(path)
            match function:
                case "COUNT":
                    yield values.count().cast(pl.Int64).alias(name)
                case "SUM" | "AVG":
                    yield values.sum().cast(pl.Float64).alias(name)
                    yield values.count().cast(pl.Int64).alias(f"{name}.rows")
                case "MIN":
                    yield values.min().alias(name)
                case "MAX":
                    yield values.max().alias(name)

    def _sums(self) -> Iterator[pl.Expr]:
        """What two such parts make together."""
        for (function, _), name in self._aggregates.items():
            match function:
                case "COUNT":
                    yield pl.col(name).sum()
                case "SUM" | "AVG":
                    yield pl.col(name).sum()
                    yield pl.col(f"{name}.rows").sum()
                case "MIN":
                    yield pl.col(name).min()
                case "MAX":
                    yield pl.col(name).max()

    def _whole(self) -> pl.DataFrame:
        """All groups with finished values."""
        groups = self._groups
        if groups is None:
            groups = self._none()
        for (path, name), distinct in self._distinct.items():
            counted = distinct.rows().group_by(self._keys).agg(pl.col(path).count().cast(pl.Int64).alias(name))
            groups = groups.join(counted, on=self._keys, how="left", nulls_equal=True, maintain_order="left")
            groups = groups.with_columns(pl.col(name).fill_null(0))
        finished = []
        for (function, _), name in self._aggregates.items():
            rows = pl.col(f"{name}.rows")
            if function == "SUM":
                finished.append(pl.when(rows > 0).then(name).alias(name))
            elif function == "AVG":
                finished.append(pl.when(rows > 0).then(pl.col(name) / rows).alias(name))
        return groups.with_columns(finished)

    def _none(self) -> pl.DataFrame:
        """The groups of no rows: none, or the one of a query without GROUP BY."""
        columns = {column.path: column.field for column in self._bound.columns}
        schema = {path: pl.Int64() if found.type == "int" else found.dtype for path, found in columns.items()}
        empty = pl.DataFrame(schema={**schema, self.EVERYTHING: pl.Int8()})
        for distinct in self._distinct.values():
            distinct.add(empty)
        if self._keys != [self.EVERYTHING]:
            return empty.group_by(self._keys).agg(self._parts())
        return empty.select(pl.lit(0, dtype=pl.Int8).alias(self.EVERYTHING), *self._parts())


class _Distinct:
    """Distinct values, of each group."""

    ROWS: Final = 100_000
    """Rows that may lie about before doubles are taken out."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = list(dict.fromkeys(columns))
        self._value = columns[-1]
        self._kept: list[pl.DataFrame] = []
        self._most = self.ROWS

    def add(self, frame: pl.DataFrame) -> None:
        self._kept.append(frame.select(self._columns).filter(pl.col(self._value).is_not_null()).unique())
        if sum(kept.height for kept in self._kept) > self._most:
            self._most = self.rows().height * 2 + self.ROWS

    def rows(self) -> pl.DataFrame:
        """What has been kept, without doubles."""
        self._kept = [pl.concat(self._kept).unique()]
        return self._kept[0]


def _check_groups(groups: int) -> None:
    if groups > GROUPS_MAX:
        raise Refused(
            400,
            "EXCEEDED_ID_LIMIT",
            "Aggregate query does not support queryMore(), use LIMIT to restrict the results to a single batch",
        )
