"""How far a long partition is, while its run goes on: an observation now and then, which the run's page shows as it comes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from sync_pipeline.book.book import Book
from sync_pipeline.defs import metadata
from sync_pipeline.defs.checks import SYNCED
from sync_pipeline.domain.errors import SyncError

OBSERVE_SECONDS = 20.0
"""Each observation is an event that is kept, so there are few of them; a short partition has none."""


@contextmanager
def observed(
    context: dg.AssetExecutionContext, book: Book, plan_id: str, partition: str, *, every: float = OBSERVE_SECONDS
) -> Iterator[None]:
    """Tells what the book says of the range, as long as the ``with`` block lasts."""
    end = threading.Event()

    def tell() -> None:
        try:
            while not end.wait(every):
                entry = book.range(plan_id, partition)
                if entry is not None:
                    context.log_event(
                        dg.AssetObservation(SYNCED, partition=partition, metadata=metadata.of_progress(entry))
                    )
        except SyncError as error:
            context.log.warning(f"How far it is cannot be told any more: {error}")
        finally:
            book.close()  # this thread's connection

    # A daemon, so that telling never keeps a run from ending.
    thread = threading.Thread(target=tell, name="observe", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
