"""The verb certificate: it prints the proof of a night, and ends with 1 when any proof is missing or was changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sync_pipeline_tests.cli.conftest import Run


def certificates(home: Path, ending: str = "json") -> list[Path]:
    return sorted((home / "certificates").glob(f"*.{ending}"))


@pytest.fixture
def two_nights(run: Run) -> list[str]:
    """Plan ids of two nights over 20 rows."""
    run("org", "seed", "--rows", "20")
    return [run("sync", "--json").document["plan_id"] for _ in range(2)]


def test_the_newest_certificate_is_printed_and_the_chain_is_whole(run: Run, two_nights: list[str]) -> None:
    ran = run("certificate")

    assert ran.code == 0
    assert ran.out.startswith("# Certificate 2: reconciled")
    assert two_nights[1] in ran.out
    assert "The chain of 2 certificates is whole." in ran.out


def test_the_certificate_of_an_earlier_night_is_printed_by_its_plan_id(run: Run, two_nights: list[str]) -> None:
    ran = run("certificate", two_nights[0])

    assert (ran.code, ran.out.startswith("# Certificate 1: reconciled")) == (0, True)


def test_as_json_it_is_one_document_with_its_seal(run: Run, two_nights: list[str], home: Path) -> None:
    document = run("certificate", "--json").document

    assert document["certificate"]["contents"]["plan_id"] == two_nights[1]
    assert len(document["certificate"]["sha256"]) == 64
    assert document["chain"] == {"certificates": 2, "signed": 0, "is_whole": True, "problems": [], "notes": []}


def test_it_asks_no_org(run: Run, two_nights: list[str], home: Path) -> None:
    run("org", "reset", "--yes")

    assert run("certificate").code == 0


@pytest.mark.parametrize("damage", ["changed", "missing", "page"])
def test_a_certificate_of_any_night_that_is_changed_or_missing_ends_with_1_and_is_named(
    run: Run, two_nights: list[str], home: Path, damage: str
) -> None:
    first, page = certificates(home)[0], certificates(home, "md")[0]
    match damage:
        case "changed":
            first.write_text(first.read_text().replace('"failed": 0', '"failed": 1'))
        case "missing":
            first.unlink()
        case _:
            page.write_text("All is well.\n")

    shown, document = run("certificate"), run("certificate", "--json")

    assert (shown.code, document.code) == (1, 1)
    (problem,) = document.document["chain"]["problems"]
    assert problem in shown.out
    assert "ertificate 1" in problem
    assert two_nights[0] in problem or page.name in problem


def test_a_signature_is_checked_with_the_key_and_not_without_it(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_CERTIFICATE_KEY", "the-first-key-of-all")
    run("org", "seed", "--rows", "5")
    run("sync")
    signed = run("certificate", "--json").document["chain"]
    monkeypatch.setenv("SYNC_CERTIFICATE_KEY", "a-newer-key-of-the-house the-first-key-of-all")
    rotated = run("certificate")
    monkeypatch.setenv("SYNC_CERTIFICATE_KEY", "somebody-elses-key")
    stranger = run("certificate")
    monkeypatch.delenv("SYNC_CERTIFICATE_KEY")
    unchecked = run("certificate")

    assert (signed["signed"], signed["is_whole"]) == (1, True)
    assert (rotated.code, stranger.code, unchecked.code) == (0, 1, 0)
    assert "signed with a key that SYNC_CERTIFICATE_KEY does not hold" in stranger.out
    assert "were not checked: SYNC_CERTIFICATE_KEY is not set" in unchecked.out


def test_before_the_first_verdict_there_is_nothing_to_show(run: Run, home: Path) -> None:
    ran = run("certificate")

    assert ran.code == 1
    assert "There is no certificate yet" in ran.out
    assert not home.exists()


def test_a_night_that_nobody_knows_has_no_certificate(run: Run, two_nights: list[str]) -> None:
    ran = run("certificate", "20200101T000000.000000Z")

    assert ran.code == 1
    assert "There is no night 20200101T000000.000000Z." in ran.out
