"""Where situations are played: one network, and two services that read it in different ways."""

import dataclasses
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

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
            self.wait(
                lambda service=service: service.rows(query, account.did) == [wanted],
                lambda service=service: (wanted, service.rows(query, account.did)),
            )
            count = len(service.records(account.did))
            assert (count > 0) == (status is None), f"{status}: {count} records are shown"

    def look_for_problem(self, account: Account, reason: str) -> None:
        if not self.looks:
            return
        query = "select reason from sync.problems where did = %s"
        for service in self.services:
            self.wait(
                lambda service=service: (reason,) in service.rows(query, account.did),
                lambda service=service: service.rows(query, account.did),
            )

    def look_for_key(self, account: Account, key: str) -> None:
        if not self.looks:
            return
        query = "select signing_key from sync.repos where did = %s"
        for service in self.services:
            self.wait(
                lambda service=service: service.rows(query, account.did) == [(key,)],
                lambda service=service: service.rows(query, account.did),
            )

    def pause(self) -> None:
        if self.looks:
            self.settle()

    def stop_services(self) -> None:
        for service in self.services:
            service.stop()

    def start_services(self) -> None:
        for service in self.services:
            service.start()
        self._wait_for_subscribers()

    def forget_replay(self) -> None:
        for number in range(len(self.network.pds)):
            seq = self.network.control("told", pds=number)
            self.wait(lambda number=number, seq=seq: self.wires.script.judged(number) >= seq)
            self.network.control("backfill", pds=number, ms=1)
        self.wires.do(self.wires.relay.stream.forget)

    def keep_replay(self) -> None:
        for number in range(len(self.network.pds)):
            self.network.control("backfill", pds=number, ms=DAY_MS)

    def start_services_in_future(self) -> None:
        query = "select url, error like 'FutureCursor%%' from sync.source_status"
        for service in self.services:
            service.database.execute("update sync.cursors set seq = seq + %s", [FUTURE])
            service.start()
        for service in self.services:
            self.wait(
                lambda service=service: all(is_stopped for _, is_stopped in service.rows(query)),
                lambda service=service: service.rows(query),
            )
            for url, _ in service.rows(query):
                service.command("source", "rewind", url, "0")
                service.command("source", "resume", url)
        self._wait_for_subscribers()

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
                    url: door.sent
                    for url, door in zip(service.sources, wires.doors, strict=True)
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
        raise AssertionError(f"host {number} tells nothing: {door.passed}")

    def _wait_for_cursors(self, service: Service, wanted: dict[str, int]) -> None:
        def seqs() -> dict[str, int | None]:
            rows = service.rows("select url, seq from sync.source_status")
            return {url.replace("ws", "http", 1): seq for url, seq in rows}

        self.wait(
            lambda: all((seqs()[url] or 0) >= seq for url, seq in wanted.items()),
            lambda: (wanted, seqs()),
        )

    def _wait_for_subscribers(self) -> None:
        wires = self.wires
        self.wait(lambda: all(one.subscribers > 0 for one in (wires.relay, *wires.doors)))

    def wait(self, is_reached: Callable[[], bool], what: Callable[[], object] = str) -> None:
        """Wait for something, and for no service to end by itself."""
        deadline = time.monotonic() + TIMEOUT_S
        while not is_reached():
            assert time.monotonic() < deadline, f"not within {TIMEOUT_S} s: {what()}"
            time.sleep(POLL_S)
