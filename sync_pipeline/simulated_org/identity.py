"""What the org tells of the user behind a token: ``userinfo`` of OpenID Connect, and the older identity URL.

UserInfo: https://help.salesforce.com/s/articleView?id=sf.remoteaccess_using_userinfo_endpoint.htm
Identity URLs: https://help.salesforce.com/s/articleView?id=sf.remoteaccess_using_openid.htm
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from sync_pipeline.simulated_org.call import Call
from sync_pipeline.simulated_org.objects import find_object
from sync_pipeline.simulated_org.records import Records
from sync_pipeline.simulated_org.standing import ensure_standing_rows
from sync_pipeline.simulated_org.state import Org

PATHS: Final[Mapping[str, str]] = {
    "enterprise": "/services/Soap/c/{version}/{org}",
    "metadata": "/services/Soap/m/{version}/{org}",
    "partner": "/services/Soap/u/{version}/{org}",
    "rest": "/services/data/v{version}/",
    "sobjects": "/services/data/v{version}/sobjects/",
    "search": "/services/data/v{version}/search/",
    "query": "/services/data/v{version}/query/",
    "recent": "/services/data/v{version}/recent/",
    "tooling_soap": "/services/Soap/T/{version}/{org}",
    "tooling_rest": "/services/data/v{version}/tooling/",
    "profile": "/{user}",
    "feeds": "/services/data/v{version}/chatter/feeds",
    "groups": "/services/data/v{version}/chatter/groups",
    "users": "/services/data/v{version}/chatter/users",
    "feed_items": "/services/data/v{version}/chatter/feed-items",
    "feed_elements": "/services/data/v{version}/chatter/feed-elements",
    "custom_domain": "",
}
"""Where the APIs are, as every org lists them, those that are not offered here too. ``{version}`` stays as it is."""


def user_of(org: Org, user_id: str) -> Mapping[str, Any]:
    """The row of one of the org's users. Raises ``LookupError`` when it is gone."""
    ensure_standing_rows(org)
    users = find_object(org, "User")
    if users is not None:
        for frame in Records(org, users).frames():
            for row in frame.filter(pl.col("Id") == user_id).iter_rows(named=True):
                return row
    raise LookupError(f"the org has no user {user_id}")


def identity_url(call: Call, user_id: str) -> str:
    return f"{call.base_url}/id/{call.org.org_id}/{user_id}"


def userinfo(call: Call, user_id: str) -> dict[str, Any]:
    """The user in the words of OpenID Connect."""
    user = user_of(call.org, user_id)
    photos = _photos(call)
    return {
        "sub": identity_url(call, user_id),
        "user_id": user_id,
        "organization_id": call.org.org_id,
        "preferred_username": user["Username"],
        "nickname": user["CommunityNickname"],
        "name": user["Name"],
        "email": user["Email"],
        "email_verified": True,
        "given_name": user["FirstName"],
        "family_name": user["LastName"],
        "zoneinfo": user["TimeZoneSidKey"],
        "photos": photos,
        "profile": f"{call.base_url}/{user_id}",
        "picture": photos["picture"],
        "address": {},
        "urls": _urls(call, user_id),
        "active": user["IsActive"],
        "user_type": "STANDARD",
        "language": user["LanguageLocaleKey"],
        "locale": user["LocaleSidKey"],
        "utcOffset": 0,
        "updated_at": user["LastModifiedDate"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        "is_app_installed": True,
    }


def identity(call: Call, user_id: str) -> dict[str, Any]:
    """The user in the words of the identity URL."""
    user = user_of(call.org, user_id)
    return {
        "id": identity_url(call, user_id),
        "asserted_user": True,
        "user_id": user_id,
        "organization_id": call.org.org_id,
        "username": user["Username"],
        "nick_name": user["CommunityNickname"],
        "display_name": user["Name"],
        "email": user["Email"],
        "email_verified": True,
        "first_name": user["FirstName"],
        "last_name": user["LastName"],
        "timezone": user["TimeZoneSidKey"],
        "photos": _photos(call),
        "addr_street": None,
        "addr_city": None,
        "addr_state": None,
        "addr_country": None,
        "addr_zip": None,
        "mobile_phone": None,
        "mobile_phone_verified": False,
        "is_lightning_login_user": False,
        "status": {"created_date": None, "body": None},
        "urls": _urls(call, user_id),
        "active": user["IsActive"],
        "user_type": "STANDARD",
        "language": user["LanguageLocaleKey"],
        "locale": user["LocaleSidKey"],
        "utcOffset": 0,
        "last_modified_date": user["LastModifiedDate"].strftime("%Y-%m-%dT%H:%M:%S.000+0000"),
        "is_app_installed": True,
    }


def _photos(call: Call) -> dict[str, str]:
    return {"picture": f"{call.base_url}/profilephoto/005/F", "thumbnail": f"{call.base_url}/profilephoto/005/T"}


def _urls(call: Call, user_id: str) -> dict[str, str]:
    named = {"{org}": call.org.org_id, "{user}": user_id}
    urls = {}
    for name, path in PATHS.items():
        for mark, value in named.items():
            path = path.replace(mark, value)  # noqa: PLW2901
        urls[name] = call.base_url + path
    return urls
