"""The simulated network over its sockets: the endpoints, the stream and the scripted trouble."""

import asyncio
import io
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from sync.atproto import frame
from sync.atproto.car import read_car
from sync.atproto.cid import format_cid
from sync.atproto.commit import check_signature, read_commit
from sync.atproto.export import Export, ExportLimits, read_export
from sync.atproto.identity import parse_did_document
from sync.atproto.mst import walk
from sync.atproto.verify import verify_commit
from sync.errors import UsageError
from sync.simnet import Account, Simnet, serve
from sync.simnet.traffic import generate

NOTE = "com.example.note"
NOBODY = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
PATIENCE_S = 60.0


def note(text: str) -> dict[str, str]:
    return {"$type": NOTE, "text": text}


class Client:
    """A few lines of HTTP and websocket, so that tests read as what they ask."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def get(self, url: str, **headers: str) -> tuple[int, Any]:
        async with self.session.get(url, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def xrpc(self, base: str, method: str, **params: str | int) -> tuple[int, Any]:
        url = f"{base}/xrpc/com.atproto.{method}"
        async with self.session.get(url, params=params) as response:
            return response.status, await response.json()

    async def car(self, base: str, method: str, **params: str) -> bytes:
        url = f"{base}/xrpc/com.atproto.{method}"
        async with self.session.get(url, params=params) as response:
            assert response.content_type == "application/vnd.ipld.car"
            assert response.content_length is None
            return await response.read()

    async def control(self, net_url: str, op: str, **arguments: object) -> Any:
        async with self.session.post(net_url, json={"op": op, **arguments}) as response:
            body = await response.json()
            assert response.status == 200, body
            return body

    def subscribe(self, base: str, cursor: int | None = None):
        query = "" if cursor is None else f"?cursor={cursor}"
        return self.session.ws_connect(f"{base}/xrpc/com.atproto.sync.subscribeRepos{query}")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(session)


@pytest.fixture
async def net() -> AsyncIterator[Simnet]:
    async with Simnet(seed=1, pds_count=2) as net:
        yield net


async def next_message(socket: aiohttp.ClientWebSocketResponse) -> Any:
    return frame.read_frame(await socket.receive_bytes(timeout=PATIENCE_S))


async def next_seqs(socket: aiohttp.ClientWebSocketResponse, count: int) -> list[int]:
    return [(await next_message(socket)).seq for _ in range(count)]


def read_whole(account: Account, car: bytes) -> Export:
    return read_export(
        io.BytesIO(car),
        account.did,
        account.repo.key.public,
        now_us=time.time_ns() // 1_000,
        limits=ExportLimits(),
    )


# The directory and the hosts


async def test_the_plc_directory_serves_documents_404s_and_tombstones(net, client):
    account = net.create_account("alice.test")
    status, body = await client.get(f"{net.plc_url}/{account.did}")
    document = parse_did_document(account.did, body)
    assert (status, document.handle_claim) == (200, "alice.test")
    assert document.pds_url == net.pds_urls[0]
    assert (await client.get(f"{net.plc_url}/{NOBODY}"))[0] == 404
    account.delete_account(tombstone=True)
    status, body = await client.get(f"{net.plc_url}/{account.did}")
    assert (status, body["message"]) == (404, f"DID not available: {account.did}")


async def test_a_did_web_account_is_served_by_its_host(net, client):
    account = net.create_account(method="web", pds=1)
    _, body = await client.get(f"{net.pds_urls[1]}/.well-known/did.json")
    assert parse_did_document(account.did, body).pds_url == net.pds_urls[1]
    assert (await client.get(f"{net.plc_url}/{account.did}"))[0] == 404


async def test_a_handle_answers_by_host_header(net, client):
    account = net.create_account("bob.test", pds=1)
    url = f"{net.pds_urls[1]}/.well-known/atproto-did"
    async with client.session.get(url, headers={"host": "bob.test"}) as response:
        assert (response.status, await response.text()) == (200, account.did)
    async with client.session.get(url, headers={"host": "nobody.test"}) as response:
        assert response.status == 404
    status, body = await client.xrpc(net.pds_urls[1], "identity.resolveHandle", handle="bob.test")
    assert (status, body) == (200, {"did": account.did})


async def test_an_export_verifies_and_is_in_no_helpful_order(net, client):
    (account,) = generate(net.world, 1, 300)
    car = await client.car(net.pds_urls[0], "sync.getRepo", did=account.did)
    export = read_whole(account, car)
    leaves = {f"{leaf.collection}/{leaf.rkey}": leaf.cid for leaf in export.leaves}
    assert leaves == account.leaves()
    assert next(iter(read_car(car, max_blocks=1_000).blocks)) != account.repo.head.cid


async def test_a_record_is_proven_and_so_is_its_absence(net, client):
    account = net.create_account()
    account.create(NOTE, note("here"), rkey="here")
    for rkey in ("here", "absent"):
        body = await client.car(
            net.pds_urls[0], "sync.getRecord", did=account.did, collection=NOTE, rkey=rkey
        )
        car = read_car(body, max_blocks=100)
        commit = read_commit(car.blocks[car.roots[0]])
        assert check_signature(commit, account.repo.key.public)
        found = dict(walk(commit.data, car.blocks.get))
        assert (f"{NOTE}/{rkey}".encode() in found) == (rkey == "here")


async def test_status_latest_commit_and_records_are_told(net, client):
    account = net.create_account()
    commit = account.create(NOTE, note("hello"), rkey="one")
    pds = net.pds_urls[0]
    for base in (pds, net.relay_http_url):
        _, status = await client.xrpc(base, "sync.getRepoStatus", did=account.did)
        assert status == {"did": account.did, "active": True, "rev": commit.rev}
        _, latest = await client.xrpc(base, "sync.getLatestCommit", did=account.did)
        assert latest == {"cid": format_cid(commit.head.cid), "rev": commit.rev}
    _, listed = await client.xrpc(pds, "repo.listRecords", repo=account.did, collection=NOTE)
    assert listed["records"][0]["value"] == note("hello")
    assert (await client.xrpc(pds, "server.describeServer"))[0] == 200
    assert (await client.xrpc(pds, "sync.getBlob"))[0] == 501


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("deactivated", "RepoDeactivated"),
        ("takendown", "RepoTakendown"),
        ("suspended", "RepoSuspended"),
    ],
)
async def test_an_inactive_account_refuses_its_repo_and_says_why(net, client, status, error):
    account = net.create_account()
    account.set_status(status)
    answer = await client.xrpc(net.pds_urls[0], "sync.getRepo", did=account.did)
    assert (answer[0], answer[1]["error"]) == (400, error)
    _, told = await client.xrpc(net.pds_urls[0], "sync.getRepoStatus", did=account.did)
    assert told == {"did": account.did, "active": False, "status": status}


async def test_an_unknown_account_is_not_found_and_a_missing_parameter_is_said(net, client):
    status, body = await client.xrpc(net.pds_urls[0], "sync.getRepo", did=NOBODY)
    assert (status, body["error"]) == (400, "RepoNotFound")
    status, body = await client.xrpc(net.pds_urls[0], "sync.getRepo")
    assert (status, body["error"]) == (400, "InvalidRequest")


async def test_list_repos_pages_until_no_cursor_is_left(net, client):
    dids = [net.create_account(pds=number % 2).did for number in range(7)]
    for base, expected in ((net.pds_urls[0], dids[::2]), (net.relay_http_url, dids)):
        seen: list[str] = []
        params: dict[str, str | int] = {"limit": 2}
        while True:
            _, page = await client.xrpc(base, "sync.listRepos", **params)
            seen += [repo["did"] for repo in page["repos"]]
            if "cursor" not in page:
                break
            params["cursor"] = page["cursor"]
        assert seen == expected
    status, _ = await client.xrpc(net.relay_http_url, "sync.listRepos", limit=0)
    assert status == 400


# The stream


async def test_cursors_choose_between_all_some_and_only_new_events(net, client):
    account = net.create_account()
    last = net.world.relay.last_seq
    async with (
        client.subscribe(net.relay_url, 0) as everything,
        client.subscribe(net.relay_url, last - 1) as some,
        client.subscribe(net.relay_url) as new,
        client.subscribe(net.pds_urls[0], last) as direct,
    ):
        assert await next_seqs(everything, last) == list(range(1, last + 1))
        assert await next_seqs(some, 1) == [last]
        account.create(NOTE, note("now"))
        for socket in (everything, some, new, direct):
            message = await next_message(socket)
            verified = verify_commit(
                message, account.repo.key.public, now_us=time.time_ns() // 1_000
            )
            assert (verified.rev, message.seq) == (account.rev, last + 1)


async def test_an_outdated_cursor_is_told_and_then_served_what_is_left(net, client):
    account = net.create_account()
    net.forget_history()
    kept = net.world.relay.last_seq
    account.create(NOTE, note("kept"))
    async with client.subscribe(net.relay_url, kept - 1) as socket:
        info = await next_message(socket)
        assert isinstance(info, frame.InfoMessage)
        assert info.name == "OutdatedCursor"
        assert await next_seqs(socket, 1) == [kept + 1]
    async with client.subscribe(net.relay_url, kept) as socket:
        assert await next_seqs(socket, 1) == [kept + 1]


async def test_a_future_cursor_gets_an_error_frame_and_a_close(net, client):
    async with client.subscribe(net.relay_url, 10_000) as socket:
        message = await next_message(socket)
        assert isinstance(message, frame.ErrorMessage)
        assert message.error == "FutureCursor"
        assert (await socket.receive(timeout=PATIENCE_S)).type == aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1008


async def test_a_slow_consumer_is_told_and_hung_up_on(net, client):
    net.create_account()
    async with client.subscribe(net.relay_url, net.world.relay.last_seq - 1) as socket:
        await next_message(socket)
        net.kick_consumers()
        message = await next_message(socket)
        assert isinstance(message, frame.ErrorMessage)
        assert message.error == "ConsumerTooSlow"


async def test_dropped_events_leave_a_gap_and_the_stream_goes_on(net, client):
    account = net.create_account()
    last = net.world.relay.last_seq
    async with client.subscribe(net.relay_url, last) as socket:
        net.drop_next(2)
        for number in range(3):
            account.create(NOTE, note(str(number)))
        assert await next_seqs(socket, 1) == [last + 3]


async def test_a_relay_restart_cuts_the_stream_and_numbers_go_on(net, client):
    account = net.create_account()
    last = net.world.relay.last_seq
    url = net.relay_url
    async with client.subscribe(url, last - 1) as socket:
        await next_message(socket)
        await net.restart_relay()
        await socket.receive(timeout=PATIENCE_S)
        assert socket.close_code == 1006
    account.create(NOTE, note("after"))
    assert net.relay_url == url
    async with client.subscribe(url, last) as socket:
        assert await next_seqs(socket, 1) == [last + 1]


async def test_a_stopped_server_refuses_connections_until_it_is_started(net, client):
    account = net.create_account()
    await net.stop_server("plc")
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.get(f"{net.plc_url}/{account.did}")
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", int(net.plc_url.rpartition(":")[2])))
    await net.start_server("plc")
    assert (await client.get(f"{net.plc_url}/{account.did}"))[0] == 200


async def test_traffic_arrives_and_verifies(net, client):
    generate(net.world, 3, 20)
    last = net.world.relay.last_seq
    async with client.subscribe(net.relay_url, last) as socket:
        assert await net.run_traffic(500, 0.1) == 50
        for _ in range(50):
            message = await next_message(socket)
            key = net.world.accounts[message.did].repo.key.public
            assert verify_commit(message, key, now_us=time.time_ns() // 1_000)


async def test_traffic_goes_on_where_it_ended(net):
    generate(net.world, 2, 5)
    for _ in range(3):
        assert await net.run_traffic(1_000, 0.05) == 50


# Scripted trouble


async def test_a_held_export_is_of_the_time_before_the_hold(net, client):
    account = net.create_account()
    account.create(NOTE, note("before"))
    rev = account.rev
    hold = net.hold_get_repo(account.did)
    asked = asyncio.create_task(client.car(net.pds_urls[0], "sync.getRepo", did=account.did))
    await hold.arrived.wait()
    account.create(NOTE, note("meanwhile"))
    assert not asked.done()
    hold.release()
    export = read_whole(account, await asked)
    assert (export.commit.rev, len(export.leaves)) == (rev, 1)


async def test_leaving_lets_a_held_export_go(client):
    async with Simnet() as net:
        account = net.create_account()
        hold = net.hold_get_repo()
        asked = asyncio.create_task(client.car(net.pds_urls[0], "sync.getRepo", did=account.did))
        await hold.arrived.wait()
    # Served or cut, whichever came first; what matters is that nobody waits for ever.
    await asyncio.wait([asked], timeout=PATIENCE_S)
    assert asked.done()
    asked.exception()


async def test_a_stale_export_is_an_earlier_signed_state(net, client):
    account = net.create_account()
    revs = [account.create(NOTE, note(str(number))).rev for number in range(3)]
    net.serve_stale_export(account.did, commits_behind=2)
    for rev in (revs[0], revs[2]):
        car = await client.car(net.pds_urls[0], "sync.getRepo", did=account.did)
        assert read_whole(account, car).commit.rev == rev


async def test_errors_are_answered_as_often_as_scripted(net, client):
    account = net.create_account()
    net.fail_next(
        "sync.getRepo", status=429, headers={"retry-after": "3"}, pds=0, times=2, delay_s=0.01
    )
    url = f"{net.pds_urls[0]}/xrpc/com.atproto.sync.getRepo?did={account.did}"
    statuses = []
    for _ in range(3):
        async with client.session.get(url) as response:
            statuses.append((response.status, response.headers.get("retry-after")))
    assert statuses == [(429, "3"), (429, "3"), (200, None)]


async def test_the_directory_can_fail_for_one_did(net, client):
    account, other = net.create_account(), net.create_account()
    net.fail_next(account.did, status=500)
    assert (await client.get(f"{net.plc_url}/{other.did}"))[0] == 200
    assert (await client.get(f"{net.plc_url}/{account.did}"))[0] == 500
    assert (await client.get(f"{net.plc_url}/{account.did}"))[0] == 200


async def test_a_cut_export_ends_in_the_middle(net, client):
    (account,) = generate(net.world, 1, 100)
    net.fail_next("sync.getRepo", cut_after_bytes=5_000)
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.car(net.pds_urls[0], "sync.getRepo", did=account.did)


# From another process


async def test_the_control_port_scripts_the_network(net, client):
    url = net.control_url
    made = await client.control(url, "create_account", handle="carol.test", pds=1)
    did = made["did"]
    assert made["pds"] == 1
    told = await client.control(
        url, "create", did="carol.test", collection=NOTE, rkey="a", value=note("A")
    )
    assert told["paths"] == [f"{NOTE}/a"]
    writes = [
        {"action": "update", "collection": NOTE, "rkey": "a", "value": note("A2")},
        {"action": "create", "collection": NOTE, "rkey": "b", "value": note("B")},
    ]
    await client.control(url, "apply_writes", did=did, writes=writes)
    await client.control(url, "update", did=did, collection=NOTE, rkey="b", value=note("B2"))
    await client.control(url, "delete", did=did, collection=NOTE, rkey="a")
    leaves = await client.control(url, "leaves", did=did)
    account = net.world.accounts[did]
    assert leaves == {f"{NOTE}/b": format_cid(account.leaves()[f"{NOTE}/b"])}
    rotated = await client.control(url, "rotate_key", did=did)
    assert rotated == {"rev": account.rev}
    await client.control(url, "move_account", did=did, to_pds=0)
    await client.control(url, "leave_host", did=did, pds=1)
    await client.control(url, "drop_next", count=1)
    assert await client.control(url, "traffic", commits_per_s=1_000, seconds=0.005)
    described = await client.control(url, "describe")
    assert described["accounts"][0]["pds"] == 0


async def test_the_control_port_holds_exports_and_stops_servers(net, client):
    url = net.control_url
    (did,) = (await client.control(url, "generate", accounts=1, records=5))["dids"]
    hold = await client.control(url, "hold_get_repo", did=did)
    asked = asyncio.create_task(client.car(net.pds_urls[0], "sync.getRepo", did=did))
    await client.control(url, "await_hold", **hold)
    await client.control(url, "release", **hold)
    assert await asked
    await client.control(url, "stop_server", name="pds0")
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.car(net.pds_urls[0], "sync.getRepo", did=did)
    await client.control(url, "start_server", name="pds0")
    assert await client.car(net.pds_urls[0], "sync.getRepo", did=did)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"op": "fly"}, "no op 'fly'"),
        ({"op": "deactivate", "did": NOBODY}, "no account"),
        ({"op": "drop_next"}, "count"),
        ({}, "op"),
    ],
)
async def test_a_wrong_command_is_refused_with_a_reason(net, client, body, said):
    async with client.session.post(net.control_url, json=body) as response:
        assert response.status == 400
        assert said in (await response.json())["error"]


async def test_a_port_that_is_taken_is_said_in_one_sentence(net):
    taken = int(net.plc_url.rpartition(":")[2])
    with pytest.raises(UsageError, match=f"port {taken} .* not free"):
        async with Simnet(port=taken):
            pass


async def test_fixed_ports_are_taken_in_a_row():
    for first in range(23_000, 24_000, 10):
        try:
            async with Simnet(port=first) as net:
                urls = [net.plc_url, net.relay_http_url, net.control_url, net.pds_urls[0]]
        except UsageError:
            continue
        ports = [int(url.removesuffix("/control").rpartition(":")[2]) for url in urls]
        assert ports == [first, first + 1, first + 2, first + 3]
        return
    pytest.fail("no four free ports in a row below 24,000")


async def test_serve_announces_a_network_and_ends_when_told(client):
    stop = asyncio.Event()
    announced: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    running = asyncio.create_task(
        serve(
            seed=3,
            pds_count=2,
            accounts=3,
            records=10,
            stop=stop,
            announce=announced.put_nowait,
        )
    )
    net = await announced.get()
    assert [account["pds"] for account in net["accounts"]] == [0, 1, 0]
    account = net["accounts"][1]
    _, body = await client.get(f"{net['plc']}/{account['did']}")
    assert parse_did_document(account["did"], body).signing_key == account["signing_key"]
    async with client.subscribe(net["relay"], 0) as socket:
        assert len(await next_seqs(socket, 9)) == 9
    stop.set()
    await running
