"""Make views of collections in tests, and records for them."""

import json
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from tests.sql.driver import POST, cid, did
from tests.sql.readers import Session

FIXED = ["did", "rkey", "uri", "cid", "indexed_at"]


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
