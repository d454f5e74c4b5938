"""The benchmark measures what it says: the same bytes on both sides, medians of quiet rounds, bounds that are bounds."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import night, paced, staging
from benchmarks.bench import Bench
from benchmarks.floor import move, stories
from benchmarks.machine import QUIET_SHARE
from benchmarks.org import Orgs
from benchmarks.process import Failed, run
from benchmarks.recorder import Recorder
from benchmarks.recording import Request, named_in, requests, uploads
from benchmarks.rounds import Round, Rounds, played
from benchmarks.sheet import aligned, bars, lines, medians
from benchmarks.targets import judged
from sync_pipeline.engine.night import drive, open_night
from sync_pipeline.settings import load_settings
from sync_pipeline.simulated_org.app import handle
from sync_pipeline.simulated_org.objects import find_object
from sync_pipeline.simulated_org.records import Records
from sync_pipeline.simulated_org.seed import seed
from sync_pipeline.simulated_org.server import Server, running, serving
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.wiring import open_walls

ROWS = 300


# The floor


@pytest.mark.parametrize("api", ["connect", "v3"])
def test_the_floor_moves_the_bytes_of_the_recorded_night_into_another_org(tmp_path: Path, api: str) -> None:
    recording = tmp_path / "recording"
    with recorded(seeded(tmp_path / "org"), recording) as base_url:
        a_night(base_url, tmp_path / "home", api)
    other = seeded(tmp_path / "other")

    with running(other) as base_url:
        moved = move(recording, base_url)

    asked = requests(recording)
    sent = sum((recording / r.file).stat().st_size if r.file else len(r.body.encode()) for r in asked)
    assert moved["requests"] >= len(asked)
    assert moved["sent"] == pytest.approx(sent, rel=0.01)
    assert moved["received"] == pytest.approx(sum(r.received for r in asked), rel=0.01)
    assert opportunities(other) == ROWS


def test_a_recording_holds_every_uploaded_row_once(tmp_path: Path) -> None:
    recording = tmp_path / "recording"

    with recorded(seeded(tmp_path / "org"), recording) as base_url:
        a_night(base_url, tmp_path / "home", "connect")

    keys = [line.split(",")[0] for file in uploads(recording) for line in file.read_text().splitlines()[1:]]
    assert len(keys) == len(set(keys)) == ROWS


def test_what_is_about_one_job_is_one_story() -> None:
    asked = [
        request(1, "POST", "/services/oauth2/token", named=["token"]),
        request(2, "POST", "/services/data/v66.0/jobs/ingest", named=["7501"]),
        request(3, "POST", "/services/data/v66.0/jobs/ingest", named=["7502"]),
        request(4, "PUT", "/services/data/v66.0/jobs/ingest/7501/batches"),
        request(5, "GET", "/services/data/v66.0/limits"),
        request(6, "GET", "/services/data/v66.0/jobs/ingest/7502"),
    ]

    logins, told = stories(asked)

    assert [r.number for r in logins] == [1]
    assert [[r.number for r in story] for story in told] == [[2, 4], [3, 6], [5]]


def test_an_answer_names_its_token_result_or_job() -> None:
    assert named_in(b'{"access_token":"00D!x","scope":"api"}') == ["00D!x"]
    assert named_in(b'{"data":[],"status":{"queryId":"abc_1"}}') == ["abc_1"]
    assert named_in(b'{"id": "7505e0000000001AAA","state":"Open"}') == ["7505e0000000001AAA"]
    assert named_in(b'{"state":"Open"}') == []


# Rounds


def test_a_busy_round_is_not_counted() -> None:
    rounds = Rounds([a_round(1.0, others=0.9), a_round(2.0, others=0.0), a_round(3.0, others=QUIET_SHARE)], wanted=2)

    assert rounds.sheet == {"night": {"wall s": 2.5}}
    assert rounds.is_quiet


def test_too_few_quiet_rounds_are_told_as_such() -> None:
    rounds = Rounds([a_round(1.0, others=0.5), a_round(2.0, others=0.4), a_round(9.0, others=0.9)], wanted=2)

    assert rounds.sheet == {"night": {"wall s": 1.5}}
    assert not rounds.is_quiet


def test_a_machine_that_does_not_tell_drops_no_round() -> None:
    rounds = Rounds([a_round(1.0, others=None)], wanted=1)

    assert rounds.is_quiet


def test_no_more_than_twice_the_wanted_rounds_are_played() -> None:
    told: list[str] = []

    rounds = played(lambda: {"night": {"wall s": 1.0}}, wanted=2, say=told.append)

    assert 2 <= len(rounds.played) == len(told) <= 4


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=9))
def test_a_median_lies_between_the_figures(figures: list[float]) -> None:
    found = medians([{"night": {"CPU s": figure}} for figure in figures])["night"]["CPU s"]

    assert min(figures) <= found <= max(figures)


# What is shown


def test_a_sheet_is_shown_with_the_units_of_its_columns() -> None:
    sheet = {"floor": {"wall s": 1.25, "peak MB": 18.2}, "night": {"wall s": 2.5, "peak MB": 301.4, "calls": 1200.0}}

    assert lines(sheet) == [
        "       wall s  peak MB  calls",
        "floor    1.25       18",
        "night    2.50      301  1,200",
    ]


def test_the_longest_bar_is_the_largest_figure() -> None:
    _, small, large = bars({"small": {"wall s": 1.0}, "large": {"wall s": 4.0}}, "wall s")

    assert (small.count("█"), large.count("█")) == (10, 40)


def test_each_target_is_met_missed_or_not_measured() -> None:
    table = {
        line.split("  ")[0]: line for line in judged({"peak": 250.0, "cpu_json": 9.0, "org_cpu": 4.0}, frozenset())
    }

    assert table["peak memory of a night, measured by value"].endswith(" met")
    assert table["client CPU per 1 M rows, JSON"].endswith("MISSED")
    assert table["simulated org, CPU per 1 M rows moved both ways"].endswith("stretch met")
    assert "not measured" in table["client CPU per 1 M rows, Arrow"]


def test_a_figure_from_a_busy_machine_says_so() -> None:
    assert any(line.endswith("met, machine was busy") for line in judged({"peak": 250.0}, frozenset({"peak"})))


def test_texts_stand_under_each_other() -> None:
    assert aligned([["a", "1"], ["bbb", "22"]]) == ["a     1", "bbb  22"]


# The best possible schedule


@given(rows=st.integers(1, 3_000_000), ranges=st.integers(1, 40))
def test_no_schedule_is_shorter_than_all_slots_busy_all_the_time(rows: int, ranges: int) -> None:
    statements = (paced.STATEMENTS_BEFORE + 1 + paced.STATEMENTS_AFTER) * paced.QUERY_SECONDS
    batch_rows, batch_seconds = paced.batch_of(rows)
    busy = rows / batch_rows * batch_seconds / paced.BATCHES

    best = paced.best_seconds(rows, ranges=ranges)

    assert busy <= best - statements + 1e-6
    assert best - statements <= busy + 2 * batch_seconds + 1e-6


@pytest.mark.parametrize(("rows", "seconds"), [(2_000_000, 606.0), (200_000, 66.0)])
def test_a_smaller_night_at_that_pace_is_shorter_and_keeps_its_shape(rows: int, seconds: float) -> None:
    batch_rows, _ = paced.batch_of(rows)

    assert rows / batch_rows == 200
    assert paced.best_seconds(rows, ranges=10) == pytest.approx(seconds)


# Programs


def test_what_a_program_took_is_its_own(tmp_path: Path) -> None:
    took = run(["-c", "print(len(b'x' * 200_000_000))"], folder=tmp_path / "large")

    assert took.out == "200000000\n"
    assert took.peak_bytes > 200_000_000
    assert took.wall_seconds > 0
    assert 0 < took.cpu_seconds < 10


def test_a_program_that_fails_is_no_measure(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="exit code 3") as failure:
        run(["-c", "import sys; print('no room', file=sys.stderr); sys.exit(3)"], folder=tmp_path)

    assert "no room" in str(failure.value)


def test_a_range_is_kept_on_the_disk_at_a_cost_that_adds_up(tmp_path: Path) -> None:
    sheet = staging.play(Bench(tmp_path, 1_000))

    kept = sum(row["CPU µs/row"] for name, row in sheet.items() if name.startswith("staging: "))
    rendering = sheet["rendering the CSV"]["CPU µs/row"]
    assert sheet["beyond rendering the CSV"]["CPU µs/row"] == pytest.approx(kept - rendering)
    assert set(staging.figures(sheet)) == {"staging_cpu", "commit_p50", "commit_max"}


@pytest.mark.slow
def test_a_night_of_some_hundred_rows_is_measured_beside_its_floor(tmp_path: Path) -> None:
    sheet = night.play(Bench(tmp_path, ROWS, ranges=2))

    assert list(sheet) == ["floor, JSON", "night, JSON", "next night, JSON", "floor, Arrow", "night, Arrow"]
    ours, floor = sheet["night, JSON"], sheet["floor, JSON"]
    assert ours["÷ floor"] == pytest.approx(ours["wall s"] / floor["wall s"])
    assert ours["CPU s"] > floor["CPU s"] > 0
    assert ours["calls/M"] * ROWS / 1e6 >= 2 * 6  # each of two ranges: create, upload, close, three result files


# The org, a night of it, and what was asked


def seeded(folder: Path) -> Org:
    org = Org(folder)
    seed(org, ROWS)
    return org


@contextmanager
def recorded(org: Org, folder: Path) -> Iterator[str]:
    recorder = Recorder(lambda request: handle(org, request), folder)
    with serving(Server(recorder.answer, compresses=lambda: False, leave=org.close)) as base_url:
        yield base_url


def a_night(base_url: str, home: Path, api: str) -> None:
    settings = load_settings(
        {
            "SALESFORCE_LOGIN_URL": base_url,
            "SALESFORCE_CLIENT_ID": "simulated",
            "SALESFORCE_CLIENT_SECRET": "simulated",
            "DATA_CLOUD_QUERY_API": api,
            "SYNC_HOME": str(home),
            "SYNC_ROWS_PER_RANGE": "150",
            "SYNC_VERIFY": "counts",
        }
    )
    walls = open_walls(settings)
    with walls.area.lock_driver():
        drive(walls, open_night(walls), on_event=lambda line: None)
    walls.close()


def opportunities(org: Org) -> int:
    sobject = find_object(org, "Opportunity")
    assert sobject is not None
    return len(Records(org, sobject))


def request(number: int, method: str, target: str, *, named: list[str] | None = None) -> Request:
    return Request(number, method, target, headers={}, body="", file="", named=named or [], received=0)


def a_round(seconds: float, *, others: float | None) -> Round:
    return Round({"night": {"wall s": seconds}}, others)


def test_an_org_that_records_ends_though_its_starter_ignores_interruptions(tmp_path: Path) -> None:
    """As every program does that a shell has started in the background."""
    orgs = Orgs(tmp_path / "orgs")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with orgs.served(
            orgs.seeded(300), program=("benchmarks.recorder", "--into", str(tmp_path / "recorded"))
        ) as served:
            assert served.base_url
    finally:
        signal.signal(signal.SIGINT, before)
    assert served.ended.exit_code == 0
