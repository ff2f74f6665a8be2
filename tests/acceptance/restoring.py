"""A service, and an app beside it, in a database that is backed up while both work.

The app keeps a diary: tables of its own, fed by `sync.read_changes()` in its own transactions by
a function that takes no row on trust. What is restored must be one moment of all of it.
"""

import asyncio
import contextlib
import os
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from sync.atproto.cid import format_cid
from sync.database import connect_sync, psycopg_settings
from sync.embedded import Binaries
from sync.simnet import Account, Simnet
from sync.simnet.traffic import Traffic, generate
from tests.acceptance.commands import PROGRAM, clean_environment

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "backup.md"
TIMEOUT_S = 120.0
POLL_S = 0.02
ACCOUNTS, RECORDS = 8, 120

Key = tuple[str, str, str]

DIARY = """
    create table diary.entries (did text collate "C", collection text collate "C",
      rkey text collate "C", cid text not null, primary key (did, collection, rkey));
    create table diary.marks (mark text);
    create table diary.totals (collection text primary key, entries bigint not null);
    create function diary.write(p_limit int) returns bigint language plpgsql as $$
    declare
      v_row  record;
      v_rows bigint := 0;
    begin
      for v_row in select * from sync.read_changes('diary', p_limit) loop
        v_rows := v_rows + 1;
        if v_row.kind = 'create' then
          insert into diary.entries values (v_row.did, v_row.collection, v_row.rkey, v_row.cid);
          insert into diary.totals as t values (v_row.collection, 1)
              on conflict (collection) do update set entries = t.entries + 1;
        elsif v_row.kind in ('update', 'delete') then
          if v_row.kind = 'update' then
            update diary.entries e set cid = v_row.cid
             where (e.did, e.collection, e.rkey) = (v_row.did, v_row.collection, v_row.rkey);
          else
            delete from diary.entries e
             where (e.did, e.collection, e.rkey) = (v_row.did, v_row.collection, v_row.rkey);
          end if;
          if not found then
            raise exception '% of an entry that is not there: %', v_row.kind, v_row;
          end if;
          update diary.totals t set entries = t.entries - 1
           where v_row.kind = 'delete' and t.collection = v_row.collection;
        elsif v_row.kind = 'purge' then
          with gone as (
            delete from diary.entries e
             where e.did = coalesce(v_row.did, e.did)
               and e.collection = coalesce(v_row.collection, e.collection)
            returning e.collection
          )
          update diary.totals t set entries = t.entries - g.n
            from (select collection, count(*) as n from gone group by collection) g
           where t.collection = g.collection;
        end if;
      end loop;
      return v_rows;
    end $$;
    select sync.create_consumer('diary');
"""
LOG = """
    select change_id, kind, did, collection, rkey, cid from sync.change_log order by change_id
"""
STATES = "select did, sync_state, rev, attempts, error, held_events from sync.repo_status"


@dataclass(frozen=True, slots=True)
class Block:
    """One block of code of the page."""

    language: str
    text: str


def blocks(heading: str) -> list[Block]:
    """Return the blocks of code under a heading of the how-to."""
    section = re.search(
        rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert section is not None, heading
    found = re.findall(r"^```(\w+)[^\n]*\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)
    return [Block(*each) for each in found]


async def run_block(block: Block, folder: Path, environ: dict[str, str], **instead: str) -> str:
    """Run commands of the page, with our names for its examples; they must succeed."""
    script = put(block, **instead)
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        script,
        cwd=folder,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        told, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, f"{script}\n{told.decode()}"
    return told.decode()


def put(block: Block, **instead: str) -> str:
    """Return a block with our values in the place of the page's examples; all must be there."""
    text = block.text
    for example, value in instead.items():
        assert example in text, (example, text)
        text = text.replace(example, value)
    return text


def shell_environment(programs: Binaries, **environment: str) -> dict[str, str]:
    """Return what a reader's shell has: PostgreSQL's programs, ours, and these settings."""
    path = f"{PROGRAM.parent}:{programs.folder}:{os.environ['PATH']}"
    return clean_environment(PATH=path, **environment)


class Site:
    """One database of the story: a service that fills it, an app that reads, and what they see."""

    def __init__(self, net: Simnet, url: str, folder: Path) -> None:
        self.net = net
        self.url = url
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        self._log = folder / "service.log"
        self._process: asyncio.subprocess.Process | None = None
        self._app: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the service as a user would."""
        environment = clean_environment(
            STANDPIPE_DATABASE_URL=self.url,
            STANDPIPE_DATA_DIR=str(self.folder / "data"),
            STANDPIPE_RELAY_URL=self.net.relay_http_url,
            STANDPIPE_PLC_URL=self.net.plc_url,
            STANDPIPE_HANDLE_BASE_URLS=",".join(self.net.pds_urls),
            STANDPIPE_ALLOW_PRIVATE_HOSTS="true",
        )
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                PROGRAM, "run", env=environment, cwd=self.folder, stdout=log, stderr=log
            )

    def start_app(self, *, seed: int) -> None:
        """Start the app, which reads in batches of any size and sometimes changes its mind."""
        self._app = asyncio.create_task(self._keep_diary(random.Random(seed)))

    async def _keep_diary(self, rng: random.Random) -> None:
        while True:
            try:
                await self._read_on(rng)
            except psycopg.OperationalError:  # the server is gone, until a successor is there
                await asyncio.sleep(POLL_S)

    async def _read_on(self, rng: random.Random) -> None:
        settings = psycopg_settings(self.url, name="diary", role="diary")
        async with await psycopg.AsyncConnection.connect(self.url, **settings) as conn:
            while True:
                limit = rng.choice([1, 7, 40, 300])
                found = await conn.execute("select diary.write(%s)", [limit])
                [rows] = await found.fetchone() or [0]
                if rng.random() < 0.1:
                    await conn.rollback()
                else:
                    await conn.commit()
                if not rows:
                    await asyncio.sleep(POLL_S)

    async def end_app(self) -> None:
        """End the app; whatever it complained of is raised here."""
        task, self._app = self._app, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def stop(self) -> None:
        """End app and service properly; the service drains and exits 0."""
        await self.end_app()
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            assert await asyncio.wait_for(process.wait(), TIMEOUT_S) == 0, self.service_log()

    async def aclose(self) -> None:
        """Leave nothing running, whatever happened."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._app is not None:
            self._app.cancel()
            await asyncio.gather(self._app, return_exceptions=True)

    def session(self) -> psycopg.Connection[DictRow]:
        """Open a connection that sees one moment, whatever goes on."""
        conn = psycopg.connect(self.url, row_factory=dict_row)
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return conn

    async def until(self, query: str, *parameters: Any) -> Any:
        """Wait until a query answers with something true, and return that."""

        async def ask() -> Any:
            with connect_sync(self.url, name="test question", autocommit=True) as conn:
                row = conn.execute(query.encode(), parameters).fetchone()
            return row and next(iter(row.values()))

        return await self.until_true(ask, query)

    async def until_true(self, ask: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Wait until a question is answered with something true; nobody may fall meanwhile."""
        deadline = asyncio.get_running_loop().time() + TIMEOUT_S
        while not (answer := await ask()):
            if self._app is not None and self._app.done():
                self._app.result()
            fell = self._process is not None and self._process.returncode is not None
            if fell or asyncio.get_running_loop().time() > deadline:
                pytest.fail(f"never: {what}\n{self.rows(STATES)}\n{self.service_log()}")
            await asyncio.sleep(POLL_S)
        return answer

    async def converge(self, accounts: list[Account]) -> None:
        """Wait until service and app are level with the network; then everything is equal."""
        dids = [account.did for account in accounts]

        async def is_level() -> bool:
            query = (
                "select did, rev from sync.repo_status"
                " where sync_state = 'synchronized' and did = any (%s)"
            )
            heads = {row["did"]: row["rev"] for row in self.rows(query, dids)}
            return heads == {account.did: account.rev for account in accounts} and all(
                row["is_at_rest"] for row in self.rows("select * from sync.consumer_status")
            )

        await self.until_true(is_level, "level with the network")
        expected = signed(accounts)
        assert self.entries("sync.records") == expected
        assert self.entries("diary.entries") == expected
        assert self.totals_are_right()

    def rows(self, query: str, *parameters: Any) -> list[DictRow]:
        """Run one query."""
        with connect_sync(self.url, name="test question", autocommit=True) as conn:
            return conn.execute(query.encode(), parameters).fetchall()

    def entries(self, table: str) -> dict[Key, str]:
        """Return the records or the diary."""
        rows = self.rows(f"select did, collection, rkey, cid from {table}")
        return {(row["did"], row["collection"], row["rkey"]): row["cid"] for row in rows}

    def totals_are_right(self) -> bool:
        """Tell whether the app's counters are those of its entries."""
        return not self.rows(
            "select from diary.totals t where t.entries <>"
            " (select count(*) from diary.entries e where e.collection = t.collection)"
        )

    def service_log(self) -> str:
        """Return the end of what the service said."""
        return self._log.read_bytes()[-5000:].decode(errors="replace") if self._log.exists() else ""


def make_app(url: str, admin_url: str) -> None:
    """Make the app's role and tables; the service's login may read and restore them."""
    with psycopg.connect(admin_url, autocommit=True) as admin:
        if not admin.execute("select 1 from pg_roles where rolname = 'diary'").fetchone():
            admin.execute("create role diary nologin")
        admin.execute("grant sync_reader to diary")
        admin.execute("grant diary to standpipe")
        admin.execute("create schema diary authorization diary")
    with connect_sync(url, name="test app", role="diary") as conn:
        conn.execute(DIARY.encode())


class Story:
    """A network that never rests, and the site that is backed up."""

    def __init__(self, net: Simnet, site: Site, *, seed: int) -> None:
        self.net = net
        self.site = site
        self.rng = random.Random(seed)
        self.accounts = generate(net.world, ACCOUNTS, RECORDS)
        self._traffic = Traffic(net.world, seed=seed)
        self._writer: asyncio.Task[None] | None = None

    def track(self) -> None:
        """Track every account."""
        self.site.rows("select sync.track_repos(%s)", [one.did for one in self.accounts])

    def start_traffic(self) -> None:
        """Let everybody write all the time."""

        async def write() -> None:
            while True:
                self._traffic.step()
                await asyncio.sleep(self.rng.uniform(0.0, 0.01))

        self._writer = asyncio.create_task(write())

    async def end_traffic(self) -> None:
        """Let nobody write any more."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)


def signed(accounts: list[Account]) -> dict[Key, str]:
    """Return what the accounts really hold."""
    found = {}
    for account in accounts:
        for path, cid in account.leaves().items():
            collection, _, rkey = path.partition("/")
            found[account.did, collection, rkey] = format_cid(cid)
    return found


def check_moment(site: Site) -> dict[str, Any]:
    """Check, before anybody works there, that a restored database is one moment of everything.

    The diary as it stands, and the log from its position on, must be what the records say, on
    every key that the diary knows of. Written anew here, so that it does not rest on the
    functions it checks. Returns what the moment was like.
    """
    with site.session() as conn:
        shard = _one(conn, "select * from sync_priv.consumer_shards")
        pending = conn.execute(
            "select r.did, c.nsid, p.after_rkey from sync_priv.consumer_pending p"
            " join sync.repos r using (repo_id) left join sync.collections c using (collection_id)"
        ).fetchall()
        beyond = conn.execute(
            "select did from sync.repos where repo_id > %s", [shard["frontier"]]
        ).fetchall()
        unknown = [(row["did"], row["nsid"], row["after_rkey"]) for row in pending]
        unknown += [(row["did"], None, "") for row in beyond]
        log = [tuple(row.values()) for row in conn.execute(LOG.encode()).fetchall()]
        diary = _entries(conn, "diary.entries")
        records = _entries(conn, "sync.records")
        late = [row for row in log if row[0] > shard["position"]]
        _follow(diary, late, unknown)
        known = {key: cid for key, cid in records.items() if not _is_in(key, unknown)}
        assert diary == known
        # Every position the diary has is one the log has, too.
        assert shard["position"] <= max([row[0] for row in log], default=0)
        state = _one(conn, "select * from sync.status")
    assert site.totals_are_right()
    return {**state, "late": len(late), "unknown": len(unknown), "records": len(records)}


def _follow(
    diary: dict[Key, str], log: list[tuple[Any, ...]], unknown: list[tuple[str, Any, str]]
) -> None:
    """Apply the log to a diary, strictly, except for what it does not know of yet."""
    for _, kind, did, collection, rkey, cid in log:
        key = (did, collection, rkey)
        if kind == "snapshot":
            unknown.append((did, collection, ""))
        elif kind == "purge":
            for gone in [k for k in diary if did in (None, k[0]) and collection in (None, k[1])]:
                del diary[gone]
        elif kind in {"create", "update", "delete"} and not _is_in(key, unknown):
            assert (key in diary) == (kind != "create"), (kind, key)
            if kind == "delete":
                del diary[key]
            else:
                diary[key] = cid


def _is_in(key: Key, unknown: list[tuple[str, Any, str]]) -> bool:
    return any(
        key[0] == did and nsid in (None, key[1]) and key[2] > after for did, nsid, after in unknown
    )


def _entries(conn: psycopg.Connection[DictRow], table: str) -> dict[Key, str]:
    rows = conn.execute(f"select did, collection, rkey, cid from {table}".encode()).fetchall()
    return {(row["did"], row["collection"], row["rkey"]): row["cid"] for row in rows}


def _one(conn: psycopg.Connection[DictRow], query: str) -> dict[str, Any]:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row


def positions(site: Site) -> dict[str, tuple[Any, ...]]:
    """Return what stands at every position of the log, as readers outside are told it."""
    rows = site.rows("select position, kind, did, collection, rkey, cid from sync.change_log")
    return {row.pop("position"): tuple(row.values()) for row in rows}
