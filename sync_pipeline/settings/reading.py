"""Reading the settings: from the environment and ``.env`` to one checked ``Settings``."""

from __future__ import annotations

import difflib
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from sync_pipeline.domain.errors import SettingsError
from sync_pipeline.domain.policy import Policy
from sync_pipeline.domain.secret import Secret
from sync_pipeline.settings.listing import (
    CLIENT_ID,
    CLIENT_SECRET,
    HOME,
    KNOWN,
    LOGIN_URL,
    OWN,
    PRIVATE_KEY_FILE,
    SETTINGS,
    STEERING,
    USERNAME,
    Setting,
)
from sync_pipeline.settings.values import MY_DOMAIN, SHARED_LOGIN_HOSTS, path

PACKAGED_MAPPING: Final = Path(__file__).parents[1] / "opportunity.toml"
PREFIXES: Final = ("SALESFORCE_", "DATA_CLOUD_", "SYNC_")
"""Variables that begin so are ours to judge."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What was set, checked. Secrets show as ``***`` wherever this is printed."""

    policy: Policy
    home: Path
    mapping: Path
    is_simulated: bool
    login_url: str
    """Origin of the login; empty for the simulated org, as are the parts of the login below."""
    client_id: Secret
    client_secret: Secret | None
    username: str | None
    private_key: Secret | None
    """The text of the key file."""
    jwt_audience: str
    api_version: str
    dataspace: str
    query_api: Literal["connect", "v3"]
    is_scheduled: bool
    book_url: Secret | None
    """Where the book is if not in ``home``."""
    alerts: tuple[Secret, ...]
    heartbeat_url: Secret | None
    certificate_keys: tuple[Secret, ...]
    """The first one signs; the signatures of all are good."""
    given: tuple[tuple[str, str], ...]
    """Variables that were set, with their values as they may be shown."""

    @property
    def timezone(self) -> str:
        return self.policy.timezone

    @property
    def summary(self) -> str:
        """Markdown for people: which org, where the state is, and what differs from the defaults."""
        org = "the simulated org" if self.is_simulated else self.login_url
        told = ", ".join(f"`{variable}={value}`" for variable, value in self.given) or "none, all is default"
        return f"Org: {org}. State: `{self.home}`. Settings: {told}."


def project_folder(folder: Path) -> Path:
    """The folder of the nearest ``pyproject.toml`` at or above ``folder``, else ``folder`` itself."""
    return next((f for f in (folder, *folder.parents) if (f / "pyproject.toml").is_file()), folder)


@dataclass(frozen=True, slots=True)
class Given:
    """A variable that was set. Paths in it are relative to ``folder``."""

    text: str
    folder: Path


def load_settings(environment: Mapping[str, str] | None = None, *, folder: Path | None = None) -> Settings:
    """The settings of ``environment`` (default: of this process) for somebody who stands in ``folder`` (default: the
    current one). Raises ``SettingsError`` that names every variable with a problem and what to do about it."""
    environment = os.environ if environment is None else environment
    folder = Path.cwd() if folder is None else folder
    project = project_folder(folder)
    problems: list[str] = []
    given = read_env_file(project / ".env", problems)
    given.update((name, Given(value.strip(), folder)) for name, value in environment.items())

    is_simulated = not any(name.startswith("SALESFORCE_") for name in given)
    problems += _unknown(given)
    own = {s.name: _value(s, given, problems) for s in OWN}
    policy = replace(Policy(), **{s.name: _value(s, given, problems) for s in STEERING})
    private_key = _private_key(own["private_key"], problems)
    if not is_simulated:
        problems += _login_problems(given, own["login_url"])
    home = own["home"] or project / ".sync_pipeline"
    problems += _contradictions(policy, home)
    if problems:
        raise SettingsError(
            " ".join(problems), hint=f"Correct the environment or {project / '.env'}; README.md lists every setting."
        )
    return Settings(
        policy=policy,
        home=home.resolve(),
        mapping=own["mapping"] or PACKAGED_MAPPING,
        is_simulated=is_simulated,
        login_url=own["login_url"] or "",
        client_id=own["client_id"] or Secret(""),
        client_secret=own["client_secret"],
        username=own["username"],
        private_key=private_key,
        jwt_audience=own["jwt_audience"],
        api_version=own["api_version"],
        dataspace=own["dataspace"],
        query_api=own["query_api"],
        is_scheduled=is_simulated if own["is_scheduled"] is None else own["is_scheduled"],
        book_url=own["book_url"],
        alerts=own["alerts"] or (),
        heartbeat_url=own["heartbeat_url"],
        certificate_keys=own["certificate_keys"] or (),
        given=tuple((s.variable, _shown(s, given[s.variable].text)) for s in SETTINGS if _is_given(s, given)),
    )


def read_env_file(file: Path, problems: list[str]) -> dict[str, Given]:
    """The variables of a ``.env`` file, as python-dotenv reads it: it reads the same file for Dagster, and two doors must
    not see two values. Only ``${...}`` is refused, which Dagster would replace.

    What cannot be read goes into ``problems``. Lines about variables that are not ours are never one.
    """
    try:
        content = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{file} cannot be read ({error}); correct it or remove it.")
        return {}
    from dotenv.parser import parse_stream

    found: dict[str, Given] = {}
    for line in parse_stream(io.StringIO(content)):
        name = line.key if line.key is not None else _name_in(line.original.string)
        if not name.startswith(PREFIXES) and name.upper() not in KNOWN:
            continue
        place = f"Line {line.original.line} of {file}"
        if line.value is None:
            problems.append(f"{place} cannot be read; write it like NAME=value or NAME='value'.")
        elif "${" in line.value:
            problems.append(f"{place} holds ${{...}}, which is not replaced here; write the value itself.")
        else:
            found[name] = Given(line.value, file.parent)
    return found


def _name_in(line: str) -> str:
    """What looks like the name of a variable in a line that cannot be read."""
    found = re.match(r"\s*(?:export\s+)?(\w*)", line)
    return found[1] if found else ""


def _is_given(setting: Setting, given: Mapping[str, Given]) -> bool:
    """An empty variable counts as not set."""
    return setting.variable in given and given[setting.variable].text != ""


def _value(setting: Setting, given: Mapping[str, Given], problems: list[str]) -> Any:
    """The value that is set, else the default, else ``None``; a wrong one becomes a problem."""
    default = setting.parse(setting.default) if setting.default else None
    if not _is_given(setting, given):
        return default
    found = given[setting.variable]
    try:
        value = setting.parse(found.text)
    except ValueError as error:
        problems.append(f"{setting.variable}={_shown(setting, found.text)} {error}.")
        return default
    return found.folder / value if setting.parse is path else value


def _shown(setting: Setting, value: str) -> str:
    """A value as it may be printed: no secret, nothing long, and no user name or password within a URL."""
    if setting.is_secret or ("@" in value and "://" in value):
        return "***"
    return repr(value if len(value) <= 80 else value[:77] + "...").strip("'")


def _unknown(given: Mapping[str, Given]) -> list[str]:
    """Variables that were most likely meant for us and that nothing would ever read."""
    has_login = _is_given(LOGIN_URL, given)
    problems = []
    for name in sorted(given):
        if name in KNOWN:
            continue
        near = _nearest(name)
        # Other programs may have SALESFORCE_* variables of their own. They disturb only where one of them would be the
        # reason to believe that a real org is meant.
        is_ours = name.startswith("SYNC_") or (name.startswith("SALESFORCE_") and not has_login)
        if near is not None:
            problems.append(f"{name} is not a setting; did you mean {near}?")
        elif is_ours:
            problems.append(f"{name} is not a setting; remove it, or see README.md for the name you meant.")
    return problems


def _nearest(name: str) -> str | None:
    """The setting that a misspelt name was meant to be, or ``None``."""
    written = name.upper()
    if written.startswith("SYNC_"):
        rests = [variable.removeprefix("SYNC_") for variable in KNOWN if variable.startswith("SYNC_")]
        near = difflib.get_close_matches(written.removeprefix("SYNC_"), rests, n=1)
        return f"SYNC_{near[0]}" if near else None
    if written.startswith(PREFIXES):
        near = difflib.get_close_matches(written, KNOWN, n=1, cutoff=0.85)
        return near[0] if near else None
    # Without one of the prefixes only a slip of the keys counts: OLD_SYNC_HOME is somebody else's variable.
    near = difflib.get_close_matches(written, KNOWN, n=1, cutoff=0.9) if written[:1] in ("S", "D") else []
    return near[0] if near and abs(len(near[0]) - len(written)) <= 2 else None


def _private_key(file: Path | None, problems: list[str]) -> Secret | None:
    """What is in the key file."""
    if file is None:
        return None
    try:
        key = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        problems.append(f"{PRIVATE_KEY_FILE.variable} names {file}, which cannot be read ({reason}); correct the path.")
        return None
    if "PRIVATE KEY-----" not in key:
        problems.append(f"{PRIVATE_KEY_FILE.variable} names {file}, which holds no private key in PEM form.")
        return None
    if "ENCRYPTED" in key:
        problems.append(f"{PRIVATE_KEY_FILE.variable} names {file}, which is encrypted; store it without a passphrase.")
        return None
    return Secret(key)


def _login_problems(given: Mapping[str, Given], login: str | None) -> list[str]:
    """What a real org lacks, or has too much of."""
    named = ", ".join(sorted(name for name in given if name.startswith("SALESFORCE_")))
    has_secret, has_key, has_user = (_is_given(s, given) for s in (CLIENT_SECRET, PRIVATE_KEY_FILE, USERNAME))
    problems = []
    if not _is_given(LOGIN_URL, given):
        problems.append(
            f"{LOGIN_URL.variable} is {_lack(LOGIN_URL, given)}, but a real org is meant (there is {named}); set it to "
            f"{MY_DOMAIN}, or remove every SALESFORCE_* variable to use the simulated org."
        )
    if not _is_given(CLIENT_ID, given):
        problems.append(f"{CLIENT_ID.variable} is {_lack(CLIENT_ID, given)}; set it to the consumer key of the app.")
    if has_secret and has_key:
        problems.append(f"{CLIENT_SECRET.variable} and {PRIVATE_KEY_FILE.variable} are both set; remove one of them.")
    elif has_key and not has_user:
        problems.append(f"{USERNAME.variable} is {_lack(USERNAME, given)}; name the user of the JWT bearer flow.")
    elif has_user and not has_key:
        problems.append(
            f"{USERNAME.variable} is for the JWT bearer flow, which needs {PRIVATE_KEY_FILE.variable} too; set that, or "
            "remove the user."
        )
    elif not has_secret and not has_key:
        problems.append(
            f"{CLIENT_SECRET.variable} is {_lack(CLIENT_SECRET, given)}; set it, or {USERNAME.variable} and "
            f"{PRIVATE_KEY_FILE.variable} for the JWT bearer flow."
        )
    if not _is_given(HOME, given):
        # Started from another folder, a night would know nothing of the one before, and the two would load side by side.
        problems.append(f"{HOME.variable} is {_lack(HOME, given)}; name the folder that keeps the nights of this org.")
    if has_secret and login in SHARED_LOGIN_HOSTS:
        problems.append(f"{LOGIN_URL.variable} is {login}, which takes no client secret; set it to {MY_DOMAIN}.")
    return problems


def _lack(setting: Setting, given: Mapping[str, Given]) -> str:
    return "empty" if setting.variable in given else "missing"


def _contradictions(policy: Policy, home: Path) -> list[str]:
    """Settings that are right one by one and wrong together."""
    problems = []
    if policy.poll_seconds > policy.poll_seconds_max:
        problems.append("SYNC_POLL_SECONDS is above SYNC_POLL_SECONDS_MAX; raise that, or lower this.")
    if policy.keep_rows > policy.keep_ledgers:
        problems.append("SYNC_KEEP_ROWS is longer than SYNC_KEEP_LEDGERS; rows without their ledger say nothing.")
    if not 1_000_000 <= policy.part_bytes <= 100_000_000:
        problems.append("SYNC_PART_BYTES is out of bounds; write 1 MB to 100 MB.")
    if home.exists() and not home.is_dir():
        problems.append(f"{HOME.variable} names {home}, which is not a folder; name a folder.")
    return problems
