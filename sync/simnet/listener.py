"""An HTTP server on loopback that can be stopped like a crash and started again on its port."""

import asyncio
import socket
from collections.abc import Callable

from aiohttp import web

from sync.errors import UsageError


class Listener:
    """One aiohttp application on 127.0.0.1; port 0 takes a free one and keeps it."""

    def __init__(self, build: Callable[[], web.Application], *, port: int = 0) -> None:
        self._build = build
        self._runner: web.AppRunner | None = None
        self._socket = _bind(port)
        self.port: int = self._socket.getsockname()[1]

    @property
    def url(self) -> str:
        """Return the base URL, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen; a no-op while listening."""
        if self._runner is not None:
            return
        if self._socket.fileno() < 0:
            self._socket = _bind(self.port)
        runner = web.AppRunner(self._build(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.SockSite(runner, self._socket, backlog=1_024).start()
        self._runner = runner

    async def stop(self, *, keeps_port: bool = False) -> None:
        """Stop listening and cut every connection in the middle (websockets see 1006).

        With `keeps_port` nobody else gets the port before it listens again.
        """
        runner, self._runner = self._runner, None
        if runner is not None:
            await self._cut(runner)
            self._socket.close()
        if not keeps_port:
            self._socket.close()
        elif self._socket.fileno() < 0:
            self._socket = _bind(self.port)

    async def _cut(self, runner: web.AppRunner) -> None:
        for site in list(runner.sites):
            await site.stop()
        server = runner.server
        for connection in list(server.connections) if server is not None else []:
            if connection.transport is not None:
                connection.transport.abort()
        # Handlers learn of the cut in the next turn of the loop; only then is there nothing
        # left for the orderly shutdown to wait for.
        await asyncio.sleep(0)
        await runner.cleanup()


def _bind(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        listening.close()
        raise UsageError(f"port {port} on 127.0.0.1 is not free: choose another one") from error
    return listening
