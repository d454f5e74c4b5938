"""Values of picklists as the org keeps them: in the spelling of the list, whatever the letter case they come in.

A value that an unrestricted list does not have makes an inactive entry of it, and later ones of another letter case take
its spelling. Of a multi-select picklist each value is kept once, those of the list first and in its order.

Picklist fields: https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/field_types.htm
"Picklist fields are not case sensitive": https://help.salesforce.com/s/articleView?id=000386557&type=1
"""

from __future__ import annotations

from typing import Final

import polars as pl

from sync_pipeline.simulated_org.objects import Field, SObject
from sync_pipeline.simulated_org.state import Org

PICKLISTS: Final = ("picklist", "multipicklist", "combobox")
SEPARATOR: Final = ";"
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS inactive_value (
    object TEXT NOT NULL, field TEXT NOT NULL, folded TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (object, field, folded)
) WITHOUT ROWID
"""


def spelled_as_listed(org: Org, sobject: SObject, found: Field, values: pl.Series) -> pl.Series:
    """The values in the spelling of the field's list, of its inactive entries, or as they are."""
    odd = values.filter(~values.is_in(list(found.picklist)) & values.is_not_null()).unique()
    if not len(odd):
        return values
    known = {value.lower(): value for value in found.picklist}
    told: dict[str, str | None]
    if found.type == "multipicklist":
        several = {text: [part.strip() for part in text.split(SEPARATOR) if part.strip()] for text in odd}
        parts = dict.fromkeys(part for listed in several.values() for part in listed)
        spelled = _with_inactive(org, sobject, found, list(parts), known)
        told = {text: _joined(found, [spelled[part] for part in listed]) for text, listed in several.items()}
    elif found.type == "combobox":
        told = {text: known.get(text.lower(), text) for text in odd}
    else:
        told = {**_with_inactive(org, sobject, found, odd.sort().to_list(), known)}
    return values.replace(told)


def is_unlisted(found: Field, values: pl.Series) -> pl.Series:
    """Whether a value, as ``spelled_as_listed`` gave it, is none of the list."""
    if found.type != "multipicklist":
        return ~values.is_in(list(found.picklist)) & values.is_not_null()
    parts = values.str.split(SEPARATOR).list.eval(pl.element().is_in(list(found.picklist)).not_())
    return parts.list.any().fill_null(value=False)


def _with_inactive(
    org: Org, sobject: SObject, found: Field, values: list[str], known: dict[str, str]
) -> dict[str, str]:
    """The spelling of each value. One that nobody has used before becomes an entry, unless the list is restricted."""
    new = [value for value in values if value.lower() not in known]
    if new and not found.restricted_picklist:
        org.schema(SCHEMA)
        place = (sobject.name, found.name)
        with org.write() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO inactive_value VALUES (?, ?, ?, ?)",
                [(*place, value.lower(), value) for value in new],
            )
            entries = connection.execute(
                "SELECT folded, value FROM inactive_value WHERE object = ? AND field = ?", place
            ).fetchall()
        known = {**dict(entries), **known}
    return {value: known.get(value.lower(), value) for value in values}


def _joined(found: Field, values: list[str]) -> str | None:
    ranks = {value: rank for rank, value in enumerate(found.picklist)}
    unique = sorted(dict.fromkeys(values), key=lambda value: ranks.get(value, len(ranks)))
    return SEPARATOR.join(unique) or None
