"""sync.run_projection: a table of an app is what sync.records shows, whatever happens between."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.postgres import Server
from tests.sql.driver import LIKE, POST, did
from tests.sql.projecting import OTHER, ROLE, App, app_roles
from tests.sql.readers import Session, World

SEEN = """
    create table app.seen (batch bigint generated always as identity, changes sync.change[])
"""
NOTE_SEEN = "insert into seen (changes) values (changes)"
FAIL_AT = """if exists (select from unnest(changes) c where c.op = 'put' and c.rkey = 'bad')
             then raise {what}; end if"""


@pytest.fixture(scope="module", autouse=True)
def roles(postgres: Server) -> Iterator[None]:
    with app_roles(postgres):
        yield


@pytest.fixture
def world(db: Session) -> World:
    return World(db)


@pytest.fixture
def app(world: World) -> App:
    """Return an app whose tables hold nothing yet."""
    return App(world.db)


def given(app: App) -> list[list[tuple[str, str | None, str | None]]]:
    """Return the batches that the function noted: op, rkey, and for a purge its collection."""
    rows = app.db.execute("select to_jsonb(changes) as given from app.seen order by batch")
    return [
        [(c["op"], c["rkey"], c["collection"] if c["op"] == "purge" else None) for c in r["given"]]
        for r in rows.fetchall()
    ]


def test_a_table_is_what_the_records_are_whatever_happens(world: World, app: App) -> None:
    world.load(0, "abc")
    world.load(1, "xy", collection=LIKE)
    app.make("posts")
    app.settle("posts", 2)
    assert app.kept("posts") == world.records()
    steps = [
        lambda: world.put(0, "d"),
        lambda: world.put(0, "a"),
        lambda: world.remove(0, "b"),
        lambda: world.take_down(0),
        lambda: world.put(0, "e"),
        lambda: world.restore(0),
        lambda: world.untrack(1),
        lambda: world.purge_chunk(1, rows=10),
        lambda: world.track(1),
        lambda: world.load(1, "xz", collection=LIKE),
    ]
    for step in steps:
        step()
        app.settle("posts", 3)
        assert app.kept("posts") == world.records()


def test_a_projection_is_given_its_collections_only(world: World, app: App) -> None:
    app.make("posts", [POST], before=NOTE_SEEN)
    app.db.execute(SEEN)
    app.db.execute(f"alter table app.seen owner to {ROLE}")
    world.put(0, "a")
    world.put(0, "b", collection=LIKE)
    app.settle("posts")
    assert set(app.kept("posts")) == {(did(0), POST, "a")}
    app.db.execute("select sync.track_collections(array[%s])", [POST])
    app.db.execute("select sync.untrack_collections(array['*'])")
    app.settle("posts")
    assert ("purge", None, LIKE) not in [each for batch in given(app) for each in batch]


def test_a_function_is_given_the_net_effect(world: World, app: App) -> None:
    app.make("posts", [POST], before=NOTE_SEEN)
    app.db.execute(SEEN)
    app.db.execute(f"alter table app.seen owner to {ROLE}")
    world.put(0, "stays")
    world.put(0, "goes")
    app.settle("posts")
    app.db.execute("truncate app.seen")
    world.put(0, "comes and goes")
    world.remove(0, "comes and goes")
    world.put(0, "stays")
    world.put(0, "stays")
    world.remove(0, "goes")
    world.put(1, "before a purge")
    world.take_down(1)
    world.restore(1)
    app.settle("posts")
    assert given(app) == [
        [("purge", None, None), ("put", "stays", None), ("delete", "goes", None)],
        [("put", "before a purge", None)],
    ]
    assert app.kept("posts") == world.records()


def test_a_change_has_everything_a_record_has(world: World, app: App) -> None:
    app.make("posts", [POST], before=NOTE_SEEN)
    app.db.execute(SEEN)
    app.db.execute(f"alter table app.seen owner to {ROLE}")
    world.put(0, "a")
    app.settle("posts")
    row = app.db.execute("select (changes[1]).* from app.seen").fetchone()
    record = app.db.execute(
        "select 'put' as op, did, collection, rkey, uri, cid, rev, value, raw, reason"
        " from sync.records"
    ).fetchone()
    assert row == record


@pytest.mark.parametrize(
    ("what", "sqlstate"),
    [
        ("exception 'no'", "P0001"),
        ("division_by_zero", "22012"),
        ("unique_violation", "23505"),
        ("undefined_table", "42P01"),
        ("case_not_found", "20000"),
        ("triggered_data_change_violation", "27000"),
        ("assert_failure", "P0004"),
        ("exception 'no' using errcode = 'APP01'", "APP01"),
    ],
)
def test_what_cannot_be_applied_stops_a_projection_alone(
    world: World, app: App, what: str, sqlstate: str
) -> None:
    app.make("posts", before=FAIL_AT.format(what=what))
    app.make("others")
    for rkey in ("a", "b", "bad", "c"):
        world.put(0, rkey)
    assert app.run("posts") == 2
    status = app.status("posts")
    assert status["state"] == "failed"
    assert sqlstate in status["error"]
    assert status["error_key"] == f"at://{did(0)}/{POST}/bad"
    assert {key[2] for key in app.kept("posts")} == {"a", "b"}
    assert app.run("posts") == 0
    app.settle("others")
    assert app.kept("others") == world.records()
    app.define("posts")
    app.call("resume", "posts")
    app.settle("posts")
    assert app.kept("posts") == world.records()
    assert app.status("posts")["error"] is None


def test_an_error_says_which_values_and_which_line(world: World, app: App) -> None:
    app.make("posts")
    app.settle("posts")
    app.db.execute("alter table app.posts add unique (collection)")
    for rkey in ("a", "b"):
        world.put(0, rkey)
    app.run("posts")
    error = app.status("posts")["error"]
    assert f"(23505): Key (collection)=({POST}) already exists, in apply_posts(" in error
    assert " line " in error


def test_a_purge_that_cannot_be_applied_is_named(world: World, app: App) -> None:
    failing = "if (changes[1]).op = 'purge' then raise exception 'no'; end if"
    app.make("posts", before=failing)
    world.put(0, "a")
    app.settle("posts")
    world.take_down(0)
    app.settle("posts")
    assert app.status("posts")["error_key"] == f"purge of {did(0)} in all collections"


@pytest.mark.parametrize(
    "what",
    [
        "serialization_failure",
        "deadlock_detected",
        "lock_not_available",
        "disk_full",
        "query_canceled",
        "admin_shutdown",
        "io_error",
        "internal_error",
        "sqlclient_unable_to_establish_sqlconnection",
        "exception 'a remote server is away' using errcode = 'HV00N'",
    ],
)
def test_what_may_pass_is_raised_and_nothing_is_lost(world: World, app: App, what: str) -> None:
    app.make("posts", before=f"raise {what}")
    world.put(0, "a")
    with pytest.raises(psycopg.Error), app.db.transaction():
        app.run("posts")
    app.db.execute("reset role")
    app.db.execute("select sync.note_projection_error('posts', 'again')")
    status = app.status("posts")
    assert (status["state"], status["error"]) == ("running", "again")
    app.define("posts")
    app.settle("posts")
    assert app.kept("posts") == world.records()
    assert app.status("posts")["error"] is None


def test_a_paused_projection_waits(world: World, app: App) -> None:
    app.make("posts")
    app.call("pause", "posts")
    world.put(0, "a")
    assert app.run("posts") == 0
    app.call("resume", "posts", role="sync_owner")
    app.settle("posts")
    assert app.kept("posts") == world.records()


def test_a_dropped_projection_leaves_its_table_and_nothing_else(world: World, app: App) -> None:
    world.put(0, "a")
    app.make("posts")
    app.settle("posts")
    app.call("drop", "posts")
    assert app.kept("posts") == world.records()
    for table in ("sync.projections", "sync.consumers", "sync_priv.consumer_shards"):
        assert app.db.execute(f"select from {table}".encode()).fetchall() == []
    with app.role(), pytest.raises(psycopg.Error) as caught, app.db.transaction():
        app.db.execute("select sync.run_projection('posts')")
    assert caught.value.sqlstate == "SY501"


def test_nobody_else_works_on_a_projection(world: World, app: App) -> None:
    app.make("posts", before=FAIL_AT.format(what="exception 'a secret'"))
    world.put(0, "bad")
    app.settle("posts")
    for function in ("run", "pause", "resume", "rebuild", "drop"):
        with pytest.raises(psycopg.Error) as caught, app.db.transaction():
            app.call(function, "posts", role=OTHER)
        assert caught.value.sqlstate == "SY501", function
        app.db.execute("reset role")
    with app.role(OTHER):
        row = app.status("posts")
    assert (row["state"], row["error"], row["error_key"]) == ("failed", None, None)


def test_nobody_reads_or_drops_its_consumer(world: World, app: App) -> None:
    app.make("posts")
    world.put(0, "a")
    for call in ("read_changes", "replay", "drop_consumer"):
        for role in (ROLE, "sync_owner"):
            with pytest.raises(psycopg.Error) as caught, app.db.transaction(), app.role(role):
                app.db.execute(f"select sync.{call}('projection posts')".encode())
            assert caught.value.sqlstate == "SY302"
            app.db.execute("reset role")


def test_one_that_the_log_has_outrun_starts_over_by_itself(world: World, app: App) -> None:
    app.make("posts")
    world.put(0, "a")
    world.put(0, "b")
    app.settle("posts")
    world.remove(0, "a")
    app.db.execute("update sync_priv.consumer_shards set is_lost = true")
    app.settle("posts", 2)
    assert app.kept("posts") == world.records()


def test_everything_that_came_before_a_failure_in_one_call_is_kept(world: World, app: App) -> None:
    app.make("posts", before=FAIL_AT.format(what="exception 'no'"))
    for number in range(20):
        world.put(0, f"{number:02}")
    world.put(0, "bad")
    assert app.run("posts") == 20


def test_the_status_says_how_far_it_is(world: World, app: App) -> None:
    world.load(0, "abcd")
    app.make("posts")
    assert app.status("posts")["is_walking"]
    app.settle("posts")
    assert app.status("posts")["is_at_rest"]
    world.put(0, "e")
    status = app.status("posts")
    assert (status["lag_rows"], status["is_at_rest"]) == (1, False)
    assert (status["target"], status["apply"]) == ("app.posts", "app.apply_posts")
    assert (status["owner_name"], status["collections"]) == (ROLE, None)
    assert status["applied_at"] is not None


LARGE = """
    insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
    select r.repo_id, c.collection_id, 'large' || n, '\\x01711220' || sha256(n::text::bytea),
           '3kaaaaaaaaaaa',
           jsonb_build_object('text', (select string_agg(md5(m::text || n), '')
                                         from generate_series(1, 32) m))
      from sync.repos r, sync.collections c, generate_series(1, 20) n
     where r.did = %s and c.nsid = %s
"""
NOTE_SIZE = """
    insert into sizes (number, bytes)
    select count(*), sum(pg_column_size(c.value)) from unnest(changes) c
"""


@pytest.mark.parametrize("is_rebuilt", [False, True])
def test_a_batch_is_bounded_in_bytes_too(world: World, app: App, *, is_rebuilt: bool) -> None:
    """Twenty records of 1 kB; a batch holds 4 kB, or one record that is larger."""
    world.put(0, "small")
    app.db.execute(
        "create or replace function sync_priv.batch_bytes() returns bigint"
        " language sql immutable as $$ select 4096::bigint $$"
    )
    with app.role():
        app.db.execute("create table app.sizes (number int, bytes int)")
    app.make("posts")
    app.settle("posts")
    app.define("posts", before=NOTE_SIZE)
    app.db.execute(LARGE.encode(), [did(0), POST])
    if is_rebuilt:
        app.call("rebuild", "posts")
    else:
        app.settle("posts")
    assert app.kept("posts") == world.records()
    sizes = app.db.execute("select number, bytes from app.sizes").fetchall()
    assert max(row["bytes"] for row in sizes) <= 4096
    assert max(row["number"] for row in sizes) > 1


def test_a_change_that_is_larger_than_a_batch_comes_alone(world: World, app: App) -> None:
    app.db.execute(
        "create or replace function sync_priv.batch_bytes() returns bigint"
        " language sql immutable as $$ select 100::bigint $$"
    )
    app.make("posts")
    app.db.execute(LARGE.encode(), [did(0), POST])
    app.settle("posts")
    assert app.kept("posts") == world.records()
