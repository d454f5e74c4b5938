"""The verbs of the simulated org that fill it and put it behind a port, as their users know them."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

import sync_pipeline.simulated_org
from sync_pipeline.simulated_org.knobs import KNOBS
from sync_pipeline.simulated_org.seed import SOURCE
from sync_pipeline.simulated_org.source import source_rows
from sync_pipeline.simulated_org.state import Org
from sync_pipeline_tests.cli.conftest import Run


def test_seeding_says_in_one_sentence_what_it_made(run: Run, home: Path) -> None:
    ran = run("org", "seed", "--rows", "1200", "--in-org", "0.5")

    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{SOURCE}: 1,200 rows of 120 accounts made; the CRM holds 600 of them already.\n"
    assert source_rows(Org(home / "simulated_org"), SOURCE).height == 1200


def test_the_next_night_says_what_became_of_the_rows(run: Run) -> None:
    run("org", "seed", "--rows", "200")

    ran = run("org", "seed", "--next-night", "--change", "0.1", "--insert", "0.05", "--delete", "0.5")

    assert (ran.code, ran.out) == (0, f"{SOURCE}: 20 rows changed, 10 new, 100 gone; 110 rows in all.\n")


def test_a_source_of_no_rows_is_filled_too(run: Run) -> None:
    run("org", "seed", "--rows", "0")

    assert "0 rows changed" in run("org", "seed", "--next-night").out


def test_keys_can_be_null_equal_or_of_any_shape(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"

    ran = run(
        "org", "seed", "--folder", str(folder), "--rows", "50", "--keys", "mixed", "--null-keys", "2", "--duplicate-keys", "3"
    )  # fmt: skip

    keys = source_rows(Org(folder), SOURCE)["ExternalId__c"]
    assert ran.code == 0
    assert (len(keys), keys.null_count(), keys.drop_nulls().n_unique()) == (50, 2, 45)


def test_rows_that_cannot_be_are_refused_with_a_sentence(run: Run) -> None:
    ran = run("org", "seed", "--rows", "1", "--null-keys", "2")

    assert ran.code == 2
    assert ran.err.startswith("1 rows cannot hold 2 null, 0 equal and 0 similar keys.\n")


@pytest.mark.parametrize("verb", [("seed", "--rows", "5"), ("serve",), ("fault", "list")])
def test_a_folder_that_cannot_be_used_is_refused_with_a_sentence(
    run: Run, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("")

    ran = run("org", *verb, "--folder", str(tmp_path / "file" / "org"))

    assert ran.code == 2
    assert "cannot be kept in" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com"])
def test_nothing_but_loopback_is_served(run: Run, host: str) -> None:
    ran = run("org", "serve", "--host", host)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("The simulated org listens on loopback addresses only, such as 127.0.0.1, and not on")


def test_a_port_that_is_taken_is_refused(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        ran = run("org", "serve", "--port", port)

    assert (ran.code, ran.out) == (2, "")
    assert f"127.0.0.1:{port} cannot be used" in ran.err


def test_words_of_a_fault_keep_their_blanks(run: Run) -> None:
    run("org", "fault", "add", "answer", "name=a", "message=two words")
    run("org", "fault", "add", "cut name=b endpoint=upload")

    ran = run("org", "fault", "list")

    assert ran.code == 0
    assert [line.split()[0] for line in ran.out.splitlines()[-2:]] == ["a", "b"]


def test_the_list_of_faults_knows_those_of_requests_and_those_of_rows(run: Run) -> None:
    ran = run("org", "fault", "list")

    assert {"lost_answer", "row_errors"} <= {line.split()[0] for line in ran.out.splitlines() if line}


def test_a_knob_is_set_by_name_and_given_back(run: Run, home: Path) -> None:
    ran = run("org", "set", "nested_status=true", 'pace={"query_seconds": 2}', "gzip=off", "post_waits=on")
    org = Org(home / "simulated_org")
    names = ("nested_status", "pace", "gzip", "post_waits")

    assert (ran.code, ran.out.splitlines()[0]) == (0, "nested_status is true.")
    assert [org.setting(name) for name in names] == [True, {"query_seconds": 2}, "off", True]

    assert run("org", "set", "nested_status=").out == "nested_status is its default again.\n"
    org.forget_facts()
    assert org.setting("nested_status") is None


def test_knobs_are_listed_with_their_values_but_without_secrets(run: Run, home: Path) -> None:
    told = run("org", "set", "page_bytes=77", 'clients={"me": "s3cret"}').out

    listed = run("org", "set").out

    assert all(name in listed for name in KNOBS)
    assert "77" in listed and "me" in listed and "s3cret" not in listed + told


@pytest.mark.parametrize("word", ["frob=1", "page_bytes", "page_bytes=many", "page_bytes=true", "nested_status=1"])
@pytest.mark.parametrize("verb", [("set",), ("serve", "--set")])
def test_a_knob_that_cannot_be_is_refused_with_a_sentence(run: Run, verb: tuple[str, ...], word: str) -> None:
    ran = run("org", *verb, word)

    assert ran.code == 2
    assert "`sync-pipeline org set` lists the knobs" in ran.err


def test_every_knob_that_is_read_is_listed() -> None:
    folder = Path(sync_pipeline.simulated_org.__file__).parent
    read = {name for file in folder.glob("*.py") for name in re.findall(r'\bsetting\("(\w+)"', file.read_text())}

    assert read - {"org_id"} == set(KNOBS)
