-- What is in doubt about an account. A row comes with the first doubt and stays: it is the memory
-- that bounds how often one account can make us work (AC-16, MT-08).
create table sync_priv.account_checks (
  repo_id         bigint primary key references sync.repos,
  serial          bigint not null default 0,
  ask_at          timestamptz,
  claimed_until   timestamptz not null default '-infinity',
  attempts        int not null default 0,
  said_active     boolean,
  said_status     text,
  said_by         text collate "C",
  deleted_by      text[] collate "C" not null default '{}',
  changes         int not null default 0,
  changed_at      timestamptz not null default '-infinity',
  hints           int not null default 0,
  hinted_at       timestamptz not null default '-infinity',
  has_second_look boolean not null default false
);
comment on table sync_priv.account_checks is
  'Accounts whose standing was or is in doubt: when their PDS is asked, and how often they changed.';
comment on column sync_priv.account_checks.serial is
  'Drawn anew by every word of the stream: an answer to an older question is over.';
comment on column sync_priv.account_checks.ask_at is
  'When the current PDS is to be asked how the account stands; null: nothing is in doubt.';
comment on column sync_priv.account_checks.claimed_until is
  'Somebody asks right now; one who died is followed by another after this time.';
comment on column sync_priv.account_checks.said_active is
  'With said_status the word that waits for the answer; null when it was obeyed at once.';
comment on column sync_priv.account_checks.said_by is
  'Host and port of the PDS that said it; null: a relay. Only the current PDS''s word counts.';
comment on column sync_priv.account_checks.deleted_by is
  'Which PDSes (a relay: '''') lately said that the account is deleted: one that does not know it now
has deleted it only if it is among them.';
comment on column sync_priv.account_checks.changes is
  'How often it changed lately: a bucket that leaks one a minute.';
comment on column sync_priv.account_checks.hints is
  'How often #identity came lately: a bucket that leaks ten a minute.';
comment on column sync_priv.account_checks.has_second_look is
  'An #identity came: if the document is unchanged, it is looked at once more (IN-17).';
create index account_checks_due on sync_priv.account_checks (ask_at) where ask_at is not null;

insert into sync_priv.account_checks (repo_id, ask_at)
select r.repo_id, now() from sync.repos r where r.tracked_by = 'did' and not r.is_active;
