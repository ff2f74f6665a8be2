"""Let the change log retire its oldest partitions, and remember the ids it skipped."""

from sync.schema import run_sql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_sql(__file__)
