"""The recipe of docs/how-to/rest-and-graphql.md in a database of some size, for its tests."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from sync.database import connect_sync
from tests.acceptance.postgrest import Relationships, Session, request, statement
from tests.acceptance.restoring import shell_environment
from tests.network.install import skip_loudly
from tests.postgres import TEMPLATE, Server

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "examples" / "rest"
PAGE = (ROOT / "docs" / "how-to" / "rest-and-graphql.md").read_text(encoding="utf-8")
ROLES = ("authenticator", "anon", "api_owner")
DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
REPOS = 20_000
POSTS = 200_000
# The recipe ends a request after 5 s, which a busy machine may need for any.
UNHURRIED = "set local statement_timeout = 0"
HIDDEN = ("did:web:r3.test", "did:web:r4.test", "did:web:r5.test")

VOLUME = f"""
set session_replication_role = replica;
insert into sync.repos (did, handle, tracked_by, sync_state, filter_generation, next_fetch_at,
                        created_at, updated_at)
select 'did:web:r' || n || '.test', 'r' || n || '.test', 'did', 'synchronized', 1, '-infinity',
       now(), now()
  from generate_series(1, {REPOS}) n;
insert into sync.heads (repo_id, rev, data_cid, commit_block, seen_rev)
select r.repo_id, '3kaaaaaaaaaaa', '\\x01711220' || sha256(''), 'block', '3kaaaaaaaaaaa'
  from sync.repos r;
insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value, indexed_at)
select r.repo_id, c.collection_id, 'self', '\\x01711220' || sha256(''), '3kaaaaaaaaaaa',
       jsonb_build_object('displayName', 'Name of ' || r.did), now()
  from sync.repos r, sync.collections c where c.nsid = 'app.bsky.actor.profile';
insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value, indexed_at)
select r.repo_id, c.collection_id, '3k' || lpad(n::text, 9, '0'),
       '\\x01711220' || sha256(n::text::bytea),
       '3kaaaaaaaaaaa',
       jsonb_build_object(
         'text', 'post ' || n,
         'createdAt', to_char(timestamptz '2026-01-01' + n * interval '1 minute',
                              'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
         'reply', jsonb_build_object('parent', jsonb_build_object(
           'uri', 'at://did:web:r' || (n - 1) % {REPOS} + 1 || '.test/app.bsky.feed.post/3k'
                  || lpad((n - 1)::text, 9, '0')))),
       -- A thousand at a time have come in one transaction.
       timestamptz '2026-11-01' + (n / 1000) * interval '1 second'
  from generate_series(1, {POSTS}) n
  join sync.repos r on r.did = 'did:web:r' || n % {REPOS} + 1 || '.test',
       sync.collections c
 where c.nsid = 'app.bsky.feed.post';
-- The account and the post of the page.
update sync.repos set did = '{DID}', handle = 'seven.test' where did = 'did:web:r7.test';
update sync.stored_records s set rkey = '3l6oveex3ii2l' from sync.repos r
 where r.repo_id = s.repo_id and r.did = '{DID}' and s.rkey = '3k000180006';
-- Anybody may write anything: a second profile, under another key.
insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
select s.repo_id, s.collection_id, 'other', s.cid, s.rev, '{{"displayName": "another"}}'
  from sync.stored_records s join sync.repos r using (repo_id)
 where r.did = '{DID}' and s.rkey = 'self';
set session_replication_role = origin;
update sync.repos set is_active = false where did = '{HIDDEN[0]}';
"""


@dataclass(frozen=True, slots=True)
class Api:
    """A database with the recipe in it."""

    url: str
    admin_url: str
    relationships: Relationships

    def get(self, target: str) -> Any:
        """Answer a request of nobody in particular."""
        with request(self.url, role="anon", path=target) as conn:
            conn.execute(UNHURRIED)
            return self.answer(conn, target)

    def answer(self, conn: Session, target: str) -> Any:
        row = conn.execute(statement(target, self.relationships)).fetchone()
        assert row is not None
        return row["body"]

    def plan(self, target: str) -> str:
        """Return what PostgreSQL did for a request."""
        with request(self.url, role="anon", path=target) as conn:
            conn.execute(UNHURRIED)
            explain = sql.SQL("explain (analyze, costs off, timing off) ")
            rows = conn.execute(explain + statement(target, self.relationships)).fetchall()
            return "\n".join(row["QUERY PLAN"] for row in rows)


def run(server: Server, script: str, folder: Path, url: str) -> str:
    """Run commands of the page in a folder."""
    if not (server.binaries.folder / "psql").exists():
        skip_loudly(f"NOT TESTED with psql: there is none in {server.binaries.folder}")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=shell_environment(server.binaries, STANDPIPE_DATABASE_URL=url),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def rkey(number: int) -> str:
    """Return the key of the post of this number."""
    return f"3k{number:09}"


def block(language: str) -> str:
    """Return the only block of the page with this first line."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def setup_script(url: str) -> str:
    script = block("sh setup")
    [example] = re.findall(r"postgresql://\S+", script)
    return script.replace(example, url)


@contextmanager
def open_api(postgres: Server) -> Iterator[Api]:
    """Set up the recipe over 200,000 posts, some of them hidden, with the indexes it asks for."""
    try:
        with postgres.database(template=TEMPLATE) as name:
            url, admin_url = postgres.service_url(name), postgres.admin_url(name)
            run(postgres, setup_script(url), FOLDER, url)
            with psycopg.connect(admin_url, autocommit=True, row_factory=dict_row) as admin:
                admin.execute(VOLUME.encode())
                for step in admin.execute("select statement from sync.index_steps()").fetchall():
                    admin.execute(step["statement"].encode())
                admin.execute("analyze")
                relationships = Relationships.of(admin)
            with connect_sync(url, name="test", autocommit=True) as conn:
                conn.execute("select sync.take_down_repos(%s)", [[HIDDEN[1]]])
                conn.execute("select sync.untrack_repos(%s)", [[HIDDEN[2]]])
            yield Api(url, admin_url, relationships)
    finally:
        for role in ROLES:
            postgres.administer(sql.SQL("drop role if exists {}").format(sql.Identifier(role)))
