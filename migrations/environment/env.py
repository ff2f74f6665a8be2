"""Run the migrations on the connection that `sync.schema.upgrade()` opened.

There is no other way in: an upgrade also creates the roles before and reloads the SQL files
after, all in one transaction, so `alembic upgrade` by hand is refused.
"""

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

from sync.schema import VERSION_SCHEMA, VERSION_TABLE


def run() -> None:
    """Migrate inside the caller's transaction."""
    connection = context.config.attributes.get("connection")
    if not isinstance(connection, Connection):
        raise CommandError("Run `standpipe upgrade`: it migrates and reloads sql/ together.")
    # The version table comes before the first migration, so its schema has to as well.
    connection.exec_driver_sql(f"create schema if not exists {VERSION_SCHEMA}")
    context.configure(
        connection=connection,
        version_table=VERSION_TABLE,
        version_table_schema=VERSION_SCHEMA,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
