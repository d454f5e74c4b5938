"""Ids of Salesforce, one by one and many at once."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.simulated_org.identifiers import DIGITS, is_salesforce_id, salesforce_id, salesforce_ids

NUMBERS = st.integers(1, DIGITS).flatmap(lambda digits: st.integers(0, 62**digits - 1))


@given(st.lists(NUMBERS, max_size=30))
def test_many_ids_at_once_are_those_of_one_number_each(numbers: list[int]) -> None:
    found = salesforce_ids("006", pl.Series(numbers, dtype=pl.Int64)).to_list()

    assert found == [salesforce_id("006", number) for number in numbers]
    assert all(is_salesforce_id(text) for text in found)
