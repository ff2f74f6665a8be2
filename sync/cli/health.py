"""The checks of `standpipe doctor`, each a question to the database and a judgement."""

import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any, LiteralString

from sync.cli.context import Session
from sync.cli.findings import Finding, fail, ok, warn
from sync.cli.findings import since as _since
from sync.cli.findings import size as _size
from sync.config import Settings
from sync.errors import SchemaError
from sync.roles import ROLES
from sync.schema import database_revision, require_current

NEWEST_TESTED = 18
# The change log's lock, taken while a commit is numbered.
LOG_LOCK_CLASS, LOG_LOCK_KEY = 7261, 1
LATE_CURSOR_S = 60.0
LONG_WAIT_S = 5.0
# Of 8 GiB, the default: with the queue full, no commit that notifies succeeds.
FULL_QUEUE = 0.1
LONG_TRANSACTION_S = 3600.0
CLOCK_SKEW_S = 30.0
LOW_DISK_BYTES, EMPTY_DISK_BYTES = 5 << 30, 512 << 20

_ROLES = """
    select r.rolname as name, pg_has_role(session_user, r.oid, 'MEMBER') as is_member
      from pg_catalog.pg_roles r where r.rolname = any (%s)
"""
_PARTITIONS = """
    select s.last_value as last_id, sync_priv.partition_size() as size,
           to_regclass('sync_priv.changes_' || (s.last_value + 1) / sync_priv.partition_size())
             is not null as has_current,
           to_regclass('sync_priv.changes_' ||
                       (s.last_value + sync_priv.partition_size() / 4)
                         / sync_priv.partition_size()) is not null as has_next
      from sync_priv.change_ids s
"""
_HELD_BACK = """
    select p.held_back_by, count(*) as partitions, sum(p.bytes)::bigint as bytes,
           bool_and(p.state = 'closed') as is_closed
      from sync.log_status p
     where p.state in ('closed', 'retired', 'pending', 'detached')
       and p.held_back_by is distinct from 'age'
       and (p.state <> 'closed' or p.held_back_by is not null)
     group by p.held_back_by
"""
# Those of projections start over by themselves.
_CONSUMERS = """
    select s.* from sync.consumer_status s
     where s.name not in (select 'projection ' || p.name from sync.projection_status p)
     order by s.name, s.shard
"""
_LOG_LOCK = """
    select a.pid, a.usename, a.application_name, a.state,
           extract(epoch from clock_timestamp() - a.state_change)::float8 as seconds,
           (select extract(epoch from clock_timestamp() - min(w.waitstart))::float8
              from pg_catalog.pg_locks w
             where w.locktype = 'advisory' and l.pid = any (pg_blocking_pids(w.pid))) as waited
      from pg_catalog.pg_locks l
      join pg_catalog.pg_stat_activity a using (pid)
     where l.locktype = 'advisory' and l.granted and l.objsubid = 2
       and l.classid = %s and l.objid = %s
       and l.database = (select d.oid from pg_catalog.pg_database d
                          where d.datname = current_database())
"""
_TRANSACTIONS = """
    select a.pid, a.usename, a.application_name,
           extract(epoch from clock_timestamp() - a.xact_start)::float8 as seconds
      from pg_catalog.pg_stat_activity a
     where a.datname = current_database() and a.backend_type = 'client backend'
       and a.pid <> pg_backend_pid()
       and a.xact_start < clock_timestamp() - %s * interval '1 second'
     order by a.xact_start limit 5
"""
_IDLE_LONGEST = """
    select a.pid, a.usename, a.application_name
      from pg_catalog.pg_stat_activity a
     where a.backend_type = 'client backend' and a.pid <> pg_backend_pid()
       and a.datname = current_database() and a.xact_start is not null
     order by a.xact_start limit 1
"""


def check_schema(session: Session) -> Iterator[Finding]:
    """Compare the schema with this version."""
    try:
        require_current(session)
    except SchemaError as error:
        yield fail("schema", str(error), "")
    else:
        yield ok("schema", f"revision {database_revision(session)}")


def check_server(session: Session) -> Iterator[Finding]:
    """Look at what of the server's configuration matters."""
    major = session.info.server_version // 10_000
    if major > NEWEST_TESTED:
        yield warn(
            "version",
            f"PostgreSQL {major} is newer than any this version was tested with.",
            "Look for a newer Standpipe.",
        )
    now = _one(session, "select extract(epoch from clock_timestamp())::float8 as now")["now"]
    skew_s = abs(now - time.time())
    if skew_s > CLOCK_SKEW_S:
        yield warn(
            "clock",
            f"The clocks of this machine and of the database differ by {skew_s:,.0f} s.",
            "Set both by NTP: commits that look like the future's are refused.",
        )


def check_roles(session: Session) -> Iterator[Finding]:
    """See that the roles exist and that this login may work as them."""
    found = {row["name"]: row["is_member"] for row in session.execute(_ROLES, [list(ROLES)])}
    lacking = [role for role in ROLES if not found.get(role)]
    user = session.info.user
    if lacking:
        yield fail(
            "roles",
            f"{user} is no member of {', '.join(lacking)}.",
            "Run `standpipe upgrade` with a login that may create roles.",
        )
    elif _one(session, "select current_setting('is_superuser') as yes")["yes"] == "on":
        yield warn(
            "roles",
            f"{user} is a superuser.",
            "Give the service a login of its own: docs/how-to/own-postgresql.md.",
        )
    else:
        yield ok("roles", f"{user} is a member of all four and no superuser")


def check_partitions(session: Session) -> Iterator[Finding]:
    """See that the log has room ahead."""
    row = _one(session, _PARTITIONS)
    if row["has_current"] and row["has_next"]:
        yield ok("partitions", f"the log is at {row['last_id']:,} and has partitions ahead")
    elif row["last_id"] == 0:
        yield ok("partitions", "the log is empty")
    else:
        yield warn(
            "partitions",
            "The log's next partition is not made yet.",
            "The service makes it: see that `standpipe run` is running.",
        )


def check_retention(session: Session) -> Iterator[Finding]:
    """Find who keeps the log from giving up its old partitions."""
    rows = session.execute(_HELD_BACK).fetchall()
    for row in rows:
        amount = f"{row['partitions']} old partitions of the log ({_size(row['bytes'])})"
        if row["is_closed"]:
            yield warn(
                "retention",
                f"{row['held_back_by']} keeps {amount}: it has not read them.",
                "Run its reader, drop it with sync.drop_consumer(), or set a limit with "
                "sync.set_retention().",
            )
        elif row["held_back_by"]:
            yield warn(
                "retention",
                f"{amount} wait for {row['held_back_by']}, which still uses the log.",
                "It ends by itself if it is a dump; the service tries again.",
            )
    if not rows:
        yield ok("retention", "nothing holds old partitions of the log back")


def check_sources(session: Session) -> Iterator[Finding]:
    """See that every source is read and its cursor moves."""
    rows = session.execute("select * from sync.source_status order by source_id").fetchall()
    if not rows:
        yield warn("sources", "No source is known yet.", "Start `standpipe run`.")
    for row in rows:
        if row["error"]:
            yield fail(
                "sources",
                f"{row['url']} is stopped: {row['error']}",
                "Rewind it with sync.rewind_source(), then start it with sync.add_source().",
            )
        elif not row["is_enabled"]:
            yield ok("sources", f"{row['url']} is paused")
        elif row["lag_seconds"] is None or row["lag_seconds"] > LATE_CURSOR_S:
            since = "never moved" if row["lag_seconds"] is None else _since(row["lag_seconds"])
            yield warn(
                "sources",
                f"The cursor of {row['url']} last moved: {since}.",
                "See that `standpipe run` is running, and what it logs.",
            )
        elif row["trouble"]:
            yield warn(
                "sources",
                f"{row['url']} cannot be read: {row['trouble']}"
                + ("" if row["seq"] is not None else ". Until it is, no repo is fetched."),
                "The service tries again and again. If it is gone: standpipe source pause URL.",
            )
        elif row["seq"] is None:
            yield warn(
                "sources",
                f"{row['url']} was never read, and until it is no repo is fetched.",
                "See the log of `standpipe run` for why, or pause it: standpipe source pause URL.",
            )
        else:
            yield ok("sources", f"{row['url']} at {row['seq']}, {_since(row['lag_seconds'])}")
        if row["gap_since"] is not None:
            yield warn(
                "gaps",
                f"{row['url']} lost events since {row['gap_since']:%Y-%m-%d %H:%M}.",
                "The service compares every repo with its PDS and fetches what differs: wait.",
            )


def check_log_lock(session: Session) -> Iterator[Finding]:
    """Find who holds the lock that every commit to the log needs."""
    holders = session.execute(_LOG_LOCK, [LOG_LOCK_CLASS, LOG_LOCK_KEY]).fetchall()
    quiet = True
    for row in holders:
        who = f"Session {row['pid']} ({row['usename']}, {row['application_name'] or 'no name'})"
        if (row["state"] or "").startswith("idle"):
            quiet = False
            yield fail(
                "log lock",
                f"{who} holds the change log's lock and idles: {_since(row['seconds'])}. "
                "Nothing commits.",
                f"End its transaction: select pg_terminate_backend({row['pid']}). The cause is "
                "SET CONSTRAINTS ALL IMMEDIATE in a transaction that stays open.",
            )
        elif row["state"] is None and (row["waited"] or 0) > LONG_WAIT_S:
            quiet = False
            yield warn(
                "log lock",
                f"{who} holds the change log's lock; others have waited {row['waited']:,.0f} s.",
                "This login may not see whether it idles, nor end it: let an administrator grant "
                "it pg_read_all_stats and pg_signal_backend.",
            )
    if quiet:
        yield ok("log lock", "nobody holds it idle")


def check_transactions(session: Session) -> Iterator[Finding]:
    """Find what keeps old rows alive: long transactions and prepared ones."""
    quiet = True
    for row in session.execute(_TRANSACTIONS, [LONG_TRANSACTION_S]).fetchall():
        quiet = False
        yield warn(
            "transactions",
            f"Session {row['pid']} ({row['usename']}, {row['application_name'] or 'no name'}) has "
            f"had a transaction open: {_since(row['seconds'])}.",
            "It keeps purges and VACUUM waiting: end it unless it is a dump.",
        )
    prepared = _one(session, "select count(*) as n from pg_catalog.pg_prepared_xacts")["n"]
    if prepared:
        quiet = False
        yield warn(
            "transactions",
            f"{prepared} prepared transactions wait.",
            "Commit or roll them back: see pg_prepared_xacts.",
        )
    if quiet:
        yield ok("transactions", "none is old")


def check_notifications(session: Session) -> Iterator[Finding]:
    """See that no listener keeps the queue of notifications from being emptied."""
    usage = _one(session, "select pg_notification_queue_usage() as share")["share"]
    if usage <= FULL_QUEUE:
        yield ok("notify", f"{usage:.0%} of the queue of notifications is in use")
        return
    oldest = session.execute(_IDLE_LONGEST).fetchone()
    who = "A session that listens"
    if oldest is not None:
        name = oldest["application_name"] or "no name"
        who = f"A session that listens, probably {oldest['pid']} ({oldest['usename']}, {name}),"
    yield warn(
        "notify",
        f"{who} stays in a transaction: {usage:.0%} of the queue of notifications is in use.",
        "End that transaction: when the queue is full, nothing is committed that notifies. "
        "PostgreSQL's log names the session from half full on.",
    )


def check_backlog(session: Session) -> Iterator[Finding]:
    """Count what waits."""
    row = _one(session, "select * from sync.status")
    waiting = row["pending"] + row["desynchronized"] + row["fetching"]
    text = (
        f"{row['repos']:,} repos: {row['synchronized']:,} synchronized, {waiting:,} waiting, "
        f"{row['failed']:,} failed; {row['held_events']:,} held events, {row['purges']:,} purges"
    )
    if row["failed"]:
        yield warn("backlog", text, "`standpipe status` says why; they are tried again.")
    else:
        yield ok("backlog", text)


def check_consumers(session: Session) -> Iterator[Finding]:
    """Find readers of the log that cannot go on."""
    rows = session.execute(_CONSUMERS).fetchall()
    outrun = [row for row in rows if row["is_outrun"]]
    for row in outrun:
        yield warn(
            "consumers",
            f"The log no longer reaches back to consumer {row['name']}, shard {row['shard']}.",
            f"Start it over: select sync.replay('{row['name']}').",
        )
    if not outrun:
        lag = max((row["lag_rows"] for row in rows), default=0)
        yield ok("consumers", f"{len(rows)}, at most {lag:,} changes behind")


def check_projections(session: Session) -> Iterator[Finding]:
    """Find tables of apps that are no longer kept."""
    rows = session.execute("select * from sync.projection_status order by name").fetchall()
    failed = [row for row in rows if row["state"] == "failed"]
    for row in failed:
        yield warn(
            "projections",
            f"Projection {row['name']} was stopped by an error.",
            f"Mend it, then `standpipe projection resume {shlex.quote(row['name'])}`; its status "
            "says more.",
        )
    if not failed:
        lag = max((row["lag_rows"] for row in rows), default=0)
        yield ok("projections", f"{len(rows)}, at most {lag:,} changes behind")


def check_searches(session: Session) -> Iterator[Finding]:
    """Find searches whose texts are not kept, or wait for an embedder that does not work."""
    rows = session.execute("select * from sync.list_searches()").fetchall()
    left = [row for row in rows if row["projection_state"] == "missing"]
    for row in left:
        yield warn(
            "searches",
            f"Nobody keeps the texts of search {row['name']}: its projection was dropped.",
            f"Make it anew: `standpipe search disable {row['name']}`, then `search enable`.",
        )
    waiting = [row for row in rows if row["error_at"] is not None]
    for row in waiting:
        yield warn(
            "searches",
            f"The texts of search {row['name']} wait: {row['error'] or 'operators see why'}.",
            f"Look after its embedder, {row['embedder_url']}.",
        )
    if rows and not waiting and not left:
        yield ok("searches", f"{len(rows)}, with embedders that work")


def check_disk(session: Session, settings: Settings) -> Finding:
    """Look at the room that is left, where the database is on this machine."""
    row = _one(session, "select pg_database_size(current_database()) as bytes")
    used = f"the database has {_size(row['bytes'])}"
    if settings.database_url is not None:
        return ok("disk", f"{used}; how much room is left, only its machine knows")
    free = shutil.disk_usage(settings.data_dir).free
    text = f"{used}, {_size(free)} are free in {settings.data_dir}"
    if free < EMPTY_DISK_BYTES:
        return fail("disk", text, "Free some space: PostgreSQL stops when there is none.")
    if free < LOW_DISK_BYTES:
        return warn("disk", text, "Free some space, or move the folder to a larger disk.")
    return ok("disk", text)


CHECKS: dict[str, Callable[[Session], Iterator[Finding]]] = {
    "server": check_server,
    "roles": check_roles,
    "partitions": check_partitions,
    "retention": check_retention,
    "sources": check_sources,
    "log lock": check_log_lock,
    "transactions": check_transactions,
    "notify": check_notifications,
    "backlog": check_backlog,
    "consumers": check_consumers,
    "projections": check_projections,
    "searches": check_searches,
}


def _one(session: Session, query: LiteralString) -> dict[str, Any]:
    row = session.execute(query).fetchone()
    assert row is not None
    return row
