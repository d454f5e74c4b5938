"""A thread that says "alive" in the book, hands over the counted API calls, and hears a ``stop``."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from sync_pipeline.domain.errors import SyncError
from sync_pipeline.engine.walls import Walls

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
"""How often a running range is marked alive; a reader calls it dead after several of these."""
STOP_SECONDS = 1.0
"""How soon a stop of the night is heard; `stop` promises ten seconds for everything."""


class Heartbeat:
    """Beats for the ranges that run in this process, as long as the ``with`` block lasts."""

    def __init__(self, walls: Walls, plan_id: str) -> None:
        self._walls = walls
        self._plan_id = plan_id
        self._running: set[str] = set()
        self._next_beat = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        try:
            self._walls.meter.belongs_to(self._plan_id)
        except SyncError as failure:  # the calls are kept and handed over later
            log.warning("the API calls were not written down: %s", failure.message)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        try:
            self._walls.meter.flush()
        except SyncError as failure:  # what ended the block matters more
            log.warning("the API calls were not written down: %s", failure.message)

    def add(self, partition: str) -> None:
        self._running.add(partition)

    def remove(self, partition: str) -> None:
        self._running.discard(partition)

    def _run(self) -> None:
        try:
            while not self._end.wait(STOP_SECONDS):
                try:
                    self._beat()
                except SyncError as error:  # a book that cannot be used now must not make this process deaf to a stop
                    log.warning("the heartbeat was not written down: %s", error.message)
        finally:
            self._walls.book.close()

    def _beat(self) -> None:
        if self._walls.book.is_stopped(self._plan_id):
            self._walls.interruption.interrupt("`sync-pipeline stop` was called")
        if self._walls.clock() >= self._next_beat:
            self._walls.book.beat(self._plan_id, tuple(self._running))
            self._walls.meter.flush()
            self._next_beat = self._walls.clock() + BEAT_SECONDS
