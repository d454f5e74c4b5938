"""Errors of the pipeline as Dagster shows them: one sentence of what happened, and the next step."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from sync_pipeline.domain.errors import Parked, Passing, SyncError, Unreachable

MAX_RETRIES_TAG = "dagster/max_retries"


def failure_of(error: SyncError) -> dg.Failure:
    """The error as a ``Failure``. Never retried in the same process: another run is decided by the night sensor."""
    metadata: dict[str, dg.MetadataValue] = {"error": dg.MetadataValue.text(type(error).__name__)}
    if error.hint:
        metadata["next step"] = dg.MetadataValue.md(error.hint)
    if isinstance(error, Parked):
        metadata["parked_until"] = dg.MetadataValue.timestamp(error.until)
    return dg.Failure(description=str(error), metadata=metadata, allow_retries=False)


def may_pass(error: SyncError) -> bool:
    """Whether the same run, started again at once, could fare better."""
    return isinstance(error, Passing | Unreachable)


@contextmanager
def told_as_failure() -> Iterator[None]:
    """Turns every ``SyncError`` of the body into a ``Failure``; anything else is a bug and keeps its traceback."""
    try:
        yield
    except SyncError as error:
        raise failure_of(error) from error
