"""Relays whose stream itself lies: frames that are none, too big, repeated, or of another relay."""

import zlib
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sync.atproto import cbor
from sync.atproto.frame import MAX_FRAME_BYTES, write_frame
from sync.simnet.repo import Write
from tests.hostile.forge import unheard
from tests.hostile.world import HostileWorld, commit_honestly, hostile_world
from tests.integration.rig import NOTE, note
from tests.integration.wire import Frames, Sendable, Wire

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

MIB = 1 << 20


class Distortion:
    """What a wire sends before or instead of some events, and how often it came to them."""

    def __init__(self) -> None:
        self.before: dict[int, list[Sendable]] = {}
        self.instead: dict[int, list[Sendable]] = {}
        self.once: set[int] = set()
        self.sent: Counter[int] = Counter()

    def __call__(self, seq: int, frame: bytes) -> Frames:
        """Return what is sent for an event."""
        self.sent[seq] += 1
        if seq in self.once and self.sent[seq] > 1:
            return [frame]
        return self.instead.get(seq, [*self.before.get(seq, []), frame])


@pytest.fixture(scope="module")
def wire() -> Distortion:
    return Distortion()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    module_clone: str, tmp_path_factory: pytest.TempPathFactory, wire: Distortion
) -> AsyncIterator[HostileWorld]:
    folder = tmp_path_factory.mktemp("streams")
    async with hostile_world(module_clone, folder, distort=wire) as world:
        yield world


async def pass_by(world: HostileWorld, reason: str, *, times: int = 1) -> None:
    """Wait until a frame was refused so often, and the bystanders behind it are current."""
    before = await world.problems()
    world.beat()

    async def is_counted() -> bool:
        return (await world.problems() - before)[reason] >= times

    await world.rig.until(is_counted)
    await world.check_all()


# Frames that are none --------------------------------------------------------------------------

HEADER = cbor.encode({"op": 1, "t": "#identity"})
POISON: dict[str, bytes | str] = {
    "empty": b"",
    "no CBOR": b"\xff\xff\xff",
    "a text frame": "text",
    "a header alone": HEADER,
    "three objects": write_frame("#identity", {}) + b"\x00",
    "a header that is no map": cbor.encode([]) * 2,
    "a header without op": cbor.encode({"t": "#identity"}) + cbor.encode({}),
    "an array that claims 2^64 items": b"\x9b" + b"\xff" * 8,
    "a hundred thousand arrays in each other": b"\x81" * 100_000,
}


@pytest.mark.scenario("A-02", "A-04")
@pytest.mark.rule("ES-04", "ES-05", "ES-06", "ES-07", "ES-12", "ES-13", "D-02", "FA-01")
@pytest.mark.parametrize("name", POISON)
async def test_a_poison_frame_costs_three_connections_and_no_event(
    world: HostileWorld, wire: Distortion, name: str
) -> None:
    seq = world.net.world.relay.last_seq + 1
    wire.before[seq] = [POISON[name]]
    await pass_by(world, "poison_frame")
    assert wire.sent[seq] == 3


# Compressed without being asked: the flag is set that says so.
PACKED = zlib.compress(bytes(64 * MIB), 9)
TOO_BIG: dict[str, Sendable] = {
    "one frame": bytes(MAX_FRAME_BYTES + 1),
    "fragments": [bytes(MIB)] * 5,
    "compressed": Wire(b"\xc2\x7f" + len(PACKED).to_bytes(8, "big") + PACKED),
    "a length without bytes": Wire(b"\x82\x7f" + (1 << 62).to_bytes(8, "big")),
}


@pytest.mark.scenario("A-01")
@pytest.mark.rule("ES-15", "ES-16")
@pytest.mark.parametrize("name", TOO_BIG)
async def test_a_message_over_the_limit_is_never_received_and_stepped_past(
    world: HostileWorld, wire: Distortion, name: str
) -> None:
    world.is_gapless = False
    stranger = world.net.create_account()
    seq = world.net.world.relay.last_seq + 1
    wire.instead[seq] = [TOO_BIG[name]]
    stranger.create(NOTE, note("never told"))
    world.beat()
    await world.check_all()
    assert wire.sent[seq] == 3


# Frames that are odd, early or late ------------------------------------------------------------


@pytest.mark.scenario("A-03")
@pytest.mark.rule("ES-09", "ES-10", "ES-11", "ES-14", "MT-05", "CU-14")
async def test_what_is_unknown_is_stepped_over(world: HostileWorld, wire: Distortion) -> None:
    account = await world.new_account()
    connections = wire.sent.copy()
    body = unheard(world, account, Write.create(NOTE, "new", note("new")))
    strange = {**body, "time": "2026-01-01T00:00:00Z", "$type": "com.example#commit", "x": [1]}

    def frame_of(header: dict[str, object], fields: dict[str, object]) -> None:
        world.inject(lambda seq: cbor.encode(header) + cbor.encode({**fields, "seq": seq}))

    before = await world.problems()
    frame_of({"op": 2}, {})
    frame_of({"op": 1, "t": "#future"}, {})
    frame_of({"op": 1, "t": "#tombstone"}, {"did": account.did})
    frame_of({"op": 1, "t": "#commit", "x": 1}, strange)
    await world.check_healed(account)
    commit_honestly(world, account)
    await world.check_healed(account)
    assert await world.problems() - before == {"unknown_message": 3}
    assert max((wire.sent - connections).values()) == 1, "the connection was dropped"
    await world.check_all()


@pytest.mark.scenario("A-07")
@pytest.mark.rule("CU-02", "CU-03", "CU-06", "CM-15")
@pytest.mark.parametrize("repeated", [1, 8])
async def test_a_window_that_is_told_again_changes_nothing(
    world: HostileWorld, wire: Distortion, repeated: int
) -> None:
    account = await world.new_account()
    world.beat()
    for number in range(4):
        account.create(NOTE, note(str(number)), rkey=f"told{number}")
    relay = world.net.world.relay
    old = [event.frame for event in relay.after(relay.last_seq - repeated)]
    wire.before[relay.last_seq + 1] = [*old]
    wire.once.add(relay.last_seq + 1)
    fetched = world.exports.asked[account.did]
    if repeated > 1:
        await pass_by(world, "seq_fell")
    commit_honestly(world, account)
    await world.check_healed(account)
    assert world.exports.asked[account.did] == fetched
    await world.check_all()
