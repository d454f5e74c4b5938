"""An org in a folder, a client at its embedded door that is logged in, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync_pipeline.simulated_org.app import OrgTransport
from sync_pipeline.simulated_org.faults import add_fault, parse_fault
from sync_pipeline.simulated_org.login import new_token
from sync_pipeline.simulated_org.state import Org

ROOT = "/services/data/v66.0"


@dataclass(frozen=True)
class Asker:
    """Asks the org as one of its users."""

    org: Org
    client: httpx.Client

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.client.request(method, path if path.startswith("/api/") else ROOT + path, **options)

    def json(self, method: str, path: str, **options: Any) -> Any:
        answer = self.ask(method, path, **options)
        assert answer.is_success, answer.text
        return answer.json()

    def fault(self, text: str) -> None:
        add_fault(self.org, parse_fault(text))


def asker(org: Org, *, kind: str = "core", user_id: str = "") -> Asker:
    """Somebody with a token of that kind."""
    token = new_token(org, kind=kind, client="simulated", user_id=user_id or org.user_id)
    transport = OrgTransport(org.folder)
    client = httpx.Client(
        transport=transport, base_url="https://embedded.invalid", headers={"Authorization": f"Bearer {token}"}
    )
    return Asker(transport.org, client)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asker]:
    found = asker(Org(tmp_path / "org"))
    with found.client:
        yield found
