"""One host's event stream: sequence numbers, the replay window, and who listens."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sync.atproto.frame import write_frame

# The replay window; it is cut in larger steps than one event.
WINDOW_EVENTS = 200_000
_CUT_EVENTS = 20_000


class Event:
    """One sequenced event; its frame is encoded when the first listener wants it."""

    __slots__ = ("_frame", "body", "did", "kind", "seq")

    def __init__(self, seq: int, did: str, kind: str, body: Mapping[str, Any]) -> None:
        self.seq = seq
        self.did = did
        self.kind = kind
        self.body = body
        self._frame: bytes | None = None

    @property
    def frame(self) -> bytes:
        """Return the event as one websocket message."""
        if self._frame is None:
            self._frame = write_frame(self.kind, {"seq": self.seq, **self.body})
        return self._frame


class Stream:
    """A sequence of events of which the newest part can be replayed."""

    def __init__(self) -> None:
        self.last_seq = 0
        # The newest seq that fell out of the replay window: below it a cursor is outdated.
        self.forgotten_seq = 0
        # Counts up when every listener is to be told that it is too slow.
        self.kicks = 0
        self._events: list[Event] = []
        self._listeners: set[Callable[[], None]] = set()
        self._to_drop = 0

    def append(self, did: str, kind: str, body: Mapping[str, Any]) -> None:
        """Give an event the next seq, keep it and wake the listeners."""
        self.last_seq += 1
        if self._to_drop:
            self._to_drop -= 1
            return
        self._events.append(Event(self.last_seq, did, kind, body))
        if len(self._events) > WINDOW_EVENTS + _CUT_EVENTS:
            self.forget(before=self._events[-WINDOW_EVENTS].seq)
        self._wake()

    def after(self, seq: int, limit: int = 256) -> list[Event]:
        """Return the first retained events above a seq."""
        start = bisect_right(self._events, seq, key=lambda event: event.seq)
        return self._events[start : start + limit]

    def events(self) -> list[Event]:
        """Return everything that is retained."""
        return list(self._events)

    def drop_next(self, count: int) -> None:
        """Lose the next events: they use up a seq and nobody ever sees them."""
        self._to_drop += count

    def forget(self, before: int | None = None) -> None:
        """Shorten the replay window to the events from seq `before` on (None: to nothing)."""
        self.forgotten_seq = max(
            self.forgotten_seq, self.last_seq if before is None else min(before - 1, self.last_seq)
        )
        self._events = self.after(self.forgotten_seq, limit=len(self._events))

    def forget_did(self, did: str) -> None:
        """Take one account's events out of the replay window, as a deletion does."""
        self._events = [event for event in self._events if event.did != did]

    def kick(self) -> None:
        """Tell every listener that it is too slow."""
        self.kicks += 1
        self._wake()

    @contextmanager
    def listening(self, wake: Callable[[], None]) -> Iterator[None]:
        """Have `wake` called after every change, until the block ends."""
        self._listeners.add(wake)
        try:
            yield
        finally:
            self._listeners.discard(wake)

    def _wake(self) -> None:
        for wake in self._listeners:
            wake()
