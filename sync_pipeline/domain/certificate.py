"""The proof document of a night, and the chain that its successors make of it.

Each certificate carries the hash of its contents and, among the contents, the hash of the one before it. Whoever changes
one must change all that follow; a signature, where a key is set, keeps him from that too. A certificate that is gone is
named by its successor.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sync_pipeline.domain.errors import StateError
from sync_pipeline.domain.secret import Secret

METHOD: Final = "HMAC-SHA256"
KEY_NAME_LENGTH: Final = 8
"""Hex digits of a key's hash by which a signature says which key made it."""
NEEDED: Final = ("number", "plan_id", "issued_at", "previous", "chain_starts_at", "markdown_sha256")
"""What the chain needs of the contents."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Made with the key of that name; ``value`` in hex."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """``contents`` is JSON. Raises ``StateError`` when it lacks what the chain needs."""

    contents: Mapping[str, Any]
    sha256: str
    signature: Signature | None = None

    def __post_init__(self) -> None:
        missing = [name for name in NEEDED if name not in self.contents]
        is_numbered = isinstance(self.contents.get("number"), int)
        if missing or not is_numbered or not isinstance(self.contents["previous"], dict | None):
            raise StateError(f"A certificate without {', '.join(missing) or 'a number'}.", hint="Was its file changed?")

    @property
    def number(self) -> int:
        return int(self.contents["number"])

    @property
    def plan_id(self) -> str:
        return str(self.contents["plan_id"])

    @property
    def issued_at(self) -> datetime:
        return datetime.fromisoformat(str(self.contents["issued_at"]))

    @property
    def previous(self) -> Mapping[str, Any] | None:
        """Of the one before it: ``number``, ``plan_id`` and ``sha256``; ``None`` for the first of all."""
        previous: Mapping[str, Any] | None = self.contents["previous"]
        return previous

    @property
    def is_whole(self) -> bool:
        """The hash is that of the contents."""
        return hmac.compare_digest(self.sha256, digest(self.contents))

    def is_signed_by(self, keys: Sequence[Secret]) -> bool:
        """One of the keys made the signature for these contents."""
        if self.signature is None:
            return False
        made = [_signed(self.contents, key).value for key in keys]
        return any(hmac.compare_digest(self.signature.value, value) for value in made)

    def to_json(self) -> dict[str, Any]:
        signature = self.signature
        return {
            "contents": dict(self.contents),
            "sha256": self.sha256,
            "signature": {"method": METHOD, "key": signature.key, "value": signature.value} if signature else None,
        }

    @staticmethod
    def from_json(text: str) -> Certificate:
        """Raises ``StateError`` for anything that is no certificate."""
        try:
            document = json.loads(text)
            signature = document["signature"]
            return Certificate(
                contents=document["contents"],
                sha256=str(document["sha256"]),
                signature=Signature(str(signature["key"]), str(signature["value"])) if signature else None,
            )
        except (ValueError, TypeError, KeyError) as error:
            raise StateError(
                f"It is no certificate ({type(error).__name__}: {error}).", hint="Was it changed?"
            ) from None


def sealed(contents: Mapping[str, Any], key: Secret | None) -> Certificate:
    """The certificate with these contents, signed if there is a key."""
    # What is not JSON of its own accord would read otherwise than it was written.
    plain: dict[str, Any] = json.loads(canonical(contents))
    return Certificate(plain, digest(plain), _signed(plain, key) if key is not None else None)


def canonical(contents: Mapping[str, Any]) -> bytes:
    """The one way in which contents are written to be hashed: JSON, names in order, no blanks, ASCII."""
    return json.dumps(contents, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode(
        "ascii"
    )


def digest(contents: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(contents)).hexdigest()


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _signed(contents: Mapping[str, Any], key: Secret) -> Signature:
    secret = key.reveal().encode()
    name = hashlib.sha256(secret).hexdigest()[:KEY_NAME_LENGTH]
    return Signature(name, hmac.new(secret, canonical(contents), hashlib.sha256).hexdigest())


def broken_links(chain: Sequence[Certificate], *, keys: Sequence[Secret]) -> list[str]:
    """Everything that is wrong with certificates that are here, in their order, a sentence each; empty when nothing is.

    Without ``keys`` signatures are not looked at.
    """
    problems: list[str] = []
    is_signed = False
    for before, certificate in zip([None, *chain], chain, strict=False):
        named = f"Certificate {certificate.number} of night {certificate.plan_id}"
        if not certificate.is_whole:
            problems.append(f"{named} was changed: its hash is not that of its contents.")
        elif keys and certificate.signature is not None and not certificate.is_signed_by(keys):
            problems.append(f"{named} was changed, or signed with a key that SYNC_CERTIFICATE_KEY does not hold.")
        elif keys and is_signed and certificate.signature is None:
            problems.append(f"{named} has no signature, though an earlier one has.")
        is_signed = is_signed or certificate.signature is not None
        problems += _gap(before, certificate)
    if chain:
        first, starts_at = chain[0], chain[-1].contents["chain_starts_at"]
        if first.number > starts_at:
            missing = (
                _before(first) if first.number - 1 == starts_at else f"Certificates {starts_at} to {first.number - 1}"
            )
            problems.append(f"{missing} {'is' if first.number - 1 == starts_at else 'are'} missing.")
    return problems


def _gap(before: Certificate | None, certificate: Certificate) -> list[str]:
    """What lies between a certificate and the one that is here before it."""
    if before is None:
        return []
    if certificate.number == before.number:
        return [f"There are two certificates {certificate.number}."]
    if certificate.number > before.number + 2:
        return [f"Certificates {before.number + 1} to {certificate.number - 1} are missing."]
    if certificate.number == before.number + 2:
        return [f"{_before(certificate)} is missing."]
    if certificate.previous is None or certificate.previous.get("sha256") != before.sha256:
        named = f"Certificate {before.number} of night {before.plan_id}"
        return [f"{named} was changed: certificate {certificate.number} followed another one."]
    return []


def _before(certificate: Certificate) -> str:
    """The one before it, as it names it."""
    night = certificate.previous.get("plan_id") if certificate.previous is not None else None
    return f"Certificate {certificate.number - 1}{f' of night {night}' if night else ''}"
