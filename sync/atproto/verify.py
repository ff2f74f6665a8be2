"""Verify one event of the stream down to the signature and the tree (rules CM-*, SN-*, SG-14).

The order matters: what is cheap first, then every hash, then the signature, then what only an
authentic message is worth. Until the signature is known to be good an error is a MessageError
and changes nothing; after that it is a BrokenCommit, because the repo did move and must be
fetched again (D-03).
"""

from dataclasses import dataclass

from sync.atproto.car import Car, CarError, read_car
from sync.atproto.cid import is_dag_cbor
from sync.atproto.commit import Commit, check_signature, read_commit
from sync.atproto.frame import CommitMessage, SyncMessage
from sync.atproto.inversion import invert
from sync.atproto.keys import PublicKey
from sync.atproto.ops import Change, net_changes
from sync.atproto.syntax import is_tid, tid_time_us
from sync.errors import BadSignature, BrokenCommit, MessageError, ProtocolError

MAX_COMMIT_BYTES = 2_000_000
MAX_SYNC_BYTES = 10_000
MAX_OPS = 200
MAX_RECORD_BYTES = 1_048_576
# One block may stand at 200 paths and would be stored as often. Honest commits repeat little.
MAX_UNFOLDED_BYTES = 4 * MAX_COMMIT_BYTES
# The smallest section takes 38 bytes; an honest commit of 200 ops has some thousand blocks.
MAX_COMMIT_BLOCKS = 20_000
MAX_FUTURE_US = 5 * 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class VerifiedOp:
    """One record change that the signed tree proves.

    `block` holds the record; None for a delete, and for a record over the size limit, which
    `reason` then says. Links that no record can be verified by count as no record (D-09).
    """

    action: str
    collection: str
    rkey: str
    cid: bytes | None
    prev: bytes | None
    block: bytes | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class VerifiedCommit:
    """A commit that the account signed and whose changes lead from `prev_data` to `data`.

    Whether `since` and `prev_data` are the state at hand is for the database to judge. `skipped`
    has a reason for every record that was left out.
    """

    seq: int
    did: str
    rev: str
    since: str | None
    prev_data: bytes | None
    data: bytes
    commit_block: bytes
    ops: tuple[VerifiedOp, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifiedSync:
    """A commit that the account signed, announced without its contents."""

    seq: int
    did: str
    rev: str
    data: bytes
    commit_block: bytes


def verify_commit(message: CommitMessage, key: PublicKey, *, now_us: int) -> VerifiedCommit:
    """Verify a `#commit` event completely; see the module for what is raised when."""
    car, flaw = _read_commit_car(message)
    commit = _authenticate(message, car, flaw, key=key, now_us=now_us)
    return _prove_commit(message, commit, car, flaw)


def examine_commit(message: CommitMessage, *, now_us: int) -> VerifiedCommit:
    """Verify all of a `#commit` but its signature: to look at, for nobody vouches for it."""
    car, flaw = _read_commit_car(message)
    commit = _find_commit(message, car, flaw, now_us=now_us)
    return _prove_commit(message, commit, car, flaw)


def verify_sync(message: SyncMessage, key: PublicKey, *, now_us: int) -> VerifiedSync:
    """Verify a `#sync` event: a commit of this account, this rev, signed with this key."""
    car, flaw = _read_car(message.blocks)
    commit = _authenticate(message, car, flaw, key=key, now_us=now_us)
    return _prove_sync(message, commit, flaw)


def examine_sync(message: SyncMessage, *, now_us: int) -> VerifiedSync:
    """Verify all of a `#sync` but its signature."""
    car, flaw = _read_car(message.blocks)
    return _prove_sync(message, _find_commit(message, car, flaw, now_us=now_us), flaw)


def check_rev(rev: str, *, now_us: int) -> None:
    """Refuse a rev from the future: accepted once, it would freeze the repo (CM-16, A-19)."""
    ahead_us = tid_time_us(rev) - now_us
    if ahead_us > MAX_FUTURE_US:
        raise MessageError("future_rev", f"{ahead_us // 1_000_000} s ahead", rule="CM-16")


def _prove_commit(
    message: CommitMessage, commit: Commit, car: Car, flaw: CarError | None
) -> VerifiedCommit:
    """Check what an authentic commit contains, and return that."""
    try:
        changes = _check_contents(message, commit, car, flaw)
        ops, skipped = _read_ops(changes, car.blocks)
    except ProtocolError as error:
        raise _broken(error, commit) from error
    return VerifiedCommit(
        seq=message.seq,
        did=commit.did,
        rev=commit.rev,
        since=message.since,
        prev_data=message.prev_data,
        data=commit.data,
        commit_block=commit.block,
        ops=ops,
        skipped=skipped,
    )


def _prove_sync(message: SyncMessage, commit: Commit, flaw: CarError | None) -> VerifiedSync:
    if flaw is not None:
        raise _broken(flaw, commit) from flaw
    if len(message.blocks) > MAX_SYNC_BYTES:
        error = MessageError("sync_too_big", f"{len(message.blocks)} bytes", rule="SN-02")
        raise _broken(error, commit)
    return VerifiedSync(message.seq, commit.did, commit.rev, commit.data, commit.block)


def _read_commit_car(message: CommitMessage) -> tuple[Car, CarError | None]:
    car, flaw = _read_car(message.blocks)
    if car.roots[0] != message.commit:
        raise MessageError("root_mismatch", "the CAR's root is not the commit", rule="CM-07")
    return car, flaw


def _read_car(blocks: bytes) -> tuple[Car, CarError | None]:
    """Read the CAR; if it is flawed behind its header, return what there is and the flaw."""
    try:
        return read_car(blocks, max_blocks=MAX_COMMIT_BLOCKS), None
    except CarError as error:
        if error.partial is None:
            raise MessageError(error.reason, error.detail, rule=error.rule) from error
        return error.partial, error


def _authenticate(
    message: CommitMessage | SyncMessage,
    car: Car,
    flaw: CarError | None,
    *,
    key: PublicKey,
    now_us: int,
) -> Commit:
    """Find the commit, compare it with what the message says, and check who signed it."""
    commit = _find_commit(message, car, flaw, now_us=now_us)
    if not check_signature(commit, key):
        raise BadSignature("bad_signature", rule="SG-02")
    return commit


def _find_commit(
    message: CommitMessage | SyncMessage, car: Car, flaw: CarError | None, *, now_us: int
) -> Commit:
    block = car.blocks.get(car.roots[0])
    if block is None:
        if flaw is not None:
            raise MessageError(flaw.reason, flaw.detail, rule=flaw.rule) from flaw
        raise MessageError("missing_commit", "the CAR lacks its root", rule="CM-06")
    commit = read_commit(block)
    if commit.did != message.did:
        raise MessageError("did_mismatch", "the commit is of another account", rule="CM-11")
    if commit.rev != message.rev:
        raise MessageError("rev_mismatch", "the commit has another rev", rule="CM-12")
    check_rev(commit.rev, now_us=now_us)
    return commit


def _check_contents(
    message: CommitMessage, commit: Commit, car: Car, flaw: CarError | None
) -> list[Change]:
    """Check all that is wrong only if the account itself sent it; return the net changes."""
    if flaw is not None:
        raise flaw
    if len(message.blocks) > MAX_COMMIT_BYTES:
        raise MessageError("blocks_too_big", f"{len(message.blocks)} bytes", rule="CM-03")
    if len(message.ops) > MAX_OPS:
        raise MessageError("too_many_ops", f"{len(message.ops)} ops", rule="CM-04")
    if message.since is not None and not is_tid(message.since):
        raise MessageError("bad_since", "since is not a TID", rule="CM-01")
    if message.prev_data is not None and not is_dag_cbor(message.prev_data):
        raise MessageError("bad_prev_data", "prevData is not a tree root", rule="CM-01")
    changes = net_changes(message.ops)
    before = invert(commit.data, car.blocks, changes)
    if message.prev_data is not None and before != message.prev_data:
        raise MessageError("inversion_mismatch", "undone ops miss prevData", rule="IV-01")
    return changes


def _read_ops(
    changes: list[Change], blocks: dict[bytes, bytes]
) -> tuple[tuple[VerifiedOp, ...], tuple[str, ...]]:
    """Turn net changes into ops with their records; what changes nothing is left out (D-04)."""
    ops: list[VerifiedOp] = []
    skipped: list[str] = []
    unfolded_bytes = 0
    for change in changes:
        cid, prev = change.after, change.before
        if cid == prev:
            continue
        if cid is not None and not is_dag_cbor(cid):
            skipped.append("record_link")
            cid = None
        if prev is not None and not is_dag_cbor(prev):
            prev = None
        if cid is None:
            if prev is not None:
                ops.append(
                    VerifiedOp("delete", change.collection, change.rkey, None, prev, None, None)
                )
            continue
        block = blocks.get(cid)
        if block is None:
            raise MessageError("missing_record", "a record's block is missing", rule="CM-32")
        action = "create" if prev is None else "update"
        reason = None
        if len(block) > MAX_RECORD_BYTES:
            block, reason = None, "too_big"
        else:
            unfolded_bytes += len(block)
        ops.append(VerifiedOp(action, change.collection, change.rkey, cid, prev, block, reason))
    if unfolded_bytes > MAX_UNFOLDED_BYTES:
        raise MessageError("records_too_big", f"{unfolded_bytes} bytes", rule="CA-14")
    return tuple(ops), tuple(skipped)


def _broken(error: ProtocolError, commit: Commit) -> BrokenCommit:
    return BrokenCommit(error.reason, commit.did, commit.rev, detail=error.detail, rule=error.rule)
