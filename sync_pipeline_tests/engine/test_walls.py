"""An interruption ends every wait: the pauses of the pipeline, and requests to which nobody answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sync_pipeline.domain.errors import Stopped
from sync_pipeline.domain.secret import Secret
from sync_pipeline.engine.walls import Interruption
from sync_pipeline.salesforce.answer import nothing
from sync_pipeline.salesforce.auth import Login
from sync_pipeline.salesforce.session import Session
from sync_pipeline_tests.engine.rehearsal import rehearsal


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A listener that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_a_wait_ends_at_once_and_says_why() -> None:
    interruption = Interruption()
    with ThreadPoolExecutor(max_workers=1) as waiting:
        wait = waiting.submit(interruption.sleep, 600)
        interruption.interrupt("Ctrl-C")
        with pytest.raises(Stopped, match="Stopped: Ctrl-C"):
            wait.result(timeout=10)
    with pytest.raises(Stopped):
        interruption.check()


def test_the_first_reason_counts_and_what_is_to_be_cut_is_cut_once() -> None:
    interruption, cut = Interruption(), list[str]()
    interruption.cuts(lambda: cut.append("cut"))

    interruption.interrupt("`sync-pipeline stop` was called")
    interruption.interrupt("Ctrl-C")

    assert interruption.reason == "`sync-pipeline stop` was called"
    assert cut == ["cut"]


def test_a_request_to_which_nobody_answers_ends_when_the_work_is_interrupted(silent: socket.socket) -> None:
    interruption = Interruption()
    login = Login(f"http://127.0.0.1:{silent.getsockname()[1]}", client_id=Secret("id"), client_secret=Secret("secret"))
    with Session(login, sleep=interruption.sleep) as session, ThreadPoolExecutor(max_workers=1) as lane:
        interruption.cuts(session.cut)
        asking = lane.submit(session.send, "GET", "/limits", endpoint="limits", read=nothing)
        taken, _ = silent.accept()
        with taken:
            assert taken.recv(1)  # the request is on its way, so its connection is known
            began = time.monotonic()
            interruption.interrupt("Ctrl-C")
            with pytest.raises(Stopped):
                asking.result(timeout=10)
            assert time.monotonic() - began < 5


def test_cutting_when_nothing_is_under_way_does_no_harm(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50) as r:
        r.walls.session.cut()

        assert r.run().counts.created == 50


def test_only_so_many_put_their_rows_in_order_at_once_in_all_processes(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50, sort_slots=2) as r:
        others = [r.again() for _ in range(5)]
        lock, inside, most = threading.Lock(), [0], [0]

        def sort(walls_of: int) -> None:
            for _ in range(5):
                with others[walls_of].walls.sorting():
                    with lock:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                    time.sleep(0.001)
                    with lock:
                        inside[0] -= 1

        with ThreadPoolExecutor(max_workers=5) as lanes:
            list(lanes.map(sort, range(5)))
        assert most[0] == 2
        for other in others:
            other.walls.close()


def test_one_lane_of_a_process_at_a_time_holds_more_rows_than_a_page(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=50, rows_per_range=50, lanes=5, sort_slots=2) as r:
        inside, most = [0], [0]

        def hold(lane: int) -> None:
            for _ in range(5):
                with r.walls.holding() if lane % 2 else r.walls.sorting():
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    time.sleep(0.001)
                    inside[0] -= 1

        with ThreadPoolExecutor(max_workers=5) as lanes:
            list(lanes.map(hold, range(5)))

        assert most[0] == 1
