"""The follower in docs/examples/replication: exactly once, whoever is killed."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pgoutput import Change, Decoder, Unchanged
from psycopg.rows import dict_row

from tests.integration.replication import (
    EXAMPLES,
    Pair,
    Session,
    blocks,
    both,
    clusters,
    large,
    until,
    writing,
)
from tests.sql.driver import POST, Driver, cid, did, rev

__all__ = ["both", "clusters"]

FOLLOWED = """
    select change_id, position, kind, did, collection, rkey, rev, cid, is_live, value, raw, reason,
           logged_at
      from followed_changes order by change_id
"""
# As sync.change_log, which leaves out what is hidden by now.
LOG = """
    select c.change_id, l.log_epoch || '.' || c.change_id as position, c.kind, r.did,
           n.nsid as collection, c.rkey, c.rev, sync_priv.cid_text(c.cid) as cid, c.is_live,
           c.value, c.raw, c.reason, c.logged_at
      from sync.changes c
     cross join sync_priv.log_state l
      left join sync.repos r using (repo_id)
      left join sync.collections n using (collection_id)
     order by c.change_id
"""
PUT = """
    insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
    select r.repo_id, c.collection_id, n::text,
           sync_priv.cid_bytes('bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454'),
           %s, jsonb_build_object('n', n)
      from sync.repos r, sync.collections c, generate_series(1, %s) as n
"""


@pytest.fixture
def follower(both: Pair, tmp_path: Path) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Return a function that starts the program as the page says; all of them end."""
    [(_, script), _] = blocks("Follow without a second PostgreSQL")
    started: list[subprocess.Popen[str]] = []
    environ = os.environ | {"PUBLISHER": both.copier_url, "ELSEWHERE": both.copy_url}

    def start() -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            ["bash", "-c", "exec " + script.replace("python", sys.executable, 1)],
            cwd=EXAMPLES,
            env=environ,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        end(process)


def end(process: "subprocess.Popen[str]") -> str:
    """Kill the program; return what it said."""
    process.kill()
    return process.communicate(timeout=60)[1]


def followed(conn: Session) -> list[dict[str, Any]]:
    """Return what was followed, nothing before the first run."""
    exists = conn.execute("select to_regclass('followed_changes') is not null as yes").fetchone()
    return list(conn.execute(FOLLOWED).fetchall()) if exists and exists["yes"] else []


def is_following(both: Pair) -> bool:
    """Tell whether changes flow; a slot is active for a moment when it is made, too."""
    query = "select from pg_stat_replication where state in ('catchup', 'streaming')"
    with psycopg.connect(both.admin_url) as conn:
        return bool(conn.execute(query).fetchall())


def is_free(both: Pair) -> bool:
    with both.on_source() as conn:
        return not conn.execute("select from pg_replication_slots where active").fetchall()


def await_followed(both: Pair) -> None:
    """Wait until the copy is the log."""
    with both.on_source() as source, both.on_copy() as copy:
        log = source.execute(LOG).fetchall()
        assert log
        until(lambda: len(followed(copy)) >= len(log), "everything was followed")
        assert followed(copy) == log


def head(both: Pair) -> int:
    with both.on_source() as conn:
        row = conn.execute("select coalesce(max(change_id), 0) as id from sync.changes").fetchone()
    assert row is not None
    return int(row["id"])


def test_it_writes_what_the_log_shows(both: Pair, follower: Callable[[], Any]) -> None:
    follower()
    until(lambda: is_following(both), "it follows")
    with both.on_source() as source:
        driver = Driver(source)
        driver.load(1, {"a": "x"}, at=10, data="t1")
        source.execute("insert into sync.collections (nsid) values ('a.b.c')")
        source.execute(PUT, [rev(1), 3])
        source.execute("update sync.stored_records set cid = %s where rkey = '1'", [cid("new")])
        source.execute("delete from sync.stored_records where rkey = 'a'")
        source.execute("select sync.take_down_repos(array[%s])", [did(1)])
        source.execute("select sync.untrack_collections(array['*'])")
    await_followed(both)
    with both.on_copy() as copy:
        kinds = {row["kind"] for row in followed(copy)}
    assert kinds == {"snapshot", "create", "update", "delete", "purge", "account"}


def test_a_large_transaction_is_written_in_parts_and_committed_once(
    both: Pair, follower: Callable[[], Any]
) -> None:
    follower()
    until(lambda: is_following(both), "it follows")
    with both.on_source() as source:
        source.execute("select sync.track_repos(array[%s])", [did(1)])
        source.execute("insert into sync.collections (nsid) values (%s)", [POST])
        source.execute(PUT, [rev(1), 2500])
    await_followed(both)
    with both.on_copy() as copy:
        query = "select count(distinct xmin::text) as n, count(*) as rows from followed_changes"
        assert copy.execute(query).fetchone() == {"n": 1, "rows": 2500}


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_or_repeated_whoever_is_killed(
    both: Pair, follower: Callable[[], Any], seed: int
) -> None:
    """The primary key would refuse a repetition; the comparison finds a hole."""
    chance = random.Random(seed)
    program = follower()
    until(lambda: is_following(both), "it follows")
    before = head(both)
    with writing(both, seed) as writer:
        for victim in ["program", "publisher", "target"] * 2:
            target = writer.done + chance.randrange(20, 150)
            until(lambda at=target: writer.done >= at, "the writer goes on")  # type: ignore[misc]
            if victim == "program":
                end(program)
                program = follower()
            else:
                server = both.publisher if victim == "publisher" else both.subscriber
                server.kill()
                server.revive()
    with both.on_source() as source, both.on_copy() as copy:
        expected = source.execute(
            "select change_id, value from sync.changes where change_id > %s order by 1", [before]
        ).fetchall()
        query = "select change_id, value from followed_changes order by 1"
        until(lambda: copy.execute(query).fetchall() == expected, "everything was followed")


def test_what_is_durable_is_confirmed_and_a_quiet_log_keeps_no_wal(
    both: Pair, follower: Callable[[], Any]
) -> None:
    follower()
    until(lambda: is_following(both), "it follows")
    with both.on_source() as source:
        source.execute("create table public.noise (n int)")
        source.execute("insert into public.noise select generate_series(1, 10000)")
        here = source.execute("select pg_current_wal_lsn() as lsn").fetchone()
        assert here is not None
        query = "select confirmed_flush_lsn >= %s::pg_lsn as yes from pg_replication_slots"
        until(
            lambda: (source.execute(query, [here["lsn"]]).fetchone() or {})["yes"],
            "the slot has moved past what is not published",
        )


def test_a_new_epoch_of_the_log_ends_it(both: Pair, follower: Callable[[], Any]) -> None:
    """As after a failover: what was followed last may not be part of that log."""
    program = follower()
    until(lambda: is_following(both), "it follows")
    with both.on_source() as source, both.on_copy() as copy:
        driver = Driver(source)
        driver.load(1, {"a": "x"}, at=10, data="t1")
        await_followed(both)
        before = followed(copy)
        source.execute("select sync_priv.notice_restore(true)")
        driver = Driver(source)  # a restore ends every lease
        driver.load(2, {"b": "y"}, at=10, data="t2")
        assert program.wait(timeout=60) == 1
        assert followed(copy) == before
    assert "start over" in end(program)


def test_a_slot_that_is_gone_is_an_error_and_not_made_anew(
    both: Pair, follower: Callable[[], Any]
) -> None:
    first = follower()
    until(lambda: is_following(both), "it follows")
    end(first)
    until(lambda: is_free(both), "the slot is free")
    with both.on_source() as source:
        source.execute("select pg_drop_replication_slot('follow_pgoutput')")
    second = follower()
    assert second.wait(timeout=60) == 1
    assert 'replication slot "follow_pgoutput" does not exist' in end(second)


def test_it_goes_on_after_sigterm(both: Pair, follower: Callable[[], Any]) -> None:
    first = follower()
    until(lambda: is_following(both), "it follows")
    with both.on_source() as source:
        driver = Driver(source)
        driver.load(1, {"a": "x"}, at=10, data="t1")
        await_followed(both)
        first.send_signal(signal.SIGTERM)
        first.wait(timeout=60)
        driver.load(2, {"b": "y"}, at=10, data="t2")
        follower()
        await_followed(both)


def stored_record_changes(both: Pair, slot: str) -> list[Change]:
    """Decode what a slot has of the publication `sync_records`, in one go."""
    with psycopg.connect(both.source_url, autocommit=True, row_factory=dict_row) as conn:
        decoder = Decoder()
        rows = conn.execute(
            "select data from pg_logical_slot_get_binary_changes("
            "%s, null, null, 'proto_version', '1', 'publication_names', 'sync_records')",
            [slot],
        ).fetchall()
    messages = [decoder.decode(bytes(row["data"])) for row in rows]
    return [
        each
        for each in messages
        if isinstance(each, Change) and each.table == "sync.stored_records"
    ]


def test_rows_that_are_sent_in_part(both: Pair) -> None:
    """An update leaves a large value out that it did not change, a delete brings the key."""
    with both.on_source() as source:
        driver = Driver(source)
        driver.load(1, {"a": large(1), "b": "small"}, at=10, data="t1")
        source.execute("select pg_create_logical_replication_slot('parts', 'pgoutput')")
        source.execute("update sync.stored_records set rev = %s", [rev(11)])
        source.execute("delete from sync.stored_records where rkey = 'a'")
    with both.on_source() as source:
        small, big, gone = sorted(
            stored_record_changes(both, "parts"), key=lambda each: (each.action, each.row["rkey"])
        )[::-1]
    assert big.row["value"] is Unchanged.UNCHANGED
    assert small.row["value"] == '{"text": "small"}'
    assert big.row["rev"] == small.row["rev"] == rev(11)
    assert set(gone.row) == {"repo_id", "collection_id", "rkey"}
