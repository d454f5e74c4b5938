"""Query jobs of Bulk API 2.0: the rows of a SOQL query as CSV, stored when the job runs, read page by page.

A locator is the place of a page's first row; every page repeats the header. The rows are those of one moment.

Get results: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/query_get_job_results.htm
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from sync_pipeline.simulated_org.allocations import count_query_job
from sync_pipeline.simulated_org.call import Refused
from sync_pipeline.simulated_org.grammar import parse
from sync_pipeline.simulated_org.ingest import JOBS, Job, change_job, find_job
from sync_pipeline.simulated_org.soql import bind, check_bulk_query, rows_of, snapshot
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.simulated_org.values import bulk_text

PAGE_ROWS: Final = 250_000
PAGES_LISTED: Final = 5
PAGES_SINCE: Final = 58
"""API version that brought ``resultPages``."""
PIECE_BYTES: Final = 1024 * 1024
MARK: Final = "MjAwMC0"


def check(org: Org, text: str) -> str:
    """The object of a query that Bulk API 2.0 can run. Raises ``Refused`` (400) for any other."""
    query = parse(text)
    check_bulk_query(query)
    return bind(org, query).object.name


def settle(org: Org, job: Job) -> Job:
    """Runs the job when it has not run yet; all rows are those of this moment."""
    if job.is_terminal:
        return job
    try:
        rows = _store(org, job)
    except Refused as refusal:
        change_job(org, job.id, state="Failed", error=f"{refusal.code}: {refusal.message}")
    else:
        with org.write():
            current = find_job(org, job.id, "query")
            if current is not None and not current.is_terminal:
                change_job(org, job.id, state="JobComplete", processed=rows)
    return find_job(org, job.id, "query") or job


def page(org: Org, job: Job, start: int, most: int) -> tuple[Iterator[bytes], int]:
    """Header and up to ``most`` rows from ``start`` on, and how many rows they are."""
    places = array("Q")
    places.frombytes(_places_file(org, job).read_bytes())
    end = min(start + most, len(places) - 1)
    return _read(_rows_file(org, job), places[start], places[end]), end - start


def locator(place: int) -> str:
    """An opaque text that means this place."""
    return MARK + base64.urlsafe_b64encode(str(place).encode()).decode().rstrip("=")


def read_locator(text: str) -> int | None:
    """The place that a locator means; no locator is the first row, an unknown one is ``None``."""
    if not text:
        return 0
    try:
        return int(base64.urlsafe_b64decode(text.removeprefix(MARK) + "==")) if text.startswith(MARK) else None
    except ValueError:
        return None


def _read(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield file.readline()
        file.seek(start)
        left = end - start
        while left > 0 and (piece := file.read(min(left, PIECE_BYTES))):
            left -= len(piece)
            yield piece


def _store(org: Org, job: Job) -> int:
    """Writes all rows and where each begins; returns how many there are."""
    rows, listed = _rows_file(org, job), _places_file(org, job)
    places = array("Q")
    query = parse(job.query)
    delimiter, line_ending = job.form_of_results(org)
    with snapshot(org), rows.open("wb") as file:
        position = None
        for frame in rows_of(org, query, include_deleted=job.operation == "queryAll"):
            if position is None:
                position = file.write(_header(frame.columns, delimiter, line_ending))
                places.append(position)
            lines = csv_lines(bulk_text(frame), delimiter)
            ends = (lines.str.len_bytes().cast(pl.UInt64) + len(line_ending)).cum_sum() + position
            position = int(ends[-1]) if len(ends) else position
            places.extend(ends.to_list())
            lines.to_frame().write_csv(file, include_header=False, line_terminator=line_ending, quote_style="never")
        if position is None:
            places.append(file.write(_header(query.columns, delimiter, line_ending)))
    listed.write_bytes(places.tobytes())
    count_query_job(org, result_bytes=rows.stat().st_size)
    return len(places) - 1


def csv_lines(text: pl.DataFrame, delimiter: str) -> pl.Series:
    """Each row as a line of CSV in which every value is quoted."""
    values = []
    for name in text.columns:
        column = pl.col(name)
        if text[name].str.contains('"', literal=True).any():
            column = column.str.replace_all('"', '""', literal=True)
        values.append(column)
    return text.select(
        pl.concat_str(pl.lit('"'), pl.concat_str(values, separator=f'"{delimiter}"'), pl.lit('"')).alias("line")
    ).to_series()


def _header(names: list[str] | tuple[str, ...], delimiter: str, line_ending: str) -> bytes:
    return (delimiter.join(f'"{name}"' for name in names) + line_ending).encode()


def _rows_file(org: Org, job: Job) -> Path:
    return org.files(JOBS) / f"{job.id}-rows.csv"


def _places_file(org: Org, job: Job) -> Path:
    return org.files(JOBS) / f"{job.id}-places"
