"""Play the writers and the readers of the change log in one transaction.

`World` writes what the log is about, the way the service, an operator or psql would; with
constraints immediate its changes are numbered at once, so a test need not commit. `Reader` reads
one shard of a consumer and folds what it gets, strictly: a `create` must be new, an `update` or
`delete` must exist.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import DictRow

from tests.sql.driver import LIKE, POST, cid, did

Session = psycopg.Connection[DictRow]
Key = tuple[str, str, str]
Contents = dict[Key, str]
COLLECTIONS = (POST, LIKE)


class World:
    """The writing side: repos, records, and what hides them."""

    def __init__(self, db: Session, *, repos: int = 2) -> None:
        self.db = db
        db.execute("set constraints all immediate")
        db.execute("select sync.track_repos(%s)", [[did(n) for n in range(repos)]])
        for nsid in COLLECTIONS:
            db.execute(
                "insert into sync.collections (nsid) values (%s) on conflict do nothing", [nsid]
            )
        self.version = 0

    def put(self, repo: int, rkey: str, *, collection: str = POST) -> None:
        """Insert or overwrite a record by hand; a trigger logs it."""
        self.version += 1
        self.db.execute(
            """
            insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
            select r.repo_id, c.collection_id, %s, %s, '3kaaaaaaaaaaa', '{}'
              from sync.repos r, sync.collections c where r.did = %s and c.nsid = %s
                on conflict (repo_id, collection_id, rkey) do update set cid = excluded.cid
            """,
            [rkey, cid(self.version), did(repo), collection],
        )

    def remove(self, repo: int, rkey: str, *, collection: str = POST) -> None:
        """Delete a record by hand; a trigger logs it."""
        self.db.execute(
            """
            delete from sync.stored_records s using sync.repos r, sync.collections c
             where (s.repo_id, s.collection_id, s.rkey) = (r.repo_id, c.collection_id, %s)
               and r.did = %s and c.nsid = %s
            """,
            [rkey, did(repo), collection],
        )

    def load(self, repo: int, rkeys: Iterable[str], *, collection: str = POST) -> None:
        """Fill an empty collection as a first load does: one snapshot row, if it is visible."""
        rows = []
        for rkey in rkeys:
            self.version += 1
            rows.append((rkey, cid(self.version)))
        self.db.execute("set local sync.self_logged = 'on'")
        self.db.execute(
            """
            insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
            select r.repo_id, c.collection_id, n.rkey, n.cid, '3kaaaaaaaaaaa', '{}'
              from sync.repos r, sync.collections c, unnest(%s::text[], %s::bytea[]) n (rkey, cid)
             where r.did = %s and c.nsid = %s
            """,
            [[row[0] for row in rows], [row[1] for row in rows], did(repo), collection],
        )
        self.db.execute("set local sync.self_logged = ''")
        self.db.execute(
            """
            insert into sync_priv.pending_changes (xid, kind, repo_id, collection_id)
            select pg_current_xact_id(), 'snapshot', v.repo_id, c.collection_id
              from sync_priv.visible_repos v, sync.collections c
             where v.did = %s and c.nsid = %s and %s > 0
            """,
            [did(repo), collection, len(rows)],
        )

    def stored(self, repo: int, *, collection: str = POST) -> set[str]:
        """Return the rkeys that are stored, visible or not."""
        rows = self.db.execute(
            """
            select s.rkey from sync.stored_records s join sync.repos r using (repo_id)
              join sync.collections c using (collection_id) where r.did = %s and c.nsid = %s
            """,
            [did(repo), collection],
        ).fetchall()
        return {str(row["rkey"]) for row in rows}

    def take_down(self, repo: int) -> None:
        """Hide a repo."""
        self.db.execute("select sync.take_down_repos(%s)", [[did(repo)]])

    def restore(self, repo: int) -> None:
        """Show it again."""
        self.db.execute("select sync.restore_repos(%s)", [[did(repo)]])

    def untrack(self, repo: int) -> None:
        """Stop tracking a repo; its records go in chunks."""
        self.db.execute("select sync.untrack_repos(%s)", [[did(repo)]])

    def track(self, repo: int) -> None:
        """Track it again."""
        self.db.execute("select sync.track_repos(%s)", [[did(repo)]])

    def purging(self, repo: int) -> bool:
        """Tell whether records of a repo are on their way out."""
        row = self.db.execute(
            "select exists (select from sync_priv.purges p join sync.repos r using (repo_id) "
            "where r.did = %s) as yes",
            [did(repo)],
        ).fetchone()
        return bool(row and row["yes"])

    def purge_chunk(self, repo: int, *, rows: int) -> None:
        """Delete some rows of a repo that is being purged, at last the purge itself."""
        self.db.execute("set local sync.self_logged = 'on'")
        deleted = self.db.execute(
            """
            delete from sync.stored_records s where s.ctid in (
              select s.ctid from sync.stored_records s join sync.repos r using (repo_id)
               where r.did = %s limit %s)
            """,
            [did(repo), rows],
        ).rowcount
        self.db.execute("set local sync.self_logged = ''")
        if deleted < rows:
            self.db.execute(
                "delete from sync_priv.purges p using sync.repos r "
                "where r.repo_id = p.repo_id and r.did = %s",
                [did(repo)],
            )

    def records(self) -> Contents:
        """Return what sync.records shows."""
        rows = self.db.execute("select did, collection, rkey, cid from sync.records").fetchall()
        return {(row["did"], row["collection"], row["rkey"]): row["cid"] for row in rows}


@dataclass(slots=True)
class Reader:
    """A consumer's shard with the fold of everything it was given."""

    db: Session
    name: str
    shard: int = 0
    state: Contents = field(default_factory=dict)
    counter: int = 0

    def read(self, limit: int = 1000) -> list[DictRow]:
        """Read one batch and fold it."""
        rows = self.db.execute(
            "select * from sync.read_changes(%s, %s, %s)", [self.name, limit, self.shard]
        ).fetchall()
        for row in rows:
            self._fold(row)
        assert self.counter == len(self.state)
        return rows

    def read_all(self, limit: int = 1000) -> list[DictRow]:
        """Read until the shard is at rest."""
        rows: list[DictRow] = []
        for _ in range(1000):
            rows += self.read(limit)
            if self.status()["is_at_rest"]:
                return rows
        raise AssertionError(f"consumer {self.name} does not come to rest")

    def status(self) -> dict[str, Any]:
        """Return its row of sync.consumer_status."""
        row = self.db.execute(
            "select * from sync.consumer_status where name = %s and shard = %s",
            [self.name, self.shard],
        ).fetchone()
        assert row is not None
        return row

    def _fold(self, row: DictRow) -> None:
        kind = row["kind"]
        if kind == "purge":
            gone = [
                key
                for key in self.state
                if row["did"] in (None, key[0]) and row["collection"] in (None, key[1])
            ]
            for key in gone:
                del self.state[key]
            self.counter -= len(gone)
            return
        if kind in ("account", "identity"):
            return
        key = (row["did"], row["collection"], row["rkey"])
        assert (key in self.state) == (kind != "create"), f"{kind} of {key} does not fit"
        if kind == "delete":
            del self.state[key]
            self.counter -= 1
        else:
            self.counter += kind == "create"
            self.state[key] = row["cid"]


def make_reader(db: Session, name: str = "app", **arguments: Any) -> Reader:
    """Make a consumer and return its reader."""
    names = ", ".join(f"{argument} => %({argument})s" for argument in arguments)
    db.execute(
        f"select sync.create_consumer(%(name)s{', ' + names if names else ''})".encode(),
        {"name": name, **arguments},
    )
    return Reader(db, name)


def told(rows: Iterable[DictRow]) -> list[tuple[str, str | None]]:
    """Return kinds and rkeys, the gist of a batch."""
    return [(row["kind"], row["rkey"]) for row in rows]
