"""What a lane makes of messages: staged, refused, or to be judged again with a newer identity."""

from dataclasses import replace

import asyncpg
import pytest

from sync.applier import data_fault
from sync.atproto.frame import (
    AccountMessage,
    CommitMessage,
    IdentityMessage,
    UnknownMessage,
    read_frame,
    write_frame,
)
from sync.atproto.keys import PrivateKey
from sync.atproto.syntax import tid_time_us
from sync.atproto.verify import MAX_FUTURE_US
from sync.problems import MAX_ENTRIES, ProblemLog, storable
from sync.simnet import World
from sync.staging import StagedEvent
from sync.tracking import CollectionFilter, Signer, TrackedRepos
from sync.triage import Triage, Waiting, host_of

NOTE = "com.example.note"
TIME = "2026-01-01T00:00:00Z"
PDS = "https://pds.example.com"
FAR_FUTURE_US = 2**52


class Bench:
    """A triage that knows one account of a world that never was on any network."""

    def __init__(self, *, url: str = "wss://relay.example.com", is_pds: bool = False) -> None:
        self.world = World(seed=3)
        self.world.hosts[0].url = PDS
        self.account = self.world.create_account("alice.test")
        self.repos = TrackedRepos()
        self.repos.collections = CollectionFilter(["*"])
        key = self.account.repo.key.public.did_key
        self.repos._signers[self.account.did] = Signer(key, PDS)
        self.problems = ProblemLog()
        self.triage = Triage(
            self.repos,
            url=url,
            is_pds=is_pds,
            problems=self.problems,
            clock_us=lambda: FAR_FUTURE_US,
        )

    def commit(self) -> CommitMessage:
        """Make a commit and return its message."""
        self.account.create(NOTE, {"$type": NOTE, "text": "hi"}, rkey="a")
        message = read_frame(self.world.relay.events()[-1].frame)
        assert isinstance(message, CommitMessage)
        return message

    def reasons(self) -> set[str]:
        """Return what was refused."""
        return {key.reason for key in self.problems._entries}


@pytest.mark.rule("FA-14")
def test_a_message_that_breaks_the_verifier_is_counted_and_stops_nobody(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    bench = Bench()
    message = bench.commit()
    monkeypatch.setattr("sync.triage.verify_commit", fail)
    assert bench.triage.judge(message) is None
    assert bench.reasons() == {"unexpected_error"}


@pytest.mark.rule("SG-02", "HO-03")
def test_a_signed_commit_is_staged_with_its_records():
    bench = Bench()
    message = bench.commit()
    staged = bench.triage.judge(message)
    assert isinstance(staged, StagedEvent)
    assert (staged.kind, staged.rev, staged.prev_data) == (
        "commit",
        message.rev,
        message.prev_data,
    )
    assert staged.ops is not None
    assert staged.ops[0][:3] == ("create", NOTE, "a")
    assert staged.ops[0].value == '{"text":"hi","$type":"com.example.note"}'


@pytest.mark.rule("CU-16", "MT-03")
def test_the_time_of_a_message_decides_nothing():
    bench = Bench()
    message = bench.commit()
    staged = bench.triage.judge(message)
    for time in ("", "yesterday", "9999-12-31T23:59:59Z", "\x00"):
        assert bench.triage.judge(replace(message, time=time)) == staged


@pytest.mark.rule("BF-07")
def test_records_of_untracked_collections_are_left_out_of_a_commit():
    bench = Bench()
    bench.repos.collections = CollectionFilter(["app.bsky.feed.*"])
    staged = bench.triage.judge(bench.commit())
    assert isinstance(staged, StagedEvent)
    assert staged.ops == ()


@pytest.mark.rule("SG-08", "FA-03", "SG-14", "D-03", "SG-10")
def test_a_bad_signature_waits_for_a_newer_key_and_is_remembered_when_there_is_none():
    bench = Bench()
    message = bench.commit()
    stranger = PrivateKey.generate("k256", seed=b"x").public.did_key
    good = bench.repos.signer(bench.account.did)
    bench.repos.learn(bench.account.did, Signer(stranger, PDS))
    waiting = bench.triage.judge(message)
    assert isinstance(waiting, Waiting)
    assert waiting.doubt == "bad_signature"
    refused = bench.triage.give_up(waiting)
    assert refused is not None
    assert (refused.kind, refused.status) == ("rejected", f"{stranger} {PDS}")
    assert bench.reasons() == {"bad_signature"}
    bench.repos.learn(bench.account.did, good)
    assert isinstance(bench.triage.judge(message), StagedEvent)


@pytest.mark.rule("SG-10")
def test_without_a_key_nothing_is_verified_and_nothing_accepted():
    bench = Bench()
    bench.repos.forget_signer(bench.account.did)
    waiting = bench.triage.judge(bench.commit())
    assert isinstance(waiting, Waiting)
    assert waiting.doubt == "no_key"


@pytest.mark.rule("D-03", "IV-01")
@pytest.mark.scenario("A-14")
def test_an_authentic_commit_that_lies_about_its_ops_is_broken():
    bench = Bench()
    message = bench.commit()
    staged = bench.triage.judge(replace(message, ops=()))
    assert isinstance(staged, StagedEvent)
    assert (staged.kind, staged.rev) == ("broken", message.rev)
    assert len(bench.problems) == 1


@pytest.mark.rule("FA-02", "CM-12")
def test_a_message_that_is_not_what_was_signed_changes_nothing():
    bench = Bench()
    message = bench.commit()
    assert bench.triage.judge(replace(message, rev="3jzfcijpj2z2a")) is None
    assert bench.reasons() == {"rev_mismatch"}


@pytest.mark.rule("CM-16", "FA-05")
def test_a_commit_from_the_future_changes_nothing():
    bench = Bench()
    message = bench.commit()
    bench.triage._clock_us = lambda: tid_time_us(message.rev) - MAX_FUTURE_US - 1
    assert bench.triage.judge(message) is None
    assert bench.reasons() == {"future_rev"}


@pytest.mark.rule("CM-11", "SN-03")
def test_a_commit_of_another_account_changes_nothing_though_one_key_signs_for_both():
    bench = Bench()
    message = bench.commit()
    other = bench.world.create_account("mallory.test")
    bench.repos._signers[other.did] = bench.repos.signer(bench.account.did)
    assert bench.triage.judge(replace(message, did=other.did)) is None
    assert bench.reasons() == {"did_mismatch"}


@pytest.mark.rule("HO-01", "HO-02", "FA-08")
def test_on_a_pds_source_only_the_accounts_own_host_is_heard():
    bench = Bench(url="wss://pds.example.com", is_pds=True)
    assert isinstance(bench.triage.judge(bench.commit()), StagedEvent)
    other = Bench(url="wss://other.example.com", is_pds=True)
    waiting = other.triage.judge(other.commit())
    assert isinstance(waiting, Waiting)
    assert waiting.doubt == "wrong_host"
    refused = other.triage.give_up(waiting)
    assert refused is not None, "what a new host wrote before we knew of it is made up for"
    assert (refused.kind, refused.reason) == ("rejected", "wrong_host")
    assert other.reasons() == {"wrong_host"}


@pytest.mark.rule("AC-09", "AC-11", "MG-03", "D-12")
@pytest.mark.parametrize(
    ("url", "is_pds", "host"),
    [
        ("wss://pds.example.com", True, "pds.example.com"),
        ("wss://other.example.com", True, "other.example.com"),
        ("wss://relay.example.com", False, None),
    ],
)
def test_what_a_pds_says_of_an_account_names_the_pds(url, is_pds, host):
    bench = Bench(url=url, is_pds=is_pds)
    down = AccountMessage(1, bench.account.did, active=False, status="deactivated", time=TIME)
    staged = bench.triage.judge(down)
    assert isinstance(staged, StagedEvent)
    assert (staged.kind, staged.is_active, staged.reason) == ("account", False, host)


@pytest.mark.rule("MT-09", "MT-10", "AC-08")
@pytest.mark.parametrize(
    ("active", "status", "stored"),
    [(True, "throttled", None), (False, "odd\x00", "odd\ufffd"), (False, None, None)],
)
def test_the_active_flag_governs_and_the_status_explains(active, status, stored):
    bench = Bench()
    message = AccountMessage(1, bench.account.did, active=active, status=status, time=TIME)
    staged = bench.triage.judge(message)
    assert isinstance(staged, StagedEvent)
    assert (staged.is_active, staged.status) == (active, stored)


@pytest.mark.rule("MT-07", "HO-04")
@pytest.mark.parametrize(
    ("url", "is_pds"), [("wss://relay.example.com", False), ("wss://other.example.com", True)]
)
def test_an_identity_event_of_any_host_makes_the_known_key_doubtful(url, is_pds):
    bench = Bench(url=url, is_pds=is_pds)
    staged = bench.triage.judge(IdentityMessage(1, bench.account.did, None, TIME))
    assert isinstance(staged, StagedEvent)
    assert staged.kind == "identity"
    assert bench.repos.signer(bench.account.did).key() is None


@pytest.mark.rule("ES-10", "FA-13")
def test_an_unknown_kind_is_counted():
    bench = Bench()
    message = read_frame(write_frame("#future", {"seq": 1}))
    assert isinstance(message, UnknownMessage)
    assert bench.triage.judge(message) is None
    assert bench.reasons() == {"unknown_message"}


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Pds.Example.com", "pds.example.com"),
        ("wss://pds.example.com:443", "pds.example.com"),
        ("ws://localhost:2583", "localhost:2583"),
        ("http://localhost:80", "localhost"),
        ("", ""),
    ],
)
@pytest.mark.rule("HO-01")
def test_hosts_are_compared_by_name_and_port(url, host):
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("patterns", "tracked", "untracked"),
    [
        (["*"], ["a.b.c"], []),
        (["app.bsky.feed.post"], ["app.bsky.feed.post"], ["app.bsky.feed.posts"]),
        (["app.bsky.feed.*"], ["app.bsky.feed.post", "app.bsky.feed.x.y"], ["app.bsky.feedx.post"]),
        ([], [], ["a.b.c"]),
    ],
)
def test_collection_patterns(patterns, tracked, untracked):
    chosen = CollectionFilter(patterns)
    assert all(chosen.is_tracked(nsid) for nsid in tracked)
    assert not any(chosen.is_tracked(nsid) for nsid in untracked)


@pytest.mark.rule("FA-13")
def test_hostile_input_cannot_fill_the_problem_log():
    problems = ProblemLog()
    for number in range(MAX_ENTRIES + 500):
        problems.note("bad_signature", did=f"did:plc:{number}", detail="x" * 10_000)
    assert len(problems) <= MAX_ENTRIES + 1
    assert problems.events() == MAX_ENTRIES + 500
    taken = problems.take()
    assert (len(problems), taken.events()) == (0, MAX_ENTRIES + 500)


def test_text_that_postgresql_cannot_hold_is_made_storable():
    assert storable("a\x00b\ud800c") == "a\ufffdb?c"


@pytest.mark.rule("OP-10")
@pytest.mark.scenario("A-36")
def test_only_the_data_itself_is_blamed_for_a_refusal():
    class Refusal(Exception):
        sqlstate = "22P05"

    assert data_fault(ValueError("cannot encode")) is not None
    assert data_fault(asyncpg.UniqueViolationError("23505")) is not None
    assert data_fault(asyncpg.DeadlockDetectedError("40P01")) is None
    assert data_fault(asyncpg.DiskFullError("53100")) is None
    assert data_fault(OSError("gone")) is None
    assert data_fault(Refusal("not from the driver")) is None
