"""drop_consumer: nothing of a consumer is left."""

from collections.abc import Callable

import psycopg
import pytest
from psycopg.rows import DictRow

from tests.sql.readers import World, make_reader
from tests.sql.waiting import background, wait_until_blocked

Session = psycopg.Connection[DictRow]


def test_its_shards_and_pending_keys_go_with_it(db: Session) -> None:
    world = World(db)
    world.load(0, "ab")
    reader = make_reader(db, p_shards=3)
    db.execute("select sync.replay('app', null, array['*'])")
    reader.read(1)
    db.execute("select sync.drop_consumer('app')")
    for table in ("sync.consumers", "sync_priv.consumer_shards", "sync_priv.consumer_pending"):
        assert db.execute(f"select from {table}".encode()).fetchall() == []


def test_the_name_is_free_again(db: Session) -> None:
    make_reader(db)
    db.execute("select sync.drop_consumer('app')")
    make_reader(db)


def test_an_unknown_consumer_is_refused(db: Session) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select sync.drop_consumer('nobody')")
    assert caught.value.sqlstate == "SY302"


def test_it_waits_for_a_worker_that_reads(session: Callable[..., Session]) -> None:
    owner, worker, dropper = session(), session(autocommit=False), session()
    with owner.transaction():
        World(owner).load(0, "a")
        make_reader(owner)
    assert len(worker.execute("select * from sync.read_changes('app')").fetchall()) == 1
    drop = "select sync.drop_consumer('app')"
    with background(dropper, lambda: dropper.execute(drop)) as dropped:
        wait_until_blocked(owner, dropper)
        worker.commit()
    dropped.result()
    assert owner.execute("select from sync.consumers").fetchall() == []
