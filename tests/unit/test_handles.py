"""Which of DNS and HTTPS decides whose a handle is."""

import pytest

from sync.handles import AmbiguousHandle, HandleLookup, LookupUnavailable
from sync.http import HttpClient

ALICE = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
BOB = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"
SILENT = LookupUnavailable("no answer")

Answer = str | Exception | None


class Lookup(HandleLookup):
    """A lookup whose answers are given."""

    def __init__(self, dns: Answer, http: Answer) -> None:
        super().__init__(HttpClient(user_agent="test"))
        self._answers = {"dns": dns, "http": http}

    def _say(self, who: str) -> str | None:
        answer = self._answers[who]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _ask_dns(self, name: str) -> str | None:
        return self._say("dns")

    async def _ask_http(self, url: str, host: str | None) -> str | None:
        return self._say("http")


@pytest.mark.rule("IN-08", "IN-09", "IN-10", "IN-14")
@pytest.mark.parametrize(
    ("dns", "http", "expected"),
    [
        (ALICE, BOB, ALICE),
        (ALICE, SILENT, ALICE),
        (None, BOB, BOB),
        (None, None, None),
        (AmbiguousHandle("two"), BOB, None),
        (SILENT, BOB, BOB),
        (None, SILENT, None),
        (SILENT, None, None),
        (SILENT, SILENT, SILENT),
    ],
)
async def test_dns_decides_then_https_and_silence_is_no_answer(dns, http, expected):
    lookup = Lookup(dns, http)
    if isinstance(expected, Exception):
        with pytest.raises(LookupUnavailable):
            await lookup.find_did("alice.example.com")
    else:
        assert await lookup.find_did("alice.example.com") == expected


@pytest.mark.rule("SX-06", "SX-07")
@pytest.mark.parametrize("handle", ["handle.invalid", "a.local", "a.onion", "a.test", "no"])
async def test_handles_that_cannot_exist_are_not_looked_up(handle):
    assert await Lookup(ALICE, ALICE).find_did(handle) is None
