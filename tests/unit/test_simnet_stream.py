"""The simulated event stream: numbers that rise, a window that shrinks, losses on request."""

from sync.atproto.frame import IdentityMessage, read_frame
from sync.simnet.stream import Stream

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
OTHER = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"


def a_stream(count: int = 5) -> Stream:
    stream = Stream()
    for number in range(count):
        did = OTHER if number % 2 else DID
        stream.append(did, "#identity", {"did": did, "time": "2025-01-01T00:00:00.000Z"})
    return stream


def seqs(stream: Stream, after: int = 0) -> list[int]:
    return [event.seq for event in stream.after(after)]


def test_events_are_numbered_from_one_and_replayed_after_a_seq():
    assert seqs(a_stream()) == [1, 2, 3, 4, 5]
    assert seqs(a_stream(), after=3) == [4, 5]
    assert seqs(a_stream(), after=5) == []


def test_a_frame_reads_back_with_its_seq():
    message = read_frame(a_stream().after(1)[0].frame)
    assert isinstance(message, IdentityMessage)
    assert (message.seq, message.did) == (2, OTHER)


def test_a_dropped_event_leaves_a_gap_in_the_numbers():
    stream = a_stream(2)
    stream.drop_next(2)
    for _ in range(3):
        stream.append(DID, "#identity", {"did": DID})
    assert seqs(stream) == [1, 2, 5]
    assert stream.last_seq == 5


def test_forgetting_all_empties_the_window_and_keeps_the_count():
    stream = a_stream()
    stream.forget()
    assert (seqs(stream), stream.forgotten_seq, stream.last_seq) == ([], 5, 5)


def test_forgetting_before_a_seq_keeps_that_event():
    stream = a_stream()
    stream.forget(before=3)
    assert (seqs(stream), stream.forgotten_seq) == ([3, 4, 5], 2)


def test_the_window_is_bounded_and_says_what_it_forgot(monkeypatch):
    monkeypatch.setattr("sync.simnet.stream.WINDOW_EVENTS", 10)
    monkeypatch.setattr("sync.simnet.stream._CUT_EVENTS", 5)
    stream = a_stream(16)
    assert (seqs(stream), stream.forgotten_seq) == (list(range(7, 17)), 6)


def test_forgetting_an_account_takes_its_events_out():
    stream = a_stream()
    stream.forget_did(OTHER)
    assert seqs(stream) == [1, 3, 5]


def test_listeners_are_woken_until_they_leave():
    stream, woken = a_stream(), []
    with stream.listening(lambda: woken.append("up")):
        stream.append(DID, "#identity", {"did": DID})
        stream.kick()
    stream.append(DID, "#identity", {"did": DID})
    assert woken == ["up", "up"]
