"""Add the publications by which another PostgreSQL, or a program, follows log and records."""

from sync.schema import run_sql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_sql(__file__)
