-- Forget a source and its cursor. What it lost for us is not forgotten: another source takes the
-- gap over, for what is read from now on says nothing of it. Who is first without any starts with a
-- gap of his own.
--
-- Called by: operators.
-- Locks: the source, then the one that takes over.
create or replace function sync.remove_source(p_url text)
  returns boolean
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_gap_since timestamptz;
begin
  delete from sync.sources s where s.url = p_url returning s.gap_since into v_gap_since;
  if not found then
    return false;
  end if;
  update sync.sources s
     set gap_since = greatest(s.gap_since, v_gap_since)
   where v_gap_since is not null
     and s.source_id = (select o.source_id from sync.sources o
                         order by not o.is_enabled, o.source_id limit 1);
  return true;
end
$$;
comment on function sync.remove_source(text) is 'Forget the source at p_url; true if there was one.';
