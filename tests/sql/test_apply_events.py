"""sync.apply_events(): what a lane's batch does to repos, records, heads and the log."""

import secrets

import psycopg
import pytest

from sync.database import connect_sync
from tests.sql.driver import LIKE, Driver, Event, Op, cid, did, rev

A, B = did(1), did(2)


@pytest.fixture
def lane(session):
    return Driver(session())


def loaded(lane: Driver) -> Driver:
    """Two repos, synchronized at rev 10 with tree t10."""
    for number in (1, 2):
        lane.load(number, {"a": "lorem", "b": "ipsum"}, at=10, data="t10")
    return lane


def commit(who: str, at: int, since: int, *ops: Op, before: object = None, **more) -> Event:
    return Event(
        who, rev=at, since=since, before=before or f"t{since}", data=f"t{at}", ops=ops, **more
    )


@pytest.mark.rule("CM-39")
def test_a_commit_that_continues_the_head_changes_records_head_cursor_and_log(lane):
    loaded(lane)
    start = lane.position()
    outcome = lane.apply(
        commit(A, 11, 10, Op("create", "c", "dolor"), Op("update", "a", "LOREM"), Op("delete", "b"))
    )
    assert outcome == {"applied": 1}
    assert lane.texts(1) == {"a": "LOREM", "c": "dolor"}
    assert lane.texts(2) == {"a": "lorem", "b": "ipsum"}
    assert lane.log(start) == [
        ("create", "c", "dolor"),
        ("update", "a", "LOREM"),
        ("delete", "b", None),
    ]
    head = lane.row(
        "select h.* from sync.heads h join sync.repos using (repo_id) where did = %s", A
    )
    assert (head["rev"], head["data_cid"], head["seen_rev"]) == (rev(11), cid("t11"), rev(11))
    assert lane.value("select seq from sync.cursors") == lane.cursor


@pytest.mark.rule("BF-15")
def test_a_chain_in_one_batch_is_applied_whole_and_every_op_is_logged(lane):
    loaded(lane)
    start = lane.position()
    lane.apply(
        commit(A, 11, 10, Op("create", "c", "one")),
        commit(B, 11, 10, Op("delete", "a")),
        commit(A, 12, 11, Op("update", "c", "two")),
        commit(A, 13, 12, Op("delete", "c")),
    )
    assert lane.texts(1) == {"a": "lorem", "b": "ipsum"}
    assert lane.texts(2) == {"b": "ipsum"}
    assert [c for c in lane.log(start) if c[1] == "c"] == [
        ("create", "c", "one"),
        ("update", "c", "two"),
        ("delete", "c", None),
    ]


@pytest.mark.rule("MG-08")
def test_a_deleted_record_is_as_one_that_never_was(lane):
    loaded(lane)
    records = "select s.*, r.did from sync.stored_records s join sync.repos r using (repo_id)"
    before = lane.rows(records + " order by s.repo_id, s.rkey")
    lane.apply(commit(A, 11, 10, Op("create", "c", "one")))
    lane.apply(commit(A, 12, 11, Op("delete", "c")))
    assert lane.rows(records + " order by s.repo_id, s.rkey") == before
    lane.apply(commit(A, 13, 12, Op("create", "c", "one")))
    assert lane.texts(1)["c"] == "one"


def test_after_a_change_by_hand_an_op_is_told_as_what_it_does_here(lane):
    loaded(lane)
    lane.conn.execute("delete from sync.stored_records where rkey in ('a', 'b')")
    lane.conn.execute(
        "insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)"
        " select repo_id, collection_id, 'c', %s, '3k', '{}' from sync.repos, sync.collections"
        " where did = %s",
        [cid("by hand"), A],
    )
    start = lane.position()
    outcome = lane.apply(
        commit(A, 11, 10, Op("update", "a", "one"), Op("delete", "b"), Op("create", "c", "two")),
        commit(A, 12, 11, Op("update", "a", "three"), Op("delete", "c")),
    )
    assert outcome == {"applied": 2}
    assert lane.log(start) == [
        ("create", "a", "one"),
        ("update", "c", "two"),
        ("update", "a", "three"),
        ("delete", "c", None),
    ]
    assert lane.texts(1) == {"a": "three"}


@pytest.mark.rule("CM-15", "FA-04", "CU-17")
def test_a_replayed_batch_changes_nothing(lane):
    loaded(lane)
    batch = [commit(A, 11, 10, Op("create", "c", "one")), commit(A, 12, 11, Op("delete", "c"))]
    lane.apply(*batch)
    start = lane.position()
    assert lane.apply(*batch) == {"stale": 2}
    assert lane.apply(*reversed(batch)) == {"stale": 2}
    assert lane.log(start) == []
    assert lane.state(1) == "synchronized"


@pytest.mark.rule("CM-15", "CU-17")
def test_a_commit_that_is_told_twice_in_one_batch_is_applied_once(lane):
    loaded(lane)
    twice = commit(A, 11, 10, Op("create", "c", "one"))
    after = commit(A, 12, 11, Op("create", "d", "two"))
    assert lane.apply(twice, twice, after, twice) == {"applied": 2, "stale": 2}
    assert lane.state(1) == "synchronized"


@pytest.mark.rule("CU-16")
def test_commits_count_by_their_revs_whatever_number_they_came_under(lane):
    loaded(lane)
    outcome = lane.apply(
        commit(A, 13, 12, Op("create", "e", "three")),
        commit(A, 11, 10, Op("create", "c", "one")),
        commit(A, 12, 11, Op("create", "d", "two")),
    )
    assert outcome == {"applied": 3}
    assert lane.value("select rev from sync.heads where repo_id = 1") == rev(13)


@pytest.mark.rule(
    "CM-17",
    "CM-18",
    "FA-06",
    "CM-19",
    "CM-20",
    "SN-08",
    "SN-10",
    "AC-17",
    "IV-07",
    "FA-13",
    "IV-09",
)
@pytest.mark.parametrize(
    "event",
    [
        commit(A, 12, 10, Op("create", "x", "no"), before="t11"),
        commit(A, 12, 11, Op("create", "x", "no"), before="t10"),
        Event(A, rev=12, since=10, before=None, data="t12", ops=[Op("create", "x", "no")]),
        Event(A, rev=12, since=None, before="t10", data="t12", ops=[Op("create", "x", "no")]),
        Event(A, kind="sync", rev=12, data="t12"),
        Event(A, kind="broken", rev=12, reason="bad_inversion"),
    ],
    ids=["prev_data", "since", "no prev_data", "since null", "sync", "signed but wrong"],
)
def test_a_break_desynchronizes_the_repo_and_nothing_behind_it_is_applied(lane, event):
    loaded(lane)
    start = lane.position()
    good = commit(A, 11, 10, Op("create", "c", "one")) if event.before != "t10" else None
    after = commit(A, 13, 12, Op("create", "d", "two"))
    lane.apply(event, after, commit(B, 11, 10, Op("delete", "a")))
    assert lane.state(1) == "desynchronized"
    assert lane.texts(1) == {"a": "lorem", "b": "ipsum"}
    assert lane.log(start) == [("delete", "a", None)]
    assert lane.value("select seen_rev from sync.heads where repo_id = 1") == rev(13)
    assert lane.value("select count(*) from sync_priv.problem_deltas where did = %s", A) == 1
    assert good is None or lane.apply(good) == {"dropped": 1}


def test_the_valid_prefix_before_a_break_is_applied(lane):
    loaded(lane)
    outcome = lane.apply(
        commit(A, 11, 10, Op("create", "c", "one")),
        commit(A, 13, 12, Op("create", "d", "two")),
        commit(A, 14, 13, Op("create", "e", "three")),
    )
    assert outcome == {"applied": 1, "broken": 2}
    assert lane.texts(1) == {"a": "lorem", "b": "ipsum", "c": "one"}
    assert lane.value("select rev from sync.heads where repo_id = 1") == rev(11)


@pytest.mark.rule("SN-06", "SN-07")
def test_a_sync_with_our_data_only_moves_the_rev(lane):
    loaded(lane)
    assert lane.apply(Event(A, kind="sync", rev=10, data="t10")) == {"stale": 1}, "no news"
    lane.apply(
        Event(A, kind="sync", rev=12, data="t10"),
        commit(A, 13, 12, Op("delete", "a"), before="t10"),
    )
    assert lane.state(1) == "synchronized"
    assert lane.texts(1) == {"b": "ipsum"}


@pytest.mark.rule("SN-05")
@pytest.mark.scenario("A-18")
def test_an_older_sync_is_no_rollback(lane):
    loaded(lane)
    assert lane.apply(Event(A, kind="sync", rev=9, data="t9")) == {"stale": 1}
    assert lane.state(1) == "synchronized"


@pytest.mark.rule("CM-23")
def test_an_empty_commit_moves_the_head_and_logs_nothing(lane):
    loaded(lane)
    start = lane.position()
    lane.apply(Event(A, rev=11, since=10, before="t10", data="t10"))
    assert lane.value("select rev from sync.heads where repo_id = 1") == rev(11)
    assert lane.log(start) == []


@pytest.mark.rule("BF-07")
def test_ops_outside_the_tracked_collections_move_the_chain_only(lane):
    lane.conn.execute("select sync.track_collections(array['app.bsky.feed.post'])")
    loaded(lane)
    lane.apply(commit(A, 11, 10, Op("create", "z", "like", LIKE), Op("delete", "a")))
    assert lane.value("select count(*) from sync.stored_records where rkey = 'z'") == 0
    assert lane.value("select count(*) from sync.collections") == 1
    assert lane.state(1) == "synchronized"


@pytest.mark.rule("MT-11")
def test_events_of_repos_nobody_tracks_are_counted_and_dropped(lane):
    loaded(lane)
    assert lane.apply(commit(did(9), 11, 10, Op("create", "c", "x"))) == {"untracked": 1}


@pytest.mark.rule("BF-03", "CM-21", "BF-20")
def test_a_repo_that_waits_for_its_fetch_drops_commits_and_remembers_the_rev(lane):
    lane.track(1)
    first = Event(A, rev=11, since=None, before=None, data="t11", ops=[Op("create", "b", "y")])
    assert lane.apply(first, commit(A, 12, 11, Op("create", "c", "x"))) == {"dropped": 2}
    assert lane.value("select seen_rev from sync.heads") == rev(12)
    assert lane.value("select count(*) from sync.stored_records") == 0


@pytest.mark.rule("AC-02", "AC-04", "AC-15", "AC-18", "FA-07", "SN-04")
def test_a_deactivated_account_is_hidden_at_once_logged_once_and_ignores_commits(lane):
    loaded(lane)
    start = lane.position()
    gone = Event(A, kind="account", is_active=False, status="deactivated")
    lane.apply(
        commit(A, 11, 10, Op("delete", "a")), gone, commit(A, 12, 11, Op("delete", "b")), gone
    )
    lane.apply(gone)
    assert lane.apply(Event(A, kind="sync", rev=13, data="t11")) == {"dropped": 1}
    assert lane.value("select rev from sync.heads where repo_id = 1") == rev(11)
    assert lane.texts(1) == {}
    assert lane.value("select count(*) from sync.stored_records where repo_id = 1") == 1
    assert [c[0] for c in lane.log(start)] == ["delete", "account", "purge"]


@pytest.mark.rule("AC-06", "AC-07")
def test_a_reactivated_account_is_shown_again_and_fetched(lane):
    loaded(lane)
    lane.apply(Event(A, kind="account", is_active=False, status="suspended"))
    start = lane.position()
    lane.apply(Event(A, kind="account", is_active=True))
    assert lane.texts(1) == {"a": "lorem", "b": "ipsum"}
    assert lane.state(1) == "desynchronized"
    assert [c[0] for c in lane.log(start)] == ["account", "snapshot"]


@pytest.mark.rule("MT-04")
def test_of_several_words_on_an_account_in_one_batch_the_last_one_counts(lane):
    loaded(lane)
    gone = Event(A, kind="account", is_active=False, status="suspended")
    back = Event(A, kind="account", is_active=True)
    standing = "select (is_active, account_status)::text from sync.repos where did = %s"
    lane.apply(gone, back)
    assert lane.value(standing, A) == "(t,)"
    lane.apply(back, gone)
    assert lane.value(standing, A) == "(f,suspended)"


@pytest.mark.rule("MT-07", "IN-01")
def test_an_identity_event_only_asks_for_a_new_look(lane):
    loaded(lane)
    for known in (A, B):
        lane.conn.execute(
            "select sync.set_identity(%s, 'a.test', 'https://pds.test', 'did:key:z1')", [known]
        )
    assert lane.rows("select * from sync.claim_identities(10)") == []
    lane.apply(Event(A, kind="identity"))
    assert [r["did"] for r in lane.rows("select * from sync.claim_identities(10)")] == [A]
    assert lane.value("select handle from sync.repos where did = %s", A) == "a.test"


@pytest.mark.rule("SG-09")
@pytest.mark.scenario("A-21")
@pytest.mark.parametrize(
    ("age", "due"), [("0 seconds", []), ("7 seconds", [A]), ("2 minutes", [A])]
)
def test_a_rejected_message_has_the_identity_looked_up_unless_it_just_was(lane, age, due):
    loaded(lane)
    lane.later("0 s")
    for known in (A, B):
        lane.conn.execute(
            "select sync.set_identity(%s, 'a.test', 'https://pds.test', 'did:key:z1')", [known]
        )
    now = "select set_config('sync.now', (sync_priv.clock() + %s::interval)::text, false)"
    lane.conn.execute(now, [age])
    lane.apply(Event(A, kind="rejected"))
    claimed = "select did from sync.claim_identities(10)"
    assert [row["did"] for row in lane.rows(claimed)] == due
    if not due:
        lane.conn.execute(now, ["61 seconds"])
        assert [row["did"] for row in lane.rows(claimed)] == [A], "within a minute"


@pytest.mark.scenario("A-21")
def test_a_rejected_message_leads_to_one_fetch_when_the_key_turns_out_new(lane):
    loaded(lane)
    identity = "select sync.set_identity(%s, 'a.test', 'https://pds.test', %s)"
    lane.conn.execute(identity, [A, "did:key:z1"])
    lane.apply(Event(A, kind="rejected"))
    lane.conn.execute(identity, [A, "did:key:z1"])
    assert lane.state(1) == "synchronized"
    lane.conn.execute(identity, [A, "did:key:z2"])
    assert lane.state(1) == "desynchronized"


@pytest.mark.rule("CU-04")
def test_a_fenced_lane_is_refused_and_writes_nothing(lane):
    loaded(lane)
    lane.conn.execute("select * from sync.claim_lane(%s)", [lane.source_id])
    with pytest.raises(psycopg.Error) as refusal:
        lane.apply(commit(A, 11, 10, Op("delete", "a")))
    assert refusal.value.sqlstate == "SY101"
    assert lane.texts(1) == {"a": "lorem", "b": "ipsum"}


def test_a_stage_that_is_not_ours_is_refused(session):
    conn = session()
    conn.execute("create temporary table stage_events (like sync_stage.events)")
    with pytest.raises(psycopg.Error) as refusal:
        conn.execute("select sync.open_stage()")
    assert refusal.value.sqlstate == "SY102"


@pytest.mark.rule("MT-04")
def test_a_busy_repo_is_held_not_waited_for_and_never_overtaken(lane, clone):
    loaded(lane)
    with connect_sync(clone, name="other", autocommit=False) as other:
        other.execute("select from sync.repos where did = %s for no key update", [A])
        outcome = lane.apply(
            commit(A, 11, 10, Op("create", "c", "one")), commit(B, 11, 10, Op("delete", "a"))
        )
        assert outcome == {"applied": 1, "held": 1}
        assert lane.apply(commit(A, 12, 11, Op("update", "c", "two"))) == {"held": 1}
        other.rollback()
    assert lane.apply(commit(A, 13, 12, Op("create", "d", "three"))) == {"applied": 3}
    assert lane.texts(1) == {"a": "lorem", "b": "ipsum", "c": "two", "d": "three"}
    assert lane.value("select count(*) from sync_priv.held_events") == 0


def test_an_idle_tick_walks_what_was_held_while_the_repo_was_busy(lane, clone):
    loaded(lane)
    with connect_sync(clone, name="other", autocommit=False) as other:
        other.execute("select from sync.repos where did = %s for no key update", [A])
        lane.apply(commit(A, 11, 10, Op("delete", "a")))
        other.rollback()
    assert lane.apply() == {"applied": 1}
    assert lane.texts(1) == {"b": "ipsum"}


@pytest.mark.rule("BF-21")
def test_what_waits_for_a_locked_repo_is_bounded(lane, clone):
    loaded(lane)
    with connect_sync(clone, name="other", autocommit=False) as other:
        other.execute("select from sync.repos where did = %s for no key update", [A])
        lane.apply(Event(A, kind="account", is_active=True))
        for start in range(10, 5012, 834):
            lane.apply(*(commit(A, n + 1, n) for n in range(start, start + 834)))
        kinds = lane.rows("select kind, count(*) from sync_priv.held_events group by kind")
        held = {row["kind"]: row["count"] for row in kinds}
        assert held["broken"] == 1
        assert held["account"] == 1
        assert held.get("commit", 0) < 5000
        other.rollback()
    lane.apply()
    assert lane.state(1) == "desynchronized"
    assert lane.value("select count(*) from sync_priv.held_events") == 0


def test_large_commits_that_wait_are_bounded_by_their_bytes(lane, clone):
    loaded(lane)
    with connect_sync(clone, name="other", autocommit=False) as other:
        other.execute("select from sync.repos where did = %s for no key update", [A])
        for n in range(10, 46):
            lane.apply(commit(A, n + 1, n, Op("create", f"r{n}", secrets.token_hex(1_500_000))))
        held = "select sum(pg_column_size(ops)) from sync_priv.held_events"
        assert lane.value(held) < 64 * 2**20
        markers = "select rev from sync_priv.held_events where reason = 'held_overflow'"
        assert lane.value(markers) > rev(30)
        other.rollback()
    lane.apply()
    assert lane.state(1) == "desynchronized"


@pytest.mark.rule("AC-16", "MT-08")
def test_words_on_an_account_that_wait_are_bounded_and_the_last_ones_count(lane, clone):
    loaded(lane)
    with connect_sync(clone, name="other", autocommit=False) as other:
        other.execute("select from sync.repos where did = %s for no key update", [A])
        for turn in range(6):
            lane.apply(
                *(
                    event
                    for number in range(300)
                    for event in (
                        Event(A, kind="identity"),
                        Event(A, kind="rejected", reason="bad_signature", status="key pds"),
                        Event(A, kind="account", is_active=True),
                        Event(A, kind="account", is_active=False, status=f"{turn} {number}"),
                    )
                )
            )
        assert lane.value("select count(*) from sync_priv.held_events") < 5000
        other.rollback()
    lane.apply()
    account = lane.row("select is_active, account_status from sync.repos where did = %s", A)
    assert tuple(account.values()) == (False, "5 299")
    assert lane.value("select count(*) from sync_priv.held_events") == 0
