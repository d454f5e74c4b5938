"""From settings to walls: both doors, the terminal and Dagster, open the same ones here.

Which org is meant is decided here too. The simulated org is used only when no SALESFORCE_* variable is set, and never
for a SYNC_HOME that held a night of another org.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from sync_pipeline.book.book import Book
from sync_pipeline.book.database import utc_now
from sync_pipeline.domain.errors import MappingError, WrongOrg
from sync_pipeline.domain.mapping import load_mapping
from sync_pipeline.domain.night import NightEntry
from sync_pipeline.domain.plan import OrgIdentity, new_plan_id
from sync_pipeline.domain.secret import Secret
from sync_pipeline.settings import Settings
from sync_pipeline.staging.area import Area

if TYPE_CHECKING:
    import httpx

    from sync_pipeline.engine.alerting import Alerts
    from sync_pipeline.engine.walls import Interruption, Walls
    from sync_pipeline.salesforce.auth import Login
    from sync_pipeline.salesforce.session import Session
    from sync_pipeline.salesforce.soql import Soql

EMBEDDED_URL: Final = "https://embedded.invalid"
"""Where the embedded simulated org seems to be; the name can never be reached over a network."""
EMBEDDED_CLIENT: Final = "simulated"
"""Client id and secret that the simulated org accepts."""
SIMULATED_NAME: Final = "simulated org"
NIGHTS_KEPT: Final = 10_000
"""More nights than a book ever holds."""


class Home:
    """What is kept on disk, without any org: enough to see how a night stands."""

    def __init__(self, settings: Settings, *, now: Callable[[], datetime] = utc_now) -> None:
        self.settings = settings
        self.area = Area(settings.home)
        self._now = now
        self._book: Book | None = None

    @property
    def book(self) -> Book:
        """The book, made when there is none yet."""
        if self._book is None:
            self.area.prepare()
            self._book = Book(self.area.book_file, url=self.settings.book_url, now=self._now)
        return self._book

    @property
    def has_book(self) -> bool:
        """There is a book already, or one is named in a database."""
        return self.settings.book_url is not None or self.area.book_file.exists()

    def newest(self) -> NightEntry | None:
        """The newest night; a look at a SYNC_HOME that was never used leaves no trace there."""
        return self.book.newest() if self.has_book else None

    def nights(self, limit: int = 20) -> list[NightEntry]:
        """The newest nights, newest first."""
        return self.book.nights(limit) if self.has_book else []


def open_home(settings: Settings) -> Home:
    """Opens nothing yet."""
    return Home(settings)


@contextmanager
def open_alerts(settings: Settings, *, now: Callable[[], datetime] = utc_now) -> Iterator[Alerts]:
    """The conditions and notes of SYNC_HOME, and whom the settings name to be told of them. Asks no org."""
    from sync_pipeline.engine.alerting import Alerts

    book = open_home(settings).book
    try:
        yield Alerts(book, settings.policy, urls=settings.alerts, heartbeat_url=settings.heartbeat_url, now=now)
    finally:
        book.close()


def open_walls(
    settings: Settings,
    *,
    interruption: Interruption | None = None,
    transport: httpx.BaseTransport | None = None,
    log_in: bool = True,
    now: Callable[[], datetime] = utc_now,
) -> Walls:
    """Everything the engine works with; the caller closes it.

    ``transport`` takes the place of the network, ``now`` that of the clock. Without ``log_in`` nothing is asked of the
    org, and the walls name the org of the newest night: enough to decide what comes next. Raises ``MappingError`` for a
    mapping that cannot be used or a simulated org that was never seeded, ``WrongOrg``, and whatever a login can raise.
    """
    from sync_pipeline.engine.meter import Meter
    from sync_pipeline.engine.walls import Interruption, Slots, Walls
    from sync_pipeline.salesforce.bulk import Bulk
    from sync_pipeline.salesforce.data_cloud import DataCloud
    from sync_pipeline.salesforce.session import Session
    from sync_pipeline.salesforce.soql import Soql
    from sync_pipeline.staging.catalogues import Catalogues

    mapping = load_mapping(settings.mapping)
    home = Home(settings, now=now)
    policy = settings.policy
    interruption = interruption or Interruption()
    if settings.is_simulated and transport is None:
        transport = _embedded_org(home, log_in=log_in)
    meter = Meter(home.book)
    session = Session(
        login_of(settings),
        api_version=settings.api_version,
        dataspace=settings.dataspace,
        transport=transport,
        on_call=meter.count,
        sleep=interruption.sleep,
    )
    interruption.cuts(session.cut)
    try:
        soql = Soql(session, mapping)
        org = identify(settings, session, soql, home) if log_in else _last_known(settings, home)
        return Walls(
            org=org,
            mapping=mapping,
            policy=policy,
            session=session,
            data_cloud=DataCloud(
                session,
                mapping,
                api=settings.query_api,
                page_rows=policy.page_rows,
                deadline_seconds=policy.statement_deadline_seconds,
                equal_rows_max=policy.equal_rows_max,
                run_id=new_plan_id(now()),
            ),
            bulk=Bulk(session, mapping, spool=settings.home),
            soql=soql,
            area=home.area,
            book=home.book,
            catalogues=Catalogues(home.area.spill_folder, memory=policy.duckdb_memory),
            interruption=interruption,
            slots=Slots.of(policy),
            meter=meter,
            certificate_keys=settings.certificate_keys,
            now=now,
        )
    except BaseException:
        session.close()
        raise


def login_of(settings: Settings) -> Login:
    """The login that the settings describe. Raises ``SettingsError`` when they contradict each other."""
    from sync_pipeline.salesforce.auth import Login

    if settings.is_simulated:
        return Login(EMBEDDED_URL, client_id=Secret(EMBEDDED_CLIENT), client_secret=Secret(EMBEDDED_CLIENT))
    return Login(
        settings.login_url,
        client_id=settings.client_id,
        client_secret=settings.client_secret,
        username=settings.username,
        private_key_pem=settings.private_key,
        jwt_audience=settings.jwt_audience,
    )


def identify(settings: Settings, session: Session, soql: Soql, home: Home) -> OrgIdentity:
    """Whose state this is: the org id that the login named, and the org's name."""
    org_id = session.org_id
    if settings.is_simulated:
        _check_only_simulated(home, org_id)
        return OrgIdentity(org_id=org_id, name=SIMULATED_NAME, is_simulated=True, dataspace=settings.dataspace)
    known = OrgIdentity(org_id=org_id, name="", is_simulated=False, dataspace=settings.dataspace)
    newest = home.newest()
    # The name is only for people: what the newest night knows of this org spares a call at each start.
    if newest is not None and replace(newest.plan.org, name="") == known:
        return newest.plan.org
    return replace(known, name=soql.organization())


def _embedded_org(home: Home, *, log_in: bool) -> httpx.BaseTransport:
    """The simulated org in SYNC_HOME. Raises ``MappingError`` when it is about to be asked and was never seeded."""
    from sync_pipeline.simulated_org.app import OrgTransport
    from sync_pipeline.simulated_org.seed import is_seeded

    folder = home.area.simulated_org
    if log_in and not is_seeded(folder):
        raise MappingError(
            f"The simulated org in {folder} has no source object yet.",
            hint="Fill it with `sync-pipeline org seed --rows 200000`, or set SALESFORCE_LOGIN_URL for a real one.",
        )
    return OrgTransport(folder)


def _check_only_simulated(home: Home, org_id: str) -> None:
    """The simulated org must never take the place of another one because its settings got lost."""
    for night in home.nights(limit=NIGHTS_KEPT):
        org = night.plan.org
        if not org.is_simulated and org.org_id != org_id:
            raise WrongOrg(
                f"{home.settings.home} holds night {night.plan_id} of {org}, and no SALESFORCE_* variable is set.",
                hint="Set the SALESFORCE_* variables of that org, or use another SYNC_HOME for the simulated one.",
            )


def _last_known(settings: Settings, home: Home) -> OrgIdentity:
    """The org of the newest night, taken on trust until somebody logs in.

    Raises ``WrongOrg`` when the settings mean a simulated org and the night is of another one, or the other way round: a
    process that lost its environment must not go on as if nothing had happened.
    """
    newest = home.newest()
    if newest is not None:
        org = newest.plan.org
        if org.is_simulated != settings.is_simulated:
            meant = "no SALESFORCE_* variable is set" if settings.is_simulated else "the settings name another org"
            raise WrongOrg(
                f"{settings.home} holds night {newest.plan_id} of {org}, and {meant}.",
                hint="Set the SALESFORCE_* variables of that org where this process is started, or use another SYNC_HOME.",
            )
        return org
    return OrgIdentity(org_id="", name="no org yet", is_simulated=settings.is_simulated, dataspace=settings.dataspace)
