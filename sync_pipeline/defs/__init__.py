"""The Dagster door: Dagster's own nouns, thin.

A function in here reads the context, opens the resources, calls one verb of the engine and translates the answer into
metadata, checks or a ``Failure``. What happened to rows is known to SYNC_HOME alone; Dagster says what runs.

Two rules of this room. Functions that Dagster inspects are annotated with real types, so these modules do without
``from __future__ import annotations``. And polars, duckdb and httpx are imported inside the functions that need them:
every process of Dagster loads this package, few of them move rows.
"""
