"""Servers that answer with bytes no honest server sends: refused, in bounded memory."""

import asyncio
import gzip
import io
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sync.atproto.export import ExportLimits, read_export
from sync.download import FetchError, HostHealth, download_repo
from sync.errors import ExportError
from sync.firehose import FirehoseReader
from sync.http import HttpClient, HttpFailure
from sync.progress import SourceProgress
from sync.simnet import Simnet
from sync.stream import FrameQueue, StreamState
from tests.integration.rig import NOTE, note, rig_on
from tests.unit.repos import DID, KEY, NOW_US, Change, some_records

pytestmark = pytest.mark.timeout(120)

MIB = 1 << 20


@asynccontextmanager
async def server(*parts: bytes, repeat_last: int = 1) -> AsyncIterator[str]:
    """Answer any request with the parts, the last one as often as told."""
    handlers: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            for part in [*parts, *parts[-1:] * (repeat_last - 1)]:
                writer.write(part)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        await asyncio.gather(*handlers, return_exceptions=True)


def head(status: str, *headers: str) -> bytes:
    """Return the head of an answer without a length: its body ends with the connection."""
    return "\r\n".join([f"HTTP/1.1 {status}", "connection: close", *headers, "", ""]).encode()


def client() -> HttpClient:
    """Return a client that may ask loopback."""
    return HttpClient(user_agent="test", allow_private_hosts=True)


async def peak_of(http: HttpClient, place: str) -> tuple[str, int]:
    """Ask for a small document; returns why not, and the most memory that took."""
    tracemalloc.start()
    try:
        with pytest.raises(HttpFailure) as caught:
            await http.get(f"http://{place}/", max_bytes=1000, timeout_s=30)
        return caught.value.reason, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.rule("CA-14")
async def test_the_body_of_a_redirect_is_not_read():
    parts = head("302 Found", "location: /again"), bytes(MIB)
    async with server(*parts, repeat_last=64) as place, client() as http:
        reason, peak = await peak_of(http, place)
    assert reason == "unreachable"
    assert peak < 8 * MIB


@pytest.mark.rule("CA-14")
async def test_layers_of_compression_are_refused_before_they_unfold():
    bomb = gzip.compress(gzip.compress(bytes(256 * MIB)))
    async with (
        server(head("200 OK", "content-encoding: gzip, gzip") + bomb) as place,
        client() as http,
    ):
        reason, peak = await peak_of(http, place)
    assert reason in {"too_big", "unreachable"}
    assert peak < 32 * MIB


@pytest.mark.rule("CA-14")
async def test_one_layer_of_compression_is_read_within_the_cap():
    answer = head("200 OK", "content-encoding: gzip")
    async with server(answer + gzip.compress(b"hello")) as place, client() as http:
        assert (await http.get(f"http://{place}/", max_bytes=5, timeout_s=30)).body == b"hello"
    async with server(answer + gzip.compress(bytes(256 * MIB))) as place, client() as http:
        reason, peak = await peak_of(http, place)
    assert reason == "too_big"
    assert peak < 32 * MIB


async def test_a_redirect_is_followed_a_few_times_and_a_loop_ends():
    async with (
        server(head("200 OK") + b"here") as goal,
        server(head("307 Temporary Redirect", f"location: http://{goal}/x")) as place,
        client() as http,
    ):
        reply = await http.get(f"http://{place}/", max_bytes=100, timeout_s=30)
        into = io.BytesIO()
        await http.download(f"http://{place}/", into, max_bytes=100, timeout_s=30)
    assert (reply.status, reply.body, into.getvalue()) == (200, b"here", b"here")
    async with server(head("302 Found", "location: /")) as place, client() as http:
        with pytest.raises(HttpFailure, match="unreachable"):
            await http.get(f"http://{place}/", max_bytes=100, timeout_s=30)


@pytest.mark.rule("ES-02", "ES-03", "FA-14")
async def test_a_refused_handshake_with_odd_headers_only_costs_a_pause():
    refusal = b"HTTP/1.1 503 Caf\xe9\r\nx-name: caf\xe9\r\nretry-after: 7\r\n\r\n"
    async with server(refusal) as place, client() as http:
        reader = FirehoseReader(
            f"ws://{place}",
            state=StreamState(None),
            queue=FrameQueue(max_frames=1, max_bytes=1),
            policy=http.policy,
            user_agent="test",
            progress=SourceProgress(place, "relay"),
        )
        assert await reader._read_connection(None, 0) == 7


@pytest.mark.rule("FA-14", "OP-04")
async def test_a_pds_whose_error_has_a_nul_stops_nobody_elses_fetch(
    clone, tmp_path: Path, monkeypatch
):
    answer = head("400 Bad Request") + b'{"error": "a\\u0000b"}'
    async with (
        Simnet(seed=61, start_us=None) as net,
        server(answer) as place,
        rig_on(net, clone, tmp_path) as rig,
    ):
        alice, mallory = net.create_account("alice.test"), net.create_account("mallory.test")
        alice.create(NOTE, note("one"), rkey="a")
        monkeypatch.setattr(
            "sync.fetcher.download_repo", _from_elsewhere(mallory.did, f"http://{place}")
        )
        rig.start()
        await rig.track(mallory, alice)
        query = "select error from sync.repo_status where did = $1 and sync_state = 'failed'"
        assert "refused" in await rig.until(lambda: rig.conn.fetchval(query, mallory.did))
        await rig.level(alice)


def _from_elsewhere(did: str, url: str):
    """Return a download that asks another server for one account."""

    async def download(http, pds_url, wanted, file, **limits):
        await download_repo(http, url if wanted == did else pds_url, wanted, file, **limits)

    return download


@pytest.mark.rule("CA-18", "CA-05")
async def test_neither_type_nor_length_of_an_export_is_believed():
    car = Change({}, some_records(range(20))).export()
    is_whole = {}
    for length in (len(car), 10, 10**15):
        headers = "content-type: text/html", f"content-length: {length}"
        file = io.BytesIO()
        async with server(head("200 OK", *headers), car) as place, client() as http:
            try:
                await download_repo(
                    http, f"http://{place}", DID, file,
                    max_bytes=MIB, timeout_s=30, health=HostHealth(),
                )  # fmt: skip
                read_export(file, DID, KEY.public, now_us=NOW_US, limits=ExportLimits())
            except (FetchError, ExportError):
                is_whole[length] = False
            else:
                is_whole[length] = True
    assert is_whole == {len(car): True, 10: False, 10**15: False}
