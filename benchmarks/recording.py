"""What a night asked of the org: every request as one line of JSON, the body of every upload as a file.

``recorder.py`` writes it, ``floor.py`` asks for the same once more, ``peer.py`` uploads the same files.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

REQUESTS = "requests.jsonl"
NAMED = re.compile(rb'"(?:access_token|queryId|id)"\s*:\s*"([^"]+)"')
"""What the answer to a POST names: a token, a stored result, a job."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``named`` is what its answer named, so that later requests speak of it."""

    number: int
    method: str
    target: str
    headers: dict[str, str]
    body: str
    file: str
    """The body of an upload; empty for none."""
    named: list[str]
    received: int
    """Bytes of the answer's body."""


def named_in(answer: bytes) -> list[str]:
    """The names that an answer, header and body, gives to things."""
    return [found.decode() for found in NAMED.findall(answer)]


def in_path(name: str) -> str:
    """A name as it stands in the path of a request."""
    return quote(name, safe="%")


def requests(folder: Path) -> list[Request]:
    """What was asked, in the order it came."""
    lines = (folder / REQUESTS).read_text(encoding="utf-8").splitlines()
    return sorted((Request(**json.loads(line)) for line in lines), key=lambda request: request.number)


def uploads(folder: Path) -> list[Path]:
    """The CSV files that were uploaded, in the order they came."""
    return [folder / request.file for request in requests(folder) if request.file]
