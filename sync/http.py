"""Ask other people's servers over HTTP, within bounds of size, time and address.

Every request goes to an address that was checked after DNS resolution, and so does every hop of
a redirect (OP-01): names in DID documents are chosen by strangers and may point at our own
network. The check sits in the connector, so that what was checked is what is connected to.
"""

import asyncio
import errno
import ipaddress
import socket
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import BinaryIO, Literal, Self

import aiohttp
import httpx
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from httpx_aiohttp import AiohttpTransport

from sync.errors import UpstreamUnavailable
from sync.names import NameResolver

MAX_REDIRECTS = 4
MAX_CONNECTIONS = 128
MAX_CONNECTIONS_PER_HOST = 16
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
MAX_ERROR_BODY_BYTES = 16_384
# Compressed bodies are unfolded in pieces: a kilobyte may stand for a megabyte.
_PIECE_BYTES = 65_536
_GZIP = 16 + zlib.MAX_WBITS
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
# Below 1024 live mail, DNS, SSH …: no PDS, but good targets for a forged endpoint.
_FIRST_USER_PORT = 1024
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

HttpReason = Literal["unreachable", "timed_out", "too_big", "refused_address"]


class HttpFailure(UpstreamUnavailable):
    """A request got no usable answer; `reason` is a word for `sync.problems`."""

    def __init__(self, reason: HttpReason, detail: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}: {detail}")


class RefusedAddress(OSError):
    """The name points at an address we do not connect to."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer whose body was read within its cap."""

    status: int
    headers: httpx.Headers
    body: bytes

    def json(self) -> object:
        """Return the decoded body, or None when it is not JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def error_name(self) -> str:
        """Return the `error` field of an XRPC error body, or an empty string."""
        body = self.json()
        name = body.get("error") if isinstance(body, dict) else None
        return name if isinstance(name, str) else ""


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Which hosts may be asked: the public internet over TLS, or in development anything."""

    allow_private_hosts: bool

    def check_url(self, url: httpx.URL) -> None:
        """Refuse a URL by what it says, before any name is looked up."""
        if self.allow_private_hosts:
            return
        if url.scheme not in {"https", "wss"}:
            raise RefusedAddress(f"{url.host} is asked over {url.scheme}, not https")
        if url.port is not None and url.port != 443 and url.port < _FIRST_USER_PORT:
            raise RefusedAddress(f"{url.host} is on port {url.port}")
        # aiohttp looks up no name for a literal address, so its resolver never sees it.
        if _is_address(url.host) and not is_public(url.host):
            raise RefusedAddress(f"{url.host} is not a public address")

    async def addresses(self, host: str, port: int) -> list[str]:
        """Look up a host and return the addresses that may be connected to."""
        found = await _GuardedResolver(self).resolve(host, port, socket.AF_UNSPEC)
        return [entry["host"] for entry in found]

    def permitted(self, host: str, found: list[ResolveResult]) -> list[ResolveResult]:
        """Keep the permitted ones of the addresses a host resolved to."""
        kept = [entry for entry in found if self.allow_private_hosts or is_public(entry["host"])]
        if found and not kept:
            raise RefusedAddress(f"{host} resolves to no public address")
        return kept


def is_public(address: str) -> bool:
    """Tell whether an address is on the public internet, seen through tunnels and mappings."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    # Older forms of inner networks, and of IPv4 within IPv6, count as global otherwise.
    is_old = ip.is_reserved or (isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local)
    return ip.is_global and not (ip.is_multicast or is_old)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class _GuardedResolver(AbstractResolver):
    """Resolve names for the connector and hold back what the policy forbids."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._inner = NameResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        return self._policy.permitted(host, found)

    async def close(self) -> None:
        await self._inner.close()


class _GuardedTransport(AiohttpTransport):
    """Check the URL of every request, hence of every hop of a redirect."""

    def __init__(self, policy: AddressPolicy) -> None:
        super().__init__(client=self._session)
        self._policy = policy

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=_GuardedResolver(self._policy),
            ssl=httpx.create_ssl_context(),
            limit=MAX_CONNECTIONS,
            limit_per_host=MAX_CONNECTIONS_PER_HOST,
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._policy.check_url(request.url)
        return await super().handle_async_request(request)


class HttpClient:
    """One pool of connections for everything the service asks over HTTP."""

    def __init__(self, *, user_agent: str, allow_private_hosts: bool = False) -> None:
        self.policy = AddressPolicy(allow_private_hosts)
        self.user_agent = user_agent
        self._client = httpx.AsyncClient(
            transport=_GuardedTransport(self.policy),
            headers={"user-agent": user_agent, "accept-encoding": "gzip"},
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            follow_redirects=False,  # it would read their bodies, however long
            trust_env=False,  # a proxy would resolve names beyond our check
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(
        self,
        url: str,
        *,
        max_bytes: int,
        timeout_s: float,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return the whole answer, whatever its status; raises `HttpFailure`."""
        async with self._open(url, timeout_s=timeout_s, params=params, headers=headers) as response:
            return await _read_reply(response, url, max_bytes=max_bytes)

    async def post_json(
        self,
        url: str,
        body: bytes,
        *,
        max_bytes: int,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send JSON and return the whole answer; a redirect is one, too, and not followed."""
        sent = {"content-type": "application/json", **(headers or {})}
        async with self._open(
            url, timeout_s=timeout_s, params=None, headers=sent, content=body
        ) as response:
            return await _read_reply(response, url, max_bytes=max_bytes)

    async def download(
        self,
        url: str,
        into: BinaryIO,
        *,
        max_bytes: int,
        timeout_s: float,
        params: Mapping[str, str | int] | None = None,
    ) -> Reply:
        """Write a successful answer into a file; the reply carries only the body of an error."""
        async with self._open(url, timeout_s=timeout_s, params=params, headers=None) as response:
            is_good = response.status_code == httpx.codes.OK
            size_bytes, error_body = 0, bytearray()
            async for chunk in _read_body(response):
                size_bytes += len(chunk)
                if size_bytes > max_bytes:
                    raise HttpFailure("too_big", f"{url} sends more than {max_bytes} bytes")
                if is_good:
                    into.write(chunk)
                elif size_bytes <= MAX_ERROR_BODY_BYTES:
                    error_body += chunk
                else:
                    break
            return Reply(response.status_code, response.headers, bytes(error_body))

    @asynccontextmanager
    async def _open(
        self,
        url: str,
        *,
        timeout_s: float,
        params: Mapping[str, str | int] | None,
        headers: Mapping[str, str] | None,
        content: bytes | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request; everything that can go wrong becomes one `HttpFailure`."""
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._follow(url, params, headers, content) as response,
            ):
                yield response
        except RefusedAddress as error:
            raise HttpFailure("refused_address", str(error)) from error
        except TimeoutError as error:
            raise HttpFailure("timed_out", f"{url} took longer than {timeout_s:g} s") from error
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            aiohttp.ClientError,
            OSError,
            zlib.error,
        ) as error:
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise  # of the file that is written into
            if _was_refused(error):
                raise HttpFailure("refused_address", str(error)) from error
            raise HttpFailure("unreachable", f"{url}: {error or type(error).__name__}") from error
        except ValueError as error:  # aiohttp on header bytes it cannot read
            raise HttpFailure("unreachable", f"{url}: {error}") from error

    @asynccontextmanager
    async def _follow(
        self,
        url: str,
        params: Mapping[str, str | int] | None,
        headers: Mapping[str, str] | None,
        content: bytes | None,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and follow redirects, whose bodies are not read.

        What is posted, with whatever key, goes to the URL that was given and nowhere else.
        """
        method = "GET" if content is None else "POST"
        request = self._client.build_request(
            method, url, params=params, headers=headers, content=content
        )
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._client.send(request, stream=True)
            try:
                if response.next_request is None or content is not None:
                    yield response
                    return
                request = response.next_request
            finally:
                await response.aclose()
        raise HttpFailure("unreachable", f"{url} redirects more than {MAX_REDIRECTS} times")


async def _read_reply(response: httpx.Response, url: str, *, max_bytes: int) -> Reply:
    body = bytearray()
    async for chunk in _read_body(response):
        body += chunk
        if len(body) > max_bytes:
            raise HttpFailure("too_big", f"{url} sends more than {max_bytes} bytes")
    return Reply(response.status_code, response.headers, bytes(body))


async def _read_body(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the body in pieces of bounded size, through one layer of compression at most."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding in {"", "identity"}:
        async for chunk in response.aiter_raw():
            yield chunk
        return
    if coding not in {"gzip", "x-gzip"}:
        raise HttpFailure("unreachable", f"{response.url} sends {coding[:80]!r}, not gzip")
    unzip, is_empty = zlib.decompressobj(_GZIP), True
    async for chunk in response.aiter_raw():
        rest, is_empty = chunk, False
        while rest and not unzip.eof:
            yield unzip.decompress(rest, _PIECE_BYTES)
            rest = unzip.unconsumed_tail
    while not (unzip.eof or is_empty):
        piece = unzip.decompress(unzip.unconsumed_tail, _PIECE_BYTES)
        if not piece:
            raise HttpFailure("unreachable", f"{response.url} sends half a gzip stream")
        yield piece


def retry_after_s(headers: httpx.Headers, *, now: datetime, cap_s: float) -> float | None:
    """Return how long the server asks us to stay away, or None when it does not say (BF-16)."""
    delay_s = _delay_s(headers.get("retry-after"), now)
    if delay_s is None and headers.get("ratelimit-remaining") == "0":
        delay_s = _delay_s(headers.get("ratelimit-reset"), now)
    return None if delay_s is None else min(max(delay_s, 0.0), cap_s)


def _delay_s(text: str | None, now: datetime) -> float | None:
    """Read seconds, a Unix time or an HTTP date as the seconds from now."""
    if not text:
        return None
    if text.strip().isascii() and text.strip().isdigit() and len(text.strip()) <= 12:
        number = int(text)
        # A reset is given as a point in time by some servers, as a delay by others.
        return number - now.timestamp() if number > 1_000_000_000 else float(number)
    try:
        moment = parsedate_to_datetime(text)
        return (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
    except (ValueError, OverflowError):
        return None


def _was_refused(error: BaseException) -> bool:
    """Find our refusal under the layers of wrapping that the connector put around it."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return False
        if isinstance(seen, RefusedAddress):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
