"""A session over a plain function: the org is whatever the test says it is, and time passes only when somebody waits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import httpx
import pytest

from sync_pipeline.domain.errors import Stopped
from sync_pipeline.domain.secret import Secret
from sync_pipeline.salesforce.auth import EXCHANGE_PATH, TOKEN_PATH, Login
from sync_pipeline.salesforce.session import Session

Server = Callable[[httpx.Request], httpx.Response]
Item = TypeVar("Item")

LOGIN_URL = "https://acme.my.salesforce.com"
INSTANCE_URL = "https://acme-instance.my.salesforce.com"
TENANT_URL = "https://tenant.c360a.salesforce.com"
CLIENT_ID = "3MVG9-consumer-key"
CLIENT_SECRET = "s3cret/of+the app"
ORG_ID = "00D000000000001EAA"
USER_ID = "005000000000001AAA"
LOGIN = Login(LOGIN_URL, client_id=Secret(CLIENT_ID), client_secret=Secret(CLIENT_SECRET))

EXPIRED = [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]
"""Body of a 401 of the core host."""


def access_token(number: int) -> str:
    """The token that the login of that number gives, as the org writes them."""
    return f"00D000000000001!AQ.token-{number}"


def tenant_token(number: int) -> str:
    """The token that the exchange of that number gives."""
    return f"eyJ0ZW5hbnQi.token-{number}.c2ln"


def never(request: httpx.Request) -> httpx.Response:
    raise AssertionError(f"nobody should have asked {request.method} {request.url}")


class Wire:
    """A session whose org is ``server``. Logins and token exchanges are answered here, unless other functions are named.

    ``requests`` holds what reached the org besides them, in order; ``calls`` what was counted. ``now`` is the clock in
    seconds; a wait moves it on and is written down in ``pauses``, unless the work ``is_interrupted``. ``jitter`` is what the
    random numbers are.
    """

    def __init__(
        self,
        server: Server,
        *,
        login: Login = LOGIN,
        log_in: Server | None = None,
        exchange: Server | None = None,
        dataspace: str = "default",
        api_version: str = "66.0",
    ) -> None:
        self.server = server
        self.log_in = log_in or self._logged_in
        self.exchange = exchange or self._exchanged
        self.requests: list[httpx.Request] = []
        self.logins: list[httpx.Request] = []
        self.exchanges: list[httpx.Request] = []
        self.calls: list[str] = []
        self.pauses: list[float] = []
        self.now = 1_000.0
        self.epoch = 1_800_000_000.0
        self.jitter = 1.0
        self.is_interrupted = False
        self.session = Session(
            login,
            api_version=api_version,
            dataspace=dataspace,
            transport=httpx.MockTransport(self._handle),
            on_call=self.calls.append,
            sleep=self.sleep,
            clock=lambda: self.now,
            epoch=lambda: self.epoch,
            random=lambda: self.jitter,
        )

    def sleep(self, seconds: float) -> None:
        if self.is_interrupted:
            raise Stopped("Stopped: a person pressed stop.")
        if seconds:  # 0 is only a place where the work may be interrupted
            self.pauses.append(seconds)
        self.now += seconds
        self.epoch += seconds

    @property
    def sent(self) -> list[tuple[str, str]]:
        """Method and path of every request besides logins and exchanges, the path as it was written on the wire."""
        return [(request.method, path_of(request)) for request in self.requests]

    @property
    def counted(self) -> dict[str, int]:
        """How often each endpoint was counted."""
        return dict(Counter(self.calls))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == TOKEN_PATH:
            self.logins.append(request)
            return self.log_in(request)
        if request.url.path == EXCHANGE_PATH:
            self.exchanges.append(request)
            return self.exchange(request)
        self.requests.append(request)
        return self.server(request)

    def _logged_in(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200,
            json={
                "access_token": access_token(len(self.logins)),
                "instance_url": INSTANCE_URL,
                "id": f"https://login.salesforce.com/id/{ORG_ID}/{USER_ID}",
                "token_type": "Bearer",
                "issued_at": "1800000000000",
                "signature": "c2lnbmF0dXJl",
            },
        )

    def _exchanged(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200,
            json={
                "access_token": tenant_token(len(self.exchanges)),
                "instance_url": TENANT_URL,
                "token_type": "Bearer",
                "issued_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "expires_in": 7191,
            },
        )


def path_of(request: httpx.Request) -> str:
    return request.url.raw_path.decode().partition("?")[0]


def bearer(request: httpx.Request) -> str:
    """The token that a request carries, empty without one."""
    return str(request.headers.get("authorization", "")).removeprefix("Bearer ")


def body_of(request: httpx.Request) -> Any:
    """The JSON that a request carries."""
    return json.loads(request.content)


def answers(*replies: httpx.Response | Exception) -> Server:
    """A server that gives one reply after the other; one too many requests is an error."""
    left = list(replies)

    def server(request: httpx.Request) -> httpx.Response:
        assert left, f"no reply is left for {request.method} {request.url}"
        reply = left.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    return server


@contextmanager
def abandoned(items: Iterator[Item]) -> Iterator[Iterator[Item]]:
    """What is not taken of them by the end is never asked for."""
    assert isinstance(items, Generator)
    with closing(items):
        yield items


class Piecewise(httpx.SyncByteStream):
    """A body that comes in pieces; an exception among them breaks it off there."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A session over a server that each test sets: ``wire.server = …``."""
    wire = Wire(never)
    yield wire
    wire.session.close()
