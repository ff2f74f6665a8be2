"""One account, and everything that can happen to it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from sync.errors import UsageError
from sync.simnet.host import Host, Hosted
from sync.simnet.repo import RecordSource, Repo, RepoCommit, Write

if TYPE_CHECKING:
    from sync.simnet.world import World


class Account:
    """The owner's and the operator's hand on one account of a World."""

    def __init__(self, world: "World", did: str) -> None:
        self.world = world
        self.did = did
        self._deleted: Hosted | None = None  # what its owner has a copy of

    def __repr__(self) -> str:
        return f"<Account {self.handle} {self.did}>"

    @property
    def host(self) -> Host:
        """Return the PDS that the DID document names."""
        return self.world.host_of(self.did)

    @property
    def handle(self) -> str:
        """Return the handle that the DID document claims."""
        return self.world.directory.identities[self.did].handle

    @property
    def hosted(self) -> Hosted:
        """Return the account as its present host has it."""
        return self.host.accounts[self.did]

    @property
    def can_write(self) -> bool:
        """Tell whether its host would take a commit: it is neither deleted nor hidden there."""
        hosted = self.host.accounts.get(self.did)
        return hosted is not None and hosted.status is None

    @property
    def repo(self) -> Repo:
        """Return the repo at the present host."""
        return self.hosted.repo

    @property
    def rev(self) -> str:
        """Return the rev of the newest signed head."""
        return self.repo.head.rev

    def leaves(self) -> dict[str, bytes]:
        """Return what the repo holds: path to record CID."""
        return {key.decode(): cid for key, cid in self.repo.head.tree.leaves()}

    def create(
        self, collection: str, value: RecordSource, *, rkey: str | None = None
    ) -> RepoCommit:
        """Create one record; its key is a new TID unless given."""
        rkey = rkey or self.world.clock.tid()
        return self.apply_writes([Write.create(collection, rkey, value)])

    def update(self, collection: str, value: RecordSource, *, rkey: str) -> RepoCommit:
        """Change one record."""
        return self.apply_writes([Write.update(collection, rkey, value)])

    def delete(self, collection: str, rkey: str) -> RepoCommit:
        """Delete one record."""
        return self.apply_writes([Write.delete(collection, rkey)])

    def apply_writes(self, writes: Sequence[Write]) -> RepoCommit:
        """Make one commit of up to 200 writes; of none, an empty commit."""
        hosted = self.hosted
        if hosted.status is not None:
            raise UsageError(f"{self.did} is {hosted.status} and cannot write")
        commit = hosted.repo.commit(writes, self.world.clock.tid())
        hosted.imported_rev = None
        hosted.list_head()
        self._emit("#commit", commit.event(self.did))
        return commit

    def emit_sync(self) -> None:
        """Announce the present head without its history."""
        body = {"did": self.did, "rev": self.hosted.rev, "blocks": self.repo.head_car()}
        self._emit("#sync", body)

    def emit_identity(self, *, with_handle: bool = True) -> None:
        """Hint that the identity may have changed."""
        body = {"did": self.did}
        if with_handle:
            body["handle"] = self.handle
        self._emit("#identity", body)

    def emit_account(self) -> None:
        """Say again whether the account is active."""
        _emit_status(self.world, self.host, self.did, self.hosted.status)

    def rotate_key(self, curve: str | None = None) -> None:
        """Publish a new key and sign the repo again: `#identity`, then `#sync`, no `#commit`."""
        key = self.world.new_key(curve or self.repo.key.curve)
        self.world.directory.identities[self.did].key = key.public
        self.emit_identity(with_handle=False)
        # listRepos goes on telling the head before: the real server does.
        self.repo.resign(self.world.clock.tid(), key)
        self.emit_sync()

    def break_key(self) -> None:
        """Publish a key that the host does not have: its signatures fail and nobody says why."""
        key = self.world.new_key(self.repo.key.curve)
        self.world.directory.identities[self.did].key = key.public

    def mend_key(self) -> None:
        """Publish the host's own key again."""
        self.world.directory.identities[self.did].key = self.repo.key.public

    def change_handle(self, handle: str) -> None:
        """Take another handle."""
        self.world.directory.identities[self.did].handle = handle.lower()
        self.hosted.handle = handle.lower()
        self.emit_identity()

    def deactivate(self) -> None:
        """Switch the account off, as its owner."""
        self.set_status("deactivated")

    def activate(self) -> None:
        """Switch the account on again, as its owner."""
        self.set_status(None)
        self.emit_identity()
        self.emit_sync()

    def take_down(self) -> None:
        """Hide the account, as the host's operator."""
        self.set_status("takendown")

    def restore(self) -> None:
        """Undo a takedown; the real server says so by `#account` alone."""
        self.set_status(None)

    def set_status(self, status: str | None) -> None:
        """Set the account's status at its host (None is active) and say so."""
        self.hosted.status = status
        self.emit_account()

    def delete_account(self, *, tombstone: bool = False) -> None:
        """Delete the account at its host, and on request tombstone its DID as well."""
        host = self.host
        self._deleted = host.accounts.pop(self.did)
        for stream in (host.stream, self.world.relay):
            stream.forget_did(self.did)
        _emit_status(self.world, host, self.did, "deleted")
        self.world.directory.identities[self.did].is_tombstoned = tombstone

    def come_back(
        self, to_pds: int, *, kept: Literal["nothing", "contents", "all"] = "contents"
    ) -> None:
        """Open the deleted account again, at any host; it is told as an activation.

        Its repo is new and empty, or has the old contents, signed with a new key; or all is kept,
        down to the key and the rev, as when a host undoes the deletion.
        """
        world, old, host = self.world, self._deleted, self.world.hosts[to_pds]
        if old is None:
            raise UsageError(f"{self.did} was not deleted")
        repo, key = old.repo, world.new_key(old.repo.key.curve)
        if kept == "nothing":
            repo = Repo(self.did, key)
            repo.start(world.clock.tid())
        elif kept == "contents":
            repo = repo.copy(key)
            repo.resign(world.clock.tid(), key)
        back = host.accounts[self.did] = Hosted(repo, old.handle)
        back.list_head()
        identity, self._deleted = world.directory.identities[self.did], None
        identity.key, identity.pds_url = repo.key.public, host.url
        identity.is_tombstoned = False
        self.emit_account()
        self.emit_identity()
        self.emit_sync()

    def move_account(self, to_pds: int, *, resign: bool = False) -> None:
        """Migrate to another host, with a new key.

        As the real server does it, the new host announces the head that the old one signed (it
        does not verify with the new key) under a rev of its own, until its first write. With
        `resign` the new host signs the repo at once. The old host keeps a deactivated copy.
        """
        world, old, new = self.world, self.host, self.world.hosts[to_pds]
        if old is new:
            raise UsageError(f"{self.did} is at PDS {to_pds} already")
        before = old.accounts[self.did]
        key = world.new_key(before.repo.key.curve)
        after = new.accounts[self.did] = Hosted(before.repo.copy(key), before.handle)
        if resign:
            after.repo.resign(world.clock.tid(), key)
        else:
            after.imported_rev = world.clock.tid()
        after.list_head()
        identity = world.directory.identities[self.did]
        identity.key, identity.pds_url = key.public, new.url
        self.emit_identity()
        self.emit_account()
        self.emit_identity()
        self.emit_sync()
        before.status = "deactivated"
        _emit_status(world, old, self.did, "deactivated")

    def leave_host(self, pds: int) -> None:
        """Delete the copy that a migration left behind; that host says so on its own stream."""
        host = self.world.hosts[pds]
        if host is self.host:
            raise UsageError(f"{self.did} lives at PDS {pds}: delete_account would delete it")
        del host.accounts[self.did]
        host.stream.forget_did(self.did)
        _emit_status(self.world, host, self.did, "deleted")

    def _emit(self, kind: str, body: Mapping[str, object]) -> None:
        self.world.emit(self.host, self.did, kind, body)


def _emit_status(world: "World", host: Host, did: str, status: str | None) -> None:
    """Say the status an account has at one host; an old host may speak too."""
    body: dict[str, object] = {"did": did, "active": status is None}
    if status is not None:
        body["status"] = status
    world.emit(host, did, "#account", body)
