"""Recipients of notes: who they are, and what Apprise makes of them. What may be shown of them: ``test_alerting``."""

from __future__ import annotations

import logging

from sync_pipeline.domain.secret import Secret
from sync_pipeline.notify.recipients import recipients_of, send
from sync_pipeline_tests.notify.receivers import Web


def test_a_url_that_apprise_does_not_know_is_no_recipient() -> None:
    [recipient] = recipients_of([Secret("nosuchservice://s3cret")])

    assert send(recipient, title="a", body="b", tone="info").startswith("Apprise does not understand this URL")


def test_a_recipient_that_is_written_twice_is_told_once() -> None:
    twice = recipients_of([Secret("json://a"), Secret("slack://b"), Secret("json://a")])

    assert [recipient.name for recipient in twice] == ["recipient 1 (json)", "recipient 2 (slack)"]


def test_loggers_are_left_as_they_were(web: Web) -> None:
    loggers = [logging.getLogger(name) for name in ("apprise", "urllib3", "requests")]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    [recipient] = recipients_of([Secret(f"json://{web.address}")])

    assert send(recipient, title="a", body="b", tone="info") == ""
    assert [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers] == before
