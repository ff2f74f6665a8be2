"""Make the list of searches, and the schema that their tables are in."""

from sync.schema import run_sql

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_sql(__file__)
