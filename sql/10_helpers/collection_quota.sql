-- How many NSIDs one repo may be the first to bring.
--
-- An id of an NSID stays for ever and costs every reader a little, and with a pattern like '*' the
-- NSIDs are chosen by whoever writes records. Honest repos have some dozens.
--
-- Called by: sync.intern_collections(), sync_priv.intern_ops().
create or replace function sync_priv.collection_quota()
  returns int
  language sql
  immutable
as $$ select 1000 $$;
comment on function sync_priv.collection_quota() is 'NSIDs a repo may be the first to bring.';
