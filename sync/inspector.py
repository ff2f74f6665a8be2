"""Judge a CAR file or captured frames offline, with the code that verifies what is stored.

Frames are taken for those of one connection, and judged one after another: only where each repo
stands is remembered. Of a repo's export there are an index and the list of records in memory, as
when it is fetched.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from sync.atproto.chain import OK, STALE, UNCHAINED, Head, Place
from sync.atproto.export import Export, ExportLimits, read_export, read_owner
from sync.atproto.frame import (
    AccountMessage,
    BadMessage,
    CommitMessage,
    ErrorMessage,
    IdentityMessage,
    InfoMessage,
    Message,
    SyncMessage,
    UnknownMessage,
    check_size,
    read_next,
)
from sync.atproto.identity import DidDocument
from sync.atproto.keys import PublicKey, parse_did_key
from sync.atproto.records import read_record
from sync.atproto.verify import (
    VerifiedCommit,
    VerifiedOp,
    VerifiedSync,
    examine_commit,
    examine_sync,
    verify_commit,
    verify_sync,
)
from sync.captures import CapturedFrame
from sync.errors import BrokenCommit, ProtocolError
from sync.limits import BoundedMap

NOTED = "noted"
# What was sound, when no key was there to tell who signed it.
UNPROVEN = {OK: "unproven", UNCHAINED: "unproven-unchained"}
GOOD = frozenset((OK, UNCHAINED, STALE, NOTED))

_REMEMBERED_REPOS = 200_000
_KINDS = {
    CommitMessage: "#commit",
    SyncMessage: "#sync",
    IdentityMessage: "#identity",
    AccountMessage: "#account",
    InfoMessage: "#info",
    ErrorMessage: "error",
}


@dataclass(frozen=True, slots=True)
class ItemOp:
    """One operation of a commit: proven, with its record, or what a refused one claims."""

    action: str
    path: str
    cid: bytes | None
    record: str | None = None  # as JSON text
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One frame, or a whole repo, and what is to be thought of it.

    `odd` counts the records that are not stored as JSON, by reason.
    """

    kind: str
    place: Place
    seq: int | None = None
    did: str | None = None
    rev: str | None = None
    since: str | None = None
    ops: tuple[ItemOp, ...] = ()
    records: int = 0
    odd: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Tell whether it was proven, or is of a kind that proves and changes nothing."""
        return self.place.verdict in GOOD


class Inspector:
    """Judge frames in their order, or one export, with the keys of some DID documents."""

    def __init__(self, documents: Mapping[str, DidDocument], *, now_us: int) -> None:
        self._documents = documents
        self._now_us = now_us
        self._seq: int | None = None
        self._heads: BoundedMap[str, Head] = BoundedMap(_REMEMBERED_REPOS)

    def judge_frame(self, frame: CapturedFrame) -> Item:
        """Judge the next frame; nothing in it makes this raise (FA-14)."""
        try:
            check_size(frame.size)
            return self._judge(read_next(frame.data, self._seq))
        except BadMessage as error:
            self._move_to(error.seq)
            return Item(kind="frame", place=_refusal(error), seq=error.seq, did=error.did)
        except ProtocolError as error:
            return Item(kind="frame", place=_refusal(error))
        except Exception as error:  # noqa: BLE001
            return Item(kind="frame", place=_unexpected(error))

    def judge_export(self, file: BinaryIO, *, limits: ExportLimits) -> Item:
        """Judge a repo's CAR file."""
        did = None
        try:
            did = read_owner(file)
            key = self._key(did)
            export = read_export(file, did, key, now_us=self._now_us, limits=limits)
            odd = _odd_records(export)
        except ProtocolError as error:
            return Item(kind="repo", place=_refusal(error), did=did)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001
            return Item(kind="repo", place=_unexpected(error), did=did)
        place = _without_key(Place(OK)) if key is None else Place(OK)
        commit, count = export.commit, len(export.leaves)
        return Item(kind="repo", place=place, did=did, rev=commit.rev, records=count, odd=odd)

    def _judge(self, message: Message) -> Item:
        if isinstance(message, InfoMessage | ErrorMessage):
            return Item(kind=_KINDS[type(message)], place=_heard(message))
        if message.seq is not None and message.seq == self._seq:
            place = Place(STALE, "CU-06", "the one before has the same seq")
            return Item(kind=_kind(message), place=place, seq=message.seq)
        self._move_to(message.seq)
        if isinstance(message, CommitMessage | SyncMessage):
            return self._judge_signed(message)
        if isinstance(message, UnknownMessage):
            return Item(kind=message.kind, place=Place("unknown_message", "ES-10"), seq=message.seq)
        if isinstance(message, AccountMessage):
            head = self._heads.get(message.did) or Head()
            head.set_active(is_active=message.active)
            self._heads[message.did] = head
        return Item(kind=_kind(message), place=_told(message), seq=message.seq, did=message.did)

    def _judge_signed(self, message: CommitMessage | SyncMessage) -> Item:
        head = self._heads.get(message.did) or Head()
        proven: VerifiedCommit | VerifiedSync | None = None
        try:
            proven, is_signed = self._verify(message)
        except BrokenCommit as error:
            head.pass_broken(error.rev)
            place = _refusal(error)
        except ProtocolError as error:
            place = _refusal(error)
        except Exception as error:  # noqa: BLE001
            place = _unexpected(error)
        else:
            place = head.follow(proven)
            if not is_signed:
                place = _without_key(place)
        self._heads[message.did] = head
        ops = _claimed_ops(message)
        if isinstance(proven, VerifiedCommit):
            ops = tuple(_proven_op(op) for op in proven.ops)
        odd = Counter(op.reason for op in ops if op.reason is not None)
        if isinstance(proven, VerifiedCommit):
            odd.update(proven.skipped)
        return Item(
            kind=_kind(message),
            place=place,
            seq=message.seq,
            did=message.did,
            rev=message.rev,
            since=message.since if isinstance(message, CommitMessage) else None,
            ops=ops,
            records=sum(op.cid is not None for op in ops),
            odd=odd,
        )

    def _verify(
        self, message: CommitMessage | SyncMessage
    ) -> tuple[VerifiedCommit | VerifiedSync, bool]:
        """Return what is proven, and whether that includes who signed it."""
        key, now_us = self._key(message.did), self._now_us
        if isinstance(message, CommitMessage):
            if key is None:
                return examine_commit(message, now_us=now_us), False
            return verify_commit(message, key, now_us=now_us), True
        if key is None:
            return examine_sync(message, now_us=now_us), False
        return verify_sync(message, key, now_us=now_us), True

    def _key(self, did: str) -> PublicKey | None:
        """Return the key by which an account's commits count; None where no document tells."""
        document = self._documents.get(did)
        if document is None:
            return None
        if document.signing_key is None:
            raise ProtocolError("no_key", "its DID document shows none", rule="SG-10")
        return parse_did_key(document.signing_key)

    def _move_to(self, seq: int | None) -> None:
        if seq is not None and (self._seq is None or seq > self._seq):
            self._seq = seq


def _kind(message: Message) -> str:
    return message.kind if isinstance(message, UnknownMessage) else _KINDS[type(message)]


def _refusal(error: ProtocolError) -> Place:
    return Place(error.reason, error.rule, error.detail)


def _unexpected(error: Exception) -> Place:
    return Place("unexpected_error", "FA-14", type(error).__name__)


def _without_key(place: Place) -> Place:
    """Say that a sound message may be anybody's."""
    if place.verdict not in UNPROVEN:
        return place
    return Place(UNPROVEN[place.verdict], "SG-10", "signature not checked: no DID document")


def _heard(message: InfoMessage | ErrorMessage) -> Place:
    """Judge what a server says of the stream itself."""
    if isinstance(message, ErrorMessage):
        return Place("error_frame", "ES-08", f"{message.error}: {message.message}")
    if message.name == "OutdatedCursor":
        return Place(NOTED, "CU-08", message.message or message.name)
    return Place("info_message", "MT-06", f"{message.name}: {message.message}")


def _told(message: AccountMessage | IdentityMessage) -> Place:
    """Tell what nobody signs and what therefore only makes a service ask."""
    if isinstance(message, IdentityMessage):
        return Place(NOTED, "MT-07", f"handle {message.handle}" if message.handle else "")
    if message.active:
        return Place(NOTED, "MT-09", "active")
    return Place(NOTED, "MT-09", f"not active: {message.status or 'no status'}")


def _claimed_ops(message: CommitMessage | SyncMessage) -> tuple[ItemOp, ...]:
    if isinstance(message, SyncMessage):
        return ()
    return tuple(ItemOp(op.action, op.path, op.cid) for op in message.ops)


def _proven_op(op: VerifiedOp) -> ItemOp:
    path = f"{op.collection}/{op.rkey}"
    if op.block is None:
        return ItemOp(op.action, path, op.cid, None, op.reason)
    record = read_record(op.block)
    return ItemOp(op.action, path, op.cid, record.value, record.reason)


def _odd_records(export: Export) -> Counter[str]:
    """Count the records that are left out, or kept without JSON, by reason."""
    odd = Counter(export.skipped)
    for leaf in export.leaves:
        block = export.read_block(leaf.cid)
        reason = "too_big" if block is None else read_record(block).reason
        if reason is not None:
            odd[reason] += 1
    return odd
