-- The statements that turn one table into the copy of another of the same form, by primary key:
-- delete, update, insert; what is equal is not touched. Generated and identity columns are left to
-- the table, though a generated one may be part of the key. Values are compared by their bytes, so
-- that every type has a comparison.
--
-- Called by: sync.rebuild_projection().
create or replace function sync_priv.difference_steps(p_target regclass, p_source regclass)
  returns table (deletion text, updating text, insertion text)
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  with col as (
    select quote_ident(a.attname) as name, a.attnum, a.attnum = any (i.indkey) as is_key,
           a.attgenerated = '' and a.attidentity = '' as is_given
      from pg_catalog.pg_attribute a
      join pg_catalog.pg_index i on i.indrelid = a.attrelid and i.indisprimary
     where a.attrelid = p_target and a.attnum > 0 and not a.attisdropped
  ), part as (
    select string_agg(name, ', ' order by attnum) filter (where is_given) as names,
           string_agg(format('t.%s = s.%s', name, name), ' and ') filter (where is_key) as same,
           string_agg('t.' || name, ', ') filter (where is_given and not is_key) as old,
           string_agg('s.' || name, ', ') filter (where is_given and not is_key) as new,
           string_agg(format('%s = s.%s', name, name), ', ')
             filter (where is_given and not is_key) as put
      from col
  )
  select format('delete from %s t where not exists (select from %s s where %s)',
                p_target, p_source, same),
         case when put is not null then format($f$ update %1$s t set %2$s from (
                  select s.* from %1$s t join %3$s s on %4$s
                   cross join lateral (select %5$s) as o cross join lateral (select %6$s) as n
                   where o operator(pg_catalog.*<>) n) s
                 where %4$s $f$, p_target, put, p_source, same, old, new) end,
         format($f$ insert into %1$s (%2$s) select %2$s from %3$s s
                 where not exists (select from %1$s t where %4$s) $f$,
                p_target, names, p_source, same)
    from part
$$;
comment on function sync_priv.difference_steps(regclass, regclass) is
  'The statements that make p_target equal to p_source; updating is null where all is key.';
