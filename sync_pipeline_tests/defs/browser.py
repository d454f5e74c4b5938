"""A Dagster of one's own, on a free port and in folders of its own, and a browser that uses it as a person would."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from playwright.sync_api import Locator, Page, expect, sync_playwright

PROJECT = Path(__file__).resolve().parent.parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = (
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
STARTED_WITHIN_SECONDS = 90.0
ENDED_WITHIN_SECONDS = 15.0
SHOWN_WITHIN_MS = 30_000.0


def environment_of(folder: Path, **settings: str) -> dict[str, str]:
    """The environment of somebody whose nights and whose Dagster live in ``folder``; no other setting of ours."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SYNC_", "SALESFORCE_", "DATA_CLOUD_", "DAGSTER"))}
    homes = {"SYNC_HOME": str(folder / "sync"), "DAGSTER_HOME": str(folder / "dagster")}
    return inherited | {"PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": "ignore"} | homes | settings


def sync_pipeline(environment: Mapping[str, str], *arguments: str) -> str:
    """Runs the command and returns what it prints."""
    command = [sys.executable, "-m", "sync_pipeline", *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def dagster_dev(environment: Mapping[str, str], *, log: Path) -> Iterator[str]:
    """``dagster dev`` with the project's own dagster.yaml and workspace.yaml; yields where it answers."""
    home = Path(environment["DAGSTER_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(PROJECT / "dagster.yaml", home)
    port = free_port()
    command = [sys.executable, "-m", "dagster", "dev", "--workspace", str(PROJECT / "workspace.yaml")]
    with running([*command, "--host", "127.0.0.1", "--port", str(port)], environment, folder=home, log=log) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until_it_answers(f"{url}/server_info", process, log)
        yield url


@contextmanager
def running(
    command: list[str], environment: Mapping[str, str], *, folder: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The process with everything that it starts, ended together."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDED_WITHIN_SECONDS)
        with suppress(ProcessLookupError):  # whoever outlived it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(ENDED_WITHIN_SECONDS)


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTED_WITHIN_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"{url} did not answer in {STARTED_WITHIN_SECONDS:g} s:\n{log.read_text(errors='replace')}")


@contextmanager
def browsing(url: str, *, pictures: Path) -> Iterator[Ui]:
    """A window on that Dagster. When the body fails, what it saw last is kept as a picture."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(SHOWN_WITHIN_MS)
            expect.set_options(timeout=SHOWN_WITHIN_MS)
            ui = Ui(page, url, pictures)
            try:
                yield ui
            except BaseException:
                ui.picture("failed")
                raise
        finally:
            browser.close()


class Ui:
    """What a person does in Dagster's pages."""

    def __init__(self, page: Page, url: str, pictures: Path) -> None:
        self.page = page
        self._url = url
        self._pictures = pictures

    def open(self, path: str) -> None:
        self.page.goto(f"{self._url}/{path}")

    def text(self, text: str) -> Locator:
        return self.page.get_by_text(text).first

    def button(self, name: str) -> Locator:
        """By all of its text; its accessible name holds that of its icon too."""
        return self.page.locator("button").filter(has_text=re.compile(f"^{re.escape(name)}$")).first

    def switch_sensor(self, name: str, *, on: bool) -> None:
        self.open(f"locations/sync_pipeline/sensors/{name}")
        switch = self.page.get_by_role("checkbox").first
        expect(switch).to_be_checked(checked=not on)
        self.page.locator("label:has(input[type=checkbox])").first.click()  # the box itself lies outside of the window
        expect(switch).to_be_checked(checked=on)

    def materialize(self, asset: str) -> None:
        """Starts a run of an asset without partitions."""
        self.open(f"assets/{asset}")
        self.button("Materialize").click()
        expect(self.text("Launched run")).to_be_visible()

    def backfill_all(self, asset: str, *, partitions: int) -> None:
        self.open(f"assets/{asset}")
        self.button("Materialize…").click()
        self.button("All").click()
        expect(self.text(f"{partitions} partitions")).to_be_visible()
        self.button("Launch backfill").click()
        expect(self.button("Launch backfill")).to_be_hidden()

    def materialize_partition(self, asset: str, partition: str) -> None:
        self.open(f"assets/{asset}?view=partitions&partition={partition}")
        expect(self.text(partition)).to_be_visible()
        self.button("Materialize…").click()
        expect(self.page.get_by_text("1 partition", exact=True)).to_be_visible()
        self.button("Launch 1 run").click()
        expect(self.button("Launch 1 run")).to_be_hidden()

    def picture(self, name: str) -> Path:
        file = self._pictures / f"{name}.png"
        self.page.screenshot(path=file)
        return file
