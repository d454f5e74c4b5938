"""Where a secret may be sent: an https origin, or plain http on this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def origin(url: str) -> str:
    """``scheme://host[:port]`` of ``url``, for https hosts and loopback http alone.

    Raises ``ValueError`` with the reason, written to follow the name of the URL ("is not a URL"), for anything else and
    for user names, paths, queries and fragments in it.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if not host or any(letter.isspace() or letter == "\\" for letter in url):
        raise ValueError("is not a URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user name")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("must end after the host name")
    if parts.scheme not in ("http", "https"):
        raise ValueError("is neither https nor http")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("is plain http, which is allowed for a loopback host alone")
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + ("" if port is None else f":{port}")


def is_loopback(host: str) -> bool:
    """The host name means this machine, whatever a name server says."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
