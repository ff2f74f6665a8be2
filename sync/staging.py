"""The rows a lane copies into its staging table, and the call that applies them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sync.atproto.frame import AccountMessage, IdentityMessage
from sync.atproto.records import read_record
from sync.atproto.verify import VerifiedCommit, VerifiedOp, VerifiedSync
from sync.database import IngestConnection
from sync.problems import storable
from sync.tracking import CollectionFilter

_COLUMNS = (
    "event_no",
    "did",
    "kind",
    "rev",
    "since",
    "prev_data",
    "data_cid",
    "commit_block",
    "ops",
    "is_active",
    "status",
    "reason",
)
_APPLY = "select outcome, events from sync.apply_events($1, $2, $3, $4, $5)"


class EventOp(NamedTuple):
    """One record of a commit, as sync_stage.event_op has it."""

    action: str
    collection: str
    rkey: str
    cid: bytes | None
    value: str | None
    raw: bytes | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class StagedEvent:
    """One event that was judged, ready to be applied."""

    seq: int
    did: str
    kind: str
    rev: str | None = None
    since: str | None = None
    prev_data: bytes | None = None
    data_cid: bytes | None = None
    commit_block: bytes | None = None
    ops: tuple[EventOp, ...] | None = None
    is_active: bool | None = None
    status: str | None = None
    reason: str | None = None

    def row(self, event_no: int) -> tuple[Any, ...]:
        """Return the event as COPY wants it."""
        return (
            event_no,
            self.did,
            self.kind,
            self.rev,
            self.since,
            self.prev_data,
            self.data_cid,
            self.commit_block,
            self.ops,
            self.is_active,
            self.status,
            self.reason,
        )

    def instead(self, reason: str) -> "tuple[StagedEvent, ...]":
        """Return what is staged instead of an event that the database cannot take.

        A fetch brings no status, least of all of an account that is not active: it is asked for.
        """
        broken = replace(
            StagedEvent(seq=self.seq, did=self.did, kind="broken"), rev=self.rev, reason=reason
        )
        if self.kind == "account":
            return (
                broken,
                StagedEvent(seq=self.seq, did=self.did, kind="identity", reason=reason),
            )
        return (broken,)


class LaneClaim(NamedTuple):
    """What fences a lane's writes."""

    source_id: int
    lane: int
    token: int


def stage_commit(commit: VerifiedCommit, collections: CollectionFilter) -> StagedEvent:
    """Turn a verified commit into its row; records of other collections stay out."""
    ops = tuple(_read_op(op) for op in commit.ops if collections.is_tracked(op.collection))
    return StagedEvent(
        seq=commit.seq,
        did=commit.did,
        kind="commit",
        rev=commit.rev,
        since=commit.since,
        prev_data=commit.prev_data,
        data_cid=commit.data,
        commit_block=commit.commit_block,
        ops=ops,
    )


def stage_sync(sync: VerifiedSync) -> StagedEvent:
    """Turn a verified #sync into its row."""
    return StagedEvent(
        seq=sync.seq,
        did=sync.did,
        kind="sync",
        rev=sync.rev,
        data_cid=sync.data,
        commit_block=sync.commit_block,
    )


def stage_account(message: AccountMessage, *, host: str | None = None) -> StagedEvent:
    """Turn an #account event into its row: `active` governs, `status` explains (MT-09).

    `host` is the PDS that says so; None for a relay, which speaks for every account's own.
    """
    status = None if message.active or message.status is None else storable(message.status)
    return StagedEvent(
        seq=message.seq,
        did=message.did,
        kind="account",
        is_active=message.active,
        status=status,
        reason=host,
    )


def stage_identity(message: IdentityMessage) -> StagedEvent:
    """Turn an #identity event into its row: look the DID up again (MT-07)."""
    return StagedEvent(seq=message.seq, did=message.did, kind="identity")


async def copy_events(conn: IngestConnection, events: Sequence[StagedEvent]) -> None:
    """COPY events into the stage of this connection, in order."""
    if events:
        await conn.copy_records_to_table(
            "stage_events",
            schema_name="pg_temp",
            columns=_COLUMNS,
            records=[event.row(number) for number, event in enumerate(events)],
        )


async def apply_events(
    conn: IngestConnection, claim: LaneClaim, *, cursor: int | None, generation: int
) -> dict[str, int]:
    """Apply what is staged; returns how many events had which outcome."""
    rows = await conn.fetch(_APPLY, *claim, cursor, generation)
    outcomes: dict[str, int] = {}
    for row in rows:
        outcomes[row["outcome"]] = outcomes.get(row["outcome"], 0) + row["events"]
    return outcomes


def _read_op(op: VerifiedOp) -> EventOp:
    if op.block is None:
        return EventOp(op.action, op.collection, op.rkey, op.cid, None, None, op.reason)
    record = read_record(op.block)
    return EventOp(
        op.action, op.collection, op.rkey, op.cid, record.value, record.raw, record.reason
    )
