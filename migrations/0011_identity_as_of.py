"""Remember when the stored identity was looked up."""

from sync.schema import run_sql

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_sql(__file__)
