"""Follow repos from message to message, as sync_priv.walk_chain() does in the database.

For whoever has messages and no database: whether each continues what came before it (CM-15..21,
SN-05..08, AC-02). A test plays the same messages to both.
"""

from dataclasses import dataclass
from typing import NamedTuple

from sync.atproto.verify import VerifiedCommit, VerifiedSync

OK = "ok"
UNCHAINED = "ok-unchained"
STALE = "stale"
DROPPED = "dropped"


class Place(NamedTuple):
    """How a message stands to those before it, by which rule, and why."""

    verdict: str
    rule: str = ""
    detail: str = ""


@dataclass(slots=True)
class Head:
    """Where one repo stands; without `data` nothing is known that a message could continue."""

    rev: str = ""
    data: bytes | None = None
    is_active: bool = True

    def follow(self, message: VerifiedCommit | VerifiedSync) -> Place:
        """Judge the next message, and stand at it if it is newer."""
        is_commit = isinstance(message, VerifiedCommit)
        if not self.is_active:
            return Place(DROPPED, "AC-02", "the account is not active")
        if message.rev <= self.rev:
            return Place(STALE, "CM-15" if is_commit else "SN-05", f"{self.rev} came before")
        place = self._place(message)
        self.rev, self.data = message.rev, message.data
        return place

    def pass_broken(self, rev: str) -> None:
        """Step past a commit that is signed but wrong: what comes next continues nothing (D-03)."""
        if self.is_active and rev > self.rev:
            self.rev, self.data = rev, None

    def set_active(self, *, is_active: bool) -> None:
        """Take in an #account; an account that comes back starts afresh (AC-07)."""
        if is_active != self.is_active:
            self.is_active, self.data = is_active, None

    def _place(self, message: VerifiedCommit | VerifiedSync) -> Place:
        if self.data is None:
            return Place(UNCHAINED, "CM-21")
        if isinstance(message, VerifiedSync):
            if message.data != self.data:
                return Place("sync_differs", "SN-08", "another tree than the last one")
        elif message.since != self.rev:
            return Place("chain_break", "CM-17", f"since {message.since}, not {self.rev}")
        elif message.prev_data is None:
            return Place("chain_break", "CM-19", "no prevData")
        elif message.prev_data != self.data:
            return Place("chain_break", "CM-18", "prevData is another tree than the last one")
        return Place(OK)
