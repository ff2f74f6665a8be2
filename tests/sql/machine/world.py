"""Sessions with transactions that stay open while others commit.

An action happens in the transaction of a session. What the test knows of it counts only once that
is committed: `Work` holds it until then. A lock that somebody holds, a snapshot that is too old
and a reader that is outrun are answers like any other; then the action did not happen.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import psycopg

from tests.sql.driver import Claim, Driver, Event, did
from tests.sql.machine.history import History
from tests.sql.machine.network import Account, Export, Network
from tests.sql.machine.scratch import Scratch, Session
from tests.sql.machine.shards import Consumer, Shard, check, standing
from tests.sql.readers import Reader

NOW = "2026-03-01T00:00:00Z"
LATER = "2026-03-11T00:00:00Z"
# Answers that are part of the game.
NOT_NOW = {
    "55P03": "locked",
    "40001": "snapshot too old",
    "SY001": "unknown did",
    "SY301": "outrun",
    "SY302": "unknown consumer",
}
ShardKey = tuple[str, int]


@dataclass(slots=True)
class Work:
    """An open transaction, and what it will have done if it commits."""

    is_repeatable: bool
    has_savepoints: bool
    has_written: bool = False
    is_staged: bool = False
    shards: dict[ShardKey, Shard] = field(default_factory=dict)
    made: list[Consumer] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    delivered: list[tuple[Account, list[Event]]] = field(default_factory=list)
    fetched: list[int] = field(default_factory=list)

    def copied(self, conn: Session) -> "Work":
        """Return a copy to go back to."""
        return replace(
            self,
            shards={key: shard.try_on(conn) for key, shard in self.shards.items()},
            made=list(self.made),
            dropped=list(self.dropped),
            delivered=list(self.delivered),
            fetched=list(self.fetched),
        )


class Seat:
    """A connection that does one thing at a time, also as a lane of its own."""

    def __init__(self, scratch: Scratch, number: int) -> None:
        self.scratch = scratch
        self.number = number
        self.work: Work | None = None
        self.open()

    def open(self) -> None:
        """Connect."""
        self.conn: Session = self.scratch.open()
        self.pid = self.conn.info.backend_pid

    def close(self) -> None:
        """Disconnect."""
        self.conn.close()

    def start(self) -> None:
        """Begin a history."""
        self.work = None
        self.conn.execute("select set_config('sync.now', %s, false)", [NOW])
        self.driver = Driver(self.conn, lane=self.number)
        self.generation = -1


class World:
    """One history: the sessions, the network they hear of, the consumers and their shards."""

    def __init__(self, scratch: Scratch, seats: list[Seat], reached: Counter[str]) -> None:
        scratch.reset()
        self.scratch = scratch
        self.seats = seats
        self.reached = reached
        self.network = Network(4)
        self.consumers: dict[str, Consumer] = {}
        self.shards: dict[ShardKey, Shard] = {}
        self.claims: dict[int, tuple[Claim, Account, Export | None]] = {}
        self.names = 0
        for seat in seats:
            seat.start()
        # Whoever is overtaken is outrun; how old "old" is, LATER decides.
        seats[0].conn.execute("select sync.set_retention('1 day', '2 days')")
        self.history = History(scratch.admin)

    # Transactions ------------------------------------------------------------------------------

    def begin(self, seat: Seat, *, repeatable: bool = False, savepoints: bool = True) -> Work:
        """Begin a transaction; a repeatable one takes its snapshot now."""
        seat.conn.execute(
            b"begin isolation level repeatable read" if repeatable else b"begin read write"
        )
        if repeatable:
            seat.conn.execute("select count(*) from sync.records")
        seat.work = Work(repeatable, savepoints)
        return seat.work

    def commit(self, seat: Seat) -> None:
        """Commit; every shard that was read has to be exact then."""
        work = seat.work
        assert work is not None
        seat.work = None
        try:
            seat.conn.execute("commit")
        except psycopg.Error as error:
            self.refused(error)
            self.reached["commits refused"] += 1
            seat.conn.rollback()
            return
        self.reached["commits"] += 1
        self.history.note()
        self._keep(work)

    def roll_back(self, seat: Seat) -> None:
        """Roll back: nothing of it happened."""
        seat.work = None
        seat.conn.execute("rollback")
        self.reached["rollbacks"] += 1

    def kill(self, seat: Seat) -> None:
        """End the backend of a session, in its transaction or not; a new one takes its place."""
        self.scratch.kill(seat.pid)
        seat.conn.close()
        seat.open()
        seat.start()
        self.reached["kills"] += 1
        self.history.note()

    def _keep(self, work: Work) -> None:
        for account, events in work.delivered:
            heard = {id(event) for event in events}
            account.said = [event for event in account.said if id(event) not in heard]
        for repo_id in work.fetched:
            self.claims.pop(repo_id, None)
        for consumer in work.made:
            self.consumers[consumer.name] = consumer
        for key, shard in work.shards.items():
            shard.reader.db = self.scratch.admin
            self.shards[key] = shard
        for name in work.dropped:
            del self.consumers[name]
            self.shards = {k: shard for k, shard in self.shards.items() if k[0] != name}
        for key in work.shards.keys() & self.shards.keys():
            self.check(self.shards[key])

    def check(self, shard: Shard) -> None:
        """Compare a shard with the history."""
        at = standing(self.scratch.admin, shard)
        check(shard, at, self.history)
        self.reached["checks"] += 1
        self.reached["checks inside a commit"] += self.history.is_between(at.position)
        self.reached["checks with keys pending"] += bool(at.pending)
        self.reached["checks within a repo"] += any(after for _, _, after, _ in at.pending)
        self.reached["checks with purges owed"] += any(owes for _, _, _, owes in at.pending)
        self.reached["checks of a walk"] += at.frontier is not None

    # Actions -----------------------------------------------------------------------------------

    @contextmanager
    def trying(self, seat: Seat, what: str) -> Iterator[Work]:
        """Do something in a session's transaction, or find that it cannot be done now."""
        work = seat.work or self.begin(seat)
        before = work.copied(seat.conn)
        try:
            with seat.conn.transaction() if work.has_savepoints else nullcontext():
                yield work
            self.reached[what] += 1
        except psycopg.Error as error:
            self.refused(error)
            if not work.has_savepoints:
                self.roll_back(seat)
                return
            seat.work = before

    def refused(self, error: psycopg.Error) -> None:
        """Take note of a refusal that is part of the game."""
        if error.sqlstate not in NOT_NOW:
            raise error
        self.reached[NOT_NOW[error.sqlstate]] += 1

    def write(self, seat: Seat, what: str, action: Callable[[Session], object]) -> None:
        """Let a session write something by hand or by calling a function."""
        with self.trying(seat, what) as work:
            action(seat.conn)
            work.has_written = True

    def deliver(self, seat: Seat, accounts: list[Account]) -> None:
        """Let a lane apply what accounts said; once a transaction, as the stage has it."""
        if seat.work is not None and (seat.work.is_staged or seat.work.is_repeatable):
            return
        with self.trying(seat, "deliver") as work:
            work.is_staged = True
            batches = [(account, list(account.said)) for account in accounts]
            outcomes = seat.driver.apply(*(event for _, events in batches for event in events))
            work.delivered += batches
            work.has_written = True
            self.reached.update({f"events {name}": count for name, count in outcomes.items()})

    def claim(self, seat: Seat, limit: int, *, fresh: bool) -> list[int]:
        """Claim repos to fetch, when every lane knows the filters; `fresh` fetches them later."""
        assert seat.work is None
        generation = seat.driver.value("select sync.filter_generation()")
        for lane in self.seats:
            if lane.work is None and lane.generation < generation:
                lane.driver.apply()
                lane.generation = generation
        with seat.conn.transaction():
            seat.conn.execute("select set_config('sync.now', %s, true)", [LATER])
            rows = seat.driver.rows("select * from sync.claim_fetches(%s, 100)", limit)
        self.history.note()
        for row in rows:
            account = next(a for a in self.network.accounts if did(a.number) == row["did"])
            fields = ("repo_id", "generation", "fetch_token", "has_records")
            claim = Claim(*(row[name] for name in fields))
            self.claims[claim.repo_id] = claim, account, None if fresh else account.export()
        self.reached["claimed"] += len(rows)
        return [row["repo_id"] for row in rows]

    def reconcile(self, seat: Seat, repo_id: int) -> None:
        """Reconcile a claimed repo; once a transaction, as the stage has it."""
        if seat.work is not None and (seat.work.is_staged or seat.work.is_repeatable):
            return
        claim, account, export = self.claims[repo_id]
        export = export or account.export()
        with self.trying(seat, "reconcile") as work:
            work.is_staged = True
            outcome = seat.driver.reconcile(claim, export.records, at=export.rev, data=export.data)
            self.reached[f"reconciled: {outcome['outcome']}"] += 1
            if outcome["outcome"] != "busy":
                work.fetched.append(repo_id)
            work.has_written = True

    def upkeep(self, seat: Seat, *, commit: bool, now: str = NOW) -> bool:
        """Do a step of upkeep in a transaction of its own; True when there is more to do."""
        is_more = False
        with self.trying(seat, "upkeep"):
            row = seat.conn.execute(
                "select set_config('sync.now', %s, true), sync.maintain() as more", [now]
            ).fetchone()
            is_more = bool(row and row["more"])
            seat.conn.execute("select set_config('sync.now', %s, true)", [NOW])
        if seat.work is not None and commit:
            self.commit(seat)
        elif seat.work is not None:
            self.roll_back(seat)
        return is_more

    def create(self, seat: Seat, consumer: Consumer, *, start: str) -> None:
        """Make a consumer; one that starts now holds what is visible at its position."""
        with self.trying(seat, f"create from {start}") as work:
            seat.conn.execute(
                "select sync.create_consumer(%s, %s, %s, %s, %s)",
                [consumer.name, consumer.collections, consumer.dids, start, consumer.shards],
            )
            for number in range(consumer.shards):
                shard = Shard(consumer, number, Reader(seat.conn, consumer.name, number))
                if start == "now":
                    at = standing(seat.conn, shard)
                    shard.reader.state = {
                        key: cid
                        for key, cid in self.history.at(at.position).items()
                        if consumer.covers(key) and at.is_mine(shard, key)
                    }
                    shard.reader.counter = len(shard.reader.state)
                work.shards[consumer.name, number] = shard
            work.made.append(consumer)

    def forget(self, seat: Seat, name: str) -> None:
        """Drop a consumer."""
        with self.trying(seat, "forget") as work:
            seat.conn.execute("select sync.drop_consumer(%s)", [name])
            work.dropped.append(name)

    def replay(
        self, seat: Seat, name: str, dids: list[str] | None, collections: list[str] | None
    ) -> None:
        """Ask for something again; all of it, where nothing less helps."""
        if any(standing(self.scratch.admin, s).is_outrun for s in self._shards_of(name)):
            dids = collections = None
            self.reached["outrun, starts over"] += 1
        what = "some" if dids or collections else "all"
        with self.trying(seat, f"replay {what}") as work:
            seat.conn.execute("select sync.replay(%s, %s, %s)", [name, dids, collections])
            for shard in self._shards_of(name):
                work.shards.setdefault((name, shard.number), shard.try_on(seat.conn))

    def _shards_of(self, name: str) -> list[Shard]:
        return [shard for key, shard in self.shards.items() if key[0] == name]

    def free_shards(self, seat: Seat) -> list[ShardKey]:
        """Return the shards that a session may read, as far as the test knows."""
        mine = seat.work.shards.keys() if seat.work else set()
        gone = seat.work.dropped if seat.work else []
        others = [other.work for other in self.seats if other.work and other is not seat]
        taken = {key for work in others for key in work.shards}
        return sorted(key for key in (self.shards.keys() | mine) - taken if key[0] not in gone)

    def read(self, seat: Seat, key: ShardKey, limit: int) -> bool:
        """Read one batch; False when that cannot be done now, as for one that is outrun."""
        before = self.reached["read"]
        with self.trying(seat, "read") as work:
            shard = work.shards.get(key) or self.shards[key].try_on(seat.conn)
            self.reached.update(shard.read(limit, self.history))
            self.reached["reads under an old snapshot"] += work.is_repeatable
            self.reached["reads beside own writes"] += work.has_written
            work.shards[key] = shard
        return self.reached["read"] > before
