"""The fate of each row of a part, from the three result files of its job.

Counters prove nothing and neither does ``JobComplete``: a row was saved when the list of successes names its key and the
list of failures does not. A row that no list names was not acknowledged, and may be sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

import polars as pl

from sync_pipeline.domain.errors import Unreadable
from sync_pipeline.domain.ledger import Counts, RowOutcome

NOT_ACKNOWLEDGED: Final = "NOT_ACKNOWLEDGED"
UNPROCESSED: Final = "UNPROCESSED"
UNKNOWN: Final = "UNKNOWN"
"""Code of a failure whose text has no code."""

NOT_ACKNOWLEDGED_MESSAGE: Final = "no result file of the job names the row"
UNPROCESSED_MESSAGE: Final = "the job ended before it came to the row"

ERROR: Final = (
    r"(?s)^\s*(?<code>[A-Z][A-Z0-9_]*):\s*(?<message>.*?)\s*"
    r"(?::\s*(?<column>(?:[A-Za-z]\w*(?:\s*,\s*[A-Za-z]\w*)*)?)\s*)?(?:--)?\s*$"
)
"""``sf__Error``: ``CODE:message:FIELDS --``. Messages may hold colons: fields come after the last one, or not at all.

https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/get_job_failed_results.htm
"""

SAVED: Final = pl.Schema({"key": pl.String, "id": pl.String, "created": pl.Boolean})
REFUSED: Final = pl.Schema({"key": pl.String, "error": pl.String})
LEFT: Final = pl.Schema({"key": pl.String})
Matched = Callable[[pl.Series], pl.Series]
FOREIGN_NAMED: Final = 3
"""Foreign keys that an error names."""


@dataclass(frozen=True)
class Outcomes:
    """``saved``: row, key, id, created of every row of the part, the last two null where the job did not save it.
    ``refused``: row, key, outcome, code, message, column, transient of those rows."""

    saved: pl.DataFrame
    refused: pl.DataFrame

    @property
    def counts(self) -> Counts:
        created = self.saved["created"]
        failed = int((self.refused["outcome"] == RowOutcome.FAILED).sum())
        return Counts(
            expected=self.saved.height,
            staged=self.saved.height,
            created=int(created.sum()),
            updated=int((~created).sum()),
            failed=failed,
            unprocessed=self.refused.height - failed,
        )


def outcomes_of(
    sent: pl.DataFrame,
    *,
    successes: Iterable[pl.DataFrame],
    failures: Iterable[pl.DataFrame],
    unprocessed: Iterable[pl.DataFrame],
    transient: Collection[str],
    matched: Matched = lambda keys: keys,
) -> Outcomes:
    """Gives every row of ``sent`` (row, key) its outcome. ``transient`` are patterns of failures that can pass, each held
    against ``CODE:message`` from its start; ``matched`` gives keys one text for all
    spellings that the org takes for one key.

    A key named several times counts once; one that is named both saved and failed has failed. Raises ``Unreadable``
    when a list names a key that was not sent.
    """
    saved, refused = _gathered(successes, SAVED), _gathered(failures, REFUSED)
    left = _gathered(unprocessed, LEFT).with_columns(left=pl.lit(True))
    rows, open_rows = _matched(sent, saved, refused, left)
    is_one_to_one = (
        sent["key"].n_unique() == rows.height == sent.height
        and rows["created"].count() == saved.height
        and open_rows.height == rows["created"].null_count()
        and (open_rows["error"].count(), open_rows["left"].count()) == (refused.height, left.height)
    )
    if not is_one_to_one:  # a key is doubled, in two lists, or not named as it was sent
        saved, refused, left = (_clean(listed, sent, matched) for listed in (saved, refused, left))
        rows, open_rows = _matched(sent, saved, refused, left)
    return Outcomes(saved=rows, refused=_explained(open_rows, transient))


def _matched(
    sent: pl.DataFrame, saved: pl.DataFrame, refused: pl.DataFrame, left: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All rows with what the list of successes says, and those it does not count for with what the others say."""
    if refused.height:
        saved = saved.filter(~pl.col("key").is_in(refused["key"].implode()))
    rows = sent.join(saved, on="key", how="left", maintain_order="left")
    open_rows = rows.filter(pl.col("created").is_null()).select("row", "key")
    return rows, open_rows.join(refused, on="key", how="left").join(left, on="key", how="left")


def _gathered(frames: Iterable[pl.DataFrame], schema: pl.Schema) -> pl.DataFrame:
    selected = [frame.select(pl.col(name).cast(kind) for name, kind in schema.items()) for frame in frames]
    return pl.concat([pl.DataFrame(schema=schema), *selected])


def _clean(named: pl.DataFrame, sent: pl.DataFrame, matched: Matched) -> pl.DataFrame:
    """What one list says of the keys that were sent, each of them once."""
    named = named.filter(pl.col("key") != "").unique("key", keep="last", maintain_order=True)
    foreign = named.join(sent, on="key", how="anti")
    if foreign.height == 0:
        return named
    echoed = _echoed(foreign, sent, matched)
    return pl.concat([named.join(sent, on="key", how="semi"), echoed]).unique("key", keep="first", maintain_order=True)


def _echoed(foreign: pl.DataFrame, sent: pl.DataFrame, matched: Matched) -> pl.DataFrame:
    """Foreign keys that are another spelling of one sent key, or differ from it in letter case or outer blanks only,
    under the key that was sent."""

    def folded(keys: pl.DataFrame) -> pl.Series:
        return matched(keys["key"].str.strip_chars().str.to_lowercase()).alias("folded")

    keys = sent.select("key").unique("key")
    keys = keys.with_columns(folded(keys)).unique("folded", keep="none")
    found = foreign.with_columns(folded(foreign)).join(
        keys, on="folded", how="left", suffix="_sent", maintain_order="left"
    )
    unknown = found.filter(pl.col("key_sent").is_null())["key"]
    if len(unknown):
        raise Unreadable(
            f"The job's results name {len(unknown)} keys that its part does not hold: "
            f"{', '.join(unknown.head(FOREIGN_NAMED).to_list())}.",
            hint="Another job's results were read, or the org rewrites keys (a trigger or a flow). Compare both.",
        )
    return found.with_columns(pl.col("key_sent").alias("key")).select(foreign.columns)


def _explained(rows: pl.DataFrame, transient: Collection[str]) -> pl.DataFrame:
    """Rows (row, key, error, left) that were not saved, with the reason."""
    parts = pl.col("error").str.extract_groups(ERROR)
    is_failed = pl.col("error").is_not_null()
    code, message, column = (parts.struct.field(name) for name in ("code", "message", "column"))
    return rows.select(
        "row",
        "key",
        pl.when(is_failed).then(pl.lit(RowOutcome.FAILED.value)).otherwise(pl.lit(RowOutcome.UNPROCESSED.value))
        .alias("outcome"),
        pl.when(is_failed).then(code.fill_null(UNKNOWN))
        .when(pl.col("left")).then(pl.lit(UNPROCESSED))
        .otherwise(pl.lit(NOT_ACKNOWLEDGED))
        .alias("code"),
        pl.when(is_failed).then(message.fill_null(pl.col("error").str.strip_chars()))
        .when(pl.col("left")).then(pl.lit(UNPROCESSED_MESSAGE))
        .otherwise(pl.lit(NOT_ACKNOWLEDGED_MESSAGE))
        .alias("message"),
        column.fill_null("").alias("column"),
    ).with_columns(
        transient=(pl.col("outcome") == RowOutcome.UNPROCESSED.value)
        | pl.concat_str("code", pl.lit(":"), "message").str.contains(f"^(?:{'|'.join(transient)})")
    )  # fmt: skip
