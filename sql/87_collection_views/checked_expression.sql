-- Take one scalar expression over a record, and nothing else.
--
-- A cursor takes one statement only. What parses within parentheses and within brackets is whole,
-- whatever stands in it: a stray end of the one would have to begin with the other. They are two
-- statements, as what a quote opens in the one place could end in the other. As the one argument
-- of a function in a condition it is one value, and no aggregate, window or set. Nothing can be
-- called by the name of the table, so there is no whole row either.
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
  v_form   text;
  v_cursor refcursor;
begin
  foreach v_form in array array['select array[%s%s] from %s where false',
                                'select from %3$s where false and pg_typeof(%1$s%2$s) is null']
  loop
    open v_cursor for execute format(
      v_form, p_expression, E'\n',
      '(select r.value, r.raw, r.rev from sync.stored_records r) " "');
    close v_cursor;
  end loop;
  return p_expression;
exception when syntax_error_or_access_rule_violation or data_exception
            or feature_not_supported or program_limit_exceeded
            or invalid_schema_name or invalid_catalog_name then
  raise exception 'not an expression over a record: % (%)', left(p_expression, 200), sqlerrm
    using errcode = 'SY002', hint = 'The record is `value`, like value ->> ''text''.';
end
$$;
comment on function sync_priv.checked_expression(text) is
  'p_expression, if it is one over value, raw and rev of a record. Raises SY002.';
