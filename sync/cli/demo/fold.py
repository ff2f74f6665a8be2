"""Keep a copy of all records from the change log alone, and complain about every row that lies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, str, str]


@dataclass(slots=True)
class Fold:
    """What a reader of the log knows: (did, collection, rkey) to CID.

    It is strict: only what is not there can be created, only what is there updated or deleted.
    """

    records: dict[Key, str] = field(default_factory=dict)
    changes: int = 0
    complaints: list[str] = field(default_factory=list)

    def apply(self, row: Mapping[str, Any]) -> None:
        """Follow one row of `sync.read_changes()`."""
        self.changes += 1
        kind = row["kind"]
        if kind == "purge":
            self._purge(row["did"], row["collection"])
        elif kind in {"create", "update", "delete"}:
            self._write(kind, (row["did"], row["collection"], row["rkey"]), row["cid"])

    def _write(self, kind: str, key: Key, cid: str | None) -> None:
        if (key in self.records) == (kind == "create"):
            self.complaints.append(f"{kind} of {'/'.join(key)}, exists={key in self.records}")
        if kind == "delete":
            self.records.pop(key, None)
        elif cid is not None:
            self.records[key] = cid

    def _purge(self, did: str | None, collection: str | None) -> None:
        """Forget what a purge covers; null covers every one."""
        gone = [
            key for key in self.records if did in (None, key[0]) and collection in (None, key[1])
        ]
        for key in gone:
            del self.records[key]
