-- Make a search over one collection: a table of texts that a projection keeps, and that the
-- service has embedded by a server that answers like /v1/embeddings of OpenAI.
--
-- p_text is an SQL expression over the record (`value`); a record without a text is not found. It
-- has to be immutable and to use nothing but what is built in. p_dimensions is what the embedder
-- answers with.
--
-- pgvector is made if the caller can; see sync_priv.require_vector().
--
-- Called by: operators.
-- Locks: advisory (7261, 6), so that searches come and go one by one.
-- Raises: SY002 for a bad argument, SY601 without pgvector, SY603 when the name is taken.
create or replace function sync.enable_search(
    p_name text, p_nsid text, p_text text, p_embedder text, p_dimensions int,
    p_model text default null, p_rate real default null, p_batch int default 64)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_search sync.searches;
  v_table  text := format('sync_search.%I', coalesce(p_name, ''));
  v_vector name;
begin
  perform pg_advisory_xact_lock(7261, 6);
  if p_name is null or p_name !~ '^[a-z][a-z0-9]*(_[a-z0-9]+)*$' or length(p_name) > 40 then
    raise exception 'not the name of a search: %', left(quote_nullable(p_name), 100)
      using errcode = 'SY002', hint = 'Take lower-case letters and digits, with single _ between.';
  elsif p_embedder is null or p_embedder !~ '^https?://[^/@\s]+(/\S*)?$'
        or length(p_embedder) > 2000 then
    raise exception 'not the URL of an embedder: %', left(quote_nullable(p_embedder), 100)
      using errcode = 'SY002', hint = 'Like http://127.0.0.1:11434/v1/embeddings; no password.';
  elsif p_dimensions is null or p_dimensions not between 1 and 4000 then
    raise exception 'p_dimensions must be between 1 and 4000' using errcode = 'SY002';
  elsif p_rate <= 0 or p_rate in ('nan', 'infinity') or length(p_model) > 200
        or p_batch is null or p_batch not between 1 and 2048 then
    raise exception 'p_rate is above 0, p_batch from 1 to 2048, p_model at most 200 long'
      using errcode = 'SY002';
  elsif exists (select from sync.searches s where s.name = p_name)
        or to_regclass(v_table) is not null then
    raise exception 'there is a search % already', p_name
      using errcode = 'SY603', hint = 'Choose another name, or drop it: sync.disable_search().';
  end if;
  perform sync_priv.checked_text(p_text);
  v_search.collection_id := sync_priv.collection_for(p_nsid);
  v_vector := sync_priv.require_vector();
  execute format(
    'create table %s (did text collate "C" not null, rkey text collate "C" not null, '
    'text text not null, embedding %I.vector(%s), error text, primary key (did, rkey))',
    v_table, v_vector, p_dimensions);
  execute format('alter table %s owner to sync_owner', v_table);
  execute format('create index %I on %s (did, rkey) where embedding is null and error is null',
                 p_name || '__waiting', v_table);
  execute format('create trigger keep before update on %s '
                 'for each row execute function sync_priv.keep_embedding()', v_table);
  execute format('grant select, update (embedding, error) on %s to sync_ingester', v_table);
  insert into sync.searches (name, collection_id, expression, embedder_url, model, dimensions,
                             rate_per_s, batch_size, created_at)
  values (p_name, v_search.collection_id, p_text, p_embedder, p_model, p_dimensions, p_rate,
          p_batch, sync_priv.clock())
  returning * into v_search;
  perform sync_priv.define_search(v_search);
  perform sync.create_projection(
    'search ' || p_name, v_table::regclass, array[p_nsid],
    format('sync_search.%I(regclass, sync.change[])', p_name || '__apply')::regprocedure);
  perform pg_notify('sync_work', '');
end
$$;
comment on function sync.enable_search(text, text, text, text, int, text, real, int) is
  'Make the search p_name over the texts p_text of the collection p_nsid, embedded by p_embedder.
Raises SY002, SY601, SY603.';
