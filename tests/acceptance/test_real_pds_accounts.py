"""The service on a real PDS whose accounts are switched off, taken down and deleted."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.real_service import Service
from tests.network.content import NOTE, note
from tests.network.harness import Account, Network, XrpcError

# The first test may have to install the network's packages.
pytestmark = [pytest.mark.real_pds, pytest.mark.timeout(1200)]


@pytest.fixture
def network() -> Iterator[Network]:
    """Start a network of one's own: what is deleted there stays deleted."""
    with Network.start(pds=1, accounts=3, records=2) as network:
        yield network


def administer(network: Network, account: Account, **change: object) -> None:
    """Take an account down, or undo it, as the PDS's operator."""
    subject = {"$type": "com.atproto.admin.defs#repoRef", "did": account.did}
    reply = httpx.post(
        f"{network.pds[0].url}/xrpc/com.atproto.admin.updateSubjectStatus",
        json={"subject": subject, **change},
        auth=("admin", network.pds[0].admin_password),
    )
    reply.raise_for_status()


def delete(network: Network, account: Account) -> None:
    """Delete an account as its owner does, with the token that comes by mail."""
    network.xrpc(0, "com.atproto.server.requestAccountDelete", token=account.access_token)
    mail = network.control("email-token", pds=0, did=account.did, purpose="delete_account")
    body = {"did": account.did, "password": account.password, "token": mail["token"]}
    network.xrpc(0, "com.atproto.server.deleteAccount", body)


@pytest.mark.rule("D-11", "D-15", "AC-03", "AC-04", "AC-05", "AC-06", "AC-07")
def test_accounts_of_a_real_pds_go_and_come_back(
    network: Network, clone: str, tmp_path: Path
) -> None:
    owner, taken, gone = network.accounts
    with Service(network, clone, folder=tmp_path) as service:
        service.command("track", *(account.did for account in network.accounts))
        service.start()
        service.wait_until_level([account.did for account in network.accounts])

        def standing() -> dict[str, tuple[bool, str | None, int]]:
            rows = service.rows(
                "select did, is_active, account_status, (select count(*) from sync.stored_records s"
                " where s.repo_id = r.repo_id)::int from sync.repos r"
            )
            return {did: (is_active, status, stored) for did, is_active, status, stored in rows}

        before = standing()
        network.xrpc(0, "com.atproto.server.deactivateAccount", {}, token=owner.access_token)
        administer(network, taken, takedown={"applied": True, "ref": "case 1"})
        delete(network, gone)
        with pytest.raises(XrpcError, match="RepoNotFound"):
            network.query(0, "com.atproto.sync.getRepoStatus", did=gone.did)
        expected = {
            owner.did: (False, "deactivated", before[owner.did][2]),
            taken.did: (False, "takendown", before[taken.did][2]),
            gone.did: (False, "deleted", 0),
        }
        service.wait_until(lambda: standing() == expected, standing)
        assert service.rows("select did from sync.records") == []
        assert service.rows(
            "select rev, seen_rev from sync.heads join sync.repos using (repo_id) where did = "
            f"'{gone.did}'"
        ) == [(None, None)]

        network.xrpc(0, "com.atproto.server.activateAccount", token=owner.access_token)
        administer(network, taken, takedown={"applied": False})
        network.create_record(owner, NOTE, note("back"), rkey="back")
        service.wait_until_level([owner.did, taken.did])
        shown = {did for (did,) in service.rows("select distinct did from sync.records")}
        assert shown == {owner.did, taken.did}
        service.stop()
