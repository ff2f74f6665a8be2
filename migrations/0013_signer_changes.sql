create table sync_priv.signer_state (
  is_only  boolean primary key default true check (is_only),
  serial   bigint not null
);
comment on table sync_priv.signer_state is 'One row: the serial of the last change of a key or PDS.';
insert into sync_priv.signer_state (serial) values (0);

alter table sync.repos add column signer_serial bigint;
comment on column sync.repos.signer_serial is
  'Of the last change of its key or PDS from one to another; the lanes go by it (SG-08).';
alter table sync.repos add column stale_since timestamptz;
comment on column sync.repos.stale_since is
  'When it was last said that its identity may be another; a lookup that began before says nothing.';
create index repos_signer_serial on sync.repos (signer_serial) where signer_serial is not null;
