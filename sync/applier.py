"""Apply the batches of one lane: stage, call `sync.apply_events()`, commit, cursor included.

A batch that PostgreSQL refuses for its data is halved down to the culprit, whose repo is put out
of sync instead. For anything else (disk full, deadlock, shutdown) the whole batch is tried
again: the cursor never moves without its events.
"""

import asyncio
from dataclasses import dataclass

import asyncpg

from sync import log
from sync.database import IngestConnection, Plans
from sync.errors import StandpipeError
from sync.problems import ProblemLog
from sync.progress import Progress, SourceProgress
from sync.staging import LaneClaim, StagedEvent, apply_events, copy_events

RETRY_FIRST_S, RETRY_MAX_S = 0.1, 5.0

_NOTE_GAP = "select sync.note_gap($1)"
_FENCED = "SY101"
# Only these can be the fault of what was staged: bad data, a broken constraint, our own verdict.
_DATA_CLASSES = ("22", "23", "SY2")

_log = log.get("lane")


class LaneFenced(StandpipeError):
    """Somebody else claimed this lane."""


class DataFault(Exception):
    """PostgreSQL refused what was staged for something in it."""

    def __init__(self, sqlstate: str, text: str) -> None:
        self.sqlstate = sqlstate
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction applies."""

    events: tuple[StagedEvent, ...]
    cursor: int | None
    generation: int
    problems: ProblemLog
    has_gap: bool = False


def data_fault(error: BaseException) -> DataFault | None:
    """Return the fault if the staged data is to blame for an error, else None."""
    if isinstance(error, asyncpg.PostgresError):
        sqlstate = error.sqlstate or ""
        is_data = sqlstate.startswith(_DATA_CLASSES)
        return DataFault(sqlstate, str(error)) if is_data else None
    if isinstance(error, ValueError | OverflowError):  # the driver could not encode a value
        return DataFault("22000", str(error))
    return None


class Applier:
    """Apply batches over one connection, in order."""

    def __init__(
        self,
        conn: IngestConnection,
        claim: LaneClaim,
        *,
        progress: Progress,
        source: SourceProgress,
    ) -> None:
        self._conn = conn
        self._plans = Plans(conn)
        self._claim = claim
        self._progress = progress
        self._source = source

    async def apply(self, batch: Batch) -> None:
        """Apply a batch, however often it takes; the cursor never moves without it."""
        delay_s = RETRY_FIRST_S
        while not await self._try(batch):
            await asyncio.sleep(delay_s)
            delay_s = min(RETRY_MAX_S, delay_s * 2)
        self._source.durable_seq = batch.cursor

    async def _try(self, batch: Batch) -> bool:
        """Apply a batch; False when it is worth another try."""
        try:
            await self._plans.renew_if_due()
            await self._apply_events(batch, batch.events)
        except asyncpg.PostgresError as error:
            if error.sqlstate == _FENCED:
                raise LaneFenced(str(error)) from error
            if self._conn.is_closed():
                raise
            _log.warning("a batch is tried again", sqlstate=error.sqlstate, error=str(error))
            return False
        return True

    async def _apply_events(self, batch: Batch, events: tuple[StagedEvent, ...]) -> None:
        """Apply events and halve them down to a culprit; the last half carries the cursor."""
        try:
            await self._transact(batch, events)
        except DataFault as fault:
            if len(events) > 1:
                middle = len(events) // 2
                before = Batch(
                    events=events[:middle],
                    cursor=events[middle].seq - 1,
                    generation=batch.generation,
                    problems=ProblemLog(),
                    has_gap=batch.has_gap,  # the server tells it once, before this cursor
                )
                await self._apply_events(before, before.events)
                await self._apply_events(batch, events[middle:])
            else:
                await self._apply_culprit(batch, events, fault)

    async def _apply_culprit(
        self, batch: Batch, events: tuple[StagedEvent, ...], fault: DataFault
    ) -> None:
        """Put the repo of the one event PostgreSQL refuses out of sync instead (OP-10)."""
        reason = f"apply_{fault.sqlstate}"
        for event in events:
            batch.problems.note(reason, did=event.did, detail=event.kind)
            if event.kind != "broken":
                await self._apply_events(batch, event.instead(reason))
                return
        await self._transact(batch, ())

    async def _transact(self, batch: Batch, events: tuple[StagedEvent, ...]) -> None:
        """Stage, apply and commit. Only what fails before the commit can be an event's fault."""
        async with self._conn.transaction():
            try:
                await copy_events(self._conn, events)
                outcomes = await apply_events(
                    self._conn, self._claim, cursor=batch.cursor, generation=batch.generation
                )
            except (asyncpg.PostgresError, ValueError, OverflowError) as error:
                fault = data_fault(error)
                if fault is None or not events:
                    raise
                raise fault from error
            await batch.problems.write(self._conn)
            if batch.has_gap:
                await self._conn.execute(_NOTE_GAP, self._claim.source_id)
        self._progress.problems += batch.problems.events()
        for outcome, count in outcomes.items():
            self._progress.count_outcome(outcome, count)
