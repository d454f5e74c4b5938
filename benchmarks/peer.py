"""Beside simple-salesforce: the same CSV into the same org and its results back, against our loading half alone.

``python -m benchmarks.peer BASE_URL CSV FOLDER`` is the peer: ``SFBulk2Handler`` with its own defaults, but for the pause
between two looks at a job, which is 5 s by default. It keeps the three result files of each job in the folder.
``python -m benchmarks.peer`` is ours: the ranges of a staged night go through their ``Loader``, as in a night but without
what comes before and after. It gives every row its outcome besides, and keeps its ledger.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks.bench import MEGABYTE, Bench, Part
from benchmarks.org import calls
from benchmarks.process import Failed, Run, run
from benchmarks.sheet import Row, Sheet

ROWS_MAX = 1_000_000
"""One upload of less than 100 MB. The peer cuts a larger file by an estimate without the quotes, and is refused."""
LOOK_SECONDS = 0.1
CLIENT = "simulated"
VERSION = "62.0"


def play(bench: Bench) -> Sheet:
    if find_spec("simple_salesforce") is None:
        raise Failed("simple-salesforce is not installed; `make bench` installs it.")
    rows = min(bench.rows, ROWS_MAX)
    seeded, place = bench.orgs.seeded(rows), bench.place("peer")
    ours_copy, peer_copy = bench.orgs.copied(seeded), bench.orgs.copied(seeded)
    with bench.orgs.served(ours_copy) as served:
        settings = bench.settings(served, place / "home", rows=rows) | {"SYNC_VERIFY": "counts"}
        files = json.loads(run(["-m", "benchmarks.staged"], folder=place, settings=settings).out)
        csv = _joined([Path(file) for file in files], place / "rows.csv")
        before = calls(ours_copy)
        own = run(["-m", "benchmarks.peer"], folder=place, settings=settings)
    if json.loads(own.out) != rows:
        raise Failed(f"Ours saved {own.out.strip()} of {rows} rows.")
    with bench.orgs.served(peer_copy) as served:
        theirs = run(["-m", "benchmarks.peer", served.base_url, str(csv), str(place)], folder=place)
    if json.loads(theirs.out) != rows:
        raise Failed(f"The peer saved {theirs.out.strip()} of {rows} rows.")
    sent = sum(calls(ours_copy).values()) - sum(before.values())
    return {
        "simple-salesforce": _row(theirs, rows, calls=sum(calls(peer_copy).values())),
        "ours, loading half": _row(own, rows, calls=sent)
        | {
            "CPU ÷ peer": own.cpu_seconds / theirs.cpu_seconds,
            "peak ÷ peer": own.peak_bytes / theirs.peak_bytes,
            "wall ÷ peer": own.wall_seconds / theirs.wall_seconds,
        },
    }


def figures(sheet: Sheet) -> dict[str, float]:
    ours = sheet["ours, loading half"]
    return {"peer_cpu": ours["CPU ÷ peer"], "peer_peak": ours["peak ÷ peer"]}


PART = Part("peer", "Upload and results beside simple-salesforce", play, figures)


def _row(client: Run, rows: int, *, calls: int) -> Row:
    return {
        "rows": rows,
        "wall s": client.wall_seconds,
        "CPU s": client.cpu_seconds,
        "CPU s/M": client.cpu_seconds / rows * 1e6,
        "peak MB": client.peak_bytes / MEGABYTE,
        "API calls": calls,
    }


def _joined(files: list[Path], csv: Path) -> Path:
    """All of these CSV files as one, with one header."""
    with csv.open("wb") as whole:
        for place, file in enumerate(files):
            with file.open("rb") as part:
                header = part.readline()
                whole.write(header if place == 0 else b"")
                while piece := part.read(1 << 20):
                    whole.write(piece)
    return csv


def ours() -> None:
    """Our program; prints the rows that were saved."""
    from concurrent.futures import ThreadPoolExecutor

    from sync_pipeline.domain.ledger import Counts
    from sync_pipeline.domain.plan import PlannedRange
    from sync_pipeline.engine.equality import Equality
    from sync_pipeline.engine.loading import Loader
    from sync_pipeline.engine.values import staged_schema
    from sync_pipeline.settings import load_settings
    from sync_pipeline.staging.range_store import RangeStore
    from sync_pipeline.wiring import open_walls

    walls = open_walls(load_settings())
    night = walls.book.newest()
    if night is None:
        raise LookupError("SYNC_HOME holds no night")
    target = walls.soql.describe()
    schema, equality = staged_schema(walls.mapping, target), Equality(walls.mapping, target)

    def load(planned: PlannedRange) -> Counts:
        folder = walls.area.range_folder(night.plan_id, planned.partition, 1)
        with (
            walls.area.lock_range(planned.partition),
            RangeStore.open(folder, schema, walls.catalogues) as store,
        ):
            expected = store.expected
            loader = Loader(
                walls, night.plan, planned, store,
                equality=equality, generation=1, expected=expected, on_rows=lambda counts, sent: None,
            )  # fmt: skip
            loader.load()
            return store.counts(expected)

    with ThreadPoolExecutor(walls.policy.lanes) as lanes:
        print(sum(counts.succeeded for counts in lanes.map(load, night.plan)))
    walls.close()


def peer(base_url: str, csv: str, folder: str) -> None:
    """The peer's program; prints the rows that it saved."""
    import requests
    from simple_salesforce.bulk2 import SFBulk2Handler

    form = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": CLIENT}
    answer = requests.post(f"{base_url}/services/oauth2/token", data=form, timeout=60)
    bulk = SFBulk2Handler(answer.json()["access_token"], f"{base_url}/services/data/v{VERSION}/jobs/")
    # Its waiting doubles from half a second on and ends at this pause.
    jobs = bulk.Opportunity.upsert(csv_file=csv, external_id_field="External_ID__c", wait=LOOK_SECONDS)  # type: ignore[arg-type]
    for job in jobs:
        job_id = str(job["job_id"])
        bulk.Opportunity.get_successful_records(job_id, file=f"{folder}/{job_id}-successful.csv")
        bulk.Opportunity.get_failed_records(job_id, file=f"{folder}/{job_id}-failed.csv")
        bulk.Opportunity.get_unprocessed_records(job_id, file=f"{folder}/{job_id}-unprocessed.csv")
    print(sum(int(job["numberRecordsProcessed"]) - int(job["numberRecordsFailed"]) for job in jobs))


if __name__ == "__main__":
    peer(*sys.argv[1:]) if sys.argv[1:] else ours()
