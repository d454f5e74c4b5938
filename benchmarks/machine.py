"""What others did on this machine meanwhile: a figure that was taken beside them says nothing.

Only Linux tells (``/proc/stat``). Stolen time is others' too: it went to another guest of the same host.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
YARDSTICK = 5_000_000
"""Numbers that are squared and added up, to tell how fast the machine is."""
QUIET_SHARE = 0.15
"""Of all cores; a round in which others used more is not counted."""


@dataclass
class Watch:
    """``others`` is the share of all cores that others used, ``None`` where it cannot be told or the watch goes on."""

    others: float | None = None


@contextmanager
def watched() -> Iterator[Watch]:
    """Watches the machine within the block; processes that were started there must have been waited for at its end."""
    watch = Watch()
    own, before = _own_seconds(), _busy_and_all()
    yield watch
    after = _busy_and_all()
    if before is not None and after is not None and after[1] > before[1]:
        busy = after[0] - before[0] - (_own_seconds() - own)
        watch.others = max(busy, 0.0) / (after[1] - before[1])


def described() -> dict[str, str | int | float]:
    """On what the figures were taken. ``yardstick`` is the CPU that a fixed piece of work took just now, in seconds: a
    machine that is one of several on its host has fast and slow hours, in which all figures grow or shrink with it."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count() or 1,
        "yardstick": round(_yardstick(), 2),
    }


def _yardstick() -> float:
    started = time.process_time()
    sum(number * number for number in range(YARDSTICK))
    return time.process_time() - started


def _own_seconds() -> float:
    """CPU of this process and of all that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _busy_and_all() -> tuple[float, float] | None:
    """CPU seconds of all cores since the start: used, and all."""
    if not STAT.exists():
        return None
    # user nice system idle iowait irq softirq steal; guests are in user already
    ticks = [int(text) for text in STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    total, idle = sum(ticks), ticks[3] + ticks[4]
    per_second = os.sysconf("SC_CLK_TCK")
    return (total - idle) / per_second, total / per_second
