"""One client for everything: which failures are sent again and how often, one login for all threads, and where secrets go."""

from __future__ import annotations

import gzip
import json
import linecache
import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote_plus, unquote

import httpcore
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_pipeline.domain.errors import (
    CredentialsError,
    LimitExceeded,
    RequestRefused,
    RightsError,
    SettingsError,
    Stopped,
    SyncError,
    Unreachable,
    WireError,
)
from sync_pipeline.domain.secret import Secret
from sync_pipeline.salesforce.answer import Answer, as_json, nothing
from sync_pipeline.salesforce.auth import Login
from sync_pipeline.salesforce.session import CODE_RULES, EXCEPTION_RULES, STATUS_RULES, Host, Session, path_part
from sync_pipeline_tests.salesforce.conftest import (
    CLIENT_ID,
    CLIENT_SECRET,
    EXPIRED,
    INSTANCE_URL,
    LOGIN,
    LOGIN_URL,
    ORG_ID,
    TENANT_URL,
    USER_ID,
    Piecewise,
    Server,
    Wire,
    access_token,
    answers,
    bearer,
    body_of,
    never,
    path_of,
    tenant_token,
)

HTML = "<html><body>Sorry, we are down for maintenance.</body></html>"
Reply = Callable[[], httpx.Response]


def ok(request: httpx.Request | None = None) -> httpx.Response:
    return httpx.Response(200, json={"is": "well"})


def error(status: int, code: str = "", message: str = "no", *, retry_after: str = "") -> httpx.Response:
    """An error as the core host answers it; without a code the HTML of whatever stands in between."""
    headers = {b"Retry-After": retry_after.encode("latin-1")} if retry_after else {}
    if not code:
        return httpx.Response(status, html=HTML, headers=headers)
    return httpx.Response(status, json=[{"errorCode": code, "message": message}], headers=headers)


def ask(wire: Wire, *, repeat: bool = True, host: Host = "core") -> Any:
    """Asks for something that is answered in JSON."""
    path = "/limits" if host == "core" else "/api/v3/query"
    return wire.session.send("GET", path, endpoint="test", host=host, repeat=repeat, read=as_json(dict[str, Any]))


def always(make: Reply) -> Server:
    return lambda request: make()


# what is sent


def test_a_request_goes_to_the_instance_of_its_token_under_the_api_version() -> None:
    wire = Wire(always(ok), api_version="64.0")

    answer = wire.session.send(
        "PATCH",
        "/sobjects/X",
        endpoint="test",
        params={"q": "a b&c='é'"},
        headers={"X-More": "1"},
        json={"Name": "é"},
        read=as_json(dict[str, str]),
    )

    assert answer == {"is": "well"}
    request = wire.requests[0]
    assert str(request.url).startswith(f"{INSTANCE_URL}/services/data/v64.0/sobjects/X?")
    assert parse_qs(request.url.query.decode()) == {"q": ["a b&c='é'"]}
    assert (request.method, bearer(request), request.headers["x-more"]) == ("PATCH", access_token(1), "1")
    assert wire.session.api_version == "64.0"
    assert request.headers["content-type"] == "application/json; charset=UTF-8"
    assert request.headers["accept"] == "application/json"
    assert body_of(request) == {"Name": "é"}


@pytest.mark.parametrize("version", ["", "66", "v66.0", "66.0.1", "6.0", "66.0/../..", "latest"])
def test_the_api_version_is_a_number_of_its_own_form(version: str) -> None:
    with pytest.raises(SettingsError, match="SALESFORCE_API_VERSION"):
        Wire(never, api_version=version)


def test_only_a_distant_org_is_asked_to_compress_its_answers() -> None:
    wire = Wire(always(ok))
    ask(wire)

    assert wire.requests[0].headers["accept-encoding"] == "identity"
    with Session(LOGIN) as distant:
        assert distant._client.headers["accept-encoding"] == "gzip"


def test_any_status_of_success_is_success() -> None:
    wire = Wire(answers(*(httpx.Response(status, json={}) for status in (200, 201, 202, 204))))

    assert [wire.session.send("GET", "/x", endpoint="test", read=lambda a: a.status) for _ in range(4)] == [
        200,
        201,
        202,
        204,
    ]


def test_a_body_is_made_anew_for_every_try() -> None:
    made: list[int] = []

    def body() -> Iterator[bytes]:
        made.append(len(made) + 1)
        yield b"a,b\n"
        yield b"1,2\n"

    wire = Wire(answers(error(429), httpx.Response(401, json=EXPIRED), httpx.Response(201)))
    wire.session.send("PUT", "/jobs/ingest/750/batches", endpoint="test", body=body, repeat=False, read=nothing)

    assert made == [1, 2, 3]
    assert [request.content for request in wire.requests] == [b"a,b\n1,2\n"] * 3


@given(st.text(min_size=1, max_size=20).filter(str.isprintable).filter(lambda text: set(text) != {"."}))
def test_an_id_is_one_part_of_a_path_whatever_it_holds(name: str) -> None:
    wire = Wire(always(ok))

    wire.session.send("GET", f"/jobs/{path_part(name)}/rows", endpoint="test", read=nothing)

    parts = path_of(wire.requests[0]).removeprefix("/services/data/v66.0/").split("/")
    assert len(parts) == 3
    assert (parts[0], parts[2]) == ("jobs", "rows")
    if "%" not in name:
        assert unquote(parts[1]) == name


def test_an_escape_inside_of_an_id_is_not_escaped_again() -> None:
    assert path_part("MTAu%2FMjI_9c77-b8") == "MTAu%2FMjI_9c77-b8"
    assert path_part("MTAu/MjI=_9c77") == "MTAu%2FMjI%3D_9c77"


@pytest.mark.parametrize("name", ["", ".", "..", "...", "a\nb", "a\x00", "a\u2028b", "\ud800", "x" * 1001])
def test_an_id_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(WireError, match="an id that cannot be used"):
        path_part(name)


def test_a_closed_session_sends_nothing() -> None:
    with Wire(never).session as session:
        pass

    with pytest.raises(RuntimeError, match="closed"):
        session.send("GET", "/x", endpoint="test", read=nothing)


# which failures are sent again: the tables, row by row

AGAIN = "sent again, whatever it is"
LOST = "sent again if it may be"
REFUSED = RequestRefused
LIMIT = LimitExceeded
RIGHTS = RightsError
LOGIN_AGAIN = CredentialsError

STATUS_FATES: dict[int, Any] = {
    401: LOGIN_AGAIN,
    403: RIGHTS,
    408: LOST,
    420: AGAIN,
    425: AGAIN,
    429: AGAIN,
    500: LOST,
    501: REFUSED,
    502: LOST,
    503: LOST,
    504: LOST,
}
OTHER_STATUS_FATES: dict[int, Any] = {
    300: REFUSED,
    304: REFUSED,
    400: REFUSED,
    404: REFUSED,
    405: REFUSED,
    409: REFUSED,
    410: REFUSED,
    414: REFUSED,
    415: REFUSED,
    431: REFUSED,
    505: LOST,
    520: LOST,
    599: LOST,
}
CODE_FATES: dict[str, tuple[int, Any]] = {
    "INVALID_SESSION_ID": (403, LOGIN_AGAIN),
    "InvalidSessionId": (400, LOGIN_AGAIN),
    "REQUEST_LIMIT_EXCEEDED": (403, LIMIT),
    "EXCEEDEDQUOTA": (403, LIMIT),
    "ExceededQuota": (400, LIMIT),
    "API_DISABLED_FOR_ORG": (403, RIGHTS),
    "INSUFFICIENT_ACCESS": (400, RIGHTS),
    "53S01": (429, REFUSED),
}
OTHER_CODE_FATES: dict[str, tuple[int, Any]] = {
    "NOT_FOUND": (404, REFUSED),
    "MALFORMED_QUERY": (400, REFUSED),
    "QUERY_TIMEOUT": (400, REFUSED),
    "INVALIDJOBSTATE": (400, REFUSED),
    "UNKNOWN_EXCEPTION": (500, LOST),
    "SERVER_UNAVAILABLE": (503, LOST),
}
EXCEPTION_FATES: dict[type[httpx.TransportError], Any] = {
    httpx.ConnectError: AGAIN,
    httpx.ConnectTimeout: AGAIN,
    httpx.PoolTimeout: AGAIN,
    httpx.ProxyError: AGAIN,
    httpx.UnsupportedProtocol: "never sent again",
    httpx.ReadTimeout: LOST,
    httpx.WriteTimeout: LOST,
    httpx.ReadError: LOST,
    httpx.WriteError: LOST,
    httpx.CloseError: LOST,
    httpx.RemoteProtocolError: LOST,
    httpx.LocalProtocolError: LOST,
}


def test_every_row_of_the_tables_is_tested_here() -> None:
    listed = {kind for kind, _ in EXCEPTION_RULES}

    assert set(STATUS_RULES) == set(STATUS_FATES)
    assert set(CODE_RULES) == set(CODE_FATES)
    assert listed - set(EXCEPTION_FATES) == {httpx.TransportError}


def tries_of(reply: Reply, *, repeat: bool) -> tuple[int, SyncError]:
    """How often a request is sent that always meets this reply, and the error it ends in."""
    wire = Wire(always(reply))
    with pytest.raises(SyncError) as failed:
        ask(wire, repeat=repeat)
    return len(wire.requests), failed.value


def check_fate(reply: Reply, fate: Any) -> SyncError:
    tries, failure = tries_of(reply, repeat=True)
    tries_once, _ = tries_of(reply, repeat=False)
    if fate in (AGAIN, LOST):
        assert (tries, tries_once) == (6, 6 if fate is AGAIN else 1)
        assert isinstance(failure, WireError)
    elif fate is LOGIN_AGAIN:
        assert (tries, tries_once) == (2, 2)
        assert isinstance(failure, CredentialsError)
    else:
        assert (tries, tries_once) == (1, 1)
        assert type(failure) is fate
    return failure


@pytest.mark.parametrize(("status", "fate"), [*STATUS_FATES.items(), *OTHER_STATUS_FATES.items()])
def test_a_status_without_a_code_decides(status: int, fate: Any) -> None:
    failure = check_fate(lambda: error(status), fate)

    assert f"HTTP {status}" in failure.message
    assert "maintenance" not in str(failure)


@pytest.mark.parametrize(
    ("code", "status", "fate"),
    [(code, status, fate) for code, (status, fate) in {**CODE_FATES, **OTHER_CODE_FATES}.items()],
)
def test_a_code_decides_before_the_status(code: str, status: int, fate: Any) -> None:
    failure = check_fate(lambda: error(status, code, "the reason"), fate)

    assert f"HTTP {status} {code}: the reason" in failure.message
    assert failure.hint or fate is REFUSED


@pytest.mark.parametrize(("kind", "fate"), [*EXCEPTION_FATES.items()])
def test_an_exception_decides_by_its_kind(kind: type[httpx.TransportError], fate: Any) -> None:
    def broken() -> httpx.Response:
        raise kind("the reason")

    failure = check_fate(broken, fate if fate in (AGAIN, LOST) else WireError)

    assert f"{kind.__name__}: the reason" in failure.message


def test_a_certificate_that_is_not_believed_is_not_asked_again() -> None:
    def wrong_certificate(request: httpx.Request) -> httpx.Response:
        try:
            raise ssl.SSLCertVerificationError(1, "self-signed certificate")
        except ssl.SSLCertVerificationError as cause:
            raise httpx.ConnectError("certificate verify failed") from cause

    wire = Wire(wrong_certificate)

    with pytest.raises(WireError, match="certificate verify failed"):
        ask(wire)

    assert len(wire.requests) == 1
    assert wire.calls == []


def test_an_error_tells_the_request_the_status_and_the_code() -> None:
    wire = Wire(always(lambda: error(404, "NOT_FOUND", "The requested resource does not exist")))

    with pytest.raises(RequestRefused) as refused:
        ask(wire)

    assert refused.value.message == (
        "GET /services/data/v66.0/limits (test): HTTP 404 NOT_FOUND: The requested resource does not exist."
    )
    assert (refused.value.status, refused.value.code) == (404, "NOT_FOUND")


def test_a_lost_answer_tells_the_last_status_and_that_the_run_can_go_on() -> None:
    _, failure = tries_of(lambda: error(503, "SERVER_UNAVAILABLE", "busy"), repeat=True)

    assert isinstance(failure, WireError)
    assert (failure.status, failure.code) == (503, "SERVER_UNAVAILABLE")
    assert failure.message.endswith("after 6 tries.")
    assert "go on later" in failure.hint


def test_what_the_org_says_is_not_repeated_without_end() -> None:
    _, failure = tries_of(lambda: error(400, "INVALID_FIELD", "x" * 50_000), repeat=True)

    assert len(str(failure)) < 1500


def test_too_many_requests_at_once_is_not_a_used_up_day() -> None:
    def crowded() -> httpx.Response:
        return error(403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded")

    wire = Wire(answers(crowded(), crowded(), ok()))
    assert ask(wire, repeat=False) == {"is": "well"}

    wire = Wire(always(crowded))
    with pytest.raises(LimitExceeded):
        ask(wire)
    assert len(wire.requests) == 6


def test_a_used_up_day_says_where_to_look() -> None:
    _, failure = tries_of(lambda: error(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."), repeat=True)

    assert isinstance(failure, LimitExceeded)
    assert "sync-pipeline limits" in failure.hint


def test_an_error_of_our_own_passes_through() -> None:
    def body() -> Iterator[bytes]:
        with Path("part-00001.csv").open("rb") as file:
            yield file.read()

    wire = Wire(always(ok))

    with pytest.raises(FileNotFoundError, match=r"part-00001\.csv"):
        wire.session.send("PUT", "/x", endpoint="test", body=body, read=nothing)


# how long it is tried


def test_pauses_double_from_half_a_second() -> None:
    wire = Wire(always(lambda: error(503)))

    with pytest.raises(WireError):
        ask(wire)

    assert wire.pauses == [0.5, 1.0, 2.0, 4.0, 8.0]


@given(st.floats(0, 1, exclude_max=True))
def test_a_pause_is_drawn_between_nothing_and_its_bound(jitter: float) -> None:
    wire = Wire(always(lambda: error(503)))
    wire.jitter = jitter

    with pytest.raises(WireError):
        ask(wire)

    assert len(wire.requests) == 6
    drawn = [bound * jitter for bound in (0.5, 1.0, 2.0, 4.0, 8.0)]
    assert wire.pauses == [pause for pause in drawn if pause]


def test_no_try_starts_five_minutes_after_the_first() -> None:
    started = []

    def slow(request: httpx.Request) -> httpx.Response:
        started.append(wire.now - 1_000.0)
        wire.now += 100.0
        return error(503)

    wire = Wire(slow)

    with pytest.raises(WireError, match="after 3 tries"):
        ask(wire)

    assert started == [0.0, 100.5, 201.5]


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.5),
        ("61", 61.0),
        ("300", 300.0),
        ("Fri, 15 Jan 2027 08:00:20 GMT", 20.0),
        ("Fri, 15 Jan 2027 09:00:20 +0100", 20.0),
        ("Fri, 15 Jan 2027 08:00:20", 20.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.5),
        ("Fri, 15 Jan 2027 08:05:00 GMT", 300.0),
        ("Fri, 15 Jan 99999 08:00:00 GMT", 0.5),
        ("Tue, 01 Dec 99999999999999999999 04:00:00 GMT", 0.5),
        ("soon", 0.5),
        ("-5", 0.5),
        ("1.5", 0.5),
        ("\u00b2", 0.5),
        ("7, 8", 0.5),
    ],
)
def test_the_org_may_ask_for_a_longer_pause_of_up_to_five_minutes(header: str, pause: float) -> None:
    wire = Wire(answers(error(429, retry_after=header), ok()))

    ask(wire)

    assert wire.pauses == [pause]


@pytest.mark.parametrize(
    "code", ["", "REQUEST_LIMIT_EXCEEDED", "EXCEEDEDQUOTA", "53S01", "UNKNOWN_EXCEPTION", "WHATEVER"]
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_that_the_org_names_is_kept_whatever_the_code(status: int, code: str) -> None:
    wire = Wire(answers(error(status, code, retry_after="300"), error(status, code, retry_after="300"), ok()))

    assert ask(wire) == {"is": "well"}

    assert wire.pauses == [300.0, 300.0]


def test_what_must_not_be_sent_twice_is_repeated_after_a_429_and_told_as_lost_after_the_wait_of_a_503() -> None:
    refused = Wire(answers(error(429, retry_after="7"), ok()))
    lost = Wire(answers(error(503, retry_after="7"), ok()))

    assert ask(refused, repeat=False) == {"is": "well"}
    with pytest.raises(WireError):
        ask(lost, repeat=False)

    assert (refused.pauses, lost.pauses, len(lost.requests)) == ([7.0], [7.0], 1)


@pytest.mark.parametrize("status", [403, 400, 500])
def test_only_429_and_503_can_name_a_wait(status: int) -> None:
    wire = Wire(always(lambda: error(status, "REQUEST_LIMIT_EXCEEDED", retry_after="20")))

    with pytest.raises(LimitExceeded):
        ask(wire)

    assert wire.pauses == []


def test_a_429_is_the_day_s_limit_only_when_it_says_so_without_a_wait_or_the_org_s_count_does() -> None:
    def limited(retry_after: str, used: str) -> Server:
        def server(request: httpx.Request) -> httpx.Response:
            answer = error(429, "REQUEST_LIMIT_EXCEEDED", retry_after=retry_after)
            answer.headers["Sforce-Limit-Info"] = f"api-usage={used}"
            return answer if len(wire.requests) < 3 else ok()

        return server

    for retry_after, used, waits in [("5", "99/100", 2), ("5", "100/100", 0), ("", "99/100", 0)]:
        wire = Wire(never)
        wire.server = limited(retry_after, used)
        if waits:
            ask(wire)
        else:
            with pytest.raises(LimitExceeded):
                ask(wire)
        assert wire.pauses == [5.0] * waits


@pytest.mark.parametrize("header", ["301", "86400", "9" * 5000, "Fri, 15 Jan 2100 08:00:00 GMT"])
@pytest.mark.parametrize("status", [429, 503])
def test_an_org_that_asks_for_more_than_five_minutes_is_left_alone_and_the_night_parks(
    status: int, header: str
) -> None:
    wire = Wire(always(lambda: error(status, retry_after=header)))

    with pytest.raises(LimitExceeded, match="Retry-After"):
        ask(wire)

    assert (len(wire.requests), wire.pauses) == (1, [])


def test_waits_that_the_org_asks_for_are_no_tries() -> None:
    waits = [error(429, retry_after="60") for _ in range(10)]
    faults = [error(503) for _ in range(5)]
    wire = Wire(answers(*waits, *faults, ok()))
    wire.jitter = 0.0

    ask(wire)

    assert wire.pauses == [60.0] * 10


@given(st.lists(st.sampled_from(["0", "1", "20", "61", "299", "300"]), min_size=1, max_size=5))
@settings(deadline=None)
def test_an_org_that_asks_for_one_wait_after_the_other_is_given_a_quarter_of_an_hour(headers: list[str]) -> None:
    wire = Wire(never)
    wire.server = lambda request: error(429, retry_after=headers[len(wire.requests) % len(headers)])

    with pytest.raises(LimitExceeded):
        ask(wire)

    assert sum(wire.pauses) <= 900.0
    assert len(wire.requests) <= 31


def test_a_wait_can_be_interrupted() -> None:
    wire = Wire(always(lambda: error(503)))
    wire.is_interrupted = True

    with pytest.raises(Stopped):
        ask(wire)

    assert len(wire.requests) == 1


# answers that cannot be believed


def broken_answers() -> list[tuple[str, Reply]]:
    packed = gzip.compress(b'{"is": "well"}')
    as_gzip = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    as_text = {"Content-Type": "application/json"}
    return [
        ("HTML with status 200", lambda: httpx.Response(200, html=HTML)),
        ("no body", lambda: httpx.Response(200, headers=as_text)),
        ("half of the JSON", lambda: httpx.Response(200, content=b'{"is": "we', headers=as_text)),
        ("another shape", lambda: httpx.Response(200, json=["is", "well"])),
        (
            "fewer bytes than announced",
            lambda: httpx.Response(
                200, headers={**as_text, "Content-Length": "99"}, stream=Piecewise(b'{"is": "well"}')
            ),
        ),
        ("half of the gzip", lambda: httpx.Response(200, headers=as_gzip, stream=Piecewise(packed[:12]))),
        ("no gzip", lambda: httpx.Response(200, headers=as_gzip, stream=Piecewise(b'{"is": "well"}'))),
        ("another encoding", lambda: httpx.Response(200, headers={"Content-Encoding": "br"}, stream=Piecewise(b"x"))),
        (
            "a reset",
            lambda: httpx.Response(200, headers=as_text, stream=Piecewise(b'{"is":', httpx.ReadError("reset"))),
        ),
        (
            "a connection that ends early",
            lambda: httpx.Response(200, headers=as_text, stream=Piecewise(b"{", httpx.RemoteProtocolError("closed"))),
        ),
        ("a timeout", lambda: httpx.Response(200, headers=as_text, stream=Piecewise(b"{", httpx.ReadTimeout("slow")))),
    ]


@pytest.mark.parametrize("reply", [pytest.param(reply, id=name) for name, reply in broken_answers()])
def test_an_answer_that_is_not_whole_is_asked_for_again_and_never_taken_for_one(reply: Reply) -> None:
    wire = Wire(answers(reply(), ok()))
    assert ask(wire) == {"is": "well"}
    assert len(wire.requests) == 2

    check_fate(reply, LOST)


def test_an_answer_that_is_too_large_is_not_asked_for_again() -> None:
    bomb = gzip.compress(bytes(1_000_000))
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    wire = Wire(always(lambda: httpx.Response(200, headers=headers, stream=Piecewise(bomb))))

    with pytest.raises(WireError, match=r"more than 65536 bytes, after 1 try\."):
        wire.session.send("GET", "/x", endpoint="test", read=nothing)

    assert len(wire.requests) == 1


def test_an_error_with_a_broken_body_is_judged_by_its_status() -> None:
    headers = {"Content-Encoding": "gzip"}
    wire = Wire(answers(httpx.Response(503, headers=headers, stream=Piecewise(b"no gzip")), ok()))

    assert ask(wire) == {"is": "well"}


# one login for all


def test_nobody_logs_in_before_somebody_asks_and_then_only_once() -> None:
    wire = Wire(always(ok))
    assert wire.logins == []

    for _ in range(3):
        ask(wire)

    assert [str(request.url) for request in wire.logins] == [f"{LOGIN_URL}/services/oauth2/token"]
    assert wire.logins[0].headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(wire.logins[0].content.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": [CLIENT_ID],
        "client_secret": [CLIENT_SECRET],
    }
    assert (wire.session.org_id, wire.session.user_id, wire.session.instance_url) == (ORG_ID, USER_ID, INSTANCE_URL)
    assert len(wire.logins) == 1


def test_an_assertion_is_made_anew_for_every_try(key: Secret) -> None:
    wire = Wire(always(ok), login=Login(LOGIN_URL, Secret(CLIENT_ID), username="sync@acme.com", private_key_pem=key))
    logged_in = wire.log_in
    wire.log_in = lambda request: error(503, retry_after="30") if len(wire.logins) == 1 else logged_in(request)

    ask(wire)

    expiries = [
        jwt.decode(parse_qs(request.content.decode())["assertion"][0], options={"verify_signature": False})["exp"]
        for request in wire.logins
    ]
    assert expiries == [1_800_000_180, 1_800_000_210]


THREADS = 12


def in_threads(work: Callable[[], Any]) -> list[Any]:
    """Runs the work in threads that start together, and gives what each returned or raised."""
    results: list[Any] = []
    start = threading.Barrier(THREADS)

    def run() -> None:
        start.wait()
        try:
            results.append(work())
        except SyncError as failure:
            results.append(failure)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(results) == THREADS
    return results


def wait_until_all_others_wait_for_the_login() -> None:
    """Returns when every other thread of ours stands at the session's lock, which the calling thread holds."""
    deadline = time.monotonic() + 30
    waiting = 0
    while waiting < THREADS - 1:
        assert time.monotonic() < deadline
        frames = [frame for ident, frame in sys._current_frames().items() if ident != threading.get_ident()]
        waiting = sum(
            "with self._lock" in linecache.getline(frame.f_code.co_filename, frame.f_lineno) for frame in frames
        )
        time.sleep(0.001)


def test_threads_share_one_login() -> None:
    wire = Wire(always(ok))

    assert in_threads(lambda: ask(wire)) == [{"is": "well"}] * THREADS
    assert len(wire.logins) == 1


def test_threads_whose_token_expired_share_one_new_login() -> None:
    together = threading.Barrier(THREADS)

    def server(request: httpx.Request) -> httpx.Response:
        if bearer(request) == access_token(1):
            together.wait()
            return httpx.Response(401, json=EXPIRED)
        return ok()

    wire = Wire(server)

    assert in_threads(lambda: ask(wire)) == [{"is": "well"}] * THREADS
    assert len(wire.logins) == 2


def test_threads_share_a_refused_login_too() -> None:
    def refused(request: httpx.Request) -> httpx.Response:
        wait_until_all_others_wait_for_the_login()
        return httpx.Response(401, json={"error": "invalid_client", "error_description": "invalid client credentials"})

    wire = Wire(never, log_in=refused)

    results = in_threads(lambda: ask(wire))

    assert {type(result) for result in results} == {CredentialsError}
    assert len({id(result) for result in results}) == THREADS
    assert len(wire.logins) == 1


def test_threads_whose_token_expired_share_a_refused_new_login() -> None:
    together = threading.Barrier(THREADS)

    def server(request: httpx.Request) -> httpx.Response:
        together.wait()
        return httpx.Response(401, json=EXPIRED)

    wire = Wire(server)
    logged_in = wire.log_in

    def log_in(request: httpx.Request) -> httpx.Response:
        if len(wire.logins) == 1:
            return logged_in(request)
        wait_until_all_others_wait_for_the_login()
        return httpx.Response(400, json={"error": "inactive_user", "error_description": "user is inactive"})

    wire.log_in = log_in

    results = in_threads(lambda: ask(wire))

    assert {type(result) for result in results} == {CredentialsError}
    assert len(wire.logins) == 2


def test_a_refused_login_is_tried_again_by_the_next_who_asks() -> None:
    wire = Wire(always(ok))
    logged_in = wire.log_in
    wire.log_in = lambda request: httpx.Response(400, json={"error": "inactive_user"})
    with pytest.raises(CredentialsError):
        ask(wire)

    wire.log_in = logged_in

    assert ask(wire) == {"is": "well"}
    assert len(wire.logins) == 2


# tokens that are refused


@pytest.mark.parametrize(
    "refusal",
    [
        lambda: httpx.Response(401, json=EXPIRED),
        lambda: httpx.Response(401, json=EXPIRED[0]),
        lambda: httpx.Response(401, text="Invalid JWT."),
        lambda: httpx.Response(401),
        lambda: httpx.Response(403, json=EXPIRED),
        lambda: httpx.Response(400, json=[{"errorCode": "InvalidSessionId", "message": "Invalid session id"}]),
    ],
)
def test_an_expired_token_is_renewed_once_and_the_request_repeated(refusal: Reply) -> None:
    wire = Wire(answers(refusal(), ok()))

    assert ask(wire, repeat=False) == {"is": "well"}

    assert [bearer(request) for request in wire.requests] == [access_token(1), access_token(2)]
    assert wire.pauses == []


def test_a_second_refusal_is_final() -> None:
    wire = Wire(always(lambda: httpx.Response(401, json=EXPIRED)))

    with pytest.raises(CredentialsError, match="a new token was refused as well") as refused:
        ask(wire)

    assert (len(wire.requests), len(wire.logins)) == (2, 2)
    assert "IP restrictions" in refused.value.hint


def test_a_fault_of_the_org_does_not_make_a_second_refusal_less_final() -> None:
    expired = httpx.Response(401, json=EXPIRED)
    wire = Wire(answers(expired, error(503), httpx.Response(401, json=EXPIRED)))

    with pytest.raises(CredentialsError, match="a new token was refused as well"):
        ask(wire)

    assert len(wire.logins) == 2


def test_tokens_that_worked_in_between_may_expire_up_to_three_times_under_one_request() -> None:
    """A request that waits long, on an org with short sessions."""

    def server(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/between"):
            return ok()
        if len(slow) % 2:  # this token works for somebody else, and has expired when the slow request comes again
            slow.append("503")
            wire.session.send("GET", "/between", endpoint="test", read=nothing)
            return error(503)
        slow.append("401")
        return httpx.Response(401, json=EXPIRED)

    slow: list[str] = []
    wire = Wire(server)

    with pytest.raises(CredentialsError, match="refused as well"):
        ask(wire)

    assert slow == ["401", "503", "401", "503", "401", "503", "401"]
    assert len(wire.logins) == 4


def test_a_session_that_may_not_use_rest_is_not_renewed_in_a_loop() -> None:
    message = "This session is not valid for use with the REST API"
    wire = Wire(always(lambda: httpx.Response(401, json=[{"errorCode": "INVALID_SESSION_ID", "message": message}])))

    with pytest.raises(RightsError, match=message):
        ask(wire)

    assert (len(wire.requests), len(wire.logins)) == (1, 1)


@pytest.mark.parametrize("status", [400, 401])
def test_wrong_credentials_are_final_and_say_what_to_do(status: int) -> None:
    refusal = {"error": "invalid_client_id", "error_description": "client identifier invalid"}
    wire = Wire(never, log_in=lambda request: httpx.Response(status, json=refusal))

    with pytest.raises(CredentialsError, match="client identifier invalid") as refused:
        ask(wire)

    assert LOGIN_URL in refused.value.message
    assert refused.value.hint == "Check SALESFORCE_CLIENT_ID."
    assert len(wire.logins) == 1


def test_a_key_that_cannot_sign_asks_nobody() -> None:
    login = Login(LOGIN_URL, Secret(CLIENT_ID), username="sync@acme.com", private_key_pem=Secret("no key"))
    wire = Wire(never, login=login, log_in=never)

    with pytest.raises(CredentialsError, match="not an unencrypted RSA key") as refused:
        ask(wire)

    assert "SALESFORCE_PRIVATE_KEY_FILE" in refused.value.hint


def not_found(number: int) -> Server:
    """The host's name is looked up in vain; the failure as the real client raises it, wrapped twice."""

    def server(request: httpx.Request) -> httpx.Response:
        try:
            try:
                raise socket.gaierror(number, "Name or service not known")
            except OSError as cause:
                raise httpcore.ConnectError(cause) from cause
        except httpcore.ConnectError as cause:
            raise httpx.ConnectError(str(cause), request=request) from cause

    return server


@pytest.mark.parametrize(
    ("number", "tries"), [(socket.EAI_NONAME, 1), (socket.EAI_NODATA, 1), (socket.EAI_AGAIN, 2), (socket.EAI_FAIL, 2)]
)
def test_a_login_host_that_does_not_exist_is_told_at_once(number: int, tries: int) -> None:
    wire = Wire(never, log_in=not_found(number))

    with pytest.raises(
        Unreachable, match=r"The host acme\.my\.salesforce\.com of the login URL is not found"
    ) as failed:
        ask(wire)

    assert len(wire.logins) == tries
    assert "SALESFORCE_LOGIN_URL" in failed.value.hint


def test_a_name_that_cannot_be_looked_up_in_the_middle_of_a_night_is_a_connection_like_any_other() -> None:
    lost = not_found(socket.EAI_NONAME)
    wire = Wire(ok)
    ask(wire)
    wire.server = lambda request: lost(request) if len(wire.requests) < 4 else ok()

    assert ask(wire) == {"is": "well"}

    assert wire.pauses == [0.5, 1.0]


def test_a_real_look_up_of_a_host_that_cannot_exist_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    # Without a network the look-up may fail "for now" instead of "for good": then it is asked twice.
    pauses: list[float] = []
    login = Login("https://acme.invalid", client_id=Secret(CLIENT_ID), client_secret=Secret(CLIENT_SECRET))

    with Session(login, sleep=pauses.append) as session, pytest.raises(Unreachable, match=r"acme\.invalid") as failed:
        session.send("GET", "/limits", endpoint="test", read=nothing)

    assert "SALESFORCE_LOGIN_URL" in failed.value.hint
    assert len(pauses) <= 1


def test_an_org_that_never_answered_is_unreachable_after_all_tries() -> None:
    wire = Wire(never, log_in=lambda request: error(503))

    with pytest.raises(Unreachable, match="HTTP 503") as failed:
        ask(wire)

    assert (len(wire.logins), wire.pauses) == (6, [0.5, 1.0, 2.0, 4.0, 8.0])
    assert "SALESFORCE_LOGIN_URL" in failed.value.hint


@pytest.mark.parametrize(
    "reply",
    [
        lambda: httpx.Response(200, html=HTML),
        lambda: httpx.Response(200, json={"instance_url": INSTANCE_URL}),
        lambda: httpx.Response(429, text="slow down"),
    ],
)
def test_a_login_answered_by_something_else_is_unreachable(reply: Reply) -> None:
    wire = Wire(never, log_in=always(reply))

    with pytest.raises(Unreachable):
        ask(wire)


def test_a_login_that_worked_before_may_work_again() -> None:
    wire = Wire(always(lambda: httpx.Response(401, json=EXPIRED)))
    logged_in = wire.log_in
    wire.log_in = lambda request: logged_in(request) if len(wire.logins) == 1 else error(503)

    with pytest.raises(WireError, match=r"The login at .* got no usable answer") as failed:
        ask(wire)

    assert failed.value.status == 503


def test_a_login_above_the_limit_waits_for_headroom() -> None:
    wire = Wire(never, log_in=lambda request: error(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."))

    with pytest.raises(LimitExceeded):
        ask(wire)

    assert len(wire.logins) == 1


# the tenant host


def test_the_tenant_host_is_asked_with_an_exchanged_token() -> None:
    wire = Wire(always(ok), dataspace="sales")

    ask(wire, host="tenant")
    ask(wire, host="tenant")
    ask(wire)

    assert [str(request.url) for request in wire.exchanges] == [f"{INSTANCE_URL}/services/a360/token"]
    form = parse_qs(wire.exchanges[0].content.decode())
    assert form["subject_token"] == [access_token(1)]
    assert form["dataspace"] == ["sales"]
    assert [(f"https://{request.url.host}", path_of(request), bearer(request)) for request in wire.requests] == [
        (TENANT_URL, "/api/v3/query", tenant_token(1)),
        (TENANT_URL, "/api/v3/query", tenant_token(1)),
        (INSTANCE_URL, "/services/data/v66.0/limits", access_token(1)),
    ]


def test_a_tenant_token_is_renewed_a_minute_before_it_expires() -> None:
    wire = Wire(always(ok))

    ask(wire, host="tenant")
    wire.now += 7191 - 60 - 0.5
    ask(wire, host="tenant")
    assert len(wire.exchanges) == 1
    wire.now += 0.5
    ask(wire, host="tenant")

    assert (len(wire.exchanges), len(wire.logins)) == (2, 1)
    assert bearer(wire.requests[-1]) == tenant_token(2)


def test_threads_share_one_exchange() -> None:
    wire = Wire(always(ok))

    assert in_threads(lambda: ask(wire, host="tenant")) == [{"is": "well"}] * THREADS
    assert (len(wire.logins), len(wire.exchanges)) == (1, 1)


TENANT_EXPIRED = {
    "timestamp": "2026-11-22T02:00:00",
    "error": "Unauthorized",
    "message": "Authorization header verification failed",
    "internalErrorCode": "COMMON_ERROR_GENERIC",
    "details": {"status": "UNAUTHENTICATED: Invalid JWT (not before or expired)", "statusCode": 401},
}


def test_an_expired_tenant_token_renews_both_tokens_once() -> None:
    wire = Wire(answers(httpx.Response(401, json=TENANT_EXPIRED), ok()))

    assert ask(wire, host="tenant") == {"is": "well"}

    assert (len(wire.logins), len(wire.exchanges)) == (2, 2)
    assert bearer(wire.requests[-1]) == tenant_token(2)


def test_a_second_refusal_at_the_tenant_host_is_final() -> None:
    """That a core token could be exchanged proves nothing of the token it was exchanged for."""
    wire = Wire(always(lambda: httpx.Response(401, json=TENANT_EXPIRED)))

    with pytest.raises(CredentialsError, match="a new token was refused as well"):
        ask(wire, host="tenant")

    assert (len(wire.requests), len(wire.logins), len(wire.exchanges)) == (2, 2, 2)


def test_a_refused_exchange_is_final_and_names_the_scope() -> None:
    refusal = {"error": "invalid_scope", "error_description": "no cdp scope"}
    wire = Wire(never, exchange=lambda request: httpx.Response(400, json=refusal))

    with pytest.raises(RightsError, match="no cdp scope") as refused:
        ask(wire, host="tenant")

    assert "cdp_query_api" in refused.value.hint
    assert len(wire.exchanges) == 1


def test_an_exchange_with_an_expired_core_token_logs_in_again() -> None:
    wire = Wire(always(ok))
    exchanged = wire.exchange
    wire.exchange = lambda request: (
        httpx.Response(401, json=EXPIRED) if bearer(request) == access_token(1) else exchanged(request)
    )

    assert ask(wire, host="tenant") == {"is": "well"}

    assert [parse_qs(request.content.decode())["subject_token"][0] for request in wire.exchanges] == [
        access_token(1),
        access_token(2),
    ]


def test_a_fault_of_the_exchange_is_tried_again() -> None:
    wire = Wire(always(ok))
    exchanged = wire.exchange
    wire.exchange = lambda request: exchanged(request) if len(wire.exchanges) == 3 else error(503)

    assert ask(wire, host="tenant") == {"is": "well"}

    assert wire.pauses == [0.5, 1.0]


# where secrets go


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_nobody_else_sees_a_credential(status: int) -> None:
    def server(request: httpx.Request) -> httpx.Response:
        if request.url.host == "evil.example":
            never(request)
        return httpx.Response(status, headers={"Location": "https://evil.example/services"})

    wire = Wire(server)

    with pytest.raises(RequestRefused, match="a redirect, which is not followed"):
        ask(wire)
    with pytest.raises(RequestRefused, match="a redirect, which is not followed"):
        ask(wire, host="tenant")

    assert len(wire.requests) == 2


@pytest.mark.parametrize("status", [301, 307])
def test_a_redirected_login_sends_the_secret_nowhere(status: int) -> None:
    wire = Wire(never, log_in=lambda request: httpx.Response(status, headers={"Location": "https://evil.example"}))

    with pytest.raises(Unreachable, match="not followed"):
        ask(wire)

    assert len(wire.logins) == 1


@pytest.mark.parametrize("url", ["http://acme.my.salesforce.com", "https://acme@evil.example", "https://acme.com/path"])
def test_an_instance_url_that_is_not_safe_gets_no_token(url: str) -> None:
    granted = {"access_token": access_token(1), "instance_url": url, "id": f"https://x/id/{ORG_ID}/{USER_ID}"}
    wire = Wire(never, log_in=lambda request: httpx.Response(200, json=granted))

    with pytest.raises(CredentialsError, match="no token is sent there"):
        ask(wire)


def test_a_tenant_url_that_is_not_safe_gets_no_token() -> None:
    granted = {"access_token": tenant_token(1), "instance_url": "http://tenant.example", "expires_in": 7191}
    wire = Wire(never, exchange=lambda request: httpx.Response(200, json=granted))

    with pytest.raises(CredentialsError, match="no token is sent there"):
        ask(wire, host="tenant")


def test_every_token_goes_to_its_own_origin_alone() -> None:
    seen: list[tuple[str, str]] = []

    def server(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.host, bearer(request)))
        return ok()

    wire = Wire(server)
    ask(wire, host="core")
    ask(wire, host="tenant")

    assert seen == [
        ("acme-instance.my.salesforce.com", access_token(1)),
        ("tenant.c360a.salesforce.com", tenant_token(1)),
    ]
    assert [bearer(request) for request in wire.logins] == [""]
    for request in [*wire.logins, *wire.exchanges, *wire.requests]:
        assert CLIENT_SECRET not in str(request.url)
        assert "token-" not in str(request.url)


def secrets_of(wire: Wire) -> list[str]:
    """What must not be shown, as it is and as a form holds it."""
    sent = [value for request in wire.logins for value in parse_qs(request.content.decode()).get("assertion", [])]
    plain = [CLIENT_ID, CLIENT_SECRET, access_token(1), access_token(2), tenant_token(1), tenant_token(2), *sent]
    return [*plain, *(quote_plus(secret) for secret in plain)]


def echo(request: httpx.Request, status: int, *, as_text: bool) -> httpx.Response:
    """An org, or something on the way to it, that repeats everything it was sent."""
    told = f"{'.' * 150} {dict(request.headers)} {request.content.decode()} {parse_qs(request.content.decode())}"
    if as_text:
        return httpx.Response(status, text=told)
    return httpx.Response(status, json=[{"errorCode": "ECHO", "message": told}])


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("status", [400, 403, 503])
@pytest.mark.parametrize("host", ["core", "tenant"])
def test_no_error_and_no_log_line_repeats_a_secret(
    status: int, host: Host, as_text: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wire = Wire(lambda request: echo(request, status, as_text=as_text))

    with pytest.raises(SyncError) as failed:
        ask(wire, host=host)

    shown = f"{failed.value} {failed.value!r} {caplog.text} {vars(wire.session)!r}"
    assert "***" in shown
    assert [secret for secret in secrets_of(wire) if secret in shown] == []


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("status", [400, 503])
@pytest.mark.parametrize("which", ["login", "exchange", "jwt"])
def test_no_refused_login_repeats_a_secret(
    status: int, which: str, as_text: bool, caplog: pytest.LogCaptureFixture, key: Secret
) -> None:
    caplog.set_level(logging.DEBUG)
    signed = Login(LOGIN_URL, Secret(CLIENT_ID), username="sync@acme.com", private_key_pem=key)
    wire = Wire(never, login=signed if which == "jwt" else LOGIN)
    if which == "exchange":
        wire.exchange = lambda request: echo(request, status, as_text=as_text)
    else:
        wire.log_in = lambda request: echo(request, status, as_text=as_text)

    with pytest.raises(SyncError) as failed:
        ask(wire, host="tenant")

    shown = f"{failed.value} {failed.value!r} {caplog.text} {vars(wire.session)!r}"
    assert "***" in shown
    assert [secret for secret in secrets_of(wire) if secret in shown] == []


@given(st.integers(0, 1200))
def test_a_secret_is_hidden_wherever_a_long_message_is_cut(place: int) -> None:
    def server(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, text=f"{'.' * place}{bearer(request)}{'.' * 300}")

    with pytest.raises(RequestRefused) as refused:
        ask(Wire(server))

    assert access_token(1)[:8] not in str(refused.value)


def test_a_token_of_strange_letters_is_refused_before_it_is_sent() -> None:
    granted = {"access_token": "00D1!tök\nen", "instance_url": INSTANCE_URL, "id": f"https://x/id/{ORG_ID}/{USER_ID}"}
    wire = Wire(never, log_in=lambda request: httpx.Response(200, json=granted))

    with pytest.raises(CredentialsError, match="no token that can be sent"):
        ask(wire)


# counting


def test_every_request_that_reached_the_org_is_counted() -> None:
    wire = Wire(
        answers(
            httpx.ConnectError("refused"),
            error(503),
            httpx.ReadTimeout("slow"),
            httpx.Response(401, json=EXPIRED),
            httpx.Response(200, html=HTML),
            ok(),
        )
    )

    ask(wire)

    assert wire.counted == {"test": 5}


def test_refused_requests_count_too() -> None:
    wire = Wire(answers(error(404, "NOT_FOUND")))

    with pytest.raises(RequestRefused):
        ask(wire)

    assert wire.counted == {"test": 1}


def test_logins_and_exchanges_are_no_api_calls() -> None:
    wire = Wire(always(ok))

    ask(wire, host="tenant")

    assert wire.counted == {"test": 1}


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("api-usage=10018/100000", (10018, 100000)),
        ("api-usage=18/5000; per-app-api-usage=17/250(appName=sample-app)", (18, 5000)),
        ("per-app-api-usage=17/250(appName=sample-app)", None),
        ("per-app-api-usage=17/250(appName=x), api-usage=18/5000", (18, 5000)),
        ("api-usage=many/100000", None),
        ("api-usage=" + "9" * 5000 + "/1", None),
        ("", None),
    ],
)
def test_what_is_used_of_the_day_is_read_from_every_answer(header: str, found: tuple[int, int] | None) -> None:
    wire = Wire(answers(httpx.Response(200, json={}, headers={"Sforce-Limit-Info": header}), ok()))
    assert wire.session.limit_info is None

    ask(wire)
    ask(wire)

    assert wire.session.limit_info == found


def test_an_error_tells_what_is_used_too() -> None:
    wire = Wire(answers(httpx.Response(404, json=[], headers={"Sforce-Limit-Info": "api-usage=5/10"})))

    with pytest.raises(RequestRefused):
        ask(wire)

    assert wire.session.limit_info == (5, 10)


# what only sockets can show


class Handler(BaseHTTPRequestHandler):
    """Hands every request to the plain function of its server."""

    protocol_version = "HTTP/1.1"
    server: SocketServer

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length", 0))
        self.close_connection = self.server.reply(self, self.rfile.read(length))

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


class SocketServer(ThreadingHTTPServer):
    """``reply(handler, body)`` writes the answer and says whether the connection ends with it."""

    daemon_threads = False
    reply: Callable[[Handler, bytes], bool]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def listening(reply: Callable[[Handler, bytes], bool]) -> Iterator[SocketServer]:
    with SocketServer(("127.0.0.1", 0), Handler) as server:
        server.reply = reply
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def write(handler: Handler, content: dict[str, Any], *, length: int | None = None) -> bool:
    body = json.dumps(content).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)
    return length is not None


def local_org(handler: Handler, body: bytes) -> bool:
    if handler.path.endswith("/token"):
        url = f"http://127.0.0.1:{handler.server.server_address[1]}"
        identity = f"https://login.salesforce.com/id/{ORG_ID}/{USER_ID}"
        return write(handler, {"access_token": access_token(1), "instance_url": url, "id": identity})
    return write(handler, {"is": "well"})


def local_login(url: str) -> Login:
    return Login(url, client_id=Secret(CLIENT_ID), client_secret=Secret(CLIENT_SECRET))


def read_json(answer: Answer) -> Any:
    return as_json(dict[str, Any])(answer)


def test_a_request_to_this_machine_passes_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    overheard = []

    def proxy(handler: Handler, body: bytes) -> bool:
        overheard.append(handler.path)
        return write(handler, {})

    with listening(local_org) as org, listening(proxy) as between:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, between.url)
        with Session(local_login(org.url)) as session:
            assert session.send("GET", "/x", endpoint="test", read=read_json) == {"is": "well"}

    assert overheard == []


def test_an_answer_whose_connection_ends_early_is_asked_for_again() -> None:
    asked = []

    def reply(handler: Handler, body: bytes) -> bool:
        if handler.path.endswith("/token"):
            return local_org(handler, body)
        asked.append(handler.path)
        return write(handler, {"is": "well"}, length=1000 if len(asked) == 1 else None)

    with listening(reply) as org, Session(local_login(org.url), random=lambda: 0.0) as session:
        assert session.send("GET", "/x", endpoint="test", read=read_json) == {"is": "well"}

    assert len(asked) == 2


def test_nobody_answering_is_unreachable() -> None:
    with listening(local_org) as server:
        url = server.url

    with Session(local_login(url), random=lambda: 0.0) as session, pytest.raises(Unreachable, match="ConnectError"):
        session.send("GET", "/x", endpoint="test", read=nothing)


@pytest.fixture(scope="module")
def key() -> Secret:
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return Secret(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
