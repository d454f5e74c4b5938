"""Notes about nights from the terminal: the verb that tries the recipients, and what is told when no night can be opened."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sync_pipeline.cli.terminal import Terminal
from sync_pipeline.domain.errors import HeldElsewhere, SettingsError, Stopped, SyncError, UsageError
from sync_pipeline.engine.alerting import Alerts, Planning
from sync_pipeline.notify.recipients import send
from sync_pipeline.wiring import open_alerts

NO_FAILURE = (HeldElsewhere, Stopped, UsageError)
"""A night goes on elsewhere, or somebody at the terminal has the answer before them."""


@contextmanager
def told_when_refused(alerts: Alerts) -> Iterator[None]:
    """An error of the body is the reason why no night could be opened, which a cron job tells nobody else."""
    try:
        yield
    except SyncError as error:
        if not isinstance(error, NO_FAILURE):
            reason = str(error)
            alerts.tick(Planning(datetime.now(UTC), has_failed=True, why=lambda: reason))
        raise


def test(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Sends a note to each recipient and says what happened; the watchdog is not called, it would be misled."""
    with open_alerts(terminal.settings) as alerts:
        return _try_all(alerts, terminal)


def _try_all(alerts: Alerts, terminal: Terminal) -> int:
    if not alerts.recipients:
        raise SettingsError(
            "Nobody is told of anything: SYNC_ALERTS is not set.",
            hint="Set it to Apprise URLs with a blank between two of them, such as slack://TOKEN or mailto://...",
        )
    worst = 0
    for recipient in alerts.recipients:
        why = send(
            recipient,
            title="Test of the alerts of sync_pipeline",
            body=f"Somebody ran `sync-pipeline alert test` in {terminal.settings.home}. There is nothing to do.",
            tone="info",
        )
        terminal.print(f"{recipient.name}: {why or 'took the note'}")
        worst = max(worst, int(bool(why)))
    watchdog = "is set, and called after each night that ends well" if terminal.settings.heartbeat_url else "is not set"
    terminal.print(f"SYNC_HEARTBEAT_URL {watchdog}")
    for name, condition in sorted(alerts.conditions().items()):
        if condition.is_open:
            terminal.print(f"Open: {name} ({', '.join(condition.failing)})")
        for note in condition.due:
            terminal.print(f"Due: {note.title} (made {note.made_at:%Y-%m-%d %H:%M} UTC, {note.tries} tries)")
    return worst
