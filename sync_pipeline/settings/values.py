"""What a value may look like: from the text of a variable to its value, and back to how one would write it."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from sync_pipeline.domain.origin import origin
from sync_pipeline.domain.policy import OtherLoads, Verify
from sync_pipeline.domain.secret import Secret

MY_DOMAIN: Final = "https://YOUR-DOMAIN.my.salesforce.com"
SHARED_LOGIN_HOSTS: Final = ("https://login.salesforce.com", "https://test.salesforce.com")
"""They know users, not orgs, so a login without a user cannot use them."""

Parse = Callable[[str], Any]
"""From the text of a variable to its value; ``ValueError`` says what to write instead."""


def text(value: str) -> str:
    return value


def secret(value: str) -> Secret:
    return Secret(value)


def path(value: str) -> Path:
    """A path, still relative to wherever the variable was set."""
    if "\0" in value:
        raise ValueError("holds a null character; write a path")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ValueError("names a home folder that does not exist; write the whole path") from None


def whole(*, least: int, most: int | None = None) -> Parse:
    """A whole number within bounds; ``_`` may part its digits."""
    bounds = f"a whole number from {least} to {most}" if most is not None else f"a whole number of at least {least}"

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError(f"is not a number; write {bounds}") from None
        if number < least or (most is not None and number > most):
            raise ValueError(f"is out of bounds; write {bounds}")
        return number

    return parse


def decimal(*, least: float, most: float) -> Parse:
    """A number within bounds."""

    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"is not a number; write one from {least:g} to {most:g}") from None
        if not least <= number <= most:  # also refuses nan
            raise ValueError(f"is out of bounds; write a number from {least:g} to {most:g}")
        return number

    return parse


def duration(*, least: timedelta, most: timedelta = timedelta(days=3650)) -> Parse:
    """A time with its unit: ``30 s``, ``90 min``, ``4 h``, ``7 d``."""
    units = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

    def parse(value: str) -> timedelta:
        found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?) ?(s|min|h|d)", value)
        if found is None:
            raise ValueError("is not a time; write a number and its unit (s, min, h or d), such as 4 h")
        try:
            span = timedelta(seconds=float(found[1]) * units[found[2]])
        except OverflowError:
            span = timedelta.max
        if not least <= span <= most:
            raise ValueError(f"is out of bounds; write a time from {shown_duration(least)} to {shown_duration(most)}")
        return span

    return parse


def seconds(*, least: timedelta, most: timedelta) -> Parse:
    """A time with its unit, as seconds."""
    span = duration(least=least, most=most)

    def parse(value: str) -> float:
        parsed: timedelta = span(value)
        return parsed.total_seconds()

    return parse


def memory(value: str) -> str:
    """An amount of memory in DuckDB's words, at least 64 MB."""
    found = re.fullmatch(r"(\d{1,6}) ?(MB|GB|MiB|GiB)", value)
    if found is None or int(found[1]) * (1 if found[2].startswith("M") else 1024) < 64:
        raise ValueError("is not an amount of memory; write at least 64MB, such as 128MB or 1GB")
    return f"{found[1]}{found[2]}"


def size(value: str) -> int:
    """An amount of disk, as bytes."""
    units = {"MB": 1000**2, "GB": 1000**3, "MiB": 1024**2, "GiB": 1024**3}
    found = re.fullmatch(r"(\d{1,9}) ?(MB|GB|MiB|GiB)", value)
    if found is None:
        raise ValueError("is not an amount of disk; write a number and its unit, such as 512 MiB or 10 GB")
    return int(found[1]) * units[found[2]]


def verify(value: str) -> Verify:
    try:
        return Verify(value)
    except ValueError:
        raise ValueError(f"is unknown; write {', '.join(Verify)}") from None


def other_loads(value: str) -> OtherLoads:
    try:
        return OtherLoads(value)
    except ValueError:
        raise ValueError(f"is unknown; write {' or '.join(OtherLoads)}") from None


def query_api(value: str) -> Literal["connect", "v3"]:
    if value == "connect":
        return "connect"
    if value == "v3":
        return "v3"
    raise ValueError("is unknown; write connect or v3")


def switch(value: str) -> bool:
    if value not in ("on", "off"):
        raise ValueError("is unknown; write on or off")
    return value == "on"


def local_time(value: str) -> str:
    """``HH:MM``, or ``none``."""
    if value == "none":
        return ""
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
        raise ValueError("is not a time of day; write HH:MM, such as 06:00, or none")
    return value


def timezone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is not a time zone; write an IANA name, such as Europe/Berlin") from None
    return value


def api_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,79}", value):
        raise ValueError("is not an API name; write letters, digits and underscores")
    return value


def field_or_none(value: str) -> str:
    """An API name, or ``none``."""
    return "" if value == "none" else api_name(value)


def signing_keys(value: str) -> tuple[Secret, ...]:
    """Keys with blanks between them, none so short that it could be guessed."""
    keys = value.split()
    if any(len(key) < 16 for key in keys):
        raise ValueError("holds a key of fewer than 16 characters; write longer ones, without blanks in them")
    return tuple(Secret(key) for key in keys)


def api_version(value: str) -> str:
    if not re.fullmatch(r"\d{2,3}\.0", value):
        raise ValueError("is not an API version; write it like 66.0")
    return value


def login_url(value: str) -> str:
    """The origin of the login; the session checks it once more before it sends anything."""
    try:
        found = origin(value)
    except ValueError as error:
        raise ValueError(f"{error}; write the My Domain URL of the org, {MY_DOMAIN}") from None
    if found.endswith(".lightning.force.com"):
        raise ValueError(f"is the address of the Lightning pages; write the My Domain URL of the org, {MY_DOMAIN}")
    return found


def audience(value: str) -> str:
    try:
        return origin(value)
    except ValueError as error:
        raise ValueError(f"{error}; write {SHARED_LOGIN_HOSTS[0]}, or {SHARED_LOGIN_HOSTS[1]} for a sandbox") from None


def web_url(value: str) -> Secret:
    """An address that is called; its path is often a secret."""
    host = re.match(r"https?://[^/?#\s]+", value)
    try:
        origin(host[0] if host else "")
    except ValueError as error:
        raise ValueError(f"{error}; write a URL that begins with https://") from None
    if re.search(r"\s", value):
        raise ValueError("holds a blank; write one URL")
    return Secret(value)


def postgres_url(value: str) -> Secret:
    """Where a database is; the URL may hold a password."""
    if not re.fullmatch(r"postgres(ql)?://\S*/[^/?\s]+(\?\S*)?", value):
        raise ValueError("is no database; write postgresql://USER@HOST/DATABASE")
    try:
        _ = urlsplit(value).port
    except ValueError:
        raise ValueError("has a wrong host or port; write postgresql://USER@HOST/DATABASE") from None
    return Secret(value)


def alert_targets(value: str) -> tuple[Secret, ...]:
    """Apprise URLs with blanks between them; they hold tokens and passwords."""
    targets = value.split()
    if not all(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://.", target) for target in targets):
        raise ValueError("holds something that is not a URL; write Apprise URLs with a blank between two of them")
    return tuple(Secret(target) for target in targets)


def shown_duration(span: timedelta) -> str:
    """A time as one would write it in a setting."""
    whole_seconds = span.total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole_seconds and whole_seconds % length == 0:
            return f"{whole_seconds / length:g} {unit}"
    return f"{whole_seconds:g} s"


def shown_seconds(value: float) -> str:
    """Seconds as a time."""
    return shown_duration(timedelta(seconds=value))


def shown_size(value: int) -> str:
    """Bytes in the largest unit that holds them without a fraction."""
    units = {"GiB": 1024**3, "GB": 1000**3, "MiB": 1024**2, "MB": 1000**2}
    unit, length = next(((u, n) for u, n in units.items() if value % n == 0), ("MB", 1000**2))
    return f"{value // length} {unit}"


def shown(value: object) -> str:
    """A value as one would write it in a setting."""
    match value:
        case "":
            return "none"
        case timedelta():
            return shown_duration(value)
        case float():
            return f"{value:g}"
        case _:
            return str(value)
