"""Words on accounts that are not true, and accounts that go while they are fetched."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from sync.atproto import cbor
from sync.simnet import Account
from tests.hostile.waits import has_read, is_at_head
from tests.hostile.world import HostileWorld, Lie, commit_honestly, hostile_world, lie
from tests.integration.rig import LIKE, NOTE, note

pytestmark = pytest.mark.timeout(120)

ITS_HOST = "its host says otherwise"


# Words that are not true ------------------------------------------------------------------------


def said(name: str, *words: Mapping[str, object], **more: object) -> Lie:
    """Have the relay say something of an active account, word by word."""

    def tell(world: HostileWorld, account: Account) -> None:
        for word in words:
            world.say(account.did, "#account", {"did": account.did, **word})

    reasons = more.pop("reasons", ())
    assert isinstance(reasons, tuple)
    ignored = "" if reasons else ITS_HOST
    return lie(name, tell, *reasons, ignored=ignored, heal=check_shown, **more)


async def check_shown(world: HostileWorld, account: Account) -> None:
    """Wait until an account is shown again, and see that no word on it was told twice."""
    await world.check_healed(account)
    query = (
        "select value ->> 'active' || coalesce(value ->> 'status', '') as word"
        " from sync.change_log where did = $1 and kind = 'account' order by change_id"
    )
    words = [row["word"] for row in await world.rig.conn.fetch(query, account.did)]
    assert all(one != other for one, other in pairwise(words)), words
    assert words[-1:] in ([], ["true"])
    commit_honestly(world, account)


def hidden(status: str | None) -> dict[str, object]:
    """Return the word that an account is not active."""
    return {"active": False} if status is None else {"active": False, "status": status}


ACTIVE: dict[str, object] = {"active": True}
FLAPPING = [hidden("deactivated"), ACTIVE] * 4


@pytest.mark.scenario("A-54")
@pytest.mark.rule("AC-08", "AC-09", "AC-12", "AC-16", "AC-18", "MT-09", "MT-10", "D-11")
async def test_what_is_said_of_an_account_is_asked_of_its_host(clone: str, tmp_path: Path) -> None:
    lies = [
        *(
            said(f"hidden as {status}", hidden(status), is_refetched=True)
            for status in ("takendown", "deleted", "napping", "", None, "a\0b", "x" * 10_000)
        ),
        said("active, but desynchronized", {**ACTIVE, "status": "desynchronized"}),
        said("active, but taken down", {**ACTIVE, "status": "takendown"}),
        said("active once more", ACTIVE, ACTIVE),
        said("hidden twice", hidden("takendown"), hidden("takendown"), is_refetched=True),
        said("a status that is a number", {"active": False, "status": 7}, reasons=("bad_field",)),
        said("a word without a word", {}, reasons=("bad_field",)),
        said("active as a text", {"active": "no"}, reasons=("bad_field",)),
        said("active as a number", {"active": 0}, reasons=("bad_field",)),
        said("a few words against each other", *FLAPPING, is_refetched=None),
    ]
    async with hostile_world(clone, tmp_path) as world:
        await world.play(lies)


# Accounts that go while they are fetched --------------------------------------------------------


async def fetch_slowly(
    world: HostileWorld, account: Account, meanwhile: Callable[[], None]
) -> None:
    """Let something happen while the host has read the repo and not answered yet."""
    hold = world.net.hold_get_repo(account.did)
    world.cause_fetch(account)
    await asyncio.wait_for(hold.arrived.wait(), 30)
    meanwhile()
    last = world.net.world.relay.last_seq
    await world.rig.until(partial(has_read, world, last))
    hold.release()


async def is_hidden(world: HostileWorld, account: Account, status: str) -> bool:
    """Tell whether an account is hidden, for this reason."""
    query = "select account_status from sync.repo_status where did = $1 and not is_visible"
    return bool(await world.rig.conn.fetchval(query, account.did) == status)


def told_late(world: HostileWorld, account: Account) -> Callable[[], object]:
    """Return what has a commit told that was made before."""
    account.create(NOTE, note("late"), rkey="late")
    body = next(e.body for e in reversed(world.net.world.relay.events()) if e.did == account.did)
    return lambda: world.say(account.did, "#commit", body)


Act = Callable[[Account], object]


async def go(how: Act, status: str, world: HostileWorld, account: Account) -> None:
    """Hide an account while it is fetched, and tell a commit late, before and after that ends."""
    tell_late = told_late(world, account)

    def meanwhile() -> None:
        how(account)
        tell_late()

    await fetch_slowly(world, account, meanwhile)
    await world.rig.until(partial(is_hidden, world, account, status))
    tell_late()
    await world.rig.until(partial(has_read, world, world.net.world.relay.last_seq))
    assert await world.rig.stored(account) == {}


def returning(name: str, how: Act, status: str, come_back: Act) -> Lie:
    """Make a line of the ledger of an account that is hidden and comes back."""

    def heal(world: HostileWorld, account: Account) -> None:
        come_back(account)
        commit_honestly(world, account)

    # Until the new key is known; and the new host announces the old head under a rev of its own.
    may = frozenset(["chain_break", "bad_signature", "rev_mismatch"])
    tell = partial(go, how, status)
    return lie(name, tell, "sync_differs", is_refetched=True, heal=heal, may=may)


def reopened(name: str, come_back: Act) -> Lie:
    """Make a line of the ledger of an account that is deleted and comes back."""

    async def tell(world: HostileWorld, account: Account) -> None:
        await go(delete, "deleted", world, account)
        come_back(account)

    may = frozenset(["chain_break", "bad_signature"])  # what comes late has the old key
    return lie(name, tell, "sync_differs", is_refetched=True, may=may)


def delete(account: Account) -> None:
    account.delete_account()


def open_elsewhere(account: Account) -> None:
    account.come_back(1)


def open_empty(account: Account) -> None:
    account.come_back(1, kept="nothing")


def restore_and_move(account: Account) -> None:
    account.restore()
    account.move_account(1)


def move(account: Account) -> None:
    account.move_account(1, resign=True)


@pytest.mark.scenario("A-50")
@pytest.mark.rule("BF-13", "AC-02", "AC-03", "AC-07", "D-11")
async def test_who_goes_while_he_is_fetched_is_gone_until_he_comes_back(
    clone: str, tmp_path: Path
) -> None:
    lies = [
        returning("taken down, restored", Account.take_down, "takendown", Account.restore),
        returning("taken down, then elsewhere", Account.take_down, "takendown", restore_and_move),
        returning("deactivated, active", Account.deactivate, "deactivated", Account.activate),
        returning("deactivated, then elsewhere", Account.deactivate, "deactivated", move),
        reopened("deleted, opened elsewhere", open_elsewhere),
        reopened("deleted, opened empty", open_empty),
    ]
    async with hostile_world(clone, tmp_path, pds_count=2) as world:
        await world.play(lies)


# What nobody told -------------------------------------------------------------------------------


@pytest.mark.scenario("A-52")
@pytest.mark.rule("BF-05", "BF-06", "BF-07")
async def test_what_went_unseen_is_told_as_deleted_within_the_filter(
    clone: str, tmp_path: Path
) -> None:
    async with hostile_world(clone, tmp_path) as world:
        account = world.net.create_account()
        for rkey in ("kept", "gone"):
            account.create(NOTE, note(rkey), rkey=rkey)
            account.create(LIKE, {"$type": LIKE, "subject": rkey}, rkey=rkey)
        await world.rig.track(account)
        await world.rig.level(account)
        await world.rig.conn.fetchval("select sync.untrack_collections($1)", ["*"])
        await world.rig.track(account, collections=[NOTE])
        await world.rig.until(partial(has_only_notes, world, account))
        before = await world.rig.last_change()
        world.net.drop_next(2)
        account.delete(NOTE, "gone")
        account.delete(LIKE, "gone")
        account.emit_sync()
        await world.rig.until(partial(is_at_head, world, account))
        told = [one for one in await world.rig.changes(account, after=before) if one[1]]
        assert told == [("delete", "gone", False)]


async def has_only_notes(world: HostileWorld, account: Account) -> bool:
    """Tell whether an account's notes are shown and nothing else."""
    return {path.partition("/")[0] for path in await world.rig.stored(account)} == {NOTE}


# Repos that are huge --------------------------------------------------------------------------

HUGE_RECORDS = 15_000  # some 17 MB; the network lives in this process, too
COMMITS_MEANWHILE = 100


@pytest.mark.scenario("A-47")
@pytest.mark.rule("BF-21", "CA-14", "BF-10", "OP-02")
async def test_a_huge_repo_that_goes_on_writing_stops_nobody(clone: str, tmp_path: Path) -> None:
    async with hostile_world(clone, tmp_path) as world:
        block = cbor.encode(note("x" * 1_000))
        records = {f"{NOTE}/r{number:07}": block for number in range(HUGE_RECORDS)}
        account = world.net.create_account(records=records)
        await world.rig.until(partial(has_read, world, world.net.world.relay.last_seq))
        world.memory.start()
        hold = world.net.hold_get_repo(account.did)
        await world.rig.track(account)
        await asyncio.wait_for(hold.arrived.wait(), 60)
        for number in range(COMMITS_MEANWHILE):
            account.create(NOTE, note("meanwhile"), rkey=f"a{number:03}")
            world.beat()
            await asyncio.sleep(0)
        await world.rig.level(*world.bystanders)
        await world.rig.until(partial(has_read, world, world.net.world.relay.last_seq))
        held = await world.rig.conn.fetchval("select count(*) from sync_priv.held_events")
        assert held == COMMITS_MEANWHILE
        hold.release()
        await world.rig.until(partial(is_at_head, world, account), timeout_s=60)
        assert len(await world.rig.stored(account)) == HUGE_RECORDS + COMMITS_MEANWHILE
        told = [one for one in await world.rig.changes(account) if one[1] is not None]
        assert told == [("create", f"a{n:03}", True) for n in range(COMMITS_MEANWHILE)]
        await world.check_all()
