"""Keys that change at the wrong moment, and hosts that speak for accounts of others."""

import asyncio
from pathlib import Path

import pytest

from sync.simnet import Account
from sync.simnet.repo import Repo, Write, record_block
from tests.hostile.forge import body_of, fork, next_body
from tests.hostile.world import HostileWorld, all_hosts, commit_honestly, hostile_world, lie
from tests.integration.rig import NOTE, note

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

NEW = Write.create(NOTE, "new", note("new"))


# Rotations, told late or never ----------------------------------------------------------------


def commit_with_unknown_key(_world: HostileWorld, account: Account) -> None:
    """Sign with a key that the directory does not tell yet: a mirror of it lags behind."""
    account.repo.key = account.world.new_key(account.repo.key.curve)
    account.create(NOTE, note("signed with a new key"), rkey="early")


def publish_key(_world: HostileWorld, account: Account) -> None:
    """Let the directory tell the key at last; the account itself does nothing more."""
    account.mend_key()
    account.emit_identity()


def commit_before_identity(_world: HostileWorld, account: Account) -> None:
    """Sign with a key that the directory tells already, and say so afterwards."""
    account.repo.key = account.world.new_key(account.repo.key.curve)
    account.mend_key()
    account.create(NOTE, note("signed with a new key"), rkey="early")
    account.emit_identity()


def take_domain_over(world: HostileWorld, account: Account) -> None:
    """Give the account's domain to somebody who begins anew, with a key and a clock of his own."""
    oldest, old = account.repo.heads[0].rev, account.repo
    repo = account.hosted.repo = Repo(account.did, account.world.new_key(old.key.curve))
    for number, rev in enumerate((oldest[:-1] + "2", oldest[:-1] + "3")):
        block = record_block(note(f"of somebody else {number}"))
        repo.start(rev, {f"{NOTE}/first0": block})
    repo.heads.extendleft(reversed(old.heads))
    account.mend_key()
    account.emit_identity()
    account.emit_sync()


ROTATIONS = [
    lie(
        "a key that no directory tells yet",
        commit_with_unknown_key,
        "bad_signature",
        heal=publish_key,
        is_refetched=None,  # not before the key is known, but then
    ),
    lie(
        "a commit with a new key before its #identity",
        commit_before_identity,
        ignored="the directory is asked once before a signature is refused",
        may=frozenset({"bad_signature"}),  # unless it was asked too often just now
        is_refetched=None,
    ),
    lie(
        "a domain with a new owner and lower revs",
        take_domain_over,
        ignored="a rev below the stored one is refused whoever signs it",
        # Before his key is known, and once his revs have passed ours.
        may=frozenset({"bad_signature", "chain_break", "fetch_stale_export"}),
        is_refetched=None,
        how={"method": "web"},
    ),
]


@pytest.mark.scenario("A-21", "A-26")
@pytest.mark.rule("SG-08", "IN-17", "FA-03", "MG-07", "CM-15", "BF-12", "D-03")
async def test_a_new_key_counts_as_soon_as_its_directory_tells_it(world: HostileWorld) -> None:
    await world.play(ROTATIONS)


@pytest.mark.scenario("A-22")
@pytest.mark.rule("SG-11", "SN-11", "MG-01", "MG-02", "MG-06")
async def test_a_backlog_over_a_rotation_and_a_move_costs_few_fetches(world: HostileWorld) -> None:
    accounts = [await world.new_account() for _ in range(4)]
    await world.rig.stop()
    before = world.exports.asked.copy()
    for number in range(60):
        for account in accounts:
            if number == 20:
                account.rotate_key()
            if number == 40:
                account.move_account(1, resign=True)
            account.create(NOTE, note(f"of the backlog {number}"), rkey=f"backlog{number}")
        world.beat()
    world.rig.start()
    await asyncio.gather(*(world.check_healed(account) for account in accounts))
    for account in accounts:
        # One for the rotation and one for the move are enough.
        assert (world.exports.asked - before)[account.did] <= 2
    await world.check_all()


# Floods -----------------------------------------------------------------------------------------


@pytest.mark.scenario("A-23")
@pytest.mark.rule("SG-09", "IN-12", "MT-08", "FA-13")
async def test_a_flood_of_bad_signatures_asks_the_directory_little(world: HostileWorld) -> None:
    accounts = await asyncio.gather(*(world.new_account() for _ in range(20)))
    problems = [await world.problems(account) for account in accounts]
    asked, fetched = world.exports.resolved.copy(), world.exports.asked.copy()
    bodies = []
    for account in accounts:
        other = fork(account)
        other.key = account.world.new_key("k256")
        bodies.append(body_of(account, other.commit([NEW], account.world.clock.tid())))
    for number in range(30):
        for account, body in zip(accounts, bodies, strict=True):
            world.say(account.did, "#commit", body)
        if number % 10 == 0:
            world.beat()
    for account, before in zip(accounts, problems, strict=True):
        await world.check_refusal(account, frozenset({"bad_signature"}), before=before)
        assert (await world.problems(account) - before)["bad_signature"] == 30
    for account in accounts:
        # Once by its lane, and perhaps once for its #identity; and no repo is fetched for it.
        assert (world.exports.resolved - asked)[account.did] <= 2
        assert (world.exports.asked - fetched)[account.did] == 0
        commit_honestly(world, account)
    await asyncio.gather(*(world.check_healed(account) for account in accounts))
    await world.check_all()


@pytest.mark.scenario("A-24")
@pytest.mark.rule("FA-09", "SN-11", "D-03", "CM-18")
async def test_branches_that_take_turns_for_ever_are_fetched_ten_times(world: HostileWorld) -> None:
    account = await world.new_account()
    other = fork(account)
    account.create(NOTE, note("where the branches part"))
    before = world.exports.asked[account.did]
    query = (
        "select case when sync_state = 'synchronized' then 'again' "
        "when next_fetch_at > now() + interval '10 seconds' then 'later' end "
        "from sync.repo_status where did = $1"
    )

    async def turn() -> str | None:
        return await world.rig.conn.fetchval(query, account.did)

    for number in range(20):
        if await world.rig.until(turn) == "later":
            break
        write = Write.create(NOTE, f"other{number}", note("of the other branch"))
        commit = other.commit([write], account.world.clock.tid())
        counted = await world.problems(account)
        world.say(account.did, "#commit", body_of(account, commit))
        account.create(NOTE, note("of this branch, and later"))
        await world.check_refusal(account, frozenset({"chain_break"}), before=counted)
    assert await turn() == "later"
    assert world.exports.asked[account.did] - before == 10
    await world.check_stored(account)
    await world.check_all()


# Hosts that speak for others --------------------------------------------------------------------


def commit_elsewhere(world: HostileWorld, account: Account) -> None:
    """Tell a commit that the account did sign, over the stream of a host that it does not use."""
    host = world.net.world.hosts[1 - account.host.index]
    world.say(account.did, "#commit", next_body(account, NEW), stream=host.stream)
    body = {"did": account.did, "rev": account.rev, "blocks": account.repo.head_car()}
    world.say(account.did, "#sync", body, stream=host.stream)


def status_elsewhere(world: HostileWorld, account: Account) -> None:
    host = world.net.world.hosts[1 - account.host.index]
    for status in ("deactivated", "takendown", "deleted"):
        body = {"did": account.did, "active": False, "status": status}
        world.say(account.did, "#account", body, stream=host.stream)


async def stay_behind(world: HostileWorld, account: Account) -> None:
    """Move, and have the old host go on as if nothing had happened."""
    old, copy = account.host, fork(account)
    account.move_account(1 - old.index, resign=True)
    await world.check_healed(account)

    async def is_told_off() -> bool:
        """Go on; before every lane has heard of the move, a commit may still be the account's."""
        write = Write.create(NOTE, account.world.clock.tid(), note("written at the old host"))
        commit = copy.commit([write], account.world.clock.tid())
        world.say(account.did, "#commit", body_of(account, commit), stream=old.stream)
        await world.check_passed()
        return (await world.problems(account))["wrong_host"] > 0

    await world.rig.until(is_told_off)


HOSTS = [
    lie("a commit from another host", commit_elsewhere, "wrong_host"),
    lie("a status from another host", status_elsewhere, "wrong_host"),
    lie(
        "a host that was left and goes on",
        stay_behind,
        "wrong_host",
        may=frozenset({"bad_signature", "chain_break"}),
        is_refetched=None,
    ),
]


@pytest.mark.scenario("A-25")
@pytest.mark.rule("HO-01", "HO-02", "HO-05", "AC-11", "MG-03", "FA-08", "D-12")
@pytest.mark.asyncio(loop_scope="function")
async def test_only_the_accounts_own_host_speaks_for_it(clone: str, tmp_path: Path) -> None:
    async with hostile_world(clone, tmp_path, pds_count=2, sources=all_hosts, lanes=1) as world:
        await world.play(HOSTS)
