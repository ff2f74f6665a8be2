"""Look host names up, each in a thread of its own that nothing ever waits for.

Strangers choose the names, and a name server that says nothing holds a lookup for half a minute.
In the event loop's own pool a handful of them would stand in the way of every verification, and
of the end of the process.
"""

import asyncio
import contextlib
import socket
import threading
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

CONCURRENT_LOOKUPS = 64

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class NameResolver(AbstractResolver):
    """Resolve names for the connector, as the operating system does."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(CONCURRENT_LOOKUPS)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host; raises OSError when it has none."""
        async with self._slots:
            found = await _look_up(host, port, family)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=family,
                proto=proto,
                flags=_NUMERIC,
            )
            for family, _, proto, _, address in found
            if len(address) in (2, 4)
        ]

    async def close(self) -> None:
        """Leave the threads alone: they end by themselves, and hold nothing."""


async def _look_up(host: str, port: int, family: int) -> list[Any]:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Any]] = loop.create_future()

    def settle(found: list[Any], error: Exception | None) -> None:
        if answer.done():  # nobody waits any more
            return
        if error is None:
            answer.set_result(found)
        else:
            answer.set_exception(error)

    def ask() -> None:
        found: list[Any] = []
        failure: Exception | None = None
        try:
            found = socket.getaddrinfo(
                host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG
            )
        except Exception as error:  # noqa: BLE001  (told to who asked)
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(settle, found, failure)

    threading.Thread(target=ask, name="name lookup", daemon=True).start()
    return await answer
