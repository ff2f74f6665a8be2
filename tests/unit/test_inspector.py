"""Frames and exports are judged offline as the service judges them, down to reason and rule."""

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync import reasons
from sync.atproto import cbor
from sync.atproto.export import ExportLimits
from sync.atproto.frame import write_frame
from sync.atproto.identity import DidDocument, parse_did_document
from sync.atproto.keys import PrivateKey
from sync.atproto.syntax import make_tid
from sync.captures import CapturedFrame
from sync.inspector import GOOD, UNPROVEN, Inspector, Item
from sync.simnet import World
from tests.unit.captures import frame_of, relay_frames
from tests.unit.refusals import ELSEWHERE, FRAMES, export_of, told
from tests.unit.repos import (
    DID,
    KEY,
    NOW_US,
    REV,
    SINCE,
    TIME,
    Change,
    record,
    some_records,
)

NOTE = "com.example.note"
DOCUMENTS = {DID: DidDocument(DID, None, None, KEY.public.did_key)}
LATER = make_tid(NOW_US, 1)
OLD = some_records(range(20))
HONEST = told()
UNPROVEN_VERDICTS = set(UNPROVEN.values())
LIMITS = ExportLimits(max_bytes=1 << 20, max_blocks=100, max_records=50)


def captured(data: bytes, number: int = 1) -> CapturedFrame:
    return CapturedFrame(number, 0, len(data), data)


def judge(*frames: bytes, documents: dict[str, DidDocument] = DOCUMENTS) -> list[Item]:
    inspector = Inspector(documents, now_us=NOW_US)
    return [inspector.judge_frame(captured(frame)) for frame in frames]


def verdicts(*frames: bytes) -> list[str]:
    return [item.place.verdict for item in judge(*frames)]


def documents_of(world: World) -> dict[str, DidDocument]:
    return {did: parse_did_document(did, world.directory.document(did)) for did in world.accounts}


def one_create() -> Change:
    return Change(OLD, OLD | {f"{NOTE}/new": record("new")})


def second() -> Change:
    """Make the commit that continues one_create()."""
    first = one_create()
    change = Change(first.after, first.after | {f"{NOTE}/newer": record("newer")}, rev=LATER)
    change.since = first.rev
    return change


# What an honest network tells


@pytest.mark.rule("CM-17", "CM-18", "CM-21", "SG-02")
def test_an_honest_recording_is_proven_and_chained() -> None:
    world = World(seed=5)
    alice, bob = world.create_account("alice.test"), world.create_account("bob.test")
    alice.create(NOTE, {"$type": NOTE, "text": "a"}, rkey="a")
    bob.create(NOTE, {"$type": NOTE, "text": "b"}, rkey="b")
    alice.update(NOTE, {"$type": NOTE, "text": "c"}, rkey="a")
    alice.delete(NOTE, "a")
    alice.emit_sync()
    now_us = world.clock.tick()
    inspector = Inspector(documents_of(world), now_us=now_us)
    items = [inspector.judge_frame(captured(frame)) for frame in relay_frames(world)]
    assert [(item.kind, item.place.verdict) for item in items] == [
        *[
            ("#identity", "noted"),
            ("#account", "noted"),
            ("#commit", "ok-unchained"),
            ("#sync", "stale"),
        ]
        * 2,
        *[("#commit", "ok")] * 4,
        ("#sync", "stale"),
    ]
    assert all(item.is_good for item in items)
    update, delete = items[10], items[11]
    assert [(op.action, op.path, op.record) for op in update.ops] == [
        ("update", f"{NOTE}/a", '{"text":"c","$type":"com.example.note"}')
    ]
    assert (update.records, update.rev, update.since) == (1, items[10].rev, items[8].rev)
    assert [(op.action, op.path, op.cid) for op in delete.ops] == [("delete", f"{NOTE}/a", None)]
    assert delete.records == 0


@pytest.mark.rule("SG-10")
def test_without_a_did_document_nothing_is_called_proven() -> None:
    frames = [frame_of(one_create().message()), frame_of(second().message(seq=2))]
    items = judge(*frames, documents={})
    assert [item.place.verdict for item in items] == ["unproven-unchained", "unproven"]
    assert not any(item.is_good for item in items)
    assert "signature not checked" in items[1].place.detail
    forged = replace(second(), key=PrivateKey.generate("k256", seed=b"forged"))
    forged.since = REV
    assert judge(frames[0], frame_of(forged.message(seq=2)))[1].place.verdict == "bad_signature"
    [broken] = judge(frame_of(one_create().message(ops=())), documents={})
    assert (broken.place.verdict, broken.is_good) == ("inversion_mismatch", False)


@pytest.mark.rule("D-10", "D-09")
def test_records_that_are_not_stored_as_json_are_counted_by_reason() -> None:
    odd = cbor.encode({"text": "\0"})
    [item] = judge(frame_of(Change(OLD, OLD | {f"{NOTE}/odd": odd}).message()))
    assert (item.place.verdict, item.records, item.odd) == ("ok-unchained", 1, {"nul": 1})
    assert (item.ops[0].record, item.ops[0].reason) == (None, "nul")


# How messages of one repo follow each other


@pytest.mark.rule("CM-15", "CM-17", "CM-18", "CM-19", "FA-04", "CU-06")
def test_what_continues_nothing_is_a_chain_break_and_the_next_one_starts_there() -> None:
    first = frame_of(one_create().message())
    for changed, rule in (
        ({"since": SINCE}, "CM-17"),
        ({"since": None}, "CM-17"),
        ({"prev_data": None}, "CM-19"),
    ):
        items = judge(first, frame_of(second().message(seq=2, **changed)))
        assert [tuple(item.place[:2]) for item in items] == [
            ("ok-unchained", "CM-21"),
            ("chain_break", rule),
        ]
    fork = Change({}, {f"{NOTE}/other": record("other")}, rev=LATER)
    fork.since = REV
    after = Change(fork.after, {}, rev=make_tid(NOW_US + 1, 1))
    after.since = LATER
    items = judge(first, frame_of(fork.message(seq=2)), frame_of(after.message(seq=3)))
    assert [item.place[:2] for item in items[1:]] == [("chain_break", "CM-18"), ("ok", "")]
    assert verdicts(frame_of(second().message()), frame_of(one_create().message(seq=2))) == [
        "ok-unchained",
        "stale",
    ]
    assert verdicts(first, first) == ["ok-unchained", "stale"]


@pytest.mark.rule("SN-05", "SN-07", "SN-08")
def test_a_sync_is_told_by_the_tree_it_announces() -> None:
    first = one_create()
    same = Change(first.after, first.after, rev=LATER)
    other = Change({}, OLD, rev=LATER)
    for sync, place in (
        (same, ("ok", "")),
        (other, ("sync_differs", "SN-08")),
        (first, ("stale", "SN-05")),
    ):
        items = judge(frame_of(first.message()), frame_of(sync.sync_message(seq=2)))
        assert items[1].place[:2] == place
    assert verdicts(frame_of(first.sync_message())) == ["ok-unchained"]


@pytest.mark.rule("D-03", "SG-14", "FA-02")
def test_a_broken_commit_ends_a_chain_and_a_forged_one_does_not() -> None:
    first, last = frame_of(one_create().message()), frame_of(second().message(seq=3))
    broken = Change(OLD, OLD | {f"{NOTE}/x": record("x")}, rev=make_tid(NOW_US - 500_000, 1))
    lie = frame_of(broken.message(seq=2, ops=()))
    assert verdicts(first, lie, last) == ["ok-unchained", "inversion_mismatch", "ok-unchained"]
    forged = replace(broken, key=PrivateKey.generate("k256", seed=b"forged"))
    assert verdicts(first, frame_of(forged.message(seq=2)), last) == [
        "ok-unchained",
        "bad_signature",
        "ok",
    ]


@pytest.mark.rule("AC-02", "AC-07", "FA-07")
def test_an_account_that_is_not_active_writes_nothing_and_starts_afresh() -> None:
    def account(seq: int, *, active: bool) -> bytes:
        body = {"seq": seq, "did": DID, "time": TIME, "active": active, "status": "suspended"}
        return write_frame("#account", body)

    items = judge(
        frame_of(one_create().message()),
        account(2, active=False),
        frame_of(second().message(seq=3)),
        account(4, active=True),
        frame_of(second().message(seq=5)),
    )
    assert [item.place.verdict for item in items] == [
        "ok-unchained",
        "noted",
        "dropped",
        "noted",
        "ok-unchained",
    ]
    assert items[1].place.detail == "not active: suspended"
    assert not items[2].is_good


# Everything that is refused, by the reason under which the service counts it


@pytest.mark.rule("FA-02", "FA-13", "D-03")
@pytest.mark.parametrize("reason", FRAMES)
def test_what_the_service_refuses_is_refused_for_the_same_reason(reason: str) -> None:
    make, rule = FRAMES[reason]
    frame = make()
    [item] = judge(frame)
    assert item.place[:2] == (reason, rule)
    assert not item.is_good
    [unknown, _] = judge(frame, b"", documents={})
    assert (unknown.place.verdict == reason) == (reason != "bad_signature")


def test_every_documented_reason_is_shown_here_or_lies_outside_a_file() -> None:
    documented = reasons._MESSAGE | reasons._COMMIT | reasons._FRAME
    assert FRAMES.keys().isdisjoint(ELSEWHERE)
    assert FRAMES.keys() | ELSEWHERE.keys() == documented.keys()


@pytest.mark.rule("CU-03")
def test_a_sequence_that_falls_is_refused_as_on_one_connection() -> None:
    first, second_one = one_create().message(seq=7), second().message(seq=6)
    items = judge(frame_of(first), frame_of(second_one))
    assert items[1].place == ("seq_fell", "CU-03", "6 after 7")


@pytest.mark.rule("SG-10", "IN-15")
def test_a_did_document_without_a_key_proves_nothing() -> None:
    keyless = {DID: DidDocument(DID, None, None, None)}
    [item] = judge(frame_of(one_create().message()), documents=keyless)
    assert item.place[:2] == ("no_key", "SG-10")


@pytest.mark.rule("FA-14")
def test_a_frame_that_is_too_large_is_judged_by_its_size_alone() -> None:
    inspector = Inspector({}, now_us=NOW_US)
    item = inspector.judge_frame(CapturedFrame(1, 0, 4_000_000_000, b""))
    assert item.place == ("frame_too_big", "ES-15", "4000000000 bytes")


@pytest.mark.rule("FA-14")
@given(st.data())
def test_a_spoilt_frame_is_refused_and_never_surprises(data: st.DataObject) -> None:
    frame = bytearray(HONEST)
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    [item] = judge(bytes(frame[: data.draw(st.integers(1, len(frame)))]))
    assert item.place.verdict != "unexpected_error"
    assert item.place.verdict in GOOD | UNPROVEN_VERDICTS | reasons.REASONS.keys()


# Exports


def judge_export(data: bytes, documents: dict[str, DidDocument] = DOCUMENTS) -> Item:
    return Inspector(documents, now_us=NOW_US).judge_export(io.BytesIO(data), limits=LIMITS)


@pytest.mark.rule("CA-19", "SG-10")
def test_an_export_is_proven_only_with_the_accounts_key() -> None:
    change = Change({}, OLD | {f"{NOTE}/odd": cbor.encode({"\0": 1})})
    item = judge_export(change.export())
    assert (item.kind, item.did, item.rev) == ("repo", DID, REV)
    assert (item.place, item.records, item.odd) == (("ok", "", ""), 21, {"nul": 1})
    unknown = judge_export(change.export(), {})
    assert (unknown.place.verdict, unknown.is_good, unknown.records) == ("unproven", False, 21)


@pytest.mark.rule("CA-10", "CA-11", "CA-14", "CA-17", "CA-19")
@pytest.mark.parametrize(
    ("reason", "rule"),
    [
        ("bad_signature", "CA-19"),
        ("missing_block", "CA-11"),
        ("missing_node", "CA-10"),
        ("missing_commit", "CA-17"),
        ("too_many_records", "CA-14"),
        ("car_too_big", "CA-14"),
        ("car_cut", "CA-05"),
    ],
)
def test_an_export_that_is_not_whole_is_refused(reason: str, rule: str) -> None:
    item = judge_export(export_of(reason))
    assert (item.place[:2], item.is_good) == ((reason, rule), False)
