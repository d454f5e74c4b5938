"""Every setting, once: name, variable, default, unit and why. The only room that reads the environment.

Settings come from the environment, and from a file ``.env`` in the project's folder (the folder of the nearest
``pyproject.toml`` at or above the current one; without any, the current folder). The environment wins.
With no ``SALESFORCE_*`` variable the simulated org is used. A single one of them, even an empty one, says that a real
org is meant: then a login that is not whole is an error, never a reason to fall back to the simulated org.

``load_settings()`` looks at everything before it complains, so that one start names all that must be mended.

``values`` knows what a value may look like, ``listing`` names every setting, ``reading`` makes ``Settings`` of them.
"""

from sync_pipeline.settings.listing import KNOWN, OWN, SETTINGS, STEERING, describe
from sync_pipeline.settings.reading import PACKAGED_MAPPING, PREFIXES, Settings, load_settings

__all__ = [
    "KNOWN",
    "OWN",
    "PACKAGED_MAPPING",
    "PREFIXES",
    "SETTINGS",
    "STEERING",
    "Settings",
    "describe",
    "load_settings",
]
