"""Read a commit's ops: what they amount to, path by path (rules CM-25..30, D-04)."""

from collections.abc import Iterable
from dataclasses import dataclass

from sync.atproto.frame import RepoOp
from sync.atproto.syntax import split_path
from sync.errors import ProtocolError


class OpsError(ProtocolError):
    """Ops that contradict themselves or do not say enough to be undone."""


@dataclass(frozen=True, slots=True)
class Change:
    """The net effect of all ops on one path: the record links before and after the commit."""

    key: bytes
    collection: str
    rkey: str
    before: bytes | None
    after: bytes | None


def net_changes(ops: Iterable[RepoOp]) -> list[Change]:
    """Fold ops into one change a path, in key order; changes without effect are kept.

    A path may occur several times (D-04). Servers differ in what `prev` then means, the link
    before the op or before the commit, so both are accepted: the inversion proves the rest.
    """
    changes: dict[str, Change] = {}
    for op in ops:
        earlier = changes.get(op.path)
        changes[op.path] = _first(op) if earlier is None else _further(earlier, op)
    return sorted(changes.values(), key=lambda change: change.key)


def _first(op: RepoOp) -> Change:
    key = op.path.encode()
    path = split_path(key)
    if path is None:
        raise OpsError("bad_path", "an op names no valid path", rule="CM-29")
    _check_cid(op)
    if op.action == "create":
        if op.prev is not None:
            raise OpsError("bad_op", "a create with prev", rule="CM-26")
    elif op.prev is None:
        rule = "CM-27" if op.action == "update" else "CM-28"
        raise OpsError("missing_prev", f"{op.action} without prev", rule=rule)
    return Change(key, path[0], path[1], op.prev, op.cid)


def _further(change: Change, op: RepoOp) -> Change:
    _check_cid(op)
    if (op.action == "create") != (change.after is None):
        raise OpsError("bad_op", f"{op.action} contradicts an op before it", rule="CM-30")
    if op.prev is not None and op.prev not in (change.before, change.after):
        raise OpsError("bad_op", "prev contradicts an op before it", rule="CM-30")
    return Change(change.key, change.collection, change.rkey, change.before, op.cid)


def _check_cid(op: RepoOp) -> None:
    if op.action not in ("create", "update", "delete"):
        raise OpsError("bad_op", "unknown action", rule="CM-25")
    if (op.cid is None) != (op.action == "delete"):
        rule = {"create": "CM-26", "update": "CM-27", "delete": "CM-28"}[op.action]
        raise OpsError("bad_op", f"{op.action} with or without cid", rule=rule)
