"""The hot statements at volume, as the functions really run them: indexes, no scans of big tables.

auto_explain sends the plan of every nested statement to the client, so what is checked here is
what runs, not a copy of it.
"""

import re

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.postgres import TEMPLATE
from tests.sql.driver import POST, Driver, Event, Op, did
from tests.sql.plans import Plans, scans, show_plans

REPOS = 100_000

VOLUME = f"""
set session_replication_role = replica;
insert into sync.hosts (host_id, url)
select n, 'https://pds' || n || '.test' from generate_series(1, 500) n;
insert into sync.repos (did, host_id, tracked_by, sync_state, is_identity_stale, filter_generation,
                        next_fetch_at, created_at, updated_at)
select 'did:web:r' || n || '.test', n % 500 + 1, 'did',
       case when n % 50 = 0 then 'desynchronized' when n % 501 = 0 then 'fetching'
            else 'synchronized' end,
       n % 1000 = 0, case when n % 2000 = 0 then 1 else 0 end, '-infinity', now(), now()
  from generate_series(1, {REPOS}) n;
insert into sync.heads (repo_id, rev, data_cid, commit_block, seen_rev)
select r.repo_id, '3kaaaaaaaaaaa', '\\x01711220' || sha256(''), 'block', '3kaaaaaaaaaaa'
  from sync.repos r;
insert into sync.collections (nsid) values ('app.bsky.feed.like'), ('app.bsky.feed.post');
insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
select n % ({REPOS} - 10) + 1, 2, 'r' || n, '\\x01711220' || sha256(''), '3kaaaaaaaaaaa', '{{}}'
  from generate_series(1, 400000) n;
insert into sync_priv.held_events (repo_id, is_due, kind)
select n % {REPOS} + 1, n % 10000 = 0, 'commit' from generate_series(1, 50000) n;
insert into sync_priv.account_checks (repo_id) select n from generate_series(1, 20000) n;
insert into sync.filters (kind, pattern, generation, created_at)
values ('collection', 'app.bsky.feed.post', 1, now());
update sync_priv.filter_state set generation = 1;
set session_replication_role = origin;
analyze;
"""


@pytest.fixture(scope="module")
def plans(postgres):
    """One database for all tests here: filling it takes longer than they do."""
    with (
        postgres.database(template=TEMPLATE) as name,
        psycopg.connect(postgres.admin_url(name), row_factory=dict_row, autocommit=True) as conn,
    ):
        conn.execute(VOLUME.encode())
        driver = Driver(conn)
        driver.track(1, 2)
        show_plans(conn)
        yield Plans(driver)


def test_the_volume_is_what_the_planner_sees(plans):
    sizes = plans.driver.rows(
        "select relname, reltuples::int as n from pg_class where oid in"
        " ('sync.repos'::regclass, 'sync.stored_records'::regclass)"
    )
    assert {row["relname"]: row["n"] for row in sizes} == pytest.approx(
        {"repos": REPOS, "stored_records": 400_000}, rel=0.05
    )
    assert scans(plans.of("select count(*) from sync.repos where handle is not null"))


def test_claiming_fetches_walks_the_backlog_index(plans):
    text = plans.of("select * from sync.claim_fetches(50, 2)")
    assert re.search(r"repos_backlog.*\n +Index Cond: \(\(host_id = .*next_fetch_at <= ", text)
    assert "repos_fetching" in text
    assert scans(text) == []


def test_heads_are_paged_by_key(plans):
    text = plans.of("select * from sync.list_heads(%s, 500)", REPOS // 2)
    assert "Index" in text
    assert scans(text) == []


def test_lanes_learn_what_changed_from_the_generation_index(plans):
    text = plans.of("select * from sync.tracked_repos(0, 1)")
    assert "repos_filter_generation" in text
    assert scans(text) == []


def test_lanes_learn_new_keys_from_the_serial_index(plans):
    text = plans.of("select * from sync.changed_signers(0, 1)")
    assert "repos_signer_serial" in text
    assert scans(text) == []


def test_identities_to_look_up_come_from_their_index(plans):
    text = plans.of("select * from sync.claim_identities(50)")
    assert "repos_identity" in text
    assert scans(text) == []


def test_an_idle_tick_finds_the_held_events_that_are_due_by_their_index(plans):
    driver = plans.driver
    text = plans.of(
        "select * from sync.apply_events(%s, 0, %s, null, 1)", driver.source_id, driver.token
    )
    assert "held_events_due" in text
    assert "held_events_early" in text
    assert scans(text) == []


def test_questions_about_accounts_come_from_their_index(plans):
    driver = plans.driver
    driver.conn.execute(
        "insert into sync_priv.account_checks (repo_id, ask_at)"
        " select repo_id, case when repo_id % 1000 = 0 then now() end from sync.repos"
        " on conflict do nothing"
    )
    driver.conn.execute("analyze sync_priv.account_checks")
    text = plans.of("select * from sync.claim_checks(50)")
    assert "account_checks_due" in text
    assert scans(text) == []


def test_lost_fetches_are_looked_for_among_those_that_run(plans):
    text = plans.of("select sync_priv.recover_lost_fetches()")
    assert "repos_fetching" in text
    assert scans(text) == []


@pytest.mark.parametrize("count", [1, 100])
def test_a_batch_of_the_stream_reads_only_its_repos(plans, count):
    driver = plans.driver
    events = [
        Event(f"did:web:r{n}.test", rev=11, since=10, ops=[Op("create", "x", "new")])
        for n in range(1, count + 1)
    ]
    with plans.recorded():
        driver.stage(events)
        driver.rows(
            "select * from sync.apply_events(%s, 0, %s, 9, 1)", driver.source_id, driver.token
        )
    assert "stage_events" in plans.text
    assert scans(plans.text) == []


@pytest.mark.parametrize("has_records", [True, False], ids=["resync", "first load"])
def test_a_reconcile_reads_only_the_stored_rows_of_its_repos(plans, has_records):
    driver = plans.driver
    with plans.recorded():
        claim = driver.claim_directly("did:web:r7.test" if has_records else did(1))
        assert claim.has_records == has_records
        driver.reconcile(claim, {f"k{n}": "text" for n in range(50)}, at=900, data="t900")
    assert "on stored_records" in plans.text
    assert scans(plans.text) == []


@pytest.mark.parametrize(
    "query",
    [
        "select * from sync.repo_identity(array['did:web:r1.test', 'did:web:r2.test'])",
        "select sync.resync_repos(array['did:web:r1.test'])",
        "select sync.untrack_repos(array['did:web:r1.test'])",
        "select sync.track_repos(array['did:web:new.test', 'did:web:r1.test'])",
        "select sync.set_identity('did:web:r1.test', 'a.test', 'https://pds1.test', 'did:key:z')",
        "select sync.doubt_identities(array['did:web:r1.test', 'did:web:r2.test'])",
        "select sync.fail_identity('did:web:r1.test', 'tombstoned')",
        "select sync.answer_check('did:web:r1.test', 1, 'https://pds1.test', 'active')",
        "select sync.fail_fetch(501, 1, 1, 'no')",
        "select sync.release_fetch(501, 1, 1)",
        "select * from sync.claim_import('did:web:r1.test')",
        "select sync.report_revs(array['did:web:r1.test'], array['3kb'], '{true}', '{null}')",
    ],
    ids=lambda query: query.partition("sync.")[2].partition("(")[0],
)
def test_what_concerns_one_repo_finds_it_by_an_index(plans, query):
    assert scans(plans.of(query)) == []


@pytest.mark.parametrize("scope", ["repo_id", "collection_id"])
def test_a_chunk_of_a_purge_reads_no_more_than_it_deletes(plans, scope):
    driver = plans.driver
    driver.maintain()
    driver.conn.execute(
        f"insert into sync_priv.purges ({scope}, started_at, settled_xid) values (2, now(), '3')"
    )
    text = plans.of("select sync.maintain()")
    driver.conn.execute("delete from sync_priv.purges")
    assert "Delete on stored_records" in text
    assert scans(text) == []


def test_one_collection_of_one_repo_is_read_by_key(plans):
    driver = plans.driver
    repo_id = driver.value("select repo_id from sync.repos where did = 'did:web:r9.test'")
    text = plans.of(
        "select * from sync.stored_records s join sync.collections c using (collection_id)"
        " where s.repo_id = %s and c.nsid = %s",
        repo_id,
        POST,
    )
    assert "stored_records_pkey" in text
    assert scans(text) == []


@pytest.fixture(scope="module")
def readers(plans):
    """Consumers of several kinds, ahead of 100,000 changes and at the start of a walk."""
    driver = plans.driver
    driver.maintain()  # makes the partitions
    driver.conn.execute(
        """
        select sync.create_consumer('all'), sync.create_consumer('one shard', p_shards => 4),
               sync.create_consumer('one collection', array['app.bsky.feed.*']),
               sync.create_consumer('one repo', p_dids => array['did:web:r9.test']);
        with numbers as (select last_value as last from sync_priv.change_ids)
        insert into sync.changes (change_id, kind, repo_id, collection_id, rkey, rev, cid, is_live,
                                  value, logged_at)
        select n.last + g, case when g % 1000 = 0 then 'snapshot' else 'update' end,
               g % 5000 + 1, 2, case when g % 1000 > 0 then 'r' || g end, '3kaaaaaaaaaaa',
               '\\x01711220' || sha256(''), true, '{}', now()
          from numbers n, generate_series(1, 100000) g;
        select setval('sync_priv.change_ids', (select max(change_id) from sync.changes));
        analyze sync.changes
        """
    )
    return driver


@pytest.mark.parametrize("name", ["all", "one shard", "one collection", "one repo"])
@pytest.mark.parametrize("is_at_head", [True, False], ids=["the walk", "the log"])
def test_a_reader_reads_only_what_it_delivers(plans, readers, name, is_at_head):
    with plans.recorded():
        readers.conn.execute(
            "update sync_priv.consumer_shards set frontier = 50000"
            + (", position = sync_priv.log_head()" if is_at_head else "")
        )
        plans.seen.clear()
        readers.conn.execute("set local auto_explain.log_analyze = on")
        readers.rows("select * from sync.read_changes(%s, 100)", name)
    assert scans(plans.text) == []
    looked_at = re.findall(r"actual .*?rows=([\d.]+)|Removed by Filter: (\d+)", plans.text)
    assert 1 <= max(float(kept or removed) for kept, removed in looked_at) <= 1_100
