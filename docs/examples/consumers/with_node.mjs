// Keep `posts` and `post_counts` current with node-postgres: one statement for each run of a kind.
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

const URL = process.argv[2] ?? process.env.STANDPIPE_DATABASE_URL;
const POLL_MS = 1000 * (process.env.POLL_S ?? 30);

const MAKE = `
select sync.create_consumer('posts', p_collections => '{app.bsky.feed.post}')
 where not exists (select from sync.consumer_status where name = 'posts')`;
// A purge comes for other collections than ours, too.
const READ = `
select kind, did, rkey, value ->> 'text' as text from sync.read_changes('posts')
 where kind <> 'purge' or coalesce(collection, 'app.bsky.feed.post') = 'app.bsky.feed.post'`;
const IS_AT_REST = "select is_at_rest from sync.consumer_status where name = 'posts'";
// A run of changes is $1, and a set to SQL.
const RUN = "with run as (select * from jsonb_to_recordset($1) as r (n int, did text, rkey text, text text))";
const APPLY = {
  create: [
    "insert into posts select did, rkey, text from run",
    `insert into post_counts select did, count(*) from run group by did
         on conflict (did) do update set posts = post_counts.posts + excluded.posts`,
  ],
  update: [
    `update posts p set text = r.text
       from (select distinct on (did, rkey) * from run order by did, rkey, n desc) r
      where (p.did, p.rkey) = (r.did, r.rkey)`,
  ],
  delete: [
    "delete from posts p using run r where (p.did, p.rkey) = (r.did, r.rkey)",
    `update post_counts c set posts = c.posts - r.n
       from (select did, count(*) as n from run group by did) r where c.did = r.did`,
  ],
  purge: [
    "delete from posts p using run r where p.did = coalesce(r.did, p.did)",
    "delete from post_counts c using run r where c.did = coalesce(r.did, c.did)",
  ],
};
let isStopping = false;
let wake = () => {};

async function follow(client) {
  let isWoken = false;
  const ring = () => { isWoken = true; wake(); };
  for (const event of ["notification", "error", "end"]) client.on(event, ring);
  await client.connect();
  await client.query("listen sync_changes");
  await client.query(MAKE);
  while (!isStopping) {
    isWoken = false;
    await client.query("begin");
    const { rows } = await client.query(READ);
    for (let from = 0, to; from < rows.length; from = to) {
      const { kind } = rows[from];
      for (to = from; rows[to]?.kind === kind; to++) rows[to].n = to;
      const run = JSON.stringify(rows.slice(from, to));
      for (const statement of APPLY[kind] ?? []) await client.query(`${RUN} ${statement}`, [run]);
    }
    await client.query("commit");
    if (rows.length || !(await client.query(IS_AT_REST)).rows[0].is_at_rest) continue;
    if (isWoken || isStopping) continue;
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, POLL_MS);
      wake = () => { clearTimeout(timer); resolve(); };
    });
  }
}

for (const name of ["SIGTERM", "SIGINT"]) process.on(name, () => { isStopping = true; wake(); });
while (!isStopping) {
  const client = new pg.Client(URL);
  try {
    await follow(client);
  } catch (error) {
    // The connection is gone, or the transaction (a deadlock): what was read is rolled back.
    if (error.severity && !/^(08|40|57)/.test(error.code)) throw error;
    console.error(error.message);
    await sleep(1000);
  } finally {
    await client.end().catch(() => {});
  }
}
