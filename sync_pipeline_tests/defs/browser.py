"""Dagster's pages in a real browser, used as a person would use them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Locator, Page, expect, sync_playwright

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
SHOWN_WITHIN_MS = 30_000.0


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
