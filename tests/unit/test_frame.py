"""Frames: what ends the connection, what only the message, and what is stepped over."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.atproto import cbor
from sync.atproto.cbor import Link
from sync.atproto.cid import cid_for
from sync.atproto.frame import (
    MAX_FRAME_BYTES,
    AccountMessage,
    BadMessage,
    CommitMessage,
    ErrorMessage,
    IdentityMessage,
    InfoMessage,
    RepoOp,
    SyncMessage,
    UnknownMessage,
    peek,
    peek_did,
    read_frame,
    write_frame,
)
from sync.errors import FramingError, ProtocolError
from tests.unit.repos import DID, REV, SINCE, TIME

CID = cid_for(b"\xa0")
COMMIT = {
    "seq": 7, "rebase": False, "tooBig": False, "repo": DID, "commit": Link(CID), "rev": REV,
    "since": SINCE, "blocks": b"car", "blobs": [], "time": TIME, "prevData": Link(CID),
    "ops": [{"action": "create", "path": "com.example.note/self", "cid": Link(CID)},
            {"action": "delete", "path": "com.example.note/old", "cid": None, "prev": Link(CID)}],
}  # fmt: skip
SYNC = {"seq": 7, "did": DID, "blocks": b"car", "rev": REV, "time": TIME}
IDENTITY = {"seq": 7, "did": DID, "time": TIME, "handle": "alice.example.com"}
ACCOUNT = {"seq": 7, "did": DID, "time": TIME, "active": False, "status": "deleted"}
BODIES = {"#commit": COMMIT, "#sync": SYNC, "#identity": IDENTITY, "#account": ACCOUNT}


def framed(header: object, *bodies: object) -> bytes:
    return cbor.encode(header) + b"".join(map(cbor.encode, bodies))


@pytest.mark.rule("MT-01", "CM-01")
def test_every_known_kind_is_read() -> None:
    ops = (
        RepoOp("create", "com.example.note/self", CID, None),
        RepoOp("delete", "com.example.note/old", None, CID),
    )
    expected = {
        "#commit": CommitMessage(7, DID, REV, SINCE, CID, CID, b"car", ops, TIME),
        "#sync": SyncMessage(7, DID, REV, b"car", TIME),
        "#identity": IdentityMessage(7, DID, "alice.example.com", TIME),
        "#account": AccountMessage(7, DID, active=False, status="deleted", time=TIME),
    }
    for kind, body in BODIES.items():
        frame = write_frame(kind, body)
        assert read_frame(frame) == expected[kind]
        assert peek_did(frame) == DID


@pytest.mark.rule("CU-01")
def test_a_seq_out_of_range_is_not_seen_before_a_frame_is_read_either() -> None:
    for seq in (1, 2**53 - 1):
        assert peek(write_frame("#sync", {**SYNC, "seq": seq})) == (DID, seq)
    for odd in (0, -1, 2**53, 2**63 - 1, "7", True, None):
        assert peek(framed({"op": 1, "t": "#sync"}, {**SYNC, "seq": odd})) == (DID, None)


@pytest.mark.rule("ES-08", "CU-13", "MT-06")
def test_info_and_error_frames_carry_no_seq() -> None:
    info = write_frame("#info", {"name": "OutdatedCursor", "message": "old"})
    assert read_frame(info) == InfoMessage("OutdatedCursor", "old")
    error = write_frame("error", {"error": "FutureCursor"})
    assert read_frame(error) == ErrorMessage("FutureCursor", "")
    assert peek_did(info) is None
    assert peek_did(error) is None


@pytest.mark.rule("ES-09", "ES-10", "ES-11", "ES-14", "MT-05", "D-02")
@pytest.mark.scenario("A-03")
def test_unknown_ops_kinds_and_fields_are_stepped_over() -> None:
    for kind in ("#future", "#handle", "#migrate", "#tombstone", "com.atproto.sync.x#commit"):
        assert read_frame(write_frame(kind, {"seq": 9})) == UnknownMessage(9, kind)
    assert read_frame(framed({"op": 2, "t": "#commit"}, COMMIT)) == UnknownMessage(7, "op 2")
    assert read_frame(write_frame("#future", {"seq": "x"})) == UnknownMessage(None, "#future")
    extended = framed({"op": 1, "t": "#sync", "x": 1}, {**SYNC, "$type": "y", "z": [{"a": CID}]})
    assert read_frame(extended) == read_frame(write_frame("#sync", SYNC))


@pytest.mark.rule("D-06", "CM-02")
def test_retired_fields_are_ignored_and_an_empty_since_is_null() -> None:
    slim = {k: v for k, v in COMMIT.items() if k not in ("rebase", "tooBig", "blobs", "prevData")}
    message = read_frame(write_frame("#commit", {**slim, "since": "", "tooBig": "yes"}))
    assert isinstance(message, CommitMessage)
    assert message.since is None
    assert message.prev_data is None


@pytest.mark.rule("ES-04", "ES-05", "ES-07", "ES-08", "ES-12")
@pytest.mark.scenario("A-04")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(framed({"op": 1, "t": "#sync"}), id="header only"),
        pytest.param(framed({"op": 1, "t": "#sync"}, SYNC, {}), id="three objects"),
        pytest.param(framed({"op": 1, "t": "#sync"}, SYNC) + b"\xff", id="bytes left over"),
        pytest.param(framed({"op": 1, "t": "#sync"}, SYNC)[:-1], id="cut"),
        pytest.param(framed([], SYNC), id="header is no map"),
        pytest.param(framed({"op": 1, "t": "#sync"}, []), id="body is no map"),
        pytest.param(framed({"t": "#sync"}, SYNC), id="no op"),
        pytest.param(framed({"op": True, "t": "#sync"}, SYNC), id="op is true"),
        pytest.param(framed({"op": 1}, SYNC), id="no t"),
        pytest.param(framed({"op": 1, "t": 1}, SYNC), id="t is a number"),
        pytest.param(framed({"op": -1}, {}), id="error without error"),
        pytest.param(b"<html>", id="HTML"),
    ],
)
def test_broken_framing_ends_the_connection(data: bytes) -> None:
    with pytest.raises(FramingError):
        read_frame(data)


@pytest.mark.rule("ES-15", "D-01")
def test_a_frame_may_have_five_million_bytes_and_no_more() -> None:
    spare = MAX_FRAME_BYTES - len(write_frame("#sync", {**SYNC, "blocks": bytes(70_000)}))
    frame = write_frame("#sync", {**SYNC, "blocks": bytes(70_000 + spare)})
    assert len(frame) == MAX_FRAME_BYTES
    assert isinstance(read_frame(frame), SyncMessage)
    with pytest.raises(FramingError, match="frame_too_big"):
        read_frame(frame + b"\x00")


REQUIRED = {
    "#commit": ("seq", "repo", "commit", "rev", "blocks", "ops", "time"),
    "#sync": ("seq", "did", "blocks", "rev", "time"),
    "#identity": ("seq", "did", "time"),
    "#account": ("seq", "did", "time", "active"),
}


@pytest.mark.rule("MT-01", "CM-01", "SN-01")
@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, names in REQUIRED.items() for n in names])
def test_a_missing_or_mistyped_field_spoils_only_the_message(kind: str, name: str) -> None:
    body: dict[str, Any] = BODIES[kind]
    for spoiled in ({k: v for k, v in body.items() if k != name}, {**body, name: {}}):
        with pytest.raises(BadMessage) as caught:
            read_frame(write_frame(kind, spoiled))
        assert caught.value.seq == (None if name == "seq" else 7)
        assert caught.value.did == (None if name in ("repo", "did") else DID)


@pytest.mark.rule("MT-01", "CM-01")
@pytest.mark.parametrize(
    "changed",
    [
        {"since": 1}, {"prevData": "x"}, {"ops": [1]}, {"ops": [{"action": "create"}]},
        {"ops": [{"path": "a", "action": 1}]}, {"ops": [{"path": "a", "action": "a", "cid": 1}]},
        {"ops": [{"path": "a", "action": "a", "prev": "x"}]},
    ],
)  # fmt: skip
def test_mistyped_optional_fields_of_a_commit_spoil_it(changed: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        read_frame(write_frame("#commit", {**COMMIT, **changed}))


@pytest.mark.rule("CU-01")
@pytest.mark.parametrize("seq", [0, -1, 2**53, True, "7", None])
def test_a_seq_out_of_range_is_refused(seq: object) -> None:
    with pytest.raises(BadMessage, match="bad_seq"):
        read_frame(write_frame("#sync", {**SYNC, "seq": seq}))


def test_the_smallest_and_the_largest_seq_pass() -> None:
    for seq in (1, 2**53 - 1):
        message = read_frame(write_frame("#sync", {**SYNC, "seq": seq}))
        assert isinstance(message, SyncMessage)
        assert message.seq == seq


@pytest.mark.rule("CU-01", "FA-14")
@pytest.mark.parametrize("seq", [0, -1, 2**53, 2**63 - 1, "7", True])
def test_a_seq_that_is_none_is_not_passed_on(seq: object) -> None:
    """Of a stranger's event nothing else is read: it would become a cursor."""
    assert peek(write_frame("#sync", {**SYNC, "seq": seq})) == (DID, None)


@pytest.mark.rule("MT-02", "SX-01")
@pytest.mark.parametrize("did", ["did:PLC:x", "did:plc:x\n", "plc:x", "", "did:plc:" + "a" * 2050])
def test_a_did_that_is_none_is_refused(did: str) -> None:
    frame = write_frame("#sync", {**SYNC, "did": did})
    with pytest.raises(BadMessage, match="bad_did"):
        read_frame(frame)
    assert peek_did(frame) is None


@pytest.mark.rule("MT-07", "MT-09", "MT-10", "OP-04")
def test_hints_and_free_text_are_made_harmless() -> None:
    message = read_frame(write_frame("#identity", {**IDENTITY, "handle": "not a handle"}))
    assert message == IdentityMessage(7, DID, None, TIME)
    status = "a\x00b" + "c" * 5_000
    message = read_frame(write_frame("#account", {**ACCOUNT, "status": status}))
    assert isinstance(message, AccountMessage)
    assert message.status is not None
    assert message.status.startswith("a\ufffdb")
    assert len(message.status) == 1_024
    with pytest.raises(BadMessage):
        read_frame(write_frame("#account", {**ACCOUNT, "status": 1}))
    without = {k: v for k, v in ACCOUNT.items() if k != "status"}
    message = read_frame(write_frame("#account", without))
    assert message == AccountMessage(7, DID, active=False, status=None, time=TIME)


def test_a_path_cannot_pass_itself_off_as_the_did() -> None:
    bait = "drepox did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
    ops = [{"action": "create", "path": bait, "cid": Link(CID)}]
    assert peek_did(write_frame("#commit", {**COMMIT, "ops": ops})) == DID


@pytest.mark.rule("ES-11", "MT-01")
def test_a_field_more_does_not_make_it_somebody_elses_message() -> None:
    other = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
    body = {**COMMIT, "did": other}
    assert peek_did(write_frame("#commit", body)) == DID
    longer = cbor.encode({"op": 1, "t": "#commit", "more": 1}) + cbor.encode(body)
    assert peek_did(longer) == DID
    assert peek_did(write_frame("#sync", {**SYNC, "repo": other})) == DID
    named = cbor.encode({"op": 1, "t": "#sync", "more": "#commit"}) + cbor.encode(
        {**SYNC, "repo": other}
    )
    assert peek_did(named) == DID


@pytest.mark.rule("ES-19", "FA-02")
def test_a_frame_of_too_many_items_is_left_out_and_still_says_whose_it_is() -> None:
    ops = [{"action": "create", "path": "a.b.c/d", "cid": Link(CID)}] * 200
    read_frame(write_frame("#commit", {**COMMIT, "ops": ops, "more": [{}] * 90_000}))
    with pytest.raises(BadMessage, match="too_many_items") as caught:
        read_frame(write_frame("#commit", {**COMMIT, "ops": ops, "more": [{}] * 100_000}))
    assert (caught.value.did, caught.value.seq) == (DID, 7)
    with pytest.raises(BadMessage, match="too_many_items"):
        read_frame(b"\xa0" * 1_000_000)
    with pytest.raises(FramingError):
        read_frame(write_frame("#commit", {**COMMIT, "more": [{}] * 100_000})[:-1])


@pytest.mark.rule("FA-14")
@given(st.binary(max_size=200), st.sampled_from(["", *BODIES, "#info", "error"]))
def test_random_bytes_never_crash_the_reader(data: bytes, kind: str) -> None:
    if kind:
        data = write_frame(kind, {})[:-1] + data
    peek_did(data)
    with contextlib.suppress(ProtocolError):
        read_frame(data)


@pytest.mark.rule("FA-14")
@given(st.data(), st.sampled_from(sorted(BODIES)))
def test_flipped_bits_and_cuts_never_crash_the_reader(data: st.DataObject, kind: str) -> None:
    frame = bytearray(write_frame(kind, BODIES[kind]))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = bytes(frame[: data.draw(st.integers(0, len(frame)))])
    for damaged in (bytes(frame), cut):
        peek_did(damaged)
        with contextlib.suppress(ProtocolError):
            read_frame(damaged)
