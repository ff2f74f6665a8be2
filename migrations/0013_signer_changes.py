"""Number the changes of keys and PDSes for the lanes, and date the doubts about identities."""

from sync.schema import run_sql

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_sql(__file__)
