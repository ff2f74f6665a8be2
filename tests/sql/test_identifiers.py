"""Names are bytes: two spellings are two names, in any locale, however long they are."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import DictRow

from sync.atproto.syntax import is_did, is_nsid, is_rkey
from sync.database import connect_sync
from sync.embedded.binaries import read_binaries
from sync.schema import upgrade
from tests.postgres import Server, chosen_binaries, running_server
from tests.sql.driver import POST, Driver, Event, Key, Op, cid, did, rev

# What is only shown, and words of our own.
FREE_TEXT = {
    "account_status", "action", "detail", "error", "kind", "last_error", "local_status", "outcome",
    "reason", "said_status", "status", "sync_state", "timeline", "tracked_by", "trouble", "trust",
}  # fmt: skip
# In another order, or equal, to whoever compares them as words of a language.
RKEYS = [
    "-",
    ".a",
    "0",
    "10",
    "9",
    ":",
    "A",
    "B",
    "Self",
    "_",
    "a",
    "a-b",
    "a_b",
    "ab",
    "self",
    "~",
]
NSIDS = ["com.example.fooBar", "com.example.foobar", "com.example.Foobar"]


def columns(db: psycopg.Connection[DictRow], condition: str) -> list[DictRow]:
    """Return the columns of our tables for which a condition holds."""
    query = f"""
        select c.oid::regclass::text as of, a.attname as name, a.atttypid::regtype::text as type
          from pg_attribute a
          join pg_class c on c.oid = a.attrelid
          join pg_namespace n on n.oid = c.relnamespace
         where n.nspname in ('sync', 'sync_priv', 'sync_stage')
           and c.relkind in ('r', 'p', 'm') and not c.relispartition
           and c.relname <> 'alembic_version'
           and a.attnum > 0 and not a.attisdropped and {condition}
    """
    return db.execute(query.encode()).fetchall()


@pytest.mark.rule("OP-05")
def test_every_identifier_is_compared_by_its_bytes(db):
    other = columns(
        db,
        "a.attcollation <> 0 and a.attcollation not in"
        " (select oid from pg_collation where collname = 'C')",
    )
    assert sorted({row["name"] for row in other} - FREE_TEXT) == []


@pytest.mark.rule("OP-06")
def test_no_type_and_no_index_folds_the_case_of_a_name(db):
    assert columns(db, "a.atttypid::regtype::text like '%citext%'") == []
    folding = db.execute(
        "select indexname from pg_indexes where schemaname in ('sync', 'sync_priv')"
        " and indexdef ~* '(lower|upper|initcap|casefold|unaccent)'"
    ).fetchall()
    assert folding == []


@pytest.mark.rule("OP-11")
def test_numbers_revs_and_cids_have_the_types_that_hold_them(db):
    wanted = {
        "seq": "bigint", "rev": "text", "since": "text", "seen_rev": "text", "cid": "bytea",
        "data_cid": "bytea", "prev_data": "bytea", "commit_block": "bytea", "raw": "bytea",
    }  # fmt: skip
    found = {(row["name"], row["type"]) for row in columns(db, "true")}
    assert {(name, kind) for name, kind in found if name in wanted} == set(wanted.items())
    with pytest.raises(psycopg.errors.CheckViolation):
        db.execute(
            "insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)"
            " values (1, 1, 'a', %s, '3k', '{}')",
            [cid("a")[:-1]],
        )


def longest(alphabet: str, length: int) -> str:
    """Return a text that no compression makes shorter."""
    seed = hashlib.shake_128(str(length).encode()).digest(length)
    return "".join(alphabet[byte % len(alphabet)] for byte in seed)


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@pytest.mark.rule("OP-07")
def test_the_longest_names_are_stored_and_found(session):
    lane = Driver(session())
    rkey = longest(LETTERS + "-_.:~", 512)
    nsid = ".".join(longest(LETTERS[:26], size) for size in (63, 63, 63, 63, 61))
    assert is_rkey(rkey)
    assert is_nsid(nsid)
    assert len(nsid) == 317
    lane.load(1, {(nsid, rkey): "loaded"}, at=10, data="t10")
    start = lane.position()
    lane.apply(
        commit(11, Op("update", rkey, "x", nsid)), commit(12, Op("delete", rkey, None, nsid))
    )
    assert [change[0] for change in lane.log(start)] == ["update", "delete"]
    name = "did:web:" + longest(LETTERS, 2_040)
    assert is_did(name)
    lane.conn.execute(
        "insert into sync.repos (did, tracked_by, filter_generation, next_fetch_at, created_at,"
        " updated_at) values (%s, 'did', 0, now(), now(), now())",
        [name],
    )
    assert lane.value("select count(*) from sync.repo_status where did = %s", name) == 1


def commit(number: int, *ops: Op) -> Event:
    """Return the commit that follows on the one with the number before."""
    before, after = f"t{number - 1}", f"t{number}"
    return Event(did(1), rev=number, since=number - 1, before=before, data=after, ops=ops)


@pytest.fixture
def linguistic_url(tmp_path: Path) -> Iterator[str]:
    """Return the URL of an upgraded database whose default order is that of a language."""
    named = [chosen_binaries().folder, *sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    for binaries in map(read_binaries, named):
        if binaries is None:
            continue
        with running_server(tmp_path / binaries.folder.parent.name, binaries) as server:
            if make_linguistic(server):
                url = server.service_url("linguistic")
                upgrade(url)
                yield url
                return
    sentence = "no PostgreSQL here knows languages: install postgresql-15"
    pytest.fail(sentence) if os.environ.get("CI") == "true" else pytest.skip(sentence)


def make_linguistic(server: Server) -> bool:
    """Make a database that orders by the rules of English; False where ICU is missing."""
    try:
        server.administer(
            sql.SQL(
                "create database linguistic owner standpipe template template0"
                " locale_provider icu icu_locale 'en-US' lc_collate 'C' lc_ctype 'C'"
            )
        )
    except psycopg.errors.FeatureNotSupported:
        return False
    return True


@pytest.mark.rule("OP-05", "OP-06", "SX-09", "SX-11")
@pytest.mark.scenario("A-29")
def test_names_are_told_apart_and_ordered_as_bytes_in_any_locale(linguistic_url):
    with connect_sync(linguistic_url, name="linguistic") as conn:
        conn.autocommit = True
        lane = Driver(conn)
        assert lane.value("select 'B' < 'a'") is False, "a database of another order than ours"
        names = [(nsid, rkey) for nsid in (*NSIDS, POST) for rkey in RKEYS]
        export: dict[str | Key, str] = {name: " ".join(name) for name in names}
        lane.load(1, export, at=10, data="t10")
        rows = lane.rows("select collection, rkey from sync.records order by collection, rkey")
        assert [tuple(row.values()) for row in rows] == sorted(names)
        start = lane.position()
        lane.conn.execute("select sync.resync_repos(%s)", [[did(1)]])
        again = lane.reconcile(lane.claim_directly(1), export, at=11, data="t10")
        assert (again["created"], again["updated"], again["deleted"]) == (0, 0, 0)
        assert lane.log(start) == []
        changed = export | {(NSIDS[0], "Self"): "changed"}
        gone = changed.pop((NSIDS[1], "self"))
        assert gone
        lane.reconcile(lane.claim_directly(1), changed, at=12, data="t12")
        assert sorted(change[:2] for change in lane.log(start)) == [
            ("delete", "self"), ("update", "Self")
        ]  # fmt: skip
        assert lane.value("select rev from sync.heads") == rev(12)
