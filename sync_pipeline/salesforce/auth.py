"""Tokens: what is asked for, and what an answer must look like to be believed. No I/O; ``session.py`` does the asking.

OAuth 2.0 client-credentials flow: https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_client_credentials_flow.htm
OAuth 2.0 JWT bearer flow: https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_jwt_flow.htm
Data Cloud token exchange: https://developer.salesforce.com/docs/data/data-cloud-int/guide/c360-a-get-started.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from sync_pipeline.domain.errors import CredentialsError, SettingsError
from sync_pipeline.domain.origin import origin
from sync_pipeline.domain.secret import Secret

TOKEN_PATH = "/services/oauth2/token"
EXCHANGE_PATH = "/services/a360/token"
ASSERTION_SECONDS = 180
"""Life of a JWT assertion; Salesforce accepts at most about three minutes. The token lives on for the session time."""
TENANT_TOKEN_SECONDS = 7200.0
"""Assumed life of a tenant token whose answer does not say."""

NEXT_STEPS: tuple[tuple[str, str], ...] = (
    ("request not supported on this domain", "Set SALESFORCE_LOGIN_URL to the My Domain URL of the org."),
    ("no client credentials user enabled", "Name a run-as user in the client-credentials settings of the app."),
    ("no valid scopes", "Add the scopes api and cdp_query_api to the app."),
    (
        "audience",
        "Set SALESFORCE_JWT_AUDIENCE: https://login.salesforce.com, or https://test.salesforce.com for a sandbox.",
    ),
    ("hasn't approved", "Pre-authorise the user for the app (permitted users: admin-approved)."),
    ("invalid_client_id", "Check SALESFORCE_CLIENT_ID."),
    ("invalid_client", "Check SALESFORCE_CLIENT_ID and SALESFORCE_CLIENT_SECRET."),
    ("unsupported_grant_type", "Switch the flow on in the app's OAuth settings."),
    ("inactive_user", "Activate the user, or name another one."),
    ("invalid_app_access", "Let an administrator approve the user for the app."),
    ("invalid_grant", "Check the user, the key or secret, the app's OAuth policies and this machine's clock."),
)
"""Part of the org's code or description, and what to do about it; the first that fits counts."""


@dataclass(frozen=True)
class Login:
    """How to log in: with a client secret (client-credentials flow), or as ``username`` with a private key (JWT bearer).

    Raises ``SettingsError`` when the URL is neither https nor loopback http, or when both flows or none are given.
    """

    login_url: str
    client_id: Secret
    client_secret: Secret | None = None
    username: str | None = None
    private_key_pem: Secret | None = None
    jwt_audience: str = "https://login.salesforce.com"

    def __post_init__(self) -> None:
        try:
            origin(self.login_url)
        except ValueError as error:
            raise SettingsError(
                f"The login URL {error}.", hint="Set SALESFORCE_LOGIN_URL to https://<My Domain>.my.salesforce.com."
            ) from None
        if (self.client_secret is None) == (self.private_key_pem is None):
            raise SettingsError(
                "A login needs either a client secret or a private key.",
                hint="Set SALESFORCE_CLIENT_SECRET, or SALESFORCE_USERNAME and SALESFORCE_PRIVATE_KEY_FILE.",
            )
        if self.private_key_pem is not None and not self.username:
            raise SettingsError("The JWT bearer flow needs a user.", hint="Set SALESFORCE_USERNAME.")

    @property
    def login_origin(self) -> str:
        return origin(self.login_url)


@dataclass(frozen=True)
class Token:
    """A session of the org. ``instance_url`` is an origin without a path."""

    access_token: Secret
    instance_url: str
    org_id: str
    user_id: str


@dataclass(frozen=True)
class TenantToken:
    """A token of the Data Cloud host; ``expires_at`` is on the session's own (monotonic) clock, in seconds."""

    access_token: Secret
    instance_url: str
    expires_at: float


class TokenAnswer(msgspec.Struct):
    """What both token endpoints answer."""

    access_token: str
    instance_url: str
    id: str = ""
    expires_in: float | None = None

    def __repr__(self) -> str:
        return "TokenAnswer(***)"


def token_form(login: Login, *, now: float) -> dict[str, str]:
    """Body of the token request; ``now`` in seconds since 1970. Raises ``CredentialsError`` for an unreadable key."""
    if login.client_secret is not None:
        return {
            "grant_type": "client_credentials",
            "client_id": login.client_id.reveal(),
            "client_secret": login.client_secret.reveal(),
        }
    return {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": _assertion(login, now=now)}


def exchange_form(token: Token, dataspace: str) -> dict[str, str]:
    """Body of the token exchange. The data space is bound here; leaving it out means ``default``."""
    form = {
        "grant_type": "urn:salesforce:grant-type:external:cdp",
        "subject_token": token.access_token.reveal(),
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }
    return form if dataspace == "default" else {**form, "dataspace": dataspace}


def read_token(answer: TokenAnswer) -> Token:
    """The token of an answer. Raises ``CredentialsError`` when it names no org, or a URL no token may be sent to, or is no
    token at all."""
    parts = answer.id.rstrip("/").split("/")
    named_in_id = len(parts) >= 3 and parts[-3] == "id"
    org_id = parts[-2] if named_in_id else answer.access_token.partition("!")[0]
    if not (org_id.startswith("00D") and org_id.isalnum()):
        raise CredentialsError("The login's answer does not name its org.", hint="Check SALESFORCE_LOGIN_URL.")
    return Token(
        access_token=_bearer(answer.access_token),
        instance_url=_believed(answer.instance_url),
        org_id=org_id,
        user_id=parts[-1] if named_in_id else "",
    )


def read_tenant_token(answer: TokenAnswer, *, asked_at: float) -> TenantToken:
    """The tenant token of an answer; documents show its URL with scheme, connectors expect it without."""
    url = answer.instance_url if "://" in answer.instance_url else f"https://{answer.instance_url}"
    seconds = TENANT_TOKEN_SECONDS if answer.expires_in is None else answer.expires_in
    return TenantToken(_bearer(answer.access_token), _believed(url), expires_at=asked_at + seconds)


def next_step(code: str, description: str) -> str:
    """What a person can do about a refused login."""
    text = f"{code} {description}".lower()
    return next((step for part, step in NEXT_STEPS if part in text), "Check the SALESFORCE_* settings with `doctor`.")


def _bearer(text: str) -> Secret:
    # Refused here, because the error of a header that cannot be sent would show the token.
    if not re.fullmatch(r"[!-~]+", text):
        raise CredentialsError(
            "The login's answer holds no token that can be sent.",
            hint="Check SALESFORCE_LOGIN_URL, and who answers there.",
        )
    return Secret(text)


def _believed(url: str) -> str:
    try:
        return origin(url)
    except ValueError as error:
        raise CredentialsError(
            f"The instance URL in the login's answer {error}; no token is sent there.",
            hint="Check SALESFORCE_LOGIN_URL, and who answers at that host.",
        ) from None


def _assertion(login: Login, *, now: float) -> str:
    # Imported here, because a login by client secret needs no RSA and should not pay for loading it.
    import jwt
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = b"" if login.private_key_pem is None else login.private_key_pem.reveal().encode()
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise CredentialsError(
            "The private key is not an unencrypted RSA key in PEM form.", hint="Check SALESFORCE_PRIVATE_KEY_FILE."
        )
    claims = {
        "iss": login.client_id.reveal(),
        "sub": login.username,
        "aud": login.jwt_audience,
        "exp": int(now) + ASSERTION_SECONDS,
    }
    return jwt.encode(claims, key, algorithm="RS256")
