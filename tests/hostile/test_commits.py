"""Commits that lie, each on an account of its own, beside a service that must not believe them."""

from pathlib import Path

import pytest

from sync.simnet import Account
from tests.hostile.world import HostileWorld, hostile_world, lie

pytestmark = pytest.mark.timeout(120)


def repeat_last(world: HostileWorld, account: Account) -> None:
    events = [e for e in world.net.world.relay.events() if e.did == account.did]
    world.say(account.did, events[-1].kind, events[-1].body)


LIES = [lie("a commit told again", repeat_last, ignored="its rev is not newer")]


@pytest.mark.rule("CM-15")
@pytest.mark.scenario("A-18")
async def test_no_lie_about_a_commit_is_believed(clone: str, tmp_path: Path) -> None:
    async with hostile_world(clone, tmp_path) as world:
        await world.play(LIES)
