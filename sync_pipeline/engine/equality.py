"""When a value in the org equals the value that was sent, by Salesforce's own notion of equality.

The org gives values back in other spellings than it got them: a number as Java writes a double (``1.2345678E7``), an id
with 18 characters for one with 15, a text without the blanks at its ends, empty text as null, a picklist's value as the
list spells it. Both sides are brought into one canonical form here; equal canonical forms are equal values, and nothing
else is. What cannot be read equals nothing, not even what cannot be read either.

The described type decides ("Field Types", https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/field_types.htm):

- picklist: letter case does not count. A value that the list has in another letter case takes the list's spelling; one
  that is in no list makes a new entry of it, unless one is there already, and "this check is case-insensitive"
  (https://help.salesforce.com/s/articleView?id=000386557&type=1: of ``TEST`` and ``Test`` the later one becomes the first).
- multipicklist: a set of such values between semicolons, in an order of the org's own; a blank behind a semicolon is the
  page's spelling, so blanks round a value do not count.
- combobox: a text that may be in the list or not, "defined as a string value". Only a value of the list may come back in
  the list's spelling; of any other letter case counts.
- email: letter case does not count. The page says nothing of it; administrators report that the org stores addresses in
  lower case (https://salesforce.stackexchange.com/questions/246995).
- url and phone: as they were sent. "Client applications are responsible" for their form; the format of a phone number is a
  habit of the user interface alone (https://help.salesforce.com/s/articleView?id=000385963&type=1).
- dateTime: "a precision of one second"
  (https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/primitive_data_types.htm).
- rich text and encrypted text cannot be compared faithfully, and are refused (``Mapping.check_comparable``).

Spelling of query results: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/query_get_job_results.htm
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

import polars as pl

from sync_pipeline.domain.keys import plain_number
from sync_pipeline.domain.mapping import FieldMapping, FieldType, Mapping, NullPolicy, TargetField, TargetObject
from sync_pipeline.engine.values import BLANKS, DATE_FIRST, DATE_LAST, SECOND_60

ID_LENGTH: Final = 15
"""Characters of a record id that tell records apart; three more only protect its letter case."""
BETWEEN_CHOICES: Final = ";"
INSTANT_FORMAT: Final = "%Y-%m-%dT%H:%M:%S%.f%#z"

TRIMMED: Final = "".join(
    map(chr, [*range(0x21), 0x7F, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000])
)
"""Blanks and control characters. Which of them the org drops at both ends of a text is not documented, so none counts."""
UNREADABLE_DATES: Final = (date(1, 1, 1), date(1, 1, 2))
UNREADABLE_INSTANTS: Final = (datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 2, tzinfo=UTC))
UNREADABLE_NUMBERS: Final = (math.inf, math.nan)
UNREADABLE_TRUTHS: Final = (2, 3)
"""Stand for what is no value of the field's type, on our side and on the org's: equal to no value, nor to each other."""
TRUTHS: Final = {"true": 1, "false": 0}

KEY_SEED: Final = 1
VALUE_SEED: Final = 2


def folds_case(mapping: Mapping, target: TargetObject) -> bool:
    """Whether the target takes keys that differ in letter case for one and the same.

    It does so for a unique external id that is not declared case-sensitive, and for an email address, which it keeps in
    lower case whatever describe says of it:
    https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_upsert.htm
    """
    key = target.field(mapping.target_key)
    return key is not None and (key.type == "email" or (key.unique and not key.case_sensitive)) and not key.is_number


@dataclass(frozen=True)
class Equality:
    """Equality for one mapping and target. Staged frames are typed (columns ``key`` and target fields), frames from the
    org are text under the same names; both go through the same functions."""

    mapping: Mapping
    target: TargetObject

    @property
    def fields(self) -> tuple[FieldMapping, ...]:
        """The mapped fields, all of which are compared."""
        return self.mapping.fields

    @property
    def kept(self) -> tuple[FieldMapping, ...]:
        """Those of which a staged null says nothing about the org, because the mapping keeps what is there."""
        return tuple(f for f in self.fields if f.null is NullPolicy.KEEP)

    @property
    def has_number_key(self) -> bool:
        """Whether keys are numbers, which the org writes as Java writes a double."""
        key = self.target.field(self.mapping.target_key)
        return key is not None and key.is_number

    def matched(self, keys: pl.Series) -> pl.Series:
        """The keys as the target matches them, whoever wrote them: a text for each."""
        trimmed = keys.str.strip_chars(BLANKS)
        if self.has_number_key:
            return self._matched_numbers(trimmed)
        return trimmed.str.to_lowercase() if self.folds_case else trimmed

    def _matched_numbers(self, texts: pl.Series) -> pl.Series:
        """One text for all spellings of a number; what is none stays as it is, and so is no number's text."""
        described = self.target.field(self.mapping.target_key)
        numbers = texts.cast(pl.Float64, strict=False).round(described.scale if described is not None else 0)
        numbers = numbers.set((numbers == 0).fill_null(value=False), 0.0)  # zero has one sign here
        return numbers.cast(pl.String).zip_with(numbers.is_finite().fill_null(value=False), texts)

    @property
    def folds_case(self) -> bool:
        return folds_case(self.mapping, self.target)

    def as_source(self, keys: Iterable[str]) -> list[str]:
        """The org's keys as the source writes them: numbers in plain form, because others are not sent; texts as they
        are, though the source may write them in another letter case and with blanks."""
        return [plain_number(key) or key for key in keys] if self.has_number_key else list(keys)

    def canonical(self, frame: pl.DataFrame, *, is_present: bool) -> pl.DataFrame:
        """The fields in the form in which equal values are equal; a column for each, by target field."""
        return pl.DataFrame([self.canonical_values(frame[f.target], f, is_present=is_present) for f in self.fields])

    def hashed(self, frame: pl.DataFrame, *, is_present: bool, with_values: bool) -> pl.DataFrame:
        """``key``, ``matched`` and the digests of each row, for a ``Comparison``; ``digest_0``, … belong to ``kept``.

        ``is_present``: the rows are the org's. Hashes are comparable within one process only. Without values every digest
        is 0.
        """
        keys = frame["key"]
        columns = [keys, self.matched(keys).hash(KEY_SEED).alias("matched")]
        if not with_values:
            return pl.DataFrame([*columns, pl.repeat(0, frame.height, dtype=pl.UInt64, eager=True).alias("digest")])
        canonical = self.canonical(frame, is_present=is_present)
        always = canonical.drop(f.target for f in self.kept)
        columns.append(
            always.hash_rows(VALUE_SEED).alias("digest")
            if always.width
            else pl.repeat(0, frame.height, dtype=pl.UInt64, eager=True).alias("digest")
        )
        for number, mapped in enumerate(self.kept):
            digest = canonical[mapped.target].hash(VALUE_SEED).alias(f"digest_{number}")
            columns.append(digest if is_present else digest.set(frame[mapped.target].is_null(), None))
        return pl.DataFrame(columns)

    def differences(self, staged: pl.DataFrame, present: pl.DataFrame) -> pl.DataFrame:
        """Values that differ between rows of one key: ``key`` (as staged), ``column``, ``staged`` and ``present`` as text.

        Rows of only one side are left out.
        """
        left = (
            self.canonical(staged, is_present=False)
            .with_columns(matched=self.matched(staged["key"]))
            .with_row_index("staged_row")
        )
        right = (
            self.canonical(present, is_present=True)
            .with_columns(matched=self.matched(present["key"]))
            .with_row_index("present_row")
        )
        pairs = left.join(right, on="matched", how="inner", suffix="_present", maintain_order="left")
        found = [pl.DataFrame(schema=DIFFERENCES)]
        for mapped in self.fields:
            name = mapped.target
            differs = pairs[name].ne_missing(pairs[f"{name}_present"])
            if mapped.null is NullPolicy.KEEP:
                differs &= staged[name].is_not_null().gather(pairs["staged_row"])
            unequal = pairs.filter(differs)
            found.append(
                pl.DataFrame(
                    {
                        "key": staged["key"].gather(unequal["staged_row"]),
                        "column": pl.repeat(name, unequal.height, dtype=pl.String, eager=True),
                        "staged": staged[name].cast(pl.String).gather(unequal["staged_row"]),
                        "present": present[name].cast(pl.String).gather(unequal["present_row"]),
                    }
                )
            )
        return pl.concat(found)

    def canonical_values(self, values: pl.Series, mapped: FieldMapping, *, is_present: bool) -> pl.Series:
        """Values of one field, typed or as text, in the form in which equal ones are equal. ``is_present``: the org's."""
        described = self.target.field(mapped.target)
        match mapped.type:
            case FieldType.NUMBER:
                scale = described.scale if described is not None else 0
                return _number(values, scale, unreadable=UNREADABLE_NUMBERS[is_present])
            case FieldType.DATE:
                return _date(values, unreadable=UNREADABLE_DATES[is_present])
            case FieldType.DATETIME:
                return _instant(values, unreadable=UNREADABLE_INSTANTS[is_present])
            case FieldType.BOOLEAN:
                return _truth(values, unreadable=UNREADABLE_TRUTHS[is_present])
            case FieldType.REFERENCE:
                return values.str.head(ID_LENGTH)
            case FieldType.TEXT:
                return _as_described(_text(values), described)


DIFFERENCES: Final = pl.Schema({"key": pl.String, "column": pl.String, "staged": pl.String, "present": pl.String})


def _text(values: pl.Series) -> pl.Series:
    text = values.str.strip_chars(TRIMMED)
    if text.str.contains("\r", literal=True).any():
        text = text.str.replace_all("\r\n", "\n", literal=True).str.replace_all("\r", "\n", literal=True)
    return text.set(text == "", None) if (text == "").any() else text


def _as_described(text: pl.Series, described: TargetField | None) -> pl.Series:
    """A text as its type has it: see the head of this file."""
    match described.type if described is not None else "":
        case "picklist":
            return _as_listed(text, described, folds_others=True)
        case "multipicklist":
            choices = text.str.to_lowercase().str.split(BETWEEN_CHOICES)
            choices = choices.list.eval(pl.element().str.strip_chars(TRIMMED))
            sets = choices.list.eval(pl.element().filter(pl.element() != "")).list.unique().list.sort()
            joined = sets.list.join(BETWEEN_CHOICES)
            return joined.set((joined == "").fill_null(value=False), None)
        case "combobox":
            return _as_listed(text, described, folds_others=False)
        case "email":
            return text.str.to_lowercase()
        case _:
            return text


def _as_listed(text: pl.Series, described: TargetField | None, *, folds_others: bool) -> pl.Series:
    """A value of the list as the list spells it; of any other letter case goes, or stays."""
    picklist = described.picklist or () if described is not None else ()
    if set(text.unique()) <= {None, *picklist}:  # nearly always: each value is spelled as in the list
        return text
    listed = pl.Series(picklist, dtype=pl.String)
    is_odd = ~text.is_in(listed.implode()).fill_null(value=True)
    odd = text.filter(is_odd)
    folded = odd.str.to_lowercase()
    spelled = folded.replace_strict(listed.str.to_lowercase(), listed, default=folded if folds_others else odd)
    return text.scatter(is_odd.arg_true(), spelled)


def _number(values: pl.Series, scale: int, *, unreadable: float) -> pl.Series:
    """As doubles, because that is all the org hands out, at the field's scale."""
    doubles = values.cast(pl.Float64, strict=False)
    if values.dtype == pl.String and (
        doubles.null_count() != values.null_count() or not doubles.is_finite().all(ignore_nulls=True)
    ):
        is_odd = (doubles.is_null() & (values != "")) | ~doubles.is_finite()
        doubles = doubles.set(is_odd.fill_null(value=False), unreadable)
    return doubles.round(scale)


def _truth(values: pl.Series, *, unreadable: int) -> pl.Series:
    """1 for checked and 0 for unchecked. A checkbox knows no null: cleared is unchecked."""
    if values.dtype == pl.Boolean:
        return values.cast(pl.UInt8).fill_null(0)
    text = _text(values).str.to_lowercase().fill_null("false")
    return text.replace_strict(TRUTHS, default=unreadable, return_dtype=pl.UInt8)


def _date(values: pl.Series, *, unreadable: date) -> pl.Series:
    if values.dtype == pl.Date:
        return values
    dates = values.str.to_date("%Y-%m-%d", strict=False, cache=False)
    if dates.null_count() == values.null_count() and _are_in_years(dates):  # nothing is blank or unreadable
        return dates
    text = _text(values)
    dates = text.str.to_date("%Y-%m-%d", strict=False)
    return dates.set(~_is_in_years(dates) & text.is_not_null(), unreadable)


def _instant(values: pl.Series, *, unreadable: datetime) -> pl.Series:
    """In whole seconds: Salesforce keeps no fractions of them."""
    if values.dtype != pl.String:
        return values.cast(pl.Datetime("ms", "UTC")).dt.truncate("1s")
    text = _text(values)
    instants = text.str.to_datetime(INSTANT_FORMAT, time_unit="ms", time_zone="UTC", strict=False)
    is_odd = ~_is_in_years(instants) | text.str.contains(SECOND_60).fill_null(value=False)
    return instants.set(is_odd & text.is_not_null(), unreadable).dt.truncate("1s")


def _are_in_years(values: pl.Series) -> bool:
    first, last = values.min(), values.max()
    if not isinstance(first, date) or not isinstance(last, date):
        return True  # there is none
    return first.year >= DATE_FIRST and last.year <= DATE_LAST


def _is_in_years(values: pl.Series) -> pl.Series:
    """Whether it is a date or an instant of the years that the org keeps; false for what is neither."""
    return values.dt.year().is_between(DATE_FIRST, DATE_LAST).fill_null(value=False)
