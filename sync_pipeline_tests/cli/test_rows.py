"""Verbs about single rows: every row that did not get through is listed, and one key's life is told from end to end."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from sync_pipeline.book.book import Book
from sync_pipeline.domain.night import NightEntry
from sync_pipeline.simulated_org.faults import add_fault, parse_fault
from sync_pipeline.simulated_org.source import write_source
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.staging.area import Area
from sync_pipeline_tests.cli.conftest import Run
from sync_pipeline_tests.engine.witness import COLUMNS, SOURCE, Row, row, rows

INSTANT = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"


@pytest.fixture
def org(run: Run, home: Path) -> Org:
    """An org with accounts and an empty source."""
    run("org", "seed", "--rows", "0")
    return Org(home / "simulated_org")


def put(org: Org, source: Sequence[Row]) -> None:
    frame = pl.DataFrame(list(source), schema=dict.fromkeys(COLUMNS, pl.String))
    write_source(org, SOURCE, [frame.sort("ExternalId__c")])


def newest(home: Path) -> NightEntry:
    night = Book(home / "book.sqlite").newest()
    assert night is not None
    return night


def sweep(home: Path, *, days: int) -> None:
    """Retention, as it would be after so many days."""
    now = newest(home).opened_at + timedelta(days=days)
    Area(home).sweep(now=now, keep_rows=timedelta(days=7), keep_ledgers=timedelta(days=400), unfinished=())


# rejects


def test_each_rejected_row_is_listed_with_its_reason_and_its_source_columns(run: Run, org: Org, tmp_path: Path) -> None:
    put(org, [row("a"), row("b", StageName__c="none such"), row("c", Amount__c="many", Name__c='say "no",\nplease')])
    run("sync")

    ran = run("rejects", "--csv", str(tmp_path / "rejects.csv"))

    with (tmp_path / "rejects.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert (ran.code, "2 rows written" in ran.out) == (0, True)
    assert [(r["key"], r["outcome"], r["code"], r["column"]) for r in listed] == [
        ("b", "failed", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "StageName"),
        ("c", "quarantined", "UNREADABLE", "Amount__c"),
    ]
    assert (listed[0]["StageName__c"], listed[0]["Amount__c"]) == ("none such", "100.25")
    assert (listed[1]["Name__c"], listed[1]["Amount__c"]) == ('say "no",\nplease', "many")


def test_more_rejects_than_are_looked_up_at_once_are_all_listed_once(
    run: Run, org: Org, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", "15000")
    keys = [f"k{number:05d}" for number in range(45_000)]
    put(org, [row(key, Amount__c="many") for key in keys])
    run("sync")

    shown, _ = run("rejects"), run("rejects", "--csv", str(tmp_path / "rejects.csv"))

    assert pl.read_csv(tmp_path / "rejects.csv")["key"].to_list() == keys
    assert "45,000 rows did not get through" in shown.out
    assert "... and 44,980 more" in shown.out


def test_on_stdout_there_is_the_csv_and_nothing_else(run: Run, org: Org) -> None:
    put(org, [row("a", Amount__c="many")])
    run("sync")

    ran = run("rejects", "--csv", "-")

    assert [line[:20] for line in ran.out.splitlines()] == ["key,outcome,code,mes", "a,quarantined,UNREAD"]


def test_the_file_is_private(run: Run, org: Org, tmp_path: Path) -> None:
    put(org, [row("a", Amount__c="many")])
    run("sync")

    run("rejects", "--csv", str(tmp_path / "rejects.csv"))

    assert (tmp_path / "rejects.csv").stat().st_mode & 0o777 == 0o600


# trace


def test_a_key_is_followed_with_times_and_job_ids(run: Run, org: Org, home: Path) -> None:
    put(org, rows("a", "b"))
    run("sync")
    (job,) = Book(home / "book.sqlite").jobs()

    ran = run("trace", "a")

    assert ran.code == 0
    told = rf"part 1 round 0, job {job.job_id}, sent {INSTANT}, results archived {INSTANT}: created 006\w+"
    assert re.search(told, ran.out)
    assert "The org holds this row with equal values." in ran.out


@pytest.mark.parametrize("asked", ["key", "  key\t"])
def test_a_key_is_found_as_the_source_writes_it_and_as_the_org_has_it(run: Run, org: Org, asked: str) -> None:
    put(org, [row("  key\t"), row("other")])
    run("sync")

    ran = run("trace", asked)

    assert ran.code == 0
    assert "staged as row" in ran.out
    assert "created 006" in ran.out


def test_the_rule_that_quarantined_a_row_is_told(run: Run, org: Org) -> None:
    put(org, [row("a", Amount__c="many")])
    run("sync")

    ran = run("trace", "a")

    assert ran.code == 1
    assert re.search(rf"outcome quarantined, code UNREADABLE, .*recorded_at {INSTANT}", ran.out)
    assert (
        "The source row cannot be sent: the value is not of the field's type (UNREADABLE, column Amount__c)." in ran.out
    )


def test_a_row_that_was_sent_again_is_told_time_by_time(run: Run, org: Org) -> None:
    put(org, rows("a", "b"))
    add_fault(org, parse_fault("""silent_drop keys='["b"]' times=1"""))
    run("sync")

    ran = run("trace", "b")

    assert ran.code == 0
    assert re.findall(r"part (\d) round \d, job 750\w+, .*: created 006", ran.out) == ["1", "2"]


def test_a_value_that_differs_is_told_with_both_sides(run: Run, org: Org) -> None:
    put(org, rows("a"))
    run("sync")
    put(org, [row("a", Amount__c="7")])

    ran = run("trace", "a")

    assert ran.code == 1
    assert "Amount differs: source 7.00, org 100.25" in ran.out


def test_every_night_that_knew_the_key_is_told_the_newest_first(run: Run, org: Org) -> None:
    put(org, rows("a"))
    nights = [run("sync", "--json").document["plan_id"] for _ in range(3)]

    ran = run("trace", "a")

    told = re.findall(r"night (\S+), range \S+: staged", ran.out)
    assert told == nights[::-1]
    assert re.findall(r": (created|updated) 006", ran.out) == ["updated", "updated", "created"]


def test_an_earlier_generation_of_the_night_is_told_too(run: Run, org: Org) -> None:
    put(org, rows("a"))
    run("sync")
    run("restart", "--all")

    ran = run("trace", "a")

    assert re.search(r"range \S+: staged as row", ran.out)
    assert re.search(r"range \S+, generation 1: staged as row", ran.out)


def test_when_its_rows_were_cleared_away_the_ledger_still_tells(run: Run, org: Org, home: Path) -> None:
    put(org, rows("a"))
    run("sync")
    sweep(home, days=8)

    ran = run("trace", "a")

    assert ran.code == 0
    assert "staged as row 0 in a page that was cleared away" in ran.out
    assert "created 006" in ran.out


def test_when_its_ledger_was_cleared_away_the_certificate_still_tells_the_range_and_its_jobs(
    run: Run, org: Org, home: Path
) -> None:
    put(org, rows("a"))
    run("sync")
    (job,) = Book(home / "book.sqlite").jobs()
    sweep(home, days=401)

    ran = run("trace", "a")

    assert ran.code == 0
    assert "nothing is kept of it" in ran.out
    assert re.search(
        rf"certificate 1 of night \S+ \(reconciled\): range \S+ done, 1 of 1 rows saved; {job.job_id} \(", ran.out
    )


def test_what_a_certificate_says_of_the_key_itself_is_told(run: Run, org: Org, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_REPAIRS", "0")
    put(org, rows("a"))
    add_fault(org, parse_fault("""silent_drop keys='["a"]'"""))
    run("sync")

    ran = run("trace", "a")

    assert ran.code == 1
    assert re.search(r"certificate 1 of night \S+ \(not reconciled\): .*finding missing, .*reason lost", ran.out)
    assert "The org holds no such row." in ran.out


def test_eight_days_later_the_org_has_forgotten_its_results_and_the_trace_has_not(run: Run, org: Org) -> None:
    put(org, rows("a"))
    run("sync")
    org.advance(8 * 86_400)

    ran = run("trace", "a")

    assert ran.code == 0
    assert "created 006" in ran.out


@pytest.mark.parametrize(
    ("ties", "latest"),
    [
        (pl.Series([9, 10, None], dtype=pl.Int64), 1),
        (pl.Series([Decimal("9.5"), Decimal(10), Decimal(-11)], dtype=pl.Decimal(38, 18)), 1),
        (pl.Series([datetime(2024, 1, 1, 0, 0, 0, 500_000), datetime(2024, 1, 1), None], dtype=pl.Datetime("us")), 0),
    ],
)
def test_trace_tells_the_row_that_the_night_sent_whatever_the_text_of_its_tie_breaker(
    run: Run, org: Org, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ties: pl.Series, latest: int
) -> None:
    """The others of its key differ from the org, and so would each of them if it were taken for the one that was sent."""
    keys = ["key", " KEY", "key"]
    texts = pl.DataFrame([row(key, Name__c=f"row {place}") for place, key in enumerate(keys)])
    frame = texts.cast(dict.fromkeys(COLUMNS, pl.String)).with_columns(ties.alias("Tie__c"))  # type: ignore[arg-type]
    write_source(org, SOURCE, [frame])
    packaged = (Path(__file__).parents[2] / "sync_pipeline" / "opportunity.toml").read_text()
    (tmp_path / "mapping.toml").write_text(
        packaged.replace("# tie_breaker = ", "tie_breaker = ").replace("LastModifiedDate__c", "Tie__c")
    )
    monkeypatch.setenv("SYNC_MAPPING", str(tmp_path / "mapping.toml"))
    night = run("sync", "--json").document

    ran = run("trace", "key")

    assert (night["totals"]["created"], night["totals"]["quarantined"]) == (1, 2)
    assert ran.code == 0
    assert f"Name row {latest}," in ran.out.partition("org Opportunity:")[2]
    assert "The org holds this row with equal values." in ran.out
