"""SYNC_HOME: where everything lies, who works on what, and what is cleared away when.

Locks are the system's own (``flock``): they go with the process that holds them, however it ends, and a second thread
of the same process meets them too. They hold on one host and a local disk.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sync_pipeline.domain.errors import HeldElsewhere, SettingsError, StateError
from sync_pipeline.staging.durable import PASSING, private_folder

log = logging.getLogger(__name__)

NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}\Z")
"""Plan ids and partition keys; nothing else becomes a name of a folder or file. Keys of older plans may begin with ``-``."""
PLAN_ID: Final = "%Y%m%dT%H%M%S.%fZ"
ROW_FILES: Final = ("page-*.parquet", "part-*.parquet", "part-*.csv", f"*{PASSING}")
"""Files of a range that hold rows of the source; the others are its ledger."""
MEASURE: Final = "measure-"
"""Begins the name of a measurement's own folder."""
SPILL: Final = "spill-"
"""Begins the name of the folder of a process for what its DuckDB does not hold in memory."""
LOCK_TRIES: Final = 10
LOCK_PAUSE: Final = 0.02
"""Seconds between two tries: whoever only looks whether something is locked is gone before the last one."""
SLOT_PAUSE: Final = 0.1
"""Seconds between two looks for a free place."""
TOLD_SECONDS: Final = 30.0
"""A wait for a place that has taken so long is told, and again whenever it has doubled."""


class Area:
    """Folders, names and locks under one SYNC_HOME. Creates nothing until ``prepare``."""

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.book_file = self.home / "book.sqlite"
        self.simulated_org = self.home / "simulated_org"
        self._nights = self.home / "nights"
        self._locks = self.home / "locks"

    def prepare(self) -> None:
        """Makes the folders, for the user alone. Raises ``SettingsError`` when nothing can be written there."""
        try:
            private_folder(self._nights)
            private_folder(self._locks)
            probe = self._locks / f"probe-{os.getpid()}{PASSING}"
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT, 0o600))
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise SettingsError(
                f"SYNC_HOME {self.home} cannot be used: {error.strerror or error}.",
                hint="Set SYNC_HOME to a folder of yours on a local disk.",
            ) from None

    def night_folder(self, plan_id: str) -> Path:
        return self._nights / _checked(plan_id)

    def range_folder(self, plan_id: str, partition: str, generation: int) -> Path:
        """Where a range of a night is kept; each fresh start of it has a folder of its own."""
        return self.night_folder(plan_id) / _checked(partition) / f"{generation:d}"

    def free_bytes(self) -> int:
        """What the disk of SYNC_HOME has left for this user."""
        folder = self.home
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    # Locks

    def lock_range(self, partition: str) -> AbstractContextManager[None]:
        """Ownership of a range, whatever the night. Raises ``HeldElsewhere`` when somebody has it."""
        return self._lock(f"range-{_checked(partition)}", what=f"range {partition}")

    def lock_night(self) -> AbstractContextManager[None]:
        """The right to plan a night or to pass its verdict. Raises ``HeldElsewhere``."""
        return self._lock("night", what="the plan or verdict of the night")

    def lock_driver(self) -> AbstractContextManager[None]:
        """The right to drive a night from a terminal. Raises ``HeldElsewhere``."""
        return self._lock("driver", what="the night, from a terminal")

    def lock_measure(self) -> AbstractContextManager[None]:
        """The right to measure the org for a night. Raises ``HeldElsewhere``."""
        return self._lock("measure", what="the measurement of the night")

    def is_range_locked(self, partition: str) -> bool:
        """Somebody works on the range now, in this process or another. Keeps nobody from starting."""
        return self._is_locked(f"range-{_checked(partition)}")

    def is_measure_locked(self) -> bool:
        """Somebody measures the org now. Keeps nobody from starting."""
        return self._is_locked("measure")

    def is_driver_locked(self) -> bool:
        """Somebody drives a night from a terminal now. Keeps nobody from starting."""
        return self._is_locked("driver")

    @contextmanager
    def slot(self, name: str, *, of: int, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
        """One of the places for this kind of work, of which all processes together have so many.

        Whoever finds none waits by ``sleep``, which may raise. A place goes with the process that has it, and the work in
        it is bounded in time.
        """
        waited, told = 0.0, TOLD_SECONDS
        while (descriptor := self._free_slot(name, of)) is None:
            if waited >= told:
                log.info("waited %.0f s for one of the %d places to %s", waited, of, name)
                told *= 2
            sleep(SLOT_PAUSE)
            waited += SLOT_PAUSE
        try:
            yield
        finally:
            os.close(descriptor)

    def _free_slot(self, name: str, of: int) -> int | None:
        for number in range(of):
            descriptor = self._opened_lock(f"{name}-{number}")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
            else:
                return descriptor
        return None

    def _is_locked(self, name: str) -> bool:
        try:
            descriptor = os.open(self._lock_file(name), os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @contextmanager
    def _lock(self, name: str, *, what: str) -> Iterator[None]:
        descriptor = self._opened_lock(name)
        try:
            for tries_left in reversed(range(LOCK_TRIES)):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if tries_left == 0:
                        raise _held(what, _holder(descriptor)) from None
                    time.sleep(LOCK_PAUSE)
            holder = {"pid": os.getpid(), "started_at": datetime.now(UTC).isoformat(timespec="seconds"), "what": what}
            with suppress(OSError):  # a full disk keeps nobody from holding a lock, only from saying who does
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(holder).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _opened_lock(self, name: str) -> int:
        """A descriptor that is not inherited by programs we start. Raises ``SettingsError`` when SYNC_HOME was removed
        under us: no try of anything can help."""
        try:
            return os.open(self._lock_file(name), os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            raise SettingsError(
                f"The state folder {self.home} was removed while it was in use.",
                hint="Give it back or begin anew with `sync-pipeline sync`; what was sent to the org is there.",
            ) from None

    def _lock_file(self, name: str) -> Path:
        return self._locks / f"{name}.lock"

    # Folders of one process

    @contextmanager
    def measure_folder(self, plan_id: str) -> Iterator[Path]:
        """A private folder for one measurement of that night, gone at the end. What a killed one leaves is swept."""
        night = self.night_folder(plan_id)
        with _own_folder(night if night.is_dir() else self.home, MEASURE) as folder:
            yield folder

    @contextmanager
    def spill_folder(self) -> Iterator[Path]:
        """A private folder for what DuckDB does not hold in memory, gone at the end. What a killed process leaves is
        swept."""
        with _own_folder(self.home, SPILL) as folder:
            yield folder

    # Retention

    def sweep(
        self, *, now: datetime, keep_rows: timedelta, keep_ledgers: timedelta, unfinished: Collection[str]
    ) -> list[str]:
        """Clears away rows, then whole nights, that are older than that; says what it removed.

        A night's age counts from its plan id. Nights in ``unfinished`` stay whole, and so does a range that somebody
        works on. What killed processes left in folders of their own goes at once.
        """
        removed: list[str] = []
        for left in (*self.home.glob(f"{MEASURE}*"), *self.home.glob(f"{SPILL}*"), *self._nights.glob(f"*/{MEASURE}*")):
            _remove_unless_held(left)
        for folder in sorted(self._nights.iterdir()) if self._nights.is_dir() else []:
            opened_at = _opened_at(folder.name)
            if opened_at is None or folder.name in unfinished or now - opened_at <= keep_rows:
                continue
            ranges = [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_range(path)]
            busy = [path.name for path in ranges if self.is_range_locked(path.name)]
            if now - opened_at > keep_ledgers and not busy:
                shutil.rmtree(folder)
                removed.append(f"night {folder.name} with its ledgers")
                continue
            size = sum(_remove_rows(path) for path in ranges if path.name not in busy)
            if size:
                removed.append(f"rows of night {folder.name}, {size / 1e6:,.1f} MB")
        return removed


def _checked(name: str) -> str:
    """Raises ``StateError`` for a name that could lead elsewhere."""
    if not NAME.match(name):
        raise StateError(f"{name!r} is no plan id or partition key.", hint="See them with `sync-pipeline status`.")
    return name


def _held(what: str, holder: dict[str, Any]) -> HeldElsewhere:
    who = f"process {holder['pid']} since {holder['started_at']}" if holder else "another process"
    return HeldElsewhere(
        f"{who[0].upper()}{who[1:]} works on {what}.", hint="Watch it with `sync-pipeline status --watch`."
    )


def _holder(descriptor: int) -> dict[str, Any]:
    """Who has the lock, as far as it has written that down yet."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) and {"pid", "started_at"} <= holder.keys() else {}


def _opened_at(plan_id: str) -> datetime | None:
    try:
        return datetime.strptime(plan_id, PLAN_ID).replace(tzinfo=UTC)
    except ValueError:
        return None


def _is_range(folder: Path) -> bool:
    return NAME.match(folder.name) is not None and not folder.name.startswith(MEASURE)


@contextmanager
def _own_folder(where: Path, prefix: str) -> Iterator[Path]:
    """A new folder there, held by this process and removed at the end."""
    folder, descriptor = _held_folder(where, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _held_folder(where: Path, prefix: str) -> tuple[Path, int]:
    """A new folder, and the descriptor by which it is held until that is closed."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=where))
        with suppress(FileNotFoundError):  # swept before it was held: another one
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if folder.exists():
                return folder, descriptor
            os.close(descriptor)


def _remove_unless_held(folder: Path) -> None:
    """Removes the folder of a process that does not work in it any more."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # its process has removed it meanwhile
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except BlockingIOError:
        return
    finally:
        os.close(descriptor)


def _remove_rows(range_folder: Path) -> int:
    """Removes the rows of all generations of a range; returns their bytes."""
    size = 0
    for generation in range_folder.iterdir():
        for pattern in ROW_FILES:
            for path in generation.glob(pattern):
                size += path.stat().st_size
                path.unlink()
    return size
