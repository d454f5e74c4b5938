"""What it costs to keep rows before they are sent: staging and ledger beyond rendering the CSV, a page's commit, order.

``python -m benchmarks.staging ROWS FOLDER`` takes one range of 12 columns through its whole life on the disk, without any
org: pages, parts, outcomes. No cost of reading or sending is in it. Every durable write is one, as in a night.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, Part
from benchmarks.process import run
from benchmarks.sheet import Sheet

if TYPE_CHECKING:
    import polars as pl

RANGE_ROWS_MAX = 200_000
PAGE_ROWS = 10_000
PART_ROWS = 100_000
COLUMNS = 12
ROWS_PER_PARENT = 10
KEY = "External_ID__c"


def play(bench: Bench) -> Sheet:
    rows = min(bench.rows, RANGE_ROWS_MAX)
    place = bench.place("staging")
    told = run(["-m", "benchmarks.staging", str(rows), str(place)], folder=place)
    sheet: Sheet = json.loads(told.out)
    return sheet


def figures(sheet: Sheet) -> dict[str, float]:
    commits = sheet["page commits"]
    return {
        "staging_cpu": sheet["beyond rendering the CSV"]["CPU µs/row"],
        "commit_p50": commits["p50 ms"],
        "commit_max": commits["max ms"],
    }


PART = Part("staging", f"One range of {COLUMNS} columns on the disk", play, figures)


@dataclass
class Ledger:
    """CPU and wall seconds by what was done."""

    cpu: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.cpu[what] = self.cpu.get(what, 0.0) + time.process_time() - cpu
        self.wall[what] = self.wall.get(what, 0.0) + time.perf_counter() - wall


def rows_of(count: int) -> pl.DataFrame:
    """Typed rows as they are staged: the key and 11 fields, parents in no order."""
    import polars as pl

    number = pl.int_range(count, eager=True)
    mixed = (number * 2_654_435_761) % max(count // ROWS_PER_PARENT, 1)
    frame = pl.DataFrame({"n": number, "parent": mixed})
    text = pl.col("n").cast(pl.String)
    return frame.select(
        key="externalOpp" + text.str.zfill(7),
        Name='Globex licences, "phase" ' + text,
        StageName=pl.lit("Qualification"),
        Amount=(pl.col("n") * 7_919 % 5_000_000).cast(pl.Decimal(38, 2)),
        CloseDate=pl.date(2026, 1, 1) + pl.duration(days=pl.col("n") % 365),
        AccountId="0015e0000" + pl.col("parent").cast(pl.String).str.zfill(9),
        Description="Müller, Söhne & Co. " + text + " will call back about the offer of last week",
        NextStep=pl.when(pl.col("n") % 3 > 0).then(pl.lit("Send the contract")),
        LeadSource=pl.lit("Partner referral"),
        Type=pl.lit("Existing customer"),
        Probability=(pl.col("n") % 101).cast(pl.Decimal(38, 0)),
        IsPrivate=pl.col("n") % 2 == 0,
    )


def live(frame: pl.DataFrame, folder: Path, mapping: Any, *, group_by: str | None) -> tuple[Ledger, list[float]]:
    """The whole life of a range on the disk: what each thing took, and the seconds of each page's commit."""
    import polars as pl

    from sync_pipeline.domain.ledger import Cursor
    from sync_pipeline.engine.values import REJECTIONS
    from sync_pipeline.salesforce.bulk import render_csv
    from sync_pipeline.staging.catalogues import Catalogues
    from sync_pipeline.staging.range_store import RangeStore

    ledger, commits = Ledger(), []
    schema = {name: dtype for name, dtype in frame.schema.items() if name != "key"}
    with ledger.doing("open"):
        catalogues = Catalogues(lambda: nullcontext(folder / "spill"))
        store = RangeStore.open(folder, schema, catalogues)
    for start in range(0, frame.height, PAGE_ROWS):
        page = frame.slice(start, PAGE_ROWS)
        began = time.perf_counter()
        with ledger.doing("pages"):
            store.add_page(page, Cursor(page["key"][-1], "query", start), pl.DataFrame(schema=REJECTIONS))
        commits.append(time.perf_counter() - began)
    with ledger.doing("order and parts"):
        store.finish_reading(frame.height)
        parts = store.cut_round(
            which="all", group_by=group_by, start_fraction=0.3, part_rows=PART_ROWS, part_bytes=90_000_000,
            heavy_rows=PAGE_ROWS, serial=False, render=lambda rows, path: render_csv(rows, mapping, path),
        )  # fmt: skip
    results = [pl.read_csv(store.part_file(part), columns=[0]).rename({KEY: "key"}) for part in parts]
    for part, keys in zip(parts, results, strict=True):
        saved = keys.with_columns(id=pl.lit("0065e00000abcdeAAA"), created=pl.lit(True))
        with ledger.doing("outcomes"):
            store.record_outcomes(
                part, f"job {part.number}", successes=[saved], failures=[], unprocessed=[], transient=()
            )
    with ledger.doing("close"):
        store.close()
    return ledger, commits


def rendered(frame: pl.DataFrame, folder: Path, mapping: Any) -> Ledger:
    """The same rows as the same CSV files, and nothing else."""
    from sync_pipeline.salesforce.bulk import render_csv

    ledger = Ledger()
    for start in range(0, frame.height, PART_ROWS):
        with ledger.doing("rendering"):
            render_csv(frame.slice(start, PART_ROWS), mapping, folder / f"{start}.csv")
    return ledger


def main(rows: int, folder: Path) -> None:
    """The program that keeps a range."""
    from sync_pipeline.domain.mapping import FieldMapping, FieldType, Mapping, NullPolicy

    frame = rows_of(rows)
    kinds = {"AccountId": FieldType.REFERENCE, "Amount": FieldType.NUMBER, "CloseDate": FieldType.DATE}
    kinds |= {"Probability": FieldType.NUMBER, "IsPrivate": FieldType.BOOLEAN}
    fields = tuple(
        FieldMapping(name, name, kinds.get(name, FieldType.TEXT), NullPolicy.CLEAR)
        for name in frame.columns if name != "key"
    )  # fmt: skip
    mapping = Mapping("Source", "key", "Opportunity", KEY, fields, group_by="AccountId")
    live(frame.head(PAGE_ROWS), folder / "warm", mapping, group_by=None)
    plain = rendered(frame, folder, mapping)
    staged, commits = live(frame, folder / "staged", mapping, group_by=None)
    ordered, _ = live(frame, folder / "ordered", mapping, group_by="AccountId")

    def row(cpu: float, wall: float) -> dict[str, float]:
        return {"CPU µs/row": cpu / rows * 1e6, "wall µs/row": wall / rows * 1e6}

    rendering = plain.cpu["rendering"], plain.wall["rendering"]
    whole = sum(staged.cpu.values()), sum(staged.wall.values())
    sheet: Sheet = {"rendering the CSV": row(*rendering)}
    sheet |= {f"staging: {what}": row(staged.cpu[what], staged.wall[what]) for what in staged.cpu}
    sheet["beyond rendering the CSV"] = row(whole[0] - rendering[0], whole[1] - rendering[1])
    what = "order and parts"
    sheet["parent order"] = row(ordered.cpu[what] - staged.cpu[what], ordered.wall[what] - staged.wall[what])
    sheet["page commits"] = {"p50 ms": median(commits) * 1000, "max ms": max(commits) * 1000}
    print(json.dumps(sheet))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
