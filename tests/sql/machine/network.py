"""What the accounts really hold: chains of commits that are published and delivered in order."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.sql.driver import Event, Key, Op, did


@dataclass(slots=True)
class Account:
    """One account at its PDS, and what it said that nobody has applied yet."""

    number: int
    rev: int = 0
    records: dict[Key, str] = field(default_factory=dict)
    is_active: bool = True
    said: list[Event] = field(default_factory=list)

    @property
    def data(self) -> str:
        """Return what stands for the current tree."""
        return f"{self.number}/{self.rev}"

    def export(self) -> "Export":
        """Return what getRepo answers now."""
        return Export(dict(self.records.items()), self.rev, self.data)


@dataclass(frozen=True, slots=True)
class Export:
    """A whole repo at a rev."""

    records: Mapping[str | Key, str]
    rev: int
    data: str


class Network:
    """All accounts. Revs and contents come from one counter, so none occurs twice."""

    def __init__(self, accounts: int) -> None:
        self.accounts = [Account(number) for number in range(accounts)]
        self.clock = 0
        for account in self.accounts:
            account.rev = self.tick()

    def tick(self) -> int:
        """Return a number that is higher than all before."""
        self.clock += 1
        return self.clock

    def text(self) -> str:
        """Return contents that no record had before."""
        return f"text {self.tick()}"

    def commit(self, account: Account, keys: Iterable[Key], *, deleting: bool) -> None:
        """Publish one commit that deletes or writes records."""
        ops: list[Op] = []
        for collection, rkey in dict.fromkeys(keys):
            held = (collection, rkey) in account.records
            if held and deleting:
                del account.records[collection, rkey]
                ops.append(Op("delete", rkey, None, collection))
                continue
            text = self.text()
            account.records[collection, rkey] = text
            ops.append(Op("update" if held else "create", rkey, text, collection))
        since, before = account.rev, account.data
        account.rev = self.tick()
        account.said.append(
            Event(
                did(account.number), rev=account.rev, since=since, before=before,
                data=account.data, ops=ops,
            )
        )  # fmt: skip

    def set_active(self, account: Account, *, is_active: bool) -> None:
        """Publish an account's status."""
        account.is_active = is_active
        status = None if is_active else "deactivated"
        account.said.append(
            Event(did(account.number), "account", is_active=is_active, status=status)
        )
