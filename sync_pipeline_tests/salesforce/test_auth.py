"""Tokens: what is asked for, which answers are believed, and what a person is told who is refused."""

from __future__ import annotations

from functools import cache

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from sync_pipeline.domain.errors import CredentialsError, SettingsError
from sync_pipeline.domain.secret import Secret
from sync_pipeline.salesforce.auth import (
    Login,
    Token,
    TokenAnswer,
    exchange_form,
    next_step,
    read_tenant_token,
    read_token,
    token_form,
)

URL = "https://acme.my.salesforce.com"
ORG, USER = "00D000000000001EAA", "005000000000001AAA"
ID_URL = f"https://login.salesforce.com/id/{ORG}/{USER}"
NOW = 1_800_000_000.0


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, *, password: bytes | None = None) -> Secret:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode())


def jwt_login(key: Secret, *, audience: str = "https://login.salesforce.com") -> Login:
    return Login(
        URL, client_id=Secret("consumer"), username="sync@acme.com", private_key_pem=key, jwt_audience=audience
    )


def answer(*, access_token: str = "00D000000000001!token", instance_url: str = URL, id: str = ID_URL) -> TokenAnswer:
    return TokenAnswer(access_token=access_token, instance_url=instance_url, id=id)


# how to log in


@pytest.mark.parametrize(
    "url",
    ["", "acme.my.salesforce.com", "http://acme.my.salesforce.com", "ftp://acme.com", "https://user:pw@acme.com"],
)
def test_a_secret_is_never_meant_for_a_url_that_is_not_safe(url: str) -> None:
    with pytest.raises(SettingsError, match=r"The login URL .*SALESFORCE_LOGIN_URL"):
        Login(url, client_id=Secret("consumer"), client_secret=Secret("secret"))


def test_this_machine_may_be_logged_in_to_without_tls() -> None:
    login = Login("http://127.0.0.1:8080/", client_id=Secret("consumer"), client_secret=Secret("secret"))

    assert login.login_origin == "http://127.0.0.1:8080"


def test_a_login_has_one_flow() -> None:
    with pytest.raises(SettingsError, match="either a client secret or a private key"):
        Login(URL, client_id=Secret("consumer"))
    with pytest.raises(SettingsError, match="either a client secret or a private key"):
        Login(URL, client_id=Secret("consumer"), client_secret=Secret("s"), username="u", private_key_pem=Secret("k"))
    with pytest.raises(SettingsError, match="needs a user"):
        Login(URL, client_id=Secret("consumer"), private_key_pem=Secret("k"))


def test_nothing_that_holds_a_secret_shows_it() -> None:
    login = Login(URL, client_id=Secret("consumer-key"), client_secret=Secret("hidden"))
    token = read_token(answer(access_token="00D1!hidden"))
    tenant = read_tenant_token(TokenAnswer("hidden.tenant", "tenant.c360a.salesforce.com"), asked_at=0.0)

    shown = f"{login} {login!r} {token} {token!r} {tenant!r} {answer(access_token='00D1!hidden')!r}"

    assert "hidden" not in shown
    assert "consumer-key" not in shown


# what is asked for


def test_the_client_credentials_flow_sends_id_and_secret() -> None:
    login = Login(URL, client_id=Secret("consumer"), client_secret=Secret("secret"))

    assert token_form(login, now=NOW) == {
        "grant_type": "client_credentials",
        "client_id": "consumer",
        "client_secret": "secret",
    }


@pytest.mark.parametrize("audience", ["https://login.salesforce.com", "https://test.salesforce.com"])
def test_the_jwt_flow_sends_an_assertion_of_three_minutes_signed_with_the_key(audience: str) -> None:
    form = token_form(jwt_login(pem(rsa_key()), audience=audience), now=NOW)

    assert set(form) == {"grant_type", "assertion"}
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert jwt.get_unverified_header(form["assertion"])["alg"] == "RS256"
    claims = jwt.decode(
        form["assertion"],
        rsa_key().public_key(),
        algorithms=["RS256"],
        options={"verify_exp": False, "verify_aud": False},
    )
    assert claims == {"iss": "consumer", "sub": "sync@acme.com", "aud": audience, "exp": 1_800_000_180}


def test_the_audience_is_production_unless_it_is_named() -> None:
    login = Login(URL, client_id=Secret("consumer"), username="sync@acme.com", private_key_pem=Secret("key"))

    assert login.jwt_audience == "https://login.salesforce.com"


def unusable_keys() -> list[tuple[str, Secret]]:
    public = rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    whole = pem(rsa_key()).reveal()
    return [
        ("an empty file", Secret("")),
        ("no PEM", Secret("this is not a key")),
        ("a PEM cut off", Secret(whole[: len(whole) // 2])),
        ("a key with a password", pem(rsa_key(), password=b"secret")),
        ("a key of another kind", pem(ec.generate_private_key(ec.SECP256R1()))),
        ("the public half", Secret(public)),
    ]


@pytest.mark.parametrize("key", [pytest.param(key, id=name) for name, key in unusable_keys()])
def test_a_key_that_cannot_sign_is_refused_without_showing_it(key: Secret) -> None:
    with pytest.raises(CredentialsError, match="not an unencrypted RSA key") as refused:
        token_form(jwt_login(key), now=NOW)

    assert "SALESFORCE_PRIVATE_KEY_FILE" in refused.value.hint
    assert "KEY-----" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_the_exchange_names_the_data_space_unless_it_is_the_default() -> None:
    token = read_token(answer())
    asked = {
        "grant_type": "urn:salesforce:grant-type:external:cdp",
        "subject_token": "00D000000000001!token",
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }

    assert exchange_form(token, "default") == asked
    assert exchange_form(token, "sales") == {**asked, "dataspace": "sales"}


# which answers are believed


@pytest.mark.parametrize("id_url", [ID_URL, f"{ID_URL}/"])
def test_a_token_names_its_org_its_user_and_where_to_go(id_url: str) -> None:
    token = read_token(answer(id=id_url, instance_url="https://acme-instance.my.salesforce.com/"))

    assert token == Token(
        access_token=Secret("00D000000000001!token"),
        instance_url="https://acme-instance.my.salesforce.com",
        org_id=ORG,
        user_id=USER,
    )


def test_without_an_id_the_token_itself_names_the_org() -> None:
    token = read_token(answer(id="", access_token="00D000000000001!token"))

    assert (token.org_id, token.user_id) == ("00D000000000001", "")


@pytest.mark.parametrize(
    ("id_url", "access_token"),
    [("", "token"), ("", "!00D"), (f"https://x/id/005/{USER}", "00D1!t"), (f"https://x/id/00D_1/{USER}", "00D1!t")],
)
def test_an_answer_that_names_no_org_is_refused(id_url: str, access_token: str) -> None:
    with pytest.raises(CredentialsError, match="does not name its org"):
        read_token(answer(id=id_url, access_token=access_token))


@pytest.mark.parametrize(
    "url",
    [
        "http://acme.my.salesforce.com",
        "http://127.0.0.1.evil.com",
        "https://acme.my.salesforce.com@evil.com",
        "https://evil.com\\@acme.my.salesforce.com",
        "https://acme.my.salesforce.com/services",
        "https://acme.my.salesforce.com?next=https://evil.com",
        "//evil.com",
        "javascript:alert(1)",
        "",
    ],
)
def test_no_token_is_meant_for_an_instance_url_that_is_not_an_https_origin(url: str) -> None:
    with pytest.raises(CredentialsError, match="no token is sent there"):
        read_token(answer(instance_url=url))


@pytest.mark.parametrize("url", ["http://localhost:8080", "http://127.0.0.1:8080", "http://[::1]:8080"])
def test_an_org_on_this_machine_needs_no_tls(url: str) -> None:
    assert read_token(answer(instance_url=url)).instance_url == url


@pytest.mark.parametrize("text", ["", "tok en", "tök", "tok\r\nX-Evil: 1", "tok\x00", "tok\x7f"])
def test_a_token_that_no_header_can_carry_is_refused_without_showing_it(text: str) -> None:
    for refused_by in (
        lambda: read_token(answer(access_token=text)),
        lambda: read_tenant_token(TokenAnswer(text, "tenant.c360a.salesforce.com"), asked_at=0.0),
    ):
        with pytest.raises(CredentialsError, match="no token that can be sent") as refused:
            refused_by()
        assert not text or text not in str(refused.value)


@pytest.mark.parametrize("url", ["https://tenant.c360a.salesforce.com", "tenant.c360a.salesforce.com"])
def test_a_tenant_host_comes_with_or_without_its_scheme(url: str) -> None:
    tenant = read_tenant_token(TokenAnswer("eyJ.tenant", url, expires_in=7191), asked_at=1000.0)

    assert tenant.instance_url == "https://tenant.c360a.salesforce.com"
    assert tenant.expires_at == 8191.0


def test_a_tenant_token_without_a_life_is_taken_to_last_two_hours() -> None:
    assert read_tenant_token(TokenAnswer("eyJ.tenant", "tenant.com"), asked_at=1000.0).expires_at == 8200.0


@pytest.mark.parametrize("url", ["http://tenant.c360a.salesforce.com", "tenant.com/path", "user@tenant.com", ""])
def test_no_token_is_meant_for_a_tenant_url_that_is_not_an_https_origin(url: str) -> None:
    with pytest.raises(CredentialsError, match="no token is sent there"):
        read_tenant_token(TokenAnswer("eyJ.tenant", url), asked_at=0.0)


# what to do about a refusal


@pytest.mark.parametrize(
    ("code", "description", "step"),
    [
        ("invalid_grant", "request not supported on this domain", "My Domain"),
        ("invalid_grant", "no client credentials user enabled", "run-as user"),
        ("invalid_grant", "no valid scopes defined", "scopes"),
        ("invalid_grant", "Audience validation failed", "SALESFORCE_JWT_AUDIENCE"),
        ("invalid_grant", "user hasn't approved this consumer", "Pre-authorise"),
        ("invalid_grant", "expired access/refresh token", "clock"),
        ("invalid_client_id", "client identifier invalid", "SALESFORCE_CLIENT_ID."),
        ("invalid_client", "invalid client credentials", "SALESFORCE_CLIENT_SECRET"),
        ("unsupported_grant_type", "grant type not supported", "Switch the flow on"),
        ("inactive_user", "user is inactive", "Activate the user"),
        ("invalid_app_access", "user is not admin approved to access this app", "administrator"),
        ("something_new", "never seen", "doctor"),
    ],
)
def test_every_known_refusal_of_a_login_has_a_next_step(code: str, description: str, step: str) -> None:
    assert step in next_step(code, description)
