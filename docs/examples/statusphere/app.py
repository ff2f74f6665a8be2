"""Statusphere: one page with the latest status of everybody, which changes when they do."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
from aiohttp import web

URL = os.environ["DATABASE_URL"]
LATEST = """
select coalesce(jsonb_agg(l), '[]')::text
  from (select s.status, coalesce(r.handle, s.did) as who, s.said_at
          from app.latest_status s left join sync.repo_status r using (did)
         order by s.said_at desc, s.did limit 100) l
"""


class Board:
    """What every open page shows, as JSON; empty until it is known."""

    text = ""
    changed = asyncio.Condition()


async def follow() -> None:
    """Look what is latest, and again whenever PostgreSQL says that something is new."""
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(URL, autocommit=True) as conn:
                # Listen, then look: what comes in between is not missed.
                await conn.execute("listen latest_status")  # our projection notifies
                await conn.execute("listen sync_changes")  # Standpipe does: of a new handle, too
                while True:
                    [[Board.text]] = await (await conn.execute(LATEST)).fetchall()
                    async with Board.changed:
                        Board.changed.notify_all()
                    async for _ in conn.notifies(stop_after=1):
                        pass
                    await asyncio.sleep(0.05)  # what comes together is one look
        except psycopg.Error as error:
            print(error)
            await asyncio.sleep(1)


async def while_serving(_: web.Application) -> AsyncIterator[None]:
    """Follow as long as the server runs."""
    task = asyncio.create_task(follow())
    yield
    task.cancel()


async def page(_: web.Request) -> web.FileResponse:
    """Answer with the page."""
    return web.FileResponse(Path(__file__).with_name("index.html"))


async def live(request: web.Request) -> web.StreamResponse:
    """Send what is latest now, and again whenever it has changed."""
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    sent = ""
    while True:
        async with Board.changed:
            while Board.text == sent:
                await Board.changed.wait()
        sent = Board.text
        await answer.write(f"data: {sent}\n\n".encode())


app = web.Application()
app.add_routes([web.get("/", page), web.get("/live", live)])
app.cleanup_ctx.append(while_serving)
web.run_app(app, host="127.0.0.1", port=8080, handler_cancellation=True, shutdown_timeout=1)
