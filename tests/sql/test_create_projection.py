"""sync.create_projection: what is refused, and that the message says what would help."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.postgres import Server
from tests.sql.driver import POST
from tests.sql.projecting import OTHER, ROLE, App, app_roles
from tests.sql.readers import Session, World


@pytest.fixture(scope="module", autouse=True)
def roles(postgres: Server) -> Iterator[None]:
    with app_roles(postgres):
        yield


@pytest.fixture
def app(db: Session) -> App:
    """Return an app with a table and a function, and a projection of another table."""
    World(db)
    app = App(db)
    app.make("taken")
    app.make("posts")
    app.call("drop", "posts")
    return app


def refusal(app: App, name: str = "posts", **more: object) -> psycopg.Error:
    """Return what the creation of a projection is refused with."""
    with pytest.raises(psycopg.Error) as caught, app.db.transaction():
        app.create(name, **more)  # type: ignore[arg-type]
    app.db.execute("reset role")
    return caught.value


SIGNATURE = "app.apply_posts(regclass, sync.change[])"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (f"alter function {SIGNATURE} security invoker",
         f"alter function {SIGNATURE} security definer"),
        (f"alter function {SIGNATURE} reset search_path",
         f"alter function {SIGNATURE} set search_path = app, pg_temp"),
        (f"revoke execute on function {SIGNATURE} from public",
         f"grant execute on function {SIGNATURE} to sync_ingester"),
        ("revoke usage on schema app from sync_ingester",
         "grant usage on schema app to sync_ingester"),
        ("alter table app.posts drop constraint posts_pkey", "app.posts has no primary key"),
        ("alter table app.posts drop rkey, add n int generated always as identity primary key",
         "numbered by itself"),
        ("alter table app.posts set unlogged", "alter table app.posts set logged"),
        ("alter table app.posts enable row level security, force row level security",
         "alter table app.posts no force row level security"),
        (f"grant all on schema app to {OTHER}; alter table app.posts owner to {OTHER}",
         f"do not both belong to {ROLE}"),
    ],
)  # fmt: skip
def test_the_message_says_what_would_help(app: App, spoil: str, told: str) -> None:
    app.db.execute(spoil.encode())
    error = refusal(app)
    assert error.sqlstate == "SY502"
    assert told in str(error)


def test_a_table_with_an_unlogged_partition_is_refused(app: App) -> None:
    with app.role():
        app.db.execute(
            "alter table app.posts rename to old;"
            " create table app.posts (like app.old, primary key (did, collection, rkey))"
            " partition by hash (did);"
            " create unlogged table app.part partition of app.posts"
            " for values with (modulus 1, remainder 0)"
        )
    assert "set logged" in str(refusal(app))


def test_what_makes_it_unfit_later_stops_it(app: App) -> None:
    app.create("posts")
    app.db.execute(f"alter function {SIGNATURE} security invoker".encode())
    app.settle("posts")
    assert app.status("posts")["state"] == "failed"
    assert "security definer" in app.status("posts")["error"]


@pytest.mark.parametrize("gone", ["table app.posts", f"function {SIGNATURE}", "schema app"])
def test_one_whose_table_or_function_is_gone_stops(app: App, gone: str) -> None:
    app.create("posts")
    app.db.execute(f"drop {gone} cascade".encode())
    app.settle("posts")
    assert app.status("posts")["state"] == "failed"
    app.call("drop", "posts")


def test_a_function_of_somebody_else_is_refused(app: App) -> None:
    with pytest.raises(psycopg.Error) as caught, app.db.transaction(), app.role(OTHER):
        app.db.execute(
            "select sync.create_projection('mine', 'pg_class'::regclass, null, %s::regprocedure)",
            [SIGNATURE],
        )
    assert caught.value.sqlstate in {"SY502", "42501"}


def test_a_function_of_another_signature_is_refused(app: App) -> None:
    app.db.execute("create function app.odd(regclass) returns int language sql return 1")
    with pytest.raises(psycopg.Error) as caught, app.db.transaction():
        app.db.execute(
            "select sync.create_projection('odd', 'app.posts', null, 'app.odd(regclass)')"
        )
    assert "does not take" in str(caught.value)


@pytest.mark.parametrize("name", ["", "x" * 101, None])
def test_a_name_is_of_some_length(app: App, name: str | None) -> None:
    with pytest.raises(psycopg.Error) as caught, app.db.transaction():
        app.db.execute(
            "select sync.create_projection(%s, 'app.posts', null, %s::regprocedure)",
            [name, SIGNATURE],
        )
    assert caught.value.sqlstate == "SY002"


def test_a_name_or_a_table_is_taken_once(app: App) -> None:
    assert refusal(app, "taken").sqlstate == "SY503"
    app.db.execute("alter table app.posts rename to other; alter table app.taken rename to posts")
    app.db.execute("update sync.projections set target_name = 'posts'")
    error = refusal(app, "posts")
    assert error.sqlstate == "SY503"


def test_a_bad_collection_is_refused(app: App) -> None:
    error = refusal(app, collections=["not a pattern"])
    assert error.sqlstate == "SY002"


def test_a_table_with_rows_is_refused_or_adopted(app: App) -> None:
    World(app.db).put(0, "a")
    app.db.execute("insert into app.posts values ('did:plc:x', 'a.b.c', 'old', 'cid')")
    assert refusal(app, collections=[POST]).sqlstate == "SY502"
    app.create("posts", [POST], adopt=True)
    assert {key[2] for key in app.kept("posts")} == {"a"}
