"""Rows out of the source into a range's pages: none is lost at any edge, and a range is whole when the source says so."""

from __future__ import annotations

import errno
from collections import Counter
from pathlib import Path

import httpx
import polars as pl
import pytest

from sync_pipeline.domain.errors import Drift, Parked, StateError, SyncError, WireError
from sync_pipeline.domain.ledger import Counts, RangeState
from sync_pipeline.simulated_org.seed import SOURCE
from sync_pipeline.simulated_org.source import change_source, source_rows
from sync_pipeline.staging.durable import Disk
from sync_pipeline_tests.engine.rehearsal import KEY, Rehearsal, rehearsal

ONE = {"rows": 100, "rows_per_range": 200, "page_rows": 30}
"""One range of four pages."""
STATEMENT = ("POST", "/query-sql")


def pages(r: Rehearsal) -> list[int]:
    """Rows of each page that is staged."""
    with r.store() as store:
        return [pl.read_parquet(file).height for file in store.staged_files()]


def fail_to_load(r: Rehearsal) -> None:
    """The range is read, and no job of it gets through."""
    r.fault("html_503 endpoint=create times=4")
    with pytest.raises(WireError, match="could not be handed over"):
        r.run()


# Going on


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_read_that_breaks_off_goes_on_in_the_same_stored_result(tmp_path: Path, nth: int) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        assert r.night
        r.fault(f"html_503 endpoint=rows after={nth - 1} times=6")
        with pytest.raises(WireError):
            r.run()
        begun = pages(r)
        assert 0 < sum(begun) < 100
        asked = r.wire.count(*STATEMENT)

        assert r.run().counts == Counts(expected=100, staged=100, created=100)

        assert r.wire.count(*STATEMENT) == asked
        assert pages(r)[: len(begun)] == begun
        assert r.is_equal()


@pytest.mark.parametrize("status", [400, 404])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_stored_result_that_is_gone_is_read_on_by_key(tmp_path: Path, status: int, nth: int) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        assert r.night
        r.fault(f'answer endpoint=rows nth={nth} status={status} code=NOT_FOUND message="no such query"')

        assert r.run().counts.created == 100

        assert r.is_equal()
        assert set(Counter(r.processed_keys()).values()) == {1}


@pytest.mark.parametrize(
    "trouble", ["empty_page nth=2", "cut_body endpoint=rows nth=2", "truncated_gzip endpoint=rows nth=1"]
)
def test_an_empty_or_broken_answer_is_never_the_end_of_a_range(tmp_path: Path, trouble: str) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        assert r.night
        r.fault(trouble)

        for _ in range(3):
            try:
                entry = r.run()
                break
            except SyncError:
                assert r.entry().counts.staged < 100
        assert entry.counts == Counts(expected=100, staged=100, created=100)
        assert r.is_equal()


def test_a_token_that_expires_between_pages_loses_no_page(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        assert r.night
        r.org.set_setting("token_calls", 2)

        assert r.run().counts.created == 100
        assert r.is_equal()


# Pages


@pytest.mark.parametrize("page_rows", [1, 2, 3, 7, 1000])
def test_equal_keys_on_the_edges_of_pages_are_staged_once_each(tmp_path: Path, page_rows: int) -> None:
    with rehearsal(tmp_path, rows=40, rows_per_range=12, page_rows=page_rows, duplicate_keys=8, null_keys=3) as r:
        entries = r.run_all()

        total = sum((entry.counts for entry in entries), Counts())
        assert (total.expected, total.staged) == (40, 40)
        assert total.quarantined == 3 + 8 + 8
        assert total.adds_up
        keys = [row["ExternalId__c"] for row in _source(r).to_dicts()]
        alone = sorted(key for key, times in Counter(keys).items() if key is not None and times == 1)
        assert r.present()[KEY].to_list() == alone


def test_a_page_lost_or_cut_short_after_its_commit_is_noticed_and_read_again(tmp_path: Path) -> None:
    for number, damage in enumerate((Path.unlink, _cut_short)):
        with rehearsal(tmp_path / str(number), **ONE) as r:
            fail_to_load(r)
            with r.store() as store:
                second = store.staged_files()[1]
            damage(second)

            assert r.run().counts == Counts(expected=100, staged=100, created=100)

            assert r.is_equal()
            assert set(Counter(r.processed_keys()).values()) == {1}


# A source that moves


def test_rows_that_came_or_went_since_the_plan_are_counted_again(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        assert r.night.plan.expected == 100
        change_source(r.org, SOURCE, lambda rows: rows.filter(pl.col("ExternalId__c") != "externalOpp0000007"))

        assert r.run().counts == Counts(expected=99, staged=99, created=99)
        assert r.is_equal()


def test_a_source_that_counts_rows_which_it_does_not_hand_out_is_drift(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        assert r.night
        rows = _source(r)

        def move(request: httpx.Request) -> None:
            """One row is there whenever it is counted, and not when it is read."""
            if request.method == "POST" and request.url.path.endswith("/query-sql"):
                is_count = b"count(" in request.read().lower()
                change_source(r.org, SOURCE, lambda _: rows if is_count else rows.head(99))

        r.wire.before = move
        with pytest.raises(Drift, match="counts 100 rows and hands out 99"):
            r.run()
        assert r.entry().attempts == 1
        r.wire.before = lambda request: None
        change_source(r.org, SOURCE, lambda _: rows)

        assert r.run().counts.created == 100
        assert r.is_equal()


# What the plan knows of doubles


def test_a_lost_list_of_doubles_is_never_taken_for_an_empty_one(tmp_path: Path) -> None:
    with rehearsal(tmp_path, rows=40, rows_per_range=40, duplicate_keys=4) as r:
        file = r.walls.area.night_folder(r.night.plan_id) / "duplicates.parquet"
        assert file.stat().st_mode & 0o777 == 0o600
        content = file.read_bytes()
        for damage in (file.unlink, lambda: file.write_bytes(content[:20])):
            damage()
            with pytest.raises(StateError, match=r"duplicates\.parquet"):
                r.run()
        file.write_bytes(content)

        assert r.run().counts.quarantined == 8


# Short of room or calls


def test_pages_that_were_staged_before_a_parking_are_kept(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        assert r.night

        def spend(request: httpx.Request) -> None:
            if "/rows" in request.url.path:
                r.org.set_setting("api_used", 90_000)

        r.wire.before = spend
        with pytest.raises(Parked):
            r.run()
        begun = pages(r)
        assert 0 < sum(begun) < 100
        r.wire.before = lambda request: None
        r.org.set_setting("api_used", 0)

        assert r.run().counts.created == 100
        assert pages(r)[: len(begun)] == begun


def test_a_disk_that_is_broken_and_not_full_is_a_failed_attempt(tmp_path: Path) -> None:
    with rehearsal(tmp_path, **ONE) as r:
        assert r.night
        broken = r.again(disk=Broken())

        with pytest.raises(OSError, match="Input/output error"):
            broken.run()

        assert (r.entry().state, r.entry().attempts) == (RangeState.FAILED, 1)
        assert r.run().counts.created == 100
        broken.walls.close()


class Broken(Disk):
    """A disk that cannot make a file durable."""

    def sync_file(self, path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))


def _cut_short(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _source(r: Rehearsal) -> pl.DataFrame:
    return source_rows(r.org, SOURCE)
