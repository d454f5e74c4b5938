"""Which org is meant, whose state it is, and that nobody is asked before somebody must be."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from sync_pipeline.domain.errors import CredentialsError, MappingError, WrongOrg
from sync_pipeline.domain.keys import cover
from sync_pipeline.domain.plan import OrgIdentity, Plan, PlannedRange, SourceProfile
from sync_pipeline.settings import Settings, load_settings
from sync_pipeline.simulated_org.app import OrgTransport
from sync_pipeline.wiring import open_home, open_walls

REAL = {
    "SALESFORCE_LOGIN_URL": "https://acme.my.salesforce.com",
    "SALESFORCE_CLIENT_ID": "simulated",
    "SALESFORCE_CLIENT_SECRET": "simulated",
}


def settings_of(home: Path, **variables: str) -> Settings:
    return load_settings({"SYNC_HOME": str(home), **variables})


def plan_of(org: OrgIdentity, plan_id: str = "20260101T020000.000000Z") -> Plan:
    nothing = SourceProfile(
        rows=0, null_keys=0, distinct_keys=0, matched_keys=0, blank_keys=0, min_key=None, max_key=None
    )
    return Plan(
        plan_id=plan_id,
        org=org,
        source_object="ExtOpportunities__dlm",
        target_object="Opportunity",
        mapping_digest="0" * 16,
        profile=nothing,
        ranges=tuple(PlannedRange(place, key_range, 0) for place, key_range in enumerate(cover([]))),
        created_at=datetime(2026, 1, 1, 2, tzinfo=UTC),
    )


class Counting(httpx.BaseTransport):
    """Passes requests on to a simulated org and counts them."""

    def __init__(self, folder: Path) -> None:
        self.paths: list[str] = []
        self._org = OrgTransport(folder)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        return self._org.handle_request(request)


def test_a_real_org_is_named_by_the_id_of_its_token_and_its_own_name(tmp_path: Path) -> None:
    transport = Counting(tmp_path / "org")

    walls = open_walls(settings_of(tmp_path / "home", **REAL), transport=transport)

    assert walls.org.org_id.startswith("00D")
    assert walls.org.name
    assert not walls.org.is_simulated
    walls.close()


def test_the_name_of_a_known_org_costs_no_call(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home", **REAL)
    first = open_walls(settings, transport=Counting(tmp_path / "org"))
    first.book.open_night(plan_of(first.org))
    first.close()
    transport = Counting(tmp_path / "org")

    second = open_walls(settings, transport=transport)

    assert second.org == first.org
    assert transport.paths == ["/services/oauth2/token"]
    second.close()


def test_wrong_credentials_are_refused_when_the_walls_are_opened(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home", **{**REAL, "SALESFORCE_CLIENT_SECRET": "wrong"})

    with pytest.raises(CredentialsError) as refused:
        open_walls(settings, transport=Counting(tmp_path / "org"))

    assert "wrong" not in str(refused.value)


def test_the_simulated_org_never_takes_the_place_of_a_real_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    real = open_walls(settings_of(home, **REAL), transport=Counting(tmp_path / "org"))
    real.book.open_night(plan_of(real.org))
    real.close()

    with pytest.raises(WrongOrg, match="no SALESFORCE_\\* variable is set"):
        open_walls(settings_of(home), transport=Counting(home / "simulated_org"))


def test_a_simulated_org_that_was_never_seeded_is_not_made_by_asking(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="org seed --rows 200000"):
        open_walls(settings_of(tmp_path / "home"))

    assert not (tmp_path / "home" / "simulated_org").exists()


def test_without_a_login_nobody_is_asked(tmp_path: Path) -> None:
    transport = Counting(tmp_path / "org")

    walls = open_walls(settings_of(tmp_path / "home", **REAL), transport=transport, log_in=False)

    assert walls.book.newest() is None
    assert transport.paths == []
    walls.close()


def test_without_a_login_the_org_is_that_of_the_newest_night(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home", **REAL)
    with_login = open_walls(settings, transport=Counting(tmp_path / "org"))
    with_login.book.open_night(plan_of(with_login.org))
    with_login.close()

    walls = open_walls(settings, log_in=False)

    assert walls.org == with_login.org
    walls.close()


def test_a_process_that_lost_its_environment_is_refused_before_it_asks_anybody(tmp_path: Path) -> None:
    home = tmp_path / "home"
    real = open_walls(settings_of(home, **REAL), transport=Counting(tmp_path / "org"))
    real.book.open_night(plan_of(real.org))
    real.close()
    transport = Counting(home / "simulated_org")

    with pytest.raises(WrongOrg, match="no SALESFORCE_\\* variable is set"):
        open_walls(settings_of(home), transport=transport, log_in=False)

    assert transport.paths == []


def test_a_night_of_the_simulated_org_is_not_taken_for_one_of_a_real_org(tmp_path: Path) -> None:
    home = tmp_path / "home"
    simulated = open_walls(settings_of(home), transport=Counting(home / "simulated_org"))
    simulated.book.open_night(plan_of(simulated.org))
    simulated.close()

    with pytest.raises(WrongOrg, match="the settings name another org"):
        open_walls(settings_of(home, **REAL), transport=Counting(tmp_path / "org"), log_in=False)


def test_every_part_of_the_walls_goes_by_one_clock(tmp_path: Path) -> None:
    at = datetime(2026, 6, 10, 3, tzinfo=UTC)
    walls = open_walls(settings_of(tmp_path / "home"), transport=Counting(tmp_path / "org"), now=lambda: at)

    walls.book.open_night(plan_of(walls.org))

    newest = walls.book.newest()
    assert newest is not None
    assert (walls.now(), newest.opened_at) == (at, at)
    walls.close()


def test_closing_hands_the_counted_calls_to_the_night(tmp_path: Path) -> None:
    walls = open_walls(settings_of(tmp_path / "home", **REAL), transport=Counting(tmp_path / "org"))
    walls.book.open_night(plan_of(walls.org))
    walls.meter.belongs_to("20260101T020000.000000Z")
    walls.soql.limits()

    walls.close()

    assert walls.book.calls("20260101T020000.000000Z")["limits"] == 1


def test_a_look_at_a_home_that_was_never_used_leaves_no_trace(tmp_path: Path) -> None:
    home = open_home(settings_of(tmp_path / "home"))

    assert home.newest() is None
    assert home.nights() == []
    assert not (tmp_path / "home").exists()
