"""What becomes of a row that the org refused: one table from cause to fate.

The code alone does not tell. A trigger, a flow or a package that meets a lock or a limit while the row is saved puts its
own code around it (``CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY``, ``CANNOT_EXECUTE_FLOW_TRIGGER``), and the cause stands in
the message. It is believed there only in the forms in which the platform writes it, and only behind those two codes: a
validation rule may say whatever its author likes.

A pattern is held against ``CODE:message`` from its start. It is read by two engines (Polars and DuckDB), so it uses
nothing that only one of them knows: no look-around, no back reference.

Status codes: https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_concepts_core_data_objects.htm
Governor limits: https://developer.salesforce.com/docs/atlas.en-us.apexcode.meta/apexcode/apex_gov_limits.htm
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Fate(StrEnum):
    """What is done with a row that was refused."""

    AGAIN = "again"
    """The cause can pass: the row is sent again."""
    APART = "apart"
    """Too much was done for the rows that are saved together: it is sent again with fewer others, cut differently."""
    FINAL = "final"
    """The org would say the same again."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a row was refused, by the pattern of its error, and the fate that follows."""

    name: str
    pattern: str
    fate: Fate


WRAPPED: Final = r"(?s:(?:CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY|CANNOT_EXECUTE_FLOW_TRIGGER):.*?\b)"
"""An automation's code and what it says before the cause."""
LIMITED: Final = r"(?:System\.LimitException: |LIMIT_EXCEEDED: |flow tried to [a-z ]{1,40}: )(?:\w{1,15}:)? ?"
"""What stands before a governor limit: Apex's exception or a flow's sentence, and the package's namespace, if any."""

CAUSES: Final = (
    Cause(
        "passing",
        r"(?:UNABLE_TO_LOCK_ROW|TXN_LOCK_TIMEOUT|REQUEST_RUNNING_TOO_LONG|QUERY_TIMEOUT|SERVER_UNAVAILABLE"
        r"|UNKNOWN_EXCEPTION):",
        Fate.AGAIN,
    ),
    Cause(
        "lock or time-out in an automation",
        WRAPPED
        + r"(?:UNABLE_TO_LOCK_ROW|TXN_LOCK_TIMEOUT|REQUEST_RUNNING_TOO_LONG|QUERY_TIMEOUT|SERVER_UNAVAILABLE)[,:]",
        Fate.AGAIN,
    ),
    Cause(
        "record in use in an automation",
        WRAPPED + r"System\.QueryException: Record Currently Unavailable",
        Fate.AGAIN,
    ),
    Cause("CPU time in an automation", WRAPPED + LIMITED + r"Apex CPU time limit exceeded", Fate.APART),
    Cause("heap in an automation", WRAPPED + LIMITED + r"Apex heap size too large: [0-9]", Fate.APART),
    Cause("too many of something in an automation", WRAPPED + LIMITED + r"Too many [A-Za-z ]{1,60}: [0-9]", Fate.APART),
)
"""The first that fits counts. An error that fits none is final."""


def fate_of(code: str, message: str) -> Fate:
    """The fate of a row that was refused with this code and message."""
    error = f"{code}:{message}"
    return next((cause.fate for cause in CAUSES if re.match(cause.pattern, error)), Fate.FINAL)


def patterns(*fates: Fate) -> tuple[str, ...]:
    """The patterns of all causes with one of these fates."""
    return tuple(cause.pattern for cause in CAUSES if cause.fate in fates)
