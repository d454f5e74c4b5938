"""Logins and tokens. What the org tells of a user is in ``identity.py``.

OAuth 2.0 client-credentials flow: https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_client_credentials_flow.htm
OAuth 2.0 JWT bearer flow: https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_jwt_flow.htm
Errors: https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_flow_errors.htm
OpenID Connect Token Introspection: https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oidc_token_introspection.htm
Data Cloud token exchange: https://developer.salesforce.com/docs/data/data-cloud-int/guide/c360-a-get-started.html

Knobs: ``clients`` (client id -> secret), ``jwt_public_key`` (PEM), ``token_seconds`` (idle time), ``token_calls``,
``tenant_token_seconds``, ``dataspaces``, ``exchange_with_scheme``.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

import httpx
import jwt

from sync_pipeline.simulated_org.call import (
    Call,
    Refused,
    Route,
    Session,
    TenantRefused,
    bytes_answer,
    empty_answer,
    json_answer,
)
from sync_pipeline.simulated_org.identifiers import whole_id
from sync_pipeline.simulated_org.identity import identity, identity_url, user_of, userinfo
from sync_pipeline.simulated_org.state import Org

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS token (
    token TEXT PRIMARY KEY, kind TEXT NOT NULL, client TEXT NOT NULL, user_id TEXT NOT NULL, dataspace TEXT NOT NULL,
    issued_at REAL NOT NULL, used_at REAL NOT NULL, calls INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""

CLIENTS: Final = {"simulated": "simulated"}
"""Client ids and secrets that are accepted when nobody set others."""
TOKEN_SECONDS: Final = 7200
"""Session timeout; each call begins it anew."""
TENANT_TOKEN_SECONDS: Final = 7200
TOUCH_SECONDS: Final = 30
"""A session's last use is written down no more often than this."""
SCOPE: Final = "api cdp_query_api cdp_profile_api"
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CDP_EXCHANGE: Final = "urn:salesforce:grant-type:external:cdp"
LOGIN_HOSTS: Final = ("login.salesforce.com", "test.salesforce.com")
ASSERTION_SECONDS_MAX: Final = 3600


def issue_token(call: Call) -> httpx.Response:
    """``POST /services/oauth2/token``: form body, query string, or HTTP Basic for the client."""
    org = call.org
    form = _form(call)
    grant = form.get("grant_type", "")
    if grant == "client_credentials":
        client = _checked_client(org, form)
        if call.request.url.host in LOGIN_HOSTS:
            raise _oauth_error("invalid_grant", "request not supported on this domain")
    elif grant == JWT_BEARER:
        client = _checked_assertion(call, form.get("assertion", ""))
    elif grant == "password":
        client = _checked_client(org, form)
        if not form.get("username") or not form.get("password"):
            raise _oauth_error("invalid_grant", "authentication failure")
    elif grant == "refresh_token":
        client = _checked_client(org, form)
        if not form.get("refresh_token"):
            raise _oauth_error("invalid_grant", "expired access/refresh token")
    else:
        raise _oauth_error("unsupported_grant_type", "grant type not supported")
    token = new_token(org, kind="core", client=client, user_id=org.user_id)
    issued_at = str(int(org.now() * 1000))
    # A real org names the login host here. This one names itself: whoever asks there shows the token.
    identity = identity_url(call, org.user_id)
    return json_answer(
        {
            "access_token": token,
            "signature": base64.b64encode(hashlib.sha256((identity + issued_at).encode()).digest()).decode(),
            "scope": SCOPE,
            "instance_url": call.base_url,
            "id": identity,
            "token_type": "Bearer",
            "token_format": "opaque",
            "issued_at": issued_at,
            "api_instance_url": call.base_url,
        },
        headers={"Cache-Control": "no-store"},
    )


def revoke_token(call: Call) -> httpx.Response:
    """``POST /services/oauth2/revoke``."""
    token = _form(call).get("token", "")
    with call.org.write("gate") as connection:
        found = connection.execute("DELETE FROM token WHERE token = ?", (token,)).rowcount
    if not found:
        raise _oauth_error("invalid_token", f"invalid token: {token[:15]}")
    return empty_answer(200)


def introspect_token(call: Call) -> httpx.Response:
    """``POST /services/oauth2/introspect``: what a client's own token is; of any other only that it is not active."""
    form = _form(call)
    client = _checked_client(call.org, form)
    call.org.schema(SCHEMA, "gate")
    found = find_session(call.org, form.get("token", ""), kind="core")
    if found is None or found.client != client:
        return json_answer({"active": False})
    issued_at, used_at = (
        call.org.db("gate")
        .execute("SELECT issued_at, used_at FROM token WHERE token = ?", (found.token,))
        .fetchone()
    )  # fmt: skip
    return json_answer(
        {
            "active": True,
            "scope": SCOPE,
            "client_id": client,
            "username": user_of(call.org, found.user_id)["Username"],
            "sub": identity_url(call, found.user_id),
            "token_type": "access_token",
            "exp": int(used_at + call.org.setting("token_seconds", TOKEN_SECONDS)),
            "iat": int(issued_at),
            "nbf": int(issued_at),
        }
    )


def show_userinfo(call: Call) -> httpx.Response:
    """``GET /services/oauth2/userinfo``."""
    return json_answer(userinfo(call, call.session.user_id))


def show_identity(call: Call) -> httpx.Response:
    """``GET /id/{org}/{user}``: the identity URL of a token's answer. Its refusals are words of plain text."""
    scheme, _, token = call.headers.get("authorization", "").partition(" ")
    token = token.strip() if scheme.lower() in ("bearer", "oauth") else ""
    if not token:
        return bytes_answer(b"Missing_OAuth_Token", "text/plain", status=403)
    if find_session(call.org, token, kind="core") is None:
        return bytes_answer(b"Bad_OAuth_Token", "text/plain", status=403)
    org_id, user_id = whole_id(call.parts["org"]), whole_id(call.parts["user"])
    if org_id is None or user_id not in (call.org.user_id, call.org.admin_id):
        return bytes_answer(b"Bad_Id", "text/plain", status=404)
    if org_id != call.org.org_id:
        return bytes_answer(b"Wrong_Org", "text/plain", status=403)
    return json_answer(identity(call, user_id))


def exchange_token(call: Call) -> httpx.Response:
    """``POST /services/a360/token``: a core token for one of the Data Cloud host; fields in the body or the query."""
    org = call.org
    form = _form(call)
    if form.get("grant_type") != CDP_EXCHANGE:
        raise _oauth_error("unsupported_grant_type", "grant type not supported")
    session = find_session(org, form.get("subject_token", ""), kind="core")
    if session is None:
        raise _oauth_error("invalid_grant", "expired access/refresh token")
    dataspace = form.get("dataspace") or "default"
    if dataspace not in org.setting("dataspaces", ["default"]):
        raise _oauth_error("invalid_request", f"dataspace {dataspace} is not authorized")
    seconds = int(org.setting("tenant_token_seconds", TENANT_TOKEN_SECONDS))
    token = new_token(org, kind="tenant", client=session.client, user_id=session.user_id, dataspace=dataspace)
    # Documents show the URL with its scheme, two official connectors expect it without.
    with_scheme = org.setting("exchange_with_scheme", True)
    return json_answer(
        {
            "access_token": token,
            "instance_url": call.base_url if with_scheme else call.base_url.partition("://")[2],
            "token_type": "Bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "expires_in": seconds - 9,
        },
        headers={"Cache-Control": "no-store"},
    )


def authenticate(org: Org, request: httpx.Request, *, tenant: bool) -> Session:
    """The session of the request's bearer token. Raises ``Refused`` or ``TenantRefused`` (401)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    kind = "tenant" if tenant else "core"
    session = find_session(org, token.strip(), kind=kind) if scheme.lower() in ("bearer", "oauth") else None
    if session is not None:
        return session
    if not tenant:
        raise Refused(401, "INVALID_SESSION_ID", "Session expired or invalid")
    raise TenantRefused(
        401,
        {
            "timestamp": int(org.now() * 1000),
            "error": "Unauthorized",
            "message": "Authorization header verification failed",
            "internalErrorCode": "COMMON_ERROR_GENERIC",
            "details": {"status": "UNAUTHENTICATED: Invalid JWT (not before or expired)", "statusCode": 401},
        },
    )


def find_session(org: Org, token: str, *, kind: str) -> Session | None:
    """Whose token that is, unless it has expired; counts as a use of it."""
    if not token:
        return None
    org.schema(SCHEMA, "gate")
    row = (
        org.db("gate")
        .execute("SELECT client, user_id, dataspace, issued_at, used_at, calls FROM token WHERE token = ? AND kind = ?",
                 (token, kind))
        .fetchone()
    )  # fmt: skip
    if row is None:
        return None
    client, user_id, dataspace, issued_at, used_at, calls = row
    now = org.now()
    most_calls = org.setting("token_calls")
    if kind == "core":
        expired = now - used_at >= org.setting("token_seconds", TOKEN_SECONDS)
    else:
        expired = now - issued_at >= org.setting("tenant_token_seconds", TENANT_TOKEN_SECONDS)
    if expired or (most_calls is not None and calls >= most_calls):
        return None
    if most_calls is not None or now - used_at >= TOUCH_SECONDS:
        with org.write("gate") as connection:
            connection.execute("UPDATE token SET used_at = ?, calls = calls + 1 WHERE token = ?", (now, token))
    return Session(token=token, client=client, user_id=user_id, dataspace=dataspace)


def new_token(org: Org, *, kind: str, client: str, user_id: str, dataspace: str = "default") -> str:
    """A token that every process of this org accepts."""
    org.schema(SCHEMA, "gate")
    now = org.now()
    if kind == "core":
        token = f"{org.org_id[:15]}!{secrets.token_urlsafe(72).replace('-', '.')}"
    else:
        seconds = int(org.setting("tenant_token_seconds", TENANT_TOKEN_SECONDS))
        claims = {
            "iss": "core", "sub": user_id, "exp": int(now) + seconds, "iat": int(now), "jti": secrets.token_hex(16),
            "audienceTenantId": f"a360/simulated/{org.org_id}", "dataspace": dataspace, "scp": SCOPE,
        }  # fmt: skip
        token = jwt.encode(claims, "only the org itself reads this signature, from its table", algorithm="HS256")
    with org.write("gate") as connection:
        connection.execute("DELETE FROM token WHERE used_at < ?", (now - 7 * 86_400,))
        connection.execute(
            "INSERT INTO token (token, kind, client, user_id, dataspace, issued_at, used_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (token, kind, client, user_id, dataspace, now, now),
        )
    return token


def expire_token(org: Org, token: str) -> None:
    """Ends a session before its time, as an administrator can."""
    org.schema(SCHEMA, "gate")
    with org.write("gate") as connection:
        connection.execute("DELETE FROM token WHERE token = ?", (token,))


ROUTES: Final = (
    Route("POST", "/services/oauth2/token", issue_token, "open"),
    Route("POST", "/services/oauth2/revoke", revoke_token, "open"),
    Route("GET", "/services/oauth2/revoke", revoke_token, "open"),
    Route("POST", "/services/oauth2/introspect", introspect_token, "open"),
    Route("GET", "/services/oauth2/userinfo", show_userinfo, "session"),
    Route("POST", "/services/oauth2/userinfo", show_userinfo, "session"),
    Route("GET", "/id/(?P<org>[^/]+)/(?P<user>[^/]+)", show_identity, "open"),
    Route("POST", "/services/a360/token", exchange_token, "open"),
)


def _form(call: Call) -> dict[str, str]:
    """Query string, form body and Basic credentials together."""
    form = dict(call.query)
    if call.body:
        form.update(parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True))
    scheme, _, credentials = call.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            client, _, secret = base64.b64decode(credentials).decode().partition(":")
        except ValueError:  # no Base64, or no text
            raise _oauth_error("invalid_client", "invalid client credentials") from None
        form.update({"client_id": client, "client_secret": secret})
    return form


def _checked_client(org: Org, form: Mapping[str, str]) -> str:
    clients: dict[str, str] = org.setting("clients", CLIENTS)
    client = form.get("client_id", "")
    if client not in clients:
        raise _oauth_error("invalid_client_id", "client identifier invalid")
    if not secrets.compare_digest(form.get("client_secret", "").encode(), clients[client].encode()):
        raise _oauth_error("invalid_client", "invalid client credentials")
    return client


def _checked_assertion(call: Call, assertion: str) -> str:
    """The client of a JWT. Without a registered key the signature is not checked, everything else is."""
    org = call.org
    key = org.setting("jwt_public_key")
    try:
        if jwt.get_unverified_header(assertion).get("alg") != "RS256":
            raise _oauth_error("invalid_grant", "invalid assertion")
        claims = jwt.decode(
            assertion,
            key or "",
            algorithms=["RS256"],
            options={"verify_signature": key is not None, "verify_aud": False, "verify_exp": False, "require": ["exp"]},
        )
    except jwt.InvalidTokenError:
        raise _oauth_error("invalid_grant", "invalid assertion") from None
    client, expires_at, now = str(claims.get("iss", "")), claims.get("exp"), org.now()
    if client not in org.setting("clients", CLIENTS):
        raise _oauth_error("invalid_client_id", "client identifier invalid")
    if not claims.get("sub"):
        raise _oauth_error("invalid_grant", "user hasn't approved this consumer")
    if claims.get("aud") not in (*(f"https://{host}" for host in LOGIN_HOSTS), call.base_url):
        raise _oauth_error("invalid_grant", "audience is invalid")
    if not isinstance(expires_at, int | float) or not now < expires_at <= now + ASSERTION_SECONDS_MAX:
        raise _oauth_error("invalid_grant", "expired authorization code")
    return client


def _oauth_error(code: str, description: str) -> TenantRefused:
    return TenantRefused(400, {"error": code, "error_description": description})
