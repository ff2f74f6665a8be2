"""The command line on a database: what it prints, what it refuses, and with which exit code."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import click
import psycopg
import pytest
from psycopg.rows import DictRow

from sync.cli.app import COMMANDS, cli, explain, run_command
from sync.embedded import EmbeddedPostgres
from sync.errors import BadInput
from tests.acceptance.commands import (
    PROGRAM,
    Result,
    Standpipe,
    clean_environment,
    on_clone,
    read_line,
    run_program,
    standpipe,
    started_program,
)

__all__ = ["on_clone", "standpipe"]

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
OTHER_DID = "did:plc:z72i7hdynmk6r22z27h6tvur"
NOTE = "com.example.note"

Session = psycopg.Connection[DictRow]
OpenSession = Callable[..., Session]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str, standpipe: Standpipe) -> None:
    result = standpipe(name, "--help")
    assert result.code == 0
    assert "Example" in result.out
    assert f"standpipe {name}" in result.out


def test_every_command_that_prints_data_can_print_json() -> None:
    context = click.Context(cli)
    for name in COMMANDS.keys() - {"demo", "run", "upgrade", "exec", "simnet"}:
        command = cli.get_command(context, name)
        assert command is not None
        parts = command.commands.values() if isinstance(command, click.Group) else [command]
        for part in parts:
            assert "as_json" in {parameter.name for parameter in part.params}, (name, part.name)


@pytest.mark.parametrize("name", ["consumer", "source"])
def test_every_part_of_a_command_explains_itself(name: str, standpipe: Standpipe) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert isinstance(command, click.Group)
    for part in command.commands:
        result = standpipe(name, part, "--help")
        assert f"standpipe {name} {part}" in result.out
        assert "Example" in result.out


def test_without_a_command_it_prints_its_help(standpipe: Standpipe) -> None:
    result = standpipe()
    assert result.code == 2
    assert "Commands:" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["status", "--frobnicate"],
        ["verify"],
        ["import", "missing.car"],
        ["query", "--json", "--csv", "select 1"],
        ["status", "--data-dir", "x", "--database-url", "postgresql://x/y"],
    ],
)
def test_wrong_usage_exits_2_without_a_traceback(
    arguments: list[str], standpipe: Standpipe
) -> None:
    result = standpipe(*arguments)
    assert result.code == 2
    assert "Traceback" not in result.err
    assert "Error: " in result.err


def test_an_unknown_setting_is_refused(standpipe: Standpipe) -> None:
    result = standpipe("status", STANDPIPE_RELAI_URL="https://relay.example.com")
    result.assert_one_sentence(2, "STANDPIPE_RELAI_URL", "did you mean STANDPIPE_RELAY_URL?")


@pytest.mark.parametrize("command", [["status"], ["track", DID], ["run"], ["upgrade"]])
def test_an_unreachable_database_is_one_sentence(command: list[str], standpipe: Standpipe) -> None:
    url = "postgresql://user:secret@127.0.0.1:1/app"
    result = standpipe(*command, STANDPIPE_DATABASE_URL=url)
    result.assert_one_sentence(3, "127.0.0.1:1/app", "STANDPIPE_DATABASE_URL")
    assert "secret" not in result.err


def test_a_wrong_password_is_one_sentence(standpipe: Standpipe, clone: str) -> None:
    login, _, place = clone.rpartition("@")
    url = f"{login.rpartition(':')[0]}:wrong@{place}"
    result = standpipe("status", STANDPIPE_DATABASE_URL=url)
    result.assert_one_sentence(3, "refuses the login", "password")


@pytest.mark.parametrize("command", [["status"], ["track", DID], ["run"], ["import", "a.car"]])
def test_a_database_without_schema_says_to_upgrade(
    command: list[str], standpipe: Standpipe, empty_database: str, tmp_path: Path
) -> None:
    (tmp_path / "a.car").write_bytes(b"")
    result = standpipe(*command, STANDPIPE_DATABASE_URL=empty_database)
    result.assert_one_sentence(4, "standpipe upgrade")


def test_a_newer_schema_is_refused(on_clone: Standpipe, session: OpenSession) -> None:
    session().execute("update sync_priv.alembic_version set version_num = '9999'")
    for command in (["status"], ["run"], ["run", "--upgrade"], ["upgrade"]):
        on_clone(*command).assert_one_sentence(4, "9999", "newer")


def test_upgrade_refuses_a_database_of_another_encoding(
    standpipe: Standpipe, empty_database: str
) -> None:
    name = f"{urlsplit(empty_database).path[1:]}_ascii"
    with psycopg.connect(empty_database, autocommit=True) as conn:
        conn.execute(
            psycopg.sql.SQL(
                "create database {} encoding 'SQL_ASCII' template template0 locale 'C'"
            ).format(psycopg.sql.Identifier(name))
        )
    try:
        url = urlsplit(empty_database)._replace(path=f"/{name}").geturl()
        result = standpipe("upgrade", STANDPIPE_DATABASE_URL=url)
        result.assert_one_sentence(4, "SQL_ASCII", "UTF8")
    finally:
        with psycopg.connect(empty_database, autocommit=True) as conn:
            conn.execute(psycopg.sql.SQL("drop database {}").format(psycopg.sql.Identifier(name)))


def test_upgrade_makes_the_schema(standpipe: Standpipe, empty_database: str) -> None:
    for _ in range(2):
        result = standpipe("upgrade", STANDPIPE_DATABASE_URL=empty_database)
        assert result.code == 0, result.err
        assert "is at schema revision" in result.out
    assert standpipe("status", STANDPIPE_DATABASE_URL=empty_database).code == 0


def test_a_reading_command_makes_no_data_folder(standpipe: Standpipe, tmp_path: Path) -> None:
    result = standpipe("status")
    result.assert_one_sentence(3, "no embedded database", "standpipe-data")
    assert list(tmp_path.iterdir()) == []


def test_the_first_track_makes_an_embedded_database_and_stops_it_again(tmp_path: Path) -> None:
    first = run_program("track", DID, folder=tmp_path)
    assert (first.code, first.err) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {"standpipe-data"}
    assert not (tmp_path / "standpipe-data" / "cluster" / "postmaster.pid").exists()
    [overview] = run_program("status", "--json", folder=tmp_path).json_lines()
    assert overview["status"]["repos"] == 1


def test_a_running_embedded_server_is_left_running(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "standpipe-data") as url:
        assert run_program("upgrade", folder=tmp_path).code == 0
        assert run_program("doctor", folder=tmp_path).code == 0
        with psycopg.connect(url) as conn:
            assert conn.execute("select 1").fetchone() == (1,)


def test_a_program_has_the_embedded_database_at_hand_as_long_as_it_runs(tmp_path: Path) -> None:
    script = 'psql -qAt -c "select current_user" "$STANDPIPE_DATABASE_URL"; exit 3'
    result = run_program("exec", "sh", "-c", script, folder=tmp_path)
    assert (result.code, result.out, result.err) == (3, "standpipe\n", "")
    assert not (tmp_path / "standpipe-data" / "cluster" / "postmaster.pid").exists()


def test_a_program_that_is_not_there_or_dies_is_told_as_a_shell_does(on_clone: Standpipe) -> None:
    on_clone("exec", "no-such-program").assert_one_sentence(2, "no-such-program cannot be run")
    assert on_clone("exec", "sh", "-c", "kill -TERM $$").code == 128 + 15


def test_a_ctrl_c_ends_what_a_shell_runs_and_not_the_shell(tmp_path: Path, clone: str) -> None:
    environment = {"STANDPIPE_DATABASE_URL": clone}
    script = "sleep 60 & trap 'echo trapped; kill $!' INT; echo ready; wait; exit 5"
    with started_program(
        "exec", "bash", "-c", script, folder=tmp_path, environment=environment
    ) as (process):
        assert read_line(process) == "ready\n"
        for pid in (process.pid, *children(process.pid)):
            os.kill(pid, signal.SIGINT)
        assert read_line(process) == "trapped\n"
        assert process.wait(60) == 5


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [
        int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    ]


def test_an_upgrade_of_the_roles_makes_nothing_in_the_database(
    standpipe: Standpipe, empty_database: str
) -> None:
    for _ in range(2):
        result = standpipe("upgrade", "--roles-only", STANDPIPE_DATABASE_URL=empty_database)
        assert (result.code, "roles" in result.out) == (0, True)
    with psycopg.connect(empty_database) as conn:
        found = conn.execute(
            "select (select count(*) from pg_namespace where nspname like 'sync%'), "
            "has_database_privilege('sync_owner', current_database(), 'create')"
        ).fetchone()
    assert found == (0, True)


def test_tracking_is_idempotent_and_shows_in_the_status(on_clone: Standpipe) -> None:
    first = on_clone("track", DID, "--collection", NOTE, "--json").json_lines()
    again = on_clone("track", DID, "--collection", NOTE, "--json").json_lines()
    assert first == [{"dids": [DID], "new_repos": 1, "new_collections": 1}]
    assert again == [{"dids": [DID], "new_repos": 0, "new_collections": 0}]
    [overview] = on_clone("status", "--json").json_lines()
    assert overview["status"]["pending"] == 1
    [repo] = on_clone("status", DID, "--json").json_lines()
    assert (repo["did"], repo["sync_state"]) == (DID, "pending")
    assert "pending" in on_clone("status", DID).out
    assert on_clone(
        "query", "--json", "select count(*) as n from sync.repo_status"
    ).json_lines() == [{"n": 1}]


def test_a_first_repo_alone_tracks_every_collection(
    on_clone: Standpipe, session: OpenSession
) -> None:
    assert on_clone("track", DID).code == 0
    rows = session().execute("select pattern from sync.tracked_collections()").fetchall()
    assert [row["pattern"] for row in rows] == ["*"]


def test_a_first_repo_with_a_collection_tracks_only_that(
    on_clone: Standpipe, session: OpenSession
) -> None:
    assert on_clone("track", DID, "--collection", NOTE).code == 0
    rows = session().execute("select pattern from sync.tracked_collections()").fetchall()
    assert [row["pattern"] for row in rows] == [NOTE]


def test_untracking_hides_the_repo(on_clone: Standpipe) -> None:
    on_clone("track", DID)
    assert on_clone("untrack", DID, "--json").json_lines() == [
        {"dids": [DID], "repos": 1, "collections": 0}
    ]
    [overview] = on_clone("status", "--json").json_lines()
    assert (overview["status"]["repos"], overview["status"]["tombstones"]) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["track", "did:plc:short"], "is no DID"),
        (["track", "did:key:zQ3sh"], "is no DID"),
        (["track", "not a handle"], "neither a DID nor a handle"),
        (["track"], "Name what to track"),
        (["track", DID, "--collection", "no.*.pattern"], "is no collection pattern"),
        (["untrack"], "Name what to untrack"),
        (["untrack", "nobody.example.com"], "use its DID"),
        (["resync", "nobody.example.com"], "use its DID"),
        (["tail", "--from", "yesterday", "--no-follow"], "is no position"),
        (["verify", "did:plc:short"], "is no DID"),
    ],
)
def test_a_malformed_argument_is_one_sentence(
    arguments: list[str], part: str, on_clone: Standpipe
) -> None:
    on_clone(*arguments).assert_one_sentence(2, part)


def test_a_resync_of_a_stranger_says_to_track_it(on_clone: Standpipe) -> None:
    on_clone("resync", DID).assert_one_sentence(7, DID, "standpipe track")


def test_the_status_of_a_stranger_says_to_track_it(on_clone: Standpipe) -> None:
    on_clone("status", DID).assert_one_sentence(1, DID, "standpipe track")


def test_query_prints_what_each_reader_expects(on_clone: Standpipe) -> None:
    sql = "select 1 as n, 'a' as t, null as nothing, '{\"k\": [1.5]}'::jsonb as j, true as b"
    assert on_clone("query", "--json", sql).json_lines() == [
        {"n": 1, "t": "a", "nothing": None, "j": {"k": [1.5]}, "b": True}
    ]
    assert on_clone("query", "--csv", sql).out == 'n,t,nothing,j,b\n1,a,,"{""k"": [1.5]}",t\n'
    table = on_clone("query", sql).out.splitlines()
    assert table[0].split() == ["n", "t", "nothing", "j", "b"]
    assert table[2].split() == ["1", "a", '{"k":', "[1.5]}", "t"]


def test_query_writes_json_that_parsers_take(on_clone: Standpipe) -> None:
    sql = "select 'NaN'::float8 as nan, 'infinity'::float8 as inf, '\\x00ff'::bytea as b, 1.50 as d"
    [row] = on_clone("query", "--json", sql).json_lines()
    assert row == {"nan": "nan", "inf": "inf", "b": "\\x00ff", "d": "1.50"}


def test_query_shows_control_characters_instead_of_sending_them(on_clone: Standpipe) -> None:
    sql = r"select E'\x1b]0;gotcha\x07 \u202e' as t, E'\u009b31m' as c1"
    table = on_clone("query", sql)
    as_json = on_clone("query", "--json", sql)
    for out in (table.out, as_json.out):
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(out)
    assert as_json.json_lines() == [{"t": "\x1b]0;gotcha\x07 \u202e", "c1": "\x9b31m"}]


@pytest.mark.parametrize(
    ("sql", "part"),
    [
        ("selec 1", "syntax error"),
        ("select * from nowhere", '"nowhere" does not exist'),
        ("select * from sync.stored_records", "permission denied"),
        ("select sync.track_repos(array['x'])", "permission denied"),
        ("create temporary table t ()", "read-only"),
        ("select 1; drop table x", "multiple commands"),
        ("select 1/0", "division by zero"),
        ("", "There is no SQL"),
        ("select $1", "bind message supplies 0 parameters"),
        ("copy (select 1) to stdout", "use a select"),
        ("select '\udcff'", "not UTF-8"),
        ("select 1\0", "zero byte"),
    ],
)
def test_query_refuses_in_one_sentence(sql: str, part: str, on_clone: Standpipe) -> None:
    on_clone("query", sql).assert_one_sentence(2, part)


def test_query_loses_no_column_of_a_name_that_comes_twice(on_clone: Standpipe) -> None:
    sql = "select 1 as n, 2 as n"
    on_clone("query", "--json", sql).assert_one_sentence(2, "'n'", "`as`")
    assert on_clone("query", "--csv", sql).out == "n,n\n1,2\n"


def test_query_names_the_columns_of_no_rows(on_clone: Standpipe) -> None:
    sql = "select 1 as n, 'é' as \"né\" where false"
    assert on_clone("query", "--csv", sql) == Result(0, "n,né\n", "")
    assert on_clone("query", sql) == Result(0, "n   né\n──────\n", "")
    assert on_clone("query", "--json", sql) == Result(0, "", "")
    assert on_clone("query", "--csv", "set work_mem = '8MB'") == Result(0, "", "")


def test_query_accepts_a_statement_without_rows(on_clone: Standpipe) -> None:
    assert on_clone("query", "set work_mem = '8MB'") == Result(0, "", "")


def test_query_reads_standard_input(clone: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [PROGRAM, "query", "--csv", "-"],
        input="select 7 as n",
        env=clean_environment(STANDPIPE_DATABASE_URL=clone),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "n\n7\n")


def run_shell(command: str, url: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", "-c", command, PROGRAM],
        env=clean_environment(STANDPIPE_DATABASE_URL=url, PYTHONIOENCODING="ascii"),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_nothing(closed: str, clone: str, tmp_path: Path) -> None:
    done = run_shell(f'"$0" query "select 7 as n" {closed}', clone, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_narrow_encoding_loses_no_text(clone: str, tmp_path: Path) -> None:
    done = run_shell('"$0" query "select \'caf\' || chr(233) as n"', clone, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["n", "----", "caf\\xe9"]


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
def test_a_closed_pipe_ends_it_silently(form: list[str], clone: str, tmp_path: Path) -> None:
    with started_program(
        "query",
        *form,
        "select repeat('x', 100) from generate_series(1, 1000000)",
        folder=tmp_path,
        environment={"STANDPIPE_DATABASE_URL": clone},
    ) as process:
        assert process.stdout is not None
        assert read_line(process)
        process.stdout.close()
        assert process.wait(60) == 141
        process.stdout = open(os.devnull)  # noqa: SIM115
    assert (tmp_path / "program.log").read_text() == ""


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sync", "--version"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("standpipe, version ")


# Errors -----------------------------------------------------------------------------------------


def test_errors_of_tasks_are_explained_like_any_other() -> None:
    group = ExceptionGroup(
        "tasks", [ValueError("x"), ExceptionGroup("in", [BadInput("Sentence.")])]
    )
    assert explain(group) == ("Sentence.", 5)
    assert explain(ValueError("a bug")) == ("", 1)
    assert explain(FileNotFoundError(2, "No such file or directory", "x.car")) == (
        "x.car: No such file or directory.",
        1,
    )
    assert explain(psycopg.OperationalError("gone\nmore")) == ("The database failed: gone", 3)
    assert explain(psycopg.errors.InsufficientPrivilege("permission denied for x")) == (
        "PostgreSQL refuses that: permission denied for x: work as a login that may.",
        7,
    )
    assert explain(psycopg.errors.ReadOnlySqlTransaction("cannot execute DELETE")) == (
        "PostgreSQL refuses that: cannot execute DELETE: work in a database that takes changes.",
        7,
    )


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch, standpipe: Standpipe) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(cli, "main", broken)
    with pytest.raises(ValueError, match="a bug"):
        run_command(["status"])


def test_the_program_is_installed(tmp_path: Path) -> None:
    assert run_program("--help", folder=tmp_path).code == 0
