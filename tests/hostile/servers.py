"""simnet's PDS and directory, with somebody who answers in their place and counts."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from sync.simnet.pds import Pds
from sync.simnet.plc import Plc
from sync.simnet.xrpc import parameter

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Exports:
    """How often each account's repo was asked for, and who answers instead of its PDS.

    `resolved` is how often its DID document was asked for.
    """

    asked: Counter[str] = field(default_factory=Counter)
    answers: dict[str, Answer] = field(default_factory=dict)
    resolved: Counter[str] = field(default_factory=Counter)


class LyingPds(Pds):
    """A PDS that answers getRepo as told."""

    def __init__(self, exports: Exports, *args: Any) -> None:
        super().__init__(*args)
        self._exports = exports

    async def get_repo(self, request: web.Request) -> web.StreamResponse:
        did = parameter(request, "did")
        self._exports.asked[did] += 1
        return await self._exports.answers.get(did, super().get_repo)(request)


class CountingPlc(Plc):
    """A directory that counts what it is asked."""

    def __init__(self, exports: Exports, *args: Any) -> None:
        super().__init__(*args)
        self._exports = exports

    async def document(self, request: web.Request) -> web.Response:
        self._exports.resolved[request.match_info["did"]] += 1
        return await super().document(request)
