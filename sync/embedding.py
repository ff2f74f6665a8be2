"""Have the texts of searches embedded: what waits is asked for, and written beside its text.

A projection keeps the texts. Here they are read in batches, embedded with no transaction open, and
written back only where they are still the same; so a process may be killed anywhere, or a
text change meanwhile, and it is asked for again. Of several services one embeds.

    a batch that is refused      is halved down to the text that is the cause; if the embedder takes
                                 another text, and still not this one, it is left out with its error
    an embedder that is slow,    is asked for fewer texts at a time, and for others before it is
    or fails (5xx)               asked for a single one of them again
    any other trouble            is waited out, and shown with the search
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import asyncpg

from sync import log
from sync.config import Settings
from sync.database import IngestConnection
from sync.embedder import PLAIN_TEXT, Embedder, EmbedderUnavailable, TextsRefused
from sync.errors import ConfigurationError
from sync.firehose import Backoff
from sync.limits import TokenBucket
from sync.sessions import EMBEDDING_LOCK, leased, reason_of

LOOK_EVERY_S = 2.0
RETRY_FIRST_S, RETRY_MAX_S = 1.0, 60.0
# With a rate, a request has no more texts than it allows in this time: what waits for its turn may
# change or go meanwhile.
TURN_S = 10.0
# A table that its readers keep from going must not keep the other searches waiting.
LOCK_TIMEOUT_S = 1.0

_SEARCHES = """
    select name, embedder_url, model, dimensions, rate_per_s, batch_size
      from sync.list_searches()
"""
_WAITING = "select did, rkey, text from sync.waiting_texts($1, $2, $3, $4)"
_STORE = "select sync.store_embeddings($1, $2, $3, $4, $5)"
_REFUSE = "select sync.refuse_text($1, $2, $3, $4, $5)"
_NOTE = "select sync.note_search_error($1, $2)"
_LOCK_TIMEOUT = "select set_config('lock_timeout', $1, false)"
_BEGINNING = ("", "")

_log = log.get("embedding")


@dataclass(frozen=True, slots=True)
class Search:
    """What the service knows of a search."""

    name: str
    url: str
    model: str | None
    dimensions: int
    rate_per_s: float | None
    batch_size: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A text that has no embedding yet, by the key of its record."""

    did: str
    rkey: str
    text: str


class Embedding:
    """One task for each search; they share a connection, which none of them holds for long."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._url = url
        self._settings = settings
        self._tasks: dict[Search, asyncio.Task[None]] = {}

    async def run(self, conn: IngestConnection) -> None:
        """Embed until cancelled, once there is a search and nobody else does."""
        await conn.execute(_LOCK_TIMEOUT, f"{LOCK_TIMEOUT_S * 1000:.0f}ms")
        database = Database(conn)
        await database.first_search()
        async with leased(self._url, EMBEDDING_LOCK, what="embed texts"):
            await self._run(database)

    async def _run(self, database: "Database") -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                wanted = await database.searches()
                for search in self._tasks.keys() - wanted:
                    self._tasks.pop(search).cancel()
                for search in wanted - self._tasks.keys():
                    keeping = self._keep(search, database)
                    self._tasks[search] = group.create_task(keeping, name=search.name)
                await asyncio.sleep(LOOK_EVERY_S)

    async def _keep(self, search: Search, database: "Database") -> None:
        try:
            embedder = Embedder.from_settings(self._settings, search.url, search.model)
        except ConfigurationError as error:
            await database.note(search.name, str(error))
            return  # until the service has other settings, or the search another embedder
        backoff = Backoff(first_s=RETRY_FIRST_S, max_s=RETRY_MAX_S)
        async with embedder:
            while True:
                started_at = time.monotonic()
                try:
                    await Worker(search, database, embedder).run()
                except asyncpg.PostgresError as error:
                    if database.is_closed():
                        raise
                    # Of this search alone: it goes, or is locked, or pgvector was taken away.
                    await database.note(search.name, reason_of(error))
                if time.monotonic() - started_at > RETRY_MAX_S:
                    backoff.reset()
                await asyncio.sleep(backoff.next_delay_s())


class Database:
    """What is asked of the database, one statement at a time."""

    def __init__(self, conn: IngestConnection) -> None:
        self._conn = conn
        self._turn = asyncio.Lock()

    def is_closed(self) -> bool:
        """Tell whether the connection is gone."""
        return self._conn.is_closed()

    async def searches(self) -> set[Search]:
        """Return the searches there are."""
        async with self._turn:
            return {Search(*row) for row in await self._conn.fetch(_SEARCHES)}

    async def first_search(self) -> None:
        """Return once there is a search."""
        while True:
            if await self.searches():
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def waiting(self, search: Search, after: tuple[str, str], limit: int) -> list[Waiting]:
        """Return texts that wait, in the order of their keys."""
        async with self._turn:
            rows = await self._conn.fetch(_WAITING, search.name, *after, limit)
        return [Waiting(*row) for row in rows]

    async def store(
        self, search: Search, texts: Sequence[Waiting], embeddings: Sequence[Sequence[float]]
    ) -> int:
        """Write embeddings where the texts are still the same; returns how many were."""
        dids, rkeys = [text.did for text in texts], [text.rkey for text in texts]
        numbers = list(itertools.chain.from_iterable(embeddings))
        written = [text.text for text in texts]
        async with self._turn:
            return int(
                await self._conn.fetchval(_STORE, search.name, dids, rkeys, written, numbers)
            )

    async def refuse(self, search: Search, text: Waiting, reason: str) -> None:
        """Leave a text out."""
        async with self._turn:
            await self._conn.execute(_REFUSE, search.name, text.did, text.rkey, text.text, reason)

    async def note(self, name: str, reason: str | None) -> None:
        """Show an error with a search, or that there is none."""
        async with self._turn:
            await self._conn.execute(_NOTE, name, reason)


class Worker:
    """Embeds what waits in one search, batch after batch."""

    def __init__(
        self,
        search: Search,
        database: Database,
        embedder: Embedder,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._search = search
        self._database = database
        self._embedder = embedder
        rate = search.rate_per_s
        self._most = search.batch_size
        if rate is not None:
            self._most = max(1, int(min(self._most, rate * TURN_S)))
        self._size = self._most
        self._after = _BEGINNING
        self._backoff = Backoff(first_s=RETRY_FIRST_S, max_s=RETRY_MAX_S)
        self._bucket = None if rate is None else TokenBucket(rate_per_s=rate, burst=1, clock=clock)
        self._pause = pause
        self._has_error = True  # one may have been noted before us

    async def run(self) -> None:
        """Embed for ever."""
        while True:
            if not await self.step():
                await self._pause(LOOK_EVERY_S)

    async def step(self) -> bool:
        """Embed one batch, or wait out what keeps us from it; false when there is time to rest.

        That is after each round, and when others are at the very rows we would write to.
        """
        texts = await self._database.waiting(self._search, self._after, self._size)
        if not texts:
            self._after = _BEGINNING
            return False
        try:
            done = await self._embed(texts)
        except EmbedderUnavailable as error:
            await self._wait_out(error, texts)
            return True
        self._backoff.reset()
        self._size = min(self._most, self._size * 2)
        self._after = (texts[-1].did, texts[-1].rkey)
        if self._has_error:
            await self._database.note(self._search.name, None)
            self._has_error = False
        return done > 0

    async def _embed(self, texts: Sequence[Waiting]) -> int:
        """Embed and write back; what is refused is halved down to its cause.

        Returns how many texts need nothing more.
        """
        try:
            embeddings = await self._ask([text.text for text in texts])
        except TextsRefused as error:
            if len(texts) == 1:
                return await self._try_alone(texts[0], error)
            middle = len(texts) // 2
            return await self._embed(texts[:middle]) + await self._embed(texts[middle:])
        return await self._database.store(self._search, texts, embeddings)

    async def _try_alone(self, text: Waiting, refusal: TextsRefused) -> int:
        """Leave out one text, unless the embedder would refuse any.

        After another text it is asked for again, as the embedder may just have been mended.
        """
        try:
            await self._ask([PLAIN_TEXT])
        except TextsRefused:
            raise EmbedderUnavailable(str(refusal)) from refusal
        try:
            embeddings = await self._ask([text.text])
        except TextsRefused as error:
            _log.warning("a text is left out", search=self._search.name, reason=str(error))
            await self._database.refuse(self._search, text, str(error))
            return 1
        return await self._database.store(self._search, [text], embeddings)

    async def _ask(self, texts: list[str]) -> list[list[float]]:
        if self._bucket is not None:
            await self._pause(max([self._bucket.take() for _ in texts]))
        return await self._embedder.embed(texts, dimensions=self._search.dimensions)

    async def _wait_out(self, error: EmbedderUnavailable, texts: Sequence[Waiting]) -> None:
        """Show the error, and stay away for a while; the next batch is smaller if that may help."""
        _log.warning("an embedder is asked again", search=self._search.name, reason=str(error))
        await self._database.note(self._search.name, str(error))
        self._has_error = True
        if error.may_be_texts:
            if len(texts) == 1:  # it must not keep the others waiting for ever
                self._after = (texts[0].did, texts[0].rkey)
            self._size = max(1, len(texts) // 2)
        await self._pause(max(self._backoff.next_delay_s(), error.pause_s or 0.0))
