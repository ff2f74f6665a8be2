"""One account's repo on one host: records, tree, signed commits, exports and proofs."""

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sync.atproto import cbor
from sync.atproto.car import write_car
from sync.atproto.cid import cid_for
from sync.atproto.commit import make_commit
from sync.atproto.keys import PrivateKey
from sync.atproto.records import json_to_block
from sync.errors import UsageError
from sync.simnet.tree import Tree

MAX_WRITES = 200
# How far back a stale export can go; older heads are forgotten.
_KEPT_HEADS = 256

RecordSource = Mapping[str, Any] | bytes


@dataclass(frozen=True, slots=True)
class Write:
    """One change that a commit is to make; `block` is None when it deletes."""

    action: str
    collection: str
    rkey: str
    block: bytes | None = None

    @classmethod
    def create(cls, collection: str, rkey: str, value: RecordSource) -> "Write":
        """Ask for a new record."""
        return cls("create", collection, rkey, record_block(value))

    @classmethod
    def update(cls, collection: str, rkey: str, value: RecordSource) -> "Write":
        """Ask for new contents of a record that exists."""
        return cls("update", collection, rkey, record_block(value))

    @classmethod
    def delete(cls, collection: str, rkey: str) -> "Write":
        """Ask for the removal of a record."""
        return cls("delete", collection, rkey)

    @property
    def path(self) -> str:
        """Return collection and rkey as the tree's key has them."""
        return f"{self.collection}/{self.rkey}"


@dataclass(frozen=True, slots=True)
class Op:
    """One operation as the event tells it; `prev` is the CID before the whole commit."""

    action: str
    path: str
    cid: bytes | None
    prev: bytes | None


@dataclass(frozen=True, slots=True)
class Head:
    """A signed state of a repo."""

    rev: str
    cid: bytes
    block: bytes
    tree: Tree


@dataclass(frozen=True, slots=True)
class RepoCommit:
    """What one commit changed, and the blocks that prove it."""

    head: Head
    since: str | None
    prev_data: bytes | None
    ops: tuple[Op, ...]
    car: bytes

    @property
    def rev(self) -> str:
        """Return the commit's rev."""
        return self.head.rev

    @property
    def rkey(self) -> str:
        """Return the record key of the first operation."""
        return self.ops[0].path.partition("/")[2]

    def event(self, did: str) -> dict[str, Any]:
        """Return the fields of the `#commit` event but seq and time."""
        event = {
            "repo": did,
            "commit": cbor.Link(self.head.cid),
            "rev": self.head.rev,
            "since": self.since,
            "blocks": self.car,
            "ops": [_event_op(op) for op in self.ops],
            "rebase": False,
            "tooBig": False,
            "blobs": [],
        }
        if self.prev_data is not None:
            event["prevData"] = cbor.Link(self.prev_data)
        return event


class Repo:
    """Records, their tree and the signed heads over it."""

    def __init__(self, did: str, key: PrivateKey) -> None:
        self.did = did
        self.key = key
        self.heads: deque[Head] = deque(maxlen=_KEPT_HEADS)
        self.records: dict[bytes, bytes] = {}

    @property
    def head(self) -> Head:
        """Return the newest signed state."""
        return self.heads[-1]

    def start(self, rev: str, records: Mapping[str, bytes] | None = None) -> RepoCommit:
        """Sign the first commit: of an empty repo, or (an import) of many records at once."""
        leaves: dict[bytes, bytes] = {}
        for path, block in (records or {}).items():
            cid = cid_for(block)
            self.records[cid] = block
            leaves[path.encode()] = cid
        head = self._sign(Tree.build(leaves), rev)
        proof = {head.tree.cid: next(head.tree.blocks())[1]}
        car = write_car(head.cid, [(head.cid, head.block), *proof.items()])
        return RepoCommit(head, None, None, (), car)

    def commit(self, writes: Sequence[Write], rev: str) -> RepoCommit:
        """Apply up to 200 changes and sign the result."""
        if len(writes) > MAX_WRITES:
            raise UsageError(f"one commit takes at most {MAX_WRITES} writes, not {len(writes)}")
        before = self.head
        tree = before.tree
        for write in writes:
            tree = _apply(tree, write)
        blocks: dict[bytes, bytes] = {}
        ops = []
        for write in writes:
            key = write.path.encode()
            blocks |= tree.covering_blocks(key)
            cid = None if write.block is None else cid_for(write.block)
            # What the same commit creates and deletes again is in no tree, and not sent either.
            if cid is not None and write.block is not None and tree.get(key) == cid:
                blocks[cid] = self.records[cid] = write.block
            prev = None if write.action == "create" else before.tree.get(key)
            ops.append(Op(write.action, write.path, cid, prev))
        head = self._sign(tree, rev)
        car = write_car(head.cid, [(head.cid, head.block), *blocks.items()])
        return RepoCommit(head, before.rev, before.tree.cid, tuple(ops), car)

    def resign(self, rev: str, key: PrivateKey) -> Head:
        """Sign the present tree again, with another key."""
        self.key = key
        return self._sign(self.head.tree, rev)

    def copy(self, key: PrivateKey) -> "Repo":
        """Return the repo as another host imports it; that host signs from now on."""
        other = Repo(self.did, key)
        other.heads.append(self.head)
        other.records = dict(self.records)
        return other

    def export(self, head: Head | None = None) -> bytes:
        """Return the whole repo as a CAR, in no helpful order: like the real servers."""
        head = head or self.head
        blocks = {head.cid: head.block, **dict(head.tree.blocks())}
        for _, cid in head.tree.leaves():
            blocks[cid] = self.records[cid]
        order = list(blocks.items())
        random.Random(head.cid).shuffle(order)
        return write_car(head.cid, order)

    def proof(self, path: str) -> bytes:
        """Return a CAR that proves one record, or that it is not there."""
        head = self.head
        blocks = {head.cid: head.block, **head.tree.path_blocks(path.encode())}
        cid = head.tree.get(path.encode())
        if cid is not None:
            blocks[cid] = self.records[cid]
        return write_car(head.cid, list(blocks.items()))

    def head_car(self) -> bytes:
        """Return the commit block alone, as a `#sync` event carries it."""
        return write_car(self.head.cid, [(self.head.cid, self.head.block)])

    def _sign(self, tree: Tree, rev: str) -> Head:
        cid, block = make_commit(self.did, rev, tree.cid, self.key)
        head = Head(rev, cid, block, tree)
        self.heads.append(head)
        return head


def record_block(value: RecordSource) -> bytes:
    """Return a record's block; bytes are taken as they are, for contents no server would write."""
    return value if isinstance(value, bytes) else json_to_block(value)


def _apply(tree: Tree, write: Write) -> Tree:
    """Apply one write, and refuse what a server would refuse."""
    key = write.path.encode()
    exists = tree.get(key) is not None
    if exists == (write.action == "create"):
        raise UsageError(f"cannot {write.action} {write.path}: exists={exists}")
    return tree.remove(key) if write.block is None else tree.put(key, cid_for(write.block))


def _event_op(op: Op) -> dict[str, Any]:
    event: dict[str, Any] = {
        "action": op.action,
        "path": op.path,
        "cid": None if op.cid is None else cbor.Link(op.cid),
    }
    if op.prev is not None:
        event["prev"] = cbor.Link(op.prev)
    return event
