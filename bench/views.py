"""Time how a typed view is read, beside the same rows read from the base table by its owner.

A view shows what is visible only, in the types of its lexicon, and its readers have no base table.
"""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from bench.report import Figure
from sync.indexes import build_indexes
from sync.simnet.traffic import POST

ROUNDS, LOOKUPS = 5, 2_000
_PROPERTIES = {
    "text": {"type": "string"},
    "createdAt": {"type": "string", "format": "datetime"},
    "langs": {"type": "array", "items": {"type": "string", "format": "language"}},
}
_LEXICON = {
    "lexicon": 1,
    "id": POST,
    "defs": {
        "main": {
            "type": "record",
            "key": "tid",
            "record": {"type": "object", "properties": _PROPERTIES},
        }
    },
}
_CREATE = "select sync.create_view($1, $2, $3::jsonb, p_newest_by => $4)"
_DROP = "select sync.drop_view($1)"
_SAMPLE = """
    select r.did, s.repo_id, s.collection_id, s.rkey, u.uri
      from sync.stored_records s
      join sync.repos r using (repo_id)
      join sync.records u on (u.did, u.collection, u.rkey) = (r.did, $1, s.rkey)
     where s.collection_id = (select collection_id from sync.collections where nsid = $1)
     order by hashtext(s.rkey) limit $2
"""
_ALL = "select count({}) from sync_views.bench_posts"
_PLAIN_ALL = "select count({}) from sync.stored_records where collection_id = $1"
_COLUMNS = {
    "text": "value ->> 'text'",
    "created_at": "value ->> 'createdAt'",
    "langs": "value -> 'langs'",
}
_REPO = "select rkey, text, created_at from sync_views.bench_posts where did = $1"
_PLAIN_REPO = """
    select rkey, value ->> 'text', value ->> 'createdAt'
      from sync.stored_records where repo_id = $1 and collection_id = $2
"""
_RECORD = "select value from sync.get_record($1)"
_PLAIN_RECORD = """
    select value from sync.stored_records where repo_id = $1 and collection_id = $2 and rkey = $3
"""
_NEWEST = "select rkey, text from sync_views.bench_newest order by indexed_at desc limit 50"
_PLAIN_NEWEST = """
    select rkey, value ->> 'text' from sync.stored_records where collection_id = {}
     order by indexed_at desc, repo_id desc, rkey desc limit 50
"""


async def view_figures(url: str) -> AsyncIterator[Figure]:
    """Read posts that are stored: all of them, a repo's, one, and the newest."""
    reader, owner = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        for view, newest_by in (("bench_posts", None), ("bench_newest", "indexed_at")):
            await owner.execute(_CREATE, view, POST, json.dumps(_LEXICON), newest_by)
        await build_indexes(url)
        await owner.execute("vacuum analyze sync.stored_records")
        sample = await owner.fetch(_SAMPLE, POST, LOOKUPS)
        collection_id = sample[0]["collection_id"]
        rows = await owner.fetchval(_PLAIN_ALL.format("*"), collection_id)
        await reader.execute("set role sync_reader")
        await owner.execute("set role sync_owner")

        for column, plain_column in _COLUMNS.items():
            plain_query = _PLAIN_ALL.format(plain_column)
            measured = rows / await _seconds(reader, _ALL.format(column), [()] * ROUNDS)
            plain = rows / await _seconds(owner, plain_query, [(collection_id,)] * ROUNDS)
            ceiling = "its JSON in the base table"
            yield Figure(f"view, {column} of all rows", measured, "rows/s", plain, ceiling)
        repos = [(row["did"],) for row in sample]
        keys = [(row["repo_id"], row["collection_id"], row["rkey"]) for row in sample]
        for name, query, arguments, plain_query, plain_arguments in (
            ("view, one repo", _REPO, repos, _PLAIN_REPO, [key[:2] for key in keys]),
            ("get_record", _RECORD, [(row["uri"],) for row in sample], _PLAIN_RECORD, keys),
            ("view, the newest 50", _NEWEST, [()] * 200,
             _PLAIN_NEWEST.format(int(collection_id)), [()] * 200),
        ):  # fmt: skip
            took = 1_000 * await _seconds(reader, query, arguments)
            plainly = 1_000 * await _seconds(owner, plain_query, plain_arguments)
            yield Figure(name, took, "ms", plainly, "the same rows of the base table")
    finally:
        await owner.execute("reset role")
        for view in ("bench_posts", "bench_newest"):
            await owner.execute(_DROP, view)
        await reader.close()
        await owner.close()


async def _seconds(conn: Any, query: str, arguments: list[tuple[Any, ...]]) -> float:
    """Run a prepared query with each of the arguments; return the seconds of one of them."""
    statement = await conn.prepare(query)
    await statement.fetch(*arguments[0])
    started_at = time.perf_counter()
    for each in arguments:
        await statement.fetch(*each)
    return (time.perf_counter() - started_at) / len(arguments)
