"""Follow Standpipe's change log into another database, exactly once, without a subscription.

    python follow_pgoutput.py postgresql://…/app postgresql://…/elsewhere

The first run makes two tables in the other database and a slot in the app's; it copies what is
logged from then on. The rows, and the place in the WAL that they reach, are written in one
transaction; only then is the place confirmed to the slot. Whatever is killed, the next run asks
for what follows the last transaction that was written.
"""

import base64
import select
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

import psycopg
from pgoutput import Begin, Change, Commit, Decoder, Row
from psycopg import sql

SLOT = "follow_pgoutput"
BATCH_ROWS = 1000
RETRY_S = 1.0

TABLES = """
create table if not exists followed_changes (
  change_id bigint primary key, position text not null, kind text not null, did text,
  collection text, rkey text, rev text, cid text, is_live boolean not null, value jsonb, raw bytea,
  reason text, logged_at timestamptz not null);
create table if not exists followed_slots (
  slot text primary key, lsn pg_lsn not null, log_epoch int);
"""
STORE = """
insert into followed_changes values (
  %(change_id)s, %(position)s, %(kind)s, %(did)s, %(collection)s, %(rkey)s, %(rev)s, %(cid)s,
  %(is_live)s, %(value)s, %(raw)s, %(reason)s, %(logged_at)s)
"""
ADVANCE = """
update followed_slots set lsn = %(lsn)s, log_epoch = %(epoch)s
 where slot = %(slot)s and coalesce(log_epoch, %(epoch)s) = %(epoch)s
"""
# The stream may bring a transaction a moment before other sessions see it: wait until they do.
EPOCH = """
select log_epoch from sync_priv.log_state
 where log_floor >= %(id)s or exists (select from sync.changes where change_id >= %(id)s)
"""
# What an id stands for never changes: an account that is no longer tracked keeps its row.
DIDS = "select repo_id::text, did from sync.repos where repo_id = any (%s::bigint[])"
NSIDS = (
    "select collection_id::text, nsid from sync.collections where collection_id = any (%s::int[])"
)


class Stream:
    """What the slot sends of the publication `sync_changes`, and how much of it is safe."""

    def __init__(self, conn: psycopg.Connection, lsn: str) -> None:
        start = "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {})"
        names = sql.Identifier(SLOT), sql.SQL(lsn), sql.Literal("sync_changes")
        conn.execute(sql.SQL(start).format(*names))
        self._pgconn = conn.pgconn
        self._safe = 0

    def payloads(self) -> Iterator[tuple[bytes, int]]:
        """Yield each payload, and when no more has come an empty one with the place reached."""
        reached = 0
        while True:
            size, view = self._pgconn.get_copy_data(1)
            data = bytes(view)
            if size < 0:
                raise psycopg.OperationalError("the server ended the stream")
            if size == 0:
                yield b"", reached
                select.select([self._pgconn.socket], [], [])
                self._pgconn.consume_input()
            elif data[:1] == b"w":
                yield data[25:], 0
            else:
                reached, _, must_reply = struct.unpack_from("!QQ?", data, 1)
                if must_reply:
                    self.confirm(self._safe)

    def confirm(self, lsn: int) -> None:
        """Let the server forget the WAL before a place."""
        self._safe = max(self._safe, lsn)
        self._pgconn.put_copy_data(struct.pack("!cQQQQ?", b"r", *[self._safe] * 3, 0, False))
        while self._pgconn.flush():
            select.select([], [self._pgconn.socket], [])


class Copy:
    """The other database, and a session in the app's that says what ids stand for."""

    def __init__(self, source: psycopg.Connection, target: psycopg.Connection) -> None:
        self._source, self._target = source, target
        self._rows: list[Row] = []
        self._epoch = 0
        self._uncommitted = 0

    @property
    def is_large(self) -> bool:
        """Tell whether it is time to commit, though more has come already."""
        return self._uncommitted >= BATCH_ROWS

    def start(self, replication: psycopg.Connection) -> str:
        """Return the place to go on from; on the first run make the tables and the slot."""
        self._target.execute(TABLES)
        query = "select lsn::text from followed_slots where slot = %s"
        places = self._target.execute(query, [SLOT]).fetchall()
        if not places:
            create = sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT 'nothing')")
            [(_, lsn, *_)] = replication.execute(create.format(sql.Identifier(SLOT))).fetchall()
            self._target.execute("insert into followed_slots values (%s, %s)", [SLOT, lsn])
            places = [(lsn,)]
        self._target.commit()
        return str(places[0][0])

    def add(self, row: Row) -> None:
        """Take a change; a transaction may have more of them than fit into memory."""
        self._rows.append(row)
        self._uncommitted += 1
        if len(self._rows) >= BATCH_ROWS:
            self._write()

    def commit(self, lsn: int) -> None:
        """Make everything durable, together with the place that it reaches."""
        if self._uncommitted == 0:
            return
        self._write()
        place = {"lsn": f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}", "epoch": self._epoch, "slot": SLOT}
        if self._target.execute(ADVANCE, place).rowcount == 0:
            sys.exit(
                f"The log has begun epoch {self._epoch}: the end of what was copied before may be "
                "lost there. Drop the tables and the slot, and start over."
            )
        self._target.commit()
        self._uncommitted = 0

    def _write(self) -> None:
        if not self._rows:
            return
        latest = {"id": self._rows[-1]["change_id"]}
        while (epoch := self._source.execute(EPOCH, latest).fetchone()) is None:
            time.sleep(0.01)
        self._epoch = epoch[0]
        dids = self._look_up(DIDS, "repo_id")
        nsids = self._look_up(NSIDS, "collection_id")
        with self._target.cursor() as cursor:
            cursor.executemany(STORE, [self._named(row, dids, nsids) for row in self._rows])
        self._rows.clear()

    def _look_up(self, query: str, column: str) -> dict[Any, str]:
        ids = {row[column] for row in self._rows} - {None}
        return dict(self._source.execute(query.encode(), [list(ids)]).fetchall())

    def _named(self, row: Row, dids: dict[Any, str], nsids: dict[Any, str]) -> dict[str, Any]:
        position = f"{self._epoch}.{row['change_id']}"
        did, nsid = dids.get(row["repo_id"]), nsids.get(row["collection_id"])
        cid = cid_text(row["cid"]) if isinstance(row["cid"], str) else None
        return {**row, "position": position, "did": did, "collection": nsid, "cid": cid}


def cid_text(cid: str) -> str:
    """Write a CID as text: its bytes in base32, small and unpadded, after a `b`."""
    return "b" + base64.b32encode(bytes.fromhex(cid.removeprefix(r"\x"))).decode().lower().rstrip(
        "="
    )


def follow(source_url: str, target_url: str) -> None:
    """Copy until something breaks."""
    with (
        psycopg.connect(source_url, replication="database", autocommit=True) as replication,
        psycopg.connect(source_url, autocommit=True) as source,
        # What is confirmed is forgotten over there, so it has to be on disk here.
        psycopg.connect(target_url, options="-c synchronous_commit=on") as target,
    ):
        copy, decoder = Copy(source, target), Decoder()
        stream = Stream(replication, copy.start(replication))
        end_lsn, is_open = 0, False
        for payload, reached in stream.payloads():
            match decoder.decode(payload):
                case Begin():
                    is_open = True
                case Change(row=row):
                    copy.add(row)
                case Commit(end_lsn=end_lsn):
                    is_open = False
            if not is_open and (copy.is_large or not payload):
                copy.commit(end_lsn)
                stream.confirm(max(end_lsn, reached))


def main() -> None:
    """Follow for ever; a lost connection, to either side, is made again."""
    while True:
        try:
            follow(*sys.argv[1:3])
        except psycopg.OperationalError as error:
            print(error, file=sys.stderr)
            time.sleep(RETRY_S)


if __name__ == "__main__":
    main()
