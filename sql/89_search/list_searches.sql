-- The searches: what each is over, who embeds it, and how it goes.
--
-- An error of the embedder is for operators, as it may quote a text.
--
-- Called by: apps, operators, the service.
create or replace function sync.list_searches()
  returns table (name text, collection text, expression text, embedder_url text, model text,
                 dimensions int, rate_per_s real, batch_size int, is_indexed boolean,
                 projection_state text, is_at_rest boolean, error text, error_at timestamptz,
                 created_at timestamptz)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select s.name, c.nsid, s.expression, s.embedder_url, s.model, s.dimensions, s.rate_per_s,
         s.batch_size, coalesce(i.is_valid, false), coalesce(p.state, 'missing'),
         coalesce(p.is_at_rest, false),
         case when pg_has_role(sync_priv.caller(), 'sync_owner', 'member') then s.error end,
         s.error_at, s.created_at
    from sync.searches s
    join sync.collections c using (collection_id)
    left join sync_priv.search_indexes i on i.name = s.name
    left join sync.projection_status p on p.name = 'search ' || s.name
   order by s.name
$$;
comment on function sync.list_searches() is
  'Every search: collection, expression, embedder, index, projection, and the embedder''s error.';
