"""`standpipe view` from what is at hand, and which lexicon it keeps."""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

from sync.atproto.cid import cid_for, format_cid
from sync.cli import view as view_module
from sync.config import Settings
from sync.lexicons import FoundLexicon
from tests.acceptance.commands import (
    Result,
    Standpipe,
    on_clone,
    standpipe,
)
from tests.acceptance.lexicons import NOTE, NUMBER, lexicon

__all__ = ["on_clone", "standpipe"]

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "note.json"
    path.write_text(json.dumps(lexicon()))
    return path


# From what is at hand ---------------------------------------------------------------------------


def test_a_view_is_made_listed_read_and_dropped(on_clone: Standpipe, file: Path) -> None:
    done = on_clone("view", "add", "notes", NOTE, "--lexicon", str(file), "--index", "created_at")
    assert done.code == 0, done
    assert done.out.splitlines()[0] == f"sync_views.notes shows {NOTE}."
    assert "created_at   timestamp with time zone   added" in done.out
    assert "builds the indexes on created_at, indexed_at" in done.out
    assert f"standpipe track --collection {NOTE}" in done.err
    assert on_clone("query", "select text, created_at from notes").code == 0
    [listed] = on_clone("view", "list", "--json").json_lines()
    assert listed["indexes_missing"] == ["created_at", "indexed_at"]
    assert not listed["is_tracked"]
    assert "created_at, indexed_at" in on_clone("view", "list").out
    on_clone("track", "--collection", NOTE)
    again = on_clone("view", "add", "notes", NOTE, "--lexicon", str(file), "--json")
    assert again.err == ""
    [told] = again.json_lines()
    assert {each["change"] for each in told["columns"]} == {"kept"}
    assert on_clone("view", "drop", "notes").out == "The view notes is gone; the records stay.\n"
    assert on_clone("view", "list", "--json").out == ""
    assert "standpipe view add" in on_clone("view", "list").out


def test_a_view_of_expressions(on_clone: Standpipe) -> None:
    columns = ("--column", "length=length(value ->> 'text')", "--column", "eq=value->>'a' = 'b'")
    [told] = on_clone("view", "add", "notes", NOTE, *columns, "--json").json_lines()
    assert [(each["column_name"], each["column_type"]) for each in told["columns"]] == [
        ("eq", "boolean"),
        ("length", "integer"),
    ]


def test_an_order_is_asked_for(on_clone: Standpipe, file: Path) -> None:
    arguments = ("--lexicon", str(file), "--newest-by", "created_at", "--json")
    [told] = on_clone("view", "add", "notes", NOTE, *arguments).json_lines()
    assert told["newest_by"] == "created_at"
    assert told["indexes_missing"] == ["created_at", "indexed_at"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--column", "x"), "is not a column"),
        (("--column", "=1"), "is not a column"),
        (("--column", "x="), "is not a column"),
        (("--column", "x=1) from y; --"), "not an expression over a record"),
        (("--column", "did=1"), "not a column that can be given"),
        (("--column", "x=1", "--index", "x"), "there can be no index"),
        (("--column", "x=1", "--newest-by", "x"), "cannot give its rows"),
        (("--column", "x=1", "--did", "did:plc:x"), "--did says where"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    on_clone: Standpipe, arguments: Sequence[str], part: str
) -> None:
    on_clone("view", "add", "notes", NOTE, *arguments).assert_one_sentence(2, part)


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        ("{", 5, "is not JSON"),
        ("[" * 100_000, 5, "is not JSON"),
        ("{}", 2, "not the lexicon of a record type"),
        (json.dumps(lexicon("com.example.other")), 2, "the lexicon is that of com.example.other"),
        (" " * 1_100_000, 5, "too long"),
        ('{"id": "\\u0000"}', 2, "cannot hold"),
        ('{"id": "\\ud800"}', 2, "cannot hold"),
    ],
)
def test_a_file_that_is_no_lexicon_is_one_sentence(
    on_clone: Standpipe, tmp_path: Path, text: str, code: int, part: str
) -> None:
    (tmp_path / "bad.json").write_text(text)
    result = on_clone("view", "add", "notes", NOTE, "--lexicon", "bad.json")
    result.assert_one_sentence(code, part)


def test_refusals_say_what_to_do(on_clone: Standpipe, file: Path, clone: str) -> None:
    on_clone("view", "add", "notes", NOTE, "--lexicon", str(file))
    with psycopg.connect(clone) as conn:
        conn.execute("set role sync_owner")
        conn.execute("create view sync_views.mine as select text from sync_views.notes")
        conn.execute("create table sync_views.taken (x int)")
    taken = on_clone("view", "add", "taken", NOTE, "--lexicon", str(file))
    taken.assert_one_sentence(7, "something else of the name", "Choose another name")
    on_clone("view", "drop", "notes").assert_one_sentence(7, "mine", "Drop what depends")
    on_clone("view", "drop", "nothing").assert_one_sentence(7, "no view nothing", "list_views")
    on_clone("view", "drop", "a b").assert_one_sentence(2, "not the name of a view")
    nowhere = on_clone("view", "add", "pg_catalog.x", NOTE, "--lexicon", str(file))
    nowhere.assert_one_sentence(2, "no schema pg_catalog for views")
    on_clone("view", "refresh", "notes").assert_one_sentence(2, "not made from a lexicon of the")
    on_clone("view", "refresh", "none").assert_one_sentence(2, "There is no view none")
    twice = on_clone("view", "add", "notes", NOTE, "--column", "x=rev", "--column", "x = rev")
    twice.assert_one_sentence(2, "'x'", "twice")
    on_clone("view", "refresh", "a b").assert_one_sentence(2, "is not the name of a view")
    assert "No view was made" in on_clone("view", "refresh").out


# Which of the two --------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What the network is asked: the repo that was named, or none; its lexicon has a number."""
    asked: list[str | None] = []

    async def find(_settings: Settings, nsid: str, *, did: str | None = None) -> FoundLexicon:
        asked.append(did)
        cid = format_cid(cid_for(b"lexicon"))
        return FoundLexicon(nsid, did or DID, cid, "3kaaaaaaaaaaa", lexicon(nsid, number=NUMBER))

    monkeypatch.setattr(view_module, "find_lexicon", find)
    return asked


def columns_told(result: Result) -> dict[str, str]:
    [told] = result.json_lines()
    return {each["column_name"]: each["change"] for each in told["columns"]}


def test_a_view_keeps_the_lexicon_it_was_given(
    on_clone: Standpipe, file: Path, asked: list[str | None]
) -> None:
    def add(name: str, *arguments: str) -> dict[str, str]:
        return columns_told(on_clone("view", "add", name, NOTE, *arguments, "--json"))

    add("notes", "--lexicon", str(file))
    kept = {"created_at": "kept", "text": "kept"}
    assert add("notes", "--index", "created_at") == kept
    assert add("sync_views.notes", "--newest-by", "created_at") == kept
    assert add("notes") == kept
    assert add("notes", "--column", "length=length(value ->> 'text')") == {
        **kept,
        "length": "added",
    }
    assert add("notes", "--index", "text") == {**kept, "length": "kept"}
    assert add("newest", "--newest-by", "indexed_at") == {"created_at": "added", "text": "added"}
    assert asked == []
    assert add("newest", "--did", DID) == {
        "created_at": "removed",
        "text": "removed",
        "number": "added",
    }
    assert asked == [DID]


def test_a_view_of_expressions_has_no_lexicon_to_keep(
    on_clone: Standpipe, asked: list[str | None]
) -> None:
    def add(name: str, *arguments: str) -> dict[str, str]:
        return columns_told(on_clone("view", "add", name, NOTE, *arguments, "--json"))

    add("lengths", "--column", "length=length(value ->> 'text')")
    assert add("lengths", "--newest-by", "indexed_at") == {"length": "kept"}
    assert asked == []
    assert add("notes", "--index", "number") == {"number": "added"}
    assert add("notes", "--newest-by", "number") == {"number": "kept"}
    assert asked == [None]
    on_clone("view", "drop", "notes")
    assert add("notes") == {"number": "added"}
    assert asked == [None, None]


# The manual -------------------------------------------------------------------------------------


def test_the_commands_of_the_manual_work(
    on_clone: Standpipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def find(_settings: Settings, nsid: str, **_: object) -> FoundLexicon:
        cid = format_cid(cid_for(b"lexicon"))
        return FoundLexicon(nsid, DID, cid, "3kaaaaaaaaaaa", lexicon(nsid))

    monkeypatch.setattr(view_module, "find_lexicon", find)
    page = (ROOT / "docs" / "how-to" / "views.md").read_text(encoding="utf-8")
    commands = re.findall(r"(?:^|`)(standpipe (?:view|query) [^`\n…]+)", page, re.MULTILINE)
    # One needs a schema of the app.
    usable = [each for each in commands if len(shlex.split(each)) > 2 and "app.posts" not in each]
    usable.remove("standpipe view add")
    assert len(usable) >= 4
    for command in usable:
        result = on_clone(*shlex.split(command)[1:])
        assert result.code == 0, (command, result)
