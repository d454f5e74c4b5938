"""The one CSV of an ingest job: kept as it came, read as text.

Prepare CSV files: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/datafiles_prepare_csv.htm
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from sync_pipeline.simulated_org.state import Org

DELIMITERS: Final = {"COMMA": ",", "BACKQUOTE": "`", "CARET": "^", "PIPE": "|", "SEMICOLON": ";", "TAB": "\t"}
LINE_ENDINGS: Final = {"LF": "\n", "CRLF": "\r\n"}
HEADER_CHARS_MAX: Final = 32_000
UNESCAPED: Final = "InvalidBatch : Failed to parse CSV. Found unescaped quote"
LINE_ENDING: Final = "ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is {}"


BLANK_AND_QUOTE: Final = r'^ +"'
"""How a value begins when a blank stands before its quote, and also a proper one whose own text does."""


@dataclass(frozen=True)
class Upload:
    """What a job was sent. ``rows`` is all text; ``torn`` are the numbers of rows that cannot be saved as they are written:
    a blank stands next to a quote, outside of it."""

    rows: pl.DataFrame
    torn: tuple[int, ...] = ()


class BadUpload(Exception):
    """The job fails as a whole, with this error message."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def upload_file(org: Org, job_id: str) -> Path:
    """Where the body of a job is kept."""
    return org.files("uploads") / f"{job_id}.csv"


def read_upload(org: Org, job_id: str, *, delimiter: str, line_ending: str) -> Upload:
    """All rows, columns named as the header names them; no rows when nothing was uploaded.

    Raises ``BadUpload``.
    """
    path = upload_file(org, job_id)
    content = path.read_bytes() if path.exists() else b""
    if not content or content.isspace():
        return Upload(pl.DataFrame())
    return read_rows(content, delimiter=DELIMITERS[delimiter], line_ending=line_ending)


def read_rows(content: bytes, *, delimiter: str, line_ending: str) -> Upload:
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
    columns = {f"column_{place}": name for place, name in enumerate(names)}
    torn: tuple[int, ...] = ()
    try:
        frame = _table(content, delimiter, list(columns))
        # The second look is dear, and hardly any value begins with a blank.
        is_suspect = any(
            text.filter(text.str.starts_with(" ")).str.contains(BLANK_AND_QUOTE).any() for text in frame.get_columns()
        )
    except pl.exceptions.PolarsError:
        is_suspect = True
    if is_suspect:
        content, torn = _without_blanks_by_quotes(content, delimiter.encode())
        try:
            frame = _table(content, delimiter, list(columns))
        except pl.exceptions.PolarsError:
            raise BadUpload(UNESCAPED) from None
    return Upload(frame.rename(columns), torn)


def _table(content: bytes, delimiter: str, columns: list[str]) -> pl.DataFrame:
    """The rows below the header. Raises ``PolarsError`` for quotes that are not doubled."""
    return pl.read_csv(
        content,
        has_header=False,
        skip_rows=0,
        separator=delimiter,
        schema=dict.fromkeys(columns, pl.String),
        raise_if_empty=False,
    ).slice(1)


def _without_blanks_by_quotes(content: bytes, delimiter: bytes) -> tuple[bytes, tuple[int, ...]]:
    """The body without blanks between a quote and a delimiter, and the numbers of the rows that had any."""
    end = b"[" + re.escape(delimiter) + rb"\n]"
    value = re.compile(rb'( *)("(?:[^"]|"")*+")( *)(?=' + end + rb"|\Z)|[^" + re.escape(delimiter) + rb"\n]*")
    kept, torn, row, place = [], [], 0, 0
    while place < len(content) and (found := value.match(content, place)) is not None:
        kept.append(found[2] or found[0])
        if found[1] or found[3]:
            torn.append(row - 1)  # row 0 is the header
        place = found.end()
        kept.append(content[place : place + 1])
        row += content[place : place + 1] == b"\n"
        place += 1
    return b"".join(kept), tuple(dict.fromkeys(torn))
