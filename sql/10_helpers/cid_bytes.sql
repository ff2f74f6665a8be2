-- The 36 bytes of a CID's text form, or null when the text is none of ours: anything but 'b' and
-- 58 base32 digits that end in two zero bits.
--
-- Called by: apps that look for a CID in bytes.
create or replace function sync_priv.cid_bytes(p_text text)
  returns bytea
  language sql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
  with bits as (
    select string_agg((strpos('abcdefghijklmnopqrstuvwxyz234567', substr(p_text, i + 1, 1)) - 1)
                        ::bit(5)::text, '' order by i) as digits
      from generate_series(1, 58) as g (i)
     where p_text ~ '^b[a-z2-7]{57}[aeimquy4]$' and p_text !~ '\n'
  )
  select decode(string_agg(lpad(to_hex(substr(b.digits, 8 * i + 1, 8)::bit(8)::int), 2, '0'), ''
                           order by i), 'hex')
    from bits b cross join generate_series(0, 35) as g (i)
   where b.digits is not null
$$;
comment on function sync_priv.cid_bytes(text) is
  'The 36 bytes of a CID in text form; null when it is malformed.';
