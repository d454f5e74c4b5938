"""What the assets, jobs and sensors work with: the settings, and the walls that the settings describe.

Settings are read when something is about to be done, so that a wrong one is told by the run or the tick that needs it.
Only what Dagster wants to know of a definition itself is read while the code location loads; a wrong setting must not
keep it from loading, or nobody could see what is wrong.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from sync_pipeline.domain.errors import SyncError
from sync_pipeline.domain.mapping import Mapping, load_mapping
from sync_pipeline.settings import PACKAGED_MAPPING, Settings, load_settings

if TYPE_CHECKING:
    from sync_pipeline.engine.alerting import Alerts
    from sync_pipeline.engine.walls import Walls
    from sync_pipeline.wiring import Home


class SyncResource(dg.ConfigurableResource[None]):
    """SYNC_HOME and the org. It has no configuration of its own: the room `settings` is the one place for that."""

    def settings(self) -> Settings:
        """The settings as they are now; raises ``SettingsError``."""
        return load_settings()

    def now(self) -> datetime:
        """The time of day by which nights are kept."""
        return datetime.now(UTC)

    def home(self) -> "Home":
        """What is kept on disk, whichever org it belongs to."""
        from sync_pipeline.wiring import open_home

        return open_home(self.settings())

    @contextmanager
    def walls(self) -> "Iterator[Walls]":
        """Everything the engine works with. Logs in to the org; raises a ``UserError`` when that is refused."""
        with self._opened(log_in=True) as walls:
            yield walls

    @contextmanager
    def walls_without_org(self) -> "Iterator[Walls]":
        """The same without a login: enough to decide what comes next."""
        with self._opened(log_in=False) as walls:
            yield walls

    @contextmanager
    def alerts(self) -> "Iterator[Alerts]":
        """What people are told; raises ``SettingsError``."""
        from sync_pipeline.wiring import open_alerts

        with open_alerts(self.settings(), now=self.now) as alerts:
            yield alerts

    @contextmanager
    def _opened(self, *, log_in: bool) -> "Iterator[Walls]":
        from sync_pipeline.wiring import open_walls

        walls = open_walls(self.settings(), log_in=log_in, now=self.now)
        try:
            yield walls
        finally:
            walls.close()


@dataclass(frozen=True)
class AtLoad:
    """What a definition must say of itself before anything runs."""

    mapping: Mapping
    timezone: str
    is_scheduled: bool
    summary: str


def read_at_load() -> AtLoad:
    """From the settings; when they cannot be used, the packaged mapping, and no schedule that starts by itself."""
    try:
        settings = load_settings()
        return AtLoad(
            mapping=load_mapping(settings.mapping),
            timezone=settings.timezone,
            is_scheduled=settings.is_scheduled,
            summary=settings.summary,
        )
    except SyncError as error:
        return AtLoad(
            mapping=load_mapping(PACKAGED_MAPPING),
            timezone="UTC",
            is_scheduled=False,
            summary=f"**The settings cannot be used:** {error}",
        )


AT_LOAD = read_at_load()
