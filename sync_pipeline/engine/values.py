"""Values as the target can hold them, and the rules by which a row is quarantined instead.

Rows come from the source as text, column by column, exactly as the source wrote them. ``convert`` trims, types and
checks them; it never invents, rounds or shortens a value. What the target cannot hold faithfully is named with its rule
and column, and the org keeps what it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import polars as pl

from sync_pipeline.domain.errors import MappingError
from sync_pipeline.domain.mapping import FieldMapping, FieldType, Mapping, TargetField, TargetObject
from sync_pipeline.domain.types import APPROXIMATE_DIGITS, MORE_DIGITS

BLANKS: Final = " \t\n\r"
"""What Salesforce drops at both ends of a text on save."""
NULL_LITERAL: Final = "#N/A"
"""Bulk API's word for "set this field to null": the text itself can therefore not be stored."""
NUMBER_LENGTH: Final = 38
FRACTION_KEPT: Final = 18
"""Digits behind the point up to which a number is compared with itself at the field's scale."""
DATE_FIRST, DATE_LAST = 1700, 4000
"""Years that a date or dateTime field accepts:
https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/primitive_data_types.htm"""
KEY_DIGITS: Final = 15
"""Digits of a number up to which the org, which keeps doubles, tells every two numbers apart."""

# In a pattern ``\d`` would be the digits of every script; the org reads those of ASCII.
ISO_DATE: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
ISO_INSTANT: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)?$"
)
SECOND_60: Final = ":60(?:[^0-9]|$)"
"""A leap second, which Polars reads as the first second of the next minute."""
PLAIN_NUMBER: Final = r"^(?:0|-?[1-9][0-9]*|-?(?:0|[1-9][0-9]*)\.[0-9]*[1-9])$"
"""The one way to write a number without an exponent, a plus sign and zeros that say nothing."""

NULL_KEY: Final = "NULL_KEY"
ODD_KEY: Final = "ODD_KEY"
INEXACT_KEY: Final = "INEXACT_KEY"
BLANK_KEY: Final = "BLANK_KEY"
TOO_LONG: Final = "TOO_LONG"
TOO_PRECISE: Final = "TOO_PRECISE"
TOO_LARGE: Final = "TOO_LARGE"
UNREADABLE: Final = "UNREADABLE"
IMPOSSIBLE_DATE: Final = "IMPOSSIBLE_DATE"
TIME_OF_DAY: Final = "TIME_OF_DAY"
INEXACT: Final = "INEXACT"
RESERVED_TEXT: Final = "RESERVED_TEXT"
REQUIRED_NULL: Final = "REQUIRED_NULL"

SENTENCES: Final = {
    NULL_KEY: "the key is null",
    BLANK_KEY: "the key is blank",
    INEXACT_KEY: "the key has more than 15 digits, of which the org does not tell every two numbers apart",
    ODD_KEY: "the key is no number in plain form, so that the org would match it with another spelling",
    TOO_LONG: "the text is longer than the field",
    TOO_PRECISE: "the number has more decimals than the field",
    TOO_LARGE: "the number has more digits than the field",
    INEXACT: "the source is a double of more than 15 digits, of which Data Cloud writes no more; a numeric has them all",
    UNREADABLE: "the value is not of the field's type",
    TIME_OF_DAY: "the value has a time of day other than midnight UTC, which a date field cannot keep",
    IMPOSSIBLE_DATE: "the date or time does not exist or lies outside of the years 1700 to 4000",
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


@dataclass(frozen=True, slots=True)
class _Checks:
    """The rules for one column, as expressions over the frame of all texts and typed values.

    ``suspect`` is cheap, and true at least wherever a rule is broken: ``breaches`` (rule and where it is broken) are only
    looked at when it is true somewhere. The first rule that a row breaks is reported.
    """

    source: str
    suspect: pl.Expr
    breaches: Sequence[tuple[str, pl.Expr]]


def convert(frame: pl.DataFrame, mapping: Mapping, target: TargetObject) -> Converted:
    """Types and checks one page of source rows (all columns text, named as in the source).

    All columns go through a few queries together, because each query costs something whatever its rows.
    """
    described_key = target.field(mapping.target_key)
    if described_key is None:
        raise MappingError(
            f"{target.name} has no field {mapping.target_key}.", hint="Correct the mapping (SYNC_MAPPING)."
        )
    described = {f: _described(f, target) for f in mapping.fields}
    texts = _cleaned(frame, described)
    key = frame.select(key=pl.col(mapping.source_key).str.strip_chars(BLANKS))
    typed = texts.select(_typed(texts, f, d).alias(f.target) for f, d in described.items())
    held = pl.concat([key, texts, typed], how="horizontal")
    checks = [_key_checks(mapping, described_key), *(_checks(f, d) for f, d in described.items())]
    suspected = held.select(c.suspect.any().alias(str(place)) for place, c in enumerate(checks)).row(0)
    rejections = _rejections(frame, held, [c for c, is_suspect in zip(checks, suspected, strict=True) if is_suspect])
    return Converted(frame=pl.concat([key, typed], how="horizontal"), rejections=rejections)


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
            return _decimal(described)
        case FieldType.DATE:
            return pl.Date()
        case FieldType.DATETIME:
            return pl.Datetime("ms", "UTC")
        case FieldType.BOOLEAN:
            return pl.Boolean()
        case _:
            return pl.String()


def _decimal(described: TargetField) -> pl.DataType:
    return pl.Decimal(NUMBER_LENGTH, described.scale)


def _text(mapped: FieldMapping) -> str:
    """The name of a field's cleaned text, beside its typed value."""
    return f"text of {mapped.target}"


def _cleaned(frame: pl.DataFrame, fields: dict[FieldMapping, TargetField]) -> pl.DataFrame:
    """The texts trimmed as Salesforce trims, empty as null, line ends as LF: Bulk jobs with LF refuse others. A double
    keeps its mark only where the digits that it lacks would be digits of the field."""
    texts = frame.select(pl.col(f.source).str.strip_chars(BLANKS).alias(_text(f)) for f in fields)
    lines = [_text(f) for f in fields if f.type is FieldType.TEXT]
    numbers = {_text(f): d.scale for f, d in fields.items() if f.type is FieldType.NUMBER}
    has = texts.select(
        (pl.all() == "").any().name.prefix("empty "),
        pl.col(lines).str.contains("\r", literal=True).any().name.prefix("returns "),
        pl.col(list(numbers)).str.ends_with(MORE_DIGITS).any().name.prefix("marks "),
    ).row(0, named=True)
    mended = []
    for name in texts.columns:
        text = pl.col(name)
        if has.get(f"returns {name}"):
            text = text.str.replace_all("\r\n", "\n", literal=True).str.replace_all("\r", "\n", literal=True)
        if has.get(f"marks {name}"):
            digits = text.str.strip_suffix(MORE_DIGITS)
            has_all = digits.cast(pl.Float64, strict=False).abs() < 10.0 ** (APPROXIMATE_DIGITS - numbers[name])
            text = pl.when(has_all).then(digits).otherwise(text)
        mended.append(pl.when(text != "").then(text).alias(name) if has[f"empty {name}"] else text)
    return texts.select(mended)


def _typed(texts: pl.DataFrame, mapped: FieldMapping, described: TargetField) -> pl.Expr | pl.Series:
    """The values of a field in its type; null where the text is not of that type."""
    text = pl.col(_text(mapped))
    match mapped.type:
        case FieldType.TEXT | FieldType.REFERENCE:
            return text
        case FieldType.NUMBER:
            return text.cast(_decimal(described), strict=False)
        case FieldType.DATE:
            return text.str.to_date("%Y-%m-%d", strict=False)
        case FieldType.DATETIME:
            return _instant(texts[_text(mapped)])
        case FieldType.BOOLEAN:
            return text.str.to_lowercase().replace_strict(
                {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False},
                default=None,
                return_dtype=pl.Boolean,
            )


def _key_checks(mapping: Mapping, described: TargetField) -> _Checks:
    key = pl.col("key")
    missing = key.is_null() | (key == "") | (key == NULL_LITERAL)
    breaches = [(NULL_KEY, key.is_null()), (BLANK_KEY, key == ""), (RESERVED_TEXT, key == NULL_LITERAL)]
    if described.is_number:
        # Other spellings of one number would be other keys here, and one key there.
        is_plain = key.str.contains(PLAIN_NUMBER)
        digits = key.str.replace_all("[^0-9]", "").str.strip_chars_start("0").str.len_bytes()
        _, of_numbers = _number_checks(key, key.cast(_decimal(described), strict=False), described)
        breaches += [*of_numbers, (INEXACT_KEY, digits > KEY_DIGITS), (ODD_KEY, ~is_plain)]
        return _Checks(mapping.source_key, missing | pl.any_horizontal(broken for _, broken in breaches), breaches)
    breaches.append((TOO_LONG, _is_longer(key, described.length)))
    return _Checks(mapping.source_key, missing | _may_be_longer(key, described.length), breaches)


def _checks(mapped: FieldMapping, described: TargetField) -> _Checks:
    text, typed = pl.col(_text(mapped)), pl.col(mapped.target)
    match mapped.type:
        case FieldType.TEXT:
            suspect = (text == NULL_LITERAL) | _may_be_longer(text, described.length)
            breaches = [(RESERVED_TEXT, text == NULL_LITERAL), (TOO_LONG, _is_longer(text, described.length))]
        case FieldType.REFERENCE:
            suspect = ~text.str.contains(r"^(?:[A-Za-z0-9]{15}|[A-Za-z0-9]{18})$")
            breaches = [(UNREADABLE, suspect)]
        case FieldType.NUMBER:
            suspect, breaches = _number_checks(text, typed, described)
        case FieldType.DATE:
            suspect, breaches = _date_checks(text, typed)
        case FieldType.DATETIME:
            suspect, breaches = _instant_checks(text, typed)
        case FieldType.BOOLEAN:
            suspect = typed.is_null() & text.is_not_null()
            breaches = [(UNREADABLE, suspect)]
    if mapped.required:
        suspect = suspect | text.is_null()
        breaches = [*breaches, (REQUIRED_NULL, text.is_null())]
    return _Checks(mapped.source, suspect, breaches)


def _number_checks(
    text: pl.Expr, at_scale: pl.Expr, described: TargetField
) -> tuple[pl.Expr, list[tuple[str, pl.Expr]]]:
    """What does not fit is told apart: no number, too many digits, too many decimals."""
    whole = described.digits if described.type in ("int", "long") and described.digits else 0
    whole = whole or max((described.precision or 18) - described.scale, 1)
    # Written in a form that the field holds as it is.
    is_plain = text.str.contains(rf"^[+-]?[0-9]{{1,{whole}}}(?:\.[0-9]{{0,{described.scale}}})?$")
    is_number = text.str.contains(r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?$")
    exact = text.cast(pl.Decimal(NUMBER_LENGTH, FRACTION_KEPT), strict=False)
    too_large = exact.is_null() | at_scale.is_null() | (exact.abs() >= 10**whole)
    too_fine = at_scale.cast(pl.Decimal(NUMBER_LENGTH, FRACTION_KEPT), strict=False) != exact
    beyond = text.str.contains(rf"\.[0-9]{{{FRACTION_KEPT}}}[0-9]*[1-9]")
    return ~is_plain, [
        (INEXACT, text.str.ends_with(MORE_DIGITS)),
        (UNREADABLE, text.is_not_null() & ~is_number),
        (TOO_LARGE, text.is_not_null() & too_large),
        (TOO_PRECISE, too_fine | beyond),
    ]


def _date_checks(text: pl.Expr, date: pl.Expr) -> tuple[pl.Expr, list[tuple[str, pl.Expr]]]:
    is_iso = text.str.contains(ISO_DATE)
    fits = is_iso & date.dt.year().is_between(DATE_FIRST, DATE_LAST)
    does_not_fit = text.is_not_null() & ~fits.fill_null(False)
    is_instant = text.str.contains(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}")
    is_midnight = text.str.contains(r"[ T]00:00(?::00(?:\.0*)?)?(?:Z|\+00(?::?00)?)?$")
    return does_not_fit, [
        (TIME_OF_DAY, is_instant & ~is_midnight),
        (UNREADABLE, ~is_iso),
        (IMPOSSIBLE_DATE, does_not_fit),
    ]


def _instant_checks(text: pl.Expr, instant: pl.Expr) -> tuple[pl.Expr, list[tuple[str, pl.Expr]]]:
    """The year is that of UTC, which is what the org is sent."""
    is_iso = text.str.contains(ISO_INSTANT)
    fits = is_iso & ~text.str.contains(SECOND_60) & instant.dt.year().is_between(DATE_FIRST, DATE_LAST)
    does_not_fit = text.is_not_null() & ~fits.fill_null(False)
    return does_not_fit, [(UNREADABLE, ~is_iso), (IMPOSSIBLE_DATE, does_not_fit)]


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


def _is_longer(text: pl.Expr, length: int) -> pl.Expr:
    """Longer than ``length`` characters as Java counts them (UTF-16 units): never fewer than the org counts."""
    units = text.str.len_chars() + text.str.count_matches(r"[\x{10000}-\x{10FFFF}]")
    return units > length if length else pl.lit(False)


def _may_be_longer(text: pl.Expr, length: int) -> pl.Expr:
    """A text has at least as many bytes as UTF-16 units."""
    return text.str.len_bytes() > length if length else pl.lit(False)


def _rejections(frame: pl.DataFrame, held: pl.DataFrame, suspects: Sequence[_Checks]) -> pl.DataFrame:
    found = []
    for checks in suspects:
        for rule, breach in checks.breaches:
            positions = held.select(breach.fill_null(False).arg_true()).to_series()
            if len(positions):
                found.append(
                    reject(frame, positions, code=rule, message=SENTENCES[rule], column=checks.source, set_aside=False)
                )
    if not found:
        return pl.DataFrame(schema=REJECTIONS)
    return pl.concat(found).unique(subset="index", keep="first", maintain_order=True)


def _as_json(rows: pl.DataFrame) -> pl.Series:
    """Each source row as one JSON object, for the list of rejects."""
    return pl.Series([msgspec.json.encode(row).decode() for row in rows.iter_rows(named=True)], dtype=pl.String)
