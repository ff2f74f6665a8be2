"""Fetch repos: claim, resolve, download, verify, and hand over to the reconciler.

Downloads run side by side; what they bring is reconciled in groups, because a hundred small
repos in one call cost little more than one. A claim counts as running until it is reconciled or
failed, so claims never run far ahead of the database.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import BinaryIO, cast

import asyncpg

from sync import log
from sync.applier import data_fault
from sync.atproto.export import Export, ExportLimits, read_export
from sync.atproto.identity import DidDocument
from sync.atproto.keys import parse_did_key
from sync.config import Settings
from sync.database import IngestConnection, Plans
from sync.download import FetchError, HostHealth, download_repo
from sync.errors import ExportError, IdentityError
from sync.http import HttpClient
from sync.identities import IdentityKeeper
from sync.limits import BoundedMap, LentPlaces
from sync.problems import ProblemLog, storable
from sync.progress import Progress
from sync.reconciler import TOO_MANY_COLLECTIONS, FetchedRepo, reconcile
from sync.resolver import Resolver
from sync.triage import host_of, now_us
from sync.wakes import wait_for

MAX_RUNNING = 64
# Hosts at a crawl keep their downloads for minutes: after this they count as nobody's place.
LONG_DOWNLOAD_S = 20.0
GROUP_REPOS = 100
GROUP_RECORDS = 50_000
# Verified exports that wait for the database may hold this many records in memory.
WAITING_RECORDS = 500_000
CONCURRENT_VERIFICATIONS = 2
IDLE_S = 0.5
MEMORY_SPOOL_BYTES = 262_144
BUSY_ATTEMPTS = 50
BUSY_RETRY_S = 0.1
RELEASE_TIMEOUT_S = 2.0
REMEMBERED_HOSTS = 10_000

_CLAIM = (
    "select repo_id, did, pds_url, signing_key, generation, fetch_token, has_records "
    "from sync.claim_fetches($1, $2)"
)
_BEAT = "select 1"
_FAIL = "select sync.fail_fetch($1, $2, $3, $4, $5, $6)"
_RELEASE = "select sync.release_fetch($1, $2, $3)"

_log = log.get("fetcher")


@dataclass(frozen=True, slots=True)
class Claim:
    """A repo that is ours to fetch until its token is over."""

    repo_id: int
    did: str
    pds_url: str | None
    signing_key: str | None
    generation: int
    fetch_token: int
    has_records: bool


@dataclass(slots=True)
class FetcherParts:
    """What a fetcher works with: one connection to claim and report, one to reconcile."""

    settings: Settings
    control: IngestConnection
    conn: IngestConnection
    http: HttpClient
    resolver: Resolver
    keeper: IdentityKeeper
    progress: Progress
    wake: asyncio.Event
    problems: ProblemLog = field(default_factory=ProblemLog)


class Fetcher:
    """Keep fetching whatever waits for it."""

    def __init__(self, parts: FetcherParts) -> None:
        self._parts = parts
        self._claim_plans, self._reconcile_plans = Plans(parts.control), Plans(parts.conn)
        settings = parts.settings
        self._limits = ExportLimits(
            max_bytes=settings.max_repo_bytes,
            max_records=settings.max_repo_records,
            max_cpu_s=settings.fetch_timeout_s,
        )
        self._health = HostHealth()
        self._running: dict[int, Claim] = {}  # by fetch_token: a repo may be claimed anew
        self._fetched: asyncio.Queue[FetchedRepo] = asyncio.Queue()
        self._waiting_records = 0
        self._waits: dict[int, int] = {}  # by fetch_token, of repos that somebody has locked
        self._has_room = asyncio.Event()
        self._downloads = LentPlaces(settings.max_concurrent_fetches, long_s=LONG_DOWNLOAD_S)
        self._verifications = asyncio.Semaphore(CONCURRENT_VERIFICATIONS)
        self._hosts: BoundedMap[str, asyncio.Semaphore] = BoundedMap(REMEMBERED_HOSTS)
        self._control_lock = asyncio.Lock()

    async def run(self) -> None:
        """Fetch until cancelled, then hand back what is not finished."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._reconcile_forever(group))
                await self._claim_forever(group)
        finally:
            await self._release_all()

    async def _claim_forever(self, group: asyncio.TaskGroup) -> None:
        parts = self._parts
        # A host's share counts claims that only wait to be reconciled, too.
        per_host = parts.settings.fetches_per_host * 4
        while True:
            parts.wake.clear()
            free = MAX_RUNNING - len(self._running)
            claims: list[Claim] = []
            async with self._control_lock:
                await self._write_problems()
                await self._claim_plans.renew_if_due()
                if free > 0:
                    rows = await parts.control.fetch(_CLAIM, free, per_host)
                    claims = [Claim(*row) for row in rows]
                else:  # a session that says nothing loses its claims
                    await parts.control.execute(_BEAT)
            for claim in claims:
                self._running[claim.fetch_token] = claim
                group.create_task(self._fetch(claim))
            parts.progress.fetches_running = len(self._running)
            if not claims:
                await wait_for(parts.wake, timeout_s=IDLE_S)

    # From a claim to a verified export ---------------------------------------------------------

    async def _fetch(self, claim: Claim) -> None:
        """Bring one repo to the reconciler, or report why not."""
        with ExitStack() as stack:
            try:
                repo = await self._fetch_verified(claim, stack)
            except FetchError as error:
                await self._fail(claim, error)
                return
            except (ExportError, IdentityError) as error:
                await self._fail(claim, FetchError(error.reason, error.detail))
                return
            except OSError as error:
                if isinstance(error, ConnectionError):
                    raise  # that is the database
                await self._fail(claim, FetchError("spool", str(error)))
                return
            self._fetched.put_nowait(repo)
            stack.pop_all()  # the file is the reconciler's to close now

    async def _fetch_verified(self, claim: Claim, stack: ExitStack) -> FetchedRepo:
        file = self._open_spool(stack)
        document = await self._resolve(claim)
        pds_url, key = document.pds_url, document.signing_key
        if pds_url is None or key is None:
            raise FetchError("no_pds" if pds_url is None else "no_key")
        # Who waits for a slow host, or for a slow handle, takes no other host's download away.
        async with self._host_slots(pds_url), self._downloads.place():
            await self._download(claim, pds_url, file)
        async with self._verifications:
            while self._waiting_records > WAITING_RECORDS:
                self._has_room.clear()
                await self._has_room.wait()
            export = await self._verify(claim, key, file)
            self._waiting_records += len(export.leaves)
        for reason, count in export.skipped.items():
            self._parts.problems.note(reason, host=host_of(pds_url), did=claim.did, events=count)
        return FetchedRepo(
            repo_id=claim.repo_id,
            did=claim.did,
            generation=claim.generation,
            fetch_token=claim.fetch_token,
            has_records=claim.has_records,
            export=export,
            trust="verified",
            file=file,
        )

    def _open_spool(self, stack: ExitStack) -> BinaryIO:
        """Make a file that small repos never write to disk and that nobody has to remove."""
        file = tempfile.SpooledTemporaryFile(  # noqa: SIM115  (the stack closes it)
            max_size=MEMORY_SPOOL_BYTES, dir=str(self._parts.settings.spool_folder)
        )
        stack.callback(file.close)
        return cast("BinaryIO", file)

    async def _download(self, claim: Claim, pds_url: str, file: BinaryIO) -> None:
        settings = self._parts.settings
        await download_repo(
            self._parts.http,
            pds_url,
            claim.did,
            file,
            max_bytes=settings.max_repo_bytes,
            timeout_s=settings.fetch_timeout_s,
            health=self._health,
        )
        self._parts.progress.fetched_bytes += file.tell()

    async def _resolve(self, claim: Claim) -> DidDocument:
        """Resolve the DID afresh (D-18), and store what is new of it."""
        try:
            document = await self._parts.resolver.document(claim.did, max_age_s=0)
        except IdentityError as error:
            status = "deleted" if error.reason == "tombstoned" else None
            reason = f"identity_{error.reason}"
            raise FetchError(reason, error.detail, account_status=status) from error
        await self._parts.keeper.store_if_new(document)
        return document

    async def _verify(self, claim: Claim, key: str, file: BinaryIO) -> Export:
        """Verify an export in a thread; when its signature fails, with a newer key once."""
        try:
            return await self._read(claim.did, key, file)
        except ExportError as error:
            if error.reason != "bad_signature":
                raise
            document = await self._parts.resolver.refresh(claim.did)
            if document is None or document.signing_key in {None, key}:
                raise
            await self._parts.keeper.store_if_new(document)
            return await self._read(claim.did, document.signing_key or "", file)

    async def _read(self, did: str, key: str, file: BinaryIO) -> Export:
        public = parse_did_key(key)
        try:
            return await asyncio.to_thread(
                read_export, file, did, public, now_us=now_us(), limits=self._limits
            )
        except (ExportError, OSError):
            raise
        except Exception as error:  # no bytes may stop the other fetches (FA-14)
            _log.exception("an export could not be judged", did=did)
            raise ExportError("unexpected_error", type(error).__name__) from error

    def _host_slots(self, pds_url: str) -> asyncio.Semaphore:
        slots = self._hosts.get(pds_url)
        if slots is None:
            slots = asyncio.Semaphore(self._parts.settings.fetches_per_host)
            self._hosts[pds_url] = slots
        return slots

    # From a verified export to the database ----------------------------------------------------

    async def _reconcile_forever(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            group = await self._next_group()
            busy: set[int] = set()
            try:
                busy = await self._reconcile_once(group)
            finally:
                for repo in group:
                    if repo.repo_id not in busy:
                        self._put_away(repo)
            for repo in group:
                if repo.repo_id in busy:
                    tasks.create_task(self._wait_for_lock(repo))
            self._parts.wake.set()

    async def _wait_for_lock(self, repo: FetchedRepo) -> None:
        """Queue a repo that somebody has locked again after a pause; at last give its claim back.

        It may be an app that idles in a transaction: the other repos do not wait for it.
        """
        waits = self._waits[repo.fetch_token] = self._waits.get(repo.fetch_token, 0) + 1
        if waits < BUSY_ATTEMPTS:
            await asyncio.sleep(BUSY_RETRY_S)
            self._fetched.put_nowait(repo)
            return
        self._put_away(repo)
        await self._end_claim(self._running[repo.fetch_token], _RELEASE)

    def _put_away(self, repo: FetchedRepo) -> None:
        """Forget an export that was used or is not wanted any more."""
        repo.file.close()
        self._waits.pop(repo.fetch_token, None)
        self._waiting_records -= len(repo.export.leaves)
        self._has_room.set()

    async def _next_group(self) -> list[FetchedRepo]:
        """Take what is there, up to a size; a repo that was claimed twice counts once a group."""
        group = [await self._fetched.get()]
        records = len(group[0].export.leaves)
        while len(group) < GROUP_REPOS and records < GROUP_RECORDS and not self._fetched.empty():
            repo = self._fetched.get_nowait()
            if any(repo.repo_id == other.repo_id for other in group):
                self._fetched.put_nowait(repo)
                break
            group.append(repo)
            records += len(repo.export.leaves)
        return group

    async def _reconcile_once(self, repos: Sequence[FetchedRepo]) -> set[int]:
        """Reconcile some repos; returns those that are locked by somebody else."""
        try:
            await self._reconcile_plans.renew_if_due()
            results = await reconcile(self._parts.conn, repos)
        except (asyncpg.PostgresError, ValueError, OverflowError) as error:
            fault = data_fault(error)
            if fault is None:
                raise
            if len(repos) == 1:
                claim = self._running[repos[0].fetch_token]
                await self._fail(claim, FetchError(f"reconcile_{fault.sqlstate}", str(fault)))
                return set()
            middle = len(repos) // 2
            first = await self._reconcile_once(repos[:middle])
            return first | await self._reconcile_once(repos[middle:])
        tokens = {repo.repo_id: repo.fetch_token for repo in repos}
        busy = set()
        for repo_id, outcome, created, updated, deleted in results:
            if outcome == "busy":
                busy.add(repo_id)
                continue
            if outcome == TOO_MANY_COLLECTIONS:
                await self._fail(self._running[tokens[repo_id]], FetchError(outcome))
                continue
            self._finish(tokens[repo_id], outcome)
            progress = self._parts.progress
            progress.records_created += created
            progress.records_updated += updated
            progress.records_deleted += deleted
        return busy

    def _finish(self, fetch_token: int, outcome: str) -> None:
        claim = self._running.pop(fetch_token)
        self._parts.progress.fetches_running = len(self._running)
        if outcome == "synchronized":
            self._parts.progress.repos_fetched += 1
            return
        _log.info("fetched in vain", did=claim.did, outcome=outcome)
        if outcome not in {"superseded", "desynchronized"}:
            self._note(claim, outcome, "")

    # Reporting ---------------------------------------------------------------------------------

    async def _fail(self, claim: Claim, error: FetchError) -> None:
        """Report a fetch that ended without an export."""
        _log.info("fetch failed", did=claim.did, reason=str(error)[:300])
        self._note(claim, error.reason, error.detail)
        self._parts.progress.fetches_failed += 1
        await self._end_claim(
            claim, _FAIL, storable(str(error))[:300], error.account_status, error.host_ready_at()
        )
        self._parts.wake.set()

    async def _end_claim(self, claim: Claim, query: str, *args: object) -> None:
        """End a claim in the database; while somebody has the repo locked, ask again."""
        control = self._parts.control
        names = (claim.repo_id, claim.generation, claim.fetch_token)
        is_ended: bool | None = None
        while is_ended is None:
            async with self._control_lock, control.transaction():
                await self._write_problems()
                is_ended = await control.fetchval(query, *names, *args)
            if is_ended is None:
                await asyncio.sleep(BUSY_RETRY_S)
        self._running.pop(claim.fetch_token, None)

    def _note(self, claim: Claim, reason: str, detail: str) -> None:
        host = host_of(claim.pds_url or "")
        self._parts.problems.note(f"fetch_{reason}", host=host, did=claim.did, detail=detail)

    async def _write_problems(self) -> None:
        problems = self._parts.problems.take()
        self._parts.progress.problems += problems.events()
        await problems.write(self._parts.control)

    async def _release_all(self) -> None:
        """Hand running claims back without blame; if that fails, the next start does it."""
        while not self._fetched.empty():
            self._fetched.get_nowait().file.close()
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                for claim in list(self._running.values()):
                    await self._parts.control.execute(
                        _RELEASE, claim.repo_id, claim.generation, claim.fetch_token
                    )
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            _log.info("claims are left for the next start", reason=str(error))
