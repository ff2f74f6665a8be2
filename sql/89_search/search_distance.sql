-- The distance of a row from what is searched for, as it stands in the query and in the index:
-- the cosine distance, 0 to 2. An index takes at most 2,000 numbers in full width; with more they
-- have half of it there.
--
-- Called by: sync_priv.define_search().
create or replace function sync_priv.search_distance(p_dimensions int, p_vector name)
  returns text
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select case when p_dimensions <= 2000
              then format('t.embedding operator(%1$I.<=>) p_embedding::%1$I.vector(%2$s)',
                          p_vector, p_dimensions)
              else format('t.embedding::%1$I.halfvec(%2$s) operator(%1$I.<=>) '
                          'p_embedding::%1$I.vector(%2$s)::%1$I.halfvec(%2$s)',
                          p_vector, p_dimensions) end
$$;
comment on function sync_priv.search_distance(int, name) is
  'SQL for the distance of a row `t` from `p_embedding`.';
