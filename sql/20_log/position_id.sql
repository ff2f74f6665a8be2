-- Turn a position that was kept outside the database into the change id after which to go on.
--
-- Called by: readers of sync.change_log that keep their place themselves, and `standpipe tail`.
-- Raises: SY303 for a position of another log epoch, SY301 behind the floor, SY002.
create or replace function sync.position_id(p_position text)
  returns bigint
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_log sync_priv.log_state := (select l from sync_priv.log_state l);
  v_id  bigint;
begin
  if (p_position ~ '^[0-9]{1,9}\.[0-9]{1,18}$') is not true then
    raise exception 'not a position: %', quote_nullable(left(p_position, 100))
      using errcode = 'SY002', hint = 'A position looks like 1.4711.';
  end if;
  v_id := split_part(p_position, '.', 2)::bigint;
  if split_part(p_position, '.', 1)::int <> v_log.log_epoch then
    raise exception 'position % is of another log epoch, the present one is %', p_position,
        v_log.log_epoch
      using errcode = 'SY303',
            hint = 'This database was restored, recovered or promoted since: what followed that '
                   'position may never have happened here. Read sync.records afresh, and go on '
                   'from log_head of sync.status as it was before.';
  elsif v_id < v_log.log_floor then
    raise exception 'the log no longer reaches back to position %', p_position
      using errcode = 'SY301',
            hint = format('It starts after %s.%s. Read sync.records afresh, and go on from '
                          'log_head of sync.status as it was before.',
                          v_log.log_epoch, v_log.log_floor);
  end if;
  return v_id;
end
$$;
comment on function sync.position_id(text) is
  'The change id of a position of this log epoch, for `where change_id > …` on sync.change_log.
Raises SY303 (another epoch), SY301 (retired), SY002.';
