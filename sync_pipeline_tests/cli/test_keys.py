"""What every verb says of a target key that rows cannot be matched by, and what trace says of a key in another spelling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sync_pipeline_tests.cli.conftest import Run
from sync_pipeline_tests.engine.things import KEY, NUMBER_KEY, TEXT_KEY, Things, things

VERBS = (("doctor",), ("plan",), ("sync",), ("reconcile",), ("trace", "a"), ("orphans",))
"""All verbs that hold the target's rows against the source's."""
REFUSED: Mapping[str, tuple[Mapping[str, Any], str, str]] = {
    "record id": (TEXT_KEY, "Id", "'Id' cannot be the key: the org gives record ids itself"),
    "no external id": (
        TEXT_KEY | {"external_id": False, "id_lookup": False},
        KEY,
        "'Key__c' is not marked External ID",
    ),
    "checkbox": (TEXT_KEY | {"type": "boolean"}, KEY, "'Key__c' is of type boolean; a key must be"),
    "picklist": (TEXT_KEY | {"type": "picklist"}, KEY, "'Key__c' is of type picklist; a key must be"),
}
UNWRITABLE: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "auto-number": (TEXT_KEY | {"auto_number": True}, "'Key__c' is an auto-number, which the org fills itself"),
    "formula": (TEXT_KEY | {"calculated": True}, "'Key__c' is a formula, which the org fills itself"),
    "read-only": (TEXT_KEY | {"createable": False}, "'Key__c' cannot be set on create by this user"),
}


@pytest.fixture
def set_up(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``things`` with SYNC_MAPPING set for the command."""
    monkeypatch.setenv("SYNC_MAPPING", str(tmp_path / "things.toml"))
    monkeypatch.setenv("SYNC_DISTRIBUTION", "none")

    def made(**how: Any) -> Any:
        return things(tmp_path, **{"fields": ("Text__c",), **how})

    return made


def fill(it: Things) -> None:
    """A row of the source that differs from the org's."""
    it.write_source({KEY: "a", "Text__c": "new"})
    key = it.sobject.fields[KEY]
    if key.createable and key.type != "boolean":  # no row can be saved by a key that is none
        it.save(pl.DataFrame({KEY: ["a"], "Text__c": ["old"]}))


@pytest.mark.parametrize("why", sorted(REFUSED))
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_a_key_that_rows_cannot_be_matched_by_is_refused_by_every_verb_alike(
    run: Run, set_up: Callable[..., Any], why: str, verb: tuple[str, ...]
) -> None:
    key, target_key, told = REFUSED[why]
    with set_up(key=key, target_key=target_key) as it:
        fill(it)
        before = it.stored()

        ran = run(*verb)

        assert (ran.code, told in ran.out + ran.err) == (2, True)
        assert "Traceback" not in ran.out + ran.err
        assert it.stored().equals(before)


@pytest.mark.parametrize("why", sorted(UNWRITABLE))
@pytest.mark.parametrize("verb", VERBS[:3], ids=lambda verb: verb[0])
def test_a_key_that_a_new_row_cannot_have_is_refused_by_whoever_writes_or_plans_to(
    run: Run, set_up: Callable[..., Any], why: str, verb: tuple[str, ...]
) -> None:
    key, told = UNWRITABLE[why]
    with set_up(key=key) as it:
        fill(it)

        ran = run(*verb)

        assert (ran.code, told in ran.out + ran.err) == (2, True)


def test_every_reason_is_named_at_once_with_the_fields_as_they_are_written(
    run: Run, set_up: Callable[..., Any]
) -> None:
    with set_up(key=TEXT_KEY | {"calculated": True}, fields=("Text__c", "Area__c", "Number__c")) as it:
        it.org.set_setting(
            "fields",
            {
                "Thing__c.Text__c": {"type": "encryptedstring"},
                "Thing__c.Area__c": {"rich_text": True},
                "Thing__c.Number__c": {"hidden": True},
            },
        )

        told = {verb: run(verb) for verb in ("doctor", "plan", "sync")}

    for ran in told.values():
        assert ran.code == 2
        for reason in (
            "'Key__c' is a formula",
            "'Text__c' is encrypted",
            "'Area__c' is rich text",
            "'Thing__c' has no field 'Number__c'",
        ):
            assert reason in ran.out + ran.err


@pytest.mark.parametrize("asked", ["10000000", "1.0E7", " 1e7 ", "10000000.00"])
def test_a_number_is_traced_in_whatever_spelling_it_is_asked_for(
    run: Run, set_up: Callable[..., Any], asked: str
) -> None:
    with set_up(key=NUMBER_KEY) as it:
        it.write_source({KEY: "10000000", "Text__c": "x"}, {KEY: "5", "Text__c": "y"})
        it.night()

        ran = run("trace", asked)

    assert ran.code == 0
    assert "staged as row" in ran.out
    assert "The org holds this row with equal values." in ran.out


def test_a_key_is_traced_in_any_letter_case_that_the_target_does_not_tell_apart(
    run: Run, set_up: Callable[..., Any]
) -> None:
    with set_up() as it:
        it.write_source({KEY: " aBc", "Text__c": "x"})
        it.night()

        ran = run("trace", "ABC")

    assert ran.code == 0
    assert "staged as row" in ran.out


def test_a_key_is_traced_in_its_own_letter_case_where_that_counts(run: Run, set_up: Callable[..., Any]) -> None:
    with set_up(key=TEXT_KEY | {"case_sensitive": True}) as it:
        it.write_source({KEY: "abc", "Text__c": "x"})
        it.night()

        assert run("trace", "abc").code == 0
        assert run("trace", "ABC").code == 1


def test_a_number_that_no_row_has_is_no_fault(run: Run, set_up: Callable[..., Any]) -> None:
    with set_up(key=NUMBER_KEY) as it:
        it.write_source({KEY: "5", "Text__c": "x"})
        it.night()

        ran = run("trace", "five")

    assert ran.code == 1
    assert "no row with this key" in ran.out
    assert "Traceback" not in ran.err
