"""What a session does after the tables have grown, which nobody has analyzed yet.

A service lives for months, and PostgreSQL keeps the plans of its functions until the next ANALYZE
of what they read, a minute later at best. Whoever loads a million records must not make every
batch read them until then. What is planned anew meanwhile, sees how large the tables are.
"""

from collections.abc import Callable

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.postgres import TEMPLATE
from tests.sql.driver import POST, Driver, Event, Key, Op, did
from tests.sql.plans import ANALYZED, Plans, most_rows, show_plans

REPOS = 100_000
RECORDS = 300_000
# PostgreSQL decides about a plan to keep at the sixth call.
ROUNDS = 12
# More than any of the statements has to look at here.
MOST_ROWS = 2_000

WITHOUT_ANALYZE = """
    select format('alter table %s set (autovacuum_enabled = off)', c.oid::regclass)
      from pg_class c
     where c.relnamespace in ('sync'::regnamespace, 'sync_priv'::regnamespace)
       and c.relkind = 'r'
"""
GROW = f"""
set session_replication_role = replica;
insert into sync.repos (repo_id, did, host_id, tracked_by, sync_state, is_identity_stale,
                        filter_generation, next_fetch_at, created_at, updated_at)
       overriding system value
select case when n % 2 = 0 then n + 1000 else -n end, 'did:web:r' || n || '.test', 0, 'did',
       'synchronized', false, 0, '-infinity', now(), now()
  from generate_series(1, {REPOS}) n;
insert into sync.heads (repo_id, rev, data_cid, commit_block, seen_rev)
select r.repo_id, '3kaaaaaaaaaaa', '\\x01711220' || sha256(''), 'block', '3kaaaaaaaaaaa'
  from sync.repos r on conflict do nothing;
insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
select r.repo_id, c.collection_id, 'r' || n, '\\x01711220' || sha256(''), '3kaaaaaaaaaaa', '{{}}'
  from generate_series(1, {RECORDS}) n, sync.repos r, sync.collections c
 where r.did = 'did:web:r1.test' and c.nsid = '{POST}';
insert into sync_priv.held_events (repo_id, is_due, kind)
select r.repo_id, false, 'commit' from sync.repos r where r.did like 'did:web:%';
insert into sync_priv.account_checks (repo_id)
select r.repo_id from sync.repos r where r.did like 'did:web:%' on conflict do nothing;
"""


class Life:
    """What a service does all day with two repos; each round changes what the last one did."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.at = 10
        for number in range(1, 41):
            driver.load(number, {"a": "a", "b": "b"}, at=10, data="t10")
        driver.locate(1, 2)

    def commits(self) -> None:
        """Create, update and delete; account and identity events beside them."""
        self.at += 1
        before, after = f"t{self.at - 1}", f"t{self.at}"
        ops = [Op("create", f"n{self.at}", "new"), Op("update", "a", f"text {self.at}")]
        if self.at > 11:
            ops.append(Op("delete", f"n{self.at - 1}"))
        told = self.driver.apply(
            *(
                Event(did(n), rev=self.at, since=self.at - 1, before=before, data=after, ops=ops)
                for n in (1, 2)
            ),
            Event(did(1), kind="identity"),
            Event(did(2), kind="rejected"),
            Event(did(2), kind="account", is_active=True),
        )
        assert told["applied"] == 2

    def tick(self) -> None:
        """Apply nothing, as every half second."""
        self.driver.apply()

    def resync(self) -> None:
        """Compare the second repo with an export of it, in which one record is another."""
        self.at += 1
        claim = self.driver.claim_directly(2)
        records: dict[str | Key, str] = {"a": f"text {self.at}", "c": "c"}
        self.driver.reconcile(claim, records, at=self.at, data=f"t{self.at}")
        claim = self.driver.claim_directly(1)
        self.driver.reconcile(claim, records, at=self.at, data=f"t{self.at}")

    def identities(self) -> None:
        """Look everybody up who is in doubt, and ask how accounts stand."""
        self.driver.rows("select * from sync.claim_identities(50)")
        self.driver.locate(1, 2)
        self.driver.rows("select * from sync.claim_checks(50)")
        self.driver.rows("select sync.answer_check(%s, 1, 'https://pds.test', 'active')", did(1))

    def fetches(self) -> None:
        """Claim what is to be fetched, and give it back."""
        for row in self.driver.rows("select * from sync.claim_fetches(10, 10)"):
            self.driver.value(
                "select sync.release_fetch(%s, %s, %s)",
                row["repo_id"], row["generation"], row["fetch_token"],
            )  # fmt: skip

    def reading(self) -> None:
        """Read the log as an app does."""
        self.driver.rows("select * from sync.read_changes('app', 100)")

    def upkeep(self) -> None:
        """Do what is due."""
        self.driver.maintain()


ACTS: dict[str, Callable[[Life], None]] = {
    name: getattr(Life, name)
    for name in ("commits", "tick", "resync", "identities", "fetches", "reading", "upkeep")
}


@pytest.fixture(scope="module")
def aged(postgres):
    """A session that has done everything often, in a database that has grown since."""
    with (
        postgres.database(template=TEMPLATE) as name,
        psycopg.connect(postgres.admin_url(name), row_factory=dict_row, autocommit=True) as conn,
        psycopg.connect(postgres.admin_url(name), autocommit=True) as other,
    ):
        for (statement,) in other.execute(WITHOUT_ANALYZE).fetchall():
            other.execute(statement.encode())
        conn.execute("select sync.create_consumer('app')")
        life = Life(Driver(conn))
        for number in range(2 * ROUNDS):
            for act in ACTS.values():
                act(life)
            if number == ROUNDS:  # how small they are is known, and every plan is made anew
                other.execute("vacuum full analyze")
        other.execute(GROW.encode())
        show_plans(conn, ANALYZED)
        yield Plans(life.driver), life


@pytest.mark.parametrize("name", ACTS)
def test_no_plan_that_is_kept_reads_all_records(aged, name):
    plans, life = aged
    plans.seen.clear()
    ACTS[name](life)
    worst = max(plans.seen, key=most_rows)
    assert most_rows(worst) < RECORDS / 2, worst


@pytest.mark.parametrize("name", ACTS)
def test_nothing_large_is_read_through_by_plans_made_afterwards(aged, name):
    plans, life = aged
    life.driver.conn.execute("discard plans")
    plans.seen.clear()
    ACTS[name](life)
    large = [plan for plan in plans.seen if most_rows(plan) > MOST_ROWS]
    assert not large, f"{len(large)} of {len(plans.seen)}:\n" + "\n".join(large)
