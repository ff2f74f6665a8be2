"""Read files that somebody has captured: a CAR, or frames, each behind its length in four bytes.

What a file is tells its beginning, also inside zstd. Nothing is believed before the bytes are
there, and no more than one frame is in memory.
"""

import io
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal, NamedTuple

from sync.atproto.car import looks_like_car
from sync.atproto.frame import MAX_FRAME_BYTES
from sync.errors import BadInput

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ByteOrder = Literal["big", "little"]

# A window of 128 MiB, the most that zstd itself takes without being asked to.
_MAX_WINDOW_LOG = 27
_ZSTD_START = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")
_LENGTH_BYTES = 4
_HEAD_BYTES = 32
_CHUNK_BYTES = 1 << 20


class CapturedFrame(NamedTuple):
    """One frame of a file; of one that is too large for the protocol only the size is kept."""

    number: int
    offset: int
    size: int
    data: bytes


class Capture:
    """A file whose beginning can be looked at before it is read, unpacked on the way."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._file: BinaryIO | zstd.ZstdFile = file
        # Where it can be read again from its beginning, without a copy.
        self._whole = file if file.seekable() and file.tell() == 0 else None
        self._head = b""
        if _ZSTD_START.match(self._peek()):
            options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG}
            packed = _Rest(self._head, file)
            self._file, self._head, self._whole = zstd.ZstdFile(packed, options=options), b"", None
        if not self._peek():
            raise BadInput(f"{name} is empty.")
        self.is_car = looks_like_car(self._head)

    def frames(self, order: ByteOrder) -> Iterator[CapturedFrame]:
        """Yield every frame; raises `BadInput` where the file ends within one."""
        number = offset = 0
        while length := self.read(_LENGTH_BYTES):
            number += 1
            size = int.from_bytes(length, order)
            is_large = size > MAX_FRAME_BYTES
            data = b"" if is_large else self.read(size)
            found = self._skip(size) if is_large else len(data)
            if len(length) < _LENGTH_BYTES or found < size:
                raise BadInput(self._describe_end(number, offset, length, order))
            yield CapturedFrame(number, offset, size, data)
            offset += _LENGTH_BYTES + size

    @contextmanager
    def seekable(self, *, max_bytes: int) -> Iterator[BinaryIO]:
        """Give the whole of it as a file to go back and forth in, cut off behind `max_bytes`."""
        if self._whole is not None:
            yield self._whole
            return
        with tempfile.TemporaryFile() as spool:
            left = max_bytes + 1
            while left and (chunk := self.read(min(left, _CHUNK_BYTES))):
                spool.write(chunk)
                left -= len(chunk)
            yield spool

    def read(self, size: int) -> bytes:
        """Read so many bytes, or all that are left."""
        taken, self._head = self._head[:size], self._head[size:]
        try:
            return taken + _read_fully(self._file, size - len(taken))
        except (zstd.ZstdError, EOFError) as error:
            raise BadInput(f"{self.name} is damaged, or no zstd file ({error}).") from error

    def _peek(self) -> bytes:
        self._head = self.read(_HEAD_BYTES)
        return self._head

    def _skip(self, size: int) -> int:
        found = 0
        while found < size and (chunk := self.read(min(size - found, _CHUNK_BYTES))):
            found += len(chunk)
        return found

    def _describe_end(self, number: int, offset: int, length: bytes, order: ByteOrder) -> str:
        size = int.from_bytes(length, order)
        if size <= MAX_FRAME_BYTES:
            return f"{self.name} is cut short: it ends within frame {number}, at byte {offset:,}."
        other: ByteOrder = "little" if order == "big" else "big"
        is_other = 0 < int.from_bytes(length, other) <= MAX_FRAME_BYTES
        hint = f": try --length-order {other}" if is_other else ""
        if number == 1:
            return f"{self.name} holds neither a CAR nor captured frames{hint}."
        return f"{self.name} has no frame {number} of {size:,} bytes at byte {offset:,}{hint}."


class _Rest(io.RawIOBase):
    """What was looked at already, and behind it the rest of its file."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        super().__init__()
        self._head = head
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a part of a buffer, as a raw file does."""
        chunk, self._head = self._head or self._file.read(len(buffer)), b""
        buffer[: len(chunk)] = chunk
        return len(chunk)


def _read_fully(file: "BinaryIO | zstd.ZstdFile", size: int) -> bytes:
    """Read so many bytes even where a pipe hands out fewer at a time."""
    chunks: list[bytes] = []
    while size and (chunk := file.read(size)):
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)
