-- Read a source again from an earlier (or, after FutureCursor, a lower) sequence number.
-- Replayed events are harmless: their revs are not newer. The running lane is fenced off.
--
-- Called by: operators (D-14).
-- Raises: SY002 for a negative number, and for one that the cursor has not reached.
create or replace function sync.rewind_source(p_url text, p_seq bigint)
  returns boolean
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  if p_seq is null or p_seq < 0 then
    raise exception 'a cursor is 0 or more, not %', p_seq using errcode = 'SY002';
  end if;
  if exists (select from sync_priv.lanes l join sync.sources s using (source_id)
              where s.url = p_url and l.seq < p_seq) then
    raise exception 'the cursor stands before %: what lies between would be lost', p_seq
      using errcode = 'SY002', hint = 'A source can only be rewound.';
  end if;
  update sync.cursors c
     set seq = p_seq, token = nextval('sync_priv.tokens'), updated_at = sync_priv.clock()
    from sync.sources s
   where s.url = p_url and c.source_id = s.source_id;
  return found;
end
$$;
comment on function sync.rewind_source(text, bigint) is
  'Set the cursor of the source at p_url to p_seq; true if it had one. Raises SY002.';
