"""Every order in which an account can move, rotate its key, be hidden, deleted, and come back.

The steps are M (moves to another host), R (rotates its key), t and T (taken down and restored by
its host), d and D (deactivated and activated by its owner), X (deleted) and A (comes back after
that, at any host). An order takes each step at most once, when it is possible, and goes on until
none is; `Life` plays one on one account, and writes before and after each step.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import asyncpg

from sync.atproto.cid import format_cid
from sync.simnet import Account
from tests.integration.rig import NOTE, Rig, note

Row = asyncpg.Record
Standing = tuple[bool, str | None]
HIDDEN = {"t": "takendown", "d": "deactivated"}
KEPT = ("nothing", "contents", "all")


def orders(steps: str, before: str = "") -> Iterator[str]:
    """Yield every order of these steps that goes on until nothing is possible any more."""
    following = [step for step in steps if step not in before and _is_possible(step, before)]
    if not following:
        yield before
    for step in following:
        yield from orders(steps, before + step)


def all_orders() -> list[str]:
    """Return the orders after which an account lives on, and those that end with its deletion."""
    return [*orders("MRtTdDXA"), *orders("MRtTdDX")]


def block_orders() -> list[str]:
    """Return those in which nothing comes between hiding and showing."""
    return [order for order in all_orders() if "tT" in order and "dD" in order]


def _is_possible(step: str, before: str) -> bool:
    # Whatever shows an account ends any reason why it was hidden; a rotation changes nothing.
    last = next((one for one in reversed(before) if one != "R"), "")
    if last == "X" or step == "A":
        return (last, step) == ("X", "A")
    if step in "TD":
        return last == step.lower()
    return step not in "td" or last not in HIDDEN


class Life:
    """One account and the order of what happens to it."""

    def __init__(self, account: Account, order: str, number: int, *, homes: Sequence[int]) -> None:
        self.account = account
        self.order = order
        self._number = number
        self._homes = homes  # the hosts it moves between
        self._played = 0
        self._writes = 0
        self.is_deleted = False
        self.stood: list[Standing] = [(True, None)]

    def __repr__(self) -> str:
        return f"<{self.order[: self._played]}|{self.order[self._played :]} {self.account.did}>"

    @property
    def step(self) -> str:
        """Return the step that comes next."""
        return self.order[self._played : self._played + 1]

    @property
    def status(self) -> str | None:
        """Return why the honest network does not show it; None while it does."""
        return "deleted" if self.is_deleted else self.account.hosted.status

    def write(self) -> None:
        """Change its repo, if it can: create, update and delete in turn."""
        if self.status is not None:
            return
        self._writes += 1
        text = note(f"{self._number} {self._writes}")
        if self._writes % 3 == 2:
            self.account.update(NOTE, text, rkey="first")
        elif self._writes % 3 == 0 and f"{NOTE}/w{self._writes - 2}" in self.account.leaves():
            self.account.delete(NOTE, f"w{self._writes - 2}")
        else:
            self.account.create(NOTE, text, rkey=f"w{self._writes}")

    def play(self) -> None:
        """Take the next step, if there is one, between two writes."""
        if not self.step:
            return
        self.write()
        self._take(self.step)
        self._played += 1
        standing = (self.status is None, self.status)
        if standing != self.stood[-1]:
            self.stood.append(standing)
        self.write()

    def _take(self, step: str) -> None:
        account = self.account
        match step:
            case "M":
                # Else the head that the new host announces verifies with its first write only.
                account.move_account(self._elsewhere(), resign=self.status is not None)
            case "R":
                account.rotate_key()
            case "t":
                account.take_down()
            case "T":
                account.restore()
            case "d":
                account.deactivate()
            case "D":
                account.activate()
            case "X":
                account.delete_account(tombstone=self._is_tombstoned)
                self.is_deleted = True
            case "A":
                kept = KEPT[self._number % 3]
                home = self._homes[self._number // 3 % len(self._homes)]
                account.come_back(home, kept=kept)  # type: ignore[arg-type]
                self.is_deleted = False
                if kept == "nothing":
                    account.create(NOTE, note("new"), rkey="first")

    @property
    def _is_tombstoned(self) -> bool:
        return self.account.did.startswith("did:plc:") and self._number % 2 == 0

    def _elsewhere(self) -> int:
        here = self.account.host.index
        return self._homes[(self._homes.index(here) + 1) % len(self._homes)]

    def leaves(self) -> dict[str, str]:
        """Return what the honest network shows: path to CID."""
        if self.status is not None:
            return {}
        return {path: format_cid(cid) for path, cid in self.account.leaves().items()}

    def is_settled(self, repo: Row) -> bool:
        """Tell whether the row of its repo says what the honest network does."""
        if repo["handle"] != self.account.handle and not self.is_deleted:
            return False
        if self.is_deleted:
            rest = (repo["rev"], repo["seen_rev"], repo["stored"], repo["purges"])
            return _standing(repo) == (False, "deleted") and rest == (None, None, 0, 0)
        if self.status is not None:
            return _standing(repo) == (False, self.status)
        identity = self.account.world.directory.identities[self.account.did]
        if (repo["pds_url"], repo["signing_key"]) != (identity.pds_url, identity.key.did_key):
            return False
        is_level = (repo["sync_state"], repo["rev"]) == ("synchronized", self.account.rev)
        return _standing(repo) == (True, None) and is_level


def _standing(repo: Row) -> Standing:
    return repo["is_active"], repo["account_status"]


class Watch:
    """Compare the database with the honest network, for all lives at once."""

    def __init__(self, rig: Rig, lives: Iterable[Life]) -> None:
        self._rig = rig
        self._lives = {life.account.did: life for life in lives}
        self.late: list[Any] = []

    async def is_settled(self) -> bool:
        """Tell whether every account is what the honest network says, to the last record."""
        rows = await self._rig.conn.fetch(
            "select r.*, h.rev, h.seen_rev,"
            " (select count(*) from sync.stored_records s where s.repo_id = r.repo_id) as stored,"
            " (select count(*) from sync_priv.purges p where p.repo_id = r.repo_id) as purges"
            " from sync.repos r join sync.heads h using (repo_id)"
        )
        self.late = [
            (self._lives[row["did"]], dict(row))
            for row in rows
            if not self._lives[row["did"]].is_settled(row)
        ]
        return not self.late and await shown(self._rig) == self.honest()

    def honest(self) -> dict[str, dict[str, str]]:
        """Return what the honest network shows."""
        leaves = {did: life.leaves() for did, life in self._lives.items()}
        return {did: records for did, records in leaves.items() if records}

    async def settle(self, *, timeout_s: float) -> None:
        """Wait until every account is settled."""
        try:
            await self._rig.until(self.is_settled, timeout_s=timeout_s)
        except AssertionError as error:
            some = "\n".join(str(one) for one in self.late[:5])
            raise AssertionError(f"{len(self.late)} are late:\n{some}") from error


async def shown(rig: Rig) -> dict[str, dict[str, str]]:
    """Return what apps see: did → path → CID."""
    found: dict[str, dict[str, str]] = {}
    for row in await rig.conn.fetch("select did, collection, rkey, cid from sync.records"):
        found.setdefault(row["did"], {})[f"{row['collection']}/{row['rkey']}"] = row["cid"]
    return found


class Fold:
    """What a consumer holds that takes every change at its word."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, str]] = {}
        self.told: dict[str, list[Standing]] = {}
        self._gone: set[tuple[str, str, str]] = set()

    async def read(self, rig: Rig, name: str) -> None:
        """Read a consumer to its end."""
        while True:
            rows = await rig.conn.fetch("select * from sync.read_changes($1, 1000)", name)
            for row in rows:
                self._apply(row)
            if not rows:
                return

    def _apply(self, row: Row) -> None:
        copy, path = self.records.setdefault(row["did"], {}), f"{row['collection']}/{row['rkey']}"
        match row["kind"]:
            case "create":
                assert path not in copy, dict(row)
                # What comes back the same was never gone (MG-04).
                assert (row["did"], path, row["cid"]) not in self._gone, dict(row)
                copy[path] = row["cid"]
            case "update":
                assert copy[path] != row["cid"], dict(row)
                copy[path] = row["cid"]
            case "delete":
                self._gone.add((row["did"], path, copy.pop(path)))
            case "purge":
                copy.clear()
            case "account":
                told = self.told.setdefault(row["did"], [(True, None)])
                told.append(_told(row["value"]))


def _told(value: str) -> Standing:
    said = json.loads(value)
    return said["active"], said["status"]


async def begin(rig: Rig, lives: Sequence[Life], *, sources: list[tuple[str, str]]) -> Watch:
    """Give every account a record, and load them all."""
    for life in lives:
        life.account.create(NOTE, note("first"), rkey="first")
        life.account.create(NOTE, note("kept"), rkey="kept")
    await rig.conn.execute("select sync.create_consumer('life')")
    rig.start(sources)
    await rig.track(*(life.account for life in lives))
    watch = Watch(rig, lives)
    await watch.settle(timeout_s=120)
    return watch


async def end(rig: Rig, lives: Sequence[Life], watch: Watch) -> Fold:
    """Compare everything with the honest world; return what a consumer was told."""
    await watch.settle(timeout_s=150)
    fold = Fold()
    await fold.read(rig, "life")
    assert {did: copy for did, copy in fold.records.items() if copy} == await shown(rig)
    for life in lives:
        assert fold.told.get(life.account.did, [(True, None)])[-1] == life.stood[-1], life
    await rig.stop()
    return fold
