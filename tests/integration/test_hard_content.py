"""Content that hurts whoever trusts his input, from a PDS into the table and through `verify`.

Every record must come out as it was signed: its bytes derived from the JSON by two codecs, or kept
as they are beside the reason why there is no JSON.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sync.atproto import cbor
from sync.atproto.cbor import Link
from sync.atproto.cid import cid_for, format_cid
from sync.atproto.records import MAX_RECORD_BYTES, json_to_block, second_codec_block
from sync.simnet import Account, Simnet
from sync.simnet.repo import Write
from sync.verifier import verify_repo
from tests.integration.rig import NOTE, Rig, note, rig_on

pytestmark = pytest.mark.timeout(120)

CID = cid_for(b"elsewhere")
RAW_CID = cid_for(b"a picture", codec=0x55)


def nested(levels: int, inner: Any = None) -> Any:
    """Return arrays and maps in turn, so many levels of them around something."""
    value = inner
    for level in range(levels):
        value = [value] if level % 2 else {"": value}
    return value


def padded(size: int) -> bytes:
    """Return a record of exactly so many bytes."""
    text = "x" * (size - len(cbor.encode({"t": "x" * 70_000})) + 70_000)
    return cbor.encode({"t": text})


# What JSON holds, by record key; the keys are as odd as the protocol allows.
HELD: dict[str, bytes] = {
    "...": cbor.encode({"$type": NOTE, "": "the empty key", "a": {"": {"": []}}}),
    "-": cbor.encode({"$type": NOTE, "int": [2**63 - 1, -(2**63), 2**53 + 1, 0, -1]}),
    "_": cbor.encode({"deep": nested(63)}),
    "~": cbor.encode({"$type": NOTE, "$": 1, "$odd": {"$type": "x"}, "$$link": {"$LINK": "x"}}),
    ":": cbor.encode({"$type": NOTE, "legacy": {"cid": format_cid(RAW_CID), "mimeType": "a/b"}}),
    "self": cbor.encode({"bytes": CID, "link": Link(CID), "both": [CID, Link(CID), b""]}),
    "Self": cbor.encode({"blob": {"$type": "blob", "ref": Link(RAW_CID), "size": "9"}}),
    "a:b~c_d.e-f": cbor.encode({"text": "\ufeff\ufffe\uffff\u2028\U0010ffff e\u0301 \\u0000 \x01"}),
    "0": cbor.encode({"digits": "9" * 40, "quote": '"\\/\b\f\n\r\t', "\n": None}),
    "00": cbor.encode({"empties": [None, False, 0, "", b"", [], {}], "__proto__": {"x": 1}}),
    "x" * 512: cbor.encode({}),
    "large": padded(MAX_RECORD_BYTES),
}  # fmt: skip
# What JSON cannot hold, and why.
KEPT: dict[str, tuple[bytes, str]] = {
    "nul-value": (cbor.encode({"text": "before\0after", "more": b"\0"}), "nul"),
    "nul-key": (cbor.encode({"key\0": 1}), "nul"),
    "link": (cbor.encode({"$link": format_cid(CID)}), "ambiguous"),
    "bytes": (cbor.encode({"a": [{"$bytes": 5, "more": 1}]}), "ambiguous"),
    "positive": (b"\xa1\x61a\x1b\x80" + bytes(7), "integer"),
    "negative": (b"\xa1\x61a\x3b" + b"\xff" * 8, "integer"),
    "float": (b"\xa1\x61a\xfb\x3f\xf0" + bytes(6), "float"),
    "nan": (b"\xa1\x61a\xf9\x7e\x00", "float"),
    "deep": (b"\xa1\x60" * 64 + b"\xa0", "too_deep"),
    "list": (cbor.encode([1]), "not_a_map"),
    "order": (b"\xa2\x61b\x01\x61a\x02", "not_canonical"),
    "open": (b"\xbf\xff", "not_canonical"),
    "surrogate": (b"\xa1\x61a\x63\xed\xa0\x80", "not_canonical"),
    "dag-pb": (b"\xa1\x61a\xd8\x2a\x58\x25\x00\x01\x70\x12\x20" + bytes(32), "bad_link"),
    "junk": (b"\xff\xfe not CBOR", "not_canonical"),
    "cut": (b"\xa1\x61a\x7a\xff\xff\xff\xff", "not_cbor"),
}


def everything() -> dict[str, bytes]:
    """Return all records by their keys."""
    return {**HELD, **{rkey: block for rkey, (block, _) in KEPT.items()}}


async def check(rig: Rig, account: Account, table: str) -> None:
    """Compare each record with the bytes that were signed."""
    rows = await rig.conn.fetch(
        f"select rkey, cid, value, raw, reason from {table} where did = $1 and rkey = any ($2)",
        account.did,
        list(everything()),
    )
    assert {row["rkey"] for row in rows} == everything().keys()
    for row in rows:
        block = everything()[row["rkey"]]
        assert row["cid"] == format_cid(cid_for(block)), row["rkey"]
        if row["rkey"] in HELD:
            check_held(row, block)
        else:
            reason = KEPT[row["rkey"]][1]
            assert (row["value"], row["raw"], row["reason"]) == (None, block, reason), row["rkey"]


def check_held(row: Mapping[str, Any], block: bytes) -> None:
    assert (row["raw"], row["reason"]) == (None, None), row["rkey"]
    value = json.loads(row["value"])
    assert json_to_block(value) == block, row["rkey"]
    assert second_codec_block(value) == block, row["rkey"]


@pytest.mark.rule("DM-11", "OP-04", "OP-08", "RC-10", "RC-11", "SX-10", "D-10")
@pytest.mark.scenario("A-30", "A-31", "A-32", "A-33", "A-35")
async def test_hard_content_survives_backfill_stream_and_resync(clone, tmp_path: Path):
    async with Simnet(seed=44, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        records = {f"{NOTE}/{rkey}": block for rkey, block in everything().items()}
        alice = net.create_account("alice.test", records=records)
        bob = net.create_account("bob.test", records={f"{NOTE}/first": note("one")})
        rig.start()
        await rig.track(alice, bob)
        await rig.level(alice, bob)
        for rkey, block in everything().items():
            bob.apply_writes([Write("create", NOTE, rkey, block)])
        await rig.level(bob)
        for account in (alice, bob):
            await check(rig, account, "sync.records")
        await check(rig, bob, "sync.change_log")
        for account in (alice, bob):
            verdict = await verify_repo(rig.settings, account.did)
            assert (verdict.summary, verdict.faults) == ("whole", ())
        position = await rig.last_change()
        await rig.conn.fetchval("select sync.resync_repos($1)", [alice.did])
        await rig.level(alice)
        assert await rig.changes(alice, after=position) == []


@pytest.mark.rule("RC-01", "D-01")
@pytest.mark.scenario("A-33")
async def test_a_record_of_a_byte_too_much_leaves_its_cid_and_its_siblings(clone, tmp_path: Path):
    async with Simnet(seed=45, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        large = padded(MAX_RECORD_BYTES + 1)
        records = {f"{NOTE}/a": json_to_block(note("one")), f"{NOTE}/b": large}
        alice = net.create_account("alice.test", records=records)
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        query = "select cid, value, raw, reason from sync.records where did = $1 and rkey = 'b'"
        row = await rig.conn.fetchrow(query, alice.did)
        assert tuple(row) == (format_cid(cid_for(large)), None, None, "too_big")
        verdict = await verify_repo(rig.settings, alice.did)
        assert (verdict.summary, verdict.records) == ("incomplete: 1", 2)
