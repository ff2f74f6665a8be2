-- The collections that the API shows, with typed columns: as an operator (a member of sync_owner),
-- and again whenever a lexicon changes.
--
-- The lexicons are those of the network, cut down to what the API shows. They take the place of
-- what is stored for these collections: where the whole lexicons are, leave the JSON out, and the
-- views have a column for every property.
begin;

select * from sync.create_view('api.posts', 'app.bsky.feed.post', $json$
  {"lexicon": 1, "id": "app.bsky.feed.post", "defs": {"main": {"type": "record", "key": "tid",
    "record": {"type": "object", "properties": {
      "text": {"type": "string"},
      "langs": {"type": "array", "items": {"type": "string", "format": "language"}},
      "reply": {"type": "ref", "ref": "#replyRef"},
      "createdAt": {"type": "string", "format": "datetime"}}}},
    "replyRef": {"type": "object", "properties": {
      "root": {"type": "ref", "ref": "com.atproto.repo.strongRef"},
      "parent": {"type": "ref", "ref": "com.atproto.repo.strongRef"}}}}}
  $json$, p_indexed => '{created_at}');

-- Not in the schema api: api.sql shows a part of it there.
select * from sync.create_view('profiles', 'app.bsky.actor.profile', $json$
  {"lexicon": 1, "id": "app.bsky.actor.profile", "defs": {"main": {"type": "record",
    "key": "literal:self", "record": {"type": "object", "properties": {
      "displayName": {"type": "string"},
      "description": {"type": "string"},
      "createdAt": {"type": "string", "format": "datetime"}}}}}}
  $json$);

grant select on api.posts to anon;

commit;
