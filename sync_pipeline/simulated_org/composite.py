"""Several requests in one: composite ones, which may name each other's answers, and batches, which may not.

Composite: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_composite.htm
Batch: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_batch.htm
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote

import httpx
import msgspec

from sync_pipeline.simulated_org import record_collections, rest
from sync_pipeline.simulated_org.call import Call, Refused, Route, TenantRefused, json_answer
from sync_pipeline.simulated_org.resources import NOT_FOUND, V
from sync_pipeline.simulated_org.standing import ensure_standing_rows
from sync_pipeline.simulated_org.versions import check_version

SUBREQUESTS_MAX: Final = 25
HALTED: Final = "The transaction was rolled back since another operation in the same transaction failed."
NOT_RUN: Final = "Batch processing halted by request. An error occurred in an earlier subrequest."
BATCH_OLDEST: Final = 34.0
"""The oldest API version that a subrequest of a batch may name."""
IN_COMPOSITE: Final = (*rest.ROUTES, *record_collections.ROUTES)
IN_BATCH: Final = rest.ROUTES
"""Limits, objects and records, query and queryAll."""


class Subrequest(msgspec.Struct):
    """One request within a composite one."""

    method: str
    url: str
    referenceId: str
    body: Any = None
    httpHeaders: dict[str, str] = {}


class CompositeBody(msgspec.Struct):
    """Body of a composite request."""

    compositeRequest: list[Subrequest]
    allOrNone: bool = False


class BatchSubrequest(msgspec.Struct):
    """One request within a batch. Its ``url`` begins with the version."""

    method: str
    url: str
    richInput: Any = None


class BatchBody(msgspec.Struct):
    """Body of a batch."""

    batchRequests: list[BatchSubrequest]
    haltOnError: bool = False


class _Undone(Exception):
    """A subrequest failed, and with it all of them."""


# Composite requests.


def composite(call: Call) -> httpx.Response:
    """``POST composite``: up to 25 requests of this API one after the other, for one API call. A later one may name what
    an earlier one answered, as ``@{reference.field}``."""
    try:
        body = msgspec.convert(call.json, CompositeBody)
    except msgspec.ValidationError as error:
        raise Refused(400, "JSON_PARSER_ERROR", f"Unexpected content in the request body: {error}") from None
    _check_count(len(body.compositeRequest))
    ensure_standing_rows(call.org)
    results: list[dict[str, Any]] = []
    if not body.allOrNone:
        _run(call, body.compositeRequest, results, stop=False)
        return json_answer({"compositeResponse": results})
    try:
        with call.org.write():
            _run(call, body.compositeRequest, results, stop=True)
    except _Undone:
        failed = results[-1]
        halted = [{"errorCode": "PROCESSING_HALTED", "message": HALTED}]
        results = [
            failed if one.referenceId == failed["referenceId"] else _result(one, 400, halted)
            for one in body.compositeRequest
        ]
    return json_answer({"compositeResponse": results})


def _run(call: Call, requests: Sequence[Subrequest], results: list[dict[str, Any]], *, stop: bool) -> None:
    answers: dict[str, Any] = {}
    for one in requests:
        try:
            filled = _with_references(one, answers)
            answer = _answer(call, IN_COMPOSITE, filled.method, filled.url, filled.body, filled.httpHeaders)
        except (Refused, TenantRefused) as error:
            answer = error.answer()
        content = _content(answer)
        location = {"Location": answer.headers["location"]} if "location" in answer.headers else {}
        results.append(_result(one, answer.status_code, content, location))
        if answer.is_success:
            answers[one.referenceId] = content
        elif stop:
            raise _Undone


def _result(one: Subrequest, status: int, body: object, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {"body": body, "httpHeaders": headers or {}, "httpStatusCode": status, "referenceId": one.referenceId}


def _with_references(one: Subrequest, answers: Mapping[str, Any]) -> Subrequest:
    def text(found: re.Match[str]) -> str:
        value = answers.get(found[1])
        for step in re.findall(r"\w+", found[2]):
            if isinstance(value, list) and step.isdigit() and int(step) < len(value):
                value = value[int(step)]
            else:
                value = value.get(step) if isinstance(value, dict) else None
        if value is None:
            raise Refused(400, "PROCESSING_HALTED", f"Invalid reference specified. No value for {found[0]} found")
        return str(value)

    def filled(value: object) -> Any:
        if isinstance(value, str):
            return _REFERENCE.sub(text, value)
        if isinstance(value, dict):
            return {name: filled(item) for name, item in value.items()}
        return [filled(item) for item in value] if isinstance(value, list) else value

    url = _REFERENCE.sub(lambda found: quote(text(found), safe=""), one.url)
    return Subrequest(one.method, url, one.referenceId, filled(one.body), one.httpHeaders)


# Batches.


def batch(call: Call) -> httpx.Response:
    """``POST composite/batch``: up to 25 requests that know nothing of each other. Each is an API call, too."""
    try:
        body = msgspec.convert(call.json, BatchBody)
    except msgspec.ValidationError as error:
        raise Refused(400, "JSON_PARSER_ERROR", f"Unexpected content in the request body: {error}") from None
    _check_count(len(body.batchRequests))
    ensure_standing_rows(call.org)
    results: list[dict[str, Any]] = []
    has_errors = False
    for one in body.batchRequests:
        if has_errors and body.haltOnError:
            results.append(
                {"statusCode": 412, "result": [{"errorCode": "BATCH_PROCESSING_HALTED", "message": NOT_RUN}]}
            )
            continue
        call.org.count_call(call.session.client, "POST composite/batch, a subrequest")
        try:
            answer = _answer(call, IN_BATCH, one.method, _batch_path(call, one.url), one.richInput, {})
        except (Refused, TenantRefused) as error:
            answer = error.answer()
        has_errors = has_errors or answer.status_code >= 400
        results.append({"statusCode": answer.status_code, "result": _content(answer)})
    return json_answer({"hasErrors": has_errors, "results": results})


def _batch_path(call: Call, url: str) -> str:
    """The whole path of a subrequest. Raises ``Refused`` (400) when its version is newer than the batch's, or too old."""
    found = re.match(r"/?(?:services/data/)?v(\d{1,3}\.\d)/(.*)", url, re.IGNORECASE | re.DOTALL)
    if found is None:
        raise Refused(400, "INVALID_BATCH_REQUEST", f"The url of a subrequest begins with its version: {url}")
    if not BATCH_OLDEST <= float(found[1]) <= float(call.version):
        message = f"Subrequests of this batch have versions from {BATCH_OLDEST} to {call.version}, not {found[1]}"
        raise Refused(400, "INVALID_BATCH_REQUEST", message)
    return f"/services/data/v{found[1]}/{found[2]}"


# Both.


def _check_count(subrequests: int) -> None:
    if subrequests > SUBREQUESTS_MAX:
        message = f"Limit exceeded: a composite request has at most {SUBREQUESTS_MAX} subrequests"
        raise Refused(400, "LIMIT_EXCEEDED", message)


def _answer(
    call: Call, routes: Sequence[Route], method: str, url: str, body: object, headers: Mapping[str, str]
) -> httpx.Response:
    """Runs one subrequest on some routes. Raises ``Refused`` as they do, and 404 when none is the one."""
    path, _, query_string = url.partition("?")
    version = re.match(r"/services/data/v(\d{1,3}\.\d)/", path, re.IGNORECASE)
    for route in routes:
        found = re.fullmatch(route.pattern, path.rstrip("/"), re.IGNORECASE)
        if found is None or version is None or route.method != method.upper():
            continue
        check_version(version[1], since=route.since)
        try:
            request = httpx.Request(method.upper(), f"{call.base_url}{path}", headers=headers, json=body)
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise Refused(400, "INVALID_INPUT", f"This is no request: {error}") from None
        return route.function(
            Call(
                org=call.org,
                request=request,
                parts={name: unquote(text) for name, text in found.groupdict().items() if text is not None},
                query=dict(parse_qsl(query_string, keep_blank_values=True)),
                session=call.session,
                version=version[1],
                base_url=call.base_url,
            )
        )
    raise Refused(404, "NOT_FOUND", NOT_FOUND)


def _content(answer: httpx.Response) -> Any:
    body = answer.read()
    return msgspec.json.decode(body) if body else None


_REFERENCE: Final = re.compile(r"@\{(\w+)((?:\.\w+|\[\d+\])+)\}")

ROUTES: Final[tuple[Route, ...]] = (
    Route("POST", rf"{V}/composite", composite, since=38),
    Route("POST", rf"{V}/composite/batch", batch, since=34),
)
