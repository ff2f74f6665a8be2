"""The SQL that the manual shows runs as it stands there."""

import re
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

ROOT = Path(__file__).parents[2]
DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"  # of the examples
PAGES = (
    "docs/how-to/track-and-resync.md",
    "docs/how-to/read-changes.md",
    "docs/how-to/doctor.md",
    "docs/how-to/views.md",
)
QUERYING = (
    "README.md",
    "docs/how-to/doctor.md",
    "docs/how-to/track-and-resync.md",
    "docs/tutorial/first-hour.md",
)


FIVE_POSTS = f"""
    select sync.track_repos('{{{DID}}}');
    insert into sync.collections (nsid) values ('app.bsky.feed.post');
    insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
    select r.repo_id, c.collection_id, 'k' || n, sha256('x') || 'abcd', '3k',
           jsonb_build_object('text', 'old ' || n)
      from sync.repos r, sync.collections c, generate_series(1, 5) n
"""


def queries(page: str) -> list[str]:
    """Return what is given to `standpipe query`."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"standpipe query (?:--\S+ \S+ )?\"(.*?)\"", text, re.DOTALL)


def blocks(page: str) -> list[str]:
    """Return the blocks of SQL of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```sql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", QUERYING)
def test_every_query_runs_with_the_rights_of_a_reader(
    db: psycopg.Connection[DictRow], page: str
) -> None:
    db.execute("set local role sync_reader")
    found = queries(page)
    assert found
    for query in found:
        db.execute(query.encode())


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_sql_runs_in_the_order_of_its_page(clone: str, page: str) -> None:
    with psycopg.connect(clone, autocommit=True) as conn:
        conn.execute("select sync.track_repos(%s)", [[DID]])
        found = blocks(page)
        assert found
        for block in found:
            conn.execute(block.encode())


def records(conn: psycopg.Connection[DictRow], source: str) -> set[tuple[str, str]]:
    rows = conn.execute(f"select rkey, text from {source}".encode())
    return {(row["rkey"], row["text"]) for row in rows}


def test_the_table_that_reads_changes_in_sql_follows_the_records(clone: str) -> None:
    make_consumer, make_table, apply_batch = blocks("docs/how-to/read-changes.md")[:3]
    steps = (
        FIVE_POSTS,
        "update sync.stored_records set value = '{\"text\": \"new\"}' where rkey in ('k1', 'k2')",
        "delete from sync.stored_records where rkey = 'k2'",
        f"select sync.take_down_repos('{{{DID}}}')",
        f"select sync.restore_repos('{{{DID}}}')",
        "delete from sync.stored_records where rkey = 'k3'",
    )
    shown = "(select rkey, value->>'text' as text from sync.records) r"
    with psycopg.connect(clone, autocommit=True, row_factory=dict_row) as conn:
        conn.execute(make_table.encode())
        conn.execute(make_consumer.encode())
        for step in steps:
            conn.execute(step.encode())
            for _ in range(2):  # the second call brings what a snapshot announced
                conn.execute(apply_batch.encode())
            assert records(conn, "posts") == records(conn, shown), step
        assert len(records(conn, "posts")) == 3
