"""Make views of collections in tests, and records for them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from tests.sql.driver import POST, cid, did
from tests.sql.readers import Session

FIXED = ["did", "rkey", "uri", "cid", "indexed_at"]
# A property of each kind that a lexicon may have.
SCHEMAS: dict[str, Any] = {
    "text": {"type": "string"},
    "handle": {"type": "string", "format": "handle"},
    "created": {"type": "string", "format": "datetime"},
    "aToken": {"type": "token"},
    "flag": {"type": "boolean"},
    "number": {"type": "integer"},
    "data": {"type": "bytes"},
    "link": {"type": "cid-link"},
    "image": {"type": "blob"},
    "inner": {"type": "object", "properties": {}},
    "choice": {"type": "union", "refs": ["#one"]},
    "whatever": {"type": "unknown"},
    "nothing": {"type": "null"},
    "texts": {"type": "array", "items": {"type": "string"}},
    "flags": {"type": "array", "items": {"type": "boolean"}},
    "numbers": {"type": "array", "items": {"type": "integer"}},
    "objects": {"type": "array", "items": {"type": "ref", "ref": "#one"}},
    "bare": {"type": "array"},
    "local": {"type": "ref", "ref": "#number"},
    "whole": {"type": "ref", "ref": f"{POST}#created"},
    "twice": {"type": "ref", "ref": "#again"},
    "abroad": {"type": "ref", "ref": "com.example.other#thing"},
    "loop": {"type": "ref", "ref": "#loop"},
    "ring": {"type": "ref", "ref": "#there"},
    "gone": {"type": "ref", "ref": "#missing"},
    "unheard": {"type": "quaternion"},
    "untyped": {},
    "noSchema": 5,
    "odd": {"type": ["string"]},
}
DEFS: dict[str, Any] = {
    "one": {"type": "object", "properties": {}},
    "number": {"type": "integer"},
    "created": {"type": "string", "format": "datetime"},
    "again": {"type": "ref", "ref": "#number"},
    "loop": {"type": "ref", "ref": "#loop"},
    "there": {"type": "ref", "ref": "#back"},
    "back": {"type": "ref", "ref": "#there"},
}


def lexicon(properties: dict[str, Any], *, nsid: str = POST, **defs: Any) -> dict[str, Any]:
    """Return the lexicon of a record type."""
    record = {"type": "object", "properties": properties}
    return {
        "lexicon": 1,
        "id": nsid,
        "defs": {"main": {"type": "record", "key": "tid", "record": record}, **defs},
    }


def text_lexicon(*names: str, nsid: str = POST) -> dict[str, Any]:
    """Return a lexicon whose properties are all text."""
    return lexicon({name: {"type": "string"} for name in names}, nsid=nsid)


def create(
    db: Session,
    view: str | None,
    given_lexicon: Any = None,
    *,
    nsid: str | None = POST,
    columns: Any = None,
    indexed: Sequence[str | None] | None = None,
    newest_by: str | None = None,
) -> dict[str, tuple[str, str]]:
    """Make a view and return column → (type, change)."""
    rows = db.execute(
        "select * from sync.create_view(%s, %s, %s, %s, %s, %s)",
        [
            view,
            nsid,
            None if given_lexicon is None else Jsonb(given_lexicon),
            None if columns is None else Jsonb(columns),
            None if indexed is None else list(indexed),
            newest_by,
        ],
    ).fetchall()
    return {row["column_name"]: (row["column_type"], row["change"]) for row in rows}


def refusal(db: Session, *arguments: Any, **options: Any) -> psycopg.errors.Diagnostic:
    """Return what create() is refused with; the transaction goes on."""
    try:
        with db.transaction():
            create(db, *arguments, **options)
    except psycopg.Error as error:
        if not (error.sqlstate or "").startswith("SY"):
            raise
        return error.diag
    raise AssertionError("the view was made")


def store(db: Session, repo: int, rkey: str, value: Any, *, collection: str = POST) -> None:
    """Store a record, as the service does; with `value` bytes, one that JSON cannot hold."""
    is_raw = isinstance(value, bytes)
    db.execute(
        """
        insert into sync.stored_records
          (repo_id, collection_id, rkey, cid, rev, value, raw, reason)
        select r.repo_id, c.collection_id, %s, %s, '3kaaaaaaaaaaa', %s::jsonb, %s, %s
          from sync.repos r, sync.collections c where r.did = %s and c.nsid = %s
            on conflict (repo_id, collection_id, rkey) do update
           set cid = excluded.cid, value = excluded.value, raw = excluded.raw,
               reason = excluded.reason
        """,
        [
            rkey,
            cid(repr(value)),
            None if is_raw else json.dumps(value),
            value if is_raw else None,
            "nul" if is_raw else None,
            did(repo),
            collection,
        ],
    )


def columns_of(db: Session, view: str) -> list[str]:
    """Return the names of a view's columns, in order."""
    return [
        row["attname"]
        for row in db.execute(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0"
            " order by attnum",
            [view],
        ).fetchall()
    ]


def rows_of(db: Session, view: str = "sync_views.posts") -> list[dict[str, Any]]:
    """Return what a view shows, in the order of its keys."""
    return db.execute(f"select * from {view} order by did, rkey".encode()).fetchall()


def kinds(changes: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Return column → change, of what create() returns."""
    return {name: change for name, (_, change) in changes.items()}


def volume(repos: int, records: Mapping[str, int]) -> str:
    """Return SQL that stores so many records of each collection, spread over so many repos.

    The nth of each says `number` n and is ten minutes newer than the one before; one repo of a
    hundred is hidden.
    """
    numbers = ", ".join(f"('{nsid}', {number})" for nsid, number in records.items())
    return f"""
set session_replication_role = replica;
insert into sync.repos (did, handle, tracked_by, sync_state, is_active, filter_generation,
                        next_fetch_at, created_at, updated_at)
select 'did:web:r' || n || '.test', 'r' || n || '.test', 'did', 'synchronized', n % 100 > 0, 1,
       '-infinity', now(), now()
  from generate_series(1, {repos}) n;
insert into sync.collections (nsid)
select c.nsid from (values {numbers}) c (nsid, number) on conflict do nothing;
insert into sync.stored_records
  (repo_id, collection_id, rkey, cid, rev, value, indexed_at)
select n * 7919::bigint % {repos} + 1, k.collection_id, 'r' || n, '\\x01711220' || sha256(''),
       '3kaaaaaaaaaaa',
       jsonb_build_object(
         'createdAt', to_char(timestamp '2020-01-01' + n * interval '10 minutes',
                              'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
         'did', 'did:web:r' || n % 5000 || '.test', 'number', n, 'flag', n % 1000 = 0,
         'extra', jsonb_build_object('n', n)),
       timestamptz '2020-01-01' + n * interval '10 minutes'
  from (values {numbers}) c (nsid, number)
  join sync.collections k using (nsid)
 cross join lateral generate_series(1, c.number) n
 order by n;
set session_replication_role = origin;
"""
