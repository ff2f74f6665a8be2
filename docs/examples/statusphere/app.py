"""Statusphere: one page with the latest status of everybody, which changes when they do."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psycopg
from aiohttp import web

PAGE = Path(__file__).with_name("index.html").read_text(encoding="utf-8")
POLICY = (
    "default-src 'none'; connect-src 'self'; img-src data:; script-src 'nonce-{0}';"
    " style-src 'nonce-{0}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LATEST = """
select coalesce(jsonb_agg(l), '[]')::text
  from (select s.status, s.said_at,
               coalesce((select r.handle from sync.repo_status r where r.did = s.did), s.did) as who
          from app.latest_status s order by s.said_at desc, s.did limit 100) l
"""
board = SimpleNamespace(text="", news=asyncio.Event())  # what every open page shows


async def follow() -> None:
    """Look what is latest whenever PostgreSQL says that something is new, and tell the pages."""
    while True:
        try:
            url = os.environ["DATABASE_URL"]
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
                await conn.execute("listen latest_status")  # which the projection says
                await conn.execute("listen sync_changes")  # a new handle, for example
                while True:
                    [[board.text]] = await (await conn.execute(LATEST)).fetchall()
                    board.news.set()
                    board.news.clear()
                    async for _ in conn.notifies(timeout=30, stop_after=1):
                        pass
                    await asyncio.sleep(0.05)  # what comes together is one look
        except psycopg.Error as error:
            print(error, file=sys.stderr)
            await asyncio.sleep(1)


async def page(_: web.Request) -> web.Response:
    """Answer with the page, and let no script run in it but its own."""
    nonce = secrets.token_urlsafe()
    headers = {"Content-Security-Policy": POLICY.format(nonce)}
    text = PAGE.replace("NONCE", nonce)
    return web.Response(text=text, content_type="text/html", headers=headers)


async def live(request: web.Request) -> web.StreamResponse:
    """Send what is latest now, and again whenever it has changed."""
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    told = ""
    while True:
        if told == board.text:
            with suppress(TimeoutError):
                await asyncio.wait_for(board.news.wait(), 15)
        is_new, told = told != board.text, board.text
        await answer.write(f"data: {told}\n\n".encode() if is_new else b":\n\n")


async def while_serving(_: web.Application) -> AsyncIterator[None]:
    """Follow as long as the server runs."""
    task = asyncio.create_task(follow())
    yield
    task.cancel()


app = web.Application()
app.add_routes([web.get("/", page), web.get("/live", live)])
app.cleanup_ctx.append(while_serving)
port = int(os.environ.get("PORT", "8080"))
web.run_app(app, host="127.0.0.1", port=port, handler_cancellation=True, shutdown_timeout=1)
