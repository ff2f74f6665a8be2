"""A migration that a relay tells in every order, with any one of its messages lost (A-53)."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, permutations, zip_longest
from pathlib import Path
from typing import Any

import pytest

from sync.simnet import Account, Simnet
from sync.simnet.stream import Stream
from tests.integration.lives import Life, begin, end
from tests.integration.rig import NOTE, Rig, note, rig_on

HOMES = (0, 1)
Message = tuple[str, str, Mapping[str, Any]]  # did, kind, body
Story = Callable[[Account], None]


def move(account: Account) -> None:
    """Move with the head that the old host signed, and write nothing."""
    account.move_account(1)


def move_and_sign(account: Account) -> None:
    """Move, sign the same contents again, and write nothing."""
    account.move_account(1, resign=True)


def move_and_write(account: Account) -> None:
    """Move, and write at the new host."""
    account.move_account(1)
    account.create(NOTE, note("moved"), rkey="moved")


def rotate_and_write(account: Account) -> None:
    """Change the key, and write."""
    account.rotate_key()
    account.create(NOTE, note("moved"), rkey="moved")


def without_past(message: Message) -> Message:
    """Return a commit as an importing host tells it that knows nothing of what was before."""
    did, kind, body = message
    if kind == "#commit":
        body = {name: value for name, value in body.items() if name != "prevData"}
        body["since"] = None
    return did, kind, body


class Relay:
    """Keeps what it hears to itself, to tell it in another order."""

    def __init__(self, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
        self._stream = stream
        self._monkeypatch = monkeypatch

    def withhold(self, story: Story, account: Account) -> list[Message]:
        """Let a story happen, and return what would be told of it: each message once.

        An old host's word on the account is among them, as a relay passes it that does not check.
        """
        heard: list[Message] = []
        with self._monkeypatch.context() as patch:
            patch.setattr(self._stream, "append", lambda *message: heard.append(message))
            before = account.host
            story(account)
        once = {(kind, str(body.get("rev"))): (did, kind, body) for did, kind, body in heard}
        if account.host is not before:
            said = {"did": account.did, "active": False, "status": "deactivated"}
            old = {**said, "time": account.world.clock.datetime()}
            return [*once.values(), (account.did, "#account", old)]
        return list(once.values())


def tellings(count: int) -> list[tuple[int, ...]]:
    """Return every order of so many messages, and every order with one of them lost."""
    every = tuple(range(count))
    lost = (tuple(n for n in every if n != gone) for gone in every)
    return [order for kept in (every, *lost) for order in permutations(kept)]


# What happens, how many messages tell of it, and what the relay makes of each.
STORIES: tuple[tuple[Story, int, Callable[[Message], Message]], ...] = (
    (move, 4, lambda message: message),
    (move_and_sign, 4, lambda message: message),
    (move_and_write, 5, lambda message: message),
    (move_and_write, 5, without_past),
    (rotate_and_write, 3, lambda message: message),
)


@pytest.mark.timeout(600)
@pytest.mark.scenario("A-53")
@pytest.mark.rule("MG-01", "MG-02", "MG-04", "MG-05", "MG-06", "CM-19", "SN-07", "SG-08")
async def test_a_migration_in_every_order_and_with_any_loss(
    clone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.resolver.LOOKUPS_PER_S", 10_000.0)
    monkeypatch.setattr("sync.handles.LOOKUPS_PER_S", 10_000.0)
    chosen = [(*story, order) for story in STORIES for order in tellings(story[1])]
    print(f"{len(chosen)} tellings of a migration")
    assert len(chosen) == 2 * 48 + 2 * 240 + 12 == 588
    async with (
        Simnet(seed=83, pds_count=len(HOMES), start_us=None) as net,
        rig_on(net, clone, tmp_path) as rig,
    ):
        lives = [
            Life(net.create_account(f"m{number}.test"), "", number, homes=HOMES)
            for number in range(len(chosen))
        ]
        watch = await begin(rig, lives, sources=[(net.relay_url, "relay")])
        relay, told = Relay(net.world.relay, monkeypatch), []
        for life, (story, count, change, order) in zip(lives, chosen, strict=True):
            messages = [change(message) for message in relay.withhold(story, life.account)]
            assert len(messages) == count
            told.append([messages[place] for place in order])
        for message in chain.from_iterable(zip_longest(*told)):
            if message is not None:
                net.world.relay.append(*message)
                await asyncio.sleep(0)
        for life in lives:
            life.account.create(NOTE, note("after"), rkey="after")
        await end(rig, lives, watch)
        await check_log(rig, lives)


async def check_log(rig: Rig, lives: Sequence[Life]) -> None:
    """See that of each account only its new records were told, once each."""
    rows = await rig.conn.fetch(
        "select did, kind, rkey from sync.change_log where rkey is not null"
    )
    told = Counter(tuple(row) for row in rows)
    assert told == Counter(new_records(lives))


def new_records(lives: Sequence[Life]) -> Iterator[tuple[str, str, str]]:
    """Yield what was written since the accounts were loaded."""
    for life in lives:
        for path in life.account.leaves():
            rkey = path.rpartition("/")[2]
            if rkey in ("moved", "after"):
                yield life.account.did, "create", rkey
