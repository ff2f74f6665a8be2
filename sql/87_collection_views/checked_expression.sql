-- Take an expression over a record, and nothing else: a cursor takes one statement only, and what
-- stands in parentheses on either side must be whole.
--
-- It runs with the rights of whoever gives it.
--
-- Called by: sync_priv.view_columns().
-- Raises: SY002 with what PostgreSQL says.
create or replace function sync_priv.checked_expression(p_expression text)
  returns text
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_cursor refcursor;
begin
  open v_cursor for execute format(
    'select (%s%s) from (select s.value, s.raw, s.rev from sync.stored_records s) r where false',
    p_expression, E'\n');
  close v_cursor;
  return p_expression;
exception when syntax_error_or_access_rule_violation or data_exception
            or feature_not_supported then
  raise exception 'not an expression over a record: % (%)', left(p_expression, 200), sqlerrm
    using errcode = 'SY002', hint = 'The record is `value`, like value ->> ''text''.';
end
$$;
comment on function sync_priv.checked_expression(text) is
  'p_expression, if it is one over value, raw and rev of a record. Raises SY002.';
