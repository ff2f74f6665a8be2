"""Contents that no honest app writes: kept as they are, with JSON or with a reason why not."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sync.atproto.cid import cid_for, format_cid
from sync.atproto.records import json_to_block, second_codec_block
from sync.simnet import Account
from sync.simnet.repo import Write
from tests.hostile.contents import (
    AMBIGUITIES,
    BOMBS,
    NUMBERS,
    SIZES,
    TEXTS,
    TOO_BIG,
    Odd,
)
from tests.hostile.forge import commit_body, create_op, new_rev, sign, sync_body
from tests.hostile.waits import has_read
from tests.hostile.world import HostileWorld, Lie, Tell, commit_honestly, hostile_world, lie
from tests.integration.rig import NOTE, note

pytestmark = pytest.mark.timeout(120)

KEPT = "records are kept as they are"
LOADED, LIVE = "loaded", "live"


def write_all(odds: Sequence[Odd], where: str, _world: HostileWorld, account: Account) -> None:
    """Commit each record, between two that are as they should be."""
    for number, odd in enumerate(odds):
        writes = [
            Write(action="create", collection=NOTE, rkey=f"{where}{number}", block=odd.block),
            Write.create(NOTE, f"{where}{number}-before", note(odd.name)),
            Write.create(NOTE, f"{where}{number}.after", note(odd.name)),
        ]
        account.apply_writes(writes)


async def write_before(odds: Sequence[Odd], world: HostileWorld, account: Account) -> None:
    """Commit the records before the account is tracked: only the export has them."""
    write_all(odds, LOADED, world, account)
    await world.rig.until(partial(has_read, world, world.net.world.relay.last_seq))


async def check_kept(odds: Sequence[Odd], world: HostileWorld, account: Account) -> None:
    """See that every record is stored whole, from the export and from the stream."""
    await world.check_healed(account)
    rows = await world.rig.conn.fetch(
        "select rkey, cid, value::text, raw, reason from sync.records where did = $1", account.did
    )
    found = {row["rkey"]: row for row in rows}
    for number, odd in enumerate(odds):
        for where in (LOADED, LIVE):
            row = found[f"{where}{number}"]
            assert row["reason"] == odd.reason, f"{odd.name}, {where}"
            assert row["cid"] == format_cid(cid_for(odd.block)), odd.name
            assert row["raw"] == (odd.block if odd.reason not in (None, TOO_BIG) else None)
            assert (row["value"] is None) == (odd.reason is not None), odd.name
            if odd.reason is None:
                assert second_codec_block(json.loads(row["value"])) == odd.block, odd.name
    commit_honestly(world, account)


def contents(name: str, odds: Sequence[Odd]) -> Lie:
    """Tell odd records: half of them are there when the account is loaded, half come live."""
    return lie(
        name,
        partial(write_all, odds, LIVE),
        ignored=KEPT,
        first=partial(write_before, odds),
        heal=partial(check_kept, odds),
    )


@pytest.mark.scenario("A-31", "A-32", "A-33", "A-34", "A-35")
@pytest.mark.rule("OP-04", "OP-08", "OP-10", "CB-11", "DM-12", "RC-10", "RC-11", "CB-12", "CB-13")
@pytest.mark.rule("CM-05", "RC-05", "CB-15", "CB-16", "DM-07", "DM-11", "CB-17", "D-01", "D-10")
async def test_no_content_is_lost_and_none_stops_anything(clone: str, tmp_path: Path) -> None:
    async with hostile_world(clone, tmp_path) as world:
        await world.play(
            [
                contents("texts", TEXTS),
                contents("numbers", NUMBERS),
                contents("sizes", SIZES),
                contents("bombs", BOMBS),
                contents("ambiguities", AMBIGUITIES),
            ]
        )


# Bombs where the account signed them --------------------------------------------------------------

NODE_BOMBS = [
    Odd(odd.name, odd.block, "bad_node") for odd in BOMBS if odd.reason not in (None, "not_a_map")
]


def in_node(odd: Odd) -> Lie:
    """Sign something as the root of a tree that is no node at all."""

    def tell(world: HostileWorld, account: Account) -> None:
        root, block = cid_for(odd.block), note_block("new")
        blocks = {root: odd.block, cid_for(block): block}
        ops = [create_op(f"{NOTE}/new", block)]
        world.say(account.did, "#commit", commit_body(account, sign(account, root), ops, blocks))

    assert odd.reason is not None
    return lie(f"{odd.name}, as a node", tell, odd.reason, is_refetched=True)


def in_commit(odd: Odd) -> Lie:
    """Announce something as a commit that is none: nobody signed it, so nothing follows."""

    def tell(world: HostileWorld, account: Account) -> None:
        told = (new_rev(account), cid_for(odd.block), odd.block)
        world.say(account.did, "#sync", sync_body(account, told))
        world.say(account.did, "#commit", commit_body(account, told, [], {}))

    return lie(f"{odd.name}, as a commit", tell, "bad_commit")


def note_block(text: str) -> bytes:
    """Return the block of a record that is as it should be."""
    return json_to_block(note(text))


SHORT_BOMBS = [odd for odd in NODE_BOMBS if len(odd.block) < 5_000]


@pytest.mark.scenario("A-34")
@pytest.mark.rule("CB-15", "CB-16", "CB-19", "ES-19", "MS-01", "CM-37", "D-03", "FA-14")
async def test_no_bomb_goes_off_in_a_tree_or_a_commit(clone: str, tmp_path: Path) -> None:
    async with hostile_world(clone, tmp_path) as world:
        await world.play([*map(in_node, NODE_BOMBS), *map(in_commit, SHORT_BOMBS)])


# The same contents in several places -----------------------------------------------------------

SAME = note("the same in several places")


def write_twins(_world: HostileWorld, account: Account) -> None:
    """Write the same record at several paths, at once and one after the other."""
    account.apply_writes([Write.create(NOTE, rkey, SAME) for rkey in ("a", "b", "c")])
    account.create(NOTE, SAME, rkey="d")
    account.delete(NOTE, "a")


def move_record(_world: HostileWorld, account: Account) -> None:
    """Move a record to another path in one commit, and back in another."""
    account.create(NOTE, SAME, rkey="a")
    account.apply_writes([Write.delete(NOTE, "a"), Write.create(NOTE, "z", SAME)])
    account.apply_writes([Write.delete(NOTE, "z"), Write.create(NOTE, "a", SAME)])


def write_again(_world: HostileWorld, account: Account) -> None:
    """Delete a record, and write the very same again, twice; once in commits of one operation."""
    account.create(NOTE, SAME, rkey="a")
    for _ in range(2):
        account.delete(NOTE, "a")
        account.create(NOTE, SAME, rkey="a")


def lose_a_move(world: HostileWorld, account: Account) -> None:
    """Move a record where only a fetch can see it."""
    account.create(NOTE, SAME, rkey="a")
    moved = [Write.delete(NOTE, "a"), Write.create(NOTE, "z", SAME)]
    world.lose(account, lambda: account.apply_writes(moved))
    account.emit_sync()


Told = tuple[str, str, bool]


async def check_told(wanted: Sequence[Told], world: HostileWorld, account: Account) -> None:
    """See that each path was told for itself, and nothing twice."""
    await world.check_healed(account)
    told = [one for one in await world.rig.changes(account) if one[1] is not None]
    assert told == list(wanted)
    commit_honestly(world, account)


def twins(tell: Tell, *wanted: Told, **more: Any) -> Lie:
    """Tell of contents that are in several places; live and by a fetch, each path counts."""
    reasons = ("sync_differs",) if more else ()
    ignored = "" if more else "it is honest"
    name = tell.__name__.replace("_", " ")
    return lie(name, tell, *reasons, ignored=ignored, heal=partial(check_told, wanted), **more)


TWINS = [
    twins(write_twins, *(("create", rkey, True) for rkey in "abcd"), ("delete", "a", True)),
    twins(
        move_record,
        ("create", "a", True),
        *(("delete", "a", True), ("create", "z", True)),
        *(("create", "a", True), ("delete", "z", True)),
    ),
    twins(
        write_again,
        ("create", "a", True),
        *(("delete", "a", True), ("create", "a", True)) * 2,
    ),
    twins(
        lose_a_move,
        *(("create", "a", True), ("delete", "a", False), ("create", "z", False)),
        is_refetched=True,
    ),
]


@pytest.mark.scenario("A-37")
@pytest.mark.rule("CM-32", "MS-21", "BF-05", "BF-06")
async def test_the_same_contents_count_at_each_path(clone: str, tmp_path: Path) -> None:
    async with hostile_world(clone, tmp_path) as world:
        await world.play(TWINS)
