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
    FieldType.TEXT: frozenset(
        "string textarea picklist multipicklist phone email url combobox encryptedstring id".split()
    ),
    FieldType.NUMBER: frozenset("double currency percent int long".split()),
    FieldType.DATE: frozenset({"date"}),
    FieldType.DATETIME: frozenset({"datetime"}),
    FieldType.BOOLEAN: frozenset({"boolean"}),
    FieldType.REFERENCE: frozenset({"reference", "id"}),
}
"""Types that describe may name for a target field of each kind."""


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
    picklist: tuple[str, ...] | None = None
    """Active values of a restricted picklist; ``None`` when any text is accepted."""


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
        problems = []
        key = target.field(self.target_key)
        if key is None:
            problems.append(f"{self.target_object} has no field {self.target_key} (or the user may not see it)")
        elif not (key.external_id or key.id_lookup):
            problems.append(f"{self.target_key} is not marked External ID, so rows cannot be matched by it")
        for mapped in self.fields:
            field = target.field(mapped.target)
            if field is None:
                problems.append(f"{self.target_object} has no field {mapped.target} (or the user may not see it)")
            elif not (field.createable and field.updateable):
                problems.append(f"{mapped.target} is read-only for this user")
            elif field.type not in TARGET_TYPES[mapped.type]:
                problems.append(
                    f"{mapped.target} is of type {field.type}, which the mapping's {mapped.type} cannot fill"
                )
        sent = {name.lower() for name in self.target_columns}
        for field in target.fields.values():
            is_needed = field.createable and not field.nillable and not field.defaulted_on_create
            if is_needed and field.type != "boolean" and field.name.lower() not in sent:
                problems.append(f"{field.name} is required on create, but the mapping does not fill it")
        if problems:
            raise MappingError(
                f"The mapping does not fit {self.target_object}: {'; '.join(problems)}.",
                hint="Correct the mapping (SYNC_MAPPING) or the field's rights in the org.",
            )


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
    targets = [name.lower() for name in mapping.target_columns]
    if doubled := sorted({name for name in targets if targets.count(name) > 1}):
        raise MappingError(f"the target field {', '.join(doubled)} is filled twice.")
    if mapping.group_by is not None and mapping.group_by not in {f.target for f in fields}:
        raise MappingError(f"group_by names {mapping.group_by}, which no [[field]] fills.")
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
