"""What somebody says of an account, and what its own PDS makes of it."""

from pathlib import Path

import pytest

from sync.simnet import Account, Simnet
from tests.integration.rig import NOTE, Rig, note, rig_on

pytestmark = pytest.mark.timeout(120)

DELETED = {"active": False, "status": "deleted", "time": "2026-01-01T00:00:00Z"}


class Told:
    """What the database and its readers know of one account."""

    def __init__(self, rig: Rig, account: Account) -> None:
        self.rig, self.account = rig, account
        self.after = 0

    async def begin(self, *sources: tuple[str, str]) -> None:
        """Load the account, and forget what was logged so far."""
        self.account.create(NOTE, note("one"), rkey="a")
        self.rig.start(sources or None)
        await self.rig.track(self.account)
        await self.rig.level(self.account)
        self.after = await self.rig.last_change()

    async def kinds(self) -> list[str]:
        """Return what was logged since the beginning, but for identities."""
        rows = await self.rig.conn.fetch(
            "select kind from sync.changes where change_id > $1 and kind <> 'identity'"
            " order by change_id",
            self.after,
        )
        return [row["kind"] for row in rows]

    async def repo(self) -> dict[str, object]:
        """Return the repo, its head, and how much is stored of it."""
        row = await self.rig.conn.fetchrow(
            "select r.is_active, r.account_status, r.sync_state, h.rev,"
            " (select count(*) from sync.stored_records) as stored"
            " from sync.repos r join sync.heads h using (repo_id) where r.did = $1",
            self.account.did,
        )
        return dict(row)

    async def is_purged(self) -> bool:
        """Tell whether nothing is left of the account but a tombstone."""
        repo = await self.repo()
        return (repo["rev"], repo["stored"], repo["is_active"]) == (None, 0, False)

    async def is_quiet(self) -> bool:
        """Tell whether no question is open, and one has been put."""
        return await self.rig.conn.fetchval(
            "select bool_and(ask_at is null) and max(serial) > 0 from sync_priv.account_checks"
        )


def lie(net: Simnet, account: Account, said: dict[str, object]) -> None:
    """Have the relay say something that the account's host did not say."""
    net.world.relay.append(account.did, "#account", {"did": account.did, **said})


@pytest.mark.scenario("A-50")
@pytest.mark.rule("D-11", "AC-09", "AC-06")
async def test_a_relay_that_lies_hides_for_a_moment_and_deletes_nothing(clone, tmp_path: Path):
    async with Simnet(seed=91, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        told = Told(rig, net.create_account("alice.test"))
        await told.begin()
        lie(net, told.account, DELETED)
        await rig.until(lambda: seen(told, ["account", "purge", "account", "snapshot"]))
        await rig.level(told.account)
        assert await told.kinds() == ["account", "purge", "account", "snapshot"]
        await rig.stop()


async def seen(told: Told, kinds: list[str]) -> bool:
    """Tell whether this was logged."""
    return await told.kinds() == kinds


@pytest.mark.rule("D-11", "D-15", "AC-03", "AC-10")
async def test_a_deletion_waits_for_a_pds_that_is_away(clone, tmp_path: Path):
    async with Simnet(seed=92, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        told = Told(rig, net.create_account("alice.test"))
        await told.begin()
        await net.stop_server("pds0")
        told.account.delete_account()

        async def has_asked() -> bool:
            return await rig.conn.fetchval("select max(attempts) > 0 from sync_priv.account_checks")

        await rig.until(has_asked)
        repo = await told.repo()
        assert (repo["is_active"], repo["account_status"], repo["stored"]) == (False, "deleted", 1)
        assert await rig.stored(told.account) == {}
        await net.start_server("pds0")
        await rig.until(told.is_purged)
        assert await told.kinds() == ["account", "purge"]
        await rig.stop()


@pytest.mark.scenario("A-54", "A-15")
@pytest.mark.rule("AC-12")
async def test_of_two_relays_one_that_lags_makes_no_account_flap(clone, tmp_path: Path):
    """The PDS's own stream plays the second relay, which repeats a deletion of long ago."""
    async with Simnet(seed=93, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        told = Told(rig, net.create_account("alice.test"))
        second = net.pds_urls[0].replace("http://", "ws://")
        await told.begin((net.relay_url, "relay"), (second, "relay"))
        lie(net, told.account, DELETED)
        lie(net, told.account, {**DELETED, "status": "deactivated"})
        told.account.create(NOTE, note("two"), rkey="b")
        await rig.level(told.account)
        await rig.until(told.is_quiet)
        assert await told.kinds() == ["create"]
        told.account.take_down()
        await rig.until(lambda: seen(told, ["create", "account", "purge"]))
        told.account.restore()
        shown = ["create", "account", "purge", "account", "snapshot"]
        await rig.until(lambda: seen(told, shown))
        await rig.level(told.account)
        assert await told.kinds() == shown
        await rig.stop()


@pytest.mark.rule("D-11", "AC-11", "MG-03")
@pytest.mark.scenario("A-25")
@pytest.mark.parametrize("kind", ["relay", "pds"])
async def test_an_old_hosts_word_counts_for_nothing(clone, tmp_path: Path, kind: str):
    async with (
        Simnet(seed=94, pds_count=2, start_us=None) as net,
        rig_on(net, clone, tmp_path) as rig,
    ):
        told = Told(rig, net.create_account("alice.test"))
        streams = [url.replace("http://", "ws://") for url in net.pds_urls]
        sources = [(url, "pds") for url in streams] if kind == "pds" else [(net.relay_url, "relay")]
        await told.begin(*sources)
        told.account.move_account(1, resign=True)
        told.account.create(NOTE, note("two"), rkey="b")
        told.account.leave_host(0)
        await rig.level(told.account)
        await rig.until(told.is_quiet)
        told.account.create(NOTE, note("three"), rkey="c")
        await rig.level(told.account)
        assert await told.kinds() == ["create", "create"]
        await rig.stop()


@pytest.mark.rule("AC-13", "D-11")
async def test_an_account_its_pds_does_not_know_is_not_deleted_by_that(clone, tmp_path: Path):
    async with Simnet(seed=95, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        told = Told(rig, net.create_account("alice.test"))
        await told.begin()
        net.drop_next(1)
        told.account.delete_account()
        await rig.conn.execute("select sync.resync_repos($1)", [told.account.did])

        async def has_failed() -> bool:
            return (await told.repo())["sync_state"] == "failed"

        await rig.until(has_failed)
        await rig.until(told.is_quiet)
        repo = await told.repo()
        assert (repo["is_active"], repo["stored"]) == (True, 1)
        assert await told.kinds() == []
        assert "fetch_repo_not_found" in await rig.problems()
        await rig.stop()
