alter table sync.sources add column compared_at timestamptz;
comment on column sync.sources.compared_at is
  'When every tracked repo had last been compared with its PDS, on behalf of this source.';
