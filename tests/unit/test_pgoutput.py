"""The reader of pgoutput's messages, docs/examples/replication/pgoutput.py, on bytes by hand."""

import struct

import pytest
from pgoutput import Begin, Change, Commit, Decoder, Unchanged

RELATION = 16_384


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def relation(*columns: tuple[str, int]) -> bytes:
    described = b"".join(
        bytes([flags]) + text(name) + struct.pack("!Ii", 25, -1) for name, flags in columns
    )
    head = struct.pack("!I", RELATION) + text("sync") + text("stored_records")
    return b"R" + head + struct.pack("!BH", ord("d"), len(columns)) + described


def row(*values: str | Unchanged | None) -> bytes:
    parts = [struct.pack("!H", len(values))]
    for value in values:
        match value:
            case None:
                parts.append(b"n")
            case Unchanged():
                parts.append(b"u")
            case _:
                data = value.encode()
                parts.append(b"t" + struct.pack("!I", len(data)) + data)
    return b"".join(parts)


def change(kind: bytes, *tuples: bytes) -> bytes:
    return kind + struct.pack("!I", RELATION) + b"".join(tuples)


@pytest.fixture
def decoder() -> Decoder:
    """Return a decoder that knows one table: a key and a value."""
    made = Decoder()
    assert made.decode(relation(("rkey", 1), ("value", 0))) is None
    return made


def test_a_transaction_begins_and_ends() -> None:
    decoder = Decoder()
    assert decoder.decode(b"B" + struct.pack("!QQI", 7, 0, 99)) == Begin()
    assert decoder.decode(b"C" + struct.pack("!BQQQ", 0, 7, 8, 0)) == Commit(end_lsn=8)


def test_an_insert_has_the_whole_row(decoder: Decoder) -> None:
    message = decoder.decode(change(b"I", b"N", row("a", "é\n{}")))
    assert message == Change("insert", "sync.stored_records", {"rkey": "a", "value": "é\n{}"})


def test_null_and_unchanged_are_two_things(decoder: Decoder) -> None:
    null = decoder.decode(change(b"U", b"N", row("a", None)))
    unchanged = decoder.decode(change(b"U", b"N", row("a", Unchanged.UNCHANGED)))
    assert isinstance(null, Change)
    assert isinstance(unchanged, Change)
    assert null.row["value"] is None
    assert unchanged.row["value"] is Unchanged.UNCHANGED


def test_an_update_of_the_key_is_read_past_the_old_one(decoder: Decoder) -> None:
    message = decoder.decode(change(b"U", b"K", row("a", None), b"N", row("b", "new")))
    assert message == Change("update", "sync.stored_records", {"rkey": "b", "value": "new"})


def test_a_delete_has_the_key_alone(decoder: Decoder) -> None:
    message = decoder.decode(change(b"D", b"K", row("a", None)))
    assert message == Change("delete", "sync.stored_records", {"rkey": "a"})


def test_a_table_that_is_described_again_has_the_new_columns(decoder: Decoder) -> None:
    decoder.decode(relation(("rkey", 1), ("value", 0), ("note", 0)))
    message = decoder.decode(change(b"I", b"N", row("a", "x", "new column")))
    assert isinstance(message, Change)
    assert message.row["note"] == "new column"


@pytest.mark.parametrize("payload", [b"", b"O" + bytes(9), b"Y" + bytes(6), b"T" + bytes(9)])
def test_what_is_about_no_row_is_left_out(decoder: Decoder, payload: bytes) -> None:
    assert decoder.decode(payload) is None
