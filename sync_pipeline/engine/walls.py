"""What the engine is handed: the org on one side, the disk on the other, a clock, and a way to be interrupted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sync_pipeline.domain.errors import Stopped
from sync_pipeline.domain.mapping import Mapping
from sync_pipeline.domain.plan import OrgIdentity
from sync_pipeline.domain.policy import Policy
from sync_pipeline.engine.meter import Meter
from sync_pipeline.salesforce.bulk import Bulk
from sync_pipeline.salesforce.data_cloud import DataCloud
from sync_pipeline.salesforce.session import Session
from sync_pipeline.salesforce.soql import Soql
from sync_pipeline.staging.area import Area
from sync_pipeline.staging.book import Book


class Interruption:
    """The one thing that ends work early: Ctrl-C, SIGTERM, a cancelled run, or ``stop`` in the book.

    Every wait of the pipeline is a ``sleep`` of this object, so that an interruption is felt at once.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""

    def interrupt(self, reason: str) -> None:
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises ``Stopped`` once the work has been interrupted."""
        if self._event.is_set():
            raise Stopped(f"Stopped: {self.reason}.", hint="Nothing is lost; go on with `sync-pipeline sync`.")

    def sleep(self, seconds: float) -> None:
        """Waits, and raises ``Stopped`` as soon as the work is interrupted."""
        self._event.wait(seconds)
        self.check()


@dataclass(frozen=True)
class Slots:
    """How many ranges of this process may read, sort and load at once."""

    read: threading.BoundedSemaphore
    sort: threading.BoundedSemaphore
    load: threading.BoundedSemaphore

    @staticmethod
    def of(policy: Policy) -> Slots:
        return Slots(
            read=threading.BoundedSemaphore(policy.read_slots),
            sort=threading.BoundedSemaphore(policy.sort_slots),
            load=threading.BoundedSemaphore(policy.load_slots),
        )


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Walls:
    """Everything the engine touches besides its arguments."""

    org: OrgIdentity
    mapping: Mapping
    policy: Policy
    session: Session
    data_cloud: DataCloud
    bulk: Bulk
    soql: Soql
    area: Area
    book: Book
    interruption: Interruption
    slots: Slots
    meter: Meter
    now: Callable[[], datetime] = field(default=utc_now)
    clock: Callable[[], float] = field(default=time.monotonic)

    def sleep(self, seconds: float) -> None:
        self.interruption.sleep(seconds)

    def close(self) -> None:
        """Hands over the calls that were counted and closes the connections to the org."""
        self.meter.flush()
        self.session.close()
