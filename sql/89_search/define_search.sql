-- Make the functions of a search, or make them anew: what turns a record into a text, what its
-- projection calls, and what finds. Their names begin with its own.
--
-- They are generated, as they name a table and a type that is there only when a search is; so
-- that a reader's call runs no composed SQL with our rights. Who finds is shown visible records
-- only, as they are stored now: the table itself follows a moment later.
--
-- The table is read in the order of the distance, and each row is looked up; a limit that is
-- the lookup's own keeps the two from being joined in another way.
--
-- Called by: sync.enable_search(), and every upgrade by way of sync_priv.define_searches().
create or replace function sync_priv.define_search(p_search sync.searches)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_vector   name := sync_priv.vector_schema();
  v_nsid     text := (select c.nsid from sync.collections c
                       where c.collection_id = p_search.collection_id);
  v_text     text := format('sync_search.%I', p_search.name || '__text');
  v_apply    text := format('sync_search.%I', p_search.name || '__apply');
  v_find     text := format('sync_search.%I', p_search.name || '__find');
  v_distance text := sync_priv.search_distance(p_search.dimensions, v_vector);
begin
  execute format($f$
    create or replace function %s(value jsonb, raw bytea, rev text)
      returns text language plpgsql immutable set search_path = pg_catalog, pg_temp as %L
  $f$, v_text, format($b$
    begin
      return nullif(left(btrim((%s%s)::text, E' \t\r\n'), 8000), '');
    exception when data_exception or program_limit_exceeded then
      return null;
    end
  $b$, p_search.expression, E'\n'));
  execute format($f$
    create or replace function %s(target regclass, changes sync.change[])
      returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as %L
  $f$, v_apply, format($b$
    begin
      execute format($q$
        delete from %%s t using unnest($1) c where c.op = 'purge' and c.did is null
      $q$, target) using changes;
      execute format($q$
        delete from %%s t using unnest($1) c where c.op = 'purge' and c.did = t.did
      $q$, target) using changes;
      execute format($q$
        delete from %%s t
         using (select c.did, c.rkey,
                       case c.op when 'put' then %1$s(c.value, c.raw, c.rev) end as text
                  from unnest($1) c) c
         where (c.did, c.rkey) = (t.did, t.rkey) and c.text is null
      $q$, target) using changes;
      execute format($q$
        insert into %%s as t (did, rkey, text)
        select c.did, c.rkey, c.text
          from (select c.did, c.rkey, %1$s(c.value, c.raw, c.rev) as text
                  from unnest($1) c where c.op = 'put') c
         where c.text is not null
            on conflict (did, rkey) do update set text = excluded.text
         where t.text <> excluded.text
      $q$, target) using changes;
    end
  $b$, v_text));
  execute format($f$
    create or replace function %s(p_embedding real[], p_limit int)
      returns table (uri text, did text, rkey text, text text, distance float8)
      language sql stable security definer
      set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
    as %L
  $f$, v_find, format($b$
    select r.uri, t.did, t.rkey, t.text, %1$s
      from sync_search.%2$I t
     cross join lateral (select s.uri from sync.records s
                          where (s.did, s.collection, s.rkey) = (t.did, %3$L, t.rkey)
                          limit 1) r
     where t.embedding is not null
     order by %1$s
     limit p_limit
  $b$, v_distance, p_search.name, v_nsid));
  execute format('alter function %s owner to sync_owner', v_text || '(jsonb, bytea, text)');
  execute format('alter function %s owner to sync_owner', v_apply || '(regclass, sync.change[])');
  execute format('alter function %s owner to sync_owner', v_find || '(real[], int)');
  execute format('revoke all on function %s(jsonb, bytea, text), %s, %s(real[], int) from public',
                 v_text, v_apply || '(regclass, sync.change[])', v_find);
  execute format('grant execute on function %s to sync_ingester',
                 v_apply || '(regclass, sync.change[])');
  execute format('grant execute on function %s(real[], int) to sync_reader', v_find);
end
$$;
comment on function sync_priv.define_search(sync.searches) is
  'Make or replace the functions of a search.';
