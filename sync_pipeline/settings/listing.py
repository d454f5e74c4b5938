"""Every setting, once: variable, unit and why; the default where it is not the policy's.

What steers a night has its default in ``domain/policy.py``, which the engine and its tests use without any setting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sync_pipeline.domain.policy import Policy
from sync_pipeline.settings.values import (
    SHARED_LOGIN_HOSTS,
    Parse,
    alert_targets,
    api_name,
    api_version,
    audience,
    decimal,
    duration,
    field_or_none,
    local_time,
    login_url,
    memory,
    other_loads,
    path,
    postgres_url,
    query_api,
    seconds,
    secret,
    shown,
    shown_seconds,
    shown_size,
    signing_keys,
    size,
    switch,
    text,
    timezone,
    verify,
    web_url,
    whole,
)


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


def _steering(
    name: str, variable: str, parse: Parse, unit: str, why: str, *, shown: Callable[[Any], str] = shown
) -> Setting:
    """A setting whose default is the policy's."""
    return Setting(name, variable, shown(getattr(Policy(), name)), parse, unit, why)


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
    default_told="for the simulated org `.sync_pipeline` beside the nearest `pyproject.toml` above the current folder, else "
    "in it; a real org needs one",
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
    _steering(
        "verify", "SYNC_VERIFY", verify, "values, keys, counts",
        "How the org is measured after the last range; only `values` may say reconciled",
    ),
    _steering(
        "distribution", "SYNC_DISTRIBUTION", field_or_none, "API name, none",
        "Target field by whose values the rows of source and org are counted, side by side",
    ),
    _steering(
        "start_window", "SYNC_START_WINDOW", duration(least=timedelta(minutes=1)), "time",
        "A scheduled start that is later than this is skipped with a note",
    ),
    _steering(
        "deadline", "SYNC_DEADLINE", local_time, "HH:MM",
        "When the night should have ended; told as late before it is missed",
    ),
    _steering(
        "timezone", "SYNC_TIMEZONE", timezone, "IANA name", "Zone of the 02:00 start and of the deadline"
    ),
    _steering(
        "rows_per_range", "SYNC_ROWS_PER_RANGE", whole(least=1), "rows",
        "Wanted size of a range, which is one unit of progress, of retry and of the Dagster UI",
    ),
    _steering(
        "lanes", "SYNC_LANES", whole(least=1, most=100), "ranges",
        "Ranges in flight on the command line (under Dagster: the tag limit in `dagster.yaml`)",
    ),
    _steering(
        "read_slots", "SYNC_READ_SLOTS", whole(least=1, most=100), "ranges",
        "Ranges of one process that read from the source at once",
    ),
    _steering(
        "load_slots", "SYNC_LOAD_SLOTS", whole(least=1, most=100), "ranges",
        "Ranges of one process that load into the org at once",
    ),
    _steering(
        "page_rows", "SYNC_PAGE_ROWS", whole(least=1, most=1_000_000), "rows",
        "Rows asked for in one response of the source; bounds the memory of a range",
    ),
    _steering(
        "part_rows", "SYNC_PART_ROWS", whole(least=1, most=5_000_000), "rows",
        "Largest number of rows of one ingest job",
    ),
    _steering(
        "part_bytes", "SYNC_PART_BYTES", size, "bytes",
        "Largest CSV of one ingest job; Salesforce takes 150 MB as base64, which is 100 MB as sent",
        shown=shown_size,
    ),
    _steering(
        "poll_seconds", "SYNC_POLL_SECONDS", decimal(least=0.01, most=3600), "seconds",
        "First and shortest pause between two looks at the jobs; it grows with the time that they will take",
    ),
    _steering(
        "poll_seconds_max", "SYNC_POLL_SECONDS_MAX", decimal(least=0.01, most=3600), "seconds",
        "Longest pause between two looks at the jobs, which is one API call for all lanes; near the end they are shorter",
    ),
    _steering(
        "job_deadline_seconds", "SYNC_JOB_DEADLINE",
        seconds(least=timedelta(seconds=1), most=timedelta(days=7)), "time",
        "An ingest job that has not ended by then is stuck, and its range ends with an error",
        shown=shown_seconds,
    ),
    _steering(
        "statement_deadline_seconds", "SYNC_STATEMENT_DEADLINE",
        seconds(least=timedelta(seconds=1), most=timedelta(days=1)), "time",
        "A statement of the source that has no result by then is given up",
        shown=shown_seconds,
    ),
    _steering(
        "retry_rounds", "SYNC_RETRY_ROUNDS", whole(least=0, most=20), "rounds",
        "How often rows whose failure can pass (locks) are sent again; the last round is serial",
    ),
    _steering(
        "range_attempts", "SYNC_RANGE_ATTEMPTS", whole(least=1, most=20), "runs",
        "Failed runs after which a range is given up until a person restarts it",
    ),
    _steering(
        "repairs", "SYNC_REPAIRS", whole(least=0, most=10), "repairs",
        "How often drifting rows are sent again in one night before the verdict",
    ),
    _steering(
        "measurements", "SYNC_MEASUREMENTS", whole(least=1, most=20), "tries",
        "Failed measurements after which the verdict is unproven",
    ),
    _steering(
        "failed_share_max", "SYNC_FAILED_SHARE_MAX", decimal(least=0, most=1), "share",
        "A range with more rows refused for good or quarantined than this stops sending: something is wrong with all of them",
    ),
    _steering(
        "api_reserve", "SYNC_API_RESERVE", decimal(least=0, most=0.95), "share",
        "Share of the org's daily API calls that is never touched; at it the night parks",
    ),
    _steering(
        "night_age_max", "SYNC_NIGHT_AGE_MAX", duration(least=timedelta(minutes=1)), "time",
        "An unfinished night older than this is abandoned when the next one opens",
    ),
    _steering(
        "source_share_min", "SYNC_SOURCE_SHARE_MIN", decimal(least=0, most=1), "share",
        "A source with a smaller share of last night's rows than this opens no night",
    ),
    _steering(
        "other_loads", "SYNC_OTHER_LOADS", other_loads, "warn, refuse",
        "Whether a night begins while ingest jobs of others load the target object, which takes locks and API calls",
    ),
    _steering(
        "equal_rows_max", "SYNC_EQUAL_ROWS_MAX", whole(least=1), "rows",
        "A larger group of source rows with one key is refused",
    ),
    _steering(
        "duckdb_memory", "SYNC_DUCKDB_MEMORY", memory, "bytes",
        "Memory of a DuckDB, which the ranges of a process share; what does not fit is spilled to disk",
    ),
    _steering(
        "disk_reserve_bytes", "SYNC_DISK_RESERVE", size, "bytes",
        "Disk space that is never touched; at it the night parks",
        shown=shown_size,
    ),
    _steering(
        "keep_rows", "SYNC_KEEP_ROWS", duration(least=timedelta(0)), "time",
        "How long the rows of an ended night are kept",
    ),
    _steering(
        "keep_ledgers", "SYNC_KEEP_LEDGERS", duration(least=timedelta(0)), "time",
        "How long ledgers, outcomes and certificates are kept",
    ),
)  # fmt: skip
"""Fields of ``Policy``. Its other fields are no settings: Salesforce or the memory target fixes them."""

SETTINGS: Final = OWN + STEERING
KNOWN: Final = {setting.variable: setting for setting in SETTINGS}


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
