"""Readers whose folds are compared with the history at every commit."""

from collections import Counter
from dataclasses import dataclass, replace

from tests.sql.machine.history import History
from tests.sql.machine.scratch import Session
from tests.sql.readers import Contents, Key, Reader

_LOOK = """
    select s.position, s.frontier, s.is_restart, s.is_lost or s.position < l.log_floor as is_outrun,
           s.pending_from,
           (select coalesce(jsonb_agg(jsonb_build_array(
                     p.repo_id, p.collection_id, p.after_rkey, p.owes_purge, p.pending_id)), '[]')
              from sync_priv.consumer_pending p
             where (p.consumer_id, p.shard) = (s.consumer_id, s.shard)) as pending,
           (select coalesce(jsonb_object_agg(r.did, r.repo_id), '{}') from sync.repos r) as repos,
           (select coalesce(jsonb_object_agg(n.nsid, n.collection_id), '{}')
              from sync.collections n) as collections
      from sync.consumers c
      join sync_priv.consumer_shards s using (consumer_id)
     cross join sync_priv.log_state l
     where c.name = %s and s.shard = %s
"""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer as it was asked for."""

    name: str
    collections: list[str] | None
    dids: list[str] | None
    shards: int

    def covers(self, key: Key) -> bool:
        """Tell whether its filter passes a record."""
        return (self.dids is None or key[0] in self.dids) and (
            self.collections is None or any(_covers(p, key[1]) for p in self.collections)
        )


@dataclass(slots=True)
class Shard:
    """What one shard of a consumer was given in committed transactions, folded."""

    consumer: Consumer
    number: int
    reader: Reader
    position: int = 0

    def try_on(self, db: Session) -> "Shard":
        """Return a copy that reads in a transaction which may yet be rolled back."""
        reader = replace(self.reader, db=db, state=dict(self.reader.state))
        return replace(self, reader=reader)

    def read(self, limit: int, history: History) -> Counter[str]:
        """Read one batch, in the order of the log; count what came from where."""
        rows = self.reader.read(limit)
        assert len(rows) <= limit
        came: Counter[str] = Counter({"batches": bool(rows), "empty batches": not rows})
        for row in rows:
            position = int(row["position"].split(".")[1])
            assert position >= self.position
            self.position = position
            key = (position, row["did"], row["collection"], row["rkey"])
            came["rows of the log" if key in history.logged else "rows of walks"] += 1
        came["walks"] += bool(came["rows of walks"])
        return came


@dataclass(slots=True)
class Standing:
    """Where a shard stands, as the database has it."""

    position: int
    frontier: int | None
    is_restart: bool
    is_outrun: bool
    pending: list[tuple[int, int, str, bool]]
    repos: dict[str, int]
    collections: dict[str, int]

    def is_mine(self, shard: Shard, key: Key) -> bool:
        """Tell whether a record belongs to a shard."""
        return self.repos[key[0]] % shard.consumer.shards == shard.number

    def owed(self, key: Key) -> list[bool]:
        """Return why a key is pending: for each reason whether a purge comes before it."""
        repo, collection = self.repos[key[0]], self.collections[key[1]]
        reasons = [
            owes
            for repo_id, collection_id, after, owes in self.pending
            if repo_id == repo and collection_id in (0, collection) and key[2] > after
        ]
        if self.frontier is not None and repo > self.frontier:
            reasons.append(self.is_restart)
        return reasons


def standing(observer: Session, shard: Shard) -> Standing:
    """Look where a shard stands."""
    row = observer.execute(_LOOK, [shard.consumer.name, shard.number]).fetchone()
    assert row is not None
    ids = [p[4] for p in row["pending"]]
    assert not ids or min(ids) >= row["pending_from"], "a pending key lies behind the queue's mark"
    return Standing(
        row["position"],
        row["frontier"],
        row["is_restart"],
        row["is_outrun"],
        [(p[0], p[1], p[2], p[3]) for p in row["pending"]],
        row["repos"],
        row["collections"],
    )


def check(shard: Shard, at: Standing, history: History) -> None:
    """Compare a fold with what was visible at its position, on all keys that are not pending."""
    expected = {
        key: cid
        for key, cid in history.at(at.position).items()
        if shard.consumer.covers(key) and at.is_mine(shard, key) and not at.owed(key)
    }
    held: Contents = {}
    for key, cid in shard.reader.state.items():
        owed = at.owed(key)
        if not owed:
            held[key] = cid
        else:
            assert any(owed), f"{shard.consumer} holds {key}, which is pending without a purge"
    assert held == expected, f"{shard.consumer}, shard {shard.number}, is not exact at {at}"


def _covers(pattern: str, nsid: str) -> bool:
    return pattern in ("*", nsid) or (pattern.endswith(".*") and nsid.startswith(pattern[:-1]))
