"""The target asked directly: counts, distributions, describe, limits, single rows, and who else is loading.

REST API: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/intro_rest.htm
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, cast
from urllib.parse import quote, urlsplit

import msgspec
import polars as pl

from sync_pipeline.domain.errors import MappingError, RequestRefused, RightsError, WireError
from sync_pipeline.domain.keys import KeyRange, plain_number
from sync_pipeline.domain.mapping import Mapping, NullPolicy, TargetField, TargetObject
from sync_pipeline.salesforce.answer import Answer, BadAnswer, as_json, believed, decode_plain, json_body
from sync_pipeline.salesforce.session import Session

log = logging.getLogger(__name__)

URI_BYTES = 12_000
"""Encoded length of one query; URI and headers together may have 16,384 bytes."""
RICH_TEXT = "richtextarea"
"""What describe's ``extraTypeInfo`` calls a text area whose value is markup."""
COLLECTION_ROWS = 200
"""Records that one sObject Collections call takes."""

ESCAPES = str.maketrans(
    {"\\": "\\\\", "'": "\\'", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
)
"""https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select_quotedstringescapes.htm"""


@dataclass(frozen=True)
class Limit:
    """One allocation of the org, as ``/limits`` shows it (accurate within about five minutes)."""

    max: int
    remaining: int


class LimitJson(msgspec.Struct):
    """One entry of ``/limits``; some entries hold nested ones besides."""

    Max: int | None = None
    Remaining: int | None = None


class QueryJson(msgspec.Struct):
    """One batch of a query."""

    totalSize: int
    done: bool | None = None
    records: list[dict[str, Any]] | None = None
    nextRecordsUrl: str | None = None


class PicklistJson(msgspec.Struct):
    """One value of a picklist."""

    value: str


class FieldJson(msgspec.Struct):
    """One field of a describe answer. What it does not say is taken in favour of the field: the org will judge."""

    name: str = ""
    type: str = ""
    label: str = ""
    length: int = 0
    precision: int | None = None
    scale: int | None = None
    digits: int | None = None
    nillable: bool = True
    createable: bool = True
    updateable: bool = True
    defaultedOnCreate: bool = True
    externalId: bool | None = None
    idLookup: bool = False
    unique: bool = False
    caseSensitive: bool = False
    autoNumber: bool = False
    calculated: bool = False
    htmlFormatted: bool = False
    extraTypeInfo: str | None = None
    picklistValues: list[PicklistJson] | None = None


class DescribeJson(msgspec.Struct):
    """The describe answer of an object."""

    fields: list[FieldJson]
    name: str = ""
    keyPrefix: str | None = None


class RowErrorJson(msgspec.Struct):
    """Why one record of a collection was refused."""

    statusCode: str = "UNKNOWN"
    message: str = ""
    fields: list[str] = []


NEEDED_BY_TYPE: AnyMapping[str, tuple[str, ...]] = {
    "double": ("precision", "scale"),
    "currency": ("precision", "scale"),
    "percent": ("precision", "scale"),
    "int": ("digits",),
}
"""What must be known of a field of this type before a value is sent to it, besides the type itself."""


class SavedJson(msgspec.Struct):
    """What became of one record of a collection."""

    success: bool
    id: str | None = None
    created: bool = False
    errors: list[RowErrorJson] = []


class Soql:
    """The target object of the mapping, asked over REST."""

    def __init__(self, session: Session, mapping: Mapping) -> None:
        self._session = session
        self._mapping = mapping
        self._object = mapping.target_object
        self._key = mapping.target_key

    def describe(self) -> TargetObject:
        """The target object's fields, as the user may see them. Raises ``MappingError`` when the org has no such object."""
        try:
            described = self._session.send(
                "GET", f"/sobjects/{self._object}/describe", endpoint="describe", read=as_json(DescribeJson)
            )
        except RequestRefused as error:
            if error.status != 404:
                raise
            raise MappingError(
                f"The org has no object {self._object}, or the user may not see it.",
                hint="Check [target] object in the mapping (SYNC_MAPPING).",
            ) from None
        sent = {name.lower() for name in self._mapping.target_columns}
        nameless = sum(not field.name for field in described.fields)
        if nameless and not sent <= {field.name.lower() for field in described.fields}:
            raise WireError(
                f"The answer to describe has no `name` of {nameless} fields of {self._object}, among which mapped ones may be.",
                hint="Try again.",
            )
        for field in described.fields:
            if field.name.lower() in sent:
                self._check_described(field)
        return TargetObject(
            name=described.name or self._object,
            key_prefix=described.keyPrefix or "",
            fields={field.name: _target_field(field) for field in described.fields if field.name},
        )

    def _check_described(self, field: FieldJson) -> None:
        """Raises ``WireError`` when the org does not say what has to be known of a field that is sent."""
        lacking = [name for name in NEEDED_BY_TYPE.get(field.type, ()) if getattr(field, name) is None]
        if not field.type:
            lacking.append("type")
        if field.name.lower() == self._key.lower() and field.externalId is None and not field.idLookup:
            lacking.append("externalId")
        if lacking:
            raise WireError(
                f"The answer to describe has no `{lacking[0]}` of the field {field.name} of {self._object}.",
                hint="Look at the field in the org (Setup, Object Manager).",
            )

    def count(self, key_range: KeyRange | None = None) -> int:
        """Rows of the target that have a key, in that range if one is given.

        The org compares text by its own rules, not by bytes: with keys of mixed letter case a range may differ from the
        source's by the keys at its edges.
        """
        conditions = [f"{self._key} != null"]
        if key_range is not None and key_range.after is not None:
            conditions.append(f"{self._key} > {literal(key_range.after)}")
        if key_range is not None and key_range.through is not None:
            conditions.append(f"{self._key} <= {literal(key_range.through)}")
        return self._count(f"SELECT COUNT() FROM {self._object} WHERE {' AND '.join(conditions)}")

    def count_since(self, instant: datetime) -> int:
        """Rows of the target that have a key and that anybody has touched at that instant or later."""
        since = instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        where = f"{self._key} != null AND SystemModstamp >= {since}"
        return self._count(f"SELECT COUNT() FROM {self._object} WHERE {where}")

    def count_by(self, field: str) -> dict[str, int]:
        """Rows of the target that have a key, by the value of a field; null counts as empty text.

        Raises ``RequestRefused`` for more than 2,000 values.
        """
        soql = f"SELECT {field}, COUNT(Id) n FROM {self._object} WHERE {self._key} != null GROUP BY {field}"
        counts: dict[str, int] = {}
        for record in self._query(soql):
            value = _text(_value(record, field)) or ""
            counts[value] = counts.get(value, 0) + _number(record, "n")
        return counts

    def rows_of(self, keys: Sequence[str], *, as_numbers: bool = False) -> pl.DataFrame:
        """The target's rows of the named keys: Id, key, mapped fields, LastModifiedDate, LastModifiedById, all String.

        ``as_numbers``: the key is a number, in whatever spelling; a key that is none has no row.
        """
        names = ("Id", *self._mapping.target_columns, "LastModifiedDate", "LastModifiedById")
        columns = tuple(dict.fromkeys(names))
        head = f"SELECT {', '.join(columns)} FROM {self._object} WHERE {self._key} IN ("
        batches = in_batches(head, _numbers(keys), spelled=str) if as_numbers else in_batches(head, keys)
        records = [record for soql in batches for record in self._query(soql)]
        return pl.DataFrame(
            {name: [_text(_value(record, name)) for record in records] for name in columns},
            schema=dict.fromkeys(columns, pl.String),
        )

    def limits(self) -> dict[str, Limit]:
        """The org's allocations by name. Raises ``RightsError`` without "View Setup and Configuration"."""
        answer = self._session.send("GET", "/limits", endpoint="limits", read=as_json(dict[str, Any]))
        read = {name: _limit(entry) for name, entry in answer.items()}
        return {name: limit for name, limit in read.items() if limit is not None}

    def organization(self) -> str:
        """The org's name, or the host it answers at when the name may not be read."""
        try:
            for record in self._query("SELECT Name FROM Organization"):
                if name := _text(_value(record, "Name")):
                    return name
        except (RequestRefused, RightsError) as error:
            log.debug("the org's name cannot be read: %s", error.message)
        return urlsplit(self._session.instance_url).hostname or self._session.instance_url

    def other_loads(self) -> list[str]:
        """Sentences about what else may write to the org: scheduled and running Apex. What the user may not see is said."""
        sentences = []
        try:
            for record in self._query(
                "SELECT CronJobDetail.Name, NextFireTime FROM CronTrigger WHERE CronJobDetail.JobType = '7' "
                "AND State IN ('WAITING', 'ACQUIRED', 'EXECUTING', 'BLOCKED') LIMIT 20"
            ):
                name = _text(_value(record, "CronJobDetail.Name")) or "unnamed"
                sentences.append(
                    f"Scheduled Apex {name}, next at {_text(_value(record, 'NextFireTime')) or 'no set time'}."
                )
        except (RequestRefused, RightsError, WireError) as error:
            sentences.append(f"Scheduled Apex cannot be seen by this user ({error.message})")
        try:
            for record in self._query(
                "SELECT ApexClass.Name, JobType, Status FROM AsyncApexJob "
                "WHERE Status IN ('Holding', 'Queued', 'Preparing', 'Processing') LIMIT 20"
            ):
                name = _text(_value(record, "ApexClass.Name")) or "unnamed"
                kind, status = _text(_value(record, "JobType")), _text(_value(record, "Status"))
                sentences.append(f"{kind} of Apex class {name} is {status}.")
        except (RequestRefused, RightsError, WireError) as error:
            sentences.append(f"Running Apex cannot be seen by this user ({error.message})")
        return sentences

    def upsert_rows(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Upserts a few rows (columns ``key`` and the target fields, typed) by sObject Collections, 200 at a time.

        Gives ``key``, ``id``, ``created`` and ``error``; the error is null for a saved row, else in the form of
        ``sf__Error``. A repeated call finds its rows already there and says updated.
        https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_sobjects_collections_upsert.htm
        """
        saved: list[SavedJson] = []
        for start in range(0, frame.height, COLLECTION_ROWS):
            batch = frame.slice(start, COLLECTION_ROWS)
            answer = self._session.send(
                "PATCH",
                f"/composite/sobjects/{self._object}/{self._key}",
                endpoint="collections",
                json={"allOrNone": False, "records": [self._record(row) for row in batch.iter_rows(named=True)]},
                read=_saved(batch.height),
            )
            saved.extend(answer)
        return pl.DataFrame(
            {
                "key": frame.get_column("key"),
                "id": pl.Series([row.id or "" for row in saved], dtype=pl.String),
                "created": pl.Series([row.created for row in saved], dtype=pl.Boolean),
                "error": pl.Series([_row_error(row) for row in saved], dtype=pl.String),
            }
        )

    def _record(self, row: dict[str, Any]) -> dict[str, Any]:
        record: dict[str, Any] = {"attributes": {"type": self._object}, self._key: row["key"]}
        for field in self._mapping.fields:
            value = row[field.target]
            if value is None or value == "":
                if field.null is NullPolicy.CLEAR:
                    record[field.target] = None
            else:
                record[field.target] = _json_value(value)
        return record

    def _query(self, soql: str) -> Iterator[dict[str, Any]]:
        page = self._page(soql, read=_read_records)
        rows = 0
        while True:
            records = page.records or []
            rows += len(records)
            yield from records
            if page.done or (page.done is None and page.nextRecordsUrl is None):
                if rows != page.totalSize:
                    raise WireError(f"A query found {page.totalSize} rows, but {rows} came.", hint="Run it again.")
                return
            locator = (page.nextRecordsUrl or "").rstrip("/").rpartition("/")[2]
            if not locator or not records or rows >= page.totalSize:
                raise WireError(
                    f"A query goes on after {rows} of {page.totalSize} rows, but the org does not say where: the answer to "
                    "soql has no usable `nextRecordsUrl`.",
                    hint="Run it again.",
                )
            page = self._session.send("GET", f"/query/{quote(locator, safe='')}", endpoint="soql", read=_read_records)

    def _count(self, soql: str) -> int:
        return self._page(soql, read=_read_query).totalSize

    def _page(self, soql: str, *, read: Callable[[Answer], QueryJson]) -> QueryJson:
        return self._session.send("GET", "/query", endpoint="soql", params={"q": soql}, read=read)


def literal(text: str) -> str:
    """A SOQL text literal: the one place where a value enters SOQL. Other control characters go in as they are."""
    return f"'{text.translate(ESCAPES)}'"


def _numbers(keys: Sequence[str]) -> list[str]:
    """Keys as number literals, which stand without quotes; those that are no numbers are left out."""
    return [number for key in keys if (number := plain_number(key)) is not None]


def in_batches(head: str, keys: Sequence[str], *, spelled: Callable[[str], str] = literal) -> Iterator[str]:
    """Queries ``head + literals + ")"`` over all keys, each short enough for a URI; ``spelled`` gives a key's literal."""
    room = URI_BYTES - len(quote(head + ")", safe=""))
    batch: list[str] = []
    size = 0
    for key in dict.fromkeys(keys):
        text = spelled(key)
        length = len(quote(text + ",", safe=""))
        if batch and size + length > room:
            yield f"{head}{','.join(batch)})"
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield f"{head}{','.join(batch)})"


_QUERY = msgspec.json.Decoder(QueryJson, float_hook=str, strict=False)


def _read_query(answer: Answer) -> QueryJson:
    """A batch of records whose numbers with a fraction stay the text that came."""
    body = json_body(answer)
    try:
        return _QUERY.decode(body)
    except msgspec.ValidationError:
        return cast("QueryJson", believed(decode_plain(body, float_hook=str), QueryJson))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer(f"records that are not the expected JSON ({error})") from None


def _read_records(answer: Answer) -> QueryJson:
    """The same where records are what was asked for."""
    query = _read_query(answer)
    if query.records is None:
        raise BadAnswer("an answer that has no `records`")
    return query


def _number(record: dict[str, Any], name: str) -> int:
    value = _text(_value(record, name)) or ""
    if not (value.isascii() and value.isdigit()):
        raise WireError(f"The answer to soql has no `{name}` that is a number.", hint="Run it again.")
    return int(value)


def _limit(entry: Any) -> Limit | None:
    try:
        limit = believed(entry, LimitJson)
    except BadAnswer:
        return None
    return None if limit.Max is None or limit.Remaining is None else Limit(limit.Max, limit.Remaining)


def _saved(expected: int) -> Any:
    def read(answer: Answer) -> list[SavedJson]:
        saved = as_json(list[SavedJson])(answer)
        if len(saved) != expected:
            raise BadAnswer(f"{len(saved)} results for {expected} records")
        return saved

    return read


def _row_error(row: SavedJson) -> str | None:
    if row.success:
        return None
    error = row.errors[0] if row.errors else RowErrorJson(message="refused without a reason")
    return f"{error.statusCode}:{error.message}:{','.join(error.fields)} --"


def _value(record: dict[str, Any], path: str) -> Any:
    """The value of a field, or of a parent's field (``Parent.Field``), whatever the letter case the org answers in."""
    value: Any = record
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        by_lower = value if name in value else {key.lower(): item for key, item in value.items()}
        value = by_lower.get(name if name in value else name.lower())
    return value


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


def _json_value(value: Any) -> Any:
    if isinstance(value, Decimal):
        return msgspec.Raw(format(value, "f").encode())  # a JSON number with every digit
    if isinstance(value, datetime):
        instant = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return instant.strftime("%Y-%m-%dT%H:%M:%S.") + f"{instant.microsecond // 1000:03d}Z"
    if isinstance(value, date):
        return value.isoformat()
    return value


def _target_field(field: FieldJson) -> TargetField:
    listed = tuple(entry.value for entry in field.picklistValues or ())
    return TargetField(
        name=field.name,
        label=field.label,
        type=field.type,
        length=field.length,
        precision=field.precision or 0,
        scale=field.scale or 0,
        digits=field.digits or 0,
        nillable=field.nillable,
        createable=field.createable,
        updateable=field.updateable,
        defaulted_on_create=field.defaultedOnCreate,
        external_id=bool(field.externalId),
        id_lookup=field.idLookup,
        unique=field.unique,
        case_sensitive=field.caseSensitive,
        auto_number=field.autoNumber,
        calculated=field.calculated,
        rich_text=field.type == "textarea" and (field.htmlFormatted or field.extraTypeInfo == RICH_TEXT),
        picklist=listed or None,
    )
