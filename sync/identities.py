"""Keep what the database knows of identities current: look DIDs up, store what they resolve to."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import httpx

from sync.atproto.identity import DidDocument
from sync.atproto.syntax import INVALID_HANDLE, is_tid
from sync.database import IngestConnection, Plans
from sync.errors import IdentityError
from sync.http import HttpClient, HttpFailure, Reply
from sync.resolver import Resolver

# A repo that was never resolved is being fetched at the same time: one lookup serves both.
NEW_MAX_AGE_S = 30.0
# Of a handle that an event or a new document is about: it may be right only now.
HANDLE_MAX_AGE_S = 5.0
STATUS_TIMEOUT_S = 10.0
MAX_STATUS_BYTES = 16_384
STORE_ATTEMPTS = 5
STORE_RETRY_S = 0.1

_CLAIM = "select did, handle, pds_url, signing_key from sync.claim_identities($1)"
_KNOWN = "select handle, pds_url, signing_key from sync.repo_identity(array[$1::text])"
_SET = "select sync.set_identity($1, $2, $3, $4, $5)"
_FAIL = "select sync.fail_identity($1, $2)"


@dataclass(frozen=True, slots=True)
class RepoStatus:
    """What a PDS says about one of its accounts."""

    is_active: bool
    status: str | None
    rev: str | None


class IdentityKeeper:
    """Resolve and store identities; safe to use from several tasks."""

    def __init__(self, conn: IngestConnection, *, resolver: Resolver) -> None:
        self._conn = conn
        self._plans = Plans(conn)
        self._resolver = resolver
        self._lock = asyncio.Lock()

    async def claim(self, count: int) -> list[Coroutine[Any, Any, None]]:
        """Return the lookups of repos whose identity is stale, at most so many."""
        rows = await self.fetch(_CLAIM, count) if count > 0 else []
        return [self._refresh(row["did"], is_new=row["handle"] is None) for row in rows]

    async def store_if_new(self, document: DidDocument) -> None:
        """Store a fresh document unless it says what is known already."""
        known = await self.fetch(_KNOWN, document.did)
        now = (document.handle_claim or INVALID_HANDLE, document.pds_url, document.signing_key)
        if any(tuple(row) != now for row in known):
            await self.store(document, max_age_s=NEW_MAX_AGE_S)

    async def store_if_moved(self, document: DidDocument) -> None:
        """Store a fresh document if it names another PDS or key; the handle may wait."""
        known = await self.fetch(_KNOWN, document.did)
        now = (document.pds_url, document.signing_key)
        if any((row["pds_url"], row["signing_key"]) != now for row in known):
            await self.store(document, max_age_s=NEW_MAX_AGE_S)

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        """Run a query on the keeper's connection, which does one thing at a time and plans anew."""
        async with self._lock:
            await self._plans.renew_if_due()
            return list(await self._conn.fetch(query, *args))

    async def store(self, document: DidDocument, *, max_age_s: float) -> None:
        """Store a document together with the handle it claims, checked both ways."""
        identity = await self._resolver.resolve(document.did, max_age_s=max_age_s)
        async with self._lock:
            handle = identity.handle
            if handle is None:  # nobody could say: keep what was verified before (IN-16),
                handle = await self._conn.fetchval(_KNOWN, document.did)
                if handle not in {None, document.handle_claim}:  # while it is claimed (IN-07)
                    handle = INVALID_HANDLE
        for _ in range(STORE_ATTEMPTS):
            async with self._lock:
                age = timedelta(seconds=self._resolver.age_s(identity))
                is_stored = await self._conn.fetchval(
                    _SET, document.did, handle, identity.pds_url, identity.signing_key, age
                )
            if is_stored:
                return
            await asyncio.sleep(STORE_RETRY_S)  # the repo's row is locked by a batch

    async def _refresh(self, did: str, *, is_new: bool) -> None:
        max_age_s = NEW_MAX_AGE_S if is_new else 0.0
        try:
            document = await self._resolver.document(did, max_age_s=max_age_s)
            await self.store(document, max_age_s=NEW_MAX_AGE_S if is_new else HANDLE_MAX_AGE_S)
        except IdentityError as error:
            async with self._lock:
                await self._conn.execute(_FAIL, did, error.reason)


async def ask_status(http: HttpClient, pds_url: str, did: str) -> RepoStatus | None:
    """Ask a PDS about an account; None when it does not know it.

    Raises `HttpFailure` when the PDS is away or will not be asked now.
    """
    reply = await ask_for_status(http, pds_url, did)
    return read_status(reply.json(), did) if reply.status == httpx.codes.OK else None


async def ask_for_status(http: HttpClient, pds_url: str, did: str) -> Reply:
    """Return what a PDS answers when it is asked about an account, also in refusing."""
    url = f"{pds_url}/xrpc/com.atproto.sync.getRepoStatus"
    reply = await http.get(
        url, params={"did": did}, max_bytes=MAX_STATUS_BYTES, timeout_s=STATUS_TIMEOUT_S
    )
    if reply.status >= 500 or reply.status == httpx.codes.TOO_MANY_REQUESTS:
        raise HttpFailure("unreachable", f"{url} answers {reply.status}")
    return reply


def read_status(body: object, did: str) -> RepoStatus | None:
    """Read an account's entry of getRepoStatus or listRepos; None when it is malformed."""
    if not isinstance(body, dict) or body.get("did") != did:
        return None
    is_active, status, rev = body.get("active", True), body.get("status"), body.get("rev")
    if not isinstance(is_active, bool):
        return None
    word = status[:64].replace("\x00", "") if isinstance(status, str) else None
    return RepoStatus(
        is_active=is_active,
        status=None if is_active else word,
        rev=rev if isinstance(rev, str) and is_tid(rev) else None,
    )
