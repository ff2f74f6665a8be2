"""What goes wrong on the way from a PDS: which single event is lost, or passed on twice."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

Fault = Literal["lost", "doubled"]
_COPIES: dict[Fault, int] = {"lost": 0, "doubled": 2}


@dataclass(frozen=True, slots=True)
class Told:
    """One event that a host has told about an account of a watch."""

    host: int
    number: int  # of this watch's events of this host, from 0
    kind: str
    word: str  # what an #account says
    rev: str  # of a #commit or #sync

    def __str__(self) -> str:
        return f"{self.kind}{' ' if self.word else ''}{self.word} (host {self.host}, {self.number})"


@dataclass(slots=True)
class Watch:
    """The events of some accounts, of which one may be struck."""

    dids: frozenset[str]
    fault: Fault | None = None
    host: int = 0
    number: int = 0
    told: list[Told] = field(default_factory=list)
    struck: Told | None = None

    def judge(self, host: int, kind: str, body: dict[str, Any]) -> int:
        """Note one event; returns how often it is to be passed on."""
        number = sum(event.host == host for event in self.told)
        word = "" if kind != "#account" else body.get("status") or "active"
        event = Told(host, number, kind, word, body.get("rev", ""))
        self.told.append(event)
        if self.fault is None or (host, number) != (self.host, self.number):
            return 1
        self.struck = event
        return _COPIES[self.fault]


class Script:
    """Judges every event of every host once; whoever passes events on asks here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: list[Watch] = []
        self._odd: dict[tuple[int, int], int] = {}
        self._judged: dict[int, int] = {}

    @contextmanager
    def watching(self, watch: Watch) -> Iterator[Watch]:
        """Follow the accounts of a watch until the block ends."""
        with self._lock:
            self._watches.append(watch)
        try:
            yield watch
        finally:
            with self._lock:
                self._watches.remove(watch)

    def judge(self, host: int, seq: int, kind: str, body: dict[str, Any]) -> int:
        """Say how often an event is passed on; the same for whoever asks about it later."""
        did = body.get("repo", body.get("did"))
        copies = 1
        with self._lock:
            for watch in self._watches:
                if did in watch.dids:
                    copies = watch.judge(host, kind, body)
            if copies != 1:
                self._odd[host, seq] = copies
            self._judged[host] = seq
        return copies

    def copies(self, host: int, seq: int) -> int | None:
        """Return how often an event is passed on; None while nobody has judged it."""
        with self._lock:
            if seq > self._judged.get(host, 0):
                return None
            return self._odd.get((host, seq), 1)

    def judged(self, host: int) -> int:
        """Return the newest event of a host that was judged."""
        with self._lock:
            return self._judged.get(host, 0)


def kinds(events: Sequence[Told]) -> list[str]:
    """Return the events in words, for messages."""
    return [str(event) for event in events]
