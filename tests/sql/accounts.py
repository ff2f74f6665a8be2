"""Accounts with a history of their own, a mirror that follows them, and a model of what it shows.

`Accounts` plays upstream and operator through the SQL functions, and keeps in plain Python what
has to come of it: the stored records, what is visible (AC-01), and the rows of the log (§3.4 of
the design: hiding is `account` and `purge`, showing is `account` and a `snapshot` a collection,
and nothing is logged of what happens in between). `check` compares all of it after a step.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sync.atproto.cid import format_cid
from tests.sql.driver import LIKE, POST, Driver, Event, Key, Op, cid, did
from tests.sql.readers import Contents

COLLECTIONS = (POST, LIKE)
Shape = tuple[str, str | None, str | None]


@dataclass(slots=True)
class Account:
    """What the model knows of one account, upstream and here."""

    number: int
    records: dict[Key, str] = field(default_factory=dict)
    version: int = 10
    # Here:
    stored: dict[Key, str] = field(default_factory=dict)
    is_tracked: bool = False
    is_synchronized: bool = False
    is_active: bool = True
    status: str | None = None
    is_taken_down: bool = False
    is_purging: bool = False

    @property
    def did(self) -> str:
        """Return its did."""
        return did(self.number)

    @property
    def data(self) -> str:
        """Return what stands for its tree."""
        return f"tree {self.number} {self.version}"

    @property
    def is_visible(self) -> bool:
        """Tell whether its records may be shown."""
        return self.is_tracked and self.is_active and not self.is_taken_down and not self.is_purging

    @property
    def standing(self) -> tuple[bool, str | None]:
        """Return what is said of it here: whether it is active, and why not."""
        if self.is_taken_down:
            return False, "takendown"
        return self.is_active, self.status


class Accounts:
    """The accounts of one test."""

    def __init__(self, lane: Driver, numbers: Iterable[int]) -> None:
        self.lane = lane
        self.all = {number: Account(number) for number in numbers}
        self.collections = set(COLLECTIONS)
        self.purging: set[str] = set()
        self.log: list[Shape] = []
        self.start = lane.position()
        self.texts = 0
        lane.conn.execute("select sync.track_collections(%s)", [list(COLLECTIONS)])
        lane.conn.execute("select sync.untrack_collections(array['*'])")

    # What upstream does -------------------------------------------------------------------------

    def write(self, number: int, *keys: Key) -> None:
        """Commit: create what is not there, change what is; the event comes by."""
        ops = []
        for key in keys:
            self.texts += 1
            action = "update" if key in self.all[number].records else "create"
            ops.append(Op(action, key[1], self.text(number, key), key[0]))
        self._commit(self.all[number], ops)

    def text(self, number: int, _key: Key) -> str:
        """Return what the next record says."""
        return f"text {number} {self.texts}"

    def delete(self, number: int, key: Key) -> None:
        """Commit the end of a record."""
        self._commit(self.all[number], [Op("delete", key[1], None, key[0])])

    def _commit(self, one: Account, ops: list[Op]) -> None:
        before, since = one.data, one.version
        one.version += 1
        for op in ops:
            if op.text is None:
                del one.records[op.collection, op.rkey]
            else:
                one.records[op.collection, op.rkey] = op.text
        self.lane.apply(
            Event(one.did, rev=one.version, since=since, before=before, data=one.data, ops=ops)
        )
        if not (one.is_tracked and one.is_synchronized and one.is_active):
            return
        for op in ops:
            if op.collection in self.collections:
                self._store(one, (op.collection, op.rkey), op.text)
                if one.is_visible:
                    self.log.append((op.action, one.did, op.collection))

    def say(self, number: int, *, active: bool, status: str | None = None) -> None:
        """Let upstream say how an account stands."""
        one = self.all[number]
        event = Event(one.did, kind="account", is_active=active, status=status)
        self.lane.apply(event)
        if not one.is_tracked:
            return
        with self._standing(one):
            if active and not one.is_active:
                one.is_synchronized = False
            one.is_active, one.status = active, status

    # What is done here --------------------------------------------------------------------------

    def take_down(self, number: int) -> None:
        """Hide an account here."""
        one = self.all[number]
        self.lane.conn.execute("select sync.take_down_repos(%s)", [[one.did]])
        with self._standing(one):
            one.is_taken_down = True

    def restore(self, number: int) -> None:
        """Undo that."""
        one = self.all[number]
        self.lane.conn.execute("select sync.restore_repos(%s)", [[one.did]])
        with self._standing(one):
            one.is_taken_down = False

    def track(self, number: int) -> None:
        """Track an account; what was said of it before is forgotten."""
        one = self.all[number]
        self.lane.track(number)
        if one.is_tracked:
            return
        with self._standing(one):
            one.is_tracked, one.is_active, one.status = True, True, None

    def untrack(self, number: int) -> None:
        """Stop tracking it: its records are on their way out."""
        one = self.all[number]
        self.lane.conn.execute("select sync.untrack_repos(%s)", [[one.did]])
        if one.is_tracked:
            if one.is_visible:
                self.log.append(("purge", one.did, None))
            one.is_tracked, one.is_synchronized, one.is_purging = False, False, True
            one.stored.clear()

    def may_fetch(self, number: int) -> bool:
        """Tell whether a fetch of it could be claimed."""
        one = self.all[number]
        is_free = not one.is_purging and not self.purging & self.collections
        return one.is_tracked and one.is_active and is_free

    def fetch(self, number: int) -> None:
        """Load it, or compare it with an export."""
        one = self.all[number]
        export = dict[str | Key, str](one.records.items())
        claim = self.lane.claim_directly(number)
        outcome = self.lane.reconcile(claim, export, at=one.version, data=one.data)
        assert outcome["outcome"] == "synchronized"
        one.is_synchronized = True
        wanted = {k: v for k, v in one.records.items() if k[0] in self.collections}
        rows: list[Shape] = []
        for collection in sorted(self.collections):
            old = {key for key in one.stored if key[0] == collection}
            new = {key for key in wanted if key[0] == collection}
            if new and not old:
                rows.append(("snapshot", one.did, collection))
                continue
            rows += [("delete", one.did, collection) for _ in old - new]
            rows += [("create", one.did, collection) for _ in new - old]
            rows += [
                ("update", one.did, collection)
                for key in old & new
                if one.stored[key] != wanted[key]
            ]
        if one.is_visible:
            self.log += rows
        one.stored = wanted

    def drop_collection(self, collection: str) -> None:
        """Stop tracking a collection of everybody."""
        self.lane.conn.execute("select sync.untrack_collections(%s)", [[collection]])
        if collection in self.collections:
            self.collections.discard(collection)
            if collection not in self.purging:
                self.log.append(("purge", None, collection))
            self.purging.add(collection)
            for one in self.all.values():
                one.stored = {k: v for k, v in one.stored.items() if k[0] != collection}

    def want_collection(self, collection: str) -> None:
        """Track it again: every account has to be fetched."""
        self.lane.conn.execute("select sync.track_collections(%s)", [[collection]])
        self.lane.apply()
        if collection not in self.collections:
            self.collections.add(collection)
            for one in self.all.values():
                one.is_synchronized = False

    def maintain(self) -> None:
        """Delete what is on its way out."""
        self.lane.maintain()
        assert self.lane.value("select count(*) from sync_priv.purges") == 0
        self.purging.clear()
        for one in self.all.values():
            # One that is tracked again already was hidden by its purge, and had nothing left.
            one.is_purging = False

    # What must come of it -----------------------------------------------------------------------

    def visible(self) -> Contents:
        """Return (did, collection, rkey) → CID of what may be shown."""
        return {
            (one.did, *key): format_cid(cid(text))
            for one in self.all.values()
            if one.is_visible
            for key, text in one.stored.items()
        }

    def check(self, note: object = "") -> None:
        """Compare the views and the log with the model."""
        mine = [one.did for one in self.all.values()]
        expected = self.visible()
        assert self._shown("select did, collection, rkey, cid from sync.records") == expected, note
        for collection in COLLECTIONS:
            listed = self._shown(
                f"select did, collection, rkey, cid from sync.list_records('{collection}')"
            )
            assert listed == {k: v for k, v in expected.items() if k[1] == collection}, note
        keys = [(one.did, *key) for one in self.all.values() for key in one.records]
        found = self.lane.rows(
            "select g.did, g.collection, g.rkey, g.cid from unnest(%s::text[]) as u (uri)"
            " cross join lateral sync.get_record(u.uri) g",
            [f"at://{'/'.join(key)}" for key in keys],
        )
        got = {(row["did"], row["collection"], row["rkey"]): row["cid"] for row in found}
        assert got == {key: text for key, text in expected.items() if key in keys}, note
        shape = [row for row in self.lane.shape(self.start) if row[1] in (*mine, None)]
        assert _sorted_runs(shape) == _sorted_runs(self.log), note
        told = self.lane.rows(
            "select distinct did from sync.change_log where rkey is not null or kind = 'snapshot'"
        )
        hidden = {one.did for one in self.all.values() if not one.is_visible}
        assert not hidden & {row["did"] for row in told}, note

    def _shown(self, query: str) -> Contents:
        rows = self.lane.rows(f"{query} where did = any (%s)", [o.did for o in self.all.values()])
        return {(row["did"], row["collection"], row["rkey"]): row["cid"] for row in rows}

    def _store(self, one: Account, key: Key, text: str | None) -> None:
        if text is None:
            one.stored.pop(key, None)
        else:
            one.stored[key] = text

    @contextmanager
    def _standing(self, one: Account) -> Iterator[None]:
        """Log what follows from a change of how an account stands."""
        was_visible, standing = one.is_visible, one.standing
        yield
        if not one.is_tracked:
            return
        if one.standing != standing:
            self.log.append(("account", one.did, None))
        if was_visible and not one.is_visible:
            self.log.append(("purge", one.did, None))
        if one.is_visible and not was_visible:
            present = {key[0] for key in one.stored}
            self.log += [("snapshot", one.did, name) for name in sorted(present)]


def _sorted_runs(shape: Iterable[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Put the snapshots of one moment in order: collections have none."""
    runs: list[tuple[object, ...]] = []
    for row in shape:
        at = len(runs)
        while (
            at and _is_record(row) and _is_record(runs[at - 1]) and repr(runs[at - 1]) > repr(row)
        ):
            at -= 1
        runs.insert(at, row)
    return runs


def _is_record(row: tuple[object, ...]) -> bool:
    return row[0] in ("snapshot", "create", "update", "delete")
