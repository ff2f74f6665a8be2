"""Where one firehose stands, and which of its frames may be used.

Reader and lane of a source share this: the lane moves the position as it reads frames, the
reader resumes from it. A frame that breaks the framing ends the connection (ES-12); the same
bytes three times in a row at one position are stepped past instead, so that a poison frame
cannot wedge the service (ES-13, D-02).
"""

import asyncio
import hashlib
from collections import deque

from sync.atproto.frame import BadMessage, ErrorMessage, InfoMessage, Message, read_next
from sync.errors import FramingError, MessageError, ProtocolError

POISON_ATTEMPTS = 3

# A text frame is an error, but the lane's to judge. A number is no frame but a mark: everything up
# to this seq that was not sent to this lane was other lanes' (CU-14).
Frame = bytes | str | int


class StreamState:
    """The position in one source's sequence and what is suspicious about it."""

    def __init__(self, seq: int | None) -> None:
        self.seq = seq  # the last event read; effects may not be durable yet
        self.connected_at: float | None = None
        self.is_gap_suspected = False
        self._poison: tuple[int | None, bytes] | None = None
        self._poison_count = 0
        self._unreadable_at: int | None = None
        self._unreadable_count = 0
        self._unreadable_step = 1

    def read(self, frame: Frame) -> Message | None:
        """Read a frame and move the position; None for a mark or a duplicate of the last event.

        Raises `FramingError` when the connection must go, `MessageError` when only this frame.
        """
        if isinstance(frame, int):
            self._move_to(frame)
            return None
        try:
            message = self._read(frame)
        except BadMessage as error:
            self._move_to(error.seq)
            raise
        except FramingError as error:
            if self._is_persistent(frame):
                raise MessageError("poison_frame", str(error), rule="ES-13") from error
            raise
        if isinstance(message, InfoMessage | ErrorMessage):
            return message  # these carry no seq and move nothing (CU-13)
        if message.seq is None:
            return message
        if message.seq == self.seq:
            return None  # servers may send the event at the cursor again (CU-06)
        self._move_to(message.seq)
        return message

    def step_past_unreadable(self) -> bool:
        """Count a frame that could not be received; after three, move on and suspect a gap.

        The frame's seq is unknown, and gaps are normal: the step doubles until it is passed.
        """
        if self.seq is None:
            return False  # live: the next connection starts behind it
        if self.seq != self._unreadable_at:
            self._unreadable_at, self._unreadable_count, self._unreadable_step = self.seq, 0, 1
        self._unreadable_count += 1
        if self._unreadable_count < POISON_ATTEMPTS:
            return False
        self.seq += self._unreadable_step
        self._unreadable_at = self.seq
        self._unreadable_step *= 2
        self.is_gap_suspected = True
        return True

    def _read(self, frame: bytes | str) -> Message:
        if isinstance(frame, str):
            raise FramingError("text_frame", "the stream is binary", rule="ES-06")
        try:
            return read_next(frame, self.seq)
        except ProtocolError:
            raise
        except Exception as error:
            raise FramingError("unexpected_error", type(error).__name__) from error

    def _move_to(self, seq: int | None) -> None:
        if seq is not None and (self.seq is None or seq > self.seq):
            self.seq = seq

    def _is_persistent(self, frame: bytes | str) -> bool:
        """Count the same bytes at the same position; tells whether they keep coming."""
        data = frame.encode("utf-8", "replace") if isinstance(frame, str) else frame
        seen = (self.seq, hashlib.sha256(data).digest())
        if seen != self._poison:
            self._poison, self._poison_count = seen, 0
        self._poison_count += 1
        return self._poison_count >= POISON_ATTEMPTS


class FrameQueue:
    """A queue of frames bounded in number and bytes, taken in batches.

    Frames carry the number of the connection they came over: once the lane gives a connection
    up, what is left of it is worthless.
    """

    def __init__(self, *, max_frames: int, max_bytes: int) -> None:
        self.connection = 0
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._frames: deque[Frame] = deque()
        self._size_bytes = 0
        self._is_taken = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._idle = asyncio.Event()
        self._writable.set()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._frames)

    async def put(self, frame: Frame, *, connection: int) -> bool:
        """Append a frame, waiting for room; False when its connection was given up."""
        while connection == self.connection:
            if len(self._frames) < self._max_frames and self._size_bytes < self._max_bytes:
                self._frames.append(frame)
                self._size_bytes += size_of(frame)
                self._idle.clear()
                self._readable.set()
                return True
            self._writable.clear()
            await self._writable.wait()
        return False

    async def take(self, *, max_frames: int, max_bytes: int, timeout_s: float) -> list[Frame]:
        """Return what is there, at most this much, or after the timeout nothing.

        What was taken before counts as done with.
        """
        self._is_taken = False
        self._note_idle()
        if not self._frames:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._readable.wait()
            except TimeoutError:
                return []
        return self._pop(max_frames, max_bytes)

    def give_up_connection(self) -> None:
        """Throw away the frames of this connection, also those still on their way in."""
        self.connection += 1
        self._frames.clear()
        self._size_bytes = 0
        self._readable.clear()
        self._writable.set()

    async def wait_idle(self) -> None:
        """Wait until every frame was taken and done with."""
        await self._idle.wait()

    def _pop(self, max_frames: int, max_bytes: int) -> list[Frame]:
        taken: list[Frame] = []
        size_bytes = 0
        while self._frames and len(taken) < max_frames and size_bytes < max_bytes:
            frame = self._frames.popleft()
            size_bytes += size_of(frame)
            taken.append(frame)
        self._size_bytes -= size_bytes
        self._is_taken = bool(taken)
        if not self._frames:
            self._readable.clear()
        self._writable.set()
        return taken

    def _note_idle(self) -> None:
        if not self._frames and not self._is_taken:
            self._idle.set()


def size_of(frame: Frame) -> int:
    """Return how many bytes a frame counts in a queue."""
    return 8 if isinstance(frame, int) else len(frame)
