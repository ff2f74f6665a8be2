-- What engines for GraphQL want to know of views, since they have no keys: as an operator who may
-- also become api_owner. PostGraphile reads the first lines, pg_graphql the JSON in @graphql().
--
-- The keys are the columns that find a row by an index; `uri` finds it by none.
begin;

comment on schema api is $comment$@graphql({"inflect_names": true})$comment$;

comment on view api.posts is $comment$@primaryKey did,rkey
@foreignKey (did) references api.profiles (did)|@fieldName author|@foreignFieldName posts
Posts. @graphql({
  "primary_key_columns": ["did", "rkey"],
  "foreign_keys": [{
    "local_name": "posts", "local_columns": ["did"],
    "foreign_name": "author", "foreign_schema": "api", "foreign_table": "profiles",
    "foreign_columns": ["did"]}]})$comment$;

comment on view api.profiles is $comment$@primaryKey did
The profiles of accounts that have one. @graphql({
  "primary_key_columns": ["did"]})$comment$;

commit;
