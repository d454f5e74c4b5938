"""The chain of certificates: nothing in it can be changed or taken away unnoticed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.domain.certificate import Certificate, broken_links, canonical, sealed
from sync_pipeline.domain.errors import StateError
from sync_pipeline.domain.secret import Secret

KEY, OTHER = Secret("a key of the house 1"), Secret("a key of the house 2")


def chain(length: int, *, key: Secret | None = None, starts_at: int = 1) -> list[Certificate]:
    """Certificates 1, 2, …, of which those before ``starts_at`` are let go."""
    made: list[Certificate] = []
    for number in range(1, length + 1):
        before = made[-1] if made else None
        contents = {
            "number": number,
            "plan_id": f"night-{number}",
            "issued_at": f"2026-01-{number:02d}T02:00:00+00:00",
            "previous": {"number": before.number, "plan_id": before.plan_id, "sha256": before.sha256}
            if before
            else None,
            "chain_starts_at": starts_at,
            "markdown_sha256": "",
            "verdict": "reconciled",
            "rows": 100 + number,
        }
        made.append(sealed(contents, key))
    return made[starts_at - 1 :]


def altered(certificate: Certificate, **values: Any) -> Certificate:
    """The same file with other contents and the old hash, as somebody leaves it who edits it by hand."""
    return Certificate({**certificate.contents, **values}, certificate.sha256, certificate.signature)


def forged(certificate: Certificate, key: Secret | None = None, **values: Any) -> Certificate:
    """Other contents, sealed anew."""
    return sealed({**certificate.contents, **values}, key)


def changed(certificates: Sequence[Certificate], place: int, certificate: Certificate | None) -> list[Certificate]:
    """The chain with another certificate in that place, or with none."""
    return [*certificates[:place], *([certificate] if certificate else []), *certificates[place + 1 :]]


@given(st.integers(0, 8), st.integers(0, 7), st.sampled_from([None, KEY]))
def test_a_chain_that_nobody_touched_is_whole(length: int, released: int, key: Secret | None) -> None:
    made = chain(length, key=key, starts_at=min(released, max(length - 1, 0)) + 1)

    assert broken_links(made, keys=[KEY]) == []


@given(st.data())
def test_any_certificate_that_is_changed_taken_away_or_written_anew_is_noticed(data: st.DataObject) -> None:
    length = data.draw(st.integers(2, 8))
    made = chain(length)
    # The newest one has nobody behind it: the book and the signature watch over that.
    place = data.draw(st.integers(0, length - 2))
    damage = data.draw(st.sampled_from(["edited", "forged", "gone"]))
    other = {"edited": altered(made[place], rows=1), "forged": forged(made[place], rows=1), "gone": None}[damage]

    problems = broken_links(changed(made, place, other), keys=[])

    assert len(problems) == 1
    assert f"ertificate {place + 1} of night night-{place + 1}" in problems[0]
    assert ("is missing" in problems[0]) == (damage == "gone")


def test_the_newest_certificate_that_is_written_anew_is_noticed_by_its_signature() -> None:
    made = chain(3, key=KEY)

    assert broken_links(changed(made, 2, forged(made[2], OTHER, rows=1)), keys=[KEY]) == [
        "Certificate 3 of night night-3 was changed, or signed with a key that SYNC_CERTIFICATE_KEY does not hold."
    ]
    assert broken_links(changed(made, 2, forged(made[2], None, rows=1)), keys=[KEY]) == [
        "Certificate 3 of night night-3 has no signature, though an earlier one has."
    ]


def test_a_signature_of_an_earlier_key_stays_good() -> None:
    assert broken_links(chain(2, key=OTHER), keys=[KEY, OTHER]) == []


def test_without_a_key_signatures_are_not_looked_at() -> None:
    assert broken_links(chain(2, key=OTHER), keys=[]) == []


def test_several_certificates_in_a_row_that_are_gone_are_named_by_their_numbers() -> None:
    made = chain(6)

    assert broken_links([made[0], *made[4:]], keys=[]) == ["Certificates 2 to 4 are missing."]
    assert broken_links(made[3:], keys=[]) == ["Certificates 1 to 3 are missing."]
    assert broken_links(made[1:], keys=[]) == ["Certificate 1 of night night-1 is missing."]


def test_what_retention_has_let_go_is_not_missed_and_what_followed_is() -> None:
    made = chain(6, starts_at=3)

    assert broken_links(made, keys=[]) == []
    assert broken_links(made[1:], keys=[]) == ["Certificate 3 of night night-3 is missing."]


def test_one_number_given_twice_is_noticed() -> None:
    first, second = chain(2)

    assert "There are two certificates 2." in broken_links([first, second, second], keys=[])


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    )
)
def test_contents_are_hashed_alike_however_often_they_are_written_and_read(values: dict[str, Any]) -> None:
    made = sealed({**chain(1)[0].contents, "more": values}, KEY)

    read = Certificate.from_json(json.dumps(made.to_json(), indent=2))

    assert read == made
    assert read.is_whole and read.is_signed_by([KEY])
    assert canonical(read.contents) == canonical(made.contents)


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[]", "{}", '{"contents": {}, "sha256": "", "signature": null}', '{"contents": 1, "sha256": "x", "signature": null}'],
)  # fmt: skip
def test_what_is_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(StateError):
        Certificate.from_json(text)


def test_no_key_is_ever_shown() -> None:
    made = sealed(chain(1)[0].contents, KEY)

    assert KEY.reveal() not in json.dumps(made.to_json()) + repr(made)
