-- Which accounts' PDSes are to be asked now, those that wait longest first.
--
-- Who claims and then dies leaves the question open: it is asked again a minute later.
--
-- The array is made once: a subquery could be run again for each account, and claim others then.
--
-- Called by: the service's account checker.
-- Locks: rows of sync_priv.account_checks, skip locked.
create or replace function sync.claim_checks(p_limit int)
  returns table (did text, serial bigint)
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  with claimed as (
    update sync_priv.account_checks c
       set claimed_until = sync_priv.clock() + interval '1 minute',
           ask_at = case when r.tracked_by = 'did' then c.ask_at end
      from sync.repos r
     where r.repo_id = c.repo_id
       and c.repo_id = any (array(
             select d.repo_id
               from sync_priv.account_checks d
              where d.ask_at <= sync_priv.clock() and d.claimed_until <= sync_priv.clock()
              order by d.ask_at, d.repo_id
              limit p_limit
                for no key update skip locked))
    returning r.did, c.serial, c.ask_at
  )
  select c.did, c.serial from claimed c where c.ask_at is not null
$$;
comment on function sync.claim_checks(int) is
  'Up to p_limit accounts whose PDS is to be asked how they stand, with the serial of the question.';
