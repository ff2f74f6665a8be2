-- Some repos that are synchronized and visible, drawn at random; without reading all of them: of
-- each place that is drawn a thousand repos are looked at, so where few are synchronized, fewer
-- come.
--
-- Called by: `standpipe verify --sample`.
-- Raises: SY002 for a number out of range.
create or replace function sync.sample_repos(p_count int)
  returns setof text
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_low  bigint;
  v_high bigint;
begin
  if p_count is null or p_count not between 1 and 100000 then
    raise exception 'p_count must be between 1 and 100000' using errcode = 'SY002';
  end if;
  select min(r.repo_id), max(r.repo_id) into v_low, v_high from sync.repos r;
  return query
    select n.did::text
      from (select v_low + floor(random() * (v_high - v_low + 1))::bigint as first_id
              from generate_series(1, p_count * 4)) d
     cross join lateral (
       select r.did
         from (select b.repo_id, b.did, b.sync_state
                 from sync.repos b
                where b.repo_id >= d.first_id
                order by b.repo_id
                limit 1000) r
        where r.sync_state = 'synchronized'
          and exists (select from sync_priv.visible_repos v where v.repo_id = r.repo_id)
        order by r.repo_id
        limit 1) n
     group by n.did
     order by random()
     limit p_count;
end
$$;
comment on function sync.sample_repos(int) is
  'Up to p_count dids of synchronized, visible repos, drawn at random. Raises SY002.';
