"""A database of one's own on a PostgreSQL that runs here; tests that need one are skipped where none answers, and fail
there with ``REQUIRE_POSTGRES``, which CI sets where it has started one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
import pytest

HOST = os.environ.get("PGHOST", "127.0.0.1")
PORT = os.environ.get("PGPORT", "5432")
USERS = [os.environ["PGUSER"]] if "PGUSER" in os.environ else ["postgres", os.environ.get("USER", "root")]
MAINTENANCE = "postgres"
CONNECT_SECONDS = 3


@contextmanager
def database() -> Iterator[dict[str, str]]:
    """A new database, dropped at the end; yields the variables that lead clients of PostgreSQL to it."""
    user = next((user for user in USERS if _can_connect(user)), None)
    if user is None:
        word = f"no PostgreSQL lets {' or '.join(USERS)} in at {HOST}:{PORT}; PGHOST, PGPORT and PGUSER name another"
        if os.environ.get("REQUIRE_POSTGRES"):
            pytest.fail(word)
        pytest.skip(word)
    name = f"sync_pipeline_test_{uuid.uuid4().hex[:12]}"
    _execute(user, f'CREATE DATABASE "{name}"')
    try:
        yield {"PGHOST": HOST, "PGPORT": PORT, "PGUSER": user, "PGDATABASE": name}
    finally:
        _execute(user, f'DROP DATABASE "{name}" WITH (FORCE)')


def url(variables: dict[str, str]) -> str:
    """The same database as a URL."""
    return "postgresql://{PGUSER}@{PGHOST}:{PGPORT}/{PGDATABASE}".format_map(variables)


def rows(variables: dict[str, str], sql: str) -> list[tuple[object, ...]]:
    with closing(_connect(variables["PGUSER"], variables["PGDATABASE"])) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def _can_connect(user: str) -> bool:
    try:
        _connect(user, MAINTENANCE).close()
    except psycopg2.OperationalError:
        return False
    return True


def _execute(user: str, statement: str) -> None:
    with closing(_connect(user, MAINTENANCE)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)


def _connect(user: str, name: str) -> psycopg2.extensions.connection:
    return psycopg2.connect(host=HOST, port=PORT, user=user, dbname=name, connect_timeout=CONNECT_SECONDS)
