"""Read and write the frames of the event stream (rules ES-*, CU-01, MT-*).

Here a frame is checked for its shape only: the two objects, the fields and their types. What
needs a signature to be judged (limits of a commit, its ops, its CAR) is judged in verify.py,
because an authentic commit that breaks a rule must lead to a refetch, not be forgotten.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sync.atproto import cbor
from sync.atproto.envelope import read_item, read_objects, skip_item
from sync.atproto.syntax import is_did, is_handle
from sync.errors import FramingError, MessageError

MAX_FRAME_BYTES = 5_000_000
MAX_SEQ = 2**53 - 1
# How the frame of a `#commit` begins.
_COMMIT_HEADER = b"\xa2\x61t\x67#commit\x62op\x01"
# Free text of a stranger that is only shown: more than this is cut off.
_MAX_TEXT = 1_024

Body = dict[str, Any]


class BadMessage(MessageError):
    """A message with a missing or malformed field; `seq` and `did` as far as they are known."""

    def __init__(self, reason: str, detail: str, body: Body, *, rule: str) -> None:
        super().__init__(reason, detail, rule=rule)
        did = body.get("repo", body.get("did"))
        self.seq = _optional_seq(body)
        self.did: str | None = did if isinstance(did, str) and is_did(did) else None


@dataclass(frozen=True, slots=True)
class RepoOp:
    """One change of a commit, as the message claims it."""

    action: str
    path: str
    cid: bytes | None
    prev: bytes | None


@dataclass(frozen=True, slots=True)
class CommitMessage:
    """A `#commit` event; nothing in it is proven yet."""

    seq: int
    did: str
    rev: str
    since: str | None
    prev_data: bytes | None
    commit: bytes
    blocks: bytes
    ops: tuple[RepoOp, ...]
    time: str


@dataclass(frozen=True, slots=True)
class SyncMessage:
    """A `#sync` event: the repo is now at this commit, whatever was before."""

    seq: int
    did: str
    rev: str
    blocks: bytes
    time: str


@dataclass(frozen=True, slots=True)
class IdentityMessage:
    """An `#identity` event: a hint to look the DID up again (MT-07)."""

    seq: int
    did: str
    handle: str | None
    time: str


@dataclass(frozen=True, slots=True)
class AccountMessage:
    """An `#account` event: what the emitting host says of the account (MT-09)."""

    seq: int
    did: str
    active: bool
    status: str | None
    time: str


@dataclass(frozen=True, slots=True)
class InfoMessage:
    """An `#info` message, such as OutdatedCursor."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """An error frame: the server closes the stream after it (ES-08)."""

    error: str
    message: str


@dataclass(frozen=True, slots=True)
class UnknownMessage:
    """A frame of a kind this version does not know: stepped over (D-02)."""

    seq: int | None
    kind: str


Message = (
    CommitMessage
    | SyncMessage
    | IdentityMessage
    | AccountMessage
    | InfoMessage
    | ErrorMessage
    | UnknownMessage
)


def read_next(data: bytes, last_seq: int | None) -> Message:
    """Read the frame that comes after one of `last_seq` on the same connection (CU-03)."""
    message = read_frame(data)
    seq = None if isinstance(message, InfoMessage | ErrorMessage) else message.seq
    has_fallen = seq is not None and last_seq is not None and seq < last_seq
    if has_fallen and not isinstance(message, UnknownMessage):
        raise FramingError("seq_fell", f"{seq} after {last_seq}", rule="CU-03")
    return message


def check_size(size: int) -> None:
    """Refuse a frame that is too large, before there is a need to have it in memory."""
    if size > MAX_FRAME_BYTES:
        raise FramingError("frame_too_big", f"{size} bytes", rule="ES-15")


def read_frame(data: bytes) -> Message:
    """Read one frame; FramingError ends the connection, MessageError only this message."""
    check_size(len(data))
    try:
        objects = read_objects(data)
    except cbor.CborError as error:
        if error.reason == "too_many_items":
            did, seq = peek(data)
            found = {"did": did, "seq": seq}
            raise BadMessage(error.reason, error.detail, found, rule="ES-19") from error
        raise FramingError("bad_frame", str(error), rule="ES-12") from error
    if len(objects) != 2:
        raise FramingError("bad_frame", f"{len(objects)} objects", rule="ES-04")
    header, body = objects
    if type(header) is not dict or type(body) is not dict:
        raise FramingError("bad_frame", "not two maps", rule="ES-04")
    op, kind = header.get("op"), header.get("t")
    if type(op) is not int:
        raise FramingError("bad_frame", "header without op", rule="ES-07")
    if op == -1:
        return _read_error(body)
    if op != 1:
        return UnknownMessage(_optional_seq(body), f"op {op}")
    if type(kind) is not str:
        raise FramingError("bad_frame", "header without t", rule="ES-07")
    reader = _READERS.get(kind)
    if reader is None:
        return UnknownMessage(_optional_seq(body), _shown(kind))
    return reader(body)


def peek(data: bytes) -> tuple[str | None, int | None]:
    """Find the DID and the sequence number of a frame without reading all of it.

    None for what is not found before the first field that follows both, or is malformed.
    """
    found: dict[str, Any] = {}
    owner = "did"
    try:
        at = skip_item(data, 0)
        # A message may have any field more, so a `did` in a commit says nothing.
        if _is_commit(data[:at]):
            owner = "repo"
        count = data[at] - 0xA0
        if not 0 <= count < 24:
            return None, None
        at += 1
        for _ in range(count):
            name, at = read_item(data, at)
            if name not in (owner, "seq"):
                at = skip_item(data, at)
                continue
            found[name], at = read_item(data, at)
            if len(found) == 2:
                break
    except (cbor.CborError, IndexError):
        pass
    did = found.get(owner)
    is_usable = isinstance(did, str) and is_did(did)
    return did if is_usable else None, _optional_seq(found)


def _is_commit(header: bytes) -> bool:
    """Tell whether a frame's first object announces a `#commit`."""
    if header == _COMMIT_HEADER:
        return True
    fields, _ = read_item(header, 0)
    return type(fields) is dict and fields.get("t") == "#commit"


def peek_did(data: bytes) -> str | None:
    """Find the DID a frame is about without reading all of it; None where there is none."""
    return peek(data)[0]


def write_frame(kind: str, body: Body) -> bytes:
    """Write a frame as a server does; the kind `error` makes an error frame.

    Links in the body are `cbor.Link` values.
    """
    header: Body = {"op": -1} if kind == "error" else {"op": 1, "t": kind}
    return cbor.encode(header) + cbor.encode(body)


def _read_commit(body: Body) -> CommitMessage:
    since = body.get("since")
    if since is not None and type(since) is not str:
        raise BadMessage("bad_field", "since", body, rule="CM-01")
    ops = body.get("ops")
    if type(ops) is not list:
        raise BadMessage("bad_field", "ops", body, rule="CM-01")
    return CommitMessage(
        seq=_seq(body),
        did=_did(body, "repo"),
        rev=_field(body, "rev", str),
        since=since or None,  # "" is read as null (D-06)
        prev_data=_link(body, "prevData", body),
        commit=_field(body, "commit", bytes),
        blocks=_field(body, "blocks", bytes),
        ops=tuple([_read_op(op, body) for op in ops]),
        time=_field(body, "time", str),
    )


def _read_op(op: object, body: Body) -> RepoOp:
    if type(op) is not dict:
        raise BadMessage("bad_field", "ops", body, rule="CM-01")
    action, path = op.get("action"), op.get("path")
    if type(action) is not str or type(path) is not str:
        raise BadMessage("bad_field", "ops", body, rule="CM-25")
    return RepoOp(action, path, _link(op, "cid", body), _link(op, "prev", body))


def _read_sync(body: Body) -> SyncMessage:
    return SyncMessage(
        seq=_seq(body),
        did=_did(body, "did"),
        rev=_field(body, "rev", str),
        blocks=_field(body, "blocks", bytes),
        time=_field(body, "time", str),
    )


def _read_identity(body: Body) -> IdentityMessage:
    handle = body.get("handle")
    # Only a hint, so a malformed one is as good as none.
    usable = isinstance(handle, str) and is_handle(handle)
    return IdentityMessage(
        seq=_seq(body),
        did=_did(body, "did"),
        handle=handle if usable else None,
        time=_field(body, "time", str),
    )


def _read_account(body: Body) -> AccountMessage:
    status = body.get("status")
    if status is not None and type(status) is not str:
        raise BadMessage("bad_field", "status", body, rule="MT-09")
    return AccountMessage(
        seq=_seq(body),
        did=_did(body, "did"),
        active=_field(body, "active", bool),
        status=None if status is None else _shown(status),
        time=_field(body, "time", str),
    )


def _read_info(body: Body) -> InfoMessage:
    return InfoMessage(_shown(_field(body, "name", str)), _shown(body.get("message")))


def _read_error(body: Body) -> ErrorMessage:
    if type(body.get("error")) is not str:
        raise FramingError("bad_frame", "error frame without error", rule="ES-08")
    return ErrorMessage(_shown(body["error"]), _shown(body.get("message")))


_READERS: dict[str, Callable[[Body], Message]] = {
    "#commit": _read_commit,
    "#sync": _read_sync,
    "#identity": _read_identity,
    "#account": _read_account,
    "#info": _read_info,
}


def _field(body: Body, name: str, kind: type) -> Any:
    value = body.get(name)
    if not isinstance(value, kind):
        raise BadMessage("bad_field", name, body, rule="MT-01")
    return value


def _link(fields: Body, name: str, body: Body) -> bytes | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, bytes):
        raise BadMessage("bad_field", name, body, rule="CM-01")
    return value


def _did(body: Body, name: str) -> str:
    did = body.get(name)
    if type(did) is not str or not is_did(did):
        raise BadMessage("bad_did", name, body, rule="MT-02")
    return did


def _seq(body: Body) -> int:
    seq = _optional_seq(body)
    if seq is None:
        raise BadMessage("bad_seq", "not a positive integer below 2^53", body, rule="CU-01")
    return seq


def _optional_seq(body: Body) -> int | None:
    seq = body.get("seq")
    return seq if type(seq) is int and 0 < seq <= MAX_SEQ else None


def _shown(text: object) -> str:
    """Make free text fit for logs and the database, which cannot hold a NUL."""
    return text.replace("\x00", "\ufffd")[:_MAX_TEXT] if isinstance(text, str) else ""
