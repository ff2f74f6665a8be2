"""The manual's page on the schema is what the COMMENTs say."""

import psycopg
from psycopg.rows import DictRow

from tests.sql.reference import REFERENCE_FILE, render_reference


def test_the_sql_reference_is_up_to_date(db: psycopg.Connection[DictRow]) -> None:
    page = REFERENCE_FILE.read_text(encoding="utf-8")
    assert render_reference(db) == page, "run `make schema`"
