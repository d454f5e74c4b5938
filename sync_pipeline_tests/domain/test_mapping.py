"""The field table: what it says, and one clear sentence for everything that is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.domain.errors import MappingError
from sync_pipeline.domain.mapping import (
    FieldMapping,
    FieldType,
    Mapping,
    NullPolicy,
    TargetField,
    TargetObject,
    load_mapping,
    parse_mapping,
)
from sync_pipeline.settings import PACKAGED_MAPPING

SOUND = """
[source]
object = "Src__dlm"
key = "Id__c"

[target]
object = "Opportunity"
key = "External_ID__c"
group_by = "AccountId"

[[field]]
source = "Name__c"
target = "Name"
type = "text"
required = true

[[field]]
source = "Account__c"
target = "AccountId"
type = "reference"
null = "keep"
"""

KEY = TargetField("External_ID__c", "External ID", "string", length=255, external_id=True, id_lookup=True, unique=True)
NAME = TargetField("Name", "Name", "string", length=120, nillable=False)
ACCOUNT = TargetField("AccountId", "Account", "reference", length=18)
OWNER = TargetField("OwnerId", "Owner", "reference", nillable=False, defaulted_on_create=True)


def opportunity(*fields: TargetField) -> TargetObject:
    return TargetObject(name="Opportunity", key_prefix="006", fields={field.name: field for field in fields})


# laws

names = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}", fullmatch=True)


@st.composite
def mappings(draw: st.DrawFn) -> Mapping:
    targets = draw(st.lists(names, min_size=2, max_size=6, unique_by=str.lower))
    fields = tuple(
        FieldMapping(
            source=draw(names),
            target=target,
            type=draw(st.sampled_from(FieldType)),
            null=draw(st.sampled_from(NullPolicy)),
            required=draw(st.booleans()),
        )
        for target in targets[1:]
    )
    return Mapping(
        source_object=draw(names),
        source_key=draw(names),
        target_object=draw(names),
        target_key=targets[0],
        fields=fields,
        tie_breaker=draw(st.none() | names),
        group_by=draw(st.none() | st.sampled_from(targets[1:])),
    )


def written(mapping: Mapping) -> str:
    lines = ["[source]", f'object = "{mapping.source_object}"', f'key = "{mapping.source_key}"']
    if mapping.tie_breaker is not None:
        lines.append(f'tie_breaker = "{mapping.tie_breaker}"')
    lines += ["[target]", f'object = "{mapping.target_object}"', f'key = "{mapping.target_key}"']
    if mapping.group_by is not None:
        lines.append(f'group_by = "{mapping.group_by}"')
    for field in mapping.fields:
        lines += ["[[field]]", f'source = "{field.source}"', f'target = "{field.target}"', f'type = "{field.type}"']
        lines += [f'null = "{field.null}"', f"required = {str(field.required).lower()}"]
    return "\n".join(lines)


@given(mappings())
def test_a_mapping_is_read_as_it_was_written(mapping: Mapping) -> None:
    assert parse_mapping(written(mapping)) == mapping


@given(mappings())
def test_a_page_holds_the_key_first_and_every_column_once(mapping: Mapping) -> None:
    columns = mapping.source_columns

    assert columns[0] == mapping.source_key
    assert len(set(columns)) == len(columns)
    assert set(columns) == {mapping.source_key, *(f.source for f in mapping.fields)} | (
        {mapping.tie_breaker} if mapping.tie_breaker is not None else set()
    )


@given(mappings(), mappings())
def test_two_mappings_share_a_digest_just_when_they_mean_the_same(one: Mapping, other: Mapping) -> None:
    assert (one.digest == other.digest) == (one == other)


# the packaged mapping


def test_the_packaged_mapping_is_the_one_of_the_readme() -> None:
    mapping = load_mapping(PACKAGED_MAPPING)

    assert (mapping.source_object, mapping.source_key) == ("ExtOpportunities__dlm", "ExternalId__c")
    assert (mapping.target_object, mapping.target_key, mapping.group_by) == (
        "Opportunity",
        "External_ID__c",
        "AccountId",
    )
    assert [(f.source, f.target) for f in mapping.fields] == [
        ("Name__c", "Name"),
        ("StageName__c", "StageName"),
        ("Amount__c", "Amount"),
        ("CloseDate__c", "CloseDate"),
        ("Account__c", "AccountId"),
    ]
    assert mapping.target_columns == ("External_ID__c", "Name", "StageName", "Amount", "CloseDate", "AccountId")


def test_a_null_clears_the_target_unless_the_mapping_says_otherwise() -> None:
    name, account = parse_mapping(SOUND).fields

    assert (name.null, name.required) == (NullPolicy.CLEAR, True)
    assert (account.null, account.required) == (NullPolicy.KEEP, False)


# what can be wrong


@pytest.mark.parametrize(
    ("wrong", "instead_of", "told"),
    [
        ("[source", "[source]", "not valid TOML"),
        ("", '[source]\nobject = "Src__dlm"\nkey = "Id__c"', "there is no [source] table"),
        (
            "",
            '[target]\nobject = "Opportunity"\nkey = "External_ID__c"\ngroup_by = "AccountId"',
            "there is no [target]",
        ),
        ('object = "drop table"', 'object = "Src__dlm"', "[source]: object is 'drop table'"),
        ('object = "Src__dlm;"', 'object = "Src__dlm"', "[source]: object is 'Src__dlm;'"),
        ("object = 7", 'object = "Src__dlm"', "[source]: object is 7"),
        ("", 'key = "Id__c"', "[source]: key is None"),
        ('keys = "Id__c"', 'key = "Id__c"', "[source] has unknown entries: keys"),
        ('parent = "AccountId"', 'group_by = "AccountId"', "[target] has unknown entries: parent"),
        ('group_by = "OwnerId"', 'group_by = "AccountId"', "group_by names 'OwnerId', which no [[field]] fills"),
        ('type = "money"', 'type = "text"', "[[field]] number 1: type is 'money'"),
        ('type = ""', 'type = "text"', "[[field]] number 1: type is ''"),
        ('null = "ignore"', 'null = "keep"', "[[field]] number 2: null is 'ignore'"),
        ('required = "yes"', "required = true", "[[field]] number 1: required is 'yes'"),
        ("required = 1", "required = true", "[[field]] number 1: required is 1"),
        ('target = "name"', 'target = "AccountId"', "the target field 'Name' is filled twice"),
        ('target = "External_ID__c"', 'target = "Name"', "the target field 'External_ID__c' is filled twice"),
        ('name = "Name__c"', 'source = "Name__c"', "[[field]] number 1 has unknown entries: name"),
    ],
)
def test_everything_wrong_with_a_mapping_is_told_in_a_sentence(wrong: str, instead_of: str, told: str) -> None:
    assert instead_of in SOUND

    with pytest.raises(MappingError) as refusal:
        parse_mapping(SOUND.replace(instead_of, wrong, 1))

    assert told in refusal.value.message
    assert refusal.value.message.endswith(".")
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "there is no [source] table"),
        ("source = 1", "there is no [source] table"),
        (SOUND + "\n[[fields]]\n", "the file has unknown entries: fields"),
        (SOUND.partition("[[field]]")[0], "there is no [[field]] table"),
        ("field = []\n" + SOUND.partition("[[field]]")[0], "there is no [[field]] table"),
        ("field = [1]\n" + SOUND.partition("[[field]]")[0], "[[field]] number 1 is not a table"),
    ],
)
def test_a_file_that_lacks_a_table_says_which(text: str, told: str) -> None:
    with pytest.raises(MappingError) as refusal:
        parse_mapping(text)

    assert told in refusal.value.message


def test_a_mapping_that_cannot_be_read_names_its_file(tmp_path: Path) -> None:
    missing, binary, wrong = tmp_path / "missing.toml", tmp_path / "binary.toml", tmp_path / "wrong.toml"
    binary.write_bytes(b"\xff\xfe")
    wrong.write_text("[source]", encoding="utf-8")

    for file in (missing, binary, wrong):
        with pytest.raises(MappingError) as refusal:
            load_mapping(file)
        assert str(file) in refusal.value.message


# held against the target


def test_a_target_that_takes_every_field_is_accepted() -> None:
    parse_mapping(SOUND).check_target(opportunity(KEY, NAME, ACCOUNT, OWNER))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ((NAME, ACCOUNT), "'Opportunity' has no field 'External_ID__c'"),
        (
            (replace(KEY, external_id=False, id_lookup=False), NAME, ACCOUNT),
            "'External_ID__c' is not marked External ID",
        ),
        ((replace(KEY, createable=False), NAME, ACCOUNT), "'External_ID__c' cannot be set on create by this user"),
        ((replace(KEY, auto_number=True, createable=False), NAME, ACCOUNT), "'External_ID__c' is an auto-number"),
        ((replace(KEY, calculated=True, createable=False), NAME, ACCOUNT), "'External_ID__c' is a formula"),
        ((replace(KEY, type="picklist"), NAME, ACCOUNT), "'External_ID__c' is of type picklist; a key must be"),
        ((replace(KEY, type="datetime"), NAME, ACCOUNT), "'External_ID__c' is of type datetime; a key must be"),
        ((KEY, NAME), "'Opportunity' has no field 'AccountId'"),
        ((KEY, replace(NAME, updateable=False), ACCOUNT), "'Name' is read-only for this user"),
        ((KEY, replace(NAME, createable=False), ACCOUNT), "'Name' is read-only for this user"),
        ((KEY, replace(NAME, auto_number=True, createable=False), ACCOUNT), "'Name' is an auto-number"),
        ((KEY, replace(NAME, calculated=True), ACCOUNT), "'Name' is a formula"),
        ((KEY, replace(NAME, type="textarea", rich_text=True), ACCOUNT), "'Name' is rich text"),
        ((KEY, replace(NAME, type="encryptedstring"), ACCOUNT), "'Name' is encrypted"),
        (
            (KEY, replace(NAME, type="double"), ACCOUNT),
            "'Name' is of type double, which the mapping's text cannot fill",
        ),
        ((KEY, NAME, ACCOUNT, replace(OWNER, defaulted_on_create=False)), "'OwnerId' is required on create"),
    ],
)
def test_a_target_that_cannot_take_the_mapping_says_why(fields: tuple[TargetField, ...], told: str) -> None:
    with pytest.raises(MappingError) as refusal:
        parse_mapping(SOUND).check_target(opportunity(*fields))

    assert told in refusal.value.message
    assert refusal.value.hint
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize("kind", ["string", "email", "double", "int", "long"])
def test_a_key_is_a_text_or_a_number_and_need_not_be_updateable(kind: str) -> None:
    parse_mapping(SOUND).check_target(opportunity(replace(KEY, type=kind, updateable=False), NAME, ACCOUNT))


@pytest.mark.parametrize("name", ["Id", "id", "ID"])
def test_the_record_id_is_no_key_whoever_asks(name: str) -> None:
    mapping = parse_mapping(SOUND.replace("External_ID__c", name))
    record_id = TargetField("Id", "Record ID", "id", length=18, id_lookup=True, createable=False, updateable=False)

    for check in (mapping.check_target, mapping.check_comparable):
        with pytest.raises(MappingError, match=f"'{name}' cannot be the key: the org gives record ids itself"):
            check(opportunity(record_id, NAME, ACCOUNT))


def test_whoever_only_reads_needs_no_right_to_write() -> None:
    target = opportunity(
        replace(KEY, createable=False),
        replace(NAME, updateable=False),
        ACCOUNT,
        replace(OWNER, defaulted_on_create=False),
    )

    parse_mapping(SOUND).check_comparable(target)


@pytest.mark.parametrize(
    "fields",
    [
        (NAME, ACCOUNT),
        (replace(KEY, type="boolean"), NAME, ACCOUNT),
        (KEY, ACCOUNT),
        (KEY, replace(NAME, type="encryptedstring"), ACCOUNT),
        (KEY, replace(NAME, type="textarea", rich_text=True), ACCOUNT),
        (KEY, replace(NAME, type="date"), ACCOUNT),
    ],
)
def test_what_cannot_be_compared_is_refused_to_whoever_reads(fields: tuple[TargetField, ...]) -> None:
    with pytest.raises(MappingError):
        parse_mapping(SOUND).check_comparable(opportunity(*fields))


def test_all_reasons_are_named_at_once() -> None:
    with pytest.raises(MappingError) as refusal:
        parse_mapping(SOUND).check_target(opportunity(replace(NAME, updateable=False)))

    assert all(name in refusal.value.message for name in ("External_ID__c", "Name", "AccountId"))


def test_a_required_checkbox_is_no_reason_because_it_always_has_a_value() -> None:
    checkbox = TargetField("IsPrivate", "Private", "boolean", nillable=False)

    parse_mapping(SOUND).check_target(opportunity(KEY, NAME, ACCOUNT, checkbox))


def test_target_fields_are_found_whatever_their_letter_case() -> None:
    assert opportunity(NAME).field("nAmE") is NAME
    assert opportunity(NAME).field("Nam") is None
