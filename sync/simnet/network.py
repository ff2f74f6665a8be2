"""Run a World on loopback: PLC directory, PDSes, relay and a control port, in this event loop."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

from sync.simnet.account import Account
from sync.simnet.clock import DEFAULT_START_US
from sync.simnet.control import Control
from sync.simnet.directory import KeyForm
from sync.simnet.faults import Fault, Faults, Hold
from sync.simnet.listener import Listener
from sync.simnet.pds import Pds
from sync.simnet.plc import Plc
from sync.simnet.relay import Relay
from sync.simnet.repo import RecordSource
from sync.simnet.traffic import Traffic
from sync.simnet.world import World


class Simnet:
    """An honest atproto network to talk to, and the script of what happens on it.

    `port` 0 takes free ports; any other number is the first of 3 + pds_count in a row: PLC,
    relay, control, PDSes. The same seed and the same calls give the same bytes, unless
    `start_us` is None: then revs follow the wall clock.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        pds_count: int = 1,
        port: int = 0,
        start_us: int | None = DEFAULT_START_US,
        key_form: KeyForm = "multikey",
    ) -> None:
        self.world = World(seed=seed, pds_count=pds_count, start_us=start_us, key_form=key_form)
        self.faults = Faults()
        self._first_port = port
        self._traffic_runs = 0
        self._listeners: dict[str, Listener] = {}

    async def __aenter__(self) -> Self:
        """Start every server, or none."""
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop every server."""
        await self.stop()

    async def stop(self) -> None:
        """Let go of held requests and stop every server."""
        self.faults.clear()
        await asyncio.gather(*(listener.stop() for listener in self._listeners.values()))

    async def start(self) -> None:
        """Take the ports, tell the hosts their URLs, and listen."""
        builders = {
            "plc": Plc(self.world.directory, self.faults).build,
            "relay": Relay(self.world, self.faults).build,
            "control": Control(self).build,
        }
        for host in self.world.hosts:
            builders[f"pds{host.index}"] = Pds(self.world, host, self.faults).build
        for place, (name, build) in enumerate(builders.items()):
            port = self._first_port + place if self._first_port else 0
            self._listeners[name] = Listener(build, port=port)
        for host in self.world.hosts:
            host.url = self._listeners[f"pds{host.index}"].url
        for listener in self._listeners.values():
            await listener.start()

    @property
    def plc_url(self) -> str:
        """Return the PLC directory's URL."""
        return self._listeners["plc"].url

    @property
    def relay_http_url(self) -> str:
        """Return the relay's URL for requests."""
        return self._listeners["relay"].url

    @property
    def relay_url(self) -> str:
        """Return the relay's URL for subscriptions."""
        return self.relay_http_url.replace("http://", "ws://")

    @property
    def pds_urls(self) -> list[str]:
        """Return the PDSes' URLs."""
        return [host.url for host in self.world.hosts]

    @property
    def control_url(self) -> str:
        """Return the URL that takes commands from another process."""
        return f"{self._listeners['control'].url}/control"

    def create_account(
        self,
        handle: str | None = None,
        *,
        curve: str = "k256",
        pds: int = 0,
        records: Mapping[str, RecordSource] | None = None,
        method: Literal["plc", "web"] = "plc",
    ) -> Account:
        """Make an account; with records it starts as an import."""
        return self.world.create_account(
            handle, curve=curve, pds=pds, records=records, method=method
        )

    def drop_next(self, count: int) -> None:
        """Lose the next events of every stream."""
        self.world.drop_next(count)

    def forget_history(self, *, before: int | None = None) -> None:
        """Cut the relay's replay window at seq `before`; None empties every window."""
        if before is None:
            self.world.forget_history()
        else:
            self.world.relay.forget(before)

    def kick_consumers(self) -> None:
        """Have every stream tell its listeners that they are too slow, and hang up."""
        for stream in self.world.streams:
            stream.kick()

    def hold_get_repo(self, did: str | None = None) -> Hold:
        """Hold the next getRepo after it has read the repo, so that a test can commit meanwhile."""
        return self.faults.hold(did)

    def serve_stale_export(
        self, did: str | None = None, *, commits_behind: int = 1, times: int = 1
    ) -> None:
        """Answer the next getRepo with an older state, as a lagging cache does."""
        self.fail_next("sync.getRepo", did=did, commits_behind=commits_behind, times=times)

    def fail_next(
        self,
        method: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        delay_s: float = 0.0,
        cut_after_bytes: int | None = None,
        commits_behind: int = 0,
        pds: int | None = None,
        did: str | None = None,
        times: int = 1,
    ) -> None:
        """Script trouble for the next requests of a method: `sync.getRepo`, or a DID at the PLC."""
        self.faults.add(
            Fault(
                method,
                status=status,
                headers=headers or {},
                delay_s=delay_s,
                cut_after_bytes=cut_after_bytes,
                commits_behind=commits_behind,
                pds=pds,
                did=did,
                times=times,
            )
        )

    async def stop_server(self, name: str) -> None:
        """Cut a server off as a crash would: `plc`, `relay` or `pds0` and so on."""
        await self._listeners[name].stop(keeps_port=True)

    async def start_server(self, name: str) -> None:
        """Start a stopped server again on its port; sequence numbers go on."""
        await self._listeners[name].start()

    async def restart_relay(self) -> None:
        """Cut every subscription of the relay and listen again."""
        await self.stop_server("relay")
        await self.start_server("relay")

    async def run_traffic(self, commits_per_s: float, seconds: float) -> int:
        """Make random commits at a rate; returns how many. Each run makes others."""
        traffic = Traffic(self.world, seed=self._traffic_runs)
        self._traffic_runs += 1
        loop = asyncio.get_running_loop()
        start = loop.time()
        count = round(commits_per_s * seconds)
        for number in range(count):
            await asyncio.sleep(max(0.0, start + number / commits_per_s - loop.time()))
            traffic.step()
        return count

    def describe(self) -> dict[str, Any]:
        """Return URLs and accounts as one JSON object."""
        return {
            "seed": self.world.seed,
            "plc": self.plc_url,
            "relay": self.relay_url,
            "relay_http": self.relay_http_url,
            "control": self.control_url,
            "pds": self.pds_urls,
            "accounts": [describe_account(account) for account in self.world.accounts.values()],
        }


def describe_account(account: Account) -> dict[str, Any]:
    """Return who an account is and where."""
    identity = account.world.directory.identities[account.did]
    return {
        "did": account.did,
        "handle": account.handle,
        "pds": account.host.index,
        "signing_key": identity.key.did_key,
    }
