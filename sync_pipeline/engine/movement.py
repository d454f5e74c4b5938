"""What the source did to its rows after they were staged, as far as counts and keys tell.

The ranges are counted once more when the org has been read. Where a count differs from what was staged, the keys of that
range are read again, without their values, and held against the staged ones: rows that came or went are named, so that
nobody takes them for lost or for proven.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from sync_pipeline.domain.plan import PlannedRange
from sync_pipeline.engine.equality import KEY_SEED, Equality
from sync_pipeline.engine.values import BLANKS
from sync_pipeline.engine.walls import Walls
from sync_pipeline.staging.comparison import Comparison, Kind, Side

INSERTED: Final = "inserted"
CHANGED: Final = "changed"
DELETED: Final = "deleted"

WORDS: Final = {Kind.ORPHAN.value: INSERTED, Kind.MISSING.value: DELETED}


def moved_keys(
    walls: Walls,
    ranges: Sequence[PlannedRange],
    staged: Callable[[PlannedRange], Iterable[pl.Series]],
    folder: Path,
    equality: Equality,
) -> Iterator[pl.DataFrame]:
    """Keys that came to these ranges or left them since their rows were staged: ``key``, ``place``, ``movement``.

    ``staged`` gives the staged keys of a range. Keys are told apart as the target tells them apart; rows without a key and
    further rows of one key are left out. In constant memory; ``folder`` is where the sides are kept meanwhile.
    """
    edges = [planned.range.through for planned in ranges[:-1] if planned.range.through is not None]
    places = [planned.place for planned in ranges]
    with Comparison(folder, memory=walls.policy.duckdb_memory) as comparison:
        for planned in ranges:
            for keys in staged(planned):
                walls.interruption.check()
                comparison.add(Side.EXPECTED, _side(keys, planned.place, equality))
            for keys in walls.data_cloud.keys(planned.range):
                walls.interruption.check()
                comparison.add(Side.PRESENT, _side(keys, planned.place, equality))
        for found in comparison.findings():
            moved = found.filter(pl.col("kind").is_in(list(WORDS)))
            inside = pl.Series([places[bisect_left(edges, key)] for key in moved["key"]], dtype=pl.UInt32)
            yield moved.select(
                "key",
                moved["place"].zip_with(moved["place"].is_not_null(), inside),
                pl.col("kind").replace_strict(WORDS, return_dtype=pl.String).alias("movement"),
            )


def _side(keys: pl.Series, place: int, equality: Equality) -> pl.DataFrame:
    trimmed = keys.str.strip_chars(BLANKS)
    known = trimmed.filter((trimmed != "").fill_null(value=False))
    return pl.DataFrame(
        {
            "key": known,
            "matched": equality.matched(known).hash(KEY_SEED),
            "digest": pl.repeat(0, len(known), dtype=pl.UInt64, eager=True),
            "place": pl.repeat(place, len(known), dtype=pl.UInt32, eager=True),
            "sent": pl.repeat(value=True, n=len(known), dtype=pl.Boolean, eager=True),
        }
    )
