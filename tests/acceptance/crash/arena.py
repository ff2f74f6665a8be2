"""Where everything is killed: a server of its own, a proxy before it, a network, a service.

`strike` kills somebody at a point, `recover` waits until everything is right again.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sync.database import IngestConnection, connect
from sync.embedded import EmbeddedPostgres
from sync.indexes import build_indexes
from sync.schema import upgrade
from tests.acceptance.crash import keeping, searching
from tests.acceptance.crash.gate import BEFORE, Gate, Place, Visit
from tests.acceptance.crash.lab import CONVERGE_TIMEOUT_S, HEADS, LANE, POLL_S, SESSIONS, STATES
from tests.acceptance.crash.life import PDS_COUNT, LivelyLab
from tests.acceptance.crash.network import WatchedSimnet
from tests.acceptance.crash.pgproxy import PgProxy, part_of
from tests.acceptance.crash.processes import children_of, is_alive, owner_of
from tests.embedders import fake_embedder
from tests.postgres import FAST, chosen_binaries

SERVICE, LANE_PROCESS, BACKEND, POSTMASTER, READER = (
    "service",
    "lane",
    "backend",
    "postmaster",
    "reader",
)
VICTIMS = (SERVICE, LANE_PROCESS, BACKEND, POSTMASTER, READER)
TIME_PASSES_S = 1.0
READER_TIMEOUT_S = 10.0
HELD_TIMEOUT_S = 15.0
DATABASE_CODE = 3  # the exit code of a service that could not begin to work

STATUSES = "select did, is_active, account_status from sync.repos where tracked_by is not null"
IDENTITIES = """
    select did, handle, pds_url, signing_key from sync.repos where tracked_by is not null
"""
AT_REST = """
    select (select count(*) from sync.repos where sync_state = 'fetching') as fetching,
           (select count(*) from sync.repos where is_identity_stale and tracked_by is not null)
             as stale_identities,
           (select string_agg(concat_ws(' ', h.kind, r.did, r.sync_state, r.is_active, h.is_due),
                              ', ')
              from sync_priv.held_events h join sync.repos r using (repo_id)) as held_events,
           (select count(*) from sync_priv.purges) as purges,
           (select count(*) from sync.fetch_queue) as queued,
           (select count(*) from sync_priv.pending_changes) as pending_changes,
           (select count(*) from sync_priv.log_markers) as log_markers,
           (select count(*) from sync.sources where gap_since is not null) as gaps
"""
# Nobody waits for hours here: what is put off until later is due now.
LET_TIME_PASS = """
    update sync.repos set next_fetch_at = now()
     where tracked_by is not null and next_fetch_at > now() and sync_state <> 'fetching';
    update sync.repos set identity_checked_at = null
     where is_identity_stale and identity_checked_at is not null;
    update sync.hosts set ready_at = '-infinity' where ready_at > now();
    update sync_priv.account_checks set changes = 0, hints = 0,
           ask_at = least(ask_at, now()), claimed_until = least(claimed_until, now())
     where changes > 0 or hints > 0 or ask_at > now() or claimed_until > now()
"""
HELD = (
    "select count(*) from sync_priv.held_events h join sync.repos r using (repo_id) where did = $1"
)
IS_FETCHING = "select sync_state = 'fetching' and is_active from sync.repos where did = $1"
BACKENDS = """
    select pid, application_name from pg_stat_activity
     where datname = current_database() and application_name like 'standpipe %' order by pid
"""
# Partitions of the log are made, closed, given up and dropped all the time.
SETUP = """
    set role sync_owner;
    create or replace function sync_priv.partition_size() returns bigint
      language sql immutable as $$ select 64::bigint $$;
    reset role;
    select sync.set_retention('0');
    select sync.create_consumer('kill')
"""
REASONS = "select distinct reason from sync.problems order by 1"


class Arena(LivelyLab):
    """A lively lab that is watched by a gate, and whose every part can be killed."""

    def __init__(
        self,
        net: WatchedSimnet,
        server: EmbeddedPostgres,
        url: str,
        conns: tuple[IngestConnection, IngestConnection],
        folder: Path,
        seed: int,
    ) -> None:
        super().__init__(net, url, conns[0], folder, seed)
        self.gate = net.gate
        self.killer = conns[1]  # never waits for a lock
        self.held_at_kills = 0
        self.has_search = False
        self._server = server
        self._orphans: list[int] = []
        self._is_young = True  # it may still find that it cannot begin to work
        self._said = 0
        self._launches = 0

    # The service --------------------------------------------------------------------------------

    async def launch(self, *arguments: str, **settings: str) -> None:
        self._is_young = True
        self._said = self._log.stat().st_size if self._log.exists() else 0
        self._launches += 1
        # Named on the command line every other time, else as the database knows it.
        source = ("--source", self.net.relay_http_url) if self._launches % 2 else ()
        await super().launch(*arguments, *source, STANDPIPE_LANES="2", **settings)

    async def keep_running(self) -> None:
        """Start the service again if it was killed, or could not begin: with one sentence then."""
        if self._process is not None and self._process.returncode is not None:
            said = self._log.read_bytes()[self._said :].decode(errors="replace")
            assert self._is_young, f"the service ended by itself:\n{said[-6000:]}"
            assert self._process.returncode == DATABASE_CODE, said[-6000:]
            assert "Traceback" not in said, said[-6000:]
            assert said.splitlines()[-1].startswith("Error: "), said[-6000:]
            self._process = None
        if self._process is None:
            await self.launch()

    async def works(self) -> bool:
        """Tell whether the service has started, which on a busy machine takes long."""
        return await self.killer.fetchval(LANE) is not None

    # Kills --------------------------------------------------------------------------------------

    async def strike(self, victim: str, visit: Visit | None, place: Place | None) -> bool:
        """Kill somebody; tells whether what waits at the place is to be passed on."""
        did = None if place is None else place.did
        if visit is not None and visit.moment == BEFORE and did is not None:
            await self._hold_commits(did)
        strikes: dict[str, Callable[[Place | None], Awaitable[tuple[str, bool]]]] = {
            SERVICE: self._kill_service,
            LANE_PROCESS: self._kill_lane,
            BACKEND: self._end_backend,
            POSTMASTER: self._kill_postmaster,
            READER: self._cut_firehose,
        }
        kind, passes = await strikes[victim](place)
        self.kills.note(kind, "any moment" if visit is None else str(visit))
        return passes

    async def _hold_commits(self, did: str) -> None:
        """Write to a repo that is being fetched, until its commits are held."""
        account = self.net.world.accounts[did]
        if account.did not in account.host.accounts or account.hosted.status is not None:
            return
        if not await self.killer.fetchval(IS_FETCHING, did):
            return
        self.say(account)
        deadline = time.monotonic() + HELD_TIMEOUT_S
        while time.monotonic() < deadline:
            if await self.killer.fetchval(HELD, did):
                self.held_at_kills += 1
                return
            await asyncio.sleep(POLL_S)

    async def _kill_service(self, _place: Place | None) -> tuple[str, bool]:
        """Kill the parent; its lanes have to end by themselves."""
        assert self._process is not None
        lanes = children_of(self._process.pid)
        self._process.kill()
        code = await self._process.wait()
        assert code in {-signal.SIGKILL, DATABASE_CODE}, self.service_log()
        self._process = None
        self._orphans = lanes
        return SERVICE, False

    async def _kill_lane(self, place: Place | None) -> tuple[str, bool]:
        """Kill the lane that is at the place, else any."""
        assert self._process is not None
        lanes = children_of(self._process.pid)
        port = None if place is None else place.client_port
        owner = None if port is None else owner_of(port, lanes)
        if owner is None and not lanes:
            return await self._kill_service(place)  # it has none yet
        os.kill(owner or self.rng.choice(lanes), signal.SIGKILL)
        return LANE_PROCESS, owner is None

    async def _end_backend(self, place: Place | None) -> tuple[str, bool]:
        """End the session at the place, else any of the service."""
        rows = {row["pid"]: row["application_name"] for row in await self.killer.fetch(BACKENDS)}
        pid = None if place is None else place.backend_pid
        is_here = pid in rows
        if not is_here:
            if not rows:
                return await self._kill_service(place)
            pid = self.rng.choice(list(rows))
        await self.killer.fetchval("select pg_terminate_backend($1, 10000)", pid)
        return f"backend of {part_of(rows[pid or 0])}", not is_here

    async def _kill_postmaster(self, _place: Place | None) -> tuple[str, bool]:
        """Kill the server, and start it again."""
        pid = self._server.postmaster_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(self._server.revive)
        self.killer = await self.reconnected(self.killer)
        return POSTMASTER, False

    async def _cut_firehose(self, place: Place | None) -> tuple[str, bool]:
        """Abort the connection to the relay."""
        deadline = time.monotonic() + READER_TIMEOUT_S
        while not self.net.cut_firehose():
            if time.monotonic() > deadline:
                return await self._kill_service(place)  # it does not read yet
            await asyncio.sleep(POLL_S)
        return READER, True

    # What has to be right again -----------------------------------------------------------------

    @property
    def is_dead(self) -> bool:
        """Tell whether the service was killed and is not started again yet."""
        return self._process is None

    async def look_at_ruins(self) -> None:
        """See that nobody of a dead service lives on, and that all transactions are whole."""
        if not self.is_dead:
            return
        orphans, self._orphans = self._orphans, []
        deadline = time.monotonic() + CONVERGE_TIMEOUT_S
        while any(map(is_alive, orphans)) or await self.killer.fetchval(SESSIONS):
            assert time.monotonic() < deadline, f"what was killed lives on: {orphans}"
            await asyncio.sleep(POLL_S)
        await self.read_on()
        assert self.fold.complaints == []
        assert self.fold.records == await self.stored()
        await keeping.run_to_rest(self.conn)
        assert await keeping.kept(self.conn) == self.fold.records
        await self._look_at_search()

    async def recover(self) -> None:
        """Wait until everything is as on the network; then compare all there is."""
        await self.settle()
        assert await self.stored() == self.signed()
        await self.read_on()
        assert self.fold.complaints == []
        assert self.fold.records == self.signed()
        assert self.told_twice() == []
        await keeping.run_to_rest(self.conn)
        assert await keeping.kept(self.conn) == self.signed()
        await self._look_at_search()

    async def wait_for_embeddings(self) -> None:
        """Wait until every text has its embedding; no kill waits for that."""
        if self.has_search:
            await searching.wait_for_embeddings(self.conn)
            await self._look_at_search()

    async def _look_at_search(self) -> None:
        """See that the texts are those of the records, and no embedding is another's."""
        if self.has_search:
            await keeping.run_to_rest(self.conn, searching.PROJECTION)
            assert await searching.found(self.conn) == await searching.expected(self.conn)

    async def settle(self) -> None:
        """Start what has to be started, and wait until the tables are right and at rest."""
        deadline, passed_at = time.monotonic() + CONVERGE_TIMEOUT_S, time.monotonic()
        while differences := await self.differences():
            await self.keep_running()
            if time.monotonic() > deadline:
                log = self.service_log()
                pytest.fail(f"did not converge: {'; '.join(differences)}\n{log}")
            if time.monotonic() - passed_at > TIME_PASSES_S:
                passed_at = time.monotonic()
                await self.killer.execute(LET_TIME_PASS)
            await asyncio.sleep(3 * POLL_S)
        self._is_young = False

    async def differences(self) -> list[str]:
        """Return in what the database differs from the network, and what is not at rest."""
        found = []
        revs = {one.did: one.rev for one in self.accounts if one.hosted.status is None}
        heads = {row[0]: row[1] for row in await self.conn.fetch(HEADS)}
        states = {row[0]: tuple(row)[1:] for row in await self.conn.fetch(STATES)}
        found += [
            f"{did} is at {heads.get(did)} instead of {revs.get(did)}: {states.get(did)}"
            for did in revs.keys() | heads.keys()
            if heads.get(did) != revs.get(did)
        ]
        hosted = {one.did: one.hosted.status for one in self.accounts}
        statuses = {row[0]: tuple(row)[1:] for row in await self.conn.fetch(STATUSES)}
        found += [
            f"{did} is {statuses.get(did)} instead of {status}"
            for did, status in hosted.items()
            if statuses.get(did) != (status is None, status)
        ]
        identities = {row[0]: tuple(row)[1:] for row in await self.conn.fetch(IDENTITIES)}
        directory = self.net.world.directory.identities
        for one in self.accounts:
            known = directory[one.did]
            wanted = (known.handle, known.pds_url, known.key.did_key)
            if identities.get(one.did) != wanted:
                found.append(f"{one.did}: {identities.get(one.did)} instead of {wanted}")
        row = await self.conn.fetchrow(AT_REST)
        assert row is not None
        found += [f"{name}: {count}" for name, count in row.items() if count]
        if await self.conn.fetchval(LANE) is None:
            found.append("no lane")
        return found

    def signed(self) -> dict[tuple[str, str, str], str]:
        active = {one.did for one in self.accounts if one.hosted.status is None}
        return {key: cid for key, cid in super().signed().items() if key[0] in active}


@asynccontextmanager
async def arena(folder: Path, seed: int, **settings: str) -> AsyncIterator[Arena]:
    """Run a server, a proxy and a network of this test's own; the service is not started yet."""
    # What was committed must outlive a kill; only power failures are none of this test's business.
    options = {**FAST, "synchronous_commit": "on", "track_functions": "all", **settings}
    server = EmbeddedPostgres(folder / "pg", binaries=chosen_binaries(), settings=options)
    gate = Gate()
    with server as url:
        await asyncio.to_thread(upgrade, url)
        parts = urlsplit(url)
        conns = (await connect(url, name="kill test"), await connect(url, name="kill test"))
        async with (
            PgProxy(parts.hostname or "", parts.port or 0, gate) as proxy,
            WatchedSimnet(gate, seed=seed, pds_count=PDS_COUNT) as net,
            fake_embedder() as embedder,
        ):
            lab = Arena(net, server, url, conns, folder, seed)
            lab.service_url = url.replace(f":{parts.port}/", f":{proxy.port}/")
            await lab.conn.execute(SETUP)
            await lab.conn.execute(keeping.SETUP)
            lab.has_search = await lab.conn.fetchval(searching.CAN_SEARCH)
            if lab.has_search:
                await searching.enable(lab.conn, embedder.url)
                await build_indexes(url)  # happens once: nobody could wait for it again
            dids = [account.did for account in lab.accounts]
            await lab.conn.execute("select sync.track_repos($1)", dids)
            try:
                yield lab
            finally:
                gate.clear()
                await lab.close()
                lab.conn.terminate()
                lab.killer.terminate()
