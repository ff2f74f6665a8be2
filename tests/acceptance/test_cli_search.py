"""`standpipe search`: made, asked, looked at and dropped by hand."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from tests.acceptance.commands import Standpipe, on_clone, standpipe
from tests.acceptance.test_cli_doctor import doctor_findings
from tests.acceptance.test_cli_tail import OpenSession
from tests.embedders import DIMENSIONS, FakeEmbedder, fake_embedder, status
from tests.sql.driver import POST, did
from tests.sql.readers import World
from tests.sql.searching import Searching

__all__ = ["on_clone", "standpipe"]

pytestmark = pytest.mark.usefixtures("pgvector")

TEXT = ("--text", "value->>'text'")


@pytest.fixture
def embedder() -> Iterator[FakeEmbedder]:
    """Return an embedder that runs beside the commands, in a thread of its own."""
    found: list[FakeEmbedder] = []
    loop, is_there = asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        async with fake_embedder() as fake:
            found.append(fake)
            is_there.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert is_there.wait(60)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_a_search_is_made_asked_and_forgotten(
    on_clone: Standpipe, session: OpenSession, embedder: FakeEmbedder
) -> None:
    assert on_clone("search", "list").out.startswith("There is no search")
    on_clone("search", "boats").assert_one_sentence(7, "standpipe search enable")
    conn = session()
    with conn.transaction():
        searching = Searching(World(conn))
        searching.write(0, "boat", '{"text": "a small boat\\nin a storm \\u001b[2J"}')
        searching.write(0, "cake", '{"text": "flour and sugar"}')
    base = embedder.url.removesuffix("/v1/embeddings")
    made = on_clone("search", "enable", POST, *TEXT, "--embedder", base, "--name", "posts")
    assert made.out.startswith(f"The search posts is over {POST}, in {DIMENSIONS} dimensions")
    assert on_clone("search", "boat").out.startswith("Nothing is embedded yet")
    searching.embed_all()
    told = on_clone("search", "storm boat", "--limit", "1").out
    assert f"at://{did(0)}/{POST}/boat" in told
    assert "a small boat in a storm \\x1b[2J" in told
    assert "cake" not in told
    [first, second] = on_clone("search", "--json", "flour").json_lines()
    assert (first["rkey"], second["rkey"]) == ("cake", "boat")
    assert on_clone("search", "find", "list", "--json").json_lines() != []
    [row] = on_clone("search", "list", "--json").json_lines()
    assert (row["name"], row["embedder_url"]) == ("posts", embedder.url)
    [row] = on_clone("search", "status", "--json").json_lines()
    assert (row["embedded"], row["waiting"], row["refused"]) == (2, 0, 0)
    assert "embedded" in on_clone("search", "status", "posts").out
    assert "is gone" in on_clone("search", "disable", "posts").out
    assert conn.execute("select from sync.projections").fetchall() == []


def test_refusals_say_what_to_do(on_clone: Standpipe, embedder: FakeEmbedder) -> None:
    enable = ("search", "enable", POST, "--embedder", embedder.url)
    on_clone(*enable, "--text", "now()::text").assert_one_sentence(2, "value ->> 'text'")
    on_clone(*enable, *TEXT, "--name", "My Posts").assert_one_sentence(2, "lower-case")
    on_clone(*enable, *TEXT, "--model", "\udcff").assert_one_sentence(2, "UTF-8")
    on_clone(*enable, *TEXT, "--rate", "inf").assert_one_sentence(2, "p_rate")
    every = ("search", "enable", "app.bsky.*", "--embedder", embedder.url)
    on_clone(*every, *TEXT).assert_one_sentence(2, "app.bsky.*", "one collection")
    on_clone(*enable, *TEXT, "--rate", "0.5", "--json")
    on_clone(*enable, *TEXT).assert_one_sentence(7, "Choose another name")
    on_clone(*enable, *TEXT, "--name", "others")
    on_clone("search", "words").assert_one_sentence(2, "others, post")
    on_clone("search", "words", "--name", "none").assert_one_sentence(7, "no search none")
    on_clone("search", "disable", "none").assert_one_sentence(7, "sync.list_searches()")
    on_clone("search", " ", "--name", "post").assert_one_sentence(2, "some words")


def test_an_embedder_that_does_not_work_is_told_at_once(
    on_clone: Standpipe, embedder: FakeEmbedder
) -> None:
    enable = ("search", "enable", POST, *TEXT, "--embedder")
    for url in ("nonsense", "http://[", "http://127.0.0.1:1/a b"):
        on_clone(*enable, url).assert_one_sentence(2, "/v1/embeddings")
    on_clone(*enable, "http://127.0.0.1:1").assert_one_sentence(6, "127.0.0.1:1")
    embedder.troubles = [status(404, "no such model"), status(400, "no such model")]
    for _ in range(2):
        on_clone(*enable, embedder.url).assert_one_sentence(6, "no such model")
    keys = "127.0.0.1=NO_SUCH_KEY"
    missing = on_clone(*enable, embedder.url, STANDPIPE_EMBEDDER_KEYS=keys)
    missing.assert_one_sentence(2, "NO_SUCH_KEY")
    given = {"STANDPIPE_EMBEDDER_KEYS": keys, "NO_SUCH_KEY": "k-1"}
    assert on_clone(*enable, embedder.url, **given).code == 0
    assert embedder.headers[-1]["authorization"] == "Bearer k-1"


def test_the_doctor_names_an_embedder_that_does_not_work(
    on_clone: Standpipe, session: OpenSession, embedder: FakeEmbedder
) -> None:
    on_clone("search", "enable", POST, *TEXT, "--embedder", embedder.url)
    assert doctor_findings(on_clone("doctor", "--json"))["searches"]["level"] == "ok"
    session().execute("select sync.note_search_error('post', 'it answers 500')")
    found = doctor_findings(on_clone("doctor", "--json"))["searches"]
    assert found["level"] == "warn"
    assert "it answers 500" in found["finding"]


def test_the_doctor_names_a_search_whose_texts_nobody_keeps(
    on_clone: Standpipe, session: OpenSession, embedder: FakeEmbedder
) -> None:
    on_clone("search", "enable", POST, *TEXT, "--embedder", embedder.url)
    on_clone("projection", "drop", "search post")
    found = doctor_findings(on_clone("doctor", "--json"))["searches"]
    assert found["level"] == "warn"
    assert "standpipe search disable post" in found["advice"]
