"""Hostile inputs, each given to the product in a process whose memory and time are limited.

    python -m tests.unit.bounded CASE MEMORY_MIB SECONDS

The limits are for what the case takes beyond a process that has loaded everything. The inputs are
made beforehand, the largest as files of holes. The last line printed says how each ended, as JSON.
"""

import io
import json
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sync.atproto import cbor, mst
from sync.atproto.car import CarReader, read_car
from sync.atproto.cid import cid_for
from sync.atproto.commit import make_commit, read_commit
from sync.atproto.envelope import read_objects
from sync.atproto.export import ExportLimits, read_export
from sync.atproto.frame import read_frame
from sync.atproto.identity import parse_did_document
from sync.atproto.node import MAX_NODE_ENTRIES, read_node, write_node
from sync.atproto.records import json_to_block, read_record, second_codec_block
from sync.atproto.verify import verify_commit
from sync.errors import ProtocolError
from tests.unit.endless import endless_answers, endless_streams
from tests.unit.repos import DID, KEY, NOW_US, REV, Change, export_of_nodes, record

MIB = 1 << 20
GIB = 1 << 30
Work = Callable[[], str]

# One CBOR object each, whose heads promise or nest far more than is there.
BOMBS: dict[str, bytes] = {
    "array of 2^64-1": b"\x9b" + b"\xff" * 8,
    "map of 2^64-1": b"\xbb" + b"\xff" * 8,
    "text of 2^62": b"\x7b\x40" + bytes(7),
    "bytes of 4 GB": b"\x5a" + b"\xff" * 4,
    "arrays that each claim the rest": b"\x9a\x00\x0f\x00\x00" * 200_000,
    "maps that each claim the rest": b"\xba\x00\x07\x00\x00\x60" * 160_000,
    "100,000 levels of arrays": b"\x81" * 100_000 + b"\x80",
    "100,000 levels of maps": b"\xa1\x60" * 100_000 + b"\xa0",
    "1,000,000 levels of tags": b"\xd8\x2a" * 1_000_000 + b"\x41\x00",
    "open arrays": b"\x9f" * 1_000_000,
}


def outcome(call: Callable[[], object]) -> str:
    """Return the reason why a call refuses its input, or that it took it."""
    try:
        call()
    except ProtocolError as error:
        return error.reason
    return "taken"


def gate(read: Callable[[bytes], object], *, head: bytes = b"") -> dict[str, Work]:
    """Return the work of giving each bomb to a reader, behind some bytes."""

    def give(bomb: bytes) -> Work:
        return lambda: outcome(lambda: read(head + bomb))

    return {name: give(bomb) for name, bomb in BOMBS.items()}


def _record(block: bytes) -> None:
    found = read_record(block)
    if found.value is None:
        raise ProtocolError(found.reason or "")


def _car_header(bomb: bytes) -> None:
    size, varint = len(bomb), b""
    while size > 0x7F:
        varint += bytes((size & 0x7F | 0x80,))
        size >>= 7
    data = varint + bytes((size,)) + bomb
    assert outcome(lambda: read_car(data, max_blocks=9)) == "bad_car_header"
    CarReader(io.BytesIO(data), max_bytes=GIB, max_blocks=9)


def _nested_json() -> dict[str, Work]:
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    return {
        "document of arrays": lambda: outcome(lambda: parse_did_document(DID, b"[" * 262_144)),
        "document of objects": lambda: outcome(lambda: parse_did_document(DID, b'{"":' * 60_000)),
        "document of 10 MB": lambda: outcome(lambda: parse_did_document(DID, bytes(10 * MIB))),
        "stored JSON": lambda: outcome(lambda: json_to_block({"a": deep})),
        "stored JSON, second codec": lambda: outcome(lambda: second_codec_block({"a": deep})),
    }


def _many_items() -> dict[str, Work]:
    """Return input of legal form that becomes millions of objects."""
    body = (
        b"\xa2\x63ops\x9a" + (4_900_000).to_bytes(4, "big") + b"\xa0" * 4_900_000 + b"\x63seq\x01"
    )
    frame = cbor.encode({"op": 1, "t": "#commit"}) + body
    million = b"\xa1\x61a\x9a" + (1_000_000).to_bytes(4, "big") + b"\xa0" * 1_000_000
    return {
        "a frame of five million maps": lambda: outcome(lambda: read_frame(frame)),
        "five million objects": lambda: outcome(lambda: read_frame(b"\xa0" * 5_000_000)),
        "a record of a million maps": lambda: outcome(lambda: _record(million)),
    }


@contextmanager
def _file_of(*parts: tuple[int, bytes], size: int) -> Iterator[Any]:
    """Open a file of holes, but for the given parts."""
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        for at, part in parts:
            file.seek(at)
            file.write(part)
        file.seek(0)
        yield file


def _exported(file: Any, **limits: int) -> str:
    return outcome(
        lambda: read_export(file, DID, None, now_us=NOW_US, limits=ExportLimits(**limits))
    )


def _files() -> dict[str, Work]:
    """Return exports that are or claim to be huge."""
    honest = Change({}, {"com.example.note/a": record("a")})
    start = honest.export()
    zeros = cid_for(bytes(100 * MIB))

    def header() -> str:
        with _file_of((0, b"\x80\x80\x80\x80\x04"), size=GIB) as file:
            return _exported(file)

    def section() -> str:
        with _file_of((0, start + b"\xff\xff\xff\xff\x0f" + zeros), size=4 * GIB) as file:
            return _exported(file, max_bytes=64 * MIB)

    def cut() -> str:
        with _file_of((0, start + b"\xff\xff\xff\xff\x0f" + zeros), size=200 * MIB) as file:
            return _exported(file)

    def block() -> str:
        commit, signed = make_commit(DID, REV, zeros, KEY)
        head = honest.export()[: 58 + 1].replace(honest.commit, commit)
        head += bytes((36 + len(signed) & 0x7F | 0x80, (36 + len(signed)) >> 7)) + commit + signed
        head += b"\xa4\x80\x80\x32" + zeros
        with _file_of((0, head), size=len(head) + 100 * MIB) as file:
            return _exported(file)

    def many() -> str:
        raw = cid_for(b"", codec=0x55)
        with _file_of((0, start + (b"\x24" + raw) * 500_000), size=0) as file:
            return _exported(file, max_blocks=400_000)

    return {
        "a header of 1 GB": header,
        "a section of 4 GB": section,
        "a section that is cut": cut,
        "a node of 100 MB": block,
        "half a million empty blocks": many,
    }


def _long_keys() -> dict[str, Work]:
    """Return small exports whose keys are long, but have all but their ends in common."""
    works: dict[str, Work] = {}
    for name, length in (("long keys that are no paths", 1_000), ("long keys", 520)):
        # Made in another process, so that no memory is left over here, nor reserved by threads.
        with tempfile.NamedTemporaryFile() as made:
            maker = get_context("fork").Process(target=_make_export, args=(made.name, length))
            maker.start()
            maker.join()
            data = made.read()
        assert 0 < len(data) < 8 * MIB
        works[name] = partial(_exported, io.BytesIO(data), max_bytes=16 * MIB)
    return works


def _make_export(path: str, length: int) -> None:
    leaves = dict.fromkeys(_sparse_keys(100_000, length=length), cid_for(record("a")))
    Path(path).write_bytes(export_of_nodes(*mst.build(leaves), [record("a")]))


def _sparse_keys(count: int, *, length: int) -> Iterator[bytes]:
    """Yield keys of which but a few hundred stand in the lowest layer, in nodes of thousands."""
    for number in range(count):
        key = b"com.example.note/" + b"%06d" % number
        key = key[:17] + b"x" * (length - len(key)) + key[17:]
        if mst.key_layer(key) == (1 if number % 8_000 < 40 else 0):
            yield key


def _low_keys(count: int, *, length: int = 0) -> list[bytes]:
    """Mine keys of the lowest layer, in order."""
    found: list[bytes] = []
    number = 0
    while len(found) < count:
        key = b"com.example.note/%08d" % number
        key += b"x" * (length - len(key))
        if mst.key_layer(key) == 0:
            found.append(key)
        number += 1
    return found


def _nodes() -> dict[str, Work]:
    """Return trees whose nodes are as large as can be, and larger."""
    link = cid_for(record("a"))
    keys = _low_keys(10_000)
    crowd = write_node(keys, [link] * 10_000, [None] * 10_001)
    wide = _low_keys(MAX_NODE_ENTRIES, length=1_000)
    wide[0] = wide[0][:24]
    full = write_node(keys[:MAX_NODE_ENTRIES], [link] * MAX_NODE_ENTRIES, [None] * 8_193)
    before = {key.decode(): record("a") for key in keys[: MAX_NODE_ENTRIES - 200]}
    after = before | {key.decode(): record("b") for key in keys[:200]}
    message = Change(before, after).message()
    shared = {cid_for(full): full}
    high = [key for key in (b"com.example.note/9%07d" % n for n in range(40_000))
            if mst.key_layer(key) == 1]  # fmt: skip
    root = write_node(high, [link] * len(high), [cid_for(full)] * (len(high) + 1))
    shared[cid_for(root)] = root
    return {
        "10,000 keys in a node": lambda: outcome(lambda: read_node(crowd)),
        "a full node, 200 records changed": lambda: outcome(
            lambda: verify_commit(message, KEY.public, now_us=NOW_US)
        ),
        "one subtree at every link": lambda: outcome(
            lambda: list(mst.walk(cid_for(root), shared.get))
        ),
    }


CASES: dict[str, Callable[[], dict[str, Work]]] = {
    "strict gate": lambda: gate(cbor.decode),
    "fast gate": lambda: gate(cbor.decode_fast),
    "objects": lambda: gate(read_objects),
    "frame": lambda: gate(read_frame, head=cbor.encode({"op": 1, "t": "#commit"})),
    "record": lambda: gate(_record),
    "commit": lambda: gate(read_commit),
    "node": lambda: gate(read_node),
    "entries of a node": lambda: gate(read_node, head=b"\xa2\x61e\x81\xa4\x61k"),
    "header of a CAR": lambda: gate(_car_header),
    "nested JSON": _nested_json,
    "many items": _many_items,
    "files": _files,
    "nodes": _nodes,
    "long keys": _long_keys,
    "answers": endless_answers,
    "streams": endless_streams,
}


def main() -> None:
    """Run one case under its limits."""
    case, memory_mib, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    works = CASES[case]()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory_mib * MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    outcomes = {}
    for name, work in works.items():
        signal.setitimer(signal.ITIMER_PROF, seconds)  # of the processor; its signal ends us
        print(name, file=sys.stderr, flush=True)
        outcomes[name] = work()
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
