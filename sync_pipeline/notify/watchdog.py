"""The watchdog behind SYNC_HEARTBEAT_URL, which raises the alarm when it is not called.

It wants a plain GET, which Apprise has not, so the standard library calls it. The URL is a secret: what urllib raises
quotes pieces of it, so a failure is told by one of a few sentences.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Final

from sync_pipeline.domain.secret import Secret

HEARTBEAT_SECONDS: Final = 10.0
"""How long the watchdog may take to answer."""


def call_heartbeat(url: Secret) -> str:
    """Calls the watchdog; returns why that failed, or an empty text when it answered."""
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(url.reveal(), timeout=HEARTBEAT_SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        error.close()
        return f"it answered HTTP {error.code}"
    except (OSError, ValueError, http.client.HTTPException):  # their texts may quote the URL
        return "no connection"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """A secret is not carried on to another address."""
