"""Prove one record of a repo, or that it is not there, from what `getRecord` answers.

The proof is a CAR: the signed commit, the nodes of the tree from its root down to the record's
key, and the record. Every block is hashed when the CAR is read; every node on the way is checked
for its place, so that no other way could lead to another record.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from sync.atproto.car import read_car
from sync.atproto.cid import is_dag_cbor
from sync.atproto.commit import check_signature, read_commit
from sync.atproto.keys import PublicKey
from sync.atproto.mst import check_node
from sync.atproto.node import MstError, read_node
from sync.atproto.verify import check_rev
from sync.errors import BadSignature, MessageError

# A commit, a node of each layer and the record; generous servers add more.
MAX_PROOF_BLOCKS = 2_000


@dataclass(frozen=True, slots=True)
class ProvenRecord:
    """What the account had signed under a path at `rev`; without CID and block: nothing."""

    rev: str
    cid: bytes | None
    block: bytes | None


def prove_record(car: bytes, *, did: str, key: PublicKey, path: str, now_us: int) -> ProvenRecord:
    """Check the proof of one record; raises `ProtocolError` when it proves nothing.

    It says what was true at its rev. Whether the account has gone on since, no proof can tell.
    """
    proof = read_car(car, max_blocks=MAX_PROOF_BLOCKS)
    root = proof.blocks.get(proof.roots[0])
    if root is None:
        raise MessageError("missing_commit", "the CAR lacks its root", rule="CM-06")
    commit = read_commit(root)
    if commit.did != did:
        raise MessageError("did_mismatch", "the commit is of another account", rule="CM-11")
    check_rev(commit.rev, now_us=now_us)
    if not check_signature(commit, key):
        raise BadSignature("bad_signature", rule="SG-02")
    cid = find_link(commit.data, proof.blocks, path.encode())
    if cid is None:
        return ProvenRecord(commit.rev, None, None)
    if not is_dag_cbor(cid):
        raise MessageError("record_link", "no link to a record", rule="CB-08")
    block = proof.blocks.get(cid)
    if block is None:
        raise MessageError("missing_record", "a record's block is missing", rule="CM-32")
    return ProvenRecord(commit.rev, cid, block)


def find_link(root: bytes, blocks: Mapping[bytes, bytes], key: bytes) -> bytes | None:
    """Follow a tree down to a key and return its link; None where the tree does not have it.

    Raises MstError when a node on the way is missing or breaks a rule.
    """
    cid: bytes | None = root
    layer = low = high = None
    while cid is not None:
        block = blocks.get(cid)
        if block is None:
            raise MstError("missing_node", rule="CA-10")
        node = read_node(block)
        layer = check_node(node, layer=layer, low=low, high=high)
        keys = node.keys
        index = bisect_left(keys, key)
        if index < len(keys) and keys[index] == key:
            return node.values[index]
        low = keys[index - 1] if index else low
        high = keys[index] if index < len(keys) else high
        cid = node.children[index]
        layer -= 1
    return None
