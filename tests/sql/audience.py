"""Consumers of every kind, each with the strict fold of what it was given."""

from collections.abc import Callable

from tests.sql.accounts import Account, Accounts
from tests.sql.driver import LIKE
from tests.sql.readers import Reader

KINDS = ("all", "likes", "dids", "shards")
Covers = Callable[[Account, str], bool]


class Audience:
    """The consumers of one test."""

    def __init__(self, accounts: Accounts) -> None:
        self.accounts = accounts
        self.lane = accounts.lane
        self.members: list[tuple[Reader, Covers]] = []
        self._names = 0

    def add(self, kind: str) -> None:
        """Let a consumer of one kind join: all, likes, dids or shards."""
        self._names += 1
        name = f"{kind} {self.accounts.start} {self._names}"
        collections = [LIKE] if kind == "likes" else None
        dids = self._chosen() if kind == "dids" else None
        shards = 2 if kind == "shards" else 1
        self.lane.conn.execute(
            "select sync.create_consumer(%s, %s, %s, 'beginning', %s)",
            [name, collections, dids, shards],
        )
        for shard in range(shards):
            self.members.append((Reader(self.lane.conn, name, shard), self._covers(kind, shard)))

    def _covers(self, kind: str, shard: int) -> Covers:
        if kind == "likes":
            return lambda _, collection: collection == LIKE
        if kind == "dids":
            return lambda one, _: one.did in self._chosen()
        if kind == "shards":
            return lambda one, _: self._repo_id(one) % 2 == shard
        return lambda *_: True

    def _chosen(self) -> list[str]:
        return [one.did for one in self.accounts.all.values()][::2]

    def _repo_id(self, one: Account) -> int:
        return int(self.lane.value("select repo_id from sync.repos where did = %s", one.did) or 0)

    def settle(self, limit: int = 1000, note: object = "") -> None:
        """Bring every reader to rest; each holds exactly what it may see."""
        visible = self.accounts.visible()
        accounts = {one.did: one for one in self.accounts.all.values()}
        for reader, covers in self.members:
            reader.read_all(limit)
            state = {key: text for key, text in reader.state.items() if key[0] in accounts}
            expected = {k: v for k, v in visible.items() if covers(accounts[k[0]], k[1])}
            assert state == expected, (reader.name, note)
