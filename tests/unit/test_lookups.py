"""How often the resolver asks, what it remembers, and what it never forgets."""

import asyncio
import json
from typing import Any, cast

import httpx
import pytest

from sync.atproto.keys import PrivateKey
from sync.errors import IdentityError
from sync.handles import HandleLookup, LookupUnavailable
from sync.http import HttpClient, HttpFailure, Reply
from sync.resolver import (
    ERROR_TTL_S,
    FORCED_INTERVAL_S,
    HANDLE_TTL_S,
    INVALID_HANDLE_TTL_S,
    LOOKUPS_PER_S,
    MAX_DOCUMENT_BYTES,
    REQUEST_TIMEOUT_S,
    TRANSIENT_TTL_S,
    Resolver,
)

ALICE = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
BOB = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"
PLC = "https://plc.example.com"
KEY = PrivateKey.generate("k256", seed=b"a").public

Answer = Reply | HttpFailure


def document(did: str = ALICE, *, pds: str = "https://pds.example.com") -> Reply:
    """Return a good document."""
    body = {
        "id": did,
        "alsoKnownAs": ["at://alice.example.com"],
        "verificationMethod": [
            {
                "id": f"{did}#atproto",
                "type": "Multikey",
                "controller": did,
                "publicKeyMultibase": KEY.multikey,
            }
        ],
        "service": [
            {
                "id": "#atproto_pds",
                "type": "AtprotoPersonalDataServer",
                "serviceEndpoint": pds,
            }
        ],
    }
    return Reply(200, httpx.Headers(), json.dumps(body).encode())


def refusal(status: int, message: str = "") -> Reply:
    """Return an answer without a document."""
    return Reply(status, httpx.Headers(), json.dumps({"message": message}).encode())


class Web:
    """A directory whose answers are given, and a name server."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)  # the last one stays
        self.asked: list[str] = []
        self.caps: set[tuple[int, float]] = set()
        self.owner: str | Exception | None = ALICE
        self.names_asked = 0
        self.now = 0.0
        self.is_open = asyncio.Event()
        self.is_open.set()
        http = cast("HttpClient", self)
        handles = HandleLookup(http, ask_txt=self.ask_txt, clock=lambda: self.now)
        self.resolver = Resolver(http, plc_url=PLC, handles=handles, clock=lambda: self.now)

    async def get(self, url: str, *, max_bytes: int, timeout_s: float, **_: Any) -> Reply:
        """Answer with what comes next."""
        if url.endswith("/atproto-did"):
            return refusal(404)
        self.asked.append(url)
        self.caps.add((max_bytes, timeout_s))
        await self.is_open.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, HttpFailure):
            raise answer
        return answer

    async def ask_txt(self, _name: str) -> list[bytes]:
        """Say whose the handle is."""
        self.names_asked += 1
        if isinstance(self.owner, Exception):
            raise self.owner
        return [] if self.owner is None else [b"did=" + self.owner.encode()]

    async def reason(self, did: str = ALICE, *, max_age_s: float = 1e9) -> str:
        """Return why a lookup fails."""
        with pytest.raises(IdentityError) as failed:
            await self.resolver.document(did, max_age_s=max_age_s)
        return failed.value.reason


@pytest.mark.rule("IN-02", "IN-03", "IN-13")
@pytest.mark.parametrize(
    ("did", "url"),
    [
        (ALICE, f"{PLC}/{ALICE}"),
        ("did:web:example.org", "https://example.org/.well-known/did.json"),
    ],
)
async def test_a_did_is_asked_for_at_one_place_within_bounds(did, url):
    web = Web(document(did))
    await web.resolver.document(did)
    assert web.asked == [url]
    assert web.caps == {(MAX_DOCUMENT_BYTES, REQUEST_TIMEOUT_S)}


@pytest.mark.scenario("A-57")
@pytest.mark.rule("IN-02", "IN-04", "IN-13", "IN-14", "D-16", "FA-12")
@pytest.mark.parametrize(
    ("answer", "reason", "requests"),
    [
        (refusal(404, "DID not registered"), "not_found", 1),
        (refusal(410, "DID not available"), "tombstoned", 2),
        (refusal(404, "DID not available"), "tombstoned", 2),
        (refusal(500), "transient", 1),
        (refusal(429), "transient", 1),
        (refusal(403), "transient", 1),
        (HttpFailure("timed_out", "slow"), "transient", 1),
        (HttpFailure("unreachable", "no route"), "transient", 1),
        (HttpFailure("too_big", "10 MB"), "malformed", 1),
        (HttpFailure("refused_address", "loopback"), "malformed", 1),
        (document(BOB), "malformed", 1),
        (Reply(200, httpx.Headers(), b"<html>"), "malformed", 1),
    ],
)
async def test_answers_are_told_apart_and_a_tombstone_is_asked_for_twice(answer, reason, requests):
    web = Web(answer)
    assert await web.reason() == reason
    assert len(web.asked) == requests


@pytest.mark.rule("D-16", "IN-14")
async def test_a_tombstone_that_is_not_confirmed_is_none():
    web = Web(refusal(410), document())
    assert (await web.resolver.document(ALICE)).did == ALICE


@pytest.mark.rule("D-16", "D-11", "IN-14")
@pytest.mark.parametrize("status", [404, 410])
async def test_a_web_server_without_the_document_gives_no_account_up(status):
    """Any page that cannot be found may say so in these words; the account would be purged."""
    web = Web(refusal(status, "The page you requested is not available."))
    assert await web.reason("did:web:example.org") == "not_found"


@pytest.mark.rule("IN-12")
async def test_a_hundred_who_ask_at_once_cause_one_request():
    web = Web(document())
    web.is_open.clear()
    waiting = [asyncio.create_task(web.resolver.document(ALICE, max_age_s=0)) for _ in range(100)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    await asyncio.sleep(0)
    web.is_open.set()
    await asyncio.gather(*waiting)
    assert len(web.asked) == 1


@pytest.mark.rule("IN-11", "IN-12")
@pytest.mark.parametrize(
    ("answer", "ttl_s"),
    [
        (refusal(404), ERROR_TTL_S),
        (refusal(410), ERROR_TTL_S),
        (Reply(200, httpx.Headers(), b"{}"), ERROR_TTL_S),
        (refusal(503), TRANSIENT_TTL_S),
        (HttpFailure("timed_out", "slow"), TRANSIENT_TTL_S),
    ],
)
async def test_a_failure_is_remembered_for_a_while(answer, ttl_s):
    web = Web(answer)
    for _ in range(10):
        await web.reason()
    requests = len(web.asked)
    assert requests <= 2
    web.now += ttl_s - 1
    await web.reason()
    assert len(web.asked) == requests
    web.now += 2
    await web.reason()
    assert len(web.asked) > requests


@pytest.mark.rule("IN-16")
@pytest.mark.parametrize(
    "answer",
    [
        refusal(404),
        refusal(410),
        refusal(500),
        HttpFailure("unreachable", "no route"),
        Reply(200, httpx.Headers(), b"{}"),
        document(BOB),
    ],
)
async def test_no_failed_refresh_overwrites_a_good_document(answer):
    web = Web(document(), answer)
    good = await web.resolver.document(ALICE)
    await web.reason(max_age_s=0)
    assert await web.resolver.document(ALICE) is good
    web.now += FORCED_INTERVAL_S + 1
    with pytest.raises(IdentityError):
        await web.resolver.refresh(ALICE)
    assert await web.resolver.refresh(ALICE) is good


@pytest.mark.rule("SG-09", "MT-08")
@pytest.mark.scenario("A-23")
async def test_forced_lookups_of_one_did_and_of_all_are_limited(monkeypatch):
    monkeypatch.setattr("sync.resolver.LOOKUPS_PER_S", 1e9)
    web = Web(document())
    for _ in range(50):
        await web.resolver.refresh(ALICE)
    assert len(web.asked) == 1
    for number in range(1_000):
        did = f"did:web:a{number}.example.com"
        web.answers = [document(did)]
        await web.resolver.refresh(did)
    assert len(web.asked) == 100, "what was in the bucket"


@pytest.mark.rule("IN-12", "OP-02")
async def test_lookups_have_a_rate_and_the_directory_can_ask_for_a_pause(monkeypatch):
    waits: list[float] = []

    async def sleep(delay_s: float) -> None:
        waits.append(delay_s)

    monkeypatch.setattr("sync.resolver.asyncio.sleep", sleep)
    web = Web(document())
    for _ in range(300):
        await web.resolver.document(ALICE, max_age_s=0)
        web.now += 1e-9
    assert len(waits) == 100
    assert waits[-1] == pytest.approx(100 / LOOKUPS_PER_S, rel=0.01)
    web.now += 60
    web.answers = [Reply(429, httpx.Headers({"retry-after": "30"}), b"")]
    await web.reason(max_age_s=0)
    waits.clear()
    await web.reason(max_age_s=0)
    assert waits == [pytest.approx(30, rel=0.01)]


@pytest.mark.rule("IN-07", "IN-11")
async def test_a_handle_is_believed_for_a_day_and_doubted_for_minutes():
    web = Web(document())
    assert (await web.resolver.resolve(ALICE, max_age_s=1e9)).handle == "alice.example.com"
    web.owner = BOB
    web.now += HANDLE_TTL_S - 1
    assert (await web.resolver.resolve(ALICE, max_age_s=1e9)).handle == "alice.example.com"
    web.now += 1
    assert (await web.resolver.resolve(ALICE, max_age_s=1e9)).handle == "handle.invalid"
    web.owner = ALICE
    web.now += INVALID_HANDLE_TTL_S - 1
    assert (await web.resolver.resolve(ALICE, max_age_s=1e9)).handle == "handle.invalid"
    assert web.names_asked == 2
    web.now += 1
    assert (await web.resolver.resolve(ALICE, max_age_s=1e9)).handle == "alice.example.com"


@pytest.mark.rule("IN-07", "IN-14", "IN-16")
async def test_of_a_handle_nobody_answers_for_nothing_is_known():
    web = Web(document())
    web.owner = LookupUnavailable("no name server")
    assert (await web.resolver.resolve(ALICE)).handle is None, "that its web server knows nothing"


@pytest.mark.scenario("A-57")
@pytest.mark.rule("IN-07")
async def test_two_dids_may_claim_one_handle_and_one_of_them_has_it():
    web = Web(document())
    assert (await web.resolver.resolve(ALICE)).handle == "alice.example.com"
    web.answers = [document(BOB)]
    assert (await web.resolver.resolve(BOB)).handle == "handle.invalid"
    assert await web.resolver.find_did("alice.example.com") == ALICE
    web.owner = "did:plc:cccccccccccccccccccccccc"
    web.answers = [refusal(404)]
    with pytest.raises(IdentityError):
        await web.resolver.find_did("alice.example.com")


@pytest.mark.rule("IN-07")
async def test_a_handle_that_the_did_does_not_claim_back_is_nobodys():
    web = Web(document())
    assert await web.resolver.find_did("other.example.com") is None
