"""The state of the simulated network, without a socket: hosts, accounts, streams, identities.

Everything follows from the seed: DIDs, keys, and (with a logical clock) revs and CIDs too. What
happens to an account is told as the real servers tell it, quirks included; every signature and
every tree is right.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from sync.atproto.keys import K256, PrivateKey
from sync.errors import UsageError
from sync.simnet.account import Account
from sync.simnet.clock import DEFAULT_START_US, Clock
from sync.simnet.directory import Directory, Identity, KeyForm
from sync.simnet.host import Host, Hosted, web_did
from sync.simnet.repo import RecordSource, Repo, record_block
from sync.simnet.stream import Stream

_NAMES = ("alice", "bob", "carol", "dan", "erin", "frank", "grace", "heidi", "ivan", "judy")


class World:
    """A whole network in memory."""

    def __init__(
        self,
        *,
        seed: int = 1,
        pds_count: int = 1,
        start_us: int | None = DEFAULT_START_US,
        key_form: KeyForm = "multikey",
    ) -> None:
        self.seed = seed
        self.clock = Clock(start_us)
        self.directory = Directory(key_form)
        self.hosts = [Host(index, f"http://pds{index}.test") for index in range(pds_count)]
        self.relay = Stream()
        self.accounts: dict[str, Account] = {}
        self._keys_made = 0

    @property
    def streams(self) -> list[Stream]:
        """Return every stream: the relay's and each PDS's."""
        return [self.relay, *(host.stream for host in self.hosts)]

    def create_account(
        self,
        handle: str | None = None,
        *,
        curve: str = K256,
        pds: int = 0,
        records: Mapping[str, RecordSource] | None = None,
        method: Literal["plc", "web"] = "plc",
    ) -> Account:
        """Make an account; with records (path to value) it starts as an import, without ops.

        A did:web account is the PDS's own name, so each PDS can have one.
        """
        host = self.hosts[pds]
        number = len(self.accounts)
        did = self._plc_did(number) if method == "plc" else web_did(host.url)
        if did in self.directory.identities:
            raise UsageError(f"{did} exists already")
        name = _NAMES[number] if number < len(_NAMES) else f"user{number}"
        handle = (handle or f"{name}.pds{pds}.test").lower()
        key = self.new_key(curve)
        self.directory.identities[did] = Identity(did, handle, host.url, key.public)
        account = self.accounts[did] = Account(self, did)
        hosted = host.accounts[did] = Hosted(Repo(did, key), handle)
        blocks = {path: record_block(value) for path, value in (records or {}).items()}
        first = hosted.repo.start(self.clock.tid(), blocks)
        hosted.list_head()
        self.emit(host, did, "#identity", {"did": did, "handle": handle})
        self.emit(host, did, "#account", {"did": did, "active": True})
        if records is None:
            self.emit(host, did, "#commit", first.event(did))
        account.emit_sync()
        return account

    def new_key(self, curve: str) -> PrivateKey:
        """Make the next signing key of this seed."""
        self._keys_made += 1
        return PrivateKey.generate(curve, seed=f"simnet:{self.seed}:{self._keys_made}".encode())

    def emit(self, host: Host, did: str, kind: str, body: Mapping[str, Any]) -> None:
        """Sequence an event on a host's stream and, if it speaks for the DID, on the relay's.

        The relay passes hints from anybody, anything else only from the DID's own host (HO-04).
        """
        body = {**body, "time": self.clock.datetime()}
        host.stream.append(did, kind, body)
        if kind == "#identity" or self.host_of(did) is host:
            self.relay.append(did, kind, body)

    def host_of(self, did: str) -> Host:
        """Return the host that the DID document names."""
        url = self.directory.identities[did].pds_url
        return next(host for host in self.hosts if host.url == url)

    def drop_next(self, count: int) -> None:
        """Lose the next events of every stream: honest history that nobody will hear of."""
        for stream in self.streams:
            stream.drop_next(count)

    def forget_history(self) -> None:
        """Empty the replay window of every stream, so that old cursors are outdated."""
        for stream in self.streams:
            stream.forget()

    def _plc_did(self, number: int) -> str:
        digest = hashlib.sha256(f"simnet:{self.seed}:did:{number}".encode()).digest()
        return "did:plc:" + base64.b32encode(digest).decode().lower()[:24]
