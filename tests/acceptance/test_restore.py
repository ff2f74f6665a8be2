"""A plain dump of a database at work is one moment of everything, and goes on elsewhere.

The commands are those of docs/how-to/backup.md. Seeded moments; another cluster, and from
PostgreSQL 15 to 18 where both are at hand.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from sync.database import connect, connect_sync
from sync.embedded import Binaries, find_binaries
from sync.embedded.binaries import read_binaries
from sync.simnet import Simnet
from sync.simnet.faults import Hold
from tests.acceptance.restoring import (
    Block,
    Site,
    Story,
    blocks,
    check_moment,
    make_app,
    positions,
    run_block,
    shell_environment,
)
from tests.postgres import ADMIN_PASSWORD, TEMPLATE, Server, running_server

IS_LONG = "STANDPIPE_TEST_LONG" in os.environ
pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200 if IS_LONG else 300)]

SEED = int(os.environ.get("STANDPIPE_TEST_RESTORE_SEED", "20261125"))
OLD_BINARIES = Path("/usr/lib/postgresql/15/bin")

EPOCH = "select log_epoch from sync_priv.log_state"

CUSTOM, DIRECTORY, ROLES = blocks("Dump")
CREATE, RESTORE_AND_UPGRADE = blocks("Restore")
# Apart, so that the restored database can be looked at before anything has run there.
UPGRADE = Block("sh", "standpipe upgrade\n")
RESTORE = Block("sh", RESTORE_AND_UPGRADE.text.removesuffix(UPGRADE.text))
URL = "postgresql://standpipe:PASSWORD@HOST:5432/restored"


@pytest.fixture(scope="module")
def programs() -> Binaries:
    """Return the programs of the newest version: a dump goes there."""
    return find_binaries()


@pytest.fixture(scope="module")
def other_cluster(tmp_path_factory: pytest.TempPathFactory, programs: Binaries) -> Iterator[Server]:
    """Start the server that dumps are restored in; nobody ever upgraded anything there."""
    with running_server(tmp_path_factory.mktemp("other") / "data", programs) as server:
        yield server


@pytest.fixture(scope="module")
def old_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server of the oldest version we work with."""
    binaries = read_binaries(OLD_BINARIES)
    if binaries is None:
        sentence = f"there is no PostgreSQL in {OLD_BINARIES}: install postgresql-15"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    with running_server(tmp_path_factory.mktemp("old") / "data", binaries) as server:
        server.make_template()
        yield server


Moment = Callable[[Story, contextlib.AsyncExitStack], Awaitable[None]]


@contextlib.asynccontextmanager
async def opened_story(server: Server, folder: Path) -> AsyncIterator[Story]:
    """Open a network, a database on `server`, and end whatever runs at the end."""
    with server.database(template=TEMPLATE) as name:
        make_app(server.service_url(name), server.admin_url(name))
        async with Simnet(seed=SEED, pds_count=2) as net:
            site = Site(net, server.service_url(name), folder / "original")
            story = Story(net, site, seed=SEED)
            try:
                yield story
            finally:
                await story.end_traffic()
                await site.aclose()


# The moments: each brings the story to where it is dumped; `held` lets go of what it holds.


async def during_first_loads(story: Story, held: contextlib.AsyncExitStack) -> None:
    """Some repos are loaded, one is being downloaded, others wait; the app still walks."""
    hold = story.net.hold_get_repo(story.accounts[3].did)
    held.callback(hold.release)
    for account in story.accounts[5:]:
        story.net.fail_next("sync.getRepo", did=account.did, status=500)
    await story.site.start()
    await arrived(hold)
    await story.site.until("select count(*) >= 3 from sync.heads where rev is not null")


async def with_held_commits_and_a_purge(story: Story, held: contextlib.AsyncExitStack) -> None:
    """Commits of a repo are held while it is fetched anew, and another is on its way out."""
    await story.site.start()
    await story.site.until("select synchronized = repos from sync.status")
    account, gone = story.accounts[1], story.accounts.pop(4)
    story.net.drop_next(2)
    hold = story.net.hold_get_repo(account.did)
    held.callback(hold.release)
    story.site.rows("select sync.resync_repos(array[%s])", account.did)
    await arrived(hold)
    # A purge deletes nothing while an older transaction runs.
    older = await connect(story.site.url, name="older")
    held.push_async_callback(older.close)
    transaction = older.transaction()
    await transaction.start()
    await older.execute("select pg_current_xact_id()")
    story.site.rows("select sync.untrack_repos(array[%s])", gone.did)
    await story.site.until("select count(*) from sync_priv.purges where settled_xid is not null")
    await story.site.until("select count(*) from sync_priv.held_events")


async def arrived(hold: Hold) -> None:
    """Wait until a held download has begun."""
    async with asyncio.timeout(120):
        await hold.arrived.wait()


def was_interrupted(moment: dict[str, Any]) -> bool:
    return bool(moment["fetching"] >= 1 and moment["synchronized"] < moment["repos"])


def was_busy(moment: dict[str, Any]) -> bool:
    return bool(moment["held_events"] and moment["purges"] and moment["fetching"])


@pytest.mark.rule("BF-14", "CU-04")
@pytest.mark.parametrize(
    ("bring_about", "is_it", "dump", "cluster"),
    [
        (during_first_loads, was_interrupted, CUSTOM, "postgres"),
        (with_held_commits_and_a_purge, was_busy, DIRECTORY, "old_cluster"),
        *[
            (during_first_loads, was_interrupted, DIRECTORY, "old_cluster"),
            (with_held_commits_and_a_purge, was_busy, CUSTOM, "postgres"),
        ][: 2 * IS_LONG],
    ],
)
async def test_a_dump_of_a_busy_database_goes_on_in_another_cluster(
    bring_about: Moment,
    is_it: Callable[[dict[str, Any]], bool],
    dump: Block,
    cluster: str,
    other_cluster: Server,
    programs: Binaries,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    server: Server = request.getfixturevalue(cluster)
    shell = tmp_path / "shell"
    shell.mkdir()
    async with opened_story(server, tmp_path) as story, contextlib.AsyncExitStack() as held:
        original = story.site
        story.track()
        original.start_app(seed=SEED)
        story.start_traffic()
        await bring_about(story, held)
        environ = shell_environment(programs, STANDPIPE_DATABASE_URL=original.url)
        await run_block(dump, shell, environ)
        await run_block(ROLES, shell, environ)
        async with (
            restored(other_cluster, shell, programs, dump) as url,
            contextlib.aclosing(Site(story.net, url, tmp_path / "copy")) as copy,
        ):
            moment = check_moment(copy)
            assert is_it(moment), moment
            lanes = copy.rows("select lane, seq, token from sync.cursors")
            await run_block(UPGRADE, shell, environ | {"STANDPIPE_DATABASE_URL": url})
            check_upgraded(copy, moment, lanes)
            await held.aclose()
            await copy.start()
            copy.start_app(seed=SEED + 1)
            await both_go_on(story, copy, moment)


@contextlib.asynccontextmanager
async def restored(
    server: Server, shell: Path, programs: Binaries, dump: Block
) -> AsyncIterator[str]:
    """Restore what was dumped in another cluster, but for the last step; drop it at the end."""
    place = urlsplit(server.admin_url())
    environ = shell_environment(
        programs,
        PGHOST=str(place.hostname),
        PGPORT=str(place.port),
        PGUSER=str(place.username),
        PGPASSWORD=ADMIN_PASSWORD,
    )
    await run_block(CREATE, shell, environ)
    url = server.service_url("restored")
    file = "app.dump" if dump is CUSTOM else "app.dir"
    try:
        await run_block(RESTORE, shell, environ, **{URL: url, "app.dump": file})
        yield url
    finally:
        server.administer(psycopg.sql.SQL("drop database restored with (force)"))


def check_upgraded(copy: Site, moment: dict[str, Any], lanes: list[dict[str, Any]]) -> None:
    """Check what the upgrade has done with a restored database, and that it did no more."""
    now = check_moment(copy)
    assert now["log_epoch"] > moment["log_epoch"]
    assert now["fetching"] == 0
    assert now["desynchronized"] == moment["desynchronized"] + moment["fetching"]
    for kept in ("held_events", "purges", "records", "synchronized", "pending", "tombstones"):
        assert now[kept] == moment[kept], kept
    for lane in lanes:
        [after] = copy.rows("select seq, token from sync.cursors where lane = %s", lane["lane"])
        assert after["seq"] == lane["seq"]
        assert after["token"] > lane["token"]


async def both_go_on(story: Story, copy: Site, moment: dict[str, Any]) -> None:
    """Let original and copy live on the same network; both end equal to it, in ids of their own."""
    original, head = story.site, int(moment["log_head"].split(".")[1])
    live = "select count(*) > 50 from sync.change_log where is_live and change_id > %s"
    for site in (original, copy):
        await site.until(live, head)
    await story.end_traffic()
    for site in (original, copy):
        await site.converge(story.accounts)
        await site.until("select count(*) = 0 from sync_priv.purges")
    told = positions(original), positions(copy)
    assert not told[0].keys() & told[1].keys()
    numbers = [{int(each.split(".")[1]) for each in one} for one in told]
    assert max(numbers[0] & numbers[1]) <= head
    for site in (original, copy):
        await site.stop()


async def test_a_dump_of_the_whole_cluster_is_as_good(
    old_cluster: Server, other_cluster: Server, programs: Binaries, tmp_path: Path
) -> None:
    """By superusers on both sides; the roles come along."""
    with old_cluster.database(template=TEMPLATE) as name:
        url = old_cluster.service_url(name)
        with connect_sync(url, name="test", autocommit=True) as conn:
            conn.execute("select sync.track_repos('{did:plc:ewvi7nxzyoun6zhxrhs64oiz}')")
            epoch = conn.execute(EPOCH).fetchone()
        script = 'pg_dumpall --no-role-passwords --dbname="$FROM" | psql --quiet --dbname="$TO"'
        environ = shell_environment(
            programs,
            FROM=old_cluster.admin_url(),
            TO=other_cluster.admin_url(),
            PGPASSWORD=ADMIN_PASSWORD,
        )
        await run_block(Block("sh", script), tmp_path, environ)
        restored = other_cluster.service_url(name)
        await run_block(UPGRADE, tmp_path, environ | {"STANDPIPE_DATABASE_URL": restored})
        with connect_sync(restored, name="test", autocommit=True) as conn:
            assert len(conn.execute("select did from sync.repo_status").fetchall()) == 1
            assert conn.execute(EPOCH).fetchone() != epoch
