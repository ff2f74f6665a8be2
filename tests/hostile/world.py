"""A running service on a network that tells lies, and what has to hold after each of them.

simnet is honest; the lies are told here. A module of this folder is a ledger of them:

    pytestmark = pytest.mark.asyncio(loop_scope="module")

    LIES = [
        lie("a rev that goes back", tell_old_rev, ignored="its rev is not newer"),
        lie("a rev of next year", tell_new_rev, "future_rev"),
    ]

    @pytest.mark.scenario("A-18", "A-19")
    async def test_no_rev_is_believed(world):
        await world.play(LIES)

`world` is shared by the tests of a module; who needs another network, or other settings, opens
one with `hostile_world()`.

Each lie has an account of its own, and all are told at the same time, between honest commits of
the bystanders. `play()` checks the same of each:

1. the service is up, and its memory is bounded;
2. the bystanders are current, and the log has each of their commits once, in order, and live
   unless there was a gap;
3. what is stored are the records the account had at the stored rev, which it signed, whether the
   repo is marked as not synchronized or not: nothing is ever deleted on a liar's word;
4. the lie is counted in `sync.problems` under its reasons, and under no other; or under none;
   what the account signed all the same leads to a fetch at once (D-03), anything else to none;
5. the cursor moved past it;
6. an honest commit heals the repo, with nobody's help: synchronized, at the network's rev, with
   the network's records, which are also what a reader of the change log alone has.

What a test needs beside that it finds in `world.net` (the honest network), `world.rig` (service
and database), `world.exports` (who was asked what), and in the methods that lie: `say`, `inject`,
`serve`, `serve_car`.
"""

import asyncio
import inspect
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from sync.atproto.cid import format_cid
from sync.cli.demo.fold import Fold
from sync.simnet import Account, Simnet
from sync.simnet.stream import Stream
from sync.simnet.xrpc import send_car
from tests.hostile.memory import MemoryWatch
from tests.hostile.servers import Answer, CountingPlc, Exports, LyingPds
from tests.integration.rig import NOTE, Rig, note, settings_for
from tests.integration.wire import Distort, relay_of

CONSUMER = "hostile"
BYSTANDERS = 2
FIRST_RECORDS = 3
# A busy machine is no failure.
TIMEOUT_S = 45.0

Tell = Callable[["HostileWorld", Account], Awaitable[object] | object]


def commit_honestly(_world: "HostileWorld", account: Account) -> None:
    """Write one record, as an honest server does."""
    account.create(NOTE, note("honest again"), rkey="honest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lie:
    """One line of the ledger.

    `reasons` are counted for the account, all of them and no others but those that `may` follow;
    without any nothing is counted, because of what `ignored` says. `is_refetched` is whether the
    repo is fetched for it, before anything honest happens; None where that may be. `first`
    prepares the account, made as `how` says, before it is tracked; `heal` is what it does honestly
    afterwards.
    """

    name: str
    tell: Tell
    reasons: frozenset[str] = frozenset()
    ignored: str = ""
    may: frozenset[str] = frozenset()
    is_refetched: bool | None = False
    first: Tell | None = None
    how: Mapping[str, Any] = field(default_factory=dict)
    heal: Tell = commit_honestly

    def __post_init__(self) -> None:
        assert bool(self.reasons) != bool(self.ignored), self.name


def lie(name: str, tell: Tell, *reasons: str, **more: Any) -> Lie:
    """Make a line of the ledger; the reasons come after who tells it."""
    return Lie(name=name, tell=tell, reasons=frozenset(reasons), **more)


@dataclass(slots=True)
class HostileWorld:
    """A service between honest bystanders and accounts of which lies are told."""

    net: Simnet
    rig: Rig
    memory: MemoryWatch
    exports: Exports
    sources: list[tuple[str, str]] | None = None  # None is the relay
    # After a gap everybody is compared, and who commits meanwhile may be fetched.
    is_gapless: bool = True
    bystanders: list[Account] = field(default_factory=list)
    _fold: Fold = field(default_factory=Fold)
    _beats: int = 0
    _begun_at: int = 0
    _problems_at_begin: dict[str, Counter[str]] = field(default_factory=dict)

    # Preparing --------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Load the bystanders; from here on the log has only what they do live."""
        await self.rig.conn.execute("select sync.create_consumer($1)", CONSUMER)
        self.bystanders = [self.net.create_account() for _ in range(BYSTANDERS)]
        for one in self.bystanders:  # so that what a fetch brings later is told record by record
            one.create(NOTE, note("before anything"), rkey="before")
        await self.rig.track(*self.bystanders)
        await self.check_healed(*self.bystanders)
        self._begun_at = await self.rig.last_change()
        self._problems_at_begin = {one.did: await self.problems(one) for one in self.bystanders}
        self.memory.start()

    async def new_account(self, first: Tell | None = None, **how: Any) -> Account:
        """Make an account with some records, tracked and synchronized."""
        account = self.net.create_account(**how)
        for number in range(FIRST_RECORDS):
            account.create(NOTE, note(f"first {number}"), rkey=f"first{number}")
        await _done(first, self, account)
        await self.rig.track(account)
        await self.check_healed(account)
        return account

    def beat(self) -> None:
        """Have every bystander commit."""
        self._beats += 1
        for one in self.bystanders:
            one.create(NOTE, note(f"beat {self._beats}"), rkey=f"beat{self._beats:05}")

    # Lying ------------------------------------------------------------------------------------

    def say(
        self, did: str, kind: str, body: Mapping[str, Any], *, stream: Stream | None = None
    ) -> None:
        """Put a forged event on the relay's stream, or on a host's."""
        time = self.net.world.clock.datetime()
        (stream or self.net.world.relay).append(did, kind, {**body, "time": time})

    def inject(self, frame: Callable[[int], bytes]) -> None:
        """Put a frame on the relay's stream whose bytes are made from its seq."""
        relay = self.net.world.relay
        relay.append("", "", {})
        event = relay.after(relay.last_seq - 1)[0]
        event._frame = frame(event.seq)

    def lose(self, account: Account, action: Callable[[], object]) -> None:
        """Do something honest of which the stream says nothing."""
        self.net.drop_next(1)
        action()
        assert self.net.world.relay.last_seq not in {
            event.seq for event in self.net.world.relay.events()
        }, f"{account} said nothing that could be lost"

    def serve(self, account: Account, answer: Answer, *, times: int = 1) -> None:
        """Answer the next getRepo of an account with whatever a handler does."""
        left = times

        async def answer_some(request: web.Request) -> web.StreamResponse:
            nonlocal left
            left -= 1
            if left <= 0:
                self.exports.answers.pop(account.did, None)
            return await answer(request)

        self.exports.answers[account.did] = answer_some

    def serve_car(self, account: Account, car: bytes, *, times: int = 1) -> None:
        """Answer the next getRepo of an account with these bytes."""
        self.serve(account, lambda request: send_car(request, car), times=times)

    def cause_fetch(self, account: Account) -> None:
        """Make the service fetch an account: it hears of a commit only that it was made."""
        self.lose(account, lambda: account.create(NOTE, note("unheard"), rkey="unheard"))
        account.emit_sync()

    # Checking ---------------------------------------------------------------------------------

    async def play(self, lies: Sequence[Lie]) -> None:
        """Tell lies side by side, check everything after each, and all together at the end."""
        results = await asyncio.gather(*map(self._play, lies), return_exceptions=True)
        failures = [
            f"{one.name}: {_shown(result)}"
            for one, result in zip(lies, results, strict=True)
            if isinstance(result, BaseException)
        ]
        assert not failures, f"{len(failures)} of {len(lies)} lies:\n" + "\n".join(failures)
        await self.check_all()

    async def _play(self, one: Lie) -> None:
        account = await self.new_account(one.first, **one.how)
        try:
            await self._play_on(account, one)
        except Exception as error:
            error.add_note(f"on {account}")
            raise

    async def _play_on(self, account: Account, one: Lie) -> None:
        fetched, before = self.exports.asked[account.did], await self.problems(account)
        self.beat()
        await _done(one.tell, self, account)
        await self.check_refusal(account, one.reasons, before=before)
        if one.is_refetched:
            await self.rig.until(
                partial(self._is_fetched_again, account, fetched), timeout_s=TIMEOUT_S
            )
        self.beat()
        await _done(one.heal, self, account)
        await self.check_healed(account)
        if one.is_refetched is False:
            assert self.exports.asked[account.did] == fetched, "it was fetched again"
        counted = set(await self.problems(account) - before)
        assert one.reasons <= counted <= one.reasons | one.may, f"counted as {sorted(counted)}"

    async def _is_fetched_again(self, account: Account, fetched: int) -> bool:
        return self.exports.asked[account.did] > fetched

    async def check_refusal(
        self, account: Account, reasons: frozenset[str], *, before: Counter[str]
    ) -> None:
        """Wait until what was told so far is refused for its reasons, and nothing is stored."""

        async def is_counted() -> bool:
            return reasons <= set(await self.problems(account) - before)

        await self.rig.until(is_counted, timeout_s=TIMEOUT_S)
        await self.check_passed()
        await self.check_stored(account)

    async def check_passed(self) -> None:
        """Wait until the cursor of every source is past all that was told so far.

        The bystanders say something more, for what was told may have no seq.
        """
        self.beat()
        relay = self.net.world.relay.last_seq
        hosts = {stream_url(host.url): host.stream.last_seq for host in self.net.world.hosts}

        async def is_passed() -> bool:
            rows = await self.rig.conn.fetch("select url, seq from sync.source_status")
            return all((row["seq"] or 0) >= hosts.get(row["url"], relay) for row in rows)

        await self.rig.until(is_passed, timeout_s=TIMEOUT_S)

    async def check_stored(self, account: Account) -> None:
        """Compare what is shown of a repo with what the account had signed at the stored rev."""
        async with self.rig.conn.acquire() as conn, conn.transaction(isolation="repeatable_read"):
            query = "select is_visible, rev from sync.repo_status where did = $1"
            is_visible, rev = await conn.fetchrow(query, account.did)
            rows = await conn.fetch(
                "select collection || '/' || rkey, cid from sync.records where did = $1",
                account.did,
            )
        trees = {head.rev: head.tree for head in account.repo.heads}
        assert rev is None or rev in trees, f"{account} is at {rev}, which it never signed"
        leaves = trees[rev].leaves() if is_visible and rev is not None else ()
        assert dict(rows) == {key.decode(): format_cid(cid) for key, cid in leaves}

    async def check_healed(self, *accounts: Account) -> None:
        """Wait until repos are synchronized at the network's rev, with the network's records."""
        for account in accounts:
            await self.rig.until(partial(self.rig.is_level, account), timeout_s=TIMEOUT_S)

    async def check_all(self) -> None:
        """Check what holds for all: nobody else suffered, the log is the table, memory."""
        await self.check_passed()
        await self.check_healed(*self.bystanders)
        for one in self.bystanders:
            assert await self.problems(one) == self._problems_at_begin[one.did]
            changes = await self.rig.changes(one, after=self._begun_at)
            wanted = [("create", f"beat{beat:05}") for beat in range(1, self._beats + 1)]
            assert [(kind, rkey) for kind, rkey, _ in changes] == wanted, changes
            assert not self.is_gapless or all(is_live for _, _, is_live in changes)
        await self._check_log()
        self.memory.check()

    async def _check_log(self) -> None:
        while rows := await self.rig.conn.fetch(
            "select * from sync.read_changes($1, 10000)", CONSUMER
        ):
            for row in rows:
                self._fold.apply(row)
        assert self._fold.complaints == []
        rows = await self.rig.conn.fetch("select did, collection, rkey, cid from sync.records")
        assert self._fold.records == {tuple(row)[:3]: row["cid"] for row in rows}

    async def problems(self, account: Account | None = None) -> Counter[str]:
        """Return how often each reason was counted for an account, or (None) for nobody's."""
        rows = await self.rig.conn.fetch(
            "select reason, sum(events)::bigint from sync.problems where did = $1 group by 1",
            account.did if account else "",
        )
        return Counter(dict(rows))


def stream_url(url: str) -> str:
    """Return where a host's stream is subscribed to."""
    return url.replace("http://", "ws://")


def all_hosts(net: Simnet) -> list[tuple[str, str]]:
    """Return the hosts themselves as sources, without a relay."""
    return [(stream_url(url), "pds") for url in net.pds_urls]


@asynccontextmanager
async def hostile_world(
    database_url: str,
    folder: Path,
    *,
    seed: int = 1,
    pds_count: int = 1,
    sources: Callable[[Simnet], Sequence[tuple[str, str]]] | None = None,
    distort: Distort | None = None,
    **settings: Any,
) -> AsyncIterator[HostileWorld]:
    """Start a network and a service on it, with loaded bystanders; at the end both are gone.

    The service reads the relay, or `sources`, or the relay over a wire that can `distort`.
    """
    exports = Exports()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sync.simnet.network.Pds", partial(LyingPds, exports))
        patch.setattr("sync.simnet.network.Plc", partial(CountingPlc, exports))
        # A ledger has more accounts than a host's share of lookups a second.
        patch.setattr("sync.resolver.LOOKUPS_PER_S", 10_000.0)
        patch.setattr("sync.handles.LOOKUPS_PER_S", 10_000.0)
        async with (
            Simnet(seed=seed, pds_count=pds_count, start_us=None) as net,
            asyncpg.create_pool(database_url, min_size=1, max_size=8) as pool,
            AsyncExitStack() as stack,
        ):
            rig = Rig(net, settings_for(net, database_url, folder, **settings), pool)
            world = HostileWorld(net, rig, MemoryWatch(), exports)
            try:
                if distort is not None:
                    url = await stack.enter_async_context(relay_of(net, distort))
                    world.sources = [(url, "relay")]
                elif sources is not None:
                    world.sources = list(sources(net))
                rig.start(world.sources)
                await world.begin()
                yield world
                await rig.stop()
            finally:
                await rig.crash()


async def _done(tell: Tell | None, world: HostileWorld, account: Account) -> None:
    """Call what may be a coroutine."""
    if tell is not None:
        result = tell(world, account)
        if inspect.isawaitable(result):
            await result


def _shown(error: BaseException) -> str:
    """Return an error with the way to it; of the repos it lists only its own."""
    lines = "".join(traceback.format_exception(error)[-4:]).splitlines()
    did = getattr(error, "__notes__", [""])[0].rpartition(" ")[2].rstrip(">")
    return "\n".join(line for line in lines if did in line or "'did': " not in line)
