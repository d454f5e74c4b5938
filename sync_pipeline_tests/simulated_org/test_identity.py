"""What the org tells of the user behind a token, and of the token itself."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sync_pipeline.simulated_org.login import new_token
from sync_pipeline_tests.simulated_org.conftest import Asker

CLIENT = {"client_id": "simulated", "client_secret": "simulated"}


def logged_in(asked: Asker) -> dict[str, Any]:
    answer = asked.client.post("/services/oauth2/token", data={"grant_type": "client_credentials", **CLIENT})
    assert answer.status_code == 200
    granted: dict[str, Any] = answer.json()
    return granted


def test_userinfo_has_everything_that_openid_connect_and_salesforce_name(asked: Asker) -> None:
    told = asked.client.get("/services/oauth2/userinfo").json()

    assert set(told) >= {
        "sub", "user_id", "organization_id", "preferred_username", "nickname", "name", "email", "email_verified",
        "given_name", "family_name", "zoneinfo", "photos", "profile", "picture", "address", "urls", "active", "user_type",
        "language", "locale", "utcOffset", "updated_at", "is_app_installed",
    }  # fmt: skip
    assert (told["user_id"], told["organization_id"]) == (asked.org.user_id, asked.org.org_id)
    assert (told["given_name"], told["family_name"], told["name"]) == ("Integration", "User", "Integration User")
    assert told["photos"]["picture"] == told["picture"]
    assert told["urls"]["rest"] == "https://embedded.invalid/services/data/v{version}/"


def test_a_user_that_was_changed_is_told_as_it_is(asked: Asker) -> None:
    asked.ask(
        "PATCH", f"/sobjects/User/{asked.org.user_id}", json={"LastName": "Robot", "TimeZoneSidKey": "Asia/Tokyo"}
    )

    told = asked.client.get("/services/oauth2/userinfo").json()

    assert (told["family_name"], told["zoneinfo"]) == ("Robot", "Asia/Tokyo")


def test_every_url_that_a_login_tells_is_of_this_org(asked: Asker) -> None:
    """A client sends its token wherever an answer points."""
    granted = logged_in(asked)
    told = asked.client.get("/services/oauth2/userinfo").json()
    identity = asked.client.get(httpx.URL(granted["id"]).path).json()

    urls = [text for document in (granted, told, identity) for text in texts(document) if "://" in text]
    assert len(urls) > 30
    assert {httpx.URL(url).host for url in urls} == {"embedded.invalid"}


def texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value.replace("{version}", "66.0")]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in texts(part)]


def test_the_identity_url_of_a_token_is_answered_here(asked: Asker) -> None:
    granted = logged_in(asked)
    assert granted["id"] == f"https://embedded.invalid/id/{asked.org.org_id}/{asked.org.user_id}"
    asked.client.headers["Authorization"] = f"Bearer {granted['access_token']}"

    told = asked.client.get(f"/id/{asked.org.org_id[:15]}/{asked.org.user_id[:15]}").json()

    assert (told["id"], told["asserted_user"]) == (granted["id"], True)
    assert (told["user_id"], told["organization_id"]) == (asked.org.user_id, asked.org.org_id)
    assert (told["username"], told["timezone"], told["active"]) == ("integration@simulated.example", "GMT", True)


def test_the_identity_url_refuses_in_its_own_words(asked: Asker) -> None:
    org_id, user_id = asked.org.org_id, asked.org.user_id
    mine, other = f"/id/{org_id}/{user_id}", "00D000000000001AAA"

    assert refused(asked.client.get(mine, headers={"Authorization": ""})) == (403, "Missing_OAuth_Token")
    assert refused(asked.client.get(mine, headers={"Authorization": "Bearer old"})) == (403, "Bad_OAuth_Token")
    assert refused(asked.client.get(f"/id/{other}/{user_id}")) == (403, "Wrong_Org")
    assert refused(asked.client.get(f"/id/{org_id}/005000000000009AAA")) == (404, "Bad_Id")
    assert refused(asked.client.get(f"/id/nothing/{user_id}")) == (404, "Bad_Id")


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.text


def introspected(asked: Asker, token: str, **form: str) -> httpx.Response:
    return asked.client.post("/services/oauth2/introspect", data={"token": token, **CLIENT, **form})


def test_a_client_may_look_at_its_own_token(asked: Asker) -> None:
    token = logged_in(asked)["access_token"]

    told = introspected(asked, token, token_type_hint="access_token").json()

    assert (told["active"], told["client_id"], told["token_type"]) == (True, "simulated", "access_token")
    assert told["username"] == "integration@simulated.example"
    assert told["sub"].endswith(f"/id/{asked.org.org_id}/{asked.org.user_id}")
    assert told["exp"] - told["iat"] == 7200
    assert "api" in told["scope"].split()


def test_a_token_of_nobody_of_another_client_or_of_yesterday_is_not_active(asked: Asker) -> None:
    asked.org.set_setting("clients", {"simulated": "simulated", "other": "secret"})
    others = new_token(asked.org, kind="core", client="other", user_id=asked.org.user_id)
    token = logged_in(asked)["access_token"]
    assert introspected(asked, token).json()["active"] is True
    asked.org.advance(7_200)

    for strange in ("nobody's", others, token):
        answer = introspected(asked, strange)
        assert (answer.status_code, answer.json()) == (200, {"active": False})


@pytest.mark.parametrize("form", [{"client_secret": "wrong"}, {"client_id": "stranger"}])
def test_nobody_else_may_look_at_tokens(asked: Asker, form: dict[str, str]) -> None:
    answer = introspected(asked, logged_in(asked)["access_token"], **form)

    assert answer.status_code == 400
    assert answer.json()["error"] in ("invalid_client", "invalid_client_id")


def test_users_have_profiles_and_the_organization_what_clients_ask_of_it(asked: Asker) -> None:
    users = asked.json("GET", "/query?q=SELECT+Username,Profile.Name+FROM+User+ORDER+BY+Username")["records"]
    (organization,) = asked.json("GET", "/query?q=SELECT+TrialExpirationDate,NamespacePrefix+FROM+Organization")[
        "records"
    ]

    assert [(user["Username"].partition("@")[0], user["Profile"]["Name"]) for user in users] == [
        ("admin", "System Administrator"), ("integration", "Minimum Access - API Only Integrations"),
    ]  # fmt: skip
    assert (organization["TrialExpirationDate"], organization["NamespacePrefix"]) == (None, None)
