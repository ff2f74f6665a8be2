"""The files in docs/examples/rest, and what docs/how-to/rest-and-graphql.md asks of them."""

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from sync.database import connect_sync
from tests.acceptance.rest import Relationships, Session, request, statement
from tests.acceptance.restoring import shell_environment
from tests.network.install import skip_loudly
from tests.postgres import TEMPLATE, Server
from tests.sql.logins import sqlstate_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "examples" / "rest"
PAGE = (ROOT / "docs" / "how-to" / "rest-and-graphql.md").read_text(encoding="utf-8")
REQUESTS = re.findall(r"^curl 'http://localhost:3000(/[^']+)'$", PAGE, re.MULTILINE)
ROLES = ("authenticator", "anon", "api_owner")
DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
REPOS = 20_000
POSTS = 200_000
# The largest range on the page is of a thousand posts, each with one more row.
MOST_READ = 2_100
HIDDEN = ("did:web:r3.test", "did:web:r4.test", "did:web:r5.test")
DENIED = "42501"
NOT_UPDATABLE = "55000"

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
            return self.answer(conn, target)

    def answer(self, conn: Session, target: str) -> Any:
        row = conn.execute(statement(target, self.relationships)).fetchone()
        assert row is not None
        return row["body"]

    def plan(self, target: str) -> str:
        """Return what PostgreSQL did for a request."""
        with request(self.url, role="anon", path=target) as conn:
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


@pytest.fixture(scope="module")
def api(postgres: Server) -> Iterator[Api]:
    """Return the recipe over 200,000 posts, some of them hidden, with the indexes it asks for."""
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
    for role in ROLES:
        postgres.administer(sql.SQL("drop role {}").format(sql.Identifier(role)))


@pytest.mark.parametrize("target", REQUESTS)
def test_every_request_of_the_page_is_answered(api: Api, target: str) -> None:
    body = api.get(target)
    assert body


@pytest.mark.parametrize("target", REQUESTS)
def test_every_request_of_the_page_reads_little(api: Api, target: str) -> None:
    plan = api.plan(target)
    assert "Seq Scan on stored_records" not in plan, plan
    read = re.findall(r"on stored_records .*?actual rows=([\d.]+) loops=(\d+)", plan)
    assert sum(float(rows) * int(loops) for rows, loops in read) <= MOST_READ, plan


# Who sees what ----------------------------------------------------------------------------------


@pytest.mark.rule("AC-01")
@pytest.mark.parametrize(
    "target",
    [
        "/posts?did=eq.{did}",
        "/posts?did=eq.{did}&select=text,author(handle),parent(uri)",
        "/profiles?did=eq.{did}&select=handle,posts(text)",
    ],
)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_hidden_account_is_not_there(api: Api, hidden: str, target: str) -> None:
    assert api.get(target.format(did=hidden)) == []
    assert api.get(target.format(did="did:web:r9.test")) != []


@pytest.mark.rule("AC-01")
def test_a_hidden_account_is_embedded_nowhere(api: Api) -> None:
    """Each post answers the one before it, so a visible one answers one of a hidden account."""
    answers = api.get(f"/posts?rkey=eq.{rkey(3)}&did=eq.did:web:r4.test")
    assert answers == []
    [answer] = api.get(
        f"/posts?did=eq.did:web:r6.test&rkey=eq.{rkey(5)}&select=text,reply,parent(text)"
    )
    assert HIDDEN[2] in answer["reply"]["parent"]["uri"]
    assert answer["parent"] is None


@pytest.mark.rule("AC-01")
def test_the_feed_leaves_hidden_accounts_out(api: Api) -> None:
    """The newest posts are of everybody in turn, so the hidden ones are among the last 20,000."""
    seen: set[str] = set()
    before = ""
    for _ in range(200):
        page = api.get(f"/rpc/newest_posts?page_size=100{before}")
        assert len(page) == 100
        seen |= {row["did"] for row in page}
        before = f"&before={page[-1]['cursor']}"
    assert len(seen) > REPOS - 100
    assert not seen & set(HIDDEN)


REFUSED = {
    DENIED: [
        *[
            f"select from {relation}"
            for relation in (
                "sync.records", "sync.change_log", "sync.repos", "sync.stored_records",
                "sync.changes", "sync.status", "sync.repo_status", "sync.consumer_status",
                "sync.collection_views", "sync.lexicons", "sync_views.profiles",
                "sync_priv.visible_repos", "sync_priv.purges",
            )
        ],
        "select sync.create_consumer('x')",
        "select * from sync.read_changes('x')",
        "select * from sync.list_records('app.bsky.feed.post')",
        "select * from sync.get_record('at://did:web:r9.test/app.bsky.feed.post/3k')",
        "select sync.track_repos('{}')",
        "select sync.create_view('api.mine', 'app.bsky.feed.post')",
        "create table api.mine ()",
        "create table public.mine ()",
        "create view api.mine as select 1",
        "drop view api.posts",
        "set role api_owner",
        "set role sync_reader",
        "select sync_priv.clock()",
        "select sync_priv.caller()",
    ],
    NOT_UPDATABLE: [
        "insert into api.posts (did) values ('did:plc:x')",
        "update api.posts set text = 'x'",
        "delete from api.posts",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [(one, sqlstate) for sqlstate, statements in REFUSED.items() for one in statements],
)
def test_anon_reaches_nothing_else(api: Api, statement: str, sqlstate: str) -> None:
    with request(api.url, role="anon", method="POST") as conn:
        assert sqlstate_of(conn, statement) == sqlstate


def test_the_login_by_itself_is_nobody(api: Api) -> None:
    with request(api.url, role="authenticator") as conn:
        for relation in ("api.posts", "api.profiles", "sync.records"):
            assert sqlstate_of(conn, f"select from {relation}") == DENIED


def test_no_code_is_called_with_a_hidden_row(api: Api) -> None:
    """An engine sends no function of a stranger; but a role that may create one is no hole."""
    with psycopg.connect(api.admin_url) as conn:
        conn.execute(
            "create function api.peek(text) returns boolean language plpgsql cost 0.0001"
            " as $$ begin raise notice 'saw %', $1; return true; end $$"
        )
        conn.execute("set role anon")
        said: list[str] = []
        conn.add_notice_handler(lambda note: said.append(note.message_primary or ""))
        for view in ("api.posts", "api.profiles"):
            conn.execute(f"select from {view} where api.peek(did)".encode())
        conn.rollback()
    assert len(said) > POSTS
    assert not {line.removeprefix("saw ") for line in said} & set(HIDDEN)


# What the page says beside -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/posts?order=indexed_at.desc&limit=50",
        f"/posts?uri=eq.at://{DID}/app.bsky.feed.post/3l6oveex3ii2l",
    ],
)
def test_what_the_page_calls_slow_is_slow(api: Api, target: str) -> None:
    """If it no longer is, the table there has to say so."""
    with request(api.url, role="anon") as conn:
        explain = sql.SQL("explain ") + statement(target, api.relationships)
        rows = conn.execute(explain).fetchall()
    assert any("Seq Scan on stored_records" in row["QUERY PLAN"] for row in rows)


def test_a_request_without_bounds_is_ended(api: Api) -> None:
    with request(api.url, role="anon") as conn:
        conn.execute("set local statement_timeout = '1ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            api.answer(conn, "/posts?order=indexed_at.desc&limit=50")
    with request(api.url, role="anon") as conn:
        assert conn.execute("show statement_timeout").fetchone() == {"statement_timeout": "5s"}


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_pages_of_an_account_bring_each_post_once(api: Api, size: int) -> None:
    base = f"/posts?did=eq.{DID}&select=rkey&order=rkey.desc&limit={size}"
    found: list[str] = []
    while page := api.get(base + (f"&rkey=lt.{found[-1]}" if found else "")):
        found += [row["rkey"] for row in page]
    assert found == sorted(set(found), reverse=True)
    assert len(found) == POSTS / REPOS


def test_pages_of_the_feed_go_through_a_thousand_of_one_moment(api: Api) -> None:
    found: list[tuple[str, str]] = []
    moments: list[str] = []
    before = ""
    for _ in range(30):
        page = api.get(f"/rpc/newest_posts?page_size=97{before}")
        found += [(row["did"], row["rkey"]) for row in page]
        moments += [row["indexed_at"] for row in page]
        before = f"&before={page[-1]['cursor']}"
    assert len(set(found)) == len(found) == 30 * 97
    assert moments == sorted(moments, reverse=True)
    assert max(len(list(group)) for _, group in itertools.groupby(moments)) >= 990


def shape(value: Any) -> Any:
    """Return the names in an answer, without its values."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return None


def test_the_answer_on_the_page_has_the_shape_of_ours(api: Api) -> None:
    [target] = [one for one in REQUESTS if "parent(" in one]
    assert shape(json.loads(block("json"))) == shape(api.get(target))


def test_the_configuration_names_what_the_roles_file_makes(api: Api) -> None:
    text = (FOLDER / "postgrest.conf").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    settings = {}
    for line in lines:
        name, value = re.fullmatch(r'([a-z-]+) = ("[^"]*"|\d+|true|false)', line).groups()  # type: ignore[union-attr]
        settings[name] = value.strip('"')
    assert len(settings) == len(lines)
    with psycopg.connect(api.admin_url) as conn:
        conn.execute(sql.SQL("set role {}").format(sql.Identifier(settings["db-anon-role"])))
        conn.execute(
            sql.SQL("select from {}").format(sql.Identifier(settings["db-schemas"], "posts"))
        )
    assert make_login(settings["db-uri"]) in ROLES


def make_login(uri: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(uri)["user"])


def directives(conn: Session) -> dict[str, Any]:
    """Return what pg_graphql would read in the comments of views."""
    rows = conn.execute(
        "select relname, obj_description(oid, 'pg_class') as text from pg_class"
        " where relnamespace = 'api'::regnamespace and relkind = 'v'"
    ).fetchall()
    found = {}
    for row in rows:
        written = re.search(r"@graphql\((.*)\)", row["text"] or "", re.DOTALL)
        assert written is not None, f"no key of {row['relname']}"
        found[row["relname"]] = json.loads(written[1])
    return found


def test_the_comments_for_graphql_name_keys_that_are_keys(api: Api) -> None:
    with request(api.url, role="anon") as conn:
        for view, directive in directives(conn).items():
            key = sql.SQL(", ").join(map(sql.Identifier, directive["primary_key_columns"]))
            counts = conn.execute(
                sql.SQL("select count(*) as rows, count(distinct ({})) as keys from {}").format(
                    key, sql.Identifier("api", view)
                )
            ).fetchone()
            assert counts is not None
            assert counts["rows"] == counts["keys"] > REPOS - 10


def test_the_comments_for_graphql_relate_columns_that_are_there(api: Api) -> None:
    with request(api.url, role="anon") as conn:
        views = directives(conn)
        for view, directive in views.items():
            for key in directive.get("foreign_keys", []):
                there = sql.Identifier(key["foreign_schema"], key["foreign_table"])
                pairs = zip(key["local_columns"], key["foreign_columns"], strict=True)
                conn.execute(
                    sql.SQL("select from {} v join {} f on {} limit 0").format(
                        sql.Identifier("api", view),
                        there,
                        sql.SQL(" and ").join(
                            sql.SQL("v.{} = f.{}").format(*map(sql.Identifier, pair))
                            for pair in pairs
                        ),
                    )
                )
                assert key["foreign_columns"] == views[key["foreign_table"]]["primary_key_columns"]


# When a lexicon changes -------------------------------------------------------------------------


def execute_file(conn: Session, name: str, *, before: str = "", after: str = "") -> None:
    """Run a file within the transaction at hand."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert before in text
    text = re.sub(r"^(begin|commit);$", "", text.replace(before, after), flags=re.MULTILINE)
    conn.execute(f"{text}\nreset role;".encode())


def test_the_files_run_again(api: Api) -> None:
    with connect_sync(api.url, name="test") as conn:
        for name in ("views.sql", "api.sql", "graphql.sql"):
            execute_file(conn, name)
        conn.rollback()


def test_a_property_that_changes_its_type_needs_the_view_anew(api: Api) -> None:
    changed = {
        "before": '"langs": {"type": "array", "items": {"type": "string", "format": "language"}}',
        "after": '"langs": {"type": "string"}',
    }
    with connect_sync(api.url, name="test") as conn:
        with pytest.raises(psycopg.Error) as caught, conn.transaction():
            execute_file(conn, "views.sql", **changed)
        assert caught.value.sqlstate == "SY402"
        conn.execute(block("sql remake").encode())
        execute_file(conn, "views.sql", **changed)
        for name in ("api.sql", "graphql.sql"):
            execute_file(conn, name)
        assert set(directives(conn)) == {"posts", "profiles"}
        conn.execute("grant anon to current_user; set local role anon")
        row = conn.execute(
            f"select pg_typeof(langs)::text as type from api.posts where did = '{DID}' limit 1"
        ).fetchone()
        assert row == {"type": "text"}
        conn.rollback()
