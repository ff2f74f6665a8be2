-- The lexicon that a view is made from, if it is made from one: as given, else as it is stored when
-- the view has no other columns, or was made from it before.
--
-- Called by: sync.create_view().
-- Raises: SY002 when it needs one and none is known.
create or replace function sync_priv.lexicon_for(
    p_nsid text, p_lexicon jsonb, p_given jsonb, p_had_one boolean)
  returns jsonb
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_lexicon jsonb := p_lexicon;
begin
  if p_lexicon is not null then
    perform sync_priv.store_lexicon(p_nsid, p_lexicon);
  elsif p_given = '{}' or p_had_one then
    select l.lexicon into v_lexicon from sync.lexicons l where l.nsid = p_nsid;
    if not found and p_given = '{}' then
      raise exception 'no lexicon of % is known', p_nsid
        using errcode = 'SY002',
              hint = 'Give one, or columns; `standpipe view add` finds it on the network.';
    end if;
  end if;
  return v_lexicon;
end
$$;
comment on function sync_priv.lexicon_for(text, jsonb, jsonb, boolean) is
  'The lexicon for a view of p_nsid, or null. Raises SY002.';
