"""Named, seeded faults: rules kept in the org, so that every process and both doors obey and count them alike.

A rule says which requests it means (``match``), which of those it strikes (``nth``, ``every``, ``share``, ``after``,
``times``) and what happens then (``kind`` and its ``options``). Kinds of the second table act inside the org: each ingest
job counts as one occasion (for ``empty_page`` each page of rows), and ``share`` is the share of its rows.

| kind | the org acts | the client sees |
|---|---|---|
| ``answer`` | no | ``status`` with ``code`` and ``message``, or ``body`` as it is |
| ``html_503`` | no | 503 with the HTML page of a maintenance window |
| ``retry_after`` | no | ``status`` (429) with ``Retry-After: seconds``; without ``seconds`` no such header |
| ``limit`` | no | 403 REQUEST_LIMIT_EXCEEDED |
| ``cut`` | no | a cut connection |
| ``cut_upload`` | no | a cut connection after ``bytes`` of the request body |
| ``lost_answer`` | yes | a cut connection |
| ``late_answer`` | yes | ``status`` (500) with ``code`` and ``message`` |
| ``cut_body`` | yes | ``share_sent`` (0.5) of the answer's body, then a cut connection |
| ``truncated_gzip`` | yes | the answer compressed, and the end of it missing |
| ``empty_answer`` | yes | the answer's status, and no body |
| ``delay`` | yes | the answer ``seconds`` later |
| ``expire_token`` | | 401: the session of the request's token has ended |

| kind | what the org does |
|---|---|
| ``row_errors`` | refuses ``share`` of a job's rows, or those with ``keys``, with ``code`` and ``message`` |
| ``lock_rows`` | refuses ``share`` of a job's rows, or those with ``keys``, with UNABLE_TO_LOCK_ROW |
| ``automation_locks`` | the same with the error of an automation that met the lock, ``by=trigger``, ``flow`` or ``package`` |
| ``automation_limit`` | refuses a chunk (200 rows) of more than ``rows`` (100) rows, by ``limit=cpu``, ``soql`` or ``dml`` of a trigger |
| ``parent_limit`` | the same where more than ``rows`` (100) rows of a chunk have one parent |
| ``unprocessed`` | leaves ``share`` of a job's rows, from its end, unprocessed |
| ``silent_drop`` | acknowledges ``share`` of a job's rows, or those with ``keys``, and does not save them |
| ``job_fails`` | fails the job after ``share`` of its rows, with ``message`` |
| ``job_aborted`` | aborts the job after ``share`` of its rows, as an administrator can |
| ``job_stuck`` | never ends the job by itself |
| ``wrong_counters`` | adds ``processed`` and ``failed`` to what the job's counters say |
| ``empty_results`` | answers result files as ``form``: ``header``, ``empty`` or ``no_content`` |
| ``lost_results`` | does not know the job's result files any more |
| ``odd_headers`` | writes headers of result files in other letter case |
| ``empty_page`` | answers a page of a stored result without rows |
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shlex
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import httpx
import msgspec

from sync_pipeline.simulated_org import login
from sync_pipeline.simulated_org.call import ConnectionCut, Refused, bytes_answer, stream_answer
from sync_pipeline.simulated_org.state import Org

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "answer": ("status", "code", "message", "body", "content_type"),
    "html_503": (),
    "retry_after": ("seconds", "status"),
    "limit": (),
    "cut": (),
    "cut_upload": ("bytes",),
    "lost_answer": (),
    "late_answer": ("status", "code", "message"),
    "cut_body": ("share_sent",),
    "truncated_gzip": (),
    "empty_answer": (),
    "delay": ("seconds",),
    "expire_token": (),
}
"""Faults of requests and the options they know."""

ROW_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "row_errors": ("keys", "code", "message"),
    "lock_rows": ("keys",),
    "automation_locks": ("keys", "by"),
    "automation_limit": ("rows", "limit"),
    "parent_limit": ("rows", "limit"),
    "unprocessed": (),
    "silent_drop": ("keys",),
    "job_fails": ("message",),
    "job_aborted": (),
    "job_stuck": (),
    "wrong_counters": ("processed", "failed"),
    "empty_results": ("form",),
    "lost_results": (),
    "odd_headers": (),
    "empty_page": (),
}
"""Faults inside the org and the options they know."""

ENDPOINTS: Final[Mapping[str, tuple[str, str]]] = {
    "token": ("POST", r"/services/oauth2/token"),
    "exchange": ("POST", r"/services/a360/token"),
    "query": ("POST", r".*(/ssot/query-sql|/api/v3/query)"),
    "status": ("GET", r".*(/ssot/query-sql|/api/v3/query)/[^/]+"),
    "rows": ("GET", r".*(/ssot/query-sql|/api/v3/query)/[^/]+/(rows|chunks/\d+)"),
    "create": ("POST", r".*/jobs/ingest"),
    "upload": ("PUT", r".*/jobs/ingest/[^/]+/batches"),
    "close": ("PATCH", r".*/jobs/ingest/[^/]+"),
    "poll": ("GET", r".*/jobs/ingest/[^/]+"),
    "jobs": ("GET", r".*/jobs/ingest"),
    "results": ("GET", r".*/jobs/ingest/[^/]+/\w+results|.*/jobs/ingest/[^/]+/unprocessedrecords"),
    "query_job": ("POST", r".*/jobs/query"),
    "query_results": ("GET", r".*/jobs/query/[^/]+/results"),
    "soql": ("GET", r".*/(query|queryAll)"),
    "limits": ("GET", r".*/limits"),
    "describe": ("GET", r".*/sobjects/\w+/describe"),
    "collections": ("PATCH", r".*/composite/sobjects/.*"),
}
"""Short names for the requests of a night: method and pattern of the whole path."""

MAINTENANCE_PAGE: Final = (
    b"<html><head><title>Service Unavailable</title></head><body><h1>We are down for maintenance.</h1></body></html>"
)


class Match(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Which requests a rule means; empty parts mean all. ``path`` is a regular expression found anywhere in the path."""

    method: str = ""
    path: str = ""
    endpoint: str = ""


class Rule(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One fault. Of the requests that match, the first ``after`` are spared; then each one counts, from 1.

    ``nth`` strikes these alone, ``every`` each so-manieth, ``share`` a seeded share; none of them strikes all. ``times``
    ends it.
    """

    name: str
    kind: str
    match: Match = msgspec.field(default_factory=Match)
    nth: list[int] = []
    every: int = 0
    share: float = 0.0
    after: int = 0
    times: int = 0
    seed: int = 1
    options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"a fault's name must be one word, not {self.name!r}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"fault {self.name}: share must lie between 0 and 1")
        if self.match.endpoint and self.match.endpoint not in ENDPOINTS:
            raise ValueError(
                f"fault {self.name}: no endpoint {self.match.endpoint!r}; known are {', '.join(ENDPOINTS)}"
            )
        known = {**KINDS, **ROW_KINDS}.get(self.kind)
        if known is None:
            raise ValueError(f"fault {self.name}: no kind {self.kind!r}; known are {', '.join((*KINDS, *ROW_KINDS))}")
        unknown = set(self.options) - set(known)
        if unknown:
            raise ValueError(f"fault {self.name}: {self.kind} has no option {', '.join(sorted(unknown))}")
        try:
            re.compile(self.match.path)
        except re.error as error:
            raise ValueError(f"fault {self.name}: path is not a regular expression ({error})") from None

    def means(self, method: str, path: str) -> bool:
        """Whether the rule means that request."""
        if self.match.method and self.match.method.upper() != method:
            return False
        if self.match.endpoint:
            wanted, pattern = ENDPOINTS[self.match.endpoint]
            if wanted != method or not re.fullmatch(pattern, path, re.IGNORECASE):
                return False
        return not self.match.path or re.search(self.match.path, path, re.IGNORECASE) is not None

    def strikes(self, matched: int, fired: int) -> bool:
        """Whether it strikes the request that matches as number ``matched``, having struck ``fired`` times."""
        place = matched - self.after
        if place < 1 or (self.times and fired >= self.times):
            return False
        if self.nth:
            return place in self.nth
        if self.every:
            return place % self.every == 0
        if self.share and self.kind in KINDS:
            digest = hashlib.sha256(f"{self.seed}/{self.name}/{place}".encode()).digest()
            return int.from_bytes(digest[:8], "big") < self.share * 2**64
        return True


@dataclass(frozen=True)
class Counted:
    """A rule and how often it matched and struck."""

    rule: Rule
    matched: int
    fired: int


def parse_fault(text: str) -> Rule:
    """A rule out of one line: the kind, then ``name=value`` words, e.g. ``lost_answer endpoint=upload nth=2``.

    Raises ``ValueError`` with a sentence for the user.
    """
    words = shlex.split(text)
    if not words or "=" in words[0]:
        raise ValueError("a fault begins with its kind: " + ", ".join((*KINDS, *ROW_KINDS)))
    given: dict[str, Any] = {"kind": words[0]}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{word!r} is not name=value")
        given[name] = value if name in ("path", "method", "endpoint", "name") else _value(value)
    return rule_of(given)


def read_faults(path: Path) -> list[Rule]:
    """The rules of a TOML file (``[[fault]]`` tables) or a JSON file (a list of objects). Raises ``ValueError``."""
    text = path.read_text("utf-8")
    given = json.loads(text) if path.suffix == ".json" else tomllib.loads(text).get("fault", [])
    if not isinstance(given, list) or not all(isinstance(rule, dict) for rule in given):
        raise ValueError(f"{path} holds no list of faults")
    return [rule_of(rule) for rule in given]


def rule_of(given: Mapping[str, Any]) -> Rule:
    """A rule out of a mapping; parts of ``match`` and the kind's own options may stand beside the others."""
    rule = dict(given)
    rule.setdefault("name", rule.get("kind", ""))
    match = dict(rule.pop("match", {}))
    options = dict(rule.pop("options", {}))
    for name in list(rule):
        if name in ("method", "path", "endpoint"):
            match[name] = rule.pop(name)
        elif name not in Rule.__struct_fields__:
            options[name] = rule.pop(name)
    if isinstance(options.get("keys"), str):
        options["keys"] = options["keys"].split(",")
    if isinstance(rule.get("nth"), int):
        rule["nth"] = [rule["nth"]]
    try:
        return msgspec.convert({**rule, "match": match, "options": options}, Rule)
    except msgspec.ValidationError as error:
        raise ValueError(f"fault {rule['name'] or '?'}: {error}") from None


def add_fault(org: Org, rule: Rule) -> None:
    """Adds a rule, or puts it in the place of the one with its name; its counts begin at 0."""
    with org.write("gate") as connection:
        connection.execute("DELETE FROM fault WHERE name = ?", (rule.name,))
        connection.execute(
            "INSERT INTO fault (name, rule) VALUES (?, ?)", (rule.name, msgspec.json.encode(rule).decode())
        )
    org.forget_facts()


def clear_faults(org: Org, name: str | None = None) -> int:
    """Takes one rule or all of them away; gives how many."""
    with org.write("gate") as connection:
        where, values = ("", ()) if name is None else (" WHERE name = ?", (name,))
        cleared = connection.execute(f"DELETE FROM fault{where}", values).rowcount
    org.forget_facts()
    return cleared


def list_faults(org: Org) -> list[Counted]:
    """All rules, in the order in which they were added."""
    rows = org.db("gate").execute("SELECT rule, matched, fired FROM fault ORDER BY place").fetchall()
    return [Counted(msgspec.json.decode(rule, type=Rule), matched, fired) for rule, matched, fired in rows]


@dataclass(frozen=True)
class Incident:
    """A rule that strikes one request."""

    rule: Rule

    def before(self, org: Org, request: httpx.Request) -> httpx.Response | None:
        """What happens before the org acts: an answer in its place, a cut, a pause, or nothing."""
        options = self.rule.options
        match self.rule.kind:
            case "answer":
                return _error(options, status=500)
            case "html_503":
                return bytes_answer(MAINTENANCE_PAGE, "text/html", status=503)
            case "retry_after":
                answer = _error(options, status=429)
                if "seconds" in options:
                    answer.headers["Retry-After"] = str(options["seconds"])
                return answer
            case "limit":
                return Refused(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.").answer()
            case "cut":
                raise ConnectionCut("the connection was cut before the request was read")
            case "cut_upload":
                _read_some(request, int(options.get("bytes", 1)))
                raise ConnectionCut("the connection was cut during the upload")
            case "delay":
                time.sleep(float(options.get("seconds", 1.0)))
            case "expire_token":
                login.expire_token(org, request.headers.get("authorization", "").partition(" ")[2].strip())
        return None

    def after(self, answer: httpx.Response) -> httpx.Response:
        """What becomes of the org's own answer."""
        match self.rule.kind:
            case "lost_answer":
                answer.close()
                raise ConnectionCut("the connection was cut before the answer")
            case "late_answer":
                answer.close()
                return _error(self.rule.options, status=500)
            case "cut_body":
                return _cut(answer, float(self.rule.options.get("share_sent", 0.5)))
            case "truncated_gzip":
                body = gzip.compress(b"".join(_pieces(answer)), compresslevel=1)
                headers = {**_kept(answer), "Content-Encoding": "gzip"}
                kept = body[: max(len(body) * 2 // 3, 1)]
                return stream_answer(
                    iter([kept]),
                    answer.headers.get("content-type", ""),
                    length=len(kept),
                    headers=headers,
                    status=answer.status_code,
                )
            case "empty_answer":
                answer.close()
                return httpx.Response(answer.status_code, headers={**_kept(answer), "Content-Length": "0"})
        return answer


def happen(org: Org, request: httpx.Request, path: str) -> Incident | None:
    """Counts a request with the rules that mean it; the first that strikes it happens."""
    incident = None
    for given in org.faults():
        if given["kind"] not in KINDS:
            continue
        rule = msgspec.convert(given, Rule)
        if incident is None and rule.means(request.method, path) and _struck(org, rule):
            incident = Incident(rule)
    return incident


def row_fault(org: Org, kind: str) -> Rule | None:
    """The rule of that row kind which strikes now; asking counts as an occasion for each rule of the kind."""
    found = None
    for given in org.faults():
        if given["kind"] != kind:
            continue
        rule = msgspec.convert(given, Rule)
        if _struck(org, rule) and found is None:
            found = rule
    return found


def _struck(org: Org, rule: Rule) -> bool:
    with org.write("gate") as connection:
        row = connection.execute(
            "UPDATE fault SET matched = matched + 1 WHERE name = ? RETURNING matched, fired", (rule.name,)
        ).fetchone()
        if row is None or not rule.strikes(row[0], row[1]):
            return False
        connection.execute("UPDATE fault SET fired = fired + 1 WHERE name = ?", (rule.name,))
    return True


def _error(options: Mapping[str, Any], *, status: int) -> httpx.Response:
    status = int(options.get("status", status))
    if "body" in options:
        body = options["body"] if isinstance(options["body"], str) else json.dumps(options["body"])
        return bytes_answer(body.encode(), str(options.get("content_type", "text/plain")), status=status)
    code = str(options.get("code", "UNKNOWN_EXCEPTION"))
    message = str(options.get("message", f"An unexpected error occurred. Please include this ErrorId: 1234-{status}"))
    return Refused(status, code, message).answer()


def _cut(answer: httpx.Response, share: float) -> httpx.Response:
    announced = answer.headers.get("content-length", "")
    left = int(int(announced) * share) if announced.isdigit() else 1000

    def pieces() -> Iterator[bytes]:
        sent = 0
        for piece in _pieces(answer):
            yield piece[: left - sent]
            sent += len(piece)
            if sent >= left:
                break
        answer.close()
        raise ConnectionCut("the connection was cut in the middle of the answer")

    return stream_answer(
        pieces(),
        answer.headers.get("content-type", ""),
        length=int(announced) if announced.isdigit() else None,
        headers=_kept(answer),
        status=answer.status_code,
    )


def _kept(answer: httpx.Response) -> dict[str, str]:
    """Headers of an answer that do not speak of its body."""
    dropped = ("content-length", "content-type", "content-encoding", "transfer-encoding")
    return {name: value for name, value in answer.headers.items() if name.lower() not in dropped}


def _pieces(answer: httpx.Response) -> Iterable[bytes]:
    return cast("Iterable[bytes]", answer.stream)


def _read_some(request: httpx.Request, size: int) -> None:
    received = 0
    for piece in cast("Iterable[bytes]", request.stream):
        received += len(piece)
        if received >= size:
            return


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
