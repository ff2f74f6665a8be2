"""`standpipe doctor`: what it finds, and that it says what to do."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier

from sync.cli.health import check_disk
from sync.config import Settings
from sync.roles import ROLES
from tests.acceptance.commands import Result, Standpipe, on_clone, standpipe
from tests.postgres import Server
from tests.sql.waiting import PATIENCE_S, background, wait_until_blocked

__all__ = ["on_clone", "standpipe"]

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"

OpenSession = Callable[..., psycopg.Connection[DictRow]]


def doctor_findings(result: Result) -> dict[str, dict[str, Any]]:
    return {finding["check"]: finding for finding in result.json_lines()}


def test_doctor_finds_nothing_wrong_with_a_new_database(on_clone: Standpipe) -> None:
    result = on_clone("doctor", "--json")
    findings = doctor_findings(result)
    assert result.code == 0
    assert {check for check, each in findings.items() if each["level"] != "ok"} == {"sources"}
    assert on_clone("doctor").out.startswith("ok    database")


def test_doctor_names_who_idles_with_the_lock_of_the_log(
    on_clone: Standpipe, session: OpenSession
) -> None:
    holder = session(autocommit=False)
    holder.execute("select sync.track_repos(array[%s])", [DID])
    holder.execute("select sync.untrack_repos(array[%s])", [DID])
    holder.execute("set constraints all immediate")
    result = on_clone("doctor", "--json")
    finding = doctor_findings(result)["log lock"]
    assert result.code == 1
    assert finding["level"] == "fail"
    assert str(holder.info.backend_pid) in finding["finding"]
    assert "pg_terminate_backend" in finding["advice"]


def test_doctor_names_a_holder_whom_this_login_may_not_look_at(
    standpipe: Standpipe, owner_url: str, session: OpenSession, monkeypatch: Any
) -> None:
    monkeypatch.setattr("sync.cli.health.LONG_WAIT_S", 0)
    holder, waiter = session(autocommit=False), session()
    holder.execute("select pg_advisory_xact_lock(7261, 1)")
    lock = "select pg_advisory_lock(7261, 1)"
    with background(waiter, lambda: waiter.execute(lock)) as waiting:
        wait_until_blocked(session(), waiter)
        result = standpipe("doctor", "--json", STANDPIPE_DATABASE_URL=owner_url)
        holder.commit()
        waiting.result(PATIENCE_S)
    finding = doctor_findings(result)["log lock"]
    assert finding["level"] == "warn"
    assert str(holder.info.backend_pid) in finding["finding"]
    assert "pg_read_all_stats" in finding["advice"]


def test_doctor_finds_a_stopped_source_and_a_gap(on_clone: Standpipe, session: OpenSession) -> None:
    conn = session()
    conn.execute("select sync.add_source('wss://relay.example.com')")
    conn.execute("select sync.note_gap(1), sync.stop_source(1, 'FutureCursor')")
    result = on_clone("doctor", "--json")
    findings = doctor_findings(result)
    assert result.code == 1
    assert findings["sources"]["level"] == "fail"
    assert "FutureCursor" in findings["sources"]["finding"]
    assert findings["gaps"]["level"] == "warn"


def test_doctor_without_a_schema_stops_there(standpipe: Standpipe, empty_database: str) -> None:
    result = standpipe("doctor", "--json", STANDPIPE_DATABASE_URL=empty_database)
    assert result.code == 1
    assert list(doctor_findings(result)) == ["database", "schema"]
    assert "standpipe upgrade" in doctor_findings(result)["schema"]["finding"]


def test_doctor_of_an_unreachable_database_is_a_finding(standpipe: Standpipe) -> None:
    result = standpipe("doctor", "--json", "--database-url", "postgresql://127.0.0.1:1/x")
    assert result.code == 1
    assert result.json_lines()[0]["level"] == "fail"


@pytest.fixture
def reader_url(clone: str, session: OpenSession) -> Iterator[str]:
    """Return the URL of an app's login, who may read and nothing else."""
    conn = session()
    conn.execute("create role plain_reader login password 'reader' in role sync_reader")
    yield f"postgresql://plain_reader:reader@{clone.rpartition('@')[2]}"
    conn.execute("drop role plain_reader")


@pytest.fixture
def owner_url(clone: str, postgres: Server) -> Iterator[str]:
    """Return the URL of an operator's login, who may not look into other logins' sessions."""
    postgres.administer(
        SQL("create role an_owner login password 'owner' in role {}").format(
            SQL(", ").join(map(Identifier, ROLES))
        )
    )
    yield f"postgresql://an_owner:owner@{clone.rpartition('@')[2]}"
    postgres.administer(SQL("drop role an_owner"))


def test_doctor_says_what_a_login_may_not_look_at(standpipe: Standpipe, reader_url: str) -> None:
    result = standpipe("doctor", "--json", STANDPIPE_DATABASE_URL=reader_url)
    findings = doctor_findings(result)
    assert (result.code, result.err) == (1, "")
    assert findings["roles"]["level"] == "fail"
    assert findings["schema"]["level"] == findings["partitions"]["level"] == "warn"
    assert "sync_owner" in findings["partitions"]["advice"]


def test_an_apps_login_may_look_and_not_track(standpipe: Standpipe, reader_url: str) -> None:
    for command in (["status"], ["query", "select 1"], ["tail", "--no-follow"]):
        result = standpipe(*command, STANDPIPE_DATABASE_URL=reader_url)
        assert (result.code, result.err) == (0, "")
    result = standpipe("track", DID, STANDPIPE_DATABASE_URL=reader_url)
    result.assert_one_sentence(7, "permission denied for function track_repos", "a login that may")


def test_doctor_finds_a_consumer_that_was_outrun(on_clone: Standpipe, session: OpenSession) -> None:
    conn = session()
    conn.execute("select sync.create_consumer('slow')")
    conn.execute("update sync_priv.consumer_shards set is_lost = true")
    finding = doctor_findings(on_clone("doctor", "--json"))["consumers"]
    assert finding["level"] == "warn"
    assert "sync.replay('slow')" in finding["advice"]


def test_doctor_finds_a_forgotten_transaction(
    on_clone: Standpipe, session: OpenSession, monkeypatch: Any
) -> None:
    monkeypatch.setattr("sync.cli.health.LONG_TRANSACTION_S", 0)
    holder = session(autocommit=False)
    holder.execute("select 1")
    finding = doctor_findings(on_clone("doctor", "--json"))["transactions"]
    assert finding["level"] == "warn"
    assert str(holder.info.backend_pid) in finding["finding"]


def test_doctor_finds_a_listener_that_keeps_notifications(
    on_clone: Standpipe, session: OpenSession, monkeypatch: Any
) -> None:
    listener, writer = session(autocommit=False), session()
    listener.execute("listen sync_changes")
    listener.commit()
    listener.execute("select 1")
    assert doctor_findings(on_clone("doctor", "--json"))["notify"]["level"] == "ok"
    monkeypatch.setattr("sync.cli.health.FULL_QUEUE", 0.0)
    writer.execute("select pg_notify('sync_changes', n::text) from generate_series(1, 5000) n")
    finding = doctor_findings(on_clone("doctor", "--json"))["notify"]
    assert finding["level"] == "warn"
    assert str(listener.info.backend_pid) in finding["finding"]


def test_doctor_looks_at_the_disk_of_an_embedded_database(
    session: OpenSession, monkeypatch: Any, tmp_path: Any
) -> None:
    settings = Settings(data_dir=tmp_path)
    assert check_disk(session(), settings).level in {"ok", "warn"}
    monkeypatch.setattr("sync.cli.health.EMPTY_DISK_BYTES", 1 << 60)
    assert check_disk(session(), settings).level == "fail"
    elsewhere = Settings(database_url="postgresql://db.example.com/app")
    assert check_disk(session(), elsewhere).level == "ok"


def test_doctor_and_the_list_say_why_a_source_is_not_read(
    on_clone: Standpipe, session: OpenSession
) -> None:
    db = session()
    db.execute("select sync.add_source('wss://relay.example.com'), sync.claim_lane(1)")
    db.execute("select sync.note_trouble(1, 'the server answers 403')")
    [row] = on_clone("source", "list", "--json").json_lines()
    assert row["error"] == "the server answers 403"
    findings = {each["check"]: each for each in on_clone("doctor", "--json").json_lines()}
    assert findings["sources"]["level"] == "warn"
    assert "answers 403. Until it is, no repo is fetched." in findings["sources"]["finding"]
