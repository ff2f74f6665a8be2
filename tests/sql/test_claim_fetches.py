"""sync.claim_fetches(): which repos are fetched, and when it is safe to (BF-01)."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.sql.driver import LIKE, POST, Driver, Event, did, rev
from tests.sql.waiting import impatient

CLAIM = "select * from sync.claim_fetches(%s, %s)"


@pytest.fixture
def service(session):
    return Driver(session())


def claimed(service: Driver, limit: int = 100, per_host: int = 100) -> list[str]:
    return sorted(row["did"] for row in service.rows(CLAIM, limit, per_host))


def track(service: Driver, *numbers: int) -> None:
    """Track without letting the lane reach the new generation."""
    service.conn.execute("select sync.track_repos(%s)", [[did(n) for n in numbers]])


@pytest.mark.rule("BF-02")
def test_a_claim_is_a_durable_transition_with_a_token_of_its_own(service):
    service.track(1, 2)
    service.locate(1, 2)
    rows = service.rows(CLAIM, 10, 10)
    assert sorted(row["did"] for row in rows) == sorted([did(1), did(2)])
    assert len({row["fetch_token"] for row in rows}) == 2
    for row in rows:
        repo = service.row("select * from sync.repos where repo_id = %s", row["repo_id"])
        assert (repo["sync_state"], repo["generation"], repo["fetch_token"]) == (
            "fetching", row["generation"], row["fetch_token"]
        )  # fmt: skip
        assert (row["pds_url"], row["signing_key"]) == ("https://pds.test", "did:key:z1")
        assert (row["head_rev"], row["has_records"]) == (None, False)
    assert claimed(service) == []
    assert service.value("select count(*) from sync.fetch_queue") == 0


def test_a_repo_with_records_says_so_and_where_it_stands(service):
    service.load(1, {"a": "x"}, at=10, data="t10")
    service.conn.execute("select sync.resync_repos(%s)", [[did(1)]])
    (row,) = service.rows(CLAIM, 10, 10)
    assert (row["head_rev"], row["has_records"]) == (rev(10), True)


# BF-01: nothing may slip between the export and the stream ----------------------------------


@pytest.mark.rule("BF-01")
def test_nothing_is_fetched_before_the_lane_knows_the_repo(service):
    track(service, 1)
    assert claimed(service) == []
    service.apply()
    assert claimed(service) == [did(1)]


@pytest.mark.rule("BF-01")
def test_nothing_is_fetched_before_every_enabled_source_has_a_cursor(service):
    service.track(1)
    second = service.value("select sync.add_source('wss://second.test')")
    assert claimed(service) == []
    lane = service.row("select * from sync.claim_lane(%s)", second)
    service.conn.execute(
        "select * from sync.apply_events(%s, 0, %s, null, sync.filter_generation())",
        [second, lane["token"]],
    )
    assert claimed(service) == []
    service.conn.execute(
        "select * from sync.apply_events(%s, 0, %s, 5, sync.filter_generation())",
        [second, lane["token"]],
    )
    assert claimed(service) == [did(1)]


@pytest.mark.rule("BF-01")
def test_a_source_that_is_paused_is_not_waited_for(service):
    service.track(1)
    service.conn.execute("select sync.add_source('wss://second.test')")
    service.conn.execute("select sync.pause_source('wss://second.test')")
    assert claimed(service) == [did(1)]


@pytest.mark.rule("BF-01")
def test_a_lane_that_was_just_taken_over_has_to_say_its_filter_first(service):
    service.track(1)
    service.token = service.row("select * from sync.claim_lane(%s)", service.source_id)["token"]
    assert claimed(service) == []
    service.apply()
    assert claimed(service) == [did(1)]


@pytest.mark.rule("BF-01")
def test_what_was_queued_before_the_filter_widened_waits_like_the_rest(service):
    service.conn.execute("select sync.track_collections(%s)", [[POST]])
    service.track(1, 2)
    first = claimed(service, 1)
    assert len(first) == 1
    assert service.value("select count(*) from sync.fetch_queue") == 1
    service.conn.execute("select sync.track_collections(%s)", [[LIKE]])
    assert claimed(service) == []
    service.apply()
    assert set(first) < set(claimed(service))


def test_what_was_queued_before_a_purge_waits_for_its_end(service, session):
    service.load(3, {(LIKE, "l"): "like"}, at=10, data="t10")
    service.track(1, 2)
    claimed(service, 1)
    older = session(autocommit=False)
    older.execute("select pg_current_xact_id()")
    with service.conn.transaction():
        service.conn.execute("select sync.track_collections(%s)", [[POST]])
        service.conn.execute("select sync.untrack_collections('{*}')")
        service.conn.execute("select sync.track_collections(%s)", [[LIKE]])
    service.apply()
    service.maintain()
    assert claimed(service) == []
    older.commit()
    service.maintain()
    assert claimed(service) != []


# Hosts ---------------------------------------------------------------------------------------


@pytest.mark.rule("OP-02")
def test_each_host_gets_its_share_and_no_more(service):
    service.track(1, 2, 3, 4, 5)
    service.locate(1, 2, 3, pds="https://one.test")
    service.locate(4, 5, pds="https://two.test")
    first = service.rows(CLAIM, 100, 2)
    hosts = sorted(row["pds_url"] for row in first)
    assert hosts == ["https://one.test"] * 2 + ["https://two.test"] * 2
    assert claimed(service, 100, 2) == []
    done = next(row for row in first if row["pds_url"] == "https://one.test")
    service.value(
        "select sync.fail_fetch(%s, %s, %s, 'x')",
        done["repo_id"], done["generation"], done["fetch_token"],
    )  # fmt: skip
    assert len(claimed(service, 100, 2)) == 1


def test_the_queue_holds_no_more_than_the_shares_of_the_hosts(service):
    service.track(*range(1, 21))
    service.locate(*range(1, 21))
    assert len(claimed(service, 1, 5)) == 1
    assert service.value("select count(*) from sync.fetch_queue") == 4
    assert len(claimed(service, 1, 5)) == 1
    assert service.value("select count(*) from sync.fetch_queue") == 3


def test_repos_whose_pds_is_unknown_count_as_one_host(service):
    service.track(1, 2, 3)
    assert len(claimed(service, 100, 2)) == 2


@pytest.mark.rule("BF-16")
def test_a_host_that_asked_for_a_pause_is_left_alone(service):
    service.track(1, 2)
    service.locate(1, pds="https://one.test")
    service.locate(2, pds="https://two.test")
    service.conn.execute(
        "update sync.hosts set ready_at = now() + '1 minute' where url = 'https://one.test'"
    )
    assert claimed(service) == [did(2)]
    service.conn.execute("select set_config('sync.now', (now() + '2 minutes')::text, false)")
    assert claimed(service) == [did(1)]


@pytest.mark.rule("OP-02")
def test_a_queued_repo_of_a_host_that_pauses_waits_in_the_queue(service):
    service.track(1, 2)
    service.locate(1, 2)
    assert len(claimed(service, 1)) == 1
    service.conn.execute("update sync.hosts set ready_at = now() + '1 minute' where host_id > 0")
    assert claimed(service) == []
    assert service.value("select count(*) from sync.fetch_queue") == 1


def test_those_that_wait_longest_go_first(service):
    service.track(1, 2, 3)
    service.conn.execute(
        "update sync.repos set next_fetch_at = now() - interval '1 day' where did = %s", [did(3)]
    )
    assert claimed(service, 1, 1) == [did(3)]


def test_a_repo_is_not_fetched_before_its_time(service):
    service.track(1)
    service.conn.execute("update sync.repos set next_fetch_at = now() + '1 minute'")
    assert claimed(service) == []
    service.conn.execute("select set_config('sync.now', (now() + '2 minutes')::text, false)")
    assert claimed(service) == [did(1)]


@pytest.mark.rule("AC-02")
def test_an_account_that_is_not_active_is_not_fetched_even_from_the_queue(service):
    service.track(1, 2)
    first = claimed(service, 1)
    for number in (1, 2):
        service.apply(Event(did(number), kind="account", is_active=False, status="deactivated"))
    assert claimed(service) == []
    service.apply(Event(did(1), kind="account", is_active=True))
    assert claimed(service) == [did(1)]
    assert first


# Two fetchers --------------------------------------------------------------------------------


def test_a_repo_that_somebody_else_has_locked_is_skipped(service, session):
    service.track(1, 2)
    other = session(autocommit=False)
    other.execute("select from sync.repos where did = %s for no key update", [did(1)])
    impatient(service.conn)
    assert claimed(service) == [did(2)]
    other.rollback()
    assert claimed(service) == [did(1)]


def test_a_claim_that_is_not_committed_stops_no_other_fetcher(service, session):
    service.track(1, 2, 3)
    first = claimed(service, 1)
    assert service.value("select count(*) from sync.fetch_queue") == 2
    other = session(autocommit=False)
    (mine,) = other.execute(CLAIM, [1, 3]).fetchall()
    impatient(service.conn)
    (left,) = claimed(service)
    assert sorted([*first, mine["did"], left]) == sorted([did(1), did(2), did(3)])
    other.rollback()
    assert claimed(service) == [mine["did"]]


def test_two_fetchers_never_get_the_same_repo(service, session):
    numbers = range(1, 61)
    service.track(*numbers)
    start = Barrier(3)

    def fetch(conn) -> list[str]:
        start.wait()
        mine: list[str] = []
        for _ in range(40):
            mine += [row["did"] for row in conn.execute(CLAIM, [3, 100]).fetchall()]
        return mine

    sessions = [session() for _ in range(3)]
    with ThreadPoolExecutor() as pool:
        results = [pool.submit(fetch, conn) for conn in sessions]
        everything = [who for result in results for who in result.result()]
    everything += claimed(service)
    assert sorted(everything) == sorted(did(n) for n in numbers)


def test_an_app_that_holds_a_repo_for_update_stops_only_that_repo(service, session):
    """The foreign key of the queue would wait for it, and nobody else could feed meanwhile."""
    service.track(1, 2)
    service.locate(1, 2)
    app = session(autocommit=False)
    app.execute("select from sync.repos where did = %s for update", [did(1)])
    impatient(service.conn)
    assert claimed(service) == [did(2)]
    app.rollback()
    assert claimed(service) == [did(1)]


def test_an_app_that_refers_to_a_repo_does_not_stop_its_fetch(service, session):
    service.track(1)
    service.locate(1)
    session(autocommit=False).execute("select from sync.repos for key share")
    assert claimed(service) == [did(1)]
