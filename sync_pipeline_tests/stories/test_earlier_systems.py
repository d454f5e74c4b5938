"""How the earlier systems failed, one test for each record of it; the numbers are those of the mission's list."""

from __future__ import annotations

import re
import threading
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import polars as pl
import pytest

from sync_pipeline.domain.errors import Stopped
from sync_pipeline.domain.keys import cover
from sync_pipeline.domain.ledger import RangeState, Verdict
from sync_pipeline.engine.night import open_night, request_stop
from sync_pipeline.simulated_org.seed import next_night, seed
from sync_pipeline.simulated_org.source import change_source
from sync_pipeline_tests.stories.conftest import SOURCE, Bank

# The sequel: 0.1 to 0.13


def test_0_1_sent_is_not_saved(bank: Bank) -> None:
    """1,997,999 rows "processed", 372,862 updated: the results of the jobs were never read."""
    bank.fault("row_errors share=0.2", "wrong_counters failed=-1000")

    ended = bank.night()

    assert ended.counts.succeeded == len(bank.rows_in_org()) < 600
    assert ended.counts.failed == 600 - len(bank.rows_in_org()) == len(bank.missing())
    assert ended.verdict is Verdict.WITH_REJECTS


def test_0_2_rows_that_lost_a_lock_are_sent_again_until_they_are_saved(bank: Bank) -> None:
    """UNABLE_TO_LOCK_ROW on a fifth of all rows."""
    bank.fault("lock_rows share=0.2 times=4")

    ended = bank.night()

    assert ended.verdict is Verdict.RECONCILED
    bank.assert_all_there()


def test_0_3_the_smallest_key_is_read(bank: Bank) -> None:
    """``> rangeStart`` with the smallest key as start: every full run counted one row too few."""
    smallest, largest = bank.source()["ExternalId__c"].min(), bank.source()["ExternalId__c"].max()

    ended = bank.night()

    assert {smallest, largest} <= set(bank.rows_in_org())
    assert ended.counts.staged == 600


def test_0_4_a_page_whose_upload_fails_is_not_skipped(bank: Bank) -> None:
    """The cursor moved before the upload; an exception there lost 2,000 rows."""
    bank.fault("cut endpoint=upload times=2")

    ended = bank.night()

    assert ended.verdict is Verdict.RECONCILED
    bank.assert_all_there()


def test_0_5_an_error_is_never_an_empty_page(bank: Bank) -> None:
    """An exception counted as an empty batch, and three of them as the end."""
    bank.fault("html_503 endpoint=rows share=0.5", "empty_page times=3")

    ended = bank.night()

    assert ended.counts.staged == 600
    assert ended.verdict is Verdict.RECONCILED


def test_0_6_no_value_is_invented(bank: Bank) -> None:
    """Null amounts became 0, dates that could not be read became today + 30."""

    def spoil(frame: pl.DataFrame) -> pl.DataFrame:
        row = pl.int_range(pl.len())
        return frame.with_columns(
            pl.when(row == 0).then(None).otherwise("Amount__c").alias("Amount__c"),
            pl.when(row == 1)
            .then(pl.lit("31/12/2026"))
            .otherwise(pl.col("CloseDate__c").cast(pl.String))
            .alias("CloseDate__c"),
        )

    change_source(bank.org, SOURCE, spoil)
    first, second = bank.source()["ExternalId__c"].head(2)

    ended = bank.night()

    held = bank.rows_in_org()
    assert held[first]["Amount"] is None
    assert second not in held
    assert (ended.counts.quarantined, ended.verdict) == (1, Verdict.WITH_REJECTS)


def test_0_7_work_is_driven_by_completion_and_not_by_a_clock(bank: Bank) -> None:
    """One batch an hour would have taken a thousand hours: here every range of a night is started at once."""
    ended = bank.night()

    started = sorted(entry.started_at for entry in ended.ranges if entry.started_at is not None)
    assert len(started) == 3
    assert started[-1] - started[0] < timedelta(seconds=5)


def test_0_8_an_emergency_stop_ends_what_is_really_running(bank: Bank) -> None:
    """Theirs aborted a class that was not the one at work."""
    bank.org.set_setting("pace", {"rows_per_second": 1})  # so that the jobs of the night never end by themselves
    walls = bank.walls()
    outcome: list[Stopped | None] = []

    def work() -> None:
        try:
            bank.night()
            outcome.append(None)
        except Stopped as error:
            outcome.append(error)

    runner = threading.Thread(target=work)
    runner.start()
    while len(bank.open_jobs()) < 3:
        threading.Event().wait(0.05)
    request_stop(walls.book)
    runner.join(timeout=20)

    assert not runner.is_alive()
    assert len(outcome) == 1
    assert bank.open_jobs() == []
    assert all(entry.state is not RangeState.DONE for entry in walls.book.ranges(walls.book.nights(1)[0].plan_id))
    walls.close()


def test_0_9_a_used_up_allocation_parks_the_night_instead_of_hammering(bank: Bank) -> None:
    """441,726 calls of a day were used up against 4,000 that were needed."""
    answers: list[int] = []

    class Listening(httpx.BaseTransport):
        def __init__(self, inner: httpx.BaseTransport) -> None:
            self._inner = inner

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = self._inner.handle_request(request)
            answers.append(answer.status_code)
            return answer

    bank.fault("limit after=40")

    ended = bank.night(wrap=Listening)

    assert ended.verdict is None
    assert ended.night.parked_until is not None
    assert len(answers) > 40
    assert answers.count(403) <= 10
    bank.no_faults()
    assert bank.night(wait=True).verdict is Verdict.RECONCILED


def test_0_10_a_job_that_completes_without_a_row_proves_nothing(bank: Bank) -> None:
    """Jobs under a batch's own session completed with 0 rows."""
    bank.fault("empty_results form=header times=2", "silent_drop share=1.0 times=2")

    ended = bank.night()

    assert ended.verdict is Verdict.RECONCILED
    bank.assert_all_there()


def test_0_11_failed_rows_are_sent_again_row_by_row(bank: Bank) -> None:
    """99.93 %: 1,400 rows were never sent again."""
    bank.fault("lock_rows share=0.05 times=3")

    ended = bank.night()

    assert (ended.counts.succeeded, ended.counts.failed) == (600, 0)
    assert len(bank.jobs()) > 3


def test_0_12_the_parent_can_be_left_out_of_the_mapping(bank: Bank, tmp_path: Path) -> None:
    """Without AccountId in the upload no Account is locked."""
    bank.night()
    packaged = Path(__file__).parents[2] / "sync_pipeline" / "opportunity.toml"
    text = re.sub(r'\[\[field\]\]\nsource = "Account__c".*', "", packaged.read_text("utf-8"), flags=re.DOTALL)
    (tmp_path / "mapping.toml").write_text(re.sub(r"group_by = .*", "", text), "utf-8")
    before = {key: row["AccountId"] for key, row in bank.rows_in_org().items()}

    ended = bank.night(SYNC_MAPPING=str(tmp_path / "mapping.toml"))

    assert ended.verdict is Verdict.RECONCILED
    assert {key: row["AccountId"] for key, row in bank.rows_in_org().items()} == before


def test_0_13_a_cap_ends_in_an_error_with_the_rows_that_are_left(bank: Bank) -> None:
    """The safety cap truncated a load, and it was said to be complete."""
    bank.fault("lock_rows share=1.0")

    ended = bank.night(SYNC_RETRY_ROUNDS="1")

    assert ended.verdict is Verdict.NOT_RECONCILED
    assert ended.counts.succeeded == 0
    assert ended.counts.failed + ended.counts.unprocessed == 600
    assert any("is given up" in reason for reason in ended.night.verdict_reasons)


# The orchestrators: 4.5, 4.15 to 4.18


def test_4_5_more_than_a_thousand_pages_break_no_chain(tmp_path: Path) -> None:
    """A self-scheduling chain broke after 500 links."""
    bank = Bank(tmp_path)
    seed(bank.org, 1_001)
    bank.org.set_setting("adaptive_rows", 1)
    bank.org.set_setting("page_bytes", 1)  # one row a page

    ended = bank.night(SYNC_ROWS_PER_RANGE="2000", SYNC_VERIFY="keys")

    assert ended.counts.succeeded == 1_001
    assert sum(calls for route, calls in bank.org.calls().items() if route.endswith("/rows")) >= 1_000


def test_4_15_the_row_on_a_boundary_belongs_to_exactly_one_range(bank: Bank) -> None:
    """``<`` where ``<=`` was needed lost the boundary row."""
    ended = bank.night()

    edges = [planned.range.through for planned in ended.night.plan if planned.range.through is not None]
    assert len(edges) == 2
    assert set(edges) <= set(bank.rows_in_org())
    assert sum(entry.counts.staged for entry in ended.ranges) == 600


def test_4_16_a_count_that_fails_is_not_a_range_that_is_complete(bank: Bank) -> None:
    """``finish()`` asked the source; when that failed the range was marked complete."""
    bank.fault("answer endpoint=query status=500 after=6")  # plan and first statements get through

    ended = bank.night()

    assert ended.verdict in (Verdict.NOT_RECONCILED, Verdict.UNPROVEN)
    assert not ended.is_done


def test_4_17_an_empty_page_does_not_stand_still_for_ever(bank: Bank) -> None:
    """The offset did not move on an empty page."""
    bank.fault("empty_page share=1.0")

    ended = bank.night()

    assert ended.verdict is Verdict.NOT_RECONCILED
    assert ended.counts.staged < 600


def test_4_18_a_range_ends_when_its_rows_equal_the_count(bank: Bank) -> None:
    """0 calls, or 500 batches, were taken for the end."""
    ended = bank.night()

    assert [entry.counts.staged for entry in ended.ranges] == [planned.expected for planned in ended.night.plan]


def test_4_66_a_million_rows_cost_less_than_200_calls(tmp_path: Path) -> None:
    """4,000 calls were needed, 441,726 were used. What a night costs at all is left out: the difference of two nights."""
    calls = []
    for rows in (40_000, 120_000):
        bank = Bank(tmp_path / str(rows))
        seed(bank.org, rows)
        ended = bank.night(SYNC_ROWS_PER_RANGE="200000", SYNC_POLL_SECONDS="0.25", SYNC_POLL_SECONDS_MAX="15")
        assert ended.verdict is Verdict.RECONCILED
        calls.append(ended.night.api_calls)

    assert (calls[1] - calls[0]) / 80_000 * 1_000_000 <= 200


# The root-cause analysis: 4.69 to 4.76


def test_4_69_rows_that_nobody_saved_fail_the_night_by_number_and_range(bank: Bank) -> None:
    """387,415 of 1.4 million, while all jobs looked fine."""
    lost = bank.source()["ExternalId__c"].gather([10, 11, 12]).to_list()
    bank.fault(f"silent_drop keys={','.join(lost)}")

    ended = bank.night()

    assert ended.verdict is Verdict.NOT_RECONCILED
    assert ended.night.measurement is not None
    assert ended.night.measurement.missing == 3
    assert {row["key"] for row in ended.night.measurement.sample} == set(lost) == bank.missing()
    assert ended.night.measurement.drifting == (ended.ranges[0].partition,)


def test_4_69_rows_that_were_lost_once_are_repaired_the_same_night(bank: Bank) -> None:
    bank.fault("silent_drop share=0.02 times=2")

    ended = bank.night()

    assert ended.verdict is Verdict.RECONCILED
    bank.assert_all_there()


def test_4_70_no_statement_has_an_offset(bank: Bank) -> None:
    """OFFSET pages skipped and doubled rows."""
    seen: list[str] = []

    class Listening(httpx.BaseTransport):
        def __init__(self, inner: httpx.BaseTransport) -> None:
            self._inner = inner

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "POST" and request.url.path.endswith("/query-sql"):
                seen.append(request.read().decode())
            return self._inner.handle_request(request)

    bank.night(wrap=Listening)

    assert len(seen) > 3
    assert [text for text in seen if re.search(r"\bOFFSET\b", text, re.IGNORECASE)] == []


@pytest.mark.parametrize("pages", [1, 2, 3])
def test_4_71_and_4_75_some_empty_pages_are_asked_for_again(bank: Bank, pages: int) -> None:
    """A range stopped at its first empty page."""
    bank.fault(f"empty_page times={pages}")

    ended = bank.night()

    assert ended.verdict is Verdict.RECONCILED
    assert ended.counts.staged == 600


def test_4_72_an_error_is_never_swallowed(bank: Bank) -> None:
    """The exception in ``finish()`` left no trace, and nothing was started again."""
    bank.fault("answer endpoint=results status=400 code=API_ERROR message=broken")

    ended = bank.night()

    assert ended.verdict is Verdict.NOT_RECONCILED
    assert any("broken" in entry.error or "unprocessed" in entry.error for entry in ended.ranges) or (
        ended.counts.unprocessed == 600
    )


def test_4_73_no_two_ranges_hold_one_key(bank: Bank) -> None:
    """externalOpp0200001 was in two ranges."""
    keys = bank.source()["ExternalId__c"].to_list()
    ranges = cover(keys[99:599:100])

    assert [sum(key in held for held in ranges) for key in keys] == [1] * len(keys)


def test_4_74_each_statement_reads_behind_a_key_and_up_to_another(bank: Bank) -> None:
    """``> last AND <= end`` with parameters, and no lower bound at all for the first range."""
    bank.night()

    texts = [sql for (sql,) in bank.org.db("source").execute("SELECT sql FROM statement")]
    assert texts == []  # every result was deleted when it had been read


def test_4_76_a_run_that_died_goes_on_behind_the_last_durable_page(bank: Bank) -> None:
    """The last key was handed on in memory."""
    bank.org.set_setting("page_bytes", 2_000)

    class Dying(httpx.BaseTransport):
        """Lets some pages through; then the process is told to end."""

        def __init__(self, inner: httpx.BaseTransport) -> None:
            self._inner = inner
            self._pages = 0

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            self._pages += request.url.path.endswith("/rows")
            if self._pages > 9:
                walls.interruption.interrupt("the machine goes down")
            return self._inner.handle_request(request)

    walls = bank.walls(wrap=Dying)
    with pytest.raises(Stopped):
        bank.run(walls)
    looking = bank.walls()
    (died,) = looking.book.nights(1)
    staged = sum(entry.counts.staged for entry in looking.book.ranges(died.plan_id))
    looking.close()

    ended = bank.night()

    assert 0 < staged < 600
    assert ended.night.plan_id == died.plan_id
    assert ended.verdict is Verdict.RECONCILED
    bank.assert_all_there()


# Nights that follow each other


def test_a_second_night_takes_over_what_changed(bank: Bank) -> None:
    bank.night()
    next_night(bank.org, change=0.1, insert=0.05, delete=0.02)

    ended = bank.night()

    assert ended.verdict is Verdict.RECONCILED
    assert ended.counts.created > 0
    assert bank.missing() == bank.different() == set()


def test_money_keeps_every_cent(bank: Bank) -> None:
    amounts = [Decimal("0.01"), Decimal("12345678.90"), Decimal("9999999999999.99"), Decimal("-0.10")]

    def with_amounts(frame: pl.DataFrame) -> pl.DataFrame:
        values = amounts + frame["Amount__c"].to_list()[len(amounts) :]
        return frame.with_columns(pl.Series("Amount__c", values, dtype=pl.Decimal(18, 2)))

    change_source(bank.org, SOURCE, with_amounts)
    keys = bank.source()["ExternalId__c"].head(len(amounts)).to_list()

    ended = bank.night()

    held = bank.rows_in_org()
    assert ended.verdict is Verdict.RECONCILED
    assert [held[key]["Amount"] for key in keys] == [float(amount) for amount in amounts]


def test_an_unfinished_night_is_never_wiped_by_the_next_one(bank: Bank) -> None:
    bank.fault("answer endpoint=create status=400 code=API_ERROR message=no")
    first = bank.night()
    bank.no_faults()
    walls = bank.walls()
    again = open_night(walls, rearm=True)
    walls.close()

    assert first.night.verdict is Verdict.NOT_RECONCILED
    assert again.plan_id > first.night.plan_id
    assert bank.night().verdict is Verdict.RECONCILED
