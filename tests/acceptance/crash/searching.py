"""A search over the posts: its texts are those of the records, and no embedding is another text's.

Only where the server has pgvector.
"""

import array
import asyncio
import time

from sync.database import IngestConnection
from sync.simnet.traffic import POST
from tests.embedders import DIMENSIONS, embed

PROJECTION = "search posts"
BATCH = 8  # so that a kill finds some texts embedded and others not
PATIENCE_S = 60.0
POLL_S = 0.1
CAN_SEARCH = "select exists (select from pg_available_extensions where name = 'vector')"
ENABLE = "select sync.enable_search('posts', $1, $2, $3, $4, p_batch => $5)"
TEXTS = "select did, rkey, text, error, embedding::real[] as embedding from sync_search.posts"
EXPECTED = """
    select did, rkey, value ->> 'text' as text from sync.records
     where collection = $1 and value ->> 'text' <> ''
"""


async def enable(conn: IngestConnection, embedder_url: str) -> None:
    """Make the search."""
    await conn.execute(ENABLE, POST, "value ->> 'text'", embedder_url, DIMENSIONS, BATCH)


async def expected(conn: IngestConnection) -> dict[tuple[str, str], str]:
    """Return the texts of the records that are to be seen."""
    return {(row["did"], row["rkey"]): row["text"] for row in await conn.fetch(EXPECTED, POST)}


async def found(conn: IngestConnection) -> dict[tuple[str, str], str]:
    """Return the texts there are; those with an embedding have their own."""
    rows = await conn.fetch(TEXTS)
    for row in rows:
        assert row["error"] is None, row
        if row["embedding"] is not None:
            assert row["embedding"] == array.array("f", embed(row["text"])).tolist(), row
    return {(row["did"], row["rkey"]): row["text"] for row in rows}


async def wait_for_embeddings(conn: IngestConnection) -> None:
    """Wait until every text has one."""
    deadline = time.monotonic() + PATIENCE_S
    while missing := [row for row in await conn.fetch(TEXTS) if row["embedding"] is None]:
        assert time.monotonic() < deadline, missing
        await asyncio.sleep(POLL_S)
