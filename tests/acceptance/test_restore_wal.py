"""A recovery to any moment, a standby that takes over, and a copy of the files.

The commands are those of docs/how-to/backup.md. None of these is a new database to PostgreSQL: the
change log has to notice by itself, and the service to go on from whatever there is.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sync.database import connect_sync
from sync.embedded import Binaries, EmbeddedPostgres, find_binaries
from sync.embedded.cluster import DataFolder
from sync.embedded.processes import postmaster
from sync.schema import upgrade
from sync.simnet import Simnet
from tests.acceptance.commands import PROGRAM, wait_until
from tests.acceptance.restoring import (
    Block,
    Site,
    Story,
    blocks,
    check_moment,
    make_app,
    positions,
    put,
    run_block,
    shell_environment,
)
from tests.postgres import ADMIN_PASSWORD, Server, chosen_binaries, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SEED = int(os.environ.get("STANDPIPE_TEST_RESTORE_SEED", "20261125"))
DATABASE = "standpipe"
EPOCH = "select log_epoch from sync_priv.log_state"
SETTINGS, BASE_BACKUP, RECOVER = blocks("Base backup and any moment since")
MAKE_STANDBY, RUN_STANDBY, BOTH_URL, PROMOTE = blocks("Standby")
[COPY] = blocks("File-system copies")
DUMP_EMBEDDED, RESTORE_EMBEDDED = blocks("Another major version of PostgreSQL")
AGAIN = "recovery_target_timeline = 'current'"
TARGET = "recovery_target_time = '2026-11-25 12:00:00 UTC'"
UPGRADE = "standpipe upgrade --data-dir=/recovered\n"

Positions = dict[str, tuple[Any, ...]]


@pytest.fixture(scope="module")
def programs() -> Binaries:
    return chosen_binaries()


@contextlib.asynccontextmanager
async def opened_story(server: Server, folder: Path) -> AsyncIterator[Story]:
    """Open a network, and a service and an app in the server's own database."""
    url = server.service_url(DATABASE)
    upgrade(url)
    make_app(url, server.admin_url(DATABASE))
    async with (
        Simnet(seed=SEED, pds_count=2) as net,
        contextlib.aclosing(Site(net, url, folder / "original")) as site,
    ):
        story = Story(net, site, seed=SEED)
        story.track()
        try:
            yield story
        finally:
            await story.end_traffic()


async def more_changes(site: Site, count: int = 40) -> None:
    """Wait until so many live changes were logged, as the app sees it."""
    [row] = site.rows("select coalesce(max(change_id), 0) as last from sync.changes")
    query = "select count(*) >= %s from sync.changes where is_live and change_id > %s"
    await site.until(query, count, row["last"])


def check_positions(seen: Positions, site: Site, *, epoch: int) -> None:
    """Check that nobody who saw what is lost can take anything here for it."""
    now = positions(site)
    numbers = {int(each.split(".")[1]): content for each, content in now.items()}
    lost = []
    for position, content in seen.items():
        number = int(position.split(".")[1])
        assert int(position.split(".")[0]) == epoch
        if number not in numbers:
            lost.append(position)
        else:
            assert numbers[number] == content
    assert lost, "nothing was lost: this proves nothing"
    assert not now.keys() & set(lost)
    [state] = site.rows("select * from sync_priv.log_state")
    assert state["log_epoch"] > epoch


# Any moment since a base backup -----------------------------------------------------------------


async def test_a_recovery_to_a_time_a_name_or_a_transaction_goes_on_there(
    programs: Binaries, tmp_path: Path
) -> None:
    """By a time as the page shows, with an upgrade; by name and xid without one."""
    (tmp_path / "backup" / "wal").mkdir(parents=True)
    backup = str(tmp_path / "backup")
    settings = dict(
        line.replace("/backup", backup).replace("''", "'").split(" = ", 1)
        for line in SETTINGS.text.splitlines()
    )
    settings = {name: value.strip("'") for name, value in settings.items()}
    with running_server(tmp_path / "standpipe-data", programs, settings=settings) as server:
        environ = shell_environment(programs, STANDPIPE_DATABASE_URL=server.service_url(DATABASE))
        async with opened_story(server, tmp_path) as story:
            original = story.site
            original.start_app(seed=SEED)
            story.start_traffic()
            await original.start()
            await original.until("select count(*) >= 3 from sync.heads where rev is not null")
            await run_block(BASE_BACKUP, tmp_path, environ, **{"/backup": backup})
            targets = await targets_of(story, server)
            seen = positions(original)
            [state] = original.rows(EPOCH)
            await archived(server)
            for name, target in targets.items():
                folder = tmp_path / f"recovered-{name}"
                block = put(
                    RECOVER, **{TARGET: target, "/recovered": str(folder), "/backup": backup}
                )
                if name != "time":
                    block = block.removesuffix(
                        put(Block("sh", UPGRADE), **{"/recovered": str(folder)})
                    )
                await run_block(Block("sh", block), tmp_path, environ)
                with EmbeddedPostgres(folder, binaries=programs) as url:
                    async with contextlib.aclosing(Site(story.net, url, tmp_path / name)) as copy:
                        check_moment(copy)
                        [marks] = copy.rows("select array_agg(mark) as marks from diary.marks")
                        assert marks["marks"] == ["before"], name
                        await copy.start()
                        copy.start_app(seed=SEED + 1)
                        await more_changes(copy)
                        check_positions(seen, copy, epoch=state["log_epoch"])
                        if name == "time":
                            await story.end_traffic()
                            await copy.converge(story.accounts)
                            story.start_traffic()
                        await copy.stop()
            await story.end_traffic()
            await original.converge(story.accounts)
            await original.stop()


async def targets_of(story: Story, server: Server) -> dict[str, str]:
    """Let life go on, pass the moment that is to be gone back to, and let life go on."""
    original = story.site
    await more_changes(original)
    with psycopg.connect(server.admin_url(DATABASE), autocommit=True) as admin:

        def ask(query: str) -> str:
            row = admin.execute(query.encode()).fetchone()
            assert row is not None
            return str(row[0])

        xid = ask(
            "with m as (insert into diary.marks values ('before') returning mark)"
            " select pg_current_xact_id() from m"
        )
        await more_changes(original, 5)
        now = ask("select clock_timestamp() at time zone 'UTC'")
        await more_changes(original, 2)  # so that whoever goes back to that time lacks the name
        ask("select pg_create_restore_point('before_the_mistake')")
        await more_changes(original, 5)
        admin.execute("insert into diary.marks values ('after')")
    await more_changes(original)
    return {
        "time": f"recovery_target_time = '{now} UTC'",
        "name": f"recovery_target_name = 'before_the_mistake'\n{AGAIN}",
        "xid": f"recovery_target_xid = '{xid}'\n{AGAIN}",
    }


async def archived(server: Server) -> None:
    """Wait until all that was written so far is in the archive."""
    with psycopg.connect(server.admin_url(), autocommit=True) as admin:
        row = admin.execute("select pg_walfile_name(pg_switch_wal())").fetchone()
        assert row is not None

        def is_there() -> bool:
            found = admin.execute(
                "select coalesce(last_archived_wal, '') >= %s from pg_stat_archiver", [row[0]]
            ).fetchone()
            return bool(found and found[0])

        await asyncio.to_thread(wait_until, is_there, "the archive has it")


# A standby that takes over ----------------------------------------------------------------------


async def test_a_standby_takes_over_and_the_service_finds_it(
    programs: Binaries, tmp_path: Path
) -> None:
    standby = tmp_path / "standby"
    with running_server(tmp_path / "standpipe-data", programs) as server:
        environ = shell_environment(programs, STANDPIPE_DATABASE_URL=server.service_url(DATABASE))
        async with opened_story(server, tmp_path) as story:
            site = story.site
            story.start_traffic()
            await run_block(MAKE_STANDBY, tmp_path, environ, **{"/standby": str(standby)})
            with running_standby(standby, tmp_path, environ) as port:
                site.url = both_urls(server, port)
                await site.start()
                site.start_app(seed=SEED)
                await site.until("select synchronized = repos from sync.status")
                await more_changes(site)
                cut_off(server, port)
                await more_changes(site)
                seen = positions(site)
                [state] = site.rows(EPOCH)
                kill_primary(tmp_path / "standpipe-data")
                await promote(standby, environ)
                await site.until("select not pg_is_in_recovery()")
                check_moment(site)
                await more_changes(site)
                check_positions(seen, site, epoch=state["log_epoch"])
                await story.end_traffic()
                await site.converge(story.accounts)
                await site.stop()


@contextlib.contextmanager
def running_standby(folder: Path, cwd: Path, environ: dict[str, str]) -> Iterator[int]:
    """Run the page's command beside us; yield the port of its server."""
    command = put(RUN_STANDBY, **{"/standby": str(folder)}).split()
    with subprocess.Popen([PROGRAM, *command[1:]], cwd=cwd, env=environ) as process:
        try:
            wait_until(lambda: process.poll() is not None or (folder / "port").exists(), "it runs")
            yield int((folder / "port").read_text("ascii"))
        finally:
            process.terminate()
            process.wait(60)


def both_urls(server: Server, port: int) -> str:
    """Return the page's URL of both servers, with what is true here."""
    url = server.service_url(DATABASE)
    login, _, place = url.removeprefix("postgresql://").partition("@")
    return put(
        BOTH_URL,
        **{
            "standpipe:PASSWORD": login,
            "HOST1:5432": place.partition("/")[0],
            "HOST2:5432": f"127.0.0.1:{port}",
            "/app": f"/{DATABASE}",
        },
    ).strip()


def cut_off(server: Server, port: int) -> None:
    """Have the standby miss whatever comes from now on."""
    url = f"postgresql://postgres:{ADMIN_PASSWORD}@127.0.0.1:{port}/postgres"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("alter system set primary_conninfo = ''")
        admin.execute("select pg_reload_conf()")
    with psycopg.connect(server.admin_url(), autocommit=True) as admin:

        def is_gone() -> bool:
            return admin.execute("select from pg_stat_replication").rowcount == 0

        wait_until(is_gone, "the standby hangs up")


def kill_primary(folder: Path) -> None:
    """Take the primary away as a failing machine would."""
    pid = postmaster(DataFolder(folder).cluster)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def promote(folder: Path, environ: dict[str, str]) -> None:
    """Run the page's command; pg_ctl refuses to be root, for whom the page adds a word."""
    instead = {"/standby": str(folder)}
    if os.geteuid() == 0:
        instead["pg_ctl"] = "unshare --user pg_ctl"
    await run_block(PROMOTE, folder, environ, **instead)


# A copy of the files ----------------------------------------------------------------------------

WRITE = """
    insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev)
    select repo_id, 1, %s, decode(repeat('00', 36), 'hex'), '3kaaaaaaaaaaa' from sync.repos
"""


async def test_a_copy_of_the_files_that_is_declared_numbers_on_its_own(
    programs: Binaries, tmp_path: Path
) -> None:
    folder, copied = tmp_path / "standpipe-data", tmp_path / "copied"
    with EmbeddedPostgres(folder, binaries=programs, settings={"fsync": "off"}) as url:
        upgrade(url)
        with connect_sync(url, name="test", autocommit=True) as conn:
            conn.execute("select sync.track_repos('{did:plc:ewvi7nxzyoun6zhxrhs64oiz}')")
            conn.execute("insert into sync.collections (nsid) values ('app.bsky.feed.post')")
            conn.execute(WRITE.encode(), ["before"])
    environ = shell_environment(programs)
    await run_block(COPY, tmp_path, environ, **{"/copied": str(copied)})
    told: list[dict[str, str]] = []
    for place in (folder, copied):
        with (
            EmbeddedPostgres(place, binaries=programs) as url,
            connect_sync(url, name="test", autocommit=True) as conn,
        ):
            conn.execute(WRITE.encode(), [place.name])
            rows = conn.execute("select position, rkey from sync.change_log").fetchall()
            told.append({row["rkey"]: row["position"] for row in rows})
    numbers = [{rkey: each.split(".")[1] for rkey, each in one.items()} for one in told]
    assert numbers[0]["before"] == numbers[1]["before"]
    assert numbers[0]["standpipe-data"] not in numbers[1].values()
    assert not set(told[0].values()) & set(told[1].values())


async def test_the_embedded_database_moves_to_a_new_folder(
    programs: Binaries, tmp_path: Path
) -> None:
    with EmbeddedPostgres(
        tmp_path / "standpipe-data", binaries=programs, settings={"fsync": "off"}
    ) as url:
        upgrade(url)
        with connect_sync(url, name="test", autocommit=True) as conn:
            conn.execute("select sync.track_repos('{did:plc:ewvi7nxzyoun6zhxrhs64oiz}')")
    environ = shell_environment(programs)
    await run_block(DUMP_EMBEDDED, tmp_path, environ)
    await run_block(RESTORE_EMBEDDED, tmp_path, environ)
    with (
        EmbeddedPostgres(tmp_path / "new-data", binaries=find_binaries()) as url,
        connect_sync(url, name="test", autocommit=True) as conn,
    ):
        assert len(conn.execute("select did from sync.repo_status").fetchall()) == 1
        state = conn.execute(EPOCH).fetchone()
    assert state is not None
    assert state["log_epoch"] > 1
