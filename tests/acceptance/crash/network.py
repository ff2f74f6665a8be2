"""The simulated network, each of whose requests passes the gate before and after it is answered."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from sync.simnet import Simnet
from sync.simnet.xrpc import Handler, method_name
from tests.acceptance.crash.gate import AFTER, BEFORE, Gate, Point

SUBSCRIBE = "sync.subscribeRepos"
POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Request:
    """Where a request is, for the harness."""

    did: str | None
    client_port: int | None = None
    backend_pid: int | None = None


class WatchedSimnet(Simnet):
    """An honest network that can be stopped at any answer, and whose firehose can be cut."""

    def __init__(self, gate: Gate, **options: Any) -> None:
        super().__init__(**options)
        self.gate = gate

    async def start(self) -> None:
        """Start every server again with somebody who watches the door."""
        await super().start()
        for name, listener in self._listeners.items():
            listener._build = self._watched(name, listener._build)
            await listener.stop()
            await listener.start()

    def cut_firehose(self) -> int:
        """Abort every connection of the relay in the middle; returns how many there were."""
        runner = self._listeners["relay"]._runner
        assert runner is not None
        assert runner.server is not None
        transports = [each.transport for each in runner.server.connections if each.transport]
        for transport in transports:
            transport.abort()
        return len(transports)

    def _watched(
        self, name: str, build: Callable[[], web.Application]
    ) -> Callable[[], web.Application]:
        @web.middleware
        async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._watch(name.rstrip("0123456789"), request, handler)

        def build_watched() -> web.Application:
            app = build()
            app.middlewares.insert(0, watch)
            return app

        return build_watched

    async def _watch(
        self, server: str, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        method = "document" if server == "plc" else method_name(request)
        point = Point("network", f"{server} {method}")
        place = Request(request.query.get("did"))
        await self.gate.pass_by(point, BEFORE, place)
        if method == SUBSCRIBE:
            return await self._watch_subscription(point, request, handler)
        response = await handler(request)
        if self.gate.is_awaited(point, AFTER):
            await response.prepare(request)
            await response.write_eof()
        await self.gate.pass_by(point, AFTER, place)
        return response

    async def _watch_subscription(
        self, point: Point, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """Tell when somebody is subscribed; his answer is never over."""
        listeners = self.world.relay._listeners
        before = set(listeners)
        serving = asyncio.ensure_future(handler(request))
        try:
            while not (serving.done() or listeners - before):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
            await self.gate.pass_by(point, AFTER, Request(None))
            return await serving
        finally:
            serving.cancel()
