"""What happens while nobody reads, what a relay hides, and what a crash leaves behind."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sync.simnet import Account, Simnet
from sync.simnet.stream import Stream
from tests.hostile.world import HostileWorld, all_hosts, commit_honestly, hostile_world, lie
from tests.integration.rig import NOTE, note

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.scenario("A-06")
@pytest.mark.rule("CU-08", "CU-09")
async def test_a_cursor_that_is_too_old_is_made_up_for(world: HostileWorld) -> None:
    one, other = await world.new_account(), await world.new_account()
    before = await world.rig.last_change()
    world.is_gapless = False
    await world.rig.stop()
    one.delete(NOTE, "first0")
    world.net.forget_history(before=world.net.world.relay.last_seq + 1)
    world.beat()
    other.create(NOTE, note("in the window"))
    world.rig.start()
    await world.check_healed(one, other)
    assert await world.rig.changes(one, after=before) == [("delete", "first0", False)]
    await world.check_all()


@pytest.mark.scenario("A-05", "A-08")
@pytest.mark.rule("CU-08", "CU-09", "CU-10", "D-14")
async def test_another_relay_behind_the_name_is_noticed(world: HostileWorld) -> None:
    world.is_gapless = False
    account = await world.new_account()
    replace_relay(world, lambda: account.delete(NOTE, "first0"), last_seq=1_000_000)
    await world.check_healed(account)
    await world.check_all()
    # Its sequence is behind our cursor: only an operator knows what that means.
    replace_relay(world, lambda: account.delete(NOTE, "first1"), last_seq=5)

    async def is_stopped() -> bool:
        query = "select not is_enabled and error like 'FutureCursor%' from sync.source_status"
        return bool(await world.rig.conn.fetchval(query))

    await world.rig.until(is_stopped)
    await world.check_stored(account)
    url = await world.rig.conn.fetchval("select url from sync.source_status")
    await world.rig.conn.execute("select sync.rewind_source($1, 0)", url)
    await world.rig.conn.execute("select sync.add_source($1, 'relay')", url)
    commit_honestly(world, account)
    await world.check_healed(account)
    await world.check_all()


def replace_relay(world: HostileWorld, action: Callable[[], object], *, last_seq: int) -> None:
    """Put another relay in its place, which is told nothing of what happens meanwhile."""
    old, new = world.net.world.relay, Stream()
    new.last_seq = new.forgotten_seq = last_seq
    world.net.drop_next(1)
    action()
    world.net.world.relay = new
    old.kick()


# Crashes ----------------------------------------------------------------------------------------


@pytest.mark.scenario("A-09", "A-10")
@pytest.mark.rule("CU-04", "CU-05", "CM-39", "D-13")
async def test_an_event_that_waits_survives_a_crash_behind_a_cursor_that_moves(
    world: HostileWorld,
) -> None:
    slow, quick = await world.new_account(), await world.new_account()
    before = await world.rig.last_change()
    async with world.rig.conn.acquire() as conn, conn.transaction():
        await conn.execute("select from sync.repos where did = $1 for update", slow.did)
        slow.create(NOTE, note("waits"), rkey="slow")
        quick.create(NOTE, note("does not"), rkey="quick")
        world.beat()
        await world.check_healed(quick)
        await world.check_refusal(slow, frozenset(), before=Counter())
        await world.rig.crash()
    world.rig.start()
    await world.check_healed(slow)
    assert await world.rig.changes(slow, after=before) == [("create", "slow", True)]
    assert await world.rig.changes(quick, after=before) == [("create", "quick", True)]
    await world.check_all()


# What one relay hides ---------------------------------------------------------------------------


@pytest.mark.scenario("A-11")
@pytest.mark.rule("CU-09")
@pytest.mark.asyncio(loop_scope="function")
async def test_an_account_that_a_relay_hides_is_found_by_comparing(
    clone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.gaps.SCHEDULE_S", 0.5)
    async with hostile_world(clone, tmp_path, compare_every_s=2.0, lanes=1) as world:
        account = await world.new_account()
        world.lose(account, lambda: account.delete(NOTE, "first0"))
        world.lose(account, lambda: account.create(NOTE, note("hidden")))
        await world.check_healed(account)


def hide_one(world: HostileWorld, account: Account) -> None:
    """Have one source of several leave a commit out."""
    world.net.world.relay.drop_next(1)
    account.create(NOTE, note("hidden by the relay"), rkey="hidden")
    account.create(NOTE, note("after it"), rkey="after")


def repeat_later(world: HostileWorld, account: Account) -> None:
    relay = world.net.world.relay
    for event in [event for event in relay.events() if event.did == account.did]:
        relay.append(event.did, event.kind, event.body)


SEVERAL = [
    lie("a commit that one of the sources hides", hide_one, ignored="another one tells it"),
    lie("commits told by all, and again", repeat_later, ignored="their revs are not newer"),
]


@pytest.mark.scenario("A-15")
@pytest.mark.rule("CU-17", "MT-04", "CM-15")
@pytest.mark.asyncio(loop_scope="function")
async def test_what_several_sources_tell_happens_once(clone: str, tmp_path: Path) -> None:
    def sources(net: Simnet) -> list[tuple[str, str]]:
        return [(net.relay_url, "relay"), *all_hosts(net)]

    async with hostile_world(clone, tmp_path, pds_count=2, sources=sources, lanes=1) as world:
        await world.play(SEVERAL)
