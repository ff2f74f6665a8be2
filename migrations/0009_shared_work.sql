-- Fetches of several services ---------------------------------------------------------------------

alter table sync.repos add column fetcher_id int;
comment on column sync.repos.fetcher_id is
  'Who fetches or fetched: the key of an advisory lock (7265) that lives as long as his session.';
create sequence sync_priv.fetcher_ids as int;
comment on sequence sync_priv.fetcher_ids is 'Numbers for sessions that claim fetches.';
comment on column sync_priv.fetch_state.first_token is
  'Claims with a lower token are given up: since then events were lost, or the database restored.';

-- Events that came too early ----------------------------------------------------------------------

alter table sync_priv.held_events add column source_id int, add column due_at timestamptz;
comment on column sync_priv.held_events.source_id is 'The source that told it.';
comment on column sync_priv.held_events.due_at is
  'It does not continue the chain, but another source may tell what is missing, until then.';
create index held_events_early on sync_priv.held_events (due_at) where due_at is not null;
alter table sync_stage.walk add column source_id int;

-- What a broken chain costs -----------------------------------------------------------------------

alter table sync.repos add column budget_at timestamptz;
comment on column sync.repos.budget_at is
  'Until when the breaks of its chain are paid for: each costs a minute, ten may come at once.';

-- What keeps a source from being read --------------------------------------------------------------

alter table sync.sources add column trouble text;
comment on column sync.sources.trouble is
  'Why the service that reads it is not connected right now, in its words.';
