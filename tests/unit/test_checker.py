"""What becomes of a question about an account: who is asked, and what counts as which answer."""

import asyncio
import json
from itertools import islice
from typing import Any, cast

import httpx
import pytest

from sync.atproto.identity import DidDocument
from sync.checker import ANSWER_ATTEMPTS, QUESTIONS_PER_HOST, AccountChecker
from sync.errors import IdentityError
from sync.http import HttpClient, HttpFailure, Reply
from sync.identities import IdentityKeeper
from sync.resolver import Resolver

ALICE = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
HOME, AWAY = "https://pds.example.com", "https://new.example.com"


def reply(code: int, **body: object) -> Reply:
    """Return what a PDS says."""
    return Reply(code, httpx.Headers(), json.dumps(body).encode())


class Bench:
    """A checker between a database, a directory and a PDS whose answers are given."""

    def __init__(self, said: Reply | HttpFailure, *places: str | IdentityError | None) -> None:
        self.said = said
        self.places = list(places) or [HOME]  # what the document names; the last one stays
        self.answers: list[tuple[Any, ...]] = []
        self.refusals = 0  # by a repo that is locked
        self.asked: list[str] = []
        self.running = self.most_running = 0
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.checker = AccountChecker(
            cast("IdentityKeeper", self),
            http=cast("HttpClient", self),
            resolver=cast("Resolver", self),
        )

    async def document(self, did: str, *, max_age_s: float) -> DidDocument:
        """Look a DID up, past every cache."""
        assert max_age_s == 0
        place = self.places.pop(0) if len(self.places) > 1 else self.places[0]
        if isinstance(place, IdentityError):
            raise place
        return DidDocument(did, None, place, None)

    async def store_if_moved(self, _document: DidDocument) -> None:
        """Store a document."""

    async def get(self, url: str, **_: Any) -> Reply:
        """Ask a PDS."""
        self.asked.append(url)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        await asyncio.sleep(0)
        await self.is_open.wait()
        self.running -= 1
        if isinstance(self.said, HttpFailure):
            raise self.said
        return self.said

    async def fetch(self, _query: str, *args: Any) -> list[dict[str, Any]]:
        """Take an answer."""
        if self.refusals:
            self.refusals -= 1
            return [{"is_taken": None}]
        self.answers.append(args)
        return [{"is_taken": True}]


@pytest.mark.rule("D-11", "AC-09", "AC-10", "AC-13", "AC-14", "IN-14", "IN-15", "MG-03")
@pytest.mark.parametrize(
    ("said", "places", "expected"),
    [
        (reply(200, did=ALICE, active=True), [HOME], (HOME, "active", None)),
        (
            reply(200, did=ALICE, active=False, status="takendown"),
            [HOME, HOME],
            (HOME, "inactive", "takendown"),
        ),
        # Whom it has just left calls it deactivated (MG-03).
        (
            reply(200, did=ALICE, active=False, status="deactivated"),
            [HOME, AWAY],
            (AWAY, "none", None),
        ),
        (
            reply(200, did=ALICE, active=False, status="deleted"),
            [HOME, HOME],
            (HOME, "inactive", "deleted"),
        ),
        (reply(400, error="RepoNotFound"), [HOME, HOME], (HOME, "unknown", None)),
        # It moved while we asked: what the old host said is worth nothing.
        (reply(400, error="RepoNotFound"), [HOME, AWAY], (AWAY, "none", None)),
        (
            reply(200, did=ALICE, active=False, status="deleted"),
            [HOME, AWAY],
            (AWAY, "none", None),
        ),
        (
            reply(400, error="RepoNotFound"),
            [HOME, IdentityError("tombstoned", "")],
            (None, "tombstoned", None),
        ),
        # No answer is no answer.
        (reply(400, error="InvalidRequest"), [HOME], (HOME, "none", None)),
        (reply(404), [HOME], (HOME, "none", None)),
        (reply(429), [HOME], (HOME, "none", None)),
        (reply(502), [HOME], (HOME, "none", None)),
        (reply(200, did="did:web:example.com", active=False), [HOME], (HOME, "none", None)),
        (HttpFailure("timed_out", "slow"), [HOME], (HOME, "none", None)),
        (reply(200), [None], (None, "none", None)),
        (reply(200), [IdentityError("tombstoned", "")], (None, "tombstoned", None)),
        (reply(200), [IdentityError("not_found", "")], (None, "none", None)),
        (reply(200), [IdentityError("transient", "")], (None, "none", None)),
        (reply(200), [IdentityError("malformed", "")], (None, "none", None)),
    ],
)
async def test_only_the_present_pds_is_heard(said, places, expected):
    bench = Bench(said, *places)
    await bench.checker.check(ALICE, 7)
    assert bench.answers == [(ALICE, 7, *expected)]


async def test_an_answer_about_a_locked_repo_is_told_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sync.checker.ANSWER_RETRY_S", 0.0)
    bench = Bench(reply(200, did=ALICE, active=True))
    bench.refusals = ANSWER_ATTEMPTS - 1
    await bench.checker.check(ALICE, 7)
    assert len(bench.answers) == 1
    bench.refusals = ANSWER_ATTEMPTS
    await bench.checker.check(ALICE, 8)
    assert len(bench.answers) == 1, "another claim follows"


@pytest.mark.rule("OP-02", "IN-12")
async def test_one_host_is_asked_a_few_things_at_a_time():
    bench = Bench(reply(200, did=ALICE, active=True))
    await asyncio.gather(*(bench.checker.check(ALICE, serial) for serial in range(50)))
    assert (bench.most_running, len(bench.answers)) == (QUESTIONS_PER_HOST, 50)


@pytest.mark.rule("OP-02", "IN-12")
async def test_who_waits_for_a_host_that_is_stuck_is_asked_about_later(monkeypatch):
    monkeypatch.setattr("sync.checker.HOST_WAIT_S", 0.01)
    bench = Bench(reply(200, did=ALICE, active=True))
    bench.is_open.clear()
    stuck = [asyncio.create_task(bench.checker.check(ALICE, n)) for n in range(50)]
    for given_up in islice(asyncio.as_completed(stuck, timeout=60), 50 - QUESTIONS_PER_HOST):
        await given_up
    stuck_for_good = [task for task in stuck if not task.done()]
    assert len(stuck_for_good) == QUESTIONS_PER_HOST
    assert (bench.answers, len(bench.asked)) == ([], QUESTIONS_PER_HOST)
    bench.is_open.set()
    await asyncio.gather(*stuck_for_good)
    assert len(bench.answers) == QUESTIONS_PER_HOST
