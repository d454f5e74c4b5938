"""The command as a user runs it: in a folder of its own, without any setting but SYNC_HOME."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sync_pipeline.cli import main


@dataclass(frozen=True)
class Ran:
    """What one run of the command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        document: dict[str, Any] = json.loads(self.out)
        return document


Run = Callable[..., Ran]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("SALESFORCE_", "SYNC_", "DATA_CLOUD_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "home"
    monkeypatch.setenv("SYNC_HOME", str(folder))
    return folder


@pytest.fixture
def run(home: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs the command in this process. Its log goes to a stream that is closed when the test is over."""
    root = logging.getLogger("sync_pipeline")
    handlers, level, propagate = list(root.handlers), root.level, root.propagate

    def run(*arguments: str) -> Ran:
        capfd.readouterr()
        code = main(arguments)
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    yield run
    root.handlers, root.propagate = handlers, propagate
    root.setLevel(level)
