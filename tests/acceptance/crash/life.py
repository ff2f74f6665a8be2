"""What happens on the network all the time: everything that accounts, hosts and operators do.

Two accounts change their minds, one moves, a crowd writes, newcomers come and go. Each step is
honest; each names the point it leads to, so that a point is not waited for in vain.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import asyncpg

from sync.database import IngestConnection, connect
from sync.errors import DatabaseUnavailable
from sync.simnet import Account
from sync.simnet.traffic import POST, Traffic, generate, make_records
from tests.acceptance.crash.lab import CONVERGE_TIMEOUT_S, POLL_S, Lab
from tests.acceptance.crash.network import WatchedSimnet

CROWD, CROWD_RECORDS = 5, 40
SILENT = 51  # on one host, so that after a gap its list is read
NEWCOMER_RECORDS = 6
NEWCOMERS_AT_ONCE = 3
PDS_COUNT = 3
LOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection cut in mid-conversation can end in
    DatabaseUnavailable,
)
MINE = "mine"  # a record that the random traffic does not know and so does not delete


class LivelyLab(Lab):
    """A lab whose accounts do everything there is to do."""

    net: WatchedSimnet

    def make_accounts(self) -> list[Account]:
        world = self.net.world
        self.crowd = generate(world, CROWD, CROWD_RECORDS)
        # Made before the others: it writes wherever it likes, and nobody of them can stop it.
        self.crowd_traffic = Traffic(world)
        self.mover, self.moody, self.shy = generate(world, 3, NEWCOMER_RECORDS, seed=1)
        for account in self.crowd:
            account.create(POST, {"$type": POST, "text": "mine"}, rkey=MINE)
        self.newcomers: list[Account] = []
        self.rounds = self.trials = 0
        silent = [world.create_account(records=make_records(self.rng, 1)) for _ in range(SILENT)]
        return [*self.crowd, self.mover, self.moody, self.shy, *silent]

    def write(self, count: int) -> None:
        for _ in range(count):
            self.crowd_traffic.step()

    def say(self, account: Account) -> None:
        """Make one commit on one account."""
        account.create(POST, {"$type": POST, "text": f"heard {self.rng.random()}"})

    def try_something(self, account: Account) -> None:
        """Write into a collection that nobody has used before."""
        self.trials += 1
        name = f"com.example.trial{self.trials}"
        account.create(name, {"$type": name})

    # What everybody hears of --------------------------------------------------------------------

    def happen(self) -> None:
        """Let everything happen that needs no operator."""
        self.rounds += 1
        self.write(self.rng.randint(4, 12))
        self._move()
        self._change_mind(self.moody, "deactivated")
        self._change_mind(self.shy, "takendown")
        account = self.rng.choice(self.crowd)
        self.try_something(account)
        account.change_handle(f"name{self.rounds}.pds{account.host.index}.test")
        if self.rounds % 3 == 0:
            account.rotate_key()
        if self.rounds % 4 == 0:
            account.emit_sync()
        self.write(self.rng.randint(1, 4))

    def _move(self) -> None:
        """Move to another host; the first write there is the first with the new key."""
        mover = self.mover
        mover.move_account((mover.host.index + 1) % PDS_COUNT)
        self.say(mover)

    def _change_mind(self, account: Account, status: str) -> None:
        if account.hosted.status is None:
            self.say(account)
            account.set_status(status)
        elif status == "deactivated":
            account.activate()
            self.say(account)
        else:
            account.restore()

    # What nobody hears of -----------------------------------------------------------------------

    def lose_changes(self, account: Account) -> None:
        self.net.drop_next(2)
        text = f"unheard {self.rng.random()}"
        account.update(POST, {"$type": POST, "text": text}, rkey=MINE)
        account.create(POST, {"$type": POST, "text": text})

    def break_chain(self) -> None:
        """Lose commits, so that the next one does not continue what is stored."""
        account = self.rng.choice(self.crowd)
        self.lose_changes(account)
        self.say(account)

    def fail_fetch(self) -> None:
        """Have one export refused, of a repo that has to be fetched."""
        account = self.rng.choice(self.crowd)
        self.net.fail_next("sync.getRepo", did=account.did, status=400)
        self.lose_changes(account)
        self.say(account)

    def fail_lookup(self) -> None:
        """Have the directory fail once when somebody's identity is looked up."""
        account = self.rng.choice(self.crowd)
        self.net.fail_next(account.did, status=503)
        account.emit_identity()

    def open_gap(self) -> None:
        """Cut the firehose and forget what was sent meanwhile: a cursor that is too old."""
        if self.net.cut_firehose():
            self.write(3)
            self.net.forget_history()

    def happen_in_peace(self) -> None:
        """Let everything happen of which the service has to make the best without an operator."""
        self.happen()
        self.break_chain()
        self.open_gap()
        if self.rounds % 2:
            self.fail_fetch()
        else:
            self.fail_lookup()

    async def trickle(self, pause_s: float) -> None:
        """Let one thing happen at a time, so that batches are of one event."""
        account = self.rng.choice(self.crowd)
        steps: list[Callable[[], object]] = [
            lambda: self.say(account),
            lambda: self.try_something(account),
            account.emit_identity,
            lambda: self._change_mind(self.shy, "takendown"),
            self.break_chain,
            account.emit_sync,
        ]
        for step in steps:
            step()
            await asyncio.sleep(pause_s)

    # What operators do --------------------------------------------------------------------------

    async def operate(self) -> None:
        """Track somebody new, forget somebody old, ask for a resync that has something to do."""
        records = make_records(self.rng, NEWCOMER_RECORDS)
        pds = self.rng.randrange(PDS_COUNT)
        newcomer = self.net.create_account(pds=pds, records=records)
        self.newcomers.append(newcomer)
        self.accounts.append(newcomer)
        await self.ask("select sync.track_repos(array[$1])", newcomer.did)
        if len(self.newcomers) > NEWCOMERS_AT_ONCE:
            old = self.newcomers.pop(0)
            self.accounts.remove(old)
            await self.ask("select sync.untrack_repos(array[$1])", old.did)
        account = self.rng.choice(self.crowd)
        self.lose_changes(account)
        await self.resync(account)
        # While a fetch runs already no other one is begun: this shows what it may lack.
        self.say(account)

    async def round(self) -> None:
        """Let everything happen once."""
        await self.operate()
        self.happen()
        if self.rounds % 2 == 0:
            self.break_chain()
        if self.rounds % 4 == 1:
            self.fail_fetch()
        if self.rounds % 3 == 1:
            self.open_gap()
        if self.rounds % 4 == 3:
            self.fail_lookup()

    # Operators do not give up -------------------------------------------------------------------

    async def ask(self, query: str, *arguments: Any) -> None:
        """Do what an operator does, however often it takes."""
        while True:
            try:
                await self.conn.execute(query, *arguments)
            except LOST:
                self.conn = await self.reconnected(self.conn)
            else:
                return

    async def resync(self, account: Account) -> None:
        await self.ask("select sync.resync_repos(array[$1])", account.did)

    async def reconnected(self, conn: IngestConnection) -> IngestConnection:
        """Return a new connection, as soon as there is one to have."""
        conn.terminate()
        deadline = time.monotonic() + CONVERGE_TIMEOUT_S
        while True:
            try:
                return await connect(self.url, name="kill test")
            except DatabaseUnavailable:
                assert time.monotonic() < deadline, "the server does not return"
                await asyncio.sleep(POLL_S)
