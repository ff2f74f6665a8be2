"""One simulated PDS: the accounts it holds and the stream it speaks on."""

from dataclasses import dataclass, field

from sync.simnet.repo import Repo
from sync.simnet.stream import Stream


@dataclass(slots=True)
class Hosted:
    """An account as one host has it; `status` is None while it is active."""

    repo: Repo
    handle: str
    status: str | None = None
    # What listRepos tells: the real server forgets to update it when a key is rotated.
    listed_rev: str = ""
    listed_head: bytes = b""
    # The rev an import was given by the importing host, until that host writes itself.
    imported_rev: str | None = None

    @property
    def rev(self) -> str:
        """Return the rev this host claims."""
        return self.imported_rev or self.repo.head.rev

    def list_head(self) -> None:
        """Let listRepos tell the present head."""
        self.listed_rev = self.rev
        self.listed_head = self.repo.head.cid


@dataclass(slots=True)
class Host:
    """One PDS: the accounts it holds, in the order they came, and its stream."""

    index: int
    url: str
    stream: Stream = field(default_factory=Stream)
    accounts: dict[str, Hosted] = field(default_factory=dict)

    def did_of(self, handle: str) -> str | None:
        """Return the DID of a handle that this host serves."""
        handle = handle.lower()
        return next((did for did, one in self.accounts.items() if one.handle == handle), None)


def web_did(url: str) -> str:
    """Return the did:web of a host, which on loopback needs its port (SX-04)."""
    authority = url.partition("://")[2]
    name, _, port = authority.partition(":")
    return f"did:web:localhost%3A{port}" if name == "127.0.0.1" else f"did:web:{name}"
