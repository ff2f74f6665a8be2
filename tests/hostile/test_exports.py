"""Hosts that answer getRepo with something else than the account's repo."""

import asyncio
import gzip
import io
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import web

from sync.atproto import cbor
from sync.atproto.car import write_car
from sync.atproto.cid import cid_for
from sync.atproto.keys import K256, PrivateKey
from sync.atproto.mst import EMPTY_ROOT, key_layer
from sync.atproto.syntax import make_tid
from sync.simnet import Account
from sync.simnet.repo import Write
from sync.simnet.tree import Node
from sync.triage import now_us
from tests.hostile.conftest import MAX_REPO_BYTES
from tests.hostile.forge import (
    Blocks,
    EditBlocks,
    blocks_of,
    car_of,
    edit_car,
    fields_of,
    sign,
    sign_fields,
)
from tests.hostile.servers import Answer
from tests.hostile.trees import RAW_CID, RECORD, RECORD_CID, RawEntry, RawNode, first_leaves
from tests.hostile.world import HostileWorld, Lie, lie
from tests.integration.rig import NOTE, note
from tests.unit.repos import keys_by_layer, section

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

MIB = 1 << 20
PAGE = "<!doctype html><title>Welcome</title>" * 9
STRANGER = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
# Its hash begins with 24 zero bits.
DEEP_KEY = b"com.example.note/6622854"


def served(name: str, edit: Callable[[Account], bytes], *reasons: str, **more: Any) -> Lie:
    """Answer the next getRepo with other bytes; reasons are without their prefix."""

    def tell(world: HostileWorld, account: Account) -> None:
        world.cause_fetch(account)
        world.serve_car(account, edit(account))

    counted = ("sync_differs", *(f"fetch_{reason}" for reason in reasons))
    return lie(name, tell, *counted, is_refetched=True, **more)


def answered(name: str, answer: Answer, *reasons: str, pds: int = 0) -> Lie:
    """Have something else than a PDS answer the next getRepo."""

    def tell(world: HostileWorld, account: Account) -> None:
        world.cause_fetch(account)
        world.serve(account, answer)

    counted = ("sync_differs", *(f"fetch_{reason}" for reason in reasons))
    return lie(name, tell, *counted, is_refetched=True, how={"pds": pds})


def plant(_world: HostileWorld, account: Account) -> None:
    """Give an account a tree of several nodes."""
    account.apply_writes(
        [
            Write.create(NOTE, key.decode().partition("/")[2], block)
            for key, block in first_leaves().items()
        ]
    )


# Somebody else's commit -------------------------------------------------------------------------


def of_fields(
    key: Callable[[Account], PrivateKey] = lambda account: account.repo.key, **changed: Any
) -> Callable[[Account], bytes]:
    """Return the account's export under a commit with other fields, or signed otherwise."""

    def edit(account: Account) -> bytes:
        fields = {**fields_of(account, account.repo.head.tree.cid), **changed}
        cid, block = sign_fields(fields, key(account))
        _, *others = blocks_of(account.repo.export()).items()
        return write_car(cid, [(cid, block), *others])

    return edit


COMMITS = [
    served("a stranger's repo, signed with the same key", of_fields(did=STRANGER), "did_mismatch"),
    served(
        "a rev an hour ahead",
        of_fields(rev=make_tid(now_us() + 3_600_000_000, 0)),
        "future_rev",
    ),
    served(
        "a repo signed with another key",
        of_fields(lambda _: PrivateKey.generate(K256, seed=b"liar")),
        "bad_signature",
    ),
    served("a commit of version 2", of_fields(version=2), "bad_commit"),
]


# Blocks that are wrong, missing or too many -----------------------------------------------------


def changed(edit: EditBlocks) -> Callable[[Account], bytes]:
    return lambda account: edit_car(account.repo.export(), edit)


def with_cids(
    choose: Callable[[Account], Iterable[bytes]], edit: Callable[[Blocks, bytes], object]
) -> Callable[[Account], bytes]:
    """Change the first of the blocks that are chosen."""

    def edit_export(account: Account) -> bytes:
        cid = next(iter(choose(account)))
        return edit_car(account.repo.export(), lambda blocks: edit(blocks, cid))

    return edit_export


def commit_cid(account: Account) -> Iterable[bytes]:
    return [account.repo.head.cid]


def inner_nodes(account: Account) -> Iterable[bytes]:
    return [cid for cid, _ in account.repo.head.tree.blocks()][1:]


def record_cids(account: Account) -> Iterable[bytes]:
    return [cid for _, cid in account.repo.head.tree.leaves()]


def damage(blocks: Blocks, cid: bytes) -> None:
    blocks[cid] = b"\xa0"


def remove(blocks: Blocks, cid: bytes) -> None:
    del blocks[cid]


def cut_short(account: Account) -> bytes:
    """Cut the export before its last block, which is a node."""
    nodes = dict(account.repo.head.tree.blocks())
    blocks = sorted(blocks_of(account.repo.export()).items(), key=lambda each: each[0] in nodes)
    return write_car(account.repo.head.cid, blocks[:-1])


def with_extras(account: Account) -> bytes:
    """Return an export among blocks that nothing links, of all kinds, some twice."""
    blocks = list(blocks_of(account.repo.export()).items())
    extras = [(cid_for(each), each) for each in (b"%d" % number for number in range(100_000))]
    odd = [(RAW_CID, b"raw"), (b"\x12\x20" + bytes(32), b"version 0"), blocks[0], blocks[-1]]
    return car_of([account.repo.head.cid, blocks[0][0]], [*extras, *odd, *blocks[::-1]])


BLOCKS = [
    served(
        "a commit that is not what its CID says", with_cids(commit_cid, damage), "hash_mismatch"
    ),
    served("a node that is not what its CID says", with_cids(inner_nodes, damage), "hash_mismatch"),
    served(
        "a record that is not what its CID says", with_cids(record_cids, damage), "hash_mismatch"
    ),
    served("a repo without a subtree", with_cids(inner_nodes, remove), "missing_node"),
    served("a repo without a record", with_cids(record_cids, remove), "missing_block"),
    served("a repo without its commit", with_cids(commit_cid, remove), "missing_commit"),
    served("a repo cut at a block's end", cut_short, "missing_node"),
    served("a repo cut in a block", lambda account: account.repo.export()[:-1], "car_cut"),
    served("a repo among 100,000 blocks more", with_extras),
]
BLOCKS = [
    lie(each.name, each.tell, *each.reasons, first=plant, is_refetched=True) for each in BLOCKS
]


# Files that are no CAR --------------------------------------------------------------------------

HEAD = {"roots": [cbor.Link(RECORD_CID)], "version": 1}
FILES = [
    served("nothing", lambda _: b"", "car_cut"),
    served("a web page", lambda _: PAGE.encode(), "bad_car_header"),
    served("a length without end", lambda _: b"\xff" * 20, "bad_varint"),
    served(
        "a header of a gigabyte", lambda _: b"\x80\x80\x80\x80\x04" + bytes(99), "bad_car_header"
    ),
    served("version 2", lambda _: section(cbor.encode({**HEAD, "version": 2})), "bad_car_header"),
    served("no roots", lambda _: section(cbor.encode({**HEAD, "roots": []})), "bad_car_header"),
    served("a header alone", lambda _: section(cbor.encode(HEAD)), "missing_commit"),
    served("a section of nothing", lambda _: section(cbor.encode(HEAD)) + b"\x00", "car_cut"),
    served(
        "a section longer than the file",
        lambda _: section(cbor.encode(HEAD)) + b"\xff\xff\xff\x7f" + RECORD_CID + RECORD,
        "car_cut",
    ),
]


# Answers without measure ------------------------------------------------------------------------


async def send_page(_request: web.Request) -> web.StreamResponse:
    return web.Response(text=PAGE, content_type="text/html")


async def send_bomb(_request: web.Request) -> web.StreamResponse:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as file:
        for _ in range(4 * MAX_REPO_BYTES // MIB):
            file.write(bytes(MIB))
    return web.Response(body=packed.getvalue(), headers={"content-encoding": "gzip"})


async def send_for_ever(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with suppress(ConnectionError):  # until they have had enough
        while True:
            await response.write(bytes(MIB))
    return response


async def send_slowly(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with suppress(ConnectionError):
        while True:
            await response.write(b"\x00")
            await asyncio.sleep(0.05)
    return response


async def send_half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-length": "1000"})
    await response.prepare(request)
    await response.write(bytes(500))
    assert request.transport is not None
    request.transport.abort()
    return response


# What is unreachable or in trouble is left alone for a while: each has a host of its own.
ANSWERS = [
    answered("a web page with status 200", send_page, "bad_car_header"),
    answered("a gzip bomb", send_bomb, "too_big", pds=1),
    answered("a body without end", send_for_ever, "too_big", pds=1),
    answered("a body without end, byte by byte", send_slowly, "timed_out", pds=1),
    answered("a body that is cut", send_half, "unreachable", pds=2),
]


# Trees that cost much ---------------------------------------------------------------------------


def over_nodes(
    build: Callable[[Account], tuple[bytes, list[tuple[bytes, bytes]]]],
) -> Callable[[Account], bytes]:
    """Sign any nodes and serve them, with one record."""

    def edit(account: Account) -> bytes:
        root, nodes = build(account)
        _, cid, block = sign(account, root)
        return car_of([cid], [(cid, block), *nodes, (RECORD_CID, RECORD)])

    return edit


def shared_nodes(_account: Account) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Link each node from two places in the one above it: half a million leaves in twenty nodes."""
    keys = {layer: keys_by_layer(layer, 1)[0] for layer in range(7)}
    node = RawNode(None, [RawEntry(keys[0], RECORD_CID)])
    for layer in range(1, 7):
        node = RawNode(node, [RawEntry(keys[layer], RECORD_CID, node)])
    blocks: Blocks = {}
    return node.encode(blocks), list(blocks.items())


def nodes_in_a_circle(_account: Account) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Link two nodes from each other, under CIDs that are made up."""
    one, two = cid_for(b"one"), cid_for(b"two")
    blocks = [
        (here, RawNode(there, [RawEntry(key, RECORD_CID)]).encode_alone())
        for here, there, key in zip((one, two), (two, one), keys_by_layer(1, 2), strict=True)
    ]
    return one, blocks


def crowded_node(_account: Account) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Put 10,000 keys into one node, as they belong there."""
    keys = sorted(keys_by_layer(0, 10_000))
    node = Node(0, tuple(keys), (RECORD_CID,) * len(keys), (None,) * (len(keys) + 1))
    return node.cid, [(node.cid, node.block)]


def write_deep(_world: HostileWorld, account: Account) -> None:
    assert key_layer(DEEP_KEY) == 12
    account.create(NOTE, note("far up"), rkey=DEEP_KEY.decode().partition("/")[2])


def fetch_deep(world: HostileWorld, account: Account) -> None:
    world.lose(account, lambda: write_deep(world, account))
    account.emit_sync()


def empty_repo(world: HostileWorld, account: Account) -> None:
    rkeys = [path.partition("/")[2] for path in account.leaves()]
    writes = [Write.delete(NOTE, rkey) for rkey in rkeys]
    world.lose(account, lambda: account.apply_writes(writes))
    assert account.repo.head.tree.cid == EMPTY_ROOT
    account.emit_sync()


TREES = [
    served("a node shared by many", over_nodes(shared_nodes), "key_order"),
    served("nodes that link each other", over_nodes(nodes_in_a_circle), "hash_mismatch"),
    served("a node with 10,000 keys", over_nodes(crowded_node), "node_too_big"),
    lie("a key above twelve empty layers", write_deep, ignored="it is where it belongs"),
    lie("a fetched key above twelve empty layers", fetch_deep, "sync_differs", is_refetched=True),
    lie("a repo that became empty", empty_repo, "sync_differs", is_refetched=True),
]


@pytest.mark.scenario("A-16", "A-19", "A-38", "A-39", "A-40", "A-41", "A-43", "A-44", "A-46")
@pytest.mark.rule("CA-01", "CA-02", "CA-03", "CA-04", "CA-05", "CA-06", "CA-07", "CA-08", "CA-09")
@pytest.mark.rule("CA-10", "CA-11", "CA-13", "CA-14", "CA-17", "CA-19", "MS-13", "MS-16")
@pytest.mark.rule("BF-04", "CM-11", "CM-16", "FA-11", "FA-14")
async def test_no_answer_is_taken_for_the_repo_that_is_none(world: HostileWorld) -> None:
    await world.play([*COMMITS, *BLOCKS, *FILES, *ANSWERS, *TREES])
