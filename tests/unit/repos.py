"""Make small signed repos, commits and exports, honest ones and lies, for the protocol tests."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sync.atproto import cbor, mst
from sync.atproto.car import write_car
from sync.atproto.cid import cid_for
from sync.atproto.commit import make_commit
from sync.atproto.frame import CommitMessage, RepoOp, SyncMessage
from sync.atproto.keys import K256, PrivateKey
from sync.atproto.node import Node, read_node
from sync.atproto.syntax import make_tid

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
KEY = PrivateKey.generate(K256, seed=b"test")
NOW_US = 1_760_000_000_000_000
SINCE = make_tid(NOW_US - 2_000_000, 1)
REV = make_tid(NOW_US - 1_000_000, 1)
TIME = "2025-10-09T08:53:20.000Z"


def record(text: str) -> bytes:
    """Make a small record block."""
    return cbor.encode({"$type": "com.example.note", "text": text})


def section(data: bytes) -> bytes:
    """Return bytes behind their length, as a CAR has them."""
    size, head = len(data), b""
    while size > 0x7F:
        head += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return head + bytes((size,)) + data


def keys_by_layer(layer: int, count: int) -> list[bytes]:
    """Find the first valid paths that live in a layer."""
    found: list[bytes] = []
    number = 0
    while len(found) < count:
        key = b"com.example.note/%d" % number
        if mst.key_layer(key) == layer:
            found.append(key)
        number += 1
    return found


def covering_proof(
    root: bytes, blocks: Mapping[bytes, bytes], paths: Iterable[bytes], *, neighbours: bool = True
) -> dict[bytes, bytes]:
    """Collect the nodes on the way to each path, and to what stands beside it."""
    proof: dict[bytes, bytes] = {}

    def visit(cid: bytes) -> Node:
        proof[cid] = blocks[cid]
        return read_node(blocks[cid])

    def visit_edge(cid: bytes | None, index: int) -> None:
        while cid is not None:
            cid = visit(cid).children[index]

    for path in paths:
        cid: bytes | None = root
        while cid is not None:
            node = visit(cid)
            index = bisect_left(node.keys, path)
            cid = node.children[index]
            if index < len(node.keys) and node.keys[index] == path:
                if neighbours:
                    visit_edge(cid, -1)
                    visit_edge(node.children[index + 1], 0)
                break
    return proof


@dataclass
class Change:
    """One commit in the making: change any part before `message()` to make it lie."""

    before: dict[str, bytes]
    after: dict[str, bytes]
    did: str = DID
    rev: str = REV
    key: PrivateKey = KEY

    def __post_init__(self) -> None:
        """Derive the honest parts: ops, trees, blocks."""
        old = {path: cid_for(block) for path, block in self.before.items()}
        new = {path: cid_for(block) for path, block in self.after.items()}
        self.ops: list[RepoOp] = []
        for path in sorted(old.keys() | new.keys()):
            cid, prev = new.get(path), old.get(path)
            if cid != prev:
                action = "create" if prev is None else "delete" if cid is None else "update"
                self.ops.append(RepoOp(action, path, cid, prev))
        self.since: str | None = SINCE
        self.prev_data: bytes | None = mst.build(encoded(old))[0]
        self.data, self.nodes = mst.build(encoded(new))
        self.proof = covering_proof(self.data, self.nodes, [op.path.encode() for op in self.ops])
        self.records = {cid_for(block): block for block in self.after.values()}
        self.commit, self.commit_block = make_commit(self.did, self.rev, self.data, self.key)

    def sign(self, data: bytes) -> None:
        """Sign another tree root than the honest one."""
        self.data = data
        self.commit, self.commit_block = make_commit(self.did, self.rev, data, self.key)

    def blocks(self) -> bytes:
        """Write the CAR: commit, proof, records that ops name."""
        wanted = {op.cid for op in self.ops}
        records = [(cid, block) for cid, block in self.records.items() if cid in wanted]
        parts = [(self.commit, self.commit_block), *self.proof.items(), *records]
        return write_car(self.commit, parts)

    def message(self, **changed: Any) -> CommitMessage:
        """Make the event, with any of its fields replaced."""
        message = CommitMessage(
            seq=1,
            did=self.did,
            rev=self.rev,
            since=self.since,
            prev_data=self.prev_data,
            commit=self.commit,
            blocks=self.blocks(),
            ops=tuple(self.ops),
            time=TIME,
        )
        return replace(message, **changed)

    def sync_message(self, **changed: Any) -> SyncMessage:
        """Make the `#sync` event for the same commit."""
        blocks = write_car(self.commit, [(self.commit, self.commit_block)])
        return replace(SyncMessage(1, self.did, self.rev, blocks, TIME), **changed)

    def export_blocks(self) -> list[tuple[bytes, bytes]]:
        """Return everything a full export has."""
        return [(self.commit, self.commit_block), *self.nodes.items(), *self.records.items()]

    def export(self) -> bytes:
        """Write the full export."""
        return write_car(self.commit, self.export_blocks())


def encoded(leaves: Mapping[str, bytes]) -> dict[bytes, bytes]:
    """Turn paths into tree keys."""
    return {path.encode(): cid for path, cid in leaves.items()}


def some_records(numbers: Iterable[int]) -> dict[str, bytes]:
    """Make records with numbered keys."""
    return {f"com.example.note/{number}": record(f"note {number}") for number in numbers}


def export_of_nodes(
    root: bytes, blocks: Mapping[bytes, bytes], records: Sequence[bytes] = ()
) -> bytes:
    """Sign any root over any blocks: for trees that lie."""
    commit, commit_block = make_commit(DID, REV, root, KEY)
    parts = [(commit, commit_block), *blocks.items(), *((cid_for(b), b) for b in records)]
    return write_car(commit, parts)
