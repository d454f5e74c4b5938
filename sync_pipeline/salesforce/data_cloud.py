"""The source: everything that is asked of Data Cloud, and all of its SQL.

Identifiers are always quoted, values travel as parameters only, every selected column is cast to VARCHAR, so that
money keeps its digits and a frame holds text alone. The key is one text expression wherever it is selected, compared,
ordered or grouped by, so that a number as a key is in the order of its text. There is no ``OFFSET`` and no ``LIMIT`` in a statement that reads
rows: the rest of a range is one ordered, stored result, which is paged by its own offset once it is complete.

The dialect is Hyper's, close to PostgreSQL: https://developer.salesforce.com/docs/data/data-cloud-query-guide/references/dc-sql-reference/data-360-sql-context.html
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from sync_pipeline.domain.errors import (
    CredentialsError,
    LimitExceeded,
    MappingError,
    PlanRefused,
    RequestRefused,
    ResultGone,
    RightsError,
    StateError,
    SyncError,
    WireError,
)
from sync_pipeline.domain.keys import KeyRange
from sync_pipeline.domain.ledger import Cursor
from sync_pipeline.domain.mapping import Mapping as FieldTable
from sync_pipeline.domain.plan import SourceProfile
from sync_pipeline.domain.types import MORE_DIGITS, Form, SourceColumn, SqlType, source_columns
from sync_pipeline.salesforce.queries import (
    ConnectQueries,
    Progress,
    Queries,
    Rows,
    Statement,
    Submitted,
    TenantQueries,
)
from sync_pipeline.salesforce.session import Session

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
"""Shortest time between two looks at a statement; it doubles. The org itself holds each look for up to 10 s."""
POLL_SECONDS_MAX = 10.0
KEYS_PER_STATEMENT = 1000
"""Keys named in one IN list; the engine takes 10,000 parameters."""
DUPLICATE_KEYS_MAX = 200_000
"""Keys of duplicate groups that are kept in memory, some 100 bytes each."""
VALUES_MAX = 2_000
"""Values that rows are counted by, as many as the org itself allows."""
RESUBMISSIONS = 2
"""How often in a row a stored result may be gone before a single page of it was read."""
BLANKS = "' ' || chr(9) || chr(10) || chr(13)"
"""What Salesforce trims from both ends of a text: blank, tab, newline, carriage return. ``TRIM(BOTH … FROM …)`` is the
standard's spelling, which Hyper, PostgreSQL and DuckDB all read; ``btrim`` is unknown to DuckDB."""


@dataclass(frozen=True)
class SourcePage:
    """Rows of the source and the cursor that holds once they are staged. ``bytes`` is the size of the answers read."""

    frame: pl.DataFrame
    cursor: Cursor
    bytes: int


class DataCloud:
    """The source object of the mapping, asked through one of the two query APIs.

    ``run_id`` and a running number go into every statement as a harmless predicate, because identical statements may be
    answered from a cache of up to 24 hours: a second count that comes from there proves nothing. ``deadline_seconds``
    bounds a single statement, in the engine and in waiting for it. ``columns`` are the SQL types of the source's columns
    where they are known; else they are asked for before the first statement, whatever it is, which raises
    ``MappingError`` when they cannot be read faithfully.
    """

    def __init__(
        self,
        session: Session,
        mapping: FieldTable,
        *,
        api: Literal["connect", "v3"] = "connect",
        page_rows: int = 50_000,
        deadline_seconds: float = 1800.0,
        equal_rows_max: int = 100_000,
        run_id: str = "",
        columns: Mapping[str, str] | None = None,
    ) -> None:
        self._session = session
        self._queries: Queries = ConnectQueries(session) if api == "connect" else TenantQueries(session)
        self._mapping = mapping
        self._object = mapping.source_object
        self._columns = mapping.source_columns
        self._tie_breaker = mapping.tie_breaker
        self._from = f"FROM {_quoted(mapping.source_object)} AS s"
        self._page_rows = page_rows
        self._deadline_seconds = deadline_seconds
        self._equal_rows_max = equal_rows_max
        self._run_id = run_id
        self._numbers = itertools.count(1)
        self._described = columns
        self._forms: tuple[Mapping[str, str] | None, dict[str, SourceColumn]] | None = None
        self._describing = threading.Lock()

    def columns(self) -> dict[str, str]:
        """Columns of the source object with their SQL types. Raises ``MappingError`` when it cannot be read."""
        try:
            submitted = self._submit(Statement(f"SELECT * {self._from} LIMIT 0", {}, ()))
            self._drop(self._completed_or_dropped(submitted.progress).query_id)
        except RequestRefused as error:
            raise MappingError(
                f"The source object {self._object} cannot be read: {error.message}",
                hint="Check [source] object in the mapping (SYNC_MAPPING) and DATA_CLOUD_DATASPACE.",
            ) from None
        if not submitted.columns:
            raise WireError(
                f"Data Cloud did not name the columns of {self._object}: the answer to query-sql has no `metadata` with "
                "the `name` of each column.",
                hint="Try again.",
            )
        self._described = dict(submitted.columns)
        return dict(submitted.columns)

    def profile(self, *, fold_case: bool) -> SourceProfile:
        """What the source holds, by one statement. ``fold_case``: the target does not tell letter case apart."""
        matched = self._matched(fold_case=fold_case)
        parameters = _Parameters()
        columns = {
            "rows": "count(*)",
            "keys": "count(t.k)",
            "distinct_keys": "count(DISTINCT t.k)",
            "matched_keys": "count(DISTINCT NULLIF(t.matched, ''))",
            "blank_keys": "count(CASE WHEN t.matched = '' THEN 1 END)",
            "min_key": "min(t.k)",
            "max_key": "max(t.k)",
        }
        keys = f"SELECT {_named({'k': self._key, 'matched': matched})} {self._source(parameters)}"
        sql = f"SELECT {_cast(columns)} FROM ({keys}) AS t"
        row = self._row(Statement(sql, parameters, tuple(columns)))
        rows = int(row["rows"])
        return SourceProfile(
            rows=rows,
            null_keys=rows - int(row["keys"]),
            distinct_keys=int(row["distinct_keys"]),
            matched_keys=int(row["matched_keys"]),
            blank_keys=int(row["blank_keys"]),
            min_key=row["min_key"],
            max_key=row["max_key"],
        )

    def boundaries(self, *, rows_per_range: int, rows: int) -> list[str]:
        """Last keys of ranges of about equal size, strictly ascending; the last range needs none, a source of up to 1.5
        ranges neither.

        Raises ``PlanRefused`` when the source orders keys otherwise than by their UTF-8 bytes.
        """
        tiles = round(rows / rows_per_range)
        if rows <= 1.5 * rows_per_range or tiles < 2:
            return []
        parameters = _Parameters()
        source = self._source(parameters, f"{self._key} IS NOT NULL")
        tile = f"ntile({tiles}) OVER (ORDER BY {self._key})"
        tiled = f"SELECT {_named({'k': self._key, 'tile': tile})} {source}"
        last = _cast({"last": "max(t.k)"})
        sql = f"SELECT {last} FROM ({tiled}) AS t GROUP BY t.tile ORDER BY max(t.k)"
        last_keys: list[str] = self._table(Statement(sql, parameters, ("last",))).get_column("last").to_list()
        if last_keys != sorted(last_keys):
            raise _other_order(self._object)
        return list(dict.fromkeys(key for key in last_keys if key != last_keys[-1]))

    def counts(self, ranges: Sequence[KeyRange]) -> list[int]:
        """Rows of each range, by one statement for all; the first range counts rows without a key too.

        The ranges must not overlap.
        """
        parameters = _Parameters()
        cases = " ".join(
            f"WHEN {self._within(key_range, parameters, suffix=str(place), with_null_keys=key_range.is_first)} THEN {place}"
            for place, key_range in enumerate(ranges)
        )
        placed = f"SELECT {_named({'place': f'CASE {cases} ELSE -1 END'})} {self._source(parameters)}"
        sql = f"SELECT {_cast({'place': 't.place', 'n': 'count(*)'})} FROM ({placed}) AS t GROUP BY t.place"
        table = self._table(Statement(sql, parameters, ("place", "n")))
        counted = {int(place): int(n) for place, n in table.iter_rows()}
        return [counted.get(place, 0) for place in range(len(ranges))]

    def count(self, key_range: KeyRange) -> int:
        """Rows of one range; the first range counts rows without a key too."""
        parameters = _Parameters()
        where = self._within(key_range, parameters, suffix="", with_null_keys=key_range.is_first)
        sql = f"SELECT {_cast({'n': 'count(*)'})} {self._source(parameters, where)}"
        return int(self._row(Statement(sql, parameters, ("n",)))["n"])

    def duplicates(self, *, fold_case: bool, among: Sequence[str] | None = None) -> pl.DataFrame:
        """Keys that the target would take for one and the same row, by one statement.

        Columns: ``key`` as the source writes it, ``matched`` as the target matches it, ``rows`` of that raw key, ``tie``
        (its greatest tie-breaker, as text, or null) and ``best``, the greatest of all keys that are matched alike. Both
        are the greatest by the order of the column's type, and written as in a page. ``among`` leaves only groups that
        one of these keys, without blanks at its ends, belongs to: a statement for each thousand. Blank keys are left
        out: they are refused one by one. Raises ``PlanRefused`` for more than 200,000 keys.
        """
        matched = self._matched(fold_case=fold_case)
        tie = "CAST(NULL AS VARCHAR)" if self._tie_breaker is None else f"max(s.{_quoted(self._tie_breaker)})"
        columns = {
            "key": "t.k",
            "matched": "t.matched",
            "rows": "t.n",
            "tie": self._tie_text("t.tie"),
            "best": self._tie_text("t.best"),
        }
        frames = [pl.DataFrame(schema=dict.fromkeys(columns, pl.String))]
        over = "OVER (PARTITION BY g.matched)"
        groups = {"k": self._key, "matched": matched, "n": "count(*)", "tie": tie}
        totals = _named({"total": f"sum(g.n) {over}", "best": f"max(g.tie) {over}"})
        every = [(f"{matched} <> ''", _Parameters())]
        for where, parameters in every if among is None else self._listed(matched, among, fold_case=fold_case):
            grouped = f"SELECT {_named(groups)} {self._source(parameters, where)} GROUP BY {self._key}"
            totalled = f"SELECT g.*, {totals} FROM ({grouped}) AS g"
            sql = f"SELECT {_cast(columns)} FROM ({totalled}) AS t WHERE t.total > 1 ORDER BY t.matched, t.k"
            for rows in self._stored(Statement(sql, parameters, tuple(columns))):
                frames.append(rows.frame)
                if sum(frame.height for frame in frames) > DUPLICATE_KEYS_MAX:
                    raise PlanRefused(
                        f"More than {DUPLICATE_KEYS_MAX} keys of {self._object} stand for a row that another one stands for too.",
                        hint="Mend the source, or map another key column.",
                    )
        # Two of the keys that are asked for may be matched alike, and come in two statements.
        found = pl.concat(frames, rechunk=False).with_columns(pl.col("rows").cast(pl.Int64))
        return found if among is None else found.unique("key", maintain_order=True)

    def count_by(self, column: str) -> dict[str, int]:
        """Rows with a key by the value of a column as a page writes it, blanks at both ends dropped; null counts as empty
        text.

        Raises ``RequestRefused`` for more than 2,000 values.
        """
        parameters = _Parameters()
        trimmed = f"TRIM(BOTH {BLANKS} FROM CAST({self._text(column)} AS VARCHAR))"
        source = self._source(parameters, f"{self._key} IS NOT NULL")
        value = f"coalesce({trimmed}, '')"
        grouped = f"SELECT {_named({'v': value, 'n': 'count(*)'})} {source} GROUP BY {value}"
        columns = {"value": "t.v", "n": "t.n"}
        sql = f"SELECT {_cast(columns)} FROM ({grouped}) AS t ORDER BY t.n DESC LIMIT {VALUES_MAX + 1}"
        table = self._table(Statement(sql, parameters, tuple(columns)))
        if table.height > VALUES_MAX:
            raise RequestRefused(
                f"{self._object} has more than {VALUES_MAX} values of {column}.", code="TOO_MANY_VALUES"
            )
        return {value: int(n) for value, n in table.iter_rows()}

    def read(self, key_range: KeyRange, cursor: Cursor | None = None) -> Iterator[SourcePage]:
        """The rows of the range behind ``cursor``, ordered by key, in pages that never part the rows of one key.

        A page's cursor tells where to go on once its rows are staged; that of the last page holds the range's own upper
        bound, if it has one. Nothing is yielded when nothing is left. Rows without a key are not among them.

        Raises ``WireError`` (answers lost; the stored result stays, so that the cursor can go on in it), ``ResultGone``,
        ``PlanRefused`` (other key order, or too many rows with one key) and ``StateError`` (a cursor of another range).
        """
        key = None if cursor is None else cursor.key
        stored = cursor if cursor is not None and cursor.query_id else None
        losses = 0
        while True:
            try:
                rest = key_range.rest(key)
            except ValueError as error:
                raise StateError(f"Range {key_range}: {error}.", hint="Run the range with `--fresh`.") from None
            if rest is None:
                return
            try:
                for page in self._pages(rest, stored):
                    key, losses = page.cursor.key, 0
                    yield page
                return
            except ResultGone as error:
                losses += 1
                if losses > RESUBMISSIONS:
                    raise
                stored = None
                log.info("range %s: %s; reading on by key", key_range, error.message)

    def read_null_keys(self) -> Iterator[SourcePage]:
        """The rows without a key. Their cursors hold nothing, since no key order leads on from them."""
        statement = self._rows_where(f"{self._key} IS NULL", _Parameters())
        for rows in self._stored(statement):
            yield SourcePage(rows.frame, Cursor(None), rows.bytes)

    def keys(self, key_range: KeyRange) -> Iterator[pl.Series]:
        """The keys of the range as the source writes them, in no order; null keys are left out."""
        parameters = _Parameters()
        where = self._within(key_range, parameters, suffix="", with_null_keys=False)
        sql = f"SELECT {_cast({'k': self._key})} {self._source(parameters, f'{self._key} IS NOT NULL AND {where}')}"
        for rows in self._stored(Statement(sql, parameters, ("k",))):
            yield rows.frame.get_column("k")

    def rows_of(self, keys: Sequence[str]) -> pl.DataFrame:
        """All rows of the named keys, compared as the source writes them; columns as in a page, in no order."""
        return self._rows_by(self._key, list(dict.fromkeys(keys)))

    def rows_named(self, keys: Sequence[str], *, fold_case: bool = False) -> pl.DataFrame:
        """All rows that become rows of the named keys, because the source writes them so, or with blanks at both ends, or
        with ``fold_case`` in other letter case. Where it writes a key as it is named, other writings are left out."""
        found = self.rows_of(keys)
        # Only a key that is not written as it is named costs a look at every row of the source.
        written = set(found.get_column(self._columns[0]))
        others = [key for key in dict.fromkeys(keys) if key not in written]
        return pl.concat([found, self.rows_matched(others, fold_case=fold_case)])

    def rows_matched(self, keys: Sequence[str], *, fold_case: bool) -> pl.DataFrame:
        """All rows that the target takes for rows of these keys, which have no blanks at their ends; columns as in a
        page, in no order, rows that are equal in all of them once. Looks at every row of the source."""
        frames = [pl.DataFrame(schema=dict.fromkeys(self._columns, pl.String))]
        for condition, parameters in self._listed(self._matched(fold_case=fold_case), keys, fold_case=fold_case):
            frames.append(self._table(self._rows_where(condition, parameters)))
        # Two keys that are matched alike may stand in two statements, and each of them gives all their rows.
        return pl.concat(frames).unique(maintain_order=True)

    def _rows_by(self, expression: str, values: Sequence[str]) -> pl.DataFrame:
        frames = [pl.DataFrame(schema=dict.fromkeys(self._columns, pl.String))]
        for condition, parameters in self._listed(expression, values):
            frames.append(self._table(self._rows_where(condition, parameters)))
        return pl.concat(frames)

    def _listed(
        self, expression: str, values: Sequence[str], *, fold_case: bool = False
    ) -> Iterator[tuple[str, _Parameters]]:
        """Conditions that the expression is one of the values, a thousand in each, with their parameters. Letter case is
        folded by the engine on both sides."""
        for start in range(0, len(values), KEYS_PER_STATEMENT):
            parameters = _Parameters()
            named = values[start : start + KEYS_PER_STATEMENT]
            places = [parameters.add("key", value, suffix=str(n)) for n, value in enumerate(named)]
            if fold_case:
                rows = ", ".join(f"({place})" for place in places)
                yield f"{expression} IN (SELECT lower(v.k) FROM (VALUES {rows}) AS v(k))", parameters
            else:
                yield f"{expression} IN ({', '.join(places)})", parameters

    # The pages of one stored result.

    def _pages(self, rest: KeyRange, stored: Cursor | None) -> Iterator[SourcePage]:
        """Pages of the stored result that ``stored`` names, from its offset on, or else of a new statement."""
        rows: Rows | None = None
        offset = 0
        if stored is None:
            parameters = _Parameters()
            where = self._within(rest, parameters, suffix="", with_null_keys=False)
            statement = self._rows_where(f"{self._key} IS NOT NULL AND {where}", parameters, is_ordered=True)
            submitted = self._submit(statement)
            query_id, rows = submitted.progress.query_id, submitted.first
            total = self._completed_or_dropped(submitted.progress).rows
        else:
            query_id, offset = stored.query_id, stored.offset
            total = self._completed(self._resumed(query_id)).rows
        if offset > total:
            raise ResultGone(f"The stored result {query_id} has {total} rows, fewer than the {offset} already read.")
        held = pl.DataFrame(schema=dict.fromkeys(self._columns, pl.String))
        previous = rest.after
        while offset < total:
            rows = rows or self._rows(query_id, self._columns, offset=offset)
            offset += rows.frame.height
            frame = pl.concat([held, rows.frame], rechunk=False) if held.height else rows.frame
            size, rows = rows.bytes, None
            keys = frame.get_column(self._columns[0])
            self._check(keys, rest, previous=previous, offset=offset, total=total)
            last: str = keys[-1]
            if offset == total:
                held = held.clear()
                yield SourcePage(
                    frame, Cursor(rest.through if rest.through is not None else last, query_id, offset), size
                )
                break
            # The rows of the last key may go on in the next page: they wait for it, so that a key is staged whole.
            equal = int((keys == last).sum())
            if equal > self._equal_rows_max:
                raise PlanRefused(
                    f"More than {self._equal_rows_max} rows of {self._object} have the key {last!r}.",
                    hint="Mend the source, or map another key column.",
                )
            whole, held = frame.head(frame.height - equal), frame.tail(equal)
            if whole.height:
                previous = keys[whole.height - 1]
                yield SourcePage(whole, Cursor(previous, query_id, offset - equal), size)
        self._drop(query_id)

    def _check(self, keys: pl.Series, rest: KeyRange, *, previous: str | None, offset: int, total: int) -> None:
        if offset > total:
            raise WireError(
                f"Range {rest}: the stored result has {total} rows, but {offset} came.", hint="Run it again."
            )
        is_in_order = keys.null_count() == 0 and keys.is_sorted() and (previous is None or previous < keys[0])
        if not is_in_order or (rest.through is not None and keys[-1] > rest.through):
            raise _other_order(self._object)

    def _resumed(self, query_id: str) -> Progress:
        try:
            return self._queries.poll(query_id)
        except RequestRefused as error:
            raise _gone(query_id, error) from None

    def _rows(self, query_id: str, columns: Sequence[str], *, offset: int) -> Rows:
        try:
            return self._queries.rows(query_id, columns, offset=offset, limit=self._page_rows)
        except RequestRefused as error:
            raise _gone(query_id, error) from None

    def _submit(self, statement: Statement) -> Submitted:
        return self._queries.submit(statement, seconds=self._deadline_seconds, rows=self._page_rows)

    def _completed(self, progress: Progress) -> Progress:
        """Waits until every row can be read. Never pages before: rows counted while it runs are not all of them."""
        deadline = self._session.clock() + self._deadline_seconds
        pause = POLL_SECONDS
        while not progress.is_complete:
            asked_at = self._session.clock()
            if asked_at > deadline:
                raise WireError(
                    f"The statement {progress.query_id} over {self._object} still runs after {self._deadline_seconds:.0f} s.",
                    hint="Look at the load on Data Cloud; the run can be repeated.",
                )
            try:
                progress = self._queries.poll(progress.query_id)
            except RequestRefused as error:
                if error.status == 404:  # lost while it ran; a statement that fails answers otherwise
                    raise _gone(progress.query_id, error) from None
                raise
            if not progress.is_complete:
                # The org held the look for up to 10 s; only what is missing to the pause is waited here.
                self._session.sleep(max(0.0, pause - (self._session.clock() - asked_at)))
                pause = min(pause * 2, POLL_SECONDS_MAX)
        return progress

    def _completed_or_dropped(self, progress: Progress) -> Progress:
        """As ``_completed``; a statement that is given up before any cursor names it is deleted."""
        try:
            return self._completed(progress)
        except SyncError:
            self._drop(progress.query_id)
            raise

    def _stored(self, statement: Statement) -> Iterator[Rows]:
        """All rows of a statement whose result nobody will resume; it is deleted at the end, however that comes. One that
        is gone before its first page was handed out is asked for again."""
        for resubmission in range(RESUBMISSIONS + 1):
            handed_out = False
            try:
                for rows in self._read_once(statement):
                    handed_out = True
                    yield rows
                return
            except ResultGone:
                if handed_out or resubmission == RESUBMISSIONS:
                    raise

    def _read_once(self, statement: Statement) -> Iterator[Rows]:
        submitted = self._submit(statement)
        query_id, rows = submitted.progress.query_id, submitted.first
        try:
            total = self._completed(submitted.progress).rows
            offset = 0
            while offset < total:
                rows = rows or self._rows(query_id, statement.columns, offset=offset)
                offset += rows.frame.height
                if offset > total:
                    raise WireError(f"The result {query_id} has {total} rows, but {offset} came.", hint="Run it again.")
                yield rows
                rows = None
        finally:
            self._drop(query_id)

    def _table(self, statement: Statement) -> pl.DataFrame:
        empty = pl.DataFrame(schema=dict.fromkeys(statement.columns, pl.String))
        return pl.concat([empty, *(rows.frame for rows in self._stored(statement))], rechunk=False)

    def _row(self, statement: Statement) -> dict[str, Any]:
        """The one row of a statement that counts."""
        table = self._table(statement)
        if table.height != 1:
            raise WireError(f"A count over {self._object} came back with {table.height} rows.", hint="Run it again.")
        return table.row(0, named=True)

    def _drop(self, query_id: str) -> None:
        """Deletes a stored result; one that stays behind is only a waste of the org's memory for a day."""
        try:
            self._queries.drop(query_id)
        except (WireError, RequestRefused, RightsError, LimitExceeded, CredentialsError) as error:
            log.debug("the stored result %s was not deleted: %s", query_id, error.message)

    # The texts of statements.

    @property
    def _read(self) -> dict[str, SourceColumn]:
        """The mapped columns by type and form; the source is asked for its types where they are not known yet."""
        with self._describing:
            if self._forms is None or self._forms[0] is not self._described:
                columns = self._described if self._described is not None else self.columns()
                self._forms = (self._described, source_columns(self._mapping, columns))
            return self._forms[1]

    @property
    def _key(self) -> str:
        """The key as text. A text column is named bare, which leaves the engine its own ways to find a range."""
        column, bare = self._read[self._mapping.source_key], f"s.{_quoted(self._mapping.source_key)}"
        return bare if column.type is SqlType.TEXT else f"CAST({_in_form(bare, column)} AS VARCHAR)"

    def _text(self, name: str) -> str:
        """What a statement selects of a column, still to be cast to VARCHAR; one that is not mapped as it is."""
        bare, column = f"s.{_quoted(name)}", self._read.get(name)
        return bare if column is None else _in_form(bare, column)

    def _tie_text(self, expression: str) -> str:
        """A tie-breaker's value in the form in which a page has it."""
        return expression if self._tie_breaker is None else _in_form(expression, self._read[self._tie_breaker])

    def _source(self, parameters: _Parameters, where: str = "") -> str:
        """``FROM`` and ``WHERE`` over the source object; adds the statement's own parameter, which defeats the result cache."""
        conditions = [where] if where else []
        if self._run_id:
            run = parameters.add("run", f"{self._run_id}-{next(self._numbers)}")
            conditions.append(f"{run} = {run}")
        return f"{self._from} WHERE {' AND '.join(conditions)}" if conditions else self._from

    def _rows_where(self, where: str, parameters: _Parameters, *, is_ordered: bool = False) -> Statement:
        """Whole rows; in order of the key and, among equal keys, of the tie-breaker."""
        columns = _cast({name: self._text(name) for name in self._columns})
        ties = "" if self._tie_breaker is None else f", s.{_quoted(self._tie_breaker)}"
        order = f" ORDER BY {self._key}{ties}" if is_ordered else ""
        return Statement(f"SELECT {columns} {self._source(parameters, where)}{order}", parameters, self._columns)

    def _matched(self, *, fold_case: bool) -> str:
        """The key as the target matches it."""
        trimmed = f"TRIM(BOTH {BLANKS} FROM {self._key})"
        return f"lower({trimmed})" if fold_case else trimmed

    def _within(self, key_range: KeyRange, parameters: _Parameters, *, suffix: str, with_null_keys: bool) -> str:
        """The one place where a range becomes a comparison: ``after < key <= through``. Adds its parameters."""
        bounds = []
        if key_range.after is not None:
            bounds.append(f"{self._key} > {parameters.add('after', key_range.after, suffix=suffix)}")
        if key_range.through is not None:
            bounds.append(f"{self._key} <= {parameters.add('through', key_range.through, suffix=suffix)}")
        condition = " AND ".join(bounds) or "1 = 1"
        return f"({self._key} IS NULL OR {condition})" if with_null_keys else f"({condition})"


class _Parameters(dict[str, str]):
    """The parameters of one statement, value by name. Here alone a name is made: none that Hyper reads as a keyword."""

    def add(self, word: str, value: str, *, suffix: str = "") -> str:
        """Adds a value; gives its place in the statement."""
        name = f"p_{word}{suffix}"
        self[name] = value
        return f":{name}"


def _quoted(name: str) -> str:
    """An identifier in double quotes, as the API names it: right whether the engine folds letter case or not."""
    return '"' + name.replace('"', '""') + '"'


def _in_form(expression: str, column: SourceColumn) -> str:
    """An expression of the column's type in the form in which it is read; casting it to VARCHAR gives its text.

    ``CASE`` and the standard's functions alone, which Hyper, PostgreSQL and DuckDB read alike.
    """
    text = f"CAST({expression} AS VARCHAR)"
    match column.form:
        case Form.AS_WRITTEN:
            return expression
        case Form.PLAIN:
            without_zeros = f"TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {text}))"
            return f"CASE WHEN position('.' IN {text}) > 0 THEN {without_zeros} ELSE {text} END"
        case Form.DAY:
            # The day of an instant would be that of the session's time zone.
            instant = f"({expression} AT TIME ZONE 'UTC')" if column.type is SqlType.TIMESTAMPTZ else expression
            day = f"CAST({instant} AS DATE)"
            return f"CASE WHEN {instant} = CAST({day} AS TIMESTAMP) THEN CAST({day} AS VARCHAR) ELSE {text} END"
        case Form.MIDNIGHT:
            # Hyper takes a column that is cast to a timestamp and on to text for the date that it was.
            return f"{text} || ' 00:00:00'"
        case Form.APPROXIMATE:
            # Hyper takes a double that is cast to text and back for itself; what was trimmed is read.
            is_whole = f"CAST(TRIM({text}) AS DOUBLE PRECISION) = {expression}"
            return f"CASE WHEN {is_whole} THEN {text} ELSE {text} || '{MORE_DIGITS}' END"


def _cast(columns: Mapping[str, str]) -> str:
    """A select list of texts: alias to expression."""
    return _named({alias: f"CAST({expression} AS VARCHAR)" for alias, expression in columns.items()})


def _named(columns: Mapping[str, str]) -> str:
    """A select list: alias to expression. An alias is quoted, so that it may be a keyword."""
    return ", ".join(f"{expression} AS {_quoted(alias)}" for alias, expression in columns.items())


def _gone(query_id: str, error: RequestRefused) -> SyncError:
    # Which of the two a lost result answers with is not documented; an offset out of range cannot be the reason,
    # because none is ever asked for.
    if error.status in (400, 404):
        return ResultGone(f"The stored result {query_id} is gone ({error.message})", hint="It is read on by key.")
    return error


def _other_order(source_object: str) -> PlanRefused:
    return PlanRefused(
        f"{source_object} orders its keys otherwise than by their UTF-8 bytes, so ranges of it would lose rows.",
        hint="Map a key column of type text without a collation of its own.",
    )
