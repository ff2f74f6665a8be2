alter table sync_priv.log_state
  add column keep_age interval not null default '1 day' check (keep_age >= '0'),
  add column max_age interval check (max_age > '0'),
  add column max_bytes bigint check (max_bytes > 0);
comment on column sync_priv.log_state.keep_age is
  'Changes are kept this long at least, also when every consumer has passed them.';
comment on column sync_priv.log_state.max_age is
  'Older changes go even if a consumer has not passed them; null: they wait for it.';
comment on column sync_priv.log_state.max_bytes is
  'Beyond this size the oldest changes go even if a consumer has not passed them; null: no limit.';

create table sync_priv.log_gaps (
  last_id  bigint primary key,
  next_id  bigint not null check (next_id > last_id)
);
comment on table sync_priv.log_gaps is
  'Change ids that nobody got: between last_id and next_id a partition was left early.';
