alter table sync.repos add column identity_as_of timestamptz;
comment on column sync.repos.identity_as_of is
  'When the lookup began that brought the stored identity; an older one no longer counts.';
