"""What can be known of the SQL without running it.

plpgsql_check needs a PostgreSQL that has the extension (Debian: postgresql-15-plpgsql-check). With
CI=true its absence is a failure, elsewhere a skip that says what to install.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pglast
import psycopg
import pytest
from pglast.enums import ObjectType
from psycopg.rows import DictRow

from sync.database import connect_sync
from sync.embedded import Binaries
from sync.embedded.binaries import read_binaries
from sync.schema import migrations_folder, sql_folder
from tests.postgres import TEMPLATE, Server, chosen_binaries, running_server

FILES = sorted(sql_folder().rglob("*.sql"))
MIGRATIONS = sorted(migrations_folder().glob("*.sql"))
LONGEST_FUNCTION = 120
LONGEST_LINE = 100
# The one function that may catch every error: docs/decisions/0021-errors-of-projections.md.
RUNS_CODE_OF_APPS = "apply_step"
PACKAGE = "postgresql-15-plpgsql-check"

# Statements that define an object; comments, grants and triggers go along with theirs.
DEFINING = ("CreateFunctionStmt", "ViewStmt")
ACCOMPANYING = (
    "CommentStmt", "GrantStmt", "GrantRoleStmt", "CreateTrigStmt", "DropStmt", "DoStmt",
    "AlterDefaultPrivilegesStmt", "AlterFunctionStmt", "AlterOwnerStmt",
)  # fmt: skip


def relative(path: Path) -> str:
    return path.relative_to(sql_folder()).as_posix()


def statements(path: Path) -> list[Any]:
    return [raw.stmt for raw in pglast.parse_sql(path.read_text(encoding="utf-8"))]


def kind(statement: Any) -> str:
    return type(statement).__name__


def header(path: Path) -> str:
    """Return the comment block above the first statement."""
    lines = path.read_text(encoding="utf-8").splitlines()
    block: list[str] = []
    for line in lines:
        if not line.startswith("--"):
            break
        block.append(line)
    return "\n".join(block)


def has_function(path: Path) -> bool:
    return any(kind(statement) == "CreateFunctionStmt" for statement in statements(path))


@pytest.mark.parametrize("path", [*FILES, *MIGRATIONS], ids=lambda path: path.stem)
def test_a_file_parses(path: Path) -> None:
    assert statements(path)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_holds_one_object_and_is_named_after_it(path: Path) -> None:
    defined = [s for s in statements(path) if kind(s) in DEFINING]
    others = {kind(s) for s in statements(path)} - {*DEFINING, *ACCOMPANYING}
    assert not others, f"{relative(path)} does more than define: {others}"
    if path.parent.name.endswith("grants"):
        assert not defined
        return
    names = {s.view.relname if kind(s) == "ViewStmt" else s.funcname[-1].sval for s in defined}
    assert names == {path.stem}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_begins_with_what_it_does(path: Path) -> None:
    block = header(path)
    assert len(block) > len("-- x"), f"{relative(path)} has no comment block on top"
    if has_function(path):
        assert "-- Called by:" in block


@pytest.mark.parametrize("path", [p for p in FILES if has_function(p)], ids=relative)
def test_a_function_is_short_and_replaceable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    body = text[text.index("create ") :]
    assert "create function" not in body.lower(), "use create or replace"
    longest = max(
        len(part.splitlines()) for part in re.split(r"(?m)^create or replace", body) if part
    )
    assert longest <= LONGEST_FUNCTION


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_lines_are_short_and_nothing_catches_everything(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    # The sentence of a COMMENT is one literal, which SQL cannot break.
    code, _, _ = text.partition("\ncomment on ")
    assert [line for line in code.splitlines() if len(line) > LONGEST_LINE] == []
    catches_everything = re.search(r"\b(when|or)\s+others\b", code, re.IGNORECASE) is not None
    assert catches_everything == (path.stem == RUNS_CODE_OF_APPS)


@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda path: path.stem)
def test_a_migration_defines_nothing_that_sql_files_replace(path: Path) -> None:
    for statement in statements(path):
        if kind(statement) == "CreateFunctionStmt":
            assert statement.funcname[0].sval == "sync_migration"
        if kind(statement) == "ViewStmt":
            pytest.fail(f"{path.name} creates the view {statement.view.relname}")
        if kind(statement) == "CommentStmt":
            assert statement.objtype is not ObjectType.OBJECT_VIEW


def test_every_object_of_the_contract_has_a_comment(db: psycopg.Connection[DictRow]) -> None:
    rows = db.execute(
        """
        select c.oid::regclass::text as name from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'sync' and c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
          and obj_description(c.oid, 'pg_class') is null
        union all
        select p.oid::regprocedure::text from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        where n.nspname in ('sync', 'sync_priv') and obj_description(p.oid, 'pg_proc') is null
        """
    ).fetchall()
    assert [row["name"] for row in rows] == []


def test_plpgsql_and_definer_functions_pin_their_search_path(
    db: psycopg.Connection[DictRow],
) -> None:
    """SQL-language helpers that keep the caller's rights stay open, so that they can be inlined.

    With pg_temp last: where it is not named, types are looked for there first.
    """
    rows = db.execute(
        """
        select p.oid::regprocedure::text as name from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
        where n.nspname in ('sync', 'sync_priv', 'sync_stage')
          and (l.lanname = 'plpgsql' or p.prosecdef)
          and not exists (
            select from unnest(p.proconfig) as c(setting)
             where c.setting = 'search_path=pg_catalog, pg_temp')
        """
    ).fetchall()
    assert [row["name"] for row in rows] == []


def binaries_with_plpgsql_check() -> Binaries | None:
    """Return a PostgreSQL that has the extension: the tests' own, else the system's."""
    system = Path("/usr/lib/postgresql")
    folders = [chosen_binaries().folder, *sorted(system.glob("*/bin"))]
    for folder in folders:
        for share in (folder.parent / "share", Path("/usr/share/postgresql") / folder.parent.name):
            if list(share.rglob("extension/plpgsql_check.control")):
                return read_binaries(folder)
    return None


def test_whoever_forbids_scans_forbids_jit(db: psycopg.Connection[DictRow]) -> None:
    """The price of a scan that cannot be avoided would be taken for work worth compiling."""
    rows = db.execute(
        """
        select p.oid::regprocedure::text as name from pg_proc p
         where 'enable_seqscan=off' = any (p.proconfig) and 'jit=off' <> all (p.proconfig)
        """
    ).fetchall()
    assert rows == []


@pytest.fixture(scope="module")
def checking_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server with plpgsql_check, the schema upgraded in its template."""
    binaries = binaries_with_plpgsql_check()
    if binaries is None:
        sentence = f"no PostgreSQL here has plpgsql_check: install {PACKAGE}"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    folder = tmp_path_factory.mktemp("checked") / "data"
    with running_server(folder, binaries) as server:
        server.make_template()
        yield server


def test_plpgsql_check_finds_nothing(checking_server: Server) -> None:
    with connect_sync(checking_server.admin_url(TEMPLATE), name="plpgsql_check") as conn:
        conn.execute("create extension plpgsql_check")
        # Staging tables exist per connection; the checker has to see them.
        conn.execute("select sync.open_stage()")
        found = conn.execute(
            """
            select p.oid::regprocedure::text as routine, t.relid::regclass::text as on_table,
                   c.lineno, c.level, c.sqlstate, c.message, c.detail, c.query
            from pg_proc p
            join pg_namespace n on n.oid = p.pronamespace
            join pg_language l on l.oid = p.prolang
            left join lateral (
              -- One function may serve several triggers; together they name all it can read.
              select g.tgrelid as relid, max(g.tgoldtable) as old_name,
                     max(g.tgnewtable) as new_name
              from pg_trigger g where g.tgfoid = p.oid and g.tgparentid = 0
              group by g.tgrelid
            ) t on true
            cross join lateral plpgsql_check_function_tb(
              p.oid, coalesce(t.relid, 0), oldtable => t.old_name, newtable => t.new_name,
              fatal_errors => false, extra_warnings => true, performance_warnings => false,
              security_warnings => true
            ) c
            where n.nspname in ('sync', 'sync_priv', 'sync_stage') and l.lanname = 'plpgsql'
              and (p.prorettype <> 'trigger'::regtype or t.relid is not null)
              -- Its caller's own expressions, with its caller's rights; and statements that
              -- sync_priv.difference_steps() has quoted. What `return query execute` returns it
              -- cannot know.
              and (p.proname, c.level) not in (
                ('define_view', 'security'), ('rebuild_projection', 'security'),
                ('checked_text', 'security'), ('search', 'warning extra'),
                ('waiting_texts', 'warning extra'))
            order by 1, 3
            """
        ).fetchall()
    assert not found, "\n".join(str(tuple(row.values())) for row in found)
