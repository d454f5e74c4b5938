"""The one CSV of an ingest job: kept as it came, read as text.

Prepare CSV files: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/datafiles_prepare_csv.htm
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from sync_pipeline.simulated_org.state import Org

if TYPE_CHECKING:
    from sync_pipeline.simulated_org.ingest import Job

DELIMITERS: Final = {"COMMA": ",", "BACKQUOTE": "`", "CARET": "^", "PIPE": "|", "SEMICOLON": ";", "TAB": "\t"}
HEADER_CHARS_MAX: Final = 32_000
UNESCAPED: Final = "InvalidBatch : Failed to parse CSV. Found unescaped quote"
LINE_ENDING: Final = "ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is {}"


class BadUpload(Exception):
    """The job fails as a whole, with this error message."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def upload_file(org: Org, job_id: str) -> Path:
    """Where the body of a job is kept."""
    return org.files("uploads") / f"{job_id}.csv"


def read_upload(org: Org, job: Job) -> pl.DataFrame:
    """All rows as text, columns named as the header names them; no rows when nothing was uploaded.

    Raises ``BadUpload``.
    """
    path = upload_file(org, job.id)
    content = path.read_bytes() if path.exists() else b""
    if not content or content.isspace():
        return pl.DataFrame()
    return read_rows(content, delimiter=DELIMITERS[job.delimiter], line_ending=job.line_ending)


def read_rows(content: bytes, *, delimiter: str, line_ending: str) -> pl.DataFrame:
    """The rows of a body. Raises ``BadUpload``."""
    first = io.BytesIO(content).readline().removesuffix(b"\n")
    if first.endswith(b"\r") != (line_ending == "CRLF"):
        raise BadUpload(LINE_ENDING.format(line_ending))
    if line_ending == "CRLF":
        content = content.replace(b"\r\n", b"\n")
    try:
        # A byte order mark is not taken off: it belongs to the first name, as it does in Salesforce.
        line = first.rstrip(b"\r").decode("utf-8")
        names = next(csv.reader(io.StringIO(line, newline=""), delimiter=delimiter, strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        raise BadUpload(UNESCAPED) from None
    if len(line) > HEADER_CHARS_MAX or len({name.lower() for name in names}) < len(names):
        raise BadUpload("InvalidBatch : Failed to parse CSV. Duplicate or too many fields in the header")
    if line.startswith('\ufeff"'):
        raise BadUpload(UNESCAPED)
    try:
        frame = pl.read_csv(
            content,
            has_header=False,
            skip_rows=0,
            separator=delimiter,
            schema={f"column_{place}": pl.String for place in range(len(names))},
            raise_if_empty=False,
        ).slice(1)
    except pl.exceptions.PolarsError:
        raise BadUpload(UNESCAPED) from None
    return frame.rename({f"column_{place}": name for place, name in enumerate(names)})
