"""A small embedder behind the interface that real ones have, which may be told to misbehave.

Its embeddings are a sum over the words of a text, each hashed to a few of `DIMENSIONS` numbers; so
the same text has the same embedding everywhere, and texts that share words are near each other.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

DIMENSIONS = 24

# What it does to one answer, in place of sending it as it is.
Trouble = Callable[[list[dict[str, Any]]], web.StreamResponse]


def embed(text: str, *, dimensions: int = DIMENSIONS) -> list[float]:
    """Return the embedding of a text."""
    numbers = [0.0] * dimensions
    numbers[0] = 0.01  # also where there is no word
    for word in re.findall(r"\w+", text.lower()):
        digest = hashlib.sha256(word.encode()).digest()
        for place in range(4):
            sign = 1 if digest[2 * place] & 1 else -1
            numbers[digest[2 * place + 1] % dimensions] += sign
    return numbers


def status(code: int, said: str = "no", **headers: str) -> Trouble:
    """Answer with another status than 200."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: web.Response(status=code, text=said, headers=named)


def changed(change: Callable[[list[dict[str, Any]]], Any]) -> Trouble:
    """Answer with something else than was asked for."""
    return lambda data: web.Response(text=json.dumps({"data": change(data)}))


@dataclass
class FakeEmbedder:
    """What it was asked for, and what it is to do."""

    url: str = ""
    requests: list[list[str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    models: list[str | None] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    dimensions: int = DIMENSIONS
    refuses: Callable[[list[str]], bool] = lambda texts: False
    refusal: int = 400
    is_open: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def texts(self) -> list[str]:
        """Return every text it was sent, in order."""
        return [text for texts in self.requests for text in texts]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        asked = await request.json()
        texts = asked["input"]
        self.requests.append(texts)
        self.models.append(asked.get("model"))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        await self.is_open.wait()
        if self.refuses(texts):
            return web.Response(status=self.refusal, text='{"error": "too long"}')
        data = [
            {"index": place, "embedding": embed(text, dimensions=self.dimensions)}
            for place, text in enumerate(texts)
        ]
        if self.troubles:
            return self.troubles.pop(0)(data)
        # In no order, as the interface allows.
        return web.Response(text=json.dumps({"object": "list", "data": data[::-1]}))


@asynccontextmanager
async def fake_embedder() -> AsyncIterator[FakeEmbedder]:
    """Run one on a free port of this machine."""
    embedder = FakeEmbedder()
    embedder.is_open.set()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/embeddings", embedder.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        embedder.url = f"http://{host}:{port}/v1/embeddings"
        yield embedder
    finally:
        embedder.is_open.set()
        await runner.cleanup()
