-- Read the name of a view: `posts`, `app.posts`, `app."My Posts"`.
--
-- Called by: sync.create_view(), sync.drop_view().
-- Raises: SY002 when it is no name.
create or replace function sync_priv.view_place(
  p_view text, out view_schema text, out view_name text)
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_part text[];
begin
  begin
    v_part := parse_ident(p_view);
  exception when invalid_parameter_value then
    v_part := null;
  end;
  if v_part is null or cardinality(v_part) > 2
     or exists (select from unnest(v_part) as u (part)
                 where octet_length(part) not between 1 and 63) then
    raise exception 'not the name of a view: %', coalesce(left(p_view, 100), 'null')
      using errcode = 'SY002', hint = 'It looks like posts, app.posts or app."My Posts".';
  end if;
  view_name := v_part[cardinality(v_part)];
  view_schema := case cardinality(v_part) when 2 then v_part[1] else 'sync_views' end;
end
$$;
comment on function sync_priv.view_place(text) is
  'Schema and name of p_view; the schema is sync_views where none is given. Raises SY002.';
