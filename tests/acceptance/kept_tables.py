"""An app whose tables a program keeps: who writes the records, and the program's process."""

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row

from tests.acceptance.commands import wait_until
from tests.sql.driver import LIKE, POST, cid, did

PATIENCE_S = 60.0
ACCOUNTS = range(1, 5)
QUIET = 5  # nothing random happens to it
PSQL = "with_psql.sql"

Session = psycopg.Connection[DictRow]
KEPT = "select did, rkey, text from posts order by 1, 2"
STORED = """
    select did, rkey, value ->> 'text' as text from sync.records
     where collection = 'app.bsky.feed.post' order by 1, 2
"""
COUNTED = "select did, posts from post_counts where posts <> 0 order by 1"
COUNTS = """
    select did, count(*) as posts from sync.records
     where collection = 'app.bsky.feed.post' group by 1 order by 1
"""
PUT = """
    insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value, raw, reason)
    select r.repo_id, c.collection_id, %(rkey)s, %(cid)s, '3kaaaaaaaaaaa', %(value)s::jsonb,
           case when %(value)s is null then '\\xa0'::bytea end,
           case when %(value)s is null then 'a null character' end
      from sync.repos r, sync.collections c where r.did = %(did)s and c.nsid = %(collection)s
        on conflict (repo_id, collection_id, rkey) do update
       set cid = excluded.cid, value = excluded.value, raw = excluded.raw, reason = excluded.reason
"""
MANY = """
    insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
    select r.repo_id, c.collection_id, 'many' || n, '\\x01711220' || sha256(int4send(n)),
           '3kaaaaaaaaaaa', jsonb_build_object('text', n::text)
      from generate_series(1, %s) n, sync.repos r, sync.collections c
     where r.did = %s and c.nsid = %s
"""
DELETE = """
    delete from sync.stored_records s using sync.repos r
     where s.repo_id = r.repo_id and (r.did, s.rkey) = (%s, %s)
"""


class World:
    """Somebody who writes records by hand, and the app's tables beside them."""

    def __init__(self, session: Session, admin_url: str, url: str) -> None:
        self.session, self.admin_url, self.url = session, admin_url, url
        self.admin = psycopg.connect(admin_url, autocommit=True, row_factory=dict_row)
        self._version = 0
        session.execute("grant create on schema public to app_login")
        session.execute("select sync.track_collections(%s)", [[POST, LIKE]])
        session.execute("select sync.track_repos(%s)", [[did(n) for n in (*ACCOUNTS, QUIET)]])
        for nsid in (POST, LIKE):
            session.execute(
                "insert into sync.collections (nsid) values (%s) on conflict do nothing", [nsid]
            )

    def put(self, account: int, rkey: str, value: str | None, *, collection: str = POST) -> None:
        """Write a record, given as JSON; None is what jsonb cannot hold."""
        self._version += 1
        names = {"did": did(account), "rkey": rkey, "collection": collection}
        self.session.execute(PUT, {**names, "cid": cid(self._version), "value": value})

    def say(self, account: int, rkey: str, text: str = "lorem") -> None:
        """Write a post."""
        self.put(account, rkey, f'{{"text": "{text} {self._version}"}}')

    def say_much(self, account: int, count: int) -> None:
        """Write more posts than a batch has, at once."""
        self.session.execute(MANY, [count, did(account), POST])

    def delete(self, account: int, rkey: str) -> None:
        """Delete a record, if it is there."""
        self.session.execute(DELETE, [did(account), rkey])

    def replay(self) -> None:
        """Have the app ask for everything again."""
        with psycopg.connect(self.url) as conn:
            conn.execute("select sync.replay('posts')")

    def untrack(self, collection: str) -> int:
        """Have everything of a collection purged."""
        query = "select sync.untrack_collections(%s) as n"
        [row] = self.session.execute(query, [[collection]]).fetchall()
        return int(row["n"])

    def take_down(self, account: int) -> None:
        """Hide an account."""
        self.session.execute("select sync.take_down_repos(%s)", [[did(account)]])

    def restore(self, account: int) -> None:
        """Show it again."""
        self.session.execute("select sync.restore_repos(%s)", [[did(account)]])

    def do_something(self, chance: random.Random) -> None:
        """Write as an account would, now and then hide one or show it again."""
        account, rkey = chance.choice(ACCOUNTS), chance.choice("abcdef")
        what = chance.choices(("say", "delete", "take_down", "restore"), (60, 30, 3, 7))[0]
        getattr(self, what)(*((account, rkey) if what in {"say", "delete"} else (account,)))

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Return what a query finds."""
        return list(self.admin.execute(query.encode()).fetchall())

    def is_kept(self) -> bool:
        """Tell whether the app's tables say what is there, and count right."""
        with self.admin.transaction():
            self.admin.execute("set transaction isolation level repeatable read")
            return (self.rows(KEPT), self.rows(COUNTED)) == (self.rows(STORED), self.rows(COUNTS))

    def backends(self, condition: str = "true") -> list[int]:
        """Return the process ids of the program's connections."""
        query = f"select pid from pg_stat_activity where usename = 'app_login' and {condition}"
        return [row["pid"] for row in self.rows(query)]

    def terminate(self) -> None:
        """End the program's connections."""
        pids = self.backends()
        assert pids
        for pid in pids:
            self.admin.execute("select pg_terminate_backend(%s, 10000)", [pid])

    @contextmanager
    def in_a_batch(self) -> Iterator[None]:
        """Hold the program in the middle of a transaction: it has read, and may not count."""
        with psycopg.connect(self.admin_url) as holder:
            holder.execute("lock table post_counts in share mode")
            rkey = f"held{self._version}"
            with self.session.transaction():
                self.say(QUIET, rkey)
                self.say(QUIET, rkey)  # comes after the count, and would stay lost
            wait_until(
                lambda: self.backends("pg_blocking_pids(pid) <> '{}'"),
                "the program applies a batch",
                timeout_s=PATIENCE_S,
            )
            yield


@dataclass(slots=True)
class Example:
    """One of the programs, and how it is run."""

    name: str
    command: str
    world: World
    environment: dict[str, str]
    folder: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def is_psql(self) -> bool:
        """Tell whether it is psql, which neither listens nor connects again."""
        return self.name == PSQL

    def start(self) -> None:
        """Run its command, with this Python."""
        command = self.command.replace("python", sys.executable, 1)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def await_kept(self, what: str) -> None:
        """Wait until the app's tables are right."""

        def is_kept() -> bool:
            assert self.is_running(), self.log.read_text()
            return self.world.is_kept()

        wait_until(is_kept, f"kept: {what}", timeout_s=PATIENCE_S)

    def is_running(self) -> bool:
        """Tell whether it has not ended."""
        return self.process is not None and self.process.poll() is None

    def await_loss(self) -> None:
        """See that psql, and only psql, gives up; then do what the README says."""
        if self.is_psql:
            assert self.wait() != 0
            self.start()

    def send(self, number: int) -> None:
        """Send a signal."""
        assert self.process is not None
        assert self.is_running(), self.log.read_text()
        self.process.send_signal(number)

    def wait(self) -> int:
        """Return how it ended."""
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    def ask_to_end(self) -> None:
        """See that it ends well when it is asked to."""
        self.send(signal.SIGINT if self.is_psql else signal.SIGTERM)
        assert self.wait() == 0, self.log.read_text()

    def kill(self) -> None:
        """End it without a word."""
        self.send(signal.SIGKILL)
        self.wait()
