"""Who is told about nights: the Apprise URLs of SYNC_ALERTS.

Apprise speaks Slack, Teams, e-mail, webhooks and some hundred more; it is imported when a note is sent and not before.

These URLs are secrets, and what Apprise and requests log or raise quotes pieces of them. So nothing they say is passed
on: a recipient is named by its place in the setting and its scheme, a failure by one of a few sentences.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from sync_pipeline.domain.secret import Secret

Tone = Literal["failure", "warning", "success", "info"]

TALKATIVE: Final = ("apprise", "urllib3", "requests")
"""Loggers that quote URLs."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """One URL of SYNC_ALERTS. ``name`` may be shown; ``digest`` tells it from the others in the book."""

    name: str
    digest: str
    url: Secret


def recipients_of(urls: Sequence[Secret]) -> tuple[Recipient, ...]:
    """Recipients in the order of the setting; one that is written twice is told once."""
    return tuple(
        Recipient(
            name=f"recipient {place} ({url.reveal().partition('://')[0].lower()})",
            digest=hashlib.sha256(url.reveal().encode()).hexdigest()[:12],
            url=url,
        )
        for place, url in enumerate(dict.fromkeys(urls), start=1)
    )


def send(recipient: Recipient, *, title: str, body: str, tone: Tone) -> str:
    """Sends a note; returns why it was not taken, or an empty text when it was."""
    with _hushed() as said:
        import apprise

        asset = apprise.AppriseAsset(
            app_id="sync_pipeline",
            app_desc="sync_pipeline",
            app_url="",
            # A note goes where the setting says, in this thread, and leaves nothing on disk.
            http_redirects=False,
            async_mode=False,
            storage_mode="memory",
        )
        notifier = apprise.Apprise(asset=asset)
        if not notifier.add(recipient.url.reveal()):
            return "Apprise does not understand this URL; `sync-pipeline alert test` tries it again"
        is_taken = notifier.notify(
            title=title,
            body=body,
            notify_type=apprise.NotifyType(tone),
            body_format=apprise.NotifyFormat.TEXT,
        )
    return "" if is_taken else _why(said)


@contextmanager
def _hushed() -> Iterator[list[str]]:
    """Loggers that quote URLs say nothing to anybody; what Apprise warns of is collected, for ``_why`` alone."""
    said: list[str] = []
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    before = [(logger, logger.level, logger.propagate, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [_Collector(said)], False
        logger.setLevel(logging.WARNING)
    try:
        yield said
    finally:
        for logger, level, propagate, handlers in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


class _Collector(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())


def _why(said: Sequence[str]) -> str:
    """The one fact in Apprise's warnings that can be no secret."""
    text = " ".join(said)
    if status := re.search(r"\berror=(\d{3})\b", text):
        return f"it answered HTTP {status[1]}"
    return "no connection" if "onnection error" in text else "it was refused"
