"""What an SQL type may fill: the whole table, and one reason for every pair that is not in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sync_pipeline.domain.errors import MappingError
from sync_pipeline.domain.mapping import FieldMapping, FieldType, Mapping, TargetField, TargetObject
from sync_pipeline.domain.types import Form, SqlType, check_mapping, check_source, source_columns, sql_type

NAME = FieldMapping("Name__c", "Name", FieldType.TEXT)
ACCOUNT = FieldMapping("Account__c", "AccountId", FieldType.REFERENCE)
MAPPING = Mapping("Src__dlm", "Id__c", "Opportunity", "External_ID__c", (NAME, ACCOUNT), group_by="AccountId")
TEXTS = {"Id__c": "Varchar", "Name__c": "Varchar", "Account__c": "Varchar"}

SPELLINGS = {
    SqlType.TEXT: ("Varchar", "varchar", "VARCHAR(255)", "text", "character varying(20)"),
    SqlType.CHAR: ("Char", "char(4)", "bpchar"),
    SqlType.BOOLEAN: ("Bool", "bool", "boolean"),
    SqlType.INTEGER: ("SmallInt", "Integer", "BigInt", "bigint", "int4"),
    SqlType.NUMERIC: ("Numeric", "numeric(38, 18)", "Numeric(18,2)", "decimal"),
    SqlType.DOUBLE: ("Double", "Float", "float8", "float4", "double precision", "real"),
    SqlType.DATE: ("Date", "date", "DATE"),
    SqlType.TIME: ("Time", "time"),
    SqlType.TIMESTAMP: ("Timestamp", "timestamp", "timestamp without time zone", "timestamp(6) without time zone"),
    SqlType.TIMESTAMPTZ: ("TimestampTZ", "timestamptz", "TIMESTAMP WITH TIME ZONE"),
}

A, P, D, M, X = Form.AS_WRITTEN, Form.PLAIN, Form.DAY, Form.MIDNIGHT, Form.APPROXIMATE
TABLE: dict[str, tuple[Form | None, ...]] = {
    # in the order of SPELLINGS:
    #            text char  bool  int  numeric double date time  stamp stamptz
    "text":      (A,   A,    A,    A,    P,    None,  A,   None, None, None),
    "number":    (A,   A,    None, A,    A,    X,     None, None, None, None),
    "date":      (A,   A,    None, None, None, None,  A,   None, D,    D),
    "datetime":  (A,   A,    None, None, None, None,  M,   None, A,    A),
    "boolean":   (A,   A,    A,    A,    P,    None,  None, None, None, None),
    "reference": (A,   A,    None, None, None, None,  None, None, None, None),
    "key":       (A,   A,    None, A,    P,    None,  None, None, None, None),
    "tie-breaker": (A, A,    A,    A,    A,    None,  A,   A,    A,    A),
    "group_by":  (A,   A,    None, A,    P,    None,  None, None, None, None),
}  # fmt: skip
PAIRS = [
    (use, kind, spelling, form)
    for use, forms in TABLE.items()
    for kind, form in zip(SPELLINGS, forms, strict=True)
    for spelling in SPELLINGS[kind]
]


def mapping_for(use: str) -> Mapping:
    """Maps the column ``X__c`` to that use and to nothing else."""
    if use == "key":
        return replace(MAPPING, source_key="X__c")
    if use == "tie-breaker":
        return replace(MAPPING, tie_breaker="X__c")
    kind = FieldType.TEXT if use == "group_by" else FieldType(use)
    fields = (*MAPPING.fields, FieldMapping("X__c", "X__c", kind))
    return replace(MAPPING, fields=fields, group_by="X__c" if use == "group_by" else None)


def test_the_table_names_every_use_and_every_type() -> None:
    assert set(TABLE) == {*FieldType, "key", "tie-breaker", "group_by"}
    assert set(SPELLINGS) == set(SqlType)


@pytest.mark.parametrize(("use", "kind", "spelling", "form"), PAIRS)
def test_a_pair_is_read_in_its_form_or_refused_by_name(
    use: str, kind: SqlType, spelling: str, form: Form | None
) -> None:
    mapping, columns = mapping_for(use), {**TEXTS, "X__c": spelling}

    if form is not None:
        column = source_columns(mapping, columns)["X__c"]
        assert (column.type, column.form) == (kind, form)
        return
    with pytest.raises(MappingError) as refusal:
        check_source(mapping, columns)
    assert f"'X__c' is of SQL type {kind}, which " in refusal.value.message
    assert refusal.value.exit_code == 2
    assert "SYNC_MAPPING" in refusal.value.hint


@pytest.mark.parametrize(
    "unknown", ["ArrayOfVarchar", "Unspecified", "oid", "bytea", "interval", "geography", "varchars"]
)
def test_an_unknown_type_is_refused_by_its_name(unknown: str) -> None:
    assert sql_type(unknown) is None
    with pytest.raises(MappingError, match=f"'Name__c' is of SQL type '{unknown}', which is not known here"):
        check_source(MAPPING, {**TEXTS, "Name__c": unknown})


def test_a_type_that_is_not_named_is_not_guessed_at() -> None:
    with pytest.raises(MappingError, match="'Name__c' is of a type that Data Cloud does not name"):
        check_source(MAPPING, {**TEXTS, "Name__c": ""})


def test_columns_that_are_not_mapped_may_be_of_any_type() -> None:
    check_source(MAPPING, {**TEXTS, "Other__c": "ArrayOfVarchar"})


def test_columns_are_found_whatever_their_letter_case() -> None:
    check_source(MAPPING, {"ID__C": "VARCHAR", "Name__c": "varchar", "account__c": "Varchar"})


def test_every_missing_column_is_named_with_those_that_are_there() -> None:
    with pytest.raises(MappingError) as refusal:
        check_source(MAPPING, {"Id__c": "Varchar", "Nom__c": "Varchar"})

    assert "it has no column 'Name__c', 'Account__c'" in refusal.value.message
    assert "Nom__c" in refusal.value.hint


def test_a_tie_breaker_must_be_a_column_too() -> None:
    with pytest.raises(MappingError, match="'Changed__c'"):
        check_source(replace(MAPPING, tie_breaker="Changed__c"), TEXTS)


def test_all_reasons_of_one_column_and_of_all_are_named_at_once() -> None:
    mapping = replace(
        MAPPING, source_key="X__c", tie_breaker="X__c", fields=(FieldMapping("X__c", "At", FieldType.DATE), NAME)
    )

    with pytest.raises(MappingError) as refusal:
        check_source(mapping, {"X__c": "Double", "Other__c": "Varchar"})

    assert refusal.value.message == (
        "The mapping does not fit 'Src__dlm': it has no column 'Name__c'; "
        "'X__c' is of SQL type double, which has no single text form, so that it cannot be the key; "
        "'X__c' is of SQL type double, which cannot fill 'At' as date; "
        "'X__c' is of SQL type double, which has no order that decides, so that it cannot be the tie-breaker."
    )


@pytest.mark.parametrize(
    ("spelling", "first", "second", "form"),
    [
        ("Numeric", FieldType.TEXT, FieldType.NUMBER, P),
        ("Numeric", FieldType.NUMBER, FieldType.NUMBER, A),
        ("Varchar", FieldType.DATE, FieldType.DATETIME, A),
        ("TimestampTZ", FieldType.DATE, FieldType.DATETIME, None),
        ("Timestamp", FieldType.DATE, FieldType.DATETIME, None),
        ("Date", FieldType.DATE, FieldType.DATETIME, None),
        ("Date", FieldType.TEXT, FieldType.DATE, A),
    ],
)
def test_one_column_for_two_fields_has_one_form_or_is_refused(
    spelling: str, first: FieldType, second: FieldType, form: Form | None
) -> None:
    fields = (FieldMapping("X__c", "One", first), FieldMapping("X__c", "Two", second))
    mapping = replace(MAPPING, fields=fields, group_by=None)

    if form is not None:
        assert source_columns(mapping, {**TEXTS, "X__c": spelling})["X__c"].form is form
        return
    with pytest.raises(MappingError, match=f"has no one form for 'One' as {first} and 'Two' as {second}"):
        check_source(mapping, {**TEXTS, "X__c": spelling})


def test_the_reasons_of_both_sides_are_told_at_once() -> None:
    key = TargetField("External_ID__c", "Key", "string", length=255, external_id=True, id_lookup=True, unique=True)
    target = TargetObject("Opportunity", "006", {"External_ID__c": key, "Name": TargetField("Name", "Name", "string")})

    with pytest.raises(MappingError) as refusal:
        check_mapping(MAPPING, {**TEXTS, "Name__c": "Time"}, target)

    assert "AccountId" in refusal.value.message
    assert "'Name__c' is of SQL type time, which cannot fill 'Name' as text" in refusal.value.message
    assert refusal.value.exit_code == 2
