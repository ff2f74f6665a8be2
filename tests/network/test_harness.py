"""The network runs, and its two oracles agree on everything that other tests take from them."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.network.content import HARD_RKEY, NOTE, POST, hard_content, note, post
from tests.network.harness import (
    Account,
    Network,
    XrpcError,
    create_write,
    delete_write,
    update_write,
)

pytest_plugins = ["tests.network.fixtures"]
# The first test may have to install the packages.
pytestmark = [pytest.mark.real_pds, pytest.mark.timeout(1200)]

DAY_MS = 86_400_000
ROOT = Path(__file__).parents[2]


def test_both_oracles_agree_about_every_new_account(network: Network) -> None:
    assert [account.pds for account in network.accounts] == [0, 0, 1, 1]
    for account in network.accounts:
        assert len(agreed_records(network, account)) == 4


def test_both_oracles_agree_after_creates_updates_and_deletes(network: Network) -> None:
    for account in (network.accounts[0], network.accounts[-1]):
        for rkey in ("kept", "changed", "deleted"):
            network.create_record(account, NOTE, note(rkey), rkey=rkey)
        network.put_record(account, NOTE, note("second value"), rkey="changed")
        network.put_record(account, NOTE, note("made by a put"), rkey="put")
        network.delete_record(account, NOTE, rkey="deleted")

        records = agreed_records(network, account)
        assert records[NOTE, "kept"] == note("kept")
        assert records[NOTE, "changed"] == note("second value")
        assert records[NOTE, "put"] == note("made by a put")
        assert (NOTE, "deleted") not in records


def test_both_oracles_agree_after_batches_with_hard_content(network: Network) -> None:
    for account in (network.accounts[0], network.accounts[-1]):
        link = network.create_record(account, NOTE, note("target"), rkey="target")["cid"]
        network.apply_writes(
            account,
            [
                create_write(NOTE, HARD_RKEY, hard_content(link)),
                create_write(NOTE, "batch-changed", note("first")),
                create_write(NOTE, "batch-deleted", note("first")),
                create_write(POST, "3jzfcijpj2z2a", post("in a batch")),
            ],
        )
        network.apply_writes(
            account,
            [
                create_write(NOTE, "came-and-went", note("never seen")),
                update_write(NOTE, "batch-changed", hard_content(link)),
                delete_write(NOTE, "batch-deleted"),
                delete_write(NOTE, "came-and-went"),
            ],
        )

        records = agreed_records(network, account)
        assert records[NOTE, HARD_RKEY] == hard_content(link)
        assert records[NOTE, "batch-changed"] == hard_content(link)
        assert records[POST, "3jzfcijpj2z2a"]["text"] == "in a batch"
        assert (NOTE, "batch-deleted") not in records
        assert (NOTE, "came-and-went") not in records


def test_both_oracles_agree_after_a_key_rotation(network: Network) -> None:
    account = network.accounts[1]
    keys = network.control("rotate-key", pds=account.pds, did=account.did)
    assert keys["before"] != keys["after"]
    network.create_record(account, NOTE, note("signed by the new key"))
    assert network.oracle(account.did)["signatureValid"] is True
    agreed_records(network, account)


def test_did_documents_have_the_chosen_form(
    network: Network, request: pytest.FixtureRequest
) -> None:
    expected = {"raw": "EcdsaSecp256k1VerificationKey2019", "multikey": "Multikey"}
    form = request.node.callspec.params["network"]
    for account in network.accounts:
        document = httpx.get(f"{network.plc_url}/{account.did}", trust_env=False).json()
        assert document["verificationMethod"][0]["type"] == expected[form]


def test_a_pds_stops_and_comes_back_with_its_records(network: Network) -> None:
    account = network.accounts[0]
    before = agreed_records(network, account)
    network.control("stop", pds=account.pds)
    with pytest.raises(httpx.TransportError):
        network.query(account.pds, "_health")
    network.control("start", pds=account.pds)
    assert agreed_records(network, account) == before


def test_a_short_window_outdates_a_cursor(network: Network) -> None:
    network.control("backfill", pds=0, ms=1)
    try:
        network.create_record(network.accounts[0], NOTE, note("leaves the window at once"))
        assert b"OutdatedCursor" in first_frame(network, cursor=1)
    finally:
        network.control("backfill", pds=0, ms=DAY_MS)
    assert b"OutdatedCursor" not in first_frame(network, cursor=1)


def test_a_refused_write_says_why(network: Network) -> None:
    with pytest.raises(XrpcError, match="createRecord 400"):
        network.create_record(network.accounts[0], NOTE, {"$type": NOTE, "float": 1.5})


def test_two_networks_run_at_once_and_stop_cleanly(network: Network) -> None:
    with Network.start(pds=1, accounts=1, records=1) as other:
        stranger = other.accounts[0]
        assert stranger.did not in {account.did for account in network.accounts}
        other.create_record(stranger, NOTE, note("elsewhere"))
        assert len(agreed_records(other, stranger)) == 2
        agreed_records(network, network.accounts[0])
        assert other.stop() == 0


def test_a_network_ends_when_its_parent_is_killed(network: Network) -> None:
    program = (
        "from tests.network.harness import Network\n"
        "network = Network.start(pds=1, accounts=0)\n"
        "print(network.pid, flush=True)\n"
        "input()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        orphan = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            assert select.select([orphan], [], [], 60)[0] == [orphan]
        finally:
            os.close(orphan)


def agreed_records(network: Network, account: Account) -> dict[tuple[str, str], Any]:
    """Ask both oracles, check that they say the same, and return the values by path."""
    first = network.oracle(account.did)
    second = network.oracle_atcute(account.did)
    assert first["signatureValid"] is True
    assert first["records"] == second["records"]
    assert first["count"] == second["count"] == len(first["records"])
    return {(each["collection"], each["rkey"]): each["value"] for each in first["records"]}


def first_frame(network: Network, *, cursor: int) -> bytes:
    """Subscribe to the first PDS and return what it sends first."""
    url = f"{network.pds[0].ws_url}/xrpc/com.atproto.sync.subscribeRepos?cursor={cursor}"
    # The PDS is slow to answer a close, and we have what we came for.
    with connect(url, proxy=None, close_timeout=0.1) as socket:
        frame = socket.recv(timeout=60, decode=False)
    assert isinstance(frame, bytes)
    return frame
