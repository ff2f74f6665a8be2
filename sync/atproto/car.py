"""Read and write CAR files, the containers of blocks (rules CA-*).

Every block is hashed before anything uses it. A CID of another form than the protocol's own
names a block nobody here can link to: it is stepped over.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from sync.atproto import cbor
from sync.atproto.cid import CID_LENGTH, DAG_CBOR_PREFIX, RAW_PREFIX
from sync.atproto.envelope import read_item
from sync.errors import ProtocolError

MAX_HEADER_BYTES = 65_536
_MAX_VARINT_BYTES = 5
_LONGEST_CID = 100
_CHUNK_BYTES = 1 << 20
_MOST_BEFORE_A_BLOCK = _MAX_VARINT_BYTES + _LONGEST_CID
_HASHED_PREFIXES = (DAG_CBOR_PREFIX, RAW_PREFIX)
# The header with exactly one root of 36 bytes, as nearly all have it, needs no decoding.
_USUAL_HEADER = b"\xa2\x65roots\x81\xd8\x2a\x58\x25\x00"
_USUAL_HEADER_END = b"\x67version\x01"
# A length, and a map whose first key is one of the header's.
_START = re.compile(rb"[\x80-\xff]{0,4}[\x01-\x7f][\xa0-\xb7](?:\x65roots|\x67version)")


@dataclass(frozen=True, slots=True)
class Car:
    """A CAR in memory: its roots and its DAG-CBOR blocks by CID."""

    roots: tuple[bytes, ...]
    blocks: dict[bytes, bytes]


class CarError(ProtocolError):
    """Bytes that are not a CAR, or a block that is not what its CID says.

    `partial` holds what was read before, and the first root's block wherever it stands (CA-07):
    the commit still tells who sent the rest.
    """

    partial: Car | None = None


def looks_like_car(head: bytes) -> bool:
    """Tell by its first bytes whether something is a CAR, good or bad, and not frames."""
    return _START.match(head) is not None


def read_car(data: bytes | memoryview, *, max_blocks: int) -> Car:
    """Read a whole CAR from memory; the first root is the one that counts (CA-03)."""
    data = bytes(data)
    size, at = _read_varint(data, 0)
    roots = _read_header(data[at : at + size], size)
    at += size
    car = Car(roots, {})
    try:
        _read_sections(data, at, car.blocks, max_blocks=max_blocks)
    except CarError as error:
        root = None if roots[0] in car.blocks else _find_block(data, at, roots[0], max_blocks)
        if root is not None:
            car.blocks[roots[0]] = root
        error.partial = car
        raise
    return car


def _read_sections(data: bytes, at: int, blocks: dict[bytes, bytes], *, max_blocks: int) -> None:
    count, end = 0, len(data)
    sha256 = hashlib.sha256
    while at < end:
        size, at = data[at], at + 1
        if size > 0x7F:
            # Two bytes, as for most blocks, are read here; a call would cost more than the rest.
            if at < end and data[at] < 0x80:
                size, at = size & 0x7F | data[at] << 7, at + 1
            else:
                size, at = _read_varint(data, at - 1)
        stop = at + size
        if stop > end:
            raise CarError("car_cut", "a section is longer than the file", rule="CA-05")
        count += 1
        if count > max_blocks:
            raise CarError("too_many_blocks", f"more than {max_blocks}", rule="CA-14")
        cid = data[at : at + CID_LENGTH]
        prefix = cid[:4]
        if size >= CID_LENGTH and prefix in _HASHED_PREFIXES:
            block = data[at + CID_LENGTH : stop]
            if sha256(block).digest() != cid[4:]:
                raise CarError("hash_mismatch", "a block is not what its CID says", rule="CA-06")
            if prefix == DAG_CBOR_PREFIX:
                blocks[cid] = block
        else:
            _check_foreign_cid(data[at : min(stop, at + _LONGEST_CID)])
        at = stop


def _find_block(data: bytes, at: int, wanted: bytes, max_blocks: int) -> bytes | None:
    """Find one block that is what its CID says, with no look at the others."""
    for _ in range(max_blocks):
        try:
            size, at = _read_varint(data, at)
        except CarError:
            break
        if data[at : at + CID_LENGTH] == wanted:
            block = data[at + CID_LENGTH : at + size]
            if wanted.startswith(DAG_CBOR_PREFIX) and hashlib.sha256(block).digest() == wanted[4:]:
                return block
        at += size
    return None


class CarReader:
    """Read a CAR from a file front to back, hash every block, keep none.

    Iterating yields (cid, offset, length) of each DAG-CBOR block, the place being that of the
    block's own bytes. Memory is one chunk, however long a block claims to be.
    """

    def __init__(self, file: BinaryIO, *, max_bytes: int, max_blocks: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._max_blocks = max_blocks
        self._buffer = b""
        self._at = 0
        self._base = 0  # file position of the buffer's first byte
        self._fill(_MAX_VARINT_BYTES)
        size, self._at = _read_varint(self._buffer, 0)
        if size > MAX_HEADER_BYTES:
            raise CarError("bad_car_header", f"{size} bytes", rule="CA-01")
        self._fill(size)
        self.roots = _read_header(self._buffer[self._at : self._at + size], size)
        self._at += size

    def __iter__(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield the place of every DAG-CBOR block that hashes to its CID."""
        sha256 = hashlib.sha256
        count = 0
        while True:
            if len(self._buffer) - self._at < _MOST_BEFORE_A_BLOCK:
                self._fill(_MOST_BEFORE_A_BLOCK)
                if self._at == len(self._buffer):
                    return
            buffer = self._buffer
            size, at = buffer[self._at], self._at + 1
            if size > 0x7F:
                if at < len(buffer) and buffer[at] < 0x80:
                    size, at = size & 0x7F | buffer[at] << 7, at + 1
                else:
                    size, at = _read_varint(buffer, at - 1)
            count += 1
            if count > self._max_blocks:
                raise CarError("too_many_blocks", f"more than {self._max_blocks}", rule="CA-14")
            self._at = at
            block_at, stop = at + CID_LENGTH, at + size
            cid = buffer[at:block_at]
            if size < CID_LENGTH or cid[:4] not in _HASHED_PREFIXES:
                _check_foreign_cid(buffer[at : min(stop, at + _LONGEST_CID)])
                self._pass_over(size)
                continue
            if stop <= len(buffer):
                digest = sha256(buffer[block_at:stop]).digest()
                self._at = stop
            elif len(cid) == CID_LENGTH:
                self._at = block_at
                digest = self._pass_over(stop - block_at)
            else:
                raise CarError("car_cut", "a section is longer than the file", rule="CA-05")
            if digest != cid[4:]:
                raise CarError("hash_mismatch", "a block is not what its CID says", rule="CA-06")
            if cid[:4] == DAG_CBOR_PREFIX:
                yield cid, self._base + self._at - (stop - block_at), stop - block_at

    def _fill(self, wanted: int) -> None:
        """Have at least `wanted` bytes ahead, or all that are left."""
        if len(self._buffer) - self._at >= wanted:
            return
        rest = self._buffer[self._at :]
        self._base += self._at
        self._at = 0
        chunks = [rest]
        size = len(rest)
        while size < wanted or size < _CHUNK_BYTES:
            chunk = self._file.read(_CHUNK_BYTES)
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
        self._buffer = b"".join(chunks)
        if self._base + size > self._max_bytes:
            raise CarError("car_too_big", f"more than {self._max_bytes} bytes", rule="CA-14")

    def _pass_over(self, length: int) -> bytes:
        """Move on by `length` bytes, chunk by chunk; return the hash of what was passed."""
        digest = hashlib.sha256()
        while length:
            if self._at == len(self._buffer):
                self._fill(1)
                if self._at == len(self._buffer):
                    raise CarError("car_cut", "a section is longer than the file", rule="CA-05")
            piece = self._buffer[self._at : self._at + length]
            digest.update(piece)
            self._at += len(piece)
            length -= len(piece)
        return digest.digest()


def write_car(root: bytes, blocks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write a CAR with one root and the given (cid, block) pairs in their order."""
    header = cbor.encode({"roots": [cbor.Link(root)], "version": 1})
    parts = [_write_varint(len(header)), header]
    for cid, block in blocks:
        parts += (_write_varint(len(cid) + len(block)), cid, block)
    return b"".join(parts)


def _read_header(header: bytes, size: int) -> tuple[bytes, ...]:
    if size == 58 and header[:13] == _USUAL_HEADER and header[49:] == _USUAL_HEADER_END:
        return (header[13:49],)
    if not 0 < size <= MAX_HEADER_BYTES:
        raise CarError("bad_car_header", f"{size} bytes", rule="CA-01")
    if len(header) < size:
        raise CarError("car_cut", "the header is longer than the file", rule="CA-05")
    try:
        fields, end = read_item(header, 0)
    except cbor.CborError as error:
        raise CarError("bad_car_header", str(error), rule="CA-01") from error
    if end != size or type(fields) is not dict:
        raise CarError("bad_car_header", "not one map", rule="CA-01")
    if type(fields.get("version")) is not int or fields["version"] != 1:
        raise CarError("bad_car_header", "version is not 1", rule="CA-02")
    roots = fields.get("roots")
    if type(roots) is not list or not roots or any(type(root) is not cbor.Link for root in roots):
        raise CarError("bad_car_header", "no roots", rule="CA-03")
    return tuple(bytes(root) for root in roots)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(_MAX_VARINT_BYTES):
        if at >= len(data):
            raise CarError("car_cut", "a length is cut short", rule="CA-05")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, at
    raise CarError("bad_varint", f"more than {_MAX_VARINT_BYTES} bytes", rule="CA-04")


def _write_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _check_foreign_cid(head: bytes) -> None:
    """Make sure a section starts with some CID, so that a broken file is told from a rich one."""
    if head[:2] == b"\x12\x20":  # version 0: a bare sha2-256
        size = 34
    else:
        at = 0
        for _ in range(3):  # version, codec, hash function
            number, at = _read_varint(head, at)
            if at < 2 and number != 1:
                raise CarError("bad_cid", "a section does not start with a CID", rule="CA-16")
        digest_bytes, at = _read_varint(head, at)
        size = at + digest_bytes
    if size > len(head):
        raise CarError("bad_cid", "a section is shorter than its CID", rule="CA-16")
