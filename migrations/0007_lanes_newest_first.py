"""Let a lane find its cursor at once while an old snapshot keeps every dead version."""

from sync.schema import run_sql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_sql(__file__)
