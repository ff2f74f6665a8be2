-- The statements that turn one table into the copy of another of the same form, by primary key:
-- delete, update, insert; what is equal is not touched. Generated and identity columns are left to
-- the table, though a generated one may be part of the key. Rows of one key, which is what its
-- index takes for equal, are compared by their bytes, so that every type has a comparison.
--
-- Called by: sync.rebuild_projection().
create or replace function sync_priv.difference_steps(p_target regclass, p_source regclass)
  returns table (deletion text, updating text, insertion text)
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  with key as (
    select i.indkey[p.place] as attnum,
           coalesce('operator(' || quote_ident(n.nspname) || '.' || o.oprname || ')', '=') as equals
      from pg_catalog.pg_index i
     cross join generate_series(0, i.indnkeyatts - 1) as p (place)
      join pg_catalog.pg_opclass c on c.oid = i.indclass[p.place]
      join pg_catalog.pg_am a on a.oid = c.opcmethod
      left join (pg_catalog.pg_amop m
                 join pg_catalog.pg_operator o on o.oid = m.amopopr
                 join pg_catalog.pg_namespace n on n.oid = o.oprnamespace)
        on (m.amopfamily, m.amoplefttype, m.amoprighttype, m.amopstrategy)
           = (c.opcfamily, c.opcintype, c.opcintype, 3) and a.amname = 'btree'
     where i.indrelid = p_target and i.indisprimary
  ), col as (
    select quote_ident(a.attname) as name, a.attnum, k.equals,
           a.attgenerated = '' and a.attidentity = '' as is_given
      from pg_catalog.pg_attribute a
      left join key k using (attnum)
     where a.attrelid = p_target and a.attnum > 0 and not a.attisdropped
  ), part as (
    select string_agg(name, ', ' order by attnum) filter (where is_given) as names,
           string_agg(format('t.%1$s %2$s s.%1$s', name, equals), ' and ')
             filter (where equals is not null) as same,
           string_agg('t.' || name, ', ') filter (where is_given) as old,
           string_agg('s.' || name, ', ') filter (where is_given) as new,
           string_agg(format('%1$s = s.%1$s', name), ', ') filter (where is_given) as put
      from col
  )
  select format('delete from %s t where not exists (select from %s s where %s)',
                p_target, p_source, same),
         case when put is not null then format($f$ update %1$s t set %2$s from (
                  select s.* from %1$s t join %3$s s on %4$s
                   cross join lateral (select %5$s) as o cross join lateral (select %6$s) as n
                   where o.* operator(pg_catalog.*<>) n.*) s
                 where %4$s $f$, p_target, put, p_source, same, old, new) end,
         format($f$ insert into %1$s (%2$s) select %2$s from %3$s s
                 where not exists (select from %1$s t where %4$s) $f$,
                p_target, names, p_source, same)
    from part
$$;
comment on function sync_priv.difference_steps(regclass, regclass) is
  'The statements that make p_target equal to p_source; updating is null where nothing is given.';
