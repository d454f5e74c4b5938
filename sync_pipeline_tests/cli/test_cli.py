"""The command as its users know it: what it prints, what it keeps, and with which exit code it ends."""

from __future__ import annotations

import csv
import datetime as dt
import json
from pathlib import Path

import httpx
import polars as pl
import pytest

from sync_pipeline.simulated_org.app import OrgTransport
from sync_pipeline.simulated_org.seed import SOURCE
from sync_pipeline.simulated_org.source import source_rows, write_source
from sync_pipeline.simulated_org.state import Org
from sync_pipeline_tests.cli.conftest import Run

COUNTS = ("expected", "staged", "succeeded", "created", "updated", "failed", "unprocessed", "quarantined")


# a night


def test_a_night_ends_reconciled_with_exit_code_0(run: Run) -> None:
    run("org", "seed", "--rows", "200")

    ran = run("sync")

    assert ran.code == 0
    assert "Reconciled: every expected row is in the org with equal values." in ran.out
    assert "present 200, missing 0, different 0, orphans 0" in ran.out


def test_json_is_one_document_whose_numbers_add_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", "60")
    run("org", "seed", "--rows", "200")

    document = run("sync", "--json").document

    totals, ranges = document["totals"], document["ranges"]
    assert document["verdict"] == "reconciled"
    assert len(ranges) > 1
    assert {name: sum(row[name] for row in ranges) for name in COUNTS} == {name: totals[name] for name in COUNTS}
    assert (totals["expected"], totals["created"], totals["present"], totals["missing"]) == (200, 200, 200, 0)
    assert document["api_calls"] > 0
    assert document["seconds"] > 0


def test_a_second_sync_is_a_new_night_that_creates_nothing(run: Run) -> None:
    run("org", "seed", "--rows", "200")
    first = run("sync", "--json").document

    second = run("sync", "--json").document

    assert second["plan_id"] > first["plan_id"]
    assert (second["totals"]["created"], second["totals"]["updated"]) == (0, 200)


def test_progress_goes_to_stderr_and_no_colour_codes_go_into_pipes(run: Run) -> None:
    run("org", "seed", "--rows", "200")

    ran = run("sync")

    assert "\x1b" not in ran.out + ran.err
    assert "saved" in ran.err


def test_sync_says_where_its_state_is(run: Run, home: Path) -> None:
    run("org", "seed", "--rows", "200")

    assert f"state: {home}" in run("sync").err


def test_quiet_says_nothing_on_the_way(run: Run) -> None:
    run("org", "seed", "--rows", "200")

    assert run("sync", "--quiet").err == ""


def test_a_single_range_of_a_finished_night_is_done_once_more_and_measured_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", "60")
    run("org", "seed", "--rows", "200")
    first = run("sync", "--json").document
    partition = first["ranges"][1]["partition"]

    ran = run("sync", "--range", partition, "--json")

    assert ran.code == 0
    assert ran.document["plan_id"] == first["plan_id"]
    assert [row["updated"] > 0 for row in ran.document["ranges"]].count(True) == 1


def test_an_unknown_range_is_refused_with_the_ranges_there_are(run: Run) -> None:
    run("org", "seed", "--rows", "200")
    known = run("sync", "--json").document["ranges"][0]["partition"]

    ran = run("sync", "--range", "nowhere-00000000")

    assert ran.code == 2
    assert "has no range nowhere-00000000" in ran.err
    assert known in ran.err


def test_an_unknown_range_of_a_fresh_night_is_refused_before_the_unfinished_one_is_given_up(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", "60")
    run("org", "seed", "--rows", "200")
    unfinished = run("sync", "--range", _first_range(run), "--json").document

    ran = run("sync", "--range", "nowhere-00000000", "--fresh")

    after = run("status", "--json").document
    assert ran.code == 2
    assert "has no range nowhere-00000000" in ran.err
    assert (after["plan_id"], after["verdict"]) == (unfinished["plan_id"], None)


def test_a_fresh_night_of_one_range_gives_the_unfinished_one_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", "60")
    run("org", "seed", "--rows", "200")
    first = _first_range(run)
    unfinished = run("sync", "--range", first, "--json")

    fresh = run("sync", "--range", first, "--fresh", "--json")

    assert (unfinished.code, fresh.code) == (1, 1)
    assert fresh.document["plan_id"] > unfinished.document["plan_id"]
    assert [row["state"] for row in fresh.document["ranges"]] == ["done", "planned", "planned"]


def _first_range(run: Run) -> str:
    partition: str = run("plan", "--json").document["ranges"][0]["partition"]
    return partition


def test_a_range_that_fails_after_the_verdict_ends_with_1_and_not_with_the_old_verdict(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", "100")
    run("org", "seed", "--rows", "200")
    partition = run("sync", "--json").document["ranges"][0]["partition"]
    run("org", "fault", "add", "answer", "endpoint=create", "status=400", "code=INVALIDJOB")

    ran = run("sync", "--range", partition)

    assert ran.code == 1
    assert "Reconciled" not in ran.out
    assert f"range {partition} is failed" in ran.out


def test_an_empty_source_is_a_reconciled_night_of_no_rows(run: Run) -> None:
    run("org", "seed", "--rows", "0")

    ran = run("sync", "--json")

    assert ran.code == 0
    assert ran.document["totals"]["expected"] == 0
    assert len(ran.document["ranges"]) == 1


def test_a_source_of_one_row_is_a_night_like_any_other(run: Run) -> None:
    run("org", "seed", "--rows", "1")

    ran = run("sync", "--json")

    assert (ran.code, ran.document["totals"]["created"]) == (0, 1)


# looking


def test_status_before_the_first_night_says_so_and_leaves_no_trace(run: Run, home: Path) -> None:
    ran = run("status")

    assert ran.code == 0
    assert "No night yet" in ran.out
    assert not home.exists()


def test_status_tells_every_range_and_the_verdict(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", "60")
    run("org", "seed", "--rows", "200")
    ranges = run("sync", "--json").document["ranges"]

    shown, document = run("status"), run("status", "--json").document

    assert all(row["partition"] in shown.out for row in ranges)
    assert "Reconciled" in shown.out
    assert document["verdict"] == "reconciled"
    assert document["open_jobs"] == []
    assert [row["succeeded"] for row in document["ranges"]] == [row["succeeded"] for row in ranges]


def test_watching_a_finished_night_ends_at_once(run: Run) -> None:
    run("org", "seed", "--rows", "200")
    run("sync")

    ran = run("status", "--watch")

    assert (ran.code, "Reconciled" in ran.out) == (0, True)


def test_a_plan_keeps_nothing_and_holds_every_row(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", "60")
    run("org", "seed", "--rows", "200")

    shown, planned = run("plan"), run("plan", "--json")

    assert (shown.code, planned.code) == (0, 0)
    assert sum(row["expected"] for row in planned.document["ranges"]) == 200
    assert planned.document["ranges"][0]["after"] is None
    assert planned.document["ranges"][-1]["through"] is None
    assert "No night yet" in run("status").out


def test_reconcile_names_what_changed_at_the_source_since(run: Run) -> None:
    run("org", "seed", "--rows", "200")
    run("sync")
    before = run("reconcile", "--json")
    run("org", "seed", "--rows", "200", "--next-night", "--change", "0.1")

    after = run("reconcile", "--json")

    assert (before.code, before.document["state"], before.document["totals"]["present"]) == (0, "equal", 200)
    assert (after.code, after.document["state"]) == (0, "changed since")
    assert after.document["changed_since"] > 0


def test_reconcile_before_the_first_night_finds_every_row_missing(run: Run) -> None:
    run("org", "seed", "--rows", "200")

    ran = run("reconcile", "--json")

    assert (ran.code, ran.document["state"], ran.document["totals"]["missing"]) == (1, "drift", 200)


PUBLIC = {"plan_id", "org", "verdict", "state", "totals", "api_calls", "seconds", "ranges"}
MEASURED = {"present", "missing", "different", "orphans"}


@pytest.mark.parametrize("had_a_night", [False, True])
def test_the_document_of_reconcile_has_one_shape_and_its_numbers_add_up(
    run: Run, monkeypatch: pytest.MonkeyPatch, had_a_night: bool
) -> None:
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", "60")
    run("org", "seed", "--rows", "200")
    if had_a_night:
        run("sync")
        run("org", "seed", "--next-night", "--change", "0.1", "--insert", "0.1")

    document = run("reconcile", "--json").document

    ranges, totals = document["ranges"], document["totals"]
    assert document.keys() >= PUBLIC
    assert all({"partition", "after", "through", "state", *COUNTS, *MEASURED} <= row.keys() for row in ranges)
    assert {*COUNTS, *MEASURED} <= totals.keys()
    for name in ("expected", *MEASURED):
        assert sum(row[name] for row in ranges) == totals[name], name
    assert totals["expected"] == (220 if had_a_night else 200)
    assert totals["staged"] == (200 if had_a_night else None)
    assert {row["state"] for row in ranges} == ({"equal"} if had_a_night else {"drift"})
    assert (ranges[0]["after"], ranges[-1]["through"]) == (None, None)


def test_reconcile_writes_nothing(run: Run) -> None:
    run("org", "seed", "--rows", "200")
    run("sync")
    before = run("status", "--json").document

    run("reconcile")

    assert run("status", "--json").document["ranges"] == before["ranges"]


def test_limits_name_the_headroom_and_what_the_night_used(run: Run) -> None:
    run("org", "seed", "--rows", "200")
    run("sync")

    shown, document = run("limits"), run("limits", "--json").document

    assert shown.code == 0
    assert "DailyApiRequests" in shown.out
    assert sum(document["api_calls"].values()) > 0


def test_doctor_ticks_everything_of_a_seeded_simulated_org(run: Run) -> None:
    run("org", "seed", "--rows", "200")

    ran = run("doctor")

    assert ran.code == 0
    assert "✗" not in ran.out
    for name in ("settings", "home", "mapping", "login", "source", "target", "key", "limits", "other loads"):
        assert name in ran.out


def test_doctor_and_plan_name_others_who_load_the_target(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("org", "seed", "--rows", "200")
    run("sync")
    job_id = _job_of_somebody(home / "simulated_org")

    examined, planned = run("doctor"), run("plan")
    monkeypatch.setenv("SYNC_OTHER_LOADS", "refuse")
    refused = [run("plan"), run("sync")]

    assert (examined.code, job_id in examined.out) == (1, True)
    assert (planned.code, job_id in planned.out) == (0, True)
    assert [(ran.code, job_id in ran.err, "SYNC_OTHER_LOADS" in ran.err) for ran in refused] == [(1, True, True)] * 2


def _job_of_somebody(folder: Path) -> str:
    """An ingest job that a person of the org has just created."""
    door = OrgTransport(folder)
    with httpx.Client(transport=door, base_url="https://embedded.invalid") as client:
        login = {"grant_type": "client_credentials", "client_id": "simulated", "client_secret": "simulated"}
        token = client.post("/services/oauth2/token", data=login).json()["access_token"]
        job = {"object": "Opportunity", "operation": "upsert", "externalIdFieldName": "External_ID__c"}
        made = client.post(
            "/services/data/v66.0/jobs/ingest", json=job, headers={"Authorization": f"Bearer {token}"}
        ).json()
    with door.org.write() as connection:
        connection.execute("UPDATE job SET created_by = ? WHERE id = ?", (door.org.admin_id, made["id"]))
    door.org.close()
    return str(made["id"])


# single rows


def test_trace_follows_a_key_from_the_source_to_the_org(run: Run) -> None:
    run("org", "seed", "--rows", "200")
    run("sync")
    key = run("plan", "--json").document["profile"]["min_key"]

    ran = run("trace", key)

    assert ran.code == 0
    for word in ("source", "staged", "job", "created", "org"):
        assert word in ran.out


def test_trace_of_a_key_that_nobody_knows_ends_with_1(run: Run) -> None:
    run("org", "seed", "--rows", "200")
    run("sync")

    assert run("trace", "nobody").code == 1


def test_rejects_of_a_clean_night_are_a_header_alone(run: Run, tmp_path: Path) -> None:
    run("org", "seed", "--rows", "200")
    run("sync")

    ran = run("rejects", "--csv", str(tmp_path / "rejects.csv"))

    rows = list(csv.reader((tmp_path / "rejects.csv").read_text().splitlines()))
    assert ran.code == 0
    assert rows == [
        "key outcome code message column ExternalId__c Name__c StageName__c Amount__c CloseDate__c Account__c".split()
    ]


# switches


def test_stop_without_a_night_writes_nothing(run: Run, home: Path) -> None:
    ran = run("stop")

    assert ran.code == 0
    assert "There is no night to stop." in ran.out
    assert not home.exists()


def test_stop_of_a_finished_night_changes_nothing(run: Run) -> None:
    run("org", "seed", "--rows", "200")
    run("sync")

    ran = run("stop")

    assert ran.code == 0
    assert "nothing to stop" in ran.out
    assert run("status", "--json").document["stop_requested"] is False


def test_restart_without_a_night_says_how_to_start_one(run: Run) -> None:
    run("org", "seed", "--rows", "200")

    ran = run("restart")

    assert ran.code == 2
    assert "sync-pipeline sync" in ran.err


def test_restart_all_does_every_range_of_a_finished_night_again(run: Run) -> None:
    run("org", "seed", "--rows", "200")
    run("sync")

    ran = run("restart", "--all", "--json")

    assert (ran.code, ran.document["totals"]["updated"]) == (0, 200)


def test_restart_runs_the_ranges_that_were_given_up_and_no_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", "60")
    monkeypatch.setenv("SYNC_RANGE_ATTEMPTS", "1")
    monkeypatch.setenv("SYNC_LANES", "1")
    run("org", "seed", "--rows", "200")
    run("org", "fault", "add", "answer", "endpoint=create", "status=400", "code=INVALIDJOB", "times=1")
    failed = run("sync", "--json")

    again = run("restart", "--failed", "--json")

    assert (failed.code, failed.document["verdict"]) == (1, "not reconciled")
    assert [row["state"] for row in failed.document["ranges"]] == ["given up", "done", "done"]
    assert (again.code, again.document["verdict"]) == (0, "reconciled")
    assert again.document["plan_id"] == failed.document["plan_id"]
    assert again.document["totals"]["created"] == 200


def test_restart_of_one_range_that_is_done_sends_that_one_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", "60")
    run("org", "seed", "--rows", "200")
    ranges = run("sync", "--json").document["ranges"]

    ran = run("restart", "--range", ranges[2]["partition"], "--json")

    assert ran.code == 0
    assert [(row["created"], row["updated"] > 0) for row in ran.document["ranges"]] == [
        (ranges[0]["created"], False),
        (ranges[1]["created"], False),
        (0, True),
    ]


def test_a_parked_night_says_so_and_a_restart_tries_it_at_once(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("org", "seed", "--rows", "200")
    org = Org(home / "simulated_org")
    org.set_setting("api_used", 79_990)

    parked, again = run("sync"), run("sync")
    status = run("status", "--json").document
    org.set_setting("api_used", None)
    ended = run("restart")
    org.close()

    assert (parked.code, again.code, ended.code) == (1, 1, 0)
    assert "Parked until" in parked.out and "sync-pipeline sync --wait" in parked.out
    assert (status["state"], status["parked_reason"].split(".")[0]) == (
        "parked",
        again.out.split(" UTC: ")[1].split(".")[0],
    )
    assert "Reconciled" in ended.out


# what a user can get wrong: one clear sentence, the next step, exit code 2, no traceback


def test_a_simulated_org_that_was_never_seeded_names_the_next_step(run: Run) -> None:
    ran = run("sync")

    assert ran.code == 2
    assert "sync-pipeline org seed --rows 200000" in ran.err


@pytest.mark.parametrize("verb", [("sync",), ("plan",), ("doctor",), ("status",), ("reconcile",)])
def test_a_number_that_is_none_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]) -> None:
    monkeypatch.setenv("SYNC_ROWS_PER_RANGE", "many")

    ran = run(*verb)

    assert ran.code == 2
    assert "SYNC_ROWS_PER_RANGE" in ran.out + ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("this is = = not toml", "mapping.toml"),
        ("[source]\n", "[target]"),
    ],
)
def test_a_malformed_mapping_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toml: str, words: str
) -> None:
    run("org", "seed", "--rows", "200")
    (tmp_path / "mapping.toml").write_text(toml)
    monkeypatch.setenv("SYNC_MAPPING", str(tmp_path / "mapping.toml"))

    ran = run("sync")

    assert ran.code == 2
    assert words in ran.err
    assert "Traceback" not in ran.err


def test_a_mapping_file_that_is_not_there_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_MAPPING", "nowhere.toml")

    ran = run("plan")

    assert ran.code == 2
    assert "nowhere.toml" in ran.err


@pytest.mark.parametrize(
    ("known", "unknown"), [('"Name__c"', '"Nickname__c"'), ('"Amount"', '"Wealth"'), ('"Opportunity"', '"Chance__c"')]
)
def test_a_mapping_of_columns_that_do_not_exist_is_refused_before_anything_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str, unknown: str
) -> None:
    run("org", "seed", "--rows", "200")
    packaged = Path(__file__).parents[2] / "sync_pipeline" / "opportunity.toml"
    (tmp_path / "mapping.toml").write_text(packaged.read_text().replace(known, unknown))
    monkeypatch.setenv("SYNC_MAPPING", str(tmp_path / "mapping.toml"))

    ran = run("sync")

    assert ran.code == 2
    assert unknown.strip('"') in ran.err
    assert "No night yet" in run("status").out


@pytest.mark.parametrize("verb", ["doctor", "plan", "sync"])
def test_pairs_of_types_that_cannot_be_carried_are_refused_by_every_verb_with_every_reason(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    run("org", "seed", "--rows", "200")
    org = Org(home / "simulated_org")
    scored = source_rows(org, SOURCE).with_columns(
        pl.lit(1.5).alias("Score__c"), pl.lit(True).alias("Hot__c"), pl.lit(dt.time(1, 2)).alias("Hour__c")
    )
    write_source(org, SOURCE, [scored])
    fields = (("Score__c", "NextStep", "text"), ("Hot__c", "TotalOpportunityQuantity", "number"))
    written = "".join(f'[[field]]\nsource = "{s}"\ntarget = "{t}"\ntype = "{w}"\n' for s, t, w in fields)
    packaged = (Path(__file__).parents[2] / "sync_pipeline" / "opportunity.toml").read_text()
    mapping = packaged.replace('source = "CloseDate__c"', 'source = "Hour__c"') + written
    (tmp_path / "mapping.toml").write_text(mapping)
    monkeypatch.setenv("SYNC_MAPPING", str(tmp_path / "mapping.toml"))

    ran = run(verb)

    assert ran.code == 2
    for reason in (
        "'Score__c' is of SQL type double, which cannot fill 'NextStep' as text",
        "'Hot__c' is of SQL type bool, which cannot fill 'TotalOpportunityQuantity' as number",
        "'Hour__c' is of SQL type time, which cannot fill 'CloseDate' as date",
    ):
        assert reason in ran.out + ran.err
    assert "Traceback" not in ran.err
    assert "No night yet" in run("status").out
    assert org.db().execute("SELECT id FROM job").fetchall() == []


def test_a_login_without_a_url_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALESFORCE_CLIENT_ID", "id")

    ran = run("sync")

    assert ran.code == 2
    assert "SALESFORCE_LOGIN_URL" in ran.err


def test_plain_http_to_another_machine_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _point_to("http://salesforce.example.com", monkeypatch)

    ran = run("sync")

    assert ran.code == 2
    assert "plain http" in ran.err
    assert "s3cret" not in ran.out + ran.err


def test_a_usage_error_ends_with_2(run: Run) -> None:
    assert run("sync", "--nonsense").code == 2
    assert run("dance").code == 2
    assert run().code == 2


def test_an_error_is_the_one_json_document_too(run: Run) -> None:
    ran = run("sync", "--json")

    assert ran.code == 2
    assert ran.document["state"] == "refused"
    assert "org seed" in ran.document["hint"]


def test_a_home_that_cannot_be_written_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SYNC_HOME", str(tmp_path / "file"))

    ran = run("sync")

    assert ran.code == 2
    assert "Traceback" not in ran.err


def _point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALESFORCE_LOGIN_URL", url)
    monkeypatch.setenv("SALESFORCE_CLIENT_ID", "client")
    monkeypatch.setenv("SALESFORCE_CLIENT_SECRET", "s3cret")


# the simulated org


def test_seeding_for_the_next_night_fills_an_empty_org_and_changes_a_filled_one(run: Run) -> None:
    first = run("org", "seed", "--rows", "200", "--next-night")
    second = run("org", "seed", "--rows", "200", "--next-night", "--change", "0.5")

    assert (first.code, second.code) == (0, 0)
    assert "200 rows" in first.out
    assert "changed" in second.out


def test_a_reset_needs_a_yes(run: Run) -> None:
    run("org", "seed", "--rows", "200")

    refused = run("org", "reset")
    done = run("org", "reset", "--yes")

    assert (refused.code, done.code) == (2, 0)
    assert run("sync").code == 2


def test_help_names_every_verb(run: Run) -> None:
    ran = run("--help")

    assert ran.code == 0
    for verb in "sync plan status reconcile stop restart doctor limits rejects trace org".split():
        assert verb in ran.out


def test_the_version_is_told(run: Run) -> None:
    ran = run("--version")

    assert (ran.code, ran.out.startswith("sync-pipeline ")) == (0, True)


def test_every_document_is_plain_ascii_json(run: Run) -> None:
    run("org", "seed", "--rows", "5")
    run("sync")

    for verb in ("status", "reconcile", "plan", "limits"):
        assert json.loads(run(verb, "--json").out.encode("ascii"))
