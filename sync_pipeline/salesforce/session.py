"""Every HTTP request of the pipeline goes through ``Session.send``.

It logs in when there is no token, sends, reads the answer, and holds what went wrong against one table of rules
(``STATUS_RULES``, ``CODE_RULES``, ``EXCEPTION_RULES``): send again, log in again once, or raise an error of
``domain/errors.py``. Tokens go to three origins alone: the login URL, the instance URL of the token (both https, or
loopback), and the tenant host of the exchanged token. Redirects are not followed.

REST errors: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm
"""

from __future__ import annotations

import copy
import logging
import random as random_numbers
import re
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any, Literal, NoReturn, Self, TypeVar
from urllib.parse import quote, quote_plus, urlencode, urlsplit

import httpx
import msgspec

from sync_pipeline.domain.errors import (
    CredentialsError,
    LimitExceeded,
    RequestRefused,
    RightsError,
    SettingsError,
    SyncError,
    Unreachable,
    WireError,
)
from sync_pipeline.domain.origin import is_loopback
from sync_pipeline.domain.secret import Secret
from sync_pipeline.salesforce.answer import Answer, BadAnswer, as_json
from sync_pipeline.salesforce.auth import (
    EXCHANGE_PATH,
    TOKEN_PATH,
    Login,
    TenantToken,
    Token,
    TokenAnswer,
    exchange_form,
    next_step,
    read_tenant_token,
    read_token,
    token_form,
)

T = TypeVar("T")
Host = Literal["core", "tenant"]

log = logging.getLogger(__name__)

TRIES = 6
"""How often one request is sent at most."""
RETRY_SECONDS = 300.0
"""No further try starts after this time since the first one."""
BACKOFF_SECONDS = 0.5
"""Upper bound of the first pause; it doubles with each try. The pause itself is drawn between 0 and the bound."""
BACKOFF_SECONDS_MAX = 30.0
RETRY_AFTER_SECONDS_MAX = 300.0
"""The longest ``Retry-After`` that is waited for. An org that asks for more is not asked again by this request: the night
parks and looks again later."""
RETRY_AFTER_SECONDS_ALL = 900.0
"""All waits of one request that the org asked for; they count neither as tries nor into ``RETRY_SECONDS``."""
RETRY_AFTER_WAITS = 30
"""How many of them: an org that asks for no wait at all, again and again, is not asked for ever."""
RETRY_AFTER_STATUSES = frozenset({429, 503})
"""Statuses with which ``Retry-After`` means that nothing was done and when to come back, whatever the error code says:
https://www.rfc-editor.org/rfc/rfc9110#name-retry-after, https://www.rfc-editor.org/rfc/rfc6585#section-4"""
NAME_TRIES = 2
"""How often a name is looked up whose server does not answer, before anybody has logged in."""
UNKNOWN_NAME = frozenset(
    {
        socket.EAI_NONAME,
        getattr(socket, "EAI_NODATA", socket.EAI_NONAME),
        getattr(socket, "EAI_ADDRFAMILY", socket.EAI_NONAME),
    }
)
"""Errors of a look-up that will say the same again: there is no such host, or it has no address."""
LOGINS_PER_REQUEST = 3
"""New logins one request may cause, given that each token had worked in between; else one."""
TENANT_TOKEN_MARGIN_SECONDS = 60.0
"""A tenant token is renewed this long before it expires."""
TIMEOUT = httpx.Timeout(connect=10.0, read=130.0, write=130.0, pool=130.0)
"""Seconds. Reading outlasts a long poll (10 s) and the 120 s that Salesforce may think about a page."""
CONNECTIONS = httpx.Limits(max_connections=64, max_keepalive_connections=32, keepalive_expiry=20.0)
OPENED = ("connection.connect_tcp.complete", "connection.start_tls.complete", "proxy.start_tls.complete")
"""Events of the HTTP client whose result is a connection: https://www.encode.io/httpcore/extensions/"""
REASON_CHARACTERS = 1000
"""How much of what an answer says goes into an error."""
REST_UNUSABLE = "not valid for use with the REST API"
"""Part of the message of a 401 that no login can heal."""


class Fate(Enum):
    """What is done about a request that did not succeed."""

    AGAIN = auto()
    """The org did nothing: send again, whatever it is."""
    LOST = auto()
    """The org may have acted: send again what may be repeated, else raise ``WireError``."""
    LOGIN = auto()
    """The token is not accepted (any more): log in once, send again."""
    LIMIT = auto()
    """An allocation is used up: ``LimitExceeded``."""
    RIGHTS = auto()
    """The user may not do this: ``RightsError``."""
    REFUSED = auto()
    """The org understood and said no: ``RequestRefused``."""


STATUS_RULES: Mapping[int, Fate] = {
    401: Fate.LOGIN,
    403: Fate.RIGHTS,
    408: Fate.LOST,
    420: Fate.AGAIN,  # Salesforce Edge had no route to the org
    425: Fate.AGAIN,
    429: Fate.AGAIN,
    500: Fate.LOST,
    501: Fate.REFUSED,
    502: Fate.LOST,
    503: Fate.LOST,
    504: Fate.LOST,
}
"""By status. Not listed: above 500 ``LOST``, everything else ``REFUSED``."""

CODE_RULES: Mapping[str, Fate] = {
    "INVALID_SESSION_ID": Fate.LOGIN,  # also seen with status 403
    "InvalidSessionId": Fate.LOGIN,  # Bulk API's own spelling, seen with status 400
    "REQUEST_LIMIT_EXCEEDED": Fate.LIMIT,
    "EXCEEDEDQUOTA": Fate.LIMIT,
    "ExceededQuota": Fate.LIMIT,
    "API_DISABLED_FOR_ORG": Fate.RIGHTS,
    "INSUFFICIENT_ACCESS": Fate.RIGHTS,
    "53S01": Fate.REFUSED,  # a statement over its time limit comes as 429, and would take as long again
}
"""By error code; goes before the status."""

EXCEPTION_RULES: tuple[tuple[type[httpx.TransportError], Fate], ...] = (
    (httpx.ConnectError, Fate.AGAIN),
    (httpx.ConnectTimeout, Fate.AGAIN),
    (httpx.PoolTimeout, Fate.AGAIN),
    (httpx.ProxyError, Fate.AGAIN),
    (httpx.UnsupportedProtocol, Fate.REFUSED),
    (httpx.TransportError, Fate.LOST),  # read, write, protocol and timeout errors after something was sent
)
"""By exception; the first that fits counts. An answer that cannot be believed is ``LOST``."""


@dataclass(frozen=True)
class Trouble:
    """Why one try did not succeed."""

    fate: Fate
    reason: str
    status: int | None = None
    code: str = ""
    retry_after: float | None = None
    """Seconds, when the org asked to be asked again after so many and is taken at its word."""
    name_error: int | None = None
    """What the look-up of the host's name failed with, one of ``socket.EAI_*``."""


@dataclass(frozen=True)
class _Request:
    method: str
    host: Literal["login", "core", "tenant"]
    path: str
    endpoint: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: Callable[[], Iterable[bytes] | bytes] | None
    repeat: bool
    counts: bool = True


@dataclass
class _Tokens:
    """What all threads share. ``generation`` counts logins; ``proven`` is the newest one that an answer accepted.

    A token is kept with the generation it belongs to, as one value, so that it can be read without the lock.
    """

    core: tuple[Token, int] | None = None
    tenant: tuple[TenantToken, int] | None = None
    generation: int = 0
    proven: int = 0
    failures: int = 0
    failure: SyncError | None = None
    known: set[Secret] = field(default_factory=set)
    """Every secret that was sent or received, so that no error repeats one."""


class Session:
    """The one HTTP client of a process, for any number of threads.

    ``on_call(endpoint)`` is told every request that reached the org and may count against its limits, retries
    included; it is called from many threads. ``sleep`` may raise ``Stopped``: it is where a wait is interrupted.
    With a ``transport`` the org is reached through it instead of the network.
    """

    def __init__(
        self,
        login: Login,
        *,
        api_version: str = "66.0",
        dataspace: str = "default",
        transport: httpx.BaseTransport | None = None,
        on_call: Callable[[str], None] = lambda endpoint: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        epoch: Callable[[], float] = time.time,
        random: Callable[[], float] = random_numbers.random,
    ) -> None:
        if not re.fullmatch(r"\d{2,3}\.\d", api_version):
            raise SettingsError(
                f"The API version is {api_version!r}.", hint="Write it like 66.0 (SALESFORCE_API_VERSION)."
            )
        self.dataspace = dataspace
        self.sleep = sleep
        self.clock = clock
        self._login = login
        self._version_root = f"/services/data/v{api_version}"
        self._on_call = on_call
        self._epoch = epoch
        self._random = random
        self._lock = threading.RLock()
        secrets = (login.client_id, login.client_secret, login.private_key_pem)
        self._tokens = _Tokens(known={secret for secret in secrets if secret})
        self._limit_info: tuple[int, int] | None = None
        self._streams: weakref.WeakSet[Any] = weakref.WeakSet()
        is_local = transport is not None or is_loopback(urlsplit(login.login_origin).hostname or "")
        self._client = httpx.Client(
            transport=transport,
            timeout=TIMEOUT,
            limits=CONNECTIONS,
            follow_redirects=False,
            # A proxy of the environment is for the world outside, never for a request to this machine.
            trust_env=not is_local,
            headers={"User-Agent": "sync-pipeline", "Accept-Encoding": "identity" if is_local else "gzip"},
        )

    @property
    def org_id(self) -> str:
        return self._core_token()[0].org_id

    @property
    def user_id(self) -> str:
        return self._core_token()[0].user_id

    @property
    def api_version(self) -> str:
        """Version of every call to the core host, like ``66.0``."""
        return self._version_root.rpartition("v")[2]

    @property
    def instance_url(self) -> str:
        return self._core_token()[0].instance_url

    @property
    def limit_info(self) -> tuple[int, int] | None:
        """API calls used and allowed in 24 hours, as the newest ``Sforce-Limit-Info`` says; ``None`` before one came."""
        return self._limit_info

    def send(
        self,
        method: str,
        path: str,
        *,
        endpoint: str,
        read: Callable[[Answer], T],
        host: Host = "core",
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        body: Callable[[], Iterable[bytes]] | None = None,
        repeat: bool = True,
    ) -> T:
        """Sends one request and gives what ``read`` makes of the answer.

        ``path`` of the core host follows ``/services/data/vNN.0``; of the tenant host it is whole. ``json`` is encoded;
        ``body`` is called anew for each try. ``read`` may be called again after a try that failed on the way.
        ``repeat=False`` marks a request that must not reach the org twice: when its answer may have been lost,
        ``WireError`` is raised at once.

        Raises ``RequestRefused``, ``RightsError``, ``LimitExceeded``, ``CredentialsError``, ``WireError``, and
        ``Unreachable`` when not even the first login got through.
        """
        sent_headers = dict(headers or {})
        encoded = b"" if json is None else msgspec.json.encode(json)
        if json is not None:
            sent_headers.setdefault("Content-Type", "application/json; charset=UTF-8")
        request = _Request(
            method=method,
            host=host,
            path=path if host == "tenant" else self._version_root + path,
            endpoint=endpoint,
            params=params or {},
            headers=sent_headers,
            body=body if json is None else lambda: encoded,
            repeat=repeat,
        )
        return self._repeat(request, read)

    def cut(self) -> None:
        """Ends every request that is under way as if its connection had been cut: a hanging one is not waited for."""
        for stream in tuple(self._streams):
            with suppress(OSError):  # it is closed already
                socket.socket.shutdown(stream.get_extra_info("socket"), socket.SHUT_RDWR)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _repeat(self, request: _Request, read: Callable[[Answer], T]) -> T:
        started = self.clock()
        tries = logins = waits = 0
        waited = 0.0
        while True:
            tries += 1
            generation, origin, token = self._authority(request.host)
            outcome = self._once(request, origin, token, read)
            if not isinstance(outcome, Trouble):
                if request.counts:  # a token exchange proves nothing of the token that it gives
                    self._tokens.proven = max(self._tokens.proven, generation)
                return outcome
            if outcome.fate is Fate.LOGIN and request.host != "login":
                self._log_in_again(request, outcome, generation, logins)
                logins += 1
                tries -= 1
                continue
            may_repeat = outcome.fate is Fate.AGAIN or (outcome.fate is Fate.LOST and request.repeat)
            pause = self._pause(tries + waits, outcome)
            if outcome.retry_after is not None:
                if waits == RETRY_AFTER_WAITS or waited + pause > RETRY_AFTER_SECONDS_ALL:
                    self._fail(request, replace(outcome, fate=Fate.LIMIT), tries + waits)
                waits, waited, tries = waits + 1, waited + pause, tries - 1
                log.warning(
                    "%s: %s; the org asks to be asked again in %.1f s, wait %d (%.0f s in all)",
                    request.endpoint, outcome.reason, pause, waits, waited,
                )  # fmt: skip
                self.sleep(pause)
                if not may_repeat:
                    self._fail(request, outcome, tries + waits)
                continue
            if (
                not may_repeat
                or tries >= self._tries(outcome)
                or self.clock() - started - waited + pause > RETRY_SECONDS
            ):
                self._fail(request, outcome, tries + waits)
            log.warning(
                "%s: %s; try %d of %d follows in %.1f s", request.endpoint, outcome.reason, tries + 1, TRIES, pause
            )
            self.sleep(pause)

    def _once(self, request: _Request, origin: str, token: Secret | None, read: Callable[[Answer], T]) -> T | Trouble:
        headers = {"Accept": "application/json", **request.headers}
        if token is not None:
            headers["Authorization"] = f"Bearer {token.reveal()}"
        body = None if request.body is None else request.body()
        try:
            message = self._client.build_request(
                request.method,
                origin + request.path,
                params=dict(request.params) or None,
                headers=headers,
                content=body,
                extensions={"trace": self._note_stream},
            )
            response = self._client.send(message, stream=True)
        except httpx.TransportError as error:
            return self._exception_trouble(request, error)
        self._count(request)
        try:
            self._note_limit(response.headers.get("sforce-limit-info", ""))
            answer = Answer(response)
            if 200 <= answer.status < 300:
                return read(answer)
            return self._status_trouble(answer)
        except BadAnswer as error:
            reason = self._redacted(f"HTTP {answer.status} with {error.reason}")
            return Trouble(Fate.REFUSED if error.is_final else Fate.LOST, reason, status=answer.status)
        except httpx.TransportError as error:
            return Trouble(Fate.LOST, f"the answer broke off ({type(error).__name__})")
        finally:
            response.close()

    def _status_trouble(self, answer: Answer) -> Trouble:
        complaint = answer.complaint()
        status = answer.status
        rule = CODE_RULES.get(complaint.code)
        fate = rule or STATUS_RULES.get(status) or (Fate.LOST if status >= 500 else Fate.REFUSED)
        if fate is Fate.LIMIT and "concurrent" in complaint.message.lower():
            fate = Fate.AGAIN  # too many long requests at this moment, not a used-up day
        if fate is Fate.LOGIN and REST_UNUSABLE in complaint.message:
            fate = Fate.RIGHTS
        retry_after = self._retry_after(answer)
        if retry_after is not None:
            is_day_over = status == 429 and self._is_used_up()
            if is_day_over or retry_after > RETRY_AFTER_SECONDS_MAX:
                fate = Fate.LIMIT
            else:  # a 503 may come from a server in front of the org, after the org did the work
                fate = Fate.AGAIN if status == 429 else Fate.LOST
        reason = f"HTTP {status}"
        if 300 <= status < 400:
            reason += " (a redirect, which is not followed)"
        if complaint.code or complaint.message:
            reason += f" {complaint.code}: {complaint.message}" if complaint.code else f" {complaint.message}"
        if retry_after is not None:
            reason += f" (Retry-After: {retry_after:.0f} s)"
        return Trouble(
            fate,
            self._redacted(reason),
            status,
            complaint.code,
            None if fate is Fate.LIMIT else retry_after,
        )

    def _exception_trouble(self, request: _Request, error: httpx.TransportError) -> Trouble:
        fate = next(fate for kind, fate in EXCEPTION_RULES if isinstance(error, kind))
        reason = f"no answer ({type(error).__name__}: {error})" if str(error) else f"no answer ({type(error).__name__})"
        if _is_certificate(error):
            fate = Fate.REFUSED  # the same certificate would be shown again
        if fate is Fate.LOST:
            self._count(request)
        return Trouble(fate, self._redacted(reason), name_error=_name_error(error))

    def _fail(self, request: _Request, trouble: Trouble, tries: int) -> NoReturn:
        what = f"{request.method} {request.path} ({request.endpoint})"
        if request.host == "login":
            self._fail_login(trouble)
        if trouble.fate is Fate.LIMIT or CODE_RULES.get(trouble.code) is Fate.LIMIT:
            raise LimitExceeded(
                f"{what}: {trouble.reason}.", hint="Wait for headroom; `sync-pipeline limits` shows what is left."
            )
        if trouble.fate is Fate.RIGHTS:
            raise RightsError(
                f"{what}: {trouble.reason}.", hint="Give the user the right, or log in as another one; see `doctor`."
            )
        if trouble.fate is Fate.REFUSED and trouble.status is not None and trouble.status >= 300:
            raise RequestRefused(f"{what}: {trouble.reason}.", status=trouble.status, code=trouble.code)
        raise WireError(
            f"{what}: {trouble.reason}, after {tries} {'try' if tries == 1 else 'tries'}.",
            hint="The run can go on later from its ledger.",
            status=trouble.status,
            code=trouble.code,
        )

    def _fail_login(self, trouble: Trouble) -> NoReturn:
        where = self._login.login_origin
        if (
            trouble.status is not None
            and 400 <= trouble.status < 500
            and trouble.fate in (Fate.REFUSED, Fate.LOGIN, Fate.RIGHTS)
        ):
            raise CredentialsError(
                f"The login at {where} was refused: {trouble.reason}.", hint=next_step(trouble.code, trouble.reason)
            )
        if trouble.fate is Fate.LIMIT and (trouble.status != 503 or self._tokens.generation):
            raise LimitExceeded(f"The login at {where} was refused: {trouble.reason}.", hint="Wait for headroom.")
        if trouble.name_error is not None and self._tokens.generation == 0:
            raise Unreachable(
                f"The host {urlsplit(where).hostname} of the login URL is not found: {trouble.reason}.",
                hint="Check SALESFORCE_LOGIN_URL, and whether this machine can look up names (DNS).",
            )
        message = f"The login at {where} got no usable answer: {trouble.reason}."
        if self._tokens.generation == 0:
            raise Unreachable(message, hint="Check SALESFORCE_LOGIN_URL, the network, and the org's status page.")
        raise WireError(message, hint="The run can go on later from its ledger.", status=trouble.status)

    def _authority(self, host: Literal["login", "core", "tenant"]) -> tuple[int, str, Secret | None]:
        """Generation, origin and token for the next try."""
        if host == "login":
            return 0, self._login.login_origin, None
        if host == "core":
            core, generation = self._core_token()
            return generation, core.instance_url, core.access_token
        tenant, generation = self._tenant_token()
        return generation, tenant.instance_url, tenant.access_token

    def _core_token(self) -> tuple[Token, int]:
        failures = self._tokens.failures
        return self._tokens.core or self._one_login(failures)

    def _one_login(self, failures: int) -> tuple[Token, int]:
        """The token of one login for all threads; ``failures`` is what was counted before this thread began to wait."""
        tokens = self._tokens
        with self._lock:
            if tokens.core is not None:
                return tokens.core
            if tokens.failures != failures and tokens.failure is not None:
                # Another thread was refused while this one waited; asking again for each lane would be a login storm.
                raise copy.copy(tokens.failure)
            return self._log_in()

    def _log_in(self) -> tuple[Token, int]:
        tokens = self._tokens
        request = _Request(
            method="POST",
            host="login",
            path=TOKEN_PATH,
            endpoint="token",
            params={},
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=self._token_body,
            repeat=True,
            counts=False,
        )
        try:
            token = read_token(self._repeat(request, as_json(TokenAnswer)))
        except SyncError as error:
            tokens.failure = error
            tokens.failures += 1
            raise
        tokens.known.add(token.access_token)
        tokens.generation += 1
        tokens.core = token, tokens.generation
        tokens.tenant = None
        log.info("logged in to %s as user %s", token.org_id, token.user_id or "unknown")
        return tokens.core

    def _token_body(self) -> bytes:
        form = token_form(self._login, now=self._epoch())
        if "assertion" in form:
            self._tokens.known.add(Secret(form["assertion"]))
        return urlencode(form).encode()

    def _log_in_again(self, request: _Request, trouble: Trouble, generation: int, logins: int) -> None:
        """Makes sure that a token newer than ``generation`` is there, with one login for all threads."""
        has_worked = self._tokens.proven >= generation
        if logins >= (LOGINS_PER_REQUEST if has_worked else 1):
            raise CredentialsError(
                f"{request.method} {request.path} ({request.endpoint}): a new token was refused as well: {trouble.reason}.",
                hint="Check the session settings and the IP restrictions of the app and of the user.",
            )
        failures = self._tokens.failures
        with self._lock:
            if self._tokens.generation == generation:
                self._tokens.core = self._tokens.tenant = None
            self._one_login(failures)

    def _tenant_token(self) -> tuple[TenantToken, int]:
        """The token of the Data Cloud host, exchanged anew a while before it expires."""
        fresh = self._fresh_tenant_token()
        if fresh is not None:
            return fresh
        with self._lock:
            fresh = self._fresh_tenant_token()
            if fresh is not None:
                return fresh
            asked_at = self.clock()
            request = _Request(
                method="POST",
                host="core",
                path=EXCHANGE_PATH,
                endpoint="token",
                params={},
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=lambda: urlencode(exchange_form(self._core_token()[0], self.dataspace)).encode(),
                repeat=True,
                counts=False,
            )
            try:
                answer = self._repeat(request, as_json(TokenAnswer))
            except RequestRefused as error:
                raise RightsError(
                    f"The token exchange for Data Cloud was refused: {error.message}",
                    hint="Add the scope cdp_query_api to the app, check DATA_CLOUD_DATASPACE, or set DATA_CLOUD_QUERY_API=connect.",
                ) from None
            tenant = read_tenant_token(answer, asked_at=asked_at)
            self._tokens.known.add(tenant.access_token)
            self._tokens.tenant = tenant, self._tokens.generation
            return self._tokens.tenant

    def _fresh_tenant_token(self) -> tuple[TenantToken, int] | None:
        held = self._tokens.tenant
        if held is None or self.clock() >= held[0].expires_at - TENANT_TOKEN_MARGIN_SECONDS:
            return None
        return held

    def _count(self, request: _Request) -> None:
        if request.counts:
            self._on_call(request.endpoint)

    def _note_stream(self, event: str, info: Mapping[str, Any]) -> None:
        """Hears what the client does with its connections, and keeps those that are opened."""
        if event in OPENED:
            self._streams.add(info["return_value"])

    def _note_limit(self, header: str) -> None:
        found = re.search(r"(?<![\w-])api-usage=([0-9]{1,15})/([0-9]{1,15})", header)
        if found:
            self._limit_info = int(found[1]), int(found[2])

    def _pause(self, tries: int, trouble: Trouble) -> float:
        bound: float = min(BACKOFF_SECONDS * 2 ** (tries - 1), BACKOFF_SECONDS_MAX)
        drawn = bound * self._random()
        return drawn if trouble.retry_after is None else max(drawn, trouble.retry_after)

    def _tries(self, trouble: Trouble) -> int:
        """How often a request that meets this trouble is sent. A name that was never found is not looked for six times;
        in the middle of a night it is a connection like any other that cannot be made just now."""
        if trouble.name_error is None or self._tokens.generation > 0:
            return TRIES
        return 1 if trouble.name_error in UNKNOWN_NAME else NAME_TRIES

    def _is_used_up(self) -> bool:
        """Whether the org's own count of its calls, as last told, says that none is left today."""
        return self._limit_info is not None and self._limit_info[0] >= self._limit_info[1]

    def _retry_after(self, answer: Answer) -> float | None:
        """Seconds after which the org asks to be asked again; ``None`` when it does not, or in no form that is known."""
        header = answer.headers.get("retry-after", "")
        if not header or answer.status not in RETRY_AFTER_STATUSES:
            return None
        if re.fullmatch(r"[0-9]+", header.strip()):
            return float(header)
        try:
            when = parsedate_to_datetime(header)
        except (ValueError, OverflowError):
            return None
        return max((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - self._epoch(), 0.0)

    def _redacted(self, text: str) -> str:
        """The start of the text, without any secret that an answer may have echoed as it is or as a form holds it."""
        known = {secret.reveal() for secret in tuple(self._tokens.known)}
        for secret in sorted(known | {quote_plus(secret) for secret in known}, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text if len(text) <= REASON_CHARACTERS else text[:REASON_CHARACTERS] + "…"


def path_part(name: str) -> str:
    """An id of the org as one part of a path. Query ids hold a literal ``%2F`` in some orgs, so ``%`` stays as it is."""
    if not name or len(name) > 1000 or not name.isprintable() or set(name) <= {"."}:
        raise WireError(f"The org named an id that cannot be used: {name[:80]!r}.", hint="Run it again.")
    return quote(name, safe="%")


def _is_certificate(error: BaseException) -> bool:
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))


def _name_error(error: BaseException) -> int | None:
    """The number of a look-up's failure among the causes of an error. The HTTP client wraps it twice."""
    return next((cause.errno for cause in _causes(error) if isinstance(cause, socket.gaierror)), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from or during, and so on."""
    seen = 0
    while error is not None and seen < 10:
        yield error
        error, seen = error.__cause__ or error.__context__, seen + 1
