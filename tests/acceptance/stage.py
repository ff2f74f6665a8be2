"""Where situations are played: one network, and two services that read it in different ways."""

import dataclasses
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.acceptance.real_service import Service
from tests.network import deeds
from tests.network.content import NOTE, POST, note, post
from tests.network.harness import Account, Network, create_write
from tests.network.script import Watch
from tests.network.situations import DAY_MS
from tests.network.wires import Wires

TIMEOUT_S = 60.0
POLL_S = 0.05
# A host whose replay window is empty may not tell the first event after a reconnect.
MARK_TIMEOUT_S = 3.0
FUTURE = 1_000_000


@dataclass
class RealStage:
    """Plays situations; `looks` is whether what is seen on the way matters."""

    network: Network
    wires: Wires
    services: tuple[Service, ...]
    looks: bool = False
    watch: Watch = field(default_factory=lambda: Watch(frozenset()))
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def playing(self, watch: Watch) -> "RealStage":
        """Return the same stage for one play; it looks when nothing goes wrong."""
        looks = watch.fault is None
        return dataclasses.replace(self, looks=looks, watch=watch)

    def new_name(self) -> str:
        return f"s{next(self.numbers):05}"

    def prepare(self, count: int) -> list[Account]:
        """Make accounts with some records, tracked and synchronized everywhere."""
        accounts = [
            deeds.create_account(self.network, 0, name=self.new_name()) for _ in range(count)
        ]
        for account in accounts:
            writes = [create_write(NOTE, f"base-{n}", note(f"base {n}")) for n in range(3)]
            writes.append(create_write(POST, "3jzfcijpj2z2a", post("base")))
            other = note("nobody asked", collection="org.example.other")
            writes.append(create_write("org.example.other", "base", other))
            self.network.apply_writes(account, writes)
        self.track(accounts)
        self.settle()
        for service in self.services:
            service.wait_until_fetched([account.did for account in accounts])
        return accounts

    def track(self, accounts: list[Account]) -> None:
        """Have every service track some accounts."""
        for service in self.services:
            dids = [account.did for account in accounts]
            service.rows("select sync.track_repos(%s::text[])", dids)

    def create_account(self) -> Account:
        self.wires.do(self.wires.relay.hold)
        try:
            account = deeds.create_account(self.network, 0, name=self.new_name())
            self.watch.dids |= {account.did}
            self.track([account])
            for service in self.services:
                service.wait_until_fetched([account.did])
        finally:
            self.wires.do(self.wires.relay.go_on)
        return account

    def look(self, account: Account, *, status: str | None) -> None:
        if not self.looks:
            return
        wanted = (status is None, status)
        query = "select is_visible, account_status from sync.repo_status where did = %s"
        for service in self.services:
            self._wait_for_rows(service, query, account, [wanted])
            count = len(service.records(account.did))
            assert (count > 0) == (status is None), f"{status}: {count} records are shown"

    def look_for_problem(self, account: Account, reason: str) -> None:
        if not self.looks:
            return
        query = f"select 1 from sync.problems where did = %s and reason = '{reason}'"
        for service in self.services:
            self._wait_for_rows(service, query, account, [(1,)])

    def look_for_key(self, account: Account, key: str) -> None:
        if not self.looks:
            return
        query = "select signing_key from sync.repos where did = %s"
        for service in self.services:
            self._wait_for_rows(service, query, account, [(key,)])

    def pause(self) -> None:
        if self.looks:
            self.settle()

    def wait_for_comparison(self, account: Account) -> None:
        state = "select sync_state from sync.repo_status where did = %s"
        self.wait_for_gaps()
        for service in self.services:
            self._wait_for_rows(service, state, account, [("synchronized",)])

    def wait_for_gaps(self) -> None:
        """Wait until no service compares anything any more."""
        gaps = "select from sync.source_status where gap_since is not null"
        self.wait(lambda: not any(service.rows(gaps) for service in self.services))

    def stop_services(self) -> None:
        for service in self.services:
            service.ask_to_stop()
        for service in self.services:
            service.wait_for_end()

    def start_services(self) -> None:
        for service in self.services:
            service.start()
        self.wait_for_subscribers()

    def forget_replay(self) -> None:
        for number in range(len(self.network.pds)):
            seq = self.network.control("told", pds=number)
            self._wait_for_relay(number, seq)
            self.network.control("backfill", pds=number, ms=1)
        self.wires.do(self.wires.relay.stream.forget)
        for service in self.services:
            service.forget_lookups()

    def keep_replay(self) -> None:
        for number in range(len(self.network.pds)):
            self.network.control("backfill", pds=number, ms=DAY_MS)

    def start_services_in_future(self) -> None:
        for service in self.services:
            service.database.execute("update sync.cursors set seq = seq + %s", [FUTURE])
            service.start()
        for service in self.services:
            self._rewind_when_stopped(service)
        self.wait_for_subscribers()

    def stall(self) -> None:
        for door in self.wires.doors:
            self.wires.do(door.stall)

    def go_on(self) -> None:
        for door in self.wires.doors:
            self.wires.do(door.go_on)
        self.wires.do(self.wires.relay.stream.kick)

    def settle(self) -> None:
        for number in range(len(self.network.pds)):
            self._mark(number)
        wires = self.wires
        for service in self.services:
            if service.kind == "relay":
                wanted = {service.sources[0]: wires.relay.stream.last_seq}
            else:
                wanted = {
                    url: door.sent for url, door in zip(service.sources, wires.doors, strict=True)
                }
            self._wait_for_cursors(service, wanted)

    def _mark(self, number: int) -> None:
        """Have a host tell something of a bystander, and wait until it has come through."""
        bystander = next(one for one in self.network.accounts if one.pds == number)
        door = self.wires.doors[number]
        until = time.monotonic() + TIMEOUT_S
        while time.monotonic() < until:
            self.network.control("emit", pds=number, did=bystander.did, kind="identity")
            seq = self.network.control("told", pds=number)
            again_at = time.monotonic() + MARK_TIMEOUT_S
            while time.monotonic() < again_at:
                if self.wires.script.judged(number) >= seq and door.passed >= seq:
                    return
                time.sleep(POLL_S)
        judged = self.wires.script.judged(number)
        raise AssertionError(
            f"host {number} does not come through: {seq} told, {judged} judged, {door.passed}"
            f" passed on to {door.subscribers} subscribers"
        )

    def _rewind_when_stopped(self, service: Service) -> None:
        going = "select url from sync.source_status where error like 'FutureCursor%%' is not true"
        self.wait(lambda: not service.rows(going), lambda: service.rows(going))
        for (url,) in service.rows("select url from sync.source_status"):
            service.rows("select sync.rewind_source(%s, 0)", url)
            service.rows("select sync.add_source(%s, %s)", url, service.kind)

    def _wait_for_relay(self, number: int, seq: int) -> None:
        self.wait(lambda: self.wires.script.judged(number) >= seq)

    def _wait_for_rows(
        self, service: Service, query: str, account: Account, wanted: list[tuple[Any, ...]]
    ) -> None:
        self.wait(
            lambda: service.rows(query, account.did) == wanted,
            lambda: (service.kind, wanted, service.rows(query, account.did)),
        )

    def _wait_for_cursors(self, service: Service, wanted: dict[str, int]) -> None:
        def seqs() -> dict[str, int | None]:
            rows = service.rows("select url, seq from sync.source_status")
            return {url.replace("ws", "http", 1): seq for url, seq in rows}

        self.wait(
            lambda: all((seqs()[url] or 0) >= seq for url, seq in wanted.items()),
            lambda: (wanted, seqs()),
        )

    def wait_for_subscribers(self) -> None:
        """Wait until every service reads its sources."""
        wires = self.wires
        self.wait(lambda: wires.relay.subscribers > 0 and all(d.subscribers for d in wires.doors))

    def wait(self, is_reached: Callable[[], bool], what: Callable[[], object] = str) -> None:
        """Wait for something, and for no service to end by itself."""
        deadline = time.monotonic() + TIMEOUT_S
        while not is_reached():
            assert time.monotonic() < deadline, f"not within {TIMEOUT_S} s: {what()}"
            time.sleep(POLL_S)
