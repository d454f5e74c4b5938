"""The watchdog is called without a word of its address going anywhere else."""

from __future__ import annotations

import logging

import pytest

from sync_pipeline.domain.secret import Secret
from sync_pipeline.notify.watchdog import call_heartbeat
from sync_pipeline_tests.notify.receivers import Web


def test_the_watchdog_is_not_followed_to_another_address(web: Web) -> None:
    web.answer, web.location = 302, f"http://{web.address}/elsewhere"

    assert call_heartbeat(Secret(f"http://{web.address}/ping")) == "it answered HTTP 302"
    assert (web.refused, web.requests) == (1, [])


def test_nothing_of_the_watchdog_is_ever_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    assert call_heartbeat(Secret("http://127.0.0.1:1/ping/s3cret")) == "no connection"
    assert "s3cret" not in caplog.text
