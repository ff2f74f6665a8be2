"""Close gaps: after events were lost, compare every tracked repo with what its PDS says.

Accounts that never commit again would otherwise stay stale for ever (CU-09). Where many repos
live on one PDS its list is read page by page, where few do they are asked for one by one. An
account that its PDS no longer serves may have moved meanwhile: its DID document tells, and the
PDS named there is asked. All of it is a stranger's word: pages are capped, cursors must move
(BF-18), and whatever a PDS says can at most cause a fetch. A gap stays open until every PDS with
a repo of ours has answered. Identity events may be missing too, so that DIDs are looked up again.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple

import httpx

from sync import log
from sync.database import IngestConnection
from sync.errors import IdentityError
from sync.firehose import Backoff
from sync.http import HttpClient, HttpFailure
from sync.identities import NEW_MAX_AGE_S, IdentityKeeper, RepoStatus, ask_status, read_status
from sync.progress import Progress
from sync.resolver import Resolver
from sync.wakes import wait_for

TICK_S = 0.5
SCHEDULE_S = 60.0
PAGE_REPOS = 5_000  # of ours, compared at a time
LIST_FROM_REPOS = 50  # on one host, of one page: below that they are asked for one by one
LIST_LIMIT = 1_000
MAX_LIST_PAGES = 5_000
MAX_PAGE_BYTES = 2 << 20
MAX_CURSOR_CHARS = 2_048
PAGE_TIMEOUT_S = 30.0
HOST_TIMEOUT_S = 600.0
CONCURRENT_HOSTS = 8
CONCURRENT_QUESTIONS = 8
REPORT_SIZE = 1_000
MAX_MOVES = 3  # of one account while it is asked about
FIRST_RETRY_S, LONGEST_RETRY_S = 2.0, 600.0

_OPEN = "select source_id, gap_since from sync.open_gaps()"
_COMPARE = "select sync.compare_repos($1)"
_CLOSE = "select sync.close_gap($1, $2)"
_HEADS = "select repo_id, did, pds_url from sync.list_heads($1, $2, $3)"
_DOUBT = "select sync.doubt_identities($1)"
_REPORT = "select sync.report_revs($1, $2, $3, $4)"

_log = log.get("gaps")

ByHost = dict[str, list[str]]


class Gap(NamedTuple):
    """A source that lost events, and since when."""

    source_id: int
    gap_since: datetime


class Answers(NamedTuple):
    """What a PDS said about some accounts, for whom it did not answer, and who is elsewhere."""

    statuses: dict[str, RepoStatus]
    unanswered: list[str]
    moved: ByHost


class _DirectoryAway(Exception):
    """Nobody can say right now where an account lives."""


class GapCloser:
    """Compare repos whenever a gap is open."""

    def __init__(
        self,
        conn: IngestConnection,
        *,
        http: HttpClient,
        resolver: Resolver,
        progress: Progress,
        wake: asyncio.Event,
        compare_every_s: float,
    ) -> None:
        self._conn = conn
        self._http = http
        self._resolver = resolver
        self._keeper = IdentityKeeper(conn, resolver=resolver)
        self._progress = progress
        self._wake = wake
        self._compare_every = timedelta(seconds=compare_every_s)
        self._looked_at = -math.inf
        self._unanswered: ByHost = {}

    async def run(self) -> None:
        """Look for gaps until cancelled."""
        compared: list[Gap] = []
        backoff = Backoff(first_s=FIRST_RETRY_S, max_s=LONGEST_RETRY_S)
        retry_at = 0.0
        while True:
            self._wake.clear()
            await self._compare_if_due()
            gaps = [Gap(*row) for row in await self._keeper.fetch(_OPEN)]
            self._progress.gaps_open = len(gaps)
            if gaps != compared:
                # Also when there is one gap more: what was compared was too early for it.
                self._unanswered = await self._compare_all(gaps) if gaps else {}
                compared, retry_at = gaps, time.monotonic() + backoff.next_delay_s()
            elif self._unanswered and time.monotonic() >= retry_at:
                self._unanswered = await self._compare_hosts(self._unanswered)
                retry_at = time.monotonic() + backoff.next_delay_s()
            if gaps and not self._unanswered:
                for gap in gaps:
                    await self._conn.execute(_CLOSE, *gap)
                backoff.reset()
                compared = []
                _log.info("compared all repos after a gap")
                continue
            await wait_for(self._wake, timeout_s=TICK_S)

    async def _compare_if_due(self) -> None:
        """Open what would be a gap, once the last comparison is too old."""
        if time.monotonic() - self._looked_at >= SCHEDULE_S:
            self._looked_at = time.monotonic()
            if await self._conn.fetchval(_COMPARE, self._compare_every):
                _log.info("comparing all repos with their PDSes: it is time")

    async def _compare_all(self, gaps: Sequence[Gap]) -> ByHost:
        """Compare every repo that was current before; returns those nobody answered for."""
        unanswered: ByHost = {}
        after = 0
        latest = max(gap.gap_since for gap in gaps)
        while rows := await self._keeper.fetch(_HEADS, after, PAGE_REPOS, latest):
            after = rows[-1]["repo_id"]
            by_host: ByHost = {}
            for row in rows:
                if row["pds_url"] is not None:
                    by_host.setdefault(row["pds_url"], []).append(row["did"])
            await self._conn.execute(_DOUBT, [row["did"] for row in rows])
            # Who was away, or at a crawl, a page ago is asked when the others are through.
            for pds_url in unanswered.keys() & by_host.keys():
                unanswered[pds_url] += by_host.pop(pds_url)
            for pds_url, dids in (await self._compare_hosts(by_host)).items():
                unanswered.setdefault(pds_url, []).extend(dids)
        return unanswered

    async def _compare_hosts(self, by_host: ByHost) -> ByHost:
        """Ask hosts side by side and report what they say; returns what they did not say.

        Who has moved meanwhile is asked for where he lives now.
        """
        unanswered: ByHost = {}
        for _ in range(MAX_MOVES):
            moved: ByHost = {}
            for pds_url, answers in (await self._ask_hosts(by_host)).items():
                left = answers.unanswered + await self._report(answers.statuses)
                if left:
                    unanswered.setdefault(pds_url, []).extend(left)
                for new_url, dids in answers.moved.items():
                    moved.setdefault(new_url, []).extend(dids)
            by_host = moved
        return unanswered

    async def _ask_hosts(self, by_host: ByHost) -> dict[str, Answers]:
        hosts = asyncio.Semaphore(CONCURRENT_HOSTS)

        async def ask(pds_url: str, dids: list[str]) -> Answers:
            async with hosts:
                answers = await ask_host(self._http, pds_url, dids)
                return await self._confirm(pds_url, dids, answers)

        async with asyncio.TaskGroup() as group:
            tasks = {url: group.create_task(ask(url, dids)) for url, dids in by_host.items()}
        return {url: task.result() for url, task in tasks.items()}

    async def _confirm(self, pds_url: str, dids: Sequence[str], answers: Answers) -> Answers:
        """Drop what a host says to the disfavour of accounts that live elsewhere by now (MG-03).

        The document is a fresh one: the move may have been told in the very gap. So it is stored,
        too, and so is that of an account which the host does not know any more. Who cannot be
        looked up in time is asked about again.
        """
        kept, moved = dict(answers.statuses), dict[str, list[str]]()
        known = {did for did, status in kept.items() if status.is_active}
        doubtful = set(dids).difference(answers.unanswered, known)
        with suppress(TimeoutError):
            async with asyncio.timeout(HOST_TIMEOUT_S):
                for did in sorted(doubtful):
                    with suppress(_DirectoryAway):
                        new_url = await self._find_move(did, pds_url)
                        doubtful.discard(did)
                        if new_url != pds_url:
                            kept.pop(did, None)
                        if new_url not in {pds_url, None}:
                            moved.setdefault(new_url, []).append(did)
        for did in doubtful:
            kept.pop(did, None)
        return Answers(kept, [*answers.unanswered, *sorted(doubtful)], moved)

    async def _find_move(self, did: str, pds_url: str) -> str | None:
        """Return where an account lives by now; None where nobody can say."""
        try:
            document = await self._resolver.document(did, max_age_s=0)
            if document.pds_url != pds_url:
                await self._keeper.store(document, max_age_s=NEW_MAX_AGE_S)
        except IdentityError as error:
            # The directory will be back; the web server of one account may be gone for good.
            if error.reason == "transient" and did.startswith("did:plc:"):
                raise _DirectoryAway from error
            return None
        return document.pds_url

    async def _report(self, statuses: dict[str, RepoStatus]) -> list[str]:
        """Report what was said; returns for whom it has to be said again, later."""
        entries, left = list(statuses.items()), list[str]()
        for start in range(0, len(entries), REPORT_SIZE):
            left += await self._report_chunk(entries[start : start + REPORT_SIZE])
        return left

    async def _report_chunk(self, chunk: Sequence[tuple[str, RepoStatus]]) -> list[str]:
        """Report some, and halve them down to those that are locked or still being fetched."""
        behind = await self._conn.fetchval(
            _REPORT,
            [did for did, _ in chunk],
            [status.rev for _, status in chunk],
            [status.is_active for _, status in chunk],
            [status.status for _, status in chunk],
        )
        if behind is not None:
            return []
        if len(chunk) == 1:
            return [chunk[0][0]]
        middle = len(chunk) // 2
        return await self._report_chunk(chunk[:middle]) + await self._report_chunk(chunk[middle:])


async def ask_host(http: HttpClient, pds_url: str, dids: Sequence[str]) -> Answers:
    """Ask one PDS about some of its accounts; what it does not know is in neither part.

    A host that answers without end or at a crawl keeps the others waiting for a bounded time.
    """
    found: dict[str, RepoStatus] = {}
    open_dids = set(dids)
    try:
        async with asyncio.timeout(HOST_TIMEOUT_S):
            if len(dids) >= LIST_FROM_REPOS:
                async for did, status in list_repos(http, pds_url):
                    if did in open_dids:
                        open_dids.discard(did)
                        found[did] = status
            await _ask_each(http, pds_url, found, open_dids)
    except TimeoutError:
        _log.warning("a host takes too long to be compared", pds_url=pds_url)
    return Answers(found, sorted(open_dids), {})


async def _ask_each(
    http: HttpClient, pds_url: str, found: dict[str, RepoStatus], open_dids: set[str]
) -> None:
    """Ask about the accounts that are left, until the host fails once: then it is away."""
    waiting = sorted(open_dids, reverse=True)

    async def ask_in_turn() -> None:
        while waiting:
            did = waiting.pop()
            try:
                status = await ask_status(http, pds_url, did)
            except HttpFailure:
                waiting.clear()
                return
            open_dids.discard(did)
            if status is not None:
                found[did] = status

    async with asyncio.TaskGroup() as group:
        for _ in range(min(CONCURRENT_QUESTIONS, len(waiting))):
            group.create_task(ask_in_turn())


async def list_repos(http: HttpClient, pds_url: str) -> AsyncIterator[tuple[str, RepoStatus]]:
    """Yield the accounts a PDS lists, until it ends, fails, repeats itself or goes on too long."""
    cursor, seen = "", set[str]()
    for _ in range(MAX_LIST_PAGES):
        params: dict[str, str | int] = {"limit": LIST_LIMIT}
        if cursor:
            params["cursor"] = cursor
        try:
            reply = await http.get(
                f"{pds_url}/xrpc/com.atproto.sync.listRepos",
                params=params,
                max_bytes=MAX_PAGE_BYTES,
                timeout_s=PAGE_TIMEOUT_S,
            )
        except HttpFailure:
            return
        body = reply.json() if reply.status == httpx.codes.OK else None
        if not isinstance(body, dict) or not isinstance(body.get("repos"), list):
            return
        for entry in body["repos"]:
            did = entry.get("did") if isinstance(entry, dict) else None
            status = read_status(entry, did) if isinstance(did, str) else None
            if status is not None and isinstance(did, str):
                yield did, status
        following = body.get("cursor")
        if not isinstance(following, str) or not 0 < len(following) <= MAX_CURSOR_CHARS:
            return
        if following in seen:
            return
        seen.add(following)
        cursor = following
