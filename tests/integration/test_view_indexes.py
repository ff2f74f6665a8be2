"""The service builds the indexes that views ask for, while everything else goes on."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from sync.indexes import build_indexes
from sync.simnet import Simnet
from tests.integration.rig import NOTE, POLL_S, Rig, rig_on
from tests.postgres import TEMPLATE, chosen_binaries, running_server

LEXICON = (
    '{"lexicon": 1, "id": "com.example.note", "defs": {"main": {"type": "record", "key": "tid",'
    ' "record": {"type": "object", "properties": {"text": {"type": "string"}, "createdAt":'
    ' {"type": "string", "format": "datetime"}, "number": {"type": "integer"}}}}}}'
)
CREATE = "select from sync.create_view($1, 'com.example.note', $2, null, $3)"
INDEXES = """
    select c.relname as name, i.indisvalid as is_valid
      from pg_index i join pg_class c on c.oid = i.indexrelid
     where i.indrelid = 'sync.stored_records'::regclass and c.relname like 'records\\_%'
     order by 1
"""
STEPS = "select count(*) from sync.index_steps()"
LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


@pytest.fixture
async def rig(clone: str, tmp_path: Path) -> AsyncIterator[Rig]:
    async with Simnet() as net, rig_on(net, clone, tmp_path) as rig:
        yield rig


async def has_every_index(rig: Rig) -> bool:
    return await rig.conn.fetchval(STEPS) == 0


async def indexes(conn: Any) -> dict[str, bool]:
    return {row["name"]: row["is_valid"] for row in await conn.fetch(INDEXES)}


async def test_indexes_come_and_go_with_the_views_that_ask_for_them(rig: Rig) -> None:
    rig.start()
    await rig.conn.execute(CREATE, "notes", LEXICON, ["text", "created_at"])
    await rig.until(lambda: has_every_index(rig))
    assert len(await indexes(rig.conn)) == 3
    await rig.conn.execute(CREATE, "more", None, ["text", "number"])
    await rig.until(lambda: has_every_index(rig))
    assert len(await indexes(rig.conn)) == 4
    await rig.conn.execute("select sync.drop_view('notes')")
    await rig.until(lambda: has_every_index(rig))
    assert len(await indexes(rig.conn)) == 3
    await rig.conn.execute("select sync.drop_view('more')")
    await rig.until(lambda: has_every_index(rig))
    assert await indexes(rig.conn) == {}


async def test_ingest_goes_on_while_an_index_waits_for_an_old_transaction(rig: Rig) -> None:
    alice = rig.net.create_account("alice.test", records={f"{NOTE}/a": {"$type": NOTE}})
    await rig.track(alice)
    rig.start()
    await rig.level(alice)
    old = await asyncpg.connect(rig.settings.database_url)
    try:
        async with old.transaction(isolation="repeatable_read"):
            # An app that reads, and then idles: CREATE INDEX CONCURRENTLY waits for it.
            await old.fetch("select count(*) from sync.records")
            await rig.conn.execute(CREATE, "notes", LEXICON, ["text"])

            async def is_building() -> bool:
                return bool(
                    await rig.conn.fetchval("select count(*) from pg_stat_progress_create_index")
                )

            await rig.until(is_building)
            for number in range(20):
                alice.create(NOTE, {"$type": NOTE, "text": f"while it waits {number}"})
            await rig.level(alice)
            assert not await has_every_index(rig)
    finally:
        await old.close()
    await rig.until(lambda: has_every_index(rig))
    shown = await rig.conn.fetchval("select count(*) from sync_views.notes where text is not null")
    assert shown == 20


async def test_no_value_makes_an_insert_fail_for_an_index(rig: Rig) -> None:
    columns = ["text", "created_at", "number"]
    await rig.conn.execute(CREATE, "notes", LEXICON, columns)
    assert await build_indexes(str(rig.settings.database_url))
    assert await has_every_index(rig)
    hostile: list[dict[str, Any]] = [
        {"text": "x" * 100_000},
        {"text": os.urandom(50_000).hex()},
        {"text": {"deep": ["x" * 100_000]}},
        {"createdAt": "infinity"},
        {"createdAt": "9999-12-31T23:59:59-23:59"},
        {"createdAt": "0000-01-01T00:00:00Z"},
        {"createdAt": "2026-02-30T00:00:00Z"},
        {"createdAt": "2026-01-31T00:00:00." + "9" * 40 + "Z"},
        {"createdAt": "x" * 100_000},
        {"createdAt": 5, "number": "5", "text": None},
        {"number": 2**63 - 1},
        {"number": -(2**63)},
        {"number": [1]},
    ]
    records = {f"{NOTE}/r{n}": {"$type": NOTE, **value} for n, value in enumerate(hostile)}
    alice = rig.net.create_account("alice.test", records=records)
    await rig.track(alice)
    rig.start()
    await rig.level(alice)
    for value in hostile:
        alice.create(NOTE, {"$type": NOTE, **value})
    await rig.level(alice)
    assert await rig.problems() == {}
    assert await rig.conn.fetchval("select count(*) from sync_views.notes") == 2 * len(hostile)


async def test_an_index_whose_backend_was_killed_is_made_anew(tmp_path: Path) -> None:
    """SIGKILL of one backend has PostgreSQL restart all of them; so it is a server of its own."""
    settings = {"synchronous_commit": "on"}
    with running_server(tmp_path / "data", chosen_binaries(), settings=settings) as server:
        server.make_template()
        with server.database(template=TEMPLATE) as name:
            await _kill_while_building(server.service_url(name), tmp_path)


async def _kill_while_building(url: str, folder: Path) -> None:
    async with Simnet() as net, rig_on(net, url, folder) as rig:
        records = {f"{NOTE}/a": {"$type": NOTE, "text": "a"}}
        alice = net.create_account("alice.test", records=records)
        await rig.track(alice)
        await _kill_builder(rig, url)
        rig.conn = await _connect_again(url)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(rig.conn.close)
            assert False in (await indexes(rig.conn)).values()
            rig.start()
            await rig.until(lambda: has_every_index(rig))
            assert list((await indexes(rig.conn)).values()) == [True, True]
            alice.create(NOTE, {"$type": NOTE, "text": "b"})
            await rig.level(alice)
            await rig.stop()


async def _kill_builder(rig: Rig, url: str) -> None:
    """Kill the backend that builds an index, while that waits for an old transaction."""
    await rig.conn.execute(CREATE, "notes", LEXICON, ["text"])
    old = await asyncpg.connect(url)
    await old.execute("begin isolation level repeatable read")
    await old.fetch("select count(*) from sync.records")
    building = asyncio.create_task(build_indexes(url))

    async def builder() -> int | None:
        pid: int | None = await rig.conn.fetchval(
            "select pid from pg_stat_progress_create_index where phase like 'waiting for%'"
        )
        return pid

    os.kill(await rig.until(builder), signal.SIGKILL)
    with pytest.raises(LOST):
        await building
    # The postmaster may take notice a moment later, and ends whoever has come by then.
    with pytest.raises(LOST):
        while True:
            await old.execute("select")
            await asyncio.sleep(POLL_S)
    old.terminate()
    rig.conn.terminate()


async def _connect_again(url: str) -> Any:
    """Connect once the server has recovered."""
    for _ in range(600):
        try:
            return await asyncpg.connect(url)
        except (OSError, asyncpg.PostgresError):
            await asyncio.sleep(0.05)
    raise AssertionError("the server does not come back")
