-- End the session that holds the log's lock and idles for longer than p_idle: nothing that is
-- logged commits until it is gone. It did SET CONSTRAINTS ALL IMMEDIATE after writing records, or
-- took the lock by hand; a commit never idles with it.
--
-- With the rights of the caller, for PostgreSQL lets a login end its own sessions, those of roles
-- whose rights it has, and as a member of pg_signal_backend all but a superuser's. Whether another
-- login idles only a member of pg_read_all_stats sees; without, the holder is reported once
-- somebody has waited for him for as long. What is not ended is counted each time, too.
--
-- Called by: the service, on a connection of its own: sync.maintain() may wait for that very lock.
create or replace function sync.end_idle_holder(p_idle interval)
  returns table (pid int, login text, application text, outcome text)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_holder record;
begin
  select a.pid, a.usename, a.application_name, a.state, a.state_change
    into v_holder
    from pg_catalog.pg_locks l
    join pg_catalog.pg_stat_activity a on a.pid = l.pid
   where l.locktype = 'advisory' and l.granted
     and (l.classid, l.objid, l.objsubid) = (7261, 1, 2)
     and l.database = (select d.oid from pg_catalog.pg_database d
                        where d.datname = current_database())
   limit 1;
  if v_holder.state is null and exists (
       select from pg_catalog.pg_locks w
        where w.locktype = 'advisory' and w.waitstart < clock_timestamp() - p_idle
          and v_holder.pid = any (pg_blocking_pids(w.pid))) then
    outcome := 'unseen';
  elsif v_holder.state like 'idle%' and v_holder.state_change < clock_timestamp() - p_idle then
    begin
      perform pg_terminate_backend(v_holder.pid);
      outcome := 'ended';
    exception when insufficient_privilege then
      outcome := 'refused';
    end;
  else
    return;
  end if;
  pid := v_holder.pid;
  login := v_holder.usename;
  application := v_holder.application_name;
  perform sync.note_problems(
    array['log_lock_' || outcome], array[''], array[''],
    array[format('session %s of %s (%s)', pid, login, application)], array[1::bigint],
    array[null::bytea]);
  return next;
end
$$;
comment on function sync.end_idle_holder(interval) is
  'End the session that has idled for p_idle with the lock that every commit to the change log needs.
Returns it with the outcome, if there is one: ended, refused (this login may not), unseen (nor look).';
