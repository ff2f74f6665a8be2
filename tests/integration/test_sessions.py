"""Parts of the service work until they are cancelled, whatever happens at the same moment."""

import asyncio

import asyncpg
import pytest

from sync.database import IngestConnection
from sync.progress import Progress
from sync.sessions import keep_working


async def test_a_part_that_is_cancelled_while_its_connection_breaks_does_not_start_over(
    clone: str,
) -> None:
    """Python 3.11 and 3.12 would raise the error of the group's task, and forget the rest."""
    starts = 0
    is_started = asyncio.Event()

    async def break_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise asyncpg.InterfaceError("connection is closed")

    async def work(_: IngestConnection) -> None:
        nonlocal starts
        starts += 1
        if starts > 1:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(break_when_cancelled())
            is_started.set()

    part = asyncio.create_task(keep_working(clone, "part", work, progress=Progress()))
    await asyncio.wait_for(is_started.wait(), 60)
    part.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(part, 60)
    assert starts == 1


async def test_a_part_whose_task_fails_late_starts_over(clone: str) -> None:
    """Before Python 3.13 a group leaves its task marked as cancelled by that."""
    starts = 0

    async def fail_soon() -> None:
        await asyncio.sleep(0)
        raise asyncpg.InterfaceError("connection is closed")

    async def work(_: IngestConnection) -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail_soon())

    await asyncio.wait_for(keep_working(clone, "part", work, progress=Progress()), 60)
    assert starts == 2
