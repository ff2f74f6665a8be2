"""Remember how many collections each repo brought, and pass repos to sync.intern_collections()."""

from sync.schema import run_sql

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_sql(__file__)
