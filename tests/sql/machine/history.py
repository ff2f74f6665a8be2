"""What sync.records showed at every change id, and that the log explains every difference."""

from bisect import bisect_right
from typing import Any

from tests.sql.machine.scratch import Session
from tests.sql.readers import Contents

# One statement, one snapshot.
_LOOK = """
    select greatest((select max(c.change_id) from sync.changes c), l.log_floor, 0) as head,
           (select coalesce(jsonb_agg(jsonb_build_array(r.did, r.collection, r.rkey, r.cid)), '[]')
              from sync.records r) as records,
           (select coalesce(jsonb_agg(jsonb_build_array(
                     c.change_id, c.kind, p.did, n.nsid, c.rkey, sync_priv.cid_text(c.cid))
                     order by c.change_id), '[]')
              from sync.changes c
              left join sync.repos p using (repo_id)
              left join sync.collections n using (collection_id)
             where c.change_id > %s) as changes
      from sync_priv.log_state l
"""
Change = tuple[int, str, str | None, str | None, str | None, str | None]


class History:
    """States by the change id at which they were current."""

    def __init__(self, observer: Session) -> None:
        self.observer = observer
        self.heads: list[int] = []
        self.states: list[Contents] = []
        self.changes: list[Change] = []
        self.logged: set[tuple[int, str | None, str | None, str | None]] = set()
        self.note()

    def note(self) -> None:
        """Look, after a commit; what is visible changes exactly as the log says."""
        last = self.heads[-1] if self.heads else 0
        row: dict[str, Any] | None = self.observer.execute(_LOOK, [last]).fetchone()
        assert row is not None
        head = int(row["head"])
        state: Contents = {(r[0], r[1], r[2]): r[3] for r in row["records"]}
        changes: list[Change] = [tuple(c) for c in row["changes"]]
        if self.heads:
            told, loaded = _apply(self.states[-1], changes)
            assert _without(told, loaded) == _without(state, loaded), (
                f"sync.records at {head} is not what the log says since {last}: {changes}"
            )
        if self.heads and head == last:
            return
        self.heads.append(head)
        self.states.append(state)
        self.changes += changes
        self.logged |= {(change[0], *change[2:5]) for change in changes}

    def is_between(self, position: int) -> bool:
        """Tell whether a position lies inside a commit."""
        return self.heads[bisect_right(self.heads, position) - 1] != position

    def at(self, position: int) -> Contents:
        """Return what was visible when `position` was the last change.

        Inside a commit: without the collections that are first loaded there, which are pending.
        """
        index = bisect_right(self.heads, position) - 1
        since = self.heads[index]
        part = [change for change in self.changes if since < change[0] <= position]
        return _apply(self.states[index], part)[0] if part else self.states[index]


def _apply(before: Contents, changes: list[Change]) -> tuple[Contents, set[tuple[str, str]]]:
    """Fold changes strictly; return the state, and which collections were loaded or shown."""
    state = dict(before)
    loaded: set[tuple[str, str]] = set()
    for change_id, kind, did, collection, rkey, cid in changes:
        if kind == "purge":
            state = {
                key: cid
                for key, cid in state.items()
                if did not in (None, key[0]) or collection not in (None, key[1])
            }
        elif kind not in ("account", "identity"):
            assert did is not None
            assert collection is not None
            if kind == "snapshot":
                loaded.add((did, collection))
            if (did, collection) in loaded:
                continue
            assert rkey is not None
            key = (did, collection, rkey)
            assert (key in state) == (kind != "create"), f"change {change_id}: {kind} of {key}"
            if kind == "delete":
                del state[key]
            else:
                assert cid is not None
                state[key] = cid
    return state, loaded


def _without(state: Contents, loaded: set[tuple[str, str]]) -> Contents:
    return {key: cid for key, cid in state.items() if key[:2] not in loaded}
