"""A night from the start of its process to its end, beside the floor: first night and next night, JSON and Arrow.

Measuring is left out (``verify`` counts): it is a part of its own. The org of each run is a fresh copy of one seeded org.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.bench import MEGABYTE, Bench, Part, sync
from benchmarks.org import Served, calls, seed
from benchmarks.process import Failed, Run, run
from benchmarks.recording import Request, requests
from benchmarks.sheet import Row, Sheet

FORMS = {"JSON": {"DATA_CLOUD_QUERY_API": "connect"}, "Arrow": {"DATA_CLOUD_QUERY_API": "v3"}}
"""How rows come from the source, and the setting that says so."""
UNMEASURED = {"SYNC_VERIFY": "counts"}
SAME_BYTES = 0.01
"""By how much the bytes of a floor may differ from those of the recorded night: instants and counters have no fixed width."""


def play(bench: Bench) -> Sheet:
    sheet: Sheet = {}
    for form in FORMS:
        floor, org = _floor(bench, form)
        sheet[f"floor, {form}"] = _row(bench, floor, org)
        sheet |= _nights(bench, form, floor)
    return sheet


def figures(sheet: Sheet) -> dict[str, float]:
    return {
        "cpu_json": sheet["night, JSON"]["CPU s/M"],
        "cpu_arrow": sheet["night, Arrow"]["CPU s/M"],
        "wall_json": sheet["night, JSON"]["÷ floor"],
        "wall_arrow": sheet["night, Arrow"]["÷ floor"],
        "calls_json": sheet["night, JSON"]["calls/M"],
        "calls_arrow": sheet["night, Arrow"]["calls/M"],
        "org_cpu": sheet["night, JSON"]["org CPU s/M"],
    }


PART = Part("night", "A night without its measurement, beside the floor", play, figures)


def recorded(bench: Bench, form: str) -> Path:
    """The requests of one first night, recorded once for each form."""
    folder = bench.folder / f"recording-{form}"
    if not folder.exists():
        passing = folder.with_suffix(".tmp")
        program = ("benchmarks.recorder", "--into", str(passing))
        copy = bench.orgs.copied(bench.orgs.seeded(bench.rows))
        with bench.orgs.served(copy, program=program) as served:
            place = bench.place("recorded")
            sync(_settings(bench, served, place, form), place=place)
        passing.rename(folder)
    return folder


def _floor(bench: Bench, form: str) -> tuple[Run, Run]:
    """The floor's process, and the org's."""
    recording = recorded(bench, form)
    with bench.orgs.served(bench.orgs.copied(bench.orgs.seeded(bench.rows))) as served:
        floor = run(["-m", "benchmarks.floor", str(recording), served.base_url], folder=bench.place("floor"))
    moved = json.loads(floor.out)
    asked = requests(recording)
    sent = sum((recording / r.file).stat().st_size if r.file else len(r.body.encode()) for r in asked)
    for name, recorded_bytes in (("sent", sent), ("received", sum(request.received for request in asked))):
        if abs(moved[name] - recorded_bytes) > SAME_BYTES * recorded_bytes:
            raise Failed(f"The floor {name} {moved[name]} bytes, the recorded night {recorded_bytes}.")
    return floor, served.ended


def _nights(bench: Bench, form: str, floor: Run) -> Sheet:
    """A first night, which creates every row, and with JSON the next one, which updates them."""
    copy, place = bench.orgs.copied(bench.orgs.seeded(bench.rows)), bench.place("night")
    with bench.orgs.served(copy) as served:
        night, document = sync(_settings(bench, served, place, form), place=place)
    statements = sum(_is_statement(request) for request in requests(recorded(bench, form)))
    first = _row(bench, night, served.ended) | {
        "÷ floor": night.wall_seconds / floor.wall_seconds,
        "CPU ÷ floor": night.cpu_seconds / floor.cpu_seconds,
        "calls/M": sum(calls(copy).values()) / bench.millions,
        "statements": statements,
    }
    _check(document, bench.rows, created=bench.rows)
    if form != "JSON":
        return {f"night, {form}": first}
    seed(copy, "--next-night")
    with bench.orgs.served(copy) as served:
        night, document = sync(_settings(bench, served, place, form), place=place)
    _check(document, bench.rows, created=0)
    return {f"night, {form}": first, f"next night, {form}": _row(bench, night, served.ended)}


def _row(bench: Bench, client: Run, org: Run) -> Row:
    return {
        "wall s": client.wall_seconds,
        "krows/s": bench.rows / client.wall_seconds / 1000,
        "CPU s": client.cpu_seconds,
        "CPU s/M": client.cpu_seconds / bench.millions,
        "org CPU s/M": org.cpu_seconds / bench.millions,
        "peak MB": client.peak_bytes / MEGABYTE,
    }


def _settings(bench: Bench, served: Served, place: Path, form: str) -> dict[str, str]:
    return bench.settings(served, place / "home", rows=bench.rows) | UNMEASURED | FORMS[form]


def _is_statement(request: Request) -> bool:
    path = request.target.partition("?")[0]
    return request.method == "POST" and path.endswith(("/ssot/query-sql", "/api/v3/query"))


def _check(document: dict[str, object], rows: int, *, created: int) -> None:
    """A night that did less than all of its work is no measure."""
    totals = document["totals"]
    if not isinstance(totals, dict) or (totals["succeeded"], totals["created"]) != (rows, created):
        raise Failed(f"Of {rows} rows {created} should have been created: {totals}")
