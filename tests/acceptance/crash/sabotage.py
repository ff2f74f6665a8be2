"""Functions of the database that fail once, and which of them the service calls.

A function gets one more statement, which raises an error in a session of the service while somebody
holds a certain lock, and ends him first: so it fails once, in whatever transaction, also one that
may only read.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from sync.database import IngestConnection, connect

ENTRIES = ("sync.apply_events", "sync.diff_repos", "sync.reconcile_repos")

_SETUP = r"""
    create schema crash;
    grant usage on schema crash to public;
    create function crash.fail(p_sqlstate text, p_within boolean) returns void
      language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    declare
      v_context text;
      v_holder  int;
    begin
      select l.pid into v_holder
        from pg_locks l
       where l.locktype = 'advisory' and l.granted
         and (l.classid, l.objid, l.objsubid) = (7799, 1, 2);
      if v_holder is null or current_setting('application_name') not like 'standpipe %' then
        return;
      end if;
      get diagnostics v_context = pg_context;
      if p_within and v_context !~ 'sync\.(apply_events|diff_repos|reconcile_repos)\(' then
        return;
      end if;
      if pg_try_advisory_xact_lock(7799, 2) and pg_terminate_backend(v_holder, 5000) then
        raise exception 'injected' using errcode = p_sqlstate;
      end if;
    end $$
"""
_HOLD = "select pg_advisory_lock(7799, 1)"
_CALLS = """
    select funcid, schemaname || '.' || funcname as name, calls
      from pg_stat_user_functions where schemaname in ('sync', 'sync_priv')
"""
_DEFINITION = """
    select pg_get_functiondef(p.oid) as definition, p.prosrc, l.lanname
      from pg_proc p join pg_language l on l.oid = p.prolang where p.oid = $1
"""
_SOURCES = """
    select p.oid, p.pronamespace::regnamespace || '.' || p.proname as name, p.prosrc
      from pg_proc p where p.pronamespace in ('sync'::regnamespace, 'sync_priv'::regnamespace)
"""
_BEGIN = re.compile(r"^begin$", re.MULTILINE)
_SAID = re.compile(r"--.*|'[^']*'")  # comments, and hints to users
_CALLED = re.compile(r"\bsync(?:_priv)?\.[a-z_0-9]+(?=\()")


class Function(NamedTuple):
    """A function of ours in the database."""

    oid: int
    name: str


class Saboteur:
    """Makes functions fail."""

    def __init__(self, url: str, conn: IngestConnection) -> None:
        self._url = url
        self._conn = conn

    async def prepare(self) -> None:
        """Make what the functions will call; as the login that may end its own sessions."""
        await self._conn.execute(_SETUP)

    async def calls(self) -> dict[Function, int]:
        """Return how often each function was called so far, as far as sessions have told."""
        rows = await self._conn.fetch(_CALLS)
        return {Function(row["funcid"], row["name"]): row["calls"] for row in rows}

    async def reachable(self) -> set[str]:
        """Return the functions that apply_events() and the reconcile call, and those call."""
        sources: dict[str, str] = {}
        for row in await self._conn.fetch(_SOURCES):
            sources[row["name"]] = sources.get(row["name"], "") + row["prosrc"]
        found, waiting = set[str](), list(ENTRIES)
        while waiting:
            name = waiting.pop()
            if name in sources and name not in found:
                found.add(name)
                waiting += _CALLED.findall(_SAID.sub("", sources[name]))
        return found

    @asynccontextmanager
    async def failing(
        self, function: Function, sqlstate: str, *, within: bool
    ) -> AsyncIterator[IngestConnection]:
        """Have a function fail once; the connection is closed when it has."""
        row = await self._conn.fetchrow(_DEFINITION, function.oid)
        assert row is not None
        call = f"crash.fail('{sqlstate}', {within})"
        if row["lanname"] == "plpgsql":
            body = _BEGIN.sub(f"begin\n  perform {call};", row["prosrc"], count=1)
        else:
            body = f"\nselect {call};\n{row['prosrc']}"
        assert body != row["prosrc"], function.name
        holder = await connect(self._url, name="kill test holder")
        try:
            await holder.execute(_HOLD)
            await self._define(row["definition"].replace(row["prosrc"], body))
            yield holder
        finally:
            holder.terminate()
            await self._define(row["definition"])

    async def _define(self, definition: str) -> None:
        await self._conn.execute(f"set role sync_owner; {definition}; reset role")
