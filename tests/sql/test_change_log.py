"""The change log: numbered at commit, in commit order, without anybody waiting for an app."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.sql.driver import POST, Driver, Event, Op, cid, did, rev
from tests.sql.waiting import background, impatient, wait_until_blocked

PARTITION = 8388608


@pytest.fixture
def lane(session):
    """Four repos with two records each, synchronized at rev 10."""
    lane = Driver(session())
    for number in (1, 2, 3, 4):
        lane.load(number, {"a": "lorem", "b": "ipsum"}, at=10, data="t10")
    return lane


@pytest.fixture
def app(session):
    """Open app sessions that would rather fail than wait."""
    return lambda: impatient(session(autocommit=False))


def delete(number: int, rkey: str) -> str:
    """Return a statement that deletes a record by hand."""
    return (
        "delete from sync.stored_records s using sync.repos r"
        f" where r.repo_id = s.repo_id and r.did = '{did(number)}' and s.rkey = '{rkey}'"
    )


def insert(number: int, rkey: str, text: str = "typed") -> str:
    """Return a statement that inserts a record by hand."""
    return (
        "insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)"
        f" select r.repo_id, c.collection_id, '{rkey}', '\\x{cid(text).hex()}', '{rev(10)}',"
        f' \'{{"text": "{text}"}}\' from sync.repos r, sync.collections c'
        f" where r.did = '{did(number)}' and c.nsid = '{POST}'"
    )


def live(number: int, at: int, *ops: Op) -> Event:
    return Event(did(number), rev=at, since=at - 1, before=f"t{at - 1}", data=f"t{at}", ops=ops)


# What is logged --------------------------------------------------------------------------------


def test_what_the_owner_types_is_logged_like_any_change(lane):
    start = lane.position()
    lane.conn.execute(insert(1, "c"))
    lane.conn.execute(
        "update sync.stored_records set value = '{\"text\": \"new\"}' where rkey = 'c'"
    )
    lane.conn.execute(delete(1, "c"))
    assert lane.log(start) == [
        ("create", "c", "typed"),
        ("update", "c", "new"),
        ("delete", "c", None),
    ]
    assert not lane.value("select bool_or(is_live) from sync.changes where change_id > %s", start)


def test_a_changed_key_is_a_delete_and_a_create(lane):
    start = lane.position()
    lane.conn.execute("update sync.stored_records set rkey = 'z' where rkey = 'a' and repo_id = 1")
    assert lane.log(start) == [("delete", "a", None), ("create", "z", "lorem")]


def test_an_update_that_changes_nothing_is_no_change(lane):
    start = lane.position()
    lane.conn.execute("update sync.stored_records set value = value")
    assert lane.log(start) == []


def test_a_statement_logs_every_row_it_touches(lane):
    start = lane.position()
    lane.conn.execute("delete from sync.stored_records")
    assert [kind for kind, _, _ in lane.log(start)] == ["delete"] * 8


def test_records_of_hidden_accounts_are_not_logged(lane):
    lane.apply(Event(did(1), kind="account", is_active=False, status="deactivated"))
    start = lane.position()
    lane.conn.execute(insert(1, "c"))
    lane.conn.execute("update sync.stored_records set rkey = 'd' where rkey = 'c'")
    lane.conn.execute(delete(1, "d"))
    assert lane.log(start) == []


def test_rows_typed_into_a_collection_on_its_way_out_are_not_logged(lane):
    lane.conn.execute("select sync.untrack_collections(array['*'])")
    start = lane.position()
    lane.conn.execute(insert(1, "c"))
    lane.conn.execute("update sync.stored_records set rkey = 'd' where rkey = 'c'")
    lane.conn.execute(delete(1, "d"))
    assert lane.log(start) == []


def test_writing_by_hand_locks_the_repo_against_its_ingest(lane, app):
    by_hand = app()
    by_hand.execute(delete(1, "a"))
    assert lane.apply(live(1, 11, Op("update", "b", "IPSUM"))) == {"held": 1}
    by_hand.commit()
    assert lane.apply() == {"applied": 1}


def test_truncate_is_refused(lane):
    with pytest.raises(psycopg.Error) as refusal:
        lane.conn.execute("truncate sync.stored_records")
    assert refusal.value.sqlstate == "SY105"


def test_a_rolled_back_transaction_leaves_no_trace(lane, app):
    start = lane.position()
    other = app()
    other.execute(delete(1, "a"))
    other.rollback()
    lane.conn.execute(delete(2, "a"))
    assert lane.log(start) == [("delete", "a", None)]
    assert lane.position() == start + 1
    for table in ("sync_priv.pending_changes", "sync_priv.log_markers"):
        assert lane.value(f"select count(*) from {table}") == 0


def test_a_rolled_back_savepoint_takes_its_changes_along(lane):
    start = lane.position()
    with lane.conn.transaction():
        lane.conn.execute(delete(1, "a"))
        with lane.conn.transaction(force_rollback=True):
            lane.conn.execute(delete(1, "b"))
        lane.conn.execute(delete(2, "a"))
    assert lane.shape(start) == [("delete", did(1), POST), ("delete", did(2), POST)]


# Order -----------------------------------------------------------------------------------------


def test_ids_follow_the_commits_not_the_statements(lane, app):
    start = lane.position()
    first, second = app(), app()
    first.execute(delete(1, "a"))
    second.execute(delete(2, "a"))
    lane.apply(live(3, 11, Op("delete", "a")))
    second.commit()
    first.commit()
    assert [who for _, who, _ in lane.shape(start)] == [did(3), did(2), did(1)]


def test_the_changes_of_one_transaction_are_neighbours(lane, app):
    start = lane.position()
    slow = app()
    slow.execute(delete(1, "a"))
    lane.apply(live(3, 11, Op("delete", "a")))
    slow.execute(delete(1, "b"))
    slow.commit()
    assert [who for _, who, _ in lane.shape(start)] == [did(3), did(1), did(1)]


def test_a_transaction_that_is_numbered_commits_before_the_next_is_numbered(lane, app, session):
    """Else a reader could pass the later one and never see the earlier."""
    early, late, start = app(), session(autocommit=False), lane.position()
    late.execute(delete(2, "a"))
    early.execute(delete(1, "a"))
    early.execute("set constraints all immediate")
    with background(late, late.commit) as commit:
        wait_until_blocked(lane.conn, late)
        assert lane.log(start) == []
        early.commit()
        commit.result()
    assert [who for _, who, _ in lane.shape(start)] == [did(1), did(2)]


def test_whoever_sees_a_change_sees_every_change_before_it(lane, session):
    start = lane.position()
    writers = [session() for _ in range(3)]

    def write(number: int) -> None:
        for turn in range(40):
            writers[number - 1].execute(insert(number, f"r{turn}"))

    with ThreadPoolExecutor() as pool:
        running = [pool.submit(write, number) for number in (1, 2, 3)]
        while not all(task.done() for task in running):
            seen = lane.row(
                "select count(*) as n, coalesce(max(change_id), %s) as last"
                " from sync.changes where change_id > %s",
                start,
                start,
            )
            assert seen["n"] == seen["last"] - start
        for task in running:
            task.result()
    assert lane.position() == start + 120


def test_a_change_of_an_app_keeps_its_place_among_the_apps_own_rows(lane, app):
    """Numbering happens at commit even when the app logged as the very first thing."""
    start = lane.position()
    other = app()
    other.execute("create table public.app_rows (n int)")
    other.execute(delete(1, "a"))
    other.execute("insert into public.app_rows values (1)")
    assert lane.log(start) == []
    other.commit()
    assert lane.log(start) == [("delete", "a", None)]


# Nobody waits for an app -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        delete(1, "a"),
        f"select sync.untrack_repos(array['{did(1)}'])",
        f"select sync.resync_repos(array['{did(1)}'])",
        f"select sync.track_repos(array['{did(9)}'])",
        "select sync.track_collections(array['app.test.thing'])",
        "select sync.untrack_collections(array['app.test.thing'])",
    ],
    ids=["logging", "untrack_repos", "resync_repos", "track_repos", "track", "untrack"],
)
def test_an_app_that_idles_in_a_transaction_stops_nobody(lane, app, session, statement):
    lane.track(5)
    idle = app()
    idle.execute(statement)
    impatient(lane.conn)
    start = lane.position()
    assert lane.apply(live(2, 11, Op("delete", "a"))) == {"applied": 1}
    assert lane.apply(live(1, 11, Op("delete", "b"))) in ({"held": 1}, {"applied": 1})
    outcome = lane.reconcile(lane.claim(5), {"x": "new"}, at=10, data="t10")
    assert outcome["outcome"] == "synchronized"
    lane.maintain()
    impatient(session()).execute(delete(3, "a"))
    idle.rollback()
    lane.apply()
    assert (did(2), did(3)) == tuple(
        who for kind, who, _ in lane.shape(start) if kind == "delete" and who != did(1)
    )


def test_an_app_whose_own_deferred_constraint_waits_does_not_keep_the_lock(lane, app, session):
    admin = session()
    admin.execute("create table public.seats (n int unique deferrable initially deferred)")
    early, late = app(), session(autocommit=False)
    early.execute("insert into public.seats values (1)")
    late.execute(delete(1, "a"))
    late.execute("insert into public.seats values (1)")
    impatient(lane.conn)
    start = lane.position()
    with background(late, late.commit) as commit:
        wait_until_blocked(admin, late)
        assert lane.apply(live(2, 11, Op("delete", "a"))) == {"applied": 1}
        early.rollback()
        commit.result()
    assert [who for _, who, _ in lane.shape(start)] == [did(2), did(1)]


def test_two_apps_that_log_twice_and_share_a_row_do_not_deadlock(lane, app, session):
    observer = session()
    observer.execute("create table public.shared (n int)")
    observer.execute("insert into public.shared values (0)")
    one, two = session(autocommit=False), app()
    impatient(lane.conn)
    start = lane.position()
    one.execute(delete(1, "a"))
    two.execute(delete(3, "a"))
    two.execute("update public.shared set n = n + 1")
    with background(one, lambda: one.execute("update public.shared set n = n + 1")) as update:
        wait_until_blocked(observer, one)
        assert lane.apply(live(2, 11, Op("delete", "a"))) == {"applied": 1}
        two.execute(delete(3, "b"))
        two.commit()
        update.result()
    one.execute(delete(1, "b"))
    assert lane.apply(live(4, 11, Op("delete", "a"))) == {"applied": 1}
    one.commit()
    assert [who for _, who, _ in lane.shape(start)] == [
        did(2), did(3), did(3), did(4), did(1), did(1)
    ]  # fmt: skip


def test_immediate_constraints_number_at_once_and_nothing_is_lost(lane):
    start = lane.position()
    with lane.conn.transaction():
        lane.conn.execute("set constraints all immediate")
        lane.conn.execute(delete(1, "a"))
        assert lane.position() == start + 1
        lane.conn.execute(delete(1, "b"))
        lane.conn.execute("set constraints all deferred")
        lane.conn.execute(delete(2, "a"))
        assert lane.position() == start + 2
    assert [who for _, who, _ in lane.shape(start)] == [did(1), did(1), did(2)]


def test_a_two_phase_commit_of_changes_is_refused(lane, app):
    assert lane.value("select current_setting('max_prepared_transactions')::int > 0")
    other = app()
    other.execute(delete(1, "a"))
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="PREPARE"):
        other.execute("prepare transaction 'later'")
    other.rollback()
    assert lane.value("select count(*) from pg_prepared_xacts") == 0
    lane.conn.execute(delete(1, "a"))


# Waking readers --------------------------------------------------------------------------------


def test_a_transaction_that_logs_notifies_once_and_without_data(lane, session):
    reader = session()
    reader.execute("listen sync_changes")
    with lane.conn.transaction():
        lane.conn.execute(delete(1, "a"))
        lane.conn.execute(delete(2, "a"))
    lane.conn.execute("select pg_notify('sync_changes', 'the end')")
    heard = [n.payload for n in reader.notifies(timeout=60, stop_after=2)]
    assert heard == ["", "the end"]


def test_a_transaction_that_logs_nothing_is_silent(lane, session):
    reader = session()
    reader.execute("listen sync_changes")
    lane.apply(Event(did(1), rev=11, since=10, before="t10", data="t10"))
    lane.conn.execute("select pg_notify('sync_changes', 'the end')")
    heard = [n.payload for n in reader.notifies(timeout=60, stop_after=1)]
    assert heard == ["the end"]


# Partitions and epochs -------------------------------------------------------------------------


def partitions(lane: Driver) -> list[str]:
    rows = lane.rows(
        "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid"
        " where i.inhparent = 'sync.changes'::regclass order by c.relname"
    )
    return [row["relname"] for row in rows]


def number_of(lane: Driver) -> int:
    """Return the number of the partition that is written now."""
    return lane.position() // PARTITION


def test_upkeep_makes_the_next_partition_ahead_of_need(lane):
    now = number_of(lane)
    lane.maintain()
    assert partitions(lane) == [f"changes_{now}"]
    lane.value("select setval('sync_priv.change_ids', %s)", now * PARTITION + PARTITION // 2)
    lane.maintain()
    assert partitions(lane) == [f"changes_{now}", f"changes_{now + 1}"]
    lane.maintain()
    assert partitions(lane) == [f"changes_{now}", f"changes_{now + 1}"]


def test_a_transaction_may_cross_into_a_partition_that_nobody_made(lane):
    now = number_of(lane)
    edge = (now + 1) * PARTITION
    lane.value("select setval('sync_priv.change_ids', %s)", edge - 3)
    lane.conn.execute("delete from sync.stored_records")
    where = lane.rows(
        "select tableoid::regclass::text as part, array_agg(change_id order by change_id) as ids"
        " from sync.changes where change_id >= %s group by 1 order by 1",
        edge - 3,
    )
    assert [(row["part"], row["ids"]) for row in where] == [
        (f"sync_priv.changes_{now}", [edge - 2, edge - 1]),
        (f"sync_priv.changes_{now + 1}", [edge + n for n in range(6)]),
    ]


def test_upkeep_that_makes_a_partition_and_a_writer_that_needs_it_do_not_collide(lane, session):
    upkeep, writer, observer = session(autocommit=False), session(autocommit=False), session()
    edge = (number_of(lane) + 1) * PARTITION
    lane.value("select setval('sync_priv.change_ids', %s)", edge - 1)
    writer.execute(delete(1, "a"))
    upkeep.execute("select sync.maintain()")
    with background(writer, writer.commit) as commit:
        wait_until_blocked(observer, writer)
        upkeep.commit()
        commit.result()
    assert lane.position() == edge


def test_upkeep_that_waits_to_make_a_partition_sees_that_it_has_been_made_meanwhile(lane, session):
    upkeep, writer, observer = session(), session(autocommit=False), session()
    set_last = "select setval('sync_priv.change_ids', %s)"
    edge = (number_of(lane) + 9) * PARTITION
    # A session that did this before looks nothing up that would bring it news.
    for parts_before in range(6, 0, -1):
        lane.value(set_last, edge - parts_before * PARTITION)
        upkeep.execute("select sync.maintain()")
    lane.value(set_last, edge)
    writer.execute("select pg_advisory_xact_lock(7261, 1)")
    writer.execute("select sync_priv.make_partitions(%s, %s)", [edge, edge])
    with background(upkeep, lambda: upkeep.execute("select sync.maintain()")) as step:
        wait_until_blocked(observer, upkeep)
        writer.commit()
        step.result()


@pytest.mark.parametrize("column", ["database_oid", "system_identifier", "table_oid", "timeline"])
def test_another_database_opens_a_new_epoch_with_ids_never_used_before(lane, column):
    lane.conn.execute(delete(1, "a"))
    start, now = lane.position(), number_of(lane)
    epoch = lane.value("select log_epoch from sync_priv.log_state")
    lane.conn.execute(f"update sync_priv.log_state set {column} = '1'")
    lane.conn.execute(delete(2, "a"))
    state = lane.row("select * from sync_priv.log_state")
    assert state["log_epoch"] > epoch
    assert state["database_oid"] == lane.value(
        "select oid from pg_database where datname = current_database()"
    )
    assert lane.position() == (now + 1) * PARTITION + 1
    assert lane.log(start) == [("delete", "a", None)]
    lane.conn.execute(delete(3, "a"))
    assert lane.position() == (now + 1) * PARTITION + 2
    assert lane.value("select log_epoch from sync_priv.log_state") == state["log_epoch"]


def test_a_copy_of_a_database_numbers_in_an_epoch_of_its_own(lane):
    """The clone of this test was copied from a template in its first epoch."""
    assert lane.value("select log_epoch from sync_priv.log_state") > 1
    assert lane.value("select min(change_id) from sync.changes") > PARTITION


@pytest.mark.rule("BF-14")
def test_a_restored_database_puts_its_interrupted_fetches_back_in_line_once(lane):
    lane.track(7)
    lane.claim(7)
    lane.conn.execute("update sync_priv.log_state set timeline = '0000FFFF'")
    lane.conn.execute("select sync_priv.notice_restore(false)")
    assert lane.state(7) == "desynchronized"
    lane.claim(7)
    lane.conn.execute("select sync_priv.notice_restore(false)")
    assert lane.state(7) == "fetching"
