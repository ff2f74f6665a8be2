"""Show rows of the change log as the JSON events that Tap sends, plus what Tap cannot say.

    {"id", "position", "type": "record", "record": {"live", "did", "rev", "collection", "rkey",
     "action", "cid", "record"}}             "cid" and "record" are missing on a delete
    {"id", "position", "type": "identity", "identity": {"did", "handle", "is_active", "status"}}
    {"id", "position", "type": "purge", "purge": {"did", "collection"}}     null means every one
    {"id", "position", "type": "snapshot", "snapshot": {"did", "collection", "rev"}}

Where JSON in PostgreSQL cannot hold a record, "record" is missing, "reason" says why, and "raw"
has its DAG-CBOR bytes. A snapshot row stands for the first load of a whole collection; only the
log itself has it, consumers are given the records instead.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

_ACTIONS = frozenset(("create", "update", "delete"))


@dataclass(frozen=True, slots=True)
class Change:
    """One change as a consumer is given it; the columns of `sync.read_changes()`.

    `kind` says which fields are there:

    - `create`, `update`: a record. `cid` is text, `value` its JSON; where PostgreSQL's jsonb
      cannot hold the record, `value` is None, `raw` has the DAG-CBOR and `reason` says why.
    - `delete`: a record that is gone.
    - `purge`: everything of `did` and `collection` is gone; None means every one.
    - `account`, `identity`: `value` has status, active, handle, pds.

    `position` is `epoch.change_id`. `is_live` is False for what was found rather than told: by a
    walk from the beginning, a resync, or somebody's SQL.
    """

    position: str
    kind: str
    did: str | None
    collection: str | None
    rkey: str | None
    rev: str | None
    cid: str | None
    is_live: bool
    value: Any
    raw: bytes | None
    reason: str | None
    logged_at: datetime

    @property
    def uri(self) -> str | None:
        """The at-uri of the record; None for what is not about one record."""
        return f"at://{self.did}/{self.collection}/{self.rkey}" if self.rkey is not None else None

    def as_event(self) -> dict[str, Any]:
        """Return the JSON form that `standpipe consumer read --json` prints."""
        return change_event({each.name: getattr(self, each.name) for each in fields(self)})


def change_event(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event of one row of `sync.change_log` or `sync.read_changes()`."""
    position: str = row["position"]
    event: dict[str, Any] = {"id": int(position.partition(".")[2]), "position": position}
    kind = row["kind"]
    if kind in _ACTIONS:
        return event | {"type": "record", "record": _record(row)}
    if kind in {"account", "identity"}:
        return event | {"type": "identity", "identity": _identity(row)}
    fields = {"did": row["did"], "collection": row["collection"]}
    if kind == "snapshot":
        fields["rev"] = row["rev"]
    return event | {"type": kind, kind: fields}


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    record = {
        "live": row["is_live"],
        "did": row["did"],
        "rev": row["rev"],
        "collection": row["collection"],
        "rkey": row["rkey"],
        "action": row["kind"],
    }
    if row["value"] is not None:
        record["record"] = row["value"]
    if row["cid"] is not None:
        record["cid"] = row["cid"]
    if row["raw"] is not None:
        record["raw"] = {"$bytes": base64.b64encode(row["raw"]).decode().rstrip("=")}
    if row["reason"] is not None:
        record["reason"] = row["reason"]
    return record


def _identity(row: Mapping[str, Any]) -> dict[str, Any]:
    """Tell who an account is and how it stands, whichever of the two has changed."""
    value = row["value"] or {}
    identity = {"did": row["did"]}
    if value.get("handle") is not None:
        identity["handle"] = value["handle"]
    identity["is_active"] = value.get("active", True)
    identity["status"] = value.get("status") or "active"
    if value.get("pds") is not None:
        identity["pds"] = value["pds"]
    return identity
