"""Play the ingest service against the SQL functions: stage rows, call, commit.

Commits and CIDs are made up (the functions never look inside them); what counts is how they
chain. A `Driver` works like one lane and one fetcher on one connection.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import DictRow

_STAGE_EVENT = """
    insert into pg_temp.stage_events
    select %s, %s, %s, %s, %s, %s, %s, %s,
           (select array_agg(row(o.*)::sync_stage.event_op)
              from rows from (jsonb_to_recordset(%s) as (
                action text, collection text, rkey text, cid bytea, value jsonb,
                raw bytea, reason text)) o),
           %s, %s, %s
"""

Key = tuple[str, str]
POST = "app.bsky.feed.post"
LIKE = "app.bsky.feed.like"


def cid(text: object) -> bytes:
    """Return a well-formed CID that stands for `text`."""
    return b"\x01\x71\x12\x20" + hashlib.sha256(str(text).encode()).digest()


def did(number: int) -> str:
    """Return a did:plc that stands for a number."""
    digits = "abcdefghijklmnopqrstuvwxyz234567"
    return "did:plc:" + "".join(digits[(number >> (5 * i)) & 31] for i in range(24))


def rev(number: int) -> str:
    """Return a TID that sorts as its number."""
    digits = "234567abcdefghijklmnopqrstuvwxyz"
    return "3k" + "".join(digits[(number >> (5 * i)) & 31] for i in reversed(range(11)))


def value_of(text: str) -> str:
    """Return the JSON of the record that a text stands for; a text may be one itself."""
    return text if text.startswith('{"') else json.dumps({"text": text})


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of a commit; `text` is the record's content."""

    action: str
    rkey: str
    text: str | None = None
    collection: str = POST

    def row(self) -> tuple[object, ...]:
        """Return the fields of sync_stage.event_op."""
        value = None if self.text is None else value_of(self.text)
        content = None if self.text is None else cid(self.text)
        return self.action, self.collection, self.rkey, content, value, None, None


@dataclass(frozen=True, slots=True)
class Event:
    """One staged event; `data` stands for the tree after it."""

    did: str
    kind: str = "commit"
    rev: int | None = None
    since: int | None = None
    before: object = None
    data: object = None
    ops: Sequence[Op] = ()
    is_active: bool | None = None
    status: str | None = None
    reason: str | None = None


@dataclass(slots=True)
class Claim:
    """A claimed fetch."""

    repo_id: int
    generation: int
    fetch_token: int
    has_records: bool
    staged: dict[Key, str] = field(default_factory=dict)


class Driver:
    """One lane and one fetcher on one connection, in autocommit."""

    def __init__(
        self,
        conn: psycopg.Connection[DictRow],
        *,
        lane: int = 0,
        url: str = "ws://relay.test",
        kind: str = "relay",
    ) -> None:
        self.conn = conn
        self.lane = lane
        conn.execute("select sync.open_stage()")
        self.source_id = self.value("select sync.add_source(%s, %s)", url, kind)
        claimed = self.row("select * from sync.claim_lane(%s, %s)", self.source_id, lane)
        self.token = claimed["token"]
        self.cursor = int(claimed["seq"] or 0)

    def value(self, query: str, *args: object) -> Any:
        """Return the only column of the only row."""
        row = self.conn.execute(query, args).fetchone()
        return None if row is None else next(iter(row.values()))

    def row(self, query: str, *args: object) -> DictRow:
        """Return the only row."""
        row: DictRow | None = self.conn.execute(query, args).fetchone()
        assert row is not None
        return row

    def rows(self, query: str, *args: object) -> list[DictRow]:
        """Return all rows."""
        return self.conn.execute(query, args).fetchall()

    def track(self, *numbers: int) -> None:
        """Track repos, and let the lane reach the new filter generation."""
        self.conn.execute("select sync.track_repos(%s)", [[did(n) for n in numbers]])
        self.apply()

    def apply(self, *events: Event) -> dict[str, int]:
        """Stage events and apply them in one transaction; return the outcomes."""
        self.cursor += max(1, len(events))
        with self.conn.transaction():
            self.stage(events)
            outcomes = self.rows(
                "select * from sync.apply_events(%s, %s, %s, %s, sync.filter_generation())",
                self.source_id,
                self.lane,
                self.token,
                self.cursor,
            )
        return {row["outcome"]: row["events"] for row in outcomes}

    def stage(self, events: Sequence[Event]) -> None:
        """Insert events into the stage of the current transaction."""
        with self.conn.cursor() as cursor:
            cursor.executemany(_STAGE_EVENT, [_event_row(*each) for each in enumerate(events)])

    def claim(self, number: int) -> Claim:
        """Claim the fetch of one repo that waits for it."""
        for row in self.rows("select * from sync.claim_fetches(100, 100)"):
            if row["did"] == did(number):
                names = ("repo_id", "generation", "fetch_token", "has_records")
                return Claim(*(row[name] for name in names))
        raise AssertionError(f"repo {number} was not there to claim")

    def claim_directly(self, who: int | str) -> Claim:
        """Put one repo into `fetching`, whatever it or its host waits for."""
        name = did(who) if isinstance(who, int) else who
        self.conn.execute(
            "update sync.repos set sync_state = 'desynchronized'"
            " where did = %s and sync_state = 'synchronized'",
            [name],
        )
        row = self.row(
            "update sync.repos r set sync_state = 'fetching',"
            " fetch_token = nextval('sync_priv.tokens'), fetcher_id = sync_priv.fetcher_id(),"
            " fetch_started_at = sync_priv.clock()"
            " where did = %s"
            " returning r.repo_id, r.generation, r.fetch_token,"
            " exists (select from sync.stored_records s where s.repo_id = r.repo_id)"
            " as has_records",
            name,
        )
        return Claim(**row)

    def import_unsigned(
        self, claimed: Mapping[str, Any], records: Mapping[Key | str, str], *, at: int, data: object
    ) -> DictRow:
        """Reconcile a repo from a file whose signature nobody checked."""
        claim = Claim(**claimed)
        keys = {(POST, k) if isinstance(k, str) else k: text for k, text in records.items()}
        with self.conn.transaction():
            self.stage_export(claim, keys, at=at, data=data)
            self.conn.execute("update pg_temp.stage_repos set trust = 'unsigned'")
            return self.row(
                "select * from sync.reconcile_repos(%s, %s, %s)",
                [claim.repo_id],
                [len(keys)],
                [cid(data)],
            )

    def reconcile(
        self,
        claim: Claim,
        records: Mapping[str | Key, str],
        *,
        at: int,
        data: object,
        declared: int | None = None,
    ) -> DictRow:
        """Stage an export (rkey or (collection, rkey) → text) and reconcile it; one transaction."""
        keys = {(POST, k) if isinstance(k, str) else k: text for k, text in records.items()}
        count = len(keys) if declared is None else declared
        call = ([claim.repo_id], [count], [cid(data)])
        with self.conn.transaction():
            self.stage_export(claim, keys, at=at, data=data)
            if claim.has_records:
                needed = self.rows("select * from sync.diff_repos(%s, %s, %s)", *call)
                wanted = {(row["collection"], row["rkey"]) for row in needed}
                self.stage_contents(claim, {k: keys[k] for k in wanted})
            return self.row("select * from sync.reconcile_repos(%s, %s, %s)", *call)

    def stage_export(self, claim: Claim, keys: Mapping[Key, str], *, at: int, data: object) -> None:
        """Stage a repo and its keys (with the contents when the repo has no records yet)."""
        self.conn.execute(
            "insert into pg_temp.stage_repos values (%s, %s, %s, %s, %s, %s, 'verified')",
            [claim.repo_id, claim.generation, claim.fetch_token, rev(at), cid(data), b"commit"],
        )
        if not claim.has_records:
            self.stage_contents(claim, keys)
            return
        for (collection, rkey), text in keys.items():
            self.conn.execute(
                "insert into pg_temp.stage_records values (%s, %s, %s, %s, false)",
                [claim.repo_id, collection, rkey, cid(text)],
            )

    def stage_contents(self, claim: Claim, keys: Mapping[Key, str]) -> None:
        """Stage whole records."""
        for (collection, rkey), text in keys.items():
            self.conn.execute(
                "insert into pg_temp.stage_records values (%s, %s, %s, %s, true, %s)",
                [claim.repo_id, collection, rkey, cid(text), value_of(text)],
            )

    def load(self, number: int, records: Mapping[str | Key, str], *, at: int, data: object) -> None:
        """Track, fetch and reconcile one repo."""
        self.track(number)
        outcome = self.reconcile(self.claim(number), records, at=at, data=data)
        assert outcome["outcome"] == "synchronized"

    def locate(self, *numbers: int, pds: str = "https://pds.test") -> None:
        """Say that the repos' DIDs resolved to a PDS."""
        for number in numbers:
            self.value("select sync.set_identity(%s, 'a.test', %s, 'did:key:z1')", did(number), pds)

    def maintain(self) -> None:
        """Do the upkeep that is due."""
        while self.value("select sync.maintain()"):
            pass

    def later(self, interval: str) -> None:
        """Let the clock stand still, so long from now, however slow the machine is."""
        self.conn.execute("select set_config('sync.now', (now() + %s)::text, false)", [interval])

    def texts(self, number: int) -> dict[str, str]:
        """Return rkey → text of the visible posts of a repo."""
        found = self.rows(
            "select s.rkey, s.value ->> 'text' as text from sync.stored_records s"
            " join sync_priv.visible_repos v using (repo_id)"
            " join sync.collections c using (collection_id) where v.did = %s and c.nsid = %s",
            did(number),
            POST,
        )
        return {row["rkey"]: row["text"] for row in found}

    def state(self, number: int) -> str:
        """Return a repo's sync_state."""
        return str(self.value("select sync_state from sync.repos where did = %s", did(number)))

    def log(self, after: int = 0) -> list[tuple[object, ...]]:
        """Return (kind, rkey, text) of every change with a higher id, in order."""
        found = self.rows(
            "select kind, rkey, value ->> 'text' as text from sync.changes"
            " where change_id > %s order by change_id",
            after,
        )
        return [(row["kind"], row["rkey"], row["text"]) for row in found]

    def shape(self, after: int = 0) -> list[tuple[object, ...]]:
        """Return (kind, did, collection) of every change with a higher id, in order."""
        found = self.rows(
            "select g.kind, r.did, c.nsid from sync.changes g"
            " left join sync.repos r using (repo_id)"
            " left join sync.collections c using (collection_id)"
            " where g.change_id > %s order by g.change_id",
            after,
        )
        return [(row["kind"], row["did"], row["nsid"]) for row in found]

    def position(self) -> int:
        """Return the highest change id."""
        return int(self.value("select coalesce(max(change_id), 0) from sync.changes"))


def _event_row(number: int, event: Event) -> tuple[object, ...]:
    return (
        number,
        event.did,
        event.kind,
        None if event.rev is None else rev(event.rev),
        None if event.since is None else rev(event.since),
        None if event.before is None else cid(event.before),
        None if event.data is None else cid(event.data),
        None if event.rev is None else rev(event.rev).encode(),
        json.dumps([_as_json(op) for op in event.ops]),
        event.is_active,
        event.status,
        event.reason,
    )


def _as_json(op: Op) -> dict[str, object]:
    action, collection, rkey, content, value, _, _ = op.row()
    return {
        "action": action,
        "collection": collection,
        "rkey": rkey,
        "cid": None if content is None else "\\x" + content.hex(),  # type: ignore[attr-defined]
        "value": None if value is None else json.loads(str(value)),
    }
