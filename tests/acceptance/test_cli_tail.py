"""`standpipe tail`: the change log as lines, at rest and as it grows."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg.rows import DictRow

from tests.acceptance.commands import (
    Standpipe,
    end,
    on_clone,
    read_line,
    standpipe,
    started_program,
    wait_until,
)

__all__ = ["on_clone", "standpipe"]

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
OTHER_DID = "did:plc:z72i7hdynmk6r22z27h6tvur"
NOTE = "com.example.note"

Session = psycopg.Connection[DictRow]
OpenSession = Callable[..., Session]


def fill_log(session: Session) -> None:
    """Track a repo and write records by hand: the triggers log them."""
    session.execute("select sync.track_repos(array[%s])", [DID])
    session.execute(
        "select sync.intern_collections(array[1, 1], array[%s, 'com.example.other'])", [NOTE]
    )
    session.execute(
        """
        insert into sync.stored_records
          (repo_id, collection_id, rkey, cid, rev, value, raw, reason)
        select r.repo_id, c.collection_id, x.rkey, '\\x01711220'::bytea || sha256('x'),
               '3jzfcijpj2z2a', x.value::jsonb, x.raw, x.reason
          from sync.repos r, (values
                 ('a', '{"text": "lorem"}', null::bytea, null),
                 ('b', null, '\\xa0'::bytea, 'nul')) as x (rkey, value, raw, reason),
               sync.collections c
         where r.did = %s and c.nsid = %s
        """,
        [DID, NOTE],
    )
    session.execute(
        "update sync.stored_records set value = '{\"text\": \"ipsum\"}' where rkey = 'a'"
    )
    session.execute("delete from sync.stored_records where rkey = 'a'")


def test_tail_prints_events_in_the_shape_of_tap(on_clone: Standpipe, session: OpenSession) -> None:
    fill_log(session())
    events = on_clone("tail", "--from", "beginning", "--no-follow", "--json").json_lines()
    actions = [event["record"]["action"] for event in events]
    assert actions == ["create", "create", "update", "delete"]
    first = events[0]
    cid = first["record"].pop("cid")
    assert cid.startswith("bafyrei")
    assert first["type"] == "record"
    assert first["record"] == {
        "live": False,
        "did": DID,
        "rev": "3jzfcijpj2z2a",
        "collection": NOTE,
        "rkey": "a",
        "action": "create",
        "record": {"text": "lorem"},
    }
    epoch, _, change_id = first["position"].partition(".")
    assert epoch.isdigit()
    assert int(change_id) == first["id"]
    assert "record" not in events[1]["record"]
    assert events[1]["record"]["raw"] == {"$bytes": "oA"}
    assert events[1]["record"]["reason"] == "nul"
    assert not {"record", "cid"} & events[3]["record"].keys()
    ids = [event["id"] for event in events]
    assert ids == sorted(set(ids))


def test_tail_goes_on_from_a_position(on_clone: Standpipe, session: OpenSession) -> None:
    fill_log(session())
    events = on_clone("tail", "--from", "beginning", "--no-follow", "--json").json_lines()
    rest = on_clone("tail", "--from", events[1]["position"], "--no-follow", "--json").json_lines()
    assert rest == events[2:]
    assert on_clone("tail", "--from", "now", "--no-follow").out == ""


def test_tail_filters_by_repo_and_collection(on_clone: Standpipe, session: OpenSession) -> None:
    fill_log(session())

    def count(*arguments: str) -> int:
        result = on_clone("tail", "--from", "beginning", "--no-follow", *arguments)
        return len(result.out.splitlines())

    assert count("--collection", "com.example.*") == 4
    assert count("--collection", "com.example.other") == 0
    assert count("--did", DID) == 4
    assert count("--did", OTHER_DID) == 0


def test_tail_shows_accounts_and_purges(on_clone: Standpipe, session: OpenSession) -> None:
    fill_log(session())
    start = on_clone("tail", "--from", "beginning", "--no-follow", "--json").json_lines()[-1]
    session().execute(
        "update sync.repos set is_active = false, account_status = 'deactivated' where did = %s",
        [DID],
    )
    arguments = ["tail", "--from", start["position"], "--no-follow"]
    account, purge = on_clone(*arguments, "--json").json_lines()
    assert account["type"] == "identity"
    assert account["identity"]["is_active"] is False
    assert account["identity"]["status"] == "deactivated"
    assert purge["purge"] == {"did": DID, "collection": None}
    assert [line.split()[3] for line in on_clone(*arguments).out.splitlines()] == [
        "account",
        "purge",
    ]


def test_tail_follows_and_ends_with_ctrl_c(
    clone: str, session: OpenSession, tmp_path: Path
) -> None:
    conn = session()
    environment = {"STANDPIPE_DATABASE_URL": clone}
    with started_program("tail", "--json", folder=tmp_path, environment=environment) as process:
        wait_until_listening(conn)
        fill_log(conn)
        assert json.loads(read_line(process))["record"]["action"] == "create"
        assert end(process, signal.SIGINT) == 130
    assert (tmp_path / "program.log").read_text().strip() == ""


def test_a_command_that_is_terminated_says_nothing(
    clone: str, session: OpenSession, tmp_path: Path
) -> None:
    environment = {"STANDPIPE_DATABASE_URL": clone}
    with started_program("tail", folder=tmp_path, environment=environment) as process:
        wait_until_listening(session())
        assert end(process, signal.SIGTERM) == 143
    assert (tmp_path / "program.log").read_text() == ""


def wait_until_listening(conn: Session) -> None:
    """Wait until a tail has subscribed and waits."""
    query = (
        "select 1 from pg_stat_activity where application_name = 'standpipe tail'"
        " and datname = current_database() and state = 'idle' and query like '%change_log%'"
    )
    wait_until(lambda: conn.execute(query).fetchone(), "tail waits for more")
