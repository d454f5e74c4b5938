"""Every error of the pipeline, sorted by what to do next.

SyncError                     what happened, and ``hint``: the next step
├── UserError                 a person must mend something; nothing was written            (exit 2)
│   ├── UsageError            a command names something that does not exist
│   ├── SettingsError         a setting is missing or wrong
│   ├── MappingError          the mapping does not fit itself, the source or the target
│   ├── CredentialsError      the login was refused
│   ├── RightsError           the login works, but may not do this
│   ├── Unreachable           no answer from the org
│   └── WrongOrg              the state in SYNC_HOME belongs to another org
├── Refused                   the pipeline will not start this; the reason is in the data  (exit 1)
│   ├── PlanRefused           the source cannot be cut into ranges safely, or is implausible
│   └── HeldElsewhere         another process works on this range or night
├── Passing                   may heal by itself: the run goes on later from its ledger    (exit 1)
│   ├── WireError             an answer was lost, cut off or refused after all retries
│   │   └── Unreadable        the answer came whole, and its content cannot be used
│   ├── LimitExceeded         the org's API calls or batches of the day are used up
│   ├── ResultGone            a stored query result is no longer there: read on by key
│   ├── JobStuck              an ingest job did not reach a final state in time
│   ├── EngineGone            the DuckDB of this process has ended after an error in another range
│   ├── DiskFull              the disk has no room for what was to be written
│   └── Parked                waiting for API headroom or disk space, with ``until``
├── Stopped                   a person pressed stop or cancelled the run                   (exit 1)
├── CapReached                a cap ended the work with rows left: never "complete"        (exit 1)
├── Drift                     a range or the org does not hold what it should              (exit 1)
├── RequestRefused            the org understood the request and said no (bad SQL, bad job)
└── StateError                the ledger or the org contradicts itself
"""

from __future__ import annotations

from datetime import datetime


class SyncError(Exception):
    """What happened, to which range and job; ``hint`` says what to do next."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UserError(SyncError):
    """A person must mend something before anything can be written."""

    exit_code = 2


class UsageError(UserError):
    """A command names something that does not exist."""


class SettingsError(UserError):
    """A setting is missing or has a value that cannot be used."""


class MappingError(UserError):
    """The mapping is not valid TOML, contradicts itself, or names what source or target do not have."""


class CredentialsError(UserError):
    """The login was refused."""


class RightsError(UserError):
    """The login works, but the user may not do this."""


class Unreachable(UserError):
    """No answer from the org before anything was written."""


class WrongOrg(UserError):
    """The state in SYNC_HOME belongs to another org, source object, data space or mapping."""


class Refused(SyncError):
    """The pipeline will not start this."""


class PlanRefused(Refused):
    """The source cannot be cut into ranges safely, or its count is implausible."""


class HeldElsewhere(Refused):
    """Another process works on this range or night."""


class Passing(SyncError):
    """May heal by itself: the run ends and a later one goes on from the ledger."""


class WireError(Passing):
    """An answer was lost, cut off or refused after all retries; ``status`` is the last HTTP status, if any."""

    def __init__(self, message: str, *, hint: str = "", status: int | None = None, code: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code


class Unreadable(WireError):
    """The answer came whole, and its content cannot be used: no CSV, a column missing, rows that nobody sent."""


class LimitExceeded(Passing):
    """The org refused a call because an allocation (API calls, batches) is used up; wait for headroom."""


class ResultGone(Passing):
    """A stored query result is no longer there; the statement must be sent again from the last key."""


class JobStuck(Passing):
    """An ingest job did not reach a final state in time."""


class EngineGone(Passing):
    """The DuckDB that all ranges of a process share has ended after an error in another one; the next run has a new one."""


class DiskFull(Passing):
    """The disk has no room for what was to be written; nothing of it is left there."""


class Parked(Passing):
    """Waiting for API headroom or disk space. ``until`` is the UTC instant of the next probe."""

    def __init__(self, message: str, *, until: datetime, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.until = until


class Stopped(SyncError):
    """A person pressed stop or cancelled the run."""


class CapReached(SyncError):
    """A cap ended the work with rows left."""


class Drift(SyncError):
    """A range or the org does not hold what it should."""


class RequestRefused(SyncError):
    """The org understood the request and said no. ``code`` is its error code (SQLSTATE or errorCode)."""

    def __init__(self, message: str, *, hint: str = "", status: int = 400, code: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code


class StateError(SyncError):
    """The ledger or the org contradicts itself."""
