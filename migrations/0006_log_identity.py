"""Let the log notice a dump that was restored over its own database."""

from sync.schema import run_sql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_sql(__file__)
