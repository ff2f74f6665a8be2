"""An app keeps its own tables while accounts are switched off, taken down, and come back.

The app is a login of its own with nothing but `sync_reader`. It follows in its own transactions,
strictly (what is created must be new, what changes must be there), a few changes at a time, and
now and then rolls back what it has done.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from sync.atproto.cid import format_cid
from sync.simnet import Account, Simnet
from tests.integration.rig import LIKE, NOTE, POLL_S, Rig, note, rig_on
from tests.postgres import Server

pytestmark = pytest.mark.timeout(120)

TABLES = """
    create table follower.copy (did text, path text, cid text, primary key (did, path));
    create table follower.totals (did text primary key, records int not null);
    create table follower.standing (did text primary key, active boolean, status text);
"""


class RolledBack(Exception):
    """The app changed its mind."""


class App:
    """A process that follows the log into tables of its own."""

    def __init__(self, conn: Any, *, seed: int) -> None:
        self.conn = conn
        self._rng = random.Random(seed)

    async def follow(self) -> None:
        """Read and apply for ever."""
        while True:
            with suppress(RolledBack):
                async with self.conn.transaction():
                    rows = await self.conn.fetch("select * from sync.read_changes('follower', 3)")
                    for row in rows:
                        await self._apply(row)
                    if self._rng.random() < 0.3:
                        raise RolledBack
                if not rows:
                    await asyncio.sleep(POLL_S)

    async def _apply(self, row: asyncpg.Record) -> None:
        path = f"{row['collection']}/{row['rkey']}"
        match row["kind"]:
            case "create":
                query = "insert into follower.copy values ($1, $2, $3)"
                await self._one(query, row["did"], path, row["cid"])
                await self._count(row["did"], 1)
            case "update":
                query = "update follower.copy set cid = $3 where did = $1 and path = $2"
                await self._one(query, row["did"], path, row["cid"])
            case "delete":
                query = "delete from follower.copy where did = $1 and path = $2"
                await self._one(query, row["did"], path)
                await self._count(row["did"], -1)
            case "purge":
                await self.conn.execute("delete from follower.copy where did = $1", row["did"])
                await self.conn.execute("delete from follower.totals where did = $1", row["did"])
            case "account":
                await self.conn.execute(
                    "insert into follower.standing select $1, (v ->> 'active')::bool,"
                    " v ->> 'status' from (select $2::jsonb as v) v on conflict (did) do update"
                    " set active = excluded.active, status = excluded.status",
                    row["did"],
                    row["value"],
                )

    async def _one(self, query: str, *args: object) -> None:
        """Run a statement that has to find exactly one row."""
        assert (await self.conn.execute(query, *args)).endswith(" 1"), args

    async def _count(self, did: str, step: int) -> None:
        await self.conn.execute(
            "insert into follower.totals as t values ($1, $2)"
            " on conflict (did) do update set records = t.records + excluded.records",
            did,
            step,
        )


@pytest.fixture
def follower_url(postgres: Server, clone: str) -> Iterator[str]:
    """Return the URL of an app's login that is a member of sync_reader and has a schema."""
    name = clone.rpartition("/")[2]
    postgres.administer(
        sql.SQL("create role follower login password 'app' in role sync_reader"),
        sql.SQL("grant create on database {} to follower").format(sql.Identifier(name)),
    )
    yield make_conninfo(clone, user="follower", password="app")
    with psycopg.connect(postgres.admin_url(name), autocommit=True) as admin:
        admin.execute("drop owned by follower cascade")
        admin.execute("drop role follower")


class Stage:
    """The network, the service and the app at once."""

    def __init__(self, net: Simnet, rig: Rig, task: asyncio.Task[None]) -> None:
        self.net, self.rig, self.task = net, rig, task
        self.seen = 0

    async def copy_is(self, expected: dict[str, dict[str, str]]) -> bool:
        """Tell whether the app holds exactly this, and its counters say the same."""
        if self.task.done():
            self.task.result()
        async with self.rig.conn.transaction(isolation="repeatable_read"):
            rows = await self.rig.conn.fetch("select did, path, cid from follower.copy")
            totals = await self.rig.conn.fetch(
                "select did, records from follower.totals where records <> 0"
            )
        copy: dict[str, dict[str, str]] = {}
        for row in rows:
            copy.setdefault(row["did"], {})[row["path"]] = row["cid"]
        assert {row["did"]: row["records"] for row in totals} == {
            did: len(records) for did, records in copy.items()
        }
        return copy == expected

    async def settled(self, *shown: Account) -> None:
        """Wait until the views and the app show these accounts as they are, and nobody else."""
        expected = {
            one.did: {path: format_cid(cid) for path, cid in one.leaves().items()} for one in shown
        }
        await self.rig.until(partial(self.copy_is, expected))
        rows = await self.rig.conn.fetch("select distinct did from sync.records")
        assert {row["did"] for row in rows} == set(expected)

    async def standing(self, account: Account) -> tuple[bool, str | None]:
        """Return what the app was told last of an account."""
        row = await self.rig.conn.fetchrow(
            "select active, status from follower.standing where did = $1", account.did
        )
        return row["active"], row["status"]

    async def logged(self, account: Account) -> list[str]:
        """Return the kinds that the log got of an account since the last call."""
        rows = await self.rig.conn.fetch(
            "select c.kind, c.change_id from sync.changes c join sync.repos r using (repo_id)"
            " where r.did = $1 and c.change_id > $2 order by c.change_id",
            account.did,
            self.seen,
        )
        self.seen = await self.rig.conn.fetchval("select max(change_id) from sync.changes")
        return [row["kind"] for row in rows]


@asynccontextmanager
async def staged(net: Simnet, rig: Rig, app_url: str, *accounts: Account) -> AsyncIterator[Stage]:
    """Run service and app until the end; the accounts are tracked and copied."""
    parts = dict(part.split("=") for part in app_url.split())
    conn = await asyncpg.connect(
        host=parts["host"], port=int(parts["port"]), user=parts["user"],
        password=parts["password"], database=parts["dbname"],
    )  # fmt: skip
    try:
        await conn.execute("create schema follower")
        await conn.execute("grant usage on schema follower to public")
        await conn.execute(TABLES)
        await conn.execute("grant select on all tables in schema follower to public")
        await conn.execute("select sync.create_consumer('follower')")
        task = asyncio.create_task(App(conn, seed=7).follow())
        try:
            rig.start()
            await rig.track(*accounts)
            await rig.level(*accounts)
            stage = Stage(net, rig, task)
            await stage.settled(*accounts)
            stage.seen = await rig.last_change()
            yield stage
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    finally:
        await conn.close()


@pytest.mark.rule("AC-01", "AC-03", "AC-04", "AC-05", "AC-06", "AC-07", "AC-15")
async def test_an_app_follows_accounts_that_go_and_come_back(
    clone: str, follower_url: str, tmp_path: Path
) -> None:
    async with Simnet(seed=41, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice, bob = net.create_account("alice.test"), net.create_account("bob.test")
        for one in (alice, bob):
            one.create(NOTE, note("one"), rkey="a")
            one.create(LIKE, {"$type": LIKE, "subject": "x"}, rkey="b")
        async with staged(net, rig, follower_url, alice, bob) as stage:
            # Its owner switches it off, and on again.
            alice.deactivate()
            await stage.settled(bob)
            assert await stage.standing(alice) == (False, "deactivated")
            assert await stage.logged(alice) == ["account", "purge"]
            alice.activate()
            alice.create(NOTE, note("back"), rkey="c")
            await rig.level(alice)
            await stage.settled(alice, bob)
            assert await stage.standing(alice) == (True, None)
            shown = await stage.logged(alice)
            assert shown == ["account", "snapshot", "snapshot", "create"]
            # Its host takes it down, and so do we; the host relents first.
            alice.take_down()
            await stage.settled(bob)
            assert await stage.standing(alice) == (False, "takendown")
            assert await stage.logged(alice) == ["account", "purge"]
            await rig.conn.execute("select sync.take_down_repos($1)", [alice.did])
            alice.restore()
            alice.create(NOTE, note("hidden here"), rkey="d")
            alice.update(NOTE, note("changed"), rkey="a")
            await rig.until(partial(head_is_current, rig, alice))
            alice.create(NOTE, note("live, and hidden here"), rkey="e")
            await rig.until(partial(head_is_current, rig, alice))
            bob.create(NOTE, note("meanwhile"), rkey="c")
            await stage.settled(bob)
            assert await stage.logged(alice) == []
            await rig.conn.execute("select sync.restore_repos($1)", [alice.did])
            await stage.settled(alice, bob)
            assert await stage.logged(alice) == ["account", "snapshot", "snapshot"]
            # The other one is deleted for good; sync of the first goes on.
            bob.delete_account()
            alice.delete(NOTE, "d")
            await stage.settled(alice)
            assert await stage.standing(bob) == (False, "deleted")
            await rig.stop()


async def head_is_current(rig: Rig, account: Account) -> bool:
    """Tell whether the stored head is the network's, shown or not."""
    return await rig.state(account) == "synchronized" and await rig.head(account) == account.rev
