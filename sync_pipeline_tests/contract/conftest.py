"""The doors through which beliefs about Salesforce are tried: both of the simulated org's and, given a URL, a real org's.

A real org is used when CONTRACT_ORG_URL, CONTRACT_CLIENT_ID and CONTRACT_CLIENT_SECRET are set. It needs the objects of
the default mapping; rows whose keys begin with ``contract-`` are written to it and deleted again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync_pipeline.simulated_org.app import OrgTransport
from sync_pipeline.simulated_org.seed import seed
from sync_pipeline.simulated_org.server import running
from sync_pipeline.simulated_org.state import Org
from sync_pipeline_tests.contract.hyper import Hyper
from sync_pipeline_tests.contract.hyper import running as hyper_running

VERSION = "66.0"
ROWS = 5_000
REAL = {name: os.environ.get(name, "") for name in ("CONTRACT_ORG_URL", "CONTRACT_CLIENT_ID", "CONTRACT_CLIENT_SECRET")}


@dataclass(frozen=True)
class Door:
    """An HTTP client of one org, logged in. ``org`` is the simulated one behind it, if it is that."""

    client: httpx.Client
    org: Org | None

    @property
    def root(self) -> str:
        return f"/services/data/v{VERSION}"

    def json(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of a successful answer."""
        answer = self.client.request(method, self.root + path, **options)
        assert answer.is_success, answer.text
        return answer.json()

    def new_job(self, **changes: str) -> dict[str, Any]:
        """A new upsert job of Opportunity."""
        body = {"object": "Opportunity", "operation": "upsert", "externalIdFieldName": "External_ID__c", **changes}
        job: dict[str, Any] = self.json("POST", "/jobs/ingest", json=body)
        return job

    def load(self, csv: str) -> dict[str, Any]:
        """Runs a whole job over these rows and gives it as it ended."""
        path = f"/jobs/ingest/{self.new_job()['id']}"
        sent = self.client.put(
            f"{self.root}{path}/batches", content=csv.encode(), headers={"Content-Type": "text/csv; charset=UTF-8"}
        )
        assert sent.status_code == 201, sent.text
        self.json("PATCH", path, json={"state": "UploadComplete"})
        return self.ended(path)

    def ended(self, path: str) -> dict[str, Any]:
        """A job once it is in a final state."""
        until = time.monotonic() + 600
        while (job := self.json("GET", path))["state"] not in ("JobComplete", "Failed", "Aborted"):
            assert time.monotonic() < until, job
            time.sleep(0.05 if self.org is not None else 2.0)
        found: dict[str, Any] = job
        return found

    def results(self, job: dict[str, Any], name: str) -> str:
        answer = self.client.get(f"{self.root}/jobs/ingest/{job['id']}/{name}")
        assert answer.status_code in (200, 204), answer.text
        return answer.text


Opener = Callable[[Path], Iterator[Door]]


def embedded(folder: Path) -> Iterator[Door]:
    transport = OrgTransport(folder)
    seed(transport.org, ROWS)
    with httpx.Client(transport=transport, base_url="https://embedded.invalid") as client:
        log_in(client, "simulated", "simulated")
        yield Door(client, transport.org)


def tcp(folder: Path) -> Iterator[Door]:
    org = Org(folder)
    seed(org, ROWS)
    with running(org) as url, httpx.Client(base_url=url, trust_env=False) as client:
        log_in(client, "simulated", "simulated")
        yield Door(client, org)


def real(folder: Path) -> Iterator[Door]:
    with httpx.Client(base_url=REAL["CONTRACT_ORG_URL"], timeout=130) as client:
        log_in(client, REAL["CONTRACT_CLIENT_ID"], REAL["CONTRACT_CLIENT_SECRET"])
        yield Door(client, None)


def log_in(client: httpx.Client, client_id: str, secret: str) -> None:
    form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
    answer = client.post("/services/oauth2/token", data=form)
    assert answer.status_code == 200, answer.text
    client.base_url = httpx.URL(answer.json()["instance_url"])
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


DOORS: list[Opener] = [embedded, tcp, *([real] if all(REAL.values()) else [])]


@pytest.fixture(scope="module", params=DOORS, ids=lambda opener: opener.__name__)
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    yield from request.param(tmp_path_factory.mktemp("org"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Org]]:
    """The address of a simulated org's TCP door, and the org."""
    org = Org(tmp_path_factory.mktemp("served"))
    seed(org, ROWS)
    with running(org) as url:
        yield url, org


@pytest.fixture(scope="session")
def hyper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hyper]:
    """The real engine behind Data Cloud SQL."""
    with hyper_running(tmp_path_factory.mktemp("hyper")) as engine:
        yield engine
