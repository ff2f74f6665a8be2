"""Remember when the repos were last compared with their PDSes."""

from sync.schema import run_sql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_sql(__file__)
