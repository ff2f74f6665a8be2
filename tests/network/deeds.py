"""What owners and administrators do to accounts of a real PDS, beside writing records."""

import dataclasses

from tests.network.harness import Account, Network

CAR_TYPE = "application/vnd.ipld.car"


def create_account(network: Network, pds: int, *, name: str) -> Account:
    """Create an account with the handle `name`.pds<N>.test."""
    body = {
        "handle": f"{name}.pds{pds}.test",
        "email": f"{name}@pds{pds}.example.com",
        "password": f"pw-{name}",
    }
    answer = network.xrpc(pds, "com.atproto.server.createAccount", body)
    return Account(
        did=answer["did"],
        handle=body["handle"],
        pds=pds,
        password=body["password"],
        access_token=answer["accessJwt"],
    )


def deactivate(network: Network, account: Account) -> None:
    """Have the owner deactivate an account."""
    _call(network, account, "com.atproto.server.deactivateAccount", {})


def activate(network: Network, account: Account) -> None:
    """Have the owner activate an account; one that is active is announced again."""
    _call(network, account, "com.atproto.server.activateAccount")


def set_takedown(network: Network, account: Account, *, applied: bool) -> None:
    """Have the administrator take an account down, or put it back."""
    _update_status(network, account, "takedown", applied=applied)


def set_deactivated(network: Network, account: Account, *, applied: bool) -> None:
    """Have the administrator deactivate an account, or put it back."""
    _update_status(network, account, "deactivated", applied=applied)


def change_handle(network: Network, account: Account, *, name: str) -> Account:
    """Have the owner take another handle of the same host."""
    handle = f"{name}.pds{account.pds}.test"
    _call(network, account, "com.atproto.identity.updateHandle", {"handle": handle})
    return dataclasses.replace(account, handle=handle)


def give_handle(network: Network, account: Account, *, name: str) -> Account:
    """Have the administrator give an account another handle."""
    handle = f"{name}.pds{account.pds}.test"
    body = {"did": account.did, "handle": handle}
    admin = network.admin_token(account.pds)
    network.xrpc(account.pds, "com.atproto.admin.updateAccountHandle", body, admin)
    return dataclasses.replace(account, handle=handle)


def export(network: Network, account: Account) -> bytes:
    """Return the repo as a CAR file."""
    return network.download(account.pds, "com.atproto.sync.getRepo", did=account.did)


def import_repo(network: Network, account: Account, car: bytes) -> None:
    """Have the owner replace the repo by a CAR file; the host announces nothing."""
    network.upload(
        account.pds,
        "com.atproto.repo.importRepo",
        car,
        token=account.access_token,
        content_type=CAR_TYPE,
    )


def upload_blob(network: Network, account: Account, content: bytes) -> dict[str, object]:
    """Upload a picture and return how a record refers to it."""
    answer = network.upload(
        account.pds,
        "com.atproto.repo.uploadBlob",
        content,
        token=account.access_token,
        content_type="image/png",
    )
    blob: dict[str, object] = answer["blob"]
    return blob


def copy_to(network: Network, account: Account, pds: int, *, name: str) -> Account:
    """Make a deactivated account for the same DID on another host, with a copy of the repo."""
    aud = network.pds[pds].did
    permit = network.query(
        account.pds,
        "com.atproto.server.getServiceAuth",
        token=account.access_token,
        aud=aud,
        lxm="com.atproto.server.createAccount",
    )
    body = {
        "did": account.did,
        "handle": f"{name}.pds{pds}.test",
        "email": f"{name}@pds{pds}.example.com",
        "password": f"pw-{name}",
    }
    answer = network.xrpc(pds, "com.atproto.server.createAccount", body, permit["token"])
    moved = dataclasses.replace(
        account,
        handle=body["handle"],
        pds=pds,
        password=body["password"],
        access_token=answer["accessJwt"],
    )
    import_repo(network, moved, export(network, account))
    return moved


def move_identity(network: Network, account: Account, moved: Account) -> None:
    """Let the DID name the new host and its keys; the old host signs that, the new one sends it."""
    credentials = network.query(
        moved.pds,
        "com.atproto.identity.getRecommendedDidCredentials",
        token=moved.access_token,
    )
    _call(network, account, "com.atproto.identity.requestPlcOperationSignature")
    mail = network.control("email-token", pds=account.pds, did=account.did, purpose="plc_operation")
    signed = network.xrpc(
        account.pds,
        "com.atproto.identity.signPlcOperation",
        {"token": mail["token"], **credentials},
        account.access_token,
    )
    operation = {"operation": signed["operation"]}
    _call(network, moved, "com.atproto.identity.submitPlcOperation", operation)


def delete_account(network: Network, account: Account) -> None:
    """Have the owner delete an account, with the word that was mailed."""
    _call(network, account, "com.atproto.server.requestAccountDelete")
    mail = network.control(
        "email-token", pds=account.pds, did=account.did, purpose="delete_account"
    )
    body = {"did": account.did, "password": account.password, "token": mail["token"]}
    network.xrpc(account.pds, "com.atproto.server.deleteAccount", body)


def delete_at(network: Network, account: Account) -> None:
    """Have the administrator of a host delete what it has of an account."""
    admin = network.admin_token(account.pds)
    network.xrpc(account.pds, "com.atproto.admin.deleteAccount", {"did": account.did}, admin)


def _update_status(network: Network, account: Account, name: str, *, applied: bool) -> None:
    body = {
        "subject": {"$type": "com.atproto.admin.defs#repoRef", "did": account.did},
        name: {"applied": applied},
    }
    admin = network.admin_token(account.pds)
    network.xrpc(account.pds, "com.atproto.admin.updateSubjectStatus", body, admin)


def _call(
    network: Network, account: Account, nsid: str, body: dict[str, object] | None = None
) -> None:
    network.xrpc(account.pds, nsid, body, account.access_token)
