"""Connections work as the role they ask for, and our functions' refusals have classes."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import DictRow

from sync.database import connect, connect_sync, refusals
from sync.errors import REFUSALS, BadArgument, DatabaseUnavailable, SchemaError
from sync.schema import sql_folder
from tests.conftest import Ingest

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"


async def test_an_ingest_connection_is_named_and_works_as_its_role(clone: str) -> None:
    conn = await connect(clone, name="lane 3", role="sync_ingester", idle_transaction_timeout_s=1.5)
    try:
        assert await conn.fetchval("select current_user::text") == "sync_ingester"
        assert await conn.fetchval("show application_name") == "lane 3"
        assert await conn.fetchval("show idle_in_transaction_session_timeout") == "1500ms"
        assert await conn.fetchval("show tcp_keepalives_idle") == "20"
    finally:
        await conn.close()


async def test_a_silent_transaction_is_ended_by_the_server(clone: str) -> None:
    conn = await connect(clone, name="test", idle_transaction_timeout_s=0.05)
    ended = asyncio.Event()
    conn.add_termination_listener(lambda _: ended.set())
    await conn.execute("begin")
    await asyncio.wait_for(ended.wait(), timeout=30)
    assert conn.is_closed()


def test_a_psycopg_session_keeps_the_options_of_its_url(clone: str) -> None:
    url = f"{clone}?options=-c%20statement_timeout%3D7s"
    with connect_sync(url, name="test", role="sync_reader") as conn:
        row = conn.execute(
            "select current_user::text as role, current_setting('statement_timeout') as timeout"
        ).fetchone()
    assert row == {"role": "sync_reader", "timeout": "7s"}


@pytest.mark.parametrize("role", ["postgres", "no_such_role"])
async def test_a_role_out_of_reach_is_a_sentence(clone: str, role: str) -> None:
    with pytest.raises(SchemaError, match=f"does not let this login work as {role}"):
        connect_sync(clone, name="test", role=role)
    with pytest.raises(SchemaError, match=f"does not let this login work as {role}"):
        await connect(clone, name="test", role=role)


async def test_a_wrong_password_is_a_sentence(clone: str) -> None:
    url = re.sub(r":[^:@/]+@", ":wr0ng@", clone)
    with pytest.raises(DatabaseUnavailable, match="refuses the login") as caught:
        connect_sync(url, name="test")
    assert "wr0ng" not in str(caught.value)
    with pytest.raises(DatabaseUnavailable, match="refuses the login"):
        await connect(url, name="test")


async def test_a_missing_database_is_a_sentence(clone: str) -> None:
    url = f"{clone}_missing"
    with pytest.raises(DatabaseUnavailable, match="does not exist: create it first"):
        connect_sync(url, name="test")
    with pytest.raises(DatabaseUnavailable, match="does not exist: create it first"):
        await connect(url, name="test")


async def test_a_refusal_of_our_functions_has_its_class_and_sqlstate(
    session: Callable[..., psycopg.Connection[DictRow]], ingest: Ingest
) -> None:
    with pytest.raises(BadArgument) as caught, refusals():
        session().execute("select sync.track_repos(array['nonsense'])")
    assert caught.value.sqlstate == "SY002"
    assert "CONTEXT" not in str(caught.value)
    conn = await ingest(role=None)
    with pytest.raises(BadArgument), refusals():
        await conn.execute("select sync.track_repos(array['nonsense'])")


def test_a_fault_is_no_refusal(db: psycopg.Connection[DictRow]) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero), refusals():
        db.execute(sql.SQL("select 1/0"))


def test_every_sqlstate_our_functions_raise_is_in_the_reference() -> None:
    raised = {
        state
        for path in sql_folder().rglob("*.sql")
        for state in re.findall(r"errcode\s*=\s*'(SY\d{3})'", path.read_text(encoding="utf-8"))
    }
    page = REFERENCE.read_text(encoding="utf-8")
    missing = {s for s in raised | set(REFUSALS) if s not in page and not s.startswith("SY2")}
    assert missing == set()
