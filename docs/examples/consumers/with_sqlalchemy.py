"""Keep `posts` and `post_counts` current with SQLAlchemy's ORM."""

import os
import signal
import sys
import time
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from typing import Any

import psycopg
from sqlalchemy import Connection, create_engine, delete, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

URL = sys.argv[1] if len(sys.argv) > 1 else os.environ["STANDPIPE_DATABASE_URL"]
POLL_S = int(os.environ.get("POLL_S", "30"))

MAKE = text("""
select sync.create_consumer('posts', p_collections => '{app.bsky.feed.post}')
 where not exists (select from sync.consumer_status where name = 'posts')
""")
# A purge comes for other collections than ours, too.
READ = text("""
select kind, did, rkey, value ->> 'text' as text from sync.read_changes('posts')
 where kind <> 'purge' or coalesce(collection, 'app.bsky.feed.post') = 'app.bsky.feed.post'
""")
IS_AT_REST = text("select is_at_rest from sync.consumer_status where name = 'posts'")
signals: list[int] = []


class Base(DeclarativeBase):
    """What the app's models have in common."""


class Post(Base):
    """A post of a tracked account."""

    __tablename__ = "posts"
    did: Mapped[str] = mapped_column(primary_key=True)
    rkey: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str | None]


class PostCount(Base):
    """How many posts an account has."""

    __tablename__ = "post_counts"
    did: Mapped[str] = mapped_column(primary_key=True)
    posts: Mapped[int]


def apply(session: Session, run: Iterable[Any]) -> None:
    """Apply a run of changes of one kind, and write it: a count once for each account."""
    for kind, did, rkey, content in run:
        if kind == "create":
            session.add(Post(did=did, rkey=rkey, text=content))
            count = session.get(PostCount, did) or PostCount(did=did, posts=0)
            count.posts += 1
            session.add(count)
        elif kind == "update":
            session.get_one(Post, (did, rkey)).text = content
        elif kind == "delete":
            session.delete(session.get_one(Post, (did, rkey)))
            session.get_one(PostCount, did).posts -= 1
        elif kind == "purge":
            for model in (Post, PostCount):
                session.execute(delete(model).where(model.did == (did or model.did)))
    session.flush()


def follow(connection: Connection) -> None:
    """Read and apply until a signal; in between wait for NOTIFY."""
    with connection.begin():
        connection.execute(text("listen sync_changes"))
        connection.execute(MAKE)
    driver: Any = connection.connection.driver_connection
    while not signals:
        with Session(connection) as session, session.begin():
            changes = session.execute(READ).all()
            for _, run in groupby(changes, key=attrgetter("kind")):
                apply(session, run)
            is_at_rest = session.scalar(IS_AT_REST)
        if not changes and is_at_rest:
            for _ in range(POLL_S):  # a second at a time, so that a signal is seen
                if signals or any(driver.notifies(timeout=1, stop_after=1)):
                    break


for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: signals.append(number))
engine = create_engine(make_url(URL).set(drivername="postgresql+psycopg"))
while not signals:
    try:
        with engine.connect() as connection:
            follow(connection)
    except (OperationalError, psycopg.OperationalError) as error:
        print(error, file=sys.stderr)
        time.sleep(1)
