"""The proof itself: whatever is planted is found by its key and named for what it is, and nothing else is ever named."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sync_pipeline.domain.errors import HeldElsewhere, LimitExceeded, RequestRefused, StateError, WrongOrg
from sync_pipeline.domain.ledger import RangeState, Verdict
from sync_pipeline.domain.policy import Verify
from sync_pipeline.engine.range_run import DRIFT_FILE
from sync_pipeline.simulated_org.app import OrgTransport
from sync_pipeline_tests.engine.witness import World, found, row, rows, world

# The law


ENDS = st.text(" \t\n", max_size=2)
"""Blanks at either end of a text, which Salesforce drops."""
LETTERS = st.one_of(
    st.sampled_from(list("aZ09'\"\\,;%_#/&=?+{}[]|\n\t \U0001f600\U00010348é中\u200b\u2028")),
    st.characters(exclude_categories=["Cs", "Cc"]),
)
LONG = st.tuples(st.text(LETTERS, min_size=1, max_size=6), st.integers(100, 249)).map(
    lambda made: made[0] + "x" * made[1]
)


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def inner(text: str) -> str:
    return text.strip(" \t\n\r")


KEYS = (
    (st.text(LETTERS, min_size=1, max_size=12) | LONG).map(inner).filter(lambda k: 0 < units(k) <= 255 and k != "#N/A")
)
NAMES = st.text(LETTERS, min_size=1, max_size=30).filter(
    lambda n: inner(n) not in ("", "#N/A") and units(inner(n)) <= 120
)
AMOUNTS = st.one_of(
    st.sampled_from(
        [None, "", " ", "0", "-0.0", "+5", "5.", "0.01", "-0.01", "1E3", "1.5e2", "999999999999999.99", "12345678.9"]
    ),
    st.decimals(-(10**13), 10**13, places=2).map(lambda d: format(d, "f")),
)
DAYS = st.dates(date(1700, 1, 1), date(4000, 12, 31)).map(date.isoformat)
STAGES = st.sampled_from(["Prospecting", " Closed Won", "Id. Decision Makers\t", "Proposal/Price Quote"])


@st.composite
def hostile_rows(draw: st.DrawFn) -> list[dict[str, str | None]]:
    keys = draw(st.lists(KEYS, min_size=2, max_size=25, unique_by=lambda k: k.casefold()))
    written = [draw(ENDS) + key + draw(ENDS) for key in keys]
    return [
        row(key, Name__c=draw(NAMES), Amount__c=draw(AMOUNTS), CloseDate__c=draw(DAYS), StageName__c=draw(STAGES))
        for key in written
    ]


def next_value(stored: dict[str, Any], field: str) -> Any:
    """Another value of the field, as near to the stored one as the org can tell it from."""
    value = stored[field]
    match field:
        case "Amount":
            return 0.01 if value is None else float(Decimal(repr(value)) + Decimal("0.01"))
        case "CloseDate":
            return value + timedelta(days=1) if value < date(4000, 12, 31) else value - timedelta(days=1)
        case "StageName":
            return "Closed Lost"
        case _:
            return value[:-1] if len(value) > 1 and value[:-1].strip() == value[:-1] else f"{value}x"


@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(source=hostile_rows(), data=st.data())
def test_a_night_over_clean_hostile_rows_is_reconciled_and_any_single_change_after_it_is_found(
    tmp_path_factory: pytest.TempPathFactory, source: list[dict[str, str | None]], data: st.DataObject
) -> None:
    with world(tmp_path_factory.mktemp("law"), source) as it:
        night = it.night()

        assert (night.verdict, night.verdict_reasons) == (Verdict.RECONCILED, ())
        assert night.measurement is not None and night.measurement.sample == ()
        assert night.measurement.present == len(source)

        key = inner(data.draw(st.sampled_from([str(r["ExternalId__c"]) for r in source])))
        (stored,) = it.in_org(key)
        damage = data.draw(st.sampled_from(["lost", "doubled", "Name", "StageName", "Amount", "CloseDate"]))
        if damage == "lost":
            it.lose(key)
            expected = (key, "missing", "", "lost")
        elif damage == "doubled":
            it.double(key)
            expected = (key, "doubled", "", "doubled")
        else:
            other = next_value(stored, damage)
            assume(other != stored[damage])  # a cent more is the same double at 16 digits
            it.spoil(key, **{damage: other})
            expected = (key, "different", damage, "saved otherwise")

        assert found(it.measure()) == [expected]


# Each kind of damage by its exact key and name


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rows that a night has brought into the org, made once and copied for each test."""
    folder = tmp_path_factory.mktemp("loaded")
    with world(folder, rows("a", "b", "c", "d", "e", "f")) as made:
        assert made.night().verdict is Verdict.RECONCILED
    return folder


@pytest.fixture
def loaded(tmp_path: Path, template: Path) -> Iterator[World]:
    """Six rows that a night has brought into the org."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    with world(tmp_path, None) as made:
        yield made


def test_a_clean_org_shows_nothing_and_every_row_is_fresh(loaded: World) -> None:
    measured = loaded.measure()

    assert (measured.expected, measured.present, measured.fresh) == (6, 6, 6)
    assert (measured.missing, measured.different, measured.doubled, measured.orphans) == (0, 0, 0, 0)
    assert (measured.reasons, measured.moved, measured.sample, measured.drifting) == ({}, {}, (), ())


def test_every_kind_of_damage_at_once_is_told_apart(loaded: World) -> None:
    loaded.lose("a")
    loaded.spoil("b", Amount=100.26)
    loaded.spoil("c", CloseDate=date(2026, 4, 1))
    loaded.spoil("d", Name="Opportunity ")
    loaded.double("e")
    loaded.spoil("f", StageName="Closed Won", by=loaded.org.admin_id)
    loaded.add_to_org("g")

    measured = loaded.measure()

    assert found(measured) == [
        ("a", "missing", "", "lost"),
        ("b", "different", "Amount", "saved otherwise"),
        ("c", "different", "CloseDate", "saved otherwise"),
        ("d", "different", "Name", "saved otherwise"),
        ("e", "doubled", "", "doubled"),
        ("f", "different", "StageName", "touched by someone else"),
        ("g", "orphan", "", "orphan"),
    ]
    assert (measured.missing, measured.different, measured.doubled, measured.orphans) == (1, 4, 1, 1)
    assert measured.reasons == {"saved otherwise": 3, "lost": 1, "doubled": 1, "touched by someone else": 1}
    assert measured.present == 7


def test_both_values_are_named(loaded: World) -> None:
    loaded.spoil("b", Amount=100.26)

    (named,) = loaded.measure().sample

    assert (named["staged"], named["present"]) == ("100.25", "100.26")


def test_a_lost_row_is_named_with_the_job_that_saved_it_and_its_id(loaded: World) -> None:
    (stored,) = loaded.in_org("a")
    loaded.lose("a")

    (named,) = loaded.measure().sample

    (job,) = loaded.walls.book.jobs()
    assert job.job_id in named["detail"] and stored["Id"] in named["detail"]


def test_a_row_that_another_user_changed_is_named_with_that_user(loaded: World) -> None:
    loaded.spoil("b", Amount=1.0, by=loaded.org.admin_id)

    (named,) = loaded.measure().sample

    assert loaded.org.admin_id in named["detail"]


def test_a_change_that_leaves_the_mapped_values_alone_is_no_difference(loaded: World) -> None:
    loaded.spoil("b", NextStep="call", by=loaded.org.admin_id)

    assert loaded.measure().sample == ()


def test_a_doubled_key_is_named_with_the_ids_of_all_its_rows(loaded: World) -> None:
    (first,) = loaded.in_org("e")
    second = loaded.double("e")

    (named,) = loaded.measure().sample

    assert first["Id"] in named["detail"] and second in named["detail"]


def test_a_doubled_key_spoils_the_verdict_and_is_not_sent_again(tmp_path: Path) -> None:
    with world(tmp_path, rows("a", "b")) as it:
        it.night()
        it.double("b")

        night = it.night()

        # The org refuses to choose between the two, so the row is rejected as well.
        assert (night.verdict, night.verdict_reasons) == (
            Verdict.NOT_RECONCILED,
            ("1 keys are in the org more than once",),
        )
        assert [entry.repairs for entry in it.ranges()] == [0]
        assert night.measurement is not None and night.measurement.reasons == {"doubled": 1, "rejected": 1}


def test_no_value_is_compared_that_the_mapping_keeps(tmp_path: Path) -> None:
    packaged = Path(__file__).parents[2] / "sync_pipeline" / "opportunity.toml"
    keeping = packaged.read_text().replace(
        'target = "Amount"\ntype = "number"', 'target = "Amount"\ntype = "number"\nnull = "keep"'
    )
    (tmp_path / "mapping.toml").write_text(keeping)
    with world(tmp_path, [row("a", Amount__c=None)], SYNC_MAPPING=str(tmp_path / "mapping.toml")) as it:
        it.night()
        it.spoil("a", Amount=7.0)

        assert it.measure().sample == ()


# What a level can prove


def test_by_keys_a_lost_and_a_doubled_row_are_found_and_a_wrong_value_is_not(tmp_path: Path) -> None:
    with world(tmp_path, rows("a", "b", "c"), SYNC_VERIFY="keys") as it:
        assert it.night().verdict is Verdict.PRESENT
        it.lose("a")
        it.spoil("b", Amount=1.0)
        it.double("c")

        measured = it.measure()

        assert found(measured) == [("a", "missing", "", "lost"), ("c", "doubled", "", "doubled")]
        assert measured.different is None


def test_by_counts_an_orphan_hides_a_lost_row_and_the_verdict_is_only_counted(tmp_path: Path) -> None:
    with world(tmp_path, rows("a", "b", "c"), SYNC_VERIFY="counts") as it:
        it.night()
        it.lose("a")
        shortfall = it.measure()
        it.add_to_org("z")
        hidden = it.measure()

        assert (shortfall.missing, hidden.missing) == (1, 0)
        assert hidden.different is hidden.doubled is hidden.orphans is None
        assert it.night().verdict is Verdict.COUNTED


# The source moves during the night


def test_rows_that_come_and_go_at_the_source_are_told_apart_from_lost_ones(loaded: World) -> None:
    loaded.take_from_source("b")
    loaded.add_to_source(row("bb"), row("x"))
    loaded.lose("c")

    measured = loaded.measure()

    assert found(measured) == [
        ("b", "changed since", "", "changed since"),
        ("bb", "changed since", "", "changed since"),
        ("c", "missing", "", "lost"),
        ("x", "changed since", "", "changed since"),
    ]
    assert measured.moved == {"inserted": 2, "deleted": 1}
    assert (measured.changed_since, measured.missing) == (3, 1)
    assert [counted["source"] for counted in measured.by_range.values()] == [7]


def test_a_value_that_org_and_source_both_have_now_is_changed_since(loaded: World) -> None:
    loaded.change_source("b", Amount__c="7.00")
    loaded.spoil("b", Amount=7.0, by=loaded.org.admin_id)

    measured = loaded.measure()

    assert found(measured) == [("b", "changed since", "Amount", "changed since")]
    assert (measured.different, measured.moved) == (0, {"changed": 1})


def test_a_wrong_value_is_not_excused_by_another_change_at_the_source(loaded: World) -> None:
    loaded.change_source("b", Amount__c="7.00")
    loaded.spoil("b", Amount=8.0)

    measured = loaded.measure()

    assert found(measured) == [("b", "different", "Amount", "saved otherwise")]
    assert measured.moved == {}


def test_a_row_that_source_and_org_both_lost_is_changed_since(loaded: World) -> None:
    loaded.take_from_source("b")
    loaded.lose("b")

    measured = loaded.measure()

    assert (measured.missing, measured.moved, measured.present) == (0, {"deleted": 1}, 5)
    assert [counted["present"] for counted in measured.by_range.values()] == [5]


def test_a_lost_row_whose_key_the_source_writes_with_blanks_is_not_taken_for_deleted(tmp_path: Path) -> None:
    with world(tmp_path, [row(" a\t"), row("b")]) as it:
        it.night()
        it.lose("a")

        assert found(it.measure()) == [("a", "missing", "", "lost")]


def test_a_source_that_moves_between_plan_and_proof_gives_no_false_alarm(tmp_path: Path) -> None:
    """Rows change once each range was read: before the first job of the night is created."""
    moved = False

    class Moving(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal moved
            if request.method == "POST" and request.url.path.endswith("/jobs/ingest") and not moved:
                moved = True
                it.take_from_source("a")
                it.add_to_source(row("z"))
                it.change_source("b", Amount__c="1.00")
            return inner_transport.handle_request(request)

    inner_transport = OrgTransport(tmp_path / "home" / "simulated_org")
    with world(tmp_path, rows("a", "b", "c"), transport=Moving()) as it:
        night = it.night()

        assert (night.verdict, night.verdict_reasons) == (Verdict.RECONCILED, ())
        assert night.measurement is not None
        # The counts of the range are equal again, so that nobody is told which rows came and went.
        assert (night.measurement.missing, night.measurement.different) == (0, 0)
        assert it.measure(against="source").moved == {"inserted": 1, "changed": 1, "deleted": 1}


def test_further_rows_of_a_key_and_rows_without_one_are_counted_as_moved(loaded: World) -> None:
    loaded.add_to_source(row("a"), row(None))

    measured = loaded.measure()

    assert (measured.moved, measured.sample) == ({"inserted": 2}, ())


# Nothing is proven of what was not compared


def test_a_page_that_is_lost_before_the_proof_leaves_nothing_reconciled(loaded: World) -> None:
    (entry,) = loaded.ranges()
    (loaded.folder(entry) / "page-000001.parquet").unlink()

    with pytest.raises(StateError, match="6 rows were staged and 6 saved, but 0 and 0 are here"):
        loaded.measure()


def test_a_damaged_page_is_no_witness(loaded: World) -> None:
    (entry,) = loaded.ranges()
    page = loaded.folder(entry) / "page-000001.parquet"
    content = bytearray(page.read_bytes())
    content[len(content) // 3] ^= 1
    page.write_bytes(content)

    with pytest.raises(StateError, match=r"page-000001\.parquet is missing or damaged"):
        loaded.measure()
    assert loaded.measure(against="source").is_equal


def test_a_night_whose_rows_were_cleared_away_is_not_called_equal(loaded: World) -> None:
    (newest,) = loaded.walls.book.nights()
    later = newest.opened_at + timedelta(days=8)
    swept = loaded.walls.area.sweep(
        now=later, keep_rows=timedelta(days=7), keep_ledgers=timedelta(days=400), unfinished=()
    )
    assert swept

    with pytest.raises(StateError, match="sync-pipeline reconcile"):
        loaded.measure()
    assert loaded.measure(against="source").is_equal


def test_a_page_that_is_lost_before_the_verdict_ends_the_night_unproven(tmp_path: Path) -> None:
    class Losing(httpx.BaseTransport):
        """The page goes when the org is first asked for the proof."""

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/describe") and it.walls.book.jobs():
                for page in it.folder(it.ranges()[0]).glob("page-*.parquet"):
                    page.unlink()
            return inner_transport.handle_request(request)

    inner_transport = OrgTransport(tmp_path / "home" / "simulated_org")
    with world(tmp_path, rows("a", "b"), transport=Losing(), SYNC_MEASUREMENTS="1") as it:
        night = it.night()

        assert night.verdict is Verdict.UNPROVEN


def test_another_org_is_never_measured_for_this_night(loaded: World) -> None:
    other = replace(loaded.walls, org=replace(loaded.walls.org, org_id="00D000000000009AAA"))
    stranger = World(other, loaded.org, loaded.home)

    with pytest.raises(WrongOrg, match="00D000000000009AAA"):
        stranger.measure_for_the_night()

    (newest,) = loaded.walls.book.nights()
    assert newest.measure_tries == 0


def test_a_range_that_is_being_worked_on_is_not_measured(loaded: World) -> None:
    (entry,) = loaded.ranges()

    with loaded.walls.area.lock_range(entry.partition), pytest.raises(HeldElsewhere, match="being worked on"):
        loaded.measure()


def test_a_limit_during_the_proof_parks_the_night_and_counts_as_no_failure(loaded: World) -> None:
    loaded.fault("limit endpoint=query_job")

    with pytest.raises(LimitExceeded):
        loaded.measure(level=Verify.VALUES)

    (newest,) = loaded.walls.book.nights()
    assert newest.measure_tries == 0


def test_rows_of_a_range_that_was_never_read_are_no_orphans(tmp_path: Path) -> None:
    """A range is given up before its first page, while the org has rows of it from the night before."""
    broken = False

    class Broken(httpx.BaseTransport):
        """The second range cannot be read."""

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            is_query = broken and request.method == "POST" and request.url.path.endswith("/query-sql")
            if is_query and b"ORDER BY s." in request.content and b'"p_after"' in request.content:
                return httpx.Response(400, json=[{"errorCode": "XX000", "message": "broken"}])
            return inner_transport.handle_request(request)

    inner_transport = OrgTransport(tmp_path / "home" / "simulated_org")
    few = {"SYNC_ROWS_PER_RANGE": "2", "SYNC_RANGE_ATTEMPTS": "1"}
    with world(tmp_path, rows("a", "b", "m", "n"), transport=Broken(), **few) as it:
        it.night()
        broken = True
        night = it.night()

        measured = it.measure()

        assert [entry.state for entry in it.ranges()] == [RangeState.DONE, RangeState.GIVEN_UP]
        assert night.verdict is Verdict.NOT_RECONCILED
        assert (measured.expected, measured.present, measured.orphans) == (2, 4, 0)
        assert measured.reasons == {"never read": 2}


# Repair


def test_a_row_that_was_acknowledged_and_not_saved_is_healed_by_a_repair_of_that_key_alone(tmp_path: Path) -> None:
    with world(tmp_path, rows("a", "b", "c")) as it:
        it.fault("""silent_drop keys='["b"]' times=1""")

        night = it.night()

        assert (night.verdict, night.verdict_reasons) == (Verdict.RECONCILED, ())
        assert [entry.repairs for entry in it.ranges()] == [1]
        assert [(job.rows, job.state) for job in it.walls.book.jobs()] == [(3, "accounted"), (1, "accounted")]
        assert len(it.in_org("b")) == 1


def test_a_row_that_the_org_never_saves_is_reported_when_the_repairs_are_used_up(tmp_path: Path) -> None:
    with world(tmp_path, rows("a", "b", "c"), SYNC_REPAIRS="2") as it:
        it.fault("""silent_drop keys='["b"]'""")

        night = it.night()

        assert (night.verdict, night.verdict_reasons) == (Verdict.NOT_RECONCILED, ("1 rows are missing in the org",))
        assert [entry.repairs for entry in it.ranges()] == [2]
        assert [job.rows for job in it.walls.book.jobs()] == [3, 1, 1]
        assert night.measurement is not None
        assert found(night.measurement) == [("b", "missing", "", "lost")]


def test_a_wrong_value_is_healed_in_the_same_night(tmp_path: Path) -> None:
    """Somebody edits a row between the load and the first measurement."""
    edited = False

    class Editing(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal edited
            if request.method == "POST" and request.url.path.endswith("/jobs/query") and not edited:
                edited = True
                it.spoil("b", Amount=1.0, by=it.org.admin_id)
            return inner_transport.handle_request(request)

    inner_transport = OrgTransport(tmp_path / "home" / "simulated_org")
    with world(tmp_path, rows("a", "b", "c"), transport=Editing()) as it:
        night = it.night()

        assert night.verdict is Verdict.RECONCILED
        assert it.in_org("b")[0]["Amount"] == 100.25
        assert [entry.repairs for entry in it.ranges()] == [1]


# The counts side by side


def test_rows_are_counted_by_stage_on_both_sides(tmp_path: Path) -> None:
    source = [
        row("a", StageName__c=" Closed Won"),
        row("b", StageName__c="Closed Won"),
        row("c"),
        row("d", StageName__c="No such stage"),
    ]
    with world(tmp_path, source) as it:
        night = it.night()

        assert night.measurement is not None
        assert night.measurement.distribution == {
            "field": "StageName",
            "rows": [["Closed Won", 2, 2], ["No such stage", 1, 0], ["Prospecting", 1, 1]],
            "note": "every row with a key, on both sides",
        }


def test_numbers_are_counted_by_what_they_are_and_not_by_how_they_are_written(tmp_path: Path) -> None:
    source = [row("a", Amount__c="1E3"), row("b", Amount__c="1000.00"), row("c", Amount__c=None)]
    with world(tmp_path, source, SYNC_DISTRIBUTION="Amount") as it:
        night = it.night()

        assert night.measurement is not None and night.measurement.distribution is not None
        assert night.measurement.distribution["rows"] == [["1000.0", 2, 2], ["", 1, 1]]


def test_a_field_with_too_many_values_is_said_not_to_be_counted(tmp_path: Path) -> None:
    with world(tmp_path, rows(*(f"k{number:04d}" for number in range(2001))), SYNC_DISTRIBUTION="Name") as it:
        night = it.night()

        assert night.verdict is Verdict.RECONCILED
        assert night.measurement is not None and night.measurement.distribution is not None
        assert night.measurement.distribution["rows"] == []
        assert "2000" in night.measurement.distribution["note"]


@pytest.mark.parametrize("field", ["none", "Description"])
def test_without_such_a_field_in_the_mapping_nothing_is_counted(tmp_path: Path, field: str) -> None:
    with world(tmp_path, rows("a"), SYNC_DISTRIBUTION=field) as it:
        night = it.night()

        assert night.measurement is not None and night.measurement.distribution is None


# By hand


def test_by_hand_each_row_of_the_source_that_the_org_lacks_has_its_reason(tmp_path: Path) -> None:
    source = [
        *rows("lost", "edited", "fine"),
        row("refused", StageName__c="No such stage"),
        row("odd", Amount__c="many"),
    ]
    with world(tmp_path, source) as it:
        it.night()
        it.lose("lost")
        it.change_source("edited", Amount__c="2.00")
        it.add_to_source(row("new"))
        it.add_to_org("theirs")

        measured = it.measure(against="source")

        assert found(measured) == [
            ("edited", "changed since", "", "changed since"),
            ("lost", "missing", "", "lost"),
            ("new", "changed since", "", "changed since"),
            ("refused", "missing", "", "rejected"),
            ("theirs", "orphan", "", "orphan"),
        ]
        assert measured.reasons == {"changed since": 2, "quarantined": 1, "rejected": 1, "lost": 1}
        assert measured.moved == {"inserted": 1, "changed": 1}
        assert (measured.missing, measured.different, measured.orphans) == (2, 0, 1)


def test_by_hand_the_code_of_a_refusal_is_told(tmp_path: Path) -> None:
    with world(tmp_path, rows("a", "b")) as it:
        it.fault("""row_errors keys='["b"]' code=FIELD_CUSTOM_VALIDATION_EXCEPTION message='not today'""")
        it.night()

        (named,) = it.measure(against="source").sample

        assert (named["key"], named["reason"]) == ("b", "rejected")
        assert named["detail"] == "FIELD_CUSTOM_VALIDATION_EXCEPTION: not today"


def test_an_update_that_was_refused_is_the_reason_why_the_org_has_the_old_value(tmp_path: Path) -> None:
    with world(tmp_path, rows("a", "b")) as it:
        it.night()
        it.fault("""row_errors keys='["b"]'""")
        it.change_source("b", Amount__c="5.00")
        it.night()

        assert found(it.measure(against="source")) == [("b", "different", "Amount", "rejected")]


def test_by_hand_rows_whose_ledger_was_cleared_away_are_still_compared(loaded: World) -> None:
    (newest,) = loaded.walls.book.nights()
    later = newest.opened_at + timedelta(days=401)
    loaded.walls.area.sweep(now=later, keep_rows=timedelta(days=7), keep_ledgers=timedelta(days=400), unfinished=())
    loaded.lose("a")
    loaded.add_to_org("z")

    assert found(loaded.measure(against="source")) == [
        ("a", "missing", "", "never read"),
        ("z", "orphan", "", "orphan"),
    ]


# Nothing later needs the org's result files, which it keeps for 7 days


def test_eight_days_later_everything_is_still_told_from_the_archive(loaded: World) -> None:
    loaded.org.advance(8 * 86_400)
    (job,) = loaded.walls.book.jobs()
    with pytest.raises(RequestRefused, match="404"):
        loaded.walls.bulk.info(job.job_id)
    loaded.lose("a")

    (named,) = loaded.measure().sample

    assert (named["reason"], job.job_id in named["detail"]) == ("lost", True)
    with loaded.store(loaded.ranges()[0]) as store:
        assert [(part, archived) for part, archived, *_ in store.archive()] == [(1, job.job_id)]


# Many at once


def test_of_more_lost_rows_than_are_looked_at_again_every_single_one_is_named(tmp_path: Path) -> None:
    keys = [f"k{number:05d}" for number in range(10_050)]
    with world(tmp_path, rows(*keys), SYNC_ROWS_PER_RANGE="5000") as it:
        it.night()
        it.records().replace_all(iter([]))

        measured = it.measure_for_the_night()

        night = it.walls.book.newest()
        assert night is not None
        drift = pl.read_parquet(it.walls.area.night_folder(night.plan_id) / DRIFT_FILE)
        assert sorted(drift["key"]) == keys
        assert set(drift["finding"]) == {"missing"} and set(drift["reason"]) == {"lost"}
        assert (measured.missing, measured.present, measured.reasons) == (10_050, 0, {"lost": 10_050})
        assert measured.drifting == tuple(entry.partition for entry in it.ranges())
        assert (it.walls.area.night_folder(night.plan_id) / DRIFT_FILE).stat().st_mode & 0o777 == 0o600


@given(
    lost=st.sets(st.integers(0, 29)),
    other=st.sets(st.integers(0, 29)),
    twice=st.sets(st.integers(0, 29)),
    own=st.integers(0, 5),
)
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
def test_present_is_always_what_the_org_has_whatever_is_wrong_with_it(
    thirty: Path, tmp_path_factory: pytest.TempPathFactory, lost: set[int], other: set[int], twice: set[int], own: int
) -> None:
    folder = tmp_path_factory.mktemp("sums")
    shutil.copytree(thirty, folder, dirs_exist_ok=True)
    with world(folder, None) as it:
        for number in lost:
            it.lose(f"k{number:02d}")
        for number in other - lost:
            it.spoil(f"k{number:02d}", Amount=1.0)
        for number in twice - lost:
            it.double(f"k{number:02d}")
        it.add_to_org(*(f"own{number}" for number in range(own)))

        measured = it.measure()

        assert measured.present == len(it.records())
        assert measured.present == sum(counted["present"] for counted in measured.by_range.values())
        assert (measured.missing, measured.orphans) == (len(lost), own)
        assert (measured.doubled, measured.different) == (len(twice - lost), len(other - lost - twice))


@pytest.fixture(scope="module")
def thirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty rows in three ranges, loaded."""
    folder = tmp_path_factory.mktemp("thirty")
    with world(folder, rows(*(f"k{number:02d}" for number in range(30))), SYNC_ROWS_PER_RANGE="10") as made:
        assert made.night().verdict is Verdict.RECONCILED
    return folder
