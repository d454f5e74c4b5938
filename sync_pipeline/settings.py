"""Every setting, once: name, variable, default, unit and why. The only file that reads the environment.

Settings come from the environment, and from a file ``.env`` in the project's folder (the folder of the nearest
``pyproject.toml`` at or above the current one; without any, the current folder). The environment wins.
With no ``SALESFORCE_*`` variable the simulated org is used. A single one of them, even an empty one, says that a real
org is meant: then a login that is not whole is an error, never a reason to fall back to the simulated org.

``load_settings()`` looks at everything before it complains, so that one start names all that must be mended.
"""

from __future__ import annotations

import difflib
import os
import re
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from sync_pipeline.domain.errors import SettingsError
from sync_pipeline.domain.origin import origin
from sync_pipeline.domain.policy import OtherLoads, Policy, Verify
from sync_pipeline.domain.secret import Secret

PACKAGED_MAPPING: Final = Path(__file__).with_name("opportunity.toml")
PREFIXES: Final = ("SALESFORCE_", "DATA_CLOUD_", "SYNC_")
"""Variables that begin so are ours to judge."""
MY_DOMAIN: Final = "https://YOUR-DOMAIN.my.salesforce.com"
SHARED_LOGIN_HOSTS: Final = ("https://login.salesforce.com", "https://test.salesforce.com")
"""They know users, not orgs, so a login without a user cannot use them."""

Parse = Callable[[str], Any]
"""From the text of a variable to its value; ``ValueError`` says what to write instead."""


# What a value may look like


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


# The settings


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable. ``name`` is the field of ``Settings`` or ``Policy`` that it fills."""

    name: str
    variable: str
    default: str
    """As one would write it; empty where there is none."""
    parse: Parse
    unit: str
    why: str
    is_secret: bool = False
    """Its value is never shown."""
    default_told: str = ""
    """What the default is, where no fixed text can say it."""


LOGIN_URL: Final = Setting(
    "login_url", "SALESFORCE_LOGIN_URL", "", login_url, "URL",
    "My Domain URL of the org; its presence selects a real org",
    default_told="none: the simulated org",
)  # fmt: skip
CLIENT_ID: Final = Setting(
    "client_id", "SALESFORCE_CLIENT_ID", "", secret, "text",
    "Consumer key of the app; needed with a login URL", is_secret=True,
)  # fmt: skip
CLIENT_SECRET: Final = Setting(
    "client_secret", "SALESFORCE_CLIENT_SECRET", "", secret, "text",
    "Consumer secret of the app, for the client-credentials flow", is_secret=True,
)  # fmt: skip
USERNAME: Final = Setting(
    "username", "SALESFORCE_USERNAME", "", text, "text",
    "User of the JWT bearer flow, which takes the place of a client secret",
)  # fmt: skip
PRIVATE_KEY_FILE: Final = Setting(
    "private_key", "SALESFORCE_PRIVATE_KEY_FILE", "", path, "file",
    "RSA private key in PEM form, for the JWT bearer flow",
)  # fmt: skip
HOME: Final = Setting(
    "home", "SYNC_HOME", "", path, "folder",
    "State of all nights, on a local disk: ledgers, staged rows, the simulated org",
    default_told="`.sync_pipeline` beside the nearest `pyproject.toml` above the current folder, else in it",
)  # fmt: skip
BOOK_URL: Final = Setting(
    "book_url", "SYNC_BOOK_URL", "", postgres_url, "URL",
    "PostgreSQL database of the book, one for each SYNC_HOME; its password is better kept in PGPASSWORD or `.pgpass`",
    is_secret=True, default_told="`book.sqlite` in SYNC_HOME",
)  # fmt: skip
MAPPING: Final = Setting(
    "mapping", "SYNC_MAPPING", "", path, "file",
    "TOML file that says which source columns go into which target fields",
    default_told="the packaged `opportunity.toml`",
)  # fmt: skip
SCHEDULE: Final = Setting(
    "is_scheduled", "SYNC_SCHEDULE", "", switch, "on, off",
    "Whether Dagster starts a night at 02:00 by itself",
    default_told="on for the simulated org, off for any other",
)  # fmt: skip

OWN: Final[tuple[Setting, ...]] = (
    LOGIN_URL,
    CLIENT_ID,
    CLIENT_SECRET,
    USERNAME,
    PRIVATE_KEY_FILE,
    Setting(
        "jwt_audience", "SALESFORCE_JWT_AUDIENCE", SHARED_LOGIN_HOSTS[0], audience, "URL",
        "Audience of the JWT; `https://test.salesforce.com` for a sandbox",
    ),
    Setting(
        "api_version", "SALESFORCE_API_VERSION", "66.0", api_version, "NN.0",
        "Version of every Salesforce API that is called",
    ),
    Setting(
        "dataspace", "DATA_CLOUD_DATASPACE", "default", api_name, "API name", "Data space that holds the source object"
    ),
    Setting(
        "query_api", "DATA_CLOUD_QUERY_API", "connect", query_api, "connect, v3",
        "`connect` asks through the org's query-sql API, `v3` the tenant host of Data Cloud (Arrow)",
    ),
    HOME,
    BOOK_URL,
    MAPPING,
    SCHEDULE,
    Setting(
        "alerts", "SYNC_ALERTS", "", alert_targets, "URLs",
        "Where notes about a night go: Apprise URLs (Slack, Teams, e-mail, webhook) with a blank between two of them",
        is_secret=True, default_told="none",
    ),
    Setting(
        "heartbeat_url", "SYNC_HEARTBEAT_URL", "", web_url, "URL",
        "Called after each night that ended well, so that a watchdog elsewhere misses the one that did not",
        is_secret=True, default_told="none",
    ),
    Setting(
        "certificate_keys", "SYNC_CERTIFICATE_KEY", "", signing_keys, "text",
        "Signs the certificates of nights (HMAC); after a blank may follow earlier keys, whose signatures stay good",
        is_secret=True,
    ),
)  # fmt: skip
"""Fields of ``Settings``."""

STEERING: Final[tuple[Setting, ...]] = (
    Setting(
        "verify", "SYNC_VERIFY", "values", verify, "values, keys, counts",
        "How the org is measured after the last range; only `values` may say reconciled",
    ),
    Setting(
        "distribution", "SYNC_DISTRIBUTION", "StageName", field_or_none, "API name, none",
        "Target field by whose values the rows of source and org are counted, side by side",
    ),
    Setting(
        "start_window", "SYNC_START_WINDOW", "4 h", duration(least=timedelta(minutes=1)), "time",
        "A scheduled start that is later than this is skipped with a note",
    ),
    Setting(
        "deadline", "SYNC_DEADLINE", "none", local_time, "HH:MM",
        "When the night should have ended; told as late before it is missed",
    ),
    Setting("timezone", "SYNC_TIMEZONE", "UTC", timezone, "IANA name", "Zone of the 02:00 start and of the deadline"),
    Setting(
        "rows_per_range", "SYNC_ROWS_PER_RANGE", "200000", whole(least=1), "rows",
        "Wanted size of a range, which is one unit of progress, of retry and of the Dagster UI",
    ),
    Setting(
        "lanes", "SYNC_LANES", "10", whole(least=1, most=100), "ranges",
        "Ranges in flight on the command line (under Dagster: the tag limit in `dagster.yaml`)",
    ),
    Setting(
        "read_slots", "SYNC_READ_SLOTS", "3", whole(least=1, most=100), "ranges",
        "Ranges of one process that read from the source at once",
    ),
    Setting(
        "load_slots", "SYNC_LOAD_SLOTS", "10", whole(least=1, most=100), "ranges",
        "Ranges of one process that load into the org at once",
    ),
    Setting(
        "page_rows", "SYNC_PAGE_ROWS", "50000", whole(least=1, most=1_000_000), "rows",
        "Rows asked for in one response of the source; bounds the memory of a range",
    ),
    Setting(
        "part_rows", "SYNC_PART_ROWS", "100000", whole(least=1, most=5_000_000), "rows",
        "Largest number of rows of one ingest job",
    ),
    Setting(
        "part_bytes", "SYNC_PART_BYTES", "90 MB", size, "bytes",
        "Largest CSV of one ingest job; Salesforce takes 150 MB as base64, which is 100 MB as sent",
    ),
    Setting(
        "poll_seconds", "SYNC_POLL_SECONDS", "0.25", decimal(least=0.01, most=3600), "seconds",
        "First and shortest pause between two looks at the jobs; it grows with the time that they will take",
    ),
    Setting(
        "poll_seconds_max", "SYNC_POLL_SECONDS_MAX", "60", decimal(least=0.01, most=3600), "seconds",
        "Longest pause between two looks at the jobs, which is one API call for all lanes; near the end they are shorter",
    ),
    Setting(
        "job_deadline_seconds", "SYNC_JOB_DEADLINE", "4 h",
        seconds(least=timedelta(seconds=1), most=timedelta(days=7)), "time",
        "An ingest job that has not ended by then is stuck, and its range ends with an error",
    ),
    Setting(
        "statement_deadline_seconds", "SYNC_STATEMENT_DEADLINE", "30 min",
        seconds(least=timedelta(seconds=1), most=timedelta(days=1)), "time",
        "A statement of the source that has no result by then is given up",
    ),
    Setting(
        "retry_rounds", "SYNC_RETRY_ROUNDS", "5", whole(least=0, most=20), "rounds",
        "How often rows whose failure can pass (locks) are sent again; the last round is serial",
    ),
    Setting(
        "range_attempts", "SYNC_RANGE_ATTEMPTS", "3", whole(least=1, most=20), "runs",
        "Failed runs after which a range is given up until a person restarts it",
    ),
    Setting(
        "repairs", "SYNC_REPAIRS", "2", whole(least=0, most=10), "repairs",
        "How often drifting rows are sent again in one night before the verdict",
    ),
    Setting(
        "measurements", "SYNC_MEASUREMENTS", "3", whole(least=1, most=20), "tries",
        "Failed measurements after which the verdict is unproven",
    ),
    Setting(
        "failed_share_max", "SYNC_FAILED_SHARE_MAX", "0.5", decimal(least=0, most=1), "share",
        "A range with more rows refused for good than this stops sending: something is wrong with all of them",
    ),
    Setting(
        "api_reserve", "SYNC_API_RESERVE", "0.20", decimal(least=0, most=0.95), "share",
        "Share of the org's daily API calls that is never touched; at it the night parks",
    ),
    Setting(
        "night_age_max", "SYNC_NIGHT_AGE_MAX", "20 h", duration(least=timedelta(minutes=1)), "time",
        "An unfinished night older than this is abandoned when the next one opens",
    ),
    Setting(
        "source_share_min", "SYNC_SOURCE_SHARE_MIN", "0.5", decimal(least=0, most=1), "share",
        "A source with a smaller share of last night's rows than this opens no night",
    ),
    Setting(
        "other_loads", "SYNC_OTHER_LOADS", "warn", other_loads, "warn, refuse",
        "Whether a night begins while ingest jobs of others load the target object, which takes locks and API calls",
    ),
    Setting(
        "equal_rows_max", "SYNC_EQUAL_ROWS_MAX", "100000", whole(least=1), "rows",
        "A larger group of source rows with one key is refused",
    ),
    Setting(
        "duckdb_memory", "SYNC_DUCKDB_MEMORY", "128MB", memory, "bytes",
        "Memory of a DuckDB, which the ranges of a process share; what does not fit is spilled to disk",
    ),
    Setting(
        "disk_reserve_bytes", "SYNC_DISK_RESERVE", "512 MiB", size, "bytes",
        "Disk space that is never touched; at it the night parks",
    ),
    Setting(
        "keep_rows", "SYNC_KEEP_ROWS", "7 d", duration(least=timedelta(0)), "time",
        "How long the rows of an ended night are kept",
    ),
    Setting(
        "keep_ledgers", "SYNC_KEEP_LEDGERS", "400 d", duration(least=timedelta(0)), "time",
        "How long ledgers, outcomes and certificates are kept",
    ),
)  # fmt: skip
"""Fields of ``Policy``. Its other fields are no settings: Salesforce or the memory target fixes them."""

SETTINGS: Final = OWN + STEERING
KNOWN: Final = {setting.variable: setting for setting in SETTINGS}


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


@dataclass(frozen=True, slots=True)
class Described:
    """A setting as the README and `doctor` tell it."""

    variable: str
    why: str
    unit: str
    default: str


def describe() -> tuple[Described, ...]:
    """All settings in the order of the README."""
    return tuple(
        Described(s.variable, s.why, s.unit, s.default_told or (f"`{s.default}`" if s.default else "none"))
        for s in SETTINGS
    )


def shown_duration(span: timedelta) -> str:
    """A time as one would write it in a setting."""
    whole_seconds = span.total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole_seconds and whole_seconds % length == 0:
            return f"{whole_seconds / length:g} {unit}"
    return f"{whole_seconds:g} s"


def project_folder(folder: Path) -> Path:
    """The folder of the nearest ``pyproject.toml`` at or above ``folder``, else ``folder`` itself."""
    return next((f for f in (folder, *folder.parents) if (f / "pyproject.toml").is_file()), folder)


# Reading them


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
    """The variables of a ``.env`` file: ``KEY=VALUE`` lines with optional ``export``, quotes and comments.

    What cannot be read goes into ``problems``. Lines about variables that are not ours are never one.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{file} cannot be read ({error}); correct it or remove it.")
        return {}
    found: dict[str, Given] = {}
    for number, line in enumerate(lines, start=1):
        stripped = line.strip().removeprefix("export ").lstrip()
        name, is_pair, value = stripped.partition("=")
        name = name.rstrip()
        if not stripped.startswith(PREFIXES) and name.upper() not in KNOWN:
            continue
        unquoted = _unquoted(value.strip()) if is_pair else None
        if unquoted is None:
            problems.append(f"Line {number} of {file} cannot be read; write it like NAME=value or NAME='value'.")
        elif "${" in unquoted:
            # Dagster reads the same file and puts other variables there; two doors must not see two values.
            problems.append(
                f"Line {number} of {file} holds ${{...}}, which is not replaced here; write the value itself."
            )
        else:
            found[name] = Given(unquoted, file.parent)
    return found


def _unquoted(value: str) -> str | None:
    """The value without its quotes and the comment behind it; ``None`` when a quote is not closed."""
    if value[:1] not in ("'", '"'):
        return re.split(r"(?:^|\s)#", value, maxsplit=1)[0].rstrip()
    quote = value[0]
    found = re.fullmatch(rf"{quote}((?:[^{quote}\\]|\\.)*){quote}\s*(?:#.*)?", value)
    if found is None:
        return None
    escapes = {"\\'": "'", "\\\\": "\\"} if quote == "'" else {'\\"': '"', "\\\\": "\\", "\\n": "\n", "\\t": "\t"}
    return re.sub(r"\\.", lambda escape: escapes.get(escape[0], escape[0]), found[1])


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
    """What a login lacks, or has too much of."""
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
