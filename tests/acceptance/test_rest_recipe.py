"""The files in docs/examples/rest, and what docs/how-to/rest-and-graphql.md asks of them."""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from sync.database import connect_sync
from sync.schema import upgrade
from tests.acceptance.postgrest import Session, request, statement
from tests.acceptance.rest_api import (
    DID,
    FOLDER,
    HIDDEN,
    PAGE,
    POSTS,
    REPOS,
    ROLES,
    UNHURRIED,
    Api,
    block,
    open_api,
    rkey,
)
from tests.postgres import Server
from tests.sql.logins import sqlstate_of

REQUESTS = re.findall(r"^curl 'http://localhost:3000(/[^']+)'$", PAGE, re.MULTILINE)
# The largest range on the page is of a thousand posts, each with one more row.
MOST_READ = 2_100
DENIED = "42501"
NOT_UPDATABLE = "55000"


@pytest.fixture(scope="module")
def api(postgres: Server) -> Iterator[Api]:
    """Return the recipe over 200,000 posts, some of them hidden."""
    with open_api(postgres) as api:
        yield api


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
    older = ""
    for _ in range(200):
        page = api.get(f"/rpc/newest_posts?page_size=100{older}")
        assert len(page) == 100
        seen |= {row["did"] for row in page}
        older = f"&older_than={page[-1]['cursor']}"
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
    older = ""
    for _ in range(30):
        page = api.get(f"/rpc/newest_posts?page_size=97{older}")
        found += [(row["did"], row["rkey"]) for row in page]
        moments += [row["indexed_at"] for row in page]
        older = f"&older_than={page[-1]['cursor']}"
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
        conn.execute(UNHURRIED)
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


def test_an_upgrade_takes_nothing_away(api: Api) -> None:
    upgrade(api.url)
    target = f"/posts?did=eq.{DID}&select=*,author(handle)"
    assert len(api.get(target)) == POSTS / REPOS
    assert api.get("/rpc/newest_posts?page_size=1")


def test_a_function_of_a_later_version_is_anons_too(api: Api) -> None:
    """What columns are made of may get company, which nobody else may call."""
    with connect_sync(api.url, name="test") as conn:
        conn.execute("grant anon, sync_owner to current_user; set role sync_owner")
        conn.execute("create function sync_migration.as_new() returns int return 1")
        conn.execute("revoke all on all functions in schema sync_migration from public")
        conn.execute("set role anon")
        assert conn.execute("select sync_migration.as_new() as one").fetchone() == {"one": 1}
        conn.rollback()


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
