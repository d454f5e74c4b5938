"""Salesforce ids: 15 characters in which letter case counts, and 3 more that say which of them are capitals.

Knowledge article "Convert 15 digit IDs to 18 character IDs":
https://help.salesforce.com/s/articleView?id=000385585&type=1
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Final

import polars as pl

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SUFFIX_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
POD: Final = "5e"
"""Fourth and fifth character: the instance on which a record was made."""
DIGITS: Final = 9
"""Base-62 digits of the running number; the character between them and the pod is reserved and always 0."""
GROUP: Final = len(ALPHABET) ** 5
"""Numbers that differ in the last five digits alone, which have a letter of the suffix of their own."""


def salesforce_id(prefix: str, number: int) -> str:
    """The 18-character id of the object type with that three-character key prefix, e.g. ``001`` for accounts."""
    digits = []
    for _ in range(DIGITS):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    short = f"{prefix}{POD}0{''.join(reversed(digits))}"
    return short + checksum(short)


def checksum(short_id: str) -> str:
    """The three characters that make a 15-character id independent of letter case."""
    suffix = ""
    for start in (0, 5, 10):
        bits = sum(1 << place for place, letter in enumerate(short_id[start : start + 5]) if "A" <= letter <= "Z")
        suffix += SUFFIX_ALPHABET[bits]
    return suffix


def is_salesforce_id(text: str) -> bool:
    """Whether the text is a well-formed id of 15 characters, or of 18 with the right suffix (in any letter case)."""
    if not (text.isascii() and text.isalnum()):
        return False
    return len(text) == 15 or (len(text) == 18 and checksum(text[:15]) == text[15:].upper())


def whole_id(text: str) -> str | None:
    """The 18-character id that an id of 15 or 18 characters means; of 18, letter case does not count."""
    if len(text) == 15 and is_salesforce_id(text):
        return text + checksum(text)
    if len(text) != 18 or not (text.isascii() and text.isalnum()):
        return None
    letters = []
    for group, mark in enumerate(text[15:].upper()):
        bits = SUFFIX_ALPHABET.find(mark)
        for place, letter in enumerate(text[group * 5 : group * 5 + 5]):
            letters.append(letter.upper() if bits >> place & 1 else letter.lower())
    short = "".join(letters)
    return short + text[15:].upper() if checksum(short) == text[15:].upper() else None


def salesforce_ids(prefix: str, numbers: pl.Series) -> pl.Series:
    """``salesforce_id`` for many numbers at once. Only their last five digits, the third group, are told one by one."""
    heads, tails = numbers // GROUP, numbers % GROUP
    whole = {head: salesforce_id(prefix, head * GROUP) for head in heads.unique()}
    pairs, capitals = _pairs()
    first, left, right = tails // len(pairs) ** 2, tails // len(pairs) % len(pairs), tails % len(pairs)
    # A number below 62 is the second half of its pair: its capital is bit 1 there and bit 0 of the group.
    bits = capitals.gather(first) // 2 + capitals.gather(left) * 2 + capitals.gather(right) * 8
    return pl.select(
        pl.concat_str(
            heads.replace_strict({head: found[:10] for head, found in whole.items()}, return_dtype=pl.String),
            pl.Series(list(ALPHABET)).gather(first),
            pairs.gather(left),
            pairs.gather(right),
            heads.replace_strict({head: found[15:17] for head, found in whole.items()}, return_dtype=pl.String),
            pl.Series(list(SUFFIX_ALPHABET)).gather(bits),
        ).alias("id")
    ).to_series()


@cache
def _pairs() -> tuple[pl.Series, pl.Series]:
    """Two digits as they are written, for each number that two can hold, and the bits of their capitals."""
    listed = list(product(ALPHABET, repeat=2))
    bits = [first.isupper() + 2 * second.isupper() for first, second in listed]
    return pl.Series(["".join(pair) for pair in listed]), pl.Series(bits, dtype=pl.UInt32)
