-- The cursor of every lane: each is found behind the last one by the key, so that dead versions
-- are stepped over (see sync.cursors.version).
--
-- Called by: sync.claim_lane(), sync_priv.reached_generation(), sync.source_status.
create or replace view sync_priv.lanes as
select (l.living).*
  from sync.sources s
 cross join lateral (
   with recursive newest as (
     (select c as living
        from sync.cursors c
       where c.source_id = s.source_id
       order by c.lane desc, c.lane_epoch desc, c.version desc
       limit 1)
     union all
     select (select c
               from sync.cursors c
              where c.source_id = s.source_id
                and (c.lane, c.lane_epoch) < ((n.living).lane, (n.living).lane_epoch)
              order by c.lane desc, c.lane_epoch desc, c.version desc
              limit 1)
       from newest n
      where (n.living).source_id is not null
   )
   select n.living from newest n where (n.living).source_id is not null
 ) l;
comment on view sync_priv.lanes is 'The living cursor of every lane.';
