-- Tables of apps that are kept from the change log by a function of the app. Target and function
-- are names, so that a dump that is restored keeps them.
create table sync.projections (
  projection_id  bigint generated always as identity primary key,
  name           text collate "C" not null unique,
  consumer_id    bigint not null unique references sync.consumers,
  owner_name     text collate "C" not null,
  target_schema  text collate "C" not null,
  target_name    text collate "C" not null,
  apply_schema   text collate "C" not null,
  apply_name     text collate "C" not null,
  state          text collate "C" not null default 'running'
                 check (state in ('running', 'paused', 'failed')),
  error          text collate "C",
  error_key      text collate "C",
  error_at       timestamptz,
  created_at     timestamptz not null,
  unique (target_schema, target_name)
);
comment on table sync.projections is 'Tables of apps that sync.run_projection() keeps.';
comment on column sync.projections.consumer_id is
  'The reader of the log that says where it stands; nobody else reads or drops it.';
comment on column sync.projections.owner_name is
  'The role that owns target and function: its members may pause, rebuild and drop it.';
comment on column sync.projections.state is
  'running; paused by somebody; failed: stopped by an error that trying again would not mend.';
comment on column sync.projections.error_key is
  'Which change it stopped at: a URI, or purge with a did and a collection.';

-- Which projection a transaction runs, for as long as it does.
create table sync_priv.projection_runs (
  xid            xid8 primary key,
  projection_id  bigint not null references sync.projections on delete cascade,
  token          uuid not null
);
comment on table sync_priv.projection_runs is
  'The projection whose function a transaction calls; never seen by another one.';
comment on column sync_priv.projection_runs.token is
  'Known to sync.run_projection() only: what the function calls cannot pass for it.';

-- What an apply function is given: the net effect of some changes.
create type sync.change as (
  op          text,
  did         text collate "C",
  collection  text collate "C",
  rkey        text collate "C",
  uri         text collate "C",
  cid         text collate "C",
  rev         text collate "C",
  value       jsonb,
  raw         bytea,
  reason      text
);
comment on type sync.change is
  'One of the changes that a projection applies: first every purge (did null = everybody, collection
null = all), then each record at most once, as put or delete.';
