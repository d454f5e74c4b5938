"""Certificates on disk: one for each verdict, true to the book, private, durable, and in a chain that retention keeps."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sync_pipeline.domain.certificate import sealed
from sync_pipeline.domain.errors import StateError
from sync_pipeline.domain.ledger import Verdict
from sync_pipeline.engine.certificate import Chain, folder_of, issue, markdown_of, read_chain
from sync_pipeline.engine.night import drive, open_night, restart
from sync_pipeline.staging.durable import Disk
from sync_pipeline_tests.engine.witness import World, row, rows, world

KEYS = {"SYNC_CERTIFICATE_KEY": "first-key-of-this-house"}


def chain_of(it: World) -> Chain:
    return read_chain(it.walls.area, it.walls.book, keys=it.walls.certificate_keys)


def newest(it: World) -> dict[str, Any]:
    """Contents of the newest certificate, whose chain is whole."""
    chain = chain_of(it)
    assert chain.problems == ()
    return dict(chain.certificates[-1].contents)


def again(it: World, *, now: datetime | None = None) -> None:
    """Another certificate of the newest night."""
    night = it.walls.book.newest()
    assert night is not None
    walls = it.walls if now is None else replace(it.walls, now=lambda: now)
    issue(walls, night, Verdict.RECONCILED, reasons=(), seconds=1.0)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A night that is over; its tests change nothing but add certificates."""
    with world(tmp_path_factory.mktemp("quiet"), rows("a", "b", "c"), **KEYS) as it:
        it.night()
        yield it


def test_a_certificate_says_what_the_book_says(tmp_path: Path) -> None:
    source = [*rows("a", "b"), row("c", StageName__c="no such stage"), row("d", Amount__c="many"), row(None)]
    with world(tmp_path, source) as it:
        night = it.night()

        told = newest(it)

        assert (told["number"], told["previous"], told["amends"], told["chain_starts_at"]) == (1, None, None, 1)
        assert (told["plan_id"], told["org"]["org_id"]) == (night.plan_id, it.org.org_id)
        assert (told["verdict"], told["reasons"]) == ("reconciled with rejects", list(night.verdict_reasons))
        assert told["proves"].startswith("Reconciled with rejects: some rows did not get through")
        assert told["totals"] == {
            "expected": 5, "staged": 5, "succeeded": 2, "created": 2, "updated": 0, "failed": 1, "unprocessed": 0,
            "quarantined": 2, "set_aside": 0,
        }  # fmt: skip
        assert [(r["outcome"], r["code"], r["rows"]) for r in told["rejects"]] == [
            ("failed", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", 1),
            ("quarantined", "NULL_KEY", 1),
            ("quarantined", "UNREADABLE", 1),
        ]
        assert told["measurement"]["reasons"] == {"quarantined": 2, "rejected": 1}
        assert told["measurement"]["distribution"]["rows"][0] == ["Prospecting", 3, 2]
        assert told["api_calls"]["used"] == sum(told["api_calls"]["by_endpoint"].values()) == night.api_calls > 0
        assert told["timings"]["seconds"] == round(night.seconds, 3)
        (of_range,) = told["ranges"]
        (job,) = of_range["jobs"]
        assert (of_range["state"], of_range["measured"]["present"]) == ("done", 2)
        assert (job["id"], job["rows"], job["outcomes"]["file"]) == (
            it.walls.book.jobs()[0].job_id,
            3,
            "outcome-00001.parquet",
        )
        assert {"python", "polars", "duckdb", "salesforce_api"} <= told["versions"].keys()


def test_its_checks_are_those_of_the_night(quiet: World) -> None:
    names = [check["name"] for check in newest(quiet)["checks"]]

    assert names == [
        "source_plausible", "every_range_done", "every_row_accounted", "rows_compared", "present_equals_expected",
        "values_equal", "api_budget_kept", "ended_in_time",
    ]  # fmt: skip


def test_a_row_that_differs_is_named_and_none_of_its_values_is(tmp_path: Path) -> None:
    with world(tmp_path, rows("a", "b"), SYNC_REPAIRS="0") as it:
        it.fault("""silent_drop keys='["b"]'""")
        it.night()

        told = newest(it)

        (named,) = told["measurement"]["sample"]
        assert (named["key"], named["finding"], named["reason"]) == ("b", "missing", "lost")
        text = json.dumps(told) + markdown_of(it.walls.area, chain_of(it).certificates[0])
        assert "Opportunity b" not in text and "100.25" not in text


def test_every_night_follows_the_one_before_it(tmp_path: Path) -> None:
    with world(tmp_path, rows("a")) as it:
        for _ in range(3):
            it.night()

        chain = chain_of(it)

        assert chain.problems == ()
        assert [c.number for c in chain.certificates] == [1, 2, 3]
        assert [c.previous and c.previous["sha256"] for c in chain.certificates] == [
            None, *(c.sha256 for c in chain.certificates[:2]),
        ]  # fmt: skip


def test_a_night_that_is_amended_gets_a_further_certificate(tmp_path: Path) -> None:
    with world(tmp_path, rows("a", "b")) as it:
        night = it.night()
        (entry,) = it.ranges()
        drive(it.walls, restart(it.walls, partitions=[entry.partition]), only=[entry.partition])

        told = newest(it)

        assert (told["number"], told["plan_id"], told["amends"]) == (2, night.plan_id, 1)


def test_a_night_that_is_given_up_for_a_new_one_has_its_certificate_too(tmp_path: Path) -> None:
    with world(tmp_path, rows("a", "b")) as it:
        given_up = open_night(it.walls, rearm=True)
        open_night(it.walls, rearm=True, fresh=True)

        told = newest(it)

        assert (told["plan_id"], told["verdict"]) == (given_up.plan_id, "abandoned")
        assert told["measurement"] is None


def test_its_files_are_private(quiet: World) -> None:
    folder = folder_of(quiet.walls.area)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_the_page_for_people_tells_the_same(quiet: World) -> None:
    page = markdown_of(quiet.walls.area, chain_of(quiet).certificates[0])

    assert page.startswith(
        "# Certificate 1: reconciled\n\n**Reconciled: every expected row is in the org with equal values.**"
    )
    assert "| total | 3 | 3 | 3 | 3 | 0 | 0 | 0 | 0 |  |" in page
    assert "| missing | 0 |" in page
    assert "| Prospecting | 3 | 3 |" in page


def test_hostile_keys_break_no_table(tmp_path: Path) -> None:
    with world(tmp_path, [row("a|b\n<script>\x1b[31m")], SYNC_REPAIRS="0") as it:
        it.fault("silent_drop share=0.999999")
        it.night()

        page = markdown_of(it.walls.area, chain_of(it).certificates[0])

        assert "a\\|b\\\\n&lt;script>\\\\x1b[31m" in page
        assert "\x1b" not in page


# Signatures


def test_with_a_key_every_certificate_is_signed_and_the_key_is_nowhere(quiet: World) -> None:
    chain = chain_of(quiet)

    assert all(certificate.is_signed_by(quiet.walls.certificate_keys) for certificate in chain.certificates)
    kept = b"".join(
        file.read_bytes() for file in quiet.home.rglob("*") if file.is_file() and "simulated" not in str(file)
    )
    assert KEYS["SYNC_CERTIFICATE_KEY"].encode() not in kept


def test_without_a_key_there_is_no_signature(tmp_path: Path) -> None:
    with world(tmp_path, rows("a")) as it:
        it.night()

        assert [c.signature for c in chain_of(it).certificates] == [None]


# Damage


def files_of(it: World) -> list[Path]:
    return sorted(folder_of(it.walls.area).glob("*.json"))


@pytest.fixture
def three(tmp_path: Path) -> Iterator[World]:
    """Three certificates, unsigned."""
    with world(tmp_path, rows("a")) as it:
        it.night()
        again(it)
        again(it)
        yield it


def test_a_number_that_is_changed_by_hand_is_noticed(three: World) -> None:
    (night,) = three.walls.book.nights()
    file = files_of(three)[1]
    file.write_text(file.read_text().replace('"succeeded": 1', '"succeeded": 2'))

    assert chain_of(three).problems == (
        f"Certificate 2 of night {night.plan_id} was changed: its hash is not that of its contents.",
    )


def test_the_newest_certificate_that_is_taken_away_is_missed_by_the_book(three: World) -> None:
    files_of(three)[2].unlink()

    assert chain_of(three).problems == (
        "Certificate 3 is missing: the book knows of it, and the newest that is here is 2.",
    )


def test_the_newest_certificate_that_is_written_anew_is_another_than_the_book_knows(three: World) -> None:
    file = files_of(three)[2]
    contents = json.loads(file.read_text())["contents"]
    file.write_text(json.dumps(sealed(contents | {"verdict": "reconciled", "reasons": ["none"]}, None).to_json()))

    (problem,) = chain_of(three).problems

    assert problem.endswith("was changed: the book knows another hash of it.")


def test_what_was_taken_away_or_written_anew_stays_noticed_when_the_next_one_is_issued(three: World) -> None:
    third = files_of(three)[2]
    contents = json.loads(third.read_text())["contents"]
    third.write_text(json.dumps(sealed(contents | {"verdict": "splendid"}, None).to_json()))
    again(three)
    assert [problem.partition(" of night")[0] for problem in chain_of(three).problems] == ["Certificate 3"]

    files_of(three)[3].unlink()
    again(three)
    assert "Certificate 4 is missing." in chain_of(three).problems
    assert chain_of(three).certificates[-1].number == 5


def test_all_certificates_taken_away_at_once_are_missed(three: World) -> None:
    for file in folder_of(three.walls.area).iterdir():
        file.unlink()

    assert chain_of(three).problems == ("Certificate 3 is missing: the book knows of it, and none is here.",)


def test_a_page_that_is_changed_or_gone_is_noticed(three: World) -> None:
    first, second = (file.with_suffix(".md") for file in files_of(three)[:2])
    first.write_text(first.read_text().replace("reconciled", "splendid"))
    second.unlink()

    assert chain_of(three).problems == (
        f"{first.name} was changed: it is not what certificate 1 says.",
        f"{second.name} is missing.",
    )


def test_a_file_that_is_no_certificate_any_more_is_named_and_stops_no_night(three: World) -> None:
    damaged = files_of(three)[2]
    damaged.write_bytes(b"\xff\xfe")

    night = three.night()

    assert night.verdict is Verdict.RECONCILED
    assert chain_of(three).problems[0].startswith(f"{damaged.name} cannot be read")
    assert [c.number for c in chain_of(three).certificates] == [1, 2, 4]


def test_a_file_under_the_name_of_another_is_noticed(three: World) -> None:
    first, second, _ = files_of(three)
    second.write_bytes(first.read_bytes())

    assert (
        f"{second.name} holds certificate 1 of night {chain_of(three).certificates[0].plan_id}."
        in chain_of(three).problems
    )


# Crashes


class Dying(Disk):
    """Dies when a file of that ending is about to get its name."""

    def __init__(self, ending: str) -> None:
        self._ending = ending

    def rename(self, old: Path, new: Path) -> None:
        if new.name.endswith(self._ending):
            raise KeyboardInterrupt
        super().rename(old, new)


@pytest.mark.parametrize("ending", [".md", ".json"])
def test_a_process_that_dies_while_it_writes_leaves_a_whole_chain(tmp_path: Path, ending: str) -> None:
    with world(tmp_path, rows("a")) as it:
        it.night()
        night = it.walls.book.newest()
        assert night is not None
        dying = replace(it.walls, disk=Dying(ending))
        with pytest.raises(KeyboardInterrupt):
            issue(dying, night, Verdict.RECONCILED, reasons=(), seconds=1.0)

        assert chain_of(it).problems == ()
        again(it)
        assert (chain_of(it).problems, len(chain_of(it).certificates)) == ((), 2)


def test_no_verdict_is_given_without_its_certificate(tmp_path: Path) -> None:
    with world(tmp_path, rows("a")) as it:
        folder_of(it.walls.area).write_text("in the way")

        with pytest.raises((StateError, OSError)):
            it.night()

        night = it.walls.book.newest()
        assert night is not None and night.verdict is None


def test_two_at_once_get_two_numbers(quiet: World) -> None:
    before = len(chain_of(quiet).certificates)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: again(quiet), range(8)))

    chain = chain_of(quiet)
    assert (chain.problems, len(chain.certificates)) == ((), before + 8)


# Retention


def test_certificates_outlive_rows_and_the_rest_of_the_chain_stays_whole(tmp_path: Path) -> None:
    with world(tmp_path, rows("a"), SYNC_KEEP_LEDGERS="400 d") as it:
        it.night()
        night = it.walls.book.newest()
        assert night is not None
        for days in (1, 2, 401, 402, 403):
            again(it, now=night.opened_at + timedelta(days=days, minutes=1))

        chain = chain_of(it)

        assert chain.problems == ()
        assert [c.number for c in chain.certificates] == [4, 5, 6]
        assert sorted(file.stem for file in folder_of(it.walls.area).glob("*.md")) == [
            file.stem for file in files_of(it)
        ]

        files_of(it)[0].unlink()
        assert chain_of(it).problems == (f"Certificate 4 of night {night.plan_id} is missing.",)
