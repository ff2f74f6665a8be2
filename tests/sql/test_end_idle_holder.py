"""sync.end_idle_holder(): nobody idles with the lock that every commit to the log needs."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import DictRow, dict_row

from tests.postgres import Server
from tests.sql.driver import Driver, Event, Op, did
from tests.sql.waiting import PATIENCE_S, Session, background, wait_until_blocked

NEVER, AT_ONCE = "1 hour", "0"
EARLY = "set constraints all immediate"
END = "select * from sync.end_idle_holder(%s::interval)"
UNPRIVILEGED = "an_operator"

OpenSession = Callable[..., Session]


@pytest.fixture
def lane(session: OpenSession) -> Driver:
    lane = Driver(session())
    for number in (1, 2):
        lane.load(number, {"a": "x"}, at=10, data="t10")
    return lane


@pytest.fixture
def operator(postgres: Server, clone: str) -> Iterator[Session]:
    """Open a session of a login that has our roles, and may neither see nor end other logins'."""
    name = sql.Identifier(UNPRIVILEGED)
    postgres.administer(
        sql.SQL("create role {} login password 'operator' in role sync_owner").format(name)
    )
    url = f"postgresql://{UNPRIVILEGED}:operator@{clone.rpartition('@')[2]}"
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as conn:
        yield conn
    postgres.administer(sql.SQL("drop role {}").format(name))


def hold(session: OpenSession) -> Session:
    """Log a change, take the log's lock early, and idle."""
    holder = session(autocommit=False)
    holder.execute(EARLY)
    holder.execute("delete from sync.stored_records s using sync.repos r"
                   " where r.repo_id = s.repo_id and r.did = %s", [did(1)])  # fmt: skip
    return holder


def commit_of_another(lane: Driver) -> dict[str, int]:
    return lane.apply(
        Event(did(2), rev=11, since=10, before="t10", data="t11", ops=[Op("delete", "a")])
    )


def problems(lane: Driver) -> dict[str, int]:
    rows = lane.rows("select reason, events from sync.problems")
    return {row["reason"]: row["events"] for row in rows}


def test_whoever_idles_with_the_lock_is_ended_and_ingest_goes_on(
    lane: Driver, session: OpenSession
) -> None:
    service, holder = session(), hold(session)
    with background(lane.conn, lambda: commit_of_another(lane)) as commit:
        wait_until_blocked(service, lane.conn)
        ended = service.execute(END, [AT_ONCE]).fetchall()
        assert commit.result(PATIENCE_S) == {"applied": 1}
    assert [(row["pid"], row["login"], row["application"], row["outcome"]) for row in ended] == [
        (holder.info.backend_pid, "standpipe", "test session", "ended")
    ]
    with pytest.raises(psycopg.OperationalError):
        holder.execute("select 1")
    assert lane.texts(1) == {"a": "x"}  # what it did was rolled back
    assert problems(lane) == {"log_lock_ended": 1}


def test_who_has_not_idled_long_enough_is_left_alone(lane: Driver, session: OpenSession) -> None:
    holder = hold(session)
    assert lane.rows(END, NEVER) == []
    holder.commit()
    assert lane.rows(END, AT_ONCE) == []  # nobody has it
    assert problems(lane) == {}


def test_who_idles_without_the_lock_is_left_alone(lane: Driver, session: OpenSession) -> None:
    app = session(autocommit=False)
    app.execute("select sync.untrack_repos(%s)", [[did(1)]])
    assert lane.rows(END, AT_ONCE) == []
    app.commit()


def test_who_waits_or_works_under_the_lock_is_left_alone(
    lane: Driver, session: OpenSession
) -> None:
    """A long transaction is numbered for minutes: that is work."""
    admin, service, busy = session(autocommit=False), session(), hold(session)
    admin.execute("create table public.apps (n int)")
    admin.commit()
    admin.execute("lock table public.apps")
    with background(busy, lambda: busy.execute("select from public.apps")) as work:
        wait_until_blocked(service, busy)
        assert service.execute(END, [AT_ONCE]).fetchall() == []
        admin.commit()
        work.result(PATIENCE_S)
    busy.commit()


def test_a_lock_of_another_database_is_none_of_ours(
    lane: Driver, postgres: Server, empty_database: str
) -> None:
    with psycopg.connect(postgres.admin_url(empty_database.rpartition("/")[2])) as other:
        other.execute("select pg_advisory_lock(7261, 1)")
        assert lane.rows(END, AT_ONCE) == []


def test_a_login_that_may_not_look_says_so_once_somebody_waits(
    lane: Driver, session: OpenSession, operator: Session
) -> None:
    holder = hold(session)
    assert operator.execute(END, [AT_ONCE]).fetchall() == []
    with background(lane.conn, lambda: commit_of_another(lane)) as commit:
        wait_until_blocked(session(), lane.conn)
        assert operator.execute(END, [NEVER]).fetchall() == []
        found = operator.execute(END, [AT_ONCE]).fetchall()
        assert [(row["pid"], row["outcome"]) for row in found] == [
            (holder.info.backend_pid, "unseen")
        ]
        holder.commit()
        commit.result(PATIENCE_S)
    assert problems(lane) == {"log_lock_unseen": 1}


def test_a_login_that_may_look_but_not_end_it_says_so(
    lane: Driver, session: OpenSession, operator: Session, postgres: Server
) -> None:
    postgres.administer(
        sql.SQL("grant pg_read_all_stats to {}").format(sql.Identifier(UNPRIVILEGED))
    )
    holder = hold(session)
    found: list[DictRow] = operator.execute(END, [AT_ONCE]).fetchall()
    assert [(row["pid"], row["outcome"]) for row in found] == [(holder.info.backend_pid, "refused")]
    holder.commit()
    assert problems(lane) == {"log_lock_refused": 1}


def test_with_the_grants_of_the_manual_anybodys_session_is_ended(
    lane: Driver, session: OpenSession, operator: Session, postgres: Server
) -> None:
    postgres.administer(
        sql.SQL("grant pg_read_all_stats, pg_signal_backend to {}").format(
            sql.Identifier(UNPRIVILEGED)
        )
    )
    hold(session)
    found = operator.execute(END, [AT_ONCE]).fetchall()
    assert [row["outcome"] for row in found] == ["ended"]
