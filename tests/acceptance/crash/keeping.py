"""An app's table that a projection keeps, and a count beside it: right after every kill.

The table is strict: a record that comes twice or goes twice is an error, which stops it.
"""

import asyncpg

from sync.cli.demo.fold import Key

SETUP = """
    create schema app;
    create table app.kept (
      did text collate "C", collection text collate "C", rkey text collate "C", cid text not null,
      primary key (did, collection, rkey));
    create table app.counted (collection text collate "C" primary key, number bigint not null);
    create function app.count() returns trigger language plpgsql set search_path = app, pg_temp
    as $$
    begin
      insert into counted as c
      select t.collection, count(*) * case tg_op when 'INSERT' then 1 else -1 end
        from touched t group by 1 order by 1
          on conflict (collection) do update set number = c.number + excluded.number;
      return null;
    end $$;
    create trigger come after insert on app.kept referencing new table as touched
      for each statement execute function app.count();
    create trigger gone after delete on app.kept referencing old table as touched
      for each statement execute function app.count();
    create function app.apply_kept(target regclass, changes sync.change[])
      returns void language plpgsql security definer set search_path = app, pg_temp
    as $$
    begin
      if target = 'app.kept'::regclass and exists (
        select from unnest(changes) c left join kept k using (did, collection, rkey)
         where c.op = 'delete' and k.cid is null) then
        raise exception 'a record goes twice';
      end if;
      execute format($q$
        delete from %s t using unnest($1) c
         where c.op in ('purge', 'delete') and t.did = coalesce(c.did, t.did)
           and t.collection = coalesce(c.collection, t.collection)
           and t.rkey = coalesce(c.rkey, t.rkey) $q$, target) using changes;
      execute format($q$
        insert into %s select c.did, c.collection, c.rkey, c.cid from unnest($1) c
         where c.op = 'put'
            on conflict (did, collection, rkey) do update set cid = excluded.cid $q$, target)
        using changes;
    end $$;
    revoke execute on function app.apply_kept from public;
    grant usage on schema app to sync_ingester;
    grant execute on function app.apply_kept to sync_ingester;
    select sync.create_projection('kept', 'app.kept', null,
                                  'app.apply_kept(regclass, sync.change[])')
"""
PROJECTION = "kept"
RUN = "select sync.run_projection($1, $2)"
STATUS = "select * from sync.projection_status where name = $1"
KEPT = "select did, collection, rkey, cid from app.kept"
COUNTED = "select collection, number from app.counted where number <> 0 order by 1"
COUNTED_ANEW = "select collection, count(*) from app.kept group by 1 order by 1"
MAX_CHANGES = 200


async def run_to_rest(
    conn: "asyncpg.Connection[asyncpg.Record]", projection: str = PROJECTION
) -> None:
    """Apply whatever is left, beside the service if that is there."""
    while True:
        await conn.fetchval(RUN, projection, MAX_CHANGES)
        status = await conn.fetchrow(STATUS, projection)
        assert status is not None
        assert status["state"] == "running", (status["error"], status["error_key"])
        if status["is_at_rest"]:
            return


async def kept(conn: "asyncpg.Connection[asyncpg.Record]") -> dict[Key, str]:
    """Return what the table holds; the count beside it has to agree."""
    rows = await conn.fetch(KEPT)
    assert await conn.fetch(COUNTED) == await conn.fetch(COUNTED_ANEW)
    return {(row["did"], row["collection"], row["rkey"]): row["cid"] for row in rows}
