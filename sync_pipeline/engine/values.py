"""Values as the target can hold them, and the rules by which a row is quarantined instead.

Rows come from the source as text, column by column, exactly as the source wrote them. ``convert`` trims, types and
checks them; it never invents, rounds or shortens a value. What the target cannot hold faithfully is named with its rule
and column, and the org keeps what it had.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec
import polars as pl

from sync_pipeline.domain.errors import MappingError
from sync_pipeline.domain.mapping import FieldMapping, FieldType, Mapping, TargetField, TargetObject

BLANKS: Final = " \t\n\r"
"""What Salesforce drops at both ends of a text on save."""
NULL_LITERAL: Final = "#N/A"
"""Bulk API's word for "set this field to null": the text itself can therefore not be stored."""
NUMBER_LENGTH: Final = 38
FRACTION_KEPT: Final = 18
"""Digits behind the point up to which a number is compared with itself at the field's scale."""
DATE_FIRST, DATE_LAST = 1700, 4000
"""Years that a Salesforce date field accepts."""

NULL_KEY: Final = "NULL_KEY"
BLANK_KEY: Final = "BLANK_KEY"
TOO_LONG: Final = "TOO_LONG"
TOO_PRECISE: Final = "TOO_PRECISE"
TOO_LARGE: Final = "TOO_LARGE"
UNREADABLE: Final = "UNREADABLE"
IMPOSSIBLE_DATE: Final = "IMPOSSIBLE_DATE"
RESERVED_TEXT: Final = "RESERVED_TEXT"
REQUIRED_NULL: Final = "REQUIRED_NULL"

SENTENCES: Final = {
    NULL_KEY: "the key is null",
    BLANK_KEY: "the key is blank",
    TOO_LONG: "the text is longer than the field",
    TOO_PRECISE: "the number has more decimals than the field",
    TOO_LARGE: "the number has more digits than the field",
    UNREADABLE: "the value is not of the field's type",
    IMPOSSIBLE_DATE: "the date does not exist or lies outside of the years 1700 to 4000",
    RESERVED_TEXT: "the text #N/A cannot be sent: Bulk API takes it for null",
    REQUIRED_NULL: "the field is required, but the source has no value",
}
"""What each rule says to a person."""

REJECTIONS: Final = pl.Schema(
    {
        "index": pl.UInt32,
        "outcome": pl.String,
        "code": pl.String,
        "message": pl.String,
        "column": pl.String,
        "set_aside": pl.Boolean,
        "source": pl.String,
    }
)


@dataclass(frozen=True, slots=True)
class Converted:
    """``frame``: ``key`` and the target fields, typed, a row for each source row. ``rejections``: see ``REJECTIONS``."""

    frame: pl.DataFrame
    rejections: pl.DataFrame


def staged_schema(mapping: Mapping, target: TargetObject) -> dict[str, pl.DataType]:
    """Polars type of each staged field, by target field name."""
    return {mapped.target: _dtype(mapped, _described(mapped, target)) for mapped in mapping.fields}


def convert(frame: pl.DataFrame, mapping: Mapping, target: TargetObject) -> Converted:
    """Types and checks one page of source rows (all columns text, named as in the source)."""
    columns: list[pl.Series] = []
    broken: list[tuple[str, str, pl.Series]] = []  # rule, source column, mask; the first rule of a row is reported

    key_text = frame[mapping.source_key]
    key = key_text.str.strip_chars(BLANKS)
    described_key = target.field(mapping.target_key)
    if described_key is None:
        raise MappingError(
            f"{target.name} has no field {mapping.target_key}.", hint="Correct the mapping (SYNC_MAPPING)."
        )
    broken.append((NULL_KEY, mapping.source_key, key.is_null()))
    broken.append((BLANK_KEY, mapping.source_key, key == ""))
    broken.append((RESERVED_TEXT, mapping.source_key, key == NULL_LITERAL))
    broken.append((TOO_LONG, mapping.source_key, _is_longer(key, described_key.length)))
    columns.append(key.alias("key"))

    for mapped in mapping.fields:
        described = _described(mapped, target)
        text = _cleaned(frame[mapped.source])
        typed, breaches = _typed(text, mapped, described)
        if mapped.required:
            breaches.append((REQUIRED_NULL, text.is_null()))
        columns.append(typed.alias(mapped.target))
        broken.extend((rule, mapped.source, mask) for rule, mask in breaches)

    return Converted(frame=pl.DataFrame(columns), rejections=_rejections(frame, broken))


def reject(
    frame: pl.DataFrame, index: Iterable[int], *, code: str, message: str, column: str, set_aside: bool
) -> pl.DataFrame:
    """Rejections of the rows of a source page at these positions, all for one reason."""
    positions = pl.Series("index", list(index), dtype=pl.UInt32)
    return pl.DataFrame(
        {
            "index": positions,
            "outcome": pl.repeat("quarantined", len(positions), eager=True),
            "code": pl.repeat(code, len(positions), eager=True),
            "message": pl.repeat(message, len(positions), eager=True),
            "column": pl.repeat(column, len(positions), eager=True),
            "set_aside": pl.repeat(set_aside, len(positions), eager=True, dtype=pl.Boolean),
            "source": _as_json(frame[positions]),
        },
        schema=REJECTIONS,
    )


def _described(mapped: FieldMapping, target: TargetObject) -> TargetField:
    described = target.field(mapped.target)
    if described is None:
        raise MappingError(f"{target.name} has no field {mapped.target}.", hint="Correct the mapping (SYNC_MAPPING).")
    return described


def _dtype(mapped: FieldMapping, described: TargetField) -> pl.DataType:
    match mapped.type:
        case FieldType.NUMBER:
            return pl.Decimal(NUMBER_LENGTH, described.scale)
        case FieldType.DATE:
            return pl.Date()
        case FieldType.DATETIME:
            return pl.Datetime("ms", "UTC")
        case FieldType.BOOLEAN:
            return pl.Boolean()
        case _:
            return pl.String()


def _cleaned(text: pl.Series) -> pl.Series:
    """Trimmed as Salesforce trims, empty as null, line ends as LF: Bulk jobs with LF refuse others."""
    text = text.str.strip_chars(BLANKS)
    if text.str.contains("\r", literal=True).any():
        text = text.str.replace_all("\r\n", "\n", literal=True).str.replace_all("\r", "\n", literal=True)
    return text.set(text == "", None) if (text == "").any() else text


def _typed(
    text: pl.Series, mapped: FieldMapping, described: TargetField
) -> tuple[pl.Series, list[tuple[str, pl.Series]]]:
    match mapped.type:
        case FieldType.TEXT:
            return text, [(RESERVED_TEXT, text == NULL_LITERAL), (TOO_LONG, _is_longer(text, described.length))]
        case FieldType.REFERENCE:
            is_id = text.str.contains(r"^(?:[A-Za-z0-9]{15}|[A-Za-z0-9]{18})$")
            return text, [(UNREADABLE, ~is_id)]
        case FieldType.NUMBER:
            return _number(text, described)
        case FieldType.DATE:
            return _date(text)
        case FieldType.DATETIME:
            instant = _instant(text)
            return instant, [(UNREADABLE, instant.is_null() & text.is_not_null())]
        case FieldType.BOOLEAN:
            word = text.str.to_lowercase()
            truth = word.replace_strict(
                {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False},
                default=None,
                return_dtype=pl.Boolean,
            )
            return truth, [(UNREADABLE, truth.is_null() & text.is_not_null())]


def _number(text: pl.Series, described: TargetField) -> tuple[pl.Series, list[tuple[str, pl.Series]]]:
    """A number at the field's scale; what does not fit is told apart: no number, too many digits, too many decimals."""
    whole = described.digits if described.type in ("int", "long") and described.digits else 0
    whole = whole or max((described.precision or 18) - described.scale, 1)
    at_scale = text.cast(pl.Decimal(NUMBER_LENGTH, described.scale), strict=False)
    plain = text.str.contains(rf"^[+-]?\d{{1,{whole}}}(?:\.\d{{0,{described.scale}}})?$")
    if plain.all():  # ignores nulls: every number is written in a form that the field holds as it is
        return at_scale, []
    is_number = text.str.contains(r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?$")
    exact = text.cast(pl.Decimal(NUMBER_LENGTH, FRACTION_KEPT), strict=False)
    too_large = exact.is_null() | at_scale.is_null() | (exact.abs() >= 10**whole)
    too_fine = at_scale.cast(pl.Decimal(NUMBER_LENGTH, FRACTION_KEPT), strict=False) != exact
    beyond = text.str.contains(rf"\.\d{{{FRACTION_KEPT}}}\d*[1-9]")
    return at_scale, [
        (UNREADABLE, text.is_not_null() & ~is_number),
        (TOO_LARGE, text.is_not_null() & too_large),
        (TOO_PRECISE, too_fine | beyond),
    ]


def _date(text: pl.Series) -> tuple[pl.Series, list[tuple[str, pl.Series]]]:
    date = text.str.to_date("%Y-%m-%d", strict=False)
    year = date.dt.year()
    fits = (text.str.len_bytes() == len("2024-01-02")) & year.is_between(DATE_FIRST, DATE_LAST)
    if date.null_count() == text.null_count() and fits.all():
        return date, []
    is_iso = text.str.contains(r"^\d{4}-\d{2}-\d{2}$")
    return date, [
        (UNREADABLE, ~is_iso),
        (IMPOSSIBLE_DATE, text.is_not_null() & ~fits.fill_null(False)),
    ]


def _instant(text: pl.Series) -> pl.Series:
    """An instant in UTC from ISO text; without an offset the source means UTC."""
    spelled = text.str.replace(" ", "T", literal=True).str.replace(r"(?:Z|\+00(?::?00)?)$", "")
    naive = spelled.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    instant = naive.dt.replace_time_zone("UTC")
    has_offset = instant.is_null() & spelled.is_not_null()
    if has_offset.any():
        padded = spelled.str.replace(r"([+-]\d{2})$", "${1}:00")
        other = padded.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", time_zone="UTC", strict=False)
        instant = instant.zip_with(~has_offset, other)
    return instant.cast(pl.Datetime("ms", "UTC"))


def _is_longer(text: pl.Series, length: int) -> pl.Series:
    """Longer than ``length`` characters as Java counts them (UTF-16 units): never fewer than the org counts."""
    if length == 0:
        return pl.repeat(False, len(text), eager=True, dtype=pl.Boolean)
    in_bytes = text.str.len_bytes()
    if not (in_bytes > length).any():  # a text has at least as many bytes as UTF-16 units
        return pl.repeat(False, len(text), eager=True, dtype=pl.Boolean)
    units = text.str.len_chars() + text.str.count_matches(r"[\x{10000}-\x{10FFFF}]")
    return units > length


def _rejections(frame: pl.DataFrame, broken: list[tuple[str, str, pl.Series]]) -> pl.DataFrame:
    found = []
    for rule, column, mask in broken:
        positions = mask.fill_null(False).arg_true()
        if len(positions):
            found.append(reject(frame, positions, code=rule, message=SENTENCES[rule], column=column, set_aside=False))
    if not found:
        return pl.DataFrame(schema=REJECTIONS)
    return pl.concat(found).unique(subset="index", keep="first", maintain_order=True)


def _as_json(rows: pl.DataFrame) -> pl.Series:
    """Each source row as one JSON object, for the list of rejects."""
    return pl.Series([msgspec.json.encode(row).decode() for row in rows.iter_rows(named=True)], dtype=pl.String)
