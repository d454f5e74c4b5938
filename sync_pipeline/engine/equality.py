"""When a value in the org equals the value that was sent, by Salesforce's own notion of equality.

The org gives values back in other spellings than it got them: a number as Java writes a double (``1.2345678E7``), an id
with 18 characters for one with 15, a text without the blanks at its ends, empty text as null. Both sides are brought
into one canonical form here; equal canonical forms are equal values, and nothing else is.

Spelling of query results: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/query_get_job_results.htm
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

import polars as pl

from sync_pipeline.domain.mapping import FieldMapping, FieldType, Mapping, NullPolicy, TargetObject
from sync_pipeline.engine.values import BLANKS

ID_LENGTH: Final = 15
"""Characters of a record id that tell records apart; three more only protect its letter case."""
MASKED: Final = frozenset({"encryptedstring"})
"""Types that the org hands out masked, so that they cannot be compared."""
SETS: Final = frozenset({"multipicklist"})
"""Types whose text is a set of values in an order of the org's own."""
INSTANT_FORMAT: Final = "%Y-%m-%dT%H:%M:%S%.f%#z"

TRIMMED: Final = "".join(
    map(chr, [*range(0x21), 0x7F, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000])
)
"""Blanks and control characters. Which of them the org drops at both ends of a text is not documented, so none counts."""
UNREADABLE_DATE: Final = date(1, 1, 1)
UNREADABLE_INSTANT: Final = datetime(1, 1, 1, tzinfo=UTC)
"""Stand for what the org gave as no date: equal to no value that can be staged."""

KEY_SEED: Final = 1
VALUE_SEED: Final = 2


def folds_case(mapping: Mapping, target: TargetObject) -> bool:
    """Whether the target takes keys that differ in letter case for one and the same.

    It does so for a unique external id that is not declared case-sensitive:
    https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_upsert.htm
    """
    key = target.field(mapping.target_key)
    return key is not None and key.unique and not key.case_sensitive


@dataclass(frozen=True)
class Equality:
    """Equality for one mapping and target. Staged frames are typed (columns ``key`` and target fields), frames from the
    org are text under the same names; both go through the same functions."""

    mapping: Mapping
    target: TargetObject

    @property
    def fields(self) -> tuple[FieldMapping, ...]:
        """The mapped fields that can be compared."""
        return tuple(f for f in self.mapping.fields if self._described_type(f) not in MASKED)

    @property
    def kept(self) -> tuple[FieldMapping, ...]:
        """Those of which a staged null says nothing about the org, because the mapping keeps what is there."""
        return tuple(f for f in self.fields if f.null is NullPolicy.KEEP)

    def matched(self, keys: pl.Series) -> pl.Series:
        """The keys as the target matches them."""
        trimmed = keys.str.strip_chars(BLANKS)
        return trimmed.str.to_lowercase() if folds_case(self.mapping, self.target) else trimmed

    def canonical(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The comparable fields in the form in which equal values are equal; a column for each, by target field."""
        return pl.DataFrame([self.canonical_values(frame[f.target], f) for f in self.fields])

    def hashed(self, frame: pl.DataFrame, *, is_present: bool, with_values: bool) -> pl.DataFrame:
        """``key``, ``matched`` and the digests of each row, for a ``Comparison``; ``digest_0``, … belong to ``kept``.

        ``is_present``: the rows are the org's. Hashes are comparable within one process only. Without values every digest
        is 0.
        """
        keys = frame["key"]
        columns = [keys, self.matched(keys).hash(KEY_SEED).alias("matched")]
        if not with_values:
            return pl.DataFrame([*columns, pl.repeat(0, frame.height, dtype=pl.UInt64, eager=True).alias("digest")])
        canonical = self.canonical(frame)
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
        left = self.canonical(staged).with_columns(matched=self.matched(staged["key"])).with_row_index("staged_row")
        right = self.canonical(present).with_columns(matched=self.matched(present["key"])).with_row_index("present_row")
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

    def _described_type(self, mapped: FieldMapping) -> str:
        described = self.target.field(mapped.target)
        return described.type if described is not None else ""

    def canonical_values(self, values: pl.Series, mapped: FieldMapping) -> pl.Series:
        """Values of one field, typed or as text, in the form in which equal ones are equal."""
        match mapped.type:
            case FieldType.NUMBER:
                return self._number(values, mapped)
            case FieldType.DATE:
                return _date(values)
            case FieldType.DATETIME:
                return _instant(values)
            case FieldType.BOOLEAN:
                # A checkbox knows no null: cleared is unchecked.
                truth = values if values.dtype == pl.Boolean else values.str.to_lowercase() == "true"
                return truth.fill_null(False)
            case FieldType.REFERENCE:
                return values.str.head(ID_LENGTH)
            case FieldType.TEXT:
                text = _text(values)
                return _as_sets(text) if self._described_type(mapped) in SETS else text

    def _number(self, values: pl.Series, mapped: FieldMapping) -> pl.Series:
        """As doubles, because that is all the org hands out, at the field's scale."""
        described = self.target.field(mapped.target)
        doubles = values.cast(pl.Float64, strict=False)
        if doubles.null_count() != values.null_count():
            doubles = doubles.set(doubles.is_null() & values.is_not_null() & (values.cast(pl.String) != ""), math.nan)
        return doubles.round(described.scale if described is not None else 0)


DIFFERENCES: Final = pl.Schema({"key": pl.String, "column": pl.String, "staged": pl.String, "present": pl.String})


def _text(values: pl.Series) -> pl.Series:
    text = values.str.strip_chars(TRIMMED)
    if text.str.contains("\r", literal=True).any():
        text = text.str.replace_all("\r\n", "\n", literal=True).str.replace_all("\r", "\n", literal=True)
    return text.set(text == "", None) if (text == "").any() else text


def _as_sets(text: pl.Series) -> pl.Series:
    return text.str.split(";").list.unique().list.sort().list.join(";")


def _date(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Date:
        return values
    dates = values.str.to_date("%Y-%m-%d", strict=False, cache=False)
    if dates.null_count() == values.null_count():  # nothing is blank or unreadable
        return dates
    text = _text(values)
    dates = text.str.to_date("%Y-%m-%d", strict=False)
    if dates.null_count() != text.null_count():
        dates = dates.set(dates.is_null() & text.is_not_null(), UNREADABLE_DATE)
    return dates


def _instant(values: pl.Series) -> pl.Series:
    """In whole seconds: Salesforce keeps no fractions of them."""
    if values.dtype != pl.String:
        return values.cast(pl.Datetime("ms", "UTC")).dt.truncate("1s")
    text = _text(values)
    instants = text.str.to_datetime(INSTANT_FORMAT, time_unit="ms", time_zone="UTC", strict=False)
    if instants.null_count() != text.null_count():
        instants = instants.set(instants.is_null() & text.is_not_null(), UNREADABLE_INSTANT)
    return instants.dt.truncate("1s")
