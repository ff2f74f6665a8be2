"""Another PostgreSQL follows records and log, by the commands of docs/how-to/replicate.md."""

import random
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from sync.database import connect_sync
from sync.schema import upgrade
from tests.integration.replication import (
    Pair,
    Session,
    Writer,
    both,
    cluster,
    clusters,
    large,
    until,
    writing,
)
from tests.sql.driver import LIKE, Driver, Event, Op, did, rev

__all__ = ["both", "clusters"]

STORED = ("stored_records", "repos", "collections")
KILLS = 2


def contents(conn: Session, table: str) -> list[str]:
    rows = conn.execute(f"select t::text as row from sync.{table} t order by 1".encode())
    return [row["row"] for row in rows.fetchall()]


def await_equal(both: Pair, *tables: str) -> None:
    """Wait until the copy has everything that is there now."""
    with both.on_source() as source:
        expected = {table: contents(source, table) for table in tables}

    def is_equal() -> bool:
        with both.on_copy() as copy:
            return all(contents(copy, table) == expected[table] for table in tables)

    until(is_equal, f"{tables} are equal")


def same_records(both: Pair) -> bool:
    """Tell whether the two views show the same."""
    with both.on_source() as source, both.on_copy() as copy:
        return contents(source, "records") == contents(copy, "records")


def test_records_are_copied_then_followed_to_the_last_delete(both: Pair) -> None:
    with both.on_source() as source:
        driver = Driver(source)
        driver.load(1, {"a": "x", "b": "y", (LIKE, "l"): large(1)}, at=10, data="t1")
        driver.load(2, {"c": "z"}, at=10, data="t2")
        both.run("Copy the records")
        both.run("Show what may be shown")
        await_equal(both, *STORED)
        ops = [Op("create", "n", "new"), Op("update", "a", "xx"), Op("delete", "b")]
        driver.apply(
            Event(did(1), rev=11, since=10, before="t1", data="t3", ops=ops),
        )
        driver.load(3, {"d": "first"}, at=10, data="t4")
        await_equal(both, *STORED)
        assert same_records(both)
        driver.maintain()
        driver.conn.execute("select sync.untrack_repos(array[%s])", [did(2)])
        driver.maintain()
        await_equal(both, *STORED)
        assert same_records(both)
    with both.on_copy() as copy:
        shown = copy.execute("select rkey, value ->> 'text' as text from sync.records").fetchall()
    texts = {row["rkey"]: row["text"] for row in shown}
    assert texts == {"a": "xx", "n": "new", "l": large(1), "d": "first"}


def test_the_view_hides_what_the_publisher_hides(both: Pair) -> None:
    """Hidden rows come; the account's row that comes with them says that they are hidden."""
    with both.on_source() as source:
        driver = Driver(source)
        for number in range(1, 5):
            driver.load(number, {"a": str(number)}, at=10, data=f"t{number}")
        both.run("Copy the records")
        both.run("Show what may be shown")
        source.execute("select sync.take_down_repos(array[%s])", [did(1)])
        driver.apply(Event(did(2), "account", is_active=False, status="deactivated"))
        source.execute("select sync.untrack_repos(array[%s])", [did(3)])
        await_equal(both, *STORED)
        with both.on_copy() as copy:
            assert len(contents(copy, "stored_records")) == 4
            assert [r["did"] for r in copy.execute("select did from sync.records")] == [did(4)]
        assert same_records(both)
        source.execute("select sync.restore_repos(array[%s])", [did(1)])
        driver.apply(Event(did(2), "account", is_active=True))
        await_equal(both, *STORED)
        assert same_records(both)
        with both.on_copy() as copy:
            assert len(contents(copy, "records")) == 3


def test_what_is_on_its_way_out_is_shown_a_little_longer(both: Pair) -> None:
    """The exception that the page names: purges are not published."""
    with both.on_source() as source:
        driver = Driver(source)
        driver.load(1, {"a": "1", (LIKE, "l"): "1"}, at=10, data="t1")
        driver.load(2, {"a": "2"}, at=10, data="t2")
        both.run("Copy the records")
        both.run("Show what may be shown")
        source.execute("select sync.untrack_repos(array[%s])", [did(1)])
        source.execute("select sync.track_repos(array[%s])", [did(1)])
        source.execute("select sync.track_collections(array[%s])", [LIKE])
        source.execute("select sync.untrack_collections(array['*'])")
        await_equal(both, *STORED)
        with both.on_copy() as copy:
            assert contents(source, "records") == []
            assert len(contents(copy, "records")) == 3
        driver.maintain()
        assert driver.value("select purges from sync.status") == 0
        await_equal(both, *STORED)
        assert same_records(both)


def kill_both_in_turn(both: Pair, writer: Writer, seed: int) -> None:
    """Kill either server at random moments while changes come, and wait until they come again."""
    chance = random.Random(seed)
    for victim in [both.publisher, both.subscriber] * KILLS:
        target = writer.done + chance.randrange(20, 200)
        until(lambda at=target: writer.done >= at, "the writer goes on")  # type: ignore[misc]
        victim.kill()
        if victim is both.subscriber:
            missed = writer.done + 50
            until(lambda at=missed: writer.done >= at, "the writer goes on")  # type: ignore[misc]
        victim.revive()


@pytest.mark.parametrize("seed", [1, 2])
def test_no_record_is_lost_when_either_server_is_killed(both: Pair, seed: int) -> None:
    with writing(both, seed) as writer:
        both.run("Copy the records")
        kill_both_in_turn(both, writer, seed)
    await_equal(both, *STORED)


@pytest.mark.parametrize("seed", [3, 4])
def test_the_log_has_no_hole_when_either_server_is_killed(both: Pair, seed: int) -> None:
    with writing(both, seed) as writer:
        both.run("Copy the log")
        kill_both_in_turn(both, writer, seed)
    await_equal(both, "changes")
    with both.on_copy() as copy:
        rows = copy.execute("select change_id from sync.changes order by 1").fetchall()
    ids = [row["change_id"] for row in rows]
    assert ids == list(range(ids[0], ids[0] + len(ids)))


def test_partitions_come_and_go_under_a_slot(both: Pair) -> None:
    """Rows of a retired partition that were not read yet still come; the copy keeps its own."""
    both.run("Copy the log")
    with both.on_source() as source:
        driver = Driver(source)
        driver.load(1, {"a": "x"}, at=10, data="t1")
        await_equal(both, "changes")
        with both.on_copy() as copy:
            copy.execute("alter subscription log disable")
        driver.load(2, {"b": "unread"}, at=10, data="t2")
        source.execute("delete from sync.stored_records where rkey = 'b'")
        expected = contents(source, "changes")
        # The next number is in a partition that nobody has made yet.
        size = driver.value("select sync_priv.partition_size()")
        source.execute("select setval('sync_priv.change_ids', %s)", [size - 1])
        source.execute("delete from sync.stored_records where rkey = 'a'")
        expected += contents(source, "changes")[-1:]
        source.execute("set role sync_owner")
        source.execute("alter table sync.changes detach partition sync_priv.changes_0 concurrently")
        source.execute("drop table sync_priv.changes_0")
        source.execute("reset role")
        assert len(contents(source, "changes")) == 1
        with both.on_copy() as copy:
            copy.execute("alter subscription log enable")
            until(lambda: contents(copy, "changes") == sorted(expected), "the log is complete")
        driver.load(3, {"c": "later"}, at=10, data="t3")
        with both.on_copy() as copy:
            until(lambda: len(contents(copy, "changes")) > len(expected), "the slot still works")


def test_a_large_value_that_an_update_leaves_alone_is_kept(both: Pair) -> None:
    with both.on_source() as source:
        Driver(source).load(1, {"a": large(1), "b": large(2)}, at=10, data="t1")
        both.run("Copy the records")
        await_equal(both, *STORED)
        source.execute("update sync.stored_records set rev = %s where rkey = 'a'", [rev(11)])
        source.execute("delete from sync.stored_records where rkey = 'b'")
        await_equal(both, *STORED)
    with both.on_copy() as copy:
        rows = copy.execute("select rev, value ->> 'text' as text from sync.stored_records")
        assert rows.fetchall() == [{"rev": rev(11), "text": large(1)}]


def test_one_subscription_to_both_applies_one_transaction_at_a_time(both: Pair) -> None:
    """Whoever has the change has the record, which two subscriptions would not promise."""
    both.run("Copy the records")
    both.run("Copy the log")
    with both.on_copy() as copy:
        copy.execute("drop subscription log")
        copy.execute("drop subscription records")
        copy.execute(
            f"create subscription everything connection '{both.copier_url}'"
            " publication sync_records, sync_changes with (copy_data = false)".encode()
        )
        copy.execute(
            """
            create table seen (change_id bigint, is_there boolean);
            create function look() returns trigger language plpgsql as $$ begin
              insert into public.seen select new.change_id, exists (
                select from sync.stored_records s
                 where (s.repo_id, s.rkey, s.cid) = (new.repo_id, new.rkey, new.cid));
              return null; end $$;
            create constraint trigger look after insert on sync.changes deferrable
              initially deferred for each row execute function look();
            alter table sync.changes enable always trigger look
            """
        )
        with writing(both, 5) as writer:
            until(lambda: writer.done > 100, "changes")
        await_equal(both, *STORED, "changes")
        rows = copy.execute(
            "select s.is_there from seen s join sync.changes c using (change_id)"
            " where c.kind in ('create', 'update')"
        ).fetchall()
    assert len(rows) > 20
    assert all(row["is_there"] for row in rows)


def test_a_column_that_an_upgrade_adds_is_waited_for(both: Pair) -> None:
    both.run("Copy the records")
    await_equal(both, *STORED)
    with both.on_source() as source, both.on_copy() as copy:
        Driver(source)
        source.execute("set role sync_owner")
        source.execute("alter table sync.collections add column note text")
        source.execute("insert into sync.collections (nsid, note) values ('a.b.c', 'hello')")
        errors = "select apply_error_count > 0 as yes from pg_stat_subscription_stats"
        until(lambda: (copy.execute(errors).fetchone() or {})["yes"], "the subscription stops")
        copy.execute("alter table sync.collections add column note text")
    await_equal(both, "collections")


def test_a_lost_slot_is_replaced_as_the_page_says(both: Pair) -> None:
    both.run("Copy the records")
    with both.on_source() as source:
        driver = Driver(source)
        driver.load(1, {"a": "x"}, at=10, data="t1")
        await_equal(both, *STORED)
        with both.on_copy() as copy:
            copy.execute("alter subscription records disable")
        drop = "select pg_drop_replication_slot('records')"
        until(lambda: _succeeds(both, drop), "the slot is dropped")
        driver.load(2, {"b": "missed"}, at=10, data="t2")
    both.run("Start over")
    await_equal(both, *STORED)
    both.run("End it")
    with both.on_source() as source:
        assert source.execute("select from pg_replication_slots").fetchall() == []


def _succeeds(both: Pair, statement: str) -> bool:
    with both.on_source() as conn:
        try:
            conn.execute(statement.encode())
        except psycopg.errors.ObjectInUse:
            return False
    return True


def test_a_subscriber_s_login_can_copy_and_nothing_more(both: Pair) -> None:
    """It sees what is hidden, and changes nothing."""
    with both.on_source() as source:
        Driver(source).load(1, {"hidden": "x"}, at=10, data="t1")
        source.execute("select sync.take_down_repos(array[%s])", [did(1)])
        assert contents(source, "records") == []
    with psycopg.connect(both.copier_url, autocommit=True) as copier:
        found = copier.execute("select rkey from sync.stored_records").fetchall()
        assert found == [("hidden",)]
        assert copier.execute("select log_epoch from sync_priv.log_state").fetchall() == [(1,)]
        for statement in (
            "delete from sync.stored_records", "update sync.repos set handle = 'x'",
            "insert into sync.collections (nsid) values ('x')", "truncate sync.changes",
            "select from sync.records", "select from sync.heads", "select from sync.filters",
            "select from sync_priv.held_events", "select timeline from sync_priv.log_state",
            "select * from sync.read_changes('x')", "select sync.track_repos('{}')",
            "select sync.maintain()", "create table sync.mine ()", "create schema mine",
            "drop publication sync_changes", "create publication mine",
            "alter publication sync_records set (publish = 'insert')", "set role sync_reader",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                copier.execute(statement.encode())


@pytest.fixture
def logins(both: Pair) -> Iterator[None]:
    statements = (
        "create role app_login login password 'p' in role sync_reader",
        "create role half_copier login replication password 'p'",
    )
    drop = ("drop role app_login", "drop role half_copier")
    with psycopg.connect(both.admin_url, autocommit=True) as admin:
        for statement in statements:
            admin.execute(statement.encode())
        yield
        for statement in drop:
            admin.execute(statement.encode())


@pytest.mark.usefixtures("logins")
def test_an_app_s_login_has_no_part_in_replication(both: Pair) -> None:
    place = both.source_url.split("@")[1]
    app_url = f"postgresql://app_login:p@{place}"
    with pytest.raises(psycopg.OperationalError, match=r"WAL sender|walsender"):
        psycopg.connect(app_url, replication="database")
    with psycopg.connect(app_url, autocommit=True) as app:
        for statement in (
            "select pg_create_logical_replication_slot('x', 'pgoutput')",
            "select * from pg_logical_slot_get_binary_changes('x', null, null)",
            "select from sync.stored_records", "select from sync.changes",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute(statement.encode())


@pytest.mark.usefixtures("logins")
def test_the_attribute_alone_streams_but_copies_nothing(both: Pair) -> None:
    """Why the page says to keep such a login in by pg_hba.conf."""
    url = f"postgresql://half_copier:p@{both.source_url.split('@')[1]}"
    with psycopg.connect(url, autocommit=True) as half:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            half.execute("select from sync.stored_records")
        half.execute("select pg_create_logical_replication_slot('half', 'pgoutput')")
        with both.on_source() as source:
            source.execute("insert into sync.collections (nsid) values ('a.b.c')")
        sent = half.execute(
            "select data from pg_logical_slot_get_binary_changes("
            "'half', null, null, 'proto_version', '1', 'publication_names', 'sync_records')"
        ).fetchall()
        half.execute("select pg_drop_replication_slot('half')")
    assert any(b"a.b.c" in row[0] for row in sent)


def test_without_logical_wal_only_replication_is_missing(tmp_path: Path) -> None:
    with cluster(tmp_path / "plain") as plain:
        plain.server.administer(sql.SQL("alter system set wal_level = replica"))
        plain.kill()
        plain.revive()
        with plain.server.database() as name:
            url = plain.server.service_url(name)
            upgrade(url)
            with connect_sync(url, name="test", autocommit=True) as conn:
                assert conn.execute("show wal_level").fetchone() == {"wal_level": "replica"}
                driver = Driver(conn)
                driver.load(1, {"a": "x"}, at=10, data="t1")
                ops = [Op("update", "a", "y"), Op("create", "b", "z")]
                driver.apply(Event(did(1), rev=11, since=10, before="t1", data="t2", ops=ops))
                conn.execute("delete from sync.stored_records where rkey = 'b'")
                assert driver.texts(1) == {"a": "y"}
                published = driver.rows("select pubname from pg_publication order by 1")
    assert [row["pubname"] for row in published] == ["sync_changes", "sync_records"]
