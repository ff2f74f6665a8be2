"""Which of DNS and HTTPS decides whose a handle is."""

import asyncio
from typing import cast

import httpx
import pytest

from sync.handles import LOOKUPS_PER_S, SILENCE_S, HandleLookup, LookupUnavailable
from sync.http import HttpClient, HttpFailure, Reply

ALICE = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
BOB = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"
SILENT = LookupUnavailable("no answer")

Answer = str | Exception | None


class Names:
    """The network as a lookup sees it: what DNS and the web server say, and how often they did."""

    def __init__(self, dns: Answer = None, http: Answer = None, *, status: int = 200) -> None:
        self.dns, self.http, self.status = dns, http, status
        self.max_bytes = 0
        self.asked: list[str] = []
        self.now = 0.0
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.lookup = HandleLookup(
            cast("HttpClient", self), ask_txt=self.ask_txt, clock=lambda: self.now
        )

    async def ask_txt(self, name: str) -> list[bytes]:
        """Answer as DNS does; two DIDs are given with a space between them."""
        self.asked.append(f"dns {name}")
        await self.is_open.wait()
        if isinstance(self.dns, Exception):
            raise self.dns
        return [b"did=" + did.encode() for did in (self.dns or "").split()]

    async def get(self, url: str, *, max_bytes: int, **_: object) -> Reply:
        """Answer as the handle's web server does."""
        self.asked.append(url)
        self.max_bytes = max_bytes
        if isinstance(self.http, Exception):
            raise self.http
        status = 404 if self.http is None else self.status
        return Reply(status, httpx.Headers(), f" {self.http}\n".encode())


@pytest.mark.scenario("A-57")
@pytest.mark.rule("IN-08", "IN-09", "IN-10", "IN-14")
@pytest.mark.parametrize(
    ("dns", "http", "expected"),
    [
        (ALICE, BOB, ALICE),
        (ALICE, SILENT, ALICE),
        (None, BOB, BOB),
        (None, None, None),
        (f"{ALICE} {BOB}", BOB, None),
        (None, "no did at all", None),
        (None, HttpFailure("too_big", "4 GB"), None),
        (None, HttpFailure("refused_address", "loopback"), None),
        (SILENT, BOB, BOB),
        (None, SILENT, None),
        (SILENT, None, SILENT),
        (SILENT, SILENT, SILENT),
    ],
)
async def test_dns_decides_then_https_and_silence_is_no_answer(dns, http, expected):
    if isinstance(http, LookupUnavailable):
        http = HttpFailure("timed_out", "no answer")
    names = Names(dns, http)
    if isinstance(expected, Exception):
        with pytest.raises(LookupUnavailable):
            await names.lookup.find_did("Alice.example.com")
    else:
        assert await names.lookup.find_did("Alice.example.com") == expected
    asked = ["dns _atproto.alice.example.com.", "https://alice.example.com/.well-known/atproto-did"]
    assert names.asked == (asked if dns in (None, SILENT) else asked[:1])


@pytest.mark.rule("IN-09")
async def test_what_comes_with_an_error_is_no_answer_and_no_answer_is_long():
    names = Names(http=ALICE)
    assert await names.lookup.find_did("alice.example.com") == ALICE
    assert 0 < names.max_bytes <= 4096
    for status in (301, 403, 404):
        assert await Names(http=ALICE, status=status).lookup.find_did("alice.example.com") is None


@pytest.mark.rule("SX-06", "SX-07")
@pytest.mark.parametrize("handle", ["handle.invalid", "a.local", "a.onion", "a.test", "no"])
async def test_handles_that_cannot_exist_are_not_looked_up(handle):
    names = Names(ALICE, ALICE)
    assert await names.lookup.find_did(handle) is None
    assert names.asked == []


@pytest.mark.rule("IN-12")
async def test_many_who_ask_for_one_handle_cause_one_question():
    names = Names(ALICE)
    names.is_open.clear()
    waiting = [asyncio.create_task(names.lookup.find_did("a.example.com")) for _ in range(50)]
    await asyncio.sleep(0)
    waiting.pop().cancel()  # who gives up takes the answer from nobody
    await asyncio.sleep(0)
    names.is_open.set()
    assert set(await asyncio.gather(*waiting)) == {ALICE}
    assert len(names.asked) == 1


@pytest.mark.rule("IN-12", "MT-08")
async def test_a_name_that_says_nothing_is_left_alone_for_a_while():
    names = Names(SILENT, HttpFailure("unreachable", "no route"))
    for _ in range(100):
        with pytest.raises(LookupUnavailable):
            await names.lookup.find_did("a.example.com")
    assert len(names.asked) == 2
    names.dns = ALICE
    names.now += SILENCE_S
    assert await names.lookup.find_did("a.example.com") == ALICE


@pytest.mark.rule("IN-12", "MT-08")
async def test_names_are_asked_for_at_a_rate(monkeypatch):
    waits: list[float] = []

    async def sleep(delay_s: float) -> None:
        waits.append(delay_s)

    monkeypatch.setattr("sync.handles.asyncio.sleep", sleep)
    names = Names(ALICE)
    for number in range(300):
        await names.lookup.find_did(f"a{number}.example.com")
    assert len(waits) == 100
    assert waits[-1] == pytest.approx(100 / LOOKUPS_PER_S)
