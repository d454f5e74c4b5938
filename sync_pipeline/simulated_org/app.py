"""The whole org as one function: ``handle(org, request)`` gives the answer. Both doors call nothing else.

Each API file names its own routes; this file finds the route, asks for a token, counts the call and lets faults happen.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

import httpx

from sync_pipeline.simulated_org import bulk, data_cloud, login, rest, versions
from sync_pipeline.simulated_org.call import Call, Refused, Route, Session, TenantRefused
from sync_pipeline.simulated_org.faults import happen
from sync_pipeline.simulated_org.ingest import settle_due
from sync_pipeline.simulated_org.state import Org

ROUTES: Final[tuple[Route, ...]] = (
    *login.ROUTES,
    *versions.ROUTES,
    *data_cloud.ROUTES,
    *bulk.ROUTES,
    *rest.ROUTES,
)
_COMPILED: Final = tuple((re.compile(route.pattern, re.IGNORECASE), route) for route in ROUTES)
_VERSION: Final = re.compile(r"/services/data/v(\d{1,3}\.\d)(?:/|$)", re.IGNORECASE)
_NOBODY: Final = Session(token="", client="", user_id="")


def handle(org: Org, request: httpx.Request) -> httpx.Response:
    """Answers one request. Raises ``ConnectionCut`` where a fault cuts the connection; so may the answer's body."""
    path, query = _target(request)
    incident = happen(org, request, path)
    answer = incident.before(org, request) if incident is not None else None
    if answer is not None:
        return answer
    try:
        answer = _answer(org, request, path, query)
    except (Refused, TenantRefused) as error:
        answer = error.answer()
    return answer if incident is None else incident.after(answer)


def _answer(org: Org, request: httpx.Request, path: str, query: Mapping[str, str]) -> httpx.Response:
    route, parts = _route(org, request, path)
    session = _NOBODY if route.door == "open" else login.authenticate(org, request, tenant=route.door == "tenant")
    found = _VERSION.match(path)
    if found is not None:
        versions.check_version(found[1])
    usage = None
    if route.door == "core":
        used, allowed = org.usage()
        if used >= allowed:
            refusal = Refused(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.").answer()
            return _with_usage(refusal, (used, allowed))
        usage = org.count_call(session.client, f"{route.method} {route.pattern}")
        settle_due(org)
    call = Call(
        org=org,
        request=request,
        parts=parts,
        query=query,
        session=session,
        version=found[1] if found is not None else "",
        base_url=f"{request.url.scheme}://{request.headers.get('host') or request.url.netloc.decode()}",
    )
    try:
        answer = route.function(call)
    except (Refused, TenantRefused) as error:
        answer = error.answer()
    return answer if usage is None else _with_usage(answer, usage)


def _route(org: Org, request: httpx.Request, path: str) -> tuple[Route, dict[str, str]]:
    """The route of a request. Raises ``Refused`` (401, 404, 405)."""
    allowed = []
    for pattern, route in _COMPILED:
        match = pattern.fullmatch(path)
        if match is None:
            continue
        if route.method == request.method:
            return route, {name: unquote(text) for name, text in match.groupdict().items() if text is not None}
        allowed.append(route.method)
    login.authenticate(org, request, tenant=path.startswith("/api/"))
    if not allowed:
        raise Refused(404, "NOT_FOUND", "The requested resource does not exist")
    raise Refused(
        405,
        "METHOD_NOT_ALLOWED",
        f"HTTP Method '{request.method}' not allowed. Allowed are {','.join(dict.fromkeys(allowed))}",
    )


def _target(request: httpx.Request) -> tuple[str, dict[str, str]]:
    """Path as it was sent (still percent-encoded, so that an id may hold ``%2F``) and query string."""
    path, _, query = request.url.raw_path.decode("ascii").partition("?")
    return path.rstrip("/") or "/", dict(parse_qsl(query, keep_blank_values=True))


def _with_usage(answer: httpx.Response, usage: tuple[int, int]) -> httpx.Response:
    answer.headers["Sforce-Limit-Info"] = f"api-usage={usage[0]}/{usage[1]}"
    return answer


class OrgTransport(httpx.BaseTransport):
    """The embedded door: an httpx transport into the org of a folder, without any network. Made for many threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._org: Org | None = None

    @property
    def org(self) -> Org:
        """The org behind the door; its folder is made at the first request."""
        with self._lock:
            if self._org is None:
                self._org = Org(self._folder)
            return self._org

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return handle(self.org, request)
