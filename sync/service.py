"""The service: everything that runs for ever, in one task group.

What cannot go on without an operator ends the service with one sentence. A lost database is
waited for; each part starts over from what is durable.
"""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from sync.checker import AccountChecker
from sync.config import Settings
from sync.database import IngestConnection
from sync.embedding import Embedding
from sync.errors import ConfigurationError, StandpipeError
from sync.fetcher import Fetcher, FetcherParts
from sync.gaps import GapCloser
from sync.http import HttpClient
from sync.identities import IdentityKeeper
from sync.indexes import build_indexes_forever
from sync.maintenance import (
    end_idle_holders_forever,
    maintain_forever,
    refresh_identities_forever,
)
from sync.progress import Progress
from sync.projections import Projections
from sync.resolver import Resolver
from sync.retention import retire_forever
from sync.sessions import GAPS_LOCK, LEASE_S, ingest_session, keep_working, leased, leaves_of
from sync.sources import SourceParts, SourceSupervisor, source_url
from sync.wakes import Wakes

WORK_CHANNEL = "sync_work"
LISTEN_CHECK_S = 5.0

_ADD_SOURCE = "select sync.add_source($1, $2)"
_ALIVE = "select 1"


async def run_service(
    settings: Settings,
    *,
    sources: Sequence[tuple[str, str]],
    progress: Progress,
    stop: asyncio.Event,
) -> None:
    """Run until `stop` is set; raises the one sentence that ended it otherwise.

    `sources` are (url, kind) pairs that are enabled first, beside those already enabled.
    """
    url = settings.database_url
    if url is None:
        raise ConfigurationError("The service needs the URL of a database.")
    await asyncio.to_thread(_make_spool, settings.spool_folder)
    async with ingest_session(url, name="start") as conn:
        for source, kind in sources:
            await _add_source(conn, source, kind)
    async with HttpClient(
        user_agent=settings.user_agent, allow_private_hosts=settings.allow_private_hosts
    ) as http:
        resolver = Resolver.from_settings(http, settings)
        try:
            await _run_until(stop, _Service(settings, url, http, resolver, progress).run)
        finally:
            await resolver.aclose()


def _make_spool(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"Downloads cannot be kept in {folder} ({error.strerror}): set STANDPIPE_SPOOL_DIR."
        ) from error


async def _add_source(conn: IngestConnection, url: str, kind: str) -> None:
    try:
        await conn.execute(_ADD_SOURCE, source_url(url), kind)
    except asyncpg.PostgresError as error:
        if error.sqlstate == "SY002":
            raise ConfigurationError(
                f"{url} is not a source: give a URL like https://bsky.network, without a path."
            ) from error
        raise


async def _run_until(stop: asyncio.Event, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run until told to stop; of several errors the first one with a sentence is raised."""
    work = asyncio.ensure_future(run())
    waiting = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        work.cancel()
        results = await asyncio.gather(work, waiting, return_exceptions=True)
    error = results[0]
    if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
        raise _sentence_of(error)


def _sentence_of(error: BaseException) -> BaseException:
    """Pick out of a group what a user can act on."""
    errors = list(leaves_of(error))
    return next((leaf for leaf in errors if isinstance(leaf, StandpipeError)), errors[0])


class _Service:
    """The parts and what they share."""

    def __init__(
        self, settings: Settings, url: str, http: HttpClient, resolver: Resolver, progress: Progress
    ) -> None:
        self._settings = settings
        self._url = url
        self._http = http
        self._resolver = resolver
        self._progress = progress
        self._wakes = Wakes()
        self._sources = SourceParts(
            settings=settings,
            database_url=url,
            http=http,
            progress=progress,
            wakes=self._wakes,
        )

    async def run(self) -> None:
        """Run every part until cancelled."""
        parts = {
            "sources": self._run_sources,
            "fetches": self._run_fetches,
            "identities": self._run_identities,
            "accounts": self._run_checks,
            "gaps": self._run_gaps,
            "upkeep": maintain_forever,
            "log lock": self._end_idle_holders,
            "retention": self._run_retention,
            "indexes": self._build_indexes,
            "projections": self._run_projections,
            "embedding": self._embed_texts,
            "listener": self._listen,
        }
        async with asyncio.TaskGroup() as group:
            for name, work in parts.items():
                # Claims last as long as the session, which a stopped process must not keep.
                idle_timeout_s = LEASE_S if name == "fetches" else None
                working = keep_working(
                    self._url, name, work, progress=self._progress, idle_timeout_s=idle_timeout_s
                )
                group.create_task(working, name=name)

    async def _run_sources(self, conn: IngestConnection) -> None:
        await SourceSupervisor(self._sources).run(conn)

    async def _run_fetches(self, conn: IngestConnection) -> None:
        """Fetch; what is claimed is ours until the session ends."""
        async with (
            ingest_session(self._url, name="reconcile") as reconciling,
            ingest_session(self._url, name="fetched identities") as identities,
        ):
            keeper = IdentityKeeper(identities, resolver=self._resolver)
            fetcher = Fetcher(
                FetcherParts(
                    settings=self._settings,
                    control=conn,
                    conn=reconciling,
                    http=self._http,
                    resolver=self._resolver,
                    keeper=keeper,
                    progress=self._progress,
                    wake=self._wakes.fetches,
                )
            )
            await fetcher.run()

    async def _run_identities(self, conn: IngestConnection) -> None:
        keeper = IdentityKeeper(conn, resolver=self._resolver)
        await refresh_identities_forever(
            keeper, progress=self._progress, wake=self._wakes.identities
        )

    async def _run_checks(self, conn: IngestConnection) -> None:
        keeper = IdentityKeeper(conn, resolver=self._resolver)
        checker = AccountChecker(keeper, http=self._http, resolver=self._resolver)
        await checker.run(self._wakes.accounts)

    async def _run_gaps(self, conn: IngestConnection) -> None:
        """Compare repos, once nobody else does."""
        async with leased(self._url, GAPS_LOCK, what="compare repos"):
            await self._close_gaps(conn)

    async def _close_gaps(self, conn: IngestConnection) -> None:
        closer = GapCloser(
            conn,
            http=self._http,
            resolver=self._resolver,
            progress=self._progress,
            wake=self._wakes.gaps,
            compare_every_s=self._settings.compare_every_s,
        )
        await closer.run()

    async def _end_idle_holders(self, conn: IngestConnection) -> None:
        await end_idle_holders_forever(conn, idle_s=self._settings.log_lock_idle_s)

    async def _run_retention(self, conn: IngestConnection) -> None:
        await retire_forever(conn, url=self._url)

    async def _build_indexes(self, conn: IngestConnection) -> None:
        await build_indexes_forever(conn, url=self._url)

    async def _run_projections(self, conn: IngestConnection) -> None:
        await Projections(self._url).run(conn)

    async def _embed_texts(self, conn: IngestConnection) -> None:
        await Embedding(self._url, self._settings).run(conn)

    async def _listen(self, conn: IngestConnection) -> None:
        """Turn notifications into wake-ups."""
        await conn.add_listener(WORK_CHANNEL, self._wakes.set_all)
        while True:
            await conn.execute(_ALIVE)  # notices a connection that is gone
            await asyncio.sleep(LISTEN_CHECK_S)
