"""A night in Dagster's own pages, through a real browser: started by hand, kept by the sensor, told when it ends badly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from sync_pipeline_tests.defs.browser import CHROMIUM, browsing
from sync_pipeline_tests.notify.receivers import Web, serving
from sync_pipeline_tests.running import dagster_dev, environment_of, sync_pipeline, until

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; on Debian `apt-get install chromium`"),
]

ROWS, RANGES = 3000, 3
LOST = "externalOpp0001500"
"""A key of the second range: the org says that it saved the row, and does not have it."""


def test_a_person_sees_a_night_run_fail_its_check_be_told_and_recover(tmp_path: Path) -> None:
    catcher = Web()
    environment = environment_of(
        tmp_path,
        SYNC_ROWS_PER_RANGE=str(ROWS // RANGES),
        SYNC_REPAIRS="0",
        SYNC_ALERTS=f"json://{catcher.address}/notes",
    )
    sync_pipeline(environment, "org", "seed", "--rows", str(ROWS))
    sync_pipeline(environment, "org", "fault", "add", "silent_drop", f"keys={LOST}")

    with (
        serving(catcher),
        dagster_dev(environment, log=tmp_path / "dagster.log") as url,
        browsing(url, pictures=tmp_path) as ui,
    ):
        # A person plans a night and backfills its ranges, while the sensor is off.
        ui.switch_sensor("night", on=False)
        ui.materialize("opportunity_ranges")
        until(lambda: night(environment)["plan_id"] is not None, seconds=30)
        ui.open("assets/opportunities_synced?view=partitions")
        expect(ui.text(f"Missing ({RANGES})")).to_be_visible()
        ui.backfill_all("opportunities_synced", partitions=RANGES)
        ui.open("assets/opportunities_synced?view=partitions")
        expect(ui.text(f"Materialized ({RANGES})")).to_be_visible(timeout=90_000)
        assert catcher.requests == []

        # The sensor has the org measured and passes the verdict; the check fails, and one note arrives.
        ui.switch_sensor("night", on=True)
        until(lambda: len(catcher.notes) == 1, seconds=90)
        assert night(environment)["verdict"] == "not reconciled"
        drifting = [found["partition"] for found in night(environment)["ranges"] if found["missing"]]
        assert catcher.titles == ["Night not reconciled, 1 check fails: simulated org"]
        assert (
            f"range {drifting[0]} is done: 1000 expected, 1000 staged, 1000 succeeded, 1 missing"
            in (catcher.notes[0]["message"])
        )
        ui.open("assets/sync_reconciliation?view=checks&checkDetail=present_equals_expected")
        expect(ui.text("3000 rows belong in the org, 1 of them are missing")).to_be_visible()
        ui.picture("failed-check")

        # Once the org saves what it says, the range is run again by hand, and one more note arrives.
        sync_pipeline(environment, "org", "fault", "clear")
        ui.materialize_partition("opportunities_synced", drifting[0])
        until(lambda: len(catcher.notes) == 2, seconds=90)
        assert catcher.titles[1] == "Night reconciled again: simulated org"
        assert night(environment)["verdict"] == "reconciled"

        ui.open("locations/sync_pipeline/asset-groups/opportunity_sync/lineage")
        expect(ui.text("sync_rec")).to_be_visible()
        ui.picture("lineage")
        ui.open(f"assets/opportunities_synced?view=partitions&partition={drifting[0]}")
        expect(ui.text("rows_per_second")).to_be_visible()
        ui.picture("range")
        assert len(catcher.notes) == 2


def night(environment: dict[str, str]) -> dict[str, object]:
    document: dict[str, object] = json.loads(sync_pipeline(environment, "status", "--json"))
    return document
