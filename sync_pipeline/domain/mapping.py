"""The field table: which source column goes into which target field, and what a null means.

The mapping is a TOML file so that another object or another field is an edit, not code. ``TargetObject`` is what the
org's describe call says of the other side; ``Mapping.check_target`` holds the two against each other before a night,
``types.py`` the mapping against the source.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from sync_pipeline.domain.errors import MappingError

API_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,254}\Z")
"""Names of objects and fields on both sides; anything else is refused, so that names are safe in SQL and CSV headers."""

Choice = TypeVar("Choice", bound=StrEnum)


class FieldType(StrEnum):
    """How a value is read from the source and written to the target."""

    TEXT = "text"
    NUMBER = "number"
    DATE = "date"
    DATETIME = "datetime"
    BOOLEAN = "boolean"
    REFERENCE = "reference"


class NullPolicy(StrEnum):
    """What a null in the source does to the target field."""

    CLEAR = "clear"
    KEEP = "keep"


TARGET_TYPES: AnyMapping[FieldType, frozenset[str]] = {
    FieldType.TEXT: frozenset("string textarea picklist multipicklist phone email url combobox id".split()),
    FieldType.NUMBER: frozenset("double currency percent int long".split()),
    FieldType.DATE: frozenset({"date"}),
    FieldType.DATETIME: frozenset({"datetime"}),
    FieldType.BOOLEAN: frozenset({"boolean"}),
    FieldType.REFERENCE: frozenset({"reference", "id"}),
}
"""Types that describe may name for a target field of each kind."""

KEY_TEXTS: frozenset[str] = frozenset({"string", "email"})
KEY_NUMBERS: frozenset[str] = frozenset({"double", "int", "long"})
"""Types of a key by which rows can be matched: an external id is a text, an email address or a number.

"External ID" of custom field attributes: https://help.salesforce.com/s/articleView?id=platform.custom_field_attributes.htm&type=5
"""

RECORD_ID = "Id"
ENCRYPTED = "encryptedstring"


@dataclass(frozen=True, slots=True)
class TargetField:
    """One field as ``/sobjects/X/describe`` names it. ``length`` is in characters, 0 where it does not apply."""

    name: str
    label: str
    type: str
    length: int = 0
    precision: int = 0
    scale: int = 0
    digits: int = 0
    nillable: bool = True
    createable: bool = True
    updateable: bool = True
    defaulted_on_create: bool = False
    external_id: bool = False
    id_lookup: bool = False
    unique: bool = False
    case_sensitive: bool = False
    auto_number: bool = False
    calculated: bool = False
    """A formula; the org works its value out."""
    rich_text: bool = False
    """The value is markup, which the org cleans and writes anew on save."""
    picklist: tuple[str, ...] | None = None
    """The field's list of values as the org spells them, active or not; ``None`` for a field without one."""

    @property
    def is_number(self) -> bool:
        """A key of this field is a number, however it is written."""
        return self.type in KEY_NUMBERS


@dataclass(frozen=True, slots=True)
class TargetObject:
    """The target object as the org describes it; ``fields`` by API name."""

    name: str
    key_prefix: str
    fields: AnyMapping[str, TargetField]

    def field(self, name: str) -> TargetField | None:
        """The field of that API name, whatever its letter case."""
        found = self.fields.get(name)
        if found is None:
            found = next((f for n, f in self.fields.items() if n.lower() == name.lower()), None)
        return found


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """One row of the field table."""

    source: str
    target: str
    type: FieldType
    null: NullPolicy = NullPolicy.CLEAR
    required: bool = False


@dataclass(frozen=True, slots=True)
class Mapping:
    """Source object to target object, field by field."""

    source_object: str
    source_key: str
    target_object: str
    target_key: str
    fields: tuple[FieldMapping, ...]
    tie_breaker: str | None = None
    group_by: str | None = None

    @property
    def source_columns(self) -> tuple[str, ...]:
        """Columns that a page of the source holds, in order: the key, the fields, the tie-breaker if it is not one."""
        columns = [self.source_key, *(f.source for f in self.fields)]
        if self.tie_breaker is not None:
            columns.append(self.tie_breaker)
        return tuple(dict.fromkeys(columns))

    @property
    def target_columns(self) -> tuple[str, ...]:
        """Header of the upload: the key, then the fields."""
        return (self.target_key, *(f.target for f in self.fields))

    @property
    def digest(self) -> str:
        """16 hex digits that change with any change of meaning; a night belongs to one digest."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def check_target(self, target: TargetObject) -> None:
        """Raises ``MappingError`` when the target cannot take what the mapping sends, naming every reason."""
        problems = [*self._key_problems(target), *self._key_refusals(target)]
        for mapped in self.fields:
            problems += self._field_problems(mapped, target) or self._field_refusals(mapped, target)
        sent = {name.lower() for name in self.target_columns}
        for field in target.fields.values():
            is_needed = field.createable and not field.nillable and not field.defaulted_on_create
            if is_needed and field.type != "boolean" and field.name.lower() not in sent:
                problems.append(f"'{field.name}' is required on create, but the mapping does not fill it")
        self._refuse(problems)

    def check_comparable(self, target: TargetObject) -> None:
        """Raises ``MappingError`` when rows of the target cannot be matched or compared with the source's, naming every
        reason: the part of ``check_target`` that holds for whoever only reads."""
        problems = self._key_problems(target)
        for mapped in self.fields:
            problems += self._field_problems(mapped, target)
        self._refuse(problems)

    def _refuse(self, problems: Sequence[str]) -> None:
        if problems:
            raise MappingError(
                f"The mapping does not fit '{self.target_object}': {'; '.join(problems)}.",
                hint="Correct the mapping (SYNC_MAPPING) or the field's rights in the org.",
            )

    def _key_problems(self, target: TargetObject) -> list[str]:
        """Why rows cannot be matched by the target key."""
        name, key = self.target_key, target.field(self.target_key)
        if name.lower() == RECORD_ID.lower():
            return [f"'{name}' cannot be the key: the org gives record ids itself, so that no new row can have one"]
        if key is None:
            return [self._absent(name)]
        if not (key.external_id or key.id_lookup):
            return [f"'{name}' is not marked External ID, so rows cannot be matched by it"]
        if key.type not in KEY_TEXTS | KEY_NUMBERS:
            return [f"'{name}' is of type {key.type}; a key must be a text, an email address or a number"]
        return []

    def _key_refusals(self, target: TargetObject) -> list[str]:
        """Why the org would not take the key of a new row. Nobody asks whether it may be updated: an upsert finds a row by
        its key, and so never gives it another one."""
        key = target.field(self.target_key)
        if key is None or self._key_problems(target):
            return []
        if made := _made_by_org(key):
            return [f"'{self.target_key}' {made}"]
        return [] if key.createable else [f"'{self.target_key}' cannot be set on create by this user"]

    def _field_problems(self, mapped: FieldMapping, target: TargetObject) -> list[str]:
        """Why a field cannot be compared with its source column."""
        name, field = mapped.target, target.field(mapped.target)
        if field is None:
            return [self._absent(name)]
        if field.type == ENCRYPTED:
            return [f"'{name}' is encrypted: the org hands it out masked, so that it cannot be compared"]
        if field.type not in TARGET_TYPES[mapped.type]:
            return [f"'{name}' is of type {field.type}, which the mapping's {mapped.type} cannot fill"]
        if field.rich_text:
            return [f"'{name}' is rich text: the org rewrites its markup on save, so that it cannot be compared"]
        return []

    def _field_refusals(self, mapped: FieldMapping, target: TargetObject) -> list[str]:
        """Why the org would not take the values of a field."""
        name, field = mapped.target, target.field(mapped.target)
        if field is None:
            return []
        if made := _made_by_org(field):
            return [f"'{name}' {made}"]
        return [] if field.createable and field.updateable else [f"'{name}' is read-only for this user"]

    def _absent(self, name: str) -> str:
        return f"'{self.target_object}' has no field '{name}' (or the user may not see it)"


def _made_by_org(field: TargetField) -> str:
    """What fills the field in the org itself; empty when nothing does.

    "Field" of DescribeSObjectResult: https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_describesobjects_describesobjectresult.htm
    """
    if field.auto_number:
        return "is an auto-number, which the org fills itself"
    return "is a formula, which the org fills itself" if field.calculated else ""


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def load_mapping(path: Path) -> Mapping:
    """The mapping in the TOML file at ``path``; raises ``MappingError`` with the reason and the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MappingError(
            f"The mapping {path} cannot be read: {error}.", hint="Set SYNC_MAPPING to a TOML file."
        ) from None
    try:
        return parse_mapping(text)
    except MappingError as error:
        raise MappingError(f"{path}: {error.message}", hint=error.hint) from None


def parse_mapping(text: str) -> Mapping:
    """The mapping written in TOML; raises ``MappingError`` for anything that is unknown, missing or contradictory."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MappingError(f"not valid TOML: {error}.") from None
    _only(document, {"source", "target", "field"}, where="the file")
    source, target = _table(document, "source"), _table(document, "target")
    _only(source, {"object", "key", "tie_breaker"}, where="[source]")
    _only(target, {"object", "key", "group_by"}, where="[target]")
    rows = document.get("field")
    if not isinstance(rows, list) or not rows:
        raise MappingError("there is no [[field]] table.", hint="Add at least one.")
    fields = tuple(_field(row, number) for number, row in enumerate(rows, start=1))
    mapping = Mapping(
        source_object=_name(source, "object", where="[source]"),
        source_key=_name(source, "key", where="[source]"),
        target_object=_name(target, "object", where="[target]"),
        target_key=_name(target, "key", where="[target]"),
        fields=fields,
        tie_breaker=_name(source, "tie_breaker", where="[source]") if "tie_breaker" in source else None,
        group_by=_name(target, "group_by", where="[target]") if "group_by" in target else None,
    )
    written: dict[str, list[str]] = {}
    for name in mapping.target_columns:
        written.setdefault(name.lower(), []).append(name)
    if doubled := [names[0] for names in written.values() if len(names) > 1]:
        told = f"field {_quoted(doubled)} is" if len(doubled) == 1 else f"fields {_quoted(doubled)} are"
        raise MappingError(f"the target {told} filled twice.")
    if mapping.group_by is not None and mapping.group_by not in {f.target for f in fields}:
        raise MappingError(f"group_by names '{mapping.group_by}', which no [[field]] fills.")
    return mapping


def _field(row: Any, number: int) -> FieldMapping:
    where = f"[[field]] number {number}"
    if not isinstance(row, dict):
        raise MappingError(f"{where} is not a table.")
    _only(row, {"source", "target", "type", "null", "required"}, where=where)
    required = row.get("required", False)
    if not isinstance(required, bool):
        raise MappingError(f"{where}: required is {required!r}.", hint="Write true or false.")
    return FieldMapping(
        source=_name(row, "source", where=where),
        target=_name(row, "target", where=where),
        type=_choice(FieldType, row.get("type"), f"{where}: type"),
        null=_choice(NullPolicy, row.get("null", "clear"), f"{where}: null"),
        required=required,
    )


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    table = document.get(name)
    if not isinstance(table, dict):
        raise MappingError(f"there is no [{name}] table.")
    return table


def _only(table: dict[str, Any], known: set[str], *, where: str) -> None:
    if unknown := sorted(set(table) - known):
        raise MappingError(
            f"{where} has unknown entries: {', '.join(unknown)}.", hint=f"Known: {', '.join(sorted(known))}."
        )


def _name(table: dict[str, Any], entry: str, *, where: str) -> str:
    value = table.get(entry)
    if not isinstance(value, str) or not API_NAME.match(value):
        raise MappingError(
            f"{where}: {entry} is {value!r}.", hint="It must be an API name: letters, digits, underscores."
        )
    return value


def _choice(kind: type[Choice], value: Any, where: str) -> Choice:
    try:
        return kind(value)
    except ValueError:
        raise MappingError(f"{where} is {value!r}.", hint=f"Known: {', '.join(kind)}.") from None
