"""Rows by formula: as many as were asked for, in the order of their keys, the same ones for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import get_args

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from sync_pipeline.simulated_org.identifiers import is_salesforce_id
from sync_pipeline.simulated_org.objects import STAGES, find_object
from sync_pipeline.simulated_org.records import KEY, Records
from sync_pipeline.simulated_org.seed import HOT_ACCOUNTS, PIECE_ROWS, SCHEMA, SOURCE, Keys, is_seeded, next_night, seed
from sync_pipeline.simulated_org.source import source_rows, write_source
from sync_pipeline.simulated_org.state import Org

KINDS = get_args(Keys)


@pytest.fixture
def org(tmp_path: Path) -> Iterator[Org]:
    org = Org(tmp_path / "org")
    yield org
    org.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for each example of a law."""
    base = tmp_path_factory.mktemp("orgs")
    return (base / str(number) for number in count())


def records(org: Org, name: str) -> pl.DataFrame:
    """All records of an object of the CRM, in the order in which they are kept."""
    sobject = find_object(org, name)
    assert sobject is not None
    found = Records(org, sobject)
    return pl.concat([pl.DataFrame(schema=found.schema), *found.frames()])


def keys_of(org: Org) -> list[str | None]:
    return source_rows(org, SOURCE)["ExternalId__c"].to_list()


def folded(keys: list[str | None]) -> list[str]:
    """Keys as a target without regard to letter case matches them."""
    return [key.strip().lower() for key in keys if key is not None]


# keys


@settings(max_examples=30)
@given(
    kind=st.sampled_from(KINDS),
    own=st.integers(5, 120),
    null_keys=st.integers(0, 5),
    duplicate_keys=st.integers(0, 5),
    folded_keys=st.integers(0, 5),
    number=st.integers(0, 2**63),
)
def test_keys_are_ordered_by_their_bytes_and_equal_only_where_that_was_asked_for(
    folders: Iterator[Path], kind: Keys, own: int, null_keys: int, duplicate_keys: int, folded_keys: int, number: int
) -> None:
    org = Org(next(folders))
    rows = own + null_keys + duplicate_keys + folded_keys

    made = seed(
        org, rows, keys=kind, seed=number,
        null_keys=null_keys, duplicate_keys=duplicate_keys, folded_keys=folded_keys,
    )  # fmt: skip

    keys = keys_of(org)
    named = [key for key in keys if key is not None]
    assert made.rows == len(keys) == rows
    assert keys == [None] * null_keys + sorted(named, key=str.encode)
    assert len(set(named)) == rows - null_keys - duplicate_keys
    assert len(set(folded(keys))) == own
    org.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [0, 1, 2 * PIECE_ROWS + 1])
def test_the_order_holds_from_piece_to_piece(org: Org, kind: Keys, rows: int) -> None:
    seed(org, rows, keys=kind)

    keys = keys_of(org)
    assert keys == sorted(keys, key=lambda key: str(key).encode())
    assert len(set(folded(keys))) == rows


def test_dense_keys_are_numbered_from_1(org: Org) -> None:
    seed(org, 3)

    assert keys_of(org) == ["externalOpp0000001", "externalOpp0000002", "externalOpp0000003"]


def test_clustered_keys_lie_in_bunches_behind_long_common_beginnings(org: Org) -> None:
    seed(org, 10_000, keys="clustered")

    beginnings = source_rows(org, SOURCE)["ExternalId__c"].str.head(27).value_counts().sort("ExternalId__c")
    assert beginnings["count"].to_list() == [100, 6400, 3000, 500]
    assert beginnings["ExternalId__c"].str.starts_with("externalOpp/").all()


def test_mixed_keys_have_every_shape_that_a_text_may_have(org: Org) -> None:
    seed(org, 20_000, keys="mixed")

    keys = [key for key in keys_of(org) if key is not None]
    text = "".join(keys)
    assert set("\"',%_.; \\/=@#|~é\N{COMBINING ACUTE ACCENT}鍵ключ🙂𐐀𠮷") <= set(text)
    assert any(key.isdecimal() for key in keys)
    assert {key[:11] for key in keys if key[:11].lower() == "externalopp"} == {"externalOpp", "EXTERNALOPP"}
    assert max(len(key.encode("utf-16-le")) // 2 for key in keys) == 255
    assert all(key == key.strip() for key in keys)
    assert keys != sorted(keys, key=lambda key: key.encode("utf-16-be")), "no key tells bytes from UTF-16 units"


def test_more_odd_keys_than_rows_are_refused(org: Org) -> None:
    with pytest.raises(ValueError, match="3 rows cannot hold 2 null, 2 equal and 0 similar keys"):
        seed(org, 3, null_keys=2, duplicate_keys=2)
    with pytest.raises(ValueError, match="cannot hold"):
        seed(org, 2, duplicate_keys=2)
    with pytest.raises(ValueError, match="cannot hold"):
        seed(org, -1)


def test_all_rows_may_be_without_a_key(org: Org) -> None:
    seed(org, 2, null_keys=2)

    assert keys_of(org) == [None, None]


# values


def test_a_row_keeps_its_values_for_ever(org: Org) -> None:
    """Figures of one release are compared with those of the next: the rows must be the same."""
    seed(org, 30)

    assert source_rows(org, SOURCE).head(2).rows() == [
        (
            "externalOpp0000001", "東京支店 1", "Proposal/Price Quote", Decimal("28633.23"), date(2025, 8, 11),
            "0015e0000000001AAA", datetime(2025, 12, 7, 6, 57, 7, 730_000, UTC),
        ),
        (
            "externalOpp0000002", "Müller, Söhne & Co. 2", "Closed Won", Decimal("48181.18"), date(2025, 1, 2),
            "0015e0000000001AAA", datetime(2025, 12, 8, 9, 12, 47, 237_000, UTC),
        ),
    ]  # fmt: skip


def test_the_same_seed_gives_the_same_rows_and_another_one_others(tmp_path: Path) -> None:
    first, again, other = (Org(tmp_path / name) for name in ("first", "again", "other"))
    for org, number in ((first, 5), (again, 5), (other, 6)):
        seed(org, 500, keys="clustered", seed=number)

    assert_frame_equal(source_rows(first, SOURCE), source_rows(again, SOURCE))
    assert keys_of(first) == keys_of(other)
    assert source_rows(first, SOURCE)["Amount__c"].to_list() != source_rows(other, SOURCE)["Amount__c"].to_list()
    for org in (first, again, other):
        org.close()


def test_values_are_typed_and_a_share_of_them_is_hostile(org: Org) -> None:
    seed(org, 20_000)

    rows = source_rows(org, SOURCE)
    names = rows["Name__c"].str.join("").item()
    amounts = rows["Amount__c"].drop_nulls()
    assert rows.schema == SCHEMA
    assert rows.select("Name__c", "StageName__c", "CloseDate__c", "LastModifiedDate__c").null_count().row(0) == (0,) * 4
    assert set(rows["StageName__c"]) == set(STAGES)
    assert set(",\"';\töвש東🚀𐐀\N{COMBINING ACUTE ACCENT}") <= set(names)
    assert 300 < rows["Amount__c"].null_count() < 500
    assert 300 < rows["Account__c"].null_count() < 500
    assert 800 < (amounts > Decimal(10_000_000)).sum() < 2000
    assert amounts.max() > Decimal(10**12)
    assert (amounts == 0).sum() > 0
    assert (amounts * 100 % 100 != 0).sum() > 10_000
    assert {date(1700, 1, 1), date(2000, 2, 29), date(4000, 12, 31)} <= set(rows["CloseDate__c"])
    assert (
        rows["LastModifiedDate__c"]
        .is_between(datetime(2025, 12, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))
        .all()
    )


def test_names_fit_the_field_they_go_to(org: Org) -> None:
    seed(org, 1_000)
    opportunity = find_object(org, "Opportunity")
    assert opportunity is not None

    longest = source_rows(org, SOURCE)["Name__c"].str.len_chars().max()
    assert isinstance(longest, int) and longest <= opportunity.fields["Name"].length


# accounts


@pytest.mark.parametrize(("rows", "accounts"), [(0, 1), (9, 1), (200, 20), (1_005, 100)])
def test_the_crm_gets_an_account_for_ten_rows(org: Org, rows: int, accounts: int) -> None:
    made = seed(org, rows)

    kept = records(org, "Account")
    assert made.accounts == kept.height == accounts
    assert all(is_salesforce_id(text) and text.startswith("001") for text in kept["Id"])
    assert set(source_rows(org, SOURCE)["Account__c"].drop_nulls()) <= set(kept["Id"])
    assert kept[KEY].is_sorted()


def test_an_id_that_seeding_used_is_not_given_again(org: Org) -> None:
    seed(org, 200)

    assert org.new_id("001") not in set(records(org, "Account")["Id"])


def test_rows_lie_on_few_accounts_when_that_is_asked_for(org: Org) -> None:
    seed(org, 5_000, hot_parents=0.6)

    per_account = source_rows(org, SOURCE)["Account__c"].drop_nulls().value_counts(sort=True)["count"]
    assert 0.55 < per_account.head(HOT_ACCOUNTS).sum() / per_account.sum() < 0.65
    assert per_account[HOT_ACCOUNTS] < 30


def test_without_hot_parents_no_account_is_far_above_the_others(org: Org) -> None:
    seed(org, 5_000, accounts=500)

    assert source_rows(org, SOURCE)["Account__c"].value_counts(sort=True)["count"][1] < 30  # the first one is null


# what the CRM holds already


@pytest.mark.parametrize("kind", KINDS)
def test_the_crm_may_hold_a_share_of_the_rows_with_other_values(org: Org, kind: Keys) -> None:
    made = seed(org, 400, keys=kind, in_org=0.25)

    held = records(org, "Opportunity")
    both = held.join(source_rows(org, SOURCE), left_on="External_ID__c", right_on="ExternalId__c")
    assert made.in_org == held.height == both.height == 100
    assert held[KEY].is_sorted()
    assert held["Id"].n_unique() == 100
    assert (both["StageName"] != both["StageName__c"]).all()
    assert (both["Amount"] != both["Amount__c"].cast(pl.Float64)).any()
    assert set(held["AccountId"].drop_nulls()) <= set(records(org, "Account")["Id"])
    assert (held["IsWon"] == (held["StageName"] == "Closed Won")).all()


def test_seeding_again_leaves_the_opportunities_of_the_crm_alone(org: Org) -> None:
    seed(org, 100, in_org=0.5)
    before = records(org, "Opportunity")

    seed(org, 300)

    assert_frame_equal(records(org, "Opportunity"), before)
    assert set(before["AccountId"].drop_nulls()) <= set(records(org, "Account")["Id"])


# days


@settings(max_examples=25)
@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(0, 150),
    change=st.floats(0, 1),
    insert=st.floats(0, 1),
    delete=st.floats(0, 1),
)
def test_a_day_changes_adds_and_takes_away_exactly_what_it_says(
    folders: Iterator[Path], kind: Keys, rows: int, change: float, insert: float, delete: float
) -> None:
    org = Org(next(folders))
    seed(org, rows, keys=kind)
    before = source_rows(org, SOURCE)

    day = next_night(org, change=change, insert=insert, delete=delete)

    after = source_rows(org, SOURCE)
    both = before.join(after, on="ExternalId__c", suffix="_after")
    others = [name for name in SCHEMA if name != "ExternalId__c"]
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_after")) for name in others)
    changed = both.filter(differs)
    assert day.rows == after.height == rows - day.deleted + day.inserted
    assert both.height == rows - day.deleted
    assert changed.height == day.changed
    assert (changed["StageName__c"] != changed["StageName__c_after"]).all()
    assert (changed["LastModifiedDate__c"] < changed["LastModifiedDate__c_after"]).all()
    assert keys_of(org) == sorted(keys_of(org), key=lambda key: str(key).encode())
    assert len(set(folded(keys_of(org)))) == after.height
    org.close()


@pytest.mark.parametrize(("share", "changed"), [(0.0, 0), (0.001, 1), (0.02, 4), (0.5, 100), (1.0, 200)])
def test_a_share_is_that_many_rows_and_one_at_least(org: Org, share: float, changed: int) -> None:
    seed(org, 200)

    assert next_night(org, change=share).changed == changed


def test_days_follow_from_the_seed_and_differ_from_each_other(tmp_path: Path) -> None:
    one, two = Org(tmp_path / "one"), Org(tmp_path / "two")
    days = []
    for org in (one, two):
        seed(org, 1_000)
        next_night(org, change=0.1, insert=0.01)
        days.append([source_rows(org, SOURCE)])
        next_night(org, change=0.1, insert=0.01)
        days[-1].append(source_rows(org, SOURCE))

    for first, second in zip(*days, strict=True):
        assert_frame_equal(first, second)
    touched = [frame.filter(pl.col("LastModifiedDate__c") > datetime(2026, 1, 1 + n, tzinfo=UTC)) for n, frame in enumerate(days[0])]  # fmt: skip
    assert [frame.height for frame in touched] == [110, 111]
    assert set(touched[0]["ExternalId__c"]) != set(touched[1]["ExternalId__c"])
    one.close()
    two.close()


def test_a_day_moves_rows_of_more_than_one_piece(org: Org) -> None:
    seed(org, 2 * PIECE_ROWS + 10, keys="mixed", null_keys=3)

    day = next_night(org, change=0.1, insert=0.1, delete=0.5)

    keys = keys_of(org)
    named = [key for key in keys if key is not None]
    assert (day.deleted, day.inserted, len(keys)) == (PIECE_ROWS + 5, 10_001, PIECE_ROWS + 10_006)
    assert keys == [None] * (len(keys) - len(named)) + sorted(named, key=str.encode)


def test_an_org_that_was_never_seeded_has_no_next_day(org: Org) -> None:
    with pytest.raises(LookupError, match="never seeded"):
        next_night(org)


# whether it was done


def test_asking_whether_an_org_is_seeded_makes_nothing(tmp_path: Path) -> None:
    assert not is_seeded(tmp_path / "nowhere")

    assert list(tmp_path.iterdir()) == []


def test_no_rows_at_all_count_as_seeded(org: Org) -> None:
    before = is_seeded(org.folder)

    seed(org, 0)

    assert (before, is_seeded(org.folder)) == (False, True)


def test_another_source_object_counts_as_seeded_too(org: Org) -> None:
    write_source(org, "Visits__dlm", [pl.DataFrame({"Key__c": ["a"]})])

    assert is_seeded(org.folder)


def test_a_reset_org_is_not_seeded_any_more(org: Org) -> None:
    seed(org, 5)

    org.reset()

    assert not is_seeded(org.folder)
