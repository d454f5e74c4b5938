"""Saves rows of text into an object: every value checked, every row created, updated or refused with Salesforce's words.

Bulk jobs and the REST API save through this one file. Text is trimmed; an empty text leaves a field alone, ``#N/A`` clears
it. A picklist's value is kept as the list spells it (``picklists.py``), an email address in lower case, an instant without
fractions of its second. The same key twice within a chunk of 200 rows fails all its rows; further apart the later row wins.

upsert(): https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_upsert.htm
Status codes: https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_concepts_core_data_objects.htm

Row faults (``faults.py``): ``silent_drop`` names rows that are acknowledged and not saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import polars as pl

from sync_pipeline.simulated_org.identifiers import is_salesforce_id, salesforce_ids, whole_id
from sync_pipeline.simulated_org.objects import NUMBERS, Field, SObject, find_object
from sync_pipeline.simulated_org.picklists import PICKLISTS, is_unlisted, spelled_as_listed
from sync_pipeline.simulated_org.records import BLANKS, KEY, LAST_WITHOUT_KEY, NO_KEY, Records, Touched, match_key
from sync_pipeline.simulated_org.state import Org

Operation = Literal["insert", "update", "upsert", "delete", "hardDelete"]

CLEAR: Final = "#N/A"
CHUNK_ROWS: Final = 200
"""Rows of one transaction."""
TRUE, FALSE = ("true", "1"), ("false", "0")
INSTANT: Final = "%Y-%m-%dT%H:%M:%S%.f%#z"
SECOND_60: Final = ":60(?:[^0-9]|$)"
FIRST_YEAR, LAST_YEAR = 1700, 4000
"""Years of dates and instants: https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/primitive_data_types.htm"""
CLOSED: Final = ("Closed Won", "Closed Lost")
SHOWN: Final = 100
"""How much of a value that is too long an error repeats."""


@dataclass(frozen=True)
class Values:
    """Rows as the object keeps them. For each given field its typed value, and ``_set_<field>``: whether it has one."""

    frame: pl.DataFrame
    fields: tuple[Field, ...]
    errors: pl.Series
    """The first thing wrong with each row's own values, in the form of ``sf__Error``; null where nothing is."""


def save_rows(
    org: Org,
    user_id: str,
    sobject: SObject,
    operation: Operation,
    rows: pl.DataFrame,
    *,
    key_field: Field | None = None,
    refused: pl.Series | None = None,
    dropped: pl.Series | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> pl.DataFrame:
    """Saves ``rows`` (String columns named as fields) in one transaction and says what became of each, in their order.

    Gives ``id`` (empty when there is none), ``created`` and ``error`` (null for a saved row). Rows with a text in
    ``refused`` are not saved, for that reason; those that ``dropped`` marks are acknowledged and not saved.
    """
    if rows.height == 0:
        return pl.DataFrame(schema={"id": pl.String, "created": pl.Boolean, "error": pl.String})
    saving = _Saving(org, user_id, sobject, operation, key_field, chunk_rows)
    return saving.save(rows, refused=refused, dropped=dropped)


def error_text(code: str, message: str, fields: Sequence[str] = ()) -> str:
    """An error as ``sf__Error`` writes it."""
    return f"{code}:{message}:{','.join(fields)} --" if fields else f"{code}:{message}:--"


class _Saving:
    def __init__(
        self, org: Org, user_id: str, sobject: SObject, operation: Operation, key_field: Field | None, chunk_rows: int
    ) -> None:
        self._org = org
        self._user_id = user_id
        self._object = sobject
        self._operation = operation
        self._key = key_field if key_field is not None and key_field.name != "Id" else None
        self._by_id = operation in ("update", "delete", "hardDelete") or (key_field is not None and self._key is None)
        self._chunk_rows = chunk_rows
        self._records = Records(org, sobject)
        self._now = datetime.fromtimestamp(org.now(), UTC).replace(microsecond=0)

    def save(self, rows: pl.DataFrame, *, refused: pl.Series | None, dropped: pl.Series | None) -> pl.DataFrame:
        values = typed_values(self._org, self._object, rows)
        frame = values.frame.with_columns(
            pl.int_range(rows.height, dtype=pl.UInt32).alias("_row"),
            values.errors.alias("_error"),
            (pl.lit(value=False) if dropped is None else dropped).alias("_dropped"),
        )
        frame = self._with_keys(frame)
        if refused is not None:
            frame = frame.with_columns(pl.coalesce(refused, "_error").alias("_error"))
        with self._org.write():
            if self._by_id:
                frame = self._with_stored_keys(frame)
            # The order in which rows are kept. One thread takes half of the time that two take together.
            frame = frame.sort(KEY, maintain_order=True, multithreaded=False)
            touched = self._records.touch(self._touched_keys(frame))
            results = [
                self._pass(frame.filter(pl.col("_turn") == turn), values, touched) for turn in self._turns(frame)
            ]
            touched.save()
        return pl.concat(results).sort("_row", multithreaded=False).select("id", "created", "error")

    def _touched_keys(self, frame: pl.DataFrame) -> pl.Series:
        """Where the rows are, and where they will be."""
        keys = [frame[KEY]]
        if self._operation == "insert" and frame[KEY].null_count():
            keys.append(pl.Series([LAST_WITHOUT_KEY]))
        own = self._object.key
        if self._by_id and own is not None and own.name in frame.columns:
            keys += [frame.select(match_key(pl.col(own.name), own)).to_series(), pl.Series([LAST_WITHOUT_KEY])]
        return pl.concat(keys)

    # Which stored row a row means.

    def _with_keys(self, frame: pl.DataFrame) -> pl.DataFrame:
        """``_match``, the text by which the row is matched, and its errors: blank, or twice in one chunk."""
        if self._by_id:
            name = "Id"
            matched = pl.col("Id") if "Id" in frame.columns else pl.lit(None, dtype=pl.String)
        elif self._key is not None:
            name = self._key.name
            matched = match_key(pl.col(name), self._key) if name in frame.columns else pl.lit(None, dtype=pl.String)
        else:  # plain inserts: a key of their own is only checked against what is stored
            own = self._object.key
            has_key = own is not None and own.name in frame.columns
            matched = match_key(pl.col(own.name), own) if own is not None and has_key else pl.lit(None, dtype=pl.String)
            return frame.with_columns(matched.alias("_match"), matched.alias(KEY), pl.lit(0, pl.UInt32).alias("_turn"))
        frame = frame.with_columns(matched.alias("_match"))
        is_blank = frame["_match"].is_null()
        if is_blank.any():
            missing = error_text("MISSING_ARGUMENT", f"{name} not specified")
            frame = frame.with_columns(pl.when(is_blank).then(pl.lit(missing)).otherwise("_error").alias("_error"))
        if frame["_match"].n_unique() == frame.height:
            frame = frame.with_columns(pl.lit(0, pl.UInt32).alias("_turn"))
        else:
            frame = self._with_doubles_refused(frame, name)
        return frame.with_columns(pl.col("_match").alias(KEY))

    def _with_doubles_refused(self, frame: pl.DataFrame, name: str) -> pl.DataFrame:
        chunk = (pl.col("_row") // self._chunk_rows).alias("_chunk")
        is_double = (pl.len().over("_match", "_chunk") > 1) & pl.col("_match").is_not_null()
        told = "Duplicate external id specified: {}" if self._key is not None else "Duplicate id specified: {}"
        text = pl.format(f"DUPLICATE_VALUE:{told}:{name} --", pl.col(name))
        return (
            frame.with_columns(chunk)
            .with_columns(pl.when(is_double).then(text).otherwise("_error").alias("_error"))
            .with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).over("_match").alias("_turn"))
            .with_columns(pl.when(pl.col("_match").is_null()).then(0).otherwise("_turn").alias("_turn"))
        )

    def _with_stored_keys(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows named by Id: ``_k`` of the stored row."""
        stored = self._records.find_ids(frame["_match"].drop_nulls())
        return frame.drop(KEY).join(stored, left_on="_match", right_on="Id", how="left", maintain_order="left")

    def _turns(self, frame: pl.DataFrame) -> Iterator[int]:
        """Rows of one key are saved one after the other, all first ones at once."""
        yield from range(int(frame["_turn"].max() or 0) + 1)  # type: ignore[arg-type]

    # One row for each key.

    def _pass(self, frame: pl.DataFrame, values: Values, touched: Touched) -> pl.DataFrame:
        frame = self._matched(frame, touched)
        exists = frame["_id"].is_not_null()
        errors = self._errors(frame, exists, values)
        frame = frame.with_columns(errors.alias("_error"))
        good = frame.filter(pl.col("_error").is_null())
        if self._operation in ("delete", "hardDelete"):
            gone = good.filter(~pl.col("_dropped"))["_id"]
            touched.remove(gone)
            self._records.log_deleted(gone, at=self._now.timestamp())
            created = pl.Series([], dtype=pl.String)
        else:
            self._update(good.filter(pl.col("_id").is_not_null() & ~pl.col("_dropped")), values, touched)
            fresh = good.filter(pl.col("_id").is_null())
            created = self._create(fresh, values, touched) if fresh.height else pl.Series([], dtype=pl.String)
            if fresh.height:
                ids = fresh.select("_row", created.alias("_new_id"))
                frame = frame.join(ids, on="_row", how="left", maintain_order="left")
        new_id = pl.col("_new_id") if "_new_id" in frame.columns else pl.lit(None, dtype=pl.String)
        is_created = self._operation in ("insert", "upsert") and len(created) > 0
        return frame.select(
            "_row",
            pl.coalesce("_id", new_id, pl.lit("")).alias("id"),
            (new_id.is_not_null() if is_created else pl.lit(value=False)).alias("created"),
            pl.col("_error").alias("error"),
        )

    def _matched(self, frame: pl.DataFrame, touched: Touched) -> pl.DataFrame:
        """``_id`` of the stored row, and ``_ids`` when there are several."""
        if self._by_id:
            return frame.with_columns(
                pl.when(pl.col(KEY).is_not_null()).then("_match").alias("_id"), pl.lit(None, pl.String).alias("_ids")
            )
        stored = touched.rows((KEY, "Id"))
        if stored.height and stored[KEY].n_unique() < stored.height:
            listed = pl.col("Id").sort().str.join(", ")
            stored = stored.group_by(KEY).agg(
                pl.col("Id").min(), pl.when(pl.len() > 1).then(listed).alias("_ids").first()
            )
        else:
            stored = stored.with_columns(pl.lit(None, dtype=pl.String).alias("_ids"))
        return frame.join(stored.rename({"Id": "_id"}), on=KEY, how="left", maintain_order="left")

    def _errors(self, frame: pl.DataFrame, exists: pl.Series, values: Values) -> pl.Series:
        """The first error of each row: its own values before those that depend on what is stored."""
        errors = frame["_error"]
        several = frame["_ids"].is_not_null()
        if several.any():
            label = self._key.label if self._key is not None else "Id"
            text = pl.format("DUPLICATE_EXTERNAL_ID:{}: more than one record found for external id field: [{}]:--",
                             pl.lit(label), "_ids")  # fmt: skip
            errors = _first(errors, frame.select(pl.when(several).then(text)).to_series())
        if self._operation == "insert" and exists.any():
            own = self._object.key
            name = own.name if own is not None else ""
            text = pl.format(
                f"DUPLICATE_VALUE:duplicate value found: {name} duplicates value on record with id: {{}}:{name} --",
                "_id",
            )
            errors = _first(errors, frame.select(pl.when(exists).then(text)).to_series())
        if self._by_id and not exists.all():
            unknown = pl.lit(error_text("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id"))
            errors = _first(errors, frame.select(pl.when(~exists).then(unknown)).to_series())
        if self._operation in ("insert", "update", "upsert"):
            errors = _first(errors, self._missing(frame, exists, values))
        return errors

    def _missing(self, frame: pl.DataFrame, exists: pl.Series, values: Values) -> pl.Series:
        """Required fields: a create without a value, an update that clears one."""
        given = {found.name for found in values.fields}
        absent: dict[str, pl.Series] = {}
        for found in self._object.fields.values():
            if not found.is_required:
                continue
            if found.name in given:
                is_empty = frame[found.name].is_null() & (frame[f"_set_{found.name}"] | ~exists)
            else:
                is_empty = ~exists
            if is_empty.any():
                absent[found.name] = is_empty
        if not absent:
            return _no_errors(frame.height)
        names = pl.DataFrame(absent).select(
            pl.concat_str(
                *(pl.when(name).then(pl.lit(name)) for name in absent), separator=", ", ignore_nulls=True
            ).alias("names")
        )
        text = pl.format(
            "REQUIRED_FIELD_MISSING:Required fields are missing: [{}]:{} --",
            "names",
            pl.col("names").str.replace_all(", ", ","),
        )
        return names.select(pl.when(pl.col("names") != "").then(text)).to_series()

    def _create(self, fresh: pl.DataFrame, values: Values, touched: Touched) -> pl.Series:
        """Makes the rows and gives their ids. Those that are dropped get an id, and nothing else."""
        # In the order in which the rows came, with a gap for each that is not new.
        places = fresh["_row"].cast(pl.Int64)
        first = self._org.reserve(self._object.prefix, int(places.max()) + 1)  # type: ignore[arg-type]
        ids = salesforce_ids(self._object.prefix, places + first)
        given = {found.name for found in values.fields}
        system = {
            "IsDeleted": pl.lit(value=False), "OwnerId": pl.lit(self._user_id), "CreatedById": pl.lit(self._user_id),
            "LastModifiedById": pl.lit(self._user_id), "CreatedDate": pl.lit(self._now),
            "LastModifiedDate": pl.lit(self._now), "SystemModstamp": pl.lit(self._now),
        }  # fmt: skip
        columns = []
        for name, dtype in self._object.stored.items():
            if name == "Id":
                columns.append(pl.lit(ids).alias("Id"))
            elif name in given and name not in system:
                columns.append(pl.col(name).cast(dtype))
            else:
                columns.append(system.get(name, pl.lit(None)).cast(dtype).alias(name))
        # Still in their order: rows without a key came first, as they were sent.
        key = pl.coalesce(KEY, pl.concat_str(pl.lit(NO_KEY), ids)).set_sorted().alias(KEY)
        rows = fresh.select(key, *columns, "_dropped").filter(~pl.col("_dropped")).drop("_dropped")
        touched.add(_derived(self._object, rows))
        return ids

    def _update(self, known: pl.DataFrame, values: Values, touched: Touched) -> None:
        if known.height == 0:
            return
        columns = [found.name for found in values.fields if found.name != "Id" and found.updateable]
        system = {
            "LastModifiedDate": pl.lit(self._now), "LastModifiedById": pl.lit(self._user_id),
            "SystemModstamp": pl.lit(self._now),
        }  # fmt: skip
        rows = known.select(
            KEY,
            pl.col("_id").alias("Id"),
            *columns,
            *(f"_set_{name}" for name in columns),
            *(value.alias(name) for name, value in system.items()),
            *(pl.lit(value=True).alias(f"_set_{name}") for name in system),
        )
        derived = [name for name in ("IsClosed", "IsWon") if name in self._object.fields and "StageName" in columns]
        rows = _derived(self._object, rows) if derived else rows
        rows = rows.with_columns(pl.col("_set_StageName").alias(f"_set_{name}") for name in derived)
        touched.update(rows, [*columns, *system, *derived])
        if self._by_id and self._object.key is not None and self._object.key.name in columns:
            touched.move()


def typed_values(org: Org, sobject: SObject, rows: pl.DataFrame) -> Values:
    """The rows' values as the object keeps them; columns that are no writable field are ignored.

    A header such as ``Account.External_ID__c`` names a parent by its external id.
    """
    columns: dict[str, pl.Series] = {}
    fields: list[Field] = []
    errors = _no_errors(rows.height)
    for name in rows.columns:
        found = sobject.find(name)
        text = rows[name].str.strip_chars(BLANKS).fill_null("")
        if found is None and "." in name:
            parent = _parent(org, sobject, name)
            if parent is None:
                continue
            found = parent[0]
            text, lost = _by_external_id(org, sobject, found, parent[1], text)
            errors = _first(errors, lost)
        if found is None or (not found.createable and not found.updateable and found.name != "Id"):
            continue
        clears = text == CLEAR
        is_given = text != ""
        if clears.any():
            text = pl.select(pl.when(~clears).then(text).otherwise(pl.lit(""))).to_series()
        value, error = _converted(org, sobject, found, text)
        columns[found.name] = value
        columns[f"_set_{found.name}"] = is_given
        fields.append(found)
        if error is not None:
            errors = _first(errors, error)
    frame = pl.DataFrame(columns) if columns else pl.DataFrame({"_": pl.Series([None] * rows.height)})
    return Values(frame, tuple(fields), errors)


def _converted(org: Org, sobject: SObject, found: Field, text: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    """One field's values, and what is wrong with them, if anything is."""
    empty = text == ""
    if found.type in NUMBERS:
        return _numbers(found, text, empty)
    if found.type == "boolean":
        lowered = text.str.to_lowercase()
        value = pl.select(
            pl.when(lowered.is_in(TRUE)).then(pl.lit(value=True)).when(lowered.is_in(FALSE)).then(pl.lit(value=False))
        ).to_series()
        return value, _not_of_type(found, text, value.is_null() & ~empty)
    if found.type == "date":
        value = text.str.to_date("%Y-%m-%d", strict=False)
        return value, _not_of_type(found, text, ~_is_in_years(value) & ~empty)
    if found.type == "datetime":
        value = text.str.to_datetime(INSTANT, strict=False, time_unit="ms", time_zone="UTC").dt.truncate("1s")
        is_bad = ~_is_in_years(value) | text.str.contains(SECOND_60)
        return value, _not_of_type(found, text, is_bad & ~empty)
    value = pl.select(pl.when(~empty).then(text)).to_series() if empty.any() else text
    if found.type in ("reference", "id"):
        return _references(org, found, value)
    if found.type == "email":
        value = value.str.to_lowercase()
    if found.type in PICKLISTS:
        value = spelled_as_listed(org, sobject, found, value)
    if found.restricted_picklist:
        is_bad = is_unlisted(found, value)
        return value, _told(text, is_bad, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
                            f"{found.label}: bad value for restricted picklist field: {{}}", found)  # fmt: skip
    if found.length:
        is_long = (value.str.len_bytes() > found.length).fill_null(value=False)
        if is_long.any():
            is_long = (value.str.len_chars() > found.length).fill_null(value=False)
            shown = text.str.head(SHOWN)
            return value, _told(shown, is_long, "STRING_TOO_LONG",
                                f"{found.label}: data value too large: {{}} (max length={found.length})", found)  # fmt: skip
    return value, None


def _is_in_years(value: pl.Series) -> pl.Series:
    """False for what is no date at all, too."""
    return value.dt.year().is_between(FIRST_YEAR, LAST_YEAR).fill_null(value=False)


def _numbers(found: Field, text: pl.Series, empty: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    value = text.cast(pl.Float64, strict=False)
    is_bad = (
        value.is_null() | value.is_nan().fill_null(value=False) | value.is_infinite().fill_null(value=False)
    ) & ~empty
    scale = 0 if found.type == "int" else found.scale
    whole = (found.digits or 9) if found.type == "int" else (found.precision or 18) - found.scale
    error = _not_of_type(found, text, is_bad)
    is_large = (value.abs() >= 10.0**whole).fill_null(value=False) & ~is_bad
    if is_large.any():
        message = f"{found.label}: value outside of valid range on numeric field: {{}}"
        error = _first(error, _told(text, is_large, "NUMBER_OUTSIDE_VALID_RANGE", message, found))
    return value.round(scale, mode="half_away_from_zero"), error


def _references(org: Org, found: Field, value: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    if found.type == "id":
        whole = {text: whole_id(text) for text in value.drop_nulls().unique()}
        other = {text: meant for text, meant in whole.items() if meant is not None and meant != text}
        odd = [text for text, meant in whole.items() if meant is None]
        return (value.replace(other) if other else value), _malformed(found, value, odd)
    known = [_known_ids(org, name) for name in found.reference_to]
    ids = pl.concat(known) if known else pl.Series([], dtype=pl.String)
    is_known = value.is_in(ids.implode()) | value.is_null()
    if is_known.all():
        return value, None
    strange = value.filter(~is_known).unique()
    by_short = {text[:15]: text for text in ids.filter(ids.str.head(15).is_in(strange.str.head(15).implode()))}
    full = {text: by_short[text[:15]] for text in strange if text[:15] in by_short and is_salesforce_id(text)}
    malformed = [text for text in strange if not is_salesforce_id(text)]
    unknown = [text for text in strange if text not in full and text not in malformed]
    error = _malformed(found, value, malformed)
    if unknown:
        error = _first(
            error,
            _told(
                value,
                value.is_in(unknown).fill_null(value=False),
                "INVALID_CROSS_REFERENCE_KEY",
                "invalid cross reference id",
                found,
            ),
        )
    return (value.replace(full) if full else value), error


def _malformed(found: Field, value: pl.Series, odd: Sequence[str]) -> pl.Series | None:
    if not odd:
        return None
    message = f"{found.label}: id value of incorrect type: {{}}"
    return _told(value, value.is_in(list(odd)).fill_null(value=False), "MALFORMED_ID", message, found)


def _parent(org: Org, sobject: SObject, header: str) -> tuple[Field, Field] | None:
    """The reference field and the parent's indexed field that a header such as ``Account.Key__c`` means."""
    relation, _, name = header.partition(".")
    for found in sobject.fields.values():
        own = found.name.removesuffix("Id") if not found.name.endswith("__c") else f"{found.name[:-1]}r"
        if found.type == "reference" and own.lower() == relation.lower():
            parent = find_object(org, found.reference_to[0])
            indexed = parent.find(name) if parent is not None else None
            if indexed is not None and (indexed.external_id or indexed.id_lookup):
                return found, indexed
    return None


def _by_external_id(
    org: Org, sobject: SObject, found: Field, indexed: Field, text: pl.Series
) -> tuple[pl.Series, pl.Series]:
    """Ids of the parents with these external ids."""
    parent = find_object(org, found.reference_to[0])
    wanted = pl.DataFrame({"text": text}).with_columns(match_key(pl.col("text"), indexed).alias(KEY))
    parents = Records(org, parent).touch(wanted[KEY]).rows((KEY, "Id")) if parent is not None else pl.DataFrame()
    joined = wanted.join(parents.unique(KEY), on=KEY, how="left", maintain_order="left")
    is_kept = (pl.col("text") == "") | (pl.col("text") == CLEAR)
    is_lost = ~is_kept & pl.col("Id").is_null()
    told = pl.format(
        f"INVALID_FIELD:Foreign key external ID: {{}} not found for field {indexed.name} in entity {sobject.name}:--",
        "text",
    )
    answered = joined.select(
        pl.when(is_kept).then("text").otherwise(pl.col("Id").fill_null("")).alias("id"),
        pl.when(is_lost).then(told).alias("error"),
    )
    return answered["id"], answered["error"]


def is_parent_header(org: Org, sobject: SObject, header: str) -> bool:
    """Whether a header with a dot names a parent by an indexed field."""
    return _parent(org, sobject, header) is not None


def _known_ids(org: Org, name: str) -> pl.Series:
    sobject = find_object(org, name)
    if sobject is None:
        return pl.Series([], dtype=pl.String)
    if name == "User":
        return pl.Series([org.user_id, org.admin_id])
    records = Records(org, sobject)
    empty = pl.DataFrame(schema={"Id": pl.String})
    return org.remembered(f"ids of {name}", records.version, lambda: pl.concat([empty, *records.frames(("Id",))])["Id"])


def _derived(sobject: SObject, rows: pl.DataFrame) -> pl.DataFrame:
    if "IsWon" not in sobject.fields or "StageName" not in rows.columns:
        return rows
    return rows.with_columns(
        pl.col("StageName").is_in(CLOSED).fill_null(value=False).alias("IsClosed"),
        (pl.col("StageName") == CLOSED[0]).fill_null(value=False).alias("IsWon"),
    )


def _no_errors(rows: int) -> pl.Series:
    return pl.repeat(None, rows, dtype=pl.String, eager=True)


def _not_of_type(found: Field, text: pl.Series, is_bad: pl.Series) -> pl.Series | None:
    return _told(
        text, is_bad, "INVALID_TYPE_ON_FIELD_IN_RECORD", f"{found.label}: value not of required type: {{}}", found
    )


def _told(text: pl.Series, is_bad: pl.Series, code: str, message: str, found: Field) -> pl.Series | None:
    """The error of the rows that are marked; ``{}`` in the message stands for the value."""
    if not is_bad.any():
        return None
    template = f"{code}:{message}:{found.name} --"
    told = pl.format(template, text) if "{}" in message else pl.lit(template)
    return pl.select(pl.when(is_bad).then(told)).to_series()


def _first(errors: pl.Series | None, more: pl.Series | None) -> pl.Series:
    """The earlier error of each row, else the later one."""
    if errors is None or more is None:
        found = errors if more is None else more
        if found is None:
            raise ValueError("no list of errors at all")
        return found
    return pl.select(pl.coalesce(errors, more)).to_series()
