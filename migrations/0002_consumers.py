"""Add the readers of the change log and where each of them stands."""

from sync.schema import run_sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_sql(__file__)
