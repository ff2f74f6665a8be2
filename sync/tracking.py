"""Know in memory which repos and collections are tracked, and who signs for each repo.

Events of anybody else are dropped by one lookup here, before any work is spent on them (MT-11).
What is known carries the filter generation it was read at; the database lets a repo be fetched
only when every lane has reached the generation that brought it (BF-01).
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sync.atproto.keys import PublicKey, parse_did_key
from sync.database import IngestConnection
from sync.errors import ProtocolError
from sync.limits import BoundedMap

_STATE = "select sync.filter_generation() as generation, sync.signer_serial() as serial"
_REPOS = "select did, is_tracked, signing_key, pds_url from sync.tracked_repos($1, $2)"
_COLLECTIONS = "select pattern from sync.tracked_collections()"
_SIGNERS = "select did, signing_key, pds_url from sync.changed_signers($1, $2)"
_IDENTITIES = "select did, signing_key, pds_url from sync.repo_identity($1)"

_REMEMBERED_NSIDS = 10_000
# What was found out here is compared with what is stored this often (SG-08).
SIGNER_TTL_S = 60.0


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose signature counts for a repo and where the repo lives, as far as is known."""

    signing_key: str | None
    pds_url: str | None
    read_at: float = field(default_factory=time.monotonic, compare=False)

    def text(self) -> str:
        """Return key and PDS as one text, for a message that was judged by them."""
        return f"{self.signing_key or ''} {self.pds_url or ''}"

    def key(self) -> PublicKey | None:
        """Return the parsed key, or None when there is none that can be used."""
        if self.signing_key is None:
            return None
        try:
            return parse_did_key(self.signing_key)
        except (ProtocolError, ValueError):
            return None


NOBODY = Signer(None, None)


class CollectionFilter:
    """Tell tracked collections from others: NSIDs, `app.bsky.feed.*`, or `*`."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(sorted(patterns))
        self._is_all = "*" in self.patterns
        self._names = frozenset(pattern for pattern in self.patterns if "*" not in pattern)
        self._prefixes = tuple(p[:-1] for p in self.patterns if p.endswith(".*"))
        self._known: BoundedMap[str, bool] = BoundedMap(_REMEMBERED_NSIDS)

    def is_tracked(self, nsid: str) -> bool:
        """Tell whether records of this collection are stored."""
        if self._is_all:
            return True
        known = self._known.get(nsid)
        if known is None:
            known = nsid in self._names or nsid.startswith(self._prefixes)
            self._known[nsid] = known
        return known

    @classmethod
    async def load(cls, conn: IngestConnection) -> "CollectionFilter":
        """Read the patterns in force."""
        return cls(row["pattern"] for row in await conn.fetch(_COLLECTIONS))


class TrackedRepos:
    """The tracked repos as of one filter generation, and who signs for them."""

    def __init__(self) -> None:
        self.generation = 0
        self._state: tuple[int, int] | None = None  # generation and serial that were read
        self.collections = CollectionFilter(())
        self._signers: dict[str, Signer] = {}

    def __contains__(self, did: str) -> bool:
        return did in self._signers

    def __len__(self) -> int:
        return len(self._signers)

    def signer(self, did: str) -> Signer:
        """Return what is known about the signer of a repo, unless that was too long ago."""
        signer = self._signers.get(did, NOBODY)
        return signer if time.monotonic() - signer.read_at < SIGNER_TTL_S else NOBODY

    def learn(self, did: str, signer: Signer) -> None:
        """Remember a signer of a tracked repo."""
        if did in self._signers:
            self._signers[did] = signer

    def forget_signer(self, did: str) -> None:
        """Make the next event of this repo look its signer up again."""
        self.learn(did, NOBODY)

    async def reload(self, conn: IngestConnection) -> bool:
        """Take in what changed since the last call; tells whether the filters did."""
        if await self._read_state(conn) == self._state:
            return False
        # One snapshot: what changes meanwhile has a later generation or serial.
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            state = generation, serial = await self._read_state(conn)
            repos = await conn.fetch(_REPOS, self.generation, generation)
            known = serial if self._state is None else self._state[1]
            signers = await conn.fetch(_SIGNERS, known, serial)
            collections = self.collections
            if generation != self.generation:
                collections = await CollectionFilter.load(conn)
        for row in repos:
            if row["is_tracked"]:
                self._signers[row["did"]] = Signer(row["signing_key"], row["pds_url"])
            else:
                self._signers.pop(row["did"], None)
        for row in signers:
            self.learn(row["did"], Signer(row["signing_key"], row["pds_url"]))
        is_changed = generation != self.generation
        self._state, self.generation, self.collections = state, generation, collections
        return is_changed

    @staticmethod
    async def _read_state(conn: IngestConnection) -> tuple[int, int]:
        (row,) = await conn.fetch(_STATE)
        return row["generation"], row["serial"]

    async def look_up(self, conn: IngestConnection, dids: Sequence[str]) -> None:
        """Read signers again: somebody else may have resolved them meanwhile."""
        if not dids:
            return
        for row in await conn.fetch(_IDENTITIES, list(dids)):
            self.learn(row["did"], Signer(row["signing_key"], row["pds_url"]))
