"""Settings: what is taken, what is refused, and that a start tells everything that must be mended."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.domain.errors import SettingsError
from sync_pipeline.domain.policy import Policy, Verify
from sync_pipeline.domain.secret import Secret
from sync_pipeline.settings import KNOWN, OWN, PACKAGED_MAPPING, SETTINGS, STEERING, Settings, describe, load_settings
from sync_pipeline.settings.reading import read_env_file
from sync_pipeline.settings.values import duration, shown_duration, shown_size, size

URL = "https://acme.my.salesforce.com"
LOGIN = {
    "SALESFORCE_LOGIN_URL": URL,
    "SALESFORCE_CLIENT_ID": "c0nsumer",
    "SALESFORCE_CLIENT_SECRET": "s3cret",
    "SYNC_HOME": "state",
}
PEM = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"
FIXED = {
    "sort_slots": "more than two ranges put in order at once would not fit into the memory that is promised",
    "batch_rows": "Salesforce cuts batches of this size",
    "rerun_pauses": "they only keep a failing range from a storm of runs",
}
"""Fields of Policy that are no settings."""


def load(folder: Path, **variables: str) -> Settings:
    return load_settings(variables, folder=folder)


def refusal(folder: Path, **variables: str) -> SettingsError:
    with pytest.raises(SettingsError) as refused:
        load(folder, **variables)
    return refused.value


# laws


@given(st.dictionaries(st.sampled_from(sorted(KNOWN)), st.text(max_size=12)))
def test_any_text_in_any_variable_gives_settings_or_one_error_that_names_only_variables_that_were_involved(
    variables: dict[str, str],
) -> None:
    try:
        load_settings(variables, folder=Path("/nonexistent"))
    except SettingsError as error:
        named = set(re.findall(r"\b(?:SYNC|SALESFORCE|DATA_CLOUD)_[A-Z_]*[A-Z]", error.message))
        assert named <= set(KNOWN)
        assert named & set(variables)


@given(st.integers(min_value=0, max_value=300_000))
def test_a_time_is_read_as_it_is_shown(seconds: int) -> None:
    span = timedelta(seconds=seconds)

    assert duration(least=timedelta(0))(shown_duration(span)) == span


@given(st.integers(min_value=0, max_value=10**6), st.sampled_from([1000**2, 1024**2, 1000**3, 1024**3]))
def test_a_size_is_read_as_it_is_shown(units: int, unit: int) -> None:
    assert size(shown_size(units * unit)) == units * unit


plain = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), max_size=20)


@given(plain.filter(lambda value: "${" not in value and "\\" not in value and "'" not in value))
def test_a_quoted_value_of_the_env_file_is_taken_as_it_stands(value: str) -> None:
    problems: list[str] = []
    file = Path("values.env")
    file.write_text(f"SYNC_ALERTS='{value}'  # said 'so'\n", encoding="utf-8")

    found = read_env_file(file, problems)

    assert problems == []
    assert found["SYNC_ALERTS"].text == value


# the list of settings


def test_every_number_that_steers_a_night_is_a_setting_or_fixed_for_a_reason() -> None:
    assert {setting.name for setting in STEERING} | set(FIXED) == {field.name for field in fields(Policy)}


def test_the_written_defaults_are_those_of_the_policy(tmp_path: Path) -> None:
    assert load(tmp_path).policy == Policy()


def test_every_own_setting_fills_a_field() -> None:
    assert {setting.name for setting in OWN} <= {field.name for field in fields(Settings)}


def test_names_and_variables_are_used_once() -> None:
    assert len(KNOWN) == len(SETTINGS) == len({setting.name for setting in SETTINGS})


def test_every_setting_says_what_it_is_for_and_what_it_is_without_being_set() -> None:
    for row in describe():
        assert row.why[0].isupper() or row.why.startswith("`")
        assert not row.why.endswith(".")
        assert row.default
        assert row.unit


# which org


def test_without_any_salesforce_variable_the_simulated_org_is_used(tmp_path: Path) -> None:
    settings = load(tmp_path)

    assert settings.is_simulated
    assert settings.login_url == ""
    assert settings.is_scheduled


def test_a_whole_login_selects_a_real_org_that_does_not_start_by_itself(tmp_path: Path) -> None:
    settings = load(tmp_path, **LOGIN)

    assert not settings.is_simulated
    assert settings.login_url == URL
    assert settings.client_id.reveal() == "c0nsumer"
    assert settings.client_secret == Secret("s3cret")
    assert settings.private_key is None
    assert not settings.is_scheduled


def test_a_schedule_can_be_switched_on_and_off_for_any_org(tmp_path: Path) -> None:
    assert load(tmp_path, SYNC_SCHEDULE="on", **LOGIN).is_scheduled
    assert not load(tmp_path, SYNC_SCHEDULE="off").is_scheduled


def test_a_private_key_takes_the_place_of_a_secret(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(PEM, encoding="ascii")

    settings = load(
        tmp_path,
        SALESFORCE_LOGIN_URL="https://login.salesforce.com",
        SALESFORCE_CLIENT_ID="c0nsumer",
        SALESFORCE_USERNAME="sync@acme.com",
        SALESFORCE_PRIVATE_KEY_FILE="key.pem",
        SALESFORCE_JWT_AUDIENCE="https://test.salesforce.com",
        SYNC_HOME="state",
    )

    assert settings.private_key == Secret(PEM)
    assert settings.client_secret is None
    assert (settings.username, settings.jwt_audience) == ("sync@acme.com", "https://test.salesforce.com")


@pytest.mark.parametrize("present", sorted(name for name in KNOWN if name.startswith("SALESFORCE_")))
@pytest.mark.parametrize("value", ["", "x"])
def test_one_salesforce_variable_alone_is_never_the_simulated_org(tmp_path: Path, present: str, value: str) -> None:
    error = refusal(tmp_path, **{present: value})

    assert "SALESFORCE_" in error.message
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"SALESFORCE_LOGIN_URL": ""}, "SALESFORCE_LOGIN_URL is empty, but a real org is meant"),
        ({"SALESFORCE_CLIENT_ID": ""}, "SALESFORCE_CLIENT_ID is empty"),
        ({"SALESFORCE_CLIENT_SECRET": ""}, "SALESFORCE_CLIENT_SECRET is empty; set it, or SALESFORCE_USERNAME"),
        ({"SALESFORCE_USERNAME": "sync@acme.com"}, "needs SALESFORCE_PRIVATE_KEY_FILE too"),
        (
            {"SALESFORCE_LOGIN_URL": "acme.my.salesforce.com"},
            "SALESFORCE_LOGIN_URL=acme.my.salesforce.com is not a URL",
        ),
        ({"SALESFORCE_LOGIN_URL": "http://acme.my.salesforce.com"}, "plain http"),
        ({"SALESFORCE_LOGIN_URL": f"{URL}/services/oauth2/token"}, "must end after the host name"),
        ({"SALESFORCE_LOGIN_URL": "https://acme.lightning.force.com"}, "the address of the Lightning pages"),
        ({"SALESFORCE_LOGIN_URL": "https://login.salesforce.com"}, "takes no client secret"),
        ({"SALESFORCE_API_VERSION": "v66"}, "write it like 66.0"),
        ({"DATA_CLOUD_QUERY_API": "v2"}, "DATA_CLOUD_QUERY_API=v2 is unknown; write connect or v3"),
        ({"DATA_CLOUD_DATASPACE": "a b"}, "DATA_CLOUD_DATASPACE=a b is not an API name"),
    ],
)
def test_a_login_that_is_not_whole_says_what_to_do(tmp_path: Path, change: dict[str, str], told: str) -> None:
    assert told in refusal(tmp_path, **(LOGIN | change)).message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("ssh-rsa AAAA", "holds no private key in PEM form"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "is encrypted"),
        ("\x00\xff", "it is not text"),
    ],
)
def test_a_key_file_that_is_no_use_is_told_before_the_login(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "key.pem").write_text(content, encoding="latin-1")
    variables = {name: value for name, value in LOGIN.items() if name != "SALESFORCE_CLIENT_SECRET"}

    error = refusal(tmp_path, SALESFORCE_USERNAME="u", SALESFORCE_PRIVATE_KEY_FILE="key.pem", **variables)

    assert told in error.message


def test_a_secret_and_a_key_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(PEM, encoding="ascii")

    error = refusal(tmp_path, SALESFORCE_USERNAME="u", SALESFORCE_PRIVATE_KEY_FILE="key.pem", **LOGIN)

    assert "SALESFORCE_CLIENT_SECRET and SALESFORCE_PRIVATE_KEY_FILE are both set" in error.message


@pytest.mark.parametrize("url", ["http://127.0.0.1:8765", "http://localhost:8765", "http://[::1]:8765"])
def test_plain_http_is_for_this_machine(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, **(LOGIN | {"SALESFORCE_LOGIN_URL": url})).login_url == url


# names


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("SALESFORCE_CLIENTID", "SALESFORCE_CLIENT_ID"),
        ("SALESFORCE_LOGINURL", "SALESFORCE_LOGIN_URL"),
        ("SALSEFORCE_LOGIN_URL", "SALESFORCE_LOGIN_URL"),
        ("salesforce_login_url", "SALESFORCE_LOGIN_URL"),
        ("SYNC_LANE", "SYNC_LANES"),
        ("SYNC_ROWS_PER_RANGES", "SYNC_ROWS_PER_RANGE"),
        ("SYNCHOME", "SYNC_HOME"),
        ("DATACLOUD_DATASPACE", "DATA_CLOUD_DATASPACE"),
    ],
)
def test_a_misspelt_variable_is_named_with_the_one_that_was_meant(tmp_path: Path, variable: str, meant: str) -> None:
    assert f"{variable} is not a setting; did you mean {meant}?" in refusal(tmp_path, **{variable: "x"}).message


@pytest.mark.parametrize("variable", ["SYNC_COLOUR", "SALESFORCE_PASSWORD"])
def test_a_variable_that_nothing_would_read_is_refused(tmp_path: Path, variable: str) -> None:
    assert f"{variable} is not a setting" in refusal(tmp_path, **{variable: "x"}).message


@pytest.mark.parametrize(
    "variable", ["OLD_SYNC_HOME", "PATH", "DAGSTER_HOME", "VITE_SALESFORCE_LOGIN_URL", "DATA_CLOUD"]
)
def test_variables_of_others_are_left_alone(tmp_path: Path, variable: str) -> None:
    assert load(tmp_path, **{variable: "x"}).is_simulated


def test_beside_a_whole_login_other_programs_may_have_salesforce_variables_of_their_own(tmp_path: Path) -> None:
    assert load(tmp_path, SALESFORCE_SECURITY_TOKEN="t", **LOGIN).login_url == URL


# values


def test_values_arrive_in_the_policy(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        SYNC_ROWS_PER_RANGE="50_000",
        SYNC_VERIFY="keys",
        SYNC_API_RESERVE="0.1",
        SYNC_START_WINDOW="90 min",
        SYNC_DEADLINE="06:30",
        SYNC_TIMEZONE="Europe/Berlin",
        SYNC_JOB_DEADLINE="2h",
        SYNC_PART_BYTES="10 MB",
        SYNC_DISK_RESERVE="1 GiB",
        SYNC_DUCKDB_MEMORY="1 GB",
        SYNC_KEEP_ROWS="1.5 d",
    )

    policy = settings.policy
    assert (policy.rows_per_range, policy.verify, policy.api_reserve) == (50_000, Verify.KEYS, 0.1)
    assert (policy.start_window, policy.deadline) == (timedelta(minutes=90), "06:30")
    assert (policy.timezone, settings.timezone) == ("Europe/Berlin", "Europe/Berlin")
    assert policy.job_deadline_seconds == 7200.0
    assert (policy.part_bytes, policy.disk_reserve_bytes, policy.duckdb_memory) == (10_000_000, 1024**3, "1GB")
    assert policy.keep_rows == timedelta(hours=36)


def test_an_empty_variable_and_none_are_the_default(tmp_path: Path) -> None:
    assert load(tmp_path, SYNC_LANES="", SYNC_DEADLINE="none", SYNC_ALERTS=" ").policy == Policy()


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("SYNC_LANES", "many", "is not a number; write a whole number from 1 to 100"),
        ("SYNC_LANES", "0", "is out of bounds; write a whole number from 1 to 100"),
        ("SYNC_ROWS_PER_RANGE", "-1", "is out of bounds; write a whole number of at least 1"),
        ("SYNC_ROWS_PER_RANGE", "1e5", "is not a number"),
        ("SYNC_API_RESERVE", "20%", "is not a number; write one from 0 to 0.95"),
        ("SYNC_API_RESERVE", "20", "is out of bounds; write a number from 0 to 0.95"),
        ("SYNC_FAILED_SHARE_MAX", "nan", "is out of bounds"),
        ("SYNC_START_WINDOW", "4", "write a number and its unit (s, min, h or d), such as 4 h"),
        ("SYNC_START_WINDOW", "0 s", "is out of bounds; write a time from 1 min to 3650 d"),
        ("SYNC_KEEP_ROWS", "999999999 d", "is out of bounds"),
        ("SYNC_DEADLINE", "6:30", "write HH:MM, such as 06:00, or none"),
        ("SYNC_DEADLINE", "24:00", "write HH:MM"),
        ("SYNC_TIMEZONE", "Berlin", "is not a time zone; write an IANA name"),
        ("SYNC_TIMEZONE", "../etc", "is not a time zone"),
        ("SYNC_VERIFY", "all", "is unknown; write values, keys, counts"),
        ("SYNC_SCHEDULE", "yes", "is unknown; write on or off"),
        ("SYNC_DUCKDB_MEMORY", "128", "write at least 64MB"),
        ("SYNC_DUCKDB_MEMORY", "32MB", "write at least 64MB"),
        ("SYNC_PART_BYTES", "1 GB", "SYNC_PART_BYTES is out of bounds; write 1 MB to 100 MB"),
        ("SYNC_POLL_SECONDS", "80", "SYNC_POLL_SECONDS is above SYNC_POLL_SECONDS_MAX"),
        ("SYNC_KEEP_LEDGERS", "1 d", "SYNC_KEEP_ROWS is longer than SYNC_KEEP_LEDGERS"),
        ("SYNC_ALERTS", "slack", "SYNC_ALERTS=*** holds something that is not a URL"),
        ("SYNC_BOOK_URL", "mysql://u:s3cret@db.example/book", "SYNC_BOOK_URL=*** is no database"),
        ("SYNC_BOOK_URL", "postgresql://u:s3cret@db.example", "SYNC_BOOK_URL=*** is no database"),
        ("SYNC_BOOK_URL", "postgresql://u:s3cret@db.example:none/book", "SYNC_BOOK_URL=*** has a wrong host or port"),
        ("SYNC_HEARTBEAT_URL", "http://watch.example/abc", "SYNC_HEARTBEAT_URL=*** is plain http"),
        ("SYNC_HEARTBEAT_URL", "https://watch.example/a b", "SYNC_HEARTBEAT_URL=*** holds a blank"),
    ],
)
def test_a_wrong_value_is_told_with_what_to_write_instead(tmp_path: Path, variable: str, value: str, told: str) -> None:
    assert told in refusal(tmp_path, **{variable: value}).message


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    error = refusal(
        tmp_path,
        SYNC_LANES="many",
        SYNC_VERIFY="all",
        SYNC_COLOUR="red",
        SALESFORCE_CLIENT_ID="c0nsumer",
        SYNC_LANE="1",
    )

    for variable in ("SYNC_LANES", "SYNC_VERIFY", "SYNC_COLOUR", "SALESFORCE_LOGIN_URL", "SYNC_LANE "):
        assert variable in error.message
    assert "\n" not in str(error)


def test_alert_targets_are_parted_by_blanks(tmp_path: Path) -> None:
    settings = load(tmp_path, SYNC_ALERTS="slack://a/b/c\n mailto://u:p@example.com?to=x,y ")

    assert settings.alerts == (Secret("slack://a/b/c"), Secret("mailto://u:p@example.com?to=x,y"))


# secrets


def test_no_secret_is_ever_shown(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(PEM, encoding="ascii")
    variables = {
        **LOGIN,
        "SYNC_ALERTS": "slack://t0ken/b/c",
        "SYNC_HEARTBEAT_URL": "https://watch.example/s3cret-path",
        "SYNC_BOOK_URL": "postgresql://user:s3cret@db.example/book",
    }

    settings = load(tmp_path, **variables)

    for told in (repr(settings), str(settings), settings.summary):
        assert "***" in told
        for hidden in ("c0nsumer", "s3cret", "t0ken"):
            assert hidden not in told


def test_no_error_shows_a_secret_or_what_stands_before_the_host_of_a_url(tmp_path: Path) -> None:
    error = refusal(
        tmp_path,
        SALESFORCE_LOGIN_URL="https://user:s3cret@acme.my.salesforce.com",
        SALESFORCE_CLIENT_ID="c0nsumer",
        SYNC_ALERTS="t0ken",
    )

    for hidden in ("c0nsumer", "s3cret", "t0ken"):
        assert hidden not in str(error)


# folders and files


def test_state_is_kept_beside_the_nearest_project_file_above(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)

    assert load(below).home == (tmp_path / ".sync_pipeline").resolve()


def test_without_a_project_file_state_is_kept_in_the_current_folder(tmp_path: Path) -> None:
    assert load(tmp_path).home == (tmp_path / ".sync_pipeline").resolve()
    assert load(tmp_path).mapping == PACKAGED_MAPPING


def test_paths_of_the_environment_are_relative_to_the_current_folder(tmp_path: Path) -> None:
    settings = load(tmp_path, SYNC_HOME="state", SYNC_MAPPING="m.toml")

    assert (settings.home, settings.mapping) == ((tmp_path / "state").resolve(), tmp_path / "m.toml")


def test_nights_of_a_real_org_never_depend_on_the_folder_that_a_command_is_started_in(tmp_path: Path) -> None:
    error = refusal(tmp_path, **(LOGIN | {"SYNC_HOME": ""}))

    assert "SYNC_HOME is empty; name the folder that keeps the nights of this org" in error.message


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").touch()

    assert "is not a folder" in refusal(tmp_path, SYNC_HOME="state").message


# the .env file


def test_the_env_file_of_the_project_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".env").write_text("SYNC_LANES=3\nSYNC_RETRY_ROUNDS=1\nSYNC_HOME=state\n", encoding="utf-8")
    below = tmp_path / "below"
    below.mkdir()

    settings = load(below, SYNC_LANES="4")

    assert (settings.policy.lanes, settings.policy.retry_rounds) == (4, 1)
    assert settings.home == (tmp_path / "state").resolve()


def test_quotes_comments_and_export_are_understood(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "\ufeff# settings\n"
        "\n"
        "export SALESFORCE_LOGIN_URL=https://acme.my.salesforce.com  # production\n"
        "SYNC_HOME=state\n"
        "SALESFORCE_CLIENT_ID = 'c0ns#umer'\n"
        'SALESFORCE_CLIENT_SECRET="a\\"b \\\\ #c"   # a quoted one\n'
        "  SYNC_LANES=3\n"
        "SYNC_DEADLINE=none # none\n",
        encoding="utf-8",
    )

    settings = load(tmp_path)

    assert settings.login_url == URL
    assert settings.client_id.reveal() == "c0ns#umer"
    assert settings.client_secret == Secret('a"b \\ #c')
    assert (settings.policy.lanes, settings.policy.deadline) == (3, "")


def test_lines_about_other_variables_are_not_ours_to_judge(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DAGSTER_HOME=${PWD}\nnonsense\nTOKEN='open\n", encoding="utf-8")

    assert load(tmp_path).is_simulated


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("SYNC_LANES 3", "Line 2 of"),
        ("SALESFORCE_CLIENT_SECRET='unclosed", "cannot be read; write it like NAME=value"),
        ("SYNC_HOME=${HOME}/state", "holds ${...}, which is not replaced here"),
        ("SYNC_LANE=3", "did you mean SYNC_LANES?"),
        ("SYNC_LANES=many", "SYNC_LANES=many is not a number"),
    ],
)
def test_a_line_that_cannot_be_used_is_told_with_its_place(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / ".env").write_text(f"# first\n{line}\n", encoding="utf-8")

    error = refusal(tmp_path)

    assert told in error.message
    assert str(tmp_path / ".env") in str(error)
    assert "unclosed" not in str(error)


def test_an_env_file_that_is_not_text_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe")

    assert "cannot be read" in refusal(tmp_path).message
