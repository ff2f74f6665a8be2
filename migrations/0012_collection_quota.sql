create table sync_priv.brought_collections (
  repo_id      bigint primary key,
  collections  int not null
);
comment on table sync_priv.brought_collections is
  'How many NSIDs each repo was the first to bring: their ids stay for ever, so this is bounded.';

drop function if exists sync.intern_collections(text[]);
