"""`standpipe view` with lexicons of the network, lies included."""

import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sync.atproto.car import write_car
from sync.atproto.keys import K256, PrivateKey
from sync.cli import view as view_module
from sync.handles import LookupUnavailable
from sync.lexicons import LEXICON_SCHEMA, authority_name, find_lexicon
from sync.simnet.account import Account
from sync.simnet.repo import Repo, record_block
from sync.simnet.world import World
from tests.acceptance.commands import (
    RemoteSimnet,
    Result,
    Standpipe,
    on_network,
    remote_simnet,
    standpipe,
)
from tests.acceptance.lexicons import NOTE, NUMBER, TEXT, lexicon

__all__ = ["on_network", "standpipe"]


def test_the_authority_of_an_nsid_is_a_name_in_dns() -> None:
    assert authority_name("app.bsky.feed.post") == "_lexicon.feed.bsky.app"
    assert authority_name("com.example.note") == "_lexicon.example.com"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteSimnet]:
    folder = Path(tmp_path_factory.mktemp("simnet"))
    with remote_simnet(folder, "--accounts", "2", "--records", "20", "--seed", "5") as network:
        yield network


def test_a_lexicon_of_the_network_is_verified_and_refreshed(
    on_network: Standpipe, network: RemoteSimnet
) -> None:
    did = network.dids[0]
    record = {"did": did, "collection": LEXICON_SCHEMA, "rkey": NOTE}
    network.control("create", **record, value=lexicon())
    done = on_network("view", "add", "notes", NOTE, "--did", did)
    assert done.code == 0, done
    assert done.out.startswith(f"sync_views.notes shows {NOTE} by the lexicon in {did}.")
    assert on_network("view", "refresh").out == "sync_views.notes: nothing changed.\n"
    network.control("update", **record, value=lexicon(text=TEXT, number=NUMBER))
    assert on_network("view", "refresh", "notes").out == (
        "sync_views.notes: added number (bigint), removed created_at (timestamp with time zone).\n"
    )
    [told] = on_network("view", "refresh", "--json").json_lines()
    assert told["changed"] == []
    assert told["view"] == "sync_views.notes"
    network.control("delete", **record)
    on_network("view", "refresh").assert_one_sentence(5, did, "has no lexicon")
    [listed] = on_network("view", "list", "--json").json_lines()
    assert listed["lexicon_did"] == did


def test_one_that_cannot_be_refreshed_stops_no_other(
    on_network: Standpipe, network: RemoteSimnet
) -> None:
    did, first, last = network.dids[1], "com.example.first", "com.example.last"
    for nsid in (first, last):
        record = {"did": did, "collection": LEXICON_SCHEMA, "rkey": nsid}
        network.control("create", **record, value=lexicon(nsid))
        assert on_network("view", "add", nsid.split(".")[-1], nsid, "--did", did).code == 0
    network.control("delete", did=did, collection=LEXICON_SCHEMA, rkey=first)
    network.control("update", **record, value=lexicon(last, text=NUMBER))
    done = on_network("view", "refresh")
    assert done.code == 5, done
    assert done.err.startswith(f"sync_views.first stays as it is: {did} has no"), done
    assert done.out.startswith("sync_views.last: "), done


def test_an_nsid_that_is_none_is_one_sentence(on_network: Standpipe) -> None:
    on_network("view", "add", "notes", "notes").assert_one_sentence(2, "is not the NSID")


class Host:
    """A directory and a PDS in one, whose answer for the lexicon is made up by a test."""

    def __init__(self) -> None:
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = host.answer(self.path)
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.world = World()
        self.world.hosts[0].url = self.url
        self.alice, self.bob = self.make_account(), self.make_account()
        self.lie: Callable[[], bytes] | None = None
        self.status = 200
        self.asked: list[str] = []
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def make_account(self) -> Account:
        """Return an account with the lexicon among other records."""
        records: dict[str, Any] = {f"{NOTE}/{n}": {"$type": NOTE, "n": n} for n in range(30)}
        return self.world.create_account(records={**records, f"{LEXICON_SCHEMA}/{NOTE}": lexicon()})

    @property
    def repo(self) -> Repo:
        return self.alice.repo

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        parts = urlsplit(path)
        if parts.path.startswith("/did:"):
            return 200, json.dumps(self.world.directory.document(parts.path[1:])).encode()
        assert parts.path == "/xrpc/com.atproto.sync.getRecord"
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if self.status != 200:
            return self.status, b'{"error": "RecordNotFound"}' if self.status == 404 else b""
        if self.lie is not None:
            return 200, self.lie()
        return 200, self.repo.proof(f"{asked['collection']}/{asked['rkey']}")

    def blocks(self, path: str) -> dict[bytes, bytes]:
        """Return what an honest proof consists of."""
        head = self.repo.head
        key = path.encode()
        cid = head.tree.get(key)
        record = {cid: self.repo.records[cid]} if cid is not None else {}
        return {head.cid: head.block, **head.tree.path_blocks(key), **record}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


@pytest.fixture
def on_host(standpipe: Standpipe, host: Host, clone: str) -> Standpipe:
    def run(*arguments: str) -> Result:
        return standpipe(
            *arguments,
            STANDPIPE_DATABASE_URL=clone,
            STANDPIPE_PLC_URL=host.url,
            STANDPIPE_ALLOW_PRIVATE_HOSTS="true",
        )

    return run


PATH = f"{LEXICON_SCHEMA}/{NOTE}"


def without_a_node(host: Host) -> bytes:
    blocks = host.blocks(PATH)
    del blocks[host.repo.head.tree.cid]
    return write_car(host.repo.head.cid, blocks.items())


def without_the_record(host: Host) -> bytes:
    blocks = host.blocks(PATH)
    cid = host.repo.head.tree.get(PATH.encode())
    assert cid is not None
    del blocks[cid]
    return write_car(host.repo.head.cid, blocks.items())


def another_record_in_its_place(host: Host) -> bytes:
    blocks = host.blocks(PATH)
    cid = host.repo.head.tree.get(PATH.encode())
    assert cid is not None
    blocks[cid] = record_block(lexicon(forged=TEXT))
    return write_car(host.repo.head.cid, blocks.items())


def signed_by_another_key(host: Host) -> bytes:
    host.repo.resign(host.world.clock.tid(), PrivateKey.generate(K256, seed=b"forger"))
    return host.repo.proof(PATH)


def of_another_lexicon(host: Host) -> bytes:
    host.alice.update(LEXICON_SCHEMA, lexicon("com.example.other"), rkey=NOTE)
    return host.repo.proof(PATH)


def of_a_record_that_is_no_lexicon(host: Host) -> bytes:
    host.alice.update(LEXICON_SCHEMA, {"$type": LEXICON_SCHEMA, "id": 5}, rkey=NOTE)
    return host.repo.proof(PATH)


def of_its_absence(host: Host) -> bytes:
    host.alice.delete(LEXICON_SCHEMA, NOTE)
    return host.repo.proof(PATH)


LIES: dict[Callable[[Host], bytes], str] = {
    without_a_node: "missing_node",
    without_the_record: "missing_record",
    another_record_in_its_place: "hash_mismatch",
    signed_by_another_key: "bad_signature",
    lambda host: host.bob.repo.proof(PATH): "did_mismatch",
    lambda host: host.repo.head_car(): "missing_node",
    lambda host: b"": "car_cut",
    lambda host: b"<html>": "does not verify",
    lambda host: host.repo.proof(PATH)[:-1]: "car_cut",
    of_another_lexicon: "is not the lexicon of",
    of_a_record_that_is_no_lexicon: "is not the lexicon of",
    of_its_absence: "has no lexicon of",
}


@pytest.mark.parametrize(("lie", "part"), LIES.items())
def test_a_lie_is_refused_and_nothing_is_kept(
    on_host: Standpipe, host: Host, lie: Callable[[Host], bytes], part: str
) -> None:
    host.lie = functools.partial(lie, host)
    result = on_host("view", "add", "notes", NOTE, "--did", host.alice.did)
    result.assert_one_sentence(5, part)
    assert on_host("view", "list", "--json").out == ""


@pytest.mark.parametrize(("status", "code"), [(404, 5), (500, 6), (400, 6)])
def test_a_pds_that_has_no_answer_is_one_sentence(
    on_host: Standpipe, host: Host, status: int, code: int
) -> None:
    host.status = status
    result = on_host("view", "add", "notes", NOTE, "--did", host.alice.did)
    result.assert_one_sentence(code, host.alice.did)


def test_a_pds_that_sends_without_end_is_one_sentence(on_host: Standpipe, host: Host) -> None:
    host.lie = lambda: bytes(3_000_000)
    result = on_host("view", "add", "notes", NOTE, "--did", host.alice.did)
    result.assert_one_sentence(6, "too_big")


def test_a_host_in_our_own_network_is_not_asked(
    standpipe: Standpipe, host: Host, clone: str
) -> None:
    result = standpipe(
        "view", "add", "notes", NOTE, "--did", "did:web:localhost", STANDPIPE_DATABASE_URL=clone
    )
    result.assert_one_sentence(5, "does not resolve")
    assert host.asked == []


@pytest.mark.parametrize(
    ("answer", "code", "part"),
    [
        ([b"did={alice}"], 0, ""),
        ([b"v=spf1 -all", b"did={alice}"], 0, ""),
        ([], 5, "No TXT record _lexicon.example.com"),
        ([b"did=alice", b"dud={alice}"], 5, "No TXT record"),
        ([b"did={alice}", b"did={bob}"], 5, "names several DIDs"),
        (LookupUnavailable("silence"), 6, "DNS does not answer"),
    ],
)
def test_dns_says_which_repo_has_the_lexicon(
    on_host: Standpipe,
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    answer: list[bytes] | Exception,
    code: int,
    part: str,
) -> None:
    async def ask_txt(name: str) -> list[bytes]:
        assert name == "_lexicon.example.com."
        if isinstance(answer, Exception):
            raise answer
        alice, bob = host.alice.did.encode(), host.bob.did.encode()
        return [text.replace(b"{alice}", alice).replace(b"{bob}", bob) for text in answer]

    asking = functools.partial(find_lexicon, ask_txt=ask_txt)
    monkeypatch.setattr(view_module, "find_lexicon", asking)
    result = on_host("view", "add", "notes", NOTE)
    if code:
        result.assert_one_sentence(code, part, "--lexicon FILE", "--did DID")
    else:
        assert result.code == 0, result
        assert host.alice.did in result.out
