"""replay: what is stored comes again, after a purge of what the reader may hold."""

import psycopg
import pytest
from psycopg.rows import DictRow

from tests.sql.driver import LIKE, POST, did
from tests.sql.readers import Reader, World, make_reader, told

Session = psycopg.Connection[DictRow]


def filled(db: Session) -> World:
    world = World(db, repos=3)
    for repo in range(2):
        world.load(repo, "ab")
        world.load(repo, "c", collection=LIKE)
    return world


def purges(rows: list[DictRow]) -> list[tuple[str, str | None]]:
    return [(row["did"], row["collection"]) for row in rows if row["kind"] == "purge"]


def test_everything_comes_again_after_a_purge_of_every_repo(db: Session) -> None:
    world = filled(db)
    reader = make_reader(db)
    reader.read_all()
    db.execute("select sync.replay('app')")
    rows = reader.read_all(limit=2)
    assert purges(rows) == [(did(0), None), (did(1), None), (did(2), None)]
    assert len(rows) == 3 + 6
    assert reader.state == world.records()


def test_one_did_comes_again(db: Session) -> None:
    world = filled(db)
    reader = make_reader(db)
    reader.read_all()
    db.execute("select sync.replay('app', array[%s])", [did(1)])
    rows = reader.read_all(limit=1)
    assert purges(rows) == [(did(1), None)]
    assert told(rows[1:]) == [("create", "a"), ("create", "b"), ("create", "c")]
    assert reader.state == world.records()


def test_one_collection_comes_again(db: Session) -> None:
    world = filled(db)
    reader = make_reader(db)
    reader.read_all()
    db.execute("select sync.replay('app', null, array[%s])", [LIKE])
    rows = reader.read_all(limit=1)
    assert purges(rows) == [(did(0), LIKE), (did(1), LIKE), (did(2), LIKE)]
    assert [row["rkey"] for row in rows if row["kind"] == "create"] == ["c", "c"]
    assert reader.state == world.records()


def test_a_replay_stays_within_the_consumer_s_filter(db: Session) -> None:
    world = filled(db)
    reader = make_reader(db, p_dids=[did(1)], p_collections=[POST])
    reader.read_all()
    db.execute("select sync.replay('app', array[%s, %s])", [did(0), did(1)])
    rows = reader.read_all()
    assert purges(rows) == [(did(1), None)]
    db.execute("select sync.replay('app', null, array['app.bsky.*'])")
    rows = reader.read_all()
    assert purges(rows) == [(did(1), POST)]
    assert set(reader.state) == {key for key in world.records() if key[:2] == (did(1), POST)}


def test_a_replay_of_a_replay_delivers_once(db: Session) -> None:
    filled(db)
    reader = make_reader(db)
    reader.read_all()
    for _ in range(2):
        db.execute("select sync.replay('app', array[%s], array[%s])", [did(0), POST])
        db.execute("select sync.replay('app', array[%s])", [did(0)])
    assert told(reader.read_all()) == [
        ("purge", None), ("create", "a"), ("create", "b"), ("create", "c"),
    ]  # fmt: skip


def test_changes_meanwhile_are_not_delivered_twice(db: Session) -> None:
    world = filled(db)
    reader = make_reader(db)
    reader.read_all()
    db.execute("select sync.replay('app', array[%s])", [did(0)])
    world.put(0, "d")
    world.remove(0, "a")
    world.put(1, "e")
    rows = reader.read_all(limit=1)
    assert told(rows) == [
        ("create", "e"), ("purge", None), ("create", "b"), ("create", "d"), ("create", "c"),
    ]  # fmt: skip
    assert reader.state == world.records()


def test_a_lost_consumer_starts_over_and_forgets_tombstones_too(db: Session) -> None:
    """The purges it missed are in a part of the log that is gone."""
    world = filled(db)
    reader = make_reader(db)
    reader.read_all()
    world.untrack(0)
    world.take_down(1)
    db.execute("update sync_priv.consumer_shards set is_lost = true")
    db.execute("delete from sync.changes")
    db.execute("select sync.replay('app')")
    assert not reader.status()["is_outrun"]
    rows = reader.read_all(limit=1)
    assert purges(rows) == [(did(0), None), (did(1), None), (did(2), None)]
    assert reader.state == world.records() == {}


def test_a_consumer_behind_the_floor_goes_on_at_the_end_of_the_log(db: Session) -> None:
    world = filled(db)
    reader = make_reader(db)
    world.put(0, "z")
    db.execute(
        "update sync_priv.log_state set log_floor = (select max(change_id) from sync.changes)"
    )
    assert reader.status()["is_outrun"]
    db.execute("select sync.replay('app')")
    reader.read_all()
    assert reader.state == world.records()


def test_a_part_of_an_outrun_consumer_cannot_be_replayed(db: Session) -> None:
    filled(db)
    make_reader(db)
    db.execute("update sync_priv.consumer_shards set is_lost = true")
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select sync.replay('app', array[%s])", [did(0)])
    assert caught.value.sqlstate == "SY301"


def test_every_shard_replays_its_own_repos(db: Session) -> None:
    world = filled(db)
    make_reader(db, p_shards=2)
    shards = [Reader(db, "app", shard) for shard in range(2)]
    for shard in shards:
        shard.read_all()
    db.execute("select sync.replay('app', null, array[%s])", [POST])
    found = [purge for shard in shards for purge in purges(shard.read_all(limit=2))]
    assert sorted(found) == sorted((did(n), POST) for n in range(3))
    assert shards[0].state | shards[1].state == world.records()


@pytest.mark.parametrize(
    ("call", "sqlstate"),
    [
        ("'nobody'", "SY302"),
        ("'app', array['did:web:unknown.example']", "SY001"),
        ("'app', null, array['not a pattern']", "SY002"),
        ("'app', null, '{}'", "SY002"),
    ],
)
def test_a_bad_call_is_refused(db: Session, call: str, sqlstate: str) -> None:
    make_reader(db)
    with pytest.raises(psycopg.Error) as caught:
        db.execute(f"select sync.replay({call})".encode())
    assert caught.value.sqlstate == sqlstate
