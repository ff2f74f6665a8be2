"""Paths that look alike, that sort differently elsewhere, or that are none."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from psycopg import sql

from sync.atproto.cid import cid_for
from sync.database import connect_sync
from sync.embedded.binaries import read_binaries
from sync.schema import upgrade
from sync.simnet import Account
from sync.simnet.repo import Head, Write
from sync.simnet.tree import Tree
from tests.hostile.forge import sign
from tests.hostile.waits import is_at_head
from tests.hostile.world import HostileWorld, commit_honestly, hostile_world, lie
from tests.integration.rig import NOTE, note
from tests.postgres import running_server
from tests.unit.repos import record

pytestmark = pytest.mark.timeout(120)

# Some of these are one key to somebody, or stand the other way round.
ALIKE = ("Self", "self", "SELF", "a-b", "a_b", "a~b", "a:b", "a.b", "ab", "aB", "AB", "Ab",
         "1", "01", "10", "2", "9", "A", "a", "Z", "z", "_", "~", ":", "-", "...", ".a", "a.",
         "x" * 511, "x" * 512, "X" * 512)  # fmt: skip
COLLECTIONS = ("com.example.fooBar", "com.example.foobar", "com.example.fOObar")


@pytest.fixture(scope="module")
def en_us(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the service's URL of a database that sorts as people do.

    The PostgreSQL of the tests has no ICU; the system's has. In CI its absence is a failure.
    """
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    binaries = read_binaries(folders[-1]) if folders else None
    if binaries is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "no PostgreSQL of the system is here, which has ICU: install postgresql-15"
        )
    with running_server(tmp_path_factory.mktemp("icu") / "data", binaries) as server:
        server.administer(
            sql.SQL(
                "create database en_us template template0 owner standpipe"
                " locale_provider icu icu_locale 'en-US'"
            )
        )
        url = server.service_url("en_us")
        upgrade(url)
        with connect_sync(url, name="test") as conn:
            row = conn.execute("select 'a' < 'B' as is_other").fetchone()
            assert row == {"is_other": True}
        yield url


def write_alike(collections: Sequence[str], text: str, account: Account) -> None:
    """Write each key in each collection; what is there is updated."""
    there = account.leaves()
    writes = []
    for collection in collections:
        for rkey in ALIKE:
            write = Write.update if f"{collection}/{rkey}" in there else Write.create
            writes.append(write(collection, rkey, note(f"{text} {collection} {rkey}")))
    account.apply_writes(writes)


def begin_alike(_world: HostileWorld, account: Account) -> None:
    write_alike(COLLECTIONS[:2], "first", account)


def tell_alike(world: HostileWorld, account: Account) -> None:
    """Write keys that look alike: live, and then where only a fetch can see it."""
    write_alike(COLLECTIONS[2:], "first", account)
    account.update(COLLECTIONS[0], note("one of them"), rkey="self")
    account.delete(COLLECTIONS[1], "Self")
    world.lose(account, lambda: write_alike(COLLECTIONS, "again", account))
    account.emit_sync()


async def check_alike(world: HostileWorld, account: Account) -> None:
    """See that the diff met each key once, in the order of bytes, and finds no more."""
    await world.check_healed(account)
    query = (
        "select collection, rkey from sync.change_log where did = $1 and rkey is not null"
        " and not is_live order by change_id"
    )
    found = [tuple(row) for row in await world.rig.conn.fetch(query, account.did)]
    for collection in COLLECTIONS:
        told = [rkey for name, rkey in found if name == collection]
        assert told == sorted(ALIKE, key=str.encode)
    query = "select max(change_id) from sync.change_log where did = $1"
    last, asked = await world.rig.conn.fetchval(query, account.did), world.exports.asked
    before = asked[account.did]
    await world.rig.conn.fetchval("select sync.resync_repos($1)", [account.did])
    await world.check_healed(account)
    assert asked[account.did] == before + 1
    assert await world.rig.conn.fetchval(query, account.did) == last
    commit_honestly(world, account)


@pytest.mark.scenario("A-29")
@pytest.mark.rule("OP-05", "OP-06", "MS-04", "SX-09", "SX-10", "BF-05")
@pytest.mark.parametrize("sorts_as", ["bytes", "people do"])
async def test_keys_that_look_alike_are_not_the_same(
    sorts_as: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue("clone" if sorts_as == "bytes" else "en_us")
    alike = lie(
        "keys that look alike",
        tell_alike,
        "sync_differs",
        first=begin_alike,
        is_refetched=True,
        heal=check_alike,
    )
    async with hostile_world(url, tmp_path) as world:
        await world.play([alike])


# Paths that are none --------------------------------------------------------------------------

NO_RKEYS = (".", "..", "", "x" * 513, "a/b", "../../up", "a\n", "a\0", "a b", "ü", "#", "a@b",
            "%2e", "\u202e", "'; drop table sync.repos; --")  # fmt: skip
NO_COLLECTIONS = ("note", "$account", "", ".", "com.example", "com.example.note.", "com..note",
                  "com.example.no-te", "com.example.note\n", "..", "1com.example.3")  # fmt: skip
NO_PATHS = [*((NOTE, rkey) for rkey in NO_RKEYS), *((each, "self") for each in NO_COLLECTIONS)]
NO_TEXT = b"com.example.note/\xff"


def write_no_paths(account: Account) -> None:
    """Write what has no place, in one commit with something that has."""
    writes = [Write.create(collection, rkey, note("nowhere")) for collection, rkey in NO_PATHS]
    account.apply_writes([*writes, Write.create(NOTE, "good", note("here"))])


def grow(account: Account, tree: Tree) -> None:
    """Make any tree the account's own, which only a `#sync` tells."""
    rev, cid, block = sign(account, tree.cid)
    account.repo.heads.append(Head(rev, cid, block, tree))
    account.emit_sync()


async def check_places(world: HostileWorld, account: Account, *rkeys: str) -> None:
    """Wait until a repo is current, and compare which records are shown."""

    await world.rig.until(partial(is_at_head, world, account))
    first = [f"first{number}" for number in range(3)]
    wanted = {f"{NOTE}/{rkey}" for rkey in (*first, *rkeys)}
    assert (await world.rig.stored(account)).keys() == wanted


@pytest.mark.scenario("A-30")
@pytest.mark.rule("SX-10", "SX-19", "SX-20", "MS-18", "MS-20", "CM-29", "D-08")
async def test_what_has_no_place_is_left_out_and_the_rest_stays(clone: str, tmp_path: Path) -> None:
    async with hostile_world(clone, tmp_path) as world:
        account = await world.new_account()
        world.beat()
        write_no_paths(account)
        await check_places(world, account, "good")
        await world.rig.until(partial(are_counted, world, account, 1 + len(NO_PATHS)))
        account.create(NOTE, note("beside them"), rkey="live")
        await check_places(world, account, "good", "live")
        account.repo.records[cid_for(record("odd"))] = record("odd")
        grow(account, account.repo.head.tree.put(NO_TEXT, cid_for(record("odd"))))
        await check_places(world, account, "good", "live")
        account.create(NOTE, note("beside that"), rkey="later")
        await check_places(world, account, "good", "live", "later")
        world.beat()
        grow(account, account.repo.head.tree.remove(NO_TEXT))
        account.apply_writes([Write.delete(collection, rkey) for collection, rkey in NO_PATHS])
        await world.check_healed(account)
        fetched = world.exports.asked[account.did]
        commit_honestly(world, account)
        await world.check_healed(account)
        assert world.exports.asked[account.did] == fetched
        await world.check_all()


@pytest.mark.scenario("A-30")
@pytest.mark.rule("MS-20", "D-08", "BF-04")
async def test_a_first_load_leaves_out_what_has_no_place(clone: str, tmp_path: Path) -> None:
    async with hostile_world(clone, tmp_path) as world:
        account = world.net.create_account()
        write_no_paths(account)
        await world.rig.track(account)
        await world.rig.until(lambda: is_shown(world, account))
        assert (await world.rig.stored(account)).keys() == {f"{NOTE}/good"}
        await world.rig.until(partial(are_counted, world, account, len(NO_PATHS)))
        await world.check_all()


async def are_counted(world: HostileWorld, account: Account, paths: int) -> bool:
    """Tell whether so many paths that are none were counted."""
    return (await world.problems(account))["bad_path"] >= paths


async def is_shown(world: HostileWorld, account: Account) -> bool:
    """Tell whether anything of an account is shown."""
    return bool(await world.rig.stored(account))
