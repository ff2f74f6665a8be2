"""`standpipe consumer`: made, read, replayed and dropped by hand."""

import signal
from pathlib import Path

from tests.acceptance.commands import (
    Standpipe,
    end,
    on_clone,
    read_line,
    standpipe,
    started_program,
)
from tests.acceptance.test_cli_tail import DID, NOTE, OpenSession, fill_log

__all__ = ["on_clone", "standpipe"]

CREATE = ("consumer", "create", "app", "--collection", NOTE)


def test_a_consumer_is_given_everything_once(on_clone: Standpipe, session: OpenSession) -> None:
    fill_log(session())
    assert on_clone("consumer", "list").out.startswith("There is no consumer yet")
    assert "every record first" in on_clone(*CREATE).out
    peeked = on_clone("consumer", "read", "app", "--peek", "--json").json_lines()
    assert [event["record"]["rkey"] for event in peeked] == ["b"]
    [row] = on_clone("consumer", "list", "--json").json_lines()
    assert (row["name"], row["state"], row["collections"]) == ("app", "walking", [NOTE])
    assert on_clone("consumer", "read", "app", "--json").json_lines() == peeked
    assert on_clone("consumer", "read", "app").out == ""
    assert "at rest" in on_clone("consumer", "list").out


def test_it_is_replayed_in_parts_and_dropped(on_clone: Standpipe, session: OpenSession) -> None:
    fill_log(session())
    on_clone(*CREATE, "--from", "now", "--did", DID)
    assert on_clone("consumer", "read", "app").out == ""
    told = on_clone("consumer", "replay", "app", "--did", DID, "--collection", NOTE, "--json")
    assert told.json_lines() == [{"name": "app", "dids": [DID], "collections": [NOTE]}]
    lines = on_clone("consumer", "read", "app").out.splitlines()
    assert [line.split()[3] for line in lines] == ["purge", "create"]
    assert on_clone("consumer", "drop", "app").out == "Consumer app is forgotten.\n"
    on_clone("consumer", "drop", "app").assert_one_sentence(7, "standpipe consumer list")


def test_refusals_say_which_command_helps(on_clone: Standpipe, session: OpenSession) -> None:
    fill_log(session())
    on_clone(*CREATE)
    on_clone(*CREATE).assert_one_sentence(7, "standpipe consumer drop app")
    on_clone("consumer", "read", "other").assert_one_sentence(7, "'other'", "consumer list")
    session().execute("update sync_priv.consumer_shards set is_lost = true")
    assert "outrun" in on_clone("consumer", "list").out
    on_clone("consumer", "read", "app").assert_one_sentence(7, "standpipe consumer replay app")
    on_clone("consumer", "create", "x", "-c", "no pattern").assert_one_sentence(2, "no pattern")
    assert on_clone("consumer", "read", "app", "--peek", "--follow").code == 2
    assert on_clone("consumer", "create", "x", "--shards", "0").code == 2
    on_clone("consumer", "read", "app", "--shard", "7").assert_one_sentence(2, "no shard 7")


def test_it_follows_and_ends_at_a_signal(
    on_clone: Standpipe, session: OpenSession, clone: str, tmp_path: Path
) -> None:
    fill_log(session())
    on_clone(*CREATE)
    arguments = ("consumer", "read", "app", "--follow", "--json", "--database-url", clone)
    with started_program(*arguments, folder=tmp_path) as program:
        assert '"create"' in read_line(program)
        session().execute("delete from sync.stored_records where rkey = 'b'")
        assert '"delete"' in read_line(program)
        assert end(program, signal.SIGINT) == 130
