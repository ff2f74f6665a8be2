"""sync.untrack_collections(): what no other pattern covers is purged."""

import psycopg
import pytest

from tests.sql.driver import LIKE, POST, Driver, Event, Op, did
from tests.sql.waiting import impatient


@pytest.fixture
def service(session):
    service = Driver(session())
    service.conn.execute("select sync.track_collections(%s)", [[POST, LIKE]])
    for number in (1, 2):
        service.load(number, {"a": "x", (LIKE, "l"): "like"}, at=10, data="t10")
    return service


def untrack(service: Driver, *patterns: str) -> int:
    return service.value("select sync.untrack_collections(%s)", list(patterns))


def stored(service: Driver, nsid: str) -> int:
    return service.value(
        "select count(*) from sync.stored_records join sync.collections using (collection_id)"
        " where nsid = %s",
        nsid,
    )


def shown(service: Driver, nsid: str) -> int:
    return service.value("select count(*) from sync.records where collection = %s", nsid)


def test_records_are_hidden_at_once_and_readers_get_one_purge_for_everybody(service):
    start = service.position()
    assert untrack(service, LIKE) == 1
    assert (stored(service, LIKE), shown(service, LIKE)) == (2, 0)
    assert shown(service, POST) == 2
    assert service.shape(start) == [("purge", None, LIKE)]
    assert service.state(1) == "synchronized"


def test_upkeep_deletes_what_is_hidden_without_another_word(service):
    untrack(service, LIKE)
    start = service.position()
    service.maintain()
    assert (stored(service, LIKE), stored(service, POST)) == (0, 2)
    assert service.value("select count(*) from sync_priv.purges") == 0
    assert service.shape(start) == []


def test_what_another_pattern_covers_stays(service):
    service.conn.execute("select sync.track_collections(%s)", [["app.bsky.feed.*"]])
    start = service.position()
    assert untrack(service, LIKE) == 1
    assert service.shape(start) == []
    assert service.value("select count(*) from sync_priv.purges") == 0


def test_a_wildcard_takes_all_it_covered(service):
    service.conn.execute("select sync.track_collections(%s)", [["app.bsky.feed.*"]])
    untrack(service, LIKE, POST)
    start = service.position()
    assert untrack(service, "app.bsky.feed.*") == 1
    assert sorted(service.shape(start)) == [("purge", None, LIKE), ("purge", None, POST)]


def test_a_pattern_that_is_not_tracked_changes_nothing(service):
    start = service.position()
    assert untrack(service, "app.test.thing") == 0
    assert untrack(service, LIKE) == 1
    assert untrack(service, LIKE) == 0
    assert service.shape(start) == [("purge", None, LIKE)]


def test_deleting_waits_for_transactions_that_may_still_write_what_goes(service, session):
    older = session(autocommit=False)
    older.execute("select pg_current_xact_id()")
    untrack(service, LIKE)
    impatient(service.conn)
    service.maintain()
    assert (stored(service, LIKE), shown(service, LIKE)) == (2, 0)
    older.commit()
    service.maintain()
    assert stored(service, LIKE) == 0


def test_tracked_again_it_is_fetched_only_when_nothing_of_it_is_left(service, session):
    service.locate(1, 2)
    older = session(autocommit=False)
    older.execute("select pg_current_xact_id()")
    untrack(service, LIKE)
    service.maintain()
    service.conn.execute("select sync.track_collections(%s)", [[LIKE]])
    service.apply()
    assert service.rows("select * from sync.claim_fetches(10, 10)") == []
    assert shown(service, LIKE) == 0
    older.commit()
    service.maintain()
    start = service.position()
    outcome = service.reconcile(
        service.claim(1), {"a": "x", (LIKE, "l"): "like"}, at=10, data="t10"
    )
    assert outcome["created"] == 1
    assert service.shape(start) == [("snapshot", did(1), LIKE)]


def test_a_purge_goes_through_many_repos_page_by_page(service):
    service.conn.execute(
        "insert into sync.repos (did, filter_generation, next_fetch_at, created_at, updated_at)"
        " select 'did:web:r' || n || '.test', 0, now(), now(), now()"
        " from generate_series(1, 2500) n"
    )
    service.conn.execute(
        "insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev)"
        " select r.repo_id, c.collection_id, 'l', s.cid, s.rev"
        " from sync.repos r, sync.collections c, sync.stored_records s"
        " where r.did like 'did:web:%%' and c.nsid = %s and s.repo_id = 1 and s.rkey = 'l'",
        [LIKE],
    )
    untrack(service, LIKE)
    steps = 0
    while service.value("select sync.maintain()"):
        steps += 1
        assert shown(service, LIKE) == 0
    assert steps >= 3
    assert (stored(service, LIKE), stored(service, POST)) == (0, 2)


def test_a_commit_that_was_under_way_is_not_told_after_the_purge(service, session):
    """Its rows are deleted without a word, so a reader would keep them for ever."""
    operator = session()
    operator.execute("select sync.create_consumer('app', p_start => 'now')")
    commit = Event(did(1), rev=11, since=10, before="t10", data="t11", ops=[
        Op("update", "a", "late"), Op("create", "b", "late"),
        Op("create", "k", "late", collection=LIKE),
    ])  # fmt: skip
    with service.conn.transaction():
        service.stage([commit])
        service.rows(
            "select * from sync.apply_events(%s, 0, %s, null, 1)", service.source_id, service.token
        )
        operator.execute("select sync.untrack_collections(%s)", [[POST]])
    service.maintain()
    read = "select kind, collection, rkey from sync.read_changes('app')"
    assert [tuple(row.values()) for row in operator.execute(read)] == [
        ("purge", POST, None), ("create", LIKE, "k")
    ]  # fmt: skip
    assert (stored(service, POST), stored(service, LIKE)) == (0, 3)


@pytest.mark.parametrize("writes_first", [True, False])
def test_who_does_not_see_the_purge_cannot_write_after_it(service, session, writes_first):
    """One snapshot for the whole transaction, taken before the collection was untracked."""
    app, operator = impatient(session(autocommit=False)), impatient(session())
    app.execute("set transaction isolation level repeatable read")
    write = "delete from sync.stored_records s using sync.collections c"
    write += f" where c.collection_id = s.collection_id and c.nsid = '{POST}'"
    app.execute(write.encode() if writes_first else b"select from sync.records")
    before = service.position()
    operator.execute("select sync.untrack_collections(array[%s])", [POST])
    if not writes_first:
        app.execute(write.encode())
    with pytest.raises(psycopg.errors.SerializationFailure):
        app.commit()
    assert [kind for kind, _, _ in service.shape(before)] == ["purge"]


def test_a_collection_that_a_lane_brings_after_the_decision_is_purged_too(clone, session):
    """The lane had read the filters before, and meets an NSID that nobody has seen."""
    lane = Driver(session())
    lane.load(1, {"a": "x"}, at=1, data="t1")
    operator = session(autocommit=False)
    with lane.conn.transaction():
        lane.stage([_commit_of_a_new_collection()])
        lane.rows("select * from sync.apply_events(%s, 0, %s, 99, 0)", lane.source_id, lane.token)
        operator.execute("select sync.untrack_collections(array['*'])")
        operator.commit()
    assert stored(lane, "com.example.new") == 1
    lane.maintain()
    assert stored(lane, "com.example.new") == 0
    assert lane.value("select bool_and(is_purged) from sync.collections")


def test_a_collection_is_purged_again_when_it_was_tracked_again(session):
    lane = Driver(session())
    lane.load(1, {"a": "x"}, at=1, data="t1")
    for at in (2, 3):
        lane.conn.execute("select sync.untrack_collections(array['*'])")
        lane.maintain()
        assert lane.value("select count(*) from sync.stored_records") == 0
        lane.conn.execute("select sync.track_collections(array['*'])")
        lane.apply()
        lane.reconcile(lane.claim(1), {"a": "x"}, at=at, data=f"t{at}")
        assert lane.texts(1) == {"a": "x"}


def _commit_of_a_new_collection() -> Event:
    op = Op("create", "n", "new", "com.example.new")
    return Event(did(1), rev=2, since=1, before="t1", data="t2", ops=[op])
