"""A certificate as people read it: Markdown, made of its contents and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

TOLD_OF_A_ROW: Final = ("key", "partition", "finding", "column", "reason", "detail")
"""What a certificate says of a row that differs: never a value."""
COUNTS: Final = ("expected", "staged", "succeeded", "created", "updated", "failed", "unprocessed", "quarantined")
FOUND: Final = ("present", "missing", "different", "doubled", "orphans", "fresh")


def markdown(contents: dict[str, Any]) -> str:
    """The whole page."""
    lines = [
        f"# Certificate {contents['number']}: {contents['verdict']}",
        "",
        f"**{contents['proves']}**",
        *(f"- {_plain(reason)}" for reason in contents["reasons"]),
        "",
        *_head(contents),
        "",
        "## Rows",
        "",
        *_table(("range", *COUNTS, "state"), [_row(found) for found in contents["ranges"]] + [_totals(contents)]),
        "",
        "## Proof",
        "",
        *(_proof(contents["measurement"]) if contents["measurement"] else ["The org was not measured."]),
        "",
        "## Checks",
        "",
        *_table(
            ("check", "passed", "told"),
            [(check["name"], "yes" if check["passed"] else "NO", check["message"]) for check in contents["checks"]],
        ),
        "",
        "## Rows that did not get through",
        "",
        *_rejects(contents["rejects"]),
        "",
        *_calls(contents["api_calls"]),
        "",
        "## Ingest jobs",
        "",
        "The outcomes of each job are kept as Parquet beside its range, because the org keeps them for 7 days only.",
        "",
        *_jobs(contents["ranges"]),
        "",
        "Versions: " + ", ".join(f"{name} {number}" for name, number in contents["versions"].items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def _head(contents: dict[str, Any]) -> list[str]:
    """Whose night it was, when, and which certificate came before this one."""
    org, timings, previous = contents["org"], contents["timings"], contents["previous"]
    of = f"Night {contents['plan_id']} of {_plain(org['name'])} ({org['org_id']}), data space {org['dataspace']}"
    took = f"{timings['seconds']:,.1f} s, {timings['rows_per_second']:,.0f} rows/s"
    follows = (
        f"Follows certificate {previous['number']}, SHA-256 `{previous['sha256']}`." if previous else "The first one."
    )
    amends = f" Amends certificate {contents['amends']}." if contents["amends"] else ""
    return [
        f"{of}: {contents['source']} to {contents['target']}, mapping {contents['mapping']['digest']}.",
        f"Opened {timings['opened_at']}, concluded {timings['concluded_at']}, {took}.",
        follows + amends,
    ]


def _rejects(rejects: Sequence[dict[str, Any]]) -> list[str]:
    rows = [
        (r["outcome"] + (", by a declared rule" if r["set_aside"] else ""), r["code"], r["column"], r["rows"])
        for r in rejects
    ]
    return _table(("outcome", "code", "column", "rows"), rows, none="None.")


def _calls(calls: dict[str, Any]) -> list[str]:
    forecast = f" of {calls['forecast']:,} forecast" if calls["forecast"] is not None else ""
    listed = _table(("endpoint", "calls"), list(calls["by_endpoint"].items()), none="None.")
    return [f"## API calls: {calls['used']:,}{forecast}", "", *listed]


def _jobs(ranges: Sequence[dict[str, Any]]) -> list[str]:
    rows = [
        (found["partition"], job["id"], job["part"], job["round"], job["rows"], job["state"], job["intended_at"])
        for found in ranges
        for job in found["jobs"]
    ]
    return _table(("range", "job", "part", "round", "rows", "state", "intended"), rows, none="None.")


def _row(found: dict[str, Any]) -> tuple[Any, ...]:
    return (found["partition"], *(found[name] for name in COUNTS), found["state"])


def _totals(contents: dict[str, Any]) -> tuple[Any, ...]:
    return ("total", *(contents["totals"][name] for name in COUNTS), "")


def _proof(measured: dict[str, Any]) -> list[str]:
    """What the org held when it was measured."""
    lines = [f"Measured by {measured['level']} at {measured['measured_at']} in {measured['seconds']:,.1f} s.", ""]
    counted = [("expected", measured["expected"]), *((name, measured[name]) for name in FOUND)]
    lines += _table(("rows", ""), [(name, "not told" if rows is None else rows) for name, rows in counted])
    lines += [f"| changed at the source since: {what} | {rows:,} |" for what, rows in measured["moved"].items()]
    lines += [f"| not in the org as in the source: {why} | {rows:,} |" for why, rows in measured["reasons"].items()]
    if measured["sample"]:
        lines += [
            "",
            *_table(TOLD_OF_A_ROW, [tuple(row[name] for name in TOLD_OF_A_ROW) for row in measured["sample"]]),
        ]
    spread = measured["distribution"]
    if spread:
        lines += ["", f"By {spread['field']} ({_plain(spread['note'])}):", ""]
        lines += _table((spread["field"], "source", "org"), spread["rows"], none="Not counted.")
    return lines


def _table(head: Sequence[str], body: Sequence[Sequence[Any]], *, none: str = "") -> list[str]:
    if not body and none:
        return [none]
    numeric = [all(isinstance(row[place], int) for row in body) for place in range(len(head))]
    return [
        f"| {' | '.join(head)} |",
        f"|{'|'.join('---:' if is_number else '---' for is_number in numeric)}|",
        *(f"| {' | '.join(_cell(value) for value in row)} |" for row in body),
    ]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else _plain(str(value))


def _plain(text: str) -> str:
    """The text within a table: nothing in it ends a cell, and nothing steers a terminal."""
    kept = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return kept.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
