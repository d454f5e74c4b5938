"""The org's folder: what a process may keep in memory of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sync_pipeline.simulated_org.state import Org


@pytest.fixture
def org(tmp_path: Path) -> Org:
    org = Org(tmp_path / "org")
    org.schema("CREATE TABLE IF NOT EXISTS note (text TEXT)")
    return org


def test_what_was_made_is_remembered_within_a_transaction_that_has_only_read(org: Org) -> None:
    with org.write():
        org.remembered("notes", 1, lambda: "made")

    assert org.remembered("notes", 1, lambda: "made again") == "made"


def test_what_a_transaction_wrote_is_not_remembered(org: Org) -> None:
    with org.write() as connection:
        connection.execute("INSERT INTO note VALUES ('a')")
        org.remembered("notes", 1, lambda: "made of what may never have been")

    assert org.remembered("notes", 1, lambda: "made") == "made"


def test_writing_before_a_transaction_does_not_keep_it_from_remembering(org: Org) -> None:
    with org.write() as connection:
        connection.execute("INSERT INTO note VALUES ('a')")
    with org.write():
        org.remembered("notes", 1, lambda: "made")

    assert org.remembered("notes", 1, lambda: "made again") == "made"
