"""Hiding and showing accounts: views at once, the log as designed, readers and their folds follow.

Every step is compared with a model (accounts.py): `sync.records`, `get_record`, `list_records`,
the rows of the log to the last one, and at the end the folds of consumers of every kind.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest

from sync.roles import READER
from tests.sql.accounts import Accounts
from tests.sql.audience import KINDS, Audience
from tests.sql.driver import LIKE, POST, Driver, Event, did
from tests.sql.readers import Reader, Session

pytestmark = pytest.mark.rule("AC-01", "AC-15")

ONE = 1
INACTIVE = ("deactivated", "takendown", "suspended", "deleted", "desynchronized", "throttled",
            "unheard of", None)  # fmt: skip
Step = Callable[[Accounts], object]


@pytest.fixture
def accounts(session: Callable[..., Session]) -> Accounts:
    """Return three accounts with records in two collections, all synchronized."""
    accounts = Accounts(Driver(session()), (1, 2, 3))
    for number in accounts.all:
        accounts.track(number)
        accounts.write(number, (POST, "a"), (POST, "b"), (LIKE, "c"))
        accounts.fetch(number)
    accounts.check()
    return accounts


@pytest.fixture
def audience(accounts: Accounts) -> Iterator[Audience]:
    """Return consumers of every kind that know everything; they come to rest at the end."""
    audience = Audience(accounts)
    for kind in KINDS:
        audience.add(kind)
    audience.settle()
    yield audience
    accounts.check()
    audience.settle(limit=2)


def logged(accounts: Accounts, *steps: Step) -> list[str]:
    """Take steps, checking each; return the kinds that the log got."""
    start = accounts.lane.position()
    for step in steps:
        step(accounts)
        accounts.check()
    return [str(kind) for kind, _, _ in accounts.lane.shape(start)]


def off(accounts: Accounts) -> None:
    accounts.say(ONE, active=False, status="deactivated")


def on(accounts: Accounts) -> None:
    accounts.say(ONE, active=True)


def take_down(accounts: Accounts) -> None:
    accounts.take_down(ONE)


def restore(accounts: Accounts) -> None:
    accounts.restore(ONE)


HIDE = ["account", "purge"]
SHOW = ["account", "snapshot", "snapshot"]


# Upstream ---------------------------------------------------------------------------------------


@pytest.mark.rule("AC-03", "AC-04", "AC-05", "AC-06", "AC-07", "AC-17")
@pytest.mark.parametrize("status", INACTIVE)
def test_what_is_not_active_is_hidden_until_it_is_active_again(
    accounts: Accounts, audience: Audience, status: str | None
) -> None:
    assert logged(accounts, lambda a: a.say(ONE, active=False, status=status)) == HIDE
    value = accounts.lane.value(
        "select value from sync.change_log where kind = 'account' order by change_id desc limit 1"
    )
    assert (value["active"], value["status"]) == (False, status)
    audience.settle(limit=2)
    # What was stored is shown at once, though it may be old, and fetched again.
    assert logged(accounts, on) == SHOW
    assert accounts.lane.state(ONE) == "desynchronized"
    audience.settle(limit=2)
    assert logged(accounts, lambda a: a.fetch(ONE)) == []


@pytest.mark.rule("AC-08")
@pytest.mark.parametrize("status", ["desynchronized", "throttled"])
def test_what_is_active_is_shown_whatever_its_status(
    accounts: Accounts, audience: Audience, status: str
) -> None:
    assert logged(accounts, lambda a: a.say(ONE, active=True, status=status)) == ["account"]
    assert logged(accounts, lambda a: a.write(ONE, (POST, "new"))) == ["create"]


@pytest.mark.rule("AC-18")
def test_a_repetition_is_no_change(accounts: Accounts, audience: Audience) -> None:
    assert logged(accounts, on) == []
    assert logged(accounts, off, off, off) == HIDE
    assert logged(accounts, on, on) == SHOW
    words = [Event(did(ONE), kind="account", is_active=word) for word in (False, True)]
    assert logged(accounts, lambda a: a.lane.apply(*words)) == []
    assert logged(accounts, take_down, take_down) == HIDE
    assert logged(accounts, restore, restore) == SHOW


def test_another_reason_is_told_without_another_purge(
    accounts: Accounts, audience: Audience
) -> None:
    off(accounts)
    audience.settle()
    assert logged(accounts, lambda a: a.say(ONE, active=False, status="deleted")) == ["account"]
    assert logged(accounts, on) == SHOW


@pytest.mark.rule("AC-02", "AC-07")
def test_commits_of_an_account_that_is_not_active_come_with_the_fetch(
    accounts: Accounts, audience: Audience
) -> None:
    off(accounts)
    late = logged(
        accounts,
        lambda a: a.write(ONE, (POST, "a"), (LIKE, "new")),
        lambda a: a.delete(ONE, (POST, "b")),
    )
    assert late == []
    audience.settle()
    assert logged(accounts, on) == SHOW
    audience.settle(limit=2)
    # Still dropped: the chain is presumed broken.
    assert logged(accounts, lambda a: a.write(ONE, (POST, "later"))) == []
    fetched = logged(accounts, lambda a: a.fetch(ONE))
    assert sorted(fetched) == ["create", "create", "delete", "update"]


# Here -------------------------------------------------------------------------------------------


def test_a_takedown_hides_and_sync_goes_on(accounts: Accounts, audience: Audience) -> None:
    assert logged(accounts, take_down) == HIDE
    hidden = logged(
        accounts,
        lambda a: a.write(ONE, (POST, "a"), (POST, "new"), (LIKE, "new")),
        lambda a: a.delete(ONE, (POST, "b")),
        lambda a: a.write(ONE, (POST, "b")),
        lambda a: a.delete(ONE, (LIKE, "c")),
    )
    assert hidden == []
    audience.settle()
    assert logged(accounts, restore) == SHOW
    assert logged(accounts, lambda a: a.write(ONE, (POST, "live"))) == ["create"]


def test_a_resync_of_what_is_taken_down_is_not_logged(
    accounts: Accounts, audience: Audience
) -> None:
    take_down(accounts)
    accounts.lane.conn.execute("select sync.resync_repos(%s)", [[did(ONE)]])
    accounts.all[ONE].is_synchronized = False
    hidden = logged(
        accounts,
        lambda a: a.write(ONE, (POST, "a"), (POST, "new")),
        lambda a: a.delete(ONE, (LIKE, "c")),
        lambda a: a.fetch(ONE),
    )
    assert hidden == []
    # One collection is left.
    assert logged(accounts, restore) == ["account", "snapshot"]


def test_a_first_load_of_what_is_taken_down_is_not_logged(
    accounts: Accounts, audience: Audience
) -> None:
    accounts.untrack(ONE)
    accounts.maintain()
    take_down(accounts)
    accounts.track(ONE)
    audience.settle()
    assert logged(accounts, lambda a: a.fetch(ONE)) == []
    assert accounts.lane.state(ONE) == "synchronized"
    assert logged(accounts, restore) == SHOW


def test_what_is_shown_again_has_no_snapshot_of_what_is_empty(
    accounts: Accounts, audience: Audience
) -> None:
    take_down(accounts)
    for key in list(accounts.all[ONE].records):
        accounts.delete(ONE, key)
    audience.settle()
    assert logged(accounts, restore) == ["account"]


# Both at once -----------------------------------------------------------------------------------


def interleavings() -> Iterator[tuple[Step, ...]]:
    """Yield every order of two pairs, each in its own order."""
    for places in itertools.combinations(range(4), 2):
        upstream, here = iter((off, on)), iter((take_down, restore))
        yield tuple(next(upstream if place in places else here) for place in range(4))


@pytest.mark.parametrize(
    "steps", list(interleavings()), ids=lambda steps: "-".join(s.__name__ for s in steps)
)
@pytest.mark.parametrize("reads_between", [True, False])
def test_both_words_hide_and_either_lifted_alone_shows_nothing(
    accounts: Accounts, audience: Audience, steps: Sequence[Step], *, reads_between: bool
) -> None:
    for number, step in enumerate(steps):
        step(accounts)
        accounts.check(step.__name__)
        if accounts.all[ONE].is_active:
            accounts.write(ONE, (POST, f"after {number}"), (POST, "a"))
            accounts.check(f"a commit after {step.__name__}")
        if reads_between:
            audience.settle(limit=2, note=step.__name__)
    assert accounts.all[ONE].is_visible


@pytest.mark.rule("AC-15")
def test_while_it_is_taken_down_what_upstream_says_is_no_change(
    accounts: Accounts, audience: Audience
) -> None:
    assert logged(accounts, take_down) == HIDE
    assert logged(accounts, off, on, off) == []
    # Now upstream's reason is the one that holds.
    assert logged(accounts, restore) == ["account"]
    assert logged(accounts, on) == SHOW


# Purges -----------------------------------------------------------------------------------------


def test_an_untracked_account_is_hidden_once(accounts: Accounts, audience: Audience) -> None:
    take_down(accounts)
    assert logged(accounts, lambda a: a.untrack(ONE), lambda a: a.maintain()) == []
    audience.settle()
    assert logged(accounts, restore) == []
    assert logged(accounts, lambda a: a.track(ONE)) == []
    assert logged(accounts, lambda a: a.fetch(ONE)) == ["snapshot", "snapshot"]


@pytest.mark.rule("AC-03")
def test_a_late_commit_of_an_untracked_account_brings_nothing_back(
    accounts: Accounts, audience: Audience
) -> None:
    accounts.say(ONE, active=False, status="deleted")
    late = logged(
        accounts,
        lambda a: a.untrack(ONE),
        lambda a: a.write(ONE, (POST, "late")),
        on,
        lambda a: a.maintain(),
        lambda a: a.write(ONE, (POST, "later")),
    )
    assert late == []
    assert accounts.all[ONE].stored == {}


def test_a_purge_outlasts_a_restore(accounts: Accounts, audience: Audience) -> None:
    """What is on its way out when it is tracked again stays hidden until it is gone."""
    steps: list[Step] = [
        lambda a: a.untrack(ONE),
        take_down,
        lambda a: a.track(ONE),
        restore,
        off,
        on,
    ]
    for step in steps:
        step(accounts)
        accounts.check(step.__name__)
        audience.settle(limit=2)
    accounts.maintain()
    assert logged(accounts, lambda a: a.fetch(ONE)) == ["snapshot", "snapshot"]


def test_a_collection_that_is_dropped_meanwhile_does_not_come_back(
    accounts: Accounts, audience: Audience
) -> None:
    assert logged(accounts, take_down, lambda a: a.drop_collection(LIKE)) == [*HIDE, "purge"]
    assert logged(accounts, restore) == ["account", "snapshot"]
    audience.settle(limit=2)
    assert logged(accounts, off, lambda a: a.maintain(), on) == [*HIDE, "account", "snapshot"]
    accounts.want_collection(LIKE)
    for number in accounts.all:
        accounts.fetch(number)
        accounts.check(number)


# Readers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hide", [off, take_down])
def test_who_joins_while_it_is_hidden_gets_it_when_it_is_shown(
    accounts: Accounts, audience: Audience, hide: Step, kind: str
) -> None:
    hide(accounts)
    audience.add(kind)
    audience.settle(limit=2)
    audience.add(kind)  # and this one has read nothing yet
    restore(accounts)
    on(accounts)
    accounts.fetch(ONE)
    audience.settle(limit=2)


def test_who_lags_is_given_what_was_visible_then_and_then_its_purge(
    accounts: Accounts, session: Callable[..., Session]
) -> None:
    """The log is delivered as it happened: docs/explanation/roles.md says so to operators."""
    app = session(role=READER)
    app.execute("select sync.create_consumer('lagging', p_start => 'now')")
    accounts.write(ONE, (POST, "seen"))
    off(accounts)
    told = Reader(app, "lagging").read_all()
    assert [(row["kind"], row["rkey"]) for row in told] == [
        ("create", "seen"),
        ("account", None),
        ("purge", None),
    ]
