"""Turns: blocks that one thread of all processes of this host is in at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

TURN_SECONDS: Final = 0.01
TURN_SECONDS_MAX: Final = 0.5
"""Pauses between two looks at whose turn it is: the first, doubled up to the last."""
TOLD_SECONDS: Final = 30.0
"""A wait for a turn that has taken so long is told, and again whenever it has doubled."""


class Turns:
    """Files beside the book, whichever database that is in."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def turn(self, name: str, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
        """Only one thread of all processes is in the block of this name; the others wait by ``sleep``, which may raise.

        The lock is the system's: it goes with the process that holds it, whose own requests are bounded in time.
        """
        descriptor = os.open(self._path.with_name(f"{self._path.stem}-{name}.turn"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            pause, waited, told = TURN_SECONDS, 0.0, TOLD_SECONDS
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if waited >= told:
                        log.info("waited %.0f s for the turn %r, which another range or process has", waited, name)
                        told *= 2
                    sleep(pause)
                    waited += pause
                    pause = min(2 * pause, TURN_SECONDS_MAX)
            yield
        finally:
            os.close(descriptor)
