"""What every simulated server does with a request: scripted trouble, errors, sending a CAR."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from sync.simnet.faults import Fault, Faults

CAR_TYPE = "application/vnd.ipld.car"
_PIECE_BYTES = 65_536
# The trouble that a request is to suffer, for the handlers that deal with it themselves.
FAULT = web.RequestKey("fault", Fault)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class XrpcError(Exception):
    """An error answer as XRPC words it."""

    def __init__(self, error: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.error = error
        self.message = message
        self.status = status


def guard(faults: Faults, *, pds: int | None = None) -> Any:
    """Return the middleware that plays the script and words the errors."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        method = method_name(request)
        fault = faults.take(method, pds=pds, did=request.query.get("did"))
        if fault is not None:
            request[FAULT] = fault
            await asyncio.sleep(fault.delay_s)
        if fault is not None and fault.status is not None:
            body = {"error": "Scripted", "message": f"{method} fails as scripted"}
            return web.json_response(body, status=fault.status, headers=fault.headers)
        try:
            return await handler(request)
        except XrpcError as error:
            body = {"error": error.error, "message": error.message}
            return web.json_response(body, status=error.status)

    return middleware


def method_name(request: web.Request) -> str:
    """Return the short name of what is asked: `sync.getRepo`, or the path's last word."""
    return request.path.rpartition("/")[2].removeprefix("com.atproto.")


def parameter(request: web.Request, name: str) -> str:
    """Return a required query parameter."""
    value = request.query.get(name)
    if not value:
        raise XrpcError("InvalidRequest", f'Error: Params must have the property "{name}"')
    return value


def page_limit(request: web.Request, *, default: int, most: int) -> int:
    """Return the page size that is asked for."""
    text = request.query.get("limit", str(default))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise XrpcError("InvalidRequest", f"Error: limit must be between 1 and {most}")
    return int(text)


async def send_car(request: web.Request, car: bytes) -> web.StreamResponse:
    """Stream a CAR in pieces, without its length; a scripted cut ends it in the middle."""
    fault = request.get(FAULT)
    cut = None if fault is None else fault.cut_after_bytes
    body = memoryview(car)[:cut]
    response = web.StreamResponse(headers={"content-type": CAR_TYPE})
    response.enable_chunked_encoding()
    await response.prepare(request)
    for start in range(0, len(body), _PIECE_BYTES):
        await response.write(body[start : start + _PIECE_BYTES])
    if cut is not None:
        if request.transport is not None:
            request.transport.abort()
        return response
    await response.write_eof()
    return response
