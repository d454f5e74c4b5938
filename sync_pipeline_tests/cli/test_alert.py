"""Notes from the terminal: the verb that tries the recipients, and what `sync` tells of a night that a cron job runs."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sync_pipeline_tests.cli.conftest import Run
from sync_pipeline_tests.notify.receivers import Web, serving


@pytest.fixture
def web(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    server = Web()
    monkeypatch.setenv("SYNC_ALERTS", f"json://{server.address}/notes")
    with serving(server):
        yield server


def test_alert_test_says_who_took_the_note(run: Run, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"json://127.0.0.1:{closed.getsockname()[1]}/s3cret"
        monkeypatch.setenv("SYNC_ALERTS", f"json://{web.address}/s3cret {nobody}")

        ran = run("alert", "test")

    assert ran.code == 1
    assert ran.out.splitlines() == [
        "recipient 1 (json): took the note",
        "recipient 2 (json): no connection",
        "SYNC_HEARTBEAT_URL is not set",
    ]
    assert web.titles == ["Test of the alerts of sync_pipeline"]
    assert "s3cret" not in ran.out + ran.err


def test_alert_test_leaves_the_watchdog_alone(run: Run, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_HEARTBEAT_URL", f"http://{web.address}/ping")

    ran = run("alert", "test")

    assert ran.code == 0
    assert [method for method, _, _ in web.requests] == ["POST"]


def test_alert_test_without_recipients_names_the_setting(run: Run) -> None:
    ran = run("alert", "test")

    assert ran.code == 2
    assert "SYNC_ALERTS is not set" in ran.err


def test_a_sync_that_ends_badly_tells_it_once_and_one_that_ends_well_tells_that(
    run: Run, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_HEARTBEAT_URL", f"http://{web.address}/ping")
    run("org", "seed", "--rows", "50")
    run("org", "fault", "add", "silent_drop", "keys=externalOpp0000007")
    bad = run("sync")
    again = run("sync")
    assert (bad.code, again.code) == (1, 1)
    assert web.titles == ["Night not reconciled, 1 check fails: simulated org"]
    shown = run("alert", "test")
    assert "Open: night (present_equals_expected end-" in shown.out

    run("org", "fault", "clear")
    good = run("sync")

    assert good.code == 0
    assert web.titles[-1] == "Night reconciled again: simulated org"
    assert [path for method, path, _ in web.requests if method == "GET"] == ["/ping"]


def test_a_sync_that_cannot_open_a_night_tells_why(run: Run, web: Web) -> None:
    refused = run("sync")
    assert refused.code == 2
    assert web.titles == ["No night could be opened"]
    assert "has no source object yet" in web.notes[0]["message"]

    run("org", "seed", "--rows", "50")
    run("sync")

    assert web.titles == ["No night could be opened", "Nights can be opened again"]


def test_a_mistake_at_the_terminal_is_told_there_alone(run: Run, web: Web) -> None:
    run("org", "seed", "--rows", "50")
    run("sync")

    assert run("sync", "--range", "no-such-range").code == 2
    assert web.notes == []


def test_a_sync_that_parks_tells_it_at_its_end(run: Run, web: Web) -> None:
    run("org", "seed", "--rows", "50")
    run("org", "fault", "add", "limit", "endpoint=create")

    assert run("sync").code == 1

    assert web.titles == ["Night parked: simulated org"]


def test_nobody_to_be_reached_changes_no_exit_code(run: Run, web: Web) -> None:
    web.answer = 500
    run("org", "seed", "--rows", "50")
    run("org", "fault", "add", "silent_drop", "keys=externalOpp0000007")
    assert run("sync").code == 1
    run("org", "fault", "clear")

    assert run("sync").code == 0
    assert web.refused > 0
