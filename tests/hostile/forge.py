"""Make what a liar says out of what an honest repo would have said: every hash fits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sync.atproto import cbor
from sync.atproto.car import read_car, write_car
from sync.atproto.cid import cid_for
from sync.atproto.commit import make_commit
from sync.atproto.keys import PrivateKey
from sync.simnet import Account
from sync.simnet.repo import Head, Repo, RepoCommit, Write
from tests.hostile.world import HostileWorld
from tests.unit.repos import section

Body = dict[str, Any]
Blocks = dict[bytes, bytes]
EditBlocks = Callable[[Blocks], object]


def fork(account: Account) -> Repo:
    """Return the account's repo as somebody else goes on with it who has its key."""
    return account.repo.copy(account.repo.key)


def new_rev(account: Account) -> str:
    """Return a rev that is newer than any before."""
    return account.world.clock.tid()


def next_body(account: Account, *writes: Write, rev: str | None = None) -> Body:
    """Return the event of a commit that the account could make now, and never made."""
    return body_of(account, fork(account).commit(writes, rev or new_rev(account)))


def body_of(account: Account, commit: RepoCommit) -> Body:
    """Return what a `#commit` event says of a commit."""
    return commit.event(account.did)


def unheard(world: HostileWorld, account: Account, *writes: Write) -> Body:
    """Make an honest commit and keep its event back, for the relay to tell it otherwise."""
    made: list[RepoCommit] = []
    world.lose(account, lambda: made.append(account.apply_writes(writes)))
    return body_of(account, made[0])


def blocks_of(car: bytes) -> Blocks:
    """Return the blocks of a CAR; the first is the commit's."""
    return dict(read_car(car, max_blocks=1_000_000).blocks)


def edit_car(car: bytes, edit: EditBlocks) -> bytes:
    """Return a CAR with other blocks under the same root."""
    blocks = blocks_of(car)
    edit(blocks)
    return write_car(read_car(car, max_blocks=1_000_000).roots[0], blocks.items())


def sign(account: Account, data: bytes, *, rev: str | None = None) -> tuple[str, bytes, bytes]:
    """Sign any tree root with the account's key: (rev, CID, block)."""
    rev = rev or new_rev(account)
    return rev, *make_commit(account.did, rev, data, account.repo.key)


def sign_fields(fields: Mapping[str, Any], key: PrivateKey) -> tuple[bytes, bytes]:
    """Sign any fields as a commit: (CID, block)."""
    block = cbor.encode({**fields, "sig": key.sign(cbor.encode(dict(fields)))})
    return cid_for(block), block


def fields_of(account: Account, data: bytes, *, rev: str | None = None) -> Body:
    """Return the fields of a commit before it is signed."""
    return {
        "did": account.did,
        "version": 3,
        "data": cbor.Link(data),
        "rev": rev or new_rev(account),
        "prev": None,
    }


def commit_body(
    account: Account,
    commit: tuple[str, bytes, bytes],
    ops: Sequence[Body],
    blocks: Mapping[bytes, bytes],
) -> Body:
    """Return a `#commit` event after the account's head with any contents."""
    rev, cid, block = commit
    head = account.repo.head
    return {
        "repo": account.did,
        "commit": cbor.Link(cid),
        "rev": rev,
        "since": head.rev,
        "prevData": cbor.Link(head.tree.cid),
        "blocks": write_car(cid, [(cid, block), *blocks.items()]),
        "ops": list(ops),
        "rebase": False,
        "tooBig": False,
        "blobs": [],
    }


def sync_body(account: Account, commit: tuple[str, bytes, bytes]) -> Body:
    """Return a `#sync` event that announces any commit."""
    rev, cid, block = commit
    return {"did": account.did, "rev": rev, "blocks": write_car(cid, [(cid, block)])}


def create_op(path: str, block: bytes) -> Body:
    """Return the op of a created record."""
    return {"action": "create", "path": path, "cid": cbor.Link(cid_for(block))}


def adopt(account: Account, rev: str, block: bytes) -> None:
    """Make a signed commit over the present tree the account's head: it is honest after all."""
    head = Head(rev, cid_for(block), block, account.repo.head.tree)
    account.repo.heads.append(head)
    account.hosted.list_head()


def car_of(roots: Sequence[bytes], blocks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Write a CAR with any number of roots, and blocks as often as they are given."""
    header = cbor.encode({"roots": [cbor.Link(root) for root in roots], "version": 1})
    return b"".join([section(header), *(section(cid + block) for cid, block in blocks)])
