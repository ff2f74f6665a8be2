-- A CID of 36 bytes as text: 'b' and 58 base32 digits. Five bytes make four pairs of digits.
--
-- Spelled out, because every row of every view pays it and a loop costs forty times as much. Not
-- an SQL function: inlined, its 29 tables would add milliseconds to the planning of every query;
-- here the expression is planned once a session.
--
-- Called by: the views, sync.read_changes().
create or replace function sync_priv.cid_text(p_cid bytea)
  returns text
  language plpgsql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
begin
  return encode('b'::bytea
    || sync_priv.base32_pair((get_byte(p_cid, 0) << 2) | (get_byte(p_cid, 1) >> 6))
    || sync_priv.base32_pair(((get_byte(p_cid, 1) & 63) << 4) | (get_byte(p_cid, 2) >> 4))
    || sync_priv.base32_pair(((get_byte(p_cid, 2) & 15) << 6) | (get_byte(p_cid, 3) >> 2))
    || sync_priv.base32_pair(((get_byte(p_cid, 3) & 3) << 8) | get_byte(p_cid, 4))
    || sync_priv.base32_pair((get_byte(p_cid, 5) << 2) | (get_byte(p_cid, 6) >> 6))
    || sync_priv.base32_pair(((get_byte(p_cid, 6) & 63) << 4) | (get_byte(p_cid, 7) >> 4))
    || sync_priv.base32_pair(((get_byte(p_cid, 7) & 15) << 6) | (get_byte(p_cid, 8) >> 2))
    || sync_priv.base32_pair(((get_byte(p_cid, 8) & 3) << 8) | get_byte(p_cid, 9))
    || sync_priv.base32_pair((get_byte(p_cid, 10) << 2) | (get_byte(p_cid, 11) >> 6))
    || sync_priv.base32_pair(((get_byte(p_cid, 11) & 63) << 4) | (get_byte(p_cid, 12) >> 4))
    || sync_priv.base32_pair(((get_byte(p_cid, 12) & 15) << 6) | (get_byte(p_cid, 13) >> 2))
    || sync_priv.base32_pair(((get_byte(p_cid, 13) & 3) << 8) | get_byte(p_cid, 14))
    || sync_priv.base32_pair((get_byte(p_cid, 15) << 2) | (get_byte(p_cid, 16) >> 6))
    || sync_priv.base32_pair(((get_byte(p_cid, 16) & 63) << 4) | (get_byte(p_cid, 17) >> 4))
    || sync_priv.base32_pair(((get_byte(p_cid, 17) & 15) << 6) | (get_byte(p_cid, 18) >> 2))
    || sync_priv.base32_pair(((get_byte(p_cid, 18) & 3) << 8) | get_byte(p_cid, 19))
    || sync_priv.base32_pair((get_byte(p_cid, 20) << 2) | (get_byte(p_cid, 21) >> 6))
    || sync_priv.base32_pair(((get_byte(p_cid, 21) & 63) << 4) | (get_byte(p_cid, 22) >> 4))
    || sync_priv.base32_pair(((get_byte(p_cid, 22) & 15) << 6) | (get_byte(p_cid, 23) >> 2))
    || sync_priv.base32_pair(((get_byte(p_cid, 23) & 3) << 8) | get_byte(p_cid, 24))
    || sync_priv.base32_pair((get_byte(p_cid, 25) << 2) | (get_byte(p_cid, 26) >> 6))
    || sync_priv.base32_pair(((get_byte(p_cid, 26) & 63) << 4) | (get_byte(p_cid, 27) >> 4))
    || sync_priv.base32_pair(((get_byte(p_cid, 27) & 15) << 6) | (get_byte(p_cid, 28) >> 2))
    || sync_priv.base32_pair(((get_byte(p_cid, 28) & 3) << 8) | get_byte(p_cid, 29))
    || sync_priv.base32_pair((get_byte(p_cid, 30) << 2) | (get_byte(p_cid, 31) >> 6))
    || sync_priv.base32_pair(((get_byte(p_cid, 31) & 63) << 4) | (get_byte(p_cid, 32) >> 4))
    || sync_priv.base32_pair(((get_byte(p_cid, 32) & 15) << 6) | (get_byte(p_cid, 33) >> 2))
    || sync_priv.base32_pair(((get_byte(p_cid, 33) & 3) << 8) | get_byte(p_cid, 34))
    || sync_priv.base32_pair(get_byte(p_cid, 35) << 2),
    'escape');
end
$$;
comment on function sync_priv.cid_text(bytea) is 'The text form (base32) of a CID of 36 bytes.';
