"""read_changes: in order, exactly once, with the caller's commit as the acknowledgement."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.sql.driver import LIKE, POST, did
from tests.sql.readers import Reader, Session, World, make_reader, told
from tests.sql.waiting import background, wait_until_blocked

Open = Callable[..., Session]


def test_changes_come_in_commit_order_with_their_text_forms(db: Session) -> None:
    world = World(db)
    reader = make_reader(db, p_start="now")
    world.put(0, "a")
    world.put(0, "a")
    world.remove(0, "a")
    rows = reader.read()
    assert told(rows) == [("create", "a"), ("update", "a"), ("delete", "a")]
    assert {row["did"] for row in rows} == {did(0)}
    assert {row["collection"] for row in rows} == {POST}
    assert str(rows[0]["cid"]).startswith("bafyrei")
    assert rows[2]["cid"] is None
    epochs, numbers = zip(*(row["position"].split(".") for row in rows), strict=True)
    assert len(set(epochs)) == 1
    assert [int(n) for n in numbers] == sorted(int(n) for n in numbers)


def test_from_the_beginning_stored_records_come_as_creates_that_are_not_live(db: Session) -> None:
    world = World(db)
    world.load(0, "abc")
    world.load(1, "d", collection=LIKE)
    reader = make_reader(db)
    rows = reader.read()
    assert told(rows) == [("create", rkey) for rkey in "abcd"]
    assert not any(row["is_live"] for row in rows)
    assert reader.state == world.records()
    assert len({row["position"] for row in rows}) == 1


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_batches_of_any_size_deliver_every_record_once(db: Session, limit: int) -> None:
    world = World(db, repos=3)
    for repo in range(3):
        world.load(repo, "abcde")
        world.load(repo, "xyz", collection=LIKE)
    reader = make_reader(db)
    while not reader.status()["is_at_rest"]:
        assert len(reader.read(limit)) <= limit
    assert reader.state == world.records()


def test_a_first_load_is_delivered_from_the_tables(db: Session) -> None:
    world = World(db)
    reader = make_reader(db, p_start="now")
    world.load(0, "ab")
    world.put(0, "c")
    world.remove(0, "a")
    assert told(reader.read_all(limit=1)) == [("create", "b"), ("create", "c")]
    assert reader.state == world.records()


def test_changes_of_keys_that_are_pending_wait_for_the_tables(db: Session) -> None:
    world = World(db)
    world.load(0, "abcd")
    reader = make_reader(db)
    assert told(reader.read(2)) == [("create", "a"), ("create", "b")]
    world.put(0, "a")  # delivered already: a change
    world.put(0, "d")  # still pending: its newest version comes once
    world.remove(0, "c")
    assert told(reader.read_all(limit=1)) == [("update", "a"), ("create", "d")]
    assert reader.state == world.records()


def test_nothing_is_delivered_from_the_tables_while_the_log_is_not_read_to_its_end(
    db: Session,
) -> None:
    world = World(db)
    reader = make_reader(db, p_start="now")
    world.put(1, "x")
    world.load(0, "a")
    world.put(1, "y")
    assert told(reader.read(1)) == [("create", "x")]
    assert told(reader.read(1)) == [("create", "y")]
    assert told(reader.read(1)) == [("create", "a")]


def test_a_rollback_takes_the_reading_back(db: Session) -> None:
    world = World(db)
    world.load(0, "ab")
    make_reader(db)
    with db.transaction(force_rollback=True):
        first = db.execute("select * from sync.read_changes('app')").fetchall()
    assert db.execute("select * from sync.read_changes('app')").fetchall() == first
    assert db.execute("select * from sync.read_changes('app')").fetchall() == []


def test_it_advances_over_what_the_filter_leaves_out(db: Session) -> None:
    world = World(db)
    reader = make_reader(db, p_start="now", p_collections=[LIKE])
    world.put(0, "a")
    world.put(0, "b", collection=LIKE)
    world.put(0, "c")
    assert told(reader.read()) == [("create", "b")]
    assert reader.read() == []
    assert reader.status()["lag_rows"] == 0


def test_patterns_and_dids_filter_walk_and_log_alike(db: Session) -> None:
    world = World(db, repos=3)
    for repo in range(3):
        world.load(repo, "ab")
        world.load(repo, "cd", collection=LIKE)
    reader = make_reader(db, p_collections=[LIKE], p_dids=[did(1)])
    wild = make_reader(db, "wild", p_collections=["app.bsky.*"], p_dids=[did(2)])
    reader.read_all()
    wild.read_all()
    assert set(reader.state) == {(did(1), LIKE, rkey) for rkey in "cd"}
    assert len(wild.state) == 4
    world.put(1, "e", collection=LIKE)
    world.put(1, "e")
    world.put(0, "e", collection=LIKE)
    assert told(reader.read()) == [("create", "e")]
    assert wild.read() == []


def test_account_changes_and_purges_pass_a_collection_filter(db: Session) -> None:
    world = World(db)
    world.load(0, "a")
    reader = make_reader(db, p_collections=[LIKE])
    reader.read_all()
    world.take_down(0)
    assert told(reader.read()) == [("account", None), ("purge", None)]


@pytest.mark.rule("AC-01")
def test_a_hidden_repo_is_purged_and_comes_back_from_the_tables(db: Session) -> None:
    world = World(db)
    world.load(0, "ab")
    reader = make_reader(db)
    reader.read_all()
    world.take_down(0)
    rows = reader.read_all()
    assert told(rows) == [("account", None), ("purge", None)]
    assert rows[0]["value"]["status"] == "takendown"
    assert reader.state == {}
    world.restore(0)
    assert told(reader.read_all()) == [("account", None), ("create", "a"), ("create", "b")]


def test_the_walk_passes_over_hidden_repos(db: Session) -> None:
    world = World(db)
    world.load(0, "a")
    world.load(1, "b")
    world.take_down(0)
    reader = make_reader(db)
    assert told(reader.read_all()) == [("create", "b")]


def test_shards_share_the_repos_without_overlap(db: Session) -> None:
    world = World(db, repos=5)
    for repo in range(5):
        world.load(repo, "ab")
    make_reader(db, p_shards=2)
    shards = [Reader(db, "app", shard=0), Reader(db, "app", shard=1)]
    for shard in shards:
        shard.read_all(limit=3)
        world.put(shard.shard, "c")
    for shard in shards:
        shard.read_all(limit=3)
    assert not set(shards[0].state) & set(shards[1].state)
    assert shards[0].state | shards[1].state == world.records()


def test_a_purge_of_everybody_reaches_each_shard_repo_by_repo(db: Session) -> None:
    world = World(db, repos=4)
    for repo in range(4):
        world.load(repo, "ab")
        world.load(repo, "c", collection=LIKE)
    make_reader(db, p_shards=2)
    shards = [Reader(db, "app", shard=0), Reader(db, "app", shard=1)]
    for shard in shards:
        shard.read_all()
    db.execute("select sync.track_collections(array[%s])", [LIKE])
    db.execute("select sync.untrack_collections(array['*'])")
    for shard in shards:
        rows = shard.read_all(limit=1)
        assert [(r["kind"], r["collection"]) for r in rows] == [("purge", POST)] * 2
        assert None not in {row["did"] for row in rows}
    assert shards[0].state | shards[1].state == world.records()


def test_one_consumer_gets_a_purge_of_everybody_as_one_row(db: Session) -> None:
    world = World(db)
    world.load(0, "ab")
    world.load(0, "c", collection=LIKE)
    reader = make_reader(db)
    reader.read_all()
    db.execute("select sync.track_collections(array[%s])", [LIKE])
    db.execute("select sync.untrack_collections(array['*'])")
    (row,) = reader.read_all()
    assert (row["kind"], row["did"], row["collection"]) == ("purge", None, POST)
    assert reader.state == world.records()


def test_a_transaction_sees_no_stored_rows_ahead_of_the_log(db: Session) -> None:
    """What this transaction wrote has no number before it commits."""
    world = World(db)
    world.load(0, "ab")
    reader = make_reader(db)
    db.execute("set constraints all deferred")
    world.put(0, "c")
    assert reader.read() == []
    db.execute("set constraints all immediate")
    assert told(reader.read_all()) == [("create", rkey) for rkey in "abc"]


def test_an_outrun_consumer_is_told_to_replay(db: Session) -> None:
    world = World(db)
    reader = make_reader(db, p_start="now")
    world.put(0, "a")
    db.execute("update sync_priv.log_state set log_floor = log_floor + 1000000")
    with pytest.raises(psycopg.Error, match="outrun") as caught, db.transaction():
        reader.read()
    assert caught.value.sqlstate == "SY301"
    assert "sync.replay('app')" in str(caught.value.diag.message_hint)


def test_a_mark_on_the_shard_alone_means_outrun(db: Session) -> None:
    World(db)
    reader = make_reader(db)
    db.execute("update sync_priv.consumer_shards set is_lost = true")
    assert reader.status()["is_outrun"]
    with pytest.raises(psycopg.Error) as caught, db.transaction():
        reader.read()
    assert caught.value.sqlstate == "SY301"


@pytest.mark.parametrize(
    ("call", "sqlstate"),
    [
        ("sync.read_changes('nobody')", "SY302"),
        ("sync.read_changes(null)", "SY302"),
        ("sync.read_changes('app', 0)", "SY002"),
        ("sync.read_changes('app', null)", "SY002"),
        ("sync.read_changes('app', 10, 1)", "SY002"),
    ],
)
def test_a_bad_call_is_refused(db: Session, call: str, sqlstate: str) -> None:
    make_reader(db)
    with pytest.raises(psycopg.Error) as caught:
        db.execute(f"select * from {call}".encode())
    assert caught.value.sqlstate == sqlstate


def test_two_workers_of_one_shard_take_turns(session: Open) -> None:
    """The second waits for the first one's commit and then goes on behind it."""
    owner, first, second = session(), session(autocommit=False), session(autocommit=False)
    with owner.transaction():
        World(owner).load(0, "abcd")
        make_reader(owner)
    got = told(first.execute("select * from sync.read_changes('app', 2)").fetchall())
    read = "select * from sync.read_changes('app', 2)"
    with background(second, lambda: second.execute(read).fetchall()) as late:
        wait_until_blocked(owner, second)
        first.commit()
    second.commit()
    assert got + told(late.result()) == [("create", rkey) for rkey in "abcd"]


def test_a_writer_that_has_not_committed_is_not_read_past(session: Open) -> None:
    """A change that commits later has a higher id, whenever it was written."""
    owner, slow = session(), session(autocommit=False)
    with owner.transaction():
        world = World(owner)
        world.put(0, "z")
        reader = make_reader(owner)
    reader.read_all()
    slow.execute(
        "update sync.stored_records set cid = '\\x01711220'::bytea || sha256('slow'::bytea)"
    )
    with owner.transaction():
        world.put(1, "fast")
    assert told(reader.read()) == [("create", "fast")]
    slow.commit()
    assert told(reader.read()) == [("update", "z")]
    assert reader.state == world.records()


def test_a_repeatable_read_reader_fails_rather_than_reads_twice(session: Open) -> None:
    owner, other, late = session(), session(), session(autocommit=False)
    with owner.transaction():
        World(owner).load(0, "ab")
        make_reader(owner)
    late.execute("set transaction isolation level repeatable read")
    late.execute("select 1")
    assert len(other.execute("select * from sync.read_changes('app')").fetchall()) == 2
    with pytest.raises(psycopg.errors.SerializationFailure):
        late.execute("select * from sync.read_changes('app')")


@pytest.mark.parametrize("arguments", [{}, {"p_collections": [LIKE]}, {"p_dids": [did(1)]}])
def test_the_log_and_the_stored_rows_are_read_by_their_indexes(
    db: Session, arguments: dict[str, Any]
) -> None:
    """Without sequential scans where an index can serve, none is left on the large tables."""
    world = World(db, repos=3)
    for repo in range(3):
        world.load(repo, "abc")
        world.load(repo, "d", collection=LIKE)
    reader = make_reader(db, **arguments)
    scans = """
        select coalesce(sum(seq_scan), 0) as seq, coalesce(sum(idx_scan), 0) as idx
          from pg_stat_xact_all_tables
         where relname in ('stored_records', 'repos') or relname like 'changes%'
    """
    db.execute("set local enable_seqscan = off")
    before = db.execute(scans).fetchall()[0]
    db.execute("select * from sync.read_changes('app', 2)")
    world.put(1, "e")
    middle = db.execute(scans).fetchall()[0]
    for _ in range(6):
        db.execute("select * from sync.read_changes('app', 2)")
    after = db.execute(scans).fetchall()[0]
    assert reader.status()["is_at_rest"]
    assert after["seq"] == middle["seq"]
    assert after["idx"] > middle["idx"] > before["idx"]
