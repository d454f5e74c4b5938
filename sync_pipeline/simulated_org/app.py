"""The whole org as one function: ``handle(org, request)`` gives the answer. Both doors call nothing else.

Each API file names its own routes; this file finds the route, asks for a token, counts the call and lets faults happen.

Status Codes and Error Responses (405, 414, 431, HEAD):
https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

import httpx
import msgspec

from sync_pipeline.simulated_org import (
    bulk,
    composite,
    data_cloud,
    login,
    not_offered,
    record_collections,
    rest,
    versions,
)
from sync_pipeline.simulated_org.call import ANY_METHOD, Call, Refused, Route, Session, TenantRefused, bytes_answer
from sync_pipeline.simulated_org.faults import happen
from sync_pipeline.simulated_org.ingest import settle_due
from sync_pipeline.simulated_org.state import Org

ROUTES: Final[tuple[Route, ...]] = (
    *login.ROUTES,
    *versions.ROUTES,
    *data_cloud.ROUTES,
    *bulk.ROUTES,
    *rest.ROUTES,
    *record_collections.ROUTES,
    *composite.ROUTES,
    *not_offered.ROUTES,
)
_COMPILED: Final = tuple((re.compile(route.pattern, re.IGNORECASE), route) for route in ROUTES)
_VERSION: Final = re.compile(r"/services/data/v(\d{1,3}\.\d)(?:/|$)", re.IGNORECASE)
_NOBODY: Final = Session(token="", client="", user_id="")
_SLASHES: Final = re.compile("/{2,}")
HEAD_BYTES_MAX: Final = 16_384
"""URI and headers together."""


def handle(org: Org, request: httpx.Request) -> httpx.Response:
    """Answers one request. Raises ``ConnectionCut`` where a fault cuts the connection; so may the answer's body."""
    answer = _too_long(request) or _handle(org, request)
    return _without_body(answer) if request.method == "HEAD" else answer


def _handle(org: Org, request: httpx.Request) -> httpx.Response:
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
        versions.check_version(found[1], since=route.since)
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
    if call.headers.get("x-prettyprint") == "1" and route.door != "tenant":
        answer = _indented(answer)
    return answer if usage is None else _with_usage(answer, usage)


def _route(org: Org, request: httpx.Request, path: str) -> tuple[Route, dict[str, str]]:
    """The route of a request. Raises ``Refused`` (401, 404, 405)."""
    allowed: set[str] = set()
    method = "GET" if request.method == "HEAD" else request.method
    for pattern, route in _COMPILED:
        match = pattern.fullmatch(path)
        if match is None:
            continue
        if route.method in (method, ANY_METHOD):
            return route, {name: unquote(text) for name, text in match.groupdict().items() if text is not None}
        allowed |= {"GET", "HEAD"} if route.method == "GET" else {route.method}
    # Beside its APIs the org has nothing to hide: nobody is sent into a new login for a path that is not there.
    if allowed or _VERSION.match(path) or path.startswith("/api/"):
        login.authenticate(org, request, tenant=path.startswith("/api/"))
    if not allowed:
        raise Refused(404, "NOT_FOUND", "The requested resource does not exist")
    listed = ",".join(sorted(allowed))
    raise Refused(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{request.method}' not allowed. Allowed are {listed}")


def _target(request: httpx.Request) -> tuple[str, dict[str, str]]:
    """Path as it was sent (still percent-encoded, so that an id may hold ``%2F``) and query string. Several slashes are
    one: some clients put their path behind an instance URL that ends with one."""
    path, _, query = request.url.raw_path.decode("ascii").partition("?")
    return _SLASHES.sub("/", path).rstrip("/") or "/", dict(parse_qsl(query, keep_blank_values=True))


def _too_long(request: httpx.Request) -> httpx.Response | None:
    """What the web server in front of the REST API answers by itself to a head that is too long."""
    target = request.url.raw_path
    if not target.lstrip(b"/").startswith(b"services/"):
        return None
    if len(target) > HEAD_BYTES_MAX:
        return _bad_message(414, "URI Too Long")
    size = len(target) + sum(len(name) + len(value) + len(": \r\n") for name, value in request.headers.raw)
    return _bad_message(431, "Request Header Fields Too Large") if size > HEAD_BYTES_MAX else None


def _bad_message(status: int, reason: str) -> httpx.Response:
    page = f"<h1>Bad Message {status}</h1><pre>reason: {reason}</pre>"
    return bytes_answer(page.encode(), "text/html;charset=iso-8859-1", status=status)


def _without_body(answer: httpx.Response) -> httpx.Response:
    """The answer to HEAD: the headers of GET alone."""
    answer.close()
    return httpx.Response(answer.status_code, headers=answer.headers.raw)


def _indented(answer: httpx.Response) -> httpx.Response:
    """What ``X-PrettyPrint: 1`` asks for; an answer that is made while it is sent, or is no JSON, stays as it is."""
    if not answer.is_stream_consumed or not answer.headers.get("content-type", "").startswith("application/json"):
        return answer
    headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
    return httpx.Response(answer.status_code, headers=headers, content=msgspec.json.format(answer.content, indent=2))


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
