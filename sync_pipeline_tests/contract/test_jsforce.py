"""jsforce, unchanged, against the TCP door: the client whose code the Salesforce CLI is made of.

It runs in Node, and is installed with its locked requirements below ``build/`` by the first test that needs it. Where there
is no Node, or no registry to install from, the tests are skipped with a word; on CI with Node that is a failure instead.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from sync_pipeline.simulated_org.state import Org
from sync_pipeline_tests.contract.odd_rows import held, is_refused, meant, odd_rows

HERE = Path(__file__).parent / "jsforce"
BUILD = Path(__file__).resolve().parents[2] / "build"
INSTALL_SECONDS, DRIVE_SECONDS = 150, 100
NODE_OLDEST = 18
ROWS = odd_rows("js-", 400)
GONE = [row["External_ID__c"] for row in ROWS[:20]]


def absent(why: str) -> NoReturn:
    """Skips, or fails where everything that is needed ought to be there."""
    if os.environ.get("CI") == "true" and shutil.which("node") is not None:
        pytest.fail(f"jsforce must run here: {why}")
    pytest.skip(f"jsforce does not run here: {why}")


def environment() -> dict[str, str]:
    """No proxy of this machine stands between the client and the door."""
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}


@pytest.fixture(scope="module")
def modules() -> Path:
    """Where jsforce and what it needs are installed, as locked; once for all processes that test."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        absent("there is no Node with npm on the PATH")
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(told.removeprefix("v").partition(".")[0]) < NODE_OLDEST:
        absent(f"Node is {told.strip()}, and {NODE_OLDEST} is the oldest that jsforce knows")
    locked = [HERE / "package.json", HERE / "package-lock.json"]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in locked)).hexdigest()[:12]
    folder = BUILD / f"jsforce-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            for file in locked:
                shutil.copy(file, folder)
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            try:
                done = subprocess.run(
                    command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
                )
            except subprocess.TimeoutExpired:
                absent(f"npm ci did not end in {INSTALL_SECONDS} s")
            if done.returncode:
                told = "; ".join(line for line in done.stderr.splitlines() if line.startswith("npm error"))
                absent(f"npm ci ended with {done.returncode}: {told[:300]}")
            (folder / "installed").touch()
    return folder / "node_modules"


@pytest.fixture(scope="module")
def seen(modules: Path, served: tuple[str, Org]) -> dict[str, Any]:
    """What the client saw on its way from the login to the logout."""
    door, _ = served
    given = {"url": door, "clientId": "simulated", "clientSecret": "simulated", "rows": ROWS, "gone": GONE}
    done = subprocess.run(
        ["node", str(HERE / "drive.js")],
        input=json.dumps(given), capture_output=True, text=True, timeout=DRIVE_SECONDS, check=False,
        env={**environment(), "NODE_PATH": str(modules)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_login_leads_to_an_identity_of_this_org(served: tuple[str, Org], seen: dict[str, Any]) -> None:
    door, org = served

    assert seen["login"] == {
        "id": org.user_id,
        "organizationId": org.org_id,
        "url": f"{door}/id/{org.org_id}/{org.user_id}",
    }
    assert (seen["identity"]["user_id"], seen["identity"]["organization_id"]) == (org.user_id, org.org_id)
    assert {httpx.URL(url.replace("{version}", "66.0")).netloc for url in seen["identity"]["urls"].values()} == {
        httpx.URL(door).netloc
    }
    assert seen["versions"][0] == "31.0"


def test_every_row_of_a_bulk_upsert_is_in_the_org_as_it_was_meant(
    served: tuple[str, Org], seen: dict[str, Any]
) -> None:
    _, org = served
    bad = {row["External_ID__c"] for row in ROWS if is_refused(row)}

    assert set(seen["upserted"]["succeeded"]) == {row["External_ID__c"] for row in ROWS} - bad
    assert {key for key, _ in seen["upserted"]["failed"]} == bad
    assert {error.partition(":")[0] for _, error in seen["upserted"]["failed"]} == {
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"
    }
    assert seen["upserted"]["unprocessed"] == 0
    assert held(org, "js-") == {key: row for key, row in meant(ROWS).items() if key not in GONE}


def test_bulk_query_and_query_read_every_row_by_value(seen: dict[str, Any]) -> None:
    names = {key: row[0] for key, row in meant(ROWS).items()}
    amounts = {key: row[3] for key, row in meant(ROWS).items()}

    assert {row["External_ID__c"]: row["Name"] for row in seen["bulkQuery"]} == names
    assert {
        row["External_ID__c"]: float(row["Amount"]) if row["Amount"] else None for row in seen["bulkQuery"]
    } == amounts
    assert {row["External_ID__c"]: row["Name"] for row in seen["query"]["records"]} == names
    assert {row["External_ID__c"]: row["Amount"] for row in seen["query"]["records"]} == amounts
    assert seen["count"] >= len(names)


def test_a_query_is_described_and_explained(seen: dict[str, Any]) -> None:
    columns = [one["columnName"] for one in seen["columns"]["columnMetadata"]]

    assert columns == ["Id", "External_ID__c", "Name", "Amount"]
    assert seen["explained"]["plans"][-1]["leadingOperationType"] == "TableScan"


def test_objects_are_described(seen: dict[str, Any]) -> None:
    assert {"External_ID__c", "StageName", "LeadSource", "ForecastCategoryName", "FiscalYear"} <= set(seen["described"])
    assert {"Account", "Opportunity", "User", "Profile"} <= set(seen["objects"])


def test_records_are_created_changed_retrieved_and_destroyed(seen: dict[str, Any]) -> None:
    assert (seen["retrieved"], seen["one"]) == (["js first", "js two"], "js first")
    assert (seen["updated"], seen["deletedLog"]) == (True, True)
    assert seen["destroyed"] == [True, True]
    assert seen["collection"] == [True, True, True, False]
    assert seen["recent"] == []


def test_calls_are_counted(seen: dict[str, Any]) -> None:
    assert 0 < seen["limits"]["Remaining"] < seen["limits"]["Max"]


def test_what_is_not_offered_is_no_expired_session_for_the_client(seen: dict[str, Any]) -> None:
    refused = seen["refused"]

    assert refused["search"].startswith("NOT_FOUND")
    assert refused["query"].startswith("INVALID_FIELD")
    assert "Bulk API 2.0" in refused["bulkOne"]
    assert "SOAP API is not offered" in refused["soapLogin"]
    assert "session" not in json.dumps(refused).lower()


def test_a_bulk_delete_takes_rows_away_and_a_logout_ends_the_session(
    served: tuple[str, Org], seen: dict[str, Any]
) -> None:
    _, org = served

    assert seen["deleted"] == [len(GONE), 0]
    assert not set(GONE) & set(held(org, "js-"))
    assert seen["afterwards"] == "INVALID_SESSION_ID"
