"""No test sees the settings, the `.env` file or the state of whoever runs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from sync_pipeline_tests.notify.receivers import Web, serving

OURS = ("SYNC_", "SALESFORCE_", "DATA_CLOUD_", "DAGSTER_HOME")

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, max_examples=40, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

for name in list(os.environ):
    if name.startswith(OURS):  # before any module that reads settings while it is imported
        del os.environ[name]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are looked for above the current folder, and state is kept there."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server that takes notes."""
    server = Web()
    with serving(server):
        yield server
