"""`standpipe projection`: made, looked at, stopped, mended and dropped by hand."""

import re
from pathlib import Path

import psycopg

from tests.acceptance.commands import (
    Standpipe,
    end,
    on_clone,
    standpipe,
    started_program,
    wait_until,
)
from tests.acceptance.test_cli_doctor import doctor_findings
from tests.acceptance.test_cli_tail import NOTE, OpenSession, fill_log
from tests.sql.waiting import wait_until_blocking

__all__ = ["on_clone", "standpipe"]

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "projections" / "posts.sql"
ADD = ("projection", "add", "notes", "--target", "app.posts", "--apply", "app.apply_posts")
RUN = "select sync.run_projection('notes')"
_DROPPING = """
    select from pg_stat_activity
     where application_name = 'standpipe projection drop' and datname = current_database()
"""


def make_table(session: OpenSession) -> None:
    """Make the table and the function of an example, which is left to the command."""
    made, _, _ = EXAMPLE.read_text(encoding="utf-8").partition("select sync.create_projection(")
    session().execute(made.encode())


def test_a_table_is_kept_rebuilt_and_left(on_clone: Standpipe, session: OpenSession) -> None:
    fill_log(session())
    make_table(session)
    assert on_clone("projection", "list").out.startswith("There is no projection yet")
    assert on_clone(*ADD, "-c", NOTE).out == "Projection notes keeps app.posts.\n"
    [row] = on_clone("projection", "list", "--json").json_lines()
    assert (row["name"], row["state"], row["collections"]) == ("notes", "walking", [NOTE])
    conn = session()
    conn.execute(RUN)
    assert "at rest" in on_clone("projection", "list").out
    conn.execute("update app.posts set text = 'wrong'")
    told = on_clone("projection", "rebuild", "notes").out
    assert re.fullmatch(
        r"Projection notes is rebuilt; (\d+) rows? differed: 0 deleted, \1 updated, 0 inserted\.\n",
        told,
    )
    [row] = on_clone("projection", "rebuild", "notes", "--json").json_lines()
    assert row == {"name": "notes", "deleted": 0, "updated": 0, "inserted": 0}
    assert on_clone("projection", "pause", "notes").out == "Projection notes is paused.\n"
    [row] = on_clone("projection", "status", "notes", "--json").json_lines()
    assert (row["state"], row["target"], row["error"]) == ("paused", "app.posts", None)
    assert "paused" in on_clone("projection", "status", "notes").out
    assert on_clone("projection", "resume", "notes").out == "Projection notes goes on.\n"
    assert "its table stays" in on_clone("projection", "drop", "notes").out
    assert conn.execute("select from app.posts").fetchall() != []


def test_refusals_say_what_to_do(on_clone: Standpipe, session: OpenSession) -> None:
    fill_log(session())
    make_table(session)
    for command in ("status", "pause", "resume", "rebuild", "drop"):
        missing = on_clone("projection", command, "notes")
        missing.assert_one_sentence(7, "standpipe projection list")
    conn = session()
    conn.execute("revoke usage on schema app from sync_ingester")
    on_clone(*ADD).assert_one_sentence(7, "grant usage on schema app to sync_ingester")
    conn.execute("grant usage on schema app to sync_ingester")
    nowhere = (
        "projection",
        "add",
        "notes",
        "--target",
        "app.nowhere",
        "--apply",
        "app.apply_posts",
    )
    on_clone(*nowhere).assert_one_sentence(2, "app.nowhere")
    nothing = ("projection", "add", "notes", "--target", "app.posts", "--apply", "app.nothing")
    on_clone(*nothing).assert_one_sentence(2, "app.nothing")
    odd = ("projection", "add", "notes", "--target", "a.b.c.d", "--apply", "'; (")
    on_clone(*odd).assert_one_sentence(2)
    for target, function in (
        ("\udcff", "app.f"),
        ("app.posts", "\udcff"),
        ("app.posts", "f(nix)"),
        ("elsewhere.app.posts", "app.f"),
    ):
        strange = ("projection", "add", "notes", "--target", target, "--apply", function)
        on_clone(*strange).assert_one_sentence(2)
    on_clone(*ADD, "-c", "no pattern").assert_one_sentence(2, "no pattern")
    conn.execute("insert into app.posts values ('did:x', 'a', 'at://x', '', '{}')")
    on_clone(*ADD).assert_one_sentence(7, "not empty", "p_adopt")
    on_clone(*ADD, "--adopt")
    on_clone(*ADD).assert_one_sentence(7, "already")


def test_a_rebuild_needs_the_rights_of_the_projection_s_role(
    on_clone: Standpipe, session: OpenSession, clone: str
) -> None:
    conn = session()
    fill_log(conn)
    database = conn.info.dbname
    its_url = f"postgresql://keeper:app@{clone.rpartition('@')[2]}"
    conn.execute("create role keeper login password 'app' in role sync_reader")
    try:
        conn.execute(f'grant create on database "{database}" to keeper'.encode())
        with psycopg.connect(its_url) as its_own:
            its_own.execute(EXAMPLE.read_bytes())
        conn.execute("select sync.run_projection('posts')")
        on_clone("projection", "pause", "posts")
        on_clone("projection", "rebuild", "posts").assert_one_sentence(7, "role")
        its = on_clone("projection", "rebuild", "posts", "--database-url", its_url)
        assert "is rebuilt" in its.out, its
    finally:
        conn.execute("set role sync_owner; select sync.drop_projection('posts'); reset role")
        with psycopg.connect(its_url) as its_own:
            its_own.execute("drop owned by keeper cascade")
        conn.execute(f'revoke create on database "{database}" from keeper'.encode())
        conn.execute("drop role keeper")


def test_a_command_that_is_terminated_leaves_nothing_to_be_done_later(
    clone: str, on_clone: Standpipe, session: OpenSession, tmp_path: Path
) -> None:
    make_table(session)
    on_clone(*ADD)
    conn, observer = session(), session()
    environment = {"STANDPIPE_DATABASE_URL": clone}
    with conn.transaction():
        conn.execute("select from sync.projections for update")
        with started_program(
            "projection", "drop", "notes", folder=tmp_path, environment=environment
        ) as process:
            wait_until_blocking(observer, conn)
            assert end(process) == 143
    wait_until(
        lambda: observer.execute(_DROPPING).fetchall() == [], "the statement is no longer run"
    )
    assert len(on_clone("projection", "list", "--json").json_lines()) == 1


def test_what_has_stopped_one_is_shown(on_clone: Standpipe, session: OpenSession) -> None:
    fill_log(session())
    make_table(session)
    conn = session()
    conn.execute("alter table app.posts add constraint short check (rkey <> 'b')")
    on_clone(*ADD)
    conn.execute(RUN)
    assert "failed" in on_clone("projection", "list").out
    told = on_clone("projection", "status", "notes").out
    assert re.search(r"^error_key +at://\S+/b$", told, re.MULTILINE)
    assert "short" in told
    assert on_clone("consumer", "list").out.startswith("There is no consumer yet")
    finding = doctor_findings(on_clone("doctor", "--json"))["projections"]
    assert finding["level"] == "warn"
    assert "projection resume notes`" in finding["advice"]
    conn.execute("update sync.projections set name = 'my notes'")
    finding = doctor_findings(on_clone("doctor", "--json"))["projections"]
    assert "projection resume 'my notes'`" in finding["advice"]
