"""Ask who a handle belongs to, over DNS and over HTTPS (IN-07..10).

Anybody can claim any name, so a name is asked for once at a time, names that say nothing are left
alone for a while, and there is a rate for all of them (IN-12). Answers are cached by the resolver.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence

import dns.asyncresolver
import dns.exception
import dns.resolver
import httpx

from sync.atproto.syntax import is_did, is_resolvable_handle
from sync.http import HttpClient, HttpFailure
from sync.limits import BoundedMap, TokenBucket

DNS_TIMEOUT_S = 4.0
HTTP_TIMEOUT_S = 6.0
MAX_BODY_BYTES = 4096
MAX_CONCURRENT_LOOKUPS = 24
LOOKUPS_PER_S = 50.0
SILENCE_S = 30.0  # a name that nobody answered for is left alone
REMEMBERED_NAMES = 10_000
_WELL_KNOWN = "/.well-known/atproto-did"
_TXT_VALUE = re.compile(rb"did=(did:[\x21-\x7e]+)")


class LookupUnavailable(Exception):
    """Nobody answered: this says nothing about the handle."""


# Return the TXT values of a name; none when it has none; raises `LookupUnavailable`.
TxtLookup = Callable[[str], Awaitable[Sequence[bytes]]]


class AmbiguousHandle(Exception):
    """DNS names several accounts for one handle (IN-08)."""


async def ask_dns(name: str) -> Sequence[bytes]:
    """Ask the machine's name servers for TXT values."""
    try:
        resolver = dns.asyncresolver.Resolver()
        answer = await resolver.resolve(name, "TXT", lifetime=DNS_TIMEOUT_S, search=False)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except (dns.exception.DNSException, OSError) as error:
        raise LookupUnavailable(str(error)) from error
    return [b"".join(record.strings) for record in answer]


class HandleLookup:
    """Find the DID a handle points at."""

    def __init__(
        self,
        http: HttpClient,
        *,
        base_urls: Sequence[str] = (),
        allow_local: bool = False,
        ask_txt: TxtLookup = ask_dns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._ask_txt = ask_txt
        self._clock = clock
        self._silent_until: BoundedMap[str, float] = BoundedMap(REMEMBERED_NAMES)
        self._running: dict[str, asyncio.Task[str | None]] = {}
        self._rate = TokenBucket(rate_per_s=LOOKUPS_PER_S, burst=4 * LOOKUPS_PER_S, clock=clock)
        self._base_urls = tuple(base_urls)
        self._allow_local = allow_local
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_LOOKUPS)

    async def find_did(self, handle: str) -> str | None:
        """Return the DID, or None when the handle points nowhere or at several.

        Raises `LookupUnavailable` when no answer could be had.
        """
        name = handle.lower()
        if not is_resolvable_handle(name, allow_local=self._allow_local):
            return None
        if self._clock() < self._silent_until.get(name, 0.0):
            raise LookupUnavailable("nobody answered a moment ago")
        task = self._running.get(name)
        if task is None:
            task = self._running[name] = asyncio.create_task(self._find(name))
            task.add_done_callback(lambda done: self._finish(name, done))
        # Shielded: one caller that gives up must not take the answer from the others.
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """End the lookups that nobody waits for any more."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _find(self, name: str) -> str | None:
        delay_s = self._rate.take()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        async with self._slots:
            if self._base_urls:
                return await self._ask_bases(name)
            return await self._ask_network(name)

    def _finish(self, name: str, task: asyncio.Task[str | None]) -> None:
        """Remember who said nothing."""
        self._running.pop(name, None)
        if not task.cancelled() and isinstance(task.exception(), LookupUnavailable):
            self._silent_until[name] = self._clock() + SILENCE_S

    async def _ask_network(self, name: str) -> str | None:
        """Ask DNS first, for it wins over the web server (IN-10)."""
        silent: LookupUnavailable | None = None
        try:
            did = read_txt(await self._ask_txt(f"_atproto.{name}."))
        except AmbiguousHandle:
            return None
        except LookupUnavailable as error:
            silent, did = error, None
        if did is not None:
            return did
        try:
            did = await self._ask_http(f"https://{name}{_WELL_KNOWN}", None)
        except LookupUnavailable:
            did = None  # many handles live in DNS alone, and nothing serves them
        # Without DNS a web server can only confirm: that it knows nothing says nothing.
        if did is None and silent is not None:
            raise silent
        return did

    async def _ask_bases(self, name: str) -> str | None:
        """Ask the development servers for the handle by its Host header."""
        silent: LookupUnavailable | None = None
        for base in self._base_urls:
            try:
                did = await self._ask_http(base + _WELL_KNOWN, name)
            except LookupUnavailable as error:
                silent = error
                continue
            if did is not None:
                return did
        if silent is not None:
            raise silent
        return None

    async def _ask_http(self, url: str, host: str | None) -> str | None:
        headers = None if host is None else {"host": host}
        try:
            reply = await self._http.get(
                url, max_bytes=MAX_BODY_BYTES, timeout_s=HTTP_TIMEOUT_S, headers=headers
            )
        except HttpFailure as error:
            if error.reason in {"too_big", "refused_address"}:
                return None
            raise LookupUnavailable(str(error)) from error
        if reply.status == httpx.codes.TOO_MANY_REQUESTS or reply.status >= 500:
            raise LookupUnavailable(f"{url} answers {reply.status}")
        if not 200 <= reply.status < 300:
            return None
        text = reply.body.decode("ascii", "replace").strip()
        return text if is_did(text) else None


def read_txt(values: Sequence[bytes]) -> str | None:
    """Return the one DID among TXT values; several different ones are no answer (IN-08)."""
    found = set()
    for value in values:
        match = _TXT_VALUE.fullmatch(value.strip())
        if match is not None and is_did(match[1].decode("ascii")):
            found.add(match[1].decode("ascii"))
    if len(found) > 1:
        raise AmbiguousHandle("several DIDs")
    return found.pop() if found else None
