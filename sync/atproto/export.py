"""Verify a whole repo from the CAR file that getRepo answers with (rules CA-*, MS-19).

Memory holds an index of the blocks and the list of records, never the blocks: the file is
hashed front to back once, then the tree is walked by reading its nodes again where they lie.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple, TypeVar

from sync.atproto.car import CarReader
from sync.atproto.cid import is_dag_cbor
from sync.atproto.commit import Commit, check_signature, read_commit
from sync.atproto.keys import PublicKey
from sync.atproto.mst import TreeBuilder, key_layer, walk
from sync.atproto.syntax import split_path
from sync.atproto.verify import MAX_RECORD_BYTES, check_rev
from sync.errors import ExportError, ProtocolError

# A full node of longest keys stays below this; whatever is larger is not read into memory.
_MAX_NODE_BYTES = 10_000_000
_MAX_COMMIT_BYTES = 65_536
_LENGTH_BITS = 40
# How many blocks or leaves are read between two looks at the clock.
_UNTIMED = 64

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExportLimits:
    """How much of an export is accepted; the index takes some 400 bytes a block of memory.

    `max_bytes` also bounds the records together, since one block may stand at any number of paths
    and would be stored as often, and the paths: nodes hold but the ends in which they differ.
    `max_cpu_s` is time of the processor: that the machine is busy is not the repo's fault.
    """

    max_bytes: int = 4_000_000_000
    max_blocks: int = 10_000_000
    max_records: int = 5_000_000
    max_cpu_s: float = math.inf


class Leaf(NamedTuple):
    """One record of the tree; a tuple, since an export may have millions."""

    collection: str
    rkey: str
    cid: bytes


@dataclass(frozen=True, slots=True)
class Export:
    """A verified repo: its commit, its records in tree order, how many were left out and why.

    Blocks are read from the file on demand, so the file must stay open.
    """

    commit: Commit
    leaves: list[Leaf]
    skipped: Counter[str]
    _file: BinaryIO = field(repr=False)
    _index: dict[bytes, int] = field(repr=False)

    def block_bytes(self, cid: bytes) -> int:
        """Return how many bytes read_block() reads."""
        length = _length(self._index[cid])
        return length if length <= MAX_RECORD_BYTES else 0

    def read_block(self, cid: bytes) -> bytes | None:
        """Read a record's block; None for one over the size limit (D-01)."""
        return _read_block(self._file, self._index, cid, max_bytes=MAX_RECORD_BYTES)


def read_owner(file: BinaryIO) -> str:
    """Find out whose repo a file claims to be, to know by which key it is to be verified."""
    file.seek(0)
    reader = CarReader(file, max_bytes=1 << 50, max_blocks=1 << 40)
    for cid, offset, length in reader:
        if cid == reader.roots[0] and length <= _MAX_COMMIT_BYTES:
            file.seek(offset)
            return read_commit(file.read(length)).did
    raise ExportError("missing_commit", "the CAR lacks its root", rule="CA-17")


def read_export(
    file: BinaryIO, did: str, key: PublicKey | None, *, now_us: int, limits: ExportLimits
) -> Export:
    """Verify an export of this account completely; without a key all but the signature.

    Raises ExportError and nothing else, whatever the bytes are.
    """
    try:
        return _read_export(file, did, key, now_us=now_us, limits=limits)
    except ExportError:
        raise
    except ProtocolError as error:
        raise ExportError(error.reason, error.detail, rule=error.rule) from error


def _read_export(
    file: BinaryIO, did: str, key: PublicKey | None, *, now_us: int, limits: ExportLimits
) -> Export:
    end_s = time.thread_time() + limits.max_cpu_s
    file.seek(0)
    reader = CarReader(file, max_bytes=limits.max_bytes, max_blocks=limits.max_blocks)
    places = _until(end_s, reader)
    index = {cid: offset << _LENGTH_BITS | length for cid, offset, length in places}

    def read_node_block(cid: bytes) -> bytes | None:
        return _read_block(file, index, cid, max_bytes=_MAX_NODE_BYTES)

    block = read_node_block(reader.roots[0])
    if block is None:
        raise ExportError("missing_commit", "the CAR lacks its root", rule="CA-17")
    commit = read_commit(block)
    if commit.did != did:
        raise ExportError("did_mismatch", "the export is of another account", rule="CA-19")
    check_rev(commit.rev, now_us=now_us)
    if key is not None and not check_signature(commit, key):
        raise ExportError("bad_signature", rule="CA-19")
    tree = _until(end_s, walk(commit.data, read_node_block))
    leaves, skipped = _collect(tree, commit.data, index, limits)
    # Only records are read again; an export may well be padded with blocks that nothing links.
    records = {leaf.cid: index[leaf.cid] for leaf in leaves}
    export = Export(commit, leaves, skipped, file, records)
    if sum(export.block_bytes(leaf.cid) for leaf in leaves) > limits.max_bytes:
        raise ExportError("records_too_big", f"more than {limits.max_bytes} bytes", rule="CA-14")
    return export


def _until(end_s: float, items: Iterable[T]) -> Iterator[T]:
    """Pass things on while there is time."""
    for number, item in enumerate(items):
        if number % _UNTIMED == 0 and time.thread_time() > end_s:
            raise ExportError("too_slow", "it takes too long to verify", rule="CA-14")
        yield item


def _collect(
    tree: Iterable[tuple[bytes, bytes]],
    root: bytes,
    index: dict[bytes, int],
    limits: ExportLimits,
) -> tuple[list[Leaf], Counter[str]]:
    """Take the leaves of a walk, rebuild the tree from them alone, compare the roots (MS-19)."""
    leaves: list[Leaf] = []
    skipped: Counter[str] = Counter()
    path_bytes = 0
    builder = TreeBuilder()
    last = b""
    for count, (key, cid) in enumerate(tree):
        if count >= limits.max_records:
            detail = f"more than {limits.max_records}"
            raise ExportError("too_many_records", detail, rule="CA-14")
        if key <= last:  # the builder takes the order for granted
            raise ExportError("key_order", "keys do not ascend", rule="MS-04")
        last = key
        builder.add_leaf(key, cid, layer=key_layer(key))
        path = split_path(key)
        if path is None:
            skipped["bad_path"] += 1
        elif not is_dag_cbor(cid):
            skipped["record_link"] += 1
        elif cid not in index:
            raise ExportError("missing_block", "a record's block is missing", rule="CA-11")
        else:
            leaves.append(Leaf(path[0], path[1], cid))
            path_bytes += len(key)
            if path_bytes > limits.max_bytes:
                detail = f"paths of more than {limits.max_bytes} bytes"
                raise ExportError("records_too_big", detail, rule="CA-14")
    if builder.finish() != root:
        raise ExportError("root_mismatch", "the tree is not that of its records", rule="MS-19")
    return leaves, skipped


def _read_block(
    file: BinaryIO, index: dict[bytes, int], cid: bytes, *, max_bytes: int
) -> bytes | None:
    place = index.get(cid)
    if place is None:
        return None
    length = _length(place)
    if length > max_bytes:
        return None
    file.seek(place >> _LENGTH_BITS)
    return file.read(length)


def _length(place: int) -> int:
    return place & ((1 << _LENGTH_BITS) - 1)
