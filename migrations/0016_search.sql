-- Semantic search: a table of texts and their embeddings for each search, in a schema of its own.
-- The tables have a type of pgvector, so they are made when a search is, not here.
create schema sync_search;

create table sync.searches (
  search_id      bigint generated always as identity primary key,
  name           text collate "C" not null unique
                 check (name ~ '^[a-z][a-z0-9]*(_[a-z0-9]+)*$' and length(name) <= 40),
  collection_id  int not null,
  expression     text collate "C" not null,
  embedder_url   text collate "C" not null,
  model          text collate "C",
  dimensions     int not null check (dimensions between 1 and 4000),
  rate_per_s     real check (rate_per_s > 0),
  batch_size     int not null check (batch_size between 1 and 2048),
  error          text collate "C",
  error_at       timestamptz,
  created_at     timestamptz not null
);
comment on table sync.searches is 'The searches that sync.enable_search() made.';
comment on column sync.searches.name is
  'Also the name of its table in sync_search, and the beginning of those of its functions.';
comment on column sync.searches.expression is 'What makes a text of a record.';
comment on column sync.searches.embedder_url is
  'Answers like /v1/embeddings of OpenAI; its key is known to the service only.';
comment on column sync.searches.model is 'What the embedder is asked for; null: it has only one.';
comment on column sync.searches.dimensions is 'How many numbers an embedding has.';
comment on column sync.searches.rate_per_s is
  'How many texts a second may be embedded; null = any number.';
comment on column sync.searches.batch_size is 'How many texts go into one request at most.';
comment on column sync.searches.error is
  'Why the embedder is asked again later; null when it works.';
