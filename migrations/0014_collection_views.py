"""Make what views of collections are built from: typed values, lexicons, the list of views."""

from sync.schema import run_sql

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_sql(__file__)
