"""The machine: everything that may happen, in any order, in sessions that overlap."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.sql.driver import LIKE, POST, Key, did
from tests.sql.machine.choices import (
    COMMIT,
    FOLLOW,
    HIDING,
    MOST_CONSUMERS,
    OPEN,
    ROLLBACK,
    SHOWING,
    TRACKING,
    UPKEEP,
    Filter,
    beginnings,
    ends,
    filters,
    keys,
    limits,
    mostly,
    patterns,
    places,
    rarely,
    repos,
    several_commits,
    several_keys,
    some_repos,
    starts,
)
from tests.sql.machine.rest import come_to_rest, drop_partitions
from tests.sql.machine.scratch import Scratch
from tests.sql.machine.shards import Consumer
from tests.sql.machine.world import LATER, NOW, Seat, World

_IDENTIFY = "select sync.set_identity(%s, %s, 'https://pds.test', 'did:key:z1')"
_PUT = """
    insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
    select r.repo_id, c.collection_id, %s, '\\x01711220' || sha256(%s), '3kaaaaaaaaaaa', '{}'
      from sync.repos r, sync.collections c where r.did = %s and c.nsid = %s
        on conflict (repo_id, collection_id, rkey) do update set cid = excluded.cid
"""
_REMOVE = """
    delete from sync.stored_records s using sync.repos r, sync.collections c
     where s.repo_id = r.repo_id and s.collection_id = c.collection_id
       and s.rkey between %s and %s and r.did = %s and c.nsid = %s
"""


class _EveryRule:
    """The answer to which rules a history may use."""

    def is_enabled(self, name: str) -> bool:
        return bool(name)


_EVERY_RULE = _EveryRule()


def counted(step: Callable[..., None]) -> Callable[..., None]:
    """Count how often a rule ran."""

    @wraps(step)
    def count(self: "Machine", **drawn: Any) -> None:
        self.reached[f"rule {step.__name__}"] += 1
        step(self, **drawn)

    return count


class Machine(RuleBasedStateMachine):
    """Writers and readers of the change log; a subclass says in which database."""

    scratch: ClassVar[Scratch]
    seats: ClassVar[list[Seat]]
    reached: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.scratch, self.seats, self.reached)
        self.is_sound = True
        # By default every history does without half of the rules, or most; what we are after
        # takes nearly all of them.
        every: Any = _EVERY_RULE
        self._rules_strategy.enabled_rules_strategy = st.just(every)

    @contextmanager
    def at(self, number: int, end: str = OPEN) -> Iterator[Seat]:
        """Let a session do something, and then perhaps end its transaction."""
        self.is_sound = False
        seat = self.seats[number]
        yield seat
        if seat.work is not None and end == COMMIT:
            self.world.commit(seat)
        elif seat.work is not None and end == ROLLBACK:
            self.world.roll_back(seat)
        self.is_sound = True

    @contextmanager
    def idle(self, number: int) -> Iterator[Seat]:
        """Let a session without a transaction do something; if there is none, end one first."""
        free = [seat.number for seat in self.seats if seat.work is None]
        if not free:
            with self.at(number, COMMIT):
                pass
        with self.at(free[number % len(free)] if free else number) as seat:
            yield seat

    def teardown(self) -> None:
        """Bring a sound history to rest; leave no transaction open."""
        try:
            if self.is_sound:
                come_to_rest(self.world)
        finally:
            for seat in self.seats:
                seat.conn.rollback()
                seat.work = None

    # The world as it is found ------------------------------------------------------------------

    @initialize(
        tracked=beginnings,
        contents=st.lists(several_keys, min_size=3, max_size=3),
        wanted=filters,
        start=starts,
    )
    def begin(
        self, tracked: list[str], contents: list[list[Key]], wanted: Filter, start: str
    ) -> None:
        """Track three repos and load them, before two readers or between them."""
        with self.at(0, COMMIT) as seat:
            self._create(seat, (None, None, 1), "beginning")
        with self.at(0, COMMIT) as seat:
            seat.driver.value("select sync.track_collections(%s)", tracked)
            seat.driver.value("select sync.track_repos(%s)", [[did(n) for n in range(3)]])
            for account, there in zip(self.world.network.accounts, contents, strict=False):
                self.world.network.commit(account, there, deleting=False)
            self.world.claim(seat, 3, fresh=True)
        for repo_id in list(self.world.claims):
            with self.at(0, COMMIT) as seat:
                self.world.reconcile(seat, repo_id)
        with self.at(0, COMMIT) as seat:
            self._create(seat, wanted, start)

    # The network -------------------------------------------------------------------------------

    @rule(
        n=places,
        end=ends,
        who=some_repos,
        commits=several_commits,
        deleting=st.booleans(),
        heard=mostly,
    )
    @counted
    def live(
        self,
        n: int,
        end: str,
        who: list[int],
        commits: list[list[Key]],
        *,
        deleting: bool,
        heard: bool,
    ) -> None:
        """An account commits; a lane applies whatever some have said so far, or hears later."""
        accounts = [self.world.network.accounts[repo] for repo in who]
        with self.at(n, end) as seat:
            for there in commits:
                self.world.network.commit(accounts[0], there, deleting=deleting)
            if heard:
                self.world.deliver(seat, accounts)

    @rule(n=places, end=ends, but=repos)
    @counted
    def catch_up(self, n: int, end: str, but: int) -> None:
        """A lane applies what all accounts but one have said."""
        accounts = [account for account in self.world.network.accounts if account.number != but]
        with self.at(n, end) as seat:
            self.world.deliver(seat, accounts)

    @rule(
        n=places,
        end=ends,
        limit=st.integers(1, 3),
        fresh=st.booleans(),
        again=st.none() | st.none() | st.none() | repos,
        at_once=mostly,
    )
    @counted
    def claim(
        self, n: int, end: str, limit: int, again: int | None, *, fresh: bool, at_once: bool
    ) -> None:
        """A fetcher claims repos, one of them once more, and brings what it has."""
        with self.idle(n) as seat:
            if again is not None:
                self._call(seat, "resync_repos", [did(again)])
            if seat.work is not None:
                self.world.commit(seat)
            claimed = self.world.claim(seat, limit, fresh=fresh)
        for repo_id in claimed if at_once else []:
            with self.at(seat.number, end if repo_id == claimed[-1] else COMMIT):
                self.world.reconcile(seat, repo_id)

    @precondition(lambda self: self.world.claims)
    @rule(n=places, end=ends, which=repos)
    @counted
    def reconcile(self, n: int, end: str, which: int) -> None:
        """A fetcher brings what it has."""
        waiting = sorted(self.world.claims)
        with self.at(n, end) as seat:
            self.world.reconcile(seat, waiting[which % len(waiting)])

    # People ------------------------------------------------------------------------------------

    @rule(
        n=places,
        end=ends,
        repo=repos,
        key=keys,
        what=st.sampled_from(["put", "put", "remove"]),
        whole=rarely,
        repeatable=rarely,
        reads=rarely,
    )
    @counted
    def write(
        self,
        n: int,
        end: str,
        repo: int,
        key: Key,
        what: str,
        *,
        whole: bool,
        repeatable: bool,
        reads: bool,
    ) -> None:
        """Somebody writes or deletes a record by hand, or deletes a whole collection; it may be an
        app, which then reads in the same transaction."""
        first, last = ("a", "z") if whole else (key[1], key[1])
        text = self.world.network.text().encode()
        with self.at(n, end) as seat:
            if repeatable and seat.work is None:
                self.world.begin(seat, repeatable=True)
            if what == "put":
                values = [key[1], text, did(repo), key[0]]
                self.world.write(seat, what, lambda db: db.execute(_PUT, values))
            else:
                place = [first, last, did(repo), key[0]]
                self.world.write(seat, what, lambda db: db.execute(_REMOVE, place))
            for shard in self.world.free_shards(seat) if reads else []:
                self.world.read(seat, shard, 5)

    @rule(
        n=places,
        end=ends,
        who=some_repos,
        what=st.sampled_from(HIDING),
    )
    @counted
    def hide(self, n: int, end: str, who: list[int], what: str) -> None:
        """An operator takes repos down or shows them again, or their accounts do that."""
        with self.at(n, end) as seat:
            if what in ("take_down_repos", "restore_repos"):
                self._call(seat, what, [did(repo) for repo in who])
                return
            accounts = [self.world.network.accounts[repo] for repo in who]
            for account in accounts:
                self.world.network.set_active(account, is_active=what == "activate")
            self.world.deliver(seat, accounts)

    @rule(
        n=places,
        end=ends,
        who=some_repos,
        what=st.sampled_from(TRACKING),
        pattern=st.sampled_from([POST, LIKE, FOLLOW, "app.bsky.feed.*"]),
    )
    @counted
    def track(self, n: int, end: str, who: list[int], pattern: str, what: str) -> None:
        """What is tracked changes; or, to have something else in the log, an identity."""
        names = [did(repo) for repo in who]
        with self.at(n, end) as seat:
            if what == "untrack and track":
                self._call(seat, "untrack_repos", names)
                self._call(seat, "track_repos", names)
            elif what == "set_identity":
                handle = f"{self.world.network.tick()}.test"
                self.world.write(seat, what, lambda db: db.execute(_IDENTIFY, [names[0], handle]))
            elif what.endswith("_collections"):
                self._call(seat, what, [pattern])
            else:
                self._call(seat, what, names)

    def _call(self, seat: Seat, function: str, names: list[str]) -> None:
        # Known: whoever shows a repo under an old snapshot misses what it was given since, unseen.
        if seat.work is not None and seat.work.is_repeatable and function in SHOWING:
            return
        query = f"select sync.{function}(%s)".encode()
        self.world.write(seat, function, lambda db: db.execute(query, [names]))

    # Upkeep ------------------------------------------------------------------------------------

    @rule(n=places, steps=st.integers(1, 5), what=st.sampled_from(UPKEEP))
    @counted
    def maintain(self, n: int, steps: int, what: str) -> None:
        """The service does its upkeep; or days later, when the log gives up what it has, whoever
        is behind; or drops what was given up, unless somebody uses it."""
        with self.idle(n) as seat:
            if what == "drop":
                drop_partitions(self.world)
                return
            if what == "hidden and later":
                steps = 10  # to the end, so that whoever has not read of it is outrun
                self._call(seat, "take_down_repos", [did(n)])
                if seat.work is not None:
                    self.world.commit(seat)
            now = LATER if what.endswith("later") else NOW
            for _ in range(steps):
                if not self.world.upkeep(seat, commit=what != "in vain", now=now):
                    break
            if what == "later":
                drop_partitions(self.world)

    # Readers -----------------------------------------------------------------------------------

    @precondition(lambda self: len(self.world.consumers) < MOST_CONSUMERS)
    @rule(n=places, end=ends, wanted=filters, start=starts)
    @counted
    def create(self, n: int, end: str, wanted: Filter, start: str) -> None:
        """Somebody makes a consumer."""
        with self.at(n, end) as seat:
            self._create(seat, wanted, start)

    def _create(self, seat: Seat, wanted: Filter, start: str) -> None:
        self.world.names += 1
        self.world.create(seat, Consumer(f"reader {self.world.names}", *wanted), start=start)

    @precondition(lambda self: self.world.consumers)
    @rule(
        n=places,
        end=ends,
        which=repos,
        repo=st.none() | repos,
        pattern=st.none() | patterns,
        what=st.sampled_from(["replay", "replay", "replay", "forget"]),
    )
    @counted
    def replay(
        self, n: int, end: str, which: int, repo: int | None, pattern: str | None, what: str
    ) -> None:
        """A reader wants something again; all of it, if it is outrun; or nothing ever more."""
        names = sorted(self.world.consumers)
        name = names[which % len(names)]
        dids = None if repo is None else [did(repo)]
        with self.at(n, end) as seat:
            if what == "replay":
                self.world.replay(seat, name, dids, None if pattern is None else [pattern])
            elif len(names) == MOST_CONSUMERS:
                self.world.forget(seat, name)

    @precondition(lambda self: self.world.shards)
    @rule(
        n=places,
        end=ends,
        which=st.integers(0, 11),
        limit=limits,
        batches=st.integers(1, 4),
        repeatable=rarely,
    )
    @counted
    def read(
        self, n: int, end: str, which: int, limit: int, batches: int, *, repeatable: bool
    ) -> None:
        """A reader reads one of its shards, a few batches in one transaction."""
        free = self.world.free_shards(self.seats[n])
        with self.at(n, end) as seat:
            if repeatable and seat.work is None:
                self.world.begin(seat, repeatable=True)
            for _ in range(batches if free else 0):
                if not self.world.read(seat, free[which % len(free)], limit):
                    break

    @rule(n=places, limit=limits, which=st.integers(0, 3))
    @counted
    def read_each(self, n: int, limit: int, which: int) -> None:
        """Every reader but one reads a batch, a transaction each."""
        with self.idle(n) as seat:
            names = sorted(self.world.consumers)
            for key in self.world.free_shards(seat):
                if names.index(key[0]) != which:
                    self.world.read(seat, key, limit)
                if seat.work is not None:
                    self.world.commit(seat)

    # Transactions ------------------------------------------------------------------------------

    @precondition(lambda self: any(seat.work is None for seat in self.seats))
    @rule(n=places, repeatable=st.booleans(), savepoints=mostly)
    @counted
    def begin_early(self, n: int, *, repeatable: bool, savepoints: bool) -> None:
        """A session begins a transaction, perhaps with a snapshot that it keeps."""
        with self.idle(n) as seat:
            self.world.begin(seat, repeatable=repeatable, savepoints=savepoints)

    @precondition(lambda self: any(seat.work is not None for seat in self.seats))
    @rule(n=places, end=st.sampled_from([COMMIT, COMMIT, COMMIT, ROLLBACK, ROLLBACK, "kill"]))
    @counted
    def end(self, n: int, end: str) -> None:
        """The next session with a transaction ends it, or is killed in it."""
        busy = [seat.number for seat in self.seats if seat.work is not None]
        with self.at(busy[n % len(busy)], end) as seat:
            if end == "kill":
                self.world.kill(seat)
