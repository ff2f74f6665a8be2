"""Find out where an account lives, which key signs for it, and what it is called.

Answers are cached with a time to live, asked once at a time per DID, and bounded in number: the
firehose can make us ask about anybody (IN-12, MT-08, SG-09). A good document is never replaced
by a failure (IN-16). Handles count only when they point back at the DID (IN-07).
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from sync.atproto.identity import DidDocument, parse_did_document
from sync.atproto.syntax import INVALID_HANDLE, is_supported_did
from sync.config import Settings
from sync.errors import IdentityError
from sync.handles import HandleLookup, LookupUnavailable
from sync.http import HttpClient, HttpFailure, Reply, retry_after_s
from sync.limits import BoundedMap, TokenBucket

DOCUMENT_TTL_S = 24 * 3600.0
ERROR_TTL_S = 120.0
TRANSIENT_TTL_S = 15.0
HANDLE_TTL_S = 24 * 3600.0
INVALID_HANDLE_TTL_S = 300.0
FORCED_INTERVAL_S = 60.0  # of one DID
CACHE_ENTRIES = 100_000
MAX_DOCUMENT_BYTES = 262_144
REQUEST_TIMEOUT_S = 10.0
MAX_CONCURRENT_REQUESTS = 16
MAX_PAUSE_S = 60.0
LOOKUPS_PER_S = 50.0
FORCED_PER_S = 10.0

_GONE, _NOT_FOUND = 410, 404
# How the directory's 404 tells a tombstone from a DID that never was (Z-16, D-16). A web server
# that lost the document of a did:web says whatever it likes, and means less.
_TOMBSTONE_WORDS = (b"not available", b"tombstone")


@dataclass(frozen=True, slots=True)
class Identity:
    """A resolved account; `handle` is None when nobody could say whether it is valid."""

    did: str
    handle: str | None
    pds_url: str | None
    signing_key: str | None
    looked_up_at: float  # on the resolver's clock: when the lookup of the document began


class Resolver:
    """Resolve DIDs and handles through one cache."""

    def __init__(
        self,
        http: HttpClient,
        *,
        plc_url: str,
        handles: HandleLookup,
        allow_local: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._plc_url = plc_url
        self._handles = handles
        self._allow_local = allow_local
        self._clock = clock
        self._documents: BoundedMap[str, tuple[float, DidDocument]] = BoundedMap(CACHE_ENTRIES)
        self._errors: BoundedMap[str, tuple[float, IdentityError]] = BoundedMap(CACHE_ENTRIES)
        self._owners: BoundedMap[str, tuple[float, str | None]] = BoundedMap(CACHE_ENTRIES)
        self._forced_at: BoundedMap[str, float] = BoundedMap(CACHE_ENTRIES)
        # With when they began.
        self._running: dict[str, tuple[float, asyncio.Task[DidDocument]]] = {}
        # Web servers that answer at a crawl must not stand in the way of the directory.
        self._plc_slots = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)
        self._web_slots = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)
        self._lookups = TokenBucket(rate_per_s=LOOKUPS_PER_S, burst=4 * LOOKUPS_PER_S, clock=clock)
        self._forced = TokenBucket(rate_per_s=FORCED_PER_S, burst=10 * FORCED_PER_S, clock=clock)

    @classmethod
    def from_settings(cls, http: HttpClient, settings: Settings) -> "Resolver":
        """Build the resolver the settings describe."""
        allow_local = settings.allow_private_hosts
        handles = HandleLookup(http, base_urls=settings.handle_base_urls, allow_local=allow_local)
        return cls(http, plc_url=settings.plc_url, handles=handles, allow_local=allow_local)

    async def aclose(self) -> None:
        """End the lookups that nobody waits for any more."""
        running = [task for _, task in self._running.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._handles.aclose()

    async def document(self, did: str, *, max_age_s: float = DOCUMENT_TTL_S) -> DidDocument:
        """Return the DID document, no older than `max_age_s`; raises `IdentityError`.

        Zero asks anew: also a lookup that is under way may be too early for what is asked about.
        """
        now = self._clock()
        known = self._documents.get(did)
        if known is not None and now - known[0] < max_age_s:
            return known[1]
        failed = self._errors.get(did)
        if failed is not None and now < failed[0] and max_age_s > 0:
            error = failed[1]  # raised afresh: a shared one would gather tracebacks
            raise IdentityError(error.reason, error.detail, rule=error.rule)
        return await self._fetch_once(did, since=now - max_age_s)

    async def resolve(self, did: str, *, max_age_s: float = DOCUMENT_TTL_S) -> Identity:
        """Return the document's contents with the handle checked both ways."""
        document = await self.document(did, max_age_s=max_age_s)
        handle = await self._check_handle(document, max_age_s=max_age_s)
        known = self._documents.get(did)
        if known is None or known[1] is not document:  # a newer one came meanwhile
            return await self.resolve(did, max_age_s=max_age_s)
        return Identity(did, handle, document.pds_url, document.signing_key, known[0])

    def age_s(self, identity: Identity) -> float:
        """Return how long ago the lookup began that brought an identity."""
        return self._clock() - identity.looked_up_at

    async def refresh(self, did: str) -> DidDocument | None:
        """Ask past the cache; when that happened too often, return what is cached, if anything."""
        now = self._clock()
        forced_at = self._forced_at.get(did)
        is_recent = forced_at is not None and now - forced_at < FORCED_INTERVAL_S
        if did in self._running:
            return await self._fetch_once(did)
        if is_recent or not self._forced.try_take():
            known = self._documents.get(did)
            return None if known is None else known[1]
        self._forced_at[did] = now
        return await self.document(did, max_age_s=0)

    async def find_did(self, handle: str) -> str | None:
        """Return the DID a handle points at if that DID claims the handle back."""
        try:
            did = await self._handles.find_did(handle)
        except LookupUnavailable as error:
            raise IdentityError("transient", f"{handle}: {error}", rule="IN-14") from error
        if did is None:
            return None
        document = await self.document(did)
        return did if document.handle_claim == handle.lower() else None

    async def _check_handle(self, document: DidDocument, *, max_age_s: float) -> str | None:
        """Return the claimed handle if it points back, `handle.invalid`, or None for unknown."""
        claim = document.handle_claim
        if claim is None:
            return INVALID_HANDLE
        now = self._clock()
        known = self._owners.get(claim)
        if known is not None:
            is_right, age_s = known[1] == document.did, now - known[0]
            if is_right and age_s < min(HANDLE_TTL_S, max_age_s):
                return claim
            # Who asks for news is not told that it was wrong a moment ago: it may be right now.
            if not is_right and age_s < INVALID_HANDLE_TTL_S <= max_age_s:
                return INVALID_HANDLE
        try:
            owner = await self._handles.find_did(claim)
        except LookupUnavailable:
            return None
        self._owners[claim] = (now, owner)
        return claim if owner == document.did else INVALID_HANDLE

    async def _fetch_once(self, did: str, *, since: float = -math.inf) -> DidDocument:
        """Join the running lookup of this DID or start one (IN-12).

        One that began before `since` is waited for, and joined by nobody.
        """
        while (running := self._running.get(did)) is not None and running[0] < since:
            await asyncio.wait([running[1]])
        if running is None:
            started_at = self._clock()
            task = asyncio.create_task(self._fetch(did))
            self._running[did] = (started_at, task)
            task.add_done_callback(lambda done: self._finish(did, done, started_at))
        else:
            task = running[1]
        # Shielded: one caller that gives up must not take the answer from the others.
        return await asyncio.shield(task)

    def _finish(self, did: str, task: asyncio.Task[DidDocument], started_at: float) -> None:
        """Remember how a lookup ended."""
        self._running.pop(did, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._documents[did] = (started_at, task.result())
            self._errors.pop(did, None)
        elif isinstance(error, IdentityError):
            ttl_s = TRANSIENT_TTL_S if error.reason == "transient" else ERROR_TTL_S
            self._errors[did] = (self._clock() + ttl_s, error)

    async def _fetch(self, did: str) -> DidDocument:
        if not is_supported_did(did, allow_local=self._allow_local):
            raise IdentityError(
                "malformed", f"{did} is of a method we cannot resolve", rule="SX-02"
            )
        delay_s = self._lookups.take()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        is_plc = did.startswith("did:plc:")
        async with self._plc_slots if is_plc else self._web_slots:
            reply = await self._request(did)
            if is_plc and _is_tombstone(reply):
                # Once more: this verdict purges an account (D-16).
                reply = await self._request(did)
                if _is_tombstone(reply):
                    raise IdentityError("tombstoned", did, rule="IN-02")
        return self._read(did, reply)

    async def _request(self, did: str) -> Reply:
        url = self._document_url(did)
        try:
            return await self._http.get(
                url, max_bytes=MAX_DOCUMENT_BYTES, timeout_s=REQUEST_TIMEOUT_S
            )
        except HttpFailure as error:
            kind = "transient" if error.reason in {"unreachable", "timed_out"} else "malformed"
            raise IdentityError(kind, f"{did}: {error}", rule="IN-13") from error

    def _document_url(self, did: str) -> str:
        if did.startswith("did:plc:"):
            return f"{self._plc_url}/{did}"
        host = did.removeprefix("did:web:").replace("%3A", ":")
        is_local = self._allow_local and host.partition(":")[0] == "localhost"
        return f"{'http' if is_local else 'https'}://{host}/.well-known/did.json"

    def _read(self, did: str, reply: Reply) -> DidDocument:
        """Tell the kinds of answers apart: only some of them mean anything (IN-14)."""
        if reply.status == httpx.codes.OK:
            return parse_did_document(did, reply.body)
        if reply.status in {_NOT_FOUND, _GONE}:
            raise IdentityError("not_found", did, rule="IN-02")
        if reply.status == httpx.codes.TOO_MANY_REQUESTS:
            pause_s = retry_after_s(reply.headers, now=datetime.now(UTC), cap_s=MAX_PAUSE_S)
            if did.startswith("did:plc:"):
                self._lookups.pause(pause_s if pause_s is not None else 1.0)
        raise IdentityError("transient", f"{did}: status {reply.status}", rule="IN-02")


def _is_tombstone(reply: Reply) -> bool:
    if reply.status == _GONE:
        return True
    return reply.status == _NOT_FOUND and any(
        word in reply.body.lower() for word in _TOMBSTONE_WORDS
    )
