-- An embedding belongs to its text: it goes when that changes, and stays when somebody writes the
-- same again, as a rebuild of the projection does: such a row is not touched, for one that is goes
-- through the index once more.
--
-- Called by: the trigger of each table in sync_search.
create or replace function sync_priv.keep_embedding()
  returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if new.text <> old.text then
    new.embedding := null;
    new.error := null;
  elsif new.embedding is null and new.error is null then
    return null;
  end if;
  return new;
end
$$;
comment on function sync_priv.keep_embedding() is 'Keep the embedding of a text that stays.';
