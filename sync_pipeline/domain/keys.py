"""Ranges of keys: ``after < key <= through``, compared as Data Cloud compares text.

Data Cloud orders text by its UTF-8 bytes, which is the order of Python's own ``str`` comparison (code points). All
arithmetic on ranges is in this file, because every one of the earlier solutions lost or doubled rows at an edge.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from itertools import pairwise

LABEL_LENGTH = 11
"""Characters of the upper bound that are shown in a partition key."""
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?\Z")
EXACT = Context(prec=1_000)
"""Rounds no number that a key may hold."""


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys with ``after < key <= through``; ``None`` means unbounded on that side.

    Raises ``ValueError`` when the bounds leave no room for a key or are not valid text.
    """

    after: str | None = None
    through: str | None = None

    def __post_init__(self) -> None:
        for bound in (self.after, self.through):
            if bound is not None:
                bound.encode("utf-8")  # a lone surrogate has no UTF-8 form, so the source cannot order it
        if self.after is not None and self.through is not None and not self.after < self.through:
            raise ValueError(f"a range needs after < through, got {self.after!r} and {self.through!r}")

    def __contains__(self, key: str) -> bool:
        above = self.after is None or self.after < key
        return above and (self.through is None or key <= self.through)

    def overlaps(self, other: KeyRange) -> bool:
        """Some key can belong to both."""
        starts_in_time = self.after is None or other.through is None or self.after < other.through
        return starts_in_time and (other.after is None or self.through is None or other.after < self.through)

    @property
    def is_first(self) -> bool:
        """The range without a lower bound; rows with a null key belong to it."""
        return self.after is None

    def rest(self, cursor: str | None) -> KeyRange | None:
        """What remains of the range once every key up to ``cursor`` is staged; ``None`` when nothing can remain."""
        if cursor is None:
            return self
        if cursor not in self:
            raise ValueError(f"the cursor {cursor!r} lies outside of {self}")
        return None if cursor == self.through else KeyRange(cursor, self.through)

    @property
    def partition(self) -> str:
        """The partition key: ``<label>-<digest>``, letters, digits, ``_`` and ``-``, at most 20 characters.

        Equal bounds give an equal key on any night. It never begins with ``-``: a command would take it for an option.
        """
        label = "end" if self.through is None else re.sub(r"[^A-Za-z0-9_-]|\A-", "_", self.through[-LABEL_LENGTH:])
        bounds = json.dumps([self.after, self.through], ensure_ascii=False, separators=(",", ":"))
        return f"{label}-{hashlib.sha256(bounds.encode()).hexdigest()[:8]}"

    def __str__(self) -> str:
        return f"{'start' if self.after is None else self.after}..{'end' if self.through is None else self.through}"


def cover(boundaries: Sequence[str]) -> tuple[KeyRange, ...]:
    """Ranges that hold every possible key exactly once, cut at ``boundaries``.

    A boundary is the last key of its range. The first range has no lower bound and the last no upper one, so keys
    below the smallest and above the largest boundary are never outside of the plan. Raises ``ValueError`` when the
    boundaries are not strictly ascending.
    """
    edges: list[str | None] = [None, *boundaries, None]
    return tuple(KeyRange(after, through) for after, through in pairwise(edges))


def plain_number(text: str) -> str | None:
    """A number without an exponent, a plus sign or zeros that say nothing: ``10000000`` for ``1.0E7``.

    ``None`` for a text that is no number of ASCII digits.
    """
    if not NUMBER.match(text):
        return None
    number = Decimal(text)
    return format(number.normalize(EXACT), "f") if number else "0"
