"""An org of another version: fields of its answers are missing, null, new or of a new type.

A whole small night is recorded at the wire, through both query APIs. Then every field of every JSON answer is changed:
the night ends as it would have, or it names the one field that it cannot do without, and the next one loses nothing.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync_pipeline.domain.errors import SyncError
from sync_pipeline.domain.ledger import Verdict
from sync_pipeline.engine.night import drive, open_night
from sync_pipeline.salesforce.data_cloud import DataCloud
from sync_pipeline_tests.engine.rehearsal import After, Rehearsal, rehearsal

ROWS = 24

ENDPOINTS: dict[str, tuple[str, str]] = {
    "token": ("POST", r"/services/oauth2/token"),
    "exchange": ("POST", r"/services/a360/token"),
    "query-sql": ("POST", r".*/ssot/query-sql"),
    "query-sql status": ("GET", r".*/ssot/query-sql/[^/]+"),
    "query-sql rows": ("GET", r".*/ssot/query-sql/[^/]+/rows"),
    "v3 query": ("POST", r"/api/v3/query"),
    "v3 status": ("GET", r"/api/v3/query/[^/]+"),
    "describe": ("GET", r".*/describe"),
    "limits": ("GET", r".*/limits"),
    "soql": ("GET", r".*/query"),
    "ingest create": ("POST", r".*/jobs/ingest"),
    "ingest close": ("PATCH", r".*/jobs/ingest/[^/]+"),
    "ingest poll": ("GET", r".*/jobs/ingest/[^/]+"),
    "ingest list": ("GET", r".*/jobs/ingest"),
    "query job": ("POST", r".*/jobs/query"),
    "query job poll": ("GET", r".*/jobs/query/[^/]+"),
    "query job pages": ("GET", r".*/jobs/query/[^/]+/resultPages"),
}
"""Every request of a night that is answered with JSON: method and path."""
THROUGH_TENANT = ("exchange", "v3 query", "v3 status")
"""Endpoints that a night asks through Query V3 alone."""


NEEDED: dict[str, tuple[str, ...]] = {
    "token": ("access_token", "instance_url"),
    "exchange": ("access_token", "instance_url"),
    "query-sql": (
        "status",
        "status.queryId",
        "status.completionStatus",
        "metadata",
        "metadata[].name",
        "metadata[].type",
    ),
    "query-sql status": ("completionStatus", "rowCount"),
    "query-sql rows": ("data",),
    "v3 query": (
        "queryId",
        "completionStatus",
        "metadata",
        "metadata.columns",
        "metadata.columns[].name",
        "metadata.columns[].type",
    ),
    "v3 status": ("completionStatus", "rowCount"),
    "describe": (
        "fields",
        "fields[].name",
        "fields[].type",
        "fields[].precision",
        "fields[].scale",
    ),
    "soql": ("totalSize",),
    "ingest create": ("id",),
    "ingest poll": ("state",),
    "query job": ("id",),
    "query job poll": ("state", "numberRecordsProcessed"),
    "query job pages": ("resultPages", "resultPages[].resultUrl"),
}
"""What a night cannot do without. Everything else that an org answers may be missing, null, or of another type."""


SPARED = {
    "drop": ("fields[].idLookup",),
    "null": ("fields[].externalId",),
    "retype": ("fields[].idLookup", "data"),
}
"""Left alone: of two fields one is enough, and first rows may be missing, but not be anything else than rows."""


def endpoint_of(request: httpx.Request) -> str | None:
    for name, (method, path) in ENDPOINTS.items():
        if request.method == method and re.fullmatch(path, request.url.path):
            return name
    return None


def paths(value: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Every field of an answer by its path, and whether it holds others."""
    if isinstance(value, list):
        for item in value:
            yield from paths(item, f"{prefix}[]")
    elif isinstance(value, dict):
        for name, item in value.items():
            path = f"{prefix}.{name}" if prefix else name
            inner = list(paths(item, path))
            yield path, bool(inner)
            yield from inner


Change = Callable[[dict[str, Any], str], None]


def drop(holder: dict[str, Any], name: str) -> None:
    holder.pop(name, None)


def null(holder: dict[str, Any], name: str) -> None:
    if name in holder:
        holder[name] = None


def retype(holder: dict[str, Any], name: str) -> None:
    if name in holder:
        holder[name] = "another type" if isinstance(holder[name], dict | list) else {"of": ["another", {"type": 1}]}


CHANGES: dict[str, Change] = {"drop": drop, "null": null, "retype": retype}


def change(value: Any, path: str, how: Change) -> None:
    """Changes the field of that path wherever it stands."""
    name, _, rest = path.partition(".")
    if isinstance(value, list):
        for item in value:
            change(item, path, how)
    elif isinstance(value, dict):
        bare = name.removesuffix("[]")
        if rest:
            change(value.get(bare), rest, how)
        else:
            how(value, bare)


def add(value: Any) -> None:
    """A field that nobody knows, in every object of the answer."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        add(item)
    if isinstance(value, dict):
        value["ofALaterVersion"] = {"records": [None], "state": 7}


Edit = Callable[[str, Any], None]
"""Changes the answer of an endpoint in place."""


@dataclass
class Org:
    """What an org answers, recorded, and changed on the way to us."""

    edit: Edit = lambda name, value: None
    seen: dict[str, dict[str, bool]] = field(default_factory=dict)
    """The fields of each endpoint by their paths, and whether they hold others."""

    def after(self, request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        name = endpoint_of(request)
        headers = {key: text for key, text in answer.headers.items() if key.lower() != "content-length"}
        status = answer.headers.get("x-hyperdb-status", "")
        is_json = "json" in answer.headers.get("content-type", "")
        if name is None or answer.status_code >= 300 or not (is_json or status.startswith("{")):
            return answer
        content = answer.read()
        if status.startswith("{"):
            for key in ("x-hyperdb-status", "status"):
                if key in headers:
                    headers[key] = self._edited(name, headers[key].encode()).decode()
        if is_json and content:
            content = self._edited(name, content)
        return httpx.Response(answer.status_code, headers=headers, content=content)

    def _edited(self, name: str, content: bytes) -> bytes:
        value = json.loads(content)
        known = self.seen.setdefault(name, {})
        for path, holds in paths(value):
            known[path] = known.get(path, False) or holds
        self.edit(name, value)
        return json.dumps(value).encode()


@contextmanager
def small_org(folder: Path) -> Iterator[Rehearsal]:
    """Two ranges that are read in some pages and sent as jobs that need looks; nothing is asked yet."""
    with rehearsal(folder, rows=ROWS, rows_per_range=12, page_rows=5, part_rows=12, in_org=0.5, lanes=2) as r:
        r.org.set_setting("adaptive_rows", 3)
        r.org.set_setting("running_polls", 1)
        r.org.set_setting("job_polls", 2)
        r.org.set_setting("nested_status", value=False)
        yield r


@dataclass(frozen=True)
class Ended:
    """How a night ended: its verdict, if it came to one, and everything that was said."""

    verdict: Verdict | None
    said: str


def night(r: Rehearsal, *, api: str, after: After) -> Ended:
    """One start of a night as a process of its own, whatever becomes of it. Any error of ours is fit for a person."""
    said: list[str] = []
    verdict = None
    heard = Heard()
    logging.getLogger("sync_pipeline").addHandler(heard)
    try:
        process = r.again(after=after)
        walls = changed(
            process.walls,
            data_cloud=DataCloud(process.walls.session, process.walls.mapping, api=api, page_rows=5, run_id=api),  # type: ignore[arg-type]
        )
        try:
            with walls.area.lock_driver():
                opened = open_night(walls, rearm=True, say=said.append)
                ended = drive(walls, opened, wait_for_headroom=True, on_event=said.append)
                verdict = ended.verdict
                said += [*ended.verdict_reasons, *(entry.error for entry in walls.book.ranges(ended.plan_id))]
        finally:
            walls.close()
    except SyncError as error:
        said.append(str(error))
    finally:
        logging.getLogger("sync_pipeline").removeHandler(heard)
    assert heard.unexpected == []
    return Ended(verdict, "\n".join([*said, *heard.lines]))


class Heard(logging.Handler):
    """What was logged; an error that nobody expected is kept apart."""

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.lines: list[str] = []
        self.unexpected: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, SyncError):
            self.unexpected.append(error)


def make_odd(name: str, value: Any, how: str, *, holding: bool) -> None:
    """Changes every field that is not needed: those that hold others, or those that do not."""
    found: dict[str, bool] = {}
    for path, holds in paths(value):
        found[path] = found.get(path, False) or holds
    for path, holds in found.items():
        is_around_needed = any(need.startswith((f"{path}.", f"{path}[")) for need in NEEDED.get(name, ()))
        is_spared = path in NEEDED.get(name, ()) or is_around_needed or path in SPARED[how]
        if not is_spared and holds is holding:
            change(value, path, CHANGES[how])


@pytest.mark.parametrize("holding", [False, True], ids=["leaves", "holders"])
@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("api", ["connect", "v3"])
def test_a_night_ends_as_ever_whatever_became_of_fields_that_it_does_not_need(
    tmp_path: Path, api: str, how: str, holding: bool
) -> None:
    org = Org(lambda name, value: make_odd(name, value, how, holding=holding))

    with small_org(tmp_path) as r:
        ended = night(r, api=api, after=org.after)

        assert ended.verdict is Verdict.RECONCILED, ended.said
        assert r.is_equal()


@pytest.mark.parametrize("api", ["connect", "v3"])
def test_fields_that_nobody_knows_change_nothing_and_every_endpoint_is_recorded(tmp_path: Path, api: str) -> None:
    org = Org(lambda name, value: add(value))

    with small_org(tmp_path) as r:
        ended = night(r, api=api, after=org.after)

        assert ended.verdict is Verdict.RECONCILED, ended.said
        assert r.is_equal()
    through_connect = {name for name in ENDPOINTS if name.startswith("query-sql")}
    assert set(org.seen) == set(ENDPOINTS) - (set(THROUGH_TENANT) if api == "connect" else through_connect)
    for name, needed in NEEDED.items():  # none of them has vanished from the answers
        assert name not in org.seen or set(needed) <= set(org.seen[name])


@pytest.mark.parametrize(
    ("endpoint", "path", "how"),
    [
        (endpoint, path, list(CHANGES)[place % len(CHANGES)])
        for place, (endpoint, path) in enumerate((name, path) for name, needed in NEEDED.items() for path in needed)
    ]
    + [("query-sql", "data", "retype"), ("v3 query", "data", "retype")],
)
def test_a_field_that_is_needed_is_named_and_the_next_night_loses_nothing(
    tmp_path: Path, endpoint: str, path: str, how: str
) -> None:
    def edit(name: str, value: Any) -> None:
        if name == endpoint:
            change(value, path, CHANGES[how])

    api = "v3" if endpoint in THROUGH_TENANT else "connect"
    with small_org(tmp_path) as r:
        ended = night(r, api=api, after=Org(edit).after)

        assert ended.verdict is not Verdict.RECONCILED
        holder, _, leaf = path.replace("[]", "").rpartition(".")
        assert any(re.search(rf"`(\w+(\[\])?\.)*{name}`", ended.said) for name in (leaf, holder) if name), ended.said

        assert night(r, api=api, after=Org().after).verdict is Verdict.RECONCILED
        assert r.is_equal()
