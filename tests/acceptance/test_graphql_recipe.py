"""PostGraphile, started as docs/how-to/rest-and-graphql.md says, serves the views as they are."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.commands import clean_environment, wait_until
from tests.acceptance.rest_api import DID, FOLDER, HIDDEN, Api, block, open_api, rkey
from tests.network.install import ensure_installed, missing_tool, skip_loudly
from tests.postgres import Server

LOGIN = "postgresql://authenticator:PASSWORD@localhost:5432/app"

Ask = Callable[[str], Any]


@pytest.fixture(scope="module")
def api(postgres: Server) -> Iterator[Api]:
    """Return the recipe over 200,000 posts, some of them hidden."""
    with open_api(postgres) as api:
        yield api


@pytest.fixture(scope="module")
def ask(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Return a function that sends a query to a server that the page's command has started."""
    if missing := missing_tool("node", "npm"):
        skip_loudly(f"NOT TESTED with PostGraphile: it {missing}")
    packages = ensure_installed(FOLDER).scripts.parent / "node_modules"
    log = tmp_path_factory.mktemp("postgraphile") / "log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = start(command(api, port), packages, log)
    address = f"http://127.0.0.1:{port}/graphql"
    with httpx.Client(trust_env=False, timeout=60) as client:

        def query(text: str) -> Any:
            return client.post(address, json={"query": text}).json()

        def is_up() -> bool:
            assert server.poll() is None, log.read_text()
            try:
                return "data" in query("{ __typename }")
            except httpx.TransportError:
                return False

        try:
            wait_until(is_up, "PostGraphile answers")
            yield query
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def command(api: Api, port: int) -> str:
    """Return the command of the page, for this database and a free port."""
    place = api.url.rpartition("@")[2]
    text = block("sh postgraphile")
    for example, ours in {
        LOGIN: f"postgresql://authenticator:choose%20one@{place}",
        "--port 5678": f"--port {port}",
        "npx postgraphile": "postgraphile",
    }.items():
        assert example in text
        text = text.replace(example, ours)
    return text


def start(script: str, packages: Path, log: Path) -> subprocess.Popen[bytes]:
    node = Path(shutil.which("node") or "node").parent
    with log.open("wb") as output:
        return subprocess.Popen(
            ["bash", "-euc", script],
            env=clean_environment(PATH=f"{packages / '.bin'}:{node}:{os.environ['PATH']}"),
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def test_the_query_of_the_page_is_answered(ask: Ask) -> None:
    answer = ask(block("graphql postgraphile"))
    assert "errors" not in answer, answer
    posts = answer["data"]["allPosts"]["nodes"]
    assert len(posts) == 5
    assert posts[0] == {
        "rkey": rkey(6),
        "text": "post 6",
        "createdAt": "2026-01-01T00:06:00+00:00",
        "author": {"handle": "seven.test", "displayName": "Name of did:web:r7.test"},
    }
    assert len(answer["data"]["newestPosts"]["nodes"]) == 3


def test_it_shows_what_anon_may_read_and_changes_nothing(ask: Ask) -> None:
    answer = ask("{ __schema { queryType { fields { name } } mutationType { name } } }")
    schema = answer["data"]["__schema"]
    names = {field["name"] for field in schema["queryType"]["fields"]}
    assert names - {"query", "node", "nodeId"} == {
        "allPosts", "post", "postByDidAndRkey", "allProfiles", "profile", "profileByDid",
        "newestPosts",
    }  # fmt: skip
    assert schema["mutationType"] is None


def test_relationships_go_both_ways(ask: Ask) -> None:
    answer = ask(
        f'{{ profileByDid(did: "{DID}") {{ posts(first: 100) {{ nodes {{ rkey }} }} }}'
        f'  postByDidAndRkey(did: "{DID}", rkey: "{rkey(6)}") {{ author {{ did }} }} }}'
    )
    assert len(answer["data"]["profileByDid"]["posts"]["nodes"]) == 10
    assert answer["data"]["postByDidAndRkey"] == {"author": {"did": DID}}


@pytest.mark.rule("AC-01")
@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_hidden_account_is_not_there(ask: Ask, hidden: str) -> None:
    number = int(re.findall(r"r(\d+)", hidden)[0]) - 1
    query = (
        '{{ allPosts(condition: {{did: "{did}"}}) {{ nodes {{ rkey }} }}'
        '  profileByDid(did: "{did}") {{ handle }}'
        '  postByDidAndRkey(did: "{did}", rkey: "{rkey}") {{ text }} }}'
    )
    assert ask(query.format(did=hidden, rkey=rkey(number)))["data"] == {
        "allPosts": {"nodes": []}, "profileByDid": None, "postByDidAndRkey": None,
    }  # fmt: skip
    shown = ask(query.format(did="did:web:r9.test", rkey=rkey(8)))["data"]
    assert None not in shown.values()
