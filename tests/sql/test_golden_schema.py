"""The schema is what the golden file says, on every PostgreSQL we can reach."""

import psycopg
import pytest
from psycopg.rows import DictRow

from tests.golden import SCHEMA_FILE, dump_schema


@pytest.mark.rule("OP-05")
def test_the_schema_is_the_golden_one(db: psycopg.Connection[DictRow]) -> None:
    assert dump_schema(db) == SCHEMA_FILE.read_text(encoding="utf-8"), "run `make schema`"
