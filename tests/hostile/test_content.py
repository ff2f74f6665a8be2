"""Contents that no honest app writes: kept as they are, with JSON or with a reason why not."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from sync.atproto.cid import cid_for, format_cid
from sync.atproto.records import second_codec_block
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
from tests.hostile.world import HostileWorld, Lie, commit_honestly, hostile_world, lie
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
    last = world.net.world.relay.last_seq

    async def is_passed() -> bool:
        seq = await world.rig.conn.fetchval("select min(seq) from sync.source_status")
        return seq is not None and seq >= last

    await world.rig.until(is_passed)


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
