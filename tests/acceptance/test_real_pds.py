"""The service against real PDSes: its tables equal what two unrelated code bases read there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.real_service import Service, assert_equals_both_oracles
from tests.network.content import (
    HARD_RKEY,
    NOTE,
    POST,
    hard_content,
    hard_content_without_nul,
    note,
    post,
)
from tests.network.harness import Account, Network, create_write, delete_write, update_write

pytest_plugins = ["tests.network.fixtures"]
# The first test may have to install the network's packages.
pytestmark = [pytest.mark.real_pds, pytest.mark.timeout(1200)]

UNTRACKED = "com.example.other"
PATTERNS = ("app.bsky.feed.*", NOTE)
DAY_MS = 86_400_000


@pytest.fixture
def service(network: Network, clone: str, tmp_path: Path) -> Iterator[Service]:
    """Prepare a fresh database that tracks every account but the last."""
    with Service(network, clone, folder=tmp_path) as service:
        for pattern in PATTERNS:
            service.command("track", "--collection", pattern)
        service.command("track", *tracked_dids(network))
        yield service


def test_a_backfill_equals_both_oracles(network: Network, service: Service) -> None:
    for account in first_of_each_pds(network):
        write_hard_records(network, account, prefix="backfill")
    service.start()
    service.wait_until_level(tracked_dids(network))
    check_tables(service, network)
    for account in first_of_each_pds(network):
        assert service.changes(account.did, "backfill-kept") == [], "a first load is one row"
    assert_handles(service, network)
    service.stop()


def test_live_writes_are_applied_as_they_come(network: Network, service: Service) -> None:
    accounts = first_of_each_pds(network)
    for account in accounts:
        network.create_record(account, NOTE, note("old"), rkey="live-old")
    service.start()
    service.wait_until_level(tracked_dids(network))
    for account in accounts:
        write_hard_records(network, account, prefix="live")
        network.put_record(account, NOTE, note("new value"), rkey="live-old")
        network.delete_record(account, NOTE, rkey="live-kept")
    service.wait_until_level(tracked_dids(network))
    check_tables(service, network)
    for account in accounts:
        assert service.changes(account.did, "live-old") == [("update", True)]
        assert service.changes(account.did, "live-kept") == [("create", True), ("delete", True)]
        assert service.changes(account.did, "live-changed") == [("create", True), ("update", True)]
        assert service.changes(account.did, "live-deleted") == [("create", True), ("delete", True)]
    service.stop()


def test_missed_history_is_repaired_with_its_deletes(network: Network, service: Service) -> None:
    accounts = first_of_each_pds(network)
    for account in accounts:
        for rkey in ("missed-same", "missed-changed", "missed-deleted"):
            network.create_record(account, NOTE, note("before"), rkey=rkey)
    service.start()
    service.wait_until_level(tracked_dids(network))
    service.stop()

    for account in accounts:
        network.put_record(account, NOTE, note("while away"), rkey="missed-changed")
        network.delete_record(account, NOTE, rkey="missed-deleted")
        network.create_record(account, NOTE, note("while away"), rkey="missed-created")
        write_hard_records(network, account, prefix="missed-hard")
    set_replay_window(network, ms=1)
    try:
        service.start()
        service.wait_until_level(tracked_dids(network))
    finally:
        set_replay_window(network, ms=DAY_MS)

    check_tables(service, network)
    for account in accounts:
        assert service.changes(account.did, "missed-same") == []
        assert service.changes(account.did, "missed-changed") == [("update", False)]
        assert service.changes(account.did, "missed-deleted") == [("delete", False)]
        assert service.changes(account.did, "missed-created") == [("create", False)]
        assert service.changes(account.did, "missed-hard-came-and-went") == []
    service.stop()


def test_a_key_rotation_is_followed(network: Network, service: Service) -> None:
    account = network.accounts[0]
    service.start()
    service.wait_until_level(tracked_dids(network))
    network.control("rotate-key", pds=account.pds, did=account.did)
    network.create_record(account, NOTE, note("signed by the new key"), rkey="rotated")
    service.wait_until_level(tracked_dids(network))
    check_tables(service, network)
    network.delete_record(account, NOTE, rkey="rotated")
    service.wait_until_level(tracked_dids(network))
    check_tables(service, network)
    service.stop()


def tracked_dids(network: Network) -> list[str]:
    """Return every account but the last, which nobody asked for."""
    return [account.did for account in network.accounts[:-1]]


def first_of_each_pds(network: Network) -> list[Account]:
    """Return one tracked account of every PDS."""
    return [
        next(account for account in network.accounts if account.pds == index)
        for index in range(len(network.pds))
    ]


def check_tables(service: Service, network: Network) -> None:
    """Compare every tracked repo with both oracles; nothing else may be there."""
    for did in tracked_dids(network):
        assert_equals_both_oracles(service, network, did, is_tracked=is_tracked)
    stored = {did for (did,) in service.rows("select distinct did from sync.records")}
    assert stored == set(tracked_dids(network))


def is_tracked(collection: str) -> bool:
    """Say what PATTERNS mean, independently of the service's own code."""
    return collection == NOTE or collection.startswith("app.bsky.feed.")


def assert_handles(service: Service, network: Network) -> None:
    """Wait until every tracked handle is verified in both directions."""
    expected = {account.did: account.handle for account in network.accounts[:-1]}

    def handles() -> dict[str, str]:
        return dict(service.rows("select did, handle from sync.repos where handle is not null"))

    service.wait_until(lambda: handles() == expected, handles)


def set_replay_window(network: Network, *, ms: int) -> None:
    """Choose how long every PDS can replay; with 1 ms a cursor is outdated at once."""
    for index in range(len(network.pds)):
        # A PDS polls for what it tells: an event it has not told yet would still come live.
        network.control("told", pds=index)
        network.control("backfill", pds=index, ms=ms)


def write_hard_records(network: Network, account: Account, *, prefix: str) -> None:
    """Write what is legal and awkward, alone and in batches; `prefix` keeps tests apart."""
    target = network.create_record(account, NOTE, note("target"), rkey=f"{prefix}-kept")
    hard = hard_content(target["cid"])
    network.create_record(account, NOTE, hard, rkey=f"{prefix}-{HARD_RKEY}")
    network.create_record(account, NOTE, hard_content_without_nul(target["cid"]))
    network.create_record(
        account, UNTRACKED, note("nobody asked", collection=UNTRACKED), rkey=f"{prefix}-untracked"
    )
    network.apply_writes(
        account,
        [
            create_write(NOTE, f"{prefix}-changed", note("first")),
            create_write(NOTE, f"{prefix}-deleted", note("first")),
            create_write(UNTRACKED, f"{prefix}-batch", note("nobody asked", collection=UNTRACKED)),
            *(create_write(NOTE, f"{prefix}-many-{n}", note(str(n))) for n in range(50)),
        ],
    )
    network.apply_writes(
        account,
        [
            create_write(NOTE, f"{prefix}-came-and-went", note("never seen")),
            update_write(NOTE, f"{prefix}-changed", hard),
            delete_write(NOTE, f"{prefix}-deleted"),
            delete_write(NOTE, f"{prefix}-came-and-went"),
        ],
    )
    network.create_record(account, POST, post(f"{prefix} ✓"))
