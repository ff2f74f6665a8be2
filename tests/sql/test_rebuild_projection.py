"""sync.rebuild_projection: only the difference is written, and nothing falls between."""

from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests.postgres import Server
from tests.sql.driver import POST, Driver, did
from tests.sql.projecting import App, app_roles
from tests.sql.readers import Session, World
from tests.sql.waiting import background, wait_until_blocked

GATE = 4711

_FOUR_COLUMNS = """
    execute format($q$
      insert into %s (did, collection, rkey, cid) select c.did, c.collection, c.rkey, c.cid
        from unnest($1) c where c.op = 'put'
    $q$, target) using changes;
    return
"""
_TREES = """
    execute format($q$
      insert into %s select c.rkey::public.ltree, c.cid from unnest($1) c where c.op = 'put'
    $q$, target) using changes;
    return
"""
_SIZES = """
    execute format($q$
      insert into %s select (ascii(c.rkey) - 96)::numeric(9, 1), c.rkey
        from unnest($1) c where c.op = 'put'
    $q$, target) using changes;
    return
"""


@pytest.fixture(scope="module", autouse=True)
def roles(postgres: Server) -> Iterator[None]:
    with app_roles(postgres):
        yield


@pytest.fixture
def world(db: Session) -> World:
    world = World(db)
    for rkey in "abcd":
        world.put(0, rkey)
    return world


@pytest.fixture
def app(world: World) -> App:
    app = App(world.db)
    app.make("posts", [POST])
    app.settle("posts")
    return app


def log_writes(app: App) -> None:
    """Note every statement that writes to the table, and how many rows it touches."""
    app.db.execute("create table app.writes (what text, number bigint)")
    app.db.execute(
        "create function app.note_write() returns trigger language plpgsql security definer"
        " set search_path = app, pg_temp as $$ begin"
        " insert into writes select tg_op, count(*) from touched; return null; end $$"
    )
    for what, table in (("insert", "new"), ("update", "new"), ("delete", "old")):
        app.db.execute(
            f"create trigger on_{what} after {what} on app.posts"
            f" referencing {table} table as touched"
            " for each statement execute function app.note_write()".encode()
        )


def test_only_the_difference_is_written(world: World, app: App) -> None:
    app.db.execute("delete from app.posts where rkey = 'a'")
    app.db.execute("update app.posts set cid = 'wrong' where rkey = 'b'")
    app.db.execute("insert into app.posts values ('did:plc:x', 'a.b.c', 'stray', 'cid')")
    log_writes(app)
    assert app.call("rebuild", "posts") == {"deleted": 1, "updated": 1, "inserted": 1}
    assert app.kept("posts") == world.records()
    rows = app.db.execute("select what, number from app.writes").fetchall()
    assert [tuple(row.values()) for row in rows] == [("DELETE", 1), ("UPDATE", 1), ("INSERT", 1)]
    assert app.call("rebuild", "posts") == {"deleted": 0, "updated": 0, "inserted": 0}


def test_what_comes_after_is_applied_to_it(world: World, app: App) -> None:
    world.remove(0, "a")
    world.put(0, "b")
    app.call("rebuild", "posts")
    assert app.status("posts")["is_at_rest"]
    world.put(0, "e")
    world.remove(0, "c")
    app.settle("posts")
    assert app.kept("posts") == world.records()


def test_it_mends_a_table_whose_function_has_changed(world: World, app: App) -> None:
    app.define("posts", before="raise exception 'no'")
    world.put(0, "e")
    app.settle("posts")
    assert app.status("posts")["state"] == "failed"
    app.define("posts")
    app.call("rebuild", "posts")
    assert (app.status("posts")["state"], app.status("posts")["error"]) == ("running", None)
    assert app.kept("posts") == world.records()


def test_a_change_that_cannot_be_applied_leaves_everything_as_it_was(
    world: World, app: App
) -> None:
    before, status = app.kept("posts"), app.status("posts")
    app.define(
        "posts",
        before="if exists (select from unnest(changes) c where c.rkey = 'c')"
        " then raise exception 'no'; end if",
    )
    with pytest.raises(psycopg.Error) as caught, app.db.transaction():
        app.call("rebuild", "posts")
    app.db.execute("reset role")
    assert caught.value.sqlstate == "SY504"
    assert f"at://{did(0)}/{POST}/c" in str(caught.value)
    assert app.kept("posts") == before
    assert app.status("posts") | {"lag_seconds": 0} == status | {"lag_seconds": 0}


def test_a_function_that_ignores_its_target_empties_nothing(world: World, app: App) -> None:
    app.define("posts", before="target := 'app.posts'::regclass")
    with pytest.raises(psycopg.Error) as caught, app.db.transaction():
        app.call("rebuild", "posts")
    app.db.execute("reset role")
    assert caught.value.sqlstate == "SY502"
    assert app.kept("posts") == world.records()


def test_columns_that_a_table_makes_itself_are_left_to_it(world: World, app: App) -> None:
    app.db.execute(
        "alter table app.posts add number bigint generated always as identity,"
        " add shout text generated always as (upper(rkey)) stored, add extra json"
    )
    with app.role():
        app.db.execute(
            "create or replace function app.apply_posts(target regclass, changes sync.change[])"
            " returns void language plpgsql security definer set search_path = app, pg_temp as $a$"
            " begin execute format('insert into %s (did, collection, rkey, cid, extra)"
            " select c.did, c.collection, c.rkey, c.cid, ''[1]'' from unnest($1) c"
            " where op = ''put'' ', target) using changes; end $a$"
        )
    numbers = app.db.execute("select rkey, number from app.posts order by 1").fetchall()
    app.db.execute("delete from app.posts where rkey = 'd'")
    done = app.call("rebuild", "posts")
    assert done == {"deleted": 0, "updated": 3, "inserted": 1}
    after = app.db.execute("select rkey, number from app.posts order by 1").fetchall()
    assert after[:3] == numbers[:3]
    assert app.call("rebuild", "posts")["updated"] == 0


def test_a_key_that_the_table_makes_itself_tells_its_rows(world: World, app: App) -> None:
    app.db.execute(
        "alter table app.posts drop constraint posts_pkey;"
        ' alter table app.posts add name text collate "C" generated always as (rkey) stored,'
        " add primary key (did, name), add unique (did, collection, rkey)"
    )
    app.db.execute("update app.posts set cid = 'wrong' where rkey = 'a'")
    app.db.execute("delete from app.posts where rkey = 'b'")
    app.db.execute(
        "insert into app.posts (did, collection, rkey, cid) values (%s, 'x', 'z', 'z')", [did(0)]
    )
    assert app.call("rebuild", "posts") == {"deleted": 1, "updated": 1, "inserted": 1}
    assert app.kept("posts") == world.records()


def test_columns_may_have_any_name(world: World, app: App) -> None:
    for name in ("n", "o", "s", "t", "put", "old"):
        app.db.execute(f"alter table app.posts add {name} int".encode())
    app.db.execute("update app.posts set n = 1, t = 2 where rkey = 'a'")
    app.define("posts", before=_FOUR_COLUMNS)
    assert app.call("rebuild", "posts") == {"deleted": 0, "updated": 1, "inserted": 0}
    assert app.db.execute("select from app.posts where n = 1 or t = 2").fetchall() == []


def test_a_key_may_be_of_a_type_from_elsewhere(world: World, app: App) -> None:
    app.db.execute("create extension ltree with schema public")
    with app.role():
        app.db.execute("create table app.trees (path public.ltree primary key, cid text)")
    app.define("trees", before=_TREES)
    app.create("trees")
    app.settle("trees")
    app.db.execute("delete from app.trees where path = 'a'")
    app.db.execute("update app.trees set cid = 'wrong' where path = 'b'")
    app.db.execute("insert into app.trees values ('x.y')")
    assert app.call("rebuild", "trees") == {"deleted": 1, "updated": 1, "inserted": 1}
    rows = app.db.execute("select path::text, cid from app.trees").fetchall()
    assert {row["path"]: row["cid"] for row in rows} == {
        rkey: cid for (_, _, rkey), cid in world.records().items()
    }


def test_a_key_is_written_as_it_is_worked_out(world: World, app: App) -> None:
    """Numbers, and texts of some collations, are equal in more than one way of writing."""
    with app.role():
        app.db.execute("create table app.sizes (size numeric primary key, rkey text)")
    app.define("sizes", before=_SIZES)
    app.create("sizes")
    app.settle("sizes")
    app.db.execute("update app.sizes set size = 1.00 where rkey = 'a'")
    assert app.call("rebuild", "sizes") == {"deleted": 0, "updated": 1, "inserted": 0}
    row = app.db.execute("select size::text from app.sizes where rkey = 'a'").fetchone()
    assert row == {"size": "1.0"}


def test_rows_exchange_a_unique_value_where_its_constraint_is_deferrable(
    world: World, app: App
) -> None:
    app.db.execute("alter table app.posts add unique (cid) deferrable")
    app.db.execute(
        "update app.posts p set cid = o.cid from app.posts o"
        " where (p.rkey, o.rkey) in (('a', 'b'), ('b', 'a'))"
    )
    assert app.kept("posts") != world.records()
    assert app.call("rebuild", "posts") == {"deleted": 0, "updated": 2, "inserted": 0}
    assert app.kept("posts") == world.records()


def test_a_table_may_have_as_long_a_name_as_there_is(world: World, app: App) -> None:
    name = "ж" * 31 + "x"
    app.make(name)
    app.settle(name)
    assert app.call("rebuild", name) == {"deleted": 0, "updated": 0, "inserted": 0}
    assert app.kept(name) == world.records()


def test_it_is_refused_where_rows_of_its_own_are_ahead_of_the_log(world: World, app: App) -> None:
    app.db.execute("set constraints all deferred")
    world.put(0, "e")
    with pytest.raises(psycopg.Error) as caught, app.db.transaction():
        app.call("rebuild", "posts")
    app.db.execute("reset role")
    assert caught.value.sqlstate == "SY502"
    app.db.execute("set constraints all immediate")
    assert app.call("rebuild", "posts")["inserted"] == 1


def test_nothing_is_left_of_the_shadow(world: World, app: App) -> None:
    app.call("rebuild", "posts")
    rows = app.db.execute("select from pg_class where relname like 'rebuild%'")
    assert rows.fetchall() == []


def test_what_is_committed_while_it_walks_is_neither_lost_nor_applied_twice(
    session: Callable[..., Session],
) -> None:
    """The function waits in the first of several batches;
    meanwhile records come, change, go and are loaded.
    """
    lane = Driver(session())
    lane.load(0, {f"{n}": f"text {n}" for n in range(6)}, at=10, data="tree")
    lane.track(1)
    app = App(session())
    app.make(
        "posts",
        before=f"""if target <> 'app.posts'::regclass then
          if cardinality(changes) > 2 then raise exception 'too many at once'; end if;
          perform pg_advisory_xact_lock({GATE});
        end if""",
    )
    app.settle("posts")
    watcher = session()
    watcher.execute("select pg_advisory_lock(%s)", [GATE])
    with background(app.db, lambda: app.call("rebuild", "posts")) as rebuilt:
        wait_until_blocked(watcher, app.db)
        lane.reconcile(
            lane.claim_directly(0),
            {"0": "changed", "1": "text 1", "new": "text"},
            at=20,
            data="other tree",
        )
        lane.reconcile(lane.claim_directly(1), {"a": "loaded"}, at=30, data="tree 1")
        assert len(watcher.execute("select from app.posts").fetchall()) == 6
        watcher.execute("select pg_advisory_unlock(%s)", [GATE])
    assert rebuilt.result()["inserted"] > 0
    rows = watcher.execute("select did, collection, rkey, cid from sync.records").fetchall()
    records = {(row["did"], row["collection"], row["rkey"]): row["cid"] for row in rows}
    app.settle("posts")
    assert app.kept("posts") == records
    app.call("rebuild", "posts")
    assert app.kept("posts") == records
