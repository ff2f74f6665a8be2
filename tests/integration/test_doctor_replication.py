"""`standpipe doctor` on slots: unread, behind, nearly lost, lost, unbounded, and not wanted."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from sync.cli.doctor import examine
from sync.cli.findings import Finding
from sync.config import Settings
from sync.schema import upgrade
from tests.integration.replication import Cluster, cluster, until
from tests.postgres import Server

KEEP = "alter system set max_slot_wal_keep_size = {}"


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a server without slots: they are everybody's."""
    with cluster(tmp_path_factory.mktemp("slots") / "data") as made:
        yield made


@pytest.fixture
def url(own_cluster: Cluster) -> Iterator[str]:
    """Return the URL of a database with a slot that nobody reads."""
    server = own_cluster.server
    with server.database() as name:
        service = server.service_url(name)
        upgrade(service)
        execute(service, "select pg_create_logical_replication_slot('copy', 'pgoutput')")
        try:
            yield service
        finally:
            keep(server, "16GB")
            execute(service, "select pg_drop_replication_slot('copy')")


def execute(url: str, statement: str) -> object:
    """Run one statement; return the first column of its first row."""
    with psycopg.connect(url, autocommit=True) as conn:
        cursor = conn.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
    return row and row[0]


def keep(server: Server, size: str) -> None:
    """Set how much WAL a slot may keep, and wait until that holds."""
    server.administer(
        sql.SQL(KEEP).format(sql.Literal(size)),
        sql.SQL("select pg_reload_conf()"),
    )
    show = "show max_slot_wal_keep_size"
    until(lambda: execute(server.admin_url(), show) == size, "the setting")


def findings(url: str, check: str) -> list[Finding]:
    return [each for each in examine(Settings(database_url=url)) if each.check == check]


def test_a_slot_that_keeps_little_is_all_right(url: str) -> None:
    [finding] = findings(url, "replication")
    assert finding.level == "ok"
    assert finding.finding.startswith("1 slots, 1 not read now")


def test_a_slot_that_nobody_reads_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.cli.replication.RETAINED_WAL_BYTES", -1)
    [finding] = findings(url, "replication")
    assert finding.level == "warn"
    assert finding.finding.startswith("Nobody reads slot copy")
    assert "pg_drop_replication_slot('copy')" in finding.advice


def test_a_slot_that_was_not_read_for_long_is_named(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.cli.replication.UNREAD_S", -1.0)
    if execute(url, "select current_setting('server_version_num')::int < 170000"):
        # Older servers do not know since when.
        monkeypatch.setattr("sync.cli.replication.UNREAD_S", 0.0)
        assert [each.level for each in findings(url, "replication")] == ["ok"]
        return
    [finding] = findings(url, "replication")
    assert finding.finding.startswith("Nobody reads slot copy, last ")


def test_a_reader_that_is_far_behind_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Left by its own `with` it would try to commit, in the middle of a stream.
    with closing(psycopg.connect(url, replication="database", autocommit=True)) as reader:
        reader.execute(
            "START_REPLICATION SLOT copy LOGICAL 0/0"
            " (proto_version '1', publication_names 'sync_changes')"
        )
        execute(url, "create table noise as select generate_series(1, 10000) as n")
        monkeypatch.setattr("sync.cli.replication.RETAINED_WAL_BYTES", 1 << 10)
        [finding] = findings(url, "replication")
    assert finding.finding.startswith("The reader of slot copy is ")
    released = "select not active from pg_replication_slots"
    until(lambda: execute(url, released), "the slot is free")


def test_slots_without_a_bound_are_a_finding(own_cluster: Cluster, url: str) -> None:
    keep(own_cluster.server, "-1")
    [finding] = findings(url, "replication")
    assert finding.level == "warn"
    assert "max_slot_wal_keep_size" in finding.advice


def test_a_slot_is_nearly_lost_and_then_lost(own_cluster: Cluster, url: str) -> None:
    server = own_cluster.server
    keep(server, "1MB")
    admin = server.admin_url(url.rpartition("/")[2])
    for _ in range(4):
        execute(admin, "create table if not exists noise (n int)")
        execute(admin, "insert into noise values (1)")
        execute(admin, "select pg_switch_wal()")
    [finding] = findings(url, "replication")
    assert finding.finding.startswith("Slot copy is about to be lost")
    execute(admin, "checkpoint")
    [finding] = findings(url, "replication")
    assert finding.finding.startswith("Slot copy is lost (wal_removed)")
    assert "start its reader over" in finding.advice


def test_a_server_without_slots_needs_no_bound(own_cluster: Cluster) -> None:
    keep(own_cluster.server, "-1")
    with own_cluster.server.database() as name:
        url = own_cluster.server.service_url(name)
        upgrade(url)
        assert [(each.level, each.finding) for each in findings(url, "replication")] == [
            ("ok", "no slot")
        ]


def test_logical_wal_is_missed_only_where_somebody_wants_to_subscribe(tmp_path: Path) -> None:
    with cluster(tmp_path / "plain") as plain:
        plain.server.administer(sql.SQL("alter system set wal_level = replica"))
        plain.kill()
        plain.revive()
        with plain.server.database() as name:
            url = plain.server.service_url(name)
            upgrade(url)
            [finding] = findings(url, "wal_level")
            assert finding.level == "ok"
            plain.server.administer(
                sql.SQL("create role copier login replication in role sync_replicator")
            )
            [finding] = findings(url, "wal_level")
    assert finding.level == "warn"
    assert "copier cannot subscribe" in finding.finding
