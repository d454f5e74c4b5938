"""Salesforce ids: 15 characters in which letter case counts, and 3 more that say which of them are capitals.

Knowledge article "Convert 15 digit IDs to 18 character IDs":
https://help.salesforce.com/s/articleView?id=000385585&type=1
"""

from __future__ import annotations

from typing import Final

import polars as pl

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SUFFIX_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
POD: Final = "5e"
"""Fourth and fifth character: the instance on which a record was made."""
DIGITS: Final = 9
"""Base-62 digits of the running number; the character between them and the pod is reserved and always 0."""


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


def salesforce_ids(prefix: str, numbers: pl.Series) -> pl.Series:
    """``salesforce_id`` for many numbers at once."""
    letters = pl.Series(list(ALPHABET))
    capitals = pl.Series([letter.isupper() for letter in ALPHABET]).cast(pl.UInt32)
    digits = [(numbers // 62**place) % 62 for place in range(DIGITS - 1, -1, -1)]
    # The second group of five is the reserved 0 and four digits, the third group the other five.
    middle = sum(capitals.gather(digits[place]) * (1 << (place + 1)) for place in range(4))
    last = sum(capitals.gather(digits[place]) * (1 << (place - 4)) for place in range(4, 9))
    suffixes = pl.Series(list(SUFFIX_ALPHABET))
    head = f"{prefix}{POD}0"
    return (
        pl.DataFrame(
            [letters.gather(digit).alias(f"d{place}") for place, digit in enumerate(digits)]
            + [suffixes.gather(middle).alias("middle"), suffixes.gather(last).alias("last")]
        )
        .select(
            pl.concat_str(
                pl.lit(head),
                *(f"d{place}" for place in range(DIGITS)),
                pl.lit(checksum(head + "0" * DIGITS)[0]),
                "middle",
                "last",
            )
        )
        .to_series()
        .alias("id")
    )
