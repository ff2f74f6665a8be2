"""Position, poison and queue of one firehose."""

import asyncio

import pytest

from sync.atproto.frame import (
    ErrorMessage,
    IdentityMessage,
    InfoMessage,
    UnknownMessage,
    write_frame,
)
from sync.errors import FramingError, MessageError
from sync.firehose import Backoff, FirehoseReader, subscribe_url
from sync.http import AddressPolicy, RefusedAddress
from sync.progress import SourceProgress
from sync.stream import Frame, FrameQueue, StreamState

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
TIME = "2026-01-01T00:00:00Z"


def identity(seq: int) -> bytes:
    """Return an #identity frame."""
    return write_frame("#identity", {"seq": seq, "did": DID, "time": TIME})


def test_reading_moves_the_position():
    state = StreamState(None)
    assert isinstance(state.read(identity(5)), IdentityMessage)
    assert state.seq == 5


@pytest.mark.rule("ES-06")
def test_a_frame_sent_as_text_is_none_whatever_it_says():
    with pytest.raises(FramingError, match="text_frame"):
        StreamState(None).read(identity(5).decode("latin-1"))


@pytest.mark.rule("FA-14")
def test_a_frame_that_breaks_its_reader_costs_the_connection_and_no_more(monkeypatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sync.stream.read_next", fail)
    with pytest.raises(FramingError, match="unexpected_error"):
        StreamState(None).read(identity(5))


@pytest.mark.rule("CU-06")
def test_the_event_at_the_cursor_is_a_harmless_duplicate():
    state = StreamState(5)
    assert state.read(identity(5)) is None
    assert state.seq == 5


@pytest.mark.rule("CU-02", "CU-03")
@pytest.mark.scenario("A-07")
def test_a_sequence_that_falls_costs_the_connection():
    state = StreamState(5)
    with pytest.raises(FramingError, match="seq_fell"):
        state.read(identity(4))
    assert state.seq == 5


@pytest.mark.rule("CU-13", "ES-09", "ES-10", "MT-05", "CU-02")
def test_info_and_unknown_frames_do_not_disturb_the_position():
    state = StreamState(5)
    info = state.read(write_frame("#info", {"name": "OutdatedCursor", "seq": 7}))
    assert isinstance(info, InfoMessage)
    error = state.read(write_frame("error", {"error": "ConsumerTooSlow", "seq": 7}))
    assert isinstance(error, ErrorMessage)
    assert state.seq == 5
    assert isinstance(state.read(write_frame("#handle", {"seq": 9})), UnknownMessage)
    assert state.seq == 9


@pytest.mark.rule("CU-14", "FA-02")
def test_a_message_that_is_refused_still_moves_the_position():
    state = StreamState(5)
    with pytest.raises(MessageError):
        state.read(write_frame("#identity", {"seq": 6, "did": "nobody", "time": TIME}))
    assert state.seq == 6


@pytest.mark.rule("ES-05", "ES-06", "ES-12", "ES-13")
@pytest.mark.scenario("A-02", "A-04")
@pytest.mark.parametrize("poison", ["text", b"", b"\xff\xff", identity(6) + b"\x00"])
def test_the_same_poison_three_times_in_a_row_is_stepped_past(poison):
    state = StreamState(5)
    for _ in range(2):
        with pytest.raises(FramingError):
            state.read(poison)
    with pytest.raises(MessageError, match="poison_frame"):
        state.read(poison)
    assert state.read(identity(7)) is not None


@pytest.mark.rule("ES-13")
def test_poison_at_another_position_is_counted_anew():
    state = StreamState(5)
    for seq in (6, 7, 8, 9):
        with pytest.raises(FramingError):
            state.read(b"\xff")
        state.read(identity(seq))


@pytest.mark.rule("ES-15")
@pytest.mark.scenario("A-01")
def test_an_oversize_frame_is_stepped_past_in_growing_steps_and_leaves_a_gap():
    state = StreamState(100)
    steps = [state.step_past_unreadable() for _ in range(5)]
    assert steps == [False, False, True, True, True]
    assert state.seq == 100 + 1 + 2 + 4
    assert state.is_gap_suspected


def test_without_a_position_an_oversize_frame_is_simply_behind_us():
    assert not any(StreamState(None).step_past_unreadable() for _ in range(5))


async def take(queue: FrameQueue, limit: int = 10) -> list[Frame]:
    """Take what is there."""
    return await queue.take(max_frames=limit, max_bytes=1_000, timeout_s=0.01)


async def test_frames_come_out_in_order_and_in_batches():
    queue = FrameQueue(max_frames=10, max_bytes=1_000)
    for number in range(5):
        assert await queue.put(str(number).encode(), connection=0)
    assert await take(queue, 3) == [b"0", b"1", b"2"]
    assert await take(queue, 3) == [b"3", b"4"]
    assert await take(queue) == []


async def test_a_full_queue_makes_the_reader_wait():
    queue = FrameQueue(max_frames=10, max_bytes=4)
    assert await queue.put(b"full", connection=0)
    waiting = asyncio.create_task(queue.put(b"next", connection=0))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await take(queue) == [b"full"]
    assert await waiting
    assert await take(queue) == [b"next"]


async def test_a_connection_that_was_given_up_leaves_nothing_behind():
    queue = FrameQueue(max_frames=1, max_bytes=1_000)
    await queue.put(b"old", connection=0)
    late = asyncio.create_task(queue.put(b"late", connection=0))
    await asyncio.sleep(0)
    queue.give_up_connection()
    assert await late is False
    assert await queue.put(b"new", connection=1)
    assert await take(queue) == [b"new"]


async def test_idle_means_taken_and_done_with():
    queue = FrameQueue(max_frames=10, max_bytes=1_000)
    await queue.put(b"x", connection=0)
    idle = asyncio.create_task(queue.wait_idle())
    await take(queue)
    await asyncio.sleep(0)
    assert not idle.done()
    await take(queue)
    await idle


@pytest.mark.rule("CU-15")
def test_pauses_grow_and_start_again_after_progress():
    backoff = Backoff(first_s=1, max_s=8)
    pauses = [backoff.next_delay_s() for _ in range(6)]
    for pause, ceiling in zip(pauses, [1, 2, 4, 8, 8, 8], strict=True):
        assert ceiling / 2 <= pause <= ceiling
    backoff.reset()
    assert backoff.next_delay_s() <= 1


@pytest.mark.rule("ES-01", "CU-07")
@pytest.mark.parametrize(
    ("base", "cursor", "expected"),
    [
        ("https://a.b", None, "wss://a.b/xrpc/com.atproto.sync.subscribeRepos"),
        ("wss://a.b", 0, "wss://a.b/xrpc/com.atproto.sync.subscribeRepos?cursor=0"),
        ("ws://a.b:8", 7, "ws://a.b:8/xrpc/com.atproto.sync.subscribeRepos?cursor=7"),
    ],
)
def test_the_subscription_url(base, cursor, expected):
    assert subscribe_url(base, cursor) == expected


@pytest.mark.rule("OP-01", "ES-01")
@pytest.mark.parametrize(
    "url", ["ws://localhost:8080", "ws://1.1.1.1:80", "wss://127.0.0.1", "wss://localhost:8443"]
)
async def test_nobody_is_connected_to_who_is_not_on_the_public_internet(url):
    reader = FirehoseReader(
        url,
        state=StreamState(None),
        queue=FrameQueue(max_frames=1, max_bytes=1),
        policy=AddressPolicy(allow_private_hosts=False),
        user_agent="test",
        progress=SourceProgress(url, "relay"),
    )
    with pytest.raises(RefusedAddress):
        async with reader._connect(None):
            pass
