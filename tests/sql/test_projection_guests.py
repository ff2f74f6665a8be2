"""What an app's function leaves behind does no harm: to the service, to others, to itself."""

from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests.postgres import Server
from tests.sql.driver import POST, Driver, did
from tests.sql.projecting import ROLE, App, app_roles
from tests.sql.readers import Session, World
from tests.sql.waiting import background, wait_until_blocked

GATE = 4713


@pytest.fixture(scope="module", autouse=True)
def roles(postgres: Server) -> Iterator[None]:
    with app_roles(postgres):
        yield


@pytest.fixture
def world(db: Session) -> World:
    world = World(db)
    world.put(0, "a")
    world.put(0, "b")
    return world


@pytest.fixture
def app(world: World) -> App:
    return App(world.db)


@pytest.mark.parametrize(
    "deed",
    [
        "set role none",
        "set local role none",
        "reset role",
        "set session authorization default",
        "commit",
        "rollback",
        "savepoint x",
        "declare kept cursor with hold for select 1",
        "truncate sync.stored_records",
        "select sync.track_repos(array[''did:plc:x''])",
        "select sync.run_projection(''others'')",
        "select sync_priv.take_changes(gen_random_uuid(), 10)",
        "select sync.drop_projection(''others'')",
        "select sync.read_changes(''reader'')",
    ],
)
def test_a_deed_that_is_not_its_own_stops_a_projection(world: World, app: App, deed: str) -> None:
    app.make("posts", after=f"execute '{deed}'")
    app.make("others")
    app.db.execute("select sync.create_consumer('reader')")
    app.run("posts")
    assert app.status("posts")["state"] == "failed"
    assert app.status("posts")["error_key"] == f"at://{did(0)}/{POST}/a"
    assert app.kept("posts") == {}
    assert app.db.execute("select from pg_cursors where is_holdable").fetchall() == []
    app.settle("others")
    assert app.kept("others") == world.records()


def test_a_search_path_is_not_left_to_what_runs_next(world: World, app: App) -> None:
    """An operator of the app's would be called by our own expressions, with our rights."""
    app.db.execute("create schema trap")
    app.db.execute("create table trap.called (by_whom text)")
    app.db.execute("grant all on schema trap to public; grant all on trap.called to public")
    for name, operator, left, right, returned in (
        ("divide", "/", "int", "int", "int"),
        ("join", "||", "text", "text", "text"),
        ("equal", "=", "text", "text", "boolean"),
        ("more", ">", "bigint", "bigint", "boolean"),
        ("less", "<", "bigint", "int", "boolean"),
        ("add", "+", "bigint", "bigint", "bigint"),
    ):
        app.db.execute(
            f"create function trap.{name}({left}, {right}) returns {returned}"
            " language plpgsql as $$ begin insert into trap.called values (current_user);"
            f" return $1 operator(pg_catalog.{operator}) $2; end $$;"
            f"create operator trap.{operator} (function = trap.{name},"
            f" leftarg = {left}, rightarg = {right})".encode()
        )
    app.make("posts", after="perform set_config('search_path', 'trap, pg_catalog', false)")
    for _ in range(3):
        app.run("posts", 1)
        app.db.execute("set search_path = pg_catalog, pg_temp")
    assert app.kept("posts") == world.records()
    assert app.db.execute("select distinct by_whom from trap.called").fetchall() == []


def test_a_deferred_trigger_never_fires_with_our_rights(world: World, app: App) -> None:
    app.make("posts", [POST])
    app.db.execute(
        "create function app.later() returns trigger language plpgsql as"
        " $$ begin raise exception 'it fired as %', current_user; end $$;"
        "create constraint trigger later after insert on app.posts"
        " deferrable initially deferred for each row execute function app.later()"
    )
    app.db.execute("set constraints all deferred")
    app.run("posts")
    assert app.status("posts")["state"] == "failed"
    assert "deferrable trigger" in app.status("posts")["error"]
    app.db.execute("set constraints all immediate")


def test_a_deferred_constraint_is_checked_where_its_change_is_known(world: World, app: App) -> None:
    app.make("posts", [POST])
    app.db.execute(
        "create table app.known (rkey text primary key); insert into app.known values ('a');"
        "alter table app.posts add constraint knows foreign key (rkey) references app.known"
        " deferrable initially deferred;"
        f"alter table app.known owner to {ROLE}"
    )
    app.db.execute("set constraints all deferred")
    app.run("posts")
    status = app.status("posts")
    assert (status["state"], status["error_key"]) == ("failed", f"at://{did(0)}/{POST}/b")
    assert "23503" in status["error"]
    assert {key[2] for key in app.kept("posts")} == {"a"}


def test_a_function_that_is_replaced_while_it_runs_is_undone(world: World, app: App) -> None:
    """Also by itself: what ran may not have been what was looked at."""
    app.make(
        "posts",
        after="alter function app.apply_posts(regclass, sync.change[]) cost 7",
    )
    with pytest.raises(psycopg.errors.SerializationFailure), app.db.transaction():
        app.run("posts")
    app.db.execute("reset role")
    assert app.kept("posts") == {}


def test_one_that_another_session_replaces_meanwhile_is_undone(
    session: Callable[..., Session],
) -> None:
    """What was called may have been the other one, with the rights of the service."""
    lane = Driver(session())
    lane.load(0, {"a": "text"}, at=10, data="tree")
    app, runner, holder = App(session()), App(session(), is_new=False), session()
    app.make("posts", before=f"perform pg_advisory_xact_lock({GATE})")
    holder.execute("select pg_advisory_lock(%s)", [GATE])
    with background(runner.db, lambda: runner.run("posts")) as running:
        wait_until_blocked(holder, runner.db)
        app.define("posts")
        holder.execute("select pg_advisory_unlock(%s)", [GATE])
    assert isinstance(running.exception(), psycopg.errors.SerializationFailure)
    assert app.kept("posts") == {}
    app.settle("posts")
    assert len(app.kept("posts")) == 1


def test_a_record_that_fits_no_index_stops_at_its_key(world: World, app: App) -> None:
    app.make("posts", [POST], after="perform 1")
    app.db.execute("create table app.wide (t text primary key)")
    app.db.execute(f"alter table app.wide owner to {ROLE}")
    app.define(
        "posts",
        after="insert into wide select string_agg(md5(n::text), '')"
        " from generate_series(1, 1000) n where exists"
        " (select from unnest(changes) c where c.rkey = 'b') having count(*) > 0",
    )
    app.run("posts")
    assert app.status("posts")["error_key"] == f"at://{did(0)}/{POST}/b"
    assert "54000" in app.status("posts")["error"]
