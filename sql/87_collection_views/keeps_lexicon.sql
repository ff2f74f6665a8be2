-- Can sync.create_view() do without a lexicon from elsewhere: is the view there already, or another
-- of its collection that was made from one?
--
-- Called by: `standpipe view add`, before it asks the network.
-- Raises: SY002 when p_view is no name.
create or replace function sync.keeps_lexicon(p_view text, p_nsid text)
  returns boolean
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from sync_priv.view_place(p_view) p
     cross join sync.collection_views w
      join sync.collections k using (collection_id)
     where k.nsid = p_nsid
       and (w.has_lexicon or (w.view_schema, w.view_name) = (p.view_schema, p.view_name)))
$$;
comment on function sync.keeps_lexicon(text, text) is
  'True when the view p_view of p_nsid is there, or another of p_nsid that was made from a lexicon.
Raises SY002.';
