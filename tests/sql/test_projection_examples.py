"""The functions of docs/examples/projections, called by hand: what a change costs."""

from collections.abc import Iterator

import pytest
from psycopg.types.json import Jsonb

from tests.postgres import Server
from tests.sql import examples
from tests.sql.driver import did
from tests.sql.projecting import ROLE, app_roles
from tests.sql.readers import Session

RECORDS = 1_000
POST = {"text": "a text", "reply": {"parent": {"uri": "at://x"}, "root": {"uri": "at://x"}}}
# Table, and a record that makes a row in it.
TABLES = [
    ("posts", POST),
    ("replies", POST),
    ("labelled_posts", POST),
    ("user_posts", POST),
    ("backlinks", {"subject": "did:plc:x"}),
    ("follows", {"subject": "did:plc:x"}),
    ("likes", {"subject": {"uri": "at://x"}}),
]
_APPLY = """
    select app.apply_{table}('app.{table}', array_agg(
      (c.op, %(did)s, 'a.b.c', c.rkey, 'at://' || %(did)s || '/a.b.c/' || c.rkey, 'cid', 'rev',
       case c.op when 'put' then %(value)s::jsonb end, null, null)::sync.change))
      from unnest(%(ops)s::text[], %(rkeys)s::text[]) as c (op, rkey)
"""
# What was found in the indexes, the table itself being closed to scans.
_READ = """
    select sum(pg_stat_get_xact_tuples_returned(i.indexrelid)) as n
      from pg_index i where i.indrelid = %s::regclass
"""


@pytest.fixture(scope="module", autouse=True)
def roles(postgres: Server) -> Iterator[None]:
    with app_roles(postgres):
        yield


@pytest.mark.parametrize(("table", "value"), TABLES)
def test_a_change_is_not_paid_for_by_what_else_its_account_has(
    db: Session, table: str, value: dict[str, object]
) -> None:
    def apply(changes: list[tuple[str, str]]) -> None:
        ops, rkeys = ([each[place] for each in changes] for place in (0, 1))
        values = {"did": did(1), "value": Jsonb(value), "ops": ops, "rkeys": rkeys}
        db.execute(_APPLY.format(table=table).encode(), values)

    def number(query: str) -> int:
        row = db.execute(query.encode(), [f"app.{table}"] if "%s" in query else None).fetchone()
        assert row is not None
        return int(row["n"])

    examples.install(db, ROLE)
    db.execute("insert into app.users (did, name) values (%s, 'one')", [did(1)])
    apply([("put", f"k{n}") for n in range(RECORDS)])
    count = f"select count(*) as n from app.{table}"
    assert number(count) == RECORDS
    db.execute(f"analyze app.{table}".encode())
    db.execute("set local enable_seqscan = off")  # it is a small table
    before = number(_READ)
    apply([("put", "k7"), ("delete", "k8")])
    assert number(_READ) - before < RECORDS / 10
    assert number(count) == RECORDS - 1
    apply([("purge", "")])
    assert number(count) == 0
