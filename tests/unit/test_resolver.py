"""The parts of identity resolution that need no network."""

import asyncio
import itertools
import json
from typing import Any

import httpx
import pytest

from sync.atproto.syntax import INVALID_HANDLE
from sync.handles import AmbiguousHandle, HandleLookup, read_txt
from sync.http import HttpClient, HttpFailure, Reply
from sync.identities import ask_status, read_status
from sync.limits import BoundedMap, TokenBucket
from sync.resolver import MAX_CONCURRENT_REQUESTS, Resolver

ALICE = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
BOB = "did:web:example.com"


@pytest.mark.rule("IN-08")
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([b"did=" + ALICE.encode()], ALICE),
        ([b"v=spf1 -all", b"did=" + BOB.encode()], BOB),
        ([b"did=" + ALICE.encode()] * 2, ALICE),
        ([b"did=nonsense"], None),
        ([b"DID=" + ALICE.encode()], None),
        ([b"did=did:plc:\xff"], None),
        ([b"did=did:plc:a/b"], None),
    ],
)
def test_a_handles_txt_records_name_one_did(values, expected):
    assert read_txt(values) == expected


@pytest.mark.rule("IN-08")
def test_several_dids_for_one_handle_are_no_answer():
    with pytest.raises(AmbiguousHandle):
        read_txt([b"did=" + ALICE.encode(), b"did=" + BOB.encode()])


def test_a_bucket_gives_its_burst_then_its_rate():
    now = [0.0]
    bucket = TokenBucket(rate_per_s=2, burst=3, clock=lambda: now[0])
    assert [bucket.try_take() for _ in range(4)] == [True, True, True, False]
    now[0] += 0.5
    assert bucket.try_take()
    assert not bucket.try_take()


def test_a_bucket_tells_how_long_to_wait_and_can_be_paused():
    now = [0.0]
    bucket = TokenBucket(rate_per_s=10, burst=1, clock=lambda: now[0])
    assert bucket.take() == 0
    assert bucket.take() == pytest.approx(0.1)
    bucket.pause(5)
    assert bucket.take() == pytest.approx(5.1)


def test_a_bounded_map_forgets_what_was_written_longest_ago():
    bounded: BoundedMap[str, int] = BoundedMap(2)
    bounded["a"] = 1
    bounded["b"] = 2
    bounded["a"] = 3
    bounded["c"] = 4
    assert dict(bounded) == {"a": 3, "c": 4}


@pytest.mark.rule("BF-18", "AC-08", "MT-10")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (None, None),
        ([], None),
        ({"did": BOB, "active": True}, None),
        ({"did": ALICE, "active": "yes"}, None),
        ({"did": ALICE, "active": True, "rev": "3jzfcijpj2z2a"}, (True, None, "3jzfcijpj2z2a")),
        ({"did": ALICE, "active": True, "status": "throttled"}, (True, None, None)),
        ({"did": ALICE, "active": False, "status": "odd"}, (False, "odd", None)),
        ({"did": ALICE, "active": False}, (False, None, None)),
        ({"did": ALICE, "rev": "not a tid"}, (True, None, None)),
        ({"did": ALICE, "rev": 7}, (True, None, None)),
    ],
)
def test_what_a_host_says_of_an_account_is_read_with_care(body, expected):
    status = read_status(body, ALICE)
    found = None if status is None else (status.is_active, status.status, status.rev)
    assert found == expected


class Busy(HttpClient):
    """A host that has one answer for everybody."""

    def __init__(self, status: int) -> None:
        super().__init__(user_agent="test")
        self.status = status

    async def get(self, url: str, **_: Any) -> Reply:
        """Give it."""
        return Reply(self.status, httpx.Headers(), b"")


@pytest.mark.rule("AC-10")
async def test_a_host_that_cannot_answer_now_has_said_nothing():
    for status in (429, 500, 503):
        with pytest.raises(HttpFailure, match="unreachable"):
            await ask_status(Busy(status), "https://pds.example.com", ALICE)
    assert await ask_status(Busy(400), "https://pds.example.com", ALICE) is None


class Web(HttpClient):
    """A directory that answers, and web servers that never do."""

    async def get(self, url: str, **_: Any) -> Reply:
        """Answer for the directory."""
        if not url.startswith("https://plc.example.com/"):
            await asyncio.Event().wait()
        return Reply(200, httpx.Headers(), json.dumps({"id": url.rpartition("/")[2]}).encode())


class Names:
    """A handle lookup that answers what it is told to."""

    def __init__(self) -> None:
        self.owner: str | None = None
        self.asked = 0

    async def find_did(self, _handle: str) -> str | None:
        """Answer, and count."""
        self.asked += 1
        return self.owner


class Directory(HttpClient):
    """A directory where everybody claims one handle."""

    async def get(self, url: str, **_: Any) -> Reply:
        """Answer with a document."""
        document = {"id": url.rpartition("/")[2], "alsoKnownAs": ["at://alice.example.com"]}
        return Reply(200, httpx.Headers(), json.dumps(document).encode())


@pytest.mark.rule("IN-07", "IN-11", "MT-07")
async def test_a_handle_that_was_wrong_a_moment_ago_is_asked_again_when_there_is_news():
    names: Any = Names()
    http = Directory(user_agent="test")
    resolver = Resolver(http, plc_url="https://plc.example.com", handles=names)
    assert (await resolver.resolve(ALICE)).handle == INVALID_HANDLE
    assert (await resolver.resolve(ALICE)).handle == INVALID_HANDLE
    assert names.asked == 1
    names.owner = ALICE
    assert (await resolver.resolve(ALICE, max_age_s=30)).handle == "alice.example.com"
    assert (await resolver.resolve(ALICE, max_age_s=30)).handle == "alice.example.com"
    assert names.asked == 2


async def settle() -> None:
    """Let every task go on until it waits for something from outside."""
    for _ in range(100):
        await asyncio.sleep(0)


class Slow(HttpClient):
    """A directory that answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(user_agent="test")
        self.asked: list[asyncio.Event] = []

    async def get(self, url: str, **_: Any) -> Reply:
        """Answer with the number of the question as the handle."""
        answer = asyncio.Event()
        self.asked.append(answer)
        handle = f"at://a{len(self.asked)}.example.com"
        await answer.wait()
        document = {"id": url.rpartition("/")[2], "alsoKnownAs": [handle]}
        return Reply(200, httpx.Headers(), json.dumps(document).encode())


@pytest.mark.rule("MT-07", "IN-12", "SG-08")
async def test_who_asks_anew_is_not_given_what_was_asked_before():
    ticks = itertools.count()
    http = Slow()
    resolver = Resolver(
        http,
        plc_url="https://plc.example.com",
        handles=HandleLookup(http),
        clock=lambda: next(ticks),
    )
    first = asyncio.create_task(resolver.document(ALICE))
    await settle()
    joined = asyncio.create_task(resolver.document(ALICE, max_age_s=1000))
    anew = [asyncio.create_task(resolver.document(ALICE, max_age_s=0)) for _ in range(3)]
    await settle()
    assert len(http.asked) == 1, "one at a time"
    http.asked[0].set()
    assert (await first).handle_claim == (await joined).handle_claim == "a1.example.com"
    await settle()
    assert len(http.asked) == 2, "one for all who wait"
    http.asked[1].set()
    assert {(await one).handle_claim for one in anew} == {"a2.example.com"}


@pytest.mark.rule("IN-12", "MT-08")
async def test_web_servers_that_say_nothing_do_not_stop_the_directory():
    http = Web(user_agent="test")
    resolver = Resolver(http, plc_url="https://plc.example.com", handles=HandleLookup(http))
    waiting = [
        asyncio.create_task(resolver.document(f"did:web:a{number}.example.com"))
        for number in range(MAX_CONCURRENT_REQUESTS)
    ]
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        assert (await resolver.document(ALICE)).did == ALICE
    await resolver.aclose()
    await asyncio.gather(*waiting, return_exceptions=True)
