-- Apply the #account events of one run of pg_temp.walk: the last word on each account counts, and
-- only a change is one (AC-18).
--
-- Whom is believed is decided here (ADR 13). The word of a relay, when it is all we read, is
-- obeyed at once, and a bad one is checked with the account's PDS. With several sources, or PDSes,
-- one of them may repeat what is long over: such a word waits until the PDS was asked (AC-12).
-- An account that changes all the time is hidden at once, but shown only after its PDS was
-- asked, later each time (AC-16).
-- The reason of an account event names the PDS that said it; a relay gives none.
-- While an account is not active a fetch that runs is worth nothing (its generation is over), and
-- when it is active again the chain is presumed broken (AC-07).
--
-- Called by: sync_priv.walk_statuses().
-- Locks: the caller holds the repos' rows; rows of sync_priv.account_checks.
create or replace function sync_priv.walk_accounts(p_run bigint)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_often constant int := 10;
  v_most  constant int := 20;
  v_asks_first boolean := (
    select coalesce(count(*) > 1 or bool_or(s.kind = 'pds'), false)
      from sync.sources s where s.is_enabled);
begin
  with words as (
    select distinct on (w.repo_id) w.repo_id, w.is_active, w.status, w.reason as said_by,
           array_agg(coalesce(w.reason, '')) filter (where not w.is_active and w.status = 'deleted')
             over (partition by w.repo_id) as deleted_by
      from pg_temp.walk w
     where w.run = p_run and w.kind = 'account'
     order by w.repo_id, w.pos desc
  ), news as materialized (
    select a.*, r.is_active as was_active,
           coalesce(a.said_by = split_part(r.pds_url, '//', 2), a.said_by is null) as is_home,
           (r.is_active, r.account_status) is distinct from (a.is_active, a.status) as is_news,
           sync_priv.leaked(coalesce(c.changes, 0), coalesce(c.changed_at, '-infinity'),
                            interval '1 minute', v_most) as changes
      from words a
      join sync.repos r using (repo_id)
      left join sync_priv.account_checks c using (repo_id)
     where case when c.said_active is null
             then (a.is_active, a.status) is distinct from (r.is_active, r.account_status)
             else (a.is_active, a.status, a.said_by)
                  is distinct from (c.said_active, c.said_status, c.said_by) end
  ), judged as materialized (
    select n.*,
           n.is_news and case
             when n.is_active and n.was_active then true
             when n.changes >= v_often then not n.is_active and n.is_home
             else not v_asks_first
           end as is_obeyed,
           sync_priv.clock() + case when n.changes >= v_often
                                    then sync_priv.backoff(n.changes - v_often + 1)
                                    else interval '0' end as ask_at
      from news n
  ), doubted as (
    insert into sync_priv.account_checks as c
      (repo_id, serial, ask_at, said_active, said_status, said_by, deleted_by, changes,
       changed_at)
    select j.repo_id, nextval('sync_priv.tokens'),
           case when not (j.is_obeyed and j.is_active) then j.ask_at end,
           case when not j.is_obeyed then j.is_active end,
           case when not j.is_obeyed then j.status end,
           case when not j.is_obeyed then j.said_by end,
           case when j.is_obeyed and j.is_active then '{}'
                else coalesce(j.deleted_by[1:8], '{}') end, j.changes + 1, sync_priv.clock()
      from judged j
     order by j.repo_id
        on conflict (repo_id) do update
       set serial = excluded.serial,
           -- The earlier of both: who goes on changing does not put the question off.
           ask_at = case when excluded.ask_at is not null
                         then least(c.ask_at, excluded.ask_at) end,
           said_active = excluded.said_active, said_status = excluded.said_status,
           said_by = excluded.said_by,
           -- Who is believed to be back was not deleted: that its PDS does not know it one day
           -- proves nothing then.
           deleted_by = case when excluded.ask_at is not null
                             then (excluded.deleted_by || c.deleted_by)[1:8] else '{}' end,
           changes = excluded.changes, changed_at = excluded.changed_at
  )
  update sync.repos r
     set is_active = j.is_active,
         account_status = j.status,
         sync_state = case
           when r.sync_state = 'fetching' and not j.is_active then 'desynchronized'
           when r.sync_state = 'synchronized' and j.is_active and not r.is_active
             then 'desynchronized'
           else r.sync_state
         end,
         next_fetch_at = case when j.is_active and not r.is_active then sync_priv.clock()
                              else r.next_fetch_at end
    from judged j
   where r.repo_id = j.repo_id and j.is_obeyed;
end
$$;
comment on function sync_priv.walk_accounts(bigint) is
  'Apply the account events of one run of pg_temp.walk, or have their accounts'' PDSes asked.';
