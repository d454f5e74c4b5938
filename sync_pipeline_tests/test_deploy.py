"""What `deploy/` promises: its units start, its Dagster instance is the project's own, its example names real settings."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from sync_pipeline.settings import KNOWN, PREFIXES, load_settings
from sync_pipeline_tests.postgres import database, rows
from sync_pipeline_tests.running import PROJECT, answers, environment_of, free_port, running, until

DEPLOY = PROJECT / "deploy"
UNITS = ("sync-pipeline-code", "sync-pipeline-daemon", "sync-pipeline-web")
INSTALLED = "/opt/sync_pipeline"
EMBEDDED, POSTGRES = PROJECT / "dagster.yaml", DEPLOY / "dagster.postgres.yaml"


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str
    parser.read_string((DEPLOY / f"{name}.service").read_text(encoding="utf-8"))
    return parser


def example() -> dict[str, str]:
    """The variables of the example that are set."""
    lines = (DEPLOY / "sync_pipeline.env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def command_of(name: str, environment: dict[str, str], *, entry: str = "ExecStart") -> list[str]:
    """The unit's command as systemd would start it, with the project here in the place of the installed one."""
    bin_folder = Path(sys.executable).parent
    started = unit(name)["Service"][entry].replace(f"{INSTALLED}/.venv/bin", str(bin_folder))
    expanded = re.sub(r"\$\{(\w+)\}", lambda variable: environment[variable[1]], started)
    return [word.replace(INSTALLED, str(PROJECT)) for word in shlex.split(expanded)]


# the units


@contextmanager
def storage(instance: Path) -> Iterator[dict[str, str]]:
    """The variables that this Dagster instance needs."""
    if instance == EMBEDDED:
        yield {}
    else:
        with database() as variables:
            yield variables


@pytest.mark.slow
@pytest.mark.parametrize("instance", [EMBEDDED, POSTGRES], ids=["embedded", "postgres"])
def test_the_commands_of_the_units_make_a_dagster_that_lives(instance: Path, tmp_path: Path) -> None:
    with storage(instance) as variables:
        environment = environment_of(tmp_path) | {**example(), **variables}
        environment |= {"DAGSTER_HOME": str(tmp_path), "SYNC_HOME": str(tmp_path / "nights")}
        environment |= {"DAGSTER_CODE_PORT": str(free_port()), "DAGSTER_WEB_PORT": str(free_port())}
        shutil.copy(instance, tmp_path / "dagster.yaml")
        url = f"http://127.0.0.1:{environment['DAGSTER_WEB_PORT']}"
        before = command_of(UNITS[0], environment, entry="ExecStartPre")
        subprocess.run(before, env=environment, cwd=tmp_path, check=True, capture_output=True, timeout=120)
        with ExitStack() as services:
            for name in UNITS:
                log = tmp_path / f"{name}.log"
                process = services.enter_context(
                    running(command_of(name, environment), environment, folder=tmp_path, log=log)
                )
            until(lambda: answers(f"{url}/server_info", process, log), seconds=90)
            until(lambda: locations(url) == ["sync_pipeline"], seconds=60)
            until(lambda: unhealthy_daemons(url) == [], seconds=60)
            assert sensors(url) == ["night"]
        if variables:
            assert rows(variables, "SELECT count(*) > 0 FROM daemon_heartbeats") == [(True,)]
        assert (tmp_path / ".dagster" / "history").exists() == (instance == EMBEDDED)


def ask(url: str, question: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{url}/graphql",
        data=json.dumps({"query": question}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        document: dict[str, Any] = json.load(answer)
    return document["data"]


def locations(url: str) -> list[str]:
    """Code locations that are loaded."""
    found = ask(
        url,
        "{ workspaceOrError { ... on Workspace { locationEntries {"
        " name loadStatus locationOrLoadError { __typename } } } } }",
    )
    return [
        entry["name"]
        for entry in found["workspaceOrError"]["locationEntries"]
        if entry["locationOrLoadError"] and entry["locationOrLoadError"]["__typename"] == "RepositoryLocation"
    ]


def unhealthy_daemons(url: str) -> list[str]:
    """Daemons that must run and have not said lately that they do."""
    found = ask(url, "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }")
    statuses = found["instance"]["daemonHealth"]["allDaemonStatuses"]
    assert {"SENSOR", "SCHEDULER", "QUEUED_RUN_COORDINATOR"} <= {s["daemonType"] for s in statuses if s["required"]}
    return [status["daemonType"] for status in statuses if status["required"] and not status["healthy"]]


def sensors(url: str) -> list[str]:
    """Sensors that are on."""
    found = ask(
        url,
        "{ repositoriesOrError { ... on RepositoryConnection { nodes { sensors { name sensorState { status } } } } } }",
    )
    nodes = found["repositoriesOrError"]["nodes"]
    return [s["name"] for node in nodes for s in node["sensors"] if s["sensorState"]["status"] == "RUNNING"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
def test_systemd_understands_every_line_of_the_units(tmp_path: Path) -> None:
    files = []
    for name in UNITS:
        text = (DEPLOY / f"{name}.service").read_text(encoding="utf-8")
        files.append(tmp_path / f"{name}.service")
        files[-1].write_text(text.replace(f"{INSTALLED}/.venv/bin", str(Path(sys.executable).parent)), encoding="utf-8")

    verified = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False)

    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_runs_as_nobody_special_and_comes_back(name: str) -> None:
    service = unit(name)["Service"]

    assert (service["User"], service["Restart"], service["UMask"]) == ("sync_pipeline", "always", "0077")
    assert service["EnvironmentFile"] == "/etc/sync_pipeline.env"
    assert not any(key.startswith("Environment") and key != "EnvironmentFile" for key in service)


def test_nothing_listens_beyond_this_machine() -> None:
    for name in ("sync-pipeline-code", "sync-pipeline-web"):
        words = shlex.split(unit(name)["Service"]["ExecStart"])
        assert words[words.index("--host") + 1] == "127.0.0.1"
    assert yaml.safe_load((DEPLOY / "workspace.yaml").read_text())["load_from"][0]["grpc_server"]["host"] == "127.0.0.1"


def test_a_stopped_code_server_leaves_its_runs_the_time_to_let_go_of_their_jobs() -> None:
    service = unit("sync-pipeline-code")["Service"]
    monitoring = yaml.safe_load(EMBEDDED.read_text(encoding="utf-8"))["run_monitoring"]

    assert service["KillMode"] == "control-group"
    assert int(service["TimeoutStopSec"]) > monitoring["cancel_timeout_seconds"]


# the files beside them


def test_the_instance_with_postgresql_differs_in_its_storage_alone() -> None:
    embedded, postgres = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in (EMBEDDED, POSTGRES))

    assert set(embedded) == set(postgres)
    assert {key for key in embedded if embedded[key] != postgres[key]} == {"storage"}


def test_the_location_has_the_name_that_schedules_and_sensors_remember() -> None:
    embedded = yaml.safe_load((PROJECT / "workspace.yaml").read_text(encoding="utf-8"))["load_from"][0]["python_module"]
    served = yaml.safe_load((DEPLOY / "workspace.yaml").read_text(encoding="utf-8"))["load_from"][0]["grpc_server"]
    words = shlex.split(unit("sync-pipeline-code")["Service"]["ExecStart"])

    assert served["location_name"] == embedded["location_name"] == words[words.index("--location-name") + 1]
    assert embedded["module_name"] == words[words.index("--module-name") + 1]


def test_the_example_names_settings_that_exist_and_can_be_used(tmp_path: Path) -> None:
    text = (DEPLOY / "sync_pipeline.env.example").read_text(encoding="utf-8")
    named = set(re.findall(rf"(?m)^#?((?:{'|'.join(PREFIXES)})\w+)=", text))
    uncommented = dict(line.lstrip("#").split("=", 1) for line in text.splitlines() if re.match(r"#?[A-Z_]+=", line))
    filled = {"SALESFORCE_CLIENT_ID": "id", "SALESFORCE_CLIENT_SECRET": "secret"}

    assert named <= set(KNOWN)
    assert load_settings({**example(), "SYNC_HOME": str(tmp_path)}, folder=tmp_path).is_simulated
    assert not load_settings(uncommented | filled | {"SYNC_HOME": str(tmp_path)}, folder=tmp_path).is_simulated


def test_every_file_that_the_readme_names_is_there() -> None:
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"\b(?:deploy/[\w.-]+|dagster\.yaml|requirements-postgres\.lock)", text.replace("-*", "-code"))

    assert "deploy/sync-pipeline-code.service" in named
    assert [name for name in named if not (PROJECT / name).exists()] == []


def test_no_secret_is_written_into_a_unit_or_an_instance() -> None:
    for file in (*DEPLOY.glob("*.service"), POSTGRES):
        assert not re.search(r"(?i)password\s*[:=]\s*\S", file.read_text(encoding="utf-8")), file.name
