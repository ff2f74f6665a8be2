"""Relays that change, lose, repeat or reorder the honest commits of an account."""

from collections.abc import Callable, Sequence

import pytest

from sync.atproto import cbor
from sync.atproto.cid import cid_for
from sync.simnet import Account
from sync.simnet.repo import Write
from tests.hostile.forge import (
    Blocks,
    Body,
    EditBlocks,
    blocks_of,
    body_of,
    car_of,
    create_op,
    edit_car,
    fork,
    unheard,
)
from tests.hostile.trees import RAW_CID
from tests.hostile.world import HostileWorld, Lie, lie
from tests.integration.rig import NOTE, note
from tests.unit.repos import record

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

TWO = (Write.create(NOTE, "told1", note("one")), Write.create(NOTE, "told2", note("two")))
OTHER = cbor.Link(b"\x01\x71\x12\x20" + bytes(32))


def edited(
    name: str, edit: Callable[[Body], object], *reasons: str, writes: Sequence[Write] = TWO
) -> Lie:
    """Tell an honest commit with something unsigned in it changed."""

    def tell(world: HostileWorld, account: Account) -> None:
        body = unheard(world, account, *writes)
        edit(body)
        world.say(account.did, "#commit", body)

    if not reasons:
        return lie(name, tell, ignored="what was changed proves nothing and means the same")
    return lie(name, tell, *reasons, is_refetched=True)


def with_field(**fields: object) -> Callable[[Body], None]:
    return lambda body: body.update(fields)


def with_op(**fields: object) -> Callable[[Body], None]:
    return lambda body: body["ops"][0].update(fields)


def with_blocks(edit: EditBlocks) -> Callable[[Body], None]:
    return lambda body: body.update(blocks=edit_car(body["blocks"], edit))


def without_prev_data(body: Body) -> None:
    del body["prevData"]


def as_deletion(body: Body) -> None:
    op = body["ops"][0]
    op.update(action="delete", prev=op["cid"], cid=None)


def as_creation(body: Body) -> None:
    body["ops"][0]["action"] = "create"
    del body["ops"][0]["prev"]


def without_prev(body: Body) -> None:
    del body["ops"][0]["prev"]


UPDATE = [Write.update(NOTE, "first0", note("changed"))]
DELETE = [Write.delete(NOTE, "first0")]
UNSIGNED = [
    edited("an older since", with_field(since="3jzfcijpj2z2a"), "chain_break"),
    edited("no since", with_field(since=None), "chain_break"),
    edited("a since that is no rev", with_field(since="yesterday"), "bad_since"),
    edited("another prevData", with_field(prevData=OTHER), "inversion_mismatch"),
    edited("no prevData", without_prev_data, "chain_break"),
    edited("ops in another order", lambda body: body["ops"].reverse()),
    edited("an op less", lambda body: body["ops"].pop(), "inversion_mismatch"),
    edited("no ops", lambda body: body["ops"].clear(), "inversion_mismatch"),
    edited(
        "an op more",
        lambda body: body["ops"].append(create_op(f"{NOTE}/more", record("more"))),
        "op_not_in_tree",
    ),
    edited("another cid", with_op(cid=OTHER), "op_not_in_tree"),
    edited("another prev", with_op(prev=OTHER), "inversion_mismatch", writes=UPDATE),
    edited(
        "a deletion with another prev", with_op(prev=OTHER), "inversion_mismatch", writes=DELETE
    ),
    edited("a creation told as a deletion", as_deletion, "delete_not_in_tree"),
    edited(
        "a creation told as an update",
        with_op(action="update", prev=OTHER),
        "inversion_mismatch",
    ),
    edited("an update told as a creation", as_creation, "inversion_mismatch", writes=UPDATE),
    edited("an update without prev, as of old", without_prev, "missing_prev", writes=UPDATE),
    edited("a deletion without prev, as of old", without_prev, "missing_prev", writes=DELETE),
    edited("a creation with a prev", with_op(prev=OTHER), "bad_op"),
    edited("a creation without a cid", with_op(cid=None), "bad_op"),
    edited("a deletion with a cid", with_op(cid=OTHER), "bad_op", writes=DELETE),
    edited("an action nobody knows", with_op(action="move"), "bad_op"),
    edited("a path that is none", with_op(path=f"{NOTE}/../x"), "bad_path"),
    edited("a path twice", lambda body: body["ops"].append(body["ops"][0]), "bad_op"),
    edited("fields of old times", with_field(tooBig=True, rebase=True, blobs=[OTHER], x=1)),
]


# Blocks of the event's CAR --------------------------------------------------------------------


def damage(index: int) -> EditBlocks:
    """Replace the bytes of a block, under its old CID."""

    def edit(blocks: Blocks) -> None:
        cid = list(blocks)[index]
        blocks[cid] = b"\xa0"

    return edit


def without(index: int) -> EditBlocks:
    return lambda blocks: blocks.pop(list(blocks)[index])


def with_extras(count: int) -> Callable[[Body], None]:
    """Add blocks that nothing links: foreign, raw, no CBOR, one twice; all in another order."""

    def edit(body: Body) -> None:
        commit, *others = blocks_of(body["blocks"]).items()
        extras = [(cid_for(each), each) for each in (b"%d" % n for n in range(count))]
        odd = [(RAW_CID, b"raw"), (b"\x12\x20" + bytes(32), b"version 0"), extras[0], others[0]]
        rest = [*odd, *others, *extras]
        middle = min(len(rest), 1_000)
        body["blocks"] = car_of([commit[0]], [*rest[:middle], commit, *rest[middle:]])

    return edit


def commit_last(body: Body) -> None:
    """Damage the record, and have the commit come after it."""
    commit, *others, record = blocks_of(body["blocks"]).items()
    blocks = [(record[0], b"\xa0"), *others, commit]
    body["blocks"] = car_of([commit[0]], blocks)


def two_roots(body: Body) -> None:
    blocks = list(blocks_of(body["blocks"]).items())
    body["blocks"] = car_of([blocks[0][0], blocks[1][0]], blocks)


BLOCKS = [
    edited("a node that is not what its CID says", with_blocks(damage(1)), "hash_mismatch"),
    edited("a record that is not what its CID says", with_blocks(damage(-1)), "hash_mismatch"),
    edited(
        "a record that is not what its CID says, before the commit", commit_last, "hash_mismatch"
    ),
    edited("a commit without a node", with_blocks(without(1)), "missing_node"),
    edited("a commit without a record", with_blocks(without(-1)), "missing_record"),
    edited("extra blocks of all kinds, in any order", with_extras(10_000)),
    edited("more blocks than are accepted", with_extras(20_001), "too_many_blocks"),
    edited("two roots, of which the first counts", two_roots),
]


# The order of events --------------------------------------------------------------------------


def lose_one(world: HostileWorld, account: Account) -> None:
    unheard(world, account, Write.delete(NOTE, "first0"), *TWO)
    account.create(NOTE, note("after the lost one"), rkey="after")


def swap_two(world: HostileWorld, account: Account) -> None:
    first, second = unheard(world, account, *TWO), unheard(world, account, *UPDATE)
    world.say(account.did, "#commit", second)
    world.say(account.did, "#commit", first)


async def swap_two_slowly(world: HostileWorld, account: Account) -> None:
    before = await world.problems(account)
    first, second = unheard(world, account, *TWO), unheard(world, account, *UPDATE)
    world.say(account.did, "#commit", second)
    await world.check_refusal(account, frozenset({"chain_break"}), before=before)
    world.say(account.did, "#commit", first)


def repeat_all(world: HostileWorld, account: Account) -> None:
    relay = world.net.world.relay
    for event in [event for event in relay.events() if event.did == account.did]:
        relay.append(event.did, event.kind, event.body)


def branch(world: HostileWorld, account: Account, *, commits: int = 3) -> None:
    """Go on from one state in two ways, in turn, as a host does that was restored from a backup."""
    other = fork(account)
    for number in range(commits):
        write = Write.create(NOTE, f"other{number}", note("of the other branch"))
        commit = other.commit([write], account.world.clock.tid())
        account.repo.heads.appendleft(commit.head)
        world.say(account.did, "#commit", body_of(account, commit))
        account.create(NOTE, note("of this branch"), rkey=f"this{number}")


ORDER = [
    lie("a commit lost in the middle", lose_one, "chain_break", is_refetched=True),
    lie("two commits swapped", swap_two_slowly, "chain_break", is_refetched=True),
    lie(
        "two commits swapped at once",
        swap_two,
        ignored="commits that come together are put in order by rev",
        may=frozenset({"chain_break"}),  # a batch may end between them
        is_refetched=None,
    ),
    lie("everything told again, with new seqs", repeat_all, ignored="no rev is newer"),
    lie("two branches that take turns", branch, "chain_break", is_refetched=True),
]


@pytest.mark.scenario("A-07", "A-12", "A-13", "A-14", "A-17", "A-24", "A-27", "A-38", "A-39")
@pytest.mark.rule("CM-15", "CM-17", "CM-18", "CM-19", "CM-20", "CM-24", "CM-25", "CM-26", "CM-27")
@pytest.mark.rule("CM-28", "CM-29", "CM-30", "CM-31", "CM-32", "CM-33", "IV-01", "IV-05", "IV-09")
@pytest.mark.rule("CA-03", "CA-06", "CA-07", "CA-08", "CA-09", "CA-13", "CM-02", "D-05", "FA-06")
async def test_no_relay_gets_past_what_the_account_signed(world: HostileWorld) -> None:
    await world.play([*UNSIGNED, *BLOCKS, *ORDER])
