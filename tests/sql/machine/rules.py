"""The machine: everything that may happen, in any order, in sessions that overlap."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.sql.driver import LIKE, POST, did
from tests.sql.machine.rest import come_to_rest, drop_partitions
from tests.sql.machine.scratch import Scratch
from tests.sql.machine.shards import Consumer
from tests.sql.machine.world import LATER, Seat, World
from tests.sql.readers import Key

FOLLOW = "app.bsky.graph.follow"
MOST_CONSUMERS = 4
OPEN, COMMIT, ROLLBACK = "open", "commit", "rollback"

seats = st.integers(0, 3)
repos = st.integers(0, 3)
some_repos = st.lists(repos, min_size=1, max_size=2, unique=True)
ends = st.sampled_from([COMMIT, COMMIT, COMMIT, OPEN, OPEN, ROLLBACK])
limits = st.integers(1, 7)
keys = st.tuples(st.sampled_from([POST, LIKE, FOLLOW]), st.sampled_from("abcdef"))
several_keys = st.lists(keys, min_size=1, max_size=4)
patterns = st.sampled_from([POST, LIKE, "app.bsky.feed.*", "*"])
filters = st.sampled_from(
    [
        (None, None, 1),
        (None, None, 1),
        (None, None, 2),
        ([LIKE], None, 1),
        (None, [did(1), did(2)], 1),
        (["app.bsky.feed.*"], [did(0), did(1), did(3)], 3),
    ]
)

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


class Machine(RuleBasedStateMachine):
    """Writers and readers of the change log; a subclass says in which database."""

    scratch: ClassVar[Scratch]
    seats: ClassVar[list[Seat]]
    reached: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.scratch, self.seats, self.reached)
        self.is_sound = True

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

    @initialize(pattern=patterns, contents=st.lists(several_keys, min_size=3, max_size=3))
    def begin(self, pattern: str, contents: list[list[Key]]) -> None:
        """Track three repos, and load them."""
        with self.at(0, COMMIT) as seat:
            seat.driver.value("select sync.track_collections(%s)", [pattern])
            seat.driver.value("select sync.track_repos(%s)", [[did(n) for n in range(3)]])
            for account, there in zip(self.world.network.accounts, contents, strict=False):
                self.world.network.commit(account, there, deleting=False)
            self.world.claim(seat, 3, fresh=True)
        for repo_id in list(self.world.claims):
            with self.at(0, COMMIT) as seat:
                self.world.reconcile(seat, repo_id)

    # The network -------------------------------------------------------------------------------

    @rule(n=seats, end=ends, repo=repos, commits=st.lists(several_keys, min_size=1, max_size=2),
          deleting=st.booleans())
    def live(
        self, n: int, end: str, repo: int, commits: list[list[Key]], *, deleting: bool
    ) -> None:
        """An account commits; a lane applies whatever it has said so far."""
        account = self.world.network.accounts[repo]
        with self.at(n, end) as seat:
            for there in commits:
                self.world.network.commit(account, there, deleting=deleting)
            self.world.deliver(seat, [account])

    @rule(repo=repos, there=several_keys, deleting=st.booleans())
    def publish(self, repo: int, there: list[Key], *, deleting: bool) -> None:
        """An account commits; nobody has heard of it yet."""
        self.world.network.commit(self.world.network.accounts[repo], there, deleting=deleting)

    @rule(n=seats, end=ends, who=some_repos, active=st.booleans())
    def status(self, n: int, end: str, who: list[int], *, active: bool) -> None:
        """Accounts are deactivated, or active again."""
        accounts = [self.world.network.accounts[repo] for repo in who]
        with self.at(n, end) as seat:
            for account in accounts:
                self.world.network.set_active(account, is_active=active)
            self.world.deliver(seat, accounts)

    @rule(n=seats, end=ends)
    def catch_up(self, n: int, end: str) -> None:
        """A lane applies what all accounts have said."""
        with self.at(n, end) as seat:
            self.world.deliver(seat, self.world.network.accounts)

    @rule(n=seats, limit=st.integers(1, 3), fresh=st.booleans())
    def claim(self, n: int, limit: int, *, fresh: bool) -> None:
        """A fetcher claims repos, and fetches them at once or later."""
        with self.at(n) as seat:
            self.world.claim(seat, limit, fresh=fresh)

    @precondition(lambda self: self.world.claims)
    @rule(n=seats, end=ends, which=repos)
    def reconcile(self, n: int, end: str, which: int) -> None:
        """A fetcher brings what it has."""
        waiting = sorted(self.world.claims)
        with self.at(n, end) as seat:
            self.world.reconcile(seat, waiting[which % len(waiting)])

    # People ------------------------------------------------------------------------------------

    @rule(n=seats, end=ends, repo=repos, key=keys)
    def put(self, n: int, end: str, repo: int, key: Key) -> None:
        """Somebody inserts or overwrites a record by hand."""
        text = self.world.network.text().encode()
        with self.at(n, end) as seat:
            self.world.write(
                seat, "put", lambda db: db.execute(_PUT, [key[1], text, did(repo), key[0]])
            )

    @rule(n=seats, end=ends, repo=repos, key=keys, whole=st.booleans())
    def remove(self, n: int, end: str, repo: int, key: Key, *, whole: bool) -> None:
        """Somebody deletes a record by hand, or a whole collection."""
        first, last = ("a", "z") if whole else (key[1], key[1])
        with self.at(n, end) as seat:
            self.world.write(
                seat, "remove", lambda db: db.execute(_REMOVE, [first, last, did(repo), key[0]])
            )

    @rule(n=seats, end=ends, who=some_repos,
          function=st.sampled_from(["take_down_repos", "restore_repos"]))
    def hide(self, n: int, end: str, who: list[int], function: str) -> None:
        """An operator takes repos down, or shows them again."""
        self._call(n, end, function, [did(repo) for repo in who])

    @rule(n=seats, end=ends, who=some_repos,
          function=st.sampled_from(["track_repos", "track_repos", "untrack_repos"]))
    def track(self, n: int, end: str, who: list[int], function: str) -> None:
        """The tracked repos change."""
        self._call(n, end, function, [did(repo) for repo in who])

    @rule(n=seats, end=ends, pattern=patterns,
          function=st.sampled_from(["track_collections", "untrack_collections"]))
    def filter(self, n: int, end: str, pattern: str, function: str) -> None:
        """The tracked collections change."""
        self._call(n, end, function, [pattern])

    @rule(n=seats, end=ends, repo=repos)
    def resync(self, n: int, end: str, repo: int) -> None:
        """An operator wants a repo fetched again."""
        self._call(n, end, "resync_repos", [did(repo)])

    @rule(n=seats, end=ends, repo=repos, handle=st.sampled_from("xy"))
    def identify(self, n: int, end: str, repo: int, handle: str) -> None:
        """A did resolved to something."""
        with self.at(n, end) as seat:
            self.world.write(
                seat,
                "identify",
                lambda db: db.execute(
                    "select sync.set_identity(%s, %s, 'https://pds.test', 'did:key:z1')",
                    [did(repo), f"{handle}.test"],
                ),
            )

    def _call(self, n: int, end: str, function: str, names: list[str]) -> None:
        query = f"select sync.{function}(%s)".encode()
        with self.at(n, end) as seat:
            self.world.write(seat, function, lambda db: db.execute(query, [names]))

    # Upkeep ------------------------------------------------------------------------------------

    @rule(n=seats, steps=st.integers(1, 4), commit=st.sampled_from([True, True, True, False]))
    def maintain(self, n: int, steps: int, *, commit: bool) -> None:
        """The service does its upkeep; a step may come to nothing."""
        with self.at(n) as seat:
            for _ in range(steps):
                if seat.work is None and not self.world.upkeep(seat, commit=commit):
                    break

    @rule(n=seats, steps=st.integers(1, 6))
    def retire(self, n: int, steps: int) -> None:
        """Days later, the log gives up what it has, whoever is behind."""
        with self.at(n) as seat:
            for _ in range(steps):
                if seat.work is None and not self.world.upkeep(seat, commit=True, now=LATER):
                    break

    @rule()
    def drop(self) -> None:
        """The service drops what the log has given up, unless somebody uses it."""
        drop_partitions(self.world)

    # Readers -----------------------------------------------------------------------------------

    @precondition(lambda self: len(self.world.consumers) < MOST_CONSUMERS)
    @rule(n=seats, end=ends, wanted=filters, start=st.sampled_from(["beginning", "now"]))
    def create(
        self, n: int, end: str, wanted: tuple[list[str] | None, list[str] | None, int], start: str
    ) -> None:
        """Somebody makes a consumer."""
        self.world.names += 1
        with self.at(n, end) as seat:
            self.world.create(seat, Consumer(f"reader {self.world.names}", *wanted), start=start)

    @precondition(lambda self: len(self.world.consumers) == MOST_CONSUMERS)
    @rule(n=seats, end=ends, which=repos)
    def forget(self, n: int, end: str, which: int) -> None:
        """Somebody drops a consumer."""
        name = sorted(self.world.consumers)[which]
        with self.at(n, end) as seat:
            self.world.forget(seat, name)

    @precondition(lambda self: self.world.consumers)
    @rule(n=seats, end=ends, which=repos, repo=st.none() | repos,
          pattern=st.none() | patterns)
    def replay(self, n: int, end: str, which: int, repo: int | None, pattern: str | None) -> None:
        """A reader wants something again, or all of it; if it is outrun, it has to."""
        names = sorted(self.world.consumers)
        dids = None if repo is None else [did(repo)]
        with self.at(n, end) as seat:
            self.world.replay(
                seat, names[which % len(names)], dids, None if pattern is None else [pattern]
            )

    @precondition(lambda self: self.world.shards)
    @rule(n=seats, end=ends, which=st.integers(0, 11), limit=limits, batches=st.integers(1, 4))
    def read(self, n: int, end: str, which: int, limit: int, batches: int) -> None:
        """A reader reads one of its shards, a few batches in one transaction."""
        free = self.world.free_shards(self.seats[n])
        with self.at(n, end) as seat:
            for _ in range(batches if free else 0):
                if not self.world.read(seat, free[which % len(free)], limit):
                    break

    @precondition(lambda self: self.world.shards)
    @rule(limit=limits, n=seats)
    def read_everybody(self, limit: int, n: int) -> None:
        """Every reader reads a batch, a transaction each; a session without one does it."""
        with self.at(n) as seat:
            for key in self.world.free_shards(seat) if seat.work is None else []:
                self.world.read(seat, key, limit)
                if seat.work is not None:
                    self.world.commit(seat)

    # Transactions ------------------------------------------------------------------------------

    @precondition(lambda self: any(seat.work is None for seat in self.seats))
    @rule(n=seats, repeatable=st.booleans(), savepoints=st.booleans())
    def begin_early(self, n: int, *, repeatable: bool, savepoints: bool) -> None:
        """A session begins a transaction, perhaps with a snapshot that it keeps."""
        with self.at(n) as seat:
            if seat.work is None:
                self.world.begin(seat, repeatable=repeatable, savepoints=savepoints)

    @precondition(lambda self: any(seat.work is not None for seat in self.seats))
    @rule(n=seats, end=st.sampled_from([COMMIT, COMMIT, ROLLBACK]))
    def end(self, n: int, end: str) -> None:
        """A session ends its transaction."""
        with self.at(n, end):
            pass

    @rule(n=seats)
    def kill(self, n: int) -> None:
        """A session is killed, in its transaction or not."""
        with self.at(n) as seat:
            self.world.kill(seat)
