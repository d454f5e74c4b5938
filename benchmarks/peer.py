"""Beside simple-salesforce: the same CSV into the same org and its results back, against our loading half alone.

``python -m benchmarks.peer BASE_URL CSV FOLDER`` is the peer: ``SFBulk2Handler`` with its own defaults, but for the pause
between two looks at a job, which is 5 s by default. It keeps the three result files of each job in the folder; ours
gives every row its outcome besides, and keeps its ledger.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks.bench import MEGABYTE, Bench, Part, sync
from benchmarks.org import calls
from benchmarks.process import Failed, Run, run
from benchmarks.sheet import Row, Sheet

ROWS_MAX = 1_000_000
"""One upload of 100 MB, which is what the peer sends at once. More rows take longer and say the same."""
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
        ours, document = sync(settings, place=place)
    if document["totals"]["created"] != rows:
        raise Failed(f"Ours created {document['totals']['created']} of {rows} rows.")
    with bench.orgs.served(peer_copy) as served:
        peer = run(["-m", "benchmarks.peer", served.base_url, str(csv), str(place)], folder=place)
    if json.loads(peer.out) != rows:
        raise Failed(f"The peer saved {peer.out.strip()} of {rows} rows.")
    sent = sum(calls(ours_copy).values()) - sum(before.values())
    return {
        "simple-salesforce": _row(peer, rows, calls=sum(calls(peer_copy).values())),
        "ours, loading half": _row(ours, rows, calls=sent)
        | {
            "CPU ÷ peer": ours.cpu_seconds / peer.cpu_seconds,
            "peak ÷ peer": ours.peak_bytes / peer.peak_bytes,
            "wall ÷ peer": ours.wall_seconds / peer.wall_seconds,
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


def main(base_url: str, csv: str, folder: str) -> None:
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
    main(*sys.argv[1:])
