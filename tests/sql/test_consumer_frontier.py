"""The frontier rule on real SQL: whatever happens in whatever order, every reader's fold is exact.

A port of the model that the rule was found with: random histories of live changes, first loads,
hiding, showing, purges in chunks, untracking and tracking again, consumers of all kinds, replays
and lost positions. A `create` must be new, an `update` or `delete` must exist, counters add up;
at rest the fold is what sync.records shows.
"""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync.schema import sql_folder
from tests.sql.driver import LIKE, POST, did
from tests.sql.readers import COLLECTIONS, Contents, Reader, Session, World

REPOS = 4
RKEYS = "abcdef"
STEPS = 40
HISTORIES = 60
CONDITION = "v_position = v_head and "
# So that a batch often ends before the log does.
LEAST_SPAN = "greatest(v_rows, 1000)"
SMALL_SPAN = "least(v_rows, 4)"
FILTERS: list[dict[str, object]] = [
    {},
    {"p_collections": [LIKE]},
    {"p_dids": [did(1), did(2)]},
    {"p_shards": 2},
    {"p_collections": ["app.bsky.*"], "p_dids": [did(0), did(3)], "p_shards": 3},
]


class History:
    """One random history: a world, some readers, and what may happen to them."""

    def __init__(self, db: Session, rng: random.Random) -> None:
        self.db = db
        self.rng = rng
        self.world = World(db, repos=REPOS)
        self.readers: list[Reader] = []
        self.filters: dict[str, dict[str, object]] = {}
        self.gone: set[int] = set()
        self.actions: list[tuple[int, Callable[[], None]]] = [
            (30, self.change),
            (14, self.load),
            (5, self.hide),
            (5, self.show),
            (4, self.untrack),
            (6, self.chunk),
            (3, self.track),
            (4, self.add_reader),
            (2, self.replay),
            (2, self.lose),
            (25, self.read),
        ]

    def run(self) -> None:
        """Let things happen, then bring every reader to rest and compare."""
        self.add_reader()
        weights = [weight for weight, _ in self.actions]
        for _ in range(STEPS):
            (_, action) = self.rng.choices(self.actions, weights)[0]
            action()
        for repo in list(self.gone):
            while self.world.purging(repo):
                self.world.purge_chunk(repo, rows=2)
        for reader in self.readers:
            self.revive(reader)
            reader.read_all(limit=self.rng.randint(1, 5))
            assert reader.state == self.expected(reader)

    def expected(self, reader: Reader) -> Contents:
        """Return what sync.records shows of a reader's filter and shard."""
        wanted = self.filters[reader.name]
        dids, collections = wanted.get("p_dids"), wanted.get("p_collections")
        shards = wanted.get("p_shards", 1)
        rows = self.db.execute(
            "select did from sync.repos where repo_id %% %s = %s", [shards, reader.shard]
        ).fetchall()
        mine = {row["did"] for row in rows}
        return {
            key: cid
            for key, cid in self.world.records().items()
            if key[0] in mine
            and (not isinstance(dids, list) or key[0] in dids)
            and (collections != [LIKE] or key[1] == LIKE)
        }

    def some_repo(self) -> int:
        """Choose a repo."""
        return self.rng.randrange(REPOS)

    def change(self) -> None:
        """Write or delete one record by hand."""
        repo, collection = self.some_repo(), self.rng.choice(COLLECTIONS)
        if repo in self.gone:
            return
        rkey = self.rng.choice(RKEYS)
        if self.rng.random() < 0.4:
            self.world.remove(repo, rkey, collection=collection)
        else:
            self.world.put(repo, rkey, collection=collection)

    def load(self) -> None:
        """Load an empty collection for the first time."""
        repo, collection = self.some_repo(), self.rng.choice(COLLECTIONS)
        if repo not in self.gone and not self.world.stored(repo, collection=collection):
            rkeys = self.rng.sample(RKEYS, self.rng.randint(0, 5))
            self.world.load(repo, rkeys, collection=collection)

    def hide(self) -> None:
        """Take a repo down."""
        self.world.take_down(self.some_repo())

    def show(self) -> None:
        """Undo that."""
        self.world.restore(self.some_repo())

    def untrack(self) -> None:
        """Stop tracking a repo."""
        repo = self.some_repo()
        self.gone.add(repo)
        self.world.untrack(repo)

    def chunk(self) -> None:
        """Delete a little of a repo that is on its way out."""
        for repo in self.gone:
            if self.world.purging(repo):
                self.world.purge_chunk(repo, rows=2)

    def track(self) -> None:
        """Track a repo again; it is loaded once nothing of it is left."""
        for repo in list(self.gone):
            self.world.track(repo)
            if not self.world.purging(repo):
                self.gone.discard(repo)

    def add_reader(self) -> None:
        """Add a consumer with all its shards; from now on means from an empty table here."""
        if len(self.filters) >= 3:
            return
        name = f"reader {len(self.filters)}"
        wanted = self.rng.choice(FILTERS)
        arguments = {"p_collections": None, "p_dids": None, "p_shards": 1, **wanted}
        self.db.execute(
            "select sync.create_consumer(%(name)s, %(p_collections)s, %(p_dids)s, 'beginning', "
            "%(p_shards)s)",
            {"name": name, **arguments},
        )
        self.filters[name] = wanted
        self.readers += [
            Reader(self.db, name, shard) for shard in range(int(str(arguments["p_shards"])))
        ]

    def replay(self) -> None:
        """Ask for something again."""
        name = self.rng.choice(sorted(self.filters))
        dids = self.rng.choice([None, [did(self.some_repo())]])
        collections = self.rng.choice([None, [POST], ["app.bsky.*"]])
        lost = self.db.execute(
            "select bool_or(is_outrun) as yes from sync.consumer_status where name = %s", [name]
        ).fetchone()
        if lost and lost["yes"]:
            dids = collections = None
        self.db.execute("select sync.replay(%s, %s, %s)", [name, dids, collections])

    def lose(self) -> None:
        """Retire the log past one shard."""
        reader = self.rng.choice(self.readers)
        self.db.execute(
            "update sync_priv.consumer_shards s set is_lost = true from sync.consumers c "
            "where c.consumer_id = s.consumer_id and c.name = %s and s.shard = %s",
            [reader.name, reader.shard],
        )

    def read(self) -> None:
        """Read one batch; a lost reader starts over."""
        reader = self.rng.choice(self.readers)
        self.revive(reader)
        reader.read(self.rng.randint(1, 6))

    def revive(self, reader: Reader) -> None:
        """Start a lost consumer over."""
        if reader.status()["is_outrun"]:
            self.db.execute("select sync.replay(%s)", [reader.name])


def replace_in(db: Session, function: str, *, old: str, new: str) -> None:
    """Load a function of ours with a piece of it replaced, until the rollback."""
    path: Path = sql_folder() / "80_consumers" / f"{function}.sql"
    text = path.read_text(encoding="utf-8")
    assert old in text
    db.execute("set local role sync_owner")
    db.execute(text.replace(old, new).encode())
    db.execute("reset role")


def run_history(db: Session, seed: int) -> None:
    with db.transaction(force_rollback=True):
        History(db, random.Random(seed)).run()


@pytest.mark.slow
@settings(
    max_examples=HISTORIES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(min_value=0, max_value=2**32))
def test_every_fold_is_exact_in_random_histories(db: Session, seed: int) -> None:
    with db.transaction(force_rollback=True):
        replace_in(db, "batch_end", old=LEAST_SPAN, new=SMALL_SPAN)
        run_history(db, seed)


@pytest.mark.slow
def test_the_rule_fails_without_its_condition(db: Session) -> None:
    """Stored rows delivered before the log is read to its end are ahead of it."""
    replace_in(db, "batch_end", old=LEAST_SPAN, new=SMALL_SPAN)
    replace_in(db, "next_changes", old=CONDITION, new="")
    failures = 0
    for seed in range(HISTORIES):
        try:
            run_history(db, seed)
        except AssertionError:
            failures += 1
    assert failures > 0
