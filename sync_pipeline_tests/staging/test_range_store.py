"""One range on disk: pages, parts and outcomes, what adds up at any time, and what a damaged file costs."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_pipeline.domain.errors import DiskFull, EngineGone, HeldElsewhere, StateError, Unreadable
from sync_pipeline.domain.ledger import Counts, Cursor, UploadPart
from sync_pipeline.staging.cutting import place
from sync_pipeline.staging.durable import Disk
from sync_pipeline.staging.range_store import RangeStore, Which
from sync_pipeline_tests.staging.sample import (
    INVALID,
    NO_REJECTIONS,
    SCHEMA,
    alone,
    cut,
    failed,
    fates,
    files,
    keys,
    left,
    opened,
    record,
    rejections,
    render,
    rows,
    saved,
    sent_keys,
    stage,
)

FEW = settings(max_examples=20)


# Staging


def test_a_page_moves_the_cursor_and_is_numbered_on(tmp_path: Path) -> None:
    with opened(tmp_path / "r") as store:
        assert (store.cursor, store.staged, store.is_read) == (None, 0, False)
        first = store.add_page(keys("a", "b"), Cursor("b", "q", 2), NO_REJECTIONS)
        second = store.add_page(keys("c"), Cursor("c", "q", 3), NO_REJECTIONS)

        assert (first.number, first.rows, second.number, second.rows) == (1, 2, 2, 1)
        assert (store.cursor, store.staged) == (Cursor("c", "q", 3), 3)
        assert [path.name for path in store.staged_files()] == ["page-000001.parquet", "page-000002.parquet"]
        staged = pl.read_parquet(store.staged_files())
        assert staged.columns == ["row", "key", *SCHEMA]
        assert dict(zip(staged["row"], staged["key"], strict=True)) == {0: "a", 1: "b", 2: "c"}


def test_a_range_goes_on_where_it_was_when_it_is_opened_again(tmp_path: Path) -> None:
    with opened(tmp_path / "r") as store:
        store.add_page(keys("a", "b"), Cursor("b", "q", 2), rejections((1, "TOO_LONG")))
    with opened(tmp_path / "r") as store:
        assert (store.cursor, store.staged, store.is_read) == (Cursor("b", "q", 2), 2, False)
        assert store.counts(2) == Counts(expected=2, staged=2, quarantined=1)
        store.add_page(keys("c"), Cursor("c"), NO_REJECTIONS)
        store.finish_reading(3)
    with opened(tmp_path / "r") as store:
        assert (store.is_read, store.expected, store.staged) == (True, 3, 3)


def test_a_range_that_is_not_read_has_no_expected_rows(tmp_path: Path) -> None:
    with opened(tmp_path / "r") as store, pytest.raises(StateError, match="has not been read"):
        _ = store.expected


def test_the_source_may_count_other_rows_than_are_staged(tmp_path: Path) -> None:
    with opened(tmp_path / "r") as store:
        store.add_page(keys("a"), Cursor("a"), NO_REJECTIONS)
        store.finish_reading(5)
        assert (store.expected, store.counts(5).staged) == (5, 1)


def test_a_row_without_a_key_is_staged_and_quarantined(tmp_path: Path) -> None:
    with opened(tmp_path / "r") as store:
        stage(store, keys(None, "a"), refused={0: rejections((0, "NULL_KEY"))})
        assert cut(store)[0].rows == 1
        assert store.rejects().select("key", "outcome", "code").row(0) == (None, "quarantined", "NULL_KEY")


def test_an_empty_range_has_empty_views_with_the_right_columns(tmp_path: Path) -> None:
    with opened(tmp_path / "r") as store:
        store.finish_reading(0)
        assert cut(store) == []
        assert store.rounds == 1
    with duckdb.connect(str(tmp_path / "r" / "range.duckdb"), read_only=True) as database:
        staged = database.execute("DESCRIBE staged_row").fetchall()
        outcome = database.execute("DESCRIBE outcome").fetchall()
        assert database.execute("SELECT count(*) FROM staged_row").fetchall() == [(0,)]
    assert [row[0] for row in staged] == ["row", "key", *SCHEMA]
    assert [row[1] for row in staged] == [
        "BIGINT", "VARCHAR", "VARCHAR", "DECIMAL(38,2)", "DATE", "TIMESTAMP WITH TIME ZONE", "VARCHAR",
    ]  # fmt: skip
    assert [row[0] for row in outcome] == [
        "row", "key", "outcome", "id", "created", "code", "message", "column", "job_id",
    ]  # fmt: skip


def test_the_views_answer_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with opened(Path("r")) as store:
        stage(store, keys("a", "b"))
        record(store, cut(store)[0], successes=[saved("a")], failures=[failed("b", error=INVALID)])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with duckdb.connect(str(tmp_path / "r" / "range.duckdb"), read_only=True) as database:
        assert database.execute('SELECT key, "Amount" FROM staged_row ORDER BY key').fetchall()[0][0] == "a"
        assert database.execute("SELECT key, outcome, id, job_id FROM outcome ORDER BY key").fetchall() == [
            ("a", "succeeded", "006a", "7501"),
            ("b", "failed", None, "7501"),
        ]


def test_a_range_in_a_moved_folder_still_answers(tmp_path: Path) -> None:
    with opened(tmp_path / "old") as store:
        stage(store, keys("a"))
    (tmp_path / "old").rename(tmp_path / "new")
    with RangeStore.read_only(tmp_path / "new") as store:
        assert store.lookup("a")[0].values["Name"] == "Opportunity a"
    with opened(tmp_path / "new") as store:
        assert cut(store)[0].rows == 1


def test_everything_is_private_to_the_user(tmp_path: Path) -> None:
    folder = tmp_path / "nights" / "r"
    with opened(folder) as store:
        stage(store, keys("a", "b"))
        record(store, cut(store)[0], successes=[saved("a", "b")])
        cut(store, which="keys", keys=left("a"))
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir() if path.suffix != ".csv"}
    assert set(modes.values()) == {0o600}
    assert "range.duckdb.wal" in modes
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent)} == {0o700}


def test_rows_staged_with_other_types_are_not_mixed(tmp_path: Path) -> None:
    opened(tmp_path / "r").close()
    with pytest.raises(StateError, match="other columns or types"):
        RangeStore.open(tmp_path / "r", {**SCHEMA, "Amount": pl.Decimal(38, 4)}, alone(tmp_path))


def test_a_catalogue_that_is_no_catalogue_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    (tmp_path / "range.duckdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StateError, match=r"start: fresh"):
        opened(tmp_path)


def test_forgotten_pages_are_read_again_from_the_start(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.add_page(keys("a", "b"), Cursor("b"), rejections((0, "TOO_LONG")))
        store.forget_pages()
        assert (store.cursor, store.staged, files(tmp_path)) == (None, 0, set())
        assert store.counts(0) == Counts()
        stage(store, keys("a", "b"))
        assert [part.rows for part in cut(store)] == [2]


def test_a_later_quarantine_takes_rows_that_have_no_outcome_yet(tmp_path: Path) -> None:
    double = pl.DataFrame({"key": ["a", "b", "x"], "code": "DUPLICATE_KEY", "message": "twice", "set_aside": False})
    with opened(tmp_path) as store:
        stage(store, keys("a", "b", "c", "a"), refused={0: rejections((1, "TOO_LONG"))})
        assert store.reject(double) == 2
        assert store.counts(4) == Counts(expected=4, staged=4, quarantined=3)
        part = cut(store)[0]
        assert sent_keys(store, part) == ["c"]
        assert store.reject(double.with_columns(key=pl.lit("c"))) == 0


def test_rows_set_aside_are_counted_apart(tmp_path: Path) -> None:
    refused = pl.concat([rejections((0, "EQUAL_DUPLICATE"), set_aside=True), rejections((1, "TOO_LONG"))])
    with opened(tmp_path) as store:
        stage(store, keys("a", "a", "b"), refused={0: refused})
        counts = store.counts(3)
    assert (counts.quarantined, counts.set_aside, counts.rejected) == (2, 1, 1)


# Cutting


PARENTS = st.lists(st.sampled_from([None, "A", "B", "C", "D"]), min_size=1, max_size=30)


@FEW
@given(
    parents=PARENTS,
    part_rows=st.integers(2, 12),
    heavy_rows=st.integers(2, 8),
    fraction=st.floats(0, 1, exclude_max=True),
    is_grouped=st.booleans(),
    held_bytes=st.sampled_from([1, 400, 1_000_000]),
)
def test_parts_hold_each_pending_row_once_in_the_order_of_parents(
    tmp_path_factory: pytest.TempPathFactory,
    parents: Sequence[str | None],
    part_rows: int,
    heavy_rows: int,
    fraction: float,
    is_grouped: bool,
    held_bytes: int,
) -> None:
    parent_of = {f"k{i:02d}": parent for i, parent in enumerate(parents)}
    with opened(tmp_path_factory.mktemp("range")) as store:
        stage(store, rows(parent_of.items()))
        parts = cut(
            store,
            group_by="AccountId" if is_grouped else None,
            start_fraction=fraction,
            part_rows=part_rows,
            heavy_rows=heavy_rows,
            held_bytes=held_bytes,
        )
        sent = {part.number: sent_keys(store, part) for part in parts}

    assert sorted(key for part in sent.values() for key in part) == sorted(parent_of)
    assert [part.rows for part in parts] == [len(keys_) for keys_ in sent.values()]
    if not is_grouped:
        assert [key for part in sent.values() for key in part] == sorted(parent_of)
        return
    sizes = Counter(parents)
    heavy = {parent for parent, rows_ in sizes.items() if parent and rows_ > min(heavy_rows, part_rows)}
    for part in parts:
        there = {parent_of[key] for key in sent[part.number]}
        assert part.serial == bool(there & heavy)
        if part.serial:
            assert len(there) == 1 and part.rows <= part_rows
        else:
            assert part.rows <= part_rows * 1.05
            assert all(list(map(parent_of.get, sent[part.number])).count(p) == sizes[p] for p in there if p)
    light = [parent_of[key] for part in parts if not part.serial for key in sent[part.number]]
    ring = [parent for parent, _ in groupby(light)]
    places = _places(parents)
    assert sum(places[before] > places[after] for before, after in pairwise(ring)) <= 1
    order = sorted(parents, key=places.__getitem__)
    first = order[int(len(order) * fraction)]
    if first not in heavy:
        assert light[0] == first


def _places(parents: Sequence[str | None]) -> dict[str | None, int]:
    """Where each parent stands on the ring; rows without one come first."""
    frame = pl.DataFrame({"parent": parents}, schema={"parent": pl.String}).with_columns(place=place(pl.col("parent")))
    return {parent: -1 if at is None else at for parent, at in frame.iter_rows()}


def test_large_parents_have_parts_of_their_own_though_they_are_neighbours(tmp_path: Path) -> None:
    parents = [(f"{parent}{i}", parent) for parent in "ABCD" for i in range({"A": 3, "B": 3, "C": 1, "D": 5}[parent])]
    with opened(tmp_path) as store:
        stage(store, rows(parents))
        sent = [(part.serial, sent_keys(store, part)) for part in cut(store, part_rows=3, heavy_rows=2)]
    assert sent[0] == (False, ["C0"])
    assert sorted(sent[1:]) == [
        (True, ["A0", "A1", "A2"]), (True, ["B0", "B1", "B2"]), (True, ["D0", "D1", "D2"]), (True, ["D3", "D4"])
    ]  # fmt: skip


def test_rows_without_a_parent_lock_nothing_and_may_be_parted_anywhere(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys(*(f"k{i:03d}" for i in range(250))))
        parts = cut(store, part_rows=100, heavy_rows=10)
    assert [(part.rows, part.serial) for part in parts] == [(84, False), (83, False), (83, False)]


@pytest.mark.parametrize("is_heavy", [True, False])
def test_no_csv_is_larger_than_its_limit_however_its_texts_are_quoted(tmp_path: Path, is_heavy: bool) -> None:
    parents = [(f"k{',' * (i % 50)}{i:03d}", "A" if is_heavy else f"P{i // 3}") for i in range(120)]
    with opened(tmp_path) as store:
        stage(store, rows(parents).with_columns(pl.lit('"' * 40).alias("Name")))
        parts = cut(store, part_bytes=5000, heavy_rows=500)
        header = len(store.part_file(parts[0]).read_bytes().partition(b"\n")[0]) + 1
        assert all(part.bytes - header <= 5000 and part.serial == is_heavy for part in parts)
        assert sum(part.rows for part in parts) == 120
        assert len(parts) < 12


def test_a_serial_round_keeps_its_limit_exactly(tmp_path: Path) -> None:
    parents = [(f"k{i:02d}", f"P{i // 7:02d}") for i in range(42)]
    with opened(tmp_path) as store:
        stage(store, rows(parents))
        assert [part.rows for part in cut(store, part_rows=20, serial=True)] == [14, 14, 14]
        assert all(part.serial for part in store.parts())


def test_a_round_takes_no_row_of_an_open_part(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a", "b", "c"))
        first = cut(store, which="keys", keys=left("b"))
        second = cut(store, which="all")
        third = cut(store, which="keys", keys=left("a", "b"))
        assert [sent_keys(store, part) for part in (*first, *second, *third)] == [["b"], ["a", "c"]]
        assert (store.rounds, [part.round for part in store.parts()]) == (3, [0, 1])


def test_a_round_sends_only_what_can_pass(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a", "b", "c", "d"), refused={0: rejections((3, "TOO_LONG"))})
        record(store, cut(store)[0], successes=[saved("a")], failures=[failed("b"), failed("c", error=INVALID)])
        assert (store.transient(), store.rounds) == (1, 1)
        part = cut(store, which="transient")[0]
        assert (sent_keys(store, part), part.number, part.round) == (["b"], 2, 1)


def test_rows_are_cut_by_key_whatever_became_of_them_unless_quarantined(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a", "b", "c", None), refused={0: rejections((1, "TOO_LONG"), (3, "NULL_KEY"))})
        record(store, cut(store)[0], successes=[saved("a", "c")])
        wanted = pl.DataFrame({"key": ["a", "b", "zzz", None]})
        assert sent_keys(store, cut(store, which="keys", keys=wanted)[0]) == ["a"]


def test_rows_cannot_be_grouped_by_a_column_that_is_not_staged(tmp_path: Path) -> None:
    with opened(tmp_path) as store, pytest.raises(StateError, match="Owner"):
        cut(store, group_by="Owner")


# Outcomes


FATES = st.sampled_from(["created", "updated", "locked", "invalid", "left", "nowhere"])


@FEW
@given(
    pages=st.lists(st.lists(st.sampled_from([None, *"abcdefgh"]), max_size=6), min_size=1, max_size=4),
    data=st.data(),
)
def test_every_staged_row_has_one_outcome_at_any_time_and_after_any_reopening(
    tmp_path_factory: pytest.TempPathFactory, pages: list[list[str | None]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("range")
    staged = [key for page in pages for key in page]
    truth: dict[int, str] = {}
    store = opened(folder)

    def perhaps_reopen() -> None:
        nonlocal store
        if data.draw(st.booleans(), label="reopen"):
            store.close()
            store = opened(folder)

    def check(*, is_whole: bool) -> None:
        counts = store.counts(len(staged))
        assert fates(store) == {row: _outcome(fate) for row, fate in truth.items()}
        tally = Counter(_outcome(fate) for fate in truth.values())
        assert counts.staged == store.staged
        assert counts.created == sum(fate == "created" for fate in truth.values())
        assert (counts.succeeded, counts.failed) == (tally["succeeded"], tally["failed"])
        assert (counts.unprocessed, counts.quarantined) == (tally["unprocessed"], tally["quarantined"])
        assert counts.adds_up == is_whole

    for page in pages:
        first = store.staged
        refused = [i for i, key in enumerate(page) if key is None or data.draw(st.integers(0, 4)) == 0]
        truth |= {first + i: "quarantined" for i in refused}
        store.add_page(keys(*page), Cursor(None), rejections(*((i, "RULE") for i in refused)))
        perhaps_reopen()
    store.finish_reading(store.staged)

    which: Which = "all"
    for _ in range(data.draw(st.integers(1, 4), label="rounds")):
        wanted = data.draw(st.lists(st.sampled_from("abcdefgh")), label="keys") if which == "keys" else []
        due = {
            row for row, key in enumerate(staged)
            if (which == "all" and row not in truth)
            or (which == "transient" and truth.get(row) in ("locked", "left", "nowhere"))
            or (which == "keys" and key in wanted and truth[row] != "quarantined")
        }  # fmt: skip
        parts = cut(store, which=which, keys=left(*wanted), part_rows=3, group_by=None)
        assert sorted(key for p in parts for key in sent_keys(store, p)) == sorted(staged[row] or "" for row in due)
        for part in parts:
            perhaps_reopen()
            names = set(sent_keys(store, part))
            by_key = {key: data.draw(FATES, label=key) for key in sorted(names)}
            part_rows = pl.read_parquet(folder / part.file.replace(".csv", ".parquet"))["row"].to_list()
            counts = _record_fates(store, part, by_key)
            assert counts.adds_up and counts.staged == part.rows
            for row in part_rows:
                fate = by_key[staged[row] or ""]
                truth[row] = "created" if fate == "updated" and truth.get(row) == "created" else fate
            perhaps_reopen()
        check(is_whole=True)
        which = data.draw(st.sampled_from(["transient", "keys"]), label="next")
    assert len(truth) == len(staged)
    store.settle()
    assert store.transient() == 0
    check(is_whole=True)
    rejected = {row for row in range(len(staged)) if _outcome(truth[row]) != "succeeded"}
    assert set(store.rejected_rows().to_list()) == rejected
    store.close()


def _outcome(fate: str) -> str:
    return {
        "created": "succeeded", "updated": "succeeded", "locked": "failed", "invalid": "failed",
        "left": "unprocessed", "nowhere": "unprocessed", "quarantined": "quarantined",
    }[fate]  # fmt: skip


def _record_fates(store: RangeStore, part: UploadPart, by_key: dict[str, str]) -> Counts:
    def having(fate: str) -> list[str]:
        return [key for key, found in by_key.items() if found == fate]

    return record(
        store,
        part,
        successes=[saved(*having("created")), saved(*having("updated"), created=False)],
        failures=[failed(*having("locked")), failed(*having("invalid"), error=INVALID)],
        unprocessed=[left(*having("left"))],
    )


def test_a_later_success_takes_the_exception_away(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a", "b"))
        record(store, cut(store)[0], successes=[saved("a")], failures=[failed("b")])
        record(store, cut(store, which="transient")[0], successes=[saved("b", created=False)])
        assert store.counts(2) == Counts(expected=2, staged=2, created=1, updated=1)
        assert store.rejects().height == 0


def test_a_later_failure_replaces_the_earlier_one(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a"))
        record(store, cut(store)[0], failures=[failed("a")])
        record(store, cut(store, which="transient")[0], failures=[failed("a", error=INVALID)])
        assert store.rejects().select("code", "column").rows() == [("FIELD_CUSTOM_VALIDATION_EXCEPTION", "StageName")]
        assert (store.counts(1).failed, store.transient()) == (1, 0)


def test_a_row_that_was_created_tonight_stays_created_when_a_repair_updates_it(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a", "b"))
        record(store, cut(store)[0], successes=[saved("a"), saved("b", created=False)])
        record(
            store, cut(store, which="keys", keys=left("a", "b"))[0], successes=[saved("a", created=False), saved("b")]
        )
        assert store.counts(2) == Counts(expected=2, staged=2, created=2)


def test_a_repair_that_fails_takes_the_success_back(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a", "b"))
        record(store, cut(store)[0], successes=[saved("a", "b")])
        record(store, cut(store, which="keys", keys=left("a"))[0], failures=[failed("a")])
        assert store.counts(2) == Counts(expected=2, staged=2, created=1, failed=1)
        record(store, cut(store, which="transient")[0], successes=[saved("a", created=False)])
        assert store.counts(2) == Counts(expected=2, staged=2, created=1, updated=1)


def test_rows_that_no_result_names_are_unprocessed_and_sent_again(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a", "b"))
        record(store, cut(store)[0], unprocessed=[left("a")])
        assert dict(store.rejects().select("key", "code").iter_rows()) == {"a": "UNPROCESSED", "b": "NOT_ACKNOWLEDGED"}
        assert (store.counts(2).unprocessed, store.transient()) == (2, 2)


def test_recording_the_same_job_again_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a", "b"))
        part = cut(store)[0]
        once = record(store, part, successes=[saved("a")], failures=[failed("b")])
        assert record(store, part) == once
        assert store.counts(2) == Counts(expected=2, staged=2, created=1, failed=1)
        with pytest.raises(StateError, match="was accounted for by job 7501"):
            record(store, part, job_id="750X")


def test_a_key_that_the_part_does_not_hold_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a"))
        part = cut(store)[0]
        with pytest.raises(Unreadable, match="foreign"):
            record(store, part, successes=[saved("a", "foreign")])
        assert (store.parts(), store.counts(1).accounted) == ([part], 0)


def test_results_that_break_off_change_nothing(tmp_path: Path) -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield saved("a")
        raise ConnectionError("cut")

    with opened(tmp_path) as store:
        stage(store, keys("a"))
        part = cut(store)[0]
        with pytest.raises(ConnectionError):
            record(store, part, successes=broken())
        assert store.parts() == [part]
        assert record(store, part, successes=[saved("a")]).created == 1


def test_the_csv_goes_once_its_outcomes_are_recorded(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a"))
        part = cut(store)[0]
        assert files(tmp_path) == {"page-000001.parquet", "part-00001.csv", "part-00001.parquet"}
        record(store, part, successes=[saved("a")])
        assert files(tmp_path) == {"page-000001.parquet", "outcome-00001.parquet"}
        assert (store.parts(), store.parts(open_only=False)) == ([], [part])


# Telling


def test_rejects_show_the_source_as_it_was_or_the_staged_row_under_its_source_names(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, rows([("a", None), ("b", "P")]), refused={0: rejections((0, "TOO_LONG"))})
        record(store, cut(store)[0], failures=[failed("b", error=INVALID)])
        names = {"key": "ExternalId__c", "Name": "Name__c", "AccountId": "Account__c"}
        found = store.rejects(names)
    assert found.columns == ["key", "outcome", "code", "message", "column", "source"]
    assert found.row(0) == ("a", "quarantined", "TOO_LONG", "a rule", "Name__c", '{"Name__c":"row 0"}')
    assert found.row(1)[:5] == (
        "b", "failed", "FIELD_CUSTOM_VALIDATION_EXCEPTION", "The stage is closed: no edit", "StageName",
    )  # fmt: skip
    assert json.loads(found["source"][1]) == {
        "ExternalId__c": "b", "Name__c": "Opportunity b", "Amount": "12.50", "CloseDate": "2026-03-01",
        "Seen__c": "2026-03-01T08:30:00.000Z", "Account__c": "P",
    }  # fmt: skip


def test_the_life_of_one_key_is_told_whole(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a"), keys("b", "b"), refused={1: rejections((1, "EQUAL_DUPLICATE"), set_aside=True)})
        record(store, cut(store)[0], successes=[saved("a")], failures=[failed("b")])
        cut(store, which="transient")
        first, double = store.lookup("b")
        assert store.lookup("nobody") == []
    assert (first.row, first.page, first.values["Name"]) == (1, "page-000002.parquet", "Opportunity b")
    assert [(s.part, s.round, s.state, s.job_id, s.created) for s in first.sendings] == [
        (1, 0, "accounted", "7501", None),
        (2, 1, "cut", "", None),
    ]
    assert first.outcome is not None and first.outcome["code"] == "UNABLE_TO_LOCK_ROW"
    assert (double.row, double.sendings) == (2, ())
    assert double.outcome is not None and double.outcome["code"] == "EQUAL_DUPLICATE"


def test_a_range_at_rest_is_read_by_several_at_once_and_changed_by_nobody(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a", "b"))
        record(store, cut(store)[0], successes=[saved("a", "b")])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with RangeStore.read_only(tmp_path) as one, RangeStore.read_only(tmp_path) as other:
        assert one.counts(2) == other.counts(2) == Counts(expected=2, staged=2, created=2)
        assert pl.read_parquet(one.staged_files())["key"].to_list() == ["a", "b"]
        assert one.rejected_rows().to_list() == []
        with pytest.raises(StateError):
            one.settle()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_pending_rows_are_not_taken_for_saved(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a", "b", "c"))
        record(store, cut(store, which="keys", keys=left("b"))[0], successes=[saved("b")])
    with RangeStore.read_only(tmp_path) as store:
        assert sorted(store.rejected_rows().to_list()) == [0, 2]


def test_a_ledger_still_answers_after_its_rows_were_cleared_away(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a", "b"), refused={0: rejections((1, "TOO_LONG"))})
        record(store, cut(store)[0], successes=[saved("a")])
    (tmp_path / "page-000001.parquet").unlink()
    with RangeStore.read_only(tmp_path) as store:
        assert store.counts(2) == Counts(expected=2, staged=2, created=1, quarantined=1)
        facts = store.lookup("a")[0]
        assert (facts.page, facts.values, facts.sendings[0].id) == (None, {}, "006a")
        assert store.rejects()["source"].to_list() == ['{"Name__c":"row 1"}']


def test_a_range_that_is_being_worked_on_cannot_be_read(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(HeldElsewhere):
        RangeStore.read_only(tmp_path)


def test_a_range_that_never_was_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no range"):
        RangeStore.read_only(tmp_path / "r")


# Damage


def damage(path: Path) -> None:
    """The same size, another content: only the checksum can tell."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def staged_in_three_pages(folder: Path) -> None:
    with opened(folder) as store:
        store.add_page(keys("a", "b"), Cursor("b", "q", 2), NO_REJECTIONS)
        store.add_page(keys("c", "d"), Cursor("d", "q", 4), rejections((0, "TOO_LONG")))
        store.add_page(keys("e"), Cursor("e", "q", 5), rejections((0, "TOO_LONG")))


@pytest.mark.parametrize("how", [damage, Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_rows_are_read_again_from_the_first_damaged_page_on(tmp_path: Path, how) -> None:  # type: ignore[no-untyped-def]
    staged_in_three_pages(tmp_path)
    how(tmp_path / "page-000002.parquet")
    with opened(tmp_path) as store:
        assert (store.cursor, store.staged) == (Cursor("b", "q", 2), 2)
        assert store.counts(2) == Counts(expected=2, staged=2)
        assert files(tmp_path) == {"page-000001.parquet"}
        stage(store, keys("c", "d", "e"))
        assert sent_keys(store, cut(store)[0]) == ["a", "b", "c", "d", "e"]


def test_reading_is_open_again_when_a_page_is_lost_after_it_ended(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a"), keys("b"))
        cut(store)
    damage(tmp_path / "page-000002.parquet")
    with opened(tmp_path) as store:
        assert (store.is_read, store.rounds, store.parts(open_only=False), store.cursor) == (
            False,
            0,
            [],
            Cursor("a", "query", 1),
        )
        stage(store, keys("b"))
        assert [part.number for part in cut(store)] == [2]


def test_what_was_acknowledged_stays_so_when_its_page_is_lost(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a"), keys("b", "c", "d", "e"))
        record(
            store, cut(store)[0], successes=[saved("a", "b", "c"), saved("d", created=False)], failures=[failed("e")]
        )
    damage(tmp_path / "page-000002.parquet")
    with opened(tmp_path) as store:
        assert store.counts(5) == Counts(expected=5, staged=1, created=1)
        # Meanwhile the source lost c, and has f; b stands twice now.
        stage(store, keys("b", "b", "d", "e", "f"), refused={0: rejections((1, "EQUAL_DUPLICATE"), set_aside=True)})
        assert store.counts(6) == Counts(expected=6, staged=6, created=2, updated=1, quarantined=1, set_aside=1)
        part = cut(store)[0]
        assert sent_keys(store, part) == ["e", "f"]
        record(store, part, successes=[saved("e", "f")])
        assert store.counts(6).adds_up
        assert len(fates(store)) == 6
        repair = cut(store, which="keys", keys=left("b", "d"))[0]
        record(store, repair, successes=[saved("b", created=False)], failures=[failed("d")])
        assert store.counts(6) == Counts(expected=6, staged=6, created=4, failed=1, quarantined=1, set_aside=1)
        assert store.lookup("b")[-2].outcome["job_id"] == "7501"  # type: ignore[index]
    damage(tmp_path / "page-000002.parquet")
    with opened(tmp_path) as store:
        assert store.counts(6) == Counts(expected=6, staged=1, created=1)
        stage(store, keys("b", "d", "e", "f"))
        assert store.counts(5) == Counts(expected=5, staged=5, created=3, updated=1)
        assert sent_keys(store, cut(store)[0]) == ["d"]


def test_outcomes_that_cannot_be_read_prove_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a", "b", "c"))
        record(store, cut(store)[0], successes=[saved("a", "b")], failures=[failed("c", error=INVALID)])
    damage(tmp_path / "outcome-00001.parquet")
    with opened(tmp_path) as store:
        assert store.counts(3) == Counts(expected=3, staged=3, failed=1)
        assert store.rounds == 0
        assert sent_keys(store, cut(store)[0]) == ["a", "b"]


@pytest.mark.parametrize("name", ["part-00001.csv", "part-00001.parquet"])
def test_a_damaged_part_is_never_sent(tmp_path: Path, name: str) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a", "b"))
        cut(store)
    damage(tmp_path / name)
    with opened(tmp_path) as store:
        assert (store.parts(), store.rounds) == ([], 0)
        assert [(part.number, part.rows) for part in cut(store)] == [(2, 2)]


def test_files_that_the_catalogue_does_not_list_are_swept(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        stage(store, keys("a"))
        cut(store)
    for name in ("page-000002.parquet", "part-00002.csv", "outcome-00001.parquet", "page-000003.parquet.tmp"):
        shutil.copy(tmp_path / "page-000001.parquet", tmp_path / name)
    opened(tmp_path).close()
    assert files(tmp_path) == {"page-000001.parquet", "part-00001.csv", "part-00001.parquet"}


# Rounds


def test_retries_count_from_the_last_cutting_for_another_reason_and_a_repair_is_known_by_its_number(
    tmp_path: Path,
) -> None:
    with opened(tmp_path / "r") as store:
        stage(store, keys("a", "b"))
        cut(store)
        record(store, store.parts()[0], failures=[failed("a", "b")])
        assert (store.rounds, store.retries, store.repairs) == (1, 0, 0)
        cut(store, which="transient")
        record(store, store.parts()[0], successes=[saved("a", "b")])
        assert (store.rounds, store.retries, store.repairs) == (2, 1, 0)
    with opened(tmp_path / "r") as store:
        store.cut_round(
            which="keys", keys=pl.DataFrame({"key": ["a"]}), repair=2, group_by=None, start_fraction=0.0,
            part_rows=10, part_bytes=1000, heavy_rows=10, serial=False, render=render,
        )  # fmt: skip
        assert (store.rounds, store.retries, store.repairs) == (3, 0, 2)


def test_a_round_that_found_no_room_leaves_no_file_of_it(tmp_path: Path) -> None:
    class Small(Disk):
        """Room for the first slice alone."""

        def write(self, path: Path, content: bytes | memoryview) -> None:
            if path.name == "part-00002.parquet":
                raise DiskFull(f"The disk has no room for {path}.")
            super().write(path, content)

    with opened(tmp_path / "r", disk=Small()) as store:
        stage(store, keys("a", "b", "c"))
        with pytest.raises(DiskFull):
            cut(store, part_rows=1)

        assert files(tmp_path / "r") == {"page-000001.parquet"}
        assert (store.rounds, store.parts()) == (0, [])


def test_a_catalogue_that_ends_all_of_duckdb_costs_the_others_no_more_than_a_new_beginning(tmp_path: Path) -> None:
    """Bits are flipped one after the other: most do nothing, some end the DuckDB that all ranges share."""
    with opened(tmp_path / "sound") as store:
        stage(store, keys(*(f"k{number:04d}" for number in range(2000))))
        for part in cut(store):
            record(store, part, failures=[failed(*sent_keys(store, part))])
    content, catalogues, ends = (tmp_path / "sound" / "range.duckdb").read_bytes(), alone(tmp_path), 0
    other = RangeStore.open(tmp_path / "other", SCHEMA, catalogues)
    stage(other, keys("a", "b"))
    for number, at in enumerate(range(12_288, len(content), (len(content) - 12_288) // 40)):
        folder = tmp_path / f"damaged-{number}"
        shutil.copytree(tmp_path / "sound", folder)
        (folder / "range.duckdb").write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        blamed = False
        try:
            with RangeStore.open(folder, SCHEMA, catalogues) as store:
                for part in cut(store, which="transient"):
                    record(store, part, successes=[saved(*sent_keys(store, part))])
                store.settle()
        except StateError as error:
            blamed = "fresh" in error.hint
        try:
            other.settle()
        except EngineGone:
            ends += blamed
            other.close()
            other = RangeStore.open(tmp_path / "other", SCHEMA, catalogues)
        assert (other.staged, other.cursor) == (2, Cursor("b", "query", 2))
        shutil.rmtree(folder)
    other.close()

    assert ends
