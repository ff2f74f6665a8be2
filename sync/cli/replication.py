"""What `standpipe doctor` finds out about logical replication: who wants it, what it keeps."""

from collections.abc import Iterator
from typing import Any

from sync.cli.context import Session
from sync.cli.findings import Finding, ok, since, size, warn
from sync.roles import REPLICATOR

RETAINED_WAL_BYTES = 4 << 30
UNREAD_S = 3600.0
PAGE = "docs/how-to/replicate.md"

_SUBSCRIBERS = """
    select r.rolname as name
      from pg_catalog.pg_roles r
      join pg_catalog.pg_roles g on g.rolname = %s
     where r.rolcanlogin and r.rolreplication and not r.rolsuper and r.rolname <> session_user
       and pg_has_role(r.oid, g.oid, 'MEMBER')
     order by r.rolname
"""
# Some columns are newer than PostgreSQL 15: as JSON they are null where they are missing.
_SLOTS = """
    select s.slot_name as name, s.active, s.wal_status,
           to_jsonb(s) ->> 'invalidation_reason' as reason,
           extract(epoch from clock_timestamp() - (to_jsonb(s) ->> 'inactive_since')::timestamptz
                  )::float8 as unread_s,
           coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::bigint as kept,
           coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(),
                                    coalesce(s.confirmed_flush_lsn, s.restart_lsn)), 0)::bigint
             as behind
      from pg_catalog.pg_replication_slots s
     where not s.temporary
     order by s.slot_name
"""


def check_replication(session: Session) -> Iterator[Finding]:
    """See that logical replication works where it is wanted, and that no slot fills the disk."""
    yield _wal_level(session)
    slots = session.execute(_SLOTS).fetchall()
    troubles = [finding for slot in slots if (finding := _judge(slot)) is not None]
    if slots and _setting(session, "max_slot_wal_keep_size") == "-1":
        troubles.append(
            warn(
                "replication",
                f"Nothing bounds the WAL that {len(slots)} slots may keep.",
                "Set max_slot_wal_keep_size: a full disk stops more than one subscriber.",
            )
        )
    yield from troubles
    if not slots:
        yield ok("replication", "no slot")
    elif not troubles:
        unread = sum(not slot["active"] for slot in slots)
        behind = size(max(slot["behind"] for slot in slots))
        yield ok(
            "replication", f"{len(slots)} slots, {unread} not read now, at most {behind} behind"
        )


def _wal_level(session: Session) -> Finding:
    level = _setting(session, "wal_level")
    if level == "logical":
        return ok("wal_level", level)
    wanting = [row["name"] for row in session.execute(_SUBSCRIBERS, [REPLICATOR]).fetchall()]
    if not wanting:
        return ok("wal_level", f"{level}: no logical replication, and no login for it")
    return warn(
        "wal_level",
        f"wal_level is {level}: {', '.join(wanting)} cannot subscribe.",
        "Set wal_level = logical and restart PostgreSQL.",
    )


def _judge(slot: dict[str, Any]) -> Finding | None:
    """Return what is wrong with a slot."""
    name, drop = slot["name"], f"select pg_drop_replication_slot('{slot['name']}')"
    if slot["wal_status"] == "lost" or slot["reason"]:
        return warn(
            "replication",
            f"Slot {name} is lost ({slot['reason'] or 'wal_removed'}): its reader has a gap.",
            f"Drop it, {drop}, and start its reader over: {PAGE}.",
        )
    if slot["wal_status"] == "unreserved":
        return warn(
            "replication",
            f"Slot {name} is about to be lost: it is {size(slot['behind'])} behind.",
            "Let its reader catch up at once: the next checkpoint takes the WAL away.",
        )
    unread_s = slot["unread_s"] or 0.0
    if not slot["active"] and (slot["kept"] > RETAINED_WAL_BYTES or unread_s > UNREAD_S):
        when = f", last {since(unread_s)}" if unread_s else ""
        return warn(
            "replication",
            f"Nobody reads slot {name}{when}; it keeps {size(slot['kept'])} of WAL.",
            f"Start its reader, or drop it: {drop}.",
        )
    if slot["behind"] > RETAINED_WAL_BYTES:
        return warn(
            "replication",
            f"The reader of slot {name} is {size(slot['behind'])} behind.",
            "Its server's log says what it waits for; give it time if it only just began.",
        )
    return None


def _setting(session: Session, name: str) -> str:
    row = session.execute("select current_setting(%s) as value", [name]).fetchone()
    assert row is not None
    return str(row["value"])
