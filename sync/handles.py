"""Ask who a handle belongs to, over DNS and over HTTPS (IN-07..10)."""

import asyncio
import re
from collections.abc import Sequence

import dns.asyncresolver
import dns.exception
import dns.resolver
import httpx

from sync.atproto.syntax import is_did, is_resolvable_handle
from sync.http import HttpClient, HttpFailure

DNS_TIMEOUT_S = 4.0
HTTP_TIMEOUT_S = 6.0
MAX_BODY_BYTES = 4096
MAX_CONCURRENT_LOOKUPS = 24
_WELL_KNOWN = "/.well-known/atproto-did"
_TXT_VALUE = re.compile(rb"did=(did:[\x21-\x7e]+)")


class LookupUnavailable(Exception):
    """Nobody answered: this says nothing about the handle."""


class AmbiguousHandle(Exception):
    """DNS names several accounts for one handle (IN-08)."""


class HandleLookup:
    """Find the DID a handle points at; nothing is cached here."""

    def __init__(
        self,
        http: HttpClient,
        *,
        base_urls: Sequence[str] = (),
        allow_local: bool = False,
    ) -> None:
        self._http = http
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
        async with self._slots:
            if self._base_urls:
                return await self._ask_bases(name)
            return await self._ask_network(name)

    async def _ask_network(self, name: str) -> str | None:
        """Ask DNS first, for it wins over the web server (IN-10)."""
        is_dns_silent = False
        try:
            did = await self._ask_dns(name)
        except AmbiguousHandle:
            return None
        except LookupUnavailable:
            is_dns_silent, did = True, None
        if did is not None:
            return did
        try:
            did = await self._ask_http(f"https://{name}{_WELL_KNOWN}", None)
        except LookupUnavailable:
            did = None
            # Many handles live in DNS alone and serve nothing: only both silent is no answer.
            if is_dns_silent:
                raise
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

    async def _ask_dns(self, name: str) -> str | None:
        try:
            resolver = dns.asyncresolver.Resolver()
            answer = await resolver.resolve(
                f"_atproto.{name}.", "TXT", lifetime=DNS_TIMEOUT_S, search=False
            )
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return None
        except (dns.exception.DNSException, OSError) as error:
            raise LookupUnavailable(str(error)) from error
        return read_txt([b"".join(record.strings) for record in answer])

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
