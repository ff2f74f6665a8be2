"""The kept corpus: where it is, and how it was made.

    python -m tests.fuzz.seeds        write the seeds again

Seeds are small objects of a simulated network and of the official vectors, honest ones and some
that break a rule, so that a fuzzer need not invent the formats. An input that once broke a promise
is kept beside them under a name of its own; every file here is checked by every run of the tests.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from sync.atproto import cbor
from sync.atproto.car import write_car
from sync.atproto.cid import cid_for
from sync.atproto.frame import write_frame
from sync.atproto.keys import K256, P256, PrivateKey
from sync.atproto.node import write_node
from sync.atproto.records import json_to_block
from sync.simnet.traffic import commit_frames, generate
from sync.simnet.world import World
from tests.fuzz.targets import DID, TARGETS

KEPT = Path(__file__).parent / "corpus"
MAX_TOTAL_BYTES = 300_000
_VECTORS = Path(
    os.environ.get("ATPROTO_VECTORS") or Path(__file__).parents[3] / "shared" / "vectors"
)
_CID = cid_for(b"seed")


def kept(target: str) -> list[Path]:
    """Return the kept inputs of a target."""
    return sorted((KEPT / target).iterdir())


def main() -> None:
    """Write every seed."""
    seeds = {
        "car": _cars(),
        "cbor": _objects(),
        "document": _documents(),
        "frame": _frames(),
        "node": _nodes(),
        "record": _records(),
    }
    assert seeds.keys() == TARGETS.keys()
    for target, named in seeds.items():
        folder = KEPT / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in named:
            (folder / name).write_bytes(data)


def _world() -> World:
    world = World(seed=5)
    generate(world, 2, 12)
    return world


def _cars() -> Iterator[tuple[str, bytes]]:
    world = _world()
    account = next(iter(world.accounts.values()))
    yield "export", account.repo.export()
    yield "head", account.repo.head_car()
    yield "proof", account.repo.proof(next(iter(account.leaves())))
    blocks = [(cid_for(block), block) for block in (b"\xa0", b"\x80", bytes(200))]
    yield "few", write_car(blocks[0][0], blocks)
    empty = [(cid_for(b"", codec=codec), b"") for codec in (0x55, 0x71)]
    yield "empty-blocks", write_car(_CID, empty)
    foreign = [(b"\x12\x20" + bytes(32), b"v0"), (cid_for(b"raw", codec=0x55), b"raw"), blocks[0]]
    yield "foreign", write_car(blocks[0][0], [*foreign, (b"\x01\x71\x13\x40" + bytes(64), b"512")])
    roots = [cbor.Link(blocks[0][0]), cbor.Link(_CID)]
    header = cbor.encode({"more": 1, "roots": roots, "version": 1})
    yield "two-roots", bytes((len(header),)) + header
    for name in ("empty", "tiny"):
        yield f"vector-{name}", (_VECTORS / "cars" / f"{name}.car").read_bytes()


def _objects() -> Iterator[tuple[str, bytes]]:
    account = next(iter(_world().accounts.values()))
    yield "commit", account.repo.head.block
    yield "node", next(account.repo.head.tree.blocks())[1]
    yield "record", next(iter(account.repo.records.values()))
    leaves = [None, True, 0, -1, 23, 24, 2**32, 2**63 - 1, -(2**63), "é\0", b"\0", cbor.Link(_CID)]
    yield "leaves", cbor.encode(leaves)
    yield "keys", cbor.encode({"": {}, "a": [], "b": [[]], "aa": {"$link": 1}, "\0": ""})
    yield "deep", b"\x81" * 63 + b"\x80"
    yield "too-deep", b"\x81" * 64 + b"\x80"
    yield "claims", b"\x9b" + b"\xff" * 8 + b"\x9a\xff\xff\xff\xff\xb9\xff\xff\x79\xff\xff"
    yield "nested-claims", b"".join(b"\x99" + size.to_bytes(2, "big") for size in range(900, 0, -3))
    yield "floats", b"\x83\xf9\x3c\x00\xfa\x3f\x80\x00\x00\xfb\x7f\xf0" + bytes(6)
    yield "open", b"\x9f\x7f\x61a\xff\xbf\xff\xff"
    yield "tags", b"\x84\xc2\x41\x01\xd8\x2a\x41\x00\xd9\x00\x2a\x41\x00\xd8\x1c\x80"
    yield "beyond", b"\x83\x1b\x80" + bytes(7) + b"\x3b\x80" + bytes(7) + b"\x1b" + b"\xff" * 8
    yield "largest", b"\x1b\x80" + bytes(7)
    yield "long", b"\x84\x18\x01\x78\x01a\x98\x00\xb8\x00"
    yield "twice", b"\xa2\x61a\x01\x61a\x02"
    yield "order", b"\xa3\x61b\x01\x61a\x02\x61a\x03"


def _documents() -> Iterator[tuple[str, bytes]]:
    keys = [PrivateKey.generate(curve, seed=b"fuzz").public for curve in (K256, P256)]
    for form in ("multikey", "legacy"):
        world = World(seed=5, key_form=form)
        for curve in (K256, P256):
            account = world.create_account(curve=curve)
            document = world.directory.document(account.did)
            text = json.dumps(document).replace(account.did, DID)
            yield f"{form}-{curve}", text.encode()
    yield "bare", json.dumps({"id": DID}).encode()
    yield "odd", json.dumps({"id": DID, "alsoKnownAs": [1, "at://x", "at://A.Test"], "service": [
        {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer",
         "serviceEndpoint": "https://Pds.Test:443/"}],
        "verificationMethod": [{"id": "#atproto", "type": "Multikey", "controller": DID,
                                "publicKeyMultibase": key.did_key.removeprefix("did:key:")}
                               for key in keys]}).encode()  # fmt: skip
    yield "deep", b'{"id":' + b"[" * 2_000


def _frames() -> Iterator[tuple[str, bytes]]:
    world = _world()
    for number, frame in enumerate(commit_frames(world, 3)):
        yield f"commit-{number}", frame
    account = next(iter(world.accounts.values()))
    account.deactivate()
    account.activate()
    account.rotate_key()
    kinds: set[bytes] = set()
    for event in world.relay.after(0):
        head = event.frame[:12]
        if head not in kinds:
            kinds.add(head)
            yield f"kind-{len(kinds)}", event.frame
    yield "info", write_frame("#info", {"name": "OutdatedCursor", "message": "gone"})
    yield "error", write_frame("error", {"error": "FutureCursor", "message": "no"})
    yield "unknown", write_frame("#later", {"seq": 5, "more": [1]})
    yield "three", write_frame("#info", {"name": "x"}) + b"\xa0"
    body = account.apply_writes([]).event(account.did)
    body |= {"seq": 9, "time": "2026-01-01T00:00:00Z", "did": DID}
    yield "two-owners", write_frame("#commit", body)
    yield "nine-objects", b"\xa0" * 9


def _nodes() -> Iterator[tuple[str, bytes]]:
    account = next(iter(_world().accounts.values()))
    for number, (_, block) in enumerate(account.repo.head.tree.blocks()):
        yield f"node-{number}", block
    yield "empty", write_node([], [], [None])
    yield "bare", write_node([], [], [_CID])
    keys = [b"com.example.note/" + tail for tail in (b"a", b"ab", b"b~" + b"c" * 300, b"\xff")]
    yield "odd-keys", write_node(keys, [_CID] * 4, [None, _CID, None, _CID, None])
    yield "odd-links", write_node([b"a", b"b"], [b"\x12\x20" + bytes(32), b"\1"], [None] * 3)
    for name, one, two in (
        ("prefix-too-long", _entry(b"a", b"\x01"), b""),
        ("prefix-not-longest", _entry(b"ab", b"\0"), _entry(b"ac", b"\0")),
        ("twice", _entry(b"ab", b"\0"), _entry(b"ab", b"\0")),
        ("order", _entry(b"b", b"\0"), _entry(b"a", b"\0")),
        ("long-prefix", _entry(b"a", b"\x18\0"), b""),
        ("no-suffix", _entry(b"a", b"\0"), _entry(b"", b"\x01")),
    ):
        count = bytes((0x80 + bool(one) + bool(two),))
        yield name, b"\xa2\x61e" + count + one + two + b"\x61l\xf6"


def _entry(suffix: bytes, prefix_length: bytes) -> bytes:
    """Write an entry of a node that need not be right."""
    link = cbor.encode(cbor.Link(_CID))
    parts = b"\xa4\x61k", cbor.encode(suffix), b"\x61p", prefix_length, b"\x61t\xf6\x61v", link
    return b"".join(parts)


def _records() -> Iterator[tuple[str, bytes]]:
    account = next(iter(_world().accounts.values()))
    for number, block in enumerate(list(account.repo.records.values())[:4]):
        yield f"record-{number}", block
    fixtures = _VECTORS / "atproto-interop-tests" / "data-model" / "data-model-fixtures.json"
    for number, case in enumerate(json.loads(fixtures.read_text())):
        yield f"vector-{number}", json_to_block(case["json"])
    yield "nul", cbor.encode({"a\0": "\0", "b": "\\u0000"})
    yield "odd", cbor.encode({"": None, "bytes": b"\x01\x71\x12\x20", "link": cbor.Link(_CID),
                              "int": [2**63 - 1, -(2**63), 2**53], "\ufeff": "\u2028"})  # fmt: skip
    yield "reserved", cbor.encode({"a": {"$link": "x", "more": 1}, "b": {"$bytes": "AA"}})
    yield "digits", cbor.encode({"a": "9" * 20, "b": b"\x1b\xff" * 4})
    yield "huge", b"\xa1\x61a\x1b" + b"\xff" * 8
    yield "deep", b"\xa1\x60" * 63 + b"\xd8\x2a\x58\x25\x00" + _CID
    yield "list", cbor.encode([1])


if __name__ == "__main__":
    main()
