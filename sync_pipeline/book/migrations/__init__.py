"""Layouts of the book, one file each in ``versions``, and the way from an older one to ours.

A migration and the number of its layout are one transaction, on both databases: whoever is killed in its midst leaves
the layout that was there.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from sync_pipeline.book.database import Database


def migrate(database: Database) -> None:
    """Makes the tables, or changes them to the newest layout. Whoever comes while another one does waits for it.

    Raises what the driver raises.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    engine = create_engine(f"{database.dialect}://", creator=database.connect, poolclass=NullPool)
    try:
        with engine.connect() as connection, connection.begin():
            connection.exec_driver_sql(database.exclusive)
            _migrate(connection, database.layout())
    except DBAPIError as error:
        if isinstance(error.orig, database.driver_errors):
            raise error.orig from None
        raise


def scripts() -> ScriptDirectory:
    """The migrations, each named by the number of the layout that it makes."""
    config = Config()
    config.set_main_option("script_location", "sync_pipeline.book:migrations")
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def _migrate(connection: Connection, layout: int) -> None:
    """Runs the migrations after ``layout``; a later one than ours is left alone."""
    directory = scripts()
    context = MigrationContext.configure(connection)
    with Operations.context(context):
        for script in reversed(list(directory.walk_revisions())):
            if int(script.revision) > layout:
                script.module.upgrade()
                context.stamp(directory, script.revision)
