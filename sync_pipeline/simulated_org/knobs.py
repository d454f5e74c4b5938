"""Knobs of the org: what can be set otherwise than the documents have it, with the value that holds when nobody did.

``org set`` and ``org serve --set`` set them, ``Org.setting`` reads them where they count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

KNOBS: Final[Mapping[str, tuple[Any, str]]] = {
    "adaptive_rows": (2_000, "rows that come with the answer to a submitted statement"),
    "api_max": (100_000, "calls of a day"),
    "api_used": (0, "calls that others made today"),
    "batch_rows": (10_000, "rows of a batch of an ingest job"),
    "clients": ({}, "client ids with their secrets, instead of the one that is known"),
    "clock_offset": (0.0, "seconds by which the org's clock is ahead"),
    "count_as_text": (False, "row counts of statements come as texts"),
    "dataspace_required": (False, "a statement has to name its data space"),
    "dataspaces": (["default"], "data spaces that its users may read"),
    "drop_status": (204, "status of the answer to a deleted statement"),
    "exchange_with_scheme": (True, "the exchanged tenant URL begins with its scheme"),
    "fields": ({}, "attributes of fields, by Object.Field"),
    "gzip": ("on", "answers are compressed for those who ask: on, off"),
    "hard_delete": (False, "the user may delete for good"),
    "job_days": (7.0, "days for which a finished job is listed"),
    "job_polls": (0, "looks that still find a finished job InProgress"),
    "jobs_per_page": (1_000, "jobs of a page of the list of jobs"),
    "jwt_public_key": ("", "key that signatures of JWTs are checked with"),
    "limits": ({}, "Max and Used of limits, by name"),
    "nested_status": (False, "the status of a statement stands one level deeper"),
    "objects": ({}, "custom objects with their fields, by name"),
    "pace": ({}, "rows_per_second and batches of ingest, query_seconds of a statement"),
    "page_bytes": (2_000_000, "bytes of a page of a statement's rows"),
    "plain_results": (False, "result files have commas and line feeds, whatever their job has"),
    "post_status": (201, "status of the answer to a submitted statement"),
    "post_waits": (False, "a submitted statement is complete with its answer"),
    "query_id_slash": (False, "ids of statements hold a slash"),
    "query_page_rows": (250_000, "rows of a page of a query job"),
    "result_cache_seconds": (0, "seconds for which an equal statement is answered from the cache"),
    "result_seconds": (86_400, "seconds for which a statement's result is kept"),
    "running_polls": (0, "looks that still find a large statement Running"),
    "second_upload": ("close", "what a second upload is told: close, upload"),
    "tenant_token_seconds": (7_200, "life of a tenant token in seconds"),
    "token_calls": (0, "calls after which a token is dead"),
    "token_seconds": (7_200, "seconds without a call after which a token is dead"),
    "unpack_uploads": (True, "a compressed upload is unpacked"),
    "upload_bytes_max": (150_000_000, "bytes of an upload"),
    "upload_too_large_status": (413, "status of the answer to an upload that is larger"),
    "v3_page_bytes": (20_000_000, "bytes of a page of a statement's rows on the tenant host"),
}


def read_knob(text: str) -> tuple[str, Any]:
    """Name and value of ``NAME=VALUE``; the value is JSON or a plain text, and nothing (``None``) gives back the default.

    Raises ``ValueError`` for a name that is no knob, or a value of another kind than its default.
    """
    name, is_set, written = text.partition("=")
    if not is_set:
        raise ValueError(f"{text} is not of the form NAME=VALUE")
    if name not in KNOBS:
        raise ValueError(f"there is no knob {name}")
    if written == "":
        return name, None
    default = KNOBS[name][0]
    if isinstance(default, str):
        return name, written
    try:
        value = json.loads(written)
    except json.JSONDecodeError:
        value = {"on": True, "off": False}.get(written, written)
    kinds = (int, float) if isinstance(default, float) else (type(default),)
    if not isinstance(value, kinds) or isinstance(value, bool) is not isinstance(default, bool):
        raise ValueError(f"{name} takes a value such as {json.dumps(default)}, and not {written}")
    return name, value
