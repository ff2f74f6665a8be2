"""A PDS that is asked about its accounts and does not mean well."""

import asyncio
import itertools
import json
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from sync import gaps
from sync.atproto.identity import DidDocument
from sync.errors import IdentityError
from sync.http import HttpClient, HttpFailure, Reply

PDS = "https://pds.example.com"


def did(number: int) -> str:
    """Return a DID."""
    return f"did:web:a{number}.example.com"


class Pds(HttpClient):
    """Answers without a network: a list without end, and statuses."""

    def __init__(
        self,
        *,
        is_away: bool = False,
        is_active: bool = True,
        delay_s: float = 0.0,
        cursors: Iterable[object] = itertools.count(1),
    ) -> None:
        super().__init__(user_agent="test")
        self.is_away = is_away
        self.is_active = is_active
        self.delay_s = delay_s
        self.cursors = map(str, cursors)
        self.asked = 0

    async def get(self, url: str, **options: Any) -> Reply:
        """Answer like a server of that kind."""
        self.asked += 1
        # However busy the machine is, the first page comes in time.
        if self.asked > 1 or not url.endswith("listRepos"):
            await asyncio.sleep(self.delay_s)
        if url.endswith("listRepos"):
            entry = {"did": did(0), "head": "x", "rev": "3jzfcijpj2z2a", "active": True}
            page = {"cursor": next(self.cursors, None), "repos": [entry]}
            return Reply(200, httpx.Headers(), json.dumps(page).encode())
        if self.is_away:
            raise HttpFailure("unreachable", url)
        body = {
            "did": str(options["params"]["did"]),
            "active": self.is_active,
            "rev": "3jzfcijpj2z2a",
        }
        return Reply(200, httpx.Headers(), json.dumps(body).encode())


class Directory:
    """Stands in for a resolver that finds no document, or takes for ever."""

    def __init__(self, *, reason: str = "not_found", is_slow: bool = False) -> None:
        self.reason = reason
        self.is_slow = is_slow

    async def document(self, did: str, *, max_age_s: float = 0.0) -> DidDocument:
        """Fail to look a DID up."""
        if self.is_slow:
            await asyncio.Event().wait()
        raise IdentityError(self.reason, f"{did}, {max_age_s:g} s")


@pytest.mark.scenario("A-56")
@pytest.mark.rule("BF-18", "CU-09")
async def test_a_list_without_end_costs_a_bounded_time(monkeypatch):
    monkeypatch.setattr(gaps, "HOST_TIMEOUT_S", 0.2)
    async with asyncio.timeout(60):
        answers = await gaps.ask_host(Pds(delay_s=0.01), PDS, [did(n) for n in range(60)])
    assert list(answers.statuses) == [did(0)]
    assert answers.unanswered == sorted(did(n) for n in range(1, 60))


@pytest.mark.rule("BF-18")
@pytest.mark.parametrize(
    ("cursors", "pages"),
    [
        pytest.param([], 1, id="the end"),
        pytest.param([1, 2, 3], 4, id="some pages"),
        pytest.param(itertools.cycle("ab"), 3, id="a circle"),
        pytest.param(["x" * (gaps.MAX_CURSOR_CHARS + 1), "x"], 1, id="a long cursor"),
        pytest.param(range(100), 10, id="too many pages"),
    ],
)
async def test_a_list_is_read_until_it_ends_or_means_no_good(monkeypatch, cursors, pages):
    monkeypatch.setattr(gaps, "MAX_LIST_PAGES", 10)
    http = Pds(cursors=cursors)
    assert len([entry async for entry in gaps.list_repos(http, PDS)]) == pages
    assert http.asked == pages


@pytest.mark.rule("AC-10", "CU-09")
async def test_a_host_that_is_away_is_asked_once_by_each_and_no_more():
    http = Pds(is_away=True, delay_s=0.01)
    answers = await gaps.ask_host(http, PDS, [did(n) for n in range(49)])
    assert http.asked <= gaps.CONCURRENT_QUESTIONS
    assert (answers.statuses, len(answers.unanswered)) == ({}, 49)


@pytest.mark.rule("CU-09")
async def test_a_host_that_answers_leaves_nobody_unanswered():
    answers = await gaps.ask_host(Pds(), PDS, [did(n) for n in range(49)])
    assert (len(answers.statuses), answers.unanswered) == (49, [])
