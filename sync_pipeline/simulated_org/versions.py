"""Which API versions the org speaks, and what each offers.

Versions and Resources by Version:
https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_versions.htm
"""

from __future__ import annotations

from typing import Final

import httpx

from sync_pipeline.simulated_org.call import Call, Refused, Route, json_answer
from sync_pipeline.simulated_org.identity import identity_url

OLDEST: Final = 31
NEWEST: Final = 68
SEASONS: Final = ("Spring", "Summer", "Winter")


def check_version(version: str, *, since: int = 0) -> None:
    """Raises ``Refused`` for a version the org does not speak: 410 when it is too old, 404 when it is not there yet, or
    when it has not got what came with version ``since``."""
    number = float(version)
    if number < OLDEST:
        raise Refused(410, "UNSUPPORTED_API_VERSION", f"API version v{version} is no longer supported")
    if number > NEWEST or number < since or not number.is_integer():
        raise Refused(404, "NOT_FOUND", "The requested resource does not exist")


def list_versions(call: Call) -> httpx.Response:
    """``GET /services/data``: no token needed, not counted."""
    return json_answer(
        [
            {"label": _label(number), "url": f"/services/data/v{number}.0", "version": f"{number}.0"}
            for number in range(OLDEST, NEWEST + 1)
        ]
    )


def list_resources(call: Call) -> httpx.Response:
    """``GET /services/data/vNN.0``."""
    root = f"/services/data/v{call.version}"
    names = ("jobs", "query", "queryAll", "sobjects", "limits", "composite", "recent", "ssot", "tooling")
    return json_answer(
        {**{name: f"{root}/{name}" for name in names}, "identity": identity_url(call, call.session.user_id)}
    )


def _label(number: int) -> str:
    # v51 was Spring '21; three releases a year, and winter is named after the year that follows it.
    year, season = divmod(number - 51, 3)
    return f"{SEASONS[season]} '{21 + year + (1 if season == 2 else 0)}"


ROUTES: Final = (
    Route("GET", "/services/data", list_versions, "open"),
    Route("GET", r"/services/data/v\d+\.\d", list_resources),
)
