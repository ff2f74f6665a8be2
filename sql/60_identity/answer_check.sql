-- Take the answer to how an account stands; the word of its current PDS is the last one (AC-09).
--
-- Its records are purged only here, with the confirmation in one transaction: when its PDS says
-- `deleted`, when its PDS does not know it and the stream had said `deleted`, or when its DID is
-- tombstoned (D-11, AC-14). That a PDS does not know an account proves nothing alone: it may be
-- on its way there. Without an answer a word against the account holds, one in its favour waits
-- (AC-10), and the question is put again, later each time.
--
-- p_answer: active, inactive (with p_status), unknown (the PDS has no such account), tombstoned,
-- none (nobody answered). An answer is over when more was said since, or when it is not from the
-- PDS that we know: an old host's word counts for nothing.
--
-- Called by: the service's account checker.
-- Locks: the repo's row, skip locked (null: try again); its row of sync_priv.account_checks.
create or replace function sync.answer_check(
    p_did text, p_serial bigint, p_pds_url text, p_answer text, p_status text default null)
  returns boolean
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_repo       sync.repos%rowtype;
  v_check      sync_priv.account_checks%rowtype;
  v_is_host    boolean;
  v_is_counted boolean;
  v_is_gone    boolean;
  v_is_obeyed  boolean;
  v_is_open    boolean;
  v_is_active  boolean;
  v_status     text;
begin
  select * into v_repo from sync.repos r where r.did = p_did for no key update skip locked;
  if not found then
    return null;
  end if;
  update sync_priv.account_checks c set claimed_until = '-infinity'
   where c.repo_id = v_repo.repo_id returning * into v_check;
  if v_check.ask_at is null or v_check.serial <> p_serial
     or v_repo.tracked_by is distinct from 'did' then
    -- Who changes faster than his PDS answers does not have it asked without a pause (AC-16).
    update sync_priv.account_checks c
       set ask_at = greatest(c.ask_at, sync_priv.clock() + sync_priv.backoff(c.changes - 9))
     where c.repo_id = v_repo.repo_id and c.ask_at is not null and c.changes >= 10;
    return false;
  end if;
  v_is_host := p_pds_url is not distinct from v_repo.pds_url;
  -- Of the words that wait a relay's counts, and the PDS's own; another host's never.
  v_is_counted := v_check.said_active is not null and coalesce(
    v_check.said_by = split_part(v_repo.pds_url, '//', 2), v_check.said_by is null);
  v_is_gone := p_answer = 'tombstoned' or v_is_host and (
    p_answer = 'inactive' and p_status is not distinct from 'deleted'
    or p_answer = 'unknown' and not (v_is_counted and v_check.said_active)
       and (not v_repo.is_active and v_repo.account_status is not distinct from 'deleted'
            or v_check.deleted_by && array['', split_part(p_pds_url, '//', 2)]));
  v_is_open := not v_is_gone and (
    p_answer = 'none' or not v_is_host
    or p_answer = 'unknown' and v_is_counted and v_check.said_active);
  v_is_obeyed := v_is_counted and not v_check.said_active and not v_is_gone
    and (p_answer = 'none' or p_answer = 'unknown' and v_is_host);
  v_is_active := v_repo.is_active;
  v_status := v_repo.account_status;
  if v_is_gone then
    v_is_active := false;
    v_status := 'deleted';
  elsif v_is_obeyed then
    v_is_active := false;
    v_status := v_check.said_status;
  elsif p_answer in ('active', 'inactive') and v_is_host then
    v_is_active := p_answer = 'active';
    v_status := case when not v_is_active then p_status end;
  end if;
  -- A word that came to nothing: of a host that is not the account's (D-12), or denied by its PDS.
  insert into sync_priv.problem_deltas (reason, host, did, events, noted_at)
  select case when v_is_counted then 'account_denied' else 'wrong_host' end,
         coalesce(v_check.said_by, ''), v_repo.did, 1, sync_priv.clock()
   where not v_is_open and v_check.said_active is not null
     and (v_check.said_active, v_check.said_status) is distinct from (v_is_active, v_status);
  update sync_priv.account_checks c
     set ask_at = case when v_is_open
                       then sync_priv.clock() + sync_priv.backoff(c.attempts + 1) end,
         attempts = case when v_is_open then c.attempts + 1 else 0 end,
         said_active = case when v_is_open and not v_is_obeyed then c.said_active end,
         said_status = case when v_is_open and not v_is_obeyed then c.said_status end,
         said_by = case when v_is_open and not v_is_obeyed then c.said_by end,
         deleted_by = case when v_is_open or p_answer = 'unknown' and not v_is_gone
                           then c.deleted_by else '{}' end
   where c.repo_id = v_repo.repo_id;
  update sync.repos r
     set is_active = v_is_active, account_status = v_status,
         sync_state = case
           when v_is_gone then 'pending'
           when r.sync_state = 'fetching' and not v_is_active then 'desynchronized'
           when r.sync_state = 'synchronized' and v_is_active and not r.is_active
             then 'desynchronized'
           else r.sync_state
         end,
         next_fetch_at = case when v_is_active and not r.is_active then sync_priv.clock()
                              else r.next_fetch_at end,
         is_identity_stale = r.is_identity_stale and p_answer <> 'tombstoned'
   where r.repo_id = v_repo.repo_id
     and ((r.is_active, r.account_status) is distinct from (v_is_active, v_status) or v_is_gone);
  if v_is_gone and (v_repo.sync_state <> 'pending' or exists (
       select from sync.heads h where h.repo_id = v_repo.repo_id and h.seen_rev is not null)) then
    perform sync_priv.empty_repos(array[v_repo.repo_id]);
  end if;
  perform pg_notify('sync_work', '');
  return true;
end
$$;
comment on function sync.answer_check(text, bigint, text, text, text) is
  'Store how an account stands: p_answer is active, inactive (p_status), unknown, tombstoned or none, as
PDS p_pds_url says; a confirmed deletion purges the records. False when the question was over, null
when the repo is locked right now.';
