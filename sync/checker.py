"""Ask an account's own PDS how it stands, whenever somebody's word on it is in doubt (D-11).

The PDS is the one of a DID document that was looked up for this question: an old host's word
counts for nothing. A word against the account is only told when the document still names that PDS
afterwards: whom it has just left calls it deactivated.
What an answer means is decided by `sync.answer_check()`.
"""

import asyncio

import httpx

from sync import log
from sync.errors import IdentityError
from sync.http import HttpClient, HttpFailure
from sync.identities import IdentityKeeper, ask_for_status, read_status
from sync.limits import BoundedMap
from sync.resolver import Resolver
from sync.wakes import wait_for

CLAIMED_AT_ONCE = 64
QUESTIONS_PER_HOST = 4
# A host that answers has time for all who wait within this; of another the rest comes later.
HOST_WAIT_S = 2.0
REMEMBERED_HOSTS = 10_000
IDLE_S = 0.5
ANSWER_ATTEMPTS = 20
ANSWER_RETRY_S = 0.1

_CLAIM = "select did, serial from sync.claim_checks($1)"
_ANSWER = "select sync.answer_check($1, $2, $3, $4, $5) as is_taken"

_log = log.get("checker")

# Which PDS said it, what it said (see sync.answer_check), and its status.
Answer = tuple[str | None, str, str | None]


class AccountChecker:
    """Put the questions that are due, and store the answers."""

    def __init__(
        self,
        keeper: IdentityKeeper,
        *,
        http: HttpClient,
        resolver: Resolver,
    ) -> None:
        self._keeper = keeper
        self._http = http
        self._resolver = resolver
        self._hosts: BoundedMap[str, asyncio.Semaphore] = BoundedMap(REMEMBERED_HOSTS)

    async def run(self, wake: asyncio.Event) -> None:
        """Ask until cancelled; who waits for a slow host keeps nobody else waiting."""
        asked: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                wake.clear()
                free = CLAIMED_AT_ONCE - len(asked)
                claims = await self._keeper.fetch(_CLAIM, free) if free > 0 else []
                for claim in claims:
                    task = group.create_task(self.check(claim["did"], claim["serial"]))
                    asked.add(task)
                    task.add_done_callback(asked.discard)
                if not claims:
                    await wait_for(wake, timeout_s=IDLE_S)

    async def check(self, did: str, serial: int) -> None:
        """Ask about one account and store the answer."""
        found = await self._ask(did)
        if found is None:
            return
        pds_url, answer, status = found
        for _ in range(ANSWER_ATTEMPTS):
            (row,) = await self._keeper.fetch(_ANSWER, did, serial, pds_url, answer, status)
            if row["is_taken"] is not None:
                _log.debug("asked how an account stands", did=did, answer=answer, status=status)
                return
            await asyncio.sleep(ANSWER_RETRY_S)  # the repo's row is locked: another claim follows

    async def _ask(self, did: str) -> Answer | None:
        """Find out; None when its host is too busy with other questions of ours."""
        try:
            document = await self._resolver.document(did, max_age_s=0)
            await self._keeper.store_if_moved(document)
            if document.pds_url is None:
                return None, "none", None
            answer = await self._ask_host(document.pds_url, did)
            if answer is not None and answer[1] in ("unknown", "inactive"):
                document = await self._resolver.document(did, max_age_s=0)
                if document.pds_url != answer[0]:
                    await self._keeper.store_if_moved(document)  # has its new host asked
                    return document.pds_url, "none", None
        except IdentityError as error:
            return None, "tombstoned" if error.reason == "tombstoned" else "none", None
        return answer

    async def _ask_host(self, pds_url: str, did: str) -> Answer | None:
        slots = self._hosts.get(pds_url)
        if slots is None:
            slots = self._hosts[pds_url] = asyncio.Semaphore(QUESTIONS_PER_HOST)
        try:
            async with asyncio.timeout(HOST_WAIT_S):
                await slots.acquire()
        except TimeoutError:
            return None
        try:
            reply = await ask_for_status(self._http, pds_url, did)
        except HttpFailure:
            return pds_url, "none", None  # a PDS that is away changes nothing (AC-10)
        finally:
            slots.release()
        if reply.error_name() == "RepoNotFound":
            return pds_url, "unknown", None
        status = read_status(reply.json(), did) if reply.status == httpx.codes.OK else None
        if status is None:
            return pds_url, "none", None
        return pds_url, "active" if status.is_active else "inactive", status.status
