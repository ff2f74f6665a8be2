"""Time how fast a table of an app is kept, beside one INSERT … SELECT of the same rows."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg

from bench.report import Figure

BATCH = 1_000
CHANGED_SHARE = 0.01
_SETUP = """
    create schema bench_app;
    create table bench_app.posts (
      did text collate "C", rkey text collate "C", text text, primary key (did, rkey));
    create table bench_app.plain (like bench_app.posts including all);
    create function bench_app.apply_posts(target regclass, changes sync.change[])
      returns void language plpgsql security definer set search_path = bench_app, pg_temp
    as $$
    begin
      execute format($q$
        delete from %s t using unnest($1) c where c.op = 'purge' and c.did = t.did
      $q$, target) using changes;
      execute format($q$
        delete from %s t using unnest($1) c
         where c.op = 'delete' and (c.did, c.rkey) = (t.did, t.rkey)
      $q$, target) using changes;
      execute format($q$
        insert into %s select c.did, c.rkey, c.value ->> 'text' from unnest($1) c
         where c.op = 'put' on conflict (did, rkey) do update set text = excluded.text
      $q$, target) using changes;
    end $$;
    grant usage on schema bench_app to sync_ingester;
    select sync.create_projection('bench', 'bench_app.posts', '{app.bsky.feed.post}',
                                  'bench_app.apply_posts(regclass, sync.change[])')
"""
_TEARDOWN = "select sync.drop_projection('bench'); drop schema bench_app cascade"
_RUN = "select sync.run_projection('bench', $1)"
_PLAIN = """
    insert into bench_app.plain
    select did, rkey, value ->> 'text' from sync.records where collection = 'app.bsky.feed.post'
"""
_ROWS = "select count(*) from bench_app.posts"


async def projection_figures(
    url: str, change: Callable[[int], Awaitable[Any]]
) -> AsyncIterator[Figure]:
    """Keep every stored post, then those that `change` adds; each a transaction a batch."""
    conn = await asyncpg.connect(url)
    try:
        await conn.execute(_SETUP)
        whole = await _run(conn)
        rows = await conn.fetchval(_ROWS)
        started_at = time.perf_counter()
        await conn.execute(_PLAIN)
        plain = rows / (time.perf_counter() - started_at)
        await change(int(rows * CHANGED_SHARE))
        part = await _run(conn)
        ceiling = "INSERT … SELECT of all of them"
        yield Figure("projection, 100 % changed", whole, "rows/s", plain, ceiling)
        yield Figure("projection, 1 % changed", part, "rows/s", plain, ceiling)
        started_at = time.perf_counter()
        await conn.fetch("select * from sync.rebuild_projection('bench')")
        rebuilt = rows / (time.perf_counter() - started_at)
        yield Figure("projection, rebuilt with no difference", rebuilt, "rows/s", plain, ceiling)
        await conn.execute(_TEARDOWN)
    finally:
        await conn.close()


async def _run(conn: Any) -> float:
    """Apply what there is; return rows a second."""
    count, started_at = 0, time.perf_counter()
    while done := await conn.fetchval(_RUN, BATCH):
        count += done
    return count / (time.perf_counter() - started_at)
