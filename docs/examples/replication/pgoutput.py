"""Read what PostgreSQL's `pgoutput` sends: protocol version 1, no I/O.

Version 1 sends a transaction when it has committed, whole, in the order of commits; before the
first row of a table, and again when its columns change, it describes the table.
"""

import struct
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal


class Unchanged(Enum):
    """A large value that an update left as it was, and that is therefore not sent."""

    UNCHANGED = "unchanged"


# Values in PostgreSQL's text form, by column.
Row = dict[str, str | Unchanged | None]


@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction begins."""


@dataclass(frozen=True, slots=True)
class Commit:
    """It ends; who asks for what follows `end_lsn` is not sent it again."""

    end_lsn: int


@dataclass(frozen=True, slots=True)
class Change:
    """One row: all of it, or its primary key where it was deleted."""

    action: Literal["insert", "update", "delete"]
    table: str
    row: Row


Message = Begin | Commit | Change


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    is_key: bool


class Decoder:
    """Bytes in, messages out; it remembers the tables that were described."""

    def __init__(self) -> None:
        self._tables: dict[int, tuple[str, list[_Column]]] = {}

    def decode(self, payload: bytes) -> Message | None:
        """Return the message, None for one that is about no row: types, origins, truncations."""
        kind, parts = payload[:1], _Parts(payload[1:])
        match kind:
            case b"B":
                return Begin()
            case b"C":
                _, _, end_lsn = parts.take("!BQQ")
                return Commit(end_lsn)
            case b"R":
                self._describe(parts)
            case b"I":
                return self._change("insert", parts)
            case b"U":
                return self._change("update", parts)
            case b"D":
                return self._change("delete", parts)
        return None

    def _describe(self, parts: "_Parts") -> None:
        (relation,) = parts.take("!I")
        name = f"{parts.text()}.{parts.text()}"
        _, count = parts.take("!BH")
        columns = []
        for _ in range(count):
            (flags,) = parts.take("!B")
            columns.append(_Column(parts.text(), is_key=flags == 1))
            parts.take("!Ii")  # type and its modifier
        self._tables[relation] = (name, columns)

    def _change(self, action: Literal["insert", "update", "delete"], parts: "_Parts") -> Change:
        (relation,) = parts.take("!I")
        table, columns = self._tables[relation]
        form = parts.take("!c")
        row = parts.row(columns)
        if action == "update" and form != (b"N",):
            # An update that changes the key tells the old one first.
            parts.take("!c")
            row = parts.row(columns)
        if form == (b"K",) and action == "delete":
            row = {column.name: row[column.name] for column in columns if column.is_key}
        return Change(action, table, row)


class _Parts:
    """The fields of a message, taken one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return values

    def text(self) -> str:
        start, end = self._at, self._data.index(0, self._at)
        self._at = end + 1
        return self._data[start:end].decode()

    def row(self, columns: list[_Column]) -> Row:
        self.take("!H")
        return {column.name: self._value() for column in columns}

    def _value(self) -> str | Unchanged | None:
        (kind,) = self.take("!c")
        if kind == b"u":
            return Unchanged.UNCHANGED
        if kind == b"n":
            return None
        (size,) = self.take("!I")
        start, self._at = self._at, self._at + size
        return self._data[start : self._at].decode()
