"""A database that a machine may use again and again: small sizes, faults on demand, a fast reset.

Whatever is bounded by thousands in production is bounded by a few rows here, so that batches,
chunks and partitions end in the middle of things.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.rows import DictRow, dict_row

from sync.database import connect_sync
from sync.schema import sql_folder
from tests.postgres import TEMPLATE, Server
from tests.sql.waiting import wait_until_gone

Session = psycopg.Connection[DictRow]


@dataclass(frozen=True, slots=True)
class Patch:
    """A piece of an SQL file to replace, wherever it occurs there."""

    file: str
    old: str
    new: str


SMALL = (
    Patch("20_log/close_partition.sql", "interval '1 hour'", "interval '1 second'"),
    Patch("10_helpers/partition_size.sql", "8388608", "24"),
    Patch("70_upkeep/purge_chunk.sql", "int := 5000", "int := 3"),
    Patch("70_upkeep/purge_chunk.sql", "limit 1000", "limit 2"),
    Patch("80_consumers/batch_end.sql", "greatest(v_rows, 1000)", "least(v_rows, 6)"),
    Patch("80_consumers/walk_rows.sql", "greatest(p_room / 4, 100)", "greatest(p_room / 4, 2)"),
    Patch("80_consumers/walk_steps.sql", "greatest(p_room / 4, 100)", "greatest(p_room / 4, 2)"),
    Patch("80_consumers/read_shard.sql", "1 .. 10 loop", "1 .. 2 loop"),
)

# Constraints and triggers are off for the superuser who resets, so that anything may be emptied.
_KEEP = """
do $$
declare
  v_table text;
begin
  create schema kept;
  for v_table in
    select format('%I.%I', n.nspname, c.relname)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in ('sync', 'sync_priv') and c.relkind = 'r'
       and c.relname <> 'alembic_version'
  loop
    execute format('create table kept.%I as table %s', v_table, v_table);
  end loop;
end
$$
"""
_RESET = """
do $$
declare
  v_table text;
begin
  set local session_replication_role = 'replica';
  for v_table in
    select format('sync_priv.%I', c.relname) from pg_class c
     where c.relnamespace = 'sync_priv'::regnamespace and c.relkind = 'r'
       and c.relname ~ '^changes_[0-9]+$'
  loop
    execute 'drop table ' || v_table;
  end loop;
  execute 'truncate ' || (select string_agg(k.relname, ', ') from pg_class k
                           where k.relnamespace = 'kept'::regnamespace) || ' restart identity';
  for v_table in
    select k.relname from pg_class k where k.relnamespace = 'kept'::regnamespace
       and k.reltuples <> 0
  loop
    execute format('insert into %s overriding system value table kept.%I', v_table, v_table);
  end loop;
  perform setval('sync_priv.change_ids', 0), setval('sync_priv.tokens', 1, false);
end
$$
"""


class Scratch:
    """One database for many histories, one after the other."""

    def __init__(self, admin: Session, url: str) -> None:
        self.admin = admin
        self.url = url

    def open(self) -> Session:
        """Open a session that fails instead of waiting for a lock."""
        conn = connect_sync(self.url, name="test machine", autocommit=True)
        conn.execute("set lock_timeout = '10ms'")
        return conn

    def kill(self, pid: int) -> None:
        """End a backend, and wait until it has let go of everything."""
        self.admin.execute("select pg_terminate_backend(%s)", [pid])
        wait_until_gone(self.admin, pid)

    def reset(self) -> None:
        """Make the database as it was at first; no transaction is open in it."""
        self.admin.execute(_RESET)


@contextmanager
def scratch_database(server: Server, faults: Sequence[Patch] = ()) -> Iterator[Scratch]:
    """Make a database with small sizes and the given faults."""
    with server.database(template=TEMPLATE) as name:
        url = server.service_url(name)
        with connect_sync(url, name="test machine", role="sync_owner", autocommit=True) as owner:
            for text in patched([*SMALL, *faults]):
                owner.execute(text.encode())
        admin_url = server.admin_url(name)
        with psycopg.connect(admin_url, autocommit=True, row_factory=dict_row) as admin:
            admin.execute(_KEEP)
            admin.execute("analyze")
            yield Scratch(admin, url)


def patched(patches: Sequence[Patch]) -> list[str]:
    """Return the texts of the files that are concerned, with every patch applied."""
    texts: dict[str, str] = {}
    for patch in patches:
        text = texts.get(patch.file) or (sql_folder() / patch.file).read_text(encoding="utf-8")
        assert patch.old in text, f"{patch.file} does not contain {patch.old!r} any more"
        texts[patch.file] = text.replace(patch.old, patch.new)
    return list(texts.values())
