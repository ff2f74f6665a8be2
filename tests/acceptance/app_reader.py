"""An app that keeps a table of its own from the change log, exactly once, on any server trouble.

What it reads, what it writes and its counter are one transaction. It is strict: a `create` must be
new, an `update` or `delete` must exist; anything else ends it with an error.
"""

import asyncio
from typing import Any

import asyncpg

NAME = "app reader"
BATCH = 40
PAUSE_S = 0.02

SETUP = """
    create schema app;
    create table app.records (did text, collection text, rkey text, cid text,
                              primary key (did, collection, rkey));
    create table app.counters (held bigint not null, told bigint not null);
    insert into app.counters values (0, 0);
    create function app.fold(p_max int) returns bigint language plpgsql as $$
    declare
      v_row   record;
      v_count bigint;
      v_held  bigint := 0;
      v_told  bigint := 0;
    begin
      for v_row in select * from sync.read_changes('app', p_max) loop
        v_told := v_told + 1;
        if v_row.kind = 'create' then
          insert into app.records values (v_row.did, v_row.collection, v_row.rkey, v_row.cid);
          v_held := v_held + 1;
        elsif v_row.kind = 'update' then
          update app.records r set cid = v_row.cid
           where (r.did, r.collection, r.rkey) = (v_row.did, v_row.collection, v_row.rkey);
          assert found, format('update of %s', v_row);
        elsif v_row.kind = 'delete' then
          delete from app.records r
           where (r.did, r.collection, r.rkey) = (v_row.did, v_row.collection, v_row.rkey);
          assert found, format('delete of %s', v_row);
          v_held := v_held - 1;
        elsif v_row.kind = 'purge' then
          delete from app.records r
           where coalesce(v_row.did, r.did) = r.did
             and coalesce(v_row.collection, r.collection) = r.collection;
          get diagnostics v_count = row_count;
          v_held := v_held - v_count;
        end if;
      end loop;
      update app.counters set held = held + v_held, told = told + v_told;
      return v_told;
    end $$;
    select sync.create_consumer('app')
"""
DIFFERENCE = """
    select count(*) from (select did, collection, rkey, cid from app.records) a
      full join (select did, collection, rkey, cid from sync.records) r
        using (did, collection, rkey, cid)
     where a is null or r is null
"""

_TROUBLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection cut in mid-conversation can end in
)
_OURS = (asyncpg.IntegrityConstraintViolationError, asyncpg.AssertError)


class AppReader:
    """Reads for ever; connects again whenever the server or its own backend is gone."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.connects = 0
        self.commits = 0
        self._is_held = False
        self._arrived = asyncio.Event()
        self._released = asyncio.Event()

    async def run(self) -> None:
        """Read until cancelled; a lie of the log is the only error that gets out."""
        while True:
            try:
                conn = await asyncpg.connect(
                    self._url, timeout=5, server_settings={"application_name": NAME}
                )
                self.connects += 1
                try:
                    while True:
                        await self._step(conn)
                finally:
                    conn.terminate()
            except _OURS:
                raise
            except _TROUBLE:
                await asyncio.sleep(PAUSE_S)

    async def hold(self) -> None:
        """Return when the reader has folded something and has not committed it yet."""
        self._arrived.clear()
        self._released.clear()
        self._is_held = True
        await asyncio.wait_for(self._arrived.wait(), 60)

    def release(self) -> None:
        """Let it go on, whatever became of its connection."""
        self._is_held = False
        self._released.set()

    async def _step(self, conn: Any) -> None:
        async with conn.transaction():
            count = await conn.fetchval("select app.fold($1)", BATCH)
            if count and self._is_held:
                self._arrived.set()
                await self._released.wait()
        self.commits += 1
        if not count:
            await asyncio.sleep(PAUSE_S)
