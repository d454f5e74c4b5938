"""What the engine is handed: the org on one side, the disk on the other, a clock, and a way to be interrupted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sync_pipeline.book.book import Book
from sync_pipeline.domain.errors import Stopped
from sync_pipeline.domain.mapping import Mapping
from sync_pipeline.domain.plan import OrgIdentity
from sync_pipeline.domain.policy import Policy
from sync_pipeline.domain.secret import Secret
from sync_pipeline.engine.meter import Meter
from sync_pipeline.engine.watching import Watch
from sync_pipeline.salesforce.bulk import Bulk
from sync_pipeline.salesforce.data_cloud import DataCloud
from sync_pipeline.salesforce.session import Session
from sync_pipeline.salesforce.soql import Soql
from sync_pipeline.staging.area import Area
from sync_pipeline.staging.catalogues import Catalogues
from sync_pipeline.staging.durable import Disk


class Interruption:
    """The one thing that ends work early: Ctrl-C, SIGTERM, a cancelled run, or ``stop`` in the book.

    Every wait of the pipeline is a ``sleep`` of this object, so that an interruption is felt at once.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._cuts: list[Callable[[], None]] = []
        self.reason = ""

    def cuts(self, cut: Callable[[], None]) -> None:
        """``cut`` ends what is waited for otherwise than by ``sleep``; it is called when the work is interrupted."""
        self._cuts.append(cut)

    def interrupt(self, reason: str) -> None:
        if not self._event.is_set():
            self.reason = reason
            self._event.set()
            for cut in self._cuts:
                cut()

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
    """How many ranges of this process may read, hold and load rows at once. Reading and sorting are rationed among all
    processes besides (``Walls.reading``, ``Walls.sorting``); threads of one process need not look for a place each."""

    read: threading.BoundedSemaphore
    hold: threading.BoundedSemaphore
    load: threading.BoundedSemaphore

    @staticmethod
    def of(policy: Policy) -> Slots:
        return Slots(
            read=threading.BoundedSemaphore(policy.read_slots),
            hold=threading.BoundedSemaphore(1),
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
    catalogues: Catalogues
    interruption: Interruption
    slots: Slots
    meter: Meter
    disk: Disk = field(default_factory=Disk)
    watch: Watch = field(default_factory=Watch)
    certificate_keys: tuple[Secret, ...] = ()
    """The first one signs; the signatures of all are good."""
    now: Callable[[], datetime] = field(default=utc_now)
    clock: Callable[[], float] = field(default=time.monotonic)

    def sleep(self, seconds: float) -> None:
        self.interruption.sleep(seconds)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One of the places for reading the source, of which all processes of SYNC_HOME share so many."""
        with self.slots.read, self.area.slot("read", of=self.policy.read_slots, sleep=self.sleep):
            self.interruption.check()
            yield

    @contextmanager
    def holding(self) -> Iterator[None]:
        """The one place in this process for more rows than a page has: what is held of them is most of its memory."""
        with self.slots.hold:
            self.interruption.check()
            yield

    @contextmanager
    def sorting(self) -> Iterator[None]:
        """One of the places for putting a range in order: what is promised of memory holds for all processes."""
        with self.holding(), self.area.slot("sort", of=self.policy.sort_slots, sleep=self.sleep):
            yield

    def close(self) -> None:
        """Hands over the calls that were counted and closes DuckDB and the connections to the org and to the book."""
        with ExitStack() as last:
            for close in (self.book.close, self.catalogues.close, self.session.close, self.meter.flush):
                last.callback(close)  # the last one first, and each whatever the others raise
